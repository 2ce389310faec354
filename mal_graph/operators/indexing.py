"""Indexing: entries that are selected, looked up or written by their place or value."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from mal_graph.errors import ShapeError
from mal_graph.graph import Array, Node
from mal_graph.operators.axis_labels import AxisLabel, Label
from mal_graph.operators.call import WINDOW, Call, pin_axes, pin_each
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import SCALE, AtZero, Homogeneity, LayerRole, ParameterKind, Row, Slot, X, setting
from mal_graph.operators.sizes import Layout, Resized
from mal_graph.operators.wiring import Chosen


def slice_(call: Call) -> list[Label]:
    """numpy's slice on the labels, with constant bounds."""
    label, slices = call.label(0), slices_of(call)
    if slices is None:
        return call.freeze(f"{call.name} has bounds that are computed at run time")
    for axis, along in slices:
        size = label.shape[axis]
        taken = np.arange(size)[along]
        if len(taken) < size or along.step < 0:
            label = call.wiring.take(label, axis % len(label.shape), taken, call.name)
    return [label]


def slices_of(call: Call) -> list[tuple[int, slice]] | None:
    """What is taken along each axis, as numpy writes it; None if that is computed at run time."""
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes, steps = call.ints(3, "axes"), call.ints(4, "steps")
    is_computed = (call.given(3) and axes is None) or (call.given(4) and steps is None)
    if starts is None or ends is None or is_computed:
        return None
    axes = tuple(range(len(starts))) if axes is None else axes
    bounds = zip(axes, starts, ends, steps or (1,) * len(starts), strict=True)
    shape = call.label(0).shape
    return [
        (axis, slice(start, None if step < 0 and end < -shape[axis] else end, step))
        for axis, start, end, step in bounds
    ]


def gather(call: Call) -> list[Label]:
    """Constant indices select; computed ones look up, and pin the axis they look into."""
    wiring, data, indices = call.wiring, call.label(0), call.label(1)
    axis = call.node.attribute("axis", 0) % len(data.shape)
    chosen, out = call.values[1], call.outputs[0]
    if is_palette(call):
        return call.pin_all(Pin(GroupState.FROZEN, f"{call.name} picks its values from a palette", is_data=True))
    if chosen is not None:
        flat = chosen.ravel().astype(np.int64) % data.shape[axis]
        return [wiring.reshape(wiring.take(data, axis, flat, call.name), out, call.name)]
    if looks_up_units(call, wiring.axis_label(data, axis)):
        return [choose(call, data, axis, indices)]
    axis_labels = wiring.axis_labels(data)
    pin_each(call, axis_labels[axis : axis + 1], Pin(GroupState.PINNED, f"entries that {call.name} looks up by index"))
    looked_up = wiring.axis_labels(indices)
    return [wiring.label_of(out, [*axis_labels[:axis], *looked_up, *axis_labels[axis + 1 :]])]


def choose(call: Call, data: Label, axis: int, indices: Label) -> Label:
    """The label of blocks that are looked up by their places, whose units are those of whichever block it is."""
    wiring = call.wiring
    before, behind = axis, len(data.shape) - axis - 1
    parts = []
    for part in data.parts:
        if part.shape[axis] == 1:
            parts.append(part)
        elif part.size > part.shape[axis]:
            each = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1)
            wiring.chosen.append(Chosen(wiring.fresh(each.shape[1]), each, call.node.inputs[1]))
            parts.append(wiring.chosen[-1].units.reshape(cut(part.shape, axis)))
    ones = (1,) * len(indices.shape)
    inner = [part.reshape(*part.shape[:axis], *ones, *part.shape[axis + 1 :]) for part in parts]
    outer = [part.reshape(*(1,) * before, *part.shape, *(1,) * behind) for part in indices.parts]
    shift = len(ones) - 1
    pins = {place if place < axis else place + shift: pin for place, pin in data.pins.items() if place != axis}
    return Label(
        call.outputs[0], (*outer, *inner), {**pins, **{place + axis: pin for place, pin in indices.pins.items()}}
    )


def looks_up_units(call: Call, axis_label: AxisLabel) -> bool:
    """Whether indices say units by their places, which move with the units; ties the axis that they are places on."""
    places = call.places(1)
    if places is None:
        return False
    if not isinstance(axis_label, np.ndarray) or len(axis_label) != len(places):
        call.wiring.pin(places, Pin(GroupState.FROZEN, f"{call.name} looks up entries in their order"))
        return False
    call.wiring.tie(axis_label, places)
    return True


