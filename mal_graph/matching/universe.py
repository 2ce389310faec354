"""Several models aligned to each other at once: every unit has a slot in a universe that all models share.

Where two models are compared, their units correspond that have one slot. So orders agree along every way: from a model
through others and back to it, each unit comes back to itself or is lost where a model has no unit in its slot. The
universe is as wide as the widest model. What is raised is the sum of the inner products of all pairs of models.

Orders of a base with each of the others are what it begins with, and the result is never below them. Groups inside the
units of others, across each other, of units of several kinds, or paired in another way in another model, stay in these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mal_graph.brief import Brief
from mal_graph.graph import Array
from mal_graph.matching.assignment import Alignment
from mal_graph.matching.axis_pairs import AxisPair, Index
from mal_graph.matching.orders import Order, Orders, match_positions, match_units
from mal_graph.matching.tensor_pairs import Read

Slots = dict[tuple[int, int], Index]  # by model, 0 for the base, and group: the slot of every unit
Shares = dict[tuple[int, int], Array]  # of every unit in every slot, shape (units, slots); rows sum to one

PASSES, PATIENCE = 200, 5  # steps at most, and how many without a gain are the last
GAIN = 1e-6  # of the value: a step that gains less is none
ROUNDING = 1e-9  # of the value


@dataclass(frozen=True, repr=False)
class Axis(Brief):
    """An axis of a tensor of one model, and where it lies in the universe.

    Attributes:
        size: how long the part of it is that has no slots.
        fixed: positions of that part and of the model that correspond.
        groups: in order, what has slots: the group, and the model's positions, shape (units, k).
    """

    size: int
    fixed: tuple[Index, Index]
    groups: tuple[tuple[int, Index], ...]


@dataclass(frozen=True, repr=False)
class Form(Brief):
    """A tensor of one model.

    Attributes:
        model: its number, 0 for the base.
        read: gives the values, canonical.
        axes: of it.
    """

    model: int
    read: Read
    axes: tuple[Axis, ...]

    @cached_property
    def values(self) -> Array:
        return self.read().astype(np.float64)


@dataclass(frozen=True, repr=False)
class Universe(Brief):
    """Models that share slots.

    Attributes:
        alignments: of the base with each of the others.
        free: the groups of the base whose units get slots, each with its pair in every alignment.
    """

    alignments: tuple[Alignment, ...]
    free: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def units(self) -> dict[tuple[int, int], int]:
        """How many units each model has in each group."""
        units = {}
        for group, pairs in self.free.items():
            for number, (pair, alignment) in enumerate(zip(pairs, self.alignments, strict=True), 1):
                units[0, group], units[number, group] = alignment.correspondence.units[pair]
        return units

    @cached_property
    def slots(self) -> dict[int, int]:
        """How many slots each group has."""
        models = range(1 + len(self.alignments))
        return {group: max(self.units[model, group] for model in models) for group in self.free}

    @cached_property
    def tensors(self) -> list[list[Form]]:
        """The tensors that are compared, each of all models that have it."""
        forms: dict[tuple[str, int, int], list[Form]] = {}
        for number, alignment in enumerate(self.alignments, 1):
            pair_of = {pairs[number - 1]: group for group, pairs in self.free.items()}
            for pair, axes in alignment.correspondence.tensors:
                if pair.is_compared and any(block.pair in pair_of for axis in axes for block in axis.blocks):
                    place = (pair.base.tensor, pair.base.node, pair.base.slot)
                    own = tuple(axis_of_base(axis, pair_of) for axis in axes)
                    theirs = tuple(axis_of_donor(axis, pair_of, alignment.orders) for axis in axes)
                    several = forms.setdefault(place, [Form(0, pair.base_values, own)])
                    several.append(Form(number, pair.donor_values, theirs))
        return list(forms.values())

    @property
    def degree(self) -> int:
        """Of the value as a polynomial, where all units move along one line."""
        return 2 * max((sum(bool(axis.groups) for axis in form[0].axes) for form in self.tensors), default=0)

    def begun(self) -> Slots:
        """The slots that the given orders say: those of the base's units, the others behind them."""
        slots: Slots = {}
        for group, pairs in self.free.items():
            slots[0, group] = np.arange(self.units[0, group])
            for number, (pair, alignment) in enumerate(zip(pairs, self.alignments, strict=True), 1):
                order = alignment.orders[pair]
                own = np.full(self.units[number, group], -1)
                matched = np.flatnonzero(order >= 0)
                own[order[matched]] = matched
                lone = np.flatnonzero(own < 0)
                own[lone] = np.setdiff1d(np.arange(self.slots[group]), own)[: len(lone)]
                slots[number, group] = own
        return slots

    def shares(self, slots: Slots) -> Shares:
        """Slots as shares: each unit is whole in its own."""
        return {key: np.eye(self.slots[key[1]])[own] for key, own in slots.items()}

    # --- the value --------------------------------------------------------------------------------------------------

    def touching(self, group: int) -> list[list[Form]]:
        """The tensors that have units of a group."""
        return [forms for forms in self.tensors if any(group == g for axis in forms[0].axes for g, _ in axis.groups)]

    def value(self, shares: Shares, tensors: list[list[Form]] | None = None) -> float:
        """The sum of the inner products of all pairs of models, over all tensors or some."""
        total = 0.0
        for forms in self.tensors if tensors is None else tensors:
            placed = [self.placed(form, shares) for form in forms]
            total += float((sum(placed, np.zeros(())) ** 2).sum() - sum((one**2).sum() for one in placed)) / 2
        return total

    def slopes(self, shares: Shares) -> Shares:
        """How the value rises with every share."""
        slopes = {key: np.zeros_like(own) for key, own in shares.items()}
        for forms in self.tensors:
            placed = [self.placed(form, shares) for form in forms]
            total = sum(placed, np.zeros(()))
            for form, own in zip(forms, placed, strict=True):
                for key, slope in self.slopes_of(form, total - own, shares):
                    slopes[key] += slope
        return slopes

    def slope(self, key: tuple[int, int], shares: Shares) -> Array:
        """The same for the units of one model in one group."""
        slope = np.zeros_like(shares[key])
        for forms in self.touching(key[1]):
            others = sum((self.placed(form, shares) for form in forms if form.model != key[0]), np.zeros(()))
            own = [form for form in forms if form.model == key[0]] if others.ndim else []
            parts = [part for form in own for of, part in self.slopes_of(form, others, shares) if of == key]
            slope += sum(parts, np.zeros(()))
        return slope

    def slopes_of(self, form: Form, others: Array, shares: Shares) -> Iterator[tuple[tuple[int, int], Array]]:
        """What one tensor of a model adds to its slopes, given the sum of the others in the universe."""
        for place, axis in enumerate(form.axes):
            if not axis.groups:
                continue
            rows = np.moveaxis(self.placed(form, shares, but=place), place, 0)
            aims, start = np.moveaxis(others, place, 0), axis.size
            for group, positions in axis.groups:
                units, taps = positions.shape
                stop = start + self.slots[group] * taps
                own = rows[positions.ravel()].reshape(units, -1)
                yield (form.model, group), own @ aims[start:stop].reshape(self.slots[group], -1).T
                start = stop

    def placed(self, form: Form, shares: Shares, but: int = -1) -> Array:
        """A tensor of a model in the universe, along all axes but one."""
        values = form.values
        for place, axis in enumerate(form.axes):
            if place != but:
                values = np.moveaxis(
                    self.placed_along(np.moveaxis(values, place, 0), axis, form.model, shares), 0, place
                )
        return values

    def placed_along(self, values: Array, axis: Axis, model: int, shares: Shares) -> Array:
        """Values in the universe along their first axis."""
        fixed = np.zeros((axis.size, *values.shape[1:]))
        fixed[axis.fixed[0]] = values[axis.fixed[1]]
        parts = [fixed]
        for group, positions in axis.groups:
            rows = values[positions.ravel()].reshape(len(positions), -1)
            parts.append((shares[model, group].T @ rows).reshape(-1, *values.shape[1:]))
        return np.concatenate(parts)


