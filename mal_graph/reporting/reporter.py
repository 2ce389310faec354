"""Which document and which text belong to which result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mal_graph.errors import UsageError
from mal_graph.reporting import documents, sweep_documents, text, union_documents
from mal_graph.reporting.document import Document
from mal_graph.reporting.documents import ResultDocument
from mal_graph.workflows import Assembly, Grid, Sweep, Union, Written, Zoo

DOCUMENTS: dict[type, Any] = {
    Assembly: documents.assemble_document,
    Sweep: sweep_documents.sweep_document,
    Grid: sweep_documents.grid_document,
    Zoo: documents.zoo_document,
    Union: union_documents.union_document,
}


class DefaultReporter:
    """Reports of this package."""

    def summary(self, result: Any, *, verbose: bool = False) -> str:
        return text.text_of(document_of(result), verbose=verbose)

    def to_dict(self, result: Any) -> dict[str, Any]:
        return document_of(result).to_dict()


def document_of(result: Any) -> Document:
    """The document of a result. Raises UsageError for what is none."""
    if type(result) not in DOCUMENTS:
        raise UsageError(
            f"a {type(result).__name__} cannot be reported: give the result of assemble, compress, sweep, grid or zoo"
        )
    document: Document = DOCUMENTS[type(result)](result)
    return document


def result_document(result: Written, output: Path | None, hashes: Mapping[str, str]) -> ResultDocument:
    """The report of a model that was made; `output` is where it was written, `hashes` are of the files read."""
    document: ResultDocument = DOCUMENTS[type(result)](result, output, hashes)
    return document
