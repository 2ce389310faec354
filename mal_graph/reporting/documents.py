"""The JSON reports of `match`, `assemble`, `evaluate` and `zoo`, made from the results themselves.

What is a plain frozen dataclass already (scores, checks, candidates of a zoo) stands in a document as it is; entries
are declared here where a reader needs another view than the code does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from mal_graph.errors import MatchError
from mal_graph.evaluation import Scores
from mal_graph.graph import LayerGraph
from mal_graph.ladder import LadderEntry, ladder_of_comparison
from mal_graph.matching import LayerPair, Signatures, pair_signatures, tell_pairs
from mal_graph.network import Layer
from mal_graph.protocols import Check
from mal_graph.reporting.accounting import AccountsEntry, accounts_entry
from mal_graph.reporting.document import Document, ReportDocument
from mal_graph.reporting.method_lists import UsedMethodEntry, used_method
from mal_graph.workflows import (
    Assembly,
    Choice,
    Comparison,
    Meaning,
    Merged,
    Outcome,
    ParetoEntry,
    Speeds,
    Verdict,
    Zoo,
)


class ReasonEntry(BaseModel):
    """Why a layer was left out."""

    layer: str
    reason: str


class DifferenceEntry(BaseModel):
    """In what two matched layers are not the same function; `setting` is empty where their operators differ."""

    operator: str
    other: str
    setting: str
    base: str
    donor: str
    what: str
    meaning: str


class PairEntry(BaseModel):
    base: str
    donor: str
    score: float
    reason: str
    widths: dict[str, tuple[int, int]]
    relation: str
    differences: list[DifferenceEntry] = []


class SignaturesEntry(BaseModel):
    """Which input and output of a donor is which of the base's; `by` says what paired the inputs, and the outputs.

    `told` is what people are told of it, `unpaired` why the models cannot be paired.
    """

    donor: str
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    by: list[str] = []
    told: list[str] = []
    unpaired: str = ""


class MatchDocument(Document):
    """JSON of `mal-graph match`; `assemble --matches` reads its pairs."""

    schema_: str = Field("mal-graph/match/2", alias="schema")
    base: str
    donor: str
    pairs: list[PairEntry]
    unmatched_base: list[ReasonEntry]
    unmatched_donor: list[ReasonEntry]
    matched_parameters: int
    parameters: int
    signatures: SignaturesEntry
    ladder: LadderEntry


class MergedEntry(BaseModel):
    """A layer of the base that a donor was merged into; `matched` is a share of all its parameters."""

    base: str
    donor: str
    relation: str
    model: str
    matched: float
    lam: float
    dropped: list[str] = []
    missing: list[str] = []
    differences: list[DifferenceEntry] = []


class AlignedEntry(BaseModel):
    """`units` of the base's group before it grew by `added`, and of the donor's."""

    donor: str
    base_group: str
    donor_group: str
    units: tuple[int, int]
    added: int = 0
    assigned: int
    value: float
    random: float


class StartEntry(BaseModel):
    """One start of the alternation: the objective before the first pass and after each; it ends where none gains."""

    donor: str
    start: str
    objective: list[float]


class WindowEntry(BaseModel):
    """A convolution of the base whose window grew."""

    layer: str
    taps: tuple[list[int], list[int]]


class WidenedEntry(BaseModel):
    """A group of the base that got units, or, in each unit of the group `inside`, all that are like it."""

    donor: str
    group: str
    units: tuple[int, int]
    inside: str | None = None


class KeptWidthEntry(BaseModel):
    """A group of the base that has another width than the donor's and is not made to fit it."""

    donor: str
    group: str
    units: int
    reason: str


class RepairEntry(BaseModel):
    """What was repaired after one merge: layers brought to their targets, BatchNormalizations measured anew; or, of 0
    samples, given the variance that blended sums are expected to have."""

    donor: str
    samples: int
    rescaled: list[str]
    reset: list[str]
    left: list[ReasonEntry] = []


