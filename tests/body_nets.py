"""Small networks with weights in the bodies of operators, and donors permuted by hand in the tensors of the file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
FEATURES, CLASSES = 6, 3
Weights = Mapping[str, np.ndarray]
Places = Mapping[str, Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        make: builds the model from its weights.
        shapes: of the weights.
        units: by hidden layer the weights and axes that its units lie on; a longer axis has them gate by gate.
        inputs: a shape for each input.
    """

    name: str
    make: Callable[[Weights], onnx.ModelProto]
    shapes: Mapping[str, tuple[int, ...]]
    units: Places
    inputs: Mapping[str, tuple[int, ...]]

    def drawn(self, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {
            name: (rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 4)).astype(np.float32)
            for name, shape in self.shapes.items()
        }

    def permuted(self, weights: Weights, seed: int) -> dict[str, np.ndarray]:
        """The same function with the units of every hidden layer in another order."""
        rng, moved = np.random.default_rng(seed), dict(weights)
        for places in self.units.values():
            name, axis = min(places, key=lambda place: weights[place[0]].shape[place[1]])
            order = rng.permutation(weights[name].shape[axis])
            for name, axis in places:
                runs = weights[name].shape[axis] // len(order)
                index = np.concatenate([order + run * len(order) for run in range(runs)])
                moved[name] = moved[name].take(index, axis)
        return moved

    def arrays(self, sign: float, seed: int = 3) -> dict[str, np.ndarray]:
        """Inputs whose mean has a sign."""
        rng = np.random.default_rng(seed)
        return {
            name: (sign * np.abs(rng.normal(size=shape)) + 0.3 * rng.normal(size=shape)).astype(np.float32)
            for name, shape in self.inputs.items()
        }


