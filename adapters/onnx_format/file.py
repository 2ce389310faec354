"""ONNX files as layer graphs, and back.

The source document is the onnx-ir model as loaded and is never changed: weights are read from it by mapping, and saving
writes a clone with the edited tensors replaced. Chosen: onnx-ir, which maps external data and keeps what it does not
know; refused: `onnx.load`, which reads all the weights, and graphsurgeon, which loses metadata.

External data is written here and not by `ir.save`, which forgets the notes on a tensor, fails on strings and leaves
constants pointing at the file they came from.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import networkx as nx
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from mal_graph import registry
from mal_graph.atomic_write import write_whole
from mal_graph.errors import DataFileWarning, FileError, LimitError, MalGraphError, RunError, UnsupportedModel
from mal_graph.graph import LayerGraph
from mal_graph.memory_bound import memory_bounded
from mal_graph.memory_budget import room_for
from mal_graph.protocols import Check
from mal_graph.remote_files import is_remote, local_copy
from mal_graph.seals import Sealed
from mal_graph.shards import refuse_small_shards
from mal_graph.source_files import SourceFile, opened

from . import guard
from .apart import library_in_force
from .build import built_model
from .data_files import big_weights, move_out
from .document import (
    MAP,
    OnnxDocument,
    captured,
    external_tensors,
    map_data_of,
    release_memory,
    tensors,
)
from .edit import edited_model
from .places import Parsed
from .seal import has_provenance, read_seal, sealed_pieces
from .size_bounds import named
from .view import handle, layer_graph
from .walking import is_sorted, nodes_of, uncollected
from .writing import writing_need

EXTERNAL_DATA_FROM = 1_500_000_000  # bytes of weights; protobuf ends at 2 GiB
DATA_NAMES = (".data", ".bin", ".onnx_data", ".weights", ".pb")  # how files with weights end


class OnnxAdapter:
    """Loads and saves `.onnx` files."""

    def claims(self, model: object) -> bool:
        return isinstance(model, str | os.PathLike | onnx.ModelProto)

    def load(self, model: object) -> LayerGraph:
        """The layer graph of an ONNX file, or of a parsed document, whose external data are looked for in the current
        folder. Raises FileError for a broken or unsafe model, UnsupportedModel for one that cannot be merged."""
        with uncollected():
            return self.loaded(model)

    def loaded(self, model: object) -> LayerGraph:
        if isinstance(model, onnx.ModelProto):
            given = model.graph.name or "model"
            return self.viewed(given, Path.cwd() / given, None, guard.check_proto(model, Path(given)))
        if not isinstance(model, str | os.PathLike):
            raise registry.unknown_model(model)
        given = os.fsdecode(model)
        path = guard.checked_path(self.local_copy(given) if is_remote(given) else Path(given))
        with memory_bounded(path, path.stat().st_size):
            return self.viewed(given, path, opened(path), guard.check_file(path))

    def viewed(self, given: str, path: Path, own: SourceFile | None, proto: onnx.ModelProto) -> LayerGraph:
        """The layer graph of a document that is sound by itself."""
        document = linked(proto, path)
        guard.check_model(document, path)
        sort(document, path)
        data = sorted({tensor.path for tensor in external_tensors(document)}) if own else ()
        warn_of_odd_data(given, data)
        return replace(layer_graph(document, path), name=given, files=tuple(filter(None, [own, *map(opened, data)])))

    def local_copy(self, address: str) -> Path:
        """The path of a model that lies at an address, once it is on this machine with all its data. Raises
        FileError."""
        return local_copy(address, data_of)

    def save(
        self,
        graph: LayerGraph,
        path: Path,
        accept: Callable[[Path], None] | None = None,
        *,
        overwrite: bool = True,
        shard_size: int | None = None,
        resume: bool = False,
    ) -> None:
        """Write `graph` to `path`, completely or not at all; big weights go to data files beside it, whose names hold
        the digests of their content: to one, or to several of at most `shard_size` bytes. A graph that says how it was
        made is sealed, and with `resume` goes on with what a killed run wrote of it. Raises FileError, UsageError where
        a weight is larger than a file may be, and MemoryLimitError where it would take more memory than there is."""
        external = graph.source.external if isinstance(graph.source, OnnxDocument) else []
        if any(Path(tensor.path).resolve() == path.resolve() for tensor in external):
            raise FileError(f"cannot write {path}: it holds the weights of {graph.name}; name another file")
        for tensor in external:
            handle(tensor.name, tensor).read()  # maps it: the values stay readable if this very file is replaced below
        model = edited_model(graph) if isinstance(graph.source, OnnxDocument) else built_model(graph)
        is_big = sum(tensor.nbytes for tensor in tensors(model)) > EXTERNAL_DATA_FROM
        map_data_of(path)
        release_memory()
        refuse_small_shards(
            graph.name, {value.name or "": held.nbytes for value, held in big_weights(model)}, shard_size
        )
        has_data = bool(external) or is_big or shard_size is not None
        room_for(writing_need(str(path), list(tensors(model)), has_data))

        def write(draft: Path) -> None:
            write_model(model, draft, has_data, shard_size)

        write_whole(path, write, accept, overwrite=overwrite, resume=resume)

    def at_opset(self, graph: LayerGraph, version: int) -> LayerGraph:
        """The same network in another version of the standard operators. Raises UnsupportedModel."""
        model = edited_model(graph) if isinstance(graph.source, OnnxDocument) else built_model(graph)
        try:
            content = ir.to_proto(model).SerializeToString()
            converted = onnx.ModelProto.FromString(library_in_force().convert(graph.name, content, version))
        except (EncodeError, RunError) as error:
            raise UnsupportedModel(
                f"{graph.name} uses opset {graph.opsets.get('', 1)} and cannot be converted to {version} ({error}); "
                "export both models with one opset"
            ) from None
        kept = {key: getattr(graph, key) for key in ("name", "metadata", "files", "provenance")}
        return replace(self.load(converted), **kept)

    def check(self, path: Path) -> tuple[Check, ...]:
        """What the ONNX checker and onnxruntime say of a saved file."""
        return checker_check(path), runtime_check(path)

    def read_seal(self, path: Path) -> Sealed:
        """What a file says of itself, and whether it is as it was written. Raises FileError."""
        return read_seal(path)


def linked(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """The parsed file as an onnx-ir model that finds its external data. Raises FileError."""
    proto, kinds = without_maps(proto)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir wraps whatever its parser meets
        cause = " ".join(str(root(error)).split())[:200]
        raise guard.broken(path, f"onnx-ir cannot read it ({cause})", "export the model again") from None
    for value in outputs_of(model):
        if value.name in kinds:
            value.meta[MAP] = kinds[value.name]
    for tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = path.parent  # absolute: with an empty folder onnx-ir 1.1 skips its own checks
        elif isinstance(tensor, ir.serde.TensorProtoTensor):
            # onnx-ir 1.1 has read these already, and would write them once from here and once from its own copy.
            tensor.raw.ClearField("metadata_props")
    return model


def data_of(path: Path) -> set[str]:
    """The files that hold weights of a model, as paths from its folder. Raises FileError."""
    stored = (tensor for _, tensor in Parsed(guard.parsed(path)).tensors if tensor.data_location == tensor.EXTERNAL)
    return {entry.value for tensor in stored for entry in tensor.external_data if entry.key == "location"}


def warn_of_odd_data(name: str, data: Iterable[str]) -> None:
    """Warn of data files that a model names and that are not called as such: it may name any file beside it, and what
    that holds would become weights."""
    for path in data:
        if not path.endswith(DATA_NAMES):
            warnings.warn(
                f"{name} takes the bytes of {Path(path).name} for its weights: a data file ends in "
                f"{', '.join(DATA_NAMES)}, so look whether this one is meant",
                DataFileWarning,
                stacklevel=2,
            )


def without_maps(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TypeProto]]:
    """A document without the types that onnx-ir has no word for, and these by name."""
    kinds = {
        info.name: info.type for info in (*proto.graph.output, *proto.graph.value_info) if guard.holds_map(info.type)
    }
    if not kinds:
        return proto, {}
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for info in (*bare.graph.output, *bare.graph.value_info):
        if info.name in kinds:
            info.ClearField("type")
    return bare, kinds


def with_maps(model: ir.Model) -> onnx.ModelProto:
    """A model as a document, with the types that `without_maps` took off."""
    proto: onnx.ModelProto = ir.to_proto(model)
    kinds = {value.name: value.meta[MAP] for value in outputs_of(model) if MAP in value.meta}
    for info in (*proto.graph.output, *proto.graph.value_info):
        if info.name in kinds:
            info.type.CopyFrom(kinds.pop(info.name))
    proto.graph.value_info.extend(onnx.ValueInfoProto(name=name, type=kind) for name, kind in kinds.items())
    return proto


def outputs_of(model: ir.Model) -> Iterator[ir.Value]:
    """What the operators of the main graph make."""
    yield from (value for node in model.graph for value in node.outputs)


def sort(model: ir.Model, path: Path) -> None:
    """Put the nodes in topological order, as the standard asks; a sorted file keeps its order. Raises FileError."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in owners:
        if is_sorted(graph):
            continue
        try:
            graph.sort()
        except ValueError:
            place = named(on_cycle(list(nodes_of(graph))))
            raise guard.broken(path, f"its graph has a cycle through {place}", "export the model again") from None


