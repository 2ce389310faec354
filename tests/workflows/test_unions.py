"""Several models as one whose outputs are averaged, and one model thinned."""

import json

import numpy as np
import onnx
import pytest
from builders import Net, cnn, deviation, inputs_of, load, mlp, run, save, vit
from equivalent_nets.families import FAMILIES
from equivalent_nets.pairs import draw_pair

import mal_graph
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.network import count_multiplications, probe

HALF = 0.5


def mean_of(graphs, inputs):
    """The mean of the outputs of some models, in float64."""
    return [np.mean(values, axis=0) for values in zip(*(run(graph, inputs) for graph in graphs), strict=True)]


def family(name, seed):
    return load(draw_pair(seed, name, "units_permuted", combined=False).base, f"{name}{seed}")


PAIRS = {
    "mlp": lambda: (mlp((8, 24, 16, 5)), mlp((8, 16, 5), seed=1)),
    "cnn": lambda: (cnn((6, 8), residual=False), cnn((4, 6), seed=1, residual=False)),
    "residual cnn": lambda: (cnn((6, 8)), cnn((8, 8), blocks=2, seed=1)),
    "vit": lambda: (vit(), vit(1, 12)),
    "cnn beside vit": lambda: (cnn((6, 8)), vit(1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_with_a_full_budget_the_outputs_are_the_mean(name):
    graphs = PAIRS[name]()
    united = mal_graph.assemble(graphs[0], graphs[1], method="union", budget="full")
    inputs = inputs_of(graphs[0], seed=3)
    assert deviation(run(united.graph, inputs), mean_of(graphs, inputs)) < 1e-5
    assert united.guard.error < 1e-4
    assert united.passed


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "several_outputs"])
def test_any_family_can_be_united_and_written(name, tmp_path):
    base, donor = family(name, 0), family(name, 0)
    united = mal_graph.assemble(base, donor, method="union", budget="full")
    united.save(tmp_path / "u.onnx")
    inputs = inputs_of(base, seed=1)
    assert deviation(run(mal_graph.load(tmp_path / "u.onnx"), inputs), run(base, inputs)) < 1e-5


@pytest.mark.sampled(3)
@pytest.mark.parametrize("budget", [1.0, 1.5])
@pytest.mark.parametrize("name", PAIRS)
def test_the_budget_holds_on_the_written_file(name, budget, tmp_path):
    base, donor = PAIRS[name]()
    if "vit" in name:  # what has to stay of two takes more than one of them
        budget *= 2
    mal_graph.assemble(base, donor, method="union", budget=budget).save(tmp_path / "u.onnx")
    written = mal_graph.load(tmp_path / "u.onnx")
    inputs = inputs_of(base)
    costs = [count_multiplications(graph, probe(graph, inputs=inputs).shapes) for graph in (written, base)]
    assert costs[0] <= budget * costs[1]


def test_three_models_are_averaged_alike():
    graphs = [mlp((8, 12, 5), seed=seed) for seed in range(3)]
    united = mal_graph.assemble(graphs[0], graphs[1:], method="union", budget="full")
    inputs = inputs_of(graphs[0], seed=3)
    assert deviation(run(united.graph, inputs), mean_of(graphs, inputs)) < 1e-5
    assert [branch.share for branch in united.branches] == pytest.approx([1 / 3] * 3)


def with_outputs(seed, *kinds, opset=20):
    """A classifier that gives logits, probabilities and classes, as asked for."""
    net = Net(seed, opset=opset)
    x = net.input("x", ("N", 8))
    logits = net.linear(net.op("Relu", net.linear(x, 8, 12)), 12, 5)
    made = {
        "logits": lambda: logits,
        "probabilities": lambda: net.op("Softmax", logits, axis=-1),
        "classes": lambda: net.op("ArgMax", logits, axis=-1, keepdims=0),
    }
    proto = net.proto(*[made[kind]() for kind in kinds])
    for value, kind in zip(proto.graph.output, kinds, strict=True):
        old, value.name = value.name, kind
        for node in proto.graph.node:
            node.output[:] = [kind if name == old else name for name in node.output]
            node.input[:] = [kind if name == old else name for name in node.input]
    return load(proto)


def softmax(values):
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("kinds", [("logits", "probabilities", "classes"), ("classes", "logits"), ("classes",)])
def test_what_is_made_of_the_averaged_outputs_is_made_of_their_mean(kinds):
    graphs = [with_outputs(seed, *kinds) for seed in (0, 1)]
    inputs = inputs_of(graphs[0], seed=3)
    logits = np.mean([run(with_outputs(seed, "logits"), inputs)[0] for seed in (0, 1)], axis=0)
    expected = {"logits": logits, "probabilities": softmax(logits), "classes": logits.argmax(-1)}
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    for kind, values in zip(kinds, run(united.graph, inputs), strict=True):
        np.testing.assert_allclose(values, expected[kind], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", [("probabilities", "logits"), ("logits", "probabilities")])
def test_logits_and_probabilities_are_brought_to_what_the_base_gives(kinds):
    graphs = [with_outputs(seed, kind) for seed, kind in enumerate(kinds)]
    inputs = inputs_of(graphs[0], seed=3)
    logits = [run(with_outputs(seed, "logits"), inputs)[0] for seed in (0, 1)]
    given = np.mean(logits, axis=0) if kinds[0] == "logits" else np.mean([softmax(each) for each in logits], axis=0)
    united = mal_graph.assemble(*graphs, method="union", budget="full", pair=[(kinds[0], kinds[1])])
    np.testing.assert_allclose(run(united.graph, inputs)[0], given, rtol=1e-4, atol=1e-5)


def named(seed, labels):
    """A classifier that looks its class up in a list of names."""
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 12))
    scores = net.linear(x, 12, 3)
    return net.graph(scores, net.op("Gather", net.constant(labels), net.op("ArgMax", scores, axis=1, keepdims=0)))


