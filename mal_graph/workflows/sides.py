"""Models that are to be one network: opened and paired, with their groups and the inputs that show what units give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.compression import (
    SLOPES,
    Candidate,
    ClassNames,
    Compressible,
    Cost,
    Member,
    class_names_of,
    draw_samples,
    driven_statistics,
    find_norms,
    thin,
)
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError
from mal_graph.evaluation import calibration_inputs, fixed_batches
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures, pair_signatures
from mal_graph.network import count_multiplications, find_sample_axes, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups, Network
from mal_graph.workflows.checks import check_inputs
from mal_graph.workflows.models import Progress
from mal_graph.workflows.steps import Known, verified_groups

MOST_NOISE, LEAST_NOISE = 1024, 64  # samples
MOST_RUNS = 256  # for one pass of the samples, where the batch is fixed
NOISE_ENTRIES = 1 << 23  # numbers in all samples together
NOISE_WORK = 1 << 37  # multiplications of the base on all of them: a choice runs them some dozens of times
HELD_OUT = 4  # one calibration input of so many is judged on
LEAST = 16  # calibration inputs to fit on, and to judge on
FEW, ADDED = 100, 512  # with fewer inputs to fit on than that, so much noise is added


@dataclass(frozen=True)
class Samples:
    """Inputs by the base's names: what is fitted on, and what is judged on.

    Attributes:
        fitting: unlabelled samples.
        fresh: others, of one kind or several.
        told: what the others are, in words.
        count: how many are fitted on.
        are_real, are_fresh_real: whether those that are fitted on, and those that are judged on, were given.
    """

    fitting: Mapping[str, Array]
    fresh: tuple[Mapping[str, Array], ...]
    told: str
    count: int
    are_real: bool
    are_fresh_real: bool

    @property
    def are_few(self) -> bool:
        """Whether fewer inputs than it takes were given to fit on."""
        return self.are_real and self.count < FEW


@dataclass(frozen=True, repr=False)
class Side(Brief):
    """One model with what is known of it.

    Attributes:
        paired: which of its inputs and outputs is which of the base's.
        model: the network that may lose units.
        runner: runs it.
        names: what it calls its classes.
    """

    paired: Signatures
    model: Compressible
    runner: Runner
    names: ClassNames = field(default_factory=ClassNames)

    @property
    def network(self) -> Network:
        return self.model.network

    @property
    def graph(self) -> LayerGraph:
        return self.model.network.graph

    @cached_property
    def cost(self) -> Cost:
        """Its multiplications, by how many units it keeps."""
        return Cost(self.network, self.model.sets)

    def candidate(self, share: float) -> Candidate:
        """The model as a budget sees it, which counts so much in the mean."""
        return Candidate(self.cost, self.model.rankings, share)

    @cached_property
    def member(self) -> Member:
        """The model as a member of a mean."""
        tensors = [out for node in self.graph.nodes for out in node.outputs if out]
        types = self.runner.open(self.graph, read=tensors).types
        return Member(self.graph, self.paired.inputs, self.paired.outputs, types, self.network.probe.shapes, self.names)

    def thinned(self, counts: Mapping[int, int]) -> LayerGraph:
        """The model with so many units in each set, by number. Raises ShapeError, DataError or RunError."""
        kept = {number: self.model.rankings[number].kept(count) for number, count in counts.items()}
        try:
            return thin(self.model, kept)
        except DataError as error:
            error.add_note(f"while thinning {self.graph.name}")
            raise

    @cached_property
    def whole(self) -> int:
        """Its multiplications with all its units."""
        return self.multiplications(self.graph)

    def multiplications(self, graph: LayerGraph) -> int:
        """Those of what is left of it, counted on the graph, for one run of the probe's inputs."""
        return count_multiplications(graph, probe(graph, self.runner, inputs=self.network.probe.inputs).shapes)


def open_sides(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known | None = None,
) -> tuple[list[Side], Samples]:
    """Several models, the base first, and the samples that they are run on.

    Args:
        known: groups that were verified before, which hold where they were found at the same sizes.

    Raises:
        MatchError: they do not take the same inputs, or their outputs cannot be paired.
        DataError: the calibration inputs do not fit.
        UnsupportedModel: their operators are of versions that cannot be made one.
    """
    base, *donors = of_one_opset(graphs)
    known = [] if known is None else known
    network = Network(base, verified_groups(base, config, runner, progress, known))
    samples = samples_for(network, config)
    sides = [opened(network, pair_signatures(base, base), samples, runner, config.seed)]
    for donor in donors:
        check_inputs(base, donor, config.pair)
        paired = pair_signatures(base, donor, config.pair)
        options = config.replaced(inputs=network.probe.inputs, input_shapes=None)
        sizes = {theirs: network.probe.inputs[own].shape for own, theirs in paired.inputs.items()}
        usable = [one for one in known if sizes_of(one.groups) == sizes]
        groups = verified_groups(donor, options, runner, progress, usable, paired)
        sides.append(opened(Network(donor, groups), paired, samples, runner, config.seed))
    given = config.labels_of or (None,) * len(sides)
    named = zip(sides, given, strict=True)
    return [replace(side, names=class_names_of(side.graph, names)) for side, names in named], samples


