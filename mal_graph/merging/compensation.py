"""Compensation: statistics over units that stay what they were while zeros stand for units that are not there.

Where the result has more units than a model, that model is laid out in it with zeros. A mean or a norm over the units
would count them; what to multiply, where, and by how much, is said by the operator table. The base is compensated where
it is widened, the donor where it is narrower than the result, each before the two are interpolated: at lambda 0 the
result computes what the base does, at lambda 1 what the donor does.

A LayerNormalization takes the mean off first. Zeros leave it alone only if it is zero, so it is taken off everything
that produces the units: weights and biases over their output units, tables over their columns. That changes nothing as
long as nothing but such norms reads the sum of these, however often it passes an addition; else the reason is listed.

Chosen: the weights are centred. Refused: a mean over the units that are there, subtracted in front of the norm by
operators of its own; it allows any consumer, but every donor would leave such operators behind.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mal_graph.errors import ShapeError
from mal_graph.graph import Array, LayerGraph, Node, unused_name, weight_of
from mal_graph.matching import Read
from mal_graph.merging.planning import Ends, Plan, Step
from mal_graph.network import Parameter, data_inputs, find_applied, find_layers, find_parameters, find_root
from mal_graph.operators import Row, groups_of, norm_epsilon, row_of, slot_named
from mal_graph.symmetry import AxisGroup, Factors

Place = tuple[int, Array]  # an axis, and the positions of units on it, shape (units, k)


def compensate(plan: Plan, mine: Factors, theirs: Factors) -> Plan:
    """A plan whose base and donor are as they were before they were laid out with zeros.

    Args:
        mine, theirs: what must be multiplied for the base and for the donor, by node of the base and place.

    Raises:
        ShapeError: what must be multiplied has other consumers, or is computed.
    """
    ends = {key: (mine.get(key, 1.0), theirs.get(key, 1.0)) for key in (*mine, *theirs)}
    made = Compensation(plan.base)
    epsilons = {name: norm_epsilon(plan.donor.graph.nodes[index]) for name, index in norm_pairs(plan).items()}
    for (name, place), both in ends.items():
        made.add(name, place, both, epsilons.get(name))
    base, scaled = made.base, made.scaled
    layers = [[layer.name for layer in find_layers(graph)] for graph in (base, plan.base)]
    if made.constants and layers[0] != layers[1]:
        raise ShapeError("a factor behind an average would make a layer of its own")
    for p in find_applied(base):
        if p.tensor in scaled and ends.get((base.nodes[p.node].name, p.role)) != scaled[p.tensor]:
            raise ShapeError(f"{p.tensor} is read by {base.nodes[p.node].title} too")
    weights = [base.weights[name] for name, (a, _) in scaled.items() if a != 1.0]
    base = base.with_weights([replace(w, read=partial(times, w.read, scaled[w.name][0])) for w in weights])
    steps = tuple(with_factor_on_donor(step, scaled.get(step.tensor, (1.0, 1.0))[1]) for step in plan.steps)
    growth = replace(plan.growth, factors=made.constants, settings=made.settings)
    return replace(plan, base=base, steps=steps, growth=growth)


@dataclass
class Compensation:
    """A base while it is compensated.

    Attributes:
        base: the graph so far.
        constants: by name of a new constant what it is for the base and for the donor.
        settings: by (name of a node, attribute) what it holds for the base and for the donor.
        scaled: by name of a stored tensor what it is multiplied by for the base and for the donor.
    """

    base: LayerGraph
    constants: dict[str, Ends] = field(default_factory=dict)
    settings: dict[tuple[str, str], Ends] = field(default_factory=dict)
    scaled: dict[str, Ends] = field(default_factory=dict)

    def add(self, name: str, place: str, ends: Ends, donor_epsilon: float | None) -> None:
        """Multiply what a node of that name has at a place: its output, an input, or the epsilon of a norm."""
        index = next(i for i, node in enumerate(self.base.nodes) if node.name == name)
        node, slot = self.base.nodes[index], slot_named(self.base.nodes[index], place)
        if place == "output":
            self.base, constant = with_factor(self.base, index, ends[0])
            self.constants[constant] = ends
        elif slot is not None:
            root = find_root(self.base, node.inputs[slot])
            if root is None:
                raise ShapeError(f"the {place} of {node.title} is computed")
            self.scaled[root[0].name] = ends
        else:
            epsilon = norm_epsilon(node)
            mine = epsilon * ends[0]
            self.settings[name, place] = (mine, mine if donor_epsilon is None else donor_epsilon * ends[1])
            self.base = self.base.with_node(index, replace(node, attributes={**node.attributes, place: mine}))


def with_factor_on_donor(step: Step, factor: float) -> Step:
    """The step with what the donor gives multiplied."""
    return step if factor == 1.0 else with_incoming(step, partial(times, step.pair.merged_values, factor))


def norm_pairs(plan: Plan) -> dict[str, int]:
    """The donor's operator, by index, for each of the base's, by name, that multiplies by a merged scale."""
    pairs = [step.pair for step in plan.steps if step.pair.base.role == "scale"]
    return {plan.base.nodes[pair.base.node].name: pair.donor.node for pair in pairs}


def with_factor(graph: LayerGraph, index: int, factor: float) -> tuple[LayerGraph, str]:
    """The graph with the first output of a node multiplied, and the name of the constant."""
    dtype = next((weight.dtype for weight in graph.weights.values() if weight.is_float), np.dtype(np.float32))
    out = graph.nodes[index].outputs[0]
    constant = weight_of(unused_name(graph, f"{out}.widened.factor"), np.array(factor, dtype))
    new = unused_name(graph, f"{out}.widened")
    return graph.with_nodes_behind(index, [Node(new, "Mul", (out, constant.name), (new,))], [constant]), constant.name


def times(read: Read, factor: float) -> Array:
    values = read()
    product: Array = values * values.dtype.type(factor)
    return product


def with_incoming(step: Step, incoming: Read) -> Step:
    return replace(step, pair=replace(step.pair, incoming=incoming))


# --- the mean over the units ------------------------------------------------------------------------------------


def centred_norms(graph: LayerGraph, factors: Factors) -> list[Node]:
    """The operators with a factor that take the mean over the units off, or make the mean that is."""
    named = {name for name, _ in factors}
    return [node for node in graph.nodes if node.name in named and (is_centred(node) or deviations(graph, node))]


def is_centred(node: Node) -> bool:
    """Whether an operator takes the mean over the units to be zero once it has more of them."""
    row = row_of(node)
    exact = None if row is None else row.compensation
    return exact is not None and exact.powers is not None and exact.is_centred


def deviations(graph: LayerGraph, node: Node) -> set[int]:
    """The operators that subtract what a node makes of a tensor from that tensor."""
    subtracting = set()
    for index, slot in graph.consumers.get(node.outputs[0], ()):
        row = row_of(graph.nodes[index])
        is_difference = row is not None and row.is_sum and not row.commutes and slot == 1
        if is_difference and graph.nodes[index].inputs[0] == node.inputs[0]:
            subtracting.add(index)
    return subtracting


def centre_base(graph: LayerGraph, groups: Iterable[AxisGroup], factors: Factors) -> LayerGraph:
    """The same function, with no mean over the units of `groups` where a norm with a factor takes it off anyway.

    Raises:
        ShapeError: something else consumes them, or produces them.
    """
    members = centring(graph, groups, factors)
    return graph.with_weights(
        [
            replace(graph.weights[name], read=partial(without_mean, graph.weights[name].read, axes))
            for name, axes in members.items()
        ]
    )


def centre_donor(plan: Plan, factors: Factors) -> Plan:
    """The plan with what the donor gives centred like that. Raises ShapeError."""
    counted = [group for group in plan.donor.groups.groups if group.is_usable and group.statistic]
    members = centring(plan.donor.graph, counted, factors)
    return replace(plan, steps=tuple(without_donor_mean(step, members) for step in plan.steps))


def without_donor_mean(step: Step, members: Mapping[str, Sequence[Place]]) -> Step:
    theirs = step.pair.donor
    places = [
        (theirs.axes.index(axis), positions)
        for axis, positions in members.get(theirs.tensor, ())
        if axis in theirs.axes
    ]
    return with_incoming(step, partial(without_mean, step.pair.merged_values, places)) if places else step


def centring(graph: LayerGraph, groups: Iterable[AxisGroup], factors: Factors) -> dict[str, list[Place]]:
    """Where the mean over the units of `groups` is to be taken off, by name of the tensor. Raises ShapeError."""
    norms = centred_norms(graph, factors)
    tensors = summed_tensors(graph, norms)
    places: dict[str, list[Place]] = {}
    for member in (member for group in groups for member in group.members):
        if member.tensor in tensors and not member.consumes:
            places.setdefault(member.tensor, []).append((member.axis, member.positions))
    for p in find_parameters(graph):
        # What is added alike to all units has no part in it: the norms take that off with the mean.
        if p.tensor in tensors and p.tensor not in places and p.role in ("weight", "table"):
            node = graph.nodes[p.node].title
            raise ShapeError(
                f"the mean that {norms[0].title} takes off its units cannot be taken off {node}, which treats all of "
                "them alike"
            )
    return places


def without_mean(read: Read, places: Sequence[Place]) -> Array:
    """A tensor with the mean over units taken off, wherever they lie on it."""
    values = read().copy()
    for axis, positions in places:
        moved = np.moveaxis(values, axis, 0)
        moved[positions] -= moved[positions].mean(axis=0, dtype=np.float64).astype(values.dtype)
    return values


def is_mixing(node: Node, row: Row) -> bool:
    """Whether every unit that an operator makes is a weighted sum of the same things, as in a contraction that is not
    grouped: only then is their mean that of the weights."""
    return row.is_linear and groups_of(node) == 1


def summed_tensors(graph: LayerGraph, norms: Sequence[Node]) -> set[str]:
    """The stored tensors that the norms take a sum of. Raises ShapeError where anything else has a part in it."""
    applied = find_parameters(graph)
    producers: list[Parameter] = []
    waiting, seen = [node.inputs[0] for node in norms], set(graph.weights)
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        waiting += sums_made_of(graph, tensor, norms)
        if tensor in graph.output_names or tensor not in graph.producer:
            raise ShapeError(f"the mean that {norms[0].title} takes off its units is that of {tensor!r} too")
        index = graph.producer[tensor]
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        own = [p for p in applied if p.node == index]
        if row is not None and row.is_sum:
            waiting += data_inputs(node, row)
        elif row is None or not own or not (is_mixing(node, row) or row.kind == "table"):
            raise ShapeError(f"the mean that {norms[0].title} takes off its units cannot be taken off {node.title}")
        producers += own
    names = {p.tensor for p in producers}
    for p in applied:
        if p.tensor in names and p not in producers:
            raise ShapeError(f"{p.tensor} is read by {graph.nodes[p.node].title} too")
    return names


def sums_made_of(graph: LayerGraph, tensor: str, norms: Sequence[Node]) -> list[str]:
    """The sums that a tensor is part of. Raises ShapeError where anything but these and the norms consumes it."""
    named, taken_off = {node.name for node in norms}, {i for node in norms for i in deviations(graph, node)}
    sums: list[str] = []
    for index, slot in graph.consumers.get(tensor, ()):
        consumer, row = graph.nodes[index], row_of(graph.nodes[index])
        if index in taken_off or (slot == 0 and (is_centred(consumer) or consumer.name in named)):
            continue
        if row is not None and row.is_sum:
            sums += [name for name in consumer.outputs if name]
        elif row is None or not row.reads_shape_only:
            raise ShapeError(f"{consumer.title} reads the units with the mean that {norms[0].title} takes off")
    return sums
