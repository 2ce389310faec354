"""What `mal-graph search` costs and gains beside `mal-graph zoo`, on the same donors and images; and many donors.

    python tools/study_search.py --cache ../digits --out tools/results/study_search

A base and 20 donors of random widths and depths are trained on skewed halves of scikit-learn's digits. 200 images
decide and 500 others are reported; no model was trained on either. Every arm runs in a process of its own, with all the
processes that it starts: their CPU seconds are those of the system, wall seconds those of a clock, which other work on
the machine lengthens. Then `--many` noisy copies of a small network, each with its units in another order, are searched
by 2 workers, and a tenth as many, for the memory that each takes. Last, `--zoos` random zoos of such copies, some of
them so noisy that they have nothing to give, say how often a result is worse than its base on the reported samples.
Exit code 1 if 1 and 2 workers do not give the same bytes. Linux alone; needs torch and scikit-learn. `--parts` makes
some parts anew and keeps the rest of the results.
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
from collections.abc import Callable, Mapping, Sequence
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
SAMPLES, NOISE = 400, 0.6
NOISES = (0.3, 0.6, 1.0, 1.5, 3.0, 10.0)  # of the donors of a random zoo
SUBREAPER = 36  # of prctl: what descendants leave behind comes to this process
SEARCHES = (
    "greedy",
    "coordinates",
    "medsamix",
    "map",
    "m2n2",
    "merge3",
    "evo_merging",
    "darwin",
    "recombination",
)


@dataclass(frozen=True)
class Figures:
    """What an arm took and gave.

    Attributes:
        arm: what was run.
        cpu, wall: seconds.
        memory: of its largest process, in MiB.
        candidates: how many were scored.
        partly: how many of them by some of the images alone.
        searched: by how much the loss fell on the images that it was searched by.
        loss, accuracy: on the reported images.
        sha256: of the model; "" where none was written.
    """

    arm: str
    cpu: float
    wall: float
    memory: float
    candidates: int
    partly: int
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


def simulate(folder: Path, noises: Sequence[float], seed: int = 0) -> None:
    """A small network as teacher, a noisy copy of it as base, and others with their units in another order, each with
    noise of its own."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(seed)
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
    write(folder / "base.onnx", NOISE)
    for number, noise in enumerate(noises):
        write(folder / f"donors/d{number:04}.onnx", noise)
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
    if result.assembly.merged:
        result.assembly.save(target)
    tried = sum(len(one.points) for outcome in result.outcomes for one in outcome.tried)
    gate = result.terms.gate
    fell = gate.base.loss - result.best.loss if gate is not None and result.best is not None else 0.0
    return {"candidates": tried, "partly": 0, "searched": fell}


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
    partly = sum(bool(trial.figures) and not trial.is_whole for trial in result.trials)
    return {"candidates": len(result.trials), "partly": partly, "searched": result.base["search"].loss - best}


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
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for each other count as CPU seconds
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as process:
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


def random_zoo(seed: int, folder: Path) -> dict[str, float]:
    """The reported losses of a base, and of what zoo and searches make of the same donors."""
    simulate(folder, np.random.default_rng(seed).permutation(NOISES).tolist(), seed)
    losses = {"base": mal_graph.evaluate(folder / "base.onnx", folder / "report.npz").loss}
    arms = {"zoo": ARMS["zoo"]}
    arms |= {name: partial(run_search, search=name, workers=1, trials=60) for name in ("greedy", "medsamix")}
    for name, arm in arms.items():
        target = folder / f"{name}.onnx"
        arm(folder, target)
        made = target if target.exists() else folder / "base.onnx"
        losses[name] = mal_graph.evaluate(made, folder / "report.npz").loss
    return losses


# --- tables -------------------------------------------------------------------------------------------------------


def table(rows: list[Figures], base: Mapping[str, float]) -> list[str]:
    """What every arm took and gave, as Markdown."""
    lines = [
        "| arm | candidates | partly | CPU s | wall s | MiB | loss falls: searched | reported | loss | accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        lines.append(
            f"| {one.arm} | {one.candidates} | {one.partly} | {one.cpu:.1f} | {one.wall:.1f} | {one.memory:.0f} | "
            f"{one.searched:.4f} | "
            f"{base['loss'] - one.loss:.4f} | {one.loss:.4f} | {one.accuracy:.4f} |"
        )
    return lines


