"""Label arrays: shape operators on labels are numpy's own, and nothing is lost on the way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.graph import Node
from mal_graph.operators import Call, GroupState, Label, Pin, Wiring, spans
from mal_graph.operators import wiring as wirings
from mal_graph.operators.layout import concat
from mal_graph.operators.reshaping import find_runs

FROZEN = Pin(GroupState.FROZEN, "for a test")
factors = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4)


@pytest.fixture
def wiring():
    return Wiring()


def labelled(wiring, shape, axis):
    """A label with atoms on one axis."""
    pieces = [None] * len(shape)
    pieces[axis] = wiring.fresh(shape[axis])
    return wiring.label_of(shape, pieces)


def full(label):
    """The first part at every element."""
    return np.broadcast_to(label.parts[0], label.shape)


def originals(wiring, atoms):
    """What each atom is a copy of, itself where it is none."""
    stands_for = np.arange(wiring.count)
    for number in sorted(wiring.copies):
        copies = wiring.blocks[number]
        stands_for[copies.atoms] = stands_for[copies.blocks]
    return stands_for[atoms]


@given(factors, factors)
def test_runs_cover_both_shapes_and_keep_their_products(old, new):
    new = [*new, math.prod(old)] if math.prod(new) == 1 else [*old[::-1]]
    found = find_runs(old, new)
    assert [axis for left, _ in found for axis in left] == list(range(len(old)))
    assert [axis for _, right in found for axis in right] == list(range(len(new)))
    for left, right in found:
        assert math.prod(old[axis] for axis in left) == math.prod(new[axis] for axis in right)


@given(factors, st.data())
def test_a_reshape_of_a_label_is_numpys_reshape(shape, data):
    shape = (2, *shape)
    axis = data.draw(st.integers(0, len(shape) - 1).filter(lambda axis: shape[axis] > 1))
    target = tuple(data.draw(st.permutations(shape))) if data.draw(st.booleans()) else (math.prod(shape),)
    wiring = Wiring()
    label = labelled(wiring, shape, axis)
    moved = wiring.reshape(label, target, "Reshape")
    assert moved.shape == target
    assert np.array_equal(originals(wiring, full(moved)), full(label).reshape(target))


@given(factors, st.data())
def test_a_reshape_there_and_back_is_the_identity(shape, data):
    shape = (2, *shape)
    wiring = Wiring()
    label = labelled(wiring, shape, data.draw(st.sampled_from([i for i, n in enumerate(shape) if n > 1])))
    there = wiring.reshape(label, (math.prod(shape),), "Reshape")
    back = wiring.reshape(there, shape, "Reshape")
    assert np.array_equal(originals(wiring, full(back)), full(label))
    assert wiring.pins == []


@given(st.permutations(range(3)))
def test_a_transpose_of_a_label_is_numpys_transpose(order):
    wiring = Wiring()
    label = Label((2, 3, 4), (np.arange(3).reshape(1, 3, 1),), {2: FROZEN})
    moved = wiring.transpose(label, order)
    assert np.array_equal(full(moved), full(label).transpose(order))
    assert list(moved.pins) == [order.index(2)]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=8))
def test_taking_indices_is_numpys_take(indices):
    wiring = Wiring()
    label = labelled(wiring, (2, 6), 1)
    taken = full(wiring.take(label, 1, np.array(indices), "Gather"))
    assert np.array_equal(originals(wiring, taken), full(label).take(indices, 1))
    assert len(np.unique(taken)) == len(indices)


def test_each_copy_belongs_to_the_original_at_its_place(wiring):
    """Of two atoms, one lies in two places, and all of them are copied."""
    laid = wiring.repeat(Label((3,), (np.array([7, 8, 7]),)), 0, 2)
    assert laid.parts[0].tolist() == [0, 1, 2, 3, 4, 5]
    (copies,) = wiring.blocks
    assert copies.blocks.tolist() == [7, 8, 7] * 2
    assert copies.places.tolist() == [0, 1, 2] * 2


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4), st.data())
def test_axes_of_length_one_are_put_in_and_taken_out_as_by_any_reshape(shape, data):
    """A label is laid out anew where nothing is mixed, and gives what the way of all reshapes gives."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    cuts = data.draw(st.lists(st.integers(0, len(long)), max_size=2))
    target = [shape[axis] for axis in long]
    for cut in sorted(cuts, reverse=True):
        target.insert(cut, 1)
    pinned = data.draw(st.sets(st.sampled_from(long))) if long else set()
    together = [axis for axis in long if axis not in pinned]
    size = math.prod(shape[axis] for axis in together)
    atoms = np.arange(size).reshape([size_ if axis in together else 1 for axis, size_ in enumerate(shape)])
    label = Label(tuple(shape), (atoms,) if size > 1 else (), dict.fromkeys(pinned, FROZEN))
    results = []
    for quick in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not quick:
                patch.setattr(wirings, "moved_axes", lambda old, new: None)
            wiring = Wiring()
            wiring.fresh(size)
            laid = wiring.reshape(label, tuple(target), "Reshape")
        results.append((laid.shape, [part.tolist() for part in laid.parts], laid.pins))
    assert results[0] == results[1]


