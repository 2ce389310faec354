"""Trains the networks of `study_pays.py`: small ones, on small training sets, so that two of them together know more.

    python tools/train_pays_models.py --data DATA --models MODELS --seeds 3

DATA is laid out as for `train_paper_models.py`; the word `digits` in its place means scikit-learn's digits and a tiny
version of everything. A model that is there is not trained again. Files are ONNX, written by `mal_graph.trace` and
`save`. Every figure follows from the specification of a network: its file name is the seed of its weights.
"""

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from train_paper_models import CLASSES, DIGITS, read

import mal_graph
from mal_graph.graph import LayerGraph

MAJOR_SHARE = 0.8  # of a skewed set are of the five classes that it is good at
BATCH = 64
THREADS = 1  # of torch: networks this small lose more by sharing than they gain
TINY_IMAGES, TINY_EPOCHS, TINY_WIDTH = 200, 40, 16  # whatever a spec says, on the digits
SIZES = {28: 1, 14: 2}  # pixels averaged along each axis of a 28 x 28 image
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "hardswish": nn.functional.hardswish,
}

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Labelled = tuple[Images, Labels]


@dataclass(frozen=True)
class Spec:
    """One network, and on what it is trained.

    Attributes:
        data: name of the data set.
        size: rows and columns of an image.
        kind: "mlp", "cnn" (with BatchNorm), "resnet" or "vit".
        widths: of the hidden layers or stages; of a ViT the width once for each block.
        images: how many it is trained on.
        part: from which third of the training images: "a", "b" or "c"; "skew-a" and "skew-b" have most of the first or
            of the last five classes.
        augmented: names of what is done to its images, joined by "+".
        rate: of Adam; it falls to zero along a cosine.
        ancestor: what it is trained on from.
        seed: of the thirds and the weights.
    """

    data: str
    size: int
    kind: str
    widths: tuple[int, ...]
    images: int
    epochs: int
    part: str = "a"
    activation: str = "relu"
    augmented: str = ""
    rate: float = 2e-3
    ancestor: "Spec | None" = None
    seed: int = 0

    @property
    def name(self) -> str:
        """All that it is, which is also what its weights are drawn by."""
        widths = "-".join(map(str, self.widths))
        parts = [self.data, self.size, self.kind, widths, self.activation, self.part, self.images, self.epochs]
        parts += [f"{self.rate:g}", self.augmented or "plain", f"s{self.seed}"]
        own = "_".join(map(str, parts))
        return own if self.ancestor is None else f"{own}_from-{zlib.crc32(self.ancestor.name.encode()):08x}"

    def seeded(self, seed: int) -> "Spec":
        """The same of another seed."""
        ancestor = None if self.ancestor is None else self.ancestor.seeded(seed)
        return replace(self, seed=seed, ancestor=ancestor)

    def tiny(self) -> "Spec":
        """The same on the digits."""
        widths = tuple(max(8, TINY_WIDTH * width // max(self.widths)) for width in self.widths)
        ancestor = None if self.ancestor is None else self.ancestor.tiny()
        return replace(self, size=8, widths=widths, images=TINY_IMAGES, epochs=TINY_EPOCHS, ancestor=ancestor)


# --- data -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Images of one size: to train on, to be shown without labels, and to be scored on."""

    train: Labelled
    unlabelled: Images
    test: Labelled

    def part(self, spec: Spec) -> Labelled:
        """What a network is trained on."""
        images, labels = self.train
        order = np.random.default_rng([spec.seed, 11]).permutation(len(labels))
        own = np.array_split(order, 3)["abc".index(spec.part[-1])]
        if spec.part.startswith("skew-"):
            is_major = (labels[own] < CLASSES // 2) == (spec.part[-1] == "a")
            many = round(MAJOR_SHARE * spec.images)
            own = np.concatenate([own[is_major][:many], own[~is_major][: spec.images - many]])
        chosen = own[: spec.images]
        return images[chosen], labels[chosen]


@cache
def pool(folder: str, data: str, size: int) -> Pool:
    """A data set at one size."""
    whole = read(folder, data)
    parts = [(resized(images, size), labels) for images, labels in (whole.train, whole.validation, whole.test)]
    read.cache_clear()
    return Pool(parts[0], parts[1][0], parts[2])


def resized(images: Images, size: int) -> Images:
    """Images of `size` rows and columns: averaged over neighbours, or the middle."""
    now = images.shape[-1]
    if size in SIZES and now // SIZES[size] == size:
        step = SIZES[size]
        blocks = images.reshape(*images.shape[:2], size, step, size, step)
        return np.ascontiguousarray(blocks.mean(axis=(3, 5)))
    start = (now - size) // 2
    return np.ascontiguousarray(images[:, :, start : start + size, start : start + size])


def shifted(images: Tensor, draw: torch.Generator) -> Tensor:
    """A batch moved by up to an eighth of its size, zeros coming in."""
    most = max(1, images.shape[-1] // 8)
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=draw).tolist()
    padded = nn.functional.pad(images, (most, most, most, most))
    return padded[:, :, down : down + images.shape[2], right : right + images.shape[3]]


def flipped(images: Tensor, draw: torch.Generator) -> Tensor:
    """Half of a batch mirrored."""
    is_flipped = torch.rand(len(images), 1, 1, 1, generator=draw) < 0.5
    return torch.where(is_flipped, images.flip(3), images)


def noisy(images: Tensor, draw: torch.Generator) -> Tensor:
    return images + 0.2 * torch.randn(images.shape, generator=draw)


def erased(images: Tensor, draw: torch.Generator) -> Tensor:
    """A square of a third of the size blanked in each image."""
    size = images.shape[-1]
    edge = max(1, size // 3)
    start = torch.randint(0, size - edge + 1, (2, len(images), 1), generator=draw)
    place = torch.arange(size)
    inside = (place >= start) & (place < start + edge)  # (2, samples, size)
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def contrasted(images: Tensor, draw: torch.Generator) -> Tensor:
    """Each image paler or stronger, darker or lighter."""
    factor, offset = torch.rand(2, len(images), 1, 1, 1, generator=draw)
    return (images - 0.5) * (0.5 + factor) + 0.5 + 0.4 * (offset - 0.5)


AUGMENTATIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "shift": shifted,
    "flip": flipped,
    "noise": noisy,
    "erase": erased,
    "contrast": contrasted,
}

# --- networks ---------------------------------------------------------------------------------------------------


class Perceptron(nn.Module):
    def __init__(self, shape: tuple[int, int, int], spec: Spec) -> None:
        super().__init__()
        sizes = (int(np.prod(shape)), *spec.widths)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, spec.widths, strict=False))
        self.head = nn.Linear(spec.widths[-1], CLASSES)
        self.activation = ACTIVATIONS[spec.activation]

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1)
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.head(x)


