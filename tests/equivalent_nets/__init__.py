"""Small random models and donors that compute the same function, permuted and written otherwise; and a judge of merges.

`draw_pair` draws a base and a donor by a seed; the table `REWRITES` says what is done and what a merge may keep;
`judge_pair` merges the two and says whether the base comes back.
"""

from equivalent_nets.families import FAMILIES
from equivalent_nets.judging import LAMBDAS, RIGHT, VERDICTS, WRONG, Outcome, judge, judge_pair
from equivalent_nets.pairs import GeneratorError, Pair, draw_pair
from equivalent_nets.rewrites import REWRITES, Rewrite

__all__ = [
    "FAMILIES",
    "GeneratorError",
    "judge",
    "judge_pair",
    "LAMBDAS",
    "Outcome",
    "Pair",
    "REWRITES",
    "Rewrite",
    "RIGHT",
    "VERDICTS",
    "WRONG",
    "draw_pair",
]
