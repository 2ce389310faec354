"""Exports the kinds of networks of the planted laws - attention, recurrence, experts, gates - as ONNX files.

    python tools/make_kind_models.py kind_models --optimised
    python tools/study_groups.py --models kind_models -o tools/results/study_kinds.md

Every file is named <kind>.<front end>.onnx; one that exists is not made again. With `--optimised` the optimiser that
onnxruntime has for transformers makes more of what TorchScript gave, in float32, by several of its model types; where
one makes the same operators as another does, it is left out. Needs torch and onnxscript, and for that onnxruntime.
"""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import attending_kinds
import planted_kinds
from exporting import exported

from mal_graph_adapters.onnx_format.edit import edited_model

FRONT_ENDS = ("torchscript", "dynamo", "opset 23")
OPTIMISERS = {  # by name the model type, and how much onnxruntime's own passes do first
    "ort": ("bert", 0),
    "ort extended": ("bert", 2),
    "ort t5": ("t5", 0),
    "ort sam": ("sam2", 0),
    "ort mmdit": ("mmdit", 0),
}


def kinds() -> Iterator[tuple[str, torch.nn.Module, torch.Tensor]]:
    """Names, networks and inputs."""
    for kind in planted_kinds.KINDS:
        yield kind.name, planted_kinds.build(kind), planted_kinds.example()
    for made in attending_kinds.FREE:
        yield made.__name__, attending_kinds.build(made), attending_kinds.example(made)


def path_of(folder: Path, kind: str, front_end: str) -> Path:
    """The file of a kind."""
    return folder / f"{re.sub('[^a-z0-9]+', '_', kind.lower())}.{front_end.replace(' ', '_')}.onnx"


def optimise(folder: Path, kind: str) -> Iterator[Path]:
    """Write what the optimiser makes of a kind; gives the new files."""
    from onnxruntime.transformers.optimizer import optimize_model

    source, known = path_of(folder, kind, "torchscript"), []
    for name, (model_type, level) in OPTIMISERS.items():
        made = optimize_model(str(source), model_type, opt_level=level, use_gpu=False)
        operators = Counter((node.domain, node.op_type) for node in made.model.graph.node)
        path = path_of(folder, kind, name)
        if operators not in known and not path.exists():
            made.save_model_to_file(str(path))
            yield path
        known.append(operators)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--optimised", action="store_true", help="optimise them by onnxruntime, too")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # of each shape that the optimiser cannot infer
    for name, model, example in kinds():
        for front_end in FRONT_ENDS:
            path = path_of(given.folder, name, front_end)
            if not path.exists():
                ir.save(edited_model(exported(model, example, front_end)), path)
                print(path)
        for path in optimise(given.folder, name) if given.optimised else ():
            print(path)


if __name__ == "__main__":
    main()
