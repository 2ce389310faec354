"""Laws of recurrent layers: the hidden units of each direction are one group, in every gate and wherever they lie.

Donors are permuted by hand in the tensors of the file, by code that knows nothing of axis rules.
"""

import io
import warnings
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from builders import Net, deviation, inputs_of, load, run
from onnx import numpy_helper
from recurrent_nets import WAYS, Kind, permuted_by_hand, positions, recurrent_net

import mal_graph
from mal_graph.matching import match_layers
from mal_graph.operators import GroupState
from mal_graph.symmetry import axis_groups, verify
from mal_graph_adapters.onnx_format.edit import edited_model

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

SMALL = 1e-4
KINDS = [
    *(
        Kind(op, directions, units, bias=bias)
        for op in ("LSTM", "GRU", "RNN")
        for directions in (1, 2)
        for units in ((6,), (6, 7))
        for bias in (True, False)
    ),
    *(Kind("LSTM", directions, (6, 5), peepholes=True) for directions in (1, 2)),
    *(Kind("GRU", directions, (6, 5), after=True) for directions in (1, 2)),
    *(Kind(op, 2, (5,), start=start) for op in ("LSTM", "GRU", "RNN") for start in ("stored", "computed")),
    *(Kind(op, directions, (5,), lengths=True) for op in ("LSTM", "GRU", "RNN") for directions in (1, 2)),
    *(Kind("LSTM", directions, (6,), reads=reads) for directions in (1, 2) for reads in ("steps", "last")),
    *(Kind("RNN", directions, (6,), activation="Relu") for directions in (1, 2)),
    Kind("LSTM", 1, (6,), way="reverse"),
    Kind("LSTM", 1, (6,), start="stored", peepholes=True, bias=False),
]
by_kind = pytest.mark.parametrize(
    "kind", KINDS, ids=lambda kind: kind.name + (f" {kind.way}" if kind.way != "forward" else "")
)


def planted(kind, seed=0):
    proto = recurrent_net(kind, seed)
    return load(proto, "base"), load(permuted_by_hand(kind, proto, seed + 1), "donor")


def tensors_of(kind, layer, way):
    """The axes that the units of one direction lie on, as the view names and shapes them."""
    found = {}
    for (name, axis), places in positions(kind, layer, way).items():
        own = WAYS[way] if kind.directions == 2 else ""
        if name in ("U", "L") or name.startswith("V"):
            found[name, axis] = places
        elif int(name[1:]) == layer:
            found[f"{name}/{own}" if own else name, axis + 1] = places
        else:
            found |= {(f"{name}/{each}" if own else name, axis + 1): places for each in (WAYS if own else ("",))}
    return {key: {frozenset(row) for row in places.tolist()} for key, places in found.items()}


def far(graph, expected):
    inputs = inputs_of(expected, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(expected, inputs, "onnxruntime"))


@by_kind
def test_the_groups_are_the_units_of_each_direction(kind):
    graph = load(recurrent_net(kind))
    groups = verify(graph, axis_groups(graph), full=True)
    free = [group for group in groups.groups if group.state is not GroupState.PINNED]
    assert all(group.state is GroupState.VERIFIED for group in free), [(g.name, g.reason) for g in free]
    found = [{(m.tensor, m.axis): set(map(frozenset, m.positions.tolist())) for m in group.members} for group in free]
    wanted = [tensors_of(kind, layer, way) for layer in range(len(kind.units)) for way in range(kind.directions)]
    assert all(one in found for one in wanted)
    assert len(found) == len(wanted)


@pytest.mark.sampled(6)
@by_kind
@pytest.mark.parametrize("lam", [0.3, 0.5, 1.0])
def test_a_merge_with_a_permuted_copy_gives_the_base_back(kind, lam):
    base, donor = planted(kind)
    assert far(donor, base) < 1e-5  # the permutation by hand is right
    result = mal_graph.assemble(base, donor, lam=lam, method="mal")
    step = result.merged[0]
    assert not step.plan.skipped
    assert not step.plan.dropped
    assert not step.promises.kept
    assert far(result.graph, base) < SMALL


