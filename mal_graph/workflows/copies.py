"""Donors that are copies of the base: they hold the same numbers in every tensor, in whatever order.

Most orders of a copy are orders of units, which an alignment finds for any donor. Others no order of units tells: those
of whole branches (see `branch_orders`), or of the units inside each of several blocks (see `number_places`). Of a copy
the numbers themselves say where they belong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array, LayerGraph, Weight
from mal_graph.matching import Order, Signatures, same_numbers, sums_of
from mal_graph.merging import Sessions
from mal_graph.network import Parameter, data_dependent, find_parameters
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups, deviation
from mal_graph.workflows.both_models import KEEPS, Models, Run, more_samples

SEEDS = (0, 1)  # of the numbers that copies are tried with
ROUNDED_OUTPUTS = 0.02  # what rounding of half the bits may make of the outputs
ROUNDS = 3.0  # of what rounding makes of the outputs: neighbours that it puts in another order make as much again
Lengths = tuple[int, ...]
Positions = NDArray[np.int64]


class Placed(NamedTuple):
    """A place in both models: the base's tensor there, the donor's, and that of the donor which holds the numbers that
    the base has there."""

    own: Parameter
    here: Parameter
    source: str


def in_base_places(base: LayerGraph, donor: LayerGraph) -> list[Placed]:
    """Every place of two models that hold the same numbers, tensor by tensor; none where they do not.

    The smallest tensors come first, as those of another model tell soonest that it is no copy.
    """
    mine, theirs = places_of(base), places_of(donor)
    placed: list[Placed] = []
    if {key: len(here) for key, here in mine.items()} != {key: len(here) for key, here in theirs.items()}:
        return []
    for key in sorted(mine, key=lambda key: prod(key) * len(mine[key])):
        own, others = (
            np.concatenate([sums_of(graph.weights[one.tensor]) for one in places[key]])
            for graph, places in ((base, mine), (donor, theirs))
        )
        order = same_numbers(own, others)
        if order is None:
            return []
        sources = [theirs[key][place].tensor for place in order]
        placed += map(Placed, mine[key], theirs[key], sources)
    shapes = {name: weight.shape for name, weight in donor.weights.items()}
    fits = (one.own.shape == one.here.shape and shapes[one.source] == shapes[one.here.tensor] for one in placed)
    return placed if all(fits) else []


def places_of(graph: LayerGraph) -> dict[Lengths, list[Parameter]]:
    """The tensors that were learned, each where it is applied first, by the lengths of their axes, in any order."""
    first = {parameter.tensor: parameter for parameter in reversed(find_parameters(graph))}
    places: dict[Lengths, list[Parameter]] = {}
    for parameter in reversed(first.values()):
        places.setdefault(tuple(sorted(length for length in parameter.shape if length != 1)), []).append(parameter)
    return places


def is_looked_up(graph: LayerGraph, parameter: Parameter) -> bool:
    """Whether inputs say which entries of a table are read."""
    return parameter.is_table and not data_dependent(graph).isdisjoint(graph.nodes[parameter.node].inputs)


class Axis(NamedTuple):
    """An axis of a tensor of both models: the donor's number of it, what it is made of, and which of these parts holds
    what the base has in the place of each; None where the parts do not hold the same numbers."""

    axis: int
    parts: list[Positions]
    order: Order | None


def compare_parts(base: Weight, donor: Weight, placed: Placed, groups: AxisGroups) -> Iterator[Axis]:
    """The axes of a tensor in several parts; `donor` is what is to stand in the place."""
    for axis, other in zip(placed.here.axes, placed.own.axes, strict=True):
        if axis is None or other is None or donor.shape[axis] != base.shape[other]:
            continue
        parts = parts_of(groups, placed.here.tensor, axis, donor.shape[axis])
        if len(parts) > 1:
            both = (sums_of(base, other), sums_of(donor, axis))
            order = same_numbers(*(np.stack([sums[part].sum(axis=0) for part in parts]) for sums in both))
            is_fitting = order is not None and all(
                len(parts[old]) == len(part) for part, old in zip(parts, order, strict=True)
            )
            yield Axis(axis, parts, order if is_fitting else None)


def parts_of(groups: AxisGroups, tensor: str, axis: int, length: int) -> list[Positions]:
    """What an axis is made of: positions that hold units which may trade places, and every other one by itself."""
    part = np.arange(length)
    for number, member in groups.on_axis.get((tensor, axis), ()):
        if groups.groups[number].is_usable:
            joined = np.unique(part[member.positions])
            part[np.isin(part, joined)] = joined[0]
    return [np.flatnonzero(part == first) for first in np.unique(part)]


def is_symmetric(
    base: LayerGraph, donor: LayerGraph, changed: LayerGraph, groups: AxisGroups, paired: Signatures, runner: Runner
) -> bool:
    """Whether a copy of the base computes the same when its numbers stand in other places, whatever the numbers are:
    all three models are run with every number replaced, equal ones by equal ones.

    Args:
        changed: the donor with its numbers in other places, by which it computes what the base does.
        groups: the donor's.
        paired: which of its inputs and outputs is which of the base's.
    """
    for seed in SEEDS:
        first, *others = (with_other_numbers(graph, seed) for graph in (base, donor, changed))
        before, after = (Models(first, other, paired, Sessions(runner)) for other in others)
        inputs = before.as_base_inputs(groups.probed.inputs)
        sets = (inputs, *more_samples(base, inputs))
        if not are_alike(list(before.runs(sets)), list(after.runs(sets))):
            return False
    return True


def are_alike(before: Sequence[Run], after: Sequence[Run]) -> bool:
    """Whether a donor computes the same in both forms, where that of its numbers in other places is as near to the base
    as rounding leaves it."""
    if not before or len(before) != len(after):
        return False
    rounding = max(deviation(run.donor, run.base) for run in after)
    moved = max(deviation(one.donor, other.donor) for one, other in zip(before, after, strict=True))
    return rounding <= ROUNDED_OUTPUTS and moved <= KEEPS + ROUNDS * rounding


def with_other_numbers(graph: LayerGraph, seed: int) -> LayerGraph:
    """A graph with all learned numbers of its tensors replaced, equal ones by equal ones."""
    turn, start = np.random.default_rng(seed).uniform((2, 0), (4, 2 * np.pi))
    weights = [graph.weights[name] for name in dict.fromkeys(one.tensor for one in find_parameters(graph))]
    return graph.with_weights(
        replace(weight, read=partial(other_numbers, weight, turn, start)) for weight in weights if weight.size > 1
    )


def other_numbers(weight: Weight, turn: float, start: float) -> Array:
    """Each number of a tensor times a factor between 1/2 and 3/2 that depends on it, smoothly and without order."""
    values = np.asarray(weight.read(), np.float64)
    size = float(np.sqrt(np.mean(values**2))) or 1.0
    return np.asarray(values * (1 + np.sin(turn * values / size + start) / 2), weight.dtype)
