"""The way to a result is chosen by its outputs, or by labels; where nothing is near the ensemble, that is said."""

import re

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, network, permuted_copy, reseeded, run
from onnx import TensorProto

import mal_graph
from mal_graph.errors import MalGraphError, MatchError, ShapeError
from mal_graph.graph import LayerGraph
from mal_graph.workflows import choosing


def tuned(graph, seed, size=0.1):
    """A model that shares its ancestor with `graph`."""
    rng = np.random.default_rng(seed)
    moved = {
        name: (weight.read() * (1 + size * rng.standard_normal(weight.shape))).astype(weight.dtype)
        for name, weight in graph.weights.items()
        if weight.is_float
    }
    return graph.with_weights(moved)


def redundant(widths, seed):
    """A perceptron whose hidden units are few, each several times over: much can go."""
    wide = mlp(widths, seed)
    values = {name: np.array(weight.read()) for name, weight in wide.weights.items()}
    hidden = widths[1]
    few = np.arange(hidden) % (hidden // 4)
    first, bias, second = (
        name for name in values if values[name].shape in ((hidden, widths[0]), (hidden,), (widths[2], hidden))
    )
    values[first], values[bias] = values[first][few], values[bias][few]
    values[second] = values[second][:, few] / 4
    return wide.with_weights(values)


def test_relatives_are_averaged():
    ancestor = mlp((8, 24, 16, 5))
    result = mal_graph.assemble(tuned(ancestor, 1), tuned(ancestor, 2))
    assert result.choice.taken == "average"
    assert result.choice.is_good
    assert result.config.lam == 0.5
    assert "method: average, for the models have a common ancestor" in result.summary()


def test_redundant_strangers_become_a_union_at_the_cost_of_the_base():
    result = mal_graph.assemble(redundant((8, 32, 5), 0), redundant((8, 32, 5), 1))
    assert result.choice.taken == "union at 1.00x" or result.choice.taken.startswith("union at 0.")
    assert result.guard.accepts
    assert not result.verdict.is_worse


def test_where_nothing_is_near_the_ensemble_the_plain_merge_is_made_and_that_is_said():
    base, donor = cnn((4, 4), residual=False), cnn((4, 4), seed=1, residual=False)
    result = mal_graph.assemble(base, donor, budget=1.05)
    assert result.choice.taken == "mal"
    assert not result.choice.is_good
    assert result.verdict.is_worse
    assert result.verdict.text.startswith("expected to be worse than the base: nothing within 1.05 times")
    assert "`budget`=full" in result.verdict.advice
    assert result.config.lam == 0.3


def test_outputs_that_cannot_be_averaged_leave_the_plain_merge():
    base, donor = mlp((8, 24, 5)), mlp((8, 24, 4), seed=1)
    result = mal_graph.assemble(base, donor)
    assert result.choice.taken == "mal"
    assert "cannot be averaged" in result.choice.why


@pytest.mark.parametrize("is_decided", [False, True])
def test_copies_are_merged_whether_or_not_their_outputs_can_be_averaged(is_decided):
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 12, "matmul"))
    x = net.linear(x, 12, 5, "matmul")
    base = net.graph(net.op("ArgMax", x, axis=1) if is_decided else x)
    result = mal_graph.assemble(base, permuted_copy(base, network(base).groups)[0])
    assert result.choice == choosing.Choice("mal", choosing.SAME, True)
    assert not result.verdict.is_worse


def test_labels_decide_where_there_are_any_and_the_other_half_is_reported():
    base, donor = redundant((8, 32, 5), 0), redundant((8, 32, 5), 1)
    x = inputs_of(base)["x"]
    x = np.random.default_rng(0).standard_normal((200, x.shape[1])).astype(np.float32)
    labels = sum(run_once(graph, x) for graph in (base, donor)).argmax(1)
    result = mal_graph.assemble(base, donor, data={"x": x, "labels": labels})
    by_name = {one.name: one for one in result.pareto}
    assert all(one.score.samples == one.deciding.samples == 100 for one in by_name.values())
    assert {"base", "donor", "ensemble of outputs"} <= by_name.keys()
    assert by_name[result.choice.taken].deciding.metric > by_name["base"].deciding.metric
    assert all(score.samples == 100 for score in result.scores)
    assert not result.verdict.is_worse


