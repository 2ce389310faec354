"""The main job: several donors, the self-check, the arms of a comparison, selectors, inputs."""

import gc
import re
import sys
import tracemalloc
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, permuted_copy, renamed_copy, run

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.evaluation import ensemble, predict, score
from mal_graph.matching import assign_in_order, assign_units
from mal_graph.network import find_layers
from mal_graph.reporting.documents import assemble_document
from mal_graph.symmetry import axis_groups
from mal_graph.workflows.baselines import rebuilt
from mal_graph.workflows.checks import check_inputs, self_check_of, shapes_fit
from mal_graph.workflows.steps import self_check, shuffled

STEPS = sys.modules["mal_graph.workflows.steps"]
BASELINES = sys.modules["mal_graph.workflows.baselines"]
ARMS = ["base", "donor", "merged", "plain average", "random permutation", "random donor", "ensemble"]


def data_for(width=6, classes=5, samples=30):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, width)).astype(np.float32)
    return {"x": x, "labels": np.arange(samples) % classes}


def values(graph):
    return {name: weight.read() for name, weight in graph.weights.items()}


def bare(seed):
    """Two Gemms without a bias."""
    net = Net(seed)
    x = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), transB=1))
    return net.graph(net.op("Gemm", x, net.weight(5, 8), transB=1))


# --- donors with another head ------------------------------------------------------------------------------------


def with_head(head, seed=1):
    return mlp((6, 9, 8, head), seed)


@pytest.mark.parametrize(
    ("donor", "why"),
    [
        (with_head(40), r"output '\w+' of mlp 6-9-8-40.onnx tells 40 classes apart, the base's 5"),
        (with_head(2), r"output '\w+' of mlp 6-9-8-2.onnx tells 2 classes apart, the base's 5"),
        (with_head(1), r"output '\w+' of mlp 6-9-8-1.onnx tells 2 classes apart, the base's 5"),
    ],
    ids=["more classes", "fewer classes", "one unit"],
)
def test_a_donor_with_another_head_has_no_score_and_everything_else_has(donor, why):
    base, data = with_head(5, 0), data_for()
    found = mal_graph.assemble(base, donor, data=data, verify=False, method="mal")
    assert [one.arm for one in found.scores] == [arm for arm in ARMS if arm not in ("donor", "ensemble")]
    (note,) = (note for note in assemble_document(found).notes if note.startswith("donor has no score"))
    assert re.search(f"no part in the ensemble: {why}$", note)
    assert list(found.unscored) == ["donor"]
    plain = mal_graph.assemble(base, donor, verify=False, method="mal")
    assert values(found.graph).keys() == values(plain.graph).keys()
    head = find_layers(base)[-1].weight.tensor
    assert np.array_equal(values(found.graph)[head], values(base)[head])
    assert not np.array_equal(values(found.graph)["w0"], values(base)["w0"])


def test_a_donor_that_is_not_held_against_the_base_breaks_the_ensemble(monkeypatch):
    real = BASELINES.predicted_like
    monkeypatch.setattr(BASELINES, "predicted_like", lambda beside, *rest: real(None, *rest))
    with pytest.raises(DataError, match="an ensemble needs predictions of one shape"):
        mal_graph.assemble(with_head(5, 0), with_head(40), data=data_for(), verify=False, method="mal")


def test_the_ensemble_is_that_of_the_models_that_have_scores():
    base, donors, data = with_head(5, 0), [with_head(40, 1), with_head(5, 2)], data_for()
    found = mal_graph.assemble(base, donors, data=data, verify=False, method="mal")
    arms = {one.arm: one for one in found.scores}
    assert ("donor 1" in arms, "donor 2" in arms, list(found.unscored)) == (False, True, ["donor 1"])
    expected = score(ensemble([predict(model, data) for model in (base, donors[1])]), data["labels"], "ensemble")
    assert arms["ensemble"].loss == expected.loss


