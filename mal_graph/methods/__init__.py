"""Merge methods: from one tensor of several models, all in the base's frame, to one tensor."""

from mal_graph.methods.finding import all_methods, find_method
from mal_graph.methods.learning import masked
from mal_graph.methods.method import (
    Aim,
    Aligned,
    Gate,
    Learned,
    Lesson,
    Measured,
    MergeMethod,
    Need,
    Parameter,
    Routing,
    merge_method,
)
from mal_graph.methods.resolving import check_settings, resolve
from mal_graph.methods.stack import InBoxes, Mask, Stack, Vector, mean_of

__all__ = [
    "Aim",
    "Aligned",
    "all_methods",
    "check_settings",
    "find_method",
    "Gate",
    "InBoxes",
    "Learned",
    "Lesson",
    "Mask",
    "masked",
    "mean_of",
    "Measured",
    "merge_method",
    "MergeMethod",
    "Need",
    "Parameter",
    "resolve",
    "Routing",
    "Stack",
    "Vector",
]
