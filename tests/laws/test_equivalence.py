"""The equivalence law: a donor that is the base, permuted and written otherwise, gives the base back at every lambda.

Base and donor are drawn and checked by `equivalent_nets`, whose table says of each rewrite how much a merge may keep.
`tools/study_equivalence.py` draws as many as one likes; here stands a sample.
"""

from pathlib import Path

import builders
import numpy as np
import pytest
from equivalent_nets import (
    BREAKS,
    FAMILIES,
    KEPT_TOO_MUCH,
    REFUSED,
    REWRITES,
    RIGHT,
    WRONG,
    GeneratorError,
    documents,
    draw_pair,
    judge,
    judge_pair,
    judging,
    layers,
    pair_of_model,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import mal_graph
from mal_graph.errors import MatchError

EXAMPLES = Path(__file__).parents[2] / "examples" / "01_first_merge"
UNSHRUNK = [Phase.explicit, Phase.generate]  # seeds have no order in which one would be simpler
SEEDS = st.integers(0, 2**31)
PLACES = [(rewrite, family) for rewrite, row in REWRITES.items() for family in row.families]


def family_of(rewrite, seed):
    """One of the families in which a rewrite is tested."""
    families = REWRITES[rewrite].families
    return families[seed % len(families)]


def check_is_right(pair):
    """The law, on one pair."""
    outcome = judge_pair(pair)
    assert outcome.is_right, described(pair, outcome)


def described(pair, outcome):
    """What failed, with all that draws it again."""
    return f"{pair.family}, seed {pair.seed}, {dict(pair.rewrites)}: {outcome}"


# --- the law -----------------------------------------------------------------------------------------------------


@pytest.mark.sampled(9)
@pytest.mark.parametrize("rewrite", REWRITES)
@given(SEEDS)
@settings(max_examples=2, phases=UNSHRUNK)
def test_a_rewritten_copy_gives_the_base_back(rewrite, seed):
    pair = draw_pair(seed, family_of(rewrite, seed), rewrite, combined=False)
    check_is_right(pair)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("rewrite", REWRITES)
@given(SEEDS)
@settings(max_examples=2, phases=UNSHRUNK)
def test_rewrites_hold_together(rewrite, seed):
    pair = draw_pair(seed, family_of(rewrite, seed), rewrite, combined=True)
    check_is_right(pair)


@pytest.mark.sampled(8)
@pytest.mark.slow
@pytest.mark.parametrize("rewrite", REWRITES)
@given(SEEDS)
@settings(max_examples=10, phases=UNSHRUNK)
def test_rewrites_hold_in_every_family(rewrite, seed):
    pair = draw_pair(seed, family_of(rewrite, seed), rewrite)
    check_is_right(pair)


# --- the pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_rewrite_applies_in_each_of_its_families_and_keeps_the_function(rewrite):
    """`draw_pair` runs both models and raises where they are apart."""
    for family in REWRITES[rewrite].families:
        pair = draw_pair(3, family, rewrite, combined=False)
        assert rewrite in pair.rewrites
        assert pair.base != pair.donor


def test_every_family_is_drawn_by_some_rewrite():
    assert {family for _, family in PLACES} == set(FAMILIES)


def test_a_seed_draws_the_same_pair_again():
    for seed in range(10):
        one, two = draw_pair(seed), draw_pair(seed)
        assert (one.base, one.donor, one.rewrites, one.may_keep) == (two.base, two.donor, two.rewrites, two.may_keep)


def test_a_rewrite_that_changes_the_function_is_noticed(monkeypatch):
    for kind in layers.OTHER_FORMS:
        monkeypatch.setitem(layers.OTHER_FORMS, kind, (lambda w, x: w.op("Neg", x),))
    with pytest.raises(GeneratorError, match="from the base"):
        draw_pair(0, "mlp", "activation_forms", combined=False)


def test_weights_in_another_order_than_their_units_are_noticed(monkeypatch):
    monkeypatch.setattr(layers.Value, "features", lambda x: (np.arange(x.shape[-1]), np.ones(x.shape[-1], "f4")))
    with pytest.raises(GeneratorError, match="from the base"):
        draw_pair(0, "mlp", "units_permuted", combined=False)


@pytest.mark.parametrize("seed", range(3))
def test_a_given_model_beside_its_copy_gives_itself_back(seed):
    pair, inputs = pair_of_model(EXAMPLES / "cnn_a.onnx", seed)
    assert "units_permuted" in pair.rewrites
    assert len(pair.rewrites) > 1
    assert judge_pair(pair, inputs=inputs).is_right


def test_a_model_that_rounding_alone_changes_is_given_other_weights(tmp_path):
    calm = builders.mlp((16,) * 30 + (5,), seed=3, activation="Sin")
    wild = calm.with_weights({name: 40 * values for name, values in builders.stored(calm).items()})
    pair, inputs = pair_of_model(builders.save(wild, tmp_path / "wild.onnx"), 0)
    first = pair.base.graph.initializer[0]
    assert pair.apart <= documents.FEW
    assert np.abs(numpy_helper.to_array(first)).max() < np.abs(wild.weights[first.name].read()).max()
    assert judge_pair(pair, inputs=inputs).is_right


# --- the judge can fail --------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    return draw_pair(1, "mlp", "units_permuted", combined=False)


def test_a_permuted_copy_is_right(pair):
    outcome = judge_pair(pair)
    assert (outcome.verdict, outcome.merged, outcome.kept) == (RIGHT, 1.0, ())


@pytest.mark.parametrize(("off", "assembled"), [(0, [0.5]), (1, [0.5, 0.3, 1.0])])
def test_a_lambda_is_assembled_where_the_plan_of_another_is_not_the_base(pair, monkeypatch, off, assembled):
    whole, merged, lams = mal_graph.assemble, judging.run_outputs, []

    def noted(*models, lam):
        lams.append(lam)
        return whole(*models, lam=lam)

    monkeypatch.setattr(mal_graph, "assemble", noted)
    monkeypatch.setattr(judging, "run_outputs", lambda *given: {n: y + off for n, y in merged(*given).items()})
    assert judge_pair(pair, assembled=(0.5,)).is_right
    assert lams == assembled


def test_one_sign_in_the_donor_is_wrong(pair):
    tensor = next(tensor for tensor in pair.donor.graph.initializer if tensor.name.startswith("head.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values.ravel()[np.abs(values).argmax()] *= -1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    outcome = judge(pair.base, pair.donor)
    assert outcome.verdict == WRONG
    assert outcome.worst > 1e-3


def test_a_merge_that_leaves_layers_out_keeps_too_much(pair, monkeypatch):
    whole = mal_graph.assemble
    monkeypatch.setattr(mal_graph, "assemble", lambda *models, lam: whole(*models, lam=lam, layers="0:1"))
    outcome = judge_pair(pair)
    assert outcome.verdict == KEPT_TOO_MUCH
    assert "head/weight" in outcome.kept
    assert judge(pair.base, pair.donor, learned=pair.learned, may_keep=("head/*", "fc*")).verdict == RIGHT


@pytest.mark.parametrize(("error", "verdict"), [(MatchError("no"), REFUSED), (ValueError("oh"), BREAKS)])
def test_a_refusal_is_told_from_an_exception_nobody_meant(pair, monkeypatch, error, verdict):
    def fails(*models, lam):
        raise error

    monkeypatch.setattr(mal_graph, "assemble", fails)
    outcome = judge_pair(pair)
    assert outcome.verdict == verdict
    assert str(error) in outcome.message


def test_a_refusal_may_be_allowed(pair, monkeypatch):
    def refuses(*models, lam):
        raise MatchError("units are scaled")

    monkeypatch.setattr(mal_graph, "assemble", refuses)
    assert judge(pair.base, pair.donor, may_keep=(), may_refuse=True).is_right
    assert judge(pair.base, pair.donor, may_keep=("*",)).is_right
