"""What is given for the parameters of a merge method: for all models or one, for all tensors or some, over the depth.

As a text a setting is `[MODEL:]NAME[@WHERE]=VALUE`: MODEL is 0 for the base, 1 for the first donor and so on; WHERE is
a part of the names of the tensors or layers that it is for; VALUE is a number, `true` or `false`, or several numbers
from the first layer to the last. What is said of one model holds before what is said of all, and of several such
settings that are for one tensor the last one holds.

Nothing here loads numpy: settings are options of the command line.
"""

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, NamedTuple

from mal_graph.errors import UsageError

Given = bool | float | tuple[float, ...]

MOST_SETTINGS, MOST_NUMBERS = 1000, 1000  # of a merge, and of one setting over the depth

FORM = re.compile(r"(?:(?P<model>\d{1,6}):)?(?P<name>[a-z_][a-z0-9_]*)(?:@(?P<where>.+))?", re.DOTALL)
FORM_ADVICE = "write NAME=NUMBER as in density=0.2, 1:weight=0.3 for the first donor alone, or density@conv=0.1,0.5"


class Setting(NamedTuple):
    """What one parameter is to be.

    Attributes:
        name: of the parameter.
        value: what it is; several numbers from the first layer to the last.
        model: 0 for the base, 1 for the first donor...; None for all.
        where: a part of the name of a tensor or layer; "" for all.
    """

    name: str
    value: Given
    model: int | None = None
    where: str = ""

    @property
    def text(self) -> str:
        """It as it is written."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        written = ",".join(str(one).lower() if isinstance(one, bool) else repr(float(one)) for one in values)
        return f"{self.key}={written}"

    @property
    def key(self) -> str:
        """What is set: its text before the value."""
        model = "" if self.model is None else f"{self.model}:"
        return f"{model}{self.name}{f'@{self.where}' if self.where else ''}"


def settings_of(given: Any) -> Any:
    """Settings from texts, from a mapping of what is set to its value, or from settings. Raises UsageError."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (setting_of_text(given),)
    if isinstance(given, Mapping):
        return tuple(setting_of(str(key), value) for key, value in given.items())
    if not isinstance(given, Iterable):
        return given
    given = tuple(given)
    if len(given) > MOST_SETTINGS:
        raise UsageError(f"`parameters` has {len(given):,} settings, and may have {MOST_SETTINGS:,}: set fewer")
    return tuple(one if isinstance(one, Setting) else setting_of_text(one) for one in given)


def setting_of_text(text: Any) -> Setting:
    """The setting that a text says. Raises UsageError."""
    key, equals, value = text.rpartition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        raise UsageError(f"`parameters` {text!r} sets no parameter: {FORM_ADVICE}")
    words = {"true": True, "false": False}
    if value.lower() in words:
        return setting_of(key, words[value.lower()])
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise UsageError(f"`parameters` {text!r} has no number behind the sign =: {FORM_ADVICE}") from None
    return setting_of(key, numbers if len(numbers) > 1 else numbers[0])


def setting_of(key: str, value: Any) -> Setting:
    """The setting of what a key says to a value. Raises UsageError."""
    form = FORM.fullmatch(key)
    if form is None:
        raise UsageError(f"`parameters` {key!r} names no parameter: {FORM_ADVICE}")
    model = None if form["model"] is None else int(form["model"])
    return Setting(form["name"], checked_value(key, value), model, form["where"] or "")


def checked_value(key: str, value: Any) -> Given:
    """A value that is a truth, a finite number, or several of these over the depth. Raises UsageError."""
    if isinstance(value, bool):
        return value
    several = isinstance(value, list | tuple)
    numbers = tuple(value) if several else (value,)
    if len(numbers) > MOST_NUMBERS:
        raise UsageError(
            f"`parameters` {key!r} has {len(numbers):,} numbers, and may have {MOST_NUMBERS:,}: give fewer"
        )
    is_number = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
    if not numbers or not is_number or not all(abs(one) < 1e18 and isfinite(one) for one in numbers):
        raise UsageError(
            f"`parameters` {key!r} is {value!r}: give a number, true or false, or numbers from the first layer to the "
            "last"
        )
    floats = tuple(map(float, numbers))
    return floats if several and len(floats) > 1 else floats[0]


def setting_texts(settings: Iterable[Setting]) -> list[str]:
    """Parameters of a merge method as a report holds them."""
    return [setting.text for setting in settings]
