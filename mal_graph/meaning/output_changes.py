"""What may have to be done to the rows of a donor so that they are those of the base, fitted on a part of the samples.

The loss of a sample is the square by which the donor's row is off, over the mean square by which the base's rows vary:
0 where both are equal, about 1 where the donor says nothing of the base. Where rows score classes, the mean of that and
of whether the largest score is another one; a positive factor is free there, for it changes no decision, and trainings
differ in it.

The loss of an order is, at a given factor, a sum over the pairs of columns that it makes: the inner products of these,
and how often both are the largest. So the best order is an assignment.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import stdtr

from mal_graph.graph import Array
from mal_graph.meaning.readings import Reading

TINY = 1e-30
ALPHA = 1e-4  # how likely luck alone may make a change look useful on samples that it was not fitted on
FEWEST = 6  # samples that can show it
FAR = 1.0  # of the base's deviation: how far a single output of another training may be off that nobody calls a value
PASSES = 2  # in which an order and its factor are fitted in turn
CYCLE_LEFT = 0.7  # of the loss on the samples of classes that change places: what may be left of it


@dataclass(frozen=True)
class OutputChange:
    """What is done to the columns of a donor.

    Attributes:
        order: column `order[j]` of the donor is column j of the base; () where they stay.
        factor, shift: what a column is multiplied by, and what is added then, in the base's units; one number each, or
            one for each column.
    """

    order: tuple[int, ...] = ()
    factor: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def of(self, rows: Array) -> Array:
        """The rows changed."""
        ordered = rows[..., list(self.order)] if self.order else rows
        return np.asarray(ordered * np.array(self.factor) + np.array(self.shift))

    @property
    def is_turned(self) -> bool:
        """Whether the sign is another one."""
        return min(self.factor) < 0

    @property
    def moved(self) -> tuple[int, ...]:
        """The base's columns that are other ones of the donor."""
        return tuple(place for place, own in enumerate(self.order) if own != place)


def losses(base: Array, donor: Array, reading: Reading, spread: float) -> Array:
    """The loss of each sample; `spread` is the mean square by which rows of the base vary."""
    off = ((base - donor) ** 2).sum(axis=2) / max(spread, TINY)  # (samples, places)
    if reading.are_scores:
        off = (off + (base.argmax(axis=2) != donor.argmax(axis=2))) / 2
    return np.asarray(off.mean(axis=1))


def spread_of(base: Array) -> float:
    """The mean square by which the rows of the base vary, over all columns."""
    return float(((base - base.mean(axis=(0, 1))) ** 2).sum(axis=2).mean())


def as_is(base: Array, donor: Array, reading: Reading) -> OutputChange:
    """Nothing but the positive factor that is free, fitted by least squares."""
    return OutputChange() if reading.is_told else OutputChange(factor=(free_factor(base, donor),))


def changes_of(base: Array, donor: Array, reading: Reading) -> Iterator[OutputChange]:
    """Every change that is tried, the simplest first: none, another order, another sign, other units."""
    yield as_is(base, donor, reading)
    if base.shape[2] > 1:
        order = best_order(base, donor, reading)
        if order:
            factor = 1.0 if reading.is_told else free_factor(base, donor[..., list(order)])
            yield OutputChange(order, (factor,))
    if reading.are_scores:
        if base.shape[2] > 2:  # of two classes the other sign is the other order
            yield OutputChange(factor=(-free_factor(base, -donor),))
    elif base.shape[2] == 1 or reading.is_told:
        change = straight_line(base, donor)
        if reading.is_told or change.is_turned or abs(change.shift[0]) > FAR:
            yield change


def free_factor(base: Array, donor: Array) -> float:
    """The factor of least squares, none below 0."""
    return max(float((base * donor).sum() / max(float((donor**2).sum()), TINY)), 0.0)


def straight_line(base: Array, donor: Array) -> OutputChange:
    """Factor and shift of least squares for each column."""
    a, b = (rows.reshape(-1, rows.shape[2]) for rows in (base, donor))
    means = a.mean(axis=0), b.mean(axis=0)
    factor = ((a - means[0]) * (b - means[1])).sum(axis=0) / np.maximum(((b - means[1]) ** 2).sum(axis=0), TINY)
    return OutputChange((), tuple(factor.tolist()), tuple((means[0] - factor * means[1]).tolist()))


def best_order(base: Array, donor: Array, reading: Reading) -> tuple[int, ...]:
    """The donor's column for each of the base's; () where all stay. Of scores the order that leaves the least loss at
    the factor of the order before, from that of the largest inner product on."""
    a, b = (rows.reshape(-1, rows.shape[2]) for rows in (base, donor))
    products = a.T @ b  # (base's columns, donor's columns)
    order = linear_sum_assignment(products, maximize=True)[1]
    if reading.are_scores:
        together = np.zeros_like(products)
        np.add.at(together, (a.argmax(axis=1), b.argmax(axis=1)), 1.0)
        for _ in range(PASSES):
            gained = 2 * free_factor(a, b[:, order]) * products / max(spread_of(base), TINY)
            order = linear_sum_assignment(gained + together, maximize=True)[1]
    return () if (order == np.arange(len(order))).all() else tuple(order.tolist())


def is_clear(before: Array, after: Array, left: float) -> bool:
    """Whether losses fell to at most the share `left`, and chance would not do that (paired t-test, one-sided)."""
    if len(before) < FEWEST or not np.isfinite([before, after]).all() or after.mean() > left * before.mean():
        return False
    gains = before - after
    if np.ptp(gains) == 0:
        return bool(gains[0] > 0)
    student = gains.mean() / np.sqrt(gains.var(ddof=1) / len(gains))
    return bool(stdtr(len(gains) - 1, -student) <= ALPHA)


def tidied(change: OutputChange, base: Array, donor: Array, reading: Reading, spread: float) -> OutputChange:
    """The same with those columns alone in another order that clearly have to be: columns that trade places are judged
    on the samples that the base gives to one of them, on which nothing was fitted."""
    kept = np.arange(len(change.order))
    without = OutputChange(factor=change.factor)
    chosen = base.argmax(axis=2)
    for cycle in cycles_of(change.order):
        own = kept.copy()
        own[cycle] = np.array(change.order)[cycle]
        moved = OutputChange(tuple(own.tolist()), change.factor)
        concerned = np.isin(chosen, cycle).any(axis=1) if reading.are_scores else np.ones(len(base), bool)
        before, after = (losses(base[concerned], one.of(donor[concerned]), reading, spread) for one in (without, moved))
        if is_clear(before, after, CYCLE_LEFT):
            kept[cycle] = own[cycle]
    is_moved = bool((kept != np.arange(len(kept))).any())
    return OutputChange(tuple(kept.tolist()) if is_moved else (), change.factor, change.shift)


def cycles_of(order: tuple[int, ...]) -> Iterator[list[int]]:
    """The places that trade places with each other."""
    seen: set[int] = set()
    for start in range(len(order)):
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(start)
            start = order[start]
        if len(cycle) > 1:
            yield cycle
