"""Arrays that a model is run on: read from .npz files, given out to the model's inputs, labels beside them, in batches.

Arrays are named like the model's inputs, or fit them by position, type and shape; `labels` holds what the outputs are
scored against. An input without axes takes one value for all samples. What is not taken literally is told in a note.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from mal_graph.brief import Brief
from mal_graph.errors import DataError, LimitError
from mal_graph.graph import MERGEABLE_TYPES, Array, LayerGraph, Value
from mal_graph.limits import limits_in_force
from mal_graph.network import SampleAxes, find_sample_axes
from mal_graph.remote_files import is_remote, local_copy

LABELS = "labels"
MAX_BATCH = 256
MAX_BATCH_ELEMENTS = 2**22  # of one input, so that a batch of large images stays a few megabytes

Arrays = Mapping[str, Array]


@dataclass(frozen=True, repr=False)
class PreparedData(Brief):
    """Arrays made ready for a model.

    Attributes:
        arrays: by name of the model's input, in its type, and `labels` where there are any.
        notes: what was not taken literally, in sentences.
    """

    arrays: Arrays
    notes: tuple[str, ...] = ()


def as_arrays(data: str | PathLike[str] | Arrays) -> dict[str, Array]:
    """The arrays of an .npz file, or of a dictionary. Raises DataError."""
    return read_npz(data) if isinstance(data, str | PathLike) else dict(data)


def prepare_data(
    graph: LayerGraph, data: str | PathLike[str] | Arrays, *, output_kind: str | None = None
) -> PreparedData:
    """Arrays for every input of a model, and labels, as far as the data say which is which.

    An integer array with one axis that is no input is taken as the labels, and one-hot labels as classes; a note says
    so.

    Args:
        data: arrays by name, or the path of an .npz file.
        output_kind: what the scored output holds; "values" leaves labels as they are.

    Raises:
        DataError: the file cannot be read, the arrays do not fit the model, or hold NaN.
    """
    arrays, notes = as_arrays(data), []
    if LABELS not in arrays and (name := find_labels(graph, arrays)):
        arrays = {LABELS if key == name else key: array for key, array in arrays.items()}
        notes.append(f"the array {name!r} is taken as the labels")
    labels = {LABELS: read_labels(arrays)} if LABELS in arrays else {}
    inputs = match_inputs(graph, arrays)
    check_not_nan(inputs)
    notes += note_bytes_as_floats(graph, inputs, arrays)
    if labels and output_kind != "values" and is_one_hot(graph, labels[LABELS]):
        labels = {LABELS: labels[LABELS].argmax(axis=1)}
        notes.append("the labels are one-hot and are taken as class numbers")
    return PreparedData({**inputs, **labels}, tuple(notes))


def find_labels(graph: LayerGraph, arrays: Arrays) -> str:
    """The one integer array with one axis that no input of the model takes; "" if there is none."""
    names = {value.name for value in graph.inputs}
    lone = [n for n, array in arrays.items() if n not in names and array.ndim == 1 and array.dtype.kind in "iu"]
    return lone[0] if len(lone) == 1 and len(arrays) == len(graph.inputs) + 1 else ""


def check_not_nan(inputs: Arrays) -> None:
    """Refuse what no model can be scored on. Raises DataError."""
    for name, array in inputs.items():
        if array.dtype.name in MERGEABLE_TYPES and (bad := np.isnan(array)).any():
            sample = int(np.argwhere(bad)[0][0])
            raise DataError(f"the array for input {name!r} holds NaN in sample {sample}: leave it out")


def note_bytes_as_floats(graph: LayerGraph, inputs: Arrays, arrays: Arrays) -> Iterator[str]:
    """A note on every array of bytes that goes to an input of floats."""
    given = [array for name, array in arrays.items() if name != LABELS and array.dtype == np.uint8]
    for value in graph.inputs:
        if value.dtype in MERGEABLE_TYPES and any(np.array_equal(inputs[value.name], array) for array in given):
            yield (
                f"the array for input {value.name!r} is uint8 and taken as {value.dtype} from 0 to 255: scale it as "
                "in the model's training if that was done on other values"
            )


def has_rows_of(graph: LayerGraph, classes: int) -> bool:
    """Whether some output may give so many numbers for each sample, as far as the model declares it; where all give
    maps, a table of zeros and ones holds a class for each place."""
    shapes = [value.shape for value in graph.outputs]
    rows = [shape[1] for shape in shapes if shape is not None and len(shape) == 2]
    return None in shapes or any(not isinstance(length, int) or length == classes for length in rows)


def is_one_hot(graph: LayerGraph, labels: Array) -> bool:
    """Whether every sample has a row of zeros with a single one, and some output as many numbers."""
    if labels.ndim != 2 or labels.shape[1] < 2 or not has_rows_of(graph, labels.shape[1]):
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def read_npz(path: str | PathLike[str]) -> dict[str, Array]:
    """Every array of an .npz file, never unpickling anything. Raises DataError, or FileError for an address."""
    path = local_copy(path) if is_remote(path) else Path(path)
    if not path.is_file():
        raise DataError(
            f"no data file at {path}: give an .npz file with one array per model input, and 'labels' where it is scored"
        )
    arrays: dict[str, Array] = {}
    if not is_zipfile(path):  # numpy calls any file it does not know a pickle
        raise DataError(f"{path} is not an .npz file: write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            refuse_bomb(path, sum(member.file_size for member in archive.zip.infolist()))
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except LimitError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which are not loaded: save plain arrays with numpy.savez"
            ) from None
        raise DataError(f"{path} is a broken .npz file: write it again with numpy.savez") from None
    if not arrays:
        raise DataError(f"{path} holds no arrays: save one array per model input and 'labels' with numpy.savez")
    return arrays


def refuse_bomb(path: Path, unfolded: int) -> None:
    """Raise LimitError where a small file unfolds to more than it may."""
    limits = limits_in_force()
    most = limits.memory_for(path.stat().st_size)
    if not limits.in_process and unfolded > most:
        raise LimitError(
            f"{path} unfolds to {unfolded >> 20:,} MiB, and may to {most >> 20:,}: give more with `max_memory`"
        )


def read_labels(data: Mapping[str, Array]) -> Array:
    """The labels: integers for classes, floats for values; (samples, 1) becomes (samples,). Raises DataError."""
    advice = "add an array 'labels', integers for classes or floats for values"
    if LABELS not in data:
        raise DataError(f"the data hold no labels, only {list_arrays(data)}: {advice}")
    labels = np.asarray(data[LABELS])
    if labels.dtype.kind not in "biu" and labels.dtype.name not in MERGEABLE_TYPES:
        raise DataError(f"the labels are of type {labels.dtype}: {advice}")
    if labels.size == 0 or labels.ndim == 0:
        raise DataError(f"the labels have shape {labels.shape}, so there is no sample to score: {advice}")
    return labels.reshape(core_shape(labels.shape))


def match_inputs(graph: LayerGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The array for every model input, in the input's own type.

    Arrays go to the inputs of their name. What is left, without `labels`, is given out by position if it all fits, else
    wherever just one array fits an input in type and shape. Rounding float64 to float32 is allowed; any other cast must
    be lossless.

    Raises:
        DataError: an input stays without an array, a cast would lose something, or the numbers of samples differ.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}  # a number is no array
    by_name = {value.name: value.name for value in graph.inputs if value.name in arrays}
    unnamed = [value for value in graph.inputs if value.name not in by_name]
    spare = [name for name in arrays if name not in by_name and name != LABELS]
    axes = find_sample_axes(graph)
    chosen = by_name | pair_inputs(unnamed, {name: arrays[name] for name in spare}, axes)
    if any(v.name not in chosen or not fits_input(v, arrays[chosen[v.name]], axes) for v in graph.inputs):
        raise DataError(
            f"the data do not fit the inputs of {graph.name}: it takes {', '.join(map(input_text, graph.inputs))}; "
            f"found {list_arrays(arrays)}; give arrays of these names, types and shapes, {axes_text(axes)}"
        )
    given = {name: arrays[array] for name, array in chosen.items()}
    labels = {LABELS: arrays[LABELS]} if LABELS in arrays else {}
    check_samples({chosen.get(name, name): count for name, count in axes.counts({**given, **labels}).items()})
    return {value.name: cast_losslessly(given[value.name], value) for value in graph.inputs}


def axes_text(axes: SampleAxes) -> str:
    """Where the inputs hold samples, in words."""
    others = [f"those of {name!r} along axis {axis}" for name, axis in axes.axes.items() if axis]
    single = [f"one value as {name!r}" for name, axis in axes.axes.items() if axis is None]
    return ", ".join(["samples along the first axis", *others, *single])


def check_samples(counts: Mapping[str, int]) -> None:
    """Raise DataError unless all arrays have as many samples."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise DataError(f"the arrays differ in their number of samples: {listed}")


