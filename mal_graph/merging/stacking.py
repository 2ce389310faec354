"""Stacking: every tensor of the base made by a merge method of those of all models at once.

Each donor is aligned to the base, not to what others left of it: its tensors at lambda 1, where units without a partner
keep the base's values, are the donor in the base's frame. So is the ancestor, if there is one and it is not the base
itself. Methods whose entries depend on one entry of each model are computed box by box, the others tensor by tensor.

Means and variances that a norm has measured are no weights: they are averaged, whatever the method.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any
from zlib import crc32

import numpy as np

from mal_graph.boxes import MOST, Array, Box, Boxed, BoxesOf, ReadBox, contiguous_boxes, read_whole
from mal_graph.brief import Brief
from mal_graph.errors import UsageError
from mal_graph.graph import LayerGraph, Weight
from mal_graph.matching import Shares
from mal_graph.merging.blending import TURNED, Blend, open_blend, outer_axis
from mal_graph.merging.planning import Plan, Step
from mal_graph.merging.soft_frames import SoftFrame
from mal_graph.merging.unmatched import Mask, find_rule
from mal_graph.merging.zipped_frames import ZippedFrame, Zips
from mal_graph.methods import InBoxes, MergeMethod, Stack, Vector, resolve
from mal_graph.network import Layer
from mal_graph.network import Parameter as Tensor
from mal_graph.operators import ParameterKind
from mal_graph.parameter_settings import Setting
from mal_graph.shelves import Once, Shelf

MEAN = "mean"  # the role of a mean that a norm has measured


@dataclass(frozen=True, repr=False)
class LearnedWeights(Brief):
    """What the weights of models are, where a method learns them.

    Attributes:
        of_layer: by name of each layer for each number of a model what it is times; of those that are learned.
        told: what was reached by that, in a sentence.
        masks: by name of a tensor how much of the task vectors each entry takes, in canonical form; of those that are
            learned.
    """

    of_layer: Mapping[str, Vector]
    told: str = ""
    masks: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Routed(Brief):
    """A result that routes.

    Attributes:
        experts: the tensors that differ from sample to sample.
        told: what is to be said of the router, in a sentence.
    """

    experts: tuple[str, ...]
    told: str = ""


@dataclass(frozen=True, repr=False)
class Stacking(Brief):
    """What becomes of the tensors of several models.

    Attributes:
        base: the model that gives the graph.
        method: what makes one tensor of several.
        settings: what was given for its parameters.
        plans: of every donor how it corresponds to the base, in order.
        ancestor: how the model corresponds to the base that all were tuned from; None without one, or where the base is
            that model.
        is_from_base: whether the base is the ancestor, and so none of the models that are merged.
        seed: of every random draw.
        measured: the tensors of which a method on activations knows what it needs; it averages the others.
        learned: the weights of models, of a method that learns them; None as long as they are those that are given.
        shares_of_units: of every donor how its units are shared out over the base's; () where they stand one on one.
        routed: what a router gives the weights of, of a method that routes; None as long as there is none.
        zips: which units of all models stand on which of the result's, of a method that zips them; None as long as they
            stand one on one.
    """

    base: LayerGraph
    method: MergeMethod
    settings: tuple[Setting, ...]
    plans: tuple[Plan, ...]
    ancestor: Plan | None = None
    is_from_base: bool = False
    seed: int = 0
    measured: tuple[str, ...] = ()
    learned: LearnedWeights | None = None
    routed: Routed | None = None
    shares_of_units: tuple[Mapping[int, Shares], ...] = ()
    zips: Zips | None = None

    @property
    def note(self) -> str:
        """What of the weights a method on activations did not see, or what a method reached that learns, routes or
        zips; "" where there is nothing to be said."""
        for made in (self.learned, self.routed, self.zips):
            if made is not None:
                return made.told
        weights = [name for name, steps in self.tensors.items() if first_step(steps).pair.is_weight]
        seen = [name for name in weights if name in self.measured]
        if self.method.measured is None or len(seen) == len(weights):
            return ""
        return f"{self.method.name} measured {len(seen)} of {len(weights)} weights; the others are the plain mean"

    @cached_property
    def tensors(self) -> Mapping[str, Mapping[int, Step]]:
        """By name of each tensor that is merged the step of every donor that has it, by number from 1 on."""
        steps: dict[str, dict[int, Step]] = {}
        for number, plan in enumerate(self.plans, 1):
            for step in plan.steps:
                steps.setdefault(step.tensor, {})[number] = step
        return steps

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which models are merged: 0 for the base, 1 for the first donor..."""
        return tuple(range(int(self.is_from_base), len(self.plans) + 1))

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """How much each model counts, base first: the mean over all numbers that are merged."""
        counts = np.zeros(1 + len(self.plans))
        for tensor in self.tensors:
            own = self.values_of(tensor)
            counts[list(own.numbers)] += own.weight.size * self.method.shares(own.values, len(own.numbers))
        return tuple((counts / counts.sum()).tolist())

    @property
    def peak_bytes(self) -> int:
        """Memory of the largest tensor: all models, what they have learned, ancestor, base and result in float32, of a
        box where a method needs no more at once, beside what its sieve tells of every entry; and where it is measured
        what a weight reads, products of its columns in float64 of as many models."""
        largest = max((self.base.weights[tensor].size for tensor in self.tensors), default=0)
        applied = [next(iter(steps.values())).pair.base for steps in self.tensors.values()]
        columns = [prod(weight.shape[1:]) for weight in applied if weight.is_weight and self.method.measured]
        numbers = len(self.numbers)
        at_once, told = (largest, 0) if self.method.is_whole else (min(largest, MOST), numbers * largest)
        return 4 * (2 * numbers + 3) * at_once + told + 8 * numbers * max(columns, default=0) ** 2

    def values_of(self, tensor: str) -> "StackedValues":
        """How one tensor is made."""
        steps = self.tensors[tensor]
        layer = next(iter(steps.values())).layers.base
        numbers = tuple(number for number in self.numbers if number == 0 or number in steps)
        deepest = max((other.depth for other in self.plans[0].match.base), default=0) or 1
        depth = min(1.0, layer.depth / deepest)
        values = resolve(self.method, self.settings, numbers, names_of(tensor, layer), depth)
        mask = None
        if self.learned is not None:
            mask = self.learned.masks.get(tensor)
            if layer.name in self.learned.of_layer:
                values["weight"] = self.learned.of_layer[layer.name][list(numbers)]
        return StackedValues(self, tensor, numbers, depth, values, mask=mask)


