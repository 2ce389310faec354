"""Results with a router: each expert, what weights are given for a sample, and which networks can have one."""

import numpy as np
import onnxruntime
import pytest
from builders import Net, cnn, correspondence_of, mlp, noisy, permuted_copy, vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import mal_graph
from mal_graph import registry
from mal_graph.errors import MatchError, UsageError
from mal_graph.matching import assign_units
from mal_graph.merging import LayerLambdas, Stacking, plan_merge, stack_merge
from mal_graph.merging.experts import pack
from mal_graph.merging.gates import Evidence, directions_gate, linear_gate, neighbours_gate
from mal_graph.merging.routing import Routable
from mal_graph.methods import find_method
from mal_graph.parameter_settings import settings_of
from mal_graph.symmetry import axis_groups

NETS = {"mlp": lambda: mlp((4, 6, 3), 0), "cnn": lambda: cnn((4, 6), blocks=0, size=4), "vit": vit}
WHOLE = {"twin_merging": {"share": 1}, "mass": {"share": 1}}  # at full rank
ROUTED = ["twin_merging", "mass", "auto_switch"]
CLOSE = 1e-5  # float32: what is shared and what an expert adds are rounded apart
few = settings(max_examples=3, deadline=None, phases=[Phase.reuse, Phase.generate])


def routable(base, donors, method, given=(), inputs=None):
    plans = tuple(plan_merge(assign_units(correspondence_of(base, donor)), LayerLambdas.of(0.5)) for donor in donors)
    stacking = Stacking(base, find_method(method), settings_of(given), plans, is_from_base=True)
    return Routable(stacking, inputs or {}, registry.runner())


def samples_of(graph, count, seed=0, at=0.0):
    (value,) = graph.inputs
    shape = (count, *value.shape[1:])
    return {value.name: np.random.default_rng(seed).normal(at, 1, shape).astype(np.float32)}


def run(graph, arrays):
    (values,) = registry.runner().open(graph).run(arrays).values()
    return values


def forced(own, weights):
    """The result with a router that gives every sample the same."""

    def write(body, seen):
        none = body.store("router/none", np.zeros((own.feature.units, 1), np.float32))
        zero = body.add("router/zero", "MatMul", (seen, none))
        return body.add("router/weights", "Add", (zero, body.store("router/always", np.array([weights], np.float32))))

    return own.with_gate(write)


def assert_close(mine, theirs):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=CLOSE * np.abs(theirs).max())


# --- experts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["mlp", "cnn", pytest.param("vit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", WHOLE)
def test_with_all_weight_on_one_model_the_result_is_that_model(method, net):
    """Permuted as a donor is, in the base's frame."""
    base = NETS[net]()
    donors = [permuted_copy(noisy(base, 0.1, seed), axis_groups(base), seed)[0] for seed in (1, 2)]
    own, x = routable(base, donors, method, WHOLE[method]), samples_of(base, 3)
    for place, donor in enumerate(donors):
        assert_close(run(forced(own, np.eye(2)[place]), x), run(donor, x))


def test_the_experts_of_auto_switch_are_those_of_t_switch():
    base = NETS["cnn"]()
    donors, x = [noisy(base, 0.1, seed) for seed in (1, 2)], samples_of(base, 3)
    own = routable(base, donors, "auto_switch", {"density": 0.3})
    alone = routable(base, donors, "t_switch", {"density": 0.3, "1:weight": 0}).stacking
    assert_close(run(forced(own, [0, 1]), x), run(stack_merge(alone), x))
    sizes = [one.nbytes for several in own.experts.values() for one in several]
    whole = sum(2 * base.weights[name].size for name in own.experts if "bn" not in name)
    statistics = sum(2 * base.weights[name].nbytes for name in own.experts if "bn" in name)
    assert sum(sizes) <= whole + statistics + 4 * len(sizes)  # a byte for each sign, and one size


@given(seed=st.integers(0, 99), weights=st.lists(st.floats(0, 1), min_size=2, max_size=2))
@few
def test_weights_between_give_the_method_with_these_weights(seed, weights):
    base = mlp((4, 6, 3), seed)
    donors, x = [noisy(base, 0.3, seed + number) for number in (1, 2)], samples_of(base, 3)
    given = {f"{number}:weight": weight for number, weight in enumerate(weights, 1)}
    own = routable(base, donors, "twin_merging", {"share": 0.5})
    plain = stack_merge(routable(base, donors, "twin_merging", {"share": 0.5, **given}).stacking)
    assert_close(run(forced(own, weights), x), run(plain, x))


def test_statistics_of_norms_are_a_mean_however_many_models_are_chosen():
    """Three times as far as their mean is from the shared one, variances could be below 0."""
    base = cnn((4, 6), blocks=0, size=4)
    donors, x = [noisy(base, 0.2, seed) for seed in (1, 2, 3)], samples_of(base, 3)
    own = routable(base, donors, "mass")
    summed = stack_merge(own.stacking)  # every weight is 1
    assert_close(run(forced(own, [1, 1, 1]), x), run(summed, x))


