"""Whole jobs - assemble, sweep, zoo - and what they need: models in any form, checks, baselines, verdicts."""

from mal_graph.workflows.assembly import Assembly, align, assemble_graphs
from mal_graph.workflows.auditing import Audit, audit
from mal_graph.workflows.checkpoint import Outcome, digest, fingerprint
from mal_graph.workflows.checks import check_inputs
from mal_graph.workflows.comparing import Comparison, compare_models
from mal_graph.workflows.curves import Curve
from mal_graph.workflows.guarding import Choice
from mal_graph.workflows.inspecting import inspect_groups
from mal_graph.workflows.job_memory import (
    AROUND,
    alignment_need,
    held_bytes,
    job_needs,
    numbers_bytes,
    refuse_too_large,
    running_needs,
)
from mal_graph.workflows.layer_grid import Grid, grid
from mal_graph.workflows.meaning_texts import Kind, Losses, Meaning
from mal_graph.workflows.methods import assemble, check_donors, compares, compress, make_model, unite_graphs
from mal_graph.workflows.models import (
    Progress,
    arrays_of,
    load,
    open_models,
    prepared,
    save,
    silent,
    state_dict,
    to_module,
    trace,
    with_arrays,
)
from mal_graph.workflows.notes import notes_on
from mal_graph.workflows.pareto import ParetoEntry
from mal_graph.workflows.provenance import Provenance, Source, versions_used
from mal_graph.workflows.recipes import Recipe, check_blocks, check_dtype, read_recipe
from mal_graph.workflows.restacking import Slice, Stacked, stack
from mal_graph.workflows.results import Result
from mal_graph.workflows.speeds import Speed, Speeds
from mal_graph.workflows.stacking import in_frame, kept_settings, refuse_broken, without_layers
from mal_graph.workflows.steps import Known, Merged
from mal_graph.workflows.sweeping import Sweep, sweep
from mal_graph.workflows.unions import Branch, KeptUnits, Union
from mal_graph.workflows.verdict import MERGED, Verdict
from mal_graph.workflows.writing import Written, write_result
from mal_graph.workflows.zoo_donors import files_in
from mal_graph.workflows.zoo_search import Zoo, zoo

__all__ = [
    "align",
    "alignment_need",
    "AROUND",
    "arrays_of",
    "assemble",
    "assemble_graphs",
    "Assembly",
    "Audit",
    "audit",
    "Branch",
    "check_blocks",
    "check_donors",
    "check_dtype",
    "check_inputs",
    "Choice",
    "compare_models",
    "compares",
    "Comparison",
    "compress",
    "Curve",
    "digest",
    "files_in",
    "fingerprint",
    "Grid",
    "grid",
    "held_bytes",
    "in_frame",
    "inspect_groups",
    "job_needs",
    "kept_settings",
    "KeptUnits",
    "Kind",
    "Known",
    "load",
    "Losses",
    "make_model",
    "Meaning",
    "Merged",
    "MERGED",
    "notes_on",
    "numbers_bytes",
    "open_models",
    "Outcome",
    "ParetoEntry",
    "prepared",
    "Progress",
    "Provenance",
    "read_recipe",
    "Recipe",
    "refuse_broken",
    "refuse_too_large",
    "Result",
    "running_needs",
    "save",
    "silent",
    "Slice",
    "Source",
    "Speed",
    "Speeds",
    "stack",
    "Stacked",
    "state_dict",
    "Sweep",
    "sweep",
    "to_module",
    "trace",
    "Union",
    "unite_graphs",
    "Verdict",
    "versions_used",
    "with_arrays",
    "without_layers",
    "write_result",
    "Written",
    "zoo",
    "Zoo",
]
