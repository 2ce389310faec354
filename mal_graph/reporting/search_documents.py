"""The JSON report of `search`, and its tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Field
from rich.table import Table

from mal_graph.figure import Figure
from mal_graph.ladder import LadderEntry
from mal_graph.reporting.documents import MergeDocument, shared_entries
from mal_graph.reporting.tables import RESULT, new_table, numbers_table
from mal_graph.searching import Search, Trial

FEW = 12  # trials that are listed; the JSON has all of them


class FigureEntry(BaseModel):
    """Loss and metric on one set of data; `samples` how many of them were looked at, 0 for all."""

    loss: Figure
    metric: Figure
    samples: int = 0


class PartEntry(BaseModel):
    """One part of the data: how many samples each set has, and how the base and the result do there; no result where it
    is the base."""

    part: str
    samples: list[int]
    base: list[FigureEntry]
    result: list[FigureEntry] | None


class TrialEntry(BaseModel):
    """A candidate: for each donor its weights from the first layer to the last, where the base's is 1, and what was
    found of it on each set of data; `objectives` is what the front is of."""

    weights: dict[str, list[float]]
    figures: list[FigureEntry]
    objectives: list[Figure]
    is_on_front: bool
    failure: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it was scored, and by all samples."""
        return bool(self.figures) and not any(one.samples for one in self.figures)


class FinalistEntry(BaseModel):
    """One of the best, by its place among the trials, on samples that the search has not seen; `reason` why it is not
    the result."""

    place: int
    figures: list[FigureEntry]
    reason: str


class RefusedEntry(BaseModel):
    """Why a donor takes no part."""

    donor: str
    reason: str


class SearchDocument(MergeDocument):
    """JSON of `mal-graph search`; `scores` are of the reporting part of the first set of data, `options` are those of
    the search, and `config` those by which `assemble` makes the result; `weighs_size` whether the front is of the loss
    and of the share of the base that changes."""

    schema_: str = Field("mal-graph/search/1", alias="schema")
    search: str
    source: str
    options: dict[str, Any]
    donors: list[str]
    refused: list[RefusedEntry]
    untried: list[str]
    parts: list[PartEntry]
    trials: list[TrialEntry]
    finalists: list[FinalistEntry]
    study: str | None = None
    ladders: list[LadderEntry] = []
    weighs_size: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """What loss and metric are."""
        return (self.scores[0].loss_name, self.scores[0].metric_name) if self.scores else ("loss", "metric")

    @property
    def winner(self) -> FinalistEntry | None:
        """The candidate that the result is."""
        return next((one for one in self.finalists if not one.reason), None)


def search_document(search: Search) -> SearchDocument:
    """The report of a search."""
    front = set(search.front)
    return SearchDocument(
        **shared_entries(search.assembly),
        search=search.method.name,
        source=search.method.source,
        options=search.config.to_dict(),
        donors=list(search.donors),
        refused=[RefusedEntry(donor=donor, reason=why) for donor, why in search.refused.items()],
        untried=list(search.untried),
        parts=list(part_entries(search)),
        trials=[trial_entry(search, trial, place in front) for place, trial in enumerate(search.trials)],
        finalists=[
            FinalistEntry(place=one.place, figures=figure_entries(one.gate), reason=one.reason)
            for one in search.finalists
        ],
        weighs_size=search.method.weighs_size,
    )


def part_entries(search: Search) -> Iterator[PartEntry]:
    found = search.found
    for part, base in search.base.items():
        result = found.get(part)
        yield PartEntry(
            part=part,
            samples=[one[part] for one in search.samples],
            base=figure_entries(base),
            result=None if result is None else figure_entries(result),
        )


def trial_entry(search: Search, trial: Trial, is_on_front: bool) -> TrialEntry:
    return TrialEntry(
        weights={donor: list(row) for donor, row in trial.candidate.by_donor.items()},
        figures=figure_entries(trial),
        objectives=list(search.objectives(trial)),
        is_on_front=is_on_front,
        failure=trial.failure,
    )


def figure_entries(trial: Trial) -> list[FigureEntry]:
    return [FigureEntry(loss=one.loss, metric=one.metric, samples=one.samples) for one in trial.figures]


