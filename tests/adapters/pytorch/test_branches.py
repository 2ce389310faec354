"""A union of modules is a module again."""

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import mal_graph
from mal_graph.errors import UnsupportedModel

pytestmark = pytest.mark.torch


class Classifier(nn.Module):
    """A perceptron on small images."""

    def __init__(self, seed, *widths):
        super().__init__()
        torch.manual_seed(seed)
        sizes = (12, *widths, 5)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class Convolutional(nn.Module):
    """A network of another architecture with the same inputs and outputs."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 8, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def images(count):
    return np.random.default_rng(0).standard_normal((count, 3, 2, 2)).astype(np.float32)


def traced(module):
    return mal_graph.trace(module, torch.zeros(2, 3, 2, 2))


@pytest.mark.parametrize("donor", [Classifier(1, 16), Convolutional(1)], ids=["perceptron", "convolutions"])
@pytest.mark.parametrize("budget", ["full", 1.0])
def test_a_union_of_modules_is_a_module_and_a_file(donor, budget, tmp_path):
    base = Classifier(0, 32, 16)
    result = mal_graph.assemble(
        traced(base), traced(donor), method="union", budget=budget, calibrate={"x": images(200)}
    )
    module = mal_graph.to_module(result.graph)
    x = torch.from_numpy(images(7))
    given = module(x)
    result.save(tmp_path / "u.onnx")
    written = mal_graph.load(tmp_path / "u.onnx")
    from builders import run

    np.testing.assert_allclose(given.detach().numpy(), run(written, {"x": x.numpy()}, "onnxruntime")[0], atol=1e-5)
    if budget == "full":
        np.testing.assert_allclose(given.detach(), ((base(x) + donor(x)) / 2).detach(), atol=1e-5)
    given.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_union_of_files_is_no_module():
    from builders import mlp

    result = mal_graph.assemble(mlp(), mlp(seed=1), method="union", budget="full")
    with pytest.raises(UnsupportedModel):
        mal_graph.to_module(result.graph)
