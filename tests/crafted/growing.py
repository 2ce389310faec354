"""Models of any number of like parts, put together in one way each: what is made of them grows with the parts.

Each is noted as a kind of crafted file with many parts too.
"""

from collections.abc import Callable, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from crafted.kind import KINDS, MODEL, Kind, raw

MANY = 4000
LOOK = ("inspect", MODEL, "--no-verify")  # as many groups as there are parts take a time that `--verify-timeout` bounds
GROWING: dict[str, Callable[[int], ModelProto]] = {}
node = helper.make_node


def grows(make: Callable[[int], ModelProto]) -> Callable[[int], ModelProto]:
    """Note a way, and a crafted file with many parts."""
    GROWING[make.__name__] = make

    def build(folder):
        (folder / MODEL).write_bytes(make(MANY).SerializeToString())

    KINDS[f"many_{make.__name__}"] = Kind(f"many_{make.__name__}", build, words=LOOK, is_slow=True)
    return make


def steps(count: int) -> Iterator[tuple[int, str, str]]:
    """The parts of a chain from x to y: a number, what it reads, and what it makes."""
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    return zip(range(count), names, names[1:], strict=False)


def drawn(count: int, *shape: int, stem: str = "w") -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {f"{stem}{i}": rng.standard_normal(shape).astype(np.float32) for i in range(count)}


def chain(parts: Callable[[int, str, str], list[NodeProto]], count: int, stored=None) -> ModelProto:
    return raw(*(one for step in steps(count) for one in parts(*step)), stored=stored)


@grows
def operators(count):
    return chain(lambda i, a, b: [node("Relu", [a], [b])], count)


@grows
def operators_in_reverse(count):
    return raw(*(node("Relu", [a], [b]) for _, a, b in reversed(list(steps(count)))))


@grows
def layers(count):
    return chain(lambda i, a, b: [node("MatMul", [a, f"w{i}"], [b])], count, drawn(count, 8, 8))


@grows
def layers_of_one_weight(count):
    return chain(lambda i, a, b: [node("MatMul", [a, "w0"], [b])], count, drawn(1, 8, 8))


@grows
def residual_layers(count):
    def parts(i, a, b):
        return [node("MatMul", [a, f"w{i}"], [f"m{i}"]), node("Add", [a, f"m{i}"], [b])]

    return chain(parts, count, drawn(count, 8, 8))


@grows
def readers_of_one_vector(count):
    return chain(lambda i, a, b: [node("Add", [a, "b"], [b])], count, {"b": np.zeros(8, np.float32)})


@grows
def readers_of_one_arranged_vector(count):
    first = node("Identity", ["b"], ["c"])
    return raw(first, *(node("Add", [a, "c"], [b]) for _, a, b in steps(count)), stored={"b": np.zeros(8, np.float32)})


@grows
def arrangements_of_one_vector(count):
    def parts(i, a, b):
        return [node("Identity", ["b"], [f"b{i}"]), node("Add", [a, f"b{i}"], [b])]

    return chain(parts, count, {"b": np.zeros(8, np.float32)})


@grows
def arrangements_one_behind_the_other(count):
    arranged = [node("Identity", ["b" if i == 0 else f"b{i - 1}"], [f"b{i}"]) for i in range(count)]
    ends = [node("Add", ["x", f"b{count - 1}"], ["z"]), node("Add", ["z", f"b{count - 1}"], ["y"])]
    return raw(*arranged, *ends, stored={"b": np.zeros(8, np.float32)})


@grows
def moves_of_one_weight(count):
    moved = [node("Transpose", ["w0" if i == 0 else f"m{i - 1}"], [f"m{i}"], perm=[1, 0]) for i in range(count)]
    return raw(*moved, node("MatMul", ["x", f"m{count - 1}"], ["y"]), stored=drawn(1, 8, 8))


@grows
def inputs_of_one_operator(count):
    return raw(node("Sum", ["x", *["b"] * count], ["y"]), stored={"b": np.zeros(8, np.float32)})


@grows
def stacks(count):
    return chain(lambda i, a, b: [node("MatMul", [a, f"w{i}"], [b])], count, drawn(count, 2, 8, 8))


@grows
def joined_weights(count):
    def parts(i, a, b):
        return [node("Concat", [f"u{i}", f"v{i}"], [f"w{i}"], axis=0), node("MatMul", [a, f"w{i}"], [b])]

    return chain(parts, count, {**drawn(count, 4, 8, stem="u"), **drawn(count, 4, 8, stem="v")})


@grows
def split_weights(count):
    def parts(i, a, b):
        return [
            node("Split", [f"w{i}"], [f"u{i}", f"v{i}"], axis=1, num_outputs=2),
            node("MatMul", [a, f"u{i}"], [f"m{i}"]),
            node("MatMul", [f"m{i}", f"v{i}"], [b]),
        ]

    return chain(parts, count, drawn(count, 8, 16))


@grows
def constants(count):
    def parts(i, a, b):
        return [node("Constant", [], [f"k{i}"], value_float=float(i)), node("Add", [a, f"k{i}"], [b])]

    return chain(parts, count)


@grows
def lookups(count):
    def parts(i, a, b):
        return [node("Gather", ["w0", "at"], [f"g{i}"]), node("Add", [a, f"g{i}"], [b])]

    return chain(parts, count, {**drawn(1, 3, 8), "at": np.array(1)})


@grows
def branches(count):
    def parts(i, a, b):
        bodies = {
            f"{key}_branch": helper.make_graph(
                [node("Relu", [a], [f"{key}{i}"])],
                key,
                [],
                [helper.make_tensor_value_info(f"{key}{i}", TensorProto.FLOAT, None)],
            )
            for key in ("then", "else")
        }
        return [node("If", ["go"], [b], **bodies)]

    return chain(parts, count, {"go": np.array(True)})


@grows
def linear_models(count):
    parts = [
        node("LinearRegressor", ["x"], [f"r{i}"], domain="ai.onnx.ml", coefficients=[1.0] * 8, intercepts=[0.0])
        for i in range(count)
    ]
    proto = raw(*parts, node("Sum", [f"r{i}" for i in range(count)], ["y"]))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return proto


@grows
def recurrent_layers(count):
    parts = [node("LSTM", ["s", "w0", "r0"], [f"h{i}"], hidden_size=2, direction="bidirectional") for i in range(count)]
    whole = [node("Unsqueeze", ["x", "axis"], ["s"]), *parts, node("Sum", [f"h{i}" for i in range(count)], ["y"])]
    return raw(*whole, stored={**drawn(1, 2, 8, 8), **drawn(1, 2, 8, 2, stem="r"), "axis": np.array([0])})
