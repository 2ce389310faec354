"""What the numbers in a call of a module's code must be, by what the call is in a wider graph.

A call is a function, a method, an operator or a submodule. The functions, methods and operators of one name share
torch's signatures, so one table serves them; a second one has what submodules hold in attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from mal_graph.graph import LayerGraph, Node, Weight

from .aten.arguments import LARGEST

Wanted = list[int | None] | int | float | None  # what an argument must be; None, and None in it: as it is


@dataclass(frozen=True)
class Call:
    """A call in the code that is about to run, and what it is in the wider graph.

    Attributes:
        args, kwargs: the values it is given.
        part: the submodule that it calls.
        graph: the wider graph.
        made: the operators of the graph that it was lowered to.
        constants: the stored constants that it was lowered to.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    part: Any
    graph: LayerGraph
    made: Sequence[Node]
    constants: Sequence[Weight]

    @property
    def x(self) -> Tensor:
        tensor: Tensor = self.value(0, "input", "self")
        return tensor

    def value(self, place: int, *names: str, default: Any = None) -> Any:
        """The argument at a place or of a name, as it is."""
        given = [self.kwargs[name] for name in names if name in self.kwargs]
        return self.args[place] if place < len(self.args) else given[0] if given else default

    def axis(self, place: int) -> int:
        return int(self.value(place, "dim", "axis", default=0)) % self.x.ndim

    def first(self, *ops: str) -> Node | None:
        """The first operator of some kinds that the call was lowered to."""
        return next((node for node in self.made if node.op in ops), None)

    def integers(self, node: Node, slot: int) -> list[int | None]:
        """A vector of integers that an operator reads; None for what is measured at run time."""
        return integers(self.graph, node.inputs[slot])


def integers(graph: LayerGraph, name: str) -> list[int | None]:
    if name in graph.weights:
        return [int(i) for i in np.ravel(graph.weights[name].read())]
    producer = graph.nodes[graph.producer[name]]
    return [i for piece in producer.inputs for i in integers(graph, piece)] if producer.op == "Concat" else [None]


# What the arguments of a call must be. A call that was lowered to nothing leaves all sizes as they are.
def shape(call: Call) -> list[int | None]:
    """The shape of the result."""
    node = call.first("Reshape", "Expand")
    if node is None:
        return list(call.x.shape)
    return [None if size == -1 else size for size in call.integers(node, 1)]


def view_shape(call: Call) -> Wanted:
    """The shape of a view; its one length that follows the inputs is left to torch if it does not fit any more."""
    sizes = shape(call)
    given = call.value(1, "size", "shape")
    values = call.args[1:] if isinstance(given, int) else given
    if sizes.count(None) != 1 or len(values) != len(sizes):
        return sizes
    place = sizes.index(None)
    if prod(values[place] if size is None else size for size in sizes) != call.x.numel():
        sizes[place] = -1
    return sizes


def unflattened_sizes(call: Call) -> Wanted:
    """The sizes that one axis falls apart into."""
    axis = call.axis(1) if call.part is None else call.part.dim % call.x.ndim
    whole = shape(call)
    return whole[axis : axis + len(whole) - call.x.ndim + 1]


def made_sizes(call: Call) -> Wanted:
    """The shape of a constant that is filled in the code."""
    node = call.first("Expand")
    if node is not None:
        return call.integers(node, 1)
    return list(call.constants[0].shape) if call.constants else None


def cuts(call: Call) -> Wanted:
    """Where the parts of an axis end, but for the last."""
    node = call.first("Split")
    if node is None or isinstance(call.value(1, "indices_or_sections", "indices", "sections"), int):
        return None
    lengths = [length for length in call.integers(node, 1) if length is not None]
    return list[int | None](accumulate(lengths[:-1]))


def start(call: Call) -> Wanted:
    node = call.first("Slice")
    return None if node is None else call.integers(node, 1)[0]


def end(call: Call) -> Wanted:
    node = call.first("Slice")
    if node is None:
        return whole_end(call.value(3, "end"), call.x.shape[call.axis(1)])
    return call.integers(node, 2)[0]


def whole_end(given: Any, size: int) -> int | None:
    """The end of a slice that takes all of an axis."""
    return size if isinstance(given, int) and given < LARGEST else None


def length(call: Call) -> Wanted:
    first, last = start(call), end(call)
    return last - first if isinstance(first, int) and isinstance(last, int) else None


def index(call: Call) -> Wanted:
    node = call.first("Gather")
    return None if node is None else call.integers(node, 1)[0]


