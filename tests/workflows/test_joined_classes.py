"""Classifiers of other classes as one: the result has the classes of all, by their names."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import Net, inputs_of, load, run, save
from onnx import TensorProto
from scipy.special import logsumexp, softmax

import mal_graph
from mal_graph.errors import MalGraphError, MatchError, UsageError
from mal_graph.label_lists import Form, LabelList, read_label_list
from mal_graph.workflows import timing
from mal_graph.workflows.joint import Joint, open_joint
from mal_graph.workflows.models import silent

PETS, FARM, SEA = ("cat", "dog", "emu"), ("dog", "hen", "cat", "pig"), ("cod", "eel")
UNION = {"method": "union", "labels": "union"}
FULL = {**UNION, "budget": "full"}


def classifier(seed, names, *behind, end="", note="names", form=Form.PYTHON_NAMES, opset=20):
    """A perceptron that notes what its classes are called, and what it makes of its scores."""
    net = Net(seed, opset=opset)
    scores = net.linear(net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 24)), 24, len(names))
    scores = net.op(end, scores, **({"axis": 1} if end == "Softmax" else {})) if end else scores
    return noted(net.proto(scores, *(make(net, scores, names) for make in behind)), names, note, form)


TYPES = {"ArgMax": TensorProto.INT64, "Gather": TensorProto.STRING}


def noted(proto, names, note="names", form=Form.PYTHON_NAMES):
    makers = {node.output[0]: node.op_type for node in proto.graph.node}
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = TYPES.get(makers[value.name], TensorProto.FLOAT)
    if note:
        proto.metadata_props.add(key=note, value=LabelList((), form).text(names))
    return load(proto)


def place(net, scores, names):
    return net.op("ArgMax", scores, axis=1, keepdims=0)


def name(net, scores, names):
    return net.op("Gather", net.constant(np.array(names, object)), place(net, scores, names))


def shares(net, scores, names):
    return net.op("Softmax", scores, axis=1)


def sigmoid(net, scores, names):
    return net.op("Sigmoid", scores)


def reordered(graph, order):
    """The same classifier with its last layer's rows, and its names, in another order."""
    names = read_label_list(graph.metadata["names"]).names
    last = {key: weight.read()[list(order)] for key, weight in graph.weights.items() if weight.shape[0] == len(names)}
    text = LabelList((), Form.PYTHON_NAMES).text([names[i] for i in order])
    moved = graph.with_weights(last)
    return replace(moved, metadata={"names": text})


def joined_logits(mine, theirs, names=(PETS, FARM)):
    """What the documentation says of logits, class by class."""
    levels = [logsumexp(each, axis=1) for each in (mine, theirs)]
    columns = []
    for one in dict.fromkeys((*names[0], *names[1])):
        own = [
            each[:, known.index(one)] - level
            for each, known, level in zip((mine, theirs), names, levels, strict=True)
            if one in known
        ]
        columns.append(np.mean(own, axis=0) + np.mean(levels, axis=0))
    return np.stack(columns, axis=1)


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("names", [(PETS, FARM), (PETS, SEA), (FARM, PETS), (FARM, ("pig", "hen"))])
def test_with_a_full_budget_it_is_what_the_documentation_says(names, opset):
    base, donor = (classifier(seed, own, opset=opset) for seed, own in enumerate(names))
    united = mal_graph.assemble(base, donor, **FULL)
    inputs = inputs_of(base, seed=3)
    expected = joined_logits(run(base, inputs)[0], run(donor, inputs)[0], names)
    np.testing.assert_allclose(run(united.graph, inputs)[0], expected, rtol=1e-4, atol=1e-5)
    assert united.guard.error < 1e-4
    (classes,) = united.classes.values()
    assert classes.names == tuple(dict.fromkeys((*names[0], *names[1])))
    assert united.graph.outputs[0].shape == ("N", len(classes.names))


def test_probabilities_become_the_mixture():
    base, donor = (classifier(seed, own, end="Softmax") for seed, own in enumerate((PETS, SEA)))
    inputs = inputs_of(base, seed=3)
    mixture = np.concatenate([run(graph, inputs)[0] / 2 for graph in (base, donor)], axis=1)
    np.testing.assert_allclose(run(mal_graph.assemble(base, donor, **FULL).graph, inputs)[0], mixture, rtol=1e-5)


