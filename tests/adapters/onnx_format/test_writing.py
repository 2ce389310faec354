"""Writing in one pass: neither boxes nor cores change what is written, and a larger model takes no more memory."""

import gc
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import mlp, save

import mal_graph
from mal_graph import boxes, half_numbers
from mal_graph.matching import assign_at_random, correspond, match_layers
from mal_graph.matching.correspondence import check_finite
from mal_graph.merging import LayerLambdas, merge, plan_merge
from mal_graph.symmetry import Network, axis_groups
from mal_graph_adapters.onnx_format import data_files, stored_values, writing
from mal_graph_adapters.onnx_format import file as onnx_file
from mal_graph_adapters.onnx_format.digests import Written, data_digest
from mal_graph_adapters.onnx_format.document import release_memory

MIB = 2**20
WIDTH = 128  # a layer is 64 KiB
STYLES = ("gemm", "matmul")  # rows are output units, or input units


@pytest.fixture(autouse=True)
def _data_beside(monkeypatch):
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_FROM", 0)


def pair(folder, depth=3, styles=("gemm", "gemm"), width=WIDTH):
    """Two files with data beside them, loaded."""
    nets = [mlp((8, *[width] * depth, 5), seed, style) for seed, style in enumerate(styles)]
    return [mal_graph.load(save(net, folder / f"m{seed}.onnx")) for seed, net in enumerate(nets)]


def merged(base, donor):
    correspondence = correspond(
        Network(base, axis_groups(base)), Network(donor, axis_groups(donor)), match_layers(base, donor)
    )
    return merge(plan_merge(assign_at_random(correspondence, 0), LayerLambdas.of(0.3)))


