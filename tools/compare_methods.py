"""Compares merge methods with other implementations, on tensors of one shape that are all there.

    python tools/compare_methods.py > tools/results/compare_methods.md

Needs torch. The methods that mergekit has too are compared with it where it is installed (`pip install --no-deps
mergekit`); it is no dependency, and none of its code is used here. The others are compared with their formula written
once more in torch, in float64 and in another way: polar decompositions by square roots of Gram matrices, gradients by
autograd, masks in plain loops. Each figure is the largest difference over all draws, relative to the largest value of
what both give. DARE and DELLA draw at random, and each implementation in its own way: their laws are tests.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mal_graph.methods import Need, Stack, find_method

Array = NDArray[Any]
Other = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # the models and the ancestor in, the merged tensor out

SHAPES = ((24, 16), (16, 24), (8, 4, 3, 3), (40,))
DRAWS = 5
LIMIT = 1e-5  # float32, relative to the largest value


# --- mergekit -----------------------------------------------------------------------------------------------------

WEIGHTS = (0.7, 1.0, 0.4)
IN_MERGEKIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is given here, and there for each model
    "linear": ({"weight": WEIGHTS}, {"weight": WEIGHTS}),
    "slerp": ({"t": 0.3}, {"t": 0.3}),
    "karcher": ({}, {"max_iter": 100, "tol": 1e-9}),
    "model_stock": ({}, {}),
    "task_arithmetic": ({"weight": WEIGHTS, "lambda": 0.8}, {"weight": WEIGHTS, "lambda": 0.8}),
    "ties": ({"weight": WEIGHTS, "density": 0.4}, {"weight": WEIGHTS, "density": 0.4}),
    "breadcrumbs": (
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
    ),
    "breadcrumbs_ties": (
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
    ),
}


def by_mergekit(name: str, given: dict[str, Any], models: torch.Tensor, ancestor: torch.Tensor | None) -> torch.Tensor:
    """What mergekit makes of the same tensors; its base is the ancestor, or the first model of a pair."""
    from mergekit.merge_methods.base import ParameterScope, PerInputValues, TensorGroup
    from mergekit.merge_methods.registry import get

    method = get(name)
    tensors = [*([] if ancestor is None else [ancestor]), *models]
    takes_base = ancestor is not None or name == "slerp"
    group = TensorGroup.from_tensors(tensors, base_index=0 if takes_base else None)
    ids = [entry.id for entry in (group.non_base if ancestor is not None else group.entries)]
    scopes = {one.name: one.scope for one in method.spec.parameters}
    values = {}
    for key, value in given.items():
        each = value if isinstance(value, tuple) else (value,) * len(ids)
        values[key] = (
            value if scopes[key] is ParameterScope.SHARED else PerInputValues(list(zip(ids, each, strict=False)))
        )
    return method([group], parameters=values)[0]


# --- the formula once more ----------------------------------------------------------------------------------------


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest orthonormal columns, by the inverse root of the Gram matrix."""
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors / values.sqrt()) @ vectors.T


