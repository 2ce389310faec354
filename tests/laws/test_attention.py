"""Laws of attention held whole by one operator: its groups are those of the same attention written out, and no fewer
than theory says.

Networks are permuted by hand, by code that knows nothing of axis rules.
"""

from dataclasses import replace

import numpy as np
import pytest
from attention_nets import MICROSOFT, Kind, attention_net, permuted_by_hand, places_of
from builders import Net, deviation, inputs_of, load, permuted_copy, run
from onnx import numpy_helper

import mal_graph
from mal_graph import registry
from mal_graph.compression.staying import find_sets
from mal_graph.errors import ShapeError
from mal_graph.matching import match_layers
from mal_graph.matching.setting_differences import compare_settings
from mal_graph.operators import ROWS, GroupState, attention
from mal_graph.operators.sizes import Layout
from mal_graph.symmetry import axis_groups, build_network, verify

SMALL = 1e-5
MULTI, GROUPED = "MultiHeadAttention", "GroupQueryAttention"
SMALLEST = {"size": 8, "width": 8}  # of a head that onnxruntime's GroupQueryAttention takes
TURNED = {"size": 16, "width": 16, "turned": 16, "rotary": "inside"}
EQUAL = [  # every head of queries has one of keys and values
    Kind(),
    Kind(opset=24, width=5),
    Kind(is_split=True),
    Kind(mask="learned"),
    Kind(mask="stored", softcap=2.0, scale=0.3),
    Kind(mask="boolean", is_causal=True),
    Kind(lengths=True, opset=24),
    Kind(turned=4),
    Kind(turned=4, interleaved=True),
    Kind(turned=4, rotary=MICROSOFT),
    Kind(turned=4, rotary=MICROSOFT, interleaved=True),
    Kind(MULTI),
    Kind(MULTI, bias=True),
    Kind(MULTI, is_split=True),
    Kind(MULTI, width=5, mask="learned", is_causal=True, scale=0.7),
    Kind(GROUPED, 3, 3, **SMALLEST),
]
SHARED = [
    Kind(heads=6, shared=3),
    Kind(heads=6, shared=2, opset=24, width=3, is_split=True),
    Kind(heads=6, shared=3, mask="learned", is_causal=True, softcap=1.5),
    Kind(heads=6, shared=2, turned=4),
    Kind(heads=3, shared=1),
    Kind(GROUPED, 6, 3, **SMALLEST),
    Kind(GROUPED, 6, 2, is_packed=True, **SMALLEST),
    Kind(GROUPED, 6, 3, mask="learned", sinks=True, softcap=2.0, scale=0.3, **SMALLEST),
    Kind(GROUPED, 4, 2, is_packed=True, **TURNED),
    Kind(GROUPED, 4, 2, interleaved=True, **TURNED),
]
PARTLY = [Kind(turned=2), Kind(heads=6, shared=3, turned=2, interleaved=True)]
PAST = [
    *(Kind(op, past=True, told=True) for op in ("Attention", MULTI)),
    Kind(heads=6, shared=2, past=True, told=True),
    Kind(GROUPED, 6, 2, past=True, told=True, **SMALLEST),
]
NORMED = [
    Kind(is_split=True, normed=True),
    Kind(heads=6, shared=3, is_split=True, normed=True),
    Kind(heads=4, shared=2, is_split=True, normed=True, turned=4),
]
FREE = [*EQUAL, *SHARED, *PARTLY]


