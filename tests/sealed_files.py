"""Sealed files of every kind that is made, and files of which one bit is another."""

from pathlib import Path

import numpy as np
import onnx
from builders import cnn, mlp, save, vit

import mal_graph
from mal_graph.errors import MalGraphError
from mal_graph.methods import Need, find_method
from mal_graph.seals import PROVENANCE
from mal_graph_adapters.onnx_format import data_files
from mal_graph_adapters.onnx_format import file as onnx_file
from mal_graph_adapters.onnx_format.seal import DIGEST, TENSORS

FAST = {"verify": False}


def mlps(folder, *widths, metadata=None):
    """Files of perceptrons of some hidden widths, by place."""
    paths = []
    for seed, width in enumerate(widths):
        graph = mlp((8, width, 5), seed=seed)
        paths.append(save(graph, folder / f"m{seed}.onnx"))
    if metadata:
        for path, notes in zip(paths, metadata, strict=True):
            proto = onnx.load(path)
            for key, value in notes.items():
                proto.metadata_props.add(key=key, value=value)
            onnx.save(proto, path)
    return paths


def samples(seed=0, labels=False, count=60):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)).astype(np.float32)
    return {"x": x, "labels": rng.integers(0, 5, len(x))} if labels else {"x": x}


def pair_of(folder, make):
    return [save(make(seed), folder / f"m{seed}.onnx") for seed in (0, 1)]


def blended(folder):
    paths = mlps(folder, 12, 10)
    return paths, mal_graph.assemble(*paths, lam=0.3, **FAST), {}


def sharded(folder):
    paths = mlps(folder, 12, 10)
    return paths, mal_graph.assemble(*paths, lam=0.3, shard_size=512, **FAST), {}


def grown(folder):
    paths = mlps(folder, 10, 14)
    return paths, mal_graph.assemble(*paths, lam=0.4, width="grow", **FAST), {}


def deepened(folder):
    paths = [save(mlp((8, 10, *deep, 5), seed=len(deep)), folder / f"m{len(deep)}.onnx") for deep in ((), (10,))]
    return paths, mal_graph.assemble(*paths, lam=0.4, depth="expand", **FAST), {}


def several(folder):
    base, *donors = mlps(folder, 12, 10, 12)
    return [base, *donors], mal_graph.assemble(base, donors, lam=(0.1, 0.4), lam_for={"*": 0.2}, **FAST), {}


def convolutional(folder):
    paths = pair_of(folder, lambda seed: cnn((4, 6), seed=seed))
    return paths, mal_graph.assemble(*paths, lam=0.3, **FAST), {}


def transformer(folder):
    paths = pair_of(folder, vit)
    return paths, mal_graph.assemble(*paths, lam=0.3, **FAST), {}


def averaged(folder):
    paths = mlps(folder, 12, 12)
    return paths, mal_graph.assemble(*paths, method="average", **FAST), {}


def united(folder):
    paths = mlps(folder, 12, 10)
    return paths, mal_graph.assemble(*paths, method="union", budget="full", **FAST), {}


def thinned(folder):
    paths = mlps(folder, 16)
    return paths, mal_graph.compress(*paths, budget=0.6, **FAST), {}


def chosen(folder):
    paths, arrays = mlps(folder, 12, 12), {"data": samples(labels=True), "calibrate": samples(1)}
    return paths, mal_graph.assemble(*paths, **arrays, **FAST), arrays


def repaired(folder):
    paths, arrays = mlps(folder, 12, 10), {"calibrate": samples(1)}
    return paths, mal_graph.assemble(*paths, lam=0.3, match_by="both", **arrays, **FAST), arrays


def searched(folder):
    base, *donors = mlps(folder, 12, 12, 10)
    (folder / "zoo").mkdir()
    for donor in donors:
        donor.rename(folder / "zoo" / donor.name)
    found = mal_graph.zoo(base, folder / "zoo", min_score=0.0, **FAST)
    return [base, *sorted((folder / "zoo").iterdir())], found.assembly, {}


def sharded_searched(folder):
    base, *donors = mlps(folder, 12, 12)
    found = mal_graph.zoo(base, donors, min_score=0.0, shard_size=512, **FAST)
    return [base, *donors], found.assembly, {}


