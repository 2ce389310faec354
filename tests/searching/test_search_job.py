"""A search from files to a model: its laws, and what it refuses."""

import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders import mlp, save

from mal_graph.errors import DataError, FileError, MatchError, UsageError
from mal_graph.searching import search, search_job

FAST = {"verify": False, "compare": False, "trials": 12}


def bytes_of(result, folder):
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    result.assembly.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(small_zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=folder, **FAST)
    return result, bytes_of(result, folder), folder


def test_the_result_is_what_assemble_makes_and_better_than_the_base(undisturbed):
    result, _, _ = undisturbed
    assert result.assembly.check(search_job.AS_SEARCHED).passed
    assert result.winner is not None
    assert result.reported.loss < result.base["report"].loss
    assert len(result.trials) == FAST["trials"]


def test_on_the_way_the_best_candidate_is_told_with_what_it_gains(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2], tmp_path / "study")
    told = []
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    search(*given, study=tmp_path / "study", resume=True, progress=lambda *one: told.append(one), **FAST)
    result = undisturbed[0]
    best = min((trial for trial in result.trials if trial.is_whole), key=lambda trial: trial.loss)
    gained = f"loss falls by {result.base['search'].loss - best.loss:.4f} with {best.candidate.donors[0]}"
    last = [what for what, _, _ in told if what.startswith("scoring candidates")][-1]
    assert last.startswith(f"scoring candidates: {gained}")


def test_parts_of_the_data_share_no_sample(small_zoo, undisturbed):
    result, _, folder = undisturbed
    parts = [np.load(path)["x"] for path in (folder / "data").iterdir()]
    together = np.concatenate(parts)
    whole = np.load(small_zoo.data)["x"]
    assert sorted(map(len, parts)) == sorted(result.samples[0].values())
    assert np.array_equal(np.sort(together, axis=0), np.sort(whole, axis=0))


def test_two_workers_give_the_same_model_to_the_byte(small_zoo, undisturbed, tmp_path):
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, workers=2, **FAST)
    assert result.trials == undisturbed[0].trials
    assert bytes_of(result, tmp_path) == undisturbed[1]


def test_any_executor_gives_the_same_model(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    result = search(*given, study=tmp_path, executor=lambda: ThreadPoolExecutor(3), **FAST)
    assert result.trials == undisturbed[0].trials


KILLED = """
import os, signal, sys
from mal_graph.searching import search, record

count, add = [0], record.Record.add

def add_and_die(self, trial):
    add(self, trial)
    count[0] += 1
    if count[0] == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

record.Record.add = add_and_die
search(*sys.argv[1:4], study=sys.argv[4], verify=False, compare=False, trials=12)
"""


def test_a_search_that_was_killed_goes_on_to_the_same_model(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")  # which are aligned in the same way
    words = [small_zoo.base, small_zoo.donors, small_zoo.data, tmp_path, 5]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 4, "torn')  # a line that was being written
    scored = []
    found = search_job.Team.found

    def counted(self, candidates, part, *rival):
        scored.extend(candidates if part == "search" else ())
        return found(self, candidates, part, *rival)

    monkeypatch.setattr(search_job.Team, "found", counted)
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, resume=True, **FAST)
    assert result.trials == undisturbed[0].trials
    assert bytes_of(result, tmp_path) == undisturbed[1]
    assert len(scored) == 1 + FAST["trials"] - 5  # the base, and what had not been recorded


def test_what_is_aligned_is_never_aligned_again(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    monkeypatch.setattr("mal_graph.searching.aligned_donors.aligned", lambda *rest: pytest.fail("aligned again"))
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, **{**FAST, "trials": 1})
    assert not result.refused


def test_an_aligned_donor_that_was_altered_is_aligned_anew(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    values = sorted((tmp_path / "donors").glob("*.values"))[0]
    content = values.read_bytes()
    values.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, **FAST)
    assert values.read_bytes() == content
    assert result.trials == undisturbed[0].trials


@pytest.mark.parametrize("workers", [1, 2])
def test_a_donor_that_takes_too_long_twice_takes_no_part(small_zoo, workers):
    with pytest.raises(MatchError, match=r"none of 3 donors can be merged into .*: d0.onnx: its worker ended, twice"):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, workers=workers, task_timeout=1e-4, **FAST)


