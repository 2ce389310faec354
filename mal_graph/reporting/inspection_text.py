"""What `inspect` shows, as text."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from mal_graph.reporting.folding import layer_table
from mal_graph.reporting.inspection import GroupEntry, InspectDocument
from mal_graph.reporting.tables import Lines, new_table

FEW = 3  # reasons that are listed whatever the verbosity


def inspection_lines(document: InspectDocument, verbose: bool) -> Lines:
    for side, values in (("input", document.inputs), ("output", document.outputs)):
        for value in values:
            yield f"{side:7} {value['name']} {value['dtype']} {shape_text(value['shape'])}"
    yield "opset   " + ", ".join(f"{domain} {version}" for domain, version in document.opsets.items())
    yield coverage_line(document)
    for left in document.missing if verbose else document.missing[:FEW]:
        yield f"missing {left.parameters:,}: {left.reason}"
    if len(document.missing) > FEW and not verbose:
        rest = sum(left.parameters for left in document.missing[FEW:])
        yield f"missing {rest:,} for {len(document.missing) - FEW} more reasons (-v lists them)"
    yield ""
    yield "layers"
    yield from layer_lines(document, verbose)
    yield ""
    yield "axis groups"
    yield group_table(document.groups, verbose)
    if any(group.resizing for group in document.groups):
        yield ""
        yield "units added to a group"
        yield resizing_table(document.groups, verbose)
    pinned = sum(group.state == "pinned" for group in document.groups)
    if pinned and not verbose:
        yield f"and {pinned} pinned groups (inputs, outputs, kernel taps); -v lists them"
    for tie in document.ties:
        yield f"{tie.group} is tied on purpose: {tie.parts} groups share {', '.join(tie.tensors)}"
    yield from unknown_lines(document)


def coverage_line(document: InspectDocument) -> str:
    return (
        f"{document.parameters:,} float parameters, {document.settings:,} of them settings; {document.coverage:.1%} of "
        "the others are verified or fixed by contract on every axis"
    )


def unknown_lines(document: InspectDocument) -> Iterator[str]:
    """Operators without a rule, and what they cost."""
    for op, cost in document.unknown_ops.items():
        nodes = ", ".join(cost["nodes"][:3]) + (", ..." if len(cost["nodes"]) > 3 else "")
        yield f"operator {op} has no axis rule: it freezes {cost['frozen_parameters']:,} parameters (nodes {nodes})"


def layer_lines(document: InspectDocument, verbose: bool) -> Lines:
    """The layers, blocks that repeat in one row."""
    cells = {
        layer.name: (layer.kind, str(layer.depth), joined(layer.in_group), joined(layer.out_group))
        for layer in document.layers
    }
    headers = ("layer", "kind", "depth", "in group", "out group")
    table, hidden = layer_table(document.ladder, cells, headers, is_open=verbose)
    yield table
    if hidden:
        yield f"{hidden} layers are folded into blocks that repeat (-v lists them)"


def group_table(groups: Sequence[GroupEntry], verbose: bool) -> Table:
    table = new_table("group", "units", "state", "members", "deviation", "control", "reason")
    for alike in families(groups, apart=verbose):
        if verbose or alike[0].state != "pinned":
            table.add_row(*group_row(alike, verbose))
    return table


def group_row(alike: Sequence[GroupEntry], verbose: bool) -> list[str]:
    """The cells of one group, or of several that the units of another hold alike."""
    group = alike[0]
    notes = [group.reason] if group.reason else []
    if group.inside:
        notes.append(f"inside {group.inside[0]}" + (f", unit {group.inside[1]}" if verbose else ""))
    if group.inert:
        notes.append(f"inert: {', '.join(group.inert)}")
    figures = [f"{figure:.1e}" if figure is not None else "" for figure in (group.deviation, group.control)]
    members = ", ".join(f"{m.tensor}[{m.axis}]" for m in group.members) if verbose else str(len(group.members))
    units = f"{len(alike)} x {group.units}" if len(alike) > 1 else str(group.units)
    return [group.name, units, group.state, members, *figures, "; ".join(notes)]


def resizing_table(groups: Sequence[GroupEntry], verbose: bool) -> Table:
    table = new_table("group", "what they do", "sizes that must follow")
    for alike in families(groups, apart=verbose):
        if alike[0].resizing is not None:
            table.add_row(alike[0].name, alike[0].resizing, ", ".join(alike[0].widths))
    return table


def families(groups: Sequence[GroupEntry], apart: bool) -> list[list[GroupEntry]]:
    """The groups, those that the units of one group hold alike together; each by itself if `apart`."""
    families: dict[tuple[object, ...], list[GroupEntry]] = {}
    for group in groups:
        axes = tuple((member.tensor, member.axis) for member in group.members)
        alike = group.inside is not None and not apart
        key = (group.inside[0], group.units, group.state, axes) if alike and group.inside else (group.name,)
        families.setdefault(key, []).append(group)
    return list(families.values())


def shape_text(shape: Sequence[int | str | None] | None) -> str:
    return "of any shape" if shape is None else f"({', '.join(str(dim or '?') for dim in shape)})"


def joined(group: str | list[str] | None) -> str:
    if group is None:
        return "-"
    return group if isinstance(group, str) else f"{group[0]} and {len(group) - 1} more"
