"""Readers fitted anew to a network that has lost units, front to back.

What a reader gets depends on the readers before it. So those with equally many readers before them are fitted together,
while the samples walk through the network as it was and as it is by then.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.compression.moments import Halves
from mal_graph.compression.patches import MOST_TAPS, find_patches, window_of
from mal_graph.compression.readers import Ints, Reader, data_slot, units_kept
from mal_graph.compression.recovery import recover
from mal_graph.evaluation import Walk, find_walk_batches, walk_together
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import by_role
from mal_graph.merging import with_zero_bias
from mal_graph.network import Layer, Parameter, find_layers
from mal_graph.operators import Layout, Span
from mal_graph.protocols import Runner
from mal_graph.symmetry import Resizing, spread


@dataclass(frozen=True, repr=False)
class Fit(Brief):
    """A reader whose units became fewer.

    Attributes:
        reader: where it reads in the network as it was.
        stays: which of its units stay.
        layouts: the axes of its weight.
        read: indices of the units that stay on what it reads by now, shape (blocks, kept, positions).
        bias: what takes what is left in the mean; None where nothing can.
        level: how many readers come before it at most.
        window: of a convolution whose coefficients are fitted tap by tap; None where those of a unit move together.
    """

    reader: Reader
    stays: NDArray[np.bool_]
    layouts: tuple[Layout, ...]
    read: Ints
    bias: Parameter | None = None
    level: int = 0
    window: list[Span] | None = None

    @property
    def parameter(self) -> Parameter:
        """Its weight in the network as it was."""
        return self.reader.parameter

    @property
    def prior(self) -> Array:
        """Each unit that stays stands for itself, shape (units, kept)."""
        return np.eye(len(self.stays))[:, self.stays]

    @property
    def narrow(self) -> Reader:
        """The reader with the units that stay, where they lie by now."""
        return replace(self.reader, units=self.reader.units[self.stays], read=self.read)

    def empty(self) -> "Summed":
        """Nothing seen yet of what stays and of all units."""
        kept, is_centred = int(self.stays.sum()), self.bias is not None
        blocks = [Halves.empty(kept, len(self.stays), is_centred=is_centred) for _ in self.read]
        if self.window is None:
            return Summed(blocks)
        taps = prod(map(len, self.layouts[1:]))
        return Summed(blocks, Halves.empty(taps, len(self.layouts[0]), is_centred=is_centred))

    def refitted(self, stored: Array, fitted: Sequence[Array]) -> Array:
        """The weight with new coefficients, from what it was and the regression of each block, shape (units, kept)."""
        rows, axis = self.rows(stored), self.reader.out_axis
        parts = np.array_split(rows, len(fitted), axis)
        new = [np.tensordot(each.T, part, 1) for each, part in zip(fitted, parts, strict=True)]
        own = self.layouts[self.reader.axis]
        moved = np.moveaxis(stored, self.reader.axis, 0)[own.old].astype(np.float64)
        moved[moved_to(own, self.reader.stored[self.stays])] = np.concatenate(new, axis)
        whole = np.moveaxis(moved, 0, self.reader.axis)
        others = [kept_axis(layout) if axis == self.reader.axis else layout for axis, layout in enumerate(self.layouts)]
        return spread(whole, others, None)

    def shift(self, stored: Array, left: Sequence[Array]) -> Array:
        """What the outputs miss in the mean, from what each unit does, shape (outputs,)."""
        rows, axis = self.rows(stored), self.reader.out_axis
        parts = np.array_split(rows, len(left), axis)
        missed = [np.tensordot(each, part, 1) for each, part in zip(left, parts, strict=True)]
        whole = np.concatenate(missed, axis - 1)
        summed = whole.sum(axis=tuple(other for other in range(whole.ndim) if other != axis - 1))
        out = self.parameter.axes[0]
        assert out is not None
        return np.asarray(summed[self.layouts[out].old] * self.parameter.factor)

    def rows(self, stored: Array) -> Array:
        """The coefficients of each unit, shape (units, positions, the other axes)."""
        return np.moveaxis(stored, self.reader.axis, 0)[self.reader.stored].astype(np.float64)


@dataclass
class Summed:
    """What was seen of a reader.

    Attributes:
        blocks: of each block the moments of the units that stay, with those of all units.
        patches: moments of what lies under the window, with those of what the convolution gave; None without a window.
    """

    blocks: list[Halves]
    patches: Halves | None = None

    def add(self, fit: Fit, half: int, was: Array, now: Array, given: Array | None) -> None:
        """Some samples of one half: what was read, what is read by now, and what the contraction gave."""
        for halves, stays, units in zip(self.blocks, fit.narrow.rows(now), fit.reader.rows(was), strict=True):
            halves.halves[half].add(stays, units)
        if self.patches is not None and fit.window is not None and given is not None:
            outputs = given.take(fit.layouts[0].old, 1)
            rows = np.moveaxis(outputs, 1, 0).reshape(outputs.shape[1], -1)
            self.patches.halves[half].add(find_patches(now, fit.window), rows)


def kept_axis(layout: Layout) -> Layout:
    """An axis that is as long as it shall be."""
    return Layout(len(layout), np.arange(len(layout)), np.zeros(len(layout), np.int64))


def moved_to(layout: Layout, indices: Ints) -> Ints:
    """Where indices of an axis are by now; they must be there."""
    places = np.full(layout.size, -1)
    places[layout.old] = np.arange(len(layout))
    return np.asarray(places[indices])


def find_fits(
    graph: LayerGraph,
    readers: Sequence[Reader],
    kept: Mapping[int, Sequence[int]],
    change: Resizing,
    *,
    by_tap: bool,
) -> list[Fit]:
    """The readers that lose units; convolutions are fitted tap by tap if that is wanted, and they are small enough."""
    fits = []
    for reader in readers:
        stays = units_kept(reader.units, kept)
        if not stays.all():
            layouts = change.layouts[reader.parameter.tensor]
            read = moved_to(change.computed[reader.place[0]][reader.place[1]], reader.read[:, stays])
            node, shape = graph.nodes[reader.parameter.node], tuple(map(len, layouts))
            window = window_of(node, reader.parameter.axes, shape) if by_tap else None
            is_small = prod(shape[1:]) <= MOST_TAPS
            fits.append(Fit(reader, stays, layouts, read, window=window if is_small else None))
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
    level_of = levels(graph, {fit.parameter.node for fit in fits})
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


def levels(graph: LayerGraph, readers: set[int]) -> dict[str, int]:
    """For each tensor how many readers come before it at most."""
    level: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        before = max((level.get(name, 0) for name in (*node.inputs, *node.captures)), default=0)
        level.update(dict.fromkeys(node.outputs, before + (index in readers)))
    return {**dict.fromkeys((value.name for value in graph.inputs), 0), **level}


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
        read = [sorted({fit.reader.place[0] for fit in level}) for level in levels]
        given = [sorted({self.output_of(fit) for fit in level if fit.window}) for level in levels]
        both = [[*here, *outputs] for here, outputs in zip(read, given, strict=True)]
        walks = (
            Walk(self.before, inputs, runner, both, list(self.measured)),
            Walk(self.after, inputs, runner, read, [*new, *measured]),
        )
        batches = find_walk_batches(walks)
        for level in levels:
            values = walk_together(walks, batches, (self.measured, {**new, **measured}))
            for fit, sums in zip(level, self.moments(level, values), strict=True):
                new.update(self.refit(fit, sums, new))
        return new

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
                tensor, axis = fit.reader.place
                given = was[self.output_of(fit)] if fit.window else None
                for half in (0, 1):
                    own = slice((half + seen) % 2, None, 2) if axis else slice(None)
                    sums.add(fit, half, was[tensor][own], now[tensor][own], None if given is None else given[own])
            seen += len(was[level[0].reader.place[0]])
        return summed

    def refit(self, fit: Fit, sums: Summed, new: Mapping[str, Array]) -> dict[str, Array]:
        """New values of one reader's tensors."""
        stored = self.before.weights[fit.parameter.tensor].read()
        coefficients = fit.reader.coefficients(stored, [halves.whole.covariances[1] for halves in sums.blocks])
        fits = [recover(each, fit.prior, own) for each, own in zip(sums.blocks, coefficients, strict=True)]
        weight = fit.refitted(stored, [regression for regression, _ in fits])
        missed = fit.shift(stored, [left for _, left in fits])
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
