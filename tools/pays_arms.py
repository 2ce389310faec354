"""What the arms of `study_pays.py` are: each one a network, made of a pair and of so many unlabelled inputs.

A control has nothing of the donor but what its outputs say on the unlabelled inputs: the base with a bias for each
class, or with its last layer fitted to the ensemble. Without inputs both are fitted on the noise that unions are made
on. All that is fitted sees the same inputs; a quarter of those that are given is held out for the guard.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from pays_parents import Parents
from pays_rivals import REBASIN, RIVALS
from pays_tables import GUARDS

import mal_graph
from mal_graph.compression import allocate, thin
from mal_graph.config import MergeConfig
from mal_graph.errors import UsageError
from mal_graph.evaluation import data_slot
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import by_role
from mal_graph.network import Parameter, find_layers
from mal_graph.protocols import Runner
from mal_graph.workflows.guarding import distance
from mal_graph.workflows.joint import Joint, Thinned

BUDGETS = (1.0, 1.25, 1.5)
COUNTS = (0, 32, 200, 1000)  # unlabelled inputs
FEW = (0, 200)  # for arms that stand beside others
MEASURED = 200  # for published methods: they are made of what units do on inputs
LAMBDAS = (0.1, 0.3)
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e9)  # of a ridge, in mean variances of a feature
FOLDS = 4
BATCH = 500  # samples that are run together
ROUNDS = 100  # until class shares are met

BASE, DONOR, AVERAGE, LOGITS, PROBABILITIES = "base", "donor", "average", "ensemble of logits", "ensemble"
MAL, UNION, RANDOM, JOINT_HEAD = "mal", "union", "random units", "union, joint head"
BIASES, HEAD, PRUNED = "base, class biases", "base, head refitted", "base, pruned"
BESIDE, BESIDE_HEAD, ALONE = "whole base + pruned donor", "whole base + pruned donor, joint head", "donor, pruned"
CONTROLS = (BIASES, HEAD)  # beside the base itself


@dataclass(frozen=True)
class Arm:
    """One way to a network.

    Attributes:
        name: of the way.
        count: unlabelled inputs that it was given.
        budget: in multiplications of the base; 0 where it has none.
        lam: lambda; 0 where it has none.
    """

    name: str
    count: int = 0
    budget: float = 0.0
    lam: float = 0.0


Makers = dict[Arm, Callable[[], LayerGraph]]


@dataclass(frozen=True)
class Head:
    """The last layer of a classifier with a single stored weight.

    Attributes:
        reads: the tensor of features.
        weight, bias: its parameters.
    """

    reads: str
    weight: Parameter
    bias: Parameter

    @classmethod
    def of(cls, graph: LayerGraph) -> "Head":
        layer = [layer for layer in find_layers(graph) if layer.weight is not None][-1]
        assert layer.weight is not None
        slot = data_slot(layer.weight)
        return cls(graph.nodes[layer.weight.node].inputs[slot], layer.weight, by_role(layer)["bias"])

    def read(self, graph: LayerGraph) -> tuple[Array, Array]:
        """Coefficients, shape (features, classes), and biases."""
        weight = self.weight.canonical(graph.weights[self.weight.tensor].read())
        bias = self.bias.canonical(graph.weights[self.bias.tensor].read())
        return weight.reshape(len(weight), -1).T.astype(np.float64), bias.ravel().astype(np.float64)

    def changed(self, graph: LayerGraph, weight: Array, bias: Array) -> LayerGraph:
        """The network with another last layer."""
        new = {}
        for parameter, values in ((self.weight, weight.T), (self.bias, bias)):
            old = graph.weights[parameter.tensor].read()
            stored = parameter.stored(values.reshape(parameter.shape), old.shape)
            new[parameter.tensor] = np.ascontiguousarray(stored, old.dtype)
        return graph.with_weights(new)


def refitted(features: Array, targets: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Coefficients and biases nearest to targets in the mean square, drawn to given ones as strongly as does best on
    inputs that are left out in turn."""
    missed = targets - features @ weight - bias
    fold = np.arange(len(features)) % FOLDS
    errors = np.zeros(len(STRENGTHS))
    for number in range(FOLDS):
        out = fold == number
        for place, (step, shift) in enumerate(ridges(features[~out], missed[~out])):
            errors[place] += np.sum((missed[out] - features[out] @ step - shift) ** 2)
    step, shift = list(ridges(features, missed))[int(np.argmin(errors))]
    return weight + step, bias + shift


