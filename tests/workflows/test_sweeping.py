"""Sweeps along lambda: every point is the merge at that lambda, and what the figures are said to show."""

import json
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from builders import Net, cnn, mlp, narrower, permuted_copy
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry
from mal_graph.config import SweepConfig
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.evaluation import Scores, evaluate
from mal_graph.merging.unmatched import all_rules
from mal_graph.option_texts import lambdas_of
from mal_graph.reporting import plots
from mal_graph.reporting.sweep_documents import grid_document, sweep_document
from mal_graph.symmetry import axis_groups
from mal_graph.workflows.curves import curve
from mal_graph.workflows.lambda_lines import Line, RepairedLine
from mal_graph.workflows.layer_grid import grid
from mal_graph.workflows.sweeping import sweep

POINTS = (0.0, 0.125, 0.5, 1.0)
UNMATCHED = [rule.name for rule in all_rules()]
PAIRS = {
    "narrower mlp": lambda: (mlp((6, 16, 12, 5), 0), mlp((6, 12, 14, 5), 1)),
    "cnn with BatchNorm": lambda: (cnn((6, 8), 0, 0), cnn((8, 6), 0, 1)),
    "BatchNorm in the base only": lambda: (cnn((6, 8), 0, 0), cnn((6, 8), 0, 1, bn=False)),
    "BatchNorm in the donor only": lambda: (cnn((6, 8), 0, 0, bn=False), cnn((6, 8), 0, 1)),
    "bias in the donor only": lambda: (bare(0), mlp((6, 7, 5), 1)),
    "float64": lambda: (mlp((6, 9, 5), 0, dtype="float64"), mlp((6, 7, 5), 1, dtype="float64")),
}


def bare(seed):
    """Two Gemms without a bias."""
    net = Net(seed)
    x = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), transB=1))
    return net.graph(net.op("Gemm", x, net.weight(5, 8), transB=1))


def data_for(graph, samples=30, classes=5):
    rng = np.random.default_rng(0)
    value = graph.inputs[0]
    x = rng.standard_normal((samples, *value.shape[1:])).astype(value.dtype)
    return {value.name: x, "labels": np.arange(samples) % classes}


def labelled_by(graph, data):
    """The data with the labels that a model gives them."""
    out = registry.runner().open(graph).run({"x": data["x"]})[graph.outputs[0].name]
    return {**data, "labels": out.argmax(axis=1)}


# --- every point is the merge ------------------------------------------------------------------------------------


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("pair", PAIRS)
def test_every_point_of_every_arm_is_scored_as_the_merge_at_that_lambda(pair, unmatched):
    base, donor = PAIRS[pair]()
    data = data_for(base)
    found = sweep(base, donor, data, lambdas=POINTS, unmatched=unmatched, verify=False)
    assert [c.arm for c in found.curves] == ["aligned", "plain average", "random permutation", "random donor"]
    for i, lam in enumerate(POINTS):
        merged = mal_graph.assemble(base, donor, lam=lam, unmatched=unmatched, data=data, verify=False)
        arms = {score.arm: score for score in merged.scores}
        expected = [arms["merged"], *(arms[c.arm] for c in found.curves[1:])]
        assert [c.points[i].loss for c in found.curves] == pytest.approx([score.loss for score in expected], rel=1e-5)
        assert [c.points[i].metric for c in found.curves] == [score.metric for score in expected]


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("shape", [{}, {"repair": False}, {"width": "grow"}])
@pytest.mark.parametrize("widths", [(9, 6), (6, 9)])
def test_the_epsilon_of_a_norm_over_other_widths_goes_with_every_point(widths, shape):
    """Only arms that are merged as they are, for a shuffled scale says nothing of its operator's epsilon."""
    base, donor = normed(widths[0], 0), normed(widths[1], 1)
    data = data_for(base, classes=3)
    options = {**shape, "calibrate": {"x": data["x"]}, "verify": False}
    found = sweep(base, donor, data, lambdas=POINTS, **options)
    for i, lam in enumerate(POINTS):
        merged = mal_graph.assemble(base, donor, lam=lam, data=data, **options)
        arms = {score.arm: score.loss for score in merged.scores}
        assert found.curves[0].points[i].loss == pytest.approx(arms["merged"], rel=1e-5)
        assert found.curves[1].points[i].loss == pytest.approx(arms["plain average"], rel=1e-5)


