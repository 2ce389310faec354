"""Networks with branches that are alike - experts, heads, paths as modules of their own - permuted by hand."""

import numpy as np
import torch
from planted_kinds import columns, moved, rows
from published_kinds import both, vectors
from torch import nn
from torch.nn import functional

CLASSES = 3


def reordered(modules: nn.ModuleList, order: np.ndarray) -> nn.ModuleList:
    """Module `order[i]` in place i."""
    return nn.ModuleList(modules[place] for place in order)


class GatedExpert(nn.Module):
    """What Mixtral has for an expert."""

    def __init__(self, stream: int, hidden: int):
        super().__init__()
        self.up, self.gate = (nn.Linear(stream, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, stream, bias=False)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))

    def permute(self, rng, stream):
        hidden = rng.permutation(self.up.out_features)
        for layer in (self.up, self.gate):
            both(layer, hidden, stream)
        both(self.down, stream, hidden)


class BestTwo(nn.Module):
    """A residual block of experts, the two best of which count."""

    def __init__(self, stream: int, experts: int, hidden: int):
        super().__init__()
        self.norm, self.router = nn.LayerNorm(stream), nn.Linear(stream, experts, bias=False)
        self.experts = nn.ModuleList(GatedExpert(stream, hidden) for _ in range(experts))

    def forward(self, x):
        y = self.norm(x)
        shares = torch.softmax(self.router(y), -1)
        best, chosen = shares.topk(2, dim=-1)
        best = best / best.sum(-1, keepdim=True)
        for place, expert in enumerate(self.experts):
            share = (best * (chosen == place)).sum(-1, keepdim=True)
            x = x + share * expert(y)
        return x

    def permute(self, rng, stream):
        order = rng.permutation(len(self.experts))
        self.experts = reordered(self.experts, order)
        both(self.router, order, stream)
        for tensor in vectors(self.norm):
            moved(tensor, 0, stream)
        for expert in self.experts:
            expert.permute(rng, stream)


class Mixtral(nn.Module):
    """Two such blocks, each with an order of its own."""

    shape = (2, 4, 6)

    def __init__(self, stream: int = 8, experts: int = 4, hidden: int = 5):
        super().__init__()
        self.inward, self.head = nn.Linear(6, stream), nn.Linear(stream, CLASSES)
        self.body = nn.ModuleList(BestTwo(stream, experts, hidden) for _ in range(2))

    def forward(self, x):
        x = self.inward(x)
        for block in self.body:
            x = block(x)
        return self.head(x)

    def permute(self, rng):
        stream = rng.permutation(self.inward.out_features)
        rows(self.inward, stream)
        for block in self.body:
            block.permute(rng, stream)
        columns(self.head, stream)


