"""Every float parameter of the base is merged, kept with a reason, or a setting with a reason - once."""

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Net, cnn, light, load, mlp, network
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.test_random_graphs import Drawn
from onnx import helper, numpy_helper
from scripts import TOOLS, load_script

import mal_graph
from mal_graph.errors import MalGraphError, MatchError
from mal_graph.graph import MERGEABLE_TYPES
from mal_graph.matching import assign_in_order, correspond, match_layers
from mal_graph.merging import Fate, LayerLambdas, account_for, plan_merge
from mal_graph.merging.accounts import Account, Accounts
from mal_graph.workflows.checks import accounts_check
from mal_graph_adapters.onnx_format.file import OnnxAdapter

WHEEL = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def planned(base, donor, **options):
    """A plan for two models, with groups that are not verified and units in stored order."""
    match = match_layers(base, donor)
    alignment = assign_in_order(correspond(network(base), network(donor), match))
    return plan_merge(alignment, LayerLambdas.of(0.5), **options)


def accounts_of(base, donor, **options):
    return account_for(base, planned(base, donor, **options))


def by_tensor(accounts):
    return {entry.tensor: entry for entry in accounts.entries}


def counts(accounts):
    return [accounts.count(fate) for fate in (Fate.MERGED, Fate.KEPT, Fate.SETTING)]


# --- what a reader is told ---------------------------------------------------------------------------------------


def embedding(seed, *, tied):
    net = Net(seed)
    table = net.weight(11, 6, name="table")
    x = net.op("Gather", table, net.input("ids", ("N",), "int64"), axis=0)
    x = net.linear(net.op("Relu", net.linear(x, 6, 16)), 16, 6)
    head = net.op("Transpose", table, perm=[1, 0]) if tied else net.weight(6, 11, name="head")
    return net.graph(net.op("MatMul", x, head))


def test_a_tied_tensor_that_the_donor_has_untied_is_kept_and_both_its_layers_are_listed():
    base = embedding(0, tied=True)
    plan = planned(base, embedding(1, tied=False))
    entry = by_tensor(account_for(base, plan))["table"]
    assert (entry.fate, entry.size, entry.layers) == (Fate.KEPT, 66, ("Gather_0", "MatMul_5"))
    assert "shared with layer MatMul_5, whose partner MatMul_4 has a tensor of its own" in entry.reason
    assert set(plan.skipped) == {"Gather_0", "MatMul_5"}
    assert "it shares table with layer Gather_0" in plan.skipped["MatMul_5"]


def test_a_tied_tensor_that_the_donor_ties_too_is_merged_and_no_layer_is_listed_as_kept():
    base = embedding(0, tied=True)
    plan = planned(base, embedding(1, tied=True))
    assert counts(account_for(base, plan)) == [66 + 6 * 16 + 16 + 16 * 6 + 6, 0, 0]
    assert not plan.skipped


def branching(seed):
    """An If whose branches read two tensors of the main graph and store one of their own."""
    rng = np.random.default_rng(seed)

    def body(act):
        gain = helper.make_node("Constant", [], [f"{act}.gain"], value_float=2.0)
        nodes = [
            gain,
            helper.make_node("Gemm", ["x", "w", "b"], [f"{act}.a"]),
            helper.make_node("Mul", [f"{act}.a", f"{act}.gain"], [f"{act}.m"]),
            helper.make_node(act, [f"{act}.m"], [f"{act}.y"]),
        ]
        out = helper.make_tensor_value_info(f"{act}.y", 1, ["N", 6])
        return helper.make_graph(nodes, act, [], [out])

    stored = {"w": rng.normal(size=(8, 6)), "b": rng.normal(size=6), "v": rng.normal(size=(6, 3)), "zero": 0.0}
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["cond"]),
        helper.make_node("If", ["cond"], ["h"], then_branch=body("Relu"), else_branch=body("Tanh"), name="if"),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 8])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in stored.items()],
    )
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_what_bodies_read_and_hold_is_merged_and_counted():
    accounts = accounts_of(branching(0), branching(1))
    assert accounts.total == 8 * 6 + 6 + 6 * 3 + 1 + 2
    merged = {entry.tensor for entry in accounts.entries if entry.fate is Fate.MERGED}
    assert merged >= {"w", "b", "v"}
    assert all(entry.fate is Fate.SETTING for entry in accounts.entries if entry.tensor not in merged)
    assert accounts.adds_up


