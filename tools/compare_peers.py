"""The axis groups of this project beside those of other tools: the same models, the same test.

    python tools/compare_peers.py --pleas PLeaS-Merging -o tools/results/compare_peers.md

Peers: DepGraph of Torch-Pruning (MIT, `pip install torch-pruning`), rebasin (MIT, `pip install rebasin`), and the
compiler of PLeaS-Merging, which has no licence: nothing of it is kept here, and `--pleas` names a checkout of it. A
tool that is not there is left out, with the reason. Needs torch, timm, and this project with its torch extra.

Every model is built once for all: random weights in float64, in which no two channels are alike, every convolution and
linear layer scaled to outputs of unit size, BatchNorm with random scale, shift and statistics. A group is *sound* if
its units can be permuted at random without moving the outputs by more than 1e-7 of their size, in evaluation mode. Each
group is tried alone, then all sound ones at once. The test of the test: on some sound groups one weight is left out,
which must show. Each pair of tool and model runs in a process of its own, and its result is kept in `--cache`.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from math import lgamma, log
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

TOLERANCE = 1e-7  # what float64 may leave of a right group
CONTROLS = 12  # sound groups on which a weight is left out
FIND_LIMIT = 150  # seconds for a tool to find the groups of a model
JUDGE_LIMIT = 900  # seconds for the test after that: ours to answer for, not the tool's
SIDE = 64
SEED = 20_251
CLASSES = 10

FOUND = "found"
REFUSED = "refused"  # the tool raised
TIMED_OUT = "timed out"
ABSENT = "absent"  # not installed
HARNESS = "harness"  # this script failed, whatever the tool would have done


@dataclass
class Row:
    """What one tool gave on one model.

    Attributes:
        sound, wrong: groups by the test.
        no_power: sound groups among those tried whose left-out weight did not show.
        not_expressible: groups of which no permutation can be made.
        coverage: share of the parameters' elements that some sound group moves.
        orders: how many orders the sound groups allow together, as a power of ten.
        seconds: for finding the groups, with our verification in our case.
        together: how much all sound groups at once move the outputs.
        note: what else is to be said.
    """

    tool: str
    model: str
    state: str = HARNESS
    groups: int = 0
    sound: int = 0
    wrong: int = 0
    not_expressible: int = 0
    tried: int = 0
    no_power: int = 0
    coverage: float = 0.0
    orders: float = 0.0
    seconds: float = 0.0
    seconds_judging: float = 0.0
    together: float | None = None
    as_left: float | None = None  # rebasin: all groups at once, statistics of BatchNorm as it leaves them
    cause: str = ""
    wrong_groups: list[str] = field(default_factory=list)
    note: str = ""
    key: str = ""


class Networks(NamedTuple):
    """A model of the comparison and its inputs."""

    module: nn.Module
    inputs: tuple[Tensor, ...]


Values = Mapping[str, Any]  # float64 tensors or arrays by name


@dataclass(frozen=True)
class Found:
    """What a tool found on a model, ready for the test.

    Attributes:
        names: a name for each group.
        sizes: for each group the sizes of the sets within which its units may trade places.
        permuted: the values that change when the groups at these places are permuted at once.
        run: the outputs with some values changed.
        values: every value that can change.
        parameters: the names among them that count for coverage.
        not_expressible: groups of which no permutation can be made, by name.
        as_left: how far the outputs move when all groups are permuted as the tool itself does it.
    """

    names: Sequence[str]
    sizes: Sequence[Sequence[int]]
    permuted: Callable[[Sequence[int]], Values]
    run: Callable[[Values], list[np.ndarray]]
    values: Values
    parameters: Sequence[str]
    not_expressible: Sequence[str] = ()
    as_left: Callable[[], float] | None = None
    note: str = ""


class Finder(Protocol):
    def __call__(self, network: Networks, options: argparse.Namespace) -> Callable[[], Callable[[], Found]]:
        """Make ready. What is returned finds the groups, and it alone is timed; what that returns prepares the test."""


# --- models -----------------------------------------------------------------------------------------------------


class Fire(nn.Module):
    """Iandola et al. 2016 (arXiv:1602.07360): squeeze, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, units_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(units_in, squeeze, 1), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


