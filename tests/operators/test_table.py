"""The operator table against the operators themselves."""

import numpy as np
import onnx
import pytest
from builders import Net, inputs_of, run
from onnx import helper
from onnx.reference import ReferenceEvaluator

from mal_graph.graph import Node
from mal_graph.operators import ROWS, AtZero, elementwise, row_of
from mal_graph.operators.layout import arranged_axes, reshape_target

ONE_OPERAND = sorted(
    op for op, row in ROWS.items() if row.rule is elementwise.unary and not row.moves and "." not in op
)
SINCE = {"Swish": 24}
KINDS = {"Not": bool, "BitwiseNot": np.int64, **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor"], np.int64)}
OF_ONNXRUNTIME = {"SimplifiedLayerNormalization"}  # in the standard's domain, but not in the standard


def evaluate(op, *arrays, **attributes):
    """The operator on these arrays, by the reference evaluator."""
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    node = helper.make_node(op, names, ["y"], **attributes)
    outputs = [helper.make_empty_tensor_value_info("y")]
    opsets = [helper.make_opsetid("", SINCE.get(op, 20))]
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=opsets)
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]


def test_every_operator_of_the_table_exists_in_the_standard():
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert {op for op in ROWS if "." not in op} - known == OF_ONNXRUNTIME


def form(schema):
    """What a node of an operator can say."""
    values = [[(part.name, part.option) for part in side] for side in (schema.inputs, schema.outputs)]
    return values, {name: (a.type, a.required, str(a.default_value)) for name, a in schema.attributes.items()}


@pytest.mark.parametrize("op", sorted(op for op, row in ROWS.items() if row.since is not None))
def test_an_operator_has_one_form_in_every_opset_from_the_told_one_on(op):
    newest = form(onnx.defs.get_schema(op, 26, ""))
    assert all(form(onnx.defs.get_schema(op, opset, "")) == newest for opset in range(ROWS[op].since, 26))


def test_operators_are_alike_from_the_told_opset_on_and_not_before():
    assert ROWS["Reshape"].is_alike(14, 20)
    assert not ROWS["Reshape"].is_alike(13, 20)  # a zero may be told to mean zero since 14
    assert not ROWS["Resize"].is_alike(19, 20)  # nothing is told
    assert not ROWS["Reshape"].is_alike(None, 20)


@pytest.mark.parametrize("op", ONE_OPERAND)
def test_what_an_operator_makes_of_a_zero_unit_is_as_stated(op):
    if op == "Clip":  # depends on its bounds: bounds that exclude 0
        found = evaluate(op, np.zeros(3), np.array(1.0), np.array(2.0))
    else:
        found = evaluate(op, np.zeros(3, KINDS.get(op, np.float64)))
    stated = {
        AtZero.ZERO: np.all(found == 0),
        AtZero.FINITE: np.all(found != 0) and np.isfinite(found.astype(float)).all(),
    }
    at_zero = ROWS[op].at_zero
    assert stated[at_zero] if at_zero in stated else not np.isfinite(found).all()


@pytest.mark.parametrize("op", ONE_OPERAND)
def test_an_operator_of_one_operand_treats_every_unit_alike(op):
    x = np.random.default_rng(0).uniform(0.1, 0.9, 6)
    x = x < 0.5 if op == "Not" else (10 * x).astype(KINDS[op]) if op in KINDS else x + (op == "Acosh")
    order = np.array([3, 0, 5, 1, 4, 2])
    assert np.array_equal(evaluate(op, x[order]), evaluate(op, x)[order])


@pytest.mark.parametrize("op", sorted(op for op, row in ROWS.items() if row.commutes))
def test_operators_said_to_commute_do(op):
    a, b = (9 * np.random.default_rng(0).standard_normal((2, 5))).astype(KINDS.get(op, np.float64))
    assert np.array_equal(evaluate(op, a, b), evaluate(op, b, a))


@pytest.mark.parametrize("op", ["Sub", "Div", "Pow", "Where", "Less"])
def test_operators_that_do_not_commute_are_not_said_to(op):
    assert not ROWS[op].commutes


def test_an_unknown_operator_has_no_row():
    assert row_of(Node("n", "local.Thing", (), ())) is None


