"""Donors as a set: whatever order they are given in, the file has the same bytes."""

from functools import partial
from itertools import chain, permutations

import numpy as np
import pytest
from builders import mlp, noisy, save
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.config import MergeConfig
from mal_graph.workflows import donor_order
from mal_graph.workflows.donor_order import in_order_of_content

NAMES = ("one.onnx", "two.onnx", "three.onnx")
WAYS = {
    "mal": {"method": "mal"},
    "average": {"method": "average", "lam": 0.5},
    "linear": {"method": "linear"},
    "karcher": {"method": "karcher"},
    "dare_ties": {"method": "dare_ties", "ancestor": True, "parameters": ["density=0.5"]},
    "opcm": {"method": "opcm", "ancestor": True},
    "union": {"method": "union"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, and three donors that learned from it."""
    folder = tmp_path_factory.mktemp("models")
    base = mlp((6, 8, 8, 3), 0)
    save(base, folder / "base.onnx")
    for seed, name in enumerate(NAMES, 1):
        save(noisy(base, 0.1, seed), folder / name)
    return folder


def written(folder, order, target, *, ancestor=False, parameters=(), of_each=None, **options):
    """The bytes of what is made of donors in this order, each with its own weight."""
    own = [f"{place}:weight={of_each[number]}" for place, number in enumerate(order, 1)] if of_each else []
    result = mal_graph.assemble(
        str(folder / "base.onnx"),
        [str(folder / NAMES[number]) for number in order],
        ancestor=str(folder / "base.onnx") if ancestor else None,
        **({"parameters": [*parameters, *own]} if parameters or own else {}),
        **options,
    )
    result.save(target, overwrite=True)
    return target.read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_the_same_donors_give_the_same_bytes(way, folder, tmp_path):
    made = partial(written, folder, target=tmp_path / "m.onnx", any_order=True, **WAYS[way])
    first, *others = (made(order=order) for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)))
    assert others == [first] * 2


@pytest.mark.parametrize("way", ["mal", "dare_ties"])
def test_without_the_option_the_order_is_a_part_of_the_merge(way, folder, tmp_path):
    made = partial(written, folder, target=tmp_path / "m.onnx", **WAYS[way])
    assert made(order=(0, 1, 2)) != made(order=(1, 0, 2))


def test_what_is_said_of_a_donor_goes_with_it(folder, tmp_path):
    made = partial(written, folder, target=tmp_path / "m.onnx", any_order=True, method="linear")
    weights = (0.1, 0.2, 0.7)
    all_orders = {made(order=order, of_each=weights) for order in permutations(range(3))}
    assert len(all_orders) == 1
    assert made(order=(0, 1, 2), of_each=(0.7, 0.2, 0.1)) not in all_orders


def test_settings_for_some_tensors_keep_their_order():
    """Of two that are for one tensor the last one holds."""
    texts = ["1:weight@b=0.3", "weight=1", "1:weight@a=0.1", "1:density=1", "1:weight=0.5"]
    graphs = [mlp((3, 4, 2), number) for number in range(2)]
    _, moved = in_order_of_content(graphs, MergeConfig(method="ties", parameters=texts))
    assert [one.text for one in moved.parameters] == [
        "weight=1.0",
        "1:density=1.0",
        "1:weight@b=0.3",
        "1:weight@a=0.1",
        "1:weight=0.5",
    ]


def test_a_file_made_so_passes_its_audit(folder, tmp_path):
    target = tmp_path / "m.onnx"
    written(folder, (2, 0, 1), target, any_order=True, method="linear", of_each=(0.1, 0.2, 0.7))
    for names in (NAMES, NAMES[::-1]):
        found = mal_graph.audit(target, [str(folder / name) for name in ("base.onnx", *names)])
        assert found.passed
        assert [check.name for check in found.checks if check.passed] == ["written", "inputs", "repeated"]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_options_for_single_models_are_moved_with_their_models(data):
    """By hand: what is said of the model at a place before is said of the same model at its new place."""
    count = data.draw(st.integers(1, 5))
    graphs = [mlp((3, 4, 2), number).named(f"m{number}") for number in range(count)]
    drawn = [0, *data.draw(st.permutations(range(1, count)))]
    settings_of_each = [
        [f"{place}:{name}={number}" for name in ("weight", "density")] for place, number in enumerate(drawn)
    ]
    given_settings = data.draw(st.permutations(["density=1", *chain.from_iterable(settings_of_each)]))
    each = {f"{place}:x": np.full(2, number) for place, number in enumerate(drawn)}
    config = MergeConfig(method="linear", parameters=given_settings, calibrate_of=each)
    union = MergeConfig(method="union", labels_of=[(f"c{number}", "other") for number in drawn])
    ordered, moved = in_order_of_content([graphs[number] for number in drawn], config)
    same, labelled = in_order_of_content([graphs[number] for number in drawn], union)
    assert same == ordered
    assert {graph.name for graph in ordered} == {graph.name for graph in graphs}
    assert ordered[0] is graphs[0]
    assert [one.name for one in ordered] == [one.name for one in in_order_of_content(graphs, MergeConfig())[0]]
    for place, graph in enumerate(ordered):
        number = graphs.index(graph)
        own = [("density", float(number), place, ""), ("weight", float(number), place, "")]
        assert list(moved.parameters[1 + 2 * place : 3 + 2 * place]) == own
        assert labelled.labels_of[place] == (f"c{number}", "other")
        assert (moved.calibrate_of[f"{place}:x"] == number).all()


def test_an_order_by_place_is_found_out(folder, tmp_path, monkeypatch):
    """A mutation: donors that stay as they are given."""
    monkeypatch.setattr(donor_order, "sorted", lambda values, key: list(values), raising=False)
    made = partial(written, folder, target=tmp_path / "m.onnx", any_order=True, method="mal")
    assert made(order=(0, 1, 2)) != made(order=(1, 0, 2))
