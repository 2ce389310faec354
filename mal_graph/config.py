"""Every option of a merge, said once: its name, type, default, choices and help.

The keywords of `assemble`, `sweep`, `grid` and `zoo`, the flags of the command line, their help and the `config` of a
JSON report are made from these fields. To add an option, add a field to the part it belongs to and use it where it
counts. Names in backticks in the error messages of this package are such fields; the command line prints their flags.

Chosen: flat names in three parts (what is aligned, what is merged, what is checked and measured) that one class
inherits, so that a function can ask for the part it needs. Refused: nested parts - each keyword and flag would have to
be routed to its part, which is a second list of options.

Nothing here loads numpy: `mal-graph --help` is made from this module alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic import ValidationError as InvalidFields
from pydantic.fields import FieldInfo

from mal_graph import option_texts as texts
from mal_graph.errors import UsageError

if TYPE_CHECKING:
    from mal_graph.graph import Array

    Arrays = Mapping[str, Array]
else:
    Arrays = Mapping[str, Any]

MatchBy = Literal["weights", "activations", "both"]
Unmatched = Literal["keep", "fade", "zero"]
WidthMode = Literal["base", "grow"]
DepthMode = Literal["match", "expand"]
OutputKind = Literal["logits", "probabilities", "values"]
Data = Arrays | str | PathLike[str]

COMMON, ALIGNMENT, SIZES, CHECKS = "Common", "Alignment", "Widths and depths", "Checks and measurements"
MERGES = ("assemble", "sweep", "zoo")
RUNS = (*MERGES, "grid", "inspect")

C = TypeVar("C", bound="Options")
F = TypeVar("F", bound=Callable[..., Any])


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
    """

    help: str
    panel: str = COMMON
    flag: str = ""
    metavar: str = ""
    advice: str = ""
    jobs: tuple[str, ...] = MERGES
    is_repeated: bool = False
    reads_file: bool = False

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
Factor = Annotated[float, Field(ge=0.0, le=1.0)]
FACTOR = "give a merging factor from 0 (the base) to 1 (the donor)"


class Options(BaseModel):
    """Options that are checked when they are made. Raises UsageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, ser_json_inf_nan="null")

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
        return [name for name, field in cls.model_fields.items() if HOLDS_DATA in field.metadata]

    def changed(self) -> Iterator[str]:
        """Names of the options that are not what they are by default."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Mapping) or value != field.default:
                yield name

    def replaced(self: C, **given: Any) -> C:
        """The same with other values, which are not checked again."""
        return self.model_copy(update=given)

    def to_dict(self) -> dict[str, Any]:
        """What a report holds; of arrays the types and shapes."""
        return self.model_dump(mode="json")


class AlignOptions(Options):
    """What is aligned."""

    match_by: Annotated[MatchBy, Option("What says which units are alike.", ALIGNMENT, jobs=(*MERGES, "align"))] = (
        "weights"
    )
    rescale_invariant: Annotated[
        bool,
        Option(
            "Compare units at unit size, where ReLU and the like leave their scale open.",
            ALIGNMENT,
            jobs=(*MERGES, "align"),
        ),
    ] = False
    assume_ordered: Annotated[
        bool,
        Option(
            "Merge frozen axes, and units inside others, in stored order (models with a common ancestor).",
            ALIGNMENT,
            jobs=(*MERGES, "grid", "align"),
        ),
    ] = False
    pair: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(texts.named_pairs_of),
        Option(
            "Which input or output of the donor is which of the base's, where their names do not say it.",
            ALIGNMENT,
            metavar="BASE=DONOR",
            jobs=(*MERGES, "grid", "align", "match"),
            is_repeated=True,
        ),
    ] = ()
    matches: Annotated[
        tuple[tuple[str, str], ...] | None,
        BeforeValidator(texts.pairs_of),
        Option(
            "Pairs of layer names to use, or the file that `match -o FILE` wrote.",
            ALIGNMENT,
            metavar="FILE",
            jobs=("assemble", "sweep", "match"),
            reads_file=True,
        ),
    ] = None
    calibrate: Annotated[
        DataOption,
        Option(
            "Unlabelled inputs: measure activations and repair on them.",
            ALIGNMENT,
            metavar="FILE.npz",
            reads_file=True,
            jobs=(*MERGES, "align"),
        ),
    ] = None


