"""Layers as the families use them, each with the ways in which it can be written."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from equivalent_nets.writer import CODES, Floats, Ints, Matrix, Value, Writer

EPSILON = 1e-5
HOMOGENEOUS = ("Relu", "LeakyRelu")  # a positive factor passes through them


def value(name: str, plain: Sequence[int]) -> Value:
    """A tensor whose places are in plain order."""
    plain = tuple(plain)
    return Value(name, np.arange(int(np.prod(plain))).reshape(plain), plain, np.ones(plain, np.float32))


def moved(x: Value, name: str, move, plain: Sequence[int] | None = None) -> Value:
    """A tensor made by moving the places of `x`; `move` does the same to an array."""
    return Value(name, move(x.labels), tuple(plain or x.plain), move(x.share))


def along(name: str, order: Ints, plain: Sequence[int], axis: int, share: Floats | None = None) -> Value:
    """A tensor with one axis in an order of its own."""
    labels = np.arange(int(np.prod(plain))).reshape(plain).take(order, axis)
    shares = np.ones(labels.shape, np.float32)
    if share is not None:
        shares *= share.reshape([-1 if i == axis else 1 for i in range(labels.ndim)])
    return Value(name, labels, tuple(plain), shares)


# --- what a model takes and gives ------------------------------------------------------------------------------------


def vector_input(w: Writer, name: str, features: int) -> Value:
    """An input of so many features, or of those that are selected of more."""
    offered = features + (3 if "selected" in w.traits else 0)
    x = declared(w, name, (offered,))
    if offered > features:
        chosen = np.sort(w.architecture.permutation(offered)[:features])
        turn = w.shuffled(features) if w.does("feature_selection") else np.arange(features)
        return along(w.op("Gather", x.name, w.ints(*chosen[turn]), axis=1), turn, (features,), 0)
    if w.does("feature_gather"):
        turn = w.shuffled(features)
        return along(w.op("Gather", x.name, w.ints(*turn), axis=1), turn, (features,), 0)
    return x


def image_input(w: Writer, name: str, shape: tuple[int, int, int]) -> Value:
    """An image, its channels perhaps in another order."""
    x = declared(w, name, shape)
    return reordered(w, x, w.shuffled(shape[0])) if w.does("channel_swap") else x


def declared(w: Writer, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> Value:
    w.inputs.append(helper.make_tensor_value_info(name, kind, ["N", *shape]))
    return value(name, shape)


def reordered(w: Writer, x: Value, order: Ints) -> Value:
    """The places of the first axis behind the batch in another order: this one, or the reverse where it is a slice."""
    how = w.pick(("gather", "split", "slice"))
    return in_order(w, x, order, how)


def in_order(w: Writer, x: Value, order: Ints, how: str) -> Value:
    """The places of the first axis behind the batch in this order, or in the reverse one by a slice."""
    if how == "slice":
        name = w.op("Slice", x.name, w.ints(-1), w.ints(-(2**31)), w.ints(1), w.ints(-1))
        return moved(x, name, lambda places: places[::-1])
    if how == "split":
        parts = w.op("Split", x.name, w.ints(*[1] * len(order)), outputs=len(order), axis=1)
        parts = [parts] if isinstance(parts, str) else parts
        name = w.op("Concat", *[parts[i] for i in order], axis=1)
    else:
        name = w.op("Gather", x.name, w.ints(*order), axis=1)
    return moved(x, name, lambda places: places.take(order, 0))


def embedding(w: Writer, ids: Value, key: str, vocabulary: int, units: int, space: str) -> Value:
    """Rows of a table by the ids of a sequence."""
    table, order, name = w.weight(key, (vocabulary, units)).values, w.order(space, units), ids.name
    if w.does("tokens_remapped", key):
        rows = w.shuffled(vocabulary)  # id i reads row rows[i]
        table, name = table[np.argsort(rows)], w.op("Gather", w.ints(*rows), name, axis=0)
    elif w.does("tokens_shifted", key):
        more = w.pick((1, 2, 3))
        above = w.rng.standard_normal((more, units)).astype(np.float32)
        table, name = np.concatenate([above, table]), w.op("Add", name, w.ints(more))
    stored = w.store(table[:, order], f"{key}/weight")
    return along(w.op("Gather", stored, name, axis=0), order, (*ids.plain, units), len(ids.plain))


def output(w: Writer, x: Value, name: str, kind: int = TensorProto.FLOAT) -> None:
    """Make a tensor an output; its places are in plain order."""
    w.nodes.append(helper.make_node("Identity", [x.name], [name], name=f"to_{name}"))
    w.outputs.append(helper.make_tensor_value_info(name, kind, ["N", *x.plain]))


def head(w: Writer, x: Value, key: str, classes: int, name: str) -> None:
    """A linear layer whose units are the columns of an output, stored perhaps in another order."""
    if w.does("output_reordered", key):
        stored = w.shuffled(classes)
        if w.pick((True, False)):
            y = in_order(w, linear(w, x, key, classes, np.arange(classes)[::-1]), stored, "slice")
        else:
            y = linear(w, x, key, classes, stored)
            y = in_order(w, y, np.argsort(stored), w.pick(("gather", "split")))
    else:
        y = linear(w, x, key, classes, "")
    if "class_beside" in w.traits:
        w.does("argmax_beside", key)
        output(w, value(w.op("ArgMax", y.name, axis=1, keepdims=0), ()), f"{name}_class", TensorProto.INT64)
    if "top_beside" in w.traits:
        w.does("topk_beside", key)
        top, places = w.op("TopK", y.name, w.ints(2), outputs=2, axis=1)
        output(w, value(top, (2,)), f"{name}_top")
        output(w, value(places, (2,)), f"{name}_places", TensorProto.INT64)
    output(w, y, name)


# --- stored weights --------------------------------------------------------------------------------------------------


def weight(w: Writer, key: str, matrix: Matrix, units_axis: int = 0, role: str = "weight") -> str:
    """A weight by name: stored, or made of what is stored."""
    place, values = f"{key}/{role}", matrix.values
    around = [-1 if axis == units_axis else 1 for axis in range(values.ndim)]
    if matrix.mask is not None:
        return masked_weight(w, key, matrix, place)
    if matrix.scale is not None:
        whole = np.round(values / matrix.scale.reshape(around)).astype(np.int8)
        if w.does("int8_dequantized", key):
            zero = [w.store(np.zeros(len(matrix.scale), np.int8))] if w.pick((True, False)) else []
            parts = (w.store(whole), w.store(matrix.scale, f"{key}/scale"), *zero)
            return w.op("DequantizeLinear", *parts, axis=units_axis)
        if w.does("int8_cast_scale", key):
            floats = w.op("Cast", w.store(whole), to=TensorProto.FLOAT)
            return w.op("Mul", floats, w.store(matrix.scale.reshape(around), f"{key}/scale"))
    if matrix.is_palette and w.does("palette", key):
        codes, places = np.unique(values, return_inverse=True)
        if len(codes) <= CODES:
            turn = w.shuffled(len(codes))
            stored = w.store(codes[turn], f"{key}/palette")
            return w.op("Gather", stored, w.store(np.argsort(turn)[places].reshape(values.shape).astype(np.int64)))
    if matrix.is_half and w.does("weights_in_half", key):
        return w.op("Cast", w.store(values.astype(np.float16), place), to=TensorProto.FLOAT)
    if w.does("weights_transposed", key):
        turn = w.shuffled(values.ndim)
        stored = w.store(values.transpose(turn), place)
        return w.op("Transpose", stored, perm=[int(axis) for axis in np.argsort(turn)])
    axis = int(w.rng.integers(values.ndim))
    if values.shape[axis] > 1 and w.does("weights_concatenated", key):
        parts = np.split(values, [1 + int(w.rng.integers(values.shape[axis] - 1))], axis)
        return w.op("Concat", *[w.store(part, place) for part in parts], axis=axis)
    return w.store(values, place)


def masked_weight(w: Writer, key: str, matrix: Matrix, place: str) -> str:
    """A weight with entries that are held at zero: by a mask of floats or of booleans, or because zero is stored."""
    hidden, mask = matrix.hidden, matrix.mask
    assert hidden is not None
    assert mask is not None
    if w.does("mask_on_one_side", key) or w.does("float_mask", key, on_both=True):
        return w.op("Mul", w.store(hidden, place), w.store(mask.astype(np.float32)))
    if w.does("boolean_mask", key, on_both=True):
        return w.op("Where", w.store(mask), w.store(hidden, place), w.number(0.0))
    return w.store(matrix.values, place)


# --- contractions ----------------------------------------------------------------------------------------------------


def linear(
    w: Writer,
    x: Value,
    key: str,
    units: int,
    space: str | Ints,
    *,
    norm: bool = False,
    free: str = "",
) -> Value:
    """A linear layer with a bias on the last axis, with a BatchNormalization behind it if `norm`.

    Args:
        space: whose order its units stand in, or the order.
        free: the activation behind it, if nothing but layers that read its units as features comes behind that; units
            may then be scaled or stand twice.
    """
    order = w.order(space, units) if isinstance(space, str) else space
    matrix, bias = w.weight(key, (units, x.plain[-1])), w.vector(f"{key}/bias", units)
    vectors = w.norm_vectors(key, units) if norm else []
    if norm and w.does("batchnorm_folded", key):
        matrix, bias, vectors = *folded(matrix, bias, vectors), []
    order, share = changed_units(w, key, order, free, norm=bool(vectors))
    places, shares = x.features()
    matrix = matrix.taken(order, 0).taken(places, 1).times(1 / shares).times(share[:, None])
    name = linear_operators(w, key, x.name, len(x.shape), matrix, bias[order] * share)
    y = along(name, order, (*x.plain[:-1], units), len(x.plain) - 1, share * repeats(order))
    y = y if len(x.shape) == 1 else rows_like(x, y)
    return normalised(w, key, y, [vector[order] for vector in vectors])


def rows_like(x: Value, y: Value) -> Value:
    """The output of a linear layer on a sequence, its rows in the sequence's order."""
    rows = x.labels[..., 0] // x.plain[-1]
    flat = y.labels.reshape(-1, y.shape[-1])[rows.ravel()]
    return replace(y, labels=flat.reshape(y.shape))


