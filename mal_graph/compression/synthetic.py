"""Inputs where there are none: seeded noise that is like what models of a kind are given.

Neighbouring positions of images, sounds and other maps are alike, and a network that is given white noise shows other
units than it uses. So maps are Gaussian noise whose amplitude falls with the frequency; flat inputs are white. Sums
before a BatchNormalization are brought to the mean and deviation that it holds, by statistics measured on the noise.

Source: matching stored BatchNorm statistics without data, as ZeroQ (arXiv:2001.00281) does by gradients.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mal_graph.evaluation import Place, Walk, find_levels, find_walk_batches, measure_next
from mal_graph.graph import Array, LayerGraph, Node
from mal_graph.network import draw_inputs, find_parameters, find_sample_axes
from mal_graph.operators import row_of
from mal_graph.protocols import Runner

SLOPES = (1.0, 1.5, 0.5)  # by how much amplitudes fall with the frequency; natural images are near 1
SAMPLES = 512


def draw_samples(
    graph: LayerGraph, like: Mapping[str, Array], count: int, seed: int, slope: float = SLOPES[0]
) -> dict[str, Array]:
    """Noise for every input of a model.

    Args:
        like: inputs that it runs on, which give the shapes and types.
        count: how many samples; an input that is one value for all keeps it.
        slope: of the amplitudes of maps over the frequency, both as logarithms.
    """
    axes = find_sample_axes(graph)
    shapes = {name: axes.resized(name, array.shape, count) for name, array in like.items()}
    drawn = draw_inputs(graph, shapes, seed)
    for place, (name, array) in enumerate(drawn.items()):
        if axes.of(name) is None:
            drawn[name] = like[name]
        elif array.dtype.kind == "f" and array.ndim > 2:
            rng = np.random.default_rng([seed, place])
            drawn[name] = correlated(array.shape, map_axes(array.shape), slope, rng).astype(array.dtype)
    return drawn


def map_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of an input along which neighbours are alike: those behind the channels."""
    return tuple(range(2, len(shape))) if len(shape) > 3 else (len(shape) - 1,)


def correlated(shape: Sequence[int], axes: Sequence[int], slope: float, rng: np.random.Generator) -> Array:
    """Gaussian noise of mean 0 and variance 1 with amplitudes that fall as frequency ** -slope along some axes."""
    white = rng.standard_normal(shape)
    frequency = np.zeros([1] * len(shape))
    for axis in axes:
        own = np.fft.fftfreq(shape[axis]) * shape[axis]
        frequency = frequency + own.reshape([-1 if i == axis else 1 for i in range(len(shape))]) ** 2
    amplitude = np.maximum(np.sqrt(frequency), 1.0) ** -slope
    noise = np.fft.ifftn(np.fft.fftn(white, axes=axes) * amplitude, axes=axes).real
    return np.asarray(noise / np.sqrt(np.mean(amplitude**2)))


def driven_statistics(graph: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    """The means and variances with which every BatchNormalization gives what it was trained to give, on some inputs.

    Raises:
        DataError, RunError: the model does not run on them.
    """
    norms = find_norms(graph)
    if not norms:
        return {}
    level_of = find_levels(graph, set(norms))
    places = {index: place_of(graph.nodes[index]) for index in norms}
    names = [tensor for tensors in norms.values() for tensor in tensors.values()]
    weights = {name: graph.weights[name].read() for name in names}
    depths = sorted({level_of[place.tensor] for place in places.values()})
    stages = [{index: own for index, own in places.items() if level_of[own.tensor] == depth} for depth in depths]
    walk = Walk(graph, inputs, runner, [[place.tensor for place in stage.values()] for stage in stages], names)
    batches = find_walk_batches([walk])
    for stage in stages:
        measured = measure_next(walk, batches, list(stage.values()), weights)
        for index, place in stage.items():
            for role, found in (("mean", measured[place].mean), ("variance", measured[place].variance)):
                old = weights[norms[index][role]]
                weights[norms[index][role]] = found.reshape(old.shape).astype(old.dtype)
    return weights


def find_norms(graph: LayerGraph) -> dict[int, dict[str, str]]:
    """The stored mean and variance of every BatchNormalization, by the index of its node."""
    own: dict[int, dict[str, str]] = {}
    for parameter in find_parameters(graph):
        node, row = graph.nodes[parameter.node], row_of(graph.nodes[parameter.node])
        if row is not None and row.has_stored_statistics(node) and parameter.role in ("mean", "variance"):
            own.setdefault(parameter.node, {})[parameter.role] = parameter.tensor
    return {node: tensors for node, tensors in own.items() if len(tensors) == 2}


def place_of(norm: Node) -> Place:
    """What a BatchNormalization normalises."""
    row = row_of(norm)
    assert row is not None
    return Place(norm.inputs[0], row.channel)
