"""What an option is: a field of a configuration, with what it says of itself and of values that it refuses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Signature
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, PlainSerializer
from pydantic import ValidationError as InvalidFields
from pydantic.fields import FieldInfo

from mal_graph.errors import UsageError
from mal_graph.option_names import COMMON

if TYPE_CHECKING:
    from mal_graph.graph import Array

    Arrays = Mapping[str, Array]
else:
    Arrays = Mapping[str, Any]

Data = Arrays | str | PathLike[str]

MERGES = ("assemble", "sweep", "zoo")

C = TypeVar("C", bound="Options")


@dataclass(frozen=True)
class Option:
    """What a field says of itself beside its type and default.

    Attributes:
        help: one sentence.
        panel: where `--help` shows it.
        flag: its flag, where that is not its name.
        metavar: what a value looks like; "" for a switch or a choice.
        advice: what to do where a value is refused.
        jobs: which jobs take it.
        is_repeated: whether the flag may be given several times.
        reads_file: whether a text is the path of a file that is read.
        methods: the ways to a result that it belongs to; () where all take it.
        known: the texts that it may hold, where these are not known before packages are asked.
        elsewhere: why a merge method does not take it, and what to do instead, where there is more to say than that.
    """

    help: str
    panel: str = COMMON
    flag: str = ""
    metavar: str = ""
    advice: str = ""
    jobs: tuple[str, ...] = MERGES
    is_repeated: bool = False
    reads_file: bool = False
    methods: tuple[str, ...] = ()
    known: Callable[[], Sequence[str]] | None = None
    elsewhere: str = ""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "description": self.help}


def described_data(data: Data | None) -> Any:
    """What a report says of arrays: their types and shapes, or the path that they come from."""
    if not isinstance(data, Mapping):
        return None if data is None else fspath(data)
    return {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in data.items()}


def checked_data(data: Any) -> Any:
    if isinstance(data, str | PathLike | Mapping | None):
        return data
    raise UsageError(
        f"arrays are given as a {type(data).__name__}: give a dictionary by name, or the path of an .npz file"
    )


HOLDS_DATA = BeforeValidator(checked_data)
DataOption = Annotated[Any, HOLDS_DATA, PlainSerializer(described_data)]


def described_data_of_each(data: Any) -> Any:
    """What a report says of the arrays of several models."""
    return [described_data(one) for one in data] if isinstance(data, tuple) else described_data(data)


def checked_data_of_each(data: Any) -> Any:
    """Arrays of several models; as one dictionary they have the number of their model in front of their name."""
    if isinstance(data, list | tuple):
        return tuple(map(checked_data, data)) or None
    if isinstance(data, Mapping | None):
        return data
    raise UsageError(f"arrays of each model are given as a {type(data).__name__}: give a list, one entry for each")


HOLDS_DATA_OF_EACH = BeforeValidator(checked_data_of_each)
DataOfEach = Annotated[Any, HOLDS_DATA_OF_EACH, PlainSerializer(described_data_of_each)]


class Options(BaseModel):
    """Options that are checked when they are made. Raises UsageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers know the fields themselves

        def __init__(self, **given: Any) -> None:
            try:
                super().__init__(**given)
            except InvalidFields as error:
                raise UsageError("; ".join(refusals(type(self), error))) from None

    def __repr__(self) -> str:
        changed = {name: getattr(self, name) for name in self.changed()}
        return f"{type(self).__name__}({', '.join(f'{name}={short(value)}' for name, value in changed.items())})"

    __str__ = __repr__

    @classmethod
    def data_options(cls) -> list[str]:
        """Names of the options that hold arrays, or the path of an .npz file with them."""
        kinds = (HOLDS_DATA, HOLDS_DATA_OF_EACH)
        return [name for name, field in cls.model_fields.items() if any(kind in field.metadata for kind in kinds)]

    def is_changed(self, name: str) -> bool:
        """Whether an option is not what it is by default."""
        value = getattr(self, name)
        return isinstance(value, Mapping) or value != type(self).model_fields[name].default

    def changed(self) -> Iterator[str]:
        """Names of the options that are not what they are by default."""
        return (name for name in type(self).model_fields if self.is_changed(name))

    def replaced(self: C, **given: Any) -> C:
        """The same with other values, which are not checked again."""
        return self.model_copy(update=given)

    def to_dict(self) -> dict[str, Any]:
        """What a report holds; of arrays the types and shapes."""
        return self.model_dump(mode="json")


def option_of(field: FieldInfo) -> Option:
    """What a field says of itself."""
    (own,) = (fact for fact in field.metadata if isinstance(fact, Option))
    return own


# --- what is said of refused values -------------------------------------------------------------------------------


def refusals(config: type[Options], error: InvalidFields) -> Iterator[str]:
    """One sentence for each refused option, the first fault of each."""
    faults: dict[str, dict[str, Any]] = {}
    for details in error.errors(include_url=False):
        faults.setdefault(str(details["loc"][0]), dict(details))
    for name, fault in faults.items():
        if fault["type"] == "extra_forbidden":
            yield f"there is no option {name!r}: choose from {', '.join(sorted(config.model_fields))}"
            continue
        field = config.model_fields[name]
        yield f"`{name}` is {short(fault['input'])}: {advice_on(field)}"


def advice_on(field: FieldInfo) -> str:
    """What to give for a field."""
    choices = choices_of(field)
    if choices:
        return f"choose one of {', '.join(choices)}"
    return option_of(field).advice or f"give {option_of(field).metavar or 'true or false'}"


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The texts that a field may hold; () where it is no choice."""
    known = option_of(field).known
    if known is not None:
        return tuple(known())
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def short(value: object) -> str:
    """A value on part of a line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(repr, value))}}}"
    text = repr(value) if not isinstance(value, float) else f"{value:g}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def set_signature(function: Callable[..., Any], shown: Signature) -> None:
    """Have `inspect` and typer, which asks it, find this signature instead of the one in the code."""
    function.__signature__ = shown  # type: ignore[attr-defined]  # PEP 362 has it, mypy's type of functions has not
