"""What a merge promises is compared with what it gives: equal functions stay equal, and lambda 1 is the donor."""

import sys

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, mlp, network, permuted_copy, reseeded, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import GateFailed
from mal_graph.graph import weight_of
from mal_graph.network import find_layers
from mal_graph.workflows.both_models import KEEPS
from mal_graph.workflows.notes import notes_on
from mal_graph.workflows.promises import TOLD_APART


def relu_net(seed=0, units=9):
    net = Net(seed)
    x = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(units, 6), net.weight(units), transB=1))
    x = net.op("Relu", net.op("Gemm", x, net.weight(8, units), net.weight(8), transB=1))
    return net.graph(net.op("Gemm", x, net.weight(4, 8), net.weight(4), transB=1))


def rescaled(graph, factors):
    """The graph with the units of its first layer multiplied by positive factors, and their readers divided by them."""
    first, bias, second = list(graph.weights)[:3]
    read = {name: graph.weights[name].read() for name in (first, bias, second)}
    return graph.with_weights(
        {first: read[first] * factors[:, None], bias: read[bias] * factors, second: read[second] / factors}
    )


def merge_of(base, donor, **options):
    return mal_graph.assemble(base, donor, **options, method="mal")


def far(result, expected):
    inputs = inputs_of(expected, 1)
    return deviation(run(result, inputs), run(expected, inputs))


def factors(units=9):
    return np.random.default_rng(3).uniform(0.2, 5.0, units).astype(np.float32)


@pytest.mark.parametrize("lam", [0.3, 0.5, 1.0])
def test_rescaled_units_are_found_and_kept(lam):
    base = relu_net()
    donor = rescaled(base, factors())
    assert far(donor, base) < 1e-5
    result = merge_of(base, donor, lam=lam)
    step = result.merged[0]
    assert far(result.graph, base) < 1e-4
    assert step.promises.kept
    assert all("compute the same" in why for why in step.promises.kept.values())
    assert step.promises.kept.items() <= step.plan.skipped.items()
    assert result.check("equal_functions").passed


def test_without_the_comparison_rescaled_units_are_merged_wrongly_and_the_report_says_that_nothing_was_compared():
    base = relu_net()
    result = merge_of(base, rescaled(base, factors()), lam=0.5, compare=False)
    assert far(result.graph, base) > 1e-2
    assert result.check("equal_functions").passed is None
    assert "not to be compared" in result.check("lambda_1").detail


def test_layers_that_are_no_culprits_are_merged():
    base = relu_net()
    result = merge_of(base, rescaled(base, factors()), lam=0.5)
    step = result.merged[0]
    assert len(step.promises.kept) == 2  # the layer of the units and the one that reads them
    assert [pair.base.name for pair in step.plan.merged_pairs] == [step.match.base[2].name]


def test_a_permuted_donor_keeps_nothing():
    base = mlp((6, 9, 8, 4))
    donor, _ = permuted_copy(base, network(base).groups)
    step = merge_of(base, donor, lam=0.3).merged[0]
    assert not step.promises.kept
    equal, lambda_1, planted = step.promises.checks
    assert planted.passed
    assert equal.passed
    assert lambda_1.passed is None
    assert "inconclusive" in lambda_1.detail


def test_lambda_1_is_compared_with_a_donor_that_is_another_function():
    base = relu_net()
    checks = merge_of(base, reseeded(base, 5), lam=0.3).merged[0].promises.checks
    assert [check.passed for check in checks] == [None, True, True]


def turned(positions):
    """The donor's positions on the base's, each on the next one."""
    return np.roll(np.arange(positions.stop) if isinstance(positions, slice) else positions, 1)


