"""Iterative assembly from a zoo: the gate's law, what is proposed, what is said, and searches that are taken up."""

import itertools
import json
import re
import sys

import numpy as np
import pytest
from builders import Net, cnn, mlp, noisy, permuted_copy, places, save, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig, ZooConfig
from mal_graph.errors import DataError, FileError, MatchError, RunError, ShapeError, UsageError
from mal_graph.evaluation import AcceptanceRule, Scores, agreement, predict, read_labels, score, split_holdout
from mal_graph.evaluation.holdout import halve
from mal_graph.merging import merge
from mal_graph.network import SampleAxes
from mal_graph.reporting.documents import zoo_document
from mal_graph.symmetry import axis_groups
from mal_graph.workflows import steps, write_result
from mal_graph.workflows.checkpoint import READER, read_checkpoint, write_checkpoint
from mal_graph.workflows.zoo_candidates import PREFIXES, SINGLES, candidates
from mal_graph.workflows.zoo_search import zoo

FAST = {"verify": False, "controls": 0}  # controls have tests of their own
PLAIN = MergeConfig(lam=1.0, verify=False)
LAMBDAS = ZooConfig().lambdas


def shuffled(graph, seed):
    return permuted_copy(graph, axis_groups(graph), seed)[0]


def huge(graph):
    """A copy of which any merge overflows."""
    return graph.with_weights({name: values * np.float32(1e30) for name, values in stored(graph).items()})


def data_of(teacher, samples=120, seed=0):
    """Inputs, and the classes that a model gives them."""
    x = np.random.default_rng(seed).standard_normal((samples, 6)).astype(np.float32)
    out = registry.runner().open(teacher).run({"x": x})[teacher.outputs[0].name]
    return {"x": x, "labels": out.argmax(axis=1)}


def inputs_only(samples=50, seed=99):
    return {"x": np.random.default_rng(seed).standard_normal((samples, 6)).astype(np.float32)}


def family(seed=0, donors=3):
    """A noisy copy of a teacher as base, shuffled copies with less noise, and data that the teacher labels."""
    teacher = mlp((6, 9, 5), seed)
    base = noisy(teacher, 0.6, 100 + seed)
    zoo_ = [shuffled(noisy(teacher, 0.1, 200 + seed + i), i).named(f"donor {i}") for i in range(donors)]
    return base, zoo_, data_of(teacher, seed=seed)


def in_folder(folder, models):
    folder.mkdir()
    for i, model in enumerate(models):
        save(model, folder / f"d{i}.onnx")
    return folder


def on_gate(graph, base, data, **options):
    held = split_holdout(base, data, **options)
    return held.metric(predict(graph, held.deciding), read_labels(held.deciding), graph.name)


# --- the law -----------------------------------------------------------------------------------------------------


def law_holds(base, donors, data, eps, seed, **options):
    """Whether the result is not below the base by more than eps on the samples that decided."""
    found = zoo(base, donors, data, eps=eps, seed=seed, lambdas=(0.1, 0.5), **FAST, **options)
    before, after = (on_gate(graph, base, data, seed=seed) for graph in (base, found.assembly.graph))
    accepted = [outcome.kept for outcome in found.outcomes if outcome.kept]
    assert [kept.loss for kept in accepted] == sorted((kept.loss for kept in accepted), reverse=True)
    if accepted:
        assert (accepted[-1].loss, accepted[-1].metric) == (after.loss, after.metric)
    return after.metric >= before.metric - eps and after.loss <= before.loss


MEMBERS = {
    "better": lambda teacher, seed: shuffled(noisy(teacher, 0.1, seed), seed),
    "stranger": lambda teacher, seed: mlp((6, 9, 8, 5), seed + 50),
    "narrower": lambda teacher, seed: mlp((6, 5, 8, 5), seed + 60),
    "deeper": lambda teacher, seed: mlp((6, 9, 7, 8, 5), seed + 70),
    "shallower": lambda teacher, seed: mlp((6, 12, 5), seed + 80),
    "worse": lambda teacher, seed: noisy(teacher, 3.0, seed),
}
ZOOS = st.lists(st.tuples(st.sampled_from(sorted(MEMBERS)), st.integers(0, 5)), min_size=1, max_size=4, unique=True)


