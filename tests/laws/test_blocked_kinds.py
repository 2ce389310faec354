"""The planted law where each of several blocks may order its units by itself: as many free orders as blocks."""

from copy import deepcopy

import numpy as np
import pytest
from builders import deviation, inputs_of, run

import mal_graph
from mal_graph.merging import merge
from mal_graph.workflows import number_places

try:
    import exporting
    import torch
    from blocked_kinds import KINDS, BlockDiagonal, GroupedNet, Looked
    from published_kinds import build, check_by_hand, example, permuted
except ImportError:
    torch, KINDS, BlockDiagonal, GroupedNet, Looked = None, (), None, None, None

pytestmark = pytest.mark.torch
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

IN_ONE_FRONT_END = [*exporting.in_one_front_end_each(KINDS)] if KINDS else []


@pytest.fixture(autouse=True)
def by_orders_alone():
    """Here numbers are put in place."""


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(other, inputs, "onnxruntime"))


def traced(model):
    return exporting.exported(model, example(type(model)), "trace")


def kept(step):
    return {**step.plan.skipped, **step.plan.dropped, **step.promises.kept}


@by_kind
def test_the_permutation_by_hand_keeps_the_outputs(kind):
    check_by_hand(kind)


@pytest.mark.parametrize(("kind", "front_end"), IN_ONE_FRONT_END)
def test_a_copy_with_an_order_in_each_block_gives_the_base_back(kind, front_end):
    model = build(kind)
    base, copy = (exporting.exported(one, example(kind), front_end) for one in (model, permuted(model)))
    result = mal_graph.assemble(base, copy, lam=0.3, method="mal")
    (step,) = result.merged
    assert step.in_place
    assert not kept(step)
    assert far(result.graph, base) <= 1e-4
    assert far(merge(step.plan.at(0.5)), base) <= 1e-4


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({}, id="other numbers", marks=pytest.mark.slow),
        pytest.param({"groups": 4}, id="more groups", marks=pytest.mark.slow),
        pytest.param({"size": 5}, id="larger blocks"),
    ],
)
def test_another_network_gives_itself_at_lambda_1(sizes):
    torch.manual_seed(5)
    base, other = traced(build(GroupedNet)), traced(permuted(GroupedNet(**sizes).eval()))
    result = mal_graph.assemble(base, other, lam=1.0, method="mal", width="grow")
    assert far(result.graph, other) <= 1e-4
    assert far(merge(result.merged[0].plan.at(0.0)), base) <= 1e-4


def test_places_that_change_the_donor_are_not_used(monkeypatch):
    """A control: the same law fails where numbers are put in wrong places, and none of these is used."""
    model = build(BlockDiagonal)
    base, copy = traced(model), traced(permuted(model))
    in_places = number_places.in_places
    monkeypatch.setattr(number_places, "in_places", lambda *given: np.roll(in_places(*given), 1, axis=0))
    (step,) = mal_graph.assemble(base, copy, lam=0.3, method="mal").merged
    assert not step.in_place
    assert kept(step)


def test_a_copy_in_half_the_bits_is_put_in_place_too():
    model = build(GroupedNet)
    base, copy = traced(model), traced(permuted(model).half().float())
    (step,) = mal_graph.assemble(base, copy, lam=0.3, method="mal").merged
    assert step.in_place
    assert far(merge(step.plan), base) <= 3e-3  # half the bits round by 5e-4 of each number


def test_other_entries_of_a_table_are_no_other_places():
    """Entries that no probe reads may stand elsewhere without a trace in the outputs: they stay."""
    torch.manual_seed(0)
    model = Looked().eval()
    other = deepcopy(model)
    with torch.no_grad():
        other.table.weight[[-1, -2]] = model.table.weight[[-2, -1]]
    other.body.permute(np.random.default_rng(3))
    base, copy = (mal_graph.trace(one, (torch.zeros(2, dtype=torch.int64),)) for one in (model, other))
    inputs = {base.inputs[0].name: np.arange(8)}
    (step,) = mal_graph.assemble(base, copy, lam=1.0, method="mal", inputs=inputs).merged
    assert not step.in_place
    assert np.array_equal(merge(step.plan).weights["table.weight"].read(), other.table.weight.detach().numpy())
