"""The classes of a mean of scores whose members have them in other orders, or have other ones.

A class that all members have gets the mean of all its scores, whatever the members have beside it. A class that only
some have gets what these say of it, and how that stands beside the others depends on what the scores are:

* Shares that sum to one (a softmax): a class that a member does not know has none of its shares. The mean is the exact
  mixture of what the members say, and sums to one again.
* Logits of a softmax say nothing but differences, so each member's are compared with the logarithm of the sum of their
  exponentials (what a softmax takes off): out = mean of (z - s) over those that have the class, plus the mean of s over
  all. Adding a number to all logits of one member adds one number to all of the mean. For a class that all have the s
  cancel, and the mean of z is left; for one that a single member has it is that member's logit, on the common level.
  Where no class is shared, a softmax gives the mixture.
* Scores of each class for itself (a sigmoid, before or behind): the mean over those that have the class.

A model alone has no score for a class that it does not know. Where it is compared with the mean, that class gets its
mean score, the logarithm of the mean exponential for logits: it never prefers such a class, and a loss stays finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array, LayerGraph
from mal_graph.label_lists import Names
from mal_graph.matching import names_in, noted_names
from mal_graph.operators import row_of

ABSENT = -1


class Scoring(StrEnum):
    """What scores of classes say beside each other."""

    SHARES = "shares that sum to one"
    LOGITS = "logits of a softmax"
    EACH = "scores of each class for itself"


@dataclass(frozen=True)
class ClassNames:
    """What is known of the names that a model gives its classes.

    Attributes:
        given: those that the user gave; () where they gave none.
        told: the lists in which the graph looks its classes up, or names its scores.
        noted: the lists in its metadata.
    """

    given: Names = ()
    told: tuple[Names, ...] = ()
    noted: tuple[Names, ...] = ()

    def of_scores(self, shape: Sequence[int]) -> tuple[Names, ...]:
        """The lists that scores of a shape may be meant by: given ones, else those of the graph, else those of the
        metadata; of several those that are as long as an axis."""
        if self.given:
            return (self.given,)
        fitting = [tuple(one for one in lists if len(one) in shape[1:]) for lists in (self.told, self.noted)]
        return fitting[0] or self.told or fitting[1]


def class_names_of(graph: LayerGraph, given: Names | None = None) -> ClassNames:
    """What is known of the names of a model's classes."""
    told = sorted({tuple(map(str, names)) for names in names_in(graph)})
    noted = dict.fromkeys(listed.names for listed in noted_names(graph).values())
    return ClassNames(given or (), tuple(told), tuple(noted))


