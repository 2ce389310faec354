"""What one network is: its layers, and the shapes and values of one run."""

from mal_graph.network.integers import MASK_ROLE, IntegerUse, find_masks, integer_use, masks_of_layers
from mal_graph.network.layers import Layer, data_inputs, find_layers, find_origins
from mal_graph.network.parameters import Parameter, find_parameters, find_root
from mal_graph.network.probe_inputs import draw_inputs
from mal_graph.network.probing import Probe, data_dependent, fed_weights, probe, probe_without_running
from mal_graph.network.settings import find_inner, find_settings

__all__ = [
    "data_dependent",
    "data_inputs",
    "draw_inputs",
    "fed_weights",
    "find_inner",
    "find_layers",
    "find_masks",
    "find_origins",
    "find_parameters",
    "find_root",
    "find_settings",
    "integer_use",
    "IntegerUse",
    "Layer",
    "MASK_ROLE",
    "masks_of_layers",
    "Parameter",
    "Probe",
    "probe",
    "probe_without_running",
]
