"""What is mapped of files: at most so many bytes of what was read last."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from builders import correspondence_of, mlp, save
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching import assign_units
from mal_graph_adapters.onnx_format import file as onnx_file
from mal_graph_adapters.onnx_format import stored_values
from mal_graph_adapters.onnx_format.mapped_pages import MappedPages

MIB = 2**20
AROUND = MIB  # bytes that the system may map before and behind what is touched


def tensors_in(folder):
    """16 tensors of 1 MiB each, not mapped yet."""
    path = Path(folder, "data")
    np.arange(16 * MIB // 4, dtype=np.float32).tofile(path)
    kind, shape = ir.DataType.FLOAT, ir.Shape([MIB // 4])
    return [
        ir.ExternalTensor("data", i * MIB, MIB, kind, name=f"w{i}", shape=shape, base_dir=folder) for i in range(16)
    ]


def mapped(path):
    """Bytes of a file that are in this process's memory."""
    parts = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    sizes = (re.search(r"\nRss: +(\d+) kB", part) for part in parts if str(path) in part.partition("\n")[0])
    return sum(int(size[1]) * 1024 for size in sizes if size)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40), st.integers(1, 6))
def test_no_more_is_mapped_than_what_was_read_last(order, most):
    with TemporaryDirectory() as folder:
        pages, tensors = MappedPages(most * MIB), tensors_in(folder)
        for i in order:
            values = tensors[i].numpy()
            pages.note(tensors[i])
            assert np.array_equal(values, np.arange(i * MIB // 4, (i + 1) * MIB // 4, dtype=np.float32))
            assert mapped(folder) <= most * (MIB + 2 * AROUND)


def test_tensors_that_are_gone_are_no_matter(tmp_path):
    pages, tensors = MappedPages(2 * MIB), tensors_in(tmp_path)
    for i in range(16):
        tensors[0].numpy()
        pages.note(tensors.pop(0))
        assert pages.held <= 2 * MIB
        assert len(pages.tensors) == min(i + 1, 2)


def test_an_alignment_does_not_depend_on_what_stays_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_FROM", 0)
    graphs = [mal_graph.load(save(mlp((64, 96, 80, 10), seed), tmp_path / f"m{seed}.onnx")) for seed in (0, 1)]
    expected = assign_units(correspondence_of(*graphs))
    monkeypatch.setattr(stored_values, "PAGES", MappedPages(1))
    found = assign_units(correspondence_of(*graphs))
    assert len(stored_values.PAGES.tensors) == 1
    assert found.objective == expected.objective
    assert all(map(np.array_equal, found.orders, expected.orders))
