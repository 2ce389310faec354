"""What writing a merged file costs beside a copy of it: seconds and memory, side by side in one run.

    python tools/bench_stream.py [--sizes 0.25 0.5 1] [--layers 16] [--jobs cp "merge, two cores"] [--rounds 3]
        [-o FILE.md]

The pair are two perceptrons of square layers with weights drawn at random and data in files of their own, the units of
the donor in a random order: every row and every column of it is moved. Each job runs in a process of its own: a copy by
`cp`, one by pieces with their SHA-256 (which a seal holds, and the name of the data), `onnx.load` and `onnx.save`, and
the merge, which is planned before the clock starts and then saved. Memory is the highest resident set meanwhile, mapped
pages counted, over what the imports take. `--turned` stores the donor's weights transposed, `--type` names the element
type, and `--layers` how many layers there are, of whatever width makes the size; without it layers of one width, as
many as make it.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

WIDTH = 4096  # units of each layer, where their number is open
ONE = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}
JOBS = ("cp", "cp, digested", "onnx", "merge, one core", "merge, two cores", "merge sealed, two cores")
PIECE = 2**19  # bytes that are copied at once


def write_model(
    path: Path, size: float, kind: str, seed: int, is_turned: bool = False, layers: int | None = None
) -> None:
    """A perceptron whose data take so many GiB."""
    dtype = np.dtype(getattr(ml_dtypes, kind, kind))
    numbers = size * 2**30 / dtype.itemsize
    width = round((numbers / layers) ** 0.5) if layers else WIDTH
    layers = layers or max(1, round(numbers / WIDTH**2))
    rng = np.random.default_rng(seed)
    nodes, stored, offset = [], [], 0
    with open(f"{path}.data", "wb") as data:
        for layer in range(layers):
            for name, shape in ((f"w{layer}", (width, width)), (f"b{layer}", (width,))):
                values = (rng.standard_normal(shape, np.float32) / 64).astype(dtype)
                tensor = onnx.TensorProto(name=name, dims=shape, data_type=ONE[kind], data_location="EXTERNAL")
                places = {"location": f"{path.name}.data", "offset": str(offset), "length": str(values.nbytes)}
                for key, value in places.items():
                    tensor.external_data.add(key=key, value=value)
                offset += data.write(values.tobytes())
                stored.append(tensor)
            inner = f"x{layer}"
            nodes.append(
                helper.make_node("Gemm", [inner, f"w{layer}", f"b{layer}"], [f"y{layer}"], transB=int(is_turned))
            )
            nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    x, y = (helper.make_tensor_value_info(name, ONE[kind], ["N", width]) for name in ("x0", f"x{layers}"))
    graph = helper.make_graph(nodes, path.stem, [x], [y], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def resident(field: str) -> float:
    """MiB that this process has, or had at most, in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def clocks() -> tuple[float, float]:
    """Seconds by the clock, and of the processor: this process and those that it started."""
    return time.perf_counter(), sum(os.times()[:4])


def told(start: tuple[float, float], imported: float) -> str:
    """The seconds since a start, and the MiB that this process had at most over what it had."""
    seconds = (now - before for now, before in zip(clocks(), start, strict=True))
    return f"{' '.join(map(str, seconds))} {max(0.0, resident('VmHWM') - imported)}"


def measured(job: str, folder: Path) -> str:
    """Seconds of a job and the MiB that it took at most, over the imports."""
    out, imported = folder / "out.onnx", resident("VmRSS")
    if "merge" in job:
        return measured_merge(folder, out, is_sealed="sealed" in job)
    start = clocks()
    if job == "cp":
        subprocess.run(["cp", folder / "base.onnx.data", folder / "out.onnx.copy.data"], check=True)
    elif job == "cp, digested":
        copy_digested(folder / "base.onnx.data", folder / "out.onnx.copy.data")
    else:
        onnx.save(onnx.load(folder / "base.onnx"), out, save_as_external_data=True, location="out.onnx.data")
    return told(start, imported)


