"""The whole job: a base, donors and data in; the best merge that was found out, held against samples it was not chosen
by, and made once more by `assemble`.

Chosen: the result does not rest on the cache of aligned donors. `assemble` merges the winner's donors from their files,
with every check, and the tensors must be, bit for bit, those that were scored.
"""

import os
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import MergeConfig, SearchConfig, configured, options_of, shows_options
from mal_graph.errors import DataError, FileError, MatchError, UsageError
from mal_graph.graph import LayerGraph
from mal_graph.limits import limits_in_force
from mal_graph.method_names import WAYS
from mal_graph.methods import Need, find_method
from mal_graph.network import find_layers
from mal_graph.option import Data, option_of
from mal_graph.protocols import Check
from mal_graph.remote_files import is_remote
from mal_graph.search_options import FILES, RUNNING
from mal_graph.searching.bench import Bench, Setup
from mal_graph.searching.candidates import WEIGHT, Candidate, Trial
from mal_graph.searching.execution import Engine, Workers, engine_of, engine_of_executor
from mal_graph.searching.gate import highest_rise
from mal_graph.searching.method import Space, find_search, run_search
from mal_graph.searching.parts import GATE, PARTS, REPORT, SEARCH, Parts, split_in_parts
from mal_graph.searching.racing import Race
from mal_graph.searching.record import Record, Storage, load_optuna, open_record, open_storage
from mal_graph.searching.results import Finalist, Search, without_merge
from mal_graph.searching.search_memory import refuse_short_memory
from mal_graph.searching.study_folder import JOURNAL, emptied_if_refused, folder_of
from mal_graph.searching.tasks import Aligned, AlignTask, Failure, ScoreTask, align_donor, score_candidate
from mal_graph.workflows import (
    Assembly,
    Progress,
    arrays_of,
    digest,
    files_in,
    fingerprint,
    load,
    make_model,
    prepared,
    silent,
    versions_used,
    with_arrays,
)

ALIGNED_AT_ONCE = 50  # donors: what is lost with a worker is aligned alone
SHOWN = 3  # donors of the best candidate that are named on the way
AS_SEARCHED = "as_searched"
EMPTY = Candidate((), ())  # the base


@dataclass(frozen=True, repr=False)
class Job(Brief):
    """What is searched with.

    Attributes:
        base, paths: the opened base, and the paths of the base and of every donor by its name.
        config: every option, arrays read.
        parts: each set of data in its parts.
        progress: is told what is done.
    """

    base: LayerGraph
    base_path: Path
    paths: Mapping[str, Path]
    config: SearchConfig
    parts: tuple[Parts, ...]
    progress: Progress


@shows_options("search")
def search(
    base: str | os.PathLike[str],
    donors: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    data: Data,
    *,
    config: MergeConfig | None = None,
    progress: Progress | None = None,
    executor: Callable[[], Executor] | None = None,
    **options: Any,
) -> Search:
    """Search for what to merge of many donors, and how much of each, by what it does on held-out data.

    Args:
        base: the path of the model that gives the graph.
        donors: a folder, of which all .onnx files are taken in the order of their names; or paths in any order.
        data: inputs and `labels` that no model was trained on, by name or as an .npz path. Half is searched by, a
            quarter decides about the best, and a quarter is reported; `report_data` are reported instead.
        config, options: every option as one value, or as keywords; see below. Workers are processes that import the
            calling script: it has to guard what it does by `if __name__ == "__main__":`.
        progress: called with what is done, how much of it, of how much.
        executor: makes what does the work, instead of `workers` and `scheduler`: a pool of MPI processes, or anything
            else of the protocol of `concurrent.futures`. It is called again where one breaks.

    Raises:
        FileError: a file is missing or broken, or the storage is of another search, was altered or cannot be used.
        MatchError: none of the donors can be merged into the base.
        DataError: the data do not fit the base, or are too few.
        MemoryLimitError: donors as large as the base would take more memory than there is for all workers.
        UsageError: an option is refused, a scheduler does not answer, or a worker has other versions.
    """
    settings: SearchConfig = with_arrays(configured("search", config, options))
    refuse_unweighted(settings.method)
    load_optuna()
    engine = engine_asked(settings, executor)
    job = opened_job(base, donors, arrays_of(data), settings, progress or silent)
    refuse_short_memory(job.base, settings, merge_config(settings, EMPTY))
    with folder_of(settings) as folder:
        storage = open_storage(settings.storage or str(folder / JOURNAL), resume=settings.resume)
        workers = Workers(engine)
        try:
            return searched(job, folder, storage, workers)
        finally:
            workers.close()


