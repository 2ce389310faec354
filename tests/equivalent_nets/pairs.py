"""Pairs of models that compute the same function, drawn by a seed and checked by running both."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime

from equivalent_nets.families import FAMILIES
from equivalent_nets.rewrites import REWRITES
from equivalent_nets.writer import Writer

SAMPLES = 6
AGREE = 1e-5  # how far base and donor may be apart, relative to the largest output
ALIVE = 0.02  # how much an output moves with the inputs, at least
ATTEMPTS = 12
SIDES = ("donor", "base", "both")
UNPERMUTED = 0.1

Arrays = Mapping[str, np.ndarray]


class GeneratorError(Exception):
    """A pair that was drawn does not compute the same function, or cannot be drawn at all."""


@dataclass(frozen=True)
class Pair:
    """A base and a donor that computes the same function.

    Attributes:
        seed: draws the same pair again, with the same family and rewrite if those were given.
        family: of networks.
        rewrite: what the pair was drawn for.
        rewrites: every rewrite that was applied, and on which side.
        base, donor: the models.
        learned: for each stored float tensor of the base "layer/role".
        may_keep: patterns of "layer/role" that a merge may keep.
        may_refuse: whether the merge may be refused.
        apart: how far the outputs of the two are apart.
    """

    seed: int
    family: str
    rewrite: str
    rewrites: Mapping[str, str]
    base: onnx.ModelProto
    donor: onnx.ModelProto
    learned: Mapping[str, str] = field(default_factory=dict)
    may_keep: tuple[str, ...] = ()
    may_refuse: bool = False
    apart: float = 0.0

    @property
    def is_single(self) -> bool:
        """Whether no other rewrite is combined with the one it was drawn for, permuted units aside."""
        implied = {"norm_forms"} if self.rewrite == "opset" else set()
        return set(self.rewrites) <= {self.rewrite, "units_permuted"} | implied


def draw_pair(seed: int, family: str = "", rewrite: str = "", *, combined: bool | None = None) -> Pair:
    """A pair; what is not given is drawn.

    Args:
        combined: whether other rewrites stand beside the one it is drawn for.

    Raises:
        GeneratorError: the two do not agree, which is a fault of the generator.
    """
    rng = np.random.default_rng([seed, 0])
    rewrites = [name for name, row in REWRITES.items() if not family or family in row.families]
    drawn = rewrites[int(rng.integers(len(rewrites)))]
    rewrite = rewrite or drawn
    families = REWRITES[rewrite].families
    drawn = families[int(rng.integers(len(families)))]
    family = family or drawn
    is_combined = bool(rng.random() < 0.5) if combined is None else combined
    sides = chosen_rewrites(rng, family, rewrite, REWRITES if is_combined else ())
    for attempt in range(ATTEMPTS):
        if attempt == ATTEMPTS // 2:  # some other rewrite may leave no place for it
            sides = {name: side for name, side in sides.items() if name in (rewrite, "units_permuted")}
        pair = written(seed, attempt, family, rewrite, sides)
        if pair is not None:
            return pair
    raise GeneratorError(f"seed {seed}: no {family} with {rewrite} is alive, or {rewrite} applies nowhere in it")


def chosen_rewrites(rng: np.random.Generator, family: str, rewrite: str, among: Collection[str]) -> dict[str, str]:
    """Rewrites by name with the sides they are applied to: one, and up to three of the others."""
    chosen = [rewrite]
    others = [name for name in among if family in REWRITES[name].families and name != "units_permuted"]
    if others:
        for name in rng.permutation(others)[: int(rng.integers(1, 4))]:
            groups = {REWRITES[other].group for other in chosen} - {""}
            if name not in chosen and REWRITES[name].group not in groups and fits(name, chosen):
                chosen.append(str(name))
    sides = {name: SIDES[int(rng.choice(3, p=REWRITES[name].sides))] for name in chosen}
    if rng.random() > UNPERMUTED or rewrite == "units_in_blocks":
        sides["units_permuted"] = "donor"
    return sides


def fits(name: str, chosen: Sequence[str]) -> bool:
    """Whether networks can be drawn for a rewrite and those already chosen."""
    traits = {*REWRITES[name].traits, *(trait for other in chosen for trait in REWRITES[other].traits)}
    return not any(set(pair) <= traits for pair in (("norms", "no_norms"), ("images", "tokens")))


def written(seed: int, attempt: int, family: str, rewrite: str, sides: Mapping[str, str]) -> Pair | None:
    """The two models; None if the network is dead or the rewrite applies nowhere in it."""
    traits = {trait for name in sides for trait in REWRITES[name].traits}
    writers, models = [], []
    for place, side in enumerate(("base", "donor")):
        active = {name for name, where in sides.items() if where in (side, "both")} - {"units_permuted"}
        permuted = "units_permuted" in sides and side == "donor"
        writer = Writer(seed * ATTEMPTS + attempt, active, traits, permuted, place)
        FAMILIES[family](writer)
        if permuted and writer.orders:
            writer.applied["units_permuted"] = set()
        models.append(writer.proto())
        writers.append(writer)
    base, donor = models
    applied = {
        name: SIDES[2 if all(name in w.applied for w in writers) else 1 if name in writers[0].applied else 0]
        for name in dict.fromkeys([*sides, *writers[0].applied, *writers[1].applied])
        if any(name in w.applied for w in writers)
    }
    inputs = inputs_of(base, seed)
    outputs = run(base, inputs)
    if rewrite not in applied or not is_alive(outputs):
        return None
    apart = largest_gap(in_order_of(base, donor, run(donor, as_given_to(donor, base, inputs))), outputs)
    if not apart <= AGREE:
        raise GeneratorError(f"seed {seed}: {family} with {dict(applied)} is {apart:.1e} from the base")
    return Pair(
        seed,
        family,
        rewrite,
        applied,
        base,
        donor,
        writers[0].learned,
        tuple(itertools.chain.from_iterable(kept_by(name, applied, writers) for name in applied)),
        any(REWRITES[name].may_refuse for name in applied),
        apart,
    )


def kept_by(rewrite: str, applied: Collection[str], writers: Sequence[Writer]) -> list[str]:
    """The patterns of what a merge may keep for a rewrite, "@" replaced by the layers where it was applied."""
    patterns = []
    is_beside = bool({*applied} - {rewrite, "units_permuted"})
    for place, writer in enumerate(writers):
        if rewrite in writer.applied:
            layers = [layer for layer in writer.applied[rewrite] if layer]
            for pattern in REWRITES[rewrite].kept(is_in_base=place == 0, is_beside=is_beside):
                patterns += [pattern.replace("@", layer) for layer in layers] if "@" in pattern else [pattern]
    return patterns


# --- running ---------------------------------------------------------------------------------------------------------


def inputs_of(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Random inputs; token ids run up to the smallest table that a model of these families has."""
    rng = np.random.default_rng([seed, 4])
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {}
    for value in sorted(model.graph.input, key=lambda value: value.name):
        shape = [SAMPLES, *[size.dim_value for size in value.type.tensor_type.shape.dim[1:]]]
        if value.name in stored:
            continue
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            inputs[value.name] = rng.integers(0, 9, shape)
        else:
            inputs[value.name] = rng.standard_normal(shape).astype(np.float32)
    return inputs


