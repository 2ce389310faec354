"""The layer graph: one view of a network, whatever framework it came from.

A `LayerGraph` holds one `Node` per operator, in the vocabulary of ONNX, and one `Weight` handle per stored tensor.
It is a view: the adapter that made it keeps the source document untouched, and saving means that document plus the
tensors and attributes replaced here. Weights stay in the file until `Weight.read` is called.

Chosen: tuples of frozen nodes, with the networkx `MultiDiGraph` built on first use. Refused: networkx as the only
storage - the analyses that visit every node once are several times faster over a tuple, and a frozen value is shared
safely between steps.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, cached_property, wraps
from types import MappingProxyType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import networkx as nx
import numpy as np

from mal_graph.boxes import MOST, Box, Boxed, ReadBox, contiguous_boxes, open_values
from mal_graph.boxes import Array as Array  # every step names it from here
from mal_graph.brief import Brief
from mal_graph.source_files import SourceFile

MERGEABLE_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})


class Declared(StrEnum):
    """What the source says of a stored tensor."""

    NOTHING = ""
    LEARNED = "learned"  # training changes it
    WRITTEN = "written"  # it stands among the operators, as a number does in code


@dataclass(frozen=True)
class Weight:
    """A handle on one stored tensor; `read()` gives its values as a read-only array of `shape`, all at once."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array] = field(repr=False, compare=False)
    scope: str = ""  # the subgraph it lives in, "" for the main graph
    declared: Declared = Declared.NOTHING

    def open(self) -> ReadBox:
        """What gives the values of a box at a time."""
        return open_values(self.read)

    @property
    def boxes(self) -> Iterator[Box]:
        """The boxes that the values are best read in, in the order in which they are stored."""
        return contiguous_boxes(self.shape, self.read.most if isinstance(self.read, Boxed) else MOST)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the values may be averaged: a float type that arithmetic is defined on."""
        return is_mergeable(self.dtype)


@cache
def is_mergeable(dtype: np.dtype[Any]) -> bool:
    """Whether arithmetic is defined on a type; numpy takes long to tell the name of one."""
    return dtype.name in MERGEABLE_TYPES


def is_list(array: Array) -> bool:
    """Whether an array of one object stands for a list of tensors, or of anything else."""
    return array.dtype == object and not array.ndim and isinstance(array[()], list)


def weight_of(name: str, values: Array) -> Weight:
    """A handle on an array in memory, made read-only so that steps can share it."""
    values = np.asarray(values).view()
    values.flags.writeable = False
    return Weight(name, values.shape, values.dtype, lambda: values)


@dataclass(frozen=True)
class Value:
    """A model input or output: its name, element type (numpy's name) and shape, dynamic axes by name or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Node:
    """One operator. `op` is the ONNX name, with its domain in front unless that is ai.onnx."""

    name: str
    op: str
    inputs: tuple[str, ...]  # "" where an optional input is absent
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False)
    captures: tuple[str, ...] = ()  # tensors of this graph that a subgraph of the node reads
    scope: str = ""  # the module that it was exported from, where the exporter tells
    has_graphs: bool = False  # it runs graphs that are not looked into
    body: str = ""  # the body of another operator that it stands in, "" if it runs in any case
    runs: tuple[str, ...] = ()  # the bodies that it runs, where their operators stand before it in the same graph

    @property
    def reads(self) -> list[str]:
        """The tensors that it reads."""
        return [name for name in (*self.inputs, *self.captures) if name]

    @property
    def title(self) -> str:
        """How messages call the node."""
        return f"{self.op} {self.name!r}"

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def with_input(self, slot: int, name: str) -> "Node":
        """The same operator reading `name` by an input slot that was empty."""
        inputs = [*self.inputs, *[""] * (slot + 1 - len(self.inputs))]
        inputs[slot] = name
        return replace(self, inputs=tuple(inputs))

    def renamed(self, names: Mapping[str, str]) -> "Node":
        """The same operator on tensors, and with bodies, of other names; what has no other keeps its own."""
        return replace(
            self,
            inputs=tuple(names.get(name, name) for name in self.inputs),
            outputs=tuple(names.get(name, name) for name in self.outputs),
            captures=tuple(names.get(name, name) for name in self.captures),
            body=names.get(self.body, self.body),
            runs=tuple(names.get(name, name) for name in self.runs),
        )


@dataclass(frozen=True)
class Joined:
    """How the source stores a weight in parts: the operator that lays them end to end, and the parts."""

    node: Node
    parts: tuple[Weight, ...]


