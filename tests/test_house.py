"""The house rules that no linter knows."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mal_graph
import mal_graph_adapters
from mal_graph.ops import ROWS

ROOT = Path(__file__).parents[1]
PACKAGE = Path(mal_graph.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# Imports go from right to left only. A module may import those of the bars before its own, and those before it in its
# bar. `report` describes what `pipeline` returns, so it stands behind it.
BARS = """
errors files graph interfaces labels units rules widths ops layers registry
| probe groups calibrate prove resize padding
| match windows forms correspond scales align
| merge compensate grow rewrite residual expand
| evaluate moments signals repair gate journal pipeline sweep zoo
| draw plot report
| sources
| cli
"""
ORDER = BARS.replace("|", " ").split()
FRAMEWORKS = {"onnx", "onnx_ir", "torch", "onnxruntime"}


def tree(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imported(module):
    """The modules of this package that a module imports, anywhere in its text."""
    for node in ast.walk(tree(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            names = [f"{source}.{name}" for name in names] if source == "mal_graph" else [source]
        for parts in (name.split(".") for name in names):
            if parts[0] == "mal_graph" and len(parts) > 1 and parts[1] in MODULES:
                yield parts[1]


def test_importing_the_package_loads_no_framework():
    code = f"import sys, mal_graph; print(*({FRAMEWORKS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_module_has_its_place_in_the_order():
    assert sorted([*ORDER, "__init__"]) == MODULES


@pytest.mark.parametrize("module", ORDER)
def test_imports_run_one_way(module):
    wrong = [other for other in imported(module) if ORDER.index(other) >= ORDER.index(module)]
    assert wrong == [], f"{module} imports {wrong}, which stand to its right"


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_are_imported_by_adapters_only(module):
    for node in ast.walk(tree(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not FRAMEWORKS & {name.split(".")[0] for name in names}
        assert not any(name.startswith("mal_graph_adapters") for name in names)


def test_the_version_is_the_one_that_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mal_graph.__version__ == project["version"]


@pytest.mark.parametrize("name", mal_graph.__all__)
def test_every_public_name_says_what_it_is(name):
    found = getattr(mal_graph, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        assert found.__module__.startswith("mal_graph.")
        assert inspect.signature(found).return_annotation is not inspect.Signature.empty


def test_the_promised_python_api_is_there():
    promised = {"load", "axis_groups", "prove", "match_layers", "align", "assemble", "save", "evaluate"}
    assert promised <= set(mal_graph.__all__)


def test_both_packages_ship_their_types():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package in (mal_graph, mal_graph_adapters):
        assert (Path(package.__file__).parent / "py.typed").is_file()
        assert settings["package-data"][package.__name__] == ["py.typed"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "ops"])
def test_no_operator_is_asked_for_by_name_outside_the_table(module):
    text = tree(module)
    assert [ast.unparse(node) for node in ast.walk(text) if asks_for_an_operator(node)] == []
    assert [ast.unparse(node) for node in ast.walk(text) if lists_operators(node)] == []


def asks_for_an_operator(node):
    """Whether a node compares something called `op` with a text, or looks it up in a row of texts."""
    if isinstance(node, ast.Match):
        return is_op(node.subject)
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    return any(map(is_op, sides)) and any(strings(side) for side in sides)


def is_op(node):
    return getattr(node, "attr", getattr(node, "id", "")) in ("op", "op_type")


def lists_operators(node):
    """Whether a node is a row of two or more texts that are all operators."""
    held = getattr(node, "keys", None) if isinstance(node, ast.Dict) else getattr(node, "elts", None)
    texts = [item.value for item in held or () if isinstance(item, ast.Constant)]
    return len(texts) > 1 and len(texts) == len(held) and all(text in ROWS for text in texts)


def strings(node):
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
