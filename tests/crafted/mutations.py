"""Seeded mutations of small models and of crafted ones: a few bytes changed, cut out, doubled or put in."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from builders import cnn, mlp, save

from crafted import KINDS
from crafted.kind import MODEL, Kind

SEED = 20261129


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few bytes changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 9))
        way = rng.integers(4)
        if way == 0:
            changed[at] = int(rng.integers(256))
        elif way == 1:
            del changed[at : at + length]
        elif way == 2:
            changed[at:at] = changed[at : at + length]
        else:
            changed[at:at] = rng.bytes(length)
    return bytes(changed)


def mutations(count: int) -> Iterator[Kind]:
    """Kinds of mutated files: small models, and crafted ones."""
    sources = [graph for graph in (mlp((8, 16, 12, 5)), cnn())]
    small = [kind for kind in KINDS.values() if kind.words == ("inspect", MODEL) and not kind.is_slow]
    for number in range(count):
        rng = np.random.default_rng((SEED, number))

        def build(folder: Path, number: int = number, rng: np.random.Generator = rng) -> None:
            target = folder / MODEL
            if number % 2:
                small[int(rng.integers(len(small)))].build(folder)
                is_small = target.is_file() and 0 < target.stat().st_size < 1 << 20
            else:
                is_small = False
            if not is_small:
                target.unlink(missing_ok=True)
                save(sources[number // 2 % len(sources)], target)
            target.write_bytes(mutated(target.read_bytes(), rng))

        yield Kind(f"mutation {number}", build)
