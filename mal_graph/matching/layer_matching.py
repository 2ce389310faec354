"""Which base layer corresponds to which donor layer - by structure, position and weights, never by name.

Pairs are monotone along the partial order of both graphs (shallow to deep): no pair may reverse an
ancestor-descendant relation, while layers of parallel branches are assigned freely. Both sides may keep layers
without a partner. What is known of each layer stands in `layer_profile`, the scores of every two layers in
`layer_scores`, the choice of the pairs in `pairing`.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph
from mal_graph.matching.differences import Difference, compare_operations
from mal_graph.matching.exchanges import exchange_partners
from mal_graph.matching.layer_links import find_outputs
from mal_graph.matching.layer_profile import Profile, profile_layers
from mal_graph.matching.layer_scores import LayerScores, explain_pair
from mal_graph.matching.pairing import MIN_SCORE, pair_monotonely
from mal_graph.network import Layer
from mal_graph.registry import Model


class Relation(StrEnum):
    """How the sizes of two layers relate, as in Model Assembly Learning (arXiv:2503.21657)."""

    EQUAL = "equal"
    COMPATIBLE = "size-compatible"  # one contains the other
    INCOMPATIBLE = "size-incompatible"


@dataclass(frozen=True)
class RunnerUp:
    """The donor layer that a base layer is most like beside its partner.

    Attributes:
        donor: its name.
        score: 0 to 1.
        reason: why it is not the partner.
    """

    donor: str
    score: float
    reason: str


@dataclass(frozen=True, repr=False)
class LayerPair(Brief):
    """A base layer and the donor layer that corresponds to it.

    Attributes:
        base, donor: the two layers.
        score: 0 to 1.
        reason: what the two have in common.
        relation: how their sizes relate, as they were matched.
        differences: in what they are not the same function, however their weights are merged.
        parts: what the score is made of, each from 0 to 1, by name.
        runner_up: the next best donor layer; None where no other has this kind.
    """

    base: Layer
    donor: Layer
    score: float
    reason: str
    relation: Relation
    differences: tuple[Difference, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    runner_up: RunnerUp | None = None


@dataclass(frozen=True, repr=False)
class Match(Brief):
    """The layers of two models, paired.

    Attributes:
        base, donor: the layers of both models.
        pairs: in the order of the base.
        unmatched_base, unmatched_donor: why a layer has no partner, by its name.
        graphs: the two models; None where the base was rewritten since.
    """

    base: tuple[Layer, ...]
    donor: tuple[Layer, ...]
    pairs: tuple[LayerPair, ...]
    unmatched_base: Mapping[str, str]
    unmatched_donor: Mapping[str, str]
    graphs: tuple[LayerGraph, LayerGraph] | None = field(default=None, compare=False)

    def _repr_svg_(self) -> str | None:
        """What a notebook shows: both models side by side."""
        return None if self.graphs is None else registry.reporter().svg(self)

    def with_base(self, layers: Iterable[Layer]) -> "Match":
        """The same match, with the base's layers as they are after a rewrite, which keeps their names."""
        named = {layer.name: layer for layer in layers}
        pairs = tuple(replace(pair, base=named[pair.base.name]) for pair in self.pairs)
        return replace(self, base=tuple(named.values()), pairs=pairs, graphs=None)


def match_layers(
    base: Model,
    donor: Model,
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    without: Collection[str] = (),
    outputs: Mapping[str, str] | None = None,
) -> Match:
    """Pair the layers of two models.

    Args:
        base, donor: the models, as graphs, paths or documents.
        pairs: layer names to pair, instead of finding them; may cross.
        without: names of donor layers that shall have no partner.
        outputs: the donor's name of outputs of the base, where it is known: layers that lead to none in common are not
            paired.

    Raises:
        MatchError: no two layers correspond to each other, or `pairs` cannot be.
    """
    base, donor = registry.as_graph(base), registry.as_graph(donor)
    a, b = profile_layers(base), profile_layers(donor)
    leads = (find_outputs(base, a.layers), find_outputs(donor, b.layers)) if outputs else ((), ())
    scores = LayerScores(a, b, without, outputs, leads)
    if pairs is None:
        chosen = exchange_partners(a, b, scores, pair_monotonely(a, b, scores))
    else:
        chosen = read_pairs(base, donor, a, b, pairs)
    if not chosen:
        raise MatchError(
            f"no layer of {donor.name} corresponds to a layer of {base.name}: "
            f"found {count_kinds(a)} against {count_kinds(b)}; "
            "inspect both models, or give pairs by hand with `matches`"
        )
    taken = {j: i for i, j in chosen.items()}
    paired: list[LayerPair] = []
    alone: list[dict[str, str]] = [{}, {}]
    for i, row in scores.rows(range(len(a.layers))):
        if i in chosen:
            paired.append(describe_pair(scores, i, chosen[i], row, taken))
        else:
            alone[0][a.layers[i].name] = explain_unmatched(i, row, taken, b, a)
    for j, column in scores.columns([j for j in range(len(b.layers)) if j not in taken]):
        alone[1][b.layers[j].name] = explain_unmatched(j, column, chosen, a, b)
    return Match(a.layers, b.layers, tuple(paired), alone[0], alone[1], (base, donor))


