"""Merge methods as a whole job: what is refused before the work, what is kept, checked and told."""

import numpy as np
import pytest
from builders import cnn, inputs_of, mlp, narrower, permuted_copy, run

import mal_graph
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.symmetry import axis_groups
from mal_graph.workflows.stacking import ALIKE

QUICK = {"verify": False, "compare": False}  # what these say is not asked here


def tuned(graph, seed, size=0.02):
    """The graph after a little training, so to say."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    moved = {name: array * rng.uniform(1 - size, 1 + size, array.shape) for name, array in weights.items()}
    return graph.with_weights({name: array.astype(np.float32) for name, array in moved.items()}).named(f"tuned{seed}")


def test_copies_of_the_base_from_the_base_give_the_base_and_the_report_says_how():
    base = mlp((4, 6, 3), 0)
    copies = [permuted_copy(base, axis_groups(base), seed)[0] for seed in (1, 2)]
    result = mal_graph.assemble(base, copies, method="ties", ancestor=base, parameters={"density": 0.5})
    assert result.check(ALIKE).passed
    assert result.passed
    x = inputs_of(base)
    assert [np.array_equal(mine, own) for mine, own in zip(run(result.graph, x), run(base, x), strict=True)] == [True]
    document = result.to_dict()
    assert document["method"] == {
        "name": "ties",
        "source": "arXiv:2306.01708",
        "parameters": ["density=0.5"],
        "ancestor": base.name,
    }
    assert "merged by ties (arXiv:2306.01708) with density=0.5 from" in result.summary()
    assert document["shares"] == [0.0, 0.5, 0.5]


def test_a_result_that_is_not_the_common_function_of_its_models_does_not_pass(monkeypatch):
    """A method that moves what is equal is found by the check."""
    from mal_graph.methods import merge_method
    from mal_graph.workflows import stacking

    wrong = merge_method("linear")(lambda stack, **weights: stack.models[0] * 1.1)
    monkeypatch.setattr(stacking, "find_method", lambda name: wrong)
    base = mlp((4, 6, 3), 0)
    result = mal_graph.assemble(base, [permuted_copy(base, axis_groups(base), 1)[0]], method="linear", verify=False)
    assert [check.name for check in result.failures] == [ALIKE]


def test_the_copy_of_a_base_is_the_base_as_an_ancestor():
    base = mlp((4, 6, 3), 0)
    again = base.with_weights({name: weight.read().copy() for name, weight in base.weights.items()})
    result = mal_graph.assemble(base, tuned(base, 1), method="tsv_m", ancestor=again, **QUICK)
    assert result.stacked.is_from_base
    assert result.shares == (0.0, 1.0)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {"method": "ties"}, "ties merges what models have learned since they parted: give `ancestor`"),
        (1, {"method": "linear", "ancestor": 0}, "`ancestor` is given, and linear needs none"),
        (1, {"method": "mal", "ancestor": 0}, "`ancestor` is for a merge method such as ties, and `method` is mal"),
        (2, {"method": "slerp"}, "slerp merges 2 models, the base and 1 donor, and 2 donors are given"),
        (1, {"method": "tiez"}, r"`method` is 'tiez': did you mean ties\? choose auto, mal, average, union, or"),
        (1, {"method": "regmean"}, "regmean measures what layers read: give unlabelled inputs with `calibrate`"),
        (
            1,
            {"method": "regmean_plus_plus", "calibrate": {"x": np.zeros((20, 4), np.float32)}},
            "on the same ones it is the plain mean: give `calibrate_of` once for each model",
        ),
        (1, {"method": "linear", "calibrate_of": [{}, {}]}, "`calibrate_of` is given, and linear measures no"),
        (1, {"method": "mal", "calibrate_of": [{}, {}]}, "`calibrate_of` is for a merge method that measures"),
        (
            2,
            {"method": "pleas", "calibrate_of": [{"x": np.zeros((20, 4), np.float32)}] * 2},
            "`calibrate_of` is given 2 times for 3 models: give it once for each, the base first",
        ),
        (1, {"method": "regmean", "calibrate_of": 3}, "arrays of each model are given as a int: give a list"),
        (1, {"method": "ties", "lam": 0.5}, "`lam` is an option of `method` mal and average, not of ties"),
        (1, {"method": "ties", "width": "grow"}, "what a base is given .* is not that; make the widest model the base"),
        (1, {"method": "ties", "depth": "expand"}, "is not that; make the deepest model the base, or give another"),
        (1, {"parameters": ["weight=1"]}, "`parameters` is an option of `method` a merge method"),
        (
            1,
            {"method": "linear", "parameters": {"weigth": 1}},
            r"linear has no parameter 'weigth': did you mean weight\?",
        ),
        (1, {"method": "linear", "parameters": {"weight": -1}}, "`parameters` weight is -1.0: give a number from 0"),
        (1, {"method": "linear", "parameters": {"weight": 0}}, "the weights sum to zero, and linear divides by them"),
        (
            1,
            {"method": "linear", "parameters": {"2:weight": 1}},
            "2:weight is for a model that is not merged: there are 1",
        ),
        (1, {"method": "slerp", "parameters": {"1:t": 0.1}}, "1:t: t is one value for all models"),
        (1, {"method": "slerp", "parameters": {"t": (0.1, 2)}}, "`parameters` t is 2.0: give a number from 0 up to 1"),
        (1, {"method": "linear", "parameters": {"weight": "x"}}, "'weight' is 'x': give a number"),
    ],
)
def test_what_a_method_cannot_do_is_refused(count, options, message):
    base = mlp((4, 6, 3), 0)
    ancestor = base if options.pop("ancestor", None) is not None else None
    with pytest.raises(UsageError, match=message):
        mal_graph.assemble(base, [tuned(base, seed) for seed in range(count)], ancestor=ancestor, **options, **QUICK)


def test_what_models_count_is_the_mean_over_all_that_is_merged():
    base = mlp((4, 6, 3), 0)
    result = mal_graph.assemble(base, tuned(base, 1), method="slerp", parameters=["t=0,1"], **QUICK)
    sizes = [5 * 6, 7 * 3]  # weights and biases of the first layer and of the last one
    assert result.shares == pytest.approx([one / sum(sizes) for one in sizes])


def test_a_model_that_is_not_finite_is_refused_by_its_name():
    base = mlp((4, 6, 3), 0)
    name = next(iter(base.weights))
    broken = base.with_weights({name: np.full(base.weights[name].shape, np.nan, np.float32)}).named("broken")
    with pytest.raises(
        MatchError, match=f"broken cannot be merged: its tensor '{name}' holds numbers that are infinite"
    ):
        mal_graph.assemble(base, [tuned(base, 1), broken], method="linear", **QUICK)


def test_an_ancestor_of_another_architecture_is_refused():
    base = mlp((4, 6, 3), 0)
    narrow = mlp((4, 5, 3), 0)
    with pytest.raises(MatchError, match=r"nothing can be merged: layer .*: .*, the ancestor, has fewer units"):
        mal_graph.assemble(base, tuned(base, 1), method="ties", ancestor=cut_to(narrow, base), **QUICK)
    with pytest.raises(MatchError, match=r"the inputs of .* do not fit"):
        mal_graph.assemble(base, tuned(base, 1), method="ties", ancestor=cnn((4,), blocks=0, size=4), **QUICK)


def test_layers_that_the_ancestor_lacks_keep_the_weights_of_the_base():
    base, narrow = mlp((4, 6, 5, 3), 0), mlp((4, 6, 4, 3), 0)
    result = mal_graph.assemble(base, tuned(base, 1), method="task_arithmetic", ancestor=cut_to(narrow, base), **QUICK)
    reasons = [entry["reason"] for entry in result.to_dict()["skipped"]]
    assert len(reasons) == 2
    assert all(reason.endswith("the ancestor, has fewer units there") for reason in reasons)
    assert len({entry["base"] for entry in result.to_dict()["merged"]}) == 1


def cut_to(narrow, base):
    """A narrower model with the base's numbers."""
    cut = {name: base.weights[name].read()[tuple(map(slice, own.shape))] for name, own in narrow.weights.items()}
    return narrow.with_weights(cut)


