"""Whether a written model is as it was written, and whether it is what its inputs give.

By itself a sealed file shows that no bit of it was changed since; with the models that it was made of the whole job is
done again, with the options that the file notes, and what comes out is compared bit for bit. Chosen: the same steps as
the first time, and a second file that is compared by its digests. Refused: steps of their own for an audit - they
would have to agree with the first ones wherever these change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import CONFIGS, MergeConfig, ZooConfig, configured, options_of, shows_options
from mal_graph.errors import MalGraphError, UsageError
from mal_graph.graph import Array, LayerGraph
from mal_graph.option import Data, option_of
from mal_graph.protocols import Check, Runner
from mal_graph.seals import Sealed
from mal_graph.shards import STATE
from mal_graph.workflows.checkpoint import digest, fingerprint
from mal_graph.workflows.donor_order import in_order_of_content
from mal_graph.workflows.methods import make_model
from mal_graph.workflows.models import Model, Progress, arrays_of, load, open_models, silent, with_arrays
from mal_graph.workflows.provenance import Origin, Provenance, Source, read_provenance, unpacked, versions_used
from mal_graph.workflows.restacking import Stacked, stack
from mal_graph.workflows.writing import Written, with_origin
from mal_graph.workflows.zoo_search import repeat_zoo

WRITTEN, INPUTS, REPEATED = "written", "inputs", "repeated"
STACK = "stack"
NOTES = 12  # of this package's and of others', that the text lists


@dataclass(frozen=True, repr=False)
class Audit(Brief):
    """The result of `audit`.

    Attributes:
        path: the file.
        sealed: what it says of itself.
        provenance: how it was made, as it notes it; None where that cannot be read.
        checks: "written", and with inputs "inputs" and "repeated".
        notes: what is to be known beside, in sentences.
    """

    path: Path
    sealed: Sealed
    provenance: Provenance | None
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the file."""
        return not any(check.failed for check in self.checks)


