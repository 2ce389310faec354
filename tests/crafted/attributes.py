"""Operators with attributes and stored numbers that no exporter writes: of another type, out of range, without an end.

Each is one operator on a layer's output; what reads it makes the output of the model.
"""

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper

from crafted.kind import KINDS, LEAST, MODEL, MOST, Kind, raw

HUGE = 1 << 40
INF, NAN = float("inf"), float("nan")
FLOATS, NUMBERS = np.float32, np.int64


def typed(name: str, kind: int, **content: object) -> AttributeProto:
    """An attribute as it is given, whatever an operator asks for."""
    made = AttributeProto(name=name, type=kind)
    for field, value in content.items():
        if isinstance(value, list):
            getattr(made, field).extend(value)
        elif isinstance(value, TensorProto):
            made.t.CopyFrom(value)
        else:
            setattr(made, field, value)
    return made


def one_operator(
    op: str, inputs: list, attributes: dict, rank: int = 2, outputs: int = 1, domain: str = ""
) -> ModelProto:
    """A layer, and one operator on what it makes: as the array that `DATA` stands for, with others that are stored."""
    stored: dict[str, object] = {"w": np.linspace(-1, 1, 32, dtype=FLOATS).reshape(8, 4)}
    names = []
    for place, given in enumerate(inputs):
        if isinstance(given, str):
            names.append(given)
        else:
            stored[f"s{place}"] = given
            names.append(f"s{place}")
    shape = {2: [-1, 4], 3: [-1, 2, 2], 4: [-1, 1, 2, 2]}[rank]
    stored["shape"] = np.array(shape, NUMBERS)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], [DATA]),
    ]
    node = helper.make_node(op, names, ["y", *(f"y{i}" for i in range(1, outputs))], domain=domain)
    plain = {key: value for key, value in attributes.items() if not isinstance(value, AttributeProto)}
    node.attribute.extend(helper.make_attribute(key, value) for key, value in plain.items())
    node.attribute.extend(value for value in attributes.values() if isinstance(value, AttributeProto))
    return raw(*nodes, node, stored=stored)


DATA = "d"
KERNEL = np.ones((1, 1, 2, 2), FLOATS)
NOTHING = np.zeros(0, NUMBERS)
OPERATORS: dict[str, tuple[str, list, dict, int, int]] = {}


def note(name: str, op: str, inputs: list, rank: int = 2, outputs: int = 1, **attributes: object) -> None:
    OPERATORS[name] = (op, inputs, attributes, rank, outputs)

    def build(folder):
        (folder / MODEL).write_bytes(one_operator(op, inputs, attributes, rank, outputs).SerializeToString())

    KINDS[name] = Kind(name, build)


def whole(*numbers: int):
    return np.array(numbers, NUMBERS)


def real(*numbers: float):
    return np.array(numbers, FLOATS)


# Attributes of another type.
note("an_axis_that_is_a_fraction", "Softmax", [DATA], axis=typed("axis", AttributeProto.FLOAT, f=0.5))
note("an_axis_that_is_a_text", "Concat", [DATA, DATA], axis=typed("axis", AttributeProto.STRING, s=b"1"))
note(
    "an_axis_that_is_a_tensor",
    "Concat",
    [DATA, DATA],
    axis=typed("axis", AttributeProto.TENSOR, t=helper.make_tensor("t", TensorProto.INT64, [], [1])),
)
note("an_axis_that_is_many", "Softmax", [DATA], axis=typed("axis", AttributeProto.INTS, ints=[1, 0]))
note("an_axis_of_two_types", "Softmax", [DATA], axis=typed("axis", AttributeProto.INT, i=1, f=2.0, ints=[1]))
note("an_attribute_of_an_unknown_type", "Softmax", [DATA], axis=typed("axis", 3, i=1, floats=[1.0]))
note("an_attribute_that_is_there_twice", "Softmax", [DATA], a=typed("axis", 2, i=1), b=typed("axis", 2, i=0))
note("an_attribute_without_a_name", "Softmax", [DATA], a=typed("", 2, i=1))
note("a_permutation_that_is_texts", "Transpose", [DATA], perm=typed("perm", AttributeProto.STRINGS, strings=[b"1"]))
# Axes.
for number in (LEAST, MOST, 1 << 31, -3, 2):
    note(f"softmax_along_{number}", "Softmax", [DATA], axis=number)
    note(f"concat_along_{number}", "Concat", [DATA, DATA], axis=number)
    note(f"gather_along_{number}", "Gather", [DATA, whole(0)], axis=number)
    note(f"flatten_at_{number}", "Flatten", [DATA], axis=number)
    note(f"layer_norm_from_{number}", "LayerNormalization", [DATA, real(1, 1, 1, 1)], axis=number)
