"""What `mal-graph search` costs and gains beside `mal-graph zoo`, on the same donors and images; and many donors.

    python tools/study_search.py --cache ../digits --out tools/results/study_search

A base and 20 donors of random widths and depths are trained on skewed halves of scikit-learn's digits. 200 images
decide and 500 others are reported; no model was trained on either. Every arm runs in a process of its own, with all the
processes that it starts: their CPU seconds are those of the system, wall seconds those of a clock, which other work on
the machine lengthens. Then `--many` noisy copies of a small network, each with its units in another order, are searched
by 2 workers, and a tenth as many, for the memory that each takes. Exit code 1 if 1 and 2 workers do not give the same
bytes. Linux alone; needs torch and scikit-learn.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

import mal_graph

WIDTHS, DEPTHS, DONORS, TRIALS = (32, 48, 64, 96), (1, 2, 3), 20, 400
SMALL = (16, 24, 4)  # of the networks that are many
SAMPLES = 400
SUBREAPER = 36  # of prctl: what descendants leave behind comes to this process
SEARCHES = ("greedy", "coordinates", "medsamix", "map")


@dataclass(frozen=True)
class Figures:
    """What an arm took and gave.

    Attributes:
        arm: what was run.
        cpu, wall: seconds.
        memory: of its largest process, in MiB.
        candidates: how many were scored.
        searched: by how much the loss fell on the images that it was searched by.
        loss, accuracy: on the reported images.
        sha256: of the model; "" where none was written.
    """

    arm: str
    cpu: float
    wall: float
    memory: float
    candidates: int
    searched: float
    loss: float
    accuracy: float
    sha256: str


# --- what is searched ---------------------------------------------------------------------------------------------


def train_digits(folder: Path, seed: int = 0) -> None:
    """A base, donors, and images to decide by and to report, where they are not there yet."""
    if (folder / "report.npz").exists():
        return
    sys.path.insert(0, str(Path(__file__).parent))
    import make_digits_models as digits

    (folder / "donors").mkdir(parents=True, exist_ok=True)
    rng, parts = np.random.default_rng(seed), digits.split(seed)
    for number in range(DONORS + 1):
        widths = tuple(int(width) for width in rng.choice(WIDTHS, rng.choice(DEPTHS)))
        half = parts.train_a if number == 0 or rng.random() < 0.3 else parts.train_b
        path = folder / f"donors/d{number:02}.onnx" if number else folder / "base.onnx"
        digits.export(digits.train_mlp(widths, seed=100 * seed + number, data=half), path)
    for name, part in (("decide", parts.validation), ("report", parts.test)):
        np.savez(folder / f"{name}.npz", image=part.image, labels=part.labels)


def simulate(folder: Path, donors: int) -> None:
    """A small network as teacher, a noisy copy of it as base, and others with their units in another order."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    inputs, units, classes = SMALL
    plain = {"w1": (units, inputs), "b1": (units,), "w2": (classes, units), "b2": (classes,)}
    teacher = {name: rng.normal(0, 1 / np.sqrt(shape[-1]), shape) for name, shape in plain.items()}

    def write(path: Path, noise: float) -> None:
        held = {name: value + noise * rng.normal(0, value.std(), value.shape) for name, value in teacher.items()}
        order = rng.permutation(units)
        held |= {"w1": held["w1"][order], "b1": held["b1"][order], "w2": held["w2"][:, order]}
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], transB=1),
        ]
        ends = [helper.make_tensor_value_info(name, 1, ["N", size]) for name, size in (("x", inputs), ("y", classes))]
        stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)

    (folder / "donors").mkdir(parents=True)
    write(folder / "base.onnx", 0.6)
    for number in range(donors):
        write(folder / f"donors/d{number:04}.onnx", 0.6)
    for name in ("decide", "report"):
        x = rng.normal(size=(SAMPLES, inputs)).astype(np.float32)
        hidden = np.maximum(x @ teacher["w1"].T + teacher["b1"], 0)
        labels = (hidden @ teacher["w2"].T + teacher["b2"]).argmax(axis=1)
        np.savez(folder / f"{name}.npz", x=x, labels=labels)


# --- arms ---------------------------------------------------------------------------------------------------------


def run_zoo(folder: Path, target: Path, controls: int) -> dict[str, Any]:
    result = mal_graph.zoo(
        folder / "base.onnx",
        folder / "donors",
        folder / "decide.npz",
        report_data=folder / "report.npz",
        controls=controls,
    )
    result.assembly.save(target)
    tried = sum(len(one.points) for outcome in result.outcomes for one in outcome.tried)
    gate = result.terms.gate
    fell = gate.base.loss - result.best.loss if gate is not None and result.best is not None else 0.0
    return {"candidates": tried, "searched": fell}


def run_search(folder: Path, target: Path, search: str, workers: int, trials: int) -> dict[str, Any]:
    result = mal_graph.search(
        folder / "base.onnx",
        folder / "donors",
        folder / "decide.npz",
        report_data=folder / "report.npz",
        search=search,
        workers=workers,
        trials=trials,
        stages=1 if search == "map" else 3,
    )
    if result.winner is not None:
        result.assembly.save(target)
    best = result.base["search"].loss if result.winner is None else result.trials[result.winner.place].loss
    return {"candidates": len(result.trials), "searched": result.base["search"].loss - best}