class BlendOptions(Options):
    """What is merged, and how."""

    lam: Annotated[
        Factor | tuple[Factor, ...],
        BeforeValidator(texts.factors_over_depth),
        Option(
            "0 is the base, 1 the donor; 0.1,0.5 rises over the depth.",
            flag="lambda",
            metavar="NUMBER",
            advice=FACTOR,
            jobs=("assemble", "grid"),
        ),
    ] = 0.3
    lam_for: Annotated[
        tuple[tuple[str, Factor], ...],
        BeforeValidator(texts.factors_by_selector),
        Option(
            "The lambda of these layers.",
            flag="lambda-for",
            metavar="SELECTOR=NUMBER",
            advice=FACTOR,
            jobs=("assemble",),
            is_repeated=True,
        ),
    ] = ()
    layers: Annotated[
        str | None,
        Option("Merge these only: a name pattern, 0:5 or 0%:50%.", metavar="SELECTOR", jobs=("assemble", "sweep")),
    ] = None
    unmatched: Annotated[
        Unmatched,
        Option(
            "What units without a partner become: they keep their weights, fade with lambda, or count as zero.",
            SIZES,
            jobs=(*MERGES, "grid"),
        ),
    ] = "fade"
    width: Annotated[WidthMode, Option("Where a donor is wider: base keeps the width, grow widens.", SIZES)] = "base"
    depth: Annotated[
        DepthMode,
        Option("Where a donor has more layers: match leaves them, expand adds some to the base.", SIZES),
    ] = "match"
    repair: Annotated[bool, Option("Whether to repair what was merged, with calibration inputs.", ALIGNMENT)] = True


class CheckOptions(Options):
    """What is checked and measured."""

    verify: Annotated[
        bool, Option("Verify the axis groups by running the model, or leave them unverified.", CHECKS, jobs=RUNS)
    ] = True
    compare: Annotated[
        bool,
        Option("Compare a merge with what it promises by running it, or leave it uncompared.", CHECKS),
    ] = True
    verify_timeout: Annotated[
        float | None,
        Field(ge=0.0),
        Option(
            "What takes longer stays unverified.",
            CHECKS,
            metavar="SECONDS",
            advice="give a time of 0 seconds or more",
            jobs=RUNS,
        ),
    ] = 600.0
    max_memory: Annotated[
        int | None,
        BeforeValidator(texts.bytes_of),
        Option("What a verification may take, as in 8GiB; else what is free.", CHECKS, metavar="SIZE", jobs=RUNS),
    ] = None
    seed: Annotated[
        int,
        Field(ge=0),
        Option("Seed of every random draw.", CHECKS, metavar="NUMBER", advice="give 0 or more", jobs=(*RUNS, "match")),
    ] = 0
    inputs: Annotated[
        DataOption,
        Option("Arrays for the probe runs.", CHECKS, metavar="FILE.npz", reads_file=True, jobs=(*RUNS, "match")),
    ] = None
    input_shapes: Annotated[
        dict[str, tuple[int, ...]] | None,
        BeforeValidator(texts.shapes_of),
        Option(
            "Shape of a probe input.",
            CHECKS,
            flag="input-shape",
            metavar="NAME:1,3,64,64",
            jobs=(*RUNS, "match"),
            is_repeated=True,
        ),
    ] = None
    score_output: Annotated[
        str | None,
        Option("The output that fits the labels.", CHECKS, metavar="NAME", jobs=(*MERGES, "grid", "evaluate")),
    ] = None
    output_kind: Annotated[
        OutputKind | None, Option("What that output holds.", CHECKS, jobs=(*MERGES, "grid", "evaluate"))
    ] = None


class MergeConfig(CheckOptions, AlignOptions, BlendOptions):
    """Every option of a merge, as `assemble` takes them."""


class SweepConfig(MergeConfig):
    """The options of a sweep along lambda."""

    lambdas: Annotated[
        tuple[float, ...],
        BeforeValidator(texts.lambdas_of),
        Option("From, to and step, or a list 0,0.1,0.5.", metavar="0:1:0.05", jobs=("sweep",)),
    ] = tuple(round(0.05 * i, 2) for i in range(21))
    eps: Annotated[
        float,
        Field(ge=0.0),
        Option(
            "How much more loss than the base's lambda* may cost.",
            metavar="LOSS",
            advice="give how much more loss than the base's is accepted, 0 or more",
            jobs=("sweep",),
        ),
    ] = 0.05


