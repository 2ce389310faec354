"""Stacks of whole models for methods on activations: what every weight is multiplied with, in the base's frame.

Samples stream by: of each weight the products of its columns are summed up, and it is merged as soon as these are
known; they are measured for as many weights at once as there is room for. What is merged layer by layer is measured in
the base's graph, which holds what is merged by then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.evaluation import Stream, Walk, find_levels, find_walk_batches, read_output_kind, stream_together
from mal_graph.graph import LayerGraph
from mal_graph.matching import find_partners
from mal_graph.merging.fisher import head_of
from mal_graph.merging.gradient_fisher import EntryFisher
from mal_graph.merging.input_rows import InputRows, listed, rows_of_base, rows_of_donor
from mal_graph.merging.planning import Step
from mal_graph.merging.stacking import Stacking, frame_of, stack_merge
from mal_graph.methods import Measured
from mal_graph.network import find_sample_axes
from mal_graph.protocols import Runner
from mal_graph.registry import gradients_of

MOST_COLUMNS = 8192  # of a weight whose columns are measured: their products take half a gigabyte
MOST_BYTES = 1 << 30  # of products that are summed up at once

Inputs = Mapping[str, Array]
Reads = Mapping[int, InputRows]  # what each model reads with a weight, by its number


@dataclass
class Products:
    """Summed products of the columns of weights, of each model with each."""

    sums: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)

    def add(self, tensor: str, rows: Sequence[Array | None]) -> None:
        """What some models read in a batch, each of shape (blocks, columns, samples); where these are not rows of the
        same samples, nothing is known of the weight."""
        known = [one for one in rows if one is not None]
        if len(known) < len(rows) or len({one.shape for one in known}) > 1:
            self.unseen.add(tensor)
            return
        several = np.stack(known)
        products = several[:, None] @ several.transpose(0, 1, 3, 2)
        self.sums[tensor] = products if tensor not in self.sums else self.sums[tensor] + products
        self.counts[tensor] = self.counts.get(tensor, 0) + several.shape[-1]

    def means(self) -> dict[str, Array]:
        """By weight, shape (models, models, blocks, columns, columns)."""
        return {tensor: total / self.counts[tensor] for tensor, total in self.sums.items() if tensor not in self.unseen}


@dataclass(frozen=True, repr=False)
class MeasuredStacking(Brief):
    """A stacking whose method takes what weights are multiplied with.

    Attributes:
        stacking: what becomes of the tensors.
        inputs: of each model that is merged, by its number, arrays by the base's names.
        runner: runs the models.
    """

    stacking: Stacking
    inputs: Mapping[int, Inputs]
    runner: Runner

    def merged(self) -> LayerGraph:
        """The base with every tensor that is merged made by the method; those that were measured are computed.

        Raises:
            UsageError: as `stack_merge`.
            DataError, RunError: a model does not run on its inputs.
        """
        graph = stack_merge(self.stacking)
        return graph.with_weights(self.measured(graph))

    @np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
    def measured(self, graph: LayerGraph) -> dict[str, Array]:
        """The merged values of every tensor of which something was measured, by name; `graph` has the means.

        Raises:
            DataError, RunError: a model does not run on its inputs.
        """
        where = self.stacking.method.measured
        if where is Measured.MERGED:
            return self.in_order(graph)
        if where is Measured.OUTPUTS:
            return self.by_gradients() or self.by_fisher()
        measure = self.each_alone if where is Measured.OWN else self.all_together
        new: dict[str, Array] = {}
        for tensors in self.batches_of_weights():
            new |= {tensor: self.value(tensor, moments) for tensor, moments in measure(tensors).items()}
        return new

    def value(self, tensor: str, moments: Array) -> Array:
        """A merged weight, computed."""
        return replace(self.stacking.values_of(tensor), moments=moments)()

    @cached_property
    def base_reads(self) -> Mapping[str, InputRows]:
        """What the base reads with each weight."""
        found = {}
        for tensor, steps in self.stacking.tensors.items():
            weight = next(iter(steps.values())).pair.base
            own = rows_of_base(self.stacking.base, weight) if weight.is_weight else None
            if own is not None and prod(weight.shape[1:]) <= MOST_COLUMNS:
                found[tensor] = own
        return found

    @cached_property
    def reads(self) -> Mapping[str, Reads]:
        """What every model that is merged reads with each weight that all of them show."""
        stacking, found = self.stacking, dict[str, Reads]()
        for tensor, own in self.base_reads.items():
            steps, numbers = stacking.tensors[tensor], stacking.values_of(tensor).numbers
            sides = [
                rows_of_donor(stacking.plans[number - 1], steps[number], own) if number else own for number in numbers
            ]
            known = {number: side for number, side in zip(numbers, sides, strict=True) if side is not None}
            if len(known) == len(numbers):
                found[tensor] = known
        return found

    def batches_of_weights(self) -> Iterator[list[str]]:
        """The weights that are measured at once."""
        batch, taken = list[str](), 0
        power = 2 if self.stacking.method.measured is Measured.TOGETHER else 1
        for tensor, reads in self.reads.items():
            size = 8 * len(reads) ** power * self.base_reads[tensor].size
            if batch and taken + size > MOST_BYTES:
                yield batch
                batch, taken = [], 0
            batch.append(tensor)
            taken += size
        if batch:
            yield batch

    def by_gradients(self) -> dict[str, Array]:
        """The merged tensors, by how much their entries say of the outputs of each model; of the output that stands
        first, and none where a model was not traced, so that there are no gradients."""
        each = {number: self.entry_fisher(number) for number in self.stacking.numbers}
        known = {number: one.measured() for number, one in each.items() if one is not None}
        if len(known) < len(each):
            return {}
        merged = {}
        for tensor, steps in self.stacking.tensors.items():
            own = self.stacking.values_of(tensor)
            is_moved = any(step.pair.restore is not None or step.pair.incoming is not None for step in steps.values())
            if not is_moved and not own.rule.is_statistic:
                several = [self.in_frame(number, tensor, known[number]) for number in own.numbers]
                merged[tensor] = replace(own, fisher=np.stack(several))()
        return merged

    def entry_fisher(self, number: int) -> EntryFisher | None:
        """The information of all entries of one model; None where it was not traced."""
        graph, output = self.graph_of(number), self.stacking.base.outputs[0].name
        if number:
            output = self.stacking.plans[number - 1].alignment.correspondence.signatures.outputs.get(output, output)
        own = self.stacking.tensors.items()
        names = [
            steps[number].pair.donor.tensor if number else tensor for tensor, steps in own if number in (0, *steps)
        ]
        gradients = gradients_of(graph, output, list(dict.fromkeys(names)))
        if gradients is None:
            return None
        kind = read_output_kind(graph, output)
        return EntryFisher(gradients, self.stream_of(number, [output]), output, kind, self.stacking.seed)

    def in_frame(self, number: int, tensor: str, known: Mapping[str, Array]) -> Array:
        """Values for each entry of one model's tensor where the base has these; 0 where the model lacks one."""
        if not number:
            return self.first_step(tensor).pair.base.canonical(known[tensor])
        step, plan = self.stacking.tensors[tensor][number], self.stacking.plans[number - 1]
        values = step.pair.donor.canonical(known[step.pair.donor.tensor])
        frame = frame_of(plan, replace(step, pair=replace(step.pair, donor_values=lambda: values)))
        shape = step.pair.base.shape
        return frame(np.zeros(shape), tuple(slice(0, length) for length in shape))

    def by_fisher(self) -> dict[str, Array]:
        """The merged weights and biases of last layers, by how much their entries say of the outputs of each model."""
        each: dict[str, list[Array]] = {}
        for tensor, reads in self.reads.items():
            heads = {number: head_of(self.graph_of(number), rows.inputs) for number, rows in reads.items()}
            known = {number: head for number, head in heads.items() if head is not None}
            biases = [
                name
                for name, steps in self.stacking.tensors.items()
                for step in list(steps.values())[:1]
                if step.pair.base.is_bias and step.pair.layer == self.first_step(tensor).pair.layer
            ]
            if len(known) < len(heads) or len(reads[self.stacking.numbers[0]].inputs) > 1:
                continue
            for number, head in known.items():
                both = head.fisher(self.stream_of(number, [*reads[number].tensors, head.output]), reads[number])
                if both is None:
                    break
                for name, own in zip((tensor, *biases[:1]), both, strict=False):
                    each.setdefault(name, []).append(self.in_rows(number, name, own))
        return {
            tensor: replace(self.stacking.values_of(tensor), fisher=np.stack(several))()
            for tensor, several in each.items()
            if len(several) == len(self.stacking.values_of(tensor).numbers)
        }

    def first_step(self, tensor: str) -> Step:
        """How the first donor that has a tensor corresponds to the base there."""
        return next(iter(self.stacking.tensors[tensor].values()))

    def in_rows(self, number: int, tensor: str, values: Array) -> Array:
        """Values for each row of one model's tensor where the base has these; 0 where the model lacks one."""
        shape = self.first_step(tensor).pair.base.shape
        if not number:
            return values.reshape(shape)
        step, orders = self.stacking.tensors[tensor][number], self.stacking.plans[number - 1].alignment.orders
        partners = listed(find_partners(step.axes[0], orders), shape[0])
        moved = values[partners]
        moved[partners < 0] = 0
        return moved.reshape(shape)

    def graph_of(self, number: int) -> LayerGraph:
        """One of the models, by its number."""
        return self.stacking.plans[number - 1].donor.graph if number else self.stacking.base

    def stream_of(self, number: int, names: Sequence[str]) -> Stream:
        """The inputs of a model on their way through it."""
        arrays = self.inputs[number]
        if number:
            arrays = self.stacking.plans[number - 1].alignment.correspondence.signatures.for_donor(arrays)
        return Stream(self.graph_of(number), arrays, self.runner, names)

    def stream(self, number: int, arrays: Inputs, tensors: Sequence[str]) -> tuple[Stream, list[str]]:
        """Arrays on their way through one model, and what is read of it."""
        graph, named = self.stacking.base, arrays
        if number:
            alignment = self.stacking.plans[number - 1].alignment.correspondence
            graph, named = alignment.donor.graph, alignment.signatures.for_donor(arrays)
        reads = [self.reads[tensor][number] for tensor in tensors if number in self.reads[tensor]]
        names = list(dict.fromkeys(name for one in reads for name in one.tensors))
        return Stream(graph, named, self.runner, names), names

    def each_alone(self, tensors: Sequence[str]) -> dict[str, Array]:
        """The moments of some weights in each model on its own inputs, shape (models, blocks, columns, columns)."""
        each: dict[str, list[Array]] = {tensor: [] for tensor in tensors}
        for number in self.stacking.numbers:
            own, products = [tensor for tensor in tensors if number in self.reads[tensor]], Products()
            for values in stream_together([self.stream(number, self.inputs[number], own)]) if own else ():
                for tensor in own:
                    products.add(tensor, [self.reads[tensor][number].rows(values[0])])
            for tensor, moments in products.means().items():
                each[tensor].append(moments[0, 0])
        return {tensor: np.stack(own) for tensor, own in each.items() if len(own) == len(self.reads[tensor])}

    def all_together(self, tensors: Sequence[str]) -> dict[str, Array]:
        """The products of what all models read on the inputs of all, shape (models, models, blocks, columns,
        columns)."""
        products = Products()
        arrays = joined_inputs(self.stacking.base, list(self.merged_inputs.values()))
        numbers = self.stacking.numbers
        for values in stream_together([self.stream(number, arrays, tensors) for number in numbers]):
            read = dict(zip(numbers, values, strict=True))
            for tensor in tensors:
                products.add(tensor, [rows.rows(read[number]) for number, rows in self.reads[tensor].items()])
        return products.means()

    @property
    def merged_inputs(self) -> Mapping[int, Inputs]:
        """Those of the models that are merged, by number: of all but the base where it is the ancestor."""
        return {number: self.inputs[number] for number in self.stacking.numbers}

    def in_order(self, graph: LayerGraph) -> dict[str, Array]:
        """The merged weights, layer by layer: each by what those before give, on the inputs of every model."""
        reads = {tensor: self.base_reads[tensor] for tensor in self.reads}
        level_of = find_levels(graph, {one.parameter.node for own in reads.values() for one in own.inputs})
        levels: dict[int, list[str]] = {}
        for tensor, own in reads.items():
            levels.setdefault(max(level_of[name] for name in own.tensors), []).append(tensor)
        stages = [[name for tensor in levels[level] for name in reads[tensor].tensors] for level in sorted(levels)]
        walks = {
            number: Walk(graph, arrays, self.runner, stages, list(reads))
            for number, arrays in self.merged_inputs.items()
        }
        batches = {number: find_walk_batches([walk]) for number, walk in walks.items()}
        new: dict[str, Array] = {}
        for level in sorted(levels):
            each: dict[str, dict[int, Array]] = {tensor: {} for tensor in levels[level]}
            for number, walk in walks.items():
                products = Products()
                for values in walk.next_stage(batches[number], new):
                    for tensor in levels[level]:
                        products.add(tensor, [reads[tensor].rows(values)])
                for tensor, moments in products.means().items():
                    each[tensor][number] = moments[0, 0]
            for tensor, known in each.items():
                if known:
                    new[tensor] = self.value(tensor, np.stack([known[number] for number in self.reads[tensor]]))
        return new


def joined_inputs(base: LayerGraph, several: Sequence[Inputs]) -> Inputs:
    """The inputs of several models, one after the other; what is given for several of them once."""
    axes = find_sample_axes(base)
    first, *others = {id(arrays): arrays for arrays in several}.values()
    for arrays in others:
        first = axes.joined(first, arrays)
    return first