def normed(width, seed):
    """A norm with an epsilon that tells."""
    net = Net(seed, opset=23)
    x = net.linear(net.input("x", ("N", 6)), 6, width)
    x = net.op("RMSNormalization", x, net.weight(width, scale=1.0), axis=-1, epsilon=1.0 + seed)
    return net.graph(net.linear(x, width, 3))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("shape", [{"width": "grow"}, {"width": "grow", "depth": "expand"}])
def test_every_point_of_a_grown_base_is_the_merge_at_that_lambda(shape, unmatched):
    base, donor = mlp((6, 7, 5), 0), mlp((6, 9, 8, 5), 1) if "depth" in shape else mlp((6, 10, 5), 1)
    data = data_for(base)
    found = sweep(base, donor, data, lambdas=POINTS, unmatched=unmatched, verify=False, **shape)
    for i, lam in enumerate(POINTS):
        merged = mal_graph.assemble(base, donor, lam=lam, unmatched=unmatched, data=data, verify=False, **shape)
        arms = {score.arm: score for score in merged.scores}
        expected = [arms["merged"], *(arms[c.arm] for c in found.curves[1:])]
        assert [c.points[i].loss for c in found.curves] == pytest.approx([score.loss for score in expected], rel=1e-5)
    assert len({c.points[1].loss for c in found.curves}) > 1


def unlabelled(graph, samples=40):
    return {name: array for name, array in data_for(graph, samples).items() if name != "labels"}


def far_from_repaired_merges(base, donor, **shape):
    """How far the points of all arms of a repaired sweep are from the repaired merges, relative to their loss."""
    data, options = data_for(base), {"calibrate": unlabelled(base), "verify": False, **shape}
    found = sweep(base, donor, data, lambdas=POINTS, **options)
    assert [c.arm for c in found.curves[4:]] == ["base, repaired"]
    gaps = []
    for i, lam in enumerate(POINTS):
        merged = mal_graph.assemble(base, donor, lam=lam, data=data, **options)
        arms = {score.arm: score.loss for score in merged.scores}
        expected = [arms["merged"], *(arms.get(c.arm, arms["base"]) for c in found.curves[1:])]  # at 0 nothing is
        gaps += [abs(c.points[i].loss / loss - 1) for c, loss in zip(found.curves, expected, strict=True)]
    return max(gaps)


@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [{}, {"unmatched": "zero"}, {"width": "grow"}, {"match_by": "both", "rescale_invariant": True}]
)
@pytest.mark.parametrize("pair", PAIRS)
def test_with_calibration_inputs_every_point_of_every_arm_is_the_repaired_merge(pair, shape):
    assert far_from_repaired_merges(*PAIRS[pair](), **shape) < 1e-4


@pytest.mark.slow
def test_a_base_that_grows_in_width_and_depth_is_repaired_at_every_point_too():
    shape = {"width": "grow", "depth": "expand"}
    assert far_from_repaired_merges(mlp((6, 7, 5), 0), mlp((6, 9, 8, 5), 1), **shape) < 1e-4


def test_half_precision_is_repaired_at_every_point_as_far_as_it_can():
    pair = (mlp((6, 9, 5), seed, dtype="float16") for seed in (0, 1))
    assert far_from_repaired_merges(*pair) < 1e-2


def test_repair_towards_the_goals_of_another_lambda_breaks_the_law(monkeypatch):
    monkeypatch.setattr(
        RepairedLine, "at", lambda made, lam: made.repairs.weights_of(made.repairs.plan.at(1.0), made.line.at(lam))
    )
    assert far_from_repaired_merges(*PAIRS["narrower mlp"]()) > 1e-2


