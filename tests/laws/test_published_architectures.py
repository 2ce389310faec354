"""The nine architectures of the onnx wheel: their groups, against the publications' own tables.

The files hold no trained weights. The largest three (AlexNet, VGG-19, ZFNet) are never run: shapes come from the file.
"""

import numpy as np
import onnx
import pytest
from builders import LIGHT, deviation, inputs_of, light, permuted_copy, reseeded, run

from mal_graph.network import Probe, find_layers
from mal_graph.operators import GroupState
from mal_graph.reporting.group_coverage import coverage
from mal_graph.symmetry import ACCEPT, axis_groups, open_trial, verify
from mal_graph.symmetry.moves import derangement, exchange
from mal_graph.symmetry.verification import bisect_groups

# --- the tables -------------------------------------------------------------------------------------------------


def squeezenet():
    """Iandola et al. 2016 (arXiv:1602.07360), version 1.1: a stem of 64 and eight fire modules.

    A fire module squeezes to s channels and expands to 1x1 and 3x3 branches of 4 s each, which are concatenated. The
    last convolution makes the classes.
    """
    return [64, *[units for s in (16, 16, 32, 32, 48, 48, 64, 64) for units in (s, 4 * s, 4 * s)]]


def resnet50():
    """He et al. 2015 (arXiv:1512.03385), table 1: [3, 4, 6, 3] bottlenecks of two inner widths each.

    The blocks of a stage share one residual stream of four times the inner width.
    """
    stages = [(64, 3), (128, 4), (256, 6), (512, 3)]
    return [64, *[units for width, blocks in stages for units in [4 * width, *[width, width] * blocks]]]


def densenet121():
    """Huang et al. 2016 (arXiv:1608.06993), table 1: blocks of (6, 12, 24, 16) layers, growth rate 32.

    A layer is a bottleneck of four times the growth rate and a convolution that adds one growth rate to the stream; a
    transition halves the stream. What a concatenation joins stays apart: every layer's output is its own group.
    """
    growth, stream, found = 32, 64, [64]
    for block, count in enumerate((6, 12, 24, 16)):
        found += [4 * growth, growth] * count
        stream += count * growth
        if block < 3:
            stream //= 2
            found.append(stream)
    return found


def inception_v2():
    """Ioffe and Szegedy 2015 (arXiv:1502.03167), figure 5: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool.

    A double 3x3 is two convolutions of the same width; 0 stands for a branch that is not there or passes its input on.
    The pool projections of 4c and 4d are the 96 that the stated output of 576 channels leaves for them.
    """
    modules = [
        (64, 64, 64, 64, 96, 32),
        (64, 64, 96, 64, 96, 64),
        (0, 128, 160, 64, 96, 0),
        (224, 64, 96, 96, 128, 128),
        (192, 96, 128, 96, 128, 128),
        (160, 128, 160, 128, 160, 96),
        (96, 128, 192, 160, 192, 96),
        (0, 128, 192, 192, 256, 0),
        (352, 192, 320, 160, 224, 128),
        (352, 192, 320, 192, 224, 128),
    ]
    convolutions = [[one, a, b, c, d, d, pool] for one, a, b, c, d, pool in modules]
    return [64, 64, 192, *[units for module in convolutions for units in module if units]]


def inception_v1():
    """Szegedy et al. 2014 (arXiv:1409.4842), table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.

    Both convolutions of the stem that a local response normalisation follows are frozen; the 64 between them is not.
    """
    modules = [
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ]
    return [64, *[units for module in modules for units in module]]


def vgg19():
    """Simonyan and Zisserman 2014 (arXiv:1409.1556), table 1, column E, and two linear layers."""
    stages = [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)]
    return [*[units for units, count in stages for _ in range(count)], 4096, 4096]


def alexnet():
    """Krizhevsky et al. 2012: the first two convolutions are normalised, the last two split over two devices.

    The devices trade places in all three layers they run through. What both hold of the third and the fourth layer,
    192 channels, is read through one weight axis; the 128 that each has of the fifth are its own.
    """
    return [2, 192, 192, 128, 128, 4096, 4096]


def zfnet512():
    """Zeiler and Fergus 2013 (arXiv:1311.2901), figure 3; the first two convolutions are normalised.

    The variant in the wheel has 512 channels in each of the last three, and 1024 units before the classes.
    """
    return [512, 512, 512, 4096, 1024]


# --- tests ------------------------------------------------------------------------------------------------------