def pair_inputs(inputs: Sequence[Value], arrays: Mapping[str, Array], axes: SampleAxes) -> dict[str, str]:
    """Array name by input name: by position if all fit, else where just one fits; {} if neither says it."""
    for is_exact in (True, False):
        fitting = {v.name: [n for n, a in arrays.items() if fits_input(v, a, axes, is_exact)] for v in inputs}
        by_position = dict(zip(fitting, arrays, strict=False))
        if len(arrays) == len(inputs) and all(by_position[name] in fitting[name] for name in fitting):
            return by_position
        only = {name: names[0] for name, names in fitting.items() if len(names) == 1}
        if len(set(only.values())) == len(inputs):
            return only
    return {}


def fits_input(value: Value, array: Array, axes: SampleAxes, is_exact: bool = False) -> bool:
    """Whether an array suits an input but for its number of samples; `is_exact` asks for the very type."""
    is_single = value.shape == ()
    if (array.ndim == 0) != is_single or (value.shape is not None and len(value.shape) != array.ndim):
        return False
    lengths = enumerate(zip(value.shape or (), array.shape, strict=False))
    others = [pair for axis, pair in lengths if axis != axes.of(value.name)]
    if any(isinstance(want, int) and want > 0 and want != have for want, have in others):
        return False
    if value.dtype in ("", array.dtype.name):
        return True
    return not is_exact and is_castable(array.dtype, value.dtype)


