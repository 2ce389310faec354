"""The figures of the house are those that its definitions say."""

import ast

import pytest
from scripts import TOOLS, load_script

measure_house = load_script(TOOLS / "measure_house.py")

FILES = {
    "cli/app.py": """
from mal_graph.steps import opened, written
from mal_graph.deep.look import _peek

def assemble(base, donors):
    models = opened(donors)
    written(models, base)
    unread(base)
""",
    "steps.py": """
from mal_graph.deep.look import looked
from mal_graph.deep import far as away

def opened(donors):
    return [looked(each) for each in donors]

def written(models, path):
    away.sized(models)
    path.save(models)
    looked(models)
""",
    "deep/look.py": """
def looked(model):
    return helper(model)

def helper(model):
    return model
""",
    "deep/far.py": """
def sized(model):
    return model
""",
}


@pytest.fixture
def house(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "mal_graph" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return measure_house.read_house(tmp_path)


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("return 1", 1),
        ("return 1 if a else 2", 2),
        ("return a and b and c", 3),
        ("return [x for x in a if x if b]", 4),
        ("for x in a:\n        while b:\n            assert c", 4),
        ("try:\n        pass\n    except ValueError:\n        pass", 2),
    ],
)
def test_complexity_counts_the_ways_through_a_function(body, complexity):
    assert measure_house.complexity_of(ast.parse(f"def f(a, b, c):\n    {body}").body[0]) == complexity


def test_a_walk_follows_what_is_made_of_a_parameter_to_where_it_is_saved(house):
    walk = measure_house.Walk(house).follow("mal_graph.cli.app:assemble", "donors")
    assert [function.removeprefix("mal_graph.") for function in walk.functions] == [
        "cli.app:assemble",
        "steps:opened",
        "deep.look:looked",
        "deep.look:helper",
        "steps:written",
        "deep.far:sized",
    ]


def test_a_walk_climbs_back_where_a_room_it_knows_has_more_below_it(house):
    heights = measure_house.heights_in(house)
    assert [heights[f"mal_graph.{name}"] for name in ("deep.look", "steps", "cli.app")] == [1, 2, 3]
    figures = {figure.what: figure.value for figure in measure_house.figures_of_walk(house)}
    assert (figures["moves between modules"], figures["climbs back between modules"]) == ("4", "1")


def test_private_names_of_other_packages_are_listed(house):
    assert measure_house.private_names(house) == ["mal_graph.cli.app takes mal_graph.deep.look:_peek"]


def test_this_house_keeps_its_laws(capsys):
    assert measure_house.main(["--check"]) == 0
    assert capsys.readouterr().out.startswith("# The house in figures")
