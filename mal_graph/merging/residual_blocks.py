"""Residual blocks: branches beside a stream, found in one network and laid beside the stream of another.

A residual block is an addition of a stream and of a branch that reads nothing but this stream. Laid beside the stream
of another network, with zeros in what the branch ends in (its last contraction and the bias behind it, or scale and
shift of a norm), it adds nothing to it. An activation that follows the addition belongs to the block where it does
nothing the second time and the stream has passed it already, as the ReLU of a ResNet.

The place is found along the donor's own way: from the layer that the stream last comes from, through the same operators
behind its partner.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.errors import ShapeError
from mal_graph.graph import Array, LayerGraph, Node, Weight, unused_name, weight_of
from mal_graph.network import Layer, Parameter, data_inputs, find_layers, find_parameters, find_root
from mal_graph.operators import AtZero, Homogeneity, row_of
from mal_graph.symmetry import AxisGroup, Network, plan_resizing, resize_graph

ENDS = ("weight", "bias", "scale", "shift")  # roles of what is zero where a branch ends

Partners = Mapping[str, str]  # names of the base's layers by those of the donor's


class NoPlace(Exception):
    """Why nothing in the base can stand for a layer of the donor; caught where the layer is listed as not used."""


@dataclass(frozen=True)
class Block:
    """A branch beside a stream.

    Attributes:
        stream: the tensor that the branch reads and that it is added to.
        branch: indices of its operators, in order.
        addition: index of the addition.
        layers: names of the layers it consists of.
    """

    stream: str
    branch: tuple[int, ...]
    addition: int
    layers: tuple[str, ...]


def find_blocks(graph: LayerGraph, layers: Sequence[Layer]) -> tuple[Block, ...]:
    """The residual blocks of a graph that consist of whole layers, in order."""
    by_node = {p.node: layer for layer in layers for p in layer.applied}
    blocks = []
    for index, node in enumerate(graph.nodes):
        for stream, end in added_tensors(graph, node):
            branch = branch_between(graph, stream, end, index)
            inside = {by_node[i].name for i in branch if i in by_node}
            own = [layer for layer in layers if layer.name in inside]
            if own and all(p.node in branch for layer in own for p in layer.applied):
                blocks.append(Block(stream, tuple(sorted(branch)), index, tuple(layer.name for layer in own)))
    return tuple(blocks)


def added_tensors(graph: LayerGraph, node: Node) -> list[tuple[str, str]]:
    """The two computed tensors that an addition adds, either way round; nothing for any other operator."""
    row = row_of(node)
    if row is None or not (row.is_sum and row.commutes) or len(node.inputs) != 2:
        return []
    one, other = node.inputs
    return [(one, other), (other, one)] if one in graph.producer and other in graph.producer else []


def branch_between(graph: LayerGraph, stream: str, end: str, addition: int) -> set[int]:
    """The operators that make `end` of `stream` and of stored tensors alone, with nobody else reading what is between;
    empty if there is no such branch."""
    branch: set[int] = set()
    first, waiting = graph.producer[stream], [end]
    while waiting:
        tensor = waiting.pop()
        if tensor in (stream, "") or tensor in graph.weights or graph.producer.get(tensor) in branch:
            continue
        index = graph.producer.get(tensor, -1)
        if index < first and find_root(graph, tensor) is None:
            return set()
        branch.add(index)
        waiting += [*graph.nodes[index].inputs, *graph.nodes[index].captures]
    takes_stream = any(stream in graph.nodes[index].inputs for index in branch)
    return branch if takes_stream and is_closed(graph, branch, addition) else set()


def is_closed(graph: LayerGraph, branch: Collection[int], addition: int) -> bool:
    """Whether nothing but an addition reads what the operators of a branch make."""
    made = {name for index in branch for name in graph.nodes[index].outputs if name}
    consumers = {consumer for name in made for consumer, _ in graph.consumers.get(name, ())}
    return not made & graph.output_names and consumers <= {*branch, addition}


def with_block(
    base: LayerGraph, donor: Network, blocks: Sequence[Block], block: Block, partner: Partners
) -> tuple[LayerGraph, dict[str, str], set[str]]:
    """The base with a block of the donor's beside its stream, adding nothing.

    Args:
        donor, blocks: the network that the block is taken from, and all of its blocks.
        partner: for layers of the donor the layers of the base that correspond to them, by name.

    Returns:
        the graph, the names of the new layers by those of the donor's, and the stored tensors that do not end the
        branch.

    Raises:
        NoPlace: there is no such place, or the block cannot be laid there.
    """
    graph = donor.graph
    stream = corresponding_stream(base, donor, block.stream, partner)
    if stream in base.output_names:
        raise NoPlace("the stream it stands beside is an output of the model")
    copied = [*block.branch, block.addition, *what_follows(base, graph, block, stream, blocks)]
    check_operators(base, graph, [graph.nodes[index] for index in copied])
    applied = applied_inside(graph, block)
    (end,) = (name for name in graph.nodes[block.addition].inputs if name != block.stream)
    ends = ending(graph, block, applied, end)
    names = {block.stream: stream}
    nodes, stored = copies(base, fit_width(base, donor, block, partner), copied, applied, names)
    new = base.with_nodes_behind(base.producer[stream], nodes, stored)
    own = dict(zip((graph.nodes[index].name for index in copied), (node.name for node in nodes), strict=True))
    made = {name: own[name] for name in block.layers}
    check_layers(base, new, set(made.values()))
    return new, made, {names[p.tensor] for p in applied if p.shape and p.tensor not in ends}


def copies(
    base: LayerGraph, donor: LayerGraph, copied: Sequence[int], applied: Sequence[Parameter], names: dict[str, str]
) -> tuple[list[Node], list[Weight]]:
    """Operators of the donor with what they read, under names that are new in the base; `names` gets the tensors'."""
    read = dict.fromkeys(name for index in copied for name in donor.nodes[index].inputs if name in donor.weights)
    made = dict.fromkeys(name for index in copied for name in donor.nodes[index].outputs if name)
    names |= {name: unused_name(base, f"{name}.added") for name in (*read, *made)}
    stored = [replace(stored_anew(base, donor.weights[name], applied), name=names[name]) for name in read]
    taken, suffix = {node.name for node in base.nodes}, ".added"
    while any(f"{donor.nodes[index].name}{suffix}" in taken for index in copied):
        suffix += "_"
    nodes = []
    for node in (donor.nodes[index] for index in copied):
        inputs, outputs = (tuple(names[name] if name else "" for name in side) for side in (node.inputs, node.outputs))
        scope = f"{node.scope}{suffix}" if node.scope else ""
        nodes.append(replace(node, name=f"{node.name}{suffix}", inputs=inputs, outputs=outputs, scope=scope))
    return nodes, stored


