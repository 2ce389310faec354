"""Recurrent operators: the units of a state that comes round again, one direction at a time.

LSTM, GRU and RNN store their gates one behind the other on one axis: unit h lies on it once per gate, and all of its
places move together, in every tensor, with the state and with the output. A node of two directions holds both in one
tensor, where no axis has the units of one direction alone: adapters show it as two nodes of one direction, and lay
their outputs end to end.

Chosen: one rule for all three, which reads the number of gates off the shapes. Refused: labels of gates times units,
as the gates of a unit never trade places.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators.axis_labels import AxisLabel, Label
from mal_graph.operators.call import Call, pin_each
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import SUMMED, AtZero, LayerRole, ParameterKind, Row, Shape, Slot, X, setting
from mal_graph.operators.sizes import Resized
from mal_graph.operators.wiring import Wiring

STEPS = Pin(GroupState.PINNED, "steps in time")
WEIGHT, RECURRENCE, BIAS, LENGTHS, STATE, CELL, PEEPHOLE = range(1, 8)  # the inputs behind what comes in
GATED = {WEIGHT: 1, RECURRENCE: 1, BIAS: 1, PEEPHOLE: 1}  # the axes on which the gates lie one behind the other


def recurrent(call: Call) -> list[Label]:
    """The units of the state stand in every gate of all that is stored, and on the columns that read the state."""
    wiring, weight = call.wiring, call.label(WEIGHT)
    if weight.shape[0] > 1:
        return call.freeze(f"{call.name} has both directions in one tensor")
    by_sample = bool(call.node.attribute("layout", 0))
    x, size = call.axis_labels(0), call.label(RECURRENCE).shape[2]
    steps, batch = (x[1], x[0]) if by_sample else (x[0], x[1])
    pin_each(call, [steps], STEPS)
    wiring.contract(x[2], call.axis_labels(WEIGHT)[2])
    units: AxisLabel = None
    for slot, axis in GATED.items():
        if call.given(slot):
            runs = call.label(slot).shape[axis] // size
            units = wiring.tie(units, as_one(wiring, call.axis_labels(slot)[axis], runs))
    wiring.contract(units, call.axis_labels(RECURRENCE)[2])
    for slot in (STATE, CELL):
        if call.given(slot):
            state = call.axis_labels(slot)
            batch = wiring.tie(batch, state[0 if by_sample else 1])
            units = wiring.tie(units, state[2])
    if call.given(LENGTHS):
        batch = wiring.tie(batch, call.axis_labels(LENGTHS)[0])
    over_time = [batch, STEPS, None, units] if by_sample else [STEPS, None, batch, units]
    last = [batch, None, units] if by_sample else [None, batch, units]
    made = [over_time, last, last]
    return [
        wiring.label_of(shape, axis_labels) if shape else Label(())
        for shape, axis_labels in zip(call.outputs, made, strict=False)
    ]


def as_one(wiring: Wiring, axis_label: AxisLabel, runs: int) -> AxisLabel:
    """The first of several equal runs of an axis, which move together."""
    if not isinstance(axis_label, np.ndarray):
        return axis_label
    first, *others = axis_label.reshape(runs, -1)
    for other in others:
        wiring.tie(first, other)
    one: AxisLabel = first
    return one


def gate_axes(node: Node, rank: int) -> tuple[int, int]:
    """The axes of a weight behind that of the directions."""
    return (1, 2)


def state_size(call: Resized, held: list[int]) -> list[int]:
    """The units of the state, as the columns that read it are."""
    return [len(call.inputs[RECURRENCE][2])]


def recurrent_products(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """Every step of every sample is multiplied with all that is stored for it, and so is the state."""
    x, weight, recurrence = inputs[:3]
    return prod(x[:2]) * (prod(weight) + prod(recurrence))


def row_of_gates(kind: str, *states: Slot) -> Row:
    """The row of a recurrent operator, with what it takes behind the initial state."""
    initial = Slot("initial state", ParameterKind.SHIFT)
    return Row(
        recurrent,
        LayerRole.CONTRACTION,
        multiplications=recurrent_products,
        compensation=SUMMED,
        kind=kind,
        slots=(
            X,
            Slot("weight", ParameterKind.WEIGHT, axes=gate_axes, counted_by="hidden_size"),
            Slot("recurrence", ParameterKind.WEIGHT, axes=gate_axes, counted_by="hidden_size", reads_state=True),
            Slot("gate bias", ParameterKind.SHIFT),
            setting("sequence_lens"),
            initial,
            *states,
        ),
        at_zero=AtZero.FINITE,  # activations are part of it
        size_constants={"hidden_size": state_size},
        channel=-1,
        apart={"direction": "forward"},
    )


ROWS: Mapping[str, Row] = {
    "LSTM": row_of_gates("lstm", Slot("initial cell", ParameterKind.SHIFT), Slot("peephole", ParameterKind.WEIGHT)),
    "GRU": row_of_gates("gru"),
    "RNN": row_of_gates("rnn"),
}

WITHOUT_ROW: Mapping[str, tuple[str, ...]] = {
    "gates share one axis: not followed yet": (
        "GRUUnit",
        "com.microsoft.AttnLSTM",
        "com.microsoft.DynamicQuantizeLSTM",
    ),
    "it carries a state between calls": (
        "CausalConvWithState",
        "com.microsoft.CausalConvWithState",
        "com.microsoft.ConvStateReplay",
        "com.microsoft.GatedDeltaNet",
        "com.microsoft.GatedDeltaNetStateReplay",
        "com.microsoft.LinearAttentionGate",
        "com.microsoft.Mamba2Verify",
        "com.microsoft.SpeculativePrefixCommit",
        "com.microsoft.VarlenCausalConvWithState",
    ),
}