@pytest.mark.parametrize(
    ("op", "attributes", "rank", "expected"),
    [
        ("Gemm", {}, 2, (1, 0)),
        ("Gemm", {"transB": 1}, 2, (0, 1)),
        ("MatMul", {}, 2, (1, 0)),
        ("MatMul", {}, 3, (2, 1)),
        ("Conv", {}, 4, (0, 1)),
        ("ConvTranspose", {}, 5, (1, 0)),
    ],
)
def test_out_and_in_axes_of_weights(op, attributes, rank, expected):
    node = Node("n", op, ("x", "w"), ("y",), attributes)
    assert ROWS[op].weight_axes(1, node, rank) == expected


def test_a_matmul_with_the_weight_on_the_left_contracts_its_last_axis():
    node = Node("n", "MatMul", ("w", "x"), ("y",))
    assert ROWS["MatMul"].weight_axes(0, node, 2) == (0, 1)


@pytest.mark.parametrize(
    ("equation", "slot", "rank", "expected"),
    [
        ("bi,io->bo", 1, 2, (1, 0)),
        ("oi,bi->bo", 0, 2, (0, 1)),
        ("...i,oi", 1, 2, (0, 1)),
        ("bti,ihd->bthd", 1, 3, (1, 0)),  # two axes out: the first one counts
        ("bthd,hdo->bto", 1, 3, (2, 0)),  # two axes in: the first one counts
        ("...i,...io->...o", 1, 4, (3, 2)),
        ("bi,i->bi", 1, 1, None),
        ("bi,bi->bi", 1, 2, None),
        ("bi,ij,jo->bo", 1, 2, None),
    ],
)
def test_out_and_in_axes_of_an_einsum_weight_follow_from_its_letters(equation, slot, rank, expected):
    node = Node("n", "Einsum", ("x", "w"), ("y",), {"equation": equation})
    assert ROWS["Einsum"].weight_axes(slot, node, rank) == expected


@pytest.mark.parametrize(
    ("side", "attributes", "expected"),
    [
        ("A", {}, (1, 2)),
        ("B", {}, (2, 1)),
        ("B", {"transB": 1}, (1, 2)),
        ("A", {"transA": 1}, (2, 1)),
        ("B", {"transBatchB": 1}, (2, 0)),
    ],
)
def test_out_and_in_axes_of_a_fused_matmul_weight(side, attributes, expected):
    node = Node("n", "com.microsoft.FusedMatMul", ("x", "w"), ("y",), attributes)
    assert ROWS[node.op].weight_axes("AB".index(side), node, 3) == expected


def test_a_bias_has_no_out_and_in_axes():
    assert ROWS["Conv"].weight_axes(2, Node("n", "Conv", ("x", "w", "b"), ("y",)), 1) is None


@pytest.mark.parametrize(
    ("op", "attributes", "argument", "shape"),
    [
        ("Reshape", {}, [0, -1], (2, 3, 4)),
        ("Reshape", {}, [4, 1, 6], (2, 3, 4)),
        ("Reshape", {"allowzero": 1}, [0, 3], (0, 3)),
        ("Flatten", {"axis": 2}, None, (2, 3, 4)),
        ("Flatten", {"axis": 0}, None, (2, 3, 4)),
        ("Squeeze", {}, [0, -1], (1, 3, 1)),
        ("Squeeze", {}, None, (1, 3, 1)),
        ("Unsqueeze", {}, [0, -1], (3, 2)),
    ],
)
def test_the_target_of_a_reshape_is_what_the_operator_gives(op, attributes, argument, shape):
    arrays = [np.zeros(shape, np.float32), *([] if argument is None else [np.array(argument)])]
    node = Node("n", op, ("x",), ("y",), attributes)
    assert reshape_target(node, shape, argument) == evaluate(op, *arrays, **attributes).shape


@pytest.mark.parametrize("axis", [-1, -2])
def test_the_target_of_a_flatten_counts_negative_axes_from_the_end(axis):
    node = Node("n", "Flatten", ("x",), ("y",), {"axis": axis})
    assert reshape_target(node, (2, 3, 4), None) == evaluate("Flatten", np.zeros((2, 3, 4)), axis=axis).shape


def test_a_zero_unit_padded_into_a_norm_stays_zero():
    """What `Slot.absent_value` promises: a unit that is not there contributes nothing and divides by one."""
    unmatched = [slot.absent_value for slot in ROWS["BatchNormalization"].slots[1:]]
    x = np.zeros((2, 1, 3, 3))
    assert not evaluate("BatchNormalization", x, *[np.full(1, pad) for pad in unmatched]).any()


