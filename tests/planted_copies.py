"""Networks with redundant units: copies of others, which share what their readers make of them; and what loses them."""

import numpy as np

from mal_graph import registry
from mal_graph.compression import Candidate, Compressible, Cost, UnitSet, allocate, thin
from mal_graph.graph import LayerGraph
from mal_graph.network import count_multiplications, probe
from mal_graph.symmetry import AxisGroup, Network, build_network, plan_resizing, resize_graph

SAMPLES = 600


def with_copies_of_units(network: Network, sets: tuple[UnitSet, ...], extra: int, seed: int) -> LayerGraph:
    """The network with some units of each set several times; what reads them shares their coefficients out."""
    rng = np.random.default_rng(seed)
    for one in sets:
        names = next(names for names in network.coupled if one.name in names)  # with those in copies of heads
        groups = [group for group in network.groups.groups if group.name in names]
        network = build_network(with_copies(network, groups, extra, rng), verified=False)
    return network.graph


def with_copies(network: Network, groups: list[AxisGroup], extra: int, rng: np.random.Generator) -> LayerGraph:
    """The same for coupled groups, each of which copies other units."""
    units = {group.name: range(group.units + extra) for group in groups}
    change = plan_resizing(network.graph, network.groups, network.traces, units, network.coupled)
    wide = resize_graph(network.graph, change, {})
    values = {name: np.array(wide.weights[name].read()) for name in change.layouts}
    for group in groups:
        copied = rng.integers(0, group.units, extra)
        times = 1 + np.bincount(copied, minlength=group.units)
        for member in group.members:
            layout = change.layouts[member.tensor][member.axis]
            moved = np.moveaxis(values[member.tensor], member.axis, 0)
            old = np.array([layout.find([(place, 0) for place in row]) for row in member.positions.tolist()])
            new = [layout.find([(place, n + 1) for place in member.positions[-1].tolist()]) for n in range(extra)]
            for source, places in zip(copied, new, strict=True):
                moved[places] = moved[old[source]]
            if member.consumes:
                for unit, count in enumerate(times):
                    moved[old[unit]] /= count
                for source, places in zip(copied, new, strict=True):
                    moved[places] /= times[source]
            values[member.tensor] = np.moveaxis(moved, 0, member.axis)
    return wide.with_weights(values)


def samples(graph, fixed, count=SAMPLES, seed=0):
    """Random inputs of the shapes and ranges of a probe's."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, array in fixed.items():
        shape = (count, *array.shape[1:])
        is_float = array.dtype.kind == "f"
        values = rng.standard_normal(shape) if is_float else rng.integers(array.min(), array.max() + 1, shape)
        drawn[name] = values.astype(array.dtype)
    return drawn


def compressible(graph, seed=0):
    """The network, and samples that show what its units give."""
    network = build_network(graph)
    return Compressible(network, samples(graph, network.probe.inputs, seed=seed), registry.runner())


def kept_of(model, counts):
    """The units that stay, where so many of each set do."""
    return {number: model.rankings[number].kept(count) for number, count in counts.items()}


def check_cost(model, share):
    """Assert that a network thinned to a share of its multiplications has those that it is said to have."""
    cost = Cost(model.network, model.sets)
    candidate = Candidate(cost, model.rankings)
    whole = count_multiplications(model.network.graph, model.network.probe.shapes)
    assert abs(cost.total(candidate.all_units) - whole) <= 1e-6 * whole  # shares of positions are no whole numbers
    budget = max(share * whole, cost.total(candidate.fewest_units))
    (counts,) = allocate([candidate], budget)
    thinned = thin(model, kept_of(model, counts))
    counted = count_multiplications(thinned, probe(thinned, inputs=model.network.probe.inputs).shapes)
    assert abs(counted - cost.total(counts)) <= 1e-6 * whole
    assert counted <= budget
