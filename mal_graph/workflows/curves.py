"""One way to merge, scored along lambda."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.evaluation import Scores

ALIGNED, PLAIN, SHUFFLED, STRANGER = "aligned", "plain average", "random permutation", "random donor"
ALONE = "base, repaired"


@dataclass(frozen=True, repr=False)
class Curve(Brief):
    """One arm along lambda.

    Attributes:
        arm: "aligned" or the control.
        points: the scores at every lambda; the first is the base.
        lam_star: the largest lambda up to which the loss is never more than eps above the base's.
        rise: the largest loss above the base's.
        barrier: the largest loss above the mean of both ends, where lambda 1 is the donor (repaired, if that is done);
            else None.
        lambdas: of the points.
    """

    arm: str
    points: tuple[Scores, ...]
    lam_star: float
    rise: float
    barrier: float | None
    lambdas: tuple[float, ...] = ()

    def _repr_svg_(self) -> str:
        """What a notebook shows: the loss along lambda."""
        return registry.reporter().svg(self)


def curve(arm: str, lambdas: Sequence[float], points: tuple[Scores, ...], eps: float, ends_at_donor: bool) -> Curve:
    """Lambda* and barriers of one arm: Delta(lam) = L(lam) - L(0); a loss that is nan counts as infinite.

    Source of the standard barrier: Ainsworth et al. 2023 (arXiv:2209.04836), Definition 2.2.
    """
    losses = np.array([np.inf if np.isnan(point.loss) else point.loss for point in points])
    too_much = np.flatnonzero(losses - losses[0] > eps)
    last = int(too_much[0]) - 1 if too_much.size else len(losses) - 1
    barrier = float(losses.max() - (losses[0] + losses[-1]) / 2) if ends_at_donor and lambdas[-1] == 1.0 else None
    return Curve(arm, points, lambdas[last], float(losses.max() - losses[0]), barrier, tuple(lambdas))