def test_a_scalar_constant_keeps_its_rank():
    """A scalar index drops an axis; stored as a vector of one it would not."""
    net = Net(0)
    x = net.input("x", ("N", 3))
    graph = net.graph(net.op("Gather", x, net.constant(1), axis=1))
    for runner in ("reference", "onnxruntime"):
        assert run(graph, inputs_of(graph), runner)[0].shape == (3,)


# --- what other packages ask of rows ----------------------------------------------------------------------------


def test_one_operator_is_a_batch_norm():
    assert [op for op, row in ROWS.items() if row.is_batch_norm] == ["BatchNormalization"]


@pytest.mark.parametrize(
    ("attributes", "is_stored"), [({}, True), ({"training_mode": 0}, True), ({"training_mode": 1}, False)]
)
def test_a_batch_norm_in_training_has_no_stored_statistics(attributes, is_stored):
    node = Node("n", "BatchNormalization", tuple("xsbmv"), ("y",), attributes)
    assert row_of(node).has_stored_statistics(node) is is_stored


def test_a_single_group_is_no_size_that_must_follow():
    nodes = [Node("n", "Conv", ("x", "w"), ("y",), {"group": groups}) for groups in (1, 4)]
    assert [list(map(str, ROWS["Conv"].size_constants_of(node))) for node in nodes] == [[], ["group of Conv 'n'"]]


def test_sizes_that_an_input_holds_must_follow_where_it_is_given():
    given, absent = (Node("n", "Split", inputs, ("a", "b")) for inputs in (("x", "sizes"), ("x",)))
    assert [constant.name for constant in ROWS["Split"].size_constants_of(given)] == ["split"]
    assert [constant.is_block_count for constant in ROWS["Split"].size_constants_of(given)] == [False]
    assert ROWS["Split"].size_constants_of(absent) == []


@pytest.mark.parametrize(
    ("op", "attributes", "given", "shape", "sources"),
    [
        ("Transpose", {"perm": [2, 0, 1]}, None, (2, 3, 4), [2, 0, 1]),
        ("Transpose", {}, None, (2, 3), [1, 0]),
        ("Unsqueeze", {}, [0, 2], (3, 4), [None, 0, None, 1]),
        ("Squeeze", {"axes": [0]}, None, (1, 5), [1]),
        ("Reshape", {}, [3, 1, 4], (3, 4), [0, None, 1]),
        ("Reshape", {}, [12], (3, 4), None),
        ("Reshape", {}, None, (3, 4), None),
        ("Reshape", {}, [3, 2, 1, 2], (3, 4), [0, 1, None, 1]),
        ("Reshape", {}, [2, 6], (3, 4), None),
        ("Flatten", {}, None, (3, 1, 4), [0, 2]),
    ],
)
def test_where_the_axes_of_an_arranged_tensor_come_from(op, attributes, given, shape, sources):
    arranged = arranged_axes(Node("n", op, ("x",), ("y",), attributes), shape, given)
    assert (arranged and arranged.sources) == sources
    assert arranged is None or np.prod(arranged.shape) == np.prod(shape)


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("slot", [0, 1])
def test_a_product_of_matrices_spreads_as_its_output_shows(rank, slot):
    """Changed along an axis that produces units, or along one of blocks, a stack changes the output there alone; along
    the one that is consumed, everywhere."""
    node = Node(name="n", op="MatMul", inputs=("a", "b"), outputs=("y",))
    spread = ROWS["MatMul"].spread(node, slot, rank)
    assert sorted([*spread.blocks, *spread.produced, *spread.consumed]) == list(range(rank))
    operands = [np.ones((2, 2, 3, 3)[-rank:]), np.ones((2, 2, 3, 3)[-rank:])]
    before = np.matmul(*operands)
    for axis in range(rank):
        changed = list(operands)
        changed[slot] = operands[slot].copy()
        changed[slot][(slice(None),) * axis + (1,)] += 1
        differs = np.matmul(*changed) != before
        if axis in spread.consumed:
            assert differs.all()
            continue
        there = np.zeros_like(differs)
        there[(..., 1, *[slice(None)] * (-1 - spread.made[axis]))] = True
        assert np.array_equal(differs, there)
