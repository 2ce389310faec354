"""Modules of torch whose factory, code or weights are not what they should be, and data of wrong names and shapes."""

import pickle
import struct

import numpy as np

from crafted.archives import MODULE, entry, safetensors, torch_archive
from crafted.kind import written
from crafted.names import ESCAPE

SHAPES = {"0.weight": (6, 8), "0.bias": (6,), "2.weight": (5, 6), "2.bias": (5,)}  # of the net of `archives`


def state(folder, kind: str = "F32", width: int = 4, **changed: tuple[int, ...] | None) -> None:
    """Weights of a net as safetensors; some of another shape, some left out, some more."""
    held, start = {}, 0
    for name, shape in {**SHAPES, **changed}.items():
        if shape is not None:
            end = start + width * int(np.prod(shape))
            held[name] = entry(start, end, shape, kind)
            start = end
    safetensors(folder, held, bytes(start))


STATES = {
    "of_another_shape": lambda folder: state(folder, **{"0.weight": (8, 6)}),
    "of_other_axes": lambda folder: state(folder, **{"0.weight": (48,)}),
    "that_lack_one": lambda folder: state(folder, **{"2.bias": None}),
    "that_have_one_more": lambda folder: state(folder, **{ESCAPE: (3,)}),
    "that_are_whole_numbers": lambda folder: state(folder, "I64", 8),
    "that_are_truths": lambda folder: state(folder, "BOOL", 1),
    "that_are_doubles": lambda folder: state(folder, "F64", 8),
    "of_half_precision": lambda folder: state(folder, "BF16", 2),
    "of_eight_bits": lambda folder: state(folder, "F8_E4M3", 1),
    "that_are_nothing": lambda folder: safetensors(folder, {}),
    "that_are_an_empty_file": lambda folder: safetensors(folder, b"", b"", 0),
}
for name, put in STATES.items():

    def build(folder, put=put):
        put(folder)

    build.__name__ = f"weights_of_a_module_{name}"
    written("", *MODULE, "w.safetensors")(build)


def stretched(size: int, stride: int) -> bytes:
    """How torch pickles a state of one tensor of so many numbers, so far from each other, in a storage of one."""
    count, step = (b"\x8a\x08" + struct.pack("<q", number) for number in (size, stride))
    return (
        b"\x80\x02}X\x08\x00\x00\x000.weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
        b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00" + count + b"\x85" + step + b"\x85\x89"
        b"ccollections\nOrderedDict\n)RtRs."
    )


for name, pickled in {
    "that_is_one_number_stretched": stretched(1 << 40, 0),
    "of_negative_steps": stretched(6, -1),
    "of_huge_steps": stretched(2, 1 << 60),
}.items():

    def build(folder, pickled=pickled):
        torch_archive(folder, pickled, **{"data/0": bytes(4)})

    build.__name__ = f"a_tensor_of_torch_{name}"
    written("error: ", *MODULE, "w.pt")(build)

for name, content in {
    "that_is_a_list": pickle.dumps([1, 2], 2),
    "that_is_a_number": pickle.dumps(7, 2),
    "that_is_nothing": pickle.dumps(None, 2),
    "of_texts": pickle.dumps({"0.weight": "\x1b[31m"}, 2),
    "of_lists": pickle.dumps({"0.weight": [1.0] * 48}, 2),
    "of_numbers_as_names": pickle.dumps({1: 2.0}, 2),
    "of_states_in_states": pickle.dumps({"state_dict": {"state_dict": {}}}, 2),
}.items():

    def build(folder, content=content):
        torch_archive(folder, content)

    build.__name__ = f"a_state_of_torch_{name}"
    written("error: ", *MODULE, "w.pt")(build)

CODE = {
    "that_makes_nothing": "def net():\n    return None\n",
    "that_makes_a_number": "def net():\n    return 7\n",
    "that_makes_a_class": "import torch\nnet = torch.nn.Linear\n",
    "that_is_no_function": "net = 7\n",
    "that_needs_more": "def net(a, b):\n    return a\n",
    "that_ends_all": "import sys\ndef net():\n    sys.exit('\\x1b[31m')\n",
    "that_calls_itself": "def net():\n    return net()\n",
    "whose_file_is_broken": "def net(:\n",
    "whose_file_raises": "raise RuntimeError('\\x1b[31m\\nerror: forged')\n",
    "whose_file_ends_all": "raise SystemExit(3)\n",
    "whose_file_is_no_text": "\udcff",
    "whose_module_raises": "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
    "        raise ValueError('\\x1b[31m\\nforged')\ndef net():\n    return Net()\n",
    "whose_module_gives_nothing": "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
    "        return None\ndef net():\n    return Net()\n",
    "whose_module_gives_texts": "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
    "        return '\\x1b[31m'\ndef net():\n    return Net()\n",
    "whose_module_takes_more": "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x, y, z):\n"
    "        return x\ndef net():\n    return Net()\n",
    "whose_module_is_named_by_escapes": "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
    "        return self.a(x)\ndef net():\n    made = Net()\n    made.a = torch.nn.Linear(8, 4)\n"
    "    made.register_parameter('\\x1b[31m\\n', torch.nn.Parameter(torch.ones(3)))\n    return made\n",
    "whose_weights_are_no_numbers": "import torch\ndef net():\n    made = torch.nn.Linear(8, 4)\n"
    "    made.weight.data.fill_(float('nan'))\n    return made\n",
    "whose_weights_are_nowhere": "import torch\ndef net():\n    return torch.nn.Linear(8, 4, device='meta')\n",
}
for name, code in CODE.items():

    def build(folder, code=code):
        (folder / "odd_net.py").write_bytes(code.encode(errors="surrogateescape"))

    build.__name__ = f"a_factory_{name}"
    written("", "inspect", "odd_net:net", "--input-shape", "x:1,8")(build)

