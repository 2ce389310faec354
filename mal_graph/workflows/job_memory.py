"""What a whole job holds at once: an estimate that is made before anything is computed, of the sizes of weights alone.

Every step is estimated by what it holds several times: the weights of a model, the largest tensor, a table of scores of
the widest layers. How many times was measured (`tools/measure_memory.py`). What a model is given and computes between
its layers is not known before it is run, and left out: verification looks again once it is. Steps that estimate
themselves from what is found on the way (alignment, writing) do so again.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import starmap

from mal_graph.boxes import Boxed
from mal_graph.config import MergeConfig
from mal_graph.graph import LayerGraph, Weight
from mal_graph.matching import MOST_HELD, ROWS, TABLES, kept_bytes
from mal_graph.memory_budget import Need, budgeted, room_for
from mal_graph.merging import LARGE
from mal_graph.methods import find_method
from mal_graph.network import find_layers
from mal_graph.symmetry import SEGMENT_BYTES
from mal_graph.workflows.meanings import COPIES, MOST_COPIED

NUMBER, SCORE = 4, 8  # bytes of a value, and of a score
VERIFIED = 3  # times a segment: drawn, permuted, and the runtime's own
RUN = 3.6  # times a model: what is compared, with what the runtime makes of it
FED = 1.3  # times a model that is given samples: its weights, as they are given to every run, and a session
TURN = 2  # copies of a large donor: the next is opened before the last is let go of
MOVED = 2.2  # times a large model, compared a part at a time: a random copy, and once more where a group has two orders
WRITTEN = (
    4  # times a model whose weights lie in its file: parts of a document, its bytes, and the runtime that opens it
)
OPENED = 2.2  # times a model whose weights lie beside it, by the runtime that opens it
AROUND = 48 << 20  # of a job with many donors, whatever their sizes: sessions, and what an allocator keeps
STACKED, BOXED = 7, 1  # times the largest tensor, of two models, as a whole and box by box: see `Stacking.peak_bytes`
TOGETHER = 3.75  # times all tables, and the square of how many models there are: all are aligned at once
THINNED = 12  # times a model: what its layers read is held, with what is fitted to it


def job_bytes(graphs: Sequence[LayerGraph], config: MergeConfig, *, has_data: bool = False) -> int:
    """Bytes that a job takes at most, the models as they are loaded among them."""
    held = sum(held_bytes(graph) for graph in graphs)
    return held + max(need.least_bytes + need.kept for need in job_needs(graphs, config, has_data=has_data))


def refuse_short_memory(graphs: Sequence[LayerGraph], config: MergeConfig, *, has_data: bool = False) -> None:
    """Raise MemoryLimitError where a step of a job takes more than there is for it, the largest one first."""
    refuse_too_large(job_needs(graphs, config, has_data=has_data), config)


def refuse_too_large(needs: Iterable[Need], config: MergeConfig) -> None:
    """Raise MemoryLimitError where one of several steps takes more than there is for it, the largest one first."""
    with budgeted(config.max_memory):
        for need in sorted(needs, key=lambda need: -need.least_bytes):
            room_for(need)


def job_needs(graphs: Sequence[LayerGraph], config: MergeConfig, *, has_data: bool = False) -> Iterator[Need]:
    """What the steps of a job hold at once, beside the models as they are loaded.

    Args:
        graphs: all models, the base first.
        has_data: whether the result is scored.
    """
    base, donors = graphs[0], graphs[1:]
    aligns, unites = config.method != "union", config.method in ("union", "auto")
    yield from running_needs(graphs, verify=config.verify, compare=config.compare or unites)
    if unites:
        largest = max(map(numbers_bytes, graphs))
        yield Need("thinning the models", {"weights, and what is fitted": THINNED * largest})
    if config.compare and (has_data or config.calibrate is not None):
        yield from map(partial(meaning_need, base), donors)
    if aligns:
        yield from (alignment_need(base, donor, is_shuffled=has_data) for donor in donors)
    if donors and config.method not in ("mal", "average", "union", "auto"):
        yield stacking_need(base, donors, config)
    yield writing_need(base, config)


def running_needs(graphs: Sequence[LayerGraph], *, verify: bool, compare: bool) -> Iterator[Need]:
    """What verifying models holds, and running them as a comparison does; one is run at a time."""
    models, largest = [numbers_bytes(graph) for graph in graphs], max(largest_bytes(graph) for graph in graphs)
    if verify:
        part = min(max(models), max(SEGMENT_BYTES, largest))
        yield Need("verifying the models", {"copies of a part of one": VERIFIED * part})
    if compare:
        times = RUN if max(models) < LARGE else MOVED
        yield Need("running the models", {"their weights": round(times * max(models))})


def meaning_need(base: LayerGraph, donor: LayerGraph) -> Need:
    """What comparing what two models say of samples holds: both are run, and copies of the donor."""
    size = numbers_bytes(donor)
    both, kept = FED * (numbers_bytes(base) + size), min(COPIES * size, MOST_COPIED) - TURN * size
    held = {"weights of both models": round(both), "copies of the donor": round(FED * TURN * size)}
    return Need(f"comparing what {donor.name} says", held, max(0, round(FED * kept)))


def alignment_need(base: LayerGraph, donor: LayerGraph, *, is_shuffled: bool = False) -> Need:
    """What aligning a donor holds.

    Args:
        is_shuffled: whether its weights are aligned in random order too, for which all of them are copied.
    """
    tables = sum(starmap(kept_bytes, zip(widths(base), widths(donor), strict=False)))
    table = SCORE * max(widths(base), default=0) * max(widths(donor), default=0)
    held = {
        "tables of scores": TABLES * table,
        "rows of the largest tensor": ROWS * (largest_bytes(base) + largest_bytes(donor)),
        "values that are copied": copied_bytes(base) + (numbers_bytes if is_shuffled else copied_bytes)(donor),
    }
    return Need(f"aligning {donor.name} with {base.name}", held, min(MOST_HELD, tables))


def stacking_need(base: LayerGraph, donors: Sequence[LayerGraph], config: MergeConfig) -> Need:
    """What merging all models at once holds."""
    method, count = find_method(config.method), 1 + len(donors)
    every = [SCORE * sum(map(product_of, zip(widths(base), widths(donor), strict=False))) for donor in donors]
    together = round(TOGETHER * count**2 * max(every)) if method.aligns_together else 0
    stacked = (STACKED if method.is_whole else BOXED) * count // 2 * largest_bytes(base)
    return Need(f"merging by {method.name}", {"the largest tensor": stacked, "tables of all models": together})


def writing_need(base: LayerGraph, config: MergeConfig) -> Need:
    """What writing holds, and the runtime that opens the file."""
    size = sum(weight.nbytes for weight in base.weights.values())
    has_data = config.shard_size is not None or any(map(is_in_place, base.weights.values()))
    return Need("writing the result", {"copies of its weights": round((OPENED if has_data else WRITTEN) * size)})


# --- sizes --------------------------------------------------------------------------------------------------------


def numbers_bytes(graph: LayerGraph) -> int:
    """Bytes of the weights of a model in float32, in which it is run."""
    return sum(NUMBER * weight.size if weight.is_float else weight.nbytes for weight in graph.weights.values())


def largest_bytes(graph: LayerGraph) -> int:
    """Bytes of the largest weight of a model in float32."""
    return max((NUMBER * weight.size for weight in graph.weights.values()), default=0)


def held_bytes(graph: LayerGraph) -> int:
    """Bytes that the weights of a loaded model take in memory."""
    return sum(weight.nbytes for weight in graph.weights.values() if not is_in_place(weight))


def copied_bytes(graph: LayerGraph) -> int:
    """Bytes of the values that an alignment copies: all but float32 ones that lie in a file of their own."""
    stored = graph.weights.values()
    return sum(
        NUMBER * weight.size
        for weight in stored
        if weight.is_float and not (is_in_place(weight) and weight.dtype.name == "float32")
    )


def is_in_place(weight: Weight) -> bool:
    """Whether the values of a weight are read where they lie in a file."""
    return isinstance(weight.read, Boxed) and weight.read.is_mapped


def widths(graph: LayerGraph) -> list[int]:
    """How many units those layers have which others read, the widest first."""
    sizes = [layer.in_out for layer in find_layers(graph) if layer.weight is not None]
    read = {units for units, _ in sizes}
    return sorted((units for _, units in sizes if units in read), reverse=True)


def product_of(pair: tuple[int, int]) -> int:
    return pair[0] * pair[1]
