"""What it takes to match, align, merge and save a pair of large models: minutes and memory, step by step.

    python tools/measure_scale.py [--blocks 6 11 22] [--type float32 float16] [--where FOLDER] [-o FILE.md]

The pair is shaped like the Llama of `bench_verification` (1.1 B parameters: 22 blocks of width 2048), its
weights drawn at random and in files of their own: nothing corresponds, which is the longest way for an alignment.
Each pair is merged in a process of its own by `assemble` with `lam=0.3` and written. Told are the seconds between one
message of its progress and the next, by what they say; the most memory of its own that the process held, and with the
pages of the models' files that the system keeps for it and can take back at any time.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from bench_verification import KINDS, WRITERS, Writer
from onnx import TensorProto, helper

EVERY = 0.2  # seconds between looks at the memory
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
MIB = 2**20


class TypedWriter(Writer):
    """Writes weights, and small numbers, in a type."""

    kind = "float32"

    def weight(self, *shape: int, scale: float = 0.02, mean: float = 0.0) -> str:
        values = (mean + np.float32(scale) * self.rng.standard_normal(shape, np.float32)).astype(self.kind)
        proto = TensorProto(name=f"w{len(self.weights)}", data_type=TYPES[self.kind], dims=shape)
        proto.data_location = TensorProto.EXTERNAL
        places = {"location": Path(self.data.name).name, "offset": self.data.tell(), "length": values.nbytes}
        for key, value in places.items():
            proto.external_data.add(key=key, value=str(value))
        self.data.write(values.tobytes())
        self.weights.append(proto)
        return proto.name

    def constant(self, values: Any) -> str:
        values = np.asarray(values)
        return super().constant(values.astype(self.kind) if values.dtype.kind == "f" else values)


def write(path: Path, blocks: int, kind: str, seed: int) -> None:
    """A model of so many blocks, with its weights beside it."""
    with path.with_suffix(".data").open("wb") as data:
        writer = TypedWriter(data, np.random.default_rng(seed))
        writer.kind = kind
        out = WRITERS["llama"](writer, replace(KINDS["llama"], blocks=blocks))
    graph = helper.make_graph(
        writer.nodes,
        path.stem,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 16))],
        [helper.make_tensor_value_info(out, TYPES[kind], None)],
        writer.weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


class Memory(threading.Thread):
    """Looks at the memory of this process again and again: the most of it in MiB, its own and with mapped pages."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0.0
        self.steps: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self.step = ""

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            own, mapped = (int(line.split()[1]) / 1024 for line in lines if line.startswith(("RssAnon", "RssFile")))
            self.own, self.all = max(self.own, own), max(self.all, own + mapped)
            most = self.steps[self.step]
            self.steps[self.step] = max(most[0], own), max(most[1], own + mapped)
            time.sleep(EVERY)


def measure(folder: Path) -> dict[str, Any]:
    """What merging the pair in a folder takes in this process."""
    import mal_graph

    memory, seconds = Memory(), defaultdict[str, list[float]](lambda: [0.0, 0.0])
    memory.start()
    last = time.perf_counter(), time.process_time()

    def enter(step: str) -> None:
        nonlocal last
        now = time.perf_counter(), time.process_time()
        seconds[memory.step] = [sum(own) for own in zip(seconds[memory.step], now, (-last[0], -last[1]), strict=True)]
        memory.step, last = step, now

    def progress(what: str, done: int, total: int) -> None:
        kind = " ".join(word for word in what.split() if not word.endswith(".onnx"))
        enter(kind if done < total else f"after {kind}")

    began = time.perf_counter(), time.process_time()
    paths = [str(folder / name) for name in ("base.onnx", "donor.onnx")]
    result = mal_graph.assemble(*paths, lam=0.3, progress=progress)
    enter("writing")
    result.save(folder / "merged.onnx", overwrite=True)
    enter("")
    passed = {check.name: str(check) for check in result.checks}
    return {
        "minutes": (time.perf_counter() - began[0]) / 60,
        "cpu": (time.process_time() - began[1]) / 60,
        "own": memory.own,
        "all": memory.all,
        "seconds": dict(seconds),
        "steps": dict(memory.steps),
        "checks": passed,
    }


def rows(kind: str, blocks: int, given: argparse.Namespace) -> Sequence[str]:
    """The lines of one pair, the whole first."""
    with TemporaryDirectory(dir=given.where) as name:
        folder = Path(name)
        for seed, model in enumerate(("base", "donor")):
            write(folder / f"{model}.onnx", blocks, kind, seed)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
        command = [sys.executable, __file__, "--measure", name]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    made = json.loads(told.splitlines()[-1])
    given.raw.append({"type": kind, "blocks": blocks, "GiB": size, **made})
    head = f"| {kind} | {blocks} | {size:.1f} "
    whole = f"{head}| all | {made['minutes']:.1f} | {made['cpu']:.1f} | {made['own']:,.0f} | {made['all']:,.0f} |"
    steps = [
        f"{head}| {step} | {wall / 60:.2f} | {cpu / 60:.2f} | {own:,.0f} | {mapped:,.0f} |"
        for step, (wall, cpu) in made["seconds"].items()
        if wall >= 1
        for own, mapped in [made["steps"].get(step, (0.0, 0.0))]
    ]
    return [whole, *steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[6, 11, 22])
    parser.add_argument("--type", choices=sorted(TYPES), nargs="+", default=["float32"])
    parser.add_argument("--where", help="the folder that is written to, that of temporary files if left out")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    given = parser.parse_args()
    given.raw = []
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    lines = [
        "| type | blocks | GiB of both | step | minutes | CPU | MiB of its own | MiB with mapped pages |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for kind in given.type:
        for blocks in given.blocks:
            for line in rows(kind, blocks, given):
                print(line, flush=True)
                lines.append(line)
    if given.output:
        Path(given.output).write_text("# What merging a pair of large models takes\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