def ridges(features: Array, targets: Array) -> Iterator[tuple[Array, Array]]:
    """Coefficients and biases of one ridge regression for each strength."""
    middle, mean = features.mean(axis=0), targets.mean(axis=0)
    left, values, right = np.linalg.svd(features - middle, full_matrices=False)
    turned = left.T @ (targets - mean)
    unit = float(np.sum(values**2)) / features.shape[1]
    for strength in STRENGTHS:
        step = right.T @ (turned * (values / (values**2 + strength * unit + 1e-12))[:, None])
        yield step, mean - middle @ step


def class_biases(logits: Array, target: Array) -> Array:
    """What is added to logits so that the mean probability of every class is that of the target's."""
    wanted, bias = softmax(target).mean(axis=0), np.zeros(logits.shape[1])
    for _ in range(ROUNDS):
        bias += np.log(wanted + 1e-9) - np.log(softmax(logits + bias).mean(axis=0) + 1e-9)
    return bias


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def divergence(goal: Array, logits: Array) -> float:
    """The mean divergence of predicted classes from those of a goal, in nats."""
    shares = softmax(goal)
    return float(np.mean(np.sum(shares * (np.log(shares + 1e-30) - np.log(softmax(logits) + 1e-30)), axis=1)))


def far_apart(goal: Array, values: Array) -> float:
    return float(np.sqrt(np.mean((goal - values) ** 2)))


def differing(goal: Array, logits: Array) -> int:
    """How many samples get another class than those of a goal."""
    return int((goal.argmax(axis=1) != logits.argmax(axis=1)).sum())