@dataclass(frozen=True)
class Stack:
    """How the source stores a weight that holds a matrix for each of several blocks.

    Attributes:
        tensor: what operators make of the weight: the axes that the source has.
        weight: the handle of the source.
        order: the axes of the source in the order of the view, where several of them are one.
    """

    tensor: str
    weight: Weight
    order: tuple[int, ...]


@dataclass(frozen=True)
class StoredSplit:
    """How the source stores weights as one: the tensor, and the operator that cuts it into them."""

    node: Node
    weight: Weight


@dataclass(frozen=True, repr=False)
class LayerGraph(Brief):
    """A network as operators and weight handles; steps return new graphs and never change one.

    Attributes:
        name: how messages call the model, usually its file name.
        nodes: operators in topological order. Stored constants are weights, not nodes.
        inputs, outputs: the signature; an input that has an initializer is a weight, not an input.
        weights: stored tensors by name: the initializer's, or the output's of the constant node.
        opsets: operator set version by domain ("" is ai.onnx).
        source: the adapter's own document.
        edited: names of the weights whose values differ from the source's.
        inserted: new weights, each with the node (by its first output) and input slot that reads it.
        copies: weights that the source stores once with others, each with the one under whose name it does, and what
            operators make that arrange such a weight, where the source has one operator for several.
        tied: the axes along which the copies of a weight belong together, by name of the one that the source stores.
        joined: weights that the source stores in parts, which are no weights of the view.
        splits: tensors of the source of which every part is a weight of the view.
        stacks: weights that are a matrix in the view, and one for each of several blocks in the source.
        metadata: what the source notes of the model as a whole, as texts by key.
        files: what it was read from and is read from still, as these files were then.
        provenance: what its file notes of how it was made, "" where that is nothing.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: Mapping[str, Weight]
    opsets: Mapping[str, int]
    source: Any = field(default=None, repr=False, compare=False)
    edited: frozenset[str] = frozenset()
    inserted: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    joined: Mapping[str, Joined] = field(default_factory=dict)
    splits: Mapping[str, StoredSplit] = field(default_factory=dict)
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[SourceFile, ...] = field(default=(), repr=False, compare=False)
    provenance: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    draw: ClassVar[Callable[["LayerGraph"], str] | None] = None  # set where models are loaded, which knows who can

    def _repr_svg_(self) -> str | None:
        """What a notebook shows: the layers of the network."""
        draw = type(self).draw
        return None if draw is None else draw(self)

    @cached_property
    def producer(self) -> Mapping[str, int]:
        """Index of the node that computes each tensor; weights and inputs have none."""
        return {out: i for i, node in enumerate(self.nodes) for out in node.outputs if out}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """For each tensor the (node index, input slot) pairs that read it; slot -1 for a capture."""
        consumers: dict[str, list[tuple[int, int]]] = {}
        for i, node in enumerate(self.nodes):
            for slot, name in enumerate(node.inputs):
                if name:
                    consumers.setdefault(name, []).append((i, slot))
            for name in node.captures:
                consumers.setdefault(name, []).append((i, -1))
        return {name: tuple(readers) for name, readers in consumers.items()}

    @cached_property
    def network(self) -> "nx.MultiDiGraph[int]":
        """The operators as a networkx graph: nodes are indices into `nodes`, one edge per tensor read."""
        network: nx.MultiDiGraph[int] = nx.MultiDiGraph(name=self.name)
        network.add_nodes_from((i, {"op": node.op, "name": node.name}) for i, node in enumerate(self.nodes))
        for name, readers in self.consumers.items():
            if name in self.producer:
                network.add_edges_from((self.producer[name], i, {"tensor": name, "slot": slot}) for i, slot in readers)
        return network

    @property
    def output_names(self) -> frozenset[str]:
        return frozenset(value.name for value in self.outputs)

    @cached_property
    def inner(self) -> frozenset[str]:
        """The tensors that are computed in bodies of operators, as often as these run."""
        placed = zip(self.nodes, bodies_of(self.nodes), strict=True)
        return frozenset(name for node, body in placed if body for name in node.outputs if name)

    def named(self, name: str) -> "LayerGraph":
        """The same graph under another name."""
        return replace(self, name=name)

    def with_weights(self, replaced: Mapping[str, Array] | Iterable[Weight]) -> "LayerGraph":
        """The same graph with other values in some weights."""
        if isinstance(replaced, Mapping):
            declared = {name: weight.declared for name, weight in self.weights.items()}
            replaced = [
                replace(weight_of(name, values), declared=declared.get(name, Declared.NOTHING))
                for name, values in replaced.items()
            ]
        new = {weight.name: weight for weight in replaced}
        return replace(self, weights={**self.weights, **new}, edited=self.edited | set(new))

    def with_node(self, index: int, node: Node) -> "LayerGraph":
        """The same graph with other attributes in one of its nodes."""
        return replace(self, nodes=(*self.nodes[:index], node, *self.nodes[index + 1 :]))

    def with_nodes_behind(self, index: int, nodes: Sequence[Node], weights: Iterable[Weight]) -> "LayerGraph":
        """The same graph with new nodes behind one of its own: what read its first output reads the last node's."""
        old, new = self.nodes[index].outputs[0], nodes[-1].outputs[0]
        behind = [
            replace(node, inputs=tuple(new if name == old else name for name in node.inputs))
            for node in self.nodes[index + 1 :]
        ]
        return replace(
            self,
            nodes=(*self.nodes[: index + 1], *nodes, *behind),
            weights={**self.weights, **{weight.name: weight for weight in weights}},
        )

    def written_anew(self, *, nodes: Sequence[Node], source: object = None) -> "LayerGraph":
        """A graph of other nodes that no source is edited for: nothing is said of how one stores its weights."""
        return replace(
            self,
            nodes=tuple(nodes),
            source=source,
            edited=frozenset(),
            inserted={},
            copies={},
            tied={},
            joined={},
            splits={},
            stacks={},
        )

    def with_inserted(self, weight: Weight, reader: str, slot: int) -> "LayerGraph":
        """The same graph with a new weight in the empty input `slot` of the node whose first output is `reader`."""
        index = self.producer[reader]
        nodes = (*self.nodes[:index], self.nodes[index].with_input(slot, weight.name), *self.nodes[index + 1 :])
        return replace(
            self,
            nodes=nodes,
            weights={**self.weights, weight.name: weight},
            inserted={**self.inserted, weight.name: (reader, slot)},
        )


