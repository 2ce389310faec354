"""Every option of a merge, said once: its name, type, default, choices and help.

The keywords of `assemble`, `sweep`, `grid`, `zoo` and `search`, the flags of the command line, their help and the
`config` of a JSON report are made from these fields. To add an option, add a field to the part it belongs to and use it
where it counts. Names in backticks in the error messages of this package are such fields; the command line prints their
flags.

Chosen: flat names in three parts (what is aligned, what is merged, what is checked and measured) that one class
inherits, so that a function can ask for the part it needs. Refused: nested parts - each keyword and flag would have to
be routed to its part, which is a second list of options. Nothing here loads numpy: `mal-graph --help` is made of it.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from mal_graph import option_texts as texts
from mal_graph.errors import UsageError
from mal_graph.method_names import MERGE_METHOD, known_methods, method_of, unmatched_of, unmatched_rules, way_of
from mal_graph.method_options import MethodOptions
from mal_graph.option import MERGES, DataOption, Option, Options, option_of, set_signature
from mal_graph.option_names import RENAMED
from mal_graph.search_options import FILES, WHOLE, SearchOptions, ZooOptions

MatchBy = Literal["weights", "activations", "both"]
WidthMode = Literal["base", "grow"]
DepthMode = Literal["match", "expand"]
OutputKind = Literal["logits", "probabilities", "values"]

ALIGNMENT, SIZES, CHECKS = "Alignment", "Widths and depths", "Checks and measurements"
RUNS = (*MERGES, "grid", "inspect", "compress", "search")
ALIGNS, BLENDS = ("mal",), ("mal", "average")
PLUS = ("mal", MERGE_METHOD)
WRITES = ("assemble", "zoo", "compress", "search", "stack")
SCORES = (*MERGES, "grid", "evaluate", "compress", "search")

F = TypeVar("F", bound=Callable[..., Any])

Factor = Annotated[float, Field(ge=0.0, le=1.0)]
GIVEN = "a merge method counts what each model has learned, and what a base is given so that it grows is not that"
FACTOR = "give a merging factor from 0 (the base) to 1 (the donor)"


class AlignOptions(Options):
    """What is aligned."""

    match_by: Annotated[
        MatchBy, Option("What says which units are alike.", ALIGNMENT, methods=PLUS, jobs=(*MERGES, "align"))
    ] = "weights"
    rescale_invariant: Annotated[
        bool,
        Option(
            "Compare units at unit size, where ReLU and the like leave their scale open.",
            ALIGNMENT,
            methods=ALIGNS,
            jobs=(*MERGES, "align"),
        ),
    ] = False
    assume_ordered: Annotated[
        bool,
        Option(
            "Merge frozen axes, and units inside others, in stored order (models with a common ancestor).",
            ALIGNMENT,
            methods=PLUS,
            jobs=(*MERGES, "grid", "align", "search"),
        ),
    ] = False
    pair: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(texts.named_pairs_of),
        Option(
            "Which input or output of the donor is which of the base's, where their names do not say it.",
            ALIGNMENT,
            metavar="BASE=DONOR",
            jobs=(*MERGES, "grid", "align", "match", "search"),
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
            methods=ALIGNS,
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
            jobs=(*MERGES, "align", "compress", "audit"),
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
            methods=BLENDS,
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
            methods=ALIGNS,
            jobs=("assemble",),
            is_repeated=True,
        ),
    ] = ()
    layers: Annotated[
        str | None,
        Option(
            "Merge these only: a name pattern, 0:5 or 0%:50%.",
            metavar="SELECTOR",
            methods=PLUS,
            jobs=("assemble", "sweep"),
        ),
    ] = None
    unmatched: Annotated[
        str,
        BeforeValidator(unmatched_of),
        Option(
            "What units without a partner become: they keep their weights, fade with lambda, or count as zero.",
            SIZES,
            metavar="keep|fade|zero",
            known=unmatched_rules,
            methods=ALIGNS,
            jobs=(*MERGES, "grid"),
        ),
    ] = "fade"
    width: Annotated[
        WidthMode,
        Option(
            "Where a donor is wider: base keeps the width, grow widens.",
            SIZES,
            methods=ALIGNS,
            elsewhere=f"{GIVEN}; make the widest model the base",
        ),
    ] = "base"
    depth: Annotated[
        DepthMode,
        Option(
            "Where a donor has more layers: match leaves them, expand adds some to the base.",
            SIZES,
            methods=ALIGNS,
            elsewhere=f"{GIVEN}; make the deepest model the base",
        ),
    ] = "match"
    repair: Annotated[
        bool,
        Option(
            "Whether to repair what was merged, on calibration inputs where there are any.",
            ALIGNMENT,
            methods=(*BLENDS, MERGE_METHOD),
        ),
    ] = True


class CheckOptions(Options):
    """What is checked and measured."""

    verify: Annotated[
        bool,
        Option("Verify the axis groups by running the model, or leave them unverified.", CHECKS, jobs=(*RUNS, "match")),
    ] = True
    compare: Annotated[
        bool,
        Option(
            "Compare a merge with what it promises by running it, or leave it uncompared.",
            CHECKS,
            methods=("auto", *BLENDS, MERGE_METHOD),
            jobs=(*MERGES, "search"),
        ),
    ] = True
    verify_timeout: Annotated[
        float | None,
        Field(ge=0.0),
        Option(
            "What takes longer stays unverified.",
            CHECKS,
            metavar="SECONDS",
            advice="give a time of 0 seconds or more",
            jobs=(*RUNS, "match"),
        ),
    ] = 600.0
    max_memory: Annotated[
        int | None,
        Field(ge=0),
        BeforeValidator(texts.bytes_of),
        Option(
            "What a verification, an alignment or a file may take, as in 8GiB; else what is free.",
            CHECKS,
            metavar="SIZE",
            jobs=(*RUNS, "match"),
        ),
    ] = None
    seed: Annotated[
        int,
        Field(ge=0, le=texts.MOST),
        Option("Seed of every random draw.", CHECKS, metavar="NUMBER", advice=WHOLE, jobs=(*RUNS, "match")),
    ] = 0
    inputs: Annotated[
        DataOption,
        Option(
            "Arrays for the probe runs.", CHECKS, metavar="FILE.npz", reads_file=True, jobs=(*RUNS, "match", "audit")
        ),
    ] = None
    input_shapes: Annotated[
        dict[str, tuple[Annotated[int, Field(ge=1, le=texts.MOST)], ...]] | None,
        BeforeValidator(texts.shapes_of),
        Option(
            "Shape of a probe input.",
            CHECKS,
            flag="input-shape",
            metavar="NAME:1,3,64,64",
            jobs=(*RUNS, "match", "audit"),
            is_repeated=True,
        ),
    ] = None
    measure_speed: Annotated[
        bool,
        Option(
            "Time base, donors, ensemble and result in onnxruntime: two reports of one run differ in these figures.",
            CHECKS,
            jobs=("assemble", "compress"),
        ),
    ] = False
    score_output: Annotated[
        str | None,
        Option("The output that fits the labels.", CHECKS, metavar="NAME", jobs=SCORES),
    ] = None
    output_kind: Annotated[OutputKind | None, Option("What that output holds.", CHECKS, jobs=SCORES)] = None


class FileOptions(Options):
    """How the result is written."""

    shard_size: Annotated[
        int | None,
        Field(ge=1),
        BeforeValidator(texts.bytes_of),
        Option(
            "Put the weights into data files of at most this size, as in 2GiB.",
            FILES,
            metavar="SIZE",
            advice="give a size of 1 byte or more, as in 2GiB",
            jobs=WRITES,
        ),
    ] = None
    resume: Annotated[
        bool,
        Option(
            "Go on where the same command was stopped: with the study of a search, and what of the file is written.",
            FILES,
            jobs=WRITES,
        ),
    ] = False


class MergeConfig(CheckOptions, AlignOptions, BlendOptions, MethodOptions, FileOptions):
    """Every option of a merge, as `assemble` takes them."""

    @model_validator(mode="before")
    @classmethod
    def find_method(cls, given: Any) -> Any:
        """The options with the method that they name by themselves, where none is given: those of `mal` mean it."""
        fields = cls.model_fields
        names = {name for name in given if name in fields} if isinstance(given, Mapping) else set()
        methods = [option_of(fields[name]).methods for name in names]
        means_mal = any("mal" in own and "auto" not in own for own in methods)
        return {**given, "method": "mal"} if means_mal and "method" not in names else given

    @model_validator(mode="after")
    def check_method(self) -> "MergeConfig":
        """Raise UsageError where an option of another method is given."""
        for name in sorted(self.model_fields_set):
            own = option_of(type(self).model_fields[name])
            if own.methods and way_of(self.method) not in own.methods:
                why = own.elsewhere if way_of(self.method) == MERGE_METHOD else ""
                raise UsageError(
                    f"`{name}` is an option of `method` {' and '.join(own.methods)}, not of {self.method}: "
                    f"{why or 'leave it out'}, or give another `method`"
                )
        return self


class CompressConfig(MergeConfig):
    """The options of one model that is thinned."""

    method: Annotated[Literal["union"], Option("There is one way.", jobs=())] = "union"


class AlignedConfig(MergeConfig):
    """The options of a job that merges aligned weights."""

    method: Annotated[Literal["mal"], Option("There is one way.", jobs=())] = "mal"


class SweepConfig(AlignedConfig):
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


class ZooConfig(AlignedConfig, ZooOptions):
    """The options of a search through a zoo."""


class SearchConfig(MergeConfig, SearchOptions):
    """The options of a search for what to merge of many donors."""

    method: Annotated[
        str,
        BeforeValidator(method_of),
        Option(
            "The merge method that makes each tensor of those of all models; one that needs an ancestor takes the "
            "base for it.",
            metavar="METHOD",
            jobs=("search",),
            known=known_methods,
        ),
    ] = "linear"


CONFIGS: dict[str, type[Options]] = {
    "align": AlignOptions,
    "assemble": MergeConfig,
    "sweep": SweepConfig,
    "grid": AlignedConfig,
    "zoo": ZooConfig,
    "search": SearchConfig,
    "inspect": AlignedConfig,
    "match": AlignedConfig,
    "evaluate": AlignedConfig,
    "compress": CompressConfig,
    "audit": AlignedConfig,
    "stack": AlignedConfig,
}


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
    if "method" not in options_of(job):
        kept.pop("method", None)  # there is one way then
    for name in (*kept, *given):
        if name not in options_of(job):
            raise UsageError(f"{job} has no option `{name}`: {instead_of(name, job)}")
    return own(**{**kept, **given})


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
