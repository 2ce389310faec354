"""A parsed file, walked with a readable place for each thing."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

SHOWN_NAME = 80  # letters of a name in a message


class Place(NamedTuple):
    """Where a node stands, in words only when it is asked for: a file may have many inside one of a long name."""

    node: onnx.NodeProto
    inside: "Place | str"

    @property
    def outer(self) -> "list[Place]":
        """The nodes in whose bodies it stands, the innermost first."""
        outer = []
        inside = self.inside
        while isinstance(inside, Place):
            outer.append(inside)
            inside = inside.inside
        return outer

    @property
    def letters(self) -> int:
        """Of its own name and of those of the nodes that it stands in."""
        return sum(max(map(len, (own.node.name, *own.node.output))) for own in (self, *self.outer))

    def __str__(self) -> str:
        name = self.node.name or " ".join(self.node.output)
        return f"node {shortened(name)!r} ({self.node.op_type})" + (f" in {self.inside}" if self.inside else "")


def shortened(name: str) -> str:
    """A name on part of a line."""
    return name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}..."


def graphs(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The main graph, then every body of a control-flow node, those of functions included."""
    yield "the graph", proto.graph
    for place, node in nodes(proto):
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield f"attribute {attribute.name!r} of {place}", body


def nodes(proto: onnx.ModelProto) -> Iterator[tuple[Place, onnx.NodeProto]]:
    """Every operator of the main graph, of bodies and of functions."""
    yield from walk("", proto.graph.node)
    for function in proto.functions:
        yield from walk(f"function {function.name!r}", function.node)


def walk(inside: Place | str, nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[Place, onnx.NodeProto]]:
    for node in nodes:
        place = Place(node, inside)
        yield place, node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from walk(place, body.node)


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every stored tensor: initializers and attributes, in bodies and functions too."""
    for _, graph in graphs(proto):
        for tensor in graph.initializer:
            yield f"tensor {tensor.name!r}", tensor
    defaults = ((f"function {f.name!r}", f.attribute_proto) for f in proto.functions)
    attributes = ((place, node.attribute) for place, node in nodes(proto))
    for place, stored in itertools.chain(defaults, attributes):
        for attribute in stored:
            for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ())):
                yield f"the tensor in attribute {attribute.name!r} of {place}", tensor


def texts(message: Message) -> Iterator[str | bytes]:
    """Every text in a message, as bytes where it is none; of tensors only the names, so that no values are touched."""
    if isinstance(message, onnx.TensorProto):
        yield from (message.name, message.doc_string)
        parts: list[Message] = [*message.external_data, *message.metadata_props]
    else:
        fields = message.ListFields()
        for field, value in fields:
            if field.type == FieldDescriptor.TYPE_STRING:
                yield from [value] if isinstance(value, str | bytes) else value
        parts = [
            part
            for field, value in fields
            if field.type == FieldDescriptor.TYPE_MESSAGE
            for part in ([value] if isinstance(value, Message) else value)
        ]
    for part in parts:
        yield from texts(part)