def searched(job: Job, folder: Path, storage: Storage, workers: Workers) -> Search:
    """The result of a job."""
    config = job.config
    method = find_search(config.search)
    by_sample = {GATE, SEARCH} if method.needs_samples else {GATE}
    with emptied_if_refused(folder):
        setup = setup_of(job, folder)
        aligned, refused = align_all(job, setup, workers)
        slots = {slot.name: slot for one in aligned.values() for slot in one.slots}
        team = Team(replace(setup, slots=tuple(slots.values())), aligned, workers, job.progress, by_sample)
        base = {part: team.scored([EMPTY], part)[0] for part in (SEARCH, GATE)}
        refuse_unscored(base[SEARCH], job.base.name)
        space = space_of(job, aligned, base[SEARCH])
    record = open_record(storage, inputs_of(job, aligned), len(job.parts), config.most_weight, resume=config.resume)
    race = Race(space, is_on=method.races and config.prune < 1)
    trials = run_search(method, space, lambda some: race.told(team.recorded(some, record, space, race.rival)))
    finalists = held_at_gate(job, team, trials, base)
    assembly, finalists = made(job, team, finalists, trials)
    winner = next((one for one in finalists if not one.reason), None)
    chosen = [] if winner is None else [trials[winner.place].candidate]
    base[REPORT], *reported = team.scored([EMPTY, *chosen], REPORT)
    return Search(
        assembly=assembly,
        method=method,
        config=config,
        trials=tuple(trials),
        finalists=tuple(finalists),
        base=base,
        reported=reported[0] if reported else None,
        samples=tuple(parts.samples for parts in job.parts),
        donors=tuple(aligned),
        refused=refused,
        space=space,
    )


def setup_of(job: Job, folder: Path) -> Setup:
    """What every worker is told; the data are written for it."""
    written = [parts.written(folder / "data") for parts in job.parts]
    return Setup(
        base=str(job.base_path.absolute()),
        config=job.config.replaced(report_data=None, second_data=None),
        limits=limits_in_force(),
        folder=str((folder / "donors").absolute()),
        versions=versions_used(),
        process=os.getpid(),
        data={part: tuple(str(Path(one[part]).absolute()) for one in written) for part in PARTS},
    )


# --- what is given ------------------------------------------------------------------------------------------------


def opened_job(base: Any, donors: Any, data: Mapping[str, Any] | None, config: SearchConfig, progress: Progress) -> Job:
    """Everything that a search needs, checked before the work. Raises FileError, DataError or UsageError."""
    path = path_of(base)
    paths = paths_of(donors)
    graph, runner = load(str(path)), registry.runner()
    given = [data or {}, *([] if config.second_data is None else [config.second_data])]
    reported, _ = prepared(graph, config.report_data, config)
    parts = []
    for place, one in enumerate(given):
        arrays, _ = prepared(graph, one, config)
        parts.append(split_in_parts(graph, arrays or {}, None if place else reported, config, runner))
    return Job(graph, path, paths, config, tuple(parts), progress)


def engine_asked(config: SearchConfig, executor: Callable[[], Executor] | None) -> Engine:
    """What does the work. Raises UsageError."""
    if executor is None:
        return engine_of(config.workers, config.scheduler, config.task_timeout)
    return engine_of_executor(executor)


def path_of(model: Any) -> Path:
    """The path of a model. Raises UsageError for a model in memory: workers read files."""
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"a search takes the paths of models, and a {type(model).__name__} is given: save it first")
    return registry.adapter_for(model).local_copy(model) if is_remote(model) else Path(model)