@given(rank=st.integers(1, 6), seed=st.integers(0, 99))
@few
def test_an_expert_takes_the_smallest_form(rank, seed):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((8, rank)) @ rng.standard_normal((rank, 12))
    assert pack(low, np.dtype(np.float32)).nbytes == 4 * min(rank * 20, 96)
    signs = 0.3 * np.sign(low)
    assert pack(signs, np.dtype(np.float32)).nbytes == min(96 + 4, 4 * 20 * np.linalg.matrix_rank(signs))


# --- routers ------------------------------------------------------------------------------------------------------


def weights_given(own, gate, arrays):
    return run(own.router(gate), arrays)


def test_a_linear_router_gives_the_probabilities_of_the_best_classifier():
    base = mlp((4, 6, 3), 0)
    donors = [noisy(base, 0.1, seed) for seed in (1, 2)]
    inputs = {number: samples_of(base, 60, number, 1.5 * number) for number in (1, 2)}
    own = routable(base, donors, "twin_merging", inputs=inputs)
    features = own.features()
    gate = linear_gate(Evidence(features, (), {}))
    given = [weights_given(own, gate, inputs[number]) for number in (1, 2)]
    assert min((one.argmax(axis=1) == place).mean() for place, one in enumerate(given)) > 0.9
    assert own.told_right() > 0.9
    np.testing.assert_allclose(np.concatenate(given).sum(axis=1), 1, atol=1e-6)
    # of a regression with an offset the probabilities of each model sum to how many inputs it has
    assert [one.sum() for one in np.concatenate(given).T] == pytest.approx([60, 60], abs=0.5)


def test_neighbours_vote():
    base = mlp((4, 6, 3), 0)
    own = routable(base, [noisy(base, 0.1, seed) for seed in (1, 2)], "auto_switch")
    rng, x = np.random.default_rng(0), samples_of(base, 7, 5)
    features = [rng.standard_normal((count, 6)).astype(np.float32) for count in (9, 14)]
    seen = run(own.router(None), x)
    given = weights_given(own, neighbours_gate(Evidence(features, (), {"queries": 8, "neighbours": 5})), x)
    rows, whose = np.concatenate([one[:8] for one in features]), np.repeat([0, 1], 8)
    nearest = np.argsort(np.linalg.norm(rows - seen[:, None], axis=2), axis=1)[:, :5]
    np.testing.assert_allclose(given[:, 1], whose[nearest].mean(axis=1), atol=1e-6)


@given(seed=st.integers(0, 99), most=st.integers(1, 4), threshold=st.floats(0, 0.9))
@few
def test_directions_choose_those_models_that_leave_least(seed, most, threshold):
    base = mlp((4, 6, 3), 0)
    own = routable(base, [noisy(base, 0.1, number) for number in range(1, 5)], "mass")
    rng, x = np.random.default_rng(seed), samples_of(base, 9, seed)
    directions = [np.linalg.qr(rng.standard_normal((own.feature.units, 2)))[0].T for _ in range(4)]
    evidence = Evidence((), directions, {"most": most, "threshold": threshold})
    given, seen = weights_given(own, directions_gate(evidence), x), run(own.router(None), x)
    left = np.stack([np.linalg.norm(seen - seen @ own.T @ own, axis=1) for own in directions], axis=1)
    sure = softmax(-(left - left.mean(axis=1, keepdims=True)) / left.std(axis=1, keepdims=True), axis=1)
    ranks = np.argsort(np.argsort(-sure, axis=1), axis=1)
    clear = np.abs(sure - threshold).min(axis=1) > 1e-5  # beside it, rounding decides
    wanted = ((ranks < most) & (sure > threshold)) | (ranks == 0)
    assert np.array_equal(given[clear], wanted[clear])


@pytest.mark.parametrize("net", ["mlp", "cnn", pytest.param("vit", marks=pytest.mark.slow)])
def test_a_router_sees_the_mean_of_what_the_last_layer_reads(net):
    base = NETS[net]()
    own, x = routable(base, [noisy(base, 0.1, 1)], "mass"), samples_of(base, 3)
    feature, first = own.feature, own.first
    session = registry.runner().open(first, read=[feature.tensor])
    for place in range(3):
        values = session.run({name: array[place : place + 1] for name, array in x.items()})[feature.tensor]
        mean = np.moveaxis(values, feature.axis, -1).reshape(-1, feature.units).mean(axis=0)
        np.testing.assert_allclose(run(own.router(None), x)[place], mean, atol=1e-6)


# --- whole results ------------------------------------------------------------------------------------------------


def merged(base, donors, method, **options):
    quick = {"verify": False, "compare": False, "repair": False}
    if method != "mass":
        options["calibrate_of"] = [samples_of(base, 30, number, 2.0 * number) for number in range(1 + len(donors))]
    return mal_graph.assemble(base, donors, method=method, ancestor=base, **quick, **options)