@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_was_trained_apart_is_no_ancestor(seed):
    base = mlp((6, 24, 16, 3), seed)
    apart = mlp((6, 24, 16, 3), seed + 100).named("apart")
    with pytest.raises(
        MatchError, match=r"apart is no ancestor of .*: the cosine of their aligned weights is 0\.\d\d, "
    ):
        mal_graph.assemble(base, tuned(base, 1), method="ties", ancestor=apart, **QUICK)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
def test_a_base_may_be_far_from_its_ancestor_which_is_told(share):
    """Tuned by up to one and a half times what was there."""
    ancestor = mlp((6, 24, 16, 3), 0)
    other = mlp((6, 24, 16, 3), 1)
    far = {name: w.read() + np.float32(share) * other.weights[name].read() for name, w in ancestor.weights.items()}
    base = ancestor.with_weights(far)
    result = mal_graph.assemble(base, tuned(base, 1), method="ties", ancestor=ancestor, **QUICK)
    assert any("is far from the base for an ancestor" in note for note in result.notes) == (share > 1)


def test_fine_tunes_without_an_ancestor_are_told():
    base = mlp((4, 6, 3), 0)
    with_none = mal_graph.assemble(base, tuned(base, 1), method="linear", **QUICK)
    assert any(
        "merge methods such as ties can do more with that model as their `ancestor`" in n for n in with_none.notes
    )
    with_one = mal_graph.assemble(base, tuned(base, 1), method="ties", ancestor=base, **QUICK)
    assert not any("can do more" in note for note in with_one.notes)


