"""Base and donor run on the same inputs: those of both probes, and more samples like these."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures
from mal_graph.merging import Plan, Running, Sessions, merge
from mal_graph.network import draw_inputs, fed_weights, find_sample_axes, graph_in_float32
from mal_graph.operators import row_of
from mal_graph.symmetry import deviation

KEEPS = 1e-4  # of the largest output: what a merge may be off from what it promises
TOLD_APART = 100 * KEEPS  # how far two models must be apart for a comparison with the donor to say anything
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
class Side:
    """A model that is run on the base's inputs, with its own name for each, and read by the base's names."""

    runnable: Running
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that both models have. Raises RunError."""
        own = {name: inputs[given] for name, given in self.inputs.items()}
        made = self.runnable.outputs(as_declared(self.runnable.graph, own))
        return {name: made[own] for name, own in self.outputs.items()}


@dataclass(frozen=True)
class Models:
    """The two models of a merge, run on the same inputs, in float32."""

    base: LayerGraph
    donor: LayerGraph
    signatures: Signatures
    sessions: Sessions

    def as_base_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The donor's inputs under the base's names."""
        return {own: inputs[theirs] for own, theirs in self.signatures.inputs.items() if theirs in inputs}

    def as_donor_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The base's inputs under the donor's names."""
        return {theirs: inputs[own] for own, theirs in self.signatures.inputs.items() if own in inputs}

    def base_side(self, graph: LayerGraph) -> Side:
        """The base, or what was made of it. Raises RunError."""
        inputs, outputs = (
            {name: name for name in names} for names in (self.signatures.inputs, self.signatures.outputs)
        )
        return Side(self.sessions.open(graph_in_float32(graph)), inputs, outputs)

    def donor_side(self) -> Side:
        """The donor. Raises RunError."""
        inputs = {theirs: own for own, theirs in self.signatures.inputs.items()}
        return Side(self.sessions.open(graph_in_float32(self.donor)), inputs, self.signatures.outputs)

    def run(self, inputs: Mapping[str, Array]) -> Run:
        """What both models make of the same inputs. Raises RunError."""
        return Run(inputs, self.base_side(self.base).run(inputs), self.donor_side().run(inputs))

    def runs(self, sets: Sequence[Mapping[str, Array]]) -> Iterator[Run]:
        """The runs on each set of inputs that both can be run on; on equal ones once, as probes of one shape are."""
        for inputs in (one for i, one in enumerate(sets) if not any(are_equal(one, other) for other in sets[:i])):
            with suppress(RunError):  # a size that one of the two is not made for
                yield self.run(inputs)

    def draws_at_random(self, run: Run) -> bool:
        """Whether a model gives other outputs when it is run again."""
        again = self.run(run.inputs)
        return max(deviation(again.base, run.base), deviation(again.donor, run.donor)) > KEEPS

    def distance(self, plan: Plan, runs: Sequence[Run], *, to_donor: bool = False) -> float:
        """How far a merge is from the base on all inputs, or from the donor."""
        merged = self.base_side(merge(plan))
        return max(deviation(merged.run(run.inputs), run.donor if to_donor else run.base) for run in runs)

    def read(self, graph: LayerGraph, inputs: Mapping[str, Array], tensors: Sequence[str]) -> dict[str, Array]:
        """Tensors inside a graph. Raises RunError."""
        graph = graph_in_float32(graph)
        fed = fed_weights(graph)
        session = self.sessions.runner.open(graph, read=list(dict.fromkeys(tensors)), variable=list(fed))
        return session.run(as_declared(graph, inputs), fed)


def are_equal(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Whether two sets of inputs hold the same."""
    return a.keys() == b.keys() and all(
        array.dtype == b[name].dtype and np.array_equal(array, b[name]) for name, array in a.items()
    )


def as_declared(graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs in the types that a graph takes."""
    return {value.name: inputs[value.name].astype(value.dtype or "float32") for value in graph.inputs}


def for_other_branches(graph: LayerGraph, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Inputs that may take other branches than those of a probe, where a model has any: floats of the other sign, and
    whole numbers that it compares an input with."""
    if not any(node.runs for node in graph.nodes):
        return []
    turned = {name: -array if array.dtype.kind == "f" else array for name, array in inputs.items()}
    numbers = {
        name: [array.astype(inputs[name].dtype).reshape(inputs[name].shape) for array in compared_with(graph, name)]
        for name in inputs
        if inputs[name].size == 1 and inputs[name].dtype.kind in "iu"
    }
    return [turned, *({**inputs, name: number} for name, others in numbers.items() for number in others)]


def compared_with(graph: LayerGraph, name: str) -> list[Array]:
    """The stored numbers that a tensor is compared with, as it is or moved."""
    numbers: list[Array] = []
    for index, slot in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        row = row_of(node)
        if row is not None and row.moves and slot == 0:
            numbers += compared_with(graph, node.outputs[0])
        elif row is not None and row.compares:
            stored = [graph.weights[other] for other in node.inputs if other in graph.weights]
            numbers += [weight.read() for weight in stored if weight.size == 1]
    return numbers


def more_samples(graph: LayerGraph, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Inputs like those of a probe, with more samples: a unit that is silent on few of them shows on many. None where
    the number of samples is fixed."""
    axes = find_sample_axes(graph)
    lengths = set(axes.counts(inputs).values())
    placed = [(v.shape, axes.of(v.name)) for v in graph.inputs]
    is_fixed = any(not shape or isinstance(shape[axis], int) for shape, axis in placed if axis is not None)
    if is_fixed or len(lengths) != 1:
        return []
    (length,) = lengths
    largest = max(array.size // max(1, length) for array in inputs.values())
    samples = max(length, min(SAMPLES, ENTRIES // max(1, largest)))
    drawn = draw_inputs(graph, {name: axes.resized(name, array.shape, samples) for name, array in inputs.items()}, 1)
    return [{name: inputs[name] if axes.of(name) is None else array for name, array in drawn.items()}]