def test_probabilities_of_each_class_for_itself_stay_what_they_are():
    base, donor = (classifier(seed, own, end="Sigmoid") for seed, own in enumerate((PETS, FARM)))
    inputs = inputs_of(base, seed=3)
    mine, theirs = (run(graph, inputs)[0] for graph in (base, donor))
    given = run(mal_graph.assemble(base, donor, **FULL).graph, inputs)[0]
    expected = [
        (mine[:, 0] + theirs[:, 2]) / 2,
        (mine[:, 1] + theirs[:, 0]) / 2,
        mine[:, 2],
        theirs[:, 1],
        theirs[:, 3],
    ]
    np.testing.assert_allclose(given, np.stack(expected, axis=1), rtol=1e-5)


def test_with_the_same_classes_it_is_the_same_file(tmp_path):
    base, donor = classifier(0, PETS), classifier(1, PETS)
    for labels in ("base", "union"):
        made = mal_graph.assemble(base, donor, method="union", labels=labels)
        mal_graph.save(made.graph, tmp_path / f"{labels}.onnx")  # without a note on the options
    bare = [classifier(seed, PETS, note="") for seed in (0, 1)]
    mal_graph.assemble(*bare, method="union").save(tmp_path / "bare.onnx")
    assert (tmp_path / "base.onnx").read_bytes() == (tmp_path / "union.onnx").read_bytes()
    plain = [mal_graph.load(tmp_path / f"{one}.onnx") for one in ("union", "bare")]
    inputs = inputs_of(base, seed=3)
    assert [node.op for node in plain[0].nodes] == [node.op for node in plain[1].nodes]
    np.testing.assert_array_equal(*(run(graph, inputs)[0] for graph in plain))


CALIBRATE = {"x": np.random.default_rng(5).standard_normal((400, 8)).astype(np.float32)}


@pytest.mark.parametrize(
    "options",
    [
        {"budget": "full"},
        {"budget": 1.4},
        {"budget": 1.6, "keep": "base"},
        {"budget": 1.6, "keep": "base", "calibrate": CALIBRATE},
    ],
)
@pytest.mark.parametrize("order", [(1, 2, 0, 3), (3, 2, 1, 0)])
def test_the_order_of_a_donor_s_classes_does_not_count(order, options):
    base, donor = classifier(0, PETS), classifier(1, FARM)
    inputs = inputs_of(base, seed=3)
    given = []
    for other in (donor, reordered(donor, order)):
        united = mal_graph.assemble(base, other, **UNION, **options)
        (classes,) = united.classes.values()
        scores = run(united.graph, inputs)[0]
        given.append(scores[:, [classes.names.index(one) for one in sorted(classes.names)]])
    np.testing.assert_allclose(given[0], given[1], rtol=1e-4, atol=1e-5)


def test_the_base_is_as_far_from_the_ensemble_as_it_is_and_the_ensemble_is_there():
    graphs = [classifier(0, PETS), classifier(1, FARM)]
    config = mal_graph.MergeConfig(**UNION)
    joint = open_joint(graphs, config, mal_graph.registry.runner(), silent)
    assert joint.error(graphs[0]) == pytest.approx(1)
    assert joint.error(joint.ensemble) == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("keep", ["base", "none"])
@pytest.mark.parametrize(
    ("names", "behind"), [((PETS, FARM), [sigmoid]), ((FARM, PETS), [sigmoid]), ((PETS, PETS[::-1]), [])]
)
def test_last_layers_that_are_fitted_together_come_nearer(names, behind, keep, monkeypatch):
    graphs = [classifier(seed, own, *behind) for seed, own in enumerate(names)]
    options = {**UNION, "budget": 1.5, "keep": keep, "calibrate": CALIBRATE}
    fitted = mal_graph.assemble(*graphs, **options)
    monkeypatch.setattr(Joint, "with_heads", lambda self, parts: parts)
    assert fitted.guard.error < mal_graph.assemble(*graphs, **options).guard.error


def test_three_models_are_joined():
    graphs = [classifier(seed, names) for seed, names in enumerate((PETS, FARM, SEA))]
    united = mal_graph.assemble(graphs[0], graphs[1:], **FULL)
    (classes,) = united.classes.values()
    assert classes.names == ("cat", "dog", "emu", "hen", "pig", "cod", "eel")
    assert classes.counts() == [3, 4, 2]
    assert run(united.graph, inputs_of(graphs[0]))[0].shape[1] == 7


