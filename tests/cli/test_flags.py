"""Flags and options are two names of one thing; flags that were renamed say so."""

import pytest

from mal_graph.cli import app
from mal_graph.cli.flags import OLD_FLAGS, flags, in_flags, new_flag
from mal_graph.config import CONFIGS, options_of
from mal_graph.option_names import RENAMED


@pytest.mark.parametrize("flag", sorted(OLD_FLAGS))
def test_a_flag_that_was_renamed_is_refused_with_its_new_name(capfd, flag):
    assert app.main(["assemble", "a.onnx", "b.onnx", flag, "--method", "mal"]) == app.BAD_INPUT
    assert capfd.readouterr() == ("", f"error: there is no {flag}: it is {new_flag(flag)} now\n")
    assert app.main(["assemble", "a.onnx", "b.onnx", f"{flag}=x", "--method", "mal"]) == app.BAD_INPUT


def test_the_output_that_is_scored_has_one_name(capfd):
    assert app.main(["evaluate", "a.onnx", "--data", "d.npz", "--output", "y"]) == app.BAD_INPUT
    assert capfd.readouterr().err == "error: there is no --output: it is --score-output now\n"


def test_every_old_name_leads_to_an_option_that_there_is():
    assert {new for new in RENAMED.values()} <= {name for job in CONFIGS for name in options_of(job)}
    assert set(map(new_flag, OLD_FLAGS)) - {"--no-verify", "--verify-full", "--resize-checks"} <= set(flags().values())
    assert not set(OLD_FLAGS) & set(flags().values())


def test_messages_of_the_library_speak_of_flags():
    assert in_flags("give some with `calibrate`, or `width`=grow") == "give some with --calibrate, or --width=grow"
    assert in_flags("a name of their own: `conv1`") == "a name of their own: `conv1`"


def test_a_name_in_another_encoding_is_refused_before_any_work(capfd):
    assert app.main(["match", "a.onnx", "b\udcff.onnx"]) == app.BAD_INPUT
    assert capfd.readouterr() == ("", "error: 'b\\udcff.onnx' is not UTF-8: rename the file\n")