def test_a_merge_that_is_not_the_donor_at_lambda_1_is_refused(monkeypatch, tmp_path):
    """The mutation: the donor's rows are put on other units than its columns."""
    blending = sys.modules["mal_graph.merging.blending"]
    true_order = blending.in_base_order

    def wrong(axes, orders):
        placed = true_order(axes, orders)
        return (turned(placed[0]), *placed[1:]) if len(axes) == 2 else placed

    monkeypatch.setattr(blending, "in_base_order", wrong)
    base = relu_net()
    result = merge_of(base, reseeded(base, 5), lam=0.3)
    assert result.check("lambda_1").failed
    assert result.check("planted").failed
    with pytest.raises(GateFailed, match="lambda_1 failed"):
        result.save(tmp_path / "merged.onnx")
    assert not list(tmp_path.iterdir())


def put_elsewhere(monkeypatch, *shapes):
    """The mutation: the donor's rows are put on other units in the tensors of some shapes."""
    blending = sys.modules["mal_graph.merging.blending"]
    true_order = blending.in_base_order

    def wrong(axes, orders):
        placed = true_order(axes, orders)
        return (turned(placed[0]), *placed[1:]) if tuple(axis.size for axis in axes) in shapes else placed

    monkeypatch.setattr(blending, "in_base_order", wrong)


def test_a_layer_that_is_not_the_donors_at_lambda_1_is_found_and_kept(monkeypatch):
    put_elsewhere(monkeypatch, (8, 9))
    base, donor = relu_net(), reseeded(relu_net(), 5)
    step = merge_of(base, donor, lam=0.3).merged[0]
    middle = step.match.base[1].name
    assert list(step.promises.kept) == [middle]
    assert "reads what the donor's does" in step.plan.skipped[middle]
    assert len(step.plan.merged_pairs) == 2
    (check,) = [check for check in step.promises.checks if check.name == "lambda_1"]
    assert check.passed is None
    assert "1 layers that miss it are kept" in check.detail


def test_behind_a_culprit_the_search_goes_on_with_the_donors_values(monkeypatch):
    put_elsewhere(monkeypatch, (9, 6), (4, 8))
    step = merge_of(relu_net(), reseeded(relu_net(), 5), lam=0.3).merged[0]
    assert list(step.promises.kept) == [step.match.base[0].name, step.match.base[2].name]


@pytest.mark.parametrize(("layers", "count"), [("0:1", 1), ("1:2", 1), ("0:2", 2), ("1:3", 2)])
def test_where_layers_are_kept_the_others_are_compared(monkeypatch, layers, count):
    base, donor = relu_net(), reseeded(relu_net(), 5)
    check = merge_of(base, donor, layers=layers).check("lambda_1")
    assert check.passed
    assert f"the other {count} give at lambda 1 what the donor's do" in check.detail
    put_elsewhere(monkeypatch, (9, 6), (8, 9), (4, 8))
    assert merge_of(base, donor, layers=layers).check("lambda_1").passed is None


@given(st.integers(0, 2), st.integers(1, 2), st.sets(st.integers(0, 2), min_size=1), st.integers(1, 9))
def test_a_comparison_that_passes_has_compared_something(start, count, others, seed):
    """Of three layers some are merged, and some of the donor's are others; the rest are the base's."""
    base, donor = relu_net(), reseeded(relu_net(), seed)
    names = [[p.tensor for p in layer.applied] for layer in find_layers(base)]
    same = {name: base.weights[name].read() for i in {0, 1, 2} - others for name in names[i]}
    result = merge_of(base, donor.with_weights(same), lam=1.0, layers=f"{start}:{start + count}")
    check = result.check("lambda_1")
    if any((result.graph.weights[name].read() != weight.read()).any() for name, weight in base.weights.items()):
        assert check.passed
    else:
        assert check.passed is None
        assert "inconclusive" in check.detail


def test_what_differs_beside_the_layers_is_said_where_layers_are_kept():
    base, donor = joined("Relu", 0), joined("Tanh", 1)
    step = merge_of(base, donor, layers="1:3").merged[0]
    assert step.match.base[0].name in step.plan.skipped
    assert "reads what the donor's does not" in step.promises.missed
    assert merge_of(base, joined("Relu", 1), layers="1:3").check("lambda_1").passed


