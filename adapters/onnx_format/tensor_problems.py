"""What is wrong with a stored tensor of a file: its type and shape, its values, or where it says they lie."""

import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

import onnx
import onnx_ir as ir

from mal_graph.limits import limits_in_force

MAX_RANK = 64  # numpy's
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
DATA_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
ELEMENT_TYPES = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def tensor_problem(tensor: onnx.TensorProto, folder: Path, files: dict[str, int]) -> str:
    """What is wrong with a tensor, "" if it is sound; `files` has the size of each data file that passed."""
    if problem := shape_problem(tensor):
        return problem
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return external_problem(tensor, folder, files)
    return embedded_problem(tensor)


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
        status = (folder / location).stat()
        if problem := holes_problem(location, status):
            return problem
        files[location] = status.st_size
    offset, nbytes = int(entries.get("offset", 0)), stored_size(tensor)[1]
    if int(entries.get("length", nbytes)) != nbytes:
        return f"has {entries['length']} bytes of external data where shape {list(tensor.dims)} asks for {nbytes}"
    if offset + nbytes > files[location]:
        return f"ends at byte {offset + nbytes} of {location!r}, which has {files[location]} bytes"
    return ""


def holes_problem(location: str, status: os.stat_result) -> str:
    """Why a file that takes next to nothing on a disk is not read as weights, "" if it is: it unfolds like a bomb."""
    limits = limits_in_force()
    most = limits.memory_for(512 * status.st_blocks)
    if limits.in_process or status.st_size <= most:
        return ""
    size = f"{status.st_size >> 20:,} MiB of which {status.st_blocks >> 11:,} are written"
    return f"has external data in {location!r}, a file of {size}, and at most {most >> 20:,} may be read (`max_memory`)"


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
