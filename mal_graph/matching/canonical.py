"""The donor's layers in the form of the base's: what is compared and merged, tensor by tensor.

Two exports of one layer can differ in form: a BatchNorm folded into its convolution or not, a bias or none, a weight
stored transposed. Parameters are canonical already (see `layers`), so what is left is the folding:

* BatchNorm in the donor only: its effective weight and bias are merged.
* BatchNorm in the base only: the base's stays, and the donor's effective weight is divided by the base's
  s = gamma / sqrt(variance + epsilon), so that the *effective* weight is interpolated.
* A linear layer and a convolution of one tap: the donor's weight takes or loses the axes of that tap.
* A bias in the base only: the donor's is zero. A bias in the donor only needs a slot, see `rewrite.with_bias_slots`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.layer_matching import Match, Pair
from mal_graph.network import Layer, Parameter
from mal_graph.operators import Misfit, ParameterKind, norm_epsilon, offsets, row_of

SEVERAL = "a BatchNormalization stands behind it in one model alone, and each row of its weight makes several units"
TINY_SCALE = 1e-6  # channels that a BatchNorm scales by less than this are dead: nothing can be divided by it

Read = Callable[[], Array]
Restore = Callable[[Array], Array]


@dataclass(frozen=True)
class Term:
    """One tensor of a matched pair of layers: a term of the alignment's objective and a step of the merge.

    Attributes:
        pair: the two layers.
        base: the base's parameter, which the merge writes.
        donor: the donor's parameter whose axes the donor's values have; the same number of axes as `base`.
        base_values, donor_values: what is compared, canonical, float32.
        incoming: the donor's values that are merged, the compared ones if None.
        lead: on every axis of a window the base's taps before the donor's first; empty where the windows are equal.
        misfit: why the donor's window does not lie in the base's, "" if it does.
        restore: turns incoming values, already in the base's order, into the form the base stores; None where they are.
            Takes and gives an array of the base's canonical shape.
    """

    pair: Pair
    base: Parameter
    donor: Parameter
    base_values: Read
    donor_values: Read
    incoming: Read | None = None
    restore: Restore | None = None
    lead: tuple[int, ...] = ()
    misfit: str = ""

    @property
    def layer(self) -> str:
        """Name of the base's layer."""
        return self.pair.base.name

    @property
    def is_weight(self) -> bool:
        return self.base.is_weight

    @property
    def is_compared(self) -> bool:
        """Whether it counts in the objective: weights and biases do. Scales, means and variances only move along: all
        positive, they would draw every unit to the donor's largest."""
        return self.base.kind is ParameterKind.WEIGHT or self.base.is_bias or len(self.base.shape) > 1

    def stored_form(self, values: Array) -> Array:
        """Donor values in the base's order, as the base stores them: before its BatchNorm and its factor."""
        restored = values if self.restore is None else self.restore(values)
        return restored if self.base.factor == 1.0 else restored / restored.dtype.type(self.base.factor)

    def merged_values(self) -> Array:
        """The donor's values that enter the merge, before they are ordered and restored."""
        return (self.incoming or self.donor_values)()


@dataclass(frozen=True)
class Norm:
    """A BatchNorm that stands directly behind a contraction: y = s * x + t, per channel."""

    scale: Parameter
    shift: Parameter
    mean: Parameter
    variance: Parameter
    epsilon: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (self.scale, self.shift, self.mean, self.variance)

    def s(self, graph: LayerGraph) -> Array:
        # No training gives a negative variance; where one stands all the same, it must not stop the comparison.
        variance = np.abs(values_of(graph, self.variance).astype(np.float64))
        factor: Array = values_of(graph, self.scale) / np.sqrt(variance + self.epsilon)
        return factor.astype(np.float32)


def values_of(graph: LayerGraph, parameter: Parameter) -> Array:
    """A parameter's values as they take effect, in canonical form and float32 (float64 stays)."""
    stored = graph.weights[parameter.tensor].read()
    kept = stored if stored.dtype == np.float64 else stored.astype(np.float32, copy=False)
    values = parameter.canonical(kept)
    return values if parameter.factor == 1.0 else values * values.dtype.type(parameter.factor)


