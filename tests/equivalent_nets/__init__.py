"""Small random models and donors that compute the same function, permuted and written otherwise; and a judge of merges.

`draw_pair` draws a base and a donor by a seed; the table `REWRITES` says what is done and what a merge may keep;
`judge_pair` merges the two and says whether the base comes back.
"""

from equivalent_nets.documents import pair_of_model
from equivalent_nets.families import FAMILIES
from equivalent_nets.judging import (
    BREAKS,
    KEPT_TOO_MUCH,
    LAMBDAS,
    REFUSED,
    RIGHT,
    VERDICTS,
    WRONG,
    Outcome,
    judge,
    judge_pair,
)
from equivalent_nets.pairs import GeneratorError, Pair, draw_pair
from equivalent_nets.rewrites import REWRITES, Rewrite

__all__ = [
    "BREAKS",
    "FAMILIES",
    "GeneratorError",
    "KEPT_TOO_MUCH",
    "judge",
    "judge_pair",
    "LAMBDAS",
    "Outcome",
    "Pair",
    "REFUSED",
    "REWRITES",
    "Rewrite",
    "RIGHT",
    "VERDICTS",
    "WRONG",
    "draw_pair",
    "pair_of_model",
]