for name, axes in {"twice": (0, 0), "beyond": (HUGE,), "least": (LEAST,), "many": (0,) * 70}.items():
    note(f"unsqueeze_{name}", "Unsqueeze", [DATA, whole(*axes)])
    note(f"squeeze_{name}", "Squeeze", [DATA, whole(*axes)])
    note(f"reduce_{name}", "ReduceSum", [DATA, whole(*axes)])
for name, perm in {"twice": [0, 0], "beyond": [0, 9], "negative": [-1, 0], "short": [0], "long": [0] * 100}.items():
    note(f"transpose_{name}", "Transpose", [DATA], perm=perm)
# Windows.
note("strides_of_zero", "Conv", [DATA, KERNEL], rank=4, strides=[0, 0])
note("strides_that_are_negative", "Conv", [DATA, KERNEL], rank=4, strides=[-1, -1])
note("strides_without_end", "MaxPool", [DATA], rank=4, kernel_shape=[1, 1], strides=[MOST, MOST])
note("dilations_of_zero", "Conv", [DATA, KERNEL], rank=4, dilations=[0, 0])
note("dilations_without_end", "Conv", [DATA, KERNEL], rank=4, dilations=[HUGE, HUGE])
note("dilations_that_are_negative", "MaxPool", [DATA], rank=4, kernel_shape=[2, 2], dilations=[-1, -1])
note("no_groups", "Conv", [DATA, KERNEL], rank=4, group=0)
note("negative_groups", "Conv", [DATA, KERNEL], rank=4, group=-1)
note("many_groups", "Conv", [DATA, KERNEL], rank=4, group=MOST)
note("no_groups_of_a_transposed_convolution", "ConvTranspose", [DATA, KERNEL], rank=4, group=0)
note("a_kernel_of_zero", "MaxPool", [DATA], rank=4, kernel_shape=[0, 0])
note("a_kernel_of_another_rank", "AveragePool", [DATA], rank=4, kernel_shape=[1] * 60)
note("a_kernel_that_is_negative", "AveragePool", [DATA], rank=4, kernel_shape=[-2, -2])
note("a_kernel_that_is_not_the_weights", "Conv", [DATA, KERNEL], rank=4, kernel_shape=[HUGE, 1])
note("pads_that_cut", "Conv", [DATA, KERNEL], rank=4, pads=[-9, -9, -9, -9])
note("pads_of_the_least_number", "MaxPool", [DATA], rank=4, kernel_shape=[2, 2], pads=[LEAST] * 4)
note("pads_of_a_pool_without_end", "AveragePool", [DATA], rank=4, kernel_shape=[2, 2], pads=[HUGE] * 4)
note("pads_beside_auto_pads", "Conv", [DATA, KERNEL], rank=4, auto_pad="SAME_UPPER", pads=[7] * 4)
note("auto_pads_that_are_none", "Conv", [DATA, KERNEL], rank=4, auto_pad="\x1b[31m")
note("output_pads_without_end", "ConvTranspose", [DATA, KERNEL], rank=4, output_padding=[HUGE, HUGE])
note("an_output_shape_without_end", "ConvTranspose", [DATA, KERNEL], rank=4, output_shape=[1 << 20, 1 << 20])
note("pool_of_no_norm", "LpPool", [DATA], rank=4, kernel_shape=[2, 2], p=0)
note("local_norm_of_many", "LRN", [DATA], rank=4, size=MOST)
note("local_norm_of_none", "LRN", [DATA], rank=4, size=0)
note("group_norm_of_none", "GroupNormalization", [DATA, real(1), real(1)], rank=4, num_groups=0)
note("space_of_no_depth", "SpaceToDepth", [DATA], rank=4, blocksize=0)
note("depth_of_much_space", "DepthToSpace", [DATA], rank=4, blocksize=HUGE)
note("columns_to_a_huge_image", "Col2Im", [DATA, whole(1 << 20, 1 << 20), whole(1, 1)], rank=3)
# Equations.
for name, equation in {
    "empty": "",
    "without_an_arrow": "ab,cd",
    "of_escapes": "\x1b[31m->",
    "of_an_output_twice": "ab->aa",
    "of_many_letters": ",".join(["abcdefghijklmnopqrstuvwxyz"] * 100) + "->a",
    "of_dots": "...a...,...->...",
    "of_an_unread_letter": "ab->abz",
    "of_a_trace": "aa->a",
}.items():
    note(f"an_equation_{name}", "Einsum", [DATA], equation=equation)
