"""Widening: the base gets more units where the donor has more, and statistics over units stay where it has fewer.

A step between the plan and the merge. The base's graph is laid out anew with one more unit for every unit of the donor
that found no place, and the plan is carried over to it, the donor's further units standing on the new ones. What is new
holds the value of a unit that is not there, so that the wider graph computes what the base does; what entries become is
said by the table in `unmatched`. Statistics over units are compensated (see `compensation`): in the base where it is
widened, and, whether it is or not, in a donor that is narrower than the result.

A group keeps its width, and the reason is listed, where more units would change the others (a statistic is taken over
them that nothing compensates), where several groups of the donor correspond to it, where its width cannot be expressed,
or where the outputs at lambda 0 show that something was expressed wrongly: they are compared in every run that widens.
A narrower donor is compensated where all that makes the units is merged; where two models differ in widths only, the
outputs at lambda 1 are compared with the donor's, and if they are others it is not compensated, with the reason.

Chosen: the wide graph is made by `symmetry.resizing`, which knows nothing of merging. Refused: merged tensors that are
larger than the base's - every step that reads positions would have to know two layouts.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property

import numpy as np

from mal_graph.errors import RunError, ShapeError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Correspondence, correspond, extend_orders
from mal_graph.merging.blending import merge
from mal_graph.merging.compensation import centre_base, centre_donor, compensate
from mal_graph.merging.outputs import run_outputs
from mal_graph.merging.planning import Growth, Plan, plan_step
from mal_graph.network import MASK_ROLE, find_layers, find_parameters, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import (
    SAME_FUNCTION,
    AxisGroup,
    AxisGroups,
    Factors,
    Network,
    compensation_of,
    deviation,
    judge_by_halves,
    plan_resizing,
    resize_graph,
    resize_groups,
    resize_traces,
)

Added = Mapping[str, int]  # units to add, by name of the base's group
Units = Mapping[str, Sequence[int]]  # the units it shall have, by name of the group

NOT_COMPENSATED = "the units that the donor lacks are zeros there"


def widen(plan: Plan, runner: Runner, *, is_wider: bool = True) -> Plan:
    """Carry a plan over to a base that has a unit for every unit of the donor, wherever this changes nothing at lambda
    0, with the statistics of a donor that has fewer.

    Args:
        plan: a plan on the base as it is.
        runner: compares the outputs.
        is_wider: whether the base may be widened; if not, narrower donors are compensated alone.

    Returns:
        the plan with `growth` told; at lambda 0 it gives a graph that computes what the base does.
    """
    wanted, kept = find_wanted(plan) if is_wider else ({}, {})
    fewer, left = find_narrower(plan)
    if not wanted and not fewer:
        return replace(plan, growth=Growth(kept={**kept, **left}))
    bench = Bench(plan, fewer, runner)
    possible, reasons = find_widenable(bench.base, wanted, kept)
    chosen, more = bench.find_largest_safe_set(possible)
    wide = bench.widen(chosen)
    return replace(wide, growth=replace(wide.growth, kept={**kept, **left, **reasons, **more, **wide.growth.kept}))


def find_wanted(plan: Plan) -> tuple[dict[str, int], dict[int, str]]:
    """How many units the groups of the base lack, by name, and why some are not given them, by index."""
    correspondence = plan.alignment.correspondence
    groups, others = correspondence.base.groups.groups, correspondence.donor.groups.groups
    uses = find_uses(plan)
    partners: dict[int, set[int]] = {}
    outer = [number for number, pair in enumerate(correspondence.pairs) if pair.is_outermost and number in uses]
    for number, pair in enumerate(correspondence.pairs):
        if number in outer:
            partners.setdefault(pair.base, set()).add(pair.donor)
    wanted: dict[str, int] = {}
    kept: dict[int, str] = {}
    for number, (pair, order) in enumerate(zip(correspondence.pairs, plan.alignment.orders, strict=True)):
        lacking = others[pair.donor].units - int(np.count_nonzero(order >= 0))
        if not lacking or number not in outer:
            continue
        group = groups[pair.base]
        if why := why_kept(group, uses[number], len(partners[pair.base])):
            kept[pair.base] = why
        else:
            wanted[group.name] = lacking
    for index, other in correspondence.inside.items():
        group, more = groups[index], others[other].units
        if more <= group.units:
            continue
        if group.statistic and not is_exact(group):
            kept[index] = f"{group.statistic} is taken over its units, which added zeros would change"
        else:
            wanted[group.name] = more - group.units
    return wanted, kept


class Use(Enum):
    """What a merged layer does with the units of a group."""

    PRODUCES = auto()
    CONSUMES = auto()


def find_uses(plan: Plan) -> dict[int, set[Use]]:
    """What merged layers do with the units of each outermost pair of groups, by its index."""
    uses: dict[int, set[Use]] = {}
    nests = plan.alignment.correspondence.nests
    for step in plan.steps:
        for place, axis in enumerate(step.axes):
            use = Use.CONSUMES if step.pair.is_weight and place == 1 else Use.PRODUCES
            for block in axis.blocks:
                for pair in nests.outermost_of(block.pair) if block.pair >= 0 else ():
                    uses.setdefault(pair, set()).add(use)
    return uses


def why_kept(group: AxisGroup, uses: Collection[Use], partners: int) -> str:
    """Why a group is not given the further units of a partner: "" if it is."""
    if partners > 1:
        return f"{partners} groups of the donor correspond to it"
    if any(member.role.slot == MASK_ROLE for member in group.members):
        return "a stored mask has no entries for further units"
    if group.statistic and not is_exact(group):
        return f"{group.statistic} is taken over its units, which added zeros would change"
    if Use.PRODUCES not in uses:
        return "no merged layer makes its units"
    if Use.CONSUMES not in uses and not group.statistic:
        return "no merged layer reads its units"
    return ""


def is_exact(group: AxisGroup) -> bool:
    """Whether the statistic over its units can be compensated."""
    exact = compensation_of(group)
    return exact is not None and exact.powers is not None


def needs_factor(group: AxisGroup) -> bool:
    """Whether anything must be multiplied when zeros join its units: a sum needs nothing."""
    exact = compensation_of(group)
    return exact is not None and bool(exact.powers)


def find_narrower(plan: Plan) -> tuple[dict[int, int], dict[int, str]]:
    """The donor's group, by index of a group of the base that has more units, under a statistic, both by index; and why
    it cannot be compensated in others."""
    correspondence = plan.alignment.correspondence
    groups, donor_groups = correspondence.base.groups.groups, correspondence.donor.groups.groups
    merged = {layers.base.name for layers in plan.merged_pairs}
    left = {p.tensor: layer.name for layer in plan.match.base if layer.name not in merged for p in layer.parameters}
    fewer: dict[int, int] = {}
    kept: dict[int, str] = {}
    for index, others in find_partners(correspondence).items():
        group = groups[index]
        if max(donor_groups[other].units for other in others) >= group.units or not group.statistic:
            continue
        producers = [member.tensor for member in group.members if not member.consumes]
        unmerged = [left[tensor] for tensor in producers if tensor in left]
        if len(unmerged) == len(producers):
            continue
        if why := why_not_compensated(group, unmerged, len(others)):
            kept[index] = why
        elif needs_factor(group):
            fewer[index] = min(others)
    return fewer, kept


def find_partners(correspondence: Correspondence) -> dict[int, set[int]]:
    """The groups of the donor that correspond to each group of the base, by index."""
    partners: dict[int, set[int]] = {index: {other} for index, other in correspondence.inside.items()}
    for pair in correspondence.pairs:
        partners.setdefault(pair.base, set()).add(pair.donor)
    return partners


def why_not_compensated(group: AxisGroup, unmerged: Sequence[str], partners: int) -> str:
    """Why the statistic over the units of a group cannot be compensated for a narrower donor: "" if it can."""
    about = f"{group.statistic} is taken over its units"
    if not is_exact(group):
        return f"{about}, and {NOT_COMPENSATED}"
    if unmerged:
        return f"{about}, {unmerged[0]} is not merged, and {NOT_COMPENSATED}"
    if partners > 1:
        return f"{about}, {partners} groups of the donor correspond to it, and {NOT_COMPENSATED}"
    return ""


def differs_in_widths(plan: Plan) -> bool:
    """Whether base and donor are alike but for their widths, and merged whole, so that lambda 1 is to be the donor."""
    pairs = plan.alignment.correspondence.pairs
    is_one_to_one = len({pair.base for pair in pairs}) == len({pair.donor for pair in pairs}) == len(pairs)
    left = (plan.skipped, plan.dropped, plan.match.unmatched_donor, plan.alignment.correspondence.unpaired)
    same = [node.op for node in plan.base.nodes] == [node.op for node in plan.donor.graph.nodes]
    return is_one_to_one and same and not any(left)


def find_widenable(network: Network, wanted: Added, kept: Mapping[int, str]) -> tuple[list[Added], dict[int, str]]:
    """The sets of groups that are widened together, and why some cannot, by index of the group."""
    index = {group.name: i for i, group in enumerate(network.groups.groups)}
    chosen: list[Added] = []
    reasons: dict[int, str] = {}
    for names in network.coupled:
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
    """What widening is tried on: the plan as it is, and the donor's groups that have fewer units under a statistic, by
    index of the base's."""

    plan: Plan
    fewer: Mapping[int, int]
    runner: Runner

    @property
    def base(self) -> Network:
        return self.plan.alignment.correspondence.base

    @cached_property
    def expected(self) -> dict[str, Array]:
        return run_outputs(self.plan.base, self.base.probe.inputs, self.runner)

    def find_largest_safe_set(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]]:
        """The sets that are widened together without moving the outputs at lambda 0; and why others do not."""
        chosen, reasons = self.find_by_halving(sets)
        # Those that fail alone may run together: one size may be stored for all of them.
        left = [added for added in sets if added not in chosen and self.is_expressed(added)]
        if len(left) < 2 or self.fault([*chosen, *left]):
            return chosen, reasons
        names = {name for added in left for name in added}
        index = {i for i, group in enumerate(self.base.groups.groups) if group.name in names}
        return [*chosen, *left], {i: why for i, why in reasons.items() if i not in index}

    def is_expressed(self, added: Added) -> bool:
        """Whether a wider base can be laid out at all."""
        try:
            self.lay_out([added])
        except (ShapeError, RunError) as error:
            return isinstance(error, RunError)
        return True

    def find_by_halving(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]]:
        """As `find_largest_safe_set`, by halving what fails."""
        if not sets:
            return [], {}
        return judge_by_halves(sets, self.judge, self.joined)

    def judge(self, sets: Sequence[Added]) -> tuple[list[Added], dict[int, str]] | None:
        """Sets that are widened together, or why a single one is not; None if several are not."""
        why = self.fault(sets)
        if not why:
            return list(sets), {}
        index = {group.name: i for i, group in enumerate(self.base.groups.groups)}
        return ([], {index[name]: why for name in sets[0]}) if len(sets) == 1 else None

    def joined(
        self, one: tuple[list[Added], dict[int, str]], other: tuple[list[Added], dict[int, str]]
    ) -> tuple[list[Added], dict[int, str]]:
        """What is widened of two halves: the first alone where they do not go together."""
        (left, first), (right, second) = one, other
        if not self.fault([*left, *right]):
            return [*left, *right], {**first, **second}
        return left, {**first, **second, **self.refused(right)}

    def refused(self, sets: Sequence[Added]) -> dict[int, str]:
        names = {name for added in sets for name in added}
        why = "with more units in others too, the outputs at lambda 0 move"
        return {i: why for i, group in enumerate(self.base.groups.groups) if group.name in names}

    def fault(self, sets: Sequence[Added]) -> str:
        """Why groups cannot be widened: "" if they can."""
        if not sets:
            return ""
        try:
            moved = self.moved(self.lay_out(sets))
        except (ShapeError, RunError) as error:
            return str(error)
        return "" if moved <= SAME_FUNCTION else f"with more units the outputs at lambda 0 move by {moved:.0e}"

    def widen(self, sets: Sequence[Added]) -> Plan:
        """The plan on the base with more units in some groups, and the donor compensated where it is narrower."""
        wide = self.lay_out(sets)
        if wide.growth.kept or not self.fewer or not differs_in_widths(self.plan):
            return wide
        why = self.donor_fault(wide)
        if not why:
            return wide
        kept = dict.fromkeys(self.fewer, f"a narrower donor cannot be compensated: {why}")
        wide = replace(self, fewer={}).lay_out(sets)
        return replace(wide, growth=replace(wide.growth, kept=kept))

    def donor_fault(self, plan: Plan) -> str:
        """Why a plan does not give the donor at lambda 1: "" if it does."""
        donor, inputs = plan.donor.graph, plan.donor.probe.inputs
        expected = run_outputs(donor, inputs, self.runner)
        paired = plan.alignment.correspondence.signatures
        fed = {own: inputs[other] for own, other in paired.inputs.items()}
        end = merge(replace(plan.at(1.0), unmatched="zero"))
        try:
            outputs = run_outputs(end, fed, self.runner)
        except RunError as error:
            return str(error)
        given = {other: outputs[own] for own, other in paired.outputs.items()}
        moved = deviation(given, {other: expected[other] for other in given})
        return "" if moved <= SAME_FUNCTION else f"the outputs at lambda 1 would be {moved:.0e} from its own"

    def lay_out(self, sets: Sequence[Added]) -> Plan:
        """The plan on the base with more units in some groups. Raises ShapeError or RunError."""
        base, groups, traces = self.plan.base, self.base.groups, self.base.traces
        units: dict[str, Sequence[int]] = {}
        mine: dict[tuple[str, str], float] = {}
        absent = absent_values(self.plan)
        for stage, some in enumerate(self.stages(sets)):
            if stage:  # sizes that are computed are other ones now
                groups = self.measured(base, groups)
            wanted = {g.name: range(g.units + some[g.name]) for g in groups.groups if g.name in some}
            change = plan_resizing(base, groups, traces, wanted)
            widened = [group for group in groups.groups if group.name in some]
            base = resize_graph(centre_base(base, widened, change.factors), change, absent)
            groups, traces = resize_groups(groups, change, wanted, base), resize_traces(traces, change, base)
            units.update(wanted)
            mine.update({key: factor * mine.get(key, 1.0) for key, factor in change.factors.items()})
        plan = carry_over(self.plan, Network(base, self.measured(base, groups)))
        # Last, for a factor is one more scalar in its layer: the donor's scalars correspond to the others.
        plan = self.with_statistics(plan, groups, units, mine)
        match = plan.match.with_base(find_layers(plan.base))
        more = {i: group.added for i, group in enumerate(groups.groups) if group.added}
        return replace(plan, match=match, growth=replace(plan.growth, added=more))

    def measured(self, base: LayerGraph, groups: AxisGroups) -> AxisGroups:
        """The groups of a widened base, with what a run of it shows. Raises RunError."""
        return replace(groups, probed=probe(base, self.runner, inputs=self.base.probe.inputs))

    def stages(self, sets: Sequence[Added]) -> Iterator[Added]:
        """What is widened inside units, and then everything else, so that added units have it too."""
        inside = {self.base.groups.groups[index].name for index in self.plan.alignment.correspondence.inside}
        for is_inner in (True, False):
            some = [added for added in sets if is_inner == (not inside.isdisjoint(added))]
            if some:
                yield {name: count for added in some for name, count in added.items()}

    def with_statistics(self, plan: Plan, groups: AxisGroups, units: Units, mine: Factors) -> Plan:
        """A plan with statistics over the units that each model has. Raises ShapeError where the base cannot be."""
        if self.fewer:
            others = self.plan.donor.groups.groups
            widths = [(groups.groups[index], others[other]) for index, other in self.fewer.items()]
            try:
                wide = self.factors_of_wide_donor({other.name: group.units for group, other in widths})
                theirs = self.factors_for_donor({group.name: other.units for group, other in widths}, units, mine)
                return compensate(centre_donor(plan, wide), mine, theirs)
            except ShapeError as error:
                why = f"a narrower donor cannot be compensated: {error}"
                plan = replace(plan, growth=Growth(kept=dict.fromkeys(self.fewer, why)))
        return compensate(plan, mine, {})

    def factors_of_wide_donor(self, wanted: Mapping[str, int]) -> Factors:
        """What to multiply in the donor itself, were some of its groups as wide as that. Raises ShapeError."""
        donor = self.plan.donor
        return plan_resizing(donor.graph, donor.groups, donor.traces, units_alike(donor, wanted)).factors

    def factors_for_donor(self, wanted: Mapping[str, int], units: Units, mine: Factors) -> Factors:
        """What to multiply in the base for a donor that has so many units in some groups, in the others those of the
        result. Raises ShapeError."""
        units = {**units, **units_alike(self.base, wanted)}
        narrow = plan_resizing(self.plan.base, self.base.groups, self.base.traces, units).factors
        ratios = {key: mine.get(key, 1.0) / narrow.get(key, 1.0) for key in (*mine, *narrow)}
        return {key: ratio for key, ratio in ratios.items() if ratio != 1.0}

    def moved(self, plan: Plan) -> float:
        """How far the outputs of a plan's graph are from the base's at lambda 0."""
        outputs = run_outputs(merge(plan.at(0.0)), self.base.probe.inputs, self.runner)
        return deviation(outputs, self.expected)