def test_statistics_are_measured_anew_where_there_are_inputs():
    base = cnn((4,), blocks=0, size=4)
    donor = tuned(base, 1)
    inputs = {"x": np.random.default_rng(0).normal(size=(64, 3, 4, 4)).astype(np.float32)}
    result = mal_graph.assemble(base, donor, method="linear", calibrate=inputs, **QUICK)
    norm = next(node for node in base.nodes if node.op == "BatchNormalization")
    assert result.merged[-1].repair.reset == (norm.name,)
    plain = mal_graph.assemble(base, donor, method="linear", **QUICK)
    variance = norm.inputs[4]
    mean = (base.weights[variance].read() + donor.weights[variance].read()) / 2
    np.testing.assert_allclose(plain.graph.weights[variance].read(), mean, rtol=1e-6)  # float32
    assert not np.allclose(result.graph.weights[variance].read(), mean, rtol=1e-2)


def inputs_of_each(count, scale=1.0):
    rng = np.random.default_rng(0)
    return [{"x": (scale * (1 + place) * rng.normal(size=(20, 4))).astype(np.float32)} for place in range(count)]


def test_what_layers_read_is_measured_on_the_inputs_of_each_model():
    base = mlp((4, 6, 3), 0)
    donor = permuted_copy(tuned(base, 1, 0.3), axis_groups(base), 2)[0]
    each = inputs_of_each(2)
    apart = mal_graph.assemble(base, donor, method="regmean", calibrate_of=each, **QUICK)
    alike = mal_graph.assemble(base, donor, method="regmean", calibrate=each[0], **QUICK)
    one = mal_graph.assemble(base, donor, method="regmean", calibrate_of=[each[0]] * 2, **QUICK)
    first, *_ = (name for name, weight in base.weights.items() if len(weight.shape) == 2)
    weights = [result.graph.weights[first].read() for result in (apart, alike, one)]
    assert np.array_equal(weights[1], weights[2])
    assert not np.allclose(weights[0], weights[1], rtol=1e-3)
    assert not any("plain mean" in note for note in apart.notes)
    head = mal_graph.assemble(base, donor, method="fisher", calibrate_of=each, **QUICK)
    assert "fisher measured 1 of 2 weights; the others are the plain mean" in head.notes
    assert apart.to_dict()["config"]["calibrate_of"] == {
        "0:x": {"dtype": "float32", "shape": [20, 4]},
        "1:x": {"dtype": "float32", "shape": [20, 4]},
    }


