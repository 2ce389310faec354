"""One network with all that is known of it: what the steps from matching on hand to each other."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import Layer, Parameter, Probe, probe
from mal_graph.protocols import Runner
from mal_graph.registry import Model
from mal_graph.symmetry.grouping import axis_groups, find_traces
from mal_graph.symmetry.groups import AxisGroups, Traces
from mal_graph.symmetry.position_names import PositionNames, name_positions
from mal_graph.symmetry.resizing import find_coupled
from mal_graph.symmetry.verification import verify

Called = frozenset[tuple[str, str]]  # names with the others that are used in their place


@dataclass(frozen=True, repr=False)
class Network(Brief):
    """A graph with its layers, its axis groups and the run they rest on; each is computed once.

    Attributes:
        graph: the operators and weights.
        groups: its axis groups, verified or not.
    """

    graph: LayerGraph
    groups: AxisGroups

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self.graph.name

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every application of a stored float tensor, in topological order."""
        return self.groups.parameters

    @property
    def probe(self) -> Probe:
        """The inputs of the probe run, with the shapes and values that it showed."""
        return self.groups.probed

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in topological order."""
        return self.groups.layers

    @cached_property
    def traces(self) -> Traces:
        """Where the units of each group lie."""
        return find_traces(self.graph, self.groups)

    @cached_property
    def coupled(self) -> Sequence[set[str]]:
        """The groups, by name, that can only be resized together."""
        return find_coupled(self.groups, self.traces)

    def position_names(
        self,
        called: Mapping[str, str] | None = None,
        batched: Collection[str] | None = None,
        *,
        is_fine: bool = False,
    ) -> PositionNames:
        """Names for the positions on stored axes, made once for the same arguments.

        Args:
            called: other names for its inputs and outputs: those of the network it is compared with.
            batched: the inputs whose first axis holds samples; those where it is dynamic if None.
            is_fine: tell apart what is made of one index by different operators.
        """
        others = {name: other for name, other in (called or {}).items() if name != other}
        return self._named(frozenset(others.items()), None if batched is None else frozenset(batched), is_fine)

    @cached_property
    def _named(self) -> Callable[[Called, frozenset[str] | None, bool], PositionNames]:
        """`name_positions`, which remembers what it named."""

        def named(called: Called, batched: frozenset[str] | None, is_fine: bool) -> PositionNames:
            return name_positions(self.graph, self.groups, dict(called), batched, is_fine=is_fine)

        return cache(named)

    def with_graph(self, graph: LayerGraph) -> "Network":
        """The same network with other values in its weights: its groups stay, for they do not depend on values."""
        return replace(self, graph=graph)


def build_network(
    graph: Model,
    runner: Runner | None = None,
    *,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    verified: bool = True,
    full: bool = False,
    seed: int = 0,
    timeout: float | None = None,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Network:
    """Run a graph once, find its axis groups, and verify them.

    Args:
        graph: the network, as a graph, a path or a document.
        inputs: arrays for the probe run by input name; inputs left out are drawn at random.
        input_shapes: shapes by input name, for inputs to be drawn.
        verified: verify the groups; their units may be permuted on trust otherwise.
        full: verify with every member of a group left out in turn, not one of each role.
        timeout: seconds that the probe run and the verification may take, each.
        max_memory: bytes that the verification may take.
        progress: called with (groups verified, groups in all).

    Raises:
        DataError: an input or shape names no input of the model, or does not fit it.
        RunError: the model cannot be run.
    """
    graph, runner = registry.as_graph(graph), runner or registry.runner()
    probed = probe(graph, runner, inputs=inputs, input_shapes=input_shapes, seed=seed, timeout=timeout)
    groups = axis_groups(graph, probed)
    if verified:
        groups = verify(
            graph, groups, runner, full=full, seed=seed, progress=progress, timeout=timeout, max_memory=max_memory
        )
    return Network(graph, groups)