# Shapes.
for name, shape in {
    "minus_one_twice": (-1, -1),
    "minus_two": (-2, 2),
    "overflowing": (1 << 33, 1 << 33),
    "zero_beyond_the_rank": (0, 0, 0),
    "of_rank_100": (1,) * 100,
    "of_the_least_number": (LEAST, -1),
}.items():
    note(f"reshape_to_{name}", "Reshape", [DATA, whole(*shape)])
    note(f"expand_to_{name}", "Expand", [DATA, whole(*shape)])
    note(f"fill_to_{name}", "ConstantOfShape", [whole(*shape)])
note("reshape_to_fractions", "Reshape", [DATA, real(1.5, NAN)])
note("reshape_to_a_number_without_axes", "Reshape", [DATA, np.array(-1, NUMBERS)])
note("fill_by_nothing", "ConstantOfShape", [NOTHING], value=helper.make_tensor("v", TensorProto.FLOAT, [0], []))
note("fill_by_a_text", "ConstantOfShape", [whole(2)], value=helper.make_tensor("v", TensorProto.STRING, [1], [b"a"]))
note("tile_by_negative_numbers", "Tile", [DATA, whole(-1, 1 << 33)])
note("tile_by_a_product_without_end", "Tile", [DATA, whole(1 << 33, 1 << 33)])
note("split_that_does_not_sum", "Split", [DATA, whole(1, 1)], outputs=2, axis=1)
note("split_by_negative_numbers", "Split", [DATA, whole(-1, 5)], outputs=2, axis=1)
note("split_into_none", "Split", [DATA], outputs=2, axis=1, num_outputs=0)
note("split_into_many", "Split", [DATA], outputs=2, axis=1, num_outputs=MOST)
note("split_to_a_sequence_of_none", "SplitToSequence", [DATA, np.array(0, NUMBERS)], axis=1)
for name, numbers in {
    "no_step": (whole(0), whole(2), whole(1), whole(0)),
    "the_least_step": (whole(MOST), whole(LEAST), whole(1), whole(LEAST)),
    "the_least_axis": (whole(0), whole(1), whole(LEAST), whole(1)),
    "an_axis_twice": (whole(0, 0), whole(1, 1), whole(1, 1), whole(1, 1)),
    "other_counts": (whole(0), whole(1, 1), whole(1), whole(1)),
}.items():
    note(f"slice_by_{name}", "Slice", [DATA, *numbers])
