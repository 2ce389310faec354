"""What nobody learned is told from what was, whatever exporter wrote it."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, network
from hypothesis import given, settings
from hypothesis import strategies as st
from setting_nets import (
    HEAD,
    HEADS,
    TOKENS,
    WIDTH,
    attention,
    causal,
    convolved,
    rotated,
    stored,
    turned_by_frequencies,
    with_grid,
)

from mal_graph.graph import Declared
from mal_graph.network import SettingKind, find_parameters, find_settings, find_unlearned
from mal_graph.network.telling_values import are_frequencies, is_falling, is_grid, is_root_of_length, is_rotation

RNG = np.random.default_rng(0)
DRAWN = RNG.normal(size=(TOKENS, TOKENS))


def sloped(net, x):
    """Distances, head by head times a slope, are added to scores."""
    places = np.arange(TOKENS, dtype=np.float32)
    distances = net.constant(places[None] - places[:, None], "distances")
    slopes = net.constant((0.25 ** np.arange(1, HEADS + 1, dtype=np.float32))[:, None, None], "slopes")
    return net.op("Add", x, net.op("Mul", slopes, distances))


def chosen_by_a_triangle(net, x):
    """A triangle of ones, made a truth, says which scores count."""
    triangle = net.op("Trilu", net.constant(np.ones((TOKENS, TOKENS), np.float32), "ones"), upper=0)
    return net.op("Where", net.op("Cast", triangle, to=9), x, net.constant(np.float32(-1e9), "low"))


def kinds(graph):
    return {name: setting.kind for name, setting in find_unlearned(graph).items()}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (attention(on_scores=stored("Div", HEAD**0.5)), {"setting": SettingKind.SCALE}),
        (attention(on_scores=stored("Mul", HEAD**-0.5)), {"setting": SettingKind.SCALE}),
        (attention(on_scores=stored("Mul", [HEAD**-0.5] * TOKENS)), {"setting": SettingKind.SCALE}),
        (attention(on_queries=stored("Mul", 0.125)), {"setting": SettingKind.SCALE}),
        (attention(on_both=stored("Mul", 64**-0.25)), {"setting": SettingKind.SCALE}),
        (attention(on_scores=stored("Add", causal())), {"setting": SettingKind.MASK}),
        (attention(on_scores=stored("Add", causal(-np.inf))), {"setting": SettingKind.MASK}),
        (attention(on_scores=stored("Mul", np.tri(TOKENS))), {"setting": SettingKind.MASK}),
        (attention(on_both=rotated()), {"cosines": SettingKind.ROTATION, "sines": SettingKind.ROTATION}),
        (
            attention(on_both=turned_by_frequencies()),
            {"frequencies": SettingKind.FREQUENCIES, "positions": SettingKind.FREQUENCIES},
        ),
        (attention(on_scores=sloped), {"slopes": SettingKind.SLOPES, "distances": SettingKind.GRID}),
        (attention(on_scores=chosen_by_a_triangle), {"ones": SettingKind.MASK, "low": SettingKind.MASK}),
        (with_grid(), {"anchors": SettingKind.GRID}),
        (convolved(), {"mean": SettingKind.PREPARATION, "deviation": SettingKind.PREPARATION}),
    ],
)
def test_a_setting_is_told(graph, expected):
    assert kinds(graph) == expected
    applied = {parameter.tensor for parameter in find_parameters(graph)}
    assert not applied & expected.keys()
    reasons = find_settings(graph, applied)
    assert all(str(kind) in reasons[name] for name, kind in expected.items())


def gathered_bias(net, x):
    table = net.weight(9, HEADS, name="table")
    index = net.constant(np.arange(TOKENS * TOKENS).reshape(TOKENS, TOKENS) % 9, "index")
    return net.op("Add", x, net.op("Transpose", net.op("Gather", table, index), perm=[2, 0, 1]))


def class_token(net, x):
    rest = net.op("Slice", x, net.constant([1]), net.constant([TOKENS]), net.constant([1]))
    token = net.op("Expand", net.weight(1, 1, WIDTH, name="token"), net.constant([1, 1, WIDTH]))
    return net.op("Add", net.op("Concat", net.op("Expand", token, shape_of(net, x)), rest, axis=1), x)


def shape_of(net, x):
    ones = net.constant([1, WIDTH])
    batch = net.op("Slice", net.op("Shape", x), net.constant([0]), net.constant([1]))
    return net.op("Concat", batch, ones, axis=0)


@pytest.mark.parametrize(
    "graph",
    [
        attention(on_tokens=stored("Add", RNG.normal(size=(TOKENS, WIDTH)))),  # a table of positions
        attention(on_tokens=stored("Mul", RNG.normal(size=WIDTH))),  # the scale of a layer
        attention(on_tokens=stored("Mul", [1e-4] * WIDTH)),  # as it is initialised
        attention(on_tokens=stored("Mul", 0.5)),  # the one number of a ReZero branch
        attention(on_tokens=stored("PRelu", RNG.normal(size=WIDTH))),
        attention(on_scores=gathered_bias),  # relative positions
        attention(on_scores=stored("Add", DRAWN)),  # the same, folded
        attention(on_scores=stored("Mul", RNG.uniform(1, 9, (HEADS, 1, 1)))),  # a temperature of each head
        attention(on_scores=stored("Mul", 1.2345)),  # a temperature
        attention(on_tokens=class_token),
    ],
)
def test_what_was_learned_is_no_setting(graph):
    assert kinds(graph) == {}


def test_a_table_of_sines_that_is_added_goes_with_the_units():
    halves = np.outer(np.arange(TOKENS), 10.0 ** -np.arange(WIDTH // 2))
    table = np.concatenate([np.sin(halves), np.cos(halves)], axis=1)
    assert is_rotation(table)
    assert kinds(attention(on_tokens=stored("Add", table))) == {}


def test_a_batch_norm_written_out_behind_a_convolution_is_learned():
    net = Net()
    x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, 4)
    for op in ("Sub", "Div", "Mul", "Add"):
        x = net.op(op, x, net.constant(RNG.uniform(0.5, 1.5, (1, 4, 1, 1)).astype(np.float32)))
    assert kinds(net.graph(net.conv(x, 4, 2))) == {}


@pytest.mark.parametrize("learned", [[0.3, 0.7, 0.2, 1.4], [1.0, 0.4, 0.6], [0.1, 0.2, 0.9, 0.5, 0.6, 0.8, 0.7]])
def test_frequencies_of_a_filter_are_learned(learned):
    """A filter made of sines, times a decay: its numbers meet positions alone before they are an angle."""
    net, taps = Net(), np.arange(-3, 4, dtype=np.float32)
    wave = net.op("Mul", net.constant(np.float32(learned)[:, None], "frequencies"), net.constant(taps, "taps"))
    filters = net.op("Unsqueeze", net.op("Sin", wave), net.constant([1]))
    x = net.op("ReduceMax", net.op("Conv", net.input("x", ("N", 1, 16)), filters), net.constant([2]), keepdims=0)
    assert kinds(net.graph(net.linear(x, len(learned), 2))) == {"taps": SettingKind.FREQUENCIES}


@pytest.mark.parametrize(
    "made",
    [
        10.0 ** -np.arange(4),
        np.repeat(10.0 ** -np.arange(4), 2),
        np.array([1.0, 0.01]),
        np.array([1.0, 0.4, 0.1, 0.02, 0.002]),  # some of them scaled for a longer context
    ],
)
def test_frequencies_of_positions_are_told(made):
    assert are_frequencies(made.astype(np.float32))
    assert are_frequencies(made.astype(np.float16))


def test_what_takes_out_decays_is_a_mask_too():
    """Added to logarithms that no softmax reads."""
    net = Net()
    decays = net.linear(net.input("x", ("N", TOKENS, 5)), 5, TOKENS, "matmul")
    decays = net.op("Add", decays, net.constant(causal(-np.inf).astype(np.float32), "mask"))
    assert kinds(net.graph(net.linear(net.op("Exp", decays), TOKENS, 3, "matmul"))) == {"mask": SettingKind.MASK}


def test_a_sine_as_an_activation_turns_nothing():
    net = Net()
    h = net.op("Sin", net.linear(net.input("x", ("N", 2)), 2, 5, "matmul"))
    assert kinds(net.graph(net.linear(h, 5, 3))) == {}


def test_a_vector_that_gives_an_input_its_units_is_no_preparation():
    net = Net()
    h = net.op("Relu", net.op("Mul", net.input("x", ("N", 1)), net.weight(5, name="w")))
    assert kinds(net.graph(net.linear(h, 5, 3))) == {}


def with_declared(graph, declared, name="setting"):
    return graph.with_weights([replace(graph.weights[name], declared=declared)])


def test_a_number_written_into_the_code_is_a_setting_and_one_under_a_name_is_not():
    graph = attention(on_tokens=stored("Mul", 0.3))
    assert kinds(with_declared(graph, Declared.WRITTEN)) == {"setting": SettingKind.NUMBER}
    assert kinds(graph) == {}


def test_a_temperature_in_the_code_is_a_scale():
    graph = attention(on_scores=stored("Mul", 1.2345))
    assert kinds(with_declared(graph, Declared.WRITTEN)) == {"setting": SettingKind.SCALE}


@pytest.mark.parametrize(
    "graph", [attention(on_scores=stored("Div", HEAD**0.5)), attention(on_scores=stored("Add", causal()))]
)
def test_the_framework_is_taken_at_its_word(graph):
    assert kinds(with_declared(graph, Declared.LEARNED)) == {}


def test_new_values_do_not_change_what_the_framework_said():
    graph = with_declared(attention(on_tokens=stored("Mul", 0.3)), Declared.WRITTEN)
    assert graph.with_weights({"setting": np.float32(0.4)}).weights["setting"].declared is Declared.WRITTEN


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(2, 4096), st.sampled_from([0.5, -0.5, 1, -1, 0.25, -0.25]))
def test_every_scale_of_a_head_is_told(length, power):
    assert is_root_of_length(np.float32(float(length) ** power))


@pytest.mark.parametrize("heads", [2, *range(4, 41)])
def test_the_slopes_of_any_number_of_heads_are_told(heads):
    """By the formula of ALiBi (arXiv:2108.12409, section 3)."""
    power = 2 ** int(np.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    slopes += [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
    assert is_falling(np.float32(slopes))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_learned_values_are_no_slopes(seed, size):
    assert not is_falling(np.random.default_rng(seed).normal(size=size).astype(np.float32))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 40))
def test_learned_values_are_no_grid_and_no_rotation(seed, size):
    values = np.random.default_rng(seed).normal(size=(4, size)).astype(np.float32)
    assert not is_grid(values)
    assert not is_rotation(values)


@pytest.mark.parametrize("turn", [rotated(), turned_by_frequencies(), stored("Mul", np.linspace(1, 4, HEAD))])
def test_what_a_setting_tells_apart_stays_and_heads_still_move(turn):
    graph = attention(on_both=turn)
    groups = network(graph).groups
    settings = find_unlearned(graph)
    assert settings
    moving = [groups.groups[index] for index in groups.usable()]
    assert not any(member.tensor in settings for group in moving for member in group.members)
    query = [group for group in moving if any((m.tensor, m.axis) == ("w2", 1) for m in group.members)]
    assert [group.units for group in query] == [HEADS]  # and nothing inside of one
