"""What is folded: blocks that repeat, by the names of modules or without them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ladder.ladders import random_ladder, twice

from mal_graph.ladder.blocks import FEWEST_ROWS, Collapse, best_repeat, find_folds
from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role, RungEntry
from mal_graph.ladder.rows import find_rows


def stages(counts, layers=3, names="layer{}", own_names=True):
    """A stem, stages of so many blocks of `layers` layers each, and a head."""
    places = [PlaceEntry(name="stem", role=Role.LAYER, kind="conv", path=["stem"] if own_names else [])]
    for stage, count in enumerate(counts, start=1):
        for block in range(count):
            for layer in range(layers):
                path = [names.format(stage), str(block), f"conv{layer}"] if own_names else []
                kind, window = "conv", f"{layer}x{layer}"
                at = len(places)
                place = PlaceEntry(name=f"n{at}", role=Role.LAYER, kind=kind, window=window, path=path, reads=[at - 1])
                places.append(place)
            reads = [len(places) - 1, len(places) - 1 - layers]
            path = [names.format(stage), str(block)] if own_names else []
            places.append(PlaceEntry(name=f"add{len(places)}", role=Role.JOIN, kind="Add", path=path, reads=reads))
    head = PlaceEntry(name="head", role=Role.LAYER, kind="linear", path=["head"] if own_names else [])
    places.append(head.model_copy(update={"reads": [len(places) - 1]}))
    return ModelEntry(name="net", places=places)


def folds_of(ladder, collapse=Collapse.BLOCKS):
    rows = find_rows(ladder)
    return rows, find_folds(ladder, rows, collapse)


def test_stages_are_folded_by_their_names():
    rows, folds = folds_of(LadderEntry(base=stages([2, 4])))
    assert [fold.titles[0] for fold in folds] == ["layer1: 2 x 3 conv", "layer2: 4 x 3 conv"]
    assert [fold.stop - fold.start for fold in folds] == [8, 16]
    assert folds[0].start == 1  # the stem is not folded
    assert folds[-1].stop == len(rows) - 1  # nor is the head


def test_blocks_without_names_are_found_by_what_repeats():
    _, folds = folds_of(LadderEntry(base=stages([4], own_names=False)))
    assert [fold.titles[0] for fold in folds] == ["4 x 3 conv"]


def test_modules_are_folded_whole():
    _, folds = folds_of(LadderEntry(base=stages([2, 4])), Collapse.MODULES)
    assert [fold.titles[0] for fold in folds] == ["layer1: 6 conv", "layer2: 12 conv"]


def paired(base, donor, pairs):
    rungs = [RungEntry(base=a, donor=b, score=0.5, relation="equal", reason="alike") for a, b in pairs]
    return LadderEntry(base=base, donor=donor, rungs=rungs)


def test_both_sides_are_folded_together_and_each_has_its_title():
    base, donor = stages([2]), stages([3], layers=2)
    ends = [(0, 0), (len(base.places) - 1, len(donor.places) - 1)]
    _, folds = folds_of(paired(base, donor, ends))
    assert [fold.titles for fold in folds] == [("layer1: 2 x 3 conv", "layer1: 3 x 2 conv")]


def layer(*path, kind="conv"):
    return PlaceEntry(name="/".join(path), role=Role.LAYER, kind=kind, path=list(path))


def test_a_title_tells_what_lies_in_its_own_fold():
    """A family that something else interrupts is folded in pieces, and each says what is in it alone."""
    blocks = [[layer("layer", str(i), f"conv{j}") for j in range(2)] for i in range(5)]
    places = [*blocks[0], *blocks[1], layer("between"), *blocks[2], *blocks[3], layer("end"), *blocks[4]]
    for index, place in enumerate(places[1:]):
        place.reads = [index]
    _, folds = folds_of(LadderEntry(base=ModelEntry(name="net", places=places)))
    assert [(fold.start, fold.stop, fold.titles[0]) for fold in folds] == [
        *((0, 4, "layer: 2 x 2 conv"), (5, 9, "layer: 2 x 2 conv"))
    ]  # the last block does not repeat where it stands: its rows tell more


def test_a_side_of_a_fold_without_blocks_of_its_own_tells_its_layers():
    base = stages([2])
    kinds = ("conv", "linear", "table")
    alone = [layer(f"other{kind}", kind=kind) for kind in kinds]
    for index, place in enumerate(alone[1:]):
        place.reads = [index]
    _, folds = folds_of(paired(base, ModelEntry(name="net", places=alone), [(1 + i, i) for i in range(3)]))
    assert [fold.titles for fold in folds] == [("layer1: 2 x 3 conv", "1 conv, 1 linear, 1 table")]


def test_what_lies_beside_a_family_is_counted_too():
    base, donor = stages([2]), stages([2])
    donor.places[4:4] = [layer("beside")]  # a join reads it no more, which does not matter here
    donor.places[5].reads = [3]
    pairs = [(1, 1), (2, 2), (3, 3), (len(base.places) - 2 - 1, len(donor.places) - 2 - 1)]
    _, folds = folds_of(paired(base, donor, pairs))
    assert folds[0].titles[1].endswith(" + 1 conv")


def test_a_small_picture_is_not_folded_unless_it_is_asked_for():
    ladder = LadderEntry(base=stages([4]))
    rows = find_rows(ladder)
    assert len(rows) <= FEWEST_ROWS
    assert find_folds(ladder, rows, None) == []
    assert find_folds(ladder, rows, Collapse.BLOCKS)
    assert find_folds(ladder, rows, Collapse.NONE) == []


@given(st.integers(0, 2**31), st.sampled_from(Collapse))
def test_folds_lie_behind_each_other(seed, collapse):
    rows, folds = folds_of(random_ladder(seed), collapse)
    ends = [end for fold in folds for end in (fold.start, fold.stop)]
    assert ends == sorted(ends)
    assert all(0 <= fold.start < fold.stop <= len(rows) and any(fold.titles) for fold in folds)


@given(st.integers(2, 5), st.integers(2, 6))
def test_a_model_beside_itself_folds_into_the_same(count, layers):
    model = stages([count, count + 1], layers=layers)
    _, folds = folds_of(twice(model))
    assert [fold.titles[0] for fold in folds] == [fold.titles[1] for fold in folds]
    assert len(folds) == 2


@pytest.mark.parametrize(("words", "expected"), [("ababab", (2, 3)), ("abcabd", (0, 0)), ("aabaab", (3, 2))])
def test_the_repeat_that_covers_most_is_taken(words, expected):
    assert best_repeat(words, 0, is_layer=lambda at: True) == expected