def paths_of(donors: Any) -> dict[str, Path]:
    """The path of every donor by its name: that of its file, or the whole path where several files are called so.
    Raises FileError or UsageError."""
    paths = [path_of(one) for one in (files_in(donors) if isinstance(donors, str | os.PathLike) else donors)]
    names = [path.name for path in paths]
    named = {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}
    if not named:
        raise UsageError("no donor given: name a folder of models, or at least one path")
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise FileError(f"there is no file {missing[0]}: name a folder of models, or files")
    return named


def refuse_unweighted(name: str) -> None:
    """Raise UsageError for a way or method that does not weigh each model, or needs all of them at once."""
    advice = "give a merge method such as linear or task_arithmetic"
    weight = None if name in WAYS else find_method(name).parameters.get(WEIGHT)
    if weight is None or not weight.is_each:
        raise UsageError(f"`method` is {name}, and a search looks for the weights of models, which it lacks: {advice}")
    if how := find_method(name).takes_all_at_once:
        raise UsageError(f"`method` is {name}, which {how}, and a search takes donors one by one: {advice}")


def refuse_unscored(base: Trial, name: str) -> None:
    """Raise DataError where the base has no loss: no merge can be held against it."""
    if base.failure or not base.loss < float("inf"):
        why = base.failure or "its loss is no finite number"
        raise DataError(f"{name} cannot be scored on the data: {why}")


def inputs_of(job: Job, aligned: Mapping[str, Aligned]) -> dict[str, str]:
    """Digests of everything that decides the course of a search, by what it is."""
    config = job.config
    fields = options_of("search")
    deciding = [name for name, field in fields.items() if option_of(field).panel not in (FILES, RUNNING)]
    plain = config.model_dump(include=set(deciding) - set(config.data_options()))
    donors = {name: Path(aligned[name].path).stem if name in aligned else "" for name in job.paths}
    return {
        "base": fingerprint(job.base),
        **{f"data set {place}": digest_of_parts(parts) for place, parts in enumerate(job.parts, 1)},
        "set of options": digest(repr((versions_used(), sorted(plain.items()))), (config.inputs or {}).items()),
        **{f"donor {place} ({name})": own for place, (name, own) in enumerate(donors.items(), 1)},
    }


def digest_of_parts(parts: Parts) -> str:
    return digest(repr([(part, digest("", own.items())) for part, own in parts.arrays.items()]))


def space_of(job: Job, aligned: Mapping[str, Aligned], base: Trial) -> Space:
    """What is searched."""
    config = job.config
    return Space(
        donors=tuple(aligned),
        stages=config.stages or depths_of(job.base),
        most=config.most_weight,
        base=base,
        eps=config.eps,
        trials=config.trials,
        batch=config.batch,
        sampler=config.sampler,
        seed=config.seed,
        layers=layers_of(job.base),
        samples=min(parts.samples[SEARCH] for parts in job.parts),
    )


# --- the work -----------------------------------------------------------------------------------------------------


def align_all(job: Job, setup: Setup, workers: Workers) -> tuple[dict[str, Aligned], dict[str, str]]:
    """Every donor that can be merged, and why others cannot, by name. Raises MatchError where none can."""
    names, packed = list(job.paths), pickle.dumps(setup)
    made: dict[int, Aligned | Failure] = {}
    for start in range(0, len(names), ALIGNED_AT_ONCE):
        tasks = [AlignTask(packed, str(job.paths[name].absolute())) for name in names[start : start + ALIGNED_AT_ONCE]]
        for place, one in workers.results(align_donor, tasks):
            made[start + place] = one
            job.progress("aligning donors", len(made), len(names))
    aligned: dict[str, Aligned] = {}
    refused: dict[str, str] = {}
    first: dict[str, str] = {}
    for place, name in enumerate(names):
        one = made[place]
        if isinstance(one, Failure):
            refused[name] = one.reason
        elif one.path in first:
            refused[name] = f"it is the same model as {first[one.path]}"
        else:
            first[one.path] = name
            aligned[name] = one
    if not aligned:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:3])
        raise MatchError(f"none of {len(names)} donors can be merged into {job.base.name}: {reasons}")
    return aligned, refused


