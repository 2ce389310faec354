"""What was found and done, as JSON and as tables for a terminal.

The JSON forms are pydantic models, one per command, each with a `schema` field that changes when a key does.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from mal_graph.evaluation.scores import LABELS, Scores
from mal_graph.graph import LayerGraph, Value
from mal_graph.matching.canonical import dead_channels, foldable_norm
from mal_graph.matching.layer_matching import Match
from mal_graph.network.layers import Layer, layers
from mal_graph.operators.axis_labels import GroupState
from mal_graph.operators.row import ParameterKind
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member
from mal_graph.symmetry.resize_checks import Padding
from mal_graph.workflows.assembly import Assembly, Merged, Options
from mal_graph.workflows.checkpoint import Kept, Outcome
from mal_graph.workflows.sweeping import Grid, Sweep
from mal_graph.workflows.zoo_search import Zoo


class Document(BaseModel):
    """A JSON document; its first key names its form and version."""

    model_config = ConfigDict(populate_by_name=True, ser_json_inf_nan="null")

    def json_text(self) -> str:
        return self.model_dump_json(indent=2, by_alias=True)


class MemberForm(BaseModel):
    tensor: str
    axis: int
    role: str
    positions: list[list[int]] | None = None

    @model_serializer(mode="wrap")
    def without_plain_positions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`positions` is left out where unit u is index u."""
        found: dict[str, Any] = handler(self)
        if self.positions is None:
            del found["positions"]
        return found


class GroupForm(BaseModel):
    name: str
    units: int
    state: str
    reason: str
    inside: tuple[str, int] | None
    members: list[MemberForm]
    deviation: float | None = None
    control: float | None = None
    inert: list[str] = []
    widths: list[str] = []
    padding: str | None = None


class LayerForm(BaseModel):
    name: str
    kind: str
    weights: list[str]
    in_group: str | list[str] | None
    out_group: str | list[str] | None
    depth: int


class InspectForm(Document):
    """JSON of `mal-graph inspect`."""

    schema_: str = Field("mal-graph/inspect/1", alias="schema")
    model: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    opsets: dict[str, int]
    parameters: int
    coverage: float
    coverage_full: float
    layers: list[LayerForm]
    groups: list[GroupForm]
    unknown_ops: dict[str, dict[str, Any]]


class PairForm(BaseModel):
    base: str
    donor: str
    score: float
    reason: str
    widths: dict[str, tuple[int, int]]
    relation: str


class UnmatchedForm(BaseModel):
    layer: str
    reason: str


class MatchForm(Document):
    """JSON of `mal-graph match`; `assemble --matches` reads its pairs."""

    schema_: str = Field("mal-graph/match/1", alias="schema")
    base: str
    donor: str
    pairs: list[PairForm]
    unmatched_base: list[UnmatchedForm]
    unmatched_donor: list[UnmatchedForm]
    matched_parameters: int


class MergedForm(BaseModel):
    base: str
    donor: str
    relation: str
    model: str
    matched: float
    factor: float
    dropped: list[str] = []
    missing: list[str] = []


class AlignedForm(BaseModel):
    """`units` of the base's group before it grew by `added`, and of the donor's."""

    donor: str
    base_group: str
    donor_group: str
    units: tuple[int, int]
    added: int = 0
    assigned: int
    value: float
    random: float


class StartForm(BaseModel):
    """One start of the alternation: the objective before the first pass and after each; it ends where none gains."""

    donor: str
    start: str
    objective: list[float]


class WindowForm(BaseModel):
    """A convolution of the base whose window grew."""

    layer: str
    taps: tuple[list[int], list[int]]


class GrownForm(BaseModel):
    """A group of the base that got units, or, in each unit of the group `inside`, all that are like it."""

    donor: str
    group: str
    units: tuple[int, int]
    inside: str | None = None


class KeptWidthForm(BaseModel):
    """A group of the base that has another width than the donor's and is not made to fit it."""

    donor: str
    group: str
    units: int
    reason: str


class RepairForm(BaseModel):
    """What was repaired after one merge: layers brought to their goals, BatchNormalizations measured anew."""

    donor: str
    samples: int
    rescaled: list[str]
    reset: list[str]
    left: list[UnmatchedForm] = []


class ScoreForm(BaseModel):
    arm: str
    loss: float
    metric: float
    metric_name: str
    loss_name: str
    samples: int
    output: str
    scores: str


