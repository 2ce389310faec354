"""The last layers of several networks fitted together, so that their mean gives what it gave before units were lost.

The mean of some outputs is one linear map of what all last layers read. Its coefficients are fitted by ridge regression
towards those that the layers have, on what the networks gave when they were whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mal_graph.compression.fitting import layer_at, usable_bias
from mal_graph.compression.moments import Halves
from mal_graph.compression.recovery import recover
from mal_graph.evaluation import Place, Stream, data_slot, find_batches
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import Layer, Parameter, find_layers
from mal_graph.operators import is_pointwise, row_of, summed_axis, unit_axis
from mal_graph.protocols import Runner


@dataclass(frozen=True)
class Head:
    """The contraction that gives an output.

    Attributes:
        weight: where it is applied.
        bias: what is added to it; None where nothing is.
        read: what it reads, with the axis that it sums over.
        output: what it gives, bias and all, with the axis of the units.
    """

    weight: Parameter
    bias: Parameter | None
    read: Place
    output: Place

    def coefficients(self, graph: LayerGraph) -> Array:
        """What it multiplies by, shape (outputs, units)."""
        stored = graph.weights[self.weight.tensor].read().astype(np.float64)
        values = self.weight.canonical(stored)
        return np.asarray(values.reshape(len(values), -1) * self.weight.factor)

    def offset(self, graph: LayerGraph) -> Array:
        """What it adds, shape (outputs,)."""
        if self.bias is None:
            return np.zeros(self.weight.shape[0])
        stored = graph.weights[self.bias.tensor].read().astype(np.float64)
        return np.asarray(self.bias.canonical(stored).ravel() * self.bias.factor)

    def given(self, graph: LayerGraph, coefficients: Array, offset: Array) -> LayerGraph:
        """The graph with other numbers in it."""
        weight, values = self.weight, (coefficients / self.weight.factor).reshape(self.weight.shape)
        old = graph.weights[weight.tensor]
        new = {weight.tensor: np.ascontiguousarray(weight.stored(values, old.shape), old.dtype)}
        if self.bias is not None:
            was = graph.weights[self.bias.tensor]
            added = (offset / self.bias.factor).reshape(self.bias.shape)
            new[self.bias.tensor] = np.ascontiguousarray(self.bias.stored(added, was.shape), was.dtype)
        return graph.with_weights(new)


def find_head(graph: LayerGraph, tensor: str, ranks: Mapping[str, tuple[int, ...]]) -> Head | None:
    """The head that gives a tensor; None where that is no contraction of one tap with a bias at most.

    Args:
        ranks: the shapes of the tensors.
    """
    last = graph.producer.get(tensor, -1)
    for layer in find_layers(graph):
        weight, bias = layer.weight, None
        if weight is None or last not in layer.nodes or weight.blocks > 1 or not is_plain(graph, layer, weight):
            continue
        bias = usable_bias(graph, layer_at((layer,), weight.node))
        if last != (weight.node if bias is None else bias.node):
            continue
        node = graph.nodes[weight.node]
        slot = data_slot(weight)
        read = Place(node.inputs[slot], summed_axis(node, slot, len(ranks[node.inputs[slot]])))
        return Head(weight, bias, read, Place(tensor, unit_axis(node, weight.slot, len(weight.shape))))
    return None


def is_plain(graph: LayerGraph, layer: Layer, weight: Parameter) -> bool:
    """Whether a contraction is a linear map of the units at one position, with a weight of its own."""
    node = graph.nodes[weight.node]
    row = row_of(node)
    is_own = len(graph.consumers.get(weight.tensor, ())) == 1 and None not in weight.axes[:2]
    taps = weight.shape[2:]
    return row is not None and row.is_linear and is_own and (not taps or is_pointwise(node, taps))


@dataclass(frozen=True)
class Headed:
    """One network of a mean, as it was and as it is.

    Attributes:
        before, after: the networks.
        head: of `after`.
        tensor: the output in `before`.
        inputs: samples by the names that it has for them.
        share: of its output in the mean.
        rows: which entries of its output are fitted, in the order of the mean; all of them if left out.
    """

    before: LayerGraph
    after: LayerGraph
    head: Head
    tensor: str
    inputs: Mapping[str, Array]
    share: float
    rows: Sequence[int] | None = None

    @property
    def taken(self) -> Any:
        """An index of the entries that are fitted."""
        return slice(None) if self.rows is None else list(self.rows)

    def refitted(self, coefficients: Array, offset: Array) -> LayerGraph:
        """The network with other numbers for the entries that are fitted."""
        whole = self.head.coefficients(self.after).copy(), self.head.offset(self.after).copy()
        whole[0][self.taken], whole[1][self.taken] = coefficients, offset
        return self.head.given(self.after, *whole)


def refit_heads(members: Sequence[Headed], runner: Runner) -> list[LayerGraph]:
    """The networks with their heads fitted to what the mean of their outputs was.

    Raises:
        DataError, RunError: a network does not run on its inputs.
    """
    prior = np.concatenate([one.share * one.head.coefficients(one.after)[one.taken] for one in members], axis=1)
    halves = Halves.empty(prior.shape[1], len(prior), is_centred=members[0].head.bias is not None)
    seen = 0
    for read, target in read_together(members, runner):
        for half in (0, 1):
            own = slice((half + seen) % 2, None, 2)
            halves.halves[half].add(read[:, own], target[:, own])
        seen += target.shape[1]
    spread = np.diag(halves.whole.covariances[1])
    fitted, left = recover(halves, prior, np.diag(1 / np.sqrt(np.where(spread > 0, spread, 1))))
    units = np.cumsum([one.head.weight.shape[1] for one in members])[:-1]
    parts = np.split(fitted, units, axis=1)
    offsets = [one.head.offset(one.after)[one.taken] for one in members]
    if halves.even.is_centred:  # what is left goes to the first: the shares sum to one
        given = sum((one.share * offset for one, offset in zip(members, offsets, strict=True)), np.zeros(len(prior)))
        offsets[0] = offsets[0] + (left - given) / members[0].share
    return [
        one.refitted(coefficients / one.share, offset)
        for one, coefficients, offset in zip(members, parts, offsets, strict=True)
    ]


def read_together(members: Sequence[Headed], runner: Runner) -> Iterator[tuple[Array, Array]]:
    """Batch by batch what all heads read, shape (units, samples), and what the mean was, shape (outputs, samples)."""
    before = [(Stream(one.before, one.inputs, runner, [one.tensor]), [one.tensor]) for one in members]
    tensors = [one.head.read.tensor for one in members]
    after = [
        (Stream(one.after, one.inputs, runner, [tensor]), [tensor])
        for one, tensor in zip(members, tensors, strict=True)
    ]
    for batch in find_batches([*before, *after]):
        given, read = ([stream.read(batch, names)[names[0]] for stream, names in side] for side in (before, after))
        places = [Place(one.tensor, one.head.output.axis) for one in members]
        rows = [
            one.share * place.rows(each)[one.taken] for one, place, each in zip(members, places, given, strict=True)
        ]
        seen = [one.head.read.rows(each) for one, each in zip(members, read, strict=True)]
        yield np.concatenate(seen), np.asarray(sum(rows[1:], rows[0]))
