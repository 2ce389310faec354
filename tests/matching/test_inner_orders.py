"""Units that are interchangeable but not assigned: merged in stored order where no other fits better, else kept."""

from nested_nets import attention

import mal_graph
from mal_graph.matching import assign_at_random, assign_in_order

KEPT = "interchangeable but not assigned"


def base():
    """A network whose queries and keys have units inside its heads."""
    return attention(seed=0)


def donor(seed):
    """One that has them across its heads, so that no group of the base is like theirs; of one seed the weights are
    the same."""
    return attention(normed="RMSNormalization", seed=seed)


def kept_for_inner_order(result):
    return [name for name, why in result.merged[0].plan.skipped.items() if KEPT in why]


def test_where_the_stored_order_fits_best_everything_is_merged():
    assert not mal_graph.assemble(base(), donor(0), lam=0.5).merged[0].plan.skipped


def test_where_another_order_fits_better_the_layers_keep_the_base_and_the_others_are_merged():
    result = mal_graph.assemble(base(), donor(1), lam=0.5)
    kept = kept_for_inner_order(result)
    assert len(kept) == 2  # those of queries and keys
    assert kept == list(result.merged[0].plan.skipped)
    assert len(result.merged[0].plan.steps) > len(kept)


def test_they_are_merged_where_the_user_vouches_for_the_order():
    assert not mal_graph.assemble(base(), donor(1), lam=0.5, assume_ordered=True).merged[0].plan.skipped


def test_controls_are_made_of_what_the_merge_is_made_of():
    """Orders that nobody assigned are not judged: the controls merge the very layers of the merge."""
    correspondence = mal_graph.assemble(base(), donor(1), lam=0.5).merged[0].plan.alignment.correspondence
    for control in (assign_at_random(correspondence, 0), assign_in_order(correspondence)):
        assert control.correspondence is correspondence
