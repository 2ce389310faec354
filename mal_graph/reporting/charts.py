"""Curves along lambda, and cost against score, as pictures of the same kind as the ladder: no library is needed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot, isfinite, log10, nan

from mal_graph.ladder import Dot, Outline, Picture, Shape, Style, Text, line, printable
from mal_graph.reporting.sweep_documents import CurveEntry, SweepDocument, curve_entry
from mal_graph.workflows import Curve, ParetoEntry

Point = tuple[float, float]

WIDTH, HEIGHT = 440.0, 250.0  # with the axes, without the legend
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 30.0, 40.0
LEGEND_ROW = 18.0
TICKS = 5
AROUND = ((15.0, 0.0), (-15.0, 0.0), (0.0, -15.0), (0.0, 15.0), (12.0, -12.0), (-12.0, 12.0))  # a point, its number
LINES = (  # of the arms of a sweep, in their order: style and width
    (Style.COMPATIBLE, 3.0),
    (Style.INCOMPATIBLE, 1.6),
    (Style.ALONE, 1.6),
    (Style.EDGE, 1.6),
    (Style.EQUAL, 1.6),
)


@dataclass(frozen=True)
class Axes:
    """Where figures lie in a picture.

    Attributes:
        x, y: the smallest and the largest figure on each axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        """The place of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            -WIDTH / 2 + LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    def shapes(self, x_name: str, y_name: str) -> Iterator[Shape]:
        """The two axes with their ticks and names."""
        corner, right, top = (
            self.at(self.x[0], self.y[0]),
            self.at(*swapped(self.x, self.y)),
            self.at(self.x[0], self.y[1]),
        )
        yield line(*corner, *right, Style.EDGE)
        yield line(*corner, *top, Style.EDGE)
        for value in ticks(*self.x):
            x, y = self.at(value, self.y[0])
            yield Text(x, y + 15, f"{value:g}", Style.DETAIL, "middle")
        for value in ticks(*self.y):
            x, y = self.at(self.x[0], value)
            yield line(x, y, right[0], y, Style.BAND, 0.4)
            yield Text(x - 6, y + 3, f"{value:g}", Style.DETAIL, "end")
        yield Text(corner[0], TOP - 14, y_name, Style.NAME)
        yield Text(right[0], HEIGHT - 6, x_name, Style.DETAIL, "end")


def swapped(x: Point, y: Point) -> Point:
    """The largest x at the smallest y."""
    return x[1], y[0]


def ticks(low: float, high: float) -> Iterator[float]:
    """Round figures between two others, about TICKS of them."""
    rough = (high - low) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1):
        yield round(index * step, 12)


def span(values: Sequence[float], margin: float = 0.06) -> Point:
    """The smallest and the largest of the figures that are finite, with some space around them."""
    finite = [value for value in values if isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    space = margin * (high - low) or 0.05 * abs(high) or 0.5
    return low - space, high + space


# --- along lambda -------------------------------------------------------------------------------------------------


def draw_sweep(document: SweepDocument) -> tuple[Picture, ...]:
    """Loss and metric of every arm along lambda."""
    arms = document.lambdas, document.curves
    return (
        along_lambda(*arms, document.loss_name, lambda curve: curve.loss, has_barrier=True),
        along_lambda(*arms, document.metric_name, lambda curve: curve.metric),
    )


def draw_curve(curve: Curve) -> Picture:
    """The loss of one arm along lambda."""
    name = curve.points[0].loss_name
    return along_lambda(curve.lambdas, [curve_entry(curve)], name, lambda one: one.loss, has_barrier=True)


def along_lambda(
    lambdas: Sequence[float],
    curves: Sequence[CurveEntry],
    name: str,
    values_of: Callable[[CurveEntry], Sequence[float]],
    *,
    has_barrier: bool = False,
) -> Picture:
    """One figure of every arm, with lambda* of the first; and its barrier, where that is asked for."""
    heights = [value for curve in curves for value in values_of(curve)]
    axes = Axes((lambdas[0], lambdas[-1]), span(heights))
    items: list[Shape] = list(axes.shapes("lambda", name))
    styles = [LINES[index % len(LINES)] for index in range(len(curves))]
    for curve, (style, width) in reversed(list(zip(curves, styles, strict=True))):  # the first one on top
        items += polyline(axes, lambdas, values_of(curve), style, width)
    items += star(axes, curves[0].lambda_star)
    if has_barrier and curves[0].barrier is not None and curves[0].barrier > 0:
        items += barrier(axes, lambdas, curves[0])
    items += legend([curve.name for curve in curves], styles)
    height = HEIGHT + LEGEND_ROW * ceil(len(curves) / 2) + 6
    told = f"{name} of {len(curves)} ways to merge, along lambda from 0 to {lambdas[-1]:g}"
    return Picture(-WIDTH / 2, WIDTH, height, f"{name} along lambda", told, tuple(items))


def polyline(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: Style, width: float) -> Iterator[Shape]:
    """Lines between points, with gaps where a figure is none."""
    run: list[Point] = []
    for x, y in [*zip(xs, ys, strict=True), (nan, nan)]:
        if isfinite(y):
            run.append(axes.at(x, y))
            continue
        if len(run) == 1:
            yield Dot(*run[0], 2.5, style)
        elif run:
            first, *others = run
            yield Outline((("M", first), *(("L", point) for point in others)), style, width, is_line=True)
        run = []


def star(axes: Axes, at: float) -> Iterator[Shape]:
    """Lambda*, as a line from top to bottom."""
    x, low = axes.at(at, axes.y[0])
    yield line(x, TOP, x, low, Style.ALONE)
    is_right = x > WIDTH / 4
    yield Text(x + (-4 if is_right else 4), TOP + 9, f"λ* {at:g}", Style.NAME, "end" if is_right else "start")


def barrier(axes: Axes, lambdas: Sequence[float], curve: CurveEntry) -> Iterator[Shape]:
    """How far the highest loss lies above the mean of both ends."""
    finite = [loss if isfinite(loss) else -1.0 for loss in curve.loss]
    top = max(range(len(finite)), key=finite.__getitem__)
    mean = (curve.loss[0] + curve.loss[-1]) / 2
    if not isfinite(mean):
        return
    left, right = axes.at(lambdas[0], mean), axes.at(lambdas[-1], mean)
    x, y = axes.at(lambdas[top], curve.loss[top])
    yield line(*left, *right, Style.ALONE)
    yield line(x, y, x, left[1], Style.JOIN, 2.0)
    yield Text(right[0], TOP - 14, f"barrier {curve.barrier:.4f}", Style.NAME, "end")


def legend(names: Sequence[str], styles: Sequence[tuple[Style, float]]) -> Iterator[Shape]:
    """What each line stands for, two in a row below the axes."""
    for index, (name, (style, width)) in enumerate(zip(names, styles, strict=True)):
        x = -WIDTH / 2 + LEFT + (index % 2) * (WIDTH - LEFT) / 2
        y = HEIGHT + 8 + LEGEND_ROW * (index // 2)
        yield line(x, y, x + 26, y, style, width)
        yield Text(x + 32, y + 4, name, Style.NAME)


# --- cost against score -------------------------------------------------------------------------------------------


def draw_pareto(entries: Sequence[ParetoEntry]) -> Picture:
    """Metric by cost; without scores how far the outputs are off. The front is filled and joined by a line, the result
    has a ring."""
    score = next((one.score for one in entries if one.score is not None), None)
    name = "how far the outputs are off" if score is None else score.metric_name
    heights = [one.error if score is None else one.score.metric if one.score else nan for one in entries]
    shown = [(one, one.cost, height) for one, height in zip(entries, heights, strict=True) if isfinite(height)]
    axes = Axes(span([one.cost for one in entries], 0.1), span(heights, 0.1))
    items: list[Shape] = list(axes.shapes("multiplications, in multiples of the base's", name))
    front = [(cost, height) for one, cost, height in shown if one.is_on_front]
    items += polyline(axes, [cost for cost, _ in front], [height for _, height in front], Style.EDGE, 1.6)
    for one, cost, height in shown:
        if one.is_result:
            items.append(Dot(*axes.at(cost, height), 8.5, Style.JOIN))
        items.append(Dot(*axes.at(cost, height), 5, Style.EQUAL if one.is_on_front else Style.JOIN))
    items += numbers_of(axes, shown, entries)
    told = f"{name} of {len(shown)} networks by their multiplications; what no other beats is filled"
    return Picture(-WIDTH / 2, WIDTH, HEIGHT, f"{name} by cost", told, tuple(items))


def numbers_of(
    axes: Axes, shown: Sequence[tuple[ParetoEntry, float, float]], entries: Sequence[ParetoEntry]
) -> Iterator[Shape]:
    """The place of every network in the table, beside its point where there is most room."""
    points = [axes.at(cost, height) for _, cost, height in shown]
    taken = list(points)
    for (one, _, _), (x, y) in zip(shown, points, strict=True):
        places = [(x + dx, y + dy) for dx, dy in AROUND]
        place = max(places, key=lambda at: min(hypot(at[0] - x, at[1] - y) for x, y in taken))
        taken.append(place)
        style = Style.TITLE if one.is_result else Style.NAME
        yield Text(place[0], place[1] + 4, str(entries.index(one) + 1), style, "middle", printable(one.name))