@pytest.mark.slow
@settings(max_examples=10)
@given(ZOOS, st.sampled_from([0.0, 0.02, 0.3]), st.integers(0, 3), st.booleans())
def test_the_result_is_never_below_the_base_by_more_than_eps_where_it_was_decided(zoo_, eps, seed, is_labelled):
    teacher = mlp((6, 9, 8, 5), seed)
    base, data = noisy(teacher, 0.5, 100 + seed), data_of(teacher, 90, seed)
    if not is_labelled:
        del data["labels"]
    donors = [MEMBERS[kind](teacher, number).named(f"{kind} {number}") for kind, number in zoo_]
    assert law_holds(base, donors, data, eps, seed)


@pytest.mark.slow
@settings(max_examples=5)
@given(ZOOS, st.sampled_from([0.0, 0.1]), st.integers(0, 3), st.sampled_from(["weights", "both"]))
def test_a_repaired_result_is_never_below_the_base_by_more_than_eps_either(zoo_, eps, seed, match_by):
    teacher = mlp((6, 9, 8, 5), seed)
    base, data = noisy(teacher, 0.5, 100 + seed), data_of(teacher, 90, seed)
    donors = [MEMBERS[kind](teacher, number).named(f"{kind} {number}") for kind, number in zoo_]
    assert law_holds(base, donors, data, eps, seed, calibrate=inputs_only(), match_by=match_by)


@pytest.mark.parametrize("options", [{}, {"calibrate": inputs_only()}])
def test_a_gate_that_lets_everything_pass_breaks_the_law(monkeypatch, options):
    teacher = mlp((6, 9, 8, 5), 0)
    monkeypatch.setattr(AcceptanceRule, "prefers", lambda self, figures, best: True)
    monkeypatch.setattr(AcceptanceRule, "passes", lambda self, figures: True)
    assert not law_holds(teacher, [noisy(teacher, 3.0, 1)], data_of(teacher), 0.0, 0, **options)


def test_better_copies_of_the_base_are_accepted_and_help_on_the_samples_that_decided_nothing():
    base, donors, data = family()
    found = zoo(base, donors, data, **FAST)
    assert "accepted" in [outcome.verdict for outcome in found.outcomes]
    arms = {arm.arm: arm for arm in found.assembly.scores}
    assert arms["merged"].loss < arms["base"].loss
    assert arms["merged"].loss < arms["random donor"].loss
    assert arms["merged"].samples == 60


@pytest.mark.parametrize("options", [{}, {"calibrate": inputs_only()}])
def test_a_donor_that_helps_more_than_its_shuffled_copies_is_accepted_with_their_figure(options):
    base, donors, data = family(donors=1)
    (outcome,) = zoo(base, donors, data, verify=False, **options).outcomes
    assert outcome.verdict == "accepted"
    assert outcome.kept.loss < outcome.kept.control
    copies = [steps.shuffled(donors[0], number) for number in (1, 2, 3)]  # as the seed 0 draws them
    tried = [one for copy in copies for one in zoo(base, [copy], data, **FAST, **options).outcomes[0].tried]
    floor = zoo(base, donors, data, **FAST).terms.gate.base.metric
    passing = [point.loss for one in tried for point in one.points if point.metric >= floor]
    assert outcome.kept.control == min(passing)


def test_a_donor_that_helps_no_more_than_a_control_is_refused_with_both_figures(monkeypatch):
    """The control is the donor itself, so it does just as well."""
    base, donors, data = family(donors=1)
    monkeypatch.setattr(sys.modules["mal_graph.workflows.zoo_search"], "shuffled", lambda donor, seed: donor)
    (outcome,) = zoo(base, donors, data, verify=False).outcomes
    assert (outcome.verdict, outcome.kept) == ("refused", None)
    assert re.search(r": its loss falls to (\d\.\d{4}), but with shuffled weights to \1$", outcome.reason)


