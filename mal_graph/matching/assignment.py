"""Alignment: which donor unit stands on which base unit.

Every pair of groups gets one rectangular assignment. The objective is the sum, over the tensors of matched layers, of
<A, P_out B P_in^T>, each axis with the assignment of its own pair; it is raised pair by pair, each a linear assignment
problem with the others fixed (Ainsworth et al. 2023, arXiv:2209.04836, section 3.2, made rectangular). That covers
Model Assembly Learning's size-compatible case (one assignment) and its size-incompatible case (two, alternating):
padding the smaller side with zeros changes neither the optimum nor the order, so nothing is padded here.

The first sweep goes forward from the inputs and leaves out what depends on orders not yet known (see `starts`); after
it a pair is solved again only when a pair it shares a tensor with has changed. The objective and its products stand in
`objective`.
"""

from dataclasses import dataclass, replace

import numpy as np

from mal_graph.brief import Brief
from mal_graph.errors import ShapeError
from mal_graph.matching.ascents import ascend
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.inner_orders import find_other_inner_orders
from mal_graph.matching.objective import Evidence, Objective
from mal_graph.matching.orders import Order, Orders, is_assignment
from mal_graph.matching.soft_starts import assign_softly, begin_forward, has_nests, is_faint
from mal_graph.matching.starts import (
    assign_by_distance,
    assign_forward,
    assign_nearest,
    count_spare_starts,
    is_copy,
)
from mal_graph.symmetry import AxisGroup

Moves = list[tuple[AxisGroup, Order]]  # groups, each with the unit that takes the place of each of its units

FRUITLESS = 8  # seeds in a row that lead nowhere new: of two equal scores one is chosen by all with 0.4 %
IN_ORDER = "in order"  # the start of an alignment that leaves units where they are stored
HALF = 0.5  # of the best value: what the identity must be worth to be raised too


@dataclass(frozen=True, repr=False)
class Alignment(Brief):
    """The units of two models, assigned.

    Attributes:
        correspondence: what of the two networks corresponds to each other.
        orders: per pair of groups an array of shape (base units,): the donor unit on each base unit, -1 for none.
        objective: the sum over all tensors, and over the evidence, if there is any.
        values: what each pair of groups contributes, given the others.
        random_values: the mean of the same over all random assignments.
        start: the start that led to the best objective: "forward", "nearest", "identity" or "soft"; "in order",
            "random" and "given" are of orders that were not assigned at all.
        history: the objective before the first and after each pass over the pairs that still change.
        starts: every start that was raised, with its history.
    """

    correspondence: Correspondence
    orders: Orders
    objective: float
    values: tuple[float, ...]
    random_values: tuple[float, ...]
    start: str
    history: tuple[float, ...]
    starts: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def donor_moves(self) -> dict[int, list[Moves]]:
        """What puts the donor's units in the orders used, each completed to a permutation, with what is inside them: by
        group of the donor, once for every pair that it is in."""
        moves: dict[int, list[Moves]] = {}
        correspondence = self.correspondence
        whole = correspondence.nests.completed(self.orders)
        for root, bundle in correspondence.nests.bundles.items():
            own = [(correspondence.assigned[pair][1].group, whole[pair]) for pair in bundle]
            moves.setdefault(correspondence.pairs[root].donor, []).append(own)
        return moves


def assign_units(correspondence: Correspondence, evidence: Evidence | None = None) -> Alignment:
    """Assign the units of every pair of groups, by their weights and by what else is known.

    Layers of which the units inside others stand in another order than the donor's are refused, and the rest is
    assigned again without them: what they say of the units they share with others is noise.

    Returns:
        deterministic; the objective is never below the identity's, where kinds of units (see `unit_kinds`) allow that.
    """
    while True:
        assigned = assign_once(correspondence, evidence)
        others = find_other_inner_orders(correspondence, assigned.orders)
        if not others:
            return assigned
        correspondence = correspondence.without(others)


