"""What became of every donor, as a file that a search can be taken up from.

Chosen: decisions are kept, weights are not. A search that is taken up merges the accepted donors again, with the
layers, lambda and orders that were written down, and opens no other donor that was decided on: the same steps in the
same order give the same bytes. Refused: the model so far as a second file - it would have to be as complete as the
result (a base that grew, traced modules), and its bytes would depend on how often the search was stopped.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from mal_graph.atomic_write import write_text
from mal_graph.errors import FileError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Orders
from mal_graph.text_files import read_text

ACCEPTED: Literal["accepted"] = "accepted"
REFUSED: Literal["refused"] = "refused"
SKIPPED: Literal["skipped"] = "skipped"
SCHEMA = "mal-graph/zoo-state/3"
BEGINNING = 2**24  # bytes of what is no model that tell it from others


@dataclass(frozen=True)
class Point:
    """A candidate at one lambda, on the deciding part of the data."""

    lam: float
    loss: float
    metric: float


@dataclass(frozen=True)
class Tried:
    """A candidate: which layers of the base, by name, and how it did at every lambda."""

    name: str
    layers: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Kept:
    """What was merged of an accepted donor.

    Attributes:
        name, layers, lam: the candidate and its lambda.
        loss, metric: of the merged model; None where nothing is scored.
        control: the lowest loss that the donor gave with shuffled weights; None where this was not tried.
        orders: for every pair of groups the donor unit on each base unit, -1 for none, as a text of numbers.
    """

    name: str
    layers: tuple[str, ...]
    lam: float
    loss: float | None = None
    metric: float | None = None
    control: float | None = None
    orders: tuple[str, ...] = ()

    def with_orders(self, orders: Orders) -> "Kept":
        return replace(self, orders=tuple(" ".join(map(str, order.tolist())) for order in orders))

    def read_orders(self) -> Orders:
        """The orders as arrays. Raises FileError where they are no numbers."""
        try:
            return tuple(np.array(text.split(), np.int64) for text in self.orders)
        except (ValueError, OverflowError):
            raise FileError(f"the checkpoint holds no orders for {self.name}: remove it to start anew") from None


@dataclass(frozen=True)
class Outcome:
    """What became of one donor.

    Attributes:
        donor: its name.
        verdict: "accepted", "refused" (by the gate) or "skipped" (it cannot be merged at all).
        reason: why, in words.
        tried: the candidates that were scored, in order.
        kept: what was merged, if it was accepted.
    """

    donor: str
    verdict: Literal["accepted", "refused", "skipped"]
    reason: str
    tried: tuple[Tried, ...] = ()
    kept: Kept | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A search as far as it went.

    Attributes:
        inputs: a digest of everything that decides its course, by what it is.
        outcomes: in the order of the donors.
    """

    inputs: Mapping[str, str]
    outcomes: tuple[Outcome, ...] = ()
    schema: str = SCHEMA

    def with_outcome(self, outcome: Outcome) -> "Checkpoint":
        return replace(self, outcomes=(*self.outcomes, outcome))


READER = TypeAdapter(Checkpoint)


def read_checkpoint(path: Path, inputs: Mapping[str, str], restart: bool = False) -> Checkpoint:
    """The checkpoint in a file; an empty one where there is none, or one of another search and `restart` is set.

    Raises FileError where it is of another search.
    """
    try:
        return same_search(path, inputs)
    except FileError:
        if not restart:
            raise
        return Checkpoint(inputs)


def same_search(path: Path, inputs: Mapping[str, str]) -> Checkpoint:
    """The checkpoint in a file. Raises FileError where it is of another search, or is not as it was written."""
    advice = "remove it, or name another as `checkpoint`, or start anew with `restart`"
    try:
        text = read_text(path)
    except FileNotFoundError:
        return Checkpoint(inputs)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise FileError(f"cannot read the checkpoint in {path}: {reason}; {advice}") from None
    try:
        held = json.loads(text)
        noted = held.pop("sha256", "") if isinstance(held, dict) else ""
        checkpoint = READER.validate_python(held)
    except (ValueError, RecursionError, ValidationError):
        raise FileError(f"cannot read the checkpoint in {path}: `mal-graph zoo` did not write it; {advice}") from None
    if checkpoint.schema == SCHEMA and noted != digest(json_text(checkpoint)):
        raise FileError(f"the checkpoint in {path} was altered since `mal-graph zoo` wrote it; {advice}")
    if checkpoint.schema != SCHEMA or dict(checkpoint.inputs) != dict(inputs):
        names = dict.fromkeys([*checkpoint.inputs, *inputs])
        other = [name for name in names if checkpoint.inputs.get(name) != inputs.get(name)] or ["form"]
        raise FileError(f"cannot go on from the checkpoint in {path}: its {other[0]} is not the one given; {advice}")
    return checkpoint


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, completely or not at all. Raises FileError."""
    sealed = {**asdict(checkpoint), "sha256": digest(json_text(checkpoint))}
    write_text(path, json.dumps(sealed, indent=1) + "\n", overwrite=True)


def json_text(checkpoint: Checkpoint) -> str:
    """A checkpoint in a form that its digest is of."""
    return json.dumps(asdict(checkpoint), sort_keys=True)


# --- digests ----------------------------------------------------------------------------------------------------


def fingerprint(graph: LayerGraph) -> str:
    """A digest of what a model computes: its operators, its signature and its weights, not its name."""
    plain = (int, float, str, bytes, tuple)
    nodes = [
        (n.op, n.inputs, n.outputs, sorted((k, v) for k, v in n.attributes.items() if isinstance(v, plain)))
        for n in graph.nodes
    ]
    stored = ((weight.name, weight.read()) for weight in graph.weights.values())
    return digest(repr((nodes, graph.inputs, graph.outputs, dict(graph.opsets))), stored)


def digest(text: str, arrays: Iterable[tuple[str, Array]] = ()) -> str:
    """SHA-256 of a text and of arrays with their names, types and shapes."""
    sha = hashlib.sha256(text.encode())
    for name, array in arrays:
        sha.update(repr((name, array.dtype.name, array.shape)).encode())
        content = array.tolist() if array.dtype.kind == "O" else None
        sha.update(repr(content).encode() if content is not None else np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of the size and the beginning of a file that is no model; "" where it cannot be read either. A regular
    one: others may have no end."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.sha256(f"{path.stat().st_size} ".encode() + file.read(BEGINNING)).hexdigest()
    except OSError:
        return ""
