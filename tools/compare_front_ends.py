"""Whether a network has the same axis groups however it comes in: torch.fx, torch.export, and its exported files.

    python tools/make_suite_models.py suite_models
    python tools/compare_front_ends.py --models suite_models -o tools/results/compare_front_ends.md

Each network of the suite is built once more with the weights of the files, traced (by torch.fx where that works) and
exported, and the groups are compared as sets of places in the module's parameters. A stored tensor of a file is
recognised by its values. Where an exporter folds BatchNorm, convolutions have other values than the module's: there
the numbers of units are compared. Where groups differ all of them are verified. Exit code 1 if one is rejected.

Traced graphs are also run in onnxruntime beside torch. How far float32 itself is from float64 stands beside it, and how
far graph and module are apart where both compute in float64: that tells rounding from another function.

Each network runs in a process of its own. Rows are kept as JSON lines beside the models, and used again while the code
has not changed.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from make_suite_models import ALSO_BY_DYNAMO, TIMM, own_model, timm_model
from study_groups import Exact, code_digest, read_lines
from suite_networks import NETWORKS
from torch import nn

import mal_graph
from mal_graph import registry
from mal_graph.graph import Array, LayerGraph
from mal_graph.symmetry import AxisGroup

EXPORTERS = ("ts", "dynamo", "dynamo_raw")
AGREED = 1e-5  # how far, of the largest, an output in onnxruntime may lie from torch's
SAME = 1e-6  # and where both compute in float64, from constants that a file stores in float32
VERIFICATION_SECONDS = 100.0  # for one front end: what has no verdict by then is not rejected
Place = tuple[str, int, int]  # parameter, axis, index
Units = frozenset[frozenset[Place]]  # a group, as the places of each of its units


@dataclass
class Found:
    """What one front end found in one network."""

    groups: dict[Units, AxisGroup]
    sizes: Counter[int]
    known: set[str]  # parameters recognised


@dataclass
class Row:
    """One network through all front ends."""

    network: str
    by: str = ""
    groups: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    deviation: float = 0.0
    noise: float = 0.0
    exact: float = 0.0
    seconds: float = 0.0
    code: str = ""


# --- groups as places in the module ----------------------------------------------------------------------------


def fingerprint(values: Array) -> tuple[int, int]:
    """Equal for arrays that hold the same values in any order."""
    return values.size, crc32(np.sort(values, axis=None).tobytes())


def recognised(graph: LayerGraph, module: nn.Module) -> dict[str, tuple[str, dict[int, int]]]:
    """For each stored tensor that equals a parameter: its name in the module, and for each axis that one's axis."""
    stored: dict[tuple[int, int], list[tuple[str, Array]]] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1:
            values = tensor.detach().numpy()
            stored.setdefault(fingerprint(values), []).append((name, values))
    found = {}
    for name, weight in graph.weights.items():
        if weight.is_float and weight.size > 1 and not weight.scope:
            values = weight.read()
            for theirs, expected in stored.get(fingerprint(values), []):
                axes = axes_between(values, expected)
                if axes is not None:
                    found[name] = theirs, axes
    return found


def axes_between(values: Array, expected: Array) -> dict[int, int] | None:
    """For each axis of `values` that of `expected` it is, if they are equal so."""
    mine = [axis for axis, size in enumerate(values.shape) if size > 1]
    theirs = [axis for axis, size in enumerate(expected.shape) if size > 1]
    for order in permutations(range(len(theirs))) if len(mine) == len(theirs) else ():
        turned = expected.squeeze().transpose(order)
        if turned.shape == values.squeeze().shape and np.array_equal(turned, values.squeeze()):
            return {a: theirs[b] for a, b in zip(mine, order, strict=True)}
    return None


def found_in(graph: LayerGraph, module: nn.Module) -> Found:
    groups = mal_graph.axis_groups(graph)
    known = recognised(graph, module)
    usable = [groups.groups[i] for i in groups.usable()]
    named = {places_of(group, known): group for group in usable}
    return Found(named, Counter(group.units for group in usable), {name for name, _ in known.values()})


def places_of(group: AxisGroup, known: dict[str, tuple[str, dict[int, int]]]) -> Units:
    units: list[list[Place]] = [[] for _ in range(group.units)]
    for member in group.members:
        if member.tensor in known:
            name, axes = known[member.tensor]
            for unit, positions in zip(units, member.positions.tolist(), strict=True):
                unit += [(name, axes[member.axis], place) for place in positions]
    return frozenset(map(frozenset, units))


