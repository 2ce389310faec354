"""Which base layer corresponds to which donor layer - by structure, position and weights, never by name.

Pairs are monotone along the partial order of both graphs (shallow to deep): no pair may reverse an
ancestor-descendant relation, while layers of parallel branches are assigned freely. Both sides may keep layers
without a partner.

Method: a score for every two layers of one kind; the best monotone pairing of two canonical linear orders by dynamic
programming (as the cross-layer alignment of Nguyen et al. 2021, arXiv:2110.15538); then exchanges between parallel
branches while they gain, where layers that follow each other in both models count too: of branches alike the layers of
one correspond to the layers of one. Exact pairing under a partial order is not attempted: it is NP-hard in general.
"""

import difflib
import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph
from mal_graph.network import Layer, Parameter, data_inputs, find_layers, find_origins, find_parameters
from mal_graph.operators import dilations_of, groups_of, is_pointwise, row_of, strides_of

T = TypeVar("T", bound=Hashable)

Links = Sequence[Sequence[tuple[object, int]]]  # of every place the others it is linked with, and by what

MIN_SCORE = 0.35  # two layers less alike than this are never paired
SAME_PLACE = 0.9  # what two layers at the same place of isomorphic graphs score at least
FOLLOWS = 0.05  # what two layers add that follow each other in both models
CONTEXT = 3  # how many layers up and down the graph a context looks
WEIGHTS = {"context": 0.25, "position": 0.2, "widths": 0.2, "window": 0.2, "activation": 0.1, "statistics": 0.05}


@dataclass(frozen=True)
class Pair:
    """A base layer and the donor layer that corresponds to it.

    Attributes:
        base, donor: indices into the two lists of layers.
        score: 0 to 1.
        reason: what the two have in common.
        relation: "equal", "size-compatible" (one contains the other) or "size-incompatible", in the paper's sense.
    """

    base: int
    donor: int
    score: float
    reason: str
    relation: str


@dataclass(frozen=True)
class Match:
    """The layers of two models, paired.

    Attributes:
        base, donor: the layers of both models.
        pairs: in the order of the base.
        unmatched_base, unmatched_donor: reasons by layer index.
    """

    base: tuple[Layer, ...]
    donor: tuple[Layer, ...]
    pairs: tuple[Pair, ...]
    unmatched_base: Mapping[int, str]
    unmatched_donor: Mapping[int, str]


@dataclass(frozen=True)
class Profile:
    """What the matcher knows of the layers of one model, all of it free of names.

    Attributes:
        layers: the layers.
        reaches: reaches[i, j] is true if layer j is computed from layer i, shape (layers, layers).
        heights: the longest path from each layer to an output, in layers.
        up, down: hashes of each layer with what is before and after it, at radius 0 to CONTEXT, then without limit.
        edges: which layer's output the next one reads, as pairs of layer indices.
        roles: hashes of each layer with all that is around it, layers told apart by their activations too; radii as for
            `up` and `down`.
        activations: the operators inside that are neither contraction, norm nor arrangement.
        windows: kernel sizes, strides, dilations and groups.
        meanings: what each layer may correspond to; two layers that have none in common are never paired.
        statistics: scale-free figures of each layer's weight, shape (layers, 2).
    """

    layers: tuple[Layer, ...]
    reaches: NDArray[np.bool_]
    heights: tuple[int, ...]
    up: tuple[tuple[str, ...], ...]
    down: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[int, int], ...]
    roles: tuple[tuple[str, ...], ...]
    activations: tuple[frozenset[str], ...]
    windows: tuple[tuple[object, ...], ...]
    meanings: tuple[frozenset[tuple[object, ...]], ...]
    statistics: NDArray[np.float64]

    @cached_property
    def order(self) -> list[int]:
        """A linear order of the layers that no renaming or re-ordering of the file changes; branches alike keep theirs
        from layer to layer."""
        rank: dict[int, int] = {}
        behind = self.reaches @ np.array([layer.in_out for layer in self.layers]).reshape(-1, 2)

        def key(i: int) -> tuple[object, ...]:
            layer = self.layers[i]
            return (
                -self.heights[i],
                self.up[i][-1],
                self.down[i][-1],
                self.roles[i][-1],
                sorted(rank[j] for j in self.before[i]),
                layer.in_out,
                behind[i].tolist(),
                tuple(self.statistics[i].tolist()),
            )

        for depth in sorted({layer.depth for layer in self.layers}):
            here = [i for i, layer in enumerate(self.layers) if layer.depth == depth]
            rank |= {i: len(rank) + place for place, i in enumerate(sorted(here, key=key))}
        return list(rank)

    @cached_property
    def before(self) -> list[list[int]]:
        """The layers that each one reads."""
        return seconds(((j, i) for i, j in self.edges), len(self.layers))

    @cached_property
    def after(self) -> list[list[int]]:
        """The layers that read each one."""
        return seconds(self.edges, len(self.layers))

    def position(self, i: int) -> float:
        """How deep layer i lies, from 0 to 1."""
        length = self.layers[i].depth + self.heights[i]
        return self.layers[i].depth / length if length else 0.5