def copy_digested(source: Path, target: Path) -> str:
    """Copy a file by pieces that fit into the cache; its SHA-256."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE))
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        while count := read.readinto(piece):
            digest.update(piece[:count])
            written.write(piece[:count])
    return digest.hexdigest()


def measured_merge(folder: Path, out: Path, is_sealed: bool) -> str:
    """As above, of a merge that is planned and not yet computed."""
    from mal_graph import load, registry
    from mal_graph.config import MergeConfig
    from mal_graph.matching import Alignment, correspond, match_layers
    from mal_graph.merging import LayerLambdas, merge, plan_merge
    from mal_graph.symmetry import Network, axis_groups
    from mal_graph.workflows.provenance import Origin, provenance_of, with_provenance
    from mal_graph_adapters.onnx_format.document import release_memory

    registry.adapter_for(str(out))
    imported = resident("VmRSS")
    base, donor = load(folder / "base.onnx"), load(folder / "donor.onnx")
    groups = axis_groups(base), axis_groups(donor)
    pair = correspond(Network(base, groups[0]), Network(donor, groups[1]), match_layers(base, donor))
    orders, none = pair.nests.drawn(np.random.default_rng(0)), (0.0,) * len(pair.pairs)
    # What the orders are worth takes longer to compute than all the rest, and changes nothing of what is written.
    plan = plan_merge(Alignment(pair, orders, 0.0, none, none, "random", ()), LayerLambdas.of(0.3))
    release_memory()  # those of the plan, as a save does first of all
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set is counted from here
    start = clocks()
    graph = merge(plan)
    if is_sealed:
        graph = with_provenance(graph, provenance_of(Origin("assemble", (base, donor), MergeConfig()), "", ()))
    registry.adapter_for(str(out)).save(graph, out)
    return told(start, imported)


def results(folder: Path, jobs: Sequence[str], rounds: int) -> dict[str, list[list[float]]]:
    """Of each job and round the seconds by the clock, those of the processor, and MiB."""
    measures: dict[str, list[list[float]]] = {job: [] for job in jobs}
    for job in [*jobs] * rounds:
        words = [sys.executable, __file__, "--job", job, "--folder", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1" if job.endswith("one core") else "2"}
        said = subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout
        measures[job].append([float(number) for number in said.split()])
        for path in folder.glob("out.onnx*"):
            path.unlink()
    return measures


def rows(given: argparse.Namespace) -> Iterator[str]:
    """The lines of the table."""
    for size in given.sizes:
        with TemporaryDirectory(dir=given.where) as name:
            folder = Path(name)
            write_model(folder / "base.onnx", size, given.type, 1, layers=given.layers)
            write_model(folder / "donor.onnx", size, given.type, 2, given.turned, given.layers)
            measures = results(folder, given.jobs, given.rounds)
        copied = [statistics.median(column) for column in zip(*measures[JOBS[0]], strict=True)]
        for job, rounds in measures.items():
            wall, cpu, memory = zip(*rounds, strict=True)
            seconds = [statistics.median(column) for column in (wall, cpu)]
            cells = (f"{own:.2f} | {own / max(one, 0.01):.1f}" for own, one in zip(seconds, copied, strict=False))
            yield f"| {size} | {job} | {' | '.join(cells)} | {max(memory):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25, 0.5, 1.0], metavar="GiB")
    parser.add_argument("--layers", type=int, help="how many layers, of whatever width makes the size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--type", choices=sorted(ONE), default="float32")
    parser.add_argument(
        "--jobs", choices=JOBS, nargs="+", default=JOBS, help="beside the copy, by which others are told"
    )
    parser.add_argument("--turned", action="store_true", help="the donor's weights are stored transposed")
    parser.add_argument("--where", help="the folder that is written to, that of temporary files if left out")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    given = parser.parse_args()
    given.jobs = [job for job in JOBS if job in (JOBS[0], *given.jobs)]
    if given.job:
        print(measured(given.job, given.folder))
        return
    lines = [
        f"Type {given.type}{', the donor stored transposed' if given.turned else ''}"
        f"{f', {given.layers} layers' if given.layers else ''}.",
        f"Medians of {given.rounds} rounds, and the most memory of any.",
        "",
        "| GiB | job | seconds | times `cp` | processor seconds | times `cp` | MiB over the imports |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for line in rows(given):
        print(line, flush=True)
        lines.append(line)
    if given.output:
        Path(given.output).write_text("# What writing a merged file costs\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
