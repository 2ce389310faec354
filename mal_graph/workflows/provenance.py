"""How a written model was made, as a note in its file: from what, with which options and versions, in which orders.

The note has no time, folder, host or command line: equal inputs give equal bytes. Models are told by the digests of
their files, arrays by the digest of what they hold. Orders are packed here and not by a library of compression, whose
bytes would differ from one version to the next.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import MergeConfig
from mal_graph.errors import FileError
from mal_graph.graph import Array, LayerGraph
from mal_graph.limits import usable_cores
from mal_graph.seals import PROVENANCE
from mal_graph.workflows.checkpoint import Kept, digest, fingerprint

SCHEMA = "mal-graph/provenance/1"
WITHOUT_EFFECT = {"checkpoint", "measure_speed", "report_data", "resume"}
LEGAL = ("license", "licence", "copyright", "author", "attribution", "source", "url", "title", "description")
LONGEST = 2000  # letters of a note of an input
MOST_UNITS = 2**24  # that an order may have: a few letters must not fill the memory
SHORT, LONG = "<i2", "<i4"  # how units are numbered in packed orders

Arrays = Mapping[str, Array]
Orders = tuple[Array, ...]


@dataclass(frozen=True)
class Source:
    """A model that another one was made of.

    Attributes:
        files: SHA-256 of its file, and of the files that hold its data; () of a model in memory.
        content: a digest of what a model in memory computes, "" of a file.
        notes: what it says of its licence, its authors and itself.
        sources: what it was made of, where it says that.
    """

    files: tuple[str, ...] = ()
    content: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    sources: tuple["Source", ...] = ()


@dataclass(frozen=True)
class Provenance:
    """How a model was made.

    Attributes:
        job: "assemble", "compress", "zoo" or "stack".
        options: those that are not what they are by default and decide about the result; none that hold arrays.
        seed: of every random draw.
        versions: of what it was made with.
        sources: the base and the donors that were merged, in order, and the ancestor where it is not the base.
        arrays: digests of the arrays that were given, by the name of the option.
        way: which way was taken, where that was left open.
        orders: for each donor and pair of groups the donor unit on each base unit, packed.
        kept: of a zoo what was merged of each donor, without the orders.
        ancestor: the place of the ancestor among the sources; None without one.
        slices: of a stack the blocks in order: the place of their model among the sources, the first block, and the one
            behind the last.
    """

    job: str
    options: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    sources: tuple[Source, ...]
    arrays: Mapping[str, str] = field(default_factory=dict)
    way: str = ""
    orders: tuple[tuple[str, ...], ...] = ()
    kept: tuple[Kept, ...] = ()
    ancestor: int | None = None
    slices: tuple[tuple[int, int, int], ...] = ()
    schema: str = SCHEMA


READER = TypeAdapter(Provenance)


@dataclass(frozen=True, repr=False)
class Origin(Brief):
    """What a result is made of.

    Attributes:
        job: what was asked for.
        models: as they were given, the base first; of donors those that were merged.
        config: every option.
        data: the labelled data; None where there were none.
        kept: of a zoo what was merged of each donor.
        ancestor: the model that all were tuned from; None where none was given.
        slices: of a stack its blocks, as `Provenance` has them.
    """

    job: str
    models: tuple[LayerGraph, ...]
    config: MergeConfig
    data: Arrays | None = None
    kept: tuple[Kept, ...] = ()
    ancestor: LayerGraph | None = None
    slices: tuple[tuple[int, int, int], ...] = ()

    @property
    def sources(self) -> tuple[LayerGraph, ...]:
        """Every model, the ancestor last where it is not the base."""
        is_other = self.ancestor is not None and self.ancestor is not self.models[0]
        return (*self.models, self.ancestor) if self.ancestor is not None and is_other else self.models

    @property
    def place_of_ancestor(self) -> int | None:
        """The place of the ancestor among the sources; None without one."""
        if self.ancestor is None:
            return None
        return 0 if self.ancestor is self.models[0] else len(self.models)

    @property
    def arrays(self) -> dict[str, Arrays]:
        """The arrays that were given, by the name of the option."""
        names = set(self.config.data_options()) - WITHOUT_EFFECT
        options = {name: getattr(self.config, name) for name in names}
        return {name: held for name, held in {"data": self.data, **options}.items() if held is not None}


def provenance_of(origin: Origin, way: str, orders: tuple[Orders, ...]) -> Provenance:
    """How a result was made. Raises FileError where a file is not what it was when it was opened."""
    dumped = origin.config.to_dict()
    hidden = WITHOUT_EFFECT | set(origin.config.data_options())
    return Provenance(
        job=origin.job,
        options={name: dumped[name] for name in sorted(set(origin.config.changed()) - hidden)},
        seed=origin.config.seed,
        versions=versions_used(),
        sources=sources_of(origin.sources),
        ancestor=origin.place_of_ancestor,
        arrays={name: digest("", sorted(arrays.items())) for name, arrays in sorted(origin.arrays.items())},
        way=way,
        orders=tuple(tuple(map(packed, one)) for one in orders),
        kept=tuple(replace(one, orders=()) for one in origin.kept),
        slices=origin.slices,
    )


def sources_of(models: Sequence[LayerGraph]) -> tuple[Source, ...]:
    """What models are told by, in order; their files are digested on as many cores as there are. Raises FileError."""
    with ThreadPoolExecutor(usable_cores()) as cores:
        return tuple(cores.map(source_of, models))


def versions_used() -> dict[str, str]:
    """The versions of what decides about the bytes of a result, by name."""
    versions = {name: version for name, version in registry.versions().items() if name != "torch"}
    for name in ("onnx-ir", "lapx"):
        try:
            versions[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return versions


def source_of(graph: LayerGraph) -> Source:
    """A model by the digests of its files, or of its content where it has none. Raises FileError."""
    notes = {key: text[:LONGEST] for key, text in sorted(graph.metadata.items()) if is_legal(key)}
    made = read_provenance(graph.provenance)
    return Source(
        files=tuple(file.sha256() for file in graph.files),
        content="" if graph.files else fingerprint(graph),
        notes=notes,
        sources=() if made is None else made.sources,
    )


def is_legal(key: str) -> bool:
    """Whether a note on a model is one that a card has to repeat."""
    return any(word in key.lower() for word in LEGAL)


def with_provenance(graph: LayerGraph, provenance: Provenance) -> LayerGraph:
    """A graph that says how it was made."""
    return replace(graph, metadata={**graph.metadata, PROVENANCE: provenance_text(provenance)})


def provenance_text(provenance: Provenance) -> str:
    return json.dumps(asdict(provenance), sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_provenance(text: str) -> Provenance | None:
    """How a model was made, as its file notes it; None where it says nothing that can be read."""
    try:
        return READER.validate_json(text) if text else None
    except (ValidationError, ValueError, RecursionError):
        return None


# --- packed orders ----------------------------------------------------------------------------------------------


def packed(order: Array) -> str:
    """An order as a short text: how many units there are where each stays in its place, else their numbers."""
    if np.array_equal(order, np.arange(len(order))):
        return str(len(order))
    form = SHORT if order.max(initial=0) < 2**15 else LONG
    return f"{form}:{base64.b64encode(order.astype(form).tobytes()).decode()}"


def unpacked(text: str) -> Array:
    """The order in a text. Raises FileError where there is none."""
    form, _, numbers = text.rpartition(":")
    try:
        if form in (SHORT, LONG):
            return np.frombuffer(base64.b64decode(numbers, validate=True), np.dtype(form)).astype(np.int64)
        if not form and 0 <= (units := int(numbers)) <= MOST_UNITS:
            return np.arange(units)
        raise ValueError
    except ValueError:
        raise FileError(f"{text[:40]!r} is no order of units: the note on how the model was made is damaged") from None