@pytest.mark.parametrize(
    ("metric", "loss", "eps", "preferred"),
    [
        (0.9, 0.4, 0.0, True),
        (0.9, 0.5, 0.0, False),  # a tie
        (0.9, 0.6, 0.0, False),
        (0.8, 0.4, 0.0, False),
        (0.8, 0.4, 0.15, True),
        (0.8, 0.6, 0.15, False),
        (0.9, float("nan"), 0.0, False),
        (float("nan"), 0.4, 0.0, False),
    ],
)
def test_the_gate_asks_for_the_bases_metric_and_a_lower_loss(metric, loss, eps, preferred):
    best = Scores("a", 0.5, 0.9, "accuracy", "cross-entropy", 9, "y", "logits")
    found = Scores("b", loss, metric, "accuracy", "cross-entropy", 9, "y", "logits")
    assert AcceptanceRule(best, eps).prefers(found, best) == preferred


# --- what is proposed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5), (6, 8, 5), (6, *[8] * 12, 5)])
def test_candidates_are_few_distinct_and_go_from_the_whole_to_single_layers(shape):
    base, donor = mlp(shape, 0), mlp(shape, 1)
    step = steps.merge_step(base, donor, PLAIN, registry.runner(), lambda *_: None, [])
    found = candidates(step)
    layers = tuple(layer.name for layer in step.match.base)
    assert len({frozenset(one.layers) for one in found}) == len(found) <= 1 + len(PREFIXES) + SINGLES
    assert found[0].layers == layers
    for one in found:
        assert len(one.layers) == 1 or one.layers == layers[: len(one.layers)]  # shallow layers, without gaps


@pytest.mark.parametrize("options", [{}, {"calibrate": inputs_only()}, {"rescale_invariant": True}])
def test_an_accepted_step_is_the_merge_of_the_same_layers_at_the_same_lambda(options):
    base, donors, data = family(donors=1)
    found = zoo(base, donors, data, **FAST, **options)
    kept = found.outcomes[0].kept
    (donor,) = donors
    pairs = places(found.assembly.merged[0].match)
    names = mal_graph.match_layers(base, donor)
    assert places(names) == pairs
    factors = {layer.name: kept.lam if layer.name in kept.layers else 0.0 for layer in names.base}
    merged = mal_graph.assemble(base, donors, lam=0.0, lam_for=factors, verify=False, **options)
    for name, values in stored(merged.graph).items():
        np.testing.assert_array_equal(stored(found.assembly.graph)[name], values)
    assert found.assembly.merged[0].repair == merged.merged[0].repair
    assert bool(found.assembly.merged[0].repair) == ("calibrate" in options)


@pytest.mark.parametrize("calibrate", [None, inputs_only()], ids=["merged", "repaired"])
def test_every_point_in_the_report_is_the_merge_at_that_lambda(calibrate):
    base, donors, data = family(donors=1)
    found = zoo(base, donors, data, calibrate=calibrate, **FAST)
    options = PLAIN.replaced(calibrate=calibrate)
    step = steps.merge_step(base, donors[0], PLAIN, registry.runner(), lambda *_: None, [])
    for one in found.outcomes[0].tried:
        assert [point.lam for point in one.points] == list(LAMBDAS)
        for point in (one.points[0], one.points[-1]):
            part = steps.narrowed(step, one.layers, point.lam, PLAIN, registry.runner())
            graph, _ = steps.with_repair(merge(part.plan), part.plan, donors[0], options, registry.runner())
            measured = on_gate(graph, base, data)
            assert (point.loss, point.metric) == (pytest.approx(measured.loss, rel=1e-5), measured.metric)


def bare(seed, widths=(6, 8, 5)):
    """Gemms without a bias."""
    net = Net(seed)
    x = net.input("x", ("N", widths[0]))
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        x = net.op("Relu", x) if i else x
        x = net.op("Gemm", x, net.weight(b, a), transB=1)
    return net.graph(x)


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"width": "grow"},
        {"width": "grow", "depth": "expand"},
        {"unmatched": "zero"},
        {"calibrate": inputs_only()},
        {"calibrate": inputs_only(), "width": "grow", "depth": "expand"},
    ],
)
@pytest.mark.parametrize("donor", [mlp((6, 11, 5), 1), mlp((6, 11, 9, 5), 2)], ids=["wider", "deeper"])
def test_a_base_without_biases_takes_layers_of_donors_that_have_them_and_may_grow(options, donor):
    base = bare(0)
    data = data_of(donor)
    found = zoo(base, [donor], data, eps=1.0, **options)
    if found.assembly.merged:
        assert found.assembly.passed
        assert found.best.loss < found.terms.gate.base.loss
        assert on_gate(found.assembly.graph, base, data).loss == found.best.loss


