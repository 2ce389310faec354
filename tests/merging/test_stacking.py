"""Stacks of whole models: every donor in the base's frame, whatever its order and width."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from builders import cnn, mlp, narrower, permuted_copy
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mal_graph import boxes
from mal_graph.errors import UsageError
from mal_graph.matching import assign_units, correspond, match_layers
from mal_graph.merging import LayerLambdas, Plan, Stacking, plan_merge, stack_merge, with_bias_slots
from mal_graph.methods import Need, all_methods, merge_method, sieves
from mal_graph.parameter_settings import settings_of
from mal_graph.symmetry import Network, axis_groups

METHODS = {method.name: method for method in all_methods()}
CLOSE = 2e-6  # float32, relative to the largest value: the same sums of the same numbers
few = settings(max_examples=2, deadline=None, phases=[Phase.reuse, Phase.generate])


def tuned(graph, seed, size=0.02):
    """The graph after a little training, so to say."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    moves = {name: rng.uniform(1 - size, 1 + size, array.shape) for name, array in weights.items()}
    return graph.with_weights({name: (array * moves[name]).astype(array.dtype) for name, array in weights.items()})


def planned(base, donor):
    """How a donor corresponds to the base; the groups are not verified."""
    base, match = with_bias_slots(base, donor, match_layers(base, donor))
    found = correspond(Network(base, axis_groups(base)), Network(donor, axis_groups(donor)), match)
    return plan_merge(assign_units(found), LayerLambdas.of(0.5))


def stacked(base, donors, method, ancestor=None, given=(), *, is_from_base=False):
    """The merge of a base and donors, which are graphs or plans that were made before."""
    plans = tuple(donor if isinstance(donor, Plan) else planned(base, donor) for donor in donors)
    needs = METHODS[method].needs is Need.ANCESTOR
    return stack_merge(
        Stacking(base, METHODS[method], settings_of(given), plans, ancestor if needs else None, needs and is_from_base)
    )


def values(graph):
    return {name: weight.read() for name, weight in graph.weights.items()}


def assert_close(mine, theirs, method):
    for name, array in values(theirs).items():
        limit = CLOSE * max(np.abs(array).max(), 1e-6)
        np.testing.assert_allclose(values(mine)[name], array, rtol=0, atol=limit, err_msg=f"{method}: {name}")


def donors_of(method, plans):
    return plans[: METHODS[method].models and METHODS[method].models - 1]


@given(seed=st.integers(0, 99))
@few
def test_permuted_donors_and_a_permuted_ancestor_are_merged_as_they_were(seed):
    ancestor = mlp((4, 6, 3), seed)
    base, *donors = (tuned(ancestor, seed + number) for number in (1, 2, 3))
    own, *plans = (planned(base, model) for model in (ancestor, *donors))
    moved, *others = (
        planned(base, permuted_copy(model, axis_groups(model), seed + 4)[0]) for model in (ancestor, *donors)
    )
    for name in METHODS:  # those that draw at random too: they draw in the base's frame
        mine = stacked(base, donors_of(name, others), name, moved)
        assert_close(mine, stacked(base, donors_of(name, plans), name, own), name)


@given(seed=st.integers(0, 99))
@few
def test_donors_that_are_the_base_in_another_order_give_the_base_bit_for_bit(seed):
    base = mlp((4, 6, 3), seed)
    plans = [planned(base, permuted_copy(base, axis_groups(base), seed + number)[0]) for number in range(2)]
    for method in METHODS:
        merged = stacked(base, donors_of(method, plans), method, is_from_base=True)
        same = [np.array_equal(array, base.weights[name].read()) for name, array in values(merged).items()]
        assert all(same), method


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties"])
def test_boxes_do_not_change_a_number(name, monkeypatch):
    ancestor = mlp((4, 6, 5, 3), 0)
    base, donor = tuned(ancestor, 1), permuted_copy(tuned(ancestor, 2), axis_groups(ancestor), 3)[0]
    plan, own = planned(base, donor), planned(base, ancestor)
    whole = values(stacked(base, [plan], name, own))
    monkeypatch.setattr(boxes, "MOST", 3)
    boxed = values(stacked(base, [plan], name, own))
    assert all(np.array_equal(boxed[tensor], array) for tensor, array in whole.items())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.sieve is not None])
