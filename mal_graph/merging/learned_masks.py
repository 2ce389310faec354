"""Masks of the task vectors that are learned by the gradients of the network: how much each entry counts.

Of each entry a number x is learned, by which its mask is drawn anew in each step: the sigmoid of x and of the logit of
a random number, divided by a temperature (Maddison et al. 2017, arXiv:1611.00712). All models have one mask.

Source: Tang et al. 2023, Concrete Subspace Learning (arXiv:2312.06173).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logit

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.merging.class_rows import as_output, rows_of_classes
from mal_graph.merging.learned_weights import DRAWS, JUDGED, JUDGING, WAYS, Chosen, Learning
from mal_graph.merging.stacking import LearnedWeights
from mal_graph.methods import masked
from mal_graph.network import Parameter
from mal_graph.protocols import Gradients
from mal_graph.registry import gradients_of

Masks = Mapping[str, Array]

LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, repr=False)
class Move(Brief):
    """A tensor that a mask is for.

    Attributes:
        parameter: how the base applies it.
        origin: the ancestor's values, as the base stores them.
        whole: the sum of the task vectors, in canonical form and float64.
    """

    parameter: Parameter
    origin: Array
    whole: Array

    def masked(self, mask: Array) -> Array:
        """The ancestor, moved by as much of each entry as a mask says, as the base stores it."""
        moved = self.parameter.stored(masked(self.whole, mask), self.origin.shape)
        return np.asarray(self.origin + moved, self.origin.dtype)


@dataclass(frozen=True, repr=False)
class MaskLearning(Brief):
    """A stacking whose masks are to be learned.

    Attributes:
        learning: the stacking, its inputs, and what it is learned on.
    """

    learning: Learning

    @np.errstate(all="ignore")  # what overflows is found, and said
    def learned(self) -> LearnedWeights:
        """The mask of each tensor.

        Raises:
            UnsupportedModel: the weights are not in the state of the module that the base was traced from.
            DataError, RunError: a model does not run on its inputs, or gives numbers without end.
        """
        own, values = self.learning, self.learning.values
        end = own.lesson.walk(np.zeros(sum(self.sizes.values())), self.slope_at, values)
        masks, judged = self.masks(expit(end)), own.drawn(JUDGED, (JUDGING, 0))
        before = own.loss_with(self.weights(self.masks(np.ones(len(end)))), judged)
        after = own.loss_with(self.weights(masks), judged)
        name, count = own.stacking.method.name, len(own.results)
        told = f"{name} learned its mask: {own.lesson.aim} went from {before:.4g} to {after:.4g}"
        return LearnedWeights({}, f"{told}, on inputs of {count} models", masks)

    def slope_at(self, point: Array, step: int) -> Array:
        """How the aim rises with what the masks are drawn by, of the shape of it, on some inputs of each model."""
        own, temperature = self.learning, float(self.learning.values["temperature"])
        random = np.random.default_rng((own.stacking.seed, WAYS, step))
        drawn = expit((point + logit(random.uniform(1e-6, 1 - 1e-6, point.shape))) / temperature)
        by_mask = self.slope_by_mask(self.masks(drawn), own.drawn(int(own.values["batch"]), (DRAWS, step)))
        return by_mask * drawn * (1 - drawn) / temperature

    def slope_by_mask(self, masks: Masks, chosen: Chosen) -> Array:
        """How the aim rises with each entry of the masks, shape (entries,)."""
        weights, slope = self.weights(masks), np.zeros(sum(self.sizes.values()))
        for number, which in chosen.items():
            stream = self.learning.results[number]
            inputs = stream.axes.taken(stream.inputs, which)
            by_weight = self.gradients(inputs, weights, self.slope_by_output)
            parts = [self.by_mask(tensor, by_weight[tensor], mask) for tensor, mask in masks.items()]
            slope += np.concatenate(parts) / len(chosen)
        return slope

    def by_mask(self, tensor: str, by_weight: Array, mask: Array) -> Array:
        """How the aim rises with a mask, which is divided by its mean, of how it rises with the tensor."""
        move = self.moves[tensor]
        through = move.parameter.canonical(by_weight) * move.whole
        mean = max(float(mask.mean()), LEAST)
        return np.asarray((through - float((through * mask).mean()) / mean) / mean).ravel()

    def slope_by_output(self, values: Array) -> Array:
        """How the mean entropy of rows of classes rises with the output."""
        rows = rows_of_classes(values)
        scores = self.learning.scores(values)
        chances = np.exp(scores)
        slopes = (chances * scores).sum(axis=1, keepdims=True) - scores  # by probabilities that sum to one
        is_logit = self.learning.kind != "probabilities"
        slopes = chances * slopes if is_logit else slopes
        if rows.shape[1] == 1:  # one unit, of the class yes; a probability leaves the rest to no
            slopes = slopes[:, 1:] if is_logit else slopes[:, 1:] - slopes[:, :1]
        return as_output(slopes / len(rows), values.shape)

    # --- tensors --------------------------------------------------------------------------------------------------

    @cached_property
    def moves(self) -> Mapping[str, Move]:
        """Of each tensor what a mask is for."""
        moves = {}
        for tensor in self.learning.stacking.tensors:
            own = self.learning.stacking.values_of(tensor)
            if not own.rule.is_statistic:
                origin = own.at_hand()({"weight": 0 * own.values["weight"]})
                moves[tensor] = Move(own.parameter, origin, own.parameter.canonical(np.sum(list(own.added()), axis=0)))
        return moves

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """By tensor how many entries it has."""
        return {tensor: move.whole.size for tensor, move in self.moves.items()}

    def masks(self, entries: Array) -> dict[str, Array]:
        """The masks of tensors, of all entries one after the other."""
        parts = np.split(entries, np.cumsum(list(self.sizes.values()))[:-1])
        return {name: part.reshape(self.moves[name].whole.shape) for name, part in zip(self.sizes, parts, strict=True)}

    def weights(self, masks: Masks) -> dict[str, Array]:
        """The merged tensors."""
        return {tensor: self.moves[tensor].masked(mask) for tensor, mask in masks.items()}

    @cached_property
    def gradients(self) -> Gradients:
        """Those of the base, which `check_learning` has seen to."""
        made = gradients_of(self.learning.stacking.base, self.learning.output, list(self.sizes))
        assert made is not None
        return made
