"""Transformers in torch by kind, and copies of them whose units are permuted by hand on the parameters.

Everything that theory says is free is permuted: the units of the stream and of each MLP, heads, heads of queries inside
those of keys and values that they share, units inside heads (of queries and keys only where nothing rotates them), and
experts with their units. Written by code that knows nothing of axis rules.
"""

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FEATURES, STEPS, SAMPLES, CLASSES = 6, 5, 2, 3
EXPERTS = ("experts", "chosen", "looked up", "switched")


@dataclass(frozen=True)
class Kind:
    """What a transformer is like.

    Attributes:
        layout: how queries, keys and values are stored: "separate", "packed" (one after the other), "thirds" (the same,
            unbound from an axis of three), "folded" (the same, heads behind samples on one axis), "by head" (all three
            head by head), "columns" (packed, stored transposed).
        form: how heads attend: "matmul", "einsum", "sdpa" (one call), "linear" (no softmax).
        shared: heads of keys and values; those of queries if 0.
        repeat: how shared heads are repeated: "expand", "interleave", "axis" (five axes) or "tile".
        turned: "" or how units are rotated: "halves", "pairs".
        normed: whether queries and keys are under a norm of head size.
        biased: "" or what is added to scores: "table" (learned, by head), "slopes" (of distances, by head), "causal".
        norm: "LayerNorm" or "RMSNorm"; first: whether it stands in front of what it belongs to.
        mlp: "plain", "gated", or experts: "experts" (all weighted), "chosen" (the best two of them), "looked up" (these
            alone are computed), "switched" (the best one, by a mask).
        bias: whether projections have biases.
    """

    name: str
    layout: str = "separate"
    form: str = "matmul"
    heads: int = 4
    shared: int = 0
    size: int = 4
    repeat: str = "expand"
    turned: str = ""
    normed: bool = False
    biased: str = ""
    norm: str = "LayerNorm"
    first: bool = True
    mlp: str = "plain"
    bias: bool = True
    width: int = 12
    hidden: int = 10
    experts: int = 3
    blocks: int = 2

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.shared or self.heads


KINDS = [
    Kind("bert", first=False),
    Kind("gpt2", layout="columns", biased="causal"),
    Kind("vit", layout="thirds"),
    Kind("packed", layout="packed"),
    Kind("sam", layout="folded"),
    Kind("neox", layout="by head", turned="halves"),
    Kind("bloom", layout="by head", biased="slopes"),
    Kind("t5", biased="table", norm="RMSNorm", bias=False),
    Kind("swin", layout="thirds", biased="table"),
    Kind("einsum", form="einsum"),
    Kind("sdpa", form="sdpa"),
    Kind("sdpa causal packed", layout="packed", form="sdpa", biased="causal"),
    Kind("linear attention", form="linear"),
    Kind("llama", shared=2, turned="halves", norm="RMSNorm", mlp="gated", bias=False),
    Kind("gptj", turned="pairs", bias=False),
    Kind("qwen3", shared=2, turned="halves", normed=True, norm="RMSNorm", mlp="gated", bias=False),
    Kind("normed heads", normed=True),
    *(Kind(f"grouped queries by {form}", shared=2, repeat=form) for form in ("expand", "interleave", "axis", "tile")),
    Kind("multi-query", shared=1),
    Kind("multi-query in one call", form="sdpa", shared=1),
    Kind("multi-query rotated", shared=1, turned="halves"),
    Kind("dense experts", mlp="experts"),
    Kind("chosen experts", mlp="chosen"),
    Kind("experts that are looked up", mlp="looked up"),
    Kind("switched experts", mlp="switched"),
]


