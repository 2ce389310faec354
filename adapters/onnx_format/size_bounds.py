"""What operators make at least, as far as stored numbers tell: refused before anything runs where it is too much.

A few bytes may unfold to any number of bytes. What is told here by numbers that the file stores is refused with the
operator's name, before this process makes anything of that size; the rest is left to the limits of the process that
runs the model.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mal_graph.errors import FileError
from mal_graph.limits import limits_in_force

from .places import shortened
from .walking import Linked

NUMBERS = ("value_float", "value_floats", "value_int", "value_ints")  # of a Constant
MOST_NUMBERS = 64  # of a stored shape: as many as an array has axes
# Operators that make as many numbers as they read, and as many as the largest of what they read.
AS_LARGE = frozenset(
    ["Abs", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Flatten", "Floor", "Gelu", "Identity", "Log"]
)
AS_LARGE |= {
    "LeakyRelu",
    "Neg",
    "Not",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Tanh",
    "Transpose",
    "Unsqueeze",
}
BROADCASTS = frozenset(["Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Mean", "Min", "Mul", "Or", "Pow"])
BROADCASTS |= {"Sub", "Sum", "Where", "Xor"}


@dataclass(frozen=True)
class Sized:
    """One operator, what it reads of stored numbers, and how many numbers its inputs have at least."""

    node: ir.Node
    sizes: Mapping[ir.Value, int]

    def numbers(self, slot: int) -> list[float] | None:
        """The few numbers stored for an input; None where they are not stored or not numbers."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        stored = stored_tensor(value)
        if stored is None or stored.size > MOST_NUMBERS or stored.dtype == ir.DataType.STRING:
            return None
        numbers = [float(number) if stored.dtype.is_floating_point() else int(number) for number in flat(stored)]
        return numbers if all(map(math.isfinite, numbers)) else None

    def size(self, slot: int) -> int:
        """How many numbers an input has at least."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        return 1 if value is None else self.sizes.get(value, 1)

    def attribute(self, name: str) -> list[int]:
        """The whole numbers of an attribute; [] where there is none."""
        held = self.node.attributes.get(name)
        if held is None or held.is_ref() or held.type not in (ir.AttributeType.INT, ir.AttributeType.INTS):
            return []
        return [held.as_int()] if held.type == ir.AttributeType.INT else list(held.as_ints())


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What the file stores for a value, by an initializer or a Constant; None where it stores no numbers.

    Refused: onnx-ir's `get_const_tensor`, which names the tensor of a Constant: it would be saved with it.
    """
    if value is None or value.const_value is not None:
        return None if value is None else value.const_value
    maker = value.producer()
    if maker is None or maker.op_type != "Constant" or maker.domain not in ("", "ai.onnx"):
        return None
    for name, attribute in maker.attributes.items():
        if name == "value" and attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            return attribute.as_tensor()
        if name in NUMBERS and not attribute.is_ref():
            return ir.tensor(attribute.value)
    return None


def flat(stored: ir.TensorProtocol) -> Iterable[float]:
    """The numbers of a small stored tensor."""
    return list(np.asarray(stored.numpy()).ravel())


def product(numbers: Sequence[float] | None) -> int:
    """At least so many, where a number below 1 says nothing."""
    return math.prod(max(1, int(number)) for number in numbers or ())


def padded(sized: Sized) -> int:
    pads = sized.numbers(1) or sized.attribute("pads")
    half = len(pads) // 2
    return product([before + after for before, after in zip(pads[:half], pads[half:], strict=False)])


def resized(sized: Sized) -> int:
    scales = sized.numbers(2) or sized.numbers(1) or []
    grown = sized.size(0) * product(scales) if scales and min(scales) >= 1 else 1
    return max(product(sized.numbers(3)), grown)


def ranged(sized: Sized) -> int:
    start, end, step = (sized.numbers(slot) for slot in range(3))
    if not start or not end or not step or not step[0]:
        return 1
    return math.ceil((end[0] - start[0]) / step[0])


def unfolded(sized: Sized) -> int:
    """What a row of stored numbers says, a dimension each."""
    return product(sized.numbers(1))


