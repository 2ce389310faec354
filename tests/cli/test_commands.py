"""`--help` waits for nothing but what it shows; a command that is called has all its flags."""

import subprocess
import sys

import pytest
import typer

from mal_graph.cli.app import app
from mal_graph.cli.commands import DECLARED, flagged
from mal_graph.config import CONFIGS, options_of

OURS = "from mal_graph.cli.app import main; main(['--help'])"
PLAIN = """
import typer
app = typer.Typer()
app.callback()(lambda: None)
app.command("one")(lambda: None)
app(["--help"], standalone_mode=False)
"""


def loaded_by(code: str) -> set[str]:
    """The modules that a program loads."""
    told = f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_help_loads_no_library_but_the_one_that_prints_it():
    beside = loaded_by(OURS) - loaded_by(PLAIN)
    assert {name.partition(".")[0] for name in beside} - sys.stdlib_module_names == {"mal_graph", "lazy_loader"}
    assert "importlib.metadata" not in beside
    own = {name for name in beside if name.startswith("mal_graph.") and not name.startswith("mal_graph.cli")}
    assert not own & {"mal_graph.config", "mal_graph.option", "mal_graph.graph"}
    assert len(own) <= 10, f"the help loads {sorted(own)}: import what only a command needs where it runs"


def test_every_command_is_listed_with_what_it_does():
    group = typer.main.get_command(app)
    assert list(group.commands) == list(DECLARED)
    for name, listed in group.commands.items():
        assert listed.help
        assert listed.help == flagged(name).help


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() & DECLARED.keys()))
def test_a_command_that_is_called_has_the_flags_of_its_job(name):
    flags = {parameter.name for parameter in flagged(name).params}
    assert set(options_of(name)) <= flags
    group = typer.main.get_command(app)
    _, called, rest = group.resolve_command(typer.Context(group), [name, "--verbose"])
    assert {parameter.name for parameter in called.params} == flags
    assert rest == ["--verbose"]
