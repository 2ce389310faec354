"""What `method` and `search` may be called: the ways to a result, and what is registered. None is loaded here."""

from collections.abc import Sequence
from typing import Any

from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.plain_text import did_you_mean

WAYS = ("auto", "mal", "average", "union")
MERGE_METHOD = "a merge method (`mal-graph methods` lists them)"


def known_methods() -> tuple[str, ...]:
    """What `method` may be: the ways to a result, and the merge methods that are registered."""
    return (*WAYS, *registry.merge_methods())


def way_of(method: str) -> str:
    """The way to a result that a method belongs to: one of `WAYS`, or that of all merge methods."""
    return method if method in WAYS else MERGE_METHOD


def method_of(given: Any) -> str:
    """The name of a way or of a merge method. Raises UsageError."""
    if isinstance(given, str) and given in known_methods():
        return given
    near = did_you_mean(str(given), known_methods())
    raise UsageError(f"`method` is {str(given)[:40]!r}: {near}choose {', '.join(WAYS)}, or {MERGE_METHOD}")


def unmatched_rules() -> tuple[str, ...]:
    """What `unmatched` may be."""
    return tuple(registry.unmatched_rules())


def unmatched_of(given: Any) -> str:
    """The name of a rule for units without a partner. Raises UsageError."""
    return registered_name("unmatched", given, unmatched_rules())


def searches() -> tuple[str, ...]:
    """What `search` may be."""
    return tuple(registry.searches())


def search_of(given: Any) -> str:
    """The name of a search. Raises UsageError."""
    return registered_name("search", given, searches())


def registered_name(option: str, given: Any, known: Sequence[str]) -> str:
    """What an option names of what is registered. Raises UsageError."""
    if isinstance(given, str) and given in known:
        return given
    near = did_you_mean(str(given), known)
    raise UsageError(f"`{option}` is {str(given)[:40]!r}: {near}choose one of {', '.join(known)}")