class AssembleForm(Document):
    """JSON of `mal-graph assemble`."""

    schema_: str = Field("mal-graph/assemble/1", alias="schema")
    base: str
    donors: list[str]
    lambda_: float = Field(alias="lambda")
    unmatched: str
    width: str = "base"
    depth: str = "match"
    match_by: str = "weights"
    merged: list[MergedForm]
    skipped: list[UnmatchedForm]
    unmatched_donor: list[UnmatchedForm]
    merged_parameters: int
    shares: list[float]
    alignment: list[AlignedForm]
    grown: list[GrownForm] = []
    kept_widths: list[KeptWidthForm] = []
    windows: list[WindowForm] = []
    added_layers: list[str] = []
    repair: list[RepairForm] = []
    objective: list[float]
    starts: list[StartForm] = []
    peak_bytes: int
    checks: dict[str, str]
    notes: list[str]
    scores: list[ScoreForm]
    output: str | None = None
    sha256: dict[str, str] = {}


class EvaluateForm(Document):
    """JSON of `mal-graph evaluate`."""

    schema_: str = Field("mal-graph/evaluate/1", alias="schema")
    scores: list[ScoreForm]


class CurveForm(BaseModel):
    arm: str
    lambda_star: float
    rise: float
    barrier: float | None
    loss: list[float]
    metric: list[float]


class SweepForm(Document):
    """JSON of `mal-graph sweep`."""

    schema_: str = Field("mal-graph/sweep/1", alias="schema")
    base: str
    donor: str
    lambdas: list[float]
    eps: float
    loss_name: str
    metric_name: str
    samples: int
    arms: list[CurveForm]
    donor_scores: ScoreForm | None
    unscored: str = ""
    findings: list[str]
    match_by: str = "weights"
    repair: list[RepairForm] = []
    notes: list[str] = []

    def csv_text(self) -> str:
        rows = [
            (curve.arm, *point)
            for curve in self.arms
            for point in zip(self.lambdas, curve.loss, curve.metric, strict=True)
        ]
        return csv_text(("arm", "lambda", "loss", self.metric_name), rows)


class PointForm(BaseModel):
    factor: float
    loss: float
    metric: float


class CandidateForm(BaseModel):
    name: str
    layers: list[str]
    points: list[PointForm]


class KeptForm(BaseModel):
    name: str
    layers: list[str]
    factor: float
    loss: float | None
    metric: float | None
    control: float | None


class OutcomeForm(BaseModel):
    donor: str
    verdict: str
    reason: str
    kept: KeptForm | None
    candidates: list[CandidateForm]


class GateForm(BaseModel):
    """What a model had to meet on the deciding part of the data, and how the result does there."""

    samples: int
    eps: float
    base: ScoreForm
    result: ScoreForm


class ZooForm(Document):
    """JSON of `mal-graph zoo`; `scores` are of the reporting part of the data."""

    schema_: str = Field("mal-graph/zoo/1", alias="schema")
    base: str
    decided_by: str
    gate: GateForm | None
    min_score: float | None
    controls: int
    lambdas: list[float]
    donors: list[OutcomeForm]
    match_by: str = "weights"
    merged: list[MergedForm]
    repair: list[RepairForm] = []
    shares: list[float]
    checks: dict[str, str]
    notes: list[str]
    scores: list[ScoreForm]
    output: str | None = None
    state: str | None = None
    sha256: dict[str, str] = {}


class BlankForm(BaseModel):
    base: str
    donor: str
    reason: str


class GridForm(Document):
    """JSON of `mal-graph sweep --grid`."""

    schema_: str = Field("mal-graph/grid/1", alias="schema")
    base: str
    donor: str
    lambda_: float = Field(alias="lambda")
    base_loss: float
    base_layers: list[str]
    donor_layers: list[str]
    change: list[list[float]]
    blank: list[BlankForm]

    def csv_text(self) -> str:
        why = {(pair.base, pair.donor): pair.reason for pair in self.blank}
        rows = [
            (a, b, "" if (a, b) in why else change, why.get((a, b), ""))
            for a, line in zip(self.base_layers, self.change, strict=True)
            for b, change in zip(self.donor_layers, line, strict=True)
        ]
        return csv_text(("base layer", "donor layer", "change of the loss", "reason"), rows)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


# --- coverage ---------------------------------------------------------------------------------------------------


