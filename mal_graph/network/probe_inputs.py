"""Inputs for a probe run: shapes from the most useful to the last resort, and seeded random values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from mal_graph.errors import DataError
from mal_graph.graph import Array, LayerGraph, Value
from mal_graph.limits import limits_in_force
from mal_graph.operators import row_of, table_axis

BATCH = 3  # for a dynamic first axis: odd and small, so that it equals few other sizes
SIZES = (64, 11, 32, 16, 224, 128, 256, 512, 8, 4, 2, 1)  # tried in turn for the other dynamic axes
SMALL_IMAGE = 64  # a fixed image side beyond 96 is tried at this size first: a verification does not depend on it


def check_names(graph: LayerGraph, names: Sequence[str]) -> None:
    """Raises DataError if a name is no input of the model."""
    known = [value.name for value in graph.inputs]
    for name in names:
        if name not in known:
            raise DataError(f"{graph.name} has no input {name!r}: its inputs are {', '.join(map(repr, known))}")


def as_inputs(graph: LayerGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by input name, in the types that the inputs have. Raises DataError if a rank does not fit."""
    return {name: as_input(graph, name, array) for name, array in arrays.items()}


def as_input(graph: LayerGraph, name: str, array: Array) -> Array:
    """An array in the type that the input has. Raises DataError if its rank or type does not fit."""
    value = next(value for value in graph.inputs if value.name == name)
    if value.shape is not None and array.ndim != len(value.shape):
        raise DataError(
            f"the array for input {name!r} of {graph.name} has shape {array.shape}, the input {value.shape}: "
            "give an array of the same rank"
        )
    try:
        return array.astype(value.dtype, copy=False)
    except (TypeError, ValueError):  # texts, records
        raise DataError(
            f"the array for input {name!r} of {graph.name} is {array.dtype}, the input {value.dtype}: give numbers"
        ) from None


def candidate_shapes(graph: LayerGraph, given: dict[str, Sequence[int]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes for every input, from the most useful to the last resort. Raises DataError where all are too large."""
    for value in graph.inputs:
        shape = given.get(value.name)
        if shape is not None and value.shape is not None and len(shape) != len(value.shape):
            raise DataError(f"`input_shapes` gives {value.name} {len(shape)} axes, {graph.name} has {len(value.shape)}")
    seen = []
    most = limits_in_force().most_numbers
    for shrink, batch, size, is_state in product((True, False), (BATCH, 1), SIZES, (False, True)):
        shapes = {}
        for place, value in enumerate(graph.inputs):
            # Further inputs may be states, whose batch is not their first axis.
            rest = batch if is_state and place > 0 else size
            shapes[value.name] = tuple(given.get(value.name, concrete(value, batch, rest, shrink)))
        if shapes not in seen and all(math.prod(shape) <= most for shape in shapes.values()):
            seen.append(shapes)
            yield shapes
    if not seen:
        name, shape = max(shapes.items(), key=lambda one: math.prod(one[1]))
        raise DataError(
            f"input {name!r} of {graph.name} has {math.prod(shape):.3g} numbers, and at most {most:.3g} are drawn: "
            "give a smaller shape with `input_shapes`, or arrays with `inputs`"
        )


def concrete(value: Value, batch: int, size: int, shrink: bool) -> tuple[int, ...]:
    """A declared shape with its dynamic axes filled in: the first with `batch`, the others with `size`."""
    shape = value.shape or ()
    is_image = len(shape) == 4 and all(isinstance(side, int) and side > 96 for side in shape[2:])
    if shrink and is_image:
        shape = (*shape[:2], SMALL_IMAGE, SMALL_IMAGE)
    return tuple(dim if isinstance(dim, int) else batch if axis == 0 else size for axis, dim in enumerate(shape))


def draw_inputs(graph: LayerGraph, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Seeded random inputs: normal for floats, valid indices for integers."""
    rng = np.random.default_rng(seed)
    return {value.name: draw(graph, value, shapes[value.name], rng) for value in graph.inputs}


def draw(graph: LayerGraph, value: Value, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Random values for one input."""
    dtype = np.dtype(value.dtype or "float32")
    if dtype.kind in "iu":
        return rng.integers(0, index_range(graph, value.name), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    return rng.standard_normal(shape).astype(dtype)


def index_range(graph: LayerGraph, name: str) -> int:
    """How many entries the table has that an integer input looks into; 2 where it feeds none."""
    ranges = [2]
    for index, slot in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        table = graph.weights.get(node.inputs[0]) if slot == 1 else None
        if table is not None and table.shape:
            ranges.append(table.shape[table_axis(node)])
        row = row_of(node)
        if row is not None and row.moves and slot == 0:
            ranges.append(index_range(graph, node.outputs[0]))
    return max(ranges)