def value(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def value_of_list(name):
    return helper.make_tensor_sequence_value_info(name, FLOAT, None)


def stored(weights, *names):
    return [numpy_helper.from_array(np.asarray(weights[name]), name) for name in names]


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def steps(*lines):
    """Nodes written "a b = Op(x, y)", with attributes behind in a pair."""
    nodes = []
    for line in lines:
        line, attributes = line if isinstance(line, tuple) else (line, {})
        if not isinstance(line, str):
            nodes.append(line)
            continue
        made, call = line.split(" = ")
        op, read = call.removesuffix(")").split("(", 1)
        domain, _, op = op.rpartition(".")
        inputs = [name.strip() for name in read.split(",")] if read else []
        nodes.append(helper.make_node(op, inputs, made.split(), domain=domain, name=made.split()[0], **attributes))
    return nodes


def body(lines, outputs, inputs=(), initializers=()):
    """A graph that an operator runs; inputs and outputs are names, or values with a type."""
    values = [[one if not isinstance(one, str) else value(one) for one in side] for side in (inputs, outputs)]
    return helper.make_graph(steps(*lines), "body", *values, initializers)


def model(lines, initializers, inputs, functions=(), more=((), ())):
    """A model of x, and y; `more` are further inputs and outputs."""
    graph = helper.make_graph(
        steps(*lines),
        "net",
        [*(value(name, FLOAT, ["N", *shape[1:]]) for name, shape in inputs.items()), *more[0]],
        [value("y", FLOAT, ["N", CLASSES]), *more[1]],
        list(initializers),
    )
    domains = [helper.make_opsetid("", 17)] + ([helper.make_opsetid("own", 1)] if functions else [])
    made = helper.make_model(graph, opset_imports=domains, ir_version=8, functions=list(functions))
    onnx.checker.check_model(made)
    return made


X = {"x": (3, FEATURES)}
CONDITION = [constant("zero", np.float32(0)), ("mean = ReduceMean(x)", {"keepdims": 0}), "c = Greater(mean, zero)"]


def branches(weights):
    then = body(
        ["a1 = MatMul(h, ta)", "a2 = Add(a1, tb)", "a3 = Relu(a2)", "a4 = MatMul(a3, tc)"],
        ["a4"],
        initializers=stored(weights, "ta", "tb", "tc"),
    )
    other = body(
        [
            constant("ea", weights["ea"]),
            "a1 = MatMul(h, ea)",
            "a2 = Tanh(a1)",
            constant("ec", weights["ec"]),
            "b = MatMul(a2, ec)",
        ],
        ["b"],
    )
    lines = [
        *CONDITION,
        "g = Gemm(x, w, b0)",
        "h = Relu(g)",
        ("r = If(c)", {"then_branch": then, "else_branch": other}),
    ]
    return model([*lines, "s = Relu(r)", "y = MatMul(s, v)"], stored(weights, "w", "b0", "v"), X)


BRANCHES = Kind(
    "branches with weights of their own",
    branches,
    {"w": (6, 8), "b0": (8,), "ta": (8, 7), "tb": (7,), "tc": (7, 5), "ea": (8, 9), "ec": (9, 5), "v": (5, CLASSES)},
    {
        "h": [("w", 1), ("b0", 0), ("ta", 0), ("ea", 0)],
        "then": [("ta", 1), ("tb", 0), ("tc", 0)],
        "else": [("ea", 1), ("ec", 0)],
        "r": [("tc", 1), ("ec", 1), ("v", 0)],
    },
    X,
)


def sharing(weights):
    bodies = {
        f"{key}_branch": body(["a = Gemm(h, u, b1)", f"out = {op}(a)"], ["out"])
        for key, op in (("then", "Relu"), ("else", "Tanh"))
    }
    lines = [*CONDITION, "g = Gemm(x, w, b0)", "h = Relu(g)", ("r = If(c)", bodies), "y = MatMul(r, v)"]
    return model(lines, stored(weights, "w", "b0", "u", "b1", "v"), X)


SHARING = Kind(
    "branches that share weights from outside",
    sharing,
    {"w": (6, 8), "b0": (8,), "u": (8, 7), "b1": (7,), "v": (7, CLASSES)},
    {"h": [("w", 1), ("b0", 0), ("u", 0)], "r": [("u", 1), ("b1", 0), ("v", 0)]},
    X,
)


def nesting(weights):
    inner = {
        "then_branch": body(["a = MatMul(k, ta)", "out = Relu(a)"], ["out"], initializers=stored(weights, "ta")),
        "else_branch": body(["a = MatMul(k, ea)", "out = Tanh(a)"], ["out"], initializers=stored(weights, "ea")),
    }
    then = body(
        [
            "q = MatMul(h, p)",
            "k = Relu(q)",
            ("m = ReduceMean(k)", {"keepdims": 0}),
            constant("limit", np.float32(0.4)),
            "d = Greater(m, limit)",
            ("out = If(d)", inner),
        ],
        ["out"],
        initializers=stored(weights, "p"),
    )
    other = body(["out = MatMul(h, o)"], ["out"], initializers=stored(weights, "o"))
    lines = [
        *CONDITION,
        "g = Gemm(x, w, b0)",
        "h = Relu(g)",
        ("r = If(c)", {"then_branch": then, "else_branch": other}),
    ]
    return model([*lines, "y = MatMul(r, v)"], stored(weights, "w", "b0", "v"), X)


NESTING = Kind(
    "a branch in a branch",
    nesting,
    {"w": (6, 8), "b0": (8,), "p": (8, 7), "ta": (7, 5), "ea": (7, 5), "o": (8, 5), "v": (5, CLASSES)},
    {
        "h": [("w", 1), ("b0", 0), ("p", 0), ("o", 0)],
        "k": [("p", 1), ("ta", 0), ("ea", 0)],
        "r": [("ta", 1), ("ea", 1), ("o", 1), ("v", 0)],
    },
    X,
)


def looping(weights, start="h0 = MatMul(x, u)", runs=4):
    cell = body(
        [
            "a1 = Gemm(state, r, rb)" if "rb" in weights else "a1 = MatMul(state, r)",
            "a2 = MatMul(x, c)",
            "a3 = Add(a1, a2)",
            "a4 = Add(a3, b)",
            "new = Tanh(a4)",
            "f1 = MatMul(new, f)",
            "f2 = Relu(f1)",
            "seen = MatMul(f2, f3)",
            "on = Identity(go)",
        ],
        [value("on", BOOL, []), "new", "seen"],
        [value("run", INT, []), value("go", BOOL, []), value("state")],
        stored(weights, "r", "f", *(name for name in ("rb",) if name in weights)),
    )
    lines = [
        constant("count", np.int64(runs)),
        constant("true", np.array(True)),
        start,
        ("last all = Loop(count, true, h0)", {"body": cell}),
        ("mean = ReduceMean(all)", {"axes": [0], "keepdims": 0}),
        "y1 = MatMul(last, v)",
        "y2 = MatMul(mean, v2)",
        "y = Add(y1, y2)",
    ]
    names = ["c", "b", "f3", "v", "v2", *(name for name in ("u", "u0") if name in weights)]
    return model(lines if isinstance(start, str) else [*ZEROS, *lines], stored(weights, *names), X)


ZEROS = [
    "shape = Shape(x)",
    constant("first", np.array([0])),
    ("samples = Gather(shape, first)", {}),
    constant("width", np.array([8])),
    ("size = Concat(samples, width)", {"axis": 0}),
]
LOOP_SHAPES = {
    "u": (6, 8),
    "r": (8, 8),
    "c": (6, 8),
    "b": (8,),
    "f": (8, 7),
    "f3": (7, 5),
    "v": (8, CLASSES),
    "v2": (5, CLASSES),
}
LOOP_UNITS = {
    "state": [("u", 1), ("r", 0), ("r", 1), ("c", 1), ("b", 0), ("f", 0), ("v", 0)],
    "inner": [("f", 1), ("f3", 0)],
    "seen": [("f3", 1), ("v2", 0)],
}
LOOPING = Kind("a state carried through a loop", looping, LOOP_SHAPES, LOOP_UNITS, X)


def without(name):
    shapes = {key: shape for key, shape in LOOP_SHAPES.items() if key != name}
    return shapes, {key: [place for place in places if place[0] != name] for key, places in LOOP_UNITS.items()}


FROM_ZEROS = Kind(
    "a state that starts from zeros",
    lambda weights: looping(weights, ("h0 = ConstantOfShape(size)", {})),
    *without("u"),
    X,
)

FOR_LONG = replace(
    FROM_ZEROS,
    name="a state that starts from zeros, for many runs",
    make=lambda weights: looping(weights, ("h0 = ConstantOfShape(size)", {}), runs=96),
    shapes={**FROM_ZEROS.shapes, "rb": (8,)},
    units={**FROM_ZEROS.units, "state": [("rb", 0), *FROM_ZEROS.units["state"]]},
)

LEARNED = Kind(
    "a state that starts from learned numbers",
    lambda weights: looping(weights, ("h0 = Identity(u0)", {})),
    {**FROM_ZEROS.shapes, "u0": (1, 8)},
    {**FROM_ZEROS.units, "state": [("u0", 1), *FROM_ZEROS.units["state"]]},
    X,
)

STEPS = {"x": (3, 5, FEATURES)}


def scanning(weights):
    cell = body(
        [
            "a1 = MatMul(state, r)",
            "a2 = Gemm(row, c, b)",
            "a3 = Add(a1, a2)",
            "new = Tanh(a3)",
            "seen = MatMul(new, f)",
        ],
        ["new", "seen"],
        ["state", "row"],
        stored(weights, "r", "c"),
    )
    lines = [
        ("first = ReduceMean(x)", {"axes": [1], "keepdims": 0}),
        "h0 = MatMul(first, u)",
        (
            "last all = Scan(h0, x)",
            {"body": cell, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]},
        ),
        ("mean = ReduceMean(all)", {"axes": [1], "keepdims": 0}),
        "y1 = MatMul(last, v)",
        "y2 = MatMul(mean, v2)",
        "y = Add(y1, y2)",
    ]
    return model(lines, stored(weights, "u", "b", "f", "v", "v2"), STEPS)


