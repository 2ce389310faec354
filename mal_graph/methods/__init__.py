"""Merge methods: from one tensor of several models, all in the base's frame, to one tensor."""

from mal_graph.methods.finding import all_methods, find_method
from mal_graph.methods.method import Aligned, Measured, MergeMethod, Need, Parameter, merge_method
from mal_graph.methods.resolving import check_settings, resolve
from mal_graph.methods.stack import Mask, Stack, Vector, mean_of

__all__ = [
    "Aligned",
    "all_methods",
    "check_settings",
    "find_method",
    "Mask",
    "mean_of",
    "Measured",
    "merge_method",
    "MergeMethod",
    "Need",
    "Parameter",
    "resolve",
    "Stack",
    "Vector",
]
