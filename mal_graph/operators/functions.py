"""Which function an operator is: the settings that decide it, as they stand in one node, and when two are equal."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.operators.shaping import LARGEST
from mal_graph.operators.table import row_of, slot_named
from mal_graph.operators.windows import PADDED_ALIKE, Misfit, padding_of

Setting = float | str | tuple[float, ...] | None  # None: nothing says, or it is computed when the model runs
SAME_FLOAT = 1e-6  # relative; what float32 in a file leaves of a number
SIGNED = ("axis", "axes")  # counted from the front or from the end, which nobody can compare without the rank


def function_of(node: Node, constant: Callable[[str], Array | None]) -> dict[str, Setting]:
    """The settings that decide which function a node is, by name.

    Args:
        node: any operator; without a row it has none.
        constant: the values of a stored tensor, None for anything else.
    """
    row = row_of(node)
    settings = {name: held(node, name, usual, constant) for name, usual in (row.shaping if row else {}).items()}
    if "padding" in settings:
        settings["padding"] = padding(node)
    is_plain = settings.get("padding") == 0 and not settings.get("ceil_mode")
    return {name: value for name, value in settings.items() if name != "count_include_pad" or not is_plain}


def held(node: Node, name: str, usual: Any, constant: Callable[[str], Array | None]) -> Setting:
    """One setting: the attribute, the input of that name, or what it is where neither is given."""
    if name in node.attributes:
        return plain(node.attributes[name])
    slot = slot_named(node, name)
    if slot is None:
        return plain(usual)
    values = constant(node.inputs[slot])
    return None if values is None else plain(values)


def plain(value: Any) -> Setting:
    """A setting as a text, a number or a row of numbers; bounds that bound nothing as infinities."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple) and value and all(isinstance(one, str | bytes) for one in value):
        return " ".join(one.decode() if isinstance(one, bytes) else one for one in value)
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "biuf":
        return None
    numbers = numbers.astype(np.float64)
    numbers = np.where(np.abs(numbers) >= LARGEST, np.copysign(np.inf, numbers), numbers)
    return float(numbers.ravel()[0]) if numbers.size == 1 and not numbers.ndim else tuple(numbers.ravel().tolist())


def padding(node: Node) -> Setting:
    """The positions around a map, those that the operator chooses itself too; its word where the map decides."""
    taps, chosen = node.attribute("kernel_shape"), node.attribute("auto_pad", "")
    if not taps and chosen not in PADDED_ALIKE:
        return None
    taps = taps or [1] * (len(node.attribute("pads") or ()) // 2)
    try:
        pads = padding_of(node, taps)
    except Misfit:
        return plain(chosen)
    return tuple(map(float, pads)) if any(pads) else 0.0


def is_same(a: Setting, b: Setting, name: str) -> bool:
    """Whether two settings of one name are equal, as far as anyone can say from the files."""
    if a is None or b is None or a == b:
        return True
    if isinstance(a, str) or isinstance(b, str):
        return False
    mine, theirs = np.atleast_1d(a), np.atleast_1d(b)
    if len(mine) != len(theirs) and min(len(mine), len(theirs)) != 1:
        return False
    if name in SIGNED and ((mine < 0).any() or (theirs < 0).any()) and (mine >= 0).any() | (theirs >= 0).any():
        return True
    return bool(np.isclose(mine, theirs, rtol=SAME_FLOAT, atol=0).all())


def said(value: Setting) -> str:
    """A setting as people read it."""
    if value is None or isinstance(value, str):
        return value or "none"
    return f"{value:g}" if isinstance(value, float) else "x".join(f"{number:g}" for number in value)


def differing_settings(mine: Mapping[str, Setting], theirs: Mapping[str, Setting]) -> list[str]:
    """The names of the settings that differ between two nodes of one operator."""
    return [name for name in mine if name in theirs and not is_same(mine[name], theirs[name], name)]
