"""What experts add to a tensor, in the smallest form that gives it: two factors, signs of one size, or all of it.

A model unpacks them before any sample runs; runtimes do so once, when they open it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.merging.per_sample import PerSample
from mal_graph.operators import cast_number

NOTHING = 1e-9  # of the largest singular value, or of the size of signs: rounding of sums in float64 lies below


@dataclass(frozen=True, repr=False)
class Packed(Brief):
    """What one expert adds to a tensor, in some form.

    Attributes:
        nbytes: what it takes.
        write: puts it into a model, under a name; what is called by that then has shape (1, numbers).
    """

    nbytes: int
    write: Callable[[PerSample, str], str]


def pack(values: Array, dtype: np.dtype[np.generic]) -> Packed:
    """Values of any shape in the form that takes least."""
    forms = [form(values, dtype) for form in FORMS]
    return min((one for one in forms if one is not None), key=lambda one: one.nbytes)


def as_whole(values: Array, dtype: np.dtype[np.generic]) -> Packed:
    row = values.reshape(1, -1).astype(dtype)
    return Packed(row.nbytes, lambda body, name: body.store(name, row))


def as_signs(values: Array, dtype: np.dtype[np.generic]) -> Packed | None:
    """Signs and one size, where all that is not 0 has this size."""
    sizes = np.abs(values)
    size = sizes.max(initial=0)
    signs = np.where(sizes > NOTHING * size, np.sign(values), 0).astype(np.int8).reshape(1, -1)
    if np.any(np.abs(size * np.abs(signs) - sizes.reshape(1, -1)) > NOTHING * size):
        return None
    scale = np.array(size, dtype)

    def write(body: PerSample, name: str) -> str:
        stored = body.store(f"{name}/signs", signs), body.store(f"{name}/size", scale)
        numbers = body.prepare(f"{name}/numbers", "Cast", stored[:1], to=cast_number(np.dtype(dtype)))
        return body.prepare(name, "Mul", (numbers, stored[1]))

    return Packed(signs.nbytes + scale.nbytes, write)


def as_factors(values: Array, dtype: np.dtype[np.generic]) -> Packed | None:
    """Two factors of a matrix whose rank is low."""
    if values.ndim < 2:
        return None
    u, s, v = np.linalg.svd(values.reshape(len(values), -1), full_matrices=False)
    rank = int((s > NOTHING * s.max(initial=0)).sum())
    roots = np.sqrt(s[:rank])
    left, right = (u[:, :rank] * roots).astype(dtype), (roots[:, None] * v[:rank]).astype(dtype)
    if not rank:
        return None

    def write(body: PerSample, name: str) -> str:
        product = body.prepare(
            f"{name}/product", "MatMul", (body.store(f"{name}/left", left), body.store(f"{name}/right", right))
        )
        return body.prepare(name, "Reshape", (product, body.store("one row", np.array([1, -1]))))

    return Packed(left.nbytes + right.nbytes, write)


FORMS = (as_factors, as_signs, as_whole)
