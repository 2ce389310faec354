"""Units that are interchangeable but not assigned, such as those inside the heads of an attention.

Where a group moves, the groups inside its units, or across them, keep the order in which they are stored. That is right
where no other order fits better: for copies and fine-tunes. Where one does, the layers cannot be merged.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mal_graph.graph import Array
from mal_graph.matching.axis_pairs import Index, unit_rows
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.moving_groups import members_on, moving_groups
from mal_graph.matching.orders import Orders, ScoreTable, cropped_identity, match_positions, match_units, score_order
from mal_graph.matching.starts import TOLERANCE
from mal_graph.matching.tensor_pairs import TensorPair
from mal_graph.network import Parameter
from mal_graph.symmetry import AxisGroups, Member

HINT = "`assume_ordered` takes them in stored order"


class Inner(NamedTuple):
    """A group of the base (side 0) or of the donor (1) whose units keep their stored order."""

    side: int
    group: int


def find_other_inner_orders(correspondence: Correspondence, orders: Orders) -> dict[str, str]:
    """Why layers of the base cannot be merged, by name: their units are assigned, but what lies inside these stands in
    another order than in the donor.

    Args:
        correspondence: what of the two networks corresponds to each other.
        orders: the orders of the groups that are assigned.
    """
    if correspondence.is_ordered:
        return {}
    sides = correspondence.base.groups, correspondence.donor.groups
    moving = [moving_groups(groups) | assigned_groups(correspondence, side) for side, groups in enumerate(sides)]
    tables: dict[Inner, ScoreTable] = {}
    layers: dict[Inner, list[str]] = {}
    for tensor, axes in correspondence.tensors:
        inner = list(inner_members(tensor, sides, moving))
        if not inner or not tensor.is_compared:
            continue
        matched = [match_positions(axis, orders) for axis in axes]
        positions = [both for both in matched if both is not None]
        values = [
            read()[np.ix_(*(both[side] for both in positions))]
            for side, read in enumerate((tensor.base_values, tensor.donor_values))
        ]
        for key, place, member in inner:
            table = score_units(values, place, rows_of(member, positions[place][key.side]))
            tables[key] = tables.get(key, 0.0) + table
            layers.setdefault(key, []).append(tensor.layer)
    found: dict[str, str] = {}
    for key, table in tables.items():
        if not is_in_stored_order(table):
            group, whose = sides[key.side].groups[key.group], ("", "of the donor's ")[key.side]
            where = f"inside those of {whose}{group.inside[0]}" if group.inside else f"of {whose}{group.name}"
            why = f"the units {where} are interchangeable but not assigned, and fit better in another order: {HINT}"
            found |= {layer: why for layer in layers[key] if layer not in found}
    return found


def assigned_groups(correspondence: Correspondence, side: int) -> frozenset[int]:
    """The groups of the base (side 0) or the donor (1) whose units have an order."""
    return frozenset[int]().union(*(both[side].groups for both in correspondence.assigned))


def inner_members(
    tensor: TensorPair, sides: tuple[AxisGroups, AxisGroups], moving: list[frozenset[int]]
) -> Iterator[tuple[Inner, int, Member]]:
    """The groups on the axes of a tensor that could be permuted and are not assigned, each with the axis."""
    parameters: tuple[Parameter, Parameter] = (tensor.base, tensor.donor)
    for side, (groups, parameter) in enumerate(zip(sides, parameters, strict=True)):
        for place in range(len(parameter.shape)):
            for g, member in members_on(groups, parameter, place):
                group = groups.groups[g]
                if group.is_usable and g not in moving[side] and group.units > 1:
                    yield Inner(side, g), place, member


def rows_of(member: Member, positions: Index) -> Index:
    """Where the positions of each unit stand among those that are matched, shape (units, k); -1 where they do not."""
    where = np.full(max(int(member.positions.max()), int(positions.max(initial=0))) + 1, -1)
    where[positions] = np.arange(len(positions))
    rows: Index = where[member.positions]
    return rows


def score_units(values: list[Array], place: int, rows: Index) -> ScoreTable:
    """The inner products of the units of both models, shape (units, units); 0 for units that are not matched whole."""
    whole = (rows >= 0).all(axis=1)
    table = np.zeros((len(rows), len(rows)))
    if whole.any():
        base, donor = (unit_rows(side, place, rows[whole]) for side in values)
        table[np.ix_(whole, whole)] = base @ donor.T
    return table


def is_in_stored_order(table: ScoreTable) -> bool:
    """Whether no order of the units fits better than the one that they are stored in."""
    stored = score_order(table, cropped_identity(*table.shape))
    gained = score_order(table, match_units(table)) - stored
    return gained <= TOLERANCE * float(np.abs(table).max(initial=0.0)) * len(table)