def test_classes_in_another_order_are_put_in_the_base_s():
    base, donor = named(0, np.array([4, 5, 9])), named(1, np.array([9, 4, 5]))
    inputs = inputs_of(base, seed=3)
    united = mal_graph.assemble(base, donor, method="union", budget="full")
    mean = (run(base, inputs)[0] + run(donor, inputs)[0][:, [1, 2, 0]]) / 2
    np.testing.assert_allclose(run(united.graph, inputs)[0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(united.graph, inputs)[1], np.array([4, 5, 9])[mean.argmax(1)])


def test_other_classes_are_refused_by_name():
    with pytest.raises(MatchError, match=r"its classes are 4, 5, 9, those of .* 4, 5, 8"):
        mal_graph.assemble(named(0, np.array([4, 5, 9])), named(1, np.array([4, 5, 8])), method="union")


def test_models_of_other_opsets_are_brought_to_the_newer_one():
    graphs = [with_outputs(0, "logits", opset=13), with_outputs(1, "logits", opset=20)]
    inputs = inputs_of(graphs[0], seed=3)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    assert united.graph.opsets[""] == 20
    assert deviation(run(united.graph, inputs), mean_of(graphs, inputs)) < 1e-5


def test_what_both_compute_of_the_inputs_is_computed_once():
    def prepared(seed):
        net = Net(seed)
        x = net.input("x", ("N", 3, 8, 8))
        x = net.op(
            "Div",
            net.op("Sub", x, net.constant(np.full((1, 3, 1, 1), 0.4, np.float32))),
            net.constant(np.full((1, 3, 1, 1), 0.2, np.float32)),
        )
        return net.graph(net.linear(net.op("Flatten", net.op("Relu", net.conv(x, 3, 4))), 256, 5))

    united = mal_graph.assemble(prepared(0), prepared(1), method="union", budget="full")
    ops = [node.op for node in united.graph.nodes]
    assert (ops.count("Sub"), ops.count("Div"), ops.count("Conv")) == (1, 1, 2)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        mal_graph.assemble(*PAIRS["cnn"](), method="union", budget=1.2).save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_compressed_model_keeps_its_signature_and_says_what_it_lost(tmp_path):
    graph = cnn((12, 16))
    result = mal_graph.compress(graph, budget=0.5)
    result.save(tmp_path / "c.onnx")
    written = mal_graph.load(tmp_path / "c.onnx")
    assert (written.inputs, written.outputs) == (graph.inputs, graph.outputs)
    assert result.cost <= 0.5 * result.base_cost
    assert result.branches[0].error > 0
    assert "keeps" in result.summary(verbose=True)
    assert json.dumps(result.to_dict())
    onnx.checker.check_model(str(tmp_path / "c.onnx"))


def test_the_guard_refuses_what_lost_its_function():
    base, donor = PAIRS["mlp"]()
    poor = mal_graph.assemble(base, donor, method="union", budget=0.2)
    assert not poor.guard.accepts
    assert poor.verdict.is_worse


# --- bad input ----------------------------------------------------------------------------------------------------


def test_a_budget_below_what_has_to_stay_is_refused_with_the_least():
    with pytest.raises(UsageError, match=r"what cannot be taken away costs 0\.\d+ times .* give at least that"):
        mal_graph.compress(mlp(), budget=0.001)


@pytest.mark.parametrize("donors", [[], [1]])
def test_a_budget_above_all_units_is_said_and_takes_nothing_away(donors):
    base, others = mlp((8, 16, 5)), [mlp((8, 16, 5), seed=seed) for seed in donors]
    made = mal_graph.assemble(base, others, method="union", budget=5) if others else mal_graph.compress(base, budget=5)
    assert made.cost == made.full_cost
    assert (
        f"`budget` is 5, and all units together take {1 + len(donors)}.00: nothing has to be taken away" in made.notes
    )


@pytest.mark.parametrize("budget", [0, -1, "much", "nan"])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(UsageError, match=r"give a positive number, such as 1\.5, or full"):
        mal_graph.compress(mlp(), budget=budget)


def test_an_option_of_another_method_is_refused_by_name():
    with pytest.raises(UsageError, match="`lam` is an option of `method` mal and average, not of union"):
        mal_graph.assemble(mlp(), mlp(seed=1), method="union", lam=0.3)
    with pytest.raises(UsageError, match="`budget` is an option of `method` auto and union, not of mal"):
        mal_graph.assemble(mlp(), mlp(seed=1), budget=1.5, method="mal")


def test_outputs_of_other_shapes_are_refused_with_both_shapes():
    with pytest.raises(MatchError, match=r"cannot be averaged: its shape is \[3, 5\], in .* \[3, 4\]"):
        mal_graph.assemble(mlp((8, 12, 5)), mlp((8, 12, 4)), method="union")


def test_constant_inputs_are_no_reason_to_fail():
    base, donor = PAIRS["mlp"]()
    calibrate = {"x": np.ones((64, 8), np.float32)}
    united = mal_graph.assemble(base, donor, method="union", budget=1.0, calibrate=calibrate)
    assert united.passed


def test_nan_in_calibration_inputs_is_refused():
    base, donor = PAIRS["mlp"]()
    calibrate = {"x": np.full((64, 8), np.nan, np.float32)}
    with pytest.raises(DataError, match="holds NaN or infinity"):
        mal_graph.assemble(base, donor, method="union", calibrate=calibrate)


def test_a_model_written_by_the_command_line_is_the_same(tmp_path):
    from mal_graph.cli.app import main

    for name, graph in zip(("a", "b"), PAIRS["mlp"](), strict=True):
        save(graph, tmp_path / f"{name}.onnx")
    out, report = tmp_path / "u.onnx", tmp_path / "r.json"
    arguments = [
        "assemble",
        str(tmp_path / "a.onnx"),
        str(tmp_path / "b.onnx"),
        "--method",
        "union",
        "--budget",
        "1.2x",
    ]
    assert main([*arguments, "-o", str(out), "--report", str(report)]) == 0
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["schema"] == "mal-graph/union/3"
    assert told["cost"] <= 1.2 * told["base_cost"]


# --- folding ------------------------------------------------------------------------------------------------------

FOLDED = {name: PAIRS[name] for name in ("mlp", "cnn", "residual cnn")} | {
    "mlps of one width": lambda: (mlp((8, 24, 16, 5)), mlp((8, 24, 16, 5), seed=1)),
    "mlps of other widths": lambda: (mlp((8, 24, 16, 5)), mlp((8, 12, 20, 5), seed=1)),
    "residual cnns": lambda: (cnn((6, 8)), cnn((6, 8), seed=1)),
}
ALIKE = [name for name in FOLDED if name.startswith(("mlps", "residual cnns"))]


@pytest.mark.parametrize("name", [*ALIKE, "cnn"])
def test_with_no_unit_folded_the_outputs_are_the_mean(name):
    graphs = FOLDED[name]()
    folded = mal_graph.assemble(*graphs, method="union", fold=1.01)
    inputs = inputs_of(graphs[0], seed=3)
    assert deviation(run(folded.graph, inputs), mean_of(graphs, inputs)) < 1e-5
    assert folded.passed


@pytest.mark.parametrize("name", FOLDED)
def test_with_all_units_folded_it_is_the_plain_merge(name):
    graphs = FOLDED[name]()
    folded = mal_graph.assemble(*graphs, method="union", fold=-1)
    plain = mal_graph.assemble(*graphs, method="mal", lam=0.5, width="grow")
    inputs = inputs_of(graphs[0], seed=3)
    assert deviation(run(folded.graph, inputs), run(plain.graph, inputs)) == 0


def test_the_more_units_are_folded_the_less_it_costs():
    graphs = FOLDED["mlps of one width"]()
    inputs = inputs_of(graphs[0])
    costs = []
    for fold in (-1, 0.3, 0.6, 1.01):
        graph = mal_graph.assemble(*graphs, method="union", fold=fold).graph
        costs.append(count_multiplications(graph, probe(graph, inputs=inputs).shapes))
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_folding_has_no_budget():
    with pytest.raises(UsageError, match="`fold` says what is merged, and `budget` what is taken away"):
        mal_graph.assemble(*FOLDED["mlps of one width"](), method="union", fold=0.5, budget=1.5)


# --- forms --------------------------------------------------------------------------------------------------------


def held(result):
    """How many of its units each branch keeps, and how many it had."""
    return [
        tuple(sum(getattr(one, name) for one in each.sets) for name in ("kept", "units")) for each in result.branches
    ]


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual cnn"])
def test_with_the_base_kept_it_loses_no_unit_and_the_donor_does(name):
    base, donor = PAIRS[name]()
    united = mal_graph.assemble(base, donor, method="union", budget=1.3, keep="base")
    (kept, units), (left, had) = held(united)
    assert kept == units
    assert left < had
    assert united.branches[0].error < 1e-6
    assert united.cost <= 1.3 * united.base_cost


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("budget", [1.2, 1.3])
def test_the_form_that_is_not_named_is_the_one_with_the_smaller_error(name, budget):
    graphs = PAIRS[name]()
    free, none, base = (
        mal_graph.assemble(*graphs, method="union", budget=budget, keep=keep) for keep in (None, "none", "base")
    )
    assert free.guard.error == min(none.guard.error, base.guard.error)
    forms = [one for one in free.pareto if one.name.startswith("union")]
    assert sorted(one.error for one in forms) == sorted([none.guard.error, base.guard.error])
    assert [one.name for one in forms if one.is_result] == [free.choice.taken]
    assert [sum(one.name.startswith("union") for one in each.pareto) for each in (none, base)] == [1, 1]
    assert free.choice.taken.startswith(
        "union with the base whole" if base.guard.error < none.guard.error else "union at"
    )
    assert f"method: {free.choice.taken}, for it is the form whose outputs are nearer" in free.summary()
    assert free.check("budget").passed
    assert none.choice is None
    assert base.choice is None


def test_where_the_whole_base_costs_too_much_the_other_form_is_taken_and_that_is_said():
    united = mal_graph.assemble(*PAIRS["mlp"](), method="union", budget=0.8)
    assert united.choice.taken.startswith("union at 0.")
    assert "the whole base and what cannot be taken away cost 1." in united.choice.why


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_budget_too_small_for_the_whole_base_is_refused_with_one_that_is_enough(name):
    graphs = PAIRS[name]()
    with pytest.raises(UsageError, match=r"`budget` is 1, but the whole base and .* give at least that") as refused:
        mal_graph.assemble(*graphs, method="union", budget=1.0, keep="base")
    least = float(str(refused.value).split(" cost ")[1].split(" times")[0])
    assert mal_graph.assemble(*graphs, method="union", budget=least, keep="base").passed


@pytest.mark.parametrize("method", ["auto", "mal", "average"])
def test_what_is_kept_is_an_option_of_a_union_only(method):
    with pytest.raises(UsageError, match=f"`keep` is an option of `method` union, not of {method}"):
        mal_graph.assemble(*PAIRS["mlp"](), method=method, keep="base")
    with pytest.raises(UsageError, match="`keep` is 'donor': choose one of base, none"):
        mal_graph.assemble(*PAIRS["mlp"](), method="union", keep="donor")


def test_with_folding_nothing_is_kept_by_name():
    with pytest.raises(UsageError, match="with `fold` every model stays whole, and `keep` is for thinned ones"):
        mal_graph.assemble(*FOLDED["mlps of one width"](), method="union", fold=0.5, keep="base")


# --- inputs -------------------------------------------------------------------------------------------------------


def test_few_calibration_inputs_are_helped_by_noise_and_that_is_said():
    base, donor = mlp((8, 32, 32, 5)), mlp((8, 32, 32, 5), seed=1)
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    few, many = (
        mal_graph.assemble(base, donor, method="union", budget=1.2, calibrate={"x": x[:count]}) for count in (40, 400)
    )
    assert any("24 calibration inputs are few" in note for note in few.notes)
    assert not many.notes
    fresh = {"x": np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)}
    expected = mean_of([base, donor], fresh)
    gaps = [deviation(run(result.graph, fresh), expected) for result in (few, many)]
    assert gaps[0] < 3 * gaps[1]
