"""Walks through the operators of an onnx-ir model, and whether these stand in topological order.

Chosen: own walks. Refused: onnx-ir's `all_nodes` and `sort` where nothing is to be sorted - they take five times as
long, which shows in files of many operators.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import onnx_ir as ir


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every operator of the main graph, of bodies and of functions."""
    yield from nodes_of(model.graph)
    for function in model.functions.values():
        yield from nodes_of(function)


def nodes_of(owner: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """Every operator of a graph or function and of the bodies in it."""
    for node in owner:
        yield node
        for body in node_bodies(node):
            yield from nodes_of(body)


def node_bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that the attributes of an operator hold."""
    for attribute in node.attributes.values() if node.attributes else ():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


class Linked:
    """A linked model, whose operators are looked for once, when they are first asked for."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @cached_property
    def owners(self) -> tuple[tuple[ir.Graph | ir.Function, tuple[ir.Node, ...]], ...]:
        """The main graph and every function, each with its operators, those of bodies included."""
        owners: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        return tuple((owner, tuple(nodes_of(owner))) for owner in owners)

    @property
    def nodes(self) -> Iterator[ir.Node]:
        """Every operator of the main graph, of bodies and of functions."""
        for _, nodes in self.owners:
            yield from nodes


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is looked for that could be thrown away: where millions of objects are made to be kept, looking through
    them again and again takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_sorted(graph: ir.Graph | ir.Function) -> bool:
    """Whether each operator stands behind all that it and its bodies read, and each body is sorted too."""
    made: set[ir.Node] = set()

    def is_behind(owner: ir.Graph | ir.Function) -> bool:
        for node in owner:
            for value in node.inputs:
                producer = None if value is None else value.producer()
                if producer is not None and producer not in made:
                    return False
            if not all(is_behind(body) for body in node_bodies(node)):
                return False
            made.add(node)
        return True

    return is_behind(graph)
