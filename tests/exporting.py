"""Torch modules as graphs, through each front end."""

import contextlib
import io
import warnings

import onnx
import pytest
import torch
from builders import load

import mal_graph
from mal_graph.graph import LayerGraph

SLOW_FRONT_ENDS = ("trace", "dynamo", "opset 23")


def with_front_ends(kinds, name_of):
    """Every kind with "torchscript" and one other front end, as pytest's parameters; with the rest only where all cases
    of a law are asked for."""
    for number, kind in enumerate(kinds):
        yield pytest.param(kind, "torchscript", id=f"torchscript-{name_of(kind)}")
        for place, front_end in enumerate(SLOW_FRONT_ENDS):
            stands_alone = place == number % len(SLOW_FRONT_ENDS)
            marks = [pytest.mark.slow, *([] if stands_alone else [pytest.mark.whole])]
            yield pytest.param(kind, front_end, id=f"{front_end}-{name_of(kind)}", marks=marks)


def in_one_front_end_each(kinds):
    """Every kind through one of three front ends in turn, as pytest's parameters; through all where all cases of a law
    are asked for."""
    for number, kind in enumerate(kinds):
        for place, front_end in enumerate(("trace", "torchscript", "dynamo")):
            marks = [] if place == number % 2 else [pytest.mark.slow, pytest.mark.whole]
            yield pytest.param(kind, front_end, id=f"{front_end}-{kind.__name__}", marks=marks)


def exported(model: torch.nn.Module, example: torch.Tensor, front_end: str) -> LayerGraph:
    """A graph of a module: by "torchscript", "trace", "dynamo" or "opset 23", which keeps attention whole."""
    if front_end == "trace":
        return mal_graph.trace(model, (example,))
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        if front_end == "torchscript":
            written = io.BytesIO()
            torch.onnx.export(model, (example,), written, dynamo=False, opset_version=17)
            return load(onnx.load_from_string(written.getvalue()))
        opset = 23 if front_end == "opset 23" else None
        return load(torch.onnx.export(model, (example,), dynamo=True, opset_version=opset).model_proto)