class ResultDocument(ReportDocument):
    """What every report of a model that was made holds; `config` is the run's, of arrays the types and shapes, `sha256`
    is of the files that were read, and `written` of those that were written, by path."""

    base: str
    config: dict[str, Any]
    checks: list[Check]
    warnings: list[Meaning] = []
    notes: list[str]
    choice: Choice | None = None
    pareto: list[ParetoEntry] = []
    speeds: Speeds | None = None
    scores: list[Scores]
    verdict: Verdict | None = None
    output: str | None = None
    written: dict[str, str] = {}


class MergeDocument(ResultDocument):
    """What every report of a merge of weights holds."""

    signatures: list[SignaturesEntry] = []
    merged: list[MergedEntry]
    accounts: AccountsEntry
    repair: list[RepairEntry] = []
    shares: list[float]


class AssembleDocument(MergeDocument):
    """JSON of `mal-graph assemble`."""

    schema_: str = Field("mal-graph/assemble/5", alias="schema")
    donors: list[str]
    method: UsedMethodEntry | None = None
    lam: float
    skipped: list[ReasonEntry]
    unmatched_donor: list[ReasonEntry]
    merged_parameters: int
    alignment: list[AlignedEntry]
    widened: list[WidenedEntry] = []
    kept_widths: list[KeptWidthEntry] = []
    windows: list[WindowEntry] = []
    added_layers: list[str] = []
    objective: list[float]
    starts: list[StartEntry] = []
    peak_bytes: int
    ladders: list[LadderEntry] = []


class EvaluateDocument(Document):
    """JSON of `mal-graph evaluate`."""

    schema_: str = Field("mal-graph/evaluate/1", alias="schema")
    scores: list[Scores]
    notes: list[str] = []


class GateEntry(BaseModel):
    """What a model had to meet on the deciding part of the data, and how the result does there."""

    samples: int
    eps: float
    base: Scores
    result: Scores


class ZooDocument(MergeDocument):
    """JSON of `mal-graph zoo`; `scores` are of the reporting part of the data."""

    schema_: str = Field("mal-graph/zoo/4", alias="schema")
    decided_by: str
    gate: GateEntry | None
    lambdas: list[float]
    donors: list[dict[str, Any]]
    checkpoint: str | None = None
    ladders: list[LadderEntry] = []


# --- match --------------------------------------------------------------------------------------------------------


def match_document(compared: Comparison, pair: Iterable[tuple[str, str]] = ()) -> MatchDocument:
    """What `match` shows of two models; `pair` are inputs and outputs that are paired by hand. Raises UsageError."""
    base, donor, match = compared.base, compared.donor, compared.match
    return MatchDocument(
        base=base.name,
        donor=donor.name,
        pairs=[pair_entry(pair) for pair in match.pairs],
        unmatched_base=[ReasonEntry(layer=name, reason=why) for name, why in match.unmatched_base.items()],
        unmatched_donor=[ReasonEntry(layer=name, reason=why) for name, why in match.unmatched_donor.items()],
        matched_parameters=sum(int(np.prod(p.shape)) for pair in match.pairs for p in pair.base.parameters),
        parameters=sum(weight.size for weight in base.weights.values() if weight.is_float),
        signatures=found_signatures(base, donor, pair),
        ladder=ladder_of_comparison(compared),
    )


def found_signatures(base: LayerGraph, donor: LayerGraph, pair: Iterable[tuple[str, str]]) -> SignaturesEntry:
    """How inputs and outputs are paired, or why they cannot be: layers have partners whatever they are called."""
    try:
        return signatures_entry(base, donor, pair_signatures(base, donor, pair))
    except MatchError as error:
        return SignaturesEntry(donor=donor.name, unpaired=str(error))


def signatures_entry(base: LayerGraph, donor: LayerGraph, signatures: Signatures) -> SignaturesEntry:
    return SignaturesEntry(
        donor=donor.name,
        inputs=dict(signatures.inputs),
        outputs=dict(signatures.outputs),
        by=list(signatures.by),
        told=list(tell_pairs(base, donor, signatures)),
    )


def pair_entry(pair: LayerPair) -> PairEntry:
    into, out = zip(pair.base.in_out, pair.donor.in_out, strict=True)
    return PairEntry(
        base=pair.base.name,
        donor=pair.donor.name,
        score=pair.score,
        reason=pair.reason,
        widths={"in": into, "out": out},
        relation=pair.relation,
        differences=list(difference_entries(pair)),
    )


