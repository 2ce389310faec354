"""The pictures of a result: for every donor its layers beside those of the base, and what became of them."""

from typing import Any

from mal_graph.errors import MalGraphError
from mal_graph.graph import LayerGraph
from mal_graph.ladder import LadderEntry, Role, ladder_of
from mal_graph.matching import listed_alike, match_layers
from mal_graph.reporting.documents import kept_reasons, merged_entries
from mal_graph.searching import Search
from mal_graph.workflows import Assembly, Merged, Sweep, Union, Zoo


def ladders_of(result: Any) -> list[LadderEntry]:
    """One picture for each donor, in order; none where nothing is matched."""
    match result:
        case Assembly():
            return [ladder_of_step(step) for step in result.merged]
        case Zoo() | Search():
            return [ladder_of_step(step) for step in result.assembly.merged]
        case Sweep():
            return [ladder_of_step(result.step)]
        case Union():
            return ladders_of_union(result)
    return []


def ladder_of_step(step: Merged) -> LadderEntry:
    """The layers of the base as it was laid out for the merge and of the donor, with their units as they were assigned,
    and what was merged and kept."""
    plan = step.plan
    mine, theirs = plan.alignment.correspondence.base, plan.alignment.correspondence.donor
    ladder = ladder_of(mine.graph, theirs.graph, plan.match, mine.groups, theirs.groups, plan.alignment)
    merged = {entry.base: entry for entry in merged_entries(step)}
    for rung in ladder.rungs:
        entry = merged.get(ladder.base.places[rung.base].name)
        if entry is not None and rung.units is not None:
            rung.units.lam, rung.units.matched = entry.lam, entry.matched
    kept = kept_reasons(step)
    kept |= {name: "; ".join((*entry.dropped, *entry.missing)) for name, entry in merged.items()}
    for place in ladder.base.places:
        if place.role is Role.LAYER:
            place.note = kept.get(place.name, "") or place.note
    return ladder


def ladders_of_union(union: Union) -> list[LadderEntry]:
    """The layers of models that stand side by side, paired as `match` does it, where that is possible."""
    ladders = []
    for donor in union.donors:
        try:
            ladders.append(matched_ladder(union, donor))
        except MalGraphError:  # nothing of such models has to correspond to anything
            continue
    return ladders


def matched_ladder(union: Union, donor: LayerGraph) -> LadderEntry:
    """Two models and the pairs of their layers. Raises MatchError."""
    match = match_layers(union.base, listed_alike(union.base, donor, union.config.pair), union.config.matches)
    return ladder_of(union.base, donor, match)