def test_what_is_the_same_along_an_axis_has_copies_when_a_reshape_mixes_it(wiring):
    atoms = wiring.fresh(2)
    label = Label((2, 2, 1), (atoms.reshape(2, 1, 1),))
    flat = wiring.reshape(label, (4,), "Reshape")
    assert originals(wiring, flat.parts[0]).tolist() == [0, 0, 1, 1]
    assert len(np.unique(flat.parts[0])) == 4
    assert wiring.reshape(label, (2, 1, 2), "Reshape").parts[0].tolist() == [[[0]], [[1]]], "moved, and not mixed"


def test_copies_that_nothing_reads_are_forgotten(wiring):
    wiring.fresh(9)
    laid = wiring.repeat(Label((2,), (np.array([7, 8]),)), 0, 2)
    assert [len(found.atoms) for found in wiring.used_blocks()] == [0]
    wiring.read(laid.parts[0][1:])
    assert [found.atoms.tolist() for found in wiring.used_blocks()] == [[10, 11, 12]]


def test_units_are_told_apart_along_the_axis_that_is_cut_alone(wiring):
    """Each atom lies at both indices of the last axis, and at one index of the first."""
    label = Label((2, 2), (np.array([[7, 7], [8, 8]]),))
    wiring.take(label, 0, np.array([1, 0]), "Gather")
    assert (wiring.pins, wiring.blocks) == ([], [])
    wiring.take(label, 1, np.array([1, 0]), "Gather")
    assert {pin.reason for _, pin in wiring.pins} == {"places within a unit"}


def test_taking_one_index_of_an_axis_fixes_that_unit(wiring):
    label = labelled(wiring, (2, 6), 1)
    taken = wiring.take(label, 1, np.array([3]), "Gather")
    assert taken.parts == ()
    assert [(atoms.tolist(), pin.state) for atoms, pin in wiring.pins] == [([3], "frozen")]


def test_taking_one_index_of_a_split_axis_keeps_the_other_factor(wiring):
    split = wiring.reshape(labelled(wiring, (1, 6), 1), (1, 2, 3), "Reshape")
    taken = wiring.take(split, 1, np.array([1]), "Gather")
    assert full(taken).ravel().tolist() == [3, 4, 5]
    assert wiring.pins == []


def test_mixing_two_hidden_axes_makes_an_atom_of_every_combination(wiring):
    label = wiring.fresh_label((2, 3))
    mixed = wiring.reshape(label, (3, 2), "Reshape")
    assert [part.tolist() for part in mixed.parts] == [[[5, 6], [7, 8], [9, 10]]]
    assert [(found.atoms.tolist(), found.blocks.tolist()) for found in wiring.blocks] == [
        ([5, 6, 7, 8, 9, 10], [0, 0, 0, 1, 1, 1]),
        ([5, 6, 7, 8, 9, 10], [2, 3, 4, 2, 3, 4]),
    ]


def test_too_many_combinations_are_fixed(wiring, monkeypatch):
    monkeypatch.setattr("mal_graph.operators.wiring.LARGEST_PRODUCT", 5)
    mixed = wiring.reshape(wiring.fresh_label((2, 3)), (6,), "Reshape")
    assert (mixed.parts, mixed.pins[0].state) == ((), "frozen")
    assert sorted(atom for atoms, _ in wiring.pins for atom in atoms.tolist()) == [0, 1, 2, 3, 4]


