"""Which units of several models are zipped, by what they give on the inputs of all (see `matching.zipping`).

Chosen: groups of units that all models have, that hold no other units, of which every tensor is merged, and of which
one unit may stand for two that give the same, which is verified by running (see `symmetry.twins`). Refused: the others,
such as those that a norm is taken over; their units stand as they were aligned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.evaluation import Comoments, Place, Stream, stream_together
from mal_graph.graph import LayerGraph
from mal_graph.matching import AxisPair, Block, Correspondence, Index, TensorPair, find_activation, zip_units
from mal_graph.merging.input_moments import Inputs, joined_inputs
from mal_graph.merging.stacking import Stacking
from mal_graph.merging.zipped_frames import Zips
from mal_graph.methods import resolve
from mal_graph.protocols import Runner
from mal_graph.symmetry import Trial, may_be_one, open_trial

APART = -1e9  # how alike units of other kinds count: they meet where nothing else is left
FIRST = 1e-6  # more that units count as alike that are aligned to each other: of several alike they go together


@dataclass(frozen=True, repr=False)
class Seen(Brief):
    """Where what the units of a group give is seen, in one model.

    Attributes:
        place: a tensor, and its axis.
        positions: those of each unit there, shape (units, k).
    """

    place: Place
    positions: Index

    def rows(self, values: Mapping[str, Array]) -> Array | None:
        """What each unit gives at each of its positions, shape (k, units, samples, places); None where it is not all
        there."""
        array = values[self.place.tensor]
        rows = self.place.rows(array)
        if len(rows) <= self.positions.max(initial=-1) or rows.shape[1] % len(array):
            return None
        return np.stack([rows[own] for own in self.positions.T]).reshape(*self.positions.T.shape, len(array), -1)


@dataclass(frozen=True, repr=False)
class Zipping(Brief):
    """A stacking whose units are to be zipped.

    Attributes:
        stacking: what becomes of the tensors.
        inputs: of each model, by its number, arrays by the base's names.
        runner: runs the models.
    """

    stacking: Stacking
    inputs: Mapping[int, Inputs]
    runner: Runner

    def zips(self, repeat: float, within: float) -> Zips:
        """Which units stand where; arguments as for `zip_units`. Raises DataError or RunError."""
        similar, places = self.similar(), dict[int, tuple[Index, ...]]()
        for group, alike in similar.items():
            sizes = [self.correspondences[0].units[self.pair_of(0, group)][0]]
            sizes += [own.units[self.pair_of(place, group)][1] for place, own in enumerate(self.correspondences)]
            known = self.with_aligned(self.with_kinds(alike, sizes, group), sizes, group)
            places[group] = tuple(zip_units(known, sizes, repeat, within))
        name, count = self.stacking.method.name, len(self.groups_of_units())
        return Zips(
            places, f"{name} zipped {len(places)} of {count} groups of units; others stand as they were aligned"
        )

    @property
    def correspondences(self) -> list[Correspondence]:
        """How each donor corresponds to the base."""
        return [plan.alignment.correspondence for plan in self.stacking.plans]

    def pair_of(self, donor: int, group: int) -> int:
        """The pair of a base's group with one of a donor, which is the only one."""
        return next(index for index, pair in enumerate(self.correspondences[donor].pairs) if pair.base == group)

    # --- which groups ---------------------------------------------------------------------------------------------

    def groups_of_units(self) -> list[int]:
        """The groups of the base that are paired in all donors, and lie in no other."""
        known = [{pair.base for pair in own.pairs if pair.is_outermost} for own in self.correspondences]
        return sorted(set.intersection(*known))

    @cached_property
    def groups(self) -> list[int]:
        """Those that may be zipped."""
        return [group for group in self.groups_of_units() if self.may_be_zipped(group)]

    def may_be_zipped(self, group: int) -> bool:
        """Whether several units of a group may stand on one, in every tensor that holds them."""
        own = self.correspondences[0].base.groups.groups[group]
        members = {(one.tensor, one.axis) for one in own.members}
        is_known = all(
            self.is_paired_alone(own, group) and members <= self.merged_axes(place, group)
            for place, own in enumerate(self.correspondences)
        )
        return is_known and may_be_one(self.trial, own)

    @cached_property
    def trial(self) -> Trial:
        """A calibrated copy of the base."""
        base = self.correspondences[0].base
        return open_trial(base.graph, base.groups, self.runner, seed=self.stacking.seed)

    def is_paired_alone(self, own: Correspondence, group: int) -> bool:
        """Whether a group and one of a donor are paired with nothing else, and hold no units."""
        pairs = [index for index, pair in enumerate(own.pairs) if pair.base == group]
        theirs = own.pairs[pairs[0]].donor
        return (
            len(pairs) == 1
            and sum(pair.donor == theirs for pair in own.pairs) == 1
            and not any(pair.within == pairs[0] or pairs[0] in (pair.grid or ()) for pair in own.pairs)
        )

    def merged_axes(self, donor: int, group: int) -> set[tuple[str, int | None]]:
        """The stored axes of merged tensors on which a group lies, of those that are as they are stored."""
        pair, steps = self.pair_of(donor, group), self.stacking.plans[donor].steps
        return {
            (step.tensor, step.pair.base.axes[place])
            for step in steps
            if step.pair.restore is None and not step.pair.lead
            for place, axis in enumerate(step.axes)
            if any(block.pair == pair for block in axis.blocks)
        }

    # --- how alike they are ---------------------------------------------------------------------------------------

    def similar(self) -> dict[int, Array]:
        """By group how alike all units of all models are: their correlations, as the mean over what makes them."""
        seen = {group: self.seen(group) for group in self.groups}
        seen = {group: several for group, several in seen.items() if several}
        tensors = [
            list(dict.fromkeys(one[number].place.tensor for several in seen.values() for one in several))
            for number in range(1 + len(self.correspondences))
        ]
        if not seen:
            return {}
        arrays = joined_inputs(self.stacking.base, [self.inputs[number] for number in self.stacking.numbers])
        streams = [
            (Stream(graph, given, self.runner, names), names)
            for (graph, given), names in zip(self.models(arrays), tensors, strict=True)
        ]
        summed = {(group, place): list[Comoments]() for group, own in seen.items() for place in range(len(own))}
        apart: set[int] = set()
        for values in stream_together(streams):
            for (group, place), comoments in summed.items():
                rows = together([one.rows(read) for one, read in zip(seen[group][place], values, strict=True)])
                if rows is None:
                    apart.add(group)
                    continue
                comoments.extend(Comoments() for _ in range(len(rows) - len(comoments)))
                for own, added in zip(comoments, rows, strict=True):
                    own.add(added, added)
        means: dict[int, list[Array]] = {group: [] for group in seen if group not in apart}
        for (group, _), comoments in summed.items():
            if group in means:
                means[group] += [one.correlation for one in comoments]
        return {group: np.mean(several, axis=0) for group, several in means.items()}

    def models(self, arrays: Inputs) -> list[tuple[LayerGraph, Inputs]]:
        """Every model, with arrays by its own names."""
        base = (self.stacking.base, arrays)
        return [base, *((own.donor.graph, own.signatures.for_donor(arrays)) for own in self.correspondences)]

    def seen(self, group: int) -> list[list[Seen]]:
        """For each weight that makes the units of a group where each model shows what they give, base first."""
        several: list[list[Seen]] = []
        for steps in self.stacking.tensors.values():
            if len(steps) < len(self.correspondences) or not next(iter(steps.values())).pair.is_weight:
                continue
            blocks = [self.block_of(number - 1, step.axes[0], group) for number, step in steps.items()]
            known = [block for block in blocks if block is not None]
            if len(known) < len(blocks):
                continue
            pairs = [step.pair for step in steps.values()]
            own = [Seen(place_of(self.stacking.base, pairs[0], is_base=True), known[0].base)]
            for correspondence, pair, block in zip(self.correspondences, pairs, known, strict=True):
                own.append(Seen(place_of(correspondence.donor.graph, pair, is_base=False), block.donor))
            if not any(one.place.tensor in graph.inner for one, (graph, _) in zip(own, self.models({}), strict=True)):
                several.append(own)
        return several

    def block_of(self, donor: int, axis: AxisPair, group: int) -> Block | None:
        """Where a group lies on an axis, if it lies there alone."""
        pair = self.pair_of(donor, group)
        return axis.blocks[0] if [block.pair for block in axis.blocks] == [pair] else None

    def with_kinds(self, alike: Array, sizes: Sequence[int], group: int) -> Array:
        """The same with units of other kinds apart."""
        alike, starts = alike.copy(), np.cumsum([0, *sizes])
        for donor, own in enumerate(self.correspondences, 1):
            kinds = own.kinds.get(self.pair_of(donor - 1, group))
            if kinds is not None:
                places = np.r_[0 : starts[1], starts[donor] : starts[donor + 1]]
                both = np.concatenate(kinds)
                block = np.ix_(places, places)
                alike[block] = np.where(both[:, None] == both, alike[block], APART)
        return alike

    def with_aligned(self, alike: Array, sizes: Sequence[int], group: int) -> Array:
        """The same with units that are aligned to each other a little more alike than others; as alike as can be where
        neither varies."""
        alike, starts = alike.copy(), np.cumsum(sizes)
        still = np.diagonal(alike) == 0
        for donor, plan in enumerate(self.stacking.plans):
            order = plan.alignment.orders[self.pair_of(donor, group)]
            mine = np.flatnonzero(order >= 0)
            theirs = starts[donor] + order[mine]
            worth = np.where(still[mine] & still[theirs], 1.0, alike[mine, theirs]) + FIRST
            alike[mine, theirs] = alike[theirs, mine] = worth
        return alike


