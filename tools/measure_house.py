"""Measures the house: how large, how tangled and how far apart its parts are.

    python tools/measure_house.py                    # print the figures, as Markdown
    python tools/measure_house.py --check            # and fail where a law is broken
    python tools/measure_house.py > tools/results/measure_house.md

Reads the source with the standard library and nothing else. What is counted:

* Complexity of a function (McCabe 1976): 1, and 1 more for each `if`, `for`, `while`, `except`, `assert`, conditional
  expression, `case`, `for` and `if` of a comprehension, and for each operand of `and` and `or` after the first.
  Functions inside functions count as part of the outer one. Classes are not counted.
* Lines of a function: from its first decorator to its last line. Parameters: all but `self`.
* Private names: names with one leading underscore that are imported from another package of this project.
* Options: the fields of the configuration. An option is stated again where a function of workflows or cli has a
  parameter of its name with a default of its own.
* `found`: how often the name is used, which says nothing of what was found.
* The walk of a parameter: how a reader goes who follows `donors` from the command `assemble` to where the merged file
  is saved. Functions are read depth first in the order of their calls, each of them once: a call is followed where an
  argument holds the parameter or a value made from it, and where the function is known by its name (methods of values
  are not). A room is a module. A move is a step from one function to one in another room; it climbs back where that
  room stands higher, which is to have a longer chain of imports below it, and was read in before. So a walk that goes
  down, or on to a room it has not seen, does not climb. Before the modules were put into packages there were 31 rooms,
  100 moves and 44 climbs. (An earlier count by another definition had 25, 103 and 45.) The same is counted with the
  packages as rooms; one stands as high as its highest module.

Laws: no private name across packages, no option stated again. The rest are goals.
"""

import argparse
import ast
import graphlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
MOST_LINES, MOST_PARAMETERS, MOST_MODULE_LINES = 60, 12, 500
MOST_COMPLEXITY, MOST_CLIMBS = 3.5, 15
START, PARAMETER, END = "mal_graph.cli.app:assemble", "donors", "save"
OPTIONS, STATED_IN = "mal_graph.config", ("mal_graph.workflows", "mal_graph.cli")

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.Assert, ast.IfExp, ast.match_case)


# --- the source ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """One file: the name it is imported by, its syntax, and how many lines it has."""

    name: str
    tree: ast.Module = field(repr=False)
    lines: int

    @property
    def package(self) -> str:
        """Two names, or one where the module stands beside the packages."""
        parts = self.name.split(".")
        return ".".join(parts[:2]) if len(parts) > 2 else parts[0]

    @cached_property
    def imported(self) -> dict[str, str]:
        """What a name stands for that is imported anywhere in this module, as `module` or `module:name`."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names.update({alias.asname or alias.name: alias.name for alias in node.names})
            elif isinstance(node, ast.ImportFrom):
                source = self.source_of(node)
                names.update({alias.asname or alias.name: f"{source}:{alias.name}" for alias in node.names})
        return names

    def source_of(self, node: ast.ImportFrom) -> str:
        """The module that an import takes names from, also where it is relative."""
        if not node.level:
            return node.module or ""
        return ".".join([*self.name.split(".")[: -node.level], *([node.module] if node.module else [])])

    @cached_property
    def functions(self) -> dict[str, Function]:
        """Functions by name, methods as `Class.name`."""
        functions = {node.name: node for node in self.tree.body if isinstance(node, Function)}
        for part in self.tree.body:
            if isinstance(part, ast.ClassDef):
                functions.update({f"{part.name}.{node.name}": node for node in part.body if isinstance(node, Function)})
        return functions


House = Mapping[str, Module]


def read_house(root: Path) -> dict[str, Module]:
    """The modules of `mal_graph` and of its adapters, by name."""
    modules = {}
    for package, folder in (("mal_graph", root / "mal_graph"), ("mal_graph_adapters", root / "adapters")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            text = path.read_text(encoding="utf-8")
            modules[name] = Module(name, ast.parse(text), text.count("\n"))
    return modules


# --- functions and names ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How large a function is."""

    name: str
    lines: int
    parameters: int
    complexity: int


