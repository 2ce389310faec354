"""The planted law: a copy of a transformer with all that theory says is free in another order gives the base back."""

from dataclasses import replace

import pytest
from builders import deviation, inputs_of, run

import mal_graph

try:
    import exporting
    import torch
    from planted_kinds import KINDS, build, example, permuted
except ImportError:
    torch, KINDS = None, []

pytestmark = pytest.mark.torch
WITH_FRONT_ENDS = [*exporting.with_front_ends(KINDS, lambda kind: kind.name)] if KINDS else []
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def exported(model, front_end):
    return exporting.exported(model, example(), front_end)


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs), run(other, inputs))


@by_kind
def test_the_permutation_by_hand_keeps_the_outputs(kind):
    model = build(kind)
    copy = permuted(model, kind, 1)
    assert any((a != b).any() for a, b in zip(model.parameters(), copy.parameters(), strict=True))
    with torch.no_grad():
        assert torch.allclose(model(example()), copy(example()), atol=1e-4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("kind", "front_end"), WITH_FRONT_ENDS)
def test_a_permuted_copy_gives_the_base_back_and_keeps_nothing(kind, front_end):
    model = build(kind)
    base, donor = exported(model, front_end), exported(permuted(model, kind, 1), front_end)
    result = mal_graph.assemble(base, donor, lam=0.3, method="mal")
    step = result.merged[0]
    assert far(result.graph, base) <= 1e-4
    assert not {*step.plan.skipped, *step.plan.dropped, *step.promises.kept}


@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.parametrize("repeat", ["expand", "interleave", "axis", "tile"])
def test_more_heads_are_reached_exactly_however_shared_ones_are_repeated(repeat):
    kind = next(kind for kind in KINDS if kind.shared > 1 and kind.repeat == repeat and not kind.turned)
    for more in (
        replace(kind, heads=3 * kind.shared),
        replace(kind, heads=2 * kind.shared + 2, shared=kind.shared + 1),
    ):
        base, donor = exported(build(kind), "torchscript"), exported(build(more, 3), "torchscript")
        result = mal_graph.assemble(base, donor, lam=1.0, method="mal", width="grow")
        assert far(result.graph, donor) <= 1e-4


def test_slopes_pin_the_heads_of_a_network_of_its_own_too():
    kind = next(kind for kind in KINDS if kind.biased == "slopes")
    base, donor = (exported(build(kind, seed), "trace") for seed in (0, 5))
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert far(result.graph, donor) <= 1e-4
    assert not any("constant" in step.tensor for step in result.merged[0].plan.steps)  # the slopes are no weights


def test_the_merge_of_traced_experts_is_a_module_with_the_tensors_that_its_class_has():
    kind = next(kind for kind in KINDS if kind.mlp == "chosen")
    model = build(kind)
    base, donor = exported(model, "trace"), exported(permuted(model, kind, 1), "trace")
    result = mal_graph.assemble(base, donor, lam=0.3, method="mal")
    merged = mal_graph.to_module(result.graph)
    state = mal_graph.state_dict(result.graph)
    assert {key: tuple(one.shape) for key, one in state.items()} == {
        key: tuple(one.shape) for key, one in model.state_dict().items()
    }
    with torch.no_grad():
        assert torch.allclose(merged(example()), model(example()), atol=1e-4)
        copy = build(kind, 7)
        copy.load_state_dict(state)
        assert torch.allclose(copy(example()), model(example()), atol=1e-4)
