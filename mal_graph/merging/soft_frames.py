"""A donor's tensors in the base's frame where its units are shared out (see `matching.transport`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mal_graph.boxes import Array, Box
from mal_graph.brief import Brief
from mal_graph.matching import Shares, along, axis_map, shares_of
from mal_graph.merging.planning import Plan, Step
from mal_graph.merging.unmatched import Mask, outer


@dataclass(frozen=True, repr=False)
class SoftFrame(Brief):
    """What gives one tensor of a donor in the base's frame: of units that it makes means, of units that it reads sums.

    A donor unit whose outputs stand on several of the base's is read by shares that sum to one, so that a donor whose
    units are those of the base several times over computes what it did.
    """

    plan: Plan
    step: Step
    shares: Mapping[int, Shares]

    def __call__(self, own: Array, box: Box) -> Array:
        """The values of a box; the base's where the donor has none."""
        pair = self.step.pair
        whole = self.whole.astype(own.dtype)[box]
        theirs = pair.stored_form(whole, box).astype(own.dtype, copy=False)
        present = self.present(box)
        return theirs if present is None else np.where(present, theirs, own)

    def present(self, box: Box) -> Mask | None:
        """Which entries of a box the donor has; None where it has all."""
        masks = [np.asarray(one.any(axis=1))[stretch] for one, stretch in zip(self.maps, box, strict=True)]
        return None if all(mask.all() for mask in masks) else outer(masks)

    @cached_property
    def maps(self) -> list[Array]:
        """Of each axis what its positions take of the donor's."""
        pair, shape = self.step.pair, self.theirs.shape
        return [
            axis_map(axis, self.plan.alignment, self.shares, gives=not (pair.is_weight and place), donor=shape[place])
            for place, axis in enumerate(self.step.axes)
        ]

    @cached_property
    def theirs(self) -> Array:
        """The donor's values as it has them."""
        return np.asarray(self.step.pair.merged_values(), np.float64)

    @cached_property
    def whole(self) -> Array:
        """The donor's values in the base's frame, before they are in its form."""
        moved = self.theirs
        for place, own in enumerate(self.maps):
            moved = along(own, moved, place)
        return moved


def shares_of_plans(plans: tuple[Plan, ...], softness: float) -> tuple[Mapping[int, Shares], ...]:
    """How the units of each donor are shared out over the base's. Raises UsageError."""
    return tuple(shares_of(plan.alignment, softness) for plan in plans)
