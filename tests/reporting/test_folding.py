"""Tables of layers in the terminal: in the order of the picture, with blocks that repeat in one row."""

from hypothesis import given
from hypothesis import strategies as st
from ladder.ladders import random_ladder
from ladder.test_blocks import stages

from mal_graph.ladder import LadderEntry, Role
from mal_graph.ladder.entries import RungEntry
from mal_graph.reporting.folding import layer_table, match_table
from mal_graph.reporting.tables import table_text

SEEDS = st.integers(0, 2**31)


def cells(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


@given(SEEDS, st.booleans())
def test_every_layer_stands_in_the_table_once(seed, verbose):
    ladder = random_ladder(seed, most=9)
    table, hidden = match_table(ladder, verbose=verbose)
    assert hidden == 0
    for side, (_, model) in enumerate(ladder.sides()):
        names = [row[side] for row in cells(table) if row[side] != "-"]
        assert sorted(names) == sorted(place.name for place in model.places if place.role is Role.LAYER)
    assert len([row for row in cells(table) if "-" not in row[:2]]) == len(ladder.rungs)


def deep_pair():
    base, donor = stages([6, 7]), stages([6, 8])
    layers = [[i for i, place in enumerate(m.places) if place.role is Role.LAYER] for m in (base, donor)]
    rungs = [
        RungEntry(base=a, donor=b, score=0.5, relation="equal", reason="alike")
        for a, b in zip(layers[0], layers[1], strict=False)
    ]
    return LadderEntry(base=base, donor=donor, rungs=rungs)


def test_blocks_that_repeat_stand_in_one_row_unless_all_is_asked_for():
    ladder = deep_pair()
    table, hidden = match_table(ladder, verbose=False)
    rows = cells(table)
    assert ("layer1: 6 x 3 conv", "layer1: 6 x 3 conv", "0.50", "", "", "18 pairs") in rows
    assert hidden + len(rows) > 40 > len(rows)
    opened, none = match_table(ladder, verbose=True)
    assert none == 0
    assert len(cells(opened)) > 40


def test_the_layers_of_one_model_are_folded_likewise():
    ladder = LadderEntry(base=stages([6, 7]))
    own = {place.name: (place.kind,) for place in ladder.base.places}
    table, hidden = layer_table(ladder, own, ("layer", "kind"), is_open=False)
    assert [row[0] for row in cells(table)] == ["stem", "layer1: 6 x 3 conv", "layer2: 7 x 3 conv", "head"]
    assert hidden == 39
    assert len(cells(layer_table(ladder, own, ("layer", "kind"), is_open=True)[0])) == 41


def test_a_table_is_folded_to_80_columns():
    text = table_text(match_table(deep_pair(), verbose=False)[0], width=80)
    assert max(map(len, text.splitlines())) <= 80
