"""Names of classes as people and exporters write them: read from a text, and written again in the same form.

A text is a list or a dictionary, of JSON or of Python, from numbers to names or from names to numbers; or one name a
line; or names with commas between them. The place of a name is the number of its class.

Nothing here loads numpy: `--help` is made from what reads options.
"""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Names = tuple[str, ...]
MOST_LETTERS, MOST_PYTHON = 2**22, 2**18  # of a text that is read; Python's parser takes some hundred bytes for each
MOST_NUMBER = 10**18 - 1


class Form(StrEnum):
    """How a text lists names."""

    LINES = "one name a line"
    COMMAS = "names with commas between them"
    JSON_LIST = "a list of JSON"
    JSON_NAMES = "a dictionary of JSON from numbers to names"
    JSON_NUMBERS = "a dictionary of JSON from names to numbers"
    PYTHON_LIST = "a list of Python"
    PYTHON_NAMES = "a dictionary of Python from numbers to names"
    PYTHON_NUMBERS = "a dictionary of Python from names to numbers"


@dataclass(frozen=True)
class LabelList:
    """Names of classes, in the order of their numbers, and the form that they were read in."""

    names: Names
    form: Form

    def text(self, names: Sequence[str]) -> str:
        """Other names in the same form."""
        by_number, numbers = dict(enumerate(names)), {name: number for number, name in enumerate(names)}
        written: dict[Form, Any] = {
            Form.LINES: "\n".join(names),
            Form.COMMAS: ",".join(names),
            Form.JSON_LIST: json.dumps(list(names), ensure_ascii=False),
            Form.JSON_NAMES: json.dumps(by_number, ensure_ascii=False),
            Form.JSON_NUMBERS: json.dumps(numbers, ensure_ascii=False),
            Form.PYTHON_LIST: list(names),
            Form.PYTHON_NAMES: by_number,
            Form.PYTHON_NUMBERS: numbers,
        }
        return str(written[self.form])


def read_label_list(text: str) -> LabelList | None:
    """The names of classes that a text lists; None where it lists none, or is longer than such lists are."""
    if len(text) > MOST_LETTERS:
        return None
    held, is_json = parsed(text)
    if isinstance(held, Mapping | list | tuple):
        names = names_of(held)
        return None if names is None else LabelList(names, form_of(held, is_json=is_json))
    if held is not None:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return LabelList(tuple(lines), Form.LINES)
    parts = [part.strip() for part in text.split(",")]
    return LabelList(tuple(parts), Form.COMMAS) if len(parts) > 1 and all(parts) else None


def parsed(text: str) -> tuple[Any, bool]:
    """What a text says as JSON or Python, and whether it is JSON; None where it is neither."""
    with suppress(ValueError, RecursionError):  # it may be Python
        return json.loads(text), True
    if len(text) <= MOST_PYTHON:
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # it may be a list of its own
            return ast.literal_eval(text.strip()), False
    return None, False


def form_of(held: Mapping[Any, Any] | Sequence[Any], *, is_json: bool) -> Form:
    """The form of what was read."""
    if not isinstance(held, Mapping):
        return Form.JSON_LIST if is_json else Form.PYTHON_LIST
    if all(map(is_number, held)):
        return Form.JSON_NAMES if is_json else Form.PYTHON_NAMES
    return Form.JSON_NUMBERS if is_json else Form.PYTHON_NUMBERS


def names_of(held: Any) -> Names | None:
    """The names that a list holds, or a dictionary from numbers to names or from names to numbers, in the order of the
    numbers; None where that is no such thing, or a number is missing."""
    if isinstance(held, Mapping):
        pairs = held.items() if all(map(is_number, held)) else [(number, name) for name, number in held.items()]
        if not all(is_number(number) for number, _ in pairs):
            return None
        by_number = {int(number): name for number, name in pairs}
        if sorted(by_number) != list(range(len(held))):
            return None
        held = [by_number[number] for number in range(len(by_number))]
    is_list = isinstance(held, Iterable) and not isinstance(held, str | bytes)
    names = tuple(held) if is_list else ()
    if not names or not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        return None
    return tuple(map(str, names)) if all(isinstance(name, str) or abs(name) <= MOST_NUMBER for name in names) else None


def is_number(value: Any) -> bool:
    """Whether a value is the number of a class, as a number or in digits."""
    if isinstance(value, str):
        return value.isdecimal() and len(value) <= len(str(MOST_NUMBER))
    return isinstance(value, int) and not isinstance(value, bool)