def test_a_donor_that_calls_its_output_otherwise_is_scored_though_the_bases_is_named():
    base = with_head(5, 0)
    donor, _ = renamed_copy(with_head(5))
    (name,) = base.output_names
    assert name not in donor.output_names
    found = mal_graph.assemble(base, donor, data=data_for(), score_output=name, verify=False, method="mal")
    assert [one.arm for one in found.scores] == ARMS


def test_data_that_do_not_fit_the_base_are_refused_whatever_the_donor_says():
    base, data = with_head(5, 0), data_for()
    with pytest.raises(DataError, match="labels run from 0 to 9"):
        mal_graph.assemble(base, with_head(40), data={**data, "labels": np.arange(30) % 10}, verify=False, method="mal")


# --- lambda per layer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"lam": [0.0, 1.0]}, [0, 0.25, 0.5, 0.75, 1]),
        ({"lam": [0.2, 0.6, 0.2]}, [0.2, 0.4, 0.6, 0.4, 0.2]),
        ({"lam": 0.3, "lam_for": {"1:3": 0.9}}, [0.3, 0.9, 0.9, 0.3, 0.3]),
        ({"lam": [0.0, 1.0], "lam_for": {"*": 0.5, "4:5": 0.0}}, [0.5, 0.5, 0.5, 0.5, 0]),
    ],
)
def test_every_layer_is_merged_by_its_own_lambda(options, factors):
    base, donor = mlp((6, 8, 7, 6, 8, 5), 0), mlp((6, 7, 8, 8, 6, 5), 1)
    found = mal_graph.assemble(base, donor, verify=False, **options, method="mal")
    for index, factor in enumerate(factors):
        alone = values(mal_graph.assemble(base, donor, lam=factor, verify=False).graph)
        for name in (f"w{2 * index}", f"w{2 * index + 1}"):
            np.testing.assert_array_equal(found.graph.weights[name].read(), alone[name])
    (step,) = found.merged
    sizes = [base.weights[s.tensor].size for s in step.plan.steps]
    mean = np.average(np.repeat(factors, 2), weights=sizes)
    assert found.shares == pytest.approx((1 - mean, mean))


def test_the_controls_use_the_same_lambdas():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1)
    found = mal_graph.assemble(base, donor, lam=0.7, lam_for={"*": 0.0}, data=data_for(), verify=False)
    scores = {score.arm: score.loss for score in found.scores}
    assert found.graph is base
    assert {scores[arm] for arm in ("merged", "plain average", "random permutation")} == {scores["base"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": [0.1, 1.5]}, r"`lam` is \(0\.1, 1\.5\): give a merging factor"),
        ({"lam": []}, "`lam` is empty: give a merging factor"),
        ({"lam": [0.1, 0.2, 0.3]}, "3 lambdas are given for 2 layers: give one, or a few"),
        ({"lam_for": {"*": 2.0}}, "`lam_for` is 2: give a merging factor"),
        ({"lam_for": {"conv*": 0.5}}, "the selector 'conv\\*' selects none of 2 layers"),
    ],
)
def test_lambdas_that_fit_no_layer_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        mal_graph.assemble(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), verify=False, **options, method="mal")


# --- several donors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("donors", [1, 2, 5])
def test_shares_add_up_and_are_what_merging_numbers_gives(lam, donors):
    base, *others = (mlp((6, 8, 5), seed) for seed in range(donors + 1))
    found = mal_graph.assemble(base, others, lam=lam, verify=False).shares
    merged = np.eye(donors + 1)[0]
    for i in range(donors):
        merged = (1 - lam) * merged + lam * np.eye(donors + 1)[i + 1]
    assert found == pytest.approx(merged)
    assert sum(found) == pytest.approx(1)


def test_shuffled_copies_of_the_base_give_back_the_base():
    base = cnn((6, 8), 1, 0)
    groups = axis_groups(base)
    donors = [permuted_copy(base, groups, seed)[0] for seed in range(3)]
    result = mal_graph.assemble(base, donors, lam=0.3, verify=False)
    assert all(np.array_equal(array, values(base)[name]) for name, array in values(result.graph).items())
    assert len(result.merged) == 3


