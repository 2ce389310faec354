"""How much every layer of one model is like every layer of another.

Layers at the same place of graphs of the same structure score highest; else context, position, widths, window,
activation and weight statistics count, each between 0 and 1. Where settings that change the function differ, a score is
lowered, at the same place never below SAME_PLACE.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.differences import is_set_alike
from mal_graph.matching.layer_profile import Profile

T = TypeVar("T", bound=Hashable)

SAME_PLACE = 0.9  # what two layers at the same place of isomorphic graphs score at least
OTHER_SETTINGS = 0.05  # what a score loses at most where operators of two layers have other settings
WEIGHTS = {"context": 0.25, "position": 0.2, "widths": 0.2, "window": 0.2, "activation": 0.1, "statistics": 0.05}


def score_layers(a: Profile, b: Profile) -> NDArray[np.float64]:
    """Scores of every two layers, shape (base layers, donor layers); -inf where their kinds differ."""
    parts = score_parts(a, b)
    different = sum((WEIGHTS[name] * part for name, part in parts.items()), np.zeros((len(a.layers), len(b.layers))))
    alike = 0.5 * compare_levels(a.roles, b.roles) + 0.5 * parts["activation"]
    settings = compare_kinds(a.operations, b.operations, lambda x, y: float(is_set_alike(x, y)))
    different = different - OTHER_SETTINGS * (1 - settings)
    same = 0.6 * alike + 0.2 * parts["widths"] + 0.2 * parts["statistics"]  # nothing else can differ
    scores = np.where(find_same_places(a, b), SAME_PLACE + (1 - SAME_PLACE) * same * settings, SAME_PLACE * different)
    return np.where(compare_kinds(a.meanings, b.meanings, lambda x, y: bool(x & y)), scores, -np.inf)


def find_same_places(a: Profile, b: Profile) -> NDArray[np.bool_]:
    """Which layers have the same before and behind them in both graphs, shape (base layers, donor layers)."""
    ends = [[(up[-1], down[-1]) for up, down in zip(side.up, side.down, strict=True)] for side in (a, b)]
    same: NDArray[np.bool_] = compare_levels(*([(end,) for end in side] for side in ends)) == 1.0
    return same


def compare_levels(mine: Sequence[Sequence[Hashable]], theirs: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """The share of levels on which the hashes of two layers are equal, shape (base layers, donor layers)."""
    number: dict[Hashable, int] = {}
    one, other = (
        np.array([[number.setdefault((level, x), len(number)) for level, x in enumerate(row)] for row in side])
        for side in (mine, theirs)
    )
    if not len(mine) or not len(theirs):
        return np.zeros((len(mine), len(theirs)))
    equal: NDArray[np.float64] = np.mean([np.equal.outer(x, y) for x, y in zip(one.T, other.T, strict=True)], axis=0)
    return equal


def compare_kinds(mine: Sequence[T], theirs: Sequence[T], compare: Callable[[T, T], float]) -> NDArray[np.float64]:
    """A comparison of every two layers, which differ in few kinds; shape (base layers, donor layers)."""
    kinds: list[dict[T, int]] = [{}, {}]
    of = [[kind.setdefault(x, len(kind)) for x in side] for kind, side in zip(kinds, (mine, theirs), strict=True)]
    table = np.array([[compare(x, y) for y in kinds[1]] for x in kinds[0]]).reshape(len(kinds[0]), len(kinds[1]))
    return table[np.ix_(*of)] if all(of) else np.zeros((len(mine), len(theirs)))


def score_parts(a: Profile, b: Profile) -> dict[str, NDArray[np.float64]]:
    """What the scores are made of; every part is between 0 and 1, shape (base layers, donor layers)."""
    sides = [np.log2([layer.in_out for layer in side.layers]).reshape(-1, 2) for side in (a, b)]
    places = [np.array([side.position(i) for i in range(len(side.layers))]) for side in (a, b)]
    apart = [np.abs(x[:, None] - y[None]).sum(axis=2) for x, y in (sides, (a.statistics, b.statistics))]
    return {
        "context": 0.5 * compare_levels(a.up, b.up) + 0.5 * compare_levels(a.down, b.down),
        "position": 1.0 - np.abs(np.subtract.outer(*places)),
        "widths": np.exp2(-0.5 * apart[0]),
        "window": compare_kinds(a.windows, b.windows, compare_windows),
        "activation": compare_kinds(
            a.activations, b.activations, lambda x, y: len(x & y) / len(x | y) if x | y else 1.0
        ),
        "statistics": np.exp(-apart[1]),
    }


def compare_windows(a: tuple[object, ...], b: tuple[object, ...]) -> float:
    """How much of two windows is equal; where one layer has none, the other's is one tap."""
    equal = [x == y for x, y in zip(a or b, b or a, strict=True)]
    return float(np.mean(equal)) if equal else 1.0


def explain_pair(parts: Mapping[str, NDArray[np.float64]], is_same: bool, i: int, j: int) -> str:
    """Why two layers were paired, in words."""
    if is_same:
        return "the same place in graphs of the same structure"
    good = [name for name, part in parts.items() if part[i, j] >= 0.8]
    poor = [name for name, part in parts.items() if part[i, j] < 0.5]
    return f"alike in {', '.join(good) or 'kind'}" + (f"; unlike in {', '.join(poor)}" if poor else "")
