"""How two models are related, as far as their weights and outputs tell: said before a merge is judged."""

from collections.abc import Iterator

import numpy as np

from mal_graph.errors import MatchError
from mal_graph.matching import RELATED, Orders, cosine_of
from mal_graph.merging import Plan, merge
from mal_graph.workflows.both_models import KEEPS
from mal_graph.workflows.steps import Merged

KIN = 0.3  # cosine in stored order from which a base may be far from its ancestor; trained apart it is below 0.1


def relations_of(step: Merged, *, has_ancestor: bool = False) -> Iterator[str]:
    """One sentence for each relation between base and donor that was found; that an ancestor would help, where there is
    none."""
    plan, donor = step.plan, step.donor.name
    equal = step.promises.of_equal_functions
    if equal and not step.promises.kept and is_reordered_base(plan):
        moved = moved_units(plan.alignment.orders)
        how = f"with {moved} of its units in another order" if moved else "itself"
        yield f"{donor} is the base {how}: a merge of the two is the base at any lambda"
        return
    if alone := nothing_to_align(step):
        yield alone
    if step.promises.missed:
        why = "something between or beside the layers differs, so this may be no merge of the two"
        yield f"{step.promises.missed}: {why}"
    if equal:
        yield f"{donor} computes what the base does, though its weights are others"
    cosine = cosine_in_stored_order(plan)
    if cosine >= RELATED:
        moved = moved_units(plan.alignment.orders)
        used = "which was used" if not moved else f"though {moved} units fit better elsewhere"
        more = "" if has_ancestor else "; merge methods such as ties can do more with that model as their `ancestor`"
        yield (
            f"{donor} and the base look like fine-tunes of one model: the cosine of their weights is {cosine:.2f} in "
            f"stored order, {used}{more}"
        )
    elif has_ancestor and cosine < KIN and (aligned := aligned_cosine(plan)) < RELATED:
        yield (
            f"{donor} is a stranger to the base and so to their ancestor: the cosine of their aligned weights is "
            f"{aligned:.2f}, and of fine-tunes it is above {RELATED:g}; what a method takes for learned since the "
            "ancestor is here all that sets two models apart"
        )


def nothing_to_align(step: Merged) -> str:
    """That a donor and the base have nothing in common that an alignment could find, with the figures; "" if they
    have, that was not asked, or the two compute the same: then only their alignment falls short."""
    chance = step.chance
    if chance is None or not chance.has_nothing_to_align or step.promises.of_equal_functions:
        return ""
    return (
        f"{step.donor.name} and the base have nothing to align: the mean cosine of their aligned weights is "
        f"{chance.cosine:.3f}, with the donor's weights in random order it is {chance.random:.3f}, and no less than "
        f"{chance.least:.3f} would be better than chance"
    )


def refuse_stranger(plan: Plan) -> None:
    """Raise MatchError where what was given as the ancestor of the base is none: what a model has learned since another
    one says nothing unless it comes from that one. A model far from its ancestor still goes with it in stored order."""
    aligned = aligned_cosine(plan)
    if aligned < RELATED and cosine_in_stored_order(plan) < KIN:
        raise MatchError(
            f"{plan.donor.graph.name} is no ancestor of {plan.base.name}: the cosine of their aligned weights is "
            f"{aligned:.2f}, and of fine-tunes it is above {RELATED:g}; give the model that all were tuned from, or a "
            "method that needs none, such as linear"
        )


def ancestor_notes(plan: Plan) -> Iterator[str]:
    """That the base is far from its ancestor."""
    cosine = aligned_cosine(plan)
    if cosine < RELATED:
        yield (
            f"{plan.donor.graph.name} is far from the base for an ancestor: the cosine of their aligned weights is "
            f"{cosine:.2f}, and of fine-tunes it is above {RELATED:g}"
        )


def aligned_cosine(plan: Plan) -> float:
    """The cosine of the weights of two models, the donor's where they were put."""
    end = merge(plan.at(1.0))
    weights = [step for step in plan.steps if step.pair.is_compared]
    return cosine_of((plan.base.weights[step.tensor].read(), end.weights[step.tensor].read()) for step in weights)


def is_reordered_base(plan: Plan) -> bool:
    """Whether the donor's values, in the orders used, are the base's."""
    end = merge(plan.at(1.0))
    for step in plan.steps:
        mine, theirs = plan.base.weights[step.tensor].read(), end.weights[step.tensor].read()
        if not np.allclose(mine, theirs, rtol=0, atol=KEEPS * max(float(np.abs(mine).max(initial=0)), 1e-30)):
            return False
    return not plan.skipped and not plan.dropped


def moved_units(orders: Orders) -> int:
    """How many units of the base stand on a donor unit of another number."""
    return int(sum(((order >= 0) & (order != np.arange(len(order)))).sum() for order in orders))


def cosine_in_stored_order(plan: Plan) -> float:
    """The cosine of the weights of two models as they are stored, over the tensors of equal shape; 0 where they have
    none."""
    steps = [step for step in plan.steps if step.pair.is_compared and step.pair.base.shape == step.pair.donor.shape]
    return cosine_of((step.pair.base_values(), step.pair.donor_values()) for step in steps)
