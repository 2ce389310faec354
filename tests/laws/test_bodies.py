"""Laws of bodies: weights in an If, a Loop or a Scan, and weights that these read from outside, merge as any others.

Donors are permuted by hand in the tensors of the file, by code that knows nothing of axis rules.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from body_nets import KINDS, Kind
from builders import load

import mal_graph

SMALL = 1e-4
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def outputs_of(proto, inputs):
    return ort.InferenceSession(proto.SerializeToString()).run(None, inputs)[0]


def written(graph, tmp_path):
    path = tmp_path / "merged.onnx"
    mal_graph.save(graph, path, overwrite=True)
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path)


def apart(one, other):
    return float(np.abs(one - other).max() / np.abs(other).max())


@by_kind
@pytest.mark.parametrize("lam", [0.3, 0.5])
def test_a_permuted_copy_gives_back_the_base(kind: Kind, lam, tmp_path):
    weights = kind.drawn(0)
    base, donor = kind.make(weights), kind.make(kind.permuted(weights, 1))
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(donor, inputs), outputs_of(base, inputs)) < 1e-5
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=lam, method="mal")
    plan = result.merged[0].plan
    assert not plan.skipped
    assert not plan.dropped
    assert not result.merged[0].promises.kept
    merged = written(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(merged, inputs), outputs_of(base, inputs)) < SMALL


@by_kind
def test_the_whole_way_gives_the_donor(kind: Kind, tmp_path):
    base, donor = kind.make(kind.drawn(0)), kind.make(kind.drawn(1))
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=1.0, method="mal")
    plan = result.merged[0].plan
    assert not plan.skipped
    assert not plan.dropped
    assert not result.merged[0].promises.kept
    merged = written(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(merged, inputs), outputs_of(donor, inputs)) < SMALL
