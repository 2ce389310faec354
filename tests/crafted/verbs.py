"""Every command that meets a model of a stranger, and models that `inspect` meets met by the others."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from crafted import KINDS
from crafted.kind import MODEL, Kind

RECIPE = "r.yaml"
INSPECT = ("inspect", MODEL)
VERBS = {  # what else meets a model
    "match": ("match", "base.onnx", MODEL, "-o", "out.html"),
    "diagram": ("diagram", MODEL, "-o", "out.svg"),
    "donor": ("assemble", "base.onnx", MODEL, "-o", "out.onnx", "--lambda", "0.3"),
    "base": ("assemble", MODEL, "base.onnx", "-o", "out.onnx", "--report", "out.html"),
    "method": ("assemble", "base.onnx", MODEL, "-o", "out.onnx", "--method", "linear"),
    "twice": ("assemble", MODEL, MODEL, "-o", "out.onnx", "--method", "union"),
    "compress": ("compress", MODEL, "-o", "out.onnx", "--budget", "0.5"),
    "evaluate": ("evaluate", "base.onnx", MODEL, "--data", "data.npz"),
    "sweep": ("sweep", "base.onnx", MODEL, "--data", "data.npz", "--lambdas", "0,0.5,1", "-o", "out.csv"),
    "zoo": ("zoo", "base.onnx", ".", "--data", "data.npz", "-o", "out.onnx"),
    "audit": ("audit", MODEL),
    "made": ("audit", "base.onnx", "--from", MODEL, "base.onnx"),
    "card": ("card", MODEL, "-o", "out.md"),
    "ancestor": ("assemble", "base.onnx", "base.onnx", "--ancestor", MODEL, "-o", "out.onnx", "--method", "ties"),
    "grid": ("sweep", "base.onnx", MODEL, "--grid", "--data", "data.npz", "-o", "out.csv"),
    "search": ("search", "base.onnx", MODEL, "--data", "data.npz", "-o", "out.onnx", "--trials", "2"),
    "recipe": ("merge", RECIPE, "-o", "out.onnx"),
}


def models() -> list[Kind]:
    """Quick kinds of models that `inspect` meets."""
    return [kind for kind in KINDS.values() if kind.words == INSPECT and not kind.is_slow]


def met_by(verb: str, kind: Kind) -> Kind:
    """A model that another command meets."""
    return replace(kind, name=f"{verb} {kind.name}", build=beside_a_recipe(kind.build), words=VERBS[verb], says="")


def through(verbs: Sequence[str], count: int | None, seed: int) -> list[Kind]:
    """Models met by other commands: so many for each, drawn by a seed, or all."""
    every = models()
    return [
        met_by(verb, kind)
        for verb in verbs
        for kind in random.Random(f"{seed} {verb}").sample(every, min(len(every), count or len(every)))
    ]


def beside_a_recipe(build: Callable[[Path], None]) -> Callable[[Path], None]:
    """Puts a recipe that names the model beside what is built."""

    def put(folder: Path) -> None:
        text = f"merge_method: linear\nmodels: [{{model: base.onnx}}, {{model: {MODEL}}}]\n"
        (folder / RECIPE).write_text(text, encoding="utf-8")
        build(folder)

    return put
