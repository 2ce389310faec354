"""Small faults put into the core one at a time: does a quick test find each?

    python tools/mutate_core.py -o tools/results/mutate_core.json
    python tools/mutate_core.py --only labels units --mutants 10
    python tools/mutate_core.py --again tools/results/mutate_core.json -o tools/results/mutate_core.json

A mutant is one function of a module with one comparison, operator, number, truth or branch another (`CHANGES`). They
are drawn with a seed, as many of each part of the core (`PARTS`). The quick tests are run once to note which of them
call which function; each mutant then meets those that call the changed one, those first that call the fewest others, in
a copy of this process, until one fails or `--patience` seconds of processor are over. What is equivalent to the code,
with the reason, stands in `EQUIVALENT` and is not counted. Exit code 1 where fewer are found than `GOAL`.
"""

import argparse
import ast
import copy
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = "tools/results/mutate_core.json"
SEED, MUTANTS, PATIENCE, GOAL = 20261129, 16, 60, 0.85
PARTS = {  # a part of the core: the modules that hold it
    "align": (
        "matching/assignment.py",
        "matching/ascents.py",
        "matching/orders.py",
        "matching/objective.py",
        "matching/nested_orders.py",
    ),
    "correspond": ("matching/correspondence.py", "matching/axis_pairs.py", "matching/group_pairing.py"),
    "match": (
        "matching/layer_matching.py",
        "matching/layer_scores.py",
        "matching/pairing.py",
        "matching/exchanges.py",
        "matching/following.py",
        "matching/reversals.py",
    ),
    "merge": ("merging/blending.py", "merging/planning.py", "merging/unmatched.py", "merging/lambdas.py"),
    "groups": ("symmetry/groups.py", "symmetry/grouping.py", "symmetry/tracing.py"),
    "labels": ("operators/axis_labels.py", "operators/wiring.py", "operators/call.py"),
    "units": ("symmetry/interchangeable.py", "symmetry/arrangements.py"),
    "rules": ("operators/contractions.py", "operators/layout.py", "operators/elementwise.py", "operators/indexing.py"),
    "prove": ("symmetry/verification.py", "symmetry/trial.py", "symmetry/random_copy.py"),
}
TESTS = (
    "tests/operators",
    "tests/symmetry/test_groups.py",
    "tests/symmetry/test_trial.py",
    "tests/matching",
    "tests/merging",
)
QUICK = "not slow and not whole and not torch"
LOADED = ("hypothesis", "networkx", "numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "pytest", "scipy.optimize")
UNDECIDED = "undecided"
EQUIVALENT: dict[str, str] = {  # a mutant as `Mutant.told` says it, with the reason
    "operators/contractions.py: fused_matmul: True -> False": "both sides of the zip are pairs",
    "matching/following.py: by_neighbours: True -> False": "both sides of the zip are pairs",
    "matching/orders.py: is_whole: 1 -> 2": "the long way gives the same slice of one block",
    "matching/exchanges.py: __init__: 1 -> 2": "any number below 0 stands for none",
    "merging/blending.py: open_blend: True -> False": "both sides of the zip are one for each axis",
    "merging/blending.py: __call__: False -> True": "a copy more of values that are not changed",
    "symmetry/groups.py: all_positions: 1 -> 2": "numpy takes any length below 0 for the one that is left",
}


# --- what is changed ----------------------------------------------------------------------------------------------

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


def compare(node: ast.Compare) -> ast.AST:
    return ast.Compare(node.left, [COMPARED[type(node.ops[0])](), *node.ops[1:]], node.comparators)


def compute(node: ast.BinOp) -> ast.AST:
    return ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)


def join(node: ast.BoolOp) -> ast.AST:
    return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def count(node: ast.Constant) -> ast.AST:
    return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)  # type: ignore[operator]


def branch(node: ast.If | ast.IfExp) -> ast.AST:
    other = copy.copy(node)
    other.test = ast.UnaryOp(ast.Not(), node.test)
    return other


def is_number(node: ast.Constant) -> bool:
    return isinstance(node.value, bool | int | float)


CHANGES: dict[type[ast.AST], tuple[Callable[[Any], bool], Callable[[Any], ast.AST]]] = {
    ast.Compare: (lambda node: True, compare),
    ast.BinOp: (lambda node: type(node.op) in COMPUTED, compute),
    ast.BoolOp: (lambda node: True, join),
    ast.Constant: (is_number, count),
    ast.If: (lambda node: True, branch),
    ast.IfExp: (lambda node: True, branch),
}


