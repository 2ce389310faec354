"""What will be done to every tensor, and doing it.

An entry of a merged weight depends on whether the units of its row and its column have a partner in the donor:

| row / column              | keep              | fade            | zero            |
|---------------------------|-------------------|-----------------|-----------------|
| matched / matched         | (1-lam) A + lam B | the same        | the same        |
| matched / without partner | A                 | (1-lam) A       | (1-lam) A       |
| without partner / any     | A                 | A               | (1-lam) A       |
| matched / added           | lam B             | lam B           | lam B           |
| added / with a partner    | B                 | B               | lam B           |
| added / without partner   | 0                 | 0               | 0               |

Added units stand where the donor has more of them, if the base was widened for these (see `grow`). Per-unit vectors
follow the rows; in `zero` the missing side is the value of a unit that is not there (variance 1, anything else 0).
Units that feed a sum, norm, mean or maximum over their axis follow `zero` in every mode: alive but without a partner
they would change the others. Source of the zero form: Model Assembly Learning (arXiv:2503.21657), as far as it can
be read; the other two are ours. `fade` is the default: most experiments with narrower donors speak for it
(examples/03_paper_experiments/report/report.md), the small networks of tools/results/study_digits.md for `keep`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import UsageError
from mal_graph.graph import Array, LayerGraph, Weight, weight_of
from mal_graph.matching.canonical import Term
from mal_graph.matching.correspondence import AxisPair
from mal_graph.matching.layer_matching import Match, Pair
from mal_graph.matching.unit_assignment import Alignment, Orders, is_whole, matched_positions
from mal_graph.merging.lambdas import LayerLambdas

UNMATCHED = ("keep", "fade", "zero")
WIDTHS = ("base", "grow")
DEPTHS = ("match", "expand")
Ends = tuple[float, float]  # what a number is for the base, and what for the donor


@dataclass(frozen=True)
class Step:
    """What happens to one tensor of the base.

    Attributes:
        tensor: its name.
        matched: the share of its entries that have a donor entry.
        nbytes: how much is written.
        term, axes: what is merged, and how its axes correspond.
        lam: its merging factor.
        is_given: whether it is the donor's at any lambda (see `deepening`).
    """

    tensor: str
    matched: float
    nbytes: int
    term: Term
    axes: tuple[AxisPair, ...]
    lam: float
    is_given: bool = False

    @property
    def pair(self) -> Pair:
        """The two layers whose tensors are merged, as they were when these were compared."""
        return self.term.pair


@dataclass(frozen=True)
class Growth:
    """What was widened before a merge.

    Attributes:
        added: how many units, by index of the base's group.
        kept: why a group keeps its width though the donor's has more units, or what is taken over its units is not
            compensated though the donor's has fewer, by index.
        factors: by name of a constant that a statistic is multiplied by, what it is for the base and for the donor.
        settings: by (name of a node, attribute) what it holds for the base and for the donor.
    """

    added: Mapping[int, int] = field(default_factory=dict)
    kept: Mapping[int, str] = field(default_factory=dict)
    factors: Mapping[str, Ends] = field(default_factory=dict)
    settings: Mapping[tuple[str, str], Ends] = field(default_factory=dict)

    @property
    def is_none(self) -> bool:
        """Whether the base is as it was."""
        return not (self.added or self.factors or self.settings)


@dataclass(frozen=True)
class Plan:
    """What will be done, tensor by tensor; nothing is computed yet.

    Attributes:
        base: the model that gives the graph.
        match, alignment: what the plan was made from.
        lambdas: the merging factors that were asked for; each step has its own.
        unmatched: what entries without a partner become: "keep", "fade" or "zero".
        steps: in the order of the base's layers.
        skipped: why a layer of the base keeps its weights, by its name.
        dropped: tensors of merged layers that keep the base's values, with reasons, by name of the layer.
        growth: what of `base` was widened for this merge.
    """

    base: LayerGraph
    match: Match
    alignment: Alignment
    lambdas: LayerLambdas
    unmatched: str
    steps: tuple[Step, ...]
    skipped: Mapping[str, str]
    dropped: Mapping[str, tuple[str, ...]]
    growth: Growth = field(default_factory=Growth)

    def at(self, lam: float) -> "Plan":
        """The same plan with one merging factor for all layers."""
        steps = tuple(step if step.is_given else replace(step, lam=lam) for step in self.steps)
        return replace(self, lambdas=LayerLambdas.of(lam), steps=steps)

    @property
    def is_moving(self) -> bool:
        """Whether anything is merged at all: at lambda 0 nothing is."""
        return any(step.lam for step in self.steps)

    @cached_property
    def lam_of(self) -> Mapping[str, float]:
        """The merging factor of each tensor that is merged."""
        return {step.tensor: step.lam for step in self.steps}

    @property
    def mean_lam(self) -> float:
        """Over all parameters that are merged."""
        sizes = [int(np.prod(step.term.base.shape)) for step in self.steps]
        if self.lambdas.is_uniform or not sum(sizes):
            return self.lambdas.mean
        return float(np.average([step.lam for step in self.steps], weights=sizes))

    @property
    def merged_pairs(self) -> list[Pair]:
        """The pairs of layers that are merged, as they are in `base`."""
        merged = {step.pair.base.name for step in self.steps}
        return [pair for pair in self.match.pairs if pair.base.name in merged]

    @property
    def merged_parameters(self) -> int:
        return sum(int(np.prod(step.term.base.shape)) for step in self.steps)

    @property
    def peak_bytes(self) -> int:
        """Memory of the largest step: base, donor and result in float32."""
        return max((3 * 4 * int(np.prod(step.term.base.shape)) for step in self.steps), default=0)


def plan(
    base: LayerGraph,
    match: Match,
    alignment: Alignment,
    lambdas: LayerLambdas,
    *,
    unmatched: str = "fade",
    layers: Iterable[str] | None = None,
    given: Collection[str] = (),
) -> Plan:
    """Plan a merge.

    Args:
        base, match, alignment: the model, its layers' partners and its units'.
        lambdas: the merging factors of the base's layers.
        unmatched: see the table above.
        layers: names of the base layers to merge, all of them if left out.
        given: stored tensors that are the donor's whatever lambda, unless unmatched is "zero".

    Raises:
        UsageError: `unmatched` is unknown, or the lambdas do not fit the layers.
    """
    check(unmatched)
    lam_of = lambdas.of_layers(match.base)
    selected = None if layers is None else set(layers)
    names = [pair.base.name for pair in match.pairs]
    reasons = dict(alignment.found.refused)
    if selected is not None:
        reasons |= {name: "not selected" for name in names if name not in selected}
    skipped = {**match.unmatched_base, **{name: reasons[name] for name in names if name in reasons}}
    dropped = {layer: lines for layer, lines in alignment.found.dropped.items() if layer not in skipped}
    steps = []
    for term, axes in alignment.found.terms:
        if term.layer in skipped:
            continue
        shared = tie_conflict(match, term, skipped)
        if shared:
            dropped[term.layer] = (*dropped.get(term.layer, ()), f"{term.base.role} {term.base.tensor}: {shared}")
            continue
        is_given = term.base.tensor in given and unmatched != "zero"
        lam = 1.0 if is_given else lam_of[term.layer]
        steps.append(step_of(base, term, axes, alignment.orders, lam, is_given=is_given))
    return Plan(base, match, alignment, lambdas, unmatched, tuple(steps), skipped, dropped)


def step_of(
    base: LayerGraph, term: Term, axes: tuple[AxisPair, ...], orders: Orders, lam: float, *, is_given: bool
) -> Step:
    tensor = term.base.tensor
    return Step(tensor, matched_share(axes, orders), base.weights[tensor].nbytes, term, axes, lam, is_given)


def check(unmatched: str, width: str = "base", depth: str = "match") -> None:
    if unmatched not in UNMATCHED:
        raise UsageError(f"unmatched is {unmatched!r}: choose one of {', '.join(UNMATCHED)}")
    if depth not in DEPTHS:
        raise UsageError(f"depth is {depth!r}: choose one of {', '.join(DEPTHS)}")
    if width not in WIDTHS:
        raise UsageError(f"width is {width!r}: choose one of {', '.join(WIDTHS)}")


def tie_conflict(match: Match, term: Term, skipped: Mapping[str, str]) -> str:
    """Why a shared tensor keeps the base's values: "" if all its readers correspond to those of one donor tensor."""
    readers = [layer.name for layer in match.base if term.base.tensor in layer.tied]
    partner = {pair.base.name: pair.donor for pair in match.pairs if pair.base.name not in skipped}
    for name in readers:
        if name not in partner:
            return f"it is shared with layer {name}, which is not merged"
        theirs = partner[name]
        if term.donor.tensor not in (*theirs.tied, *(p.tensor for p in theirs.parameters)):
            return f"it is shared with layer {name}, whose partner {theirs.name} has a tensor of its own"
    return ""


