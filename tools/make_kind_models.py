"""Exports the kinds of networks of the planted laws - attention, recurrence, experts, gates - as ONNX files.

    python tools/make_kind_models.py kind_models
    python tools/study_groups.py --models kind_models -o tools/results/study_kinds.md

Every file is named <kind>.<front end>.onnx; one that exists is not made again. Needs torch and onnxscript.
"""

import argparse
import re
import sys
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


def kinds() -> Iterator[tuple[str, torch.nn.Module, torch.Tensor]]:
    """Names, networks and inputs."""
    for kind in planted_kinds.KINDS:
        yield kind.name, planted_kinds.build(kind), planted_kinds.example()
    for made in attending_kinds.FREE:
        yield made.__name__, attending_kinds.build(made), attending_kinds.example(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, model, example in kinds():
        for front_end in FRONT_ENDS:
            path = folder / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.{front_end.replace(' ', '_')}.onnx"
            if not path.exists():
                ir.save(edited_model(exported(model, example, front_end)), path)
                print(path)


if __name__ == "__main__":
    main()
