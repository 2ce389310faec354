"""The assignment of units: one table, one pair, and what the figures of an alignment mean."""

import numpy as np
import pytest
from builders import Net, cnn, correspondence_of, mlp, narrower, permuted_copy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mal_graph.errors import ShapeError
from mal_graph.matching import (
    AxisPair,
    alignment_memory,
    assign_as_given,
    assign_at_random,
    assign_in_order,
    assign_units,
    assignment,
    match_positions,
    objective,
    starts,
)
from mal_graph.matching import orders as orders_module
from mal_graph.matching.axis_pairs import Block
from mal_graph.matching.objective import Evidence, Objective
from mal_graph.matching.orders import (
    as_permutation,
    cropped_identity,
    match_units,
    random_order,
    score_at_random,
    score_order,
)
from mal_graph.symmetry import axis_groups

tables = st.builds(
    lambda units, others, kind, seed: score_table(units, others, kind, seed),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["normal", "ties", "zero", "large", "huge", "tiny", "uneven"]),
    st.integers(0, 10**6),
)


def score_table(units, others, kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return rng.integers(-2, 3, (units, others)).astype(float)
    if kind == "uneven":  # as of units of which some are far larger than others
        return np.outer(rng.exponential(1, units) ** 3, rng.exponential(1, others) ** 3)
    sizes = {"normal": 1.0, "zero": 0.0, "large": 1e8, "huge": 1e300, "tiny": 1e-300}
    return rng.standard_normal((units, others)) * sizes[kind]


# --- one table ---------------------------------------------------------------------------------------------------


@given(tables)
def test_without_the_fast_solver_the_same_value_is_found(score):
    with pytest.MonkeyPatch.context() as patched:
        fast = score_order(score, match_units(score))
        patched.setattr(orders_module, "solve_fast", None)
        slow = score_order(score, match_units(score))
    assert slow == pytest.approx(fast, rel=1e-9, abs=1e-9 * abs(score).max())


@given(tables)
def test_every_unit_of_the_shorter_side_has_a_partner_of_its_own(score):
    units, others = score.shape
    order = match_units(score)
    partners = order[order >= 0]
    assert order.shape == (units,)
    assert len(partners) == len(set(partners.tolist())) == min(units, others)


@given(tables)
def test_no_random_assignment_is_worth_more(score):
    best = score_order(score, match_units(score))
    rng = np.random.default_rng(0)
    drawn = max(score_order(score, random_order(*score.shape, rng)) for _ in range(20))
    assert drawn <= best + 1e-9 * max(1.0, abs(best))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_with_the_cause(bad):
    score = np.ones((3, 3))
    score[1, 1] = bad
    with pytest.raises(ShapeError, match="their scores are not finite, so a weight holds NaN or infinity"):
        match_units(score)


def test_the_identity_is_cropped_to_the_donor():
    assert cropped_identity(5, 3).tolist() == [0, 1, 2, -1, -1]
    assert cropped_identity(3, 5).tolist() == [0, 1, 2]


def test_a_permutation_made_of_an_order_starts_with_the_partners():
    assert as_permutation(np.array([3, -1, 0]), 5).tolist() == [3, 0, 1, 2, 4]


def test_units_without_a_partner_are_left_out_and_never_read_as_the_last():
    """-1 would be the last unit to numpy."""
    positions = np.arange(6).reshape(3, 2)
    axis = AxisPair(6, (Block(0, positions, positions),))
    base, donor = match_positions(axis, [np.array([2, -1, 0])])
    assert base.tolist() == [0, 1, 4, 5]
    assert donor.tolist() == [4, 5, 0, 1]


# --- what the figures mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [0, 1])
def test_the_random_value_of_a_pair_is_the_mean_over_its_random_orders(pair):
    found = correspondence_of(mlp((9, 14, 12, 10), 0), mlp((9, 10, 16, 10), 1))
    done, problem, rng = assign_units(found), Objective(found), np.random.default_rng(0)
    table = problem.scores(pair, done.orders)
    drawn = np.array([score_order(table, random_order(*found.units[pair], rng)) for _ in range(4000)])
    assert abs(drawn.mean() - done.random_values[pair]) <= 5 * drawn.std() / np.sqrt(len(drawn))


def test_the_value_of_a_pair_is_what_the_objective_loses_without_it():
    """The terms that the pair touches, with the others as they are."""
    found = correspondence_of(mlp((9, 14, 12, 10), 0), mlp((9, 10, 16, 10), 1))
    done, problem = assign_units(found), Objective(found)
    for pair, worth in enumerate(done.values):
        nobody = np.full_like(done.orders[pair], -1)
        rest = problem.value([*done.orders[:pair], nobody, *done.orders[pair + 1 :]])
        assert done.objective - rest == pytest.approx(worth, rel=1e-6)


@given(tables)
def test_no_assignment_scores_more_than_the_best_of_each_unit(table):
    order = match_units(table)
    assert score_order(table, order) <= starts.most_of(table) + 1e-9 * np.abs(table).sum()


def test_the_objective_is_the_inner_product_of_the_matched_entries():
    """By loops, for one hidden layer."""
    base, donor = mlp((3, 5, 2), 0), mlp((3, 4, 2), 1)
    done = assign_units(correspondence_of(base, donor))
    a, b = ([graph.weights[f"w{i}"].read().astype(float) for i in range(4)] for graph in (base, donor))
    total = float(a[3] @ b[3])
    for i, j in enumerate(done.orders[0]):
        if j >= 0:
            total += float(a[0][i] @ b[0][j] + a[1][i] * b[1][j] + a[2][:, i] @ b[2][:, j])
    assert done.objective == pytest.approx(total, rel=1e-6)


@settings(max_examples=12)  # each makes many problems anew
@given(st.integers(0, 10**6))
def test_evidence_adds_what_it_says_of_the_units_that_are_assigned(seed):
    found = correspondence_of(mlp((5, 9, 7, 3), 0), mlp((5, 9, 7, 3), 1))
    rng = np.random.default_rng(seed)
    tables = tuple(rng.uniform(0.1, 1.0, units) for units in found.units)
    bare, told = Objective(found), Objective(found, Evidence(tables, bound=16.0, share=0.4))
    orders = [random_order(a, b, rng) for a, b in found.units]
    factors = {float((extra / table).mean()) for extra, table in zip(told.extra, tables, strict=True)}
    assert max(factors) == pytest.approx(min(factors))
    more = max(factors) * sum(score_order(table, order) for table, order in zip(tables, orders, strict=True))
    assert more > 0
    assert told.value(orders) == pytest.approx(bare.value(orders) + more)
    for pair, extra in enumerate(told.extra):
        assert told.scores(pair, orders) == pytest.approx(bare.scores(pair, orders) + extra)


@settings(max_examples=12)  # each makes many problems anew
@given(st.integers(0, 10**6))
def test_units_for_which_two_files_hold_other_settings_are_never_on_each_other(seed):
    """Biases that hold the same numbers in both, in another order, were set and not learned; however much more alike
    other units are."""
    rng, models = np.random.default_rng(seed), []
    size = np.float32(rng.choice([1, 100]))
    for number in (0, 1):
        model = mlp((5, 10, 3), seed + number)
        weight, bias = model.nodes[0].inputs[1:3]
        settings = rng.permutation(np.repeat(np.float32([0.5, 2.0]), 5))
        larger = {weight: size * model.weights[weight].read(), bias: settings}
        models.append((model.with_weights(larger), settings))
    (base, mine), (donor, theirs) = models
    (order,) = assign_units(correspondence_of(base, donor)).orders
    np.testing.assert_array_equal(theirs[order], mine)


def test_the_controls_use_the_same_pairs():
    found = correspondence_of(cnn((6, 8), 1, 0), cnn((8, 6), 1, 1))
    arms = [assign_units(found), assign_in_order(found), assign_at_random(found, 3)]
    assert all(arm.correspondence is found for arm in arms)
    for arm in arms:
        assert [len(order) for order in arm.orders] == [units for units, _ in found.units]
        assert [(order >= 0).sum() for order in arm.orders] == [min(pair) for pair in found.units]


def test_a_random_alignment_depends_on_its_seed_alone():
    found = correspondence_of(mlp((9, 16, 12, 10), 0), mlp((9, 16, 12, 10), 1))
    first, again, other = (assign_at_random(found, seed) for seed in (0, 0, 1))
    assert all(map(np.array_equal, first.orders, again.orders))
    assert not all(map(np.array_equal, first.orders, other.orders))


def test_terms_are_listed_by_the_pair_of_layers_they_belong_to():
    found = correspondence_of(mlp((9, 16, 12, 10), 0), mlp((9, 16, 12, 10), 1))
    assert [(term.layer, term.base.role) for term, _ in found.tensors] == [
        (layer, role) for layer in ("Gemm_0", "Gemm_2", "Gemm_4") for role in ("weight", "bias")
    ]


# --- what is compared --------------------------------------------------------------------------------------------


def test_statistics_of_a_batchnorm_move_along_but_do_not_decide():
    """All positive, they would draw every unit to the donor's largest."""
    base, donor = cnn((6, 8), 1, 0), cnn((6, 8), 1, 1)
    before = assign_units(correspondence_of(base, donor))
    norms = [node for node in donor.nodes if node.op == "BatchNormalization"]
    means = {norm.inputs[3]: donor.weights[norm.inputs[3]].read() + 50 for norm in norms}
    after = assign_units(correspondence_of(base, donor.with_weights(means)))
    assert all(map(np.array_equal, before.orders, after.orders))


def test_what_a_batchnorm_leaves_of_a_weight_decides():
    """The scale of a weight behind its own BatchNorm means nothing."""
    base, donor = cnn((6, 8), 1, 0), cnn((6, 8), 1, 1)
    factors = np.random.default_rng(2).uniform(0.01, 100, 6).astype(np.float32)
    norm = next(node for node in donor.nodes if node.op == "BatchNormalization")
    mean, variance = (donor.weights[norm.inputs[slot]].read() for slot in (3, 4))
    epsilon = norm.attribute("epsilon", 1e-5)
    scaled = donor.with_weights(
        {
            "w0": donor.weights["w0"].read() * factors[:, None, None, None],
            norm.inputs[3]: mean * factors,
            norm.inputs[4]: (variance + epsilon) * factors**2 - epsilon,
        }
    )
    orders = [assign_units(correspondence_of(base, other)).orders for other in (donor, scaled)]
    assert all(map(np.array_equal, *orders))


# --- scores that are kept ----------------------------------------------------------------------------------------


NETS = {
    "mlp": lambda seed: mlp((9, 14, 12, 10), seed),
    "cnn": lambda seed: cnn((6, 8), 1, seed, depthwise=True, concat=True),
    "other widths": lambda seed: cnn((6 + 3 * seed % 5, 9), 1, seed, concat=True, inner=8 - seed % 3),
}


@pytest.fixture(params=[1, 1000])
def _scores_in(request, monkeypatch):
    """Tables of float32, as of many units, and of float64."""
    monkeypatch.setattr(alignment_memory, "LARGE", request.param)


FIXED = [HealthCheck.function_scoped_fixture]  # the same for all examples


@pytest.mark.usefixtures("_scores_in")
@settings(max_examples=8, suppress_health_check=FIXED)  # each makes many problems anew
@given(st.sampled_from(sorted(NETS)), st.integers(0, 10**6))
def test_scores_do_not_depend_on_what_was_asked_before(net, seed):
    """Orders change in part or wholly, become unknown and known again; a fresh problem gives the same scores."""
    found = correspondence_of(NETS[net](seed % 7), NETS[net](seed % 7 + 1))
    problem, rng = Objective(found), np.random.default_rng(seed)
    orders = [random_order(a, b, rng) for a, b in found.units]
    for _ in range(6):
        changed = int(rng.integers(len(orders)))
        fresh = random_order(*found.units[changed], rng)
        swapped = [exchanged(order, rng) if order is not None else order for order in orders]
        orders = [[*orders[:changed], new, *orders[changed + 1 :]] for new in (fresh, None, swapped[changed])][
            int(rng.integers(3))
        ]
        for pair in range(len(orders)):
            expected = Objective(found).scores(pair, orders)
            np.testing.assert_allclose(problem.scores(pair, orders), expected, atol=1e-5 * abs(expected).max())


@pytest.mark.usefixtures("_scores_in")
@settings(max_examples=8, suppress_health_check=FIXED)
@given(st.sampled_from(sorted(NETS)), st.integers(0, 10**6), st.booleans())
def test_figures_are_what_the_tables_of_scores_come_to(net, seed, has_evidence):
    """Whether tables were never made, are of other orders, or of these."""
    found, rng = correspondence_of(NETS[net](seed % 7), NETS[net](seed % 7 + 1)), np.random.default_rng(seed)
    evidence = Evidence(tuple(rng.random(units) for units in found.units), 9.0, 0.3) if has_evidence else None
    problem, orders = Objective(found, evidence), found.nests.drawn(rng)
    told = [problem.figures(orders)]
    for asked in (found.nests.drawn(rng), orders):
        problem.scores(0, asked)
        told.append(problem.figures(orders))
    tables = [Objective(found, evidence).scores(pair, orders) for pair in range(len(orders))]
    worth = [score_order(table, order) for table, order in zip(tables, orders, strict=True)]
    random = [score_at_random(table, found.nests.spread(pair)) for pair, table in enumerate(tables)]
    reach = 1e-5 * float(max(abs(table).sum() for table in tables))  # of float32
    for value, own, mean in told:
        assert value == pytest.approx(problem.value(orders), abs=reach)
        np.testing.assert_allclose(own, worth, atol=reach)
        np.testing.assert_allclose(mean, random, atol=reach)


@pytest.mark.parametrize("most", [1, 3000])
def test_tables_that_are_let_go_of_are_made_anew(most, monkeypatch):
    monkeypatch.setattr(objective, "MOST_HELD", most)
    found = correspondence_of(NETS["mlp"](0), NETS["mlp"](1))
    problem, rng = Objective(found), np.random.default_rng(0)
    orders = [random_order(a, b, rng) for a, b in found.units]
    for pair in (0, 1, 0, 1):
        expected = Objective(found).scores(pair, orders)
        np.testing.assert_array_equal(problem.scores(pair, orders), expected)
        sizes = [table.scores.nbytes for table in problem.known.values()]
        assert problem.held == sum(sizes)
        assert problem.held <= most or len(sizes) == 1
    assert len(problem.known) == (1 if most == 1 else 2)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 5), st.integers(0, 15), st.integers(0, 10**6))
