"""The tables of `study_pays.py`, made of its JSON alone.

Closure is (arm - base) / (ensemble - base) in test accuracy, of pairs whose ensemble is at least a point above the
base. Net closure takes off the best control of the same unlabelled inputs instead of the base: the base as it is, with
class biases, or with its last layer refitted; which one is best is read from the test images, in favour of the
controls. At 1.0 times the multiplications and more the pruned base is the base.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, product
from statistics import median
from typing import Any

Row = Mapping[str, Any]
Result = Mapping[str, Any]
Key = tuple[str, float, float]  # name, budget and lambda of an arm
Figure = Callable[[Result, Row], float]

LEAST_GAIN = 0.01  # of an ensemble, for its pair to count
UNSKEWED = ("disjoint", "augmentation", "architecture")
FAMILIES = ("MLP", "CNN", "ResNet", "ViT")
CONTROLS = ("base, class biases", "base, head refitted")
OTHER = "union, other images"
MERGED = ("union", "union, joint head", "whole base + pruned donor", "whole base + pruned donor, joint head", "mal")
CANDIDATES = (*MERGED, "average")
LIMITS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.0)
GUARDS = {"guard": "logits", "guard_kl": "divergence", "guard_shares": "probabilities", "guard_classes": "other class"}
BOTH, LARGER = "both", "larger"
JUDGES = {**GUARDS, LARGER: "logits and probabilities", BOTH: "logits and divergence"}
JUDGED = {"noise": (0,), "8 of 32 inputs": (32,), "a quarter of 200 or 1,000 inputs": (200, 1000)}
ACCEPTED, ACCEPTED_ON_NOISE = 0.25, 0.2  # the product's limits
BUDGETS = (1.0, 1.25, 1.5)
NEAR = 0.1  # closure that a choice may be below the best one
COUNTS = (0, 32, 200, 1000)

FITTED_ON_NOISE = tuple(arm for arm in MERGED if arm.endswith("joint head"))  # the guard on noise cannot judge these

GUARD_NOTE = (
    "Error of the merged network against the ensemble as a share of the base's, on fresh noise or on the quarter "
    "of the inputs that was held out, of every union, every whole base beside a pruned donor, and every mal merge; "
    "arms of one pair are not independent. An arm that is as good as its base is below it by more than one standard "
    "error in 16 of 100 cases. Closures are of pairs whose ensemble gains a point. First the guards beside each other: "
    "distance of logits; mean divergence of predicted classes from the ensemble's; "
    "distance of probabilities; inputs that get another class than from the ensemble; each as a share of the base's. "
    "The product takes the larger of logits and probabilities. "
    "Heads that were fitted on noise are left out on noise."
)
OTHER_NOTE = (
    "Unions made on 200 images of another data set (digits for clothes, clothes for digits and for photographs), "
    "beside those on 200 of the base's own: median closures, how many arms the guard accepts at its limit, and how "
    "many of these are below their base by more than a standard error. The guard sees other images too."
)
CHOICE_NOTE = (
    "The smallest guard error among unions, whole bases beside pruned donors, mal and average, up to a cost; above the "
    "product's limit (.2 on noise, .25 on given inputs) the base is kept, with a closure of 0. The best is the best of "
    "them, or the base where all are below it. Pairs whose ensemble gains a point."
)


def closure(result: Result, row: Row, above: float | None = None) -> float:
    """How much of the ensemble's gain an arm has, above the base or another accuracy."""
    base, whole = accuracy(result, "base"), accuracy(result, "ensemble of logits")
    return float((row["accuracy"] - (base if above is None else above)) / (whole - base))


def accuracy(result: Result, arm: str) -> float:
    return next(float(row["accuracy"]) for row in result["arms"] if row["arm"] == arm)


def gain(result: Result) -> float:
    return accuracy(result, "ensemble of logits") - accuracy(result, "base")


def best_control(result: Result, count: int) -> float:
    """The best accuracy that the base reaches with so many unlabelled inputs."""
    own = [row["accuracy"] for row in result["arms"] if row["arm"] in CONTROLS and row["count"] == count]
    return float(max([accuracy(result, "base"), *own]))


def net_closure(result: Result, row: Row) -> float:
    return closure(result, row, best_control(result, row["count"]))


def counted(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if gain(result) >= LEAST_GAIN]