def coverage(graph: LayerGraph, groups: AxisGroups) -> tuple[int, float, float]:
    """How much of a model the groups speak of.

    Returns:
        the number of float parameters, the share with at least one verified axis, and the share of which every axis is
        verified or pinned; both counted by positions, an axis of length 1 being neither.
    """
    tensors = dict.fromkeys(parameter.tensor for parameter in groups.parameters)
    total, some, full = 0, 0.0, 0.0
    for name in tensors:
        weight = graph.weights[name]
        size = weight.size
        total += size
        shares = [axis_shares(groups, name, axis, n) for axis, n in enumerate(weight.shape) if n > 1]
        some += size * (1 - float(np.prod([1 - verified for verified, _ in shares])))
        full += size * float(np.prod([settled for _, settled in shares]))
    return (total, some / total, full / total) if total else (0, 0.0, 0.0)


def axis_shares(groups: AxisGroups, tensor: str, axis: int, size: int) -> tuple[float, float]:
    """The shares of an axis that are verified, and that are verified or pinned."""
    verified, pinned = np.zeros(size, bool), np.zeros(size, bool)
    for index, member in groups.on_axis.get((tensor, axis), ()):
        state = groups.groups[index].state
        if state in (GroupState.VERIFIED, GroupState.PINNED):
            (verified if state is GroupState.VERIFIED else pinned)[member.positions.ravel()] = True
    return float(verified.mean()), float((verified | pinned).mean())


# --- forms ------------------------------------------------------------------------------------------------------


def inspect_form(graph: LayerGraph, groups: AxisGroups, paddings: Mapping[str, Padding] | None = None) -> InspectForm:
    """What `inspect` shows; `paddings` by name of the group, where they were tested."""
    total, some, full = coverage(graph, groups)
    found = layers(graph)
    listed = [weight for weight in graph.weights.values() if weight.is_float]
    inner = sum(weight.size for weight in listed if weight.scope)
    scale = total / (total + inner) if total + inner else 0.0  # what subgraphs hold is counted, and not covered
    return InspectForm(
        model=graph.name,
        inputs=[value_form(value) for value in graph.inputs],
        outputs=[value_form(value) for value in graph.outputs],
        opsets={domain or "ai.onnx": version for domain, version in graph.opsets.items()},
        parameters=total + inner,
        coverage=some * scale,
        coverage_full=full * scale,
        layers=[layer_form(layer, groups) for layer in found],
        groups=[group_form(group, (paddings or {}).get(group.name)) for group in groups.groups],
        unknown_ops={op: {"nodes": list(names), **cost_of(op, graph, groups)} for op, names in groups.unknown.items()},
    )