def test_the_report_of_a_repaired_sweep_says_what_was_repaired():
    base, donor = PAIRS["cnn with BatchNorm"]()
    plain, found = (
        sweep_document(sweep(base, donor, data_for(base), lambdas=[0.5], calibrate=given, verify=False))
        for given in (None, data_for(base, 20))
    )
    assert ([own.samples for own in plain.repair], found.repair[0].samples) == ([0], 20)
    assert len(plain.repair[0].reset) == len(found.repair[0].reset)
    assert len(found.repair[0].reset) == sum(node.op == "BatchNormalization" for node in base.nodes)
    assert any("BatchNormalizations are not measured again on data" in note for note in plain.notes)
    assert found.notes == ["the labels among the calibration inputs are not used"]
    without = sweep(base, donor, data_for(base), lambdas=[0.5], calibrate=unlabelled(base), repair=False, verify=False)
    assert [c.arm for c in without.curves] == [c.name for c in plain.curves]
    bare = sweep(base, donor, data_for(base), lambdas=[0.5], repair=False, verify=False)
    assert [c.points[1].loss for c in without.curves] == [c.points[1].loss for c in bare.curves]


def test_a_merge_that_is_no_better_than_repair_alone_is_named_with_both_figures():
    base = mlp((6, 16, 12, 5), 0)
    data = labelled_by(base, data_for(base, 100))
    found = sweep(base, mlp((6, 16, 12, 5), 9), data, lambdas=POINTS, calibrate=unlabelled(base), verify=False)
    means = [np.mean([p.loss for p in found.curves[i].points[1:]]) for i in (0, 4)]
    expected = f"{means[0]:.4g} aligned, {means[1]:.4g} for the base with its own weights, repaired alike"
    assert any(f.startswith("merging no better than repair alone: ") and expected in f for f in found.findings)


@pytest.mark.parametrize("match_by", ["activations", "both"])
def test_a_sweep_aligns_by_the_signal(match_by):
    base = mlp((6, 16, 12, 5), 0)
    donor, orders = permuted_copy(base, axis_groups(base), 1)
    options = {"lambdas": [0.5], "calibrate": unlabelled(base, 100), "verify": False}
    made = sweep(base, donor, data_for(base), match_by=match_by, **options).step.plan.alignment
    assert all(
        np.array_equal(o, orders[pair.base]) for o, pair in zip(made.orders, made.correspondence.pairs, strict=True)
    )
    stranger = mlp((6, 16, 12, 5), 1)
    plain, signalled = (
        sweep(base, stranger, data_for(base), match_by=kind, **options).step.plan.alignment.orders
        for kind in ("weights", match_by)
    )
    assert not all(map(np.array_equal, plain, signalled))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"match_by": "both"}, UsageError, "`match_by` is 'both', but there are no calibration inputs"),
        ({"calibrate": {"x": np.ones((9, 6), np.float32)}}, DataError, "there are 9 calibration samples"),
        ({"calibrate": {"x": np.full((20, 6), np.nan, np.float32)}}, DataError, "holds NaN or infinity in sample 0"),
        ({"calibrate": {"x": np.ones((20, 5), np.float32)}}, DataError, "do not fit the inputs of"),
    ],
)
def test_calibration_inputs_that_do_not_fit_are_refused_before_the_work(options, error, message):
    base, donor = PAIRS["narrower mlp"]()
    with pytest.raises(error, match=message):
        sweep(base, donor, data_for(base), progress=lambda what, *_: pytest.fail(f"too late: {what}"), **options)


def test_points_that_do_not_move_break_the_law(monkeypatch):
    base, donor = PAIRS["narrower mlp"]()
    data = data_for(base)
    monkeypatch.setattr(Line, "at", lambda line, lam: {name: a for name, (a, _) in line.ends.items()})
    found = sweep(base, donor, data, lambdas=[0.5], verify=False)
    merged = mal_graph.assemble(base, donor, lam=0.5, verify=False)
    assert found.curves[0].points[1].loss != pytest.approx(evaluate(merged.graph, data).loss, rel=1e-3)


@pytest.mark.parametrize("is_repaired", [False, True])
def test_the_number_of_sessions_does_not_depend_on_the_number_of_points(is_repaired):
    base, donor = PAIRS["narrower mlp"]()
    calibrate = unlabelled(base) if is_repaired else None
    opened = []

    class Counting:
        def open(self, graph, **options):
            opened.append(graph.name)
            return registry.runner().open(graph, **options)

    counts = []
    for lambdas in ([0.5], np.linspace(0, 1, 21)):
        opened.clear()
        sweep(base, donor, data_for(base), lambdas=lambdas, runner=Counting(), calibrate=calibrate, verify=False)
        counts.append(len(opened))
    assert counts[0] == counts[1]


