"""Slices: blocks of one or several models cut out of their chains and stacked into one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import MergeConfig, configured, shows_options
from mal_graph.errors import GateFailed, MatchError, RunError, UsageError
from mal_graph.evaluation import Scores, evaluate
from mal_graph.graph import LayerGraph
from mal_graph.merging import Chain, Piece, find_chain, restack, run_outputs
from mal_graph.network import Probe, probe
from mal_graph.option import Data
from mal_graph.protocols import Check, Runner
from mal_graph.workflows.checks import check_inputs
from mal_graph.workflows.models import Model, arrays_of, free_path, open_models
from mal_graph.workflows.provenance import Origin, provenance_of, with_provenance
from mal_graph.workflows.verdict import MERGED
from mal_graph.workflows.writing import write_checked

MOST_SLICES = 256


class Slice(NamedTuple):
    """Blocks of a model from `first` on, up to and without `stop`; a model is a path, a document or a graph."""

    model: Model
    first: int
    stop: int


@dataclass(frozen=True, repr=False)
class Stacked(Brief):
    """A network of slices.

    Attributes:
        graph: the network.
        slices: what it is made of, in order.
        chains: of each slice the chain that it is cut from.
        checks: what was checked of the network, and of the file once it is written.
        scores: of every model and of the network, where there are data.
        config: how the file is written, and no other option.
    """

    graph: LayerGraph
    slices: tuple[Slice, ...]
    chains: tuple[Chain, ...]
    checks: tuple[Check, ...]
    scores: tuple[Scores, ...] = ()
    config: MergeConfig = field(default_factory=MergeConfig)

    @property
    def blocks(self) -> int:
        """How many blocks the network has."""
        return sum(one.stop - one.first for one in self.slices)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(check.failed for check in self.checks)

    @property
    def origin(self) -> Origin:
        """What it is made of: each model once, in the order in which they come first."""
        models = {id(chain.graph): chain.graph for chain in self.chains}
        places = {key: place for place, key in enumerate(models)}
        slices = tuple(
            (places[id(chain.graph)], one.first, one.stop) for one, chain in zip(self.slices, self.chains, strict=True)
        )
        return Origin("stack", tuple(models.values()), self.config, slices=slices)

    def with_origin(self) -> LayerGraph:
        """The network, which says how it was made. Raises FileError."""
        return with_provenance(self.graph, provenance_of(self.origin, "", ()))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> "Stacked":
        """Write the network and check the file, completely or not at all; the result with the checks on the file.

        Raises:
            FileError: the file exists and `overwrite` is false, or it cannot be written.
            GateFailed: a check failed; nothing was written.
        """
        target, files = free_path(path, overwrite), [file for model in self.origin.models for file in model.files]
        checks = write_checked(
            self.with_origin(), target, self.chains[0].graph, files, overwrite=overwrite, config=self.origin.config
        )
        written = replace(self, checks=(*self.checks, *checks))
        if not written.passed:
            failed = "; ".join(f"{check.name} {check}" for check in written.checks if check.failed)
            raise GateFailed(f"{path} is not written: {failed}; stack other blocks")
        return written


@shows_options("stack")
def stack(
    slices: Sequence[tuple[Model, int, int]],
    *,
    data: Data | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Stacked:
    """One network out of blocks of several models: grafted, left out, put in another order or repeated.

    A network is cut into the equal blocks that repeat in it, such as the layers of a transformer. What is before them
    is that of the first slice's model, what is behind them that of the last one's. Weights are taken as they are.

    Args:
        slices: (model, first block, block behind the last one), in the order of the result.
        data: inputs and `labels`; the models and the result are then scored.
        options: how the file is written; see below.

    Raises:
        UsageError: a model has no such blocks, or there are more slices than may be.
        MatchError: blocks do not fit each other, or nothing repeats in a model.
        DataError: the data do not fit.
    """
    if not slices:
        raise UsageError("no slices given: name at least one, as (model, first, stop)")
    if len(slices) > MOST_SLICES:
        raise UsageError(f"{len(slices):,} slices are given, and {MOST_SLICES} may be: take longer ones")
    config = configured("stack", None, options)
    runner, several, arrays = runner or registry.runner(), tuple(Slice(*one) for one in slices), arrays_of(data)
    graphs = open_models([one.model for one in several], MergeConfig(), arrays)
    chains = {id(graph): find_chain(graph) for graph in graphs}
    own = tuple(chains[id(graph)] for graph in graphs)
    for one, chain in zip(several, own, strict=True):
        check_range(one, chain)
    tried = check_streams(own, runner)
    graph = restack([Piece(chain, one.first, one.stop) for one, chain in zip(several, own, strict=True)])
    result = Stacked(graph, several, own, (tried_check(graph, tried, runner),), config=config)
    return result if arrays is None else replace(result, scores=scored(result, arrays, runner))


def check_range(one: Slice, chain: Chain) -> None:
    """Raise UsageError where a model has no such blocks."""
    if not 0 <= one.first < one.stop <= len(chain):
        raise UsageError(
            f"{chain.graph.name} has {len(chain)} equal blocks, and the slice is from {one.first} to {one.stop}: give "
            f"a range from 0 to {len(chain)}, the second number behind the last block"
        )


def check_streams(chains: Sequence[Chain], runner: Runner) -> Probe:
    """A run of the first model. Raises MatchError where the streams of the others are not like its own."""
    first = chains[0]
    tried = probe(first.graph, runner)
    for chain in chains[1:]:
        if chain.graph is first.graph:
            continue
        check_inputs(first.graph, chain.graph, ())
        other = probe(chain.graph, runner)
        mine, theirs = (own.shapes.get(one.streams[0]) for own, one in ((tried, first), (other, chain)))
        if mine != theirs:
            raise MatchError(
                f"blocks of {chain.graph.name} do not fit those of {first.graph.name}: what they read has shape "
                f"{list(theirs or ())}, there {list(mine or ())}; stack models of one width"
            )
    return tried


def tried_check(graph: LayerGraph, tried: Probe, runner: Runner) -> Check:
    """Whether the network runs. Raises MatchError where it does not."""
    try:
        outputs = run_outputs(graph, tried.inputs, runner)
    except RunError as error:
        raise MatchError(f"these blocks do not fit each other: {error}; stack models of one architecture") from None
    bad = [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return Check("finite", not bad, f"output {bad[0]!r} is not finite on the probe inputs" if bad else "")


def scored(result: Stacked, arrays: Mapping[str, Any], runner: Runner) -> tuple[Scores, ...]:
    """Every model and the result on labelled data. Raises DataError."""
    graphs = {id(chain.graph): chain.graph for chain in result.chains}.values()
    rows = [evaluate(graph, arrays, runner=runner) for graph in graphs]
    return (*rows, evaluate(result.graph, arrays, arm=MERGED, runner=runner))
