"""Recipes: what is written down is what is done, and what a stranger may write is refused in one sentence."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.config import MergeConfig
from mal_graph.errors import FileError, MalGraphError, UsageError
from mal_graph.methods import all_methods
from mal_graph.parameter_settings import Setting
from mal_graph.workflows import Recipe, read_recipe

PATHS = ("a.onnx", "b.onnx", "c.onnx", "d.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files that are models by name; nothing here loads them."""
    folder = tmp_path_factory.mktemp("recipes")
    for path in PATHS:
        (folder / path).touch()
    return folder


def read(folder, text):
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return read_recipe(folder / "recipe.yaml")


def seen(folder, *names):
    return tuple(str(folder / name) for name in names)


TIES = """
merge_method: ties
base_model: a.onnx
models:
  - model: a.onnx
  - model: b.onnx
    parameters: {density: [1, 0.5], weight: 1}
  - model: c.onnx
    parameters:
      weight: [{filter: mlp, value: 0.5}, {filter: m, value: 1e-1}, {value: 0}]
parameters: {normalize: true, lambda: 1.1}
dtype: float32
"""


def test_a_recipe_of_mergekit_says_the_same_here(folder):
    recipe = read(folder, TIES)
    assert (recipe.base, recipe.ancestor, recipe.dtype) == (*seen(folder, "a.onnx", "a.onnx"), "float32")
    assert recipe.donors == seen(folder, "b.onnx", "c.onnx")
    assert recipe.config.method == "ties"
    assert recipe.config.parameters == (
        Setting("normalize", True),
        Setting("lambda", 1.1),
        Setting("density", (1.0, 0.5), 1),
        Setting("weight", 1.0, 1),
        Setting("weight", 0.0, 2),
        Setting("weight", 0.1, 2, "m"),
        Setting("weight", 0.5, 2, "mlp"),
    )


def test_the_base_of_a_mean_is_one_of_its_models(folder):
    text = (
        "merge_method: linear\nmodels: [{model: b.onnx}, {model: a.onnx, parameters: {weight: 2}}]\nbase_model: a.onnx"
    )
    recipe = read(folder, text)
    assert (recipe.base, recipe.donors, recipe.ancestor) == (*seen(folder, "a.onnx"), seen(folder, "b.onnx"), None)
    assert recipe.config.parameters == (Setting("weight", 2.0, 0),)
    with pytest.raises(UsageError, match=r"base_model c.onnx is not among the models, and linear merges it too"):
        read(folder, text.replace("base_model: a", "base_model: c"))


def test_an_ancestor_that_is_not_the_base_is_named_apart(folder):
    text = "merge_method: ties\nmodels: [{model: a.onnx}, {model: b.onnx}]\nancestor: c.onnx"
    recipe = read(folder, text)
    assert (recipe.base, recipe.donors, recipe.ancestor) == (
        *seen(folder, "a.onnx"),
        seen(folder, "b.onnx"),
        *seen(folder, "c.onnx"),
    )


METHODS = {method.name: method for method in all_methods()}


@st.composite
def recipes(draw):
    """A recipe with files of `folder`, of any method and with any settings that fit it."""
    method = METHODS[draw(st.sampled_from(sorted(METHODS)))]
    values = st.floats(-4, 4).map(lambda value: round(value, 3))
    settings_of = []
    for _ in range(draw(st.integers(0, 4)) if method.parameters else 0):
        parameter = method.parameters[draw(st.sampled_from(sorted(method.parameters)))]
        number = draw(st.sampled_from([None, 1, 2])) if parameter.is_each else None
        value = draw(st.one_of(values, st.tuples(values, values))) if parameter.kind is float else draw(st.booleans())
        settings_of.append(Setting(parameter.name, value, number, draw(st.sampled_from(["", "conv", "fc.1=x"]))))
    ancestor = draw(st.sampled_from(["a.onnx", "d.npz"])) if method.needs == "ancestor" else None
    config = MergeConfig(
        method=method.name,
        parameters=tuple(settings_of),
        seed=draw(st.integers(0, 9)),
        layers=draw(st.sampled_from([None, "0:2"])),
    )
    return Recipe("a.onnx", ("b.onnx", "c.onnx"), ancestor, draw(st.sampled_from([None, "d.npz"])), config)


@given(recipe=recipes())
@settings(max_examples=15, deadline=None)
def test_what_is_written_is_what_is_read(folder, recipe):
    """With paths as they are seen from another folder, and settings that mean the same."""
    here = Recipe(
        *(seen(folder, "a.onnx")),
        seen(folder, *recipe.donors),
        *[path if path is None else str(folder / path) for path in (recipe.ancestor, recipe.data)],
        recipe.config,
    )
    again = read(folder, here.text(folder))
    assert (again.base, again.donors, again.ancestor, again.data) == (here.base, here.donors, here.ancestor, here.data)
    assert again.config.replaced(parameters=()) == here.config.replaced(parameters=())
    for model in (None, 1, 2):  # of what is set twice for the same the last one stays
        for name in METHODS[recipe.config.method].parameters:
            assert meaning(again, model, name) == meaning(here, model, name)


