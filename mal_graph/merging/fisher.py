"""How much the entries of a last linear layer say of the classes that a model gives: its diagonal Fisher information.

For logits z = W x and p = softmax z it is known in closed form: the mean of p_i (1 - p_i) x_j^2 over the inputs, where
labels are drawn from p, as the method takes them. No gradients and no labels are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.evaluation import OutputKind, Stream, WeightInput, log_probabilities, read_output_kind, stream_together
from mal_graph.graph import LayerGraph
from mal_graph.merging.input_rows import InputRows
from mal_graph.operators import row_of


@dataclass(frozen=True, repr=False)
class Classifier(Brief):
    """A linear layer whose outputs are the classes of a model.

    Attributes:
        output: of the model.
        kind: what that holds.
        classes: how many there are.
    """

    output: str
    kind: OutputKind
    classes: int

    def fisher(self, stream: Stream, reads: InputRows) -> tuple[Array, Array] | None:
        """The information of the weight, shape (classes, columns), and of the bias, shape (classes,); None where what
        is read and what is given are not of the same samples."""
        weight, bias, count = np.zeros(()), np.zeros(()), 0
        for (values,) in stream_together([(stream, [*reads.tensors, self.output])]):
            rows, given = reads.rows(values), values[self.output]
            if rows is None or given.shape[-1] != self.classes or given.size != self.classes * rows.shape[-1]:
                return None
            chances = np.exp(log_probabilities(given.reshape(-1, self.classes), self.kind, self.output))
            spread = (chances * (1 - chances))[:, -self.classes :]  # of one logit that for the class yes
            weight = weight + spread.T @ rows[0].T ** 2
            bias = bias + spread.sum(axis=0)
            count += len(spread)
        return weight / count, bias / count


def head_of(graph: LayerGraph, inputs: Sequence[WeightInput]) -> Classifier | None:
    """The classes that a weight gives; None where there is more between it and an output than a bias and a softmax."""
    (one,) = inputs[:1]
    made = one.node.outputs[0]
    for output in (value.name for value in graph.outputs):
        tensor = output
        while tensor != made and tensor in graph.producer:
            node = graph.nodes[graph.producer[tensor]]
            row = row_of(node)
            computed = [name for name in node.inputs if name and name not in graph.weights]
            is_bias = row is not None and row.adds and row.by_element and len(computed) == 1
            if row is None or len(computed) != 1 or not (is_bias or row.gives_probabilities(node)):
                break
            tensor = computed[0]
        if tensor == made:
            return Classifier(output, read_output_kind(graph, output), one.parameter.shape[0])
    return None
