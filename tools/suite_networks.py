"""Small networks of our own for the group study: one for each way in which channels are joined, split or shared.

Written from the papers' descriptions, with 16 to 64 channels. `NETWORKS` gives for each name a function that makes the
network and the inputs it is exported with.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


def conv(units_in: int, units: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """Convolution, BatchNorm and, unless told otherwise, SiLU."""
    layers = [
        nn.Conv2d(units_in, units, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(units),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if act else []))


def classifier(units: int, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(units, classes))


# --- encoders and decoders --------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Ronneberger et al. 2015 (arXiv:1505.04597): every level of the way up is concatenated to its level down."""

    def __init__(self, widths: Sequence[int] = (16, 24, 32), *, transposed: bool = True) -> None:
        super().__init__()
        pairs = list(zip((3, *widths[:-1]), widths, strict=True))
        self.down = nn.ModuleList(nn.Sequential(conv(a, b), conv(b, b)) for a, b in pairs)
        ups = [(b, a) for a, b in itertools.pairwise(widths)][::-1]
        up = [nn.ConvTranspose2d(b, a, 2, 2) if transposed else nn.Conv2d(b, a, 1) for b, a in ups]
        self.up = nn.ModuleList(up)
        self.join = nn.ModuleList(conv(2 * a, a) for _, a in ups)
        self.head = nn.Conv2d(widths[0], 2, 1)
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = x if self.transposed else functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class TimedBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with the embedding of a time added between; a skip around both."""

    def __init__(self, units_in: int, units: int, embedding: int, groups: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(groups, units_in), nn.SiLU(), nn.Conv2d(units_in, units, 3, padding=1))
        self.time = nn.Linear(embedding, units)
        self.second = nn.Sequential(nn.GroupNorm(groups, units), nn.SiLU(), nn.Conv2d(units, units, 3, padding=1))
        self.skip = nn.Conv2d(units_in, units, 1) if units_in != units else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.first(x) + self.time(functional.silu(embedding))[:, :, None, None]
        return self.second(y) + self.skip(x)


class Diffusion(nn.Module):
    """The residual part of a denoising network (Ho et al. 2020, arXiv:2006.11239): image and time in, noise out."""

    def __init__(self, width: int = 16, embedding: int = 32) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(16, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = TimedBlock(width, width, embedding)
        self.shrink = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.middle = TimedBlock(2 * width, 2 * width, embedding)
        self.grow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up = TimedBlock(2 * width, width, embedding)
        self.head = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.exp(torch.arange(8, device=x.device) * -0.5)
        embedding = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        kept = self.down(self.stem(x), embedding)
        y = self.middle(self.shrink(kept), embedding)
        y = self.grow(functional.interpolate(y, scale_factor=2.0, mode="nearest"))
        return self.head(self.up(torch.cat([y, kept], 1), embedding))


class Autoencoder(nn.Module):
    """Strided convolutions to a code of 16 numbers, and transposed ones back."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.narrow = nn.Linear(32 * 8 * 8, 16)
        self.decode = nn.Linear(16, 32 * 8 * 8)
        self.grow = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(32, 24, 3, 2, 1, output_padding=1, groups=groups),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.ConvTranspose2d(24, 3, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.grow(self.decode(self.narrow(self.encode(x))).reshape(-1, 32, 8, 8))


class GroupedUpsampler(nn.Module):
    """Transposed convolutions in groups and one per channel, as light decoders use them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 16),
            nn.ConvTranspose2d(16, 24, 4, 2, 1, groups=4),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            conv(24, 16, 1),
            nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16),
            conv(16, 3, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


# --- detectors --------------------------------------------------------------------------------------------------


class CrossStage(nn.Module):
    """Half of the channels pass through bottlenecks whose every stage is kept; all are concatenated (Wang et al. 2019,
    arXiv:1911.11929, in the form of YOLO's later versions)."""

    def __init__(self, units_in: int, units: int, depth: int = 2, *, by_chunk: bool = True) -> None:
        super().__init__()
        self.half, self.by_chunk = units // 2, by_chunk
        self.first = conv(units_in, 2 * self.half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(self.half, self.half), conv(self.half, self.half)) for _ in range(depth)
        )
        self.last = conv((2 + depth) * self.half, units, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        parts = list(y.chunk(2, 1)) if self.by_chunk else list(y.split((self.half, self.half), 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class PooledPyramid(nn.Module):
    """Three max pools in a row, each kept: spatial pyramid pooling as YOLOv5 made it fast."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.first, self.last = conv(units, units // 2, 1), conv(2 * units, units, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """Backbone, pyramid up and down, and a head for each level that gives boxes and classes in one tensor."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.stem = nn.Sequential(conv(3, a, 3, 2), conv(a, a, 3, 2), CrossStage(a, a))
        self.second = nn.Sequential(conv(a, b, 3, 2), CrossStage(b, b, by_chunk=False))
        self.third = nn.Sequential(conv(b, c, 3, 2), CrossStage(c, c), PooledPyramid(c))
        self.up_second, self.up_first = CrossStage(b + c, b, 1), CrossStage(a + b, a, 1)
        self.down_first, self.down_second = conv(a, a, 3, 2), conv(b, b, 3, 2)
        self.join_second, self.join_third = CrossStage(a + b, b, 1), CrossStage(b + c, c, 1, by_chunk=False)
        self.boxes = nn.ModuleList(nn.Sequential(conv(units, 16), nn.Conv2d(16, 8, 1)) for units in (a, b, c))
        self.classes = nn.ModuleList(nn.Sequential(conv(units, 16), nn.Conv2d(16, 5, 1)) for units in (a, b, c))

    def forward(self, x: Tensor) -> Tensor:
        one = self.stem(x)
        two = self.second(one)
        three = self.third(two)
        two = self.up_second(torch.cat([functional.interpolate(three, scale_factor=2.0), two], 1))
        one = self.up_first(torch.cat([functional.interpolate(two, scale_factor=2.0), one], 1))
        two = self.join_second(torch.cat([self.down_first(one), two], 1))
        three = self.join_third(torch.cat([self.down_second(two), three], 1))
        levels = zip(self.boxes, self.classes, (one, two, three), strict=True)
        return torch.cat([torch.cat([box(y), kind(y)], 1).flatten(2) for box, kind, y in levels], 2)


class SharedHead(nn.Module):
    """A feature pyramid (Lin et al. 2016, arXiv:1612.03144) whose levels one head of shared convolutions reads."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (16, 32, 48)
        self.stages = nn.ModuleList(conv(a, b, 3, 2) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        self.lateral = nn.ModuleList(nn.Conv2d(units, width, 1) for units in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.tower = nn.Sequential(
            nn.Conv2d(width, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        )
        self.classes, self.boxes = nn.Conv2d(32, 6, 3, padding=1), nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for i in (1, 0):
            levels[i] = levels[i] + functional.interpolate(levels[i + 1], scale_factor=2.0)
        towers = [self.tower(smooth(y)) for smooth, y in zip(self.smooth, levels, strict=True)]
        return (
            torch.cat([self.classes(y).flatten(2).transpose(1, 2) for y in towers], 1),
            torch.cat([self.boxes(y).flatten(2).transpose(1, 2) for y in towers], 1),
        )


# --- pixels into channels ---------------------------------------------------------------------------------------


class SuperResolution(nn.Module):
    """Sub-pixel convolution (Shi et al. 2016, arXiv:1609.05158): four channels become a square of pixels, twice."""

    def __init__(self, *, unshuffle: bool = False) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.first = nn.Conv2d(12 if unshuffle else 3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)) for _ in range(2)
        )
        self.grow = nn.Conv2d(16, 64, 3, padding=1)
        self.shrink = nn.Conv2d(64, 24, 3, padding=1)
        self.last = nn.Conv2d(24 if unshuffle else 16, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(functional.pixel_unshuffle(x, 2) if self.unshuffle else x)
        for block in self.blocks:
            y = y + block(y)
        y = functional.relu(functional.pixel_shuffle(self.grow(y), 2))
        if self.unshuffle:
            y = functional.relu(self.shrink(functional.pixel_unshuffle(y, 2)))
        return functional.pixel_shuffle(self.last(y), 2)


# --- channel shuffles -------------------------------------------------------------------------------------------


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels dealt out anew, so that each group next sees some of every group before."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """A unit of ShuffleNetV2: one half passes, the other is convolved; with stride 2 both are, on all channels."""

    def __init__(self, units_in: int, units: int, stride: int) -> None:
        super().__init__()
        half, self.stride = units // 2, stride
        source = units_in if stride == 2 else half
        self.main = nn.Sequential(
            conv(source, half, 1), conv(half, half, 3, stride, half, act=False), conv(half, half, 1)
        )
        if stride == 2:
            self.side = nn.Sequential(conv(units_in, units_in, 3, 2, units_in, act=False), conv(units_in, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return shuffled(torch.cat([self.side(x), self.main(x)], 1), 2)
        kept, changed = x.chunk(2, 1)
        return shuffled(torch.cat([kept, self.main(changed)], 1), 2)


class ShuffleNetV2(nn.Module):
    """Ma et al. 2018 (arXiv:1807.11164), three stages."""

    def __init__(self, widths: Sequence[int] = (16, 32, 48)) -> None:
        super().__init__()
        stages = [conv(3, widths[0], 3, 2)]
        for a, b in itertools.pairwise(widths):
            stages += [ShuffleUnit(a, b, 2), ShuffleUnit(b, b, 1), ShuffleUnit(b, b, 1)]
        self.body = nn.Sequential(*stages, conv(widths[-1], 64, 1), classifier(64))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class GroupedShuffleUnit(nn.Module):
    """A unit of ShuffleNet: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added, or concatenated at stride 2."""

    def __init__(self, units_in: int, units: int, groups: int, stride: int) -> None:
        super().__init__()
        inner, self.groups, self.stride = units // 2, groups, stride
        out = units - units_in if stride == 2 else units
        self.squeeze = conv(units_in, inner, 1, groups=groups)
        self.space = conv(inner, inner, 3, stride, inner, act=False)
        self.expand = conv(inner, out, 1, groups=groups, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.space(shuffled(self.squeeze(x), self.groups)))
        if self.stride == 2:
            return functional.relu(torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], 1))
        return functional.relu(x + y)


class ShuffleNetV1(nn.Module):
    """Zhang et al. 2017 (arXiv:1707.01083), two stages.

    With 2 groups every pair of groups before and after a shuffle shares several channels; with 4 only one or two.
    """

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 16, 3, 2),
            GroupedShuffleUnit(16, 32, groups, 2),
            GroupedShuffleUnit(32, 32, groups, 1),
            GroupedShuffleUnit(32, 64, groups, 2),
            GroupedShuffleUnit(64, 64, groups, 1),
            classifier(64),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


# --- attention over channels ------------------------------------------------------------------------------------


class SqueezeExcite(nn.Module):
    """Hu et al. 2017 (arXiv:1709.01507): channels scaled by a small network of their means."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(units, units // 4), nn.ReLU(), nn.Linear(units // 4, units), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class BlockAttention(nn.Module):
    """Woo et al. 2018 (arXiv:1807.06521): a gate over channels from their mean and maximum, then one over places."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(units, units // 4, 1), nn.ReLU(), nn.Conv2d(units // 4, units, 1))
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        means, peaks = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * (self.shared(means) + self.shared(peaks)).sigmoid()
        return x * self.place(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class EfficientAttention(nn.Module):
    """Wang et al. 2019 (arXiv:1910.03151): a convolution along the channels, which so keep their order."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.along(x.mean((2, 3))[:, None]).sigmoid()
        return x * gate.transpose(1, 2)[..., None]


class AttentiveNet(nn.Module):
    """Two residual blocks, each with one kind of attention at its end."""

    def __init__(self, attention: type[nn.Module], width: int = 24) -> None:
        super().__init__()
        self.stem = conv(3, width, 3, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(width, 32), conv(32, width, act=False), attention(width)) for _ in range(2)
        )
        self.head = classifier(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.head(x)


# --- perceptrons ------------------------------------------------------------------------------------------------


class NormedPerceptron(nn.Module):
    """A residual stream with a norm before every pair of linear layers."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.norms = nn.ModuleList(norm(width) for _ in range(3))
        self.pairs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)) for _ in range(2)
        )
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, pair in zip(self.norms, self.pairs, strict=False):
            x = x + pair(norm(x))
        return self.last(self.norms[-1](x))


class WrittenOutNorm(nn.Module):
    """Zhang and Sennrich 2019 (arXiv:1910.07467): RMSNorm as many language models write it, operator by operator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Mixer(nn.Module):
    """Tolstikhin et al. 2021 (arXiv:2105.01601): linear layers over the patches, then over the channels."""

    def __init__(self, patches: int = 16, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 8, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.over_patches = nn.ModuleList(
            nn.Sequential(nn.Linear(patches, 24), nn.GELU(), nn.Linear(24, patches)) for _ in range(depth)
        )
        self.over_channels = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)) for _ in range(depth)
        )
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        for i, (patches, channels) in enumerate(zip(self.over_patches, self.over_channels, strict=True)):
            x = x + patches(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * i + 1](x))
        return self.last(self.norms[-1](x).mean(1))


# --- the list ---------------------------------------------------------------------------------------------------

Made = tuple[nn.Module, tuple[Tensor, ...]]


def on_image(make: Callable[[], nn.Module], side: int = 32) -> Callable[[], Made]:
    return lambda: (make(), (torch.randn(1, 3, side, side),))


def on_vector(make: Callable[[], nn.Module]) -> Callable[[], Made]:
    return lambda: (make(), (torch.randn(3, 20),))


NETWORKS: dict[str, Callable[[], Made]] = {
    "own_unet": on_image(UNet),
    "own_unet_bilinear": on_image(lambda: UNet(transposed=False)),
    "own_diffusion": lambda: (Diffusion(), (torch.randn(1, 3, 16, 16), torch.rand(1))),
    "own_autoencoder": on_image(Autoencoder),
    "own_autoencoder_grouped": on_image(lambda: Autoencoder(groups=4)),
    "own_grouped_upsampler": on_image(GroupedUpsampler, 16),
    "own_detector": on_image(Detector, 64),
    "own_shared_head": on_image(SharedHead),
    "own_super_resolution": on_image(SuperResolution, 16),
    "own_super_resolution_unshuffled": on_image(lambda: SuperResolution(unshuffle=True), 16),
    "own_shufflenet_v2": on_image(ShuffleNetV2),
    "own_shufflenet_v1": on_image(ShuffleNetV1),
    "own_shufflenet_v1_four_groups": on_image(lambda: ShuffleNetV1(groups=4)),
    "own_se_net": on_image(lambda: AttentiveNet(SqueezeExcite)),
    "own_cbam_net": on_image(lambda: AttentiveNet(BlockAttention)),
    "own_eca_net": on_image(lambda: AttentiveNet(EfficientAttention)),
    "own_mlp_layernorm": on_vector(lambda: NormedPerceptron(nn.LayerNorm)),
    "own_mlp_rmsnorm": on_vector(lambda: NormedPerceptron(nn.RMSNorm)),
    "own_mlp_rmsnorm_written_out": on_vector(lambda: NormedPerceptron(WrittenOutNorm)),
    "own_mixer": on_image(Mixer),
}