@by_kind
def test_a_file_is_what_it_was(kind):
    proto = recurrent_net(kind)
    graph = load(proto)
    same = ir.to_proto(edited_model(graph))
    assert [node.op_type for node in same.graph.node] == [node.op_type for node in proto.graph.node]
    assert far(load(same), graph) == 0.0
    name = next(name for name in graph.weights if name.startswith("R0"))
    changed = graph.with_weights({name: 2 * graph.weights[name].read()})
    written = ir.to_proto(edited_model(changed))
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in proto.graph.node]
    assert far(load(written), changed) < 1e-6
    assert far(load(written), graph) > 1e-3


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
def test_at_lambda_1_the_merge_of_equal_architectures_is_the_donor(op, directions):
    kind = Kind(op, directions, (6, 7))
    base, donor = load(recurrent_net(kind, 0), "base"), load(recurrent_net(kind, 1), "donor")
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert not result.merged[0].plan.skipped
    assert far(result.graph, donor) < SMALL


@pytest.mark.parametrize("left_out", ["W0 0", "R0 0", "R0 1", "B0 0", "W1 1", "P0 0"])
def test_a_permutation_that_leaves_out_an_axis_changes_the_function(left_out):
    """What the laws above rest on can fail."""
    kind = Kind("LSTM", 2, (6, 7), peepholes=True)
    proto = recurrent_net(kind)
    assert far(load(permuted_by_hand(kind, proto, 1, left_out)), load(proto)) > 1e-3


def test_a_file_may_have_the_names_that_the_view_would_give():
    kind = Kind("LSTM", 2, (6,))
    proto = recurrent_net(kind)
    for tensor in proto.graph.initializer:
        tensor.name = {"U": "W0/forward", "L": "R0/reverse"}.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        node.input[:] = [{"U": "W0/forward", "L": "R0/reverse"}.get(name, name) for name in node.input]
    graph = load(proto)
    changed = graph.with_weights({"W0/forward": 2 * graph.weights["W0/forward"].read()})
    assert far(load(ir.to_proto(edited_model(changed))), changed) < 1e-6
    assert far(graph, load(recurrent_net(kind))) < 1e-6


def test_a_node_that_gives_its_last_state_alone_is_followed():
    net = Net(0)
    stored = [net.weight(2, 12, 4, name="w"), net.weight(2, 12, 3, name="r")]
    _, last, _ = net.op("LSTM", net.input("x", (2, 5, 4)), *stored, outputs=3, hidden_size=3, direction="bidirectional")
    net.nodes[-1].output[0] = ""
    flat = net.op("Reshape", net.op("Transpose", last, perm=[1, 0, 2]), net.constant([0, 6]))
    graph = net.graph(net.op("MatMul", flat, net.weight(6, 2)))
    groups = verify(graph, axis_groups(graph)).groups
    assert [group.units for group in groups if group.state is GroupState.VERIFIED] == [3, 3]
    result = mal_graph.assemble(graph, graph, lam=0.5, method="mal")
    assert far(load(ir.to_proto(edited_model(result.graph))), graph) == 0.0


def test_an_order_that_the_caller_knows_stays():
    """A state that comes in and goes out is handed on by whoever runs the model."""
    net = Net(0)
    x, h = net.input("x", (3, 2, 4)), net.input("h", (1, 2, 5))
    y, last = net.op(
        "GRU", x, net.weight(1, 15, 4), net.weight(1, 15, 5, name="r"), "", "", h, outputs=2, hidden_size=5
    )
    graph = net.graph(net.op("MatMul", y, net.weight(5, 2)), last)
    states = {group.state for group in axis_groups(graph).groups for m in group.members if m.tensor == "r"}
    assert states == {GroupState.PINNED}


# --- other widths -----------------------------------------------------------------------------------------------

OTHER_WIDTHS = [
    *(Kind(op, directions, (4, 7)) for op in ("LSTM", "GRU", "RNN") for directions in (1, 2)),
    Kind("LSTM", 2, (4, 7), start="stored", peepholes=True),
    Kind("GRU", 2, (4, 7), start="computed", after=True),
    Kind("LSTM", 1, (4, 7), start="computed"),
    Kind("RNN", 2, (4, 7), activation="Relu", bias=False),
]


