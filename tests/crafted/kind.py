"""What a crafted file is: how it is made, which command meets it, and what is said."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from builders import Net
from onnx import TensorProto, helper, numpy_helper

MODEL = "m.onnx"
KINDS: "dict[str, Kind]" = {}

INT64 = TensorProto.INT64
LEAST, MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Kind:
    """One kind of crafted file.

    Attributes:
        build: writes the files into a folder that holds a sound `base.onnx` and `data.npz`.
        says: a pattern of what is said; "" where the file is taken as it is.
        words: of the command.
        is_slow: whether it takes seconds.
    """

    name: str
    build: Callable[[Path], None]
    says: str = ""
    words: tuple[str, ...] = ("inspect", MODEL)
    is_slow: bool = field(default=False)


def written(says: str = "", *words: str, is_slow: bool = False):
    """Note a function that writes files into a folder as a kind."""

    def note(build: Callable[[Path], None]) -> Callable[[Path], None]:
        KINDS[build.__name__] = Kind(build.__name__, build, says, words or ("inspect", MODEL), is_slow)
        return build

    return note


def model(says: str = "", *words: str, is_slow: bool = False):
    """Note a function that makes a model as a kind."""

    def note(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        def build(folder: Path) -> None:
            (folder / MODEL).write_bytes(make().SerializeToString())

        KINDS[make.__name__] = Kind(make.__name__, build, says, words or ("inspect", MODEL), is_slow)
        return make

    return note


def read_by_all(net: Net, x: str, big: str) -> onnx.ModelProto:
    """A model that adds one number of a tensor to what it computes."""
    return net.proto(net.op("Add", x, net.op("ReduceMax", net.op("Cast", big, to=TensorProto.FLOAT), keepdims=0)))


def begun() -> tuple[Net, str]:
    """A net with one layer, and what it makes."""
    net = Net()
    return net, net.linear(net.input("x", ("N", 8)), 8, 4)


def computed(net: Net, x: str, *numbers: int) -> str:
    """Numbers that show only when the model runs."""
    rank = net.op("Shape", net.op("Shape", x))  # 2
    return net.op("Add", net.constant(np.array([number - 2 for number in numbers])), rank)


def raw(*nodes: onnx.NodeProto, stored: dict[str, object] | None = None, **more: object) -> onnx.ModelProto:
    """A model of these nodes from x (N, 8) to y, nothing inferred."""
    initializers = [
        one if isinstance(one, TensorProto) else numpy_helper.from_array(np.asarray(one), name)
        for name, one in (stored or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more)
