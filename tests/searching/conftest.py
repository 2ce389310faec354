"""A small zoo in files: a noisy copy of a teacher, shuffled copies with less noise, and what the teacher says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders import mlp, noisy, permuted_copy, save

from mal_graph import registry
from mal_graph.symmetry import axis_groups

DONORS, SAMPLES = 3, 240


@dataclass(frozen=True)
class Zoo:
    """Where everything lies."""

    base: Path
    donors: Path
    data: Path


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    teacher = mlp((6, 9, 5), 0)
    save(noisy(teacher, 0.6, 100), folder / "base.onnx")
    (folder / "donors").mkdir()
    for seed in range(DONORS):
        donor = noisy(teacher, 0.1, 200 + seed)
        save(permuted_copy(donor, axis_groups(donor), seed)[0], folder / f"donors/d{seed}.onnx")
    x = np.random.default_rng(0).standard_normal((SAMPLES, 6)).astype(np.float32)
    said = registry.runner().open(teacher).run({"x": x})[teacher.outputs[0].name]
    np.savez(folder / "data.npz", x=x, labels=said.argmax(axis=1))
    return Zoo(folder / "base.onnx", folder / "donors", folder / "data.npz")
