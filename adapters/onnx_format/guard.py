"""What is refused before a file is trusted.

`check_file` looks at the parsed bytes, before onnx-ir sees them: it drops sparse tensors, skips initializers without a
name and follows an external location wherever that leads. `check_model` looks at the graph that onnx-ir made of them.
No value of a large tensor is read by either.

Chosen: the rules for files and names are written out here, and of onnx's checker only the rule for one operator is
used, which onnxruntime applies too. Refused: the checker on the whole file - it parses the weights once more, turns
away graphs in another order and operators of other domains, and accepts external data that is too short.
"""

import graphlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from mal_graph.errors import FileError, UnsupportedModel
from mal_graph.limits import limits_in_force
from mal_graph.memory_bound import call_bounded

from .places import Parsed, Place, shortened, undecoded
from .size_bounds import has_bounded_sizes, named, stored_tensor
from .standard import operator_problem, type_problem
from .tensor_problems import MAX_RANK, tensor_problem
from .walking import Linked

MAX_FILE = 2**31 - 1  # bytes; protobuf parses no more
MAX_IR_VERSION, MAX_OPSET = 13, 26  # measured: the newest that onnxruntime 1.31 loads
MOST_VERSION = 2**31 - 1  # of any domain: runtimes hold it in 32 bits
FunctionKey = tuple[str, str, str]  # domain, name, overload
OWN_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.ms.internal.nhwc")
INTEGER_ARITHMETIC = re.compile(
    r"QLinear.+|QOrdered.+|QAttention|QGemm|QMoE|QEmbedLayerNormalization|DynamicQuantize.+|\w*Integer(16|ToFloat)?"
    r"|MatMul(NBits|Bnb4|FpQ4|BlockQuantized)\w*|GatherBlockQuantized"
)
ALLOCATION_FAILED = re.compile("alloc", re.IGNORECASE)  # in the words of protobuf, which has no error for it
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
    file = Parsed(proto)
    for check in FILE_CHECKS:
        check(file, path)
    return proto


def check_model(model: ir.Model, path: Path) -> None:
    """Refuse what only the linked graph shows. Raises FileError or UnsupportedModel."""
    linked = Linked(model)
    for check in MODEL_CHECKS:
        check(linked, path)


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
        with call_bounded(path, len(content)):
            proto = decoded(content)
    except DecodeError:
        proto = onnx.ModelProto()
    if proto.HasField("graph"):
        return proto
    for start, kind, advice in OTHER_FORMATS:
        if content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):
            raise broken(path, f"it is {kind}", advice)
    fault = "it holds no graph, so it is no ONNX model or was cut short"
    raise broken(path, fault, "export or download the model again")


def decoded(content: bytes) -> onnx.ModelProto:
    """The document in these bytes. Raises DecodeError or MemoryError."""
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        if ALLOCATION_FAILED.search(str(error)):
            raise MemoryError from None
        raise
    return proto


# Checks of the parsed file.
def is_text(file: Parsed, path: Path) -> None:
    text = undecoded(file.proto)
    if text is not None:
        raise broken(path, f"it holds the name or note {text!r}, which is not UTF-8", "export the model again")


def has_operators(file: Parsed, path: Path) -> None:
    if not file.proto.graph.node:
        raise broken(path, "its graph holds no operator", "export the model again")


