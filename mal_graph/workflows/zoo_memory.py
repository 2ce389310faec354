"""What a zoo holds at once, by the sizes of weights alone: one donor at a time, and what is kept of those accepted."""

from collections.abc import Iterator
from dataclasses import replace

from mal_graph.config import ZooConfig
from mal_graph.graph import LayerGraph
from mal_graph.memory_budget import Need
from mal_graph.workflows.job_memory import AROUND, held_bytes, job_needs, numbers_bytes

LINED = 4  # times a model: both ends of a line, their difference, and a point between them


def zoo_needs(
    base: LayerGraph, donor: LayerGraph, config: ZooConfig, *, has_data: bool, accepted: int = 1
) -> Iterator[Need]:
    """What the steps of a zoo hold at once for one donor, beside the base as it is loaded.

    Args:
        accepted: how many donors are, which is not known before; each leaves itself, as it is loaded, and the model
            that was made with it.
    """
    size, own = numbers_bytes(base), held_bytes(donor)
    kept = {"accepted donors and their models": accepted * (size + own)}
    held = {"the donor": own, **kept, "sessions": AROUND}
    for need in job_needs([base, donor], config, has_data=has_data):
        yield replace(need, least={**need.least, **held})
    if has_data:
        yield Need(f"trying {donor.name}", {"the model along lambda": LINED * size, **held})
