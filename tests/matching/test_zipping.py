"""Units that are zipped: those that give the same are merged without a loss, whichever models they are of."""

import numpy as np
import pytest
from builders import cnn, deviation, inputs_of, mlp, noisy, permuted_copy, run, vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching import zip_units
from mal_graph.symmetry import axis_groups, may_be_one, open_trial

few = settings(max_examples=4, deadline=None, phases=[Phase.reuse, Phase.generate])
shares = st.sampled_from([0.0, 0.125, 0.3, 1.0])
QUICK = {"verify": False, "compare": False, "repair": False}


def zipped(base, *donors, **parameters):
    (value,) = base.inputs
    x = np.random.default_rng(0).standard_normal((64, *value.shape[1:])).astype(np.float32)
    given = {"calibrate": {value.name: x}, "parameters": parameters}
    return mal_graph.assemble(base, list(donors), method="zipit", **given, **QUICK).graph


@given(
    widths=st.lists(st.integers(2, 9), min_size=2, max_size=4), repeat=shares, within=shares, seed=st.integers(0, 99)
)
@few
def test_as_many_units_are_left_as_the_base_has_and_every_one_of_them_holds_some(widths, repeat, within, seed):
    seen = np.random.default_rng(seed).standard_normal((sum(widths), 20))
    places = zip_units(np.corrcoef(seen), widths, repeat, within)
    assert [len(own) for own in places] == widths
    assert set(np.concatenate(places)) == set(range(widths[0]))
    if not within and not repeat and len(set(widths)) == 1:  # then each has one unit of every model that it may have
        assert all(np.bincount(own, minlength=widths[0]).max() == 1 for own in places)


@given(repeat=shares, within=shares, seed=st.integers(0, 99))
@few
def test_units_of_a_shuffled_copy_meet_their_own(repeat, within, seed):
    rng = np.random.default_rng(seed)
    seen, order = rng.standard_normal((7, 40)), rng.permutation(7)
    mine, theirs = zip_units(np.corrcoef(np.concatenate([seen, seen[order]])), [7, 7], repeat, within)
    assert np.array_equal(mine, np.arange(7))
    assert np.array_equal(theirs, order)


def alike(pairs):
    """Of two models with two units each: 0 and 1, 2 and 3."""
    similar = np.eye(4)
    for (one, other), worth in pairs.items():
        similar[one, other] = similar[other, one] = worth
    return similar


def test_a_merged_unit_is_as_alike_as_the_less_alike_of_its_two():
    """The first of both are merged; the second of the base is near to one of these alone, and goes to its own."""
    mine, theirs = zip_units(alike({(0, 2): 0.9, (0, 1): 0.8, (1, 2): 0.1, (1, 3): 0.5}), [2, 2], 1.0, 1.0)
    assert (mine.tolist(), theirs.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize(("repeat", "places"), [(1.0, ([0, 0], [0, 1])), (0.5, ([0, 1], [0, 1]))])
def test_merges_of_what_was_merged_count_less(repeat, places):
    mine, theirs = zip_units(alike({(0, 2): 0.9, (0, 1): 0.8, (1, 2): 0.8, (1, 3): 0.5}), [2, 2], repeat, 1.0)
    assert (mine.tolist(), theirs.tolist()) == places


@pytest.mark.parametrize("net", [lambda: mlp((4, 6, 3), 0), lambda: cnn((4, 6), blocks=1, size=4)])
@pytest.mark.parametrize("within", [0.0, 1.0])
def test_a_permuted_copy_gives_the_base(net, within):
    base = net()
    donor, x = permuted_copy(base, axis_groups(base), 1)[0], inputs_of(base)
    assert deviation(run(zipped(base, donor, within=within), x), run(base, x)) < 1e-5


def with_units_twice(graph, seed):
    """The perceptron with every hidden unit twice, in another order, and half as much read of each."""
    rng, weights = np.random.default_rng(seed), {name: weight.read() for name, weight in graph.weights.items()}
    order = np.repeat(np.arange(len(weights["w0"])), 2)[rng.permutation(2 * len(weights["w0"]))]
    moved = {"w0": weights["w0"][order], "w1": weights["w1"][order], "w2": weights["w2"][:, order] / 2}
    return mlp((4, len(order), 3), 0).with_weights({**weights, **moved})


@pytest.mark.parametrize("seed", range(2))
def test_where_units_are_twice_there_both_networks_fit_into_one_and_it_gives_their_mean(seed):
    """Merges within models free the units that the other model needs: what ZipIt is for."""
    one, other = (mlp((4, 6, 3), number) for number in (seed, seed + 10))
    merged = zipped(with_units_twice(one, 1), with_units_twice(other, 2), within=1.0)
    x = inputs_of(one)
    means = [(mine + theirs) / 2 for mine, theirs in zip(run(one, x), run(other, x), strict=True)]
    assert deviation(run(merged, x), means) < 1e-5
    between = zipped(with_units_twice(one, 1), with_units_twice(other, 2), within=0.0)
    assert deviation(run(between, x), means) > 1e-2  # without such merges it does not


@pytest.mark.parametrize("weight", [0.3, 0.0])
def test_a_copy_of_another_width_gives_the_base(weight):
    base, x = mlp((4, 6, 3), 0), inputs_of(mlp((4, 6, 3), 0))
    wide = with_units_twice(base, 1)
    own = {"0:weight": 1 - weight, "1:weight": weight}
    assert deviation(run(zipped(base, wide, repeat=1.0, **own), x), run(base, x)) < 1e-5
    assert deviation(run(zipped(wide, base, within=1.0, repeat=1.0, **own), x), run(base, x)) < 1e-5


def test_units_may_be_one_where_weights_alone_read_them():
    """In a transformer those of values and of dense layers; not those that a norm or a product is taken over."""
    graph = vit()
    groups = axis_groups(graph)
    trial = open_trial(graph, groups)
    usable = [group for group in groups.groups if group.is_usable]
    alone = [group for group in usable if group.statistic is None]
    assert 0 < len(alone) < len(usable)
    assert [group.name for group in usable if may_be_one(trial, group)] == [group.name for group in alone]


def test_the_note_says_how_many_groups_were_zipped():
    base = vit()
    (value,) = base.inputs
    x = np.random.default_rng(0).standard_normal((16, *value.shape[1:])).astype(np.float32)
    result = mal_graph.assemble(base, noisy(base, 0.1, 1), method="zipit", calibrate={value.name: x}, **QUICK)
    assert "zipped 4 of 7 groups" in result.summary()
