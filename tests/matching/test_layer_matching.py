"""Which layer corresponds to which: by structure, never by name, and never against the order of layers."""

import networkx as nx
import pytest
from builders import (
    Net,
    cnn,
    deviation,
    inputs_of,
    light,
    mlp,
    narrower,
    permuted_copy,
    places,
    renamed_copy,
    run,
    wider,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import MatchError
from mal_graph.matching import explain_layer, find_layer_edges, match_itself, match_layers
from mal_graph.matching.exchanges import Pairing
from mal_graph.matching.layer_profile import profile_layers
from mal_graph.network import find_layers
from mal_graph.symmetry import axis_groups


def names(match):
    """Pairs by layer name."""
    return {pair.base.name: pair.donor.name for pair in match.pairs}


def is_identity(match):
    return places(match) == [(i, i) for i in range(len(match.base))]


def reversals(base, donor, match):
    """Pairs of pairs whose order is one way in the base and the other way in the donor, found by paths of operators."""
    reach = [nx.transitive_closure_dag(nx.DiGraph(graph.network)) for graph in (base, donor)]

    def before(side, one, other):
        return any(reach[side].has_edge(i, j) for i in one.nodes for j in other.nodes)

    pairs = [(pair.base, pair.donor) for pair in match.pairs]
    return [
        (one[0].name, other[0].name)
        for one in pairs
        for other in pairs
        if one is not other and before(0, one[0], other[0]) and before(1, other[1], one[1])
    ]


NETWORKS = {
    "mlp": mlp,
    "cnn": cnn,
    "two blocks": lambda seed=0: cnn((4, 6), 2, seed),
    "concat": lambda seed=0: cnn(seed=seed, concat=True, head="flatten"),
    "depthwise": lambda seed=0: cnn(seed=seed, depthwise=True),
    "without skips": lambda seed=0: cnn((4, 4, 4), 2, seed, residual=False),
}


# --- the same architecture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_two_networks_of_one_architecture_match_layer_by_layer(build):
    match = match_layers(build(seed=0), build(seed=1))
    assert is_identity(match)
    assert not match.unmatched_base
    assert not match.unmatched_donor
    assert {pair.reason for pair in match.pairs} == {"the same place in graphs of the same structure"}
    assert {pair.relation for pair in match.pairs} == {"equal"}


@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "inception_v2", "densenet121"])
def test_a_published_architecture_matches_itself(name):
    graph = light(name)
    assert is_identity(match_layers(graph, graph))


@pytest.mark.parametrize("build", [mlp, cnn])
def test_a_model_is_paired_with_itself_as_a_search_by_names_does(build):
    graph = build()
    named = match_layers(graph, graph, [(layer.name, layer.name) for layer in find_layers(graph)])
    itself = match_itself(find_layers(graph))
    assert [(p.base, p.donor, p.relation, p.differences) for p in itself.pairs] == [
        (p.base, p.donor, p.relation, p.differences) for p in named.pairs
    ]
    assert (itself.base, itself.donor, itself.unmatched_base) == (named.base, named.donor, named.unmatched_base)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("change", [permuted_copy, narrower, wider])
def test_shuffling_and_resizing_a_donor_changes_no_pair(build, change):
    base, donor = build(seed=0), build(seed=1)
    changed, _ = change(donor, axis_groups(donor), 2)
    assert names(match_layers(base, changed)) == names(match_layers(base, donor))


