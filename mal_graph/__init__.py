"""Weight-space merging of exported neural networks: two ONNX files of any width and depth in, one ONNX file out.

    base, donor = mal_graph.load("base.onnx"), mal_graph.load("donor.onnx")
    result = mal_graph.assemble(base, donor, lam=0.3)
    mal_graph.save(result.graph, "merged.onnx")

Importing this package loads no framework: adapters and runners are found through entry points when they are needed.
"""

from mal_graph.errors import MalGraphError
from mal_graph.evaluation import evaluate
from mal_graph.matching import match_layers
from mal_graph.registry import version
from mal_graph.symmetry import axis_groups, verify
from mal_graph.workflows.assembly import align, assemble, load, save, state_dict, to_module, trace
from mal_graph.workflows.sweeping import grid, sweep
from mal_graph.workflows.zoo_search import zoo

__version__ = version()

__all__ = [
    "MalGraphError",
    "align",
    "assemble",
    "axis_groups",
    "evaluate",
    "grid",
    "load",
    "match_layers",
    "verify",
    "save",
    "state_dict",
    "sweep",
    "to_module",
    "trace",
    "zoo",
]