def each(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


def far(graph, expected):
    inputs = inputs_of(expected, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(expected, inputs, "onnxruntime"))


def described(graph):
    """The groups that may move: the places of each unit on every axis of what is stored, and in which units of which
    group they lie."""
    usable = [group for group in axis_groups(graph).groups if group.is_usable]
    starts = {part: place for name, split in graph.splits.items() for part, place in starts_of(graph, name, split)}
    laid = {group.name: units_of(group, starts) for group in usable}
    return sorted(
        (laid[group.name], None if group.inside is None else (laid[group.inside[0]][group.inside[1]]))
        for group in usable
    )


def starts_of(graph, name, split):
    """For each part of a vector that a Split cuts the vector, and where the part begins."""
    ends = np.cumsum([0, *(graph.weights[part].size for part in split.node.outputs)])
    yield from zip(split.node.outputs, ((name, int(start)) for start in ends), strict=False)


def units_of(group, starts):
    units = []
    for unit in range(group.units):
        places = {}
        for m in group.members:
            name, start = starts.get(m.tensor, (m.tensor, 0))
            places.setdefault((name, m.axis), []).extend((m.positions[unit] + start).tolist())
        units.append(sorted((*axis, *sorted(positions)) for axis, positions in places.items()))
    return sorted(units)


def held(places, shared=slice(None), heads=slice(None), units=slice(None)):
    """Some places on every axis that have them, as they stand in one unit."""
    return {key: array[shared, heads if array.shape[1] > 1 else slice(None), units] for key, array in places.items()}


def one_unit(*chosen):
    """What lies in one unit, by tensor and axis."""
    joined = {}
    for places in chosen:
        for key, array in places.items():
            joined.setdefault(key, []).extend(np.ravel(array).tolist())
    return sorted((*key, *sorted(places)) for key, places in joined.items())


def theory(kind):
    """The groups that the symmetries of attention make, with what they lie in."""
    met, weighted, beside = places_of(kind)
    every, times = (met, weighted, beside), kind.heads // kind.shared
    at = [slice(number, number + 1) for number in range(max(kind.heads, kind.size, kind.width))]
    blocks = [one_unit(*(held(one, at[g]) for one in every)) for g in range(kind.shared)]
    groups = [(sorted(blocks), None)] if kind.shared > 1 else []
    for g in range(kind.shared):
        around = blocks[g] if kind.shared > 1 else None
        queries = [{key: a for key, a in one.items() if a.shape[1] == times and key[0] != "k"} for one in every]
        inner = [
            [one_unit(*(held(one, at[g], at[r]) for one in queries)) for r in range(times if times > 1 else 0)],
            [one_unit(held(met, at[g], units=at[i])) for i in range(kind.turned, kind.size)],
            [one_unit(held(weighted, at[g], units=at[j])) for j in range(kind.width)],
        ]
        groups += [(sorted(units), around) for units in inner if len(units) > 1]
    return sorted(groups)


@each([*FREE, *NORMED, *PAST])
def test_one_operator_computes_what_is_written_out(kind):
    """Else the other laws here would compare two networks that have nothing to do with each other."""
    graph = load(attention_net(kind))
    assert far(load(attention_net(kind, "written out")), graph) < SMALL
    assert far(load(attention_net(kind, "in groups")), graph) < SMALL


@each(FREE)
def test_the_groups_of_one_operator_are_those_of_theory(kind):
    assert described(load(attention_net(kind))) == theory(kind)


@each([*EQUAL, *SHARED, *NORMED])
def test_the_groups_of_one_operator_are_those_of_the_same_written_out(kind):
    whole = described(load(attention_net(kind)))
    assert whole == described(load(attention_net(kind, "written out")))
    assert whole == described(load(attention_net(kind, "in groups")))


@each([kind for kind in NORMED if kind.heads > kind.shared])
def test_normed_heads_that_share_keys_are_one_group_with_all_that_read_them(kind):
    """What is learned once for all heads ties their units to each other, not the heads."""
    groups = axis_groups(load(attention_net(kind, "written out")))
    usable = [group for group in groups.groups if group.is_usable]
    (shared,) = [group for group in usable if group.inside is None and group.units == kind.shared]
    assert {m.tensor: m.positions.shape[1] for m in shared.members} == {
        "q": kind.heads // kind.shared * kind.size,
        "k": kind.size,
        "v": kind.width,
        "o": kind.heads // kind.shared * kind.width,
    }
    inner = [group.units for group in usable if group.inside is not None and group.inside[0] == shared.name]
    assert sorted(inner) == sorted([kind.heads // kind.shared, kind.width] * kind.shared)


@each(PAST)
def test_a_past_that_comes_from_outside_keeps_heads_and_units_where_they_are(kind):
    """What reads the same head may still trade places."""
    groups = described(load(attention_net(kind)))
    assert groups == described(load(attention_net(kind, "in groups")))
    assert groups == described(load(attention_net(kind, "written out")))
    assert len(groups) == (kind.shared if kind.heads > kind.shared else 0)


def test_scores_that_the_model_tells_keep_the_heads_where_they_are():
    net = Net(0, opset=23)
    x = net.input("x", (2, 5, 8))
    q, k, v = (net.op("MatMul", x, net.weight(8, 12, name=name)) for name in "qkv")
    y = net.op("Attention", q, k, v, outputs=4, q_num_heads=3, kv_num_heads=3, qk_matmul_output_mode=1)
    net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
    graph = net.graph(net.op("MatMul", y[0], net.weight(12, 3, name="o")), y[3])
    groups = axis_groups(graph)
    assert [(group.units, group.inside) for group in groups.groups if group.is_usable] == [(4, None)] * 6
    assert far(permuted_copy(graph, groups)[0], graph) < SMALL


def attended_memory(**attributes):
    """Queries that attend to seven stored tokens, in two heads."""
    net = Net(0, opset=23)
    x, memory = net.input("x", (2, 5, 8)), net.weight(1, 7, 8, name="m", scale=1.0)
    memory = net.op("Expand", memory, net.constant([2, 1, 1]))
    q, k, v = (net.op("MatMul", one, net.weight(8, 6)) for one in (x, memory, memory))
    y = net.op("Attention", q, k, v, q_num_heads=2, kv_num_heads=2, **attributes)
    return net.graph(net.op("MatMul", y, net.weight(6, 3)))


def test_stored_tokens_trade_places_unless_places_count():
    graph = attended_memory()
    groups = verify(graph, axis_groups(graph)).groups
    tokens = [group for group in groups if any((m.tensor, m.axis) == ("m", 1) for m in group.members)]
    assert [(group.units, group.state) for group in tokens] == [(7, GroupState.VERIFIED)]
    causal = axis_groups(attended_memory(is_causal=1)).groups
    states = {group.state for group in causal if any((m.tensor, m.axis) == ("m", 1) for m in group.members)}
    assert states == {GroupState.PINNED}


@each([*FREE, *NORMED])
def test_every_group_is_verified(kind):
    graph = load(attention_net(kind))
    groups = verify(graph, axis_groups(graph), full=True)
    free = [group for group in groups.groups if group.state not in (GroupState.PINNED, GroupState.RIGID)]
    assert all(group.state is GroupState.VERIFIED for group in free), [(g.name, g.reason) for g in free]


@each([*FREE, *NORMED, *PAST])
@pytest.mark.parametrize("seed", range(3))
def test_permuting_all_groups_keeps_the_outputs(kind, seed):
    graph = load(attention_net(kind))
    groups = axis_groups(graph)
    assert far(permuted_copy(graph, groups, seed)[0], graph) < SMALL


@each(FREE)
def test_permuting_by_hand_keeps_the_outputs(kind):
    """What theory says is so, whatever the rules make of it."""
    proto = attention_net(kind)
    donor = load(permuted_by_hand(kind, proto, 1), "donor")
    assert any((donor.weights[name].read() != weight.read()).any() for name, weight in load(proto).weights.items())
    assert far(donor, load(proto)) < SMALL


@pytest.mark.sampled(3)
@each(FREE)
@pytest.mark.parametrize("lam", [0.3, 0.5, 1.0])
def test_a_merge_with_a_permuted_copy_gives_the_base_back_and_keeps_nothing(kind, lam):
    """Heads, heads of queries inside those of keys, and the units inside them."""
    proto = attention_net(kind)
    base, donor = load(proto, "base"), load(permuted_by_hand(kind, proto, 1), "donor")
    result = mal_graph.assemble(base, donor, lam=lam, method="mal")
    step = result.merged[0]
    assert not step.plan.skipped
    assert not step.plan.dropped
    assert not step.promises.kept
    assert far(result.graph, base) < 1e-4


# --- wrong rules ------------------------------------------------------------------------------------------------------


def wrongly(what, rule):
    """The rule with one thing left out."""

    def wrong(call):
        with pytest.MonkeyPatch.context() as patched:
            WRONG[what](patched)
            return rule(call)

    return wrong


def forget_values(patched):
    """Heads of values have nothing to do with those of keys."""
    right = attention.attended

    def attended(call, q, k, v, beside):
        return right(call, q, k, call.wiring.fresh_label(v.shape), beside)

    patched.setattr(attention, "attended", attended)


def forget_queries(patched):
    """Units of queries are free of those of keys."""
    right = attention.attended

    def attended(call, q, k, v, beside):
        return right(call, call.wiring.fresh_label(q.shape), k, v, beside)

    patched.setattr(attention, "attended", attended)


def forget_masks(patched):
    """A mask of each head has nothing to do with it, nor have places with their order."""
    right = attention.attended
    patched.setattr(attention, "attended", lambda call, q, k, v, beside: right(call, q, k, v, []))


def forget_tables(patched):
    """Turned units are free."""
    patched.setattr(attention, "pin_turned", lambda *_: None)


def other_groups(patched):
    """Heads that share one lie apart, as far as there are shared ones."""
    right = attention.attended

    def attended(call, q, k, v, beside):
        batch, heads, steps, size = q.shape
        shared = k.shape[1]
        wiring = call.wiring
        apart = wiring.reshape(q, (batch, shared, heads // shared, steps, size), "reshape")
        laid = wiring.reshape(wiring.transpose(apart, (0, 2, 1, 3, 4)), q.shape, "reshape")
        return right(call, laid, k, v, beside)

    patched.setattr(attention, "attended", attended)


WRONG = {one.__name__: one for one in (forget_values, forget_queries, forget_masks, forget_tables, other_groups)}


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("forget_values", Kind()),
        ("forget_queries", Kind()),
        ("forget_queries", Kind(heads=6, shared=3)),
        ("forget_masks", Kind(mask="learned")),
        ("forget_masks", Kind(GROUPED, 6, 3, mask="learned", sinks=True, **SMALLEST)),
        ("forget_tables", Kind(turned=4)),
        ("forget_tables", Kind(turned=4, interleaved=True, rotary=MICROSOFT)),
        ("forget_tables", Kind(GROUPED, 4, 2, is_packed=True, **TURNED)),
        ("other_groups", Kind(heads=6, shared=3)),
    ],
)
def test_a_wrong_rule_is_found_out(what, kind):
    """Its groups move the outputs, and the verification says so."""
    graph = load(attention_net(kind))
    table = {op: replace(row, rule=wrongly(what, row.rule)) for op, row in ROWS.items()}
    groups = axis_groups(graph, table=table)
    assert far(permuted_copy(graph, groups)[0], graph) > 1e-3
    verdicts = verify(graph, groups, table=table).groups
    assert any("rejected by the verification" in group.reason for group in verdicts)


def test_groups_that_may_only_move_together_are_rejected():
    """Of two units each there is only one other order, so that both move alike whenever both move."""
    graph = load(attention_net(Kind(heads=2, shared=2)))
    groups = axis_groups(graph)
    (place,) = [i for i in groups.usable() if groups.groups[i].inside is None]
    heads = groups.groups[place]

    def part(name, columns):
        members = tuple(replace(member, positions=member.positions[:, columns]) for member in heads.members)
        return replace(heads, name=name, members=members)

    halves = [part("first units", slice(0, 2)), part("last units", slice(2, 4))]
    verdicts = verify(graph, replace(groups, groups=tuple(halves))).groups
    assert [group.state for group in verdicts] == [GroupState.FROZEN] * 2


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        (Kind(), {"scale": 0.3}, "Attention scale by the size of a head against 0.3"),
        (Kind(scale=0.5), {"scale": 0.3}, "Attention scale 0.5 against 0.3"),
        (Kind(), {"is_causal": True}, "Attention is_causal 0 against 1"),
        (Kind(), {"softcap": 2.0}, "Attention softcap 0 against 2"),
        (Kind(mask="learned"), {"softcap": 2.0}, "Attention softcap 0 against 2"),
        (Kind(MULTI), {"is_causal": True}, "com.microsoft.MultiHeadAttention unidirectional 0 against 1"),
        (Kind(turned=4), {"interleaved": True}, "RotaryEmbedding interleaved 0 against 1"),
        (
            Kind(GROUPED, 4, 2, **TURNED),
            {"interleaved": True},
            "com.microsoft.GroupQueryAttention rotary_interleaved 0 against 1",
        ),
    ],
    ids=lambda one: getattr(one, "name", str(one)),
)
def test_settings_that_make_another_function_are_told(kind, changed, said):
    base, donor = (load(attention_net(one)) for one in (kind, replace(kind, **changed)))
    pairs = match_layers(base, donor).pairs
    assert said in {difference.what for pair in pairs for difference in pair.differences}
    alike = match_layers(base, load(attention_net(kind, seed=1))).pairs
    assert not [difference.what for pair in alike for difference in pair.differences]


@pytest.mark.parametrize("kind", [Kind(turned=4), Kind(turned=4, rotary=MICROSOFT), Kind(GROUPED, 4, 2, **TURNED)])
def test_tables_of_a_rotation_are_settings(kind):
    """They are kept, never averaged, and what differs is said."""
    base, donor = load(attention_net(kind), "base"), attention_net(kind, seed=1)
    for tensor in donor.graph.initializer:
        if tensor.name in ("cos", "sin"):
            turned = getattr(np, tensor.name)(np.outer(np.arange(5), 0.2 ** np.arange(kind.turned // 2)))
            tensor.CopyFrom(numpy_helper.from_array(turned.astype(np.float32), tensor.name))
    donor = load(donor, "donor")
    result = mal_graph.assemble(base, donor, lam=0.5, method="mal", assume_ordered=True)
    for name in ("cos", "sin"):
        assert np.array_equal(result.graph.weights[name].read(), base.weights[name].read())
    lines, _ = compare_settings(base, donor, match_layers(base, donor))
    assert any("cos differs from the donor's" in line for own in lines.values() for line in own)


@each([Kind(mask="stored"), Kind(mask="boolean")])
def test_a_stored_mask_is_a_setting(kind):
    graph = load(attention_net(kind))
    assert "mask" not in {parameter.tensor for parameter in axis_groups(graph).parameters}
    result = mal_graph.assemble(graph, load(attention_net(kind, seed=1)), lam=0.5, method="mal", assume_ordered=True)
    assert np.array_equal(result.graph.weights["mask"].read(), graph.weights["mask"].read())


# --- sizes ------------------------------------------------------------------------------------------------------------


@each([Kind(), Kind(heads=6, shared=3), Kind(GROUPED, 6, 3, **SMALLEST)])
def test_a_union_takes_heads_and_units_of_values(kind):
    """Of what has heads of one size, whole heads alone."""
    network = build_network(load(attention_net(kind)))
    sets = find_sets(network, registry.runner())
    going = [one for one in sets if not one.reason]
    inside = [one for one in going if {m.tensor for group in one.groups for m in group.members} == {"v", "o"}]
    assert len(inside) == (kind.op != GROUPED)
    assert len(going) == len(inside) + (2 if kind.shared < kind.heads else 1)


def test_heads_that_are_not_whole_have_no_number():
    layout = Layout(8, np.array([0, 1, 2, 3, 4, 5, 6]), np.zeros(7, int))
    with pytest.raises(ShapeError, match="its heads have one size"):
        attention.whole_heads(layout, 2)


GROWN = [
    (Kind(), {"heads": 5, "shared": 5}),
    (Kind(), {"width": 6}),
    (Kind(is_split=True), {"heads": 5, "shared": 5}),
    (Kind(turned=4), {"heads": 5, "shared": 5}),
    (Kind(heads=6, shared=3), {"heads": 10, "shared": 5}),
    (Kind(heads=6, shared=3), {"heads": 9, "shared": 3}),
    (Kind(MULTI, bias=True), {"heads": 5, "shared": 5}),
    (Kind(GROUPED, 6, 3, **SMALLEST), {"heads": 8, "shared": 4}),
    (Kind(GROUPED, 6, 3, is_packed=True, **SMALLEST), {"heads": 12, "shared": 3}),
]


@pytest.mark.sampled(10)
@pytest.mark.parametrize(("kind", "changed"), GROWN, ids=lambda one: getattr(one, "name", str(one)))
@pytest.mark.parametrize("way", ["wider", "narrower"])
def test_a_donor_with_other_heads_is_reached_exactly_and_the_base_is_where_it_starts(kind, changed, way):
    own, other = (kind, replace(kind, **changed)) if way == "wider" else (replace(kind, **changed), kind)
    base, donor = load(attention_net(own, seed=0), "base"), load(attention_net(other, seed=1), "donor")
    for lam, goal in ((0.0, base), (1.0, donor)):
        result = mal_graph.assemble(base, donor, lam=lam, width="grow", method="mal", assume_ordered=True)
        assert not result.merged[0].plan.skipped
        assert not result.merged[0].plan.growth.kept
        assert far(result.graph, goal) < SMALL


@pytest.mark.parametrize(
    ("kind", "changed"),
    [(Kind(), {"size": 6}), (Kind(GROUPED, 6, 3, **SMALLEST), {"size": 16, "width": 16})],
    ids=lambda one: getattr(one, "name", str(one)),
)
def test_queries_and_keys_keep_the_size_of_their_heads(kind, changed):
    """It decides how scores are scaled."""
    base, donor = load(attention_net(kind, seed=0)), load(attention_net(replace(kind, **changed), seed=1))
    result = mal_graph.assemble(base, donor, lam=0.0, width="grow", method="mal", assume_ordered=True)
    assert any("is taken over its units" in why for why in result.merged[0].plan.growth.kept.values())
    assert far(result.graph, base) < SMALL