def test_a_donor_in_another_style_matches():
    for style in ("gemm_nt", "matmul", "transposed"):
        assert is_identity(match_layers(mlp(), mlp(seed=1, style=style)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_names_and_file_order_change_no_pair(build, seed):
    base, donor = build(seed=0), build(seed=1)
    copy, new = renamed_copy(donor, seed)
    found = match_layers(base, copy)
    assert names(found) == {one: new[other] for one, other in names(match_layers(base, donor)).items()}


@pytest.mark.parametrize("seed", range(3))
def test_renaming_the_base_changes_no_pair(seed):
    base, donor = cnn((4, 6), 2, 0), cnn((6, 6, 8), 1, 1, concat=True)
    copy, new = renamed_copy(base, seed)
    expected = {new[one]: other for one, other in names(match_layers(base, donor)).items()}
    assert names(match_layers(copy, donor)) == expected


def test_a_renamed_published_architecture_matches_by_structure():
    """Its weights are constants: nothing but the structure tells layers apart."""
    graph = light("squeezenet")
    copy, new = renamed_copy(graph, 3)
    assert names(match_layers(graph, copy)) == {layer.name: new[layer.name] for layer in profile_layers(graph).layers}


# --- other depths and widths ------------------------------------------------------------------------------------

architectures = st.one_of(
    st.builds(
        cnn,
        st.lists(st.sampled_from([3, 4, 6]), min_size=1, max_size=3),
        st.integers(0, 2),
        st.integers(0, 9),
        bn=st.booleans(),
        residual=st.booleans(),
        concat=st.booleans(),
        depthwise=st.booleans(),
    ),
    st.builds(
        lambda hidden, seed: mlp((8, *hidden, 5), seed), st.lists(st.integers(3, 9), max_size=4), st.integers(0, 9)
    ),
)


@settings(max_examples=50)
@given(architectures, architectures)
def test_no_pair_reverses_the_order_of_another(base, donor):
    match = match_layers(base, donor)
    assert reversals(base, donor, match) == []


@settings(max_examples=50)
@given(architectures, architectures)
def test_every_layer_is_paired_once_or_has_a_reason(base, donor):
    match = match_layers(base, donor)
    for paired, reasons, found in (
        ([pair.base.name for pair in match.pairs], match.unmatched_base, match.base),
        ([pair.donor.name for pair in match.pairs], match.unmatched_donor, match.donor),
    ):
        assert sorted([*paired, *reasons]) == sorted(layer.name for layer in found)
        assert all(reasons.values())
    a, b = profile_layers(base), profile_layers(donor)  # a linear layer may correspond to a convolution of one tap
    assert all(a.meanings[i] & b.meanings[j] for i, j in places(match))
    assert all(0 <= pair.score <= 1 for pair in match.pairs)


def crossing(net, first, second):
    """Two convolutions between a stem and a head, given as (kernel, channels in, channels out)."""
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, first[1]))
    for kernel, units_in, units in (first, second):
        x = net.op("Relu", net.conv(x, units_in, units, kernel))
    return net.graph(net.conv(x, second[2], 2))


def test_layers_that_stand_in_opposite_order_are_not_both_paired():
    base, donor = crossing(Net(0), (1, 4, 16), (3, 16, 4)), crossing(Net(1), (3, 16, 4), (1, 4, 16))
    match = match_layers(base, donor)
    assert set(places(match)) >= {(0, 0), (3, 3)}
    assert reversals(base, donor, match) == []


def test_without_the_rule_they_would_be_paired_in_reverse(monkeypatch):
    """The law has something to forbid."""
    monkeypatch.setattr(Pairing, "is_monotone", lambda *arguments: True)
    base, donor = crossing(Net(0), (1, 4, 16), (3, 16, 4)), crossing(Net(1), (3, 16, 4), (1, 4, 16))
    assert reversals(base, donor, match_layers(base, donor))


def test_a_deeper_network_keeps_the_first_and_the_last_layer():
    base, donor = cnn((6,), 1), cnn((6,), 3, 1)
    match = match_layers(base, donor)
    assert places(match)[0] == (0, 0)
    assert places(match)[-1] == (len(match.base) - 1, len(match.donor) - 1)
    assert not match.unmatched_base
    assert len(match.unmatched_donor) == 4


def test_why_a_layer_has_no_partner():
    match = match_layers(cnn((6,), 1, depthwise=True), cnn((6,), 1, 1))
    reasons = set(match.unmatched_base.values())
    assert reasons == {"the other model has no layer of kind conv with such a window"}
    match = match_layers(mlp((8, 6, 5)), mlp((8, 6, 6, 6, 5), 1))
    (first, *_) = match.unmatched_donor.values()
    assert "corresponds to" in first or "would reverse the order of layers" in first