def test_models_of_one_architecture_are_verified_once_while_the_base_keeps_its_nodes(tmp_path, monkeypatch):
    base, donors, data = family()
    folder = in_folder(tmp_path / "zoo", donors)
    verified = []

    def counting(graph, *args, **options):
        verified.append(graph.name)
        return mal_graph.verify(graph, *args, **options)

    monkeypatch.setattr(steps, "verify", counting)
    found = zoo(base, folder, data)
    assert sum(outcome.verdict == "accepted" for outcome in found.outcomes) > 1
    assert verified == [base.name]


# --- donors that are not used ------------------------------------------------------------------------------------


def test_every_file_of_the_folder_is_listed_once_with_its_reason(tmp_path):
    base, donors, data = family(donors=2)
    folder = in_folder(tmp_path / "zoo", donors)
    (folder / "broken.onnx").write_bytes(b"no model")
    (folder / "notes.txt").write_text("no donor")
    (folder / "d0 again.onnx").write_bytes((folder / "d0.onnx").read_bytes())
    save(base, folder / "base.onnx")
    save(mlp((7, 9, 5), 3), folder / "inputs.onnx")
    save(cnn(), folder / "other.onnx")
    found = zoo(base, folder, data, **FAST)
    told = {outcome.donor: (outcome.verdict, outcome.reason) for outcome in found.outcomes}
    assert list(told) == sorted(path.name for path in folder.glob("*.onnx"))
    assert told["base.onnx"] == ("skipped", "the same model as the base")
    assert told["d0.onnx"] == ("skipped", "the same model as d0 again.onnx")
    assert told["broken.onnx"][0] == told["inputs.onnx"][0] == told["other.onnx"][0] == "skipped"
    assert "broken.onnx: it holds no graph" in told["broken.onnx"][1]
    assert "the inputs of" in told["inputs.onnx"][1]
    assert all(told[name][0] != "skipped" for name in ("d0 again.onnx", "d1.onnx"))


@pytest.mark.parametrize("classes", [2, 40])
def test_a_donor_with_another_head_gives_its_trunk_and_is_not_scored_itself(classes):
    teacher = mlp((6, 9, 8, 5), 0)
    base, data = noisy(teacher, 0.6, 1), data_of(teacher)
    values = stored(noisy(teacher, 0.1, 2))
    donor = mlp((6, 9, 8, classes), 3).with_weights({name: values[name] for name in list(values)[:4]})
    found = zoo(base, [donor], data, **FAST)
    head = mal_graph.match_layers(base, base).base[-1].name
    assert found.outcomes[0].verdict == "accepted"
    assert all(head not in one.layers for one in found.outcomes[0].tried)
    arms = [arm.arm for arm in found.assembly.scores]
    assert arms == ["base", "merged", "plain average", "random permutation", "random donor"]
    note = f"tells {classes} classes apart, the base's 5"
    assert any(one.startswith("donor has no score") and one.endswith(note) for one in zoo_document(found).notes)


def test_a_donor_on_which_the_runtime_gives_up_is_skipped_and_the_search_goes_on(monkeypatch):
    base, donors, data = family(donors=2)
    module = sys.modules["mal_graph.workflows.zoo_candidates"]
    real = module.scored_along

    def failing(line, lambdas, arm, *rest):
        if arm == "donor 0":
            raise RunError("onnxruntime cannot run it")
        return real(line, lambdas, arm, *rest)

    monkeypatch.setattr(module, "scored_along", failing)
    told = [(outcome.verdict, outcome.reason) for outcome in zoo(base, donors, data, **FAST).outcomes]
    assert told[0] == ("skipped", "onnxruntime cannot run it")
    assert told[1][0] == "accepted"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "cannot read the zoo .*: No such file or directory; name a folder"),
        (lambda folder: in_folder(folder, []), "holds no .onnx file: name a folder of models"),
        (
            lambda folder: in_folder(folder, [mlp((7, 5), 0)]),
            "none of 1 donors can be merged into .*: d0.onnx: the inp",
        ),
    ],
)
def test_a_zoo_without_a_usable_donor_is_refused(tmp_path, make, message):
    base, _, data = family(donors=0)
    with pytest.raises((FileError, MatchError), match=message):
        zoo(base, make(tmp_path / "zoo"), data, checkpoint=tmp_path / "state.json")
    with pytest.raises(MatchError, match="there is no donor for"):
        zoo(base, [], data)
    assert not (tmp_path / "state.json").exists()


