"""Trains small classifiers of scikit-learn's digits and writes them as ONNX files with held-out data.

    python tools/make_digits_models.py --out examples/01_first_merge

Every model sees a skewed half of the training images: half `a` holds 85 % of the digits 0 to 4 and 15 % of the digits
5 to 9, half `b` the rest. So each is good at what the other is weak in, and a merge has something to gain. `data.npz`
holds labelled test images, `calib.npz` the images of another part, without labels. Needs torch
and scikit-learn; on one machine, running it again gives the same bytes (one thread, fixed seeds).

Chosen: files written with `onnx.helper`, one node per layer. Refused: `torch.onnx.export`, whose files change with its
version and which folds each BatchNormalization away unless it is told not to optimise at all.
"""

import argparse
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

import mal_graph

CLASSES = 10
SIDE = 8
TEST_IMAGES = 500
VALIDATION_IMAGES = 200
MLP_EPOCHS = 30  # 60 leave an ensemble of two halves a fifth of the gain, on the validation images
CNN_EPOCHS = 40
VIT_EPOCHS = 40
ANCESTOR_EPOCHS, TUNING_EPOCHS = 4, 12
MAJOR_SHARE = 0.85  # of a digit's images go to the half that is good at it
OPSET, IR_VERSION = 20, 10


@dataclass(frozen=True)
class Images:
    """Images, float32 (samples, 1, 8, 8) in [0, 1], and their digits, int64 (samples,)."""

    image: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> "Images":
        return Images(self.image[index], self.labels[index])


@dataclass(frozen=True)
class Split:
    """Four disjoint parts of the data: two skewed training halves, and images no model is trained on."""

    train_a: Images
    train_b: Images
    validation: Images
    test: Images


def load() -> Images:
    """All 1,797 digits."""
    pixels, labels = load_digits(return_X_y=True)
    return Images((pixels / 16).astype(np.float32).reshape(-1, 1, SIDE, SIDE), labels.astype(np.int64))


def split(seed: int = 0) -> Split:
    """The digits in four parts; test and validation are drawn evenly, the training halves are skewed."""
    digits = load()
    rng = np.random.default_rng(seed)
    test, validation, train = np.split(
        rng.permutation(len(digits.labels)), [TEST_IMAGES, TEST_IMAGES + VALIDATION_IMAGES]
    )
    halves: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for digit in range(CLASSES):
        own = train[digits.labels[train] == digit]
        cut = round(MAJOR_SHARE * len(own))
        major, minor = (0, 1) if digit < CLASSES // 2 else (1, 0)
        halves[major].append(own[:cut])
        halves[minor].append(own[cut:])
    train_a, train_b = (digits.take(rng.permutation(np.concatenate(half))) for half in halves)
    return Split(train_a, train_b, digits.take(validation), digits.take(test))


# --- models ---


class Residual(nn.Module):
    """relu(x + BN(Conv(relu(BN(Conv(x)))))), as wide as its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inner)))


class Block(nn.Module):
    """Attention and two layers of twice the width, each behind a LayerNorm and added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        split = [each(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)]
        x = x + self.out(nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.narrow(nn.functional.gelu(self.wide(self.norms[1](x))))


class VisionTransformer(nn.Module):
    """Patches of 2 x 2 pixels, blocks, and the mean token classified."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIDE // 2) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def mlp(hidden: Sequence[int] = (64,)) -> nn.Sequential:
    """Flatten, then a Linear and a ReLU for every width in `hidden`, then a Linear to the logits."""
    widths = (SIDE * SIDE, *hidden)
    body = [layer for i, o in zip(widths, hidden, strict=False) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *body, nn.Linear(widths[-1], CLASSES))


def cnn(channels: Sequence[int] = (8, 16), blocks: Sequence[int] = (0, 1)) -> nn.Sequential:
    """For every width in `channels` a Conv-BN-ReLU, its number of residual blocks, and a 2x2 max pool between
    widths; then a global average pool and a Linear to the logits."""
    layers: list[nn.Module] = []
    for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
        layers += [nn.MaxPool2d(2)] if i else []
        layers += [nn.Conv2d(channels[i - 1] if i else 1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *(Residual(width) for _ in range(count))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))


def train_mlp(
    hidden: Sequence[int] = (64,), seed: int = 0, data: Images | None = None, epochs: int = MLP_EPOCHS
) -> nn.Module:
    """An MLP trained on `data`, by default half `a`."""
    return train(lambda: mlp(hidden), seed, data or split().train_a, epochs)


def train_cnn(
    channels: Sequence[int] = (8, 16),
    blocks: Sequence[int] = (0, 1),
    seed: int = 0,
    data: Images | None = None,
    epochs: int = CNN_EPOCHS,
) -> nn.Module:
    """A small residual network trained on `data`, by default half `a`."""
    return train(lambda: cnn(channels, blocks), seed, data or split().train_a, epochs)


def train_vit(
    width: int = 32,
    heads: int = 4,
    blocks: int = 2,
    seed: int = 0,
    data: Images | None = None,
    epochs: int = VIT_EPOCHS,
) -> nn.Module:
    """A small transformer trained on `data`, by default half `a`."""
    return train(lambda: VisionTransformer(width, heads, blocks), seed, data or split().train_a, epochs)


def train_ancestor(hidden: Sequence[int], seed: int, parts: Split) -> nn.Module:
    """An MLP trained a little on all training images."""
    both = Images(
        *(
            np.concatenate([getattr(half, name) for half in (parts.train_a, parts.train_b)])
            for name in ("image", "labels")
        )
    )
    return train_mlp(hidden, seed, both, ANCESTOR_EPOCHS)


def tune_mlp(hidden: Sequence[int], seed: int, parts: Split, data: Images) -> nn.Module:
    """The ancestor of this seed, trained on `data`."""
    ancestor = train_ancestor(hidden, seed, parts)
    return train(lambda: ancestor.train(), seed, data, TUNING_EPOCHS)


def train(build: Callable[[], nn.Module], seed: int, data: Images, epochs: int, batch: int = 32) -> nn.Module:
    """A model built and trained with Adam from `seed`, the same on every run of one machine; in evaluation mode."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    image, labels = torch.from_numpy(data.image), torch.from_numpy(data.labels)
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(batch):
            if len(index) == 1:
                continue  # BatchNorm has no variance of one sample
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image[index]), labels[index]).backward()
            optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, data: Images) -> float:
    with torch.no_grad():
        hits = model(torch.from_numpy(data.image)).argmax(dim=1).numpy() == data.labels
    return float(hits.mean())