@pytest.mark.parametrize(
    ("widths", "relation"),
    [
        ((8, 6, 5), "equal"),
        ((8, 4, 5), "size-compatible"),
        ((8, 9, 5), "size-compatible"),
    ],
)
def test_the_relation_of_widths_is_named(widths, relation):
    assert match_layers(mlp((8, 6, 5)), mlp(widths, 1)).pairs[0].relation == relation


def test_wider_on_one_side_and_narrower_on_the_other_is_size_incompatible():
    match = match_layers(mlp((8, 4, 9, 5)), mlp((8, 9, 4, 5), 1))
    assert [pair.relation for pair in match.pairs] == ["size-compatible", "size-incompatible", "size-compatible"]


# --- pairs by hand ----------------------------------------------------------------------------------------------


def layer_names(graph):
    return [layer.name for layer in profile_layers(graph).layers]


def test_given_pairs_replace_the_found_ones_and_may_cross():
    base, donor = mlp((8, 6, 6, 6, 5)), mlp((8, 6, 6, 6, 5), 1)
    left, right = layer_names(base), layer_names(donor)
    match = match_layers(base, donor, [(left[1], right[2]), (left[2], right[1])])
    assert places(match) == [(1, 2), (2, 1)]
    assert (list(match.unmatched_base), list(match.unmatched_donor)) == ([left[0], left[3]], [right[0], right[3]])
    assert reversals(base, donor, match)


def test_an_unknown_layer_is_answered_with_the_nearest_names():
    base, donor = mlp(), mlp(seed=1)
    with pytest.raises(MatchError, match=r"mlp 8-16-12-10.onnx has no layer 'Gem_2': did you mean '?Gemm_2'? or"):
        match_layers(base, donor, [("Gem_2", "Gemm_2")])


def test_a_layer_unknown_to_the_donor_names_the_donor():
    with pytest.raises(MatchError, match=r"mlp 8-9-10.onnx has no layer 'Gemm_4': did you mean 'Gemm_"):
        match_layers(mlp(), mlp((8, 9, 10)), [("Gemm_4", "Gemm_4")])


def test_a_layer_cannot_be_paired_twice():
    base, donor = mlp(), mlp(seed=1)
    with pytest.raises(
        MatchError, match=r"pair 'Gemm_0' - 'Gemm_2' uses a layer a second time: pair every layer at most"
    ):
        match_layers(base, donor, [("Gemm_0", "Gemm_0"), ("Gemm_0", "Gemm_2")])
    with pytest.raises(MatchError, match=r"pair 'Gemm_2' - 'Gemm_0' uses a layer a second time"):
        match_layers(base, donor, [("Gemm_0", "Gemm_0"), ("Gemm_2", "Gemm_0")])


def test_layers_of_different_kinds_cannot_be_paired():
    base, donor = cnn((4,), 0), mlp()
    with pytest.raises(MatchError, match=r"cannot pair 'Conv_0' \(conv\) with 'Gemm_0' \(linear\): pair layers of the"):
        match_layers(base, donor, [("Conv_0", "Gemm_0")])


def test_an_empty_list_of_pairs_is_no_match():
    with pytest.raises(MatchError, match=r"no layer of .* corresponds to a layer of"):
        match_layers(mlp(), mlp(seed=1), [])


def test_networks_without_a_layer_in_common_do_not_match():
    net = Net(0)
    base = net.graph(net.conv(net.input("x", ("N", 3, 4, 4)), 3, 4))
    with pytest.raises(
        MatchError, match=r"no layer of mlp.* net.onnx: found 1 conv against 3 linear; .*give pairs by hand"
    ):
        match_layers(base, mlp())


def test_an_explanation_ranks_donor_layers_and_says_why():
    base, donor = cnn((4, 6), 2), cnn((4, 6), 2, 1)
    name = layer_names(base)[3]
    ranked = explain_layer(base, donor, name)
    assert ranked[0][0] == name
    assert [score for _, score, _ in ranked] == sorted((score for _, score, _ in ranked), reverse=True)
    assert all(0 <= part <= 1 for _, _, parts in ranked for part in parts.values())


