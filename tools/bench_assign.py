"""CPU time of one assignment of units beside the solvers it is made of: `python tools/bench_assign.py -o FILE.md`.

Tables of scores of several families: a copy (correlation .7 and .1), strangers, strangers some of whose units are far
larger than others, tables with a spectrum of 1/k as trained layers have, and strangers of other widths. `solver` is
`lapjvh` of lapx with the scores as they are; `ours` is `match_units`, which gives it what each unit falls short of its
best. Last, all tables of an alignment of two strangers, one after the other; there `duals` is what keeps the dual
variables of every pair from one table to the next (made by numpy from the solution, in float32, two rounds) and takes
them off before. Times are CPU milliseconds of this process with one thread, the least of several runs.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import bench_align  # first: it sets the number of threads
import numpy as np
from lap import lapjvh
from scipy.optimize import linear_sum_assignment

from mal_graph.graph import Array
from mal_graph.matching import assign_units, crossing_orders
from mal_graph.matching.orders import match_units, score_order

SIZES = (64, 256, 1024)
ROUNDS = 2  # of making dual variables of a solution


def inner_products(units: int, others: int, correlation: float, rng: np.random.Generator, uneven: float = 0) -> Array:
    """Of the units of a layer with those of a mixture of its shuffled copy with another one."""
    a, b = (rng.standard_normal((count, 4 * units)) for count in (units, max(units, others)))
    b[:units] = correlation * a[rng.permutation(units)] + np.sqrt(1 - correlation**2) * b[:units]
    sizes = (np.exp(uneven * rng.standard_normal((len(side), 1))) for side in (a, b))
    a, b = (side * size for side, size in zip((a, b), sizes, strict=True))
    return a @ b[:others].T


def decaying(units: int, others: int, rng: np.random.Generator) -> Array:
    """A table of two layers with a spectrum of 1/k."""
    mixed = (
        (rng.standard_normal((units, units)) / np.arange(1, units + 1)) @ rng.standard_normal((units, units))
        for _ in range(2)
    )
    a, b = mixed
    return a @ b[:others].T


FAMILIES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "copy, corr .7": lambda n, rng: inner_products(n, n, 0.7, rng),
    "copy, corr .1": lambda n, rng: inner_products(n, n, 0.1, rng),
    "strangers": lambda n, rng: inner_products(n, n, 0.0, rng),
    "uneven strangers": lambda n, rng: inner_products(n, n, 0.0, rng, uneven=1.0),
    "spectrum 1/k": lambda n, rng: decaying(n, n, rng),
    "spectrum 1/k, narrower donor": lambda n, rng: decaying(n, 3 * n // 4, rng),
    "strangers, narrower donor": lambda n, rng: inner_products(n, 3 * n // 4, 0.0, rng),
    "strangers, wider donor": lambda n, rng: inner_products(3 * n // 4, n, 0.0, rng),
}


def least(run: Callable[[], object], repeats: int) -> float:
    """The least milliseconds of several runs."""
    return 1e3 * min(bench_align.seconds(run)[0] for _ in range(repeats))


def row_of(name: str, units: int) -> str:
    score = FAMILIES[name](units, np.random.default_rng(0))
    repeats = 10 if units < 1000 else 3
    scipy = least(lambda: linear_sum_assignment(score, maximize=True), repeats)
    solver = least(lambda: lapjvh(-score, extend_cost=True), repeats)
    ours = least(lambda: match_units(score), repeats)
    best = float(score[linear_sum_assignment(score, maximize=True)].sum())
    gap = abs(score_order(score, match_units(score)) - best) / abs(best)
    return f"| {name} | {units} | {scipy:.2f} | {solver:.2f} | {ours:.2f} | {scipy / ours:.1f} | {gap:.0e} |"


def tables_of(model: str) -> list[Array]:
    """All tables that are assigned on the way to an alignment of two strangers."""
    base = bench_align.drawn(bench_align.MODELS[model](), 0)
    groups = bench_align.axis_groups(base)
    correspondence = bench_align.found_between(base, groups, bench_align.donor_of(base, groups, 0.0, 1))
    tables: list[Array] = []

    def noted(score: Array) -> Array:
        tables.append(score.copy())
        return match_units(score)

    crossing_orders.match_units = noted
    assign_units(correspondence)
    crossing_orders.match_units = match_units
    return tables


def with_duals(tables: list[Array]) -> None:
    """Solve tables one after the other, each with the dual variables of the last one of its size."""
    kept: dict[int, Array] = {}
    for score in tables:
        rest = np.subtract(score, kept.get(len(score), 0.0), dtype=np.float64)
        np.subtract(rest.max(axis=1, keepdims=True), rest, out=rest)
        _, _, columns = lapjvh(rest)
        placed = score.astype(np.float32, copy=False)[np.argsort(columns)]
        own = placed.diagonal().copy()
        dual = np.zeros(len(score), np.float32)
        for _ in range(ROUNDS):
            dual = (placed + (dual - own)[:, None]).max(axis=0)
        kept[len(score)] = dual.astype(np.float64)


def sequence_row(model: str) -> str:
    """One row of all tables of a model."""
    tables = tables_of(model)
    scipy = least(lambda: [linear_sum_assignment(score, maximize=True) for score in tables], 2)
    solver = least(lambda: [lapjvh(-score, extend_cost=True) for score in tables], 2)
    ours = least(lambda: [match_units(score) for score in tables], 2)
    duals = least(lambda: with_duals(tables), 2)
    return f"| {model} | {len(tables)} | {scipy:.0f} | {solver:.0f} | {ours:.0f} | {duals:.0f} | {scipy / ours:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the tables here too")
    options = parser.parse_args()
    lines = [
        "| scores | units | scipy (ms) | solver (ms) | ours (ms) | scipy / ours | relative gap |",
        "|---" * 7 + "|",
    ]
    lines += [row_of(name, units) for name in FAMILIES for units in SIZES]
    lines += [
        "",
        "| strangers | tables | scipy (ms) | solver (ms) | ours (ms) | duals (ms) | scipy / ours |",
        "|---" * 7 + "|",
    ]
    lines += [sequence_row(model) for model in bench_align.MODELS]
    print("\n".join(lines))
    if options.output:
        text = (__doc__ or "").split("\n\n", 1)
        Path(options.output).write_text(f"# One assignment beside its solvers\n\n{text[1]}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
