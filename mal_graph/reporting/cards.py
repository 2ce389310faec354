"""The card of a model that was made of others: sources, licences, method, scores beside controls, limits."""

from collections.abc import Iterable, Iterator, Mapping

from mal_graph.errors import FileError
from mal_graph.evaluation import Scores
from mal_graph.graph import LayerGraph, Value
from mal_graph.reporting.audits import role_of
from mal_graph.reporting.documents import ResultDocument
from mal_graph.reporting.inspection_text import shape_text
from mal_graph.reporting.pieces import Bullets, Headline, Page, Piece, Section
from mal_graph.reporting.tables import new_table
from mal_graph.reporting.text import score_table
from mal_graph.workflows import Audit, Provenance, Source

UNSTATED = "its file states none"
LIMITS = (
    "The digests show that the file is as it was written. They do not show who wrote it: only the inputs do, with "
    "`mal-graph audit FILE --from BASE DONOR ...`.",
    "A model made of others does what they do, with their faults: read the cards of the sources too.",
    "Scores hold for the data that they were measured on, and for no other.",
    "What the sources state of licences is repeated here, and not judged: all of them bear on the result.",
)


def card_page(audit: Audit, graph: LayerGraph, sha256: Mapping[str, str], report: ResultDocument | None) -> Page:
    """The card of a model that is as it was written.

    Args:
        graph: the model.
        sha256: of its files, by name.
        report: of how it was made, whose scores the card shows.

    Raises:
        FileError: the model is not as it was written, or the report is of another one.
    """
    made = audit.provenance
    if made is None or not audit.passed:
        failed = "; ".join(f"{check.name} {check}" for check in audit.checks if check.failed)
        raise FileError(f"{audit.path} has no card: {failed}; take the file that mal-graph wrote")
    if report is not None and not set(sha256.values()) & set(report.written.values()):
        raise FileError(
            f"the report is not of {audit.path}: it names no file of this digest; give the report of its run"
        )
    about = f"Made of {len(made.sources)} model{'s' * (len(made.sources) > 1)} by mal_graph, without training."
    verdict = "" if report is None or report.verdict is None else str(report.verdict)
    headline = Headline(verdict or "Nothing is said here of how good it is: no report with scores was given.")
    sections = (
        Section("The file", tuple(file_pieces(graph, sha256))),
        Section("Sources and licences", tuple(source_pieces(made, graph))),
        Section("Method", tuple(method_pieces(made))),
        Section("Scores", tuple(score_pieces(report))),
        Section("Limits", (Bullets(tuple([*LIMITS, *limits_of(report)])),)),
    )
    return Page(f"Model card: {audit.path.name}", about, headline, sections, (), ())


def limits_of(report: ResultDocument | None) -> list[str]:
    """What a report warns of and notes."""
    return [] if report is None else [*map(str, report.warnings), *report.notes]


def file_pieces(graph: LayerGraph, sha256: Mapping[str, str]) -> Iterator[Piece]:
    """What the file holds."""
    size = sum(weight.size for weight in graph.weights.values() if weight.is_float)
    yield f"{len(graph.nodes):,} operators, {size:,} float parameters."
    files = new_table("file", "SHA-256")
    for name, digest in sha256.items():
        files.add_row(name, digest)
    yield files
    signature = new_table("", "name", "type", "shape")
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            signature.add_row(what, *value_cells(value))
    yield signature


def value_cells(value: Value) -> tuple[str, str, str]:
    return value.name, value.dtype or "?", shape_text(value.shape)


def source_pieces(made: Provenance, graph: LayerGraph) -> Iterator[Piece]:
    """What the model was made of, and what these files state of themselves."""
    table = new_table("", "SHA-256 of the file and its data", "licence", "said of itself")
    for role, source in sources_of(made.sources, ancestor=made.ancestor):
        licence = [text for key, text in source.notes.items() if is_licence(key)]
        said = [f"{key}: {text}" for key, text in source.notes.items() if not is_licence(key)]
        table.add_row(
            role, ", ".join(source.files) or "in memory", ", ".join(licence) or UNSTATED, "; ".join(said) or "-"
        )
    yield table
    own = [f"{key}: {text}" for key, text in graph.metadata.items() if is_licence(key)]
    yield (
        f"The file itself states, as its base does, {'; '.join(own)}." if own else "The file itself states no licence."
    )


def sources_of(
    sources: Iterable[Source], before: str = "", ancestor: int | None = None
) -> Iterator[tuple[str, Source]]:
    """All sources with their roles; those of a source follow it."""
    for place, source in enumerate(sources):
        role = f"{before}{role_of(place, ancestor)}"
        yield role, source
        yield from sources_of(source.sources, f"{role}, its ")


def is_licence(key: str) -> bool:
    return "licen" in key.lower()


def method_pieces(made: Provenance) -> Iterator[Piece]:
    """How the model was made."""
    way = f", which took: {made.way}" if made.way else ""
    yield f"Job {made.job}{way}. Seed {made.seed}. Every option that is not listed had its default."
    rows = new_table("option", "setting")
    for name, value in made.options.items():
        rows.add_row(name, str(value))
    for name, digest in made.arrays.items():
        rows.add_row(f"{name} (arrays)", digest)
    if rows.row_count:
        yield rows
    for place, first, stop in made.slices:
        yield f"Blocks {first} to {stop - 1} of {role_of(place)}."
    versions = new_table("made with", "version")
    for name, version in made.versions.items():
        versions.add_row(name, version)
    yield versions


def score_pieces(report: ResultDocument | None) -> Iterator[Piece]:
    """The scores of a report, with the controls that stand in it."""
    scores: list[Scores] = [] if report is None else report.scores
    if not scores:
        yield "None: `mal-graph card` takes them from a report of a run with `--data` (`--report`)."
        return
    yield f"On {scores[0].samples} samples; loss is {scores[0].loss_name}."
    yield score_table(scores, "model")
