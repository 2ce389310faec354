"""Recipes that were written for mergekit."""

import pytest
import yaml
from builders import mlp, vit

import mal_graph
from mal_graph.errors import MalGraphError, UsageError
from mal_graph.workflows import check_blocks

TIES = """
models:
  - model: psmathur/orca_mini_v3_13b
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: garage-bAInd/Platypus2-13B
    parameters:
      density: 0.5
      weight: [{filter: mlp, value: 0.5}, {filter: "*", value: 0}]
merge_method: ties
base_model: TheBloke/Llama-2-13B-fp16
parameters: {normalize: true, rescale: false}
dtype: float16
"""
SLERP = """
slices:
  - sources:
      - {model: a.onnx, layer_range: [0, 2]}
      - {model: b.onnx, layer_range: [0, 2]}
merge_method: slerp
base_model: a.onnx
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 1]}, {value: 0.5}]
"""
STACK = """
slices:
  - sources: [{model: one, layer_range: [0, 1]}]
  - sources: [{model: b.onnx, layer_range: [1, 2]}]
merge_method: passthrough
"""
FILES = {
    "psmathur/orca_mini_v3_13b": "a.onnx",
    "garage-bAInd/Platypus2-13B": "b.onnx",
    "TheBloke/Llama-2-13B-fp16": "c.onnx",
}


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("abc"):
        mal_graph.save(mlp((4, 6, 6, 6, 3), seed), tmp_path / f"{name}.onnx")
    return tmp_path


def read(folder, text, **models):
    (folder / "config.yml").write_text(text)
    return mal_graph.read_recipe(folder / "config.yml", from_mergekit=True, models=models)


def test_names_stand_for_files_and_its_defaults_hold(folder):
    recipe = read(folder, TIES, **FILES)
    assert [path.rpartition("/")[2] for path in (recipe.base, *recipe.donors, recipe.ancestor)] == [
        "c.onnx",
        "a.onnx",
        "b.onnx",
        "c.onnx",
    ]
    assert sorted(one.text for one in recipe.config.parameters) == [
        "1:density=1.0,0.7,0.1",
        "1:weight=1.0",
        "2:density=0.5",
        "2:weight=0.0",
        "2:weight@mlp=0.5",
        "density=1.0",
        "normalize=true",
    ]
    assert recipe.dtype == "float16"
    plain = read(folder, TIES.replace("density: 0.5", "weight: 1").replace("      weight: [", "      # ["), **FILES)
    assert "density=1.0" in [one.text for one in plain.config.parameters]  # and not the 0.2 that ties has here


def test_one_slice_of_whole_models_is_a_merge_of_these(folder):
    recipe = read(folder, SLERP)
    assert (recipe.config.method, recipe.blocks, len(recipe.donors)) == ("slerp", 2, 1)
    assert [one.text for one in recipe.config.parameters] == ["t=0.5", "t@self_attn=0.0,0.5,1.0"]
    check_blocks([mal_graph.load(recipe.base)], recipe.blocks)
    with pytest.raises(UsageError, match=r"the recipe is for 2 blocks, and vit.onnx has 3: stack those that are meant"):
        check_blocks([vit(blocks=3)], recipe.blocks)
    assert yaml.safe_load(recipe.text(folder))["blocks"] == 2


def test_passthrough_is_a_stack(folder):
    recipe = read(folder, STACK, one="a.onnx")
    assert [(one.model.rpartition("/")[2], one.first, one.stop) for one in recipe.slices] == [
        ("a.onnx", 0, 1),
        ("b.onnx", 1, 2),
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            f"{TIES}tokenizer_source: union\nchat_template: auto",
            ["no key 'tokenizer_source' here: a graph has no tokenizer"],
        ),
        (
            f"{TIES}out_dtype: float32\nmodules: {{}}",
            ["no key 'out_dtype' here: the result keeps", "no key 'modules' here"],
        ),
        (TIES.replace("ties", "nuslerp"), ["no method nuslerp here: what comes nearest is slerp"]),
        (TIES.replace("ties", "tise"), [r"no method 'tise' of mergekit here: did you mean ties\?"]),
        (TIES.replace("ties", "mal"), ["no method 'mal' of mergekit here"]),
        (
            TIES.replace("rescale: false", "int8_mask: true, rescale: true"),
            ["int8_mask of ties", "rescale of ties here"],
        ),
        (TIES.replace("ties", "dare_ties"), ["rescale of dare_ties here: entries that stay are enlarged"]),
        (
            TIES.replace("psmathur/orca", "psmathur/orcas"),
            ["'psmathur/orcas_mini_v3_13b' is no ONNX file: export that"],
        ),
        (SLERP.replace("[0, 2]", "[1, 2]"), ["slerp merges whole models: stack the slices of each model"]),
        (SLERP.replace("b.onnx, layer_range: [0, 2]", "b.onnx, layer_range: [0, 1]"), ["slerp merges whole models"]),
        (
            SLERP.replace(", layer_range: [0, 2]", ""),
            ["slices are lists of sources, each with a model and layer_range"],
        ),
        (STACK.replace("[{model: one,", "[{model: a.onnx, layer_range: [0, 1]}, {model: one,"), ["of one source each"]),
        (f"{STACK}parameters: {{scale: 2}}", ["no parameter scale here: slices are taken as they are"]),
        ("merge_method: linear\nmodels: x", ["models is 'x'"]),
        ("merge_method: linear\nmodels: [1]", ["models.0 is '1'"]),
        ("merge_method: linear\nmodels: [{model: [1]}]", [r"\[1\] is no ONNX file"]),
        ("models: []", ["no method 'None' of mergekit here"]),
    ],
)
def test_what_has_no_counterpart_is_refused_with_what_to_do(folder, text, messages):
    with pytest.raises(MalGraphError) as refused:
        read(folder, text, **FILES, one="a.onnx")
    for message in messages:
        assert refused.match(message)
