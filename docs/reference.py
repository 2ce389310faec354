"""The pages that are made from the code: the command line from its flags, the API from its stub, the merge methods, the
JSON schemas."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import mal_graph
from mal_graph import registry
from mal_graph.cli.app import app
from mal_graph.cli.commands import flagged
from mal_graph.merging import all_rules
from mal_graph.methods import all_methods
from mal_graph.reporting import SCHEMAS, methods_document, methods_page
from mal_graph.searching import find_search

RESULTS = Path(__file__).parents[1] / "tools" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; called by mkdocs."""
    pages = {"reference/cli.md": cli_page(), "reference/api.md": api_page(), "reference/schemas.md": schema_page()}
    pages["reference/searches.md"] = searches_page()
    pages["reference/methods.md"] = methods_page(methods_document(all_methods(), all_rules()))
    pages |= {f"results/{path.name}": path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
    for name, lines in pages.items():
        content = lines if isinstance(lines, str) else "\n".join(lines)
        files.append(File.generated(config, name, content=content))
    return files


def searches_page() -> Iterator[str]:
    """Every search, with its paper and what is not as published."""
    yield "# Searches\n\nWhat `mal-graph search --search NAME` may be."
    for name in registry.searches():
        method = find_search(name)
        yield f"\n## {name}\n\n{method.summary} Source: {method.source}."
        if method.deviations:
            yield "\nNot as published:\n"
            yield from (f"* {deviation}" for deviation in method.deviations)


# --- the command line ---------------------------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    yield "# Command line\n"
    yield "Results go to stdout, progress and log to stderr. Exit codes: 0 good, 1 a check or gate failed, 2 bad input"
    yield "or usage, 130 interrupted. `mal-graph --install-completion` completes commands and flags in your shell."
    group: Any = typer.main.get_command(app)
    for name in group.commands:
        command = flagged(name)
        yield f"\n## mal-graph {name}\n\n{command.help}\n"
        yield from command_table(command)


def command_table(command: Any) -> Iterator[str]:
    """One table for each panel, as `--help` has them."""
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        is_flag = parameter.param_type_name == "option"
        panel = (getattr(parameter, "rich_help_panel", None) or "Options") if is_flag else "Arguments"
        panels.setdefault(panel, []).append(row_of(parameter, is_flag))
    for panel, rows in panels.items():
        yield f"\n{panel}:\n\n| {'flag' if panel != 'Arguments' else 'argument'} | value | |\n|---|---|---|"
        yield from rows


def row_of(parameter: Any, is_flag: bool) -> str:
    names = [*parameter.opts, *parameter.secondary_opts] if is_flag else [parameter.metavar or parameter.name]
    value = "" if not is_flag or parameter.is_flag else parameter.metavar or choices_of(parameter)
    return f"| {', '.join(f'`{name}`' for name in names)} | {cell(value)} | {cell(parameter.help or '')} |"


def choices_of(parameter: Any) -> str:
    """The choices of a flag; typer keeps them in one place or another."""
    kind = getattr(parameter, "type_descriptor", None) or parameter.type
    return " | ".join(map(str, getattr(kind, "choices", None) or ()))


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


# --- Python -------------------------------------------------------------------------------------------------------


def api_page() -> Iterator[str]:
    """The public names, in the order of the stub."""
    yield "# Python\n"
    yield "Everything here is a name of `mal_graph` itself. Paths, layer graphs, `onnx.ModelProto` and torch modules"
    yield "may stand wherever a model is asked for; paths of `.npz` files or dictionaries of arrays wherever data are."
    stub = ast.parse(Path(mal_graph.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            yield from (f"\n::: mal_graph.{node.module}.{alias.name}\n" for alias in node.names)


# --- JSON reports -------------------------------------------------------------------------------------------------


def schema_page() -> Iterator[str]:
    yield "# JSON reports\n"
    yield "The forms of `--format json`, `--report` and `to_dict()`. The field `schema` names form and version."
    yield "`mal-graph report --schema NAME` prints one of them."
    for document in SCHEMAS.values():
        schema = json.dumps(document.model_json_schema(by_alias=True), indent=1)
        yield f"\n## {document.__name__}\n\n{document.__doc__ or ''}\n\n```json\n{schema}\n```"
