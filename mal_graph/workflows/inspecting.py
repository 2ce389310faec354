"""One model looked into: its axis groups, verified where it runs."""

from functools import partial

from mal_graph.config import MergeConfig
from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph
from mal_graph.network import probe, probe_without_running
from mal_graph.symmetry import AxisGroups, axis_groups, verify
from mal_graph.workflows.models import Progress


def inspect_groups(
    graph: LayerGraph, config: MergeConfig, progress: Progress, *, is_full: bool = False
) -> tuple[AxisGroups, str]:
    """The axis groups of a model, and a warning where it does not run on inputs of our own; "" where it does.

    Raises RunError where it does not run on inputs that were given.
    """
    warning = ""
    shown = {"inputs": config.inputs, "input_shapes": config.input_shapes}
    progress("probing", 0, 1)
    try:
        probed = probe(graph, seed=config.seed, timeout=config.verify_timeout, **shown)
    except RunError as error:
        if any(shown.values()):
            raise
        warning, probed = f"nothing can be said of its axes: {error}", probe_without_running(graph)
    progress("probing", 1, 1)
    groups = axis_groups(graph, probed)
    if config.verify:
        groups = verify(
            graph,
            groups,
            full=is_full,
            seed=config.seed,
            progress=partial(progress, "verifying"),
            timeout=config.verify_timeout,
            max_memory=config.max_memory,
        )
    return groups, warning