def zoo_table(zoos: Sequence[Mapping[str, float]]) -> list[str]:
    """How often each arm is better and worse than the base over random zoos, as Markdown."""
    lines = ["| arm | mean loss | falls | stays | rises | rises at most by |", "|---|---|---|---|---|---|"]
    for arm in zoos[0]:
        rises = [losses[arm] - losses["base"] for losses in zoos]
        counts = [sum(np.sign(rise) == sign for rise in rises) for sign in (-1, 0, 1)]
        cells = (f"{np.mean([losses[arm] for losses in zoos]):.4f}", *map(str, counts), f"{max(0.0, *rises):.4f}")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def on_paper(many: Sequence[Figures]) -> str:
    """What 100 workers would do, from what donors cost and what does not depend on their number."""
    counts = [int(one.arm.split()[0]) for one in many]
    each = (many[1].cpu - many[0].cpu) / (counts[1] - counts[0])
    rest = many[1].cpu - each * counts[1]
    return (
        f"On paper: a donor costs {each:.3f} CPU seconds wherever it is aligned, and all else {rest:.0f}. 100 workers "
        f"that shared nothing but the alignment of {counts[1]} donors would be done in about "
        f"{rest + each * counts[1] / 100:.0f} seconds, and 2 in {rest + each * counts[1] / 2:.0f}."
    )


def page(held: Mapping[str, Any]) -> str:
    """The study as Markdown."""
    digits, many = ([Figures(**one) for one in held[name]] for name in ("digits", "many"))
    base = held["digits base"]
    loads = "; ".join(f"{part} {before:.1f} to {after:.1f}" for part, (before, after) in held["load"].items())
    lines = [
        "# Searches beside the zoo",
        "",
        f"Made by `python tools/study_search.py` on {held['cores']} cores with Python {held['python']}.",
        f"Other work ran on the machine meanwhile (load before and after: {loads}), so CPU seconds are what counts;",
        "wall seconds are an upper end.",
        "",
        f"{DONORS} donors of other widths and depths, digits; the base has loss {base['loss']:.4f} and accuracy "
        f"{base['accuracy']:.4f} on the reported images. A zoo scores a candidate at 5 lambdas, and each counts here. "
        "Those scored partly were surely worse than the best so far, or estimated. Where the loss does not fall, no "
        "finalist passed, and the base stays.",
        "",
        *table(digits, base),
        "",
        f"Simulated donors of {' x '.join(map(str, SMALL))} units, searched by medsamix with 2 workers:",
        "",
        *table(many, held["many base"]),
        "",
        on_paper(many),
        "",
        f"{len(held['zoos'])} random zoos of {len(NOISES)} such donors, of noise {', '.join(map(str, NOISES))} where "
        f"the base has {NOISE}: reported losses, and how many of them are below and above the base's:",
        "",
        *zoo_table(held["zoos"]),
        "",
    ]
    return "\n".join(lines)


def digits_part(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    train_digits(options.cache)
    rows = [asdict(measured(arm, options.cache, folder / f"{place}.onnx")) for place, arm in enumerate(ARMS)]
    scored = mal_graph.evaluate(options.cache / "base.onnx", options.cache / "report.npz")
    return {"digits": rows, "digits base": {"loss": scored.loss, "accuracy": scored.metric}}


def many_part(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = []
    for count in (options.many // 10, options.many):
        own = folder / f"{count}"
        simulate(own, [NOISE] * count)
        rows.append(asdict(measured("many", own, folder / f"{count}.onnx")) | {"arm": f"{count} donors"})
    scored = mal_graph.evaluate(own / "base.onnx", own / "report.npz")
    return {"many": rows, "many base": {"loss": scored.loss, "accuracy": scored.metric}}


def zoos_part(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return {"zoos": [random_zoo(seed, folder / f"zoo{seed}") for seed in range(options.zoos)]}


PARTS = {"digits": digits_part, "many": many_part, "zoos": zoos_part}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="keeps the trained models")
    parser.add_argument("--out", type=Path, required=True, help="results, without the ending")
    parser.add_argument("--many", type=int, default=1000, help="simulated donors")
    parser.add_argument("--zoos", type=int, default=20, help="random zoos")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is made anew")
    parser.add_argument("--arm", choices=[*ARMS, *MANY], help="run one arm in this process")
    options = parser.parse_args()
    if options.arm:
        run_arm(options.arm, options.cache, options.out)
        return 0
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    target = options.out.with_suffix(".json")
    held: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {"load": {}}
    held |= {"python": python_version(), "cores": os.cpu_count()}
    for part in options.parts:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as name:
            held |= PARTS[part](options, Path(name))
        held["load"][part] = (before, os.getloadavg()[0])
        target.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    if all(part in held for part in PARTS):
        options.out.with_suffix(".md").write_text(page(held), encoding="utf-8")
    by_arm = {one["arm"]: one["sha256"] for one in held.get("digits", [])}
    pairs = [name for name in SEARCHES if f"{name}, 2 workers" in by_arm]
    return 1 if any(by_arm[f"{name}, 1 worker"] != by_arm[f"{name}, 2 workers"] for name in pairs) else 0


if __name__ == "__main__":
    sys.exit(main())
