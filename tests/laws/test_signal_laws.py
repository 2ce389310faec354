"""Laws of the signals: what activations alone tell of the units, and how they count beside weights."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import Net, cnn, correspondence_of, mlp, narrower, permuted_copy, wider

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.evaluation import Comoments
from mal_graph.matching import SHARES, assign_units, compare_activations, match_layers
from mal_graph.matching.activation_similarity import find_activation
from mal_graph.matching.objective import Objective
from mal_graph.matching.orders import match_units, score_order
from mal_graph.symmetry import axis_groups

RUNNER = registry.runner()


def samples(count=120, shape=(8,), seed=0):
    return {"x": np.random.default_rng(seed).normal(0.3, 1.2, (count, *shape)).astype(np.float32)}


def evidence_between(base, donor, arrays, share=0.5):
    correspondence = correspondence_of(base, donor)
    return correspondence, compare_activations(correspondence, arrays, RUNNER, share)


NETS = {
    "mlp": (lambda: mlp((8, 14, 12, 5), 0), (8,)),
    "matmul": (lambda: mlp((8, 14, 12, 5), 0, "matmul"), (8,)),
    "tanh": (lambda: mlp((8, 14, 12, 5), 0, activation="Tanh"), (8,)),
    "cnn": (lambda: cnn((6, 8), 1, 0), (3, 8, 8)),
    "concat": (lambda: cnn((6, 8), 1, 0, concat=True), (3, 8, 8)),
    "flatten": (lambda: cnn((6, 8), 1, 0, head="flatten"), (3, 8, 8)),
}


# --- activations -------------------------------------------------------------------------------------------------


def test_correlations_are_numpys_whatever_the_batches():
    rng = np.random.default_rng(0)
    a = rng.normal(5, 0.1, (4, 90))
    b = np.stack([a[1] * 3 + 1, rng.normal(size=90), -a[0], np.full(90, 7.0), a[2] + rng.normal(size=90)])
    found = Comoments()
    for start, end in ((0, 7), (7, 8), (8, 90)):
        found.add(a[:, start:end], b[:, start:end])
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(np.corrcoef(a, b)[:4, 4:])
    np.testing.assert_allclose(found.correlation, expected, atol=1e-9)


@pytest.mark.parametrize("net", NETS)
def test_a_planted_permutation_is_recovered_from_activations_alone(net):
    """No weight is looked at: the table of every pair has its best assignment there."""
    make, shape = NETS[net]
    base = make()
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    found, evidence = evidence_between(base, donor, samples(shape=shape))
    for pair, table in zip(found.pairs, evidence.tables, strict=True):
        assert np.array_equal(match_units(table), orders[pair.base])
        assert np.isclose(score_order(table, orders[pair.base]) / len(table), round(table.max()), atol=1e-6)


@pytest.mark.parametrize("change", [narrower, wider])
def test_units_that_a_donor_lacks_or_has_more_of_do_not_disturb_the_others(change):
    base = mlp((8, 14, 12, 5), 0)
    donor, orders = change(base, axis_groups(base), 3)
    found, evidence = evidence_between(base, donor, samples())
    for pair, table in zip(found.pairs[:1], evidence.tables[:1], strict=True):  # what is behind computes something else
        order = match_units(table)
        assert np.array_equal(order[orders[pair.base] >= 0], orders[pair.base][orders[pair.base] >= 0])


@pytest.mark.parametrize("match_by", ["activations", "both"])
def test_assembling_by_the_signal_gives_a_shuffled_copy_back(match_by):
    base = cnn((6, 8), 1, 0, concat=True)
    donor, orders = permuted_copy(base, axis_groups(base), 1)
    result = mal_graph.assemble(
        base, donor, lam=0.5, match_by=match_by, calibrate=samples(shape=(3, 8, 8)), verify=False
    )
    made = result.merged[0].plan.alignment
    assert all(
        np.array_equal(o, orders[pair.base]) for o, pair in zip(made.orders, made.correspondence.pairs, strict=True)
    )


def aligned(base, donor, **options):
    return mal_graph.align(base, donor, match_layers(base, donor), axis_groups(base), axis_groups(donor), **options)


@pytest.mark.parametrize("net", NETS)
def test_align_gives_a_shuffled_copy_back_by_activations_though_its_weights_say_nothing(net, monkeypatch):
    """All that is compared of the weights is one constant, and none tells kinds of units."""
    make, shape = NETS[net]
    base = make()
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    blind = [
        [np.ones_like(values()) for values in (t.base_values, t.donor_values)]
        for t, _ in correspondence_of(base, donor).tensors
    ]
    monkeypatch.setattr(Objective, "values", blind)
    monkeypatch.setattr("mal_graph.matching.correspondence.find_kinds", lambda tensors: {})
    made = aligned(base, donor, calibrate=samples(shape=shape), match_by="activations")
    assert all(
        np.array_equal(o, orders[pair.base]) for o, pair in zip(made.orders, made.correspondence.pairs, strict=True)
    )
    by_weights = aligned(base, donor, calibrate=samples(shape=shape))
    assert not all(map(np.array_equal, made.orders, by_weights.orders))


@pytest.mark.parametrize("match_by", SHARES)
def test_align_and_assemble_assign_the_same_units(match_by):
    base, donor = mlp((8, 14, 12, 5), 0), mlp((8, 10, 15, 5), 1)
    options = {"calibrate": samples(), "match_by": match_by, "rescale_invariant": True}
    made = mal_graph.assemble(base, donor, verify=False, **options, method="mal").merged[0].plan.alignment
    assert all(map(np.array_equal, made.orders, aligned(base, donor, **options).orders))
    plain = aligned(base, donor).orders
    assert not all(map(np.array_equal, made.orders, plain))


def test_align_refuses_inputs_that_do_not_fit():
    base, donor = mlp((8, 14, 5), 0), mlp((8, 10, 5), 1)
    with pytest.raises(UsageError, match="`match_by` is 'both', but there are no calibration inputs"):
        aligned(base, donor, match_by="both")
    with pytest.raises(UsageError, match="`match_by` is 'phase': choose one of weights, activations, both"):
        aligned(base, donor, match_by="phase", calibrate=samples())
    with pytest.raises(DataError, match="there are 9 calibration samples: give at least 16"):
        aligned(base, donor, match_by="activations", calibrate=samples(9))


def test_a_noisy_copy_is_recovered_from_activations():
    base = mlp((8, 14, 12, 5), 0)
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    rng = np.random.default_rng(0)
    noisy = {
        name: (w.read() + 0.1 * w.read().std() * rng.normal(size=w.shape)).astype(np.float32)
        for name, w in donor.weights.items()
    }
    found, evidence = evidence_between(base, donor.with_weights(noisy), samples())
    for pair, table in zip(found.pairs, evidence.tables, strict=True):
        assert np.array_equal(match_units(table), orders[pair.base])


def rescaled(graph, seed):
    """The same function: every hidden unit of an MLP with ReLU times a factor of its own, taken back behind it."""
    rng, values = np.random.default_rng(seed), {name: w.read() for name, w in graph.weights.items()}
    for first, bias, second in (("w0", "w1", "w2"), ("w2", "w3", "w4")):
        factor = np.exp(rng.normal(0, 1.5, len(values[bias]))).astype(np.float32)
        values[first], values[bias] = values[first] * factor[:, None], values[bias] * factor
        values[second] = values[second] / factor
    return graph.with_weights(values)


def test_scales_that_relu_leaves_open_do_not_count():
    base = mlp((8, 14, 12, 5), 0)
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    found, evidence = evidence_between(base, rescaled(donor, 0), samples())
    for pair, table in zip(found.pairs, evidence.tables, strict=True):
        assert np.array_equal(match_units(table), orders[pair.base])


def test_units_are_compared_behind_the_activation():
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 4)
    y = net.op("Mul", x, net.op("Sigmoid", x))  # written out, with a fan-out that joins again
    graph = net.graph(net.op("Flatten", net.op("GlobalAveragePool", y)))
    (layer,) = match_layers(graph, graph).base
    assert find_activation(graph, layer, layer.weight).tensor == y


def test_maps_of_different_size_are_compared_by_their_means():
    def net(stride):
        made = Net(0)
        x = made.op("Relu", made.conv(made.input("x", ("N", 3, 8, 8)), 3, 6, stride=stride))
        return made.graph(made.linear(made.op("Flatten", made.op("GlobalAveragePool", x)), 6, 4))

    _, evidence = evidence_between(net(1), net(2), samples(shape=(3, 8, 8)))
    assert np.array_equal(match_units(evidence.tables[0]), np.arange(6))


# --- mixing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [SHARES["both"], SHARES["activations"]])
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_the_mixed_objective_never_falls(net, share):
    make, shape = NETS[net]
    other = {"mlp": mlp((8, 10, 15, 5), 1), "cnn": cnn((7, 6), 1, 1)}[net]
    found, evidence = evidence_between(make(), other, samples(shape=shape), share)
    done = assign_units(found, evidence)
    for _, history in done.starts:
        assert all(after >= before - 1e-6 * abs(before) for before, after in pairwise(history))
    assert done.history[-1] == pytest.approx(done.objective, rel=1e-6)


def test_the_mix_does_not_depend_on_the_size_of_the_weights():
    base, donor = mlp((8, 14, 12, 5), 0), mlp((8, 10, 15, 5), 1)
    found, evidence = evidence_between(base, donor, samples())
    louder = donor.with_weights({name: 64 * w.read() for name, w in donor.weights.items()})
    again = correspondence_of(base, louder)
    mixed = assign_units(found, evidence).orders
    assert all(map(np.array_equal, mixed, assign_units(again, evidence).orders))
    for share in (1e-6, 1 - 1e-6):  # both of them count
        assert not all(map(np.array_equal, mixed, assign_units(found, replace(evidence, share=share)).orders))


def test_weights_decide_what_activations_leave_open():
    """Two hidden units are dead: nothing but their weights tells them apart."""
    base = mlp((8, 6, 5), 0)
    values = {name: w.read().copy() for name, w in base.weights.items()}
    values["w1"][[1, 4]] = -100
    base = base.with_weights(values)
    donor, orders = permuted_copy(base, axis_groups(base), 1)
    found, evidence = evidence_between(base, donor, samples(), SHARES["activations"])
    assert np.array_equal(assign_units(found, evidence).orders[0], orders[found.pairs[0].base])


def test_by_weights_alone_calibration_inputs_change_no_order():
    base, donor = mlp((8, 14, 12, 5), 0), mlp((8, 10, 15, 5), 1)
    plain, given = (mal_graph.assemble(base, donor, calibrate=c, verify=False, method="mal") for c in (None, samples()))
    assert all(map(np.array_equal, *(found.merged[0].plan.alignment.orders for found in (plain, given))))


def test_a_signal_without_samples_or_of_no_known_name_is_refused():
    base, donor = mlp((8, 14, 5), 0), mlp((8, 10, 5), 1)
    with pytest.raises(UsageError, match=r"`match_by` is 'both', but there are no calibration inputs: give some with"):
        mal_graph.assemble(base, donor, match_by="both")
    with pytest.raises(UsageError, match=r"`match_by` is 'phase': choose one of weights, activations, both"):
        mal_graph.assemble(base, donor, match_by="phase", calibrate=samples())


def test_without_repair_nothing_is_repaired():
    base, donor = mlp((8, 14, 5), 0), mlp((8, 10, 5), 1)
    plain = mal_graph.assemble(base, donor, verify=False, method="mal")
    other = mal_graph.assemble(base, donor, calibrate=samples(), repair=False, verify=False)
    for name, weight in plain.graph.weights.items():
        assert np.array_equal(weight.read(), other.graph.weights[name].read())
    assert MergeConfig().repair


def places_first(seed, step):
    """Every `step`th place, then places on the first axis."""
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 4, 5)), 5, 6, "matmul"))
    x = net.op("Slice", x, net.constant([0]), net.constant([4]), net.constant([1]), net.constant([step]))
    x = net.op("Relu", net.linear(net.op("Transpose", x, perm=[1, 0, 2]), 6, 7, "matmul"))
    return net.graph(net.linear(net.op("ReduceMean", x, net.constant([0]), keepdims=0), 7, 3))


def test_where_other_places_lie_in_front_of_the_samples_the_weights_alone_tell():
    arrays = samples(count=40, shape=(4, 5))
    found, evidence = evidence_between(places_first(0, 1), places_first(1, 2), arrays)
    known = {units: bool(table.any()) for units, table in zip(found.units, evidence.tables, strict=True)}
    assert known == {(6, 6): True, (7, 7): False}
    found, evidence = evidence_between(places_first(0, 2), places_first(1, 2), arrays)
    assert all(table.any() for table in evidence.tables)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_weight_that_one_model_alone_shares_is_measured_all_the_same(swapped):
    def net_of(seed, *, is_shared):
        net = Net(seed)
        x, w = net.op("MatMul", net.input("x", ("N", 8)), net.weight(8, 6)), net.weight(6, 6)
        for _ in range(2):
            x = net.op("Tanh", net.op("MatMul", x, w))
            w = w if is_shared else net.weight(6, 6)
        return net.graph(net.linear(x, 6, 3))

    base, donor = (net_of(seed, is_shared=bool(seed) != swapped) for seed in (0, 1))
    result = mal_graph.assemble(base, donor, calibrate=samples(), match_by="both", verify=False)
    assert result.passed
    assert result.merged[0].repair.samples == 120


def test_models_of_which_nothing_can_be_merged_are_refused_for_that_whatever_the_signal():
    def net_of(seed, *, is_shared):
        net = Net(seed)
        x, w = net.input("x", ("N", 8)), net.weight(8, 8)
        for _ in range(2):
            x = net.op("Tanh", net.op("MatMul", x, w))
            w = w if is_shared else net.weight(8, 8)
        return net.graph(net.linear(x, 8, 3))

    for match_by in SHARES:
        with pytest.raises(MatchError, match=r"nothing of net\.onnx can be merged"):
            mal_graph.assemble(
                net_of(0, is_shared=False),
                net_of(1, is_shared=True),
                calibrate=samples(),
                match_by=match_by,
                verify=False,
            )
