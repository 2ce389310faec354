"""The settings of an operator that decide which function it is, with the values that they have where nothing says.

Sizes, counts of blocks and arrangements are none of them: they follow from the axes. What multiplies a weight is not
either, for weights are compared as they take effect. Defaults follow the ONNX operator specification; a number stands
for as many equal ones as an axis list has.
"""

from collections.abc import Mapping

LARGEST = 3.4e38  # a bound that leaves every float32 alone
AXIS = {"axis": -1}
AXES = {"axes": None}
POOL = {"kernel_shape": None, "strides": 1, "dilations": 1, "padding": 0, "ceil_mode": 0}
WINDOW = {"strides": 1, "dilations": 1, "padding": 0}
NORM = {"epsilon": 1e-5}
LAST_NORM = {**AXIS, **NORM}
RUNNING = {"axis": None, "exclusive": 0, "reverse": 0}
SCALED = {"alpha": 1.0}
GATED = {"clip": None, "activation_alpha": None, "activation_beta": None}
BY_SIZE = {"scale": "by the size of a head"}
TURNS = {"interleaved": 0, "rotary_embedding_dim": None}
SAMPLING = {
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
    "cubic_coeff_a": -0.75,
}

SHAPING: Mapping[str, Mapping[str, object]] = {
    **dict.fromkeys(["Elu", "Celu", "ThresholdedRelu", "Swish"], SCALED),
    "LeakyRelu": {"alpha": 0.01},
    "Selu": {"alpha": 1.67326, "gamma": 1.0507},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Shrink": {"bias": 0.0, "lambd": 0.5},
    "Gelu": {"approximate": "none"},
    "com.microsoft.QuickGelu": {"alpha": 1.702},
    "Clip": {"min": -LARGEST, "max": LARGEST},
    "Mod": {"fmod": 0},
    "BitShift": {"direction": None},
    "IsInf": {"detect_negative": 1, "detect_positive": 1},
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax"], AXIS),
    "LpNormalization": {**AXIS, "p": 2},
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization", "GroupNormalization"], NORM),
    **dict.fromkeys(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"], LAST_NORM),
    "com.microsoft.SkipLayerNormalization": NORM,
    "com.microsoft.SkipSimplifiedLayerNormalization": {"epsilon": 1e-12},
    "MeanVarianceNormalization": AXES,
    "LRN": {"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": None},
    "AveragePool": {**POOL, "count_include_pad": 0},
    "MaxPool": POOL,
    "LpPool": {**POOL, "p": 2},
    "GlobalLpPool": {"p": 2},
    "RoiAlign": {"mode": "avg", "output_height": 1, "output_width": 1, "sampling_ratio": 0, "spatial_scale": 1.0},
    "MaxRoiPool": {"pooled_shape": None, "spatial_scale": 1.0},
    "GridSample": {"align_corners": 0, "mode": "linear", "padding_mode": "zeros"},
    **dict.fromkeys(["Conv", "DeformConv"], WINDOW),
    "ConvTranspose": {**WINDOW, "output_padding": 0, "output_shape": None},
    "com.microsoft.FusedConv": {**WINDOW, "activation": "", "activation_params": None},
    "com.microsoft.FusedGemm": {"activation": "", "activation_alpha": None, "activation_beta": None},
    "Attention": {**BY_SIZE, "is_causal": 0, "softcap": 0.0, "left_window_size": -1, "right_window_size": -1},
    "com.microsoft.MultiHeadAttention": {**BY_SIZE, "unidirectional": 0, "mask_filter_value": -1e4},
    "com.microsoft.GroupQueryAttention": {
        **BY_SIZE,
        "softcap": 0.0,
        "causal": 1,
        "local_window_size": -1,
        "do_rotary": 0,
        "rotary_interleaved": 0,
        "smooth_softmax": 0,
    },
    "RotaryEmbedding": TURNS,
    "com.microsoft.RotaryEmbedding": {**TURNS, "scale": 1.0},
    "LSTM": {**GATED, "activations": "Sigmoid Tanh Tanh", "input_forget": 0},
    "GRU": {**GATED, "activations": "Sigmoid Tanh", "linear_before_reset": 0},
    "RNN": {**GATED, "activations": "Tanh"},
    **dict.fromkeys(
        ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceMean", "ReduceProd"], AXES
    ),
    **dict.fromkeys(["ReduceLogSumExp", "ReduceMax", "ReduceMin"], AXES),
    "ArgMax": {"axis": 0, "select_last_index": 0},
    "ArgMin": {"axis": 0, "select_last_index": 0},
    "TopK": {**AXIS, "k": None, "largest": 1},
    **dict.fromkeys(["CumSum", "CumProd"], RUNNING),
    "Trilu": {"upper": 1, "diagonal": 0},
    "Pad": {"mode": "constant", "pads": None},
    "DepthToSpace": {"blocksize": None, "mode": "DCR"},
    "SpaceToDepth": {"blocksize": None},
    "Resize": {**SAMPLING, "mode": "nearest", "antialias": 0, "exclude_outside": 0, "scales": None, "sizes": None},
    "Upsample": {"mode": "nearest", "scales": None},
}