def test_the_order_of_donors_decides_their_shares():
    """The last one counts most where lambda is large."""
    base, donors = mlp((6, 8, 5), 0), [mlp((6, 8, 5), 1), mlp((6, 8, 5), 2)]
    ahead = mal_graph.assemble(base, donors, lam=1.0, verify=False)
    back = mal_graph.assemble(base, donors[::-1], lam=1.0, verify=False)
    assert ahead.shares == (0.0, 0.0, 1.0)
    inputs = inputs_of(base)
    assert deviation(run(ahead.graph, inputs), run(donors[1], inputs)) <= 1e-6
    assert deviation(run(back.graph, inputs), run(donors[0], inputs)) <= 1e-6


def test_at_lambda_0_the_base_itself_comes_back():
    base = bare(0)
    result = mal_graph.assemble(base, [mlp((6, 8, 5), 1), mlp((6, 9, 5), 2)], lam=0.0, verify=False)
    assert result.graph is base
    assert result.shares == (1.0, 0.0, 0.0)


def test_no_donor_is_an_error():
    with pytest.raises(UsageError, match="no donor given: name at least one model"):
        mal_graph.assemble(mlp((6, 8, 5), 0), [], method="mal")


def test_a_pair_list_for_two_donors_is_an_error():
    base = mlp((6, 8, 5), 0)
    with pytest.raises(UsageError, match="a pair list belongs to one donor: merge the donors one by one"):
        mal_graph.assemble(base, [base, base], matches=[("Gemm_0", "Gemm_0")])


def test_a_donor_of_which_nothing_can_be_merged_is_an_error_with_reasons():
    base, donor = mlp((6, 4), 0), mlp((6, 3), 1)
    with pytest.raises(MatchError, match=r"nothing of .* can be merged into .*Gemm_0: its output axis is fixed"):
        mal_graph.assemble(base, donor, verify=False, method="mal")


# --- the self-check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "donor"),
    [
        (mlp((6, 8, 7, 5), 0), mlp((6, 10, 5, 5), 1)),
        (cnn((6, 8), 1, 0), cnn((8, 6), 1, 1)),
        (cnn((6, 8), 1, 0, concat=True), cnn((5, 9), 1, 1, concat=True)),
    ],
    ids=["mlp", "cnn", "concat"],
)
def test_the_orders_used_keep_the_donors_outputs(base, donor):
    result = mal_graph.assemble(base, donor, method="mal")
    assert result.check("self_check").passed
    assert 0 <= result.merged[0].self_check <= 3e-4


def moved_by(donor, groups, alignment):
    return self_check(donor, groups, alignment, registry.runner(), 0)


def with_group(alignment, index, group):
    """The alignment with another group of the donor in the place of one."""
    found = alignment.correspondence
    assigned = [
        (mine, replace(theirs, group=group) if theirs.groups == {index} else theirs) for mine, theirs in found.assigned
    ]
    return replace(alignment, correspondence=replace(found, assigned=tuple(assigned)))


def test_the_self_check_holds_one_copy_of_the_donor():
    """Beside the largest tensor, which stands in two orders for a moment."""
    base, donor = (mlp((16, *[256] * 12, 5), seed) for seed in (0, 1))
    step = mal_graph.assemble(base, donor, method="mal").merged[0]
    size = sum(weight.nbytes for weight in donor.weights.values())
    gc.collect()
    tracemalloc.start()
    try:
        moved_by(donor, step.donor_groups, step.plan.alignment)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size <= most <= 1.5 * size


def test_a_member_missing_from_a_group_moves_the_outputs():
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 10, 9, 5), 1)
    step = mal_graph.assemble(base, donor, verify=False, method="mal").merged[0]
    alignment, groups = step.plan.alignment, step.donor_groups
    assert moved_by(donor, groups, alignment) <= 3e-5
    for index in groups.usable():
        for member in range(len(groups.groups[index].members)):
            members = [m for i, m in enumerate(groups.groups[index].members) if i != member]
            wrong = replace(groups.groups[index], members=tuple(members))
            assert moved_by(donor, groups, with_group(alignment, index, wrong)) > 1e-3