def outputs_of(graph: LayerGraph, tensor: str, inputs: Mapping[str, Array], runner: Runner) -> Array:
    """A tensor for all samples, however few they are."""
    session = runner.open(graph, read=[tensor], optimize=True)
    samples = min(map(len, inputs.values()))
    parts = [
        session.run({name: array[start : start + BATCH] for name, array in inputs.items()}, read=[tensor])[tensor]
        for start in range(0, samples, BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True)
class Bench:
    """A pair with the inputs of one run, and all that can be made of it.

    Attributes:
        joint: both models, with their samples.
        count: unlabelled inputs that are given; 0 for noise.
        unlabelled: those inputs.
        seed: of what is drawn at random.
        made: unions by budget.
        donors: those that stand beside a whole base, by budget.
    """

    joint: Joint
    count: int
    unlabelled: Mapping[str, Array]
    seed: int
    made: dict[float, Thinned] = field(default_factory=dict)
    donors: dict[float, LayerGraph] = field(default_factory=dict)

    @cached_property
    def names(self) -> list[str]:
        """The logits of the base and the donor."""
        return list(self.joint.outputs.averaged[0].tensors)

    @cached_property
    def fitting(self) -> tuple[Mapping[str, Array], ...]:
        """The samples that are fitted on, by the names of each model."""
        return tuple(side.paired.for_donor(self.joint.samples.fitting) for side in self.joint.sides)

    def values(self, graph: LayerGraph, tensor: str, side: int = 0) -> Array:
        """A tensor on the samples that are fitted on."""
        return outputs_of(graph, tensor, self.fitting[side], self.joint.runner)

    @cached_property
    def target(self) -> Array:
        """The logits of the ensemble."""
        return self.values(self.joint.ensemble, self.names[0])

    @cached_property
    def references(self) -> list[tuple[dict[str, Array], dict[str, Array], float]]:
        """For each kind of fresh inputs what the base and the ensemble give, and how far they are from each other."""
        found = []
        for inputs in self.joint.samples.fresh:
            base, whole = (self.shown(graph, inputs) for graph in (self.joint.sides[0].graph, self.joint.ensemble))
            found.append((base, whole, distance(base, whole)))
        return found

    def shown(self, graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The logits of a network that has the base's outputs."""
        return {self.names[0]: outputs_of(graph, self.names[0], inputs, self.joint.runner)}

    def guards(self, graph: LayerGraph) -> dict[str, float]:
        """How far a network is from the ensemble, as a share of how far the base is: each kind of `GUARDS`. The
        larger one of logits and probabilities is `Joint.error`. The worst kind of fresh inputs counts."""
        errors: dict[str, list[float]] = {name: [] for name in GUARDS}
        for inputs, (base, whole, before) in zip(self.joint.samples.fresh, self.references, strict=True):
            shown = self.shown(graph, inputs)
            own, old, goal = (each[self.names[0]] for each in (shown, base, whole))
            errors["guard"].append(distance(shown, whole) / max(before, np.finfo(float).tiny))
            errors["guard_kl"].append(divergence(goal, own) / max(divergence(goal, old), np.finfo(float).tiny))
            before = far_apart(softmax(goal), softmax(old))
            errors["guard_shares"].append(far_apart(softmax(goal), softmax(own)) / max(before, np.finfo(float).tiny))
            errors["guard_classes"].append((differing(goal, own) + 0.5) / (differing(goal, old) + 0.5))
        return {name: float(np.max(values)) for name, values in errors.items()}

    def makers(self) -> Makers:
        """How each arm is made."""
        count = self.count
        makers: Makers = {Arm(BIASES, count): self.biased, Arm(HEAD, count): self.base_refitted}
        for budget in BUDGETS:
            makers[Arm(UNION, count, budget)] = partial(self.union, budget)
        if count not in FEW:
            return makers
        for lam in LAMBDAS:
            makers[Arm(MAL, count, lam=lam)] = partial(self.merged, "mal", lam)
        makers[Arm(AVERAGE, count)] = partial(self.merged, "average", 0.5)
        makers[Arm(PRUNED, count, 0.5)] = partial(self.pruned, 0, 0.5)
        makers[Arm(ALONE, count, 1.0)] = partial(self.pruned, 1, 1.0)
        for budget in BUDGETS:
            makers[Arm(RANDOM, count, budget)] = partial(self.random, budget)
            makers[Arm(JOINT_HEAD, count, budget)] = partial(self.union, budget, has_joint_head=True)
        for budget in BUDGETS[1:]:
            makers[Arm(BESIDE, count, budget)] = partial(self.beside, budget)
            makers[Arm(BESIDE_HEAD, count, budget)] = partial(self.beside, budget, has_joint_head=True)
        return makers | self.rivals() if count == MEASURED else makers

    def rivals(self) -> Makers:
        """How the arms of published methods are made."""
        makers: Makers = {Arm(REBASIN, self.count): partial(self.merged, "mal", 0.5)}
        for name, rival in RIVALS.items():
            for budget in rival.budgets:
                makers[Arm(name, self.count, budget)] = partial(self.rival, name, budget)
        return makers

    def rival(self, name: str, budget: float) -> LayerGraph:
        """What a published method makes of the pair."""
        return RIVALS[name].make(self.parents, budget)

    @cached_property
    def parents(self) -> Parents:
        """Both models in the base's wiring. Raises MatchError where they are not alike."""
        return Parents.of(self.joint.sides, self.joint.samples.fitting, self.joint.runner, self.seed)

    def union(self, budget: float, *, has_joint_head: bool = False) -> LayerGraph:
        """Both models thinned to a budget."""
        made = self.at(budget)
        return self.with_joint_head(made.parts) if has_joint_head else made.graph

    def at(self, budget: float) -> Thinned:
        """The union at a budget, made once."""
        if budget not in self.made:
            self.made[budget] = self.joint.at(budget)
        return self.made[budget]

    def merged(self, method: str, lam: float) -> LayerGraph:
        """A merge in weight space, repaired where there are inputs."""
        base, donor = (side.graph for side in self.joint.sides)
        given = self.unlabelled if self.count else None
        options = {"method": method, "lam": lam, "seed": self.seed, "compare": False, "calibrate": given}
        return mal_graph.assemble(base, donor, config=MergeConfig(**options)).graph

    def biased(self) -> LayerGraph:
        """The base with a bias for each class that brings its class shares to the ensemble's."""
        graph = self.joint.sides[0].graph
        head = Head.of(graph)
        weight, bias = head.read(graph)
        return head.changed(graph, weight, bias + class_biases(self.values(graph, self.names[0]), self.target))

    def base_refitted(self) -> LayerGraph:
        """The base with its last layer fitted to the ensemble."""
        graph = self.joint.sides[0].graph
        head = Head.of(graph)
        return head.changed(graph, *refitted(self.values(graph, head.reads), self.target, *head.read(graph)))

    def pruned(self, number: int, budget: float) -> LayerGraph:
        """One model alone, thinned to a multiple of the base's multiplications."""
        side, base = self.joint.sides[number], self.joint.sides[0]
        candidate, whole = side.candidate(1.0), base.cost.total(base.candidate(1.0).all_units)
        if candidate.cost.total(candidate.fewest_units) > budget * whole:
            raise UsageError(f"{side.graph.name} cannot be thinned to {budget:g} times the base")
        (kept,) = allocate([candidate], budget * whole)
        return side.thinned(kept)

    def beside(self, budget: float, *, has_joint_head: bool = False) -> LayerGraph:
        """The whole base, and what is left of the donor for the rest of a budget, which is made once."""
        if budget not in self.donors:
            self.donors[budget] = self.pruned(1, budget - 1)
        parts = [self.joint.sides[0].graph, self.donors[budget]]
        return self.with_joint_head(parts) if has_joint_head else self.joint.joined(parts)

    def with_joint_head(self, parts: Sequence[LayerGraph]) -> LayerGraph:
        """Parts side by side, with the last layers of both fitted together to the ensemble."""
        heads = [Head.of(part) for part in parts]
        features = [
            self.values(part, head.reads, side) for side, (part, head) in enumerate(zip(parts, heads, strict=True))
        ]
        weights, biases = zip(*(head.read(part) for head, part in zip(heads, parts, strict=True)), strict=True)
        share = 1 / len(parts)
        weight, bias = refitted(
            np.concatenate(features, 1), self.target, share * np.concatenate(weights), share * sum(biases)
        )
        cut = np.cumsum([own.shape[1] for own in features])[:-1]
        changed = [
            head.changed(part, own / share, bias)
            for head, part, own in zip(heads, parts, np.split(weight, cut), strict=True)
        ]
        return self.joint.joined(changed)

    def random(self, budget: float) -> LayerGraph:
        """A union of as many units of each set, drawn at random."""
        counts = allocate(self.joint.candidates(), budget * self.whole)
        rng = np.random.default_rng([self.seed, 5])
        parts = []
        for side, kept in zip(self.joint.sides, counts, strict=True):
            orders = {number: side.model.rankings[number].order for number in kept}
            drawn = {
                number: np.sort(rng.permuted(np.sort(orders[number], axis=0), axis=0)[:count], axis=0)
                for number, count in kept.items()
            }
            parts.append(thin(side.model, drawn))
        return self.joint.joined(parts)

    @property
    def whole(self) -> float:
        """The multiplications of the base."""
        base = self.joint.sides[0]
        return base.cost.total(base.candidate(1.0).all_units)
