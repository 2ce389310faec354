"""Walks: one way through a network on random weights, as it is and beside that with units permuted in several ways.

What each operator gives is compared with what it gives unpermuted, in the order that the labels say, and is forgotten
as soon as nothing behind reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import networkx as nx
import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, is_mergeable
from mal_graph.network import data_dependent
from mal_graph.operators import Row
from mal_graph.protocols import Runner
from mal_graph.symmetry.grouping import find_traces
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Traces
from mal_graph.symmetry.moves import Moves, apart, draw_moves, permute_weights
from mal_graph.symmetry.random_copy import Gauged, GaugedGraph
from mal_graph.symmetry.random_weights import RandomWeights
from mal_graph.symmetry.segments import SEGMENT_BYTES, Operators, Segment, carried_on, cut, with_support
from mal_graph.symmetry.shadows import (
    Control,
    Key,
    Shadow,
    batches,
    cast_shadow,
    choose_members,
    find_controls,
    leave_out,
)
from mal_graph.symmetry.tensor_orders import (
    deviation_between,
    find_touched,
    find_turns,
    moved_units,
    rearranged,
    renumbered,
)
from mal_graph.symmetry.thresholds import ACCEPT, NOISE, REACTS
from mal_graph.symmetry.trial import MEAN_TAKEN_OFF

FEW_UNITS = 11  # groups of so many units may move alike by chance: there are only 10! cycles

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Course:
    """A network to be gone through, with what is known of its tensors.

    Attributes:
        graph: in float32.
        full: leave out every member, not one of each role.
        deadline: the time, as `monotonic` tells it, after which nothing is run any more.
    """

    graph: LayerGraph
    groups: AxisGroups
    runner: Runner
    table: Mapping[str, Row] | None
    full: bool
    seed: int
    deadline: float | None

    @cached_property
    def traces(self) -> Traces:
        """Where the units lie."""
        return find_traces(self.graph, self.groups, self.table)

    @property
    def is_traced(self) -> bool:
        """Whether the traces have the candidate groups."""
        parts = self.traces.parts
        usable = [self.groups.groups[index] for index in self.groups.usable()]
        return all(group.name in parts and len(parts[group.name]) == group.units for group in usable)

    @cached_property
    def live(self) -> frozenset[str]:
        """The tensors that depend on the inputs, and the outputs."""
        return data_dependent(self.graph) | self.graph.output_names

    @cached_property
    def touched(self) -> Sequence[frozenset[int]]:
        """By node the candidate groups whose units it deals with."""
        return find_touched(self.graph, self.groups, self.traces, self.groups.usable())

    def cut(self, limit: int) -> list[Segment]:
        """The network in segments of so many bytes."""
        return cut(self.graph, self.live, self.groups.probed.shapes, limit)

    @cached_property
    def gauged(self) -> GaugedGraph:
        """The network with gauges."""
        return GaugedGraph(self.graph, self.groups, MEAN_TAKEN_OFF)

    @cached_property
    def plain(self) -> LayerGraph:
        """The network that is run."""
        return self.gauged.graph_of(self.gauged.plain, self.gauged.factors)

    @cached_property
    def measuring(self) -> LayerGraph:
        """The network with gauges between its operators."""
        return self.gauged.graph_of(self.gauged.nodes, {**self.gauged.factors, **self.gauged.constants})

    @cached_property
    def inputs(self) -> Arrays:
        """The inputs of the probe run."""
        drawn = self.groups.probed.inputs
        return {value.name: drawn[value.name].astype(value.dtype or "float32") for value in self.graph.inputs}

    @cached_property
    def lying(self) -> Mapping[str, Sequence[tuple[int, AxisGroup]]]:
        """By tensor the candidate groups on it, by index, each with its members there alone."""
        lying: dict[str, list[tuple[int, AxisGroup]]] = {}
        for index in self.groups.usable():
            group = self.groups.groups[index]
            for tensor in dict.fromkeys(member.tensor for member in group.members):
                here = tuple(member for member in group.members if member.tensor == tensor)
                lying.setdefault(tensor, []).append((index, replace(group, members=here)))
        return lying

    @cached_property
    def colours(self) -> Mapping[int, int]:
        """A number for each group of few units; those that meet in an operator have different ones."""
        few = {index for index in self.groups.usable() if self.groups.groups[index].units <= FEW_UNITS}
        meeting: nx.Graph[int] = nx.Graph()
        meeting.add_nodes_from(sorted(few))
        for together in set(self.touched):
            meeting.add_edges_from(combinations(sorted(together & few), 2))
        return dict(nx.greedy_color(meeting))

    def results(self, node: Node) -> list[str]:
        """What an operator gives to anybody, if that depends on the inputs."""
        used = self.graph.consumers.keys() | self.graph.output_names
        return [name for name in node.outputs if name in self.live and name in used]

    def draw_variations(self, indices: Sequence[int]) -> list[Moves]:
        """The ways in which groups are permuted: by cycles, by exchanges, and by exchanges without each other."""
        cycles, exchanges = draw_moves(self.groups, indices, self.seed)
        colours = {index: self.colours[index] for index in indices if index in self.colours}
        sets = [set(some) for some in apart(sorted(set(colours.values())))]
        alone = [{index: exchanges[index] for index, colour in colours.items() if colour in some} for some in sets]
        return [cycles, exchanges, *alone]

    def permuted(self, weights: Arrays, moves: Moves) -> dict[str, Array]:
        """Those of some weights that moves change."""
        here = [(group, moves[i]) for name in weights for i, group in self.lying.get(name, ()) if i in moves]
        return permute_weights(weights, here)


@dataclass(frozen=True)
class Fault:
    """Where groups that are permuted move what they should not.

    Attributes:
        groups: by index those whose units an operator deals with that gives something else than it should.
        tensor: what it gives.
        deviation: how far that is off, relative to its size.
    """

    groups: frozenset[int]
    tensor: str
    deviation: float


class Walk:
    """One way through the network with some groups permuted in all variations.

    Attributes:
        faults: where something goes wrong though all is right that is read there.
        deviations: by node how far what it gives is off, at most.
        blind: the nodes that give something whose order no label tells, or that is the same in any order.
        shown: how much each member shows that is left out.
        has_output: whether any output of the model is not zero.
        is_finite: whether all are finite.
    """

    def __init__(self, course: Course, indices: Sequence[int], *, is_slow: bool = False) -> None:
        """Go through the network. Raises RunError.

        Args:
            is_slow: one operator at a time. What is off is put right before the next segment reads it, so that a slow
                walk finds every fault, and a fast one the first.
        """
        self.course = course
        self.weights = RandomWeights(course.plain, course.gauged.factors, course.seed, course.deadline)
        self.variations = course.draw_variations(indices)
        self.moved = [moved_units(course.groups, course.traces, moves) for moves in self.variations]
        self.chosen = choose_members(course.groups.groups, indices, course.full)
        self.controls: dict[int, list[Control]] = {}  # by the operator where they are seen
        for control in find_controls(course.graph, course.live, course.groups.groups, self.chosen):
            self.controls.setdefault(control.reader, []).append(control)
        self.faults: list[Fault] = []
        self.deviations: dict[int, float] = {}
        self.blind: set[int] = set()
        self.shown: dict[Key, float] = {}
        self.has_output, self.is_finite = False, True
        given: list[Arrays] = [course.inputs] * (1 + len(self.variations))
        for segment in course.cut(0 if is_slow else SEGMENT_BYTES):
            given = self.step(segment, given)

    def step(self, segment: Segment, given: Sequence[Arrays]) -> list[Arrays]:
        """Run one segment in all variations; gives what the next ones read, first what is not permuted."""
        course, part = self.course, self.course.gauged.part(segment.nodes)
        weights = self.calibrated(part, given[0])
        made = [name for i in segment.own for name in course.graph.nodes[i].outputs if name in course.live]
        names = dict.fromkeys([*made, *sorted(segment.leaving)])
        read = [name for name in names if name not in course.groups.probed.lists]
        operators = Operators(course.plain, part.plain, course.runner, given[0], weights, read, course.deadline)
        expected = operators.run(given[0], weights)
        self.look_at_outputs(expected)
        carried: list[Arrays] = [carried_on(segment, given[0], expected)]
        for number, (moves, own) in enumerate(zip(self.variations, given[1:], strict=True)):
            changed = course.permuted(weights, moves)
            is_same = not changed and all(own[name] is given[0][name] for name in operators.entering)
            values = expected if is_same else operators.run(own, {**weights, **changed})
            right = self.compare(segment, number, values, expected)
            if number == 0:
                self.leave_out(segment, weights, changed, {**own, **values})
            carried.append(carried_on(segment, own, {**values, **right}))
            del changed, values, right  # before there are others
        return carried

    def calibrated(self, part: Gauged, given: Arrays) -> dict[str, Array]:
        """The weights of some operators."""
        course = self.course
        drawn = self.weights.values(sorted({name for node in part.plain for name in node.reads}))
        if not part.readings:
            return drawn
        gauges = Operators(course.measuring, part.nodes, course.runner, given, drawn, part.readings, course.deadline)
        return self.weights.calibrate(drawn, part, gauges.run(given, drawn))

    def look_at_outputs(self, made: Arrays) -> None:
        """Note whether anything can be learnt from the outputs of the model."""
        for name in self.course.graph.output_names & made.keys():
            is_number = is_mergeable(made[name].dtype)
            self.is_finite &= not is_number or bool(np.isfinite(made[name]).all())
            self.has_output |= not is_number or bool(made[name].any())

    def compare(self, segment: Segment, number: int, values: Arrays, expected: Arrays) -> dict[str, Array]:
        """Compare what operators gave in one variation with what they should have given.

        Returns:
            what those tensors that are off should be.
        """
        right: dict[str, Array] = {}
        for index in segment.own:
            node = self.course.graph.nodes[index]
            told = {name: self.as_told(name, number, expected) for name in self.course.results(node)}
            known = {name: array for name, array in told.items() if array is not None}
            moved = max((deviation_between(values[name], array) for name, array in known.items()), default=0.0)
            self.deviations[index] = max(self.deviations.get(index, 0.0), moved)
            if len(known) < len(told) or (number == 0 and hides_order(known, expected, moved)):
                self.blind.add(index)
            if moved > ACCEPT:
                if right.keys().isdisjoint(node.reads):
                    here = self.course.touched[index] & self.variations[number].keys()
                    self.faults.append(Fault(here, node.outputs[0], moved))
                right.update(known)
        return right

    def as_told(self, name: str, number: int, expected: Arrays) -> Array | None:
        """What a tensor should be in a variation; None where its order is not told."""
        label = self.course.traces.labels.get(name)
        if name not in expected or label is None or label.shape != expected[name].shape:
            return None
        traces, moved = self.course.traces, self.moved[number]
        turns = find_turns(label, traces.unit, moved)
        if turns is None:
            return None
        told = rearranged(expected[name], turns)
        return renumbered(told, traces.places[name], traces.unit, moved) if name in traces.places else told

    def leave_out(self, segment: Segment, weights: Arrays, changed: Arrays, given: Arrays) -> None:
        """See what the members show that are left out of the first variation, where operators of a segment read them.

        Args:
            weights, changed: what the operators are given, and what of that is other in this variation.
            given: what they read and give in it.
        """
        here = [control for index in segment.own for control in self.controls.get(index, ())]
        fed = {**weights, **changed}
        for batch in batches(here, self.course.graph, SEGMENT_BYTES // 2):
            shadows = [self.shadow_of(control, number, given) for number, control in enumerate(batch)]
            others = {
                shadow.weight.name: self.left_out(control, weights, changed)
                for control, shadow in zip(batch, shadows, strict=True)
            }
            made = self.run_shadows(shadows, {**fed, **others}, given)
            for control, shadow in zip(batch, shadows, strict=True):
                pairs = [(made[other], given[name]) for name, other in shadow.outputs.items() if other in made]
                moved = max((deviation_between(*pair) for pair in pairs), default=0.0)
                self.shown[control.key] = max(self.shown.get(control.key, 0.0), moved)

    def shadow_of(self, control: Control, number: int, given: Arrays) -> Shadow:
        """The shadow of what reads a member."""
        course = self.course
        nodes = with_support(course.graph, course.live, [control.reader])
        told = [name for name in course.results(course.graph.nodes[control.reader]) if name in given]
        stored = course.plain.weights[control.member.tensor]
        return cast_shadow(course.gauged.part(nodes).plain, stored, told, f"shadow {number}")

    def left_out(self, control: Control, weights: Arrays, changed: Arrays) -> Array:
        """The tensor of a member without it."""
        tensor, moves = control.member.tensor, self.variations[0]
        here = [(group, moves[i]) for i, group in self.course.lying[tensor] if i in moves]
        return leave_out(weights[tensor], changed[tensor], here, control)

    def run_shadows(self, shadows: Sequence[Shadow], fed: Arrays, given: Arrays) -> dict[str, Array]:
        """What shadows give, all in one run."""
        course = self.course
        weights = {shadow.weight.name: shadow.weight for shadow in shadows}
        graph = replace(course.plain, weights={**course.plain.weights, **weights})
        nodes = [node for shadow in shadows for node in shadow.nodes]
        read = [name for shadow in shadows for name in shadow.outputs.values()]
        return Operators(graph, nodes, course.runner, given, fed, read, course.deadline).run(given, fed)


def hides_order(told: Arrays, expected: Arrays, moved: float) -> bool:
    """Whether any tensor would hardly be off if it were not rearranged: it is zero, say.

    Args:
        told: tensors as they should be where units have moved, as they are otherwise in `expected`.
        moved: how far they are off, at most.
    """
    turned = [(expected[name], array) for name, array in told.items() if array is not expected[name]]
    return any(deviation_between(*pair) <= REACTS * max(moved, NOISE) for pair in turned)
