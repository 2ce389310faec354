"""Two models side by side: their layers' partners, and as far as that is asked for, axis groups and units."""

from dataclasses import dataclass

from mal_graph.brief import Brief
from mal_graph.config import MergeConfig
from mal_graph.graph import LayerGraph
from mal_graph.matching import Alignment, Match, listed_alike, match_layers
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups
from mal_graph.workflows.assembly import align
from mal_graph.workflows.inspecting import inspect_groups
from mal_graph.workflows.models import Progress


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """Two models and what of them corresponds to each other.

    Attributes:
        base, donor: the models.
        match: their layers' partners.
        groups, donor_groups: their axis groups; None where these were not looked for.
        alignment: their units, assigned; None where that was not asked for.
        warnings: what could not be found, and why.
    """

    base: LayerGraph
    donor: LayerGraph
    match: Match
    groups: AxisGroups | None = None
    donor_groups: AxisGroups | None = None
    alignment: Alignment | None = None
    warnings: tuple[str, ...] = ()


def compare_models(
    base: LayerGraph,
    donor: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    *,
    has_groups: bool = False,
    is_aligned: bool = False,
) -> Comparison:
    """Match the layers of two models.

    Args:
        has_groups: find their axis groups too, without verifying them unless they are aligned.
        is_aligned: verify these, and assign the donor's units to the base's.
    """
    match = match_layers(base, listed_alike(base, donor, config.pair), config.matches)
    if not (has_groups or is_aligned):
        return Comparison(base, donor, match)
    settings = config if is_aligned else config.model_copy(update={"verify": False})
    (groups, first), (donor_groups, second) = (inspect_groups(graph, settings, progress) for graph in (base, donor))
    alignment = None
    if is_aligned:
        alignment = align(base, donor, match, groups, donor_groups, runner=runner)
    warnings = tuple(f"{graph.name}: {why}" for graph, why in ((base, first), (donor, second)) if why)
    return Comparison(base, donor, match, groups, donor_groups, alignment, warnings)
