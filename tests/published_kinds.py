"""Networks whose tensors look like something else than they are, or are read by their place.

Filters and splines made of learned numbers, masks that no softmax reads, maps cut into windows, edges of a graph,
shared heads taken by an index, weights stored as directions and lengths.

Each is permuted by hand, by code that knows nothing of axis rules: all that theory says is free is in another order.
"""

import math
from copy import deepcopy

import numpy as np
import torch
from planted_kinds import columns, moved, rows
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

STEPS, FEATURES, CLASSES = 6, 5, 3


class SincFilters(nn.Module):
    """SincNet: every filter is made of the two learned ends of a band."""

    shape = (1, 1, 40)

    def __init__(self, filters: int = 6, units: int = 7):
        super().__init__()
        self.low, self.band = (nn.Parameter(0.05 + 0.2 * torch.rand(filters, 1)) for _ in range(2))
        self.register_buffer("taps", torch.arange(-5.0, 6.0)[None])
        self.norm = nn.BatchNorm1d(filters)
        self.conv, self.head = nn.Conv1d(filters, units, 3), nn.Linear(units, CLASSES)

    def wave(self, frequency):
        angle = 2 * math.pi * frequency * self.taps
        safe = torch.where(angle == 0, torch.ones_like(angle), angle)
        return 2 * frequency * torch.where(angle == 0, torch.ones_like(angle), safe.sin() / safe)

    def forward(self, x):
        low = self.low.abs()
        filters = self.wave(low + self.band.abs()) - self.wave(low)
        x = functional.relu(self.norm(functional.conv1d(x, filters[:, None])))
        return self.head(functional.relu(self.conv(x)).mean(-1))

    def permute(self, rng):
        filters, units = rng.permutation(len(self.low)), rng.permutation(self.conv.out_channels)
        for tensor in (self.low, self.band, *vectors(self.norm)):
            moved(tensor, 0, filters)
        both(self.conv, units, filters)
        columns(self.head, units)


class Splines(nn.Module):
    """A Kolmogorov-Arnold network: splines on a grid that is stored once for each unit."""

    shape = (2, FEATURES)

    def __init__(self, units: int = 6, places: int = 7):
        super().__init__()
        widths = [(FEATURES, units), (units, CLASSES)]
        self.weights = nn.ParameterList(nn.Parameter(0.4 * torch.randn(b, a, places)) for a, b in widths)
        self.gains = nn.ParameterList(nn.Parameter(torch.rand(b, a)) for a, b in widths)
        for number, (width, _) in enumerate(widths):
            self.register_buffer(f"grid{number}", torch.linspace(-2, 2, places + 2).expand(width, -1).contiguous())

    def forward(self, x):
        for number, (weight, gain) in enumerate(zip(self.weights, self.gains, strict=True)):
            grid, x = getattr(self, f"grid{number}"), x[..., None]
            steps = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
            rising = (x - grid[:, :-2]) / (grid[:, 1:-1] - grid[:, :-2]) * steps[..., :-1]
            falling = (grid[:, 2:] - x) / (grid[:, 2:] - grid[:, 1:-1]) * steps[..., 1:]
            x = functional.linear((rising + falling).flatten(1), (weight * gain[..., None]).flatten(1))
        return x

    def permute(self, rng):
        units = rng.permutation(len(self.gains[0]))
        for tensors in (self.weights, self.gains):
            moved(tensors[0], 0, units)
            moved(tensors[1], 1, units)


class Decaying(nn.Module):
    """The parallel form of a matrix memory (xLSTM): logarithms of decays, masked, that no softmax reads."""

    shape = (1, STEPS, FEATURES)

    def __init__(self, width: int = 8, heads: int = 3, size: int = 4):
        super().__init__()
        self.heads, self.size = heads, size
        self.inward, self.head = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.enters, self.stays, self.out = (
            nn.Linear(width, heads),
            nn.Linear(width, heads),
            nn.Linear(heads * size, width),
        )

    def forward(self, x):
        x = self.inward(x)
        n, t, _ = x.shape
        q, k, v = (part(x).view(n, t, self.heads, self.size).transpose(1, 2) for part in (self.q, self.k, self.v))
        kept = functional.logsigmoid(self.stays(x)).transpose(1, 2).cumsum(-1)
        decay = kept[..., :, None] - kept[..., None, :] + self.enters(x).transpose(1, 2)[..., None, :]
        decay = decay + torch.full((t, t), float("-inf")).triu(1)
        scores = (q @ k.transpose(-1, -2)) * (decay - decay.amax(-1, keepdim=True)).exp()
        scores = scores / (scores.sum(-1, keepdim=True).abs() + 1)
        return self.head(x + self.out((scores @ v).transpose(1, 2).reshape(n, t, -1)))

    def permute(self, rng):
        stream, heads = rng.permutation(self.inward.out_features), rng.permutation(self.heads)
        met, given = (in_heads(rng, heads, self.size) for _ in range(2))
        rows(self.inward, stream)
        for part, index in ((self.q, met), (self.k, met), (self.v, given), (self.enters, heads), (self.stays, heads)):
            both(part, index, stream)
        both(self.out, stream, given)
        columns(self.head, stream)


