"""What `inspect` shows of one model: layers, axis groups, operators without a rule."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from mal_graph.graph import LayerGraph, Value
from mal_graph.ladder import LadderEntry, model_entry
from mal_graph.network import Layer, find_layers
from mal_graph.operators import GroupState
from mal_graph.reporting.document import Document
from mal_graph.reporting.group_coverage import coverage
from mal_graph.symmetry import AxisGroup, AxisGroups, Member, ResizeCheck, find_ties


class MemberEntry(BaseModel):
    tensor: str
    axis: int
    role: str
    positions: list[list[int]] | None = None

    @model_serializer(mode="wrap")
    def without_plain_positions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`positions` is left out where unit u is index u."""
        entry: dict[str, Any] = handler(self)
        if self.positions is None:
            del entry["positions"]
        return entry


class GroupEntry(BaseModel):
    name: str
    units: int
    state: str
    reason: str
    inside: tuple[str, int] | None
    members: list[MemberEntry]
    deviation: float | None = None
    control: float | None = None
    inert: list[str] = []
    widths: list[str] = []
    resizing: str | None = None


class LayerEntry(BaseModel):
    name: str
    kind: str
    weights: list[str]
    in_group: str | list[str] | None
    out_group: str | list[str] | None
    depth: int


class MissingEntry(BaseModel):
    """Parameters with an axis that is neither verified nor fixed by contract, for one reason."""

    reason: str
    parameters: int


class TieEntry(BaseModel):
    """A group that would fall into several if each use of its shared tensors had numbers of its own."""

    group: str
    tensors: list[str]
    parts: int


class InspectDocument(Document):
    """JSON of `mal-graph inspect`."""

    schema_: str = Field("mal-graph/inspect/4", alias="schema")
    model: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    opsets: dict[str, int]
    parameters: int
    settings: int
    coverage: float
    missing: list[MissingEntry]
    layers: list[LayerEntry]
    groups: list[GroupEntry]
    ties: list[TieEntry] = []
    unknown_ops: dict[str, dict[str, Any]]
    ladder: LadderEntry


def inspect_document(
    graph: LayerGraph, groups: AxisGroups, resizings: Mapping[str, ResizeCheck] | None = None
) -> InspectDocument:
    """What `inspect` shows; `resizings` by name of the group, where they were tested."""
    covered = coverage(graph, groups)
    layers = find_layers(graph)
    return InspectDocument(
        model=graph.name,
        inputs=[value_entry(value) for value in graph.inputs],
        outputs=[value_entry(value) for value in graph.outputs],
        opsets={domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        parameters=covered.total,
        settings=covered.settings,
        coverage=covered.share,
        missing=[MissingEntry(reason=why, parameters=count) for why, count in covered.missing.items()],
        layers=[layer_entry(layer, groups) for layer in layers],
        groups=[group_entry(group, (resizings or {}).get(group.name)) for group in groups.groups],
        ties=[TieEntry(group=t.group, tensors=list(t.tensors), parts=t.parts) for t in find_ties(graph, groups)],
        unknown_ops={op: {"nodes": list(names), **cost_of(op, graph, groups)} for op, names in groups.unknown.items()},
        ladder=LadderEntry(base=model_entry(graph, groups, layers)),
    )


def value_entry(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": None if value.shape is None else list(value.shape)}


def cost_of(op: str, graph: LayerGraph, groups: AxisGroups) -> dict[str, Any]:
    """How many parameters an operator without a rule freezes, those inside its subgraphs too."""
    frozen = {m.tensor for g in groups.groups if g.unknown_op == op for m in g.members}
    scopes = tuple(f"{node.outputs[0]}/" for node in graph.nodes if node.op == op and node.outputs)
    inner = [w for w in graph.weights.values() if w.is_float and w.scope.startswith(scopes)]
    return {"frozen_parameters": sum(w.size for w in (*(graph.weights[name] for name in frozen), *inner))}


def layer_entry(layer: Layer, groups: AxisGroups) -> LayerEntry:
    leading = layer.leading
    return LayerEntry(
        name=layer.name,
        kind=layer.kind,
        weights=[parameter.tensor for parameter in layer.parameters],
        in_group=None if leading is None else groups_on(groups, leading.tensor, leading.axes[bool(layer.weight)]),
        out_group=None if leading is None else groups_on(groups, leading.tensor, leading.axes[0]),
        depth=layer.depth,
    )


def groups_on(groups: AxisGroups, tensor: str, axis: int | None) -> str | list[str] | None:
    """The name of the group on an axis; a list where several lie on it, None where none does."""
    names = [] if axis is None else [groups.groups[i].name for i, _ in groups.on_axis.get((tensor, axis), ())]
    return None if not names else names[0] if len(names) == 1 else names


def group_entry(group: AxisGroup, resizing: ResizeCheck | None = None) -> GroupEntry:
    return GroupEntry(
        name=group.name,
        units=group.units,
        state=GroupState.UNVERIFIED if group.state is GroupState.CANDIDATE else group.state,
        reason=group.reason or ("not verified" if group.state is GroupState.CANDIDATE else ""),
        inside=group.inside,
        members=[member_entry(member) for member in group.members],
        deviation=group.deviation,
        control=group.control,
        inert=list(group.inert),
        widths=[str(constant) for constant in group.sized_by],
        resizing=None if resizing is None else resizing.statement,
    )


def member_entry(member: Member) -> MemberEntry:
    positions = None if member.is_plain else member.positions.tolist()
    return MemberEntry(tensor=member.tensor, axis=member.axis, role=str(member.role), positions=positions)
