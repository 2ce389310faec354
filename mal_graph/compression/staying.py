"""Which units of a network may be taken away, and why the others have to stay."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mal_graph.compression.readers import sums_of
from mal_graph.compression.unit_sets import Holders, UnitSet
from mal_graph.errors import RunError, ShapeError
from mal_graph.graph import Node
from mal_graph.operators import row_of, summed_axis
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroup, Member, Network, judge_by_halves, plan_resizing, resize_graph


def find_sets(network: Network, runner: Runner) -> tuple[UnitSet, ...]:
    """The sets of coupled groups, each with the reason why its units have to stay, if there is one."""
    groups = {group.name: group for group in network.groups.groups}
    coupled = [tuple(groups[name] for name in groups if name in names) for names in network.coupled]
    sets = [UnitSet(own, number) for number, own in enumerate(coupled)]
    holders = Holders(network, sets)
    summed = summed_sets(network, holders)
    judged = [
        replace(one, reason=reason_to_stay(network, one.groups, holders) or summed.get(one.number, "")) for one in sets
    ]
    going = [one for one in judged if not one.reason]
    failing = {one.number: reason for one, reason in trim(network, going, runner)}
    return tuple(replace(one, reason=one.reason or failing.get(one.number, "")) for one in judged)


def trim(network: Network, sets: Sequence[UnitSet], runner: Runner) -> list[tuple[UnitSet, str]]:
    """The sets without whose last units the network cannot be, each with the reason."""

    def judge(some: Sequence[UnitSet]) -> list[tuple[UnitSet, str]] | None:
        units = {group.name: range(one.units - 1) for one in some for group in one.groups}
        try:
            change = plan_resizing(network.graph, network.groups, network.traces, units, network.coupled)
            graph = resize_graph(network.graph, change, {})
            runner.open(graph).run(network.probe.inputs)
        except (ShapeError, RunError) as error:
            return [(some[0], f"without one it cannot be: {error}")] if len(some) == 1 else None
        return []

    return judge_by_halves(sets, judge, list.__add__) if sets else []


def reason_to_stay(network: Network, groups: Sequence[AxisGroup], holders: Holders) -> str:
    """Why no unit of coupled groups can be taken away; "" if some can, as far as the groups tell."""
    members = [member for group in groups for member in group.members]
    counted = next((group.statistic for group in groups if group.statistic is not None), None)
    if counted is not None:
        return f"{counted} depends on how many there are"
    if not any(member.consumes for member in members):
        return "no contraction reads its units with a stored weight"
    times = Counter(parameter.tensor for parameter in network.parameters)
    shared = next((member.tensor for member in members if member.consumes and times[member.tensor] > 1), "")
    if shared:
        return f"{shared} is read in several places"
    for node in reading_apart(network, members, holders):
        return f"{node.title} reads them, but nothing tells what it sums over"
    for node in inside_bodies(network, members):
        return f"{node.title} stands in a body, which runs for some inputs only, or several times"
    if groups[0].units < 2:
        return "it has one unit"
    return ""


def reading_apart(network: Network, members: Sequence[Member], holders: Holders) -> Iterator[Node]:
    """The contractions that read some units in a way that does not tell what is summed."""
    consumed = {(member.tensor, member.axis) for member in members if member.consumes}
    for parameter in network.parameters:
        is_read = parameter.is_weight and (parameter.tensor, parameter.axes[1]) in consumed
        if is_read and sums_of(network, parameter, holders) is None:
            yield network.graph.nodes[parameter.node]


def inside_bodies(network: Network, members: Sequence[Member]) -> Iterator[Node]:
    """The operators in bodies that have a weight with some units, which cannot be measured there."""
    tensors = {member.tensor for member in members}
    for parameter in network.parameters:
        node = network.graph.nodes[parameter.node]
        if parameter.tensor in tensors and not network.graph.inner.isdisjoint(node.outputs):
            yield node


def summed_sets(network: Network, holders: Holders) -> dict[int, str]:
    """By number the sets whose units a contraction sums over in a way that no coefficients could take over, and which.

    A sum inside each unit, as that of a head over its keys, brings no units together.
    """
    weights = {parameter.node: parameter for parameter in network.parameters if parameter.is_weight}
    summed: dict[int, str] = {}
    for index, node in enumerate(network.graph.nodes):
        row, parameter = row_of(node), weights.get(index)
        if row is None or row.multiplications is None:
            continue
        if parameter is not None and parameter.axes[1] is not None and parameter.blocks == 1:
            continue  # it is a reader
        for slot in (0, 1):
            label = network.traces.labels.get(node.inputs[slot])
            if label is not None and label.shape:
                for number in holders.are_summed(label, summed_axis(node, slot, len(label.shape))):
                    reason = f"{node.title} sums over them without a weight that could take over what is lost"
                    summed.setdefault(number, reason)
    return summed
