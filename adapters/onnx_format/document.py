"""The content of an ONNX file as an onnx-ir model, and the tensors stored in it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

import onnx_ir as ir

from mal_graph.atomic_write import is_data_of
from mal_graph.graph import Node
from mal_graph.memory_bound import return_freed

from .mapped_pages import release
from .stored_values import map_tensor
from .walking import all_nodes

MAP = "mal_graph.map"  # notes on a value that it is a map, and of what type
BODY, RUNS = "mal_graph.body", "mal_graph.runs"  # note on what is shown the body it stands in, and those it runs
WEIGHT = "mal_graph.weight"  # note on a tensor of the weight that it is computed of
REGION = "mal_graph.region"  # notes on what is written out which node of the file it stands for


@dataclass(frozen=True)
class Region:
    """A node of the file that the view shows written out (see `lowering`).

    Attributes:
        node: the node as it stands in the file.
        parts: what stands for it in the view.
        attributes: the attribute that each weight of the view is stored in, by the weight's name.
        units: how many rows each of these weights has, by name: another attribute may say it too.
        halves: the tensors of the file that are stored in parts in the view, by name: the axis along which, and the
            parts.
    """

    node: Node
    parts: tuple[Node, ...]
    attributes: Mapping[str, str]
    units: Mapping[str, int]
    halves: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OnnxDocument:
    """What a layer graph of this adapter keeps as its source.

    Attributes:
        model: the file, which is never changed.
        constants: nodes that are weights in the view.
        lowered: the file with some nodes written out, which the view shows; `model` itself where there are none.
        regions: the nodes that are written out.
        shared: the constants inside functions that are weights in the view: the function, and their place in it.
    """

    path: Path
    model: ir.Model
    lowered: ir.Model
    constants: Mapping[str, ir.Node] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    shared: Mapping[str, tuple[ir.OperatorIdentifier, int]] = field(default_factory=dict)

    @property
    def external(self) -> list[ir.ExternalTensor]:
        """The tensors whose values lie in a file of their own."""
        return external_tensors(self.model)


def mark_as_part(part: ir.Node, node: ir.Node) -> None:
    """Note on a node that it stands for another one."""
    part.meta.update({key: node.meta[key] for key in (REGION, BODY) if key in node.meta})


def stored_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value with an initializer, those of bodies included."""
    bodies = (body for function in model.functions.values() for body in function.subgraphs())
    for graph in (*model.graphs(), *bodies):
        yield from (value for value in graph.initializers.values() if value.const_value is not None)


def tensor_attributes(model: ir.Model) -> Iterator[tuple[ir.Node | ir.Function, ir.Attr]]:
    """Every attribute that holds a tensor or tensors, with its node or the function it is a default of."""
    owners: list[ir.Node | ir.Function] = [node for node in all_nodes(model) if node.attributes]
    for owner in (*owners, *model.functions.values()):
        for attribute in owner.attributes.values():
            if not attribute.is_ref() and attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                yield owner, attribute


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every stored tensor of the model."""
    yield from (value.const_value for value in stored_values(model) if value.const_value is not None)
    for _, attribute in tensor_attributes(model):
        yield from [attribute.as_tensor()] if attribute.type == ir.AttributeType.TENSOR else attribute.as_tensors()


def external_tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """The tensors of a model whose values lie in a file of their own."""
    return [tensor for tensor in tensors(model) if isinstance(tensor, ir.ExternalTensor)]


def subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The bodies of a control-flow node, each with the scope its weights are listed under."""
    if not node.attributes:  # of most nodes: this is asked often
        return
    name = next((value.name for value in node.outputs if value.name), node.name)  # unique, as node names need not be
    for key, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield f"{name}/{key}/", attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for i, body in enumerate(attribute.as_graphs()):
                yield f"{name}/{key}.{i}/", body


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of outer graphs that the bodies of `node` read."""
    for _, body in subgraphs(node):
        own = set(body.inputs) | set(body.initializers.values())
        for inner in body:
            own.update(inner.outputs)
        read = [value for inner in body for value in inner.inputs if value is not None]
        read += [value for inner in body for value in captured(inner)]
        yield from (value for value in [*read, *body.outputs] if value not in own)


LOADED: WeakSet[OnnxDocument] = WeakSet()  # what was loaded and is in use still


def map_data_of(path: Path) -> None:
    """Map the values that loaded models have in the data of a file which is about to be replaced, and which go with it:
    they stay what they are then."""
    for document in list(LOADED):
        for tensor in document.external:
            data = Path(tensor.path)
            if is_data_of(data.name, path.name) and data.parent.resolve() == path.parent.resolve():
                with suppress(OSError, ValueError):  # what is lost already is named when it is read
                    map_tensor(tensor)


def release_memory() -> None:
    """Let go of the pages of files that loaded models were read from so far, and of what was freed since."""
    for document in list(LOADED):
        for tensor in document.external:
            release(tensor)
    return_freed()
