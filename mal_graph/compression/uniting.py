"""Several networks as one: each a branch of its own, what decides their outputs averaged in the end.

The base keeps its names; what the others have gets a prefix. A node of another that computes what one of the base
computes, of the same tensors, is not written twice: preparation of the inputs is shared. What the base computes of the
mean and needs before it as well stands on both sides, under a name of its own before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.compression.averaging import Member, Outputs
from mal_graph.compression.mean import with_mean
from mal_graph.compression.relabelling import relabelled
from mal_graph.errors import UnsupportedModel
from mal_graph.graph import LayerGraph, Node, Weight, needed_nodes, unused_name, unused_stem
from mal_graph.operators import LayerRole, row_of

BEFORE = "before the mean"


@dataclass(frozen=True)
class Branches:
    """What a united network is made of: the document of no adapter, but what one can make a document of its own of.

    Attributes:
        parts: the networks.
        shares: of each in the mean.
        is_plain: whether all outputs are means of the networks' outputs, as they are and in their order, and all take
            the inputs in one order.
    """

    parts: tuple[LayerGraph, ...]
    shares: tuple[float, ...]
    is_plain: bool


def unite(members: Sequence[Member], outputs: Outputs, shares: Sequence[float]) -> LayerGraph:
    """One network with the weighted mean of what decides the outputs of several.

    Args:
        members: the base first; of one set of operators.
        outputs: what is averaged.
        shares: the weight of each member; they sum to one.

    Raises:
        UnsupportedModel: an operator of the base reads in a graph of its own what is averaged behind it.
        MatchError: what the base makes of its scores cannot be made of more classes.
    """
    _, *others = members
    base = with_all_classes(members[0].graph, outputs)
    averaged = [one.tensors[0] for one in outputs.averaged]
    used = needed_nodes(base, averaged)
    again = [node for node in used if node.name in outputs.behind]
    twice = [name for node in again for name in (*node.outputs, *node.runs) if name]
    kept = {name: unused_name(base, f"{name}/{BEFORE}") for name in dict.fromkeys((*averaged, *twice))}
    for node in used:
        for name in node.captures:
            if name in kept:  # a name that its graph has for the mean as well
                raise UnsupportedModel(
                    f"{base.name} cannot stand beside another network: the graph inside {node.title} reads {name!r}, "
                    "which is averaged; export the model without this output"
                )
    front = [
        (replace(node, name=f"{node.name}/{BEFORE}") if node.name in outputs.behind else node).renamed(kept)
        for node in used
    ]
    united = base.written_anew(nodes=front)
    names = [kept]
    for number, other in enumerate(others, 1):
        united, own = with_branch(
            united, other, unused_stem(base, f"{number}"), [one.tensors[number] for one in outputs.averaged]
        )
        names.append(own)
    for one in outputs.averaged:
        united = with_mean(united, members, one, names, shares)
    behind = [node for node in base.nodes if node.name in outputs.behind]
    return replace(united, nodes=(*united.nodes, *behind), source=branches_of(members, outputs, shares))


def with_all_classes(base: LayerGraph, outputs: Outputs) -> LayerGraph:
    """The base with the classes of the mean behind its scores, and outputs whose shapes are open where they may have
    changed. Raises MatchError."""
    wider = {one.names: one for one in outputs.classes if one.is_wider}
    for classes in wider.values():
        own = tuple(name for name, is_known in zip(classes.names, classes.are_known[0], strict=True) if is_known)
        base = relabelled(base, outputs.behind, own, classes.names)
    return replace(base, outputs=tuple(replace(value, shape=None) for value in base.outputs)) if wider else base


def branches_of(members: Sequence[Member], outputs: Outputs, shares: Sequence[float]) -> Branches:
    """What a united network is made of."""
    is_plain = not outputs.behind and all(one.is_plain for one in outputs.averaged)
    for member in members:
        places = [[value.name for value in side] for side in (member.graph.inputs, member.graph.outputs)]
        is_plain = is_plain and places == [list(member.inputs.values()), list(member.outputs.values())]
    return Branches(tuple(member.graph for member in members), tuple(shares), is_plain)


def with_branch(
    united: LayerGraph, member: Member, prefix: str, tensors: Sequence[str]
) -> tuple[LayerGraph, dict[str, str]]:
    """The united network with the nodes of one more member, and what each of its tensors is called there."""
    graph = member.graph
    needed = needed_nodes(graph, tensors)
    names = {theirs: own for own, theirs in member.inputs.items()}
    known = Known(united)
    nodes: list[Node] = []
    for node in needed:
        same = None if node.body or node.runs else known.same(node, names, graph)
        if same is not None:
            names.update(zip(node.outputs, same.outputs, strict=True))
            continue
        for name in (*node.outputs, *node.runs):
            names.setdefault(name, f"{prefix}/{name}" if name else "")
        nodes.append(replace(node, name=f"{prefix}/{node.name}"))
    read = dict.fromkeys(name for node in nodes for name in node.inputs if name in graph.weights)
    names |= {name: f"{prefix}/{name}" for name in read}
    weights = {names[name]: replace(graph.weights[name], name=names[name]) for name in read}
    moved = [node.renamed(names) for node in nodes]
    return replace(united, nodes=(*united.nodes, *moved), weights={**united.weights, **weights}), names


class Known:
    """The nodes that stand already, to be found by what they compute. What is made inside of a body is not read outside
    of it."""

    def __init__(self, united: LayerGraph) -> None:
        self.graph = united
        self.reading: dict[tuple[str, str], list[Node]] = {}
        for node in (node for node in united.nodes if not node.body and not node.runs):
            for name in node.inputs[:1]:
                self.reading.setdefault((node.op, name), []).append(node)

    def same(self, node: Node, names: Mapping[str, str], graph: LayerGraph) -> Node | None:
        """A node that computes the same of the same tensors; None where there is none, or it may draw at random."""
        row = row_of(node)
        first = names.get(node.inputs[0], "") if node.inputs else ""
        if row is None or row.layer_role is LayerRole.ALONE or not first:
            return None
        for other in self.reading.get((node.op, first), ()):
            is_alike = dict(other.attributes) == dict(node.attributes) and len(other.outputs) == len(node.outputs)
            if is_alike and len(other.inputs) == len(node.inputs):
                pairs = zip(node.inputs, other.inputs, strict=True)
                if all(self.is_same(mine, own, names, graph) for mine, own in pairs):
                    return other
        return None

    def is_same(self, name: str, other: str, names: Mapping[str, str], graph: LayerGraph) -> bool:
        """Whether a tensor of the member holds what one of the united network holds."""
        if name in graph.weights and other in self.graph.weights:
            return are_equal(graph.weights[name], self.graph.weights[other])
        return names.get(name, "") == other


def are_equal(a: Weight, b: Weight) -> bool:
    """Whether two stored tensors hold the same."""
    return (a.shape, a.dtype) == (b.shape, b.dtype) and np.array_equal(a.read(), b.read())
