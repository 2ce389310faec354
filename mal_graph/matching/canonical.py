"""The donor's layers in the form of the base's: what is compared and merged, tensor by tensor.

Two exports of one layer can differ in form: a BatchNorm folded into its convolution or not (see `batchnorm_folding`), a
bias or none, a weight stored transposed. Parameters are canonical already (see `network.layers`); what is left is:

* A linear layer and a convolution of one tap: the donor's weight takes or loses the axes of that tap.
* Two BatchNorms with other epsilons: the donor's variance takes in what its epsilon is more than the base's.
* A bias in the base only: the donor's is zero. A bias in the donor only needs a slot, see `merging.slots`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.batchnorm_folding import (
    Side,
    compare_folded,
    find_foldable_norm,
    fold_norm,
)
from mal_graph.matching.class_names import find_misnamed
from mal_graph.matching.input_settings import find_other_settings
from mal_graph.matching.layer_matching import LayerPair, Match
from mal_graph.matching.setting_differences import compare_settings
from mal_graph.matching.tensor_pairs import TensorPair, read_values, row_vector
from mal_graph.network import Layer, Parameter, data_dependent
from mal_graph.operators import Misfit, ParameterKind, norm_epsilon, offsets, row_of

SEVERAL = "a BatchNormalization stands behind it in one model alone, and each row of its weight makes several units"

COMPUTED = "a BatchNormalization stands behind it in one model alone, and its weight is computed"

APART = "the donor has several of its own for it"

Key = tuple[str, str, bool, int]  # operator, role, whether it is a scalar, and how many of the kind came before


def pair_tensors(base: LayerGraph, donor: LayerGraph, match: Match) -> tuple[list[TensorPair], dict[str, list[str]]]:
    """Every tensor that the matched layers have in common, in the base's form.

    Returns:
        the pairs of tensors, the weight of a layer first; and what one of two matched layers holds without a
        counterpart, by name of the base's layer.
    """
    pairs: list[TensorPair] = []
    unpaired: dict[str, list[str]] = {}
    misnamed, prepared = find_misnamed(base, donor, match), find_other_settings(base, donor, match)
    settings, along = compare_settings(base, donor, match)
    misfits = {**dict.fromkeys(find_unfoldable(base, donor, match), COMPUTED), **misnamed}
    for layers in match.pairs:
        own, left = pair_tensors_of_layers(base, donor, layers)
        if layers.base.name in misfits:
            own = [replace(pair, misfit=misfits[layers.base.name]) for pair in own]
        left = [*left, *prepared.get(layers.base.name, ()), *settings.get(layers.base.name, ())]
        own += along.get(layers.base.name, ())
        pairs += sorted((with_window(pair, base, donor) for pair in own), key=lambda pair: not pair.is_weight)
        if left:
            unpaired[layers.base.name] = left
    return pairs, unpaired


def find_unfoldable(base: LayerGraph, donor: LayerGraph, match: Match) -> set[str]:
    """Layers of the base whose weight is computed and whose BatchNorm would have to be folded into it, with those that
    it is computed in, by name."""
    names: set[str] = set()
    for layers in match.pairs:
        is_stored = layers.base.weight is not None and layers.donor.weight is not None
        if not is_stored and has_norm(base, layers.base) != has_norm(donor, layers.donor):
            live = data_dependent(base)
            read = {name for name in base.nodes[layers.base.nodes[0]].inputs if name not in live}
            makers = {base.producer[name] for name in read if name in base.producer}
            names |= {layers.base.name, *(layer.name for layer in match.base if makers & set(layer.nodes))}
    return names


def has_norm(graph: LayerGraph, layer: Layer) -> bool:
    """Whether a BatchNorm with stored statistics works in a layer."""
    rows = [(row_of(graph.nodes[index]), graph.nodes[index]) for index in layer.nodes]
    return any(row is not None and row.has_stored_statistics(node) for row, node in rows)


def pair_tensors_of_layers(
    base: LayerGraph, donor: LayerGraph, layers: LayerPair
) -> tuple[list[TensorPair], list[str]]:
    """The tensors of two matched layers, and what one of them holds without a counterpart."""
    a = Side(base, layers.base, find_foldable_norm(base, layers.base))
    b = Side(donor, in_rank_of(layers.base, layers.donor), find_foldable_norm(donor, layers.donor))
    mine, theirs = a.layer.weight, b.layer.weight
    if mine is None or theirs is None or (a.norm is None) == (b.norm is None):
        return pair_by_key(a, b, layers, [])
    if max(mine.blocks, theirs.blocks) > 1:
        return [replace(plain_pair(a, b, mine, theirs, layers), misfit=SEVERAL)], []
    return pair_by_key(a, b, layers, list(fold_norm(a, b, layers)))


def pair_by_key(
    a: Side, b: Side, layers: LayerPair, folded: Sequence[TensorPair]
) -> tuple[list[TensorPair], list[str]]:
    """The tensors that correspond to each other by operator and role, behind those that folding a BatchNorm gave."""
    own = {p.tensor for p in a.layer.parameters if p.factor}  # what is shared is merged with its first user
    done, used = (a.folded_tensors, b.folded_tensors) if folded else (set(), set())
    pairs = [pair for pair in folded if pair.base.tensor in own]
    mine = parameters_by_key(a)
    theirs = {key: p for key, p in parameters_by_key(b).items() if p.tensor not in used}
    left: list[str] = []
    seen: set[str] = set()
    for key, parameter in mine.items():
        if parameter.tensor in done or parameter.tensor not in own or parameter.tensor in seen:
            continue
        seen.add(parameter.tensor)
        if not is_shared_alike(b.graph, [theirs.get(k) for k, p in mine.items() if p.tensor == parameter.tensor]):
            left.append(f"{parameter.role} {parameter.tensor} keeps the base's values: {APART}")
            continue
        pair = pair_parameter(a, b, layers, parameter, theirs.get(key))
        if pair is not None:
            pairs.append(pair)
            theirs = {other: p for other, p in theirs.items() if p is not pair.donor}
        elif np.prod(parameter.shape) > 1:
            left.append(f"{parameter.role} {parameter.tensor} keeps the base's values: the donor has no counterpart")
    return pairs, [*left, *find_without_slot(a, b, mine, theirs)]


def is_shared_alike(donor: LayerGraph, others: Sequence[Parameter | None]) -> bool:
    """Whether the donor holds the same numbers wherever the base reads one tensor."""
    names = {None if other is None else other.tensor for other in others}
    if len(names) == 1:
        return True
    stored = [donor.weights[name].read() for name in names if name is not None]
    return len(stored) == len(names) and all(np.array_equal(stored[0], other) for other in stored[1:])


def pair_parameter(
    a: Side, b: Side, layers: LayerPair, parameter: Parameter, other: Parameter | None
) -> TensorPair | None:
    """A parameter of the base with the donor's under the same key; a bias that the donor lacks with zeros."""
    if other is not None and (parameter.is_weight or len(other.shape) == len(parameter.shape)):
        return compare_folded(plain_pair(a, b, parameter, other, layers), a, b)
    if parameter.is_bias and b.layer.weight is not None and b.layer.weight.blocks == 1:
        return zero_bias(a, parameter, b.layer.weight, layers)
    return None