def with_function():
    """A function that holds a constant of two numbers, called once; of another opset, so that it stays a call."""
    own = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("Mul", ["a", "c"], ["z"]),
    ]
    made = helper.make_function("own", "Twice", ["a"], ["z"], own, [helper.make_opsetid("", 18)])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Twice", ["h"], ["y"], domain="own")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 4])],
        [helper.make_tensor_value_info("y", 1, ["N", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.float32), "w")],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=domains, functions=[made], ir_version=8)


def test_what_a_function_holds_is_counted():
    graph = load(with_function())
    accounts = accounts_of(graph, graph)
    assert accounts.total == 8 + 2
    assert by_tensor(accounts)["own.Twice/c"].reason.startswith("it is stored inside own.Twice")


def test_bounds_and_tensors_that_nothing_computes_with_are_settings():
    def bounded(seed):
        net = Net(seed)
        low, high = (net.constant(np.float32(bound), name) for bound, name in ((0, "low"), (6, "high")))
        net.constant(np.ones(5, np.float32), "unused")
        return net.graph(net.linear(net.op("Clip", net.linear(net.input(), 8, 4), low, high), 4, 3))

    accounts = accounts_of(bounded(0), bounded(1))
    reasons = {entry.tensor: entry.reason for entry in accounts.entries if entry.fate is Fate.SETTING}
    assert {name: why.partition(" '")[0] for name, why in reasons.items()} == {
        "low": "it steers Clip",
        "high": "it steers Clip",
        "unused": "no operator computes with it",
    }
    assert counts(accounts) == [8 * 4 + 4 + 4 * 3 + 3, 0, 7]


def test_a_batch_norm_of_the_base_alone_is_kept_with_the_reason():
    def convolved(seed, *, norm):
        net = Net(seed)
        x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, 5)
        if norm:
            x = net.norm(x, 5)
        return net.graph(net.conv(net.op("Relu", x), 5, 4))

    base = convolved(0, norm=True)
    kept = [e for e in accounts_of(base, convolved(1, norm=False)).entries if e.fate is Fate.KEPT]
    assert sum(entry.size for entry in kept) == 4 * 5  # scale, mean, variance, and the bias in front
    assert all("BatchNormalization of the base stays" in entry.reason for entry in kept)


def test_a_bias_that_is_multiplied_by_zero_is_kept_with_the_reason():
    def net_of(seed):
        net = Net(seed)
        return net.graph(net.op("Gemm", net.input(), net.weight(8, 4), net.weight(4, name="off"), beta=0.0))

    entry = by_tensor(accounts_of(net_of(0), net_of(1)))["off"]
    assert (entry.fate, entry.reason) == (Fate.KEPT, "its operator multiplies it by 0")


def test_several_donors_merge_what_any_of_them_reaches_and_the_reasons_name_them():
    base = mlp((8, 16, 12, 5))
    donors = [replace(mlp((8, 16, 5), seed), name=f"{seed}.onnx") for seed in (1, 2)]
    result = mal_graph.assemble(base, donors, verify=False, method="mal")
    kept = [entry for entry in result.accounts.entries if entry.fate is Fate.KEPT]
    assert result.accounts.adds_up
    assert kept
    assert all("1.onnx: " in entry.reason or "2.onnx: " not in entry.reason for entry in kept)


# --- the law ------------------------------------------------------------------------------------------------------


def test_a_tensor_in_no_list_or_in_two_or_without_a_reason_is_found():
    whole = Accounts({"a": 3}, (Account("a", 3, Fate.MERGED),))
    assert whole.adds_up
    nowhere = replace(whole, entries=())
    twice = replace(whole, entries=(*whole.entries, Account("a", 3, Fate.KEPT, "why")))
    unsaid = replace(whole, entries=(Account("a", 3, Fate.KEPT),))
    assert [accounts.adds_up for accounts in (nowhere, twice, unsaid)] == [False] * 3
    assert nowhere.faults == ("a is in no list",)
    assert twice.faults == ("a is in 2 lists",)
    assert unsaid.faults == ("a is kept without a reason",)


def test_the_check_fails_where_a_step_or_a_reason_is_lost():
    (step,) = mal_graph.assemble(mlp((8, 16, 12, 5), 0), mlp((8, 16, 12, 5), 1), verify=False, method="mal").merged
    base = step.plan.base
    assert accounts_check(base, [step]).passed
    lost = replace(step, plan=replace(step.plan, steps=step.plan.steps[1:]))
    check = accounts_check(base, [lost])
    assert check.failed
    assert check.detail.endswith("of 413 float parameters: w0 is kept without a reason")


