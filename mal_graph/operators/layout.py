"""Layout: the same values, arranged otherwise."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mal_graph.errors import ShapeError
from mal_graph.graph import Node
from mal_graph.operators.axis_labels import Atoms, AxisLabel, Label, on_axis, spans
from mal_graph.operators.call import WINDOW, Call, pass_all_but, pin_axes, pin_each
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.reshaping import find_runs
from mal_graph.operators.row import Homogeneity, Row, X, setting
from mal_graph.operators.sizes import Resized, output_sizes
from mal_graph.operators.wiring import LARGEST_PRODUCT


def reshape(call: Call) -> list[Label]:
    """Whatever the target, the probe measured the shape."""
    return [call.wiring.reshape(call.label(0), call.outputs[0], call.name, call.node.inputs[0])]


def transpose(call: Call) -> list[Label]:
    """numpy's transpose on the labels."""
    order = call.node.attribute("perm") or range(len(call.label(0).shape))[::-1]
    return [call.wiring.transpose(call.label(0), list(order))]


def concat(call: Call) -> list[Label]:
    """The inputs lie end to end along one axis; the other axes move together, unless the inputs are only stacked."""
    wiring, shape = call.wiring, call.outputs[0]
    axis = call.node.attribute("axis", 1) % len(shape)
    labels = [label for label in with_copies(call, axis) if label.shape[axis] > 0]
    if len(labels) < 2:
        return labels or [Label(shape)]  # of what is empty nothing is known
    stacked = stack(labels, axis, shape)
    if stacked is not None:
        return [stacked]
    across = [wiring.without(label, axis) for label in labels]
    others = wiring.combine(across, (*shape[:axis], 1, *shape[axis + 1 :]))
    in_blocks = end_to_end_in_blocks(call, labels, axis)
    if in_blocks is not None:
        return [wiring.combine([others, Label(shape, (in_blocks,))], shape)]
    ends = [wiring.axis_label(label, axis) for label in labels]
    sizes = [label.shape[axis] for label in labels]
    return [wiring.with_axis_label(others, axis, end_to_end(call, ends, sizes), shape[axis])]


def with_copies(call: Call, axis: int) -> list[Label]:
    """The labels of what lies end to end: of a tensor that does so several times, its copies. Where there is nothing
    else, all of it as one label."""
    named = {name: label for name, label in zip(call.node.inputs, call.inputs, strict=True) if label is not None}
    names = [name for name in call.node.inputs if name in named]
    copies: dict[str, list[Label]] = {}
    for name, label in named.items():
        times, size = names.count(name), label.shape[axis]
        laid = call.wiring.repeat(label, axis, times) if times > 1 else label
        if times == len(names):
            call.wiring.tiled[call.node.outputs[0]] = {axis: times}
            return [laid]
        parts = np.arange(times * size).reshape(times, size)
        copies[name] = [call.wiring.take(laid, axis, part, call.name) for part in parts] if times > 1 else [label]
    return [copies[name].pop(0) for name in names]


def stack(labels: Sequence[Label], axis: int, shape: tuple[int, ...]) -> Label | None:
    """The label of tensors laid end to end along an axis that only counts them, whose units on another one have nothing
    to do with each other: a product of both axes. None if that is not what they are: then they move together."""
    first = labels[0]
    across = [[tuple(other for other in spans(part) if other != axis) for part in label.parts] for label in labels]
    is_alike = all(one == across[0] for one in across) and all(label.pins == first.pins for label in labels)
    if not is_alike or axis in first.pins or not all(across[0]):
        return None
    columns = list(zip(*(label.parts for label in labels), strict=True))
    is_apart = [any(not np.array_equal(column[0], part) for part in column[1:]) for column in columns]
    if sum(is_apart) != 1:
        return None
    units = columns[is_apart.index(True)]
    others = [column[0] for column, apart in zip(columns, is_apart, strict=True) if not apart]
    if any(part.shape[axis] > 1 for part in others):
        return None
    if any(part.shape[axis] != label.shape[axis] for part, label in zip(units, labels, strict=True)):
        return None
    joined = np.concatenate(units, axis)
    return Label(shape, (*others, joined), dict(first.pins)) if len(np.unique(joined)) == joined.size else None


