"""True reports, notes of how a model was made, states of a search, pairs and recipes, of which one value or one name is
another: what reads them must not believe that the rest is as it was."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import report_results
import yaml
from builders import mlp, run, save

from crafted.judging import MARKUP, prepared
from crafted.kind import Kind
from crafted.names import ESCAPE
from mal_graph.cli import app
from mal_graph.reporting import result_document
from mal_graph.seals import PROVENANCE
from mal_graph.workflows.checkpoint import READER, digest, json_text
from mal_graph_adapters.onnx_format.seal import DIGEST, MARK, ZEROS

ODD: tuple[Any, ...] = (
    *(None, True, "", "a", 0, 1, -1, 0.5, 2**31, 2**63, -(2**63), 10**40, 1e308, float("nan"), float("inf")),
    *(MARKUP, ESCAPE, f"[x](javascript:{MARKUP})", "../../victim", "/dev/zero", "\ud800", "a\0b", "9" * 400),
    *([], {}, [[]], [None] * 3, {"": None}, ["a"] * 5000),
)
BLENDED = ("assemble", "base.onnx", "m.onnx", "-o", "o.onnx", "--lambda", "0.3", "--no-verify", "--no-compare")
ZOO = ("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "o.onnx", "--lambdas", "0,0.5,1")
RESULTS = ("merged", "zoo", "search", "sweep", "grid", "auto", "compressed")


def changed(value: Any, rng: np.random.Generator) -> Any:
    """Plain data with one value or name in it another, left out, or there twice."""
    if isinstance(value, dict) and value and rng.random() < 0.97:
        name = list(value)[rng.integers(len(value))]
        way = rng.random()
        if way < 0.04:
            return {key: held for key, held in value.items() if key != name}
        if way < 0.08:
            return {**value, str(ODD[rng.integers(len(ODD))])[:50]: value[name]}
        return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = int(rng.integers(len(value)))
        return [*value[:place], changed(value[place], rng), *value[place + (rng.random() < 0.9) :]]
    return ODD[rng.integers(len(ODD))]


@dataclass(frozen=True)
class Source:
    """A document that a command reads.

    Attributes:
        make: the true one.
        put: writes a changed one, and what it is of, into a folder.
        words: of the command.
    """

    make: Callable[[], Any]
    put: Callable[[Path, Any], None]
    words: tuple[str, ...]


@cache
def results() -> dict[str, bytes]:
    """What commands wrote of a pair of small models, by name: a model, its recipe, a state."""
    with tempfile.TemporaryDirectory(prefix="crafted") as made:
        folder = Path(made)
        prepared(folder)
        both(folder)
        for words in ((*BLENDED, "--save-recipe", "r.yaml"), (*ZOO[:-3], "z.onnx", *ZOO[-2:])):
            paths = [
                str(folder / word) if "." in word[1:] and "," not in word and word != "0.3" else word for word in words
            ]
            paths[2] = str(folder / words[2])
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                code = app.main(paths)
            assert code in (app.GOOD, app.GATE_FAILED), code
        written = {name: (folder / name).read_bytes() for name in ("o.onnx", "r.yaml", "z.onnx.zoo.json")}
    return {**written, "r.yaml": written["r.yaml"].replace(f"{made}/".encode(), b"")}


def both(folder: Path) -> None:
    """A donor, a folder of one, and data whose labels the donor knows."""
    donor = mlp((8, 16, 12, 5), seed=1)
    save(donor, folder / "m.onnx")
    (folder / "zoo").mkdir(exist_ok=True)
    save(donor, folder / "zoo/a.onnx")
    x = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=run(donor, {"x": x})[0].argmax(axis=1))


def text_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def report_of(name: str) -> Callable[[], Any]:
    return cache(lambda: json.loads(result_document(report_results.result(name)).model_dump_json(by_alias=True)))


def put_report(folder: Path, value: Any) -> None:
    (folder / "r.json").write_bytes(text_of(value))


def put_note(folder: Path, value: Any) -> None:
    """Under a seal that fits."""
    both(folder)
    proto = onnx.ModelProto.FromString(results()["o.onnx"])
    for entry in proto.metadata_props:
        if entry.key == PROVENANCE:
            entry.value = json.dumps(value)
        if entry.key == DIGEST:
            entry.value = ZEROS.decode()
    content = proto.SerializeToString()
    place = content.rindex(MARK) + len(MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    (folder / "o.onnx").write_bytes(content[:place] + digest + content[place + len(digest) :])


def put_state(folder: Path, value: Any) -> None:
    """A state whose digest fits, where it is one at all."""
    both(folder)
    if isinstance(value, dict):
        value.pop("sha256", None)
        with suppress(ValueError):
            value = {**value, "sha256": digest(json_text(READER.validate_python(value)))}
    (folder / "o.onnx.zoo.json").write_bytes(text_of(value))


def put_pairs(folder: Path, value: Any) -> None:
    both(folder)
    (folder / "p.json").write_bytes(text_of(value))


def put_recipe(folder: Path, value: Any) -> None:
    both(folder)
    (folder / "r.yaml").write_bytes(text_of(value))  # JSON is YAML


def note_made() -> Any:
    model = onnx.ModelProto.FromString(results()["o.onnx"])
    return json.loads(next(one.value for one in model.metadata_props if one.key == PROVENANCE))


def recipe_made() -> Any:
    return yaml.safe_load(results()["r.yaml"])


SHOWN = {"a page": ("-o", "r.html"), "Markdown": ("-o", "r.md"), "text": ()}
SOURCES: dict[str, Source] = {
    **{
        f"report of {name} as {kind}": Source(report_of(name), put_report, ("report", "r.json", *more))
        for name in RESULTS
        for kind, more in SHOWN.items()
    },
    "note": Source(note_made, put_note, ("audit", "o.onnx", "--from", "base.onnx", "m.onnx")),
    "note on a card": Source(note_made, put_note, ("card", "o.onnx", "-o", "o.md")),
    "state": Source(lambda: json.loads(results()["z.onnx.zoo.json"]), put_state, ZOO),
    "pairs": Source(lambda: {"pairs": [{"base": "Gemm_0", "donor": "Gemm_0"}, {"base": "Gemm_2", "donor": "Gemm_2"}]},
                    put_pairs, (*BLENDED, "--matches", "p.json")),
    "recipe": Source(recipe_made, put_recipe, ("merge", "r.yaml", "-o", "o.onnx")),
    "recipe of slices": Source(
        lambda: {"merge_method": "passthrough", "slices": [
            {"sources": [{"model": "base.onnx", "layer_range": [0, 1]}]},
            {"sources": [{"model": "m.onnx", "layer_range": [1, 2]}]}]},
        put_recipe, ("merge", "r.yaml", "-o", "o.onnx")),
}  # fmt: skip


def documents(count: int, seed: int) -> Iterator[Kind]:
    """Kinds of folders with one changed document each."""
    names = list(SOURCES)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name = names[rng.integers(len(names))]
        source = SOURCES[name]

        def build(folder: Path, source: Source = source, rng: np.random.Generator = rng) -> None:
            source.put(folder, changed(source.make(), rng))

        yield Kind(f"document {number}, {name}", build, words=source.words)