TARGETS = ("odd_net", "odd_net:", ":net", "odd_net:net:net", "../odd_net:net", "odd_net:net()", "odd_net.net:net")
for target in (*TARGETS, "os:getcwd", "a" * 9000 + ":b", "odd_net:__builtins__", "\x1b[31m:net"):

    def build(folder):
        (folder / "odd_net.py").write_text(CODE["that_makes_nothing"])

    name = "".join(letter if letter.isalnum() else "_" for letter in target[:20])
    build.__name__ = f"a_factory_called_{name}_{len(target)}"
    written("error: ", "inspect", target, "--input-shape", "x:1,8")(build)


# --- data ---------------------------------------------------------------------------------------------------------

X, LABELS = np.zeros((6, 8), np.float32), np.zeros(6, int)
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "of_labels_alone": {"labels": LABELS},
    "without_labels": {"x": X},
    "of_other_names": {"a": X, "b": X, "labels": LABELS},
    "named_by_escapes": {ESCAPE: X, "labels": LABELS},
    "named_by_a_path": {"../../victim": X, "labels": LABELS},
    "of_one_feature_more": {"x": np.zeros((6, 9), np.float32), "labels": LABELS},
    "of_one_axis_more": {"x": X[:, :, None], "labels": LABELS},
    "of_one_axis_less": {"x": X[0], "labels": LABELS},
    "of_whole_numbers": {"x": X.astype(np.int64), "labels": LABELS},
    "of_truths": {"x": X.astype(bool), "labels": LABELS},
    "of_bytes": {"x": X.astype("S3"), "labels": LABELS},
    "of_times": {"x": X.astype("m8[s]"), "labels": LABELS},
    "of_halves_without_end": {"x": np.full((6, 8), np.inf, np.float16), "labels": LABELS},
    "of_many_more_samples": {"x": X, "labels": np.zeros(100_000, int)},
    "of_labels_that_are_texts": {"x": X, "labels": np.full(6, "\x1b[31m")},
    "of_labels_that_are_times": {"x": X, "labels": LABELS.astype("M8[s]")},
    "of_labels_that_are_complex": {"x": X, "labels": LABELS.astype(complex)},
    "of_labels_of_no_sample": {"x": X, "labels": LABELS[:0]},
    "of_a_label_without_axes": {"x": X, "labels": np.array(0)},
    "of_labels_that_are_fractions": {"x": X, "labels": np.full(6, 0.5)},
    "of_rows_of_labels": {"x": X, "labels": np.zeros((6, 7), int)},
    "of_far_labels": {"x": X, "labels": np.full(6, 1 << 40)},
}
MERGE = ("assemble", "base.onnx", "base.onnx", "-o", "out.onnx", "--method", "linear")
FLAGS = {
    "data": ("evaluate", "base.onnx", "--data", "d.npz"),
    "calibration": ("compress", "base.onnx", "-o", "out.onnx", "--calibrate", "d.npz"),
    "calibration_of_each": (*MERGE, "--calibrate-of", "d.npz", "--calibrate-of", "d.npz"),
    "data_of_a_merge": (*MERGE, "--data", "d.npz"),
}
for flag, words in FLAGS.items():
    for name, arrays in ARRAYS.items():

        def build(folder, arrays=arrays):
            np.savez(folder / "d.npz", **arrays)

        build.__name__ = f"{flag}_{name}"
        written("", *words)(build)

for name, content in {
    "that_is_a_table": b"x,y\n1,2\n",
    "that_is_one_array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
    "that_is_a_page": b"<html>",
    "that_is_empty": b"",
    "of_no_arrays": b"PK\x05\x06" + bytes(18),
}.items():

    def build(folder, content=content):
        (folder / "d.npz").write_bytes(content)

    build.__name__ = f"data_file_{name}"
    written("error: ", "evaluate", "base.onnx", "--data", "d.npz")(build)
