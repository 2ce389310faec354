"""Torch modules as graphs, through each front end."""

import contextlib
import io
import warnings

import onnx
import torch
from builders import load

import mal_graph
from mal_graph.graph import LayerGraph


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
