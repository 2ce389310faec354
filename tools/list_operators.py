"""Prints the operator table as Markdown: each operator with its rule and the test that covers it, and those without.

    python tools/list_operators.py

The rows are `mal_graph.operators.ROWS`, those without `mal_graph.operators.unsupported.UNSUPPORTED`, the tests the
cases of `tests/operators/test_axis_rules.py`, and of `tests/laws/test_bodies.py` for what runs bodies.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from mal_graph.operators import ROWS, Row, bodies
from mal_graph.operators.unsupported import UNSUPPORTED

TESTS = Path(__file__).parents[1] / "tests"
BODIES = "tests/laws/test_bodies.py::test_a_permuted_copy_gives_back_the_base"
LAW = "tests/operators/test_axis_rules.py::test_an_operator_leaves_the_groups_it_should"


def main() -> None:
    print("\n".join(["| operator | rule | in a layer | f(0) | test |", "|---|---|---|---|---|", *rows()]))
    print("\nWithout a row, so that every axis they touch is frozen with the reason:\n")
    print("\n".join(["| operator | why |", "|---|---|", *missing()]))


def rows() -> Iterator[str]:
    """One line per operator of the table."""
    for op, row in sorted(ROWS.items()):
        yield f"| {op} | {rule_of(row)} | {row.layer_role} | {row.at_zero} | {test_of(op)} |"


def rule_of(row: Row) -> str:
    """The rule's name and what it says of itself."""
    said = inspect.getdoc(row.rule)
    return f"`{row.rule.__name__}`: {said.splitlines()[0]}" if said else f"`{row.rule.__name__}`"


def test_of(op: str) -> str:
    """The first test of an operator, and how many more there are."""
    names = [case.name for case in cases() if case.op == op]
    if not names:
        return f"`{BODIES}`" if op in bodies.ROWS else "none"
    return f"`{LAW}[{names[0]}]`" + (f" and {len(names) - 1} more" if names[1:] else "")


def cases() -> list:
    """The cases of the rules' tests."""
    for folder in (TESTS, TESTS / "operators"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    import test_axis_rules

    return test_axis_rules.CASES


def missing() -> Iterator[str]:
    """One line per operator that the table lacks."""
    for op, reason in sorted(UNSUPPORTED.items()):
        yield f"| {op} | {reason} |"


if __name__ == "__main__":
    main()
