"""Whether a merged model is better than its base, and than what can be had without the donor's weights.

    OMP_NUM_THREADS=1 python tools/study_pays.py --data DATA --models MODELS --seeds 0 1 2
    python tools/study_pays.py --tables

DATA is laid out as for `train_paper_models.py`: `mnist/`, `fashion-mnist/` with IDX files and `cifar10/` with a folder
of pictures for each class; the word `digits` means scikit-learn's digits and tiny networks. Pairs of networks are
trained (see `pays_pairs.py`), kept in MODELS, made one in every way of `pays_arms.py`, and scored on test images. Seed
by seed, every pair is added to `tools/results/study_pays.json` when it is done, and a pair that is there is not run
again, so that a run that was stopped goes on where it was. `--only` runs the pairs whose name or family contains a
text; `--counts` makes the arms of some numbers of given inputs alone, for further seeds; `--complete` runs the arms
alone that pairs which are there lack: published methods (see `pays_rivals.py`), and unions on images of another data
set; `--tables` writes the Markdown beside the JSON again (see `pays_tables.py`) and runs nothing.

The part of the training images that a network gets, its weights, the noise and the inputs all follow from the seed. One
thread for each process is fastest for networks of this size.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from pays_arms import (
    AVERAGE,
    BASE,
    BUDGETS,
    COUNTS,
    DONOR,
    LOGITS,
    MEASURED,
    PROBABILITIES,
    Arm,
    Bench,
    Makers,
    outputs_of,
)
from pays_pairs import PAIRS, Pair
from pays_rival_tables import rivals_text
from pays_rivals import REBASIN
from pays_tables import GUARDS, OTHER, report
from train_paper_models import DIGITS
from train_pays_models import Pool, pool, trained

from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.errors import MalGraphError
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import count_multiplications, probe
from mal_graph.workflows.joint import Joint
from mal_graph.workflows.models import silent
from mal_graph.workflows.sides import Side, open_sides, opened, samples_for

RESULTS = Path(__file__).parent / "results" / "study_pays.json"
INPUT = "image"
OTHER_DATA = {"mnist": "fashion-mnist", "fashion-mnist": "mnist", "cifar10": "fashion-mnist"}
MOST_TESTED = {"cifar10": 4000}  # images; all of the others
DECIMALS = 5

Row = dict[str, Any]


@dataclass(frozen=True)
class Tested:
    """Test images with what the base says of them.

    Attributes:
        inputs, labels: the images.
        base, whole: logits of the base and of the ensemble.
    """

    inputs: Mapping[str, Array]
    labels: Array
    base: Array
    whole: Array

    def figures(self, logits: Array) -> dict[str, float]:
        """Accuracy and loss, how far each is above the base's in standard errors of the difference, and how far the
        logits are from the ensemble's as a share of how far the base's are."""
        (hits, losses), (base_hits, base_losses) = self.judged(logits), self.judged(self.base)
        gap, before = (np.sqrt(np.mean((each - self.whole) ** 2)) for each in (logits, self.base))
        return {
            "accuracy": float(hits.mean()),
            "loss": float(losses.mean()),
            "accuracy_se": standard_error(hits - base_hits),
            "loss_se": standard_error(losses - base_losses),
            "distance": float(gap / max(float(before), 1e-12)),
        }

    def judged(self, logits: Array) -> tuple[Array, Array]:
        """For every image whether it is right, and its cross-entropy."""
        raised = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(raised).sum(axis=1)) - raised[np.arange(len(raised)), self.labels]
        return (logits.argmax(axis=1) == self.labels).astype(np.float64), losses


def standard_error(values: Array) -> float:
    return float(values.std() / np.sqrt(len(values)))


@dataclass(frozen=True)
class Trial:
    """One pair of one seed.

    Attributes:
        pair: what the two are.
        graphs: both networks.
        images: the data set of the base.
        others: unlabelled images of another one.
        seed: of all that is drawn.
    """

    pair: Pair
    graphs: tuple[LayerGraph, LayerGraph]
    images: Pool
    others: Array
    seed: int

    @cached_property
    def config(self) -> MergeConfig:
        return MergeConfig(seed=self.seed)

    @cached_property
    def joint(self) -> Joint:
        """Both models beside each other, with noise for inputs; groups are verified once."""
        runner = registry.runner()
        sides, samples = open_sides(self.graphs, self.config, runner, silent)
        return Joint(tuple(sides), samples, runner)

    def bench(self, count: int) -> Bench:
        """The pair with so many unlabelled inputs; with noise for 0."""
        return self.shown(self.images.unlabelled, count) if count else Bench(self.joint, 0, {}, self.seed)

    def shown(self, images: Array, count: int) -> Bench:
        """The pair with so many of some images."""
        rng = np.random.default_rng([self.seed, 3])
        given = {INPUT: images[rng.permutation(len(images))[:count]]}
        base = self.joint.sides[0].network
        samples = samples_for(base, self.config.replaced(calibrate=given))
        runner, seed = self.joint.runner, self.seed
        sides = [opened(side.network, side.paired, samples, runner, seed) for side in self.joint.sides]
        return Bench(Joint(tuple(sides), samples, self.joint.runner), count, given, self.seed)

    @cached_property
    def tested(self) -> Tested:
        images, labels = self.images.test
        most = MOST_TESTED.get(self.pair.base.data, len(labels))
        chosen = np.random.default_rng(0).permutation(len(labels))[:most]
        inputs = {INPUT: images[chosen]}
        base, whole = (self.logits(graph, self.name_of(0), inputs) for graph in (self.graphs[0], self.joint.ensemble))
        return Tested(inputs, labels[chosen], base, whole)

    def name_of(self, side: int) -> str:
        return self.joint.outputs.averaged[0].tensors[side]

    def logits(self, graph: LayerGraph, name: str, inputs: Mapping[str, Array]) -> Array:
        return outputs_of(graph, name, inputs, self.joint.runner)

    def row(
        self, arm: Arm, logits: Array, cost: float, guards: Mapping[str, float], seconds: float = 0.0
    ) -> dict[str, Any]:
        figures = self.tested.figures(logits)
        values = {**figures, "cost": cost, **guards, "seconds": seconds}
        rounded = {key: round(value, DECIMALS) for key, value in values.items()}
        own = {"arm": arm.name, "count": arm.count, "budget": arm.budget, "lambda": arm.lam}
        return {**own, **rounded}

    def cost(self, graph: LayerGraph) -> float:
        """Multiplications in multiples of the base's."""
        inputs = self.joint.sides[0].network.probe.inputs
        return multiplications(graph, inputs) / multiplications(self.graphs[0], inputs)

    def parents(self) -> Iterator[dict[str, Any]]:
        """The base, the donor, and both ensembles."""
        donor = self.logits(self.graphs[1], self.name_of(1), self.tested.inputs)
        costs = [self.cost(graph) for graph in self.graphs]
        yield self.row(Arm(BASE), self.tested.base, costs[0], dict.fromkeys(GUARDS, 1.0))
        yield self.row(Arm(DONOR), donor, costs[1], {})
        yield self.row(Arm(LOGITS), self.tested.whole, sum(costs), dict.fromkeys(GUARDS, 0.0))
        shares = [np.exp(each - np.logaddexp.reduce(each, 1)[:, None]) for each in (self.tested.base, donor)]
        yield self.row(Arm(PROBABILITIES), np.log(np.mean(shares, axis=0) + 1e-30), sum(costs), {})

    def run(self, counts: Sequence[int]) -> dict[str, Any]:
        """Every arm of the pair with so many inputs; of a part of the counts without images of another data set."""
        start = time.perf_counter()
        rows, missing = list(self.parents()), []
        for count in counts:
            bench = self.bench(count)
            made, lacking = self.made(bench, bench.makers())
            rows, missing = rows + made, missing + lacking
        if set(counts) == set(COUNTS):
            made, lacking = self.on_others()
            rows, missing = rows + made, missing + lacking
        seconds = round(time.perf_counter() - start)
        about = {"pair": self.pair.name, "family": self.pair.family, "kind": self.pair.kind, "seed": self.seed}
        tested = len(self.tested.labels)
        return {**about, "tested": tested, "seconds": seconds, "arms": rows, "missing": missing}

    def on_others(self) -> tuple[list[Row], list[Row]]:
        """The unions that are made on images of another data set, and why some could not be made."""
        bench = self.shown(self.others, MEASURED)
        return self.made(bench, {Arm(OTHER, MEASURED, budget): partial(bench.union, budget) for budget in BUDGETS})

    def completed(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """A result of the pair with the arms that it lacks."""
        for arm, make in {REBASIN: self.published, OTHER: self.on_others}.items():
            if lacks(result, arm):
                made, missing = make()
                result = {**result, "arms": [*result["arms"], *made], "missing": [*result["missing"], *missing]}
        return dict(result)

    def published(self) -> tuple[list[Row], list[Row]]:
        """The arms of published methods, and why some could not be made."""
        bench = self.bench(MEASURED)
        return self.made(bench, bench.rivals())

    def made(self, bench: Bench, makers: Makers) -> tuple[list[Row], list[Row]]:
        """The rows of some arms, and why others could not be made."""
        rows: list[Row] = []
        missing: list[Row] = []
        for arm, make in makers.items():
            if arm.name == AVERAGE and not is_alike(self.joint.sides):
                continue
            begun = time.perf_counter()
            try:
                graph = make()
            except MalGraphError as error:
                missing.append({"arm": arm.name, "count": arm.count, "budget": arm.budget, "why": str(error)})
                continue
            seconds = time.perf_counter() - begun
            logits = self.logits(graph, self.name_of(0), self.tested.inputs)
            rows.append(self.row(arm, logits, self.cost(graph), bench.guards(graph), seconds))
        return rows, missing


def multiplications(graph: LayerGraph, inputs: Mapping[str, Array]) -> int:
    return count_multiplications(graph, probe(graph, registry.runner(), inputs=inputs).shapes)


def is_alike(sides: Sequence[Side]) -> bool:
    """Whether weights can be averaged in stored order at all."""
    shapes = [sorted(weight.shape for weight in side.graph.weights.values()) for side in sides]
    return shapes[0] == shapes[1]


def trial(pair: Pair, seed: int, folder: str, models: Path) -> Trial:
    own = (pair.tiny() if folder == DIGITS else pair).seeded(seed)
    graphs = (trained(own.base, folder, models).named("base"), trained(own.donor, folder, models).named("donor"))
    return Trial(own, graphs, pool(folder, own.base.data, own.base.size), other_images(own, folder), seed)


def other_images(pair: Pair, folder: str) -> Array:
    """Unlabelled images of another data set in the form of the base's; of the only one upside down."""
    data, size = pair.base.data, pair.base.size
    if folder == DIGITS:
        return pool(folder, data, size).unlabelled[:, :, ::-1]
    channels = pool(folder, data, size).unlabelled.shape[1]
    return np.repeat(pool(folder, OTHER_DATA[data], size).unlabelled, channels, axis=1)


def read_results(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_results(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """One line for each arm, so that two versions can be compared."""
    parts = []
    for result in results:
        about = json.dumps({key: value for key, value in result.items() if key != "arms"})
        arms = ",\n".join(json.dumps(row) for row in result["arms"])
        parts.append(f'{about[:-1]}, "arms": [\n{arms}]}}')
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".part")
    written.write_text("[" + ",\n".join(parts) + "]\n", encoding="utf-8")
    written.replace(path)


def lacks(result: Mapping[str, Any], arm: str) -> bool:
    return all(row["arm"] != arm for row in [*result["arms"], *result["missing"]])


def is_complete(result: Mapping[str, Any]) -> bool:
    return not any(lacks(result, arm) for arm in (REBASIN, OTHER))


def waiting(options: argparse.Namespace) -> Iterator[tuple[Pair, int]]:
    """The pairs and seeds that are to be run: what is not there, or what is there and lacks arms."""
    chosen = [pair for pair in PAIRS if options.only in pair.name or options.only == pair.family]
    for seed in options.seeds:
        for pair in chosen:
            own = [one for one in read_results(options.results) if (one["pair"], one["seed"]) == (pair.name, seed)]
            if bool(own) == options.complete and not any(map(is_complete, own)):
                yield pair, seed


def run_pair(pair: Pair, seed: int, options: argparse.Namespace) -> None:
    """Run a pair, and write it down. Another process may have added pairs of other families meanwhile."""
    start = time.perf_counter()
    tried = trial(pair, seed, options.data, options.models)
    key = (pair.name, seed)
    if options.complete:
        own = next(one for one in read_results(options.results) if (one["pair"], one["seed"]) == key)
        made = tried.completed(own)
    else:
        made = tried.run(options.counts)
    results = read_results(options.results)
    places = [place for place, one in enumerate(results) if (one["pair"], one["seed"]) == key]
    results[slice(places[0], places[0] + 1) if places else slice(len(results), None)] = [made]
    write_results(options.results, results)
    print(f"{pair.name}, seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="folder of the data sets, or `digits`")
    parser.add_argument("--models", type=Path, help="where the trained networks are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="which seeds")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), choices=COUNTS, help="of given inputs")
    parser.add_argument("--only", default="", help="pairs whose name or family contains this")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON file; the table stands beside it")
    parser.add_argument("--complete", action="store_true", help="add the arms that pairs which are there lack")
    parser.add_argument("--tables", action="store_true", help="write the table again, run nothing")
    options = parser.parse_args()
    if not options.tables:
        if options.data is None or options.models is None:
            parser.error("--data and --models are needed to run anything")
        for pair, seed in waiting(options):
            run_pair(pair, seed, options)
    planned = [(pair.name, pair.family, pair.kind) for pair in PAIRS]
    results = read_results(options.results)
    text = report(results, planned, rivals_text(results))
    options.results.with_suffix(".md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