@given(seed=st.integers(0, 99), density=st.sampled_from([0.001, 0.2, 0.5, 0.97, 1.0]), most=st.sampled_from([1, 7, 64]))
@few
def test_what_a_sieve_keeps_box_by_box_is_what_the_method_keeps_of_the_whole_bit_for_bit(
    name, dtype, seed, density, most
):
    base = mlp((4, 8, 5, 3), seed, dtype=dtype)
    donors = [tuned(base, seed + number, 0.3) for number in (1, 2, 3)]
    donors[1] = permuted_copy(donors[1], axis_groups(base), seed)[0]
    donors[2] = narrower(donors[2], axis_groups(base), seed)[0]
    stacking = Stacking(
        base,
        METHODS[name],
        settings_of([f"density={density}", "2:density=0.4"]),
        tuple(planned(base, donor) for donor in donors),
        is_from_base=True,
    )
    whole = values(stack_merge(replace(stacking, method=replace(METHODS[name], sieve=None))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "MOST", most)
        patch.setattr(sieves, "MOST", most)
        boxed = values(stack_merge(stacking))
    assert all(array.tobytes() == boxed[tensor].tobytes() for tensor, array in whole.items())
    assert any(array.tobytes() != base.weights[tensor].read().tobytes() for tensor, array in whole.items())


@given(seed=st.integers(0, 99))
@few
def test_entries_that_a_narrower_donor_lacks_are_those_of_the_others(seed):
    ancestor = mlp((4, 8, 3), seed)
    base, whole = tuned(ancestor, seed + 1), tuned(ancestor, seed + 2)
    thin = planned(base, narrower(tuned(ancestor, seed + 3), axis_groups(ancestor), seed)[0])
    (order,) = thin.alignment.orders
    merged, two = stacked(base, [whole, thin], "linear"), stacked(base, [whole], "linear")
    lacking = order < 0
    first, second = (name for name, weight in base.weights.items() if len(weight.shape) == 2)
    assert np.array_equal(values(merged)[first][lacking], values(two)[first][lacking])
    assert np.array_equal(values(merged)[second][:, lacking], values(two)[second][:, lacking])
    assert not np.array_equal(values(merged)[first][~lacking], values(two)[first][~lacking])


@given(seed=st.integers(0, 99))
@few
def test_a_donor_has_learned_nothing_where_it_lacks_an_entry(seed):
    base = mlp((4, 8, 3), seed)
    thin = planned(base, narrower(tuned(base, seed + 1), axis_groups(base), seed)[0])
    (order,) = thin.alignment.orders
    for name in ("ties", "tsv_m"):
        merged = stacked(base, [thin], name, given=["lambda=1"], is_from_base=True)
        first = next(name for name, weight in base.weights.items() if len(weight.shape) == 2)
        moved = values(merged)[first] - values(base)[first]
        assert np.abs(moved[order < 0]).max() <= CLOSE * np.abs(values(base)[first]).max()
        assert np.abs(moved[order >= 0]).max() > 0


def test_what_a_norm_has_measured_is_averaged_by_every_method():
    base = cnn((4,), blocks=0, size=4)
    donor = tuned(base, 1)
    merged = values(stacked(base, [donor, tuned(base, 2)], "ties", is_from_base=True))
    norm = next(node for node in base.nodes if node.op == "BatchNormalization")
    for name in norm.inputs[3:]:
        mean = (donor.weights[name].read() + tuned(base, 2).weights[name].read()) / 2
        np.testing.assert_allclose(merged[name], mean, rtol=1e-6)  # float32
    assert (merged[norm.inputs[4]] > 0).all()


def test_a_result_has_the_types_of_the_base():
    base = mlp((4, 6, 3), 0, dtype="float16")
    merged = stacked(base, [tuned(base, 1)], "karcher")
    assert {weight.read().dtype for weight in merged.weights.values()} == {np.dtype("float16")}
    assert stacked(mlp((4, 6, 3), 0, dtype="float64"), [tuned(mlp((4, 6, 3), 0, dtype="float64"), 1)], "linear")


# --- parameters ---------------------------------------------------------------------------------------------------


@cache
def far_donors():
    """A base of zeros, and plans for donors of ones and of tens."""
    base = mlp((3, 3, 3, 3), 0)
    filled = [
        base.with_weights({name: np.full(weight.shape, one, np.float32) for name, weight in base.weights.items()})
        for one in (0, 1, 10)
    ]
    return filled[0], [planned(filled[0], donor) for donor in filled[1:]]


def moves(given):
    """How far each layer moves from the base, their ancestor, by task arithmetic."""
    base, plans = far_donors()
    merged = stacked(base, plans, "task_arithmetic", given=given, is_from_base=True)
    weights = [name for name, weight in base.weights.items() if len(weight.shape) == 2]
    return [float(merged.weights[name].read()[0, 0]) for name in weights]


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        ([], [3.3, 3.3, 3.3]),
        (["weight=1"], [11, 11, 11]),
        (["weight=1", "2:weight=0"], [1, 1, 1]),
        (["2:weight=0", "weight=1"], [1, 1, 1]),
        (["weight=0,1"], [0, 5.5, 11]),
        (["1:weight=0,1", "2:weight=0"], [0, 0.5, 1]),
        (["weight=1", "weight@Gemm_2=0"], [11, 0, 11]),
        (["weight@Gemm_2=0", "weight=1"], [11, 11, 11]),
        (["weight=1", "lambda=0.5"], [5.5, 5.5, 5.5]),
        ({"1:weight": 1.0, "2:weight": (0.0, 1.0)}, [1, 6, 11]),
    ],
)
def test_what_is_set_holds_for_models_tensors_and_depths(given, moved):
    assert moves(given) == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["weight@conv=1"], "`parameters` weight@conv is for no tensor: 'conv' is in no name"),
        (["weight=x"], "'weight=x' has no number behind the sign ="),
        (["weight"], "'weight' sets no parameter: write NAME=NUMBER"),
        (["W W=1"], "'W W' names no parameter"),
    ],
)
def test_what_is_set_for_nothing_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        moves(given)


def test_a_mean_without_any_weight_is_refused():
    base = mlp((4, 6, 3), 0)
    with pytest.raises(UsageError, match=r"the weights of .* sum to zero"):
        stacked(base, [tuned(base, 1)], "linear", given=["weight@Gemm_0=0"])


def test_a_tensor_that_is_made_as_a_whole_is_made_once():
    base = mlp((4, 6, 3), 0)
    made = []

    def count(stack):
        made.append(stack.role)
        return stack.models.mean(axis=0)

    method = merge_method("counted")(count)
    merged = stack_merge(Stacking(base, method, (), (planned(base, tuned(base, 1)),)))
    first = values(merged)
    assert len(made) == len(merged.weights)
    again = values(merged)
    assert len(made) == len(merged.weights)
    assert all(np.array_equal(first[name], array) for name, array in again.items())
