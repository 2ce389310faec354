"""One run of a model with every tensor as an output: the shapes and integer values that axis rules need.

Chosen: measuring. Static shape inference knew none of 330 shapes of a detector with dynamic axes.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import monotonic

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.errors import MemoryLimitError, RunError
from mal_graph.graph import Array, LayerGraph, is_list
from mal_graph.network.bodies import Choices, Placed, choices_of, find_bodies, passing_bodies, with_branches
from mal_graph.network.parameters import find_applied
from mal_graph.network.probe_inputs import as_inputs, candidate_shapes, check_names, draw_inputs
from mal_graph.network.roots import data_dependent
from mal_graph.protocols import Runner, Session

KEPT_VALUES = 4096  # integer tensors up to this size keep their values
MOST_TOGETHER = 32  # runs that take as many branches as can be; branches in branches double their number
MOST_ALONE = 16  # branches that are taken one by one
CHUNK = 256  # tensors read in the first run; then twice as many each time, while they stay below
CHUNK_BYTES = 1 << 27
MOST_TOO_LARGE = 3  # inputs that may take too much memory before the model is refused
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class Probe(Brief):
    """What one run showed: the inputs used, the shape of every tensor, the values of small integer ones.

    Attributes:
        lists: by list of tensors the shapes of its elements.
        taken: branches that the inputs do not take, and that the model runs with all the same: one set for each
            further run.
        not_run: the bodies that no run reached, each with how messages say so.
    """

    inputs: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Array]
    lists: Mapping[str, Shapes] = field(default_factory=dict)
    taken: tuple[Choices, ...] = ()
    not_run: Mapping[str, str] = field(default_factory=dict)


def probe(
    graph: LayerGraph,
    runner: Runner | None = None,
    *,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    timeout: float | None = None,
) -> Probe:
    """Run `graph` once and note shapes and small integers.

    Args:
        inputs: arrays by input name; inputs left out are drawn at random.
        input_shapes: shapes by input name, for inputs to be drawn.
        timeout: seconds that the runs may take.

    Raises:
        DataError: an input or shape names no input of the model, or does not fit it.
        RunError: the model runs at none of the shapes tried.
        LimitError: it takes more than it may.
    """
    runner, inputs = runner or registry.runner(), inputs or {}
    check_names(graph, [*inputs, *(input_shapes or {})])
    deadline = None if timeout is None else monotonic() + timeout
    fed = fed_weights(graph)
    read = [out for node in graph.nodes for out in node.outputs if out]
    session = runner.open(graph, read=read, variable=list(fed), deadline=deadline)
    failure: RunError | MemoryLimitError | None = None
    too_large: list[int] = []  # numbers of inputs that took too much memory: only smaller ones are tried then
    for shapes in candidate_shapes(graph, dict(input_shapes or {})):
        count = sum(map(math.prod, shapes.values()))
        if too_large and (count >= too_large[-1] or len(too_large) == MOST_TOO_LARGE):
            continue
        drawn = {**draw_inputs(graph, shapes, seed), **as_inputs(graph, inputs)}
        try:
            return probe_on(drawn, graph, runner, session, fed, deadline)
        except (RunError, MemoryLimitError) as error:
            failure = failure or error
            if isinstance(error, MemoryLimitError):
                too_large.append(count)
        if deadline is not None and monotonic() >= deadline:
            break
    if isinstance(failure, MemoryLimitError):
        raise failure
    raise RunError(f"{failure}; give shapes it runs at with `input_shapes`, or arrays with `inputs`")


def probe_on(
    inputs: Mapping[str, Array],
    graph: LayerGraph,
    runner: Runner,
    session: Session,
    fed: Mapping[str, Array],
    deadline: float | None,
) -> Probe:
    """What runs on these inputs show. Raises RunError or LimitError."""
    given = {**inputs, **fed}
    branches = Branches(graph, runner, given, deadline, measure(session, given, deadline))
    branches.take_all()
    probed = with_stored(graph, dict(inputs), branches.seen)
    return replace(probed, taken=tuple(branches.taken), not_run=branches.not_run)


@dataclass
class Seen:
    """What runs showed: shapes of tensors, values of the small integer ones, and of lists the shapes of elements."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    lists: dict[str, Shapes] = field(default_factory=dict)

    def note(self, name: str, array: Array) -> None:
        """Note what one tensor, or a list of them, was."""
        if is_list(array):
            self.lists[name] = tuple(np.shape(element) for element in array[()])
        elif array.dtype != object or array.ndim or isinstance(array[()], str | bytes):
            self.shapes[name] = array.shape
            if array.dtype.kind in "iub" and array.size <= KEPT_VALUES:
                self.values[name] = array

    def add(self, other: "Seen", names: Container[str]) -> None:
        """Add what another run showed of some tensors."""
        self.shapes.update({name: shape for name, shape in other.shapes.items() if name in names})
        self.values.update({name: value for name, value in other.values.items() if name in names})
        self.lists.update({name: shapes for name, shapes in other.lists.items() if name in names})