def is_palette(call: Call) -> bool:
    """Whether stored indices make a weight of a few stored numbers, each of them several times."""
    return call.is_stored(0) and call.is_stored(1) and are_codes(call.label(0).shape, call.label(1).shape)


def are_codes(data: Sequence[int], indices: Sequence[int]) -> bool:
    """Whether indices of some shape pick each of a few stored numbers several times."""
    return len(data) == 1 and prod(indices) > data[0]


def gather_nd(call: Call) -> list[Label]:
    """Constant indices select. The axes that others look into are pinned; those before them go with the indices', those
    behind stay."""
    wiring, batch, count = call.wiring, call.node.attribute("batch_dims", 0), call.label(1).shape[-1]
    if batch == 0 and call.values[1] is not None and call.label(0).shape:
        return [select_entries(call, call.values[1].reshape(-1, count))]
    if batch == 0 and count == 1 and looks_up_units(call, wiring.axis_label(call.label(0), 0)):
        rows = wiring.reshape(call.label(1), call.label(1).shape[:-1], call.name)
        return [choose(call, call.label(0), 0, rows)]
    if (places := call.places(1)) is not None:
        wiring.pin(places, Pin(GroupState.FROZEN, f"{call.name} looks up entries in their order"))
    data, indices = call.axis_labels(0), call.axis_labels(1)
    behind = batch + count
    pin_each(call, data[batch:behind], Pin(GroupState.PINNED, f"entries that {call.name} looks up by index"))
    before = [wiring.tie(a, b) for a, b in zip(data[:batch], indices[:batch], strict=True)]
    return [wiring.label_of(call.outputs[0], [*before, *indices[batch:-1], *data[behind:]])]


def select_entries(call: Call, indices: Array) -> Label:
    """The label of entries of the first axes, by constant indices, shape (entries, axes)."""
    wiring, data, count = call.wiring, call.label(0), indices.shape[1]
    sizes = data.shape[:count]
    flat = np.ravel_multi_index(tuple(indices.T % np.reshape(sizes, (-1, 1))), sizes)
    rows = wiring.reshape(data, (prod(sizes), *data.shape[count:]), call.name)
    return wiring.reshape(wiring.take(rows, 0, flat, call.name), call.outputs[0], call.name)


def table_axis(node: Node) -> int:
    """The axis of its first input that a node looks up by its second."""
    return int(node.attribute("axis", 0))


def one_hot(call: Call) -> list[Label]:
    """The axes of the indices pass; the new one is pinned, or has the units that the indices are places of."""
    pin, shape = Pin(GroupState.PINNED, f"classes that {call.name} counts off"), call.outputs[0]
    call.wiring.pin_label(call.label(2), pin)
    axis_labels, places = call.axis_labels(0), call.places(0)
    axis = call.node.attribute("axis", -1) % len(shape)
    if places is not None and len(places) != shape[axis]:
        call.wiring.pin(places, pin)
        places = None
    units = pin if places is None else places
    return [call.wiring.label_of(shape, [*axis_labels[:axis], units, *axis_labels[axis:]])]


def tensor_scatter(call: Call) -> list[Label]:
    """Samples and the axis written along are pinned; the other axes of cache and update move together."""
    wiring, axes = call.wiring, (0, call.node.attribute("axis", -2))
    pin = Pin(GroupState.FROZEN, f"{call.name} writes at places said by values")
    cache, update = (pin_axes(call, call.label(slot), axes, pin) for slot in (0, 1))
    if call.given(2):
        wiring.pin_label(call.label(2), pin)
    return [wiring.label_of(call.outputs[0], [wiring.tie(a, b) for a, b in zip(cache, update, strict=True)])]


def addressed(call: Call) -> list[Label]:
    """Indices name single elements: everything freezes, the units whose places they are too."""
    reason = f"{call.name} finds elements by their place"
    for slot in range(len(call.inputs)):
        if (places := call.places(slot)) is not None:
            call.wiring.pin(places, Pin(GroupState.FROZEN, reason))
    return call.freeze(reason)


