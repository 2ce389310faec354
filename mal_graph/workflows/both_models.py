"""Base and donor run on the same inputs: those of both probes, and more samples like these."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures
from mal_graph.merging import Plan, merge, run_outputs
from mal_graph.network import draw_inputs, fed_weights
from mal_graph.protocols import Runner
from mal_graph.symmetry import deviation, graph_in_float32

KEEPS = 1e-4  # of the largest output: what a merge may be off from what it promises
SAMPLES = 64  # of the inputs that are drawn beside those of the probe, as far as they hold no more than ENTRIES numbers
ENTRIES = 1 << 18

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Run:
    """What base and donor make of the same inputs; the donor's outputs under the base's names."""

    inputs: Mapping[str, Array]
    base: Outputs
    donor: Outputs


@dataclass(frozen=True)
class Models:
    """The two models of a merge, run on the same inputs, in float32."""

    base: LayerGraph
    donor: LayerGraph
    signatures: Signatures
    runner: Runner

    def as_base_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The donor's inputs under the base's names."""
        return {own: inputs[theirs] for own, theirs in self.signatures.inputs.items() if theirs in inputs}

    def as_donor_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The base's inputs under the donor's names."""
        return {theirs: inputs[own] for own, theirs in self.signatures.inputs.items() if own in inputs}

    def outputs(self, graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of the base, or of what was made of it, that the donor has too. Raises RunError."""
        made = self.run(graph, inputs)
        return {name: made[name] for name in self.signatures.outputs}

    def donor_outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The donor's outputs under the base's names. Raises RunError."""
        made = self.run(self.donor, self.as_donor_inputs(inputs))
        return {own: made[theirs] for own, theirs in self.signatures.outputs.items()}

    def run(self, graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of a graph. Raises RunError."""
        graph = graph_in_float32(graph)
        return run_outputs(graph, as_declared(graph, inputs), self.runner)

    def read(self, graph: LayerGraph, inputs: Mapping[str, Array], tensors: Sequence[str]) -> dict[str, Array]:
        """Tensors inside the base, or inside what was made of it. Raises RunError."""
        graph = graph_in_float32(graph)
        fed = fed_weights(graph)
        session = self.runner.open(graph, read=list(dict.fromkeys(tensors)), variable=list(fed))
        return session.run(as_declared(graph, inputs), fed)

    def runs(self, sets: Sequence[Mapping[str, Array]]) -> Iterator[Run]:
        """What both models make of each set of inputs that both can be run on."""
        for inputs in sets:
            try:
                yield Run(inputs, self.outputs(self.base, inputs), self.donor_outputs(inputs))
            except RunError:
                continue  # a size that one of the two is not made for

    def draws_at_random(self, run: Run) -> bool:
        """Whether a model gives other outputs when it is run again."""
        again = self.outputs(self.base, run.inputs), self.donor_outputs(run.inputs)
        return max(deviation(again[0], run.base), deviation(again[1], run.donor)) > KEEPS

    def distance(self, plan: Plan, runs: Sequence[Run], *, to_donor: bool = False) -> float:
        """How far a merge is from the base on all inputs, or from the donor."""
        graph = merge(plan)
        return max(deviation(self.outputs(graph, run.inputs), run.donor if to_donor else run.base) for run in runs)


def as_declared(graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs in the types that a graph takes."""
    return {value.name: inputs[value.name].astype(value.dtype or "float32") for value in graph.inputs}


def more_samples(graph: LayerGraph, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Inputs like those of a probe, with more samples: a unit that is silent on few of them shows on many. None where
    the number of samples is fixed."""
    lengths = {inputs[v.name].shape[0] for v in graph.inputs if inputs[v.name].ndim}
    is_fixed = any(not v.shape or isinstance(v.shape[0], int) for v in graph.inputs)
    if is_fixed or len(lengths) != 1:
        return []
    largest = max(array[0].size for array in inputs.values())
    samples = max(*lengths, min(SAMPLES, ENTRIES // max(1, largest)))
    shapes = {name: (samples, *array.shape[1:]) for name, array in inputs.items()}
    return [draw_inputs(graph, shapes, seed=1)]
