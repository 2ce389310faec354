"""What jobs may cost, by counted work and not by time: products of alignments, runs of models, bytes written."""

from math import prod

import numpy as np
import pytest
from builders import correspondence_of, mlp, network, noisy, permuted_copy, save

import mal_graph
from mal_graph.matching import assign_units, objective
from mal_graph.matching.objective import Objective
from mal_graph.symmetry import build_network
from mal_graph_adapters.onnx_format import data_files, writing
from mal_graph_adapters.onnx_format import file as onnx_file
from mal_graph_adapters.onnx_format.onnxruntime_runner import OrtSession

pytestmark = pytest.mark.slow

DEPTHS = (2, 8)


@pytest.fixture
def runs(monkeypatch):
    """Counts the runs of models in this process."""
    counted, run = [], OrtSession.run

    def counting(*given, **named):
        counted.append(1)
        return run(*given, **named)

    monkeypatch.setattr(OrtSession, "run", counting)

    def count(job):
        counted.clear()
        job()
        return len(counted)

    return count


@pytest.fixture
def products(monkeypatch):
    """Counts the multiplications and additions of the products that make up scores."""
    counted, add_product = [], objective.add_product

    def counting(total, a, d):
        counted.append(2 * len(a) * len(d) * a.shape[1])
        return add_product(total, a, d)

    monkeypatch.setattr(objective, "add_product", counting)

    def count(job):
        counted.clear()
        job()
        return sum(counted)

    return count


def one_product_each(pair):
    """The least that aligning takes: every compared tensor met once, for each of its axes that are permuted."""
    problem = Objective(pair)
    touches = [(number, t) for number, own in enumerate(problem.touching) for t, _, _ in own if problem.is_compared[t]]
    return sum(2 * prod(pair.tensors[t][0].base.shape) * problem.units[number][1] for number, t in touches)


@pytest.mark.parametrize(("is_planted", "most"), [(True, 1.05), (False, 2.0)])
def test_an_alignment_multiplies_each_tensor_hardly_more_than_once(products, is_planted, most):
    """Scores are kept, and only what moved since is multiplied again: nothing of a permuted copy, little of other nets.
    Problems of less than 500,000 weights are started several times; this one has more."""
    base = mlp((20, *[300] * 6, 5))
    donor = permuted_copy(noisy(base, 0.3, 1), network(base).groups)[0] if is_planted else mlp((20, *[300] * 6, 5), 1)
    pair = correspondence_of(base, donor)
    least = one_product_each(pair)
    assert least <= products(lambda: assign_units(pair)) <= most * least


def files(folder, depth):
    return [save(mlp((8, *[16] * depth, 5), seed), folder / f"{depth}-{seed}.onnx") for seed in (0, 1)]


def test_the_runs_of_a_job_do_not_grow_with_the_depth(runs, tmp_path):
    """One that probes, then a few for all groups at once, of an inspection; of a merge those of two models, and what is
    compared of the result."""
    counts = []
    for depth in DEPTHS:
        base, donor = files(tmp_path, depth)
        inspected = runs(lambda base=base: build_network(base))
        merged = runs(lambda base=base, donor=donor: mal_graph.assemble(base, donor, method="mal"))
        counts.append((inspected, merged))
    assert counts[0] == counts[1]
    inspected, merged = counts[0]
    assert 1 < inspected <= 6  # the probe, and what a verification takes for all groups at once
    assert 2 * inspected <= merged <= 5 * inspected


def test_a_further_lambda_of_a_sweep_takes_one_run_of_each_line(runs, tmp_path):
    """The merge and its controls: plain average, random order, random donor."""
    base, donor = files(tmp_path, 2)
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40)
    np.savez(tmp_path / "data.npz", x=inputs, labels=labels)

    def count(lambdas):
        return runs(lambda: mal_graph.sweep(base, donor, data=tmp_path / "data.npz", lambdas=lambdas))

    few, more, most = count("0:1:0.5"), count("0:1:0.25"), count("0:1:0.125")  # 3, 5 and 9 lambdas
    assert more - few == 4 * 2
    assert most - more == 4 * 4


def test_every_byte_is_written_once(monkeypatch, tmp_path):
    base, donor = files(tmp_path, 2)
    result = mal_graph.assemble(base, donor, method="mal", verify=False, compare=False)
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_FROM", 0)
    written, write_at = [], writing.write_at

    def counting(handle, piece, offset):
        written.append(piece.nbytes)
        write_at(handle, piece, offset)

    monkeypatch.setattr(writing, "write_at", counting)
    save(result.graph, tmp_path / "out.onnx")
    sizes = [weight.nbytes for weight in result.graph.weights.values()]
    assert sum(written) == sum(size for size in sizes if size > data_files.EXTERNAL_TENSOR_FROM) > 0