def describe_pair(scores: LayerScores, i: int, j: int, row: NDArray[np.float64], taken: Mapping[int, int]) -> LayerPair:
    """Base layer i and donor layer j as a pair. `row` has the scores of i with all donor layers, `taken` the base's
    partner of each donor layer."""
    a, b = scores.a, scores.b
    parts = scores.parts_of(i, j)
    return LayerPair(
        a.layers[i],
        b.layers[j],
        round(max(0.0, float(row[j])), 4),
        explain_pair(parts, scores.is_same_place(i, j)),
        relate_widths(a.layers[i], b.layers[j]),
        compare_operations(a.operations[i], b.operations[j]),
        {name: round(part, 4) for name, part in parts.items()},
        find_runner_up(i, j, row, taken, a, b),
    )


def match_itself(layers: tuple[Layer, ...]) -> Match:
    """The layers of a model, each paired with itself."""
    pairs = [LayerPair(layer, layer, 1.0, "the same layer", Relation.EQUAL) for layer in layers]
    return Match(layers, layers, tuple(pairs), {}, {})


def relate_widths(a: Layer, b: Layer) -> Relation:
    """How the sizes of two layers relate."""
    wider_in, wider_out = a.in_out[0] - b.in_out[0], a.in_out[1] - b.in_out[1]
    if wider_in == wider_out == 0:
        return Relation.EQUAL
    return Relation.COMPATIBLE if wider_in * wider_out >= 0 else Relation.INCOMPATIBLE


def find_runner_up(
    i: int, j: int, row: NDArray[np.float64], taken: Mapping[int, int], a: Profile, b: Profile
) -> RunnerUp | None:
    """The donor layer that base layer i is most like beside its partner j; `row` has the scores of i, `taken` the
    base's partner of each donor layer."""
    others = row.copy()
    others[j] = -np.inf
    best = int(np.argmax(others))
    if not np.isfinite(others[best]):
        return None
    if best in taken:
        reason = f"it corresponds to {a.layers[taken[best]].name}"
    elif others[best] < row[j]:
        reason = "it is less alike"
    else:
        reason = "the pair would reverse the order of layers, or keep better ones apart"
    return RunnerUp(b.layers[best].name, round(max(0.0, float(others[best])), 4), reason)


def explain_unmatched(
    i: int, scores: NDArray[np.float64], taken: Mapping[int, int], others: Profile, own: Profile
) -> str:
    """Why a layer has no partner. `scores` are its own; `taken` maps layers of the other side to this one."""
    layer = own.layers[i]
    if not len(others.layers) or not np.isfinite(scores).any():
        return f"the other model has no layer of kind {layer.kind} with such a window"
    best = int(np.argmax(scores))
    if scores[best] < MIN_SCORE:
        return f"nothing alike enough: {others.layers[best].name} comes closest with {scores[best]:.2f}"
    if best in taken:
        partner = own.layers[taken[best]].name
        return f"its best partner {others.layers[best].name} ({scores[best]:.2f}) corresponds to {partner}"
    return f"pairing it with {others.layers[best].name} ({scores[best]:.2f}) would reverse the order of layers"


def count_kinds(a: Profile) -> str:
    counted: dict[str, int] = {}
    for layer in a.layers:
        counted[layer.kind] = counted.get(layer.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counted.items())) or "no layers"


def read_pairs(
    base: LayerGraph, donor: LayerGraph, a: Profile, b: Profile, pairs: Iterable[tuple[str, str]]
) -> dict[int, int]:
    """A user's pairs as indices. Raises MatchError for unknown names, double use or different kinds."""
    chosen: dict[int, int] = {}
    for left, right in pairs:
        i, j = find_layer(base, a.layers, left), find_layer(donor, b.layers, right)
        if i in chosen or j in chosen.values():
            raise MatchError(f"the pair {left!r} - {right!r} uses a layer a second time: pair every layer at most once")
        if a.layers[i].kind != b.layers[j].kind and not a.meanings[i] & b.meanings[j]:
            raise MatchError(
                f"cannot pair {left!r} ({a.layers[i].kind}) with {right!r} ({b.layers[j].kind}): "
                "pair layers of the same kind"
            )
        chosen[i] = j
    return chosen


def find_layer(graph: LayerGraph, layers: Sequence[Layer], name: str) -> int:
    """The index of the layer called `name`. Raises MatchError that suggests the nearest names."""
    for index, layer in enumerate(layers):
        if layer.name == name:
            return index
    near = difflib.get_close_matches(name, [layer.name for layer in layers], n=3, cutoff=0.3)
    listed = near or [layer.name for layer in layers[:3]]
    raise MatchError(f"{graph.name} has no layer {name!r}: did you mean {' or '.join(map(repr, listed))}?")


def explain_layer(base: LayerGraph, donor: LayerGraph, name: str) -> list[tuple[str, float, dict[str, float]]]:
    """The donor layers most like one base layer: name, score and the parts of the score, best first."""
    a, b = profile_layers(base), profile_layers(donor)
    i = find_layer(base, a.layers, name)
    compared = LayerScores(a, b)
    scores = compared.at(i, np.arange(len(b.layers)))
    ranked = [int(j) for j in np.argsort(-scores, kind="stable") if np.isfinite(scores[j])]
    return [(b.layers[j].name, float(scores[j]), compared.parts_of(i, j)) for j in ranked[:5]]
