"""Laws of repair: what is measured, what it is brought to, and what stays."""

import numpy as np
import pytest
from builders import Net, cnn, correspondence_of, mlp, narrower, permuted_copy

import mal_graph
from mal_graph import registry
from mal_graph.errors import DataError
from mal_graph.evaluation import Moments, Place, Stream, measure, predict, walking
from mal_graph.matching import assign_in_order, find_foldable_norm
from mal_graph.merging import LayerLambdas, merge, plan_merge, repair
from mal_graph.merging.repairing import output_of, weight_steps
from mal_graph.network import find_layers
from mal_graph.symmetry import axis_groups

RUNNER = registry.runner()


def samples(count=200, shape=(8,), seed=0):
    return {"x": np.random.default_rng(seed).normal(0.3, 1.2, (count, *shape)).astype(np.float32)}


def images(count=60, seed=0):
    return samples(count, (3, 8, 8), seed)


def planned(base, donor, lam=0.4, unmatched="keep"):
    """A plan in identity order."""
    alignment = assign_in_order(correspondence_of(base, donor))
    return plan_merge(alignment, LayerLambdas.of(lam), unmatched=unmatched)


def places(graph):
    """Where the contractions of a graph are measured."""
    return [output_of(graph, layer, find_foldable_norm(graph, layer)) for layer in find_layers(graph) if layer.weight]


def statistics(graph, arrays):
    here = places(graph)
    found = measure(Stream(graph, arrays, RUNNER, [place.tensor for place in here]), here)
    return [found[place] for place in here]


def values_of(graph, arrays, tensors):
    return RUNNER.open(graph, read=tensors).run(arrays)


# --- measuring ---------------------------------------------------------------------------------------------------


def test_moments_do_not_depend_on_the_batches():
    rows = np.random.default_rng(0).normal(100, 0.1, (5, 90))
    found = Moments()
    for start, end in ((0, 1), (1, 40), (40, 41), (41, 90)):
        found.add(rows[:, start:end])
    np.testing.assert_allclose(found.mean, rows.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.sd, rows.std(axis=1), rtol=1e-9)


