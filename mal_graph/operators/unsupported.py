"""Every operator of ONNX, of its domain ai.onnx.ml and of onnxruntime's com.microsoft that has no row, with the reason.

Their axes freeze, and the report says why. Whoever misses an operator finds the reason here; whoever writes its row
takes it off the list, which a test compares with the operators that the installed onnx and onnxruntime know.
"""

from collections.abc import Mapping

from mal_graph.operators import attention, classic, recurrent
from mal_graph.operators.control_flow import CONTROLS, NOT_SHOWN

RUNS_A_GRAPH = "it runs a graph of its own"
OTHERS: Mapping[str, tuple[str, ...]] = {
    RUNS_A_GRAPH: NOT_SHOWN,
    "it works on optional values, which are no tensors of units": (
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
    ),
    "it works on texts or tokens, not on units": (
        "ImageDecoder",
        "RegexFullMatch",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
        "com.microsoft.BifurcationDetector",
        "com.microsoft.MurmurHash3",
        "com.microsoft.NGramHashMapping",
        "com.microsoft.NGramRepeatBlock",
        "com.microsoft.Tokenizer",
        "com.microsoft.VarlenNGramHashMapping",
    ),
    "it finds elements by their place": (
        "Scatter",
        "com.microsoft.GatherND",
        "com.microsoft.UnfoldTensor",
    ),
    "it keeps what its values say": (
        "EfficientNMS_TRT",
        "com.microsoft.RemovePadding",
        "com.microsoft.RestorePadding",
        "com.microsoft.Unique",
    ),
    "it picks experts by their values: not followed yet": (
        "com.microsoft.MoE",
        "com.microsoft.MoEGroupRouter",
        "com.microsoft.MoEPacked",
        "com.microsoft.QMoE",
        "com.microsoft.RouterGateUpProj",
    ),
    "its weights are stored as packed numbers": (
        "com.microsoft.DequantizeBFP",
        "com.microsoft.GatherBlockQuantized",
        "com.microsoft.GatherPacked",
        "com.microsoft.GemmFloat8",
        "com.microsoft.MatMulBlockQuantizedFp4Weight",
        "com.microsoft.MatMulBlockQuantizedFp8Weight",
        "com.microsoft.MatMulBnb4",
        "com.microsoft.MatMulFpQ4",
        "com.microsoft.MatMulNBits",
        "com.microsoft.MatMulNBitsMlp",
        "com.microsoft.MatMulNBitsQLoRA",
        "com.microsoft.MatMulNBitsQkv",
        "com.microsoft.MatMulPacked",
        "com.microsoft.QuantizeBFP",
        "com.microsoft.SparseToDenseMatMul",
    ),
    "it works in integers, which cannot be averaged: no rule yet": (
        "com.microsoft.DequantizeLinear",
        "com.microsoft.DequantizeWithOrder",
        "com.microsoft.DynamicQuantizeMatMul",
        "com.microsoft.MatMulInteger16",
        "com.microsoft.MatMulIntegerToFloat",
        "com.microsoft.MulInteger",
        "com.microsoft.QEmbedLayerNormalization",
        "com.microsoft.QGemm",
        "com.microsoft.QLinearAdd",
        "com.microsoft.QLinearAveragePool",
        "com.microsoft.QLinearConcat",
        "com.microsoft.QLinearConv",
        "com.microsoft.QLinearGlobalAveragePool",
        "com.microsoft.QLinearLeakyRelu",
        "com.microsoft.QLinearMul",
        "com.microsoft.QLinearReduceMean",
        "com.microsoft.QLinearSigmoid",
        "com.microsoft.QLinearSoftmax",
        "com.microsoft.QLinearWhere",
        "com.microsoft.QOrderedGelu",
        "com.microsoft.QOrderedLayerNormalization",
        "com.microsoft.QOrderedMatMul",
        "com.microsoft.QuantizeLinear",
        "com.microsoft.QuantizeWithOrder",
        "com.microsoft.ReduceSumInteger",
    ),
    "it fuses several operators after export: no rule yet, export without optimisation": (
        "com.microsoft.BiasAdd",
        "com.microsoft.BiasDropout",
        "com.microsoft.BiasSoftmax",
        "com.microsoft.BiasSplitGelu",
        "com.microsoft.BitmaskBiasDropout",
        "com.microsoft.BitmaskDropout",
        "com.microsoft.EngramGate",
        "com.microsoft.FusedMatMulActivation",
        "com.microsoft.GatedAdd",
        "com.microsoft.GatedRMSNorm",
        "com.microsoft.GemmFastGelu",
        "com.microsoft.GroupNorm",
        "com.microsoft.HyperConnectionLowRankMix",
        "com.microsoft.HyperConnectionPostMix",
        "com.microsoft.HyperConnectionPreMix",
        "com.microsoft.BranchwiseRMSNorm",
        "com.microsoft.ScaledSiLU",
        "com.microsoft.SkipGroupNorm",
        "com.microsoft.SwiGLU",
        "com.microsoft.TransposeMatMul",
        "com.microsoft.WordConvEmbedding",
    ),
    "where it tells the lengths of a mask it is not followed yet": ("com.microsoft.EmbedLayerNormalization",),
    "it keeps its channels on the last axis: no rule yet": (
        "com.microsoft.NhwcConv",
        "com.microsoft.NhwcFusedConv",
        "com.microsoft.NhwcMaxPool",
    ),
    "it stands beside an operator of ONNX that exporters write instead: no rule yet": (
        "Affine",
        "Crop",
        "DynamicSlice",
        "GivenTensorFill",
        "ImageScaler",
        "ParametricSoftplus",
        "Scale",
        "ScaledTanh",
        "com.microsoft.CDist",
        "com.microsoft.ComplexMul",
        "com.microsoft.ComplexMulConj",
        "com.microsoft.ConvTransposeWithDynamicPads",
        "com.microsoft.CropAndResize",
        "com.microsoft.DynamicTimeWarping",
        "com.microsoft.ExpandDims",
        "com.microsoft.GridSample",
        "com.microsoft.Inverse",
        "com.microsoft.Irfft",
        "com.microsoft.IsAllFinite",
        "com.microsoft.MaxpoolWithMask",
        "com.microsoft.Pad",
        "com.microsoft.Range",
        "com.microsoft.Rfft",
        "com.microsoft.SampleOp",
        "com.microsoft.TorchEmbedding",
        "com.microsoft.Trilu",
    ),
    "it belongs to a runtime, not to a model": (
        "MemcpyFromHost",
        "MemcpyToHost",
        "MultilevelCropAndResize_TRT",
        "PyramidROIAlign_TRT",
        "com.microsoft.EPContext",
        "com.microsoft.Snpe",
    ),
}
UNSUPPORTED: Mapping[str, str] = {
    op: reason
    for reasons in (recurrent.WITHOUT_ROW, attention.WITHOUT_ROW, classic.WITHOUT_ROW, OTHERS)
    for reason, ops in reasons.items()
    for op in ops
}


def explain_missing(op: str) -> str:
    """Why the axes of an operator without a row, or of one whose graph is not looked into, freeze."""
    reason = UNSUPPORTED.get(op, RUNS_A_GRAPH if op in CONTROLS else "")
    return f"operator {op} has no axis rule" + (f": {reason}" if reason else "")
