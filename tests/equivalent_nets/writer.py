"""Writes a network of seeded weights, once plainly and once permuted and written otherwise: the same function.

Every tensor carries *labels*: for each of its places the place of the plainly written tensor that stands there.
Whatever moves a tensor's places moves its labels with it, so that the weight behind it can be put in the right order.
No code of the package is used here: this is the oracle's side.

Both sides draw the architecture from one stream of random numbers and each weight from its own name; how something is
written is drawn from a stream of the side's own. `does` asks whether a rewrite is applied at a place.
"""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

OPSET = 17  # of what is not written in another one
CODES = 16  # entries of a palette
AGAIN = 0.6  # how often a rewrite is applied after its first place


@dataclass(frozen=True)
class Value:
    """A tensor of the model under construction.

    Attributes:
        name: in the file.
        labels: for each place, without the batch axis, the place of the plain tensor that stands there.
        plain: the plain tensor's shape, without the batch axis.
        share: what a place holds, divided by what the plain place holds and by how often it is there: a reader's
            weight is divided by it.
    """

    name: str
    labels: Ints
    plain: tuple[int, ...]
    share: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    def features(self) -> tuple[Ints, Floats]:
        """Which feature stands at each place of the last axis, and its share."""
        return self.labels.reshape(-1, self.shape[-1])[0] % self.plain[-1], self.share.reshape(-1, self.shape[-1])[0]

    def channels(self) -> tuple[Ints, Floats]:
        """Which channel stands at each place of the first axis, and its share."""
        places = int(np.prod(self.plain[1:]))
        rows, share = self.labels.reshape(len(self.labels), -1), self.share.reshape(len(self.labels), -1)
        return rows[:, 0] // places, share[:, 0]


@dataclass(frozen=True)
class Matrix:
    """A weight that is to be stored, its first axis the units it makes.

    Attributes:
        values: the weight.
        scale: per unit, where `values` are whole multiples of it; None where they are not.
        mask: which entries are not held at zero; None where the weight has no mask.
        hidden: what is stored under the mask.
        is_palette: whether there are few values, each of them often.
        is_half: whether half precision holds the values exactly.
    """

    values: Floats
    scale: Floats | None = None
    mask: NDArray[np.bool_] | None = None
    hidden: Floats | None = None
    is_palette: bool = False
    is_half: bool = False

    def taken(self, places: Ints, axis: int) -> "Matrix":
        """The same with the places of an axis in another order."""
        arrays = {
            name: None if array is None else array.take(places, axis)
            for name, array in (("values", self.values), ("mask", self.mask), ("hidden", self.hidden))
        }
        scale = self.scale.take(places, 0) if axis == 0 and self.scale is not None else self.scale
        return replace(self, **arrays, scale=scale)

    def turned(self, axes: Sequence[int]) -> "Matrix":
        """The same with its axes in another order; scales stay those of the units."""
        arrays = {
            name: None if array is None else np.ascontiguousarray(array.transpose(axes))
            for name, array in (("values", self.values), ("mask", self.mask), ("hidden", self.hidden))
        }
        return replace(self, **arrays)

    def times(self, factors: Floats | float) -> "Matrix":
        """The weight multiplied by a number, or by arrays that broadcast to it; a mask stays."""
        factors = np.asarray(factors, np.float32)
        values = self.values * factors
        hidden = None if self.hidden is None else self.hidden * factors
        if np.all(factors == 1) or not factors.ndim:
            scale = None if self.scale is None else self.scale * factors.ravel()[0]
            return replace(self, values=values, hidden=hidden, scale=scale)
        return Matrix(values, mask=self.mask, hidden=hidden)