SCANNING = Kind(
    "a recurrent cell in a scan",
    scanning,
    {"u": (6, 8), "r": (8, 8), "c": (6, 8), "b": (8,), "f": (8, 5), "v": (8, CLASSES), "v2": (5, CLASSES)},
    {
        "state": [("u", 1), ("r", 0), ("r", 1), ("c", 1), ("b", 0), ("f", 0), ("v", 0)],
        "seen": [("f", 1), ("v2", 0)],
    },
    STEPS,
)


def branching_loop(weights):
    inner = {
        "then_branch": body(["a = MatMul(state, ta)", "out = Tanh(a)"], ["out"], initializers=stored(weights, "ta")),
        "else_branch": body(
            ["a = MatMul(state, ea)", "a1 = Relu(a)", "out = MatMul(a1, ec)"],
            ["out"],
            initializers=stored(weights, "ea", "ec"),
        ),
    }
    cell = body(
        [
            constant("two", np.int64(2)),
            "odd = Mod(run, two)",
            ("even = Equal(odd, zero_int)", {}),
            ("moved = If(even)", inner),
            "new = Add(moved, h0)",
            "on = Identity(go)",
        ],
        [value("on", BOOL, []), "new"],
        [value("run", INT, []), value("go", BOOL, []), value("state")],
    )
    lines = [
        constant("count", np.int64(3)),
        constant("zero_int", np.int64(0)),
        "h0 = Gemm(x, u, b)",
        ("last = Loop(count, , h0)", {"body": cell}),
        "y = MatMul(last, v)",
    ]
    return model(lines, stored(weights, "u", "b", "v"), X)


