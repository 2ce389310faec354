"""A whole `assemble`, process by process: `python tools/bench_assemble.py [--other PYTHON] [-o FILE.md]`.

Pairs of files are merged by the command line of this interpreter's mal_graph and, in turns, of another one's: that of
an earlier commit, which is named by its interpreter. Counted are seconds of processors of the whole process and of
those that it starts, with one thread, medians of the rounds; beside them those of imports alone, for the first pair: of
a process that loads all modules that a merge had loaded when it ended, and of one that loads what runs models, where
there is such a process.

The donors are the base with the units of every group shuffled, mixed with noise (see `bench_align`), or strangers. A
merge is `--method mal`, the only one that the commits before `--method` knew; without this option other ways are tried
as well. The merges of the demo are those of the Makefile, by all ways.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is imported
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is imported is compiled once, as it is for who installs it

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from bench_align import CORRELATIONS, MODELS, donor_of, drawn

import mal_graph
from mal_graph.graph import LayerGraph
from mal_graph.network import find_parameters
from mal_graph.operators import ParameterKind
from mal_graph.symmetry import axis_groups

EXAMPLE = Path(__file__).parents[1] / "examples/01_first_merge"
DEMO = ("tuned", "twin", "mlp", "cnn")
DONORS = ("planted, corr .7", "independent")
COMMAND = """
import json, sys
from importlib.metadata import entry_points
(entry,) = entry_points(group="console_scripts", name="mal-graph")
target, sys.argv[1:] = sys.argv[1], sys.argv[2:]
try:
    entry.load()()
finally:
    open(target, "w").write(json.dumps([name for name in sys.modules if name != "__main__"]))
"""
IMPORTS = """
import json, sys
from contextlib import suppress
from importlib import import_module
for name in json.loads(open(sys.argv[1]).read()):
    with suppress(ImportError):
        import_module(name)
"""
WORKER = """
from contextlib import suppress
with suppress(ImportError):
    import mal_graph_adapters.onnx_format.worker
"""


@dataclass(frozen=True)
class Side:
    """An interpreter with a mal_graph.

    Attributes:
        python: its path.
        options: what makes its `assemble` a merge of weights.
    """

    python: str
    options: tuple[str, ...] = ()

    def merge(self, words: Sequence[str], folder: Path) -> float:
        """Seconds of one merge."""
        return seconds([str(Path(self.python).with_name("mal-graph")), *words, *self.options], folder)

    def imports(self, words: Sequence[str], folder: Path) -> float:
        """Seconds that the imports of one merge take."""
        seconds([self.python, "-c", COMMAND, "modules.json", *words, *self.options], folder)
        return sum(
            median(seconds([self.python, "-c", *loading], folder) for _ in range(3))
            for loading in ([IMPORTS, "modules.json"], [WORKER])
        )


def seconds(words: Sequence[str], folder: Path) -> float:
    """Seconds of processors that a command takes in a folder. Raises SystemExit where it fails."""
    before = os.times()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(words[-8:])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def made_pairs(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Models and donors, written as `base.onnx` and `donor.onnx`: the name of each."""
    for name in names:
        base = drawn(MODELS[name](), 0)
        groups = axis_groups(base)
        mal_graph.save(base, folder / "base.onnx", overwrite=True)
        for kind in DONORS:
            donor = with_other_scales(donor_of(base, groups, CORRELATIONS[kind], 1))
            mal_graph.save(donor, folder / "donor.onnx", overwrite=True)
            yield name, kind


def with_other_scales(graph: LayerGraph) -> LayerGraph:
    """The graph with scales and variances that are up to a tenth off: equal ones would tell which unit is which."""
    rng = np.random.default_rng(2)
    own = [p.tensor for p in find_parameters(graph) if p.kind in (ParameterKind.SCALE, ParameterKind.VARIANCE)]
    values = {name: graph.weights[name].read() for name in own}
    return graph.with_weights(
        {name: array * rng.uniform(0.9, 1.1, array.shape).astype(array.dtype) for name, array in values.items()}
    )


def pair_rows(folder: Path, names: Sequence[str], sides: Sequence[Side], rounds: int) -> Iterator[str]:
    """What merges of models take, a line of the table each: for every side in all and by imports, and the ratios."""
    words = ["assemble", "base.onnx", "donor.onnx", "-o", "merged.onnx", "--force", "-q"]
    imports: list[float] = []
    for name, kind in made_pairs(folder, names):
        imports = imports or [side.imports(words, folder) for side in sides]
        spent = [[side.merge(words, folder) for side in sides] for _ in range(rounds)]
        whole = [median(column) for column in zip(*spent, strict=True)]
        cells = [f"{number:.2f}" for pair in zip(whole, imports, strict=True) for number in pair]
        if len(sides) > 1:
            beyond = [every - own for every, own in zip(whole, imports, strict=True)]
            cells += [f"{number[0] / number[1]:.2f}" for number in (whole, beyond)]
        yield f"| {name}, {kind} | {' | '.join(cells)} |"


def demo_rows(folder: Path, side: Side, rounds: int) -> Iterator[str]:
    """What the merges of the demo take."""
    given = ["--data", f"{EXAMPLE}/data.npz", "--calibrate", f"{EXAMPLE}/calib.npz", "--force", "-q"]
    for name in DEMO:
        words = ["assemble", *given, *(f"{EXAMPLE}/{name}_{end}.onnx" for end in "ab"), "-o", "merged.onnx"]
        whole, imports = median(side.merge(words, folder) for _ in range(rounds)), side.imports(words, folder)
        yield f"| {name} | {whole:.2f} | {imports:.2f} | {whole - imports:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", metavar="PYTHON", help="the interpreter of another commit, without `--method`")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["VGG16", "ResNet50"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", metavar="FILE.md", type=Path, help="write the tables here too")
    given = parser.parse_args()
    sides = [*([Side(given.other)] if given.other else []), Side(sys.executable, ("--method", "mal"))]
    names = ["before", "now"][-len(sides) :]
    head = ["pair", *(f"{name}{part}" for name in names for part in (" (CPU s)", ", imports"))]
    head += ["ratio", "ratio beyond imports"] if given.other else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    with tempfile.TemporaryDirectory() as folder:
        for row in pair_rows(Path(folder), given.models, sides, given.rounds):
            lines.append(row)
            print(row, flush=True)
        lines += ["", "| demo | CPU s | imports | beyond |", "|---|---|---|---|"]
        lines += demo_rows(Path(folder), Side(sys.executable), given.rounds)
    text = f"# A whole assemble\n\n{(__doc__ or '').split(chr(10), 1)[1].strip()}\n\n" + "\n".join(lines) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
