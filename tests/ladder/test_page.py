"""The HTML file: one file, nothing to load, and no name that becomes code."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ladder.ladders import HOSTILE, data_of, random_ladder, twice
from ladder.test_blocks import stages

from mal_graph.ladder import Collapse, page_text, printable
from mal_graph.ladder.entries import AxisMark, GroupMark, LadderEntry, Role, RunnerUpEntry
from mal_graph.ladder.rows import find_rows

SEEDS = st.integers(0, 2**31)


class Reader(HTMLParser):
    """Collects what a browser would run or load."""

    def __init__(self, text):
        super().__init__()
        self.scripts = []
        self.loads = []
        self.handlers = []
        self.is_script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        if tag == "script":
            self.is_script = True
            self.scripts.append([dict(attributes), ""])

    def handle_data(self, data):
        if self.is_script:
            self.scripts[-1][1] += data

    def handle_endtag(self, tag):
        self.is_script = self.is_script and tag != "script"


@given(SEEDS, st.sampled_from([None, *Collapse]))
@settings(max_examples=30)
def test_a_page_runs_one_script_and_loads_nothing_whatever_the_names(seed, collapse):
    ladder = random_ladder(seed, names=HOSTILE)
    text = page_text(ladder, collapse)
    page = Reader(text)
    assert page.loads == []
    assert page.handlers == []
    (data, _), (own, script) = page.scripts
    assert data["type"] == "application/json"
    assert own == {}
    told = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{told}'" in policy
    shown = data_of(text)
    for _, model in ladder.sides():
        for place in model.places:
            place.name = place.name and printable(place.name)
    assert LadderEntry.model_validate(shown["ladder"]) == ladder
    assert [tuple(row) for row in shown["rows"]] == find_rows(ladder)


# --- what the panel tells -----------------------------------------------------------------------------------------


def values_of(text, size):
    return np.frombuffer(base64.b64decode(text), np.int8).reshape(size, size) / 127


def test_units_of_a_permuted_copy_lie_on_the_diagonal_after_the_assignment(aligned):
    for rung in aligned.rungs:
        units = rung.units
        assert units.assigned == units.units[0] == units.units[1]
        assert units.cosine == pytest.approx(1, abs=1e-4)
        assert units.norm_ratio == pytest.approx(1, abs=1e-4)
        assert abs(units.random) < 0.5
        after, before = (values_of(text, units.heat.size) for text in (units.heat.after, units.heat.before))
        assert np.diag(after) == pytest.approx(np.ones(len(after)), abs=0.01)
        assert np.diag(before).mean() < 0.9


def test_every_axis_knows_its_group_and_every_group_its_partner(aligned):
    for _, model in aligned.sides():
        for place in model.places:
            assert all(model.groups[index].units for axis in place.axes for index in axis.groups)
    verified = [index for index, group in enumerate(aligned.base.groups) if group.state == "verified"]
    assert verified
    for index in verified:
        (partner,) = aligned.base.groups[index].partners
        assert index in aligned.donor.groups[partner].partners
        assert aligned.donor.groups[partner].state == "verified"


def test_parts_of_the_score_and_the_runner_up_are_told(aligned):
    for rung in aligned.rungs:
        assert set(rung.parts) == {"context", "position", "widths", "window", "activation", "statistics"}
        assert all(0 <= part <= 1 for part in rung.parts.values())
    told = [rung.runner_up for rung in aligned.rungs]
    assert all(other is not None and other.reason for other in told)
    assert all(
        other.donor != aligned.donor.places[rung.donor].name for other, rung in zip(told, aligned.rungs, strict=True)
    )


UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def texts_in(data):
    """Every text of some data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, list | dict):
        for one in data.values() if isinstance(data, dict) else data:
            yield from texts_in(one)


@given(SEEDS)
@settings(max_examples=20)
def test_what_a_page_shows_can_be_printed(seed):
    """Also in the panel, which the script fills from the data."""
    ladder = random_ladder(seed, names=HOSTILE)
    for place in ladder.base.places:
        place.note = place.kind = HOSTILE[6] if place.role is not Role.LAYER else place.kind
    page = page_text(ladder)
    assert not UNPRINTABLE.search(page)
    assert not [text for text in texts_in(data_of(page)) if UNPRINTABLE.search(text)]


def test_a_page_of_many_layers_is_small():
    """2,000 layers on either side fit into 3 MB: what is said of one may take 750 bytes."""
    base = stages([250], layers=7, own_names=False)
    for place in base.places:
        place.units, place.shape = (64, 128), [128, 64]
        place.axes = [AxisMark(tensor=f"w{i}", axis=i % 2, groups=[1], units="out") for i in range(3)]
    base.groups = [GroupMark(name=f"group{i}", units=8, state="verified", partners=[i]) for i in range(800)]
    ladder = twice(base)
    for rung in ladder.rungs:
        rung.parts = dict.fromkeys(("context", "position", "widths", "window", "activation", "statistics"), 0.9824)
        rung.runner_up = RunnerUpEntry(donor="Gemm_1000", score=0.8293, reason="it corresponds to Gemm_1000")
    assert len(page_text(ladder)) < 750 * (len(base.places) + len(ladder.donor.places))