@pytest.mark.parametrize("limit", [50, 10**6], ids=["streamed", "at once"])
def test_what_is_measured_is_what_numpy_computes_on_the_whole_maps(monkeypatch, limit):
    graph, arrays = cnn((4, 6), 1, 0), images()
    monkeypatch.setattr("mal_graph.evaluation.activation_statistics.MAX_READ", limit)
    tensors = [node.outputs[0] for node in graph.nodes if node.op == "Conv"]
    found = measure(Stream(graph, arrays, RUNNER, tensors), [Place(name, 1) for name in tensors])
    for name, maps in values_of(graph, arrays, tensors).items():
        np.testing.assert_allclose(found[Place(name, 1)].mean, maps.mean(axis=(0, 2, 3)), atol=1e-5)
        np.testing.assert_allclose(found[Place(name, 1)].variance, maps.var(axis=(0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("style", ["gemm", "gemm_nt", "matmul", "transposed"])
def test_units_are_found_on_the_axis_that_the_operator_makes_them_on(style):
    graph = mlp((8, 7, 6, 5), 0, style)
    assert [moments.mean.shape for moments in statistics(graph, samples())] == [(7,), (6,), (5,)]


def test_units_of_a_linear_layer_over_positions_are_on_the_last_axis():
    net = Net(0)
    x = net.op("MatMul", net.input("x", ("N", 4, 8)), net.weight(8, 6))
    (moments,) = statistics(net.graph(net.op("Add", x, net.weight(6))), samples(shape=(4, 8)))
    assert moments.mean.shape == (6,)


@pytest.mark.parametrize(
    ("equation", "shape"), [("ntk,kc->ntc", (5, 6)), ("ck,ntk->nct", (6, 5)), ("nkt,kc->cnt", (5, 6))]
)
def test_an_einsum_makes_units_where_its_letter_is(equation, shape):
    net = Net(0)
    x = net.input("x", ("N", 5 if equation.startswith("nk") else 4, 4 if equation.startswith("nk") else 5))
    w = net.weight(*shape)
    operands = (w, x) if equation.startswith("ck") else (x, w)
    (place,) = places(net.graph(net.op("Einsum", *operands, equation=equation)))
    out = values_of(
        net.graph(place.tensor), samples(3, (5, 4) if equation.startswith("nk") else (4, 5)), [place.tensor]
    )
    assert out[place.tensor].shape[place.axis] == 6


# --- goals -------------------------------------------------------------------------------------------------------

NEAR = 1e-5  # relative: what float32 leaves of a mean or a deviation that was set exactly


PAIRS = {
    "mlp": lambda: (mlp((8, 12, 10, 5), 0), mlp((8, 12, 10, 5), 1), samples()),
    "matmul": lambda: (mlp((8, 12, 10, 5), 0, "matmul"), mlp((8, 12, 10, 5), 1), samples()),
    "cnn": lambda: (cnn((6, 8), 1, 0, bn=False), cnn((6, 8), 1, 1, bn=False), images()),
    "a BatchNormalization in the donor": lambda: (cnn((6, 8), 1, 0, bn=False), cnn((6, 8), 1, 1), images()),
    "a BatchNormalization in the base": lambda: (cnn((6, 8), 1, 0), cnn((6, 8), 1, 1, bn=False), images()),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_after_repair_every_unit_has_the_mean_and_deviation_of_its_goal(pair):
    base, donor, arrays = PAIRS[pair]()
    made = planned(base, donor, 0.4)
    result, done = repair(merge(made), made, arrays, RUNNER)
    before, after = statistics(merge(made), arrays), statistics(result, arrays)
    goals = [
        tuple(0.6 * a + 0.4 * b for a, b in ((mine.mean, theirs.mean), (mine.sd, theirs.sd)))
        for mine, theirs in zip(statistics(base, arrays), statistics(donor, arrays), strict=True)
    ]
    assert len(done.rescaled) == len(goals)
    for found, (mean, sd) in zip(after, goals, strict=True):
        np.testing.assert_allclose(found.mean, mean, atol=NEAR * sd.max())
        np.testing.assert_allclose(found.sd, sd, rtol=NEAR)
    assert not all(np.allclose(found.sd, sd, rtol=0.05) for found, (_, sd) in zip(before, goals, strict=True))


def test_units_without_a_partner_keep_the_bases_goal():
    base, wide = mlp((8, 12, 5), 0), mlp((8, 12, 5), 1)
    donor, _ = narrower(wide, axis_groups(wide), 0)
    made = planned(base, donor, 0.4)
    (order,) = made.alignment.orders
    assert (order < 0).any()
    result, _ = repair(merge(made), made, samples(), RUNNER)
    mine, after = statistics(base, samples())[0], statistics(result, samples())[0]
    np.testing.assert_allclose(after.mean[order < 0], mine.mean[order < 0], atol=NEAR * mine.sd.max())
    np.testing.assert_allclose(after.sd[order < 0], mine.sd[order < 0], rtol=NEAR)
    # Those with one have moved: a thousand times further than rounding does.
    assert not np.allclose(after.sd[order >= 0], mine.sd[order >= 0], rtol=0.01)


@pytest.mark.parametrize("make", [lambda: mlp((8, 12, 10, 5), 0), lambda: cnn((6, 8), 1, 0, bn=False)])
def test_repairing_a_model_towards_itself_changes_nothing(make):
    base = make()
    arrays = samples() if "mlp" in base.name else images()
    made = planned(base, base)
    result, done = repair(base, made, arrays, RUNNER)
    assert done.rescaled
    for name, weight in base.weights.items():
        if weight.is_float:
            np.testing.assert_allclose(result.weights[name].read(), weight.read(), rtol=1e-4, atol=1e-5)


def test_a_dead_unit_is_left_as_it_is():
    """Its deviation is 0 and no factor gives it another."""
    base, donor = mlp((8, 12, 5), 0), mlp((8, 12, 5), 1)
    dead = base.weights["w0"].read().copy()
    dead[3] = 0
    base, donor = (
        graph.with_weights({"w0": np.where(dead == 0, 0, graph.weights["w0"].read())}) for graph in (base, donor)
    )
    made = planned(base, donor)
    result, _ = repair(merge(made), made, samples(), RUNNER)
    assert (result.weights["w0"].read()[3] == 0).all()
    np.testing.assert_allclose(
        statistics(result, samples())[0].mean[3],
        0.6 * base.weights["w1"].read()[3] + 0.4 * donor.weights["w1"].read()[3],
        rtol=1e-5,
    )


# --- BatchNormalization ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda s: cnn((6, 8), 1, s), lambda s: cnn((6, 8), 1, s, concat=True, depthwise=True)]
)
def test_statistics_are_reset_to_those_of_the_data_behind_what_was_reset_before(make):
    """The oracle: numpy on the whole maps of the finished model. What enters a BatchNormalization in it depends on all
    that were reset before."""
    base, donor, arrays = make(0), make(1), images()
    made = planned(base, donor)
    result, done = repair(merge(made), made, arrays, RUNNER)
    norms = [node for node in result.nodes if node.op == "BatchNormalization"]
    assert set(done.reset) == {node.name for node in norms}
    maps = values_of(result, arrays, [node.inputs[0] for node in norms])
    for node in norms:
        mean, variance = (result.weights[name].read() for name in node.inputs[3:])
        np.testing.assert_allclose(mean, maps[node.inputs[0]].mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, maps[node.inputs[0]].var(axis=(0, 2, 3)), rtol=1e-4)


def test_scale_and_shift_are_those_of_the_merge():
    base, donor = cnn((6, 8), 1, 0), cnn((6, 8), 1, 1)
    made = planned(base, donor)
    result, _ = repair(merge(made), made, images(), RUNNER)
    for node in (node for node in result.nodes if node.op == "BatchNormalization"):
        for name in node.inputs[1:3]:
            assert np.array_equal(result.weights[name].read(), merge(made).weights[name].read())


@pytest.mark.torch
def test_statistics_are_those_that_torch_finds_in_one_batch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    def module(seed):
        torch.manual_seed(seed)
        made = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6, momentum=1.0), torch.nn.ReLU(),
            torch.nn.Conv2d(6, 8, 3), torch.nn.BatchNorm2d(8, momentum=1.0), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5),
        )  # fmt: skip
        return made.eval()

    arrays = images(64)
    example = torch.from_numpy(arrays["x"][:4])
    base, donor = (mal_graph.trace(module(seed), example) for seed in (1, 2))
    made = planned(base, donor)
    result, done = repair(merge(made), made, arrays, RUNNER)
    assert len(done.reset) == 2
    theirs = module(0)
    theirs.load_state_dict(mal_graph.state_dict(merge(made)))
    theirs.train()(torch.from_numpy(arrays["x"]))
    state = mal_graph.state_dict(result)
    for layer, size in (("1", 64 * 36), ("4", 64 * 16)):
        np.testing.assert_allclose(
            state[f"{layer}.running_mean"], theirs.state_dict()[f"{layer}.running_mean"], atol=1e-5
        )
        unbiased = theirs.state_dict()[f"{layer}.running_var"].numpy()
        np.testing.assert_allclose(state[f"{layer}.running_var"], unbiased * (size - 1) / size, rtol=1e-4)


