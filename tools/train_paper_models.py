"""Trains the networks of `examples/03_paper_experiments` on the CPU, and reads their data.

    python tools/train_paper_models.py --data DATA --models MODELS

DATA holds `mnist/` and `fashion-mnist/` with the IDX files of the original sites (`*-ubyte.gz` or unpacked) and
`cifar10/` with `train/<class>/*.jpg` and `test/<class>/*.jpg` (or .png); the word `digits` in place of a folder means
scikit-learn's 8x8 digits for every data set, cut into smaller networks. A model that is there is not trained again, so
that a run that was stopped goes on where it was. The files are ONNX, written by `mal_graph.trace` and `save`.
"""

import argparse
import gzip
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import mal_graph
from mal_graph.graph import LayerGraph

DIGITS = "digits"
CLASSES = 10
VALIDATION = 0.1  # of the training images, kept apart for choosing lambda
MAJOR_SHARE = 0.85  # of a class's images go to the half that is good at it
BATCH = 128
MOST_EPOCHS = 1000  # whatever a spec says: a trial run sets it low
RATE = 1e-3  # of Adam: with this, perceptrons of two seeds meet after alignment (Ainsworth et al. 2023, section 5)


@dataclass(frozen=True)
class Data:
    """Images, float32 (samples, channels, rows, columns) in [0, 1], and classes, in three disjoint parts."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    validation: tuple[NDArray[np.float32], NDArray[np.int64]]
    test: tuple[NDArray[np.float32], NDArray[np.int64]]

    def half(self, side: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Half of the training images: "a" with most of the first five classes, "b" with most of the others."""
        images, labels = self.train
        draw = np.random.default_rng(0).random(len(labels)) < np.where(
            labels < CLASSES // 2, MAJOR_SHARE, 1 - MAJOR_SHARE
        )
        chosen = draw if side == "a" else ~draw
        return images[chosen], labels[chosen]


class Spec(NamedTuple):
    """One network: on what it is trained, and what it is."""

    data: str
    widths: tuple[int, ...]
    seed: int = 0
    half: str = ""
    epochs: int = 5
    kind: str = "mlp"

    @property
    def file(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{self.data}_{self.kind}_{widths}_{self.half or 'all'}_s{self.seed}_e{self.epochs}.onnx"


# --- data -------------------------------------------------------------------------------------------------------


@cache
def read(folder: str, name: str) -> Data:
    """A data set by name; scikit-learn's digits whatever the name where the folder is `digits`."""
    if folder == DIGITS:
        train, test = digits()
    elif name == "cifar10":
        train, test = pictures(Path(folder) / name / "train"), pictures(Path(folder) / name / "test")
    else:
        train, test = idx(Path(folder) / name, "train"), idx(Path(folder) / name, "t10k")
    order = np.random.default_rng(0).permutation(len(train[1]))
    cut = round(VALIDATION * len(order))
    parts = [(train[0][chosen], train[1][chosen]) for chosen in (order[cut:], order[:cut])]
    return Data(parts[0], parts[1], test)


def digits() -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(labels))
    return tuple((images[part], labels[part].astype(np.int64)) for part in (order[500:], order[:500]))


def idx(folder: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images and labels of one part. Raises SystemExit where a file is missing."""
    images, labels = (idx_values(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return (images[:, None] / 255).astype(np.float32), labels.astype(np.int64)


def idx_values(folder: Path, name: str) -> NDArray[np.uint8]:
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.exists()), None)
    if path is None:
        raise SystemExit(f"there is no {folder / name}, packed as .gz or not: put the IDX files of the data set there")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def pictures(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures in one folder a class, decoded once and kept beside the folder."""
    kept = folder.with_suffix(".npz")
    if not kept.exists():
        from PIL import Image

        classes = sorted(path for path in folder.glob("*") if path.is_dir())
        if not classes:
            raise SystemExit(f"there are no folders of classes in {folder}: unpack the pictures there")
        files = [(path, label) for label, of in enumerate(classes) for path in sorted(of.iterdir())]
        images = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path, _ in files])
        np.savez(kept, images=images, labels=np.array([label for _, label in files]))
    with np.load(kept) as archive:
        return (archive["images"] / np.float32(255)).astype(np.float32), archive["labels"].astype(np.int64)


# --- networks ---------------------------------------------------------------------------------------------------


class Perceptron(nn.Module):
    def __init__(self, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip((size, *widths), widths, strict=False))
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.head(x)


class Convolutions(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (channels, *widths)
        self.hidden = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(sizes, widths, strict=False))
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.head(x.mean((2, 3)))


def trained(spec: Spec, folder: str, models: Path) -> LayerGraph:
    """The network of a spec: read if it is there, else trained and written."""
    path = models / spec.file
    if not path.exists():
        start = time.perf_counter()
        data = read(folder, spec.data)
        module = fitted(spec, *(data.half(spec.half) if spec.half else data.train))
        models.mkdir(parents=True, exist_ok=True)
        mal_graph.save(mal_graph.trace(module, torch.from_numpy(data.test[0][:2])), path)
        print(f"trained {path.name} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return mal_graph.load(path)


def fitted(spec: Spec, images: NDArray[np.float32], labels: NDArray[np.int64]) -> nn.Module:
    torch.manual_seed(spec.seed)
    size = int(np.prod(images.shape[1:]))
    module = Perceptron(size, spec.widths) if spec.kind == "mlp" else Convolutions(images.shape[1], spec.widths)
    given, wanted = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE)
    for _ in range(min(spec.epochs, MOST_EPOCHS)):
        for batch in torch.randperm(len(wanted)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(given[batch]), wanted[batch]).backward()
            optimiser.step()
    return module.eval()


def train(specs: Iterable[Spec], folder: str, models: Path) -> None:
    for spec in specs:
        trained(spec, folder, models)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the data sets, or `digits`")
    parser.add_argument("--models", type=Path, required=True, help="where the trained networks are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "03_paper_experiments"))
    from experiments import EXPERIMENTS

    for experiment in EXPERIMENTS.values():
        train(experiment.specs(options.data == DIGITS), options.data, options.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
