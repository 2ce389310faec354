from .config import MergeConfig as MergeConfig
from .config import SweepConfig as SweepConfig
from .config import ZooConfig as ZooConfig
from .errors import MalGraphError as MalGraphError
from .evaluation.scores import Scores as Scores
from .evaluation.scores import evaluate as evaluate
from .graph import LayerGraph as LayerGraph
from .matching.layer_matching import Match as Match
from .matching.layer_matching import Pair as Pair
from .matching.layer_matching import match_layers as match_layers
from .matching.unit_assignment import Alignment as Alignment
from .merging.blending import Plan as Plan
from .network.layers import Layer as Layer
from .protocols import Check as Check
from .symmetry.grouping import axis_groups as axis_groups
from .symmetry.groups import AxisGroup as AxisGroup
from .symmetry.groups import AxisGroups as AxisGroups
from .symmetry.verification import verify as verify
from .workflows.assembly import Assembly as Assembly
from .workflows.assembly import align as align
from .workflows.assembly import assemble as assemble
from .workflows.layer_grid import Grid as Grid
from .workflows.layer_grid import grid as grid
from .workflows.models import load as load
from .workflows.models import save as save
from .workflows.models import state_dict as state_dict
from .workflows.models import to_module as to_module
from .workflows.models import trace as trace
from .workflows.sweeping import Sweep as Sweep
from .workflows.sweeping import sweep as sweep
from .workflows.verdict import Verdict as Verdict
from .workflows.zoo_search import Zoo as Zoo
from .workflows.zoo_search import zoo as zoo

__version__: str
__all__: list[str]
