"""The suite of benchmarks: what a table says is kept, and growth is what it was planted to be."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import TOOLS, load_script

bench = load_script(TOOLS / "bench.py")


def written(tables):
    """Tables in Markdown, with text between them."""
    return "\n\ntext\n\n".join(
        "\n".join(
            f"| {' | '.join(cells)} |"
            for cells in (table[0], ["---"] * len(table[0]), *([row[name] for name in table[0]] for row in table))
        )
        for table in tables
    )


words = st.text("abc 12.,x-", min_size=1, max_size=8).map(str.strip).filter(lambda word: word.strip("-: "))


@given(st.lists(st.lists(st.fixed_dictionaries({"nodes": words, "CPU s": words}), min_size=1, max_size=3), max_size=3))
def test_tables_are_read_as_they_were_written(tables):
    assert bench.tables_in(written(tables)) == tables


@given(st.floats(0.2, 3), st.floats(0.1, 10))
def test_the_exponent_is_that_of_a_power_law(power, factor):
    rows = [
        {"networks": "chain", "nodes": f"{n:,}", "CPU s": f"{factor * n**power:.6f} s"} for n in (100, 1000, 20_000)
    ]
    measured = bench.Bench("match", grows=("networks", "nodes", ("CPU s", "MiB")))
    assert bench.exponents_of(measured, [rows])["chain CPU s"] == pytest.approx(power, abs=0.01)  # it is rounded
    assert "chain MiB" not in bench.exponents_of(measured, [rows]), "what no table tells does not grow"


def test_one_size_alone_tells_no_growth():
    measured = bench.Bench("match", grows=("", "nodes", ("CPU s",)))
    assert bench.exponents_of(measured, [[{"nodes": "100", "CPU s": "3"}]]) == {}


def test_every_benchmark_is_in_the_suite_and_every_column_that_grows_in_its_script():
    assert {path.stem.removeprefix("bench_") for path in TOOLS.glob("bench_*.py")} == {one.name for one in bench.SUITE}
    for one in (one for one in bench.SUITE if one.grows):
        text = Path(TOOLS, f"bench_{one.name}.py").read_text()
        kind, size, measures = one.grows
        heads = {cell.strip() for line in re.findall(r"\|.*\|", text) for cell in line.split("|")}
        assert {kind, size, *measures} - {""} <= heads


def test_the_page_shows_the_newest_run_of_each(tmp_path):
    runs = [
        {
            "bench": {"name": "match"},
            "commit": commit,
            "when": "",
            "machine": "",
            "load": [0, 1],
            "processor seconds": 1,
            "tables": [[{"nodes": "5"}]],
            "exponents": {"chain": 1.2},
        }
        for commit in ("older", "newer")
    ]
    page = "\n".join(bench.page_of(runs))
    assert "newer" in page
    assert "older" not in page
    assert "| 5 |" in page
    assert "chain 1.2" in page
