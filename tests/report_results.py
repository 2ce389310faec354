"""Small results of every kind, made once and shared by the tests of reports."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from builders import cnn, load, message, mlp, run, save, stored

import mal_graph

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'|`*_[x](y)\u202e\x07&amp;"


def data(samples=40, classes=5, width=8):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, width)).astype(np.float32)
    return {"x": x, "labels": np.arange(samples) % classes}


def named(graph, mark):
    """A graph of which everything that can have a name has one that begins with a mark."""
    proto = message(graph)
    for node in proto.graph.node:
        node.name = f"{mark}{node.name}"
    stored = {tensor.name for tensor in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        tensor.name = f"{mark}{tensor.name}"
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            if name in stored:
                node.input[index] = f"{mark}{name}"
    return replace(load(proto), name=f"{mark}.onnx")


def merged():
    """Two donors, one of other depth, with scores: something is kept, something left out."""
    base, donors = mlp((8, 16, 12, 5)), [mlp((8, 12, 14, 5), seed=1), mlp((8, 16, 5), seed=2)]
    donors = [replace(graph, name=f"donor{number}.onnx") for number, graph in enumerate(donors)]
    return mal_graph.assemble(base, donors, data=data(), lam=0.3)


def grown():
    return mal_graph.assemble(cnn((4,)), cnn((6, 5), seed=1), lam=0.2, width="grow", depth="expand")


def hostile():
    base, donor = named(mlp((8, 16, 12, 5)), HOSTILE), named(mlp((8, 12, 5), seed=1), HOSTILE)
    return mal_graph.assemble(base, donor, data=data(), lam=0.3)


def broken():
    """A sweep that overflows: figures that are no numbers."""
    base, donor = mlp((8, *[6] * 4, 5)), mlp((8, *[6] * 4, 5), seed=1)
    huge = {name: values * np.float32(1e12) for name, values in stored(donor).items()}
    return mal_graph.sweep(base, donor.with_weights(huge), data(), lambdas=(0.5, 1.0), verify=False)


def zoo():
    """A donor that knows better, and a stranger."""
    better, stranger = (replace(mlp((8, 16, 12, 5), seed=seed), name=f"donor{seed}.onnx") for seed in (0, 1))
    rng = np.random.default_rng(1)
    noisy = {name: v + 0.3 * rng.standard_normal(v.shape).astype(v.dtype) for name, v in stored(better).items()}
    x = rng.normal(size=(80, 8)).astype(np.float32)
    known = {"x": x, "labels": run(better, {"x": x})[0].argmax(axis=1)}
    return mal_graph.zoo(better.with_weights(noisy), [better, stranger], known)


def zoo_without_data():
    return mal_graph.zoo(mlp((8, 16, 5)), [mlp((8, 16, 5), seed=1)], min_score=0.0)


def search():
    """Donors that know better, of which one cannot be merged, searched for on two sets of data."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = mlp((8, 16, 5))
        rng = np.random.default_rng(1)
        models = {"base.onnx": 0.5, "d1.onnx": 0.1, "d2.onnx": 0.2}
        for name, noise in models.items():
            noisy = {
                key: v + noise * rng.standard_normal(v.shape).astype(v.dtype) for key, v in stored(teacher).items()
            }
            save(teacher.with_weights(noisy), Path(folder) / name)
        save(mlp((7, 5)), Path(folder) / "d3.onnx")
        x = rng.normal(size=(400, 8)).astype(np.float32)
        known = {"x": x, "labels": run(teacher, {"x": x})[0].argmax(axis=1)}
        donors = [Path(folder) / f"d{number}.onnx" for number in (1, 2, 3)]
        options = {"search": "medsamix", "sampler": "random", "trials": 8, "verify": False}
        return mal_graph.search(Path(folder) / "base.onnx", donors, known, second_data=known, **options)


MAKERS = {
    "merged": merged,
    "grown": grown,
    "hostile": hostile,
    "auto": lambda: mal_graph.assemble(mlp((8, 16, 5)), mlp((8, 12, 5), seed=1), data=data(80)),
    "union": lambda: mal_graph.assemble(mlp((8, 16, 5)), mlp((8, 12, 5), seed=1), data=data(), method="union"),
    "union of strangers": lambda: mal_graph.assemble(mlp((8, 16, 5)), mlp((8, 5), seed=1), method="union", budget=2),
    "compressed": lambda: mal_graph.compress(mlp((8, 16, 12, 5)), data=data(), budget=0.6),
    "sweep": lambda: mal_graph.sweep(mlp((8, 16, 5)), mlp((8, 16, 5), seed=1), data(), lambdas=(0.5, 1.0)),
    "broken": broken,
    "grid": lambda: mal_graph.grid(mlp((8, 16, 5)), mlp((8, 12, 6, 5), seed=1), data(), lam=0.3),
    "zoo": zoo,
    "zoo without data": zoo_without_data,
    "search": search,
}


@cache
def result(name):
    """One of the results, by name."""
    return MAKERS[name]()
