"""How well the estimate of a job's memory holds: what it says before anything is computed, beside what the job takes.

    python tools/measure_memory.py [NAME ...] [--size MIB] [-o FILE.json]

Pairs of one shape, drawn at random: perceptrons with weights in the model file and beside it, a residual network, a
transformer, and perceptrons whose donor is twice as wide, with `width=grow`. Each pair is merged and written by a
process of its own, which tells the most memory of its own (no pages of files) that it held over what it held once
everything was imported, for every step of the progress. A `zoo` and a `search` take several donors, noisy copies of
what labels the data, so that some are accepted; of a search the memory of its workers is told with it.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from bench_verification import Kind, Writer, write_bert
from onnx import TensorProto, helper

EVERY = 0.002  # seconds between looks at the memory
MIB = 2**20
SAMPLES = 256
FAR, NEAR = 1.0, 0.3  # how much noise the base and the donors of a zoo have, beside what labels the data


def write_mlp(writer: Writer, size: int, wider: int = 1, layers: int = 4) -> tuple[str, list[int]]:
    """Square layers of so many bytes."""
    width = round((size / 4 / layers) ** 0.5) * wider
    x = "x"
    for _ in range(layers):
        x = writer.op("Relu", writer.linear(x, width, width))
    return x, [1, width]


def write_wide(writer: Writer, size: int, wider: int = 1) -> tuple[str, list[int]]:
    """A perceptron whose hidden layers alone are wider."""
    width = round((size / 4 / 4) ** 0.5) * wider
    x = writer.linear("x", 64, width)
    for _ in range(3):
        x = writer.linear(writer.op("Relu", x), width, width)
    return writer.linear(x, width, 10), [1, 64]


def write_resnet(writer: Writer, size: int, wider: int = 1) -> tuple[str, list[int]]:
    """Residual blocks of two convolutions of 3 by 3, on images of 16 by 16."""
    blocks, classes = 4, 10
    width = max(8, round((size / 4 / (blocks * 2 * 9)) ** 0.5)) * wider
    x = writer.op("Conv", "x", writer.weight(width, 3, 3, 3), pads=[1, 1, 1, 1])
    for _ in range(blocks):
        y = writer.op("Relu", writer.op("Conv", x, writer.weight(width, width, 3, 3), pads=[1, 1, 1, 1]))
        x = writer.op("Add", x, writer.op("Conv", y, writer.weight(width, width, 3, 3), pads=[1, 1, 1, 1]))
    x = writer.op("Flatten", writer.op("GlobalAveragePool", writer.op("Relu", x)))
    return writer.linear(x, width, classes), [1, 3, 16, 16]


def write_transformer(writer: Writer, size: int, wider: int = 1) -> tuple[str, list[int]]:
    """Four blocks as in BERT."""
    width = round((size / 4 / 4 / 12) ** 0.5 / 16) * 16 * wider
    return write_bert(writer, Kind(4, width, 8, 4 * width, 2000)), [1, 16]


@dataclass(frozen=True)
class Shape:
    """One pair, or a base with several donors for a `zoo` or a `search`."""

    write: Callable[..., tuple[str, list[int]]]
    is_external: bool = False
    wider: int = 1
    options: tuple[tuple[str, Any], ...] = (("lam", 0.3),)
    size: float = 1.0
    job: str = "assemble"
    donors: int = 1
    has_data: bool = False

    @property
    def are_related(self) -> bool:
        """Whether all models are noisy copies of one."""
        return self.has_data or self.job != "assemble"


SEARCHED = (("trials", 12), ("batch", 4))

SHAPES = {
    "mlp": Shape(write_mlp),
    "mlp, data beside": Shape(write_mlp, is_external=True),
    "cnn": Shape(write_resnet),
    "cnn, data beside": Shape(write_resnet, is_external=True),
    "transformer": Shape(write_transformer),
    "transformer, data beside": Shape(write_transformer, is_external=True),
    "grown mlp": Shape(write_wide, wider=2, options=(("lam", 0.3), ("width", "grow")), size=0.25),
    "karcher": Shape(write_mlp, options=(("method", "karcher"),)),
    "c2m3": Shape(write_mlp, options=(("method", "c2m3"),)),
    "union": Shape(write_wide, options=(("method", "union"),), size=0.25),
    "mlp with data": Shape(write_wide, has_data=True, size=0.5),
    "mlp with data, beside": Shape(write_wide, is_external=True, has_data=True, size=0.5),
    "zoo": Shape(write_wide, options=(), size=0.5, job="zoo", donors=3, has_data=True),
    "zoo, data beside": Shape(write_wide, is_external=True, options=(), size=0.5, job="zoo", donors=3, has_data=True),
    "zoo of one": Shape(write_wide, options=(), size=0.5, job="zoo", has_data=True),
    "zoo of cnns": Shape(write_resnet, options=(), size=0.5, job="zoo", donors=3, has_data=True),
    "zoo without data": Shape(write_wide, options=(("min_score", 0.0),), size=0.5, job="zoo", donors=4),
    "search": Shape(write_wide, options=SEARCHED, size=0.5, job="search", donors=3, has_data=True),
    "search, data beside": Shape(
        write_wide, is_external=True, options=SEARCHED, size=0.5, job="search", donors=3, has_data=True
    ),
    "search of two workers": Shape(
        write_wide, options=(*SEARCHED, ("workers", 2)), size=0.5, job="search", donors=3, has_data=True
    ),
    "search of cnns": Shape(write_resnet, options=SEARCHED, size=0.5, job="search", donors=3, has_data=True),
}


@dataclass
class Noisy:
    """Draws what others of one seed draw, and noise beside it."""

    shared: np.random.Generator
    own: np.random.Generator
    noise: float

    def standard_normal(self, shape: Any, dtype: Any) -> Any:
        return self.shared.standard_normal(shape, dtype) + np.float32(self.noise) * self.own.standard_normal(
            shape, dtype
        )


def write(path: Path, shape: Shape, size: int, seed: int, wider: int, noise: float | None = None) -> None:
    rng = np.random.default_rng(seed)
    with path.with_suffix(".data").open("wb") as data:
        drawn: Any = rng if noise is None else Noisy(np.random.default_rng(99), rng, noise)
        writer = Writer(data, drawn)
        made = shape.write(writer, size, wider)
    out, dims = made[0], made[1] if noise is None else ["N", *made[1][1:]]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    if shape.write is write_transformer:
        given = helper.make_tensor_value_info("ids", TensorProto.INT64, dims)
    graph = helper.make_graph(
        writer.nodes, path.stem, [given], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)], writer.weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    if not shape.is_external:
        onnx.save(onnx.load(path), path)
        path.with_suffix(".data").unlink()


class Memory(threading.Thread):
    """Looks at the memory of this process again and again: the most of it in bytes, step by step."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.step, self.most = "loading", defaultdict[str, int](int)
        self.before = own_bytes()

    def run(self) -> None:
        while True:
            self.most[self.step] = max(self.most[self.step], own_bytes() - self.before)
            time.sleep(EVERY)


