"""How two models are related is said: the same one, another order of its units, fine-tunes, or nothing."""

import numpy as np
import pytest
from builders import mlp, network, permuted_copy, reseeded
from setting_nets import attention

import mal_graph
from mal_graph.workflows.relations import cosine_in_stored_order, relations_of


def said(base, donor):
    return list(relations_of(mal_graph.assemble(base, donor, method="mal").merged[0]))


def tuned(graph, size, seed=1):
    rng = np.random.default_rng(seed)
    return graph.with_weights(
        {
            name: (w.read() + size * w.read().std() * rng.standard_normal(w.shape)).astype(np.float32)
            for name, w in graph.weights.items()
            if w.is_float
        }
    )


def test_a_model_and_itself():
    base = mlp((6, 9, 8, 4))
    (line,) = said(base, base.named("copy.onnx"))
    assert line == "copy.onnx is the base itself: a merge of the two is the base at any lambda"


def test_another_order_of_units():
    base = mlp((6, 9, 8, 4))
    donor, _ = permuted_copy(base, network(base).groups)
    (line,) = said(base, donor)
    assert "is the base with" in line
    assert "units in another order" in line


@pytest.mark.parametrize(("size", "is_related"), [(0.1, True), (0.5, True), (3.0, False)])
def test_a_fine_tune(size, is_related):
    base = mlp((6, 9, 8, 4))
    lines = said(base, tuned(base, size))
    assert any("fine-tunes of one model" in line for line in lines) == is_related


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_that_is_not_found_is_no_stranger(seed):
    """Units inside heads keep their order, so that a copy with them shuffled is not aligned."""
    base = attention(seed)
    donor, _ = permuted_copy(base, network(base).groups, seed)
    assert not mal_graph.assemble(base, donor, method="mal").nothing_to_align


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"compare": False}])
def test_nobody_asks_where_nothing_is_merged_or_compared(options):
    base = mlp((6, 30, 30, 4))
    assert mal_graph.assemble(base, reseeded(base, 7), **options, method="mal").merged[0].chance is None


def test_strangers_are_not_related():
    base = mlp((6, 30, 30, 4))
    step = mal_graph.assemble(base, reseeded(base, 7), method="mal").merged[0]
    (line,) = relations_of(step)
    assert "have nothing to align" in line
    assert abs(cosine_in_stored_order(step.plan)) < 0.3


@pytest.mark.parametrize(("apart", "is_stranger"), [(False, False), (True, True)])
def test_a_donor_that_does_not_come_from_the_ancestor_is_called_a_stranger(apart, is_stranger):
    base = mlp((6, 24, 16, 4), 0)
    donor = mlp((6, 24, 16, 4), 100) if apart else permuted_copy(tuned(base, 0.2), network(base).groups, 2)[0]
    result = mal_graph.assemble(base, donor, method="ties", ancestor=base, verify=False)
    assert any("a stranger to the base" in note for note in result.to_dict()["notes"]) == is_stranger
