"""Where a tensor comes from: the stored tensor behind it, or the inputs of the model."""

from collections.abc import Mapping
from typing import NamedTuple

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.operators import Row, row_of, source_axes

MIXED = -1  # stands for the axes of a tensor that a reshape mixes


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


def data_dependent(graph: LayerGraph) -> set[str]:
    """Tensors whose values, not only their shapes, depend on a model input, or on the number of a run."""
    live = {value.name for value in graph.inputs}
    for node in graph.nodes:
        row = row_of(node)
        if row is not None and row.reads_shape_only:
            continue
        if (row is not None and row.repeats) or any(name in live for name in (*node.inputs, *node.captures)):
            live.update(node.outputs)
    return live