WAYS = {
    "average": (lambda: [tuned(mlp((8, 24, 16, 5)), seed) for seed in (1, 2)], {}),
    "union": (lambda: [redundant((8, 32, 5), seed) for seed in (0, 1)], {}),
    "union alone": (lambda: [redundant((8, 32, 5), seed) for seed in (0, 1)], {"method": "union"}),
    "mal": (lambda: [mlp((8, 24, 5)), mlp((8, 24, 5), seed=1)], {"budget": 0.05}),
    "mal alone": (lambda: [mlp((8, 24, 5)), mlp((8, 24, 5), seed=1)], {"method": "mal"}),
    "mal, where nothing else can be tried": (lambda: [with_a_choice(0), with_a_choice(1)], {}),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("samples", [30, 200])
@pytest.mark.parametrize("way", WAYS)
def test_what_of_the_data_is_not_taken_literally_is_said_once(way, samples):
    make, options = WAYS[way]
    base, donor = make()
    (value,) = base.inputs
    x = np.random.default_rng(0).integers(0, 256, (samples, value.shape[1])).astype(np.uint8)
    classes = sum(run_once(graph, x.astype(np.float32)) for graph in (base, donor)).argmax(1)
    one_hot = np.eye(base.outputs[0].shape[1], dtype=int)[classes]
    notes = [
        "the labels are one-hot and are taken as class numbers",
        "the array for input 'x' is uint8 and taken as float32 from 0 to 255: scale it as in the model's training if "
        "that was done on other values",
    ]
    result = mal_graph.assemble(base, donor, data={"x": x, "labels": one_hot}, **options)
    assert [result.to_dict()["notes"].count(note) for note in notes] == [1, 1]
    note = "the array 'classes' is taken as the labels"
    result = mal_graph.assemble(base, donor, data={"x": x, "classes": classes}, **options)
    assert result.to_dict()["notes"].count(note) == 1


def run_once(graph, x):
    from builders import run

    return run(graph, {"x": x}, "onnxruntime")[0]


def test_an_option_of_the_paper_means_the_paper():
    base, donor = mlp((8, 24, 5)), mlp((8, 24, 5), seed=1)
    result = mal_graph.assemble(base, donor, lam=0.2)
    assert result.choice is None
    assert result.config.method == "mal"


def test_a_larger_budget_is_used_where_it_is_given():
    base, donor = mlp((8, 24, 5)), mlp((8, 24, 5), seed=1)
    result = mal_graph.assemble(base, donor, budget=2.5)
    assert any(one.cost > 1.6 for one in result.pareto if one.name.startswith("union"))


@pytest.mark.parametrize("seed", range(3))
def test_the_guard_of_the_choice_lets_no_noise_through(seed, monkeypatch):
    """Mutation: a union whose parts were redrawn is refused."""
    base, donor = redundant((8, 32, 5), seed), redundant((8, 32, 5), seed + 7)
    whole = choosing.Joint.at

    def spoilt(self, budget, **options):
        made = whole(self, budget, **options)
        return type(made)(made.counts, made.parts, spoil(made.graph, seed))

    monkeypatch.setattr(choosing.Joint, "at", spoilt)
    result = mal_graph.assemble(base, donor)
    assert not result.choice.taken.startswith("union")


def spoil(graph: LayerGraph, seed: int) -> LayerGraph:
    return reseeded(graph, seed)


def test_what_is_expected_to_be_worse_is_not_written_where_that_is_wanted(tmp_path, capsys):
    from builders import save

    from mal_graph.cli.app import main

    for name, graph in zip("ab", (cnn((4, 4), residual=False), cnn((4, 4), seed=1, residual=False)), strict=True):
        save(graph, tmp_path / f"{name}.onnx")
    words = ["assemble", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "-o", str(tmp_path / "out.onnx"), "-q"]
    assert main([*words, "--budget", "1.05", "--fail-if-worse"]) == 1
    told = capsys.readouterr()
    assert not (tmp_path / "out.onnx").exists()
    assert "no model was written" in told.out
    assert "the result is worse than the base" in told.err
    assert main([*words, "--budget", "1.05"]) == 0
    assert (tmp_path / "out.onnx").exists()


def test_groups_are_verified_once_for_all_that_is_tried(monkeypatch):
    from mal_graph.workflows import steps

    verified = []
    whole = steps.verify

    def noted(graph, *rest, **named):
        verified.append(graph.name)
        return whole(graph, *rest, **named)

    monkeypatch.setattr(steps, "verify", noted)
    base, donor = mlp((8, 24, 5)), mlp((8, 20, 5), seed=1).named("donor")
    mal_graph.assemble(base, donor)
    assert sorted(verified) == sorted([base.name, donor.name])
    verified.clear()
    mal_graph.assemble(base, mlp((8, 24, 5), seed=1).named("donor"))
    assert len(verified) == 1  # the other differs in nothing that is verified


def of_a_number(seed):
    """A network whose only input is a single number, so that it knows no samples."""
    net = Net(seed)
    x = net.op("Mul", net.input("factor", ()), net.weight(2, 6))
    return net.graph(net.linear(net.op("Relu", net.linear(x, 6, 8)), 8, 3))


def with_a_choice(seed):
    """A network whose output holds places in its scores, and no tensor decides both parts of it alone."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    first = net.linear(net.op("Relu", net.linear(x, 6, 9)), 9, 8)
    chosen = net.op("Cast", net.op("ArgMax", first, axis=1, keepdims=1), to=TensorProto.FLOAT)
    return net.graph(net.op("Add", net.linear(first, 8, 3), chosen))


@pytest.mark.parametrize(
    ("make", "why"), [(of_a_number, "inputs of .* are single numbers"), (with_a_choice, "it holds what was decided")]
)
def test_models_that_cannot_stand_side_by_side_are_merged_as_in_the_paper(make, why):
    result = mal_graph.assemble(make(0), make(1))
    assert result.choice.taken == "mal"
    assert re.search(why, result.choice.why)
    with pytest.raises(MalGraphError, match=why):
        mal_graph.assemble(make(0), make(1), method="union")


def test_where_nothing_can_be_taken_away_the_plain_merge_is_made(monkeypatch):
    def fails(self, budget, **options):
        raise ShapeError("a size cannot be expressed")

    monkeypatch.setattr(choosing.Joint, "at", fails)
    assert mal_graph.assemble(mlp((8, 24, 5)), mlp((8, 24, 5), seed=1)).choice.taken == "mal"


def test_architectures_without_a_layer_in_common_stand_side_by_side():
    def pooled(seed):
        net = Net(seed)
        x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 12)
        x = net.op("Relu", x)
        return net.graph(net.conv(net.op("GlobalAveragePool", x), 12, 5, 3))

    def flat(seed):
        net = Net(seed)
        x = net.op("Relu", net.linear(net.op("Flatten", net.input("x", ("N", 3, 4, 4))), 48, 16))
        return net.graph(net.op("Reshape", net.linear(x, 16, 5), net.constant([0, 5, 1, 1])))

    base, donor = pooled(0), flat(1)
    with pytest.raises(MatchError):
        mal_graph.assemble(base, donor, method="mal")
    assert mal_graph.assemble(base, donor, budget=3).choice.taken.startswith("union")
    with pytest.raises(MatchError, match=r"no layer of .* corresponds .*; nothing could be tried within 0.01 times"):
        mal_graph.assemble(base, donor, budget=0.01)


@pytest.mark.parametrize("build", [lambda: mlp((8, 24, 16, 5)), cnn])
def test_a_copy_in_another_order_is_not_expected_to_be_worse(build):
    """The ensemble is the base there, but for rounding: how far others are from it is no multiple of that."""
    base = build()
    copy, _ = permuted_copy(base, network(base).groups)
    result = mal_graph.assemble(base, copy)
    assert not result.verdict.is_worse, result.verdict.text
    far = deviation(run(result.graph, inputs_of(base)), run(base, inputs_of(base)))
    assert far < 1e-4