def test_a_full_merge_of_equal_shape_has_a_barrier_and_others_have_none():
    base, donor = mlp((6, 9, 5), 0), mlp((6, 9, 5), 1)
    data = data_for(base)
    found = sweep(base, donor, data, lambdas=POINTS, verify=False)
    barriers = {c.arm: c.barrier for c in found.curves}
    assert barriers.pop("random donor") is None
    own = evaluate(donor, data).loss
    for c in found.curves[:3]:
        assert c.points[-1].loss == pytest.approx(own, rel=1e-5)
        losses = [point.loss for point in c.points]
        assert c.barrier == pytest.approx(max(losses) - (losses[0] + losses[-1]) / 2)
    other = sweep(base, mlp((6, 7, 5), 1), data, lambdas=POINTS, verify=False)
    assert all(c.barrier is None for c in other.curves)
    short = sweep(base, donor, data, lambdas=[0.5], verify=False)
    assert all(c.barrier is None for c in short.curves)


# --- lambda* -----------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(0, 3), st.just(float("nan"))), min_size=1, max_size=12), st.floats(0, 2))
def test_lambda_star_is_the_last_point_before_the_loss_rises_by_more_than_eps(losses, eps):
    losses = [1.0, *losses]
    points = tuple(Scores("a", x, 0.5, "accuracy", "cross-entropy", 9, "y", "logits") for x in losses)
    lambdas = np.linspace(0, 1, len(losses)).tolist()
    star = lambdas.index(curve("a", lambdas, points, eps, False).lam_star)
    assert all(x - 1.0 <= eps for x in losses[: star + 1])
    assert star + 1 == len(losses) or not losses[star + 1] - 1.0 <= eps