def end_to_end(call: Call, axis_labels: Sequence[AxisLabel], sizes: Sequence[int]) -> AxisLabel:
    """Axes laid end to end. What holds the same everywhere in one need not hold the same in the next."""
    if len(axis_labels) == 1:
        return axis_labels[0]
    named = [
        call.wiring.fresh(size) if axis_label is None else axis_label
        for axis_label, size in zip(axis_labels, sizes, strict=True)
    ]
    for axis_label, atoms in zip(axis_labels, named, strict=True):
        if axis_label is None:
            call.wiring.read(atoms)
    return call.wiring.concat(named, sizes)


def end_to_end_in_blocks(call: Call, labels: Sequence[Label], axis: int) -> Atoms | None:
    """Units of blocks laid end to end, those of each block by themselves, such as a head's own keys and those that all
    heads share: of these each block has copies. None where no label tells the units of one block from those of another,
    or labels tell so along other axes."""
    wiring, shape = call.wiring, call.outputs[0]
    parts = [label.part_on(axis) for label in labels]
    along = {spans(part) for part in parts if part is not None} - {(axis,)}
    blocks = {other for axes in along for other in axes}
    lying = [set(spans(part)) for label in labels for part in label.parts]
    is_alike = len(along) == 1 and all(axes <= blocks or not axes & blocks for axes in lying)
    if not is_alike or np.prod([shape[other] for other in blocks]) > LARGEST_PRODUCT:
        return None
    laid = []
    for label, part in zip(labels, parts, strict=True):
        size = label.shape[axis]
        if part is None:
            part = on_axis(wiring.atoms(label.pins.get(axis), size), axis, len(shape))
            wiring.read(part)
        lengths = tuple(
            size if other == axis else shape[other] if other in blocks else 1 for other in range(len(shape))
        )
        laid.append(part if part.shape == lengths else wiring.copy_of(part, lengths))
    return np.concatenate(laid, axis)


def split(call: Call) -> list[Label]:
    """Consecutive runs of one axis."""
    label = call.label(0)
    axis = call.node.attribute("axis", 0) % len(label.shape)
    ends = np.cumsum([0, *[shape[axis] for shape in call.outputs]])
    runs = [np.arange(a, b) for a, b in pairwise(ends)]
    return [call.wiring.take(label, axis, run, call.name) for run in runs]


def expand(call: Call) -> list[Label]:
    """Axes of length 1 are repeated, and hold the same everywhere."""
    return [call.wiring.combine([call.label(0)], call.outputs[0])]


def pad(call: Call) -> list[Label]:
    """Padded channels get pinned neighbours; what mirrors or repeats a channel axis freezes it."""
    wiring, label = call.wiring, call.label(0)
    widths = pad_widths(call)
    if widths is None:
        return call.freeze(f"{call.name} has widths that are computed at run time")
    border = Pin(GroupState.FROZEN, f"{call.name} pads the axis")
    axis_labels = wiring.axis_labels(label)
    for axis, (before, after) in widths.items():
        if before == after == 0:
            continue
        if call.text("mode", "constant") == "constant" and min(before, after) >= 0:
            ends = [border, axis_labels[axis], border]
            axis_labels[axis] = wiring.concat(ends, [before, label.shape[axis], after])
        else:
            pin_each(call, [axis_labels[axis]], border)
            axis_labels[axis] = border
    return [wiring.label_of(call.outputs[0], axis_labels)]


def pad_widths(call: Call) -> dict[int, tuple[int, int]] | None:
    """By axis how much is padded before and behind; None if that is computed at run time."""
    rank = len(call.label(0).shape)
    widths, axes = call.ints(1, "pads"), call.ints(3, "axes")
    if widths is None:
        widths, axes = call.node.attribute("paddings"), None
    if widths is None or (call.given(3) and axes is None):
        return None
    order = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    return {axis: (widths[i], widths[i + len(order)]) for i, axis in enumerate(order)}


def resize(call: Call) -> list[Label]:
    """Axes that keep their length pass; resized ones are pinned."""
    if call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return call.freeze(f"{call.name} resizes a part of each axis")
    out = call.outputs[0]
    return pass_all_but(call, [axis for axis, size in enumerate(call.label(0).shape) if out[axis] != size], WINDOW)


def tile(call: Call) -> list[Label]:
    """Copies end to end along each axis, each with atoms of its own; an axis of length 1 holds the same everywhere."""
    label, repeats = call.label(0), call.ints(1, "repeats")
    if repeats is None:
        return call.freeze(f"{call.name} has repeats that are computed at run time")
    call.wiring.tiled[call.node.outputs[0]] = dict(enumerate(repeats))
    for axis, times in enumerate(repeats):
        if times != 1:
            label = call.wiring.repeat(label, axis, times)
    return [label]


