"""Lambda, the merging factor of every layer: W <- (1 - lambda) W + lambda B, so 0 is the base and 1 the donor.

One number for all layers, or several over the depth of the base with straight lines between; and, for the layers that a
selector selects, a number of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.merging.selectors import select_layers
from mal_graph.network import Layer

DEFAULT = 0.3


@dataclass(frozen=True)
class LayerLambdas:
    """The merging factor of every layer of a base.

    Attributes:
        over_depth: one factor for all layers, or several from the first layer to the last.
        by_selector: selectors (see `selectors`), each with the factor of the layers it selects; the last one holds.

    Raises:
        UsageError: there is none, or one lies outside [0, 1].
    """

    over_depth: tuple[float, ...] = (DEFAULT,)
    by_selector: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.over_depth:
            raise UsageError("no lambda given: give a merging factor from 0 (the base) to 1 (the donor)")
        for lam in (*self.over_depth, *(lam for _, lam in self.by_selector)):
            if not 0.0 <= lam <= 1.0:
                raise UsageError(f"lambda is {lam}: give a merging factor from 0 (the base) to 1 (the donor)")

    @classmethod
    def of(cls, lam: float | Sequence[float], lam_for: Mapping[str, float] | None = None) -> "LayerLambdas":
        """From the two options of a merge.

        Args:
            lam: one factor, or several over the depth.
            lam_for: the factor of what selectors select.

        Raises:
            UsageError: there is none, or a factor lies outside [0, 1].
        """
        over_depth = lam if isinstance(lam, Sequence) else (lam,)
        return cls(tuple(map(float, over_depth)), tuple((lam_for or {}).items()))

    @property
    def mean(self) -> float:
        """Over the depth, selectors left aside."""
        return sum(self.over_depth) / len(self.over_depth)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers have the same."""
        return len(self.over_depth) == 1 and not self.by_selector

    def of_layers(self, layers: Sequence[Layer]) -> dict[str, float]:
        """The factor of each layer, by name.

        Raises:
            UsageError: there are more factors than layers to give them to, or a selector selects nothing.
        """
        if len(self.over_depth) > max(1, len(layers)):
            raise UsageError(
                f"{len(self.over_depth)} lambdas are given for {len(layers)} layers: give one, or a few that are "
                "spread over the depth of the base"
            )
        deepest = max((layer.depth for layer in layers), default=0) or 1
        at = np.linspace(0, 1, len(self.over_depth))
        lambdas = {layer.name: float(np.interp(layer.depth / deepest, at, self.over_depth)) for layer in layers}
        for selector, lam in self.by_selector:
            lambdas |= dict.fromkeys(select_layers(layers, selector), lam)
        return lambdas
