"""Pairing layers: nothing but what may gain is tried, in blocks, and what comes out is what trying all brings."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from builders import Net, cnn, mlp, vit
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.matching.bits import as_bits, as_mask, members
from mal_graph.matching.exchanges import FOLLOWS, LEAST_GAIN, Pairing, exchange_partners
from mal_graph.matching.layer_profile import measure_weight, profile_layers
from mal_graph.matching.layer_scores import LayerScores, compare_kinds
from mal_graph.matching.pairing import MIN_SCORE, pair_monotonely
from mal_graph.matching.reversals import Reversals


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


def residual(seed, blocks=3):
    """A chain of residual blocks: every layer reads all layers before it."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", 6)), 6, 6)
    for _ in range(blocks):
        x = net.op("Add", x, net.linear(net.op("Relu", net.linear(x, 6, 6)), 6, 6))
    return net.graph(net.linear(x, 6, 4))


def tangled(seed, count=14):
    """Layers that read one or two of those made last."""
    net, rng = Net(seed), np.random.default_rng(seed)
    made = [net.linear(net.input("x", ("N", 6)), 6, 6)]
    for _ in range(count):
        read = {made[-int(rng.integers(1, min(6, len(made) + 1)))] for _ in range(int(rng.integers(1, 3)))}
        x = net.op("Sum", *sorted(read)) if len(read) > 1 else read.pop()
        made.append(net.linear(net.op("Relu", x), 6, 6))
    return net.graph(net.op("Sum", *made[-4:]))


NETWORKS += [profile_layers(graph) for graph in (residual(0), residual(1, 2), branches(2, (4, 4)))]
NETWORKS += [profile_layers(tangled(seed)) for seed in range(6)]


def given_scores(table):
    """A table of scores, as `LayerScores` gives them."""
    return SimpleNamespace(at=lambda i, j: table[i, j], rows=lambda layers: ((i, table[i]) for i in layers))


def all_scores(a, b, **options):
    scores = LayerScores(a, b, **options)
    return scores.at(np.arange(len(a.layers))[:, None], np.arange(len(b.layers)))


def reaches(a):
    return np.array([as_mask(bits, len(a.layers)) for bits in a.network.descendants])


def follows(a):
    return np.array([as_mask(bits, len(a.layers)) for bits in a.network.after])


def between(ours, theirs, chosen):
    """What holds between every two pairs: in the base, and in the donor."""
    rows, columns = list(chosen), list(chosen.values())
    return ours[np.ix_(rows, rows)], theirs[np.ix_(columns, columns)]


def worth(ours, theirs, scores, chosen):
    """What a pairing is worth: its scores, and what follows each other in both models."""
    steps = np.logical_and(*between(ours, theirs, chosen)).sum()
    return sum(scores[i, j] if scores[i, j] >= MIN_SCORE else -np.inf for i, j in chosen.items()) + FOLLOWS * steps


def every_exchange(a, b, scores, chosen):
    """The same by trying all."""
    ours, theirs, steps, their_steps = reaches(a), reaches(b), follows(a), follows(b)
    chosen, improved = dict(chosen), True
    while improved:
        improved, now = False, worth(steps, their_steps, scores, chosen)
        for i, j in product(a.order, b.order):
            holder = next((h for h, c in chosen.items() if c == j), None)
            if scores[i, j] < MIN_SCORE or holder == i:
                continue
            trial = {**chosen, i: j} if holder is None else {**chosen, i: j, holder: chosen.get(i, -1)}
            trial = {i: j for i, j in trial.items() if j >= 0}
            gained = worth(steps, their_steps, scores, trial)
            mine, other = between(ours, theirs, trial)
            if gained - now > LEAST_GAIN and not (mine & other.T).any():
                chosen, improved, now = trial, True, gained
    return chosen


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_what_cannot_be_is_not_tried_and_nothing_else_changes(seed):
    rng = np.random.default_rng(seed)
    a, b = (NETWORKS[int(rng.integers(len(NETWORKS)))] for _ in range(2))
    spread = rng.choice([0.03, 0.1, 0.4])  # where scores hardly differ, what follows each other decides
    drawn = 0.6 + spread * rng.uniform(-1, 1, (len(a.layers), len(b.layers)))
    scores = np.where(np.isfinite(all_scores(a, b)), drawn, -np.inf)
    first = pair_monotonely(a, b, given_scores(scores))
    assert exchange_partners(a, b, given_scores(scores), first) == every_exchange(a, b, scores, first)