def stored_anew(base: LayerGraph, weight: Weight, applied: Sequence[Parameter]) -> Weight:
    """A donor's tensor in the base's type, with the value of a unit that is not there; a constant as it is."""
    dtype = next(own.dtype for own in base.weights.values() if own.is_float) if weight.is_float else weight.dtype
    pads = [p.absent_value for p in applied if p.tensor == weight.name and p.shape]
    return weight_of(weight.name, np.full(weight.shape, pads[0], dtype) if pads else weight.read().astype(dtype))


def fit_width(base: LayerGraph, donor: Network, block: Block, partner: Partners) -> LayerGraph:
    """The donor with the units that the base has in the stream of a block. Raises NoPlace."""
    traces = donor.traces
    here = np.concatenate([np.zeros(0, np.int64), *(part.ravel() for part in traces.labels[block.stream].parts)])
    lying = np.unique(traces.unit[here])
    mine = {layer.name: layer for layer in find_layers(base)}
    theirs = {layer.name: layer for layer in donor.layers}
    pairs = [(mine[name].leading, theirs[other].leading) for other, name in partner.items()]
    units: dict[str, range] = {}
    for alike in donor.coupled:
        for group in (group for group in donor.groups.groups if group.name in alike):
            if np.isin(traces.parts[group.name], lying).any():
                width = corresponding_width(group, pairs)
                units.update(dict.fromkeys(alike if width != group.units else (), range(width)))
    try:
        change = plan_resizing(donor.graph, donor.groups, traces, units)
        return resize_graph(donor.graph, change, {}) if units else donor.graph
    except ShapeError as error:
        raise NoPlace(f"it cannot have the width of the base's stream: {error}") from None


