"""Words of the command line drawn by a seed: one flag more, with a value that nobody means."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from builders import mlp, save

from crafted.judging import MARKUP
from crafted.kind import Kind
from crafted.names import ESCAPE
from mal_graph.cli.commands import flagged

VALUES = (
    *("", " ", "a", ESCAPE, MARKUP, "nan", "inf", "-inf", "-1", "0", "1e999", "1" * 400, "0.5", "2", "1e-400"),
    *(",", ":", "=", "a=b", "x:", "x:0", "x:-1", "*", "[", "(((", "0:1:0", "1:0", "None", "true", "{}", "[]"),
    *("base.onnx", "data.npz", "m.onnx", ".", "/dev/zero", "/dev/null", "/proc/self/mem", "no/such.json", "-", "--"),
    *("../victim", "x" * 300 + ".json", "file:///dev/zero", "nosuch://a/b", "http://[", "o.html", "1,2,3", "float16"),
)
BASE = {  # a sound command of each verb
    "inspect": ("inspect", "base.onnx"),
    "match": ("match", "base.onnx", "m.onnx"),
    "diagram": ("diagram", "base.onnx", "-o", "o.svg"),
    "assemble": ("assemble", "base.onnx", "m.onnx", "-o", "o.onnx"),
    "compress": ("compress", "base.onnx", "-o", "o.onnx"),
    "evaluate": ("evaluate", "base.onnx", "--data", "data.npz"),
    "sweep": ("sweep", "base.onnx", "m.onnx", "--data", "data.npz"),
    "zoo": ("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "o.onnx"),
    "search": ("search", "base.onnx", "m.onnx", "--data", "data.npz", "-o", "o.onnx", "--trials", "2"),
    "merge": ("merge", "r.yaml", "-o", "o.onnx"),
    "audit": ("audit", "base.onnx"),
    "card": ("card", "base.onnx"),
    "report": ("report", "r.json"),
    "methods": ("methods",),
}
LEFT_OUT = ("--help", "--scheduler")  # the other machine is asked for as long as `ANSWER` says


@cache
def flags_of(verb: str) -> tuple[tuple[str, bool], ...]:
    """The flags of a command, and whether each takes a value."""
    own = flagged(verb).params
    named = [(one.opts[0], not one.is_flag) for one in own if one.param_type_name == "option"]
    return tuple((flag, takes) for flag, takes in named if flag not in LEFT_OUT)


def put(folder: Path) -> None:
    save(mlp((8, 16, 12, 5), seed=1), folder / "m.onnx")
    (folder / "zoo").mkdir()
    save(mlp((8, 16, 12, 5), seed=1), folder / "zoo/a.onnx")
    (folder / "r.yaml").write_text("merge_method: linear\nmodels: [{model: base.onnx}, {model: m.onnx}]\n")


def wordings(count: int, seed: int) -> Iterator[Kind]:
    """Commands with one or two flags more, and values that nobody means."""
    verbs = list(BASE)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        verb = verbs[rng.integers(len(verbs))]
        more: list[str] = []
        for _ in range(int(rng.integers(1, 3))):
            flag, takes = flags_of(verb)[rng.integers(len(flags_of(verb)))]
            more += [flag, VALUES[rng.integers(len(VALUES))]] if takes else [flag]
        shown = " ".join(word[:40] for word in (verb, *more))
        yield Kind(f"wording {number}, {shown!a}", put, words=(*BASE[verb], *more))
