"""A calibrated copy of a model: random weights under which every part of it makes a difference.

Random weights alone hide wrong groups: untrained BatchNorm statistics, signals that vanish, and channels whose constant
part drowns the rest. So one run of the model with gauges inserted measures what arrives where, and the weights are set
from it: every weighted contraction gives unit output, most of each channel's mean goes into the bias where there is
one, and BatchNorm statistics are those of their inputs, jittered. A contraction whose weight is itself computed (weight
standardisation) is followed by a factor instead. In the spirit of LSUV (Mishkin and Matas 2015, arXiv:1511.06422).

What is in a loop, and depends on what its runs give each other, keeps the weights that were drawn.

What matters is how a rounding error grows on its way to the outputs. BatchNorm with its true statistics doubles one
every few layers (Yang et al. 2019, arXiv:1902.08129), and a channel that hardly varies, divided by its own size, is
nothing but rounding. So a mean is only partly taken off, and the power of all channels counts in the variance of each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, weight_of
from mal_graph.network import (
    Parameter,
    axes_that_stay,
    data_dependent,
    find_applied,
    find_carried,
    find_masks,
    find_unlearned,
)
from mal_graph.operators import ParameterKind, row_of
from mal_graph.protocols import Runner
from mal_graph.symmetry.branches import measure_with_branches
from mal_graph.symmetry.groups import AxisGroups

CENTRED = "gauge/centred"  # the share of a channel's mean that goes into the bias or the running mean
SHARE = "gauge/share"  # times its power is added to a channel's variance
FLOOR = "gauge/floor"  # keeps a gauge from dividing by zero
CONSTANTS = {SHARE: 2.0, FLOOR: 1e-3}

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Scaling:
    """A gauge behind a contraction: its weight and bias are divided by `root`, after `offset` is taken off the bias."""

    root: str
    offset: str | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Statistic:
    """A gauge before a BatchNorm: what it measured becomes the value of the parameter."""

    tensor: str
    parameter: Parameter


def calibrate(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner,
    inputs: Mapping[str, Array],
    seed: int,
    centred: float,
    deadline: float | None = None,
) -> tuple[LayerGraph, dict[str, Array]]:
    """A graph of the same function but for some factors, and values for every parameter with an axis, random and
    calibrated on `inputs`; `centred` is the share of each channel's mean that is taken off. Raises RunError."""
    gauged = GaugedGraph(graph, groups, centred)
    weights = {**draw_weights(find_applied(graph), graph, seed, deadline), **gauged.factors}
    graph = gauged.graph_of(gauged.plain, gauged.factors)
    readings = gauged.part().readings
    if not readings:
        return graph, weights
    measuring = gauged.graph_of(gauged.nodes, {**gauged.factors, **gauged.constants})
    measured = measure_with_branches(measuring, runner, groups.probed.taken, readings, inputs, weights, deadline)
    measured = {name: array for name, array in measured.items() if np.isfinite(array).all()}
    rescaled: set[str] = set()
    for scaling in gauged.scalings:
        rescale(weights, rescaled, scaling, measured)
    for statistic in gauged.statistics:
        parameter = statistic.parameter
        if statistic.tensor in measured:
            stored = parameter.stored(measured[statistic.tensor], weights[parameter.tensor].shape)
            weights[parameter.tensor] = stored
    return graph, weights


def rescale(weights: dict[str, Array], rescaled: set[str], scaling: Scaling, measured: Mapping[str, Array]) -> None:
    """Set the weight and bias of one contraction in place of those that were drawn; a shared weight is set by its first
    user."""
    root = measured.get(scaling.root)
    if root is None:
        return
    offset = None if scaling.offset is None else measured.get(scaling.offset)
    for parameter in scaling.parameters:
        name = parameter.tensor
        if name in weights and name not in rescaled:
            rescaled.add(name)
            values = weights[name]
            if offset is not None and parameter.is_bias:
                values = values - parameter.stored(offset.ravel(), values.shape)
            weights[name] = np.asarray(values / root.ravel()[0], np.float32)


