"""Whether a merge paid: the result beside the base, the best baseline and the ensemble, and what to try next.

The base is beaten where the metric (accuracy, R2 or agreement) is higher, or equal at a lower loss. Differences that
the number of samples cannot tell from chance are called so, and still count: what fails on purpose must not depend on
a threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, sqrt

from mal_graph.config import MergeConfig
from mal_graph.evaluation import Scores
from mal_graph.method_names import WAYS
from mal_graph.workflows.guarding import Choice, Guard
from mal_graph.workflows.notes import unmeasured_norms
from mal_graph.workflows.steps import Merged

MERGED, BASE, ENSEMBLE = "merged", "base", "ensemble"
UNSCORED = "nothing was scored, and labels alone tell whether the ensemble is better than the base"
OUTPUTS = "ensemble of outputs"  # the mean of what is scored, as one network: what a union comes near to
REPAIRED, REFITTED = "base, repaired", "base, last layer refitted"  # the controls that have the same data
BLIND = ("plain average", "random permutation", "random donor")  # what uses no alignment, or no donor
SIGMAS = 2.0


@dataclass(frozen=True)
class Verdict:
    """How a result stands.

    Attributes:
        is_worse: than the base.
        text: one line that says it, with the figures.
        advice: what to try next; "" where nothing suggests itself.
    """

    is_worse: bool
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text}. Try: {self.advice}" if self.advice else self.text


def judge(scores: Sequence[Scores], steps: Sequence[Merged], config: MergeConfig) -> Verdict:
    """The verdict on a scored merge.

    Args:
        scores: of the merge, the base and the baselines, all on the same samples.
        steps: what was merged.
        config: the options.
    """
    by_name = {score.arm: score for score in scores}
    merged, base = by_name[MERGED], by_name[BASE]
    is_worse = beats(base, merged)
    parts = [compared(merged, base, is_worse)]
    parts += better_baselines(by_name)
    if ENSEMBLE in by_name:
        parts.append(beside_ensemble(merged, base, by_name[ENSEMBLE]))
    return Verdict(is_worse, "; ".join(parts), "; ".join(advice(is_worse, steps, config)))


def judge_choice(choice: Choice, *, has_inputs: bool) -> Verdict:
    """The verdict on a result of which nothing but its outputs is known, beside those of the ensemble."""
    if choice.is_good:
        return Verdict(False, f"{choice.taken}: {choice.why}; {UNSCORED}")
    advice = "a larger `budget`, or `method`=union with `budget`=full for all models whole in one file"
    inputs = "" if has_inputs else "`calibrate` with unlabelled inputs, "
    return Verdict(True, f"expected to be worse than the base: {choice.why}", f"{inputs}{advice}")


def judge_union(scores: Sequence[Scores], guard: Guard, *, is_alone: bool) -> Verdict:
    """The verdict on thinned models: by their scores where there are any, else by the guard.

    Args:
        scores: of the result, the base and the baselines.
        guard: how far the result is from what it should do.
        is_alone: whether it is one model, which is to stay what it was.
    """
    expected = "" if guard.accepts else "its outputs are too far from what they should be"
    if not scores:
        what = "a part of what its outputs say is lost" if is_alone else "expected to be worse than the ensemble by far"
        unscored = "nothing was scored" if is_alone else UNSCORED
        text = f"{what}: {expected}" if expected else f"its outputs are near to what they should be; {unscored}"
        return Verdict(
            not guard.accepts, f"{text} ({guard.error:.2f}, up to {guard.limit:g} is accepted)", help_of(guard)
        )
    by_name = {score.arm: score for score in scores}
    merged, base = by_name[MERGED], by_name[BASE]
    is_worse = beats(base, merged)
    parts = [compared(merged, base, is_worse), *better_baselines(by_name)]
    if OUTPUTS in by_name:
        parts.append(beside_ensemble(merged, base, by_name[OUTPUTS]))
    return Verdict(is_worse, "; ".join(filter(None, [*parts, expected])), help_of(guard) if is_worse else "")


def help_of(guard: Guard) -> str:
    """What would bring a result nearer to what it should do."""
    if guard.accepts:
        return ""
    inputs = "" if guard.is_real else "`calibrate` with unlabelled inputs, "
    return f"{inputs}a larger `budget`, or `budget`=full for all models whole in one file"


def beats(one: Scores, other: Scores) -> bool:
    """Whether one has the higher metric, or the same at a lower loss; a loss that is nan beats nothing."""
    if isnan(one.loss) or isnan(other.loss):
        return isnan(other.loss) and not isnan(one.loss)
    return (one.metric, -one.loss) > (other.metric, -other.loss)


def compared(merged: Scores, base: Scores, is_worse: bool) -> str:
    accuracy = f"{base.metric_name} {merged.metric:.3f} against {base.metric:.3f}"
    figures = f"{accuracy}, loss {merged.loss:.3f} against {base.loss:.3f}"
    if is_worse:
        word = "worse than the base"
    else:
        word = "better than the base" if beats(merged, base) else "no better than the base"
    return f"{word}: {figures}{chance(merged, base)}"


def chance(merged: Scores, base: Scores) -> str:
    """That the samples are too few to tell two accuracies apart, taken as if they were independent."""
    if base.metric_name == "R2" or merged.metric == base.metric:
        return ""
    spread = sqrt(sum(score.metric * (1 - score.metric) for score in (merged, base)) / base.samples)
    if abs(merged.metric - base.metric) > SIGMAS * spread:
        return ""
    return f" ({base.samples} samples cannot tell this from chance)"


def better_baselines(by_name: dict[str, Scores]) -> Iterator[str]:
    """Every baseline that beats the merge: without alignment, the base repaired, a donor alone."""
    merged = by_name[MERGED]
    blind = [by_name[name] for name in BLIND if name in by_name and beats(by_name[name], merged)]
    if blind:
        best = max(blind, key=lambda score: (score.metric, -score.loss))
        yield f"a {best.arm} is better than the alignment ({best.metric:.3f})"
    for alone in (by_name[arm] for arm in (REPAIRED, REFITTED) if arm in by_name):
        if beats(alone, merged):
            yield f"the {alone.arm}, is better ({alone.metric:.3f})"
    donors = [score for name, score in by_name.items() if name.split(" ")[0] == "donor" and beats(score, merged)]
    if donors:
        best = max(donors, key=lambda score: (score.metric, -score.loss))
        yield f"{best.arm} alone is better ({best.metric:.3f})"


def beside_ensemble(merged: Scores, base: Scores, ensemble: Scores) -> str:
    gain = ensemble.metric - base.metric
    if gain <= 0:
        return f"the ensemble gains nothing either ({ensemble.metric:.3f})"
    if merged.metric <= base.metric:
        return f"the ensemble reaches {ensemble.metric:.3f}"
    return f"{(merged.metric - base.metric) / gain:.0%} of what the ensemble gains ({ensemble.metric:.3f})"


def advice(is_worse: bool, steps: Sequence[Merged], config: MergeConfig) -> Iterator[str]:
    """What the evidence at hand suggests, where the result is worse than the base."""
    if not is_worse:
        return
    blends, norms = config.method in WAYS, unmeasured_norms(steps)
    if blends and any(is_wider(step) for step in steps) and config.width == "base":
        yield "swap base and donor, for the donor is wider, or `width`=grow"
    if config.calibrate is None and (blends or norms):
        why = f": {norms} BatchNormalizations keep statistics that nothing measured" if norms else ""
        yield f"`calibrate` with unlabelled inputs, which repairs the merge{why}"
    elif config.calibrate is not None and config.match_by == "weights":
        yield "`match_by`=both"
    yield "a smaller `lam`" if blends else "other `parameters`, or another `method`"


def is_wider(step: Merged) -> bool:
    """Whether the donor has more units than the base in some pair of groups."""
    return any(theirs > mine for mine, theirs in step.ungrown.alignment.correspondence.units)
