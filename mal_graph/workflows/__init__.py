"""Whole jobs - assemble, sweep, zoo - and what they need: models in any form, checks, baselines, verdicts."""

from mal_graph.workflows.assembly import Assembly, align, assemble, assemble_graphs, check_donors, write_assembly
from mal_graph.workflows.checkpoint import Outcome
from mal_graph.workflows.inspecting import inspect_groups
from mal_graph.workflows.layer_grid import Grid, grid
from mal_graph.workflows.models import arrays_of, load, open_models, save, state_dict, to_module, trace, with_arrays
from mal_graph.workflows.notes import notes_on
from mal_graph.workflows.steps import Merged
from mal_graph.workflows.sweeping import Sweep, sweep
from mal_graph.workflows.verdict import Verdict
from mal_graph.workflows.zoo_donors import files_in
from mal_graph.workflows.zoo_search import Zoo, zoo

__all__ = [
    "align",
    "arrays_of",
    "assemble",
    "assemble_graphs",
    "Assembly",
    "check_donors",
    "files_in",
    "Grid",
    "grid",
    "inspect_groups",
    "load",
    "Merged",
    "notes_on",
    "open_models",
    "Outcome",
    "save",
    "state_dict",
    "Sweep",
    "sweep",
    "to_module",
    "trace",
    "Verdict",
    "with_arrays",
    "write_assembly",
    "Zoo",
    "zoo",
]
