"""The models a command names: files, and factories of torch modules, which are built and traced."""

import gc
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mal_graph import registry
from mal_graph.cli.output import Progress, log
from mal_graph.errors import ModelWarning, UsageError

if TYPE_CHECKING:
    from mal_graph.graph import LayerGraph

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(model: str) -> bool:
    """Whether a model is named as `package.module:factory`, and is no file."""
    return FACTORY.fullmatch(model) is not None and not Path(model).exists()


def built_models(models: Sequence[str], weights: Sequence[str]) -> list[Any]:
    """Paths as they are, and the modules that factories make.

    Args:
        models: paths of files, or `package.module:factory`: functions without arguments that make a module.
        weights: files with the weights of the modules, in their order; those left out keep what the factory gave.

    Raises:
        UsageError: there are more weights than modules, or a factory gives no module.
        FileError, ShapeError: weights cannot be read, or do not fit.
    """
    factories = [model for model in models if is_factory(model)]
    if len(weights) > len(factories):
        raise UsageError(
            f"--weights is given {len(weights)} times for {len(factories)} modules: files hold their own weights, "
            "modules are named as package.module:factory"
        )
    files = iter([*map(Path, weights), *[None] * (len(factories) - len(weights))])
    return [registry.tracer().build(model, next(files)) if is_factory(model) else model for model in models]


@contextmanager
def told_warnings() -> Iterator[None]:
    """Tell what is warned of models, each once and on one line; other packages' warnings are not for users."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ModelWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in said):
        log(f"warning: {text}")


def open_named_models(
    models: Sequence[str], weights: Sequence[str] | None, config: Any, data: Any, verbose: bool, progress: Progress
) -> "list[LayerGraph]":
    """The models a command names (see `open_models`); what is warned of goes to stderr as one line each."""
    from mal_graph.workflows import open_models

    registry.runner()  # its process starts while the models are loaded
    with told_warnings():
        built = built_models(models, weights or [])
        names = [model if is_factory(model) else "" for model in models]
        graphs = open_models(built, config, data, names=names, progress=progress)
    gc.freeze()  # they stay until the command ends: millions of objects are not looked through for what is unused
    for path, graph in zip(models, graphs, strict=True):
        if verbose:
            size = sum(weight.size for weight in graph.weights.values() if weight.is_float)
            log(f"loaded {path}: {len(graph.nodes)} operators, {size:,} float parameters")
    return graphs
