"""What makes two matched layers other functions though their weights correspond: settings of operators, and operators.

The operators inside two layers are compared kind by kind, in the order in which they stand. What is exact by other
means is no difference: the epsilon of a BatchNorm, which the donor's variance takes in (see `canonical`), and that of
any other norm whose scale is merged, which is interpolated like it (see `merging.planning`).
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.network import Layer, Parameter, find_root, layers_behind
from mal_graph.operators import LayerRole, ParameterKind, Setting, differing_settings, function_of, row_of, said

EPSILON = "epsilon"


@dataclass(frozen=True)
class Difference:
    """One thing in which two matched layers are not the same function.

    Attributes:
        operator, other: the operator in the base's layer and in the donor's; "" where that has none.
        setting: the setting that differs; "" where the operators do.
        base, donor: what it is in the base and in the donor.
    """

    operator: str
    other: str
    setting: str = ""
    base: str = ""
    donor: str = ""

    @property
    def what(self) -> str:
        """What differs, in words."""
        if self.setting:
            return f"{self.operator} {self.setting} {self.base} against {self.donor}"
        if self.operator and self.other:
            return f"{self.operator} against {self.other}"
        return f"{self.operator or self.other} in the {'base' if self.operator else 'donor'} alone"

    @property
    def meaning(self) -> str:
        """What follows for the merge; other operators may compute the same in another form."""
        return f"at lambda 1 this layer {'is not' if self.setting else 'need not be'} the donor's"


@dataclass(frozen=True)
class Operation:
    """One operator inside a layer, as far as it says which function the layer is.

    Attributes:
        op: the operator.
        settings: what decides which function it is, by name.
        is_telling: whether a layer that lacks it is another function; weights, norms that fold and arrangement are not.
        least_variance: of a BatchNorm, the smallest variance it holds; None for any other.
    """

    op: str
    settings: tuple[tuple[str, Setting], ...]
    is_telling: bool
    least_variance: float | None = None


Operations = tuple[Operation, ...]


def find_in_front(graph: LayerGraph, layers: Sequence[Layer]) -> Mapping[str, list[int]]:
    """The operators that belong to no layer and have settings, such as an attention, by name of the layers that are the
    first to read what they make."""
    layer_of = {index: layer.name for layer in layers for index in layer.nodes}
    in_front: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        row = row_of(node)
        if index not in layer_of and row is not None and row.layer_role is LayerRole.ALONE and row.shaping:
            for name in dict.fromkeys(layers_behind(graph, node.outputs[0], layer_of)):
                in_front.setdefault(name, []).append(index)
    return in_front


def find_operations(graph: LayerGraph, layer: Layer, in_front: Sequence[int] = ()) -> Operations:
    """The operators inside a layer that say which function it is, in order, behind those in front of it."""

    def constant(name: str) -> Array | None:
        root = find_root(graph, name)
        return None if root is None else root.weight.read()

    own: dict[int, list[Parameter]] = {}
    for parameter in layer.applied:
        own.setdefault(parameter.node, []).append(parameter)
    operations = []
    for index in (*in_front, *layer.nodes):
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        settings = function_of(node, constant)
        if row is not None and row.has_window and layer.weight is not None and node.name == layer_node(graph, layer):
            settings["taps"] = tuple(map(float, layer.weight.shape[2:]))
        is_telling = row is None or not (row.moves or row.is_contraction or row.adds or row.is_batch_norm)
        is_telling = is_telling and (index not in own or bool(settings)) and index not in in_front
        if settings or is_telling:
            variances = [p for p in own.get(index, ()) if p.kind is ParameterKind.VARIANCE]
            least = smallest(graph, variances[0]) if row is not None and row.is_batch_norm and variances else None
            operations.append(Operation(node.op, tuple(settings.items()), is_telling, least))
    return tuple(operations)


def layer_node(graph: LayerGraph, layer: Layer) -> str:
    """The name of the node that contracts with the layer's weight."""
    assert layer.weight is not None
    return graph.nodes[layer.weight.node].name


def smallest(graph: LayerGraph, variance: Parameter) -> float:
    return float(np.min(graph.weights[variance.tensor].read(), initial=np.inf).astype(np.float64))


def compare_operations(mine: Operations, theirs: Operations) -> tuple[Difference, ...]:
    """In what two layers are not the same function."""
    differences: list[Difference] = []
    left: tuple[list[str], list[str]] = ([], [])
    for op in dict.fromkeys(operation.op for operation in (*mine, *theirs)):
        alike = [[operation for operation in side if operation.op == op] for side in (mine, theirs)]
        for a, b in zip_longest(*alike):
            if a is not None and b is not None:
                differences += differing(a, b)
            elif (a or b).is_telling:
                left[b is not None].append(op)
    differences += [Difference(a, b) for a, b in zip_longest(*left, fillvalue="")]
    return tuple(differences)


def differing(a: Operation, b: Operation) -> Iterator[Difference]:
    """The settings in which two nodes of one operator differ, but what is exact by other means."""
    mine, theirs = dict(a.settings), dict(b.settings)
    names = differing_settings(mine, theirs)
    if "taps" in names:  # one window lies in the other, or the layer is not merged
        names = [name for name in names if name not in ("taps", "padding", "dilations")]
    for name in names:
        if name != EPSILON or not is_exact_epsilon(a, b):
            yield Difference(a.op, b.op, name, said(mine[name]), said(theirs[name]))


def is_exact_epsilon(a: Operation, b: Operation) -> bool:
    """Whether another epsilon changes nothing: it is interpolated, or the donor's variance takes it in."""
    if a.least_variance is None or b.least_variance is None:
        return True
    own, other = dict(a.settings)[EPSILON], dict(b.settings)[EPSILON]
    return isinstance(own, float) and isinstance(other, float) and b.least_variance + other - own >= 0


def tell_settings_apart(
    mine: Sequence[Operations], theirs: Sequence[Operations]
) -> tuple[list[Hashable], list[Hashable]]:
    """What `is_set_alike` asks of the layers of two models: equal for layers of one model that compare alike. Of a
    variance that is how it lies to the base's epsilons: the number itself is another in every layer."""
    epsilons = {dict(operation.settings).get(EPSILON) for layer in mine for operation in layer}
    own = sorted(epsilon for epsilon in epsilons if isinstance(epsilon, float))

    def key(operation: Operation, epsilons: Sequence[float]) -> Hashable:
        least, other = operation.least_variance, dict(operation.settings).get(EPSILON)
        takes_in = [least + other - one >= 0 for one in epsilons if least is not None and isinstance(other, float)]
        return operation.op, operation.settings, operation.is_telling, least is None, tuple(takes_in)

    return (
        [tuple(key(one, ()) for one in layer) for layer in mine],
        [tuple(key(one, own) for one in layer) for layer in theirs],
    )


def is_set_alike(mine: Operations, theirs: Operations) -> bool:
    """Whether no setting differs; operators that one layer lacks are compared as its activations."""
    return not any(difference.setting for difference in compare_operations(mine, theirs))