class Norm(nn.Module):
    """RMSNorm, written out as models do."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def norm_of(kind: Kind, width: int) -> nn.Module:
    return Norm(width) if kind.norm == "RMSNorm" else nn.LayerNorm(width)


class Attention(nn.Module):
    def __init__(self, kind: Kind):
        super().__init__()
        self.kind = kind
        queries, keys = kind.heads * kind.size, kind.groups * kind.size
        if kind.layout == "separate":
            self.q = nn.Linear(kind.width, queries, bias=kind.bias)
            self.k = nn.Linear(kind.width, keys, bias=kind.bias)
            self.v = nn.Linear(kind.width, keys, bias=kind.bias)
        elif kind.layout == "columns":
            self.weight = nn.Parameter(torch.randn(kind.width, 3 * queries) / math.sqrt(kind.width))
            self.bias = nn.Parameter(torch.randn(3 * queries) * 0.1)
        else:
            self.qkv = nn.Linear(kind.width, 3 * queries, bias=kind.bias)
        self.o = nn.Linear(queries, kind.width, bias=kind.bias)
        if kind.normed:
            self.qn, self.kn = Norm(kind.size), Norm(kind.size)
        if kind.biased == "table":
            self.table = nn.Parameter(torch.randn(2 * STEPS - 1, kind.heads))
            steps = torch.arange(STEPS)
            self.register_buffer("index", steps[:, None] - steps[None, :] + STEPS - 1)
        if kind.biased == "slopes":
            self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, kind.heads + 1))
        if kind.turned:
            places = torch.arange(STEPS)[:, None] / 10.0 ** (torch.arange(0, kind.size, 2) / kind.size)
            both = places.repeat_interleave(2, -1) if kind.turned == "pairs" else torch.cat([places, places], -1)
            self.register_buffer("cos", both.cos())
            self.register_buffer("sin", both.sin())

    def project(self, x):
        """Queries, keys and values, each (samples, heads, steps, units)."""
        kind, (n, t, _) = self.kind, x.shape
        if kind.layout == "separate":
            three = self.q(x), self.k(x), self.v(x)
        elif kind.layout == "columns":
            packed = torch.addmm(self.bias, x.view(-1, kind.width), self.weight).view(n, t, -1)
            three = packed.split(kind.heads * kind.size, 2)
        elif kind.layout == "packed":
            three = self.qkv(x).chunk(3, dim=-1)
        elif kind.layout == "folded":
            three = self.qkv(x).reshape(n, t, 3, kind.heads, kind.size).permute(2, 0, 3, 1, 4)
            return three.reshape(3, n * kind.heads, t, kind.size).unbind(0)
        elif kind.layout == "thirds":
            return self.qkv(x).reshape(n, t, 3, kind.heads, kind.size).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            return self.qkv(x).view(n, t, kind.heads, 3 * kind.size).transpose(1, 2).chunk(3, dim=-1)
        return [part.view(n, t, -1, kind.size).transpose(1, 2) for part in three]

    def turn(self, x):
        if self.kind.turned == "pairs":
            other = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        else:
            half = self.kind.size // 2
            other = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * self.cos + other * self.sin

    def repeated(self, x):
        kind, times = self.kind, self.kind.heads // self.kind.groups
        n, g, t, d = x.shape
        if kind.repeat == "interleave":
            return x.repeat_interleave(times, dim=1)
        if kind.repeat == "tile":
            return x.unsqueeze(2).repeat(1, 1, times, 1, 1).reshape(n, kind.heads, t, d)
        return x[:, :, None].expand(n, g, times, t, d).reshape(n, kind.heads, t, d)

    def forward(self, x):
        kind, (n, t, _) = self.kind, x.shape
        q, k, v = self.project(x)
        if kind.normed:
            q, k = self.qn(q), self.kn(k)
        if kind.turned:
            q, k = self.turn(q), self.turn(k)
        if kind.repeat == "axis" and kind.shared:
            q = q.view(n, kind.groups, -1, t, kind.size)
            k, v = k[:, :, None], v[:, :, None]
        elif kind.shared:
            k, v = self.repeated(k), self.repeated(v)
        read = self.attend(q, k, v).reshape(n, kind.heads, t, kind.size)
        return self.o(read.transpose(1, 2).reshape(n, t, -1))

    def attend(self, q, k, v):
        kind, t = self.kind, q.shape[-2]
        if kind.form == "sdpa":
            return functional.scaled_dot_product_attention(q, k, v, is_causal=kind.biased == "causal")
        if kind.form == "linear":
            q, k = functional.elu(q) + 1, functional.elu(k) + 1
            return (q @ (k.transpose(-2, -1) @ v)) / (q @ k.sum(-2, keepdim=True).transpose(-2, -1))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) if kind.form == "einsum" else q @ k.transpose(-2, -1)
        scores = scores / math.sqrt(kind.size)
        if kind.biased == "table":
            scores = scores + self.table[self.index].permute(2, 0, 1)
        if kind.biased == "slopes":
            steps = torch.arange(t)
            scores = scores + self.slopes[:, None, None] * (steps[None, :] - steps[:, None])
        if kind.biased == "causal":
            scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -1e9)
        shares = scores.softmax(-1)
        return torch.einsum("bhqk,bhkd->bhqd", shares, v) if kind.form == "einsum" else shares @ v


class Mlp(nn.Module):
    def __init__(self, kind: Kind):
        super().__init__()
        self.kind = kind
        if kind.mlp in EXPERTS:
            self.gate = nn.Linear(kind.width, kind.experts, bias=False)
            self.up = nn.Parameter(torch.randn(kind.experts, kind.width, kind.hidden) / math.sqrt(kind.width))
            self.down = nn.Parameter(torch.randn(kind.experts, kind.hidden, kind.width) / math.sqrt(kind.hidden))
            return
        self.up = nn.Linear(kind.width, kind.hidden, bias=kind.bias)
        self.down = nn.Linear(kind.hidden, kind.width, bias=kind.bias)
        if kind.mlp == "gated":
            self.gate = nn.Linear(kind.width, kind.hidden, bias=kind.bias)

    def forward(self, x):
        kind = self.kind
        if kind.mlp == "gated":
            return self.down(functional.silu(self.gate(x)) * self.up(x))
        if kind.mlp == "plain":
            return self.down(functional.gelu(self.up(x)))
        shares = self.gate(x).softmax(-1)
        if kind.mlp == "looked up":
            best = shares.topk(2, dim=-1)
            made = torch.einsum("ntw,ntkwh->ntkh", x, self.up[best.indices])
            made = torch.einsum("ntkh,ntkhw->ntkw", functional.gelu(made), self.down[best.indices])
            return (made * best.values.unsqueeze(-1)).sum(2)
        if kind.mlp == "switched":
            shares = shares * functional.one_hot(shares.argmax(-1), kind.experts)
        if kind.mlp == "chosen":
            best = shares.topk(2, dim=-1)
            shares = torch.zeros_like(shares).scatter(-1, best.indices, best.values)
        made = torch.matmul(functional.gelu(torch.matmul(x.unsqueeze(1), self.up)), self.down)
        return (made * shares.transpose(1, 2).unsqueeze(-1)).sum(1)


class Block(nn.Module):
    def __init__(self, kind: Kind):
        super().__init__()
        self.kind = kind
        self.attention, self.mlp = Attention(kind), Mlp(kind)
        self.n1, self.n2 = norm_of(kind, kind.width), norm_of(kind, kind.width)

    def forward(self, x):
        if self.kind.first:
            x = x + self.attention(self.n1(x))
            return x + self.mlp(self.n2(x))
        x = self.n1(x + self.attention(x))
        return self.n2(x + self.mlp(x))


class Transformer(nn.Module):
    def __init__(self, kind: Kind):
        super().__init__()
        self.inward = nn.Linear(FEATURES, kind.width)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(kind.blocks))
        self.norm = norm_of(kind, kind.width)
        self.head = nn.Linear(kind.width, CLASSES)

    def forward(self, x):
        x = self.inward(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build(kind: Kind, seed: int = 0) -> Transformer:
    """A network of a kind with random parameters, norms too."""
    torch.manual_seed(seed)
    model = Transformer(kind).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(1.5)
    return model


def example() -> torch.Tensor:
    return torch.randn(SAMPLES, STEPS, FEATURES, generator=torch.Generator().manual_seed(1))


# --- by hand ------------------------------------------------------------------------------------------------------


def moved(parameter: torch.Tensor, axis: int, index: np.ndarray) -> None:
    """Put entry `index[i]` of an axis in place i."""
    with torch.no_grad():
        parameter.copy_(parameter.index_select(axis, torch.as_tensor(np.ravel(index))))


def permuted(model: Transformer, kind: Kind, seed: int) -> Transformer:
    """A copy with all units in another order."""
    rng, model = np.random.default_rng(seed), deepcopy(model)
    stream = rng.permutation(kind.width)
    rows(model.inward, stream)
    columns(model.head, stream)
    norms = [model.norm, *(norm for block in model.blocks for norm in (block.n1, block.n2))]
    for norm in norms:
        for parameter in norm.parameters():
            moved(parameter, 0, stream)
    for block in model.blocks:
        permute_attention(block.attention, kind, rng, stream)
        permute_mlp(block.mlp, kind, rng, stream)
    return model


def rows(linear: nn.Linear, index: np.ndarray) -> None:
    moved(linear.weight, 0, index)
    if linear.bias is not None:
        moved(linear.bias, 0, index)


def columns(linear: nn.Linear, index: np.ndarray) -> None:
    moved(linear.weight, 1, index)


def permute_attention(part: Attention, kind: Kind, rng: np.random.Generator, stream: np.ndarray) -> None:
    times = kind.heads // kind.groups
    is_pinned = kind.biased == "slopes"  # every head has a slope of its own
    outer = np.arange(kind.groups) if is_pinned else rng.permutation(kind.groups)
    inner = np.array([rng.permutation(times) for _ in outer])
    alike = rng.permutation(kind.size)
    met = np.array(
        [np.arange(kind.size) if kind.turned else alike if kind.normed else rng.permutation(kind.size) for _ in outer]
    )
    given = np.array([rng.permutation(kind.size) for _ in outer])
    heads = outer[:, None] * times + inner
    q = heads[:, :, None] * kind.size + met[:, None, :]
    k, v = outer[:, None] * kind.size + met, outer[:, None] * kind.size + given
    read = heads[:, :, None] * kind.size + given[:, None, :]
    every = kind.heads * kind.size
    if kind.layout == "separate":
        for linear, index in ((part.q, q), (part.k, k), (part.v, v)):
            rows(linear, index)
            columns(linear, stream)
    elif kind.layout == "by head":
        three = np.stack([met, met + kind.size, given + 2 * kind.size], 1).reshape(len(outer), -1)
        rows(part.qkv, outer[:, None] * 3 * kind.size + three)
        columns(part.qkv, stream)
    else:
        packed = np.concatenate([q.ravel(), every + k.ravel(), 2 * every + v.ravel()])
        if kind.layout == "columns":
            moved(part.weight, 1, packed)
            moved(part.bias, 0, packed)
            moved(part.weight, 0, stream)
        else:
            rows(part.qkv, packed)
            columns(part.qkv, stream)
    columns(part.o, read)
    rows(part.o, stream)
    if kind.normed and not kind.turned:
        moved(part.qn.weight, 0, alike)
        moved(part.kn.weight, 0, alike)
    if kind.biased == "table":
        moved(part.table, 1, heads)


def permute_mlp(part: Mlp, kind: Kind, rng: np.random.Generator, stream: np.ndarray) -> None:
    if kind.mlp in EXPERTS:
        experts = rng.permutation(kind.experts)
        moved(part.gate.weight, 0, experts)
        columns(part.gate, stream)
        for parameter, axis in ((part.up, 1), (part.down, 2)):
            moved(parameter, 0, experts)
            moved(parameter, axis, stream)
        for expert in range(kind.experts):
            hidden = rng.permutation(kind.hidden)
            moved(part.up[expert], 1, hidden)
            moved(part.down[expert], 0, hidden)
        return
    hidden = rng.permutation(kind.hidden)
    for linear in (part.up, *([part.gate] if kind.mlp == "gated" else [])):
        rows(linear, hidden)
        columns(linear, stream)
    columns(part.down, hidden)
    rows(part.down, stream)
