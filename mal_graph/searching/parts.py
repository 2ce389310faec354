"""The data of a search in three parts: what is searched by, what the best are held against, and what is reported.

What is searched by is put in a drawn order, so that any number of first samples is a sample of them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph.atomic_write import write_whole
from mal_graph.brief import Brief
from mal_graph.config import SearchConfig
from mal_graph.errors import DataError
from mal_graph.evaluation import LABELS, MIN_SAMPLES, Arrays, halve, split_holdout
from mal_graph.graph import LayerGraph
from mal_graph.network import find_sample_axes
from mal_graph.protocols import Runner
from mal_graph.workflows import digest

SEARCH, GATE, REPORT = PARTS = ("search", "gate", "report")


@dataclass(frozen=True, repr=False)
class Parts(Brief):
    """One set of data, by the name of the part; none of them shares a sample with another."""

    arrays: Mapping[str, Arrays]

    @property
    def samples(self) -> dict[str, int]:
        """How many samples each part has."""
        return {part: len(own[LABELS]) for part, own in self.arrays.items()}

    def written(self, folder: Path) -> dict[str, str]:
        """Where each part lies, written to a folder under its digest where it is not there yet. Raises FileError."""
        return {part: str(written_arrays(folder, own)) for part, own in self.arrays.items()}


def split_in_parts(
    base: LayerGraph, data: Arrays, reported: Arrays | None, config: SearchConfig, runner: Runner
) -> Parts:
    """Labelled data in three parts: half is searched by, and a quarter each for the gate and the report; with reported
    data half and half of the rest.

    Raises DataError where they do not fit, are too few or have no labels.
    """
    if LABELS not in data:
        raise DataError("a search is decided by labels, and the data have none: add an array `labels`, or use zoo")
    held = split_holdout(
        base,
        data,
        reported,
        seed=config.seed,
        score_output=config.score_output,
        output_kind=config.output_kind,
        runner=runner,
    )
    axes = find_sample_axes(base)
    if reported is None:
        search, (gate, report) = held.deciding, halve(held.reporting, config.seed, axes)
    else:
        (search, gate), report = halve(held.deciding, config.seed, axes), held.reporting
    order = np.random.default_rng(config.seed).permutation(len(search[LABELS]))
    parts = Parts(dict(zip(PARTS, (axes.taken(search, order), gate, report), strict=True)))
    for part, samples in parts.samples.items():
        if samples < MIN_SAMPLES:
            raise DataError(
                f"there are {samples} samples for the part {part!r} of the data, and at least {MIN_SAMPLES} are "
                f"needed: give {4 * MIN_SAMPLES} or more, and none that a model was trained on"
            )
    return parts


def written_arrays(folder: Path, arrays: Arrays) -> Path:
    """Where arrays lie, by their digest. Raises FileError."""
    path = folder / f"{digest('', arrays.items())}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        held: dict[str, Any] = dict(arrays)
        write_whole(path, lambda draft: np.savez(draft, **held), overwrite=True)
    return path