def restricted(groups: Iterable[Units], known: set[str]) -> set[Units]:
    """The groups as far as they lie on some parameters."""
    cut = {frozenset(frozenset(p for p in unit if p[0] in known) for unit in group) for group in groups}
    return {group for group in cut if len(group) > 1}


# --- one network ------------------------------------------------------------------------------------------------


def compared(network: str, folder: Path | None) -> Row:
    """All front ends on one network."""
    start = time.perf_counter()
    module, inputs = own_model(network) if network in NETWORKS else timm_model(network)
    row = Row(network)
    graphs: dict[str, LayerGraph] = {}
    found: dict[str, Found] = {}
    for name, graph in front_ends(network, module, inputs, folder, row):
        graphs[name] = graph
        if name == "fx":
            row.deviation, row.noise, row.exact = deviations(graph, module, inputs)
        found[name] = found_in(graph, module)
    for name, theirs in found.items():
        reference = next(iter(found.values()))
        row.groups = sum(reference.sizes.values())
        row.verdicts[name] = verdict(reference, theirs)
    if any(text.startswith("differs") for text in row.verdicts.values()):
        row.rejected = rejected(graphs)
    row.seconds = time.perf_counter() - start
    return row


def front_ends(
    network: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path | None, row: Row
) -> Iterator[tuple[str, LayerGraph]]:
    def traced() -> LayerGraph:
        graph = mal_graph.trace(module, inputs)
        is_program = any("aten" in str(node.target) for node in graph.source.module.graph.nodes)
        row.by = "torch.export" if is_program else "torch.fx"
        return graph

    makers = {"fx": traced, "export": lambda: mal_graph.trace(torch.export.export(module, inputs, strict=False))}
    for exporter in EXPORTERS:
        path = None if folder is None else folder / f"{network}.{exporter}.onnx"
        if path is not None and path.exists():
            makers[exporter] = lambda path=path: mal_graph.load(path)
    for name, make in makers.items():
        try:
            yield name, make()
        except Exception as error:  # what a front end cannot take is a result
            row.failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"


def deviations(graph: LayerGraph, module: nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[float, float, float]:
    """How far, of the largest output, onnxruntime is from torch; torch in float32 from torch in float64; and in float64
    the graph from torch."""
    fed = {value.name: x.numpy() for value, x in zip(graph.inputs, inputs, strict=True)}
    made = list(registry.runner().open(graph).run(fed).values())
    judge = Exact(graph)
    judged = judge.run(*(doubled(part) for part in (fed, {name: graph.weights[name].read() for name in judge.weights})))
    with torch.no_grad():
        wanted = [x.numpy() for x in torch.utils._pytree.tree_leaves(module(*inputs))]
        module.double()
        exact = [x.numpy() for x in torch.utils._pytree.tree_leaves(module(*(x.double() for x in inputs)))]
        module.float()
    return farthest(made, wanted), farthest(wanted, exact), farthest(judged, exact)


def doubled(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def farthest(a: Sequence[Array], b: Sequence[Array]) -> float:
    return max(float(np.abs(x - y).max() / (np.abs(y).max() or 1)) for x, y in zip(a, b, strict=True))


def verdict(reference: Found, found: Found) -> str:
    """ "same axes", "same units" where weights are folded, or what differs."""
    both = reference.known & found.known
    mine, theirs = restricted(reference.groups, both), restricted(found.groups, both)
    if found.known < reference.known and reference.sizes == found.sizes:
        return "same axes" if mine == theirs and len(both) == len(reference.known) else "same units"
    if mine == theirs and reference.sizes == found.sizes:
        return "same axes"
    more, fewer = reference.sizes - found.sizes, found.sizes - reference.sizes
    return (
        f"differs: {len(mine - theirs)} of {len(mine)} groups; sizes only here {dict(fewer)}, only there {dict(more)}"
    )


def rejected(graphs: Mapping[str, LayerGraph]) -> list[str]:
    """The groups that a verification rejects, of networks whose groups differ between front ends."""
    found = []
    for name, graph in graphs.items():
        groups = mal_graph.verify(graph, mal_graph.axis_groups(graph), timeout=VERIFICATION_SECONDS)
        found += [f"{name}: {group.name}" for group in groups.groups if "rejected" in group.reason]
    return found


# --- the table --------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], left_out: Sequence[str]) -> Iterator[str]:
    names = ("fx", "export", *EXPORTERS)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "onnx", "onnxruntime", "mal-graph"))
    yield "# The same axis groups from every front end"
    yield ""
    yield f"{date.today()}, {packages}. Made by `python tools/compare_front_ends.py --models suite_models -o FILE`."
    yield ""
    yield from summary(rows)
    if left_out:
        yield f"* not tried, for want of time: {', '.join(left_out)}"
    yield ""
    yield (
        "| network | traced by | groups | "
        + " | ".join(names)
        + " | onnxruntime from torch | float32 from float64 | both in float64 | s |"
    )
    yield "|" + "---|" * (len(names) + 7)
    for row in rows:
        cells = [row.failed.get(name, row.verdicts.get(name, "")) for name in names]
        yield (
            f"| {row.network} | {row.by} | {row.groups} | {' | '.join(cells)} | {row.deviation:.0e} | {row.noise:.0e} "
            f"| {row.exact:.0e} | {row.seconds:.0f} |"
        )


