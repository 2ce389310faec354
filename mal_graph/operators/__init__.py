"""What each operator does to axes, sizes, zeros and scales."""

from mal_graph.operators.axis_labels import (
    Atoms,
    Belonging,
    GroupState,
    Label,
    Pin,
    SizeConstant,
    Statistic,
    Wiring,
    fixed_label,
    spans,
)
from mal_graph.operators.axis_rules import Call
from mal_graph.operators.row import AtZero, Compensation, Homogeneity, LayerRole, ParameterKind, Row, Slot
from mal_graph.operators.size_rules import COUNT_BLOCKS, Layout, Resized, SizeRule, kept, part_lengths, ratio
from mal_graph.operators.table import (
    ROWS,
    bias_slot,
    cast_to_float32,
    norm_epsilon,
    reshape_target,
    row_of,
    slot_named,
    unit_axis,
)
from mal_graph.operators.windows import Misfit, enlarged, offsets, spans_of

__all__ = [
    "Atoms",
    "AtZero",
    "Belonging",
    "bias_slot",
    "Call",
    "cast_to_float32",
    "Compensation",
    "COUNT_BLOCKS",
    "enlarged",
    "fixed_label",
    "GroupState",
    "Homogeneity",
    "kept",
    "Label",
    "LayerRole",
    "Layout",
    "Misfit",
    "norm_epsilon",
    "offsets",
    "ParameterKind",
    "part_lengths",
    "Pin",
    "ratio",
    "reshape_target",
    "Resized",
    "Row",
    "row_of",
    "ROWS",
    "SizeConstant",
    "SizeRule",
    "Slot",
    "slot_named",
    "spans",
    "spans_of",
    "Statistic",
    "unit_axis",
    "Wiring",
]