@dataclass
class Branches:
    """The branches that a run did not take, taken in further runs.

    Attributes:
        seen: what all runs showed so far.
        taken: the branches taken in each further run.
    """

    graph: LayerGraph
    runner: Runner
    fed: Mapping[str, Array]
    deadline: float | None
    seen: Seen
    taken: list[Choices] = field(default_factory=list)

    @cached_property
    def bodies(self) -> Mapping[str, Placed]:
        """All bodies, by name."""
        return find_bodies(self.graph)

    @cached_property
    def passing(self) -> frozenset[str]:
        """The branches that need no run."""
        return passing_bodies(self.graph)

    def choices(self, name: str) -> Choices:
        """The branches to be taken so that a body is run."""
        return choices_of(self.bodies, name)

    def take_all(self) -> None:
        """Take as many branches at once as can be, and by itself what does not run with others."""
        branches = [name for name in self.bodies if self.choices(name) and name not in self.passing]
        waiting = [name for name in branches if not self.is_run(name) or self.is_chosen_by_weights(name)]
        alone: list[str] = []
        runs = 0
        while waiting and runs < MOST_TOGETHER:
            runs += 1
            choices: dict[str, int] = {}
            for name in waiting:
                own = self.choices(name)
                choices |= own if all(choices.get(end, place) == place for end, place in own.items()) else {}
            together = [name for name in waiting if self.choices(name).items() <= choices.items()]
            waiting = [name for name in waiting if name not in together]
            alone += [] if self.take(choices) else together
        for name in alone[:MOST_ALONE]:
            self.take(self.choices(name))

    def is_chosen_by_weights(self, name: str) -> bool:
        """Whether other weights may take another branch: then a run with drawn ones need not take those of this one."""
        condition = self.bodies[name].end.inputs[0]
        return condition in self.weighed or (condition in self.graph.inner and self.has_weighed_run)

    @cached_property
    def has_weighed_run(self) -> bool:
        """Whether any operator that runs bodies computes with float weights: the bodies are run as a whole."""
        return any(not self.weighed.isdisjoint(node.outputs) for node in self.graph.nodes if node.runs)

    @cached_property
    def weighed(self) -> frozenset[str]:
        """The tensors that are computed with float weights of several numbers."""
        stored = {name for name, weight in self.graph.weights.items() if weight.is_float and weight.size > 1}
        weighed: set[str] = set()
        for node in self.graph.nodes:
            if any(name in weighed or name in stored for name in node.reads):
                weighed.update(filter(None, node.outputs))
        return frozenset(weighed)

    def take(self, choices: Choices) -> bool:
        """Whether the model runs with some branches taken."""
        inner = self.graph.inner - self.seen.shapes.keys() - self.seen.lists.keys()
        read = [*(value.name for value in self.graph.outputs), *sorted(inner)]
        changed = with_branches(self.graph, choices)
        variable = [name for name in self.fed if name in self.graph.weights]
        try:
            session = self.runner.open(changed, read=read, variable=variable, deadline=self.deadline)
            seen = measure(session, self.fed, self.deadline)
        except RunError:
            return False
        self.seen.add(seen, inner)
        self.taken.append(choices)
        return True

    def is_run(self, name: str) -> bool:
        """Whether a run reached a body, or none has to."""
        body, choices = self.bodies[name].body, self.choices(name)
        made = [out for node in body.nodes for out in node.outputs if out]
        if not made:
            return not choices or any(choices.items() <= taken.items() for taken in self.taken)
        return name in self.passing or any(out in self.seen.shapes for out in made)

    @property
    def not_run(self) -> dict[str, str]:
        """The bodies that no run reached."""
        return {name: f"{body} was not run by the probe" for name, body in self.bodies.items() if not self.is_run(name)}


def fed_weights(graph: LayerGraph) -> dict[str, Array]:
    """The weights by name, to be fed to a session rather than copied into its model, which ends at 2 GB and is slow to
    open where it stores many."""
    tensors = dict.fromkeys(parameter.tensor for parameter in find_applied(graph))
    return {name: graph.weights[name].read() for name in tensors if graph.weights[name].size > 1}


def probe_without_running(graph: LayerGraph) -> Probe:
    """What is known of a model that cannot be run: its stored tensors."""
    return with_stored(graph, {}, Seen())


def measure(session: Session, inputs: Mapping[str, Array], deadline: float | None = None) -> Seen:
    """Shapes of all tensors that a session makes, values of the small integer ones, and shapes in lists of tensors."""
    names, seen = list(session.types), Seen()
    start, count = 0, CHUNK
    while start < len(names):
        read = session.run(inputs, read=names[start : start + count], deadline=deadline)
        start += count
        if sum(array.nbytes for array in read.values()) < CHUNK_BYTES:
            count *= 2
        for name, array in read.items():
            seen.note(name, array)
    return seen


def with_stored(graph: LayerGraph, inputs: dict[str, Array], seen: Seen) -> Probe:
    """Add what needs no run: inputs and weights. Values that depend on an input's values are not constants."""
    shapes = {**seen.shapes, **{name: array.shape for name, array in inputs.items()}}
    live = data_dependent(graph)
    known = {name: value for name, value in seen.values.items() if name not in live}
    for name, weight in graph.weights.items():
        shapes[name] = weight.shape
        if not weight.scope and weight.dtype.kind in "iub" and weight.size <= KEPT_VALUES:
            known[name] = weight.read()
    return Probe(inputs, shapes, known, seen.lists)