class SqueezeNet(nn.Module):
    """Iandola et al. 2016, half as deep."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.Conv2d(256, CLASSES, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


TIMM = (  # noqa: SIM905  # so many names are easier to read as words
    "resnet18 resnet50 resnext50_32x4d densenet121 inception_v3 mobilenetv2_050 mobilenetv3_small_050 "
    "efficientnet_b0 mnasnet_small regnetx_002 regnety_002 convnext_atto ghostnet_050 hrnet_w18_small mixer_s32_224 "
    "repvgg_a0 vgg11_bn"
).split()
OWN = (  # noqa: SIM905  # so many names are easier to read as words
    "squeezenet own_shufflenet_v1 own_shufflenet_v2 own_unet own_diffusion own_super_resolution"
).split()
SIDES = {"inception_v3": 128, "vgg11_bn": 224}  # where 64 is too small, or another is built in


def built(name: str) -> Networks:
    """A model in float64 and evaluation mode, and its inputs."""
    from make_suite_models import import_timm, own_model

    torch.manual_seed(SEED)
    if name == "squeezenet":
        module, inputs = SqueezeNet(), (torch.randn(1, 3, SIDE, SIDE),)
    elif name in OWN:
        module, inputs = own_model(name)
    else:
        timm, side = import_timm(), SIDES.get(name, SIDE)
        sized = {"img_size": side} if name.startswith("mixer") else {}
        module = plain_norms(timm.create_model(name, pretrained=False, num_classes=CLASSES, **sized))
        inputs = (torch.randn(1, 3, side, side),)
    module = module.double().eval()
    inputs = tuple(x.double() for x in inputs)
    draw_weights(module)
    scale_layers(module, inputs)
    return Networks(module, inputs)


def plain_norms(module: nn.Module) -> nn.Module:
    """timm's layers of BatchNorm and activation in one, taken apart into those of torch, which more tools know."""
    from timm.layers import BatchNormAct2d

    for name, child in module.named_children():
        if not isinstance(child, BatchNormAct2d):
            plain_norms(child)
            continue
        norm = nn.BatchNorm2d(child.num_features, child.eps, child.momentum)
        norm.load_state_dict({key: value for key, value in child.state_dict().items() if "." not in key})
        setattr(module, name, nn.Sequential(norm, *[part for part in (child.drop, child.act) if not is_empty(part)]))
    return module


def is_empty(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def draw_weights(module: nn.Module) -> None:
    """Random values for every parameter and statistic, so that no two channels are alike."""
    known = set()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)
            normed = isinstance(part, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm)
            for name, parameter in part.named_parameters(recurse=False):
                if id(parameter) in known:
                    continue
                known.add(id(parameter))
                if (normed and name == "weight") or (name != "bias" and parameter.squeeze().ndim <= 1):
                    parameter.uniform_(0.6, 1.4)  # scales: of norms, and of layers on their own
                elif parameter.ndim <= 1:
                    parameter.normal_(0, 0.3)
                else:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0, (2 / fan_in) ** 0.5)


