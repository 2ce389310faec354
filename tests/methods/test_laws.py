"""What every merge method must give, whatever the tensors: laws that say which methods they are for."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mal_graph.methods import Measured, Need, Stack, all_methods, mean_of, merge_method
from mal_graph.methods.factors import turned_apart

METHODS = {method.name: method for method in all_methods()}
MEANS = ["linear", "slerp", "karcher"]
ON_TASK_VECTORS = [name for name, method in METHODS.items() if method.needs is Need.ANCESTOR]
ROUNDED = ["e_pmq"]  # whose grid nothing but itself lies on
REGRESSIONS = [name for name, method in METHODS.items() if method.measured and name not in [*ON_TASK_VECTORS, *ROUNDED]]
SPECTRAL = ["tsv_m", "dc_merge", "tsv_c", "iso_c", "wudi", "doge", "opcm", "do_merging"]
RANDOM = ["dare_linear", "dare_ties", "della", "della_linear"]
UNEVEN = ["pcb", "wudi", "doge"]  # one has a tanh, the others take steps of one size
CLOSE = 2e-5  # float32, of sums of a few products and of singular vectors of small matrices

# What makes a method take all of one model, and nothing of those that stayed where they were.
WHOLE = {
    "task_arithmetic": {"weight": 1.0},
    "concrete": {"weight": 1.0},
    "ties": {"density": 1.0},
    "dare_linear": {"density": 1.0, "weight": 1.0},
    "dare_ties": {"density": 1.0, "weight": 1.0},
    "della": {"density": 1.0},
    "della_linear": {"density": 1.0, "weight": 1.0},
    "breadcrumbs": {"density": 1.0, "gamma": 0.0, "weight": 1.0},
    "breadcrumbs_ties": {"density": 1.0, "gamma": 0.0, "weight": 1.0},
    "lines": {"alpha": 1.0, "beta": 0.0},
    "consensus": {"least": 1.0, "lambda": 1.0},
    "wudi": {},
    "tsv_c": {"share": 1.0},
    "opcm": {},
    "rmm": {},
    "do_merging": {"share": 1.0},
    "twin_merging": {"share": 1.0, "lambda": 0.0},
    "mass": {"share": 1.0},
}
few = settings(max_examples=3, deadline=None, phases=[Phase.reuse, Phase.generate])  # nothing here is large


@st.composite
def stacks(draw, name, least=2, most=4):
    """A stack of some models of a method, all of whose entries are there."""
    count = METHODS[name].models or draw(st.integers(least, most))
    shape = draw(st.sampled_from([*([] if name in SPECTRAL else [(5,)]), (4, 6), (6, 4), (3, 2, 2, 2), (1, 7)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    models = rng.standard_normal((count, *shape)).astype(np.float32)
    ancestor = rng.standard_normal(shape).astype(np.float32) if METHODS[name].needs is Need.ANCESTOR else None
    depth = draw(st.sampled_from([0.0, 0.5, 1.0]))
    moments = drawn_moments(rng, models, METHODS[name].measured) if len(shape) > 1 else None
    fisher = rng.random(models.shape) if METHODS[name].measured is Measured.OUTPUTS else None
    return Stack(models, ancestor, numbers=tuple(range(count)), depth=depth, moments=moments, fisher=fisher)


def drawn_moments(rng, models, measured):
    """Of some inputs of each model, as a method takes them; the columns of the weight lie in one block."""
    if measured in (None, Measured.OUTPUTS):
        return None
    inputs = rng.standard_normal((len(models), models[0, 0].size, 40))
    if measured is Measured.TOGETHER:
        return np.einsum("ias,jbs->ijab", inputs, inputs)[:, :, None] / 40
    return np.einsum("ias,ibs->iab", inputs, inputs)[:, None] / 40


def other(stack, **changes):
    names = ("models", "ancestor", "present", "numbers", "depth", "seed", "moments", "fisher")
    fields = {name: getattr(stack, name) for name in names}
    return Stack(**{**fields, **changes})


def assert_close(mine, theirs, like=None):
    scale = np.abs(theirs if like is None else like).max(initial=1e-6)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=CLOSE * scale)


# --- all equal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MEANS, *REGRESSIONS])
@given(data=st.data())
@few
def test_of_equal_models_a_mean_is_the_model_bit_for_bit(name, data):
    stack = data.draw(stacks(name))
    equal = other(stack, models=np.repeat(stack.models[:1], stack.count, axis=0))
    assert np.array_equal(METHODS[name](equal), stack.models[0])


@pytest.mark.parametrize("name", ON_TASK_VECTORS)
@given(data=st.data())
@few
def test_models_that_learned_nothing_give_the_ancestor_bit_for_bit(name, data):
    stack = data.draw(stacks(name))
    still = other(stack, models=np.repeat(stack.ancestor[None], stack.count, axis=0))
    assert np.array_equal(METHODS[name](still), stack.ancestor)


@given(data=st.data())
@few
def test_of_equal_models_model_stock_is_the_model(data):
    stack = data.draw(stacks("model_stock"))
    equal = other(stack, models=np.repeat(stack.models[:1], stack.count, axis=0))
    assert_close(METHODS["model_stock"](equal), stack.models[0])


# --- one alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "karcher", *REGRESSIONS])
@given(data=st.data())
@few
def test_a_model_that_alone_has_a_weight_is_the_mean(name, data):
    stack = data.draw(stacks(name))
    one = data.draw(st.integers(0, stack.count - 1))
    merged = METHODS[name](stack, weight=np.eye(stack.count)[one])
    assert_close(merged, stack.models[one])
    if name != "karcher":
        assert np.array_equal(merged, stack.models[one])


@given(data=st.data(), end=st.sampled_from([0, 1]))
@few
def test_the_arc_begins_at_the_base_and_ends_at_the_donor_bit_for_bit(data, end):
    stack = data.draw(stacks("slerp"))
    assert np.array_equal(METHODS["slerp"](stack, t=float(end)), stack.models[end])


@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
@few
def test_what_one_model_alone_has_learned_is_taken_whole(name, data):
    stack = data.draw(stacks(name))
    one = data.draw(st.integers(0, stack.count - 1))
    models = np.repeat(stack.ancestor[None], stack.count, axis=0)
    models[one] = stack.models[one]
    assert_close(METHODS[name](other(stack, models=models), **WHOLE[name]), stack.models[one])


@pytest.mark.parametrize("name", [*WHOLE, "tsv_m", "widen", "dc_merge"])
@given(data=st.data())
@few
def test_one_model_alone_is_the_result(name, data):
    stack = data.draw(stacks(name, least=1, most=1))
    whole = {"density": 1.0} if name == "dc_merge" else WHOLE.get(name, {})
    assert_close(METHODS[name](stack, **whole), stack.models[0])


# --- homogeneity, symmetry, permutations --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ON_TASK_VECTORS if name not in UNEVEN])
@given(data=st.data(), power=st.integers(-3, 3))
@few
def test_twice_as_much_learned_is_twice_as_much_merged(name, data, power):
    stack = data.draw(stacks(name))
    centred = other(stack, models=stack.deltas, ancestor=np.zeros_like(stack.ancestor))
    scaled = other(centred, models=stack.deltas * np.float32(2.0**power))
    assert_close(METHODS[name](scaled) / 2.0**power, METHODS[name](centred), stack.deltas)


@pytest.mark.parametrize("name", [*MEANS, *REGRESSIONS])
@given(data=st.data(), power=st.integers(-3, 3))
@few
def test_a_mean_of_scaled_models_is_the_scaled_mean(name, data, power):
    stack = data.draw(stacks(name))
    scaled = other(stack, models=stack.models * np.float32(2.0**power))
    assert_close(METHODS[name](scaled) / 2.0**power, METHODS[name](stack))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "opcm"])  # it takes one after the other
@given(data=st.data())
@few
def test_the_order_of_the_models_does_not_matter(name, data):
    stack, method = data.draw(stacks(name)), METHODS[name]
    order = np.roll(np.arange(stack.count), data.draw(st.integers(1, stack.count - 1)))
    weight = np.linspace(0.2, 1.0, stack.count)
    own = {"weight": weight} if "weight" in method.parameters else {}
    turned = {"weight": weight[order]} if own else {}
    moments = stack.moments if stack.moments is None else stack.moments[order]
    moments = moments[:, order] if moments is not None and moments.ndim == 5 else moments
    fisher = stack.fisher if stack.fisher is None else stack.fisher[order]
    numbers = tuple(map(int, order))
    moved = other(stack, models=stack.models[order], numbers=numbers, moments=moments, fisher=fisher)
    assert_close(method(moved, **turned), method(stack, **own), stack.models)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in RANDOM])
@given(data=st.data())
@few
def test_permuted_units_are_merged_as_they_were(name, data):
    stack = data.draw(stacks(name))
    orders = [np.array(data.draw(st.permutations(range(length)))) for length in stack.models.shape[1:]]

    def permuted(values):
        return values[np.ix_(*orders)]

    models = np.stack([permuted(model) for model in stack.models])
    ancestor = None if stack.ancestor is None else permuted(stack.ancestor)
    moments = stack.moments
    if moments is not None:
        columns = np.arange(models[0, 0].size).reshape(models.shape[2:])[np.ix_(*orders[1:])].ravel()
        moments = moments[..., columns[:, None], columns]
    fisher = None if stack.fisher is None else np.stack([permuted(one) for one in stack.fisher])
    merged = METHODS[name](other(stack, models=models, ancestor=ancestor, moments=moments, fisher=fisher))
    assert_close(merged, permuted(METHODS[name](stack)), stack.models)


# --- entries that a model lacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEANS)
@given(data=st.data())
@few
def test_what_one_model_lacks_is_that_of_the_others(name, data):
    stack = data.draw(stacks(name))
    present = np.ones(stack.models.shape, bool)
    present[0] = np.random.default_rng(data.draw(st.integers(0, 99))).random(present[0].shape) < 0.5
    merged = METHODS[name](other(stack, present=present))
    assert_close(merged[~present[0]], stack.models[1:].mean(axis=0)[~present[0]], stack.models)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in RANDOM])
@given(data=st.data())
@few
def test_entries_that_all_models_have_need_no_mask(name, data):
    stack = data.draw(stacks(name))
    masked = other(stack, present=np.ones(stack.models.shape, bool))
    assert_close(METHODS[name](masked), METHODS[name](stack), stack.models)


# --- what single methods promise ----------------------------------------------------------------------------------


@given(data=st.data(), t=st.floats(0.05, 0.95))
@few
def test_the_karcher_mean_of_two_models_of_one_length_lies_on_their_arc(data, t):
    stack = data.draw(stacks("slerp"))
    sizes = np.linalg.norm(stack.models.reshape(2, -1), axis=1).reshape(-1, *[1] * (stack.models.ndim - 1))
    unit = other(stack, models=stack.models / sizes)
    assert_close(METHODS["karcher"](unit, weight=[1 - t, t]), METHODS["slerp"](unit, t=t))


@given(data=st.data())
@few
def test_ties_of_models_that_agree_is_their_mean_and_of_two_that_do_not_the_larger(data):
    stack = data.draw(stacks("ties"))
    agreeing = other(stack, models=stack.ancestor + np.abs(stack.deltas))
    assert_close(METHODS["ties"](agreeing, density=1.0), agreeing.models.mean(axis=0))
    opposite = np.stack([stack.ancestor + 2 * stack.deltas[0], stack.ancestor - stack.deltas[0]])
    two = other(stack, models=opposite, numbers=(0, 1))
    assert_close(METHODS["ties"](two, density=1.0), opposite[0])


@given(data=st.data(), share=st.floats(0.05, 0.95))
@few
def test_ties_keeps_the_largest_entries(data, share):
    stack = data.draw(stacks("ties", least=1, most=1))
    moved = METHODS["ties"](stack, density=share) != stack.ancestor
    size = moved.size
    assert moved.sum() == max(1, int(share * size))
    deltas = np.abs(stack.deltas[0])
    assert deltas[moved].min() >= deltas[~moved].max(initial=0)


@pytest.mark.parametrize("name", RANDOM)
def test_entries_left_out_at_random_leave_the_mean_as_it_was(name):
    """Over 400 draws of 20 entries; the largest of their deviations is about 2 in 20."""
    models = np.full((1, 4, 5), 1.0, np.float32)
    ancestor = np.zeros((4, 5), np.float32)
    draws = [METHODS[name](Stack(models, ancestor, numbers=(1,), seed=(seed,)), weight=1) for seed in range(400)]
    assert np.mean(draws) == pytest.approx(1.0, abs=0.06)
    assert np.array_equal(draws[0], METHODS[name](Stack(models, ancestor, numbers=(1,), seed=(0,)), weight=1))
    assert not np.array_equal(draws[0], draws[1])


@given(data=st.data())
@few
def test_iso_c_moves_the_same_distance_in_every_direction(data):
    stack = data.draw(stacks("iso_c"))
    moved = (METHODS["iso_c"](stack) - stack.ancestor).reshape(len(stack.ancestor), -1)
    strengths = np.linalg.svd(moved, compute_uv=False)
    assert_close(strengths, np.full_like(strengths, strengths.mean()))


@given(data=st.data(), alpha=st.floats(0.1, 0.9))
@few
def test_opcm_changes_nothing_between_the_directions_that_hold_the_share_of_strength(data, alpha):
    stack = data.draw(stacks("opcm", most=2))
    first, merged = (
        (values - stack.ancestor).reshape(len(stack.ancestor), -1).astype(float)
        for values in (stack.models[0], METHODS["opcm"](stack, alpha=alpha))
    )
    u, s, v = np.linalg.svd(first)
    count = int((np.cumsum(s) / s.sum() < alpha).sum()) + 1
    between = u.T @ merged @ v.T
    assert_close(between[:count, :count], between[0, 0] / s[0] * np.diag(s[:count]), merged)


@pytest.mark.parametrize("name", SPECTRAL)
def test_vectors_have_no_directions_and_get_the_mean(name):
    rng = np.random.default_rng(0)
    models, ancestor = rng.standard_normal((3, 7)).astype(np.float32), np.zeros(7, np.float32)
    assert_close(METHODS[name](Stack(models, ancestor)), models.mean(axis=0))


@given(data=st.data())
@few
def test_model_stock_forgets_models_that_have_nothing_in_common(data):
    stack = data.draw(stacks("model_stock"))
    apart = np.zeros_like(stack.models)
    for place in range(stack.count):
        apart[place].flat[place] = 1.0
    models = stack.ancestor + apart
    assert_close(METHODS["model_stock"](other(stack, models=models)), stack.ancestor)


@given(data=st.data())
@few
def test_wudi_comes_nearer_to_what_each_model_has_learned_on_its_own_inputs(data):
    stack = data.draw(stacks("wudi"))
    shape = (stack.count, len(stack.ancestor), -1)
    deltas = stack.deltas.reshape(shape).astype(np.float64)
    sizes = (deltas**2).sum(axis=(1, 2))

    def interference(merged):
        apart = (merged - stack.ancestor).reshape(shape[1:]) - deltas
        return (((apart @ deltas.transpose(0, 2, 1)) ** 2).sum(axis=(1, 2)) / sizes).sum()

    start, some, more = (interference(METHODS["wudi"](stack, steps=steps, rate=1e-3)) for steps in (0, 100, 300))
    assert more < some < start


@given(data=st.data())
@few
def test_dc_merge_takes_the_directions_of_each_model_and_makes_them_as_strong_as_asked(data):
    """Each column is learned by one model alone, so that no direction is that of two."""
    three = 3.5 / 36  # the entries that a model has in the shared space: its strengths
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ancestor, (left, _) = rng.standard_normal((6, 6)).astype(np.float32), np.linalg.qr(rng.standard_normal((6, 6)))
    strengths = np.array([9.0, 3.0, 6.0, 5.0, 1.0, 3.0])
    deltas = np.stack([left * strengths * own for own in np.repeat(np.eye(2), 3, axis=1)])
    stack = Stack((ancestor + deltas).astype(np.float32), ancestor)
    assert_close(METHODS["dc_merge"](stack, density=three), ancestor + deltas.sum(axis=0))
    even = METHODS["dc_merge"](stack, density=three, smooth=1.0) - ancestor
    assert_close(np.linalg.norm(even, axis=0), np.repeat([6.0, 3.0], 3))
    one_each = np.linalg.norm(METHODS["dc_merge"](stack, density=1e-9) - ancestor, axis=0)
    assert_close(one_each, [9.0, 0, 0, 5.0, 0, 0])


@given(data=st.data())
@few
def test_doge_makes_the_sum_differ_less_from_each_and_without_steps_adds_lengths_of_one(data):
    stack = data.draw(stacks("doge"))
    deltas = stack.deltas.reshape(stack.count, len(stack.ancestor), -1).astype(np.float64)
    shares = 0.5 / np.linalg.norm(deltas, axis=(1, 2))[:, None, None]

    def gap(merged):
        apart = deltas * (deltas - (merged - stack.ancestor).reshape(deltas.shape[1:]))
        return (apart.sum(axis=2) ** 2).sum()

    plain, some, more = (
        METHODS["doge"](stack, steps=steps, rate=1e-2, density=1.0, **{"lambda": 0.5}) for steps in (0, 30, 90)
    )
    assert_close(plain, stack.ancestor + (shares * deltas).sum(axis=0).reshape(stack.ancestor.shape), stack.models)
    assert gap(more) < gap(some) < gap(plain)


@given(data=st.data())
@few
def test_tsv_c_is_the_nearest_matrix_of_its_rank(data):
    stack = data.draw(stacks("tsv_c", least=2, most=2))
    weight = np.array([1.0, 0.0])
    moved = (METHODS["tsv_c"](stack, weight=weight) - stack.ancestor).reshape(len(stack.ancestor), -1)
    delta = stack.deltas[0].reshape(moved.shape)
    strengths = np.linalg.svd(delta, compute_uv=False)
    rank = max(1, len(strengths) // 2)
    assert np.linalg.matrix_rank(moved, tol=1e-4 * strengths[0]) <= rank
    left = np.linalg.svd(delta - moved, compute_uv=False)[: len(strengths) - rank]
    assert_close(left, strengths[rank:], strengths)


@given(data=st.data(), share=st.floats(0.1, 1.0))
@few
def test_t_switch_keeps_signs_and_the_length(data, share):
    stack = data.draw(stacks("t_switch", least=1, most=1))
    moved = METHODS["t_switch"](stack, density=share) - stack.ancestor
    lengths = [np.linalg.norm(one) for one in (moved, stack.deltas[0])]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)
    kept = np.abs(moved) > 1e-3 * np.abs(moved).max()
    assert kept.sum() == max(1, int(share * kept.size))
    assert_close(np.abs(moved[kept]), np.full(kept.sum(), np.abs(moved).max()), stack.models)
    assert np.array_equal(np.sign(moved[kept]), np.sign(stack.deltas[0][kept]))


@given(data=st.data(), bases=st.integers(1, 3))
@few
def test_rmm_gives_every_model_back_that_is_a_mixture_of_as_many_as_are_kept(data, bases):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ancestor, few_models = rng.standard_normal((5, 6)), rng.standard_normal((bases, 5, 6))
    deltas = np.einsum("mb,brc->mrc", rng.standard_normal((4, bases)), few_models)
    stack = Stack((ancestor + deltas).astype(np.float32), ancestor.astype(np.float32))
    for one in range(4):
        assert_close(METHODS["rmm"](stack, weight=np.eye(4)[one], bases=bases), stack.models[one], stack.models)
    if bases > 1:
        less = METHODS["rmm"](stack, weight=np.eye(4)[0], bases=bases - 1)
        assert np.abs(less - stack.models[0]).max() > 0.01


@given(data=st.data())
@few
def test_do_merging_takes_mean_lengths_and_directions_and_turns_models_apart(data):
    stack = data.draw(stacks("do_merging", least=2, most=2))
    deltas = stack.deltas.reshape(2, len(stack.ancestor), -1).astype(np.float64)
    lengths = np.linalg.norm(deltas, axis=1, keepdims=True)
    plain = METHODS["do_merging"](stack, share=1.0, steps=0) - stack.ancestor
    assert_close(plain.reshape(deltas.shape[1:]), lengths.mean(axis=0) * (deltas / lengths).mean(axis=0), stack.models)
    rows = np.random.default_rng(0).standard_normal((2, 2, 7))
    common = [
        np.abs(own[0] @ own[1].T).sum() for own in (turned_apart(rows, steps, 0.01, 0.1) for steps in (0, 30, 90))
    ]
    assert common[2] < common[1] < common[0]
    assert_close(turned_apart(3 * rows, 30, 0.01, 0.1), 3 * turned_apart(rows, 30, 0.01, 0.1))


@pytest.mark.parametrize("name", ["bayesian", "bayesian_data_free"])
@given(data=st.data())
@few
def test_bayesian_merging_lies_between_what_is_known_and_a_regression(name, data):
    stack = data.draw(stacks(name, least=2, most=3))
    weight, scale = np.linspace(0.5, 1, stack.count), {"weight": np.full(stack.count, 0.4)}
    known = METHODS["task_arithmetic"](stack, **scale)
    assert_close(METHODS[name](stack, weight=weight, strength=1e9, **{"lambda": 0.4}), known, stack.models)
    if name == "bayesian" and stack.moments is not None:
        free = METHODS["regmean"](stack, weight=weight, scaling=1.0)
        assert_close(METHODS[name](stack, weight=weight, strength=1e-9), free, stack.models)


def test_bayesian_merging_without_data_takes_each_model_where_it_alone_has_learned():
    """What the columns of a task vector are not in, its model has not read."""
    rng = np.random.default_rng(0)
    ancestor = rng.standard_normal((4, 6)).astype(np.float32)
    models = np.repeat(ancestor[None], 2, axis=0)
    models[0, :, :3] += rng.standard_normal((4, 3)).astype(np.float32)
    models[1, :, 3:] += rng.standard_normal((4, 3)).astype(np.float32)
    merged = METHODS["bayesian_data_free"](Stack(models, ancestor), strength=1e-6)
    np.testing.assert_allclose(
        merged, np.hstack([models[0][:, :3], models[1][:, 3:]]), atol=1e-4
    )  # what is known pulls


def test_widen_takes_columns_that_moved_far_whole_and_of_the_others_a_share():
    rng = np.random.default_rng(0)
    ancestor = rng.standard_normal((4, 6)).astype(np.float32)
    models = np.repeat(ancestor[None], 2, axis=0)
    models[0, :, 5] = 1 - 3 * ancestor[:, 5]  # farther than any other, in length and direction
    models[0, :, 0] *= np.float32(1.01)  # a little, and in length alone
    merged = METHODS["widen"](Stack(models, ancestor))
    assert_close(merged[:, 5], models[0][:, 5])
    assert np.array_equal(merged[:, 1:5], ancestor[:, 1:5])
    part = (merged - ancestor)[:, 0] / (models[0] - ancestor)[:, 0]
    assert 0.2 < part.min() <= part.max() <= 1 + 1e-4


# --- the laws can fail --------------------------------------------------------------------------------------------


@merge_method("heavy", needs=Need.ANCESTOR)
def heavy(stack):
    """A sum of the models that takes the first one twice and moves nothing into place."""
    return stack.origin + 2 * stack.deltas[0].ravel().reshape(stack.origin.shape) ** 2 + stack.deltas.sum(axis=0)


@pytest.mark.parametrize(
    "law",
    [
        test_twice_as_much_learned_is_twice_as_much_merged,
        test_the_order_of_the_models_does_not_matter,
        test_what_one_model_alone_has_learned_is_taken_whole,
        test_one_model_alone_is_the_result,
    ],
)
def test_a_method_that_breaks_a_law_is_found(law, monkeypatch):
    monkeypatch.setitem(METHODS, "heavy", heavy)
    monkeypatch.setitem(WHOLE, "heavy", {})
    with pytest.raises(AssertionError):
        law(name="heavy")


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_a_mean_of_what_some_lack_is_that_of_those_that_have_it(seed, models):
    """Entry by entry; of those that count nothing they count alike; one that alone counts keeps its bits."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(models, 6, 5)).astype(np.float32)
    weight, present = rng.choice([0.0, 0.5, 3.0], models), rng.random(values.shape) < 0.6
    mean = mean_of(values, weight, present)
    for entry in np.ndindex(6, 5):
        has = present[:, *entry]
        own, counting = values[:, *entry][has].astype(np.float64), weight[has]
        if not has.any():
            assert mean[entry] == values[0][entry]
        elif np.count_nonzero(counting) == 1 or len(own) == 1:
            assert mean[entry] == (own[counting > 0] if counting.any() else own)[0]
        else:
            expected = np.average(own, weights=counting if counting.any() else None)
            assert np.isclose(mean[entry], expected, atol=1e-5)  # float32, four terms of a few