class Convolutions(nn.Module):
    def __init__(self, shape: tuple[int, int, int], spec: Spec) -> None:
        super().__init__()
        sizes = (shape[0], *spec.widths)
        pairs = list(zip(sizes, spec.widths, strict=False))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.head = nn.Linear(spec.widths[-1], CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.functional.max_pool2d(torch.relu(norm(convolution(x))), 2)
        return self.head(x.mean((2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        is_same = before == width and stride == 1
        self.bypass = nn.Identity() if is_same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.bypass(x))


class Residual(nn.Module):
    """A stem, then one block of two convolutions for each width, the later ones at half the size."""

    def __init__(self, shape: tuple[int, int, int], spec: Spec) -> None:
        super().__init__()
        widths = spec.widths
        self.stem = nn.Conv2d(shape[0], widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        sizes = zip((widths[0], *widths), widths, (1, *[2] * len(widths)), strict=False)
        self.blocks = nn.ModuleList(ResidualBlock(before, width, stride) for before, width, stride in sizes)
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Attention of four heads, and two layers of four times the width, each behind a LayerNorm."""

    HEADS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before[0](x)
        split = [each(y).unflatten(2, (self.HEADS, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)]
        x = x + self.out(nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.narrow(nn.functional.gelu(self.wide(self.before[1](x))))


class Transformer(nn.Module):
    """A ViT of quarters of the image along each axis, whose mean token is classified."""

    def __init__(self, shape: tuple[int, int, int], spec: Spec) -> None:
        super().__init__()
        width, patch = spec.widths[0], shape[1] // 4
        self.patches = nn.Conv2d(shape[0], width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (shape[1] // patch) ** 2, width))
        self.blocks = nn.ModuleList(Attention(width) for _ in spec.widths)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


NETWORKS: Mapping[str, Callable[[tuple[int, int, int], Spec], nn.Module]] = {
    "mlp": Perceptron,
    "cnn": Convolutions,
    "resnet": Residual,
    "vit": Transformer,
}

# --- training ---------------------------------------------------------------------------------------------------


def trained(spec: Spec, folder: str, models: Path) -> LayerGraph:
    """The network of a spec: read if it is there, else trained and written."""
    path = models / f"{spec.name}.onnx"
    if not path.exists():
        start = time.perf_counter()
        module = fitted(spec, folder)
        models.mkdir(parents=True, exist_ok=True)
        example = torch.from_numpy(pool(folder, spec.data, spec.size).test[0][:2])
        mal_graph.save(mal_graph.trace(module, example), path)
        print(f"trained {path.name} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return mal_graph.load(path)


def fitted(spec: Spec, folder: str) -> nn.Module:
    """A trained module, in evaluation mode."""
    torch.set_num_threads(THREADS)
    source = pool(folder, spec.data, spec.size)
    torch.manual_seed(zlib.crc32(spec.name.encode()))
    images, labels = source.part(spec)
    module = NETWORKS[spec.kind](images.shape[1:], spec)
    if spec.ancestor is not None:
        module.load_state_dict(fitted(spec.ancestor, folder).state_dict())
    draw = torch.Generator().manual_seed(zlib.crc32(spec.name.encode()) + 1)
    given, wanted = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=spec.rate)
    steps = spec.epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    changes = [AUGMENTATIONS[name] for name in spec.augmented.split("+") if name]
    for _ in range(spec.epochs):
        for batch in torch.randperm(len(labels), generator=draw).split(BATCH):
            shown = given[batch]
            for change in changes:
                shown = change(shown, draw)
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(shown), wanted[batch]).backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def main() -> int:
    from pays_pairs import PAIRS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the data sets, or `digits`")
    parser.add_argument("--models", type=Path, required=True, help="where the trained networks are kept")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    options = parser.parse_args()
    for seed in range(options.seeds):
        for pair in PAIRS:
            own = pair.tiny() if options.data == DIGITS else pair
            for spec in (own.base, own.donor):
                trained(spec.seeded(seed), options.data, options.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
