"""Inputs and outputs are paired by name, by place where no name is common, or by hand."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, run, save

import mal_graph
from mal_graph.cli import app
from mal_graph.errors import MatchError, UsageError
from mal_graph.graph import LayerGraph, Value
from mal_graph.matching import pair_signatures, tell_pairs
from mal_graph.matching.signatures import batched_inputs
from mal_graph.reporting.documents import assemble_document, match_document
from mal_graph.reporting.text import text_of
from mal_graph.workflows import Comparison


def signed(inputs, outputs="y", name="net", shape=("N", 4)):
    """A graph with a signature alone."""
    values = [tuple(Value(one, "float32", shape) for one in side) for side in (inputs, outputs)]
    return LayerGraph(name, (), *values, {}, {"": 20})


def paired(mine, theirs, by_hand=()):
    return pair_signatures(signed(*mine), signed(*theirs), by_hand)


def test_equal_names_are_paired_wherever_they_are_listed():
    found = paired(("uv", "yz"), ("vu", "zy"))
    assert (found.inputs, found.outputs) == ({"u": "u", "v": "v"}, {"y": "y", "z": "z"})
    assert found.by == ("name", "name")


def test_names_of_which_none_is_common_are_paired_by_place():
    found = paired(("uv", "y"), ("ab", "y"))
    assert found.inputs == {"u": "a", "v": "b"}
    assert found.by == ("place", "name")
    assert found.called == {"a": "u", "b": "v", "y": "y"}


def test_names_that_are_common_in_part_say_nothing():
    with pytest.raises(
        MatchError, match=r"which of the inputs of net \(u, w\) is which .* pair the others with `pair`"
    ):
        paired(("uv", "y"), ("uw", "y"))
    with pytest.raises(MatchError, match="which of the outputs"):
        paired(("u", "yz"), ("u", "yw"))


def test_outputs_that_one_has_beside_those_of_the_other_are_left():
    assert paired(("u", "yz"), ("u", "z")).outputs == {"z": "z"}
    assert paired(("u", "z"), ("u", "yz")).outputs == {"z": "z"}


def test_pairs_by_hand_come_before_names():
    found = paired(("uv", "y"), ("uv", "y"), [("u", "v"), ("v", "u")])
    assert found.inputs == {"u": "v", "v": "u"}
    assert (found.by, found.by_hand) == (("hand", "name"), {"u", "v"})
    assert paired(("uv", "y"), ("uw", "y"), [("v", "w")]).inputs == {"v": "w", "u": "u"}


def test_pairs_given_again_are_the_same():
    found = paired(("uv", "yz"), ("ab", "zy"))
    assert pair_signatures(signed("uv", "yz"), signed("ab", "zy"), found.pairs).called == found.called


@pytest.mark.parametrize(
    ("by_hand", "told"),
    [
        ([("x", "u")], "`pair` names 'x', which is no input or output of the base net: it has u, v, y"),
        ([("u", "x")], "`pair` names 'x', which is no input or output of the donor net"),
        ([("u", "y")], "`pair` puts 'u' beside 'y': pair inputs with inputs"),
        ([("u", "u"), ("u", "v")], "`pair` names 'u' of the base twice"),
        ([("u", "v"), ("v", "v")], "`pair` names 'v' of the donor twice"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(by_hand, told):
    with pytest.raises(UsageError, match=told):
        paired(("uv", "y"), ("uv", "y"), by_hand)


def test_what_is_given_for_the_base_goes_by_the_names_of_the_donor():
    assert paired(("uv", "y"), ("ab", "y")).for_donor({"v": 1, "other": 2}) == {"b": 1, "other": 2}


def test_other_names_and_orders_are_told():
    told = [
        list(tell_pairs(base, donor, pair_signatures(base, donor, by_hand)))
        for base, donor, by_hand in (
            (signed("uv"), signed("uv"), ()),
            (signed("uv"), signed("vu", name="d"), ()),
            (signed("u"), signed("v", name="d"), ()),
            (signed("uv"), signed("uw", name="d"), [("v", "w")]),
        )
    ]
    assert told == [
        [],
        ["d lists its inputs in another order than the base: they are paired by name"],
        ["input 'v' of d is input 'u' of the base (by place)"],
        ["input 'w' of d is input 'v' of the base (by hand)"],
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "batched"),
    [("N", "N", ["u"]), ("N", 3, ["u"]), (3, "N", ["u"]), (1, 4, ["u"]), (3, 3, [])],
)
def test_the_first_axis_holds_samples_unless_both_fix_it_alike(mine, theirs, batched):
    base, donor = (signed("u", shape=(first, 4)) for first in (mine, theirs))
    assert batched_inputs(base, donor, {"u": "u"}) == batched


# --- in a merge ----------------------------------------------------------------------------------------------------


def two_inputs(names="uv", order=(0, 1), widths=(4, 4), seed=0):
    """One function of two inputs, that are listed in an order and called something."""
    net = Net(seed, name="net")
    inputs = {i: net.input(names[i], ("N", widths[i])) for i in order}
    sides = [net.linear(inputs[i], widths[i], 6) for i in (0, 1)]
    return net.graph(net.linear(net.op("Relu", net.op("Add", *sides)), 6, 3))


DONORS = {
    "listed in another order": (two_inputs(order=(1, 0)), ()),
    "listed in another order, of other widths": (two_inputs(order=(1, 0), widths=(4, 5)), ()),
    "of other names": (two_inputs("ab"), ()),
    "of other names in another order": (two_inputs("ab", order=(1, 0)), {"u": "a", "v": "b"}),
    "of crossed names": (two_inputs("vu"), {"u": "v", "v": "u"}),
}


@pytest.mark.parametrize("kind", DONORS)
@pytest.mark.parametrize("width", ["base", "grow"])
def test_a_donor_gives_the_base_back_whatever_its_inputs_are_called(kind, width):
    donor, pair = DONORS[kind]
    base = two_inputs(widths=(4, 5)) if "widths" in kind else two_inputs()
    inputs = dict(inputs_of(base))
    calibrate = {
        value.name: np.random.default_rng(i).normal(size=(64, value.shape[1])) for i, value in enumerate(base.inputs)
    }
    data = {**calibrate, "labels": np.arange(64) % 3}
    options = {"pair": pair, "inputs": inputs, "calibrate": calibrate, "match_by": "both", "width": width}
    result = mal_graph.assemble(base, donor, lam=0.5, data=data, **options)
    assert result.merged[0].plan.skipped == {}
    assert deviation(run(result.graph, inputs), run(base, inputs)) <= 1e-4
    scores = {one.arm: one.loss for one in result.scores}
    assert scores["donor"] == pytest.approx(scores["base"], rel=1e-5)
    (entry,) = assemble_document(result).signatures
    assert entry.inputs == dict(result.merged[0].signatures.inputs)
    assert [line in text_of(assemble_document(result)) for line in entry.told] == [True] * len(entry.told)


def test_two_models_whose_inputs_cannot_be_paired_are_refused_in_a_sentence(tmp_path, capfd):
    base, donor = (
        str(save(graph, tmp_path / f"{name}.onnx"))
        for name, graph in zip("ab", (two_inputs(), two_inputs("uw")), strict=True)
    )
    assert app.main(["assemble", base, donor, "--dry-run", "--method", "mal"]) == app.BAD_INPUT
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: cannot tell which of the inputs of ")
    assert told.endswith("pair the others with --pair")
    assert app.main(["assemble", base, donor, "--dry-run", "--pair", "v=w", "--method", "mal"]) == app.GOOD
    assert "is input 'v' of the base (by hand)" in capfd.readouterr().out


def test_match_shows_layers_of_models_that_cannot_be_paired():
    base, donor = two_inputs(), two_inputs("uw")
    document = match_document(Comparison(base, donor, mal_graph.match_layers(base, donor)))
    assert document.pairs
    assert "cannot tell which of the inputs" in text_of(document)
    assert match_document(Comparison(base, donor, mal_graph.match_layers(base, donor)), [("v", "w")]).signatures.by == [
        "name",
        "name",
    ]


# --- models of two inputs that are joined -------------------------------------------------------------------------


def joined(first, second, seed=0):
    net = Net(seed)
    x, y = net.input(first, ("N", 3)), net.input(second, ("N", 4))
    both = net.op("Concat", x, y, axis=1)
    return net.graph(net.op("Gemm", both, net.weight(5, 7), transB=1))


def test_equal_names_pair_by_name_in_any_order():
    base = joined("a", "b")
    donor = joined("b", "a")
    found = pair_signatures(base, donor)
    assert found.inputs == {"a": "a", "b": "b"}
    assert found.by[0] == "name"


def test_other_names_pair_by_place():
    found = pair_signatures(joined("a", "b"), joined("u", "v"))
    assert found.inputs == {"a": "u", "b": "v"}
    assert found.by[0] == "place"


def test_names_shared_in_part_are_refused_unless_paired_by_hand():
    base, donor = joined("a", "b"), joined("a", "v")
    with pytest.raises(MatchError, match="have only a in common; pair the others with `pair`"):
        pair_signatures(base, donor)
    found = pair_signatures(base, donor, [("b", "v")])
    assert found.inputs == {"b": "v", "a": "a"}


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([("q", "a")], "'q', which is no input or output of the base"),
        ([("a", "q")], "'q', which is no input or output of the donor"),
        ([("a", "a"), ("a", "b")], "'a' of the base twice"),
    ],
)
def test_what_cannot_be_paired_by_hand(pairs, why):
    with pytest.raises(UsageError, match=why):
        pair_signatures(joined("a", "b"), joined("a", "b"), pairs)
