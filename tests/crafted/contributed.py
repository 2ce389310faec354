"""Operators of onnxruntime and of classic learning that hold what they may not, where the view looks into them."""

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper

from crafted.attributes import typed
from crafted.kind import LEAST, MOST, model, raw

FLOATS = np.float32
INT, TEXTS, INTS = AttributeProto.INT, AttributeProto.STRINGS, AttributeProto.INTS


def contributed(op: str, inputs: list[str], *more: AttributeProto, stored=(), **attributes: object) -> ModelProto:
    """One operator of onnxruntime on the input, which has three axes here."""
    node = helper.make_node(op, inputs, ["y"], domain="com.microsoft", **attributes)
    node.attribute.extend(more)
    to_three = helper.make_node("Reshape", ["x", "three"], ["t"])
    held = {"three": np.array([-1, 2, 4]), **dict(stored)}
    proto = raw(to_three, node, stored=held)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


PACKED = {"w": np.ones((4, 12), FLOATS), "b": np.zeros(12, FLOATS)}
for name, more in {
    "of_sizes_that_are_texts": [typed("qkv_hidden_sizes", TEXTS, strings=[b"\x1b[31m"])],
    "of_negative_sizes": [typed("qkv_hidden_sizes", INTS, ints=[-4, LEAST, MOST])],
    "of_two_sizes": [typed("qkv_hidden_sizes", INTS, ints=[6, 6])],
    "of_other_sizes": [typed("qkv_hidden_sizes", INTS, ints=[4, 4, 400])],
    "of_a_scale_that_is_a_text": [typed("scale", AttributeProto.STRING, s=b"x")],
    "of_a_turn_that_is_many": [typed("do_rotary", INTS, ints=[1, 2])],
}.items():
    for heads in (0, 2, MOST):

        def make(more=more, heads=heads):
            return contributed("Attention", ["t", "w", "b"], *more, stored=PACKED, num_heads=heads)

        make.__name__ = f"packed_attention_{name}_in_{heads}_heads"
        model("")(make)


@model("")
def a_mask_behind_many_casts():
    """What counts its axes goes back through all of them."""
    kinds = (TensorProto.FLOAT, TensorProto.INT32)
    casts = [helper.make_node("Cast", [f"c{i}"], [f"c{i + 1}"], to=kinds[i % 2]) for i in range(3000)]
    start = helper.make_node("SomethingElse", ["x"], ["c0"], domain="my")
    heads = helper.make_node("Attention", ["t", "w", "b", "c3000"], ["y"], domain="com.microsoft", num_heads=2)
    to_three = helper.make_node("Reshape", ["x", "three"], ["t"])
    proto = raw(to_three, start, *casts, heads, stored={"three": np.array([-1, 2, 4]), **PACKED})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


for op, inputs in {
    "MultiHeadAttention": ["t", "t", "t"],
    "GroupQueryAttention": ["t", "t", "t", "", "", "n", "n"],
    "LongformerAttention": ["t", "w", "b", "t", "w", "b", "n"],
    "QAttention": ["t", "w", "b", "n", "n"],
    "DecoderMaskedMultiHeadAttention": ["t", "t", "t"],
    "SkipLayerNormalization": ["t", "t", "b"],
    "EmbedLayerNormalization": ["n", "n", "w", "w", "w", "b", "b"],
    "MatMulNBits": ["t", "w", "b"],
    "GatherBlockQuantized": ["w", "n", "b"],
    "MoE": ["t", "w", "w", "b"],
    "NhwcMaxPool": ["t"],
    "BiasGelu": ["t", "b"],
    "Crop": ["t"],
    "Tokenizer": ["t"],
    "ConvTransposeWithDynamicPads": ["t", "w", "n"],
    "CropAndResize": ["t", "w", "n", "n"],
    "CDist": ["x", "w"],
    "Inverse": ["t"],
    "Irfft": ["t"],
    "BeamSearch": ["n", "n", "n"],
    "Trilu": ["t", "n"],
    "Unique": ["b"],
    "ExpandDims": ["t", "n"],
    "GridSample": ["t", "t"],
    "TorchEmbedding": ["w", "n"],
    "DynamicTimeWarping": ["t"],
    "BifurcationDetector": ["n", "n", "n"],
    "ReduceSumInteger": ["n"],
}.items():
    for size in (0, LEAST):

        def make(op=op, inputs=inputs, size=size):
            names = ("num_heads", "kv_num_heads", "K", "N", "bits", "block_size", "window", "k", "max_length", "axis")
            given = [typed(name, INT, i=size) for name in names]
            return contributed(op, inputs, *given, stored={**PACKED, "n": np.array([[2**31 - 1, -1]], np.int32)})

        make.__name__ = f"{op.lower()}_of_{'no' if size == 0 else 'negative'}_sizes"
        model("")(make)


