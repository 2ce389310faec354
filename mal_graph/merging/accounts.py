"""What becomes of every float parameter of the base: merged, kept with a reason, or a setting with a reason.

The three lists are made each from its own source - the steps of the plan, what it says of layers and bodies, and the
settings of the graph - and held against what the file stores: a tensor in no list, or in two, is a fault.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph
from mal_graph.matching import find_foldable_norm
from mal_graph.merging.planning import Plan
from mal_graph.network import Layer, Parameter, find_inner, find_settings

FOLDED = "the BatchNormalization of the base stays as it is, and the donor's layer, which has none, is brought to it"
MULTIPLIED_BY_ZERO = "its operator multiplies it by 0"
NO_COUNTERPART = "the donor has no counterpart"


class Fate(StrEnum):
    """What becomes of a stored tensor."""

    MERGED = "merged"
    KEPT = "kept"
    SETTING = "setting"


@dataclass(frozen=True)
class Account:
    """What becomes of one stored tensor of the base.

    Attributes:
        tensor: its name.
        size: how many numbers it holds.
        fate: what becomes of it.
        reason: why it is not merged, "" if it is.
        layers: names of the base's layers that apply it, the one that owns it first.
    """

    tensor: str
    size: int
    fate: Fate
    reason: str = ""
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Accounts(Brief):
    """What becomes of every float tensor of the base.

    Attributes:
        stored: how many numbers each float tensor of the base holds, by name.
        entries: one for each tensor and list that it is in.
    """

    stored: Mapping[str, int]
    entries: tuple[Account, ...]

    @property
    def total(self) -> int:
        """How many float numbers the base stores."""
        return sum(self.stored.values())

    def count(self, fate: Fate) -> int:
        """How many of them become one thing."""
        return sum(entry.size for entry in self.entries if entry.fate is fate)

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the lists: tensors in none of them, in several, or there without a reason."""
        times = Counter(entry.tensor for entry in self.entries)
        nowhere = [f"{name} is in no list" for name in self.stored if not times[name]]
        often = [f"{name} is in {count} lists" for name, count in times.items() if count > 1]
        unsaid = [
            f"{entry.tensor} is {entry.fate} without a reason"
            for entry in self.entries
            if entry.fate is not Fate.MERGED and not entry.reason
        ]
        return (*nowhere, *often, *unsaid)

    @property
    def adds_up(self) -> bool:
        """Whether merged, kept and settings are what the base stores, each number once and with its reason."""
        return not self.faults and sum(map(self.count, Fate)) == self.total


def account_for(base: LayerGraph, plan: Plan) -> Accounts:
    """What a plan makes of every float tensor of a base.

    Args:
        base: the model as it was given; what a merge adds to it is none of its parameters.
        plan: what is done to it.
    """
    stored = stored_floats(base)
    users: dict[str, list[str]] = {}
    for layer in plan.match.base:
        for tensor in dict.fromkeys(parameter.tensor for parameter in layer.applied):
            users.setdefault(tensor, []).append(layer.name)
    merged = {step.tensor for step in plan.steps}
    lists = (
        *((step.tensor, Fate.MERGED, "") for step in plan.steps),
        *((name, Fate.KEPT, why) for name, why in kept_tensors(plan)),
        *((name, Fate.KEPT, why) for name, why in find_inner(base, users).items()),
        *((name, Fate.SETTING, why) for name, why in find_settings(base, {*users, *merged}).items()),
    )
    entries = [
        Account(name, stored[name], fate, why, tuple(users.get(name, ())))
        for name, fate, why in lists
        if name in stored
    ]
    return Accounts(stored, tuple(entries))


def kept_tensors(plan: Plan) -> Iterator[tuple[str, str]]:
    """Parameters of layers that the plan has no step for, with what it says of them."""
    merged = {step.tensor for step in plan.steps}
    for layer in plan.match.base:
        for parameter in layer.parameters:
            if parameter.tensor not in merged:
                yield parameter.tensor, why_kept(plan, layer, parameter)


def why_kept(plan: Plan, layer: Layer, parameter: Parameter) -> str:
    """Why a parameter of a layer keeps the base's values; "" if the plan does not say."""
    if layer.name in plan.skipped:
        return plan.skipped[layer.name]
    if not parameter.factor:
        return MULTIPLIED_BY_ZERO
    if parameter.tensor in folded_tensors(plan, layer):
        return FOLDED
    said = "; ".join((*plan.dropped.get(layer.name, ()), *plan.missing.get(layer.name, ())))
    return said or (NO_COUNTERPART if not parameter.shape else "")


def folded_tensors(plan: Plan, layer: Layer) -> set[str]:
    """What a BatchNorm of the base's that the donor's layer is brought to leaves as it is."""
    if not any(step.pair.restore for step in plan.steps if step.pair.layer == layer.name):
        return set()
    norm = find_foldable_norm(plan.base, layer)
    biases = {parameter.tensor for parameter in layer.parameters if parameter.is_bias}
    return biases | {parameter.tensor for parameter in (norm.parameters if norm else ())}


def combine_accounts(base: LayerGraph, plans: Sequence[tuple[str, Plan]]) -> Accounts:
    """What several donors, by name and one after the other, make of a base: merged is what any of them reaches."""
    accounts = [account_for(base, plan) for _, plan in plans]
    if len(accounts) == 1:
        return accounts[0]
    by_tensor: dict[str, list[tuple[str, Account]]] = {}
    for (donor, _), one in zip(plans, accounts, strict=True):
        for entry in one.entries:
            by_tensor.setdefault(entry.tensor, []).append((donor, entry))
    return Accounts(stored_floats(base), tuple(map(of_several, by_tensor.values())))


def of_several(entries: Sequence[tuple[str, Account]]) -> Account:
    """One tensor's account where several donors were merged."""
    merged = next((entry for _, entry in entries if entry.fate is Fate.MERGED), None)
    if merged is not None:
        return merged
    (_, first), *_ = entries
    if len({entry.reason for _, entry in entries}) == 1:
        return first
    return replace(first, reason="; ".join(f"{donor}: {entry.reason}" for donor, entry in entries))


def stored_floats(base: LayerGraph) -> dict[str, int]:
    """How many numbers each float tensor of a graph holds, by name; those that are stored once count once."""
    return {name: weight.size for name, weight in base.weights.items() if weight.is_float and name not in base.copies}
