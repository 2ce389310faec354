"""Recurrent layers: torch keeps four tensors for each layer and direction, ONNX three for both directions of a layer.

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
    """All layers of a recurrent module, one operator each."""
    packet = str(at.node.target).removeprefix("aten.").partition(".")[0]
    op, directions = KINDS[packet], 2 if bidirectional else 1
    each = 4 if has_biases else 2
    check_dropout(dropout if training else 0.0)
    if len(params) != layers * directions * each:
        raise UnsupportedModel(f"{at.path}: a projected {op} (proj_size) has no counterpart in ONNX")
    given = at.transpose(x, (1, 0, 2)) if batch_first else x.name
    given_states = [initial(at, state, layers, directions) for state in states(at, start)]
    starts = list(zip(*given_states, strict=True))
    last: list[tuple[str, ...]] = []
    for layer in range(layers):
        own = params[layer * directions * each : (layer + 1) * directions * each]
        given, *ends = recurrent_layer(at, packet, given, own, each, layer, starts[layer] if starts else ())
        last.append(tuple(ends))
    out = at.transpose(given, (1, 0, 2)) if batch_first else given
    return (out, *(joined(at, [made[i] for made in last]) for i in range(len(last[0]))))


def recurrent_layer(
    at: Site, packet: str, given: str, own: Sequence[Wire], each: int, layer: int, starts: Sequence[str]
) -> tuple[str, ...]:
    """One layer in all its directions: what it gives over time, and its last states."""
    op, directions, units = KINDS[packet], len(own) // each, own[1].side(1)
    has_biases = each == 4
    stored = [packed(at, op, kind, own, each, layer) for kind in ("W", "R", "B")[: 3 if has_biases else 2]]
    made = at.ops(
        op,
        3 if op == "LSTM" else 2,
        given,
        *stored,
        *([None] if not has_biases else []),
        None,
        *starts,
        hidden_size=units,
        direction="bidirectional" if directions == 2 else "forward",
        linear_before_reset=1 if op == "GRU" else None,
        activations=["Relu"] * directions if packet == "rnn_relu" else None,
    )
    by_sample = at.transpose(made[0], (0, 2, 1, 3))  # (time, batch, directions, units)
    return (at.op("Reshape", by_sample, at.constant([0, 0, directions * units])), *made[1:])


def states(at: Site, start: Any) -> list[Wire]:
    """The initial states that are given; zeros are what ONNX starts from anyway."""
    nodes = fx.node.map_arg(at.node.args[1], lambda node: str(node.target).startswith("aten.zeros"))
    if all(pytree.tree_leaves(nodes)):
        return []
    return list(start) if isinstance(start, list | tuple) else [start]


def initial(at: Site, state: Wire, layers: int, directions: int) -> tuple[str, ...]:
    """One initial state per layer, shape (directions, batch, units)."""
    if layers == 1:
        return (state.name,)
    return at.ops("Split", layers, state, at.constant([directions] * layers), axis=0)


def joined(at: Site, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else at.op("Concat", *parts, axis=0)


def packed(at: Site, op: str, kind: str, own: Sequence[Wire], each: int, layer: int) -> str:
    """One of ONNX's three tensors of a layer, made when it is read; gives its name."""
    places = {"W": (0,), "R": (1,), "B": (2, 3)}[kind]
    parts = [own[i + place].name for i in range(0, len(own), each) for place in places]
    stored = at.into.weights
    if any(part not in stored for part in parts):
        raise UnsupportedModel(f"{at.path}: the weights of a {op} are computed, not stored")
    directions, units = len(own) // each, own[1].side(1)
    order = ORDERS[op]
    shape = stored[parts[0]].shape
    whole = (directions, len(places) * shape[0], *shape[1:])
    tensor = Packed(tuple(parts), partial(gates_in, order, whole), partial(gates_out, order, len(parts), shape))
    name = at.into.unused(f"{at.path}.{kind}_l{layer}" if at.path else f"{kind}_l{layer}")
    handles = [stored[part] for part in parts]
    at.into.packed[name] = tensor
    at.into.weights[name] = Weight(name, whole, handles[0].dtype, partial(read_packed, tensor, handles))
    assert units * len(order) == shape[0]  # torch lays the gates out so
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