def sizes_of(house: House) -> list[Size]:
    return [size_of(f"{module.name}:{name}", node) for module in house.values() for name, node in functions_in(module)]


def functions_in(module: Module) -> Iterator[tuple[str, Function]]:
    """Functions and methods, those of classes in classes too."""
    stack: list[tuple[str, ast.AST]] = [("", module.tree)]
    while stack:
        prefix, node = stack.pop()
        for child in getattr(node, "body", []):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child
            elif isinstance(child, ast.ClassDef):
                stack.append((f"{prefix}{child.name}.", child))


def size_of(name: str, node: Function) -> Size:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    parameters = [each.arg for each in (*named, *starred) if each.arg not in ("self", "cls")]
    return Size(name, (node.end_lineno or first) - first + 1, len(parameters), complexity_of(node))


def complexity_of(function: Function) -> int:
    total = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            total += 1
        elif isinstance(node, ast.comprehension):
            total += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
    return total


def private_names(house: House) -> list[str]:
    """Private names that cross a package, as `module takes name`."""
    crossing = []
    for module in house.values():
        for target in module.imported.values():
            source, _, name = target.partition(":")
            is_private = name.startswith("_") and not name.startswith("__")
            if is_private and source in house and house[source].package != module.package:
                crossing.append(f"{module.name} takes {target}")
    return crossing


def options_in(house: House) -> list[str]:
    """The options: annotated fields of the classes of the configuration that say more than their type."""
    if OPTIONS not in house:
        return []
    classes = [node for node in house[OPTIONS].tree.body if isinstance(node, ast.ClassDef)]
    fields = [node for part in classes for node in part.body if isinstance(node, ast.AnnAssign)]
    described = [node for node in fields if ast.unparse(node.annotation).startswith(("Annotated", "DataOption"))]
    return list(dict.fromkeys(node.target.id for node in described if isinstance(node.target, ast.Name)))


def stated_again(house: House) -> list[str]:
    """Parameters that state an option's default a second time."""
    options = set(options_in(house))
    again = []
    for module in house.values():
        for name, node in functions_in(module) if module.package in STATED_IN else ():
            positional = [*node.args.posonlyargs, *node.args.args]
            with_default = positional[len(positional) - len(node.args.defaults) :]
            by_keyword = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            with_default += [each for each, default in by_keyword if default is not None]
            again += [f"{module.name}:{name} {each.arg}" for each in with_default if each.arg in options]
    return again


def count_of(name: str, house: House) -> int:
    """How often a name is bound or read."""
    nodes = (node for module in house.values() for node in ast.walk(module.tree))
    return sum(name in (getattr(node, "id", None), getattr(node, "arg", None)) for node in nodes)


# --- the walk of a parameter --------------------------------------------------------------------------------------


class IsSaved(Exception):
    """The walk is at its end."""