def corresponding_width(group: AxisGroup, pairs: Sequence[tuple[Parameter | None, Parameter | None]]) -> int:
    """The units that the base has for a group of the donor, told by the first layers that have an axis with them."""
    axes = {(member.tensor, member.axis) for member in group.members if member.is_plain}
    for mine, theirs in pairs:
        if mine is None or theirs is None or len(mine.shape) != len(theirs.shape):
            continue
        for place, axis in enumerate(theirs.axes):
            if (theirs.tensor, axis) in axes and theirs.shape[place] == group.units:
                return mine.shape[place]
    return group.units


def applied_inside(graph: LayerGraph, block: Block) -> list[Parameter]:
    """The parameters of a branch. Raises NoPlace where one is used elsewhere too."""
    applied = [p for p in find_parameters(graph) if p.node in block.branch]
    tensors = {p.tensor for p in applied}
    if any(p.tensor in tensors and p.node not in block.branch for p in find_parameters(graph)):
        raise NoPlace("it shares a weight with another layer")
    return applied


def check_operators(base: LayerGraph, donor: LayerGraph, nodes: Sequence[Node]) -> None:
    for node in nodes:
        domain, row = node.op.rpartition(".")[0], row_of(node)
        mine, theirs = (graph.opsets.get(domain) for graph in (base, donor))
        if row is None or node.captures:
            raise NoPlace(f"nothing is known of {node.title}")
        if mine != theirs and not row.is_alike(mine, theirs):
            raise NoPlace(f"{node.title} is of opset {theirs}, the base of {mine}: it may mean something else there")


def check_layers(before: LayerGraph, after: LayerGraph, new: set[str]) -> None:
    """Refuse a block that would change which layer a parameter of the base belongs to, or that is no layer there."""
    own = {layer.name: {p.tensor for p in layer.parameters} for layer in find_layers(before)}
    now = {layer.name: {p.tensor for p in layer.parameters} for layer in find_layers(after)}
    if not new <= set(now) or any(now.get(name) != tensors for name, tensors in own.items()):
        raise NoPlace("beside this stream its layers would be parts of other ones")


def ending(graph: LayerGraph, block: Block, applied: Sequence[Parameter], tensor: str) -> set[str]:
    """The stored tensors that must be zero for a tensor of a branch to be zero. Raises NoPlace."""
    index = graph.producer.get(tensor, -1)
    if index not in block.branch:
        raise NoPlace("its branch ends in nothing that could be zero")
    own = {p.role: p for p in applied if p.node == index}
    with_axis = {role: p.tensor for role, p in own.items() if p.shape}
    ends = {tensor for role, tensor in with_axis.items() if role in ENDS}
    if "weight" in with_axis or "scale" in with_axis:
        return ends
    has_shift_for_all = "shift" in own and "shift" not in with_axis
    operands = [] if has_shift_for_all else silencing_operands(graph, graph.nodes[index])
    if not operands:
        raise NoPlace(f"its branch ends in {graph.nodes[index].title}, which zeros do not silence")
    row = row_of(graph.nodes[index])
    if row is not None and row.homogeneity is Homogeneity.ONE and len(operands) > 1:  # a product
        for name in operands:
            with suppress(NoPlace):
                return ends | ending(graph, block, applied, name)
    return ends.union(*(ending(graph, block, applied, name) for name in operands))


def silencing_operands(graph: LayerGraph, node: Node) -> list[str]:
    """The computed tensors that make an operator give zero where they are zero."""
    row = row_of(node)
    if row is None or row.at_zero is not AtZero.ZERO:
        return []
    return [name for name in data_inputs(node, row) if name not in graph.weights]