def merge(plan: Plan) -> LayerGraph:
    """The base with the planned tensors merged; values are computed when they are read.

    At lam = 0 this is the base itself, unless it was widened.
    """
    growth = plan.growth
    moved = [merged_weight(plan, step) for step in plan.steps if step.lam or growth.added]
    moved += [
        weight_of(name, np.array(between(ends, plan.mean_lam), plan.base.weights[name].dtype))
        for name, ends in growth.factors.items()
    ]
    graph = plan.base.with_weights(moved) if moved else plan.base
    return with_settings(graph, plan) if growth.settings else graph


def with_settings(graph: LayerGraph, plan: Plan) -> LayerGraph:
    """The graph with what operators hold of their own where the plan puts it, each with the factor of its weights."""
    held: dict[str, dict[str, Ends]] = {}
    for (name, setting), ends in plan.growth.settings.items():
        held.setdefault(name, {})[setting] = ends
    nodes = []
    for node in graph.nodes:
        lam = next((plan.lam_of[tensor] for tensor in node.inputs if tensor in plan.lam_of), plan.mean_lam)
        found = {setting: between(ends, lam) for setting, ends in held.get(node.name, {}).items()}
        nodes.append(replace(node, attributes={**node.attributes, **found}) if found else node)
    return replace(graph, nodes=tuple(nodes))