@given(st.integers(0, 2**31))
def test_no_pairing_that_keeps_both_orders_is_worth_more_than_the_first(seed):
    rng = np.random.default_rng(seed)
    a, b = (NETWORKS[int(rng.integers(len(NETWORKS)))] for _ in range(2))
    scores = rng.uniform(0.2, 1.0, (len(a.layers), len(b.layers)))
    table = np.zeros((len(a.layers) + 1, len(b.layers) + 1))
    for i, j in product(range(len(a.layers)), range(len(b.layers))):
        own = scores[a.order[i], b.order[j]]
        table[i + 1, j + 1] = max(table[i, j + 1], table[i + 1, j], table[i, j] + own if own >= MIN_SCORE else 0)
    chosen = pair_monotonely(a, b, given_scores(scores))
    places = sorted((a.order.index(i), b.order.index(j)) for i, j in chosen.items())
    assert [j for _, j in places] == sorted(j for _, j in places)
    assert np.isclose(sum(scores[i, j] for i, j in chosen.items()), table[-1, -1])


@given(st.integers(0, 2**31))
def test_what_is_kept_of_a_pairing_is_right_after_any_moves(seed):
    rng = np.random.default_rng(seed)
    a, b = (NETWORKS[int(rng.integers(len(NETWORKS)))] for _ in range(2))
    count = min(len(a.layers), len(b.layers))
    chosen = dict(
        zip(rng.permutation(len(a.layers))[:count].tolist(), rng.permutation(len(b.layers)).tolist(), strict=False)
    )
    pairing = Pairing(a, b, given_scores(rng.uniform(size=(len(a.layers), len(b.layers)))), chosen)
    for _ in range(4):
        pairing.reversals.barred(int(rng.integers(len(a.layers))))  # what was known before has to be forgotten
        i, j = int(rng.integers(len(a.layers))), int(rng.integers(len(b.layers)))
        holder, own = int(pairing.holders[j]), int(pairing.partners[i])
        pairing.move({i: j} if holder in (-1, i) else {i: j, holder: own})
    fresh = {i: int(j) for i, j in enumerate(pairing.partners) if j >= 0}
    anew = Pairing(a, b, pairing.scores, fresh)
    for kept in ("partners", "holders", "own", "following"):
        assert getattr(pairing, kept).tolist() == getattr(anew, kept).tolist(), kept
    ours, theirs = reaches(a), reaches(b)
    for i in range(len(a.layers)):
        barred = {
            j
            for j in range(len(b.layers))
            for r, c in fresh.items()
            if (ours[i, r] and theirs[c, j]) or (ours[r, i] and theirs[j, c])
        }
        assert set(members(pairing.reversals.barred(i), len(b.layers)).tolist()) == barred
        assert Reversals(a, b, pairing.partners).barred(i) == pairing.reversals.barred(i)


@given(st.integers(0, 2**31))
def test_scores_do_not_depend_on_how_many_are_asked_for_at_once(seed):
    rng = np.random.default_rng(seed)
    a, b = (NETWORKS[int(rng.integers(len(NETWORKS)))] for _ in range(2))
    scores, table = LayerScores(a, b), all_scores(a, b)
    i, j = rng.integers(len(a.layers), size=5), rng.integers(len(b.layers), size=5)
    assert scores.at(i, j).tolist() == table[i, j].tolist()
    assert [scores.at(int(x), int(y)) for x, y in zip(i, j, strict=True)] == table[i, j].tolist()
    assert {x: row.tolist() for x, row in scores.rows(i.tolist())} == {x: table[x].tolist() for x in i.tolist()}
    assert {y: row.tolist() for y, row in scores.columns(j.tolist())} == {y: table[:, y].tolist() for y in j.tolist()}


@given(st.sets(st.integers(0, 40)), st.integers(41, 50))
def test_bits_hold_what_was_put_in(layers, count):
    bits = as_bits(np.array(sorted(layers), int), count)
    assert members(bits, count).tolist() == sorted(layers)
    assert bits.bit_count() == len(layers)


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8))
def test_kinds_compare_as_their_members_do(mine, theirs):
    kinds = compare_kinds(mine, theirs, lambda x, y: float(x <= y), ([x // 2 for x in mine], theirs))
    i, j = np.arange(len(mine)), np.arange(len(theirs))
    first = {x // 2: x for x in reversed(mine)}
    expected = [[float(first[x // 2] <= y) for y in theirs] for x in mine]
    at = np.broadcast_to(kinds.at(i[:, None], j), (len(mine), len(theirs)))
    assert at.tolist() == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(700, 300), (300, 70, 3, 3), (200_001,), (1, 200_000), (200_000, 1)])
def test_figures_of_a_weight_do_not_depend_on_blocks(shape, dtype):
    """To the last bit, also where the file stores the axes in another order."""
    stored = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for values in (stored, stored.T):
        leading = SimpleNamespace(tensor="w", canonical=lambda read: read)
        graph = SimpleNamespace(weights={"w": SimpleNamespace(read=lambda values=values: values)})
        whole = values.astype(np.float64)
        root = float(np.sqrt(np.mean(whole**2)))
        means = whole.reshape(len(whole), -1).mean(axis=1)
        expected = float(np.mean(np.abs(whole)) / root), float(np.sqrt(np.mean(means**2)) / root)
        assert measure_weight(graph, SimpleNamespace(leading=leading)) == expected
