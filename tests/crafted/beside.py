"""What is given beside a model: data, pairs, names, weights, numbers of options."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
from builders import mlp, save
from onnx import numpy_helper

from crafted.kind import written

EVALUATE = ("evaluate", "base.onnx", "--data", "d.npz")
MATCH = ("assemble", "base.onnx", "base.onnx", "--matches", "m.json", "-o", "out.onnx")
LABELS = ("assemble", "base.onnx", "base.onnx", "--labels-of", "names.txt", "--labels-of", "-", "-o", "out.onnx")
MERGE = ("assemble", "base.onnx", "m.onnx", "-o", "out.onnx", "--data", "data.npz")


def zipped(folder: Path, header: bytes, size: int, name: str = "x.npy") -> None:
    """An .npz whose one array has this header and so many zeros, deflated."""
    with (
        zipfile.ZipFile(folder / "d.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        file.write(header)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@written("unfolds to 640 MiB", *EVALUATE)
def data_that_unfold(folder):
    zipped(folder, header(f"({20 << 20}, 8)"), 640 << 20)


@written("error: ", *EVALUATE)
def data_of_a_false_shape(folder):
    zipped(folder, header(f"({1 << 40}, 8)"), 1 << 20)


@written("error: ", *EVALUATE)
def data_of_a_negative_shape(folder):
    zipped(folder, header("(-1, 8)"), 1 << 20)


@written("error: ", *EVALUATE)
def data_of_objects(folder):
    np.savez(folder / "d.npz", x=np.array([{}, []], object))


@written("error: ", *EVALUATE)
def data_of_a_code(folder):
    zipped(folder, header("__import__('os').system('true')"), 1 << 20)


@written("error: ", *EVALUATE)
def data_of_many_arrays(folder):
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        for i in range(5000):
            archive.writestr(f"a{i}.npy", header("(1,)") + b"\0" * 4)


@written("error: ", *EVALUATE)
def data_that_are_a_pipe(folder):
    os.mkfifo(folder / "d.npz")


@written("error: ", "evaluate", "base.onnx", "--data", "/dev/zero")
def data_without_an_end(folder):
    pass


@written("error: ", *EVALUATE)
def data_that_are_a_folder(folder):
    (folder / "d.npz").mkdir()


@written("error: ", *EVALUATE)
def data_that_are_no_archive(folder):
    (folder / "d.npz").write_bytes(b"PK\x03\x04" + bytes(1000))


@written("error: ", *EVALUATE)
def data_that_are_not_finite(folder):
    np.savez(folder / "d.npz", x=np.full((4, 8), np.nan, np.float32), labels=np.zeros(4, int))


@written("error: ", *EVALUATE)
def labels_beyond_the_classes(folder):
    np.savez(folder / "d.npz", x=np.zeros((4, 8), np.float32), labels=np.full(4, 1 << 60))


@written("error: ", *MATCH)
def pairs_from_a_pipe(folder):
    os.mkfifo(folder / "m.json")


@written("error: ", "assemble", "base.onnx", "base.onnx", "--matches", "/dev/zero", "-o", "out.onnx")
def pairs_without_an_end(folder):
    pass


@written("error: ", *MATCH)
def pairs_that_are_a_folder(folder):
    (folder / "m.json").mkdir()


@written("error: ", *MATCH)
def pairs_too_deep(folder):
    (folder / "m.json").write_text("[" * 100_000)


@written("error: ", *MATCH)
def pairs_of_a_huge_number(folder):
    (folder / "m.json").write_text('{"pairs": [' + "9" * 5000 + "]}")


@written("error: ", *MATCH)
def pairs_with_escapes(folder):
    pairs = [{"base": "\x1b[31m", "donor": "\x1b]0;\x07"}]
    (folder / "m.json").write_text(json.dumps({"pairs": pairs}))


@written("error: ", *MATCH)
def pairs_of_8_gib(folder):
    with (folder / "m.json").open("wb") as file:
        file.truncate(8 << 30)


@written("error: ", *LABELS)
def names_from_a_pipe(folder):
    os.mkfifo(folder / "names.txt")


@written("error: ", *LABELS)
def names_of_8_gib(folder):
    with (folder / "names.txt").open("wb") as file:
        file.truncate(8 << 30)


@written("error: ", *LABELS)
def names_with_escapes(folder):
    (folder / "names.txt").write_text("\x1b[31m\n" * 5)


for flag, value, says in (
    ("--max-memory", "9" * 400, ""),
    ("--max-memory", "1e3", "--max-memory"),
    ("--max-memory", "9" * 30 + "TiB", ""),
    ("--timeout", "1e999", "--timeout"),
    ("--timeout", "-1", "--timeout"),
    ("--verify-timeout", "nan", "--verify-timeout"),
    ("--seed", "9" * 400, "--seed"),
    ("--seed", "-1", "--seed"),
    ("--input-shape", "x:1000000,1000000", "error: "),
    ("--input-shape", "x:" + "9" * 40, "error: "),
    ("--input-shape", "x:" + ",".join(["1"] * 100), "error: "),
    ("--inputs", "/dev/zero", "error: "),
    ("--format", "\x1b[31m", "error: "),
):
    name = f"{flag[2:].replace('-', '_')}_of_{value[:8]}_{len(value)}"

    def build(folder):
        pass

    build.__name__ = name
    written(says, "inspect", "base.onnx", flag, value)(build)


def changed(folder: Path, change) -> None:
    """A donor whose float weights are changed."""
    save(mlp((8, 16, 12, 5), seed=1), folder / "m.onnx")
    proto = onnx.load(folder / "m.onnx")
    for stored in proto.graph.initializer:
        values = change(numpy_helper.to_array(stored).copy())
        stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    onnx.save(proto, folder / "m.onnx")


@written("", *MERGE)
def donor_of_huge_numbers(folder):
    changed(folder, lambda values: values * np.float32(1e30))


@written("", *MERGE)
def donor_of_no_numbers(folder):
    changed(folder, lambda values: values * np.float32(np.nan))


@written("", *MERGE)
def donor_of_zeros(folder):
    changed(folder, lambda values: values * np.float32(0))


@written("", "assemble", "base.onnx", "m.onnx", "-o", "out.onnx", "--method", "mal")
def aligned_donor_of_huge_numbers(folder):
    changed(folder, lambda values: values * np.float32(1e30))


@written("error: ", "assemble", "base.onnx", "m.onnx", "-o", "out.onnx")
def donor_of_50_gib(folder):
    with (folder / "m.onnx").open("wb") as file:
        file.truncate(50 << 30)


@written("", "zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx", is_slow=True)
def a_zoo_with_50_gib(folder):
    (folder / "zoo").mkdir()
    with (folder / "zoo/a.onnx").open("wb") as file:
        file.truncate(50 << 30)
    save(mlp((8, 16, 12, 5), seed=1), folder / "zoo/b.onnx")