# --- tables -------------------------------------------------------------------------------------------------------


def part_table(document: SearchDocument) -> Table:
    """How base and result do on each part of each set of data: the first row flatters the result."""
    loss, metric = document.names
    table = numbers_table("part of the data", ("samples", f"base {loss}", "result", f"base {metric}", "result"))
    for entry in document.parts:
        for place, base in enumerate(entry.base):
            own = None if entry.result is None else entry.result[place]
            figures = [base.loss, None if own is None else own.loss, base.metric, None if own is None else own.metric]
            name = entry.part if len(entry.base) == 1 else f"{entry.part}, set {place + 1}"
            style = RESULT if entry is document.parts[-1] else None
            table.add_row(name, str(entry.samples[place]), *map(figure_text, figures), style=style)
    return table


def curse_line(document: SearchDocument) -> str:
    """How much of what the search gained is left on samples that it was not chosen by."""
    gains = [
        mean(one.loss for one in entry.base) - mean(one.loss for one in entry.result)
        for entry in document.parts
        if entry.result
    ]
    if not gains:
        return "nothing that was found is better than the base on samples that it was not chosen by"
    return (
        f"the loss falls by {gains[0]:.4f} on what was searched by, and by {gains[-1]:.4f} on the reported samples: "
        "what is chosen as the best of many flatters itself"
    )


def mean(values: Iterator[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def trial_table(document: SearchDocument, entries: Sequence[TrialEntry]) -> Table:
    """Candidates with their weights and figures."""
    sets = len(document.parts[0].base)
    loss, metric = document.names
    numbers = [loss, metric] if sets == 1 else [f"{name} {place}" for place in (1, 2) for name in (loss, metric)]
    table = new_table("candidate", *numbers, "front")
    for entry in entries:
        held = [value for one in entry.figures for value in (one.loss, one.metric)]
        figures: list[float | None] = [*held] or [None] * len(numbers)
        table.add_row(weights_text(entry), *map(figure_text, figures), "*" if entry.is_on_front else "")
    return table


def weights_text(entry: TrialEntry) -> str:
    """The weights of a candidate; one number where they are the same from the first layer to the last."""
    rows = (row[:1] if len(set(row)) == 1 else row for row in entry.weights.values())
    texts = (",".join(f"{weight:.3g}" for weight in row) for row in rows)
    return " + ".join(f"{text} {donor}" for text, donor in zip(texts, entry.weights, strict=True)) or "the base"


def front_of(document: SearchDocument) -> list[TrialEntry]:
    """The Pareto front, by its first objective."""
    return sorted((one for one in document.trials if one.is_on_front), key=lambda one: one.objectives[0])


def finalist_table(document: SearchDocument) -> Table:
    """The best on samples that the search has not seen."""
    loss, metric = document.names
    table = new_table("finalist", loss, metric, "")
    for one in document.finalists:
        own = one.figures
        means: list[float | None] = [mean(f.loss for f in own), mean(f.metric for f in own)] if own else [None, None]
        style = None if one.reason else RESULT
        told = one.reason or "the result"
        table.add_row(weights_text(document.trials[one.place]), *map(figure_text, means), told, style=style)
    return table


def taken_lines(document: SearchDocument) -> Iterator[str]:
    """What was searched by what, and what took no part."""
    failed = [trial for trial in document.trials if trial.failure]
    some = sum(bool(trial.figures) and not trial.is_whole for trial in document.trials)
    yield (
        f"{len(document.trials)} candidates of {len(document.donors)} donors were scored by {document.search} "
        f"({document.source}){f', of which {len(failed)} failed' if failed else ''}"
    )
    if some:
        yield f"{some} of them were scored by some of the samples alone, and cannot be the result"
    for refused in document.refused:
        yield f"{refused.donor} takes no part: {refused.reason}"
    for trial in failed[:FEW]:
        yield f"{weights_text(trial)} failed: {trial.failure}"
    if document.untried:
        names = ", ".join(document.untried[:FEW])
        more = f" and {len(document.untried) - FEW} more" if len(document.untried) > FEW else ""
        yield f"no candidate holds {names}{more}: give more `trials` to try all"


def figure_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
