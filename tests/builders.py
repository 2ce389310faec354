"""Seeded builders of small models for tests, and of donors that correspond to them.

`mlp` and `cnn` make common networks, `Net` anything else, one operator at a time. `permuted_copy`, `narrower` and
`wider` make donors whose right alignment is known; `renamed_copy` makes one that differs in names and file order only.

An *order* is read as everywhere: `order[i]` is the donor unit that stands on base unit `i`, -1 where there is none.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from mal_graph import registry
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Correspondence, Match, correspond, match_layers
from mal_graph.network import find_masks, probe
from mal_graph.symmetry import AxisGroups, Member, Network, axis_groups, permute_weights
from mal_graph.symmetry.random_copy import draw_weights
from mal_graph_adapters.onnx_format.edit import edited_model
from mal_graph_adapters.onnx_format.file import OnnxAdapter
from mal_graph_adapters.onnx_format.view import layer_graph

LIGHT = Path(os.path.dirname(onnx.__file__)) / "backend/test/data/light"
Orders = dict[int, np.ndarray]  # by index of the base's group


# --- models -----------------------------------------------------------------------------------------------------


class Net:
    """A model under construction. Tensors are names; each method that adds something returns its name.

    >>> net = Net(seed=0)
    >>> x = net.input("x", ("N", 3, 8, 8))
    >>> y = net.op("Relu", net.conv(x, 3, 6))
    >>> graph = net.graph(net.op("GlobalAveragePool", y))
    """

    def __init__(self, seed: int = 0, *, dtype: str = "float32", opset: int = 20, name: str = "net") -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype, self.opset, self.name = np.dtype(dtype), opset, name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.domains: set[str] = set()

    def input(self, name: str = "x", shape: Sequence[int | str] = ("N", 8), dtype: str = "") -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values: object, name: str = "") -> str:
        """A stored tensor with these values (lists of integers become int64)."""
        name = name or f"c{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def weight(self, *shape: int, name: str = "", scale: float | None = None) -> str:
        """A stored tensor of normal values; by default scaled to keep the size of what it multiplies."""
        name = name or f"w{len(self.weights)}"
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        values = self.rng.standard_normal(shape) * (np.sqrt(2 / fan_in) if scale is None else scale)
        self.weights[name] = values.astype(self.dtype)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object):
        """Add an operator; its output's name, or a tuple of names where it has several."""
        names = [f"{kind.lower()}{len(self.nodes)}{'' if outputs == 1 else f'.{i}'}" for i in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(kind, inputs, names, name=f"{kind}_{len(self.nodes)}", domain=domain, **attributes)
        self.nodes.append(node)
        self.domains.add(domain)
        return names[0] if outputs == 1 else tuple(names)

    def conv(
        self, x: str, units_in: int, units: int, kernel: int = 3, *, bias: bool = True, group: int = 1, stride: int = 1
    ) -> str:
        w = self.weight(units, units_in // group, kernel, kernel)
        biases = [self.weight(units, scale=0.3)] if bias else []
        pads, strides = [kernel // 2] * 4, [stride] * 2
        return self.op("Conv", x, w, *biases, kernel_shape=[kernel] * 2, pads=pads, strides=strides, group=group)

    def norm(self, x: str, units: int) -> str:
        """BatchNormalization with statistics that are not the neutral ones."""
        draws = [
            self.rng.uniform(0.6, 1.4, units),
            *self.rng.normal(0, 0.3, (2, units)),
            self.rng.uniform(0.5, 2, units),
        ]
        stored = [self.constant(values.astype(self.dtype), f"bn{len(self.weights)}") for values in draws]
        return self.op("BatchNormalization", x, *stored)

    def linear(self, x: str, units_in: int, units: int, style: str = "gemm") -> str:
        """A fully connected layer with a bias, written in one of the ways of `mlp`."""
        if style == "gemm":
            return self.op("Gemm", x, self.weight(units, units_in), self.weight(units, scale=0.3), transB=1)
        w = self.weight(units, units_in)
        self.weights[w] = np.ascontiguousarray(self.weights[w].T) if style != "transposed" else self.weights[w]
        b = self.weight(units, scale=0.3)
        if style == "gemm_nt":
            return self.op("Gemm", x, w, b)
        if style == "transposed":
            w = self.op("Transpose", w, perm=[1, 0])
        return self.op("Add", self.op("MatMul", x, w), b)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        """The finished model as an ONNX message, output shapes inferred where they can be."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            self.name,
            self.inputs,
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self.weights.items()],
        )
        versions = {"ai.onnx.ml": 3}
        others = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(self.domains - {""})]
        opsets = [helper.make_opsetid("", self.opset), *others]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(proto).graph.output
        for value, found in zip(proto.graph.output, inferred, strict=True):
            value.CopyFrom(found)
        return proto

    def graph(self, *outputs: str) -> LayerGraph:
        return load(self.proto(*outputs), self.name)


def mlp(
    widths: Sequence[int] = (8, 16, 12, 10),
    seed: int = 0,
    style: str = "gemm",
    *,
    activation: str = "Relu",
    dtype: str = "float32",
) -> LayerGraph:
    """Fully connected layers; input "x" of shape (N, widths[0]), one output of shape (N, widths[-1]).

    `style`: "gemm" (weight stored (out, in)), "gemm_nt" (Gemm, stored (in, out)), "matmul" (MatMul and Add, stored
    (in, out)) or "transposed" (MatMul of a weight stored (out, in) behind a Transpose).
    """
    net = Net(seed, dtype=dtype, name=f"mlp {'-'.join(map(str, widths))}")
    x = net.input("x", ("N", widths[0]))
    for i, (units_in, units) in enumerate(itertools.pairwise(widths)):
        x = net.linear(x, units_in, units, style)
        if i < len(widths) - 2:
            x = net.op(activation, x)
    return net.graph(x)


def cnn(
    channels: Sequence[int] = (6, 8),
    blocks: int = 1,
    seed: int = 0,
    *,
    bn: bool = True,
    residual: bool = True,
    head: str = "pool",
    depthwise: bool = False,
    concat: bool = False,
    size: int = 8,
    classes: int = 5,
    inner: int | None = None,
    dtype: str = "float32",
) -> LayerGraph:
    """A convolutional network; input "x" of shape (N, 3, size, size), one output of shape (N, classes).

    Every entry of `channels` is a stage: a convolution (stride 2 from the second on), then `blocks` blocks of two
    convolutions (with `inner` channels between them, default: the stage's) with a skip connection if `residual`.
    `depthwise` puts a depthwise convolution before the second one of a block, `concat` a second branch of half as many
    channels, concatenated to the stage. `head`: "pool" (global average, then a linear layer) or "flatten" (C*H*W).
    """
    net = Net(seed, dtype=dtype, name=f"cnn {'-'.join(map(str, channels))}")

    def step(x: str, units_in: int, units: int, kernel: int = 3, *, act: bool = True, **options: int) -> str:
        x = net.conv(x, units_in, units, kernel, bias=not bn, **options)
        x = net.norm(x, units) if bn else x
        return net.op("Relu", x) if act else x

    x, width = net.input("x", ("N", 3, size, size)), 3
    for stage, units in enumerate(channels):
        x, width = step(x, width, units, stride=2 if stage else 1), units
        for _ in range(blocks):
            between = inner or units
            y = step(x, units, between)
            y = step(y, between, between, group=between) if depthwise else y
            y = step(y, between, units, act=not residual)
            x = net.op("Relu", net.op("Add", x, y)) if residual else y
        if concat:
            x, width = net.op("Concat", x, step(x, units, max(2, units // 2), 1), axis=1), units + max(2, units // 2)
    if head == "pool":
        x = net.op("Flatten", net.op("GlobalAveragePool", x))
    else:
        x, width = net.op("Flatten", x), width * (size // 2 ** (len(channels) - 1)) ** 2
    return net.graph(net.linear(x, width, classes))


def vit(seed: int = 0, width: int = 8, blocks: int = 2, activation: str = "Gelu") -> LayerGraph:
    """Blocks of attention and an MLP of three times the width on four patches, with LayerNorm; input "x" of shape
    (N, 3, 8, 8), one output of shape (N, 5)."""
    net = Net(seed, name="vit")
    x = net.input("x", ("N", 3, 8, 8))
    x = net.op("Conv", x, net.weight(width, 3, 4, 4), net.weight(width), kernel_shape=[4, 4], strides=[4, 4])
    x = net.op("Transpose", net.op("Reshape", x, net.constant([0, width, 4])), perm=[0, 2, 1])

    def norm(x: str) -> str:
        return net.op("LayerNormalization", x, net.constant(np.ones(width, np.float32)), net.weight(width), axis=-1)

    def linear(x: str, units_in: int, units: int) -> str:
        return net.op("Add", net.op("MatMul", x, net.weight(units_in, units)), net.weight(units))

    for _ in range(blocks):
        y = norm(x)
        query, key, value = (linear(y, width, width) for _ in range(3))
        shares = net.op("Softmax", net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1])), axis=-1)
        x = net.op("Add", x, linear(net.op("MatMul", shares, value), width, width))
        x = net.op("Add", x, linear(net.op(activation, linear(norm(x), width, 3 * width)), 3 * width, width))
    return net.graph(net.linear(net.op("ReduceMean", norm(x), net.constant([1]), keepdims=0), width, 5))


def load(proto: onnx.ModelProto, name: str = "net") -> LayerGraph:
    """The layer graph of a model in memory, checked as a file would be where its output shapes are known."""
    if all(value.type.tensor_type.HasField("shape") for value in proto.graph.output):
        onnx.checker.check_model(proto)
    return layer_graph(ir.from_proto(proto), Path(f"{name}.onnx"))


def light(name: str, seed: int | None = None) -> LayerGraph:
    """One of the nine published architectures in the onnx wheel, e.g. "resnet50".

    Its weights are filled with one constant; with a seed they are drawn at random (do that for the small ones only).
    """
    graph = OnnxAdapter().load(LIGHT / f"light_{name}.onnx")
    return graph if seed is None else reseeded(graph, seed)


def reseeded(graph: LayerGraph, seed: int) -> LayerGraph:
    """The graph with every float weight of more than one element drawn at random, in its own type."""
    from mal_graph.network import find_parameters

    drawn = draw_weights(find_parameters(graph), graph, seed)
    return graph.with_weights({name: values.astype(graph.weights[name].dtype) for name, values in drawn.items()})


def save(model: LayerGraph | onnx.ModelProto, path: Path) -> Path:
    """Write a graph or a message to `path`."""
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, path)
    else:
        OnnxAdapter().save(model, path)
    return path


def network(graph: LayerGraph) -> Network:
    """A graph with its groups taken unverified."""
    return Network(graph, axis_groups(graph))


def correspondence_of(base: LayerGraph, donor: LayerGraph, **options: bool) -> Correspondence:
    """What of two models corresponds to each other, by the layers that are matched, with unverified groups."""
    return correspond(network(base), network(donor), match_layers(base, donor), **options)


def places(match: Match) -> list[tuple[int, int]]:
    """The pairs of a match as numbers of layers, of the base and of the donor."""
    mine, theirs = ([layer.name for layer in side] for side in (match.base, match.donor))
    return [(mine.index(pair.base.name), theirs.index(pair.donor.name)) for pair in match.pairs]


# --- running ----------------------------------------------------------------------------------------------------


def inputs_of(graph: LayerGraph, seed: int = 0) -> Mapping[str, Array]:
    """Random inputs of a size the model runs at."""
    return probe(graph, seed=seed).inputs


def run(graph: LayerGraph, inputs: Mapping[str, Array], runner: str = "reference") -> list[Array]:
    """The model's outputs in the order of its signature, by default in float64."""
    found = registry.runner(runner).open(graph).run(inputs)
    return [found[value.name] for value in graph.outputs]


class Counting:
    """onnxruntime, counting runs."""

    def __init__(self):
        self.runs = 0

    def open(self, graph, **options):
        session, counter = registry.runner().open(graph, **options), self

        class Session:
            types = session.types

            def run(self, *arguments, **more):
                counter.runs += 1
                return session.run(*arguments, **more)

        return Session()


def deviation(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference, relative to the largest value of the same output."""
    pairs = zip(found, expected, strict=True)
    return max(float(np.max(np.abs(a - b), initial=0) / np.max(np.abs(b), initial=1e-30)) for a, b in pairs)


# --- donors -----------------------------------------------------------------------------------------------------


def noisy(graph: LayerGraph, share: float, seed: int) -> LayerGraph:
    """A copy of which every weight is off by `share` of its spread."""
    rng = np.random.default_rng(seed)
    moved = {
        name: (values + share * max(values.std(), 0.1) * rng.standard_normal(values.shape)).astype(values.dtype)
        for name, values in stored(graph).items()
        if values.dtype.kind == "f"
    }
    return graph.with_weights(moved)


def permuted_copy(graph: LayerGraph, groups: AxisGroups, seed: int = 0) -> tuple[LayerGraph, Orders]:
    """A copy that computes the same with the units of every usable group shuffled, and the orders that undo it.

    Returns:
        the copy; for each usable group of `groups` its order: copy unit `order[i]` is unit `i` of `graph`.
    """
    rng = np.random.default_rng(seed)
    taken = {i: shuffle(groups.groups[i].units, rng) for i in groups.usable()}  # copy[u] = graph[taken[u]]
    moved = permute_weights(stored(graph), [(groups.groups[i], order) for i, order in taken.items()])
    return graph.with_weights(moved), {i: np.argsort(order) for i, order in taken.items()}


def shuffle(units: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of two units or more, not the identity."""
    while True:
        order = rng.permutation(units)
        if (order != np.arange(units)).any():
            return order


def narrower(graph: LayerGraph, groups: AxisGroups, seed: int = 0, share: float = 0.25) -> tuple[LayerGraph, Orders]:
    """A copy that lacks `share` of the units of every usable group (at least one, two stay), the rest shuffled.

    It is a network of its own with narrower weights, which computes what `graph` computes without those units.
    Depthwise `group` attributes follow; a Reshape, Split or Slice that names a hidden width does not.

    Returns:
        the copy; for each usable group its order, -1 where the copy lacks the unit.
    """
    rng = np.random.default_rng(seed)
    values, orders, gone = stored(graph), {}, {}
    for i in groups.usable():
        group = groups.groups[i]
        lost = min(group.units - 2, max(1, round(share * group.units)))
        taken = shuffle(group.units, rng)  # slot u of the copy holds unit taken[u]; the last slots are cut off
        values = {**values, **permute_weights(values, [(group, taken)])}
        orders[i] = np.where(np.argsort(taken) < group.units - lost, np.argsort(taken), -1)
        for member in group.members:
            key = member.tensor, member.axis
            gone.setdefault(key, []).append(member.positions[group.units - lost :].ravel())
    for (tensor, axis), positions in gone.items():
        values[tensor] = np.delete(values[tensor], np.concatenate(positions), axis)
    return resized(graph, values), orders


def wider(
    graph: LayerGraph, groups: AxisGroups, seed: int = 0, share: float = 0.25, *, silent: bool = False
) -> tuple[LayerGraph, Orders]:
    """A copy with `share` more units in every usable group (at least one), all shuffled.

    The new units are drawn from the entries of each tensor; with `silent` nothing reads them, so that the copy computes
    what `graph` computes (not where a norm or mean runs over the units). Widths follow as in `narrower`.

    Returns:
        the copy; for each usable group its order: where in the copy each unit stands.
    """
    rng = np.random.default_rng(seed)
    values, orders = stored(graph), {}
    added: dict[tuple[str, int], list[tuple[Member, int, int]]] = {}
    for i in groups.usable():
        group = groups.groups[i]
        extra = max(1, round(share * group.units))
        taken = shuffle(group.units, rng)
        values = {**values, **permute_weights(values, [(group, taken)])}
        # The new units stand behind slot `at`, so that the slots after it move up.
        at = int(rng.integers(group.units))
        orders[i] = np.argsort(taken) + extra * (np.argsort(taken) > at)
        for member in group.members:
            added.setdefault((member.tensor, member.axis), []).append((member, at, extra))
    for (tensor, axis), members in added.items():
        values[tensor] = with_new_entries(values[tensor], axis, members, rng, silent)
    return resized(graph, values), orders


def with_new_entries(
    values: Array, axis: int, members: Sequence[tuple[Member, int, int]], rng: np.random.Generator, silent: bool
) -> Array:
    """A tensor with new entries behind one unit of each member; a unit's runs of neighbours are copied as runs."""
    source = np.arange(values.shape[axis])
    layout: list[tuple[int, bool, Member | None]] = [(index, False, None) for index in source]
    for member, at, extra in members:
        runs = np.split(ordered := np.sort(member.positions[at]), np.flatnonzero(np.diff(ordered) > 1) + 1)
        for run_ in runs:
            end = next(i for i, (index, new, _) in enumerate(layout) if index == run_[-1] and not new)
            layout[end + 1 : end + 1] = [(index, True, member) for index in run_] * extra
    new = values.take([index for index, _, _ in layout], axis).copy()
    for place, (_, is_new, owner) in enumerate(layout):
        if is_new and owner is not None:
            where = (slice(None),) * axis + (place,)
            drawn = rng.choice(values.ravel(), new[where].shape)
            new[where] = 0 if silent and owner.consumes else drawn
    return new


def stored(graph: LayerGraph) -> dict[str, Array]:
    """The values of every float weight, and of the masks."""
    floats = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float and not weight.scope}
    return {**floats, **{mask.tensor: graph.weights[mask.tensor].read() for mask in find_masks(graph)}}


def resized(graph: LayerGraph, values: Mapping[str, Array]) -> LayerGraph:
    """The graph with weights of other shapes; depthwise convolutions get as many groups as they have channels."""
    changed = {name: array for name, array in values.items() if array is not graph.weights[name].read()}
    proto = message(graph.with_weights(changed))
    for node in proto.graph.node:
        weight = graph.weights.get(node.input[1]) if node.op_type in ("Conv", "ConvTranspose") else None
        for attribute in node.attribute:
            if weight is not None and attribute.name == "group" and attribute.i > 1:
                attribute.i = attribute.i * values[weight.name].shape[0] // weight.shape[0]
    return load(proto, graph.name.removesuffix(".onnx"))


def renamed_copy(graph: LayerGraph, seed: int = 0) -> tuple[LayerGraph, dict[str, str]]:
    """The same network under random names, its independent nodes and its initializers in another order.

    Inputs and outputs are renamed too. Models with subgraphs are not supported.

    Returns:
        the copy; the new name of every tensor and of every node (a name used for both maps alike).
    """
    rng = np.random.default_rng(seed)
    proto = message(graph)
    main = proto.graph
    tensors = {name for node in main.node for name in (*node.input, *node.output)}
    tensors |= {value.name for value in (*main.input, *main.output, *main.initializer)}
    views = {view.outputs[0]: view.name for view in graph.nodes}
    old = sorted((tensors | {node.name for node in main.node} | set(views.values())) - {""})
    names = dict(zip(old, (f"n{i}" for i in rng.permutation(len(old))), strict=True))
    for node in main.node:
        node.name = names.get(views.get(node.output[0], node.name), "")
        node.input[:] = [names.get(name, "") for name in node.input]
        node.output[:] = [names.get(name, "") for name in node.output]
    for value in (*main.input, *main.output, *main.initializer):
        value.name = names[value.name]
    made = {value.name for value in (*main.input, *main.initializer)}
    waiting, nodes, weights = list(main.node), [], list(main.initializer)
    while waiting:
        ready = [node for node in waiting if made.issuperset(name for name in node.input if name)]
        chosen = ready[int(rng.integers(len(ready)))]
        waiting.remove(chosen)
        nodes.append(chosen)
        made.update(chosen.output)
    order = rng.permutation(len(weights))
    del main.node[:], main.initializer[:]
    main.node.extend(nodes)
    main.initializer.extend(weights[i] for i in order)
    return load(proto, f"renamed {graph.name.removesuffix('.onnx')}"), names


def message(graph: LayerGraph) -> onnx.ModelProto:
    """The graph as an ONNX message of its own, without the shapes of intermediate tensors."""
    proto = onnx.ModelProto()
    proto.CopyFrom(ir.to_proto(edited_model(graph)))
    del proto.graph.value_info[:]
    return proto