def shapes_in_file(name, graph):
    """What the file's own declarations say of shapes, as a run would measure them."""
    model = onnx.shape_inference.infer_shapes(onnx.load(LIGHT / f"light_{name}.onnx"), data_prop=True).graph
    values = {weight.name: weight.read() for weight in graph.weights.values() if weight.dtype.kind == "i"}
    shapes = {weight.name: weight.shape for weight in graph.weights.values()}
    for value in (*model.value_info, *model.input, *model.output):
        shapes.setdefault(value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
    for node in graph.nodes:  # the masks of Dropout are not inferred
        shapes.update({out: shapes[node.outputs[0]] for out in node.outputs if out not in shapes})
    return Probe({}, shapes, values)


def sizes(groups):
    return sorted(groups.groups[i].units for i in groups.usable())


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("squeezenet", squeezenet),
        ("resnet50", resnet50),
        ("densenet121", densenet121),
        ("inception_v2", inception_v2),
        ("inception_v1", inception_v1),
    ],
)
def test_groups_are_those_of_the_publication(name, table):
    assert sizes(axis_groups(light(name))) == sorted(table())


@pytest.mark.parametrize(("name", "table"), [("vgg19", vgg19), ("bvlc_alexnet", alexnet), ("zfnet512", zfnet512)])
def test_groups_of_the_large_ones_are_those_of_the_publication(name, table):
    graph = light(name)
    assert sizes(axis_groups(graph, shapes_in_file(name, graph))) == sorted(table())


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("bvlc_alexnet", {"has a window over the channels"}),
        ("inception_v1", {"has a window over the channels"}),
        ("shufflenet", set()),
        ("zfnet512", {"has a window over the channels"}),
        ("vgg19", set()),
    ],
)
def test_what_is_frozen_has_its_reason(name, reasons):
    graph = light(name)
    groups = axis_groups(graph, shapes_in_file(name, graph))
    found = {group.reason for group in groups.groups if group.state is GroupState.FROZEN}
    assert {reason for reason in reasons if any(reason in one for one in found)} == reasons
    assert all(any(reason in one for reason in reasons) for one in found)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bvlc_alexnet", {"conv": 5, "linear": 3}),
        ("zfnet512", {"conv": 5, "linear": 3}),
        ("vgg19", {"conv": 16, "linear": 3}),
        ("squeezenet", {"conv": 26}),
        ("resnet50", {"conv": 53, "linear": 1}),
        ("inception_v1", {"conv": 57, "linear": 1}),
    ],
)
def test_layers_are_those_of_the_publication(name, kinds):
    found = [layer.kind for layer in find_layers(light(name))]
    assert {kind: found.count(kind) for kind in set(found)} == kinds


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "densenet121"])
def test_every_group_is_verified(name):
    """Every role of every group is left out in turn: DenseNet's concatenations are where known tools fail."""
    graph = light(name)
    judged = verify(graph, axis_groups(graph))
    assert [group.reason for group in judged.groups if group.state in (GroupState.FROZEN, GroupState.UNVERIFIED)] == []
    covered = coverage(graph, judged)
    assert covered.total > 1e6
    assert covered.share >= 0.9


@pytest.mark.slow
def test_every_group_of_a_shufflenet_is_verified():
    """Zhang et al. 2017 (arXiv:1707.01083), 4 groups: units of a stream move in all groups of a convolution alike."""
    graph = light("shufflenet")
    judged = verify(graph, axis_groups(graph))
    assert [group.reason for group in judged.groups if group.state in (GroupState.FROZEN, GroupState.UNVERIFIED)] == []
    assert len(judged.usable()) == 66
    assert coverage(graph, judged).share >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "inception_v2"])
def test_all_groups_pass_at_once_and_a_sample_is_verified_with_controls(name):
    """A full verification of these takes a minute each; what it adds is the control of the groups left out here."""
    graph = light(name)
    groups = axis_groups(graph)
    usable = groups.usable()
    trial = open_trial(graph, groups)
    rng = np.random.default_rng(1)
    cycles = {i: rng.permutation(groups.groups[i].units) for i in usable}
    for kind in (derangement, exchange):
        moved = bisect_groups(trial, groups, {i: kind(cycle) for i, cycle in cycles.items()}, usable)
        assert max(moved.values()) <= ACCEPT
    sample = {usable[0], usable[len(usable) // 2], usable[-1]}
    rest = groups.with_states({i: (GroupState.UNVERIFIED, "not in the sample") for i in usable if i not in sample})
    judged = verify(graph, rest)
    assert {judged.groups[i].state for i in sample} == {GroupState.VERIFIED}


@pytest.mark.parametrize("name", ["squeezenet", "inception_v1", "shufflenet"])
def test_a_shuffled_copy_of_all_groups_computes_the_same(name):
    graph = reseeded(light(name), 1)
    groups = axis_groups(graph)
    copy, orders = permuted_copy(graph, groups)
    inputs = inputs_of(graph)
    assert len(orders) == len(groups.usable())
    assert deviation(run(copy, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")) <= 1e-4