def terms_of(base: LayerGraph, donor: LayerGraph, match: Match) -> tuple[list[Term], dict[str, list[str]]]:
    """Every tensor that the matched layers have in common, in the base's form.

    Returns:
        the terms, the weight of a layer first; and what one of two matched layers holds without a counterpart, by name
        of the base's layer.
    """
    terms: list[Term] = []
    left: dict[str, list[str]] = {}
    for pair in match.pairs:
        found, missing = layer_terms(base, donor, pair)
        terms += sorted((placed(base, donor, term) for term in found), key=lambda term: not term.is_weight)
        if missing:
            left[pair.base.name] = missing
    return terms, left


def layer_terms(base: LayerGraph, donor: LayerGraph, pair: Pair) -> tuple[list[Term], list[str]]:
    a, b = pair.base, in_rank_of(pair.base, pair.donor)
    norm_a, norm_b = foldable_norm(base, a), foldable_norm(donor, pair.donor)
    if a.weight is not None and b.weight is not None and (norm_a is None) != (norm_b is None):
        if max(a.weight.blocks, b.weight.blocks) > 1:
            return [replace(plain_term(base, donor, a.weight, b.weight, pair), misfit=SEVERAL)], []
        folded = list(folded_terms(base, donor, a, b, norm_a, norm_b, pair))
        done, used = spoken_for(a, norm_a), spoken_for(b, norm_b)
    else:
        folded, done, used = [], set(), set()
    own = {p.tensor for p in a.parameters if p.factor}  # what is shared is merged with its first user
    every = keyed(base, a)
    mine = {key: p for key, p in every.items() if p.tensor not in done and p.tensor in own}
    folded = [term for term in folded if term.base.tensor in own]
    theirs = {key: p for key, p in keyed(donor, b).items() if p.tensor not in used}
    terms, left = folded, []
    for key, parameter in mine.items():
        other = theirs.get(key)
        if other is not None and (parameter.role == "weight" or len(other.shape) == len(parameter.shape)):
            term = plain_term(base, donor, parameter, theirs.pop(key), pair)
            terms.append(compared_folded(base, donor, term, norm_a, norm_b))
        elif parameter.role == "bias" and b.weight is not None and b.weight.blocks == 1:
            terms.append(zero_bias(base, parameter, b.weight, pair))
        elif np.prod(parameter.shape) > 1:
            left.append(f"{parameter.role} {parameter.tensor} keeps the base's values: the donor has no counterpart")
    if norm_b is not None and norm_a is None and b.weight is not None and "bias" not in by_role(a):
        left.append(f"shift {norm_b.shift.tensor} of the donor: the base has no slot for a bias")
    left += [
        f"{p.role} {p.tensor} of the donor: the base {'shares its own' if key in every else 'has no slot for it'}"
        for key, p in theirs.items()
        if np.prod(p.shape) > 1 and not (p.tensor in b.tied and key in every and every[key].tensor in a.tied)
    ]
    return terms, left


def in_rank_of(a: Layer, b: Layer) -> Layer:
    """The donor's layer with as many axes on its weight as the base's has, where those that come or go are one tap."""
    if a.weight is None or b.weight is None or len(a.weight.shape) == len(b.weight.shape):
        return b
    weight, rank = b.weight, len(a.weight.shape)
    if any(size != 1 for size in (*a.weight.shape[2:], *weight.shape[2:])):
        return b
    axes = (*weight.axes[:2], *[None] * (rank - 2))
    formed = replace(weight, axes=axes, shape=(*weight.shape[:2], *a.weight.shape[2:]))
    swapped = [tuple(formed if p is weight else p for p in own) for own in (b.parameters, b.applied)]
    return replace(b, parameters=swapped[0], applied=swapped[1])