SIZES: Mapping[str, Callable[[Sized], int]] = {
    "AffineGrid": lambda sized: product((sized.numbers(1) or [])[2:]),
    "BlackmanWindow": lambda sized: product(sized.numbers(0)),
    "CenterCropPad": unfolded,
    "Concat": lambda sized: sum(sized.size(slot) for slot in range(len(sized.node.inputs))),
    "ConstantOfShape": lambda sized: product(sized.numbers(0)),
    "DFT": unfolded,
    "Expand": unfolded,
    "HammingWindow": lambda sized: product(sized.numbers(0)),
    "HannWindow": lambda sized: product(sized.numbers(0)),
    "MelWeightMatrix": lambda sized: product(sized.numbers(0)) * (product(sized.numbers(1)) // 2),
    "Multinomial": lambda sized: product(sized.attribute("sample_size")),
    "OneHot": lambda sized: sized.size(0) * unfolded(sized),
    "Pad": padded,
    "RandomNormal": lambda sized: product(sized.attribute("shape")),
    "RandomUniform": lambda sized: product(sized.attribute("shape")),
    "Range": ranged,
    "Resize": resized,
    "RoiAlign": lambda sized: product(sized.attribute("output_height") + sized.attribute("output_width")),
    "Tile": lambda sized: sized.size(0) * unfolded(sized),
    "Upsample": resized,
}


def has_bounded_sizes(linked: Linked, path: Path) -> None:
    """No operator makes more than one may, as far as stored numbers tell. Raises FileError."""
    limits = limits_in_force()
    most = limits.tensor_bytes(stored_bytes(linked.model))
    for owner, nodes in linked.owners:
        sizes = {value: least_size(value) for value in owner.inputs}
        for node in nodes:
            for value in node.inputs:
                if value is not None and value.is_initializer() and value not in sizes:
                    sizes[value] = least_size(value)
            if (trips := endless_trips(node)) > limits.MOST_TRIPS:
                raise FileError(
                    f"cannot load {path}: {named(node)} makes {trips:.3g} trips, and {limits.MOST_TRIPS:,} are the "
                    "most; export it with fewer"
                )
            made = made_at_least(Sized(node, sizes))
            if made is None or not node.outputs:
                continue
            out = node.outputs[0]
            sizes[out] = made
            nbytes = made * least_bytes(out.dtype)
            if nbytes > most:
                raise FileError(too_large(path, node, nbytes, most))


def least_bytes(dtype: ir.DataType | None) -> int:
    """The bytes of one number, 1 where its type is not known or holds less."""
    is_number = dtype is not None and dtype not in (ir.DataType.STRING, ir.DataType.UNDEFINED)
    return math.ceil(dtype.itemsize) if dtype is not None and is_number else 1


def stored_bytes(model: ir.Model) -> int:
    """What the initializers of the main graph hold."""
    stored = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in stored if tensor is not None and tensor.dtype != ir.DataType.STRING)


def least_size(value: ir.Value) -> int:
    """How many numbers a declared or stored tensor has at least."""
    shape = value.shape if value.const_value is None else value.const_value.shape
    return product([dim for dim in shape or () if isinstance(dim, int)])


def made_at_least(sized: Sized) -> int | None:
    """How many numbers an operator makes at least; None where nothing is told."""
    node = sized.node
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant":
        stored = stored_tensor(node.outputs[0]) if node.outputs else None
        return None if stored is None else product([dim for dim in stored.shape if isinstance(dim, int)])
    if node.op_type in AS_LARGE:
        return sized.size(0)
    if node.op_type in BROADCASTS:
        return max((sized.size(slot) for slot in range(len(node.inputs))), default=1)
    return SIZES[node.op_type](sized) if node.op_type in SIZES else None


def endless_trips(node: ir.Node) -> float:
    """The stored trips of a loop that no condition ends; 0 of other operators."""
    if node.op_type != "Loop" or "body" not in node.attributes or node.attributes["body"].is_ref():
        return 0
    trips = Sized(node, {}).numbers(0)
    body = node.attributes["body"].as_graph()
    if not trips or not body.outputs or len(body.inputs) < 2:
        return 0
    maker = body.outputs[0].producer()
    passes = maker is not None and maker.op_type == "Identity" and maker.inputs[0] is body.inputs[1]
    return trips[0] if passes or maker is None or maker.op_type == "Constant" else 0


def too_large(path: Path, node: ir.Node, nbytes: int, most: int) -> str:
    size = f"a tensor of {nbytes / 2**20:.3g} MiB or more"
    return (
        f"cannot load {path}: {named(node)} makes {size}, and {most >> 20} MiB is what may be made; give more with "
        "`max_memory`, or export it with smaller sizes"
    )


def named(node: ir.Node) -> str:
    """How messages call a node."""
    outputs = " ".join(value.name or "" for value in node.outputs)
    return f"node {shortened(node.name or outputs)!r} ({node.op_type})"
