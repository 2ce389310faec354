"""The report of a search: its figures are those that were found, and its pictures are drawn without a fault."""

from dataclasses import replace

import pytest
from report_results import result

from mal_graph.reporting import draw_search, search_document, text_of
from mal_graph.reporting.search_charts import lowest_so_far, objective_names
from mal_graph.searching import Candidate, Trial, find_search


@pytest.fixture(scope="module")
def search():
    return result("search")


def test_every_candidate_is_told_with_what_was_found_of_it(search):
    document = search_document(search)
    assert [entry.weights for entry in document.trials] == [
        {donor: list(row) for donor, row in trial.candidate.by_donor.items()} for trial in search.trials
    ]
    assert [tuple(entry.objectives) for entry in document.trials] == [trial.losses for trial in search.trials]
    assert [place for place, entry in enumerate(document.trials) if entry.is_on_front] == list(search.front)
    assert document.trials[document.winner.place].weights.keys() == set(
        search.trials[search.winner.place].candidate.donors
    )


def test_a_search_that_weighs_size_has_its_front_in_it(search):
    weighing = replace(search, method=find_search("recombination"))
    document = search_document(weighing)
    assert [entry.objectives for entry in document.trials] == [
        [trial.loss, search.space.size(trial.candidate)] for trial in search.trials
    ]
    assert objective_names(document) == ("cross-entropy", "share of the base that changes")


def test_what_was_gained_is_told_of_every_part(search):
    document = search_document(search)
    text = text_of(document)
    assert [entry.part for entry in document.parts] == ["search", "gate", "report"]
    gain = search.base["search"].loss - search.trials[search.winner.place].loss
    left = search.base["report"].loss - search.reported.loss
    assert f"the loss falls by {gain:.4f} on what was searched by, and by {left:.4f} on the reported samples" in text
    assert "d3.onnx takes no part: the inputs of" in text


def test_a_search_without_a_result_says_so(search):
    finalists = tuple(replace(one, reason="its loss is too high") for one in search.finalists)
    failed = Trial(Candidate.of({"d1.onnx": [1.0]}), failure="its worker ended")
    empty = replace(search, finalists=finalists, reported=None, trials=(*search.trials, failed))
    text = text_of(search_document(empty))
    assert "nothing that was found is better than the base on samples that it was not chosen by" in text
    assert "of which 1 failed" in text
    assert "1 d1.onnx failed: its worker ended" in text


def test_the_course_is_drawn_as_a_file_of_its_kind(search):
    assert draw_search(search, "svg").startswith(b"<?xml")
    assert draw_search(search, "png").startswith(b"\x89PNG")


def test_the_lowest_so_far_never_rises():
    assert lowest_so_far([3.0, float("inf"), 4.0, 1.0, 2.0]) == [3.0, 3.0, 3.0, 1.0, 1.0]
