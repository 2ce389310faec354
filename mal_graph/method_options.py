"""The options that say by which way a result is reached: a part of the configuration (see `config`)."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from mal_graph import option_texts as texts
from mal_graph.method_names import MERGE_METHOD, WAYS, known_methods, method_of
from mal_graph.option import DataOfEach, Option, Options
from mal_graph.parameter_settings import Setting, setting_texts, settings_of

Keep = Literal["base", "none"]
Labels = Literal["base", "union"]


class MethodOptions(Options):
    """By which way the result is reached."""

    method: Annotated[
        str,
        BeforeValidator(method_of),
        Option(
            "mal aligns and blends weights, average blends them in stored order, union thins the models and averages "
            "their outputs; auto takes what comes nearest to the ensemble; a merge method, such as ties, makes each "
            "tensor of those of all models (`mal-graph methods` lists them).",
            metavar="|".join((*WAYS, "METHOD")),
            jobs=("assemble",),
            known=known_methods,
        ),
    ] = "auto"
    any_order: Annotated[
        bool,
        Option(
            "Take the donors as a set: the same ones give the same bytes, in whatever order they are given.",
            jobs=("assemble",),
        ),
    ] = False
    parameters: Annotated[
        tuple[Setting, ...],
        BeforeValidator(settings_of),
        PlainSerializer(setting_texts),
        Option(
            "A parameter of the merge method; 1:NAME for the first donor alone, NAME@PART for some tensors.",
            flag="set",
            metavar="NAME=VALUE",
            methods=(MERGE_METHOD,),
            jobs=("assemble", "search"),
            is_repeated=True,
        ),
    ] = ()
    calibrate_of: Annotated[
        DataOfEach,
        Option(
            "Unlabelled inputs of each model's own, for a merge method that runs models; once for each model, "
            "the base first.",
            metavar="FILE.npz",
            advice="give the inputs of each model",
            jobs=("assemble", "audit"),
            is_repeated=True,
            reads_file=True,
        ),
    ] = None
    budget: Annotated[
        float,
        Field(allow_inf_nan=True),
        BeforeValidator(texts.budget_of),
        PlainSerializer(texts.budget_text),
        Option(
            "Multiplications of the result, as a multiple of the base's; full keeps every unit.",
            metavar="NUMBER|full",
            methods=("auto", "union"),
            jobs=("assemble", "compress"),
        ),
    ] = 1.0
    keep: Annotated[
        Keep | None,
        Option(
            "What of a union stays whole: the base, or none; else the form that comes nearer to the ensemble.",
            methods=("union",),
            jobs=("assemble",),
        ),
    ] = None
    labels: Annotated[
        Labels,
        Option(
            "Classes of the result where models have others: the base's, and others are refused, or the union of all.",
            methods=("auto", "union"),
            jobs=("assemble",),
        ),
    ] = "base"
    labels_of: Annotated[
        tuple[tuple[str, ...] | None, ...],
        BeforeValidator(texts.label_lists_of),
        Option(
            "Names of a model's classes, one a line or JSON; once for each model, the base first, - if it says them.",
            metavar="FILE",
            advice="give a list with the names of the classes of each model",
            methods=("auto", "union"),
            jobs=("assemble",),
            is_repeated=True,
            reads_file=True,
        ),
    ] = ()
    fold: Annotated[
        float | None,
        Field(ge=-1.0, le=1.01),
        Option(
            "Side by side, merge units whose weights have at least this cosine: -1 folds all, 1.01 none.",
            metavar="COSINE",
            advice="give a cosine from -1 (all units are merged) to 1.01 (none is)",
            methods=("union",),
            jobs=("assemble",),
        ),
    ] = None
