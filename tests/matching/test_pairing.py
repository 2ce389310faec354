"""Exchanges of partners: only what may be is tried, and nothing else changes by that."""

from itertools import product

import numpy as np
import pytest
from builders import Net, cnn, mlp, vit
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.matching import pairing
from mal_graph.matching.layer_profile import profile_layers
from mal_graph.matching.layer_scores import score_layers


def branches(seed, counts=(2, 2, 3)):
    """Parallel chains of layers, laid beside each other, and a layer behind."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    ends = []
    for count in counts:
        y = x
        for _ in range(count):
            y = net.op("Relu", net.linear(y, 6, 6))
        ends.append(y)
    return net.graph(net.linear(net.op("Concat", *ends, axis=1), 6 * len(counts), 4))


NETWORKS = [profile_layers(graph) for graph in (branches(0), branches(1, (3, 1, 2)), cnn(), mlp(), vit(blocks=1))]


def every_exchange(a, b, scores, chosen):
    """The same by trying all."""
    chosen, holder = dict(chosen), {j: i for i, j in chosen.items()}
    improved = True
    while improved:
        improved = False
        for i, j in product(a.order, b.order):
            if scores[i, j] < pairing.MIN_SCORE or chosen.get(i) == j:
                continue
            trial = pairing.try_moves(a, b, scores, chosen, pairing.find_moves(chosen, holder, i, j))
            if trial is not None:
                chosen, holder, improved = trial, {j: i for i, j in trial.items()}, True
    return chosen


@given(st.integers(0, 2**31))
def test_what_cannot_be_is_not_tried_and_nothing_else_changes(seed):
    rng = np.random.default_rng(seed)
    a, b = (NETWORKS[int(rng.integers(len(NETWORKS)))] for _ in range(2))
    drawn = rng.uniform(0.2, 1.0, (len(a.layers), len(b.layers)))
    scores = np.where(np.isfinite(score_layers(a, b)), drawn, -np.inf)
    first = pairing.pair_monotonely(a, b, scores)
    assert pairing.exchange_partners(a, b, scores, first) == every_exchange(a, b, scores, first)


@pytest.mark.parametrize("graph", [branches(0), cnn()])
def test_reversals_are_counted_pair_by_pair(graph):
    a = profile_layers(graph)
    chosen = {i: i for i in range(len(a.layers))}
    counts = pairing.count_reversals(a, a, chosen)
    for i, j in product(range(len(a.layers)), repeat=2):
        pairs = [(r, c) for r, c in chosen.items()]
        expected = sum((a.reaches[i, r] and a.reaches[c, j]) + (a.reaches[r, i] and a.reaches[j, c]) for r, c in pairs)
        assert counts[i, j] == expected