@pytest.mark.sampled(12)
@pytest.mark.parametrize("kind", OTHER_WIDTHS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("units", [(6, 9), (3, 5), (6, 5)], ids=["wider", "narrower", "mixed"])
def test_a_donor_of_any_width_is_reached_exactly_and_the_base_is_where_it_starts(kind, units):
    """Added units start silent, whatever the gates make of zero, and the operator's own size follows them."""
    other = replace(kind, units=units)
    base, donor = load(recurrent_net(kind, 0), "base"), load(recurrent_net(other, 1), "donor")
    for lam, goal in ((0.0, base), (1.0, donor)):
        result = mal_graph.assemble(base, donor, lam=lam, width="grow", method="mal")
        step = result.merged[0]
        assert not step.plan.skipped
        assert not step.plan.growth.kept
        assert far(result.graph, goal) < SMALL
        assert far(load(ir.to_proto(edited_model(result.graph))), goal) < SMALL  # what is written is what was made


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", OTHER_WIDTHS, ids=lambda kind: kind.name)
def test_a_narrower_donor_goes_into_a_wider_base_that_keeps_its_width(kind):
    base = load(recurrent_net(kind, 0), "base")
    donor = load(recurrent_net(replace(kind, units=(3, 5)), 1), "donor")
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert not result.merged[0].plan.skipped
    assert far(result.graph, donor) < SMALL


# --- what is no partner -----------------------------------------------------------------------------------------


def test_directions_never_swap():
    """The donor's directions stand the other way round, so that each is most like the other of the base's."""
    kind = Kind("LSTM", 2, (6,))
    proto = recurrent_net(kind)
    base, donor = load(proto, "base"), load(with_halves_swapped(proto), "donor")
    match = match_layers(base, donor)
    assert {(pair.base.name, pair.donor.name) for pair in match.pairs if pair.base.kind == "lstm"} == {
        ("LSTM_0/forward", "LSTM_0/forward"),
        ("LSTM_0/reverse", "LSTM_0/reverse"),
    }


def with_halves_swapped(proto):
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        if tensor.name in ("W0", "R0", "B0"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    return made


def test_a_layer_that_runs_backwards_has_no_partner_that_runs_forwards():
    base, donor = (load(recurrent_net(Kind("GRU", 1, (6,), way=way)), way) for way in WAYS)
    assert {pair.base.kind for pair in match_layers(base, donor).pairs} == {"linear"}


def test_other_activations_are_said():
    base, donor = (
        load(recurrent_net(Kind("RNN", activation=activation)), activation) for activation in ("Tanh", "Relu")
    )
    differing = [pair.differences for pair in match_layers(base, donor).pairs if pair.base.kind == "rnn"]
    assert [(one.setting, one.base, one.donor) for one in differing[0]] == [("activations", "Tanh", "Relu")]
    usual = load(recurrent_net(Kind("RNN")), "usual")
    assert not any(pair.differences for pair in match_layers(base, usual).pairs)


# --- the verification can tell -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind("LSTM", 2, (6,)), Kind("GRU"), Kind("RNN")], ids=lambda kind: kind.name)
@pytest.mark.parametrize("left_out", ["a gate", "the columns of the state"])
def test_a_group_that_misses_a_part_is_rejected(kind, left_out):
    graph = load(recurrent_net(kind))
    groups = axis_groups(graph)
    i = groups.usable()[0]
    members = []
    for member in groups.groups[i].members:
        if left_out == "a gate" and member.role.slot == "weight" and member.produces:
            member = replace(member, positions=member.positions[:, 1:])
        if member.positions.size and not (
            left_out != "a gate" and member.role.slot == "recurrence" and member.consumes
        ):
            members.append(member)
    wrong = replace(groups.groups[i], members=tuple(members))
    changed = replace(groups, groups=(*groups.groups[:i], wrong, *groups.groups[i + 1 :]))
    verdict = verify(graph, changed).groups[i]
    assert verdict.state is GroupState.FROZEN
    assert "rejected by the verification" in verdict.reason


# --- through exporters, and traced -------------------------------------------------------------------------------

FRONT_ENDS = ("torchscript", "dynamo", "trace")

if torch is not None:

    class Read(nn.Module):
        """A recurrent layer and a head on every step, or on the last state of its last layer."""

        def __init__(self, kind="LSTM", units=6, reads="steps", **options):
            super().__init__()
            self.inner = getattr(nn, kind)(5, units, batch_first=True, **options)
            self.head, self.reads = nn.Linear(units * (1 + self.inner.bidirectional), 3), reads

        def forward(self, x):
            steps, state = self.inner(x)
            if self.reads == "steps":
                return self.head(steps)
            hidden = state[0] if isinstance(state, tuple) else state
            return self.head(torch.cat([hidden[-2], hidden[-1]], 1) if self.inner.bidirectional else hidden[-1])


def module(seed=0, **options):
    torch.manual_seed(seed)
    return Read(**options).eval()


def exported(module, front_end):
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    if front_end == "trace":
        return mal_graph.trace(module, (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if front_end == "dynamo":
            return load(torch.onnx.export(module, (x,), dynamo=True, verbose=False).model_proto, "exported")
        written = io.BytesIO()
        torch.onnx.export(module, (x,), written, dynamo=False)
    return load(onnx.load_from_string(written.getvalue()), "exported")


def permuted_module(given, seed, **options):
    """A copy of a module whose hidden units are permuted in torch's own parameters."""
    made = module(**options)
    state = {name: value.clone() for name, value in given.state_dict().items()}
    inner, rng = given.inner, np.random.default_rng(seed)
    units, ways = inner.hidden_size, ["", "_reverse"] if inner.bidirectional else [""]
    for layer in range(inner.num_layers):
        for place, way in enumerate(ways):
            order = torch.from_numpy(rng.permutation(units))
            rows = torch.cat([order + gate for gate in range(0, len(state[f"inner.weight_hh_l{layer}{way}"]), units)])
            for name in [name for name in state if name.endswith(f"_l{layer}{way}")]:
                state[name] = state[name][rows]
            columns = [f"inner.weight_hh_l{layer}{way}"]
            state[columns[0]] = state[columns[0]][:, order]
            here = slice(place * units, (place + 1) * units)
            readers = [f"inner.weight_ih_l{layer + 1}{other}" for other in ways]
            for name in readers if layer + 1 < inner.num_layers else ["head.weight"]:
                state[name][:, here] = state[name][:, here][:, order]
    made.load_state_dict(state)
    return made


TORCH_OPTIONS = [
    {"kind": kind, "reads": reads, "num_layers": layers, "bidirectional": both, "bias": bias}
    for kind, bias in (("LSTM", True), ("GRU", True), ("RNN", False))
    for reads in ("steps", "state")
    for layers, both in ((1, False), (2, True))
]
by_options = pytest.mark.parametrize("options", TORCH_OPTIONS, ids=lambda one: " ".join(map(str, one.values())))


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="needs torch")
@by_options
def test_every_front_end_gives_one_group_for_each_layer_and_direction_and_a_permuted_copy_merges_back(options):
    given = module(**options)
    other = permuted_module(given, 1, **options)
    wanted = options["num_layers"] * (1 + options["bidirectional"])
    sizes = set()
    for front_end in FRONT_ENDS:
        base, donor = exported(given, front_end), exported(other, front_end)
        groups = verify(base, axis_groups(base)).groups
        moving = [group for group in groups if group.state is not GroupState.PINNED]
        assert [group.state for group in moving] == [GroupState.VERIFIED] * wanted
        if any(node.op == options["kind"] for node in base.nodes):  # dynamo writes the steps of an RNN out
            sizes.add(tuple(sorted(sum(member.positions.size for member in group.members) for group in moving)))
        assert far(donor, base) < 1e-5
        result = mal_graph.assemble(base, donor, lam=0.5, method="mal")
        assert not result.merged[0].plan.skipped
        assert far(result.graph, base) < SMALL
    assert len(sizes) == 1


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("both", [False, True])
def test_exported_layers_grow_with_the_zeros_they_start_from(front_end, both):
    base = exported(module(units=5, bidirectional=both, num_layers=2), front_end)
    donor = exported(module(1, units=7, bidirectional=both, num_layers=2), front_end)
    result = mal_graph.assemble(base, donor, lam=1.0, width="grow", method="mal")
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, donor) < SMALL
    if front_end != "trace":
        assert far(load(ir.to_proto(edited_model(result.graph))), donor) < SMALL
