"""Attention as one operator: heads, and the units inside them, as if it were written out.

Queries meet keys unit by unit inside each head, which gives scores; values come out weighted by them. Where several
heads of queries share one of keys and values, they lie inside it: each shared head moves with all that read it, the
heads that read it trade places, and a unit of its keys moves with those units of all its queries that meet it. Of what
tables turn in pairs, the units stay where they are in their heads, for the tables say how far each turns.

The size of a head decides how scores are scaled, and of how many numbers each is the sum: queries and keys keep it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mal_graph.errors import ShapeError
from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, Rule, mark_statistic, pin_each
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import AtZero, LayerRole, ParameterKind, Row, Slot, X, setting
from mal_graph.operators.sizes import Layout, Resized, SizeRule

PLACES = Pin(GroupState.PINNED, "places in a sequence")
TURNED = Pin(GroupState.PINNED, "units that tables turn in pairs")
BY_HEAD = (0, 2, 1, 3)  # from (batch, places, heads, units) to (batch, heads, places, units), and back
NO_CPU = (12, 13, 14, 15)  # inputs of GroupQueryAttention: scales of a past in integers, and of normalised heads
UNORDERED = {"is_causal": 0, "left_window_size": -1, "right_window_size": -1}  # where no place counts by its number


def attention(call: Call) -> list[Label]:
    """Heads have an axis of their own, or lie on the last one with their units."""
    counts = [call.node.attribute(name, 1) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (by_head(call, call.label(slot), count) for slot, count in enumerate(counts))
    k, v = behind_past(call, k, 4, 1), behind_past(call, v, 5, 2)
    mask = [fitted(call, call.label(3), k.shape[2])] if call.given(3) else []
    is_ordered = call.given(6) or any(call.node.attribute(name, usual) != usual for name, usual in UNORDERED.items())
    return attended(call, q, k, v, [*mask, *([in_places(q, k)] if is_ordered else [])])


def multi_head(call: Call) -> list[Label]:
    """As Attention, with as many heads of keys as of queries. Keys and values may come head by head, and a bias for all
    three is added."""
    wiring, heads = call.wiring, call.node.attribute("num_heads")
    if call.given(8) or call.given(9):
        return call.freeze(f"{call.name} writes into a past that it shares with its next run")
    if not call.given(1) or not call.given(2):
        return call.freeze(f"{call.name} reads queries, keys and values packed head by head")
    if call.given(3) and len(call.label(1).shape) == 4:
        return call.freeze(f"{call.name} adds a bias to some of what comes in")
    inputs = [by_head(call, label, heads) for label in map(call.label, range(3))]
    if call.given(3):
        sizes = [label.shape[1] * label.shape[3] for label in inputs]
        biases = cut(call, call.label(3), 0, sizes)
        shapes = [(1, label.shape[1], 1, label.shape[3]) for label in inputs]
        biases = [wiring.reshape(bias, shape, call.name) for bias, shape in zip(biases, shapes, strict=True)]
        inputs = [wiring.combine(pair, pair[0].shape) for pair in zip(inputs, biases, strict=True)]
    q, k, v = inputs
    k, v = behind_past(call, k, 6, 1), behind_past(call, v, 7, 2)
    masks = [call.label(5)] if call.given(5) else []
    if call.given(4):
        wiring.pin_label(call.label(4), PLACES)
    if call.given(4) or call.node.attribute("unidirectional", 0):
        masks.append(in_places(q, k))
    return attended(call, q, k, v, masks)


def group_query(call: Call) -> list[Label]:
    """As Attention over what came before, turned by tables where it is told to."""
    wiring, node = call.wiring, call.node
    if any(call.given(slot) for slot in NO_CPU):
        return call.freeze(f"{call.name} normalises heads, or keeps its past in integers: no rule yet")
    counts = [node.attribute(name) for name in ("num_heads", "kv_num_heads", "kv_num_heads")]
    packed = call.label(0)
    size = packed.shape[2] // (counts[0] if call.given(1) else sum(counts))
    three = (
        [call.label(slot) for slot in range(3)] if call.given(1) else cut(call, packed, 2, [n * size for n in counts])
    )
    q, k, v = (by_head(call, label, count) for label, count in zip(three, counts, strict=True))
    mark_statistic(call, v, [3])  # heads of all three have one size, which those of queries and keys keep
    if node.attribute("do_rotary", 0):
        for label in (q, k):
            pin_turned(call, label, 2 * call.label(7).shape[-1], node.attribute("rotary_interleaved", 0))
        for slot in (7, 8):
            wiring.pin_label(call.label(slot), TURNED)
    k, v = behind_past(call, k, 3, 1), behind_past(call, v, 4, 2)
    masks = [fitted(call, call.label(10), k.shape[2])] if call.given(10) else []
    sinks = [wiring.reshape(call.label(11), (1, counts[0], 1, 1), call.name)] if call.given(11) else []
    return attended(call, q, k, v, [*masks, *sinks, in_places(q, k)])


def attended(call: Call, q: Label, k: Label, v: Label, beside: Sequence[Label]) -> list[Label]:
    """What comes of queries, keys and values, all by head: the output, keys, values, and scores.

    Args:
        beside: what is added to the scores, or masks some.
    """
    wiring, (batch, heads, steps, size) = call.wiring, q.shape
    shared, length, width = v.shape[1:]
    axes = (batch, shared, heads // shared, steps, length)
    blocks = wiring.fresh_label((1, shared, 1, 1, 1, 1))

    def in_blocks(label: Label, *shape: int) -> Label:
        """A label with the heads that share one of keys in an axis of their own, in blocks."""
        return wiring.combine([wiring.reshape(label, shape, call.name), blocks], shape)

    queries = in_blocks(q, *axes[:4], 1, size)
    keys = in_blocks(k, k.shape[0], shared, 1, 1, length, size)
    met = wiring.combine([queries, keys], (*axes, size))
    mark_statistic(call, met, [5])
    scores = wiring.reshape(wiring.sum_away(met, 5), (batch, heads, steps, length), call.name)
    scores = wiring.combine([scores, *beside], scores.shape)
    mark_statistic(call, scores, [3])
    values = in_blocks(v, v.shape[0], shared, 1, 1, length, width)
    weighted = wiring.combine([in_blocks(scores, *axes, 1), values], (*axes, width))
    out = wiring.reshape(wiring.sum_away(weighted, 4), (batch, heads, steps, width), call.name)
    if len(call.outputs[0]) == 3:
        out = wiring.reshape(wiring.transpose(out, BY_HEAD), call.outputs[0], call.name)
    return [out, k, v, scores]


def by_head(call: Call, label: Label, heads: int) -> Label:
    """What comes in as (batch, heads, places, units)."""
    if len(label.shape) == 4:
        return label
    batch, steps, width = label.shape
    apart = call.wiring.reshape(label, (batch, steps, heads, width // heads), call.name)
    return call.wiring.transpose(apart, BY_HEAD)


def cut(call: Call, label: Label, axis: int, sizes: Sequence[int]) -> list[Label]:
    """Consecutive runs of one axis."""
    starts = np.cumsum([0, *sizes[:-1]])
    runs = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return [call.wiring.take(label, axis, run, call.name) for run in runs]


def behind_past(call: Call, label: Label, slot: int, output: int) -> Label:
    """Keys or values behind those of the past, if there are any: all their places stay in order."""
    if not call.given(slot):
        return label
    wiring, past = call.wiring, call.label(slot)
    told = call.outputs[output] if output < len(call.outputs) else ()
    length = told[2] if told else past.shape[2] + label.shape[2]
    across = []
    for one in (past, label):
        pin_axis(call, one, 2, PLACES)
        across.append(wiring.without(one, 2))
    batch, heads, _, size = label.shape
    both = wiring.combine(across, (batch, heads, 1, size))
    return wiring.with_axis_label(both, 2, PLACES, length)


def fitted(call: Call, mask: Label, length: int) -> Label:
    """A mask for all keys, of which it may leave out the last."""
    last = len(mask.shape) - 1
    if mask.shape[last] in (1, length):
        return mask
    pin_axis(call, mask, last, PLACES)
    return call.wiring.with_axis_label(mask, last, PLACES, length)


def in_places(q: Label, k: Label) -> Label:
    """A label of scores that are told apart by the places of queries and keys."""
    return Label((1, 1, q.shape[2], k.shape[2]), (), {2: PLACES, 3: PLACES})


def rotary(cosines: int) -> Rule:
    """The rule of an operator whose inputs from `cosines` on are the tables that pairs of units are turned by."""

    def rule(call: Call) -> list[Label]:
        """The output is laid out as the input. Turned units, and places, stay where they are; heads move."""
        wiring, x = call.wiring, call.label(0)
        turned, is_flat = 2 * call.label(cosines).shape[-1], len(x.shape) == 3
        for slot in (cosines, cosines + 1):
            wiring.pin_label(call.label(slot), TURNED)
        heads = call.node.attribute("num_heads", 0) or x.shape[-1] // turned
        label = by_head(call, x, heads)
        for axis in (0, 2):
            pin_axis(call, label, axis, PLACES)
        pin_turned(call, label, turned, call.node.attribute("interleaved", 0))
        if is_flat:
            label = wiring.reshape(wiring.transpose(label, BY_HEAD), x.shape, call.name)
        return [label]

    return rule


def pin_turned(call: Call, label: Label, turned: int, by_twos: int) -> None:
    """Pin the first units of every head to their places in it, and let those of a pair move together: two neighbours,
    or one of the first half and one of the second."""
    wiring, pairs = call.wiring, np.arange(turned).reshape((-1, 2) if by_twos else (2, -1))
    pin_axis(call, wiring.take(label, 3, np.arange(turned), call.name), 3, TURNED)
    part = label.part_on(3)
    if part is not None:
        wiring.tie(*(part.take(places, 3) for places in (pairs.T if by_twos else pairs)))


def pin_axis(call: Call, label: Label, axis: int, pin: Pin) -> None:
    """Pin what lies along one axis, and tie nothing along the others."""
    pin_each(call, [call.wiring.axis_label(label, axis)], pin)


def query_heads(call: Resized, held: list[int]) -> list[int]:
    """The heads on the last axis of the output, or on one of their own."""
    out = call.outputs[0]
    return [len(out[1])] if len(out) == 4 else count_heads(out[-1], held[0])


def key_heads(call: Resized, held: list[int]) -> list[int]:
    """The heads of keys, on the last axis of the keys or on one of their own."""
    keys = call.inputs[1]
    return [len(keys[1])] if len(keys) == 4 else count_heads(keys[-1], held[0])


def grouped_query_heads(call: Resized, held: list[int]) -> list[int]:
    """The heads on the last axis of the output, each as long as it was: those of keys and of values are alike."""
    return whole_heads(call.outputs[0][-1], held[0])


def grouped_key_heads(call: Resized, held: list[int]) -> list[int]:
    """The heads of keys, which may lie behind those of queries on one axis, and in front of those of values."""
    if call.inputs[1]:
        return whole_heads(call.inputs[1][-1], held[0])
    packed, size = call.inputs[0][-1], call.outputs[0][-1].size
    width = (packed.size - size) // 2
    is_key = (packed.old >= size) & (packed.old < size + width)
    return whole_heads(Layout(width, packed.old[is_key] - size, packed.added[is_key]), held[0])


def count_heads(units: Layout, held: int) -> list[int]:
    """How many heads lie on an axis that had `held`, all of them as long as the shortest that is left: behind the last
    one others may have come. Raises ShapeError where they differ."""
    inside = np.bincount(units.old // (units.size // held), minlength=held)
    size = int(min(inside[inside > 0], default=1))
    if (inside % size).any():
        raise ShapeError("its heads have one size")
    return [len(units) // size]


def whole_heads(units: Layout, held: int) -> list[int]:
    """How many heads lie on an axis that had `held`. Raises ShapeError where one is not as long as it was."""
    size = units.size // held
    if (np.bincount(units.old // size) % size).any():
        raise ShapeError("its heads have one size")
    return [len(units) // size]


def attention_row(rule: Rule, *slots: Slot, sizes: Mapping[str, SizeRule]) -> Row:
    """The row of an operator that takes queries, keys and values."""
    return Row(
        rule,
        LayerRole.ALONE,
        kind="attention",
        attends=True,
        slots=(X, X, X, *slots),
        size_constants=sizes,
        block_counts=tuple(sizes),
    )


SCORES = Slot("score bias", ParameterKind.SHIFT, adds_to_scores=True)
TABLES = (Slot("cos_cache", setting=True, rotates=True), Slot("sin_cache", setting=True, rotates=True))
POSITIONS = setting("position_ids")

ROWS: Mapping[str, Row] = {
    "Attention": attention_row(
        attention,
        SCORES,
        X,
        X,
        setting("nonpad_kv_seqlen"),
        sizes={"q_num_heads": query_heads, "kv_num_heads": key_heads},
    ),
    "com.microsoft.MultiHeadAttention": attention_row(
        multi_head,
        Slot("head bias", ParameterKind.SHIFT),
        setting("key_padding_mask"),
        SCORES,
        X,
        X,
        setting("past_sequence_length"),
        setting("cache_indirection"),
        sizes={"num_heads": query_heads},
    ),
    "com.microsoft.GroupQueryAttention": attention_row(
        group_query,
        X,
        X,
        setting("seqlens_k"),
        setting("total_sequence_length"),
        *TABLES,
        POSITIONS,
        SCORES,
        Slot("sink", ParameterKind.SHIFT),
        setting("k_scale"),
        setting("v_scale"),
        Slot("query scale", ParameterKind.SCALE),
        Slot("key scale", ParameterKind.SCALE),
        setting("query_seqlens"),
        sizes={"num_heads": grouped_query_heads, "kv_num_heads": grouped_key_heads},
    ),
    "RotaryEmbedding": Row(
        rotary(1),
        keeps_axes=True,
        slots=(X, *TABLES, POSITIONS),
        at_zero=AtZero.UNSAFE,
        size_constants={"num_heads": query_heads},
        block_counts=("num_heads",),
    ),
    "com.microsoft.RotaryEmbedding": Row(
        rotary(2),
        keeps_axes=True,
        slots=(X, POSITIONS, *TABLES),
        at_zero=AtZero.UNSAFE,
        size_constants={"num_heads": query_heads},
        block_counts=("num_heads",),
    ),
}

WITHOUT_ROW: Mapping[str, tuple[str, ...]] = {
    "heads in one operator: not followed yet": (
        "DisentangledAttention_TRT",
        "LinearAttention",
        "com.microsoft.DecoderAttention",
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "com.microsoft.DecoderMaskedSelfAttention",
        "com.microsoft.DynamicSparseAttention",
        "com.microsoft.LinearAttention",
        "com.microsoft.LongformerAttention",
        "com.microsoft.PackedAttention",
        "com.microsoft.PackedMultiHeadAttention",
        "com.microsoft.PagedAttention",
        "com.microsoft.QAttention",
        "com.microsoft.QOrderedAttention",
        "com.microsoft.QOrderedLongformerAttention",
        "com.microsoft.SparseAttention",
        "com.microsoft.SparsePagedAttention",
    ),
    "with a past, a rotation, or a mask of lengths or of unknown shape it is not followed yet": (
        "com.microsoft.Attention",
    ),
    "it picks the keys that are read by their values": (
        "com.microsoft.PackedSparseAttentionIndexer",
        "com.microsoft.PackedSparseAttentionIndexerMerge",
        "com.microsoft.SparseAttentionIndexer",
    ),
    "it turns pairs of units by tables of their places": (
        "com.microsoft.GemmaRotaryEmbedding",
        "com.microsoft.MRotaryEmbedding",
        "com.microsoft.RMSNormRotary",
    ),
    "it adds a bias for every pair of places, head by head": (
        "com.microsoft.GatedRelativePositionBias",
        "com.microsoft.RelativePositionBias",
    ),
}