def scale_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Divide the weights and bias of every convolution and linear layer so that its output has unit size."""
    done: set[int] = set()

    def scaled(part: nn.Module, _: Any, y: Tensor) -> Tensor | None:
        if id(part.weight) in done:
            return None
        done.add(id(part.weight))
        size = y.square().mean().sqrt()
        part.weight.div_(size)
        if part.bias is not None:
            part.bias.div_(size)
        return y / size

    layers = (nn.modules.conv._ConvNd, nn.Linear)
    hooks = [part.register_forward_hook(scaled) for part in module.modules() if isinstance(part, layers)]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()


# --- the test ---------------------------------------------------------------------------------------------------


def judge(found: Found, row: Row) -> None:
    """Permute every group alone and all sound ones together; the verdicts go into the row."""
    before = found.run({})
    if not all(np.isfinite(y).all() and np.ptp(y) > 0 for y in before):
        raise ArithmeticError("the outputs of the model are constant or not finite")
    moved = {name: np.zeros(np.shape(found.values[name]), bool) for name in found.parameters}
    tried = set(np.random.default_rng(SEED).permutation(len(found.names))[:CONTROLS].tolist())
    sound = []
    for place, name in enumerate(found.names):
        changed = found.permuted([place])
        deviation = largest_move(found.run(changed), before)
        if deviation > TOLERANCE:
            row.wrong_groups.append(f"{name} ({deviation:.0e})")
            continue
        sound.append(place)
        row.orders += sum(lgamma(size + 1) for size in found.sizes[place]) / log(10)
        for key, value in changed.items():
            if key in moved:
                moved[key] |= np.asarray(value) != np.asarray(found.values[key])
        if place in tried:
            heavy = [key for key, value in changed.items() if np.ndim(value) > 1] or list(changed)
            rest = {key: value for key, value in changed.items() if key != heavy[0]}
            row.tried += 1
            row.no_power += largest_move(found.run(rest), before) <= TOLERANCE
    row.groups = len(found.names) + len(found.not_expressible)
    row.sound, row.wrong, row.not_expressible = len(sound), len(row.wrong_groups), len(found.not_expressible)
    row.together = largest_move(found.run(found.permuted(sound)), before) if sound else None
    row.as_left = found.as_left() if found.as_left and found.names else None
    elements = sum(part.size for part in moved.values())
    row.coverage = sum(int(part.sum()) for part in moved.values()) / max(1, elements)


def largest_move(outputs: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> float:
    """The largest difference, relative to the largest value of the same output."""
    pairs = zip(outputs, before, strict=True)
    moves = [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs]
    return max(move if np.isfinite(move) else np.inf for move in moves)


def outputs_of(network: Networks) -> Callable[[Values], list[np.ndarray]]:
    """Runs a torch module with some of its parameters and buffers changed."""

    def run(changed: Values) -> list[np.ndarray]:
        with torch.no_grad():
            found = torch.func.functional_call(network.module, dict(changed), network.inputs)
        return [y.numpy() for y in (found if isinstance(found, tuple | list) else [found])]

    return run


def drawn_order(units: int, seed: int) -> np.ndarray:
    """A random order that leaves no unit where it is."""
    cycle = np.random.default_rng((SEED, seed)).permutation(units)
    order = np.empty(units, int)
    order[cycle] = np.roll(cycle, -1)
    return order


def parameter_names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and float buffers by name; a shared one once."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}


# --- ours -------------------------------------------------------------------------------------------------------


def ours(network: Networks, options: argparse.Namespace) -> Callable[[], Callable[[], Found]]:
    """Verified groups of the exported network, judged on the weights of the file in float64."""
    import study_groups

    import mal_graph
    from mal_graph.symmetry import GroupState

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.onnx"
    single = tuple(x.float() for x in network.inputs)
    torch.onnx.export(network.module.float(), single, str(path), dynamo=False, opset_version=17)

    def find() -> Callable[[], Found]:
        graph = mal_graph.load(path)
        groups = mal_graph.verify(graph, mal_graph.axis_groups(graph))
        return lambda: expressed(graph, groups)

    def expressed(graph: Any, groups: Any) -> Found:
        folder.cleanup()
        verified = [group for group in groups.groups if group.state is GroupState.VERIFIED and group.units > 1]
        others: dict[str, int] = {}
        for group in groups.groups:
            others[group.state] = others.get(group.state, 0) + (group.state is not GroupState.VERIFIED)
        study_groups.FAST = {**study_groups.FAST, "Conv": torch_conv(study_groups.conv)}
        exact = study_groups.Exact(graph)
        weights = {name: graph.weights[name].read().astype(np.float64) for name in exact.weights}
        names = [value.name for value in graph.inputs]
        inputs = {name: x.double().numpy() for name, x in zip(names, single, strict=True)}
        moves = [(group, drawn_order(group.units, place)) for place, group in enumerate(verified)]
        return Found(
            names=[group.name for group in verified],
            sizes=[[group.units] for group in verified],
            permuted=lambda places: study_groups.permuted_weights(weights, [moves[i] for i in places]),
            run=lambda changed: exact.run(inputs, {**weights, **changed}),
            values=weights,
            parameters=list({parameter.tensor for parameter in groups.parameters} & set(weights)),
            note=", ".join(f"{count} {state}" for state, count in sorted(others.items()) if count),
        )

    return find


def torch_conv(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A convolution of an ONNX graph by torch, which is faster in float64 than arrays of patches."""

    def conv(node: Any, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> Any:
        rank = x.ndim - 2
        pads = node.attribute("pads") or [0] * 2 * rank
        if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET") or rank not in (1, 2, 3):
            return otherwise(node, x, w, b)
        around = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
        run = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[rank - 1]
        padded = nn.functional.pad(torch.from_numpy(np.ascontiguousarray(x)), around)
        ones = [1] * rank
        parts = (torch.from_numpy(np.ascontiguousarray(w)), None if b is None else torch.from_numpy(b))
        how = (node.attribute("strides") or ones, 0, node.attribute("dilations") or ones, node.attribute("group", 1))
        return run(padded, *parts, *how).numpy()

    return conv


# --- Torch-Pruning ----------------------------------------------------------------------------------------------


def torch_pruning(network: Networks, options: argparse.Namespace) -> Callable[[], Callable[[], Found]]:
    """The groups of DepGraph, the layers that make the outputs ignored."""
    import torch_pruning as tp

    module, inputs = network
    ignored = output_layers(module, inputs)

    def find() -> Callable[[], Found]:
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=inputs)
        groups = list(graph.get_all_groups(ignored_layers=ignored))
        return lambda: expressed(tp, network, groups)

    return find