def sizes_of(groups: AxisGroups) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that groups were found with."""
    return {name: array.shape for name, array in groups.probed.inputs.items()}


def opened(network: Network, paired: Signatures, samples: Samples, runner: Runner, seed: int) -> Side:
    """A network with the inputs that show what each of its units gives: where these are few, with noise beside them,
    which is worth more than they are. Where a BatchNormalization makes noise another thing than inputs, it is left out.
    """
    inputs = paired.for_donor(samples.fitting)
    if not samples.are_real:
        measured = driven_statistics(network.graph, inputs, runner)
        return Side(paired, Compressible(network, inputs, runner, measured, by_tap=False), runner)
    is_mixed = samples.are_few and not find_norms(network.graph)
    if is_mixed:
        noise = draw_samples(network.graph, inputs, affordable(network, ADDED), seed)
        inputs = find_sample_axes(network.graph).joined(inputs, noise)
    return Side(paired, Compressible(network, inputs, runner, by_tap=not is_mixed), runner)


def of_one_opset(graphs: Sequence[LayerGraph]) -> list[LayerGraph]:
    """The graphs in the newest version of the standard operators that one of them uses. Raises UnsupportedModel."""
    newest = max(graph.opsets.get("", 1) for graph in graphs)
    adapter = registry.adapter_for("any.onnx")
    return [graph if graph.opsets.get("", 1) == newest else adapter.at_opset(graph, newest) for graph in graphs]


def samples_for(base: Network, config: MergeConfig) -> Samples:
    """The calibration inputs, a part of them held out; noise where there are none. Raises DataError."""
    if config.calibrate is None:
        return noise_for(base, config)
    arrays = calibration_inputs(base.graph, config.calibrate)
    axes = find_sample_axes(base.graph)
    count = axes.count(arrays)
    if count < 2 * LEAST:
        drawn, told = noise_for(base, config), f"noise: {count} calibration inputs are too few to hold some out"
        return Samples(arrays, drawn.fresh, told, count, True, False)
    held_out = max(LEAST, count // HELD_OUT)
    is_held = np.diff(np.arange(count + 1) * held_out // count) > 0
    kept, held = axes.taken(arrays, ~is_held), axes.taken(arrays, is_held)
    told = f"{int(is_held.sum())} of {count} calibration inputs, held out"
    return Samples(kept, (held,), told, int((~is_held).sum()), True, True)


def affordable(network: Network, count: int) -> int:
    """So many samples of noise, or fewer where each takes long."""
    samples = find_sample_axes(network.graph).count(network.probe.inputs)
    work = count_multiplications(network.graph, network.probe.shapes) // max(1, samples)
    return max(LEAST, min(count, NOISE_WORK // max(1, work)))


def noise_for(base: Network, config: MergeConfig) -> Samples:
    """Noise to fit on, and of several kinds to judge on. Raises DataError where no input holds samples."""
    like = base.probe.inputs
    axes = find_sample_axes(base.graph)
    if not axes.counts(like):
        raise DataError(
            f"the inputs of {base.name} are single numbers, so that its units cannot be measured on many samples: use "
            "`method`=mal"
        )
    entries = max(1, sum(int(array.size) for array in axes.taken(like, slice(0, 1)).values()))
    fixed = fixed_batches(base.graph)
    most = MOST_RUNS * max(fixed) if fixed else MOST_NOISE  # where every few samples are a run of their own
    count = max(LEAST_NOISE, min(MOST_NOISE, most, NOISE_ENTRIES // entries))
    count = affordable(base, count)
    draw = partial(draw_samples, base.graph, like, count)
    fresh = tuple(draw(config.seed + 1 + kind, slope) for kind, slope in enumerate(SLOPES))
    told = f"{count} samples of noise, of {len(SLOPES)} kinds"
    return Samples(draw(config.seed), fresh, told, count, False, False)
