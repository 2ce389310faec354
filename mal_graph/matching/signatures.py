"""Which input and which output of the donor is which of the base's.

By name where both models use the same names, by place where they have none in common. Names that are shared in part say
neither: such models are refused, unless every pair is given by hand.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mal_graph.errors import MatchError, UsageError
from mal_graph.graph import LayerGraph, Value

T = TypeVar("T")


@dataclass(frozen=True)
class Signatures:
    """The inputs and outputs of two models, paired.

    Attributes:
        inputs, outputs: the donor's name of each of the base's, in the base's order.
        by: what paired the inputs, and what the outputs, those that were given by hand left aside: "name" or "place";
            "hand" where all were given.
        by_hand: the base's names of those that were given.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    by: tuple[str, str] = ("name", "name")
    by_hand: frozenset[str] = frozenset()

    @property
    def called(self) -> Mapping[str, str]:
        """The base's name of each input and output of the donor."""
        return {theirs: own for names in (self.inputs, self.outputs) for own, theirs in names.items()}

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every pair, as they would be given by hand."""
        return tuple(dict.fromkeys((*self.inputs.items(), *self.outputs.items())))

    @property
    def known_outputs(self) -> Mapping[str, str]:
        """The outputs whose names, or whose user, say which is which."""
        return {own: theirs for own, theirs in self.outputs.items() if self.by[1] != "place" or own in self.by_hand}

    def for_donor(self, given: Mapping[str, T]) -> dict[str, T]:
        """What is given for the base's inputs, by the donor's names; other names stay."""
        return {self.inputs.get(name, name): one for name, one in given.items()}

    def in_base_order(self, donor: LayerGraph) -> LayerGraph:
        """The donor with its inputs listed as the base's are: layers are matched by the inputs that they read."""
        place = {name: i for i, name in enumerate(self.inputs.values())}
        inputs = sorted(donor.inputs, key=lambda value: place.get(value.name, len(place)))
        return replace(donor, inputs=tuple(inputs))


def pair_signatures(base: LayerGraph, donor: LayerGraph, by_hand: Iterable[tuple[str, str]] = ()) -> Signatures:
    """Pair the inputs and outputs of two models.

    Args:
        by_hand: names of inputs or outputs of the base, each with the donor's, instead of finding them.

    Raises:
        MatchError: they cannot be paired.
        UsageError: a pair names what is not there.
    """
    given = list(by_hand)
    check_given(base, donor, given)
    inputs, by_inputs = pair_values(base, donor, "inputs", base.inputs, donor.inputs, given)
    outputs, by_outputs = pair_values(base, donor, "outputs", base.outputs, donor.outputs, given)
    inputs = {value.name: inputs[value.name] for value in base.inputs if value.name in inputs}
    outputs = {value.name: outputs[value.name] for value in base.outputs if value.name in outputs}
    return Signatures(inputs, outputs, (by_inputs, by_outputs), frozenset(own for own, _ in given))


def tell_pairs(base: LayerGraph, donor: LayerGraph, signatures: Signatures) -> Iterator[str]:
    """One sentence for each input and output that has another name in the donor, and where both models list those of
    the same names in another order."""
    for kind, mine, theirs, paired, by in (
        ("input", base.inputs, donor.inputs, signatures.inputs, signatures.by[0]),
        ("output", base.outputs, donor.outputs, signatures.outputs, signatures.by[1]),
    ):
        for own, other in paired.items():
            if own != other:
                how = "hand" if own in signatures.by_hand else by
                yield f"{kind} {other!r} of {donor.name} is {kind} {own!r} of the base (by {how})"
        in_base = [paired[value.name] for value in mine if value.name in paired]
        if by == "name" and in_base != [value.name for value in theirs if value.name in in_base]:
            yield f"{donor.name} lists its {kind}s in another order than the base: they are paired by name"


def listed_alike(base: LayerGraph, donor: LayerGraph, by_hand: Iterable[tuple[str, str]] = ()) -> LayerGraph:
    """The donor with its inputs in the order of the base's; as it is where they cannot be paired. Raises UsageError."""
    try:
        return pair_signatures(base, donor, by_hand).in_base_order(donor)
    except MatchError:
        return donor


def pair_values(
    base: LayerGraph,
    donor: LayerGraph,
    what: str,
    mine: Sequence[Value],
    theirs: Sequence[Value],
    given: Sequence[tuple[str, str]],
) -> tuple[dict[str, str], str]:
    """The donor's name of each input, or of each output, and what paired them. Raises MatchError."""
    names, others = [value.name for value in mine], [value.name for value in theirs]
    chosen = {own: other for own, other in given if own in names and other in others}
    names, others = ([n for n in names if n not in chosen], [n for n in others if n not in chosen.values()])
    common = set(names) & set(others)
    if not names or not others:
        return chosen, "hand" if chosen else "name"
    if not common:
        return {**chosen, **dict(zip(names, others, strict=False))}, "place"
    is_part = what == "outputs" and common in (set(names), set(others))  # what one of them gives beside the other's
    if is_part or set(names) == set(others):
        return {**chosen, **{name: name for name in names if name in common}}, "name"
    raise MatchError(
        f"cannot tell which of the {what} of {donor.name} ({', '.join(others)}) is which of those of {base.name} "
        f"({', '.join(names)}): they have only {', '.join(sorted(common))} in common; pair the others with `pair`"
    )


def batched_inputs(base: LayerGraph, donor: LayerGraph, inputs: Mapping[str, str]) -> list[str]:
    """The base's inputs whose first axis holds samples: all but those that are as long in both, so that the models run
    on a single length."""
    theirs = {value.name: first_length(value) for value in donor.inputs}
    mine = {value.name: first_length(value) for value in base.inputs}
    return [own for own, other in inputs.items() if mine[own] is None or mine[own] != theirs[other]]


def first_length(value: Value) -> int | None:
    """How long an input's first axis is; None where that is open."""
    length = value.shape[0] if value.shape else None
    return length if isinstance(length, int) else None


def check_given(base: LayerGraph, donor: LayerGraph, given: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError where a pair by hand names what is not there, an input with an output, or a name twice."""
    kinds = [[{value.name for value in values} for values in (side.inputs, side.outputs)] for side in (base, donor)]
    for pair in given:
        for name, side, model, known in zip(pair, ("base", "donor"), (base, donor), kinds, strict=True):
            if not any(name in names for names in known):
                has = ", ".join(value.name for value in (*model.inputs, *model.outputs))
                raise UsageError(
                    f"`pair` names {name!r}, which is no input or output of the {side} {model.name}: it has {has}"
                )
        if not any(pair[0] in mine and pair[1] in theirs for mine, theirs in zip(*kinds, strict=True)):
            raise UsageError(
                f"`pair` puts {pair[0]!r} beside {pair[1]!r}: pair inputs with inputs and outputs with outputs"
            )
    for mine, theirs in zip(*kinds, strict=True):
        of_kind = [pair for pair in given if pair[0] in mine and pair[1] in theirs]
        for place, side in enumerate(("base", "donor")):
            names = [pair[place] for pair in of_kind]
            if twice := [name for name in names if names.count(name) > 1]:
                raise UsageError(f"`pair` names {twice[0]!r} of the {side} twice: give each of its partners once")
