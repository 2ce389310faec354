"""Two torch modules of different width and depth: trained, traced, matched, merged, given back, trained on, exported.

    python merge_modules.py [FOLDER]

Each is trained on a skewed half of scikit-learn's digits. What is written goes to FOLDER, by default to `examples/out`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import mal_graph

OUT = Path(__file__).parents[1] / "out"  # ignored by git
EPOCHS = 30
LAMBDA = 0.3


class Digits(nn.Module):
    """A perceptron with hidden layers of the given widths."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        sizes = (64, *widths)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, image: Tensor) -> Tensor:
        for layer in self.hidden:
            image = torch.relu(layer(image))
        return self.head(image)


def base() -> nn.Module:
    """What `mal-graph ... merge_modules:base` builds."""
    torch.manual_seed(0)
    return Digits(96, 64)


def donor() -> nn.Module:
    torch.manual_seed(1)
    return Digits(64, 48, 32)


def halves() -> tuple[list[tuple[Tensor, Tensor]], dict[str, np.ndarray]]:
    """Two halves of the training images, one with mostly 0 to 4, one with mostly 5 to 9; and 500 images to test on."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int64)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    test, train = order[:500], order[500:]
    is_first = rng.random(len(train)) < np.where(labels[train] < 5, 0.85, 0.15)
    parts = [
        (torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in (train[is_first], train[~is_first])
    ]
    return parts, {"image": images[test], "labels": labels[test]}


def trained(module: nn.Module, data: tuple[Tensor, Tensor], epochs: int = EPOCHS) -> nn.Module:
    images, labels = data
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimiser.step()
    return module.eval()


def accuracy(module: nn.Module, data: dict[str, np.ndarray]) -> float:
    with torch.no_grad():
        classes = module(torch.from_numpy(data["image"])).argmax(1).numpy()
    return float((classes == data["labels"]).mean())


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # more cost time on networks this small
    (first, second), test = halves()
    mine, theirs = trained(base(), first), trained(donor(), second)
    save_file(mine.state_dict(), folder / "base.safetensors")
    save_file(theirs.state_dict(), folder / "donor.safetensors")
    np.savez(folder / "data.npz", **test)

    example = torch.zeros(2, 64)
    graph, other = mal_graph.trace(mine, example), mal_graph.trace(theirs, example)
    match = mal_graph.match_layers(graph, other)
    for pair in match.pairs:
        print(f"{pair.base.name:18} corresponds to {pair.donor.name:18} {pair.score:.2f}")

    result = mal_graph.assemble(graph, other, lam=LAMBDA, data=test)
    print(f"\nat lambda {LAMBDA}, on {len(test['labels'])} images")
    for score in result.scores:
        print(f"{score.arm:20} loss {score.loss:.3f}, accuracy {score.metric:.3f}")

    merged = mal_graph.to_module(result.graph)  # a torch.fx.GraphModule
    again = base()
    again.load_state_dict(mal_graph.state_dict(result.graph))  # or the class it was
    print("\nafter one more epoch on the base's half")
    for name, module in (("base", mine), ("merged", merged), ("merged, as its class", again)):
        print(f"{name:20} accuracy {accuracy(trained(module, first, epochs=1), test):.3f}")

    mal_graph.save(mal_graph.trace(merged, example), folder / "merged.onnx")
    print(f"wrote {folder / 'merged.onnx'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