# --- slots and ties ----------------------------------------------------------------------------------------------


def unbiased(seed, op):
    net = Net(seed)
    x, w = net.input("x", ("N", 8)), net.weight(8, 6)
    x = net.op(op, x, w)
    return net.graph(net.linear(net.op("Relu", x), 6, 4))


@pytest.mark.parametrize(("op", "shifted"), [("Gemm", True), ("MatMul", False)])
def test_a_layer_without_a_bias_gets_one_where_its_operator_takes_one_and_else_the_deviation_alone(op, shifted):
    base, donor, arrays = unbiased(0, op), unbiased(1, op), samples()
    made = planned(base, donor, 0.5)
    result, _ = repair(merge(made), made, arrays, RUNNER)
    mine, theirs, after = (statistics(graph, arrays)[0] for graph in (base, donor, result))
    np.testing.assert_allclose(after.sd, (mine.sd + theirs.sd) / 2, rtol=1e-4)
    assert np.allclose(after.mean, (mine.mean + theirs.mean) / 2, atol=1e-4) is shifted


def test_a_shared_weight_is_left_and_said():
    def net(seed):
        made = Net(seed)
        x, w = made.linear(made.input("x", ("N", 8)), 8, 6), made.weight(6, 6)
        return made.graph(made.op("MatMul", made.op("Relu", made.op("MatMul", made.op("Relu", x), w)), w))

    base, donor = net(0), net(1)
    made = planned(base, donor)
    result, done = repair(merge(made), made, samples(), RUNNER)
    assert list(done.left.values()) == ["w2 is shared with another layer"]
    assert np.array_equal(result.weights["w2"].read(), merge(made).weights["w2"].read())


