"""Parameters: every stored float tensor at the places where it is applied, in canonical form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mal_graph.graph import Array, LayerGraph, Node, Weight
from mal_graph.operators import ParameterKind, Row, Slot, groups_of, row_of, source_axes

MIXED = -1  # stands for the axes of a tensor that a reshape mixes


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


class Root(NamedTuple):
    """The stored tensor behind a tensor that is computed by moving its values only.

    Attributes:
        axes: for each axis the stored axis it is; None for an inserted axis of length 1; only MIXED if a reshape made
            one axis of several, so that the tensor has no simple form.
    """

    weight: Weight
    axes: list[int | None]

    @property
    def is_mixed(self) -> bool:
        """Whether a reshape made one axis of several."""
        return MIXED in self.axes

    @property
    def shape(self) -> list[int]:
        """The lengths of the axes; only where they are not mixed."""
        return [1 if axis is None else self.weight.shape[axis] for axis in self.axes]


def find_parameters(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> list[Parameter]:
    """Every application of a stored float tensor, in topological order. Settings (target shapes, bounds) are none."""
    parameters = []
    for index, node in enumerate(graph.nodes):
        row = row_of(node, table)
        if row is not None and (row.reads_shape_only or (row.moves and find_root(graph, node.outputs[0], table))):
            continue  # only passes a weight on
        for slot, name in enumerate(node.inputs):
            root = find_root(graph, name, table) if row is None or not row.slot(slot).setting else None
            if root is not None and root.weight.is_float and not root.weight.scope:
                parameters.append(apply_weight(index, node, slot, row, root))
    return parameters


def find_root(graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None) -> Root | None:
    """The stored tensor behind `name`, through operators that only move values; None if `name` is computed."""
    if name in graph.weights:
        return Root(graph.weights[name], list(range(len(graph.weights[name].shape))))
    if name not in graph.producer:
        return None
    node = graph.nodes[graph.producer[name]]
    row = row_of(node, table)
    if row is None or not row.moves or name != node.outputs[0]:
        return None
    root = find_root(graph, node.inputs[0], table)
    return root if root is None or root.is_mixed or row.keeps_axes else arranged(graph, node, root)


def arranged(graph: LayerGraph, node: Node, root: Root) -> Root:
    """A stored tensor as a node arranges its axes."""
    argument = node.inputs[1] if len(node.inputs) > 1 else ""
    sources = None
    if not argument:
        sources = source_axes(node, root.shape, None)
    elif argument in graph.weights:
        sources = source_axes(node, root.shape, graph.weights[argument].read().ravel().tolist())
    if sources is None:
        return Root(root.weight, [MIXED])
    return Root(root.weight, [None if source is None else root.axes[source] for source in sources])


def apply_weight(index: int, node: Node, slot: int, row: Row | None, root: Root) -> Parameter:
    """A stored tensor as a node reads it in one of its inputs."""
    weight = root.weight
    described = Slot(f"input {slot}", ParameterKind.SCALE) if row is None else row.slot(slot)
    contracted = None if row is None or root.is_mixed else row.weight_axes(slot, node, len(root.axes))
    axes = canonical_axes(root, contracted)
    return Parameter(
        tensor=weight.name,
        node=index,
        slot=slot,
        role=role_of(described, contracted is not None),
        kind=described.kind or ParameterKind.SHIFT,
        axes=axes,
        shape=tuple(1 if axis is None else weight.shape[axis] for axis in axes),
        absent_value=described.absent_value,
        factor=described.factor_of(node),
        blocks=groups_of(node) if contracted is not None and contracted[0] != 0 else 1,
    )


def canonical_axes(root: Root, contracted: Sequence[int] | None) -> tuple[int | None, ...]:
    """The stored axes in canonical order: those that are contracted first, or those longer than 1 of anything else."""
    if contracted is not None:
        rest = [axis for place, axis in enumerate(root.axes) if place not in contracted]
        return (*[root.axes[place] for place in contracted], *rest)
    axes = range(len(root.weight.shape)) if root.is_mixed else root.axes  # mixed axes are kept whole, in stored order
    return tuple(axis for axis in axes if axis is not None and root.weight.shape[axis] > 1)


def role_of(slot: Slot, is_contracted: bool) -> str:
    """What a tensor is in an input of an operator."""
    if slot.name == "weight" and not is_contracted:
        return "vector"  # a dot product has no output units: it makes no layer of its own
    return "value" if slot.name == "x" else slot.name