def test_products_are_added_in_place_however_the_rows_lie(units, others, features, layout, seed):
    """By rows or by columns, with gaps or none; of float32 by a library that takes rows by columns."""
    rng, lies = np.random.default_rng(seed), [(layout >> bit) & 1 for bit in range(4)]
    sides = []
    for count, is_turned, has_gaps in ((units, *lies[:2]), (others, *lies[2:])):
        shape = (features, 2 * count) if is_turned else (count, 2 * features)
        rows = rng.integers(-9, 9, shape).astype(np.float32)
        half = rows[:, : shape[1] // 2] if has_gaps else np.ascontiguousarray(rows[:, ::2])
        sides.append(half.T if is_turned else half)
    a, d = sides
    total = rng.integers(-9, 9, (units, others)).astype(np.float32)
    expected = total + a @ d.T
    objective.add_product(total, a, d)
    np.testing.assert_array_equal(total, expected)


def exchanged(order, rng):
    """The order with two units, or a unit and a gap, exchanged."""
    i, j = rng.integers(len(order), size=2)
    order = order.copy()
    order[[i, j]] = order[[j, i]]
    return order


@pytest.mark.parametrize("net", NETS)
def test_the_history_ends_with_the_objective(net):
    """It is summed up from what every update gains."""
    found = correspondence_of(NETS[net](3), NETS[net](4))
    done = assign_units(found)
    assert done.history[-1] == pytest.approx(done.objective, rel=1e-6)


def test_a_table_that_keeps_what_has_changed_is_seen(monkeypatch):
    """The mutation: no update of what is kept."""
    found = correspondence_of(NETS["mlp"](0), NETS["mlp"](1))
    problem, rng = Objective(found), np.random.default_rng(0)
    orders = [random_order(a, b, rng) for a, b in found.units]
    problem.scores(0, orders)
    monkeypatch.setattr(Objective, "update", lambda *_: None)
    orders[1] = exchanged(orders[1], np.random.default_rng(1))
    assert not np.allclose(problem.scores(0, orders), Objective(found).scores(0, orders), rtol=1e-3)


# --- what is not found anew --------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["mlp", "cnn", "ties"])
def test_a_start_that_was_raised_before_is_not_raised_again_and_nothing_is_lost(net, monkeypatch):
    """Where units are equal, the starts differ; elsewhere they are all one."""
    base, donor = (NETS.get(net, tied)(seed) for seed in (0, 1))
    found, raised, made = correspondence_of(base, donor), [], []
    nearest, forward = assignment.assign_nearest, assignment.assign_by_distance
    monkeypatch.setattr(assignment, "assign_nearest", lambda own, start: raised.append(start) or nearest(own, start))
    monkeypatch.setattr(assignment, "assign_by_distance", lambda own, seed: made.append(1) or forward(own, seed))
    once = assign_units(found)
    assert len(raised) == len({assignment.key_of(start) for start in raised}) < len(made)
    assert (len(raised) > 1) == (net == "ties")
    assert net == "ties" or len(made) == 1 + assignment.FRUITLESS
    few, fewer, all_different = len(raised), len(made), iter(range(10**6))
    monkeypatch.setattr(assignment, "key_of", lambda orders: next(all_different))
    every = assign_units(found)
    assert len(raised) - few == len(made) - fewer > fewer
    assert once.objective == pytest.approx(every.objective, rel=1e-9)
    assert net == "ties" or all(map(np.array_equal, once.orders, every.orders))


def tied(seed):
    """An MLP of which every hidden unit has a twin or more."""
    graph = mlp((4, 8, 3), seed)
    return graph.with_weights({name: np.sign(weight.read()) for name, weight in graph.weights.items()})


def test_orders_that_were_found_are_taken_as_they_are():
    found = correspondence_of(mlp((6, 8, 7, 5), 0), mlp((6, 9, 6, 5), 1))
    made = assign_units(found)
    again = assign_as_given(found, made.orders)
    assert again.orders is made.orders
    assert (again.objective, again.values) == (pytest.approx(made.objective), pytest.approx(made.values))


@pytest.mark.parametrize(
    "change",
    [
        lambda orders: orders[:1],
        lambda orders: (orders[1], orders[0]),
        lambda orders: (orders[0], np.where(orders[1] == 0, 1, orders[1])),
        lambda orders: (orders[0], np.where(orders[1] == 0, 6, orders[1])),
        lambda orders: (orders[0], np.where(orders[1] == 0, -2, orders[1])),
    ],
    ids=["too few", "of other groups", "a unit twice", "no such unit", "below none"],
)
def test_orders_of_other_groups_are_refused(change):
    found = correspondence_of(mlp((6, 8, 7, 5), 0), mlp((6, 9, 6, 5), 1))
    with pytest.raises(ShapeError, match="are not of these 2 pairs of groups; align the models anew"):
        assign_as_given(found, change(assign_units(found).orders))


# --- starts ------------------------------------------------------------------------------------------------------


def test_a_copy_is_found_by_distance_where_the_inner_product_prefers_longer_rows():
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(0, 1.5, 16)).astype(np.float32)
    base = mlp((9, 16, 12, 10), 0)
    base = base.with_weights({"w0": base.weights["w0"].read() * sizes[:, None]})
    donor, orders = narrower(base, axis_groups(base), 1)
    found = correspondence_of(base, donor)
    done, problem = assign_units(found), Objective(found)
    planted = [orders[pair.base] for pair in found.pairs]
    assert done.start == "nearest"
    assert starts.is_copy(problem, done.orders)
    assert problem.value(done.orders) == pytest.approx(problem.value(planted))


