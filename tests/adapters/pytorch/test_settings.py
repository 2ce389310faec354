"""What a module declares - parameters, buffers, numbers in the code - decides what is merged, traced or exported."""

import io

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from builders import load
from torch import nn

import mal_graph
from mal_graph.merging import Fate
from mal_graph.network import SettingKind, find_parameters, find_unlearned

pytestmark = pytest.mark.torch

TOKENS, HEADS, HEAD, WIDTH = 6, 2, 4, 8


class Attention(nn.Module):
    """An image, normalised, in patches, through one attention with a rotary table, a mask and what was learned."""

    def __init__(self, base=100.0, mean=(0.4, 0.5, 0.6), scale=HEAD**-0.5):
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1))
        self.register_buffer("mask", torch.triu(torch.full((TOKENS, TOKENS), float("-inf")), 1))
        turned = torch.outer(torch.arange(TOKENS), base ** (-torch.arange(HEAD // 2) / (HEAD // 2)))
        turned = torch.cat([turned, turned], -1)
        self.register_buffer("cosines", turned.cos())
        self.register_buffer("sines", turned.sin())
        self.patches = nn.Conv2d(3, WIDTH, (2, 3), (2, 3))
        self.places = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.layer_scale = nn.Parameter(torch.full((WIDTH,), 0.1))
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("frozen_scale", torch.rand(1, WIDTH, 1, 1) + 0.5)  # a FrozenBatchNorm's
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def turn(self, x):
        first, second = x.chunk(2, -1)
        return x * self.cosines + torch.cat([-second, first], -1) * self.sines

    def forward(self, x):
        x = self.patches((x - self.mean) / self.deviation) * self.frozen_scale
        x = x.flatten(2).transpose(1, 2) + self.places
        q, k, v = self.qkv(x).view(-1, TOKENS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.turn(q) @ self.turn(k).transpose(-2, -1) * self.scale * self.temperature + self.mask
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, TOKENS, WIDTH)
        return self.head((x + self.alpha * self.layer_scale * self.out(y)).mean(1))


IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
NAMED = {
    "mean": SettingKind.PREPARATION,
    "deviation": SettingKind.PREPARATION,
    "mask": SettingKind.MASK,
    "cosines": SettingKind.ROTATION,
    "sines": SettingKind.ROTATION,
}
LEARNED = {"places", "layer_scale", "alpha", "frozen_scale", "temperature"}


def made(seed, **options):
    torch.manual_seed(seed)
    return Attention(**options).eval()


def exported(module):
    buffer = io.BytesIO()
    torch.onnx.export(module, (IMAGE,), buffer, dynamo=False, opset_version=17, do_constant_folding=False)
    return load(onnx.load_from_string(buffer.getvalue()))


def test_a_traced_module_tells_buffers_numbers_and_parameters_apart():
    graph = mal_graph.trace(made(0), (IMAGE,))
    kinds = {name: setting.kind for name, setting in find_unlearned(graph).items()}
    (scale,) = [name for name, kind in kinds.items() if kind is SettingKind.SCALE]
    assert graph.weights[scale].read() == pytest.approx(HEAD**-0.5)
    assert {name: kind for name, kind in kinds.items() if name != scale} == NAMED
    assert {parameter.tensor for parameter in find_parameters(graph)} >= LEARNED


def test_an_exported_module_tells_them_apart_too():
    graph = exported(made(0))
    kinds = {name: setting.kind for name, setting in find_unlearned(graph).items()}
    assert {name: kind for name, kind in kinds.items() if name in NAMED} == NAMED
    assert SettingKind.SCALE in kinds.values()
    assert {parameter.tensor for parameter in find_parameters(graph)} >= LEARNED - {"temperature"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"base": 1000.0}, "table of a rotation cosines differs from the donor's at"),
        ({"mean": (0.6, 0.5, 0.4)}, "normalisation of an input mean differs from the donor's at 2 of 3 places"),
        ({"scale": 0.25}, "its attention scale is 0.5, the donor's 0.25: the base's is kept"),
    ],
)
def test_modules_are_merged_with_the_settings_of_the_base(options, line):
    base, donor = (mal_graph.trace(made(seed, **given), (IMAGE,)) for seed, given in ((0, {}), (1, options)))
    result = mal_graph.assemble(base, donor, lam=0.5)
    entries = {entry.tensor: entry for entry in result.accounts.entries}
    assert result.accounts.adds_up
    assert all(entries[name].fate is Fate.SETTING for name in NAMED)
    assert all(entries[name].fate is Fate.MERGED for name in LEARNED - {"layer_scale"})  # those are equal, or merged
    assert line in " ".join(said for lines in result.merged[0].plan.missing.values() for said in lines)
    module = mal_graph.to_module(result.graph)
    assert np.array_equal(module.state_dict()["cosines"].numpy(), base.weights["cosines"].read())
