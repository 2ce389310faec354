"""Never fewer units than a specification by hand: the four networks of git re-basin.

Ainsworth et al. 2023 (arXiv:2209.04836) name the permutations of an MLP, a VGG16, a ResNet20 and a ResNet50 one by one,
with the axes that each acts on. Nets and specifications here are written from the paper's description, in small widths.
A specification says, per permutation, how many units it has and which (weight, axis) it moves.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, permuted_copy, run

from mal_graph.operators import ROWS, GroupState, Row, elementwise
from mal_graph.symmetry import axis_groups, verify

Spec = dict[str, tuple[int, set[tuple[str, int]]]]
STATISTICS = {"batch": ("scale", "shift", "mean", "variance"), "layer": ("scale", "shift")}


# --- networks ---------------------------------------------------------------------------------------------------


def convolution(net, x, name, units_in, units, kernel=3, stride=1):
    w = net.weight(units, units_in, kernel, kernel, name=f"{name}.kernel")
    return net.op("Conv", x, w, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2)


def normalised(net, x, name, units, kind):
    """BatchNorm, or LayerNorm over the channels between two transposes."""
    for part in STATISTICS[kind]:
        net.constant(net.rng.uniform(0.5, 1.5, units).astype(np.float32), f"{name}.{part}")
    vectors = [f"{name}.{part}" for part in STATISTICS[kind]]
    if kind == "batch":
        return net.op("BatchNormalization", x, *vectors)
    y = net.op("LayerNormalization", net.op("Transpose", x, perm=[0, 2, 3, 1]), *vectors)
    return net.op("Transpose", y, perm=[0, 3, 1, 2])


def dense(net, x, name, units_in, units):
    y = net.op("MatMul", x, net.weight(units_in, units, name=f"{name}.kernel"))
    return net.op("Add", y, net.weight(units, name=f"{name}.bias", scale=0.3))


def pooled(net, x):
    return net.op("Flatten", net.op("GlobalAveragePool", x))


def mlp():
    """Three hidden layers of one width."""
    net = Net(0)
    x = net.input("x", ("N", 8))
    for i, (units_in, units) in enumerate(pairwise((8, *MLP))):
        x = net.op("Relu", dense(net, x, f"dense{i}", units_in, units))
    return net.graph(dense(net, x, "dense3", MLP[-1], 5))


def vgg16(kind="layer"):
    """Thirteen convolutions in five stages, each normalised over its channels; global pooling; three dense layers."""
    net = Net(0)
    x, before = net.input("x", ("N", 3, 8, 8)), 3
    for i, units in enumerate(VGG):
        x = net.op("Relu", normalised(net, convolution(net, x, f"conv{i}", before, units), f"norm{i}", units, kind))
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]) if i in (1, 3, 6) else x
        before = units
    x = pooled(net, x)
    for i, units in enumerate(VGG_DENSE):
        x, before = net.op("Relu", dense(net, x, f"dense{i}", before, units)), units
    return net.graph(dense(net, x, "dense2", before, 5))


def resnet20(kind="layer"):
    """Three stages of three blocks of two convolutions; the shortcut into a new stage is a projection."""
    net = Net(0)
    x = net.op("Relu", step(net, net.input("x", ("N", 3, 8, 8)), "stem", 3, STAGES[0], kind))
    before = STAGES[0]
    for stage, units in enumerate(STAGES):
        for block in range(3):
            name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
            y = net.op("Relu", step(net, x, f"{name}.first", before, INNER[stage], kind, stride=stride))
            y = step(net, y, f"{name}.second", INNER[stage], units, kind)
            x = step(net, x, f"{name}.skip", before, units, kind, 1, stride) if before != units else x
            x, before = net.op("Relu", net.op("Add", y, x)), units
    return net.graph(dense(net, pooled(net, x), "head", before, 5))


def resnet50(kind="batch"):
    """Four stages of bottlenecks with two inner widths; the first shortcut of every stage is a projection."""
    net = Net(0)
    x = net.op("Relu", step(net, net.input("x", ("N", 3, 16, 16)), "stem", 3, 4, kind, 7, 2))
    before = 4
    for stage, (count, inner) in enumerate(zip(BOTTLENECKS, WIDTHS, strict=True)):
        for block in range(count):
            name, stride, units = f"stage{stage}.block{block}", 2 if stage in (1, 2) and not block else 1, 3 * inner
            y = net.op("Relu", step(net, x, f"{name}.first", before, inner, kind, 1))
            y = net.op("Relu", step(net, y, f"{name}.second", inner, inner, kind, 3, stride))
            y = step(net, y, f"{name}.third", inner, units, kind, 1)
            x = step(net, x, f"{name}.skip", before, units, kind, 1, stride) if not block else x
            x, before = net.op("Relu", net.op("Add", y, x)), units
    return net.graph(dense(net, pooled(net, x), "head", before, 5))


def step(net, x, name, units_in, units, kind, kernel=3, stride=1):
    x = convolution(net, x, name, units_in, units, kernel, stride)
    return normalised(net, x, name, units, kind)


MLP = (6, 6, 6)
VGG = (3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 6)
VGG_DENSE = (6, 6)
STAGES, INNER = (3, 4, 6), (3, 4, 6)
BOTTLENECKS, WIDTHS = (3, 4, 6, 3), (3, 3, 4, 4)


# --- specifications ---------------------------------------------------------------------------------------------


def made(name, kind):
    """The axes that a convolution makes, with its norm."""
    return {(f"{name}.kernel", 0), *((f"{name}.{part}", 0) for part in STATISTICS[kind])}


def mlp_spec() -> Spec:
    axes = [{(f"dense{i}.kernel", 1), (f"dense{i}.bias", 0), (f"dense{i + 1}.kernel", 0)} for i in range(3)]
    return {f"dense{i}": (units, axes[i]) for i, units in enumerate(MLP)}


def vgg16_spec(kind="layer") -> Spec:
    """One permutation for each convolution but the last with the next one, then the dense layers."""
    spec = {}
    for i, units in enumerate(VGG):
        norm = {(f"norm{i}.{part}", 0) for part in STATISTICS[kind]}
        after = (f"conv{i + 1}.kernel", 1) if i < len(VGG) - 1 else ("dense0.kernel", 0)
        spec[f"conv{i}"] = units, {(f"conv{i}.kernel", 0), after, *norm}
    for i, units in enumerate(VGG_DENSE):
        spec[f"dense{i}"] = units, {(f"dense{i}.kernel", 1), (f"dense{i}.bias", 0), (f"dense{i + 1}.kernel", 0)}
    return spec


def resnet20_spec(kind="layer") -> Spec:
    """One permutation for the stream of each stage, one for the inside of each block."""
    streams, spec = defaultdict(set), {}
    streams[0] |= made("stem", kind)
    for stage, block in ((stage, block) for stage in range(3) for block in range(3)):
        name, is_first = f"stage{stage}.block{block}", stage > 0 and block == 0
        streams[stage - is_first] |= {(f"{name}.first.kernel", 1)}
        streams[stage] |= made(f"{name}.second", kind)
        spec[f"{name}.inner"] = INNER[stage], made(f"{name}.first", kind) | {(f"{name}.second.kernel", 1)}
        if is_first:
            streams[stage - 1] |= {(f"{name}.skip.kernel", 1)}
            streams[stage] |= made(f"{name}.skip", kind)
    streams[2] |= {("head.kernel", 0)}
    return {**spec, **{f"stream{stage}": (STAGES[stage], axes) for stage, axes in streams.items()}}


def resnet50_spec(kind="batch") -> Spec:
    """One permutation for the stem, one for the stream of each stage, two for the inside of each block."""
    streams, spec = defaultdict(set), {}
    streams[-1] |= made("stem", kind)
    for stage, (count, inner) in enumerate(zip(BOTTLENECKS, WIDTHS, strict=True)):
        for block in range(count):
            name, is_first = f"stage{stage}.block{block}", block == 0
            streams[stage - is_first] |= {(f"{name}.first.kernel", 1)}
            streams[stage] |= made(f"{name}.third", kind)
            spec[f"{name}.a"] = inner, made(f"{name}.first", kind) | {(f"{name}.second.kernel", 1)}
            spec[f"{name}.b"] = inner, made(f"{name}.second", kind) | {(f"{name}.third.kernel", 1)}
            if is_first:
                streams[stage - 1] |= {(f"{name}.skip.kernel", 1)}
                streams[stage] |= made(f"{name}.skip", kind)
    streams[3] |= {("head.kernel", 0)}
    widths = {-1: 4, **{stage: 3 * inner for stage, inner in enumerate(WIDTHS)}}
    return {**spec, **{f"stream{stage}": (widths[stage], axes) for stage, axes in streams.items()}}


# --- laws -------------------------------------------------------------------------------------------------------


def lacking(groups, spec: Spec) -> list[str]:
    """The permutations of a specification that are no verified group with all their units, in order."""
    found = {
        (group.units, frozenset((m.tensor, m.axis) for m in group.members))
        for group in groups.groups
        if group.state is GroupState.VERIFIED and all(m.is_plain for m in group.members)
    }
    return [name for name, (units, axes) in spec.items() if (units, frozenset(axes)) not in found]


NETS = [
    pytest.param(mlp, mlp_spec, (), 3, id="mlp"),
    pytest.param(vgg16, vgg16_spec, ("layer",), 15, id="vgg16"),
    pytest.param(vgg16, vgg16_spec, ("batch",), 15, id="vgg16 batch"),
    pytest.param(resnet20, resnet20_spec, ("layer",), 12, id="resnet20"),
    pytest.param(resnet20, resnet20_spec, ("batch",), 12, id="resnet20 batch"),
    pytest.param(resnet50, resnet50_spec, ("layer",), 37, id="resnet50"),
    pytest.param(resnet50, resnet50_spec, ("batch",), 37, id="resnet50 batch"),
]


@pytest.mark.parametrize(("build", "specify", "options", "count"), NETS)
def test_every_permutation_of_the_specification_is_a_verified_group(build, specify, options, count):
    graph, spec = build(*options), specify(*options)
    groups = verify(graph, axis_groups(graph))
    assert lacking(groups, spec) == []
    assert len(spec) == count
    assert len(groups.usable()) >= count
    assert sum(groups.groups[i].units for i in groups.usable()) >= sum(units for units, _ in spec.values())


@pytest.mark.parametrize(("build", "options"), [(mlp, ()), (vgg16, ("layer",)), (resnet20, ("layer",))])
def test_moving_all_of_them_keeps_the_outputs(build, options):
    graph = build(*options)
    inputs = inputs_of(graph)
    copy, orders = permuted_copy(graph, axis_groups(graph))
    assert orders
    assert deviation(run(copy, inputs), run(graph, inputs)) <= 1e-9


def test_a_sum_that_ties_nothing_loses_the_streams():
    """The law can fail: with Add misread, every stream lacks members and nothing else does."""
    graph, wrong = resnet20(), {**ROWS, "Add": Row(elementwise.unary)}
    groups = verify(graph, axis_groups(graph, table=wrong), table=wrong)
    assert {"stream0", "stream1", "stream2"} <= set(lacking(groups, resnet20_spec()))
    assert not any("inner" in name for name in lacking(groups, resnet20_spec()))