# --- the data ----------------------------------------------------------------------------------------------------


@given(st.integers(40, 90), st.integers(1, 6), st.integers(0, 9))
def test_the_two_halves_are_disjoint_and_alike_in_every_class(samples, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    part = {"x": np.arange(samples), "labels": labels}
    gate_part, report_part = halve(part, seed, SampleAxes({}))
    assert sorted([*gate_part["x"], *report_part["x"]]) == list(range(samples))
    counts = [np.bincount(half["labels"], minlength=classes) for half in (gate_part, report_part)]
    assert abs(counts[0] - counts[1]).max() <= 1
    assert np.array_equal(halve(part, seed, SampleAxes({}))[0]["x"], gate_part["x"])


def test_data_to_report_on_may_be_a_file_of_their_own():
    base, donors, data = family(donors=1)
    other = data_of(mlp((6, 9, 8, 5), 0), 30, seed=7)
    found = zoo(base, donors, data, report_data=other, **FAST)
    assert found.terms.gate.base.samples == 120
    assert [arm.loss for arm in found.assembly.scores if arm.arm == "base"] == [mal_graph.evaluate(base, other).loss]


@pytest.mark.parametrize("both", [False, True])
def test_what_of_the_data_to_report_on_is_not_taken_literally_is_said_once(both):
    base, donors, data = family(donors=1)
    other = one_hot(data_of(mlp((6, 9, 8, 5), 0), 30, seed=7))
    found = zoo(base, donors, one_hot(data) if both else data, report_data=other, **FAST)
    assert found.assembly.data_notes == ("the labels are one-hot and are taken as class numbers",)


def one_hot(data):
    return {**data, "labels": np.eye(5, dtype=int)[data["labels"]]}


def changed(data, **arrays):
    return {**data, **arrays}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: {name: array[:30] for name, array in d.items()},
            "there are 15 samples to decide by, and at least 20",
        ),
        (
            lambda d: changed(d, x=np.where(d["x"] > 3, np.nan, d["x"])),
            "holds NaN in sample 0: leave it out",
        ),
        (lambda d: changed(d, x=d["x"][:, :4]), "do not fit the inputs"),
        (lambda d: changed(d, x=d["x"][:100]), "differ in their number of samples"),
        (lambda d: {"labels": d["labels"]}, "do not fit the inputs"),
        (lambda d: changed(d, labels=d["labels"] + 7), "labels run from"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, message):
    base, donors, data = family(donors=1)
    data["x"][0, 0] = 4.0
    with pytest.raises(DataError, match=message):
        zoo(base, donors, change(data), **FAST)


def test_only_one_part_with_labels_is_refused():
    base, donors, data = family(donors=1)
    with pytest.raises(DataError, match="only one of the two data files holds labels"):
        zoo(base, donors, data, report_data={"x": data["x"]}, **FAST)
    with pytest.raises(UsageError, match="data to report on and none to decide by"):
        zoo(base, donors, report_data=data, **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, "`eps` is -0.1: give by how much"),
        ({"eps": float("nan")}, "`eps` is nan"),
        ({"lambdas": [0.0]}, "there is none above 0 in `lambdas`"),
        ({"lambdas": [2.0]}, "2 is among the `lambdas`"),
        ({"controls": -1}, "`controls` is -1: give 0 or more"),
        ({"min_score": 1.5}, "`min_score` is 1.5: give the least score of a pair"),
        ({"unmatched": "none"}, "`unmatched` is 'none': choose one of fade, keep, zero"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    base, donors, data = family(donors=1)
    with pytest.raises(UsageError, match=message):
        zoo(base, donors, data, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"match_by": "activations"}, UsageError, "`match_by` is 'activations', but there are no calibration inputs"),
        ({"calibrate": inputs_only(15)}, DataError, "there are 15 calibration samples: give at least 16"),
        ({"calibrate": {"x": np.full((20, 6), np.inf, np.float32)}}, DataError, "holds NaN or infinity in sample 0"),
        ({"calibrate": {"x": np.ones((20, 7), np.float32)}}, DataError, "do not fit the inputs of"),
    ],
)
def test_calibration_inputs_that_do_not_fit_the_base_are_refused_before_the_work(options, error, message):
    base, donors, data = family(donors=1)
    with pytest.raises(error, match=message):
        zoo(base, donors, data, progress=lambda what, *_: pytest.fail(f"too late: {what}"), **options)


