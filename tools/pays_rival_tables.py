"""The report's section on published methods, made of the study's JSON and of what `pays_rivals.py` tells of each."""

from collections.abc import Sequence
from statistics import median

from pays_rivals import REBASIN, RIVALS
from pays_tables import (
    FAMILIES,
    UNSKEWED,
    Key,
    Result,
    arm_title,
    closure,
    counted,
    middle,
    names_of,
    net_closure,
    table,
    values_by_pair,
)

COUNT = 200  # unlabelled inputs
BUDGETS = (1.0, 1.25, 1.5)
AVERAGE: Key = ("average", 0.0, 0.0)
PERMUTED: Key = (REBASIN, 0.0, 0.0)
ZIPPED, PARTLY_ZIPPED = ("ZipIt!", 1.0, 0.0), ("ZipIt!", 1.5, 0.0)
FITTED, PARTLY_FITTED = ("PLeaS", 1.0, 0.0), ("PLeaS", 1.5, 0.0)
STEPS = (
    (AVERAGE, PERMUTED),
    (PERMUTED, ZIPPED),
    (ZIPPED, FITTED),
    (ZIPPED, PARTLY_ZIPPED),
    (FITTED, PARTLY_FITTED),
)
NOTE = (
    "Published methods with the same 200 inputs and at the same budgets, beside the union of the same pairs: those of "
    "one wiring and width, which the methods need. Medians over unskewed pairs of medians over seeds; net closure "
    "takes off the best control, as above. Written from the papers, not from their code; they have no share in the "
    "choice by the guard."
)
ORDER_NOTE = (
    "Published: averages in stored order fall behind permuted ones, these behind ZipIt!, that behind PLeaS, and with "
    "more to spend both are better. In how many runs the accuracy rises from one to the next, whatever the ensemble "
    "gains, and its median change in points. Skewed pairs are nearest to the disjoint tasks of those papers."
)


def alike(results: Sequence[Result]) -> list[Result]:
    """The results with networks of published methods."""
    return [one for one in results if accuracy_of(one, FITTED) is not None]


def accuracy_of(result: Result, key: Key) -> float | None:
    """An arm's accuracy; None where there is no such arm."""
    own = (row for row in result["arms"] if (row["arm"], row["budget"], row["lambda"]) == key)
    return next((float(row["accuracy"]) for row in own if row["count"] == COUNT), None)


def pooled_rivals(results: Sequence[Result]) -> str:
    """Median net closure and closure of every method, by family and budget."""
    own = [one for one in counted(alike(results)) if one["kind"] in UNSKEWED]
    body = []
    for family in FAMILIES:
        here = [one for one in own if one["family"] == family]
        pairs = len(names_of(here))
        for name in ("union", *RIVALS) if here else ():
            cells = [
                middle(values_by_pair(here, (name, budget, 0.0), COUNT, figure), pairs)
                for budget in BUDGETS
                for figure in (net_closure, closure)
            ]
            body.append([family, f"{pairs} ({len(here)})", name, *cells])
    head = ["family", "pairs (with seeds)", "method"]
    return table(head + [f"{figure} {budget}x" for budget in BUDGETS for figure in ("net", "closure")], body)


def order_table(results: Sequence[Result]) -> str:
    """For each family how often a method is better than the one that it should be better than."""
    body = []
    for family in FAMILIES:
        for title, kinds in ((family, UNSKEWED), (f"{family}, skewed", ("skewed",))):
            here = [one for one in alike(results) if one["family"] == family and one["kind"] in kinds]
            if here:
                body.append([title, *(rises(here, *step) for step in STEPS)])
    return table(["pairs", *(" < ".join(map(arm_title, step)) for step in STEPS)], body)


def rises(results: Sequence[Result], lower: Key, higher: Key) -> str:
    """In how many of the runs that have both the second is better, and by how much in the median."""
    both = [(accuracy_of(one, lower), accuracy_of(one, higher)) for one in results]
    changes = [100 * (after - before) for before, after in both if before is not None and after is not None]
    if not changes:
        return "-"
    return f"{sum(change > 0 for change in changes)} of {len(changes)} ({median(changes):+.1f})"


def rivals_text(results: Sequence[Result]) -> str:
    """The section."""
    told = [f"* {name}: {rival.told}" for name, rival in RIVALS.items()]
    parts = [
        f"\n## Rivals\n\n{NOTE}\n",
        pooled_rivals(results),
        "",
        *told,
        f"\n### The published order\n\n{ORDER_NOTE}\n",
        order_table(results),
    ]
    return "\n".join(parts) + "\n"
