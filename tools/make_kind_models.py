"""Exports the kinds of networks of the planted laws - attention, recurrence, experts, gates, filters, graphs - as ONNX
files, and writes those with weights in bodies and with lists, which are made by hand.

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
from itertools import chain
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import attending_kinds
import body_nets
import planted_kinds
import published_kinds
from exporting import exported

from mal_graph_adapters.onnx_format.edit import edited_model

FRONT_ENDS = ("torchscript", "dynamo", "opset 23")
NOT_EXPORTED = {("Folded", "torchscript")}  # in the opset that is used here
OPTIMISERS = {  # by name the model type, and how much onnxruntime's own passes do first
    "ort": ("bert", 0),
    "ort extended": ("bert", 2),
    "ort t5": ("t5", 0),
    "ort sam": ("sam2", 0),
    "ort mmdit": ("mmdit", 0),
}


Made = tuple[str, torch.nn.Module, torch.Tensor]


def planted() -> Iterator[Made]:
    for kind in planted_kinds.KINDS:
        yield kind.name, planted_kinds.build(kind), planted_kinds.example()


def attending() -> Iterator[Made]:
    for kind in attending_kinds.FREE:
        yield kind.__name__, attending_kinds.build(kind), attending_kinds.example(kind)


def published() -> Iterator[Made]:
    for kind in published_kinds.KINDS:
        yield kind.__name__, published_kinds.build(kind), published_kinds.example(kind)


FAMILIES = {"planted": planted, "attending": attending, "published": published}  # names, networks and inputs
BODIES = "bodies"  # made by hand


def path_of(folder: Path, kind: str, front_end: str) -> Path:
    """The file of a kind."""
    return folder / f"{re.sub('[^a-z0-9]+', '_', kind.lower())}.{front_end.replace(' ', '_')}.onnx"


def write_bodies(folder: Path) -> None:
    """Write the kinds with weights in bodies, and with lists."""
    for kind in body_nets.KINDS:
        path = path_of(folder, kind.name, "by hand")
        if not path.exists():
            onnx.save(kind.make(kind.drawn(0)), path)
            print(path)


def optimise(folder: Path, kind: str) -> Iterator[Path]:
    """Write what the optimiser makes of a kind; gives the new files."""
    from onnxruntime.transformers.optimizer import optimize_model

    source, known = path_of(folder, kind, "torchscript"), []
    if not source.exists():
        return
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
    parser.add_argument(
        "--families", nargs="+", choices=[*FAMILIES, BODIES], default=[*FAMILIES, BODIES], metavar="KIND"
    )
    parser.add_argument("--optimised", action="store_true", help="optimise them by onnxruntime, too")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # of each shape that the optimiser cannot infer
    if BODIES in given.families:
        write_bodies(given.folder)
    for name, model, example in chain.from_iterable(FAMILIES[one]() for one in given.families if one in FAMILIES):
        for front_end in FRONT_ENDS:
            path = path_of(given.folder, name, front_end)
            if not path.exists() and (name, front_end) not in NOT_EXPORTED:
                ir.save(edited_model(exported(model, example, front_end)), path)
                print(path)
        for path in optimise(given.folder, name) if given.optimised else ():
            print(path)


if __name__ == "__main__":
    main()
