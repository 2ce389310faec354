"""Sessions that give tensors inside of bodies, which no runtime hands out.

The model is run up to what arrives at a body; then the operators of the body are run by themselves on this, and so are
those of bodies in it. A tensor of a branch that is not taken, or of a loop that does not run, is not given.

Chosen: the first run of a loop in which a tensor is made stands for all; branches that are taken run together, for a
session of each takes far longer to open than to run. Refused: one more output for each tensor - it would need the type
of each, which a file does not tell.
"""

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Value, is_list
from mal_graph.network import Body, Run, nested
from mal_graph.operators import CONTROLS, carried_into, control_of
from mal_graph.protocols import Session

MOST_RUNS = 16  # of a loop, until all tensors that are asked for were made
UNKNOWN = "unknown"  # the type of a tensor that shows when it is made

Opener = Callable[[LayerGraph, Sequence[str]], Session]


class SteppedSession:
    """One graph whose bodies are run by themselves.

    Args:
        read: the tensors that can be read.
        open_graph: opens a session on a graph, or a part of it, from which some tensors can be read.
    """

    def __init__(self, graph: LayerGraph, read: Sequence[str], open_graph: Opener) -> None:
        self.graph, self.open_graph, self.name = graph, open_graph, graph.name
        self.inner = {name for name in read if name in graph.inner}
        runs = [item for item in nested(graph.nodes) if isinstance(item, Run)]
        places = {name: place for place, name in enumerate(read)}
        self.wanted = {
            run.end.name: sorted(filter(places.__contains__, made_inside(run)), key=places.__getitem__) for run in runs
        }
        self.runs = [run for run in runs if self.wanted[run.end.name]]
        self.entering = {
            run.end.name: [name for name in read_by(run) if name in graph.producer and name not in graph.inner]
            for run in self.runs
        }
        entering = [name for names in self.entering.values() for name in names]
        outer = [name for name in read if name not in self.inner]
        first = list(dict.fromkeys([*outer, *entering]))
        self.outer = open_graph(graph, first) if first else None
        types = {} if self.outer is None else self.outer.types
        known = {name: dtype for name, dtype in types.items() if name in outer}
        self.types: Mapping[str, str] = {**known, **dict.fromkeys(self.inner, UNKNOWN)}
        self.parts: dict[tuple[tuple[str, ...], tuple[str, ...]], Session] = {}
        self.took = 0.0

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        began = perf_counter()
        names = dict.fromkeys(self.types if read is None else read)
        runs = [run for run in self.runs if any(name in names for name in self.wanted[run.end.name])]
        entering = [name for run in runs for name in self.entering[run.end.name]]
        outer = list(dict.fromkeys([*(name for name in names if name not in self.inner), *entering]))
        values = {} if self.outer is None or not outer else self.outer.run(inputs, weights, outer, deadline)
        fed = {**inputs, **(weights or {}), **values}
        loops = [run for run in runs if run.bodies[0].begin is not None]
        branches = [self.taken(run, fed) for run in runs if run.bodies[0].begin is None]
        values |= self.made_by(branches, fed, names, deadline)
        for run in loops:
            wanted = [name for name in self.wanted[run.end.name] if name in names]
            values |= self.looped(run, fed, wanted, deadline)
        self.took = perf_counter() - began
        return {name: values[name] for name in names if name in values}

    def taken(self, run: Run, fed: Mapping[str, Array]) -> Body:
        """The branch that is taken."""
        return run.bodies[0 if np.all(self.value(run.inputs[0], fed)) else 1]

    def looped(self, run: Run, fed: dict[str, Array], wanted: list[str], deadline: float | None) -> dict[str, Array]:
        """What some tensors in the body of a loop are when they are first made."""
        (body,), control = run.bodies, control_of(run.end)
        begin = body.begin
        assert begin is not None  # it is a loop
        given = [self.value(name, fed) if name else None for name in run.inputs]
        first, steering = control.steering, given[: control.steering]
        last = first + len(carried_into(run.end))
        count, goes = (*steering, None, None)[:2]
        values: dict[str, Array] = {}
        empty: dict[str, Array] = {}  # lists that have held nothing so far
        states = list(given)
        for number in range(MOST_RUNS):
            slices = (slices_of if control.carries else elements_of)(begin, states[last:], number)
            is_over = (count is not None and number >= count) or (goes is not None and not np.all(goes))
            if is_over or slices is None or set(wanted) <= values.keys():
                break
            running = [np.array(number, np.int64), np.array(True)][:first]
            begun = dict(zip(begin.outputs, [*running, *states[first:last], *slices], strict=True))
            begun_with = {name: array for name, array in begun.items() if array is not None}
            made = self.made_by([body], ChainMap(begun_with, fed), [*wanted, *body.outputs], deadline)
            known = ChainMap(made, begun_with, fed)
            for name in (name for name in wanted if name in known and name not in values):
                (empty if is_list(known[name]) and not known[name][()] else values)[name] = known[name]
            if not all(name in known or name in self.graph.weights for name in body.outputs):
                break  # it carries what is neither a tensor nor a list of tensors
            back = [self.value(name, known) for name in body.outputs]
            goes = back[0] if control.conditions else None
            states[first:last] = back[control.conditions :][: last - first]
        return {**empty, **values}

    def value(self, name: str, fed: Mapping[str, Array]) -> Array:
        """A tensor that is known: fed, computed or stored."""
        return fed[name] if name in fed else self.graph.weights[name].read()

    def made_by(
        self, bodies: Iterable[Body], fed: Mapping[str, Array], wanted: Collection[str], deadline: float | None
    ) -> dict[str, Array]:
        """What the operators of some bodies make of what arrives, all of them in one session."""
        run = [body for body in bodies if self.can_make(body, fed, wanted)]
        if not run:
            return {}
        nodes = [node for body in run for node in body.nodes]
        made = {name for node in nodes for name in node.outputs}
        read = dict.fromkeys(name for node in nodes for name in node.reads)
        arriving = {name: fed[name] for name in read if name in fed}
        lists = {name: array for name, array in arriving.items() if is_list(array)}
        taken_apart = {name: array for name, array in arriving.items() if name not in lists}
        for name, array in lists.items():
            taken_apart |= {f"{name}/{place}": element for place, element in enumerate(array[()])}
        key = tuple(body.name for body in run), tuple(f"{name} {array.dtype}" for name, array in taken_apart.items())
        if key not in self.parts:
            put_together = [self.listing(name, len(array[()])) for name, array in lists.items()]
            values = (Value(name, array.dtype.name, (None,) * array.ndim) for name, array in taken_apart.items())
            inputs = tuple(value for value in values if value.name not in self.graph.weights)
            weights = {name: self.graph.weights[name] for name in read if name in self.graph.weights}
            part = replace(self.graph, nodes=(*put_together, *nodes), inputs=inputs, outputs=(), weights=weights)
            outputs = [name for body in run for name in body.outputs]
            every = [name for name in dict.fromkeys([*sorted(made & self.inner), *outputs]) if name in made]
            self.parts[key] = self.open_graph(part, every)
        wanted = [name for name in dict.fromkeys(wanted) if name in made]
        given = self.parts[key].run(taken_apart, taken_apart, read=wanted, deadline=deadline)
        return {name: array for name, array in given.items() if not is_opaque(array)}

    def can_make(self, body: Body, fed: Mapping[str, Array], wanted: Collection[str]) -> bool:
        """Whether a body makes any of some tensors, and of tensors alone."""
        nodes = list(body.nodes)
        makes = any(name in wanted for node in nodes for name in node.outputs)
        return makes and not any(is_opaque(fed[name]) for node in nodes for name in node.reads if name in fed)

    def listing(self, name: str, length: int) -> Node:
        """What makes a list of its elements."""
        if length:
            inputs = tuple(f"{name}/{place}" for place in range(length))
            return Node(f"{name}/list", "SequenceConstruct", inputs, (name,))
        return Node(f"{name}/list", "SequenceEmpty", (), (name,), {"dtype": self.kind_of(name)})

    def kind_of(self, name: str) -> int:
        """What a list that is empty would hold, in ONNX's numbering, as the operator says that first made it."""
        graph, begins = self.graph, {control.begin for control in CONTROLS.values()}
        while name in graph.producer:
            node = graph.nodes[graph.producer[name]]
            if node.op == "SequenceEmpty":
                return int(node.attribute("dtype", 1))
            slot = node.outputs.index(name) if node.op in begins else 0
            name = node.inputs[slot] if slot < len(node.inputs) else ""
        return 1


