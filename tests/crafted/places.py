"""Where a command is to write, and what stands there: folders, links, inputs, devices, a full disk, odd names."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
from builders import mlp, save

from crafted.judging import MARKUP
from crafted.kind import MODEL, written
from crafted.names import ESCAPE

BLENDED = ("--lambda", "0.3", "--no-verify", "--no-compare")
TO = ("assemble", "base.onnx", "m.onnx", *BLENDED, "-o")


def donor(folder) -> None:
    save(mlp((8, 16, 12, 5), seed=1), folder / MODEL)


def noted(name: str, says: str, *words: str):
    """A place, behind `before` that makes it."""

    def note(before):
        def build(folder):
            donor(folder)
            before(folder)

        build.__name__ = name
        written(says, *words)(build)
        return before

    return note


def nothing(folder) -> None:
    pass


PLACES = {
    "that_is_a_folder": (lambda folder: (folder / "o.onnx").mkdir(), "o.onnx"),
    "that_is_a_link_to_an_input": (lambda folder: (folder / "o.onnx").symlink_to("base.onnx"), "o.onnx"),
    "that_is_a_hard_link_to_an_input": (lambda folder: os.link(folder / "base.onnx", folder / "o.onnx"), "o.onnx"),
    "that_is_a_link_to_nothing": (lambda folder: (folder / "o.onnx").symlink_to("far/away.onnx"), "o.onnx"),
    "that_is_a_link_to_a_stranger": (lambda folder: (folder / "o.onnx").symlink_to("../victim"), "o.onnx"),
    "that_is_a_link_to_itself": (lambda folder: (folder / "o.onnx").symlink_to("o.onnx"), "o.onnx"),
    "that_is_a_pipe": (lambda folder: os.mkfifo(folder / "o.onnx"), "o.onnx"),
    "that_is_an_input": (nothing, "m.onnx"),
    "that_is_an_input_by_another_way": (nothing, "./../here/m.onnx"),
    "in_a_folder_that_is_not_there": (nothing, "no/o.onnx"),
    "in_a_file": (nothing, "base.onnx/o.onnx"),
    "in_proc": (nothing, "/proc/self/o.onnx"),
    "that_is_a_device": (nothing, "/dev/full"),
    "that_is_the_terminal": (nothing, "/dev/stdout"),
    "of_300_letters": (nothing, "o" * 300 + ".onnx"),
    "of_5000_letters": (nothing, "/".join(["o" * 100] * 50) + ".onnx"),
    "named_by_escapes": (nothing, f"{ESCAPE}.onnx"),
    "named_by_no_text": (nothing, "\udcff.onnx"),
    "without_a_name": (nothing, ""),
    "of_a_name_alone": (nothing, ".onnx"),
    "with_a_nul": (nothing, "a\0.onnx"),
    "named_as_a_flag": (nothing, "--force.onnx"),
    "named_by_blanks": (nothing, "   .onnx"),
}
for name, (before, path) in PLACES.items():
    noted(f"a_place_{name}", "", *TO, path)(before)
    noted(f"a_place_{name}_by_force", "", *TO, path, "--force")(before)
    noted(f"a_report_at_a_place_{name}", "", *TO, "r.onnx", "--report", path.replace(".onnx", ".json"))(before)


@noted("a_folder_that_may_not_be_written_to", "", *TO, "sub/o.onnx")
def _(folder):
    (folder / "sub").mkdir(mode=0o500)


@noted("a_result_where_another_has_its_data", "", *TO, "o.onnx")
def _(folder):
    (folder / "o.onnx.0123456789abcdef.data").write_bytes(b"other")


@noted("drafts_that_are_links", "", *TO, "o.onnx")
def _(folder):
    (folder / ".mal-graph-x").symlink_to("..")


@noted("drafts_that_are_files", "", *TO, "o.onnx")
def _(folder):
    (folder / ".mal-graph-x").write_text("kept")


@noted("a_report_over_the_model", "error: ", *TO, "o.onnx", "--report", "o.onnx")
def _(folder):
    pass


@noted("a_recipe_saved_over_an_input", "error: ", *TO, "o.onnx", "--save-recipe", "m.onnx", "--force")
def _(folder):
    pass


@noted("a_recipe_saved_to_a_place_of_escapes", "", *TO, "o.onnx", "--save-recipe", f"{ESCAPE}.yaml")
def _(folder):
    pass


@noted("a_plot_over_an_input", "error: ", *TO, "o.onnx", "--plot", "m.onnx", "--force")
def _(folder):
    pass


# --- names in what is drawn and written ---------------------------------------------------------------------------


def named_by_markup(folder) -> None:
    """Two models whose tensors, nodes, inputs and notes are called as pages, pictures and tables would obey."""
    for seed, path in ((0, "a.onnx"), (1, "b.onnx")):
        save(mlp((8, 16, 12, 5), seed=seed), folder / path)
        proto = onnx.load(folder / path)
        new = {}
        for place, tensor in enumerate(proto.graph.initializer):
            new[tensor.name] = f"{MARKUP}]]>--><!--\n# {place}|=1+1|`$(touch pwned)\\frac{{$`\x1b[31m\u202e"
            tensor.name = new[tensor.name]
        for place, node in enumerate(proto.graph.node):
            node.name = f"{MARKUP}'\"&amp;{place}\x1b[2J\n```"
            for at, name in enumerate(node.input):
                node.input[at] = new.get(name, name)
        proto.metadata_props.add(key="license", value=f"{MARKUP}\n# License\n\x1b[31m")
        proto.graph.doc_string = proto.producer_name = MARKUP
        onnx.save(proto, folder / path)


DRAWN = {
    "an_inspection_of_markup": ("inspect", "a.onnx", "-v"),
    "an_inspection_of_markup_in_json": ("inspect", "a.onnx", "--format", "json"),
    "a_picture_of_markup": ("diagram", "a.onnx", "-o", "o.html"),
    "a_drawing_of_markup": ("diagram", "a.onnx", "-o", "o.svg"),
    "an_image_of_markup": ("diagram", "a.onnx", "-o", "o.png"),
    "pairs_of_markup": ("match", "a.onnx", "b.onnx", "-o", "o.html"),
    "pairs_of_markup_drawn": ("match", "a.onnx", "b.onnx", "-o", "o.svg", "--align"),
    "pairs_of_markup_in_mermaid": ("match", "a.onnx", "b.onnx", "--format", "mermaid"),
    "pairs_of_markup_in_dot": ("match", "a.onnx", "b.onnx", "--format", "dot"),
    "pairs_of_markup_for_the_explorer": ("match", "a.onnx", "b.onnx", "--format", "model-explorer"),
    "pairs_of_markup_explained": ("match", "a.onnx", "b.onnx", "--explain", MARKUP),
    "a_merge_of_markup": ("assemble", "a.onnx", "b.onnx", *BLENDED, "-o", "o.onnx", "--report", "o.html"),
    "a_merge_of_markup_in_markdown": ("assemble", "a.onnx", "b.onnx", *BLENDED, "-o", "o.onnx", "--report", "o.md"),
    "a_sweep_of_markup": (
        "sweep",
        "a.onnx",
        "b.onnx",
        "--data",
        "data.npz",
        "-o",
        "o.csv",
        "-o",
        "o.svg",
        "-o",
        "o.html",
    ),
    "a_map_of_markup": (
        "sweep",
        "a.onnx",
        "b.onnx",
        "--data",
        "data.npz",
        "--grid",
        "-o",
        "o.csv",
        "-o",
        "o.svg",
        "-o",
        "o.html",
    ),
    "a_union_of_markup": ("assemble", "a.onnx", "b.onnx", "--method", "union", "-o", "o.onnx", "--report", "o.html"),
    "a_focus_on_markup": ("diagram", "a.onnx", "-o", "o.html", "--focus", MARKUP),
}
for name, words in DRAWN.items():

    def build(folder):
        named_by_markup(folder)

    build.__name__ = name
    written("", *words)(build)


# --- states, studies and pairs ------------------------------------------------------------------------------------


def unfolding(part: str = "[],") -> str:
    """60 MiB of text that JSON makes far more of."""
    return "[" + part * ((60 << 20) // len(part)) + "1]"


def put(path: Path, text: str | Callable[[], str]) -> None:
    """Write a text; one that is long is made when it is asked for."""
    path.write_text(text if isinstance(text, str) else text())


PAIRS = ("assemble", "base.onnx", "m.onnx", *BLENDED, "-o", "o.onnx", "--matches", "p.json")
for name, text in {
    "of_a_layer_twice": '{"pairs": [{"base": "Gemm_0", "donor": "Gemm_0"}, {"base": "Gemm_0", "donor": "Gemm_2"}]}',
    "of_nothing": '{"pairs": []}',
    "that_are_no_texts": '{"pairs": [{"base": null, "donor": [1, [2, [3]]]}]}',
    "that_are_unknown": json.dumps({"pairs": [{"base": MARKUP, "donor": ESCAPE}]}),
    "that_are_many": json.dumps({"pairs": [{"base": f"{i}", "donor": "a"} for i in range(200_000)]}),
    "that_are_crossed": '{"pairs": [{"base": "Gemm_0", "donor": "Gemm_4"}, {"base": "Gemm_4", "donor": "Gemm_0"}]}',
    "of_surrogates": '{"pairs": [{"base": "\\ud800", "donor": "\\udfff"}]}',
    "of_a_nul": '{"pairs": [{"base": "\\u0000", "donor": "\\u0000"}]}',
    "of_nan": '{"pairs": NaN}',
    "of_a_list": "[1]",
    "of_a_number": "1" * 4000,
    "that_unfold": unfolding,
    "that_unfold_to_maps": partial(unfolding, "{},"),
}.items():
    noted(f"pairs_{name}", "", *PAIRS)(lambda folder, text=text: put(folder / "p.json", text))

for name, text in {
    "of_many_names": lambda: "\n".join(map(str, range(2_000_000))),
    "of_one_name": "a\n" * 100_000,
    "of_a_name_twice": "\n".join([*map(str, range(100_000)), "7"]),
    "of_surrogates": '["\\ud800", "a", "b", "c", "d"]',
    "of_numbers": "[1, 2, 3, 4, 5]",
    "of_far_numbers": '{"0": "a", "99999999999999999999": "b"}',
    "of_negative_numbers": '{"-1": "a", "0": "b"}',
    "of_lists": '[["a"], ["b"], ["c"], ["d"], ["e"]]',
    "that_unfold": unfolding,
}.items():
    words = ("assemble", "base.onnx", "m.onnx", "--labels-of", "n.txt", "--labels-of", "-", "-o", "o.onnx")
    noted(f"classes_{name}", "", *words)(lambda folder, text=text: put(folder / "n.txt", text))

SEARCH = ("search", "base.onnx", "m.onnx", "--data", "data.npz", "-o", "o.onnx", "--trials", "2", "--storage", "s.log")
for name, text in {
    "that_is_empty": "",
    "that_is_no_json": "{\n",
    "that_is_deep": "[" * 100_000 + "\n",
    "that_is_a_list": "[]\n",
    "of_an_unknown_operation": '{"op_code": 99, "worker_id": "a"}\n',
    "of_a_huge_operation": '{"op_code": ' + "9" * 5000 + "}\n",
    "of_a_forged_study": '{"op_code": 0, "worker_id": "a", "study_name": "mal-graph x", "directions": [1]}\n',
    "of_a_study_of_escapes": json.dumps({"op_code": 0, "worker_id": ESCAPE, "study_name": ESCAPE, "directions": [1]})
    + "\n",
    "of_many_studies": "".join(
        f'{{"op_code": 0, "worker_id": "a", "study_name": "{i}", "directions": [1]}}\n' for i in range(30_000)
    ),
    "of_a_trial_of_nothing": '{"op_code": 4, "worker_id": "a", "study_id": 7}\n',
    "of_no_text": "\x00" * 100 + "\n",
    "of_one_long_line": lambda: "a" * (40 << 20),
    "that_unfolds": unfolding,
}.items():
    for more in ((), ("--resume",)):
        noted(f"a_study_{name}{'_resumed' if more else ''}", "", *SEARCH, *more)(
            lambda folder, text=text: put(folder / "s.log", text)
        )


@noted("a_study_that_is_a_pipe", "error: ", *SEARCH, "--resume")
def _(folder):
    os.mkfifo(folder / "s.log")


@noted("a_study_that_is_a_folder", "error: ", *SEARCH)
def _(folder):
    (folder / "s.log").mkdir()


@noted("a_study_without_end", "error: ", *SEARCH)
def _(folder):
    (folder / "s.log").symlink_to("/dev/zero")


@noted("a_study_of_50_gib", "error: ", *SEARCH)
def _(folder):
    with (folder / "s.log").open("wb") as file:
        file.truncate(50 << 30)


@noted("a_study_that_is_a_link_to_a_stranger", "", *SEARCH)
def _(folder):
    (folder / "s.log").symlink_to("../victim")


@noted("a_study_in_an_unknown_database", "error: ", *SEARCH[:-1], "nosql://user:secret@host/\x1b[31m")
def _(folder):
    pass


@noted("a_study_in_a_database_that_is_none", "error: ", *SEARCH[:-1], "sqlite:///base.onnx")
def _(folder):
    pass


@noted("a_study_that_is_an_input", "error: ", *SEARCH[:-1], "base.onnx")
def _(folder):
    pass


@noted("a_folder_of_a_study_that_is_a_file", "error: ", *SEARCH[:-2], "--study", "base.onnx")
def _(folder):
    pass


ZOO = ("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "o.onnx")


@noted("a_zoo_of_odd_files", "", *ZOO)
def _(folder):
    zoo = folder / "zoo"
    zoo.mkdir()
    os.mkfifo(zoo / "a.onnx")
    (zoo / "b.onnx").mkdir()
    (zoo / "c.onnx").symlink_to("/dev/zero")
    (zoo / "d.onnx").symlink_to("d.onnx")
    (zoo / "e.onnx").symlink_to("../base.onnx")
    (zoo / f"{ESCAPE}.onnx").write_bytes(b"\xff" * 100)
    (zoo / "f\udcff.onnx").write_bytes(b"")
    (zoo / ".onnx").write_bytes(b"x")


@noted("a_zoo_that_is_a_file", "error: ", "zoo", "base.onnx", "m.onnx", "--data", "data.npz", "-o", "o.onnx")
def _(folder):
    pass


@noted("a_zoo_of_nothing", "error: ", *ZOO)
def _(folder):
    (folder / "zoo").mkdir()


@noted("a_state_of_a_search_that_is_a_pipe", "error: ", *ZOO)
def _(folder):
    (folder / "zoo").mkdir()
    (folder / "m.onnx").rename(folder / "zoo/m.onnx")
    os.mkfifo(folder / "o.onnx.zoo.json")


@noted("a_state_of_a_search_that_unfolds", "error: ", *ZOO)
def _(folder):
    (folder / "zoo").mkdir()
    (folder / "m.onnx").rename(folder / "zoo/m.onnx")
    (folder / "o.onnx.zoo.json").write_text(unfolding())


@noted("a_report_that_unfolds", "error: ", "report", "r.json", "-o", "r.html")
def _(folder):
    (folder / "r.json").write_text(unfolding())


# --- numbers of options -------------------------------------------------------------------------------------------

for flag, value in (
    ("--lambda", "nan"), ("--lambda", "1e999"), ("--lambda", ",".join(["0.5"] * 20_000)), ("--lambda", "\x1b[31m"),
    ("--lambda-for", "*=nan"), ("--lambda-for", "((((=0.5"),
    ("--layers", "-5:99999999999999999999"), ("--layers", "nan%:1e999%"),
    ("--layers", "[" * 3000), ("--budget", "nan"), ("--budget", "1e999"), ("--fold", "nan"),
    ("--pair", "x=\x1b[31m"), ("--pair", "="), ("--set", "weight=1e999"), ("--set", "\x1b[31m=1"),
    ("--method", "\x1b[31m"), ("--method", "os:system"), ("--output-kind", ESCAPE),
    ("--unmatched", "none"), ("--calibrate-of", "/dev/zero"), ("--ancestor", "/dev/zero"), ("--weights", "/dev/zero"),
):  # fmt: skip
    name = f"assemble_with_{flag[2:].replace('-', '_')}_{len(value)}_{sum(map(ord, value[:50]))}"
    noted(name, "error: ", "assemble", "base.onnx", "m.onnx", "-o", "o.onnx", flag, value)(nothing)

for flag, value in (
    ("--lambdas", "0:1:1e-9"), ("--lambdas", "0:1:nan"), ("--lambdas", ",".join(["0.5"] * 20_000)),
    ("--lambdas", "\x1b[31m"), ("--seed", "1" * 18), ("--timeout", "0"), ("--timeout", "1e-9"),
    ("--max-memory", "0"), ("--max-memory", "-1"), ("--verify-timeout", "0"),
):  # fmt: skip
    name = f"sweep_with_{flag[2:].replace('-', '_')}_{len(value)}_{value[:3].replace(':', '_')}"
    noted(name, "", "sweep", "base.onnx", "m.onnx", "--data", "data.npz", flag, value)(nothing)