ARMS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "zoo": partial(run_zoo, controls=3),
    "zoo without controls": partial(run_zoo, controls=0),
    **{f"{name}, 1 worker": partial(run_search, search=name, workers=1, trials=TRIALS) for name in SEARCHES},
    "greedy, 2 workers": partial(run_search, search="greedy", workers=2, trials=TRIALS),
    "coordinates, 2 workers": partial(run_search, search="coordinates", workers=2, trials=TRIALS),
}
MANY = {"many": partial(run_search, search="medsamix", workers=2, trials=TRIALS)}


def measured(arm: str, folder: Path, target: Path) -> Figures:
    """One arm in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words = [sys.executable, __file__, "--arm", arm, "--cache", str(folder), "--out", str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate()
    wall = time.monotonic() - began
    with suppress(ChildProcessError):  # the last one has come home
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{arm} ended with {process.returncode}")
    cpu = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    return Figures(arm=arm, cpu=cpu, wall=wall, **json.loads(said))


def run_arm(arm: str, folder: Path, target: Path) -> None:
    """Run one arm in this process, and print what it gave."""
    import hashlib

    told = {**ARMS, **MANY}[arm](folder, target)
    made = target if target.exists() else folder / "base.onnx"
    scores = mal_graph.evaluate(made, folder / "report.npz")
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    sha = hashlib.sha256(target.read_bytes()).hexdigest() if target.exists() else ""
    told |= {"memory": most / 1024, "loss": scores.loss, "accuracy": scores.metric, "sha256": sha}
    print(json.dumps(told))


# --- tables -------------------------------------------------------------------------------------------------------


def table(rows: list[Figures], base: Mapping[str, float]) -> list[str]:
    """What every arm took and gave, as Markdown."""
    lines = [
        "| arm | candidates | CPU s | wall s | MiB | loss falls: searched | reported | loss | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        lines.append(
            f"| {one.arm} | {one.candidates} | {one.cpu:.1f} | {one.wall:.1f} | {one.memory:.0f} | "
            f"{one.searched:.4f} | "
            f"{base['loss'] - one.loss:.4f} | {one.loss:.4f} | {one.accuracy:.4f} |"
        )
    return lines


def page(held: Mapping[str, Any]) -> str:
    """The study as Markdown."""
    digits, many = ([Figures(**one) for one in held[name]] for name in ("digits", "many"))
    base = held["base"]
    loads = ", ".join(f"{load:.1f}" for load in held["load"])
    lines = [
        "# Searches beside the zoo",
        "",
        f"Made by `python tools/study_search.py` on {held['cores']} cores with Python {held['python']}; other work ran "
        f"on the machine meanwhile (load {loads} before and after), so CPU seconds are what counts, and wall seconds "
        "are an upper end.",
        "",
        f"{DONORS} donors of other widths and depths, digits; the base has loss {base['loss']:.4f} and accuracy "
        f"{base['accuracy']:.4f} on the reported images. A zoo scores a candidate at 5 lambdas, and each counts here.",
        "",
        *table(digits, base),
        "",
        f"Simulated donors of {' x '.join(map(str, SMALL))} units, searched by medsamix with 2 workers:",
        "",
        *table(many, held["many base"]),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="keeps the trained models")
    parser.add_argument("--out", type=Path, required=True, help="results, without the ending")
    parser.add_argument("--many", type=int, default=1000, help="simulated donors")
    parser.add_argument("--arm", choices=[*ARMS, *MANY], help="run one arm in this process")
    options = parser.parse_args()
    if options.arm:
        run_arm(options.arm, options.cache, options.out)
        return 0
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    train_digits(options.cache)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits = [measured(arm, options.cache, folder / f"{place}.onnx") for place, arm in enumerate(ARMS)]
        many = []
        for count in (options.many // 10, options.many):
            simulate(folder / f"{count}", count)
            one = measured("many", folder / f"{count}", folder / f"{count}.onnx")
            many.append(asdict(one) | {"arm": f"{count} donors"})
        scored = mal_graph.evaluate(options.cache / "base.onnx", options.cache / "report.npz")
        small = mal_graph.evaluate(folder / f"{options.many}" / "base.onnx", folder / f"{options.many}" / "report.npz")
    load.append(os.getloadavg()[0])
    held = {
        "python": python_version(),
        "cores": os.cpu_count(),
        "load": load,
        "base": {"loss": scored.loss, "accuracy": scored.metric},
        "digits": [asdict(one) for one in digits],
        "many": many,
        "many base": {"loss": small.loss, "accuracy": small.metric},
    }
    options.out.with_suffix(".json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(page(held), encoding="utf-8")
    by_arm = {one.arm: one.sha256 for one in digits}
    pairs = [name for name in SEARCHES if f"{name}, 2 workers" in by_arm]
    return 1 if any(by_arm[f"{name}, 1 worker"] != by_arm[f"{name}, 2 workers"] for name in pairs) else 0


if __name__ == "__main__":
    sys.exit(main())