@pytest.mark.torch
def test_a_traced_module_without_biases_gets_them_and_runs():
    torch = pytest.importorskip("torch")

    def module(seed):
        torch.manual_seed(seed)
        first, second = torch.nn.Linear(8, 6, bias=False), torch.nn.Linear(6, 4, bias=False)
        return torch.nn.Sequential(first, torch.nn.ReLU(), second).eval()

    x = samples()["x"]
    base, donor = (mal_graph.trace(module(seed), torch.from_numpy(x[:4])) for seed in (0, 1))
    arrays = {base.inputs[0].name: x}
    made = planned(base, donor, 0.5)
    result, done = repair(merge(made), made, arrays, RUNNER)
    assert len(done.rescaled) == 2
    found, goals = mal_graph.to_module(result)(torch.from_numpy(x)), []
    for side in (base, donor):
        goals.append(RUNNER.open(side).run(arrays)[side.outputs[0].name])
    values = next(iter(found.values())) if isinstance(found, dict) else found
    np.testing.assert_allclose(values.detach().numpy().mean(axis=0), sum(g.mean(axis=0) for g in goals) / 2, atol=1e-4)
    np.testing.assert_allclose(values.detach().numpy().std(axis=0), sum(g.std(axis=0) for g in goals) / 2, rtol=1e-3)


# --- models of fixed batch, growth, half precision ---------------------------------------------------------------


def fixed(seed, batch):
    net = Net(seed)
    x = net.linear(net.input("x", (batch, 8)), 8, 6)
    return net.graph(net.linear(net.op("Relu", x), 6, 3))


def test_a_fixed_batch_is_never_filled_up():
    """Repeated samples would count twice: what is left over is not run."""
    base, donor, arrays = fixed(0, 4), fixed(1, 4), samples(66)
    made = planned(base, donor)
    result, done = repair(merge(made), made, arrays, RUNNER)
    assert done.samples == 64
    (first, *_), whole = statistics(result, arrays), statistics(result, {"x": arrays["x"][:64]})
    assert np.array_equal(first.mean, whole[0].mean)


def test_samples_for_less_than_a_fixed_batch_are_refused():
    with pytest.raises(DataError, match=r"there are 20 calibration samples: give at least 32, one batch of net"):
        mal_graph.assemble(fixed(0, 32), fixed(1, 32), calibrate=samples(20), method="mal")


