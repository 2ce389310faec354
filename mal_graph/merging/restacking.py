"""One network out of blocks of several: cut out of their chains, left out, put in another order or repeated.

What is before the first block is that of the model whose blocks come first, what is behind the last that of the model
whose blocks come last. Every repetition has weights of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mal_graph.brief import Brief
from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph, Node, Weight, free_name
from mal_graph.matching import pair_signatures
from mal_graph.merging.chains import Chain
from mal_graph.operators import row_of


@dataclass(frozen=True, repr=False)
class Piece(Brief):
    """Blocks of one chain, one behind the other: from `first` on, up to and without `stop`."""

    chain: Chain
    first: int
    stop: int


@dataclass(frozen=True)
class Parts:
    """The document of no adapter: a network that was put together out of others."""

    graphs: tuple[LayerGraph, ...]


@dataclass
class Writing:
    """A network that is being put together.

    Attributes:
        taken: names that are in use.
        nodes, weights: what it has so far.
    """

    taken: set[str]
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)

    def add(self, graph: LayerGraph, nodes: Iterable[Node], known: dict[str, str], kept: Iterable[str] = ()) -> None:
        """Some operators of a network with their weights; `known` says what the tensors are called that they read, and
        gets those that they make. What is kept has its name."""
        own = {node.name for node in self.nodes}
        for node in nodes:
            for name in node.reads:
                if name in graph.weights and name not in known:
                    known[name] = free_name(self.taken, name)
                    self.weights[known[name]] = replace(graph.weights[name], name=known[name])
            made = {name: name if name in kept else free_name(self.taken, name) for name in node.outputs if name}
            known |= made
            moved = replace(
                node,
                name=free_name(own, node.name),
                inputs=tuple(known[name] if name else "" for name in node.inputs),
                outputs=tuple(made.get(name, "") for name in node.outputs),
            )
            self.nodes.append(moved)


def restack(pieces: Sequence[Piece]) -> LayerGraph:
    """The network whose blocks are those of some pieces, in their order.

    Raises:
        MatchError: the pieces do not fit each other.
    """
    base, last = pieces[0].chain, pieces[-1].chain
    graphs = tuple({id(piece.chain.graph): piece.chain.graph for piece in pieces}.values())
    for graph in graphs:
        check_fits(base, next(piece.chain for piece in pieces if piece.chain.graph is graph))
    outputs = [value.name for value in last.graph.outputs]
    writing = Writing({value.name for value in base.graph.inputs} | set(outputs))
    first = {value.name: value.name for value in base.graph.inputs}
    writing.add(base.graph, base.front, first)
    stream, shared = first[base.streams[0]], [first[name] for name in base.shared]
    for piece in pieces:
        for number in range(piece.first, piece.stop):
            known = names_before(base, piece.chain, piece.chain.streams[number], stream, shared)
            writing.add(piece.chain.graph, piece.chain.block(number), known)
            stream = known[piece.chain.streams[number + 1]]
    known = names_before(base, last, last.streams[-1], stream, shared)
    writing.add(last.graph, last.back, known, outputs)
    return replace(
        base.graph.written_anew(nodes=writing.nodes, source=Parts(graphs)),
        outputs=last.graph.outputs,
        weights=writing.weights,
        opsets={domain: version for graph in graphs for domain, version in graph.opsets.items()},
        files=tuple(dict.fromkeys(file for graph in graphs for file in graph.files)),
    )


def names_before(base: Chain, chain: Chain, own: str, stream: str, shared: Sequence[str]) -> dict[str, str]:
    """What a part of a chain reads, by its own names: the inputs, the stream and what blocks share."""
    inputs = pair_signatures(base.graph, chain.graph).inputs
    called = {theirs: mine for mine, theirs in inputs.items()}
    return {**called, **dict(zip(chain.shared, shared, strict=True)), own: stream}


def check_fits(base: Chain, chain: Chain) -> None:
    """Raise MatchError where blocks of a chain cannot stand beside those of another."""
    graph = chain.graph
    if len(chain.shared) != len(base.shared):
        raise MatchError(
            f"blocks of {graph.name} read {len(chain.shared)} tensors beside the stream, those of {base.graph.name} "
            f"{len(base.shared)}: stack models of one architecture"
        )
    for node in (*chain.front, *chain.block(0), *chain.back):
        domain, row = node.op.rpartition(".")[0], row_of(node)
        mine, theirs = base.graph.opsets.get(domain), graph.opsets.get(domain)
        if mine is not None and mine != theirs and (row is None or not row.is_alike(mine, theirs)):
            raise MatchError(
                f"{node.title} of {graph.name} is of opset {theirs}, and {base.graph.name} of {mine}: export both with "
                "one opset"
            )
        if node.captures or node.runs or node.body or node.has_graphs:
            raise MatchError(f"{graph.name} cannot be cut: {node.title} runs a graph of its own")
