"""What other packages offer is run as code, and what it does wrong is told in one sentence that says whose it is."""

import sys
from functools import cache

import pytest
from builders import mlp

import mal_graph
from mal_graph import registry
from mal_graph.errors import MalGraphError, UsageError
from mal_graph.methods import find_method
from mal_graph.searching.candidates import Figure, Trial
from mal_graph.searching.method import Space, find_search, run_search

CODE = """
import numpy as np
from typing import Annotated
from mal_graph.methods import Stack, merge_method
from mal_graph.searching.method import search_method
from mal_graph.searching.candidates import Candidate

@merge_method("raises")
def raises(stack: Stack) -> np.ndarray:
    raise KeyError("\\x1b[31m")

@merge_method("list")
def list_(stack: Stack) -> np.ndarray:
    return stack.models[0].tolist()

@merge_method("whole_numbers")
def whole_numbers(stack: Stack) -> np.ndarray:
    return stack.models[0].astype(int)

@merge_method("all_models")
def all_models(stack: Stack) -> np.ndarray:
    return stack.models

@merge_method("odd_keyword")
def odd_keyword(stack: Stack, *, weight: "Nowhere") -> np.ndarray:
    return stack.models[0]

def search(name, propose):
    def proposals(space):
        while True:
            yield propose(space)
    made = search_method(name, source="")(proposals)
    proposals.__module__ = "strange"
    return made

nothing = search("nothing", lambda space: [])
texts = search("texts", lambda space: ["a"])
strangers = search("strangers", lambda space: [Candidate.of({"../../etc": [0.5]})])
much = search("much", lambda space: [Candidate.of({"a": [float("nan")]})])
fails = search("fails", lambda space: 1 / 0)

class Raises:
    def __init__(self):
        raise RuntimeError("not today")
class Nothing:
    pass
class Claims:
    def claims(self, model): raise ValueError("odd")
    load = save = claims
class Loads:
    def claims(self, model): return True
    def load(self, model): return {}
    save = load
"""
METHODS = ("raises", "list", "whole_numbers", "all_models")
SEARCHES = ("nothing", "texts", "strangers", "much", "fails")


@pytest.fixture
def offered(monkeypatch, tmp_path):
    """Installs a package that offers what it is told to, by group, name and value."""
    made_once = [one for one in vars(registry).values() if hasattr(one, "cache_clear")] + [find_method]

    def forget():
        for one in made_once:
            one.cache_clear()

    def install(*points):
        (tmp_path / "strange.py").write_text(CODE)
        (tmp_path / "broken.py").write_text("raise SystemError('broken on purpose')")
        folder = tmp_path / "strange-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
        lines = [f"[mal_graph.{group}]\n{name} = {value}\n" for group, name, value in points]
        (folder / "entry_points.txt").write_text("".join(lines))
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    forget()
    for name in ("strange", "broken"):
        sys.modules.pop(name, None)


@cache
def pair():
    return mlp((4, 6, 3), 0), mlp((4, 6, 3), 1)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_fails_or_gives_no_tensor_is_named(offered, name):
    offered(("merge_methods", name, f"strange:{name if name != 'list' else 'list_'}"))
    with pytest.raises(UsageError, match=rf"^the merge method '{name}' failed in strange \(\w+: .*\): tell who"):
        mal_graph.assemble(*pair(), method=name, verify=False, compare=False)


def test_a_method_whose_keywords_say_nothing_is_named(offered):
    offered(("merge_methods", "odd_keyword", "strange:odd_keyword"))
    with pytest.raises(UsageError, match=r"^the merge method 'odd_keyword' failed in strange \(NameError"):
        find_method("odd_keyword")


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_proposes_no_candidates_ends(offered, name):
    offered(("searches", name, f"strange:{name}"))
    base = Trial(None, (Figure(1.0, 0.5),))
    space = Space(("a", "b"), 1, 1.0, base, 0.0, trials=8, batch=2, sampler="tpe", seed=0, layers=(), samples=64)
    with pytest.raises(UsageError, match=rf"^the search '{name}' failed in strange \("):
        run_search(find_search(name), space, lambda batch: [Trial(one, base.figures) for one in batch])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("strange:Raises", r"the adapter 'odd' failed in strange \(RuntimeError: not today\)"),
        ("strange:Nothing", "strange:Nothing is no adapter: it has no method claims, load, save"),
        ("strange:nowhere", "the adapter 'odd' cannot be loaded from strange:nowhere: .*; reinstall"),
        ("broken:Any", "the adapter 'odd' cannot be loaded from broken:Any: broken on purpose; reinstall"),
        ("not_there:Any", "the adapter 'odd' cannot be loaded from not_there:Any: No module"),
        ("strange:Claims", r"an adapter failed in strange \(ValueError: odd\)"),
        ("strange:Loads", r"an adapter failed in strange \(TypeError: `load` gave a dict, not a LayerGraph\)"),
    ],
)
def test_an_adapter_that_is_none_is_named(offered, value, says):
    offered(("adapters", "odd", value))
    with pytest.raises(UsageError, match=f"^{says}"):
        mal_graph.load("model.odd")


@pytest.mark.parametrize(
    ("group", "name", "ask"),
    [
        ("merge_methods", "linear", lambda: find_method("linear")),
        ("searches", "greedy", lambda: find_search("greedy")),
        ("runners", "onnxruntime", lambda: registry.runner("onnxruntime")),
        ("reporters", "default", lambda: registry.reporter()),
        ("adapters", "onnx", lambda: mal_graph.load("m.onnx")),
    ],
)
def test_nobody_takes_the_name_of_another(offered, group, name, ask):
    offered((group, name, "strange:Nothing"))
    with pytest.raises(UsageError, match=rf"^two of .* are called '{name}', .*strange:Nothing.*: remove"):
        ask()


def test_what_our_own_code_raises_is_not_blamed_on_others():
    for raised in (KeyError("ours"), MalGraphError("ours"), MemoryError("ours")):
        with (
            pytest.raises(type(raised), match="ours"),
            registry.blamed("a part", "mal_graph_adapters.onnx_format.file"),
        ):
            raise raised


def test_all_that_this_package_registers_is_what_it_says():
    assert len(registry.adapters()) == 1
    for group, find in (("runners", registry.registered_runner), ("reporters", registry.reporter)):
        for point in registry.registered(group):
            assert type(find(point.name)).__module__ == point.module