def test_maps_of_scores_are_joined_pixel_by_pixel():
    def segmenter(seed, names):
        net = Net(seed)
        x = net.op("Relu", net.conv(net.input("x", ("N", 3, 9, 9)), 3, 12))
        return noted(net.proto(net.conv(x, 12, len(names), 1)), names)

    base, donor = segmenter(0, PETS), segmenter(1, FARM)
    inputs = inputs_of(base, seed=3)
    mine, theirs = (np.moveaxis(run(graph, inputs)[0], 1, -1) for graph in (base, donor))
    expected = joined_logits(mine.reshape(-1, 3), theirs.reshape(-1, 4)).reshape(*mine.shape[:-1], 5)
    given = run(mal_graph.assemble(base, donor, **FULL).graph, inputs)[0]
    np.testing.assert_allclose(np.moveaxis(given, 1, -1), expected, rtol=1e-4, atol=1e-5)


# --- what stands behind the scores --------------------------------------------------------------------------------


def test_what_is_made_of_the_scores_is_made_of_all(tmp_path):
    base, donor = (classifier(seed, own, place, name, shares) for seed, own in enumerate((PETS, FARM)))
    united = mal_graph.assemble(base, donor, **FULL).save(tmp_path / "u.onnx")
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    scores, number, called, parts = run(mal_graph.load(tmp_path / "u.onnx"), {"x": x}, "onnxruntime")
    (classes,) = united.classes.values()
    np.testing.assert_array_equal(number, scores.argmax(axis=1))
    np.testing.assert_array_equal(called, np.array(classes.names)[number])
    np.testing.assert_allclose(parts, softmax(scores, axis=1), rtol=1e-4)
    assert [value.shape for value in united.graph.outputs if len(value.shape) == 2] == [("N", 5), ("N", 5)]


@pytest.mark.parametrize("form", Form)
def test_notes_on_the_classes_follow_in_their_form(form, tmp_path):
    base = classifier(0, PETS, note="id2label", form=form)
    mal_graph.assemble(base, classifier(1, FARM), **FULL).save(tmp_path / "u.onnx")
    text = mal_graph.load(tmp_path / "u.onnx").metadata["id2label"]
    assert read_label_list(text) == LabelList(("cat", "dog", "emu", "hen", "pig"), form)


def test_a_result_is_a_model_whose_classes_are_joined_again(tmp_path):
    mal_graph.assemble(classifier(0, PETS), classifier(1, FARM), **FULL).save(tmp_path / "u.onnx")
    again = mal_graph.assemble(tmp_path / "u.onnx", classifier(2, SEA), **FULL)
    assert next(iter(again.classes.values())).names == ("cat", "dog", "emu", "hen", "pig", "cod", "eel")


@pytest.mark.parametrize(
    ("behind", "message"),
    [
        (lambda net, scores, names: net.op("Reshape", scores, net.constant([-1, 3, 1])), "its shape would be"),
        (lambda net, scores, names: net.op("Reshape", scores, net.constant([0, 3])), "cannot be made of more classes"),
        (
            lambda net, scores, names: net.op("Where", net.constant(np.array([True, False, True])), scores, scores),
            "holds a value for each class",
        ),
        (
            lambda net, scores, names: net.op(
                "LabelEncoder",
                place(net, scores, names),
                domain="ai.onnx.ml",
                keys_int64s=[0, 1, 2],
                values_strings=names,
            ),
            "holds a value for each class",
        ),
        (
            lambda net, scores, names: net.op("Slice", scores, *map(net.constant, ([0], [3], [1]))),
            "cannot be computed of more classes",
        ),
    ],
)
def test_what_cannot_be_made_of_more_classes_is_refused(behind, message):
    with pytest.raises(MatchError, match=message):
        mal_graph.assemble(classifier(0, PETS, behind), classifier(1, FARM), **FULL)


def test_whole_numbers_cannot_become_words():
    def numbered(net, scores, names):
        return net.op("Gather", net.constant(np.arange(len(names)) + 5), place(net, scores, names))

    base = classifier(0, ("5", "6", "7"), numbered, note="")
    with pytest.raises(MatchError, match="its classes are whole numbers, and 'cat' is none"):
        mal_graph.assemble(base, classifier(1, PETS), **FULL, labels_of=[None, ["6", "cat", "7"]])
    united = mal_graph.assemble(base, classifier(1, ("7", "11"), numbered, note=""), **FULL)
    inputs = inputs_of(base, seed=3)
    scores, called = run(united.graph, inputs)
    np.testing.assert_array_equal(called, np.array([5, 6, 7, 11])[scores.argmax(axis=1)])


