"""What is said of a donor whose inputs or outputs do not mean what the base's do: the figures, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mal_graph.figure import Figure
from mal_graph.meaning import LARGE, Explanation

SHOWN = 12  # classes that a sentence lists
EXACT = 1e-4  # of loss: what is left where the outputs are the base's but for their size
UNLIKE = 0.85  # of loss: of outputs that are further off the size says nothing


class Kind(StrEnum):
    """What is said."""

    EQUAL = "equal"
    CONSTANT = "constant"
    NOISE = "noise"
    CHANNELS = "channels"
    FEATURES = "features"
    NUMBERS = "numbers"
    CLASSES = "classes"
    SIGN = "sign"
    UNITS = "units"
    SIZE = "size"
    FORM = "form"
    UNKNOWN = "unknown"


ADVICE = {
    Kind.EQUAL: "a merge of the two gains nothing; leave it out, or take another donor",
    Kind.CONSTANT: "leave it out, or export it again",
    Kind.NOISE: "leave it out, or look whether it was trained, and on such inputs",
    Kind.CHANNELS: "export it with an operator in front that puts the channels into this order",
    Kind.FEATURES: "export it with an operator in front that puts the features into this order",
    Kind.NUMBERS: "export it with this arithmetic in front",
    Kind.CLASSES: "say what the classes of each model are called with `labels_of`, or export it with the base's order",
    Kind.SIGN: "export it with the sign turned",
    Kind.UNITS: "export it with its values in the base's units",
    Kind.SIZE: "export it with outputs of the base's size, for in a mean the larger ones decide",
    Kind.FORM: "export both with the same operator at the end",
    Kind.UNKNOWN: "give inputs that both models take",
}


@dataclass(frozen=True)
class Losses:
    """How far a donor's outputs are from the base's on held-out samples: 0 where they are equal, 1 where they say
    nothing of these.

    Attributes:
        before, after: as the donor is, and with what explains it.
        chance: the least of copies of the donor with random weights; None where these were not run.
    """

    before: Figure
    after: Figure
    chance: Figure | None


@dataclass(frozen=True)
class Meaning:
    """One thing that was found of a donor.

    Attributes:
        donor: its name.
        kind: what it is about.
        text: what was found, with the figures.
        advice: what to do.
        input, output: the base's name of what it is about, or of what explains it.
        order: entry i of the base's order is number `order[i]` in the donor's, of channels, features or classes.
        losses: how far off the donor is, where an explanation was looked for.
    """

    donor: str
    kind: Kind
    text: str
    advice: str
    input: str = ""
    output: str = ""
    order: tuple[int, ...] = ()
    losses: Losses | None = None

    def __str__(self) -> str:
        return f"{self.donor} {self.text}: {self.advice}"


@dataclass(frozen=True)
class Accuracies:
    """How often the largest score is that of the label, on the samples that judge."""

    base: float
    before: float
    after: float


def told(donor: str, kind: Kind, text: str, output: str = "", losses: Losses | None = None) -> Meaning:
    """What has no explanation, or needs none."""
    return Meaning(donor, kind, text, ADVICE[kind], output=output, losses=losses)


def said_of(found: Explanation, donor: str, accuracies: Accuracies | None) -> Iterator[Meaning]:
    """What one output of a donor shows."""
    reading, outputs, figures = found.reading, found.trial.outputs, evidence(found, accuracies)
    losses = Losses(found.before, found.after, found.chance)
    for change in found.trial.inputs:
        text = f"agrees with the base when it is given {change.told}, {figures}"
        kind = Kind(change.family)
        yield Meaning(donor, kind, text, ADVICE[kind], change.input, "", change.order, losses)
    if outputs.moved:
        order = full_order(found)
        text = f"has its classes in another order: {listed(order)}, {figures}"
        yield Meaning(donor, Kind.CLASSES, text, ADVICE[Kind.CLASSES], "", reading.output, order, losses)
    elif outputs.is_turned:
        yield told(
            donor, Kind.SIGN, f"gives output {reading.output!r} with the other sign, {figures}", reading.output, losses
        )
    elif any(outputs.shift):
        text = f"gives output {reading.output!r} in other units: {line_of(found)}, {figures}"
        yield told(donor, Kind.UNITS, text, reading.output, losses)
    if reading.kinds[0] != reading.kinds[1]:
        text = f"gives {reading.kinds[1]} in output {reading.output!r} where the base gives {reading.kinds[0]}"
        yield told(donor, Kind.FORM, text, reading.output)
    elif is_of_other_size(found):
        resized = "" if found.resized is None else found.resized.inputs[-1].input
        yield Meaning(donor, Kind.SIZE, size_text(found), ADVICE[Kind.SIZE], resized, reading.output, (), losses)


def evidence(found: Explanation, accuracies: Accuracies | None) -> str:
    """How much better the donor is explained with the changes than as it is."""
    several = "with all that is named of it, " if found.trial.parts > 1 else ""
    if found.decided is not None:
        before, after = found.decided
        text = f"{several}which makes it decide like the base on {after:.0%} of held-out samples, not on {before:.0%}"
    else:
        text = f"{several}which leaves less of its difference to the base on held-out samples"
    text += f" (loss {found.after:.2f}, not {found.before:.2f}"
    text += f"; with random weights {found.chance:.2f} at least)" if found.chance is not None else ")"
    if accuracies is None:
        return text
    text += f"; its accuracy on their labels is then {accuracies.after:.2f}, not {accuracies.before:.2f}"
    if accuracies.base < accuracies.before and accuracies.after < accuracies.before:
        text += f", the base's is {accuracies.base:.2f}: the labels fit the donor, not the base"
    return text


def full_order(found: Explanation) -> tuple[int, ...]:
    """The donor's column for each of the base's that were compared."""
    order, columns = found.trial.outputs.order, found.reading.columns
    return order if columns is None else tuple(columns[1][own] for own in order)


def listed(order: tuple[int, ...]) -> str:
    """Which class of the donor is which of the base's, those that moved."""
    moved = [f"{place} of the base is its {own}" for place, own in enumerate(order) if own != place]
    return ", ".join(moved[:SHOWN]) + (f" and {len(moved) - SHOWN} more" if len(moved) > SHOWN else "")


def line_of(found: Explanation) -> str:
    """The line that brings a donor's values to the base's, of the first column."""
    change, units = found.trial.outputs, found.reading.units
    return f"the base's are {change.factor[0]:.3g} times its own, plus {change.shift[0] * units[0]:.3g}"


def is_of_other_size(found: Explanation) -> bool:
    """Whether the scores are so much larger or smaller than the base's that another training does not explain it."""
    if found.reading.is_told or any(found.trial.outputs.shift) or found.after > UNLIKE:
        return False
    is_exact = found.after <= EXACT and abs(found.trial.size - 1) > EXACT**0.5
    return is_exact or not 1 / LARGE < found.trial.size < LARGE


def size_text(found: Explanation) -> str:
    text = f"gives output {found.reading.output!r} {found.trial.size:.3g} times as large as the base does"
    if found.resized is None:
        return text
    return f"{text}, and of about its size when it is given {found.resized.inputs[-1].told}"


def noise_text(found: Explanation) -> str:
    return (
        f"says no more of what the base says in output {found.reading.output!r} than copies of it with their weights "
        f"in random order: loss {found.after:.2f} on held-out samples, theirs {found.chance:.2f} at least"
    )