@pytest.mark.parametrize("method", ROUTED)
def test_a_result_is_one_file_for_any_runtime_and_no_sample_depends_on_another(method, tmp_path):
    base = mlp((4, 6, 3), 0)
    result = merged(base, [noisy(base, 0.3, seed) for seed in (1, 2)], method)
    assert "put in a router" in result.stacked.note
    result.save(tmp_path / "routed.onnx")
    session, x = onnxruntime.InferenceSession(tmp_path / "routed.onnx"), samples_of(base, 9, 4, 2.0)
    (together,) = session.run(None, x)
    alone = [session.run(None, {name: array[place : place + 1] for name, array in x.items()})[0] for place in range(9)]
    assert np.array_equal(together, np.concatenate(alone))
    assert np.array_equal(together, run(registry.as_graph(str(tmp_path / "routed.onnx")), x))


@pytest.mark.parametrize("method", ROUTED)
def test_of_copies_of_the_base_the_result_is_the_base_and_needs_no_router(method):
    base = mlp((4, 6, 3), 0)
    copies = [permuted_copy(base, axis_groups(base), seed)[0] for seed in (1, 2)]
    result = merged(base, copies, method)
    assert result.passed
    assert "needs no router" in result.stacked.note
    assert np.array_equal(run(result.graph, samples_of(base, 5)), run(base, samples_of(base, 5)))


def test_inputs_of_one_kind_each_get_the_expert_for_them():
    base = mlp((4, 6, 3), 0)
    donors = [noisy(base, 0.3, seed) for seed in (1, 2)]
    for method in ("twin_merging", "auto_switch"):
        result = merged(base, donors, method, parameters={"share": 1} if method == "twin_merging" else {"density": 1})
        own = [run(result.graph, samples_of(base, 50, 9, 2.0 * number)) for number in (1, 2)]
        for number, values in enumerate(own, 1):
            apart = [np.abs(values - run(one, samples_of(base, 50, 9, 2.0 * number))).mean() for one in donors]
            assert np.argmin(apart) == number - 1


def test_donors_of_other_widths_are_routed_too():
    base, donor = mlp((4, 8, 3), 0), mlp((4, 6, 3), 1)
    result = merged(base, [donor, noisy(base, 0.2, 2)], "mass")
    assert np.isfinite(run(result.graph, samples_of(base, 4))).all()
    assert result.passed


@pytest.mark.parametrize(("opset", "dtype"), [(11, "float32"), (13, "float64"), (18, "float16")])
def test_any_opset_and_type_will_do(opset, dtype):
    def net(seed):
        net = Net(seed, dtype=dtype, opset=opset)
        hidden = net.op("Relu", net.linear(net.input("x", ("N", 4)), 4, 6))
        return net.graph(net.linear(hidden, 6, 3))

    base, x = net(0), {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)}
    own = routable(base, [net(1), net(2)], "mass", {"share": 1})
    values = run(forced(own, [0, 1]), x)
    assert values.dtype == dtype
    close = 5e-3 if dtype == "float16" else CLOSE
    np.testing.assert_allclose(values, run(net(2), x), rtol=0, atol=close * np.abs(values).max())


# --- refused ------------------------------------------------------------------------------------------------------


def refused_nets():
    def coupled(seed):
        net = Net(seed)
        hidden = net.linear(net.input("x", ("N", 4)), 4, 6)
        mean = net.op("ReduceMean", hidden, net.constant([0]), keepdims=1)
        return net.graph(net.linear(net.op("Sub", hidden, mean), 6, 3))

    def batched(seed):
        net = Net(seed)
        return net.graph(net.linear(net.op("Relu", net.linear(net.input("x", (4, 4)), 4, 6)), 6, 3))

    def convolved(seed):
        net = Net(seed)
        return net.graph(net.op("GlobalAveragePool", net.conv(net.input("x", ("N", 2, 6, 6)), 2, 4)))

    return [
        (coupled, "what it gives for a sample depends on the others in its batch"),
        (batched, "it takes batches of 4"),
        (convolved, "no linear layer of net"),
    ]


@pytest.mark.parametrize(("net", "said"), refused_nets())
def test_a_base_that_cannot_have_a_router_is_refused(net, said):
    own = routable(net(0), [net(1)], "mass")
    with pytest.raises(MatchError, match=said):
        own.made()


@pytest.mark.parametrize("method", ["twin_merging", "auto_switch"])
def test_a_router_that_tells_inputs_apart_needs_those_of_each_model(method):
    base = mlp((4, 6, 3), 0)
    with pytest.raises(UsageError, match=f"{method} has a router .* give `calibrate_of` once for each model"):
        mal_graph.assemble(base, [noisy(base, 0.1, 1)], method=method, ancestor=base, calibrate=samples_of(base, 30))


# --- the laws can fail --------------------------------------------------------------------------------------------


def test_experts_of_the_wrong_models_are_found(monkeypatch):
    kept = Routable.experts.func

    def swapped(self):
        return {name: several[::-1] for name, several in kept(self).items()}

    monkeypatch.setattr(Routable, "experts", property(swapped))
    with pytest.raises(AssertionError):
        test_with_all_weight_on_one_model_the_result_is_that_model("mass", "mlp")
