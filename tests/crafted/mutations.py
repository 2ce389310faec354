"""Seeded mutations of small models and of crafted ones, of bytes and of fields.

Nearly no file with other bytes is taken by a parser; with other fields it is a model that says something else.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from builders import cnn, mlp, save

from crafted.kind import LEAST, MODEL, MOST, Kind
from crafted.verbs import VERBS, met_by, models
from crafted.wire import BYTES, VARINT, fields, joined

SEED = 20261129
SOURCES = (lambda: mlp((8, 16, 12, 5)), cnn)
NUMBERS = (0, 1, 2, 3, 7, 13, 100, 1 << 31, LEAST, MOST, -1, -2)
LARGEST = 1 << 20  # bytes of a file that is mutated


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few bytes changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not changed:
            break
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


def rewritten(content: bytes, rng: np.random.Generator) -> bytes:
    """A message with a field of it, or of a message in it, left out, doubled, put elsewhere or changed; lengths fit."""
    held = fields(content)
    if not held:
        return mutated(content, rng)
    at = int(rng.integers(len(held)))
    number, kind, value = held.pop(at)
    way = rng.random()
    if way < 0.1:
        return joined(held)
    if way < 0.2:
        held.insert(int(rng.integers(len(held) + 1)), (number, kind, value))
        if rng.random() < 0.5:
            held.insert(at, (number, kind, value))
        return joined(held)
    if kind == BYTES:
        value = rewritten(value, rng)
    elif kind == VARINT:
        value = NUMBERS[rng.integers(len(NUMBERS))]
    else:
        value = rng.bytes(len(value))
    held.insert(at, (number, kind, value))
    return joined(held)


@cache
def plain(number: int) -> bytes:
    """A sound model as a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        save(SOURCES[number](), path)
        return path.read_bytes()


def mutations(count: int, seed: int = SEED) -> Iterator[Kind]:
    """Kinds of mutated files, by turns of a small model and of a crafted one, of bytes and of fields, met by `inspect`
    and by one of the other commands."""
    small, verbs = models(), list(VERBS)
    for number in range(count):

        def build(folder: Path, number: int = number) -> None:
            rng = np.random.default_rng((seed, number))
            target = folder / MODEL
            if number % 2:
                small[int(rng.integers(len(small)))].build(folder)
            is_small = number % 2 and target.is_file() and 0 < target.stat().st_size < LARGEST
            content = target.read_bytes() if is_small else plain(number // 2 % len(SOURCES))
            target.unlink(missing_ok=True)
            target.write_bytes((mutated if number // 4 % 2 else rewritten)(content, rng))

        kind = Kind(f"mutation {number}", build)
        yield met_by(verbs[number // 16 % len(verbs)], kind) if number // 8 % 2 else kind