def output_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The convolutions and linear layers whose channels are those of an output: the last ones on every way to it."""
    made: dict[Any, nn.Module] = {}

    def remember(part: nn.Module, _: Any, y: Tensor) -> None:
        made[y.grad_fn] = part

    layers = (nn.modules.conv._ConvNd, nn.Linear)
    hooks = [part.register_forward_hook(remember) for part in module.modules() if isinstance(part, layers)]
    found = module(*inputs)
    for hook in hooks:
        hook.remove()
    waiting = [y.grad_fn for y in (found if isinstance(found, tuple | list) else [found])]
    last: list[nn.Module] = []
    while waiting:
        step = waiting.pop()
        if step in made:
            last.append(made[step])
        else:
            waiting += [before for before, _ in step.next_functions if before is not None]
    return list(dict.fromkeys(last))


class Item(NamedTuple):
    """One axis of one tensor in a group of Torch-Pruning: index `at[k]` belongs to channel `root[k]` of the group."""

    tensor: str
    axis: int
    at: np.ndarray
    root: np.ndarray


Axis = tuple[str, int]
Layout = dict[Axis, list[set[int]]]  # for every channel of a group the indices that go with it


class Move(NamedTuple):
    """A permutation of a group of Torch-Pruning: unit `order[u]` comes to the place of unit u.

    Attributes:
        places: for every axis the indices of each unit.
        sizes: how many units trade places with each other.
    """

    name: str
    places: dict[Axis, list[list[int]]]
    order: np.ndarray
    sizes: list[int]


def expressed(tp: Any, network: Networks, groups: Sequence[Any]) -> Found:
    """Permutations for groups of Torch-Pruning; a channel of a group takes its indices in every layer with it."""
    tensors = tensors_of(network.module)
    moves: list[Move] = []
    unfit, tied, coupled, outside = [], 0, 0, 0
    for group in groups:
        if any(dep.target.type == tp.ops.OPTYPE.OUTPUT for dep, _ in group):
            continue  # reaches the outputs: not among the groups that its documentation would prune
        name = str(group[0].dep.target.name)
        if len(group[0].idxs) < 2:
            continue
        try:
            layout, together = layout_of(tp, network.module, group)
        except NotImplementedError as error:
            unfit.append(f"{name}: {error}")
            continue
        if any(
            max(at, default=0) >= tensors[tensor].shape[axis] for (tensor, axis), ats in layout.items() for at in ats
        ):
            outside += 1
            unfit.append(f"{name}: indices beyond the end of a layer")
            continue
        ties = ties_of(group)
        move = move_of(name, layout, ties, len(moves))
        if max(move.sizes) == 1:
            unfit.append(f"{name}: no two channels occur in the same layers")
            continue
        tied += ties > 1
        coupled += together
        moves.append(move)

    def permuted(places: Sequence[int]) -> Values:
        changed: dict[str, Tensor] = {}
        for place in places:
            move = moves[place]
            for (tensor, axis), ats in move.places.items():
                value = changed.get(tensor, tensors[tensor])
                index = np.arange(value.shape[axis])
                for at, come in zip(ats, move.order.tolist(), strict=True):
                    index[at] = ats[come]
                changed[tensor] = value.index_select(axis, torch.from_numpy(index))
        return changed

    notes = [f"{tied} in equal steps in every group of a layer"] if tied else []
    notes += [f"{coupled} with channels of a layer that only go together"] if coupled else []
    notes += [f"{outside} name channels that a layer does not have"] if outside else []
    names, sizes = [move.name for move in moves], [move.sizes for move in moves]
    run, parameters = outputs_of(network), parameter_names(network.module)
    return Found(names, sizes, permuted, run, tensors, parameters, unfit, note=", ".join(notes))


def layout_of(tp: Any, module: nn.Module, group: Any) -> tuple[Layout, bool]:
    """For every axis in a group the indices that go with each of its channels, and whether some channels go together.

    A group of all channels keeps one channel for each index. Where several share one, only the groups of the single
    channels say so; they are asked for all if four of them differ from what the group of all says.
    """
    units = len(group[0].idxs)
    layout: Layout = {}
    for item in (item for place in range(len(group)) for item in items_of(tp, module, group, place)):
        sets = layout.setdefault((item.tensor, item.axis), [set() for _ in range(units)])
        for at, root in zip(item.at.tolist(), item.root.tolist(), strict=True):
            sets[root].add(at)

    def alone(channel: int) -> dict[Axis, set[int]]:
        root = group[0].dep
        single = group._DG.get_pruning_group(root.target.module, root.handler, [channel])
        found: dict[Axis, set[int]] = {}
        for item in (item for place in range(len(single)) for item in items_of(tp, module, single, place)):
            found.setdefault((item.tensor, item.axis), set()).update(item.at.tolist())
        return found

    def same(channel: int) -> bool:
        found = alone(channel)
        return all(found.get(axis, set()) == sets[channel] for axis, sets in layout.items())

    if all(same(channel) for channel in {0, units // 3, units // 2, units - 1}):
        return layout, False
    singles = [alone(channel) for channel in range(units)]
    axes = dict.fromkeys(axis for single in singles for axis in single)
    return {axis: [single.get(axis, set()) for single in singles] for axis in axes}, True


def move_of(name: str, layout: Layout, ties: int, seed: int) -> Move:
    """A random permutation that the pruner could follow.

    Channels that share an index are one unit; with `ties` groups in some layer the pruner takes the same channel out of
    every one of them, so these are one unit too. Units trade places that have equally many indices on every axis.
    """
    channels = len(next(iter(layout.values())))
    unit = [channel % (channels // ties) for channel in range(channels)]

    def first(u: int) -> int:
        while unit[u] != u:
            u = unit[u]
        return u

    for sets in layout.values():
        owner: dict[int, int] = {}
        for channel, at in enumerate(sets):
            for index in at:
                a, b = sorted((first(channel), first(owner.setdefault(index, channel))))
                unit[b] = a
    members: dict[int, list[int]] = {}
    for channel in range(channels):
        members.setdefault(first(channel), []).append(channel)
    places = {
        axis: [sorted(set().union(*[sets[channel] for channel in some])) for some in members.values()]
        for axis, sets in layout.items()
    }
    kinds: dict[tuple[int, ...], list[int]] = {}
    for u in range(len(members)):
        kinds.setdefault(tuple(len(ats[u]) for ats in places.values()), []).append(u)
    order = np.arange(len(members))
    for number, same in enumerate(kinds.values()):
        order[same] = np.array(same)[drawn_order(len(same), 1000 * seed + number)]
    return Move(name, places, order, [len(same) for same in kinds.values()])


def ties_of(group: Any) -> int:
    """In how many equal parts the pruner cuts the channels of a group, to take the same out of each."""
    found = [1]
    for dep, _ in group:
        part, graph = dep.target.module, group._DG
        pruner = graph.get_pruner_of_module(part)
        if isinstance(part, nn.modules.conv._ConvNd) and part.groups == part.out_channels:
            continue
        outgoing = graph.is_out_channel_pruning_fn(dep.handler)
        found.append(pruner.get_out_channel_groups(part) if outgoing else pruner.get_in_channel_groups(part))
    return max(found)


def items_of(tp: Any, module: nn.Module, group: Any, place: int) -> Iterator[Item]:
    """The tensors that one entry of a group shortens when it is pruned, as the pruning functions do it."""
    entry = group[place]
    target, handler = entry.dep.target, entry.dep.handler
    at, root = np.array(entry.idxs, int), np.array(entry.root_idxs, int)
    part, kinds = target.module, tp.ops.OPTYPE
    kind = tp.ops.module2type(part)
    outgoing = group._DG.is_out_channel_pruning_fn(handler)
    by_id = {id(tensor): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}

    def item(tensor: Tensor | None, axis: int, at: np.ndarray = at, root: np.ndarray = root) -> Iterator[Item]:
        if tensor is not None:
            yield Item(by_id[id(tensor)], axis % tensor.ndim, at, root)

    if kind == kinds.PARAMETER:
        yield from item(part, target.pruning_dim)
    elif kind == kinds.DEPTHWISE_CONV or (kind == kinds.LINEAR and outgoing):
        yield from item(part.weight, 0)
        yield from item(part.bias, 0)
    elif kind == kinds.CONV and outgoing:
        yield from item(part.weight, 1 if part.transposed else 0)
        yield from item(part.bias, 0)
    elif kind == kinds.CONV:
        # Those of the first group of the convolution stand for all.
        first = (at < part.in_channels // part.groups) | (part.groups == 1)
        yield from item(part.weight, 0 if part.transposed else 1, at[first], root[first])
    elif kind == kinds.LINEAR:
        yield from item(part.weight, 1)
    elif kind == kinds.LN:
        yield from item(part.weight, -1)
        yield from item(part.bias, -1)
    elif kind in (kinds.BN, kinds.GN, kinds.IN):
        for name in ("weight", "bias", "running_mean", "running_var"):
            yield from item(getattr(part, name, None), 0)
    elif kind == kinds.EMBED:
        yield from item(part.weight, 1)
    elif kind == kinds.PRELU:
        if part.num_parameters > 1:
            yield from item(part.weight, 0)
    elif kind in (kinds.LSTM, kinds.MHA, kinds.CUSTOMIZED):
        raise NotImplementedError(f"no permutation of a {type(part).__name__}")


# --- PLeaS ------------------------------------------------------------------------------------------------------


def pleas(network: Networks, options: argparse.Namespace) -> Callable[[], Callable[[], Found]]:
    """The permutation specification of PLeaS: groups of axes of the state of a module."""
    from make_suite_models import import_timm

    import_timm()  # puts something in the place of torchvision, if that does not load
    if options.pleas is None or not (options.pleas / "pleas/core/compiler.py").exists():
        raise ModuleNotFoundError("no checkout of PLeaS-Merging given by --pleas")
    sys.path.insert(0, str(options.pleas))
    from pleas.core.compiler import get_permutation_spec

    def find() -> Callable[[], Found]:
        spec = get_permutation_spec(network.module, network.inputs)
        return lambda: expressed(spec)

    def expressed(spec: Any) -> Found:
        tensors = tensors_of(network.module)
        aliases = aliased(network.module)
        names, groups = [str(key) for key in spec], list(spec.values())  # it leaves out groups of one unit itself
        orders = [torch.from_numpy(drawn_order(group.size, place)) for place, group in enumerate(groups)]

        def permuted(places: Sequence[int]) -> Values:
            changed: dict[str, Tensor] = {}
            for place in places:
                axes = {(aliases[axis.key], axis.axis) for axis in groups[place].state if axis.key in aliases}
                for name, axis in sorted(axes):
                    value = changed.get(name, tensors[name])
                    changed[name] = value.index_select(axis, orders[place])
            return changed

        run = outputs_of(network)
        sizes = [[group.size] for group in groups]
        return Found(names, sizes, permuted, run, tensors, parameter_names(network.module))

    return find


def aliased(module: nn.Module) -> dict[str, str]:
    """For every name of a parameter or buffer the first name of the same tensor."""
    first: dict[int, str] = {}
    both = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for name, tensor in both if tensor.is_floating_point()}


# --- rebasin ----------------------------------------------------------------------------------------------------


def rebasin(network: Networks, options: argparse.Namespace) -> Callable[[], Callable[[], Found]]:
    """The permutations that rebasin would choose, applied by rebasin itself."""
    import copy

    from rebasin import PermutationCoordinateDescent

    module, inputs = network
    original = copy.deepcopy(module)

    def find() -> Callable[[], Found]:
        given = inputs if len(inputs) > 1 else inputs[0]
        descent = PermutationCoordinateDescent(original, module, given)
        return lambda: expressed(descent)

    def expressed(descent: Any) -> Found:
        found = [permutation for permutation, _ in descent.pinit.model_graph.permutation_to_info]
        found = [permutation for permutation in found if len(permutation) > 1]
        tensors = {name: tensor.clone() for name, tensor in tensors_of(module).items()}
        identity = [torch.arange(len(permutation)) for permutation in found]
        orders = [torch.from_numpy(drawn_order(len(permutation), place)) for place, permutation in enumerate(found)]
        for tensor in module.parameters():
            tensor.requires_grad_(False)

        def permuted(places: Sequence[int], statistics: bool = True) -> Values:
            for place, permutation in enumerate(found):
                permutation.perm_indices = orders[place] if place in places else identity[place]
            descent.apply_permutations()
            after = tensors_of(module)
            for name, parameter in module.named_parameters():
                parameter.data = tensors[name].clone()
            if statistics:
                carry_statistics(module, tensors, after)
            return {name: tensor for name, tensor in after.items() if not torch.equal(tensor, tensors[name])}

        run = outputs_of(network)
        before = run({})
        return Found(
            names=[f"permutation {place} of {len(permutation)}" for place, permutation in enumerate(found)],
            sizes=[[len(permutation)] for permutation in found],
            permuted=permuted,
            run=run,
            values=tensors,
            parameters=parameter_names(module),
            as_left=lambda: largest_move(run(permuted(range(len(found)), statistics=False)), before),
        )

    return find


def carry_statistics(module: nn.Module, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> None:
    """Let the statistics of every BatchNorm go where its scales went: a new estimate would put them there."""
    for name, part in module.named_modules():
        weight = f"{name}.weight"
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and not torch.equal(before[weight], after[weight]):
            order = torch.argsort(before[weight])[torch.argsort(torch.argsort(after[weight]))]
            for kind in ("running_mean", "running_var"):
                after[f"{name}.{kind}"] = before[f"{name}.{kind}"][order]


# --- one pair ---------------------------------------------------------------------------------------------------

TOOLS: dict[str, Finder] = {"mal_graph": ours, "Torch-Pruning": torch_pruning, "PLeaS": pleas, "rebasin": rebasin}


def compared(tool: str, model: str, options: argparse.Namespace) -> Row:
    """Everything the table says of one tool on one model."""
    row = Row(tool, model)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    try:
        find = TOOLS[tool](built(model), options)
    except ImportError as error:
        row.state, row.cause = ABSENT, first_line(error)
        return row
    except Exception as error:
        row.cause = f"while building: {first_line(error)}"
        return row

    def give_up() -> None:
        row.state, row.seconds, row.cause = TIMED_OUT, float(FIND_LIMIT), f"after {FIND_LIMIT} s"
        print("\n" + json.dumps(asdict(row)), flush=True)
        os._exit(0)  # an exception could be caught by the tool

    start = time.perf_counter()
    watch = Timer(FIND_LIMIT, give_up)
    watch.start()
    try:
        prepare = find()
    except Exception as error:
        row.state, row.cause, row.seconds = REFUSED, first_line(error), time.perf_counter() - start
        return row
    finally:
        watch.cancel()
    row.seconds = time.perf_counter() - start
    start = time.perf_counter()
    try:
        found = prepare()
        row.note = found.note
        judge(found, row)
        row.state = FOUND
    except Exception as error:
        row.cause = f"while judging: {first_line(error)}"
    row.seconds_judging = time.perf_counter() - start
    return row


def first_line(error: BaseException) -> str:
    text = (str(error).strip() or "-").splitlines()[0]
    return f"{type(error).__name__}: {text[:160]}".replace("|", "/").replace(str(Path.home()), "~")


def compared_apart(tool: str, model: str, options: argparse.Namespace) -> Row:
    """`compared` in a process of its own."""
    command = [sys.executable, __file__, "--one", tool, model]
    command += ["--pleas", str(options.pleas)] if options.pleas else []
    single = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    limit = FIND_LIMIT + JUDGE_LIMIT
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=single, check=False)
    except subprocess.TimeoutExpired:
        return Row(tool, model, cause=f"the test was not over after {limit} s")
    try:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip() or "-").splitlines()[-1][:160]
        return Row(tool, model, cause=f"exit code {done.returncode}: {last}")


def compared_all(models: Sequence[str], tools: Sequence[str], options: argparse.Namespace) -> list[Row]:
    """A row for every pair, from the cache where it has one of the same code."""
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in models:
        for tool in tools:
            path, key = options.cache / f"{tool}.{model}.json", key_of(tool)
            kept = Row(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
            if kept is None or not (options.stale or kept.key == key) or kept.state in options.again:
                kept = compared_apart(tool, model, options)
                kept.key = key
                path.write_text(json.dumps(asdict(kept)) + "\n", encoding="utf-8")
            rows.append(kept)
            extra = "; ".join(part for part in (kept.note, ", ".join(kept.wrong_groups[:3])) if part)
            print(f"{model}, {tool}: {cell(kept)} {extra} [{kept.seconds_judging:.0f} s]", flush=True)
    return rows


def key_of(tool: str) -> str:
    """What a kept result depends on: this file up to its tables, and for our own groups the package."""
    parts = [Path(__file__).read_bytes().rpartition(b"# --- the table -")[0]]
    if tool == "mal_graph":
        from study_groups import code_digest

        parts.append(code_digest().encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


# --- the table --------------------------------------------------------------------------------------------------


def cell(row: Row) -> str:
    """sound/groups (coverage, seconds), or what went wrong."""
    if row.state == ABSENT:
        return "not installed"
    if row.state != FOUND:
        return f"{row.state}: {short(row.cause)}"
    parts = [f"{row.sound}/{row.groups} ({row.coverage:.2f}, {row.seconds:.1f} s)"]
    parts += [f"**{row.wrong} wrong**"] if row.wrong else []
    parts += [f"{row.not_expressible} not expressible"] if row.not_expressible else []
    return ", ".join(parts)


def short(text: str) -> str:
    """A message without addresses, and a module without its settings."""
    text = re.sub(r" at 0x[0-9a-f]+|\[num_users=\d+\] = | \([A-Z]\w+\(.*?\)\)(?= \(|$)", "", text)
    return text if len(text) <= 110 else f"{text[:110]} .."


def orders_cell(row: Row) -> str:
    return f"{row.orders:.0f}" if row.state == FOUND else "-"


def table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    tools, models = list(dict.fromkeys(r.tool for r in rows)), list(dict.fromkeys(r.model for r in rows))
    by_pair = {(row.tool, row.model): row for row in rows}
    lines = [f"| model | {' | '.join(tools)} |", "|---" * (len(tools) + 1) + "|"]
    lines += [f"| {model} | {' | '.join(cell(by_pair[tool, model]) for tool in tools)} |" for model in models]
    return "\n".join(lines)


def totals(rows: Sequence[Row]) -> str:
    head = (
        "| tool | models with groups | all groups sound | with a wrong group | refused | timed out | harness | groups "
        "| sound | wrong | not expressible | mean coverage over all models | seconds | controls that did not show |"
    )
    lines = [head, "|---" * 14 + "|"]
    for tool in dict.fromkeys(row.tool for row in rows):
        mine = [row for row in rows if row.tool == tool]
        if all(row.state == ABSENT for row in mine):
            lines.append(f"| {tool} | not installed: {mine[0].cause} |" + " |" * 12)
            continue
        found = [row for row in mine if row.state == FOUND]
        counted = [row for row in mine if row.state != HARNESS]
        states = [sum(row.state == state for row in mine) for state in (REFUSED, TIMED_OUT, HARNESS)]
        sums = [sum(getattr(row, name) for row in found) for name in ("groups", "sound", "wrong", "not_expressible")]
        right = sum(row.groups > 0 and row.sound == row.groups for row in found)
        numbers = [sum(row.groups > 0 for row in found), right, sum(row.wrong > 0 for row in found), *states, *sums]
        coverage = sum(row.coverage for row in found) / max(1, len(counted))
        seconds = sum(row.seconds for row in mine)
        shown = f"{sum(row.no_power for row in found)} of {sum(row.tried for row in found)}"
        cells = [tool, *map(str, numbers), f"{coverage:.2f}", f"{seconds:.0f}", shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


HOW = f"""\
## How each tool was used

