"""What is refused before a file is trusted.

`check_file` looks at the parsed bytes, before onnx-ir sees them: it drops sparse tensors, skips initializers without a
name and follows an external location wherever that leads. `check_model` looks at the graph that onnx-ir made of them.
No value of a large tensor is read by either.

Chosen: the rules for files and names are written out here, and of onnx's checker only the rule for one operator is
used, which onnxruntime applies too. Refused: the checker on the whole file - it parses the weights once more, turns
away graphs in another order and operators of other domains, and accepts external data that is too short.
"""

import itertools
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import onnx
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf has no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # nor here

from mal_graph.errors import FileError, UnsupportedModel

MAX_FILE = 2**31 - 1  # bytes; protobuf parses no more
MAX_TENSOR = 2**33  # bytes that a few bytes of file may unfold to
MAX_RANK = 64  # numpy's
MAX_IR_VERSION, MAX_OPSET = 13, 26  # measured: the newest that onnxruntime 1.31 loads
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
DATA_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
ELEMENT_TYPES = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
OWN_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.ms.internal.nhwc")
INTEGER_ARITHMETIC = re.compile(
    r"QLinear.+|QOrdered.+|QAttention|QGemm|QMoE|QEmbedLayerNormalization|DynamicQuantize.+|\w*Integer(16|ToFloat)?"
    r"|MatMul(NBits|Bnb4|FpQ4|BlockQuantized)\w*|GatherBlockQuantized"
)
OTHER_FORMATS = (  # how a file starts, what it is then, what to do
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "fetch it with `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint", "export the model to ONNX"),
    (b"<", "an HTML or XML page, perhaps a failed download", "download the model again"),
    (b"\x89HDF", "an HDF5 file, perhaps a Keras model", "convert the model to ONNX"),
)


def checked_path(path: Path) -> Path:
    """The absolute path of a regular file that holds something. Raises FileError."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        raise broken(path, f"{reason}", "check the path") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise broken(path, f"it is {kind}", "give the path of an .onnx file")
    if status.st_size == 0:
        raise broken(path, "the file is empty", "export or download the model again")
    if status.st_size > MAX_FILE:
        raise broken(path, f"it has {status.st_size} bytes and protobuf ends at 2 GiB", "keep weights as external data")
    return Path(os.path.abspath(path))  # links are kept: external data lies beside the name that was given


def check_file(path: Path) -> onnx.ModelProto:
    """The parsed file, its external data unread. Raises FileError or UnsupportedModel."""
    return check_proto(parsed(path), path)


def check_proto(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A parsed document that is sound as far as it shows by itself. Raises FileError or UnsupportedModel."""
    for check in FILE_CHECKS:
        check(proto, path)
    return proto


def check_model(model: ir.Model, path: Path) -> None:
    """Refuse what only the linked graph shows. Raises FileError or UnsupportedModel."""
    for check in MODEL_CHECKS:
        check(model, path)


def broken(path: Path, fault: str, advice: str) -> FileError:
    return FileError(f"cannot load {path}: {printable(fault)}; {advice}")


def unsupported(path: Path, fault: str, advice: str) -> UnsupportedModel:
    return UnsupportedModel(f"cannot merge {path}: {printable(fault)}; {advice}")


def printable(text: str) -> str:
    """On one line and without control characters, which a hostile name may carry to the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def parsed(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise broken(path, f"{error.strerror}", "check its permissions") from None
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError:
        proto = onnx.ModelProto()
    if proto.HasField("graph"):
        return proto
    for start, kind, advice in OTHER_FORMATS:
        if content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):
            raise broken(path, f"it is {kind}", advice)
    fault = "it holds no graph, so it is no ONNX model or was cut short"
    raise broken(path, fault, "export or download the model again")


# The parsed file, walked with a readable place for each thing.


def graphs(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The main graph, then every body of a control-flow node, those of functions included."""
    yield "the graph", proto.graph
    for place, node in nodes(proto):
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield f"attribute {attribute.name!r} of {place}", body


