"""Weight-space merging of exported neural networks: two ONNX files of any width and depth in, one ONNX file out.

    base, donor = mal_graph.load("base.onnx"), mal_graph.load("donor.onnx")
    result = mal_graph.assemble(base, donor, lam=0.3)
    mal_graph.save(result.graph, "merged.onnx")

Importing this package loads no framework: adapters and runners are found through entry points when they are needed.
"""

from importlib.metadata import PackageNotFoundError, version

from mal_graph.errors import MalGraphError
from mal_graph.evaluate import evaluate
from mal_graph.groups import axis_groups
from mal_graph.match import match_layers
from mal_graph.pipeline import align, assemble, load, save, state_dict, to_module, trace
from mal_graph.prove import prove
from mal_graph.sweep import grid, sweep

try:
    __version__ = version("mal-graph")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"

__all__ = [
    "MalGraphError",
    "align",
    "assemble",
    "axis_groups",
    "evaluate",
    "grid",
    "load",
    "match_layers",
    "prove",
    "save",
    "state_dict",
    "sweep",
    "to_module",
    "trace",
]