def stacked(folder):
    paths = pair_of(folder, lambda seed: mlp((8, *[8] * 4, 5), seed=seed))
    return paths, mal_graph.stack([(paths[0], 0, 2), (paths[1], 1, 3), (paths[0], 1, 2)]), {}


def fine_tuned(graph, seed):
    """The graph after a little training, so to say."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    return graph.with_weights(
        {name: (array * rng.uniform(0.9, 1.1, array.shape)).astype(array.dtype) for name, array in weights.items()}
    )


def merged(method):
    """Fine-tunes of one ancestor, merged by a method."""

    def make(folder):
        ancestor = mlp((8, 12, 5), seed=0)
        tuned = [save(fine_tuned(ancestor, seed), folder / f"m{seed}.onnx") for seed in (1, 2, 3)]
        needed = find_method(method).needs
        arrays = {"calibrate": samples(1)} if needed is Need.ACTIVATIONS else {}
        needs = {"ancestor": save(ancestor, folder / "a.onnx")} if needed is Need.ANCESTOR else {}
        result = mal_graph.assemble(tuned[0], tuned[1:], method=method, **needs, **arrays, assume_ordered=True, **FAST)
        return [*tuned, *needs.values()], result, arrays

    make.__name__ = f"merged by {method}"
    return make


def proposed(folder):
    """What a search finds; every candidate passes, so that there is one."""
    ancestor = mlp((8, 12, 5), seed=0)
    paths = [save(fine_tuned(ancestor, seed), folder / f"m{seed}.onnx") for seed in (1, 2, 3)]
    data = samples(labels=True, count=160)
    result = mal_graph.search(paths[0], paths[1:], data, trials=8, study=folder / "study", eps=1.0).assembly
    return [paths[0], *(Path(step.donor.name) for step in result.merged)], result, {}


KINDS = {
    make.__name__: make
    for make in (
        blended,
        sharded,
        grown,
        deepened,
        several,
        convolutional,
        transformer,
        averaged,
        united,
        thinned,
        chosen,
        repaired,
        searched,
        sharded_searched,
        proposed,
        stacked,
        *map(merged, ("linear", "karcher", "ties", "dare_ties", "tsv_m", "wudi", "fisher", "regmean")),
    )
}


def written(kind, folder, has_data=False):
    """A sealed file of a kind, with the models and the arrays that it was made of."""
    paths, result, arrays = KINDS[kind](folder)
    before = onnx_file.EXTERNAL_DATA_FROM, data_files.EXTERNAL_TENSOR_FROM
    if has_data:
        onnx_file.EXTERNAL_DATA_FROM = data_files.EXTERNAL_TENSOR_FROM = 0
    try:
        result.save(folder / "out.onnx")
    finally:
        onnx_file.EXTERNAL_DATA_FROM, data_files.EXTERNAL_TENSOR_FROM = before
    return folder / "out.onnx", paths, arrays


# --- flipped bits -------------------------------------------------------------------------------------------------


def regions(path):
    """The parts of a sealed file and of its data, as (file, first byte, behind the last byte) by name."""
    content, proto = path.read_bytes(), onnx.load(path, load_external_data=False)
    notes = {note.key: note.value.encode() for note in proto.metadata_props}
    parts = {"all": (path, 0, len(content))}
    for name, key in (("configuration", PROVENANCE), ("digests", TENSORS), ("digest", DIGEST)):
        start = content.index(notes[key])
        parts[name] = (path, start, start + len(notes[key]))
    node = proto.graph.node[0].SerializeToString()
    parts["graph"] = (path, content.index(node), content.index(node) + len(node))
    stored = [tensor.raw_data for tensor in proto.graph.initializer if tensor.raw_data]
    if stored:
        parts["tensor"] = (path, content.index(stored[0]), content.index(stored[0]) + len(stored[0]))
    for data in path.parent.glob(f"{path.name}.*.data"):
        parts["data"] = (data, 0, data.stat().st_size)
    return parts


def is_caught(path, flipped, byte, bit):
    """Whether an audit finds that a bit of a file is another; the file is left as it was."""
    content = bytearray(flipped.read_bytes())
    content[byte] ^= 1 << bit
    before = flipped.read_bytes()
    flipped.write_bytes(content)
    try:
        return not mal_graph.audit(Path(path)).passed
    except MalGraphError:
        return True
    finally:
        flipped.write_bytes(before)
