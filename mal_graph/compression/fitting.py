"""Readers fitted anew to a network that has lost units, front to back.

What a reader gets depends on the readers before it. So those with equally many readers before them are fitted together,
while the samples walk through the network as it was and as it is by then.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.compression.moments import Halves
from mal_graph.compression.readers import Reader
from mal_graph.compression.recovery import recover
from mal_graph.compression.unit_sets import Ints
from mal_graph.errors import ShapeError
from mal_graph.evaluation import (
    MOST_TAPS,
    Walk,
    data_slot,
    find_levels,
    find_patches,
    find_walk_batches,
    walk_together,
    window_of,
)
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import by_role
from mal_graph.merging import with_zero_bias
from mal_graph.network import Layer, Parameter, find_layers
from mal_graph.operators import Layout, Span
from mal_graph.protocols import Runner
from mal_graph.symmetry import Resizing, spread


@dataclass(frozen=True, repr=False)
class Fit(Brief):
    """A reader whose cells became fewer.

    Attributes:
        reader: where it reads in the network as it was.
        stays: which of its cells stay.
        layouts: the axes of its weight.
        read: indices of the cells that stay on what it reads by now, shape (kept, positions).
        beside: the other axes of what it reads that became shorter, and the indices that are left: of several matrices
            in one stored tensor some may go whole.
        bias: what takes what is left in the mean; None where nothing can.
        level: how many readers come before it at most.
        window: of a convolution whose coefficients are fitted tap by tap; None where those of a unit move together.
    """

    reader: Reader
    stays: NDArray[np.bool_]
    layouts: tuple[Layout, ...]
    read: Ints
    beside: Mapping[int, Ints] = field(default_factory=dict)
    bias: Parameter | None = None
    level: int = 0
    window: list[Span] | None = None

    @property
    def parameter(self) -> Parameter:
        """Its weight in the network as it was."""
        return self.reader.parameter

    @property
    def prior(self) -> Array:
        """Each cell that stays stands for itself, shape (cells, kept)."""
        return np.eye(len(self.stays))[:, self.stays]

    @cached_property
    def outputs(self) -> tuple[Ints, Ints]:
        """Which of the reader's outputs are left, by number, and where they stand by now."""
        out = self.layouts[self.out]
        left = np.flatnonzero(np.isin(self.reader.outputs, out.old))
        return left, moved_to(out, self.reader.outputs[left])

    @property
    def out(self) -> int:
        """The axis of the weight that holds what the contraction gives."""
        out = self.parameter.axes[0]
        assert out is not None
        return out

    def staying(self, was: Array, now: Array) -> Array:
        """What the cells that stay give, as they are by now, shape (kept, samples). A state is taken as it was: by now
        it is what the weight that is fitted makes of it."""
        if self.reader.is_state:
            return self.reader.rows(was)[self.stays]
        return replace(self.reader, read=self.read).rows(now)

    def empty(self) -> "Summed":
        """Nothing seen yet of what stays and of all cells."""
        kept, is_centred = int(self.stays.sum()), self.bias is not None
        cells = Halves.empty(kept, len(self.stays), is_centred=is_centred)
        if self.window is None:
            return Summed(cells)
        taps = prod(map(len, self.layouts[1:]))
        return Summed(cells, Halves.empty(taps, len(self.layouts[0]), is_centred=is_centred))

    def refitted(self, stored: Array, fitted: Array, new: Array) -> Array:
        """The new weight with this reader's coefficients, from what they were and the regression, shape (cells, kept).

        Args:
            stored: the weight as it was.
            new: the weight as it is by now, which keeps what other readers read.
        """
        rows = np.tensordot(fitted.T, self.reader.own(stored), 1)  # (kept, positions, the other axes)
        axis, out = self.reader.axis, self.reader.out_axis
        left, places = self.outputs
        rows = rows.take(left, out)
        for other, layout in enumerate(self.layouts):
            if other not in (axis, self.out):
                rows = rows.take(layout.old, 2 + other - (other > axis))
        moved = np.moveaxis(new.astype(np.float64), (axis, self.out), (0, 1))
        own = moved_to(self.layouts[axis], self.reader.stored[self.stays])
        moved[own[:, :, None], places] = np.moveaxis(rows, out, 2)
        return np.moveaxis(moved, (0, 1), (axis, self.out))

    def shift(self, stored: Array, left: Array) -> Array:
        """What the outputs miss in the mean, from what each cell does, shape (outputs,)."""
        missed = np.tensordot(left, self.reader.own(stored), 1)
        axis = self.reader.out_axis - 1
        summed = missed.sum(axis=tuple(other for other in range(missed.ndim) if other != axis))
        kept, places = self.outputs
        whole = np.zeros(len(self.layouts[self.out]))
        whole[places] = summed[kept] * self.parameter.factor
        return whole


