"""The planted law on kinds whose tensors look like something else than they are, or are read by their place."""

import pytest
from builders import deviation, inputs_of, run

import mal_graph

try:
    import exporting
    from published_kinds import KINDS, Folded, build, check_by_hand, example, permuted
except ImportError:
    KINDS, Folded = (), None

pytestmark = pytest.mark.torch
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def front_ends():
    """Every second kind through one front end; all of them through all where all cases are asked for. TorchScript does
    not lay maps together in the opset that is used here."""
    for number, kind in enumerate(KINDS):
        for place, front_end in enumerate(("trace", "torchscript", "dynamo")):
            stands = number % 2 == 0 and place == number // 2 % 3
            marks = [pytest.mark.slow, *([] if stands else [pytest.mark.whole])]
            if (kind, front_end) != (Folded, "torchscript"):
                yield pytest.param(kind, front_end, id=f"{front_end}-{kind.__name__}", marks=marks)


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(other, inputs, "onnxruntime"))


@by_kind
def test_the_permutation_by_hand_keeps_the_outputs(kind):
    check_by_hand(kind)


@pytest.mark.parametrize(("kind", "front_end"), [*front_ends()])
def test_a_permuted_copy_gives_the_base_back_and_another_network_itself(kind, front_end):
    model = build(kind)
    base, copy, other = (
        exporting.exported(one, example(kind), front_end) for one in (model, permuted(model), build(kind, 5))
    )
    result = mal_graph.assemble(base, copy, lam=0.3, method="mal")
    step = result.merged[0]
    assert far(result.graph, base) <= 1e-4
    assert not {**step.plan.skipped, **step.plan.dropped, **step.promises.kept}
    assert far(mal_graph.assemble(base, other, lam=1.0, method="mal").graph, other) <= 1e-4
