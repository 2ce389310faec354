"""Reports read back from their JSON, and the published form of every JSON document."""

import json
from typing import Any, TypeAlias, get_args

from pydantic import ValidationError

from mal_graph.errors import FileError, UsageError
from mal_graph.reporting.audits import AuditDocument
from mal_graph.reporting.document import Document
from mal_graph.reporting.documents import AssembleDocument, EvaluateDocument, MatchDocument, ZooDocument
from mal_graph.reporting.inspection import InspectDocument
from mal_graph.reporting.method_lists import MethodsDocument
from mal_graph.reporting.search_documents import SearchDocument
from mal_graph.reporting.stacks import StackDocument
from mal_graph.reporting.sweep_documents import GridDocument, SweepDocument
from mal_graph.reporting.union_documents import UnionDocument

Report: TypeAlias = (
    AssembleDocument
    | UnionDocument
    | ZooDocument
    | SearchDocument
    | SweepDocument
    | GridDocument
    | MatchDocument
    | InspectDocument
    | StackDocument
)
REPORTS: tuple[type[Report], ...] = get_args(Report)
OTHERS: tuple[type[Document], ...] = (EvaluateDocument, AuditDocument, MethodsDocument)
AGAIN = "make the report again with this version"


def form_of(document: type[Document]) -> str:
    """Name and version, as a document's `schema` says them."""
    return str(document.model_fields["schema_"].default)


def name_of(form: str) -> str:
    """`mal-graph/zoo/4` is a "zoo"."""
    return form.removeprefix("mal-graph/").rpartition("/")[0]


FORMS: dict[str, type[Report]] = {form_of(document): document for document in REPORTS}
SCHEMAS: dict[str, type[Document]] = {name_of(form_of(document)): document for document in (*REPORTS, *OTHERS)}


def read_report(text: str, source: str) -> Report:
    """A report from its JSON; `source` is what errors call it. Raises FileError."""
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{source} is no report: it is not JSON ({error}); {AGAIN}") from None
    form = held.get("schema") if isinstance(held, dict) else None
    if not isinstance(form, str) or not form.startswith("mal-graph/"):
        raise FileError(f"{source} is no report of mal-graph: its `schema` does not say so; give a file of --report")
    if form not in FORMS:
        raise FileError(f"{source} is a {form!r}, and pages are made of {', '.join(FORMS)}: {AGAIN}")
    try:
        return FORMS[form].model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise FileError(f"{source} is a damaged {form}: {where}: {fault['msg']}; {AGAIN}") from None


def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema of one kind of document. Raises UsageError."""
    if name not in SCHEMAS:
        raise UsageError(f"there is no document {name!r}: choose one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name].model_json_schema(by_alias=True)
