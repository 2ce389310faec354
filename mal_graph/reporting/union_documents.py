"""The JSON report of models that were thinned, one alone or several as one, and its text."""

from collections.abc import Iterator

from pydantic import BaseModel, Field
from rich.table import Table

from mal_graph.compression import Scoring
from mal_graph.figure import Figure
from mal_graph.ladder import LadderEntry
from mal_graph.reporting.documents import ResultDocument, SignaturesEntry, signatures_entry
from mal_graph.reporting.tables import new_table
from mal_graph.workflows import Branch, KeptUnits, Union

SHOWN = 6  # sets of units in a line


class BranchEntry(BaseModel):
    """One model of the result; `multiplications` before and after, `error` against what it was."""

    model: str
    share: float
    multiplications: tuple[int, int]
    error: Figure
    units: list[KeptUnits]


class GuardEntry(BaseModel):
    """How far the result is from the ensemble, as a share of how far the base is, on inputs nothing was fitted on."""

    error: Figure
    limit: float
    accepted: bool
    inputs: str


class ClassesEntry(BaseModel):
    """What scores say of which class: the place of a name in the list is the number of its class.

    `scores` is the averaged tensor, `models` has for each model the place of each class in its own scores, -1 where it
    does not know the class, and `joined` says what the scores are beside each other.
    """

    scores: str
    names: list[str]
    models: list[list[int]]
    joined: Scoring


class UnionDocument(ResultDocument):
    """JSON of `mal-graph assemble --method union` and of `mal-graph compress`; costs are multiplications of one run."""

    schema_: str = Field("mal-graph/union/3", alias="schema")
    donors: list[str]
    signatures: list[SignaturesEntry]
    branches: list[BranchEntry]
    cost: int
    base_cost: int
    full_cost: int
    guard: GuardEntry
    classes: list[ClassesEntry] = []
    ladders: list[LadderEntry] = []


def union_document(union: Union) -> UnionDocument:
    """The report of thinned models."""
    return UnionDocument(
        base=union.base.name,
        config=union.config.to_dict(),
        checks=list(union.checks),
        warnings=list(union.meanings),
        notes=list(union.notes),
        choice=union.choice,
        pareto=list(union.pareto),
        speeds=union.speeds,
        scores=list(union.scores),
        verdict=union.verdict,
        donors=[donor.name for donor in union.donors],
        signatures=[
            signatures_entry(union.base, donor, paired)
            for donor, paired in zip(union.donors, union.signatures, strict=True)
        ],
        branches=[branch_entry(branch) for branch in union.branches],
        cost=union.cost,
        base_cost=union.base_cost,
        full_cost=union.full_cost,
        guard=GuardEntry(
            error=union.guard.error,
            limit=union.guard.limit,
            accepted=union.guard.accepts,
            inputs=union.guard.inputs,
        ),
        classes=[
            ClassesEntry(scores=name, names=list(one.names), models=list(map(list, one.places)), joined=one.scoring)
            for name, one in union.classes.items()
        ],
    )


def branch_entry(branch: Branch) -> BranchEntry:
    return BranchEntry(
        model=branch.name,
        share=branch.share,
        multiplications=(branch.before, branch.cost),
        error=branch.error,
        units=list(branch.sets),
    )


def branch_table(document: UnionDocument) -> Table:
    """One row for each model."""
    table = new_table("model", "share", "multiplications", "of", "units", "of", "error")
    for branch in document.branches:
        before, after = branch.multiplications
        kept, units = (sum(getattr(one, name) for one in branch.units) for name in ("kept", "units"))
        table.add_row(
            branch.model,
            f"{branch.share:.2f}",
            f"{after:,}",
            f"{before:,}",
            f"{kept:,}",
            f"{units:,}",
            f"{branch.error:.3f}",
        )
    return table


def unit_lines(document: UnionDocument, verbose: bool) -> Iterator[str]:
    """How many units stay where, and why all do."""
    for branch in document.branches:
        for one in branch.units if verbose else ():
            why = f" ({one.reason})" if one.reason else ""
            yield f"{branch.model}: {one.name} keeps {one.kept:,} of {one.units:,} units{why}"
        whole = [one for one in branch.units if one.reason]
        if whole and not verbose:
            reasons = list(dict.fromkeys(one.reason for one in whole))
            named = "; ".join(reasons[:2]) + ("; ..." if len(reasons) > 2 else "")
            yield f"{branch.model}: {len(whole)} of {len(branch.units)} sets of units have to stay: {named}"


def class_lines(document: UnionDocument, verbose: bool) -> Iterator[str]:
    """Which classes the result has where models have others."""
    models = [branch.model for branch in document.branches]
    for entry in document.classes:
        if all(len(places) == len(entry.names) and -1 not in places for places in entry.models) and not verbose:
            continue
        shown = entry.names if verbose else entry.names[:SHOWN]
        named = ", ".join(f"{number} {name}" for number, name in enumerate(shown))
        more = "" if len(shown) == len(entry.names) else ", ... (-v lists them)"
        known = ", ".join(
            f"{model} knows {sum(place >= 0 for place in places)}"
            for model, places in zip(models, entry.models, strict=True)
        )
        yield f"{len(entry.names)} classes, joined as {entry.joined}; {known}: {named}{more}"


def cost_lines(document: UnionDocument) -> Iterator[str]:
    """What the result costs, and whether it does what it should."""
    times = (
        f"{document.cost:,} multiplications, {document.cost / document.base_cost:.2f} times those of {document.base}"
    )
    whole = document.full_cost / document.base_cost
    yield f"{times}; all models whole take {whole:.2f} times" if document.donors else times
    guard = document.guard
    what = "of the base's own distance to the ensemble" if document.donors else "of how much they vary"
    verb = "accepted" if guard.accepted else "not accepted"
    yield (
        f"guard: the outputs are off by {guard.error:.2f} {what}, on {guard.inputs}: {verb}, up to {guard.limit:g} is"
    )