def on_cycle(nodes: list[ir.Node]) -> ir.Node:
    """A node that waits for its own output, if there is one."""
    order: nx.DiGraph[ir.Node] = nx.DiGraph()
    for node in nodes:
        read = [value for value in node.inputs if value is not None] + list(captured(node))
        order.add_edges_from((producer, node) for value in read if (producer := value.producer()) is not None)
    cycle: list[tuple[ir.Node, ir.Node]] = list(nx.find_cycle(order))
    return cycle[0][0]


def checker_check(path: Path) -> Check:
    """What the ONNX checker says of a file."""
    try:
        library_in_force().check(path)
    except (LimitError, RunError) as error:
        return Check("onnx_checker", False, str(error))
    return Check("onnx_checker", True)


def runtime_check(path: Path) -> Check:
    """Whether onnxruntime loads a file."""
    try:
        registry.runner().try_file(path)
    except LimitError as error:
        return Check("onnxruntime", False, str(error))
    except RunError as error:
        if not has_bfloat16(path):
            return Check("onnxruntime", False, str(error))
        return check_in_float32(path)
    return Check("onnxruntime", True)


def check_in_float32(path: Path) -> Check:
    """Whether onnxruntime opens a file in float32, which it cannot open in bfloat16."""
    try:
        registry.runner().open(OnnxAdapter().load(path))
    except MalGraphError as error:
        return Check("onnxruntime", False, str(error))
    return Check("onnxruntime", None, "it lacks operators for bfloat16; in float32 the file opens")


