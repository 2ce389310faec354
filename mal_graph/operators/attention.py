"""Attention as one operator: none has a rule yet.

Attention that an exporter writes out (MatMul, Softmax, MatMul, with reshapes between) needs no rule of its own: heads
and the units inside them follow from the labels. As one operator it hides queries, keys, values and heads in attributes
and packed axes; until a rule says how they lie there, its axes freeze.
"""

from collections.abc import Mapping

WITHOUT_ROW: Mapping[str, tuple[str, ...]] = {
    "heads in one operator: not followed yet": (
        "Attention",
        "DisentangledAttention_TRT",
        "LinearAttention",
        "com.microsoft.Attention",
        "com.microsoft.DecoderAttention",
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "com.microsoft.DecoderMaskedSelfAttention",
        "com.microsoft.DynamicSparseAttention",
        "com.microsoft.GroupQueryAttention",
        "com.microsoft.LinearAttention",
        "com.microsoft.LongformerAttention",
        "com.microsoft.MultiHeadAttention",
        "com.microsoft.PackedAttention",
        "com.microsoft.PackedMultiHeadAttention",
        "com.microsoft.PagedAttention",
        "com.microsoft.QAttention",
        "com.microsoft.QOrderedAttention",
        "com.microsoft.QOrderedLongformerAttention",
        "com.microsoft.SparseAttention",
        "com.microsoft.SparsePagedAttention",
    ),
    "it picks the keys that are read by their values": (
        "com.microsoft.PackedSparseAttentionIndexer",
        "com.microsoft.PackedSparseAttentionIndexerMerge",
        "com.microsoft.SparseAttentionIndexer",
    ),
    "it turns pairs of units by tables of their places": (
        "RotaryEmbedding",
        "com.microsoft.GemmaRotaryEmbedding",
        "com.microsoft.MRotaryEmbedding",
        "com.microsoft.RMSNormRotary",
        "com.microsoft.RotaryEmbedding",
    ),
    "it adds a bias for every pair of places, head by head": (
        "com.microsoft.GatedRelativePositionBias",
        "com.microsoft.RelativePositionBias",
    ),
}
