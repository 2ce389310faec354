"""The laws of searches, on losses that are known functions of the weights: no model is run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.methods import find_method
from mal_graph.methods.resolving import value_at
from mal_graph.searching import (
    Candidate,
    Figure,
    Space,
    Trial,
    estimates,
    find_search,
    genome,
    niches,
    pareto_front,
    recombination,
    search_method,
)
from mal_graph.searching.candidates import beats
from mal_graph.searching.item_response import Items
from mal_graph.searching.method import run_search
from mal_graph.searching.proposals import SAMPLERS, SHORT_LIST
from mal_graph.searching.surrogates import coefficients, fit_quadratic, lowest_point

NAMES = sorted(registry.searches())
LAYERS = ((0.0, 30), (0.5, 50), (1.0, 20))


def found(candidate, losses):
    """A trial with these losses, one of them for each set of data, which is spread unevenly over its samples."""
    uneven = np.random.default_rng(int(candidate.key[:8], 16)).dirichlet(np.ones(4)) * 4
    return Trial(candidate, tuple(Figure(loss, 0.5, tuple((loss * uneven).tolist())) for loss in losses))


def space_of(donors=3, sets=1, **options):
    base = found(Candidate((), ()), [1.0] * sets)
    named = tuple(f"d{place:02}" for place in range(donors))
    plain = {
        "stages": 2,
        "most": 1.0,
        "eps": 0.0,
        "trials": 40,
        "batch": 5,
        "sampler": "random",
        "seed": 0,
        "layers": LAYERS,
        "samples": 4,
    }
    return Space(donors=named, base=base, **{**plain, **options})


def vector(space, candidate):
    """All weights of a candidate, as one vector."""
    nothing = (0.0,) * space.stages
    return np.concatenate([candidate.by_donor.get(donor, nothing) for donor in space.donors])


def bowl(space, seed=0):
    """Losses that lie lowest at a point within the box, for each set of data another: 1 at no weights."""
    goals = np.random.default_rng(seed).uniform(0.2, 0.8, (space.sets, space.stages * len(space.donors)))

    def score(candidates):
        points = [vector(space, candidate) for candidate in candidates]
        return [
            found(candidate, [float(((point - goal) ** 2).sum() / (goal**2).sum()) for goal in goals])
            for candidate, point in zip(candidates, points, strict=True)
        ]

    return score


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(1, 12), st.sampled_from([1, 2]), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=4, deadline=None)
def test_searches_stay_in_their_space_and_budget_and_find_the_same_again(name, donors, sets, trials, seed):
    space = space_of(donors, sets, trials=trials, seed=seed)
    result = run_search(find_search(name), space, bowl(space, seed))
    assert len(result) <= trials
    for trial in result:
        candidate = trial.candidate
        assert set(candidate.donors) <= set(space.donors)
        assert all(len(row) == space.stages and any(row) for row in candidate.weights)
        assert all(0 <= weight <= space.most for row in candidate.weights for weight in row)
    assert run_search(find_search(name), space, bowl(space, seed)) == result


@pytest.mark.parametrize("name", [name for name in NAMES if not find_search(name).weighs_size])
def test_searches_lower_the_loss(name):
    space = space_of(sampler="tpe", trials=120)
    result = run_search(find_search(name), space, bowl(space))
    assert min(trial.loss for trial in result) < 0.3 * space.base.loss


@pytest.mark.parametrize("name", NAMES)
def test_searches_live_with_what_cannot_be_scored(name):
    space = space_of(trials=30)
    result = run_search(find_search(name), space, lambda some: [Trial(one, failure="it crashed") for one in some])
    assert all(trial.failure for trial in result)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])  # which needs another package
def test_every_sampler_is_told_what_it_proposed(sampler):
    space = space_of(sampler=sampler, trials=60)
    again = [run_search(find_search("medsamix"), space, bowl(space)) for _ in range(2)]
    assert again[0] == again[1]
    assert min(trial.loss for trial in again[0]) < space.base.loss


def test_a_sampler_of_one_loss_is_refused_where_there_are_two():
    space = space_of(sets=2, sampler="cmaes")
    with pytest.raises(UsageError, match="`sampler` cmaes lowers one loss, and `second_data` gives two: give tpe"):
        run_search(find_search("medsamix"), space, bowl(space))


def test_greedy_keeps_what_lowers_the_loss_and_nothing_else():
    """Of donors that help and donors that harm, those that help."""
    space = space_of(donors=4, trials=400)
    score = linear({"d00": 1, "d01": -1, "d02": 1, "d03": -2})
    best = min(run_search(find_search("greedy"), space, score), key=lambda trial: trial.loss)
    assert best.candidate == Candidate.of({"d00": [1.0, 1.0], "d02": [1.0, 1.0]})


def test_coordinate_search_ends_at_the_lowest_point():
    space = space_of(donors=2, trials=10_000)
    score = bowl(space, 3)
    result = run_search(find_search("coordinates"), space, score)
    assert len(result) < 1000
    assert min(trial.loss for trial in result) < 1e-3  # it ends at a step of 0.02, and losses go with its square


@given(st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_quadratic_function_is_fitted_exactly_and_its_lowest_point_is_found(weights, seed):
    rng = np.random.default_rng(seed)
    goal, root = rng.uniform(0.1, 0.9, weights), rng.normal(size=(weights, weights))
    hessian = root @ root.T + np.eye(weights)
    points = rng.uniform(0, 1, (2 * coefficients(weights), weights))
    values = np.einsum("pi,ij,pj->p", points - goal, hessian, points - goal) / 2 + 0.3
    quadratic = fit_quadratic(points, values)
    assert np.allclose([quadratic(point) for point in points], values, atol=1e-8)  # float64, a few dozen terms
    lowest = lowest_point([quadratic], np.ones(1), weights, 1.0, rng)
    assert np.allclose(lowest, goal, atol=1e-3)  # where the descent stops, at a slope of 1e-5


def test_of_two_losses_map_scores_points_that_no_other_beats():
    space = space_of(donors=3, sets=2, stages=1, trials=60)
    score = bowl(space)
    result = run_search(find_search("map"), space, score)
    at_random = [trial.losses for trial in result[:36]]
    promised = [trial.losses for trial in result[36:]]
    assert not any(beats(random, one) for random in at_random for one in promised)


def came_to(asking, score):
    """What a part of a search comes to."""
    told = None
    while True:
        try:
            told = score(asking.send(told))
        except StopIteration as end:
            return end.value


def linear(gains):
    """Losses that fall evenly with the weights of some donors and rise with those of others."""

    def score(candidates):
        sums = [sum(gains[donor] * sum(row) for donor, row in one.by_donor.items()) for one in candidates]
        return [found(one, [1.0 - total / 10]) for one, total in zip(candidates, sums, strict=True)]

    return score


def test_coefficients_evolve_until_donors_that_harm_are_out():
    space = space_of(donors=4, trials=300)
    score = linear({"d00": 1, "d01": -1, "d02": 1, "d03": -2})
    best = min(run_search(find_search("evo_merging"), space, score), key=lambda trial: trial.loss)
    assert set(best.candidate.donors) == {"d00", "d02"}
    assert best.loss < 0.65  # of 0.6 with all that helps and nothing else


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_trusted_genome_is_the_diagnosis_and_an_untrusted_one_what_evolved(importance, own):
    told = np.array(importance)
    assert np.allclose(genome.row_of_genome([0.8, 1.0, *own], told), 0.8 * told)
    assert np.allclose(genome.row_of_genome([0.8, 0.0, *own], told), 0.8 * np.array(own))
    halves = genome.row_of_genome([1.0, 0.5, *own], told)
    assert np.allclose(halves, (told + own) / 2)


@given(st.integers(0, 2), st.booleans())
@settings(max_examples=6)
def test_a_diagnosis_names_the_stages_where_a_donor_lowers_the_loss(stage, is_merged_in):
    """Whether the merge has something of the donor already or not."""
    space = space_of(donors=2, stages=3)

    def loss(candidate):
        row = candidate.by_donor.get("d01", (0.0,) * 3)
        return 1 - row[stage] + row[(stage + 1) % 3]

    held = Candidate.of({"d00": [0.3] * 3, **({"d01": [0.2, 0.7, 0.1]} if is_merged_in else {})})
    asking = genome.diagnosed(space, found(held, [loss(held)]), "d01")
    diagnosis = came_to(asking, lambda candidates: [found(one, [loss(one)]) for one in candidates])
    assert np.array_equal(diagnosis, np.eye(3)[stage])


def exam_score(space, items):
    """Losses of models whose answers follow from an ability, the higher the nearer the weights are to a point."""
    goal = np.full(space.stages * len(space.donors), 0.6)

    def score(candidates):
        abilities = [2 - 3 * float(((vector(space, one) - goal) ** 2).mean() / 0.36) for one in candidates]
        told = [examined(items, *one) for one in zip(abilities, (one.samples for one in candidates), strict=True)]
        return [replace(trial, candidate=one) for one, trial in zip(candidates, told, strict=True)]

    return score


def examined(items, ability, samples=0):
    """What is found of a model of some ability, by the first samples or by all."""
    each = -np.log(items.chances(ability))[: samples or None]
    return Trial(Candidate((), ()), (Figure(float(each.mean()), 0.5, tuple(each.tolist()), samples),))


def test_merge3_finds_the_abler_merges_by_a_few_samples():
    rng, samples = np.random.default_rng(0), 300
    items = Items(np.exp(rng.normal(0, 0.4, samples)), rng.normal(0, 1.5, samples))
    space = space_of(stages=1, trials=3 + 9 * 11, samples=samples, batch=10)
    score = exam_score(space, items)
    space = replace(space, base=score([space.base.candidate])[0])
    result = run_search(find_search("merge3"), space, score)
    some = [trial for trial in result if not trial.is_whole]
    assert {trial.figures[0].samples for trial in some} == {estimates.few_of(samples)}
    assert len(some) > 0.85 * len(result)
    best = min((trial for trial in result if trial.is_whole), key=lambda trial: trial.loss)
    by_all = score([replace(trial.candidate, samples=0) for trial in some])
    assert best.loss == min(trial.loss for trial in by_all), "the ablest is scored by all, and is the result"


def test_what_merge3_expects_of_a_few_answers_is_nearer_than_what_they_show():
    """Over merges of many abilities; the items are fitted to nine others."""
    rng, samples, few = np.random.default_rng(0), 200, 20
    expected, shown = [], []
    for _ in range(20):
        items = Items(np.exp(rng.normal(0, 0.4, samples)), rng.normal(0, 1.5, samples))
        exams = estimates.exams_of([examined(items, ability) for ability in rng.normal(0, 1, 9)])
        for ability in rng.normal(0, 1, 20):
            whole = items.chances(ability)
            (error,) = estimates.expected_errors(exams, examined(items, ability, few))
            expected.append(1 - error - whole.mean())
            shown.append(whole[:few].mean() - whole.mean())
    assert np.square(expected).mean() < np.square(shown).mean() / 4


def test_recombined_modules_are_the_best_of_their_size():
    """No set of donors for each stage is better than what was found at the same share of the base, of all there are."""
    space = space_of(donors=2, trials=300)
    score = bowl(space, 1)
    every = [recombination.recombined(space, space.donors, genome) for genome in np.ndindex(2, 2, 2, 2)]
    result = run_search(find_search("recombination"), space, score)

    def lowest(trials):
        by_size = {}
        for trial in trials:
            size = space.size(trial.candidate)
            by_size[size] = min(trial.loss, by_size.get(size, np.inf))
        return by_size

    assert {trial.candidate for trial in result} <= set(every)
    assert lowest(result) == lowest(score(every))


@given(st.lists(st.sampled_from([0.0, 0.4]), min_size=3, max_size=3))
def test_the_size_of_a_merge_is_the_share_of_numbers_that_change(row):
    """By the weights that the merge method is given for each layer."""
    space = space_of(stages=3)
    candidate = Candidate.of({"d00": row})
    settings_ = candidate.settings
    changed = sum(
        count
        for depth, count in LAYERS
        if settings_ and value_at(find_method("linear").parameters["weight"], settings_, 1, depth)
    )
    assert space.size(candidate) == changed / 100


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_an_archive_keeps_who_alone_does_well_on_something(seed, members):
    """Every sample has its due, 1 in all; and who alone does well on a sample stays, however many others there are."""
    rng = np.random.default_rng(seed)
    scores = np.hstack([rng.uniform(0.1, 1, (members, 6)), np.zeros((members, 1))])
    scores[0] = [*[0.01] * 6, 1.0]
    given_ = [niches.Member(Candidate.of({"d": [1.0 + place]}), row) for place, row in enumerate(scores)]
    assert np.allclose(niches.shares(given_).sum(axis=0), 1)
    archive = niches.kept(given_)
    assert len(archive) == min(members, niches.ARCHIVE)
    assert given_[0] in archive


def test_mates_complement_each_other():
    """One that does well where the first does not, and never one that is nowhere better."""
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    archive = [niches.Member(Candidate.of({"d": [1.0 + place]}), row) for place, row in enumerate(scores)]
    rng = np.random.default_rng(0)
    pairs = {niches.mates(archive, rng) for _ in range(200)}
    assert {other for one, other in pairs if one == 0} == {1}
    assert {other for one, other in pairs if one == 1} == {0, 2}


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_merges_are_mixed_as_the_models_that_they_are(seed):
    """The mean of two weighted means of vectors, in the shares that were drawn, is the weighted mean of the mixed."""
    rng, space = np.random.default_rng(seed), space_of(donors=3, stages=1)
    models = rng.normal(size=(4, 5))  # the base first
    one, other = (Candidate.of({d: [w] for d, w in zip(space.donors, rng.random(3), strict=True)}) for _ in range(2))

    def merged(candidate):
        return np.average(models, axis=0, weights=[1.0, *vector(space, candidate)])

    child = merged(niches.mixed(space, one, other, np.random.default_rng(seed)))
    share = (child - merged(other)) @ (merged(one) - merged(other)) / ((merged(one) - merged(other)) ** 2).sum()
    assert np.allclose(child, share * merged(one) + (1 - share) * merged(other))
    drawn = np.random.default_rng(seed)
    part = drawn.random()
    assert np.isclose(share, part if drawn.integers(0, 2) else 1 - part)


def test_of_many_donors_the_best_alone_are_searched():
    space = space_of(donors=SHORT_LIST + 12, trials=120, stages=1)
    good = set(space.donors[:: len(space.donors) // SHORT_LIST][:SHORT_LIST])

    def score(candidates):
        return [
            found(one, [1.0 - sum(sum(row) * (1 if d in good else -1) for d, row in one.by_donor.items()) / 99])
            for one in candidates
        ]

    for name in ("coordinates", "medsamix"):
        result = run_search(find_search(name), space, score)
        together = {donor for trial in result[len(space.donors) :] for donor in trial.candidate.donors}
        assert together == good


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_holds_what_no_other_beats(points):
    front = [points[place] for place in pareto_front(points)]
    assert len(set(front)) == len(front)
    assert all(point in front or any(beats(other, point) for other in front) for point in points)
    assert not any(beats(other, point) for other in points for point in front)


def test_a_search_that_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(
        registry, "searches", lambda: {"odd": type("Point", (), {"value": "x:y", "load": lambda s: 3})()}
    )
    with pytest.raises(UsageError, match="x:y is no search called 'odd': register what @search_method makes"):
        find_search("odd")
    with pytest.raises(UsageError, match="no search is called 'none': choose one of odd"):
        find_search("none")


def test_every_search_says_what_it_is():
    for name in NAMES:
        method = find_search(name)
        assert method.summary.endswith(".")
        assert method.source.startswith(("arXiv:", "doi:"))
    made = search_method("mine", source="arXiv:0")(lambda space: None)
    assert made.name == "mine"
