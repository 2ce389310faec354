"""Donors whose inputs or outputs do not mean what the base's do are told in every report, and nothing is applied."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from builders import Net, load, mlp, run

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.label_lists import Form, LabelList
from mal_graph.workflows import Kind, meanings
from mal_graph.workflows.meanings import COPIES, Comparison, find_meanings
from mal_graph.workflows.models import silent
from mal_graph.workflows.steps import shuffled

ORDER = [3, 0, 4, 1, 2]
SAMPLES = 120


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=(SAMPLES, *shape)).astype(np.float32)


def tuned(graph, seed=1, size=0.2):
    """A model that computes mostly the same."""
    rng = np.random.default_rng(seed)
    moved = {
        name: (w.read() * (1 + size * rng.standard_normal(w.shape))).astype(np.float32)
        for name, w in graph.weights.items()
        if w.is_float and not name.startswith("bn")
    }
    return replace(graph.with_weights(moved), name="donor.onnx")


def centred(graph, x):
    """A classifier none of whose scores is larger than the others in the mean, as after training."""
    last = [name for name, weight in graph.weights.items() if weight.shape == run(graph, {"x": x})[0].shape[1:]][-1]
    mean = run(graph, {"x": x})[0].mean(axis=0, dtype=np.float32)
    return graph.with_weights({last: (graph.weights[last].read() - mean).astype(np.float32)})


def perceptrons(classes=5):
    x = drawn(8)
    base = centred(mlp((8, 24, classes)), x)
    return base, tuned(base), x


def said(base, donor, x, labels=None, **options):
    """What is said of a donor, with calibration inputs, or with labels."""
    config = MergeConfig(**options) if labels is not None else MergeConfig(calibrate={"x": x}, **options)
    data = None if labels is None else {"x": x, "labels": labels}
    return find_meanings((base, donor), config, data, registry.runner(), silent)


def in_order(donor, order=ORDER):
    """A donor whose column `order[j]` is what column j was."""
    head = {name: donor.weights[name].read()[np.argsort(order)] for name in ("w2", "w3")}
    return donor.with_weights(head)


# --- each kind ----------------------------------------------------------------------------------------------------


def test_a_donor_like_the_base_is_passed_over_in_silence():
    base, donor, x = perceptrons()
    assert said(base, donor, x) == ()
    assert said(donor, base, x, labels=run(base, {"x": x})[0].argmax(axis=1)) == ()


def test_classes_in_another_order_are_named_with_what_labels_say():
    base, donor, x = perceptrons()
    labels = run(base, {"x": x})[0].argmax(axis=1)
    (found,) = said(base, in_order(donor), x, labels)
    assert (found.kind, found.order, found.output) == (Kind.CLASSES, tuple(ORDER), base.outputs[0].name)
    assert "0 of the base is its 3, 1 of the base is its 0" in found.text
    assert found.losses.after < 0.5 * found.losses.before
    assert "its accuracy on their labels is then" in found.text
    assert "labels_of" in found.advice


def test_labels_that_fit_the_donor_are_said_to():
    base, donor, x = perceptrons()
    donor = in_order(donor)
    (found,) = said(base, donor, x, labels=run(donor, {"x": x})[0].argmax(axis=1))
    assert found.text.endswith("the labels fit the donor, not the base")


def test_channels_in_another_order_are_named():
    x, net = drawn(3, 4, 4), Net(0)
    flat = net.op("Flatten", net.input("x", ("N", 3, 4, 4)))
    base = centred(net.graph(net.linear(net.op("Relu", net.linear(flat, 48, 24)), 24, 5)), x)
    donor = tuned(base)
    first = next(name for name, weight in donor.weights.items() if weight.shape == (24, 48))
    swapped = donor.weights[first].read().reshape(24, 3, 16)[:, ::-1].reshape(24, 48)
    (found,) = said(base, donor.with_weights({first: swapped}), x)
    assert (found.kind, found.order, found.input) == (Kind.CHANNELS, (2, 1, 0), "x")
    assert found.losses.after < 0.5 * found.losses.before


def test_numbers_in_another_range_are_named():
    base, donor, x = perceptrons()
    (found,) = said(base, donor.with_weights({"w0": donor.weights["w0"].read() / 255}), x)
    assert (found.kind, found.input) == (Kind.NUMBERS, "x")
    assert "brought to 0..255" in found.text


@pytest.mark.parametrize("factor", [0.02, 30])
def test_scores_of_another_size_are_named(factor):
    base, donor, x = perceptrons()
    head = {name: factor * donor.weights[name].read() for name in ("w2", "w3")}
    (found,) = said(base, donor.with_weights(head), x)
    assert (found.kind, found.output) == (Kind.SIZE, base.outputs[0].name)


def test_the_other_sign_is_named():
    base, donor, x = perceptrons()
    head = {name: -donor.weights[name].read() for name in ("w2", "w3")}
    (found,) = said(base, donor.with_weights(head), x)
    assert found.kind == Kind.SIGN


def test_other_units_of_values_are_named():
    base, donor, x = perceptrons(1)
    labels = run(base, {"x": x})[0].astype(np.float32)
    head = {"w2": 1.8 * donor.weights["w2"].read(), "w3": 1.8 * donor.weights["w3"].read() + 32}
    (found,) = said(base, donor.with_weights(head), x, labels)
    assert found.kind == Kind.UNITS
    assert "the base's are 0.6" in found.text  # 1 / 1.8, and what the donor has of its own


def test_probabilities_beside_logits_are_named_and_compared_with_them():
    x = drawn(8)
    net = Net(0)
    base = centred(net.graph(net.linear(net.op("Relu", net.linear(net.input("x"), 8, 24)), 24, 5)), x)
    net = Net(0)
    scores = net.linear(net.op("Relu", net.linear(net.input("x"), 8, 24)), 24, 5)
    donor = tuned(net.graph(net.op("Softmax", scores, axis=1)))
    head = base.weights["w3"].read()
    (found,) = said(base, donor.with_weights({"w3": head}), x)
    assert found.kind == Kind.FORM
    assert "gives probabilities" in found.text


def test_of_a_large_donor_one_copy_is_open_at_a_time_and_the_same_is_said(monkeypatch):
    base, donor, x = perceptrons()
    random, asked, opened = shuffled(in_order(donor), 5), Comparison.asked, []
    open_at_once = []

    def watched(self, *given, remembers=True):
        made = asked(self, *given, remembers=remembers)
        if not remembers:
            opened.append(weakref.ref(made))
            open_at_once.append(sum(one() is not None for one in opened))
        return made

    monkeypatch.setattr(Comparison, "asked", watched)
    plain = said(base, random, x)
    assert max(open_at_once) == COPIES
    open_at_once.clear()
    opened.clear()
    monkeypatch.setattr(meanings, "MOST_COPIED", 1)
    assert said(base, random, x) == plain
    assert max(open_at_once) <= 2  # the next is opened before the last is let go of


def test_a_donor_of_random_weights_is_told_and_what_its_accuracy_says():
    base, _, x = perceptrons()
    stranger = centred(mlp((8, 24, 5), seed=9), x).named("stranger.onnx")
    (found,) = said(base, stranger, x)
    assert found.kind == Kind.NOISE
    assert "accuracy" not in found.text
    labels = run(base, {"x": x})[0].argmax(axis=1)
    by_labels = said(base, stranger, x, np.random.default_rng(0).permutation(labels))
    assert "the donor's accuracy on them is" in by_labels[0].text
    own = run(stranger, {"x": x})[0].argmax(axis=1)
    assert said(base, stranger, x, own) == ()  # it says nothing of what the base says, and all of what the labels do


@pytest.mark.parametrize("options", [{}, {"calibrate": {"x": drawn(8)}}])
def test_equal_models_and_constant_ones_are_told_with_inputs_and_without(options):
    base, donor, _ = perceptrons()
    config = MergeConfig(**options)

    def kinds(one):
        return [(m.kind, m.text) for m in find_meanings((base, one), config, None, registry.runner(), silent)]

    ((kind, text),) = kinds(base.named("copy.onnx"))
    assert kind == Kind.EQUAL
    assert ("noise" in text) == (not options)
    zeros = {name: np.zeros_like(weight.read()) for name, weight in donor.weights.items()}
    ((kind, text),) = kinds(donor.with_weights(zeros))
    assert (kind, "zeros" in text) == (Kind.CONSTANT, True)
    ((kind, text),) = kinds(donor.with_weights({"w0": zeros["w0"]}))
    assert (kind, "the same numbers" in text) == (Kind.CONSTANT, True)


def test_classes_that_have_names_are_compared_by_them():
    names = ("ant", "bee", "cat", "dog", "emu")
    base, donor, x = perceptrons()
    noted = [
        replace(graph, metadata={"names": LabelList((), Form.PYTHON_NAMES).text(listed)})
        for graph, listed in ((base, names), (in_order(donor), tuple(np.array(names)[np.argsort(ORDER)].tolist())))
    ]
    assert said(*noted, x) == ()
    (found,) = said(noted[0], replace(noted[1], metadata=noted[0].metadata), x)
    assert found.order == tuple(ORDER)


def test_a_model_that_cannot_run_on_the_inputs_is_told():
    base, _, x = perceptrons()
    net = Net(0)
    fixed = net.op("Reshape", net.linear(net.input("x"), 8, 5), net.constant(np.array([7, 5])))
    (found,) = said(base, load(net.proto(fixed)), x)
    assert found.kind == Kind.UNKNOWN


@pytest.mark.parametrize("options", [{"compare": False}])
def test_nobody_asks_where_merges_are_not_compared(options):
    base, donor, x = perceptrons()
    assert said(base, in_order(donor), x, **options) == ()


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mal", "union"])
def test_every_form_of_a_report_warns_and_the_merge_stays_what_it_was(method, tmp_path):
    base, donor, x = perceptrons()
    made = mal_graph.assemble(base, in_order(donor), calibrate={"x": x}, method=method)
    (entry,) = made.to_dict()["warnings"]
    assert (entry["kind"], entry["order"]) == ("classes", ORDER)
    for text in (made.summary(), saved(made, tmp_path / "report.md"), saved(made, tmp_path / "report.html")):
        assert "has its classes in another order" in text
    untold = replace(made, meanings=())
    assert untold.to_dict()["warnings"] == []
    assert untold.graph is made.graph


def saved(result, path):
    result.save_report(path)
    return path.read_text(encoding="utf-8")


def test_a_sweep_and_a_zoo_warn_too():
    base, donor, x = perceptrons()
    data = {"x": x, "labels": run(base, {"x": x})[0].argmax(axis=1)}
    swept = mal_graph.sweep(base, in_order(donor), data, lambdas=(0.5, 1.0))
    assert [entry["kind"] for entry in swept.to_dict()["warnings"]] == ["classes"]
    assert "warning: donor.onnx has its classes in another order" in swept.summary()
    found = mal_graph.zoo(base, [in_order(donor), donor.named("other.onnx")], data)
    assert [(one.donor, one.kind) for one in found.assembly.meanings] == [("donor.onnx", Kind.CLASSES)]
    assert "warning: donor.onnx has its classes in another order" in found.summary()