BRANCHING_LOOP = Kind(
    "a branch in a loop",
    branching_loop,
    {"u": (6, 8), "b": (8,), "ta": (8, 8), "ea": (8, 7), "ec": (7, 8), "v": (8, CLASSES)},
    {
        "state": [("u", 1), ("b", 0), ("ta", 0), ("ta", 1), ("ea", 0), ("ec", 1), ("v", 0)],
        "inner": [("ea", 1), ("ec", 0)],
    },
    X,
)


def calling(weights):
    nodes = steps(constant("k", weights["fa"]), "m = MatMul(i, k)", "o = Relu(m)")
    function = helper.make_function("own", "Dense", ["i"], ["o"], nodes, [helper.make_opsetid("", 17)])
    bodies = {
        "then_branch": body(["p = own.Dense(h)", "out = MatMul(p, ta)"], ["out"], initializers=stored(weights, "ta")),
        "else_branch": body(
            ["p = own.Dense(h)", "q = Tanh(p)", "out = MatMul(q, ea)"], ["out"], initializers=stored(weights, "ea")
        ),
    }
    lines = [*CONDITION, "g = Gemm(x, w, b0)", "h = Relu(g)", ("r = If(c)", bodies), "y = MatMul(r, v)"]
    return model(lines, stored(weights, "w", "b0", "v"), X, [function])


CALLING = Kind(
    "a function called in both branches",
    calling,
    {"w": (6, 8), "b0": (8,), "fa": (8, 7), "ta": (7, 5), "ea": (7, 5), "v": (5, CLASSES)},
    {
        "h": [("w", 1), ("b0", 0), ("fa", 0)],
        "called": [("fa", 1), ("ta", 0), ("ea", 0)],
        "r": [("ta", 1), ("ea", 1), ("v", 0)],
    },
    X,
)


