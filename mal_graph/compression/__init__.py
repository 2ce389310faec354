"""A network at a smaller cost: which units stay, and what they take over from those that go; several as one."""

from mal_graph.compression.allocation import Candidate, allocate
from mal_graph.compression.averaging import Averaged, Member, Outputs, find_averaged
from mal_graph.compression.classes import Classes, ClassNames, Scoring, class_names_of
from mal_graph.compression.cost import Cost
from mal_graph.compression.heads import Head, Headed, find_head, refit_heads
from mal_graph.compression.readers import Reader
from mal_graph.compression.selection import Ranking
from mal_graph.compression.synthetic import SLOPES, draw_samples, driven_statistics, find_norms
from mal_graph.compression.thinning import Compressible, thin
from mal_graph.compression.unit_sets import UnitSet
from mal_graph.compression.uniting import Branches, unite

__all__ = [
    "allocate",
    "Averaged",
    "Branches",
    "Candidate",
    "class_names_of",
    "Classes",
    "ClassNames",
    "Compressible",
    "Cost",
    "draw_samples",
    "driven_statistics",
    "find_averaged",
    "find_head",
    "find_norms",
    "Head",
    "Headed",
    "Member",
    "Outputs",
    "Ranking",
    "Reader",
    "refit_heads",
    "Scoring",
    "SLOPES",
    "thin",
    "unite",
    "UnitSet",
]