# --- judging ------------------------------------------------------------------------------------------------------


def labelled(graph, count=300):
    """Inputs with the classes that a network gives them."""
    x = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return {"x": x, "labels": run(graph, {"x": x}, "onnxruntime")[0].argmax(axis=1)}


@pytest.mark.parametrize("end", ["", "Softmax"])
def test_labels_are_places_in_the_list_of_all_classes(end):
    base, donor = (classifier(seed, own, end=end) for seed, own in enumerate((PETS, FARM)))
    whole = mal_graph.assemble(base, donor, **FULL)
    data = labelled(whole.graph)
    scored = mal_graph.assemble(base, donor, **FULL, data=data)
    by_arm = {score.arm: score for score in scored.scores}
    assert by_arm["merged"].metric == by_arm["ensemble of outputs"].metric == 1
    told = scored.to_dict()["classes"][0]
    assert told["names"] == ["cat", "dog", "emu", "hen", "pig"]
    assert told["models"] == [[0, 1, 2, -1, -1], [2, 0, -1, 1, 3]]
    for arm, graph, own in (("base", base, PETS), ("donor", donor, FARM)):
        said = [own[i] for i in run(graph, {"x": data["x"]}, "onnxruntime")[0].argmax(axis=1)]
        assert by_arm[arm].metric == pytest.approx(np.mean(np.array(told["names"])[data["labels"]] == said))
        assert np.isfinite(by_arm[arm].loss)
    if end:
        assert by_arm["merged"].loss == pytest.approx(by_arm["ensemble"].loss, rel=1e-4)
        assert by_arm["merged"].scores == "probabilities"


def test_one_hot_labels_have_a_column_for_each_class():
    base, donor = classifier(0, PETS), classifier(1, FARM)
    data = labelled(mal_graph.assemble(base, donor, **FULL).graph)
    data["labels"] = np.eye(5, dtype=np.int64)[data["labels"]]
    scored = mal_graph.assemble(base, donor, **FULL, data=data)
    assert next(score for score in scored.scores if score.arm == "merged").metric == 1


def test_auto_takes_a_union_where_only_that_has_all_classes():
    base, donor = classifier(0, PETS), classifier(1, FARM)
    for data in (None, labelled(mal_graph.assemble(base, donor, **FULL).graph)):
        result = mal_graph.assemble(base, donor, labels="union", budget=2, data=data)
        assert result.choice.taken.startswith("union")
        assert result.choice.is_good
        assert {"base", "donor", "ensemble of outputs"} < {one.name for one in result.pareto}
        assert [one.name for one in result.pareto if one.is_result] == [result.choice.taken]
    poor = mal_graph.assemble(base, donor, labels="union", budget=0.4)
    assert not poor.choice.is_good
    assert poor.verdict.is_worse
    assert len(next(iter(poor.classes.values())).names) == 5
    with pytest.raises(MatchError, match="the classes of all models cannot be joined: nothing could be tried within"):
        mal_graph.assemble(base, donor, labels="union", budget=0.001)


@pytest.mark.parametrize("method", ["auto", "union"])
@pytest.mark.parametrize(
    ("names", "is_labelled", "is_said"), [(FARM, False, 1), (FARM, True, 0), (("emu", "dog"), False, 0)]
)
def test_without_labels_the_report_says_that_the_guard_compares_all_classes(method, names, is_labelled, is_said):
    base, donor = classifier(0, PETS), classifier(1, names)
    data = labelled(mal_graph.assemble(base, donor, **FULL).graph) if is_labelled else None
    result = mal_graph.assemble(base, donor, method=method, labels="union", budget=2, data=data)
    told = [note for note in result.to_dict()["notes"] if "compares the scores of all classes" in note]
    assert len(told) == is_said


def seen(classes, names, scores, kind):
    """What a model alone says of all classes: one that it does not know has its mean score."""
    known = [classes.index(one) for one in names]
    wide = np.empty((len(scores), len(classes)))
    wide[:] = np.log(np.mean(np.exp(scores), axis=1, keepdims=True)) if kind == "logits" else 1 / len(names)
    wide[:, known] = scores
    return wide if kind == "logits" else wide * len(names) / len(classes)