def remembering(weights, way="forward"):
    read = ["x", "wi", "wr", "wb"]
    lstm = helper.make_node("LSTM", read, ["all"], hidden_size=7, direction=way)
    squeeze = "seq = Squeeze(all, one)" if way == "forward" else "seq = Reshape(turned, flat)"
    turned = (
        []
        if way == "forward"
        else [("turned = Transpose(all)", {"perm": [0, 2, 1, 3]}), constant("flat", np.array([0, 0, -1]))]
    )
    then = body(
        [constant("one", np.array([1])), lstm, *turned, squeeze, "out = MatMul(seq, ta)"],
        ["out"],
        initializers=stored(weights, "wi", "wr", "wb", "ta"),
    )
    other = body(
        ["a = MatMul(x, ea)", "a1 = Tanh(a)", "out = MatMul(a1, ec)"], ["out"], initializers=stored(weights, "ea", "ec")
    )
    lines = [*CONDITION, ("r = If(c)", {"then_branch": then, "else_branch": other})]
    return model(
        [*lines, ("m = ReduceMean(r)", {"axes": [1], "keepdims": 0}), "y = MatMul(m, v)"], stored(weights, "v"), STEPS
    )


LSTM_SHAPES = {
    "wi": (1, 28, 6),
    "wr": (1, 28, 7),
    "wb": (1, 56),
    "ta": (7, 5),
    "ea": (6, 9),
    "ec": (9, 5),
    "v": (5, CLASSES),
}
REMEMBERING = Kind(
    "an LSTM in a branch",
    remembering,
    LSTM_SHAPES,
    {
        "units": [("wi", 1), ("wr", 1), ("wr", 2), ("wb", 1), ("ta", 0)],
        "else": [("ea", 1), ("ec", 0)],
        "r": [("ta", 1), ("ec", 1), ("v", 0)],
    },
    STEPS,
)


def skipping(weights):
    """A layer that is left out for some inputs, and one that is left out for none, whose If takes an axis away."""
    then = body(["a = MatMul(h, ta)", "out = Tanh(a)"], ["out"], initializers=stored(weights, "ta"))
    other = body(["out = Identity(h)"], ["out"])
    bodies = {
        "then_branch": body([constant("first", np.array([0])), "out = Squeeze(r, first)"], ["out"]),
        "else_branch": body(["out = Identity(r)"], ["out"]),
    }
    lines = [
        *CONDITION,
        "g = Gemm(x, w, b0)",
        "h = Relu(g)",
        ("r = If(c)", {"then_branch": then, "else_branch": other}),
        "s = Shape(r)",
        constant("one", np.array([1])),
        constant("zero_at", np.array([0])),
        "n = Gather(s, zero_at)",
        "d = Equal(n, one)",
        ("q = If(d)", bodies),
        "y = MatMul(q, v)",
    ]
    return model(lines, stored(weights, "w", "b0", "v"), X)


SKIPPING = Kind(
    "a layer that a branch skips",
    skipping,
    {"w": (6, 8), "b0": (8,), "ta": (8, 8), "v": (8, CLASSES)},
    {"h": [("w", 1), ("b0", 0), ("ta", 0), ("ta", 1), ("v", 0)]},
    X,
)


def halving(weights):
    """Each branch reads one half of the inputs, whose places have names."""
    bodies = {
        f"{key}_branch": body(
            [
                constant("first", np.array([start])),
                constant("last", np.array([start + 3])),
                constant("axis", np.array([1])),
                "half = Slice(x, first, last, axis)",
                f"a = MatMul(half, {weight})",
                "out = Relu(a)",
            ],
            ["out"],
            initializers=stored(weights, weight),
        )
        for key, weight, start in (("then", "ta", 0), ("else", "ea", 3))
    }
    return model([*CONDITION, ("r = If(c)", bodies), "y = MatMul(r, v)"], stored(weights, "v"), X)


HALVING = Kind(
    "half of the inputs in each branch",
    halving,
    {"ta": (3, 7), "ea": (3, 7), "v": (7, CLASSES)},
    {"r": [("ta", 1), ("ea", 1), ("v", 0)]},
    X,
)


