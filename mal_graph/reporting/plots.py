"""Curves, heat maps, and cost against score as images, drawn by matplotlib (the extra `plot`), loaded only then."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.plain_text import one_line
from mal_graph.reporting.search_charts import losses_of, lowest_so_far, objective_names
from mal_graph.reporting.search_documents import front_of, search_document
from mal_graph.searching import Search
from mal_graph.workflows import Grid, ParetoEntry, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = ("svg", "png")
MOST_LETTERS, LETTER = 48, 0.08  # of a name, and inches of one


def shown(name: str) -> str:
    """A name of a file as matplotlib shows it: what is between dollars it would take for a formula, and beside long
    names nothing would have room."""
    text = one_line(name)
    if len(text) > MOST_LETTERS:
        text = f"{text[: MOST_LETTERS // 2 - 3]}...{text[-MOST_LETTERS // 2 :]}"
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "plots are drawn by matplotlib, which is not installed: pip install 'mal-graph[plot]', "
            "or write a .json or .csv file"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def image(figure: "Figure", kind: str) -> bytes:
    """A figure as the bytes of a file; the same figure always gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mal_graph"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def draw_curves(sweep: Sweep, kind: str) -> bytes:
    """Loss and metric of every arm along lambda, side by side, with lambda* of the aligned arm."""
    figure = new_figure(10, 4)
    first = sweep.curves[0].points[0]
    sides = figure.subplots(1, 2)
    for side, name in zip(sides, ("loss", "metric"), strict=True):
        for curve in sweep.curves:
            heights = [getattr(point, name) for point in curve.points]
            thick = 2.5 if curve is sweep.curves[0] else 1.2
            side.plot(sweep.lambdas, heights, label=curve.arm, linewidth=thick, marker=".")
        side.axvline(sweep.curves[0].lam_star, color="grey", linestyle=":", label=f"lambda*({sweep.config.eps:g})")
        side.set_xlabel("lambda")
        side.set_ylabel(first.loss_name if name == "loss" else first.metric_name)
    sides[0].legend()
    figure.suptitle(f"{shown(Path(sweep.donor).name)} into {shown(Path(sweep.base).name)}")
    return image(figure, kind)


def draw_pareto(entries: Sequence[ParetoEntry], kind: str) -> bytes:
    """Loss and metric of networks by their cost, side by side; without scores how far their outputs are off.

    What is on the Pareto front is filled, and joined by a line in the metric that it is the front of; the result has a
    ring around it.
    """
    heights: dict[str, Callable[[ParetoEntry], float]] = {"how far the outputs are off": lambda one: one.error}
    score = entries[0].score
    if score is not None:
        heights = {
            score.loss_name: lambda one: one.score.loss if one.score else np.nan,
            score.metric_name: lambda one: one.score.metric if one.score else np.nan,
        }
    figure = new_figure(3.5 + 4 * len(heights), 4.5)
    sides = figure.subplots(1, len(heights), squeeze=False)[0]
    for side, (name, height) in zip(sides, heights.items(), strict=True):
        for place, one in enumerate(entries):
            colour = f"C{place % 10}"
            marker = "os^Dv"[place // 10 % 5]
            face = colour if one.is_on_front else "none"
            at = [one.cost], [height(one)]
            side.plot(*at, marker, label=shown(one.name), color=colour, markerfacecolor=face, markersize=7)
            if one.is_result:
                side.plot(*at, "o", color="black", markerfacecolor="none", markersize=13)
        if side is sides[-1]:
            front = [one for one in entries if one.is_on_front]
            side.plot([one.cost for one in front], [height(one) for one in front], color="grey", linewidth=1, zorder=1)
        side.set_xlabel("multiplications, in multiples of the base's")
        side.set_ylabel(name)
    figure.legend(*sides[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return image(figure, kind)


def draw_search(search: Search, kind: str) -> bytes:
    """The loss of every candidate in the order of proposal with the lowest so far, and what no other beats."""
    document = search_document(search)
    figure = new_figure(10, 4)
    course, plane = figure.subplots(1, 2)
    losses = losses_of(document)
    base = search.base[next(iter(search.base))].loss
    course.plot(range(1, len(losses) + 1), losses, ".", label="candidate")
    course.plot(range(1, len(losses) + 1), lowest_so_far([base, *losses])[1:], label="lowest so far")
    course.axhline(base, color="grey", linestyle=":", label="base")
    lowest = min([base, *losses])
    course.set_ylim(lowest - 0.1 * (base - lowest) - 1e-9, base + (base - lowest) / 2 + 1e-9)
    course.set_xlabel("candidate")
    course.set_ylabel(document.names[0])
    course.legend()
    plane.plot(*zip(*(trial.objectives for trial in document.trials), strict=True), ".", label="candidate")
    plane.plot(*zip(*(one.objectives for one in front_of(document)), strict=True), "o-", label="no other beats it")
    for name, label in zip(objective_names(document), (plane.set_xlabel, plane.set_ylabel), strict=True):
        label(name)
    plane.legend()
    return image(figure, kind)


def draw_heat_map(grid: Grid, kind: str) -> bytes:
    """The change of the loss by base layer and donor layer; what could not be merged is grey."""
    rows, columns = grid.change.shape
    own, others = (list(map(shown, names)) for names in (grid.base_layers, grid.donor_layers))
    beside, below = (LETTER * max(map(len, names)) for names in (own, others))
    figure = new_figure(2.5 + 0.45 * columns + beside, 1.5 + 0.4 * rows + below)
    axes = figure.subplots()
    finite = grid.change[np.isfinite(grid.change)]
    limit = float(np.abs(finite).max(initial=0.0)) or 1.0
    drawn = axes.imshow(grid.change, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_xticks(range(columns), others, rotation=90)
    axes.set_yticks(range(rows), own)
    axes.set_xlabel(f"layer of {shown(Path(grid.donor).name)}")
    axes.set_ylabel(f"layer of {shown(Path(grid.base).name)}")
    axes.set_facecolor("lightgrey")  # where nothing could be merged
    axes.set_title(f"change of the loss at lambda {grid.lam:g}")
    figure.colorbar(drawn)
    return image(figure, kind)
