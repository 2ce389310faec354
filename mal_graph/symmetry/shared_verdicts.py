"""Verdicts on one network that hold for another, as its verification would run the very same numbers.

A verification draws what was learned at random. So of two networks of the same operators, of which everything else is
equal - what is not drawn, what the probe showed, where the units lie - it gives the same, number by number, and runs
once. Shared is only what passed: what did not is tried on the other network by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Weight
from mal_graph.network import Probe, find_applied, find_unlearned, graph_in_float32
from mal_graph.operators import GroupState
from mal_graph.symmetry.groups import AxisGroup, AxisGroups
from mal_graph.symmetry.networks import Network

PLAIN = (bool, int, float, str, bytes)  # types of attributes that are compared


def verdicts_from(known: Network, other: LayerGraph, groups: AxisGroups) -> AxisGroups | None:
    """The groups of another network, with the verdicts on those of one that was verified with the same options; None
    where its own verification might run other numbers, or not all of the known ones passed."""
    if not (are_operators_alike(known.graph, other) and are_probes_alike(known.probe, groups.probed)):
        return None
    if known.groups.unknown or groups.unknown or known.parameters != groups.parameters:
        return None
    if len(known.groups.groups) != len(groups.groups):
        return None
    if not all(map(has_verdict_on, known.groups.groups, groups.groups)):
        return None
    if not are_settings_alike(known.graph, other):
        return None
    return replace(groups, groups=known.groups.groups)


def are_operators_alike(a: LayerGraph, b: LayerGraph) -> bool:
    """Whether two graphs are the same but for the values of weights; never where an operator has a body, or may be a
    function of its file, which has a domain."""
    if (a.inputs, a.outputs, a.nodes, a.weights, a.opsets) != (b.inputs, b.outputs, b.nodes, b.weights, b.opsets):
        return False
    has_more = any(node.runs or node.captures or node.has_graphs for node in a.nodes)
    return not has_more and a.opsets.keys() == {""} and all(map(are_attributes_alike, a.nodes, b.nodes))


def are_attributes_alike(a: Node, b: Node) -> bool:
    """Whether two operators have the same attributes, of types that can be compared."""
    if a.attributes.keys() != b.attributes.keys():
        return False
    return all(is_same(value, b.attributes[key]) for key, value in a.attributes.items())


def is_same(a: Any, b: Any) -> bool:
    """Whether two attributes hold the same."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return are_equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    return isinstance(a, PLAIN) and type(a) is type(b) and a == b


def are_equal(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same, bit for bit where they are numbers."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool((a == b).all()) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()


def are_probes_alike(a: Probe, b: Probe) -> bool:
    """Whether two probes ran on the same and showed the same."""
    if (a.shapes, a.lists, a.taken, a.not_run) != (b.shapes, b.lists, b.taken, b.not_run):
        return False
    return all(are_all_equal(*pair) for pair in ((a.inputs, b.inputs), (a.values, b.values)))


def are_all_equal(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Whether two sets of arrays hold the same."""
    return a.keys() == b.keys() and all(are_equal(array, b[name]) for name, array in a.items())


def has_verdict_on(known: AxisGroup, group: AxisGroup) -> bool:
    """Whether a group is another one that was not to be verified or passed."""
    if group.is_usable and known.state is not GroupState.VERIFIED:
        return False
    untried = replace(known, deviation=group.deviation, control=group.control, inert=group.inert)
    before = replace(untried, state=group.state, reason=group.reason) if group.is_usable else untried
    places = zip(known.members, group.members, strict=True)
    return before == group and all(are_equal(one.positions, other.positions) for one, other in places)


def are_settings_alike(a: LayerGraph, b: LayerGraph) -> bool:
    """Whether the weights of two graphs are equal wherever a verification does not draw them."""
    a, b = graph_in_float32(a), graph_in_float32(b)
    if find_applied(a) != find_applied(b) or find_unlearned(a) != find_unlearned(b):
        return False
    return all(are_equal(weight.read(), b.weights[weight.name].read()) for weight in kept_weights(a))


def kept_weights(graph: LayerGraph) -> Iterator[Weight]:
    """The weights of a graph whose values a verification uses: of which nothing is learned, and single numbers."""
    drawn = {p.tensor for p in find_applied(graph)} - find_unlearned(graph).keys()
    for name, weight in graph.weights.items():
        if name not in drawn or weight.size == 1:
            yield weight
