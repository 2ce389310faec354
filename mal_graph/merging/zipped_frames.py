"""Models in a frame of zipped units: several units of each may stand on one of the result (see `matching.zipping`).

A tensor W of model i becomes M W U, as in ZipIt (Stoica et al. 2024, arXiv:2305.03053): M takes the mean of the units
that stand on one of the result, U reads one of the result wherever any of these was read. M is kept as means over the
units of one model, beside how many these are: the result is the mean of all models, each entry by these numbers.
Units of which nothing is known stand one on one, as they were aligned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mal_graph.boxes import Array, Box
from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph
from mal_graph.matching import Alignment, AxisPair, Block, Index, Shares, along, axis_map
from mal_graph.merging.planning import Step
from mal_graph.merging.unmatched import Mask


@dataclass(frozen=True, repr=False)
class Zips(Brief):
    """Which units stand on which of the result's.

    Attributes:
        places: by index of a base's group, for each model, base first, the unit of the result that each of its units
            stands on.
        told: how many groups were zipped, in a sentence.
    """

    places: Mapping[int, tuple[Index, ...]]
    told: str = ""

    def shares(self, alignment: Alignment, number: int) -> dict[int, Shares]:
        """By index of each pair of groups that is zipped how the units of a model are shared out: `mean` is M, `spread`
        is U."""
        shares = {}
        for index, pair in enumerate(alignment.correspondence.pairs):
            if pair.base in self.places:
                units = len(self.places[pair.base][0])
                stands = (np.arange(units)[:, None] == self.places[pair.base][number]).astype(np.float64)
                shares[index] = Shares(stands / np.maximum(stands.sum(axis=1, keepdims=True), 1), stands)
        return shares


@dataclass(frozen=True, repr=False)
class ZippedFrame(Brief):
    """What gives one tensor of a model in the frame of the zipped units, and how much the model counts in each entry.

    Attributes:
        graph: the base.
        zips: which units stand where.
        alignment, step: how the model corresponds to the base; of the base itself, how some donor does.
        number: which model it is, 0 for the base.
    """

    graph: LayerGraph
    zips: Zips
    alignment: Alignment
    step: Step
    number: int

    def __call__(self, own: Array, box: Box) -> Array:
        """The values of a box; 0 where the model has none."""
        whole = self.whole.astype(own.dtype)[box]
        return self.step.pair.stored_form(whole, box) if self.number else whole

    def present(self, box: Box) -> Mask | None:
        """All is there: what a model lacks counts nothing."""
        return None

    def counts(self, box: Box) -> Array:
        """How many of the model's units stand on the one of the result that an entry is of, shape (*box,)."""
        return np.asarray(self.units_of_each[box])

    @cached_property
    def units_of_each(self) -> Array:
        counts: Array = np.ones(())
        for place, axis in enumerate(self.axes):
            own = self.map_of(place, axis, gives=False).sum(axis=1) if self.gives(place) else np.ones(axis.size)
            counts = counts[..., None] * own
        return counts

    @cached_property
    def whole(self) -> Array:
        """M W U."""
        moved = self.theirs
        for place, axis in enumerate(self.axes):
            moved = along(self.map_of(place, axis, gives=self.gives(place)), moved, place)
        return moved

    def gives(self, place: int) -> bool:
        """Whether an axis is one of units that the tensor makes, or has one number for each."""
        return not (self.step.pair.is_weight and place)

    def map_of(self, place: int, axis: AxisPair, *, gives: bool) -> Array:
        """What each position of an axis takes of the model's."""
        shares = self.zips.shares(self.alignment, self.number)
        return axis_map(axis, self.alignment, shares, gives=gives, donor=self.theirs.shape[place])

    @cached_property
    def theirs(self) -> Array:
        """The values as the model has them."""
        pair = self.step.pair
        stored = pair.merged_values if self.number else self.graph.weights[self.step.tensor].read
        values = stored()
        return np.asarray(values if self.number else pair.base.canonical(values), np.float64)

    @cached_property
    def axes(self) -> tuple[AxisPair, ...]:
        """How the axes correspond to those of the model; those of the base to themselves."""
        if self.number:
            return self.step.axes
        pairs = self.alignment.correspondence.pairs
        return tuple(with_itself(axis, [pair.base in self.zips.places for pair in pairs]) for axis in self.step.axes)


def with_itself(axis: AxisPair, is_zipped: list[bool]) -> AxisPair:
    """How an axis of the base corresponds to itself: all positions one to one, but for those that are zipped."""
    zipped = tuple(
        replace(block, donor=block.base) for block in axis.blocks if block.pair >= 0 and is_zipped[block.pair]
    )
    rest = np.setdiff1d(np.arange(axis.size), [place for block in zipped for place in block.base.ravel()])[:, None]
    return AxisPair(axis.size, (*zipped, Block(-1, rest, rest)))
