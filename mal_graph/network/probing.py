"""One run of a model with every tensor as an output: the shapes and integer values that axis rules need.

Chosen: measuring. Static shape inference knew none of 330 shapes of a detector with dynamic axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from time import monotonic

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.errors import DataError, RunError
from mal_graph.graph import Array, LayerGraph, Value
from mal_graph.network.parameters import find_parameters
from mal_graph.operators import row_of, table_axis
from mal_graph.protocols import Runner, Session

BATCH = 3  # for a dynamic first axis: odd and small, so that it equals few other sizes
SIZES = (64, 11, 32, 16, 224, 128, 256, 512, 8, 4, 2, 1)  # tried in turn for the other dynamic axes
SMALL_IMAGE = 64  # a fixed image side beyond 96 is tried at this size first: a verification does not depend on it
KEPT_VALUES = 4096  # integer tensors up to this size keep their values
CHUNK = 256  # tensors read in the first run; then twice as many each time, while they stay below
CHUNK_BYTES = 1 << 27


@dataclass(frozen=True, repr=False)
class Probe(Brief):
    """What one run showed: the inputs used, the shape of every tensor, the values of small integer ones."""

    inputs: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Array]


def probe(
    graph: LayerGraph,
    runner: Runner | None = None,
    *,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    timeout: float | None = None,
) -> Probe:
    """Run `graph` once and note shapes and small integers.

    Args:
        inputs: arrays by input name; inputs left out are drawn at random.
        input_shapes: shapes by input name, for inputs to be drawn.
        timeout: seconds that the runs may take.

    Raises:
        DataError: an input or shape names no input of the model, or does not fit it.
        RunError: the model runs at none of the shapes tried.
    """
    runner = runner or registry.runner()
    check_names(graph, [*(inputs or {}), *(input_shapes or {})])
    deadline = None if timeout is None else monotonic() + timeout
    fed = fed_weights(graph)
    read = [out for node in graph.nodes for out in node.outputs if out]
    session = runner.open(graph, read=read, variable=list(fed), deadline=deadline)
    readable = [name for name, dtype in session.types.items() if dtype]
    error: RunError | None = None
    for shapes in candidate_shapes(graph, dict(input_shapes or {})):
        drawn = {**draw_inputs(graph, shapes, seed), **as_inputs(graph, inputs or {})}
        try:
            measured = measure(session, {**drawn, **fed}, readable, deadline)
        except RunError as failure:
            error = error or failure
            if deadline is not None and monotonic() >= deadline:
                break
        else:
            return with_stored(graph, drawn, *measured)
    raise RunError(f"{error}; give shapes it runs at with `input_shapes`, or arrays with `inputs`")


def fed_weights(graph: LayerGraph) -> dict[str, Array]:
    """The weights by name, to be fed to a session rather than copied into its model, which ends at 2 GB and is slow to
    open where it stores many."""
    tensors = dict.fromkeys(parameter.tensor for parameter in find_parameters(graph))
    return {name: graph.weights[name].read() for name in tensors if graph.weights[name].size > 1}


def probe_without_running(graph: LayerGraph) -> Probe:
    """What is known of a model that cannot be run: its stored tensors."""
    return with_stored(graph, {}, {}, {})


def measure(
    session: Session, inputs: Mapping[str, Array], names: Sequence[str], deadline: float | None = None
) -> tuple[dict[str, tuple[int, ...]], dict[str, Array]]:
    """Shapes of all tensors named, and values of the small integer ones."""
    shapes: dict[str, tuple[int, ...]] = {}
    values: dict[str, Array] = {}
    start, count = 0, CHUNK
    while start < len(names):
        read = session.run(inputs, read=names[start : start + count], deadline=deadline)
        start += count
        if sum(array.nbytes for array in read.values()) < CHUNK_BYTES:
            count *= 2
        for name, array in read.items():
            shapes[name] = array.shape
            if array.dtype.kind in "iub" and array.size <= KEPT_VALUES:
                values[name] = array
    return shapes, values


def with_stored(
    graph: LayerGraph, inputs: dict[str, Array], shapes: dict[str, tuple[int, ...]], values: dict[str, Array]
) -> Probe:
    """Add what needs no run: inputs and weights. Values that depend on an input's values are not constants."""
    shapes.update({name: array.shape for name, array in inputs.items()})
    live = data_dependent(graph)
    known = {name: value for name, value in values.items() if name not in live}
    for name, weight in graph.weights.items():
        shapes[name] = weight.shape
        if not weight.scope and weight.dtype.kind in "iub" and weight.size <= KEPT_VALUES:
            known[name] = weight.read()
    return Probe(inputs, shapes, known)


def data_dependent(graph: LayerGraph) -> set[str]:
    """Tensors whose values, not only their shapes, depend on a model input."""
    live = {value.name for value in graph.inputs}
    for node in graph.nodes:
        row = row_of(node)
        if row is not None and row.reads_shape_only:
            continue
        if any(name in live for name in (*node.inputs, *node.captures)):
            live.update(node.outputs)
    return live


def check_names(graph: LayerGraph, names: Sequence[str]) -> None:
    known = [value.name for value in graph.inputs]
    for name in names:
        if name not in known:
            raise DataError(f"{graph.name} has no input {name!r}: its inputs are {', '.join(map(repr, known))}")


def as_inputs(graph: LayerGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by input name, in the types that the inputs have. Raises DataError if a rank does not fit."""
    return {name: as_input(graph, name, array) for name, array in arrays.items()}


def as_input(graph: LayerGraph, name: str, array: Array) -> Array:
    value = next(value for value in graph.inputs if value.name == name)
    if value.shape is not None and array.ndim != len(value.shape):
        raise DataError(
            f"the array for input {name!r} of {graph.name} has shape {array.shape}, the input {value.shape}: "
            "give an array of the same rank"
        )
    return array.astype(value.dtype, copy=False)


def candidate_shapes(graph: LayerGraph, given: dict[str, Sequence[int]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes for every input, from the most useful to the last resort."""
    for value in graph.inputs:
        shape = given.get(value.name)
        if shape is not None and value.shape is not None and len(shape) != len(value.shape):
            raise DataError(f"`input_shapes` gives {value.name} {len(shape)} axes, {graph.name} has {len(value.shape)}")
    seen = []
    for shrink, batch, size, is_state in product((True, False), (BATCH, 1), SIZES, (False, True)):
        shapes = {}
        for place, value in enumerate(graph.inputs):
            # Further inputs may be states, whose batch is not their first axis.
            rest = batch if is_state and place > 0 else size
            shapes[value.name] = tuple(given.get(value.name, concrete(value, batch, rest, shrink)))
        if shapes not in seen:
            seen.append(shapes)
            yield shapes


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