def has_known_versions(file: Parsed, path: Path) -> None:
    proto = file.proto
    if proto.ir_version >= 3 and not proto.opset_import:
        raise broken(path, "it declares no opset, so it was cut short", "export or download the model again")
    imports = [*proto.opset_import, *(item for function in proto.functions for item in function.opset_import)]
    if odd := next((item for item in imports if not 1 <= item.version <= MOST_VERSION), None):
        raise broken(path, f"it uses opset {odd.version} of {odd.domain!r}", "export the model again")
    if proto.ir_version < 0:
        raise broken(path, f"it has IR version {proto.ir_version}", "export the model again")
    opset = max((item.version for item in imports if item.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET:
        fault = f"it uses opset {opset} and onnxruntime runs up to {MAX_OPSET}"
        raise unsupported(
            path, fault, f"export with opset {MAX_OPSET} or lower, or convert with onnx.version_converter"
        )
    if proto.ir_version > MAX_IR_VERSION:
        fault = f"it has IR version {proto.ir_version} and onnxruntime loads up to {MAX_IR_VERSION}"
        raise unsupported(path, fault, "export with an older version of the exporter")


def has_short_names(file: Parsed, path: Path) -> None:
    """No body is too deep, and no node has names that are too long with those of what it stands in: the view repeats
    them for each."""
    limits = limits_in_force()
    for place in file.nodes:
        if place.inside and len(place.outer) > limits.MOST_NESTING:
            fault = f"node {shortened(place.node.name)!r} ({place.node.op_type}) is {len(place.outer)} bodies deep"
            raise broken(path, fault, "export it with fewer bodies inside each other")
        if place.letters > limits.MOST_LETTERS:
            raise broken(path, f"{place} has a name of {place.letters} letters", "give shorter names")


def has_sound_signature(file: Parsed, path: Path) -> None:
    """Each input and output of the model has axes that an array can have."""
    for value in (*file.proto.graph.input, *file.proto.graph.output):
        axes = value.type.tensor_type.shape.dim
        if len(axes) > MAX_RANK:
            fault = f"{value.name!r} has {len(axes)} axes and numpy ends at {MAX_RANK}"
            raise unsupported(path, fault, "export it with fewer axes")


def is_dense(file: Parsed, path: Path) -> None:
    advice = "store the values densely"
    for place, graph in file.graphs:
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise unsupported(path, f"{place} stores {name!r} as a sparse tensor", advice)
    for where, attribute in file.attributes:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise unsupported(path, f"{where} holds a sparse tensor", advice)


def is_without_maps(file: Parsed, path: Path) -> None:
    """No value is a dictionary but behind the last operators, where scikit-learn's exporter makes them of scores."""
    for place, graph in file.graphs:
        last = () if graph is file.proto.graph else (*graph.output, *graph.value_info)
        for info in (*graph.input, *last):
            if holds_map(info.type):
                fault = f"the value {info.name!r} of {place} is a map and not a tensor"
                raise unsupported(path, fault, "export with tensors (skl2onnx: zipmap=False)")


def holds_map(kind: onnx.TypeProto) -> bool:
    """Whether a type is a dictionary, or a sequence of them; onnx-ir has no word for it."""
    while kind.HasField("sequence_type") or kind.HasField("optional_type"):
        kind = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind.optional_type.elem_type
    return kind.HasField("map_type")


def has_own_functions(file: Parsed, path: Path) -> None:
    """No function is there twice, and none has the name of an operator of the standard, which runtimes run instead."""
    calls = [".".join(filter(None, (one.domain, one.name, one.overload))) for one in file.proto.functions]
    refuse_repeats(calls, "function of the model", path)
    for function in file.proto.functions:
        if function.domain in ("", "ai.onnx") and onnx.defs.has(function.name, ""):
            fault = f"its function {function.name!r} has the name of an operator of the standard"
            raise broken(path, fault, "export it with functions of a domain of their own")


def has_finite_functions(file: Parsed, path: Path) -> None:
    """No function calls itself, by itself or through others, and written out they stay of a size."""
    own = {(f.domain, f.name, f.overload): (f, places) for f, places in file.functions}
    if not own:
        return
    calls = {key: called_by(own.keys(), places) for key, (_, places) in own.items()}
    try:
        order = tuple(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as error:
        circle = [f"{domain}.{name}".lstrip(".") for domain, name, _ in error.args[1]]
        fault = f"its function {circle[0]!r} calls itself"
        through = f" through {circle[1]!r}" if len(circle) > 2 else ""
        raise broken(path, fault + through, "export it with functions that end") from None
    times = Counter(called_by(own.keys(), file.main))
    for key in reversed(order):  # a function comes before those that call it
        for called in calls[key]:
            times[called] += times[key]
    total = sum(times[key] * len(function.node) for key, (function, _) in own.items())
    most = limits_in_force()
    if total > most.MOST_CALLED:
        raise broken(path, f"its functions unfold to {total} operators", "export it without functions")
    named: Counter[str] = Counter()
    for key, (function, _) in own.items():
        for name in (name for node in function.node for name in (node.name, *node.output)):
            named[name] += times[key]
    if sum(often**2 for often in named.values()) > 2 * most.MOST_NAMED:
        name, often = max(named.items(), key=lambda item: item[1])
        fault = f"its functions unfold to {often} operators and tensors of the name {name!r}"
        raise broken(path, fault, "export it without functions")


def called_by(own: Collection[FunctionKey], places: Iterable[Place]) -> list[FunctionKey]:
    """The functions that operators call, as often as they do."""
    keys = ((node.domain, node.op_type, node.overload) for node, _ in places)
    return [key for key in keys if key in own]


def is_for_inference(file: Parsed, path: Path) -> None:
    if file.proto.training_info:
        raise unsupported(path, "it holds training graphs beside the model", "export it for inference")


def has_sound_tensors(file: Parsed, path: Path) -> None:
    files: dict[str, int] = {}  # size of each data file that passed
    for place, tensor in file.tensors:
        if problem := tensor_problem(tensor, path.parent, files):
            raise broken(path, f"{place} {problem}", "export or download the model again")


def has_one_producer_per_name(file: Parsed, path: Path) -> None:
    """Each name is made once in its graph; an initializer may give the default of an input."""
    for place, graph in file.graphs:
        stored = [tensor.name for tensor in graph.initializer]
        if "" in stored:
            raise broken(path, f"{place} has an initializer without a name", "export the model again")
        refuse_repeats(stored, f"initializer of {place}", path)
        made = [out for node in graph.node for out in node.output if out]
        fed = dict.fromkeys(stored)
        refuse_repeats([value.name for value in graph.input], f"input of {place}", path)
        fed.update(dict.fromkeys(value.name for value in graph.input))
        refuse_repeats([*fed, *made], f"value of {place}", path)
    for function in file.proto.functions:
        made = [out for node in function.node for out in node.output if out]
        refuse_repeats([*function.input, *made], f"value of function {function.name!r}", path)


def refuse_repeats(names: Sequence[str], what: str, path: Path) -> None:
    if len(set(names)) == len(names):
        return
    twice = next(name for name, count in Counter(names).items() if count > 1)
    raise broken(path, f"{twice!r} is made twice as {what}", "export the model again")


def has_sound_attributes(file: Parsed, path: Path) -> None:
    """Each attribute has a type, and only inside a function it may stand for an attribute of the call; its texts are
    UTF-8, as all texts of a model."""
    for place, attribute in file.attributes:
        if not all(map(is_utf8, (attribute.s, *attribute.strings))):
            fault = f"{place} has the attribute {attribute.name!r} with a text that is not UTF-8"
            raise broken(path, fault, "export the model again")
        if not attribute.ref_attr_name and attribute.type == onnx.AttributeProto.UNDEFINED:
            fault = f"{place} has the attribute {attribute.name!r} without a type"
            raise broken(path, fault, "export the model again")
    for place in file.main:
        for attribute in place.node.attribute:
            if attribute.ref_attr_name:
                fault = f"{place} takes {attribute.name!r} from a function that it is not in"
                raise broken(path, fault, "export the model again")


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_valid_operators(file: Parsed, path: Path) -> None:
    """Each standard operator has the inputs, outputs and attributes that its opset asks for."""
    owners = [(file.main, file.proto.opset_import)]
    owners += [(places, function.opset_import) for function, places in file.functions]
    own = {(function.domain, function.name) for function in file.proto.functions}
    for places, imports in owners:
        problem = operator_problem(file.proto.ir_version, {item.domain: item.version for item in imports} or {"": 1})
        for place in places:
            if (place.node.domain, place.node.op_type) not in own and (fault := problem(place.node)):
                raise broken(path, f"{place} breaks the standard ({fault})", "export the model again")


# Checks of the linked graph.
def has_all_inputs(linked: Linked, path: Path) -> None:
    """Whatever a node reads or a graph returns is a graph's input, stored, or made by a node."""
    model = linked.model
    for node in linked.nodes:
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


def has_float_arithmetic(linked: Linked, path: Path) -> None:
    for node in linked.nodes:
        if node.domain in OWN_DOMAINS and is_integer_arithmetic(node.op_type):
            fault = f"{named(node)} computes with quantised integers"
            raise unsupported(path, fault, "merge the float models, then quantise")


@cache
def is_integer_arithmetic(op: str) -> bool:
    """Whether an operator computes with quantised integers, by its name."""
    return INTEGER_ARITHMETIC.fullmatch(op) is not None


def has_stored_types(linked: Linked, path: Path) -> None:
    """Each standard operator reads stored tensors of types that its opset takes."""
    for owner, nodes in linked.owners:
        version = owner.opset_imports.get("", linked.model.opset_imports.get("", 1))
        for node in nodes:
            if fault := type_problem(node, version):
                raise broken(path, f"{named(node)} {fault}", "export the model again")


def has_sound_fills(linked: Linked, path: Path) -> None:
    """Each ConstantOfShape takes one value, and a stored shape that is one."""
    for node in linked.nodes:
        if node.domain in ("", "ai.onnx") and node.op_type == "ConstantOfShape" and (problem := fill_problem(node)):
            raise broken(path, f"{named(node)} {problem}", "export the model again")


def fill_problem(node: ir.Node) -> str:
    value = node.attributes.get("value")
    filler = None if value is None or value.is_ref() else value.as_tensor()
    if filler is not None and (filler.size != 1 or filler.dtype == ir.DataType.STRING):
        return f"fills with {filler.dtype.name}{list(filler.shape)} where one number is due"
    stored = stored_tensor(node.inputs[0]) if node.inputs else None
    if stored is None:
        return ""
    if len(stored.shape) != 1 or stored.size > MAX_RANK or stored.dtype != ir.DataType.INT64:
        return f"takes {stored.dtype.name}{list(stored.shape)} for a shape"
    shape = [int(dim) for dim in stored.numpy()]
    if any(dim < 0 for dim in shape):
        return f"makes a tensor of the negative shape {shape}"
    return ""


FILE_CHECKS: tuple[Callable[[Parsed, Path], None], ...] = (
    is_text,
    has_operators,
    has_short_names,
    has_sound_signature,
    has_known_versions,
    is_dense,
    is_for_inference,
    is_without_maps,
    has_sound_tensors,
    has_one_producer_per_name,
    has_sound_attributes,
    has_own_functions,
    has_valid_operators,
    has_finite_functions,
)
MODEL_CHECKS: tuple[Callable[[Linked, Path], None], ...] = (
    has_all_inputs,
    has_float_arithmetic,
    has_stored_types,
    has_sound_fills,
    has_bounded_sizes,
)