* All: one module per model, in evaluation mode and float64. timm's layers of BatchNorm and activation in one are taken
  apart into `nn.BatchNorm2d` and the activation first, because PLeaS and rebasin know layers by their class.
  A group of one unit is not counted. Coverage is the share of the parameters' elements that a sound group moves, wrong
  groups not counted; where a tool gave nothing it counts as 0 in the mean, and failures of this script are left out.
  Seconds are for finding the groups; a tool has {FIND_LIMIT} of them.
* mal_graph: the module is exported to ONNX (`dynamo=False`; not timed; the exporter folds BatchNorm into convolutions,
  so coverage is of the folded weights), then `load`, `axis_groups` and `verify` (timed). Groups are those that `verify`
  calls verified; the others are never used for merging. Judged on the weights of the file with
  onnx.reference in float64 and convolutions by torch. Units move as the group says, `positions` by `positions`.
* Torch-Pruning: `DependencyGraph.build_dependency`, then `get_all_groups` with the layers that make the outputs as
  `ignored_layers`, as its documentation asks. It removes channels, it does not permute them: a permutation is made from
  its index lists, channel r taking along every index that would go with it; channels that share an index are one unit,
  and units trade places that have as many indices in every layer. Where its pruner takes the same channels out of every
  group of a layer (grouped convolution, GroupNorm), the order is the same in every such group: a smaller set of
  permutations than those of a free group, and sound in this table means sound for that set. A permutation across the
  groups of such a layer cannot be written in its index lists. *Not expressible*: a group whose indices lie beyond the
  end of a layer (pruning a channel of it breaks the model), or with a layer of which it says nothing that a permutation
  could follow.