class Team:
    """Workers that score candidates, by some parts of the data sample by sample."""

    def __init__(
        self,
        setup: Setup,
        aligned: Mapping[str, Aligned],
        workers: Workers,
        progress: Progress,
        by_sample: Collection[str],
    ) -> None:
        self.setup, self.aligned, self.workers, self.progress = setup, aligned, workers, progress
        self.by_sample = by_sample
        self.packed = pickle.dumps(setup)
        self.done = 0
        self.best: Trial | None = None

    def paths(self, candidate: Candidate) -> tuple[str, ...]:
        return tuple(self.aligned[donor].path for donor in candidate.donors)

    def found(
        self, candidates: Sequence[Candidate], part: str, rival: Candidate | None = None
    ) -> Iterator[tuple[int, Trial]]:
        """What is found of candidates on one part of the data, each with its place, as it comes; not to the end of one
        that is surely worse than a rival."""
        with_samples = part in self.by_sample
        best = None if rival is None else (rival, self.paths(rival))
        tasks = [ScoreTask(self.packed, one, self.paths(one), part, with_samples, best) for one in candidates]
        for place, one in self.workers.results(score_candidate, tasks):
            candidate = candidates[place]
            if isinstance(one, Failure):
                yield place, Trial(candidate, failure=one.reason)
            else:
                yield place, Trial(candidate, one)

    def scored(self, candidates: Sequence[Candidate], part: str) -> list[Trial]:
        """What is found of candidates on one part of the data, in their order."""
        by_place = dict(self.found(candidates, part))
        return [by_place[place] for place in range(len(candidates))]

    def recorded(
        self, candidates: Sequence[Candidate], record: Record, space: Space, rival: Candidate | None = None
    ) -> list[Trial]:
        """What is found of candidates on the searching part, in their order; what is recorded is not scored again."""
        new = {one.key: one for one in candidates if one.key not in record.found}
        for one in candidates:
            if one.key in record.found:
                self.tell(record.found[one.key], space)
        for _, trial in self.found(list(new.values()), SEARCH, rival):
            record.add(trial)
            self.tell(trial, space)
        return [record.found[one.key] for one in candidates]

    def tell(self, trial: Trial, space: Space) -> None:
        """Say how many candidates are scored, and how far the best of them lowers the loss."""
        self.done += 1
        if trial.is_whole and (self.best is None or trial.loss < self.best.loss):
            self.best = trial
        self.progress(f"scoring candidates{standing(self.best, space.base)}", self.done, space.trials)


def standing(best: Trial | None, base: Trial) -> str:
    """What the best candidate so far gains, and which donors it is made of; "" where none gains."""
    if best is None or not best.loss < base.loss:
        return ""
    names = [*best.candidate.donors[:SHOWN], *(["..."] if len(best.candidate.donors) > SHOWN else [])]
    return f": loss falls by {base.loss - best.loss:.4f} with {', '.join(names)}"


# --- the result ---------------------------------------------------------------------------------------------------


def held_at_gate(job: Job, team: Team, trials: Sequence[Trial], base: Mapping[str, Trial]) -> list[Finalist]:
    """The best candidates on samples that the search has not seen, the best of them first."""
    eps, most = job.config.eps, job.config.finalists
    first: dict[str, int] = {}
    for place, trial in enumerate(trials):
        if trial.passes(base[SEARCH], eps) and trial.loss < base[SEARCH].loss:
            first.setdefault(trial.candidate.key, place)
    places = sorted(first.values(), key=lambda place: trials[place].loss)[:most]
    gate = team.scored([trials[place].candidate for place in places], GATE)
    reasons = [why_not(trial, base[GATE], job.config, len(gate)) for trial in gate]
    finalists = [Finalist(*one) for one in zip(places, gate, reasons, strict=True)]
    return sorted(finalists, key=lambda one: (bool(one.reason), one.gate.loss))


