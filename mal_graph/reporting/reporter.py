"""Which document, text and page belong to which result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.graph import LayerGraph
from mal_graph.ladder import LadderEntry, draw_ladder, ladder_of, model_entry, svg_text
from mal_graph.matching import Match
from mal_graph.reporting import documents, search_documents, sweep_documents, text, union_documents
from mal_graph.reporting.cards import card_page
from mal_graph.reporting.charts import draw_curve
from mal_graph.reporting.documents import ResultDocument
from mal_graph.reporting.html import html_fragment, html_page
from mal_graph.reporting.ladders import ladders_of
from mal_graph.reporting.markdown import markdown_page
from mal_graph.reporting.pages import page_of
from mal_graph.reporting.pieces import Page
from mal_graph.reporting.reading import Report, read_report
from mal_graph.searching import Search
from mal_graph.workflows import Assembly, Audit, Curve, Grid, Sweep, Union, Zoo

DOCUMENTS: dict[type, Callable[[Any], Report]] = {
    Assembly: documents.assemble_document,
    Sweep: sweep_documents.sweep_document,
    Grid: sweep_documents.grid_document,
    Zoo: documents.zoo_document,
    Union: union_documents.union_document,
    Search: search_documents.search_document,
}
FORMS: dict[str, Callable[[Page], str]] = {"html": html_page, "md": markdown_page}
KINDS = ("json", *FORMS)  # of a report, as its file's name ends


class DefaultReporter:
    """Reports of this package."""

    def summary(self, result: Any, *, verbose: bool = False) -> str:
        return text.text_of(document_of(result), verbose=verbose)

    def to_dict(self, result: Any) -> dict[str, Any]:
        return result_document(result).to_dict()

    def html(self, result: Any) -> str:
        return html_fragment(page_of(result_document(result)))

    def svg(self, shown: LayerGraph | Match | Curve) -> str:
        return svg_text(draw_curve(shown) if isinstance(shown, Curve) else draw_ladder(ladder_shown(shown)))

    def report(self, result: Any, kind: str) -> str:
        return report_text(result_document(result), kind)


def ladder_shown(shown: LayerGraph | Match) -> LadderEntry:
    """The ladder of one network, or of two whose layers are matched. Raises UsageError."""
    if isinstance(shown, LayerGraph):
        return LadderEntry(base=model_entry(shown))
    if shown.graphs is None:
        raise UsageError("the base of this match was rewritten since: match the layers of the two models again")
    return ladder_of(*shown.graphs, shown)


def document_of(result: Any) -> Report:
    """The document of a result, without pictures. Raises UsageError for what is none."""
    if type(result) not in DOCUMENTS:
        raise UsageError(
            f"a {type(result).__name__} cannot be reported: give the result of assemble, compress, sweep, grid, zoo or "
            "search"
        )
    return DOCUMENTS[type(result)](result)


def result_document(
    result: Any,
    *,
    command: Sequence[str] = (),
    hashes: Mapping[str, str] | None = None,
    has_pictures: bool = True,
    **written: Any,
) -> Report:
    """The whole report of a result.

    Args:
        command: the words that were given on a command line.
        hashes: of the files that were read, by path.
        has_pictures: whether layers and units are compared for pictures, which reads all weights once more; a text
            shows none.
        written: where the model (`output`), the decisions of a zoo (`checkpoint`) and the `study` of a search are, as
            far as they are kept, and the digests of what was written (`written`).
    """
    added: dict[str, Any] = {
        "command": list(command),
        "versions": registry.versions(),
        "sha256": dict(hashes or {}),
        "ladders": ladders_of(result) if has_pictures else [],
    }
    return document_of(result).model_copy(update={**added, **written})


def report_text(document: Report, kind: str) -> str:
    """What a file of a report holds. Raises UsageError for a kind that there is not."""
    if kind not in KINDS:
        raise UsageError(f"a report is not written as {kind!r}: choose one of {', '.join(KINDS)}")
    return document.json_text() + "\n" if kind == "json" else rendered(document.json_text(), kind)


def card_text(audit: Audit, graph: LayerGraph, sha256: Mapping[str, str], report: ResultDocument | None) -> str:
    """The card of a model in Markdown (see `card_page`). Raises FileError."""
    return markdown_page(card_page(audit, graph, sha256, report))


def rendered(json_text: str, kind: str, source: str = "the report") -> str:
    """A report in another form, made from its JSON alone. Raises FileError where it is none."""
    return FORMS[kind](page_of(read_report(json_text, source)))