def match_layers(
    base: LayerGraph,
    donor: LayerGraph,
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    without: Collection[int] = (),
) -> Match:
    """Pair the layers of two models.

    Args:
        base, donor: the models.
        pairs: layer names to pair, instead of finding them; may cross.
        without: indices of donor layers that shall have no partner.

    Raises:
        MatchError: no two layers correspond to each other, or `pairs` cannot be.
    """
    a, b = profile(base), profile(donor)
    scores = score_table(a, b)
    scores[:, list(without)] = -np.inf
    if pairs is None:
        chosen = exchanged(a, b, scores, monotone(a, b, scores))
    else:
        chosen = given_pairs(base, donor, a, b, pairs)
    if not chosen:
        raise MatchError(
            f"no layer of {donor.name} corresponds to a layer of {base.name}: "
            f"found {kinds(a)} against {kinds(b)}; "
            "inspect both models, or give pairs by hand with --matches"
        )
    parts, same = score_parts(a, b), same_places(a, b)
    found = tuple(
        Pair(
            i,
            j,
            round(max(0.0, float(scores[i, j])), 4),
            reason_of(parts, bool(same[i, j]), i, j),
            relation(a.layers[i], b.layers[j]),
        )
        for i, j in sorted(chosen.items())
    )
    taken = {j: i for i, j in chosen.items()}
    return Match(
        a.layers,
        b.layers,
        found,
        {i: why_not(i, scores, taken, b, a) for i in range(len(a.layers)) if i not in chosen},
        {j: why_not(j, scores.T, chosen, a, b) for j in range(len(b.layers)) if j not in taken},
    )


def relation(a: Layer, b: Layer) -> str:
    """How the sizes of two layers relate, as in Model Assembly Learning (arXiv:2503.21657)."""
    wider_in, wider_out = a.in_out[0] - b.in_out[0], a.in_out[1] - b.in_out[1]
    if wider_in == wider_out == 0:
        return "equal"
    return "size-compatible" if wider_in * wider_out >= 0 else "size-incompatible"


# --- profiles ---------------------------------------------------------------------------------------------------


def profile(graph: LayerGraph) -> Profile:
    """Describe every layer of a graph without using a name."""
    found = find_layers(graph)
    places, reads = layer_network(graph)
    place_of = {start: place for place, start in enumerate(places)}
    own = [place_of[layer.start] for layer in found]
    by_place = dict(zip(own, range(len(found)), strict=True))
    windows = tuple(window(graph, layer) for layer in found)
    activated = tuple(activations(graph, layer) for layer in found)
    labels = [
        repr((found[by_place[p]].kind, windows[by_place[p]])) if p in by_place else join_label(graph, start)
        for p, start in enumerate(places)
    ]
    finer = [
        repr((label, sorted(activated[by_place[p]]))) if p in by_place else label for p, label in enumerate(labels)
    ]
    feeds: list[list[Reading]] = [[] for _ in places]
    for target, sources in enumerate(reads):
        for one in sources:
            feeds[one.place].append(one._replace(place=target))
    plain = [[[(one.slot, one.place) for one in near] for near in side] for side in (reads, feeds)]
    exact = [[[((one.slot, one.port), one.place) for one in near] for near in side] for side in (reads, feeds)]
    ways = (range(len(places)), range(len(places))[::-1])
    up, down = (contexts(labels, near, unfolded(labels, near, way)) for near, way in zip(plain, ways, strict=True))
    ends = [unfolded(finer, near, way) for near, way in zip(exact, ways, strict=True)]
    around = [
        [*((-1, link) for link in one), *((1, link) for link in other)] for one, other in zip(*exact, strict=True)
    ]
    linked = [[((way, link), place) for way, (link, place) in near] for near in around]
    roles = contexts(finer, linked, settled([*map("".join, zip(*ends, strict=True))], linked))
    reaches, heights = descendants(feeds, by_place)
    return Profile(
        found,
        reaches[np.ix_(own, own)],
        tuple(heights[p] for p in own),
        tuple(tuple(level[p] for level in up) for p in own),
        tuple(tuple(level[p] for level in down) for p in own),
        tuple(layer_edges(graph, found)),
        tuple(tuple(level[p] for level in roles) for p in own),
        activated,
        windows,
        tuple(meanings(graph, layer, taps) for layer, taps in zip(found, windows, strict=True)),
        np.array([weight_statistics(graph, layer) for layer in found]).reshape(len(found), 2),
    )