* PLeaS: `get_permutation_spec(module, inputs)`, and each group as it is, all axes by the same order. It traces with
  torch.fx, and refuses what it has no handler for. It was made for ResNets; the own networks here call functions where
  torch has modules too, and timm's VGG cannot be traced.
* rebasin: `PermutationCoordinateDescent(a, b, input)` makes the permutations (timed; the matching itself is not run),
  and its own `apply_permutations` applies them, one at random and the others at rest. It sees modules, not functions,
  as its documentation says. It never moves the running statistics of BatchNorm, and asks for a new estimate from data
  instead; here they are carried along, which is what a new estimate would give. The last table shows how far the
  outputs move before that."""


def document(rows: Sequence[Row], command: str, checkout: Path | None) -> str:
    names = ("torch", "timm", "onnx", "onnxruntime", "numpy", "torch-pruning", "rebasin", "torchview", "mal-graph")
    versions = ", ".join(f"{name} {found}" for name in names if (found := installed(name)))
    versions += revision(Path(__file__).parents[1]) + (f", PLeaS-Merging{revision(checkout)}" if checkout else "")
    parts = [
        "# Axis groups of other tools, on the same models by the same test",
        f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `{command}`, one CPU "
        f"thread, image side {SIDE} ({', '.join(f'{name} {side}' for name, side in SIDES.items())}; less in some own "
        "networks).",
        "A cell is sound groups / groups found (coverage, seconds). A group is sound if a random permutation of its "
        f"units, alone, moves the outputs by at most {TOLERANCE:g} of their size in float64. On up to {CONTROLS} sound "
        "groups of each cell one weight is left out: that must move the outputs, or the test says nothing of a group.",
        totals(rows),
        "## By model",
        table(rows, cell),
        "Numbers of groups compare only with care: a grouped convolution has one group for its groups, and one for the "
        "channels of each, where a tool sees them. How many orders the sound groups of a cell allow together does "
        "compare; as a power of ten:",
        table(rows, orders_cell),
        HOW,
    ]
    mine = [(row.model, unverified(row.note)) for row in rows if row.tool == "mal_graph"]
    if any(note for _, note in mine):
        parts += [
            "## Groups of mal_graph that are not verified, and so not counted",
            "Rigid: no two of its units can trade places. The taps of kernels and the axes of inputs and outputs, "
            "which stay where they are, are left out here.",
            "\n".join(f"* {model}: {note}" for model, note in mine if note),
        ]
    others = [row for row in rows if row.tool != "mal_graph" and row.note]
    if others:
        parts += ["## Groups that are permuted with a restriction"]
        parts += ["\n".join(f"* {row.tool}, {row.model}: {row.note}" for row in others)]
    wrong = [row for row in rows if row.wrong_groups]
    if wrong:
        parts += ["## Wrong groups, with how far they moved the outputs (the first eight of a cell)"]
        lines = [f"* {r.tool}, {r.model}: {', '.join(map(short, r.wrong_groups[:8]))}" for r in wrong]
        parts += ["\n".join(lines)]
    together = [row for row in rows if row.together is not None and row.together > TOLERANCE]
    clean = "All sound groups of a cell permuted at once leave the outputs as they are, in every cell."
    lines = [f"* {row.tool}, {row.model}: {row.together:.0e}" for row in together]
    parts += ["## All sound groups at once", "\n".join(lines) if together else clean]
    left = [row for row in rows if row.as_left is not None]
    if left:
        lines = [f"| {row.model} | {row.as_left:.0e} |" for row in left]
        parts += ["## rebasin: how far all its permutations at once move the outputs as it leaves the model"]
        parts += ["\n".join(["| model | moved |", "|---|---|", *lines])]
    return "\n\n".join(parts) + "\n"


def unverified(note: str) -> str:
    return ", ".join(part for part in note.split(", ") if not part.endswith(" pinned"))


def revision(folder: Path | None) -> str:
    """ " at" and the commit of a checkout; "" if it is none."""
    if folder is None or not (folder / ".git").exists():
        return ""
    asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f" at {done.stdout.strip()}" if done.returncode == 0 else ""


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pleas", type=Path, help="a checkout of SewoongLab/PLeaS-Merging")
    parser.add_argument("--models", nargs="+", default=[*TIMM, *OWN], help="only these")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS), help="only these")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "compare_peers")
    parser.add_argument("--stale", action="store_true", help="use kept results although the code has changed")
    parser.add_argument("--again", nargs="+", default=[ABSENT], metavar="STATE", help="never use kept results of these")
    parser.add_argument("-o", "--output", type=Path, help="write the tables here too")
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row = compared(*options.one, options)
        print("\n" + json.dumps(asdict(row)), flush=True)
        return 0
    rows = compared_all(options.models, options.tools, options)
    text = document(rows, " ".join(["python", "tools/compare_peers.py", *sys.argv[1:]]), options.pleas)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
    return 1 if any(row.wrong for row in rows if row.tool == "mal_graph") else 0


if __name__ == "__main__":
    sys.exit(main())
