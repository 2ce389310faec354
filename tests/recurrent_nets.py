"""Recurrent networks in code, and copies of them whose hidden units are permuted by hand in the tensors of the file."""

from dataclasses import dataclass

import numpy as np
import onnx
from builders import Net
from onnx import numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, SAMPLES, FEATURES, CONTEXT, OUTPUTS = 5, 2, 5, 4, 3
WAYS = ("forward", "reverse")


@dataclass(frozen=True)
class Kind:
    """What a recurrent network is like.

    Attributes:
        start: how its states start: "" at zero, "stored", or "computed" from a second input.
        reads: which outputs its head reads: "steps", "last" (the final state) or "both".
    """

    op: str = "LSTM"
    directions: int = 1
    units: tuple[int, ...] = (6,)
    bias: bool = True
    peepholes: bool = False
    after: bool = False  # a GRU's linear_before_reset
    start: str = ""
    reads: str = "both"
    lengths: bool = False
    activation: str = ""
    way: str = "forward"

    @property
    def gates(self) -> int:
        return GATES[self.op]

    @property
    def name(self) -> str:
        told = [self.op, f"{self.directions} ways", f"{len(self.units)} layers", self.start, self.reads]
        told += [word for word in ("peepholes", "after", "lengths") if getattr(self, word)]
        return " ".join(filter(None, [*told, "" if self.bias else "no bias", self.activation]))


def recurrent_net(kind: Kind, seed: int = 0, opset: int = 20) -> onnx.ModelProto:
    """Layers named by their number: W0, R0, B0, P0, H0 and C0 (initial states), V0 (what computes them); the head's
    weights are U (of every step) and L (of the last state)."""
    net = Net(seed, opset=opset, name=kind.name)
    ways = kind.directions
    x, features = net.input("x", (STEPS, SAMPLES, FEATURES)), FEATURES
    context = net.input("context", (SAMPLES, CONTEXT)) if kind.start == "computed" else ""
    lengths = net.constant(np.array([STEPS, STEPS - 2], np.int32), "lengths") if kind.lengths else ""
    for layer, units in enumerate(kind.units):
        rows = kind.gates * units
        own = [net.weight(ways, rows, features, name=f"W{layer}", scale=0.5)]
        own.append(net.weight(ways, rows, units, name=f"R{layer}", scale=0.4))
        own.append(net.weight(ways, 2 * rows, name=f"B{layer}", scale=0.3) if kind.bias else "")
        own.append(lengths)
        for state in "HC" if kind.op == "LSTM" else "H":
            own.append(initial(net, kind, f"{state}{layer}", units, context))
        own.append(net.weight(ways, 3 * units, name=f"P{layer}", scale=0.3) if kind.peepholes else "")
        attributes = {"hidden_size": units, "direction": "bidirectional" if ways == 2 else kind.way}
        attributes |= {"linear_before_reset": 1} if kind.after else {}
        attributes |= {"activations": [kind.activation] * ways} if kind.activation else {}
        while not own[-1]:
            own.pop()
        over_time, last, *_ = net.op(kind.op, x, *own, outputs=3 if kind.op == "LSTM" else 2, **attributes)
        x, features = net.op("Transpose", over_time, perm=[0, 2, 1, 3]), ways * units
        x = net.op("Reshape", x, net.constant([0, 0, features]))
    told = []
    if kind.reads != "last":
        told.append(net.op("MatMul", x, net.weight(features, OUTPUTS, name="U")))
    if kind.reads != "steps":
        by_sample = net.op("Transpose", last, perm=[1, 0, 2])
        flat = net.op("Reshape", by_sample, net.constant([0, features]))
        told.append(net.op("MatMul", flat, net.weight(features, OUTPUTS, name="L")))
    return net.proto(*told)


def initial(net: Net, kind: Kind, name: str, units: int, context: str) -> str:
    if kind.start == "stored":
        return net.weight(kind.directions, SAMPLES, units, name=name, scale=0.5)
    if kind.start == "computed":
        made = net.op("MatMul", context, net.weight(CONTEXT, kind.directions * units, name=f"V{name}", scale=0.5))
        split = net.op("Reshape", made, net.constant([SAMPLES, kind.directions, units]))
        return net.op("Transpose", split, perm=[1, 0, 2])
    return ""


def positions(kind: Kind, layer: int, way: int) -> dict[tuple[str, int], np.ndarray]:
    """Where each hidden unit of one direction lies, on the axes of the file's tensors without that of the directions,
    shape (units, places); of what has no such axis, on its own axes."""
    units = kind.units[layer]
    here = np.arange(units)

    def gates(count: int) -> np.ndarray:
        return here[:, None] + units * np.arange(count)

    found = {(f"W{layer}", 0): gates(kind.gates), (f"R{layer}", 0): gates(kind.gates), (f"R{layer}", 1): gates(1)}
    found |= {(f"B{layer}", 0): gates(2 * kind.gates)} if kind.bias else {}
    found |= {(f"P{layer}", 0): gates(3)} if kind.peepholes else {}
    for state in "HC" if kind.op == "LSTM" else "H":
        found |= {(f"{state}{layer}", 1): gates(1)} if kind.start == "stored" else {}
        found |= {(f"V{state}{layer}", 1): gates(1) + way * units} if kind.start == "computed" else {}
    outside = gates(1) + way * units
    if layer + 1 < len(kind.units):
        return found | {(f"W{layer + 1}", 1): outside}
    found |= {("U", 0): outside} if kind.reads != "last" else {}
    return found | ({("L", 0): outside} if kind.reads != "steps" else {})


def permuted_by_hand(kind: Kind, proto: onnx.ModelProto, seed: int, leave_out: str = "") -> onnx.ModelProto:
    """The network with the units of every layer and direction permuted, those of each by an order of its own.

    Args:
        leave_out: a tensor and axis, as "W0 0", on which nothing is permuted.
    """
    rng = np.random.default_rng(seed)
    values = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    for layer, units in enumerate(kind.units):
        for way in range(kind.directions):
            order = rng.permutation(units)
            for (name, axis), places in positions(kind, layer, way).items():
                if f"{name} {axis}" != leave_out:
                    permute(values, name, axis, places, order, way, layer)
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return made


def permute(
    values: dict[str, np.ndarray], name: str, axis: int, places: np.ndarray, order: np.ndarray, way: int, layer: int
) -> None:
    """Move the units on one axis: of a tensor of both directions in the half that is theirs; what reads the outputs of
    both directions reads them in both of its own."""
    whole = values[name]
    if name in ("U", "L") or name.startswith("V"):
        halves = [whole]
    elif int(name[1:]) == layer:
        halves = [whole[way]]
    else:
        halves = list(whole)
    for half in halves:
        moved = np.moveaxis(half, axis, 0)
        moved[places] = moved[places[order]]