def stack_merge(stacking: Stacking) -> LayerGraph:
    """The base with every tensor that is merged made by the method: box by box when it is read, or, where a method
    needs the whole tensor, once, when it is first read.

    Raises:
        UsageError: a parameter has a value that it may not have, no model has a weight in a mean, or what is set is for
            no tensor.
    """
    refuse_settings_of_nothing(stacking)
    shelf = Shelf()
    return stacking.base.with_weights([weight_made(stacking.values_of(tensor), shelf) for tensor in stacking.tensors])


def weight_made(values: "StackedValues", shelf: Shelf) -> Weight:
    """A merged weight; one that is made as a whole is computed once."""
    weight = values.weight
    return replace(weight, read=values if values.is_by_box else Once(values, weight.shape, weight.dtype, shelf))


@dataclass(frozen=True, repr=False)
class InFrame(Brief):
    """One tensor of a model in the base's frame.

    Attributes:
        values: canonical, float32 or float64; the base's where the model has none.
        present: which of them the model has, of the same shape; None where it has all.
        counts: how much the model counts in each entry, of the same shape; None where it counts alike in all.
    """

    values: Array
    present: Mask | None
    counts: Array | None = None


@dataclass(frozen=True, repr=False)
class TensorRule(Brief):
    """What makes one tensor of those of several models, wherever their values come from.

    Attributes:
        method, values: the merge method, and its parameters by name.
        numbers: the models that have the tensor: 0 for the base, 1 for the first donor...
        parameter: how the base applies it.
        depth: of its layer, from 0 to 1.
        seed: of random draws.
        is_from_base: whether the base is the ancestor.
        moments, fisher, mask: see `Stack`; None where a method does not take that, or it was not measured.
    """

    method: MergeMethod
    values: Mapping[str, Any]
    numbers: tuple[int, ...]
    parameter: Tensor
    depth: float
    seed: tuple[int, ...]
    is_from_base: bool
    moments: Array | None = None
    fisher: Array | None = None
    mask: Array | None = None

    @property
    def is_statistic(self) -> bool:
        """Whether a norm has measured it."""
        return self.parameter.kind is ParameterKind.VARIANCE or self.parameter.role == MEAN

    def __call__(self, mine: Array, others: Callable[[int], InFrame], ancestor: Array | None = None) -> Array:
        """The merged values of a box of the base's, in their type; what does not change keeps its bits.

        Args:
            others: gives what a donor has there.
        """
        own = InFrame(in_float(mine), None)
        stack = self.stack(own.values, lambda number: others(number) if number else own, ancestor)
        return self.made_of(stack, mine)

    def made_of(self, stack: Stack, mine: Array) -> Array:
        """The same of the tensors of all models."""
        merged = self.merged(stack, self.values)
        return np.where(merged == in_float(mine), mine, merged.astype(mine.dtype))

    def merged(self, stack: Stack, values: Mapping[str, Any]) -> Array:
        """The same by these parameters, in the type of the stack."""
        if self.is_statistic:
            return stack.mean(self.method.shares(values, stack.count))
        return self.method(stack, **values)

    def stack(self, own: Array, models_in_frame: Callable[[int], InFrame], ancestor: Array | None) -> Stack:
        """The tensors of all models in a box, of the base's values there and what gives those of each model."""
        ancestor = own if self.is_from_base else ancestor
        models = np.empty((len(self.numbers), *own.shape), own.dtype)
        masks: list[Mask | None] = []
        counts: list[Array] = []
        for place, number in enumerate(self.numbers):  # one at a time: a list of them would be there twice
            one = models_in_frame(number)
            models[place] = one.values
            masks.append(one.present)
            counts += [] if one.counts is None else [one.counts]
        present = None
        if any(mask is not None for mask in masks):
            present = np.stack([np.ones(own.shape, bool) if mask is None else mask for mask in masks])
            models = models if ancestor is None else np.where(present, models, ancestor)
        return Stack(
            models,
            ancestor,
            present,
            self.numbers,
            self.parameter.role,
            self.depth,
            self.seed,
            self.moments,
            self.fisher,
            np.stack(counts) if counts else None,
            self.mask,
        )


