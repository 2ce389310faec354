"""The record of a search: an Optuna study that holds every candidate with what was found of it.

A search is a program whose course follows from its inputs and from what is found of candidates. So it is resumed by
being run again: candidates that are recorded are not scored again, and the rest of the course is that of an undisturbed
run. Chosen: the study is this record, in a journal file or an SQL database, as Optuna and its dashboard read them; each
trial is written in one step, and bears a digest of itself. Refused: to go on from the state of a sampler - storages
hold none of its random numbers, and a run that is killed leaves trials that are half proposed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from mal_graph.errors import FileError, UsageError
from mal_graph.searching.candidates import Trial

if TYPE_CHECKING:
    import optuna

SCHEMA = "mal-graph/search/1"
JOURNAL_HEAD = b'{"op_code":'  # what every line of Optuna's journals begins with
INPUTS, FOUND, SEAL = "inputs", "found", "sha256"  # what studies and trials note
READER = TypeAdapter(Trial)


def load_optuna() -> Any:
    """Optuna, which tells nothing by itself. Raises UsageError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "a search needs Optuna, which is not installed: pip install 'mal-graph[search]', or use `mal-graph zoo`"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Record:
    """What is known of candidates, in memory and in a storage."""

    def __init__(self, study: "optuna.Study", where: str, found: Mapping[str, Trial], most: float) -> None:
        self.study, self.where, self.found, self.most = study, where, dict(found), most

    def add(self, trial: Trial) -> None:
        """Write what was found of a candidate. Raises FileError."""
        optuna = load_optuna()
        self.found[trial.candidate.key] = trial
        weights = {
            f"{donor} {stage}": weight
            for donor, row in trial.candidate.by_donor.items()
            for stage, weight in enumerate(row)
        }
        states = optuna.trial.TrialState
        frozen = optuna.trial.create_trial(
            state=states.COMPLETE if trial.is_whole else states.PRUNED if trial.figures else states.FAIL,
            values=[min(loss, MOST_LOSS) for loss in trial.losses] if trial.is_whole else None,
            params=weights,
            distributions={name: optuna.distributions.FloatDistribution(0.0, self.most) for name in weights},
            user_attrs={FOUND: asdict(trial), SEAL: seal_of(self.study.study_name, trial)},
        )
        with told_errors(self.where):
            self.study.add_trial(frozen)


MOST_LOSS = 1e300  # what the storage holds of a loss without end


@dataclass(frozen=True)
class Storage:
    """A storage of Optuna, and what messages call it."""

    opened: Any
    where: str


def open_storage(storage: str, *, resume: bool) -> Storage:
    """A journal by its path, or a database by its URL. Raises FileError where it cannot be used, or is missing and
    `resume` is given."""
    optuna, where = load_optuna(), told(storage)
    if "://" in storage:
        with told_errors(where):
            return Storage(optuna.storages.RDBStorage(storage), where)
    path = Path(storage)
    if resume and not path.is_file():
        raise FileError(f"cannot go on with the study in {where}: there is no such file; leave `resume` out")
    with told_errors(where):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_other_file(path)
        cut_off_torn_line(path)
        return Storage(optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage)), where)


def refuse_other_file(path: Path) -> None:
    """Raise FileError for a file that no journal begins as: it would be written to."""
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(len(JOURNAL_HEAD))
    if not JOURNAL_HEAD.startswith(head):
        raise FileError(f"cannot use {path} as the storage of a study: it is a file of another kind; name another one")


def cut_off_torn_line(path: Path) -> None:
    """Remove what a killed run left of a line of a journal: it was never taken for written."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def open_record(storage: Storage, inputs: Mapping[str, str], sets: int, most: float, *, resume: bool) -> Record:
    """The record of a search in a storage: a new one, or with `resume` the one that is there.

    Args:
        storage: what `open_storage` opened.
        inputs: a digest of everything that decides the course of the search, by what it is.
        sets: how many sets of data there are.
        most: the largest weight.

    Raises:
        FileError: the storage cannot be used, holds this search and `resume` is not given, holds another one and it
            is, or was altered.
    """
    optuna = load_optuna()
    name = f"mal-graph {hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()[:16]}"
    opened, where = storage.opened, storage.where
    with told_errors(where):
        held = {one.study_name: one.user_attrs for one in optuna.get_all_study_summaries(opened)}
    if name in held and not resume:
        raise FileError(f"{where} holds this search already: go on with `resume`, or name another `storage`")
    if name not in held and resume:
        raise FileError(f"cannot go on with the study in {where}: {difference(held, inputs)}")
    with told_errors(where):
        directions = ["minimize"] * sets
        study = optuna.create_study(study_name=name, storage=opened, directions=directions, load_if_exists=True)
        if name not in held:
            study.set_user_attr(INPUTS, dict(inputs))
        trials = study.get_trials(deepcopy=False)
    return Record(study, where, dict(read_trial(one.user_attrs, name, where) for one in trials), most)


def told(storage: str) -> str:
    """A storage as messages call it: without the name and password of a URL."""
    scheme, mark, rest = storage.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else storage


@contextmanager
def told_errors(where: str) -> Iterator[None]:
    """Errors of a storage as one sentence. Raises FileError."""
    try:
        yield
    except FileError:
        raise
    except Exception as raised:  # storages raise what files, databases and JSON raise
        error: BaseException = raised
        while error.__cause__ is not None:  # what a storage says of it is a guess
            error = error.__cause__
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FileError(
            f"cannot use {where} as the storage of a study: {reason}; leave `storage` out, and it is a journal in the "
            "folder of the search; what a storage holds is kept, and `resume` goes on with it"
        ) from None


def difference(held: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, str]) -> str:
    """In what all studies of a storage are not the one that is asked for."""
    others = [attrs[INPUTS] for attrs in held.values() if isinstance(attrs.get(INPUTS), dict)]
    if not others:
        return "it holds no search; leave `resume` out"
    nearest = max(others, key=lambda other: sum(other.get(name) == value for name, value in inputs.items()))
    names = [name for name in {**nearest, **inputs} if nearest.get(name) != inputs.get(name)]
    return f"its {names[0]} is not the one given; give what it was begun with, or leave `resume` out"


def read_trial(attrs: Mapping[str, Any], name: str, where: str) -> tuple[str, Trial]:
    """What a trial notes of a candidate, by its key. Raises FileError where it was altered."""
    try:
        trial = READER.validate_python(attrs[FOUND])
    except (KeyError, ValidationError):
        trial = None
    if trial is None or attrs.get(SEAL) != seal_of(name, trial):
        raise FileError(
            f"the study in {where} was altered since `mal-graph search` wrote it: name another `storage`, and leave "
            "`resume` out"
        )
    return trial.candidate.key, trial


def seal_of(study: str, trial: Trial) -> str:
    """A digest of what a study notes of a candidate."""
    return hashlib.sha256(json.dumps([SCHEMA, study, asdict(trial)], sort_keys=True).encode()).hexdigest()