def test_a_group_whose_positions_are_one_off_moves_the_outputs():
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 8, 7, 5), 1)
    step = mal_graph.assemble(base, donor, verify=False, method="mal").merged[0]
    groups, index = step.donor_groups, step.donor_groups.usable()[0]
    group = groups.groups[index]
    rolled = replace(group.members[0], positions=np.roll(group.members[0].positions, 1, axis=0))
    wrong = replace(group, members=(rolled, *group.members[1:]))
    assert moved_by(donor, groups, with_group(step.plan.alignment, index, wrong)) > 1e-3


def test_every_order_of_a_donor_group_is_tried_where_it_has_several():
    """Two streams of the base correspond to one of the donor."""
    base, donor = cnn((6,), 2, 0, residual=False), cnn((6,), 2, 1)
    step = mal_graph.assemble(base, donor, verify=False, method="mal").merged[0]
    orders = {}
    for pair, order in zip(step.plan.alignment.correspondence.pairs, step.plan.alignment.orders, strict=True):
        orders.setdefault(pair.donor, []).append(order)
    assert max(map(len, orders.values())) > 1
    assert moved_by(donor, step.donor_groups, step.plan.alignment) <= 3e-4


def test_without_verification_nothing_is_said_to_be_checked():
    result = mal_graph.assemble(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), verify=False, method="mal")
    assert str(result.check("self_check")) == "not run: the groups are unverified"
    assert result.passed


@pytest.mark.parametrize(
    ("moved", "verdict"), [(1e-6, "passed"), (2e-2, "failed: the donor's outputs move by 2.0e-02")]
)
def test_the_verdict_names_how_far_the_outputs_moved(moved, verdict):
    step = mal_graph.assemble(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), verify=False, method="mal").merged[0]
    assert str(self_check_of([replace(step, self_check=0.0), replace(step, self_check=moved)])) == verdict


def test_a_failed_self_check_fails_the_assembly(monkeypatch):
    monkeypatch.setattr(STEPS, "self_check", lambda *rest: 0.5)
    result = mal_graph.assemble(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), method="mal")
    assert not result.passed


# --- the arms ----------------------------------------------------------------------------------------------------


def test_the_arms_stand_in_a_fixed_order_each_donor_by_number():
    base, donors = mlp((6, 8, 5), 0), [mlp((6, 9, 5), 1), mlp((6, 7, 5), 2)]
    found = mal_graph.assemble(base, donors, data=data_for(), verify=False, method="mal").scores
    assert [score.arm for score in found] == ["base", "donor 1", "donor 2", *ARMS[2:]]


def test_base_and_donor_are_scored_as_they_are():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 9, 5), 1)
    found = {
        score.arm: score
        for score in mal_graph.assemble(base, donor, data=data_for(), verify=False, method="mal").scores
    }
    alone = [mal_graph.evaluate(graph, data_for()) for graph in (base, donor)]
    assert [found[arm].loss for arm in ("base", "donor")] == pytest.approx([score.loss for score in alone])


def controls(monkeypatch, base, donor, **options):
    """The models that are scored as arms."""
    seen = []
    original = BASELINES.predict
    monkeypatch.setattr(
        BASELINES, "predict", lambda graph, *rest, **more: (seen.append(graph), original(graph, *rest, **more))[1]
    )
    result = mal_graph.assemble(base, donor, data=data_for(), verify=False, **options, method="mal")
    return result, dict(zip(ARMS, seen, strict=False))


def test_every_control_changes_the_same_tensors(monkeypatch):
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 9, 6, 5), 1)
    result, found = controls(monkeypatch, base, donor, layers="0:2")
    assert result.graph.edited == {"w0", "w1", "w2", "w3"}
    for arm in ARMS[3:6]:
        assert found[arm].edited == result.graph.edited


def test_a_control_has_the_bias_that_the_merge_inserted(monkeypatch):
    """All else equal: a control without it would be held against a model that has one."""
    result, found = controls(monkeypatch, bare(0), mlp((6, 8, 5), 1))
    assert len(result.graph.inserted) == 2
    for arm in ARMS[3:6]:
        assert dict(found[arm].inserted) == dict(result.graph.inserted)
        assert all(found[arm].weights[name].read().any() for name in found[arm].inserted)