def pads(call: Call) -> Wanted:
    """The padding of a convolution, which torch has alike on both sides of an axis."""
    node = None if getattr(call.part, "padding_mode", "zeros") != "zeros" else call.first("Conv")
    both = [] if node is None else list(node.attribute("pads"))
    front, back = both[: len(both) // 2], both[len(both) // 2 :]
    return front if front and front == back else None


def dilations(call: Call) -> Wanted:
    node = call.first("Conv")
    return None if node is None else list(node.attribute("dilations"))


def groups(call: Call) -> Wanted:
    node = call.first("Conv", "ConvTranspose")
    return None if node is None else int(node.attribute("group", 1))


def norm_groups(call: Call) -> Wanted:
    node = call.first("GroupNormalization")
    return None if node is None else int(node.attribute("num_groups"))


def channels(call: Call) -> Wanted:
    """The length of the axis behind that of the samples, which may be missing."""
    unbatched = getattr(call.part, "_get_no_batch_dim", lambda: 0)()
    return call.x.shape[0 if call.x.ndim == unbatched else 1]


def shuffled_groups(call: Call) -> Wanted:
    node = call.first("Reshape")
    return None if node is None else call.integers(node, 1)[1]


def normalized_shape(call: Call) -> Wanted:
    """The last axes, as many as are named."""
    given = call.value(1, "normalized_shape") if call.part is None else call.part.normalized_shape
    return list(call.x.shape[-len(given) :])


def epsilon(call: Call) -> Wanted:
    nodes = [call.first(f"{kind}Normalization") for kind in ("Layer", "Group", "Instance")]
    held = [float(node.attribute("epsilon")) for node in nodes if node is not None]
    return held[0] if held else None


def scale(call: Call) -> Wanted:
    """What attention multiplies by: it follows from the width unless the call states it."""
    factor = next(weight for weight in call.constants if weight.is_float)
    value = factor.read().reshape(())
    default = np.asarray(call.x.shape[-1] ** -0.5, value.dtype)
    return None if call.value(6, "scale") is None and value == default else float(value)


def embedded(call: Call) -> Wanted:
    return call.x.shape[-1]


def heads(call: Call) -> Wanted:
    """More heads of the same width."""
    return int(call.x.shape[-1] // call.part.head_dim)


def key_width(call: Call) -> Wanted:
    return int(call.value(1, "key").shape[-1])


def value_width(call: Call) -> Wanted:
    return int(call.value(2, "value").shape[-1])


@dataclass(frozen=True)
class Argument:
    """An argument of a call.

    Attributes:
        place: where it stands.
        names: what one signature or another calls it.
        want: what it must be.
        default: what it is if left out.
        spread: it may be written as several arguments, up to the last.
    """

    place: int
    names: tuple[str, ...]
    want: Callable[[Call], Wanted]
    default: Any = None
    spread: bool = False


VIEW = (Argument(1, ("size", "shape"), view_shape, spread=True),)
EXPAND = (Argument(1, ("size", "shape"), shape, spread=True),)
MADE = (Argument(0, ("size",), made_sizes, spread=True),)
NEW = (Argument(1, ("size",), made_sizes, spread=True),)
GROUPS = Argument(6, ("groups",), groups, 1)
NORMALIZED = Argument(1, ("normalized_shape",), normalized_shape)
WINDOW = (Argument(4, ("padding",), pads, 0), Argument(5, ("dilation",), dilations, 1))
# By the name of the function, method or operator: these share signatures.
CALLS: Mapping[str, tuple[Argument, ...]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), VIEW),
    **dict.fromkeys(("expand", "broadcast_to"), EXPAND),
    "unflatten": (Argument(2, ("sizes", "unflattened_size"), unflattened_sizes),),
    **dict.fromkeys(("zeros", "ones", "full"), MADE),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full"), NEW),
    "tensor_split": (Argument(1, ("indices_or_sections", "indices", "sections"), cuts),),
    "narrow": (Argument(2, ("start",), start), Argument(3, ("length",), length)),
    "slice": (Argument(2, ("start",), start, 0), Argument(3, ("end",), end, LARGEST)),
    "select": (Argument(2, ("index",), index),),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), (*WINDOW, GROUPS)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (GROUPS,)),
    "convolution": (*WINDOW, Argument(8, ("groups",), groups)),
    "group_norm": (Argument(1, ("num_groups",), norm_groups), Argument(4, ("eps",), epsilon, 1e-5)),
    "instance_norm": (Argument(7, ("eps",), epsilon, 1e-5),),
    "layer_norm": (NORMALIZED, Argument(4, ("eps",), epsilon, 1e-5)),
    "rms_norm": (NORMALIZED,),
    "channel_shuffle": (Argument(1, ("groups",), shuffled_groups),),
    "scaled_dot_product_attention": (Argument(6, ("scale",), scale),),
}
NUMERIC = ("add", "sub", "rsub", "mul", "div", "truediv", "true_divide", "divide", "pow")
PARTED = ("split", "unsafe_split", "split_with_sizes", "chunk", "unsafe_chunk")
# What a submodule holds for the call that it makes.
PARTS: Mapping[type[nn.Module], Mapping[str, Callable[[Call], Wanted]]] = {
    nn.modules.conv._ConvNd: {"groups": groups, "padding": pads, "dilation": dilations},
    nn.modules.instancenorm._InstanceNorm: {"eps": epsilon},
    nn.modules.batchnorm._NormBase: {"num_features": channels},
    nn.GroupNorm: {"num_groups": norm_groups, "num_channels": channels, "eps": epsilon},
    nn.LayerNorm: {"normalized_shape": normalized_shape, "eps": epsilon},
    nn.RMSNorm: {"normalized_shape": normalized_shape},
    nn.ChannelShuffle: {"groups": shuffled_groups},
    nn.Unflatten: {"unflattened_size": unflattened_sizes},
    nn.MultiheadAttention: {"embed_dim": embedded, "num_heads": heads, "kdim": key_width, "vdim": value_width},
}


def name_of(node: fx.Node) -> str:
    """What is called: an operator without namespace and overload."""
    if node.op == "call_method":
        return str(node.target)
    schema = getattr(node.target, "_schema", None)
    name: str = getattr(node.target, "__name__", "") if schema is None else schema.name.rpartition("::")[2]
    return name
