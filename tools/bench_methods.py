"""How much memory a merge method takes beside the largest tensor: a recipe over three files, a process for each job.

    python tools/bench_methods.py [--size 0.25] [--methods linear ties] > tools/results/bench_methods.md
    python tools/bench_methods.py --jobs written --methods ties tsv_m

The three files are perceptrons of square layers with data in files of their own (see `bench_stream.py`): a base, which
is the ancestor where a method needs one, and two that were tuned from it, so to say. "written" is the merge itself:
models and orders are there, every tensor is made and written. "whole job" is `mal-graph merge` with the checks that
run the models, groups unverified and nothing compared. Memory is the highest resident set meanwhile, mapped pages
counted, over what the imports take; beside it how many times the largest tensor that is. "made" is how often the method
made a tensor, for each tensor, where it makes them as a whole.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bench_stream import WIDTH, clocks, resident, told, write_model

JOBS = ("written", "whole job")
METHODS = ("linear", "consensus", "ties", "dare_linear")
LARGEST = WIDTH * WIDTH * 4 / 2**20  # MiB of a float32 tensor
NAMES = ("base", "one", "two")


def write_tuned(folder: Path, size: float) -> None:
    """A base, and two that are near to it."""
    for seed, name in enumerate(NAMES):
        write_model(folder / f"{name}.onnx", size, "float32", 0)
        if seed:
            values = np.memmap(f"{folder / name}.onnx.data", np.float32, "r+")
            rng = np.random.default_rng(seed)
            for start in range(0, len(values), 2**22):
                part = values[start : start + 2**22]
                part *= rng.uniform(0.98, 1.02, len(part)).astype(np.float32)
            values.flush()


def measured(job: str, method: str, folder: Path) -> str:
    """Seconds by the clock and of the processor, the MiB at most over the imports, and how often a tensor was made."""
    from mal_graph import load, registry
    from mal_graph.matching import assign_in_order, correspond, match_layers
    from mal_graph.merging import LayerLambdas, Stacking, plan_merge, stack_merge
    from mal_graph.methods import Need, find_method
    from mal_graph.symmetry import Network, axis_groups
    from mal_graph_adapters.onnx_format.document import release_memory

    chosen, out = find_method(method), folder / "out.onnx"
    is_from_base = chosen.needs is Need.ANCESTOR
    if job == "whole job":
        from mal_graph.cli.app import main as run

        models = [{"model": f"{name}.onnx"} for name in NAMES[is_from_base:]]
        recipe = {"merge_method": method, "base_model": "base.onnx", "models": models}
        recipe["options"] = {"verify": False, "compare": False}
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        imported, start = resident("VmRSS"), clocks()
        assert (
            run(["merge", str(folder / "recipe.yaml"), "-o", str(out), "-q", "--in-process", "--format", "json"]) == 0
        )
        return f"{told(start, imported)} nan"
    registry.adapter_for(str(out))
    imported = resident("VmRSS")
    base, *donors = (load(folder / f"{name}.onnx") for name in NAMES)
    plans = []
    for donor in donors:
        networks = Network(base, axis_groups(base)), Network(donor, axis_groups(donor))
        pair = correspond(*networks, match_layers(base, donor))
        plans.append(plan_merge(assign_in_order(pair), LayerLambdas.of(0.5)))
    made = [0]

    def counting(*given: object, **named: object) -> object:
        made[0] += 1
        return chosen.function(*given, **named)

    counting.__annotations__ = chosen.function.__annotations__
    stacking = Stacking(base, replace(chosen, function=counting), (), tuple(plans), None, is_from_base)
    release_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set is counted from here
    start = clocks()
    graph = stack_merge(stacking)
    registry.adapter_for(str(out)).save(graph, out)
    times = float("nan") if chosen.by_entry or chosen.sieve else made[0] / len(stacking.tensors)
    return f"{told(start, imported)} {times}"


def rows(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The lines of the table."""
    for method in options.methods:
        for job in options.jobs:
            words = [sys.executable, __file__, "--job", job, "--methods", method, "--folder", str(folder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            seconds, _, memory, times = map(float, said.split()[-4:])
            for path in folder.glob("out.onnx*"):
                path.unlink()
            often = "-" if np.isnan(times) else f"{times:.0f}"
            yield f"| {method} | {job} | {seconds:.0f} | {memory:.0f} | {memory / LARGEST:.1f} | {often} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=0.25, metavar="GiB", help="of each file")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--jobs", nargs="+", default=JOBS, choices=JOBS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(measured(options.job, options.methods[0], options.folder))
        return
    print("# How much memory merge methods take\n")
    shown = "" if options.jobs == JOBS else f" --jobs {' '.join(options.jobs)} --methods {' '.join(options.methods)}"
    print(f"Made by `python tools/bench_methods.py --size {options.size}{shown}` on a machine that did much else:")
    print(f"seconds tell little. Three files of {options.size} GiB each; the largest tensor takes {LARGEST:.0f} MiB.\n")
    print("| method | job | seconds | MiB over the imports | times the largest tensor | made |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        write_tuned(Path(name), options.size)
        for row in rows(options, Path(name)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
