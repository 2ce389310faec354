"""Donors with locked attention: turned inside each head, so that they compute what they did and merge with nothing.

A lock multiplies what makes the units of a head on one side (queries, or values) by a matrix, and undoes it on the
other (keys, or the projection of the output). The product of both sides stays what it was: where that goes together
with the base's and the sides do not, though the rest of the two models does, the donor is locked. What is orthogonal
is found by one singular value decomposition (Procrustes), what is diagonal unit by unit, and any such matrix may be
multiplied back without changing what the donor computes: units of a head may be turned at will, which is verified by
running it. Any other matrix leaves each side less well conditioned than what was learned is large: such a donor is
refused.

Source: MergeLock (arXiv:2509.01548), of which we know the transformations; that and how they are found is ours. Looked
at are donors with the operators and shapes of the base, in its order, as fine-tunes are exported, where the network
multiplies activations with each other; of a fine-tune, weights are read of what makes and reads units of heads alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from mal_graph.boxes import Array, Box, Stretch
from mal_graph.brief import Brief
from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph
from mal_graph.matching import RELATED, cosine_of
from mal_graph.merging import compare_outputs
from mal_graph.network import data_dependent
from mal_graph.operators import row_of
from mal_graph.protocols import Runner
from mal_graph.symmetry import SAME_FUNCTION, AxisGroup, AxisGroups, Member

DRAWS = 20  # of shuffled products that a product is compared with
SURE = 6.0  # deviations above their mean from which a product goes together with another one by no chance
MOST_UNITS = 1024  # of a head


@dataclass(frozen=True, repr=False)
class Lock(Brief):
    """Units that may have been locked: those of one head, made or read by two layers.

    Attributes:
        group: the units.
        base, donor: what makes and reads them in each model, one side after the other, each of shape (units, features).
    """

    group: AxisGroup
    base: tuple[Array, Array]
    donor: tuple[Array, Array]

    @cached_property
    def product(self) -> float:
        """The cosine of the products of both sides."""
        return product_cosine(self.base, self.donor)

    @cached_property
    def together(self) -> Array:
        """Products of the units of both models, shape (base units, donor units)."""
        return np.asarray(np.concatenate(self.base, axis=1) @ np.concatenate(self.donor, axis=1).T)

    @property
    def is_reordered(self) -> bool:
        """Whether units are in another order, and nothing else: that is left to the alignment."""
        order = np.eye(self.group.units)[linear_sum_assignment(self.together, maximize=True)[1]]
        return self.opened((order, order)) >= RELATED

    @property
    def is_sure(self) -> bool:
        """Whether the products go together, and by no chance."""
        if self.product < RELATED:
            return False
        rng, drawn = np.random.default_rng(0), []
        for _ in range(DRAWS):
            shuffled = tuple(side[:, rng.permutation(side.shape[1])] for side in self.donor)
            drawn.append(product_cosine(self.base, (shuffled[0], shuffled[1])))
        return self.product >= max(RELATED, float(np.mean(drawn) + SURE * np.std(drawn)))

    @property
    def keys(self) -> tuple[Array, Array] | None:
        """What each side is to be multiplied with from the left; None where nothing that is orthogonal or diagonal
        brings both sides together with the base's."""
        (u, _, v), first = np.linalg.svd(self.together), self.donor[0]
        sizes = (self.base[0] * first).sum(axis=1) / np.maximum((first**2).sum(axis=1), np.finfo(float).tiny)
        both = [(u @ v, u @ v)]
        if sizes.all():
            both.append((np.diag(sizes), np.diag(1 / sizes)))
        return max((one for one in both if self.opened(one) >= RELATED), key=self.opened, default=None)

    def opened(self, keys: tuple[Array, Array]) -> float:
        """The lower of the cosines of both sides with the base's once they are multiplied by something."""
        sides = zip(keys, self.donor, self.base, strict=True)
        return min(cosine_of([(mine, key @ theirs)]) for key, theirs, mine in sides)


def product_cosine(base: tuple[Array, Array], donor: tuple[Array, Array]) -> float:
    """The cosine of the products of two sides each, without making them."""

    def inner(a: tuple[Array, Array], b: tuple[Array, Array]) -> float:
        return float(((a[0] @ b[0].T) * (a[1] @ b[1].T)).sum())

    size = inner(base, base) * inner(donor, donor)
    return inner(base, donor) / float(np.sqrt(size)) if size > 0 else 0.0


def without_locks(
    base: LayerGraph, donor: LayerGraph, groups: AxisGroups, runner: Runner
) -> tuple[LayerGraph, tuple[str, ...]]:
    """The donor with its heads turned back, and the names of the tensors that this changes; the donor itself where it
    is not locked.

    Args:
        groups: the donor's.

    Raises:
        MatchError: it is locked by something that cannot be undone without loss.
        RunError: it cannot be run.
    """
    twins = paired_weights(base, donor) if multiplies_activations(donor) else {}
    is_strange = tells_strangers(base, donor, twins)
    if all(map(is_strange, matrices(donor, twins))):  # the first one tells, but of two models that are strangers
        return donor, ()
    suspects = find_suspects(base, donor, groups, twins, is_strange)
    opened, changed = donor, dict[str, None]()
    for lock in [lock for lock in suspects if lock.is_sure and not lock.is_reordered]:
        turn = drawn_turn(lock.group.units)
        tried = with_keys(donor, groups, lock.group, (turn, turn))
        if compare_outputs(tried, donor, groups.probed.inputs, runner) > SAME_FUNCTION:
            continue  # something looks at each unit: what differs is no lock
        if (keys := lock.keys) is None:
            raise refused(donor, lock)
        opened = with_keys(opened, groups, lock.group, keys)
        changed |= dict.fromkeys(member.tensor for member in lock.group.members)
    return opened, tuple(changed)