def test_a_donor_that_cannot_run_on_the_calibration_inputs_is_skipped_with_the_reason():
    base, donors, data = family(donors=1)
    fixed = Net(0)
    x = fixed.op("Relu", fixed.linear(fixed.input("x", (64, 6)), 6, 9))
    batched = fixed.graph(fixed.linear(x, 9, 5)).named("batched")
    found = zoo(base, [batched, *donors], data, calibrate=inputs_only(), **FAST)
    assert (found.outcomes[0].verdict, found.outcomes[1].verdict) == ("skipped", "accepted")
    assert "there are 50 calibration samples: give at least 64, one batch of batched" in found.outcomes[0].reason


def test_without_labels_agreement_and_entropy_decide_and_it_is_said():
    base, donors, data = family()
    del data["labels"]
    found = zoo(base, donors, data, eps=0.2, **FAST)
    first, last = found.terms.gate.base, found.best
    assert (first.metric, first.metric_name, first.loss_name) == (1.0, "agreement", "mean entropy")
    assert 0.8 <= last.metric <= 1.0
    assert last.loss <= first.loss
    assert "there are no labels, so no accuracy is known" in zoo_document(found).decided_by


def test_agreement_counts_equal_classes_and_entropy_is_that_of_the_probabilities():
    base, _, data = family(donors=0)
    found = predict(base, data)
    classes = found.values.argmax(axis=1)
    scores = agreement(found, classes, "a")
    p = np.exp(found.values)
    assert (scores.metric, scores.loss) == (1.0, pytest.approx(-(p * np.log(p)).sum(axis=1).mean()))
    assert agreement(found, (classes + 1) % 5, "a").metric == 0.0
    assert score(found, classes, "a").metric == 1.0


def test_without_data_layers_that_are_alike_are_merged_and_it_is_said_that_nothing_was_scored():
    base, donors, _ = family(donors=1)
    stranger = mlp((6, 30, 20, 10, 5), 4).named("stranger")
    found = zoo(base, [*donors, stranger], **FAST)
    alike, other = found.outcomes
    assert (alike.kept.lam, alike.kept.loss, alike.tried) == (LAMBDAS[0], None, ())
    assert (other.verdict, other.kept) == ("refused", None)
    assert "no layer is enough like the base's: the closest scores" in other.reason
    assert found.assembly.scores == ()
    assert "nothing is known of the quality" in zoo_document(found).decided_by
    assert zoo(base, [stranger], min_score=0.0, **FAST).outcomes[0].verdict == "accepted"


# --- stopped and taken up ----------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at(count):
    def report(what, done, total):
        if (what, done) == ("donors", count):
            raise Stop

    return report


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"width": "grow"},
        {"calibrate": inputs_only(), "match_by": "both"},
        {"calibrate": inputs_only(), "width": "grow", "depth": "expand"},
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_search_that_is_stopped_and_taken_up_gives_the_same_bytes(tmp_path, count, options):
    base, donors, data = family(4)
    donors = [donors[0], mlp((6, 12, 5), 9), *donors[1:]]
    folder = in_folder(tmp_path / "zoo", donors)
    options = {**FAST, **options}
    save(base, tmp_path / "base.onnx")
    base = mal_graph.load(tmp_path / "base.onnx")
    whole = zoo(base, folder, data, checkpoint=tmp_path / "whole.json", **options)
    state = tmp_path / "state.json"
    with pytest.raises(Stop):
        zoo(base, folder, data, checkpoint=state, progress=stop_at(count), **options)
    steps = []
    again = zoo(base, folder, data, checkpoint=state, progress=lambda what, done, total: steps.append(what), **options)
    assert {what for what in steps if what.startswith("trying")} == {f"trying d{i}.onnx" for i in range(count, 4)}
    assert again.outcomes == whole.outcomes
    assert again.assembly.scores == whole.assembly.scores
    for found, name in ((whole, "whole.onnx"), (again, "again.onnx")):
        assert write_result(found.assembly, tmp_path / name).passed
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert state.read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_donor_that_was_refused_is_not_opened_for_merging_again(tmp_path, monkeypatch):
    base, donors, data = family(donors=1)
    folder = in_folder(tmp_path / "zoo", [*donors, huge(base)])
    first = zoo(base, folder, data, checkpoint=tmp_path / "s.json", **FAST)
    assert [outcome.verdict for outcome in first.outcomes] == ["accepted", "refused"]
    module, merged = sys.modules["mal_graph.workflows.zoo_search"], []
    into = steps.merge_step
    monkeypatch.setattr(module, "merge_step", lambda a, b, *rest: merged.append(b.name) or into(a, b, *rest))
    zoo(base, folder, data, checkpoint=tmp_path / "s.json", **FAST)
    assert merged == ["d0.onnx"]


