"""Runs of a model with branches taken that its inputs do not take: what is verified is verified in all of them."""

from collections.abc import Mapping, Sequence

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import Choices, with_branches
from mal_graph.protocols import Runner, Session

APART = " with branch "  # between the name of a tensor and the number of the run that gives it


def open_with_branches(
    graph: LayerGraph,
    runner: Runner,
    taken: Sequence[Choices],
    read: Sequence[str],
    variable: Sequence[str] = (),
    deadline: float | None = None,
) -> Session:
    """A session that runs a graph once as it is, and once for each set of branches; tensors of further runs have names
    of their own."""
    plain = list(dict.fromkeys(name.partition(APART)[0] for name in read))
    sessions = [
        runner.open(with_branches(graph, choices), read=plain, variable=variable, deadline=deadline)
        for choices in ({}, *taken)
    ]
    return Together(sessions) if taken else sessions[0]


class Together:
    """Several sessions as one: names of tensors end with the number of the session, that of the first excepted."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = sessions
        self.types: Mapping[str, str] = {
            named(name, number): dtype for number, one in enumerate(sessions) for name, dtype in one.types.items()
        }
        self.took = 0.0

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        wanted = set(self.types if read is None else read)
        values: dict[str, Array] = {}
        for number, one in enumerate(self.sessions):
            names = [name for name in one.types if named(name, number) in wanted]
            ran = one.run(inputs, weights, read=names, deadline=deadline) if names else {}
            values |= {named(name, number): array for name, array in ran.items()}
        self.took = sum(one.took for one in self.sessions)
        return values


def named(name: str, number: int) -> str:
    """What a tensor of one of several runs is called."""
    return f"{name}{APART}{number}" if number else name


def measure_with_branches(
    graph: LayerGraph,
    runner: Runner,
    taken: Sequence[Choices],
    read: Sequence[str],
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array],
    deadline: float | None = None,
) -> dict[str, Array]:
    """Some tensors, each of the first run that makes it. Raises RunError where the model does not run as it is."""
    values: dict[str, Array] = {}
    for choices in ({}, *taken):
        names = [name for name in read if name not in values]
        if names:
            changed = with_branches(graph, choices)
            try:
                session = runner.open(changed, read=names, variable=list(weights), deadline=deadline)
                values |= session.run(inputs, weights, read=names, deadline=deadline)
            except RunError:
                if not choices:
                    raise
    return values