# --- classic learning -----------------------------------------------------------------------------------------------


def classic(op: str, outputs: int = 1, **attributes: object) -> ModelProto:
    """One operator of ai.onnx.ml on the input."""
    proto = raw(
        helper.make_node(op, ["x"], ["y", *(f"y{i}" for i in range(1, outputs))], domain="ai.onnx.ml", **attributes)
    )
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return proto


@model("breaks the standard")
def linear_weights_that_are_texts():
    return classic("LinearRegressor", coefficients=["\x1b[31m"])


@model("breaks the standard")
def a_number_of_targets_that_is_a_text():
    return classic("LinearRegressor", coefficients=[1.0] * 8, targets="8")


def tree(**changed: object) -> ModelProto:
    """Three nodes: a root and two leaves."""
    given = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    return classic("TreeEnsembleRegressor", **{**given, **changed})


TREES = {
    "that_is_sound": {},
    "that_goes_round": {"nodes_modes": ["BRANCH_LEQ"] * 3, "nodes_truenodeids": [1, 2, 0]},
    "that_is_its_own_branch": {"nodes_truenodeids": [0, 0, 0], "nodes_falsenodeids": [0, 0, 0]},
    "of_far_branches": {"nodes_truenodeids": [MOST, 0, 0], "nodes_falsenodeids": [LEAST, 0, 0]},
    "of_far_features": {"nodes_featureids": [1 << 30, 0, 0]},
    "of_negative_features": {"nodes_featureids": [-1, 0, 0]},
    "of_no_numbers": {"nodes_values": [float("nan")] * 3},
    "of_other_counts": {"nodes_values": [0.5]},
    "of_unknown_modes": {"nodes_modes": ["\x1b[31m", "LEAF", "LEAF"]},
    "of_many_targets": {"n_targets": 1 << 34},
    "of_no_targets": {"n_targets": 0},
    "of_far_targets": {"target_ids": [1 << 30, -1]},
    "that_stands_twice": {"nodes_nodeids": [0, 0, 0]},
}
for name, changed in TREES.items():

    def make(changed=changed):
        return tree(**changed)

    make.__name__ = f"a_tree_{name}"
    model("")(make)

CLASSIC = {
    "classes_of_no_weights": ("LinearClassifier", {"classlabels_ints": [0, 1]}),
    "classes_of_other_weights": ("LinearClassifier", {"coefficients": [1.0] * 7, "classlabels_ints": [0, 1, 2]}),
    "classes_named_by_escapes": (
        "LinearClassifier",
        {"coefficients": [1.0] * 16, "classlabels_strings": ["\x1b[31m", "\u202e"], "intercepts": [0.0, 0.0]},
    ),
    "vectors_of_other_counts": ("SVMRegressor", {"support_vectors": [1.0] * 7, "coefficients": [1.0], "n_supports": 9}),
    "vectors_of_a_huge_count": ("SVMRegressor", {"coefficients": [1.0], "n_supports": MOST}),
    "vectors_of_negative_counts": ("SVMClassifier", {"vectors_per_class": [-1, 1 << 40], "classlabels_ints": [0, 1]}),
    "a_scaler_of_other_counts": ("Scaler", {"scale": [1.0] * 3, "offset": [0.0] * 99}),
    "an_imputer_of_nothing": ("Imputer", {}),
    "codes_of_no_categories": ("OneHotEncoder", {}),
    "codes_of_many_categories": ("OneHotEncoder", {"cats_int64s": list(range(100_000))}),
    "labels_of_other_counts": ("LabelEncoder", {"keys_floats": [1.0, 2.0], "values_strings": ["a"]}),
    "a_norm_that_there_is_not": ("Normalizer", {"norm": "\x1b[31m"}),
    "a_threshold_of_nan": ("Binarizer", {"threshold": float("nan")}),
    "a_map_named_by_escapes": ("ZipMap", {"classlabels_strings": ["\x1b[31m\n", "<script>alert(1)</script>"] * 4}),
    "features_of_a_huge_size": ("FeatureVectorizer", {"inputdimensions": [MOST]}),
    "words_of_escapes": ("DictVectorizer", {"string_vocabulary": ["\x1b[31m"]}),
}  # fmt: skip
for name, (op, attributes) in CLASSIC.items():

    def make(op=op, attributes=attributes):
        return classic(op, 2 if "Classifier" in op else 1, **attributes)

    make.__name__ = name
    model("")(make)