@dataclass
class Summed:
    """What was seen of a reader.

    Attributes:
        cells: the moments of the cells that stay, with those of all.
        patches: moments of what lies under the window, with those of what the convolution gave; None without a window.
    """

    cells: Halves
    patches: Halves | None = None

    def add(self, fit: Fit, half: int, was: Array, now: Array, given: Array | None) -> None:
        """Some samples of one half: what was read, what is read by now, and what the contraction gave."""
        for axis, left in fit.beside.items():
            was = was.take(left, axis)
        self.cells.halves[half].add(fit.staying(was, now), fit.reader.rows(was))
        if self.patches is not None and fit.window is not None and given is not None:
            outputs = given.take(fit.layouts[0].old, 1)
            rows = np.moveaxis(outputs, 1, 0).reshape(outputs.shape[1], -1)
            self.patches.halves[half].add(find_patches(now, fit.window), rows)


def moved_to(layout: Layout, indices: Ints) -> Ints:
    """Where indices of an axis are by now. Raises ShapeError where one is gone."""
    places = np.full(layout.size, -1)
    places[layout.old] = np.arange(len(layout))
    found = np.asarray(places[indices])
    if (found < 0).any():
        raise ShapeError("an index is gone that is still read")
    return found


def moved_through(layouts: Sequence[Layout], indices: Ints) -> Ints:
    """The same of indices that are counted through several axes."""
    apart = np.unravel_index(indices, [layout.size for layout in layouts])
    moved = tuple(moved_to(layout, own) for layout, own in zip(layouts, apart, strict=True))
    return np.asarray(np.ravel_multi_index(moved, [len(layout) for layout in layouts]))


def find_fits(
    graph: LayerGraph,
    readers: Sequence[Reader],
    kept: Mapping[int, Sequence[int]],
    change: Resizing,
    *,
    by_tap: bool,
) -> list[Fit]:
    """The readers that lose cells; convolutions are fitted tap by tap if that is wanted, and they are small enough.

    A block that goes whole leaves nothing to fit.
    """
    fits, units = [], {number: frozenset(own) for number, own in kept.items()}
    for reader in readers:
        stays = reader.kept(units)
        if stays.any() and not stays.all():
            layouts = change.layouts[reader.parameter.tensor]
            tensor, axes = reader.place
            by_axis = dict(enumerate(change.computed[tensor]))
            read = moved_through([by_axis[axis] for axis in axes], reader.read[stays])
            shorter = {axis: own.old for axis, own in by_axis.items() if axis not in axes and len(own) < own.size}
            node, shape = graph.nodes[reader.parameter.node], tuple(map(len, layouts))
            window = window_of(node, reader.parameter.axes, shape) if by_tap else None
            is_small = prod(shape[1:]) <= MOST_TAPS
            fits.append(Fit(reader, stays, layouts, read, shorter, window=window if is_small else None))
    return fits


def with_zero_biases(graph: LayerGraph, fits: Sequence[Fit]) -> LayerGraph:
    """The graph with a bias of zeros for every reader that lacks one and can take it."""
    for fit in fits:
        layer = layer_at(find_layers(graph), fit.parameter.node)
        if layer is not None and layer.weight is not None and "bias" not in by_role(layer) and layer.weight.blocks == 1:
            graph = with_zero_bias(graph, layer.weight)
    return graph


def with_places(graph: LayerGraph, fits: Sequence[Fit]) -> list[Fit]:
    """The fits with the biases that take what is left in the mean, and their levels."""
    layers = find_layers(graph)
    level_of = find_levels(graph, {fit.parameter.node for fit in fits})
    return [
        replace(
            fit,
            bias=usable_bias(graph, layer_at(layers, fit.parameter.node)),
            level=level_of[graph.nodes[fit.parameter.node].inputs[data_slot(fit.parameter)]],
        )
        for fit in fits
    ]


def layer_at(layers: Sequence[Layer], node: int) -> Layer | None:
    """The layer that a contraction starts."""
    return next((layer for layer in layers if layer.weight is not None and layer.weight.node == node), None)


def usable_bias(graph: LayerGraph, layer: Layer | None) -> Parameter | None:
    """The bias that is added to what a layer's contraction gives, to all that reads it; None where there is none."""
    if layer is None or layer.weight is None:
        return None
    bias = by_role(layer).get("bias")
    if bias is None or np.prod(bias.shape) != layer.weight.shape[0] or len(graph.consumers[bias.tensor]) > 1:
        return None
    is_apart = bias.node != layer.weight.node
    if is_apart and len(graph.consumers[graph.nodes[layer.weight.node].outputs[0]]) > 1:
        return None
    return bias


def half_of(fit: Fit, shape: Sequence[int], half: int) -> tuple[slice, ...]:
    """Every other sample of what a reader reads; all of it where its cells lie on the axis of the samples, or matrices
    that go whole.

    Steps of a state lie in front of the samples: every other one of these, if there are several.
    """
    axis = next((other for other, size in enumerate(shape) if size > 1), 0) if fit.reader.is_state else 0
    return () if axis in (*fit.reader.place[1], *fit.beside) else (*(slice(None),) * axis, slice(half, None, 2))


