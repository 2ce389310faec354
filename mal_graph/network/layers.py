"""Layers and their parameters, by origin.

Every activation has one origin. A contraction with a weight starts one; elementwise, normalising, pooling and shape
operators whose data inputs share an origin keep it, so that a bias, a BatchNorm or a written-out activation belongs to
the layer before it; anything else (Concat, a residual Add) starts a join. Parameters of a join or of a model input make
a layer of kind `affine` or `table`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mal_graph.graph import Array, LayerGraph, Node, Weight
from mal_graph.operators import AtZero, LayerRole, ParameterKind, Row, Slot, groups_of, row_of, source_axes


@dataclass(frozen=True)
class Parameter:
    """One stored float tensor at the place where it is applied.

    Its canonical form is (units out, units in, kernel...) for a contraction's weight and the axes longer than 1, in
    order, for anything else: a bias of shape (1, C, 1, 1) is a vector of C.

    Attributes:
        tensor: name of the stored weight.
        node, slot: where it is applied.
        role: what it is there: "weight", "bias", "shift", "scale", "mean", "variance", "slope"...
        kind: what it is to the operator that applies it.
        axes: for each canonical axis the stored tensor's axis; None for an axis that exists only in the canonical form.
        shape: the canonical shape.
        absent_value: value of a unit that is not there.
        factor: what the operator multiplies the tensor by.
        blocks: how many units each row of a contraction's weight produces: one in every block of a transposed
            convolution.
    """

    tensor: str
    node: int
    slot: int
    role: str
    kind: ParameterKind
    axes: tuple[int | None, ...]
    shape: tuple[int, ...]
    absent_value: float = 0.0
    factor: float = 1.0
    blocks: int = 1

    @property
    def is_weight(self) -> bool:
        """Whether a contraction sums over units with it."""
        return self.role == "weight"

    @property
    def is_bias(self) -> bool:
        """Whether it is the bias of a contraction."""
        return self.role == "bias"

    @property
    def units(self) -> int:
        """How many units a contraction's weight produces."""
        return self.shape[0] * self.blocks

    @property
    def neutral(self) -> float:
        """The value that lets a unit pass as it is."""
        return 1.0 if self.kind in (ParameterKind.SCALE, ParameterKind.VARIANCE) else 0.0

    def canonical(self, stored: Array) -> Array:
        """The stored tensor in canonical form."""
        kept = [axis for axis in self.axes if axis is not None]
        dropped = [axis for axis in range(stored.ndim) if axis not in kept]
        return stored.transpose(*kept, *dropped).reshape(self.shape)

    def stored(self, canonical: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `canonical`, for a stored tensor of `shape`."""
        kept = [axis for axis in self.axes if axis is not None]
        order = kept + [axis for axis in range(len(shape)) if axis not in kept]
        moved = canonical.reshape([shape[axis] for axis in order])
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return moved.transpose(inverse)


@dataclass(frozen=True)
class Layer:
    """One layer: an origin and the parameters applied to it.

    Attributes:
        name: the origin's node name.
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
        """Units (in, out); an affine layer has the same number on both sides."""
        leading = self.leading
        if leading is None:
            return (1, 1)
        return (leading.shape[1], leading.units) if leading is self.weight else (leading.shape[0],) * 2


def find_parameters(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> list[Parameter]:
    """Every application of a stored float tensor, in topological order. Settings (target shapes, bounds) are none."""
    found = []
    for index, node in enumerate(graph.nodes):
        row = row_of(node, table)
        if row is not None and (row.reads_shape_only or (row.moves and find_root(graph, node.outputs[0], table))):
            continue  # only passes a weight on
        for slot, name in enumerate(node.inputs):
            if not name or (row is not None and row.slot(slot).setting):
                continue
            root = find_root(graph, name, table)
            if root is not None and root[0].is_float and not root[0].scope:
                found.append(applied(graph, index, slot, *root, table))
    return found


def find_root(
    graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None
) -> tuple[Weight, list[int | None]] | None:
    """The stored tensor behind `name`, through operators that only move values.

    Returns:
        the weight and, for each axis of `name`, the stored axis it is (None for an inserted axis of length 1);
        None if `name` is computed. An axis that a reshape made of several is -1: the tensor has no simple form.
    """
    if name in graph.weights:
        return graph.weights[name], list(range(len(graph.weights[name].shape)))
    index = graph.producer.get(name)
    if index is None:
        return None
    node = graph.nodes[index]
    row = row_of(node, table)
    if row is None or not row.moves or name != node.outputs[0]:
        return None
    found = find_root(graph, node.inputs[0], table)
    if found is None:
        return None
    weight, axes = found
    if -1 in axes:
        return weight, [-1]
    if row.keeps_axes:
        return found
    argument = node.inputs[1] if len(node.inputs) > 1 else ""
    if argument and argument not in graph.weights:
        return weight, [-1]
    given = graph.weights[argument].read().ravel().tolist() if argument else None
    shape = [1 if axis is None else weight.shape[axis] for axis in axes]
    sources = source_axes(node, shape, given)
    return weight, [-1] if sources is None else [None if source is None else axes[source] for source in sources]


def applied(
    graph: LayerGraph,
    index: int,
    slot: int,
    weight: Weight,
    axes: Sequence[int | None],
    table: Mapping[str, Row] | None,
) -> Parameter:
    node = graph.nodes[index]
    row = row_of(node, table)
    described = row.slot(slot) if row is not None else Slot(f"input {slot}", ParameterKind.SCALE)
    is_mixed = -1 in axes  # by a reshape: kept whole, in stored order
    axes = tuple(range(len(weight.shape))) if is_mixed else axes
    contracted = row.weight_axes(slot, node, len(axes)) if row is not None and not is_mixed else None
    order: tuple[int | None, ...]
    if contracted is None:
        order = tuple(a for a in axes if a is not None and weight.shape[a] > 1)
    else:
        order = (*[axes[a] for a in contracted], *[a for i, a in enumerate(axes) if i not in contracted])
    shape = tuple(1 if axis is None else weight.shape[axis] for axis in order)
    role = described.name if described.name != "x" else "value"
    if role == "weight" and contracted is None:
        role = "vector"  # a dot product has no output units: it makes no layer of its own
    return Parameter(
        weight.name,
        index,
        slot,
        role,
        described.kind or ParameterKind.SHIFT,
        order,
        shape,
        described.absent_value,
        described.factor_of(node),
        groups_of(node) if contracted is not None and contracted[0] != 0 else 1,
    )


def find_layers(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> tuple[Layer, ...]:
    """The layers of a graph in topological order of their origins."""
    by_node: dict[int, list[Parameter]] = {}
    for parameter in find_parameters(graph, table):
        by_node.setdefault(parameter.node, []).append(parameter)
    origin, members = origins(graph, by_node, table)
    return with_depth(graph, origin, assembled(graph, members, by_node, table), table)


def origins(
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
        own = by_node.get(index, ())
        if row is not None and row.reads_shape_only:
            continue  # what only reads a shape carries no signal
        found = {origin[name] for name in data_inputs(node, row) if name in origin}
        if not found and not any(parameter.shape for parameter in own):
            continue  # computed from constants alone
        starts = row is not None and row.is_contraction and any(p.is_weight for p in own)
        passes = row is not None and row.passes and len(found) == 1 and not starts
        start = found.pop() if passes else index
        members.setdefault(start, []).append(index)
        origin.update(dict.fromkeys((out for out in node.outputs if out), start))
    return origin, members


def data_inputs(node: Node, row: Row | None) -> list[str]:
    """The tensors whose values an operator works on: no target shapes, bounds or other settings."""
    inputs = [name for slot, name in enumerate(node.inputs) if row is None or not row.slot(slot).setting]
    return [*inputs, *node.captures]


def assembled(
    graph: LayerGraph,
    members: Mapping[int, list[int]],
    by_node: Mapping[int, list[Parameter]],
    table: Mapping[str, Row] | None,
) -> list[Layer]:
    """Origins that own parameters, as layers; a shared tensor goes to its first user."""
    owned: set[str] = set()
    made = []
    for start, nodes in sorted(members.items(), key=lambda item: item[1][0]):
        all_own = [p for index in nodes for p in by_node.get(index, [])]
        if not all_own:
            continue
        tied = tuple(dict.fromkeys(p.tensor for p in all_own if p.tensor in owned))
        applied_here = [as_bias(graph, start, p, all_own, table) for p in all_own]
        first = {p.tensor: p for p in reversed(applied_here) if p.tensor not in owned}
        own = [p for p in applied_here if first.get(p.tensor) is p]
        owned.update(first)
        named_by = next((p.node for p in all_own if p.shape), all_own[0].node)
        node = start if start >= 0 and start in by_node else named_by
        row = row_of(graph.nodes[node], table)
        if not own and not (start >= 0 and start in by_node):
            continue  # nothing of its own, and no contraction that a shared weight makes a layer of
        is_origin = start >= 0 and row is not None and row.is_contraction
        if row is None:
            kind = graph.nodes[node].op
        elif is_origin:
            kind = row.kind
        else:
            kind = row.kind if row.layer_role is LayerRole.ALONE else "affine"
        made.append(Layer(graph.nodes[node].name, kind, start, tuple(nodes), tuple(own), tied, tuple(applied_here)))
    return made


def as_bias(
    graph: LayerGraph,
    start: int,
    parameter: Parameter,
    own: Sequence[Parameter],
    table: Mapping[str, Row] | None,
) -> Parameter:
    """A vector added right behind a contraction that has no bias of its own is its bias."""
    weight = next((p for p in own if p.is_weight), None)
    if weight is None or parameter.role != "shift" or any(p.is_bias for p in own):
        return parameter
    node, starting = graph.nodes[parameter.node], row_of(graph.nodes[start], table)
    row = row_of(node, table)
    if starting is None or not starting.is_linear:
        return parameter
    is_sum = (
        row is not None and row.commutes and row.at_zero is AtZero.ZERO and graph.nodes[start].outputs[0] in node.inputs
    )
    return replace(parameter, role="bias") if is_sum and parameter.shape == (weight.units,) else parameter


def with_depth(
    graph: LayerGraph, origin: Mapping[str, int], found: list[Layer], table: Mapping[str, Row] | None
) -> tuple[Layer, ...]:
    """Count, for each layer, the layers before it on the longest path."""
    starts = {layer.start for layer in found}
    before: dict[int, int] = {-1 - i: 0 for i in range(len(graph.inputs))}
    for index in sorted(set(origin.values())):
        if index >= 0:
            node = graph.nodes[index]
            named = data_inputs(node, row_of(node, table))
            sources = [origin[name] for name in named if name in origin and origin[name] != index]
            before[index] = max((before[s] + (s in starts) for s in sources), default=0)
    return tuple(replace(layer, depth=before.get(layer.start, 0)) for layer in found)
