"""What one network is: its layers, and the shapes and values of one run."""

from mal_graph.network.bodies import (
    Body,
    Choices,
    Run,
    find_bodies,
    find_carried,
    nested,
    passing_bodies,
    with_branches,
)
from mal_graph.network.copies import find_shared, with_copies
from mal_graph.network.dequantising import dequantised
from mal_graph.network.in_float32 import graph_in_float32, types_of
from mal_graph.network.integers import MASK_ROLE, IntegerUse, find_masks, integer_use, layers_behind, masks_of_layers
from mal_graph.network.layers import Layer, data_inputs, find_layers, find_origins
from mal_graph.network.multiplications import count_multiplications, multiplications_of
from mal_graph.network.parameters import Parameter, find_applied, find_parameters
from mal_graph.network.probe_inputs import draw_inputs
from mal_graph.network.probing import Probe, fed_weights, probe, probe_without_running
from mal_graph.network.roots import Root, data_dependent, find_root
from mal_graph.network.sample_axes import SampleAxes, find_sample_axes
from mal_graph.network.settings import find_inner, find_settings
from mal_graph.network.stack_search import is_plain
from mal_graph.network.stacks import as_stored, as_viewed
from mal_graph.network.telling_values import NEGLIGIBLE, is_root_of_length
from mal_graph.network.unlearned import SettingKind, Unlearned, UnlearnedUse, axes_that_stay, find_unlearned

__all__ = [
    "as_stored",
    "as_viewed",
    "axes_that_stay",
    "Body",
    "Choices",
    "count_multiplications",
    "data_dependent",
    "data_inputs",
    "dequantised",
    "draw_inputs",
    "fed_weights",
    "find_applied",
    "find_bodies",
    "find_carried",
    "find_inner",
    "find_layers",
    "find_masks",
    "find_origins",
    "find_parameters",
    "find_root",
    "find_sample_axes",
    "find_settings",
    "find_shared",
    "find_unlearned",
    "graph_in_float32",
    "integer_use",
    "IntegerUse",
    "is_plain",
    "is_root_of_length",
    "Layer",
    "layers_behind",
    "MASK_ROLE",
    "masks_of_layers",
    "multiplications_of",
    "NEGLIGIBLE",
    "nested",
    "Parameter",
    "passing_bodies",
    "probe",
    "Probe",
    "probe_without_running",
    "Root",
    "Run",
    "SampleAxes",
    "SettingKind",
    "types_of",
    "Unlearned",
    "UnlearnedUse",
    "with_branches",
    "with_copies",
]
