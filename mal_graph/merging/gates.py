"""Routers: what tells the weights of models for one sample, of what a network makes of it, as operators.

Each is made once, of what the inputs of each model become, or of what the models have learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.merging.per_sample import PerSample
from mal_graph.methods import Gate

DRAWN = 1e-3  # how strongly the numbers of a linear router are drawn to 0: rows that are easily told apart have no best
LEAST = 1e-12  # a deviation is at least that

Write = Callable[[PerSample, str], str]  # of what the router looks at, shape (1, units), to weights, shape (1, models)


@dataclass(frozen=True, repr=False)
class Evidence(Brief):
    """What a router is made of.

    Attributes:
        features: of each model what its inputs become, shape (samples, units); () where there are no inputs.
        directions: of each model what it has learned, as orthonormal rows, shape (rank, units).
        values: the parameters of the method.
    """

    features: Sequence[Array]
    directions: Sequence[Array]
    values: Mapping[str, float]


def linear_gate(evidence: Evidence) -> Write:
    """The probabilities of a linear classifier, which tells the models by their inputs; all models count alike."""
    weight, offset = fit_classifier(evidence.features)

    def write(body: PerSample, feature: str) -> str:
        stored = body.store("router/weight", weight), body.store("router/offset", offset)
        scores = body.add("router/scores", "Gemm", (feature, *stored))
        return body.add("router/weights", "Softmax", (scores,), axis=1)

    return write


def fit_classifier(features: Sequence[Array]) -> tuple[Array, Array]:
    """Weight, shape (units, models), and offset, shape (models,), of a multinomial regression; in float32."""
    rows = np.concatenate(features).astype(np.float64)
    models = np.repeat(np.arange(len(features)), [len(own) for own in features])
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scaled = (rows - mean) / np.where(spread > 0, spread, 1.0)
    shares = 1.0 / (np.bincount(models)[models] * len(features))
    wanted = np.eye(len(features))[models]
    shape = rows.shape[1] + 1, len(features)

    def loss(flat: Array) -> tuple[float, Array]:
        point = flat.reshape(shape)
        scores = log_softmax(scaled @ point[1:] + point[0], axis=1)
        slope = shares[:, None] * (np.exp(scores) - wanted)
        drawn = DRAWN * np.concatenate([np.zeros((1, shape[1])), point[1:]])
        slopes = np.concatenate([slope.sum(axis=0)[None], scaled.T @ slope]) + drawn
        value = -(shares[:, None] * wanted * scores).sum() + (drawn * point).sum() / 2
        return float(value), slopes.ravel()

    point = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B").x.reshape(shape)
    weight = point[1:] / np.where(spread > 0, spread, 1.0)[:, None]
    return weight.astype(np.float32), (point[0] - mean @ weight).astype(np.float32)


def neighbours_gate(evidence: Evidence) -> Write:
    """The share of each model's inputs among those that lie nearest."""
    kept = [own[: int(evidence.values["queries"])] for own in evidence.features]
    rows = np.concatenate(kept).astype(np.float32)
    models = np.repeat(np.arange(len(kept)), [len(own) for own in kept])
    count = min(int(evidence.values["neighbours"]), len(rows))

    def write(body: PerSample, feature: str) -> str:
        stored = body.store("router/inputs", -2 * rows.T), body.store("router/lengths", (rows**2).sum(axis=1))
        far = body.add("router/distances", "Gemm", (feature, *stored))  # less the length of what is asked for
        wanted = body.store("router/count", np.array([count]))
        made = "router/nearest distances", "router/nearest"
        _, nearest = body.add_all("router/nearest", "TopK", (far, wanted), made, axis=1, largest=0)
        table = body.store("router/models", np.eye(len(kept), dtype=np.float32)[models])
        votes = body.add("router/votes", "Gather", (table, nearest), axis=0)  # (1, count, models)
        return body.along("router/weights", "ReduceMean", votes, 1, keepdims=0)

    return write


def directions_gate(evidence: Evidence) -> Write:
    """1 for each model whose directions come near to what a sample becomes, as often as may be; else 0.

    What is left of it beside the directions of each model is brought to mean 0 and deviation 1 over the models; the
    softmax of this, with less left counting more, is how sure the router is of each.
    """
    threshold, models = evidence.values["threshold"], len(evidence.directions)
    most = min(int(evidence.values["most"]), models)

    def write(body: PerSample, feature: str) -> str:
        left = [left_beside(body, feature, own, f"router/{number}") for number, own in enumerate(evidence.directions)]
        apart = body.add("router/left", "Concat", left, axis=1)
        centred = body.add("router/centred", "Sub", (apart, body.along("router/mean", "ReduceMean", apart, 1)))
        squares = body.add("router/squares", "Mul", (centred, centred))
        deviation = body.add("router/deviation", "Sqrt", (body.along("router/variance", "ReduceMean", squares, 1),))
        least = body.store("router/least", np.array(LEAST, np.float32))
        size = body.add("router/size", "Neg", (body.add("router/some", "Add", (deviation, least)),))
        near = body.add("router/near", "Div", (centred, size))
        return chosen(body, body.add("router/sure", "Softmax", (near,), axis=1), most, threshold)

    return write


def left_beside(body: PerSample, feature: str, directions: Array, name: str) -> str:
    """How long what is left of a feature beside some directions is, shape (1, 1)."""
    forth = body.store(f"{name}/forth", directions.T.astype(np.float32))
    back = body.store(f"{name}/back", directions.astype(np.float32))
    along = body.add(f"{name}/back along", "MatMul", (body.add(f"{name}/along", "MatMul", (feature, forth)), back))
    left = body.add(f"{name}/left", "Sub", (feature, along))
    return body.along(f"{name}/length", "ReduceL2", left, 1)


def chosen(body: PerSample, sure: str, most: int, threshold: float) -> str:
    """1 for the largest of some shares, as many as may be and those that are above a threshold; at least for one."""
    read = sure, body.store("router/most", np.array([most]))
    best, _ = body.add_all("router/best", "TopK", read, ("router/best", "router/best places"), axis=1)
    first, last = (
        body.add(f"{name}/least", "Gather", (best, body.store(f"place/{place}", np.array([place]))), axis=1)
        for name, place in (("router/first", 0), ("router/last", most - 1))
    )
    is_first, is_last = (
        body.add(f"{name}/not less", "Not", (body.add(f"{name}/less", "Less", (sure, least)),))
        for name, least in (("router/first", first), ("router/last", last))
    )
    limit = body.store("router/threshold", np.array(threshold, np.float32))
    above = body.add("router/above", "Greater", (sure, limit))
    both = body.add("router/both", "And", (above, is_last))
    return body.add("router/weights", "Cast", (body.add("router/chosen", "Or", (both, is_first)),), to=1)


GATES: Mapping[Gate, Callable[[Evidence], Write]] = {
    Gate.LINEAR: linear_gate,
    Gate.NEIGHBOURS: neighbours_gate,
    Gate.DIRECTIONS: directions_gate,
}