# --- branches alike ----------------------------------------------------------------------------------------------


def lane(net, x, widths):
    """Linear layers one after the other."""
    for before, width in zip((6, *widths), widths, strict=False):
        x = net.op("Relu", net.linear(x, before, width))
    return x


def lanes(seed, widths, others):
    """Two lanes of linear layers from one input to one sum."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    return net.graph(net.op("Add", lane(net, x, widths), lane(net, x, others)))


def steps_kept(base, donor, match):
    """Whether layers that follow each other do so in both models."""
    partner = names(match)
    mine, theirs = (set(find_layer_edges(graph, side)) for graph, side in ((base, match.base), (donor, match.donor)))
    return {(partner[i], partner[j]) for i, j in mine} == theirs


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_of_lanes_alike_the_layers_of_one_answer_to_the_layers_of_one(seed, depth):
    base, donor = lanes(seed, (8,) * depth, (8,) * depth), lanes(seed + 1, (9,) * depth, (9,) * depth)
    assert steps_kept(base, donor, match_layers(base, donor))


@given(st.integers(0, 10_000))
def test_lanes_alike_are_told_apart_by_widths_further_on(seed):
    base, donor = lanes(seed, (8, 8, 20, 5), (8, 8, 3, 5)), lanes(seed + 1, (9, 9, 4, 5), (9, 9, 30, 5))
    match = match_layers(base, donor)
    assert steps_kept(base, donor, match)
    partner = {pair.base.in_out: pair.donor.in_out for pair in match.pairs}
    assert partner[20, 5] == (30, 5)


def gated(seed):
    """Two convolutions that read the same; one goes through an activation before they are multiplied."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    y = net.op("Mul", net.op("Relu", net.conv(x, 6, 8, 1)), net.conv(x, 6, 8, 1))
    return net.graph(net.conv(y, 8, 4))


def two_norms(seed):
    """A sum that two norms read, each with a head of its own."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", 6)), 6, 8)
    heads = [net.linear(net.norm(x, 8), 8, 3) for _ in range(2)]
    return net.graph(net.op("Add", *heads))


def standardised(seed):
    """Two convolutions added up, of which each has the mean taken off its weight; one of them stands deeper."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))

    def centred(x):
        weight = net.weight(8, 6, 1, 1)
        mean = net.op("ReduceMean", weight, net.constant([1, 2, 3]), keepdims=1)
        return net.op("Conv", x, net.op("Sub", weight, mean))

    return net.graph(net.conv(net.op("Add", centred(net.op("Relu", net.conv(x, 6, 6))), centred(x)), 8, 4))


BRANCHED = (gated, two_norms, standardised, lambda seed: lanes(seed, (8, 8, 5), (8, 8, 5)))


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(BRANCHED))
def test_at_lambda_1_branches_alike_compute_what_the_donor_does(seed, build):
    base, donor = build(seed), build(seed + 1)
    result = mal_graph.assemble(base, donor, lam=1.0, verify=False)
    inputs = inputs_of(donor)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) <= 1e-5


def test_heads_are_told_apart_by_the_names_of_their_outputs():
    """Three heads alike, listed in another order in the donor, which names them alike."""
    net = Net(0)
    trunk = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, 9))
    heads = [net.linear(trunk, 9, units) for units in (3, 3, 2)]
    base, donor = net.graph(*heads), net.graph(*heads[::-1])
    for strict in ({name: name for name in heads}, None):
        match = match_layers(base, donor, outputs=strict)
        assert all(pair.base.name == pair.donor.name for pair in match.pairs) or strict is None
    crossed = match_layers(base, donor, outputs={heads[0]: heads[1], heads[1]: heads[0], heads[2]: heads[2]})
    partners = {pair.base.name: pair.donor.name for pair in crossed.pairs}
    first, second = (base.nodes[base.producer[name]].name for name in heads[:2])
    assert (partners[first], partners[second]) == (second, first)
