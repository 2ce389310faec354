"""What happens to a BatchNormalization where one of two matched layers alone has one: it is folded into the weight.

* In the donor only: the donor's effective weight and bias are merged, those behind its BatchNorm.
* In the base only: the base's BatchNorm stays, and the donor's weight is divided by the base's
  s = gamma / sqrt(variance + epsilon), so that the *effective* weight is interpolated.
* In both: scale, shift, mean and variance are merged as tensors of their own. Weight and bias are compared as the
  BatchNorms leave them, for their own size means nothing there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from mal_graph.boxes import Array, Box, Boxed, ReadBox, take_box
from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph
from mal_graph.matching.layer_matching import LayerPair
from mal_graph.matching.tensor_pairs import Read, StoredValues, TensorPair, by_role, read_values, row_vector
from mal_graph.network import Layer, Parameter
from mal_graph.operators import norm_epsilon, row_of

TINY_SCALE = 1e-6  # channels that a BatchNorm scales by less than this are dead: nothing can be divided by it
PARTS = frozenset({"scale", "shift", "mean", "variance"})


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNorm that stands directly behind a contraction: y = s * x + t, per channel."""

    scale: Parameter
    shift: Parameter
    mean: Parameter
    variance: Parameter
    epsilon: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (self.scale, self.shift, self.mean, self.variance)

    def factor(self, graph: LayerGraph) -> Array:
        """What each channel is multiplied by, s; shape (channels,)."""
        # No training gives a negative variance; where one stands all the same, it must not stop the comparison.
        variance = np.abs(read_values(graph, self.variance).astype(np.float64))
        factor: Array = read_values(graph, self.scale) / np.sqrt(variance + self.epsilon)
        return factor.astype(np.float32)


@dataclass(frozen=True)
class Side:
    """One of two matched layers, with the graph that its tensors are read from and the BatchNorm behind it."""

    graph: LayerGraph
    layer: Layer
    norm: BatchNorm | None

    @property
    def bias(self) -> Parameter | None:
        return by_role(self.layer).get("bias")

    @property
    def folded_tensors(self) -> set[str]:
        """What folding the BatchNorm deals with."""
        folded = {p.tensor for p in self.layer.applied if p.is_weight or p.is_bias}
        return folded | {p.tensor for p in (self.norm.parameters if self.norm else ())}

    def reading(self, parameter: Parameter) -> Read:
        return StoredValues(self.graph, parameter)

    def reading_effective_weight(self, weight: Parameter) -> Read:
        """The weight as the BatchNorm leaves it."""
        assert self.norm is not None
        return FoldedWeight(self.graph, weight, self.norm)

    def reading_effective_bias(self) -> Read:
        """The bias as the BatchNorm leaves it, where there is none that of the BatchNorm alone."""
        assert self.norm is not None
        return partial(fold_bias, self.graph, self.bias, self.norm)


def find_foldable_norm(graph: LayerGraph, layer: Layer) -> BatchNorm | None:
    """The BatchNorm directly behind the layer's contraction, if nothing else reads what is between."""
    row = None if layer.weight is None else row_of(graph.nodes[layer.weight.node])
    if layer.weight is None or row is None or not row.is_linear:
        return None
    tensor = graph.nodes[layer.weight.node].outputs[0]
    while tensor not in graph.output_names and len(graph.consumers.get(tensor, ())) == 1:
        index = graph.consumers[tensor][0][0]
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        own = {p.role: p for p in layer.applied if p.node == index}
        if row is not None and row.is_batch_norm and set(own) >= PARTS:
            if not row.has_stored_statistics(node):
                return None  # its statistics are those of the batch
            return BatchNorm(own["scale"], own["shift"], own["mean"], own["variance"], norm_epsilon(node))
        if set(own) != {"bias"}:
            return None
        tensor = node.outputs[0]
    return None


def fold_norm(base: Side, donor: Side, layers: LayerPair) -> Iterator[TensorPair]:
    """Weight and bias of two layers of which one alone has a BatchNorm."""
    return fold_donor(base, donor, layers) if donor.norm is not None else fold_base(base, donor, layers)


def fold_donor(base: Side, donor: Side, layers: LayerPair) -> Iterator[TensorPair]:
    """The base's weight and bias beside what the donor's are behind its BatchNorm."""
    mine, theirs = base.layer.weight, donor.layer.weight
    assert mine is not None
    assert theirs is not None
    yield TensorPair(layers, mine, theirs, base.reading(mine), donor.reading_effective_weight(theirs))
    if base.bias is not None:
        read = donor.reading_effective_bias()
        yield TensorPair(layers, base.bias, row_vector(theirs), base.reading(base.bias), read)


