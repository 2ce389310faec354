"""The code that moves tensors, tried on a donor that is known: itself, shuffled, put back by the known orders.

The units of all groups that are assigned are shuffled in the stored weights. The merge at lambda 1 of the donor with
this copy, with the inverse orders and no solver, must be the donor again: tensors that are moved by another order than
their neighbours show here, whatever the assignment found.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Weight
from mal_graph.matching import Alignment, Correspondence, Order, correspond, match_itself
from mal_graph.merging import LayerLambdas, Sessions, merge, plan_merge
from mal_graph.network import graph_in_float32
from mal_graph.protocols import Check
from mal_graph.symmetry import AxisGroup, Network, deviation, moves_of_each, permute_weights

PLANTED = "planted"
PUT_BACK = 1e-4  # of the largest output: what a donor that was put back may be off


def planted_check(donor: Network, sessions: Sessions, seed: int) -> Check:
    """Shuffle the units of a donor, put them back by the known orders, and compare."""
    itself = correspond(donor, donor, match_itself(donor.layers))
    if not itself.pairs:
        return Check(PLANTED, None, "no group of the donor is assigned")
    moved = [theirs.group for _, theirs in itself.assigned]
    orders = itself.nests.drawn(np.random.default_rng(seed))
    planted = Network(shuffled_graph(donor, list(zip(moved, orders, strict=True))), donor.groups)
    found = correspond(donor, planted, itself.match)
    if found.pairs != itself.pairs or any(pair.base != pair.donor for pair in found.pairs):
        return Check(PLANTED, None, "groups of the donor correspond to others of its own")
    planned = plan_merge(known_alignment(found, list(map(np.argsort, orders))), LayerLambdas.of(1.0))
    shuffled = {member.tensor for group in moved for member in group.members}
    back = sum(step.tensor in shuffled for step in planned.steps)
    if not back:
        return Check(PLANTED, None, "no tensor of the donor that was shuffled can be merged")
    inputs = {v.name: donor.probe.inputs[v.name].astype(as_float32(v.dtype)) for v in donor.graph.inputs}
    graphs = graph_in_float32(merge(planned)), graph_in_float32(donor.graph)
    try:
        off = deviation(*(sessions.open(graph).outputs(inputs) for graph in graphs))
    except RunError as error:
        return Check(PLANTED, None, str(error))
    told = f"{back} of {len(shuffled)} shuffled tensors were put back, {off:.1e} from the donor"
    return Check(PLANTED, off <= PUT_BACK, told)


def shuffled_graph(donor: Network, moves: list[tuple[AxisGroup, Order]]) -> LayerGraph:
    """The graph with unit `order[u]` of each group in the place of unit u; values are read, and moved, where they are
    asked for."""
    weights = donor.graph.weights
    return donor.graph.with_weights(
        replace(weights[name], read=partial(moved_values, weights[name], own))
        for name, own in moves_of_each(moves).items()
    )


def moved_values(weight: Weight, moves: list[tuple[AxisGroup, Order]]) -> Array:
    """The values of a weight with the units of groups in other places."""
    return permute_weights({weight.name: weight.read()}, moves)[weight.name]


def as_float32(dtype: str) -> str:
    """The type that a float input is run in."""
    return "float32" if dtype in ("float16", "bfloat16", "float64", "") else dtype


def known_alignment(correspondence: Correspondence, orders: list[Order]) -> Alignment:
    """Orders that nobody had to look for."""
    nothing = (0.0,) * len(orders)
    return Alignment(correspondence, tuple(orders), 0.0, nothing, nothing, "given", (0.0,))
