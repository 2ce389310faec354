"""Families of small networks, written through a `Writer`: each draws an architecture and writes it."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from equivalent_nets import layers
from equivalent_nets.layers import (
    activation,
    add,
    attention,
    bottleneck,
    concat,
    conv,
    embedding,
    flatten,
    head,
    image_input,
    layer_norm,
    linear,
    linears,
    max_pooled,
    mean_of_rows,
    patches,
    pooled,
    vector_input,
)
from equivalent_nets.writer import Value, Writer

ACTIVATIONS = ("Relu", "Relu", "LeakyRelu", "Tanh", "Clip", "Swish")


def kind_of(w: Writer) -> str:
    """An activation; one through which factors pass, or one that can be written otherwise, where that is wanted."""
    kind = w.one_of(ACTIVATIONS)
    if "homogeneous" in w.traits and kind not in layers.HOMOGENEOUS:
        return "LeakyRelu"
    return "Clip" if "rewritable" in w.traits and kind not in layers.OTHER_FORMS else kind


def has_norm(w: Writer) -> bool:
    """Whether a layer has a BatchNormalization behind it."""
    return (w.below(0, 3) == 0 or "norms" in w.traits) and "no_norms" not in w.traits


def hidden(w: Writer, x: Value, depth: int, name: str = "fc", *, norm: bool = True) -> Value:
    """Fully connected layers with activations."""
    for i in range(depth):
        key, units, kind = f"{name}{i}", w.width(), kind_of(w)
        norms = has_norm(w) and norm
        x = activation(w, linear(w, x, key, units, key, norm=norms, free=kind), kind)
    return x


def mlp(w: Writer) -> None:
    """Fully connected layers on a vector."""
    x = vector_input(w, "x", w.below(5, 8))
    head(w, hidden(w, x, w.below(1, 3)), "head", w.below(3, 5), "y")


def image_mlp(w: Writer) -> None:
    """Fully connected layers on a flattened image."""
    x = image_input(w, "x", (w.below(2, 3), w.below(2, 3), w.below(2, 4)))
    x = flatten(w, x, "input_transposed")
    head(w, hidden(w, x, w.below(1, 2)), "head", 3, "y")


def conv_block(w: Writer, x: Value, key: str, **options) -> Value:
    """Convolution and activation, with or without a BatchNormalization."""
    units, kind, norm = w.width(4, 7), kind_of(w), has_norm(w)
    return activation(w, conv(w, x, key, units, key, norm=norm, free=kind, **options), kind)


def cnn(w: Writer) -> None:
    """Convolutions and a linear layer behind the mean over the image."""
    x = image_input(w, "x", (3, 6, 6))
    x = conv_block(w, x, "conv0")
    x = max_pooled(w, x) if w.below(0, 1) else x
    x = conv_block(w, x, "conv1", kernel=w.one_of((1, 3)))
    head(w, pooled(w, x), "head", 4, "y")


def cnn_flat(w: Writer) -> None:
    """Convolutions and a linear layer on the flattened feature map."""
    x = image_input(w, "x", (w.below(2, 3), 4, 4 + 2 * w.below(0, 1)))
    x = max_pooled(w, conv_block(w, x, "conv0"))
    x = conv_block(w, x, "conv1") if w.below(0, 1) else x
    x = hidden(w, flatten(w, x), w.below(0, 1), norm=False)
    head(w, x, "head", 3, "y")


def cnn_concat(w: Writer) -> None:
    """Branches of convolutions that are concatenated."""
    x = conv_block(w, image_input(w, "x", (3, 5, 5)), "conv0")
    branches = [conv_block(w, x, f"branch{i}", kernel=kernel) for i, kernel in enumerate((1, 3))]
    x = concat(w, [x, *branches] if w.below(0, 1) else branches)
    head(w, pooled(w, conv_block(w, x, "join", kernel=1)), "head", 4, "y")


def two_inputs(w: Writer) -> None:
    """Two inputs, or what branches make of them, concatenated."""
    same = w.below(0, 1)
    first = w.below(3, 5)
    parts = [vector_input(w, "age", first), vector_input(w, "img", first if same else w.below(3, 5))]
    for i in range(2):
        if w.below(0, 2) == 0:
            parts[i] = hidden(w, parts[i], 1, f"branch{i}_")
    head(w, hidden(w, concat(w, parts), w.below(1, 2)), "head", 3, "y")


def tokens(w: Writer) -> None:
    """Embedded tokens, their mean or all of them, and fully connected layers."""
    length, vocabulary, units = w.below(3, 4), w.below(9, 12), w.width(4, 7)
    ids = layers.declared(w, "ids", (length,), TensorProto.INT64)
    x = embedding(w, ids, "embedding", vocabulary, units, "embedding")
    x = mean_of_rows(w, x) if w.below(0, 1) else flatten(w, x)
    head(w, hidden(w, x, w.below(1, 2)), "head", 3, "y")


def residual_mlp(w: Writer) -> None:
    """Fully connected blocks with skip connections."""
    units = w.width(5, 8)
    x = linear(w, vector_input(w, "x", 6), "stem", units, "stream")
    for i in range(w.below(1, 2)):
        inner, kind = w.width(), kind_of(w)
        y = activation(w, linear(w, x, f"block{i}.a", inner, f"block{i}", norm=has_norm(w), free=kind), kind)
        x = add(w, x, linear(w, y, f"block{i}.b", units, "stream"))
    head(w, x, "head", 3, "y")


def residual_cnn(w: Writer) -> None:
    """Convolutional blocks with skip connections."""
    units = w.width(4, 6)
    x = image_input(w, "x", (3, 5, 5))
    x = activation(w, conv(w, x, "stem", units, "stream", norm=has_norm(w)), "Relu")
    inner, kind = w.width(4, 6), kind_of(w)
    y = activation(w, conv(w, x, "block.a", inner, "block", norm=has_norm(w), free=kind), kind)
    x = add(w, x, conv(w, y, "block.b", units, "stream", norm=has_norm(w)))
    head(w, pooled(w, activation(w, x, "Relu")), "head", 4, "y")


def grouped_cnn(w: Writer) -> None:
    """A depthwise or grouped convolution between two plain ones."""
    group, size = w.one_of(((2, 3), (3, 2), (5, 1), (6, 1)))
    units, kind = group * size, kind_of(w)
    moving = {"blocks": ("blocks", group), "inside": layers.moves_inside(w, "conv0", "grouped", "conv1")}
    x = image_input(w, "x", (3, 5, 5))
    x = activation(w, conv(w, x, "conv0", units, "first", norm=has_norm(w), **moving), kind)
    out = group * w.one_of((1, 2))
    x = conv(w, x, "grouped", out, "second", norm=has_norm(w), group=group, **moving)
    x = conv_block(w, activation(w, x, kind), "conv1", kernel=1)
    head(w, pooled(w, x), "head", 4, "y")


def sequence(w: Writer) -> Value:
    """A sequence of vectors: tokens that are embedded, or patches of an image."""
    units = w.one_of((6, 8))
    if (w.below(0, 1) and "images" not in w.traits) or "tokens" in w.traits:
        ids = layers.declared(w, "ids", (4,), TensorProto.INT64)
        return embedding(w, ids, "embedding", 9, units, "stream")
    x = patches(w, image_input(w, "x", (w.below(1, 3), 4, 4)), 2)
    return linear(w, x, "patches", units, "stream")


def transformer(w: Writer) -> None:
    """Attention and a fully connected block, with skip connections and normalisation."""
    x = sequence(w)
    units, heads, is_first = x.plain[-1], w.one_of((1, 2, 3)), w.below(0, 1)
    y = layer_norm(w, x, "norm0") if is_first else x
    x = add(w, x, attention(w, y, "attention", heads, w.below(2, 3), "stream"))
    x = x if is_first else layer_norm(w, x, "norm0")
    if w.below(0, 1):
        inner, kind = w.width(5, 8), kind_of(w)
        y = activation(w, linear(w, layer_norm(w, x, "norm1"), "mlp.a", inner, "mlp", free=kind), kind)
        x = add(w, x, linear(w, y, "mlp.b", units, "stream"))
    head(w, mean_of_rows(w, x), "head", 3, "y")


def layer_norm_mlp(w: Writer) -> None:
    """Fully connected layers with a normalisation of each vector between them."""
    x = vector_input(w, "x", 6)
    for i in range(w.below(1, 2)):
        x = linear(w, x, f"fc{i}", w.width(5, 8), f"fc{i}")
        x = activation(w, layer_norm(w, x, f"norm{i}"), kind_of(w))
    head(w, x, "head", 3, "y")


def several_outputs(w: Writer) -> None:
    """Two or three heads on a trunk, one of them perhaps with a layer of its own."""
    trunk = hidden(w, vector_input(w, "x", w.below(5, 7)), w.below(1, 2))
    head(w, trunk, "head0", 3, "y")
    own = hidden(w, trunk, w.below(0, 1), "own")
    head(w, own, "head1", w.one_of((3, 4)), "z")
    if w.below(0, 1):
        head(w, trunk, "head2", 2, "u")


def patch_mlp(w: Writer) -> None:
    """Patches of an image, each through the same layer, and their mean."""
    x = patches(w, image_input(w, "x", (w.below(1, 3), 4, 4)), 2)
    kind = kind_of(w)
    x = activation(w, linear(w, x, "patches", w.width(), "patches", free=kind), kind)
    head(w, hidden(w, mean_of_rows(w, x), w.below(0, 1)), "head", 3, "y")


def gated(w: Writer) -> None:
    """The product of two layers, one of them through a sigmoid."""
    x = hidden(w, vector_input(w, "x", 6), w.below(0, 1))
    units = w.width(5, 8)
    order = w.order("gate", units)
    a, b = linears(w, x, [("gate", units, order), ("value", units, order)])
    product = w.op("Mul", activation(w, a, "Sigmoid").name, b.name)
    head(w, Value(product, a.labels, a.plain, np.ones(a.shape, np.float32)), "head", 3, "y")


def narrow_mlp(w: Writer) -> None:
    """Fully connected layers with a linear bottleneck between them."""
    x = hidden(w, vector_input(w, "x", 6), 1)
    x = activation(w, bottleneck(w, x, "bottleneck", w.below(3, 4), w.width()), kind_of(w))
    head(w, x, "head", 3, "y")


FAMILIES: dict[str, Callable[[Writer], None]] = {
    family.__name__: family
    for family in (
        mlp,
        image_mlp,
        cnn,
        cnn_flat,
        cnn_concat,
        two_inputs,
        tokens,
        residual_mlp,
        residual_cnn,
        grouped_cnn,
        transformer,
        layer_norm_mlp,
        several_outputs,
        patch_mlp,
        gated,
        narrow_mlp,
    )
}