def in_float(values: Array) -> Array:
    """Values in the type that they are computed in: float32, or float64 where they are stored so."""
    return values.astype(np.float64 if values.dtype == np.float64 else np.float32, copy=False)


@dataclass(frozen=True, repr=False)
class StackedValues(Boxed):
    """One tensor of the result, in the base's layout and type.

    Attributes:
        stacking, tensor: what is made.
        numbers: the models that have it.
        depth: of its layer, from 0 to 1.
        values: the parameters by name, of each model's own one for each of `numbers`.
        moments, fisher, mask: see `Stack`; None where a method does not take that, or it was not measured.
    """

    stacking: Stacking
    tensor: str
    numbers: tuple[int, ...]
    depth: float
    values: Mapping[str, Any]
    moments: Array | None = None
    fisher: Array | None = None
    mask: Array | None = None

    @property
    def steps(self) -> Mapping[int, Step]:
        return self.stacking.tensors[self.tensor]

    @property
    def weight(self) -> Weight:
        """The base's."""
        return self.stacking.base.weights[self.tensor]

    @property
    def parameter(self) -> Tensor:
        """How the base applies it."""
        return next(iter(self.steps.values())).pair.base

    @property
    def is_by_box(self) -> bool:
        """Whether what is in a box depends on what all models have there alone."""
        return self.stacking.method.by_entry or self.rule.is_statistic

    @property
    def most(self) -> int:
        """How many numbers a box has at best."""
        own = outer_axis(self.parameter)
        is_turned = any(outer_axis(step.pair.donor) != own for step in self.steps.values())
        return super().most * (TURNED if is_turned else 1)

    def __call__(self) -> Array:
        """All values."""
        return read_whole(self, self.weight.shape, self.weight.dtype)

    def open(self) -> ReadBox:
        """What gives the values of a box; a method that needs the whole tensor computes it here, and one with a sieve
        looks through the tensor."""
        own, stack_of, rule = self.weight.open(), self.open_stack(), self.rule
        sieve = None if rule.is_statistic or not self.weight.size else rule.method.sieve
        kept = None if sieve is None else sieve(self.in_boxes(own, stack_of), self.values)

        def read_box(box: Box) -> Array:
            stored = own(box)
            mine = self.parameter.canonical(stored)
            stack = stack_of(mine, box)
            if kept is not None:
                stack = replace(stack, kept=kept(stack, self.parameter.canonical_box(box)))
            return self.parameter.stored(rule.made_of(stack, mine), stored.shape)

        return read_box if self.is_by_box or kept is not None else BoxesOf(read_box(self.whole))

    def in_boxes(self, own: ReadBox, stack_of: Callable[[Array, Box], Stack]) -> InBoxes:
        """The tensors of all models, box by box, of what gives the base's and the stacks."""

        def boxes() -> Iterator[Stack]:
            for box in contiguous_boxes(self.weight.shape, self.most):
                yield stack_of(self.parameter.canonical(own(box)), box)

        shape = self.parameter.canonical(np.broadcast_to(0, self.weight.shape)).shape
        return InBoxes(shape, self.numbers, self.rule.seed, boxes)

    def at_hand(self) -> Callable[[Mapping[str, Any]], Array]:
        """What makes the whole tensor, by other parameters again and again: the tensors of all models are held."""
        stored = self.weight.read()
        mine = self.parameter.canonical(stored)
        stack = self.open_stack()(mine, self.whole)

        def make(values: Mapping[str, Any]) -> Array:
            rule = replace(self.rule, values={**self.values, **values})
            return self.parameter.stored(rule.made_of(stack, mine), stored.shape)

        return make

    def added(self) -> Iterator[Array]:
        """What the weight of each model adds to the whole tensor, one after the other, in float64."""
        stored, rule = self.weight.read(), self.rule
        stack = self.open_stack()(self.parameter.canonical(stored), self.whole)
        ancestor = None if stack.ancestor is None else stack.ancestor.astype(np.float64)
        exact = replace(stack, models=stack.models.astype(np.float64), ancestor=ancestor)
        weight = self.values["weight"]
        nothing = rule.merged(exact, {**self.values, "weight": 0 * weight})
        for own in np.eye(stack.count):
            moved = rule.merged(exact, {**self.values, "weight": own * weight}) - nothing
            yield self.parameter.stored(moved, stored.shape)

    @property
    def whole(self) -> Box:
        """The box that is all of the tensor."""
        return tuple(slice(0, length) for length in self.weight.shape)

    def open_stack(self) -> Callable[[Array, Box], Stack]:
        """What gives the tensors of all models in a box, of the base's canonical values there and the stored box."""
        frames = {number: frame for number in self.numbers if (frame := self.frame(number)) is not None}
        ancestor, rule = self.ancestor_frame(), self.rule

        def stack_of(mine: Array, stored_box: Box) -> Stack:
            own, box = in_float(mine), self.parameter.canonical_box(stored_box)

            def in_frame(number: int) -> InFrame:
                frame = frames.get(number)
                if frame is None:
                    return InFrame(own, None)
                counts = frame.counts(box) if isinstance(frame, ZippedFrame) else None
                return InFrame(frame(own, box), frame.present(box), counts)

            return rule.stack(own, in_frame, None if ancestor is None else ancestor(own, box))

        return stack_of

    @property
    def rule(self) -> "TensorRule":
        """What makes the tensor of those of all models."""
        stacking = self.stacking
        return TensorRule(
            stacking.method,
            self.values,
            self.numbers,
            self.parameter,
            self.depth,
            (stacking.seed, crc32(self.tensor.encode())),
            stacking.is_from_base,
            self.moments,
            self.fisher,
            self.mask,
        )

    def frame(self, number: int) -> Blend | SoftFrame | ZippedFrame | None:
        """What gives a model's values in the frame of the result; None where that is the one they stand in."""
        stacking = self.stacking
        if stacking.zips is not None and self.is_zipped:
            step = self.steps[number] if number else first_step(self.steps)
            plan = stacking.plans[max(number, 1) - 1]
            return ZippedFrame(stacking.base, stacking.zips, plan.alignment, step, number)
        if not number:
            return None
        plan, step = stacking.plans[number - 1], self.steps[number]
        if stacking.shares_of_units:
            return SoftFrame(plan, step, stacking.shares_of_units[number - 1])
        return frame_of(plan, step)

    @property
    def is_zipped(self) -> bool:
        """Whether units that stand on others lie on an axis."""
        zips, pairs = self.stacking.zips, self.stacking.plans[0].alignment.correspondence.pairs
        first = self.steps.get(1)
        return (
            zips is not None
            and first is not None
            and any(
                pairs[block.pair].base in zips.places for axis in first.axes for block in axis.blocks if block.pair >= 0
            )
        )

    def ancestor_frame(self) -> Blend | None:
        """What gives the ancestor's values in the base's frame."""
        plan = self.stacking.ancestor
        return None if plan is None else frame_of(plan, next(s for s in plan.steps if s.tensor == self.tensor))


def frame_of(plan: Plan, step: Step) -> Blend:
    """What gives one tensor of a model in the base's frame, box by box; the base's values where it has none."""
    return open_blend(step.pair, step.axes, plan.alignment.orders, 1.0, find_rule("keep"))


def names_of(tensor: str, layer: Layer) -> tuple[str, str]:
    """The names by which a setting finds a tensor."""
    return tensor, layer.name


def refuse_settings_of_nothing(stacking: Stacking) -> None:
    """Raise UsageError where a setting is for tensors that there are not."""
    names = [name for tensor, steps in stacking.tensors.items() for name in names_of(tensor, first_layer(steps))]
    for setting in unused(stacking.settings, names):
        raise UsageError(
            f"`parameters` {setting.key} is for no tensor: {setting.where!r} is in no name of the "
            f"{len(stacking.tensors)} tensors that are merged, nor of their layers"
        )


def unused(settings: Sequence[Setting], names: Sequence[str]) -> Iterator[Setting]:
    return (setting for setting in settings if setting.where and not any(setting.where in name for name in names))


def first_step(steps: Mapping[int, Step]) -> Step:
    return next(iter(steps.values()))


def first_layer(steps: Mapping[int, Step]) -> Layer:
    return first_step(steps).layers.base
