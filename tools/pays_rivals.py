"""Published ways to one network out of two, as arms of `study_pays.py`.

Each says which units of both models become one unit of the result (see `pays_blends`) and how the weights follow: as
means, with the spread of every unit set right on the inputs, or fitted by least squares. Written in our own words from
the papers' ideas, on our verified axis groups, our matching and our alignment. What is simplified stands in `RIVALS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from pays_blends import Blend, Likeness, clustered, matched, transported, zipped
from pays_parents import Contraction, Parents, find_contractions

from mal_graph.brief import Brief
from mal_graph.compression import find_averaged, unite
from mal_graph.compression.moments import Halves
from mal_graph.compression.recovery import recover
from mal_graph.errors import UsageError
from mal_graph.graph import Array, LayerGraph
from mal_graph.symmetry import Member, Resizing, plan_resizing, resize_graph, resize_groups

WITHIN = (0.0, 0.125, 1.0)  # shares of a model's units that may be zipped within it, to choose from
REBASIN = "Git Re-Basin"  # what our own merge makes of weights that are matched and averaged, with repair
EVEN = (0.5, 0.5)  # how much each model counts where no unit is blended: in the last layer

Blends = Mapping[str, Blend]  # by name of the group
Grouping = Callable[[Likeness, int], Blend]


@dataclass(frozen=True, repr=False)
class Seen(Brief):
    """One contraction of the result on the inputs, and what it should give.

    Attributes:
        inputs: what its coefficients are multiplied with, shape (features, columns).
        samples: how many there are; columns are in their order.
        weight, bias: its coefficients so far, shapes (units, features) and (units,).
        parts: for each model what its units count in each of the result, shape (result, units), and what they give,
            shape (units, columns).
        makes_units: whether it makes blended units; what makes none makes an output.
    """

    inputs: Array
    samples: int
    weight: Array
    bias: Array | None
    parts: Sequence[tuple[Array, Array]]
    makes_units: bool


Setting = Callable[[Seen], tuple[Array, Array | None]]


def times(weight: Array, rows: Array) -> Array:
    """A product in the precision of the rows, of which there are many."""
    return np.asarray(weight.astype(rows.dtype) @ rows)


def least_squares(seen: Seen) -> tuple[Array, Array | None]:
    """Coefficients that give the mean of what the models give, nearest in the mean square.

    Drawn to the blended weights, as strongly as does best on the other half of the samples, in turn.
    """
    wanted = sum(times(part, rows) for part, rows in seen.parts)
    missed = wanted - times(seen.weight, seen.inputs)  # fitted in place of all of it, so that rounding counts for less
    halves = Halves.empty(len(seen.inputs), len(missed), is_centred=seen.bias is not None)
    sample = np.arange(seen.inputs.shape[1]) // (seen.inputs.shape[1] // seen.samples)
    for number, half in enumerate(halves.halves):
        here = sample % 2 == number
        half.add(seen.inputs[:, here], missed[:, here])
    spread = wanted.std(axis=1)
    step, left = recover(halves, np.zeros_like(seen.weight), np.diag(1 / np.where(spread > 0, spread, 1)))
    return seen.weight + step, None if seen.bias is None else left


def respread(seen: Seen) -> tuple[Array, Array | None]:
    """The blended coefficients, with the mean and the deviation of every unit those of what it is made of (REPAIR).

    Outputs are left: the mean of several varies less than each of them.
    """
    if not seen.makes_units:
        return seen.weight, seen.bias
    rows = times(seen.weight, seen.inputs)
    mean = sum(part @ own.mean(axis=1) for part, own in seen.parts)
    spread = sum(part @ own.std(axis=1) for part, own in seen.parts)
    now = rows.std(axis=1)
    factor = np.where(now > 0, spread / np.where(now > 0, now, 1), 1.0)
    return seen.weight * factor[:, None], None if seen.bias is None else mean - factor * rows.mean(axis=1)


@dataclass(frozen=True, repr=False)
class Fusion(Brief):
    """Both networks as one of the base's wiring.

    Attributes:
        parents: the two.
        blends: how the units of each group come about.
        shares: how much each model counts where no unit is blended.
    """

    parents: Parents
    blends: Blends
    shares: tuple[float, float] = EVEN

    @cached_property
    def units(self) -> dict[str, range]:
        return {name: range(blend.units) for name, blend in self.blends.items()}

    @cached_property
    def change(self) -> Resizing:
        """How the base's graph becomes as wide. Raises ShapeError."""
        own = self.parents.network
        return plan_resizing(own.graph, own.groups, own.traces, self.units, own.coupled)

    @cached_property
    def graph(self) -> LayerGraph:
        """The blended weights, as they are."""
        own, graph = self.parents.network, resize_graph(self.parents.graphs[0], self.change, {})
        tensors = dict.fromkeys(parameter.tensor for parameter in own.parameters)
        dtypes = {name: own.graph.weights[name].read().dtype for name in tensors}
        return graph.with_weights({name: np.ascontiguousarray(self.blended(name), dtypes[name]) for name in tensors})

    @cached_property
    def lying(self) -> dict[tuple[str, int], list[tuple[Member, Member, Blend]]]:
        """For each stored axis what lies on it before and after, and how it is blended."""
        groups, wide = self.parents.network.groups, resize_graph(self.parents.graphs[0], self.change, {})
        after = resize_groups(groups, self.change, self.units, wide).groups
        lying: dict[tuple[str, int], list[tuple[Member, Member, Blend]]] = {}
        for old, new in zip(groups.groups, after, strict=True):
            for before, behind in zip(old.members, new.members, strict=True):
                if old.name in self.blends:
                    places = lying.setdefault((before.tensor, before.axis), [])
                    places.append((before, behind, self.blends[old.name]))
        return lying

    def blended(self, tensor: str) -> Array:
        """A stored tensor: what both models have there, with every axis in the result's units."""
        whole = 0.0
        for side, graph in enumerate(self.parents.graphs):
            values = graph.weights[tensor].read().astype(np.float64)
            for axis in range(values.ndim):
                values = np.moveaxis(np.tensordot(self.along(tensor, axis, side), values, (1, axis)), 0, axis)
            whole = whole + self.share(tensor, side) * values
        return np.asarray(whole)

    def along(self, tensor: str, axis: int, side: int) -> Array:
        """What the places of an axis of one model become, shape (after, before)."""
        old = self.parents.graphs[0].weights[tensor].shape[axis]
        layout = self.change.layouts[tensor][axis] if tensor in self.change.layouts else None
        matrix = np.eye(old) if layout is None else np.eye(old)[layout.old] * (layout.added == 0)[:, None]
        for before, behind, blend in self.lying.get((tensor, axis), ()):
            matrix[behind.positions.ravel()] = 0
            for own, new in zip(before.positions.T, behind.positions.T, strict=True):
                matrix[np.ix_(new, own)] = blend.part(side, is_read=before.consumes)
        return matrix

    def share(self, tensor: str, side: int) -> float:
        """How much one model counts: where units are made, these say it themselves."""
        return 1.0 if self.makes_units(tensor) else self.shares[side]

    def makes_units(self, tensor: str) -> bool:
        """Whether a tensor has an axis of blended units that it does not sum over."""
        return any(not old.consumes for (name, _), own in self.lying.items() if name == tensor for old, _, _ in own)

    def set_by(self, setting: Setting) -> LayerGraph:
        """The network with the coefficients of every contraction set anew, from the inputs on."""
        graph, parents = self.graph, self.parents
        layers = find_contractions(graph, parents.network.probe.shapes)
        for old in parents.contractions:
            layer = next(one for one in layers if one.weight.tensor == old.weight.tensor)
            graph = layer.changed(graph, *setting(self.seen(graph, old, layer)))
        return graph

    def seen(self, graph: LayerGraph, old: Contraction, new: Contraction) -> Seen:
        """A contraction of the result as it is by now."""
        weight, axis = old.weight, old.weight.axes[0]
        assert axis is not None
        parts = [
            (self.share(weight.tensor, side) * self.along(weight.tensor, axis, side), old.outputs(values[old.gives]))
            for side, values in enumerate(self.parents.values)
        ]
        values = self.parents.read(graph, [new.reads])[new.reads]
        makes_units = self.makes_units(weight.tensor)
        return Seen(new.inputs(values), len(values), *new.coefficients(graph), parts, makes_units)


