"""The models a command names: files, and factories of torch modules, which are built and traced."""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.evaluation import LABELS
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import probe
from mal_graph.workflows import assembly

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
SAMPLES = 2  # of the data that a module is traced on

Arrays = Mapping[str, Array]


def is_factory(model: str) -> bool:
    """Whether a model is named as `package.module:factory`, and is no file."""
    return FACTORY.fullmatch(model) is not None and not Path(model).exists()


def opened(
    models: Sequence[str],
    weights: Sequence[str] = (),
    *,
    inputs: Arrays | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Arrays | None = None,
    seed: int = 0,
) -> list[LayerGraph]:
    """The graphs of models, in their order.

    Args:
        models: paths of files, or `package.module:factory`: functions without arguments that make a module.
        weights: files with the weights of the modules, in their order; those left out keep what the factory gave.
        inputs, shapes: what a module is traced on: arrays, or shapes to draw them in, by the names of its arguments.
        data: labelled arrays, whose first samples serve where neither is given; else what the first file takes.
        seed: of the draw.

    Raises:
        UsageError: there are more weights than modules, or nothing to trace a module on.
        MalGraphError: whatever loading and tracing raise.
    """
    factories = [model for model in models if is_factory(model)]
    if len(weights) > len(factories):
        raise UsageError(
            f"--weights is given {len(weights)} times for {len(factories)} modules: files hold their own weights, "
            "modules are named as package.module:factory"
        )
    files = {model: assembly.load(model) for model in dict.fromkeys(models) if not is_factory(model)}
    kept = dict(enumerate(weights))
    if not factories:
        return [files[model] for model in models]
    example = example_inputs(factories[0], inputs, shapes, data, next(iter(files.values()), None), seed)
    graphs = []
    for model in models:
        if model in files:
            graphs.append(files[model])
            continue
        place = sum(is_factory(other) for other in models[: len(graphs)])
        module = registry.tracer().build(model, Path(kept[place]) if place in kept else None)
        graphs.append(traced(model, module, example))
    return graphs


def example_inputs(
    model: str,
    inputs: Arrays | None,
    shapes: Mapping[str, Sequence[int]] | None,
    data: Arrays | None,
    beside: LayerGraph | None,
    seed: int,
) -> Arrays:
    """Arrays to trace a module on, from the first source that has any. Raises UsageError."""
    if inputs:
        return inputs
    if shapes:
        rng = np.random.default_rng(seed)
        return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if data:
        samples = {name: array[:SAMPLES] for name, array in data.items() if name != LABELS}
        floats = {name: array.astype(np.float32) for name, array in samples.items() if array.dtype == np.float64}
        return {**samples, **floats}
    if beside is not None:
        return probe(beside, seed=seed).inputs
    raise UsageError(
        f"cannot trace {model} without inputs: give their shapes with --input-shape NAME:1,3,64,64, or arrays with "
        "--inputs FILE.npz"
    )


def traced(model: str, module: Any, example: Arrays) -> LayerGraph:
    """A module traced on arrays: by name where its forward has arguments of these names, else in their order."""
    known = inspect.signature(module.forward).parameters
    graph = assembly.trace(module, dict(example) if set(example) <= set(known) else tuple(example.values()))
    return graph.named(model)
