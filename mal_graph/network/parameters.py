"""Parameters: every stored float tensor that was learned, at the places where it is applied, in canonical form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mal_graph.boxes import Array, Box
from mal_graph.graph import LayerGraph, Node, once_per_graph
from mal_graph.network.roots import Root, find_moved, find_root
from mal_graph.network.unlearned import find_unlearned
from mal_graph.network.weight_orders import find_weight_orders
from mal_graph.operators import ParameterKind, Row, Slot, groups_of, row_of


@dataclass(frozen=True)
class Parameter:
    """One stored float tensor at the place where it is applied.

    Its canonical form is (units out, units in, kernel...) for a contraction's weight and the axes longer than 1, in
    order, for anything else: a bias of shape (1, C, 1, 1) is a vector of C.

    Attributes:
        tensor: name of the stored weight.
        node, slot: where it is applied.
        role: what it is there: "weight", "recurrence", "bias", "shift", "scale", "mean", "variance", "slope"...
        kind: what it is to the operator that applies it.
        axes: for each canonical axis the stored tensor's axis; None for an axis that exists only in the canonical form.
        shape: the canonical shape.
        absent_value: value of a unit that is not there.
        factor: what the operator multiplies the tensor by.
        blocks: how many units each row of a contraction's weight produces: one in every block of a transposed
            convolution.
        rows: how many rows of a contraction's weight each unit takes: one for each gate of a recurrent layer.
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
    rows: int = 1

    @property
    def is_weight(self) -> bool:
        """Whether a contraction sums over units with it."""
        return self.role in ("weight", "recurrence")

    @property
    def is_bias(self) -> bool:
        """Whether it is the bias of a contraction."""
        return self.role == "bias"

    @property
    def is_table(self) -> bool:
        """Whether its entries are looked up."""
        return self.role == "table"

    @property
    def units(self) -> int:
        """How many units a contraction's weight produces."""
        return self.shape[0] * self.blocks // self.rows

    @property
    def neutral(self) -> float:
        """The value that lets a unit pass as it is."""
        return 1.0 if self.kind in (ParameterKind.SCALE, ParameterKind.VARIANCE) else 0.0

    def canonical(self, stored: Array) -> Array:
        """The stored tensor, or a box of it, in canonical form."""
        kept = [axis for axis in self.axes if axis is not None]
        dropped = [axis for axis in range(stored.ndim) if axis not in kept]
        lengths = [1 if axis is None else stored.shape[axis] for axis in self.axes]
        return stored.transpose(*kept, *dropped).reshape(lengths)

    def canonical_box(self, stored: Box) -> Box:
        """A box of the stored tensor as a box of its canonical form."""
        return tuple(slice(0, 1) if axis is None else stored[axis] for axis in self.axes)

    def stored_box(self, canonical: Box, rank: int) -> Box:
        """A box of the canonical form as one of a stored tensor of so many axes; those of the canonical form alone are
        left out."""
        stretches = dict(zip(self.axes, canonical, strict=True))
        return tuple(stretches.get(axis, slice(0, 1)) for axis in range(rank))

    def stored(self, canonical: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `canonical`, for a stored tensor, or a box of it, of `shape`."""
        kept = [axis for axis in self.axes if axis is not None]
        order = kept + [axis for axis in range(len(shape)) if axis not in kept]
        moved = canonical.reshape([shape[axis] for axis in order])
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return moved.transpose(inverse)


@once_per_graph
def find_parameters(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> tuple[Parameter, ...]:
    """Every application of a tensor that was learned, in topological order."""
    unlearned = find_unlearned(graph, table)
    return tuple(parameter for parameter in find_applied(graph, table) if parameter.tensor not in unlearned)


@once_per_graph
def find_applied(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> tuple[Parameter, ...]:
    """Every application of a stored float tensor, learned or not, in topological order. What steers an operator (target
    shapes, bounds) is not applied."""
    parameters, orders = list[Parameter](), find_weight_orders(graph, table)
    constant = find_moved(graph, table).keys() | graph.weights.keys()
    for index, node in enumerate(graph.nodes):
        if constant.isdisjoint(node.inputs):
            continue
        row = row_of(node, table)
        if row is not None and (row.reads_shape_only or (row.moves and node.outputs[0] in constant)):
            continue  # only passes a weight on
        for slot, name in enumerate(node.inputs):
            root = find_root(graph, name, table) if row is None or not row.slot(slot).setting else None
            if root is not None and root.weight.is_float and not root.weight.scope:
                parameters.append(apply_weight(index, node, slot, row, root, orders.get((index, slot))))
    return tuple(parameters)


def apply_weight(
    index: int, node: Node, slot: int, row: Row | None, root: Root, order: Sequence[int] | None
) -> Parameter:
    """A stored tensor as a node reads it in one of its inputs.

    Args:
        order: the axes of what is read, in the order in which they stand in the weight that is computed of it; None if
            none is.
    """
    weight = root.weight
    described = Slot(f"input {slot}", ParameterKind.SCALE) if row is None else row.slot(slot)
    contracted = None if row is None or root.is_mixed else contracted_axes(node, slot, row, root)
    axes = canonical_axes(root, contracted, order)
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
        rows=rows_of(node, described, 1 if contracted is None else weight.shape[axes[0] or 0]),
    )


def rows_of(node: Node, slot: Slot, length: int) -> int:
    """How many of the rows of a weight each unit has; 1 where the operator counts more units than there are rows, so
    that it cannot run."""
    units = int(node.attribute(slot.counted_by, length)) if slot.counted_by else length
    return max(1, length // units) if units > 0 else 1


def contracted_axes(node: Node, slot: int, row: Row, root: Root) -> tuple[int, int] | None:
    """The axes of what a node reads along which it produces and consumes units; None where they are no matrix."""
    axes = row.weight_axes(slot, node, len(root.axes))
    is_one = axes is not None and root.axes[axes[0]] == root.axes[axes[1]] is not None
    return None if is_one or (root.is_cut and row.has_window) else axes


def canonical_axes(root: Root, contracted: Sequence[int] | None, order: Sequence[int] | None) -> tuple[int | None, ...]:
    """The stored axes in canonical order: those that are contracted first, or those longer than 1 of anything else, as
    they stand in the weight that is computed of it."""
    if contracted is not None:
        first = [root.axes[place] for place in contracted]
        rest = [axis for place, axis in enumerate(root.axes) if place not in contracted]
        if root.is_cut:  # each stored axis once
            rest = [axis for axis in dict.fromkeys(rest) if axis not in first]
        return (*first, *rest)
    if root.is_mixed:
        axes: Sequence[int | None] = range(len(root.weight.shape))  # kept whole, in stored order
    else:
        axes = root.axes if order is None else [root.axes[place] for place in order]
    return tuple(dict.fromkeys(axis for axis in axes if axis is not None and root.weight.shape[axis] > 1))


def role_of(slot: Slot, is_contracted: bool) -> str:
    """What a tensor is in an input of an operator."""
    if slot.name == "weight" and not is_contracted:
        return "vector"  # a dot product has no output units: it makes no layer of its own
    return "value" if slot.name == "x" else slot.name
