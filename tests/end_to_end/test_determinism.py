"""Equal inputs give equal bytes: whatever the seed of hashes, the threads, the cores and the folder."""

import os
import subprocess
import sys

import pytest
from builders import mlp, save

MERGE = ("assemble", "base.onnx", "donor.onnx", "-o", "out.onnx", "--lambda", "0.3", "--width", "grow", "-q")
ZOO = ("zoo", "base.onnx", "zoo", "-o", "out.onnx", "--min-score", "0", "--lambdas", "0.1,0.3", "-q")


def written(folder, words, seed, threads, cores):
    """What a command writes in a process of its own: the model's bytes."""
    (folder / "zoo").mkdir(parents=True)
    save(mlp((8, 16, 12, 5), seed=0), folder / "base.onnx")
    save(mlp((8, 18, 14, 5), seed=1), folder / "donor.onnx")
    for number in (2, 3):
        save(mlp((8, 14, 12, 5), seed=number), folder / "zoo" / f"{number}.onnx")
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads)}
    environment |= {"OPENBLAS_NUM_THREADS": str(threads)}
    some = sorted(os.sched_getaffinity(0))[:cores]
    subprocess.run(
        [sys.executable, "-m", "mal_graph", *words],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, some),
    )
    return (folder / "out.onnx").read_bytes()


def test_a_merge_has_the_same_bytes_in_another_process(tmp_path):
    first = written(tmp_path / "a", MERGE, seed=1, threads=1, cores=1)
    assert written(tmp_path / "elsewhere" / "b", MERGE, seed=2, threads=2, cores=2) == first


@pytest.mark.sampled(5)
@pytest.mark.slow
@pytest.mark.parametrize("words", [MERGE, ZOO])
@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (2, 3), (3, 0)])
def test_many_processes_write_the_same_bytes(tmp_path, words, seeds):
    runs = [(seeds[0], 1, 1), (seeds[1], 2, 2), (seeds[1], 2, 1)]
    assert len({written(tmp_path / str(run), words, *run) for run in runs}) == 1