def collecting(weights):
    """A loop that carries a state, and a list of what it gave in each run."""
    cell = body(
        [
            "a1 = MatMul(state, r)",
            "a2 = MatMul(x, c)",
            "a3 = Add(a1, a2)",
            "new = Tanh(a3)",
            "seen = MatMul(new, f)",
            "longer = SequenceInsert(parts, seen)",
            "on = Identity(go)",
        ],
        [value("on", BOOL, []), "new", value_of_list("longer")],
        [value("run", INT, []), value("go", BOOL, []), value("state"), value_of_list("parts")],
        stored(weights, "r", "f"),
    )
    lines = [
        constant("count", np.int64(4)),
        "h0 = MatMul(x, u)",
        "nothing = SequenceEmpty()",
        ("last all = Loop(count, , h0, nothing)", {"body": cell}),
        ("rows = ConcatFromSequence(all)", {"axis": 1, "new_axis": 1}),
        ("mean = ReduceMean(rows)", {"axes": [1], "keepdims": 0}),
        "y1 = MatMul(last, v)",
        "y2 = MatMul(mean, v2)",
        "y = Add(y1, y2)",
    ]
    return model(lines, stored(weights, "u", "c", "v", "v2"), X)


COLLECTING = Kind(
    "a list that a loop makes",
    collecting,
    {"u": (6, 8), "r": (8, 8), "c": (6, 8), "f": (8, 5), "v": (8, CLASSES), "v2": (5, CLASSES)},
    {
        "state": [("u", 1), ("r", 0), ("r", 1), ("c", 1), ("f", 0), ("v", 0)],
        "seen": [("f", 1), ("v2", 0)],
    },
    X,
)


def attending_back(weights):
    """A loop that reads the list that it carries: each step begins from the mean of all that went before."""
    cell = body(
        [
            ("rows = ConcatFromSequence(parts)", {"axis": 1}),
            ("mean = ReduceMean(rows)", {"axes": [1], "keepdims": 1}),
            "a1 = MatMul(mean, r)",
            constant("back", np.int64(-1)),
            "latest = SequenceAt(parts, back)",
            "a2 = MatMul(latest, c)",
            "a3 = Add(a1, a2)",
            "new = Tanh(a3)",
            "longer = SequenceInsert(parts, new)",
            "on = Identity(go)",
        ],
        [value("on", BOOL, []), value_of_list("longer")],
        [value("run", INT, []), value("go", BOOL, []), value_of_list("parts")],
        stored(weights, "r", "c"),
    )
    lines = [
        constant("count", np.int64(3)),
        constant("one", np.array([1])),
        "x1 = Unsqueeze(x, one)",
        "h0 = MatMul(x1, u)",
        "first = SequenceConstruct(h0)",
        ("all = Loop(count, , first)", {"body": cell}),
        ("rows = ConcatFromSequence(all)", {"axis": 1}),
        ("mean = ReduceMean(rows)", {"axes": [1], "keepdims": 0}),
        "y = MatMul(mean, v)",
    ]
    return model(lines, stored(weights, "u", "v"), X)


ATTENDING_BACK = Kind(
    "a list that a loop makes and reads",
    attending_back,
    {"u": (6, 8), "r": (8, 8), "c": (8, 8), "v": (8, CLASSES)},
    {"state": [("u", 1), ("r", 0), ("r", 1), ("c", 0), ("c", 1), ("v", 0)]},
    X,
)