def own_bytes() -> int:
    """What this process, and those that it started, have in memory that is no part of a file, over what each began
    with."""
    held = 0
    for process in family(os.getpid()):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
        begun = BEGUN.setdefault(os.getpid(), own)
        held += max(0, own - begun)
    return held


BEGUN: dict[int, int] = {}  # what this process had when it was first looked at, and others have once all is imported


def family(process: int) -> list[int]:
    """A process, and all that it started and these did."""
    try:
        tasks = Path(f"/proc/{process}/task").iterdir()
        started = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except OSError:
        started = []
    return [process, *(one for child in started for one in family(child))]


def estimated(graphs: Any, config: Any, job: str, kept: int, has_data: bool) -> tuple[dict[str, int], int]:
    """What is said of a job before anything is computed: of its steps, and of the whole.

    Args:
        kept: how many donors the result is made of.
    """
    from mal_graph.searching.search_job import EMPTY, merge_config
    from mal_graph.searching.search_memory import search_needs
    from mal_graph.workflows.job_memory import held_bytes, job_needs
    from mal_graph.workflows.zoo_memory import zoo_needs

    loaded = sum(map(held_bytes, graphs if job == "assemble" else graphs[:1]))
    if job == "assemble":
        needs = list(job_needs(graphs, config, has_data=has_data))
    elif job == "zoo":
        needs = list(zoo_needs(*graphs, config, has_data=has_data, accepted=kept))
    else:
        needs = list(search_needs(*graphs, config, merge_config(config, EMPTY), kept))
    most = {need.step.split(" ")[0]: need.least_bytes + need.kept for need in needs}
    return most, loaded + max(most.values())


