"""Archives of arrays and of weights: .npz, .safetensors, what torch saves; never unpickled, never believed."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np

from crafted.beside import EVALUATE, header, zipped
from crafted.kind import written

NET = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5))
def no_net():
    raise ValueError("\\x1b[31m\\nerror: forged")
"""


def npz(folder, **members: bytes) -> None:
    with zipfile.ZipFile(folder / "d.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)


def array(values) -> bytes:
    held = io.BytesIO()
    np.save(held, values)
    return held.getvalue()


X, LABELS = array(np.ones((4, 8), np.float32)), array(np.zeros(4, int))


class Payload:
    """What an unpickler would run."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


@written("error: ", *EVALUATE)
def data_that_are_pickled(folder):
    npz(folder, **{"x.npy": header("(1,)", "|O") + pickle.dumps(Payload())})


@written("error: ", *EVALUATE)
def data_that_are_a_pickle(folder):
    (folder / "d.npz").write_bytes(pickle.dumps(Payload()))


@written("", *EVALUATE)
def data_in_other_folders(folder):
    npz(folder, **{"..__..__x.npy": X, "__etc__labels.npy": LABELS})


@written("", *EVALUATE)
def data_that_are_not_arrays(folder):
    npz(folder, **{"x.npy": X, "labels.npy": LABELS, "readme.txt": b"\x1b[31m"})


@written("", *EVALUATE)
def data_named_by_escapes(folder):
    npz(folder, **{"\x1b[31m\n.npy": X, "\u202e.npy": LABELS})


@written("", *EVALUATE)
def data_of_one_name_twice(folder):
    npz(folder, **{"x.npy": X, "labels.npy": LABELS})
    with zipfile.ZipFile(folder / "d.npz", "a") as archive:
        archive.writestr("x.npy", array(np.full((9, 9), np.nan)))


for name, described in {
    "of_dates": array(np.zeros((4, 8), "M8[s]")),
    "of_texts": array(np.full((4, 8), "\x1b[31m")),
    "of_records": array(np.zeros(4, [("a", "f4"), ("b", "f4")])),
    "of_complex_numbers": array(np.zeros((4, 8), complex)),
    "of_fortran_order": array(np.asfortranarray(np.ones((4, 8), np.float32))),
    "of_the_other_byte_order": array(np.ones((4, 8), ">f4")),
    "of_no_samples": array(np.ones((0, 8), np.float32)),
    "of_a_huge_empty_shape": header(f"(0, {1 << 62})"),
    "of_an_overflowing_empty_shape": header(f"(0, {1 << 62}, {1 << 62})"),
    "of_no_axes": array(np.float32(1)),
    "of_many_axes": array(np.ones((1,) * 32, np.float32)),
    "of_a_huge_type": header("(1,)", "V2147483647"),
    "of_a_type_of_nothing": header("(1099511627776,)", "V0"),
    "of_texts_of_no_length": header("(1099511627776,)", "U0"),
    "of_a_version_that_there_is_not": b"\x93NUMPY\x09\x00" + X[8:],
    "of_a_header_without_end": b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFFF) + b" " * 1000,
    "of_a_deep_header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"(" * 9000,
    "of_a_header_of_a_huge_number": b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"9" * 9000,
    "of_a_shape_that_is_true": header("(True, 8)") + bytes(32),
    "of_a_shape_of_texts": header("('a',)"),
}.items():

    def build(folder, described=described):
        npz(folder, **{"x.npy": described, "labels.npy": LABELS})

    build.__name__ = f"data_{name}"
    written("", *EVALUATE)(build)

for name, labels in {
    "that_are_negative": np.full(4, -(1 << 62)),
    "that_are_unsigned": np.full(4, (1 << 64) - 1, np.uint64),
    "that_are_nan": np.full((4, 5), np.nan, np.float32),
    "that_are_infinite": np.full((4, 5), np.inf, np.float32),
    "that_are_truths": np.ones(4, bool),
    "of_many_axes": np.zeros((4,) + (1,) * 30, int),
    "of_other_samples": np.zeros(3, int),
    "that_are_huge_values": np.full((4, 5), 1e300),
}.items():

    def build(folder, labels=labels):
        npz(folder, **{"x.npy": X, "labels.npy": array(labels)})

    build.__name__ = f"labels_{name}"
    written("", *EVALUATE)(build)


@written("error: ", *EVALUATE)
def data_of_a_quine_of_members(folder):
    """Members that overlap: every entry of the directory points at one deflated stretch."""
    zipped(folder, header("(1048576,)"), 1 << 22)
    content = (folder / "d.npz").read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    count = 60_000
    closing = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count & 0xFFFFFFFF, start, 0)
    (folder / "d.npz").write_bytes(content[:start] + entry * count + closing)


@written("error: ", *EVALUATE)
def data_that_say_less_than_they_unfold_to(folder):
    """The directory says that a bomb is small."""
    zipped(folder, header(f"({200 << 20}, 1)"), 800 << 20)
    content = bytearray((folder / "d.npz").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 4096)
    (folder / "d.npz").write_bytes(content)


@written("error: ", *EVALUATE)
def data_of_another_compression(folder):
    content = bytearray()
    npz(folder, **{"x.npy": X, "labels.npy": LABELS})
    content += (folder / "d.npz").read_bytes()
    at = content.index(b"PK\x01\x02")
    content[at + 10 : at + 12] = struct.pack("<H", 99)
    (folder / "d.npz").write_bytes(content)


@written("error: ", *EVALUATE)
def data_under_a_password(folder):
    npz(folder, **{"x.npy": X, "labels.npy": LABELS})
    content = bytearray((folder / "d.npz").read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = content.index(mark) + at
        content[place] |= 1
    (folder / "d.npz").write_bytes(content)


@written("error: ", *EVALUATE)
def data_of_a_wrong_checksum(folder):
    npz(folder, **{"x.npy": X, "labels.npy": LABELS})
    content = (folder / "d.npz").read_bytes()
    (folder / "d.npz").write_bytes(content.replace(np.ones(4, np.float32).tobytes(), bytes(16), 1))


@written("error: ", *EVALUATE)
def data_that_may_not_be_read_at_all(folder):
    (folder / "d.npz").mkdir()
    (folder / "d.npz").chmod(0)


for flag in ("--inputs", "--calibrate"):
    verb = ("inspect", "base.onnx") if flag == "--inputs" else ("compress", "base.onnx", "-o", "out.onnx")
    for name, described in {
        "nan": np.full((4, 8), np.nan, np.float32),
        "infinite_numbers": np.full((4, 8), np.inf, np.float32),
        "huge_numbers": np.full((4, 8), 3e38, np.float32),
        "zeros": np.zeros((4, 8), np.float32),
        "one_sample": np.ones((1, 8), np.float32),
        "another_shape": np.ones((4, 9), np.float32),
        "texts": np.full((4, 8), "a"),
    }.items():

        def build(folder, described=described):
            np.savez(folder / "d.npz", x=described)

        build.__name__ = f"{flag[2:]}_of_{name}"
        written("", *verb, flag, "d.npz")(build)


# --- weights of modules -------------------------------------------------------------------------------------------

MODULE = ("inspect", "net:net", "--input-shape", "x:1,8", "--weights")


def safetensors(folder, head: object, content: bytes = b"", size: int | None = None) -> None:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    (folder / "net.py").write_text(NET)
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + content)


def entry(start: int = 0, end: int = 24, shape=(6,), kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}


HEADS: dict[str, tuple[object, bytes, int | None]] = {
    "of_a_header_without_end": ({}, b"", 1 << 62),
    "of_a_header_of_most": ({}, b"", (1 << 64) - 1),
    "of_a_header_that_is_deep": (b"[" * 100_000, b"", None),
    "of_a_header_that_is_no_text": (b"\xff\xfe{}", b"", None),
    "of_a_header_of_a_list": ([], b"", None),
    "of_a_huge_shape": ({"a": entry(shape=(1 << 62, 1 << 62))}, bytes(24), None),
    "of_a_negative_shape": ({"a": entry(shape=(-6,))}, bytes(24), None),
    "of_offsets_in_reverse": ({"a": entry(24, 0)}, bytes(24), None),
    "of_offsets_that_are_negative": ({"a": entry(-24, 0)}, bytes(24), None),
    "of_offsets_beyond_the_end": ({"a": entry(0, 1 << 62)}, bytes(24), None),
    "of_tensors_that_overlap": ({"a": entry(), "b": entry()}, bytes(24), None),
    "of_tensors_with_holes": ({"a": entry(), "b": entry(48, 72)}, bytes(72), None),
    "of_an_unknown_type": ({"a": entry(kind="\x1b[31m")}, bytes(24), None),
    "of_one_name_twice": (b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},' * 2 + b'"b":1}', bytes(24), None),
    "of_names_with_escapes": ({"\x1b[31m\n": entry()}, bytes(24), None),
    "of_notes_that_are_no_texts": ({"__metadata__": {"a": 1}, "a": entry()}, bytes(24), None),
    "of_many_tensors": ({f"t{i}": entry(0, 0, (0,)) for i in range(200_000)}, b"", None),
    "of_one_number": ({"0.bias": entry(0, 4, ())}, bytes(4), None),
}
for name, (head, content, size) in HEADS.items():

    def build(folder, head=head, content=content, size=size):
        safetensors(folder, head, content, size)

    build.__name__ = f"weights_{name}"
    written("error: ", *MODULE, "w.safetensors")(build)


@written("error: ", *MODULE, "w.safetensors")
def weights_that_are_a_pipe(folder):
    (folder / "net.py").write_text(NET)
    os.mkfifo(folder / "w.safetensors")


@written("error: ", *MODULE, "/dev/zero")
def weights_without_an_end(folder):
    (folder / "net.py").write_text(NET)


@written("error: ", *MODULE, "w.pt")
def weights_that_are_an_old_pipe(folder):
    (folder / "net.py").write_text(NET)
    os.mkfifo(folder / "w.pt")


@written("error: ", *MODULE, "w.pt")
def weights_that_are_a_folder(folder):
    (folder / "net.py").write_text(NET)
    (folder / "w.pt").mkdir()


@written("error: ", *MODULE, "w.pt")
def weights_of_50_gib(folder):
    (folder / "net.py").write_text(NET)
    with (folder / "w.pt").open("wb") as file:
        file.truncate(50 << 30)


@written("error: ", *MODULE, "w.pt")
def weights_that_are_a_pickle(folder):
    (folder / "net.py").write_text(NET)
    (folder / "w.pt").write_bytes(pickle.dumps(Payload()))


@written("error: ", *MODULE, "w.pt")
def weights_that_are_a_pickle_in_an_archive(folder):
    torch_archive(folder, pickle.dumps(Payload(), 2))


@written("error: ", *MODULE, "w.pt")
def weights_that_are_a_program(folder):
    torch_archive(folder, b"\x80\x02}.", **{"code/__torch__.py": b"import os\nos.system('touch pwned')\n"})


def torch_archive(folder, pickled: bytes, **members: bytes) -> None:
    (folder / "net.py").write_text(NET)
    with zipfile.ZipFile(folder / "w.pt", "w") as archive:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", **members}.items():
            archive.writestr(f"archive/{name}", content)


def pickled_tensor(size: int) -> bytes:
    """How torch pickles a tensor of so many numbers in the storage 0."""
    count = b"\x8a\x08" + struct.pack("<q", size)
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQK\x00" + count + b"\x85K\x01\x85\x89ccollections\n"
        b"OrderedDict\n)RtRs."
    )


@written("error: ", *MODULE, "w.pt")
def weights_of_more_than_is_there(folder):
    torch_archive(folder, pickled_tensor(1 << 40), **{"data/0": bytes(24)})


@written("error: ", *MODULE, "w.pt")
def weights_of_a_negative_size(folder):
    torch_archive(folder, pickled_tensor(-6), **{"data/0": bytes(24)})


@written("error: ", *MODULE, "w.pt")
def weights_that_unfold(folder):
    (folder / "net.py").write_text(NET)
    with zipfile.ZipFile(folder / "w.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickled_tensor(1 << 28))
        archive.writestr("archive/version", b"3\n")
        with archive.open("archive/data/0", "w", force_zip64=True) as file:
            for _ in range(1 << 10):
                file.write(bytes(1 << 20))


@written("error: ", *MODULE, "w.pt")
def weights_pickled_without_end(folder):
    """Each list holds the one before twice: repeated, not copied, until somebody prints it."""
    torch_archive(folder, b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 200 + b".")


@written("error: ", *MODULE, "w.pt")
def weights_of_a_huge_list(folder):
    torch_archive(folder, b"\x80\x02" + b"(" * 5_000_000 + b".")


@written("error: ", "inspect", "net:no_net", "--input-shape", "x:1,8")
def a_factory_that_raises_escapes(folder):
    (folder / "net.py").write_text(NET)


@written("error: ", "inspect", "net:missing\u202e", "--input-shape", "x:1,8")
def a_factory_that_there_is_not(folder):
    (folder / "net.py").write_text(NET)


@written("error: ", "inspect", "m.pt2")
def a_program_of_torch(folder):
    with zipfile.ZipFile(folder / "m.pt2", "w") as archive:
        archive.writestr("models/model.json", "{" * 100_000)


@written("error: ", "inspect", "m.pth")
def a_checkpoint_given_as_a_model(folder):
    (folder / "m.pth").write_bytes(pickle.dumps(Payload()))
