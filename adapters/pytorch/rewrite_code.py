"""The numbers in the code of a traced module, when its graph was widened or a merge changed them.

A view, a split or a slice holds numbers that follow a width. The wider layer graph has new ones in its operators, and
every operator knows the call in the code that it was lowered from. So the module is run call by call on the inputs that
it was traced with, and before a call runs, it is given the numbers that the wider graph has for it: in its arguments,
or in the attributes of the submodule that it calls. Averages that the wider graph multiplies by a factor get a
multiplication in the code; an RMSNorm that is one call is written out for it.

None of this is trusted: the module is traced again, and must give the wider graph to the last constant.

Chosen: the numbers are put into the module's own code, found by the place they have in torch's signatures, which the
functions, methods and operators of one name share. Refused: to replace the code by the program of torch.export where it
holds a width, which is simpler and loses the submodules and their training mode; and to replace equal numbers wherever
they stand, as a width and a length may be equal.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mal_graph.errors import ShapeError
from mal_graph.graph import LayerGraph, Node, Weight

from .aten.arguments import LARGEST
from .factory import told

Wanted = list[int | None] | int | float | None  # what an argument must be; None, and None in it: as it is


def held(graph: LayerGraph, why: str) -> ShapeError:
    return ShapeError(f"{graph.name} cannot be given back as a module: {why}; save it as an ONNX file")


def put_widths(
    module: fx.GraphModule, graph: LayerGraph, origins: Mapping[str, str], inputs: Mapping[str, Any]
) -> None:
    """Make the code of a module say the widths that a graph has.

    Args:
        module: a copy of what was traced, with the weights of the graph; changed in place.
        origins: the call in the code that an operator or a constant of the graph was lowered from, "" if unknown.
        inputs: what the module is run on, by the name of the input.

    Raises:
        ShapeError: the code does not run with the widths.
    """
    Widening(module, graph, origins).over(inputs)
    for part in module.modules():
        put_sizes(part)
    module.recompile()


# What a submodule says of the axes of its weight.
SIZES: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("out_features", "in_features"),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
    nn.PReLU: ("num_parameters",),
}


def put_sizes(part: Any) -> None:
    """Make a submodule say the sizes of its weight."""
    if not isinstance(getattr(part, "weight", None), Tensor):
        return
    for names in (names for kind, names in SIZES.items() if isinstance(part, kind)):
        for name, size in zip(names, part.weight.shape, strict=True):
            setattr(part, name, size)
    if isinstance(part, nn.modules.conv._ConvNd):
        makes, takes = part.weight.shape[:2]
        channels = (takes * part.groups, makes)
        part.in_channels, part.out_channels = channels[::-1] if part.transposed else channels
        part.kernel_size = tuple(part.weight.shape[2:])


# --- one call ---------------------------------------------------------------------------------------------------


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
        found: Tensor = self.value(0, "input", "self")
        return found

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
    maker = graph.nodes[graph.producer[name]]
    return [i for piece in maker.inputs for i in integers(graph, piece)] if maker.op == "Concat" else [None]


# What the arguments of a call must be. A call that was lowered to nothing leaves all sizes as they are.


def shape(call: Call) -> list[int | None]:
    """The shape of the result."""
    node = call.first("Reshape", "Expand")
    if node is None:
        return list(call.x.shape)
    return [None if size == -1 else size for size in call.integers(node, 1)]


def viewed(call: Call) -> Wanted:
    """The shape of a view; its one length that follows the inputs is left to torch if it does not fit any more."""
    found = shape(call)
    given = call.value(1, "size", "shape")
    values = call.args[1:] if isinstance(given, int) else given
    if found.count(None) != 1 or len(values) != len(found):
        return found
    place = found.index(None)
    if prod(values[place] if size is None else size for size in found) != call.x.numel():
        found[place] = -1
    return found


def unflattened(call: Call) -> Wanted:
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
    found = [] if node is None else list(node.attribute("pads"))
    front, back = found[: len(found) // 2], found[len(found) // 2 :]
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


def normalized(call: Call) -> Wanted:
    """The last axes, as many as are named."""
    given = call.value(1, "normalized_shape") if call.part is None else call.part.normalized_shape
    return list(call.x.shape[-len(given) :])


def epsilon(call: Call) -> Wanted:
    node = call.first("LayerNormalization")
    return None if node is None else float(node.attribute("epsilon"))


def scale(call: Call) -> Wanted:
    """What attention multiplies by: it follows from the width unless it is said."""
    factor = next(weight for weight in call.constants if weight.is_float)
    found = factor.read().reshape(())
    default = np.asarray(call.x.shape[-1] ** -0.5, found.dtype)
    return None if call.value(6, "scale") is None and found == default else float(found)


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


VIEW = (Argument(1, ("size", "shape"), viewed, spread=True),)
EXPAND = (Argument(1, ("size", "shape"), shape, spread=True),)
MADE = (Argument(0, ("size",), made_sizes, spread=True),)
NEW = (Argument(1, ("size",), made_sizes, spread=True),)
GROUPS = Argument(6, ("groups",), groups, 1)
NORMALIZED = Argument(1, ("normalized_shape",), normalized)
WINDOW = (Argument(4, ("padding",), pads, 0), Argument(5, ("dilation",), dilations, 1))

# By the name of the function, method or operator: these share signatures.
CALLS: Mapping[str, tuple[Argument, ...]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), VIEW),
    **dict.fromkeys(("expand", "broadcast_to"), EXPAND),
    "unflatten": (Argument(2, ("sizes", "unflattened_size"), unflattened),),
    **dict.fromkeys(("zeros", "ones", "full"), MADE),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full"), NEW),
    "tensor_split": (Argument(1, ("indices_or_sections", "indices", "sections"), cuts),),
    "narrow": (Argument(2, ("start",), start), Argument(3, ("length",), length)),
    "slice": (Argument(2, ("start",), start, 0), Argument(3, ("end",), end, LARGEST)),
    "select": (Argument(2, ("index",), index),),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), (*WINDOW, GROUPS)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (GROUPS,)),
    "convolution": (*WINDOW, Argument(8, ("groups",), groups)),
    "group_norm": (Argument(1, ("num_groups",), norm_groups),),
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
    nn.modules.batchnorm._NormBase: {"num_features": channels},
    nn.GroupNorm: {"num_groups": norm_groups, "num_channels": channels},
    nn.LayerNorm: {"normalized_shape": normalized, "eps": epsilon},
    nn.RMSNorm: {"normalized_shape": normalized},
    nn.ChannelShuffle: {"groups": shuffled_groups},
    nn.Unflatten: {"unflattened_size": unflattened},
    nn.MultiheadAttention: {"embed_dim": embedded, "num_heads": heads, "kdim": key_width, "vdim": value_width},
}


def name_of(node: fx.Node) -> str:
    """What is called: an operator without namespace and overload."""
    if node.op == "call_method":
        return str(node.target)
    schema = getattr(node.target, "_schema", None)
    found: str = getattr(node.target, "__name__", "") if schema is None else schema.name.rpartition("::")[2]
    return found


# --- the module, call by call -----------------------------------------------------------------------------------


class Widening(fx.Interpreter):
    """Runs a module and puts widths into each call before it."""

    def __init__(self, module: fx.GraphModule, graph: LayerGraph, origins: Mapping[str, str]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.code = module.graph
        self.wide = graph
        self.made: dict[str, list[Node]] = {}
        for node in graph.nodes:
            self.made.setdefault(origins.get(node.name, ""), []).append(node)
        self.constants: dict[str, list[Weight]] = {}
        for name, weight in graph.weights.items():
            self.constants.setdefault(origins.get(name, ""), []).append(weight)
        self.factors = factors(graph, origins)
        self.replaced: list[fx.Node] = []

    def over(self, inputs: Mapping[str, Any]) -> None:
        """Run on inputs by name. Raises ShapeError."""
        given = {node: inputs[str(node.target)] for node in self.code.nodes if node.op == "placeholder"}
        self.run(initial_env=given, enable_io_processing=False)
        for node in dict.fromkeys(self.replaced):
            if not node.users and node.op.startswith("call"):
                self.code.erase_node(node)

    def run_node(self, n: fx.Node) -> Any:
        try:
            if n.op in ("call_function", "call_method", "call_module"):
                self.widen(n)
            return super().run_node(n)
        except Exception as error:  # a call raises whatever its code raises
            raise held(self.wide, f"{n.name} in its code does not follow a width: {told(error)}") from error

    def widen(self, node: fx.Node) -> None:
        """Put widths into a call."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        part = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        made, constants = self.made.get(node.name, ()), self.constants.get(node.name, ())
        call = Call(args, kwargs, part, self.wide, made, constants)
        name = name_of(node)
        if part is not None:
            put_attributes(call)
        elif name in PARTED:
            put_parts(node, name, call)
        elif name in NUMERIC:
            put_number(node, call)
        elif node.target is operator.getitem:
            put_indices(node, call)
        else:
            for each in CALLS.get(name, ()):
                self.put(node, call, each)
        average = node
        if node.name in self.factors and (name == "rms_norm" or isinstance(part, nn.RMSNorm)):
            average = written_out(node, call)
            self.replaced.append(node)
        for factor in self.factors.get(node.name, ()):
            average = multiplied(average, factor)

    def put(self, node: fx.Node, call: Call, argument: Argument) -> None:
        """Give a call an argument that it must have."""
        wanted, place = argument.want(call), argument.place
        if wanted is None:
            return
        if place >= len(node.args):
            name = next((name for name in argument.names if name in node.kwargs), argument.names[0])
            given, value = node.kwargs.get(name), call.kwargs.get(name, argument.default)
            new = self.fitted(node, given, value, wanted)
            node.kwargs = node.kwargs if new is given else {**node.kwargs, name: new}
        elif argument.spread and isinstance(call.args[place], int):
            node.args = (*node.args[:place], *self.fitted(node, node.args[place:], call.args[place:], wanted))
        else:
            node.update_arg(place, self.fitted(node, node.args[place], call.args[place], wanted))

    def fitted(self, node: fx.Node, given: Any, value: Any, wanted: Wanted) -> Any:
        """What an argument becomes: what was given wherever its value is the wanted one."""
        if not isinstance(wanted, list):
            return given if fits(value, wanted) else wanted
        if isinstance(value, int):  # one for all axes
            return given if all(fits(value, each) for each in wanted) else wanted
        if isinstance(value, str) or len(value) != len(wanted) or all(map(fits, value, wanted)):
            return given
        if isinstance(given, fx.Node):
            given = [
                self.entry(node, given, i) if fits(v, w) else w
                for i, (v, w) in enumerate(zip(value, wanted, strict=True))
            ]
        new = tuple(g if fits(v, w) else w for g, v, w in zip(given, value, wanted, strict=True))
        self.replaced += [old for old, g in zip(given, new, strict=True) if old is not g and isinstance(old, fx.Node)]
        return new

    def entry(self, node: fx.Node, sequence: fx.Node, place: int) -> fx.Node:
        """A call in front of a node that takes one entry of several sizes."""
        with self.code.inserting_before(node):
            new: fx.Node = self.code.call_function(operator.getitem, (sequence, place))
        self.env[new] = self.env[sequence][place]
        return new


