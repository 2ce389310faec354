"""Selectors: short texts that name some layers of a base.

A name pattern ("conv*"), a range of positions ("0:5", half-open) or of depths in percent ("0%:50%").
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mal_graph.errors import UsageError
from mal_graph.network import Layer


def select_layers(layers: Sequence[Layer], selector: str) -> list[str]:
    """Names of the layers that a selector selects, in order.

    Raises:
        UsageError: it is malformed or selects nothing.
    """
    chosen = [layer.name for place, layer in enumerate(layers) if is_selected(selector, place, layers)]
    if not chosen:
        names = ", ".join(layer.name for layer in layers[:3])
        raise UsageError(
            f"the selector {selector!r} selects none of {len(layers)} layers ({names}, ...): give a name pattern, "
            "an index range such as 0:5 or depths such as 0%:50%"
        )
    return chosen


def is_selected(selector: str, place: int, layers: Sequence[Layer]) -> bool:
    start, colon, end = selector.partition(":")
    is_range = bool(colon) and is_bound(start) and is_bound(end)
    if is_range and "%" in selector:
        deepest = max(layer.depth for layer in layers) + 1
        depth = 100 * layers[place].depth / deepest
        return float(start.rstrip("%") or 0) <= depth < float(end.rstrip("%") or 100)
    if is_range and "." not in selector:
        return int(start or 0) <= place < int(end or len(layers))
    return fnmatchcase(layers[place].name, selector)


def is_bound(text: str) -> bool:
    """Whether a text is a number, a percentage or left open."""
    return not text or text.rstrip("%").replace(".", "", 1).isdecimal()