def times_tiled(call: Resized, held: list[int]) -> list[int]:
    """How often each axis is laid end to end. Raises ShapeError where that is no whole number."""
    sizes = [(len(new), len(old)) for new, old in zip(call.outputs[0], call.inputs[0], strict=True)]
    if any(new % old for new, old in sizes if old):
        raise ShapeError("what is repeated does not come a whole number of times")
    return [new // old if old else times for (new, old), times in zip(sizes, held, strict=True)]


def tied_copies(call: Call, axis_label: AxisLabel, times: int) -> list[AxisLabel]:
    """An axis several times over. Each copy has atoms of its own, tied to the first: what reads them may differ."""
    more = [
        call.wiring.fresh(len(axis_label)) if isinstance(axis_label, np.ndarray) else axis_label
        for _ in range(times - 1)
    ]
    for other in more:
        call.wiring.tie(axis_label, other)
    return [axis_label, *more]


def in_turn(axis_labels: Sequence[AxisLabel], axis: int) -> AxisLabel:
    """Axes of equal length as one: end to end (axis 0), or first all their first entries (axis 1)."""
    rows = [axis_label for axis_label in axis_labels if isinstance(axis_label, np.ndarray)]
    return np.stack(rows, axis).ravel() if rows else axis_labels[0]


def depth_to_space(call: Call) -> list[Label]:
    """Each output channel is laid out from block * block input channels, which move as one; positions are pinned."""
    wiring, area = call.wiring, call.node.attribute("blocksize") ** 2
    batch, channels, *_ = pin_axes(call, call.label(0), (2, 3), WINDOW)
    if isinstance(channels, np.ndarray):
        by_place = channels.reshape(-1, area).T if call.text("mode", "DCR") == "CRD" else channels.reshape(area, -1)
        for place in by_place[1:]:
            wiring.tie(by_place[0], place)
        channels = by_place[0]
    return [wiring.label_of(call.outputs[0], [batch, channels, WINDOW, WINDOW])]


def space_to_depth(call: Call) -> list[Label]:
    """Each input channel is laid out as block * block output channels, which move as one; positions are pinned."""
    wiring, area = call.wiring, call.node.attribute("blocksize") ** 2
    batch, channels, *_ = pin_axes(call, call.label(0), (2, 3), WINDOW)
    channels = in_turn(tied_copies(call, channels, area), axis=1 if call.text("mode", "DCR") == "CRD" else 0)
    # A single channel, or channels that are all alike, hold other positions in each place.
    return [wiring.label_of(call.outputs[0], [batch, WINDOW if channels is None else channels, WINDOW, WINDOW])]


class Arranged(NamedTuple):
    """Where the axes of what an arranging operator gives come from.

    Attributes:
        sources: for each axis of the output that of the input, which several share if it is cut into them; None for a
            new axis of length 1.
        shape: the lengths of the axes of the output.
    """

    sources: list[int | None]
    shape: tuple[int, ...]


def arranged_axes(node: Node, shape: Sequence[int], given: Sequence[int] | None) -> Arranged | None:
    """Where the axes of what an arranging operator gives come from.

    Args:
        node: a node of a row that moves values without keeping their axes.
        shape: of its first input.
        given: its constant second input, None if it has none.

    Returns:
        None if it makes one axis of several.
    """
    if node.op == "Transpose":
        order = list(node.attribute("perm") or range(len(shape))[::-1])
        return Arranged([*order], tuple(shape[axis] for axis in order))
    target = reshape_target(node, shape, node.attribute("axes") if given is None else given)
    sources = None if target is None else sources_of(shape, target)
    return None if target is None or sources is None else Arranged(sources, target)


def sources_of(shape: Sequence[int], target: Sequence[int]) -> list[int | None] | None:
    """For each axis of a reshaped tensor that of the tensor before; None if one is made of several."""
    long, made = ([axis for axis, size in enumerate(sizes) if size > 1] for sizes in (shape, target))
    sources: list[int | None] = [None] * len(target)
    if [shape[axis] for axis in long] == [target[axis] for axis in made]:
        runs = [([old], [new]) for old, new in zip(long, made, strict=True)]
    elif 0 in target:
        return None
    else:
        runs = find_runs(shape, target)
    for old, new in runs:
        cut = [axis for axis in old if shape[axis] > 1]
        if len(cut) > 1:
            return None
        for axis in new:
            sources[axis] = cut[0] if target[axis] > 1 else None
    return sources


def reshape_target(node: Node, shape: Sequence[int], given: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape that a row with the `reshape` rule gives a tensor of `shape`, from its constant argument."""
    if node.op == "Flatten":
        cut = node.attribute("axis", 1)
        return (int(np.prod(shape[:cut])), int(np.prod(shape[cut:])))
    if node.op == "Squeeze":
        return squeezed(shape, given)
    if given is None:
        return None
    if node.op == "Unsqueeze":
        return unsqueezed(shape, given)
    target = [shape[i] if dim == 0 and not node.attribute("allowzero", 0) else dim for i, dim in enumerate(given)]
    known = int(np.prod([dim for dim in target if dim != -1]))
    return tuple(int(np.prod(shape)) // known if dim == -1 and known else dim for dim in target)


def squeezed(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """A shape without some axes of length 1, or all of them."""
    gone = range(len(shape)) if axes is None else [axis % len(shape) for axis in axes]
    return tuple(dim for axis, dim in enumerate(shape) if not (axis in gone and dim == 1))


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with new axes of length 1 at these places."""
    rank = len(shape) + len(axes)
    new, old = {axis % rank for axis in axes}, iter(shape)
    return tuple(1 if axis in new else next(old) for axis in range(rank))


def part_lengths(call: Resized, held: list[int]) -> list[int]:
    """The length of every part of a split axis; one number may be held for parts of equal length."""
    source = call.inputs[0][call.axis]
    if held and source.is_kept:
        return held
    sizes = held or [out[call.axis].size for out in call.outputs]
    if sum(sizes) < source.size:
        sizes = [min(held[0], source.size - start) for start in range(0, source.size, held[0])]
    part = np.repeat(np.arange(len(sizes)), sizes)
    return [int(count) for count in np.bincount(part[source.old], minlength=len(sizes))]


class UnevenParts(NamedTuple):
    """How a node that split an axis into equal parts must say that they differ.

    Attributes:
        attribute: what must go.
        slot, lengths: the input, and what it must hold.
    """

    attribute: str
    slot: int
    lengths: list[int]


def uneven_parts(call: Resized) -> UnevenParts | None:
    """What a split into equal parts needs on its resized axis; None if the parts are still equal."""
    lengths = part_lengths(call, [])
    return UnevenParts("num_outputs", 1, lengths) if len(set(lengths)) > 1 else None


ROWS: Mapping[str, Row] = {
    "Reshape": Row(
        reshape,
        moves=True,
        slots=(X, setting("shape")),
        size_constants={"shape": output_sizes},
        homogeneity=Homogeneity.ONE,
    ),
    "Flatten": Row(reshape, moves=True, homogeneity=Homogeneity.ONE),
    **dict.fromkeys(
        ["Squeeze", "Unsqueeze"],
        Row(reshape, moves=True, puts_ones=True, slots=(X, setting("axes")), homogeneity=Homogeneity.ONE),
    ),
    "Transpose": Row(transpose, moves=True, homogeneity=Homogeneity.ONE),
    "Concat": Row(concat, adds=True, joins=True, homogeneity=Homogeneity.ANY),
    "Split": Row(
        split,
        adds=True,
        slots=(X, setting("split")),
        size_constants={"split": part_lengths},
        homogeneity=Homogeneity.ONE,
    ),
    "Expand": Row(expand, adds=True, slots=(X, setting("shape")), size_constants={"shape": output_sizes}),
    "Pad": Row(pad, slots=(X, setting("pads"))),
    "Tile": Row(tile, slots=(X, setting("repeats")), size_constants={"repeats": times_tiled}),
    "DepthToSpace": Row(depth_to_space),
    "SpaceToDepth": Row(space_to_depth),
    "CenterCropPad": Row(resize, slots=(X, setting("shape")), size_constants={"shape": output_sizes}),
    "Resize": Row(
        resize,
        slots=(X, setting("roi"), setting("scales"), setting("sizes")),
        size_constants={"sizes": output_sizes},
        homogeneity=Homogeneity.ONE,
    ),
    "Upsample": Row(resize, slots=(X, setting("scales"))),
}