def going_through(weights):
    """A loop over the elements of a list."""
    cell = body(
        [
            "step = SequenceAt(parts, run)",
            "a1 = MatMul(state, r)",
            "a2 = MatMul(step, c)",
            "a3 = Add(a1, a2)",
            "new = Tanh(a3)",
            "on = Identity(go)",
        ],
        [value("on", BOOL, []), "new"],
        [value("run", INT, []), value("go", BOOL, []), value("state")],
        stored(weights, "r", "c"),
    )
    lines = [
        "e = MatMul(x, w)",
        "e1 = Relu(e)",
        ("parts = SplitToSequence(e1)", {"axis": 1, "keepdims": 0}),
        "count = SequenceLength(parts)",
        ("m = ReduceMean(x)", {"axes": [1], "keepdims": 0}),
        "h0 = MatMul(m, u)",
        ("last = Loop(count, , h0)", {"body": cell}),
        "y = MatMul(last, v)",
    ]
    return model(lines, stored(weights, "w", "u", "v"), STEPS)


GOING_THROUGH = Kind(
    "a loop over the elements of a list",
    going_through,
    {"w": (6, 7), "u": (6, 8), "r": (8, 8), "c": (7, 8), "v": (8, CLASSES)},
    {"e": [("w", 1), ("c", 0)], "state": [("u", 1), ("r", 0), ("r", 1), ("c", 1), ("v", 0)]},
    STEPS,
)


def mapping(weights):
    """The same layers for each element of a list, with what is one for all."""
    each = body(
        ["a1 = MatMul(part, c)", "a2 = MatMul(whole, d)", "a3 = Add(a1, a2)", "a4 = Relu(a3)", "made = MatMul(a4, f)"],
        ["made"],
        ["part", "whole"],
        stored(weights, "c", "d"),
    )
    lines = [
        "e = MatMul(x, w)",
        "e1 = Relu(e)",
        ("parts = SplitToSequence(e1)", {"axis": 1, "keepdims": 0}),
        ("m = ReduceMean(e1)", {"axes": [1], "keepdims": 0}),
        ("all = SequenceMap(parts, m)", {"body": each}),
        ("rows = ConcatFromSequence(all)", {"axis": 1, "new_axis": 1}),
        ("top = ReduceMax(rows)", {"axes": [1], "keepdims": 0}),
        "y = MatMul(top, v)",
    ]
    return model(lines, stored(weights, "w", "f", "v"), STEPS)


MAPPING = Kind(
    "layers for each element of a list",
    mapping,
    {"w": (6, 8), "c": (8, 9), "d": (8, 9), "f": (9, 5), "v": (5, CLASSES)},
    {
        "e": [("w", 1), ("c", 0), ("d", 0)],
        "inner": [("c", 1), ("d", 1), ("f", 0)],
        "made": [("f", 1), ("v", 0)],
    },
    STEPS,
)

KINDS = [
    COLLECTING,
    ATTENDING_BACK,
    GOING_THROUGH,
    MAPPING,
    SKIPPING,
    HALVING,
    BRANCHES,
    SHARING,
    NESTING,
    LOOPING,
    FROM_ZEROS,
    FOR_LONG,
    LEARNED,
    SCANNING,
    BRANCHING_LOOP,
    CALLING,
    REMEMBERING,
]


def flattening(weights):
    """A branch that runs where there are four steps, and another one for any number of them."""
    then = body(
        ["f = Flatten(h)", "a = MatMul(f, ta)", "a1 = Relu(a)", "out = MatMul(a1, tc)"],
        ["out"],
        initializers=stored(weights, "ta", "tc"),
    )
    other = body(
        [
            ("m = ReduceMean(h)", {"axes": [1], "keepdims": 0}),
            "a = MatMul(m, ea)",
            "a1 = Tanh(a)",
            "out = MatMul(a1, ec)",
        ],
        ["out"],
        initializers=stored(weights, "ea", "ec"),
    )
    lines = [
        "s = Shape(x)",
        constant("one", np.array([1])),
        "n = Gather(s, one)",
        constant("four", np.array([4])),
        "c = Equal(n, four)",
        "g = MatMul(x, w)",
        "h = Relu(g)",
        ("r = If(c)", {"then_branch": then, "else_branch": other}),
        "p = Relu(r)",
        "q = MatMul(p, v)",
        "q1 = Relu(q)",
        "y = MatMul(q1, z)",
    ]
    made = model(lines, stored(weights, "w", "v", "z"), STEPS)
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "T"
    return made