def joined(activation, seed):
    """A sum of two layers with an activation behind it, which belongs to no layer."""
    net = Net(seed)
    x = net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), transB=1)
    both = net.op("Add", x, net.op("Gemm", net.op("Relu", x), net.weight(8, 8), transB=1))
    return net.graph(net.op("Gemm", net.op(activation, both), net.weight(4, 8), transB=1))


def test_what_differs_beside_the_layers_is_said():
    result = merge_of(joined("Relu", 0), joined("Tanh", 1))
    assert result.check("lambda_1").passed is None
    assert "not written alike" in result.check("lambda_1").detail
    assert "reads what the donor's does not" in result.merged[0].promises.missed
    (note,) = [note for note in notes_on(result.merged, result.config) if "at lambda 1" in note]
    assert "this may be no merge of the two" in note
    assert merge_of(joined("Relu", 0), joined("Relu", 1)).merged[0].promises.missed == ""


def test_layers_that_move_the_outputs_together_alone_are_all_kept(monkeypatch):
    """The mutation: nothing is found layer by layer."""
    promises = sys.modules["mal_graph.workflows.promises"]
    monkeypatch.setattr(promises, "layers_that_move", lambda layers, moves: {})
    base = relu_net()
    result = merge_of(base, rescaled(base, factors()), lam=0.5)
    assert far(result.graph, base) == 0.0
    assert not result.merged[0].plan.steps
    assert all("some layers together" in why for why in result.merged[0].promises.kept.values())


def test_a_donor_of_which_nothing_is_assigned_is_not_tried():
    net = Net(0)
    base = net.graph(net.op("Gemm", net.input("x", ("N", 6)), net.weight(4, 6), transB=1))
    check = merge_of(base, reseeded(base, 3)).check("planted")
    assert check.passed is None


def test_what_is_said_of_the_other_widths():
    check = merge_of(relu_net(units=9), relu_net(1, units=7)).check("lambda_1")
    assert check.passed is None
    assert check.detail == "not promised: the widths differ"


def test_models_that_are_nearly_the_same_are_inconclusive():
    base = relu_net()
    name = list(base.weights)[-1]
    donor = base.with_weights([weight_of(name, base.weights[name].read() + np.float32(2e-3))])
    apart = far(donor, base)
    assert KEEPS < apart < TOLD_APART
    check = merge_of(base, donor).check("lambda_1")
    assert check.passed is None
    assert check.detail.startswith("inconclusive")


def test_a_unit_that_is_silent_on_the_few_samples_of_the_probe_shows_on_more():
    """Three samples of the probe leave the first unit silent; the donor has another output for it."""
    base = relu_net()
    _, bias, second = list(base.weights)[:3]
    network = mal_graph.build_network(base, verified=False)
    reached = network.probe.inputs["x"] @ base.weights[next(iter(base.weights))].read()[0]
    shift = base.weights[bias].read().copy()
    shift[0] = -reached.max() - 0.01
    base = base.with_weights({bias: shift})
    other = base.weights[second].read().copy()
    other[:, 0] *= 3
    donor = base.with_weights({second: other})
    inputs = {"x": network.probe.inputs["x"]}
    assert deviation(run(donor, inputs), run(base, inputs)) == 0.0
    assert not merge_of(base, donor).check("equal_functions").passed


def test_a_sweep_and_a_zoo_compare_too():
    base, rng = relu_net(), np.random.default_rng(0)
    data = {"x": rng.standard_normal((40, 6)).astype(np.float32), "labels": np.arange(40) % 4}
    donor = rescaled(base, factors())
    swept = mal_graph.sweep(base, donor, data, lambdas=(0.0, 0.5))
    assert swept.step.promises.kept
    zoo = mal_graph.zoo(base, [donor.named("scaled")], lambdas=(0.5,))
    assert all(step.promises.kept for step in zoo.assembly.merged)
    assert zoo.assembly.merged
