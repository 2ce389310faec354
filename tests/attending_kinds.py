"""Networks that attend, mix and gate in many published ways, each with the groups that theory says are free.

`FREE` counts groups by (units, whether they lie inside a unit of another one): a stream of 12, three heads of four
units where nothing else is said.
"""

import math

import torch
from torch import nn
from torch.nn import functional

FEATURES, STEPS, WIDTH, HEADS, SIZE, CLASSES = 5, 6, 12, 3, 4, 3
STREAM, BLOCKS, INSIDE = (WIDTH, False), (HEADS, False), (SIZE, True)
ATTENTION = {STREAM: 1, BLOCKS: 1, INSIDE: 6}


class Residual(nn.Module):
    """A stream with one block on it."""

    shape: tuple[int, ...] = (1, STEPS, FEATURES)

    def __init__(self):
        super().__init__()
        self.inward, self.norm, self.head = nn.Linear(FEATURES, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.inward(x)
        return self.head(self.norm(x + self.block(x)))


def linear(*widths, bias=True):
    return nn.Linear(*widths, bias=bias)


def by_head(x):
    return x.view(x.shape[0], x.shape[1], HEADS, -1).transpose(1, 2)


def together(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attend(q, k, v, added=0.0):
    return ((q @ k.transpose(-1, -2) / math.sqrt(SIZE) + added).softmax(-1)) @ v


class Packed(Residual):
    """torch's own attention, with its packed projection."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def block(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Cross(Residual):
    """Keys and values of another stream, of another width: projections that are stored apart."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, kdim=8, vdim=8)
        self.other = linear(FEATURES, 8)

    def forward(self, x):
        y, x = self.other(x).relu(), self.inward(x)
        return self.head(self.norm(x + self.attention(x, y, y, need_weights=False)[0]))


class Decoder(Residual):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 16, batch_first=True)
        self.memory = linear(FEATURES, WIDTH)

    def forward(self, x):
        return self.head(self.norm(self.layer(self.inward(x), self.memory(x))))


class OfChannels(Residual):
    """XCiT: units attend to units."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)

    def block(self, x):
        n = x.shape[0]
        q, k, v = self.qkv(x).reshape(n, STEPS, 3, HEADS, SIZE).permute(2, 0, 3, 4, 1).unbind(0)
        scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-1, -2)
        read = (scores * self.temperature).softmax(-1) @ v
        return self.out(read.permute(0, 3, 1, 2).reshape(n, STEPS, WIDTH))


class Talking(Residual):
    """Heads that are mixed before and behind the softmax."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.before, self.behind = linear(HEADS, HEADS), linear(HEADS, HEADS)

    def block(self, x):
        q, k, v = self.qkv(x).reshape(x.shape[0], STEPS, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        return self.out(together(self.behind(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v))


class Separate(Residual):
    """Attention with projections of their own, for others to change."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (linear(WIDTH, WIDTH) for _ in range(4))

    def block(self, x):
        return self.out(together(attend(by_head(self.q(x)), by_head(self.k(x)), by_head(self.v(x)))))


class Retention(Separate):
    """RetNet: every head forgets at a rate of its own, which is not learned."""

    def __init__(self):
        super().__init__()
        self.norm_of_heads = nn.GroupNorm(HEADS, WIDTH)
        self.register_buffer("rates", torch.tensor([0.9, 0.45, 0.7]))

    def block(self, x):
        n, steps = x.shape[0], torch.arange(STEPS)
        apart = steps[:, None] - steps[None]
        kept = torch.exp(self.rates.log()[:, None, None] * apart.clamp(min=0)) * (apart >= 0)
        read = together((by_head(self.q(x)) @ by_head(self.k(x)).transpose(-1, -2) * kept) @ by_head(self.v(x)))
        return self.out(self.norm_of_heads(read.reshape(-1, WIDTH)).view(n, STEPS, WIDTH))


class Linformer(Separate):
    def __init__(self):
        super().__init__()
        self.keys, self.values = linear(STEPS, SIZE, bias=False), linear(STEPS, SIZE, bias=False)

    def block(self, x):
        k = self.keys(self.k(x).transpose(1, 2)).transpose(1, 2)
        v = self.values(self.v(x).transpose(1, 2)).transpose(1, 2)
        return self.out(together(attend(by_head(self.q(x)), by_head(k), by_head(v))))


class Disentangled(Separate):
    """DeBERTa: scores of content and place, looked up by distance."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(2 * STEPS - 1, WIDTH))

    def block(self, x):
        steps = torch.arange(STEPS)
        apart = (steps[:, None] - steps[None] + STEPS - 1).expand(x.shape[0], HEADS, STEPS, STEPS)
        q, k, v = by_head(self.q(x)), by_head(self.k(x)), by_head(self.v(x))
        places = self.k(self.places).view(2 * STEPS - 1, HEADS, -1).transpose(0, 1)
        return self.out(together(attend(q, k, v, (q @ places.transpose(-1, -2)).gather(-1, apart))))


class TransformerXl(Separate):
    """Biases of every head, beside content and place."""

    def __init__(self):
        super().__init__()
        self.r = linear(WIDTH, WIDTH, bias=False)
        self.content, self.place = (nn.Parameter(torch.randn(HEADS, SIZE)) for _ in range(2))
        self.register_buffer("places", torch.randn(STEPS, WIDTH))

    def block(self, x):
        q, k = (part(x).view(x.shape[0], STEPS, HEADS, -1) for part in (self.q, self.k))
        r = self.r(self.places).view(STEPS, HEADS, -1)
        scores = torch.einsum("bihd,bjhd->bhij", q + self.content, k)
        scores = scores + torch.einsum("bihd,jhd->bhij", q + self.place, r)
        return self.out(together(scores.softmax(-1) @ by_head(self.v(x))))


class Differential(Residual):
    """The difference of two attentions."""

    def __init__(self):
        super().__init__()
        self.q, self.k = linear(WIDTH, 2 * WIDTH), linear(WIDTH, 2 * WIDTH)
        self.v, self.out = linear(WIDTH, WIDTH), linear(WIDTH, WIDTH)
        self.share = nn.Parameter(torch.rand(HEADS, 1, 1))

    def block(self, x):
        (q, other_q), (k, other_k) = self.q(x).chunk(2, -1), self.k(x).chunk(2, -1)
        first, second = (
            (by_head(a) @ by_head(b).transpose(-1, -2)).softmax(-1) for a, b in ((q, k), (other_q, other_k))
        )
        return self.out(together((first - self.share * second) @ by_head(self.v(x))))


class Latent(Residual):
    """DeepSeek's attention: keys and values of a narrow latent, and units that are turned, one set for all heads."""

    def __init__(self):
        super().__init__()
        self.down_q, self.up_q = linear(WIDTH, 7, bias=False), linear(7, HEADS * (SIZE + 4), bias=False)
        self.down, self.up = linear(WIDTH, 5 + 4, bias=False), linear(5, HEADS * 2 * SIZE, bias=False)
        self.inner, self.out = nn.LayerNorm(5), linear(HEADS * SIZE, WIDTH)

    def turned(self, x):
        angles = torch.arange(STEPS)[:, None] / torch.tensor([1.0, 7.0])
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        return x * cos + torch.cat([-x[..., 2:], x[..., :2]], -1) * sin

    def block(self, x):
        q, turned_q = by_head(self.up_q(self.down_q(x))).split([SIZE, 4], -1)
        latent, turned_k = self.down(x).split([5, 4], -1)
        k, v = by_head(self.up(self.inner(latent))).split([SIZE, SIZE], -1)
        k = torch.cat([k, self.turned(turned_k[:, None]).expand(-1, HEADS, -1, -1)], -1)
        return self.out(together(attend(torch.cat([q, self.turned(turned_q)], -1), k, v)))


class Parallel(Residual):
    """Attention beside an MLP, of one projection, into one."""

    def __init__(self):
        super().__init__()
        self.first, self.into, self.out = nn.LayerNorm(WIDTH), linear(WIDTH, 3 * WIDTH + 16), linear(WIDTH + 16, WIDTH)

    def block(self, x):
        q, k, v, hidden = self.into(self.first(x)).split([WIDTH, WIDTH, WIDTH, 16], -1)
        read = together(attend(by_head(q), by_head(k), by_head(v)))
        return self.out(torch.cat([read, functional.gelu(hidden)], -1))


class Perceiver(Residual):
    """Learned queries read the stream, which reads them."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(SIZE, WIDTH))
        self.reads, self.gives = (nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(2))

    def block(self, x):
        latents = self.latents.expand(x.shape[0], -1, -1)
        latents = latents + self.reads(latents, x, x, need_weights=False)[0]
        return self.gives(x, latents, latents, need_weights=False)[0]


class Mixer(Residual):
    def __init__(self):
        super().__init__()
        self.first = nn.LayerNorm(WIDTH)
        self.over, self.back, self.up, self.down = (
            linear(STEPS, 9),
            linear(9, STEPS),
            linear(WIDTH, 16),
            linear(16, WIDTH),
        )

    def block(self, x):
        x = x + self.back(functional.gelu(self.over(self.first(x).transpose(1, 2)))).transpose(1, 2)
        return self.down(functional.gelu(self.up(x)))


class Gmlp(Residual):
    def __init__(self):
        super().__init__()
        self.up, self.down = linear(WIDTH, 16), linear(8, WIDTH)
        self.first, self.places = nn.LayerNorm(8), linear(STEPS, STEPS)

    def block(self, x):
        value, gate = functional.gelu(self.up(x)).chunk(2, -1)
        return self.down(value * self.places(self.first(gate).transpose(1, 2)).transpose(1, 2))


class Conformer(Residual):
    """Its convolution: a gate, one filter for each unit, a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Conv1d(WIDTH, 16, 1), nn.Conv1d(8, WIDTH, 1)
        self.each, self.batch = nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.BatchNorm1d(8)

    def block(self, x):
        x = functional.glu(self.up(x.transpose(1, 2)), dim=1)
        return self.down(functional.silu(self.batch(self.each(x)))).transpose(1, 2)


class Mamba(Residual):
    """A selective state space, step by step."""

    def __init__(self):
        super().__init__()
        self.into, self.out = linear(WIDTH, 2 * 8, bias=False), linear(8, WIDTH, bias=False)
        self.each = nn.Conv1d(8, 8, 3, padding=2, groups=8)
        self.selects, self.rate = linear(8, 2 + 2 * 5, bias=False), linear(2, 8)
        self.decay, self.skip = nn.Parameter(torch.rand(8, 5)), nn.Parameter(torch.randn(8))

    def block(self, x):
        x, gate = self.into(x).chunk(2, -1)
        x = functional.silu(self.each(x.transpose(1, 2))[..., :STEPS].transpose(1, 2))
        rate, into, out = self.selects(x).split([2, 5, 5], -1)
        rate, decay = functional.softplus(self.rate(rate)), -torch.exp(self.decay)
        state, made = torch.zeros(x.shape[0], 8, 5), []
        for t in range(STEPS):
            step = rate[:, t, :, None]
            state = state * torch.exp(step * decay) + step * into[:, t, None] * x[:, t, :, None]
            made.append((state * out[:, t, None]).sum(-1))
        return self.out((torch.stack(made, 1) + x * self.skip) * functional.silu(gate))


class Gemma(Residual):
    """A norm whose gains are one more than what is stored, and a gated MLP."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(WIDTH) * 0.1)
        self.gate, self.up, self.down = (linear(*w, bias=False) for w in ((WIDTH, 16), (WIDTH, 16), (16, WIDTH)))

    def block(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.gain)
        return self.down(functional.gelu(self.gate(x), approximate="tanh") * self.up(x))


class RepeatedExperts(Residual):
    """What every expert reads is laid end to end for all of them."""

    def __init__(self):
        super().__init__()
        self.router = linear(WIDTH, 3, bias=False)
        self.up, self.down = nn.Parameter(torch.randn(3, WIDTH, 9)), nn.Parameter(torch.randn(3, 9, WIDTH))

    def laid(self, rows):
        return rows.repeat(3, 1)

    def block(self, x):
        rows = x.reshape(-1, WIDTH)
        made = self.laid(rows).view(3, -1, WIDTH) @ self.up
        made = functional.gelu(made) @ self.down * self.router(rows).softmax(-1).T[:, :, None]
        return made.sum(0).view(x.shape)


class JoinedExperts(RepeatedExperts):
    def laid(self, rows):
        return torch.cat([rows] * 3)


class ZeroGains(Residual):
    """LayerScale and ReZero as they start: nothing comes through."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.other_up, self.other_down = (linear(*w) for w in ((WIDTH, 9), (9, WIDTH)) * 2)
        self.gains, self.gain = nn.Parameter(torch.zeros(WIDTH)), nn.Parameter(torch.zeros(1))

    def block(self, x):
        return self.gains * self.down(self.up(x).relu()) + self.gain * self.other_down(self.other_up(x).relu())


class Seq2Seq(Residual):
    """A recurrent encoder of two directions, read by a recurrent decoder."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(WIDTH, 8, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(WIDTH, 7, batch_first=True)
        self.query, self.out = linear(7, 16), linear(16 + 7, WIDTH)

    def block(self, x):
        encoded, decoded = self.encoder(x)[0], self.decoder(x)[0]
        read = (self.query(decoded) @ encoded.transpose(1, 2)).softmax(-1) @ encoded
        return self.out(torch.cat([decoded, read], -1))


class Windows(Residual):
    """Swin: windows that are shifted, and patches that become one."""

    shape = (1, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.inward, self.qkv, self.out = nn.Conv2d(3, WIDTH, 1), linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.merge, self.norm = linear(4 * WIDTH, 2 * WIDTH, bias=False), nn.LayerNorm(4 * WIDTH)
        self.head = linear(2 * WIDTH, CLASSES)
        mask = torch.zeros(4, 16, 16)
        mask[1, :8, 8:] = -100
        self.register_buffer("mask", mask)

    def forward(self, x):
        x = self.inward(x).permute(0, 2, 3, 1)
        n = x.shape[0]
        shifted = torch.roll(x, (-2, -2), (1, 2)).reshape(n, 2, 4, 2, 4, WIDTH).permute(0, 1, 3, 2, 4, 5)
        q, k, v = (
            self.qkv(shifted.reshape(-1, 16, WIDTH)).reshape(-1, 16, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = (q @ k.transpose(-1, -2)).view(n, 4, HEADS, 16, 16) + self.mask[None, :, None]
        read = self.out(together(scores.view(-1, HEADS, 16, 16).softmax(-1) @ v)).reshape(n, 2, 2, 4, 4, WIDTH)
        x = x + torch.roll(read.permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, WIDTH), (2, 2), (1, 2))
        four = torch.cat([x[:, a::2, b::2] for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))], -1)
        return self.head(self.merge(self.norm(four)).mean((1, 2)))


FREE = {
    Packed: ATTENTION,
    Cross: {**ATTENTION, (8, False): 1},
    Decoder: {STREAM: 2, BLOCKS: 2, INSIDE: 12, (16, False): 1},
    OfChannels: ATTENTION,
    Talking: {**ATTENTION, BLOCKS: 3},
    Separate: ATTENTION,
    Retention: ATTENTION,
    Linformer: {**ATTENTION, (SIZE, False): 1},
    Disentangled: ATTENTION,  # one projection reads the stream and the places: they have one order
    TransformerXl: {**ATTENTION, STREAM: 2},
    Differential: {**ATTENTION, INSIDE: 9},
    Latent: {**ATTENTION, (7, False): 1, (5, False): 1},
    Parallel: {**ATTENTION, (16, False): 1},
    Perceiver: {STREAM: 2, BLOCKS: 2, INSIDE: 12, (SIZE, False): 1},
    Mixer: {STREAM: 1, (9, False): 1, (16, False): 1},
    Gmlp: {STREAM: 1, (8, False): 1},
    Conformer: {STREAM: 1, (8, False): 1},
    Mamba: {STREAM: 1, (8, False): 1, (5, False): 1, (2, False): 1},
    Gemma: {STREAM: 1, (16, False): 1},
    **{kind: {STREAM: 1, (3, False): 1, (9, True): 3} for kind in (RepeatedExperts, JoinedExperts)},
    ZeroGains: {STREAM: 1, (9, False): 2},
    Seq2Seq: {STREAM: 1, (8, False): 2, (7, False): 1},
    Windows: {**ATTENTION, (2 * WIDTH, False): 1},
}


# What exporters store otherwise: a projection twice, turned for one of its readers; what comes of constants alone.
OTHERWISE = {
    (Disentangled, "torchscript"): {**ATTENTION, STREAM: 2},
    **{(TransformerXl, front_end): ATTENTION for front_end in ("dynamo", "opset 23")},
    # Latents twice; and biases of zeros once, cut once for both attentions, which ties their heads.
    **{
        (Perceiver, front_end): {STREAM: 3, BLOCKS: 1, INSIDE: 6, (SIZE, False): 1}
        for front_end in ("dynamo", "opset 23")
    },
}


def build(kind: type[Residual], seed: int = 0) -> Residual:
    """A network of a kind with random parameters; gains that are zero stay so."""
    torch.manual_seed(seed)
    model = kind().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.any():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def example(kind: type[Residual]) -> torch.Tensor:
    return torch.randn(kind.shape, generator=torch.Generator().manual_seed(1))