def flat(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    return (models - ancestor).reshape(len(models), len(ancestor), -1)


def tsv_m(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Of each task vector the eigenvectors of both Gram matrices that are strongest, whitened over all models."""
    deltas = flat(models, ancestor)
    rank = min(deltas.shape[1:]) // len(deltas)
    lefts, strengths, rights = [], [], []
    for delta in deltas:
        values, vectors = torch.linalg.eigh(delta @ delta.T)
        left = vectors[:, -rank:]
        strength = values[-rank:].sqrt()
        lefts.append(left)
        strengths.append(strength)
        rights.append(delta.T @ left / strength)
    merged = orthogonal(torch.hstack(lefts)) @ torch.diag(torch.cat(strengths)) @ orthogonal(torch.hstack(rights)).T
    return ancestor + merged.reshape(ancestor.shape)


def iso_c(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """The orthogonal factor of the summed task vectors, times the mean of their singular values."""
    total = flat(models, ancestor).sum(0)
    wide = total.shape[0] < total.shape[1]
    tall = total.T if wide else total
    strength = torch.linalg.eigvalsh(tall.T @ tall).clamp(min=0).sqrt().mean()
    factor = orthogonal(tall)
    return ancestor + strength * (factor.T if wide else factor).reshape(ancestor.shape)


def wudi(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Steps of torch's Adam on the published objective, from the sum of the task vectors."""
    deltas = flat(models, ancestor)
    merged = deltas.sum(0).clone().requires_grad_()
    optimizer = torch.optim.Adam([merged], lr=1e-5)
    for _ in range(300):
        optimizer.zero_grad()
        apart = (merged - deltas) @ deltas.transpose(1, 2)
        (apart.square().sum((1, 2)) / deltas.square().sum((1, 2))).sum().backward()
        optimizer.step()
    return ancestor + merged.detach().reshape(ancestor.shape)


def opcm(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Projections one direction at a time, in plain loops."""
    deltas = flat(models, ancestor)
    merged, scale = deltas[0].clone(), 1.0
    for count, delta in enumerate(deltas[1:], 2):
        u, s, v = torch.linalg.svd(merged)
        protected = int((s.cumsum(0) / s.sum() < 0.5).sum()) + 1
        added = delta.clone()
        for i in range(u.shape[1]):
            for j in range(v.shape[0]):
                if i == j or (i < protected and j < protected):
                    added -= (u[:, i] @ delta @ v[j]) * torch.outer(u[:, i], v[j])
        together = scale * merged + added
        scale = float(together.norm() / deltas[:count].reshape(count, -1).norm(dim=1).mean())
        merged = together / scale
    return ancestor + merged.reshape(ancestor.shape)


def consensus(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Masks in plain loops."""
    deltas = (models - ancestor).reshape(len(models), -1)
    merged = torch.zeros_like(deltas[0])
    for place in range(deltas.shape[1]):
        own = deltas[:, place]
        count = sum(bool(abs(one) >= 0.4 * abs(own.sum() - one)) for one in own)
        if count >= 2:
            merged[place] = 0.3 * own.sum()
    return ancestor + merged.reshape(ancestor.shape)


def pcb(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Scores clamped at a sorted place and scaled to lie between 0 and 1, model by model."""
    deltas = (models - ancestor).reshape(len(models), -1)
    shares = []
    for delta in deltas:
        size = delta.abs()
        size = (size - size.min()) / (size.max() - size.min())
        score = torch.exp(len(deltas) * size**2) * torch.tanh(delta * deltas.sum(0))
        least = score.sort().values[int(score.numel() * 0.9)]
        score = score.clamp(min=least)
        shares.append((score - least) / (score.max() - least))
    share = torch.stack(shares)
    total = share.sum(0)
    return ancestor + ((share * deltas).sum(0) / torch.where(total > 0, total, 1)).reshape(ancestor.shape)


def tsv_c(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Each task vector projected on the eigenvectors of its Gram matrix that are strongest."""
    deltas = flat(models, ancestor)
    rank = min(deltas.shape[1:]) // len(deltas)
    vectors = [torch.linalg.eigh(delta @ delta.T)[1][:, -rank:] for delta in deltas]
    projected = [own @ own.T @ delta for own, delta in zip(vectors, deltas, strict=True)]
    return ancestor + torch.stack(projected).sum(0).reshape(ancestor.shape)


def t_switch(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Entries in order of their size, in plain loops."""
    merged = torch.zeros(ancestor.numel(), dtype=ancestor.dtype)
    for model in models:
        delta = (model - ancestor).reshape(-1)
        kept = delta.abs().argsort(descending=True)[: int(0.4 * len(delta))]
        for place in kept:
            merged[place] += delta[place].sign() * delta.norm() / len(kept) ** 0.5 / len(models)
    return ancestor + merged.reshape(ancestor.shape)


def widen(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """Column by column, in plain loops."""
    first = ancestor.reshape(len(ancestor), -1)
    own = models.reshape(len(models), *first.shape)
    moves = torch.stack(
        [
            (own.norm(dim=1) - first.norm(dim=0)).abs(),
            1 - torch.cosine_similarity(own, first.expand_as(own), dim=1),
        ]
    )
    ranks = (moves.argsort(dim=2).argsort(dim=2) + 1) / moves.shape[2]
    merged = first.clone()
    for column in range(first.shape[1]):
        for model in range(len(own)):
            for kind in range(2):
                rank = ranks[kind, model, column]
                share = 1 if rank > ranks[kind, model].mean() else torch.softmax(ranks[kind, :, column], 0)[model]
                merged[:, column] += share / 2 * (own[model] - first)[:, column]
    return merged.reshape(ancestor.shape)


def lines(models: torch.Tensor, ancestor: torch.Tensor) -> torch.Tensor:
    """At half of the depth."""
    return ancestor + (0.2 + 0.3 / 2) * (models - ancestor).sum(0)


WRITTEN: dict[str, Other] = {
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "wudi": wudi,
    "opcm": opcm,
    "consensus": consensus,
    "pcb": pcb,
    "lines": lines,
    "tsv_c": tsv_c,
    "t_switch": t_switch,
    "widen": widen,
}


# --- comparing ----------------------------------------------------------------------------------------------------


def drawn(name: str, seed: int, shape: tuple[int, ...]) -> Stack:
    """Models that were tuned from one ancestor, so to say; two for a method of two."""
    rng, method = np.random.default_rng(seed), find_method(name)
    ancestor = rng.standard_normal(shape).astype(np.float32)
    count = method.models or len(WEIGHTS)
    learned = rng.standard_normal(shape) + rng.standard_normal((count, *shape))  # some of it by all
    models = (ancestor + 0.3 * learned).astype(np.float32)
    return Stack(models, ancestor if method.needs is Need.ANCESTOR else None, numbers=tuple(range(count)), depth=0.5)


def difference(name: str, given: dict[str, Any], other: Callable[[Stack], torch.Tensor]) -> float:
    """The largest over all shapes that the method has a formula for."""
    worst = 0.0
    for shape in SHAPES if name in IN_MERGEKIT or name in ("consensus", "pcb", "lines") else SHAPES[:3]:
        for seed in range(DRAWS):
            stack = drawn(name, seed, shape)
            theirs = other(stack).numpy().astype(np.float64)
            mine = find_method(name)(stack, **given).astype(np.float64)
            worst = max(worst, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
    return worst


def rows() -> Iterator[tuple[str, str, float]]:
    """Each method, what it is compared with, and the difference."""
    for name, (mine, theirs) in IN_MERGEKIT.items() if mergekit() else ():

        def there(stack: Stack, name: str = name, given: dict[str, Any] = theirs) -> torch.Tensor:
            ancestor = None if stack.ancestor is None else torch.from_numpy(stack.ancestor)
            return by_mergekit(name, given, torch.from_numpy(stack.models), ancestor)

        yield name, f"mergekit {mergekit()}", difference(name, mine, there)
    for name, formula in WRITTEN.items():

        def again(stack: Stack, formula: Other = formula) -> torch.Tensor:
            models, ancestor = (torch.from_numpy(one.astype(np.float64)) for one in (stack.models, stack.origin))
            return formula(models, ancestor)

        yield name, "its formula in torch, float64", difference(name, {}, again)


def mergekit() -> str:
    """The version that is installed, "" where none is."""
    try:
        return version("mergekit")
    except PackageNotFoundError:
        return ""


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    print("# Merge methods beside other implementations\n")
    print("`python tools/compare_methods.py`: the largest difference, relative to the largest value, over")
    print(f"{DRAWS} draws of tensors of {len(SHAPES)} shapes in float32; up to {LIMIT:g} counts as equal.\n")
    print("| method | compared with | difference | equal |\n|---|---|---|---|")
    for name, other, worst in rows():
        print(f"| {name} | {other} | {worst:.1e} | {'yes' if worst <= LIMIT else 'no'} |")
    if not mergekit():
        print("\nmergekit is not installed: what it has too is not compared.")


if __name__ == "__main__":
    main()
