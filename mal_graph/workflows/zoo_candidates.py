"""What may be merged of one donor, and which of it is best: by figures on the deciding data, or by structure alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from mal_graph.brief import Brief
from mal_graph.config import ZooConfig
from mal_graph.evaluation import AcceptanceRule, HeldOut, Scores
from mal_graph.protocols import Runner
from mal_graph.workflows.checkpoint import Kept, Point, Tried
from mal_graph.workflows.lambda_lines import line_of, scored_along
from mal_graph.workflows.models import Progress
from mal_graph.workflows.steps import Merged, narrowed
from mal_graph.workflows.zoo_donors import Entry

PREFIXES = (0.25, 0.5, 0.75)  # of the depth
SINGLES = 4


@dataclass(frozen=True)
class Candidate:
    """Layers of a donor that are merged together, by their names in the base."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Terms(Brief):
    """What a search goes by: `held` and `gate` are None where there are no data."""

    config: ZooConfig
    lambdas: tuple[float, ...]
    held: HeldOut | None
    gate: AcceptanceRule | None
    runner: Runner
    progress: Progress

    @property
    def basis(self) -> str:
        """What decides."""
        if self.held is None:
            return "structure alone: nothing was scored, so nothing is known of the quality of the result"
        if not self.held.is_labelled:
            return "agreement with the base's own classes and entropy: there are no labels, so no accuracy is known"
        return "labels"


def candidates(step: Merged) -> list[Candidate]:
    """What may be merged of a donor: all of its layers, the first quarter, half and three quarters of the depth, and
    single layers, those first that are most like the base's; no two the same. Fewer layers keep more of the base, and
    what a donor can give lies in its first layers (guidelines of the paper)."""
    whole = step.ungrown
    pairs = sorted(whole.merged_pairs, key=lambda pair: pair.base.depth)
    depths = sorted({pair.base.depth for pair in pairs})
    proposed = [Candidate("all layers", tuple(pair.base.name for pair in pairs))]
    for share in PREFIXES:
        last = depths[ceil(share * len(depths)) - 1]
        layers = tuple(pair.base.name for pair in pairs if pair.base.depth <= last)
        proposed.append(Candidate(f"the first {len(layers)} of {len(pairs)} layers", layers))
    for pair in sorted(pairs, key=lambda pair: -pair.score)[:SINGLES]:
        proposed.append(Candidate(f"layer {pair.base.name}", (pair.base.name,)))
    first: dict[frozenset[str], Candidate] = {}
    for one in proposed:
        first.setdefault(frozenset(one.layers), one)
    return list(first.values())


def scored_candidates(step: Merged, entry: Entry, terms: Terms) -> Iterator[Tried]:
    """Every candidate at every lambda, on the deciding part."""
    assert terms.held is not None  # told by the gate
    proposed = candidates(step)
    for place, candidate in enumerate(proposed):
        terms.progress(f"trying {entry.name}", place, len(proposed))
        yield Tried(candidate.name, candidate.layers, points_of(candidate, step, entry.name, terms, terms.held))
    terms.progress(f"trying {entry.name}", len(proposed), len(proposed))


def points_of(candidate: Candidate, step: Merged, donor: str, terms: Terms, held: HeldOut) -> tuple[Point, ...]:
    """One candidate of a donor at every lambda. What it is made of is let go of before the next one is."""
    planned = narrowed(step, candidate.layers, 1.0, terms.config, terms.runner).plan
    line = line_of(planned, step.donor, terms.config, terms.runner)
    along = scored_along(line, terms.lambdas, donor, held.deciding, terms.config, terms.runner, held.metric)
    return tuple(Point(lam, one.loss, one.metric) for lam, one in zip(terms.lambdas, along, strict=True))


def best_candidate(tried: Sequence[Tried], gate: AcceptanceRule, best: Scores) -> Kept | str:
    """The candidate and lambda with the lowest loss of all that pass, the first of equals; or why there is none."""
    passing = [(one, p) for one in tried for p in one.points if gate.passes(p) and np.isfinite(p.loss)]
    if not passing:
        return (
            f"none of {len(tried)} candidates keeps the {best.metric_name} at the base's {gate.base.metric:.4f}"
            f"{f' less {gate.eps:g}' if gate.eps else ''}"
        )
    one, point = min(passing, key=lambda passed: passed[1].loss)
    if not gate.prefers(point, best):
        return (
            f"no candidate is better than the model so far: {one.name} at lambda {point.lam:g} comes closest with "
            f"{figures(point.loss, point.metric, best)}"
        )
    return Kept(one.name, one.layers, point.lam)


def figures(loss: float, metric: float, best: Scores) -> str:
    return (
        f"{best.loss_name} {loss:.4f} against {best.loss:.4f} and {best.metric_name} {metric:.4f} against "
        f"{best.metric:.4f}"
    )


def alike(step: Merged, terms: Terms) -> Kept | str:
    """The layers that are like the base's as far as is asked for, at the smallest lambda; or why none are."""
    pairs = step.ungrown.merged_pairs
    layers = tuple(pair.base.name for pair in pairs if pair.score >= terms.config.min_score)
    if not layers:
        closest = max(pair.score for pair in pairs)
        least = terms.config.min_score
        return f"no layer is enough like the base's: the closest scores {closest:.2f}, asked for is {least:g}"
    return Kept(f"{len(layers)} of {len(pairs)} layers", layers, terms.lambdas[0])
