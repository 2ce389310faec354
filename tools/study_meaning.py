"""What is said of donors whose inputs or outputs do not mean what the base's do, and of donors with which all is well.

    python tools/study_meaning.py -o tools/results/study_meaning.json
    python tools/study_meaning.py --more FOLDER -o ...      # and models of `train_meaning_models.py`

Models of one task are trained apart: on halves of the images, of other widths, depths and kinds. Each is the base once
for each other, on inputs without labels. As it is, a donor must raise nothing. Then it is given another meaning - its
classes in another order, its channels or features, its numbers in another range, its outputs turned or in other units
- by an operator in front of it or behind it, which is what a training under that convention gives, and that has to be
named. So has a donor that was never trained. The tables are written beside the figures, as Markdown. Needs
scikit-learn; the models of the first example are read, those of tables trained. Takes half an hour of one core.
"""

import argparse
import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.workflows.meanings import find_meanings
from mal_graph.workflows.models import silent

EXAMPLE = Path(__file__).parents[1] / "examples" / "01_first_merge"
SAMPLES = 200
HIDDEN = ((32,), (48, 24), (16,))
SEEDS = 4

Array = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[onnx.ModelProto, np.random.Generator, Array], onnx.ModelProto]


@dataclass(frozen=True)
class Task:
    """Models that were trained apart for one task, by name, and inputs that none was trained on."""

    name: str
    models: Mapping[str, onnx.ModelProto]
    inputs: Array
    is_regression: bool = False


@dataclass(frozen=True)
class Run:
    """What was said of one pair; `change` is what was done to the donor, "" for nothing."""

    task: str
    base: str
    donor: str
    change: str
    expected: str
    kinds: tuple[str, ...]
    is_exact: bool | None


# --- models -------------------------------------------------------------------------------------------------------