# --- export ---


class Writer:
    """Collects nodes and weights while a module is walked; `layer1.weight` is torch's `1.weight`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node, and give the name of its output."""
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        self.weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def walk(self, module: nn.Module, x: str, name: str) -> str:
        """Write `module` applied to tensor `x`, and give the name of the result."""
        match module:
            case nn.Sequential():
                for key, child in module.named_children():
                    x = self.walk(child, x, f"{name}.{key}" if name else f"layer{key}")
                return x
            case Residual():
                inner = self.walk(module.norm1, self.walk(module.conv1, x, f"{name}.conv1"), f"{name}.norm1")
                inner = self.walk(module.conv2, self.node("Relu", [inner], f"{name}.relu1"), f"{name}.conv2")
                inner = self.walk(module.norm2, inner, f"{name}.norm2")
                return self.node("Relu", [self.node("Add", [x, inner], f"{name}.add")], f"{name}.relu2")
            case nn.Linear():
                weights = [self.weight(f"{name}.weight", module.weight), self.weight(f"{name}.bias", module.bias)]
                return self.node("Gemm", [x, *weights], name, transB=1)
            case nn.Conv2d():
                sides = {"kernel_shape": list(module.kernel_size), "pads": [*module.padding, *module.padding]}
                return self.node("Conv", [x, self.weight(f"{name}.weight", module.weight)], name, **sides)
            case nn.BatchNorm2d():
                state = module.state_dict()
                weights = [
                    self.weight(f"{name}.{k}", state[k]) for k in ("weight", "bias", "running_mean", "running_var")
                ]
                return self.node("BatchNormalization", [x, *weights], name, epsilon=module.eps)
            case nn.MaxPool2d():
                return self.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])
            case nn.ReLU():
                return self.node("Relu", [x], name)
            case nn.AdaptiveAvgPool2d():
                return self.node("GlobalAveragePool", [x], name)
            case nn.Flatten():
                return self.node("Flatten", [x], name)
        raise NotImplementedError(f"{name} is a {type(module).__name__}: add a case that writes it")


def export(module: nn.Module, path: Path) -> None:
    """Write a model made here as ONNX: input `image` (N, 1, 8, 8), output `logits` (N, 10), N free.

    A transformer is written as mal_graph traces it, for its layers do not stand in one line.
    """
    if isinstance(module, VisionTransformer):
        mal_graph.save(mal_graph.trace(module, torch.zeros(2, 1, SIDE, SIDE)), path)
        return
    writer = Writer()
    writer.walk(module, "image", "")
    writer.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        writer.nodes,
        path.stem,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        writer.weights,
    )
    model = helper.make_model(
        graph,
        producer_name="make_digits_models",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as .npz with a fixed time stamp, so that the same data give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


# The example's models: file name -> how to train it on its half.
MODELS: dict[str, Callable[[Split], nn.Module]] = {
    "mlp_a": lambda parts: train_mlp((64, 48), 1, parts.train_a),
    "mlp_b": lambda parts: train_mlp((96, 64, 32), 2, parts.train_b),
    "twin_a": lambda parts: train_mlp((64, 64), 3, parts.train_a),
    "twin_b": lambda parts: train_mlp((64, 64), 4, parts.train_b),
    "tuned_from": lambda parts: train_ancestor((64, 64), 7, parts),
    "tuned_a": lambda parts: tune_mlp((64, 64), 7, parts, parts.train_a),
    "tuned_b": lambda parts: tune_mlp((64, 64), 7, parts, parts.train_b),
    "cnn_a": lambda parts: train_cnn((16, 32), (1, 1), 5, parts.train_a),
    "cnn_b": lambda parts: train_cnn((24, 40), (1, 2), 6, parts.train_b),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = split(options.seed)
    low = parts.test.take(np.flatnonzero(parts.test.labels < CLASSES // 2))
    high = parts.test.take(np.flatnonzero(parts.test.labels >= CLASSES // 2))
    print(f"{'model':10}{'test':>8}{'0-4':>8}{'5-9':>8}{'bytes':>9}")
    for name, make in MODELS.items():
        model, path = make(parts), options.out / f"{name}.onnx"
        export(model, path)
        shares = "".join(f"{accuracy(model, part):8.3f}" for part in (parts.test, low, high))
        print(f"{name:10}{shares}{path.stat().st_size:9,}")
    save_npz(options.out / "data.npz", {"image": parts.test.image, "labels": parts.test.labels})
    save_npz(options.out / "calib.npz", {"image": parts.validation.image})


if __name__ == "__main__":
    main()