def summary(rows: Sequence[Row]) -> Iterator[str]:
    traced = [row for row in rows if "fx" in row.verdicts]
    yield f"* networks: {len(rows)}; traced: {len(traced)}, by torch.fx {sum(row.by == 'torch.fx' for row in traced)}"
    for name in ("export", *EXPORTERS):
        here = [row for row in rows if name in row.verdicts]
        same = [row for row in here if row.verdicts[name].startswith("same")]
        axes = sum(row.verdicts[name] == "same axes" for row in here)
        failed = sum(name in row.failed for row in rows)
        if here or failed:
            yield f"* {name}: {len(here)} networks, groups equal in {len(same)} ({axes} by axes), {failed} failed"
    off = [row for row in traced if row.deviation > AGREED]
    yield (
        f"* outputs in onnxruntime within {AGREED:.0e} of torch's: {len(traced) - len(off)} of {len(traced)}; farther: "
        + (", ".join(f"{row.network} {row.deviation:.0e} (torch itself {row.noise:.0e})" for row in off) or "none")
    )
    apart = [f"{row.network} {row.exact:.0e}" for row in traced if row.exact > SAME]
    yield (
        f"* graph and module in float64 within {SAME:.0e} of each other: {len(traced) - len(apart)} of {len(traced)}; "
        f"farther: {', '.join(apart) or 'none'}"
    )
    differing = [row.network for row in rows if any(text.startswith("differs") for text in row.verdicts.values())]
    wrong = [f"{row.network} {name}" for row in rows for name in row.rejected]
    yield (
        f"* networks with a difference: {', '.join(differing) or 'none'}; groups of these that a verification rejects: "
        + (", ".join(wrong) or "none")
    )


# --- many networks ----------------------------------------------------------------------------------------------


def compared_apart(network: str, folder: Path | None, timeout: float) -> Row:
    """`compared` in a process of its own, ended after `timeout` seconds."""
    command = [sys.executable, __file__, "--one", network, *(["--models", str(folder)] if folder else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Row(network, failed={"fx": f"timed out after {timeout:.0f} s"})
    except (IndexError, ValueError, TypeError):  # a network that cannot be built is listed
        return Row(network, failed={"fx": (done.stderr.strip() or "-").splitlines()[-1][:200]})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, help="the folder that make_suite_models.py filled")
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--minutes", type=float, default=600, help="what is not begun by then is left out, and listed")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one network")
    parser.add_argument("-o", "--output", type=Path, help="write the table here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        print(json.dumps(asdict(compared(options.one, options.models))))
        return 0

    kept = None if options.models is None else options.models / "compare_front_ends.jsonl"
    code = code_digest(__file__)
    known = {row.network: row for row in read_lines(kept, Row) if row.code == code}
    rows: list[Row] = []
    start = time.monotonic()
    names = [name for name in dict.fromkeys((*NETWORKS, *ALSO_BY_DYNAMO, *TIMM)) if options.only in name]
    for network in names:
        if time.monotonic() - start > 60 * options.minutes:
            break
        row = known.get(network)
        if row is None:
            row = compared_apart(network, options.models, options.timeout)
            row.code = code
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
        rows.append(row)
        print(row.network, row.by, row.verdicts, row.failed, f"{row.deviation:.0e}", f"{row.seconds:.0f} s", flush=True)
    text = "\n".join(table(rows, names[len(rows) :])) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return int(any(row.rejected for row in rows))


if __name__ == "__main__":
    sys.exit(main())
