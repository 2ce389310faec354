"""Settings are the base's whatever lambda; what differs from the donor's is said, and what was learned is merged."""

import json

import numpy as np
import pytest
from builders import correspondence_of, permuted_copy
from hypothesis import given, settings
from hypothesis import strategies as st
from setting_nets import (
    HEAD,
    TOKENS,
    WIDTH,
    attention,
    causal,
    convolved,
    rotated,
    stored,
    turned_by_frequencies,
    with_grid,
)

import mal_graph
from mal_graph import axis_groups, verify
from mal_graph.merging import Fate
from mal_graph.network import find_unlearned
from mal_graph.reporting.documents import assemble_document
from mal_graph.reporting.text import text_of
from mal_graph.workflows.promises import LAMBDA_1

GRADED = np.array([[1.0, 2.0, 3.0, 4.0]])  # places on a grid, along the units of a head

KINDS = {
    "scale": (
        lambda seed, other: attention(seed, on_scores=stored("Div", HEAD**0.5 * (2 if other else 1))),
        "its attention scale is 0.5, the donor's 0.25: the base's is kept",
    ),
    "additive mask": (
        lambda seed, other: attention(seed, on_scores=stored("Add", causal().T if other else causal())),
        f"its mask setting differs from the donor's at {TOKENS * (TOKENS - 1)} of {TOKENS**2} places",
    ),
    "factor mask": (
        lambda seed, other: attention(seed, on_scores=stored("Mul", np.tri(TOKENS).T if other else np.tri(TOKENS))),
        f"its mask setting differs from the donor's at {TOKENS * (TOKENS - 1)} of {TOKENS**2} places",
    ),
    "rotary tables": (
        lambda seed, other: attention(seed, on_both=rotated(1000.0 if other else 100.0)),
        "its table of a rotation cosines differs from the donor's at",
    ),
    "frequencies": (
        lambda seed, other: attention(seed, on_both=turned_by_frequencies(1000.0 if other else 100.0)),
        f"its frequencies of a rotation frequencies differs from the donor's at 1 of {HEAD // 2} places",
    ),
    "grid": (
        lambda seed, other: with_grid(seed, step=2.0 if other else 1.0),
        "its grid of positions anchors differs from the donor's at 72 of 72 places",
    ),
    "preparation": (
        lambda seed, other: convolved(seed, mean=(0.5, 0.45, 0.3) if other else (0.48, 0.45, 0.4)),
        "its normalisation of an input mean differs from the donor's at 2 of 3 places: the base's is kept",
    ),
}


def lines_of(document):
    """What is said of the layers beside their weights; the heads of strangers are kept, which is said too."""
    reasons = [part for layer in document.skipped for part in layer.reason.split("; ") if "not assigned" not in part]
    return [*reasons, *(line for layer in document.merged for line in layer.missing)]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_a_setting_is_the_bases_at_any_lambda_and_counted_as_one(kind):
    make, _ = kind
    base, donor = make(0, False), make(1, True)
    names = find_unlearned(base)
    for lam in (0.5, 1.0):
        result = mal_graph.assemble(base, donor, lam=lam)
        for name in names:
            assert np.array_equal(result.graph.weights[name].read(), base.weights[name].read())
    entries = {entry.tensor: entry for entry in result.accounts.entries}
    assert result.accounts.adds_up
    assert all(entries[name].fate is Fate.SETTING and "nobody learned" in entries[name].reason for name in names)


def test_a_difference_is_said_in_text_and_json_and_lambda_1_is_not_promised(kind):
    make, line = kind
    result = mal_graph.assemble(make(0, False), make(1, True), lam=0.5)
    document = assemble_document(result)
    assert any(line in said for said in lines_of(document))
    assert line in " ".join(text_of(document, verbose=True, width=None).split())
    assert line in json.dumps(json.loads(document.json_text()), ensure_ascii=False)
    assert "not promised" in result.check(LAMBDA_1).detail


def test_nothing_is_said_of_equal_settings_and_lambda_1_is_the_donor(kind):
    make, _ = kind
    base, donor = make(0, False), make(1, False)
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert lines_of(assemble_document(result)) == []
    assert result.check(LAMBDA_1).passed


def test_a_shuffled_copy_is_found_again(kind):
    make, _ = kind
    base = make(0, False)
    copy, _ = permuted_copy(base, verify(base, axis_groups(base)), seed=3)
    result = mal_graph.assemble(base, copy, lam=0.5)
    for name, weight in base.weights.items():
        if weight.is_float:
            assert np.allclose(result.graph.weights[name].read(), weight.read(), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda rng: {"on_tokens": stored("Add", rng.normal(size=(TOKENS, WIDTH)))},
        lambda rng: {"on_tokens": stored("Mul", rng.normal(size=WIDTH))},
        lambda rng: {"on_tokens": stored("Mul", rng.uniform(0.1, 0.9))},
        lambda rng: {"on_scores": stored("Add", rng.normal(size=(TOKENS, TOKENS)))},
        lambda rng: {"on_scores": stored("Mul", rng.uniform(2.1, 2.9, (2, 1, 1)))},
    ],
)
def test_what_was_learned_is_merged(change):
    base, donor = (attention(seed, **change(np.random.default_rng(seed))) for seed in (0, 1))
    result = mal_graph.assemble(base, donor, lam=0.5)
    (entry,) = [entry for entry in result.accounts.entries if entry.tensor == "setting"]
    assert entry.fate is Fate.MERGED
    assert not np.array_equal(result.graph.weights["setting"].read(), base.weights["setting"].read())
    assert result.accounts.adds_up


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.sampled_from(["Mul", "Div"]), st.sampled_from(["Mul", "Div"]), st.integers(2, 300), st.integers(2, 300))
def test_scales_are_compared_by_what_they_do(op, other, length, others):
    def scaled(seed, op, length):
        return attention(seed, on_scores=stored(op, length**0.5 if op == "Div" else length**-0.5))

    said = correspondence_of(scaled(0, op, length), scaled(1, other, others)).unpaired
    assert bool(said) == (length != others)


def test_one_scale_of_scores_is_two_of_queries_and_keys():
    one = attention(0, on_scores=stored("Div", 4.0))
    two = attention(1, on_both=stored("Mul", 0.5))
    assert not correspondence_of(one, two).unpaired


def test_however_low_a_mask_is_it_masks():
    a, b = (attention(seed, on_scores=stored("Add", causal(low))) for seed, low in ((0, -1e9), (1, -np.inf)))
    assert not correspondence_of(a, b).unpaired


def test_a_mask_that_one_model_has_alone_is_said():
    masked, plain = attention(0, on_scores=stored("Add", causal())), attention(1)
    ((_, lines),) = correspondence_of(masked, plain).unpaired.items()
    assert "its mask setting has no counterpart in the donor: it is kept" in lines
    ((_, lines),) = correspondence_of(plain, masked).unpaired.items()
    assert "the donor has a mask setting that the base has not" in lines


def test_what_lies_along_the_units_of_a_head_pins_them():
    base, donor = (attention(seed, on_both=stored("Mul", GRADED)) for seed in (0, 1))
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert result.check(LAMBDA_1).passed