def placed(base: LayerGraph, donor: LayerGraph, term: Term) -> Term:
    """The term, with the place of the donor's window in the base's."""
    mine, theirs = term.base.shape[2:], term.donor.shape[2:]
    if not term.is_weight or mine == theirs or len(mine) != len(theirs):
        return term
    differ = f"the windows differ: {cross(mine)} against {cross(theirs)}"
    try:
        found = offsets(base.nodes[term.base.node], mine, donor.nodes[term.donor.node], theirs)
    except Misfit as reason:
        return replace(term, misfit=f"{differ}, and {reason}")
    if any(min(ends) < 0 for ends in found):
        return replace(term, misfit=f"{differ}; `width`=grow makes the base's larger")
    return replace(term, lead=tuple(lead for lead, _ in found))


def cross(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def spoken_for(layer: Layer, norm: Norm | None) -> set[str]:
    """The tensors of a layer that folding deals with."""
    folded = {p.tensor for p in layer.applied if p.role in ("weight", "bias")}
    return folded | {p.tensor for p in (norm.parameters if norm else ())}


def plain_term(base: LayerGraph, donor: LayerGraph, mine: Parameter, theirs: Parameter, pair: Pair) -> Term:
    return Term(pair, mine, theirs, partial(values_of, base, mine), partial(values_of, donor, theirs))


def compared_folded(base: LayerGraph, donor: LayerGraph, term: Term, norm_a: Norm | None, norm_b: Norm | None) -> Term:
    """The term, with weight and bias compared as the BatchNorms behind them leave them: their own scale means nothing
    there."""
    folded = {"weight": folded_weight, "bias": folded_bias}.get(term.base.role)
    if norm_a is None or norm_b is None or folded is None:
        return term
    return replace(
        term,
        base_values=partial(folded, base, term.base, norm_a),
        donor_values=partial(folded, donor, term.donor, norm_b),
        incoming=term.donor_values,
    )


def zero_bias(base: LayerGraph, bias: Parameter, weight: Parameter, pair: Pair) -> Term:
    """A bias that the donor does not have: zero, with the axis of the donor's output units."""
    return Term(
        pair, bias, row_vector(weight), partial(values_of, base, bias), partial(np.zeros, weight.shape[0], np.float32)
    )


def row_vector(weight: Parameter) -> Parameter:
    """A vector over the output units of a weight, as a parameter: it borrows the weight's first axis."""
    return Parameter(
        weight.tensor, weight.node, weight.slot, "bias", ParameterKind.SHIFT, weight.axes[:1], weight.shape[:1]
    )


def keyed(graph: LayerGraph, layer: Layer) -> dict[tuple[str, str, bool, int], Parameter]:
    """A layer's parameters by operator, role, whether they are scalars, and how many of the kind came before."""
    found: dict[tuple[str, str, bool, int], Parameter] = {}
    for parameter in layer.applied:
        named = parameter.is_weight or parameter.is_bias
        kind = ("" if named else graph.nodes[parameter.node].op, parameter.role, not named and not parameter.shape)
        count = sum(key[:3] == kind for key in found)
        found[*kind, count] = parameter
    return found


def foldable_norm(graph: LayerGraph, layer: Layer) -> Norm | None:
    """The BatchNorm directly behind the layer's contraction, if nothing else reads what is between."""
    row = None if layer.weight is None else row_of(graph.nodes[layer.weight.node])
    if layer.weight is None or row is None or not row.is_linear:
        return None
    tensor = graph.nodes[layer.weight.node].outputs[0]
    while tensor not in graph.output_names and len(graph.consumers.get(tensor, ())) == 1:
        index = graph.consumers[tensor][0][0]
        own = {p.role: p for p in layer.applied if p.node == index}
        row = row_of(graph.nodes[index])
        if row is not None and row.is_batch_norm and {"scale", "shift", "mean", "variance"} <= set(own):
            if not row.has_stored_statistics(graph.nodes[index]):
                return None  # its statistics are those of the batch
            epsilon = norm_epsilon(graph.nodes[index])
            return Norm(own["scale"], own["shift"], own["mean"], own["variance"], epsilon)
        if set(own) != {"bias"}:
            return None
        tensor = graph.nodes[index].outputs[0]
    return None


# --- folding ----------------------------------------------------------------------------------------------------


def folded_terms(
    base: LayerGraph, donor: LayerGraph, a: Layer, b: Layer, norm_a: Norm | None, norm_b: Norm | None, pair: Pair
) -> Iterator[Term]:
    """Weight and bias of a pair of which one side alone has a BatchNorm."""
    assert a.weight is not None
    assert b.weight is not None
    mine, theirs = by_role(a), by_role(b)
    rows = row_vector(b.weight)
    if norm_b is not None:  # the donor is folded
        effective = partial(folded_weight, donor, b.weight, norm_b)
        shift = partial(folded_bias, donor, theirs.get("bias"), norm_b)
        yield Term(pair, a.weight, b.weight, partial(values_of, base, a.weight), effective)
        if "bias" in mine:
            yield Term(pair, mine["bias"], rows, partial(values_of, base, mine["bias"]), shift)
        return
    assert norm_a is not None
    given = theirs.get("bias")
    shift = partial(values_of, donor, given) if given else partial(np.zeros, rows.shape, np.float32)
    yield Term(
        pair,
        a.weight,
        b.weight,
        partial(folded_weight, base, a.weight, norm_a),
        partial(values_of, donor, b.weight),
        restore=partial(unfolded_weight, base, a.weight, norm_a),
    )
    yield Term(
        pair,
        norm_a.shift,
        rows,
        partial(folded_bias, base, mine.get("bias"), norm_a),
        shift,
        restore=partial(unfolded_shift, base, mine.get("bias"), norm_a),
    )


def by_role(layer: Layer) -> Mapping[str, Parameter]:
    return {parameter.role: parameter for parameter in reversed(layer.applied)}


def by_row(vector: Array, like: Array) -> Array:
    """A value for every unit, as a factor of the weight that makes them: of a row, or, where a row makes one in each of
    several blocks, of its columns there."""
    if like.ndim < 2 or not like.size:
        return vector.reshape(-1, *[1] * (like.ndim - 1))
    blocks = len(vector) // len(like)
    columns = np.repeat(vector.reshape(blocks, -1).T, like.shape[1] // blocks if blocks > 1 else 1, axis=1)
    return columns.reshape(*columns.shape, *[1] * (like.ndim - 2))


def folded_weight(graph: LayerGraph, weight: Parameter, norm: Norm) -> Array:
    values = values_of(graph, weight)
    folded: Array = values * by_row(norm.s(graph), values)
    return folded


def folded_bias(graph: LayerGraph, bias: Parameter | None, norm: Norm) -> Array:
    before = values_of(graph, bias) if bias is not None else np.float32(0)
    folded: Array = values_of(graph, norm.shift) + norm.s(graph) * (before - values_of(graph, norm.mean))
    return folded


def unfolded_weight(graph: LayerGraph, weight: Parameter, norm: Norm, values: Array) -> Array:
    """The weight that has `values` as its effective rows behind the base's BatchNorm; dead channels keep the base's."""
    s = norm.s(graph)
    alive = np.abs(s) >= TINY_SCALE
    divided = values / by_row(np.where(alive, s, 1), values)
    return np.where(by_row(alive, values), divided, values_of(graph, weight))


def unfolded_shift(graph: LayerGraph, bias: Parameter | None, norm: Norm, values: Array) -> Array:
    """The shift that gives `values` as effective bias beside the base's own mean and bias."""
    s = norm.s(graph)
    before = values_of(graph, bias) if bias is not None else np.float32(0)
    shift = values + s * (values_of(graph, norm.mean) - before)
    return np.where(np.abs(s) >= TINY_SCALE, shift, values_of(graph, norm.shift))


def dead_channels(base: LayerGraph, donor: LayerGraph, pair: Pair) -> int:
    """How many channels keep the base's weights: its BatchNorm, which the donor lacks, scales them to nothing."""
    norm = foldable_norm(base, pair.base)
    if norm is None or pair.donor.weight is None or foldable_norm(donor, pair.donor) is not None:
        return 0
    return int(np.sum(np.abs(norm.s(base)) < TINY_SCALE))
