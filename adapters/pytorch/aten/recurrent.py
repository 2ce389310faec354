"""Recurrent layers: torch keeps four tensors for each layer and direction, ONNX three for an operator.

Each direction of a layer becomes an operator of its own, as in the view of a file, so that its units have axes of
their own.

The gates stand in another order too: of an LSTM torch has input, forget, cell, output and ONNX input, output, forget,
cell; of a GRU torch has reset, update, new and ONNX update, reset, new. Both ways are exact.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import fx
from torch.utils import _pytree as pytree

from mal_graph.errors import UnsupportedModel
from mal_graph.graph import Array, Weight

from ..lowering import Packed, Site, Wire, lowers
from .arguments import check_dropout

ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # torch's place of each of ONNX's gates
KINDS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}


@lowers("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
def recurrent(
    at: Site,
    x: Wire,
    start: Any,
    params: Sequence[Wire],
    has_biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[str, ...]:
    """All layers of a recurrent module, one operator for each direction."""
    packet = str(at.node.target).removeprefix("aten.").partition(".")[0]
    op, directions = KINDS[packet], 2 if bidirectional else 1
    each = 4 if has_biases else 2
    check_dropout(dropout if training else 0.0)
    if len(params) != layers * directions * each:
        raise UnsupportedModel(f"{at.path}: a projected {op} (proj_size) has no counterpart in ONNX")
    given = at.transpose(x, (1, 0, 2)) if batch_first else x.name
    given_states = [initial(at, state, layers * directions) for state in states(at, start)]
    starts = list(zip(*given_states, strict=True)) or [()] * layers * directions
    last: list[tuple[str, ...]] = []
    for layer in range(layers):
        made = []
        for way in range(directions):
            number = layer * directions + way
            own = params[number * each : (number + 1) * each]
            made.append(one_direction(at, packet, given, own, layer, starts[number], is_reverse=way > 0))
        last += [tuple(ends) for _, *ends in made]
        over_time = joined(at, [y for y, *_ in made], axis=1)
        by_sample = at.transpose(over_time, (0, 2, 1, 3))  # (time, batch, directions, units)
        given = at.op("Reshape", by_sample, at.constant([0, 0, -1]))
    out = at.transpose(given, (1, 0, 2)) if batch_first else given
    return (out, *(joined(at, [ends[i] for ends in last], axis=0) for i in range(len(last[0]))))


def one_direction(
    at: Site, packet: str, given: str, own: Sequence[Wire], layer: int, start: Sequence[str], *, is_reverse: bool
) -> tuple[str, ...]:
    """One layer in one direction: what it gives over time, and its last states."""
    op, units, has_biases = KINDS[packet], own[1].side(1), len(own) == 4
    suffix = f"{layer}_reverse" if is_reverse else f"{layer}"
    stored = [packed(at, op, kind, own, suffix) for kind in ("W", "R", "B")[: 3 if has_biases else 2]]
    return at.ops(
        op,
        3 if op == "LSTM" else 2,
        given,
        *stored,
        *([None] if not has_biases else []),
        None,
        *start,
        hidden_size=units,
        direction="reverse" if is_reverse else "forward",
        linear_before_reset=1 if op == "GRU" else None,
        activations=["Relu"] if packet == "rnn_relu" else None,
    )


def states(at: Site, start: Any) -> list[Wire]:
    """The initial states that are given; zeros are what ONNX starts from anyway."""
    nodes = fx.node.map_arg(at.node.args[1], lambda node: str(node.target).startswith("aten.zeros"))
    if all(pytree.tree_leaves(nodes)):
        return []
    return list(start) if isinstance(start, list | tuple) else [start]


def initial(at: Site, state: Wire, count: int) -> tuple[str, ...]:
    """One initial state for each layer and direction, shape (1, batch, units)."""
    if count == 1:
        return (state.name,)
    return at.ops("Split", count, state, at.constant([1] * count), axis=0)


def joined(at: Site, parts: Sequence[str], axis: int) -> str:
    return parts[0] if len(parts) == 1 else at.op("Concat", *parts, axis=axis)


def packed(at: Site, op: str, kind: str, own: Sequence[Wire], suffix: str) -> str:
    """One of ONNX's three tensors of a layer, made when it is read; gives its name."""
    parts = [own[place].name for place in {"W": (0,), "R": (1,), "B": (2, 3)}[kind]]
    stored = at.into.weights
    if any(part not in stored for part in parts):
        raise UnsupportedModel(f"{at.path}: the weights of a {op} are computed, not stored")
    order = ORDERS[op]
    shape = stored[parts[0]].shape
    whole = (1, len(parts) * shape[0], *shape[1:])
    tensor = Packed(tuple(parts), partial(gates_in, order, whole), partial(gates_out, order, len(parts), shape))
    name = at.into.unused(f"{at.path}.{kind}_l{suffix}" if at.path else f"{kind}_l{suffix}")
    handles = [stored[part] for part in parts]
    at.into.packed[name] = tensor
    at.into.weights[name] = Weight(name, whole, handles[0].dtype, partial(read_packed, tensor, handles))
    assert own[1].side(1) * len(order) == shape[0]  # torch lays the gates out so
    return name


def read_packed(tensor: Packed, handles: Sequence[Weight]) -> Array:
    values = tensor.pack([handle.read() for handle in handles])
    values.flags.writeable = False
    return values


def gates_in(order: Sequence[int], shape: tuple[int, ...], parts: Sequence[Array]) -> Array:
    """torch's parts as ONNX's tensor."""
    gates = [np.split(part, len(order)) for part in parts]
    return np.concatenate([split[place] for split in gates for place in order]).reshape(shape)


def gates_out(order: Sequence[int], count: int, shape: tuple[int, ...], tensor: Array) -> list[Array]:
    """ONNX's tensor as torch's parts."""
    gates = np.split(tensor.reshape(count * shape[0], *shape[1:]), count * len(order))
    parts = []
    for start in range(0, len(gates), len(order)):
        here = gates[start : start + len(order)]
        parts.append(np.concatenate([here[order.index(place)] for place in range(len(order))]))
    return parts