def fold_base(base: Side, donor: Side, layers: LayerPair) -> Iterator[TensorPair]:
    """The base's weight and bias behind its BatchNorm beside the donor's; what is merged takes that BatchNorm back."""
    mine, theirs, norm = base.layer.weight, donor.layer.weight, base.norm
    assert mine is not None
    assert theirs is not None
    assert norm is not None
    rows = row_vector(theirs)
    yield TensorPair(
        layers,
        mine,
        theirs,
        base.reading_effective_weight(mine),
        donor.reading(theirs),
        restore=partial(unfold_weight, base.graph, mine, norm),
    )
    yield TensorPair(
        layers,
        norm.shift,
        rows,
        base.reading_effective_bias(),
        donor.reading(donor.bias) if donor.bias else partial(np.zeros, rows.shape, np.float32),
        restore=partial(unfold_shift, base.graph, base.bias, norm),
    )


def compare_folded(pair: TensorPair, base: Side, donor: Side) -> TensorPair:
    """The pair, compared as the BatchNorms of both sides leave a weight or a bias: its own size means nothing there."""
    if base.norm is None or donor.norm is None or pair.base.role not in ("weight", "bias"):
        return pair
    a, b = (base.graph, pair.base, base.norm), (donor.graph, pair.donor, donor.norm)
    values: tuple[Read, Read] = (
        (FoldedWeight(*a), FoldedWeight(*b)) if pair.is_weight else (partial(fold_bias, *a), partial(fold_bias, *b))
    )
    return replace(pair, base_values=values[0], donor_values=values[1], incoming=pair.donor_values)


@dataclass(frozen=True, repr=False)
class FoldedWeight(Boxed, Brief):
    """A weight as the BatchNorm behind it leaves it."""

    graph: LayerGraph
    weight: Parameter
    norm: BatchNorm

    def __call__(self) -> Array:
        """All values."""
        values = read_values(self.graph, self.weight)
        folded: Array = values * by_row(self.norm.factor(self.graph), values.shape)
        return folded

    def open(self) -> ReadBox:
        """What gives the values of a box."""
        factor = by_row(self.norm.factor(self.graph), self.weight.shape)
        return partial(self.read_box, StoredValues(self.graph, self.weight).open(), factor)

    def read_box(self, read: ReadBox, factor: Array, box: Box) -> Array:
        """The values of a box."""
        folded: Array = read(box) * in_box(factor, box)
        return folded


def fold_bias(graph: LayerGraph, bias: Parameter | None, norm: BatchNorm) -> Array:
    before = read_values(graph, bias) if bias is not None else np.float32(0)
    folded: Array = read_values(graph, norm.shift) + norm.factor(graph) * (before - read_values(graph, norm.mean))
    return folded


def unfold_weight(graph: LayerGraph, weight: Parameter, norm: BatchNorm, values: Array, box: Box) -> Array:
    """The weight that has `values` as its effective rows behind the base's BatchNorm; dead channels keep the base's."""
    s = norm.factor(graph)
    alive = np.abs(s) >= TINY_SCALE
    factor, is_alive = (in_box(by_row(rows, weight.shape), box) for rows in (np.where(alive, s, 1), alive))
    return np.where(is_alive, values / factor, StoredValues(graph, weight).open()(box))


def unfold_shift(graph: LayerGraph, bias: Parameter | None, norm: BatchNorm, values: Array, box: Box) -> Array:
    """The shift that gives `values` as effective bias beside the base's own mean and bias."""
    s, mean, own = norm.factor(graph), read_values(graph, norm.mean), read_values(graph, norm.shift)
    before = read_values(graph, bias) if bias is not None else np.zeros_like(mean)
    shift = values + take_box(s * (mean - before), box)
    return np.where(take_box(np.abs(s) >= TINY_SCALE, box), shift, take_box(own, box))


def by_row(vector: Array, shape: Sequence[int]) -> Array:
    """A value for every unit, as a factor of a weight of some shape that makes them: of a row, or, where a row makes
    one in each of several blocks, of its columns there."""
    if len(shape) < 2 or not prod(shape):
        return vector.reshape(-1, *[1] * (len(shape) - 1))
    blocks = len(vector) // shape[0]
    columns = np.repeat(vector.reshape(blocks, -1).T, shape[1] // blocks if blocks > 1 else 1, axis=1)
    return columns.reshape(*columns.shape, *[1] * (len(shape) - 2))


def in_box(factor: Array, box: Box) -> Array:
    """A factor of a tensor, with one entry on the axes where it is the same, for the values of a box."""
    same = zip(box, factor.shape, strict=True)
    return take_box(factor, tuple(slice(0, 1) if length == 1 else stretch for stretch, length in same))


def count_dead_channels(base: LayerGraph, donor: LayerGraph, layers: LayerPair) -> int:
    """How many channels keep the base's weights: its BatchNorm, which the donor lacks, scales them to nothing."""
    norm = find_foldable_norm(base, layers.base)
    if norm is None or layers.donor.weight is None or find_foldable_norm(donor, layers.donor) is not None:
        return 0
    return int(np.sum(np.abs(norm.factor(base)) < TINY_SCALE))