# --- lists of lambda ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:1:0.25", (0, 0.25, 0.5, 0.75, 1)),
        ("0:1:0.05", SweepConfig().lambdas),
        ("0.1:0.35:0.1", (0.1, 0.2, 0.3)),
        ("0,0.1, 0.5", (0, 0.1, 0.5)),
        ("0.3", (0.3,)),
    ],
)
def test_lambdas_are_written_as_a_range_or_as_a_list(text, expected):
    assert lambdas_of(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:0", "1:0:0.1", "0:1:-1", "0,,1", "nan", "0:inf:1", "0:1:1e-9"])
def test_what_is_no_list_of_lambdas_is_refused(text):
    with pytest.raises(UsageError, match=r"`lambdas` '.*' (is no list of numbers|has no points): write "):
        lambdas_of(text)


@pytest.mark.parametrize(
    ("lambdas", "message"),
    [
        ([0.5, 1.5], "1.5 is among the `lambdas`: give merging factors from 0"),
        ([-0.1], "-0.1 is among the `lambdas`"),
        ([], "there is none above 0 in `lambdas`"),
        ([0.0], "there is none above 0 in `lambdas`"),
    ],
)
def test_lambdas_out_of_range_are_refused(lambdas, message):
    base, donor = PAIRS["narrower mlp"]()
    with pytest.raises(UsageError, match=message):
        sweep(base, donor, data_for(base), lambdas=lambdas)


def test_a_negative_eps_is_refused():
    base, donor = PAIRS["narrower mlp"]()
    with pytest.raises(UsageError, match="`eps` is -1: give how much more loss"):
        sweep(base, donor, data_for(base), eps=-1)


# --- findings ----------------------------------------------------------------------------------------------------


def test_a_shuffled_copy_shows_no_failure():
    base = mlp((6, 16, 12, 5), 0)
    donor, _ = permuted_copy(base, axis_groups(base), 1)
    found = sweep(base, donor, labelled_by(base, data_for(base, 200)), lambdas=POINTS, verify=False)
    assert found.findings == ()
    assert found.curves[0].lam_star == 1.0
    assert found.donor_scores.metric == 1.0


def test_a_stranger_is_told_by_every_figure_it_fails():
    base, donor = mlp((6, 16, 12, 5), 0), mlp((6, 16, 12, 5), 9)
    data = labelled_by(base, data_for(base, 200))
    found = sweep(base, donor, data, lambdas=POINTS, verify=False)
    star = found.curves[0].lam_star
    assert any(f.startswith(f"lambda beyond lambda*: up to {star:g} the loss stays within") for f in found.findings)


def test_an_alignment_no_better_than_random_is_named_with_both_figures():
    """The donor's shuffle is what it learnt: here the aligned arm is the random permutation itself."""
    base = mlp((6, 16, 12, 5), 0)
    donor = mlp((6, 16, 12, 5), 1)
    steps, sweeping = sys.modules["mal_graph.workflows.steps"], sys.modules["mal_graph.workflows.sweeping"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "assign_units", lambda found, evidence: sweeping.assign_at_random(found, 0))
        found = sweep(base, donor, data_for(base, 60), lambdas=POINTS, verify=False, seed=0)
    means = [
        np.mean([p.loss for p in c.points[1:]]) for c in found.curves if c.arm in ("aligned", "random permutation")
    ]
    expected = f"{means[0]:.4g} aligned, {means[1]:.4g} with a random permutation"
    assert any(f.startswith("alignment no better than random: ") and expected in f for f in found.findings)


def test_a_donor_at_chance_on_the_data_is_named():
    base, donor = mlp((6, 16, 5), 0), mlp((6, 16, 5), 1)
    data = labelled_by(base, data_for(base, 300))
    rng = np.random.default_rng(0)
    at_chance = sweep(base, donor, {**data, "labels": rng.permutation(data["labels"])}, lambdas=[0.5], verify=False)
    assert any("semantic mismatch of the data: the donor's accuracy on them is" in f for f in at_chance.findings)


def test_a_donor_that_fits_no_label_is_named():
    base = mlp((6, 16, 5), 0)
    net = Net(1)
    x = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, 16))
    donor = net.graph(net.op("Reshape", net.linear(x, 16, 8), net.constant([-1, 2, 2, 2])))
    found = sweep(base, donor, data_for(base), lambdas=[0.5], verify=False)
    assert found.donor_scores is None
    assert found.unscored.startswith("no output of net.onnx fits the labels")
    assert f"semantic mismatch of the data: the donor gives nothing to be scored: {found.unscored}" in found.findings


@pytest.mark.parametrize("head", [40, 2])
def test_a_donor_with_another_head_is_swept_and_it_is_said_why_it_has_no_score(head):
    base, donor = mlp((6, 16, 5), 0), mlp((6, 16, head), 1)
    form = sweep_document(sweep(base, donor, data_for(base), lambdas=[0.5], verify=False))
    assert form.donor_scores is None
    assert form.unscored.endswith(f"tells {head} classes apart, the base's 5")
    assert len(form.curves) == 4
    assert np.isfinite([curve.loss for curve in form.curves]).all()


def test_a_deep_donor_layer_in_a_shallow_base_layer_is_named_where_the_loss_rises():
    base, donor = mlp((6, 6, 6, 6, 6, 5), 0), mlp((6, 6, 6, 6, 6, 5), 1)
    names = [layer.name for layer in mal_graph.match_layers(base, donor).base]
    data = labelled_by(base, data_for(base, 100))
    found = sweep(base, donor, data, matches=[(names[1], names[3])], eps=0.0, verify=False)
    deep = [f for f in found.findings if f.startswith("deep donor layer in a shallow base layer")]
    assert deep == [
        f"deep donor layer in a shallow base layer: {names[3]} stands at 75% of the donor's depth, "
        f"{names[1]} at 25% of the base's"
    ]


def test_models_with_other_inputs_are_refused():
    with pytest.raises(MatchError, match=r"the inputs of .* do not fit"):
        sweep(mlp((6, 5), 0), mlp((7, 5), 0), data_for(mlp((6, 5), 0)))