def run(model: onnx.ModelProto | str, inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a model, or of a file, by name."""
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 3, 1, 1
    # The runtime would compute a product with dequantised weights in integers.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def as_given_to(donor: onnx.ModelProto, base: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """The inputs of the base under the donor's names: the same, or with a prefix."""
    names = {value.name for value in donor.graph.input}
    return {name if name in names else f"other_{name}": array for name, array in inputs.items()}


def in_order_of(base: onnx.ModelProto, donor: onnx.ModelProto, outputs: Arrays) -> dict[str, np.ndarray]:
    """The donor's outputs under the base's names."""
    return {value.name: outputs.get(value.name, outputs.get(f"other_{value.name}")) for value in base.graph.output}


def largest_gap(found: Arrays, expected: Arrays) -> float:
    """The largest difference, relative to the largest value of its output; whole numbers must be equal."""
    gaps = []
    for name, right in expected.items():
        seen = found[name]
        if seen is None or seen.shape != right.shape or not np.isfinite(seen).all():
            return float("inf")
        if right.dtype.kind == "f":
            gaps.append(float(np.abs(seen - right).max() / max(1e-6, np.abs(right).max())))
        else:
            gaps.append(float((seen != right).any()))
    return max(gaps)


def is_alive(outputs: Arrays) -> bool:
    """Whether every output of floats depends on the inputs and none blows up."""
    floats = [array for array in outputs.values() if array.dtype.kind == "f"]
    return all(np.ptp(array, axis=0).max() > ALIVE and np.abs(array).max() < 1e3 for array in floats)
