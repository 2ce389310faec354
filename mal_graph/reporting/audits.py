"""What an audit found, as JSON and as text."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import Field

from mal_graph.protocols import Check
from mal_graph.reporting.document import Document
from mal_graph.reporting.tables import Lines
from mal_graph.workflows import Audit

FIGURES = 16  # of a digest that a line shows


class AuditDocument(Document):
    """JSON of `mal-graph audit`; `checks` are of what the file is, and `made` is what it says of itself."""

    schema_: str = Field("mal-graph/audit/1", alias="schema")
    model: str
    passed: bool
    checks: list[Check]
    notes: list[str]
    tensors: dict[str, str]
    made: dict[str, Any] | None


def audit_document(audit: Audit) -> AuditDocument:
    """The report of an audit."""
    made = None if audit.provenance is None else asdict(audit.provenance)
    return AuditDocument(
        model=str(audit.path),
        passed=audit.passed,
        checks=list(audit.checks),
        notes=list(audit.notes),
        tensors=dict(audit.sealed.tensors),
        made=made,
    )


def audit_lines(document: AuditDocument, verbose: bool) -> Lines:
    """An audit as text, what was found last."""
    if document.made is not None:
        yield from made_lines(document.made, verbose)
    for place, sha256 in document.tensors.items() if verbose else ():
        yield f"{place}: {sha256}"
    for check in document.checks:
        yield f"check {check.name}: {check}{f': {check.detail}' if check.passed else ''}"
    for note in document.notes:
        yield f"note: {note}"


def made_lines(made: Mapping[str, Any], verbose: bool) -> Iterator[str]:
    """How a model says that it was made."""
    way = f", which took {made['way']}" if made["way"] else ""
    yield f"{document_title(made)}{way}, seed {made['seed']}"
    for place, source in enumerate(made["sources"]):
        digests = [text if verbose else text[:FIGURES] for text in source["files"]] or ["in memory"]
        yield f"{role_of(place, made['ancestor'])}: {' and '.join(digests)}"
    for place, first, stop in made["slices"]:
        yield f"blocks {first} to {stop - 1} of {role_of(place)}"
    for name, value in made["options"].items():
        yield f"option {name}: {value}"


def document_title(made: Mapping[str, Any]) -> str:
    return f"made by mal-graph {made['versions'].get('mal-graph', '?')}, {made['job']}"


def role_of(place: int, ancestor: int | None = None) -> str:
    if place and place == ancestor:
        return "ancestor"
    return "base" if place == 0 else f"donor {place}"