def is_castable(given: np.dtype[np.generic], wanted: str) -> bool:
    """Whether values of the one type can be meant as the other: floats and text never stand for integers."""
    if wanted == "object":
        return given.kind in "UT"
    if wanted in MERGEABLE_TYPES:
        return given.kind in "biu" or given.name in MERGEABLE_TYPES
    return given.kind in "biu" and np.dtype(wanted).kind in "biu"


def cast_losslessly(array: Array, value: Value) -> Array:
    """The array in the input's type. Raises DataError if integers would change or floats overflow."""
    if value.dtype in ("", array.dtype.name):
        return array
    with np.errstate(all="ignore"):
        result = array.astype(value.dtype)
        if array.dtype.kind in "biu":  # the sign tells -1 from the largest unsigned integer
            is_same = np.array_equal(result.astype(array.dtype), array) and np.array_equal(result < 0, array < 0)
        elif value.dtype in MERGEABLE_TYPES:
            is_same = np.array_equal(np.isfinite(result), np.isfinite(array))
        else:
            is_same = True
    if not is_same:
        raise DataError(
            f"the array for input {value.name!r} is {array.dtype} and has values that {value.dtype} cannot hold"
        )
    return result


def fixed_batches(graph: LayerGraph) -> set[int]:
    """The lengths at which a model fixes the axes of its inputs that hold samples: 1 where one that is the same for all
    samples may be the state of one."""
    axes = find_sample_axes(graph)
    placed = [(value.shape, axes.of(value.name)) for value in graph.inputs if value.shape]
    lengths = [shape[axis] for shape, axis in placed if axis is not None]
    lengths += [1 for shape, axis in placed if axis is None and 1 in shape[1:]]
    return {length for length in lengths if isinstance(length, int)} - {0}


def list_batches(graph: LayerGraph, inputs: Mapping[str, Array], samples: int) -> list[Array]:
    """Sample indices to run together; a fixed batch is filled up by repeating the last sample."""
    fixed = fixed_batches(graph)
    if len(fixed) > 1:
        raise DataError(
            f"{graph.name} fixes the first axes of its inputs at different lengths, {sorted(fixed, key=str)}: "
            "they cannot all count samples; export it with one batch axis"
        )
    if fixed:
        size = fixed.pop()
        return [np.minimum(np.arange(i, i + size), samples - 1) for i in range(0, samples, size)]
    largest = max((array.size // max(samples, 1) for array in inputs.values()), default=1)
    size = max(1, min(MAX_BATCH, MAX_BATCH_ELEMENTS // max(largest, 1)))
    return [np.arange(i, min(i + size, samples)) for i in range(0, samples, size)]


def split_samples(samples: int, size: int) -> list[slice]:
    """Stretches of so many samples, the last one what is left."""
    return [slice(i, min(i + size, samples)) for i in range(0, samples, size)]


def core_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing axes of length 1; the first axis always stays."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def list_arrays(arrays: Mapping[str, Array]) -> str:
    """The arrays in words, such as `'image' float32 (300, 1, 8, 8)`."""
    return ", ".join(f"{name!r} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"


def input_text(value: Value) -> str:
    """A model input in words, dynamic axes by name."""
    if value.shape is None:
        return f"{value.name!r} {value.dtype} (any shape)"
    axes = ", ".join(str(axis or "?") for axis in value.shape)
    return f"{value.name!r} {value.dtype} ({axes}{',' if len(value.shape) == 1 else ''})"