def groups_of(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of one table column each: by family, what is skewed and what is fine-tuned apart."""
    columns: dict[str, list[Result]] = {}
    for family in FAMILIES:
        for title, kinds in (("", UNSKEWED), (", skewed", ("skewed",)), (", fine-tunes", ("fine-tunes",))):
            own = [one for one in results if one["family"] == family and one["kind"] in kinds]
            if own:
                columns[f"{family}{title}"] = own
    return columns


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def arm_title(key: Key) -> str:
    name, budget, lam = key
    return name + (f" {budget:g}x" if budget else "") + (f" lambda {lam:g}" if lam else "")


def arm_keys(results: Sequence[Result], count: int) -> list[Key]:
    keys = (
        (row["arm"], row["budget"], row["lambda"]) for one in results for row in one["arms"] if row["count"] == count
    )
    return list(dict.fromkeys(keys))


def arm_table(results: Sequence[Result], count: int, figure: Figure) -> str:
    """The median of a figure for each arm with so many inputs, over the pairs of each column."""
    columns = groups_of(counted(results))
    body = []
    for key in arm_keys(results, count):
        cells = [middle(values_by_pair(own, key, count, figure), len(names_of(own))) for own in columns.values()]
        body.append([arm_title(key), *cells])
    return table(["arm", *(f"{title} ({len(names_of(own))})" for title, own in columns.items())], body)


def names_of(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(str(one["pair"]) for one in results))


def values_by_pair(results: Sequence[Result], key: Key, count: int, figure: Figure) -> list[float]:
    """The median of a figure over the seeds of each pair that has such an arm."""
    values: dict[str, list[float]] = {}
    for one in results:
        for row in one["arms"]:
            if row["count"] == count and (row["arm"], row["budget"], row["lambda"]) == key:
                values.setdefault(one["pair"], []).append(figure(one, row))
    return [median(own) for own in values.values()]


def middle(values: Sequence[float], whole: int) -> str:
    """A median, with the number of values where it is not that of all."""
    if not values:
        return "-"
    return f"{median(values):.2f}" + (f" ({len(values)})" if len(values) != whole else "")


def other_images(results: Sequence[Result]) -> str:
    """Unions that were made on images of another data set, beside those on the base's own: what they reach, and how
    often the guard, which sees other images too then, accepts what is below its base by more than a standard error."""
    body = []
    own = [one for one in counted(results) if any(row["arm"] == OTHER for row in one["arms"])]
    for title, here in groups_of(own).items():
        for budget in BUDGETS:
            arms = [(one, row) for one in here for row in one["arms"] if (row["arm"], row["budget"]) == (OTHER, budget)]
            passed = [(one, row) for one, row in arms if larger_guard(row) <= ACCEPTED]
            below = sum(row["accuracy"] < accuracy(one, "base") - row["accuracy_se"] for one, row in passed)
            names = len(names_of(here))
            closures = [
                middle(values_by_pair(here, (arm, budget, 0.0), 200, closure), names) for arm in ("union", OTHER)
            ]
            body.append([title, f"{budget:g}x", *closures, f"{len(passed)} of {len(arms)}", str(below)])
    head = ["pairs", "budget", "own images", "other images", "accepted", "of these below the base"]
    return table(head, body)


def larger_guard(row: Row) -> float:
    """The guard of the product: of logits and probabilities the larger."""
    return float(max(row["guard"], row["guard_shares"]))


def closures_by_pair(results: Sequence[Result]) -> str:
    """For each pair whose ensemble gains a point what unions reach, and the best control, as medians of its seeds."""
    arms = [(count, budget) for count in (0, 200) for budget in (1.0, 1.5)]
    body = []
    for own in groups_of(counted(results)).values():
        for name in names_of(own):
            here = [one for one in own if one["pair"] == name]
            control = median((best_control(one, 200) - accuracy(one, "base")) / gain(one) for one in here)
            cells = [name, str(len(here)), f"{100 * median(map(gain, here)):.1f}", f"{control:.2f}"]
            for count, budget in arms:
                for figure in (closure, net_closure):
                    cells.append(middle(values_by_pair(here, ("union", budget, 0.0), count, figure), 1))
            body.append(cells)
    head = ["pair", "seeds", "gain, points", "best control, 200"]
    head += [f"{title} {budget}x, {count}" for count, budget in arms for title in ("closure", "net")]
    return table(head, body)


def pair_table(results: Sequence[Result]) -> str:
    """What the parents and their ensembles reach, for every pair, as means over its seeds."""
    head = ["pair", "family", "kind", "seeds", "base", "donor", "ensemble of logits", "of probabilities", "gain"]
    head += ["multiplications of the ensemble"]
    body = []
    order = sorted(results, key=lambda one: (FAMILIES.index(one["family"]), one["kind"], one["pair"]))
    for name, alike in groupby(order, key=lambda one: str(one["pair"])):
        own = list(alike)
        means = [
            sum(accuracy(one, arm) for one in own) / len(own)
            for arm in ("base", "donor", "ensemble of logits", "ensemble")
        ]
        gains = ", ".join(f"{100 * gain(one):.1f}" for one in own)
        figures = [f"{mean:.3f}" for mean in means]
        cost = next(row["cost"] for row in own[0]["arms"] if row["arm"] == "ensemble of logits")
        body.append([name, own[0]["family"], own[0]["kind"], str(len(own)), *figures, gains, f"{cost:.2f}x"])
    return table(head, body)


# --- the guard --------------------------------------------------------------------------------------------------


def judged(results: Sequence[Result], counts: Sequence[int]) -> list[tuple[Result, Row]]:
    """Every merged network that was given so many inputs. Heads that were fitted to the ensemble on noise are left out:
    noise cannot judge them."""
    return [
        (one, row)
        for one in results
        for row in one["arms"]
        if row["arm"] in MERGED and row["count"] in counts and (row["count"] or row["arm"] not in FITTED_ON_NOISE)
    ]


def falls(result: Result, row: Row) -> float:
    """By how many standard errors of the difference an arm's accuracy is below the base's."""
    return float((accuracy(result, "base") - row["accuracy"]) / max(row["accuracy_se"], 1e-9))


def rises(result: Result, row: Row) -> float:
    """By how many standard errors of the difference an arm's loss is above the base's."""
    base = next(one for one in result["arms"] if one["arm"] == "base")
    return float((row["loss"] - base["loss"]) / max(row["loss_se"], 1e-9))


def error(row: Row, guard: str = "guard") -> float:
    """One guard's error; of two the larger one, where the divergence, which is a square, counts by its root."""
    if guard == BOTH:
        return float(max(row["guard"], row["guard_kl"] ** 0.5))
    if guard == LARGER:
        return float(max(row["guard"], row["guard_shares"]))
    return float(row[guard])


def safe_limit(rows: Sequence[tuple[Result, Row]], margin: float = 1.0, guard: str = "guard") -> float:
    """The guard error from which on, and below which never, an arm is below its base by more than so many standard
    errors."""
    return min((error(row, guard) for one, row in rows if falls(one, row) > margin), default=float("inf"))


def area(rows: Sequence[tuple[Result, Row]], guard: str = "guard", margin: float = 1.0) -> float:
    """How often the guard error of a failed arm is above that of another: the area under the ROC curve."""
    bad = [error(row, guard) for one, row in rows if falls(one, row) > margin]
    good = [error(row, guard) for one, row in rows if falls(one, row) <= margin]
    if not bad or not good:
        return float("nan")
    wins = sum((worse > better) + 0.5 * (worse == better) for worse in bad for better in good)
    return float(wins / (len(bad) * len(good)))


def kind_table(results: Sequence[Result]) -> str:
    """The guards beside each other, where the ensemble is above the base: how well each tells failures, and how many
    arms lie below the first of them."""
    results = [one for one in results if not blamed(one)]
    head = ["compared", "on", "arms", "ROC area", "of falls by > 2 se", "first failure at", "arms below it"]
    head += ["first fall by > 2 se at", "arms below it"]
    body = []
    for inputs, counts in JUDGED.items():
        rows = judged(results, counts)
        for guard, title in JUDGES.items():
            cells = [title, inputs, str(len(rows)), *(f"{area(rows, guard, margin):.3f}" for margin in (1, 2))]
            for margin in (1, 2):
                limit = safe_limit(rows, margin, guard)
                cells += [f"{limit:.3f}", str(sum(error(row, guard) < limit for _, row in rows))]
            body.append(cells)
    return table(head, body)


def blamed(result: Result) -> bool:
    """Whether the ensemble itself is not above the base by a standard error: then no nearness to it helps."""
    whole = next(row for row in result["arms"] if row["arm"] == "ensemble of logits")
    return falls(result, whole) > -1


def limit_table(rows: Sequence[tuple[Result, Row]], guard: str = "guard") -> str:
    """For some limits what would be accepted, and how much of that fails."""
    head = [
        "limit",
        "accepted",
        "of",
        "in runs",
        "below base by > 1 se",
        "though the ensemble is above",
        "and by > 2 se",
    ]
    head += ["loss above base's by > 1 se"]
    head += ["failures refused", "median closure", "lowest"]
    bad = [error(row, guard) for one, row in rows if falls(one, row) > 1]
    body = []
    for limit in LIMITS:
        own = [(one, row) for one, row in rows if error(row, guard) <= limit]
        gained = [closure(one, row) for one, row in own if gain(one) >= LEAST_GAIN]
        counts = [sum(falls(one, row) > 1 for one, row in own)]
        counts += [sum(falls(one, row) > margin and not blamed(one) for one, row in own) for margin in (1, 2)]
        counts.append(sum(rises(one, row) > 1 for one, row in own))
        refused = f"{sum(found > limit for found in bad)} of {len(bad)}"
        edge = [f"{figure(gained):.2f}" if gained else "-" for figure in (median, min)]
        runs = str(len({(one["pair"], one["seed"]) for one, _ in own}))
        body.append([f"{limit:g}", str(len(own)), str(len(rows)), runs, *map(str, counts), refused, *edge])
    return table(head, body)


def guard_text(results: Sequence[Result]) -> Iterator[str]:
    for inputs, counts in JUDGED.items():
        rows = judged(results, counts)
        for guard in ("guard", LARGER, BOTH):
            yield f"\n### Guard on {inputs}: {JUDGES[guard]}\n\n{limit_table(rows, guard)}\n"
        body = []
        for title, own in groups_of(results).items():
            here = judged(own, counts)
            if not here:
                continue
            fails = [(one, row) for one, row in here if falls(one, row) > 1]
            passing = [str(sum(error(row, guard) <= 0.5 for _, row in fails)) for guard in ("guard", BOTH)]
            far = [abs(row["guard"] - row["distance"]) for _, row in here]
            edges = [f"{safe_limit(here, margin):.2f}" for margin in (1, 2)]
            areas = [f"{area(here, guard):.2f}" for guard in ("guard", BOTH)]
            cells = [str(len(here)), str(len(fails)), *passing, *edges, *areas, f"{median(far):.2f}"]
            body.append([title, *cells])
        head = [
            "pairs",
            "arms",
            "failed",
            "failed and accepted at .5",
            "by both at .5",
            "lowest error of a failure",
            "of one by > 2 se",
        ]
        yield table([*head, "ROC area", "of both", "median gap to the error on test images"], body) + "\n"


def failures(results: Sequence[Result], limit: float = 0.5) -> str:
    """The arms that a limit accepts although they are below their base by more than two standard errors."""
    head = ["pair", "seed", "arm", "inputs", "guard", "both", "on test images", "base", "arm's", "standard errors"]
    body = [
        [
            *(one["pair"], str(one["seed"]), arm_title((row["arm"], row["budget"], row["lambda"])), str(row["count"])),
            *(f"{error(row):.2f}", f"{error(row, BOTH):.2f}", f"{row['distance']:.2f}", f"{accuracy(one, 'base'):.4f}"),
            *(f"{row['accuracy']:.4f}", f"{-falls(one, row):.1f}"),
        ]
        for counts in JUDGED.values()
        for one, row in judged(results, counts)
        if row["guard"] <= limit and falls(one, row) > 2 and not blamed(one)
    ]
    return table(head, body) if body else "None."


# --- the choice -------------------------------------------------------------------------------------------------


def candidates(result: Result, count: int, most: float) -> list[Row]:
    arms = CANDIDATES if count else tuple(arm for arm in CANDIDATES if arm not in FITTED_ON_NOISE)
    return [row for row in result["arms"] if row["arm"] in arms and row["count"] == count and row["cost"] <= most]


def choice_table(results: Sequence[Result]) -> str:
    """What the smallest guard error chooses among all merged networks of a cost, beside the best of them."""
    head = [
        "guard",
        "pairs",
        "inputs",
        "cost",
        "number",
        "within .1 of the best",
        "median closure",
        "of the best",
        "lowest",
    ]
    head += ["below base by > 1 se", "declined"]
    body = []
    whole = counted(results)
    for title, own in {"all": whole, **groups_of(whole)}.items():
        for count, most, guard in product((0, 200), (1.0, 1.5), ("guard", LARGER)):
            cells = choice_cells(own, count, most, guard)
            if cells:
                body.append([JUDGES[guard], title, str(count), f"{most:g}x", *cells])
    return table(head, body)


def choice_cells(results: Sequence[Result], count: int, most: float, guard: str = "guard") -> list[str]:
    chosen, best, failed, declined = [], [], 0, 0
    for one in results:
        open_to = candidates(one, count, most)
        if not open_to:
            continue
        row = min(open_to, key=lambda row: error(row, guard))
        is_taken = error(row, guard) <= (ACCEPTED if count else ACCEPTED_ON_NOISE)
        declined += not is_taken
        failed += is_taken and falls(one, row) > 1
        chosen.append(closure(one, row) if is_taken else 0.0)
        best.append(max(0.0, *(closure(one, other) for other in open_to)))
    if not chosen:
        return []
    near = sum(mine >= top - NEAR for mine, top in zip(chosen, best, strict=True))
    figures = [f"{value:.2f}" for value in (median(chosen), median(best), min(chosen))]
    return [str(len(chosen)), str(near), *figures, str(failed), str(declined)]


# --- the whole --------------------------------------------------------------------------------------------------


def pooled(results: Sequence[Result]) -> str:
    """Unions of unskewed pairs of each family, by inputs and budget: median net closure and closure."""
    own = [one for one in counted(results) if one["kind"] in UNSKEWED]
    body = []
    for family in FAMILIES:
        here = [one for one in own if one["family"] == family]
        pairs = len(names_of(here))
        for count in COUNTS if here else ():
            cells = [
                middle(values_by_pair(here, ("union", budget, 0.0), count, figure), pairs)
                for budget in (1.0, 1.25, 1.5)
                for figure in (net_closure, closure)
            ]
            body.append([family, f"{pairs} ({len(here)})", str(count), *cells])
    head = ["family", "pairs (with seeds)", "inputs"]
    head += [f"{figure} {budget}x" for budget in ("1.0", "1.25", "1.5") for figure in ("net", "closure")]
    return table(head, body)


def complete(results: Sequence[Result], planned: Sequence[tuple[str, str, str]]) -> str:
    """What of the plan has been run."""
    parts = []
    for family in FAMILIES:
        names = [name for name, own, _ in planned if own == family]
        seeds = [sum(one["pair"] == name for one in results) for name in names]
        parts.append(f"{family}: {sum(map(bool, seeds))} of {len(names)} pairs, {sum(seeds)} runs")
    return "; ".join(parts)


def report(results: Sequence[Result], planned: Sequence[tuple[str, str, str]], rivals: str = "") -> str:
    """The whole Markdown, with a section on published methods that is made elsewhere."""
    few = [f"{one['pair']} (seed {one['seed']}: {100 * gain(one):.1f})" for one in results if gain(one) < LEAST_GAIN]
    reasons = sorted(
        {f"{lack['arm']} {lack['budget']:g}x: {lack['why']}" for one in results for lack in one["missing"]}
    )
    seconds = sum(one["seconds"] for one in results)
    sections = [
        "# Does a merged model pay?\n",
        "Made by `python tools/study_pays.py`; the figures of every arm stand in `study_pays.json`.",
        f"Run so far - {complete(results, planned)}. Seconds for the arms of all: {seconds}.\n",
        (__doc__ or "").split("\n\n", 1)[1].replace("\n", " "),
        "\n## Unions of unskewed pairs\n",
        pooled(results),
        "\n## Unions, pair by pair\n\nMedians over the seeds whose ensemble gains a point.\n",
        closures_by_pair(results),
        f"\n## Images of another data set\n\n{OTHER_NOTE}\n",
        other_images(results),
        rivals,
        "\n## The pairs\n\nAccuracies are means over the seeds, gains in points, seed by seed.\n",
        pair_table(results),
        f"\nNot counted in closures, for the ensemble gains less than a point: {'; '.join(few) or 'none'}.\n",
    ]
    for title, figure in (("Closure", closure), ("Net closure", net_closure)):
        for count in COUNTS:
            kind = f"{count} unlabelled inputs" if count else "no inputs"
            sections.append(f"\n## {title}, {kind}\n\nMedians over pairs (how many) of medians over seeds.\n")
            sections.append(arm_table(results, count, figure))
    sections += [
        f"\n## The guard\n\n{GUARD_NOTE}\n",
        kind_table(results),
        *guard_text(results),
        "\nAccepted at .5 although below the base by more than two standard errors, where the ensemble is above it:\n",
        failures(results),
        f"\n## The choice by the guard\n\n{CHOICE_NOTE}\n",
        choice_table(results),
        "\n## Arms that could not be made\n",
        "\n".join(f"* {reason}" for reason in reasons) or "None.",
    ]
    return "\n".join(sections) + "\n"