@pytest.mark.parametrize("end", ["", "Softmax"])
@pytest.mark.parametrize("names", [(PETS, FARM), (FARM, ("pig", "hen")), (PETS, SEA)])
def test_a_donor_alone_is_as_far_off_as_its_scores_spread_out(names, end):
    graphs = [classifier(seed, own, end=end) for seed, own in enumerate(names)]
    joint = open_joint(graphs, mal_graph.MergeConfig(**UNION), mal_graph.registry.runner(), silent)
    _, target = joint.ends[0]
    own = run(graphs[1], joint.samples.fresh[0], "onnxruntime")[0]
    (classes,) = joint.outputs.classes
    kind = "probabilities" if end else "logits"
    (values,) = joint.in_all_classes(joint.alone(1, joint.samples.fresh[0]), 1).values()
    np.testing.assert_allclose(values, seen(classes.names, names[1], own, kind), rtol=1e-4, atol=1e-5)
    assert next(iter(target.values())).shape == values.shape
    assert np.isfinite(joint.error_alone(1))
    assert joint.error_alone(0) == pytest.approx(1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("names", [(PETS, FARM), (FARM, ("pig", "hen")), (FARM, FARM[::-1])])
def test_the_table_says_of_each_part_what_the_scores_say(names):
    graphs = [classifier(seed, own) for seed, own in enumerate(names)]
    data = labelled(mal_graph.assemble(*graphs, **FULL).graph)
    united = mal_graph.assemble(*graphs, **UNION, budget=1.4, data=data)
    chosen = mal_graph.assemble(*graphs, labels="union", budget=2, data=data)
    for result, samples in ((united, 300), (chosen, 150)):
        by_arm = {score.arm: score for score in result.scores}
        table = {"merged" if one.is_result else one.name: one for one in result.pareto}
        for arm in ("base", "donor", "merged", "ensemble of outputs"):
            told = table[arm].score
            assert (told.loss, told.metric) == pytest.approx((by_arm[arm].loss, by_arm[arm].metric), rel=1e-5)
            assert told.samples == by_arm[arm].samples == samples
            assert np.isfinite(table[arm].error)
        assert all((one.deciding is None) == (result is united) for one in result.pareto)
    if len(names[0]) < len(next(iter(united.classes.values())).names):
        assert not any(one.name.startswith("mal") for one in united.pareto)  # it has the base's classes only


@pytest.mark.parametrize("method", ["union", "auto"])
def test_speed_is_measured_of_joined_classes(method, monkeypatch):
    monkeypatch.setattr(timing, "MOST", 12)
    graphs = classifier(0, PETS), classifier(1, FARM)
    result = mal_graph.assemble(*graphs, method=method, labels="union", measure_speed=True)
    assert [one.name for one in result.speeds.models] == ["base", "donor", "ensemble of outputs", "result"]
    assert not result.speeds.left_out


def test_a_donor_is_scored_by_its_own_output_where_the_base_s_is_named():
    """Nothing of the donor is called what is scored of the base."""
    base, donor = classifier(0, PETS, shares), classifier(1, FARM)
    data = labelled(mal_graph.assemble(base, donor, **FULL).graph)
    scored = mal_graph.assemble(base, donor, **UNION, data=data, score_output=base.outputs[1].name)
    assert "donor" in {score.arm for score in scored.scores}
    assert all(one.score is not None for one in scored.pareto)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["union", "auto"])
def test_without_names_it_is_refused_with_how_to_give_them(method):
    base, donor = classifier(0, PETS, note=""), classifier(1, FARM)
    with pytest.raises(MatchError, match="does not say what its classes are called: name them with `labels_of`"):
        mal_graph.assemble(base, donor, method=method, labels="union")
    united = mal_graph.assemble(base, donor, **FULL, labels_of=[PETS, None])
    assert read_label_list(united.graph.metadata["names"]).names == ("cat", "dog", "emu", "hen", "pig")


def test_numbers_of_one_graph_are_not_taken_for_the_words_of_another():
    base, donor = classifier(0, ("5", "6", "7"), numbers, note=""), classifier(1, PETS)
    with pytest.raises(
        MatchError, match=r"classes are 5, 6, 7 in the base, and cat, dog, emu in .*: say with `labels_of`"
    ):
        mal_graph.assemble(base, donor, **FULL)
    assert mal_graph.assemble(base, donor, method="union", budget="full").passed


def numbers(net, scores, names):
    return net.op("Gather", net.constant(np.arange(len(names)) + 5), place(net, scores, names))


