"""What a search holds at once, by the sizes of weights alone: a donor in each worker, and the result as it is made."""

from collections.abc import Iterator
from dataclasses import replace

from mal_graph.config import MergeConfig, SearchConfig
from mal_graph.graph import LayerGraph
from mal_graph.memory_budget import Need
from mal_graph.workflows import (
    AROUND,
    alignment_need,
    held_bytes,
    job_needs,
    numbers_bytes,
    refuse_too_large,
    running_needs,
)

KEPT = 2.2  # times a donor in the base's frame: as it is gathered, and as it is written
SCORED = 2  # times a model: the base's tensors, and those of a candidate


def refuse_short_memory(base: LayerGraph, config: SearchConfig, options: MergeConfig) -> None:
    """Raise MemoryLimitError where donors as large as the base would take more than there is; larger ones are refused
    when it is their turn (`refuse_large_donor`), and nobody has to open a thousand of them before.

    Args:
        options: those by which the result is made.
    """
    refuse_too_large(search_needs(base, base, config, options), config)


def refuse_large_donor(base: LayerGraph, donor: LayerGraph, config: SearchConfig) -> None:
    """Raise MemoryLimitError where a donor would take more than one worker may."""
    most = config.max_memory
    share = (
        config if most is None or config.scheduler is not None else config.replaced(max_memory=most // config.workers)
    )
    refuse_too_large(worker_needs(base, donor, config), share)


def search_needs(
    base: LayerGraph, donor: LayerGraph, config: SearchConfig, options: MergeConfig, merged: int = 1
) -> Iterator[Need]:
    """What the steps of a search hold at once for one donor, beside the base as it is loaded.

    Args:
        options: those by which the result is made.
        merged: how many donors it is made of, which is not known before.
    """
    workers = 0 if config.scheduler is not None else config.workers
    for need in worker_needs(base, donor, config):
        where = f" in each of {workers} workers" if workers > 1 else ""
        least = {what: workers * held for what, held in need.least.items()}
        yield Need(f"{need.step}{where}", least, workers * need.kept)
    size, donors, processes = numbers_bytes(base), [donor] * merged, workers if workers > 1 else 0
    idle = {"workers": processes * (AROUND + SCORED * size + held_bytes(base))}  # they end with the search
    held = {
        "the donors": merged * held_bytes(donor),
        "what scores candidates": SCORED * size,
        "sessions": AROUND,
        **idle,
    }
    for need in job_needs([base, *donors], options, has_data=True):
        yield replace(need, least={**need.least, **held})


def worker_needs(base: LayerGraph, donor: LayerGraph, config: SearchConfig) -> Iterator[Need]:
    """What one worker holds at once."""
    size = numbers_bytes(base)
    opened = {"sessions": AROUND, "models as they are loaded": held_bytes(base) + held_bytes(donor)}
    run = running_needs([base, donor], verify=config.verify, compare=config.compare)
    for need in (*run, alignment_need(base, donor)):
        yield replace(need, least={**need.least, **opened})
    yield Need("keeping the aligned donor", {"its tensors": round(KEPT * size), **opened})
    yield Need("scoring candidates", {"tensors": SCORED * size, "the base": held_bytes(base), "sessions": AROUND})
