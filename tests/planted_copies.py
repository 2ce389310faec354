"""Networks with redundant units: copies of others, which share what their readers make of them."""

import numpy as np

from mal_graph.compression import UnitSet
from mal_graph.graph import LayerGraph
from mal_graph.symmetry import Network, plan_resizing, resize_graph


def with_copies_of_units(network: Network, sets: tuple[UnitSet, ...], extra: int, seed: int) -> LayerGraph:
    """The network with some units several times; what reads them shares their coefficients out."""
    rng = np.random.default_rng(seed)
    copied = {one.number: rng.integers(0, one.units, extra) for one in sets}
    units = {group.name: range(one.units + extra) for one in sets for group in one.groups}
    change = plan_resizing(network.graph, network.groups, network.traces, units, network.coupled)
    wide = resize_graph(network.graph, change, {})
    values = {name: np.array(wide.weights[name].read()) for name in change.layouts}
    for one in sets:
        for member in (member for group in one.groups for member in group.members):
            layout = change.layouts[member.tensor][member.axis]
            moved = np.moveaxis(values[member.tensor], member.axis, 0)
            old = np.array([layout.find([(place, 0) for place in row]) for row in member.positions.tolist()])
            new = [layout.find([(place, n + 1) for place in member.positions[-1].tolist()]) for n in range(extra)]
            for source, places in zip(copied[one.number], new, strict=True):
                moved[places] = moved[old[source]]
            if member.consumes:
                times = 1 + np.bincount(copied[one.number], minlength=one.units)
                for unit, count in enumerate(times):
                    moved[old[unit]] /= count
                for source, places in zip(copied[one.number], new, strict=True):
                    moved[places] /= times[source]
            values[member.tensor] = np.moveaxis(moved, 0, member.axis)
    return wide.with_weights(values)
