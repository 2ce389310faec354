"""The options of searches: of `zoo`, which goes through donors one by one, and of `search`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mal_graph import option_texts as texts
from mal_graph.method_names import search_of, searches
from mal_graph.option import DataOption, Option, Options

Sampler = Literal["tpe", "cmaes", "nsga2", "gp", "random"]

WHOLE = "give 0 or more, in 18 digits at most"
AT_LEAST_ONE = "give 1 or more, in 18 digits at most"
SEARCH, RUNNING, FILES = "Search", "Running", "The file"  # where `--help` shows them


class HeldOutOptions(Options):
    """What is decided by, and what is reported."""

    eps: Annotated[
        float,
        Field(ge=0.0),
        Option(
            "How far accuracy, R2 or agreement may fall below the base's.",
            metavar="NUMBER",
            advice="give by how much the base's metric may be missed, 0 or more",
            jobs=("zoo", "search"),
        ),
    ] = 0.0
    report_data: Annotated[
        DataOption,
        Option(
            "Report on these; all of the data decide then.",
            metavar="FILE.npz",
            reads_file=True,
            jobs=("zoo", "search"),
        ),
    ] = None


class ZooOptions(HeldOutOptions):
    """How donors are tried one by one."""

    lambdas: Annotated[
        tuple[float, ...],
        BeforeValidator(texts.lambdas_of),
        Option("Merging factors to try: a list, or from:to:step.", metavar="LIST", jobs=("zoo",)),
    ] = (0.05, 0.1, 0.2, 0.3, 0.5)
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
        Field(ge=0, le=texts.MOST),
        Option(
            "How many shuffled copies of a donor it has to be better than.",
            metavar="NUMBER",
            advice=WHOLE,
            jobs=("zoo",),
        ),
    ] = 3
    checkpoint: Annotated[
        str | None,
        BeforeValidator(texts.path_text),
        Option("The file that keeps every decision; default OUT.zoo.json.", metavar="FILE.json", jobs=("zoo",)),
    ] = None


class SearchOptions(HeldOutOptions):
    """What is searched, by what, and where the work is done."""

    search: Annotated[
        str,
        BeforeValidator(search_of),
        Option("The search that proposes candidates.", SEARCH, metavar="NAME", jobs=("search",), known=searches),
    ] = "greedy"
    sampler: Annotated[
        Sampler,
        Option("What proposes weights to a search that leaves this open.", SEARCH, jobs=("search",)),
    ] = "tpe"
    trials: Annotated[
        int,
        Field(ge=1, le=texts.MOST),
        Option("How many candidates are scored.", SEARCH, metavar="NUMBER", advice=AT_LEAST_ONE, jobs=("search",)),
    ] = 200
    batch: Annotated[
        int,
        Field(ge=1, le=texts.MOST),
        Option(
            "How many candidates are proposed before any of them is known; whatever the number of workers.",
            SEARCH,
            metavar="NUMBER",
            advice=AT_LEAST_ONE,
            jobs=("search",),
        ),
    ] = 10
    stages: Annotated[
        int,
        Field(ge=0, le=texts.MOST),
        Option(
            "How many weights a donor has from the first layer to the last, with straight lines between; 0 for one at "
            "each depth.",
            SEARCH,
            metavar="NUMBER",
            advice=WHOLE,
            jobs=("search",),
        ),
    ] = 3
    most_weight: Annotated[
        float,
        Field(gt=0.0),
        Option(
            "The largest weight of a donor, where the base's is 1.",
            SEARCH,
            metavar="NUMBER",
            advice="give a number above 0",
            jobs=("search",),
        ),
    ] = 1.0
    prune: Annotated[
        float,
        Field(ge=0.5, le=1.0),
        Option(
            "How sure it has to be that a candidate is worse than the best so far, to be spared the rest of the "
            "samples; 1 scores all by all.",
            SEARCH,
            metavar="NUMBER",
            advice="give a number from 0.5 to 1",
            jobs=("search",),
        ),
    ] = 0.99
    finalists: Annotated[
        int,
        Field(ge=1, le=texts.MOST),
        Option(
            "How many of the best are scored on samples that the search has not seen.",
            SEARCH,
            metavar="NUMBER",
            advice=AT_LEAST_ONE,
            jobs=("search",),
        ),
    ] = 3
    confidence: Annotated[
        float,
        Field(ge=0.5, lt=1.0),
        Option(
            "How sure it has to be that a finalist's loss is below the base's on these; 0.5 is as likely as not.",
            SEARCH,
            metavar="NUMBER",
            advice="give a number from 0.5, less than 1",
            jobs=("search",),
        ),
    ] = 0.95
    second_data: Annotated[
        DataOption,
        Option(
            "Inputs and labels of a second task; the losses of both are searched.",
            SEARCH,
            metavar="FILE.npz",
            reads_file=True,
            jobs=("search",),
        ),
    ] = None
    workers: Annotated[
        int,
        Field(ge=1, le=10_000),
        Option(
            "How many processes score candidates; 1 scores them in this one, unless tasks have a timeout.",
            RUNNING,
            metavar="NUMBER",
            advice="give 1 or more, up to 10000",
            jobs=("search",),
        ),
    ] = 1
    scheduler: Annotated[
        str | None,
        Option("A Dask scheduler whose workers score candidates.", RUNNING, metavar="tcp://...", jobs=("search",)),
    ] = None
    task_timeout: Annotated[
        float | None,
        Field(gt=0.0),
        Option(
            "What preparing a donor or scoring a candidate may take of a worker.",
            RUNNING,
            metavar="SECONDS",
            advice="give a time of more than 0 seconds",
            jobs=("search",),
        ),
    ] = None
    study: Annotated[
        str | None,
        BeforeValidator(texts.path_text),
        Option(
            "A folder that keeps what is found, the data and aligned donors; default OUT.search.",
            RUNNING,
            metavar="FOLDER",
            jobs=("search",),
        ),
    ] = None
    storage: Annotated[
        str | None,
        BeforeValidator(texts.path_text),
        Option(
            "The study's journal, or the URL of an SQL database; default study.journal in the folder.",
            RUNNING,
            metavar="FILE|URL",
            jobs=("search",),
        ),
    ] = None
