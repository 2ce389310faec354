"""Models with branches and loops side by side: the mean of both, whichever branch is taken."""

import numpy as np
import onnx_ir as ir
import pytest
from body_nets import BRANCHES, CALLING, KINDS, LOOPING, NESTING, SCANNING
from builders import deviation, load, run

import mal_graph
from mal_graph_adapters.onnx_format.build import built_model

PAIRS = {kind.name: (kind, kind) for kind in KINDS} | {
    "a branch beside a loop": (BRANCHES, LOOPING),
    "a loop beside a branch in a branch": (LOOPING, NESTING),
    "functions beside branches": (CALLING, BRANCHES),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_union_of_models_with_bodies_gives_their_mean(name):
    base, donor = PAIRS[name]
    graphs = load(base.make(base.drawn(0))), load(donor.make(donor.drawn(1)))
    united = mal_graph.assemble(*graphs, method="union", budget="full").graph
    again = load(ir.to_proto(built_model(united)))
    for sign in (1, -1):
        inputs = base.arrays(sign)
        mean = np.mean([run(graph, inputs, "onnxruntime")[0] for graph in graphs], axis=0)
        assert deviation(run(united, inputs, "onnxruntime"), [mean]) < 1e-5
        assert deviation(run(again, inputs, "onnxruntime"), [mean]) < 1e-5


def test_what_is_computed_alike_inside_a_body_stands_in_each():
    """Both models double the same tensor inside of a branch, where nothing outside can read it."""
    graphs = [load(SCANNING.make(SCANNING.drawn(0))) for _ in range(2)]
    united = mal_graph.assemble(*graphs, method="union", budget="full").graph
    assert sum(bool(node.runs) for node in united.nodes) == 2