def units_alike(network: Network, wanted: Mapping[str, int]) -> dict[str, range]:
    """Units by name of the group, for those too that can only be resized with what is wanted."""
    sets = [(names, {wanted[name] for name in names & wanted.keys()}) for names in network.coupled]
    return {name: range(min(counts)) for names, counts in sets for name in names if len(counts) == 1}


def absent_values(plan: Plan) -> dict[str, float]:
    """What new positions of the base's tensors hold: the value of a unit that is not there; where the donor has no
    such tensor, the one that lets its unit pass."""
    merged = {step.tensor for step in plan.steps}
    return {p.tensor: p.absent_value if p.tensor in merged else p.neutral for p in reversed(find_parameters(plan.base))}


def carry_over(plan: Plan, base: Network) -> Plan:
    """The plan on a wider base: the same tensors, with the further units of the donor on the added ones."""
    match, before = plan.match.with_base(find_layers(base.graph)), plan.alignment.correspondence
    paired = before.signatures
    correspondence = correspond(base, before.donor, match, assume_ordered=before.is_ordered, pair=paired.pairs)
    correspondence = replace(correspondence, signatures=paired)
    if correspondence.pairs != before.pairs:
        raise ShapeError("with more units other groups correspond to each other")
    orders = extend_orders(before.nests, plan.alignment.orders, correspondence.nests)
    alignment = replace(plan.alignment, correspondence=correspondence, orders=orders)
    merged = {(step.pair.layer, step.tensor): step for step in plan.steps}
    steps = {
        (pair.layer, pair.base.tensor): plan_step(base.graph, pair, axes, orders, old.lam, is_given=old.is_given)
        for pair, axes in correspondence.tensors
        if (old := merged.get((pair.layer, pair.base.tensor))) is not None
    }
    # Heads as long as the donor's do not show any more that their scale goes along.
    scales = [step for key, step in merged.items() if key not in steps and not step.axes]
    return replace(plan, base=base.graph, match=match, alignment=alignment, steps=(*steps.values(), *scales))