@dataclass(frozen=True, repr=False)
class Settled(Brief):
    """Models whose units all have a slot.

    Attributes:
        universe: the models.
        slots: of their units.
    """

    universe: Universe
    slots: Slots

    def order(self, first: int, second: int, group: int) -> Order:
        """For every unit of one model the unit of another that has its slot, -1 for none."""
        holder = np.full(self.universe.slots[group], -1)
        holder[self.slots[second, group]] = np.arange(self.universe.units[second, group])
        return np.asarray(holder[self.slots[first, group]])

    @property
    def orders(self) -> list[Orders]:
        """The orders of the base with each of the others."""
        made = []
        for number, alignment in enumerate(self.universe.alignments, 1):
            orders = list(alignment.orders)
            for group, pairs in self.universe.free.items():
                orders[pairs[number - 1]] = self.order(0, number, group)
            made.append(tuple(orders))
        return made


def axis_of_base(axis: AxisPair, pair_of: dict[int, int]) -> Axis:
    """An axis of the base's tensor."""
    groups = tuple((pair_of[block.pair], block.base) for block in axis.blocks if block.pair in pair_of)
    rest = np.setdiff1d(np.arange(axis.size), np.concatenate([np.zeros(0, int), *(own.ravel() for _, own in groups)]))
    return Axis(axis.size, (rest, rest), groups)


