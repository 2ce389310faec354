"""Pieces of a report about layers and groups: what was merged and kept, what was verified, where it all comes from."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mal_graph.ladder import LadderEntry, UnitsEntry
from mal_graph.reporting.accounting import AccountsEntry, LeftEntry, accounts_lines
from mal_graph.reporting.document import ReportDocument
from mal_graph.reporting.documents import MergedEntry, ReasonEntry
from mal_graph.reporting.pieces import MANY_ROWS, Piece, folded, rows
from mal_graph.reporting.tables import new_table

MOST_GROUPS = 300  # that a page lists; the JSON report has all
SHOWN = 3  # tensors that one cell names


def layer_pieces(merged: Sequence[MergedEntry], ladders: Sequence[LadderEntry]) -> Iterator[Piece]:
    """Every layer that was merged: with what, how much of it has a partner, and how alike the paired units are."""
    several = len({layer.model for layer in merged}) > 1
    known = {
        (ladder.donor.name, ladder.base.places[rung.base].name): rung
        for ladder in ladders
        if ladder.donor is not None
        for rung in ladder.rungs
    }
    figures = ("score", "lambda", "matched", "cosine", "random", "norm ratio")
    table = new_table("base layer", "donor layer", *(["of"] if several else []), "relation", *figures)
    for layer in merged:
        rung = known.get((layer.model, layer.base))
        score = "" if rung is None else f"{rung.score:.2f}"
        units = unit_cells(None if rung is None else rung.units)
        own = (f"{layer.lam:g}", f"{layer.matched:.0%}")
        donor = (layer.donor, file_name(layer.model)) if several else (layer.donor,)
        table.add_row(layer.base, *donor, layer.relation, score, *own, *units)
    if merged:
        yield (
            "cosine and norm ratio (the donor's over the base's) are medians over paired units, random is the median "
            "cosine of pairs drawn at random"
        )
    yield from rows(table, "Merged layers", MANY_ROWS)


def unit_cells(units: UnitsEntry | None) -> tuple[str, str, str]:
    """Cosine, the same at random, and norm ratio, where the weights were compared."""
    if units is None:
        return "", "", ""
    cosine, random, ratio = (f"{round(value, 2) + 0.0:.2f}" for value in (units.cosine, units.random, units.norm_ratio))
    return cosine, random, ratio  # + 0.0: no minus before 0.00


def reason_pieces(title: str, what: str, left: Sequence[ReasonEntry]) -> Iterator[Piece]:
    """Layers, each with its reason."""
    table = new_table(what, "reason")
    for entry in left:
        table.add_row(entry.layer, entry.reason)
    yield from rows(table, title)


def partly_pieces(merged: Sequence[MergedEntry]) -> Iterator[Piece]:
    """What of merged layers was not merged, and in what they are another function than the donor's."""
    table = new_table("base layer", "what of it keeps the base's values")
    for layer in merged:
        for why in (*layer.dropped, *layer.missing):
            table.add_row(layer.base, why)
    yield from rows(table, "Parts of merged layers that keep the base's values")
    differing = new_table("base layer", "difference to the donor's layer", "what it means")
    for layer in merged:
        for difference in layer.differences:
            differing.add_row(layer.base, difference.what, difference.meaning)
    yield from rows(differing, "Merged layers that are another function than the donor's")


def account_pieces(accounts: AccountsEntry) -> Iterator[Piece]:
    """What becomes of every float parameter of the base."""
    yield next(accounts_lines(accounts, (), verbose=False))
    table = new_table("parameters", "tensors", "layers", "they are", "reason")
    for what, entries in (("kept", accounts.kept_why), ("settings", accounts.settings_why)):
        for left in entries:
            table.add_row(f"{left.parameters:,}", named(left), ", ".join(left.layers), what, left.reason)
    yield from rows(table, "Parameters that are not merged")


def named(left: LeftEntry) -> str:
    return ", ".join(left.tensors[:SHOWN]) + (f" and {len(left.tensors) - SHOWN} more" * (len(left.tensors) > SHOWN))


def evidence_pieces(ladders: Sequence[LadderEntry]) -> Iterator[Piece]:
    """How the axis groups of every model stand, with what the verification measured."""
    models = {id(model): model for ladder in ladders for _, model in ladder.sides() if model.groups}
    summary = new_table("model", "state", "groups", "units", "deviation", "control")
    listed = new_table("model", "group", "units", "state", "deviation", "control", "reason")
    for model in models.values():
        for state in dict.fromkeys(group.state for group in model.groups):
            groups = [group for group in model.groups if group.state == state]
            largest = max((group.deviation for group in groups if group.deviation is not None), default=None)
            smallest = min((group.control for group in groups if group.control is not None), default=None)
            counts = (str(len(groups)), f"{sum(group.units for group in groups):,}")
            summary.add_row(file_name(model.name), state, *counts, figure(largest), figure(smallest))
        for group in model.groups[:MOST_GROUPS]:
            measured = figure(group.deviation), figure(group.control)
            listed.add_row(file_name(model.name), group.name, str(group.units), group.state, *measured, group.reason)
    if not models:
        return
    yield (
        "deviation is how much the outputs moved with all units of a group permuted (the largest of a row), control "
        "the same with one member left out (the smallest)"
    )
    yield summary
    more = sum(max(0, len(model.groups) - MOST_GROUPS) for model in models.values())
    rest = f"; {more:,} more stand in the JSON report" if more else ""
    yield from folded(f"Every group{rest}", [listed])


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def origin_pieces(document: ReportDocument, config: dict[str, Any] | None, output: str | None) -> Iterator[Piece]:
    """Files, versions, the command and the options: what is needed to make it again."""
    if document.command:
        yield f"command: {shlex.join(document.command)}"
    if output:
        yield f"wrote {output}"
    files = new_table("file", "SHA-256")
    for path, digest in document.sha256.items():
        files.add_row(path, digest)
    yield from rows(files)
    versions = new_table("made with", "version")
    for name, version in document.versions.items():
        versions.add_row(name, version)
    yield from folded("Versions", rows(versions))
    options = new_table("option", "set to")
    for name, value in (config or {}).items():
        options.add_row(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    yield from folded("Options", rows(options))


def file_name(path: str) -> str:
    """What a model is called in a title."""
    return Path(path).name or path