def gather_elements(call: Call) -> list[Label]:
    """Indices name places of units, or entries in their order; the other axes pass."""
    wiring, data, indices = call.wiring, call.label(0), call.label(1)
    axis = call.node.attribute("axis", 0) % len(data.shape)
    units = wiring.axis_label(data, axis)
    if not is_alike_but(data.shape, indices.shape, axis):
        return addressed(call)
    if call.values[1] is not None or not looks_up_units(call, units):
        pin_each(call, [units], Pin(GroupState.PINNED, f"entries that {call.name} looks up by index"))
    others = wiring.combine([wiring.without(data, axis), wiring.without(indices, axis)], cut(indices.shape, axis))
    return [wiring.with_axis_label(others, axis, wiring.axis_label(indices, axis), indices.shape[axis])]


def scatter_elements(call: Call) -> list[Label]:
    """What is written goes to places of units, or to entries in their order; the other axes pass."""
    data, indices, updates = (call.label(slot) for slot in range(3))
    axis = call.node.attribute("axis", 0) % len(data.shape)
    places, wiring = call.places(1), call.wiring
    if not is_alike_but(data.shape, indices.shape, axis):
        return addressed(call)
    pin = Pin(GroupState.PINNED, f"entries that {call.name} writes by index")
    if places is not None and len(places) == data.shape[axis]:
        units = wiring.tie(wiring.axis_label(data, axis), places)
    else:
        (units,) = pin_axes(call, data, [axis], pin)[axis : axis + 1]
        pin_each(call, [places, *written_last(call, wiring.axis_label(updates, axis))], pin)
    wiring.tie(wiring.axis_label(indices, axis), wiring.axis_label(updates, axis))
    others = wiring.combine([wiring.without(one, axis) for one in (data, indices, updates)], cut(data.shape, axis))
    return [wiring.with_axis_label(others, axis, units, data.shape[axis])]


def scatter_nd(call: Call) -> list[Label]:
    """What is written goes to entries of the first axes by their index; the axes behind those pass."""
    wiring, count = call.wiring, call.label(1).shape[-1]
    pin = Pin(GroupState.PINNED, f"entries that {call.name} writes by index")
    data, updates = pin_axes(call, call.label(0), range(count), pin), call.axis_labels(2)
    *rows, _ = call.axis_labels(1)
    pin_each(call, [call.places(1), *written_last(call, *rows, *updates[: len(rows)])], pin)
    for row, update in zip(rows, updates, strict=False):
        wiring.tie(row, update)
    behind = [wiring.tie(a, b) for a, b in zip(data[count:], updates[len(rows) :], strict=True)]
    return [wiring.label_of(call.outputs[0], [*data[:count], *behind])]


def written_last(call: Call, *axis_labels: AxisLabel) -> Sequence[AxisLabel]:
    """The axes whose order says what stands where several are written: none where they are added up."""
    return axis_labels if call.text("reduction", "none") == "none" else ()