def seconds(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """The second numbers of pairs, by the first, which runs up to `count`."""
    found: list[list[int]] = [[] for _ in range(count)]
    for first, second in pairs:
        found[first].append(second)
    return found


class Reading(NamedTuple):
    """One origin read by another: at which place it stands, by which slot, and which of the tensors it gives; the slot
    is 0 where the operator does not care about the order of its operands."""

    slot: int
    port: int
    place: int


def layer_network(graph: LayerGraph) -> tuple[list[int], list[list[Reading]]]:
    """The network of origins, layers and joins alike: their starts in topological order, and what each reads."""
    by_node: dict[int, list[Parameter]] = {}
    for parameter in find_parameters(graph):
        by_node.setdefault(parameter.node, []).append(parameter)
    origin, members = find_origins(graph, by_node)
    places = sorted({*members, *origin.values()}, key=lambda start: (start >= 0, start))
    place_of = {start: place for place, start in enumerate(places)}
    named: list[list[tuple[int, str]]] = []
    for start in places:
        node = graph.nodes[start] if start >= 0 else None
        row = row_of(node) if node else None
        names = data_inputs(node, row) if node else []
        ordered = row is None or not row.commutes
        named.append([(slot if ordered else 0, name) for slot, name in enumerate(names) if name in origin])
    ports: dict[int, list[str]] = {}
    for name in sorted({name for near in named for _, name in near}, key=lambda name: graph.producer.get(name, -1)):
        ports.setdefault(origin[name], []).append(name)
    return places, [
        [Reading(slot, ports[origin[name]].index(name), place_of[origin[name]]) for slot, name in near]
        for near in named
    ]


def layer_edges(graph: LayerGraph, found: Sequence[Layer]) -> list[tuple[int, int]]:
    """Which layer's output the next layer reads, joins seen through, as pairs of layer indices."""
    places, reads = layer_network(graph)
    index = {layer.start: i for i, layer in enumerate(found)}
    behind: list[set[int]] = []  # the layers that each place's output comes from
    edges: list[tuple[int, int]] = []
    for start, sources in zip(places, reads, strict=True):
        before = {i for one in sources for i in behind[one.place]}
        if start in index:
            edges += [(i, index[start]) for i in sorted(before)]
        behind.append({index[start]} if start in index else before)
    return edges


def join_label(graph: LayerGraph, start: int) -> str:
    return f"input {start}" if start < 0 else graph.nodes[start].op


def contexts(labels: Sequence[str], neighbours: Links, whole: Sequence[str]) -> list[Sequence[str]]:
    """Weisfeiler-Lehman hashes of every place at radius 0 to CONTEXT, and then `whole`, those without limit."""
    levels: list[Sequence[str]] = [[digest(label) for label in labels]]
    for _ in range(CONTEXT):
        levels.append(refined(levels[-1], neighbours))
    return [*levels, whole]


def refined(hashes: Sequence[str], neighbours: Links) -> list[str]:
    """Hashes of every place with those of what it is linked with."""
    return [combined(hashes[place], near, hashes) for place, near in enumerate(neighbours)]


def unfolded(labels: Sequence[str], neighbours: Links, order: Iterable[int]) -> list[str]:
    """Hashes of every place with all that it leads to; in `order` each comes behind what it is linked with."""
    found = [""] * len(labels)
    for place in order:
        found[place] = combined(labels[place], neighbours[place], found)
    return found


def settled(hashes: Sequence[str], neighbours: Links) -> Sequence[str]:
    """Hashes refined until no place is told apart any further."""
    classes, new = 0, hashes
    while len(set(new)) > classes:
        classes, hashes = len(set(new)), new
        new = refined(hashes, neighbours)
    return hashes


def combined(own: str, near: Sequence[tuple[object, int]], hashes: Sequence[str]) -> str:
    return digest(own + repr(sorted((repr(link), hashes[other]) for link, other in near)))


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def descendants(feeds: Sequence[Sequence[Reading]], by_place: Mapping[int, int]) -> tuple[NDArray[np.bool_], list[int]]:
    """What each place reaches, and how many layers the longest path from it passes."""
    reaches = np.zeros((len(feeds), len(feeds)), bool)
    heights = [0] * len(feeds)
    for place in reversed(range(len(feeds))):  # topological order: successors come later
        for _, _, target in feeds[place]:
            reaches[place] |= reaches[target]
            reaches[place, target] = True
            heights[place] = max(heights[place], heights[target] + (target in by_place))
    return reaches, heights


def window(graph: LayerGraph, layer: Layer) -> tuple[object, ...]:
    """Kernel taps and how they move; empty for a layer that has none."""
    if layer.weight is None:
        return ()
    node = graph.nodes[layer.weight.node]
    taps = layer.weight.shape[2:]
    if not taps:
        return ()
    groups = groups_of(node)
    dense = "dense" if groups == 1 else "depthwise" if layer.weight.shape[1] == 1 else "grouped"
    return (tuple(taps), strides_of(node, len(taps)), dilations_of(node, len(taps)), dense)


def meanings(graph: LayerGraph, layer: Layer, window: tuple[object, ...]) -> frozenset[tuple[object, ...]]:
    """What a layer may correspond to: its kind, with a window its rank and whether it is dense, grouped or depthwise. A
    window of one tap that moves by one is a linear layer at every place as well."""
    if layer.weight is None or not window:
        return frozenset({(layer.kind,)})
    node = graph.nodes[layer.weight.node]
    row, taps, dense = row_of(node), layer.weight.shape[2:], window[-1]
    found: set[tuple[object, ...]] = {(layer.kind, len(taps), dense)}
    if row is not None and row.pointwise and dense == "dense" and is_pointwise(node, taps):
        found.add((row.pointwise,))
    return frozenset(found)


def activations(graph: LayerGraph, layer: Layer) -> frozenset[str]:
    """Operators inside a layer that shape its signal: no contraction, no arrangement, no parameters of their own."""
    with_parameters = {parameter.node for parameter in layer.parameters}
    found = set()
    for index in layer.nodes:
        row = row_of(graph.nodes[index])
        if index not in with_parameters and not (row is not None and row.moves):
            found.add(graph.nodes[index].op)
    return frozenset(found)


def weight_statistics(graph: LayerGraph, layer: Layer) -> tuple[float, float]:
    """Scale-free figures of a layer's first tensor: mean |w| / rms w, and rms over rows of the mean, by rms w."""
    leading = layer.leading
    if leading is None:
        return 0.0, 0.0
    values = leading.canonical(graph.weights[leading.tensor].read()).astype(np.float64)
    root = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
    if not np.isfinite(root) or root == 0.0:
        return 0.0, 0.0
    rows = values.reshape(values.shape[0] if values.ndim else 1, -1)
    return float(np.mean(np.abs(values)) / root), float(np.sqrt(np.mean(rows.mean(axis=1) ** 2)) / root)


# --- scores -----------------------------------------------------------------------------------------------------


def score_table(a: Profile, b: Profile) -> NDArray[np.float64]:
    """Scores of every two layers, shape (base layers, donor layers); -inf where their kinds differ."""
    parts = score_parts(a, b)
    different = sum((WEIGHTS[name] * part for name, part in parts.items()), np.zeros((len(a.layers), len(b.layers))))
    alike = 0.5 * levels_alike(a.roles, b.roles) + 0.5 * parts["activation"]
    same = 0.6 * alike + 0.2 * parts["widths"] + 0.2 * parts["statistics"]  # nothing else can differ
    scores = np.where(same_places(a, b), SAME_PLACE + (1 - SAME_PLACE) * same, SAME_PLACE * different)
    return np.where(by_kinds(a.meanings, b.meanings, lambda x, y: bool(x & y)), scores, -np.inf)


def same_places(a: Profile, b: Profile) -> NDArray[np.bool_]:
    """Which layers have the same before and behind them in both graphs, shape (base layers, donor layers)."""
    ends = [[(up[-1], down[-1]) for up, down in zip(side.up, side.down, strict=True)] for side in (a, b)]
    same: NDArray[np.bool_] = levels_alike(*([(end,) for end in side] for side in ends)) == 1.0
    return same


def levels_alike(mine: Sequence[Sequence[Hashable]], theirs: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """The share of levels on which the hashes of two layers are equal, shape (base layers, donor layers)."""
    number: dict[Hashable, int] = {}
    one, other = (
        np.array([[number.setdefault((level, x), len(number)) for level, x in enumerate(row)] for row in side])
        for side in (mine, theirs)
    )
    if not len(mine) or not len(theirs):
        return np.zeros((len(mine), len(theirs)))
    equal: NDArray[np.float64] = np.mean([np.equal.outer(x, y) for x, y in zip(one.T, other.T, strict=True)], axis=0)
    return equal


def by_kinds(mine: Sequence[T], theirs: Sequence[T], compare: Callable[[T, T], float]) -> NDArray[np.float64]:
    """A comparison of every two layers, which differ in few kinds; shape (base layers, donor layers)."""
    kinds: list[dict[T, int]] = [{}, {}]
    of = [[kind.setdefault(x, len(kind)) for x in side] for kind, side in zip(kinds, (mine, theirs), strict=True)]
    table = np.array([[compare(x, y) for y in kinds[1]] for x in kinds[0]]).reshape(len(kinds[0]), len(kinds[1]))
    return table[np.ix_(*of)] if all(of) else np.zeros((len(mine), len(theirs)))


def score_parts(a: Profile, b: Profile) -> dict[str, NDArray[np.float64]]:
    """What the scores are made of; every part is between 0 and 1, shape (base layers, donor layers)."""
    sides = [np.log2([layer.in_out for layer in side.layers]).reshape(-1, 2) for side in (a, b)]
    places = [np.array([side.position(i) for i in range(len(side.layers))]) for side in (a, b)]
    apart = [np.abs(x[:, None] - y[None]).sum(axis=2) for x, y in (sides, (a.statistics, b.statistics))]
    return {
        "context": 0.5 * levels_alike(a.up, b.up) + 0.5 * levels_alike(a.down, b.down),
        "position": 1.0 - np.abs(np.subtract.outer(*places)),
        "widths": np.exp2(-0.5 * apart[0]),
        "window": by_kinds(a.windows, b.windows, windows_alike),
        "activation": by_kinds(a.activations, b.activations, lambda x, y: len(x & y) / len(x | y) if x | y else 1.0),
        "statistics": np.exp(-apart[1]),
    }


def windows_alike(a: tuple[object, ...], b: tuple[object, ...]) -> float:
    """How much of two windows is equal; where one layer has none, the other's is one tap."""
    equal = [x == y for x, y in zip(a or b, b or a, strict=True)]
    return float(np.mean(equal)) if equal else 1.0


def reason_of(parts: Mapping[str, NDArray[np.float64]], is_same: bool, i: int, j: int) -> str:
    """Why two layers were paired, in words."""
    if is_same:
        return "the same place in graphs of the same structure"
    good = [name for name, part in parts.items() if part[i, j] >= 0.8]
    poor = [name for name, part in parts.items() if part[i, j] < 0.5]
    return f"alike in {', '.join(good) or 'kind'}" + (f"; unlike in {', '.join(poor)}" if poor else "")


def why_not(i: int, scores: NDArray[np.float64], taken: Mapping[int, int], others: Profile, own: Profile) -> str:
    """Why a layer has no partner. `scores` has its side as rows; `taken` maps layers of the other side to this one."""
    layer = own.layers[i]
    if not len(others.layers) or not np.isfinite(scores[i]).any():
        return f"the other model has no layer of kind {layer.kind} with such a window"
    best = int(np.argmax(scores[i]))
    if scores[i, best] < MIN_SCORE:
        return f"nothing alike enough: {others.layers[best].name} comes closest with {scores[i, best]:.2f}"
    if best in taken:
        partner = own.layers[taken[best]].name
        return f"its best partner {others.layers[best].name} ({scores[i, best]:.2f}) corresponds to {partner}"
    return f"pairing it with {others.layers[best].name} ({scores[i, best]:.2f}) would reverse the order of layers"


def kinds(a: Profile) -> str:
    counted: dict[str, int] = {}
    for layer in a.layers:
        counted[layer.kind] = counted.get(layer.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counted.items())) or "no layers"


# --- pairing ----------------------------------------------------------------------------------------------------


def monotone(a: Profile, b: Profile, scores: NDArray[np.float64]) -> dict[int, int]:
    """The best pairing in which both linear orders agree, gaps on both sides, by dynamic programming."""
    rows, columns = a.order, b.order
    gains = np.where(scores >= MIN_SCORE, scores, -np.inf)[np.ix_(rows, columns)]
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    for i in range(len(rows)):
        taken = best[i, :-1] + gains[i]
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    chosen: dict[int, int] = {}
    i, j = len(rows), len(columns)
    while i and j:
        if best[i, j] == best[i - 1, j - 1] + gains[i - 1, j - 1]:
            i, j = i - 1, j - 1
            chosen[rows[i]] = columns[j]
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return chosen


def exchanged(a: Profile, b: Profile, scores: NDArray[np.float64], chosen: dict[int, int]) -> dict[int, int]:
    """The pairing after every exchange of partners and every addition that gains and reverses nothing."""
    chosen, holder = dict(chosen), {j: i for i, j in chosen.items()}
    improved = True
    while improved:
        improved = False
        for i in a.order:
            for j in b.order:
                if scores[i, j] < MIN_SCORE or chosen.get(i) == j:
                    continue
                moves = moved(chosen, holder, i, j)
                if gain(a, b, scores, chosen, moves) <= 1e-9:
                    continue
                trial = {k: partner for k, partner in {**chosen, **moves}.items() if partner >= 0}
                if is_monotone(a, b, trial, [k for k in moves if k in trial]):
                    chosen, holder, improved = trial, {j: i for i, j in trial.items()}, True
    return chosen


def moved(chosen: Mapping[int, int], holder: Mapping[int, int], i: int, j: int) -> dict[int, int]:
    """New partners where i is paired to j, -1 for none; whoever had j (its `holder`) takes i's old partner."""
    return {i: j, **({holder[j]: chosen.get(i, -1)} if j in holder else {})}


def gain(
    a: Profile, b: Profile, scores: NDArray[np.float64], chosen: Mapping[int, int], moves: Mapping[int, int]
) -> float:
    """What is won where some layers take other partners."""
    new = sum(scores[i, j] if scores[i, j] >= MIN_SCORE else -np.inf for i, j in moves.items() if j >= 0)
    old = sum(scores[i, chosen[i]] for i in moves if i in chosen)
    if new - old + FOLLOWS * sum(len(a.before[i]) + len(a.after[i]) for i in moves) <= 0:  # as all too often
        return -np.inf
    steps = {step for i in moves for step in (*((j, i) for j in a.before[i]), *((i, j) for j in a.after[i]))}
    before = sum(chosen.get(j, -1) in b.after[chosen[i]] for i, j in steps if i in chosen)
    partner = {i: moves.get(i, chosen.get(i, -1)) for step in steps for i in step}
    after = sum(partner[j] in b.after[partner[i]] for i, j in steps if partner[i] >= 0)
    return float(new - old) + FOLLOWS * (after - before)


def is_monotone(a: Profile, b: Profile, chosen: Mapping[int, int], touched: Iterable[int]) -> bool:
    """Whether no touched pair reverses the order of another pair."""
    rows = np.array(list(chosen))
    columns = np.array([chosen[i] for i in chosen])
    return not any(
        (a.reaches[i, rows] & b.reaches[columns, chosen[i]]).any()
        or (a.reaches[rows, i] & b.reaches[chosen[i], columns]).any()
        for i in touched
    )


def given_pairs(
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


def find_layer(graph: LayerGraph, found: Sequence[Layer], name: str) -> int:
    """The index of the layer called `name`. Raises MatchError that suggests the nearest names."""
    for index, layer in enumerate(found):
        if layer.name == name:
            return index
    near = difflib.get_close_matches(name, [layer.name for layer in found], n=3, cutoff=0.3)
    listed = near or [layer.name for layer in found[:3]]
    raise MatchError(f"{graph.name} has no layer {name!r}: did you mean {' or '.join(map(repr, listed))}?")


def explain(base: LayerGraph, donor: LayerGraph, name: str) -> list[tuple[str, float, dict[str, float]]]:
    """The donor layers most like one base layer: name, score and the parts of the score, best first."""
    a, b = profile(base), profile(donor)
    i = find_layer(base, a.layers, name)
    scores, parts = score_table(a, b)[i], score_parts(a, b)
    ranked = [int(j) for j in np.argsort(-scores, kind="stable") if np.isfinite(scores[j])]
    return [
        (b.layers[j].name, float(scores[j]), {name: float(part[i, j]) for name, part in parts.items()})
        for j in ranked[:5]
    ]
