"""The weighted mean of a tensor of several members, written as operators.

Each member's is brought to one kind, its classes are put in the order of the mean, and it is multiplied by what it
counts there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mal_graph.compression.averaging import Averaged, Member
from mal_graph.compression.classes import ABSENT, Classes
from mal_graph.errors import UnsupportedModel
from mal_graph.graph import Array, LayerGraph, Node, Weight, unused_name, unused_stem, weight_of
from mal_graph.operators import reads_axes


class Writer:
    """Operators and stored numbers of one mean, as they come about."""

    def __init__(self, united: LayerGraph) -> None:
        self.united = united
        self.nodes: list[Node] = []
        self.weights: dict[str, Weight] = {}

    def add(self, name: str, op: str, inputs: Sequence[str], **attributes: object) -> str:
        """What one more operator gives."""
        self.nodes.append(Node(name, op, tuple(inputs), (name,), attributes))
        return name

    def store(self, name: str, values: Array) -> str:
        """One more stored tensor."""
        self.weights[name] = weight_of(name, values)
        return name


def with_mean(
    united: LayerGraph,
    members: Sequence[Member],
    one: Averaged,
    names: Sequence[Mapping[str, str]],
    shares: Sequence[float],
) -> LayerGraph:
    """The united network with one weighted mean, under the name that the base has for it.

    Args:
        names: of the tensors of each member in the united network.
        shares: how much each member counts.

    Raises:
        UnsupportedModel: the members give other types of numbers.
    """
    name, dtype = one.tensors[0], np.dtype(members[0].types[one.tensors[0]])
    writer, terms = Writer(united), []
    stems = [unused_stem(united, f"{name}/{number}") for number in range(len(members))]
    factors, levels = factors_of(one, shares)
    for number, member in enumerate(members):
        tensor = names[number].get(one.tensors[number], one.tensors[number])
        finish = one.finishing[number]
        if finish is not None:
            kind = f"{stems[number]}/kind"
            writer.nodes.append(replace(finish, name=kind, inputs=(tensor,), outputs=(kind,)))
            tensor = kind
        if np.dtype(member.types[one.tensors[number]]) != dtype:
            raise UnsupportedModel(
                f"{member.graph.name} gives {member.types[one.tensors[number]]} where the base gives {dtype.name}: "
                "export both in one type"
            )
        rank = len(member.shapes.get(one.tensors[number], ()))
        scores = (
            tensor
            if one.classes is None
            else put_in_order(writer, stems[number], tensor, one.classes, number, rank, dtype)
        )
        factor = writer.store(f"{stems[number]}/share", along(one, factors[number], rank, dtype))
        terms.append(writer.add(f"{stems[number]}/part", "Mul", (scores, factor)))
        if one.classes is not None and levels[number].any():
            level = level_of(writer, stems[number], tensor, one.classes)
            factor = writer.store(f"{stems[number]}/level share", along(one, levels[number], rank, dtype))
            terms.append(writer.add(f"{stems[number]}/level part", "Mul", (level, factor)))
    writer.nodes.append(Node(unused_name(united, f"{name}/mean"), "Sum", tuple(terms), (name,)))
    return replace(united, nodes=(*united.nodes, *writer.nodes), weights={**united.weights, **writer.weights})


def factors_of(one: Averaged, shares: Sequence[float]) -> tuple[Array, Array]:
    """What the tensor of each member, and the level of its scores, are multiplied by."""
    if one.classes is None:
        return np.array(shares)[:, None], np.zeros((len(shares), 1))
    return one.classes.factors(shares), one.classes.level_factors(shares)


def along(one: Averaged, factors: Array, rank: int, dtype: np.dtype[np.generic]) -> Array:
    """Factors of the classes, as one number where they are all the same."""
    if one.classes is None or (factors == factors[0]).all():
        return np.array(factors[0], dtype)
    return one.classes.along(factors, rank).astype(dtype)


def put_in_order(
    writer: Writer, stem: str, tensor: str, classes: Classes, number: int, rank: int, dtype: np.dtype[np.generic]
) -> str:
    """The scores of a member in the order of all classes, 0 where it lacks one."""
    if classes.is_in_order(number):
        return tensor
    places = np.array(classes.places[number])
    known = places != ABSENT
    stored = writer.store(f"{stem}/order", np.where(known, places, 0))
    ordered = writer.add(f"{stem}/in order", "Gather", (tensor, stored), axis=classes.axis)
    if known.all():
        return ordered
    is_known = writer.store(f"{stem}/known", classes.along(known, rank))
    return writer.add(f"{stem}/of all", "Where", (is_known, ordered, writer.store(f"{stem}/none", np.array(0, dtype))))


def level_of(writer: Writer, stem: str, tensor: str, classes: Classes) -> str:
    """The logarithm of the summed exponentials of a member's logits."""
    name, axes = f"{stem}/level", np.array([classes.axis])
    op = "ReduceLogSumExp"
    if reads_axes(op, writer.united.opsets.get("", 1)):
        return writer.add(name, op, (tensor, writer.store(f"{name}/axes", axes)), keepdims=1)
    return writer.add(name, op, (tensor,), axes=axes.tolist(), keepdims=1)