def repeats(order: Ints) -> Floats:
    """How often the unit at each place is there."""
    return np.array([(order == unit).sum() for unit in order], np.float32)


def changed_units(w: Writer, key: str, order: Ints, free: str, *, norm: bool) -> tuple[Ints, Floats]:
    """The order and the factor of units where they may be scaled or stand twice."""
    ones = np.ones(len(order), np.float32)
    if not free or norm:
        return order, ones
    if w.does("unit_split", key):
        return np.insert(order, int(w.rng.integers(len(order))), w.pick(list(order))), np.ones(len(order) + 1, "f4")
    if free in HOMOGENEOUS and w.does("units_rescaled", key):
        return order, w.rng.uniform(0.4, 2.5, len(order)).astype(np.float32)
    return order, ones


def linear_operators(w: Writer, key: str, x: str, rank: int, matrix: Matrix, bias: Floats) -> str:
    """The operators of a linear layer."""
    has_bias = bias.any() or not w.does("bias_absent", key)
    place = f"{key}/bias"
    if rank == 1 and has_bias and w.does("local_function", key):
        body = [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
        opset = [helper.make_opsetid("", w.opset)]
        w.functions = [helper.make_function("local", "Dense", ["x", "w", "b"], ["y"], body, opset)]
        return w.op("Dense", x, weight(w, key, matrix.turned((1, 0)), 1), w.store(bias, place), domain="local")
    form = "gemm" if rank == 1 else "matmul"
    alpha = beta = 1.0
    if w.does("linear_forms", key):
        form = w.pick(("gemm_nt", "scaled", "matmul", "add_first") if rank == 1 else ("add_first", "transposed"))
    if form == "scaled":
        alpha, beta = 0.5, 2.0
    if form in ("gemm", "scaled"):
        biases = [w.store(bias / np.float32(beta), place)] if has_bias else []
        stored = weight(w, key, matrix.times(1 / alpha))
        return w.op("Gemm", x, stored, *biases, transB=1, alpha=alpha, beta=beta)
    if form == "gemm_nt":
        biases = [w.store(bias, place)] if has_bias else []
        return w.op("Gemm", x, weight(w, key, matrix.turned((1, 0)), 1), *biases)
    if form == "transposed":
        y = w.op("MatMul", x, w.op("Transpose", weight(w, key, matrix), perm=[1, 0]))
    else:
        y = w.op("MatMul", x, weight(w, key, matrix.turned((1, 0)), 1))
    if not has_bias:
        return y
    stored = w.store(bias, place)
    return w.op("Add", *((stored, y) if form == "add_first" else (y, stored)))


def linears(w: Writer, x: Value, several: Sequence[tuple[str, int, Ints]]) -> list[Value]:
    """Linear layers that read the same tensor: one by one, or with one stored weight for all."""
    keys = [key for key, _, _ in several]
    if not w.does("weights_joined", keys[0]):
        return [linear(w, x, key, units, order) for key, units, order in several]
    w.applied["weights_joined"].update(keys)
    places, shares = x.features()
    drawn = [w.weight(key, (units, x.plain[-1])).values[order][:, places] / shares for key, units, order in several]
    bias = np.concatenate([w.vector(f"{key}/bias", units)[order] for key, units, order in several])
    sizes = [units for _, units, _ in several]
    joined = np.concatenate(drawn).T.astype(np.float32)
    stored = w.store(joined, f"{keys[0]}/weight")
    if w.pick((True, False)):  # the weight is cut
        parts = w.op("Split", stored, w.ints(*sizes), outputs=len(sizes), axis=1)
        biases = np.split(bias, np.cumsum(sizes)[:-1])
        names = [
            w.op("Add", w.op("MatMul", x.name, part), w.store(b, f"{key}/bias"))
            for part, b, key in zip(parts, biases, keys, strict=True)
        ]
    else:  # what it gives is cut
        y = w.op("Add", w.op("MatMul", x.name, stored), w.store(bias, f"{keys[0]}/bias"))
        if w.pick((True, False)):
            names = w.op("Split", y, w.ints(*sizes), outputs=len(sizes), axis=-1)
        else:
            ends = np.cumsum([0, *sizes])
            names = [w.op("Slice", y, w.ints(a), w.ints(b), w.ints(-1)) for a, b in itertools.pairwise(ends)]
    outputs = []
    for name, (_, units, order) in zip(names, several, strict=True):
        y = along(name, order, (*x.plain[:-1], units), len(x.plain) - 1)
        outputs.append(y if len(x.shape) == 1 else rows_like(x, y))
    return outputs


def conv(
    w: Writer,
    x: Value,
    key: str,
    units: int,
    space: str,
    *,
    kernel: int = 3,
    group: int = 1,
    norm: bool = False,
    free: str = "",
    blocks: tuple[str, int] | None = None,
    inside: bool = True,
) -> Value:
    """A convolution that keeps the image's size; with groups, its units and those it reads move in blocks."""
    order = w.order(space, units, blocks, inside=inside)
    inputs = x.plain[0] // group
    matrix, bias = w.weight(key, (units, inputs, kernel, kernel)), w.vector(f"{key}/bias", units)
    vectors = w.norm_vectors(key, units) if norm else []
    if norm and w.does("batchnorm_folded", key):
        matrix, bias, vectors = *folded(matrix, bias, vectors), []
    order, share = changed_units(w, key, order, "" if group > 1 else free, norm=bool(vectors))
    channels, shares = x.channels()
    if group == 1:
        matrix = matrix.taken(channels, 1).times(1 / shares[:, None, None]).taken(order, 0)
    else:
        matrix = grouped(matrix, order, channels, group)
    matrix = matrix.times(share[:, None, None, None])
    bias = bias[order] * share
    biases = [w.store(bias, f"{key}/bias")] if bias.any() or not w.does("bias_absent", key) else []
    pads = [kernel // 2] * 4
    name = w.op("Conv", x.name, weight(w, key, matrix), *biases, kernel_shape=[kernel] * 2, pads=pads, group=group)
    y = along(name, order, (units, *x.plain[1:]), 0, share * repeats(order))
    return normalised(w, key, y, [vector[order] for vector in vectors])


def grouped(matrix: Matrix, order: Ints, channels: Ints, group: int) -> Matrix:
    """The weight of a grouped convolution for units and channels that stand in these orders, block by block."""
    units, inputs = len(order) // group, len(channels) // group
    rows = []
    for place, unit in enumerate(order):
        block = place // units
        mine = channels[block * inputs : (block + 1) * inputs] % inputs
        rows.append(matrix.taken(np.array([unit]), 0).taken(mine, 1))
    arrays = {
        name: None if getattr(matrix, name) is None else np.concatenate([getattr(row, name) for row in rows])
        for name in ("values", "mask", "hidden", "scale")
    }
    return replace(matrix, **arrays)


def folded(matrix: Matrix, bias: Floats, vectors: Sequence[Floats]) -> tuple[Matrix, Floats]:
    """A weight and a bias that do what a BatchNormalization behind them does."""
    scale, shift, mean, variance = vectors
    factor = scale / np.sqrt(variance + np.float32(EPSILON))
    around = factor.reshape(-1, *[1] * (matrix.values.ndim - 1))
    return matrix.times(around), ((bias - mean) * factor + shift).astype(np.float32)


def normalised(w: Writer, key: str, x: Value, vectors: Sequence[Floats]) -> Value:
    """BatchNormalization on vectors that stand in the order of `x`; `x` itself if there are none."""
    if not len(vectors):
        return x
    scale, shift, mean, variance = vectors
    epsilon = EPSILON
    if w.does("other_epsilon", key):
        epsilon = w.pick((1e-3, 1e-4))
        variance = variance + np.float32(EPSILON - epsilon)
    roles = zip(("scale", "shift", "mean", "variance"), (scale, shift, mean, variance), strict=True)
    stored = [w.store(vector.astype(np.float32), f"{key}/norm.{role}") for role, vector in roles]
    return replace(x, name=w.op("BatchNormalization", x.name, *stored, epsilon=epsilon))


# --- what has no weights ---------------------------------------------------------------------------------------------


def activation(w: Writer, x: Value, kind: str) -> Value:
    """An activation, followed perhaps by an operator that does nothing."""
    name = activation_operators(w, x.name, kind)
    if w.does("operators_without_effect"):
        how = w.pick(("Identity", "Dropout", "Cast"))
        name = w.op(how, name, **({"to": TensorProto.FLOAT} if how == "Cast" else {}))
    return replace(x, name=name)


def activation_operators(w: Writer, x: str, kind: str) -> str:
    written_otherwise = kind in OTHER_FORMS and w.does("activation_forms")
    if written_otherwise:
        return w.pick(OTHER_FORMS[kind])(w, x)
    if kind == "LeakyRelu":
        return w.op("LeakyRelu", x, alpha=0.1)
    if kind == "Clip":
        return w.op("Clip", x, w.number(-0.5), w.number(1.0))
    if kind == "Swish":
        return w.op("Mul", x, w.op("Sigmoid", x))
    return w.op(kind, x)


OTHER_FORMS = {
    "Relu": (
        lambda w, x: w.op("Max", x, w.number(0.0)),
        lambda w, x: w.op("Clip", x, w.number(0.0)),
        lambda w, x: w.op("LeakyRelu", x, alpha=0.0),
    ),
    "LeakyRelu": (
        lambda w, x: w.op("Max", x, w.op("Mul", x, w.number(0.1))),
        lambda w, x: w.op("Max", w.op("Mul", w.number(0.1), x), x),
        lambda w, x: w.op("Where", w.op("Greater", x, w.number(0.0)), x, w.op("Mul", x, w.number(0.1))),
    ),
    "Clip": (
        lambda w, x: w.op("Min", w.op("Max", x, w.number(-0.5)), w.number(1.0)),
        lambda w, x: w.op("Max", w.op("Min", x, w.number(1.0)), w.number(-0.5)),
    ),
    "Swish": (lambda w, x: w.op("Mul", w.op("Sigmoid", x), x),),
}


def add(w: Writer, x: Value, y: Value) -> Value:
    """A skip connection: both tensors are in the same order."""
    assert np.array_equal(x.labels, y.labels)
    return replace(x, name=w.op("Add", x.name, y.name))


def concat(w: Writer, parts: Sequence[Value]) -> Value:
    """Tensors joined along the first axis behind the batch, in plain order or another."""
    plain = (sum(part.plain[0] for part in parts), *parts[0].plain[1:])
    places = int(np.prod(plain[1:]))
    starts = np.cumsum([0, *[part.plain[0] * places for part in parts]])
    turn = w.shuffled(len(parts)) if w.does("concat_order") else np.arange(len(parts))
    labels = np.concatenate([parts[i].labels + starts[i] for i in turn])
    share = np.concatenate([parts[i].share for i in turn])
    return Value(w.op("Concat", *[parts[i].name for i in turn], axis=1), labels, plain, share)


def flatten(w: Writer, x: Value, rewrite: str = "flatten_transposed") -> Value:
    """All axes behind the batch as one, perhaps transposed before."""
    if len(x.shape) > 1 and max(x.shape[1:]) > 1 and w.does(rewrite):
        turn = [int(axis) for axis in w.shuffled(len(x.shape))]
        x = moved(x, w.op("Transpose", x.name, perm=[0, *[axis + 1 for axis in turn]]), lambda p: p.transpose(turn))
    size = int(np.prod(x.shape))
    if w.does("reshape_forms"):
        how = w.pick(("zero", "known"))
        name = w.op("Reshape", x.name, w.ints(*((0, -1) if how == "zero" else (-1, size))))
    else:
        name = w.op("Flatten", x.name, axis=1)
    return moved(x, name, np.ravel, (int(np.prod(x.plain)),))


def pooled(w: Writer, x: Value) -> Value:
    """The mean over an image, as a vector of channels."""
    channels, share = x.channels()
    how = w.pick(("mean", "mean_kept", "window")) if w.does("pool_forms") else "global"
    if how == "mean":
        return along(reduce_mean(w, x.name, (2, 3), 0), channels, x.plain[:1], 0, share)
    if how == "mean_kept":
        name = reduce_mean(w, x.name, (2, 3), 1)
    elif how == "window":
        name = w.op("AveragePool", x.name, kernel_shape=list(x.shape[1:]))
    else:
        name = w.op("GlobalAveragePool", x.name)
    small = along(name, channels, (x.plain[0], 1, 1), 0, share)
    if w.does("reshape_forms"):
        return moved(small, w.op("Squeeze", name, w.ints(2, 3)), np.ravel, x.plain[:1])
    return flatten(w, small)


def max_pooled(w: Writer, x: Value) -> Value:
    """The largest of every two by two places."""
    channels, share = x.channels()
    plain = (x.plain[0], x.plain[1] // 2, x.plain[2] // 2)
    name = w.op("MaxPool", x.name, kernel_shape=[2, 2], strides=[2, 2])
    return along(name, channels, plain, 0, share)


def reduce_mean(w: Writer, x: str, axes: Sequence[int], keepdims: int) -> str:
    if w.opset < 18:
        return w.op("ReduceMean", x, axes=list(axes), keepdims=keepdims)
    return w.op("ReduceMean", x, w.ints(*axes), keepdims=keepdims)


def mean_of_rows(w: Writer, x: Value) -> Value:
    """The mean over a sequence."""
    features, share = x.features()
    return along(reduce_mean(w, x.name, (1,), 0), features, x.plain[-1:], 0, share)


def layer_norm(w: Writer, x: Value, key: str) -> Value:
    """Normalisation of the last axis, as one operator or as many."""
    order, units = x.features()[0], x.plain[-1]
    rng = w.draws(f"{key}/norm")
    scale, shift = rng.uniform(0.6, 1.4, units).astype("f4")[order], rng.normal(0, 0.3, units).astype("f4")[order]
    scale, shift = w.store(scale, f"{key}/norm.scale"), w.store(shift, f"{key}/norm.shift")
    if w.opset < 17:  # older opsets have no such operator
        w.applied.setdefault("norm_forms", set()).add(key)
    elif not w.does("norm_forms", key):
        return replace(x, name=w.op("LayerNormalization", x.name, scale, shift, axis=-1, epsilon=1e-3))
    centred = w.op("Sub", x.name, reduce_mean(w, x.name, (-1,), 1))
    square = w.op("Pow", centred, w.number(2.0)) if w.pick((True, False)) else w.op("Mul", centred, centred)
    deviation = w.op("Sqrt", w.op("Add", reduce_mean(w, square, (-1,), 1), w.number(1e-3)))
    return replace(x, name=w.op("Add", w.op("Mul", w.op("Div", centred, deviation), scale), shift))


def patches(w: Writer, x: Value, side: int) -> Value:
    """An image as a sequence of flattened square patches."""
    channels, height, width = x.shape
    split = (channels, height // side, side, width // side, side)
    cut = w.op("Reshape", x.name, w.ints(0, *split))
    plain_turn = (1, 3, 0, 2, 4)
    turn = (1, 3, *w.pick(((2, 4, 0), (0, 4, 2), (4, 2, 0)))) if w.does("patch_order") else plain_turn
    rows = (height // side * (width // side), channels * side**2)
    name = w.op("Reshape", w.op("Transpose", cut, perm=[0, *[axis + 1 for axis in turn]]), w.ints(0, *rows))
    plain = np.arange(x.labels.size).reshape(split).transpose(plain_turn).ravel()
    labels = np.argsort(plain)[x.labels.reshape(split).transpose(turn).reshape(rows)]
    return Value(name, labels, rows, np.ones(rows, np.float32))


def moves_inside(w: Writer, *names: str) -> bool:
    """Whether units change places inside of their blocks, in these layers."""
    if not w.is_permuted or "units_in_blocks" not in w.active:
        return False
    w.applied.setdefault("units_in_blocks", set()).update(names)
    return True


def attention(w: Writer, x: Value, key: str, heads: int, size: int, space: str) -> Value:
    """Self-attention over a sequence, in plain operators."""
    units, length = heads * size, x.shape[0]
    inside = moves_inside(w, *[f"{key}.{part}" for part in "qkvo"])
    block = (f"{key}/heads", heads)
    with_scores = w.order(f"{key}/scores", units, block, inside=inside)
    with_values = w.order(f"{key}/values", units, block, inside=inside)
    parts = [(f"{key}.q", units, with_scores), (f"{key}.k", units, with_scores), (f"{key}.v", units, with_values)]
    q, k, v = (y.name for y in linears(w, x, parts))
    shape = w.ints(0, length, heads, size)
    turns = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (w.op("Transpose", w.op("Reshape", t, shape), perm=p) for t, p in zip((q, k, v), turns, strict=True))
    root = float(np.sqrt(size))
    if w.does("attention_scale_forms", key):
        how = w.pick(("before", "times", "both"))
        if how == "times":
            scores = w.op("Mul", w.op("MatMul", q, k), w.number(1 / root))
        elif how == "before":
            scores = w.op("MatMul", w.op("Mul", q, w.number(1 / root)), k)
        else:
            scores = w.op("MatMul", *(w.op("Mul", t, w.number(root**-0.5)) for t in (q, k)))
    else:
        scores = w.op("Div", w.op("MatMul", q, k), w.number(root))
    mixed = w.op("Transpose", w.op("MatMul", w.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    joined = along(w.op("Reshape", mixed, w.ints(0, length, units)), with_values, (length, units), 1)
    return linear(w, joined, f"{key}.o", x.plain[-1], space)


def bottleneck(w: Writer, x: Value, key: str, narrow: int, units: int) -> Value:
    """Two linear layers with few units between them and nothing that fixes the axes of these."""
    if not w.does("units_rotated", f"{key}.down"):
        down = linear(w, x, f"{key}.down", narrow, f"{key}.down", free="Relu")
        return linear(w, down, f"{key}.up", units, f"{key}.up")
    w.applied["units_rotated"].add(f"{key}.up")
    turn = np.linalg.qr(w.rng.standard_normal((narrow, narrow)))[0].astype(np.float32)
    places, shares = x.features()
    drawn = w.weight(f"{key}.down", (narrow, x.plain[-1])).values[:, places] / shares
    bias = turn @ w.vector(f"{key}.down/bias", narrow)
    down = linear_operators(w, f"{key}.down", x.name, 1, Matrix(turn @ drawn), bias)
    order = w.order(f"{key}.up", units)
    up = (w.weight(f"{key}.up", (units, narrow)).values @ turn.T)[order]
    bias = w.vector(f"{key}.up/bias", units)[order]
    return along(linear_operators(w, f"{key}.up", down, 1, Matrix(up), bias), order, (units,), 0)
