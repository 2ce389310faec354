"""Switches each check of a merge and of what is written off, one by one: at least one test must fail for each.

    python tools/study_mutations.py -o tools/results/study_mutations.json
    python tools/study_mutations.py --only planted lambda_1

A check that can be switched off without a test failing checks nothing that anybody would notice. Each mutation runs the
tests that stand beside its check in a process of its own, up to the first that fails. Exit code 1 unless all are
caught.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
NO_FAILURE, FAILURES = 0, 1  # exit codes of pytest


@dataclass(frozen=True)
class Mutation:
    """One check, switched off.

    Attributes:
        what: what is no longer done.
        instead: what stands in its place, by "module:name" or "module:class.name" of where it is looked up.
        tests: what should notice, as pytest is given it.
    """

    what: str
    instead: Mapping[str, Any]
    tests: tuple[str, ...]


def gives(value: Any) -> Callable[..., Any]:
    """A function that always gives one value."""
    return lambda *_, **__: value


def passed(name: str) -> Callable[..., Any]:
    """A check that passes whatever it is given."""
    from mal_graph.protocols import Check

    return gives(Check(name, True, "switched off"))


def by_place(base: Any, donor: Any, what: str, mine: Any, theirs: Any, given: Any) -> tuple[dict[str, str], str]:
    """Values paired by their places."""
    names = ([value.name for value in side] for side in (mine, theirs))
    return dict(zip(*names, strict=False)), "place"


def mutations() -> dict[str, Mutation]:
    """Every check that stands between a wrong merge and its user, by name."""
    from mal_graph.network import IntegerUse
    from mal_graph.operators import GroupState
    from mal_graph.operators.marks import Pin
    from mal_graph.workflows import promises
    from mal_graph.workflows.culprits import Search

    equal = passed(promises.EQUAL_FUNCTIONS)()
    workflows, matching = "tests/workflows/", "tests/matching/"
    near = "tests/symmetry/test_near.py"
    rewritten = "tests/laws/test_equivalence.py::test_a_rewritten_copy_gives_the_base_back"
    return {
        "equal_functions": Mutation(
            "merges of equal functions are not compared with the base",
            {"mal_graph.workflows.promises:keep_equal_functions": gives(({}, equal))},
            (f"{workflows}test_promises.py",),
        ),
        "more_samples": Mutation(
            "equal functions are told by the few samples of the probe",
            {"mal_graph.workflows.promises:more_samples": gives([])},
            (f"{workflows}test_promises.py",),
        ),
        "lambda_1": Mutation(
            "lambda 1 is not compared with the donor",
            {"mal_graph.workflows.promises:compare_with_donor": gives(promises.told(True, "switched off"))},
            (f"{workflows}test_promises.py",),
        ),
        "culprits": Mutation(
            "what misses the donor is not looked for layer by layer",
            {"mal_graph.workflows.promises:find_culprits": gives(Search())},
            (f"{workflows}test_promises.py",),
        ),
        "told": Mutation(
            "a comparison passes that would have passed without a merge",
            {"mal_graph.workflows.culprits:count_told": gives(1)},
            (f"{workflows}test_promises.py",),
        ),
        "planted": Mutation(
            "no shuffled donor is put back",
            {"mal_graph.workflows.steps:planted_check": passed("planted")},
            (f"{workflows}test_promises.py",),
        ),
        "accounts": Mutation(
            "merged, kept and settings need not add up",
            {"mal_graph.workflows.checks:accounts_check": passed("accounts")},
            ("tests/merging/test_accounts.py", "tests/end_to_end"),
        ),
        "written_alike": Mutation(
            "a merge that misses the donor always has an excuse",
            {"mal_graph.workflows.promises:are_written_alike": gives(False)},
            (f"{workflows}test_promises.py",),
        ),
        "relations": Mutation(
            "what the two models are to each other is not said",
            {"mal_graph.workflows.notes:relations_of": gives(())},
            (f"{workflows}test_relations.py", f"{workflows}test_promises.py"),
        ),
        "position_names": Mutation(
            "pinned positions pair by their numbers",
            {"mal_graph.matching.group_pairing:pair_by_names": gives(None)},
            (f"{matching}test_named_positions.py", f"{rewritten}[concat_order]"),
        ),
        "signatures": Mutation(
            "inputs and outputs pair by their places",
            {"mal_graph.matching.signatures:pair_values": by_place},
            (f"{matching}test_signatures.py",),
        ),
        "class_names": Mutation(
            "classifiers pair though their classes have other names",
            {"mal_graph.matching.canonical:find_misnamed": gives({})},
            (f"{matching}test_class_names.py",),
        ),
        "integers": Mutation(
            "what stored integers do is not asked",
            {
                "mal_graph.symmetry.tracing:integer_use": gives(IntegerUse.STEERS),
                "mal_graph.matching.correspondence:integer_use": gives(IntegerUse.STEERS),
            },
            ("tests/network/test_integers.py",),
        ),
        "masks": Mutation(
            "masks may differ",
            {"mal_graph.merging.planning:find_other_masks": gives({})},
            ("tests/network/test_integers.py",),
        ),
        "inner_orders": Mutation(
            "units that are not assigned are merged in stored order",
            {"mal_graph.matching.assignment:find_other_inner_orders": gives({})},
            (f"{matching}test_inner_orders.py",),
        ),
        "settings": Mutation(
            "settings of two operators are not compared",
            {"mal_graph.matching.differences:differing_settings": gives([])},
            (f"{matching}test_differences.py",),
        ),
        "input_settings": Mutation(
            "what prepares the inputs is not compared",
            {"mal_graph.matching.canonical:find_other_settings": gives({})},
            (f"{matching}test_input_settings.py",),
        ),
        "unlearned": Mutation(
            "what nobody learned is merged",
            {"mal_graph.network.parameters:find_unlearned": gives({})},
            ("tests/merging/test_settings_kept.py",),
        ),
        "setting_differences": Mutation(
            "what nobody learned may differ unsaid",
            {"mal_graph.matching.canonical:compare_settings": gives(({}, {}))},
            ("tests/merging/test_settings_kept.py",),
        ),
        "unit_kinds": Mutation(
            "what two trainings left alike says nothing of the units",
            {"mal_graph.matching.correspondence:find_kinds": gives({})},
            ("tests/laws/test_unit_kinds.py",),
        ),
        "chance": Mutation(
            "an alignment is not compared with chance",
            {"mal_graph.workflows.steps:compare_with_chance": gives(None)},
            (f"{workflows}test_relations.py",),
        ),
        "dequantised": Mutation(
            "a donor's integers are not seen as the weights they stand for",
            {"mal_graph.workflows.steps:dequantised": lambda graph, runner: graph},
            (f"{workflows}test_quantised_donors.py", "tests/network/test_dequantising.py"),
        ),
        "constants": Mutation(
            "tensors that are stored once for their equal values tie their readers",
            {"mal_graph_adapters.onnx_format.view:with_own_constants": lambda graph: graph},
            ("tests/adapters/onnx_format",),
        ),
        "arranged": Mutation(
            "tensors that are stored once for their equal values tie readers of what is arranged of them",
            {"mal_graph.network.copies:find_arranged": gives({})},
            ("tests/adapters/onnx_format/test_constants.py",),
        ),
        "tied": Mutation(
            "a tensor that is the same along one axis ties nothing along the others",
            {"mal_graph.symmetry.tracing:tie_copies": gives(None)},
            ("tests/adapters/onnx_format/test_constants.py",),
        ),
        "weight_orders": Mutation(
            "what a weight is computed of is compared in the order of axes in which it is stored",
            {
                "mal_graph.network.parameters:find_weight_orders": gives({}),
                "mal_graph.network.integers:find_weight_orders": gives({}),
            },
            ("tests/network/test_weight_orders.py",),
        ),
        "contract": Mutation(
            "what reads an output by the places of its classes freezes them",
            {
                "mal_graph.operators.marks:Pin.strength": property(lambda pin: 4 if pin.is_data else 2),
                "mal_graph.operators.ordering:counting_pin": gives(Pin(GroupState.FROZEN, "switched off")),
            },
            (f"{rewritten}[argmax_beside]", f"{rewritten}[topk_beside]"),
        ),
        "ties": Mutation(
            "shared tensors that tie groups are not listed",
            {"mal_graph.reporting.inspection:find_ties": gives(())},
            ("tests/symmetry/test_ties.py",),
        ),
        "near_tensors": Mutation(
            "tensors are not compared with what the labels tell of their order",
            {"mal_graph.symmetry.walks:Walk.compare": gives({})},
            (near,),
        ),
        "near_controls": Mutation(
            "a group passes near by though no member shows",
            {"mal_graph.symmetry.near:silent_side": gives("")},
            (near,),
        ),
        "near_blind": Mutation(
            "a group passes near by though no label tells the order of what an operator gives",
            {"mal_graph.symmetry.near:unseen_groups": gives(frozenset())},
            (near,),
        ),
        "near_apart": Mutation(
            "groups of few units are never moved without each other near by",
            {"mal_graph.symmetry.walks:apart": gives(())},
            (near,),
        ),
        "self_check": Mutation(
            "the donor is not run in the orders used",
            {"mal_graph.workflows.steps:self_check": gives(0.0)},
            (f"{workflows}test_assembly.py",),
        ),
        **trust_mutations(),
    }


def trust_mutations() -> dict[str, Mutation]:
    """Every check that stands between a written file and who relies on it, by name."""
    written, seals, audits = "tests/test_atomic_write.py", "tests/laws/test_seals.py", "tests/cli/test_audits.py"
    return {
        "named_data": Mutation(
            "whether another model names old data is not looked for",
            {"mal_graph.atomic_write:holds": gives(False)},
            (written,),
        ),
        "old_data": Mutation("old data stay", {"mal_graph.atomic_write:remove_unnamed": gives(None)}, (written,)),
        "flushed_names": Mutation(
            "names are not flushed before what relies on them",
            {"mal_graph.atomic_write:flush_folder": gives(None)},
            (written,),
        ),
        "abandoned": Mutation(
            "what a killed run left stays", {"mal_graph.atomic_write:remove_abandoned": gives(None)}, (written,)
        ),
        "changed_inputs": Mutation(
            "a file that was read may be another one in the end",
            {"mal_graph.source_files:SourceFile.refuse_changed": gives(None)},
            ("tests/test_source_files.py", audits),
        ),
        "sealed": Mutation(
            "a file is not sealed", {"mal_graph_adapters.onnx_format.file:has_provenance": gives(False)}, (seals,)
        ),
        "audited_inputs": Mutation(
            "an audit takes any models for the inputs",
            {"mal_graph.workflows.auditing:inputs_check": passed("inputs")},
            (seals,),
        ),
        "repeated": Mutation(
            "an audit does not compare what comes out",
            {"mal_graph.workflows.auditing:differences": gives(())},
            (seals,),
        ),
        "noted_files": Mutation(
            "a note in a file may name a file to read",
            {"mal_graph.workflows.auditing:option_of": gives(SimpleNamespace(reads_file=False))},
            (seals,),
        ),
        "altered_state": Mutation(
            "the state of a zoo may be altered",
            {"mal_graph.workflows.checkpoint:json_text": gives("")},
            ("tests/workflows/test_zoo_search.py::test_a_state_of_which_any_value_is_altered_is_refused",),
        ),
        "shown": Mutation(
            "a terminal obeys names",
            {"mal_graph.plain_text:escape": lambda letter: letter},
            ("tests/test_plain_text.py", audits),
        ),
        "formulas": Mutation(
            "a cell may be a formula",
            {"mal_graph.reporting.document:cell": lambda value: value},
            ("tests/test_plain_text.py",),
        ),
        "logs": Mutation(
            "other packages log as they like", {"mal_graph.cli.app:captured_logs": lambda _: nullcontext()}, (audits,)
        ),
    }


def apply(mutation: Mutation) -> None:
    """Put what stands instead in every place of the check."""
    for target, instead in mutation.instead.items():
        module, _, path = target.partition(":")
        *owners, name = path.split(".")
        place = reduce(getattr, owners, importlib.import_module(module))
        if not hasattr(place, name):
            raise AttributeError(f"{target} is not there: the check has moved, so name its new place")
        setattr(place, name, instead)


def run_mutated(name: str, extra: Sequence[str]) -> int:
    """Run the tests of one mutation in this process."""
    import pytest

    mutation = mutations()[name]
    apply(mutation)
    return int(
        pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", *extra, *mutation.tests])
    )


def caught(name: str, mutation: Mutation) -> dict[str, Any]:
    """What became of one mutation, in a process of its own."""
    began = time.monotonic()
    ran = subprocess.run([sys.executable, __file__, "--apply", name], cwd=ROOT, capture_output=True, text=True)
    failed = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    made = {
        "name": name,
        "what": mutation.what,
        "caught": ran.returncode == FAILURES and bool(failed),
        "by": failed[0].split(" ")[0] if failed else "",
    }
    print(
        f"{name}: {'caught by ' + made['by'] if made['caught'] else 'NOT caught'} ({time.monotonic() - began:.0f} s)",
        flush=True,
    )
    if ran.returncode not in (NO_FAILURE, FAILURES):
        print(ran.stdout[-2000:] + ran.stderr[-2000:], file=sys.stderr)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some mutations alone")
    parser.add_argument("--apply", metavar="NAME", help="run the tests of one mutation here")
    parser.add_argument("-o", "--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    if options.apply:
        return run_mutated(options.apply, [])
    known = mutations()
    made = [caught(name, known[name]) for name in options.only or known]
    if options.output:
        options.output.write_text(json.dumps({"mutations": made}, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["caught"] for row in made))


if __name__ == "__main__":
    sys.exit(main())