def between(ends: Ends, lam: float) -> float:
    """What a number that is one for the base and another for the donor is in the result."""
    return (1 - lam) * ends[0] + lam * ends[1]


def merged_weight(plan: Plan, step: Step) -> Weight:
    return replace(plan.base.weights[step.tensor], read=partial(merged_tensor, plan, step))


def merged_tensor(plan: Plan, step: Step) -> Array:
    """One tensor of the result, in the base's layout and type."""
    weight = plan.base.weights[step.tensor]
    stored = weight.read()
    a = step.term.base.canonical(stored)
    merged = blended(a, step.term, step.axes, plan.alignment.orders, step.lam, plan.unmatched)
    result = step.term.base.stored(merged, weight.shape).astype(weight.dtype, copy=False)
    result = np.ascontiguousarray(result)
    result.flags.writeable = False
    return result


def blended(a: Array, term: Term, axes: Sequence[AxisPair], orders: Orders, lam: float, unmatched: str) -> Array:
    """The merged values of one canonical tensor; entries that do not change are copied, not computed."""
    compute = np.float64 if a.dtype == np.float64 else np.float32
    mine = a.astype(compute)
    masks = [matched_mask(axis, orders) for axis in axes]
    theirs = term.stored_form(in_base_order(term.merged_values(), axes, orders, mine.shape)).astype(compute)
    both = outer(masks, mine.shape)
    merged = np.where(both & (mine != theirs), interpolated(mine, theirs, lam), mine)
    merged = np.where(both & given_entries(term, axes, mine.shape, unmatched), theirs, merged)
    fading = fading_entries(term, axes, masks, mine.shape, unmatched)
    if fading.any():
        # Behind a BatchNorm that stays the base's, it is the effective weight that fades.
        gone = (
            np.full_like(mine, term.base.absent_value)
            if term.restore is None
            else term.stored_form(np.zeros_like(mine))
        )
        merged = np.where(fading, interpolated(mine, gone.astype(compute), lam), merged)
    # What did not change keeps its bits, in the stored type too.
    return np.where(merged == mine, a, merged.astype(a.dtype))


