"""Which axes of stored tensors hold units of blocks, so that they are one axis in the view (see `stacks`).

A contraction that takes several matrices at once says which axes of a stored one produce units, which consume them, and
which are blocks of either. Blocks belong to the units that come in where these lie in as many blocks: they were made by
another stack, or a reshape cut them. Else each block makes units of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeGuard

from mal_graph.graph import LayerGraph, Node
from mal_graph.network.roots import Root, data_dependent, find_root
from mal_graph.operators import Row, Spread, row_of

Axes = tuple[int, ...]
Lengths = frozenset[int]


def find_stacks(graph: LayerGraph) -> dict[str, frozenset[Axes]]:
    """The stored tensors with axes that are one in the view, each with the sets of such axes."""
    together = StackSearch(graph).search()
    tied = {*graph.tied, *(copy for copy, of in graph.copies.items() if of in graph.tied)}
    captured = {name for node in graph.nodes for name in node.captures}
    return {name: axes for name, axes in together.items() if axes and name not in tied | captured}


@dataclass
class StackSearch:
    """A walk through a graph that notes what its operators say.

    Attributes:
        together: the sets of axes of stored tensors that are one in the view; none where two readers do not agree.
        widths: by tensor how many units its last contraction made.
        blocks: by tensor the lengths of the axes that blocks of its units have.
    """

    graph: LayerGraph
    together: dict[str, frozenset[Axes]] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, Lengths] = field(default_factory=dict)

    def search(self) -> dict[str, frozenset[Axes]]:
        """What is together, by tensor."""
        live = data_dependent(self.graph)
        for node in self.graph.nodes:
            row = row_of(node)
            if row is None or not node.outputs or node.outputs[0] not in live:
                continue
            if row.is_contraction:
                self.visit_contraction(node, row, live)
            elif row.is_sum or row.by_element or row.keeps_axes:
                self.pass_on(node, row)
        return self.together

    def visit_contraction(self, node: Node, row: Row, live: frozenset[str]) -> None:
        """Note what a contraction makes of the stored tensor that it reads beside one that depends on the inputs."""
        for slot, name in enumerate(node.inputs[:2]):
            root = self.root_of(node, slot, name)
            if not is_plain(root) or node.inputs[1 - slot] not in live:
                continue
            if row.spread is not None and is_of_blocks(root.shape):
                spread = row.spread(node, slot, len(root.axes))
                if spread is not None:
                    self.note_stack(node, root, spread, self.blocks.get(node.inputs[1 - slot], frozenset()))
            elif (axes := row.weight_axes(slot, node, len(root.axes))) is not None:
                self.widths[node.outputs[0]] = root.shape[axes[0]]

    def root_of(self, node: Node, slot: int, name: str) -> Root | None:
        """The stored tensor that a contraction reads, or of which it reads the blocks that were looked up."""
        found = looked_up(self.graph, name)
        if found is None:
            return find_root(self.graph, name)
        root, _ = found
        letters = node.attribute("equation", "").partition("->")[0].replace(" ", "").split(",")
        more = len(letters[slot]) - len(root.axes) if slot < len(letters) and letters[slot] else 0
        return Root(root.weight, [0, *[None] * more, *root.axes[1:]], (root.shape[0], *(1,) * more, *root.shape[1:]))

    def note_stack(self, node: Node, root: Root, spread: Spread, lengths: Lengths) -> None:
        """Note the axes of a stack; `lengths` are those of the blocks that the units lie in which come in."""
        inner = [axis for axis in spread.blocks if root.shape[axis] in lengths]
        produced = [*(axis for axis in spread.blocks if axis not in inner), *spread.produced]
        self.note(root, [produced, [*inner, *spread.consumed]])
        self.note_beside(node.outputs[0], [spread.made[axis] for axis in produced if axis in spread.made])
        made = {root.shape[axis] for axis in (*spread.blocks, *spread.produced)}
        self.blocks[node.outputs[0]] = frozenset(made - {1})

    def pass_on(self, node: Node, row: Row) -> None:
        """Hand on what is known of the inputs of an operator that keeps units; a reshape may cut them into blocks."""
        inputs = [name for name in node.inputs if name]
        lengths: Lengths = frozenset().union(*(self.blocks.get(name, frozenset()) for name in inputs))
        width = next((self.widths[name] for name in inputs if name in self.widths), 0)
        cut = cut_axes(self.graph, node, row, width)
        parts = len(node.outputs) if row.adds else 1  # of a split
        for out in node.outputs:
            self.blocks[out] = lengths | frozenset(cut.values())
            if width and not cut:
                self.widths[out] = width // parts
        if cut:
            self.note_beside(node.outputs[0], list(cut))

    def note(self, root: Root, sets: Sequence[Sequence[int]]) -> None:
        """Note sets of axes of what is read of a stored tensor."""
        stored = [
            tuple(sorted(axis for place in one if (axis := root.axes[place]) is not None and root.shape[place] > 1))
            for one in sets
        ]
        together = frozenset(axes for axes in stored if len(axes) > 1)
        if together and self.together.setdefault(root.weight.name, together) != together:
            self.together[root.weight.name] = frozenset()

    def note_beside(self, tensor: str, made: Sequence[int]) -> None:
        """Note the axes of what is stored and combined with a tensor, element by element.

        Args:
            made: the axes of the tensor that hold units of blocks, counted from its end.
        """
        waiting, seen = [(tensor, tuple(made))], {tensor}
        while waiting:
            name, axes = waiting.pop()
            for node, row in self.readers(name):
                if node.outputs[0] in seen:
                    continue
                seen.add(node.outputs[0])
                if row.by_element:
                    self.note_operands(node, name, axes)
                    waiting.append((node.outputs[0], axes))
                elif row.moves:
                    waiting.append((node.outputs[0], moved_axes(node, axes)))

    def note_operands(self, node: Node, name: str, axes: Axes) -> None:
        """Note the axes of what is stored and stands beside a tensor in a node."""
        for other in node.inputs:
            root = find_root(self.graph, other) if other != name else None
            if is_plain(root):
                rank = len(root.axes)
                self.note(root, [[rank + axis for axis in axes if -axis <= rank]])
            elif (found := looked_up(self.graph, other)) is not None and other != name:
                root, rank = found[0], len(found[0].axes)
                self.note(root, [[0, *(rank + axis for axis in axes if -axis < rank)]])

    def readers(self, name: str) -> Iterator[tuple[Node, Row]]:
        """The operators that read a tensor, those with a row."""
        for index, slot in self.graph.consumers.get(name, ()):
            row = row_of(self.graph.nodes[index])
            if slot >= 0 and row is not None:
                yield self.graph.nodes[index], row


def is_of_blocks(shape: Sequence[int]) -> bool:
    """Whether a tensor may be more than one matrix: its axes longer than 1 are more than two."""
    return sum(size > 1 for size in shape) > 2


def is_plain(root: Root | None) -> TypeGuard[Root]:
    """Whether a tensor is a stored one of floats, with the axes that it is stored with."""
    return root is not None and root.weight.is_float and not (root.weight.scope or root.is_mixed or root.is_cut)


def looked_up(graph: LayerGraph, name: str) -> tuple[Root, str] | None:
    """The stored tensor of which a node looks up blocks on the first axis, and what says which; None where that is not
    what makes a tensor."""
    node = graph.nodes[graph.producer[name]] if name in graph.producer else None
    row = None if node is None else row_of(node)
    if (
        node is None
        or row is None
        or row.block_axis is None
        or row.block_axis(node) != 0
        or node.inputs[1] in graph.weights
    ):
        return None
    root = find_root(graph, node.inputs[0])
    return (root, node.inputs[1]) if is_plain(root) else None


def moved_axes(node: Node, axes: Axes) -> Axes:
    """Where axes lie behind an operator that moves values, counted from the end; behind any but a transposition only
    the last is where it was."""
    order = list(node.attribute("perm") or ())
    if not order:
        return tuple(axis for axis in axes if axis == -1)
    return tuple(order.index(len(order) + axis) - len(order) for axis in axes)


def cut_axes(graph: LayerGraph, node: Node, row: Row, width: int) -> dict[int, int]:
    """The axes, counted from the end, with their lengths, into which a reshape to a constant shape cuts one of `width`;
    none where that cannot be told."""
    given = graph.weights.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None or width < 2 or not row.moves or row.slot(1).name != "shape":
        return {}
    target = [int(size) for size in given.read().ravel()]
    ends = [len(target)] if target[-1] == width else range(len(target), 1, -1)  # that axis itself may be there, whole
    for end in ends:
        for start in range(end - 2, -1, -1):
            sizes = solved(target[start:end], width)
            if sizes is not None:
                return {
                    axis - len(target): size for axis, size in zip(range(start, end), sizes, strict=True) if size > 1
                }
    return {}


def solved(sizes: Sequence[int], product: int) -> list[int] | None:
    """Lengths of axes that have a product, one of which may be given as -1; None where they have another."""
    known = prod(size for size in sizes if size != -1)
    if 0 in sizes or sizes.count(-1) > 1 or product % known:
        return None
    filled = [product // known if size == -1 else size for size in sizes]
    return filled if prod(filled) == product and sum(size > 1 for size in filled) > 1 else None