def difference_entries(pair: LayerPair) -> Iterator[DifferenceEntry]:
    for difference in pair.differences:
        yield DifferenceEntry(**asdict(difference), what=difference.what, meaning=difference.meaning)


# --- assemble -----------------------------------------------------------------------------------------------------


def assemble_document(assembly: Assembly) -> AssembleDocument:
    """The report of a merge."""
    steps = assembly.merged
    return AssembleDocument(
        **shared_entries(assembly),
        donors=[step.donor.name for step in steps],
        method=None if assembly.stacked is None else used_method(assembly.stacked),
        lam=steps[0].plan.mean_lam,
        skipped=list(skipped_layers(assembly)),
        unmatched_donor=list(unused_donor_layers(assembly)),
        merged_parameters=merged_parameters(assembly),
        alignment=[entry for step in steps for entry in aligned_entries(step)],
        widened=[entry for step in steps for entry in widened_entries(step)],
        kept_widths=[entry for step in steps for entry in kept_width_entries(step)],
        windows=[entry for step in steps for entry in window_entries(step)],
        added_layers=[name for step in steps for name in step.added],
        objective=[step.plan.alignment.objective for step in steps],
        starts=[entry for step in steps for entry in start_entries(step)],
        peak_bytes=assembly.peak_bytes,
    )


def shared_entries(assembly: Assembly) -> dict[str, Any]:
    """What the reports of `assemble` and `zoo` have in common."""
    unscored = [f"{name} has no score and no part in the ensemble: {why}" for name, why in assembly.unscored.items()]
    return {
        "base": assembly.base.name,
        "config": assembly.config.to_dict(),
        "signatures": [signatures_entry(assembly.base, step.donor, step.signatures) for step in assembly.merged],
        "merged": [entry for step in assembly.merged for entry in merged_entries(step)],
        "accounts": accounts_entry(assembly.accounts),
        "repair": [entry for step in assembly.merged for entry in repair_entries(step)],
        "shares": list(assembly.shares),
        "checks": list(assembly.checks),
        "choice": assembly.choice,
        "pareto": list(assembly.pareto),
        "speeds": assembly.speeds,
        "warnings": list(assembly.meanings),
        "notes": [*assembly.data_notes, *unscored, *assembly.notes],
        "scores": list(assembly.scores),
        "verdict": assembly.verdict,
    }


def merged_entries(step: Merged) -> Iterator[MergedEntry]:
    for pair in step.plan.merged_pairs:
        name = pair.base.name
        own = [s for s in step.plan.steps if s.pair.layer == name]
        merged = {s.tensor for s in own}
        kept = (prod(p.shape) for p in pair.base.parameters if p.tensor not in merged)
        yield MergedEntry(
            base=name,
            donor=pair.donor.name,
            relation=pair.relation,
            model=step.donor.name,
            matched=sum(s.matched * s.size for s in own) / max(1, sum(s.size for s in own) + sum(kept)),
            lam=own[0].lam,
            dropped=list(step.plan.dropped.get(name, ())),
            missing=list(step.plan.missing.get(name, ())),
            differences=list(difference_entries(pair)),
        )


def skipped_layers(assembly: Assembly) -> Iterator[ReasonEntry]:
    """Layers of the base that keep its weights, for every donor, with what else in them differs from the donor's; with
    several donors the reason names it."""
    for step in assembly.merged:
        yield from reason_entries(assembly, step, step.match.base, kept_reasons(step))


def kept_reasons(step: Merged) -> dict[str, str]:
    """Why layers of the base keep its weights, by name."""
    # Of a layer that was not refused as a whole, the reason is what it has no counterpart for.
    refused = {*step.plan.alignment.correspondence.refused, *step.promises.kept}
    return {
        name: "; ".join((why, *(step.plan.missing.get(name, ()) if name in refused else ())))
        for name, why in step.plan.skipped.items()
    }


def unused_donor_layers(assembly: Assembly) -> Iterator[ReasonEntry]:
    """Layers of the donors that went nowhere, as `skipped_layers`."""
    for step in assembly.merged:
        yield from reason_entries(assembly, step, step.match.donor, step.match.unmatched_donor)