def axis_of_donor(axis: AxisPair, pair_of: dict[int, int], orders: Orders) -> Axis:
    """An axis of a donor's tensor; what has no slots lies where the given orders put it."""
    groups = tuple((pair_of[block.pair], block.donor) for block in axis.blocks if block.pair in pair_of)
    others = tuple(block for block in axis.blocks if block.pair not in pair_of)
    nowhere = np.zeros(0, int)
    fixed = match_positions(replace(axis, blocks=others), orders) if others else (nowhere, nowhere)
    assert fixed is not None  # an alignment has every order
    return Axis(axis.size, fixed, groups)


def open_universe(alignments: Sequence[Alignment]) -> Universe:
    """What several models, aligned to one base, can share."""
    free = [free_pairs(alignment) for alignment in alignments]
    common = [group for group in free[0] if all(group in own for own in free)]
    strange = {group for group in common if not is_laid_out_alike(group, alignments, free)}
    return Universe(
        tuple(alignments), {group: tuple(own[group] for own in free) for group in common if group not in strange}
    )


def free_pairs(alignment: Alignment) -> dict[int, int]:
    """The pairs whose units can have slots of their own, by the base's group."""
    correspondence = alignment.correspondence
    groups = [one.base for one in correspondence.pairs]
    bundles = correspondence.nests.bundles
    return {
        group: pair
        for pair, group in enumerate(groups)
        if groups.count(group) == 1 and bundles.get(pair) == (pair,) and pair not in correspondence.kinds
    }


def is_laid_out_alike(group: int, alignments: Sequence[Alignment], free: Sequence[dict[int, int]]) -> bool:
    """Whether a group's units lie on each tensor of the base in the same places beside all of the others."""
    seen: dict[tuple[str, int, int, int], list[list[int]]] = {}
    for alignment, pairs in zip(alignments, free, strict=True):
        for pair, axes in alignment.correspondence.tensors:
            for place, axis in enumerate(axes):
                own = [block.base.tolist() for block in axis.blocks if block.pair == pairs[group]]
                key = (pair.base.tensor, pair.base.node, pair.base.slot, place)
                if seen.setdefault(key, own) != own:
                    return False
    return True


# --- raising it -----------------------------------------------------------------------------------------------------


def align_in_universe(alignments: Sequence[Alignment]) -> Settled:
    """A base and several models, all aligned to each other at once by Frank-Wolfe.

    Source: Crisostomi et al. 2024, algorithm 1 (arXiv:2405.17897). Chosen: the best step along a line in closed form,
        where the value is a polynomial; slots for units of unequal numbers.
    """
    universe = open_universe(alignments)
    begun = universe.begun()
    shares = universe.shares(begun)
    start = value = universe.value(shares)
    idle = 0
    for _ in range(PASSES if universe.free else 0):
        ends = universe.shares(best_slots(universe.slopes(shares)))
        step = best_step(universe, shares, ends)
        shares = {key: (1 - step) * own + step * ends[key] for key, own in shares.items()}
        before, value = value, universe.value(shares)
        idle = idle + 1 if value - before <= GAIN * abs(before) else 0
        if idle == PATIENCE or not step:
            break
    slots = best_slots(shares)
    return Settled(universe, slots if universe.value(universe.shares(slots)) > start else begun)


def best_slots(scores: Shares) -> Slots:
    """The assignment of every model's units to slots with the highest scores."""
    return {key: match_units(own) for key, own in scores.items()}


def best_step(universe: Universe, shares: Shares, ends: Shares) -> float:
    """How far to go from shares to others, from 0 to 1."""
    steps = (1 - np.cos(np.pi * np.arange(universe.degree + 1) / max(1, universe.degree))) / 2
    values = [
        universe.value({key: (1 - step) * own + step * ends[key] for key, own in shares.items()}) for step in steps
    ]
    curve = np.polynomial.Polynomial.fit(steps, values, universe.degree)
    turns = np.asarray(curve.deriv().roots(), np.complex128)
    inside = [float(turn.real) for turn in turns if abs(turn.imag) < 1e-9 and 0 < turn.real < 1]
    return max((0.0, 1.0, *inside), key=lambda step: (float(curve(step)), -step))


def align_in_rounds(alignments: Sequence[Alignment], seed: int = 0) -> Settled:
    """A base and several models, each in turn aligned to the sum of the others until none gains.

    Source: Ainsworth et al. 2023, MergeMany (arXiv:2209.04836, appendix).
    """
    universe, rng = open_universe(alignments), np.random.default_rng(seed)
    slots, is_moving = universe.begun(), bool(universe.free)
    shares = universe.shares(slots)
    while is_moving:
        is_moving = False
        for model in rng.permutation(1 + len(alignments)):
            for group in universe.free:
                key, touching = (int(model), group), universe.touching(group)
                own = match_units(universe.slope(key, shares))
                trial = {**shares, key: np.eye(universe.slots[group])[own]}
                values = [universe.value(one, touching) for one in (shares, trial)]
                if values[1] > values[0] + ROUNDING * abs(values[0]):
                    slots, shares, is_moving = {**slots, key: own}, trial, True
    return Settled(universe, slots)