def assign_once(correspondence: Correspondence, evidence: Evidence | None) -> Alignment:
    """Assign the units of all layers that can be merged.

    Starts, each raised until no update of a single pair gains, the best result kept:

    * forward from the inputs, each pair by the tensors whose other axes are already assigned;
    * nearest units, by distance instead of inner product, which finds donors whose units are copies of the base's;
      not for models that turn out to be nothing like copies, unless they are tiny, nor where there is evidence;
    * the identity, where the problem is tiny or the identity is worth half of the best, and no kinds forbid it;
    * soft orders (see `soft_starts`), where the first pairs are assigned no better than by chance, and the problem is
      not tiny: forward with the first pairs softly assigned, or all where no few of them cost little.

    Tiny problems are started several times, with equal scores decided at random (seeded), as long as that leads
    somewhere new.
    """
    objective = Objective(correspondence, evidence)
    identity = correspondence.nests.identity()
    floor, spare = objective.value(identity), count_spare_starts(objective)
    name, first = ("forward", ()) if spare else begin_forward(objective)
    starts: dict[tuple[bytes, ...], tuple[str, Orders]] = {}
    known: set[tuple[bytes, ...]] = set()
    fruitless = 0
    for seed in range(1 + spare):
        before = len(known) + len(starts)
        # Mostly of the same products.
        close = None if evidence else assign_by_distance(objective, seed)
        forward = assign_forward(objective, seed, first)
        if close is not None and key_of(close) not in known:  # else it leads where it led before
            known.add(key_of(close))
            nearest = assign_nearest(objective, close)
            if is_copy(objective, nearest) and (worth := objective.value(nearest)) >= floor:
                # Nothing fits better than a unit's own copy, whatever the inner product says of longer rows.
                return describe(objective, nearest, "nearest", (worth,))
            starts.setdefault(key_of(nearest), ("nearest", nearest))
        starts.setdefault(key_of(forward), (name, forward))
        fruitless = 0 if len(known) + len(starts) > before else fruitless + 1
        if fruitless == FRUITLESS:
            break
    raised = [(name, *ascend(objective, orders)) for name, orders in starts.values()]
    is_near = spare or floor > HALF * max(history[-1] for _, _, history in raised)
    if is_near and objective.is_allowed(identity):
        raised.append(("identity", *ascend(objective, identity)))
    _, orders, history = max(raised, key=worth_of)
    if not (spare or first or has_nests(objective)) and is_faint(objective, orders):
        raised.append(("soft", *ascend(objective, assign_softly(objective), least=history[-1])))
    name, orders, history = max(raised, key=worth_of)
    tried = tuple((start, passes) for start, _, passes in raised)
    return replace(describe(objective, orders, name, history), starts=tried)


def worth_of(raised: tuple[str, Orders, tuple[float, ...]]) -> float:
    """What a start led to."""
    return raised[2][-1]


def key_of(orders: Orders) -> tuple[bytes, ...]:
    return tuple(order.tobytes() for order in orders)


def describe(objective: Objective, orders: Orders, start: str, history: tuple[float, ...]) -> Alignment:
    """An alignment with its figures."""
    value, worth, random = objective.figures(orders)
    return Alignment(
        objective.correspondence,
        orders,
        value,
        tuple(worth),
        tuple(random),
        start,
        history,
    )


def assign_in_order(correspondence: Correspondence, evidence: Evidence | None = None) -> Alignment:
    """Every unit on the unit with its own number: the control "plain average"."""
    objective = Objective(correspondence, evidence)
    orders = correspondence.nests.identity()
    return describe(objective, orders, IN_ORDER, (objective.value(orders),))


def assign_as_given(correspondence: Correspondence, orders: Orders, evidence: Evidence | None = None) -> Alignment:
    """Every unit where it was put before, by an alignment of the same pairs of groups. Raises ShapeError if it was of
    others."""
    lengths = [len(order) for order in orders]
    if lengths != [units for units, _ in correspondence.units] or not all(
        map(is_assignment, orders, correspondence.units)
    ):
        raise ShapeError(
            f"cannot put units where they were: the {len(orders)} orders are not of these "
            f"{len(correspondence.units)} pairs of groups; align the models anew"
        )
    objective = Objective(correspondence, evidence)
    return describe(objective, orders, "given", (objective.value(orders),))


def assign_at_random(correspondence: Correspondence, seed: int, evidence: Evidence | None = None) -> Alignment:
    """Every order drawn at random: the control "random permutation"."""
    rng = np.random.default_rng(seed)
    objective = Objective(correspondence, evidence)
    orders = correspondence.nests.drawn(rng)
    return describe(objective, orders, "random", (objective.value(orders),))