def place_of(graph: LayerGraph, pair: TensorPair, *, is_base: bool) -> Place:
    """Where a model shows what a weight's units give."""
    layer, weight = (pair.layers.base, pair.base) if is_base else (pair.layers.donor, pair.donor)
    return find_activation(graph, layer, weight)


def together(sides: Sequence[Array | None]) -> Array | None:
    """The rows of all models below each other, shape (k, all units, samples and places); of maps of other sizes their
    means. None where there is none."""
    known = [side for side in sides if side is not None]
    if len(known) < len(sides) or len({(len(side), side.shape[2]) for side in known}) > 1:
        return None
    if len({side.shape[3] for side in known}) > 1:
        known = [side.mean(axis=3, keepdims=True) for side in known]
    return np.concatenate([side.reshape(*side.shape[:2], -1) for side in known], axis=1)


def zipped(stacking: Stacking, inputs: Mapping[int, Inputs], runner: Runner) -> Stacking:
    """The stacking with the units of its models zipped.

    Args:
        inputs: of each model, by its number, arrays by the base's names.

    Raises:
        UsageError: a parameter has a value that it may not have.
        DataError, RunError: a model does not run on its inputs.
    """
    own = [setting for setting in stacking.settings if not setting.where]
    values = resolve(stacking.method, own, stacking.numbers, (), 0.0)
    return replace(stacking, zips=Zipping(stacking, inputs, runner).zips(values["repeat"], values["within"]))
