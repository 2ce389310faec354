"""Methods on gradients of traced modules: gradients are those of autograd, and what is made with them is right."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from builders import mlp, noisy
from torch import nn
from traced_nets import KINDS, traced

import mal_graph
from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.evaluation import Stream, read_output_kind
from mal_graph.merging.gradient_fisher import EntryFisher
from mal_graph.merging.learned_masks import MaskLearning
from mal_graph.merging.learned_weights import Learning

pytestmark = pytest.mark.torch
QUICK = {"verify": False, "compare": False, "repair": False}


class Recurrent(nn.Module):
    """A layer whose weights the module keeps in parts."""

    def __init__(self):
        super().__init__()
        self.read, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.read(x)[0][:, -1])


# Both sum products of float32 in other orders: what is left of larger ones, of order 1, is off by as much as they are.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def perceptrons(count=3):
    """Of one width, with smooth activations, so that slopes have no kinks."""
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval() for _ in range(count)]


def samples(shape, count=16):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", [*KINDS, "recurrent"])
def test_gradients_are_those_of_autograd(kind):
    torch.manual_seed(0)
    module, shape = (Recurrent().eval(), (6, 4)) if kind == "recurrent" else (traced(kind)[0][0], KINDS[kind][1])
    x, slope = torch.tensor(samples(shape, 4)), torch.randn(4, 3)
    graph = mal_graph.trace(module, x)
    names = [name for name, weight in graph.weights.items() if weight.is_float]
    told = registry.gradients_of(graph, graph.outputs[0].name, names)(
        {graph.inputs[0].name: x.numpy()}, {}, lambda values: slope.numpy()
    )
    module(x).backward(slope)
    own = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    alike = [name for name in names if name in own and own[name].shape == told[name].shape]
    assert alike
    for name in alike:
        assert np.abs(own[name]).max() > 1e-3, f"{name}: beside so small slopes ROUNDING would let anything pass"
        np.testing.assert_allclose(told[name], own[name], **ROUNDING)
    parts = [name for name in own if name not in alike]  # which stand in other tensors, each number once
    mine = np.sort(np.concatenate([np.zeros(0), *(told[name].ravel() for name in names if name not in alike)]))
    theirs = np.concatenate([np.zeros(0), *(own[name].ravel() for name in parts)])
    np.testing.assert_allclose(mine[mine != 0], np.sort(theirs[theirs != 0]), **ROUNDING)


def test_gradients_at_other_weights_are_those_of_the_graph_that_has_them():
    graph = mal_graph.trace(perceptrons()[0], torch.zeros(2, 4))
    names, x = list(graph.weights), {graph.inputs[0].name: samples((4,))}
    other = {name: (graph.weights[name].read() * 1.5).astype(np.float32) for name in names}
    output, ones = graph.outputs[0].name, np.ones_like
    there = registry.gradients_of(graph, output, names)(x, other, ones)
    moved = registry.gradients_of(graph.with_weights(other), output, names)(x, {}, ones)
    here = registry.gradients_of(graph, output, names)(x, {}, ones)
    for name in names:  # the same operators on the same numbers
        np.testing.assert_array_equal(there[name], moved[name])
    # At the weights of the graph itself they are others: by more than a tenth, and not by rounding.
    assert not np.allclose(there[names[0]], here[names[0]], rtol=0.1)


def test_information_is_the_mean_of_squares_over_the_labels_that_a_model_gives():
    module = perceptrons()[0]
    graph, x = mal_graph.trace(module, torch.zeros(2, 4)), samples((4,))
    output = graph.outputs[0].name
    stream = Stream(graph, {graph.inputs[0].name: x}, registry.runner(), [output])
    gradients = registry.gradients_of(graph, output, list(graph.weights))
    told = EntryFisher(gradients, stream, output, read_output_kind(graph, output), 0).measured()
    expected = {name: np.zeros(parameter.shape) for name, parameter in module.named_parameters()}
    for row in torch.tensor(x):
        scores = module(row[None]).log_softmax(dim=1)[0]
        for score in scores:
            slopes = torch.autograd.grad(score, list(module.parameters()), retain_graph=True)
            for name, slope in zip(expected, slopes, strict=True):
                expected[name] += float(score.detach().exp()) * slope.numpy() ** 2 / len(x)
    for name, information in expected.items():
        # Squares double what float32 is off by, and what is summed is of one sign: no more than 1e-5 of each is left.
        np.testing.assert_allclose(told[name], information, rtol=1e-5)


def test_fisher_of_modules_weighs_every_layer_and_of_exported_graphs_the_last():
    modules, x = perceptrons(2), {"input": samples((4,))}
    result = mal_graph.assemble(*modules, method="fisher", calibrate=x, inputs={"input": x["input"][:2]}, **QUICK)
    assert len(result.stacked.measured) == len(result.stacked.tensors) == 4
    base = mlp((4, 6, 3), 0)
    result = mal_graph.assemble(base, noisy(base, 0.3, 1), method="fisher", calibrate={"x": x["input"]}, **QUICK)
    assert len(result.stacked.measured) == 2


def masked(steps, method="concrete"):
    base, *donors = perceptrons()
    x = samples((4,), 64)
    own = {"parameters": {"steps": steps, "rate": 0.1}, "calibrate": {"input": x}} if method == "concrete" else {}
    return mal_graph.assemble(
        base, donors, ancestor=base, method=method, assume_ordered=True, inputs={"input": x[:2]}, **own, **QUICK
    )


def test_a_mask_without_steps_is_task_arithmetic_and_with_steps_the_result_grows_surer():
    still, plain = masked(0).graph, masked(0, "task_arithmetic").graph
    for name, weight in plain.weights.items():
        np.testing.assert_allclose(still.weights[name].read(), weight.read(), rtol=1e-5, atol=1e-6)
    learned = masked(60).stacked.learned
    before, after = (float(part) for part in learned.told.split(" from ")[1].split(",")[0].split(" to "))
    assert after < before - 0.05
    assert all(0 < mask.min() < mask.max() < 1 for mask in learned.masks.values())


def test_the_slope_by_a_mask_is_that_of_the_aim():
    """A difference of two losses in float64 that a runtime gives in float32, over a step of a hundredth."""
    stacking = masked(0).stacked
    inputs = {number: {"input": samples((4,), 16)} for number in stacking.numbers}
    base = stacking.base
    output = base.outputs[0].name
    learning = Learning(stacking, inputs, registry.runner(), output, read_output_kind(base, output))
    own, chosen = MaskLearning(learning), learning.drawn(16, (0, 0))
    rng = np.random.default_rng(0)
    entries = rng.uniform(0.2, 0.8, sum(own.sizes.values()))
    way = rng.standard_normal(len(entries))
    losses = [learning.loss_with(own.weights(own.masks(entries + step * way)), chosen) for step in (0.01, -0.01)]
    slope = own.slope_by_mask(own.masks(entries), chosen) @ way
    assert slope == pytest.approx((losses[0] - losses[1]) / 0.02, rel=5e-3, abs=1e-4)


def test_an_exported_base_has_no_gradients():
    base, x = mlp((4, 6, 3), 0), {"x": samples((4,))}
    with pytest.raises(UsageError, match=r"concrete learns by gradients of the base, and .* give modules, or another"):
        mal_graph.assemble(base, noisy(base, 0.3, 1), ancestor=base, method="concrete", calibrate=x, **QUICK)
