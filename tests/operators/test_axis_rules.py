"""Every operator of the table in a small network: the groups it should leave, and whether those are sound.

Hidden units made by a weight `up` flow through the operator to a weight `down`. What a case expects names every axis
that could move: "6: down[1] up[0]" is a group of 6 units on these axes, "frozen: ..." and "pinned: ..." axes that may
not move. Soundness knows nothing of axis rules: it permutes all groups and runs the network, in float64 where
onnx.reference has the operator, else in onnxruntime.
"""

import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from builders import Net, deviation, permuted_copy, run, shuffle, stored
from onnx import TensorProto

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.network import probe
from mal_graph.operators import ROWS, GroupState, bodies, contractions, elementwise, normalisation, reductions
from mal_graph.operators.call import WINDOW, pass_all_but
from mal_graph.symmetry import axis_groups, permute_weights, verify

FLOAT, UINT8, INT8, INT32, BOOL = (getattr(TensorProto, name) for name in ("FLOAT", "UINT8", "INT8", "INT32", "BOOL"))
MICROSOFT = "com.microsoft"
FREE = "6: down[1] up[0]"
FROZEN = "frozen: down[1] up[0]"
PINNED = "pinned: down[1] up[0]"
COPIES = (FREE, *["2: down[1]"] * 6)  # the two copies of each unit may trade places
Step = Callable[[Net, str], str]


@dataclass(frozen=True)
class Case:
    """A network around an operator, and its groups."""

    op: str
    name: str
    build: Callable[[Net], str]
    expected: tuple[str, ...]
    opset: int

    @property
    def graph(self):
        net = Net(0, opset=self.opset)
        return net.graph(self.build(net))


CASES: list[Case] = []


def case(op: str, build: Callable[[Net], str], *expected: str, name: str = "", opset: int = 20) -> None:
    CASES.append(Case(op, f"{op}: {name}" if name else op, build, expected or (FREE,), opset))


# --- frames -----------------------------------------------------------------------------------------------------


def image(step: Step, reads: int = 6, units: int = 6) -> Callable[[Net], str]:
    """Channels of a convolution on 4 x 4 positions, the step, a convolution that reads `reads` channels."""

    def build(net):
        x = net.op("Conv", net.input("x", ("N", 3, 4, 4)), net.weight(units, 3, 1, 1, name="up"))
        return net.op("Conv", step(net, x), net.weight(2, reads, 1, 1, name="down"))

    return build


def vector(step: Step, reads: int = 6, units: int = 6) -> Callable[[Net], str]:
    """Units of a linear layer, the step, a linear layer that reads `reads` units."""

    def build(net):
        x = net.op("Gemm", net.input("x", ("N", 8)), net.weight(units, 8, name="up"), transB=1)
        return net.op("Gemm", step(net, x), net.weight(2, reads, name="down"), transB=1)

    return build


def tokens(step: Step, reads: int = 6, units: int = 6) -> Callable[[Net], str]:
    """Features (N, 4, units) of a linear layer on the last axis, the step, a linear layer that reads that axis."""

    def build(net):
        x = net.op("MatMul", net.input("x", ("N", 4, 8)), transposed(net, net.weight(units, 8, name="up")))
        return net.op("MatMul", step(net, x), transposed(net, net.weight(2, reads, name="down")))

    return build


def transposed(net: Net, x: str) -> str:
    return net.op("Transpose", x, perm=[1, 0])


def cast(net: Net, x: str, to: int = FLOAT) -> str:
    return net.op("Cast", x, to=to)


def number(net: Net, value: float) -> str:
    return net.constant(np.float32(value))


def whole(net: Net, x: str, to: int = INT32) -> str:
    """Integers from 0 on that differ from unit to unit."""
    return cast(net, net.op("Mul", net.op("Abs", x), number(net, 20)), to)


def positive(net: Net, x: str) -> str:
    return net.op("Greater", x, number(net, 0))


def inside(net: Net, x: str) -> str:
    """Values between 0.1 and 0.9."""
    return net.op("Add", net.op("Mul", net.op("Sigmoid", x), number(net, 0.8)), number(net, 0.1))


def p(net: Net, *shape: int) -> str:
    return net.weight(*shape or (6,), name="p", scale=1.0)


# --- maps of one operand ----------------------------------------------------------------------------------------

BEFORE = {
    **dict.fromkeys(["Log", "Sqrt", "Acos", "Asin", "Atanh", "Tan", "Reciprocal"], inside),
    "Acosh": lambda net, x: net.op("Add", inside(net, x), number(net, 1)),
    "Not": positive,
    "BitwiseNot": whole,
    "IsNaN": lambda net, x: net.op("Sqrt", x),
    "IsInf": lambda net, x: net.op("Log", net.op("Relu", x)),
}
FLOATS_OUT = {"Not", "BitwiseNot", "IsNaN", "IsInf"}
SINCE = {"Swish": 24}
SETTINGS = {"Clip": (-0.5, 0.5)}


def one_operand(op: str) -> Step:
    def step(net, x):
        domain, _, kind = op.rpartition(".")
        x = BEFORE[op](net, x) if op in BEFORE else x
        y = net.op(kind, x, *[number(net, value) for value in SETTINGS.get(op, ())], domain=domain)
        return cast(net, y) if op in FLOATS_OUT else y

    return step


for unary in sorted(op for op, row in ROWS.items() if row.rule is elementwise.unary and not row.moves):
    case(unary, vector(one_operand(unary)), opset=SINCE.get(unary, 20))
case("Identity", vector(lambda net, x: net.op("Identity", x)))
case("Cast", vector(lambda net, x: cast(net, cast(net, x, TensorProto.DOUBLE))))
case("CastLike", vector(lambda net, x: net.op("CastLike", x, p(net))))
case("Dropout", vector(lambda net, x: net.op("Dropout", x)))
case(
    "Dropout",
    vector(lambda net, x: net.op("Dropout", x, number(net, 0.5), net.constant(np.array(True)))),
    FROZEN,
    name="in training",
)
case(
    "BitCast",
    vector(lambda net, x: net.op("BitCast", net.op("BitCast", x, to=INT32), to=FLOAT)),
    opset=26,
)


# --- elementwise ------------------------------------------------------------------------------------------------

WITH_P = "6: down[1] p[0] up[0]"
for binary in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu"):
    case(binary, vector(lambda net, x, op=binary: net.op(op, x, p(net))), WITH_P)
for compared in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
    case(compared, vector(lambda net, x, op=compared: cast(net, net.op(op, x, p(net)))), WITH_P)
for logical in ("And", "Or", "Xor", "Equal"):
    case(
        logical,
        vector(lambda net, x, op=logical: cast(net, net.op(op, positive(net, x), net.op("Less", x, p(net))))),
        WITH_P,
    )
for bitwise in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    case(
        bitwise,
        vector(lambda net, x, op=bitwise: cast(net, net.op(op, whole(net, x), whole(net, p(net))))),
        WITH_P,
    )
case("Pow", vector(lambda net, x: net.op("Pow", inside(net, x), p(net))), WITH_P)
case("Mod", vector(lambda net, x: net.op("Mod", x, p(net), fmod=1)), WITH_P)
case(
    "BitShift",
    vector(
        lambda net, x: cast(
            net, net.op("BitShift", whole(net, x, UINT8), cast(net, inside(net, p(net)), UINT8), direction="LEFT")
        )
    ),
    WITH_P,
)
case("Where", vector(lambda net, x: net.op("Where", positive(net, x), x, p(net))), WITH_P)
case("SwiGLU", vector(lambda net, x: net.op("SwiGLU", x, net.op("Mul", x, p(net)))), WITH_P, opset=28)
case(
    "Add", image(lambda net, x: net.op("Add", x, p(net, 6, 1, 4))), "6: down[1] p[0] up[0]", "pinned: p[2]", name="map"
)
case("Expand", vector(lambda net, x: net.op("Add", x, net.op("Expand", p(net, 1), net.constant([3, 6])))))
case("com.microsoft.BiasGelu", vector(lambda net, x: net.op("BiasGelu", x, p(net), domain=MICROSOFT)), WITH_P)
case("com.microsoft.FastGelu", vector(lambda net, x: net.op("FastGelu", x, p(net), domain=MICROSOFT)), WITH_P)


