"""Trains networks of images for `study_meaning.py`: for each task several, apart from each other.

    python tools/train_meaning_models.py --data DATA --out FOLDER

DATA is laid out as for `train_paper_models.py`. FOLDER gets a folder for each task, `fashion` and `cifar10`, with the
networks and `data.npz`: 500 test images and their labels. Every network is trained on 8,000 images of its own.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from train_paper_models import CLASSES, read

import mal_graph

IMAGES, BATCH, RATE, TESTED = 8000, 64, 2e-3, 500
EPOCHS = {"fashion-mnist": 4, "cifar10": 8}


def perceptron(inputs: int, widths: Sequence[int]) -> nn.Module:
    sizes = (inputs, *widths)
    hidden = [part for a, b in zip(sizes, widths, strict=False) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], CLASSES))


def convolutions(channels: int, widths: Sequence[int], *, has_norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in zip((channels, *widths), widths, strict=False):
        norm = [nn.BatchNorm2d(b)] if has_norm else []
        layers += [nn.Conv2d(a, b, 3, padding=1), *norm, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))


# For each data set its networks, by name.
NETWORKS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "fashion-mnist": {
        "mlp_128": lambda: perceptron(784, (128,)),
        "mlp_128-64": lambda: perceptron(784, (128, 64)),
        "cnn_8-16-32": lambda: convolutions(1, (8, 16, 32), has_norm=True),
        "cnn_16-24": lambda: convolutions(1, (16, 24), has_norm=True),
    },
    "cifar10": {
        "cnn_16-32-64": lambda: convolutions(3, (16, 32, 64), has_norm=True),
        "cnn_24-48-64": lambda: convolutions(3, (24, 48, 64), has_norm=True),
        "plain_16-32-64": lambda: convolutions(3, (16, 32, 64), has_norm=False),
        "mlp_128": lambda: perceptron(3072, (128,)),
    },
}


def trained(build: Callable[[], nn.Module], images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """A network trained with Adam, along one cycle of rates."""
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * RATE, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, networks in NETWORKS.items():
        data, folder = read(options.data, name), options.out / name.removesuffix("-mnist")
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = map(torch.from_numpy, data.train)
        tested = picked(data.test)
        for seed, (called, build) in enumerate(networks.items()):
            torch.manual_seed(seed)
            own = torch.randperm(len(labels))[:IMAGES]
            model = trained(build, images[own], labels[own], EPOCHS[name])
            with torch.no_grad():
                right = float((model(torch.from_numpy(tested[0])).argmax(dim=1).numpy() == tested[1]).mean())
            mal_graph.save(mal_graph.trace(model, images[:2]), folder / f"{called}.onnx", overwrite=True)
            print(f"{name} {called}: accuracy {right:.3f} on {TESTED} test images", flush=True)
        np.savez_compressed(folder / "data.npz", image=tested[0], labels=tested[1])
        read.cache_clear()


def picked(part: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Images drawn at random: those of folders lie class by class."""
    own = np.random.default_rng(0).permutation(len(part[1]))[:TESTED]
    return [values[own] for values in part]


if __name__ == "__main__":
    main()
