"""The course of a search and its Pareto front, as pictures of the same kind as the ladder."""

from math import inf, isfinite

from mal_graph.ladder import Dot, Picture, Shape, Style
from mal_graph.reporting.charts import HEIGHT, WIDTH, Axes, polyline, span
from mal_graph.reporting.search_documents import SearchDocument, front_of


def lowest_so_far(losses: list[float]) -> list[float]:
    """The lowest of all figures up to each."""
    best, lowest = inf, []
    for loss in losses:
        best = min(best, loss) if isfinite(loss) else best
        lowest.append(best)
    return lowest


def losses_of(document: SearchDocument) -> list[float]:
    """The mean loss of every candidate; without end where there is none of all samples."""
    sums = [[one.loss for one in trial.figures] if trial.is_whole else [] for trial in document.trials]
    return [sum(losses) / len(losses) if losses else inf for losses in sums]


def objective_names(document: SearchDocument) -> tuple[str, str]:
    """What the front is of, to be lowered."""
    loss, metric = document.names
    if document.weighs_size:
        return (loss, "share of the base that changes")
    return (f"{loss}, set 1", f"{loss}, set 2") if len(document.parts[0].base) > 1 else (loss, f"minus {metric}")


def draw_search(document: SearchDocument) -> tuple[Picture, ...]:
    """The loss of every candidate in the order of proposal, and the front of all; none of no candidates."""
    losses = losses_of(document)
    if not any(map(isfinite, losses)):
        return ()
    return draw_history(document, losses), draw_front(document)


def draw_history(document: SearchDocument, losses: list[float]) -> Picture:
    """Every loss as a dot, and the lowest so far as a line."""
    numbers = [float(number) for number in range(1, len(losses) + 1)]
    base = sum(one.loss for one in document.parts[0].base) / len(document.parts[0].base)
    lowest = lowest_so_far([base, *losses])[1:]
    shown = [loss for loss in losses if isfinite(loss) and loss <= base + (base - lowest[-1]) / 2]
    axes = Axes(span(numbers), span([*shown, base, lowest[-1]]))
    items: list[Shape] = list(axes.shapes("candidate", document.names[0]))
    for number, loss in zip(numbers, losses, strict=True):
        if isfinite(loss) and axes.y[0] <= loss <= axes.y[1]:  # those far above the base say nothing
            items.append(Dot(*axes.at(number, loss), 2.0, Style.COMPATIBLE))
    items += polyline(axes, numbers, lowest, Style.EQUAL, 2.0)
    told = f"{document.names[0]} of {len(losses)} candidates in the order of proposal, and the lowest so far"
    return Picture(-WIDTH / 2, WIDTH, HEIGHT, "the course of the search", told, tuple(items))


def draw_front(document: SearchDocument) -> Picture:
    """Both objectives of every candidate, with the front."""
    names = objective_names(document)
    finite = [trial for trial in document.trials if all(map(isfinite, trial.objectives))]
    axes = Axes(*(span([trial.objectives[axis] for trial in finite], 0.1) for axis in (0, 1)))
    items: list[Shape] = list(axes.shapes(*names))
    for trial in finite:
        items.append(Dot(*axes.at(*trial.objectives), 2.0, Style.COMPATIBLE))
    front = front_of(document)
    items += polyline(axes, [one.objectives[0] for one in front], [one.objectives[1] for one in front], Style.EDGE, 1.6)
    items += [Dot(*axes.at(*one.objectives), 4.0, Style.EQUAL) for one in front]
    told = f"{names[0]} and {names[1]} of {len(finite)} candidates; those that no other beats are joined"
    return Picture(-WIDTH / 2, WIDTH, HEIGHT, "Pareto front", told, tuple(items))