def test_places_within_a_unit_are_pinned_when_they_get_an_axis(wiring):
    """Two filters of one depthwise channel share an atom; what they hold differs."""
    split = wiring.reshape(Label((1, 4), (np.array([[7, 7, 8, 8]]),)), (2, 2), "Reshape")
    assert split.parts[0].tolist() == [[7], [8]]
    assert {axis: pin.state for axis, pin in split.pins.items()} == {1: "pinned"}


def test_positions_are_pinned_again_after_a_flatten_and_back(wiring):
    label = Label((2, 3), (np.array([[7], [8]]),), {1: Pin(GroupState.PINNED, "positions")})
    back = wiring.reshape(wiring.reshape(label, (6,), "Reshape"), (2, 3), "Reshape")
    assert back.parts[0].tolist() == [[7], [8]]
    assert {axis: pin.state for axis, pin in back.pins.items()} == {1: "pinned"}


def test_repeating_one_unit_over_an_axis_fixes_it(wiring):
    wiring.reshape(Label((1, 3), (np.array([[7, 7, 7]]),)), (3, 1), "Reshape")
    assert [(atoms.tolist(), pin.state) for atoms, pin in wiring.pins] == [([7], "frozen")]


def test_a_reading_counts_how_often_a_unit_is_read(wiring):
    wiring.read(np.array([3, 4, 3]))
    wiring.read(FROZEN)
    wiring.read(None)
    assert [atoms.tolist() for atoms in wiring.readings] == [[3, 4, 3]]


def test_broadcasting_ties_equal_axes_only(wiring):
    a, b = labelled(wiring, (2, 3), 1), labelled(wiring, (3,), 0)
    together = wiring.combine([a, b], (2, 3))
    assert np.array_equal(together.parts[0], a.parts[0])
    assert [(x.tolist(), y.tolist()) for x, y in wiring.ties] == [([0, 1, 2], [3, 4, 5])]


def test_a_fixed_axis_fixes_what_is_combined_with_it(wiring):
    a = labelled(wiring, (2, 3), 1)
    together = wiring.combine([a, Label((2, 3), (), {1: FROZEN})], (2, 3))
    assert together.parts == ()
    assert together.pins == {1: FROZEN}
    assert [atoms.tolist() for atoms, _ in wiring.pins] == [[0, 1, 2]]


def test_a_split_axis_combined_with_one_of_its_factors_belongs_to_it(wiring):
    whole = wiring.reshape(labelled(wiring, (6,), 0), (2, 3), "Reshape")
    together = wiring.combine([whole, labelled(wiring, (3,), 0)], (2, 3))
    assert [part.tolist() for part in together.parts] == [[[0, 1, 2], [3, 4, 5]]]
    assert [(found.atoms.tolist(), found.blocks.tolist()) for found in wiring.blocks] == [
        (list(range(6)), [6, 7, 8] * 2)
    ]


def test_two_split_axes_that_share_one_factor_make_a_product_that_belongs_to_both(wiring):
    left = wiring.reshape(labelled(wiring, (6,), 0), (2, 3, 1), "Reshape")
    right = wiring.reshape(labelled(wiring, (12,), 0), (1, 3, 4), "Reshape")
    (product,) = wiring.combine([left, right], (2, 3, 4)).parts
    assert len(np.unique(product)) == 24
    belonging = {tuple(np.unique(found.blocks)): found.blocks.reshape(2, 3, 4) for found in wiring.blocks}
    assert np.array_equal(belonging[tuple(range(6))][:, :, 0], np.arange(6).reshape(2, 3))
    assert np.array_equal(belonging[tuple(range(6, 18))][0], np.arange(6, 18).reshape(3, 4))


def test_a_product_that_would_be_too_large_falls_into_axes(wiring, monkeypatch):
    monkeypatch.setattr("mal_graph.operators.wiring.LARGEST_PRODUCT", 23)
    left = wiring.reshape(labelled(wiring, (6,), 0), (2, 3, 1), "Reshape")
    right = wiring.reshape(labelled(wiring, (12,), 0), (1, 3, 4), "Reshape")
    together = wiring.combine([left, right], (2, 3, 4))
    assert sorted(spans(part) for part in together.parts) == [(0,), (1, 2)]