class OneKey(nn.Module):
    """Falcon: heads of queries, then the one of keys and that of values, in one projection, taken by lists of one."""

    shape = (2, STEPS, FEATURES)

    def __init__(self, width: int = 8, heads: int = 3, size: int = 4):
        super().__init__()
        self.heads, self.size = heads, size
        self.inward, self.head = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.into, self.out = nn.Linear(width, (heads + 2) * size), nn.Linear(heads * size, width)

    def forward(self, x):
        x = self.inward(x)
        n, t, _ = x.shape
        all_heads = self.into(x).view(n, t, self.heads + 2, self.size)
        q, k, v = (
            part.transpose(1, 2) for part in (all_heads[..., :-2, :], all_heads[..., [-2], :], all_heads[..., [-1], :])
        )
        k, v = (part.expand(-1, self.heads, -1, -1) for part in (k, v))
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.out(read.transpose(1, 2).reshape(n, t, -1)))

    def permute(self, rng):
        stream, heads = rng.permutation(self.inward.out_features), rng.permutation(self.heads)
        met, given = rng.permutation(self.size), rng.permutation(self.size)
        rows(self.inward, stream)
        outer = [*heads, self.heads, self.heads + 1]
        inner = [*[met] * (self.heads + 1), given]
        both(self.into, np.concatenate([h * self.size + i for h, i in zip(outer, inner, strict=True)]), stream)
        both(self.out, stream, np.concatenate([h * self.size + given for h in heads]))
        columns(self.head, stream)


class Edges(nn.Module):
    """A graph network: what the neighbours of a node send is gathered by edges, and added up where they end."""

    shape = (1, STEPS, FEATURES)

    def __init__(self, units: int = 7):
        super().__init__()
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 1]]))
        self.own, self.sent, self.head = (
            nn.Linear(FEATURES, units),
            nn.Linear(FEATURES, units),
            nn.Linear(units, CLASSES),
        )

    def forward(self, x):
        own, sent = self.own(x), self.sent(x)[:, self.edges[0]].tanh()
        ends = self.edges[1][None, :, None].expand_as(sent)
        return self.head(functional.relu(own + torch.zeros_like(own).scatter_add(1, ends, sent)))

    def permute(self, rng):
        units = rng.permutation(self.own.out_features)
        rows(self.own, units)
        rows(self.sent, units)
        columns(self.head, units)


class Folded(nn.Module):
    """A map is cut into windows, which a perceptron reads and writes, and laid together again."""

    shape = (1, 3, 8, 8)

    def __init__(self, width: int = 6, hidden: int = 9):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, CLASSES, 1)
        self.up, self.down = nn.Linear(4 * width, hidden), nn.Linear(hidden, 4 * width)

    def forward(self, x):
        x = self.stem(x)
        windows = self.up(functional.unfold(x, 2, stride=2).transpose(1, 2)).relu()
        return self.head(x + functional.fold(self.down(windows).transpose(1, 2), (8, 8), 2, stride=2))

    def permute(self, rng):
        width, hidden = rng.permutation(self.stem.out_channels), rng.permutation(self.up.out_features)
        places = (4 * width[:, None] + np.arange(4)).ravel()
        rows(self.stem, width)
        both(self.up, hidden, places)
        both(self.down, places, hidden)
        columns(self.head, width)


class Vocoder(nn.Module):
    """Weights stored as directions and lengths, those of a transposed convolution by the units that it reads."""

    shape = (1, FEATURES, 10)

    def __init__(self, width: int = 8):
        super().__init__()
        self.before = weight_norm(nn.Conv1d(FEATURES, width, 3, padding=1))
        self.up = weight_norm(nn.ConvTranspose1d(width, 6, 4, 2, 1))
        self.behind = weight_norm(nn.Conv1d(6, 1, 3, padding=1))

    def forward(self, x):
        return self.behind(functional.leaky_relu(self.up(functional.leaky_relu(self.before(x))))).tanh()

    def permute(self, rng):
        wide, narrow = rng.permutation(len(self.before.bias)), rng.permutation(6)
        (gain, direction), (up_gain, up_direction), (_, last) = (
            (part.parametrizations.weight.original0, part.parametrizations.weight.original1)
            for part in (self.before, self.up, self.behind)
        )
        for tensor in (gain, direction, self.before.bias, up_gain, up_direction):
            moved(tensor, 0, wide)
        moved(up_direction, 1, narrow)
        moved(self.up.bias, 0, narrow)
        moved(last, 1, narrow)


KINDS = (SincFilters, Splines, Decaying, OneKey, Edges, Folded, Vocoder)


def vectors(module: nn.Module) -> list[torch.Tensor]:
    """What a norm stores for each unit."""
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.ndim == 1]


def both(module: nn.Module, out: np.ndarray, read: np.ndarray) -> None:
    """Permute what a layer makes, and what it reads."""
    rows(module, out)
    columns(module, read)


def in_heads(rng: np.random.Generator, heads: np.ndarray, size: int) -> np.ndarray:
    """Heads in an order, the units of each in one of its own."""
    return np.concatenate([head * size + rng.permutation(size) for head in heads])


def build(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network of a kind, with vectors that are not what they start as."""
    torch.manual_seed(seed)
    model = kind().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.rand_like(parameter))
    return model


def example(kind: type[nn.Module]) -> torch.Tensor:
    return torch.randn(kind.shape, generator=torch.Generator().manual_seed(1))


def permuted(model: nn.Module) -> nn.Module:
    """A copy in another order."""
    copy = deepcopy(model)
    copy.permute(np.random.default_rng(3))
    return copy


def check_by_hand(kind: type[nn.Module]) -> None:
    """That a copy in another order is another one, and computes the same."""
    model = build(kind)
    copy = permuted(model)
    assert any((a != b).any() for a, b in zip(model.parameters(), copy.parameters(), strict=True))
    with torch.no_grad():
        # float32 sums in another order: 1e-4 is a hundred times that, and far below what a wrong order moves.
        assert torch.allclose(model(example(kind)), copy(example(kind)), atol=1e-4)
