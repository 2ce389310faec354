"""Small models in torch of the kinds that every merge method must take: a perceptron, BatchNorms, a transformer."""

from copy import deepcopy

import torch
from torch import nn


class Attending(nn.Module):
    """A block of a transformer over a sequence, and classes of its mean."""

    def __init__(self, more):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 12 + more, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(x).mean(dim=1))


def perceptron(more):
    return nn.Sequential(nn.Linear(4, 6 + more), nn.ReLU(), nn.Linear(6 + more, 3))


def convolutions(more):
    units = 4 + more
    head = nn.Linear(units, 3)
    return nn.Sequential(
        nn.Conv2d(2, units, 3), nn.BatchNorm2d(units), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    )


KINDS = {
    "perceptron": (perceptron, (4,)),
    "convolutions": (convolutions, (2, 6, 6)),
    "transformer": (Attending, (5, 8)),
}


def traced(kind, more=0):
    """A base and two models, and the name and shape of a sample that they take. They were tuned from the base, or have
    so many hidden units more, or less, and are others."""
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    models = [make(0).eval()]
    models += [make(more).eval() if more else deepcopy(models[0]) for _ in range(2)]
    with torch.no_grad():
        for values in (values for model in models[1:] for values in model.parameters()):
            values.mul_(1 + 0.1 * torch.randn_like(values))
    return models, ("input" if kind != "transformer" else "x", shape)