def find_without_slot(a: Side, b: Side, mine: Mapping[Key, Parameter], left: Mapping[Key, Parameter]) -> Iterator[str]:
    """What of the donor's the base has no tensor for."""
    if b.norm is not None and a.norm is None and b.layer.weight is not None and a.bias is None:
        yield f"shift {b.norm.shift.tensor} of the donor: the base has no slot for a bias"
    for key, p in left.items():
        is_tied_in_both = p.tensor in b.layer.tied and key in mine and mine[key].tensor in a.layer.tied
        if np.prod(p.shape) > 1 and not is_tied_in_both:
            why = "shares its own" if key in mine else "has no slot for it"
            yield f"{p.role} {p.tensor} of the donor: the base {why}"


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


def with_window(pair: TensorPair, base: LayerGraph, donor: LayerGraph) -> TensorPair:
    """The pair, with the place of the donor's window in the base's."""
    mine, theirs = pair.base.shape[2:], pair.donor.shape[2:]
    if not pair.is_weight or mine == theirs or len(mine) != len(theirs):
        return pair
    differ = f"the windows differ: {cross(mine)} against {cross(theirs)}"
    try:
        around = offsets(base.nodes[pair.base.node], mine, donor.nodes[pair.donor.node], theirs)
    except Misfit as reason:
        return replace(pair, misfit=f"{differ}, and {reason}")
    if any(min(ends) < 0 for ends in around):
        return replace(pair, misfit=f"{differ}; `width`=grow makes the base's larger")
    return replace(pair, lead=tuple(lead for lead, _ in around))


def cross(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def plain_pair(a: Side, b: Side, mine: Parameter, theirs: Parameter, layers: LayerPair) -> TensorPair:
    """Two tensors that are merged as they are stored; the donor's variance with what its epsilon is more."""
    more = added_to_variance(a, b, mine, theirs)
    read = partial(read_variance, b.graph, theirs, more) if more else b.reading(theirs)
    return TensorPair(layers, mine, theirs, a.reading(mine), read)


def added_to_variance(a: Side, b: Side, mine: Parameter, theirs: Parameter) -> float:
    """What makes the donor's variance that of a BatchNorm with the base's epsilon, exactly; 0 where nothing can: a
    variance below zero would be no longer one, and the difference is listed (see `differences`)."""
    nodes = a.graph.nodes[mine.node], b.graph.nodes[theirs.node]
    rows = [row_of(node) for node in nodes]
    if mine.role != theirs.role or mine.kind is not ParameterKind.VARIANCE:
        return 0.0
    if not all(row is not None and row.is_batch_norm for row in rows):
        return 0.0
    own, other = map(norm_epsilon, nodes)
    more = other - own
    return more if more and np.all(read_variance(b.graph, theirs, more) >= 0) else 0.0


def read_variance(graph: LayerGraph, variance: Parameter, more: float) -> Array:
    """A variance with something added, as exactly as its type can hold it."""
    values = read_values(graph, variance)
    added: Array = (values.astype(np.float64) + more).astype(values.dtype)
    return added


def zero_bias(a: Side, bias: Parameter, weight: Parameter, layers: LayerPair) -> TensorPair:
    """A bias that the donor does not have: zero, with the axis of the donor's output units."""
    zeros = partial(np.zeros, weight.shape[0], np.float32)
    return TensorPair(layers, bias, row_vector(weight), a.reading(bias), zeros)


def parameters_by_key(side: Side) -> dict[Key, Parameter]:
    """What a layer applies, under keys that correspond to each other in two layers."""
    keyed: dict[Key, Parameter] = {}
    for parameter in side.layer.applied:
        is_named = parameter.is_weight or parameter.is_bias
        op = "" if is_named else side.graph.nodes[parameter.node].op
        kind = (op, parameter.role, not is_named and not parameter.shape)
        count = sum(key[:3] == kind for key in keyed)
        keyed[*kind, count] = parameter
    return keyed