def content(graph, path):
    """The files that saving a graph makes, by name; they are removed."""
    save(graph, path)
    files = {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
    for name in files:
        (path.parent / name).unlink()
    return files


@pytest.mark.parametrize("styles", [(a, b) for a in STYLES for b in STYLES])
def test_what_is_written_depends_neither_on_boxes_nor_on_cores(tmp_path, monkeypatch, styles):
    graph = merged(*pair(tmp_path, styles=styles))
    monkeypatch.setattr(writing, "usable_cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    first = content(graph, tmp_path / "out.onnx")
    values = {name: weight.read().tobytes() for name, weight in graph.weights.items()}
    for cores, most, rows in ((2, 10_000, 2**23), (2, 1000, 10_000), (1, 3000, 5000)):
        monkeypatch.setattr(writing, "usable_cores", lambda cores=cores: cores)
        monkeypatch.setattr(boxes, "MOST", most)
        monkeypatch.setattr(stored_values, "LOOKED_THROUGH", rows)
        assert content(graph, tmp_path / "out.onnx") == first
    assert {name: weight.read().tobytes() for name, weight in graph.weights.items()} == values


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("styles", [(a, b) for a in STYLES for b in STYLES])
def test_what_is_written_depends_on_no_fast_way(tmp_path, monkeypatch, styles, dtype):
    """Rows read by calls or mapped, and conversions by operations on many numbers or by numpy's own."""
    nets = [mlp((8, WIDTH, WIDTH, 5), seed, style, dtype=dtype) for seed, style in enumerate(styles)]
    graph = merged(*[mal_graph.load(save(net, tmp_path / f"m{seed}.onnx")) for seed, net in enumerate(nets)])
    monkeypatch.setattr(stored_values, "SHORT", 1)
    fast, calls = content(graph, tmp_path / "out.onnx"), []
    fill = stored_values.FileBoxes.fill
    monkeypatch.setattr(stored_values.FileBoxes, "fill", lambda *where: calls.append(1) or fill(*where))
    assert content(graph, tmp_path / "out.onnx") == fast
    assert len(calls) > WIDTH
    monkeypatch.setattr(half_numbers, "FEW", 2**40)
    assert content(graph, tmp_path / "out.onnx") == fast
    calls.clear()
    monkeypatch.setattr(stored_values, "reopened", lambda _: None)
    assert content(graph, tmp_path / "out.onnx") == fast
    assert not calls


def test_values_are_those_of_the_file_that_was_opened_though_another_has_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_values, "SHORT", 1)
    base, donor = pair(tmp_path)
    graph, (data,) = merged(base, donor), tmp_path.glob("m1.onnx.*.data")
    first = content(graph, tmp_path / "out.onnx")
    data.rename(tmp_path / "elsewhere")
    data.write_bytes(bytes((tmp_path / "elsewhere").stat().st_size))
    assert content(graph, tmp_path / "out.onnx") == first


@pytest.mark.parametrize("styles", [("gemm", "gemm"), ("gemm", "matmul")])
def test_writing_takes_as_much_memory_for_four_times_the_model(tmp_path, monkeypatch, styles):
    """What is allocated while writing, and what of the files stays mapped; a tensor alone is more than the bound."""
    monkeypatch.setattr(boxes, "MOST", 128)
    monkeypatch.setattr(stored_values, "LOOKED_THROUGH", 4096)
    peaks = []
    for depth in (3, 12):
        folder = tmp_path / str(depth)
        folder.mkdir()
        graph, size = merged(*pair(folder, depth, styles)), depth * WIDTH * WIDTH * 4
        tensors = sorted(graph.edited)
        target = folder / "values"
        handles = [onnx_file.edited_model(graph).graph.initializers[name].const_value for name in tensors]
        release_memory()
        gc.collect()
        tracemalloc.start()
        writing.write_tensors(handles, target)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert target.stat().st_size > size - WIDTH * WIDTH * 4
        assert mapped_bytes(folder) == 0
    # Whole tensors would be three of 64 KiB at once; nine layers more may add what is noted of each tensor.
    assert peaks[1] < 3 * WIDTH * WIDTH * 4
    assert peaks[1] - peaks[0] < 2 * WIDTH * WIDTH * 4


def test_what_was_freed_before_is_given_back_before_anything_is_written(tmp_path, monkeypatch):
    """An allocator keeps what was freed as long as something behind it is in use."""
    graph, seen, write = merged(*pair(tmp_path)), [], onnx_file.write_model

    def seeing(*given):
        seen.append(private_bytes())
        write(*given)

    monkeypatch.setattr(onnx_file, "write_model", seeing)
    pieces = [bytearray(2**15) for _ in range(2000)]  # smaller than what an allocator maps by itself
    freed = sum(map(len, pieces[:-1]))
    del pieces[:-1]
    before = private_bytes()
    save(graph, tmp_path / "out.onnx")
    assert len(seen) == len(pieces) == 1
    assert seen[0] < before - freed / 2


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [((512, 5), (512, 65)), ((512, 5), (2048, 5))])
def test_what_a_process_holds_while_it_merges_and_saves_does_not_grow_with_the_model(tmp_path, sizes):
    """A model of 4 MiB and one of 64: what of the process is no part of a file, at most, over what it was before."""
    peaks = []
    for width, depth in sizes:
        folder = tmp_path / f"{width} {depth}"
        folder.mkdir()
        graph = merged(*pair(folder, depth, width=width))
        gc.collect()
        release_memory()  # what was freed is no part of what is held
        with watched() as most:
            save(graph, folder / "out.onnx")
        peaks.append(max(most) - most[0])
        assert sum(file.stat().st_size for file in folder.glob("out*")) > 4 * (depth - 1) * width**2
    assert max(peaks) < 12 * MIB  # less than the largest tensor, which has 16
    assert peaks[1] - peaks[0] < 8 * MIB