class Head(nn.Module):
    """A head of attention as a module of its own."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, size) for _ in range(3))

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(-2, -1) * self.query.out_features**-0.5
        return torch.softmax(scores, -1) @ self.value(x)

    def permute(self, rng, stream):
        met, given = (rng.permutation(self.query.out_features) for _ in range(2))
        both(self.query, met, stream)
        both(self.key, met, stream)
        both(self.value, given, stream)
        return given


class HeadsApart(nn.Module):
    """Heads side by side, as many write them by hand."""

    shape = (2, 4, 6)

    def __init__(self, width: int = 9, heads: int = 3, size: int = 4):
        super().__init__()
        self.inward, self.head = nn.Linear(6, width), nn.Linear(width, CLASSES)
        self.heads = nn.ModuleList(Head(width, size) for _ in range(heads))
        self.out = nn.Linear(heads * size, width)

    def forward(self, x):
        x = self.inward(x)
        return self.head(x + self.out(torch.cat([head(x) for head in self.heads], -1)))

    def permute(self, rng):
        stream, order = rng.permutation(self.inward.out_features), rng.permutation(len(self.heads))
        size = self.heads[0].value.out_features
        rows(self.inward, stream)
        self.heads = reordered(self.heads, order)
        given = [place * size + head.permute(rng, stream) for place, head in zip(order, self.heads, strict=True)]
        both(self.out, stream, np.concatenate(given))
        columns(self.head, stream)


class Path(nn.Module):
    """One of the paths that ResNeXt is drawn with, with a slope of its own."""

    def __init__(self, stream: int, width: int):
        super().__init__()
        self.a, self.norm = nn.Conv2d(stream, width, 1, bias=False), nn.BatchNorm2d(width)
        self.b, self.slope = nn.Conv2d(width, stream, 3, padding=1), nn.PReLU()

    def forward(self, x):
        return self.b(self.slope(self.norm(self.a(x))))

    def permute(self, rng, stream):
        width = rng.permutation(self.a.out_channels)
        both(self.a, width, stream)
        for tensor in vectors(self.norm):
            moved(tensor, 0, width)
        both(self.b, stream, width)


class Paths(nn.Module):
    """Paths that are added, each by a factor of its own."""

    shape = (2, 3, 6, 6)

    def __init__(self, stream: int = 6, paths: int = 4, width: int = 3):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, stream, 3, padding=1), nn.Linear(stream, CLASSES)
        self.paths = nn.ModuleList(Path(stream, width) for _ in range(paths))
        self.factors = nn.Parameter(torch.rand(paths))

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = x + sum(self.factors[place] * path(x) for place, path in enumerate(self.paths))
        return self.head(x.mean((2, 3)))

    def permute(self, rng):
        stream, order = rng.permutation(self.stem.out_channels), rng.permutation(len(self.paths))
        rows(self.stem, stream)
        self.paths = reordered(self.paths, order)
        moved(self.factors, 0, order)
        for path in self.paths:
            path.permute(rng, stream)
        columns(self.head, stream)


class Tasks(nn.Module):
    """Experts that two tasks share, each with a gate and a head of its own (Ma et al. 2018)."""

    shape = (4, 6)

    def __init__(self, experts: int = 4, hidden: int = 5, made: int = 4):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, hidden), nn.GELU(), nn.Linear(hidden, made), nn.Tanh()) for _ in range(experts)
        )
        self.gates = nn.ModuleList(nn.Linear(6, experts) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(made, CLASSES) for _ in range(2))

    def forward(self, x):
        made = torch.stack([expert(x) for expert in self.experts], 1)
        shares = [torch.softmax(gate(x), -1).unsqueeze(1) for gate in self.gates]
        return torch.cat([head((share @ made).squeeze(1)) for share, head in zip(shares, self.heads, strict=True)], -1)

    def permute(self, rng):
        order, made = rng.permutation(len(self.experts)), rng.permutation(self.heads[0].in_features)
        self.experts = reordered(self.experts, order)
        for gate in self.gates:
            rows(gate, order)
        for expert in self.experts:
            hidden = rng.permutation(expert[0].out_features)
            rows(expert[0], hidden)
            both(expert[2], made, hidden)
        for head in self.heads:
            columns(head, made)


class Mixture(nn.Module):
    """Experts under a gate; of each expert's kind, `make` says what it is."""

    def __init__(self, make, experts: int, width: int):
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(make() for _ in range(experts))

    def forward(self, x):
        made = torch.stack([expert(x) for expert in self.experts], -2)
        return (torch.softmax(self.gate(x), -1).unsqueeze(-1) * made).sum(-2)

    def permute(self, rng):
        order = rng.permutation(len(self.experts))
        self.experts = reordered(self.experts, order)
        rows(self.gate, order)
        for expert in self.experts:
            if isinstance(expert, Mixture):
                expert.permute(rng)
            else:
                hidden = rng.permutation(expert[0].out_features)
                rows(expert[0], hidden)
                columns(expert[2], hidden)


class Nested(Mixture):
    """Experts that are mixtures themselves."""

    shape = (3, 6)

    def __init__(self):
        def perceptron():
            return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES))

        super().__init__(lambda: Mixture(perceptron, 2, 6), 3, 6)


KINDS = (Mixtral, HeadsApart, Paths, Tasks, Nested)
