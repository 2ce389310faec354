"""What a merge of two models that compute the same function gives, held against what it must give."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import mal_graph
from equivalent_nets.pairs import Arrays, Pair, inputs_of, largest_gap, run
from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.merging import Plan, merge, run_outputs

LAMBDAS = (0.3, 0.5, 1.0)
EQUAL = 1e-4  # how far the merge may be from the base, relative to the largest output
FRESH = 1_000_003  # what is added to a pair's seed for inputs that it was not checked on

RIGHT, KEPT_TOO_MUCH, REFUSED, WRONG, BREAKS = "right", "kept too much", "refused", "wrong", "breaks"
VERDICTS = (RIGHT, KEPT_TOO_MUCH, REFUSED, WRONG, BREAKS)


@dataclass(frozen=True)
class Outcome:
    """What the merges gave.

    Attributes:
        verdict: see `VERDICTS`; "refused" where that was not allowed, "right" where it was.
        deviation: the largest distance from the base, by lambda.
        merged: the share of the base's learned numbers that is merged.
        kept: learned tensors of the base that are not merged, as "layer/role".
        reasons: why the merge kept what it kept, in its own words.
        message: of a refusal or of an unexpected exception.
    """

    verdict: str
    deviation: Mapping[float, float] = field(default_factory=dict)
    merged: float = 0.0
    kept: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    message: str = ""

    @property
    def is_right(self) -> bool:
        return self.verdict == RIGHT

    @property
    def worst(self) -> float:
        return max(self.deviation.values(), default=0.0)


def judge(
    base: onnx.ModelProto,
    donor: onnx.ModelProto,
    lams: Sequence[float] = LAMBDAS,
    *,
    assembled: Sequence[float] | None = None,
    learned: Mapping[str, str] | None = None,
    may_keep: Sequence[str] = ("*",),
    may_refuse: bool = False,
    seed: int = 0,
    inputs: Arrays | None = None,
) -> Outcome:
    """Merge at each lambda and run the merge beside the base on inputs that neither has seen.

    Args:
        assembled: the lambdas at which the whole way is gone, up to a file; all of them if left out (see `merges`).
        learned: for each learned tensor of the base "layer/role"; its float tensors if left out.
        may_keep: patterns of what may be kept; a refusal keeps everything.
        may_refuse: whether the merge may be refused all the same.
        inputs: what both are run on; drawn by the seed if left out.
    """
    stored = stored_floats(base)
    learned = {name: f"{name}/stored" for name in stored} if learned is None else learned
    # Of a tensor whose values are all the same, nothing is to be aligned.
    counted = {name: place for name, place in learned.items() if np.ptp(stored.get(name, 0)) > 0}
    inputs = inputs_of(base, seed + FRESH) if inputs is None else inputs
    deviation: dict[float, float] = {}
    kept: set[str] = set()
    reasons: dict[str, None] = {}
    try:
        for lam, gap, plan in merges(base, donor, lams, lams if assembled is None else assembled, inputs):
            deviation[lam] = gap
            kept |= set(counted) - set(merged_whole(plan))
            reasons |= dict.fromkeys(reasons_of(plan))
    except MalGraphError as error:
        is_allowed = may_refuse or not unallowed(counted.values(), may_keep)
        return Outcome(RIGHT if is_allowed else REFUSED, deviation, message=str(error))
    except Exception as error:
        return Outcome(BREAKS, deviation, message=f"{type(error).__name__}: {error}")
    total = sum(stored[name].size for name in counted)
    share = 1 - sum(stored[name].size for name in kept) / max(1, total)
    places = tuple(sorted({learned[name] for name in kept}))
    verdict = KEPT_TOO_MUCH if unallowed(places, may_keep) else RIGHT
    verdict = verdict if all(gap <= EQUAL for gap in deviation.values()) else WRONG
    return Outcome(verdict, deviation, share, places, tuple(reasons))


def merges(
    base: onnx.ModelProto, donor: onnx.ModelProto, lams: Sequence[float], assembled: Sequence[float], inputs: Arrays
) -> Iterator[tuple[float, float, Plan]]:
    """For each lambda how far the merge is from the base, and its plan.

    At those of `assembled`, models are assembled, checked and saved, and the file is run. What a merge keeps can depend
    on lambda only by the comparison with its promises, so the others are merged by the first of these plans; and
    assembled all the same where that is not the base.
    """
    expected, first = run(base, inputs), None
    for lam in sorted(lams, key=lambda lam: lam not in assembled):
        if first is not None and lam not in assembled:
            plan = first.at(lam)
            gap = largest_gap(run_outputs(merge(plan), inputs, registry.runner()), expected)
            if gap <= EQUAL:
                yield lam, gap, plan
                continue
        plan, outputs = assembled_at(lam, base, donor, inputs)
        first = first or plan
        yield lam, largest_gap(outputs, expected), plan


def merged_whole(plan: Plan) -> Iterator[str]:
    """The stored tensors that are merged throughout."""
    for step in plan.steps:
        if step.matched == 1:
            stored = plan.base.joined.get(step.tensor)
            yield from (part.name for part in stored.parts) if stored else (step.tensor,)


def assembled_at(lam: float, base: onnx.ModelProto, donor: onnx.ModelProto, inputs: Arrays) -> tuple[Plan, Arrays]:
    """The plan of a merge, and what the saved file computes."""
    assembly = mal_graph.assemble(base, donor, lam=lam)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.onnx"
        assembly.save(path, overwrite=True)
        return assembly.merged[0].plan, run(str(path), inputs)


def unallowed(places: Iterable[str], may_keep: Sequence[str]) -> list[str]:
    """Those of "layer/role" that no pattern allows."""
    return [place for place in places if not any(fnmatch(place, pattern) for pattern in may_keep)]


def reasons_of(plan: Plan) -> list[str]:
    """Why a plan leaves what it leaves."""
    lines = [f"{layer}: {why}" for layer, why in plan.skipped.items()]
    return lines + [f"{layer}: {line}" for layer, several in plan.dropped.items() for line in several]


def judge_pair(
    pair: Pair,
    lams: Sequence[float] = LAMBDAS,
    inputs: Arrays | None = None,
    assembled: Sequence[float] | None = None,
) -> Outcome:
    """The outcome of a pair, held against what its rewrites allow; one lambda that the seed draws is assembled if it is
    not said which are."""
    return judge(
        pair.base,
        pair.donor,
        lams,
        assembled=(lams[pair.seed % len(lams)],) if assembled is None else assembled,
        learned=pair.learned,
        may_keep=pair.may_keep,
        may_refuse=pair.may_refuse,
        seed=pair.seed,
        inputs=inputs,
    )


def stored_floats(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every float tensor that a model stores, by the name it is read by."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: values for name, values in arrays.items() if values.dtype.kind == "f"}
