"""How long a run of a result takes beside the models that it is made of, and how large their files are.

All models are run in turns, so that what slows the machine down slows them all alike, and the median of the times
counts. A file is what this package makes of a model, without notes on how it was made: of the base and the donors too,
so that they can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.errors import MalGraphError
from mal_graph.graph import Array, LayerGraph
from mal_graph.limits import usable_cores
from mal_graph.matching import pair_signatures
from mal_graph.network import count_multiplications, probe
from mal_graph.protocols import Runner, Session
from mal_graph.workflows.joint import open_joint
from mal_graph.workflows.models import Progress
from mal_graph.workflows.speeds import Speed, Speeds
from mal_graph.workflows.steps import verified_groups
from mal_graph.workflows.verdict import OUTPUTS
from mal_graph.workflows.writing import Written

WARM_UPS = 3  # runs of each model that are not timed
SECONDS = 1.0  # for all models together, if that makes
FEWEST, MOST = 10, 200  # runs of each

W = TypeVar("W", bound=Written)


@dataclass(frozen=True)
class Timed:
    """A model that is to be timed: what it is, and what it is run on."""

    name: str
    graph: LayerGraph
    inputs: Mapping[str, Array]


def with_speeds(result: W, graphs: Sequence[LayerGraph], config: MergeConfig, progress: Progress, runner: Runner) -> W:
    """A result with its speed beside that of the models it is made of, where that is asked for. Raises RunError."""
    if not config.measure_speed:
        return result
    return replace(result, speeds=measure_speeds(graphs, result.graph, config, progress, runner))


def measure_speeds(
    graphs: Sequence[LayerGraph], result: LayerGraph, config: MergeConfig, progress: Progress, runner: Runner
) -> Speeds:
    """The models that were given, the base first, their ensemble and the result, timed in turns.

    Raises:
        RunError: one of them does not run.
    """
    base, *donors = graphs
    options = config.replaced(verify=False)  # nothing is resized here
    inputs = verified_groups(base, options, runner, progress, []).probed.inputs
    timed = [Timed("base", base, inputs)]
    for number, donor in enumerate(donors, 1):
        paired = pair_signatures(base, donor, config.pair)
        timed.append(Timed("donor" if len(donors) == 1 else f"donor {number}", donor, paired.for_donor(inputs)))
    left_out = ""
    if donors:
        try:
            whole = open_joint(graphs, options, runner, progress).ensemble
            timed.append(Timed(OUTPUTS, whole, inputs))
        except MalGraphError as error:  # the models cannot stand side by side
            left_out = str(error)
    timed.append(Timed("result", result, inputs))
    threads = usable_cores()
    one, several = (median_times(timed, count, progress, runner) for count in (1, threads))
    models = [
        Speed(own.name, multiplications_of(own, runner), size_of(own.graph), ms, ms_all)
        for own, ms, ms_all in zip(timed, one.ms, several.ms, strict=True)
    ]
    shapes = {name: array.shape for name, array in inputs.items()}
    return Speeds(tuple(models), shapes, threads, (one.runs, several.runs), left_out)


@dataclass(frozen=True)
class Times:
    """The median time of a run of each model, in milliseconds, and how often each was run."""

    ms: tuple[float, ...]
    runs: int


def median_times(timed: Sequence[Timed], threads: int, progress: Progress, runner: Runner) -> Times:
    """Models run in turns on so many threads. Raises RunError."""
    sessions = [runner.open(own.graph, optimize=True, threads=threads) for own in timed]
    for session, own in zip(sessions, timed, strict=True):
        for _ in range(WARM_UPS):
            session.run(own.inputs)
    taken = [[time_of(session, own)] for session, own in zip(sessions, timed, strict=True)]
    runs = min(MOST, max(FEWEST, round(SECONDS / sum(first for (first,) in taken))))
    what = f"timing on {threads} thread{'s' * (threads > 1)}"
    for number in range(1, runs):
        progress(what, number, runs)
        for place in range(len(timed)):
            turn = (place + number) % len(timed)  # nobody always comes after the largest
            taken[turn].append(time_of(sessions[turn], timed[turn]))
    progress(what, runs, runs)
    return Times(tuple(1000 * median(own) for own in taken), runs)


def time_of(session: Session, own: Timed) -> float:
    """The seconds of one run."""
    session.run(own.inputs)
    return session.took


def multiplications_of(own: Timed, runner: Runner) -> int:
    """The multiplications of one run."""
    return count_multiplications(own.graph, probe(own.graph, runner, inputs=own.inputs).shapes)


def size_of(graph: LayerGraph) -> int:
    """The bytes of a model as an ONNX file, with those of its data file where it has one."""
    with TemporaryDirectory() as folder:
        registry.adapter_for("any.onnx").save(graph, Path(folder, "model.onnx"))
        return sum(path.stat().st_size for path in Path(folder).iterdir())
