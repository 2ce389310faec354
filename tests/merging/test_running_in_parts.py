"""A large graph is run a part at a time, with the outputs of the whole; its weights are let go of on the way."""

import numpy as np
import pytest
from builders import inputs_of, mlp, vit
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph import registry
from mal_graph.merging import Sessions, outputs
from mal_graph.symmetry import segments


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 9), st.sampled_from([1, 2000, 20_000]))
@pytest.mark.parametrize("make", [lambda seed: vit(seed, blocks=1), lambda seed: mlp((8, 16, 16, 5), seed)])
def test_a_graph_in_parts_computes_what_it_does_as_a_whole(make, seed, size):
    graph = make(seed)
    runner, x = registry.runner(), inputs_of(graph)
    whole = Sessions(runner).open(graph).outputs(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "LARGE", 0)
        patch.setattr(outputs, "SEGMENT_BYTES", size)
        parts = Sessions(runner).open(graph)
    assert isinstance(parts, outputs.Parts)
    assert len(parts.segments) > 1 or size > 2000
    made = parts.outputs(x)
    assert list(made) == list(whole)
    assert all(np.allclose(made[name], whole[name], rtol=1e-5, atol=1e-6) for name in whole)


def test_weights_are_in_memory_a_part_at_a_time(monkeypatch):
    """Counted work: what a part is given is read for it alone."""
    monkeypatch.setattr(outputs, "LARGE", 0)
    monkeypatch.setattr(outputs, "SEGMENT_BYTES", 1)
    graph, given_bytes = mlp((8, 64, 64, 64, 5)), []
    run = segments.Operators.run

    def counted(self, given, weights):
        given_bytes.append(sum(values.nbytes for values in weights.values()))
        return run(self, given, weights)

    monkeypatch.setattr(segments.Operators, "run", counted)
    Sessions(registry.runner()).open(graph).outputs(inputs_of(graph))
    stored = [weight.nbytes for weight in graph.weights.values()]
    assert sum(given_bytes) == sum(stored)
    assert max(given_bytes) < max(stored) + 64 * 4 + 1
