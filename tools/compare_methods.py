"""Compares merge methods with other implementations, on tensors of one shape that are all there.

    python tools/compare_methods.py > tools/results/compare_methods.md

Needs torch. The methods that another package has too are compared with it where it is installed (see
`compare_packages.py`). Some are compared with their formula written once more in torch, in float64 and in another way:
polar decompositions by square roots of Gram matrices, gradients by autograd, masks in plain loops. Each figure is the
largest difference over all draws, relative to the largest value of what both give. What cannot be compared is said
below the table.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
import torch
from compare_packages import PACKAGES, Row, installed

from mal_graph.methods import Need, Stack, find_method

Other = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # the models and the ancestor in, the merged tensor out

SHAPES = ((24, 16), (16, 24), (8, 4, 3, 3), (40,))
DRAWS = 5
INPUTS = 200  # of each model
LIMIT = 1e-5  # float32, relative to the largest value
NOT_COMPARED = """
A row that differs says in which choice; with that choice made alike the same method is a row that agrees. Not compared:
DARE and DELLA, which each implementation draws in its own way (their laws are tests); what AdaMerging, Concrete and
FW-Merging learn, which fusion-bench learns on models and data of its own; MASS, of which it has a
relative alone (SMILE)."""


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


def drawn(name: str, seed: int, shape: tuple[int, ...], count: int) -> Stack:
    """Models that were tuned from one ancestor, so to say, and what was measured in them."""
    rng, method = np.random.default_rng(seed), find_method(name)
    ancestor = rng.standard_normal(shape).astype(np.float32)
    learned = rng.standard_normal(shape) + rng.standard_normal((count, *shape))  # some of it by all
    models = (ancestor + 0.3 * learned).astype(np.float32)
    inputs = rng.standard_normal((count, INPUTS, models[0, 0].size))
    return Stack(
        models,
        ancestor if method.needs is Need.ANCESTOR else None,
        numbers=tuple(range(count)),
        depth=0.5,
        moments=(inputs.transpose(0, 2, 1) @ inputs / INPUTS)[:, None] if len(shape) > 1 else None,
        fisher=rng.random(models.shape),
        mask=rng.random(shape).astype(np.float32),
    )


def difference(row: Row, draws: int = DRAWS) -> float:
    """The largest over all shapes that the method has a formula for."""
    worst = 0.0
    for shape in SHAPES:
        for seed in range(draws) if len(shape) in row.ranks else ():
            stack = row.prepared(drawn(row.method, seed, shape, row.models))
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # the packages tell what they do
                theirs = row.there(stack).numpy().astype(np.float64).reshape(shape)
            mine = find_method(row.method)(stack, **row.given_for(stack)).astype(np.float64)
            worst = max(worst, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
    return worst


def rows() -> Iterator[tuple[Row, str]]:
    """What is compared, and with what."""
    for package, rows_of in PACKAGES.items():
        if installed(package):
            yield from ((row, f"{package} {installed(package)}") for row in rows_of())
    for name, formula in WRITTEN.items():

        def again(stack: Stack, formula: Other = formula) -> torch.Tensor:
            models, ancestor = (torch.from_numpy(one.astype(np.float64)) for one in (stack.models, stack.origin))
            return formula(models, ancestor)

        ranks = (1, 2, 4) if name in ("consensus", "pcb", "lines") else (2, 4)
        yield Row(name, again, {}, ranks=ranks), "its formula in torch, float64"


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    print("# Merge methods beside other implementations\n")
    print("`python tools/compare_methods.py`: the largest difference, relative to the largest value, over")
    print(f"{DRAWS} draws of tensors of {len(SHAPES)} shapes in float32; up to {LIMIT:g} counts as equal.\n")
    print("| method | compared with | variant | difference | equal |\n|---|---|---|---|---|")
    for row, other in rows():
        worst = difference(row)
        equal = "yes" if worst <= LIMIT else "no"
        print(f"| {row.method} | {other} | {row.note} | {worst:.1e} | {equal} |", flush=True)
    print(NOT_COMPARED)
    for package in PACKAGES:
        if not installed(package):
            print(f"\n{package} is not installed: what it has too is not compared.")


if __name__ == "__main__":
    main()
