"""Merge methods: from one tensor of several models, all in the base's frame, to one tensor."""

from mal_graph.methods.method import MergeMethod, Need, Parameter, did_you_mean, merge_method
from mal_graph.methods.stack import Mask, Stack, Vector, mean_of

__all__ = [
    "did_you_mean",
    "Mask",
    "mean_of",
    "merge_method",
    "MergeMethod",
    "Need",
    "Parameter",
    "Stack",
    "Vector",
]