@dataclass(frozen=True, repr=False)
class Fitting(Brief):
    """A network as it was and with fewer units, and the readers to be fitted.

    Attributes:
        before, after: both networks.
        change: what was taken away.
        measured: what takes the place of some tensors of `before` while activations are measured.
        fits: the readers.
    """

    before: LayerGraph
    after: LayerGraph
    change: Resizing
    measured: Mapping[str, Array]
    fits: Sequence[Fit]

    @np.errstate(all="ignore")  # what is not finite is found by whoever compares the outputs
    def fitted(self, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
        """New values of the weights and biases of all readers. Raises DataError or RunError."""
        new = {name: self.after.weights[name].read() for name in self.set_anew()}
        if not new:
            return {}
        measured = {name: self.taken_from(name, values) for name, values in self.measured.items()}
        levels = self.by_level()
        before = [sorted({name for fit in level for name in self.seen_before(fit)}) for level in levels]
        after = [sorted({fit.reader.place[0] for fit in level if not fit.reader.is_state}) for level in levels]
        walks = (
            Walk(self.before, inputs, runner, before, list(self.measured)),
            Walk(self.after, inputs, runner, after, [*new, *measured]),
        )
        batches = find_walk_batches(walks)
        for level in levels:
            values = walk_together(walks, batches, (self.measured, {**new, **measured}))
            for fit, sums in zip(level, self.moments(level, values), strict=True):
                new.update(self.refit(fit, sums, new))
        return new

    def seen_before(self, fit: Fit) -> list[str]:
        """What is seen of a reader in the network as it was: what it reads and, under a window, what it gives."""
        return [fit.reader.place[0], self.output_of(fit)] if fit.window else [fit.reader.place[0]]

    def output_of(self, fit: Fit) -> str:
        """What its contraction gives in the network as it was."""
        return self.before.nodes[fit.parameter.node].outputs[0]

    def set_anew(self) -> Iterator[str]:
        """The tensors that get new values."""
        for fit in self.fits:
            yield fit.parameter.tensor
            if fit.bias is not None:
                yield fit.bias.tensor

    def taken_from(self, name: str, values: Array) -> Array:
        """What is left of a tensor of the network as it was."""
        return spread(values, self.change.layouts[name], None) if name in self.change.layouts else values

    def by_level(self) -> list[list[Fit]]:
        """The fits front to back, those of one level together."""
        by_level: dict[int, list[Fit]] = {}
        for fit in self.fits:
            by_level.setdefault(fit.level, []).append(fit)
        return [by_level[level] for level in sorted(by_level)]

    def moments(self, level: Sequence[Fit], values: Iterable[Sequence[Mapping[str, Array]]]) -> list[Summed]:
        """What the units that stay give, as they are, beside what all units gave, batch by batch."""
        summed, seen = [fit.empty() for fit in level], 0
        for was, now in values:
            for fit, sums in zip(level, summed, strict=True):
                tensor = fit.reader.place[0]
                whole = was[tensor], was[tensor] if fit.reader.is_state else now[tensor]
                given = was[self.output_of(fit)] if fit.window else None
                for half in (0, 1):
                    own = half_of(fit, was[tensor].shape, (half + seen) % 2)
                    sums.add(fit, half, whole[0][own], whole[1][own], None if given is None else given[own])
            seen += len(was[level[0].reader.place[0]])
        return summed

    def refit(self, fit: Fit, sums: Summed, new: Mapping[str, Array]) -> dict[str, Array]:
        """New values of one reader's tensors."""
        stored = self.before.weights[fit.parameter.tensor].read()
        coefficients = fit.reader.coefficients(stored, sums.cells.whole.covariances[1])
        regression, left = recover(sums.cells, fit.prior, coefficients)
        weight = fit.refitted(stored, regression, new[fit.parameter.tensor])
        missed = fit.shift(stored, left)
        if sums.patches is not None:
            outputs = np.diag(sums.patches.whole.covariances[1])
            scale = np.diag(1 / np.sqrt(np.where(outputs > 0, outputs, 1)))
            rows, left = recover(sums.patches, weight.reshape(len(weight), -1), scale)
            weight = rows.reshape(weight.shape)
            is_inside = fit.bias is not None and fit.bias.node == fit.parameter.node
            missed = left - fit.bias.canonical(new[fit.bias.tensor]).ravel() if fit.bias and is_inside else left
        changed = {fit.parameter.tensor: weight.astype(stored.dtype)}
        if fit.bias is not None:
            old = new[fit.bias.tensor]
            moved = fit.bias.canonical(old).astype(np.float64) + (missed / fit.bias.factor).reshape(fit.bias.shape)
            changed[fit.bias.tensor] = np.ascontiguousarray(fit.bias.stored(moved, old.shape), old.dtype)
        return changed