def test_data_that_do_not_fit_are_refused():
    base, donor = PAIRS["narrower mlp"]()
    with pytest.raises(DataError, match="do not fit the inputs"):
        sweep(base, donor, {"x": np.zeros((4, 3), np.float32), "labels": np.arange(4)}, verify=False)


# --- one layer with one layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["narrower mlp", "cnn with BatchNorm", "BatchNorm in the base only"])
def test_every_cell_is_the_merge_of_that_pair_alone(pair):
    base, donor = PAIRS[pair]()
    data = data_for(base)
    found = grid(base, donor, data, lam=0.3, verify=False)
    done = np.argwhere(np.isfinite(found.change))
    assert len(done) >= 2
    assert len(done) + len(found.reasons) == found.change.size
    for i, j in done:
        names = found.base_layers[i], found.donor_layers[j]
        merged = mal_graph.assemble(base, donor, lam=0.3, matches=[names], verify=False)
        loss = evaluate(merged.graph, data).loss
        assert found.change[i, j] == pytest.approx(loss - found.base_loss, rel=1e-4, abs=1e-6)


def test_pairs_that_do_not_fit_are_blank_with_the_reason():
    base, donor = cnn((6, 8), 0, 0), cnn((8, 6), 0, 1)
    found = grid(base, donor, data_for(base), verify=False)
    last = len(found.base_layers) - 1
    assert np.isnan(found.change[0, last])
    assert "pair layers of the same kind" in found.reasons[0, last]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    base, donor = PAIRS["narrower mlp"]()
    data = data_for(base)
    return sweep(base, donor, data, lambdas=POINTS, verify=False), grid(base, donor, data, verify=False)


def test_json_and_csv_hold_every_point(results):
    form = sweep_document(results[0])
    document = json.loads(form.json_text())
    assert document["schema"] == "mal-graph/sweep/3"
    assert document["lambdas"] == list(POINTS)
    header, *rows = form.csv_text().splitlines()
    assert header == "curve,lambda,loss,accuracy"
    assert len(rows) == 4 * len(POINTS)
    assert rows[1] == f"aligned,0.125,{document['curves'][0]['loss'][1]},{document['curves'][0]['metric'][1]}"


def test_json_and_csv_leave_blank_cells_empty(results):
    form = grid_document(results[1])
    document = json.loads(form.json_text())
    assert document["schema"] == "mal-graph/grid/3"
    blank = document["blank"][0]
    i, j = form.base_layers.index(blank["base"]), form.donor_layers.index(blank["donor"])
    assert document["change"][i][j] is None
    rows = form.csv_text().splitlines()[1:]
    assert len(rows) == results[1].change.size
    assert sum(",," in row for row in rows) == len(document["blank"])


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_plots_are_images_and_the_same_every_time(results, kind, start):
    pytest.importorskip("matplotlib")
    for draw, found in zip((plots.draw_curves, plots.draw_heat_map), results, strict=True):
        drawn = draw(found, kind)
        assert drawn.startswith(start)
        assert drawn == draw(found, kind)


def test_names_in_plots_are_text_and_no_formulas(results):
    pytest.importorskip("matplotlib")
    sweep, grid = results
    odd = "$\\frac{$\x1b[31m\u202e\n"
    names = {"donor": odd, "donor_layers": tuple(f"{odd}{name}" for name in grid.donor_layers)}
    curves = plots.draw_curves(replace(sweep, donor=odd), "svg")
    for drawn in (plots.draw_heat_map(replace(grid, **names), "svg"), curves):
        assert ElementTree.fromstring(drawn).tag.endswith("svg")  # control characters are none of XML
        assert "\u202e" not in drawn.decode()


def test_without_matplotlib_it_is_said_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        UsageError, match=r"matplotlib, which is not installed: pip install 'mal-graph\[plot\]', or write"
    ):
        plots.draw_curves(results[0], "svg")


def test_a_narrower_copy_is_swept_with_its_own_units():
    base = mlp((6, 16, 12, 5), 0)
    donor, _ = narrower(base, axis_groups(base), 1)
    found = sweep(base, donor, data_for(base), lambdas=POINTS, verify=False)
    assert found.curves[0].rise == pytest.approx(0, abs=1e-6)  # matched units are copies, the others are kept