def meaning(recipe, model, name):
    """What holds of a parameter for some tensors."""
    own = [one for one in recipe.config.parameters if (one.model, one.name) == (model, name)]
    tensors = ("conv.weight", "fc.1=x", "norm")
    return [next((one.value for one in reversed(own) if one.where in tensor), None) for tensor in tensors]


PLAIN = "merge_method: linear\nmodels: [{model: a.onnx}, {model: b.onnx}]\n"
SLICE = "{model: a.onnx, layer_range: [0, 1]}"
STACK = f"merge_method: passthrough\nslices: [{{sources: [{SLICE}]}}]\n"
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{PLAIN}merge_metod: ties", r"no key 'merge_metod' here: did you mean merge_method\?"),
        (PLAIN.replace("b.onnx", "os:getcwd"), "os:getcwd is a function, and a recipe names files alone"),
        (f"{PLAIN}slices: [{{sources: [{SLICE}]}}]", "slices are stacked as they are, by merge_method passthrough"),
        (
            f"merge_method: passthrough\nslices: [{{sources: [{SLICE}, {SLICE}]}}]",
            "each of one source: stack each model",
        ),
        ("merge_method: passthrough", "merge_method passthrough stacks slices: write the key slices"),
        (f"{STACK}base_model: a.onnx", "base_model has no meaning beside slices"),
        (f"{STACK}parameters: {{weight: 1}}", "parameters has no meaning beside slices"),
        (STACK.replace("[0, 1]", "[0]"), r"slices.0.sources.0.layer_range.1|'1' is missing"),
        (STACK.replace("a.onnx", "lost.onnx"), "names a file that is not there: .*lost.onnx"),
        (STACK.replace("sources", "source"), "no key 'source' here: did you mean sources"),
        (STACK.replace("layer_range", "range"), "no key 'range' here: .*layer_range"),
        (f"{PLAIN}tokenizer_source: union", "no key 'tokenizer_source' here: a graph has no tokenizer; leave it out"),
        (
            PLAIN.replace("{model: b.onnx}", "{model: b.onnx, weight: 1}"),
            "no key 'weight' here: choose from model, param",
        ),
        (PLAIN.replace("linear", "linaer"), r"`method` is 'linaer': did you mean linear\?"),
        ("models: [{model: a.onnx}]", "the key 'merge_method' is missing"),
        ("merge_method: linear\nmodels: []", "the key 'models' is missing"),
        ("merge_method: linear\nmodels: a.onnx", "models is 'a.onnx': input should be a valid list"),
        (f"{PLAIN}parameters: {{weight: [{{filter: x}}]}}", "parameters weight: .* is no filter: write"),
        (f"{PLAIN}parameters: {{weight: heavy}}", "'weight' is 'heavy': give a number"),
        (f"{PLAIN}parameters: {{weight: .nan}}", "'weight' is nan: give a number"),
        (f"{PLAIN}parameters: {{weight: {{}}}}", "'weight' is {}: give a number"),
        (f"{PLAIN}options: {{method: ties}}", "options method has a key of its own: write merge_method"),
        (f"{PLAIN}options: {{sead: 1}}", "assemble has no option `sead`"),
        (f"{PLAIN}options: {{lam: 0.5}}", "`lam` is an option of `method` mal and average, not of linear"),
        (f"{PLAIN}{BOMB}", "it has anchors, which are not read in line 3"),
        (f"{PLAIN}data: d.npz\ndata: d.npz", "the key 'data' stands twice"),
        (f"{PLAIN}data: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("[" * 5000, "it has lists in lists without end in line 1"),
        ("models: [", "cannot read .* in line 1"),
        ("- a", "is no recipe: it has no keys"),
        ("", "is no recipe: it has no keys"),
        (PLAIN + "#" * 2**18, "a recipe ends at 262,144"),
        (
            "merge_method: ties\nbase_model: x.onnx\nmodels: [{model: a.onnx}, {model: y.onnx}]\ndata: z.npz",
            r"names files that are not there: \S*x.onnx, \S*y.onnx, \S*z.npz; paths are seen from the folder",
        ),
    ],
)
def test_what_cannot_be_a_recipe_is_refused_in_one_sentence(folder, text, message):
    with pytest.raises(MalGraphError, match=message) as refused:
        read(folder, text)
    assert "\n" not in str(refused.value)


def test_a_recipe_that_is_not_there_is_told(folder):
    with pytest.raises(FileError, match=r"cannot read .*none.yaml: No such file or directory; check the path"):
        read_recipe(folder / "none.yaml")


def test_the_recipe_of_an_example_is_read_as_it_is_documented():
    """The one in the docstring of the module."""
    from mal_graph.workflows import recipes

    text = recipes.__doc__.split("\n\n")[1]
    assert recipes.Document.model_validate(yaml.load(text, recipes.PlainLoader)).merge_method == "ties"
    assert "read_recipe" in mal_graph.__all__
    assert Path(recipes.__file__).is_file()