FLATTENING = Kind(
    "a branch for one length",
    flattening,
    {
        "w": (6, 8),
        "ta": (32, 9),
        "tc": (9, 5),
        "ea": (8, 7),
        "ec": (7, 5),
        "v": (5, 10),
        "z": (10, CLASSES),
    },
    {
        "then": [("ta", 1), ("tc", 0)],
        "else": [("ea", 1), ("ec", 0)],
        "r": [("tc", 1), ("ec", 1), ("v", 0)],
        "q": [("v", 1), ("z", 0)],
    },
    STEPS,
)


def swapping(weights, *, swapped):
    """Two branches, one for either sign of the mean; written the other way round with the condition turned round."""
    first, second = (
        body(
            [f"a1 = MatMul(h, {one}a)", "a2 = Relu(a1)", f"out = MatMul(a2, {one}c)"],
            ["out"],
            initializers=stored(weights, f"{one}a", f"{one}c"),
        )
        for one in "te"
    )
    bodies = {"then_branch": second, "else_branch": first} if swapped else {"then_branch": first, "else_branch": second}
    turned = "c1 = Not(c)" if swapped else "c1 = Identity(c)"
    lines = [*CONDITION, turned, "g = Gemm(x, w, b0)", "h = Relu(g)", ("r = If(c1)", bodies), "y = MatMul(r, v)"]
    return model(lines, stored(weights, "w", "b0", "v"), X)


SWAPPING = Kind(
    "two branches",
    lambda weights: swapping(weights, swapped=False),
    {"w": (6, 8), "b0": (8,), "ta": (8, 7), "tc": (7, 5), "ea": (8, 7), "ec": (7, 5), "v": (5, CLASSES)},
    {},
    X,
)


def listening(weights):
    """A detector of speech for two sample rates: an LSTM for each in a branch, whose state comes in and goes out."""
    bodies = {}
    for key, one in (("then", "t"), ("else", "e")):
        lines = [
            constant("one", np.array([1])),
            f"f = MatMul(x, {one}f)",
            "f1 = Relu(f)",
            ("f2 = Transpose(f1)", {"perm": [1, 0, 2]}),
            (f"all h1 c1 = LSTM(f2, {one}i, {one}r, {one}b, , h, c)", {"hidden_size": 7}),
            "last = Squeeze(h1, zero_at)",
            "last1 = Relu(last)",
            f"out = MatMul(last1, {one}v)",
        ]
        held = [f"{one}{name}" for name in "firbv"]
        bodies[f"{key}_branch"] = body(
            [constant("zero_at", np.array([0])), *lines], ["out", "h1", "c1"], initializers=stored(weights, *held)
        )
    lines = [constant("rate", np.int64(16000)), "is16 = Equal(sr, rate)", ("y hn cn = If(is16)", bodies)]
    given = [value("sr", INT, []), value("h", FLOAT, [1, "N", 7]), value("c", FLOAT, [1, "N", 7])]
    told = [value("hn", FLOAT, [1, "N", 7]), value("cn", FLOAT, [1, "N", 7])]
    return model(lines, [], STEPS, more=(given, told))


LISTENING = Kind(
    "an LSTM for each sample rate",
    listening,
    {
        **{f"{one}f": (6, 8) for one in "te"},
        **{f"{one}i": (1, 28, 8) for one in "te"},
        **{f"{one}r": (1, 28, 7) for one in "te"},
        **{f"{one}b": (1, 56) for one in "te"},
        **{f"{one}v": (7, CLASSES) for one in "te"},
    },
    {one: [(f"{one}f", 1), (f"{one}i", 2)] for one in "te"},  # the state is an input: its units have an order
    STEPS,
)
