"""What each operator does to axes, sizes, zeros and scales."""

from mal_graph.operators.axis_labels import Atoms, Label, pinned_label, spans
from mal_graph.operators.call import BATCH, Call
from mal_graph.operators.control_flow import (
    CONTROLS,
    GIVEN_TYPES,
    SCAN_RUN,
    Control,
    carried_into,
    control_of,
    outputs_of_run,
)
from mal_graph.operators.elementwise import cast_number, cast_to_float32, cast_type
from mal_graph.operators.functions import Setting, differing_settings, function_of, said
from mal_graph.operators.indexing import are_codes, table_axis
from mal_graph.operators.layout import Arranged, arranged_axes, part_lengths, uneven_parts
from mal_graph.operators.marks import GroupState, Pin, SizeConstant, Statistic
from mal_graph.operators.reductions import reads_axes
from mal_graph.operators.row import AtZero, Compensation, Homogeneity, LayerRole, ParameterKind, Row, Slot, Spread
from mal_graph.operators.sizes import Layout, Resized, SizeRule, kept, ratio
from mal_graph.operators.table import ROWS, bias_slot, norm_epsilon, row_of, slot_named, summed_axis, unit_axis
from mal_graph.operators.unsupported import explain_missing
from mal_graph.operators.windows import (
    Misfit,
    Span,
    dilations_of,
    enlarged,
    groups_of,
    is_pointwise,
    offsets,
    spans_of,
    strides_of,
)
from mal_graph.operators.wiring import Belonging, Wiring

__all__ = [
    "are_codes",
    "Arranged",
    "arranged_axes",
    "Atoms",
    "AtZero",
    "BATCH",
    "Belonging",
    "bias_slot",
    "Call",
    "carried_into",
    "cast_number",
    "cast_to_float32",
    "cast_type",
    "Compensation",
    "Control",
    "control_of",
    "CONTROLS",
    "differing_settings",
    "dilations_of",
    "enlarged",
    "explain_missing",
    "function_of",
    "GIVEN_TYPES",
    "groups_of",
    "GroupState",
    "Homogeneity",
    "is_pointwise",
    "kept",
    "Label",
    "LayerRole",
    "Layout",
    "Misfit",
    "norm_epsilon",
    "offsets",
    "outputs_of_run",
    "ParameterKind",
    "part_lengths",
    "Pin",
    "pinned_label",
    "ratio",
    "reads_axes",
    "Resized",
    "Row",
    "row_of",
    "ROWS",
    "said",
    "SCAN_RUN",
    "Setting",
    "SizeConstant",
    "SizeRule",
    "Slot",
    "slot_named",
    "Span",
    "spans",
    "spans_of",
    "Spread",
    "Statistic",
    "strides_of",
    "summed_axis",
    "table_axis",
    "uneven_parts",
    "unit_axis",
    "Wiring",
]