# --- the place ---------------------------------------------------------------------------------------------------


def corresponding_stream(base: LayerGraph, donor: Network, stream: str, partner: Partners) -> str:
    """The base's tensor that corresponds to one of the donor's. Raises NoPlace."""
    name_of = {layer.start: layer.name for layer in donor.layers}
    for path, name in ways_back(donor.graph, stream, name_of):
        if name not in partner:
            continue
        mine = next(layer for layer in find_layers(base) if layer.name == partner[name])
        tensor = base.nodes[mine.start].outputs[0]
        for index in reversed(path):
            tensor = through(base, tensor, donor.graph.nodes[index])
        return tensor
    raise NoPlace("no layer that its stream comes from has a partner")


def ways_back(
    graph: LayerGraph, tensor: str, name_of: Mapping[int, str], path: tuple[int, ...] = (), *, is_joined: bool = False
) -> Iterator[tuple[tuple[int, ...], str]]:
    """The operators between a tensor and the layers that it is made of, over one addition at most, with each layer's
    name; `name_of` has them by the node that starts them."""
    index = graph.producer.get(tensor)
    if index is None:
        return
    layer = name_of.get(index)
    node, row = graph.nodes[index], row_of(graph.nodes[index])
    if layer is not None and row is not None and not row.passes:
        yield path, layer
        return
    if row is None:
        return
    operands = [name for name in data_inputs(node, row) if name in graph.producer]
    is_joining = len(operands) > 1 and row.is_sum
    if is_joining and is_joined:
        return
    for name in sorted(operands, key=lambda name: -graph.producer[name]):
        yield from ways_back(graph, name, name_of, (*path, index), is_joined=is_joined or is_joining)


def through(graph: LayerGraph, tensor: str, like: Node) -> str:
    """What an operator like another makes of a tensor. Raises NoPlace."""
    consumers = [graph.nodes[index] for index, _ in graph.consumers.get(tensor, ())]
    alike = [node for node in consumers if node.op == like.op]
    if not alike:
        raise NoPlace(f"no {like.op} follows in the base, as {like.title} does in the donor")
    return alike[0].outputs[0]


def what_follows(base: LayerGraph, donor: LayerGraph, block: Block, stream: str, blocks: Sequence[Block]) -> list[int]:
    """The operator behind the addition that belongs to the block: what it gives is the stream of another block, or
    this one's has passed such a one. Raises NoPlace."""
    out = donor.nodes[block.addition].outputs[0]
    consumers = donor.consumers.get(out, ())
    if len(consumers) != 1 or out in donor.output_names:
        return []
    index = consumers[0][0]
    node, row = donor.nodes[index], row_of(donor.nodes[index])
    if row is None or not row.passes or row.is_sum:
        return []
    streams = {other.stream for other in blocks}
    if node.outputs[0] not in streams and not has_passed(donor, block.stream, donor, node):
        return []
    if not row.is_idempotent:
        raise NoPlace(f"{node.title} behind it does something the second time")
    if not has_passed(base, stream, donor, node):
        raise NoPlace(f"the base's stream has not passed {node.title}")
    return [index]


def has_passed(graph: LayerGraph, tensor: str, other: LayerGraph, activation: Node) -> bool:
    """Whether a tensor has passed an activation, pooled or arranged since at most."""
    while tensor in graph.producer:
        node = graph.nodes[graph.producer[tensor]]
        row = row_of(node)
        if node.op == activation.op:
            return same_settings(graph, node, other, activation)
        if row is None or not (row.moves or row.pools):
            return False
        tensor = node.inputs[0]
    return False


def same_settings(graph: LayerGraph, node: Node, other: LayerGraph, like: Node) -> bool:
    def settings(graph: LayerGraph, node: Node) -> list[Array | None]:
        return [graph.weights[name].read() if name in graph.weights else None for name in node.inputs[1:]]

    pairs = zip(settings(graph, node), settings(other, like), strict=False)
    alike = all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)
    return alike and len(node.inputs) == len(like.inputs) and dict(node.attributes) == dict(like.attributes)