def col2im(call: Call) -> list[Label]:
    """Blocks of every channel are laid into a map: the places in a block and in the map stay, channels move."""
    shape, x = call.outputs[0], call.label(0)
    blocks = call.wiring.reshape(x, (*shape[:2], x.shape[1] // shape[1], x.shape[2]), call.name)
    samples, channels, *places = call.wiring.axis_labels(blocks)
    pin_each(call, places, WINDOW)
    return [call.wiring.label_of(shape, [samples, channels, *[WINDOW] * (len(shape) - 2)])]


def is_alike_but(shape: Sequence[int], other: Sequence[int], axis: int) -> bool:
    """Whether two shapes differ on one axis at most."""
    return cut(shape, axis) == cut(other, axis)


def cut(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """A shape with one axis of length 1."""
    return (*shape[:axis], 1, *shape[axis + 1 :])


def chosen_by_value(call: Call) -> list[Label]:
    """What is kept, and how much, depends on values: everything freezes, unless the model tells which."""
    return chosen(call, 0)


def unique(call: Call) -> list[Label]:
    """The values each once, and their places."""
    return chosen(call, 1)


def chosen(call: Call, output: int) -> list[Label]:
    """Everything freezes, unless an output of the model tells places, or what lies there in the order of places."""
    if call.tells(output):
        return call.pin_all(Pin(GroupState.PINNED, f"places that {call.name} tells of", is_contract=True))
    return call.freeze(f"{call.name} keeps what its values say")


def loss(call: Call) -> list[Label]:
    """Compares classes with labels, which say them by their number: every axis stays in its order."""
    return call.pin_all(Pin(GroupState.PINNED, f"classes that {call.name} reads by their number", is_contract=True))


def slice_bounds(call: Resized, held: list[int]) -> list[int]:
    """Where a slice starts or ends on each axis; what does not change is left as it is."""
    starts, axes, steps = call.ints(1, "starts"), call.ints(3, "axes"), call.ints(4, "steps")
    bounds = list(held)
    for place, axis in enumerate(range(len(held)) if axes is None else axes):
        source, out = call.inputs[0][axis], call.outputs[0][axis]
        if source.is_kept and out.is_kept:
            continue
        step = 1 if steps is None else steps[place]
        start = 0 if starts is None else range(source.size)[slice(starts[place], None, step)].start
        first, last = ends_of(source, out, start, step)
        bounds[place] = first if call.held == "starts" else last + 1
    return bounds


def ends_of(source: Layout, out: Layout, start: int, step: int) -> tuple[int, int]:
    """The first and the last index that a slice must take of a resized axis. Raises ShapeError if it is no slice."""
    taken = source.find([(start + old * step, added) for old, added in out.pairs])
    if step < 0 or taken != list(range(taken[0], taken[-1] + 1, step)):
        raise ShapeError("what is taken of the axis is no slice any more")
    return taken[0], taken[-1]


def gathered(call: Resized, held: list[int]) -> list[int]:
    """The new places of what constant indices select."""
    return gathered_along(call, held, call.axis)


def gathered_along(call: Resized, held: list[int], axis: int) -> list[int]:
    """The new places of what constant indices select along an axis."""
    source = call.inputs[0][axis]
    if len(call.outputs[0]) < len(call.inputs[0]):  # one index, whose axis is gone
        return held if source.is_kept else source.find([(held[0] % source.size, 0)])
    out = call.outputs[0][axis]
    if source.is_kept and out.is_kept:
        return held
    if out.size != len(held):
        raise ShapeError("its indices have several axes")
    return source.find([(held[old] % source.size, added) for old, added in out.pairs])


INDICES = replace(setting("indices"), reads_places=True)

ROWS: Mapping[str, Row] = {
    "Slice": Row(
        slice_,
        adds=True,
        slots=(X, setting("starts"), setting("ends"), setting("axes")),
        size_constants={"starts": slice_bounds, "ends": slice_bounds},
        homogeneity=Homogeneity.ONE,
    ),
    "Gather": Row(
        gather,
        LayerRole.ALONE,
        kind="table",
        slots=(Slot("table", ParameterKind.WEIGHT), INDICES),
        size_constants={"indices": gathered},
        table_axis=table_axis,
        block_axis=table_axis,
    ),
    "GatherElements": Row(gather_elements, LayerRole.ALONE, slots=(X, INDICES)),
    "GatherND": Row(gather_nd, LayerRole.ALONE, slots=(X, INDICES), block_axis=lambda node: 0),
    "ScatterElements": Row(scatter_elements, slots=(X, INDICES, X)),
    "ScatterND": Row(scatter_nd, slots=(X, setting("indices"), X)),
    "TensorScatter": Row(tensor_scatter, LayerRole.ALONE, slots=(X, X, setting("places"))),
    "Col2Im": Row(col2im, slots=(X, setting("shape"))),
    "MaxUnpool": Row(addressed, slots=(X, setting("indices"), setting("shape"))),
    "OneHot": Row(
        one_hot,
        LayerRole.ALONE,
        slots=(replace(X, reads_places=True), setting("depth"), setting("values")),
        at_zero=AtZero.FINITE,
    ),
    **dict.fromkeys(
        ["NonZero", "Compress"],
        Row(chosen_by_value, LayerRole.ALONE, slots=(X, setting("choice")), chooses=True),
    ),
    "Unique": Row(unique, LayerRole.ALONE, chooses=True),
    "NonMaxSuppression": Row(chosen_by_value, LayerRole.ALONE, slots=(X, X, setting("bound")), chooses=True),
    "NegativeLogLikelihoodLoss": Row(loss, LayerRole.ALONE, slots=(X, setting("labels"), SCALE), at_zero=AtZero.FINITE),
    "SoftmaxCrossEntropyLoss": Row(loss, LayerRole.ALONE, slots=(X, setting("labels"), SCALE), at_zero=AtZero.UNSAFE),
}