def is_opaque(array: Array) -> bool:
    """Whether an array stands for what is neither a tensor nor a list of tensors."""
    held = array[()] if array.dtype == object and not array.ndim else ""
    return not isinstance(held, str | bytes | list) or (is_list(array) and not all(map(is_tensor, held)))


def is_tensor(element: object) -> bool:
    return isinstance(element, np.ndarray)


def slices_of(begin: Node, tensors: Sequence[Array | None], number: int) -> list[Array] | None:
    """The slices that one run of a Scan takes; None behind the last one."""
    axes: Sequence[Any] = begin.attribute("scan_input_axes") or [0] * len(tensors)
    ways: Sequence[Any] = begin.attribute("scan_input_directions") or [0] * len(tensors)
    slices = []
    for array, axis, way in zip(tensors, axes, ways, strict=True):
        if array is None or number >= array.shape[axis]:
            return None
        slices.append(np.take(array, array.shape[axis] - 1 - number if way else number, axis))
    return slices


def elements_of(begin: Node, given: Sequence[Array | None], number: int) -> list[Array | None] | None:
    """What one run of a SequenceMap takes; None behind the last one."""
    lists = [array[()] for array in given if array is not None and is_list(array)]
    if any(number >= len(each) for each in lists):
        return None
    return [array[()][number] if array is not None and is_list(array) else array for array in given]


def made_inside(run: Run) -> set[str]:
    """All that the bodies of an operator make, and are begun with."""
    begun = {name for body in run.bodies if body.begin is not None for name in body.begin.outputs}
    return begun | {name for body in run.bodies for node in body.nodes for name in node.outputs}


def read_by(run: Run) -> list[str]:
    """What an operator and its bodies read, and do not make themselves."""
    made = made_inside(run)
    inside = [name for body in run.bodies for node in body.nodes for name in node.reads]
    return [name for name in dict.fromkeys([*run.inputs, *inside, *run.end.inputs]) if name and name not in made]
