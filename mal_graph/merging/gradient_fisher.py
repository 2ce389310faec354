"""How much every entry of a traced model says of the classes that it gives: its diagonal Fisher information.

Of each sample, and each class, the gradient of the log-probability is squared, and counts as probable as the class is:
the labels are drawn from what the model gives, as the method takes them, and the mean over all draws is known.

Source: Matena and Raffel 2022 (arXiv:2111.09832), section 3.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.evaluation import OutputKind, Stream, fixed_batches, log_probabilities
from mal_graph.merging.class_rows import as_output, rows_of_classes
from mal_graph.protocols import Gradients

MOST_SAMPLES, MOST_CLASSES = 256, 16  # of each model; of more classes as many are drawn


@dataclass(frozen=True, repr=False)
class EntryFisher(Brief):
    """A traced model on its inputs.

    Attributes:
        gradients: of its output.
        stream: its inputs.
        output, kind: the output, and what that holds.
        seed: of the places and the classes that are drawn.
    """

    gradients: Gradients
    stream: Stream
    output: str
    kind: OutputKind
    seed: int

    def measured(self) -> dict[str, Array]:
        """The information of every entry, by weight, in float64: the mean over the samples."""
        random, sums = np.random.default_rng(self.seed), dict[str, Array]()
        together = max([1, *fixed_batches(self.stream.graph)])
        samples = min(self.stream.samples, MOST_SAMPLES)
        for sample in range(samples):
            batch = slice(sample - sample % together, sample - sample % together + together)
            inputs = self.stream.axes.taken(self.stream.inputs, batch)
            rows = rows_of_classes(self.stream.read(batch, [self.output])[self.output])
            each = len(rows) // together  # places of a sample, of which one is drawn
            row = sample % together * each + int(random.integers(each))
            chances = np.exp(log_probabilities(rows[[row]], self.kind, self.output))[0]
            for number, share in drawn_classes(chances, random):
                slopes = self.gradients(inputs, {}, partial(self.slope, row=row, number=number))
                for name, slope in slopes.items():
                    sums[name] = sums.get(name, 0.0) + share * slope**2 / samples
        return sums

    def slope(self, values: Array, row: int, number: int) -> Array:
        """How the log-probability of a class rises with the output, in one of its rows."""
        rows = rows_of_classes(values).astype(np.float64)
        chances = np.exp(log_probabilities(rows[[row]].astype(values.dtype), self.kind, self.output))[0]
        own = np.eye(len(chances))[number]
        moves = own / np.maximum(chances, np.finfo(np.float32).tiny) if self.kind == "probabilities" else own - chances
        if rows.shape[1] == 1:  # one unit, of the class yes: of its probability no has what is left
            moves = moves[1:] - moves[:1] if self.kind == "probabilities" else moves[1:]
        slopes = np.zeros(rows.shape)
        slopes[row] = moves
        return as_output(slopes, values.shape)


def drawn_classes(chances: Array, random: np.random.Generator) -> list[tuple[int, float]]:
    """The classes that are looked at, each with how much it counts."""
    if len(chances) <= MOST_CLASSES:
        return list(enumerate(chances.tolist()))
    drawn = random.choice(len(chances), MOST_CLASSES, p=chances / chances.sum())
    return [(int(number), 1 / MOST_CLASSES) for number in drawn]