@dataclass
class Writer:
    """One side of a pair: a model under construction.

    Attributes:
        seed: of the pair, architecture and weights.
        active: names of the rewrites this side is written with.
        traits: what both sides' weights and architecture are drawn for.
        is_permuted: whether hidden units stand in random orders.
        side: 0 or 1; the streams of random numbers differ by it.
        applied: for each rewrite the layers where it was applied.
        opsets: versions by domain, where they are given.
        learned: for each stored float tensor "layer/role".
    """

    seed: int
    active: Collection[str] = ()
    traits: Collection[str] = ()
    is_permuted: bool = False
    side: int = 0
    opset: int = OPSET
    opsets: dict[str, int] = field(default_factory=dict)
    applied: dict[str, set[str]] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    orders: dict[str, Ints] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.architecture = np.random.default_rng([self.seed, 1])  # read in the same order by both sides
        self.rng = np.random.default_rng([self.seed, 2, self.side])
        if self.does("opset"):
            self.opset = self.pick([n for n in range(13, 22) if n != OPSET])

    # --- random numbers ---------------------------------------------------------------------------------------------

    def does(self, rewrite: str, layer: str = "", *, on_both: bool = False) -> bool:
        """Whether a rewrite is applied here: at the first place always, then at some; `on_both` at the same places of
        both sides."""
        if rewrite not in self.active:
            return False
        coin = self.draws(f"{rewrite} {layer}") if on_both else self.rng
        if rewrite in self.applied and coin.random() > AGAIN:
            return False
        self.applied.setdefault(rewrite, set()).add(layer)
        return True

    def pick(self, choices: Sequence):
        """One of several ways to write something."""
        return choices[int(self.rng.integers(len(choices)))]

    def below(self, low: int, high: int) -> int:
        """A number of the architecture from `low` to `high`."""
        return int(self.architecture.integers(low, high + 1))

    def one_of(self, choices: Sequence):
        """One of several architectures."""
        return choices[int(self.architecture.integers(len(choices)))]

    def width(self, low: int = 4, high: int = 9) -> int:
        """How many units a hidden layer has."""
        return 6 if "equal_vectors" in self.traits else self.below(low, high)

    def draws(self, key: str) -> np.random.Generator:
        """The random numbers of one weight."""
        return np.random.default_rng([self.seed, 3, zlib.crc32(key.encode())])

    def shuffled(self, count: int) -> Ints:
        """An order that is not the plain one, where there is another."""
        order = np.arange(count)
        while count > 1 and (order == np.arange(count)).all():
            order = self.rng.permutation(count)
        return order

    # --- orders of units --------------------------------------------------------------------------------------------

    def order(self, space: str, units: int, blocks: tuple[str, int] | None = None, *, inside: bool = True) -> Ints:
        """Which plain unit stands at each place of a hidden axis.

        Args:
            space: tensors whose units move together name the same space; "" is never permuted.
            units: how many units it has.
            blocks: the space of the blocks that units move in, and how many blocks there are.
            inside: whether units change places inside of their block.
        """
        if not space or not self.is_permuted:
            return np.arange(units)
        if space not in self.orders and blocks is None:
            self.orders[space] = self.shuffled(units)
        elif space not in self.orders:
            size, still = units // blocks[1], np.arange(units // blocks[1])
            order = [block * size + (self.shuffled(size) if inside else still) for block in self.order(*blocks)]
            self.orders[space] = np.concatenate(order)
        return self.orders[space]

    # --- plain weights ----------------------------------------------------------------------------------------------

    def weight(self, key: str, shape: Sequence[int]) -> Matrix:
        """A plain weight, drawn for the traits of the pair."""
        rng = self.draws(f"{key}/weight")
        values = (rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))).astype(np.float32)
        mask = rng.random(shape) < 0.65
        if "whole_multiples" in self.traits:
            flat = np.abs(values).reshape(len(values), -1)
            scale = (flat.max(1) / 127).astype(np.float32)
            around = scale.reshape(-1, *[1] * (values.ndim - 1))
            return Matrix(np.round(values / around).astype(np.int8).astype(np.float32) * around, scale)
        if "palette" in self.traits:
            codes = rng.standard_normal(CODES).astype(np.float32) * np.abs(values).max() / 2
            return Matrix(codes[rng.integers(0, CODES, shape)], is_palette=True)
        if "masked" in self.traits:
            return Matrix(values * mask, mask=mask, hidden=values)
        if "half" in self.traits:
            return Matrix(values.astype(np.float16).astype(np.float32), is_half=True)
        return Matrix(values)

    def vector(self, key: str, units: int, scale: float = 0.4) -> Floats:
        """A plain bias."""
        if {"zero_biases", "equal_vectors"} & set(self.traits):
            return np.zeros(units, np.float32)
        return (self.draws(key).standard_normal(units) * scale).astype(np.float32)

    def norm_vectors(self, key: str, units: int) -> list[Floats]:
        """Plain scale, shift, mean and variance of a BatchNormalization."""
        rng = self.draws(f"{key}/norm")
        scale, variance = rng.uniform(0.6, 1.4, units), rng.uniform(0.5, 2, units)
        shift, mean = rng.normal(0, 0.3, (2, units))
        if "equal_vectors" in self.traits:
            scale, shift, mean, variance = np.ones(units), np.zeros(units), np.zeros(units), np.full(units, 1.5)
        if "small_variance" in self.traits:
            variance *= 0.01
        return [values.astype(np.float32) for values in (scale, shift, mean, variance)]

    # --- the file ---------------------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object):
        """Add an operator; its output's name, or a tuple of names where it has several."""
        names = [f"t{len(self.nodes)}{'' if outputs == 1 else f'_{i}'}" for i in range(outputs)]
        node = helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", domain=domain, **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else tuple(names)

    def store(self, values: np.ndarray, place: str = "") -> str:
        """A stored tensor; `place` says "layer/role" where it is learned."""
        name = f"{place.replace('/', '.') or 'c'}.{len(self.stored)}"
        self.stored[name] = np.ascontiguousarray(values)
        if place:
            self.learned[name] = place
        return name

    def ints(self, *values: int) -> str:
        return self.store(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.store(np.array(value, np.float32))

    def proto(self) -> onnx.ModelProto:
        """The finished model."""
        nodes, stored = list(self.nodes), dict(self.stored)
        if self.does("equal_vectors_shared"):
            nodes, stored = self.with_shared(nodes, stored)
        if self.does("nodes_reordered"):
            nodes = self.reordered(nodes)
        if self.does("constant_nodes"):
            chosen = [name for name in stored if self.rng.random() < 0.7] or list(stored)
            made = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(stored.pop(n))) for n in chosen]
            nodes = [*made, *nodes]
        inputs, outputs = list(self.inputs), list(self.outputs)
        if len(inputs) > 1 and self.does("inputs_listed"):
            inputs = [inputs[i] for i in self.shuffled(len(inputs))]
        if len(outputs) > 1 and self.does("outputs_listed"):
            outputs = [outputs[i] for i in self.shuffled(len(outputs))]
        if self.does("weights_among_inputs"):
            inputs += [described(name, values) for name, values in stored.items()]
        tensors = [numpy_helper.from_array(values, name) for name, values in stored.items()]
        graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
        versions = self.opsets or {"": self.opset, **{node.domain: 1 for node in nodes if node.domain}}
        opsets = [helper.make_opsetid(domain, number) for domain, number in versions.items()]
        proto = helper.make_model(graph, opset_imports=opsets, functions=self.functions, ir_version=10)
        if self.does("signature_renamed"):
            rename(proto, {value.name: f"other_{value.name}" for value in (*self.inputs, *self.outputs)})
        if self.does("names_changed"):
            known = {value.name for value in (*inputs, *proto.graph.output)}
            made = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
            new = {name: f"model/{i % 7}/x{i}" for i, name in enumerate(made) if name not in known}
            rename(proto, new)
            self.learned = {new.get(name, name): place for name, place in self.learned.items()}
        onnx.checker.check_model(proto)
        return proto

    def with_shared(self, nodes: list, stored: dict) -> tuple[list, dict]:
        """The same with float tensors of equal values stored once."""
        first: dict[tuple, str] = {}
        name_of = {}
        for name, values in stored.items():
            key = (values.dtype.str, values.shape, values.tobytes()) if values.dtype.kind == "f" else name
            name_of[name] = first.setdefault(key, name)
        copies = []
        for node in nodes:
            copies.append(onnx.NodeProto())
            copies[-1].CopyFrom(node)
            copies[-1].input[:] = [name_of.get(name, name) for name in node.input]
        self.learned = {name: place for name, place in self.learned.items() if name_of[name] == name}
        return copies, {name: values for name, values in stored.items() if name_of[name] == name}

    def reordered(self, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The same operators in another order in which each finds its inputs."""
        waiting, result, made = list(nodes), [], {"", *self.stored, *(value.name for value in self.inputs)}
        while waiting:
            ready = [node for node in waiting if set(node.input) <= made]
            node = self.pick(ready)
            waiting.remove(node)
            result.append(node)
            made.update(node.output)
        return result


def described(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)


def rename(proto: onnx.ModelProto, new: dict[str, str]) -> None:
    """Give tensors other names, everywhere in the main graph."""
    for node in proto.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = new.get(value.name, value.name)
