"""Layers, by origin.

Every activation has one origin. A contraction with a weight starts one; elementwise, normalising, pooling and shape
operators whose data inputs share an origin keep it, so that a bias, a BatchNorm or a written-out activation belongs to
the layer before it; anything else (Concat, a residual Add) starts a join. Parameters of a join or of a model input make
a layer of kind `affine` or `table`.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph, Node
from mal_graph.network.parameters import Parameter, find_parameters
from mal_graph.network.roots import data_dependent
from mal_graph.operators import AtZero, LayerRole, Row, row_of


@dataclass(frozen=True, repr=False)
class Layer(Brief):
    """One layer: an origin and the parameters applied to it.

    Attributes:
        name: the module that its origin was exported from, where the file tells and no other layer has it; else the
            origin's node name, behind that of the module.
        kind: "linear", "conv", "conv_transpose", "affine", "table", or an operator without a row.
        start: its origin: the index of a node, or -1 - i for model input i.
        nodes: indices of the operators inside, in order.
        parameters: in the order of application; a shared tensor stands with its first user only.
        tied: tensors used here that belong to an earlier layer.
        applied: every application of a tensor, shared ones too.
        depth: the number of layers before it on the longest path from an input.
    """

    name: str
    kind: str
    start: int
    nodes: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    tied: tuple[str, ...] = ()
    applied: tuple[Parameter, ...] = ()
    depth: int = 0

    @cached_property
    def weight(self) -> Parameter | None:
        """The tensor that contracts, if this layer is a contraction."""
        return next((p for p in self.parameters if p.is_weight), None)

    @property
    def leading(self) -> Parameter | None:
        """The weight, or else the first parameter with an axis; None if it has no tensor of its own with one."""
        return self.weight or next((p for p in self.parameters if p.shape), None)

    @property
    def in_out(self) -> tuple[int, int]:
        """Units (in, out): the rows and the width of a table; an affine layer has the same number on both sides."""
        leading = self.leading
        if leading is None:
            return (1, 1)
        if leading is self.weight:
            return (leading.shape[1], leading.units)
        return (leading.shape[0], leading.shape[-1]) if len(leading.shape) == 2 else (leading.shape[0],) * 2


def find_layers(
    graph: LayerGraph, table: Mapping[str, Row] | None = None, parameters: Sequence[Parameter] | None = None
) -> tuple[Layer, ...]:
    """The layers of a graph in topological order of their origins; its parameters are found here if left out."""
    by_node: dict[int, list[Parameter]] = {}
    for parameter in find_parameters(graph, table) if parameters is None else parameters:
        by_node.setdefault(parameter.node, []).append(parameter)
    origin, members = find_origins(graph, by_node, table)
    layers = with_module_names(graph, assemble_layers(graph, members, by_node, table))
    return with_depth(graph, origin, layers, table)


def find_origins(
    graph: LayerGraph, by_node: Mapping[int, Sequence[Parameter]], table: Mapping[str, Row] | None = None
) -> tuple[dict[str, int], dict[int, list[int]]]:
    """The origin of every activation.

    Returns:
        the origin of each tensor that is no constant: the index of the node that starts it, or -1 - i for model input
        i; and the nodes inside each origin.
    """
    origin = {value.name: -1 - i for i, value in enumerate(graph.inputs)}
    members: dict[int, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        row = row_of(node, table)
        if row is not None and row.reads_shape_only:
            continue  # what only reads a shape carries no signal
        sources = {origin[name] for name in data_inputs(node, row) if name in origin}
        if not sources and not by_node.get(index):
            continue  # computed from constants alone
        start = sources.pop() if row is not None and row.passes and len(sources) == 1 else index
        members.setdefault(start, []).append(index)
        origin.update(dict.fromkeys(filter(None, node.outputs), start))
    return origin, members


def data_inputs(node: Node, row: Row | None) -> list[str]:
    """The tensors whose values an operator works on: no target shapes, bounds or other settings."""
    inputs = [name for slot, name in enumerate(node.inputs) if row is None or not row.slot(slot).setting]
    return [*inputs, *node.captures]


def assemble_layers(
    graph: LayerGraph,
    members: Mapping[int, list[int]],
    by_node: Mapping[int, list[Parameter]],
    table: Mapping[str, Row] | None,
) -> list[Layer]:
    """Origins that own parameters, as layers; a shared tensor goes to its first user."""
    owned: set[str] = set()
    layers = []
    live = data_dependent(graph)
    for start, nodes in sorted(members.items(), key=lambda item: item[1][0]):
        applied = [parameter for index in nodes for parameter in by_node.get(index, [])]
        tied = tuple(dict.fromkeys(p.tensor for p in applied if p.tensor in owned))
        is_made = has_computed_weight(graph, start, live, table)
        applied = with_biases(graph, start, applied, table, is_made=is_made)
        own = first_applications(applied, owned)
        owned.update(parameter.tensor for parameter in own)
        # Without a tensor of its own, only a contraction that shares its weight makes a layer.
        if own or start in by_node:
            is_named = start in by_node or is_made
            node = start if is_named else next((p.node for p in applied if p.shape), applied[0].node)
            kind = kind_of(graph.nodes[node], row_of(graph.nodes[node], table), start >= 0)
            layers.append(Layer(graph.nodes[node].name, kind, start, tuple(nodes), tuple(own), tied, tuple(applied)))
    return layers


def first_applications(applied: Sequence[Parameter], owned: set[str]) -> list[Parameter]:
    """The first application of each tensor that no layer owns yet."""
    first = {parameter.tensor: parameter for parameter in reversed(applied) if parameter.tensor not in owned}
    return [parameter for parameter in applied if first.get(parameter.tensor) is parameter]


def kind_of(node: Node, row: Row | None, is_inside: bool) -> str:
    """The kind of a layer that is named after a node; `is_inside` unless its origin is an input of the model."""
    if row is None:
        return node.op
    has_own_kind = row.layer_role is LayerRole.ALONE or (is_inside and row.is_contraction)
    return row.kind if has_own_kind else "affine"


def with_biases(
    graph: LayerGraph,
    start: int,
    applied: list[Parameter],
    table: Mapping[str, Row] | None,
    *,
    is_made: bool = False,
) -> list[Parameter]:
    """The parameters of a layer, where a vector added right behind a contraction that has no bias of its own is one.

    Args:
        is_made: whether the weight of the contraction is computed, so that nothing tells how many units it has.
    """
    weight = next((p for p in applied if p.is_weight), None)
    if (weight is None and not is_made) or any(p.is_bias for p in applied):
        return applied
    contraction = graph.nodes[start]

    def is_bias(parameter: Parameter) -> bool:
        node = graph.nodes[parameter.node]
        if parameter.role != "shift" or not is_addition(node, table) or contraction.outputs[0] not in node.inputs:
            return False
        return len(parameter.shape) == 1 if weight is None else parameter.shape == (weight.units,)

    is_plain = is_linear(contraction, table)
    return [replace(one, role="bias") if is_plain and is_bias(one) else one for one in applied]


def has_computed_weight(graph: LayerGraph, start: int, live: Collection[str], table: Mapping[str, Row] | None) -> bool:
    """Whether a layer starts with a contraction whose weight is computed of stored tensors, such as one under a mask.

    Args:
        live: the tensors that depend on an input of the model.
    """
    row = row_of(graph.nodes[start], table) if start >= 0 else None
    if row is None or not row.is_contraction:
        return False
    return any(name in graph.producer and name not in live for name in graph.nodes[start].inputs[:2])


def is_linear(node: Node, table: Mapping[str, Row] | None) -> bool:
    """Whether the output of a node is linear in its weight."""
    row = row_of(node, table)
    return row is not None and row.is_linear


def is_addition(node: Node, table: Mapping[str, Row] | None) -> bool:
    """Whether a node combines its operands in any order and lets a zero unit be."""
    row = row_of(node, table)
    return row is not None and row.commutes and row.at_zero is AtZero.ZERO


def with_module_names(graph: LayerGraph, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, named after the modules that they come from; several of one module keep the names of their nodes."""
    scopes = {node.name: node.scope for node in graph.nodes}
    times = Counter(scopes[layer.name] or layer.name for layer in layers)
    named = []
    for layer in layers:
        scope = scopes[layer.name]
        name = f"{scope}/{layer.name}" if scope and times[scope] > 1 else scope or layer.name
        named.append(replace(layer, name=name))
    return named


def with_depth(
    graph: LayerGraph, origin: Mapping[str, int], layers: list[Layer], table: Mapping[str, Row] | None
) -> tuple[Layer, ...]:
    """Count, for each layer, the layers before it on the longest path."""
    starts = {layer.start for layer in layers}
    before: dict[int, int] = {-1 - i: 0 for i in range(len(graph.inputs))}
    for index in sorted(set(origin.values())):
        if index >= 0:
            node = graph.nodes[index]
            named = data_inputs(node, row_of(node, table))
            sources = [origin[name] for name in named if name in origin and origin[name] != index]
            before[index] = max((before[s] + (s in starts) for s in sources), default=0)
    return tuple(replace(layer, depth=before.get(layer.start, 0)) for layer in layers)
