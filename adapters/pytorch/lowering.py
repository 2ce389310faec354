"""What a lowering works with: tensors on their way, and where the operators that stand for them are collected.

`aten` says operator by operator what ATen's vocabulary is in ONNX's; `walk` goes through a program and asks it.
So there is one table of axis rules, and a traced module is what its exported file would be: the same operators in the
same order, under the module's own names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import onnx
import sympy
import torch
from torch import Tensor, fx
from torch.utils._sympy.functions import FloorDiv

from mal_graph.errors import UnsupportedModel
from mal_graph.graph import Array, Declared, Node, Weight, weight_of

OPSET = 21  # the first in which GroupNormalization scales channels, as torch does; onnxruntime runs it from 1.20 on
HALVES = {torch.bfloat16: ml_dtypes.bfloat16, torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn}

Size = int | torch.SymInt
Number = int | float | bool | torch.SymInt


@dataclass(frozen=True)
class Wire:
    """A tensor of the program: its name in the layer graph, its type, and its shape with torch's symbols in it."""

    name: str
    dtype: torch.dtype
    shape: tuple[Size, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    def side(self, axis: int) -> int:
        """The length of an axis that must be known."""
        size = self.shape[axis]
        if not isinstance(size, int):
            raise UnsupportedModel(f"axis {axis % self.rank} of {self.name!r} has no fixed length: give it one")
        return size


@dataclass(frozen=True)
class Packed:
    """A stored tensor of ONNX that the module keeps in parts: the gates of a recurrent layer.

    Attributes:
        parts: names in the module's state.
        pack: makes the tensor of the parts.
        unpack: makes the parts of the tensor.
    """

    parts: tuple[str, ...]
    pack: Callable[[Sequence[Array]], Array]
    unpack: Callable[[Array], Sequence[Array]]


@dataclass
class Lowered:
    """What a program becomes: operators, stored tensors, which of these the module keeps in parts, and of what node of
    the program each operator and constant was made."""

    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    packed: dict[str, Packed] = field(default_factory=dict)
    made_of: dict[str, fx.Node] = field(default_factory=dict)
    symbols: dict[sympy.Expr, tuple[str, int]] = field(default_factory=dict)  # the input and axis it is the length of
    names: set[str] = field(default_factory=set)

    def unused(self, name: str) -> str:
        """The name, changed if it is taken, and taken from now on."""
        free, count = name, 1
        while free in self.names:
            count += 1
            free = f"{name}.{count}"
        self.names.add(free)
        return free


def sizes_of(made: Tensor) -> tuple[Size, ...]:
    """The shape of a tensor without values; a symbol that torch found to be a number is that number."""
    sizes = (size if isinstance(size, int) else size.node.expr for size in made.shape)
    return tuple(
        size if isinstance(expr, int) or not expr.is_Integer else int(expr)
        for size, expr in zip(made.shape, sizes, strict=True)
    )


def numpy_type(dtype: torch.dtype) -> np.dtype[Any]:
    """numpy's type for torch's. Raises UnsupportedModel."""
    if dtype in HALVES:
        half: np.dtype[Any] = np.dtype(HALVES[dtype])
        return half
    try:
        made = np.empty(0, str(dtype).removeprefix("torch."))
    except TypeError:
        raise UnsupportedModel(
            f"cannot trace tensors of type {dtype}: dequantise the module or change its type"
        ) from None
    return made.dtype


def shared_array(tensor: Tensor) -> Array:
    """The values of a tensor on the CPU as an array on the same memory."""
    tensor = tensor.detach()
    if tensor.dtype in HALVES:
        bits = tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int8)
        return bits.cpu().numpy().view(HALVES[tensor.dtype])
    values: Array = tensor.cpu().resolve_conj().resolve_neg().numpy()
    return values


def shared_weight(name: str, tensor: Tensor) -> Weight:
    """A handle on a tensor; nothing is copied while it is on the CPU."""

    def read() -> Array:
        values = shared_array(tensor).view()
        values.flags.writeable = False
        return values

    return Weight(name, tuple(tensor.shape), numpy_type(tensor.dtype), read)


