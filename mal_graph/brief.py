"""Values that show themselves on one line, however much they hold."""

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any

LONGEST = 160


class Brief:
    """A dataclass that shows names and numbers as they are, and how many there are of everything else.

    Use it with `@dataclass(repr=False)`.
    """

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({', '.join(shown_fields(self))})"
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...)"


def shown_fields(value: Any) -> Iterator[str]:
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, str | int | float):
            yield f"{field.name}={held!r}"
        elif isinstance(held, Collection):
            yield f"{field.name}: {len(held)}"
        elif isinstance(name := getattr(held, "name", None), str):
            yield f"{field.name}={name!r}"