# --- contractions -----------------------------------------------------------------------------------------------


def between(made: int, read: int, *more: str) -> tuple[str, ...]:
    """Six units into and five out of a weight `w` between `up` and `down`."""
    return (f"6: up[0] w[{read}]", " ".join(sorted(["down[1]", f"w[{made}]", *more])).join(["5: ", ""]))


def w(net: Net, *shape: int) -> str:
    return net.weight(*shape, name="w")


case("Gemm", vector(lambda net, x: net.op("Gemm", x, w(net, 6, 5), p(net, 5)), 5), *between(1, 0, "p[0]"))
case("MatMul", tokens(lambda net, x: net.op("MatMul", x, w(net, 6, 5)), 5), *between(1, 0))
case("Conv", image(lambda net, x: net.op("Conv", x, w(net, 5, 6, 1, 1), p(net, 5)), 5), *between(0, 1, "p[0]"))
case(
    "Conv",
    image(lambda net, x: net.op("Conv", x, w(net, 6, 1, 1, 1), group=6)),
    "6: down[1] up[0] w[0]",
    name="depthwise",
)
case("ConvTranspose", image(lambda net, x: net.op("ConvTranspose", x, w(net, 6, 5, 1, 1)), 5), *between(1, 0))
case("Einsum", tokens(lambda net, x: net.op("Einsum", x, w(net, 6, 5), equation="bti,io->bto"), 5), *between(1, 0))
case(
    "Einsum",
    tokens(lambda net, x: net.op("Einsum", w(net, 5, 6), x, equation="oi,...i->...o"), 5),
    *between(0, 1),
    name="ellipsis",
)
case(
    "Einsum",
    vector(lambda net, x: net.op("Einsum", x, w(net, 6, 5), equation="bi,ij"), 5),
    *between(1, 0),
    name="implicit output",
)
case(
    "Einsum",
    vector(lambda net, x: net.op("Einsum", x, p(net), w(net, 6, 5), equation="bi,i,io->bo"), 5),
    "6: p[0] up[0] w[0]",
    "5: down[1] w[1]",
    name="three operands",
)
case(
    "Einsum",
    vector(lambda net, x: net.op("Einsum", x, w(net, 6, 6), equation="bi,ii->bi")),
    "frozen: down[1] up[0] w[0] w[1]",
    name="diagonal",
)
case(
    "Einsum",
    tokens(lambda net, x: net.op("Einsum", x, equation="bti->bt"), 4),
    "6: up[0]",
    "pinned: down[1]",
    name="sum",
)
case(
    "com.microsoft.FusedMatMul",
    tokens(lambda net, x: net.op("FusedMatMul", x, w(net, 5, 6), transB=1, alpha=0.5, domain=MICROSOFT), 5),
    *between(0, 1),
)
case(
    "com.microsoft.FusedMatMul",
    tokens(
        lambda net, x: net.op(
            "FusedMatMul",
            net.op("Transpose", x, perm=[1, 0, 2]),
            net.op("Expand", w(net, 6, 5), net.constant([3, 6, 5])),
            transBatchA=1,
            domain=MICROSOFT,
        ),
        5,
    ),
    *between(1, 0),
    name="batch transposed",
)
case(
    "com.microsoft.FusedGemm",
    vector(lambda net, x: net.op("FusedGemm", x, w(net, 6, 5), p(net, 5), activation="Relu", domain=MICROSOFT), 5),
    *between(1, 0, "p[0]"),
)
case(
    "com.microsoft.FusedConv",
    image(lambda net, x: net.op("FusedConv", x, w(net, 5, 6, 1, 1), p(net, 5), activation="Relu", domain=MICROSOFT), 5),
    *between(0, 1, "p[0]"),
)
case(
    "com.microsoft.FusedConv",
    image(
        lambda net, x: net.op("FusedConv", x, w(net, 6, 6, 1, 1), p(net), x, activation="Relu", domain=MICROSOFT),
    ),
    "6: down[1] p[0] up[0] w[0] w[1]",
    name="with a sum",
)


def deformed(net: Net, x: str, **attributes: int) -> str:
    places = net.op("Conv", "x", net.weight(8 * attributes.get("offset_group", 1), 3, 2, 2, name="places", scale=0.3))
    return net.op("DeformConv", x, w(net, 5, 6, 2, 2), places, p(net, 5), **attributes)


case(
    "DeformConv",
    image(deformed, 5),
    *between(0, 1, "p[0]"),
    "pinned: places[0] places[1] places[2] places[3] w[2] w[3]",
)
case(
    "DeformConv",
    image(lambda net, x: deformed(net, x, offset_group=2), 5),
    "frozen: down[1] p[0] places[0] up[0] w[0] w[1] w[2] w[3]",
    "pinned: places[1] places[2] places[3]",
    name="groups of offsets",
)


# --- recurrent --------------------------------------------------------------------------------------------------


def steps(op: str, gates: int, *, direction: str = "forward", ways: int = 1, **options: object) -> Step:
    """A recurrent layer of 4 units over features (N, 4, units) taken as (steps, samples, units)."""

    def step(net, x):
        stored = [("w", (ways, 4 * gates, 6)), ("r", (ways, 4 * gates, 4)), ("b", (ways, 8 * gates))]
        stored = [net.weight(*shape, name=name, scale=0.4) for name, shape in stored]
        made = net.op(op, x, *stored, outputs=2, hidden_size=4, direction=direction, **options)
        return net.op("Squeeze", made[0], net.constant([1]))

    return step


def both_ways(op: str, gates: int) -> Step:
    def step(net, x):
        stored = [("w", (2, 4 * gates, 6)), ("r", (2, 4 * gates, 4))]
        stored = [net.weight(*shape, name=name, scale=0.4) for name, shape in stored]
        made = net.op(op, x, *stored, outputs=2, hidden_size=4, direction="bidirectional")
        return net.op("Reshape", net.op("Transpose", made[0], perm=[0, 2, 1, 3]), net.constant([0, 0, 8]))

    return step


def shared_by_two(net: Net, x: str) -> str:
    """Two recurrent layers of two directions that share what they store."""
    stored = [net.weight(2, 4, 6, name="w"), net.weight(2, 4, 4, name="r", scale=0.4)]
    made = [net.op("RNN", x, *stored, outputs=2, hidden_size=4, direction="bidirectional")[0] for _ in range(2)]
    return net.op("Reshape", net.op("Transpose", net.op("Add", *made), perm=[0, 2, 1, 3]), net.constant([0, 0, 8]))


for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    read, units = "6: up[0] w[2]", "4: b[1] down[1] r[1] r[2] w[1]"
    case(op, tokens(steps(op, gates), 4), read, units)
    case(op, tokens(steps(op, gates, direction="reverse", clip=2.0), 4), read, units, name="backwards")
    case(
        op,
        tokens(both_ways(op, gates), 8),
        "6: up[0] w/forward[2] w/reverse[2]",
        "4: down[1] r/forward[1] r/forward[2] w/forward[1]",
        "4: down[1] r/reverse[1] r/reverse[2] w/reverse[1]",
        name="both ways",
    )
case("GRU", tokens(steps("GRU", 3, linear_before_reset=1), 4), read, units, name="reset behind")
case(
    "RNN",
    tokens(shared_by_two, 8),
    "frozen: down[1] r[0] r[1] r[2] up[0] w[0] w[1] w[2]",
    name="two that share their tensors",
)


# --- quantised --------------------------------------------------------------------------------------------------


def zeros(net: Net, units: int, kind: str = "int8") -> str:
    return net.constant(np.zeros(units, kind))


def scales(net: Net, units: int) -> str:
    return net.constant(np.linspace(0.02, 0.05, units, dtype=np.float32), "s")


def fake_quantised(net: Net, x: str, *extra: str, axis: int = 1, units: int = 6) -> str:
    s = scales(net, units)
    y = net.op("QuantizeLinear", x, s, *extra or [zeros(net, units)], axis=axis)
    return net.op("DequantizeLinear", y, s, *extra or [zeros(net, units)], axis=axis)


def quantised(net: Net, x: str, kind: str = "int8") -> str:
    return net.op("QuantizeLinear", x, number(net, 0.02), net.constant(np.array(3, kind)))