def interpolated(a: Array, b: Array, lam: float) -> Array:
    """(1 - lam) a + lam b; a copy at both ends, where computing would turn infinities into NaN."""
    if lam in (0.0, 1.0):
        return b if lam else a
    moved: Array = a + a.dtype.type(lam) * (b - a)
    return moved


def fading_entries(
    term: Term, axes: Sequence[AxisPair], masks: Sequence[Array], shape: tuple[int, ...], unmatched: str
) -> Array:
    """The entries without a partner that move towards the value of a unit that is not there."""
    if not shape:
        return np.zeros(shape, bool)
    columns = [np.ones(n, bool) for n in shape]
    rows = list(masks)
    if term.is_weight:  # canonical form: output units first
        rows, columns = [masks[0], *columns[1:]], [columns[0], *masks[1:]]
    lone_row = ~outer(rows, shape)
    lone_column = ~outer(columns, shape)
    if unmatched == "zero":
        return lone_row | lone_column
    in_statistic = [
        np.isin(np.arange(n), axis.statistic) & ~mask for n, axis, mask in zip(shape, axes, masks, strict=True)
    ]
    if term.is_weight:
        in_statistic = [in_statistic[0], *[np.zeros(n, bool) for n in shape[1:]]]
    must_fade = ~outer([~flags for flags in in_statistic], shape)
    return must_fade | (lone_column & ~lone_row) if unmatched == "fade" else must_fade


def given_entries(term: Term, axes: Sequence[AxisPair], shape: tuple[int, ...], unmatched: str) -> NDArray[np.bool_]:
    """The entries that are the donor's whatever lambda: the rows of added units, unless these move like all others."""
    if unmatched == "zero":
        return np.zeros(shape, bool)
    rows = [
        np.isin(np.arange(n), np.setdiff1d(axis.added, axis.statistic)) for n, axis in zip(shape, axes, strict=True)
    ]
    if term.is_weight:
        rows[1:] = [np.zeros(n, bool) for n in shape[1:]]
    return ~outer([~flags for flags in rows], shape)


def in_base_order(values: Array, axes: Sequence[AxisPair], orders: Orders, shape: tuple[int, ...]) -> Array:
    """Donor values on the base's units, zero where a unit has no partner."""
    for place, axis in enumerate(axes):
        if is_whole(axis):
            continue
        positions = matched_positions(axis, orders)
        assert positions is not None  # an alignment has every order
        spread = np.zeros((*values.shape[:place], shape[place], *values.shape[place + 1 :]), values.dtype)
        np.moveaxis(spread, place, 0)[positions[0]] = np.moveaxis(values, place, 0)[positions[1]]
        values = spread
    return values


def matched_mask(axis: AxisPair, orders: Orders) -> NDArray[np.bool_]:
    """Which positions of an axis have a partner."""
    mask = np.zeros(axis.size, bool)
    positions = matched_positions(axis, orders)
    assert positions is not None
    mask[positions[0]] = True
    return mask


def matched_share(axes: Sequence[AxisPair], orders: Orders) -> float:
    return float(np.prod([matched_mask(axis, orders).mean() for axis in axes]))


def outer(masks: Sequence[Array], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Entries whose index is marked on every axis."""
    whole = np.ones(shape, bool)
    for place, mask in enumerate(masks):
        whole &= mask.reshape([-1 if place == i else 1 for i in range(len(shape))])
    return whole