def fits(value: Any, wanted: Any) -> bool:
    """Whether a number may stay: it is the wanted one, is not known there, or follows from the others."""
    if isinstance(value, int) and isinstance(wanted, int):
        return value == -1 or min(value, LARGEST) == wanted
    return wanted is None or bool(value == wanted)


def put_attributes(call: Call) -> None:
    """Give a submodule what it must hold for the call that it makes."""
    for name, want in (item for kind, row in PARTS.items() if isinstance(call.part, kind) for item in row.items()):
        wanted, now = want(call), getattr(call.part, name)
        if wanted is None or isinstance(now, str):
            continue
        if isinstance(wanted, list):
            new: Any = tuple(v if fits(v, w) else w for v, w in zip(now, wanted, strict=True))
        else:
            new = wanted
        setattr(call.part, name, new)


def put_number(node: fx.Node, call: Call) -> None:
    """Give arithmetic with a number in the code the number that the graph has for it."""
    stored = [weight for weight in call.constants if weight.is_float and weight.size == 1]
    places = [place for place, value in enumerate(call.args) if type(value) in (int, float)]
    if len(stored) == len(places) == 1:
        new = stored[0].read().reshape(())
        if new != np.asarray(call.args[places[0]], new.dtype):
            node.update_arg(places[0], float(new))


