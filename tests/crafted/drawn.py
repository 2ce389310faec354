"""Operators drawn by a seed: any of the standard, of its domain of classic learning, or of onnxruntime, with inputs and
attributes of which some are what nobody would write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, helper

from crafted.attributes import DATA, one_operator, typed
from crafted.kind import LEAST, MODEL, MOST, Kind
from mal_graph.operators import ROWS

SCHEMAS = {(one.domain, one.name): one for one in onnx.defs.get_all_schemas()}
NAMED = sorted({*SCHEMAS, *((op.rpartition(".")[0], op.rpartition(".")[2]) for op in ROWS)})
WHOLE = (0, 1, 2, 3, -1, -2, 4, 7, 100, 1 << 31, LEAST, MOST)
REAL = (0.0, 1.0, -1.0, 0.5, 1e-30, 3e38, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", "a", "NOTSET", "linear", "sum", "\x1b[31m", "\u202e", "a" * 300)
TYPES = (np.float32, np.float32, np.int64, np.int64, np.int32, np.uint8, np.int8, np.float64, np.float16, bool, object)
Kinds = AttributeProto.AttributeType
KIND_OF = {float: Kinds.FLOAT, str: Kinds.STRING, tuple: Kinds.INTS, list: Kinds.INTS}


def array(rng: np.random.Generator) -> np.ndarray:
    """A small array of any type, of up to four axes."""
    shape = tuple(int(rng.integers(0, 5)) for _ in range(rng.integers(0, 5)))
    kind = TYPES[rng.integers(len(TYPES))]
    if kind is object:
        return np.full(shape, TEXTS[rng.integers(len(TEXTS))], object)
    from_all = rng.random() < 0.3
    values = rng.choice(REAL, shape) if from_all else rng.integers(-2, 4, shape)
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(kind)


def attribute(rng: np.random.Generator, name: str, kind: Any) -> AttributeProto | None:
    """An attribute of the type that an operator asks for, rarely of another; None for those that hold graphs."""
    kinds = (Kinds.INT, Kinds.FLOAT, Kinds.STRING, Kinds.INTS, Kinds.FLOATS, Kinds.STRINGS)
    kind = kind if rng.random() < 0.9 else kinds[rng.integers(len(kinds))]
    many = int(rng.integers(0, 5))
    if kind in (Kinds.INT, Kinds.INTS):
        numbers = [int(WHOLE[min(int(rng.exponential(3)), len(WHOLE) - 1)]) for _ in range(many)]
        return typed(name, kind, **({"ints": numbers} if kind == Kinds.INTS else {"i": (numbers or [0])[0]}))
    if kind in (Kinds.FLOAT, Kinds.FLOATS):
        floats = [float(rng.choice(REAL)) for _ in range(many)]
        return typed(name, kind, **({"floats": floats} if kind == Kinds.FLOATS else {"f": (floats or [0.0])[0]}))
    if kind in (Kinds.STRING, Kinds.STRINGS):
        texts = [TEXTS[rng.integers(len(TEXTS))].encode() for _ in range(many)]
        return typed(name, kind, **({"strings": texts} if kind == Kinds.STRINGS else {"s": (texts or [b""])[0]}))
    if kind == Kinds.TENSOR:
        held = array(rng)
        if held.dtype != object:
            return typed(name, kind, t=onnx.numpy_helper.from_array(held, name))
    return None


def operator(rng: np.random.Generator) -> ModelProto:
    """A model with one such operator."""
    domain, op = NAMED[rng.integers(len(NAMED))]
    schema = SCHEMAS.get((domain, op))
    least, most = (schema.min_input, schema.max_input) if schema else (1, 6)
    inputs: list[Any] = [DATA] if most else []
    inputs += [array(rng) if rng.random() < 0.8 else DATA for _ in range(min(most, least + int(rng.integers(3))) - 1)]
    if schema:
        asked = {name: (one.type.value, one.required) for name, one in schema.attributes.items()}
    else:
        shaping = ROWS[f"{domain}.{op}".removeprefix(".")].shaping
        asked = {name: (KIND_OF.get(type(default), Kinds.INT), False) for name, default in shaping.items()}
    given = {
        name: made
        for name, (kind, is_required) in asked.items()
        if (is_required or rng.random() < 0.4) and (made := attribute(rng, name, kind)) is not None
    }
    return one_operator(op, inputs, given, int(rng.integers(2, 5)), int(rng.integers(1, 3)), domain)


def operators(count: int, seed: int) -> Iterator[Kind]:
    """Kinds of files with one drawn operator each."""
    for number in range(count):

        def build(folder: Path, number: int = number) -> None:
            proto = operator(np.random.default_rng((seed, number)))
            proto.opset_import.extend([helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx.ml", 3)])
            (folder / MODEL).write_bytes(proto.SerializeToString())

        yield Kind(f"operator {number}", build)
