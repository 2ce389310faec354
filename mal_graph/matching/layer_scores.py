"""How much every layer of one model is like every layer of another.

Layers at the same place of graphs of the same structure score highest; else context, position, widths, window,
activation and weight statistics count, each between 0 and 1. Where settings that change the function differ, a score is
lowered, at the same place never below SAME_PLACE.

Chosen: scores are computed where they are asked for, a block of layers after the other. Refused: a table of all, which
for ten thousand layers takes a GiB for each part of a score.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mal_graph.matching.differences import is_set_alike, tell_settings_apart
from mal_graph.matching.layer_profile import Profile

T = TypeVar("T")

SAME_PLACE = 0.9  # what two layers at the same place of isomorphic graphs score at least
OTHER_SETTINGS = 0.05  # what a score loses at most where operators of two layers have other settings
WEIGHTS = {"context": 0.25, "position": 0.2, "widths": 0.2, "window": 0.2, "activation": 0.1, "statistics": 0.05}
BLOCK = 2**19  # scores that are computed at once: their parts stay in the cache

Scores = NDArray[np.float64]
Leads = Sequence[frozenset[str]]  # of each layer, the outputs that it leads to


@dataclass(frozen=True)
class Levels:
    """The hashes of the layers of two models on several levels, as numbers, shape (layers, levels)."""

    mine: NDArray[np.int64]
    theirs: NDArray[np.int64]

    def at(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Scores:
        """The share of levels on which the hashes of layers i and j are equal."""
        levels = self.mine.shape[1]
        if i.ndim < 2 and j.ndim < 2:  # few: most of the time goes into calls
            equal = (self.mine.take(i, axis=0) == self.theirs.take(j, axis=0)) @ np.ones(levels)
        else:
            x, y = (np.ascontiguousarray(side.take(of, axis=0).T).T for side, of in ((self.mine, i), (self.theirs, j)))
            equal = (x[..., 0] == y[..., 0]).astype(np.int8)
            for level in range(1, levels):
                equal += x[..., level] == y[..., level]
        share: Scores = equal / levels
        return share


@dataclass(frozen=True)
class Kinds:
    """A comparison of the layers of two models, which differ in few kinds.

    Attributes:
        mine, theirs: the kind of each layer.
        table: how two kinds compare, shape (kinds, kinds).
    """

    mine: NDArray[np.int64]
    theirs: NDArray[np.int64]
    table: Scores

    def at(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Scores:
        """How layers i and j compare."""
        if self.table.size == 1:
            return self.table.reshape(())  # it broadcasts
        if i.ndim == 2 and j.ndim == 1:  # a block
            return self.table[self.mine[i[:, 0]]].take(self.theirs[j], axis=1)
        at: Scores = self.table[self.mine[i], self.theirs[j]]
        return at


@dataclass(frozen=True)
class LayerScores:
    """The scores of the layers of two models.

    Attributes:
        a, b: what is known of the layers of the base and of the donor.
        without: names of donor layers that shall have no partner.
        outputs: the donor's name of outputs of the base, where it is known: layers that lead to none in common are not
            paired.
        leads: the outputs that each layer leads to, of both sides.
    """

    a: Profile
    b: Profile
    without: Collection[str] = ()
    outputs: Mapping[str, str] | None = None
    leads: tuple[Leads, Leads] = ((), ())

    def at(self, i: ArrayLike, j: ArrayLike) -> Scores:
        """The scores of base layers i and donor layers j, which broadcast; -inf where they can be no pair."""
        i, j = np.asarray(i), np.asarray(j)
        parts = self.parts(i, j)
        different = sum((WEIGHTS[name] * part for name, part in parts.items()), np.float64(0))
        settings = self.settings.at(i, j)
        different = different - OTHER_SETTINGS * (1 - settings)
        scores = SAME_PLACE * different
        is_same = self.same_place(i, j)
        if is_same.any():
            alike = 0.5 * self.roles.at(i, j) + 0.5 * parts["activation"]
            same = 0.6 * alike + 0.2 * parts["widths"] + 0.2 * parts["statistics"]  # nothing else can differ
            scores = np.where(is_same, SAME_PLACE + (1 - SAME_PLACE) * same * settings, scores)
        allowed = np.logical_and.reduce([kinds.at(i, j) > 0 for kinds in self.may_be])
        return np.where(allowed, scores, -np.inf)

    def rows(self, layers: Sequence[int]) -> Iterator[tuple[int, Scores]]:
        """Base layers, one by one, each with its scores with all donor layers."""
        every = np.arange(len(self.b.layers))
        size = max(1, BLOCK // max(1, len(every)))
        for start in range(0, len(layers), size):
            block = np.array(layers[start : start + size], int)
            yield from zip(block.tolist(), self.at(block[:, None], every), strict=True)

    def columns(self, layers: Sequence[int]) -> Iterator[tuple[int, Scores]]:
        """Donor layers, one by one, each with its scores with all base layers."""
        every = np.arange(len(self.a.layers))
        size = max(1, BLOCK // max(1, len(every)))
        for start in range(0, len(layers), size):
            block = np.array(layers[start : start + size], int)
            yield from zip(block.tolist(), self.at(every[:, None], block).T.copy(), strict=True)

    def parts(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> dict[str, Scores]:
        """What the scores are made of; every part is between 0 and 1."""
        a, b = self.a, self.b
        apart = [
            np.abs(x[i, 0] - y[j, 0]) + np.abs(x[i, 1] - y[j, 1]) for x, y in (self.sizes, (a.statistics, b.statistics))
        ]
        return {
            "context": self.context.at(i, j),
            "position": 1.0 - np.abs(a.positions[i] - b.positions[j]),
            "widths": np.exp2(-0.5 * apart[0]),
            "window": self.windows.at(i, j),
            "activation": self.activations.at(i, j),
            "statistics": np.exp(-apart[1]),
        }

    def parts_of(self, i: int, j: int) -> dict[str, float]:
        """What one score is made of."""
        return {name: float(part) for name, part in self.parts(np.array(i), np.array(j)).items()}

    def is_same_place(self, i: int, j: int) -> bool:
        """Whether two layers have the same before and behind them in both graphs."""
        return bool(self.same_place(np.array(i), np.array(j)))

    def same_place(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether layers i and j have the same before and behind them in both graphs."""
        mine, theirs = self.whole
        same: NDArray[np.bool_] = mine[i] == theirs[j]
        return same

    @cached_property
    def context(self) -> Levels:
        """What lies before the layers, and what lies behind them."""
        mine, theirs = (
            [(*up, *down) for up, down in zip(side.up, side.down, strict=True)] for side in (self.a, self.b)
        )
        return number_levels(mine, theirs)

    @cached_property
    def whole(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All that lies before and behind each layer, as a number."""
        ends = (
            [[f"{up[-1]} {down[-1]}"] for up, down in zip(side.up, side.down, strict=True)] for side in (self.a, self.b)
        )
        levels = number_levels(*ends)
        return levels.mine[:, 0], levels.theirs[:, 0]

    @cached_property
    def roles(self) -> Levels:
        return number_levels(self.a.roles, self.b.roles)

    @cached_property
    def sizes(self) -> tuple[Scores, Scores]:
        mine, theirs = (log_sizes(side) for side in (self.a, self.b))
        return mine, theirs

    @cached_property
    def windows(self) -> Kinds:
        return compare_kinds(self.a.windows, self.b.windows, compare_windows)

    @cached_property
    def activations(self) -> Kinds:
        return compare_kinds(
            self.a.activations, self.b.activations, lambda x, y: len(x & y) / len(x | y) if x | y else 1.0
        )

    @cached_property
    def settings(self) -> Kinds:
        mine, theirs = self.a.operations, self.b.operations
        return compare_kinds(mine, theirs, lambda x, y: float(is_set_alike(x, y)), tell_settings_apart(mine, theirs))

    @cached_property
    def may_be(self) -> list[Kinds]:
        """What two layers must all have in common to be a pair."""
        kept = [layer.name not in self.without for layer in self.b.layers]
        allowed = [
            compare_kinds(self.a.meanings, self.b.meanings, lambda x, y: bool(x & y)),
            compare_kinds([True] * len(self.a.layers), kept, lambda _, is_kept: is_kept),
        ]
        if self.outputs:
            outputs = self.outputs
            mine = [frozenset(outputs[name] for name in names if name in outputs) for names in self.leads[0]]
            theirs = [names & frozenset(outputs.values()) for names in self.leads[1]]
            allowed.append(compare_kinds(mine, theirs, lambda x, y: not (x and y and not x & y)))
        return [kinds for kinds in allowed if not kinds.table.all()] or allowed[:1]


def number_levels(mine: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> Levels:
    """The hashes of layers on every level, as numbers that are equal where they are."""
    number: dict[Hashable, int] = {}
    levels = max((len(row) for row in (*mine, *theirs)), default=1)
    one, other = (
        np.array([[number.setdefault(hashed, len(number)) for hashed in row] for row in side], int).reshape(-1, levels)
        for side in (mine, theirs)
    )
    return Levels(one, other)


def compare_kinds(
    mine: Sequence[T],
    theirs: Sequence[T],
    compare: Callable[[T, T], float],
    keys: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
) -> Kinds:
    """A comparison of every two layers, which differ in few kinds; `keys` tell the kinds apart where the values
    themselves do not."""
    of: list[NDArray[np.int64]] = []
    kinds: list[list[T]] = []
    for side, told in zip((mine, theirs), keys or (mine, theirs), strict=True):
        number: dict[Hashable, int] = {}
        of.append(np.array([number.setdefault(key, len(number)) for key in told], int))
        first = dict(zip(reversed(of[-1].tolist()), reversed(side), strict=True))
        kinds.append([first[kind] for kind in range(len(number))])
    table = np.array([[compare(x, y) for y in kinds[1]] for x in kinds[0]], float)
    return Kinds(of[0], of[1], table.reshape(len(kinds[0]), len(kinds[1])))


def compare_windows(a: tuple[object, ...], b: tuple[object, ...]) -> float:
    """How much of two windows is equal; where one layer has none, the other's is one tap."""
    equal = [x == y for x, y in zip(a or b, b or a, strict=True)]
    return float(np.mean(equal)) if equal else 1.0


def explain_pair(parts: Mapping[str, float], is_same: bool) -> str:
    """Why two layers were paired, in words."""
    if is_same:
        return "the same place in graphs of the same structure"
    good = [name for name, part in parts.items() if part >= 0.8]
    poor = [name for name, part in parts.items() if part < 0.5]
    return f"alike in {', '.join(good) or 'kind'}" + (f"; unlike in {', '.join(poor)}" if poor else "")


def log_sizes(profile: Profile) -> Scores:
    """What each layer reads and makes, in powers of two, shape (layers, 2); nothing counts as one unit."""
    sizes = np.array([layer.in_out for layer in profile.layers], np.float64).reshape(-1, 2)
    logarithms: Scores = np.log2(np.maximum(sizes, 1))
    return logarithms