class Site:
    """One operator of the program while it is lowered."""

    def __init__(self, into: Lowered, node: fx.Node, path: str) -> None:
        self.into = into
        self.node = node
        self.path = path

    @property
    def made(self) -> Any:
        """What torch says of the result: a tensor without values, or several."""
        return self.node.meta["val"]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.made.dtype
        return dtype

    @property
    def shape(self) -> tuple[Size, ...]:
        return sizes_of(self.made)

    def op(self, op: str, *inputs: Wire | str | None, **attributes: Any) -> str:
        """A new operator with one output; gives the name of that."""
        return self.ops(op, 1, *inputs, **attributes)[0]

    def ops(self, op: str, outputs: int, *inputs: Wire | str | None, **attributes: Any) -> tuple[str, ...]:
        """A new operator with several outputs."""
        names = tuple(self.into.unused(self.node.name) for _ in range(outputs))
        for key, value in attributes.items():
            if any(isinstance(number, torch.SymInt) for number in (value if isinstance(value, list) else [value])):
                raise UnsupportedModel(f"{key} of {op} follows the inputs' sizes: give the inputs fixed shapes")
        made = Node(
            name=self.into.unused(f"{self.path}/{op}"),
            op=op,
            inputs=tuple(named(wire) for wire in inputs),
            outputs=names,
            attributes={key: value for key, value in attributes.items() if value is not None},
        )
        self.into.nodes.append(made)
        self.into.made_of[made.name] = self.node
        return names

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A stored constant; gives its name."""
        weight = weight_of(self.into.unused(f"{self.node.name}.constant"), np.asarray(values, dtype))
        self.into.weights[weight.name] = replace(weight, declared=Declared.WRITTEN)
        self.into.made_of[weight.name] = self.node
        return weight.name

    def number(self, value: Number, dtype: torch.dtype | None = None) -> str:
        """A scalar of a type, that of the result if left out."""
        dtype = self.dtype if dtype is None else dtype
        if isinstance(value, torch.SymInt):
            return self.cast(self.op("Squeeze", self.size(value), self.constant([0])), dtype)
        return self.constant(value, numpy_type(dtype))

    def cast(self, name: str, dtype: torch.dtype) -> str:
        return self.op("Cast", name, to=onnx.helper.np_dtype_to_tensor_dtype(numpy_type(dtype)))

    def as_type(self, value: Wire | Number, dtype: torch.dtype) -> str:
        """A tensor or a number in a type."""
        if not isinstance(value, Wire):
            return self.number(value, dtype)
        return value.name if value.dtype == dtype else self.cast(value.name, dtype)

    # --- sizes

    def size(self, size: Size) -> str:
        """A length as a vector of one integer, measured at run time where it is a symbol."""
        return self.constant([size]) if isinstance(size, int) else self.expression(size.node.expr)

    def expression(self, expr: sympy.Expr) -> str:
        """A formula over the lengths of the inputs' axes."""
        if expr.is_Integer:
            return self.constant([int(expr)])
        if expr in self.into.symbols:
            name, axis = self.into.symbols[expr]
            return self.op("Shape", name, start=axis, end=axis + 1)
        folded = {sympy.Add: "Add", sympy.Mul: "Mul", sympy.Max: "Max", sympy.Min: "Min", FloorDiv: "Div"}
        op = folded.get(expr.func)
        if op is None:
            raise UnsupportedModel(
                f"the length {expr} of an axis cannot be written in ONNX: give the inputs fixed shapes"
            )
        first, *rest = (self.expression(part) for part in expr.args)
        for other in rest:
            first = self.op(op, first, other)
        return first

    def sizes(self, shape: Sequence[Size]) -> str:
        """A shape as a vector of integers."""
        if all(isinstance(size, int) for size in shape):
            return self.constant(list(shape))
        return self.op("Concat", *(self.size(size) for size in shape), axis=0)

    # --- what many lowerings need

    def reshape(self, x: Wire | str, shape: Sequence[Size]) -> str:
        """The target is a constant while no more than one length is a symbol."""
        symbols = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        if len(symbols) == 1 and 0 not in shape:
            shape = [-1 if axis == symbols[0] else size for axis, size in enumerate(shape)]
        return self.op("Reshape", x, self.sizes(shape))

    def transpose(self, x: Wire | str, order: Sequence[int]) -> str:
        return self.op("Transpose", x, perm=list(order))

    def unsqueeze(self, x: Wire | str, axes: Sequence[int]) -> str:
        return self.op("Unsqueeze", x, self.constant(list(axes)))

    def squeeze(self, x: Wire | str, axes: Sequence[int]) -> str:
        return self.op("Squeeze", x, self.constant(list(axes)))

    def slice(self, x: Wire | str, axis: int, start: Size, end: Size, step: int = 1) -> str:
        bounds = (self.size(start), self.size(end), self.constant([axis]))
        return self.op("Slice", x, *bounds, *([self.constant([step])] if step != 1 else []))


def named(wire: Wire | str | None) -> str:
    return "" if wire is None else wire.name if isinstance(wire, Wire) else wire


Lowering = Callable[..., Any]
F = TypeVar("F", bound=Lowering)
TABLE: dict[str, Lowering] = {}


def lowers(*ops: str) -> Callable[[F], F]:
    """Enter a function into the table: it gets the site and the operator's arguments in the order of its schema, and
    gives the name of what it makes, or a tuple of names."""

    def enter(function: F) -> F:
        TABLE.update(dict.fromkeys(ops, function))
        return function

    return enter


def lowering_of(target: Any, table: Mapping[str, Lowering] = TABLE) -> Lowering | None:
    """The lowering of an ATen operator; one that works in place is lowered like the one that does not."""
    packet, _, overload = str(target).removeprefix("aten.").partition(".")
    for name in (packet, packet.removesuffix("_")):
        lowering = table.get(f"{name}.{overload}", table.get(name))
        if lowering is not None:
            return lowering
    return None
