"""A ladder with verified groups and assigned units."""

import builders
import pytest

from mal_graph.ladder import ladder_of
from mal_graph.matching import assign_units, correspond, match_layers
from mal_graph.symmetry import axis_groups, verify


@pytest.fixture(scope="module")
def aligned():
    """A model and a permuted copy of it, aligned."""
    base = builders.mlp((8, 24, 24, 10), seed=1)
    groups = verify(base, axis_groups(base))
    donor, _ = builders.permuted_copy(base, groups, seed=4)
    theirs = verify(donor, axis_groups(donor))
    match = match_layers(base, donor)
    networks = [builders.Network(graph, own) for graph, own in ((base, groups), (donor, theirs))]
    alignment = assign_units(correspond(*networks, match))
    return ladder_of(base, donor, match, groups, theirs, alignment)