@dataclass(frozen=True)
class Mutant:
    """A module with one place changed.

    Attributes:
        module: the file, below `mal_graph`.
        function: the first line of the function or of its decorators, by which Python knows it.
        place: how many places of the module come before.
        told: the module, its function and what is changed, in words that a later version may still have.
    """

    module: str
    function: int
    line: int
    place: int
    told: str


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, str, int]]:
    """What can be changed: the outermost function that it stands in, the parent, the field and the place in it."""
    functions = [
        one
        for node in tree.body
        for one in (node.body if isinstance(node, ast.ClassDef) else [node])
        if isinstance(one, ast.FunctionDef)
    ]
    for function in functions:
        parents: list[ast.AST] = list(function.body)
        while parents:
            parent = parents.pop(0)
            for name, value in ast.iter_fields(parent):
                for at, child in enumerate(value if isinstance(value, list) else [value]):
                    if not isinstance(child, ast.AST) or name == "annotation" or is_message(child):
                        continue
                    if type(child) in CHANGES and CHANGES[type(child)][0](child):
                        yield function, parent, name, at if isinstance(value, list) else -1
                    parents.append(child)


def is_message(node: ast.AST) -> bool:
    """Whether a node is what people are told."""
    return isinstance(node, ast.JoinedStr | ast.Raise)


def child_at(parent: ast.AST, name: str, at: int) -> ast.AST:
    held = getattr(parent, name)
    child: ast.AST = held if at < 0 else held[at]
    return child


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module."""
    tree = ast.parse((ROOT / "mal_graph" / module).read_text(encoding="utf-8"))
    mutants = []
    for place, (function, parent, name, at) in enumerate(places(tree)):
        child = child_at(parent, name, at)
        shown = [ast.unparse(one.test if isinstance(one, ast.If) else one) for one in (child, changed(child))]
        told = f"{module}: {function.name}: {shown[0]} -> {shown[1]}"  # type: ignore[attr-defined]
        first = min(one.lineno for one in (function, *function.decorator_list))  # type: ignore[attr-defined]
        mutants.append(Mutant(module, first, child.lineno, place, told))  # type: ignore[attr-defined]
    return mutants


def changed(node: ast.AST) -> ast.AST:
    return ast.fix_missing_locations(ast.copy_location(CHANGES[type(node)][1](node), node))


def code_of(mutant: Mutant) -> CodeType:
    """The module with the change."""
    path = ROOT / "mal_graph" / mutant.module
    tree = ast.parse(path.read_text(encoding="utf-8"))
    _, parent, name, at = list(places(tree))[mutant.place]
    child = changed(child_at(parent, name, at))
    if at < 0:
        setattr(parent, name, child)
    else:
        getattr(parent, name)[at] = child
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


class Changed(MetaPathFinder, Loader):
    """Imports one module with its change, and leaves all others alone."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = "mal_graph." + mutant.module.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        where = str(ROOT / "mal_graph" / self.mutant.module)
        return importlib.util.spec_from_loader(name, self, origin=where) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(ROOT / "mal_graph" / self.mutant.module)
        exec(code_of(self.mutant), module.__dict__)


# --- tests in copies of this process ------------------------------------------------------------------------------


class Callers:
    """Notes which functions of the core each test calls, and how long it takes."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.files = {str(ROOT / "mal_graph" / module): module for module in modules}
        self.calls: dict[str, set[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}
        self.test = ""

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename in self.files:
            self.calls[self.test].add((self.files[code.co_filename], code.co_firstlineno))

    def pytest_runtest_protocol(self, item: Any) -> None:
        self.test = item.nodeid
        self.calls[self.test] = set()
        sys.settrace(self.note)  # of calls alone: a profile is told of returns and of C too

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.calls.pop(report.nodeid, None)  # what fails anyway finds nothing


class Failed:
    """Notes the first test that fails."""

    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.test = self.test or report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.test = self.test or f"{report.nodeid} cannot be imported"


class NotDone(Exception):
    """A copy of this process ended without having done its task; `by` is the signal, 0 where it failed by itself."""

    def __init__(self, by: int) -> None:
        super().__init__(f"ended by signal {by}" if by else "failed")
        self.by = by


def apart(task: Callable[[], object], seconds: float) -> Any:
    """What a task gives, done in a copy of this process. Raises NotDone, with SIGXCPU after so many seconds of
    processor, and with SIGKILL after ten times as many of the clock, which tell nothing on a busy machine."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if not child:
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
                quiet = os.open(os.devnull, os.O_RDWR)
                for handle in (0, 1, 2):
                    os.dup2(quiet, handle)
                Path(file.name).write_text(json.dumps(task()), encoding="utf-8")
            finally:
                os._exit(0)
        until = time.monotonic() + 10 * seconds
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.05)
        text = Path(file.name).read_text(encoding="utf-8")
    if not text:
        raise NotDone(max(0, -os.waitstatus_to_exitcode(ended[1])))
    return json.loads(text)


def run_tests(tests: Sequence[str], plugin: object) -> None:
    import pytest

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    pytest.main(["-x" if isinstance(plugin, Failed) else "-q", "-p", "no:cacheprovider", "-m", QUICK, *tests], [plugin])


