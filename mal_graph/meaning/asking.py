"""A model that is asked about chosen samples, its inputs changed before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mal_graph.brief import Brief
from mal_graph.evaluation import Arrays, list_batches
from mal_graph.graph import Array
from mal_graph.matching import Signatures
from mal_graph.meaning.input_changes import InputChange
from mal_graph.meaning.readings import Reading, few_places
from mal_graph.merging import Running
from mal_graph.network import SampleAxes, find_sample_axes

MOST_KEPT = 1 << 28  # bytes of answers


@dataclass(frozen=True, repr=False)
class Asked(Brief):
    """A model and the samples.

    Attributes:
        runnable: the model in a session.
        signatures: which of its inputs and outputs is which of the base's.
        inputs: every sample, by the base's names.
        axes: where they lie in these.
        remembers: whether answers are kept, so that every output can be read of one run.
    """

    runnable: Running
    signatures: Signatures
    inputs: Arrays
    axes: SampleAxes
    remembers: bool = True
    known: dict[tuple[Sequence[InputChange], bytes], dict[str, Array]] = field(default_factory=dict)

    def outputs(self, changes: Sequence[InputChange], samples: Array) -> Mapping[str, Array]:
        """The outputs for some samples, by the base's names. Raises RunError or DataError."""
        key = (tuple(changes), samples.tobytes())
        if key in self.known:
            return self.known[key]
        inputs = self.axes.taken(self.inputs, samples)
        for change in changes:
            inputs[change.input] = change.of(inputs[change.input])
        made = self.run(self.signatures.for_donor(inputs), len(samples))
        size = sum(array.nbytes for array in made.values())
        if self.remembers and size * (1 + len(self.known)) <= MOST_KEPT:
            self.known[key] = made
        return made

    def run(self, inputs: Arrays, count: int) -> dict[str, Array]:
        """The outputs for inputs by the model's own names, batch by batch."""
        graph = self.runnable.graph
        types = {value.name: value.dtype or "float32" for value in graph.inputs}
        parts, axes = [], find_sample_axes(graph)
        for batch in list_batches(graph, inputs, count):
            made = self.runnable.outputs(
                {name: axes.taken_of(name, inputs[name], batch).astype(kind) for name, kind in types.items()}
            )
            parts.append({name: few_places(array) for name, array in made.items()})
        return {
            own: together([part[theirs] for part in parts], count) for own, theirs in self.signatures.outputs.items()
        }

    def rows(self, reading: Reading, side: int, changes: Sequence[InputChange], samples: Array) -> Array:
        """The rows of one output for some samples. Raises RunError or DataError."""
        return reading.rows(self.outputs(changes, samples)[reading.output], side)


def together(parts: Sequence[Array], count: int) -> Array:
    """Batches of an output as one, without what filled the last one up; as it is where it holds no samples."""
    if len(parts) == 1 or any(part.shape[1:] != parts[0].shape[1:] or not part.ndim for part in parts):
        return parts[0][:count] if parts[0].ndim else parts[0]
    return np.concatenate(parts)[:count]