def put_parts(node: fx.Node, name: str, call: Call) -> None:
    """Give a call that cuts an axis into parts their lengths; as a list where they are not regular any more."""
    made, axis = call.first("Split"), call.axis(2)
    size = call.x.shape[axis]
    wanted = [size] if made is None else call.integers(made, 1)
    lengths = [length for length in wanted if length is not None]
    value = call.value(1, "split_size", "split_size_or_sections", "split_sizes", "chunks")
    if len(lengths) != len(wanted) or part_lengths(name, value, size) == lengths:
        return
    if "chunk" not in name and part_lengths(name, lengths[0], size) == lengths and isinstance(value, int):
        parts: int | list[int] = lengths[0]
    else:
        parts = lengths
        if node.op == "call_method":
            node.target = "split"
        elif hasattr(node.target, "_schema"):
            node.target = torch.ops.aten.split_with_sizes.default
        else:
            node.target = torch.split
    node.args, node.kwargs = (node.all_input_nodes[0], parts, axis), {}


def part_lengths(name: str, value: int | Sequence[int], size: int) -> list[int]:
    """The lengths that an axis is cut into."""
    if not isinstance(value, int):
        return list(value)
    each = -(-size // value) if "chunk" in name else value
    return [min(each, size - first) for first in range(0, size, each)]


def put_indices(node: fx.Node, call: Call) -> None:
    """Give an indexing its bounds and indices."""
    if not isinstance(call.x, Tensor):
        return
    given, values = node.args[1], call.args[1]
    if isinstance(given, tuple):
        node.update_arg(1, tuple(indices(given, values, call)))
    else:
        node.update_arg(1, *indices((given,), (values,), call))


def indices(given: Sequence[Any], values: Sequence[Any], call: Call) -> Iterator[Any]:
    """The entries of an indexing: each is an operator on the axis that it meets, unless it takes all of that."""
    left = [made for made in call.made if made.op in ("Slice", "Gather")]
    named = sum(value is not None and value is not Ellipsis for value in values)
    axis = place = 0  # of the tensor that the entries so far give, and of the tensor that is indexed
    for entry, value in zip(given, values, strict=True):
        if value is Ellipsis:
            axis, place = axis + call.x.ndim - named, place + call.x.ndim - named
            yield entry
            continue
        made = next((made for made in left if cut_axis(call, made) == axis), None)
        if value is None:
            axis += 1
            yield entry
        elif isinstance(value, slice):
            yield bounds(entry, value, call, made, call.x.shape[place])
            axis, place = axis + 1, place + 1
        else:
            yield entry if made is None else chosen(entry, value, call.integers(made, 1))
            axis, place = axis + (not isinstance(value, int)), place + 1
        if made is not None and value is not None:
            left.remove(made)


def cut_axis(call: Call, made: Node) -> int | None:
    return made.attribute("axis", 0) if made.op == "Gather" else call.integers(made, 3)[0]


def bounds(given: Any, value: slice, call: Call, made: Node | None, size: int) -> slice:
    """A slice with the bounds that it must have."""
    if made is None:
        first, last = None, whole_end(value.stop, size)
    else:
        first, last = (call.integers(made, slot)[0] for slot in (1, 2))
    return slice(
        given.start if fits(0 if value.start is None else value.start, first) else first,
        given.stop if fits(LARGEST if value.stop is None else value.stop, last) else last,
        given.step,
    )


def chosen(given: Any, value: Any, wanted: list[int | None]) -> Any:
    """An index, or a list of them, that must select others."""
    if isinstance(value, int):
        return given if fits(value, wanted[0]) else wanted[0]
    return [*wanted] if isinstance(value, list) and value != wanted else given


# --- averages ---------------------------------------------------------------------------------------------------


def factors(graph: LayerGraph, origins: Mapping[str, str]) -> dict[str, list[float]]:
    """What averages are multiplied by, one after the other, by name of the call in the code. Raises ShapeError for
    anything else that stands between the operators that were traced."""
    found: dict[str, list[float]] = {}
    behind: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in origins:
            continue
        factor = graph.weights.get(node.inputs[1]) if node.op == "Mul" else None
        maker = graph.nodes[graph.producer[node.inputs[0]]].name
        call = behind.get(maker, origins.get(maker, ""))
        if factor is None or factor.size != 1 or not call:
            raise held(graph, f"its code has no place for {node.name}, which the merge put in")
        behind[node.name] = call
        found.setdefault(call, []).append(float(factor.read().item()))
    return found


def multiplied(average: fx.Node, factor: float) -> fx.Node:
    """A call that multiplies what another one gives by a factor, for all that read it."""
    with average.graph.inserting_after(average):
        new: fx.Node = average.graph.call_function(torch.mul, (average, factor))
    average.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    return new


def written_out(node: fx.Node, call: Call) -> fx.Node:
    """The average in an RMSNorm, whose parts are written out behind it and take its place."""
    shape, eps = (call.value(place, name) for place, name in ((1, "normalized_shape"), (3, "eps")))
    weight = node.args[2] if len(node.args) > 2 else node.kwargs.get("weight")
    if call.part is not None:
        shape, eps, weight = call.part.normalized_shape, call.part.eps, call.part.weight
    x, code = node.all_input_nodes[0], node.graph
    floor = torch.finfo(call.x.dtype).eps if eps is None else eps
    with code.inserting_before(node.next):
        square = code.call_function(torch.mul, (x, x))
        average = code.call_function(torch.mean, (square, list(range(-len(shape), 0))), {"keepdim": True})
        root = code.call_function(torch.sqrt, (code.call_function(torch.add, (average, floor)),))
        made = code.call_function(torch.div, (x, root))
        if weight is not None:
            stored = weight if call.part is None else code.get_attr(f"{node.target}.weight")
            made = code.call_function(torch.mul, (made, stored))
    node.replace_all_uses_with(made)
    return average


# --- and the verification -----------------------------------------------------------------------------------------


def difference(graph: LayerGraph, other: LayerGraph) -> str:
    """Where two graphs differ, "" if they are equal but for the names of what lies between."""
    for node, twin in zip_longest(graph.nodes, other.nodes):
        if node is None or twin is None or node.op != twin.op:
            return f"{'nothing' if node is None else node.name} is {'nothing' if twin is None else twin.op}"
    names = dict(zip((v.name for v in graph.inputs), (v.name for v in other.inputs), strict=True))
    for node, twin in zip(graph.nodes, other.nodes, strict=True):
        if len(filled(node)) != len(filled(twin)):
            return f"{node.name} reads {len(filled(twin))} tensors instead of {len(filled(node))}"
        for slot, (name, its) in enumerate(zip(filled(node), filled(twin), strict=True)):
            if name in graph.weights and its in other.weights:
                if not is_equal(graph.weights[name], other.weights[its]):
                    return f"{node.name} reads {shown(other.weights[its])} instead of {shown(graph.weights[name])}"
            elif names.get(name, name) != its:
                return f"{node.name} reads another tensor as input {slot}"
        for key in node.attributes.keys() | twin.attributes.keys():
            if not np.array_equal(node.attribute(key), twin.attribute(key)):
                return f"{key} of {node.name} is {twin.attribute(key)} instead of {node.attribute(key)}"
        names.update(zip(node.outputs, twin.outputs, strict=True))
    wanted = [(names.get(value.name), value.shape) for value in graph.outputs]
    return "" if wanted == [(value.name, value.shape) for value in other.outputs] else "the outputs are others"


def filled(node: Node) -> tuple[str, ...]:
    """The inputs of an operator up to the last that is given."""
    count = max((slot + 1 for slot, name in enumerate(node.inputs) if name), default=0)
    return node.inputs[:count]


def is_equal(a: Weight, b: Weight) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.read().tobytes() == b.read().tobytes()


def shown(weight: Weight) -> str:
    if weight.size <= 8:
        return f"{weight.name} {weight.read().tolist()}"
    return f"{weight.name} of shape {list(weight.shape)}"