def test_only_selected_layers_get_a_bias(monkeypatch):
    result, found = controls(monkeypatch, bare(0), mlp((6, 8, 5), 1), layers="1:2")
    assert [set(graph.inserted) for graph in (result.graph, found["plain average"])] == [{"gemm2.bias"}] * 2


def test_the_plain_average_is_the_average_in_stored_order():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1)
    steps = mal_graph.assemble(base, donor, lam=0.5, verify=False).merged
    found = values(rebuilt(base, steps, MergeConfig(), assign_in_order))
    for name, a in values(base).items():
        np.testing.assert_allclose(found[name], (a + values(donor)[name]) / 2, rtol=1e-5, atol=1e-6)


def test_the_plain_average_of_a_narrower_donor_is_cropped():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 5, 5), 1)
    steps = mal_graph.assemble(base, donor, lam=0.5, verify=False).merged
    found = values(rebuilt(base, steps, MergeConfig(), assign_in_order))
    np.testing.assert_allclose(
        found["w0"][:5], (values(base)["w0"][:5] + values(donor)["w0"]) / 2, rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(found["w0"][5:], values(base)["w0"][5:])


@pytest.mark.parametrize("unmatched", ["keep", "fade", "zero"])
@pytest.mark.parametrize("strategy", [assign_units, None], ids=["aligned again", "as it was"])
def test_a_merge_rebuilt_is_the_merge(unmatched, strategy):
    base, donors = cnn((6, 8), 1, 0, bn=False), [cnn((8, 6), 1, 1), cnn((5, 8), 1, 2, bn=False)]
    result = mal_graph.assemble(base, donors, lam=0.4, unmatched=unmatched, verify=False)
    again = rebuilt(base, result.merged, MergeConfig(unmatched=unmatched), strategy)
    assert set(again.weights) == set(result.graph.weights)
    assert all(np.array_equal(array, values(again)[name]) for name, array in values(result.graph).items())


def test_a_grown_merge_rebuilt_is_the_merge():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 11, 9, 5), 1)
    shape = {"width": "grow", "depth": "expand"}
    result = mal_graph.assemble(base, donor, verify=False, **shape, method="mal")
    again = rebuilt(base, result.merged, MergeConfig(**shape), None)
    assert all(np.array_equal(array, values(again)[name]) for name, array in values(result.graph).items())


@pytest.mark.parametrize("options", [{}, {"width": "grow"}, {"match_by": "both"}])
def test_the_base_repaired_alone_costs_no_assignment_and_no_look_at_activations(monkeypatch, options):
    """Its goals are those of the merge, so its units stand where the merge put the donors'."""
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 9, 8, 5), 1)
    module, calls = import_module("mal_graph.matching.crossing_orders"), {}

    def counting(name, real):
        def call(*rest, **more):
            calls[name] += 1
            return real(*rest, **more)

        return call

    def count(repair):
        calls.update(assigned=0, looked=0)
        given = {"data": data_for(), "calibrate": {"x": data_for(samples=60)["x"]}, "verify": False, **options}
        arms = [one.arm for one in mal_graph.assemble(base, donor, repair=repair, **given).scores]
        assert ("base, repaired" in arms) == repair
        return dict(calls)

    monkeypatch.setattr(module, "match_units", counting("assigned", module.match_units))
    monkeypatch.setattr(STEPS, "compare_activations", counting("looked", STEPS.compare_activations))
    assert count(True) == count(False)
    assert count(True)["looked"] == (2 if "match_by" in options else 0)  # for the merge and the random donor
    monkeypatch.setattr(STEPS, "assign_as_given", lambda found, orders, evidence=None: assign_units(found, evidence))
    assert count(True)["assigned"] > count(False)["assigned"]


def test_a_random_donor_holds_the_donors_values_in_another_order():
    donor = cnn((6, 8), 1, 0)
    found = shuffled(donor, 3)
    for name, array in values(donor).items():
        assert np.array_equal(np.sort(values(found)[name].ravel()), np.sort(array.ravel()))
    assert not np.array_equal(values(found)["w0"], values(donor)["w0"])
    assert all(np.array_equal(array, values(shuffled(donor, 3))[name]) for name, array in values(found).items())
    assert not np.array_equal(values(shuffled(donor, 4))["w0"], values(found)["w0"])