def test_models_of_other_fixed_batches_cannot_be_compared_on_the_same_samples():
    with pytest.raises(DataError, match=r"the models run batches of 1 and 4 samples, so they cannot run on the same"):
        mal_graph.assemble(fixed(0, 4), fixed(1, 1), calibrate=samples(), match_by="both", verify=False)


def test_units_that_were_added_are_brought_to_the_donors_values():
    base, donor, arrays = mlp((8, 6, 5), 0), mlp((8, 9, 5), 1), samples()
    done = mal_graph.assemble(base, donor, lam=0.4, width="grow", calibrate=arrays, verify=False)
    (order,) = done.merged[0].plan.alignment.orders
    theirs, after = statistics(donor, arrays)[0], statistics(done.graph, arrays)[0]
    np.testing.assert_allclose(after.mean[6:], theirs.mean[order[6:]], rtol=NEAR, atol=NEAR)
    np.testing.assert_allclose(after.sd[6:], theirs.sd[order[6:]], rtol=NEAR)


def test_half_precision_stays_and_meets_the_goals_as_far_as_it_can():
    base, donor = (mlp((8, 12, 5), seed, dtype="float16") for seed in (0, 1))
    arrays = samples()
    made = planned(base, donor, 0.5)
    result, _ = repair(merge(made), made, arrays, RUNNER)
    assert result.weights["w0"].read().dtype == np.float16
    mine, theirs, after = (statistics(graph, arrays)[0] for graph in (base, donor, result))
    np.testing.assert_allclose(after.sd, (mine.sd + theirs.sd) / 2, rtol=5e-3)


# --- the pipeline ------------------------------------------------------------------------------------------------


def test_at_lambda_0_the_base_stays_bit_for_bit():
    base, donor = cnn((6, 8), 1, 0), cnn((6, 8), 1, 1)
    result = mal_graph.assemble(base, donor, lam=0.0, calibrate=images(), verify=False)
    assert result.graph is base


def test_a_layer_at_lambda_0_stays_and_every_other_has_the_goal_of_its_own_lambda():
    base, donor, arrays = mlp((8, 12, 10, 5), 0), mlp((8, 12, 10, 5), 1), samples()
    done = mal_graph.assemble(
        base, donor, lam=0.5, lam_for={"Gemm_0": 0.0, "Gemm_2": 0.25}, calibrate=arrays, verify=False
    )
    assert done.merged[0].repair.rescaled == ("Gemm_2", "Gemm_4")
    assert all(np.array_equal(done.graph.weights[name].read(), base.weights[name].read()) for name in ("w0", "w1"))
    orders = done.merged[0].plan.alignment.orders
    mine, theirs, after = (statistics(graph, arrays) for graph in (base, donor, done.graph))
    np.testing.assert_allclose(after[1].sd, 0.75 * mine[1].sd + 0.25 * theirs[1].sd[orders[1]], rtol=NEAR)
    np.testing.assert_allclose(after[2].sd, 0.5 * mine[2].sd + 0.5 * theirs[2].sd, rtol=NEAR)


def test_every_control_is_repaired_and_the_base_alone_too():
    base, donor, arrays = mlp((8, 12, 10, 5), 0), mlp((8, 12, 10, 5), 1), samples()
    data = {**samples(40, seed=1), "labels": np.random.default_rng(0).integers(0, 5, 40)}
    plain = mal_graph.assemble(base, donor, data=data, verify=False, method="mal")
    done = mal_graph.assemble(base, donor, data=data, calibrate=arrays, verify=False, method="mal")
    scores = [{score.arm: score.loss for score in found.scores} for found in (plain, done)]
    assert set(scores[1]) - set(scores[0]) == {"base, repaired"}
    assert [arm for arm, loss in scores[0].items() if scores[1][arm] == loss] == ["base", "donor", "ensemble"]
    made = done.merged[0].plan
    alone, _ = repair(base, made, arrays, RUNNER)
    assert np.isclose(scores[1]["base, repaired"], mal_graph.evaluate(alone, data).loss)