def has_bfloat16(path: Path) -> bool:
    """Whether a model stores or takes bfloat16, for which onnxruntime lacks operators on a CPU; no broken file does."""
    try:
        graph = guard.parsed(path).graph
    except FileError:
        return False
    taken = (value.type.tensor_type.elem_type for value in graph.input)
    return onnx.TensorProto.BFLOAT16 in {*taken, *(tensor.data_type for tensor in graph.initializer)}


def write_model(model: ir.Model, draft: Path, has_data: bool, shard_size: int | None = None) -> None:
    """Write a model, and its big weights to data files beside it if it is to have any. Raises FileError."""
    try:
        written = move_out(model, draft, shard_size) if has_data else {}
        proto = with_maps(model)
        pieces = sealed_pieces(proto, draft.parent, written) if has_provenance(proto) else (proto.SerializeToString(),)
        with draft.open("wb") as file:
            file.writelines(pieces)
    except EncodeError:
        raise FileError(
            f"cannot write {draft.name}: its constants have more bytes than one protobuf file holds (2 GiB); "
            "export the model with weights as initializers"
        ) from None
    except ir.serde.SerdeError as error:  # what a weight's own computation raised, wrapped on its way
        raise root(error) from None


def root(error: BaseException) -> BaseException:
    """The first cause of an error that was wrapped on its way."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
