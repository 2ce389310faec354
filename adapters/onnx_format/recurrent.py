"""Recurrent nodes as the view shows them: one direction each, and no initial states of zeros.

The units of the two directions have nothing to do with each other, but the file stores both in one tensor, no axis of
which has the units of one alone. In the view each direction has its own tensors, and a Concat lays the outputs end to
end. Saving puts them together again (see `lowering`). Zeros that exporters write out for states to start from are what
the operators start from anyway: left out of the view, they need not follow when units are added.

Chosen: two nodes. Refused: labels for both directions in one tensor - whatever feeds, draws, aligns or resizes weights
knows axes, not parts of axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values

from mal_graph.graph import Array, LayerGraph, Weight

from .document import REGION, Region, mark_as_part

PART_OF = "mal_graph.part_of"  # notes on a stored tensor that it is a part of another, and along which axis
RECURRENT = ("LSTM", "GRU", "RNN")
WAYS = ("forward", "reverse")
ARRANGING = ("Expand", "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Tile")
BOTH, STATES = {0, 4}, {5, 6}  # inputs: what comes in and its lengths, for both directions; states may be computed


def is_recurrent(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in RECURRENT


def is_shown_otherwise(node: ir.Node) -> bool:
    """Whether the view shows a node as others."""
    return is_recurrent(node) and (is_two_way(node) or any(states_of_zeros(node)))


def is_two_way(node: ir.Node) -> bool:
    """Whether a node runs both ways through a sequence."""
    way = node.attributes.get("direction")
    return way is not None and not way.is_ref() and way.as_string() == "bidirectional"


def states_of_zeros(node: ir.Node) -> Iterator[int]:
    """The inputs in which a node is given zeros to start from."""
    for slot in sorted(STATES):
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is not None and is_zero(value):
            yield slot


def is_zero(value: ir.Value) -> bool:
    """Whether a tensor is known to hold nothing but zeros."""
    producer = value.producer()
    if producer is None:
        return value.const_value is not None and not value.is_graph_input() and is_all_zero(value.const_value)
    if producer.op_type in ("Constant", "ConstantOfShape"):
        held = producer.attributes.get("value")
        if held is None:
            return producer.op_type == "ConstantOfShape"
        return not held.is_ref() and is_all_zero(held.as_tensor())
    source = producer.inputs[0] if producer.op_type in ARRANGING else None
    return source is not None and is_zero(source)


def is_all_zero(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_floating_point() and not np.any(tensor.numpy())


def show(model: ir.Model, node: ir.Node) -> None:
    """Put what the view shows in place of a recurrent node."""
    for slot in list(states_of_zeros(node)):
        zeros = node.inputs[slot]
        node.replace_input_with(slot, None)
        if zeros is not None:
            drop(model, zeros)
    if is_two_way(node):
        write_apart(model, node)


def drop(model: ir.Model, value: ir.Value) -> None:
    """Take out what makes a tensor that nothing reads any more."""
    producer = value.producer()
    if value.uses() or value.is_graph_output():
        return
    if producer is None:
        if value.name and value.name in model.graph.initializers and not value.is_graph_input():
            del model.graph.initializers[value.name]
    elif not any(out.uses() or out.is_graph_output() for out in producer.outputs):
        sources = [source for source in producer.inputs if source is not None]
        model.graph.remove(producer, safe=True)
        for source in sources:
            drop(model, source)


def write_apart(model: ir.Model, node: ir.Node) -> None:
    """Put two nodes of one direction each in place of one of two; a node stays that shares its tensors or computes
    them."""
    held = [attributes_of(node, place) for place in range(len(WAYS))]
    given = {slot: value for slot, value in enumerate(node.inputs) if value is not None and slot not in BOTH}
    stored = {slot: value for slot, value in given.items() if is_own(model, value)}
    if None in held or not given.keys() - STATES <= stored.keys():
        return
    name = node.name or next(out.name for out in node.outputs if out.name) or ""
    inputs: list[list[ir.Value | None]] = [list(node.inputs) for _ in WAYS]
    parts: list[ir.Node] = []
    for slot, value in given.items():
        axis = 1 if slot in STATES and has_samples_first(node) else 0
        if slot in stored:
            halves: Sequence[ir.Value] = cut_stored(model, node, value, axis)
        else:
            parts.append(split_node(model, f"{name}/{slot}", value, axis))
            halves = parts[-1].outputs
        for own, half in zip(inputs, halves, strict=True):
            own[slot] = half
    ways = [one_way(model, node, way, own, told) for way, own, told in zip(WAYS, inputs, held, strict=True)]
    joins = [join_node(node, name, number, ways) for number, out in enumerate(node.outputs) if out.name]
    parts += [*ways, *joins]
    for part in parts:
        mark_as_part(part, node)
        part.metadata_props.update(node.metadata_props)
    outputs = [out for out in node.outputs if out.name]
    replace_nodes_and_values(model.graph, node, [node], parts, outputs, [join.outputs[0] for join in joins])
    for value in stored.values():
        drop(model, value)


def one_way(
    model: ir.Model, node: ir.Node, way: str, inputs: Sequence[ir.Value | None], held: dict[str, Any] | None
) -> ir.Node:
    """The node of one direction."""
    name = node.name or next(out.name for out in node.outputs if out.name)
    made = ir.node(node.op_type, inputs, held or {}, num_outputs=len(node.outputs), name=f"{name}/{way}")
    for own, out in zip(made.outputs, node.outputs, strict=True):
        own.name = unused(model, f"{out.name}/{way}") if out.name else ""
    return made


def unused(model: ir.Model, name: str) -> str:
    """The name, changed if the graph has it."""
    taken = {value.name for node in model.graph for value in node.outputs}
    taken |= {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    while name in taken:
        name += "_"
    return name


def join_node(node: ir.Node, name: str, number: int, ways: Sequence[ir.Node]) -> ir.Node:
    """What lays an output of both directions end to end: what is given over time has one more axis, in front of which
    the steps stand, or behind the samples."""
    axis = int(number == 0) + int(has_samples_first(node))
    return ir.node("Concat", [way.outputs[number] for way in ways], {"axis": axis}, name=f"{name}/both.{number}")


def has_samples_first(node: ir.Node) -> bool:
    layout = node.attributes.get("layout")
    return layout is not None and bool(layout.as_int())


def attributes_of(node: ir.Node, place: int) -> dict[str, Any] | None:
    """The attributes of one direction; None where those of the two cannot be told apart."""
    own = {name: attribute.value for name, attribute in node.attributes.items()}
    own["direction"] = WAYS[place]
    activations = list(own.get("activations") or ())
    half = len(activations) // 2
    told = [key for key in ("activation_alpha", "activation_beta") if own.get(key)]
    is_alike = activations[:half] == activations[half:]
    if len(activations) % 2 or any(len(own[key]) % 2 or not is_alike for key in told):
        return None
    for key in ("activations", *told):
        if own.get(key):
            size = len(own[key]) // 2
            own[key] = list(own[key])[place * size : (place + 1) * size]
    return own


def is_own(model: ir.Model, value: ir.Value) -> bool:
    """Whether a tensor is stored for one node alone."""
    producer = value.producer()
    is_constant = producer is not None and producer.op_type == "Constant" and "value" in producer.attributes
    is_stored = is_constant or (value.name in model.graph.initializers and value.const_value is not None)
    is_told = value.is_graph_output() or value.is_graph_input()
    return is_stored and not is_told and len(value.uses()) == 1


def cut_stored(model: ir.Model, node: ir.Node, value: ir.Value, axis: int) -> list[ir.Value]:
    """A stored tensor as one for each direction, which are read when they are needed."""
    producer = value.producer()
    tensor = value.const_value if producer is None else producer.attributes["value"].as_tensor()
    assert tensor is not None  # it is stored
    sizes = list(tensor.shape.numpy())
    sizes[axis] = 1
    halves = []
    for place, way in enumerate(WAYS):
        read = partial(read_half, tensor, axis, place, ir.Shape(sizes))
        name = unused(model, f"{value.name}/{way}")
        half = ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(tensor.dtype))
        half.const_value = ir.LazyTensor(read, tensor.dtype, ir.Shape(sizes), name=name)
        half.meta[PART_OF], half.meta[REGION] = (value.name, axis), node.meta[REGION]
        model.graph.register_initializer(half)
        halves.append(half)
    return halves


def read_half(tensor: ir.TensorProtocol, axis: int, place: int, shape: ir.Shape) -> ir.TensorProtocol:
    values = np.ascontiguousarray(tensor.numpy().take([place], axis))
    return ir.Tensor(values, dtype=tensor.dtype, shape=shape)


def split_node(model: ir.Model, name: str, value: ir.Value, axis: int) -> ir.Node:
    """A computed state as one for each direction."""
    counted = {"num_outputs": 2} if model.opset_imports.get("", 1) >= 18 else {}
    node = ir.node("Split", [value], {"axis": axis, **counted}, num_outputs=2, name=name)
    for out, way in zip(node.outputs, WAYS, strict=True):
        out.name = unused(model, f"{name}/{way}")
    return node


def with_halves_joined(graph: LayerGraph, regions: Sequence[Region]) -> LayerGraph:
    """The graph with the tensors that the file stores for both directions, where one of them has other values."""
    weights, edited = dict(graph.weights), set(graph.edited)
    for region in regions:
        for name, (axis, names) in region.halves.items():
            if edited.isdisjoint(names):
                continue
            parts = [weights[half] for half in names]
            shape = list(parts[0].shape)
            shape[axis] = len(parts)
            weights[name] = Weight(name, tuple(shape), parts[0].dtype, partial(joined, parts, axis))
            edited = (edited - set(names)) | {name}
    return replace(graph, weights=weights, edited=frozenset(edited))


def joined(parts: Sequence[Weight], axis: int) -> Array:
    """A tensor of both directions."""
    values = np.concatenate([part.read() for part in parts], axis)
    values.flags.writeable = False
    return values


def parts_by_region(model: ir.Model) -> Mapping[int, dict[str, tuple[int, tuple[str, ...]]]]:
    """By region, for each stored tensor of the file the axis of the directions and its parts in the view."""
    regions: dict[int, dict[str, tuple[int, tuple[str, ...]]]] = {}
    for name, value in model.graph.initializers.items():
        if PART_OF in value.meta:
            tensor, axis = value.meta[PART_OF]
            own = regions.setdefault(value.meta[REGION], {})
            own[tensor] = (axis, (*own.get(tensor, (axis, ()))[1], name))
    return regions
