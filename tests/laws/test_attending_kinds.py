"""What theory says is free is found in many kinds of networks, and copies with all of it moved give the base back."""

from collections import Counter

import pytest
from builders import deviation, inputs_of, run
from nested_nets import permuted

import mal_graph
from mal_graph.operators import GroupState
from mal_graph.symmetry.networks import build_network

try:
    from attending_kinds import FREE, OTHERWISE, build, example
    from exporting import exported, with_front_ends

    WITH_FRONT_ENDS = [*with_front_ends(FREE, lambda kind: kind.__name__)]
except ImportError:
    FREE, WITH_FRONT_ENDS = {}, []

pytestmark = pytest.mark.torch
by_kind = pytest.mark.parametrize("kind", FREE, ids=lambda kind: kind.__name__)


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(other, inputs, "onnxruntime"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("kind", "front_end"), WITH_FRONT_ENDS)
def test_what_theory_says_is_free_is_found_and_gives_the_base_back(kind, front_end):
    base = exported(build(kind), example(kind), front_end)
    groups = build_network(base).groups.groups
    free = Counter((group.units, group.inside is not None) for group in groups if group.state is GroupState.VERIFIED)
    assert free == OTHERWISE.get((kind, front_end), FREE[kind])
    result = mal_graph.assemble(base, permuted(base, 3), lam=0.3, method="mal")
    step = result.merged[0]
    assert far(result.graph, base) <= 1e-4
    assert not {**step.plan.skipped, **step.plan.dropped, **step.promises.kept}


@by_kind
@pytest.mark.slow
def test_at_lambda_one_the_merge_is_the_donor(kind):
    base, donor = (exported(build(kind, seed), example(kind), "torchscript") for seed in (0, 1))
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert far(result.graph, donor) <= 1e-4