@dataclass(frozen=True)
class Classes:
    """The classes of a mean, and where its members have them.

    Attributes:
        axis: of the scores along which they lie.
        names: of all, in order: those of the first member first.
        places: for each member where it has each of them; ABSENT where it has none.
        scoring: what the scores say.
    """

    axis: int
    names: Names
    places: tuple[tuple[int, ...], ...]
    scoring: Scoring

    @cached_property
    def are_known(self) -> NDArray[np.bool_]:
        """Which member has which class, shape (members, classes)."""
        return np.asarray(np.array(self.places) != ABSENT)

    def of_member(self, member: int) -> "Classes":
        """Those of one member alone, in the order of all."""
        known = [place for place, own in enumerate(self.places[member]) if own != ABSENT]
        places = (tuple(self.places[member][place] for place in known),)
        return replace(self, names=tuple(self.names[place] for place in known), places=places)

    def counts(self) -> list[int]:
        """How many of the classes each member has."""
        return [int(count) for count in self.are_known.sum(axis=1)]

    @property
    def is_wider(self) -> bool:
        """Whether the first member lacks some."""
        return not self.are_known[0].all()

    @property
    def is_linear(self) -> bool:
        """Whether the mean is a sum of scores; levels of logits are none, and depend on each of a member's scores."""
        return self.scoring is not Scoring.LOGITS or bool(self.are_known.all())

    def is_in_order(self, member: int) -> bool:
        """Whether a member has all of them in their order."""
        return self.places[member] == tuple(range(len(self.names)))

    def factors(self, shares: Sequence[float]) -> Array:
        """What the scores of each member are multiplied by, shape (members, classes); of classes that it lacks these
        are 0."""
        own = np.repeat(np.array(shares)[:, None], len(self.names), axis=1)
        if self.scoring is Scoring.SHARES:
            return own
        known = own * self.are_known
        return np.where(self.are_known.all(axis=0), known, known / known.sum(axis=0))

    def level_factors(self, shares: Sequence[float]) -> Array:
        """What is added of each member's level, the logarithm of its summed exponentials, shape (members, classes)."""
        if self.scoring is not Scoring.LOGITS:
            return np.zeros(self.are_known.shape)
        own = np.repeat(np.array(shares)[:, None], len(self.names), axis=1)
        return own - self.factors(shares)

    def along(self, values: Array, rank: int) -> Array:
        """Numbers of the classes in the shape in which they meet scores of a rank."""
        return values.reshape(-1, *[1] * (rank - 1 - self.axis))

    def widened(self, scores: Array, member: int = 0, *, are_logits: bool) -> Array:
        """Scores of the classes that a member has, in the order of all, with their mean score for the other classes;
        wider ones as they are."""
        known = self.are_known[member]
        if scores.shape[self.axis] == len(known):
            return scores
        own = np.moveaxis(scores.astype(np.float64), self.axis, -1)
        wide = np.empty((*own.shape[:-1], len(known)))
        wide[..., known] = own
        wide[..., ~known] = mean_score(own, are_logits=are_logits)
        if self.scoring is Scoring.SHARES:
            wide *= known.sum() / len(known)  # they sum to one again
        return np.moveaxis(wide, -1, self.axis)

    def spread_out(self, rows: Array, member: int, *, is_sure: bool = False) -> Array:
        """Log-probabilities of a member's classes as those of all, shape (rows, classes): a class that it does not know
        has its mean probability, or none where the member is `is_sure` that there are no others."""
        known = self.are_known[member]
        own, absent = rows[:, np.array(self.places[member])[known]], float(np.log(len(known)))
        wide = np.full((len(rows), len(known)), -np.inf if is_sure else -absent)
        wide[:, known] = own if is_sure else own + np.log(known.sum()) - absent
        return wide


def mean_score(scores: Array, *, are_logits: bool) -> Array:
    """What a class scores in the mean, of scores with the classes last; it never is more than the largest."""
    if not are_logits:
        return np.asarray(scores.mean(axis=-1, keepdims=True))
    largest = scores.max(axis=-1, keepdims=True)
    return np.asarray(largest + np.log(np.exp(scores - largest).mean(axis=-1, keepdims=True)))


def joined(lists: Sequence[Names]) -> tuple[Names, tuple[tuple[int, ...], ...]]:
    """All names of some lists, those of the first in their order first, and where each list has them."""
    names = tuple(dict.fromkeys(name for one in lists for name in one))
    return names, tuple(tuple(one.index(name) if name in one else ABSENT for name in names) for one in lists)


def scoring_of(graph: LayerGraph, tensor: str, *, are_logits: bool) -> Scoring:
    """What the scores in a tensor say beside each other, by the operators that made them of logits or make something of
    them; logits of which nothing is made are taken as those of a softmax."""
    if not are_logits:
        return Scoring.SHARES if are_shares(graph, tensor) else Scoring.EACH
    for index, _ in graph.consumers.get(tensor, ()):
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        if row is not None and row.gives_probabilities(node) and not row.gives_shares(node):
            return Scoring.EACH
    return Scoring.LOGITS


def are_shares(graph: LayerGraph, tensor: str) -> bool:
    """Whether probabilities were made to sum to one, or are means of such."""
    node = graph.nodes[graph.producer[tensor]] if tensor in graph.producer else None
    row = None if node is None else row_of(node)
    if node is None or row is None:
        return False
    if row.gives_probabilities(node):
        return row.gives_shares(node)
    read = [name for name in node.inputs if name and name not in graph.weights]
    return bool(read) and all(are_shares(graph, name) for name in read)
