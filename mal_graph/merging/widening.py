"""Growth: the base widened where the donor is wider, and statistics over units kept where it is narrower.

A step between the plan and the merge. The base's graph is laid out anew with one more unit for every unit of the donor
that found no place, and the plan is carried over to it, the donor's further units standing on the new ones. What is new
holds the value of a unit that is not there, so that the wider graph computes what the base does; what entries become is
said by the table in `merge`. Statistics over units are compensated (see `compensate`): in the base where it grows, and,
whether it grows or not, in a donor that is narrower than the result.

A group keeps its width, and the reason is listed, where more units would change the others (a statistic is taken over
them that nothing compensates), where several groups of the donor correspond to it, where its width cannot be expressed,
or where the outputs at lambda 0 show that something was expressed wrongly: they are compared in every run that grows. A
narrower donor is compensated where all that makes the units is merged; where two models differ in widths only, the
outputs at lambda 1 are compared with the donor's, and if they are others it is not compensated, with the reason.

Chosen: the wide graph is made by `resize`, which knows nothing of merging. Refused: merged tensors that are larger than
the base's - every step that reads positions would have to know two layouts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mal_graph.errors import RunError, ShapeError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.canonical import terms_of
from mal_graph.matching.correspondence import correspondence
from mal_graph.matching.unit_assignment import Order
from mal_graph.merging.blending import Growth, Plan, merge, step_of
from mal_graph.merging.compensation import centred, centred_donor, compensated
from mal_graph.network import fed_weights, find_layers, find_parameters, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import (
    SAME_FUNCTION,
    AxisGroup,
    AxisGroups,
    Factors,
    Traces,
    compensation_of,
    deviation,
    find_coupled,
    find_traces,
    judge_by_halves,
    plan_resizing,
    resize_graph,
    resize_groups,
    resize_traces,
)

Added = Mapping[str, int]  # units to add, by name of the base's group
Units = Mapping[str, Sequence[int]]  # the units it shall have, by name of the group

NOT_COMPENSATED = "the units that the donor lacks are zeros there"


def grown(
    planned: Plan,
    groups: AxisGroups,
    donor: LayerGraph,
    donor_groups: AxisGroups,
    runner: Runner,
    *,
    is_wider: bool = True,
    assume_ordered: bool = False,
) -> Plan:
    """A plan on a base that has a unit for every unit of the donor, wherever this changes nothing at lambda 0, and with
    the statistics of a donor that has fewer.

    Args:
        planned: a plan on the base as it is.
        groups, donor_groups: of the base and of the donor.
        runner: compares the outputs.
        is_wider: whether the base may grow.
        assume_ordered: as the plan was made.

    Returns:
        the plan with `growth` told; at lambda 0 it gives a graph that computes what the base does.
    """
    wanted, kept = asked(planned, groups, donor_groups) if is_wider else ({}, {})
    fewer, left = narrower(planned, groups, donor_groups)
    if not wanted and not fewer:
        return replace(planned, growth=Growth(kept={**kept, **left}))
    bench = Bench(
        planned, groups, donor, donor_groups, runner, assume_ordered, find_traces(planned.base, groups), fewer
    )
    possible, reasons = growable(groups, bench.found, wanted, kept)
    chosen, more = bench.settled(possible)
    found = bench.compensated(chosen)
    return replace(found, growth=replace(found.growth, kept={**kept, **left, **reasons, **more, **found.growth.kept}))


def asked(planned: Plan, groups: AxisGroups, donor_groups: AxisGroups) -> tuple[dict[str, int], dict[int, str]]:
    """How many units the groups of the base lack, by name, and why some are not given them, by index."""
    found = planned.alignment.found
    used: dict[int, set[str]] = {}
    for step in planned.steps:
        for place, axis in enumerate(step.axes):
            side = "read" if step.term.is_weight and place == 1 else "made"
            for block in axis.blocks:
                used.setdefault(block.pair, set()).add(side)
    partners: dict[int, set[int]] = {}
    for number, pair in enumerate(found.pairs):
        if number in used:
            partners.setdefault(pair.base, set()).add(pair.donor)
    wanted: dict[str, int] = {}
    kept: dict[int, str] = {}
    for number, (pair, (units, others)) in enumerate(zip(found.pairs, found.units, strict=True)):
        if others <= units or number not in used:
            continue
        group = groups.groups[pair.base]
        if len(partners[pair.base]) > 1:
            kept[pair.base] = f"{len(partners[pair.base])} groups of the donor correspond to it"
        elif group.statistic and not is_exact(group):
            kept[pair.base] = f"{group.statistic} is taken over its units, which added zeros would change"
        elif "made" not in used[number]:
            kept[pair.base] = "no merged layer makes its units"
        elif "read" not in used[number] and not group.statistic:
            kept[pair.base] = "no merged layer reads its units"
        else:
            wanted[group.name] = others - units
    for index, other in found.inside.items():
        group, others = groups.groups[index], donor_groups.groups[other].units
        if others <= group.units:
            continue
        if group.statistic and not is_exact(group):
            kept[index] = f"{group.statistic} is taken over its units, which added zeros would change"
        else:
            wanted[group.name] = others - group.units
    return wanted, kept


def is_exact(group: AxisGroup) -> bool:
    """Whether the statistic over its units can be compensated."""
    exact = compensation_of(group)
    return exact is not None and exact.powers is not None


def needs_factor(group: AxisGroup) -> bool:
    """Whether anything must be multiplied when zeros join its units: a sum needs nothing."""
    exact = compensation_of(group)
    return exact is not None and bool(exact.powers)


def narrower(planned: Plan, groups: AxisGroups, donor_groups: AxisGroups) -> tuple[dict[int, int], dict[int, str]]:
    """The donor's group, by index of a group of the base that has more units, under a statistic, both by index; and why
    it cannot be compensated in others."""
    partners: dict[int, set[int]] = {index: {other} for index, other in planned.alignment.found.inside.items()}
    for pair in planned.alignment.found.pairs:
        partners.setdefault(pair.base, set()).add(pair.donor)
    merged = {pair.base.name for pair in planned.merged_pairs}
    lone = [layer for layer in planned.match.base if layer.name not in merged]
    left = {p.tensor: layer.name for layer in lone for p in layer.parameters}
    fewer: dict[int, int] = {}
    kept: dict[int, str] = {}
    for index, others in partners.items():
        group = groups.groups[index]
        units = max(donor_groups.groups[other].units for other in others)
        if units >= group.units or not group.statistic:
            continue
        makers = [member.tensor for member in group.members if not member.consumes]
        if all(tensor in left for tensor in makers):
            continue
        unmerged = [left[tensor] for tensor in makers if tensor in left]
        if not is_exact(group):
            kept[index] = f"{group.statistic} is taken over its units, and {NOT_COMPENSATED}"
        elif unmerged or len(others) > 1:
            why = f"{unmerged[0]} is not merged" if unmerged else f"{len(others)} groups of the donor correspond to it"
            kept[index] = f"{group.statistic} is taken over its units, {why}, and {NOT_COMPENSATED}"
        elif needs_factor(group):
            fewer[index] = min(others)
    return fewer, kept


def differs_in_widths(planned: Plan, donor: LayerGraph) -> bool:
    """Whether base and donor are alike but for their widths, and merged whole, so that lambda 1 is to be the donor."""
    pairs = planned.alignment.found.pairs
    is_one_to_one = len({pair.base for pair in pairs}) == len({pair.donor for pair in pairs}) == len(pairs)
    _, missing = terms_of(planned.base, donor, planned.match)
    left = (planned.skipped, planned.dropped, planned.match.unmatched_donor, missing)
    same = [node.op for node in planned.base.nodes] == [node.op for node in donor.nodes]
    return is_one_to_one and same and not any(left)


def growable(
    groups: AxisGroups, found: Traces, wanted: Added, kept: Mapping[int, str]
) -> tuple[list[Added], dict[int, str]]:
    """The sets of groups that grow together, and why some cannot, by index of the group."""
    index = {group.name: i for i, group in enumerate(groups.groups)}
    chosen: list[Added] = []
    reasons: dict[int, str] = {}
    for names in find_coupled(groups, found):
        here = sorted(names & wanted.keys())
        alike = {wanted[name] for name in here}
        held = [name for name in sorted(names) if index[name] in kept]
        if not here:
            continue
        if len(alike) == 1 and not held:
            chosen.append(dict.fromkeys(sorted(names), wanted[here[0]]))
            continue
        why = f"it can only be resized with {held[0]}" if held else f"{', '.join(here)} can only be resized alike"
        reasons.update({index[name]: why for name in here})
    return chosen, reasons


@dataclass(frozen=True)
class Bench:
    """What growth is tried on."""

    planned: Plan
    groups: AxisGroups
    donor: LayerGraph
    donor_groups: AxisGroups
    runner: Runner
    assume_ordered: bool
    found: Traces
    fewer: Mapping[int, int]

    @cached_property
    def expected(self) -> dict[str, Array]:
        return outputs(self.planned.base, self.groups.probed.inputs, self.runner)

    def settled(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]]:
        """The sets that grow together without moving the outputs at lambda 0; and why others do not."""
        chosen, reasons = self.halved(sets)
        # Those that fail alone may run together: one size may be stored for all of them.
        left = [added for added in sets if added not in chosen and self.is_expressed(added)]
        if len(left) < 2 or self.fault([*chosen, *left]):
            return chosen, reasons
        names = {name for added in left for name in added}
        index = {i for i, group in enumerate(self.groups.groups) if group.name in names}
        return [*chosen, *left], {i: why for i, why in reasons.items() if i not in index}

    def is_expressed(self, added: Added) -> bool:
        """Whether a wider base can be laid out at all."""
        try:
            self.widened([added])
        except (ShapeError, RunError) as error:
            return isinstance(error, RunError)
        return True

    def halved(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]]:
        """As `settled`, by halving what fails."""
        if not sets:
            return [], {}
        return judge_by_halves(sets, self.judge, self.joined)

    def judge(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]] | None:
        """Sets that grow together, or why a single one does not; None if several do not."""
        why = self.fault(sets)
        if not why:
            return list(sets), {}
        index = {group.name: i for i, group in enumerate(self.groups.groups)}
        return ([], {index[name]: why for name in sets[0]}) if len(sets) == 1 else None

    def joined(
        self, one: tuple[list[Added], dict[int, str]], other: tuple[list[Added], dict[int, str]]
    ) -> tuple[list[Added], dict[int, str]]:
        """What grows of two halves: the first alone where they do not grow together."""
        (left, first), (right, second) = one, other
        if not self.fault([*left, *right]):
            return [*left, *right], {**first, **second}
        return left, {**first, **second, **self.refused(right)}

    def refused(self, sets: Sequence[Added]) -> dict[int, str]:
        names = {name for added in sets for name in added}
        why = "with more units in others too, the outputs at lambda 0 move"
        return {i: why for i, group in enumerate(self.groups.groups) if group.name in names}

    def fault(self, sets: Sequence[Added]) -> str:
        """Why groups cannot grow: "" if they can."""
        if not sets:
            return ""
        try:
            moved = self.moved(self.widened(sets))
        except (ShapeError, RunError) as error:
            return str(error)
        return "" if moved <= SAME_FUNCTION else f"with more units the outputs at lambda 0 move by {moved:.0e}"

    def compensated(self, sets: Sequence[Added]) -> Plan:
        """The plan on the base with more units in some groups, and the donor compensated where it is narrower."""
        found = self.widened(sets)
        if found.growth.kept or not self.fewer or not differs_in_widths(self.planned, self.donor):
            return found
        why = self.donor_fault(found)
        if not why:
            return found
        kept = dict.fromkeys(self.fewer, f"a narrower donor cannot be compensated: {why}")
        found = replace(self, fewer={}).widened(sets)
        return replace(found, growth=replace(found.growth, kept=kept))

    def donor_fault(self, plan: Plan) -> str:
        """Why a plan does not give the donor at lambda 1: "" if it does."""
        inputs = self.donor_groups.probed.inputs
        expected = outputs(self.donor, inputs, self.runner)
        fed = {a.name: inputs[b.name] for a, b in zip(plan.base.inputs, self.donor.inputs, strict=True)}
        end = merge(replace(plan.at(1.0), unmatched="zero"))
        try:
            found = outputs(end, fed, self.runner)
        except RunError as error:
            return str(error)
        both = zip(plan.base.outputs, self.donor.outputs, strict=True)
        moved = deviation({b.name: found[a.name] for a, b in both}, expected)
        return "" if moved <= SAME_FUNCTION else f"the outputs at lambda 1 would be {moved:.0e} from its own"

    def widened(self, sets: Sequence[Added]) -> Plan:
        """The plan on the base with more units in some groups. Raises ShapeError or RunError."""
        base, groups, found = self.planned.base, self.groups, self.found
        units: dict[str, Sequence[int]] = {}
        mine: dict[tuple[str, str], float] = {}
        pads = pad_values(self.planned)
        for stage, some in enumerate(self.stages(sets)):
            if stage:  # sizes that are computed are other ones now
                groups = replace(groups, probed=probe(base, self.runner, inputs=self.groups.probed.inputs))
            wanted = {g.name: range(g.units + some[g.name]) for g in groups.groups if g.name in some}
            change = plan_resizing(base, groups, found, wanted)
            growing = [group for group in groups.groups if group.name in some]
            base = resize_graph(centred(base, growing, change.factors), change, pads)
            groups, found = resize_groups(groups, change, wanted, base), resize_traces(found, change, base)
            units.update(wanted)
            mine.update({key: factor * mine.get(key, 1.0) for key, factor in change.factors.items()})
        plan = carried_over(self.planned, base, groups, self.donor, self.donor_groups, self.assume_ordered)
        # Last, for a factor is one more scalar in its layer: the donor's scalars correspond to the others.
        plan = self.with_statistics(plan, groups, units, mine)
        match = plan.match.with_base(find_layers(plan.base))
        more = {i: group.added for i, group in enumerate(groups.groups) if group.added}
        return replace(plan, match=match, growth=replace(plan.growth, added=more))

    def stages(self, sets: Sequence[Added]) -> Iterator[Added]:
        """What grows inside units, and then everything else, so that added units have it too."""
        inside = {self.groups.groups[index].name for index in self.planned.alignment.found.inside}
        for is_inner in (True, False):
            some = [added for added in sets if is_inner == (not inside.isdisjoint(added))]
            if some:
                yield {name: count for added in some for name, count in added.items()}

    def with_statistics(self, plan: Plan, groups: AxisGroups, units: Units, mine: Factors) -> Plan:
        """A plan with statistics over the units that each model has. Raises ShapeError where the base cannot be."""
        if self.fewer:
            widths = [(groups.groups[index], self.donor_groups.groups[other]) for index, other in self.fewer.items()]
            try:
                wide = self.donor_widened({other.name: group.units for group, other in widths})
                theirs = self.donor_factors({group.name: other.units for group, other in widths}, units, mine)
                counted = [group for group in self.donor_groups.groups if group.is_usable and group.statistic]
                return compensated(centred_donor(plan, self.donor, counted, wide), self.donor, mine, theirs)
            except ShapeError as error:
                why = f"a narrower donor cannot be compensated: {error}"
                plan = replace(plan, growth=Growth(kept=dict.fromkeys(self.fewer, why)))
        return compensated(plan, self.donor, mine, {})

    def donor_widened(self, wanted: Mapping[str, int]) -> Factors:
        """What to multiply in the donor itself, were some of its groups as wide as that. Raises ShapeError."""
        found = find_traces(self.donor, self.donor_groups)
        return plan_resizing(self.donor, self.donor_groups, found, alike(self.donor_groups, found, wanted)).factors

    def donor_factors(self, wanted: Mapping[str, int], units: Units, mine: Factors) -> Factors:
        """What to multiply in the base for a donor that has so many units in some groups, in the others those of the
        result. Raises ShapeError."""
        units = {**units, **alike(self.groups, self.found, wanted)}
        narrow = plan_resizing(self.planned.base, self.groups, self.found, units).factors
        ratios = {key: mine.get(key, 1.0) / narrow.get(key, 1.0) for key in (*mine, *narrow)}
        return {key: ratio for key, ratio in ratios.items() if ratio != 1.0}

    def moved(self, plan: Plan) -> float:
        """How far the outputs of a plan's graph are from the base's at lambda 0."""
        found = outputs(merge(plan.at(0.0)), self.groups.probed.inputs, self.runner)
        return deviation(found, self.expected)


def alike(groups: AxisGroups, found: Traces, wanted: Mapping[str, int]) -> dict[str, range]:
    """Units by name of the group, for those too that can only be resized with what is wanted."""
    sets = [(names, {wanted[name] for name in names & wanted.keys()}) for names in find_coupled(groups, found)]
    return {name: range(min(counts)) for names, counts in sets for name in names if len(counts) == 1}


def pad_values(planned: Plan) -> dict[str, float]:
    """What new positions of the base's tensors hold: the value of a unit that is not there; where the donor has no
    such tensor, the one that lets its unit pass."""
    merged = {step.tensor for step in planned.steps}
    return {
        p.tensor: p.absent_value if p.tensor in merged else p.neutral for p in reversed(find_parameters(planned.base))
    }


def carried_over(
    planned: Plan,
    base: LayerGraph,
    groups: AxisGroups,
    donor: LayerGraph,
    donor_groups: AxisGroups,
    assume_ordered: bool,
) -> Plan:
    """The plan on a wider base: the same tensors, with the further units of the donor on the added ones."""
    match = planned.match.with_base(find_layers(base))
    terms, _ = terms_of(base, donor, match)
    found = correspondence(groups, donor_groups, terms, assume_ordered=assume_ordered)
    if found.pairs != planned.alignment.found.pairs:
        raise ShapeError("with more units other groups correspond to each other")
    orders = tuple(
        extended(order, donor_groups.groups[pair.donor].units, groups.groups[pair.base].added)
        for order, pair in zip(planned.alignment.orders, found.pairs, strict=True)
    )
    alignment = replace(planned.alignment, found=found, orders=orders)
    merged = {(step.pair.base.name, step.tensor): step for step in planned.steps}
    steps = [
        step_of(base, term, axes, orders, old.lam, is_given=old.is_given)
        for term, axes in found.terms
        if (old := merged.get((term.layer, term.base.tensor))) is not None
    ]
    return replace(planned, base=base, match=match, alignment=alignment, steps=tuple(steps))


def extended(order: Order, others: int, added: int) -> Order:
    """An order with the donor's units that found no place behind it."""
    left = np.setdiff1d(np.arange(others), order)
    return np.concatenate([order, left[:added], np.full(max(0, added - len(left)), -1)])


def outputs(graph: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    fed = fed_weights(graph)
    return runner.open(graph, variable=list(fed)).run(inputs, fed)


def apart(a: LayerGraph, b: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> float:
    """How far the outputs of one graph are from those of another, relative to the largest of each."""
    return deviation(outputs(a, inputs, runner), outputs(b, inputs, runner))
