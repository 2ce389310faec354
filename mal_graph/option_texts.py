"""Values of options as people write them on a command line or in a file, made into what the options hold.

Each function takes the text, or what it stands for already, and raises UsageError with what to write instead.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import inf, isfinite, nan
from os import PathLike, fspath
from typing import Any

from pydantic import ValidationInfo

from mal_graph.errors import FileError, MatchError, UsageError
from mal_graph.label_lists import Names, names_of, read_label_list
from mal_graph.text_files import read_text

MOST_POINTS = 10_000  # of a range of lambdas
MOST = 10**18 - 1  # of a whole number: what numpy and every reader of JSON hold
MOST_BYTES = 2**62  # more than any machine has, and what the system counts in


def factors_over_depth(given: Any) -> Any:
    """`0.3`, or `0.1,0.5` for several over the depth of the base."""
    if not isinstance(given, str):
        if isinstance(given, Iterable) and not (given := tuple(given)):
            raise UsageError("`lam` is empty: give a merging factor from 0 (the base) to 1 (the donor)")
        return given
    try:
        numbers = [float(part) for part in given.split(",")]
    except ValueError:
        raise UsageError(
            f"`lam` {given!r} is no merging factor: write a number such as 0.3, or several over the depth of the "
            "base such as 0.1,0.3,0.5"
        ) from None
    return tuple(numbers) if len(numbers) > 1 else numbers[0]


def factors_by_selector(given: Any) -> Any:
    """`SELECTOR=0.5`, one for each selector; or pairs, or a mapping."""
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return tuple(given.items())
    if not isinstance(given, Iterable):
        return given
    return tuple(factor_of_selector(one) if isinstance(one, str) else one for one in given)


def factor_of_selector(text: str) -> tuple[str, float]:
    selector, _, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        selector = ""
    if not selector:
        raise UsageError(f"`lam_for` {text!r} names no layers and number: write SELECTOR=0.5, as in 'conv*=0.5'")
    return selector, factor


def lambdas_of(given: Any) -> Any:
    """`0:1:0.05` (from, to, step; the end counts) or `0,0.1,0.5`."""
    if not isinstance(given, str):
        return tuple(given) if isinstance(given, Iterable) else given
    parts = given.split(":")
    try:
        numbers = [float(part) for part in (parts if len(parts) == 3 else given.split(","))]
    except ValueError:
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        raise UsageError(f"`lambdas` {given!r} is no list of numbers: write 0:1:0.05 (from, to, step) or 0,0.1,0.5")
    return points_of(given, *numbers) if len(parts) == 3 else tuple(numbers)


def points_of(text: str, start: float, end: float, step: float) -> tuple[float, ...]:
    if step <= 0 or end < start or (end - start) / step > MOST_POINTS:
        raise UsageError(f"`lambdas` {text!r} has no points: write from, to and a positive step, as in 0:1:0.05")
    return tuple(round(start + i * step, 12) for i in range(int((end - start) / step + 1e-9) + 1))


def shapes_of(given: Any) -> Any:
    """`NAME:1,3,64,64`, one for each input; or a mapping of shapes by name."""
    if given is None or isinstance(given, Mapping) or not isinstance(given, Iterable):
        return given
    return dict(map(shape_of, given)) or None


def shape_of(text: Any) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise UsageError(f"`input_shapes` {text!r} is no shape: write NAME:1,3,64,64 with sizes from 1")
    return name, shape


def bytes_of(given: Any, field: ValidationInfo) -> Any:
    """`8GiB`, `500MB` or a number of bytes."""
    if isinstance(given, int):
        return min(given, MOST_BYTES)
    if not isinstance(given, str):
        return given
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", given.strip(), re.IGNORECASE)
    if parts is None:
        raise UsageError(f"`{field.field_name}` {given!r} is no size: write a number of bytes, or 500MB, or 8GiB")
    number, unit, binary = parts.groups()
    return int(min(Decimal(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "), MOST_BYTES))


def pairs_of(given: Any) -> Any:
    """Pairs of layer names, or the path of a file that `match -o` wrote. Raises FileError or MatchError too."""
    if not isinstance(given, str | PathLike):
        return None if given is None else tuple(map(tuple, given))
    path = fspath(given)
    try:
        document = json.loads(read_text(path))
        pairs = tuple((str(pair["base"]), str(pair["donor"])) for pair in document["pairs"])
    except OSError as error:
        raise FileError(f"cannot read the pairs in {path}: {error.strerror}; check the path") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileError(
            f"cannot read the pairs in {path}: it is not the JSON that `mal-graph match -o FILE` writes"
        ) from None
    if not pairs:
        raise MatchError(f"{path} holds no pairs: add at least one entry to its list of pairs")
    return pairs


def named_pairs_of(given: Any) -> Any:
    """`A=B`, one for each input or output; or pairs, or a mapping from the base's names to the donor's."""
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return tuple(given.items())
    if isinstance(given, str):
        return (pair_of_names(given),)
    if not isinstance(given, Iterable):
        return given
    return tuple(pair_of_names(one) if isinstance(one, str) else one for one in given)


def pair_of_names(text: str) -> tuple[str, str]:
    own, _, other = text.partition("=")
    if not own or not other or "=" in other:
        raise UsageError(f"`pair` {text!r} is no pair of names: write A=B, the base's name and the donor's")
    return own, other


def label_lists_of(given: Any) -> Any:
    """Names of classes for each model: the path of a file that lists them, or they themselves in order; `-` or None
    where the model says them. Raises FileError or UsageError too."""
    if given is None:
        return ()
    if isinstance(given, str | PathLike | Mapping):
        raise UsageError(f"`labels_of` is {given!r}: give a list with names, or a file of them, for each model")
    return tuple(map(label_list_of, given))


def label_list_of(given: Any) -> Names | None:
    """The names of one model. Raises FileError or UsageError."""
    if given is None or given == "-":
        return None
    if not isinstance(given, str | PathLike):
        names = names_of(given)
        if names is None:
            raise UsageError(f"`labels_of` holds {given!r}: give names in the order of the classes, or names by number")
    else:
        names = read_names(fspath(given))
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UsageError(f"`labels_of` names {twice!r} twice: give each class of a model a name of its own")
    return names


def read_names(path: str) -> Names:
    """The names of classes in a file. Raises FileError."""
    try:
        listed = read_label_list(read_text(path, "utf-8-sig"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise FileError(f"cannot read the names of classes in {path}: {why}; check the path") from None
    if listed is None:
        raise FileError(
            f"cannot read the names of classes in {path}: write one name a line, a list of JSON, or a dictionary from "
            "numbers, from 0 on, to names"
        )
    return listed.names


def path_text(given: Any) -> Any:
    return fspath(given) if isinstance(given, PathLike) else given


def budget_of(given: Any) -> float:
    """A positive number, as in `1.5` or `1.5x`; `full`, which has no end, is held as infinity."""
    text = str(given).strip().lower()
    is_full = text == "full" or (isinstance(given, float) and given == inf)
    try:
        number = inf if is_full else float(text.removesuffix("x"))
    except ValueError:
        number = nan
    if not number > 0 or (number == inf and not is_full):
        raise UsageError(f"`budget` is {given!r}: give a positive number, such as 1.5, or full")
    return number


def budget_text(budget: float) -> float | str:
    """A budget as a report holds it."""
    return "full" if budget == inf else budget