def test_a_donor_that_cannot_be_merged_is_listed(small_zoo, undisturbed, tmp_path):
    folder = tmp_path / "zoo"
    shutil.copytree(small_zoo.donors, folder)
    shutil.copy(folder / "d0.onnx", folder / "d0 again.onnx")
    shutil.copy(small_zoo.base, folder / "x base.onnx")
    (folder / "x rubbish.onnx").write_text("no model")
    save(mlp((7, 9, 5), 3), folder / "x other.onnx")
    result = search(small_zoo.base, folder, small_zoo.data, **{**FAST, "trials": 1})
    assert result.donors == ("d0 again.onnx", "d1.onnx", "d2.onnx")
    assert result.untried == ("d1.onnx", "d2.onnx")
    reasons = {
        "d0.onnx": "it is the same model as d0 again.onnx",
        "x base.onnx": "it is the same model as the base",
        "x rubbish.onnx": "it holds no graph",
        "x other.onnx": "do not fit",
    }
    assert result.refused.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in result.refused[name]


def altered(journal):
    """A journal in which one loss is another."""
    lines = journal.read_text().splitlines()
    place = next(i for i, line in reversed(list(enumerate(lines))) if '"loss"' in line)
    lines[place] = lines[place].replace('"loss":', '"loss":1', 1)
    journal.write_text("\n".join(lines) + "\n")


def test_a_study_is_gone_on_with_only_where_it_is_the_same_and_as_it_was(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2], tmp_path, dirs_exist_ok=True)
    given, study = (small_zoo.base, small_zoo.donors, small_zoo.data), {"study": tmp_path, **FAST}
    with pytest.raises(FileError, match=r"study.journal holds this search already: go on with `resume`"):
        search(*given, **study)
    with pytest.raises(FileError, match=r"cannot go on with the study in .*: its set of options is not the one given"):
        search(*given, resume=True, **study, eps=0.1)
    other = dict(np.load(small_zoo.data))
    other["x"] = other["x"] + 1
    with pytest.raises(FileError, match=r"cannot go on with the study in .*: its data set 1 is not the one given"):
        search(*given[:2], other, resume=True, **study)
    altered(tmp_path / "study.journal")
    with pytest.raises(FileError, match=r"was altered since `mal-graph search` wrote it"):
        search(*given, resume=True, **study)


