"""One option is one field: keywords, flags, help and reports are made from it."""

import ast
import inspect
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import typer
from builders import mlp
from typer.testing import CliRunner

import mal_graph
from mal_graph import config, option
from mal_graph.cli.options import with_options
from mal_graph.config import CONFIGS, MergeConfig, SweepConfig, ZooConfig, configured, options_of
from mal_graph.errors import UsageError
from mal_graph.limits import Limits
from mal_graph.option import MERGES, Option, option_of

PACKAGE = Path(mal_graph.__file__).parent
NAMES = sorted({name for job in CONFIGS for name in options_of(job)})


@pytest.fixture
def one_more(monkeypatch):
    """The configuration of `assemble` with one more field, and nothing else."""

    class Wider(MergeConfig):
        sharpness: Annotated[Literal["soft", "hard"], Option("How sharp the merge is.", jobs=("assemble",))] = "soft"

    monkeypatch.setitem(CONFIGS, "assemble", Wider)
    return Wider


def test_one_more_field_is_one_more_keyword_flag_help_text_and_entry_of_the_report(one_more):
    assert configured("assemble", None, {"sharpness": "hard"}).sharpness == "hard"
    with pytest.raises(UsageError, match="`sharpness` is 'blunt': choose one of soft, hard"):
        configured("assemble", None, {"sharpness": "blunt"})

    @config.shows_options("assemble")
    def job(base, **options):
        """Do it."""

    assert inspect.signature(job).parameters["sharpness"].default == "soft"
    assert "sharpness: How sharp the merge is." in job.__doc__
    app, given = typer.Typer(), []

    @app.command()
    @with_options("assemble")
    def command(*, options: dict, shown):
        given.append(options)

    assert CliRunner().invoke(app, ["--sharpness", "hard"]).exit_code == 0
    assert given == [{"sharpness": "hard"}]
    (flag,) = [one for one in typer.main.get_command(app).params if one.name == "sharpness"]
    assert (flag.opts, flag.metavar) == (["--sharpness"], "soft|hard")
    assert flag.help == "How sharp the merge is. [default: soft]"
    assert one_more().to_dict()["sharpness"] == "soft"
    assert "sharpness" in one_more.model_json_schema()["properties"]


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_declared_in_one_place(name):
    """Neither a job nor a command has a parameter or a flag of this name beside the field."""
    beside = []
    for path in sorted([*PACKAGE.glob("workflows/*.py"), *PACKAGE.glob("cli/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (node.name in CONFIGS or path.parent.name == "cli"):
                beside += [node.name for one in (*node.args.args, *node.args.kwonlyargs) if one.arg == name]
            if isinstance(node, ast.Constant) and node.value == f"--{name.replace('_', '-')}":
                beside.append(path.name)
    assert beside == []


@pytest.mark.parametrize("job", MERGES)
def test_the_signature_of_a_job_shows_its_options(job):
    parameters = inspect.signature(getattr(mal_graph, job)).parameters
    assert set(options_of(job)) <= set(parameters)
    assert "options" not in parameters
    assert all(parameters[name].default == field.default for name, field in options_of(job).items())


NO_NUMBERS = [math.nan, math.inf, -math.inf, np.float32("nan"), Decimal("NaN"), 10**400, -(10**400), True, {}]
NO_NUMBERS += [
    text for one in ("nan", "inf", "1e999", "9" * 400) for text in (one, f"-{one}", f"0:{one}:1", f"0:1:{one}")
]
NO_NUMBERS += ["", " ", "0x10", "1_0", "1,nan", "a=nan", "a:nan", "a:" + "9" * 400, "a:1e3", "a:-1", "a:0"]
NO_NUMBERS += [[math.nan], ["a=inf"], {"a": math.nan}, {"a": (10**30,)}, {"a": (-1,)}, [("a", math.inf)], [7]]
NUMBERS = [
    (options, name)
    for options in {*CONFIGS.values(), Limits}
    for name, field in options.model_fields.items()
    if not option_of(field).reads_file
]


@pytest.mark.parametrize(("options", "name"), sorted(NUMBERS, key=str))
def test_an_option_holds_finite_numbers_or_is_refused_in_one_sentence(options, name):
    for given in NO_NUMBERS:
        held = held_or_refused(options, name, given)
        assert are_finite(held) or (name == "budget" and given == math.inf), given


def held_or_refused(options, name, given):
    """What an option holds of a value, or the sentence that refuses it."""
    own = {"method": "union"} if options is CONFIGS["compress"] else {}
    try:
        return getattr(options(**{**own, name: given}), name)
    except UsageError as error:
        return str(error) if name in str(error) and "\n" not in str(error) else (math.nan, str(error))


def are_finite(held):
    """Whether what an option holds has no number that is none, or is longer than a reader of JSON takes."""
    if isinstance(held, Mapping):
        return are_finite(tuple(held.values()))
    if isinstance(held, tuple | list):
        return all(map(are_finite, held))
    return not isinstance(held, int | float) or abs(held) < 2**63


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": "x"}, "`width` is 'x': choose one of base, grow"),
        ({"lam": 2}, "`lam` is 2: give a merging factor from 0"),
        ({"lam": (0.1, 3)}, r"`lam` is \(0.1, 3\): give a merging factor"),
        ({"lam": float("nan")}, "`lam` is nan: give a merging factor"),
        ({"lam": "much"}, "`lam` 'much' is no merging factor: write a number such as 0.3, or several over the depth"),
        ({"lam": "0.1,,0.5"}, "`lam` '0.1,,0.5' is no merging factor"),
        ({"lam": ()}, "`lam` is empty"),
        ({"lam_for": {"a": 2}}, "`lam_for` is 2: give a merging factor"),
        ({"lam_for": ["a"]}, "`lam_for` 'a' names no layers and number"),
        ({"seed": -1}, "`seed` is -1: give 0 or more"),
        ({"verify": "perhaps"}, "`verify` is 'perhaps': give true or false"),
        ({"max_memory": "a lot"}, "`max_memory` 'a lot' is no size"),
        ({"input_shapes": ["x:0"]}, "`input_shapes` 'x:0' is no shape"),
        ({"pair": ["x"]}, "`pair` 'x' is no pair of names: write A=B"),
        ({"pair": "a=b=c"}, "`pair` 'a=b=c' is no pair of names"),
        ({"pair": [("x", "y", "z")]}, "`pair` is .*: give BASE=DONOR"),
        ({"calibrate": 3}, "arrays are given as a int: give a dictionary by name, or the path of an .npz file"),
        ({"colour": "red"}, "there is no option 'colour': choose from any_order, assume_ordered, budget, calibrate"),
        ({"seed": -1, "width": "x"}, "`width` is 'x'.*; `seed` is -1|`seed` is -1.*; `width` is 'x'"),
    ],
)
def test_a_refused_value_is_named_with_what_to_give(given, message):
    with pytest.raises(UsageError, match=message):
        MergeConfig(**given)


@pytest.mark.parametrize(
    ("job", "name", "message"),
    [
        ("zoo", "layers", "zoo has no option `layers`: it is one of assemble and sweep"),
        ("assemble", "pads", "assemble has no option `pads`: it is `unmatched` now"),
        ("assemble", "colour", "assemble has no option `colour`: choose from"),
        ("sweep", "lam", "sweep has no option `lam`: it is one of assemble and grid"),
    ],
)
def test_an_option_of_another_job_is_refused(job, name, message):
    with pytest.raises(UsageError, match=message):
        configured(job, None, {name: 1})


def test_a_configuration_for_one_job_does_not_slip_into_another():
    with pytest.raises(UsageError, match="zoo has no option `layers`"):
        configured("zoo", MergeConfig(layers="conv*"), {})
    assert configured("zoo", MergeConfig(width="grow"), {}) == ZooConfig(width="grow")
    assert configured("assemble", MergeConfig(width="grow", seed=3), {"seed": 4}) == MergeConfig(width="grow", seed=4)


def test_texts_stand_for_what_they_say():
    texts = MergeConfig(lam="0.1,0.5", lam_for=["conv*=0.2"], max_memory="2GiB", input_shapes=["x:1,3"])
    assert texts == MergeConfig(lam=(0.1, 0.5), lam_for={"conv*": 0.2}, max_memory=2**31, input_shapes={"x": (1, 3)})
    assert MergeConfig(pair=["x=image", "y=z"]) == MergeConfig(pair={"x": "image", "y": "z"})
    assert MergeConfig(pair="x=image").pair == (("x", "image"),)
    assert SweepConfig(lambdas="0:1:0.5").lambdas == (0.0, 0.5, 1.0)


def test_a_configuration_shows_what_is_not_the_default_on_one_line():
    assert repr(MergeConfig()) == "MergeConfig()"
    shown = repr(MergeConfig(width="grow", calibrate={"x": np.zeros((10_000, 10))}))
    assert shown == "MergeConfig(method='mal', width='grow', calibrate={'x'})"


def test_a_report_holds_the_options_and_of_arrays_their_shapes():
    config = MergeConfig(inputs={"x": np.zeros((2, 5), np.float32)}, calibrate="some.npz")
    assert config.to_dict()["inputs"] == {"x": {"dtype": "float32", "shape": [2, 5]}}
    assert config.to_dict()["calibrate"] == "some.npz"
    result = mal_graph.assemble(mlp((5, 6, 4), 0), mlp((5, 6, 4), 1), verify=False, width="grow")
    assert result.to_dict()["config"] == MergeConfig(verify=False, width="grow").to_dict()


def test_no_field_is_without_help_and_every_refusal_says_what_to_give():
    for kind in {kind for kind in CONFIGS.values()}:
        for field in kind.model_fields.values():
            assert option.option_of(field).help.endswith(".")
            assert option.advice_on(field)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        MergeConfig().seed = 3