def draw_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal numbers in float32, of mean 0 and variance 1."""
    return rng.standard_normal(shape, np.float32)


def draw_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform ones, in a fifth of the time."""
    values = rng.random(shape, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(np.sqrt(12))
    return values


def draw_weights(
    parameters: Sequence[Parameter], graph: LayerGraph, seed: int, deadline: float | None = None
) -> dict[str, Array]:
    """Random values for every parameter with an axis, and for a gain that is zero, behind which nothing would show;
    masks and other single numbers (an epsilon, a root) keep theirs.

    Raises RunError where they are not drawn by the `deadline`.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for parameter in parameters:
        weight = graph.weights[parameter.tensor]
        if deadline is not None and monotonic() >= deadline:
            raise RunError(f"{graph.name} was not through when its time was up")
        is_drawn = weight.size > 1 or (parameter.kind is ParameterKind.SCALE and not weight.read().any())
        if is_drawn and parameter.tensor not in drawn:
            drawn[parameter.tensor] = drawn_weight(parameter, graph, rng)
    return {**drawn, **{mask.tensor: graph.weights[mask.tensor].read() for mask in find_masks(graph)}}


def drawn_weight(parameter: Parameter, graph: LayerGraph, rng: np.random.Generator, draw: Draw = draw_normal) -> Array:
    """Random values for one parameter. A setting that treats all units on an axis alike does so in the copy, too."""
    weight, setting = graph.weights[parameter.tensor], find_unlearned(graph).get(parameter.tensor)
    if setting is None:
        return drawn_values(parameter, weight.shape, rng, draw)
    kept = axes_that_stay(weight.read())
    shape = tuple(size if axis in kept else 1 for axis, size in enumerate(weight.shape))
    return np.broadcast_to(drawn_values(parameter, shape, rng, draw), weight.shape).copy()


def drawn_values(
    parameter: Parameter, shape: tuple[int, ...], rng: np.random.Generator, draw: Draw = draw_normal
) -> Array:
    """Random values for one parameter, of the size that its kind calls for; `draw` gives those of mean 0 and variance
    1."""
    if parameter.kind is ParameterKind.SCALE:
        return rng.uniform(0.6, 1.4, shape).astype(np.float32)
    if parameter.kind is ParameterKind.VARIANCE:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    values = draw(rng, shape)
    fan_in = max(1, int(np.prod(parameter.shape[1:])))
    values *= np.float32(1 / np.sqrt(fan_in) if parameter.kind is ParameterKind.WEIGHT else 0.3)
    return values


@dataclass(frozen=True)
class Gauged:
    """Consecutive operators with gauges between them, without, and what is to be read off the gauges."""

    nodes: Sequence[Node]
    plain: Sequence[Node]
    scalings: Sequence[Scaling]
    statistics: Sequence[Statistic]

    @property
    def readings(self) -> list[str]:
        """The tensors to be read off the gauges."""
        scaled = [name for scaling in self.scalings for name in (scaling.root, scaling.offset) if name]
        return [*scaled, *(statistic.tensor for statistic in self.statistics)]


class GaugedGraph:
    """A graph with gauges. A gauge's tensors are named after the tensor it measures.

    Attributes:
        nodes: the operators with gauges between them.
        plain: the operators without, but with a factor behind every contraction whose weight is computed.
        factors: these factors, all 1.
        scalings, statistics: what is to be read off the gauges.
        ends: how much of each there was before the first node of the source, and behind each.
    """

    def __init__(self, graph: LayerGraph, groups: AxisGroups, centred: float) -> None:
        self.source = graph
        self.opset = graph.opsets.get("", 1)
        self.shapes = groups.probed.shapes
        self.live = data_dependent(graph)
        self.carried = find_carried(graph)
        self.nodes: list[Node] = []
        self.plain: list[Node] = []
        self.factors: dict[str, Array] = {}
        self.scalings: list[Scaling] = []
        self.statistics: list[Statistic] = []
        constants = {CENTRED: centred, **CONSTANTS}
        self.constants: dict[str, Array] = {name: np.array(v, np.float32) for name, v in constants.items()}
        by_node: dict[int, dict[str, Parameter]] = {}
        for parameter in groups.parameters:
            by_node.setdefault(parameter.node, {})[parameter.role] = parameter
        self.ends = [self.sizes]
        for index, node in enumerate(graph.nodes):
            self.place(node, by_node.get(index, {}))
            self.ends.append(self.sizes)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How much there is of each."""
        return len(self.nodes), len(self.plain), len(self.scalings), len(self.statistics)

    def part(self, nodes: Iterable[int] | None = None) -> Gauged:
        """What was made of some nodes of the source, or of all."""
        made: tuple[list[Node], list[Node], list[Scaling], list[Statistic]] = ([], [], [], [])
        for index in range(len(self.source.nodes)) if nodes is None else nodes:
            (a, b, c, d), (e, f, g, h) = self.ends[index], self.ends[index + 1]
            made[0].extend(self.nodes[a:e])
            made[1].extend(self.plain[b:f])
            made[2].extend(self.scalings[c:g])
            made[3].extend(self.statistics[d:h])
        return Gauged(*made)

    def place(self, node: Node, own: Mapping[str, Parameter]) -> None:
        """Add one operator, with the gauge that it needs; `own` are its parameters by role."""
        row = row_of(node)
        # An operator with a state bounds what it gives: no factor on its weights scales that. In a loop the first run
        # tells nothing of the others: what they are given may be zeros then, and a factor too large makes chaos.
        has_state = row is not None and (row.has_state or not self.carried.isdisjoint(node.reads))
        is_made = row is not None and row.is_contraction and "weight" not in own and self.has_computed_weight(node)
        if is_made and not has_state:
            self.gauge_factor(node)
            return
        self.plain.append(node)
        if "weight" in own and not has_state:
            self.gauge_contraction(node, own)
        elif row is not None and row.has_stored_statistics(node) and self.is_measured(node, own):
            self.gauge_norm(node, own["mean"], own["variance"])
        else:
            self.nodes.append(node)

    def is_measured(self, node: Node, own: Mapping[str, Parameter]) -> bool:
        """Whether a norm has statistics that can be set from what arrives."""
        return {"mean", "variance"} <= own.keys() and node.inputs[0] in self.shapes

    def has_computed_weight(self, node: Node) -> bool:
        """Whether a contraction multiplies what depends on the inputs by what is computed from weights alone."""
        computed = [name for name in node.inputs[:2] if name in self.source.producer and name not in self.live]
        return bool(computed) and node.outputs[0] in self.live

    def graph_of(self, nodes: Sequence[Node], constants: Mapping[str, Array]) -> LayerGraph:
        """A graph of these nodes, with the weights of the source and further constants."""
        weights = {name: weight_of(name, values) for name, values in constants.items()}
        return replace(self.source, nodes=tuple(nodes), weights={**self.source.weights, **weights})

    def step(self, op: str, out: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output; gives the output's name."""
        self.nodes.append(Node(out, op, inputs, (out,), attributes))
        return out

    def mean_of(self, out: str, x: str, shape: Sequence[int], channel: int, keepdims: bool) -> str:
        """The mean of `x` over every axis but the channels'."""
        axes = [axis for axis in range(len(shape)) if axis != channel % len(shape)]
        if self.opset < 18:  # later the axes became an input
            return self.step("ReduceMean", out, x, axes=axes, keepdims=int(keepdims))
        self.constants[f"{out}/axes"] = np.array(axes, np.int64)
        return self.step("ReduceMean", out, x, f"{out}/axes", keepdims=int(keepdims))

    def gauge_contraction(self, node: Node, own: Mapping[str, Parameter]) -> None:
        """out = (raw - offset) / root, where root is the root mean square of what is left."""
        out = node.outputs[0]
        shape, row = self.shapes.get(out, ()), row_of(node)
        value, offset = f"{out}/raw", None
        self.nodes.append(replace(node, outputs=(value, *node.outputs[1:])))
        if "bias" in own and row is not None and len(shape) > 1:
            average = self.mean_of(f"{out}/average", value, shape, row.channel, keepdims=True)
            offset = self.step("Mul", f"{out}/offset", average, CENTRED)
            value = self.step("Sub", f"{out}/centred", value, offset)
        square = self.step("Mul", f"{out}/square", value, value)
        power = self.step("ReduceMean", f"{out}/power", square)
        root = self.step("Add", f"{out}/root", self.step("Sqrt", f"{out}/size", power), FLOOR)
        self.step("Div", out, value, root)
        self.scalings.append(Scaling(root, offset, tuple(own.values())))

    def gauge_factor(self, node: Node) -> None:
        """out = raw * factor, where the factor will be one over the root mean square of what it multiplies."""
        out, factor = node.outputs[0], f"{node.outputs[0]}/factor"
        self.factors[factor] = np.ones((), np.float32)
        self.plain.append(replace(node, outputs=(f"{out}/unscaled", *node.outputs[1:])))
        self.plain.append(Node(out, "Mul", (f"{out}/unscaled", factor), (out,)))
        named = Parameter(factor, len(self.plain), 1, "weight", ParameterKind.WEIGHT, (), ())
        self.gauge_contraction(node, {"weight": named})

    def gauge_norm(self, node: Node, mean: Parameter, variance: Parameter) -> None:
        """Statistics of the input, jittered by the draws in their slots: a share of the mean + sd * draw, and
        (variance + power of the channel and of all) * draw."""
        x, out = node.inputs[0], node.outputs[0]
        shape = self.shapes[x]
        average = self.mean_of(f"{out}/average", x, shape, 1, keepdims=False)
        power = self.mean_of(f"{out}/power", self.step("Mul", f"{out}/square", x, x), shape, 1, keepdims=False)
        squared = self.step("Mul", f"{out}/average squared", average, average)
        spread = self.step("Relu", f"{out}/spread", self.step("Sub", f"{out}/difference", power, squared))
        raised = self.step("Add", f"{out}/raised", spread, self.step("Mul", f"{out}/share", power, SHARE))
        common = self.step("Add", f"{out}/common", self.step("ReduceMean", f"{out}/whole", power, keepdims=0), FLOOR)
        floored = self.step("Add", f"{out}/floored", raised, common)
        inputs = list(node.inputs)
        sd = self.step("Sqrt", f"{out}/sd", floored)
        jitter = self.step("Mul", f"{out}/jitter", sd, inputs[mean.slot])
        offset = self.step("Mul", f"{out}/offset", average, CENTRED)
        measured = self.step("Add", f"{out}/mean", offset, jitter)
        widened = self.step("Mul", f"{out}/variance", floored, inputs[variance.slot])
        inputs[mean.slot], inputs[variance.slot] = measured, widened
        self.nodes.append(replace(node, inputs=tuple(inputs)))
        self.statistics += [Statistic(measured, mean), Statistic(widened, variance)]
