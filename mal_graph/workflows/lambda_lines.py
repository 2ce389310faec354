"""A merge at any lambda: between its ends it is a straight line, of which every point is A + lambda (B - A).

The ends are merged once, and the points are fed to one session as inputs. With calibration inputs every point is
repaired, measured in one more session; without them, BatchNormalizations get the variances that are expected. Where
operators hold numbers of their own that go with lambda (the epsilon of a norm over other widths) every point has a
session, which reads, optimises and packs the same weights again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from mal_graph.config import MergeConfig
from mal_graph.evaluation import Metric, Predictor, Scores, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.merging import ExpectedVariances, Plan, Repair, Repairs, merge
from mal_graph.protocols import Runner
from mal_graph.workflows.steps import repair_inputs, with_repair


def scored_along(
    line: "Along",
    lambdas: Sequence[float],
    arm: str,
    data: Mapping[str, Array],
    config: MergeConfig,
    runner: Runner,
    metric: Metric = score,
) -> Iterator[Scores]:
    """The scores of one arm at every lambda, out of one session as long as the graph is the same."""
    asked: Predictor | None = None
    for lam in lambdas:
        graph = line.graph_at(lam)
        if asked is None or graph is not asked.graph:
            asked = Predictor(
                graph,
                data,
                score_output=config.score_output,
                output_kind=config.output_kind,
                runner=runner,
                variable=line.names,
            )
        yield metric(asked.predict(line.at(lam)), asked.labels, arm)


def line_of(
    planned: Plan, donor: LayerGraph, config: MergeConfig, runner: Runner, *, is_merged: bool = True
) -> "Along":
    """A merge at any lambda, repaired unless the options say otherwise; without `is_merged` the base alone is."""
    if is_merged and any(a != b for a, b in planned.all_settings.values()):
        return Points(planned, donor, config, runner)
    inputs = repair_inputs(config)
    if inputs is None and is_merged:
        return unmeasured_line(planned, config)
    line = Line(planned, is_merged=is_merged)
    return line if inputs is None else RepairedLine(line, Repairs(line.start, planned, inputs, runner, line.names))


def unmeasured_line(planned: Plan, config: MergeConfig) -> "Line | RepairedLine":
    """A merge at any lambda without inputs, repaired by what is expected unless the options say otherwise."""
    line = Line(planned)
    variances = ExpectedVariances(line.start, planned, line.names) if config.repair else None
    return RepairedLine(line, variances) if variances is not None and variances.norms else line


class Along(Protocol):
    """A merge at any lambda.

    Attributes:
        names: the weights that `at` gives to the session of a point.
        repair: what was repaired, known once a point was asked for; None if nothing was to be.
    """

    @property
    def names(self) -> list[str]: ...

    @property
    def repair(self) -> Repair | None: ...

    def graph_at(self, lam: float) -> LayerGraph:
        """The model of a point; the same object wherever one session serves."""

    def at(self, lam: float) -> dict[str, Array]:
        """The weights of a point."""


class Line:
    """The tensors that a merge changes, at any lambda; the same arrays are filled again for every point.

    Without `is_merged` nothing changes: every point is the plan's base.
    """

    repair = None

    def __init__(self, planned: Plan, *, is_merged: bool = True) -> None:
        ends = [merge(planned.at(lam)) for lam in (0.0, 1.0)] if is_merged else [planned.base] * 2
        self.start, end = ends
        moved = [name for name, weight in end.weights.items() if weight is not self.start.weights[name]]
        self.ends = {name: (self.start.weights[name].read(), end.weights[name].read()) for name in moved}
        self.steps = {name: wide(b) - wide(a) for name, (a, b) in self.ends.items()}
        self.sums = {name: np.empty_like(step) for name, step in self.steps.items()}

    @property
    def names(self) -> list[str]:
        return list(self.ends)

    def graph_at(self, lam: float) -> LayerGraph:
        return self.start

    def at(self, lam: float) -> dict[str, Array]:
        """A + lambda (B - A) in the tensors' own types; the ends are copied, not computed."""
        if lam in (0.0, 1.0):
            return {name: ends[int(lam)] for name, ends in self.ends.items()}
        for name, (a, _) in self.ends.items():
            np.multiply(self.steps[name], self.steps[name].dtype.type(lam), out=self.sums[name])
            np.add(self.sums[name], a, out=self.sums[name])
        return {name: self.sums[name].astype(a.dtype, copy=False) for name, (a, _) in self.ends.items()}


class RepairedLine:
    """A line of which every point but that at lambda 0 is repaired."""

    def __init__(self, line: Line, repairs: Repairs | ExpectedVariances) -> None:
        self.line, self.repairs, self.repair = line, repairs, repairs.done

    @property
    def names(self) -> list[str]:
        return list(self.repairs.weights)

    def graph_at(self, lam: float) -> LayerGraph:
        return self.repairs.graph

    def at(self, lam: float) -> dict[str, Array]:
        moved = self.line.at(lam)
        return self.repairs.weights_of(self.repairs.plan.at(lam), moved) if lam else {**self.repairs.weights, **moved}


class Points:
    """A merge in which operators hold numbers that go with lambda: every point is a model of its own."""

    def __init__(self, planned: Plan, donor: LayerGraph, config: MergeConfig, runner: Runner) -> None:
        self.planned, self.donor, self.config, self.runner = planned, donor, config, runner
        self.names: list[str] = []
        self.repair: Repair | None = None

    def graph_at(self, lam: float) -> LayerGraph:
        planned = self.planned.at(lam)
        graph, done = with_repair(merge(planned), planned, self.donor, self.config, self.runner)
        self.repair = done or self.repair
        return graph

    def at(self, lam: float) -> dict[str, Array]:
        return {}


def wide(values: Array) -> Array:
    """The values in the type they are computed in: float32, or float64 where they are stored so."""
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)
