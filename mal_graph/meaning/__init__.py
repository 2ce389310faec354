"""Whether inputs and outputs mean the same to two models, by what both make of the same samples."""

from mal_graph.meaning.asking import Asked
from mal_graph.meaning.explaining import LARGE, Case, Explanation, Trial, explain
from mal_graph.meaning.input_changes import Family, InputChange, changes_of_input
from mal_graph.meaning.output_changes import FEWEST, OutputChange
from mal_graph.meaning.readings import Reading, can_be_read, column_axis, is_constant, kind_by_values

__all__ = [
    "Asked",
    "can_be_read",
    "Case",
    "changes_of_input",
    "column_axis",
    "explain",
    "Explanation",
    "Family",
    "FEWEST",
    "InputChange",
    "is_constant",
    "kind_by_values",
    "LARGE",
    "OutputChange",
    "Reading",
    "Trial",
]