def why_not(trial: Trial, base: Trial, config: SearchConfig, finalists: int) -> str:
    """Why a finalist does not pass the gate; "" where it does."""
    if trial.failure:
        return trial.failure
    if not trial.passes(base, config.eps):
        return "its metric falls below the base's on samples that the search has not seen"
    rise = highest_rise(trial, base, config.confidence, finalists)
    if not rise < 0:
        return (
            f"on samples that the search has not seen its loss changes by {trial.loss - base.loss:+.4f}, and may rise "
            f"by {rise:.4f}, at {config.confidence:g}"
        )
    return ""


def made(
    job: Job, team: Team, finalists: Sequence[Finalist], trials: Sequence[Trial]
) -> tuple[Assembly, list[Finalist]]:
    """The result of the best finalist that passes every check, as `assemble` makes it; and why others are not it."""
    judged: list[Finalist] = []
    assembly: Assembly | None = None
    for one in finalists:
        if one.reason or assembly is not None:
            judged.append(replace(one, reason=one.reason or "another has a lower loss there"))
            continue
        candidate = trials[one.place].candidate
        result = assembled(job, candidate)
        result = replace(result, checks=(*result.checks, same_tensors(team, candidate, result)))
        failed = "; ".join(f"check {check.name} {check}" for check in result.failures)
        judged.append(replace(one, reason=failed))
        assembly = assembly if failed else result
    return assembly or without_merge(job.base, merge_config(job.config, EMPTY)), judged


def merge_config(config: SearchConfig, candidate: Candidate) -> MergeConfig:
    """The options by which `assemble` makes a candidate."""
    own = options_of("assemble")
    given = {name: getattr(config, name) for name in config.changed() if name in own}
    parameters = (*config.parameters, *candidate.settings)
    options = {**given, "method": config.method, "parameters": parameters}
    made_of: MergeConfig = configured("assemble", None, options)
    return made_of


@np.errstate(all="ignore")
def assembled(job: Job, candidate: Candidate) -> Assembly:
    """A candidate as `assemble` makes it, scored on the reporting part."""
    graphs = [job.base, *(load(str(job.paths[donor])) for donor in candidate.donors)]
    ancestor = job.base if find_method(job.config.method).needs is Need.ANCESTOR else None
    config, report = merge_config(job.config, candidate), job.parts[0].arrays[REPORT]
    result = make_model(graphs, config, report, job.progress, registry.runner(), ancestor)
    assert isinstance(result, Assembly)  # merge methods make one
    assert result.origin is not None  # `make_model` says it
    # The data made no tensor, and are a part of what was given.
    return replace(result, origin=replace(result.origin, data=None))


def same_tensors(team: Team, candidate: Candidate, result: Assembly) -> Check:
    """That the result has, bit for bit, the tensors that were scored."""
    bench = Bench(team.setup)
    scored = {**bench.stored, **bench.weights(candidate, team.paths(candidate))}
    weights = result.graph.weights
    other = [
        name
        for name, values in scored.items()
        if name in weights and not np.array_equal(values, weights[name].read(), equal_nan=True)
    ]
    told = f"{other[0]!r} and {len(other) - 1} more tensors are not those that were scored" if other else ""
    return Check(AS_SEARCHED, not other, told)


def layers_of(graph: LayerGraph) -> tuple[tuple[float, int], ...]:
    """The depth of each layer, from 0 to 1, and how many numbers were learned there."""
    layers = [layer for layer in find_layers(graph) if layer.parameters]
    deepest = max((layer.depth for layer in layers), default=0) or 1
    return tuple((layer.depth / deepest, sum(prod(one.shape) for one in layer.parameters)) for layer in layers)


def depths_of(graph: LayerGraph) -> int:
    """How many depths the layers of a network have, from the first to the last."""
    return 1 + max((layer.depth for layer in find_layers(graph)), default=0)
