"""What says which units correspond to each other: their weights, their activations, or both.

By activations, two units are as alike as what they give is correlated over unlabelled samples (Li et al. 2016,
arXiv:1511.07543), behind the activation of every matched layer that makes them. A correlation knows neither the size of
a unit nor its mean, so that scales which ReLU or BatchNormalization leave open do not count.
"""

from collections.abc import Mapping

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.evaluation import Comoments, Place, Stream, calibration_inputs, stream_together
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.objective import Evidence
from mal_graph.network import Layer, Parameter
from mal_graph.operators import row_of, unit_axis
from mal_graph.protocols import Runner

# How much activations count beside weights, each divided by what it can reach at most. Where they are asked for alone,
# weights still decide what they leave open: units that do not vary, groups that no layer makes.
SHARES = {"weights": 0.0, "both": 0.5, "activations": 1 - 1e-6}


def check_match_by(match_by: str, calibrate: Mapping[str, Array] | None) -> None:
    """Raise UsageError unless `match_by` is known and there is something to measure it on."""
    if match_by not in SHARES:
        raise UsageError(f"`match_by` is {match_by!r}: choose one of {', '.join(SHARES)}")
    if SHARES[match_by] and calibrate is None:
        raise UsageError(f"`match_by` is {match_by!r}, but there are no calibration inputs: give some with `calibrate`")


def compare_activations(
    correspondence: Correspondence, arrays: Mapping[str, Array], runner: Runner, share: float
) -> Evidence:
    """How alike the units of every pair of groups are, by their activations.

    Args:
        correspondence: the pairs of groups, and the tensors that their units lie on.
        arrays: unlabelled inputs, on which both networks are run batch by batch.
        share: how much it counts beside the weights, between 0 and 1.

    Raises:
        DataError: the arrays do not fit a model.
        RunError: a model does not run on them.
    """
    weights = {tensor.layer: (tensor, axes[0]) for tensor, axes in correspondence.tensors if tensor.is_weight}
    base, donor = correspondence.base.graph, correspondence.donor.graph
    places = {
        layer: (
            find_activation(base, pair.layers.base, pair.base),
            find_activation(donor, pair.layers.donor, pair.donor),
        )
        for layer, (pair, _) in weights.items()
    }
    places = {  # what a body makes is not there in every run, or several times
        layer: (mine, theirs)
        for layer, (mine, theirs) in places.items()
        if mine.tensor not in base.inner and theirs.tensor not in donor.inner
    }
    tables = [np.zeros(units) for units in correspondence.units]
    if not places:
        return Evidence(tuple(tables), 0.0, share)
    bound = 0.0
    mine = calibration_inputs(base, arrays)
    given = mine, correspondence.signatures.for_donor(mine)
    for layer, correlation in correlate(base, donor, places, given, runner).items():
        for block in weights[layer][1].blocks:
            if block.pair >= 0 and block.base.max() < len(correlation) and block.donor.max() < correlation.shape[1]:
                units = [correlation[np.ix_(*sides)] for sides in zip(block.base.T, block.donor.T, strict=True)]
                tables[block.pair] += np.mean(units, axis=0)
                bound += min(correspondence.units[block.pair])
    return Evidence(tuple(tables), bound, share)


def correlate(
    base: LayerGraph,
    donor: LayerGraph,
    places: Mapping[str, tuple[Place, Place]],
    arrays: tuple[Mapping[str, Array], Mapping[str, Array]],
    runner: Runner,
) -> dict[str, Array]:
    """How the units of the base and of the donor are correlated at some pairs of places, shape (units, other units).

    Each model is run on arrays of its own, which hold the same samples.

    Places of which the rows of both do not belong to the same samples are left out: there the weights alone say which
    units are alike.
    """
    streams = [
        (Stream(graph, given, runner, tensors), tensors)
        for graph, given, tensors in (
            (base, arrays[0], [mine.tensor for mine, _ in places.values()]),
            (donor, arrays[1], [theirs.tensor for _, theirs in places.values()]),
        )
    ]
    summed = {layer: Comoments() for layer in places}
    apart: set[str] = set()
    for mine, theirs in stream_together(streams):
        for layer, (a, b) in places.items():
            rows = rows_of_same_samples(a, mine[a.tensor], b, theirs[b.tensor])
            if rows is None:
                apart.add(layer)
            else:
                summed[layer].add(*rows)
    return {layer: comoments.correlation for layer, comoments in summed.items() if layer not in apart}


def find_activation(graph: LayerGraph, layer: Layer, weight: Parameter) -> Place:
    """What a layer gives behind its activation: the last of its tensors that has the axes of its contraction's."""
    node = graph.nodes[weight.node]
    last = next(filter(None, node.outputs))
    carried = {last}
    for index in layer.nodes:
        row = row_of(graph.nodes[index])
        if row is not None and row.keeps_axes and carried & set(graph.nodes[index].inputs):
            last = graph.nodes[index].outputs[0]
            carried.add(last)
    return Place(last, unit_axis(node, weight.slot, len(weight.shape)))


def rows_of_same_samples(a: Place, mine: Array, b: Place, theirs: Array) -> tuple[Array, Array] | None:
    """The rows of both for the same samples and positions; where the maps differ in size, for the samples alone; None
    where these do not lie on the first axis of both."""
    rows = a.rows(mine), b.rows(theirs)
    if rows[0].shape[1] == rows[1].shape[1]:
        return rows
    if len(mine) != len(theirs):
        return None
    means = [
        side.reshape(len(side), len(maps), -1).mean(axis=2) for side, maps in zip(rows, (mine, theirs), strict=True)
    ]
    return means[0], means[1]
