"""What explains a donor that does not do what the base does on the same samples: other inputs, or other outputs.

Half of the samples choose, the others judge. Every change of the inputs is tried, each with every change of the
outputs; of what gains nearly as much as the best, the simplest is taken. It explains the donor only if, on samples that
had no part in the choice, it takes away a good part of the loss, more than luck would, and leaves a smaller loss than
any copy of the donor with its weights in random order reaches with the same choice. What was found is applied, and the
search goes on from there for what else there may be.

Chosen: a held-out half, on which the best of each kind is tested and nothing else, whatever number was tried before.
Refused: a correction of the test for the number of trials - these are alike, and their number says nothing of the
chance that one of them fits. Refused: correlations - a network whose inputs are 255 times too small keeps most of its
correlations, and decides by its biases alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import chain

import numpy as np

from mal_graph.brief import Brief
from mal_graph.evaluation import Arrays
from mal_graph.graph import Array
from mal_graph.meaning.input_changes import (
    FEW,
    Family,
    InputChange,
    exchanges,
    is_numeric,
    lines_near,
    reordered,
    unchanged,
)
from mal_graph.meaning.output_changes import TINY, OutputChange, as_is, changes_of, is_clear, losses, spread_of, tidied
from mal_graph.meaning.readings import Reading

NOTHING_LEFT = 0.02  # a loss below which there is nothing to explain
LEFT = 0.7  # of the least loss of the copies: what an explanation may leave
LIMITS = {  # what an explanation may leave of the loss, and what it must gain: less is no error of meaning
    Family.CHANNELS: (0.7, 0.05),
    Family.NUMBERS: (0.7, 0.05),
    Family.FEATURES: (0.5, 0.15),  # of features that say the same, the wrong one often fits as well or better
}
OUTPUTS = (0.7, 0.05)  # the same of outputs
NOISY = 0.85  # of the loss of the best copy: a donor that leaves more is no better
SUSPICIOUS = 0.5  # a loss from which on a donor may be noise, and any line is tried on its numbers
WORTH_A_SEARCH = 0.25  # a loss from which on an order of features is searched
STARTS = 3  # orders drawn at random, from which it is searched too
NEARLY = 2.0  # times the least loss: what it may leave then; networks in other units look as if their inputs were
STEP_LEFT = 0.95  # of the loss: what one step of a search may leave
ENOUGH = 0.9  # of what the best change gains: what a simpler one must gain to be taken in its place
ROUNDS = 3
MOST_FEATURES = 16  # of a table whose order is searched
USUAL, LARGE = 3.0, 5.0  # times: how far the size of scores of other trainings may be off, and what is more than that
NO_FURTHER = 1.1  # of the loss

Changes = tuple[InputChange, ...]
Ask = Callable[[Changes, Array], Array]  # the donor's rows for some samples, their inputs changed


@dataclass(frozen=True, repr=False)
class Case(Brief):
    """One output of a base, and a donor that is asked for its own.

    Attributes:
        reading: how rows are read.
        base: gives the base's rows for some samples, shape (samples, places, columns).
        ask: gives the donor's.
        copies: ask the same of copies of the donor with their weights in random order.
        fitting, judging: the numbers of the samples that choose, and of those that judge.
        inputs: all samples of every input.
    """

    reading: Reading
    base: Callable[[Array], Array]
    ask: Ask
    copies: Sequence[Ask]
    fitting: Array
    judging: Array
    inputs: Arrays = field(default_factory=dict)

    @cached_property
    def spread(self) -> float:
        return spread_of(np.concatenate([self.base(self.fitting), self.base(self.judging)]))

    def losses(self, donor: Array, samples: Array, change: OutputChange) -> Array:
        """The loss of each sample; infinite where a number of the donor is not finite."""
        if not np.isfinite(donor).all():
            return np.full(len(samples), np.inf)
        return losses(self.base(samples), change.of(donor), self.reading, self.spread)

    def judged(self, trial: "Trial") -> Array:
        """The losses of a trial on the samples that judge."""
        return self.losses(self.ask(trial.inputs, self.judging), self.judging, trial.outputs)

    def correlation(self, trial: "Trial") -> float:
        """The mean correlation of the columns of base and donor on the samples that judge."""
        donor = trial.outputs.of(self.ask(trial.inputs, self.judging))
        a, b = (rows.reshape(-1, rows.shape[2]) for rows in (self.base(self.judging), donor))
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        sizes = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        return float(np.mean((a * b).sum(axis=0) / np.maximum(sizes, TINY)))

    def trials(self, inputs: Changes) -> "Iterator[Trial]":
        """Every change of the outputs, with some changes of the inputs."""
        donor = self.ask(inputs, self.fitting)
        if not np.isfinite(donor).all():
            return
        for change in changes_of(self.base(self.fitting), donor, self.reading):
            yield self.trial(inputs, donor, change)

    def plain(self, inputs: Changes) -> "Trial":
        """Some changes of the inputs, and none of the outputs."""
        donor = self.ask(inputs, self.fitting)
        change = as_is(self.base(self.fitting), donor, self.reading)
        return self.trial(inputs, donor, change)

    def trial(self, inputs: Changes, donor: Array, change: OutputChange) -> "Trial":
        """Changes with what they leave."""
        size = float(np.sqrt((donor**2).mean() / max(float((self.base(self.fitting) ** 2).mean()), TINY)))
        return Trial(inputs, change, float(self.losses(donor, self.fitting, change).mean()), size)


@dataclass(frozen=True)
class Trial:
    """Changes that were tried.

    Attributes:
        inputs, outputs: what is changed.
        loss: what they leave of it on the samples that choose, in the mean.
        size: how many times as large as the base's rows the donor's are, before the outputs are changed.
    """

    inputs: Changes
    outputs: OutputChange
    loss: float
    size: float

    @property
    def is_of_usual_size(self) -> bool:
        return 1 / USUAL < self.size < USUAL

    @property
    def parts(self) -> int:
        """How many changes these are."""
        return len(self.inputs) + bool(self.outputs.moved or self.outputs.is_turned or any(self.outputs.shift))


@dataclass(frozen=True)
class Explanation:
    """What was found of one output of a donor.

    Attributes:
        reading: how it is read.
        trial: the changes that explain it; without any if nothing does.
        before, after: the mean loss on the samples that judge as the donor is, and with the changes.
        decided: the share of places where donor and base decide the same, before and after; None of values.
        resized: a change of the numbers of an input with which the rows are as large as the base's and no further off;
            None where there is none, or none is needed.
        chance: the least mean loss of copies with their weights in random order, where these were asked.
        is_noise: whether the donor is no nearer to the base than these, and correlates no more with it.
    """

    reading: Reading
    trial: Trial
    before: float
    after: float
    decided: tuple[float, float] | None
    resized: Trial | None = None
    chance: float | None = None
    is_noise: bool = False

    @property
    def is_found(self) -> bool:
        return self.trial.parts > 0


def explain(case: Case, changes: Sequence[InputChange]) -> Explanation:
    """The changes that explain a donor, as far as any do."""
    current = start = case.plain(())
    by_chance = cache(partial(best_of_copies, case))
    for _ in range(ROUNDS):
        further = next_trial(case, current, changes, lambda inputs: by_chance(inputs)[0])
        if further is None:
            break
        current = further
    before, after = (float(case.judged(one).mean()) for one in (start, current))
    chance = None
    is_noise = False
    if current is not start or before > SUSPICIOUS:
        chance, most = by_chance(current.inputs)
        loss, correlation = best_alone(case, ())
        is_noise = current is start and loss >= NOISY * chance and correlation <= most
    return Explanation(
        reading=case.reading,
        trial=current,
        before=before,
        after=after,
        decided=decided(case, start, current),
        resized=None if 1 / LARGE < current.size < LARGE else resizing(case, current, changes),
        chance=chance,
        is_noise=is_noise,
    )


def resizing(case: Case, current: Trial, changes: Sequence[InputChange]) -> Trial | None:
    """The first change of numbers with which the donor's rows are as large as the base's, and no further off."""
    if any(one.family is Family.NUMBERS for one in current.inputs):
        return None
    for change in (one for one in changes if one.family is Family.NUMBERS):
        trial = case.plain((*current.inputs, change))
        if trial.is_of_usual_size and trial.loss <= NO_FURTHER * current.loss:
            return trial
    return None


def next_trial(
    case: Case, current: Trial, changes: Sequence[InputChange], chance: Callable[[Changes], float]
) -> Trial | None:
    """What explains clearly more than the changes so far, and than `chance` does; None if nothing does. Two changes of
    inputs that help only together are found where the first alone is at least the best there is, or reverses the
    channels."""

    def is_taken(chosen: Trial) -> bool:
        return is_better(case, current, chosen) and case.judged(chosen).mean() <= LEFT * chance(chosen.inputs)

    if current.loss <= NOTHING_LEFT:
        return None
    first = best_trial(case, current, changes)
    if is_taken(first):
        return first
    starts = [first] if len(first.inputs) > len(current.inputs) else []
    if current.loss >= SUSPICIOUS:
        starts += [case.plain((*current.inputs, one)) for one in changes if one.reverses_channels]
    further = (best_trial(case, one, changes) for one in starts)
    return next(filter(is_taken, chain(further, searched(case, current))), None)


def best_trial(case: Case, current: Trial, changes: Sequence[InputChange]) -> Trial:
    """What leaves the least of the loss on the samples that choose: the changes so far, or one more."""
    changed = {(one.input, one.family) for one in current.inputs}
    further = [(*current.inputs, one) for one in changes if (one.input, one.family) not in changed]
    tried = [trial for inputs in (current.inputs, *further) for trial in case.trials(inputs)]
    return tidy(case, simplest(tried, current.loss)) if tried else current


def simplest(tried: Sequence[Trial], loss: float) -> Trial:
    """Of what gains nearly as much as the best, and leaves little more, what changes least; of equal ones those of
    usual size, the first."""
    best = min(trial.loss for trial in tried)
    left = max(NOTHING_LEFT, NEARLY * best)
    near = (trial for trial in tried if trial.loss <= left and loss - trial.loss >= ENOUGH * (loss - best))
    return min(near, key=lambda trial: (trial.parts, not trial.is_of_usual_size))


def tidy(case: Case, trial: Trial) -> Trial:
    """A trial whose order moves no column that need not move."""
    if not trial.outputs.moved:
        return trial
    donor, base = case.ask(trial.inputs, case.judging), case.base(case.judging)
    change = tidied(trial.outputs, base, donor, case.reading, case.spread)
    return replace(trial, outputs=change)


def is_better(case: Case, current: Trial, chosen: Trial) -> bool:
    """Whether a trial takes away more of the loss than luck would, on samples that had no part in choosing it. An order
    of columns alone was judged column by column."""
    if chosen.parts <= current.parts:
        return False
    if chosen.inputs == current.inputs and chosen.outputs.moved:
        return True
    left, gain = min((LIMITS[one.family] for one in chosen.inputs[len(current.inputs) :]), default=OUTPUTS)
    before, after = case.judged(current), case.judged(chosen)
    return is_clear(before, after, left) and float(before.mean() - after.mean()) >= gain


def searched(case: Case, current: Trial) -> Iterator[Trial]:
    """What only a search finds, where a donor says little of the base: a line for the numbers of an input, and the
    order of the features of a table."""
    if current.outputs.moved or current.loss < WORTH_A_SEARCH:
        return
    for name, values in case.inputs.items():
        if is_numeric(values) and current.loss >= SUSPICIOUS:
            yield climbed(case, current, partial(lines_near, values), unchanged(name))
        if values.ndim == 2 and FEW < values.shape[1] <= MOST_FEATURES:
            rng = np.random.default_rng(0)
            for start in (np.arange(values.shape[1]), *(rng.permutation(values.shape[1]) for _ in range(STARTS))):
                yield climbed(case, current, exchanges, reordered(name, 2, 1, start.tolist()))


def climbed(
    case: Case, current: Trial, near: Callable[[InputChange], Iterator[InputChange]], start: InputChange
) -> Trial:
    """The trial that is reached from a start by the best of the changes near by, as long as that helps."""
    best, change = case.plain((*current.inputs, start)), start
    while True:
        tried = [(case.plain((*current.inputs, one)), one) for one in near(change)]
        trial, found = min(tried, key=lambda pair: pair[0].loss)
        if not trial.loss < STEP_LEFT * best.loss:  # nor where both are 0, or infinite
            return best
        best, change = trial, found


def best_of_copies(case: Case, inputs: Changes) -> tuple[float, float]:
    """The least loss of the copies, and the largest correlation."""
    each = [best_alone(replace(case, ask=ask), inputs) for ask in case.copies]
    return min((loss for loss, _ in each), default=1.0), max((most for _, most in each), default=0.0)


def best_alone(case: Case, inputs: Changes) -> tuple[float, float]:
    """The loss that the best changes of the outputs leave, with changes of the inputs and without, and how the outputs
    correlate with the base's then. Where an order was searched, one is searched here too."""
    tried = [trial for one in dict.fromkeys(((), inputs)) for trial in case.trials(one)]
    if any(is_searched(one) for one in inputs):
        tried += searched(case, case.plain(()))
    if not tried:
        return 1.0, 0.0
    best = min(tried, key=lambda trial: trial.loss)
    return min(1.0, float(case.judged(best).mean())), case.correlation(best)


def is_searched(change: InputChange) -> bool:
    return len(change.order) > FEW


def decided(case: Case, start: Trial, end: Trial) -> tuple[float, float] | None:
    """The share of places where the largest score is the same, before and after."""
    if not case.reading.are_scores:
        return None
    own = case.base(case.judging).argmax(axis=2)
    theirs = (one.outputs.of(case.ask(one.inputs, case.judging)).argmax(axis=2) for one in (start, end))
    before, after = (float((own == other).mean()) for other in theirs)
    return before, after