def test_other_classes_are_refused_with_the_option_that_joins_them():
    with pytest.raises(
        MatchError, match=r"its classes are cat, dog, emu, those of .* dog, hen, cat, pig; `labels`=union"
    ):
        mal_graph.assemble(classifier(0, PETS), classifier(1, FARM), method="union")
    with pytest.raises(MatchError, match=r"\[3, 3\], in .* \[3, 4\]; where it scores other classes, `labels`=union"):
        mal_graph.assemble(classifier(0, PETS, note=""), classifier(1, FARM, note=""), method="union")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels_of": [PETS]}, UsageError, "`labels_of` is given 1 times for 2 models: give it once for each"),
        ({"labels_of": [PETS, PETS]}, MatchError, r"has 3 classes by name, and scores of shape \[3, 4\]"),
        ({"labels": "all"}, UsageError, "`labels` is 'all': choose one of base, union"),
        ({"fold": 0.5, "budget": 1.0}, UsageError, "with `fold` the last layers are merged"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        mal_graph.assemble(classifier(0, PETS), classifier(1, FARM), **{**UNION, **options})


@pytest.mark.parametrize("name_", ["labels", "labels_of"])
def test_classes_are_an_option_of_unions_only(name_):
    value = "union" if name_ == "labels" else [PETS, FARM]
    with pytest.raises(UsageError, match=f"`{name_}` is an option of `method` auto and union, not of mal"):
        mal_graph.assemble(classifier(0, PETS), classifier(1, FARM), method="mal", **{name_: value})


def test_one_score_for_two_classes_is_refused():
    def binary(seed):
        net = Net(seed)
        return noted(net.proto(net.linear(net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 9)), 9, 1)), SEA)

    with pytest.raises(MatchError, match="does not say what its classes are called"):
        mal_graph.assemble(binary(0), classifier(1, PETS), **FULL)
    with pytest.raises(MatchError, match=r"has 2 classes by name.*export it with a score for each class"):
        mal_graph.assemble(binary(0), classifier(1, PETS), **FULL, labels_of=[SEA, None])


def test_several_axes_that_may_be_the_classes_are_refused():
    def sequence(seed, names):
        net = Net(seed)
        x = net.linear(net.input("x", ("N", 3, 6)), 6, 9, "matmul")
        return noted(net.proto(net.linear(net.op("Relu", x), 9, len(names), "matmul")), names)

    with pytest.raises(MatchError, match=r"several axes of .* have a place for each class"):
        mal_graph.assemble(sequence(0, PETS), sequence(1, ("dog", "cat", "emu")), **FULL)


def test_labels_beyond_all_classes_are_refused():
    base, donor = classifier(0, PETS), classifier(1, FARM)
    data = labelled(mal_graph.assemble(base, donor, **FULL).graph)
    data["labels"][0] = 5
    with pytest.raises(MalGraphError, match=r"labels run from 0 to 5, .* knows classes 0 to 4"):
        mal_graph.assemble(base, donor, **FULL, data=data)


def test_the_command_line_takes_files_of_names(tmp_path, capsys):
    from mal_graph.cli.app import main

    for called, graph in (("a", classifier(0, PETS, note="")), ("b", classifier(1, FARM))):
        save(graph, tmp_path / f"{called}.onnx")
    (tmp_path / "a.txt").write_text("\n".join(PETS), encoding="utf-8")
    words = [
        "assemble",
        str(tmp_path / "a.onnx"),
        str(tmp_path / "b.onnx"),
        "--method",
        "union",
        "--labels",
        "union",
        "-q",
    ]
    words += ["-o", str(tmp_path / "u.onnx"), "--report", str(tmp_path / "r.json"), "--budget", "full"]
    assert main(words) == 2
    assert "name them with --labels-of, a file for each model" in capsys.readouterr().err
    assert main([*words, "--labels-of", str(tmp_path / "a.txt"), "--labels-of", "-"]) == 0
    assert "5 classes, joined as logits of a softmax" in capsys.readouterr().out
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert told["classes"][0]["names"] == ["cat", "dog", "emu", "hen", "pig"]
    assert told["config"]["labels_of"] == [list(PETS), None]
    assert main([*words[:-4], "-o", str(tmp_path / "a.txt"), "--labels-of", str(tmp_path / "a.txt")]) == 2
    assert "it is one of the inputs" in capsys.readouterr().err
