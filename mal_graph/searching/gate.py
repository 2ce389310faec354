"""How sure it is that a merge has a lower loss than the base: a paired test on samples that the search has not seen.

The best of many candidates flatters itself on what it was chosen by, and a few of the best on a few new samples still
do. So the samples are compared one by one, and the bound holds for all finalists at once.

Source: Student's paired t-test (Biometrika 1908), with Bonferroni's correction for the number of finalists. Chosen
before a bootstrap: at the few dozen samples that there may be it is no better, and it draws random numbers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mal_graph.searching.candidates import Trial

Vector = NDArray[np.float64]


def highest_rise(own: Trial, base: Trial, confidence: float, finalists: int) -> float:
    """By how much the loss rises at most above the base's, mean over the sets of data: below 0 where it surely falls.

    Args:
        own, base: scored on the same samples, with the loss of each.
        confidence: that no finalist of all is said to fall and does not.
        finalists: how many there are.
    """
    pairs = zip(own.figures, base.figures, strict=True)
    rises = [np.subtract(mine.each, theirs.each) for mine, theirs in pairs]
    level = 1 - (1 - confidence) / finalists
    return upper_bound(rises, level)


def upper_bound(sets: Sequence[Vector], level: float) -> float:
    """What the mean over several sets of their means is below, at a level of confidence."""
    mean = float(np.mean([values.mean() for values in sets]))
    variance = sum(values.var(ddof=1) / len(values) for values in sets) / len(sets) ** 2
    freedom = min(len(values) for values in sets) - 1
    return mean + float(stdtrit(freedom, level) * np.sqrt(variance))