def test_labels_among_the_calibration_inputs_change_nothing():
    base, donor, arrays = mlp((8, 12, 5), 0), mlp((8, 12, 5), 1), samples()
    labelled = {**arrays, "labels": np.zeros(3)}
    results = [
        mal_graph.assemble(base, donor, calibrate=given, verify=False, method="mal") for given in (arrays, labelled)
    ]
    inputs = {**samples(9, seed=2), "labels": np.zeros(9, np.int64)}
    assert np.array_equal(*(predict(found.graph, inputs).values for found in results))


def test_donors_are_repaired_one_after_the_other():
    base, arrays = mlp((8, 12, 5), 0), samples()
    donors = [mlp((8, 12, 5), 1), mlp((8, 12, 5), 2)]
    both = mal_graph.assemble(base, donors, calibrate=arrays, verify=False, method="mal")
    first = mal_graph.assemble(base, donors[0], calibrate=arrays, verify=False, method="mal")
    second = mal_graph.assemble(first.graph, donors[1], calibrate=arrays, verify=False, method="mal")
    for name, weight in both.graph.weights.items():
        assert np.array_equal(weight.read(), second.graph.weights[name].read())


def test_a_shuffled_copy_is_repaired_to_the_base():
    base = cnn((6, 8), 1, 0, bn=False)
    donor, _ = permuted_copy(base, axis_groups(base), 1)
    result = mal_graph.assemble(base, donor, lam=0.5, calibrate=images(), verify=False)
    for step in weight_steps(result.merged[0].plan):
        name = step.tensor
        np.testing.assert_allclose(result.graph.weights[name].read(), base.weights[name].read(), rtol=1e-4, atol=1e-5)


def test_a_bias_of_one_value_for_all_units_is_left_as_a_bias():
    def net_of(seed):
        net = Net(seed)
        x = net.op("MatMul", net.input("x", ("N", 8)), net.weight(8, 1))
        x = net.op("Tanh", net.op("Add", x, net.constant(np.float32(seed))))
        return net.graph(net.linear(x, 1, 3))

    result = mal_graph.assemble(net_of(1), net_of(2), lam=0.5, calibrate=samples(), verify=False)
    assert result.passed
    assert result.merged[0].repair.rescaled


# --- what it takes -----------------------------------------------------------------------------------------------


class Counting:
    """A runner that counts the operators that are run, each for every sample."""

    def __init__(self):
        self.operators = 0

    def open(self, graph, **options):
        session = RUNNER.open(graph, **options)
        run = session.run

        def counted(inputs, *others, **more):
            self.operators += len(graph.nodes) * len(next(iter(inputs.values())))
            return run(inputs, *others, **more)

        session.run = counted
        return session


@pytest.mark.parametrize("depth", [2, 8])
def test_every_operator_runs_once_in_base_donor_and_merge(depth):
    """And once more for one sample of each, which says how much is read at once."""
    base, donor = (mlp((8, *[9] * depth, 5), seed) for seed in (0, 1))
    plan, counting, arrays = planned(base, donor), Counting(), samples(100)
    repair(merge(plan), plan, arrays, counting)
    assert counting.operators <= 3 * len(base.nodes) * (100 + 1)


@pytest.mark.parametrize("pair", PAIRS)
def test_what_goes_on_behind_a_repaired_layer_is_what_its_new_weights_give(pair, monkeypatch):
    """Samples that go on from rescaled values, beside samples that begin anew with the repaired weights."""
    base, donor, arrays = PAIRS[pair]()
    plan = planned(base, donor)
    once, _ = repair(merge(plan), plan, arrays, RUNNER)
    monkeypatch.setattr(walking, "MAX_KEPT", 0)
    anew, _ = repair(merge(plan), plan, arrays, RUNNER)
    for name, weight in anew.weights.items():
        size = np.abs(weight.read()).max()
        np.testing.assert_allclose(once.weights[name].read(), weight.read(), atol=1e-5 * size, err_msg=name)
