"""Weight-space merging of exported neural networks: two ONNX files of any width and depth in, one ONNX file out.

    result = mal_graph.assemble("base.onnx", "donor.onnx", lam=0.3)
    print(result.summary())
    result.save("merged.onnx")

Names are loaded when they are first used, so that importing this package loads no framework and no numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mal_graph.registry import version

if TYPE_CHECKING:
    from mal_graph.config import MergeConfig, SweepConfig, ZooConfig
    from mal_graph.errors import MalGraphError
    from mal_graph.evaluation.scores import Scores, evaluate
    from mal_graph.graph import LayerGraph
    from mal_graph.matching.layer_matching import Match, Pair, match_layers
    from mal_graph.matching.unit_assignment import Alignment
    from mal_graph.merging.blending import Plan
    from mal_graph.network.layers import Layer
    from mal_graph.protocols import Check
    from mal_graph.symmetry.groups import AxisGroup, AxisGroups, axis_groups
    from mal_graph.symmetry.verification import verify
    from mal_graph.workflows.assembly import Assembly, align, assemble
    from mal_graph.workflows.layer_grid import Grid, grid
    from mal_graph.workflows.models import load, save, state_dict, to_module, trace
    from mal_graph.workflows.sweeping import Sweep, sweep
    from mal_graph.workflows.verdict import Verdict
    from mal_graph.workflows.zoo_search import Zoo, zoo

__version__ = version()

HOMES = {
    "config": "MergeConfig SweepConfig ZooConfig",
    "errors": "MalGraphError",
    "evaluation.scores": "Scores evaluate",
    "graph": "LayerGraph",
    "matching.layer_matching": "Match Pair match_layers",
    "matching.unit_assignment": "Alignment",
    "merging.blending": "Plan",
    "network.layers": "Layer",
    "protocols": "Check",
    "symmetry.groups": "AxisGroup AxisGroups axis_groups",
    "symmetry.verification": "verify",
    "workflows.assembly": "Assembly align assemble",
    "workflows.layer_grid": "Grid grid",
    "workflows.models": "load save state_dict to_module trace",
    "workflows.sweeping": "Sweep sweep",
    "workflows.verdict": "Verdict",
    "workflows.zoo_search": "Zoo zoo",
}
HOME = {name: f"mal_graph.{home}" for home, names in HOMES.items() for name in names.split()}

__all__ = [  # noqa: PLE0604  # the keys of one table are names
    *sorted(HOME)
]


def __getattr__(name: str) -> Any:
    """A public name, loaded with its module the first time."""
    if name not in HOME:
        raise AttributeError(f"module 'mal_graph' has no attribute {name!r}")
    value = getattr(import_module(HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME})
