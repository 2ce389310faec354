"""What an alignment holds at once: an estimate that is made before it starts, of the sizes of its tensors alone."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from mal_graph.boxes import Boxed
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.tensor_pairs import Read, StoredValues
from mal_graph.memory_budget import Need
from mal_graph.network import Parameter

TABLES = 4  # float64 tables of a pair at once: its scores, distances, what breaks ties, and what a solver makes of them
ROWS = 2  # of a tensor, float32: cut to what is matched, and as rows of units
NUMBER, SCORE = 4, 8  # bytes of a value, and of a score
LARGE = 256  # units of the shorter side from which on tables that are kept are of float32


def score_type(units: int, others: int) -> DTypeLike:
    """The type of a table that is kept. The rounding of as many scores adds up to a small part of `TOLERANCE` times
    their number; of few it does not."""
    return np.float32 if min(units, others) >= LARGE else np.float64


def kept_bytes(units: int, others: int) -> int:
    """Bytes of a table that is kept."""
    return np.dtype(score_type(units, others)).itemsize * units * others


def alignment_need(correspondence: Correspondence, has_evidence: bool, most_kept: int) -> Need:
    """What assigning units holds.

    Args:
        has_evidence: whether more than weights says which units correspond: a table for every pair, in two scales.
        most_kept: bytes of tables that are kept at most.
    """
    tables = [SCORE * units * others for units, others in correspondence.units]
    bundles = correspondence.nests.bundles.values()
    largest = max((sum(tables[pair] for pair in bundle) for bundle in bundles), default=0)
    sizes = [prod(pair.base.shape) + prod(pair.donor.shape) for pair, _ in correspondence.tensors]
    return Need(
        f"aligning {correspondence.donor.graph.name} with {correspondence.base.graph.name}",
        {
            "tables of scores": TABLES * largest,
            "rows of the largest tensor": ROWS * NUMBER * max(sizes, default=0),
            "values that are copied": copied_bytes(correspondence),
            "scores of activations": 2 * sum(tables) if has_evidence else 0,
        },
        min(most_kept, sum(kept_bytes(*units) for units in correspondence.units)),
    )


def copied_bytes(correspondence: Correspondence) -> int:
    """Bytes of the values of both models that are not read where they lie in a file, or in memory already."""
    sides: Sequence[tuple[Read, Parameter]] = [
        side
        for pair, _ in correspondence.tensors
        for side in ((pair.base_values, pair.base), (pair.donor_values, pair.donor))
    ]
    return sum(NUMBER * prod(parameter.shape) for read, parameter in sides if not is_in_place(read))


def is_in_place(read: Read) -> bool:
    """Whether values are read without a copy."""
    if not isinstance(read, StoredValues):
        return isinstance(read, Boxed) and read.is_mapped
    weight = read.graph.weights[read.parameter.tensor]
    is_made = isinstance(weight.read, Boxed) and not weight.read.is_mapped
    return not is_made and weight.dtype.name in ("float32", "float64") and read.parameter.factor == 1.0


def is_mapped(read: Read) -> bool:
    """Whether stored values are read where they lie in a file, so that to read them again takes no time."""
    if not isinstance(read, StoredValues):
        return False
    source = read.graph.weights[read.parameter.tensor].read
    return is_in_place(read) and isinstance(source, Boxed) and source.is_mapped
