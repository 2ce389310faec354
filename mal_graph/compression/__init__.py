"""A network at a smaller cost: which units stay, and what they take over from those that go."""

from mal_graph.compression.allocation import Candidate, allocate
from mal_graph.compression.cost import Cost
from mal_graph.compression.readers import Reader, UnitSet
from mal_graph.compression.selection import Ranking
from mal_graph.compression.thinning import Compressible, thin

__all__ = ["allocate", "Candidate", "Compressible", "Cost", "Ranking", "Reader", "thin", "UnitSet"]
