"""A network whose operators run for one sample at a time: the body of a Scan, with weights that may be computed there.

Chosen: the sample alone runs through the network, so that weights that depend on it serve any operator, and no result
depends on what else is in a batch. Refused: outputs of each operator weighted sample by sample - where an exporter lays
samples into another axis, nothing tells which entry is whose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.errors import MatchError, RunError
from mal_graph.evaluation import fixed_batches
from mal_graph.graph import LayerGraph, Node, Value, Weight, needed_nodes, unused_stem, weight_of
from mal_graph.merging.outputs import Sessions
from mal_graph.network import Probe, SampleAxes, find_sample_axes
from mal_graph.operators import SCAN_RUN, cast_number, reads_axes
from mal_graph.protocols import Runner
from mal_graph.symmetry import SAME_FUNCTION, deviation

LEAST_OPSET = 11  # a Scan goes through samples from 9 on, and TopK counts by an input from 10 on; logic as here from 11


@dataclass(frozen=True, repr=False)
class SamplePlaces(Brief):
    """Where a network holds samples.

    Attributes:
        inputs: the axis of each input; None where it is one value for all samples.
        outputs: the axis of each output.
    """

    inputs: SampleAxes
    outputs: Mapping[str, int]


def find_places(graph: LayerGraph, probed: Probe, runner: Runner) -> SamplePlaces:
    """Where a network holds samples that can be run one at a time.

    Raises:
        MatchError: what it gives for a sample depends on others, or it does not run on one alone.
        RunError: it does not run.
    """
    axes, fixed = find_sample_axes(graph), fixed_batches(graph)
    if fixed - {1} or not axes.counts(probed.inputs):
        why = f"it takes batches of {max(fixed)}" if fixed else "none of its inputs holds samples"
        raise refused(graph, why)
    if graph.opsets.get("", 1) < LEAST_OPSET:
        raise refused(graph, f"it is of opset {graph.opsets.get('', 1)}, and a router takes {LEAST_OPSET}")
    run, samples = Sessions(runner).open(graph).outputs, axes.count(probed.inputs)
    ends = [axes.taken(probed.inputs, slice(place, place + 1)) for place in (0, samples - 1)]
    try:
        apart = [run(one) for one in ends]
        both = apart[0] if fixed else run(axes.joined(*ends))
    except RunError as error:
        raise refused(graph, f"it does not run on one sample ({error})") from None
    found = {}
    for name in (value.name for value in graph.outputs):
        axis = axis_of_samples(apart[0][name].shape, both[name].shape, 1 if fixed else 2)
        if axis is None:
            raise refused(graph, f"its output {name!r} holds no entry for each sample")
        found[name] = axis
    if not fixed:
        together = {name: np.concatenate([one[name] for one in apart], axis) for name, axis in found.items()}
        if not deviation(together, both) <= SAME_FUNCTION:
            raise refused(graph, "what it gives for a sample depends on the others in its batch")
    return SamplePlaces(axes, found)


def refused(graph: LayerGraph, why: str) -> MatchError:
    return MatchError(
        f"no router can be put into {graph.name}, which runs samples one at a time: {why}; export it with a dynamic "
        "batch axis and a current opset, or give a `method` without a router"
    )


def axis_of_samples(alone: Sequence[int], together: Sequence[int], count: int) -> int | None:
    """The axis along which an output of some samples is so many times as long as that of one."""
    if len(alone) != len(together):
        return None
    longer = [axis for axis, (one, several) in enumerate(zip(alone, together, strict=True)) if one != several]
    if count == 1:
        longer = [axis for axis, length in enumerate(alone) if length == 1][:1]
    return longer[0] if len(longer) == 1 and together[longer[0]] == count * alone[longer[0]] else None


@dataclass(repr=False)
class PerSample(Brief):
    """A network that runs sample by sample, as it comes about.

    Attributes:
        base: gives the signature.
        places: where that holds samples.
        outside: operators on stored tensors, which do not depend on a sample.
        inside: operators that run for each sample, in order.
        weights: what is stored.
        kept: weights of networks that are stored under their own names.
    """

    base: LayerGraph
    places: SamplePlaces
    outside: list[Node] = field(default_factory=list)
    inside: list[Node] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    kept: dict[str, Weight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stem = unused_stem(self.base, "sample")
        self.scope = f"{self.stem}/body/"

    def store(self, name: str, values: Array) -> str:
        """One more stored tensor."""
        self.weights[f"{self.stem}/{name}"] = weight_of(f"{self.stem}/{name}", values)
        return f"{self.stem}/{name}"

    def keep(self, weight: Weight, stem: str) -> str:
        """What a weight of a network is called here, which is stored once however many runs read it: as there, if that
        is free, or with a stem in front."""
        if weight.name in self.kept and self.kept[weight.name] is not weight:
            name = f"{self.stem}/{stem}/{weight.name}"
            self.weights[name] = replace(weight, name=name)
            return name
        self.kept[weight.name] = weight
        self.weights[weight.name] = weight
        return weight.name

    def prepare(self, name: str, op: str, inputs: Sequence[str], **attributes: object) -> str:
        """What one more operator makes of stored tensors, once for all samples."""
        made = f"{self.stem}/{name}"
        self.outside.append(Node(made, op, tuple(inputs), (made,), attributes))
        return made

    def add(self, name: str, op: str, inputs: Sequence[str], **attributes: object) -> str:
        """What one more operator makes for each sample."""
        return self.add_all(name, op, inputs, (name,), **attributes)[0]

    def add_all(
        self, name: str, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object
    ) -> tuple[str, ...]:
        """The same of an operator that makes several tensors."""
        made = tuple(f"{self.scope}{output}" for output in outputs)
        self.inside.append(Node(f"{self.scope}{name}", op, tuple(inputs), made, attributes, body=self.scope))
        return made

    def in_type(
        self, name: str, tensor: str, own: np.dtype[Any], wanted: np.dtype[Any], *, outside: bool = False
    ) -> str:
        """A tensor of one float type in another."""
        if own == wanted:
            return tensor
        make = self.prepare if outside else self.add
        return make(name, "Cast", (tensor,), to=cast_number(wanted))

    def along(self, name: str, op: str, tensor: str, axis: int, **attributes: object) -> str:
        """What an operator makes along one axis, which it is told as its version asks."""
        if reads_axes(op, self.base.opsets.get("", 1)):
            return self.add(name, op, (tensor, self.store(f"axis/{axis}", np.array([axis]))), **attributes)
        return self.add(name, op, (tensor,), axes=[axis], **attributes)

    def begin(self) -> dict[str, str]:
        """What the inputs of the network are called inside, with an axis for the one sample that is there."""
        known = {}
        for name, axis in self.scanned.items():
            known[name] = self.along(f"{name}/alone", "Unsqueeze", f"{self.scope}{name}", axis)
        return known

    @property
    def scanned(self) -> dict[str, int]:
        """The inputs that hold samples, each with the axis of these."""
        placed = {value.name: self.places.inputs.of(value.name) for value in self.base.inputs}
        return {name: axis for name, axis in placed.items() if axis is not None}

    def put(self, graph: LayerGraph, stem: str, tensors: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
        """Run what makes some tensors of a network for each sample; what its tensors are called inside.

        Args:
            stem: of the names inside.
            known: what tensors are called that are there already: its inputs, and weights that are computed.
        """
        names = dict(known)
        for node in needed_nodes(graph, tensors, known.keys()):
            for name in node.reads:
                if name in graph.weights and name not in names:
                    names[name] = self.keep(graph.weights[name], stem)
            names |= {name: f"{self.scope}{stem}/{name}" for name in (*node.outputs, *node.runs) if name}
            moved = node.renamed(names)
            own = f"{self.scope}{stem}/{node.name}"
            self.inside.append(replace(moved, name=own, body=names.get(node.body, self.scope)))
        return names

    def finished(self, outputs: Mapping[str, str], declared: Sequence[Value]) -> LayerGraph:
        """The network.

        Args:
            outputs: by name of each output what makes it inside, with an axis of one for the sample.
            declared: the outputs.
        """
        axes = [self.places.outputs.get(value.name, 0) for value in declared]
        given = [
            self.along(f"{value.name}/of one", "Squeeze", outputs[value.name], axis)
            for value, axis in zip(declared, axes, strict=True)
        ]
        scanned = self.scanned
        ways = {"num_scan_inputs": len(scanned), "scan_input_axes": list(scanned.values())}
        made = {name for node in self.outside for name in node.outputs}
        made |= {value.name for value in self.base.inputs} - scanned.keys()
        read = dict.fromkeys(name for node in self.inside for name in node.reads if name in made)
        begun = tuple(f"{self.scope}{name}" for name in scanned)
        begin = Node(f"{self.scope}ScanRun", SCAN_RUN, (*scanned, *read), begun, ways, body=self.scope)
        names = tuple(value.name for value in declared)
        end = Node(self.stem, "Scan", tuple(given), names, {**ways, "scan_output_axes": axes}, runs=(self.scope,))
        whole = self.base.written_anew(nodes=(*self.outside, begin, *self.inside, end))
        return replace(whole, outputs=tuple(declared), weights=self.weights)
