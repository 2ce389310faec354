"""Recipes of strangers, ours and those of mergekit: what they unfold to, what they name, what they say."""

import os

import numpy as np
from builders import mlp, save

from crafted.kind import written
from crafted.names import ESCAPE

MERGE = ("merge", "r.yaml", "-o", "out.onnx")
MERGEKIT = ("merge", "r.yaml", "-o", "out.onnx", "--from-mergekit")
SOUND = "merge_method: linear\nmodels: [{model: base.onnx}, {model: m.onnx}]\n"


def put(folder, text: str | bytes) -> None:
    save(mlp((8, 16, 12, 5), seed=1), folder / "m.onnx")
    (folder / "r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def models(*named: str) -> str:
    return "merge_method: linear\nmodels: [" + ", ".join(f"{{model: {one!r}}}" for one in named) + "]\n"


def stacked(*ranges: object) -> str:
    sources = "".join(f"  - sources: [{{model: base.onnx, layer_range: {one}}}]\n" for one in ranges)
    return f"merge_method: passthrough\nslices:\n{sources}"


TEXTS = {
    "that_is_empty": "",
    "that_is_a_list": "[1, 2]",
    "that_is_no_text": b"\xff\xfe\x00\xd8",
    "of_controls": "merge_method: \x1b[31m\n",
    "of_escapes_in_quotes": 'merge_method: "\\e[31m\\n\\u202e"\n',
    "of_a_tag": SOUND + "data: !!python/object/apply:os.system [touch pwned]\n",
    "of_an_unknown_tag": SOUND + "data: !x [1]\n",
    "of_anchors": "a: &a [1, 2]\nb: *a\n",
    "that_merges_keys": SOUND + "<<: {data: data.npz}\n",
    "of_many_keys": "\n".join(f"{i}: 1" for i in range(30_000)),
    "of_many_keys_of_one_list": "[" + ",".join(["{? [a] : 1}"] * 10_000) + "]",
    "of_keys_that_are_lists": "? [a, b]\n: 1\n" * 100,
    "of_a_key_that_is_none": "null: 1\n" + SOUND,
    "of_a_key_that_is_a_number": "1: 1\n.nan: 2\n" + SOUND,
    "of_many_documents": SOUND + "---\n" * 1000,
    "of_many_directives": "".join(f"%TAG !{i}! a{i}\n" for i in range(10_000)) + "---\n" + SOUND,
    "of_a_long_line": SOUND + "data: " + "a" * 250_000,
    "of_open_lists": SOUND + "data: " + "[" * 200_000,
    "of_open_maps": SOUND + "data: " + "{a: " * 60_000,
    "of_dashes": SOUND + "data:\n " + "- " * 120_000,
    "of_questions": "? " * 120_000,
    "of_quotes": SOUND + 'data: "' + "\\n" * 120_000 + '"',
    "of_a_huge_number": SOUND + "parameters: {weight: " + "9" * 5000 + "}\n",
    "of_a_huge_number_of_hex": SOUND + "parameters: {weight: 0x" + "f" * 200_000 + "}\n",
    "of_a_huge_number_as_a_name": "merge_method: 0x" + "f" * 200_000 + "\n",
    "of_a_number_of_minutes": SOUND + "blocks: " + ":".join(["59"] * 80_000) + "\n",
    "of_a_fraction_of_minutes": SOUND + "parameters: {weight: " + ":".join(["59"] * 60_000) + ".5}\n",
    "of_a_date": SOUND + "data: 2001-01-01\n",
    "of_a_date_that_is_none": SOUND + "data: 2001-99-99\n",
    "of_bytes": SOUND + "data: !!binary AAAA\n",
    "of_nan": SOUND + "parameters: {weight: .nan}\n",
    "of_an_infinite_weight": SOUND + "parameters: {weight: .inf}\n",
    "of_weights_that_cancel": "merge_method: linear\nmodels: [{model: base.onnx, parameters: {weight: 1}}, "
    "{model: m.onnx, parameters: {weight: -1}}]\n",
    "of_huge_weights": "merge_method: linear\nmodels: [{model: base.onnx, parameters: {weight: 1e308}}, "
    "{model: m.onnx, parameters: {weight: 1e308}}]\n",
    "of_many_weights": SOUND + f"parameters: {{weight: [{', '.join(['0.5'] * 50_000)}]}}\n",
    "of_no_weights": SOUND + "parameters: {weight: []}\n",
    "of_weights_in_weights": SOUND + "parameters: {weight: [[[[1]]]]}\n",
    "of_filters_without_end": SOUND + "parameters: {weight: [{filter: '*" + "*a" * 5000 + "', value: 1}]}\n",
    "of_filters_that_are_texts": SOUND + "parameters: {weight: [{filter: '((((((', value: 1}]}\n",
    "of_filters_that_are_numbers": SOUND + "parameters: {weight: [{filter: 7, value: 1}, {value: 1}]}\n",
    "of_many_filters": SOUND
    + "parameters: {weight: ["
    + ", ".join(f"{{filter: f{i}, value: 1}}" for i in range(8_000))
    + "]}\n",
    "of_an_unknown_method": models("base.onnx", "m.onnx").replace("linear", "'\\e[31m'"),
    "of_a_model_that_is_code": models("os:getcwd", "base.onnx"),
    "of_a_model_in_proc": models("/proc/self/mem", "base.onnx"),
    "of_a_model_that_is_a_device": models("/dev/zero", "base.onnx"),
    "of_a_model_that_is_a_folder": models(".", "base.onnx"),
    "of_a_model_with_a_nul": 'merge_method: linear\nmodels: [{model: "a\\0b"}, {model: base.onnx}]\n',
    "of_a_model_of_long_name": models("a" * 5000, "base.onnx"),
    "of_a_model_named_by_escapes": 'merge_method: linear\nmodels: [{model: "\\e[31m\\n"}, {model: base.onnx}]\n',
    "of_many_models": models(*["base.onnx"] * 3000),
    "of_the_recipe_itself": models("r.yaml", "base.onnx"),
    "of_one_model": models("base.onnx"),
    "of_options_that_are_files": SOUND + "options: {calibrate: /dev/zero, matches: /dev/zero}\n",
    "of_options_that_are_unknown": SOUND + f"options: {{{ESCAPE!r}: 1}}\n",
    "of_options_of_another_type": SOUND + "options: {seed: [1], lam: {a: 1}, verify: 7, timeout: x}\n",
    "of_options_without_limits": SOUND + "options: {in_process: true, max_memory: 1TiB, timeout: 1e9}\n",
    "of_a_seed_without_end": SOUND + "options: {seed: " + "9" * 400 + "}\n",
    "of_another_type_of_numbers": SOUND + "dtype: '\\e[31m'\n",
    "of_blocks_without_end": SOUND + "blocks: 99999999999999999999999999\n",
    "of_slices_without_end": stacked("[0, 99999999999]"),
    "of_slices_that_are_negative": stacked("[-5, -1]"),
    "of_slices_in_reverse": stacked("[5, 1]"),
    "of_slices_of_fractions": stacked("[0.5, 1.5]"),
    "of_slices_of_huge_numbers": stacked("[0, 0x" + "f" * 5000 + "]"),
    "of_many_slices": stacked(*["[0, 1]"] * 3000),
    "of_empty_slices": stacked("[0, 0]"),
}
for name, text in TEXTS.items():
    for words, what in ((MERGE, "recipe"), (MERGEKIT, "mergekit_recipe")):

        def build(folder, text=text):
            put(folder, text)

        build.__name__ = f"{what}_{name}"
        written("", *words)(build)


@written("error: ", *MERGE)
def recipe_that_is_a_pipe(folder):
    os.mkfifo(folder / "r.yaml")


@written("error: ", "merge", "/dev/zero", "-o", "out.onnx")
def recipe_without_an_end(folder):
    pass


@written("error: ", *MERGE)
def recipe_of_a_gib(folder):
    with (folder / "r.yaml").open("wb") as file:
        file.truncate(1 << 30)


@written("", "merge", "r.yaml", "-o", "r.yaml", "--force")
def recipe_that_is_its_own_result(folder):
    put(folder, SOUND)


@written("error: ", *MERGEKIT, "--model", "a=\x1b[31m")
def a_model_of_mergekit_named_by_escapes(folder):
    put(folder, models("a", "base.onnx"))


@written("error: ", *MERGEKIT, "--model", "=")
def a_model_of_mergekit_without_a_name(folder):
    put(folder, models("a", "base.onnx"))


for method in ("ties", "dare_ties", "della", "slerp", "karcher", "breadcrumbs", "consensus", "sce", "model_stock"):
    for what, numbers in {"nan": ".nan", "less_than_nothing": "-1", "much": "1e30", "nothing": "0"}.items():

        def build(folder, method=method, numbers=numbers):
            given = "".join(f"{name}: {numbers}, " for name in ("density", "weight"))
            put(
                folder,
                f"merge_method: {method}\nbase_model: base.onnx\nmodels: [{{model: base.onnx}}, {{model: m.onnx}}]\n"
                f"parameters: {{{given.strip(', ')}}}\noptions: {{verify: false}}\n",
            )

        build.__name__ = f"{method}_of_{what}"
        written("", *MERGE)(build)


def drawn_donor(folder, value: float) -> None:
    """A donor one of whose weights holds one such number."""
    graph = mlp((8, 16, 12, 5), seed=1)
    name = next(iter(graph.weights))
    values = np.array(graph.weights[name].read())
    values.flat[0] = value
    save(graph.with_weights({name: values}), folder / "m.onnx")


for method in ("linear", "slerp", "karcher", "ties", "task_arithmetic", "model_stock", "fisher", "regmean"):
    for what, value in {"nan": np.nan, "inf": np.inf, "much": 3e38, "little": 1e-45}.items():

        def build(folder, value=value):
            drawn_donor(folder, value)

        build.__name__ = f"{method}_of_a_donor_with_{what}"
        more = ("--ancestor", "base.onnx") if method in ("ties", "task_arithmetic", "model_stock") else ()
        inputs = ("--calibrate", "data.npz") if method in ("fisher", "regmean") else ()
        words = ("assemble", "base.onnx", "m.onnx", "-o", "out.onnx", "--method", method, *more, *inputs)
        written("", *words)(build)
