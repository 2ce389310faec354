"""A network of slices, as JSON and as text."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from mal_graph import registry
from mal_graph.evaluation import Scores
from mal_graph.protocols import Check
from mal_graph.reporting.document import ReportDocument
from mal_graph.reporting.tables import Lines, new_table
from mal_graph.workflows import Stacked


class SliceEntry(BaseModel):
    """Blocks of a model, from the first on up to and without `stop`, of so many."""

    model: str
    first: int
    stop: int
    of: int


class StackDocument(ReportDocument):
    """JSON of `mal-graph merge` with slices."""

    schema_: str = Field("mal-graph/stack/1", alias="schema")
    slices: list[SliceEntry]
    blocks: int
    parameters: int
    checks: list[Check]
    scores: list[Scores]
    output: str | None


def stack_document(
    result: Stacked, *, command: Sequence[str] = (), hashes: Mapping[str, str] | None = None, output: str | None = None
) -> StackDocument:
    """What was stacked; `output` is where it was written."""
    slices = [
        SliceEntry(model=chain.graph.name, first=one.first, stop=one.stop, of=len(chain))
        for one, chain in zip(result.slices, result.chains, strict=True)
    ]
    return StackDocument(
        slices=slices,
        blocks=result.blocks,
        parameters=sum(weight.size for weight in result.graph.weights.values() if weight.is_float),
        checks=list(result.checks),
        scores=list(result.scores),
        output=output,
        command=list(command),
        versions=registry.versions(),
        sha256=dict(hashes or {}),
    )


def slice_lines(document: StackDocument) -> Lines:
    """What was taken of which model."""
    table = new_table("model", "blocks", "of")
    for one in document.slices:
        table.add_row(one.model, f"{one.first} to {one.stop - 1}", str(one.of))
    yield table
    yield f"{document.blocks} blocks, {document.parameters:,} float parameters"
