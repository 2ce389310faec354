"""Units without a partner: what becomes of them, one function for each rule (`unmatched="keep"`, "fade", "zero"...).

A rule is made by `unmatched_rule` and found by an entry point of the group `mal_graph.unmatched_rules`, this package's
too. It is asked which entries move towards the value of a unit that is not there.

An entry of a merged weight depends on whether the units of its row and its column have a partner in the donor:

| row / column              | keep              | fade            | zero            |
|---------------------------|-------------------|-----------------|-----------------|
| matched / matched         | (1-lam) A + lam B | the same        | the same        |
| matched / without partner | A                 | (1-lam) A       | (1-lam) A       |
| without partner / any     | A                 | A               | (1-lam) A       |
| matched / added           | lam B             | lam B           | lam B           |
| added / with a partner    | B                 | B               | lam B           |
| added / without partner   | 0                 | 0               | 0               |

Added units stand where the donor has more of them, if the base was widened for these (see `widening`). Per-unit vectors
follow the rows; in `zero` the missing side is the value of a unit that is not there (variance 1, anything else 0).
Units that feed a sum, norm, mean or maximum over their axis follow `zero` in every mode: alive but without a partner
they would change the others. Source of the zero form: Model Assembly Learning (arXiv:2503.21657), as far as it can
be read; the other two are ours. `fade` is the default: most experiments with narrower donors speak for it
(examples/03_paper_experiments/report/report.md), the small networks of tools/results/study_digits.md for `keep`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import getdoc

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.boxes import Stretch
from mal_graph.errors import UsageError
from mal_graph.matching import AxisPair, Orders, TensorPair, inside_lone_units

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


Fades = Callable[[Mask, Mask], Mask]


@dataclass(frozen=True)
class UnmatchedRule:
    """What becomes of units without a partner: a column of the table.

    Attributes:
        name: what `unmatched` calls it.
        source: where it is published; "" where nowhere.
        fades: which entries move towards the value of a unit that is not there, from two masks of the tensor's shape:
            the entries whose row, and those whose column has no partner.
        gives_added: whether the rows of added units are the donor's whatever lambda.
    """

    name: str
    source: str
    fades: Fades = field(repr=False)
    gives_added: bool = True

    @property
    def summary(self) -> str:
        """What becomes of them, in one line."""
        return (getdoc(self.fades) or "").split("\n", 1)[0]


def unmatched_rule(name: str, *, source: str = "", gives_added: bool = True) -> Callable[[Fades], UnmatchedRule]:
    """Make a rule of a function from two masks to one; arguments as for `UnmatchedRule`."""
    return lambda fades: UnmatchedRule(name, source, fades, gives_added)


@unmatched_rule("keep")
def keep(row: Mask, column: Mask) -> Mask:
    """Units without a partner keep their weights, and so does what reads them."""
    return np.zeros_like(row)


@unmatched_rule("fade")
def fade(row: Mask, column: Mask) -> Mask:
    """Units without a partner keep their weights, and others read them the less the larger lambda is."""
    return np.asarray(column & ~row)


@unmatched_rule("zero", source="arXiv:2503.21657", gives_added=False)
def zero(row: Mask, column: Mask) -> Mask:
    """Units without a partner stand beside zeros, as in Model Assembly Learning, as far as it can be read."""
    return np.asarray(row | column)


@cache
def find_rule(name: str) -> UnmatchedRule:
    """The rule of a name. Raises UsageError if there is none, or what is registered is none."""
    points = registry.unmatched_rules()
    if name not in points:
        raise UsageError(f"unmatched is {name!r}: choose one of {', '.join(points)}")
    return registry.decorated("rule", points, name, UnmatchedRule, "unmatched_rule")


def all_rules() -> list[UnmatchedRule]:
    """Every rule, by name."""
    return [find_rule(name) for name in registry.unmatched_rules()]


@dataclass(frozen=True)
class AxisMarks:
    """Positions of one axis of a base tensor, or those of a box, as masks.

    Attributes:
        matched: those with a partner.
        must_match: those where a live unit without a partner is not allowed.
        given: those of added units, unless these move like all others.
    """

    matched: Mask
    must_match: Mask
    given: Mask

    def within(self, stretch: Stretch) -> "AxisMarks":
        """The marks at some positions."""
        return AxisMarks(self.matched[stretch], self.must_match[stretch], self.given[stretch])


def mark_axis(axis: AxisPair, matched: Mask, orders: Orders) -> AxisMarks:
    """The marks of an axis, of which it is known what is matched."""
    places = np.arange(axis.size)
    given = np.setdiff1d(axis.added, np.union1d(axis.statistic, axis.statistic_inside))
    return AxisMarks(matched, np.isin(places, must_have_partners(axis, orders)), np.isin(places, given))


def fading_entries(rule: UnmatchedRule, pair: TensorPair, marks: Sequence[AxisMarks]) -> Mask:
    """The entries without a partner that move towards the value of a unit that is not there."""
    if not marks:
        return np.zeros((), bool)
    matched = [axis.matched for axis in marks]
    must_fade = any_of(rows_of(pair, [axis.must_match & ~axis.matched for axis in marks], is_marked=False))
    lone_row = ~outer(rows_of(pair, matched, is_marked=True))
    lone_column = ~outer(columns_of(pair, matched))
    return must_fade | rule.fades(lone_row, lone_column)


def must_have_partners(axis: AxisPair, orders: Orders) -> Index:
    """Base positions where a live unit without a partner is not allowed."""
    return np.union1d(axis.statistic, np.setdiff1d(axis.statistic_inside, inside_lone_units(axis, orders)))


def given_entries(rule: UnmatchedRule, pair: TensorPair, marks: Sequence[AxisMarks]) -> Mask:
    """The entries that are the donor's whatever lambda: the rows of added units, unless these move like all others."""
    given = any_of(rows_of(pair, [axis.given for axis in marks], is_marked=False))
    return given if rule.gives_added else np.zeros_like(given)


def rows_of(pair: TensorPair, masks: Sequence[Mask], *, is_marked: bool) -> list[Mask]:
    """The masks of the axes that count as rows: a weight's output units alone; the others are marked everywhere, or
    nowhere."""
    if not pair.is_weight:
        return list(masks)
    return [masks[0], *(np.full(len(mask), is_marked) for mask in masks[1:])]


def columns_of(pair: TensorPair, masks: Sequence[Mask]) -> list[Mask]:
    """The masks of a weight's other axes; a tensor of another kind has no columns that could lack a partner."""
    if not pair.is_weight:
        return [np.ones(len(mask), bool) for mask in masks]
    return [np.ones(len(masks[0]), bool), *masks[1:]]


def outer(masks: Sequence[Mask]) -> Mask:
    """Entries whose index is marked on every axis."""
    whole = np.ones([len(mask) for mask in masks], bool)
    for place, mask in enumerate(masks):
        whole &= mask.reshape([-1 if place == i else 1 for i in range(len(masks))])
    return whole


def any_of(masks: Sequence[Mask]) -> Mask:
    """Entries whose index is marked on some axis."""
    return ~outer([~mask for mask in masks])
