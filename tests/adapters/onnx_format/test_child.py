"""A process that runs models gives what this process would give, and its end is the end of nothing else."""

import os
import time

import numpy as np
import pytest
from builders import Net, cnn, load, mlp, save
from crafted.arithmetic import computed_division_of_the_least_number, division_of_the_least_number
from crafted.sizes import computed_square, loop_of_computed_trips, square
from onnx import TensorProto

from mal_graph import registry
from mal_graph.errors import LimitError, RunError
from mal_graph.limits import LEAST_MEMORY, Limits, limited
from mal_graph_adapters.onnx_format import libraries

X = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}


@pytest.fixture(scope="module")
def runner():
    with limited(Limits(timeout=5.0)):
        yield registry.runner()


def odd_values():
    """Outputs of every kind: floats in half, integers, truths, texts, nothing, a sequence."""
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 4)
    texts = net.op("Cast", net.op("Cast", x, to=TensorProto.INT64), to=TensorProto.STRING)
    return net.graph(
        net.op("Cast", x, to=TensorProto.FLOAT16),
        net.op("Greater", x, net.constant(np.float32(0))),
        net.op("Shape", x),
        net.op("Size", x),
        texts,
        net.op("Slice", x, net.constant([0]), net.constant([0])),
        net.op("SplitToSequence", x),
    )


def same(a, b):
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if a.dtype == object and not a.ndim:
        return same(a[()], b[()])
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


@pytest.mark.parametrize("make", [mlp, odd_values])
def test_a_child_gives_what_this_process_gives(runner, make):
    graph = make()
    ours, theirs = registry.runner("onnxruntime").open(graph), runner.open(graph)
    assert theirs.types == ours.types
    expected, values = ours.run(X), theirs.run(X)
    assert values.keys() == expected.keys()
    assert all(same(values[name], expected[name]) for name in expected)


def test_weights_are_fed_and_what_is_read_is_chosen(runner):
    graph = mlp()
    names, (last,) = list(graph.weights), [value.name for value in graph.outputs]
    session = runner.open(graph, read=[last, graph.nodes[0].outputs[0]], variable=names)
    weights = {name: weight.read() for name, weight in graph.weights.items()}
    (before,) = session.run(X, weights, read=[last]).values()
    (zero,) = session.run(X, {**weights, names[-1]: 0 * weights[names[-1]]}, read=[last]).values()
    (after,) = session.run(X, weights, read=[last]).values()
    assert np.array_equal(before, after)
    assert not np.array_equal(before, zero)


@pytest.mark.parametrize(
    ("make", "optimize", "reason"),
    [
        (division_of_the_least_number, True, r"net.onnx ended the process that ran it \(SIGFPE\): leave it out"),
        (
            computed_division_of_the_least_number,
            False,
            r"net.onnx ended the process that ran it \(SIGFPE\): leave it out",
        ),
        (computed_square, False, r"cannot run net.onnx: .*\(it may take 512 MiB: give more with `max_memory`\)"),
        (loop_of_computed_trips, False, "was not through after 0.5 seconds, which is all that it may take: give more"),
    ],
)
def test_a_model_that_crashes_hangs_or_takes_too_much_is_refused_and_others_go_on(make, optimize, reason):
    graph, bomb = mlp(), load(make(), "net")
    with limited(Limits(timeout=0.5) if make is loop_of_computed_trips else Limits()):
        session = registry.runner().open(graph)
        expected = session.run(X)
        began = time.monotonic()
        with pytest.raises(LimitError, match=reason):
            registry.runner().open(bomb, optimize=optimize).run(X)
        assert time.monotonic() - began < 5.0
        values = session.run(X)  # in the next process, where the first has ended
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


@pytest.fixture
def apart(monkeypatch):
    """Limits in force, in a process in which nothing of onnx may look at a file."""
    for name in ("check", "convert", "Evaluator"):
        monkeypatch.setattr(libraries, name, None)
    with limited(Limits(timeout=30.0)):
        yield


def test_the_checker_looks_at_files_in_the_child(apart, tmp_path):
    path = save(mlp(), tmp_path / "m[1].onnx")
    adapter = registry.adapter_for(path)
    assert [(check.name, check.passed) for check in adapter.check(path)] == [
        ("onnx_checker", True),
        ("onnxruntime", True),
    ]
    path.write_bytes(path.read_bytes()[:-9])
    assert not any(check.passed for check in adapter.check(path))


def test_models_are_converted_in_the_child(apart):
    net = Net(opset=17)
    graph = net.graph(net.linear(net.input(), 8, 4))
    converted = registry.adapter_for("m.onnx").at_opset(graph, 18)
    assert converted.opsets[""] == 18
    assert same(
        list(registry.runner().open(converted).run(X).values()), list(registry.runner().open(graph).run(X).values())
    )


def test_the_reference_evaluator_runs_in_the_child(apart):
    graph = cnn()
    inputs = {"x": np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)}
    (value,) = registry.runner("reference").open(graph).run(inputs).values()
    (nearby,) = registry.runner().open(graph).run(inputs).values()
    assert value.dtype == np.float64
    assert np.abs(value - nearby).max() < 1e-5 * np.abs(value).max()  # float32 beside float64


def test_memory_is_what_was_asked_for():
    graph = load(square(1 << 13), "net")  # 256 MiB
    for memory, is_enough in ((2**30, True), (2**27, False), (1, False)):
        with limited(Limits(max_memory=memory)):
            session = registry.runner().open(graph)
            if is_enough:
                assert np.isfinite(session.run(X)[graph.outputs[0].name]).all()
            else:
                asked = max(memory, LEAST_MEMORY) // 2**20
                with pytest.raises(LimitError, match=rf"it may take {asked} MiB"):
                    session.run(X)


def test_a_run_that_misses_its_deadline_ends_without_its_process(runner):
    session = runner.open(load(loop_of_computed_trips(), "net"))
    process = runner.child.process
    with pytest.raises(RunError, match=r"net\.onnx was not through when its time was up"):
        session.run(X, deadline=time.monotonic() + 0.2)
    assert runner.child.process is process


def test_a_refused_model_and_a_refused_run_leave_the_process(runner):
    process = runner.child.process
    net = Net()
    broken = net.graph(net.op("Reshape", net.input("x", ("N", 8)), net.constant([7, 7])))
    with pytest.raises(RunError, match="onnxruntime cannot run net"):
        runner.open(broken).run(X)
    net = Net()
    unknown = net.graph(net.op("Nothing", net.input("x", ("N", 8)), domain="com.microsoft"))
    with pytest.raises(RunError, match="onnxruntime refuses net"):
        runner.open(unknown)
    assert runner.child.process is process


def test_sessions_that_are_over_are_closed(runner):
    process = runner.child.process
    before = len(process.held)
    for seed in range(3):
        runner.open(mlp(seed=seed))
    assert len(process.held) == before
    assert len(process.closed) == 1  # the others are told


def test_an_interrupted_process_is_replaced_and_gone(runner):
    process = runner.child.process
    os.kill(process.popen.pid, 9)
    graph = mlp()
    with pytest.raises(LimitError, match=r"mlp.* ended the process that ran it \(SIGKILL\) \(it may take"):
        runner.open(graph)
    assert process.popen.returncode == -9
    assert runner.open(graph).run(X)


def test_a_module_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "onnxruntime", "ctypes", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend("")
    with limited(Limits(timeout=6.0)):
        assert registry.runner().open(mlp()).run(X)