def callers(
    modules: Sequence[str], asked: Sequence[str], kept: Path | None
) -> tuple[dict[tuple[str, int], list[str]], dict[str, float]]:
    """The tests that call each function of some modules, those first that call the fewest functions, which look most
    closely at each; and the seconds of each test.

    Args:
        asked: the files or folders of the tests.
        kept: a file that holds them from an earlier run, or is to.
    """

    def task() -> object:
        noted = Callers(modules)
        run_tests(asked, noted)
        sys.settrace(None)
        return [[test, noted.seconds[test], sorted(calls)] for test, calls in noted.calls.items()]

    rows = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.is_file() else apart(task, 7200.0)
    if kept:
        kept.write_text(json.dumps(rows), encoding="utf-8")
    seconds = {test: took for test, took, _ in rows}
    called: dict[tuple[str, int], list[str]] = {}
    for test, _, calls in sorted(rows, key=lambda row: (len(row[2]), row[1])):
        for module, line in calls:
            called.setdefault((module, line), []).append(test)
    return called, seconds


def tried(mutant: Mutant, tests: Sequence[str], patience: float) -> str:
    """The test that finds a mutant, "" where none does, UNDECIDED where the machine was too busy to tell."""
    if not tests:
        return ""

    def task() -> object:
        sys.meta_path.insert(0, Changed(mutant))
        failed = Failed()
        run_tests(tests, failed)
        return failed.test

    try:
        return str(apart(task, patience))
    except NotDone as error:
        if error.by in (0, signal.SIGKILL):
            return UNDECIDED
        return "it does not end" if error.by == signal.SIGXCPU else f"it ends by {signal.Signals(error.by).name}"


def within(tests: Sequence[str], seconds: dict[str, float], most: float) -> list[str]:
    """As many tests, from the first, as take no longer than so many seconds together; longer ones are left out."""
    kept, left = [], most
    for test in tests:
        if seconds[test] <= left or not kept:
            left -= seconds[test]
            kept.append(test)
    return kept


def drawn(part: str, count: int, seed: int) -> list[Mutant]:
    """Some of the mutants of a part of the core."""
    everything = [mutant for module in PARTS[part] for mutant in mutants_of(module)]
    some = random.Random(f"{seed} {part}").sample(everything, min(count, len(everything)))
    return sorted(some, key=lambda mutant: (mutant.module, mutant.line))


def survivor(row: dict[str, Any]) -> tuple[str, Mutant]:
    """The part and the mutant of an earlier result: of several that are told alike the one in the nearest line."""
    alike = [one for one in mutants_of(row["mutant"].partition(":")[0]) if one.told == row["mutant"]]
    return row["part"], min(alike, key=lambda one: abs(one.line - row["line"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts of the core")
    parser.add_argument("--mutants", type=int, default=MUTANTS, help="of each part")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds of tests for each mutant")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="files or folders of quick tests")
    parser.add_argument("--again", type=Path, metavar="FILE.json", help="meet what survived in an earlier result")
    parser.add_argument("--called", type=Path, metavar="FILE.json", help="keep here which test calls what, or read it")
    given = parser.parse_args()
    for name in LOADED:  # once, for all copies of this process
        importlib.import_module(name)
    called, seconds = callers([module for modules in PARTS.values() for module in modules], given.tests, given.called)
    rows = []
    if given.again:
        before = json.loads(given.again.read_text(encoding="utf-8"))["rows"]
        rows, asked = [row for row in before if row["by"]], [survivor(row) for row in before if not row["by"]]
    else:
        asked = [(part, mutant) for part in given.only for mutant in drawn(part, given.mutants, given.seed)]
    for part, mutant in asked:
        tests = within(called.get((mutant.module, mutant.function), ()), seconds, given.patience)
        by = "" if mutant.told in EQUIVALENT else tried(mutant, tests, 2 * given.patience)
        row = {"part": part, "line": mutant.line, "mutant": mutant.told, "tests": len(tests), "by": by}
        rows.append({**row, "equivalent": EQUIVALENT.get(mutant.told, "")})
        print(f"{part}:{mutant.line}: {mutant.told}: {by or 'SURVIVES'}", flush=True)
        if given.output:
            given.output.write_text(json.dumps(summary(rows, given), indent=1) + "\n", encoding="utf-8")
    return 0 if summary(rows, given)["share"] >= GOAL else 1


def summary(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """How many are found by which tests, of all that are not equivalent."""
    counted = [row for row in rows if not row["equivalent"] and row["by"] != UNDECIDED]
    found = sum(bool(row["by"]) for row in counted)
    share = round(found / max(1, len(counted)), 3)
    whole = {"seed": given.seed, "tests": list(given.tests), "patience": given.patience}
    return {**whole, "mutants": len(rows), "counted": len(counted), "found": found, "share": share, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
