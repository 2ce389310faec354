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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mal_graph.errors import ShapeError
from mal_graph.graph import LayerGraph, Node, Weight

from .aten.arguments import LARGEST
from .call_numbers import (
    CALLS,
    NUMERIC,
    PARTED,
    PARTS,
    Argument,
    Call,
    Wanted,
    name_of,
    whole_end,
)
from .factory import one_line


def cannot_give_back(graph: LayerGraph, why: str) -> ShapeError:
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
    Widening(module, graph, origins).run_on(inputs)
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

    def run_on(self, inputs: Mapping[str, Any]) -> None:
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
            raise cannot_give_back(
                self.wide, f"{n.name} in its code does not follow a width: {one_line(error)}"
            ) from error

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
        if node.name in self.factors:
            self.multiply_average(node, call, is_norm=name == "rms_norm" or isinstance(part, nn.RMSNorm))

    def multiply_average(self, node: fx.Node, call: Call, is_norm: bool) -> None:
        """Multiply an average by the factors that the wider graph has behind it."""
        average = node
        if is_norm:
            average = write_out_norm(node, call)
            self.replaced.append(node)
        for factor in self.factors[node.name]:
            average = multiply(average, factor)

    def put(self, node: fx.Node, call: Call, argument: Argument) -> None:
        """Give a call an argument that it must have."""
        wanted, place = argument.want(call), argument.place
        if wanted is None:
            return
        if place >= len(node.args):
            name = next((name for name in argument.names if name in node.kwargs), argument.names[0])
            given, value = node.kwargs.get(name), call.kwargs.get(name, argument.default)
            new = self.fit(node, given, value, wanted)
            node.kwargs = node.kwargs if new is given else {**node.kwargs, name: new}
        elif argument.spread and isinstance(call.args[place], int):
            node.args = (*node.args[:place], *self.fit(node, node.args[place:], call.args[place:], wanted))
        else:
            node.update_arg(place, self.fit(node, node.args[place], call.args[place], wanted))

    def fit(self, node: fx.Node, given: Any, value: Any, wanted: Wanted) -> Any:
        """What an argument becomes: what was given wherever its value is the wanted one."""
        if not isinstance(wanted, list):
            return given if fits(value, wanted) else wanted
        if isinstance(value, int):  # one for all axes
            return given if all(fits(value, each) for each in wanted) else wanted
        if isinstance(value, str) or len(value) != len(wanted) or all(map(fits, value, wanted)):
            return given
        return self.fit_entries(node, given, value, wanted)

    def fit_entries(self, node: fx.Node, given: Any, value: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
        """What the entries of an argument become; `given` may be one node that makes them all."""
        stays = [fits(v, w) for v, w in zip(value, wanted, strict=True)]
        if isinstance(given, fx.Node):
            given = [self.insert_entry(node, given, place) if stay else None for place, stay in enumerate(stays)]
        self.replaced += [old for old, stay in zip(given, stays, strict=True) if not stay and isinstance(old, fx.Node)]
        return tuple(old if stay else new for old, new, stay in zip(given, wanted, stays, strict=True))

    def insert_entry(self, node: fx.Node, sequence: fx.Node, place: int) -> fx.Node:
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
        node.update_arg(1, tuple(new_indices(given, values, call)))
    else:
        node.update_arg(1, *new_indices((given,), (values,), call))


def new_indices(given: Sequence[Any], values: Sequence[Any], call: Call) -> Iterator[Any]:
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
            yield new_bounds(entry, value, call, made, call.x.shape[place])
            axis, place = axis + 1, place + 1
        else:
            yield entry if made is None else new_index(entry, value, call.integers(made, 1))
            axis, place = axis + (not isinstance(value, int)), place + 1
        if made is not None and value is not None:
            left.remove(made)


def cut_axis(call: Call, made: Node) -> int | None:
    return made.attribute("axis", 0) if made.op == "Gather" else call.integers(made, 3)[0]


def new_bounds(given: Any, value: slice, call: Call, made: Node | None, size: int) -> slice:
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


def new_index(given: Any, value: Any, wanted: list[int | None]) -> Any:
    """An index, or a list of them, that must select others."""
    if isinstance(value, int):
        return given if fits(value, wanted[0]) else wanted[0]
    return [*wanted] if isinstance(value, list) and value != wanted else given


def factors(graph: LayerGraph, origins: Mapping[str, str]) -> dict[str, list[float]]:
    """What averages are multiplied by, one after the other, by name of the call in the code. Raises ShapeError for
    anything else that stands between the operators that were traced."""
    by_call: dict[str, list[float]] = {}
    behind: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in origins:
            continue
        factor = graph.weights.get(node.inputs[1]) if node.op == "Mul" else None
        producer = graph.nodes[graph.producer[node.inputs[0]]].name
        call = behind.get(producer, origins.get(producer, ""))
        if factor is None or factor.size != 1 or not call:
            raise cannot_give_back(graph, f"its code has no place for {node.name}, which the merge put in")
        behind[node.name] = call
        by_call.setdefault(call, []).append(float(factor.read().item()))
    return by_call


def multiply(average: fx.Node, factor: float) -> fx.Node:
    """A call that multiplies what another one gives by a factor, for all that read it."""
    with average.graph.inserting_after(average):
        new: fx.Node = average.graph.call_function(torch.mul, (average, factor))
    average.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    return new


def write_out_norm(node: fx.Node, call: Call) -> fx.Node:
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