@contextmanager
def watched():
    """What this process holds, looked at every millisecond meanwhile."""
    most, is_done = [private_bytes()], threading.Event()

    def look():
        while not is_done.wait(0.001):
            most.append(private_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        is_done.set()
        thread.join()


def private_bytes():
    """What this process has in memory that is no part of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def mapped_bytes(folder):
    """How much of the data files in a folder is in the memory of this process."""
    held, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_ours = str(folder) in line and line.endswith(".data")
        elif is_ours and line.startswith("Rss:"):
            held += int(line.split()[1]) * 1024
    return held


def count_reads(monkeypatch, note):
    """Have each array noted that is read of a file, mapped or by calls; rows of it are read as a whole."""
    for name in ("copied", "read", "of_rows"):
        read = getattr(stored_values.FileBoxes, name)

        def noted(self, *where, read=read, is_rows=name == "of_rows"):
            chosen = read(self, *where)
            if not is_rows or not isinstance(where[0][0], slice):  # else `read` has noted it
                note(chosen)
            return chosen

        monkeypatch.setattr(stored_values.FileBoxes, name, noted)


@pytest.mark.parametrize("styles", [(a, b) for a in STYLES for b in STYLES])
def test_numbers_are_looked_at_in_the_order_in_which_they_lie_to_see_whether_they_are_finite(
    tmp_path, monkeypatch, styles
):
    """Counted work: a box of columns looks through all rows, a part of them at a time."""
    monkeypatch.setattr(boxes, "MOST", 128)
    monkeypatch.setattr(stored_values, "LOOKED_THROUGH", 4096)
    base, donor = pair(tmp_path, styles=styles)
    networks = Network(base, axis_groups(base)), Network(donor, axis_groups(donor))
    tensors = [tensor for tensor, _ in correspond(*networks, match_layers(base, donor)).tensors]
    read = []
    count_reads(monkeypatch, lambda chosen: read.append(chosen.size))
    for tensor in tensors:
        check_finite(tensor)
    assert 0 < sum(read) <= 2 * sum(tensor.base_values().size for tensor in tensors)
    assert len(read) <= 2 * sum(1 + tensor.base_values().size // 64 for tensor in tensors)


def test_every_number_is_read_once(tmp_path, monkeypatch):
    """Counted work: as many bytes of both models are read as they have."""
    read = []
    count_reads(monkeypatch, lambda chosen: read.append(chosen.nbytes))
    base, donor = pair(tmp_path)
    graph = merged(base, donor)
    read.clear()
    save(graph, tmp_path / "out.onnx")
    stored = [weight.nbytes for net in (base, donor) for weight in net.weights.values()]
    assert sum(read) == sum(nbytes for nbytes in stored if nbytes > data_files.EXTERNAL_TENSOR_FROM)


# --- digests ------------------------------------------------------------------------------------------------------


def test_a_data_digest_sees_every_byte_and_every_place(tmp_path):
    """Those of tensors by the tensors' own digests; the bytes between and behind them by themselves."""
    path = tmp_path / "data"
    path.write_bytes(bytes(range(40)))
    held = [Written(20, 10, "b"), Written(4, 8, "a")]
    digests = {data_digest(path, held), data_digest(path, [Written(20, 10, "c"), held[1]]), data_digest(path, held[:1])}
    for place in (0, 12, 19, 30, 39):
        changed = bytearray(range(40))
        changed[place] ^= 1
        path.write_bytes(changed)
        digests.add(data_digest(path, held))
    path.write_bytes(bytes(range(39)))
    assert len({*digests, data_digest(path, held)}) == 9
    path.write_bytes(bytes(range(40)))
    assert data_digest(path, held[::-1]) == data_digest(path, held)


def test_a_file_that_is_cut_off_while_it_is_written_from_is_named(tmp_path):
    base, donor = pair(tmp_path)
    graph = merged(base, donor)
    (data,) = tmp_path.glob("m1.onnx.*.data")
    with data.open("r+b") as file:
        file.truncate(WIDTH)
    with pytest.raises(mal_graph.errors.FileError, match=r"cannot read weight .* was cut off at 128 bytes"):
        save(graph, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("out.onnx*"))


def test_a_model_with_data_is_what_onnx_reads(tmp_path):
    graph = merged(*pair(tmp_path))
    read = onnx.load(save(graph, tmp_path / "out.onnx"))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in read.graph.initializer}
    assert all(np.array_equal(values[name], weight.read()) for name, weight in graph.weights.items())