@pytest.mark.slow
def test_two_searches_share_a_database(small_zoo, undisturbed, tmp_path):
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    study = {"study": undisturbed[2], "storage": f"sqlite:///{tmp_path}/studies.db"}
    first, second = (search(*given, **study, **{**FAST, "trials": trials}) for trials in (2, 3))
    again = [search(*given, **study, resume=True, **{**FAST, "trials": trials}) for trials in (2, 3)]
    assert [first.trials, second.trials] == [one.trials for one in again]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resume": True}, UsageError, "`resume` goes on with what is in a `study` folder: name the one of the search"),
        ({"resume": True, "study": "none"}, FileError, "cannot go on with the study in none: there is no such folder"),
        ({"method": "mal"}, UsageError, "`method` is mal, and a search looks for the weights of models"),
        ({"method": "slerp"}, UsageError, "`method` is slerp, and a search looks for the weights of models"),
        ({"method": "regmean"}, UsageError, "`method` is regmean, which runs models on inputs, and a search takes"),
        ({"method": "c2m3"}, UsageError, "`method` is c2m3, which aligns all models at once, and a search takes"),
        ({"search": "gredy"}, UsageError, "`search` is 'gredy': did you mean greedy"),
        ({"sampler": "best"}, UsageError, "`sampler` is 'best': choose one of tpe, cmaes, nsga2, gp, random"),
        ({"trials": 0}, UsageError, "`trials` is 0: give 1 or more"),
        ({"scheduler": "tcp://127.0.0.1:1", "workers": 2}, UsageError, "give one of them"),
        ({"storage": "nosql://me:secret@host/x"}, FileError, "cannot use nosql://host/x as the storage of a study"),
        ({"lam": 0.3}, UsageError, "search has no option `lam`"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(small_zoo, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as refused:
        search(small_zoo.base, small_zoo.donors, small_zoo.data, **{**FAST, **options})
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_decide_are_refused(small_zoo):
    given, held = (small_zoo.base, small_zoo.donors), dict(np.load(small_zoo.data))
    with pytest.raises(DataError, match=r"a search is decided by labels, and the data have none"):
        search(*given, {"x": held["x"]})
    with pytest.raises(DataError, match=r"there are 15 samples for the part 'gate' of the data, and at least 20"):
        search(*given, {name: array[:60] for name, array in held.items()})
    with pytest.raises(UsageError, match=r"a search takes the paths of models, and a LayerGraph is given: save it"):
        search(mlp((6, 9, 5)), small_zoo.donors, held)
    with pytest.raises(UsageError, match=r"no donor given"):
        search(small_zoo.base, [], held)


def test_what_is_not_installed_is_named(small_zoo, monkeypatch):
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"`scheduler` needs Dask distributed, .*: pip install 'mal-graph\[cluster\]'"):
        search(*given, scheduler="tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"a search needs Optuna, .*: pip install 'mal-graph\[search\]'"):
        search(*given)


def test_losses_on_two_sets_of_data_have_a_front(small_zoo, undisturbed):
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    options = {**FAST, "search": "map", "stages": 1, "trials": 8, "second_data": small_zoo.data, "seed": 3}
    result = search(*given, **options)
    points = [result.trials[place].losses for place in result.front]
    assert all(len(point) == 2 for point in points)
    assert result.assembly.check(search_job.AS_SEARCHED).passed


def test_task_vectors_from_the_base_are_searched_too(small_zoo):
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    result = search(*given, method="ties", parameters={"density": 0.7}, **{**FAST, "trials": 8})
    assert result.assembly.stacked is None or result.assembly.stacked.is_from_base
    assert result.winner is None or result.assembly.check(search_job.AS_SEARCHED).passed


def test_a_search_that_is_told_of_every_sample_is_gone_on_with_too(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    options = {**FAST, "search": "m2n2", "trials": 6, "study": tmp_path}
    result = search(*given, **options)
    assert search(*given, **options, resume=True).trials == result.trials
    for figure in (trial.figures[0] for trial in result.trials):
        assert len(figure.each) == result.samples[0]["search"]
        assert np.isclose(np.mean(figure.each), figure.loss, rtol=1e-12)


def test_a_model_that_is_not_the_one_that_was_scored_is_not_the_result(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    weights = search_job.Bench.weights
    monkeypatch.setattr(
        search_job.Bench,
        "weights",
        lambda self, *rest: {name: array + 1 for name, array in weights(self, *rest).items()},
    )
    monkeypatch.setattr("mal_graph.searching.bench.Bench.scored", undisturbed_scores(undisturbed[0]))
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, finalists=1, **FAST)
    assert result.winner is None
    assert result.assembly.graph is result.assembly.base
    assert "check as_searched failed" in result.finalists[0].reason


def undisturbed_scores(result):
    """What was found before, whatever the weights are."""
    known = {(trial.candidate, "search"): trial.figures for trial in result.trials}
    known |= {(one.gate.candidate, "gate"): one.gate.figures for one in result.finalists}
    known |= {(base.candidate, part): base.figures for part, base in result.base.items()}
    return lambda self, candidate, paths, part, **rest: known[candidate, part]
