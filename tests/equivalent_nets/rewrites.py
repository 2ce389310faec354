"""The table of rewrites: what is done to a network that computes the same afterwards, and how much a merge may keep.

A merge of a network with a rewritten and permuted copy of itself gives the network back, at every lambda. Layers may be
kept where the row says so: they are the base's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NOTHING: tuple[str, ...] = ()
LAYER = ("@/*",)  # what is stored of the layers where it was applied
NORMS = ("*/norm.*",)  # vectors of normalisations: two in a row are one layer
FOLDED = ("@/norm.*", "@/bias")  # what a layer's one bias and weight settle where a BatchNormalization is folded
BIAS = ("@/bias",)
ANYTHING = ("*",)

DENSE = ("mlp", "image_mlp", "two_inputs", "tokens", "residual_mlp", "several_outputs", "patch_mlp", "narrow_mlp")
IMAGES = ("cnn", "cnn_flat", "cnn_concat", "residual_cnn", "grouped_cnn")
SEQUENCES = ("transformer",)
LINEAR = (*DENSE, "gated", "layer_norm_mlp")
ALL = (*LINEAR, *IMAGES, *SEQUENCES)


@dataclass(frozen=True)
class Rewrite:
    """One way to write the same function otherwise.

    Attributes:
        what: what is done, in words.
        families: where it applies.
        may_keep: patterns of "layer/role" that a merge may keep where the donor is written so; "@" stands for the
            layers where the rewrite was applied.
        base_may_keep: the same where the base is written so.
        beside_may_keep: the same where another rewrite than of the units stands beside it.
        sides: how often donor, base and both are written so.
        traits: what the network is drawn for, on both sides.
        group: rewrites of one group are not combined.
        may_refuse: whether the merge may be refused.
    """

    what: str
    families: tuple[str, ...] = ALL
    may_keep: tuple[str, ...] = NOTHING
    base_may_keep: tuple[str, ...] | None = None
    beside_may_keep: tuple[str, ...] | None = None
    sides: tuple[float, float, float] = (0.5, 0.3, 0.2)
    traits: tuple[str, ...] = ()
    group: str = ""
    may_refuse: bool = False

    def kept(self, *, is_in_base: bool, is_beside: bool) -> tuple[str, ...]:
        """What may be kept where the base, or the donor alone, is written so, with other rewrites or without."""
        if is_beside and self.beside_may_keep is not None:
            return self.beside_may_keep
        return self.base_may_keep if is_in_base and self.base_may_keep is not None else self.may_keep


BOTH = (0.0, 0.0, 1.0)
DONOR = (1.0, 0.0, 0.0)
NO_PERMUTATION = {"may_keep": ANYTHING, "sides": DONOR, "group": "another basis", "may_refuse": True}
VALUES = "values"  # rewrites that need weights of certain values
MASKED = {"beside_may_keep": ANYTHING, "group": VALUES}

REWRITES: Mapping[str, Rewrite] = {
    "units_permuted": Rewrite("hidden units, channels, heads and groups of channels in another order", sides=DONOR),
    # --- the order of what goes in and comes out
    "concat_order": Rewrite("parts concatenated in another order", ("two_inputs", "cnn_concat")),
    "feature_gather": Rewrite(
        "features gathered in another order",
        ("mlp", "two_inputs", "residual_mlp", "several_outputs", "gated", "layer_norm_mlp", "narrow_mlp"),
        group="features",
    ),
    "feature_selection": Rewrite(
        "some features selected, in another order",
        ("mlp", "residual_mlp", "several_outputs", "gated", "narrow_mlp"),
        traits=("selected",),
        group="features",
    ),
    "channel_swap": Rewrite("channels of the image in another order", (*IMAGES, "image_mlp", "patch_mlp")),
    "input_transposed": Rewrite("the image transposed before it is flattened", ("image_mlp",)),
    "flatten_transposed": Rewrite("the feature map transposed before it is flattened", ("cnn_flat",)),
    "patch_order": Rewrite("pixels of each patch in another order", ("patch_mlp", "transformer"), traits=("images",)),
    "tokens_remapped": Rewrite(
        "token ids mapped by a stored table", ("tokens", "transformer"), traits=("tokens",), group="tokens"
    ),
    "tokens_shifted": Rewrite(
        "a constant added to token ids",
        ("tokens", "transformer"),
        may_keep=(*LAYER, "norm0/*"),  # the table, and the normalisation of its rows
        traits=("tokens",),
        group="tokens",
    ),
    "output_reordered": Rewrite("columns of an output put in order behind the head"),
    # Of what is listed in another order under other names nothing says which is which.
    "inputs_listed": Rewrite("inputs listed in another order", ("two_inputs",), group="signature"),
    "outputs_listed": Rewrite(
        "outputs listed in another order",
        ("several_outputs",),
        beside_may_keep=("head*/*", "own*/*"),  # heads that are written otherwise may be taken for one another
        group="signature",
    ),
    "signature_renamed": Rewrite("inputs and outputs with other names", sides=DONOR, group="signature"),
    # --- how weights are stored
    "equal_vectors_shared": Rewrite(
        "tensors of equal values stored once", traits=("equal_vectors",), sides=(0.3, 0.3, 0.4)
    ),
    "constant_nodes": Rewrite("weights in Constant nodes"),
    "weights_among_inputs": Rewrite("weights listed among the inputs"),
    "weights_transposed": Rewrite("weights stored in another order of axes, behind a Transpose"),
    "weights_concatenated": Rewrite("a weight stored in two parts"),
    "weights_joined": Rewrite(
        "several layers in one stored weight", ("gated", "transformer"), may_keep=LAYER, group=VALUES
    ),
    "weights_in_half": Rewrite("weights in half precision behind a Cast", traits=("half",), group=VALUES),
    "int8_dequantized": Rewrite(
        "weights as int8 behind DequantizeLinear",
        base_may_keep=ANYTHING,  # integers hold the order of the units beside them, and so of all that read these
        traits=("whole_multiples",),
        group=VALUES,
    ),
    "int8_cast_scale": Rewrite(
        "weights as int8, cast and multiplied", base_may_keep=ANYTHING, traits=("whole_multiples",), group=VALUES
    ),
    "palette": Rewrite("weights as indices of a codebook", base_may_keep=ANYTHING, traits=("palette",), group=VALUES),
    # A masked weight is computed: no norm and no factor is folded into it, and it says less of which branch is which.
    "float_mask": Rewrite("weights times a mask of floats", sides=BOTH, traits=("masked",), **MASKED),
    "boolean_mask": Rewrite("weights chosen by a boolean mask", sides=BOTH, traits=("masked",), **MASKED),
    "mask_on_one_side": Rewrite(
        "a mask on one side, stored zeros on the other",
        may_keep=(*LAYER, "attention.*/*"),  # of three layers alike one is masked
        sides=(0.5, 0.5, 0.0),
        traits=("masked",),
        **MASKED,
    ),
    # --- how operators are written
    "batchnorm_folded": Rewrite(
        "BatchNormalization folded into the layer before it",
        ("mlp", "image_mlp", "two_inputs", "residual_mlp", *IMAGES),
        may_keep=FOLDED,
        sides=(0.5, 0.5, 0.0),
        traits=("norms",),
    ),
    "other_epsilon": Rewrite(
        "another epsilon, the variance to match",
        ("mlp", "residual_mlp", *IMAGES),
        traits=("norms", "small_variance"),
    ),
    "linear_forms": Rewrite("Gemm with other attributes, MatMul and Add", LINEAR),
    "bias_absent": Rewrite("a bias of zero left out", may_keep=BIAS, traits=("zero_biases", "no_norms")),
    "local_function": Rewrite("linear layers as a function of the model", LINEAR),
    "activation_forms": Rewrite("activations by other operators", traits=("rewritable",), families=(*DENSE, *IMAGES)),
    "pool_forms": Rewrite("the mean over an image by other operators", ("cnn", "cnn_concat", "residual_cnn")),
    "norm_forms": Rewrite(
        "LayerNormalization in single operators",
        ("layer_norm_mlp", "transformer"),
        may_keep=NORMS,
    ),
    "attention_scale_forms": Rewrite("the scale of attention applied elsewhere", SEQUENCES),
    "reshape_forms": Rewrite("Reshape or Squeeze for Flatten", (*IMAGES, "image_mlp")),
    "operators_without_effect": Rewrite("Identity, Dropout or Cast inserted", (*DENSE, *IMAGES)),
    "opset": Rewrite("another opset"),
    "nodes_reordered": Rewrite("operators listed in another order"),
    "names_changed": Rewrite("tensors with other names"),
    # --- what reads the order of classes
    "argmax_beside": Rewrite("ArgMax of the logits beside them", sides=BOTH, traits=("class_beside",), group="beside"),
    "topk_beside": Rewrite("TopK of the logits beside them", sides=BOTH, traits=("top_beside",), group="beside"),
    # --- nested permutations
    "units_in_blocks": Rewrite(
        "units inside of heads and of groups of channels in another order",
        ("transformer", "grouped_cnn"),
        may_keep=ANYTHING,  # such units are not assigned, and in the smallest nets the others by chance then
        sides=DONOR,
    ),
    # --- no permutations
    "units_rescaled": Rewrite(
        "units scaled by positive factors",
        ("mlp", "cnn", "residual_mlp"),
        traits=("homogeneous", "no_norms"),
        **NO_PERMUTATION,
    ),
    "unit_split": Rewrite("a unit twice, half of it each", ("mlp", "cnn"), traits=("no_norms",), **NO_PERMUTATION),
    "units_rotated": Rewrite("units of a linear bottleneck rotated", ("narrow_mlp",), **NO_PERMUTATION),
}