for name, indices in {"least": whole(LEAST), "far": whole(MOST), "negative": whole(-5)}.items():
    note(f"gather_of_the_{name}", "Gather", [DATA, indices], axis=1)
    note(f"gather_elements_of_the_{name}", "GatherElements", [DATA, indices.reshape(1, 1)], axis=1)
    note(f"gather_nd_of_the_{name}", "GatherND", [DATA, np.stack([indices, indices], axis=1)])
    note(f"scatter_to_the_{name}", "ScatterElements", [DATA, indices.reshape(1, 1), real(1).reshape(1, 1)], axis=1)
    note(f"scatter_nd_to_the_{name}", "ScatterND", [DATA, np.stack([indices, indices], axis=1), real(1)])
note("gather_nd_of_many_batch_axes", "GatherND", [DATA, whole(0).reshape(1, 1)], batch_dims=HUGE)
note("top_of_negative_numbers", "TopK", [DATA, whole(-5)], outputs=2)
note("top_of_none", "TopK", [DATA, NOTHING], outputs=2)
note("one_hot_of_negative_depth", "OneHot", [whole(0), np.array(-5, NUMBERS), real(0, 1)])
note("one_hot_of_a_fraction", "OneHot", [whole(0), np.array(NAN, FLOATS), real(0, 1)])
note("range_of_the_least_number", "Range", [np.array(LEAST, NUMBERS), np.array(MOST, NUMBERS), np.array(1, NUMBERS)])
note("range_by_nan", "Range", [np.array(0, FLOATS), np.array(1, FLOATS), np.array(NAN, FLOATS)])
note("range_to_the_end_of_floats", "Range", [np.array(-3e38, FLOATS), np.array(3e38, FLOATS), np.array(1e-38, FLOATS)])
note("where_shapes_do_not_fit", "Where", [np.ones((3, 5), bool), DATA, real(1, 2, 3)])
note("cast_to_a_type_that_there_is_not", "Cast", [DATA], to=99)
note("cast_to_a_negative_type", "Cast", [DATA], to=LEAST)
note("cast_to_no_type", "Cast", [DATA], to=0)
note("bit_cast_of_other_sizes", "Bitcast", [DATA], domain="my", to=1)
note("clip_between_the_wrong_ends", "Clip", [DATA, np.array(NAN, FLOATS), np.array(-INF, FLOATS)])
note("a_triangle_far_away", "Trilu", [DATA, np.array(LEAST, NUMBERS)])
note("an_eye_of_a_huge_shape", "EyeLike", [np.zeros((0, HUGE), FLOATS)], k=LEAST)
note("a_sum_that_is_counted_beyond", "CumSum", [DATA, np.array(HUGE, NUMBERS)])
note("compress_by_more_than_there_is", "Compress", [DATA, np.ones(1000, bool)], axis=1)
note("reverse_beyond_the_end", "ReverseSequence", [DATA, whole(MOST, 1)])
note("hardmax_of_many", "Hardmax", [DATA], axis=HUGE)
note("dropout_of_everything", "Dropout", [DATA, np.array(1.0, FLOATS), np.array(True)], seed=LEAST)
note("dropout_of_more", "Dropout", [DATA, np.array(NAN, FLOATS), np.array(True)])
note("bernoulli_of_nan", "Bernoulli", [real(NAN, INF, -1)], seed=NAN)
# Images and sound.
note("resize_by_negative_scales", "Resize", [DATA, "", real(-1, -1, -1, -1)], rank=4)
note("resize_by_scales_without_end", "Resize", [DATA, "", real(INF, 1, 1, 1)], rank=4)
note("resize_by_scales_of_zero", "Resize", [DATA, "", real(0, 0, 0, 0)], rank=4)
note("resize_to_negative_sizes", "Resize", [DATA, "", "", whole(-1, -1, -1, LEAST)], rank=4)
note("resize_of_a_crop_of_nan", "Resize", [DATA, real(*[NAN] * 8), "", whole(1, 1, 4, 4)], rank=4,
     coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
note("resize_in_an_unknown_mode", "Resize", [DATA, "", real(1, 1, 2, 2)], rank=4, mode="\x1b]0;x\x07")
note("resize_of_a_cubic_nan", "Resize", [DATA, "", real(1, 1, 2, 2)], rank=4, mode="cubic", cubic_coeff_a=NAN)
note("a_grid_of_nan", "GridSample", [DATA, np.full((1, 2, 2, 2), NAN, FLOATS)], rank=4)
note("a_grid_without_end", "GridSample", [DATA, np.full((1, 2, 2, 2), 3e38, FLOATS)], rank=4, padding_mode="reflection")
note("an_affine_grid_of_zeros", "AffineGrid", [np.ones((1, 2, 3), FLOATS), whole(1, 1, 0, 0)])
note("regions_of_nan", "RoiAlign", [DATA, np.full((1, 4), NAN, FLOATS), whole(0)], rank=4)
note("regions_of_another_image", "RoiAlign", [DATA, np.ones((1, 4), FLOATS), whole(MOST)], rank=4)
note("regions_sampled_without_end", "RoiAlign", [DATA, np.ones((1, 4), FLOATS), whole(0)], rank=4,
     sampling_ratio=1 << 30)  # fmt: skip
note("regions_pooled_of_nan", "MaxRoiPool", [DATA, np.full((1, 5), NAN, FLOATS)], rank=4, pooled_shape=[2, 2])
note("regions_pooled_without_end", "MaxRoiPool", [DATA, np.ones((1, 5), FLOATS)], rank=4, pooled_shape=[HUGE, HUGE])
note("boxes_of_nan", "NonMaxSuppression", [np.full((1, 9, 4), NAN, FLOATS), np.ones((1, 1, 9), FLOATS), whole(MOST)])
note("unpool_to_far_away", "MaxUnpool", [DATA, np.full((1, 1, 2, 2), MOST)], rank=4, kernel_shape=[2, 2])
note("unpool_to_before_the_start", "MaxUnpool", [DATA, np.full((1, 1, 2, 2), LEAST)], rank=4, kernel_shape=[2, 2])
note("unpool_to_a_huge_shape", "MaxUnpool", [DATA, np.zeros((1, 1, 2, 2), NUMBERS), whole(1, 1, 1 << 20, 1 << 20)],
     rank=4, kernel_shape=[2, 2])  # fmt: skip
note("sound_of_no_steps", "STFT", [DATA, np.array(0, NUMBERS), "", np.array(4, NUMBERS)], rank=3)
note("sound_of_huge_frames", "STFT", [DATA, np.array(1, NUMBERS), "", np.array(1 << 30, NUMBERS)], rank=3)
note("waves_of_negative_length", "DFT", [DATA, np.array(-5, NUMBERS)], rank=3)
note("a_window_of_negative_length", "HannWindow", [np.array(LEAST, NUMBERS)])
note("a_window_of_a_fraction", "HammingWindow", [np.array(NAN, FLOATS)])
note("a_mel_matrix_of_negative_numbers", "MelWeightMatrix", [np.array(-8, NUMBERS), np.array(-2, NUMBERS),
     np.array(-1, NUMBERS), np.array(-1e30, FLOATS), np.array(NAN, FLOATS)])  # fmt: skip
# Quantised numbers.
note("a_scale_of_nan", "QuantizeLinear", [DATA, np.array(NAN, FLOATS), np.array(0, np.uint8)])
note("a_scale_of_zero", "QuantizeLinear", [DATA, np.array(0, FLOATS), np.array(0, np.uint8)])
note("scales_along_a_far_axis", "DequantizeLinear", [np.ones((2, 4), np.int8), real(1, 1, 1, 1)], axis=MOST)
note("blocks_of_negative_size", "DequantizeLinear", [np.ones((2, 4), np.int8), np.ones((2, 1), FLOATS)], axis=1,
     block_size=LEAST)  # fmt: skip
note("zero_points_of_another_shape", "DequantizeLinear", [np.ones((2, 4), np.int8), real(1, 1), np.ones(9, np.int8)])
# Recurrence.
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    weights = [np.ones((1, gates * 2, 2), FLOATS), np.ones((1, gates * 2, 2), FLOATS)]
    note(f"{op.lower()}_of_no_units", op, [DATA, *weights], rank=3, hidden_size=0)
    note(f"{op.lower()}_of_many_units", op, [DATA, *weights], rank=3, hidden_size=HUGE)
    note(f"{op.lower()}_of_negative_units", op, [DATA, *weights], rank=3, hidden_size=-2)
    note(f"{op.lower()}_of_no_direction", op, [DATA, *weights], rank=3, hidden_size=2, direction="\x1b[2J")
    note(f"{op.lower()}_of_few_weights", op, [DATA, np.ones((1, 1, 1), FLOATS), np.zeros((1, 0, 2), FLOATS)], rank=3,
         hidden_size=2)  # fmt: skip
    note(f"{op.lower()}_of_wrong_lengths", op, [DATA, *weights, "", np.array([1 << 30] * 2, np.int32)], rank=3,
         hidden_size=2)  # fmt: skip
# Texts.
note("texts_of_an_unknown_locale", "StringNormalizer", [np.array(["a"], object)], locale="../../etc", stopwords=["a"],
     case_change_action="LOWER")  # fmt: skip
note("a_pool_of_words_without_end", "TfIdfVectorizer", [whole(1, 2)], mode="TF", min_gram_length=1,
     max_gram_length=MOST, max_skip_count=MOST, ngram_counts=[0], ngram_indexes=[0], pool_int64s=[1])  # fmt: skip
note("a_pool_of_words_that_jumps", "TfIdfVectorizer", [whole(1, 2)], mode="TF", min_gram_length=1, max_gram_length=1,
     max_skip_count=0, ngram_counts=[LEAST, MOST], ngram_indexes=[1 << 34], pool_int64s=[1])  # fmt: skip
note("texts_split_without_end", "StringSplit", [np.array(["a b " * 9], object)], delimiter="", outputs=2,
     maxsplit=LEAST)  # fmt: skip
# Operators that read fewer or more than they must, and of nobody.
note("an_operator_that_reads_nothing", "Add", [])
note("an_operator_of_many_outputs", "Relu", [DATA], outputs=50)
note("a_layer_without_weights", "Gemm", [DATA, "", ""])
note("a_convolution_of_two_axes", "Conv", [DATA, np.ones((2, 2), FLOATS)])
note("a_product_of_other_sizes", "MatMul", [DATA, np.ones((9, 9), FLOATS)])
note("a_layer_of_an_infinite_factor", "Gemm", [DATA, np.ones((4, 4), FLOATS)], alpha=INF, beta=NAN)
note("a_norm_of_other_sizes", "BatchNormalization", [DATA, real(1), real(1, 2), real(1), NOTHING.astype(FLOATS)])
note("a_norm_of_negative_variance", "BatchNormalization", [DATA, *[real(1, 1, 1, 1)] * 3, real(-1, NAN, -INF, 0)])
note("a_norm_of_a_nan_epsilon", "LayerNormalization", [DATA, real(1, 1, 1, 1)], epsilon=NAN)
note("a_slope_of_another_shape", "PRelu", [DATA, np.ones((7, 5, 3), FLOATS)])
note("a_slope_of_nan", "LeakyRelu", [DATA], alpha=NAN)
note("attention_of_no_heads", "Attention", [DATA, DATA, DATA], rank=3, q_num_heads=0, kv_num_heads=0)
note("attention_of_many_heads", "Attention", [DATA, DATA, DATA], rank=3, q_num_heads=MOST, kv_num_heads=MOST)
note("rotation_of_many_heads", "RotaryEmbedding", [DATA, np.ones((2, 1), FLOATS), np.ones((2, 1), FLOATS)], rank=3,
     num_heads=MOST, rotary_embedding_dim=MOST)  # fmt: skip
