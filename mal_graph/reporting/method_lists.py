"""The merge methods as JSON, as text and as a page: all of it from what each method says of itself."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field
from rich.table import Table

from mal_graph.merging import Stacking, UnmatchedRule
from mal_graph.methods import MergeMethod, Parameter
from mal_graph.reporting.document import Document
from mal_graph.reporting.tables import Lines, new_table

FREE = "published nowhere"


class ParameterEntry(BaseModel):
    """A parameter of a method; `each` says whether each model may have its own value."""

    name: str
    default: float | bool
    range: str
    each: bool
    description: str


class MethodEntry(BaseModel):
    """A merge method; `models` is how many it takes, where not any number."""

    name: str
    summary: str
    source: str
    needs: str
    models: int | None
    parameters: list[ParameterEntry]
    deviations: list[str]


class UsedMethodEntry(BaseModel):
    """The merge method that was used, with the parameters that were given, and the model that all were tuned from; a
    model's `lam` is then how much it counts."""

    name: str
    source: str
    parameters: list[str]
    ancestor: str | None


class RuleEntry(BaseModel):
    """A rule for units without a partner."""

    name: str
    summary: str
    source: str


class MethodsDocument(Document):
    """JSON of `mal-graph methods`."""

    schema_: str = Field("mal-graph/methods/1", alias="schema")
    methods: list[MethodEntry]
    unmatched: list[RuleEntry] = []


def methods_document(methods: Sequence[MergeMethod], rules: Sequence[UnmatchedRule] = ()) -> MethodsDocument:
    """What some merge methods, and some rules for units without a partner, say of themselves."""
    return MethodsDocument(
        methods=[method_entry(method) for method in methods],
        unmatched=[RuleEntry(name=rule.name, summary=rule.summary, source=rule.source) for rule in rules],
    )


def method_entry(method: MergeMethod) -> MethodEntry:
    return MethodEntry(
        name=method.name,
        summary=method.summary,
        source=method.source,
        needs=method.needed,
        models=method.models,
        parameters=[parameter_entry(parameter) for parameter in method.parameters.values()],
        deviations=list(method.deviations),
    )


def parameter_entry(parameter: Parameter) -> ParameterEntry:
    return ParameterEntry(
        name=parameter.name,
        default=parameter.default,
        range=parameter.range,
        each=parameter.is_each,
        description=parameter.description,
    )


def used_method(stacked: Stacking) -> UsedMethodEntry:
    """How the tensors of all models were made one."""
    plan = stacked.ancestor
    own = stacked.base.name if stacked.is_from_base else None if plan is None else plan.donor.graph.name
    settings = [setting.text for setting in stacked.settings]
    return UsedMethodEntry(name=stacked.method.name, source=stacked.method.source, parameters=settings, ancestor=own)


def methods_lines(document: MethodsDocument, verbose: bool) -> Lines:
    """The methods as text: a table, or with all that is said of each."""
    if not verbose:
        table = new_table("method", "source", "needs", "parameters", "what it gives")
        for method in document.methods:
            table.add_row(method.name, source_of(method), needs_of(method), defaults_of(method), method.summary)
        yield table
        if document.unmatched:
            rules = new_table("--unmatched", "source", "what becomes of units without a partner in a merge by mal")
            for rule in document.unmatched:
                rules.add_row(rule.name, source_of(rule), rule.summary)
            yield from ("", rules)
        yield "`mal-graph methods NAME` says what the parameters are, and what is not as published"
        return
    for place, method in enumerate(document.methods):
        yield from [""] if place else []
        yield f"{method.name}: {method.summary}"
        yield f"source: {source_of(method)}; needs: {needs_of(method)}"
        if method.parameters:
            yield parameter_table(method.parameters)
        yield from (f"not as published: {deviation}" for deviation in method.deviations)


def parameter_table(parameters: Sequence[ParameterEntry]) -> Table:
    """The parameters of a method."""
    table = new_table("parameter", "default", "range", "of each model", "what it is")
    for one in parameters:
        table.add_row(one.name, default_of(one), one.range, "yes" if one.each else "no", one.description)
    return table


def source_of(listed: MethodEntry | RuleEntry) -> str:
    return listed.source or FREE


def needs_of(method: MethodEntry) -> str:
    """What a method cannot do without."""
    return ", ".join([method.needs, *([] if method.models is None else [f"{method.models} models"])])


def defaults_of(method: MethodEntry) -> str:
    """The parameters with their defaults on one line."""
    return ", ".join(f"{one.name} {default_of(one)}" for one in method.parameters) or "-"


def default_of(parameter: ParameterEntry) -> str:
    value = parameter.default
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def methods_page(document: MethodsDocument) -> Iterator[str]:
    """The page of the documentation, in Markdown."""
    yield "# Merge methods\n"
    yield "`--method NAME` of `mal-graph assemble` and `merge_method` of a recipe take these. Every model is first"
    yield "aligned to the base; each tensor of the result is then made of those of all models at once. This page is"
    yield "made from what the methods say of themselves, as `mal-graph methods` is.\n"
    yield "| method | what it gives | source | needs |\n|---|---|---|---|"
    for method in document.methods:
        yield f"| [{method.name}](#{method.name}) | {method.summary} | {source_of(method)} | {needs_of(method)} |"
    for method in document.methods:
        yield f"\n## {method.name}\n\n{method.summary} Source: {source_of(method)}. Needs: {needs_of(method)}.\n"
        if method.parameters:
            yield "| parameter | default | range | of each model | what it is |\n|---|---|---|---|---|"
        for one in method.parameters:
            cells = (f"`{one.name}`", default_of(one), one.range, "yes" if one.each else "no", one.description)
            yield f"| {' | '.join(cells)} |"
        for deviation in method.deviations:
            yield f"\nNot as published: {deviation}."
    yield "\n## Units without a partner\n"
    yield "What `--unmatched` takes: what becomes of them in a merge by `--method mal`.\n"
    yield "| rule | what becomes of them | source |\n|---|---|---|"
    for rule in document.unmatched:
        yield f"| {rule.name} | {rule.summary} | {source_of(rule)} |"