for quantise in ("QuantizeLinear", "DequantizeLinear"):
    case(quantise, image(fake_quantised), "6: down[1] s[0] up[0]")
case(
    "QuantizeLinear",
    image(lambda net, x: net.op("Conv", x, fake_quantised(net, w(net, 5, 6, 1, 1), axis=0, units=5)), 5),
    *between(0, 1, "s[0]"),
    name="of a weight",
)
case(
    "QuantizeLinear",
    image(lambda net, x: fake_quantised(net, x, net.constant(np.arange(6, dtype=np.int8)))),
    "frozen: down[1] s[0] up[0]",
    name="zero points that differ",
)
case(
    "QuantizeLinear",
    image(lambda net, x: net.op("DequantizeLinear", quantised(net, x), number(net, 0.02), net.constant(np.int8(3)))),
    name="of the whole tensor",
)
case(
    "DequantizeLinear",
    vector(
        lambda net, x: net.op(
            "DequantizeLinear", quantised(net, x), p(net, 3, 2), net.constant(np.zeros((3, 2), np.int8)), block_size=3
        )
    ),
    "frozen: down[1] p[0] p[1] up[0]",
    name="blocks",
    opset=21,
)


def dynamic(net: Net, x: str) -> str:
    return net.op("DequantizeLinear", *net.op("DynamicQuantizeLinear", x, outputs=3))


case("DynamicQuantizeLinear", image(dynamic))
case(
    "MatMulInteger",
    vector(
        lambda net, x: cast(
            net,
            net.op(
                "MatMulInteger",
                quantised(net, x, "uint8"),
                quantised(net, w(net, 6, 5)),
                net.constant(np.uint8(3)),
                zeros(net, 5),
            ),
        ),
        5,
    ),
    *between(1, 0),
)
case(
    "MatMulInteger",
    vector(
        lambda net, x: cast(
            net, net.op("MatMulInteger", quantised(net, x, "uint8"), net.constant(np.eye(6, dtype=np.int8)))
        )
    ),
    FROZEN,
    name="stored integers",
)
case(
    "ConvInteger",
    image(
        lambda net, x: cast(
            net,
            net.op(
                "ConvInteger",
                quantised(net, x, "uint8"),
                quantised(net, w(net, 5, 6, 1, 1), "uint8"),
                net.constant(np.uint8(3)),
            ),
        ),
        5,
    ),
    *between(0, 1),
)


def q_linear(net: Net, op: str, x: str, weight: str) -> str:
    left = (quantised(net, x, "uint8"), number(net, 0.02), net.constant(np.uint8(3)))
    right = (quantised(net, weight), scales(net, 5), zeros(net, 5))
    y = net.op(op, *left, *right, number(net, 0.05), net.constant(np.uint8(100)))
    return net.op("DequantizeLinear", y, number(net, 0.05), net.constant(np.uint8(100)))


case("QLinearMatMul", vector(lambda net, x: q_linear(net, "QLinearMatMul", x, w(net, 6, 5)), 5), *between(1, 0, "s[0]"))
case(
    "QLinearConv", image(lambda net, x: q_linear(net, "QLinearConv", x, w(net, 5, 6, 1, 1)), 5), *between(0, 1, "s[0]")
)


# --- normalisation ----------------------------------------------------------------------------------------------


