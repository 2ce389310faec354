"""Reports: the figures are those that counting by hand gives, and JSON says them all."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, mlp

from mal_graph import axis_groups, verify
from mal_graph.evaluation import Scores
from mal_graph.matching import match_layers
from mal_graph.reporting.documents import EvaluateDocument, assemble_document, match_document
from mal_graph.reporting.group_coverage import coverage
from mal_graph.reporting.inspection import inspect_document
from mal_graph.workflows import Comparison, assemble


def verified(graph):
    return verify(graph, axis_groups(graph))


def test_coverage_counts_parameters_by_hand():
    graph = mlp((8, 16, 12, 5))
    total = 8 * 16 + 16 + 16 * 12 + 12 + 12 * 5 + 5
    covered = coverage(graph, verified(graph))
    assert (covered.total, covered.settings, covered.share, covered.missing) == (total, 0, 1.0, {})


def test_an_axis_that_lies_in_several_groups_is_covered_once():
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 8))
    graph = net.graph(net.conv(net.op("Relu", net.conv(x, 8, 6, group=2)), 6, 5))
    judged = verified(graph)
    assert any(group.inside for group in judged.groups if group.is_usable)
    assert coverage(graph, judged).share == 1.0


def test_nothing_is_covered_before_the_verification():
    graph = mlp((8, 16, 5))
    total = 8 * 16 + 16 + 16 * 5 + 5
    covered = coverage(graph, axis_groups(graph))
    assert covered.share == pytest.approx(5 / total)  # only the last bias is pinned on every axis
    assert covered.missing == {"not verified": total - 5}


def test_frozen_axes_are_not_covered():
    net = Net()
    x = net.op("CumSum", net.linear(net.input("x", ("N", 8)), 8, 6), net.constant(1))
    graph = net.graph(net.linear(net.op("Relu", net.linear(x, 6, 5)), 5, 4))
    covered = coverage(graph, verified(graph))
    frozen = 8 * 6 + 6 + 6 * 5  # what has the axis of six units; one verified axis beside it is not enough
    assert covered.total == frozen + 5 + 5 * 4 + 4
    assert covered.share == pytest.approx((5 + 5 * 4 + 4) / covered.total)
    assert list(covered.missing.values()) == [frozen]
    assert all("CumSum" in why for why in covered.missing)


def test_a_layer_names_the_groups_on_its_axes():
    graph = mlp((8, 16, 12, 5))
    document = inspect_document(graph, verified(graph))
    names = {group.name for group in document.groups}
    first, second, last = document.layers
    assert first.out_group == second.in_group
    assert second.out_group == last.in_group
    assert {first.in_group, first.out_group, second.out_group, last.out_group} == names
    assert [layer.depth for layer in document.layers] == [0, 1, 2]


def test_an_axis_with_several_groups_lists_them():
    net = Net()
    x = net.input("x", ("N", 8))
    both = net.op("Concat", net.linear(x, 8, 3), net.linear(x, 8, 4), axis=1)
    graph = net.graph(net.linear(both, 7, 5))
    document = inspect_document(graph, verified(graph))
    assert document.layers[2].in_group == [document.layers[0].out_group, document.layers[1].out_group]
    (member,) = [m for g in document.groups if g.units == 4 for m in g.members if m.role.endswith(" in")]
    assert member.positions == [[3], [4], [5], [6]]


def test_json_starts_with_its_schema_and_keeps_empty_keys():
    graph = mlp((8, 16, 5))
    found = json.loads(inspect_document(graph, verified(graph)).json_text())
    assert next(iter(found)) == "schema"
    assert found["schema"] == "mal-graph/inspect/4"
    assert all(group["inside"] is None for group in found["groups"])
    assert all("positions" not in member for group in found["groups"] for member in group["members"])


def test_widths_of_a_pair_are_base_then_donor():
    base, donor = mlp((8, 16, 5)), mlp((8, 12, 5), seed=1)
    pair = match_document(Comparison(base, donor, match_layers(base, donor))).pairs[0]
    assert pair.widths == {"in": (8, 8), "out": (16, 12)}


def test_a_loss_that_is_no_number_is_null_in_json():
    score = Scores("a", float("nan"), 0.1, "accuracy", "cross-entropy", 10, "y", "logits")
    found = json.loads(EvaluateDocument(scores=[score]).json_text())
    assert found["scores"][0]["loss"] is None
    assert found["scores"][0]["metric"] == 0.1


@pytest.fixture(scope="module")
def two_donors():
    base = mlp((8, 16, 12, 5), seed=0)
    donors = [replace(mlp((8, 12, 14, 5), seed=1), name="one.onnx"), replace(mlp((8, 16, 5), seed=2), name="two.onnx")]
    return assemble(base, donors, lam=0.25)


def test_every_layer_of_the_base_is_merged_or_skipped_with_a_reason_for_every_donor(two_donors):
    document = assemble_document(two_donors)
    for donor in document.donors:
        merged = [layer.base for layer in document.merged if layer.model == donor]
        skipped = [left.layer for left in document.skipped if left.reason.startswith(f"{donor}: ")]
        assert sorted(merged + skipped) == ["Gemm_0", "Gemm_2", "Gemm_4"]
    assert all(len(left.reason) > len("two.onnx: ") for left in document.skipped)


def test_shares_add_up_to_one(two_donors):
    document = assemble_document(two_donors)
    assert sum(document.shares) == pytest.approx(1)
    base, one, two = document.shares  # the second donor has but one of the three layers
    assert base > 0.5625
    assert one > 0.1875
    assert two < 0.25
    assert document.merged_parameters == 8 * 16 + 16 + 16 * 12 + 12 + 12 * 5 + 5


def test_the_match_of_units_is_worth_more_than_chance(two_donors):
    assert all(pair.value > pair.random for pair in assemble_document(two_donors).alignment)
    assert [pair.assigned for pair in assemble_document(two_donors).alignment][:2] == [12, 12]


def test_batch_norms_bring_a_note_unless_nothing_is_merged():
    base, donor = cnn((4,), blocks=0, seed=0), cnn((4,), blocks=0, seed=1)
    (note,) = assemble_document(assemble(base, donor, method="mal")).notes
    assert note.startswith("the statistics of 1 BatchNormalizations are not measured again")
    assert assemble_document(assemble(base, donor, lam=0.0)).notes == []
    (note,) = assemble_document(assemble(mlp(seed=0), mlp(seed=1), method="mal")).notes
    assert "nothing to align" in note


def test_the_report_is_json_without_numpy_in_it(two_donors):
    found = json.loads(assemble_document(two_donors).json_text())
    assert np.isfinite(found["objective"]).all()
    assert found["output"] is None
    assert found["lam"] == 0.25


def test_every_start_is_reported_with_its_objective_per_pass():
    document = assemble_document(assemble(mlp((6, 8, 7, 5), 0), mlp((6, 9, 8, 5), 1), method="mal"))
    assert len(document.starts) > 1
    assert max(start.objective[-1] for start in document.starts) == pytest.approx(document.objective[0])
    assert {start.start for start in document.starts} >= {"forward", "identity"}


def test_what_grows_and_what_keeps_its_width_is_reported():
    document = assemble_document(assemble(mlp((6, 8, 7, 5), 0), mlp((6, 12, 7, 5), 1), width="grow"))
    assert [(pair.units, pair.added, pair.assigned) for pair in document.alignment] == [
        ((8, 12), 4, 12),
        ((7, 7), 0, 7),
    ]
    assert document.config["width"] == "grow"
    kept = assemble_document(assemble(mlp((6, 8, 5), 0), mlp((6, 12, 7, 5), 1), width="grow")).kept_widths
    assert [(line.units, line.reason) for line in kept] == [(8, "2 groups of the donor correspond to it")]


def test_units_that_grow_inside_others_are_told_once():
    def blocks(size, seed):
        net = Net(seed)
        x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6 * size))
        return net.graph(net.conv(net.op("Relu", net.conv(x, 6 * size, 6 * size, group=6)), 6 * size, 4))

    widened = assemble_document(assemble(blocks(2, 0), blocks(5, 1), width="grow")).widened
    assert [(entry.group, entry.units, entry.inside) for entry in widened] == [
        ("Conv_0", (2, 5), None),
        ("Conv_2", (2, 5), "Conv_0#2"),
    ]
