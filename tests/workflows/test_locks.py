"""Donors with locked attention: found out, turned back where that loses nothing, and refused where it does."""

from dataclasses import replace

import numpy as np
import pytest
from attention_nets import Kind, attention_net
from builders import deviation, inputs_of, load, mlp, noisy, run, vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry
from mal_graph.errors import MatchError
from mal_graph.symmetry import axis_groups
from mal_graph.workflows.locks import without_locks

SIDES = {"queries and keys": (("w5", "w6"), ("w7", "w8")), "values and output": (("w9", "w10"), ("w11",))}
few = settings(max_examples=3, deadline=None, phases=[Phase.reuse, Phase.generate])
QUICK = {"verify": False, "compare": False}


def matrix_of(kind, seed, units=8):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((units, units)))[0]
    if kind == "orthogonal":
        return turn
    sizes = rng.uniform(0.3, 3, units) * rng.choice([-1, 1], units)
    return np.diag(sizes) if kind == "diagonal" else turn @ np.diag(sizes) @ rng.standard_normal((units, units))


def locked(graph, side, matrix):
    """The transformer with the first head's sides multiplied by a matrix, and by what undoes it."""
    weights = {name: weight.read() for name, weight in graph.weights.items()}
    for names, key in zip(SIDES[side], (matrix, np.linalg.inv(matrix).T), strict=True):
        for name in names:
            is_read = name == "w11"
            weights[name] = (key @ weights[name] if is_read else weights[name] @ key.T).astype(np.float32)
    return graph.with_weights(weights)


def opened(base, donor):
    return without_locks(base, donor, axis_groups(donor), registry.runner())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["orthogonal", "diagonal"])
@given(seed=st.integers(0, 99))
@few
def test_what_is_orthogonal_or_diagonal_is_turned_back(kind, side, seed):
    base = vit(blocks=1)
    donor = noisy(base, 0.1, seed)
    hidden = locked(donor, side, matrix_of(kind, seed))
    x = inputs_of(base)
    assert deviation(run(hidden, x), run(donor, x)) < 1e-5
    found, names = opened(base, hidden)
    assert set(names) == set(sum(SIDES[side], ()))
    assert deviation(run(found, x), run(donor, x)) < 1e-5
    for name in names:  # up to what the donor has learned, by which a turn is not told
        was, now = donor.weights[name].read(), found.weights[name].read()
        assert np.linalg.norm(now - was) < 0.25 * np.linalg.norm(was)


@pytest.mark.parametrize("side", SIDES)
def test_any_other_matrix_is_found_out_and_refused(side):
    base = vit(blocks=1)
    with pytest.raises(MatchError, match=r"is locked: .* neither orthogonal nor diagonal; get the model as it was"):
        opened(base, locked(noisy(base, 0.05, 1), side, matrix_of("any", 1)))


@pytest.mark.parametrize("form", ["whole", "written out"])
@pytest.mark.parametrize("kind", ["orthogonal", "diagonal", "any"])
def test_each_of_several_heads_has_a_key_of_its_own(kind, form):
    base = load(attention_net(Kind(), form), "net")
    donor = noisy(base, 0.05, 1)
    moved = {name: donor.weights[name].read().copy() for name in "qk"}
    for head in range(3):
        key, own = matrix_of(kind, head, 4), slice(4 * head, 4 * head + 4)
        moved["q"][:, own] = moved["q"][:, own] @ key.T
        moved["k"][:, own] = moved["k"][:, own] @ np.linalg.inv(key)
    hidden = donor.with_weights(moved)
    if kind == "any":
        with pytest.raises(MatchError, match="is locked"):
            opened(base, hidden)
        return
    found, names = opened(base, hidden)
    assert set(names) == {"q", "k"}
    for name in names:
        was = donor.weights[name].read()
        assert np.linalg.norm(found.weights[name].read() - was) < 0.1 * np.linalg.norm(was)


@pytest.mark.parametrize("make", [lambda: vit(blocks=1), lambda: mlp((4, 6, 3), 0)])
def test_fine_tunes_and_strangers_are_not_locked(make):
    base = make()
    for donor in (noisy(base, 0.1, 1), noisy(base, 1.0, 2), vit(5, blocks=1), base):
        assert opened(base, donor) == (donor, ())


def test_units_in_another_order_and_rescaled_ones_are_no_lock():
    base = vit(blocks=1)
    order = np.eye(8)[np.random.default_rng(0).permutation(8)]
    moved = locked(noisy(base, 0.05, 1), "queries and keys", order)
    assert opened(base, moved) == (moved, ())
    plain = mlp((4, 6, 6, 3), 0)
    weights = {name: weight.read() for name, weight in noisy(plain, 0.02, 1).weights.items()}
    scale = np.array([0.05, 20, 1, 7, 0.2, 3], np.float32)  # of units behind which a Relu stands
    scaled = {"w0": scale[:, None] * weights["w0"], "w1": scale * weights["w1"], "w2": weights["w2"] / scale}
    donor = plain.with_weights({**weights, **scaled})
    assert opened(plain, donor) == (donor, ())


def test_attention_that_was_trained_anew_is_not_locked():
    """Its products are others, too."""
    base, other = vit(blocks=1), vit(7, blocks=1)
    names = sum(SIDES["queries and keys"], ())
    donor = noisy(base, 0.05, 1).with_weights({name: other.weights[name].read() for name in names})
    assert opened(base, donor) == (donor, ())


def counted(graph):
    """The graph, and the names of its weights that are read, as often as they are."""
    read = []

    def reader(weight):
        return lambda: read.append(weight.name) or weight.read()

    return graph.with_weights([replace(weight, read=reader(weight)) for weight in graph.weights.values()]), read


@pytest.mark.parametrize(("noise", "most"), [(0.05, 7), (2.0, 8)])
def test_weights_are_read_once_of_a_fine_tune_heads_alone_and_none_where_nothing_attends(noise, most):
    """Counted work: one matrix tells a fine-tune from a stranger, of which all are looked at."""
    for graph, bound in ((mlp((4, 6, 6, 3), 0), 0), (vit(blocks=1), most)):
        donor = noisy(graph, noise, 1)
        groups, (donor, read) = axis_groups(donor), counted(donor)
        assert without_locks(graph, donor, groups, registry.runner()) == (donor, ())
        assert len(read) == len(set(read)) <= bound


@pytest.mark.parametrize("method", ["linear", "mal"])
def test_a_locked_donor_is_merged_as_it_was_before(method):
    base = vit(blocks=1)
    donor, x = noisy(base, 0.05, 1), inputs_of(base)
    hidden = locked(locked(donor, "queries and keys", matrix_of("orthogonal", 1)), "values and output", -np.eye(8))
    options = {"method": method, "lam": 0.5} if method == "mal" else {"method": method}
    results = [mal_graph.assemble(base, one, **options, **QUICK) for one in (donor, hidden)]
    mine, theirs = (run(result.graph, x) for result in reversed(results))
    assert deviation(mine, theirs) < 0.1 * deviation(run(donor, x), run(base, x))
    assert any("was locked: 7 tensors of its attention were turned" in note for note in results[1].notes)
    assert not any("locked" in note for note in results[0].notes)