def reason_entries(
    assembly: Assembly, step: Merged, layers: Sequence[Layer], reasons: Mapping[str, str]
) -> Iterator[ReasonEntry]:
    """The reasons that layers have, in the order of the layers."""
    donor = f"{step.donor.name}: " if len(assembly.merged) > 1 else ""
    for layer in layers:
        if layer.name in reasons:
            yield ReasonEntry(layer=layer.name, reason=f"{donor}{reasons[layer.name]}")


def merged_parameters(assembly: Assembly) -> int:
    """How many parameters of the base at least one donor was merged into."""
    copies = assembly.base.copies
    sizes = {s.tensor: s.size for step in assembly.merged for s in step.plan.steps if s.tensor not in copies}
    return sum(sizes.values())


def widened_entries(step: Merged) -> Iterator[WidenedEntry]:
    """What grew; of groups that lie inside units, those inside the first one."""
    for index, added in step.plan.growth.added.items():
        group = step.groups.groups[index]
        if group.inside is None or group.inside[1] == 0:
            units = (group.units, group.units + added)
            inside = group.inside[0] if group.inside else None
            yield WidenedEntry(donor=step.donor.name, group=group.name, units=units, inside=inside)


def kept_width_entries(step: Merged) -> Iterator[KeptWidthEntry]:
    """What keeps its width, and why; of groups that lie inside units, those inside the first one."""
    for index, reason in step.plan.growth.kept.items():
        group = step.groups.groups[index]
        if group.inside is None or group.inside[1] == 0:
            yield KeptWidthEntry(donor=step.donor.name, group=group.name, units=group.units, reason=reason)


def start_entries(step: Merged) -> Iterator[StartEntry]:
    """The starts of one alignment; the one that was kept alone where it needed no comparison."""
    alignment = step.plan.alignment
    for start, history in alignment.starts or ((alignment.start, alignment.history),):
        yield StartEntry(donor=step.donor.name, start=start, objective=list(history))


def repair_entries(step: Merged) -> Iterator[RepairEntry]:
    if step.repair is not None:
        yield RepairEntry(
            donor=step.donor.name,
            samples=step.repair.samples,
            rescaled=list(step.repair.rescaled),
            reset=list(step.repair.reset),
            left=[ReasonEntry(layer=layer, reason=why) for layer, why in step.repair.left.items()],
        )


def window_entries(step: Merged) -> Iterator[WindowEntry]:
    for name, (old, new) in step.windows.items():
        yield WindowEntry(layer=name, taps=(list(old), list(new)))


def aligned_entries(step: Merged) -> Iterator[AlignedEntry]:
    alignment, widened = step.plan.alignment, step.plan.growth.added
    pairs = alignment.correspondence
    for pair, units, order, value, random in zip(
        pairs.pairs, pairs.units, alignment.orders, alignment.values, alignment.random_values, strict=True
    ):
        added = widened.get(pair.base, 0)
        yield AlignedEntry(
            donor=step.donor.name,
            base_group=step.groups.groups[pair.base].name,
            donor_group=step.donor_groups.groups[pair.donor].name,
            units=(units[0] - added, units[1]),
            added=added,
            assigned=int((order >= 0).sum()),
            value=value,
            random=random,
        )


# --- zoo ----------------------------------------------------------------------------------------------------------


def zoo_document(zoo: Zoo) -> ZooDocument:
    """The report of a search."""
    terms = zoo.terms
    gate = None
    if terms.gate is not None and zoo.best is not None:
        base = terms.gate.base
        gate = GateEntry(samples=base.samples, eps=terms.gate.eps, base=base, result=zoo.best)
    return ZooDocument(
        **shared_entries(zoo.assembly),
        decided_by=terms.basis,
        gate=gate,
        lambdas=list(terms.lambdas),
        donors=[outcome_entry(outcome) for outcome in zoo.outcomes],
    )


def outcome_entry(outcome: Outcome) -> dict[str, Any]:
    """What became of a donor; the orders of its units stand in the checkpoint alone."""
    entry = asdict(outcome)
    if entry["kept"] is not None:
        del entry["kept"]["orders"]
    return entry
