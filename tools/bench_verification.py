"""What verifying large transformers takes: `python tools/bench_verification.py bert gpt2 llama`.

Graphs as exporters write them, made here with random weights in a file of external data: like BERT-base (12 blocks of
width 768, 12 heads, 110 M parameters), like GPT-2 small (124 M, one table for tokens and outputs) and like a Llama of
1.1 B (22 blocks of width 2048, 32 heads in 4 groups). Each is verified in a process of its own. Told are seconds for
loading, finding the groups (with the probe run) and verifying them, what processors spent on the latter, the runs of
the model or of a part of it, the most memory that the process held before and at all, pages of the model's file that
are mapped included, and the verdicts.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

TOKENS = 16


@dataclass(frozen=True)
class Kind:
    """The sizes of a transformer. `groups`: of how many heads the keys and values are."""

    blocks: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    groups: int = 0

    @property
    def length(self) -> int:
        """Units in a head."""
        return self.width // self.heads


KINDS = {
    "bert": Kind(12, 768, 12, 3072, 30_522),
    "gpt2": Kind(12, 768, 12, 3072, 50_257),
    "llama": Kind(22, 2048, 32, 5632, 32_000, 4),
}


@dataclass
class Writer:
    """A model that is written operator by operator, its weights straight to a file."""

    data: BinaryIO
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator; gives the name of its output, or the names of several."""
        names = [f"t{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, *shape: int, scale: float = 0.02, mean: float = 0.0) -> str:
        """Add a random weight, of external data."""
        values = mean + np.float32(scale) * self.rng.standard_normal(shape, np.float32)
        start = self.data.tell()
        self.data.write(values.astype(np.float32).tobytes())
        proto = TensorProto(name=f"w{len(self.weights)}", data_type=TensorProto.FLOAT, dims=shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", Path(self.data.name).name), ("offset", start), ("length", values.nbytes)):
            proto.external_data.add(key=key, value=str(value))
        self.weights.append(proto)
        return proto.name

    def constant(self, values: Any) -> str:
        """Add a small constant."""
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(values), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def linear(self, x: str, units_in: int, units: int, *, bias: bool = True) -> str:
        x = self.op("MatMul", x, self.weight(units_in, units))
        return self.op("Add", self.weight(units), x) if bias else x

    def layer_norm(self, x: str, width: int) -> str:
        scale, shift = self.weight(width, mean=1.0), self.weight(width)
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def rms_norm(self, x: str, width: int) -> str:
        """Written out, as exporters do."""
        square = self.op("Pow", x, self.constant(np.float32(2)))
        power = self.op("ReduceMean", square, self.constant([-1]), keepdims=1)
        root = self.op("Sqrt", self.op("Add", power, self.constant(np.float32(1e-6))))
        return self.op("Mul", self.weight(width, mean=1.0), self.op("Div", x, root))

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Div", x, self.constant(np.float32(np.sqrt(2)))))
        both = self.op("Mul", x, self.op("Add", erf, self.constant(np.float32(1))))
        return self.op("Mul", both, self.constant(np.float32(0.5)))

    def split_heads(self, x: str, heads: int, length: int, perm: Sequence[int] = (0, 2, 1, 3)) -> str:
        return self.op("Transpose", self.op("Reshape", x, self.constant([0, -1, heads, length])), perm=list(perm))

    def attend(self, query: str, key: str, value: str, kind: Kind, mask: str = "") -> str:
        """Attention; `key` is transposed already."""
        scores = self.op("Div", self.op("MatMul", query, key), self.constant(np.float32(np.sqrt(kind.length))))
        shares = self.op("Softmax", self.op("Add", scores, mask) if mask else scores, axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", shares, value), perm=[0, 2, 1, 3])
        return self.op("Reshape", mixed, self.constant([0, -1, kind.width]))

    def causal_mask(self) -> str:
        return self.constant(np.triu(np.full((1, 1, TOKENS, TOKENS), -1e4, np.float32), 1))

    def self_attention(self, x: str, kind: Kind, mask: str = "", joined: bool = False) -> str:
        width, heads, length = kind.width, kind.heads, kind.length
        if joined:
            parts = self.op("Split", self.linear(x, width, 3 * width), outputs=3, axis=-1, num_outputs=3)
        else:
            parts = [self.linear(x, width, width) for _ in range(3)]
        perms = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        query, key, value = (self.split_heads(one, heads, length, p) for one, p in zip(parts, perms, strict=True))
        return self.linear(self.attend(query, key, value, kind, mask), width, width)

    def rotated(self, x: str, length: int, cos: str, sin: str) -> str:
        half, last = self.constant([length // 2]), self.constant([-1])
        first = self.op("Slice", x, self.constant([0]), half, last)
        second = self.op("Slice", x, half, self.constant([length]), last)
        turned = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, cos), self.op("Mul", turned, sin))

    def grouped_attention(self, x: str, kind: Kind, mask: str, cos: str, sin: str) -> str:
        width, heads, length, groups = kind.width, kind.heads, kind.length, kind.groups
        query, key, value = (
            self.split_heads(self.linear(x, width, count * length, bias=False), count, length)
            for count in (heads, groups, groups)
        )
        query, key = (self.rotated(one, length, cos, sin) for one in (query, key))
        shape = self.constant([1, groups, heads // groups, TOKENS, length])
        whole = self.constant([1, heads, TOKENS, length])
        key, value = (
            self.op("Reshape", self.op("Expand", self.op("Unsqueeze", one, self.constant([2])), shape), whole)
            for one in (key, value)
        )
        mixed = self.attend(query, self.op("Transpose", key, perm=[0, 1, 3, 2]), value, kind, mask)
        return self.linear(mixed, width, width, bias=False)


def write_bert(writer: Writer, kind: Kind) -> str:
    words = writer.op("Gather", writer.weight(kind.vocabulary, kind.width), "ids")
    x = writer.layer_norm(writer.op("Add", words, writer.weight(1, TOKENS, kind.width)), kind.width)
    for _ in range(kind.blocks):
        x = writer.layer_norm(writer.op("Add", writer.self_attention(x, kind), x), kind.width)
        inner = writer.linear(writer.gelu(writer.linear(x, kind.width, kind.hidden)), kind.hidden, kind.width)
        x = writer.layer_norm(writer.op("Add", inner, x), kind.width)
    first = writer.op("Gather", x, writer.constant(0), axis=1)
    return str(writer.linear(writer.op("Tanh", writer.linear(first, kind.width, kind.width)), kind.width, 2))


def write_gpt2(writer: Writer, kind: Kind) -> str:
    table, mask = writer.weight(kind.vocabulary, kind.width), writer.causal_mask()
    x = writer.op("Add", writer.op("Gather", table, "ids"), writer.weight(1, TOKENS, kind.width))
    for _ in range(kind.blocks):
        y = writer.self_attention(writer.layer_norm(x, kind.width), kind, mask, joined=True)
        x = writer.op("Add", x, y)
        y = writer.linear(writer.layer_norm(x, kind.width), kind.width, kind.hidden)
        x = writer.op("Add", x, writer.linear(writer.gelu(y), kind.hidden, kind.width))
    x = writer.layer_norm(x, kind.width)
    return str(writer.op("MatMul", x, writer.op("Transpose", table, perm=[1, 0])))


def write_llama(writer: Writer, kind: Kind) -> str:
    mask, x = writer.causal_mask(), writer.op("Gather", writer.weight(kind.vocabulary, kind.width), "ids")
    angles = np.outer(np.arange(TOKENS), 1e4 ** (-np.arange(0, kind.length, 2) / kind.length))
    cos, sin = (writer.constant(np.tile(turn(angles), 2).astype(np.float32)) for turn in (np.cos, np.sin))
    for _ in range(kind.blocks):
        y = writer.grouped_attention(writer.rms_norm(x, kind.width), kind, mask, cos, sin)
        x = writer.op("Add", x, y)
        y = writer.rms_norm(x, kind.width)
        gate = writer.linear(y, kind.width, kind.hidden, bias=False)
        gate = writer.op("Mul", gate, writer.op("Sigmoid", gate))
        y = writer.op("Mul", gate, writer.linear(y, kind.width, kind.hidden, bias=False))
        x = writer.op("Add", x, writer.linear(y, kind.hidden, kind.width, bias=False))
    return writer.linear(writer.rms_norm(x, kind.width), kind.width, kind.vocabulary, bias=False)


WRITERS = {"bert": write_bert, "gpt2": write_gpt2, "llama": write_llama}


def write(name: str, kind: Kind, folder: Path) -> Path:
    """A model in a file, with its weights beside it."""
    path = folder / f"{name}.onnx"
    with (folder / f"{name}.data").open("wb") as data:
        writer = Writer(data)
        out = WRITERS[name](writer, kind)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, (1, TOKENS))],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        writer.weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


class Counting:
    """A runner that counts the runs of its sessions."""

    def __init__(self, runner: Any) -> None:
        self.runner, self.runs = runner, 0

    def open(self, graph: Any, **options: Any) -> Any:
        session, counter = self.runner.open(graph, **options), self

        class Session:
            types = session.types

            def run(self, *given: Any, **more: Any) -> Any:
                counter.runs += 1
                return session.run(*given, **more)

        return Session()


def peak() -> int:
    """The most bytes that this process held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(path: Path) -> dict[str, Any]:
    """What verifying one file takes in this process."""
    import mal_graph
    from mal_graph import registry
    from mal_graph.symmetry import axis_groups, verify

    began = perf_counter()
    graph = mal_graph.load(str(path))
    loaded = perf_counter()
    groups = axis_groups(graph)
    grouped, used, before = perf_counter(), process_time(), peak()
    runner = Counting(registry.runner())
    judged = verify(graph, groups, runner)
    ended, spent = perf_counter(), process_time() - used
    told = Counter(str(judged.groups[i].state) for i in groups.usable())
    why = Counter(judged.groups[i].reason for i in groups.usable() if judged.groups[i].reason)
    return {
        "parameters": sum(weight.size for weight in graph.weights.values()),
        "bytes": sum(weight.nbytes for weight in graph.weights.values()),
        "seconds": [loaded - began, grouped - loaded, ended - grouped],
        "spent": spent,
        "runs": runner.runs,
        "peak": [before, peak()],
        "verdicts": told,
        "why": why,
    }


def row(name: str, made: Mapping[str, Any]) -> str:
    """One line of the table."""
    loading, grouping, verifying = made["seconds"]
    verdicts = ", ".join(f"{count} {state}" for state, count in made["verdicts"].items())
    size, (before, most) = made["bytes"], made["peak"]
    share = f"{(most - 500e6) / size:.2f}"
    return (
        f"| {name} | {made['parameters'] / 1e6:.0f} M | {loading:.1f} s | {grouping:.1f} s | {verifying:.1f} s "
        f"| {made['spent']:.1f} s | {made['runs']} | {before / 1e9:.2f} GB | {most / 1e9:.2f} GB | {share} "
        f"| {verdicts} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["bert", "gpt2"], help=", ".join(KINDS))
    parser.add_argument("--blocks", type=int, help="instead of the number the model has")
    parser.add_argument("--folder", type=Path, help="where models are written, and used again if they are there")
    parser.add_argument("--measure", type=Path, help="measure this file here, and print JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    print("| model | parameters | load | groups | verify | CPU | runs | before | most | (most - 500 MB) / model | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.names:
            kind = KINDS[name] if options.blocks is None else replace(KINDS[name], blocks=options.blocks)
            folder = (options.folder or Path(temporary)) / f"{name}-{kind.blocks}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.onnx"
            path = path if path.exists() else write(name, kind, folder)
            command = [sys.executable, __file__, "--measure", str(path)]
            told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            made = json.loads(told.splitlines()[-1])
            print(row(name, made), flush=True)
            for reason, count in made["why"].items():
                print(f"  {count} x {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
