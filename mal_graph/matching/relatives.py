"""Models that come from one: of fine-tunes every unit has its counterpart in its own place.

To look for better ones everywhere moves units that hardly do anything, and makes differences between models where
nothing was learned. Chosen: a unit is put elsewhere only where its own place holds a stranger and another one its kin,
as in a fine-tune some of whose layers were reordered on the way.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from mal_graph.graph import Array
from mal_graph.matching.assignment import IN_ORDER, Alignment, assign_units, describe
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.objective import Evidence, Objective
from mal_graph.matching.orders import Order, Orders
from mal_graph.matching.starts import assign_nearest, compare_units, is_copy

RELATED = 0.7  # cosine of all weights in stored order; of networks that were trained apart it is below 0.1


def assign_relatives(correspondence: Correspondence, evidence: Evidence | None = None) -> Alignment:
    """Units where they are stored, if the weights of the two models go together there, as those of fine-tunes do, but
    for those that are found elsewhere (see `strays`); else as `assign_units` does it."""
    objective, identity = Objective(correspondence, evidence), correspondence.nests.identity()
    compared = [pair for pair, _ in correspondence.tensors if pair.is_compared]
    is_alike = all(pair.base.shape == pair.donor.shape for pair in compared) and objective.is_allowed(identity)
    if not is_alike or cosine_of((pair.base_values(), pair.donor_values()) for pair in compared) < RELATED:
        return assign_units(correspondence, evidence)
    nearest = assign_nearest(objective, identity)
    orders = nearest if is_copy(objective, nearest) else with_strays(objective, identity, nearest)
    in_place = all(np.array_equal(order, place) for order, place in zip(orders, identity, strict=True))
    return describe(objective, orders, IN_ORDER if in_place else "nearest", (objective.value(orders),))


def with_strays(objective: Objective, identity: Orders, nearest: Orders) -> Orders:
    """The units in their own places, but for strays; of units with others inside, all or none are."""
    orders = list(identity)
    for bundle in objective.nests.bundles.values():
        found: Mapping[int, Order] = {pair: strays(objective, pair, nearest) for pair in bundle}
        is_whole = all(np.array_equal(order, nearest[pair]) for pair, order in found.items())
        if is_whole or len(bundle) == 1:
            for pair, order in found.items():
                orders[pair] = order
    return tuple(orders)


def strays(objective: Objective, pair: int, nearest: Orders) -> Order:
    """The order of one pair in which only units move that have a stranger in their own place, each with those that it
    changes places with, if one of these has its kin in the other one: units that are like none come along."""
    order = nearest[pair]
    place = np.arange(len(order))
    table, a, d = compare_units(objective, pair, nearest)
    if table.shape[0] != table.shape[1] or not np.array_equal(np.sort(order), place):
        return place
    kinship = 2.0 * table / np.maximum(a[:, None] + d, np.finfo(np.float64).tiny)
    is_stranger, is_kin = kinship[place, place] < RELATED, kinship[place, order] >= RELATED
    kept = place.copy()
    for cycle in cycles_of(order):
        if is_stranger[cycle].all() and is_kin[cycle].any():
            kept[cycle] = order[cycle]
    return kept


def cycles_of(order: Order) -> Iterator[list[int]]:
    """The units of a permutation that change places with each other; those that stay are in none."""
    seen = order == np.arange(len(order))
    for first in np.flatnonzero(~seen).tolist():
        cycle, unit = [], first
        while not seen[unit]:
            seen[unit] = True
            cycle.append(unit)
            unit = int(order[unit])
        if cycle:
            yield cycle


def cosine_of(pairs: Iterable[tuple[Array, Array]]) -> float:
    """The cosine of what two models hold, tensor by tensor; 0 where one holds nothing."""
    inner, norms = 0.0, [0.0, 0.0]
    for both in pairs:
        a, b = (np.asarray(values, np.float64).ravel() for values in both)
        inner += float(a @ b)
        norms = [norms[0] + float(a @ a), norms[1] + float(b @ b)]
    return inner / float(np.sqrt(norms[0] * norms[1])) if all(norms) else 0.0