def test_a_seed_decides_every_random_arm():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1)

    def losses(seed):
        return {
            s.arm: s.loss
            for s in mal_graph.assemble(base, donor, data=data_for(), verify=False, seed=seed, method="mal").scores
        }

    first, again, other = losses(0), losses(0), losses(1)
    assert first == again
    assert {arm for arm in ARMS if first[arm] != other[arm]} == {"random permutation", "random donor"}


# --- inputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "fit"),
    [
        (("N", 8), ("M", 8), True),
        (("N", 8), (4, 8), True),
        ((1, 8), (4, 8), True),  # the batch
        (("N", 8), ("N", 7), False),
        (("N", 8), ("N", "width"), True),
        (("N", 8), ("N", 8, 1), False),
        (None, ("N", 8), True),
        (("N", 3, None, 8), ("N", 3, 8, None), True),
    ],
)
def test_declared_shapes_fit_where_the_same_arrays_do(a, b, fit):
    assert shapes_fit(a, b) == fit
    assert shapes_fit(b, a) == fit


def with_inputs(*shapes, dtype="float32"):
    net = Net(0, dtype=dtype)
    parts = [net.linear(net.input(f"x{i}", ("N", width)), width, 4) for i, width in enumerate(shapes)]
    return net.graph(net.op("Sum", *parts))


@pytest.mark.parametrize(
    ("donor", "told"),
    [
        (with_inputs(6, 6), r"it has 2 \('x0' \(float32, shape \['N', 6\]\), .*the base 1 .*merge models that take"),
        (with_inputs(7), r"it takes 'x0' \(float32, shape \['N', 7\]\), the base 'x0' \(float32, shape \['N', 6\]\)"),
        (with_inputs(6, dtype="float64"), r"it takes 'x0' \(float64, .* the base 'x0' \(float32"),
    ],
)
def test_a_donor_that_takes_other_inputs_is_refused_with_both_signatures(donor, told):
    with pytest.raises(MatchError, match=told):
        check_inputs(with_inputs(6), donor, ())


def test_inputs_of_another_name_fit():
    net = Net(1)
    donor = net.graph(net.linear(net.op("Relu", net.linear(net.input("image", ("B", 6)), 6, 8)), 8, 5))
    base = mlp((6, 8, 5), 0)
    check_inputs(base, donor, ())
    given = {"x": np.ones((2, 6), np.float32)}
    assert mal_graph.assemble(base, donor, inputs=given, method="mal").passed


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_ends_with_everything_done():
    told = {}
    mal_graph.assemble(
        mlp((6, 8, 5), 0),
        mlp((6, 9, 5), 1),
        data=data_for(),
        progress=lambda what, done, total: told.update({what: (done, total)}),
        method="mal",
    )
    assert told
    assert all(done == total for done, total in told.values())


# --- data that are not what they could be ------------------------------------------------------------------------


def test_what_of_the_data_is_not_taken_literally_is_noted():
    base, donor, data = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), data_for()
    plain = mal_graph.assemble(base, donor, data=data, verify=False, method="mal")
    renamed = mal_graph.assemble(base, donor, data={"y": data["labels"], "x": data["x"]}, verify=False, method="mal")
    assert (plain.data_notes, renamed.data_notes) == ((), ("the array 'y' is taken as the labels",))
    assert assemble_document(renamed).notes[0] == renamed.data_notes[0]
    assert renamed.scores == plain.scores


def test_data_that_cannot_be_scored_are_refused_before_the_work(monkeypatch):
    data = data_for()
    data["x"][3, 2] = np.nan
    monkeypatch.setattr(STEPS, "match_layers", None)  # would fail if it were called
    with pytest.raises(DataError, match="for input 'x' holds NaN in sample 3: leave it out"):
        mal_graph.assemble(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), data=data, verify=False, method="mal")