class Walk:
    """The functions that a reader comes through who follows a parameter, in order."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.functions: list[str] = []

    def follow(self, start: str, parameter: str) -> "Walk":
        try:
            self.read(start, {parameter})
        except IsSaved:
            return self
        return self

    def read(self, function: str, held: set[str]) -> None:
        """Read a function whose parameters in `held` hold what is followed."""
        if function in self.functions:
            return
        self.functions.append(function)
        module, _, name = function.partition(":")
        Reader(self, self.house[module], set(held)).read_all(self.house[module].functions[name].body)

    def function_of(self, module: Module, called: ast.expr) -> str | None:
        """The function of this project that a name in a module stands for, as `module:name`."""
        if isinstance(called, ast.Name):
            return self.named(module, called.id)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            source = module.imported.get(called.value.id, "").replace(":", ".")
            return self.named(self.house[source], called.attr) if source in self.house else None
        return None

    def named(self, module: Module, name: str) -> str | None:
        if name in module.functions:
            return f"{module.name}:{name}"
        source, _, original = module.imported.get(name, "").partition(":")
        return self.named(self.house[source], original) if source in self.house and source != module.name else None


def rooms_in(places: list[str]) -> list[str]:
    """Places, one after the other, without staying."""
    return places[:1] + [after for before, after in pairwise(places) if before != after]


class Reader(ast.NodeVisitor):
    """Reads the body of one function in the order in which it runs."""

    def __init__(self, walk: Walk, module: Module, held: set[str]) -> None:
        self.walk, self.module, self.held = walk, module, held

    def read_all(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def holds(self, node: ast.AST) -> bool:
        """Whether an expression holds what is followed."""
        return any(isinstance(part, ast.Name) and part.id in self.held for part in ast.walk(node))

    def bind(self, target: ast.AST, value: ast.AST | None) -> None:
        """A value made from what is followed is followed too."""
        if value is not None and self.holds(value):
            self.held |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}

    def visit_Assign(self, node: ast.Assign) -> None:  # named by `ast`
        self.visit(node.value)
        for target in node.targets:
            self.bind(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.bind(node.target, node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self.bind(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.bind(node.target, node.iter)
        self.read_all([*node.body, *node.orelse])

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, item.context_expr)
        self.read_all(node.body)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        self.bind(node.target, node.iter)
        for condition in node.ifs:
            self.visit(condition)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self.read_comprehension(node.generators, [node.elt])

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.read_comprehension(node.generators, [node.elt])

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.read_comprehension(node.generators, [node.elt])

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.read_comprehension(node.generators, [node.key, node.value])

    def read_comprehension(self, generators: list[ast.comprehension], results: list[ast.expr]) -> None:
        for part in (*generators, *results):
            self.visit(part)

    def visit_Call(self, node: ast.Call) -> None:
        """The arguments first, then the function; `partial(f, ...)` calls `f`."""
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(argument)
        self.visit(node.func)
        called, arguments = node.func, node.args
        if isinstance(called, ast.Name) and called.id == "partial" and arguments:
            called, arguments = arguments[0], arguments[1:]
        if isinstance(called, ast.Attribute) and called.attr == END and any(map(self.holds, arguments)):
            raise IsSaved
        function = self.walk.function_of(self.module, called)
        held = set() if function is None else self.handed_on(function, arguments, node.keywords)
        if function is not None and held:
            self.walk.read(function, held)

    def handed_on(self, function: str, arguments: list[ast.expr], keywords: list[ast.keyword]) -> set[str]:
        """The parameters of a function that get what is followed."""
        module, _, name = function.partition(":")
        signature = self.walk.house[module].functions[name].args
        places = [each.arg for each in (*signature.posonlyargs, *signature.args)]
        rest = [] if signature.vararg is None else [signature.vararg.arg]
        held = {keyword.arg for keyword in keywords if keyword.arg is not None and self.holds(keyword.value)}
        for place, argument in enumerate(arguments):
            if self.holds(argument):
                held |= set(places[place:] + rest if isinstance(argument, ast.Starred) else places[place:][:1] or rest)
        return held


def heights_in(house: House) -> dict[str, int]:
    """How long the longest chain of imports below each module is."""
    below = {
        module.name: {module_named(target, house) for target in module.imported.values()} & house.keys()
        for module in house.values()
    }
    heights: dict[str, int] = {}
    for name in graphlib.TopologicalSorter({name: names - {name} for name, names in below.items()}).static_order():
        heights[name] = 1 + max((heights[other] for other in below[name] - {name}), default=0)
    return heights


def module_named(target: str, house: House) -> str:
    """The module that an import reads: the name itself where that is one, else where the name comes from."""
    return whole if (whole := target.replace(":", ".")) in house else target.partition(":")[0]


# --- the report ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        what: what was measured.
        value: the figure, as it is printed.
        limit: what it may be at most, "" if there is no limit.
        is_met: whether it is within the limit.
        is_law: whether `--check` fails where it is not.
        places: where the limit is broken.
    """

    what: str
    value: str
    limit: str = ""
    is_met: bool = True
    is_law: bool = False
    places: tuple[str, ...] = ()


