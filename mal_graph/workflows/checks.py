"""What is checked: inputs before the work, and a result before it is written."""

from collections.abc import Iterable, Sequence

import numpy as np

from mal_graph.config import AlignOptions
from mal_graph.errors import MatchError
from mal_graph.evaluation import calibration_inputs
from mal_graph.graph import LayerGraph, Value
from mal_graph.matching import check_match_by, pair_signatures
from mal_graph.merging import Fate, account_for, run_outputs
from mal_graph.protocols import Check, Runner
from mal_graph.symmetry import ACCEPT, SAME_FUNCTION, AxisGroups
from mal_graph.workflows.steps import Merged

LEAST_MOVED = 10 * ACCEPT  # what the donor's outputs may move by in the orders used


def checks_of(base: LayerGraph, result: LayerGraph, steps: Sequence[Merged], runner: Runner) -> tuple[Check, ...]:
    """What is checked of a result before it is written; the base is what the first step began with, as it was given."""
    checks = (
        finite_on_probe(result, steps[0].groups, runner),
        self_check_of(steps),
        accounts_check(base, steps),
        *promise_checks(steps),
    )
    moved = [step.at_zero for step in steps if step.at_zero is not None]
    return (*checks, lambda_0_check(max(moved))) if moved else checks


def self_check_of(steps: Sequence[Merged]) -> Check:
    """Whether every donor computes what it did with its units in the orders used."""
    moved = [step.self_check for step in steps if step.self_check is not None]
    if len(moved) < len(steps):
        return Check("self_check", None, "the groups are unverified")
    return Check("self_check", max(moved) <= LEAST_MOVED, f"the donor's outputs move by {max(moved):.1e}")


def promise_checks(steps: Sequence[Merged]) -> list[Check]:
    """What merges promised and gave; of several donors the one that says most against the result."""
    found: dict[str, list[Check]] = {}
    for step in steps:
        for check in step.promises.checks:
            detail = check.detail if len(steps) == 1 else f"{step.donor.name}: {check.detail}"
            found.setdefault(check.name, []).append(Check(check.name, check.passed, detail))
    return [min(several, key=lambda check: (not check.failed, check.passed is not None)) for several in found.values()]


def accounts_check(base: LayerGraph, steps: Sequence[Merged]) -> Check:
    """Whether every float parameter of the base is merged, kept with a reason or a setting with a reason, once."""
    for step in steps:
        accounts = account_for(base, step.plan)
        if not accounts.adds_up:
            parts = ", ".join(f"{accounts.count(fate):,} {fate}" for fate in Fate)
            faults = "; ".join(accounts.faults[:3])
            return Check("accounts", False, f"{parts} of {accounts.total:,} float parameters: {faults}")
    return Check("accounts", True)


def lambda_0_check(moved: float) -> Check:
    return Check("lambda_0", moved <= SAME_FUNCTION, f"the outputs of the wider base move by {moved:.1e} at lambda 0")


def finite_on_probe(graph: LayerGraph, groups: AxisGroups, runner: Runner) -> Check:
    arrays = run_outputs(graph, groups.probed.inputs, runner)
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return Check("finite", not bad, f"output {bad[0]!r} is not finite on the probe inputs" if bad else "")


def check_inputs(base: LayerGraph, donor: LayerGraph, pair: Iterable[tuple[str, str]]) -> None:
    """Raise MatchError unless the donor takes what the base takes, each input what the one does that it is paired with.

    Args:
        pair: inputs and outputs that are paired by hand.

    Raises:
        UsageError: `pair` names what is not there.
    """
    hint = "merge models that take the same inputs"
    if len(base.inputs) != len(donor.inputs):
        raise MatchError(
            f"the inputs of {donor.name} do not fit {base.name}: it has {len(donor.inputs)} "
            f"({listed(donor.inputs)}), the base {len(base.inputs)} ({listed(base.inputs)}); {hint}"
        )
    partners, theirs = pair_signatures(base, donor, pair).inputs, {value.name: value for value in donor.inputs}
    if len(base.inputs) > 1:
        hint += ", or say with `pair` which is which"
    for a in base.inputs:
        b = theirs[partners[a.name]]
        if a.dtype != b.dtype or not shapes_fit(a.shape, b.shape):
            raise MatchError(
                f"the inputs of {donor.name} do not fit {base.name}: it takes {described(b)}, "
                f"the base {described(a)}; {hint}"
            )


def check_calibration(base: LayerGraph, donors: Iterable[LayerGraph], config: AlignOptions) -> None:
    """Raise UsageError or DataError where calibration inputs are asked for and missing, or do not fit; before the work,
    not after it."""
    check_match_by(config.match_by, config.calibrate)
    if config.calibrate is None:
        return
    arrays = calibration_inputs(base, config.calibrate)
    for donor in donors:
        calibration_inputs(donor, pair_signatures(base, donor, config.pair).for_donor(arrays))


def shapes_fit(a: tuple[int | str | None, ...] | None, b: tuple[int | str | None, ...] | None) -> bool:
    """Whether two declared shapes allow the same arrays, the first axis (the batch) left aside."""
    if a is None or b is None:
        return True
    if len(a) != len(b):
        return False
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a[1:], b[1:], strict=True))


def described(value: Value) -> str:
    return f"{value.name!r} ({value.dtype}, shape {list(value.shape) if value.shape is not None else 'unknown'})"


def listed(values: Sequence[Value]) -> str:
    return ", ".join(map(described, values)) or "none"
