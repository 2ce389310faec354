"""Donors aligned to a base, once: a cache on disk that all workers share.

A donor is matched, verified and aligned by the steps of a merge method; what is kept are its tensors in the base's
frame, with what a merge has to know of them. Files are named by a digest of all that decides about their content: base,
donor, options, version. The values lie in one file that is mapped into memory, so that a worker holds no more of them
than it reads; the description is written last, and says that all is there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from mal_graph.atomic_write import write_bytes, write_text
from mal_graph.brief import Brief
from mal_graph.config import AlignOptions, CheckOptions, SearchConfig
from mal_graph.errors import FileError, MatchError
from mal_graph.graph import Array, LayerGraph, weight_of
from mal_graph.merging import InFrame, Plan, frame_of, in_float
from mal_graph.protocols import Runner
from mal_graph.text_files import read_text
from mal_graph.version import version
from mal_graph.workflows import (
    Known,
    Merged,
    check_inputs,
    digest,
    fingerprint,
    in_frame,
    kept_settings,
    refuse_broken,
    silent,
    without_layers,
)

SCHEMA = "mal-graph/aligned-donor/1"
EVEN = 0.5  # the lambda at which what a donor promises is compared
START = 64  # bytes that values begin at a multiple of


@dataclass(frozen=True)
class AlignedTensor:
    """One tensor of the base that a donor has too.

    Attributes:
        tensor: its name.
        node, slot: where the base applies it.
        layer: the name of its layer.
        depth: of the layer, from 0 to 1.
        shape, dtype: of the values, in canonical form.
        start: where they begin in the file.
        mask: where it begins which of them the donor has; -1 where it has all.
    """

    tensor: str
    node: int
    slot: int
    layer: str
    depth: float
    shape: tuple[int, ...]
    dtype: str
    start: int
    mask: int


@dataclass(frozen=True)
class BiasSlot:
    """A bias of zeros that the base is given, for the donor has one there."""

    name: str
    reader: str
    slot: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Description:
    """What a merge has to know of an aligned donor.

    Attributes:
        tensors: in the order of the base's layers.
        slots: the biases that the base is given for it.
        sha256: of the file with the values.
    """

    tensors: tuple[AlignedTensor, ...]
    slots: tuple[BiasSlot, ...]
    sha256: str
    schema: str = SCHEMA


READER = TypeAdapter(Description)


@dataclass(frozen=True, repr=False)
class AlignedDonor(Brief):
    """A donor in the base's frame, as it lies on disk.

    Attributes:
        path: of its description; the values lie beside it.
    """

    path: Path

    @cached_property
    def description(self) -> Description:
        """Raises FileError where it cannot be read, or the values are not those that it is of."""
        description = read_description(self.path)
        if description is None or not self.is_as_described(description):
            raise FileError(
                f"the aligned donor {self.path} is not as it was written: remove it, and it is aligned anew"
            )
        return description

    def is_as_described(self, description: Description) -> bool:
        """Whether the values are those that a description is of."""
        return hashlib.sha256(self.values.data).hexdigest() == description.sha256

    @cached_property
    def values(self) -> Array:
        """The bytes of all values, mapped into memory."""
        try:
            return np.memmap(values_path(self.path), np.uint8, "r")
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read the values of the aligned donor {self.path}: {error}") from None

    def read(self, one: AlignedTensor) -> InFrame:
        """One tensor in the base's frame."""
        values = self.part(one.start, one.shape, np.dtype(one.dtype))
        return InFrame(values, None if one.mask < 0 else self.part(one.mask, one.shape, np.dtype(bool)))

    def part(self, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return np.asarray(self.values[start : start + size]).view(dtype).reshape(shape)


def values_path(path: Path) -> Path:
    return path.with_suffix(".values")


def read_description(path: Path) -> Description | None:
    """What a file says of an aligned donor; None where there is none, or none of this form."""
    try:
        description = READER.validate_json(read_text(path))
    except (OSError, ValueError, ValidationError):
        return None
    return description if description.schema == SCHEMA else None


def aligned_path(folder: Path, base: str, donor: str, config: SearchConfig) -> Path:
    """Where a donor lies that is aligned to a base: both by their digests."""
    deciding = config.model_dump(include={*AlignOptions.model_fields, *CheckOptions.model_fields} - {"inputs"})
    options = digest(repr((SCHEMA, version(), sorted(deciding.items()))), (config.inputs or {}).items())
    return folder / f"{digest(repr((base, donor, options)))}.json"


def align_once(
    base: LayerGraph, donor: LayerGraph, config: SearchConfig, folder: Path, runner: Runner, known: Known
) -> Path:
    """Where a donor lies that is aligned to a base; it is aligned where it is not there yet.

    Args:
        known: groups that were verified before; those of the base are added.

    Raises:
        MatchError, UsageError and others of this package: it cannot be merged into the base.
        FileError: it cannot be written.
    """
    digests = fingerprint(base), fingerprint(donor)
    if digests[0] == digests[1]:
        raise MatchError("it is the same model as the base")
    path = aligned_path(folder, *digests, config)
    if not is_there(path):
        write_aligned(aligned(base, donor, config, runner, known), base, path)
    return path


def is_there(path: Path) -> bool:
    """Whether an aligned donor lies at a path, as it was written."""
    try:
        return AlignedDonor(path).description.schema == SCHEMA
    except FileError:
        return False


def aligned(base: LayerGraph, donor: LayerGraph, config: SearchConfig, runner: Runner, known: Known) -> Plan:
    """How a donor corresponds to a base. Raises MatchError and others of this package."""
    check_inputs(base, donor, config.pair)
    refuse_broken(donor)
    step: Merged = in_frame(base, donor, config.replaced(lam=EVEN), runner, silent, known)
    known[:] = [one for one in known if one.graph.nodes is base.nodes]  # no donor comes twice
    plan = without_layers(step, kept_settings(step.plan), config, runner).plan
    if not plan.steps:
        layer, why = next(iter(plan.skipped.items()))
        raise MatchError(f"nothing of {donor.name} can be merged: layer {layer}: {why}")
    return plan


def write_aligned(plan: Plan, base: LayerGraph, path: Path) -> None:
    """Write a donor in the base's frame: the values first. Raises FileError."""
    content, tensors = bytearray(), []
    for tensor, values in tensors_of(plan):
        start = appended(content, values.values)
        mask = -1 if values.present is None else appended(content, values.present)
        shape, dtype = values.values.shape, values.values.dtype.name
        tensors.append(AlignedTensor(**tensor, shape=shape, dtype=dtype, start=start, mask=mask))
    new = {name: plan.base.weights[name] for name in plan.base.inserted if name not in base.weights}
    slots = [BiasSlot(name, *plan.base.inserted[name], own.shape, own.dtype.name) for name, own in new.items()]
    description = Description(tuple(tensors), tuple(slots), hashlib.sha256(content).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(values_path(path), bytes(content), overwrite=True)
    write_text(path, json.dumps(asdict(description), sort_keys=True) + "\n", overwrite=True)


def tensors_of(plan: Plan) -> Iterator[tuple[dict[str, Any], InFrame]]:
    """What is said of each tensor of a donor, and its values in the base's frame."""
    deepest = max((layer.depth for layer in plan.match.base), default=0) or 1
    for step in plan.steps:
        parameter, layer = step.pair.base, step.layers.base
        mine = in_float(parameter.canonical(plan.base.weights[step.tensor].read()))
        frame, box = frame_of(plan, step), tuple(slice(0, length) for length in mine.shape)
        told = {"tensor": step.tensor, "node": parameter.node, "slot": parameter.slot}
        told |= {"layer": layer.name, "depth": min(1.0, layer.depth / deepest)}
        yield told, InFrame(frame(mine, box), frame.present(box))


def appended(content: bytearray, values: Array) -> int:
    """Where values begin that are put behind others."""
    content.extend(bytes(-len(content) % START))
    start = len(content)
    content.extend(np.ascontiguousarray(values).tobytes())
    return start


def with_slots(base: LayerGraph, slots: Iterable[BiasSlot]) -> LayerGraph:
    """The base with the biases that donors have; its function stays."""
    for slot in slots:
        base = base.with_inserted(weight_of(slot.name, np.zeros(slot.shape, slot.dtype)), slot.reader, slot.slot)
    return base