def test_copies_of_the_base_give_the_base_by_what_they_read_too():
    base = mlp((4, 6, 3), 0)
    copies = [permuted_copy(base, axis_groups(base), seed)[0] for seed in (1, 2)]
    result = mal_graph.assemble(base, copies, method="regmean_plus_plus", calibrate_of=inputs_of_each(3), verify=False)
    assert result.check(ALIKE).passed
    assert all(
        np.array_equal(weight.read(), base.weights[name].read()) for name, weight in result.graph.weights.items()
    )


def test_inputs_of_a_model_that_do_not_fit_are_refused():
    base = mlp((4, 6, 3), 0)
    few = [{"x": np.zeros((20, 4), np.float32)}, {"x": np.zeros((3, 4), np.float32)}]
    with pytest.raises(DataError, match="there are 3 calibration samples: give at least 16"):
        mal_graph.assemble(base, tuned(base, 1), method="regmean", calibrate_of=few, **QUICK)
    with pytest.raises(DataError, match="the array 'x' has no number of a model in front: call it 1:x, or so"):
        mal_graph.assemble(base, tuned(base, 1), method="regmean", calibrate_of=few[0], **QUICK)


def test_scores_stand_beside_the_plain_average_and_other_orders():
    base = mlp((4, 6, 3), 0)
    donor = permuted_copy(tuned(base, 1), axis_groups(base), 2)[0]
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 4)).astype(np.float32), "labels": rng.integers(0, 3, 40)}
    result = mal_graph.assemble(base, donor, method="linear", data=data, **QUICK)
    by_name = {score.arm: score for score in result.scores}
    assert {"base", "donor", "merged", "plain average", "random permutation", "random donor", "ensemble"} <= set(
        by_name
    )
    assert by_name["merged"].loss != by_name["plain average"].loss != by_name["random permutation"].loss
    same = mal_graph.assemble(base, tuned(base, 1), method="linear", data=data, **QUICK)
    in_order = {score.arm: score for score in same.scores}
    assert in_order["merged"].loss == pytest.approx(in_order["plain average"].loss, rel=1e-6)


@pytest.mark.parametrize("method", ["c2m3", pytest.param("merge_many", marks=pytest.mark.slow)])
def test_models_aligned_to_each_other_are_merged_whatever_their_orders(method):
    base = mlp((4, 12, 3), 0)
    donors = [noisy(base, seed, 0.5) for seed in (1, 2, 3)]
    moved = [permuted_copy(donor, axis_groups(base), seed)[0] for seed, donor in enumerate(donors)]
    mine, theirs = (mal_graph.assemble(base, own, method=method) for own in (donors, moved))
    assert mine.passed
    assert theirs.passed
    for name, weight in mine.graph.weights.items():
        np.testing.assert_allclose(theirs.graph.weights[name].read(), weight.read(), rtol=0, atol=1e-6)  # float32
    copies = [permuted_copy(base, axis_groups(base), seed)[0] for seed in (1, 2)]
    result = mal_graph.assemble(base, copies, method=method)
    assert result.check(ALIKE).passed
    assert all(np.array_equal(w.read(), base.weights[name].read()) for name, w in result.graph.weights.items())


def noisy(graph, seed, size):
    """The graph with noise of so many deviations on every weight."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items()}
    moved = {name: array + size * array.std() * rng.standard_normal(array.shape) for name, array in weights.items()}
    return graph.with_weights({name: array.astype(np.float32) for name, array in moved.items()}).named(f"noisy{seed}")


def test_models_of_other_widths_are_aligned_to_each_other_too():
    base = mlp((4, 12, 3), 0)
    thin = narrower(noisy(base, 1, 0.5), axis_groups(base), 0)[0].named("thin")
    result = mal_graph.assemble(base, [thin, noisy(base, 2, 0.5)], method="c2m3")
    assert result.passed
    assert result.graph.weights.keys() == base.weights.keys()
