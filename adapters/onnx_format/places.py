"""A parsed file, walked with a readable place for each thing."""

import itertools
from collections.abc import Iterable, Iterator
from functools import cached_property
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
        own = max(map(len, (self.node.name, *self.node.output)))
        return own + self.inside.letters if isinstance(self.inside, Place) else own

    def __str__(self) -> str:
        name = self.node.name or " ".join(self.node.output)
        return f"node {shortened(name)!r} ({self.node.op_type})" + (f" in {self.inside}" if self.inside else "")


def shortened(name: str) -> str:
    """A name on part of a line."""
    return name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}..."


class Parsed:
    """A parsed file, whose operators, graphs and tensors are looked for once, when they are first asked for."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto

    @cached_property
    def main(self) -> tuple[Place, ...]:
        """Every operator of the main graph and of its bodies."""
        return tuple(walk("", self.proto.graph.node))

    @cached_property
    def functions(self) -> tuple[tuple[onnx.FunctionProto, tuple[Place, ...]], ...]:
        """Every function with its operators, those of bodies included."""
        return tuple((one, tuple(walk(f"function {one.name!r}", one.node))) for one in self.proto.functions)

    @cached_property
    def nodes(self) -> tuple[Place, ...]:
        """Every operator of the main graph, of bodies and of functions."""
        return (*self.main, *(place for _, places in self.functions for place in places))

    @cached_property
    def attributes(self) -> tuple[tuple[Place, onnx.AttributeProto], ...]:
        """Every attribute of an operator."""
        return tuple((place, attribute) for place in self.nodes for attribute in place.node.attribute)

    @cached_property
    def graphs(self) -> tuple[tuple[str, onnx.GraphProto], ...]:
        """The main graph, then every body of a control-flow node, those of functions included."""
        inner = (
            (f"attribute {attribute.name!r} of {place}", body)
            for place, attribute in self.attributes
            for body in bodies_of(attribute)
        )
        return (("the graph", self.proto.graph), *inner)

    @property
    def tensors(self) -> Iterator[tuple[str, onnx.TensorProto]]:
        """Every stored tensor: initializers and attributes, in bodies and functions too."""
        for _, graph in self.graphs:
            for tensor in graph.initializer:
                yield f"tensor {tensor.name!r}", tensor
        defaults = ((f"function {f.name!r}", stored) for f in self.proto.functions for stored in f.attribute_proto)
        for place, stored in itertools.chain(defaults, self.attributes):
            for tensor in (*stored.tensors, *([stored.t] if stored.HasField("t") else ())):
                yield f"the tensor in attribute {stored.name!r} of {place}", tensor


def walk(inside: Place | str, nodes: Iterable[onnx.NodeProto]) -> Iterator[Place]:
    """Operators, each before those of its bodies."""
    for node in nodes:
        place = Place(node, inside)
        yield place
        for attribute in node.attribute:
            for body in bodies_of(attribute):
                yield from walk(place, body.node)


def bodies_of(attribute: onnx.AttributeProto) -> tuple[onnx.GraphProto, ...]:
    """The graphs that an attribute holds."""
    return (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ()))


def undecoded(message: Message) -> bytes | None:
    """A text in a message that is none, as its bytes; of tensors the names only, so that no values are touched."""
    texts: Iterable[str | bytes]
    if isinstance(message, onnx.TensorProto):
        texts = (message.name, message.doc_string)
        parts: Iterable[Message] = itertools.chain(message.external_data, message.metadata_props)
    elif isinstance(message, onnx.NodeProto):  # the most there are of: asking what it holds costs far more
        if not message.attribute and message.SerializeToString().isascii():
            return None
        names = (message.name, message.op_type, message.domain, message.overload, message.doc_string)
        texts = itertools.chain(names, message.input, message.output)
        parts = itertools.chain(message.attribute, message.metadata_props, message.device_configurations)
    else:
        texts, parts = listed_fields(message)
    for text in texts:
        if isinstance(text, bytes):
            return text
    for part in parts:  # one at a time: an object for each of a million empty parts takes hundreds of bytes
        found = undecoded(part)
        if found is not None:
            return found
    return None


def listed_fields(message: Message) -> tuple[Iterable[str | bytes], Iterable[Message]]:
    """The texts and the messages that a message holds."""
    texts: list[Iterable[str | bytes]] = []
    parts: list[Iterable[Message]] = []
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            texts.append([value] if isinstance(value, str | bytes) else value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            parts.append([value] if isinstance(value, Message) else value)
    return itertools.chain.from_iterable(texts), itertools.chain.from_iterable(parts)