def last(step: Step) -> Step:
    """A step on the channels as the last axis."""
    return lambda net, x: net.op("Transpose", step(net, net.op("Transpose", x, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2])


def q(net: Net, *shape: int) -> str:
    return net.weight(*shape or (6,), name="q", scale=1.0)


def variance(net: Net) -> str:
    return net.constant(np.linspace(0.5, 2, 6, dtype=np.float32), "v")


case(
    "BatchNormalization",
    image(lambda net, x: net.op("BatchNormalization", x, p(net), q(net), net.weight(6, name="m"), variance(net))),
    "6: down[1] m[0] p[0] q[0] up[0] v[0]",
)


def running_mean(net: Net, x: str) -> str:
    """The units, times what a BatchNormalization in training gives as their next running mean."""
    stored = net.weight(6, name="m", scale=1.0), variance(net)
    y = net.op("BatchNormalization", x, p(net), q(net), *stored, outputs=3, training_mode=1)
    return net.op("Mul", x, net.op("Reshape", y[1], net.constant([1, 6, 1, 1])))


case("BatchNormalization", image(running_mean), "6: down[1] m[0] p[0] q[0] up[0] v[0]", name="in training")
case(
    "InstanceNormalization",
    image(lambda net, x: net.op("InstanceNormalization", x, p(net), q(net))),
    "6: down[1] p[0] q[0] up[0]",
)
case(
    "LayerNormalization",
    tokens(lambda net, x: net.op("LayerNormalization", x, p(net), q(net))),
    "6: down[1] p[0] q[0] up[0]",
)
case(
    "LayerNormalization",
    image(lambda net, x: net.op("LayerNormalization", x, p(net, 4), outputs=3)[1]),
    FREE,
    "pinned: p[0]",
    name="its mean",
)
case("RMSNormalization", tokens(lambda net, x: net.op("RMSNormalization", x, p(net))), WITH_P, opset=23)
case(
    "SimplifiedLayerNormalization",
    tokens(lambda net, x: net.op("SimplifiedLayerNormalization", x, p(net))),
    WITH_P,
)
case(
    "com.microsoft.SkipLayerNormalization",
    tokens(lambda net, x: net.op("SkipLayerNormalization", x, net.op("Tanh", x), p(net), q(net), domain=MICROSOFT)),
    "6: down[1] p[0] q[0] up[0]",
)


def with_sum(net: Net, x: str) -> str:
    """What is normalised, and the sum that it is made of."""
    y = net.op("SkipLayerNormalization", x, x, p(net), "", q(net), outputs=4, domain=MICROSOFT)
    net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
    return net.op("Add", y[0], y[3])


case(
    "com.microsoft.SkipLayerNormalization", tokens(with_sum), "6: down[1] p[0] q[0] up[0]", name="its sum, with a bias"
)
case(
    "com.microsoft.SkipSimplifiedLayerNormalization",
    tokens(lambda net, x: net.op("SkipSimplifiedLayerNormalization", x, net.op("Tanh", x), p(net), domain=MICROSOFT)),
    WITH_P,
)


def group_norm(groups: int, scaled: int, **attributes: int) -> Step:
    return lambda net, x: net.op(
        "GroupNormalization", x, p(net, scaled), q(net, scaled), num_groups=groups, **attributes
    )


SCALED = "6: down[1] p[0] q[0] up[0]"
BLOCKS = "2: down[1] p[0] q[0] up[0]"
OF_BLOCK, ALONE = "3: down[1] p[0] q[0] up[0]", "3: down[1] up[0]"
case("GroupNormalization", image(group_norm(1, 6, stash_type=TensorProto.DOUBLE)), SCALED, name="one group", opset=21)
case(
    "GroupNormalization", image(group_norm(6, 6, stash_type=TensorProto.DOUBLE)), SCALED, name="groups of one", opset=21
)
case(
    "GroupNormalization",
    image(group_norm(2, 6, stash_type=TensorProto.DOUBLE)),
    BLOCKS,
    OF_BLOCK,
    OF_BLOCK,
    name="groups of three",
    opset=21,
)
case("GroupNormalization", image(group_norm(2, 2)), BLOCKS, ALONE, ALONE, name="scales of groups", opset=18)
case("LpNormalization", vector(lambda net, x: net.op("LpNormalization", x)))
case("MeanVarianceNormalization", image(lambda net, x: net.op("MeanVarianceNormalization", x)))
case(
    "MeanVarianceNormalization",
    image(lambda net, x: net.op("MeanVarianceNormalization", x, axes=[1])),
    name="of channels",
)
case("LRN", image(lambda net, x: net.op("LRN", x, size=3, alpha=1.0)), FROZEN)
case("LRN", image(last(lambda net, x: net.op("LRN", x, size=3, alpha=1.0))), name="window over another axis")
case("Softmax", vector(lambda net, x: net.op("Softmax", x, axis=1)))
case("LogSoftmax", vector(lambda net, x: net.op("LogSoftmax", x, axis=1)))
case("Hardmax", vector(lambda net, x: net.op("Hardmax", x, axis=1)), FROZEN)
case("Hardmax", image(lambda net, x: net.op("Hardmax", x, axis=2)), name="of positions")


# --- the order of an axis counts --------------------------------------------------------------------------------


def top(net: Net, x: str, axis: int, take: int = 0) -> str:
    y = net.op("TopK", x, net.constant([3]), outputs=2, axis=axis)[take]
    return cast(net, y) if take else y


case("TopK", vector(lambda net, x: top(net, x, 1), 3), "6: up[0]", "pinned: down[1]")
case("TopK", image(lambda net, x: top(net, x, 2)), name="of positions")
case("TopK", image(lambda net, x: top(net, x, 3, 1)), name="indices")
for extreme in ("ArgMax", "ArgMin"):
    case(extreme, image(lambda net, x, op=extreme: cast(net, net.op(op, x, axis=2))))
    case(
        extreme,
        tokens(lambda net, x, op=extreme: cast(net, net.op(op, x, axis=2, keepdims=0)), 4),
        "frozen: up[0]",
        "pinned: down[1]",
        name="of units",
    )
for running, since in (("CumSum", 20), ("CumProd", 26)):
    case(running, vector(lambda net, x, op=running: net.op(op, x, net.constant(1))), FROZEN, opset=since)
    case(running, image(lambda net, x, op=running: net.op(op, x, net.constant(2))), name="of positions", opset=since)
case("Trilu", image(lambda net, x: net.op("Trilu", x)))
case("Trilu", tokens(lambda net, x: net.op("Trilu", x)), FROZEN, name="of units")
case("Det", image(lambda net, x: net.op("Unsqueeze", net.op("Det", x), net.constant([2, 3]))))


def reversed_(net: Net, x: str, time: int) -> str:
    return net.op("ReverseSequence", x, net.constant([2, 1, 3]), batch_axis=0, time_axis=time)


case("ReverseSequence", tokens(lambda net, x: reversed_(net, x, 1)))
case("ReverseSequence", vector(lambda net, x: reversed_(net, x, 1)), FROZEN, name="of units")


def spectrum(net: Net, x: str, axis: int) -> str:
    """The real part of a transform along one axis of (N, C, H, W)."""
    y = net.op("DFT", net.op("Unsqueeze", x, net.constant([4])), "", net.constant(axis))
    return net.op("Gather", y, net.constant(0), axis=4)


case("DFT", image(lambda net, x: spectrum(net, x, 2)))
case("DFT", image(lambda net, x: spectrum(net, x, 1)), FROZEN, name="of channels")


def short_spectrum(net: Net, x: str) -> str:
    y = net.op("STFT", net.op("Unsqueeze", x, net.constant([2])), net.constant(2), p(net, 4), net.constant(4))
    return net.op("Flatten", net.op("ReduceSum", y, net.constant([3]), keepdims=0))


case("STFT", vector(short_spectrum), "pinned: down[1] p[0] up[0]")


# --- pooling, sampling and reductions ---------------------------------------------------------------------------

for pool in ("AveragePool", "MaxPool", "LpPool"):
    case(pool, image(lambda net, x, op=pool: net.op(op, x, kernel_shape=[2, 2])))
for pool in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    case(pool, image(lambda net, x, op=pool: net.op(op, x)))
for reduce in sorted(op for op, row in ROWS.items() if row.rule is reductions.reduce):
    first = inside if "Log" in reduce else (lambda net, x: x)
    axes = (lambda net: [net.constant([2, 3])], lambda net: [net.constant([1])])
    case(reduce, image(lambda net, x, op=reduce, first=first: net.op(op, first(net, x), net.constant([2, 3]))))
    case(
        reduce,
        vector(lambda net, x, op=reduce, first=first: net.op(op, first(net, x), net.constant([1])), 1),
        "6: up[0]",
        name="of units",
    )


def boxes(net: Net, name: str = "boxes", numbered: bool = False) -> str:
    corners = np.array([[0, 0, 3, 3], [1, 0, 3, 2], [0, 1, 2, 3]], np.float32)
    return net.constant(np.c_[[0, 1, 2], corners].astype(np.float32) if numbered else corners, name)


BOXES = "pinned: boxes[0] boxes[1]"
case(
    "RoiAlign",
    image(
        lambda net, x: net.op(
            "RoiAlign", x, boxes(net), net.constant([0, 1, 2]), output_height=2, output_width=2, sampling_ratio=2
        )
    ),
    FREE,
    BOXES,
)
case(
    "MaxRoiPool",
    image(lambda net, x: net.op("MaxRoiPool", x, boxes(net, numbered=True), pooled_shape=[2, 2])),
    FREE,
    BOXES,
)


def grid(net: Net) -> str:
    turns = net.constant(np.tile(np.array([[[0.9, 0.1, 0], [-0.1, 0.9, 0.1]]], np.float32), (3, 1, 1)), "turns")
    return net.op("AffineGrid", turns, net.constant([3, 6, 3, 3]))


TURNS = "pinned: turns[0] turns[1] turns[2]"
case("GridSample", image(lambda net, x: net.op("GridSample", x, grid(net))), FREE, TURNS)
case("AffineGrid", image(lambda net, x: net.op("GridSample", x, grid(net))), FREE, TURNS)


# --- shape ------------------------------------------------------------------------------------------------------

case(
    "Reshape",
    image(lambda net, x: net.op("Reshape", net.op("Reshape", x, net.constant([0, 0, -1])), net.constant([0, 6, 4, 4]))),
)
case("Flatten", vector(lambda net, x: net.op("Flatten", x)))
case("Squeeze", vector(lambda net, x: net.op("Squeeze", net.op("Unsqueeze", x, net.constant([1])), net.constant([1]))))
case(
    "Unsqueeze", vector(lambda net, x: net.op("Squeeze", net.op("Unsqueeze", x, net.constant([1])), net.constant([1])))
)
case("Transpose", image(last(lambda net, x: net.op("Relu", x))))
case("Concat", vector(lambda net, x: net.op("Concat", x, net.op("Tanh", x), axis=1), 12))


def stacked(net: Net, x: str) -> str:
    """Two layers of 6 units over the same vector, on an axis of their own."""
    made = [x, net.op("Gemm", net.inputs[0].name, net.weight(6, 8, name="other"), transB=1)]
    return net.op("Concat", *(net.op("Unsqueeze", each, net.constant([1])) for each in made), axis=1)


APART = ("6: down[1] up[0]", "6: down[1] other[0]", "pinned: other[1]")
case("Concat", vector(lambda net, x: net.op("Flatten", stacked(net, x)), 12), *APART, name="of layers, laid out")
case(
    "Concat",
    vector(lambda net, x: net.op("ReduceSum", stacked(net, x), net.constant([1]), keepdims=0)),
    "6: down[1] other[0] up[0]",
    "pinned: other[1]",
    name="of layers, added",
)


def spread(net: Net, x: str) -> str:
    """Six units, of which three repeat one and three another."""
    a, b = net.op("Split", x, outputs=2, axis=1, num_outputs=2)
    a, b = (net.op("Expand", half, net.constant([1, 3])) for half in (a, b))
    return net.op("Concat", a, b, axis=1)


case("Concat", vector(lambda net, x: net.op("Concat", x, x, axis=1), 12), *COPIES, name="of one tensor twice")
case(
    "Concat",
    vector(lambda net, x: net.op("Concat", x, net.op("Tanh", x), x, axis=1), 18),
    FREE,
    *["2: down[1]"] * 6,
    name="of one tensor twice and another",
)
case("Concat", vector(lambda net, x: net.op("Concat", x, net.op("Tanh", x), axis=1), 12), name="of two that are tied")
case(
    "Gather",
    vector(lambda net, x: net.op("Gather", x, net.constant([0, 1, 1, 2, 3, 0]), axis=1), 6, 4),
    "2: down[1] up[0]",
    "2: down[1] up[0]",
    *["2: down[1]"] * 2,
    name="of some units twice",
)
case("Concat", vector(spread, 6, 2), "frozen: up[0]", "3: down[1]", "3: down[1]", name="of repeated units")


def columns(net: Net, x: str) -> str:
    """Three sums over all units, side by side."""
    found = [net.op(op, x, net.constant([1])) for op in ("ReduceSum", "ReduceMax", "ReduceMin")]
    return net.op("Concat", *found, axis=1)


case("Concat", vector(columns, 3), "6: up[0]", "rigid: down[1]", name="of single columns")
case(
    "Split",
    vector(lambda net, x: net.op("Mul", *net.op("Split", x, outputs=2, axis=1, num_outputs=2)), 3),
    "3: down[1] up[0]",
)


def cut(net: Net, x: str) -> str:
    return net.op("Slice", x, *[net.constant([bound]) for bound in (1, 5, 1)])


case("Slice", vector(cut, 4), "4: down[1] up[0]", "2: up[0]")
case(
    "Gather",
    vector(lambda net, x: net.op("Gather", x, net.constant([4, 1, 3]), axis=1), 3),
    "3: down[1] up[0]",
    "3: up[0]",
)
case("Pad", image(lambda net, x: net.op("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]))))
case(
    "Pad",
    vector(lambda net, x: net.op("Pad", x, net.constant([0, 1, 0, 1])), 8),
    FREE,
    "frozen: down[1]",
    name="of units",
)
case("Resize", image(lambda net, x: net.op("Resize", x, "", "", net.constant([3, 6, 8, 8]))))
case(
    "Resize",
    image(lambda net, x: net.op("Resize", x, "", "", net.constant([3, 3, 4, 4])), 3),
    "pinned: down[1] up[0]",
    name="of channels",
)
case(
    "Resize",
    image(
        lambda net, x: net.op(
            "Resize",
            x,
            net.constant(np.array([0, 0, 0, 0, 1, 0.6, 1, 1], np.float32)),
            "",
            net.constant([3, 6, 4, 4]),
            coordinate_transformation_mode="tf_crop_and_resize",
            mode="linear",
        )
    ),
    FROZEN,
    name="of a part",
)
case("Upsample", image(lambda net, x: net.op("Upsample", x, net.constant(np.array([1, 1, 2, 2], np.float32)))), opset=9)
case("Tile", vector(lambda net, x: net.op("Tile", x, net.constant([1, 2])), 12), *COPIES)
case("Tile", vector(lambda net, x: net.op("Mul", x, net.op("Tile", p(net, 1), net.constant([6])))), name="of one")
case("CenterCropPad", image(lambda net, x: net.op("CenterCropPad", x, net.constant([3, 5]), axes=[2, 3])))
case(
    "CenterCropPad",
    vector(lambda net, x: net.op("CenterCropPad", x, net.constant([4]), axes=[1]), 4),
    PINNED,
    name="of units",
)
for mode in ("DCR", "CRD"):
    case(
        "DepthToSpace",
        image(lambda net, x, mode=mode: net.op("DepthToSpace", x, blocksize=2, mode=mode), 3, 12),
        "3: down[1] up[0]",
        name=mode,
    )
case("SpaceToDepth", image(lambda net, x: net.op("SpaceToDepth", x, blocksize=2), 24))
case("Shape", vector(lambda net, x: net.op("Reshape", net.op("Relu", x), net.op("Shape", x))))
case("Size", vector(lambda net, x: net.op("Div", x, cast(net, net.op("Size", x)))))
case("ConstantOfShape", vector(lambda net, x: net.op("Add", x, net.op("ConstantOfShape", net.op("Shape", x)))))


# --- one factor of a split axis ---------------------------------------------------------------------------------


def split(step: Step) -> Step:
    """A step on (N, 2, 3, H, W), the channels in two blocks of three."""

    def around(net, x):
        y = step(net, net.op("Reshape", x, net.constant([0, 2, 3, 4, 4])))
        return net.op("Reshape", y, net.constant([0, -1, 4, 4]))

    return around


def gated_parts(net: Net, x: str, *lengths: str, **attributes: object) -> str:
    """The product of the first two tensors of the sequence that the units are split into."""
    parts = net.op("SplitToSequence", x, *lengths, axis=1, **attributes)
    return net.op("Mul", *[net.op("SequenceAt", parts, net.constant(place)) for place in (0, -1)])


PAIRED = "3: down[1] up[0]"
case("SplitToSequence", vector(lambda net, x: gated_parts(net, x, net.constant(3)), 3), PAIRED)
case("SequenceAt", vector(lambda net, x: gated_parts(net, x, net.constant([3, 3])), 3), PAIRED)
case(
    "SplitToSequence",
    image(lambda net, x: net.op("Unsqueeze", gated_parts(net, x, keepdims=0), net.constant([1])), 1),
    "pinned: up[0]",
    name="into single units",
)


def lists(make: Callable[[Net, list[str]], str], count: int = 2, **how: object) -> Step:
    """What is made of equal parts of the units, laid end to end or stacked."""

    def step(net, x):
        parts = net.op("Split", x, outputs=count, axis=1, num_outputs=count)
        return net.op("ConcatFromSequence", make(net, parts), axis=1, **how)

    return step


def inserted(*places: int) -> Callable[[Net, list[str]], str]:
    """A list to which a part is added at each of some places, or at its end."""

    def make(net, parts):
        made = net.op("SequenceEmpty")
        made = net.op("SequenceInsert", made, parts[0])
        for part, place in zip(parts[1:], places, strict=True):
            made = net.op("SequenceInsert", made, part, net.constant(place))
        return made

    return make


def without_one(net: Net, parts: list[str]) -> str:
    return net.op("SequenceErase", net.op("SequenceConstruct", *parts), net.constant(1))


def counted(net: Net, x: str) -> str:
    """Each unit times the number of parts."""
    length = net.op("SequenceLength", net.op("SplitToSequence", x, net.constant(3), axis=1))
    return net.op("Mul", x, cast(net, length))


def passed_on(net: Net, parts: list[str]) -> str:
    return net.op("Identity", net.op("SequenceConstruct", *parts))


def flat(step: Step) -> Step:
    """Without the axis along which parts were stacked."""
    return lambda net, x: net.op("ReduceMax", step(net, x), net.constant([1]), keepdims=0)


case("SequenceConstruct", vector(lists(lambda net, parts: net.op("SequenceConstruct", *parts))))
case("SequenceInsert", vector(lists(inserted(0))))
case("SequenceEmpty", vector(lists(inserted(-1))))
case("SequenceErase", vector(lists(without_one, 3), 4), "4: down[1] up[0]", "2: up[0]")
case("SequenceLength", vector(counted))
case(
    "ConcatFromSequence",
    vector(flat(lists(lambda net, parts: net.op("SequenceConstruct", *parts), new_axis=1)), 3),
    PAIRED,
    *["2: up[0]"] * 3,
    name="stacked",
)
case(
    "ConcatFromSequence",
    vector(lists(lambda net, parts: net.op("SequenceConstruct", parts[0], parts[1], parts[0])), 9),
    *[PAIRED] * 2,
    *["2: down[1]"] * 3,
    name="one twice",
)
case("ConcatFromSequence", vector(lists(passed_on)), name="of a list that is passed on")


BOTH, THREE = "2: down[1] up[0]", "3: down[1] up[0]"
case("TopK", image(split(lambda net, x: top(net, x, 2))), BOTH, "3: up[0]", name="in blocks")
case("CumSum", image(split(lambda net, x: net.op("CumSum", x, net.constant(1)))), THREE, name="over blocks")
case("ArgMax", image(split(lambda net, x: cast(net, net.op("ArgMax", x, axis=2))), 2), BOTH, name="in blocks")
case(
    "ReduceMax",
    image(split(lambda net, x: net.op("ReduceMax", x, net.constant([2]))), 2),
    BOTH,
    *["3: up[0]"] * 2,
    name="in blocks",
)
case(
    "LpNormalization",
    image(split(lambda net, x: net.op("LpNormalization", x, axis=2))),
    BOTH,
    THREE,
    THREE,
    name="in blocks",
)
case("Hardmax", image(split(lambda net, x: net.op("Hardmax", x, axis=1))), THREE, name="over blocks")
case(
    "Tile",
    image(split(lambda net, x: net.op("Tile", x, net.constant([1, 1, 2, 1, 1]))), 12),
    *COPIES,
    name="of blocks",
)
case(
    "Einsum",
    image(split(lambda net, x: net.op("Einsum", x, w(net, 3, 5), equation="nabhw,bo->naohw")), 10),
    BOTH,
    "3: up[0] w[0]",
    "5: down[1] w[1]",
    name="in blocks",
)
case(
    "Einsum",
    image(split(lambda net, x: net.op("Einsum", x, w(net, 2, 3, 5), equation="nabhw,abo->nohw")), 5),
    "5: down[1] w[1]",
    "6: up[0] w[0]",
    name="over both factors",
)


def copies_beside_samples(net: Net, x: str) -> str:
    """Three copies of every token, one after the other for all samples, and apart again; each has a weight."""
    copies = net.op("Expand", net.op("Unsqueeze", x, net.constant([1])), net.constant([1, 3, 1, 1]))
    rows = net.op("Reshape", copies, net.constant([-1, 4, 6]))
    apart = net.op("Reshape", rows, net.constant([-1, 3, 4, 6]))
    return net.op("ReduceSum", net.op("Mul", apart, p(net, 3, 1, 1)), net.constant([1]), keepdims=0)


case("Reshape", tokens(copies_beside_samples), FREE, "3: p[0]", name="copies beside samples")


# --- elements found by index or by value ------------------------------------------------------------------------


def index(net: Net) -> str:
    return net.constant(np.array([[0, 1, 2, 3, 4, 5], [1, 0, 2, 4, 3, 5], [5, 4, 3, 2, 1, 0]]))


def alike_places(net: Net, x: str) -> str:
    """A token of each sample for every token, the same for all units of it, computed at run time."""
    order = net.op("TopK", net.op("ReduceSum", x, net.constant([2])), net.constant([4]), axis=1, outputs=2)[1]
    return net.op("Expand", order, net.constant([1, 1, 6]))


def some_units(net: Net, x: str) -> str:
    units = net.op("GatherND", net.op("Transpose", x, perm=[1, 0]), net.constant([[2], [5], [4], [-3]]))
    return net.op("Transpose", units, perm=[1, 0])


case("GatherElements", vector(lambda net, x: net.op("GatherElements", x, index(net), axis=1)), "pinned: down[1] up[0]")
case("GatherND", vector(lambda net, x: net.op("GatherND", x, net.constant([[2], [0]]))), "6: down[1] up[0]")
case(
    "GatherND",
    tokens(lambda net, x: net.op("GatherND", x, net.constant([[[2], [1]], [[0], [3]], [[1], [1]]]), batch_dims=1)),
    "6: down[1] up[0]",
    name="in a batch",
)
case(
    "GatherND",
    tokens(lambda net, x: net.op("GatherND", x, net.constant([[[2, 1]], [[0, 3]], [[1, 1]]]), batch_dims=1), 1),
    "pinned: up[0]",
    name="of units",
)
case(
    "GatherElements",
    tokens(lambda net, x: net.op("GatherElements", x, alike_places(net, x), axis=1)),
    name="the same for all units",
)
case("GatherND", vector(some_units, 4), "4: down[1] up[0]", "2: up[0]", name="of some units")
case(
    "ScatterElements",
    vector(lambda net, x: net.op("ScatterElements", x, index(net), net.op("Tanh", x), axis=1)),
    PINNED,
)
case(
    "ScatterElements",
    tokens(lambda net, x: net.op("ScatterElements", x, alike_places(net, x), net.op("Tanh", x), axis=1)),
    name="the same for all units",
)
case(
    "ScatterND",
    vector(lambda net, x: net.op("ScatterND", x, net.constant([[0]]), p(net, 1, 6))),
    "6: down[1] p[1] up[0]",
)
case(
    "ScatterND",
    vector(lambda net, x: net.op("ScatterND", x, net.constant([[0, 2], [1, 0]]), p(net, 2))),
    "pinned: down[1] p[0] up[0]",
    name="of units",
)
case(
    "TensorScatter",
    tokens(lambda net, x: net.op("TensorScatter", x, p(net, 3, 1, 6), net.constant([1, 0, 2]), axis=1)),
    "6: down[1] p[2] up[0]",
    "frozen: p[0]",
    opset=24,
)


def laid_out(net: Net, x: str) -> str:
    """Units as blocks of 2 x 2 of three channels, laid into a map; the largest in each channel, for four tokens."""
    blocks = net.op("Transpose", x, perm=[0, 2, 1])
    made = net.op("Col2Im", blocks, net.constant([4, 4]), net.constant([2, 2]), strides=[2, 2])
    return net.op("Unsqueeze", net.op("ReduceMax", made, net.constant([2, 3]), keepdims=0), net.constant([1]))


case(
    "Col2Im",
    tokens(lambda net, x: net.op("Flatten", net.op("Col2Im", x, net.constant([3, 4]), net.constant([2, 2]))), 12),
    PINNED,
)
case("Col2Im", tokens(laid_out, 3, 12), "3: down[1] up[0]", name="of channels")


def unpooled(net: Net, x: str) -> str:
    y, places = net.op("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    return net.op("MaxUnpool", y, places, kernel_shape=[2, 2], strides=[2, 2])


case("MaxUnpool", image(unpooled), FROZEN)


def classes(net: Net, x: str) -> str:
    y = net.op("OneHot", whole(net, x), net.constant(5), net.constant(np.array([0, 1], np.float32), "values"))
    return net.op("ReduceSum", y, net.constant([2]), keepdims=0)


case("OneHot", vector(classes))


def rows(step: Step) -> Callable[[Net], str]:
    """Units whose number of rows depends on values, summed over the rows."""
    return vector(lambda net, x: net.op("ReduceSum", step(net, x), net.constant([0])))


case(
    "Compress", rows(lambda net, x: net.op("Compress", x, net.constant(np.array([True, False, True])), axis=0)), FROZEN
)
case("Unique", rows(lambda net, x: net.op("Unique", x, axis=0)), FROZEN)
case(
    "NonZero",
    vector(lambda net, x: cast(net, net.op("Transpose", net.op("NonZero", x), perm=[1, 0])), 2),
    FROZEN,
)
case(
    "NonMaxSuppression",
    vector(
        lambda net, x: cast(
            net,
            net.op(
                "NonMaxSuppression",
                net.op("Reshape", net.op("Tile", x, net.constant([1, 2])), net.constant([3, 3, 4])),
                net.op("Reshape", net.op("Slice", x, *[net.constant([b]) for b in (0, 3, 1)]), net.constant([3, 1, 3])),
                net.constant([3]),
            ),
        ),
        3,
    ),
    FROZEN,
)


# --- made from sizes, settings or chance ------------------------------------------------------------------------


def texts(net: Net, *values: str) -> str:
    """A constant that stays a node: texts are no weights."""
    return net.op("Constant", value_strings=values)


case(
    "Constant",
    vector(lambda net, x: net.op("Mul", x, cast(net, net.op("Equal", texts(net, *"abcabc"), texts(net, *"aaaccc"))))),
    PINNED,
)
case("EyeLike", vector(lambda net, x: net.op("Add", x, net.op("EyeLike", x))), PINNED)
case(
    "Range",
    vector(lambda net, x: net.op("Mul", x, net.op("Range", number(net, 0), number(net, 6), number(net, 1)))),
    PINNED,
)
for window in ("BlackmanWindow", "HammingWindow", "HannWindow"):
    case(window, vector(lambda net, x, op=window: net.op("Mul", x, net.op(op, net.constant(6)))), PINNED)
case(
    "MelWeightMatrix",
    vector(
        lambda net, x: net.op(
            "MatMul",
            x,
            net.op("MelWeightMatrix", *map(net.constant, (4, 10, 8000)), number(net, 0), number(net, 4000)),
        ),
        4,
    ),
    PINNED,
)
for drawn in ("RandomNormal", "RandomUniform"):
    case(drawn, vector(lambda net, x, op=drawn: net.op("Add", x, net.op(op, shape=[6], seed=1.0))), PINNED)
for drawn in ("RandomNormalLike", "RandomUniformLike"):
    case(drawn, vector(lambda net, x, op=drawn: net.op("Add", x, net.op(op, x, seed=1.0))), FROZEN)
case("Bernoulli", vector(lambda net, x: net.op("Bernoulli", inside(net, x), seed=1.0)), FROZEN)
case(
    "Multinomial",
    vector(lambda net, x: cast(net, net.op("Multinomial", x, sample_size=4, seed=1.0)), 4),
    FROZEN,
)


# --- attention --------------------------------------------------------------------------------------------------


def attention(net: Net, x: str, **attributes) -> str:
    """Two heads that attend to themselves."""
    return net.op("Attention", x, x, x, q_num_heads=2, kv_num_heads=2, **attributes)


def one_head(net: Net, x: str, **attributes) -> str:
    y = net.op("Unsqueeze", x, net.constant([1]))
    return net.op("Squeeze", net.op("Attention", y, y, y, **attributes), net.constant([1]))


def tables(net: Net, units: int) -> tuple[str, str]:
    angles = np.outer(np.arange(4), 0.7 ** np.arange(units)).astype(np.float32)
    return net.constant(np.cos(angles), "cos"), net.constant(np.sin(angles), "sin")


def places(net: Net, x: str) -> str:
    """The places of four tokens, for every sample."""
    return net.op("Expand", net.constant([[0, 1, 2, 3]]), net.op("Shape", x, end=2))


def rotated(net: Net, x: str, turned: int = 2, **attributes) -> str:
    return net.op("RotaryEmbedding", x, *tables(net, turned), places(net, x), num_heads=3, **attributes)


def rotated_by_onnxruntime(net: Net, x: str, **attributes) -> str:
    return net.op("RotaryEmbedding", x, places(net, x), *tables(net, 2), domain=MICROSOFT, **attributes)


def multi_head(net: Net, x: str, **attributes) -> str:
    bias = net.weight(18, name="p", scale=1.0)
    return net.op("MultiHeadAttention", x, x, x, bias, num_heads=2, domain=MICROSOFT, **attributes)


def group_query(net: Net, x: str) -> str:
    """Four heads of queries, two of keys and two of values, end to end."""
    seqlens, total = net.constant(np.full(3, 3, np.int32)), net.constant(np.array(4, np.int32))
    heads = {"num_heads": 4, "kv_num_heads": 2}
    return net.op("GroupQueryAttention", x, "", "", "", "", seqlens, total, outputs=3, domain=MICROSOFT, **heads)[0]


IN_HEADS = ("2: down[1] up[0]", *["3: down[1] up[0]"] * 2)
case("Attention", tokens(attention), *IN_HEADS, opset=23)
case("Attention", tokens(lambda net, x: attention(net, x, is_causal=1)), *IN_HEADS, name="causal", opset=24)
case("Attention", tokens(one_head), FREE, name="one head on an axis of its own", opset=23)
PAIRS = ["3: down[1] up[0]"] * 2  # each of three heads has two pairs of units, which no operator holds together
case("RotaryEmbedding", tokens(rotated, 12, 12), *PAIRS, opset=23)
case(
    "RotaryEmbedding",
    tokens(lambda net, x: rotated(net, x, interleaved=1), 12, 12),
    *PAIRS,
    name="neighbours",
    opset=23,
)
case(
    "RotaryEmbedding",
    tokens(lambda net, x: rotated(net, x, 1, rotary_embedding_dim=2), 12, 12),
    "3: down[1] up[0]",
    FREE,
    name="of a part",
    opset=23,
)
case("com.microsoft.RotaryEmbedding", tokens(rotated_by_onnxruntime, 12, 12), *PAIRS)
case(
    "com.microsoft.MultiHeadAttention",
    tokens(multi_head),
    "2: down[1] p[0] up[0]",
    *["3: down[1] p[0] up[0]"] * 2,
)
case(
    "com.microsoft.GroupQueryAttention",
    tokens(group_query, 32, 64),
    *["2: down[1] up[0]"] * 3,
    *["8: down[1] up[0]"] * 2,
    *["8: up[0]"] * 2,
)


# --- classic machine learning -----------------------------------------------------------------------------------

ML = "ai.onnx.ml"


def classic(op: str, **attributes) -> Step:
    return lambda net, x: net.op(op, x, domain=ML, **attributes)


def there_and_back(net: Net, x: str) -> str:
    """Whole numbers as texts, and other whole numbers for these."""
    texts, numbers = [f"t{i}" for i in range(60)], list(range(60))
    y = net.op("CategoryMapper", whole(net, x, TensorProto.INT64), cats_strings=texts, cats_int64s=numbers, domain=ML)
    return cast(net, net.op("CategoryMapper", y, cats_strings=texts[::-1], cats_int64s=numbers, domain=ML))


def encoded(net: Net, x: str) -> str:
    keys = {"keys_int64s": list(range(60)), "values_floats": [float(i * i % 7) for i in range(60)]}
    return net.op("LabelEncoder", whole(net, x, TensorProto.INT64), domain=ML, **keys)


def categories(net: Net, x: str) -> str:
    y = net.op("OneHotEncoder", whole(net, x, TensorProto.INT64), cats_int64s=[0, 3, 5, 9], zeros=1, domain=ML)
    return net.op("MatMul", y, p(net, 4))


def scores(own: bool, **attributes) -> Step:
    """A LinearClassifier of six classes, with weights of its own or the identity."""

    def step(net, x):
        w, b = (net.rng.normal(size=(6, 6)), net.rng.normal(size=6)) if own else (np.eye(6), np.zeros(6))
        held = {"coefficients": w.ravel().tolist(), "intercepts": b.tolist(), "classlabels_ints": [0, 1, 2, 3, 4, 5]}
        return net.op("LinearClassifier", x, outputs=2, domain=ML, **held, **attributes)[1]

    return step


def targets(net: Net, x: str, **attributes) -> str:
    w, b = net.rng.normal(size=36).tolist(), net.rng.normal(size=6).tolist()
    return net.op("LinearRegressor", x, coefficients=w, intercepts=b, targets=6, domain=ML, **attributes)


def named(net: Net, x: str) -> str:
    net.op("ZipMap", x, classlabels_int64s=[5, 4, 3, 2, 1, 0], domain=ML)
    return x


def looked_up(net: Net, x: str) -> str:
    """Of a list of numbers the one whose place the units tell together, for every sample, beside the units."""
    place = net.op("Mod", net.op("ReduceSum", whole(net, x, TensorProto.INT64), net.constant([1])), net.constant(4))
    y = net.op("ArrayFeatureExtractor", p(net, 4), place, domain=ML)
    return net.op("Mul", x, transposed(net, y))


case(f"{ML}.Scaler", vector(classic("Scaler", offset=[0.5], scale=[2.0])))
case(
    f"{ML}.Scaler",
    vector(classic("Scaler", offset=[0.5] * 6, scale=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
    FROZEN,
    name="of every feature",
)
case(f"{ML}.Imputer", vector(classic("Imputer", imputed_value_floats=[0.3])))
case(f"{ML}.Imputer", vector(classic("Imputer", imputed_value_floats=[0.3] * 5 + [1.0])), FROZEN, name="of features")
case(f"{ML}.Binarizer", vector(classic("Binarizer", threshold=0.1)))
for norm in ("MAX", "L1", "L2"):
    case(f"{ML}.Normalizer", vector(classic("Normalizer", norm=norm)), name=norm)
case(f"{ML}.LabelEncoder", vector(encoded))
case(f"{ML}.CategoryMapper", vector(there_and_back))
case(f"{ML}.OneHotEncoder", vector(categories), FREE, "pinned: p[0]")
case(
    f"{ML}.FeatureVectorizer",
    vector(lambda net, x: net.op("FeatureVectorizer", x, net.op("Tanh", x), inputdimensions=[6, 6], domain=ML), 12),
)
case(
    f"{ML}.ArrayFeatureExtractor",
    vector(lambda net, x: net.op("ArrayFeatureExtractor", x, net.constant([4, 1, 3]), domain=ML), 3),
    "3: down[1] up[0]",
    "3: up[0]",
)
case(f"{ML}.ArrayFeatureExtractor", vector(looked_up), FREE, "pinned: p[0]", name="by computed places")
case(f"{ML}.LinearClassifier", vector(scores(False)), PINNED)
case(
    f"{ML}.LinearClassifier",
    vector(scores(True, post_transform="SOFTMAX")),
    "6: linearclassifier1.0/coefficients[1] up[0]",
    "pinned: down[1] linearclassifier1.0/coefficients[0] linearclassifier1.0/intercepts[0]",
    name="with weights",
)
case(
    f"{ML}.LinearRegressor",
    vector(lambda net, x: targets(net, x, post_transform="LOGISTIC")),
    "6: linearregressor1/coefficients[1] up[0]",
    "pinned: down[1] linearregressor1/coefficients[0] linearregressor1/intercepts[0]",
)
case(f"{ML}.ZipMap", vector(named), PINNED)


# --- losses -----------------------------------------------------------------------------------------------------


def scored(op: str) -> Callable[[Net], str]:
    def build(net):
        x = net.op("Gemm", net.input("x", ("N", 8)), net.weight(6, 8, name="up"), transB=1)
        x = net.op("LogSoftmax", x, axis=1)
        return net.op(op, x, net.constant([0, 3, 5]), p(net), reduction="mean")

    return build


for loss in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
    case(loss, scored(loss), "pinned: p[0] up[0]")


# --- the tests --------------------------------------------------------------------------------------------------

OUTER = {("up", 1), ("up", 2), ("up", 3), ("down", 0), ("down", 2), ("down", 3)}


def probed(graph):
    """Shapes by onnxruntime, or by onnx.reference where onnxruntime lacks an operator."""
    try:
        return probe(graph)
    except RunError:
        return probe(graph, registry.runner("reference"))


def groups_of(graph, table=None):
    return axis_groups(graph, probed(graph), table)


def described(groups):
    """The groups in the words of a case."""
    lines, held = [], {}
    for group in groups.groups:
        axes = sorted(f"{m.tensor}[{m.axis}]" for m in group.members if (m.tensor, m.axis) not in OUTER)
        if group.is_usable:
            lines.append(f"{group.units}: {' '.join(axes)}")
        elif axes:
            held.setdefault(group.state, set()).update(axes)
    return sorted([*lines, *(f"{state}: {' '.join(sorted(axes))}" for state, axes in held.items())])


def moved(graph, changed):
    """How far the outputs move under other weights, and how far is too far."""
    copy = graph.with_weights(changed)
    inputs = probed(graph).inputs
    try:
        return deviation(run(copy, inputs), run(graph, inputs)), 1e-9
    except RunError:
        return deviation(run(copy, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")), 1e-5


@pytest.fixture(params=CASES, ids=[case.name for case in CASES], scope="module")
def example(request):
    graph = request.param.graph
    return request.param, graph, groups_of(graph)


def test_an_operator_leaves_the_groups_it_should(example):
    expected, graph, groups = example
    assert expected.op in {node.op for node in graph.nodes}
    assert described(groups) == sorted(expected.expected)


def test_permuting_the_groups_around_an_operator_keeps_the_outputs(example):
    _, graph, groups = example
    if not groups.usable():
        pytest.skip("nothing may move")
    copy, _ = permuted_copy(graph, groups)
    found, limit = moved(graph, stored(copy))
    assert found <= limit


def test_permuting_one_side_of_an_operator_only_moves_the_outputs(example):
    """The check above has power: the operator does not hide what flows through it."""
    _, graph, groups = example
    for i in groups.usable():
        group = groups.groups[i]
        if len(group.members) > 1:
            order = shuffle(group.units, np.random.default_rng(0))
            alone = permute_weights(stored(graph), [(group, order)])
            one = {group.members[0].tensor: alone[group.members[0].tensor]}
            found, limit = moved(graph, one)
            assert found > 100 * limit


def test_the_verification_rejects_none_of_the_groups_around_an_operator(example):
    """Also with parameters drawn as the row says. What has no second member, or no runtime, stays unverified."""
    _, graph, groups = example
    verified = verify(graph, groups)
    assert [verified.groups[i].reason for i in groups.usable() if verified.groups[i].state is GroupState.FROZEN] == []


def test_every_operator_of_the_table_has_a_case():
    """Those that run bodies have theirs in `laws/test_bodies.py`."""
    assert sorted(ROWS.keys() - {case.op for case in CASES} - bodies.ROWS.keys()) == []


def test_the_listing_names_a_test_for_every_operator():
    listing = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "list_operators.py"))
    lines = list(listing["rows"]())
    assert len(lines) == len(ROWS)
    assert not any("| none |" in line or "`: " not in line for line in lines)


# --- wrong rules ------------------------------------------------------------------------------------------------


def other_mode(call):
    """The rule of DepthToSpace or SpaceToDepth, with the channels read in the other order."""
    mode = "CRD" if call.text("mode", "DCR") == "DCR" else "DCR"
    node = replace(call.node, attributes={**call.node.attributes, "mode": mode})
    return ROWS[node.op].rule(replace(call, node=node))


def transposed_left(call):
    node = replace(call.node, attributes={"equation": "bti,oi->bto"})
    return contractions.einsum(replace(call, node=node))


def tied_zeros(net, x):
    """All units alike, so that the first of them is the largest."""
    return net.op("Hardmax", net.op("Mul", x, number(net, 0)), axis=1)


WRONG = {
    "LRN": elementwise.unary,
    "CumProd": elementwise.unary,
    "Trilu: of units": elementwise.unary,
    "ReverseSequence: of units": elementwise.unary,
    "DFT: of channels": lambda call: pass_all_but(call, [4], WINDOW),
    "QuantizeLinear": elementwise.unary,
    "DepthToSpace: DCR": other_mode,
    "DepthToSpace: CRD": other_mode,
    "SpaceToDepth": other_mode,
    "GroupNormalization: groups of three": normalisation.channel_norm,
    "ScatterElements": elementwise.unary,
    "Einsum: square": transposed_left,
    "Hardmax: ties": elementwise.unary,
}
ONLY_WRONG = [
    Case("Hardmax", "Hardmax: ties", vector(tied_zeros), (FROZEN,), 20),
    Case(
        "Einsum",
        "Einsum: square",
        tokens(lambda net, x: net.op("Einsum", x, w(net, 6, 6), equation="bti,io->bto")),
        between(1, 0),
        20,
    ),
]


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_rule_is_found_out(name):
    """What the check of soundness is worth: with this rule instead, it fails."""
    (wronged,) = [case for case in (*CASES, *ONLY_WRONG) if case.name == name]
    right = ROWS[wronged.op].rule
    table = {op: replace(row, rule=WRONG[name]) if row.rule is right else row for op, row in ROWS.items()}
    graph = wronged.graph
    copy, _ = permuted_copy(graph, groups_of(graph, table))
    found, _ = moved(graph, stored(copy))
    assert found > 1e-3


# --- a known limit ----------------------------------------------------------------------------------------------


def shuffled(net: Net, x: str, units: int) -> str:
    return net.op("Gather", x, net.constant(np.random.default_rng(0).permutation(units)), axis=1)


def gate(net: Net, x: str) -> str:
    a, b = net.op("Split", shuffled(net, x, 12), outputs=2, axis=1, num_outputs=2)
    return net.op("Mul", a, net.op("Tanh", b))


def scaled_copies(net: Net, x: str) -> str:
    x = net.op("Tile", x, net.constant([1, 2, 1, 1]))
    return shuffled(net, net.op("Mul", x, p(net, 12, 1, 1)), 12)


SHUFFLED = {
    "gate": image(gate, 6, 12),
    "depth to space": image(lambda net, x: net.op("DepthToSpace", shuffled(net, x, 12), blocksize=2), 3, 12),
    "space to depth": image(lambda net, x: shuffled(net, net.op("SpaceToDepth", x, blocksize=2), 24), 24),
    "copies": image(scaled_copies, 12),
}


@pytest.mark.parametrize("name", sorted(SHUFFLED))
def test_places_of_units_that_lie_in_different_orders_answer_by_what_they_are_for(name):
    """A unit of several places trades them with another one by one: each must be for the same in both."""
    net = Net(0)
    graph = net.graph(SHUFFLED[name](net))
    copy, _ = permuted_copy(graph, groups_of(graph))
    found, limit = moved(graph, stored(copy))
    assert found <= limit
