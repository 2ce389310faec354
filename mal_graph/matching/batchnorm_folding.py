"""What happens to a BatchNormalization where one of two matched layers alone has one: it is folded into the weight.

* In the donor only: the donor's effective weight and bias are merged, those behind its BatchNorm.
* In the base only: the base's BatchNorm stays, and the donor's weight is divided by the base's
  s = gamma / sqrt(variance + epsilon), so that the *effective* weight is interpolated.
* In both: scale, shift, mean and variance are merged as tensors of their own. Weight and bias are compared as the
  BatchNorms leave them, for their own size means nothing there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.layer_matching import LayerPair
from mal_graph.matching.tensor_pairs import Read, TensorPair, by_role, read_values, row_vector
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
        return partial(read_values, self.graph, parameter)

    def reading_effective_weight(self, weight: Parameter) -> Read:
        """The weight as the BatchNorm leaves it."""
        assert self.norm is not None
        return partial(fold_weight, self.graph, weight, self.norm)

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
    fold = fold_weight if pair.is_weight else fold_bias
    return replace(
        pair,
        base_values=partial(fold, base.graph, pair.base, base.norm),
        donor_values=partial(fold, donor.graph, pair.donor, donor.norm),
        incoming=pair.donor_values,
    )


def fold_weight(graph: LayerGraph, weight: Parameter, norm: BatchNorm) -> Array:
    values = read_values(graph, weight)
    folded: Array = values * by_row(norm.factor(graph), values)
    return folded


def fold_bias(graph: LayerGraph, bias: Parameter | None, norm: BatchNorm) -> Array:
    before = read_values(graph, bias) if bias is not None else np.float32(0)
    folded: Array = read_values(graph, norm.shift) + norm.factor(graph) * (before - read_values(graph, norm.mean))
    return folded


def unfold_weight(graph: LayerGraph, weight: Parameter, norm: BatchNorm, values: Array) -> Array:
    """The weight that has `values` as its effective rows behind the base's BatchNorm; dead channels keep the base's."""
    s = norm.factor(graph)
    alive = np.abs(s) >= TINY_SCALE
    divided = values / by_row(np.where(alive, s, 1), values)
    return np.where(by_row(alive, values), divided, read_values(graph, weight))


def unfold_shift(graph: LayerGraph, bias: Parameter | None, norm: BatchNorm, values: Array) -> Array:
    """The shift that gives `values` as effective bias beside the base's own mean and bias."""
    s = norm.factor(graph)
    before = read_values(graph, bias) if bias is not None else np.float32(0)
    shift = values + s * (read_values(graph, norm.mean) - before)
    return np.where(np.abs(s) >= TINY_SCALE, shift, read_values(graph, norm.shift))


def by_row(vector: Array, like: Array) -> Array:
    """A value for every unit, as a factor of the weight that makes them: of a row, or, where a row makes one in each of
    several blocks, of its columns there."""
    if like.ndim < 2 or not like.size:
        return vector.reshape(-1, *[1] * (like.ndim - 1))
    blocks = len(vector) // len(like)
    columns = np.repeat(vector.reshape(blocks, -1).T, like.shape[1] // blocks if blocks > 1 else 1, axis=1)
    return columns.reshape(*columns.shape, *[1] * (like.ndim - 2))


def count_dead_channels(base: LayerGraph, donor: LayerGraph, layers: LayerPair) -> int:
    """How many channels keep the base's weights: its BatchNorm, which the donor lacks, scales them to nothing."""
    norm = find_foldable_norm(base, layers.base)
    if norm is None or layers.donor.weight is None or find_foldable_norm(donor, layers.donor) is not None:
        return 0
    return int(np.sum(np.abs(norm.factor(base)) < TINY_SCALE))
