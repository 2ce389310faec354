"""Laws of a network that loses units: on random networks of every family."""

from dataclasses import replace

import numpy as np
import pytest
from builders import cnn, deviation, load, mlp, permuted_copy, run, vit
from equivalent_nets.families import FAMILIES
from equivalent_nets.pairs import draw_pair
from planted_copies import check_cost, compressible, kept_of, with_copies_of_units

from mal_graph import registry
from mal_graph.compression import Candidate, Compressible, Cost, allocate, thin
from mal_graph.network import find_parameters
from mal_graph.symmetry import build_network

EXTRA = 3


def family(name, seed):
    return load(draw_pair(seed, name, "units_permuted", combined=False).base, name)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_copies_go_first_and_leave_the_function(name, seed):
    narrow = build_network(family(name, seed))
    sets = Compressible(narrow, {}, registry.runner()).sets
    model = compressible(with_copies_of_units(narrow, sets, EXTRA, seed))
    inputs = narrow.probe.inputs
    thinned = thin(model, kept_of(model, {one.number: one.units - EXTRA for one in model.sets}))
    assert deviation(run(thinned, inputs), run(narrow.graph, inputs)) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_the_cost_is_what_is_counted_on_the_result_and_within_the_budget(name, share):
    check_cost(compressible(family(name, 3)), share)


def test_without_a_loss_the_network_is_what_it_was():
    model = compressible(cnn())
    thinned = thin(model, kept_of(model, Candidate(Cost(model.network, model.sets), model.rankings).all_units))
    inputs = model.network.probe.inputs
    assert deviation(run(thinned, inputs), run(model.network.graph, inputs)) == 0


@pytest.mark.parametrize("graph", [mlp((8, 40, 24, 5)), cnn((12, 16))], ids=["mlp", "cnn"])
def test_a_smaller_budget_keeps_a_part_of_what_a_larger_one_keeps(graph):
    model = compressible(graph)
    candidate = Candidate(Cost(model.network, model.sets), model.rankings)
    whole = candidate.cost.total(candidate.all_units)
    before = {number: set(range(count)) for number, count in candidate.all_units.items()}
    for share in (0.9, 0.7, 0.5, 0.3, 0.1):
        (counts,) = allocate([candidate], share * whole)
        kept = {number: set(units[:, 0]) for number, units in kept_of(model, counts).items()}
        assert all(kept[number] <= before[number] for number in kept)
        before = kept


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
def test_as_many_channels_stay_as_convolutions_take_at_a_time(share):
    model = compressible(cnn((12, 18, 130), blocks=0))
    candidate = Candidate(Cost(model.network, model.sets), model.rankings)
    (counts,) = allocate([candidate], share * candidate.cost.total(candidate.all_units))
    blocks = {12: 4, 18: 4, 130: 16}
    for number, units in candidate.all_units.items():
        is_round = counts[number] % blocks[units] == 0
        assert is_round or counts[number] in (units, candidate.fewest_units[number])
    assert counts != candidate.all_units


def test_units_that_are_no_maps_stay_one_by_one():
    model = compressible(mlp((8, 40, 24, 5)))
    candidate = Candidate(Cost(model.network, model.sets), model.rankings)
    whole = candidate.cost.total(candidate.all_units)
    kept = {count for share in range(20, 95) for count in allocate([candidate], share / 100 * whole)[0].values()}
    assert any(count % 2 for count in kept)


INVARIANT = {
    "mlp": lambda: mlp((8, 40, 24, 5)),
    "cnn": lambda: cnn((12, 16), residual=False, bn=False),
    "residual cnn": lambda: cnn((12, 16)),
    "vit": lambda: vit(blocks=1, activation="Relu"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("change", ["permuted", "rescaled"])
def test_permuted_and_positively_rescaled_units_change_nothing(name, change):
    graph = INVARIANT[name]()
    model = compressible(graph)
    groups = model.network.groups
    if change == "permuted":
        other, _ = permuted_copy(graph, groups, seed=1)
    else:
        other = rescaled(graph, groups)
    assert any((weight.read() != graph.weights[name].read()).any() for name, weight in other.weights.items())
    twin = Compressible(build_network(other), model.inputs, registry.runner())
    candidates = [Candidate(Cost(each.network, each.sets), each.rankings) for each in (model, twin)]
    budget = 0.5 * candidates[0].cost.total(candidates[0].all_units)
    thinned = [
        thin(each, kept_of(each, allocate([candidate], budget)[0]))
        for each, candidate in zip((model, twin), candidates, strict=True)
    ]
    inputs = model.network.probe.inputs
    assert deviation(run(thinned[1], inputs), run(thinned[0], inputs)) < 1e-4
    assert deviation(run(thinned[0], inputs), run(graph, inputs)) > 1e-3  # something was lost


def rescaled(graph, groups):
    """Positive factors on units behind which stands ReLU, undone by what reads them: of a BatchNormalization on its
    scale and shift. Units that a LayerNorm or a softmax reads are left."""
    rng = np.random.default_rng(5)
    values = {name: np.array(weight.read()) for name, weight in graph.weights.items() if weight.is_float}
    roles = {parameter.tensor: parameter.role for parameter in find_parameters(graph)}
    for group in (groups.groups[index] for index in groups.usable()):
        if group.statistic or not is_rectified(graph, group):
            continue
        factors = rng.uniform(0.2, 5, group.units)
        is_normed = any(roles[member.tensor] == "variance" for member in group.members)
        for member in group.members:
            if is_normed and not member.consumes and roles[member.tensor] not in ("scale", "shift"):
                continue
            moved = np.moveaxis(values[member.tensor], member.axis, 0)
            for unit, places in enumerate(member.positions):
                moved[places] *= 1 / factors[unit] if member.consumes else factors[unit]
    return graph.with_weights(values)


def is_rectified(graph, group):
    """Whether nothing but sums, norms of channels and ReLU lies between what gives the units and what reads them."""
    tensors = {
        node.outputs[0] for node in graph.nodes for m in group.members if not m.consumes and m.tensor in node.inputs
    }
    seen = set()
    while tensors:
        seen |= tensors
        readers = [graph.nodes[index] for name in tensors for index, _ in graph.consumers.get(name, ())]
        passing = [n for n in readers if not any(m.consumes and m.tensor in n.inputs for m in group.members)]
        if any(n.op not in ("Relu", "Add", "BatchNormalization", "GlobalAveragePool", "Flatten") for n in passing):
            return False
        tensors = {n.outputs[0] for n in passing} - seen
    return True


def test_samples_that_come_one_at_a_time_are_fitted_like_all_at_once():
    """Of a convolution's maps no rows are left out where a batch has a single sample."""
    model = compressible(cnn((12, 16), bn=False))
    one = replace(model.network.graph.inputs[0], shape=(1, *model.network.graph.inputs[0].shape[1:]))
    single = replace(model.network, graph=replace(model.network.graph, inputs=(one,)))
    kept = kept_of(model, {each.number: each.units // 2 for each in model.sets})
    inputs = {name: array[:200] for name, array in model.inputs.items()}
    together, apart = (
        thin(replace(model, network=network, inputs=inputs), kept) for network in (model.network, single)
    )
    for name, weight in together.weights.items():
        np.testing.assert_allclose(apart.weights[name].read(), weight.read(), atol=1e-4)  # rounding of float32 sums
