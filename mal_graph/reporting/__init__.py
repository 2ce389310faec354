"""Results as JSON, text, diagrams and plots."""

from mal_graph.reporting.audits import AuditDocument, audit_document
from mal_graph.reporting.diagrams import dot, mermaid, model_explorer
from mal_graph.reporting.document import Document
from mal_graph.reporting.documents import (
    EvaluateDocument,
    MergeDocument,
    ResultDocument,
    assemble_document,
    match_document,
    zoo_document,
)
from mal_graph.reporting.group_coverage import coverage
from mal_graph.reporting.inspection import inspect_document
from mal_graph.reporting.method_lists import MethodsDocument, methods_document, methods_page
from mal_graph.reporting.plots import draw_curves, draw_heat_map, draw_pareto, draw_search, new_figure
from mal_graph.reporting.reading import SCHEMAS, Report, read_report, schema_of
from mal_graph.reporting.reporter import KINDS, DefaultReporter, card_text, rendered, report_text, result_document
from mal_graph.reporting.search_documents import SearchDocument, search_document
from mal_graph.reporting.stacks import StackDocument, stack_document
from mal_graph.reporting.sweep_documents import GridDocument, SweepDocument, grid_document, sweep_document
from mal_graph.reporting.tables import new_table, table_text
from mal_graph.reporting.text import text_of
from mal_graph.reporting.union_documents import UnionDocument, union_document

__all__ = [
    "assemble_document",
    "audit_document",
    "AuditDocument",
    "card_text",
    "coverage",
    "DefaultReporter",
    "Document",
    "dot",
    "draw_curves",
    "draw_heat_map",
    "draw_pareto",
    "draw_search",
    "EvaluateDocument",
    "grid_document",
    "GridDocument",
    "inspect_document",
    "KINDS",
    "match_document",
    "MergeDocument",
    "mermaid",
    "methods_document",
    "methods_page",
    "MethodsDocument",
    "model_explorer",
    "new_figure",
    "new_table",
    "read_report",
    "rendered",
    "Report",
    "report_text",
    "result_document",
    "ResultDocument",
    "schema_of",
    "SCHEMAS",
    "search_document",
    "SearchDocument",
    "stack_document",
    "StackDocument",
    "sweep_document",
    "SweepDocument",
    "table_text",
    "text_of",
    "union_document",
    "UnionDocument",
    "zoo_document",
]
