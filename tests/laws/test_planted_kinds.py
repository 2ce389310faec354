"""The planted law: a copy of a transformer with all that theory says is free in another order gives the base back."""

import contextlib
import io
import warnings

import onnx
import pytest
from builders import deviation, inputs_of, load, run

import mal_graph

try:
    import torch
    from planted_kinds import KINDS, build, example, permuted
except ImportError:
    torch, KINDS = None, []

pytestmark = pytest.mark.torch
# Units of one expert lie on two axes of one tensor: no axis has them alone. A choice of experts freezes them.
KEPT = dict.fromkeys(["dense experts", "chosen experts"], "mlp")
FRONT_ENDS = [
    "torchscript",
    pytest.param("trace", marks=pytest.mark.slow),
    pytest.param("dynamo", marks=pytest.mark.slow),
    pytest.param("opset 23", marks=pytest.mark.slow),
]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def exported(model, front_end):
    """A graph of a module."""
    if front_end == "trace":
        return mal_graph.trace(model, (example(),))
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        if front_end == "torchscript":
            written = io.BytesIO()
            torch.onnx.export(model, (example(),), written, dynamo=False, opset_version=17)
            return load(onnx.load_from_string(written.getvalue()))
        opset = 23 if front_end == "opset 23" else None
        return load(torch.onnx.export(model, (example(),), dynamo=True, opset_version=opset).model_proto)


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


@by_kind
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_permuted_copy_gives_the_base_back_and_keeps_nothing(kind, front_end):
    model = build(kind)
    base, donor = exported(model, front_end), exported(permuted(model, kind, 1), front_end)
    result = mal_graph.assemble(base, donor, lam=0.3, method="mal")
    step = result.merged[0]
    assert far(result.graph, base) <= 1e-4
    kept = {*step.plan.skipped, *step.plan.dropped, *step.promises.kept}
    if kind.name in KEPT:
        assert any(KEPT[kind.name] in name for name in kept)
    else:
        assert not kept


def test_slopes_pin_the_heads_of_a_network_of_its_own_too():
    kind = next(kind for kind in KINDS if kind.biased == "slopes")
    base, donor = (exported(build(kind, seed), "trace") for seed in (0, 5))
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert far(result.graph, donor) <= 1e-4
    assert not any("constant" in step.tensor for step in result.merged[0].plan.steps)  # the slopes are no weights
