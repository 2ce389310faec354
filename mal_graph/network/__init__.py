"""What one network is: its layers, and the shapes and values of one run."""

from mal_graph.network.integers import IntegerUse, integer_use
from mal_graph.network.layers import Layer, data_inputs, find_layers, find_origins
from mal_graph.network.parameters import Parameter, find_parameters, find_root
from mal_graph.network.probing import Probe, data_dependent, fed_weights, probe, probe_without_running
from mal_graph.network.settings import find_inner, find_settings

__all__ = [
    "data_dependent",
    "data_inputs",
    "fed_weights",
    "find_inner",
    "find_layers",
    "find_origins",
    "find_parameters",
    "find_root",
    "find_settings",
    "integer_use",
    "IntegerUse",
    "Layer",
    "Parameter",
    "Probe",
    "probe",
    "probe_without_running",
]