# --- how many units, and where ----------------------------------------------------------------------------------


def blends_with(parents: Parents, grouping: Grouping, counts: Mapping[int, int]) -> Blends:
    """How the units of every group come about, with so many units in each set, by number. Units that have to stay as
    many as they are are only paired."""
    blends = {}
    blended = {group.name for group in parents.groups}
    for one in parents.sets:
        for group in (group for group in one.groups if group.name in blended):
            own = matched if one.reason else grouping
            blends[group.name] = own(parents.likeness(group), counts[one.number])
    return blends


def counts_within(parents: Parents, budget: float) -> dict[int, int]:
    """How many units each set has: as many as the base's, and the same share more of each, as far as a budget goes."""
    counts = {one.number: one.units for one in parents.sets}
    most = budget * parents.side.cost.total(counts) * (1 + 1e-9)
    free = [one for one in parents.sets if not one.reason]
    for _, number in sorted((unit / one.units, one.number) for one in free for unit in range(one.units)):
        more = {**counts, number: counts[number] + 1}
        counts = more if parents.side.cost.total(more) <= most else counts
    return counts


def fused(grouping: Grouping, setting: Setting, parents: Parents, budget: float) -> LayerGraph:
    """A network whose levels are all as wide as a budget allows."""
    return Fusion(parents, blends_with(parents, grouping, counts_within(parents, budget))).set_by(setting)