def value_form(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": None if value.shape is None else list(value.shape)}


def cost_of(op: str, graph: LayerGraph, groups: AxisGroups) -> dict[str, Any]:
    """How many parameters an operator without a rule freezes, those inside its subgraphs too."""
    frozen = {m.tensor for g in groups.groups if g.unknown_op == op for m in g.members}
    scopes = tuple(f"{node.outputs[0]}/" for node in graph.nodes if node.op == op and node.outputs)
    inner = [w for w in graph.weights.values() if w.is_float and w.scope.startswith(scopes)]
    return {"frozen_parameters": sum(w.size for w in (*(graph.weights[name] for name in frozen), *inner))}


def layer_form(layer: Layer, groups: AxisGroups) -> LayerForm:
    leading = layer.leading
    return LayerForm(
        name=layer.name,
        kind=layer.kind,
        weights=[parameter.tensor for parameter in layer.parameters],
        in_group=None if leading is None else groups_on(groups, leading.tensor, leading.axes[bool(layer.weight)]),
        out_group=None if leading is None else groups_on(groups, leading.tensor, leading.axes[0]),
        depth=layer.depth,
    )


def groups_on(groups: AxisGroups, tensor: str, axis: int | None) -> str | list[str] | None:
    """The name of the group on an axis; a list where several lie on it, None where none does."""
    found = [] if axis is None else [groups.groups[i].name for i, _ in groups.on_axis.get((tensor, axis), ())]
    return None if not found else found[0] if len(found) == 1 else found


def group_form(group: AxisGroup, padding: Padding | None = None) -> GroupForm:
    return GroupForm(
        name=group.name,
        units=group.units,
        state=GroupState.UNVERIFIED if group.state is GroupState.CANDIDATE else group.state,
        reason=group.reason or ("not verified" if group.state is GroupState.CANDIDATE else ""),
        inside=group.inside,
        members=[member_form(member) for member in group.members],
        deviation=group.deviation,
        control=group.control,
        inert=list(group.inert),
        widths=[str(constant) for constant in group.sized_by],
        padding=None if padding is None else padding.statement,
    )


def member_form(member: Member) -> MemberForm:
    positions = None if member.is_plain else member.positions.tolist()
    return MemberForm(tensor=member.tensor, axis=member.axis, role=str(member.role), positions=positions)


def match_form(base: LayerGraph, donor: LayerGraph, match: Match) -> MatchForm:
    return MatchForm(
        base=base.name,
        donor=donor.name,
        pairs=[
            PairForm(
                base=match.base[pair.base].name,
                donor=match.donor[pair.donor].name,
                score=pair.score,
                reason=pair.reason,
                widths={
                    "in": (match.base[pair.base].in_out[0], match.donor[pair.donor].in_out[0]),
                    "out": (match.base[pair.base].in_out[1], match.donor[pair.donor].in_out[1]),
                },
                relation=pair.relation,
            )
            for pair in match.pairs
        ],
        unmatched_base=[UnmatchedForm(layer=match.base[i].name, reason=why) for i, why in match.unmatched_base.items()],
        unmatched_donor=[
            UnmatchedForm(layer=match.donor[j].name, reason=why) for j, why in match.unmatched_donor.items()
        ],
        matched_parameters=sum(
            int(np.prod(parameter.shape)) for pair in match.pairs for parameter in match.base[pair.base].parameters
        ),
    )


def assemble_form(assembly: Assembly, output: Path | None = None, hashes: dict[str, str] | None = None) -> AssembleForm:
    return AssembleForm(
        base=assembly.base.name,
        donors=[step.donor.name for step in assembly.merged],
        lambda_=assembly.merged[0].plan.mean_factor,
        unmatched=assembly.options.unmatched,
        width=assembly.options.width,
        depth=assembly.options.depth,
        match_by=assembly.options.match_by,
        merged=[form for step in assembly.merged for form in merged_forms(step)],
        skipped=left_over(assembly, lambda step: (step.match.base, step.plan.skipped)),
        unmatched_donor=left_over(assembly, lambda step: (step.match.donor, step.match.unmatched_donor)),
        merged_parameters=len_of_union(assembly),
        shares=list(assembly.shares),
        alignment=[form for step in assembly.merged for form in aligned_forms(step)],
        grown=[form for step in assembly.merged for form in grown_forms(step)],
        kept_widths=[form for step in assembly.merged for form in kept_width_forms(step)],
        windows=[form for step in assembly.merged for form in window_forms(step)],
        added_layers=[name for step in assembly.merged for name in step.added],
        repair=[form for step in assembly.merged for form in repair_forms(step)],
        objective=[step.plan.alignment.objective for step in assembly.merged],
        starts=[form for step in assembly.merged for form in start_forms(step)],
        peak_bytes=max((step.plan.peak_bytes for step in assembly.merged), default=0),
        checks=dict(assembly.checks),
        notes=[*unscored_notes(assembly), *notes(assembly.merged, assembly.options)],
        scores=[score_form(score) for score in assembly.scores],
        output=None if output is None else str(output),
        sha256=hashes or {},
    )


def merged_forms(step: Merged) -> list[MergedForm]:
    forms = []
    for index in step.plan.merged_layers:
        pair = step.match.pairs[index]
        own = [s for s in step.plan.steps if s.layer == index]
        size = sum(int(np.prod(s.term.base.shape)) for s in own)
        share = sum(s.matched * int(np.prod(s.term.base.shape)) for s in own) / max(1, size)
        forms.append(
            MergedForm(
                base=step.match.base[pair.base].name,
                donor=step.match.donor[pair.donor].name,
                relation=pair.relation,
                model=step.donor.name,
                matched=share,
                factor=step.plan.factor(own[0]),
                dropped=list(step.plan.dropped.get(pair.base, ())),
                missing=list(step.missing.get(index, ())),
            )
        )
    return forms


def left_over(
    assembly: Assembly, side: Callable[[Merged], tuple[Sequence[Layer], Mapping[int, str]]]
) -> list[UnmatchedForm]:
    """Layers that no merge touched, for every donor; with several donors the reason names it."""
    several = len(assembly.merged) > 1
    return [
        UnmatchedForm(layer=layers[i].name, reason=f"{step.donor.name}: {why}" if several else why)
        for step in assembly.merged
        for layers, reasons in [side(step)]
        for i, why in sorted(reasons.items())
    ]


def unscored_notes(assembly: Assembly) -> list[str]:
    return [f"{arm} has no score and no part in the ensemble: {why}" for arm, why in assembly.unscored.items()]


def notes(steps: Sequence[Merged], options: Options) -> list[str]:
    """What a reader of the scores should know."""
    if not any(step.plan.factor(s) for step in steps for s in step.plan.steps):
        return []
    found = []
    norms = len({norm for step in steps for norm in merged_norms(step)})
    if norms and not any(step.repair for step in steps):
        found.append(
            f"the statistics of {norms} BatchNormalizations are not measured again on data: "
            "expect the merged model, and the arms made like it, to score far lower than they could; "
            "--calibrate measures them"
        )
    if LABELS in (options.calibrate or {}):
        found.append("the labels among the calibration inputs are not used")
    dead = sum(dead_in(step) for step in steps)
    if dead:
        found.append(f"{dead} channels keep the base's weights: its BatchNormalization scales them to nothing")
    for step in steps:
        found += [
            f"{count} units of {group.name} have no partner in {step.donor.name} and fade whatever --unmatched says: "
            f"{group.statistic} is taken over them"
            for group, count in lone_in_statistics(step)
        ]
    return found


def merged_norms(step: Merged) -> set[str]:
    """The BatchNormalizations of the base that stand in or behind a merged layer, by the tensor of their variance."""
    own = {s.tensor for s in step.plan.steps if s.term.base.kind is ParameterKind.VARIANCE}
    layers_merged = [step.match.base[step.match.pairs[index].base] for index in step.plan.merged_layers]
    behind = [foldable_norm(step.plan.base, layer) for layer in layers_merged]
    return own | {norm.variance.tensor for norm in behind if norm is not None}


def dead_in(step: Merged) -> int:
    pairs = [step.match.pairs[index] for index in step.plan.merged_layers]
    return sum(
        dead_channels(step.plan.base, step.donor, step.match.base[pair.base], step.match.donor[pair.donor])
        for pair in pairs
    )


def lone_in_statistics(step: Merged) -> list[tuple[AxisGroup, int]]:
    """Groups under a sum, norm, mean or maximum of which units have no partner, with their number."""
    found: dict[int, int] = {}
    aligned = step.plan.alignment
    for pair, order in zip(aligned.found.pairs, aligned.orders, strict=True):
        lone = int((order < 0).sum())
        if lone and step.groups.groups[pair.base].statistic:
            found[pair.base] = lone
    return [(step.groups.groups[index], lone) for index, lone in found.items()]


def len_of_union(assembly: Assembly) -> int:
    """Parameters of the base that at least one donor was merged into."""
    sizes = {s.tensor: int(np.prod(s.term.base.shape)) for step in assembly.merged for s in step.plan.steps}
    return sum(sizes.values())


def grown_forms(step: Merged) -> list[GrownForm]:
    """What grew; of groups that lie inside units, those inside the first one."""
    found = [(step.groups.groups[index], added) for index, added in step.plan.growth.added.items()]
    return [
        GrownForm(
            donor=step.donor.name,
            group=group.name,
            units=(group.units, group.units + added),
            inside=group.inside[0] if group.inside else None,
        )
        for group, added in found
        if group.inside is None or group.inside[1] == 0
    ]


def kept_width_forms(step: Merged) -> list[KeptWidthForm]:
    """What keeps its width, and why; of groups that lie inside units, those inside the first one."""
    named = [(step.groups.groups[index], reason) for index, reason in step.plan.growth.kept.items()]
    return [
        KeptWidthForm(donor=step.donor.name, group=group.name, units=group.units, reason=reason)
        for group, reason in named
        if group.inside is None or group.inside[1] == 0
    ]


def start_forms(step: Merged) -> list[StartForm]:
    """The starts of one alignment; the one that was kept alone where it needed no comparison."""
    found = step.plan.alignment
    return [
        StartForm(donor=step.donor.name, start=start, objective=list(history))
        for start, history in found.starts or ((found.start, found.history),)
    ]


def repair_forms(step: Merged) -> list[RepairForm]:
    if step.repair is None:
        return []
    left = [UnmatchedForm(layer=layer, reason=why) for layer, why in step.repair.left.items()]
    done = step.repair
    return [
        RepairForm(
            donor=step.donor.name,
            samples=done.samples,
            rescaled=list(done.rescaled),
            reset=list(done.reset),
            left=left,
        )
    ]


def window_forms(step: Merged) -> list[WindowForm]:
    return [
        WindowForm(layer=step.match.base[index].name, taps=(list(old), list(new)))
        for index, (old, new) in step.windows.items()
    ]


def aligned_forms(step: Merged) -> list[AlignedForm]:
    found, added = step.plan.alignment, step.plan.growth.added
    return [
        AlignedForm(
            donor=step.donor.name,
            base_group=step.groups.groups[pair.base].name,
            donor_group=step.donor_groups.groups[pair.donor].name,
            units=(units[0] - added.get(pair.base, 0), units[1]),
            added=added.get(pair.base, 0),
            assigned=int((order >= 0).sum()),
            value=value,
            random=random,
        )
        for pair, units, order, value, random in zip(
            found.found.pairs, found.found.units, found.orders, found.values, found.random_values, strict=True
        )
    ]


def score_form(score: Scores) -> ScoreForm:
    return ScoreForm(
        arm=score.arm,
        loss=score.loss,
        metric=score.metric,
        metric_name=score.metric_name,
        loss_name=score.loss_name,
        samples=score.samples,
        output=score.output,
        scores=score.scores,
    )


def sweep_form(found: Sweep) -> SweepForm:
    first = found.curves[0].points[0]
    return SweepForm(
        base=found.base,
        donor=found.donor,
        lambdas=list(found.lambdas),
        eps=found.eps,
        loss_name=first.loss_name,
        metric_name=first.metric_name,
        samples=first.samples,
        arms=[
            CurveForm(
                arm=curve.arm,
                lambda_star=curve.lam_star,
                rise=curve.rise,
                barrier=curve.barrier,
                loss=[point.loss for point in curve.points],
                metric=[point.metric for point in curve.points],
            )
            for curve in found.curves
        ],
        donor_scores=None if found.donor_scores is None else score_form(found.donor_scores),
        unscored=found.unscored,
        findings=list(found.findings),
        match_by=found.options.match_by,
        repair=repair_forms(found.step),
        notes=notes([found.step], found.options),
    )


def grid_form(found: Grid) -> GridForm:
    return GridForm(
        base=found.base,
        donor=found.donor,
        lambda_=found.lam,
        base_loss=found.base_loss,
        base_layers=list(found.base_layers),
        donor_layers=list(found.donor_layers),
        change=found.change.tolist(),
        blank=[
            BlankForm(base=found.base_layers[i], donor=found.donor_layers[j], reason=reason)
            for (i, j), reason in found.reasons.items()
        ],
    )


def zoo_form(
    found: Zoo, output: Path | None = None, state: Path | None = None, hashes: dict[str, str] | None = None
) -> ZooForm:
    terms, assembly = found.terms, found.assembly
    gate = None
    if terms.gate is not None and found.best is not None:
        base, result = score_form(terms.gate.base), score_form(found.best)
        gate = GateForm(samples=terms.gate.base.samples, eps=terms.gate.eps, base=base, result=result)
    return ZooForm(
        base=assembly.base.name,
        decided_by=terms.basis,
        gate=gate,
        min_score=None if gate else terms.min_score,
        controls=terms.controls if gate else 0,
        lambdas=list(terms.lambdas),
        donors=[outcome_form(outcome) for outcome in found.outcomes],
        match_by=assembly.options.match_by,
        merged=[form for step in assembly.merged for form in merged_forms(step)],
        repair=[form for step in assembly.merged for form in repair_forms(step)],
        shares=list(assembly.shares),
        checks=dict(assembly.checks),
        notes=[*unscored_notes(assembly), *notes(assembly.merged, assembly.options)],
        scores=[score_form(score) for score in assembly.scores],
        output=None if output is None else str(output),
        state=None if state is None else str(state),
        sha256=hashes or {},
    )


def outcome_form(outcome: Outcome) -> OutcomeForm:
    kept = outcome.kept
    return OutcomeForm(
        donor=outcome.donor,
        verdict=outcome.verdict,
        reason=outcome.reason,
        kept=None if kept is None else kept_form(kept),
        candidates=[
            CandidateForm(
                name=one.name,
                layers=list(one.layers),
                points=[PointForm(factor=p.lam, loss=p.loss, metric=p.metric) for p in one.points],
            )
            for one in outcome.tried
        ],
    )


def kept_form(kept: Kept) -> KeptForm:
    layers = list(kept.layers)
    return KeptForm(
        name=kept.name, layers=layers, factor=kept.lam, loss=kept.loss, metric=kept.metric, control=kept.control
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
