"""Draws the pictures of the pages from the example models: docs/pages/pictures.

python tools/draw_pictures.py
"""

import sys
import tempfile
from pathlib import Path

import onnx

from mal_graph import registry
from mal_graph.atomic_write import write_text
from mal_graph.config import MergeConfig
from mal_graph.ladder import (
    Collapse,
    LadderEntry,
    draw_ladder,
    ladder_of_comparison,
    model_entry,
    svg_text,
    take_around,
)
from mal_graph.workflows import compare_models, inspect_groups

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "pages" / "pictures"
EXAMPLES = ROOT / "examples"
NEAR = "/layer2/layer2.0/conv1/Conv"


def ladder(base: Path, donor: Path) -> LadderEntry:
    """Two models, with their axis groups verified."""
    graphs = [registry.as_graph(str(path)) for path in (base, donor)]
    config, runner = MergeConfig(), registry.runner()
    compared = compare_models(*graphs, config, runner, lambda what, done, total: None, is_aligned=True)
    return ladder_of_comparison(compared)


def residual_pair(folder: Path) -> LadderEntry:
    """The two networks that examples/04_look makes."""
    sys.path.insert(0, str(EXAMPLES / "04_look"))
    from make_models import residual_network

    paths = folder / "shallow.onnx", folder / "deep.onnx"
    onnx.save(residual_network((3, 3, 3), (16, 32, 64), 0), paths[0])
    onnx.save(residual_network((4, 6, 3), (16, 32, 96), 1), paths[1])
    return ladder(*paths)


def main() -> int:
    first = EXAMPLES / "01_first_merge"
    with tempfile.TemporaryDirectory() as folder:
        residual = residual_pair(Path(folder))
    graph = registry.as_graph(str(first / "cnn_a.onnx"))
    groups, _ = inspect_groups(graph, MergeConfig(), lambda what, done, total: None)
    pictures = {
        "folded": draw_ladder(residual, Collapse.BLOCKS),
        "near": draw_ladder(take_around(residual, NEAR, 3), Collapse.NONE),
        "pair": draw_ladder(ladder(first / "mlp_a.onnx", first / "mlp_b.onnx")),
        "one": draw_ladder(LadderEntry(base=model_entry(graph, groups))),
    }
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        write_text(TARGET / f"{name}.svg", svg_text(picture) + "\n", overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
