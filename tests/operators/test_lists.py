"""Lists of tensors hold the units of their elements, wherever they go."""

import onnx
import pytest

import mal_graph
from mal_graph.network import probe
from mal_graph.symmetry import axis_groups

PARTS = """<ir_version: 9, opset_import: ["": 18]>
net (float[N, 8] x, float[6, 8] up, float[2, 6] down) => (float[N, 2] y, {output})
<int64 three = {{3}}> {{
    h = Gemm<transB = 1>(x, up)
    y = Gemm<transB = 1>(h, down)
    parts = SplitToSequence<axis = 1>(h, three)
    {more}
}}
"""
OUTPUTS = {
    "the list": ("seq(float[N, 3]) parts", "", False),
    "the list, passed on": ("seq(float[N, 3]) same", "same = Identity(parts)", False),
    "how many there are": ("int64 count", "count = SequenceLength(parts)", True),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_a_list_gives_away_decides_whether_its_units_are_free(output, tmp_path):
    declared, more, is_free = OUTPUTS[output]
    model = onnx.parser.parse_model(PARTS.format(output=declared, more=more))
    weights = [model.graph.input.pop(1) for _ in range(2)]
    for number, weight in enumerate(weights):
        shape = [axis.dim_value for axis in weight.type.tensor_type.shape.dim]
        values = [1.0 + number + place for place in range(shape[0] * shape[1])]
        model.graph.initializer.append(onnx.helper.make_tensor(weight.name, onnx.TensorProto.FLOAT, shape, values))
    onnx.save(model, tmp_path / "lists.onnx")
    graph = mal_graph.load(tmp_path / "lists.onnx")
    groups = axis_groups(graph, probe(graph))
    assert any(groups.groups[i].units == 6 for i in groups.usable()) == is_free