P = ParamSpec("P")
T = TypeVar("T")


def once_per_graph(
    find: Callable[Concatenate[LayerGraph, P], T],
) -> Callable[Concatenate[LayerGraph, P], T]:
    """Keep with each graph what a function finds of it, where it is given nothing but the graph: a graph never changes,
    and many steps ask the same of one. What is found must not be changed either."""

    @wraps(find)
    def kept(graph: LayerGraph, /, *more: P.args, **named: P.kwargs) -> T:
        if any(value is not None for value in (*more, *named.values())):
            return find(graph, *more, **named)
        key = f"once:{find.__module__}.{find.__qualname__}"
        if key not in graph.__dict__:
            graph.__dict__[key] = find(graph, *more, **named)
        result: T = graph.__dict__[key]
        return result

    return kept


def bodies_of(nodes: Sequence[Node]) -> list[str]:
    """The body that each of some nodes stands in, in topological order: its own, or the innermost of what it reads. One
    that none of them runs is none."""
    run = {name for node in nodes for name in node.runs}
    if not run:  # most graphs have none
        return [""] * len(nodes)
    made: dict[str, str] = {}
    placed: list[str] = []
    for node in nodes:
        around = [] if node.runs else [made.get(name, "") for name in node.inputs]
        own = node.body if node.body in run else ""
        placed.append(max([own, *around], key=len))
        made.update(dict.fromkeys(filter(None, node.outputs), placed[-1]))
    return placed


def needed_nodes(graph: LayerGraph, tensors: Collection[str], known: Collection[str] = ()) -> list[Node]:
    """The nodes that some tensors are computed by, in order, where others are known. Of a body all is needed, and what
    runs it: it runs as a whole."""
    known = set(known) - graph.inner
    wanted = set(tensors) - known
    wanted |= {
        next(filter(None, node.outputs)) for node in graph.nodes if node.runs and not graph.inner.isdisjoint(tensors)
    }
    used: list[Node] = []
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(name for name in node.reads if name not in known)
            used.append(node)
    return used[::-1]


def unused_stem(graph: LayerGraph, stem: str) -> str:
    """A stem that no name of a graph starts with as with a folder."""
    names = [*graph.weights, *graph.producer, *(value.name for value in graph.inputs)]
    while any(name.startswith(f"{stem}/") for name in names):
        stem += "_"
    return stem


def unused_name(graph: LayerGraph, name: str) -> str:
    """A name that nothing in a graph has."""
    return free_name(taken_names(graph), name)


def taken_names(graph: LayerGraph) -> set[str]:
    """The names of all tensors of a graph."""
    return {*graph.weights, *graph.producer, *(value.name for value in graph.inputs)}


def free_name(taken: set[str], name: str) -> str:
    """A name that is not taken, which is taken then."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
