"""Where a tensor comes from: the stored tensor behind it, or the inputs of the model."""

from collections.abc import Mapping
from typing import NamedTuple

from mal_graph.graph import LayerGraph, Node, Weight, once_per_graph
from mal_graph.operators import Row, arranged_axes, row_of

MIXED = -1  # stands for the axes of a tensor that a reshape mixes


class Root(NamedTuple):
    """The stored tensor behind a tensor that is computed by moving its values only.

    Attributes:
        axes: for each axis the stored axis that it is, or is cut out of; None for an inserted axis of length 1; only
            MIXED if a reshape made one axis of several, so that the tensor has no simple form.
        shape: the lengths of the axes; only where they are not mixed.
    """

    weight: Weight
    axes: list[int | None]
    shape: tuple[int, ...]

    @property
    def is_mixed(self) -> bool:
        """Whether a reshape made one axis of several."""
        return MIXED in self.axes

    @property
    def is_cut(self) -> bool:
        """Whether a reshape made several axes of one."""
        stored = [axis for axis in self.axes if axis is not None]
        return len(set(stored)) < len(stored)


def find_root(graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None) -> Root | None:
    """The stored tensor behind `name`, through operators that only move values; None if `name` is computed."""
    return find_moved(graph, table).get(name) or stored_root(graph, name)


def stored_root(graph: LayerGraph, name: str) -> Root | None:
    """A stored tensor as it is; None for any other."""
    weight = graph.weights.get(name)
    return None if weight is None else Root(weight, list(range(len(weight.shape))), weight.shape)


@once_per_graph
def find_moved(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> Mapping[str, Root]:
    """The tensors that operators make by moving the values of stored ones, each with what is behind it."""
    moved: dict[str, Root] = {}
    for node in graph.nodes:
        root = None if not node.inputs else moved.get(node.inputs[0]) or stored_root(graph, node.inputs[0])
        row = None if root is None else row_of(node, table)
        if root is None or row is None or not row.moves or not node.outputs or node.outputs[0] in graph.weights:
            continue
        moved[node.outputs[0]] = root if root.is_mixed or row.keeps_axes else arranged(graph, node, root)
    return moved


def arranged(graph: LayerGraph, node: Node, root: Root) -> Root:
    """A stored tensor as a node arranges its axes."""
    argument = node.inputs[1] if len(node.inputs) > 1 else ""
    made = None
    if not argument:
        made = arranged_axes(node, root.shape, None)
    elif argument in graph.weights:
        made = arranged_axes(node, root.shape, graph.weights[argument].read().ravel().tolist())
    if made is None:
        return Root(root.weight, [MIXED], ())
    axes = [None if source is None else root.axes[source] for source in made.sources]
    return Root(root.weight, axes, made.shape)


@once_per_graph
def data_dependent(graph: LayerGraph) -> frozenset[str]:
    """Tensors whose values, not only their shapes, depend on a model input, or on the number of a run."""
    live = {value.name for value in graph.inputs}
    for node in graph.nodes:
        row = row_of(node)
        if row is not None and row.reads_shape_only:
            continue
        if (row is not None and row.repeats) or any(name in live for name in (*node.inputs, *node.captures)):
            live.update(node.outputs)
    return frozenset(live)