def zipped_to(parents: Parents, budget: float) -> LayerGraph:
    """ZipIt!: all levels zipped to the base's width, or, with more to spend, the first ones, and two ends behind them.

    How much may be zipped within a model is what comes nearest to the mean of both on the inputs.
    """
    tried = [zipped_with(within, parents, budget) for within in WITHIN]
    return min(tried, key=parents.miss)


def zipped_with(within: float, parents: Parents, budget: float) -> LayerGraph:
    """The same, with one share of units that may be zipped within a model. Raises UsageError."""
    whole = blends_with(parents, partial(zipped, within=within), counts_within(parents, 1.0))
    if budget == 1.0:
        return Fusion(parents, whole).set_by(respread)
    most = budget * parents.side.whole
    for together in closed_starts(parents):
        ends = [Fusion(parents, *with_own_end(whole, together, side)) for side in (0, 1)]
        if parents.side.multiplications(side_by_side(parents, [end.graph for end in ends])) <= most:
            return side_by_side(parents, [end.set_by(respread) for end in ends])
    raise UsageError(f"no start of the two can be zipped so that they cost at most {budget:g} times the base")


def with_own_end(whole: Blends, together: set[str], side: int) -> tuple[Blends, tuple[float, float]]:
    """Some groups blended, all behind them as one model has them."""
    own = {
        name: blend if name in together else Blend.own(blend.made.shape[1] // 2, side) for name, blend in whole.items()
    }
    return own, (1.0 - side, float(side))


def closed_starts(parents: Parents) -> Iterator[set[str]]:
    """Groups that can be blended alone, the fewest first: nothing that makes them reads others."""
    place = {layer.weight.tensor: number for number, layer in enumerate(parents.contractions)}
    made: dict[str, set[str]] = {}
    read: dict[str, set[str]] = {}
    for group in parents.groups:
        made[group.name] = {m.tensor for m in group.members if not m.consumes and m.tensor in place}
        read[group.name] = {m.tensor for m in group.members if m.consumes}
    order = sorted(made, key=lambda name: max((place[tensor] for tensor in made[name]), default=-1))
    for count in range(1, len(order) + 1):
        start = set(order[:count])
        makers = set().union(*(made[name] for name in start))
        if all(makers.isdisjoint(read[name]) for name in order[count:]):
            yield start


def side_by_side(parents: Parents, graphs: Sequence[LayerGraph]) -> LayerGraph:
    """Networks of the base's wiring with their outputs averaged; what they have in common is written once."""
    members = [replace(parents.side.member, graph=graph) for graph in graphs]
    return unite(members, find_averaged(members), EVEN).named(parents.side.graph.name)


@dataclass(frozen=True)
class Rival:
    """A published method.

    Attributes:
        make: the network at a budget.
        told: what it does, and what is simplified, for the report.
        budgets: in multiplications of the base.
    """

    make: Callable[[Parents, float], LayerGraph]
    told: str
    budgets: Sequence[float] = (1.0, 1.25, 1.5)


RIVALS: Mapping[str, Rival] = {
    "permuted average": Rival(
        partial(fused, matched, respread),
        "Units are assigned by the correlation of their activations and averaged, means and deviations set right "
        "(REPAIR, arXiv:2211.08403): what the others are built on.",
        budgets=(1.0,),
    ),
    "PLeaS": Rival(
        partial(fused, matched, least_squares),
        "arXiv:2407.02447. Units are assigned by the correlation of their activations, the least similar pairs stay "
        "apart, and every layer is fitted in closed form, from the result's own inputs to the mean of the parents' "
        "outputs. Simplified: all layers keep the same share apart (no quadratic programme over layers), a ridge "
        "towards the blended weights takes the place of some hundred steps of gradient descent, and nothing is masked.",
    ),
    "ZipIt!": Rival(
        zipped_to,
        "arXiv:2305.03053. The most correlated features are zipped one after the other, across and within the models; "
        "above 1.0x the first layers are zipped and two ends stand behind them. Simplified: alpha is .3, beta the best "
        f"of {', '.join(f'{beta:g}' for beta in WITHIN)} by the distance to the ensemble on the inputs, and means and "
        "deviations are set right in place of those of BatchNorms alone.",
    ),
    "partial fusion": Rival(
        partial(fused, transported, respread),
        "arXiv:2605.22350. One partial assignment by the distance of activations says which units are aggregated, and "
        "with which; all others stand by themselves. Simplified: pairs alone (no unit is split between several), the "
        "same share in all layers, means and deviations set right; generalised pruning is not tried beyond that.",
    ),
    "neuron interpolation": Rival(
        partial(fused, clustered, least_squares),
        "arXiv:2507.00037. The units of both are clustered by k-means of their activations, weighted by attribution, "
        "and every layer is fitted by least squares to the weighted means. Simplified: attribution is the energy that "
        "is read of a unit (no gradients), and a ridge is drawn to the blended weights; above 1.0x there are more "
        "clusters.",
    ),
}
