"""The JSON reports of `sweep`, along lambda and layer by layer."""

from typing import Any

from pydantic import BaseModel, Field

from mal_graph.evaluation import Scores
from mal_graph.figure import Figure
from mal_graph.ladder import LadderEntry
from mal_graph.protocols import Check
from mal_graph.reporting.document import ReportDocument, csv_text
from mal_graph.reporting.documents import RepairEntry, repair_entries
from mal_graph.workflows import Curve, Grid, Meaning, Sweep, notes_on


class CurveEntry(BaseModel):
    """The merge or one baseline at every lambda."""

    name: str
    lambda_star: float
    rise: Figure
    barrier: float | None
    loss: list[Figure]
    metric: list[Figure]


class SweepDocument(ReportDocument):
    """JSON of `mal-graph sweep`."""

    schema_: str = Field("mal-graph/sweep/3", alias="schema")
    base: str
    donor: str
    config: dict[str, Any]
    lambdas: list[float]
    loss_name: str
    metric_name: str
    samples: int
    curves: list[CurveEntry]
    donor_scores: Scores | None
    unscored: str = ""
    checks: list[Check] = []
    findings: list[str]
    warnings: list[Meaning] = []
    repair: list[RepairEntry] = []
    notes: list[str] = []
    ladders: list[LadderEntry] = []

    def csv_text(self) -> str:
        rows = [
            (curve.name, *point)
            for curve in self.curves
            for point in zip(self.lambdas, curve.loss, curve.metric, strict=True)
        ]
        return csv_text(("curve", "lambda", "loss", self.metric_name), rows)


class BlankEntry(BaseModel):
    """A cell of a grid that holds nothing."""

    base: str
    donor: str
    reason: str


class GridDocument(ReportDocument):
    """JSON of `mal-graph sweep --grid`."""

    schema_: str = Field("mal-graph/grid/3", alias="schema")
    base: str
    donor: str
    lam: float
    base_loss: Figure
    base_layers: list[str]
    donor_layers: list[str]
    change: list[list[Figure]]
    blank: list[BlankEntry]
    ladders: list[LadderEntry] = []

    def csv_text(self) -> str:
        why = {(pair.base, pair.donor): pair.reason for pair in self.blank}
        rows = [
            (a, b, "" if (a, b) in why else change, why.get((a, b), ""))
            for a, line in zip(self.base_layers, self.change, strict=True)
            for b, change in zip(self.donor_layers, line, strict=True)
        ]
        return csv_text(("base layer", "donor layer", "change of the loss", "reason"), rows)


def sweep_document(sweep: Sweep) -> SweepDocument:
    """The report of a sweep."""
    first = sweep.curves[0].points[0]
    return SweepDocument(
        base=sweep.base,
        donor=sweep.donor,
        config=sweep.config.to_dict(),
        lambdas=list(sweep.lambdas),
        loss_name=first.loss_name,
        metric_name=first.metric_name,
        samples=first.samples,
        curves=[curve_entry(curve) for curve in sweep.curves],
        donor_scores=sweep.donor_scores,
        unscored=sweep.unscored,
        checks=list(sweep.checks),
        findings=list(sweep.findings),
        warnings=list(sweep.meanings),
        repair=list(repair_entries(sweep.step)),
        notes=[*sweep.data_notes, *notes_on([sweep.step], sweep.config)],
    )


def curve_entry(curve: Curve) -> CurveEntry:
    return CurveEntry(
        name=curve.arm,
        lambda_star=curve.lam_star,
        rise=curve.rise,
        barrier=curve.barrier,
        loss=[point.loss for point in curve.points],
        metric=[point.metric for point in curve.points],
    )


def grid_document(grid: Grid) -> GridDocument:
    """The report of a map of single layers."""
    return GridDocument(
        base=grid.base,
        donor=grid.donor,
        lam=grid.lam,
        base_loss=grid.base_loss,
        base_layers=list(grid.base_layers),
        donor_layers=list(grid.donor_layers),
        change=grid.change.tolist(),
        blank=[
            BlankEntry(base=grid.base_layers[i], donor=grid.donor_layers[j], reason=reason)
            for (i, j), reason in grid.reasons.items()
        ],
    )
