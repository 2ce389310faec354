"""Laws of the published methods that the study compares with: on made-up units, and on tiny trained networks."""

import importlib
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest

from mal_graph.symmetry import permute_weights

TOOLS = Path(__file__).parents[2] / "tools"
PAIRS = ["fashion14 128-128 relu", "cifar CNN 16-32-64", "cifar ResNet 16-32-64", "fashion28 ViT 48x3"]
FULL = 4.0  # of a budget: every layer twice as wide on both of its sides


@pytest.fixture(scope="module")
def module():
    """A module of the study by name; its neighbours are found as they are for a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module


@pytest.fixture(scope="module")
def blends(module):
    return module("pays_blends")


@pytest.fixture(scope="module")
def likeness(module):
    """What units give, of both models, to how alike they are."""

    def of(rows):
        products = rows @ rows.T / rows.shape[1]
        importance = np.full(len(rows), 2 / len(rows))
        return module("pays_blends").Likeness(module("pays_parents").correlation_of(rows), products, importance)

    return of


@pytest.fixture
def rows():
    """Five units on a hundred samples."""
    return np.random.default_rng(0).standard_normal((5, 100))


def groupings(blends):
    return (blends.matched, blends.transported, blends.clustered, lambda *given: blends.zipped(*given, within=1.0))


def test_all_methods_pair_units_with_their_equals(blends, likeness, rows):
    order = np.array([3, 0, 4, 1, 2])
    for grouping in groupings(blends):
        blend = grouping(likeness(np.concatenate([rows, rows[order]])), 5)
        assert np.array_equal(blend.part(0, is_read=True)[:, order], blend.part(1, is_read=True))
        assert np.array_equal(np.unique(blend.made), [0, 0.5])


def test_with_room_for_all_units_none_is_blended(blends, likeness, rows):
    for grouping in groupings(blends):
        blend = grouping(likeness(np.concatenate([rows, -rows + 1])), 10)
        assert np.array_equal(blend.made, blend.read)
        assert np.array_equal(blend.made.sum(axis=0), np.ones(10))


def test_a_partial_assignment_is_the_cheapest(blends):
    costs = np.random.default_rng(1).random((4, 4))
    own, others = blends.assigned_in_part(costs, 2)
    best = min(
        costs[list(own), list(others)].sum()
        for own in combinations(range(4), 2)
        for others in permutations(range(4), 2)
    )
    assert costs[own, others].sum() == pytest.approx(best)


def test_units_of_one_model_are_zipped_only_where_that_is_allowed(blends, likeness, rows):
    twins = np.concatenate([rows[:2], rows[:1], rows[2:]])  # the base has its first unit twice, the donor all others
    alike = likeness(np.concatenate([twins[:3], rows[2:]]))
    zipped, paired = (blends.zipped(alike, 5, within=within) for within in (1.0, 0.0))
    assert (zipped.read[:, :3].sum(axis=1) == 2).any()
    assert not (paired.read[:, :3].sum(axis=1) == 2).any()


# --- on networks ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PAIRS)
def trial(module, request, tmp_path_factory):
    """A tiny pair."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    study = module("study_pays")
    pair = next(pair for pair in study.PAIRS if pair.name == request.param)
    return study.trial(pair, 0, "digits", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def bench(trial):
    return trial.bench(200)


def permuted(network, seed):
    """The network with the units of every group that may be permuted in another order, and the same function."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in network.graph.weights.items()}
    groups = network.groups.groups
    outer = [group for group in groups if group.is_usable and group.inside is None]
    moves = [(group, rng.permutation(group.units)) for group in outer]
    return network.graph.with_weights(dict(permute_weights(weights, moves)))


def far(bench, graph, other, side=0):
    own, others = (bench.values(one, bench.names[0]) for one in (graph, other))
    return np.abs(own - others).max() / np.abs(others).max()


@pytest.mark.slow
@pytest.mark.torch
def test_of_a_base_and_its_permutation_every_method_makes_the_base(module, trial):
    rivals = module("pays_rivals").RIVALS
    base = trial.graphs[0]
    twin = permuted(trial.joint.sides[0].network, 0)
    bench = replace(trial, graphs=(base, twin.named("donor"))).bench(200)
    assert far(bench, twin, base) < 1e-4
    for name in rivals:
        assert far(bench, bench.rival(name, 1.0), base) < 1e-4, name


@pytest.mark.slow
@pytest.mark.torch
def test_with_nothing_folded_the_ensemble_is_left(module, bench):
    rivals, parents = module("pays_rivals"), bench.parents
    if any(one.reason for one in parents.sets):
        pytest.skip("some units of this network have to stay as many as they are")
    for name, rival in rivals.RIVALS.items():
        if name != "ZipIt!":
            assert far(bench, rival.make(parents, FULL), bench.joint.ensemble) < 1e-3, name
    ends = [rivals.Fusion(parents, *rivals.with_own_end(whole_of(rivals, parents), set(), side)) for side in (0, 1)]
    apart = rivals.side_by_side(parents, [end.set_by(rivals.respread) for end in ends])
    assert far(bench, apart, bench.joint.ensemble) < 1e-4


def whole_of(rivals, parents):
    return rivals.blends_with(parents, rivals.matched, rivals.counts_within(parents, 1.0))


@pytest.mark.slow
@pytest.mark.torch
def test_no_method_costs_more_than_its_budget(module, trial, bench):
    usage = module("mal_graph.errors").UsageError
    for name, rival in module("pays_rivals").RIVALS.items():
        for budget in rival.budgets:
            try:
                graph = rival.make(bench.parents, budget)
            except usage:
                assert name == "ZipIt!"
                continue
            assert trial.cost(graph) <= budget + 1e-6, (name, budget)


@pytest.mark.slow
@pytest.mark.torch
def test_networks_of_other_widths_are_refused_with_the_reason(module, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    study = module("study_pays")
    pair = next(pair for pair in study.PAIRS if pair.name == "cifar CNN 16-32-64 <- ResNet 16-32-64")
    bench = study.trial(pair, 0, "digits", tmp_path).bench(200)
    with pytest.raises(module("mal_graph.errors").MatchError, match="not of the wiring and widths of base"):
        bench.rival("PLeaS", 1.0)
