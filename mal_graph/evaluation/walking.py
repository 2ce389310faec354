"""Samples on their way through a model in stages, where what is done behind a stage depends on what was read there.

What stands between two stages is kept for all samples, so that no operator is run twice, as far as it fits into memory;
else the next stage begins with the inputs again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mal_graph.evaluation.activation_statistics import (
    Moments,
    Place,
    Stream,
    batches_of,
    calibration_inputs,
    whole_batches,
)
from mal_graph.graph import Array, LayerGraph, Node, Value, needed_nodes
from mal_graph.network import fed_weights, find_sample_axes
from mal_graph.protocols import Runner, Session

MAX_KEPT = 1 << 30  # bytes between two stages


class Walk:
    """Calibration inputs on their way through one model.

    Args:
        graph: the model.
        arrays: its inputs, as `calibration_inputs` accepts them.
        stages: the tensors that are read in each, front to back.
        variable: weights that are given to every run.

    Raises:
        DataError: the arrays do not fit.
    """

    def __init__(
        self,
        graph: LayerGraph,
        arrays: Mapping[str, Array],
        runner: Runner,
        stages: Sequence[Sequence[str]],
        variable: Sequence[str] = (),
    ) -> None:
        self.graph, self.runner, self.axes = graph, runner, find_sample_axes(graph)
        self.inputs = calibration_inputs(graph, arrays)
        self.stages = [list(dict.fromkeys(stage)) for stage in stages]
        self.fed = {**fed_weights(graph), **{name: graph.weights[name].read() for name in variable}}
        self.sessions: dict[int, Session] = {}  # of stages that begin with what was kept: together they are one model
        self.begin()

    def begin(self) -> None:
        """Go to the first stage."""
        self.done = 0
        self.kept: list[dict[str, Array]] | None = None  # for each batch what the next stage begins with

    @property
    def samples(self) -> int:
        """How many samples are run: whole batches, where their size is fixed."""
        return whole_batches(self.graph, self.inputs)

    def largest(self) -> int:
        """The entries that one sample takes in the stage that reads most. Raises RunError."""
        tensors = list(dict.fromkeys(name for stage in self.stages for name in stage))
        one = Stream(self.graph, self.inputs, self.runner, tensors, list(self.fed)).read(slice(0, 1), tensors)
        return max((sum(one[name].size for name in stage) for stage in self.stages), default=0)

    def next_stage(self, batches: Sequence[slice], weights: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
        """The tensors of the next stage, batch by batch; all batches have to be taken.

        Args:
            batches: the same in all stages.
            weights: other values of the variable weights.

        Raises:
            RunError: the model does not run.
        """
        wanted, later = self.stages[self.done], {name for stage in self.stages[self.done + 1 :] for name in stage}
        begun = self.kept or [self.axes.taken(self.inputs, batch) for batch in batches]
        known = begun[0].keys()
        nodes = needed_nodes(self.graph, wanted, known)
        given = known | {out for node in nodes for out in node.outputs if out}
        ahead = needed_nodes(self.graph, later, given)
        between = given & ({name for node in ahead for name in node.reads} | later)
        read = list(dict.fromkeys(name for name in (*wanted, *between) if name not in known))
        used = {name for node in nodes for name in node.reads} & self.fed.keys()
        session = self.sessions.get(self.done)
        kept: list[dict[str, Array]] | None = []
        for start in begun:
            values = dict(start)
            if read:
                session = session or self.runner.open(part_of(self.graph, nodes, start), read=read, variable=[*used])
                values |= session.run(start, {name: weights.get(name, self.fed[name]) for name in used}, read=read)
            yield {name: values[name] for name in wanted}
            if kept is not None:
                kept.append({name: values[name] for name in between})
                kept = kept if can_be_kept(kept[0], len(begun)) else None
        if session is not None and (self.kept or not self.done):
            self.sessions[self.done] = session
        self.kept, self.done = kept, self.done + 1

    def change(self, tensor: str, new: Callable[[Array], Array]) -> None:
        """Go on with other values of a tensor of the stage that was read last: those that it has with weights which
        are given from now on. Why: the operators that compute it are not run again."""
        for values in self.kept or ():
            if tensor in values:
                values[tensor] = new(values[tensor])


def part_of(graph: LayerGraph, nodes: Sequence[Node], given: Mapping[str, Array]) -> LayerGraph:
    """Some operators of a model as one of their own, which is given what the others compute."""
    declared = {value.name: value for value in graph.inputs}
    used = {name for node in nodes for name in node.reads}
    inputs = [
        declared.get(name, Value(name, array.dtype.name, (None,) * array.ndim))
        for name, array in given.items()
        if name in used
    ]
    return replace(graph, nodes=tuple(nodes), inputs=tuple(inputs), outputs=())


def can_be_kept(values: Mapping[str, Array], batches: int) -> bool:
    """Whether so many batches like this one fit into memory, and are arrays that a part of a model can be given."""
    return (
        all(array.dtype != object for array in values.values())
        and batches * sum(array.nbytes for array in values.values()) <= MAX_KEPT
    )


def measure_next(
    walk: Walk, batches: Sequence[slice], places: Sequence[Place], weights: Mapping[str, Array]
) -> dict[Place, Moments]:
    """Mean and deviation of every unit at the places of the next stage. Raises RunError."""
    measured = {place: Moments() for place in places}
    for values in walk.next_stage(batches, weights):
        for place, moments in measured.items():
            moments.add(place.rows(values[place.tensor]))
    return measured


def walk_together(
    walks: Sequence[Walk], batches: Sequence[slice], weights: Sequence[Mapping[str, Array]]
) -> Iterator[list[Mapping[str, Array]]]:
    """The tensors of the next stage of every model, batch by batch. Arguments and errors as for `Walk.next_stage`."""
    stages = [walk.next_stage(batches, own) for walk, own in zip(walks, weights, strict=True)]
    yield from map(list, zip(*stages, strict=True))


def find_walk_batches(walks: Sequence[Walk]) -> list[slice]:
    """Samples that several models run together in all stages. Raises DataError or RunError."""
    samples = min(walk.samples for walk in walks)
    return batches_of([walk.graph for walk in walks], samples, lambda: sum(walk.largest() for walk in walks))