def test_every_merge_is_checked():
    result = mal_graph.assemble(cnn((4, 6), seed=0), cnn((4, 5), seed=1), verify=False, method="mal")
    assert result.check("accounts").passed
    assert sum(counts(result.accounts)) == result.accounts.total


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_the_accounts_of_a_random_graph_add_up(seed, other):
    """With itself, and with donors of another form, of which some layers correspond to its own."""
    graphs = []
    for one in (seed, seed + other):
        drawn = Drawn(one)
        for _ in range(4 + drawn.below(12)):
            drawn.step()
        graphs.append(drawn.finish())
    try:
        accounts = accounts_of(*graphs)
    except MatchError:
        return
    assert accounts.adds_up, accounts.faults
    floats = [weight.size for weight in graphs[0].weights.values() if weight.is_float]
    assert sum(counts(accounts)) == sum(floats)


def floats_in(proto):
    """How many float numbers a file stores, counted without the view: initializers and constants, wherever they are."""

    def size(tensor):
        return prod(tensor.dims) if is_float(tensor.data_type) else 0

    def is_float(kind):
        return helper.tensor_dtype_to_np_dtype(kind).name in MERGEABLE_TYPES

    def of_nodes(nodes, known):
        total = 0
        for node in nodes:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    total += of_graph(attribute.g)
                elif node.op_type != "Constant":
                    continue
                elif attribute.name == "value":
                    total += size(attribute.t)
                    known[node.output[0]] = attribute.t
                elif attribute.name in ("value_float", "value_floats"):
                    total += max(1, len(attribute.floats)) if attribute.name == "value_float" else len(attribute.floats)
        return total

    def of_graph(graph):
        known = {tensor.name: tensor for tensor in graph.initializer}
        return sum(map(size, graph.initializer)) + of_nodes(graph.node, known)

    return of_graph(proto.graph) + sum(of_nodes(function.node, {}) for function in proto.functions)


def test_the_view_counts_what_the_files_of_the_wheel_store():
    apart = {}
    for file in WHEEL:
        proto = onnx.load(file)
        if any(node.op_type == "ConstantOfShape" for node in proto.graph.node):
            continue  # one stored number stands for many
        try:
            graph = OnnxAdapter().load(file)
        except MalGraphError:
            continue
        stored = sum(weight.size for weight in graph.weights.values() if weight.is_float)
        if stored != floats_in(proto):
            apart[file.parent.name] = (stored, floats_in(proto))
    assert apart == {}


def test_a_function_and_bodies_count_as_the_file_stores_them():
    assert floats_in(with_function()) == 10


@pytest.mark.parametrize("folder", ["simple", "pytorch-operator", "pytorch-converted"])
def test_the_accounts_of_the_wheels_models_add_up(folder):
    """Each merged with itself, as far as it has a layer at all."""
    faults, merged = {}, 0
    for file in WHEEL:
        if file.parent.parent.name != folder:
            continue
        try:
            graph = OnnxAdapter().load(file)
            accounts = accounts_of(graph, graph)
        except MalGraphError:
            continue
        merged += accounts.count(Fate.MERGED)
        if not accounts.adds_up:
            faults[file.parent.name] = accounts.faults
    assert faults == {}
    assert merged or folder != "pytorch-converted"


@pytest.mark.sampled(8)
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem.removeprefix("light_") for path in WHEEL if "light_" in path.stem))
def test_the_accounts_of_published_architectures_add_up(name):
    graph = light(name)
    accounts = accounts_of(graph, graph)
    assert accounts.adds_up, accounts.faults
    assert accounts.count(Fate.MERGED) > 0.9 * accounts.total


@pytest.mark.torch
def test_the_accounts_of_the_suite_of_networks_add_up():
    import torch

    faults = {}
    for name, make in load_script(TOOLS / "suite_networks.py").NETWORKS.items():
        graphs = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            module, inputs = make()
            graphs.append(mal_graph.trace(module.eval(), inputs))
        accounts = accounts_of(*graphs)
        if not accounts.adds_up or not accounts.count(Fate.MERGED):
            faults[name] = accounts.faults
    assert faults == {}