def test_a_factor_of_a_split_axis_gets_atoms_that_its_units_belong_to(wiring):
    split = wiring.reshape(labelled(wiring, (6,), 0), (2, 3), "Reshape")
    assert wiring.axis_label(split, 0).tolist() == [6, 7]
    assert wiring.axis_label(split, 0).tolist() == [6, 7], "asked again it is the same"
    assert [(found.atoms.tolist(), found.blocks.tolist()) for found in wiring.blocks] == [
        (list(range(6)), [6, 6, 6, 7, 7, 7])
    ]


def test_a_sum_over_one_factor_leaves_the_blocks(wiring):
    split = wiring.reshape(labelled(wiring, (6,), 0), (2, 3), "Reshape")
    summed = wiring.sum_away(split, 1)
    assert (summed.shape, [part.tolist() for part in summed.parts]) == ((2, 1), [[[6], [7]]])
    assert [reading.tolist() for reading in wiring.readings] == [list(range(6))]


def test_pieces_laid_end_to_end_keep_their_atoms_and_fixes(wiring):
    a = wiring.fresh(2)
    laid = wiring.concat([a, None, FROZEN], [2, 1, 2])
    assert laid.tolist() == [0, 1, 2, 3, 4]
    assert [atoms.tolist() for atoms, _ in wiring.pins] == [[3, 4]]


def test_tying_to_a_fixed_piece_fixes(wiring):
    assert wiring.tie(wiring.fresh(2), FROZEN) is FROZEN
    assert wiring.tie(FROZEN, wiring.fresh(2)) is FROZEN
    assert [atoms.tolist() for atoms, _ in wiring.pins] == [[0, 1], [2, 3]]


def test_axes_that_become_one_leave_the_units_of_the_others_as_they_are(wiring):
    label = wiring.fresh_label((2, 3, 4))
    joined = wiring.reshape(label, (2, 12), "Reshape")
    assert wiring.axis_label(joined, 0).tolist() == wiring.axis_label(label, 0).tolist()


def test_an_input_that_is_not_told_of_is_not_stored():
    node = Node(name="n", op="Add", inputs=("a", "b"), outputs=("y",))
    call = Call(node, Wiring(), [Label(()), Label(())], [()], [None, None], stored=(True,))
    assert [call.is_stored(slot) for slot in range(3)] == [True, False, False]


@given(st.integers(2, 6), st.data())
def test_a_unit_that_is_taken_alone_is_noted_and_no_more_of_them_are(size, data):
    wiring = Wiring()
    label = labelled(wiring, (size,), 0)
    chosen = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True))
    wiring.take(label, 0, np.array(chosen), "Gather")
    assert wiring.alone == (len(chosen) == 1)


@given(st.sampled_from(["", "x"]), st.booleans())
def test_a_tensor_is_noted_as_spread_where_it_has_a_name_and_copies(name, is_repeated):
    wiring = Wiring()
    label = labelled(wiring, (2, 3), 0) if is_repeated else wiring.fresh_label((2, 3))
    wiring.reshape(label, (6,), "Reshape", name)
    assert list(wiring.spread) == ([name] if name and is_repeated else [])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=4))
def test_what_is_empty_says_nothing_of_what_it_is_laid_beside(sizes):
    """The units of the other axis move together in all that has any, and in nothing else."""
    wiring, names = Wiring(), tuple(f"x{place}" for place in range(len(sizes)))
    labels = [wiring.fresh_label((2, size)) for size in sizes]
    node = Node(name="n", op="Concat", inputs=names, outputs=("y",), attributes={"axis": 1})
    (out,) = concat(Call(node, wiring, labels, [(2, sum(sizes))], [None] * len(sizes)))
    tied = {atom for one, other in wiring.ties for atom in (*one.ravel().tolist(), *other.ravel().tolist())}
    for label, size in zip(labels, sizes, strict=True):
        if not size:
            assert tied.isdisjoint(atom for part in label.parts for atom in part.ravel().tolist())
    assert out.shape == (2, sum(sizes)) or not sum(sizes)
