"""What was measured of the speed of a result and of the models beside it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """One model.

    Attributes:
        name: what it is.
        multiplications: of one run.
        bytes: of its file, with its data file where it has one.
        ms, ms_all: the median time of a run, on one thread and on all.
    """

    name: str
    multiplications: int
    bytes: int
    ms: float
    ms_all: float


@dataclass(frozen=True)
class Speeds:
    """How fast several models are, one beside the other.

    Attributes:
        models: one entry each.
        inputs: the shapes of what they were run on, by the base's names.
        threads: how many all threads are.
        runs: of each model, on one thread and on all.
        left_out: why the ensemble is not among them; "" where it is.
    """

    models: tuple[Speed, ...]
    inputs: Mapping[str, tuple[int, ...]]
    threads: int
    runs: tuple[int, int]
    left_out: str = ""
