"""Writes two small residual networks of other depth, with random weights, to look at: shallow.onnx and deep.onnx.

    python make_models.py ../out

Needs what mal-graph needs, and no torch. Names are those of torch's exporter, so that blocks have names.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """Collects the nodes and weights of a network."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_output"], name=f"{name}/{kind}", **attributes))
        return f"{name}_output"

    def conv(self, name: str, x: str, units_in: int, units: int, taps: int = 3, stride: int = 1) -> str:
        weight = self.rng.normal(0, (2 / (units_in * taps * taps)) ** 0.5, (units, units_in, taps, taps))
        for role, values in (("weight", weight), ("bias", np.zeros(units))):
            self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.{role}"))
        pads = [taps // 2] * 4
        return self.op("Conv", name, x, f"{name}.weight", f"{name}.bias", pads=pads, strides=[stride, stride])

    def block(self, name: str, x: str, units_in: int, units: int, stride: int) -> str:
        """Two convolutions beside a connection that skips them."""
        y = self.op("Relu", f"{name}/relu", self.conv(f"{name}/conv1", x, units_in, units, stride=stride))
        y = self.conv(f"{name}/conv2", y, units, units)
        if stride > 1 or units_in != units:
            x = self.conv(f"{name}/downsample", x, units_in, units, 1, stride)
        return self.op("Relu", f"{name}/out", self.op("Add", name, y, x))


def residual_network(depths: tuple[int, ...], widths: tuple[int, ...], seed: int) -> onnx.ModelProto:
    """A network of stages of so many blocks, each as wide as is said."""
    writer = Writer(seed)
    x = writer.op("Relu", "/relu", writer.conv("/conv1", "image", 3, widths[0]))
    units = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            x = writer.block(f"/layer{stage}/layer{stage}.{block}", x, units, width, stride)
            units = width
    x = writer.op("Flatten", "/flatten", writer.op("GlobalAveragePool", "/pool", x))
    weight = writer.rng.normal(0, units**-0.5, (10, units)).astype(np.float32)
    writer.weights.append(numpy_helper.from_array(weight, "fc.weight"))
    writer.nodes.append(helper.make_node("Gemm", [x, "fc.weight"], ["logits"], name="/fc/Gemm", transB=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(writer.nodes, "residual", [image], [logits], writer.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(residual_network((3, 3, 3), (16, 32, 64), 0), folder / "shallow.onnx")
    onnx.save(residual_network((4, 6, 3), (16, 32, 96), 1), folder / "deep.onnx")


if __name__ == "__main__":
    main()