@shows_options("audit")
def audit(
    path: Model,
    sources: Sequence[Model] = (),
    *,
    config: MergeConfig | None = None,
    data: Data | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Audit:
    """Whether a model is as it was written, and with the models that it was made of, whether it is what they give.

    Args:
        path: a file that `assemble`, `compress`, `zoo` or `stack` wrote.
        sources: the base and the donors that were merged, in order, and behind them the ancestor, where one was given
            that is not the base: the job is done again with them.
        data: the labelled data that were given then.
        config, options: the other arrays that were given then, as one value or as keywords; see below. Without them a
            job that used them is not repeated.
        progress: called with what is done, how much of it, of how much.

    Raises:
        FileError: the file has no seal, or cannot be read.
        UsageError: there are not as many models as it was made of.
        MalGraphError: whatever loading and merging the models raise.
    """
    settings, path = with_arrays(configured("audit", config, options)), Path(path)
    sealed = registry.writer_for(str(path)).read_seal(path)
    provenance = read_provenance(sealed.provenance)
    written = written_check(sealed, provenance)
    if not sources or provenance is None or written.failed:
        return Audit(path, sealed, provenance, (written,), () if sources or written.failed else (ALONE,))
    if len(sources) != len(provenance.sources):
        raise UsageError(
            f"{path} was made of {len(provenance.sources)} models, and {len(sources)} are given: give the base and the "
            f"donors that were merged, in order{', and the ancestor behind them' if provenance.ancestor else ''}"
        )
    given = arrays_of(data)
    graphs = open_models(sources, settings, given)
    if provenance.options.get("any_order"):
        end = provenance.ancestor or len(graphs)
        ordered, settings = in_order_of_content(graphs[:end], settings)
        graphs = [*ordered, *graphs[end:]]
    arrays = Origin("audit", (), settings, given).arrays
    found = inputs_check(provenance, graphs, arrays)
    if found.failed:
        return Audit(path, sealed, provenance, (written, found))
    again, notes = repeated_check(path, sealed, provenance, graphs, arrays, progress or silent, runner)
    return Audit(path, sealed, provenance, (written, found, again), (*notes, *notes_on_versions(provenance, again)))


ALONE = "this shows that the file is as it was written, not where it came from: give what it was made of for that"


def written_check(sealed: Sealed, provenance: Provenance | None) -> Check:
    """Whether a file is as it was written."""
    if sealed.changed:
        return Check(WRITTEN, False, "; ".join(sealed.changed))
    if provenance is None:
        return Check(WRITTEN, False, "it does not say how it was made in a form that this version reads")
    return Check(WRITTEN, True, f"graph, notes and {len(sealed.tensors)} tensors have the digests that were noted")


# --- the inputs -------------------------------------------------------------------------------------------------


def inputs_check(
    provenance: Provenance, graphs: Sequence[LayerGraph], arrays: Mapping[str, Mapping[str, Array]]
) -> Check:
    """Whether models and arrays are those that a file was made of."""
    wrong = [
        f"{graph.name} is not the model that was the {role_of(place, provenance.ancestor)}"
        for place, (graph, source) in enumerate(zip(graphs, provenance.sources, strict=True))
        if not is_source(graph, source)
    ]
    for name, held in arrays.items():
        if name not in provenance.arrays:
            wrong.append(f"it was made without `{name}`")
        elif digest("", sorted(held.items())) != provenance.arrays[name]:
            wrong.append(f"`{name}` holds other arrays than it was made with")
    return Check(INPUTS, not wrong, "; ".join(wrong) or f"{len(graphs)} models have the digests that were noted")


def role_of(place: int, ancestor: int | None) -> str:
    if place and place == ancestor:
        return "ancestor"
    return "base" if place == 0 else f"donor number {place}"


def is_source(graph: LayerGraph, source: Source) -> bool:
    """Whether a model is one that another was made of. Raises FileError where its file changes meanwhile."""
    if source.content:
        return fingerprint(graph) == source.content
    return tuple(file.sha256() for file in graph.files) == source.files


# --- once more --------------------------------------------------------------------------------------------------


def repeated_check(
    path: Path,
    sealed: Sealed,
    provenance: Provenance,
    graphs: Sequence[LayerGraph],
    arrays: Mapping[str, Any],
    progress: Progress,
    runner: Runner | None,
) -> tuple[Check, tuple[str, ...]]:
    """Whether the same job gives the same file, with what is to be known beside."""
    missing = sorted(provenance.arrays.keys() - arrays.keys())
    if missing:
        why = f"it was made with {' and '.join(f'`{name}`' for name in missing)}: give these arrays too"
        return Check(REPEATED, None, why), () if registry.is_state(str(path)) else (solved_note(path, graphs[0]),)
    try:
        again = repeat(provenance, graphs, arrays, progress, runner or registry.runner(), form_of(path))
    except MalGraphError as error:
        return Check(REPEATED, False, f"the same job fails now: {error}"), ()
    differing = list(differences(sealed, again))
    same = f"{len(sealed.tensors)} tensors, the graph and the notes come out the same, bit for bit"
    return Check(REPEATED, not differing, "; ".join(differing[:NOTES]) or same), ()


def form_of(path: Path) -> str:
    """How a file ends that is written as one at a path was; an index stands for what it lists."""
    return STATE if registry.is_state(str(path)) else path.suffix


def repeat(
    provenance: Provenance,
    graphs: Sequence[LayerGraph],
    arrays: Mapping[str, Any],
    progress: Progress,
    runner: Runner,
    form: str,
) -> Sealed:
    """The seal of what the same job gives now, in a file of some form. Raises MalGraphError."""
    graph = made_again(provenance, graphs, arrays, progress, runner)
    with TemporaryDirectory(prefix="mal-graph-") as folder:
        path = Path(folder, f"again{form}")
        adapter = registry.writer_for(str(path))
        size = provenance.options.get("shard_size")  # a weight in the model file has another digest than one beside it
        adapter.save(graph, path, overwrite=False, shard_size=size if isinstance(size, int) else None)
        return adapter.read_seal(path)


def made_again(
    provenance: Provenance,
    graphs: Sequence[LayerGraph],
    arrays: Mapping[str, Any],
    progress: Progress,
    runner: Runner,
) -> LayerGraph:
    """What the same job gives now, which says how it was made. Raises MalGraphError."""
    if provenance.job == STACK:
        return stacked_again(provenance, graphs, runner).with_origin()
    config = noted_config(provenance, {name: held for name, held in arrays.items() if name != "data"})
    result: Written
    if isinstance(config, ZooConfig):
        kept = zip(provenance.kept, provenance.orders, strict=True)
        decided = [replace(one, orders=()).with_orders(tuple(map(unpacked, orders))) for one, orders in kept]
        result = repeat_zoo(graphs, decided, config, arrays.get("data"), progress, runner)
    else:
        own = provenance.ancestor
        ancestor, models = None if own is None else graphs[own], graphs[: own or None]  # it is the base or comes last
        result = make_model(models, config, arrays.get("data"), progress, runner, ancestor)
    return with_origin(result)


def stacked_again(provenance: Provenance, graphs: Sequence[LayerGraph], runner: Runner) -> Stacked:
    """The same network of slices. Raises UsageError or MatchError."""
    if not all(0 <= place < len(graphs) for place, _, _ in provenance.slices):
        raise UsageError(f"its note names other slices than those of {len(graphs)} models: it is damaged")
    slices = [(graphs[place], first, stop) for place, first, stop in provenance.slices]
    noted = {name: value for name, value in provenance.options.items() if name in options_of(STACK)}
    return stack(slices, runner=runner, **noted)


def noted_config(provenance: Provenance, arrays: Mapping[str, Any]) -> MergeConfig:
    """The options that a file notes, with arrays. Raises UsageError where they are none, or would read other files."""
    configs = {job: CONFIGS[job] for job in ("assemble", "compress", "zoo")}
    if provenance.job not in configs:
        raise UsageError(f"there is no job {provenance.job!r}: the file was written by another version")
    fields = configs[provenance.job].model_fields
    for name, value in provenance.options.items():
        paths = [value, *(value if isinstance(value, list) else ())]
        if name in fields and option_of(fields[name]).reads_file and any(isinstance(one, str) for one in paths):
            raise UsageError(f"its note says that `{name}` is a file: no file is read because another one says so")
    config = configs[provenance.job](**{**provenance.options, **arrays})
    assert isinstance(config, MergeConfig)  # so are all of these
    return config


def differences(sealed: Sealed, again: Sealed) -> Iterator[str]:
    """In what the file of the same job differs."""
    if [place for place, _ in sealed.tensors] != [place for place, _ in again.tensors]:
        yield f"it stores other tensors: {len(sealed.tensors)}, and {len(again.tensors)} come out"
        return
    for (place, old), (_, new) in zip(sealed.tensors, again.tensors, strict=True):
        if old != new:
            yield f"{place} comes out with other values"
    if sealed.graph != again.graph:
        yield "the graph comes out another"
    mine, theirs = read_provenance(sealed.provenance), read_provenance(again.provenance)
    for what in ("options", "seed", "way", "orders", "kept", "arrays", "slices"):
        if getattr(mine, what) != getattr(theirs, what):
            yield f"{what} come out others"


def solved_note(path: Path, base: LayerGraph) -> str:
    """How many tensors are the base's own; all others were computed with arrays that are not given."""
    mine = load(path).weights
    shared = [name for name in mine if name in base.weights]
    same = sum(is_same(mine[name].read(), base.weights[name].read()) for name in shared)
    return (
        f"{same} of {len(mine)} tensors are the base's bit for bit; the others were computed with arrays that are not "
        "given, and are checked by their own digests alone"
    )


def is_same(a: Array, b: Array) -> bool:
    """Whether two arrays are equal bit for bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype.kind == "O" else np.ascontiguousarray(a).tobytes() == b.tobytes()


def notes_on_versions(provenance: Provenance, again: Check) -> Iterator[str]:
    """That what differs may come from other versions."""
    now = versions_used()
    names = sorted(name for name in {*now, *provenance.versions} if now.get(name) != provenance.versions.get(name))
    if names and not again.passed:
        told = ", ".join(f"{name} {provenance.versions.get(name, '-')} (here {now.get(name, '-')})" for name in names)
        yield f"it was made with {told}: other versions may round otherwise"