def counted(monkeypatch):
    """A list that gets an entry for every assignment problem that is solved."""
    solved = []
    module = sys.modules["mal_graph.matching.crossing_orders"]
    real = module.match_units
    monkeypatch.setattr(module, "match_units", lambda score: solved.append(score.shape) or real(score))
    return solved


@pytest.mark.parametrize("options", [{}, {"width": "grow"}, {"calibrate": inputs_only(), "match_by": "both"}])
def test_a_search_that_is_taken_up_assigns_no_unit_again(tmp_path, monkeypatch, options):
    base, donors, _ = family()
    donors = [*donors, mlp((6, 12, 5), 9).named("wider")]
    solved, options = counted(monkeypatch), {"min_score": 0.0, "checkpoint": tmp_path / "s.json", **FAST, **options}
    first = zoo(base, donors, **options)
    assert len(first.assembly.merged) == 4
    assert solved
    solved.clear()
    again = zoo(base, donors, **options)
    assert not solved
    for name, values in stored(first.assembly.graph).items():
        assert np.array_equal(stored(again.assembly.graph)[name], values)


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (["0 0 1 2 3 4 5 6 7"], "the 1 orders are not of these 1 pairs of groups"),
        (["0 1 2 3 4 5 6 7 9"], "the 1 orders are not of these 1 pairs"),
        (["0 1 2"], "the 1 orders are not of these 1 pairs"),
        ([], "the 0 orders are not of these 1 pairs"),
        (["a b c"], "the checkpoint holds no orders for "),
    ],
)
def test_orders_in_a_state_that_are_none_are_refused(tmp_path, orders, message):
    base, donors, data = family(donors=1)
    given = {"checkpoint": tmp_path / "s.json", **FAST}
    zoo(base, donors, data, **given)
    written = json.loads((tmp_path / "s.json").read_text())
    assert len(written["outcomes"][0]["kept"]["orders"]) == 1
    written["outcomes"][0]["kept"]["orders"] = orders
    del written["sha256"]
    write_checkpoint(tmp_path / "s.json", READER.validate_python(written))
    with pytest.raises((ShapeError, FileError), match=message):
        zoo(base, donors, data, **given)


def leaves(held):
    """Where the values of a document are: its parts, with the key or the place of each."""
    for key, value in held.items() if isinstance(held, dict) else enumerate(held):
        if isinstance(value, dict | list):
            yield from leaves(value)
        else:
            yield held, key


def test_a_state_of_which_any_value_is_altered_is_refused(tmp_path):
    base, donors, data = family(donors=2)
    path, given = tmp_path / "s.json", {"checkpoint": tmp_path / "s.json", **FAST}
    zoo(base, donors, data, **given)
    text = path.read_text()
    inputs = json.loads(text)["inputs"]
    count = len(list(leaves(json.loads(text))))
    assert count > 20
    for place in range(count):
        document = json.loads(text)
        held, key = list(leaves(document))[place]
        held[key] = f"{held[key]}1" if isinstance(held[key], str) else (held[key] or 0) + 1
        path.write_text(json.dumps(document))
        with pytest.raises(FileError, match=r"the checkpoint in .*: |the checkpoint in .* was altered since"):
            read_checkpoint(path, inputs)
    path.write_text(text)
    assert len(read_checkpoint(path, inputs).outcomes) == 2