def with_keys(graph: LayerGraph, groups: AxisGroups, group: AxisGroup, keys: tuple[Array, Array]) -> LayerGraph:
    """The graph with what both sides of a group hold multiplied by a matrix each."""
    changed: dict[str, Array] = {}
    for side, key in zip(sides_of(groups, group), keys, strict=True):
        for member in side:
            values = changed.get(member.tensor, graph.weights[member.tensor].read())
            changed[member.tensor] = turned(values, member, key)
    return graph.with_weights(changed)


def refused(donor: LayerGraph, lock: Lock) -> MatchError:
    stored = min(cosine_of([sides]) for sides in zip(lock.base, lock.donor, strict=True))
    return MatchError(
        f"{donor.name} is locked: in {lock.group.name} its weights go with the base's by a cosine of {stored:.2f}, and "
        f"their products by {lock.product:.2f}, so that they were multiplied by a matrix, which is neither orthogonal "
        "nor diagonal; get the model as it was before"
    )


# --- what is looked at --------------------------------------------------------------------------------------------


def paired_weights(base: LayerGraph, donor: LayerGraph) -> Mapping[str, str]:
    """By name of each weight of the donor the base's at its place; {} where the two differ in operators or shapes."""
    if len(base.nodes) != len(donor.nodes):
        return {}
    twins: dict[str, str] = {}
    for mine, theirs in zip(base.nodes, donor.nodes, strict=True):
        if mine.op != theirs.op or len(mine.inputs) != len(theirs.inputs):
            return {}
        for own, other in zip(mine.inputs, theirs.inputs, strict=True):
            a, b = base.weights.get(own), donor.weights.get(other)
            if (a is None) != (b is None) or (a is not None and b is not None and a.shape != b.shape):
                return {}
            if a is not None and a.is_float:
                twins[other] = own
    return twins


def multiplies_activations(graph: LayerGraph) -> bool:
    """Whether a network multiplies what it computes with what else it computes, as attention does."""
    live = data_dependent(graph)
    rows = ((node, row_of(node)) for node in graph.nodes)
    return any(
        row is not None and (row.attends or (row.is_contraction and live.issuperset(node.inputs[:2])))
        for node, row in rows
    )


def drawn_turn(units: int) -> Array:
    """A random orthogonal matrix: `scipy.stats` has one too, and takes half a second to load."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((units, units)))
    return turn if units > 1 else -np.eye(1)


def tells_strangers(base: LayerGraph, donor: LayerGraph, twins: Mapping[str, str]) -> Callable[[str], bool]:
    """What tells, by its name, whether a weight of the donor does not go with the base's; each is read once."""

    @cache
    def is_strange(name: str) -> bool:
        both = base.weights[twins[name]].read(), donor.weights[name].read()
        return cosine_of([both]) < RELATED

    return is_strange


def matrices(donor: LayerGraph, names: Iterable[str]) -> Iterator[str]:
    """The weights among some that have more than one axis: only these tell whether two models go together."""
    return (name for name in names if len(donor.weights[name].shape) > 1)


def find_suspects(
    base: LayerGraph,
    donor: LayerGraph,
    groups: AxisGroups,
    twins: Mapping[str, str],
    is_strange: Callable[[str], bool],
) -> Iterator[Lock]:
    """Groups of two layers whose weights do not go with the base's."""
    for group in groups.groups if twins else ():
        inside = {member.tensor for member in group.members}
        if not group.is_usable or group.units > MOST_UNITS or not inside <= twins.keys():
            continue
        sides = sides_of(groups, group)
        if len(sides) == 2 and any(map(is_strange, matrices(donor, sorted(inside)))):
            first, second = sides
            same = {name: name for name in inside}
            yield Lock(
                group,
                (side_rows(base, first, twins), side_rows(base, second, twins)),
                (side_rows(donor, first, same), side_rows(donor, second, same)),
            )


def side_rows(graph: LayerGraph, side: list[Member], names: Mapping[str, str]) -> Array:
    """What the tensors of one side hold for each unit, shape (units, features).

    Args:
        names: of the tensors in this graph.
    """
    rows = []
    for member in side:
        weight = graph.weights[names[member.tensor]]
        whole: list[Stretch] = [slice(0, length) for length in weight.shape]
        box: Box = (*whole[: member.axis], member.positions.ravel(), *whole[member.axis + 1 :])
        values = np.moveaxis(weight.open()(box).astype(np.float64), member.axis, 0)
        rows.append(values.reshape(len(member.positions), -1))
    return np.concatenate(rows, axis=1)


def sides_of(groups: AxisGroups, group: AxisGroup) -> list[list[Member]]:
    """The members of a group, layer by layer."""
    sides: dict[int, list[Member]] = {}
    for member in group.members:
        sides.setdefault(groups.layer_of.get(member.tensor, -1), []).append(member)
    return list(sides.values())


def turned(values: Array, member: Member, key: Array) -> Array:
    """A tensor with what it holds for the units of a group multiplied by a matrix."""
    moved = np.moveaxis(values.astype(np.float64), member.axis, 0).copy()
    moved[member.positions] = np.tensordot(key, moved[member.positions], axes=1)
    return np.ascontiguousarray(np.moveaxis(moved, 0, member.axis), values.dtype)
