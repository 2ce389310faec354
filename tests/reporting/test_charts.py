"""Charts: figures lie where the axes say, and what is no figure leaves a gap."""

import re
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.evaluation import Scores
from mal_graph.ladder import svg_text
from mal_graph.reporting.charts import Axes, draw_pareto, polyline, span, ticks
from mal_graph.workflows import ParetoEntry

FIGURES = st.floats(-1e6, 1e6)


@given(st.lists(FIGURES | st.just(nan) | st.just(inf), min_size=1))
def test_a_span_holds_every_figure_with_room(values):
    low, high = span(values)
    finite = [value for value in values if abs(value) < inf]
    assert low < high
    assert all(low <= value <= high for value in finite)


@given(FIGURES, st.floats(1e-6, 1e6))
def test_ticks_are_few_and_between_the_ends(low, width):
    marks = list(ticks(low, low + width))
    assert len(marks) <= 7
    assert all(low - 1e-3 * width <= mark <= low + 1.001 * width for mark in marks)


def test_the_ends_of_an_axis_lie_at_its_ends_and_more_lies_higher():
    axes = Axes((0.0, 1.0), (2.0, 4.0))
    (left, low), (right, high) = axes.at(0.0, 2.0), axes.at(1.0, 4.0)
    assert left < right
    assert low > high  # y runs downwards
    assert axes.at(0.5, 3.0) == pytest.approx(((left + right) / 2, (low + high) / 2))


def test_a_figure_that_is_none_leaves_a_gap():
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    shapes = list(polyline(axes, [0.0, 0.1, 0.2, 0.3, 0.4], [0.5, nan, 0.6, 0.7, inf], "edge", 1.0))
    assert [type(shape).__name__ for shape in shapes] == ["Dot", "Outline"]


def test_every_network_has_its_number_and_the_result_a_ring():
    scores = [Scores(f"a{i}", 1.0, 0.9 + i / 100, "accuracy", "cross-entropy", 10, "y", "logits") for i in range(3)]
    entries = [ParetoEntry(f"<{i}>", 1.0 + i, 0.1, score, is_result=i == 1) for i, score in enumerate(scores)]
    text = svg_text(draw_pareto([*entries, ParetoEntry("unscored", 5.0, 0.1)]))
    assert re.findall(r"</title>(\d)</text>", text) == ["1", "2", "3"]
    assert text.count('r="8.5"') == 1
    assert "<0>" not in text