def test_a_search_is_not_taken_up_with_other_calibration_inputs(tmp_path):
    base, donors, data = family(donors=1)
    given = {"checkpoint": tmp_path / "s.json", **FAST}
    zoo(base, donors, data, calibrate=inputs_only(), **given)
    zoo(base, donors, data, calibrate=inputs_only(), **given)
    for other in ({"calibrate": inputs_only(seed=1)}, {"calibrate": inputs_only(49)}, {}):
        with pytest.raises(FileError, match="its set of calibration inputs is not the one given"):
            zoo(base, donors, data, **other, **given)
    with pytest.raises(FileError, match="its set of options is not the one given"):
        zoo(base, donors, data, calibrate=inputs_only(), repair=False, **given)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda given: given | {"base": noisy(given["base"], 0.1, 3)}, "its base is not"),
        (lambda given: given | {"data": given["data"] | {"x": given["data"]["x"] + 1}}, "its data is not"),
        (lambda given: given | {"report_data": given["data"]}, "its reporting data is not"),
        (lambda given: given | {"eps": 0.5}, "its set of options is not"),
        (lambda given: given | {"calibrate": inputs_only()}, "its set of calibration inputs is not"),
        (lambda given: given | {"donors": given["donors"][::-1]}, r"its donor 1 \(donor 0\) is not"),
        (lambda given: given | {"donors": given["donors"][:1]}, r"its donor 2 \(donor 1\) is not"),
        (
            lambda given: given | {"donors": [given["donors"][0], given["base"].named("donor 1")]},
            r"its donor 2 \(donor 1\) is not",
        ),
    ],
)
def test_a_state_of_another_search_is_refused_unless_it_is_to_start_anew(tmp_path, change, what):
    base, donors, data = family(donors=2)
    given = {"base": base, "donors": donors, "data": data, "checkpoint": tmp_path / "s.json", **FAST}
    zoo(**given)
    written = (tmp_path / "s.json").read_bytes()
    with pytest.raises(FileError, match=f"cannot go on from the checkpoint in .*: {what}"):
        zoo(**change(given))
    assert (tmp_path / "s.json").read_bytes() == written
    fresh = zoo(**(change(given) | {"checkpoint": None}))
    assert zoo(**change(given), restart=True).outcomes == fresh.outcomes


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"inputs": {}, "outcomes": [{"donor": 1}]}', "\x00", "[" * 100_000])
def test_a_state_that_is_none_is_refused(tmp_path, text):
    base, donors, data = family(donors=1)
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(FileError, match=r"the checkpoint in .*: .*; remove it, or name another"):
        zoo(base, donors, data, checkpoint=tmp_path / "s.json")


def test_the_state_keeps_figures_that_are_not_finite(tmp_path):
    base, donors, data = family(donors=1)
    zoo_ = [*donors, huge(donors[0]).named("huge")]
    first = zoo(base, zoo_, data, checkpoint=tmp_path / "s.json", **FAST)
    losses = [
        point["loss"]
        for one in json.loads((tmp_path / "s.json").read_text())["outcomes"][1]["tried"]
        for point in one["points"]
    ]
    assert not np.isfinite(losses).all()
    assert first.outcomes[1].verdict == "refused"
    again = zoo(base, zoo_, data, checkpoint=tmp_path / "s.json", **FAST)
    assert repr(again.outcomes) == repr(first.outcomes)


def test_the_same_seed_gives_the_same_search_and_another_seed_another_split():
    base, donors, data = family(donors=1)
    first, again, other = (zoo(base, donors, data, seed=seed, **FAST) for seed in (0, 0, 1))
    assert first.outcomes == again.outcomes
    assert first.terms.gate.base != other.terms.gate.base


def test_the_report_holds_every_donor_and_every_point():
    base, donors, data = family(donors=2)
    found = zoo(base, [*donors, mlp((7, 5), 0).named("odd")], data, **FAST)
    document = json.loads(zoo_document(found).json_text())
    assert document["schema"] == "mal-graph/zoo/4"
    assert [one["donor"] for one in document["donors"]] == ["donor 0", "donor 1", "odd"]
    assert [one["donor"] for one in document["donors"] if one["verdict"] == "skipped"] == ["odd"]
    tried = document["donors"][0]["tried"]
    assert all([point["lam"] for point in one["points"]] == list(LAMBDAS) for one in tried)
    assert document["gate"]["result"]["loss"] == found.best.loss