def tables(seeds: int) -> Iterator[Task]:
    """Perceptrons of tables, each trained on one half."""
    from sklearn import datasets
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        x, is_regression = (x - x.mean(axis=0)) / x.std(axis=0), name == "diabetes"
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            test, *halves = np.split(order, [len(y) // 3, 2 * len(y) // 3])
            kind = MLPRegressor if is_regression else MLPClassifier
            models = {}
            for number, (half, hidden) in enumerate(zip((*halves, halves[0]), HIDDEN, strict=True)):
                learner = kind(hidden_layer_sizes=hidden, max_iter=400, alpha=1e-3, random_state=10 * seed + number)
                fitted = learner.fit(x[half], y[half] if not is_regression else y[half] / 50)
                models[f"{number}"] = perceptron(fitted.coefs_, fitted.intercepts_)
            yield Task(f"{name} {seed}", models, x[test].astype(np.float32), is_regression)


def perceptron(weights: Sequence[Array], biases: Sequence[Array]) -> onnx.ModelProto:
    """A perceptron of rectifiers that gives logits or values."""
    nodes, stored, x = [], [], "x"
    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        names = f"w{number}", f"b{number}"
        stored += [numpy_helper.from_array(one.astype(np.float32), n) for one, n in zip((w, b), names, strict=True)]
        is_last = number == len(weights) - 1
        nodes.append(helper.make_node("Gemm", [x, *names], ["y" if is_last else f"a{number}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"a{number}"], [f"h{number}"]))
        x = f"h{number}"
    sides = (weights[0].shape[0], "x"), (weights[-1].shape[1], "y")
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", width]) for width, n in sides]
    graph = helper.make_graph(nodes, "perceptron", values[:1], values[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def folder_task(name: str, folder: Path) -> Task:
    """The models of a folder, and the inputs of its data.npz."""
    models = {path.stem: onnx.load(path) for path in sorted(folder.glob("*.onnx"))}
    first = next(iter(models.values())).graph.input[0].name
    with np.load(folder / "data.npz") as data:
        held = data[first] if first in data else data[next(key for key in data.files if key != "labels")]
    return Task(name, models, held[:SAMPLES].astype(np.float32))


# --- other meanings -----------------------------------------------------------------------------------------------


def in_front(model: onnx.ModelProto, *steps: tuple[str, Sequence[Array], Mapping[str, Any]]) -> onnx.ModelProto:
    """A model with operators between its input and what reads it."""
    return between(model, model.graph.input[0].name, steps, is_front=True)


def behind(model: onnx.ModelProto, *steps: tuple[str, Sequence[Array], Mapping[str, Any]]) -> onnx.ModelProto:
    """A model with operators behind its output."""
    return between(model, model.graph.output[0].name, steps, is_front=False)


def between(model: onnx.ModelProto, name: str, steps: Sequence[Any], *, is_front: bool) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    inner = f"{name}.inner"
    for node in changed.graph.node:
        names = node.input if is_front else node.output
        names[:] = [inner if one == name else one for one in names]
    start, end = (name, inner) if is_front else (inner, name)
    added = []
    for number, (op, constants, attributes) in enumerate(steps):
        out = end if number == len(steps) - 1 else f"{name}.step{number}"
        held = [f"{name}.constant{number}.{place}" for place in range(len(constants))]
        changed.graph.initializer.extend(numpy_helper.from_array(c, n) for c, n in zip(constants, held, strict=True))
        added.append(helper.make_node(op, [start, *held], [out], name=f"{name}.{number}", **attributes))
        start = out
    nodes = [*added, *changed.graph.node] if is_front else [*changed.graph.node, *added]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def expects(factor: Any, shift: Any) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """A model that expects `factor * x + shift` where it got x before."""
    f, s = (np.asarray(one, np.float32) for one in (factor, shift))
    return lambda model: in_front(model, ("Sub", [s], {}), ("Div", [f], {}))


def reordered(axis: int, order: Sequence[int]) -> tuple[str, Sequence[Array], Mapping[str, Any]]:
    return "Gather", [np.asarray(order, np.int64)], {"axis": axis}


@dataclass(frozen=True)
class Altered:
    """A donor with another meaning: the kind that has to be said, and the order where that is one."""

    change: str
    kind: str
    model: onnx.ModelProto
    order: tuple[int, ...] = ()


def altered(task: Task, model: onnx.ModelProto, rng: np.random.Generator) -> Iterator[Altered]:
    """A donor with other meanings, one at a time."""
    x, classes = task.inputs, model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    low, span = float(x.min()), float(np.ptp(x))
    ranges = {"0..255": (255 / span, -255 * low / span), "-1..1": (2 / span, -1 - 2 * low / span)}
    ranges |= {"mean 0, deviation 1": (1 / x.std(), -x.mean() / x.std()), "inverted": (-1.0, 2 * low + span)}
    if x.ndim == 2:  # standardised already
        ranges = {"times 20": (20.0, 0.0), "plus 5, a tenth": (0.1, 0.5)}
    for name, (factor, shift) in ranges.items():
        yield Altered(name, "numbers", expects(factor, shift)(model))
    if x.ndim == 4 and x.shape[1] == 3:
        yield Altered("channels", "channels", in_front(model, reordered(1, (2, 1, 0))), (2, 1, 0))
    if x.ndim == 2 and x.shape[1] <= 16:
        order = deranged(x.shape[1], rng)
        yield Altered("features", "features", in_front(model, reordered(1, np.argsort(order))), tuple(order))
    if task.is_regression:
        yield Altered("sign", "sign", behind(model, ("Neg", [], {})))
        yield Altered("units", "units", behind(model, ("Mul", [np.float32(50)], {}), ("Add", [np.float32(100)], {})))
        return
    if classes == 1:
        yield Altered("sign", "sign", behind(model, ("Neg", [], {})))
        yield Altered("ten times the logits", "size", behind(model, ("Mul", [np.float32(10)], {})))
        yield Altered("probabilities", "form", behind(model, ("Sigmoid", [], {})))
        return
    order = deranged(classes, rng)
    yield Altered("classes", "classes", behind(model, reordered(1, np.argsort(order))), tuple(order))
    swapped = np.arange(classes)
    pair = rng.choice(classes, 2, replace=False)
    swapped[pair] = swapped[pair[::-1]]
    yield Altered("two classes", "classes", behind(model, reordered(1, swapped)), tuple(swapped))
    yield Altered("ten times the logits", "size", behind(model, ("Mul", [np.float32(10)], {})))
    yield Altered("probabilities", "form", behind(model, ("Softmax", [], {"axis": 1})))


def deranged(count: int, rng: np.random.Generator) -> list[int]:
    """A random order in which something moves."""
    order = rng.permutation(count)
    return order.tolist() if (order != np.arange(count)).any() else np.roll(order, 1).tolist()


def shuffled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """A model with the numbers of each tensor in random order."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for stored in changed.graph.initializer:
        values = numpy_helper.to_array(stored)
        if values.dtype.kind == "f":
            stored.CopyFrom(numpy_helper.from_array(rng.permutation(values.ravel()).reshape(values.shape), stored.name))
    return changed


# --- the runs -----------------------------------------------------------------------------------------------------


def runs_of(task: Task, seed: int, donors: int) -> Iterator[Run]:
    """Every ordered pair as it is; and each base with some donors that are given another meaning."""
    rng = np.random.default_rng(seed)
    names = list(task.models)
    for base in names:
        others = [name for name in names if name != base]
        for donor in others:
            yield run(task, base, donor, Altered("", "", task.models[donor]))
        for donor in rng.permutation(others)[:donors].tolist():
            for one in altered(task, task.models[donor], rng):
                yield run(task, base, donor, one)
            yield run(task, base, donor, Altered("random weights", "noise", shuffled(task.models[donor], rng)))


def run(task: Task, base: str, donor: str, one: Altered) -> Run:
    """What is said of one pair."""
    graphs = [mal_graph.load(task.models[base]), mal_graph.load(one.model)]
    config = MergeConfig(calibrate={graphs[0].inputs[0].name: task.inputs})
    said = find_meanings(graphs, config, None, registry.runner(), silent)
    orders = [meaning.order for meaning in said if meaning.kind == one.kind]
    is_exact = one.order in orders if one.order and orders else None
    kinds = ["numbers" if m.kind == "size" and m.input else str(m.kind) for m in said]  # both are named then
    return Run(task.name, base, donor, one.change, one.kind, tuple(dict.fromkeys(kinds)), is_exact)


def measure(tasks: Sequence[Task], donors: int, workers: int, output: Path) -> list[Run]:
    """All runs, written after each task."""
    made: list[Run] = []
    with ProcessPoolExecutor(workers) as pool:
        waiting = {pool.submit(all_runs, task, number, donors): task.name for number, task in enumerate(tasks)}
        for done in as_completed(waiting):
            made += done.result()
            print(f"{waiting[done]}: {len(done.result())} runs", flush=True)
            write(sorted(made, key=lambda one: [task.name for task in tasks].index(one.task)), output)
    return sorted(made, key=lambda one: [task.name for task in tasks].index(one.task))


def all_runs(task: Task, seed: int, donors: int) -> list[Run]:
    return list(runs_of(task, seed, donors))


def write(runs: Sequence[Run], output: Path) -> None:
    """The figures, and the tables beside them."""
    output.write_text(json.dumps({"made with": made_with(), "runs": [asdict(one) for one in runs]}, indent=1) + "\n")
    lines = "\n".join(tables_of(runs))
    output.with_suffix(".md").write_text(f"# What donors mean\n\nMade by `tools/study_meaning.py`.\n\n{lines}\n")


# --- the tables ---------------------------------------------------------------------------------------------------


def tables_of(runs: Sequence[Run]) -> Iterator[str]:
    """Markdown: what was said of donors as they are, and of those with another meaning."""
    tasks = list(dict.fromkeys(one.task.split(" ")[0] for one in runs))
    yield "Donors as they are: nothing has to be said.\n"
    yield "| task | pairs | said of | which |"
    yield "|---|---|---|---|"
    for task in tasks:
        own = [one for one in runs if one.task.split(" ")[0] == task and not one.change]
        alarms = [one for one in own if one.kinds]
        which = ", ".join(f"{kind} {count}" for kind, count in counted(k for one in alarms for k in one.kinds).items())
        yield f"| {task} | {len(own)} | {len(alarms)} | {which} |"
    yield "\nDonors with another meaning: named is what was to be, exact an order that is named in full.\n"
    yield "| task | another meaning | donors | named | exact | something else | nothing |"
    yield "|---|---|---|---|---|---|---|"
    for task in tasks:
        own = [one for one in runs if one.task.split(" ")[0] == task and one.change]
        for change in dict.fromkeys(one.change for one in own):
            rows = [one for one in own if one.change == change]
            named = [one for one in rows if one.expected in one.kinds]
            exact = sum(bool(one.is_exact) for one in rows) if any(one.is_exact is not None for one in rows) else ""
            other = sum(bool(one.kinds) and one.expected not in one.kinds for one in rows)
            silent_ = sum(not one.kinds for one in rows)
            yield f"| {task} | {change} | {len(rows)} | {len(named)} | {exact} | {other} | {silent_} |"


def counted(kinds: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def made_with() -> dict[str, str]:
    names = ("mal-graph", "numpy", "scikit-learn", "onnxruntime")
    return {"date": date.today().isoformat(), "python": platform.python_version(), **{n: version(n) for n in names}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write; tables go beside it")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="folders of models of one task")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each table")
    parser.add_argument("--workers", type=int, default=1, help="processes, each for one task at a time")
    parser.add_argument("--donors", type=int, default=2, help="that are given other meanings, for each base")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of scikit-learn, that a training was cut short
    tasks = [folder_task("examples", EXAMPLE), *(folder_task(one.name, one) for one in options.more)]
    tasks += tables(options.seeds)
    print("\n".join(tables_of(measure(tasks, options.donors, options.workers, options.output))))


if __name__ == "__main__":
    main()
