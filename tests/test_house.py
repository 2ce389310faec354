"""The house rules that no linter knows."""

import ast
import functools
import graphlib
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mal_graph
import mal_graph_adapters
from mal_graph.operators import ROWS

ROOT = Path(__file__).parents[1]
PACKAGE = Path(mal_graph.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

# Imports go from right to left only, between packages. The files beside the packages are for everybody.
FOR_ALL = [
    "errors",
    "label_lists",
    "limits",
    "memory_bound",
    "memory_budget",
    "option_names",
    "version",
    "text_files",
    "boxes",
    "graph",
    "half_numbers",
    "protocols",
    "registry",
    "atomic_write",
    "source_files",
    "remote_files",
    "seals",
    "shards",
    "shelves",
    "plain_text",
    "config",
    "option",
    "option_texts",
    "parameter_settings",
    "method_names",
    "method_options",
    "search_options",
    "brief",
    "figure",
]
PACKAGES = [
    "operators",
    "network",
    "symmetry",
    "evaluation",
    "matching",
    "methods",
    "merging",
    "compression",
    "meaning",
    "workflows",
    "searching",
    "ladder",
    "reporting",
    "cli",
]
FRAMEWORKS = {"onnx", "onnx_ir", "torch", "onnxruntime"}


@functools.cache
def tree(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def place(module):
    """Where a module stands: 0 beside the packages, else the number of its package; the public face comes last."""
    package = module.split("/")[0]
    if package in PACKAGES:
        return 1 + PACKAGES.index(package)
    return len(PACKAGES) + 1 if module in ("__init__", "__main__") else 0


@functools.cache
def imported(module):
    """The modules of this package that a module imports, anywhere in its text, and the names it takes from each."""
    return tuple(imports_in(tree(module)))


def imports_in(text):
    for node in ast.walk(text):
        if isinstance(node, ast.Import):
            yield from ((path_of(alias.name), "") for alias in node.names if alias.name.split(".")[0] == "mal_graph")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mal_graph":
            for alias in node.names:
                whole = path_of(f"{node.module}.{alias.name}")
                is_module = whole in MODULES or f"{whole}/__init__" in MODULES
                yield (whole if is_module else path_of(node.module)), alias.name


def path_of(dotted):
    """`mal_graph.network.layers` as it stands in MODULES."""
    path = "/".join(dotted.split(".")[1:])
    return path if path in MODULES else f"{path}/__init__".lstrip("/")


def test_importing_the_package_loads_no_framework():
    code = f"import sys, mal_graph; print(*({FRAMEWORKS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_module_has_its_place_in_the_order():
    assert {module.split("/")[0] for module in MODULES if "/" in module} == set(PACKAGES)
    assert {module for module in MODULES if "/" not in module} == {*FOR_ALL, "__init__", "__main__"}


def those(broken, modules=MODULES):
    """What breaks a law, by module: all are looked through in one test, as one for each would cost more."""
    found = {module: sorted(broken(module)) for module in modules}
    return {module: names for module, names in found.items() if names}


def test_imports_run_one_way():
    def to_the_right(module):
        return {other for other, _ in imported(module) if place(other) > place(module)}

    assert those(to_the_right) == {}


def test_imports_make_no_circle():
    needs = {module: {other for other, _ in imported(module)} - {module} for module in MODULES}
    assert tuple(graphlib.TopologicalSorter(needs).static_order())


OFFERING = PACKAGES[:-1]  # the command line offers nothing to others  # packages whose `__init__` says what they offer


@pytest.mark.parametrize("package", OFFERING)
def test_a_package_offers_what_exists_and_hides_no_module(package):
    offered = importlib.import_module(f"mal_graph.{package}")
    assert sorted(offered.__all__, key=str.lower) == offered.__all__
    assert all(hasattr(offered, name) for name in offered.__all__)
    assert not {f"{package}/{name}" for name in offered.__all__} & set(MODULES)


def test_other_packages_are_entered_by_the_front_door():
    """Where a package says what it offers, its modules are its own."""
    doors = {f"{package}/__init__" for package in OFFERING}

    def inner_rooms(module):
        own = module.split("/")[0]
        others = {other for other, _ in imported(module) if other.split("/")[0] in OFFERING}
        return {other for other in others - doors if not other.startswith(own)}

    assert those(inner_rooms) == {}


def test_no_private_name_crosses_a_package():
    assert those(lambda module: {name for _, name in imported(module) if name.startswith("_")}) == {}


def test_frameworks_are_imported_by_adapters_only():
    assert those(lambda module: packages_in(tree(module)) & {*FRAMEWORKS, "mal_graph_adapters"}) == {}


def packages_in(text):
    """The packages that a module imports from, anywhere in its text."""
    nodes = [node for node in ast.walk(text) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_the_version_is_the_one_that_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mal_graph.__version__ == project["version"]


def test_every_package_is_packaged():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert {f"mal_graph.{package}" for package in PACKAGES} <= set(listed)


@pytest.mark.parametrize("name", mal_graph.__all__)
def test_every_public_name_says_what_it_is(name):
    found = getattr(mal_graph, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        assert found.__module__.startswith("mal_graph.")
        assert inspect.signature(found).return_annotation is not inspect.Signature.empty


def test_the_promised_python_api_is_there():
    promised = {"load", "axis_groups", "verify", "match_layers", "align", "assemble", "save", "evaluate"}
    assert promised <= set(mal_graph.__all__)


def test_both_packages_ship_their_types():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package in (mal_graph, mal_graph_adapters):
        assert (Path(package.__file__).parent / "py.typed").is_file()
        assert "py.typed" in settings["package-data"][package.__name__]


def test_every_module_says_what_it_is_for():
    assert [module for module in MODULES if not ast.get_docstring(tree(module))] == []


def test_no_operator_is_asked_for_by_name_outside_the_table():
    def named(module):
        nodes = ast.walk(tree(module))
        return [ast.unparse(node) for node in nodes if asks_for_an_operator(node) or lists_operators(node)]

    assert those(named, [module for module in MODULES if not module.startswith("operators/")]) == {}


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


def needed(path):
    """What a file imports as soon as it is read: imports in functions, and those that may fail, are left out."""
    text = ast.parse(path.read_text(encoding="utf-8"))
    if any("importorskip" in ast.unparse(node) for node in text.body):
        return set()
    names = {alias.name for node in text.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in text.body if isinstance(node, ast.ImportFrom) if not node.level}
    return {name.split(".")[0] for name in names}


# Only one step: what a module beside the tests imports from another one is not followed.
TESTS = sorted(Path(__file__).parent.rglob("*.py"))
NEED_TORCH = {"torch", *(path.stem for path in TESTS if "torch" in needed(path))}


def test_test_modules_are_read_where_torch_is_missing():
    wrong = {path.name: needed(path) & NEED_TORCH for path in TESTS if path.name.startswith("test_")}
    assert {name: needs for name, needs in wrong.items() if needs} == {}