def test_models_in_the_same_order_are_not_taken_apart():
    """Fine-tuned from one ancestor: the identity is a start, and nothing beats it."""
    base = mlp((9, 16, 12, 10), 0)
    rng = np.random.default_rng(1)
    near = {name: w.read() + 0.05 * rng.standard_normal(w.shape).astype(np.float32) for name, w in base.weights.items()}
    done = assign_units(correspondence_of(base, base.with_weights(near)))
    assert all((order == np.arange(len(order))).all() for order in done.orders)


def test_a_model_without_a_hidden_layer_has_nothing_to_assign():
    done = assign_units(correspondence_of(mlp((6, 4), 0), mlp((6, 4), 1)))
    assert done.orders == ()
    assert np.isfinite(done.objective)


def test_a_large_problem_is_aligned_like_a_small_one(monkeypatch):
    """Above the limit fewer starts are tried; a shuffled copy is found all the same."""
    monkeypatch.setattr(starts, "TINY", 0)
    base = cnn((8, 12), 1, 0, concat=True)
    donor, orders = permuted_copy(base, axis_groups(base), 1)
    found = correspondence_of(base, donor)
    assert all(map(np.array_equal, assign_units(found).orders, [orders[pair.base] for pair in found.pairs]))
    strangers = correspondence_of(base, cnn((8, 12), 1, 5, concat=True))
    identity = Objective(strangers).value([cropped_identity(a, b) for a, b in strangers.units])
    assert assign_units(strangers).objective >= identity


def test_a_layer_applied_twice_lies_on_both_its_axes():
    def twice(seed):
        net = Net(seed)
        x = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, 8))
        shared = net.weight(8, 8, name="shared")
        for _ in range(2):
            x = net.op("Relu", net.op("Gemm", x, shared, transB=1))
        return net.graph(net.linear(x, 8, 3))

    base = twice(0)
    donor, orders = permuted_copy(base, axis_groups(base), 1)
    found = correspondence_of(base, donor)
    assert Objective(found).is_coupled(0)
    assert np.array_equal(assign_units(found).orders[0], orders[found.pairs[0].base])
