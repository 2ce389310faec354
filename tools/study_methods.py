"""Merge methods on eight tasks: experts that were tuned from one ancestor, merged by every method, beside controls.

    python tools/study_methods.py --seeds 3 > tools/results/study_methods.md

Small: the tasks are eight views of scikit-learn's digits (dim, moved, thick, striped), the ancestor is a perceptron
that was trained a little on all of them, and each expert is the ancestor trained on one task alone. In the second table
half of the experts have other widths: the ancestor lost a quarter of the units of each hidden layer before these were
trained. The base is the ancestor. Methods with a scale are shown as by default, and with the one of five scales that is
best on 200 other images of each task, as papers choose it. Accuracy is the mean over the tasks, each on 500 images that
nobody was trained on and nothing was chosen by. Controls: the ancestor, each expert on its own task and on all, the
plain mean (`linear`), and the ensemble of all experts, which costs eight times as much.

Methods on activations get up to 1000 of the images that each expert was trained on. A third and a fourth table are of
three models that were trained apart, from different beginnings, on all tasks: of one width, and of three. There the
base is one of the models, and methods that need no ancestor are shown, those on activations on the same images for all.

`--methods` makes the first two tables alone, of some methods and the controls; `--at "ties density=0.5"`, once for
each, the first one alone, of methods with these parameters and the controls. Methods that learn their weights do so on
the images that those on activations get.

Needs torch and scikit-learn; about two minutes for each seed and table on one core.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import make_digits_models as digits
import numpy as np
import torch
from make_digits_models import Images
from torch import nn

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.graph import Array, LayerGraph
from mal_graph.merging import Stacking, run_outputs
from mal_graph.methods import Aligned, Measured, Need, all_methods, find_method
from mal_graph.parameter_settings import settings_of
from mal_graph.workflows.models import silent
from mal_graph.workflows.stacking import Frames, in_one_frame, merged_stack, stacking_of

HIDDEN = (256, 256)
ANCESTOR_EPOCHS, EXPERT_EPOCHS = 1, 3
SCALES = (0.1, 0.2, 0.3, 0.5, 1.0)
SAMPLES, APART_EPOCHS = 1000, 2
Inputs = Mapping[int, Mapping[str, Array]]  # of each expert, by its number
LOST = 0.25  # of the units of each hidden layer, where experts are narrower


def thickened(x: Array) -> Array:
    return np.maximum.reduce([x, np.roll(x, 1, 3), np.roll(x, 1, 2)])


def striped(x: Array) -> Array:
    return np.where(np.arange(x.shape[2])[:, None] % 2, x, 0)


VIEWS: dict[str, Callable[[Array], Array]] = {
    "as they are": lambda x: x,
    "dim": lambda x: 0.4 * x,
    "moved left": lambda x: np.roll(x, -1, 3),
    "moved right": lambda x: np.roll(x, 1, 3),
    "moved up": lambda x: np.roll(x, -1, 2),
    "moved down": lambda x: np.roll(x, 1, 2),
    "thick": thickened,
    "striped": striped,
}


def seen(images: Images, view: Callable[[Array], Array]) -> Images:
    """Images as one task shows them."""
    return Images(np.ascontiguousarray(view(images.image), np.float32), images.labels)


def joined(parts: Sequence[Images]) -> Images:
    return Images(np.concatenate([part.image for part in parts]), np.concatenate([part.labels for part in parts]))


def narrowed(model: nn.Sequential, share: float) -> nn.Sequential:
    """The perceptron without the units of each hidden layer that have the smallest weights."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    kept = [torch.arange(linear[0].in_features)]
    for into, out in pairwise(linear):
        size = into.weight.norm(dim=1) * out.weight.norm(dim=0)
        kept.append(size.argsort()[int(share * len(size)) :].sort().values)
    kept.append(torch.arange(linear[-1].out_features))
    thin = digits.mlp([len(units) for units in kept[1:-1]])
    own = [layer for layer in thin if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for place, (old, new) in enumerate(zip(linear, own, strict=True)):
            new.weight.copy_(old.weight[kept[place + 1]][:, kept[place]])
            new.bias.copy_(old.bias[kept[place + 1]])
    return thin


def trained(seed: int, train: Sequence[Images], folder: Path, *, narrow: bool) -> tuple[LayerGraph, list[LayerGraph]]:
    """An ancestor and one expert for each task; every second one narrower where that is asked for."""
    ancestor = digits.train(lambda: digits.mlp(HIDDEN), seed, joined(train), ANCESTOR_EPOCHS)
    graphs = [written(ancestor, folder / "ancestor.onnx")]
    state = {name: values.clone() for name, values in ancestor.state_dict().items()}
    for number, task in enumerate(train):
        start = digits.mlp(HIDDEN)
        start.load_state_dict(state)
        start = narrowed(start, LOST) if narrow and number % 2 else start
        expert = digits.train(lambda start=start: start.train(), seed, task, EXPERT_EPOCHS)
        graphs.append(written(expert, folder / f"expert{number}.onnx"))
    return graphs[0], graphs[1:]


def written(model: nn.Module, path: Path) -> LayerGraph:
    digits.export(model, path)
    return mal_graph.load(path)


def accuracies(graph: LayerGraph, tests: Sequence[Images]) -> list[float]:
    """On each task."""
    answers = np.split(scores(graph, joined(tests)).argmax(1), len(tests))
    return [float((own == task.labels).mean()) for own, task in zip(answers, tests, strict=True)]


def scores(graph: LayerGraph, task: Images) -> Array:
    (logits,) = run_outputs(graph, {"image": task.image}, registry.runner()).values()
    return logits


def of_ensemble(experts: Sequence[LayerGraph], tests: Sequence[Images]) -> float:
    """The accuracy of the experts' mean probabilities."""
    images = joined(tests)
    chances = [torch.softmax(torch.from_numpy(scores(expert, images).copy()), 1).numpy() for expert in experts]
    return float((np.mean(chances, axis=0).argmax(1) == images.labels).mean())


def rows(seed: int, methods: Sequence[str], *, narrow: bool, at: Sequence[str] = ()) -> Iterator[tuple[str, float]]:
    """What each model reaches, as the mean over all tasks.

    Args:
        at: methods with their parameters, each as a text.
    """
    parts = digits.split(seed)
    whole = joined([parts.train_a, parts.train_b])
    train, choosing, tests = (
        [seen(part, view) for view in VIEWS.values()] for part in (whole, parts.validation, parts.test)
    )
    with TemporaryDirectory() as folder:
        ancestor, experts = trained(seed, train, Path(folder), narrow=narrow)
        yield "ancestor", float(np.mean(accuracies(ancestor, tests)))
        own = [accuracies(expert, [task])[0] for expert, task in zip(experts, tests, strict=True)]
        yield "experts, each on its own task", float(np.mean(own))
        yield "experts, on all tasks", float(np.mean([accuracies(expert, tests) for expert in experts]))
        yield "ensemble of the experts (8 times the cost)", of_ensemble(experts, tests)
        config = MergeConfig(method="linear", compare=False)
        frames: Frames = in_one_frame(ancestor, experts, None, config, registry.runner(), silent)
        for method in map(find_method, methods):
            if method.models is None and method.aligned is Aligned.TO_BASE:
                made = replace(stacking_of(frames, method, config, is_from_base=True), seed=seed)
                inputs = {number: {"image": task.image[:SAMPLES]} for number, task in enumerate(train, 1)}
                merged, _ = merged_stack(made, inputs, registry.runner(), config)
                yield f"{method.name}, as by default", float(np.mean(accuracies(merged, tests)))
                if "lambda" in method.parameters:
                    yield method.name, scaled(made, inputs, config, choosing, tests)
        inputs = {number: {"image": task.image[:SAMPLES]} for number, task in enumerate(train, 1)}
        for text in at:
            name, *given = text.split()
            own = settings_of({key: float(value) for key, value in (one.split("=") for one in given)})
            made = replace(stacking_of(frames, find_method(name), config, is_from_base=True), settings=own, seed=seed)
            merged, made = merged_stack(made, inputs, registry.runner(), config)
            note = f" ({made.note})" if seed == 0 and made.note else ""
            print(f"{text}: {note}", file=sys.stderr)
            yield text, float(np.mean(accuracies(merged, tests)))


def rows_apart(seed: int, methods: Sequence[str], *, narrow: bool) -> Iterator[tuple[str, float]]:
    """What models that were trained apart reach, and what is made of them."""
    parts = digits.split(seed)
    train, test = (
        joined([seen(part, view) for view in VIEWS.values()])
        for part in (joined([parts.train_a, parts.train_b]), parts.test)
    )
    widths = (HIDDEN, (192, 192), (320, 320)) if narrow else (HIDDEN,) * 3
    with TemporaryDirectory() as folder:
        models = [
            written(
                digits.train(lambda hidden=hidden: digits.mlp(hidden), 10 * seed + number, train, APART_EPOCHS),
                Path(folder) / f"model{number}.onnx",
            )
            for number, hidden in enumerate(widths)
        ]
        yield "models", float(np.mean([accuracies(model, [test]) for model in models]))
        yield "ensemble of the models (3 times the cost)", of_ensemble(models, [test])
        order = np.random.default_rng(seed).permutation(len(train.image))[:SAMPLES]
        options = {"compare": False, "calibrate": {"image": train.image[order]}}
        for method in map(find_method, methods):
            if method.models is None and method.needs is not Need.ANCESTOR and method.measured is not Measured.MERGED:
                made = mal_graph.assemble(models[0], models[1:], method=method.name, repair=False, **options)
                yield method.name, float(np.mean(accuracies(made.graph, [test])))
        if not narrow:
            plain = mal_graph.assemble(models[0], models[1], method="average", repair=False, **options).graph
            yield "two of them, averaged in stored order", float(np.mean(accuracies(plain, [test])))


def scaled(
    made: Stacking, inputs: Inputs, config: MergeConfig, choosing: Sequence[Images], tests: Sequence[Images]
) -> float:
    """The accuracy of a merge with the scale that is best on other images."""
    weight = {"weight": 1.0} if "weight" in made.method.parameters else {}
    several = [replace(made, settings=settings_of({**weight, "lambda": scale})) for scale in SCALES]
    merged = [merged_stack(one, inputs, registry.runner(), config)[0] for one in several]
    best = max(merged, key=lambda graph: np.mean(accuracies(graph, choosing)))
    return float(np.mean(accuracies(best, tests)))


def table(
    seeds: int, make: Callable[..., Iterator[tuple[str, float]]], methods: Sequence[str], **how: Any
) -> Iterator[str]:
    """Mean and spread over the seeds, by rising accuracy."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, reached in make(seed, methods, **how):
            found.setdefault(name, []).append(reached)
    yield f"| model | mean accuracy on {len(VIEWS)} tasks | from - to |"
    yield "|---|---|---|"
    for name, values in sorted(found.items(), key=lambda row: np.mean(row[1])):
        yield f"| {name} | {np.mean(values):.3f} | {min(values):.3f} - {max(values):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many ancestors with their experts")
    known = [method.name for method in all_methods()]
    parser.add_argument("--methods", nargs="+", choices=known, metavar="NAME", help="show these alone")
    parser.add_argument("--at", action="append", default=[], metavar="TEXT", help="a method with its parameters")
    options = parser.parse_args()
    methods = options.methods or ([] if options.at else known)
    shown = f" --methods {' '.join(methods)}" if options.methods else ""
    shown += "".join(f" --at {text!r}" for text in options.at)
    print("# Merge methods on eight tasks\n")
    print(f"`python tools/study_methods.py --seeds {options.seeds}{shown}`; what was done stands in its docstring.\n")
    print("## Experts of one width\n")
    print("\n".join(table(options.seeds, rows, methods, narrow=False, at=options.at)))
    if options.at:
        return
    print("\n## Half of the experts narrower by a quarter\n")
    print("\n".join(table(options.seeds, rows, methods, narrow=True)))
    if options.methods:
        return
    print("\n## Three models trained apart, of one width\n")
    print("\n".join(table(options.seeds, rows_apart, methods, narrow=False)))
    print("\n## Three models trained apart, of three widths\n")
    print("\n".join(table(options.seeds, rows_apart, methods, narrow=True)))


if __name__ == "__main__":
    main()