def figures_of(house: House, start: str = START) -> Iterator[Figure]:
    sizes, modules = sizes_of(house), list(house.values())
    yield Figure("modules", str(len(modules)))
    yield Figure("lines", f"{sum(module.lines for module in modules):,}")
    yield Figure("functions", f"{len(sizes):,}")
    large = [f"{module.name} ({module.lines})" for module in modules if module.lines > MOST_MODULE_LINES]
    yield limited("modules over 500 lines", large)
    yield limited("functions over 60 lines", [f"{s.name} ({s.lines})" for s in sizes if s.lines > MOST_LINES])
    wide = [f"{s.name} ({s.parameters})" for s in sizes if s.parameters > MOST_PARAMETERS]
    yield limited("functions over 12 parameters", wide)
    yield Figure("mean parameters of a function", f"{mean(size.parameters for size in sizes):.2f}")
    complexity = mean(size.complexity for size in sizes)
    worst = sorted(sizes, key=lambda size: -size.complexity)[:10]
    is_met = complexity <= MOST_COMPLEXITY
    places = () if is_met else tuple(f"{size.name} ({size.complexity})" for size in worst)
    yield Figure("mean complexity of a function", f"{complexity:.2f}", f"{MOST_COMPLEXITY}", is_met, places=places)
    yield limited("private names across packages", private_names(house), is_law=True)
    yield Figure("options", str(len(options_in(house))))
    yield limited("options stated again", stated_again(house), is_law=True)
    yield Figure("uses of the name `found`", str(count_of("found", house)))
    yield from figures_of_walk(house, start)


def limited(what: str, places: list[str], is_law: bool = False) -> Figure:
    """The number of places that should not be."""
    return Figure(what, str(len(places)), "0", not places, is_law, tuple(places))


def figures_of_walk(house: House, start: str = START) -> Iterator[Figure]:
    walk, heights = Walk(house).follow(start, PARAMETER), heights_in(house)
    modules = [function.partition(":")[0] for function in walk.functions]
    tops: dict[str, int] = {}
    for module in house.values():
        tops[module.package] = max(tops.get(module.package, 0), heights[module.name])
    yield Figure(f"functions on the walk of `{PARAMETER}`", str(len(walk.functions)))
    yield from figures_of_rooms("modules", rooms_in(modules), heights, MOST_CLIMBS)
    yield from figures_of_rooms("packages", rooms_in([house[module].package for module in modules]), tops)


def figures_of_rooms(
    kind: str, rooms: list[str], heights: Mapping[str, int], limit: int | None = None
) -> Iterator[Figure]:
    """A walk through rooms; where it climbs back is listed if that is more often than the limit."""
    known = [set(rooms[: place + 1]) for place in range(len(rooms))]
    moves = enumerate(pairwise(rooms))
    climbs = Counter(f"{a} -> {b}" for place, (a, b) in moves if b in known[place] and heights[b] > heights[a])
    is_met = limit is None or climbs.total() <= limit
    yield Figure(f"{kind} on it", str(len(set(rooms))))
    yield Figure(f"moves between {kind}", str(len(rooms) - 1))
    at_most = "" if limit is None else str(limit)
    places = () if is_met else tuple(f"{move}: {count}" for move, count in climbs.most_common())
    yield Figure(f"climbs back between {kind}", str(climbs.total()), at_most, is_met, places=places)


def report(figures: list[Figure]) -> Iterator[str]:
    yield "# The house in figures"
    yield "\nMade by `python tools/measure_house.py`, which says what is counted and how. Packages: `mal_graph` and its"
    yield "adapters.\n"
    yield "| figure | value | at most | |"
    yield "|---|---|---|---|"
    for figure in figures:
        verdict = "" if figure.is_met else "broken law" if figure.is_law else "over"
        yield f"| {figure.what} | {figure.value} | {figure.limit} | {verdict} |"
    for figure in figures:
        if figure.places:
            yield f"\n{figure.what}:\n"
            yield from (f"* `{place}`" for place in figure.places)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="end with 1 where a law is broken")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--start", default=START, metavar="MODULE:FUNCTION", help="where the walk begins")
    options = parser.parse_args(words)
    figures = list(figures_of(read_house(options.root), options.start))
    print("\n".join(report(figures)))
    return int(options.check and any(figure.is_law and not figure.is_met for figure in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
