"""Every mutation still finds the check that it switches off; one that no test notices is told from the rest."""

import importlib
from dataclasses import replace
from functools import reduce

import pytest
from scripts import TOOLS


def test_every_check_is_where_its_mutation_looks_for_it(study):
    known = study.mutations()
    assert len(known) > 15
    for name, mutation in known.items():
        for target, instead in mutation.instead.items():
            module, _, path = target.partition(":")
            there = reduce(getattr, path.split("."), importlib.import_module(module))
            assert there is not instead, name
        assert all((TOOLS.parent / test.partition("::")[0]).exists() for test in mutation.tests), name


def test_a_check_that_has_moved_is_named(study, monkeypatch):
    moved = replace(study.mutations()["ties"], instead={"mal_graph.reporting.inspection:nowhere": None})
    with pytest.raises(AttributeError, match="the check has moved"):
        study.apply(moved)


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ties", "equal_functions", "planted"])
def test_a_mutation_is_caught(study, name):
    assert study.caught(name, study.mutations()[name])["caught"]


@pytest.mark.slow
def test_a_mutation_that_no_test_notices_is_not_called_caught(study, tmp_path, monkeypatch):
    blind = replace(study.mutations()["ties"], tests=("tests/matching/test_signatures.py",))
    copy = tmp_path / "tools" / "blind.py"
    copy.parent.mkdir()
    text = (TOOLS / "study_mutations.py").read_text(encoding="utf-8")
    copy.write_text(text.replace("tests/symmetry/test_ties.py", blind.tests[0]), encoding="utf-8")
    monkeypatch.setattr(study, "__file__", str(copy))
    assert not study.caught("ties", blind)["caught"]