def nodes(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Every operator of the main graph, of bodies and of functions."""
    yield from walk("", proto.graph.node)
    for function in proto.functions:
        yield from walk(f"function {function.name!r}", function.node)


def walk(inside: str, nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, onnx.NodeProto]]:
    for node in nodes:
        place = f"node {node.name or ' '.join(node.output)!r} ({node.op_type})" + (f" in {inside}" if inside else "")
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
        parts = [*message.external_data, *message.metadata_props]
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


# Checks of the parsed file.


def is_text(proto: onnx.ModelProto, path: Path) -> None:
    for text in texts(proto):
        if isinstance(text, bytes):
            raise broken(path, f"it holds the name or note {text!r}, which is not UTF-8", "export the model again")


def has_operators(proto: onnx.ModelProto, path: Path) -> None:
    if not proto.graph.node:
        raise broken(path, "its graph holds no operator", "export the model again")


def has_known_versions(proto: onnx.ModelProto, path: Path) -> None:
    if proto.ir_version >= 3 and not proto.opset_import:
        raise broken(path, "it declares no opset, so it was cut short", "export or download the model again")
    imports = [*proto.opset_import, *(item for function in proto.functions for item in function.opset_import)]
    opset = max((item.version for item in imports if item.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET:
        fault = f"it uses opset {opset} and onnxruntime runs up to {MAX_OPSET}"
        raise unsupported(
            path, fault, f"export with opset {MAX_OPSET} or lower, or convert with onnx.version_converter"
        )
    if proto.ir_version > MAX_IR_VERSION:
        fault = f"it has IR version {proto.ir_version} and onnxruntime loads up to {MAX_IR_VERSION}"
        raise unsupported(path, fault, "export with an older version of the exporter")


def is_dense(proto: onnx.ModelProto, path: Path) -> None:
    advice = "store the values densely"
    for place, graph in graphs(proto):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise unsupported(path, f"{place} stores {name!r} as a sparse tensor", advice)
    for place, node in nodes(proto):
        if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute):
            raise unsupported(path, f"{place} holds a sparse tensor", advice)


def is_without_maps(proto: onnx.ModelProto, path: Path) -> None:
    """No value is a dictionary, as scikit-learn's exporter makes them of class scores; onnx-ir has no word for it."""
    for _, graph in graphs(proto):
        for info in (*graph.input, *graph.output, *graph.value_info):
            kind = info.type
            while kind.HasField("sequence_type") or kind.HasField("optional_type"):
                kind = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind.optional_type.elem_type
            if kind.HasField("map_type"):
                fault = f"its value {info.name!r} is a map and not a tensor"
                raise unsupported(path, fault, "export without ZipMap (skl2onnx: zipmap=False)")


def is_for_inference(proto: onnx.ModelProto, path: Path) -> None:
    if proto.training_info:
        raise unsupported(path, "it holds training graphs beside the model", "export it for inference")


def has_sound_tensors(proto: onnx.ModelProto, path: Path) -> None:
    files: dict[str, int] = {}  # size of each data file that passed
    for place, tensor in tensors(proto):
        problem = shape_problem(tensor) or (
            external_problem(tensor, path.parent, files)
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            else embedded_problem(tensor)
        )
        if problem:
            raise broken(path, f"{place} {problem}", "export or download the model again")


def shape_problem(tensor: onnx.TensorProto) -> str:
    if tensor.data_type not in ELEMENT_TYPES:
        return f"has the unknown element type {tensor.data_type}"
    if any(dim < 0 for dim in tensor.dims):
        return f"has the negative dimension {min(tensor.dims)}"
    if len(tensor.dims) > MAX_RANK:
        return f"has {len(tensor.dims)} dimensions and numpy ends at {MAX_RANK}"
    if tensor.HasField("segment"):
        return "is split into segments, which no runtime joins"
    return ""


def embedded_problem(tensor: onnx.TensorProto) -> str:
    fields = [field for field in DATA_FIELDS if len(getattr(tensor, field))]
    if len(fields) > 1:
        return f"holds its values twice, as {' and '.join(fields)}"
    if fields == ["raw_data"]:
        due = -1 if tensor.data_type == onnx.TensorProto.STRING else stored_size(tensor)[1]
        return count_problem(tensor, len(tensor.raw_data), due, "bytes")
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    if fields and fields != [field]:
        return f"holds {fields[0]} where its element type asks for {field}"
    return count_problem(tensor, len(getattr(tensor, field)), numbers_due(tensor), "values")


def count_problem(tensor: onnx.TensorProto, held: int, due: int, what: str) -> str:
    return "" if held == due else f"holds {held} {what} where shape {list(tensor.dims)} asks for {max(due, 0)}"


def numbers_due(tensor: onnx.TensorProto) -> int:
    """How many numbers or strings the field of a tensor's type must hold."""
    size, nbytes = stored_size(tensor)
    if tensor.data_type != onnx.TensorProto.STRING and ir.DataType(tensor.data_type).bitwidth < 8:
        return nbytes
    return size * (2 if tensor.data_type in COMPLEX else 1)


def stored_size(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Elements, and bytes: types below a byte are packed, strings count none."""
    size = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        return size, 0
    return size, -(-size * ir.DataType(tensor.data_type).bitwidth // 8)


def external_problem(tensor: onnx.TensorProto, folder: Path, files: dict[str, int]) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if problem := entry_problem(tensor, entries):
        return problem
    location = entries.get("location", "")
    if location not in files:
        if problem := location_problem(location, folder):
            return problem
        files[location] = (folder / location).stat().st_size
    offset, nbytes = int(entries.get("offset", 0)), stored_size(tensor)[1]
    if int(entries.get("length", nbytes)) != nbytes:
        return f"has {entries['length']} bytes of external data where shape {list(tensor.dims)} asks for {nbytes}"
    if offset + nbytes > files[location]:
        return f"ends at byte {offset + nbytes} of {location!r}, which has {files[location]} bytes"
    return ""


def entry_problem(tensor: onnx.TensorProto, entries: Mapping[str, str]) -> str:
    """What is wrong with the description of external data, before any file is looked at."""
    if unknown := sorted(entries.keys() - EXTERNAL_KEYS):
        return f"describes its external data with the unknown key {unknown[0]!r}"
    if len(entries) < len(tensor.external_data):
        return "describes its external data twice"
    if tensor.data_type == onnx.TensorProto.STRING or any(len(getattr(tensor, field)) for field in DATA_FIELDS):
        return "has external data, which strings and tensors with values of their own cannot"
    for key in ("offset", "length"):
        if not re.fullmatch(r"[0-9]{1,19}", entries.get(key, "0")):
            return f"has the external {key} {entries[key]!r}, which is no count of bytes"
    return ""


def location_problem(location: str, folder: Path) -> str:
    """Why `location` is not a plain file inside `folder`, or "" if it is one."""
    outside = f"has external data at {location!r}, which is not a path inside the model's folder"
    drive = PureWindowsPath(location).drive or "\\" in location or "\0" in location
    if not location or drive or os.path.isabs(location) or ".." in Path(location).parts:
        return outside
    place = folder / location
    try:
        status = place.lstat()
    except OSError:
        return f"has external data in {location!r}, which is missing in {folder}"
    if stat.S_ISLNK(status.st_mode):
        return f"has external data in {location!r}, which is a symbolic link and not the file itself"
    if not place.resolve().is_relative_to(folder.resolve()):
        return outside
    if not stat.S_ISREG(status.st_mode):
        return f"has external data in {location!r}, which is not a file"
    if status.st_nlink > 1:
        return f"has external data in {location!r}, which is a hard link to a file of another name"
    return ""


def has_one_producer_per_name(proto: onnx.ModelProto, path: Path) -> None:
    """Each name is made once in its graph; an initializer may give the default of an input."""
    for place, graph in graphs(proto):
        stored = [tensor.name for tensor in graph.initializer]
        if "" in stored:
            raise broken(path, f"{place} has an initializer without a name", "export the model again")
        refuse_repeats(stored, f"initializer of {place}", path)
        made = [out for node in graph.node for out in node.output if out]
        fed = dict.fromkeys(stored)
        refuse_repeats([value.name for value in graph.input], f"input of {place}", path)
        fed.update(dict.fromkeys(value.name for value in graph.input))
        refuse_repeats([*fed, *made], f"value of {place}", path)
    for function in proto.functions:
        made = [out for node in function.node for out in node.output if out]
        refuse_repeats([*function.input, *made], f"value of function {function.name!r}", path)


def refuse_repeats(names: Sequence[str], what: str, path: Path) -> None:
    if len(set(names)) == len(names):
        return
    twice = next(name for place, name in enumerate(names) if name in names[:place])
    raise broken(path, f"{twice!r} is made twice as {what}", "export the model again")


def has_sound_attributes(proto: onnx.ModelProto, path: Path) -> None:
    """Each attribute has a type, and only inside a function it may stand for an attribute of the call."""
    for place, node in nodes(proto):
        for attribute in node.attribute:
            if not attribute.ref_attr_name and attribute.type == onnx.AttributeProto.UNDEFINED:
                fault = f"{place} has the attribute {attribute.name!r} without a type"
                raise broken(path, fault, "export the model again")
    for place, node in walk("", proto.graph.node):
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                fault = f"{place} takes {attribute.name!r} from a function that it is not in"
                raise broken(path, fault, "export the model again")


def has_valid_operators(proto: onnx.ModelProto, path: Path) -> None:
    """Each standard operator has the inputs and attributes that its opset asks for."""
    owners = [("", proto.graph.node, proto.opset_import)]
    owners += [(f"function {f.name!r}", f.node, f.opset_import) for f in proto.functions]
    own = {(function.domain, function.name) for function in proto.functions}
    for inside, nodes, imports in owners:
        context = onnx.checker.C.CheckerContext()
        context.ir_version = proto.ir_version
        context.opset_imports = {item.domain: item.version for item in imports} or {"": 1}
        for place, node in walk(inside, nodes):
            if node.domain or (node.domain, node.op_type) in own or not is_plain(node):
                continue
            try:
                onnx.checker.check_node(node, context)
            except onnx.checker.ValidationError as error:
                rule = " ".join(str(error).split())[:200].rstrip(".")
                raise broken(path, f"{place} breaks the standard ({rule})", "export the model again") from None


def is_plain(node: onnx.NodeProto) -> bool:
    """Whether the checker can judge the node alone: no body, no reference, no external data."""
    return not any(
        attribute.HasField("g")
        or attribute.graphs
        or attribute.ref_attr_name
        or attribute.t.data_location == onnx.TensorProto.EXTERNAL
        for attribute in node.attribute
    )


# Checks of the linked graph.


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every operator of the main graph, of bodies and of functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def named(node: ir.Node) -> str:
    outputs = " ".join(value.name or "" for value in node.outputs)
    return f"node {node.name or outputs!r} ({node.op_type})"


def has_all_inputs(model: ir.Model, path: Path) -> None:
    """Whatever a node reads or a graph returns is a graph's input, stored, or made by a node."""
    for node in all_nodes(model):
        for value in node.inputs:
            if value is not None and is_undefined(value):
                fault = f"{named(node)} reads {value.name!r}, which nothing makes"
                raise broken(path, fault, "export the model again")
    bodies = [*model.graphs(), *(g for f in model.functions.values() for g in (f.graph, *f.subgraphs()))]
    for value in (value for body in bodies for value in body.outputs):
        if is_undefined(value):
            raise broken(path, f"nothing makes the output {value.name!r}", "export the model again")


def is_undefined(value: ir.Value) -> bool:
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def has_float_arithmetic(model: ir.Model, path: Path) -> None:
    for node in all_nodes(model):
        if node.domain in OWN_DOMAINS and INTEGER_ARITHMETIC.fullmatch(node.op_type):
            fault = f"{named(node)} computes with quantised integers"
            raise unsupported(path, fault, "merge the float models, then quantise")


def has_bounded_fills(model: ir.Model, path: Path) -> None:
    """No ConstantOfShape unfolds a stored shape to more than `MAX_TENSOR` bytes."""
    for node in all_nodes(model):
        if node.domain in ("", "ai.onnx") and node.op_type == "ConstantOfShape" and (problem := fill_problem(node)):
            raise broken(path, f"{named(node)} {problem}", "export the model again")


def fill_problem(node: ir.Node) -> str:
    value = node.attributes.get("value")
    filler = None if value is None or value.is_ref() else value.as_tensor()
    if filler is not None and filler.size != 1:
        return f"fills with {filler.size} values where one is due"
    stored = ir.convenience.get_const_tensor(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    if stored is None:
        return ""
    if len(stored.shape) != 1 or stored.size > MAX_RANK or stored.dtype != ir.DataType.INT64:
        return f"takes {stored.dtype.name}{list(stored.shape)} for a shape"
    shape = [int(dim) for dim in stored.numpy()]
    if any(dim < 0 for dim in shape):
        return f"makes a tensor of the negative shape {shape}"
    nbytes = math.prod(shape) * (filler.dtype.itemsize if filler is not None else 4)
    return f"makes a tensor of shape {shape}, more than {MAX_TENSOR >> 30} GiB" if nbytes > MAX_TENSOR else ""


FILE_CHECKS: tuple[Callable[[onnx.ModelProto, Path], None], ...] = (
    is_text,
    has_operators,
    has_known_versions,
    is_dense,
    is_for_inference,
    is_without_maps,
    has_sound_tensors,
    has_one_producer_per_name,
    has_sound_attributes,
    has_valid_operators,
)
MODEL_CHECKS: tuple[Callable[[ir.Model, Path], None], ...] = (
    has_all_inputs,
    has_float_arithmetic,
    has_bounded_fills,
)
