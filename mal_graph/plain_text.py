"""Text that people read: what a name holds is shown, and nothing obeys it.

A name in a file may hold what a terminal obeys, what breaks a line, and what turns the direction of the text around it.
All of these are written out as in JSON, so that two names that differ are seen to differ, and JSON stays JSON.
"""

from collections.abc import Iterable
from difflib import get_close_matches

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute


def one_line(text: str) -> str:
    """A text on one line, of letters that can be seen and blanks."""
    return (
        text if text.isprintable() else "".join(letter if letter.isprintable() else escape(letter) for letter in text)
    )


def lines(text: str) -> str:
    """A text of several lines, of letters that can be seen and blanks."""
    return "\n".join(map(one_line, text.split("\n")))


def escape(letter: str) -> str:
    """A letter as JSON writes it out."""
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


def cell(value: object) -> object:
    """A value as a cell of a table that a spreadsheet may open: numbers as they are, texts as texts."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if value.startswith(FORMULA) and not is_number(value) else text


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a name that there is not, or "" where nothing is like it."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}? " if near else ""