def measure(folder: Path, job: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a job takes in this process, and what was said of it before."""
    import mal_graph
    from mal_graph.config import CONFIGS

    warm = folder.parent / "warm.onnx"
    mal_graph.assemble(str(warm), str(warm), lam=0.3).save(folder / "warm.onnx", overwrite=True)  # all is imported
    memory = Memory()
    memory.start()

    def progress(what: str, done: int, total: int) -> None:
        kind = " ".join(word for word in what.split(":")[0].split() if not word.endswith((".onnx", "shuffled")))
        memory.step = kind if done < total else f"after {kind}"

    paths = [str(folder / "base.onnx"), *sorted(map(str, folder.glob("donor*.onnx")))]
    config = CONFIGS[job](**options)
    data = str(folder / "data.npz") if (folder / "data.npz").exists() else None
    graphs = [mal_graph.load(path) for path in paths[:2]]
    if job == "assemble":
        result = mal_graph.assemble(*graphs, config=config, data=data, progress=progress)
    elif job == "zoo":
        result = mal_graph.zoo(graphs[0], paths[1:], data, config=config, progress=progress)
    else:
        result = mal_graph.search(*paths[:1], paths[1:], data, config=config, progress=progress)
    assembly = getattr(result, "assembly", result)
    kept = len(assembly.merged)
    memory.step = "writing"
    assembly.save(folder / "merged.onnx", overwrite=True)
    memory.step = "end"
    said, estimate = estimated(graphs, config, job, kept, data is not None)
    most = max(memory.most.values())
    told = {"steps": dict(memory.most), "most": most, "said": said, "estimate": estimate, "ratio": estimate / most}
    return told if job == "assemble" else {"merged": kept, **told}


def write_data(folder: Path, shape: Shape, size: int) -> None:
    """Inputs, and the classes that a model without noise gives them."""
    teacher = folder.parent / "teacher.onnx"
    write(teacher, shape, size, 0, 1, 0.0)
    session = onnxruntime.InferenceSession(teacher, providers=["CPUExecutionProvider"])
    dims = session.get_inputs()[0].shape[1:]
    x = np.random.default_rng(0).standard_normal((SAMPLES, *dims)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=session.run(None, {"x": x})[0].argmax(axis=1))


def row(name: str, size: int, folder: Path) -> dict[str, Any]:
    shape = SHAPES[name]
    held, is_pair = round(size * shape.size), not shape.are_related
    write(folder.parent / "warm.onnx", SHAPES["mlp"], 4096, 0, 1)
    write(folder / "base.onnx", shape, held, 0, 1, None if is_pair else FAR)
    for number in range(shape.donors):
        write(folder / f"donor{number}.onnx", shape, held, 1 + number, shape.wider, None if is_pair else NEAR)
    if shape.has_data:
        write_data(folder, shape, held)
    weights = {path.name: path.stat().st_size for path in folder.iterdir()}
    command = [sys.executable, __file__, "--measure", str(folder), "--job", shape.job]
    command += ["--given", json.dumps(dict(shape.options))]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {"shape": name, "files": weights, **json.loads(told.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(SHAPES))
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="of a model's weights, where nothing grows")
    parser.add_argument("-v", "--verbose", action="store_true", help="each step, and what was said of it")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--given", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="FILE.json")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.job, given.given)))
        return
    results = []
    for name in given.names or SHAPES:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary, "pair")
            folder.mkdir()
            results.append(row(name, given.size * MIB, folder))
        made = results[-1]
        told = f"{made['most'] / MIB:.0f} MiB, estimated {made['estimate'] / MIB:.0f}: {made['ratio']:.2f} times"
        print(f"{name}: {told}; of files of {sum(made['files'].values()) / MIB:.0f} MiB", flush=True)
        if given.verbose:
            for kind in ("steps", "said"):
                print(f"    {kind}: {', '.join(f'{step} {most / MIB:.0f}' for step, most in made[kind].items())}")
    if given.output:
        Path(given.output).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