class ZooConfig(MergeConfig):
    """The options of a search through a zoo."""

    lambdas: Annotated[
        tuple[float, ...],
        BeforeValidator(texts.lambdas_of),
        Option("Merging factors to try: a list, or from:to:step.", metavar="LIST", jobs=("zoo",)),
    ] = (0.05, 0.1, 0.2, 0.3, 0.5)
    eps: Annotated[
        float,
        Field(ge=0.0),
        Option(
            "How far accuracy, R2 or agreement may fall below the base's.",
            metavar="NUMBER",
            advice="give by how much the base's metric may be missed, 0 or more",
            jobs=("zoo",),
        ),
    ] = 0.0
    min_score: Annotated[
        float,
        Field(ge=0.0, le=1.0),
        Option(
            "Without data: what a pair of layers must score to be merged.",
            metavar="NUMBER",
            advice="give the least score of a pair, a number from 0 to 1",
            jobs=("zoo",),
        ),
    ] = 0.9
    controls: Annotated[
        int,
        Field(ge=0),
        Option(
            "How many shuffled copies of a donor it has to be better than.",
            metavar="NUMBER",
            advice="give 0 or more",
            jobs=("zoo",),
        ),
    ] = 3
    report_data: Annotated[
        DataOption,
        Option("Report on these; all of the data decide then.", metavar="FILE.npz", reads_file=True, jobs=("zoo",)),
    ] = None
    checkpoint: Annotated[
        str | None,
        BeforeValidator(texts.path_text),
        Option("The file that keeps every decision; default OUT.zoo.json.", metavar="FILE.json", jobs=("zoo",)),
    ] = None


CONFIGS: dict[str, type[Options]] = {
    "align": AlignOptions,
    "assemble": MergeConfig,
    "sweep": SweepConfig,
    "grid": MergeConfig,
    "zoo": ZooConfig,
    "inspect": MergeConfig,
    "match": MergeConfig,
    "evaluate": MergeConfig,
}


def option_of(field: FieldInfo) -> Option:
    """What a field says of itself."""
    (own,) = (fact for fact in field.metadata if isinstance(fact, Option))
    return own


def options_of(job: str) -> dict[str, FieldInfo]:
    """The fields of the options that a job takes, by name."""
    fields = CONFIGS[job].model_fields
    return {name: field for name, field in fields.items() if job in option_of(field).jobs}


def configured(job: str, config: Options | None, given: Mapping[str, Any]) -> Any:
    """The options of one call: a configuration, keywords, or keywords that override a configuration.

    Raises:
        UsageError: an option is unknown, not one of this job's, or its value is refused.
    """
    own = CONFIGS[job]
    if config is not None and not isinstance(config, Options):
        raise UsageError(f"the configuration of {job} is a {type(config).__name__}: give a {own.__name__}, or keywords")
    kept = {} if config is None else {name: getattr(config, name) for name in config.changed()}
    for name in (*kept, *given):
        if name not in options_of(job):
            raise UsageError(f"{job} has no option `{name}`: {instead_of(name, job)}")
    return own(**{**kept, **given})


RENAMED = {
    "pads": "unmatched",
    "signal": "match_by",
    "scale_free": "rescale_invariant",
    "proof": "verify",
    "prove": "verify",
    "prove_timeout": "verify_timeout",
    "output": "score_output",
    "scores": "output_kind",
    "state": "checkpoint",
    "resume": "checkpoint",
}


def instead_of(name: str, job: str) -> str:
    """What to give instead of an option that a job does not have."""
    if name in RENAMED:
        return f"it is `{RENAMED[name]}` now"
    elsewhere = [other for other in CONFIGS if other != job and name in options_of(other)]
    if elsewhere:
        return f"it is one of {' and '.join(elsewhere)}"
    return f"choose from {', '.join(sorted(options_of(job)))}"


def shows_options(job: str) -> Callable[[F], F]:
    """Show the options of a job in a function's signature and docstring, where the code says `**options`."""

    def decorate(function: F) -> F:
        own = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        fields = options_of(job)
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for name, field in fields.items()
        ]
        returns = signature(function).return_annotation
        shown = signature(function).replace(parameters=[*own, *keywords], return_annotation=returns)
        set_signature(function, shown)
        lines = "\n".join(f"        {name}: {option_of(field).help}" for name, field in fields.items())
        function.__doc__ = f"{function.__doc__}\n    Options:\n{lines}\n    "
        return function

    return decorate


def set_signature(function: Callable[..., Any], shown: Signature) -> None:
    """Have `inspect` and typer, which asks it, find this signature instead of the one in the code."""
    function.__signature__ = shown  # type: ignore[attr-defined]  # PEP 362 has it, mypy's type of functions has not


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
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def short(value: object) -> str:
    """A value on part of a line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(repr, value))}}}"
    text = repr(value) if not isinstance(value, float) else f"{value:g}"
    return text if len(text) <= 60 else f"{text[:57]}..."
