"""The command line as a user meets it: what is printed where, what is written, and how bad input is told."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import Net, cnn, mlp, narrower, permuted_copy, save
from cli_runs import Ran, contents
from onnx import helper, numpy_helper

import mal_graph
from mal_graph.cli import app
from mal_graph.config import MergeConfig
from mal_graph.protocols import Check
from mal_graph.symmetry import axis_groups

NAME = r"[\w.]+"
STRANGERS = r"note: \w+\.onnx and the base have nothing to align: [^\n]+\n"
KEYS = {
    "inspect": ["schema", "parameters", "coverage", "missing", "settings", "layers", "groups", "unknown_ops"],
    "match": ["schema", "pairs", "unmatched_base", "unmatched_donor", "matched_parameters"],
    "assemble": ["schema", "base", "donors", "lam", "merged", "skipped", "merged_parameters", "checks", "scores"],
    "evaluate": ["schema", "scores", "notes"],
    "sweep": ["schema", "base", "donor", "lambdas", "config", "curves", "donor_scores", "findings"],
    "zoo": ["schema", "base", "decided_by", "gate", "donors", "merged", "checks", "scores", "checkpoint", "sha256"],
}


def without_colours(text):
    """Help and usage as words; typer colours them where an environment variable asks for it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def stored(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


# --- inspect ----------------------------------------------------------------------------------------------------


def test_inspect_prints_layers_and_verified_groups(run, folder):
    ran = run("inspect", "base.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert "input   x float32 (N, 8)" in ran.out
    assert (
        "413 float parameters, 0 of them settings; 100.0% of the others are verified or fixed by contract on every axis"
        in ran.out
    )
    assert re.search(rf"Gemm_0 +linear +0 +{NAME}\[1\] +Gemm_0", ran.out)
    assert len(re.findall(r"^Gemm_[02] +\d+ +verified +3", ran.out, re.M)) == 2
    assert "and 2 pinned groups" in ran.out


def test_inspect_json_has_the_promised_keys(run, folder):
    found = run("inspect", "base.onnx", "--format", "json").json
    assert next(iter(found)) == "schema"
    assert set(KEYS["inspect"]) <= set(found)
    assert {"name", "kind", "weights", "in_group", "out_group", "depth"} == set(found["layers"][0])
    assert {"name", "units", "state", "reason", "inside", "members"} <= set(found["groups"][0])
    assert {"tensor", "axis", "role"} == set(found["groups"][0]["members"][0])  # unit u is index u
    assert {member["tensor"] for group in found["groups"] for member in group["members"]} == set(stored("base.onnx"))


def test_inspect_lists_positions_where_a_unit_is_many_indices(run, folder):
    save(cnn((4,), blocks=0, head="flatten", size=4), folder / "flat.onnx")
    found = run("inspect", "flat.onnx", "--format", "json").json
    group = next(group for group in found["groups"] if group["state"] == "verified")
    (member,) = [member for member in group["members"] if "positions" in member]
    assert np.array_equal(member["positions"], np.arange(64).reshape(4, 16))


def test_inspect_gathers_the_groups_that_lie_alike_inside_the_units_of_another(run, folder):
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 8))
    save(net.proto(net.conv(net.op("Relu", net.conv(x, 8, 6, group=2)), 6, 5)), folder / "grouped.onnx")
    ran = run("inspect", "--verify", "grouped.onnx")
    assert re.search(r"^Conv_2 +2 x 3 +verified +3 .* inside Conv_0$", ran.out, re.MULTILINE), ran.out
    apart = run("inspect", "-v", "grouped.onnx")
    assert re.search(r"^Conv_2#2 +3 +verified .* inside Conv_0, unit 1$", apart.out, re.MULTILINE), apart.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--max-memory", "1KB"), "the verification would take about"),
        (("--no-verify",), "not verified"),
    ],
)
def test_inspect_says_why_groups_stay_unverified(run, folder, words, reason):
    ran = run("inspect", "base.onnx", *words)
    assert ran.code == 0
    assert reason in ran.out
    assert not re.search(r"\d  verified ", ran.out)


def test_inspect_tests_what_added_units_would_do(run, folder):
    ran = run("inspect", "base.onnx", "--resize-checks")
    assert ran.code == 0
    assert re.search(r"^units added to a group\n.*\nGemm_0 +not read; silent; sliced$", ran.out, re.MULTILINE), ran.out
    found = run("inspect", "base.onnx", "--resize-checks", "--format", "json").json
    assert {group["resizing"] for group in found["groups"] if group["state"] == "verified"} == {
        "not read; silent; sliced"
    }
    assert "units added" not in run("inspect", "base.onnx").out


def test_inspect_gives_up_a_verification_when_its_time_is_up(run, folder):
    ran = run("inspect", "base.onnx", "--verify-timeout", "0")
    assert ran.code == 0
    assert "when its time was up" in ran.err


@pytest.mark.parametrize("size", ["much", "8 gallons", "-1", ""])
def test_a_size_that_is_none_is_refused(refused, folder, size):
    refused("inspect", "base.onnx", f"--max-memory={size}", match="is no size: write a number of bytes")


@pytest.mark.parametrize(("text", "size"), [("1000", 1000), ("2kb", 2000), ("1.5KiB", 1536), ("8 GiB", 8 * 2**30)])
def test_a_size_may_be_written_as_bytes_or_with_a_unit(text, size):
    assert MergeConfig(max_memory=text).max_memory == size


def test_inspect_names_operators_without_a_rule_and_what_they_cost(run, folder):
    net = Net()
    x = net.op("Trilu", net.linear(net.input("x", ("N", 8)), 8, 6), domain="com.microsoft")
    save(net.proto(net.linear(x, 6, 4)), folder / "odd.onnx")
    found = run("inspect", "odd.onnx", "--format", "json").json
    assert found["unknown_ops"]["com.microsoft.Trilu"]["frozen_parameters"] > 0
    ran = run("inspect", "odd.onnx")
    assert re.search(
        r"operator com.microsoft.Trilu has no axis rule: it freezes \d+ parameters \(nodes Trilu_1\)", ran.out
    )
    assert re.search(r"frozen +\d+ .*Trilu", ran.out)


def test_without_verification_the_groups_are_reported_as_unverified(run, folder):
    found = run("inspect", "base.onnx", "--no-verify", "--format", "json").json
    assert {group["state"] for group in found["groups"]} == {"unverified", "pinned"}
    assert found["coverage"] == pytest.approx(5 / 413)  # the last bias: its order is that of the output


def test_probe_inputs_can_be_given_by_shape_and_by_file(run, folder):
    given = run("inspect", "base.onnx", "--input-shape", "x:5,8", "--format", "json")
    assert given.code == 0
    np.savez("probe.npz", x=np.ones((2, 8), np.float32))
    for words in (["inspect", "base.onnx"], ["assemble", "base.onnx", "donor.onnx", "--dry-run", "--method", "mal"]):
        assert run(*words, "--inputs", "probe.npz").code == 0
        assert run(*words, "--input-shape", "x:5,8").code == 0


# --- match ------------------------------------------------------------------------------------------------------


def test_match_prints_pairs_with_widths_and_reasons(run, folder):
    ran = run("match", "base.onnx", "donor.onnx", "-v")
    assert (ran.code, ran.err.count("loaded")) == (0, 2)
    assert re.search(r"^Gemm_0 +Gemm_0 +0\.\d\d +8 : 8 +16 : 12 +size-compatible +\w", ran.out, re.M)
    assert re.search(r"^Gemm_2 +Gemm_2 +0\.\d\d +16 : 12 +12 : 14 +size-incompatible", ran.out, re.M)
    assert "3 pairs (2 size-compatible, 1 size-incompatible), 413 parameters of the base" in ran.out


def test_match_fits_80_columns_and_sums_up_what_is_left(run, folder):
    ran = run("match", "other.onnx", "base.onnx")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "1 donor layers without a partner (-v lists them)" in ran.out
    whole = run("match", "other.onnx", "base.onnx", "-v")
    assert re.search(r"^donor layer Gemm_\d has no partner: \w+", whole.out, re.M)


def test_match_json_has_the_promised_keys(run, folder):
    found = run("match", "base.onnx", "other.onnx", "--format", "json").json
    assert next(iter(found)) == "schema"
    assert set(KEYS["match"]) <= set(found)
    assert set(found["pairs"][0]) == {"base", "donor", "score", "reason", "widths", "relation", "differences"}
    assert {key: len(widths) for key, widths in found["pairs"][0]["widths"].items()} == {"in": 2, "out": 2}
    assert {"layer", "reason"} == set(found["unmatched_base"][0])
    assert found["unmatched_base"][0]["reason"]
    assert found["unmatched_donor"] == []


@pytest.mark.parametrize(("format_", "start"), [("mermaid", "flowchart"), ("dot", "digraph")])
def test_a_match_can_be_drawn_to_stdout_or_to_a_file(run, folder, format_, start):
    ran = run("match", "base.onnx", "donor.onnx", "--format", format_)
    assert ran.out.startswith(start)
    to_file = run("match", "base.onnx", "donor.onnx", "--format", format_, "-o", "drawn")
    assert (to_file.out, to_file.err) == ("", "wrote drawn\n")
    assert Path("drawn").read_text() == ran.out


def test_explain_ranks_the_candidates(run, folder):
    ran = run("match", "base.onnx", "donor.onnx", "--explain", "Gemm_2")
    scores = [float(found) for found in re.findall(r"^Gemm_\d +(\d\.\d+)", ran.out, re.M)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    found = run("match", "base.onnx", "donor.onnx", "--explain", "Gemm_2", "--format", "json").json
    assert list(found) == ["schema", "layer", "candidates"]
    assert set(found["candidates"][0]) == {"donor", "score", "parts"}


def test_pairs_written_and_edited_are_the_pairs_used(run, folder):
    run("match", "base.onnx", "other.onnx", "-o", "pairs.json")
    document = json.loads(Path("pairs.json").read_text())
    document["pairs"] = [{"base": "Gemm_2", "donor": "Gemm_0"}]
    Path("pairs.json").write_text(json.dumps(document))
    found = run("match", "base.onnx", "other.onnx", "--matches", "pairs.json", "--format", "json").json
    assert [(pair["base"], pair["donor"]) for pair in found["pairs"]] == [("Gemm_2", "Gemm_0")]
    document["pairs"] = [{"base": "Gemm_0", "donor": "Gemm_0"}]
    Path("pairs.json").write_text(json.dumps(document))
    ran = run("assemble", "base.onnx", "other.onnx", "--matches", "pairs.json", "--format", "json")
    assert [(pair["base"], pair["donor"]) for pair in ran.json["merged"]] == [("Gemm_0", "Gemm_0")]
    assert {skipped["layer"] for skipped in ran.json["skipped"]} == {"Gemm_2", "Gemm_4"}


# --- assemble ---------------------------------------------------------------------------------------------------


def test_assemble_word_for_word(folder):
    command = Path(sys.executable).with_name("mal-graph")
    done = subprocess.run(
        [command, "assemble", "base.onnx", "donor.onnx", "--method", "mal"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert re.fullmatch(STRANGERS, done.stderr)
    merged = ort.InferenceSession(folder / "base.merged.onnx")
    images = np.load(folder / "data.npz")["x"]
    (out,) = merged.run(None, {"x": images})
    (before,) = ort.InferenceSession(folder / "base.onnx").run(None, {"x": images})
    assert np.isfinite(out).all()
    assert np.abs(out - before).max() > 0.01 * np.abs(before).max()  # a merge, not the base


def test_assemble_says_what_was_merged_and_what_not_and_why(run, folder):
    ran = run("assemble", "base.onnx", "other.onnx", "--layers", "Gemm_0", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^Gemm_0 +Gemm_0 +other.onnx +\S+ +\d+%", ran.out, re.M)
    assert "layer Gemm_4 keeps the base's weights: not selected" in ran.out
    assert re.search(r"layer Gemm_2 keeps the base's weights: \w+", ran.out)
    assert "144 parameters merged at lambda 0.3; shares: base.onnx 89.5%, other.onnx 10.5%" in ran.out
    assert "of 413 float parameters of the base: merged 144 (34.9%), kept 269 (65.1%), settings 0 (0.0%)" in ran.out
    assert re.findall(r"^check (\w+): passed", ran.out, re.M) == [
        "finite",
        "self_check",
        "accounts",
        "planted",
        "onnx_checker",
        "onnxruntime",
    ]
    assert "wrote base.merged.onnx" in ran.out


def test_assemble_says_which_donor_layers_are_not_used(run, folder):
    ran = run("assemble", "other.onnx", "base.onnx", "--method", "mal")
    assert re.search(r"^donor layer Gemm_\d is not used: \w+", ran.out, re.M)


def test_assemble_json_has_the_promised_keys(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "--data", "data.npz", "--format", "json", "--method", "mal")
    found = ran.json
    assert next(iter(found)) == "schema"
    assert set(KEYS["assemble"]) <= set(found)
    assert (found["base"], found["donors"], found["lam"]) == ("base.onnx", ["donor.onnx"], 0.3)
    assert {"base", "donor", "relation"} <= set(found["merged"][0])
    assert {"arm", "loss", "metric"} <= set(found["scores"][0])
    assert not any(check["passed"] is False for check in found["checks"])
    assert {"finite", "self_check", "accounts", "equal_functions", "lambda_1"} <= {c["name"] for c in found["checks"]}
    assert found["output"] == "base.merged.onnx"


def test_a_base_that_grows_says_what_grew_and_checks_it(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "--width", "grow", "--format", "json")
    assert ran.json["config"]["width"] == "grow"
    ran = run("assemble", "base.onnx", "donor.onnx", "--width", "grow", "--force", "-v", "-q")
    assert "group Gemm_2 grows from 12 to 14 units" in ran.out
    assert re.search(r"^Gemm_2 +Gemm_2 +12 \+ 2 : 14 +14 ", ran.out, re.M)
    assert re.search(r"^start \w+: objective \S+ -> ", ran.out, re.M)
    assert "check lambda_0: passed" in ran.out
    ran = run("assemble", "other.onnx", "base.onnx", "--width", "grow", "--depth", "expand")
    assert re.search(r"^layer relu\d\.identity is added to the base, whose function it leaves as it is$", ran.out, re.M)
    assert ran.out.count("passed") == 7


@pytest.mark.parametrize("option", ["width", "depth"])
def test_an_unknown_width_or_depth_is_refused(refused, option):
    refused(
        "assemble",
        "base.onnx",
        "donor.onnx",
        f"--{option}",
        "more",
        "--method",
        "mal",
        match=f"{option} is 'more': choose one of",
    )


def test_the_scores_of_every_arm_come_last(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "--data", "data.npz", "--method", "mal")
    *_, verdict = lines = ran.out.splitlines()
    lines = lines[-10:-2]
    assert lines[0].split() == ["model", "loss", "accuracy"]
    arms = ["base", "donor", "merged", "plain average", "random permutation", "random donor", "ensemble"]
    assert [re.split(r"  +", line)[0] for line in lines[1:]] == arms
    assert re.match(r"verdict: \w+ .*than the base: accuracy 0\.\d+ against 0\.\d+, loss \d", verdict)


def test_a_donor_with_another_head_is_merged_and_it_is_said_why_it_has_no_score(run, folder):
    save(mlp((8, 16, 12, 100), seed=3), folder / "hundred.onnx")
    ran = run("assemble", "base.onnx", "hundred.onnx", "--data", "data.npz", "-q", "--method", "mal")
    assert (ran.code, ran.err) == (0, "")
    told = "of hundred.onnx tells 100 classes apart, the base's 5"
    assert re.search(rf"^note: donor has no score and no part in the ensemble: output '\w+' {told}$", ran.out, re.M)
    assert re.search(r"^merged +\d", ran.out, re.M)
    assert not re.search(r"^(donor|ensemble) +\d", ran.out, re.M)
    swept = run("sweep", "base.onnx", "hundred.onnx", "--data", "data.npz", "--lambdas", "0.5")
    assert swept.code == 0
    assert re.search(rf"^the donor alone has no score: output '\w+' {told}$", swept.out, re.M)


def test_a_merge_of_batch_norms_says_that_their_statistics_are_not_measured_again(run, folder):
    save(cnn((4, 4), seed=0), folder / "a.onnx")
    save(cnn((4, 4), seed=1), folder / "b.onnx")
    ran = run("assemble", "a.onnx", "b.onnx", "-q", "--method", "mal")
    assert "note: the statistics of 6 BatchNormalizations are not measured again on data" in ran.out
    assert "not measured again" not in run("assemble", "base.onnx", "donor.onnx", "--method", "mal").out


def test_a_merge_of_batch_norms_is_repaired_on_calibration_inputs(run, folder):
    save(cnn((4, 4), seed=0), folder / "a.onnx")
    save(cnn((4, 4), seed=1), folder / "b.onnx")
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(20, 3, 8, 8)).astype(np.float32), "labels": rng.integers(0, 5, 20)}
    np.savez(folder / "some.npz", **arrays)
    ran = run("assemble", "a.onnx", "b.onnx", "--calibrate", "some.npz", "--data", "some.npz", "-q", "--method", "mal")
    assert (
        "repaired after b.onnx on 20 samples: 1 layers brought to their targets, 6 BatchNormalizations measured anew"
        in ran.out
    )
    assert "are not measured again" not in ran.out
    assert "note: the labels among the calibration inputs are not used" in ran.out
    assert "base, repaired" in ran.out
    assert run("assemble", "a.onnx", "b.onnx", "--lambda", "0", "--calibrate", "some.npz", "-o", "same.onnx").code == 0
    assert all(map(np.array_equal, stored("same.onnx").values(), stored("a.onnx").values()))


def test_the_signal_is_chosen_and_repair_can_be_left_out(run, folder):
    words = (
        "assemble",
        "base.onnx",
        "donor.onnx",
        "--calibrate",
        "data.npz",
        "--format",
        "json",
        "--force",
        "--method",
        "mal",
    )
    both, plain = (run(*words, *more).json for more in (("--match-by", "both"), ("--no-repair",)))
    assert (both["config"]["match_by"], plain["config"]["match_by"]) == ("both", "weights")
    assert ([len(done["rescaled"]) for done in both["repair"]], plain["repair"]) == ([3], [])


def test_a_dry_run_writes_no_model(run, folder):
    before = contents(folder)
    ran = run("assemble", "base.onnx", "donor.onnx", "--dry-run", "--method", "mal")
    assert ran.code == 0
    assert "no model was written" in ran.out
    assert "413 parameters merged" in ran.out
    assert contents(folder) == before
    found = run("assemble", "base.onnx", "donor.onnx", "--dry-run", "--format", "json", "--method", "mal").json
    assert found["output"] is None


def test_a_dry_run_does_not_mind_an_existing_target(run, folder):
    (folder / "base.merged.onnx").write_text("mine")
    assert run("assemble", "base.onnx", "donor.onnx", "--dry-run", "--method", "mal").code == 0


def test_the_report_file_holds_what_json_prints(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "--report", "report.json", "--format", "json", "--method", "mal")
    assert json.loads(Path("report.json").read_text()) == ran.json


def test_force_overwrites_what_exists(run, folder):
    for name in ("out.onnx", "report.json"):
        (folder / name).write_text("old")
    ran = run(
        "assemble", "base.onnx", "donor.onnx", "-o", "out.onnx", "--report", "report.json", "--force", "--method", "mal"
    )
    assert ran.code == 0
    assert set(stored("out.onnx")) == set(stored("base.onnx"))
    assert json.loads(Path("report.json").read_text())["output"] == "out.onnx"


def test_several_donors_merge_in_order_and_shares_add_up(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "other.onnx", "--lambda", "0.5", "--data", "data.npz")
    shares = [float(share) for share in re.findall(r"\.onnx ([\d.]+)%", ran.out.partition("shares: ")[2])]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares[2] < 50, "a layer of the base has no partner in the last donor"
    assert re.search(r"^donor 1 .*\ndonor 2 .*\nmerged ", ran.out, re.M)
    assert re.search(r"keeps the base's weights: other.onnx: \w+", ran.out)


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("Gemm_[02]", ["Gemm_0", "Gemm_2"]),
        ("*4", ["Gemm_4"]),
        ("0:2", ["Gemm_0", "Gemm_2"]),
        ("1:", ["Gemm_2", "Gemm_4"]),
        ("0%:50%", ["Gemm_0", "Gemm_2"]),
        ("50%:100%", ["Gemm_4"]),
    ],
)
def test_layers_are_selected_by_pattern_index_and_depth(run, folder, selector, chosen):
    found = run("assemble", "base.onnx", "donor.onnx", "--dry-run", "--layers", selector, "--format", "json").json
    assert [layer["base"] for layer in found["merged"]] == chosen
    assert {layer["reason"] for layer in found["skipped"]} == {"not selected"}


def test_pads_decide_what_units_without_a_partner_become(run, folder):
    base = mal_graph.load("base.onnx")
    donor, _ = narrower(base, mal_graph.axis_groups(base), seed=3)
    save(donor, folder / "narrow.onnx")
    written = {}
    for unmatched in ("keep", "fade", "zero"):
        assert (
            run("assemble", "base.onnx", "narrow.onnx", "--unmatched", unmatched, "-o", f"{unmatched}.onnx").code == 0
        )
        written[unmatched] = np.concatenate([np.abs(w).ravel() for w in stored(f"{unmatched}.onnx").values()]).sum()
    assert written["keep"] > written["fade"] > written["zero"]


def test_without_verification_a_merge_says_so(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "--no-verify", "--method", "mal")
    assert ran.code == 0
    assert "check self_check: not run: the groups are unverified" in ran.out


def test_lambda_zero_writes_the_base_bit_for_bit(run, folder):
    assert run("assemble", "base.onnx", "donor.onnx", "--lambda", "0").code == 0
    base, merged = stored("base.onnx"), stored("base.merged.onnx")
    assert list(base) == list(merged)
    assert all(np.array_equal(base[name], merged[name]) for name in base)


def test_a_shuffled_copy_of_the_base_merges_into_the_base(run, folder):
    base = mal_graph.load("base.onnx")
    save(permuted_copy(base, mal_graph.axis_groups(base), seed=1)[0], folder / "twin.onnx")
    assert run("assemble", "base.onnx", "twin.onnx", "--lambda", "1").code == 0
    base, merged = stored("base.onnx"), stored("base.merged.onnx")
    assert all(np.array_equal(base[name], merged[name]) for name in base)


def test_verbose_logs_to_stderr_and_quiet_does_not(run, folder):
    loud = run("assemble", "base.onnx", "donor.onnx", "-v", "--method", "mal")
    loaded = "".join(
        f"loaded {name}: 5 operators, {size} float parameters\n"
        for name, size in (("base.onnx", 413), ("donor.onnx", 365))
    )
    assert re.fullmatch(loaded + STRANGERS, loud.err)
    assert run("assemble", "base.onnx", "donor.onnx", "-o", "quiet.onnx", "-q", "--method", "mal").err == ""
    assert re.search(r"^Gemm_0 +Gemm_0 +16 : 12 +12 ", loud.out, re.M)
    quiet = run("match", "base.onnx", "donor.onnx", "-o", "pairs.json", "-q")
    assert quiet.err == ""
    assert "3 pairs" in quiet.out


def test_strangers_are_called_so_before_anything_is_written_and_fail_where_asked(run, folder):
    ran = run("assemble", "base.onnx", "donor.onnx", "-o", "merged.onnx", "--method", "mal")
    said = "donor.onnx and the base have nothing to align: the mean cosine of their aligned weights is 0."
    assert ran.code == 0
    assert said in " ".join(ran.out.split())
    asked = run(
        "assemble",
        "base.onnx",
        "donor.onnx",
        "-o",
        "asked.onnx",
        "--fail-if-worse",
        "--format",
        "json",
        "--method",
        "mal",
    )
    assert asked.code == 1
    assert "error: a donor has nothing to align with the base (--fail-if-worse)" in asked.err
    assert any(said in note for note in asked.json["notes"])


def test_a_copy_in_another_order_does_not_fail_where_asked(run, folder):
    base = mal_graph.load("base.onnx")
    copy, _ = permuted_copy(base, axis_groups(base))
    save(copy, folder / "copy.onnx")
    ran = run("assemble", "base.onnx", "copy.onnx", "-o", "merged.onnx", "--fail-if-worse", "--method", "mal")
    assert ran.code == 0
    assert "nothing to align" not in ran.out + ran.err


def test_a_merged_model_that_is_not_finite_fails_the_gate_and_is_not_written(run, folder):
    for name, sign in (("base", 1), ("donor", -1)):
        graph = mlp((8, 8, 5), seed=0)
        save(graph.with_weights({"w3": np.full(5, sign * 3e38, np.float32)}), folder / f"huge_{name}.onnx")
    before = contents(folder)
    ran = run("assemble", "huge_base.onnx", "huge_donor.onnx", "--method", "mal")
    assert ran.code == app.GATE_FAILED, ran.err
    assert re.fullmatch(
        r"error: no merged model was written: finite failed: output 'gemm2' is not finite on the probe inputs; .*\n",
        ran.err,
    )
    assert "no model was written" in ran.out
    assert contents(folder) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_layer_with_weights_that_are_not_finite_is_not_merged(run, folder, value):
    graph = mal_graph.load("donor.onnx")
    broken = graph.weights["w2"].read().copy()
    broken[1, 2] = value
    save(graph.with_weights({"w2": broken}), folder / "broken.onnx")
    ran = run("assemble", "base.onnx", "broken.onnx", "--method", "mal")
    assert ran.code == 0
    assert "keeps the base's weights: weight w2 of the donor holds NaN or infinity" in ran.out
    spoilt = run("assemble", "broken.onnx", "base.onnx", "--method", "mal")
    assert spoilt.code == app.GATE_FAILED
    assert "no merged model was written: finite failed" in spoilt.err


def test_a_model_that_the_runtime_refuses_is_not_put_in_place(run, folder, monkeypatch):
    def refuse(path):
        return Check("onnxruntime", path.name != "base.merged.onnx", "no such thing")

    monkeypatch.setattr("mal_graph_adapters.onnx_format.file.runtime_check", refuse)
    (folder / "base.merged.onnx").write_text("an older result")
    ran = run("assemble", "base.onnx", "donor.onnx", "--force", "--method", "mal")
    assert ran.code == app.GATE_FAILED
    assert "error: no merged model was written: onnxruntime failed: no such thing" in ran.err
    assert (folder / "base.merged.onnx").read_text() == "an older result"


def test_a_fault_that_the_base_has_already_fails_no_gate(run, folder, monkeypatch):
    odd = Check("onnx_checker", False, "an odd file")
    monkeypatch.setattr("mal_graph_adapters.onnx_format.file.checker_check", lambda path: odd)
    ran = run("assemble", "base.onnx", "donor.onnx", "--method", "mal")
    assert ran.code == 0
    assert "check onnx_checker: not run: the base does not pass it either: an odd file" in ran.out


# --- evaluate ---------------------------------------------------------------------------------------------------


def test_evaluate_scores_several_models_and_says_what_their_outputs_hold(run, folder):
    net = Net()
    save(net.proto(net.op("Softmax", net.linear(net.input("x", ("N", 8)), 8, 5))), folder / "soft.onnx")
    ran = run("evaluate", "base.onnx", "soft.onnx", "--data", "data.npz")
    assert (ran.code, ran.err) == (0, "")
    assert "base.onnx: output 'gemm4' is read as logits" in ran.out
    assert "soft.onnx: output 'softmax1' is read as probabilities" in ran.out
    assert "40 samples; loss is cross-entropy" in ran.out
    assert re.search(r"^soft.onnx +\d\.\d{4} +0\.\d{4}$", ran.out, re.M)


def test_evaluate_json_has_the_promised_keys(run, folder):
    found = run("evaluate", "base.onnx", "--data", "data.npz", "--format", "json").json
    assert list(found) == KEYS["evaluate"]
    assert {"arm", "loss", "metric", "output", "scores"} <= set(found["scores"][0])
    assert found["scores"][0]["scores"] == "logits"


def test_evaluate_takes_the_users_word_for_what_an_output_holds(run, folder):
    given = run("evaluate", "base.onnx", "--data", "data.npz", "--score-output", "gemm4", "--output-kind", "logits")
    assert given.code == 0
    wrong = run("evaluate", "base.onnx", "--data", "data.npz", "--output-kind", "probabilities")
    assert wrong.code == 2
    assert "holds no probabilities: try --output-kind=logits" in wrong.err


# --- sweep ------------------------------------------------------------------------------------------------------


def test_sweep_prints_every_arm_at_every_lambda_and_what_they_amount_to(run, folder):
    ran = run("sweep", "base.onnx", "donor.onnx", "--data", "data.npz", "--lambdas", "0:1:0.5")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^lambda +aligned +plain average +random permutation +random donor$", ran.out, re.M)
    assert re.search(r"^ +0\.5( +\d+\.\d{4}  \d\.\d{4}){4}$", ran.out, re.M)
    assert re.search(r"^aligned +\d[.\d]* +-?\d+\.\d{4} +-$", ran.out, re.M)
    found = run("sweep", "base.onnx", "donor.onnx", "--data", "data.npz", "--lambdas", "0.5", "--format", "json").json
    assert next(iter(found)) == "schema"
    assert set(KEYS["sweep"]) <= set(found)


def test_a_sweep_is_repaired_on_calibration_inputs_and_shows_repair_alone(run, folder):
    words = ("sweep", "base.onnx", "donor.onnx", "--data", "data.npz", "--lambdas", "0.5", "--calibrate", "data.npz")
    ran = run(*words, "--match-by", "both", "--rescale-invariant")
    assert (ran.code, ran.err) == (0, "")
    assert "repaired after donor.onnx on 40 samples: 3 layers brought to their targets" in ran.out
    assert re.search(
        r"^lambda +aligned +plain average +random permutation +random donor +base, repaired$", ran.out, re.M
    )
    assert "note: the labels among the calibration inputs are not used" in ran.out
    found = run(*words, "--match-by", "both", "--format", "json").json
    assert (found["config"]["match_by"], found["repair"][0]["samples"]) == ("both", 40)
    assert found["curves"][4]["name"] == "base, repaired"
    assert "base, repaired" not in run(*words, "--no-repair").out


def test_sweep_writes_the_form_that_the_name_ends_in(run, folder):
    pytest.importorskip("matplotlib")
    names = [f"curve.{kind}" for kind in ("json", "csv", "svg", "png")]
    targets = [word for name in names for word in ("-o", name)]
    ran = run("sweep", "base.onnx", "donor.onnx", "--data", "data.npz", "--lambdas", "0.5", *targets)
    assert (ran.code, ran.err.split()) == (0, [word for name in names for word in ("wrote", name)])
    starts = [(folder / name).read_bytes()[:5] for name in names]
    assert starts == [b'{\n  "', b"curve", b"<?xml", b"\x89PNG\r"]


def test_sweep_maps_the_layers(run, folder):
    ran = run("sweep", "--grid", "base.onnx", "donor.onnx", "--data", "data.npz", "-o", "grid.csv")
    assert ran.code == 0
    assert re.search(r"^base layer +Gemm_0 +Gemm_2 +Gemm_4$", ran.out, re.M)
    assert re.search(r"^\d pairs cannot be merged; -v says why$", ran.out, re.M)
    assert (folder / "grid.csv").read_text().startswith("base layer,donor layer,change of the loss,reason\n")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--lambdas", "0:1"], "is no list of numbers"),
        (["--lambdas", "0,2"], "2 is among the --lambdas"),
        (["--eps", "-1"], "--eps is '-1': give how much more loss"),
        (["-o", "curve.txt"], r"its name must end in \.json, \.html, \.md, \.csv, \.svg or \.png"),
        (["-o", "data.npz"], "it is one of the inputs"),
        (["--grid", "--lambdas", "0.5"], "grid has no option --lambdas: it is one of sweep and zoo"),
        (["--lambda", "0.5"], "sweep has no option --lambda: it is one of assemble and grid"),
        (["--grid", "--lambda", "2"], "--lambda is 2: give a merging factor"),
        (["--grid", "--lambda", "0.1,0.2"], "--lambda has several values"),
        (["--grid", "--calibrate", "data.npz"], "grid has no option --calibrate"),
        (["--grid", "--rescale-invariant"], "grid has no option --rescale-invariant"),
        (["--calibrate", "data.npz", "-o", "data.npz", "--force"], "it is one of the inputs"),
        (["--unmatched", "none"], "--unmatched is 'none': choose one of fade, keep, zero"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(refused, words, match):
    refused("sweep", "base.onnx", "donor.onnx", "--data", "data.npz", *words, match=match)


# --- zoo --------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo_folder(folder):
    """A folder of donors beside the base: a better copy, a stranger and what is no model. The labels are the copy's."""
    (folder / "zoo").mkdir()
    better, _ = permuted_copy(mal_graph.load("base.onnx"), axis_groups(mal_graph.load("base.onnx")), 1)
    save(better, folder / "zoo" / "a.onnx")
    save(mlp((8, 12, 14, 5), seed=1), folder / "zoo" / "b.onnx")
    (folder / "zoo" / "broken.onnx").write_bytes(b"no model")
    rng = np.random.default_rng(1)
    noisy = {n: v + 0.3 * rng.standard_normal(v.shape).astype(v.dtype) for n, v in stored("base.onnx").items()}
    save(mal_graph.load("base.onnx").with_weights(noisy), folder / "base.onnx")
    images = rng.normal(size=(80, 8)).astype(np.float32)
    out = ort.InferenceSession("zoo/a.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
    np.savez(folder / "data.npz", x=images, labels=out.argmax(axis=1))
    return folder


def test_a_zoo_is_merged_as_far_as_it_helps_and_everything_is_said(run, zoo_folder):
    ran = run("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx", "--report", "report.json")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^donor +merged +lambda +cross-entropy +accuracy +shuffled$", ran.out, re.M)
    assert re.search(r"^a\.onnx +accepted +\S.* +0\.\d+ +(\d\.\d{4} *){3}$", ran.out, re.M)
    assert re.search(r"^broken.onnx is skipped: cannot load .*broken.onnx: it holds no graph", ran.out, re.M)
    assert "decided by labels\non the 40 samples that decided: cross-entropy" in ran.out
    assert (
        "check onnxruntime: passed\nwarning: " in ran.out
    )  # the donors' outputs have little in common with the base's
    assert "wrote out.onnx\n\non samples that decided nothing:\n40 samples" in ran.out
    written = json.loads((zoo_folder / "report.json").read_text())
    assert next(iter(written)) == "schema"
    assert set(KEYS["zoo"]) <= set(written)
    assert set(written["sha256"]) == {"base.onnx", "zoo/a.onnx", "zoo/b.onnx", "zoo/broken.onnx", "data.npz"}
    assert (zoo_folder / written["checkpoint"]).is_file()
    again = run("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx", "--force", "-v", "--format", "json")
    assert again.json == {**written, "command": again.json["command"]}
    assert run("zoo", "base.onnx", "zoo", "--data", "data.npz", "-v").out.count("all layers") > 2


@pytest.mark.slow
def test_a_zoo_is_repaired_on_calibration_inputs_and_goes_on_with_the_same_alone(run, zoo_folder):
    arrays = dict(np.load("data.npz"))
    np.savez("some.npz", x=arrays["x"][:30])
    np.savez("others.npz", x=arrays["x"][30:60])
    words = ("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx", "--match-by", "both")
    ran = run(*words, "--calibrate", "some.npz")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^repaired after a\.onnx on 30 samples: \d layers brought to their targets", ran.out, re.M)
    assert re.search(r"^base, repaired +\d", ran.out, re.M)
    (zoo_folder / "out.onnx").unlink()
    found = run(*words, "--calibrate", "some.npz", "--format", "json").json
    assert (found["config"]["match_by"], found["repair"][0]["samples"]) == ("both", 30)
    assert "some.npz" in found["sha256"]
    (zoo_folder / "out.onnx").unlink()
    other = run(*words, "--calibrate", "others.npz")
    assert (other.code, other.out) == (app.BAD_INPUT, "")
    assert "its set of calibration inputs is not the one given" in other.err


@pytest.mark.slow
def test_a_zoo_that_is_interrupted_goes_on_from_its_state(run, zoo_folder, monkeypatch):
    words = ["zoo", "base.onnx", "zoo", "--data", "data.npz"]
    assert run(*words, "-o", "whole.onnx").code == 0
    module = sys.modules["mal_graph.workflows.zoo_search"]
    real = module.merge_step

    def interrupted(base, donor, *rest):
        if donor.name == "b.onnx":
            raise KeyboardInterrupt
        return real(base, donor, *rest)

    monkeypatch.setattr(module, "merge_step", interrupted)
    ran = run(*words, "-o", "out.onnx", "--checkpoint", "state.json")
    assert (ran.code, ran.out) == (app.INTERRUPTED, "")
    assert ran.err == "interrupted: what was decided is in state.json; the same command goes on from there\n"
    assert not (zoo_folder / "out.onnx").exists()
    monkeypatch.setattr(module, "merge_step", real)
    assert run(*words, "-o", "out.onnx", "--checkpoint", "state.json").code == 0
    assert (zoo_folder / "out.onnx").read_bytes() == (zoo_folder / "whole.onnx").read_bytes()
    assert (zoo_folder / "state.json").read_bytes() == (zoo_folder / "whole.onnx.zoo.json").read_bytes()


def test_a_zoo_without_data_says_that_nothing_was_scored(run, zoo_folder):
    ran = run("zoo", "base.onnx", "zoo")
    assert ran.code == 0
    assert "decided by structure alone: nothing was scored" in ran.out
    assert "on samples" not in ran.out
    assert (zoo_folder / "base.merged.onnx").is_file()


def test_a_zoo_that_has_nothing_to_give_fails_the_gate_and_writes_no_model(run, zoo_folder):
    (zoo_folder / "zoo" / "a.onnx").unlink()
    worse = {n: v * np.float32(-1e3) for n, v in stored("zoo/b.onnx").items()}
    save(mal_graph.load("zoo/b.onnx").with_weights(worse), zoo_folder / "zoo" / "b.onnx")
    ran = run("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx")
    assert ran.code == app.GATE_FAILED
    assert re.search("^b.onnx is refused: no candidate is better than the model so far", ran.out, re.M)
    assert "no donor passed the gate, and base.onnx stays as it is" in ran.err
    assert not (zoo_folder / "out.onnx").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nowhere"], "cannot read the zoo nowhere: No such file or directory"),
        (["base.onnx"], "cannot read the zoo base.onnx: Not a directory"),
        (["empty"], r"the zoo empty holds no \.onnx file"),
        (["unusable"], "none of 1 donors can be merged into base.onnx: x.onnx: cannot load .*: it holds no graph"),
        (["zoo", "-o", "zoo/b.onnx", "--force"], "it is one of the inputs"),
        (["zoo", "--checkpoint", "data.npz"], "it is one of the inputs"),
        (["zoo", "-o", "out.onnx", "--checkpoint", "out.onnx"], "to one file: name another for each"),
        (["zoo", "-o", "out.onnx", "--report", "out.onnx.zoo.json"], "to one file: name another for each"),
        (["zoo", "--eps", "-1"], "--eps is '-1': give by how much"),
        (["zoo", "--lambdas", "x"], "is no list of numbers"),
        (["zoo", "--report-data", "small.npz"], "there are 3 samples to report on"),
        (["zoo", "--data", "small.npz"], "there are 2 samples to decide by"),
        (["zoo", "--data", "nan.npz"], "holds NaN in sample"),
        (["zoo", "--data", "names.npz"], "do not fit the inputs"),
        (["zoo", "--calibrate", "small.npz"], "there are 3 calibration samples: give at least 16"),
        (["zoo", "--calibrate", "data.npz", "--report", "data.npz", "--force"], "it is one of the inputs"),
    ],
)
def test_a_zoo_that_makes_no_sense_is_refused(refused, zoo_folder, words, match):
    (zoo_folder / "empty").mkdir()
    (zoo_folder / "unusable").mkdir()
    (zoo_folder / "unusable" / "x.onnx").write_bytes(b"no model")
    x = np.zeros((80, 8), np.float32)
    np.savez(zoo_folder / "small.npz", x=x[:3], labels=np.arange(3))
    np.savez(zoo_folder / "nan.npz", x=x + np.nan, labels=np.arange(80) % 5)
    np.savez(zoo_folder / "names.npz", y=x[:, :3], labels=np.arange(80) % 5)
    data = [] if "--data" in words else ["--data", "data.npz"]
    refused("zoo", "base.onnx", *words, *data, match=match)


# --- the command itself -----------------------------------------------------------------------------------------


def test_the_version_is_printed(run):
    assert run("--version") == Ran(0, f"mal-graph {mal_graph.__version__}\n", "")


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mal_graph", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mal-graph {mal_graph.__version__}\n"


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["assemble", "-h"], ["inspect", "--help"]])
def test_help_is_printed(run, words):
    ran = run(*words)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: mal-graph" in without_colours(ran.out)


def test_help_of_the_command_lists_the_verbs(run):
    assert all(verb in run("-h").out for verb in ("inspect", "match", "assemble", "evaluate", "sweep", "zoo"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["assemble"], "missing argument"),
        (["assemble", "base.onnx"], "missing argument"),
        (["evaluate", "base.onnx"], "missing option '--data'"),
        (["blend", "a", "b"], "no such command 'blend'"),
        (["inspect", "base.onnx", "--format", "yaml"], "--format is 'yaml': choose one of text, json"),
        (["assemble", "base.onnx", "donor.onnx", "--lambda", "x"], "--lambda 'x' is no merging factor"),
        (["inspect", "base.onnx", "--seed", "-1"], "--seed is '-1': give 0 or more"),
        (["inspect", "base.onnx", "--nonsense"], "no such option"),
    ],
)
def test_wrong_usage_is_told_without_a_traceback(run, folder, words, told):
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert told in " ".join(without_colours(ran.err).replace("│", " ").split())
    assert "Traceback" not in ran.err


def test_names_are_printed_as_they_are(run, folder):
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 6)
    proto = net.proto(net.linear(net.op("Relu", x), 6, 5))
    proto.graph.node[0].name, proto.graph.node[2].name = "[bold]a[/x] :smile:", "b\x1b[31m\x07\n" + "c" * 300
    save(proto, folder / "odd.onnx")
    ran = run("match", "odd.onnx", "odd.onnx")
    assert "[bold]a[/x] :smile:" in ran.out
    assert r"b\u001b[31m\u0007\u000a" + "c" * 300 in ran.out  # on one line, and nothing the terminal would obey


def test_a_reader_that_leaves_early_is_no_error(folder):
    command = Path(sys.executable).with_name("mal-graph")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [command, "match", "base.onnx", "donor.onnx"], cwd=folder, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_of_our_own_is_one_sentence_and_verbose_shows_where(run, folder, monkeypatch):
    def broken(path):
        raise KeyError("w\n7")

    monkeypatch.setattr("mal_graph.workflows.models.load", broken)
    ran = run("inspect", "base.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(rf"error: {app.BUG} \(KeyError: .*\); please report it; -v shows where\n", ran.err)
    assert "in broken" in run("inspect", "base.onnx", "-v").err


@pytest.mark.parametrize(
    "words", [("assemble", "base.onnx", "donor.onnx", "--method", "mal"), ("inspect", "base.onnx")]
)
def test_an_interrupted_command_says_only_what_is_true(run, folder, monkeypatch, words):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mal_graph.workflows.models.load", interrupt)
    before = contents(folder)
    ran = run(*words)
    assert (ran.code, ran.out, ran.err) == (app.INTERRUPTED, "", "interrupted: no file is left half written\n")
    assert contents(folder) == before


def test_a_full_disk_is_told(run, folder, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mal_graph.source_files.digest_of", full)
    ran = run("assemble", "base.onnx", "donor.onnx", "--method", "mal")
    assert (ran.code, ran.out) == (2, "")
    assert "No space left on device" in ran.err


# --- bad models -------------------------------------------------------------------------------------------------


def bad_proto(kind):
    net = Net()
    x = net.input("x", ("N", 8))
    if kind == "integer":
        net.weights["w"] = np.ones((8, 5), np.uint8)
        return net.proto(net.op("MatMulInteger", net.op("Cast", x, to=onnx.TensorProto.UINT8), "w"))
    if kind == "unknown operator":
        return net.proto(net.op("Foo", net.linear(x, 8, 5), domain="my.ops"))
    proto = net.proto(net.linear(net.op("Relu", net.linear(x, 8, 6)), 6, 5))
    if kind == "cycle":
        proto.graph.node[0].input[0] = proto.graph.node[1].output[0]
    if kind == "missing initializer":
        del proto.graph.initializer[0]
    return proto


BAD_MODELS = {
    "missing": r"cannot load bad\.onnx: no such file; check the path",
    "directory": r"cannot load bad\.onnx: it is a folder; give the path of an \.onnx file",
    "empty": r"cannot load bad\.onnx: the file is empty; export or download",
    "truncated": r"cannot load .*bad\.onnx: .+; export or download the model again",
    "text": r"cannot load .*bad\.onnx: it holds no graph, so it is no ONNX model .+; export",
    "zip": r"cannot load .*bad\.onnx: it is a zip archive, perhaps a PyTorch checkpoint; export the model to ONNX",
    "cycle": r"cannot load .*bad\.onnx: its graph has a cycle through node '(Gemm_0|Relu_1)'.*; export",
    "missing initializer": r"cannot load .*bad\.onnx: node 'Gemm_0' \(Gemm\) reads 'w0', which nothing makes; export",
    "integer": r"cannot merge .*bad\.onnx: node 'MatMulInteger_1' .*quantised integers; merge the float models",
}


def make_bad(kind, path):
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes((path.parent / "base.onnx").read_bytes()[:500])
    elif kind == "text":
        path.write_text("this is not a model\n")
    elif kind == "zip":
        np.savez(path.with_suffix(".npz"), a=1)
        path.with_suffix(".npz").rename(path)
    elif kind != "missing":
        onnx.save(bad_proto(kind), path)


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_a_bad_model_is_refused_by_every_verb(refused, folder, kind):
    make_bad(kind, folder / "bad.onnx")
    for words in (
        ["inspect", "bad.onnx"],
        ["match", "base.onnx", "bad.onnx", "-o", "pairs.json"],
        ["assemble", "bad.onnx", "donor.onnx", "-o", "out.onnx", "--report", "report.json", "--method", "mal"],
        ["assemble", "base.onnx", "bad.onnx", "--method", "mal"],
        ["evaluate", "bad.onnx", "--data", "data.npz"],
    ):
        refused(*words, match=BAD_MODELS[kind])


def test_a_model_that_the_runtime_cannot_run_is_shown_with_nothing_said_of_its_axes(run, folder):
    onnx.save(bad_proto("unknown operator"), folder / "bad.onnx")
    ran = run("inspect", "bad.onnx", "--format", "json")
    assert ran.code == 0
    assert ran.err.startswith("warning: nothing can be said of its axes: onnxruntime refuses bad.onnx: ")
    assert ran.json["coverage"] == 0
    assert {group["state"] for group in ran.json["groups"]} <= {"frozen", "pinned"}


def test_a_model_that_the_runtime_cannot_run_is_not_merged(refused, folder):
    onnx.save(bad_proto("unknown operator"), folder / "bad.onnx")
    for words in (
        ["assemble", "base.onnx", "bad.onnx", "--method", "mal"],
        ["assemble", "bad.onnx", "base.onnx", "--method", "mal"],
    ):
        refused(*words, match=r"onnxruntime refuses bad\.onnx: .*Foo")


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([("x", ("N", 8), ""), ("y", ("N", 8), "")], r"it has 2 \('x' .*'y' .*\), the base 1 "),
        ([("x", ("N", 8), "float64")], r"it takes 'x' \(float64, .*\), the base 'x' \(float32, "),
        ([("x", ("N", 1, 8), "")], r"it takes 'x' \(float32, shape \['N', 1, 8\]\), the base"),
        (
            [("x", ("N", 9), "")],
            r"it takes 'x' \(float32, shape \['N', 9\]\), the base 'x' \(float32, shape \['N', 8\]\)",
        ),
    ],
    ids=["count", "dtype", "rank", "size"],
)
def test_a_donor_whose_inputs_do_not_fit_is_refused(refused, folder, inputs, told):
    net = Net()
    first, *more = [net.input(name, shape, dtype) for name, shape, dtype in inputs]
    x = net.op("Cast", first, to=onnx.TensorProto.FLOAT)
    for other in more:
        x = net.op("Add", x, other)
    save(net.proto(net.linear(net.op("Flatten", x), inputs[0][1][-1], 5)), folder / "unfit.onnx")
    refused(
        "assemble",
        "base.onnx",
        "unfit.onnx",
        "--method",
        "mal",
        match=rf"the inputs of unfit\.onnx do not fit base\.onnx: {told}.*; merge models that take the same inputs",
    )


def test_models_without_a_common_layer_are_refused(refused, folder):
    net = Net()
    save(net.proto(net.op("Mul", net.op("Relu", net.input("x", ("N", 8))), net.weight(8))), folder / "scale.onnx")
    for verb in ("match", "assemble"):
        refused(
            verb,
            "base.onnx",
            "scale.onnx",
            match=r"no layer of scale\.onnx corresponds to a layer of base\.onnx: found 3 linear against 1 affine",
        )


# --- bad options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "inf"])
def test_a_lambda_outside_zero_to_one_is_refused(refused, value):
    refused(
        "assemble", "base.onnx", "donor.onnx", "--lambda", value, match=rf"lambda is {value}: give .* from 0 .* to 1"
    )


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--lambda", "much"], "--lambda 'much' is no merging factor: write a number such as 0.3, or several"),
        (["--lambda", "0.1,,0.5"], "is no merging factor"),
        (["--lambda", "0.1,2"], r"--lambda is \(0\.1, 2\.0\): give a merging factor"),
        (["--lambda", "0.1,0.2,0.3,0.4"], "4 lambdas are given for 3 layers"),
        (["--lambda-for", "Gemm_0"], "names no layers and number: write SELECTOR=0.5"),
        (["--lambda-for", "=0.5"], "names no layers and number"),
        (["--lambda-for", "conv*=0.5"], r"the selector 'conv\*' selects none of 3 layers"),
    ],
)
def test_lambdas_per_layer_that_make_no_sense_are_refused(refused, words, match):
    refused("assemble", "base.onnx", "donor.onnx", *words, "--method", "mal", match=match)


def test_lambdas_per_layer_are_shown_with_their_layer(run, folder):
    words = ["assemble", "base.onnx", "donor.onnx", "--lambda", "0,0.5", "--lambda-for", "Gemm_2=0.125", "--dry-run"]
    ran = run(*words)
    assert ran.code == 0
    assert re.search(r"^Gemm_2 .* 0\.125$", ran.out, re.M)
    assert re.search(r"^Gemm_4 .* 0\.5$", ran.out, re.M)
    assert "parameters merged at a mean lambda 0." in ran.out


def test_unknown_pads_are_refused(refused):
    refused(
        "assemble",
        "base.onnx",
        "donor.onnx",
        "--unmatched",
        "literal",
        match="--unmatched is 'literal': choose one of fade, keep, zero",
    )


@pytest.mark.parametrize("selector", ["Conv*", "7:9", "2:2", "-1:", "90%:10%", "²:³", ""])
def test_a_selector_that_selects_nothing_is_refused(refused, selector):
    refused(
        "assemble",
        "base.onnx",
        "donor.onnx",
        "--layers",
        selector,
        match=rf"the selector '{re.escape(selector)}' selects none of 3 layers \(Gemm_0, .*\): give a name pattern",
    )


MERGING = [
    ("assemble", "base.onnx", "donor.onnx", "--method", "mal"),
    ("sweep", "base.onnx", "donor.onnx", "--data", "data.npz"),
    ("zoo", "base.onnx", ".", "--data", "data.npz"),
]


@pytest.mark.parametrize("command", MERGING, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--match-by", "both"),
            "--match-by is 'both', but there are no calibration inputs: give some with --calibrate",
        ),
        (
            ("--match-by", "phase", "--calibrate", "data.npz"),
            "--match-by is 'phase': choose one of weights, activat",
        ),
    ],
)
def test_a_signal_that_cannot_be_measured_is_refused(refused, command, words, told):
    refused(*command, *words, match=told)


def with_nan(array):
    array[3, 2] = np.nan
    return array


@pytest.mark.parametrize("words", MERGING, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (
            {"y": np.zeros((20, 7), np.float32)},
            r"do not fit the inputs of base\.onnx: .* found 'y' float32 \(20, 7\); give",
        ),
        (
            {"x": np.zeros((20, 9), np.float32)},
            r"do not fit the inputs of base\.onnx: .* found 'x' float32 \(20, 9\); give",
        ),
        ({"labels": np.zeros(20)}, r"do not fit the inputs of base\.onnx: .* found nothing; give"),
        (
            {"x": with_nan(np.ones((20, 8), np.float32))},
            r"for input 'x' holds NaN or infinity in sample 3: leave it out",
        ),
        ({"x": np.ones((15, 8), np.float32)}, r"there are 15 calibration samples: give at least 16"),
        ({"x": np.ones((0, 8), np.float32)}, r"there are 0 calibration samples: give at least 16"),
        ({"x": np.array(["a"] * 20)}, r"do not fit the inputs of base\.onnx: "),
    ],
    ids=["name and shape", "shape", "no inputs", "nan", "too few", "none", "text"],
)
def test_calibration_inputs_that_do_not_fit_are_refused(refused, folder, arrays, told, words):
    np.savez(folder / "bad.npz", **arrays)
    refused(*words, "--calibrate", "bad.npz", match=told)


@pytest.mark.parametrize("words", MERGING, ids=lambda words: words[0])
@pytest.mark.parametrize("name", ["missing.npz", "base.onnx"])
def test_calibration_inputs_that_cannot_be_read_are_refused(refused, words, name):
    told = r"no data file at missing\.npz" if name == "missing.npz" else r"base\.onnx is not an \.npz file"
    refused(*words, "--calibrate", name, match=told)


def test_calibration_inputs_are_no_target(refused, folder):
    told = r"cannot write data\.npz: it is one of the inputs"
    refused(
        "assemble",
        "base.onnx",
        "donor.onnx",
        "--calibrate",
        "data.npz",
        "-o",
        "data.npz",
        "--force",
        "--method",
        "mal",
        match=told,
    )


@pytest.mark.parametrize("text", ["x", "x:", ":1,2", "x:1,a", "x:0,8", "x:1,-8", "x:1,,8", "x:1.5,8"])
def test_a_malformed_input_shape_is_refused(refused, text):
    told = rf"--input-shape '{re.escape(text)}' is no shape: write NAME:1,3,64,64"
    refused("inspect", "base.onnx", "--input-shape", text, match=told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("y:1,8", "base.onnx has no input 'y': its inputs are 'x'"),
        ("x:8", "--input-shape gives x 1 axes, base.onnx has 2"),
        ("x:3,9", "cannot run base.onnx: .*; give shapes it runs at with --input-shape"),
    ],
)
def test_an_input_shape_that_does_not_fit_is_refused(refused, text, told):
    refused("inspect", "base.onnx", "--input-shape", text, match=told)


def test_an_unknown_layer_to_explain_brings_the_nearest_names(refused):
    refused(
        "match", "base.onnx", "donor.onnx", "--explain", "gemm2", match=r"no layer 'gemm2': did you mean 'Gemm_2' or "
    )


@pytest.mark.parametrize("more", [["-o", "pairs.json"], ["--format", "dot"]])
def test_explain_stands_alone(refused, more):
    refused("match", "base.onnx", "donor.onnx", "--explain", "Gemm_0", *more, match="--explain lists .*: give it alone")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"cannot read the pairs in pairs\.json: No such file or directory; check the path"),
        ("garbage", r"cannot read the pairs in pairs\.json: it is not the JSON that `mal-graph match -o FILE` writes"),
        ("[" * 100_000, "it is not the JSON"),
        ('{"pairs": [{"base": "Gemm_0"}]}', "it is not the JSON"),
        ('{"pairs": []}', r"pairs\.json holds no pairs: add at least one"),
        (
            '{"pairs": [{"base": "Gemm_9", "donor": "Gemm_0"}]}',
            r"base\.onnx has no layer 'Gemm_9': did you mean 'Gemm_",
        ),
        (
            '{"pairs": [{"base": "Gemm_0", "donor": "Gemm_0"}, {"base": "Gemm_2", "donor": "Gemm_0"}]}',
            "the pair 'Gemm_2' - 'Gemm_0' uses a layer a second time: pair every layer at most once",
        ),
    ],
)
def test_a_bad_pair_list_is_refused(refused, folder, text, told):
    if text is not None:
        (folder / "pairs.json").write_text(text)
    for verb in ("match", "assemble"):
        refused(verb, "base.onnx", "donor.onnx", "--matches", "pairs.json", match=told)


def test_a_pair_list_for_several_donors_is_refused(refused, run):
    run("match", "base.onnx", "donor.onnx", "-o", "pairs.json")
    words = ["assemble", "base.onnx", "donor.onnx", "other.onnx", "--matches", "pairs.json"]
    refused(*words, match="a pair list belongs to one donor: merge the donors one by one")


# --- bad targets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["donor.onnx", "./sub/../donor.onnx", "link.onnx", "hard.onnx", "data.npz"])
def test_an_input_is_never_overwritten(refused, folder, target):
    (folder / "sub").mkdir()
    (folder / "link.onnx").symlink_to("donor.onnx")
    told = rf"cannot write {re.escape(target)}: it is one of the inputs; name another file"
    os.link(folder / "base.onnx", folder / "hard.onnx")
    words = ["assemble", "base.onnx", "donor.onnx", "--data", "data.npz", "--force", "--method", "mal"]
    refused(*words, "-o", target, match=told)
    refused(*words, "--report", target, match=told)
    refused("match", "base.onnx", "donor.onnx", "--matches", "data.npz", "--force", "-o", target, match=told)


def test_an_existing_file_is_not_overwritten_without_force(refused, folder):
    for name in ("base.merged.onnx", "report.json", "pairs.json"):
        (folder / name).write_text("mine")
    words = ["assemble", "base.onnx", "donor.onnx", "--method", "mal"]
    refused(*words, match=r"cannot write base\.merged\.onnx: it exists; use --force to overwrite it, or name another")
    refused(*words, "-o", "new.onnx", "--report", "report.json", match=r"cannot write report\.json: it exists")
    refused("match", "base.onnx", "donor.onnx", "-o", "pairs.json", match=r"cannot write pairs\.json: it exists")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere/out.onnx", "there is no folder nowhere; create it first"),
        ("nowhere/", "there is no folder nowhere/; create it first"),
        ("sub", "it is a folder; name a file in it"),
        ("", "it is a folder; name a file in it"),
        ("base.onnx/out.onnx", "Not a directory; name another file"),
        ("a" * 300, "File name too long; name another file"),
        ("pipe", "it is not a regular file; name another one"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(refused, folder, target, told):
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    for option in ("-o", "--report"):
        words = ["assemble", "base.onnx", "donor.onnx", "--force", option, target, "--method", "mal"]
        refused(*words, match=rf"cannot write ({re.escape(target)}|''): {told}")


def test_a_read_only_folder_is_refused(refused, folder, monkeypatch):
    (folder / "sub").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    told = r"cannot write sub/out\.onnx: folder sub is read-only; choose another"
    refused("assemble", "base.onnx", "donor.onnx", "-o", "sub/out.onnx", "--method", "mal", match=told)


def test_a_folder_that_turns_out_to_be_read_only_is_refused(refused, run, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    told = r"cannot write base\.merged\.onnx: Permission denied in folder .*; choose another folder"
    refused("assemble", "base.onnx", "donor.onnx", "-q", "--method", "mal", match=told)
    assert re.match(
        STRANGERS + "error: cannot write", run("assemble", "base.onnx", "donor.onnx", "--method", "mal").err
    )  # said before


def test_the_report_may_not_go_where_the_model_goes(refused):
    words = ["assemble", "base.onnx", "donor.onnx", "-o", "out.onnx", "--report", "./out.onnx", "--method", "mal"]
    refused(*words, match="cannot write the model, the report and the plot to one file: name another for each")


# --- bad data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.ones((4, 8), np.float32)}, "the data hold no labels, only 'x' .*: add an array 'labels'"),
        (
            {"labels": np.zeros(4, int)},
            "the data do not fit the inputs of base.onnx: it takes 'x' float32 .*; found 'lab",
        ),
        ({"x": np.ones((4, 9), np.float32), "labels": np.zeros(4, int)}, "do not fit the inputs of base.onnx"),
        ({"x": np.ones((4, 8), np.float32), "labels": np.zeros(3, int)}, "differ in their number of samples"),
        (
            {"x": np.ones((4, 8), np.float32), "labels": np.full(4, 7)},
            "labels run from 7 to 7, .* knows classes 0 to 4",
        ),
    ],
)
def test_data_without_the_right_arrays_are_refused(refused, folder, arrays, told):
    np.savez(folder / "bad.npz", **arrays)
    refused("evaluate", "base.onnx", "--data", "bad.npz", match=told)
    refused("assemble", "base.onnx", "donor.onnx", "--data", "bad.npz", "--method", "mal", match=told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"no data file at bad\.npz: give an \.npz file"),
        (b"text", r"bad\.npz is not an \.npz file: write it with numpy\.savez"),
        (b"cut", r"bad\.npz is (not an|a broken) \.npz file"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(refused, folder, content, told):
    if content is not None:
        data = (folder / "data.npz").read_bytes()
        (folder / "bad.npz").write_bytes(data[: len(data) // 2] if content == b"cut" else content)
    refused("evaluate", "base.onnx", "--data", "bad.npz", match=told)
    refused("assemble", "base.onnx", "donor.onnx", "--data", "bad.npz", "--method", "mal", match=told)
    refused("inspect", "base.onnx", "--inputs", "bad.npz", match=told)


def test_probe_inputs_of_another_name_or_rank_are_refused(refused, folder):
    np.savez(folder / "name.npz", y=np.ones((3, 8), np.float32))
    np.savez(folder / "rank.npz", x=np.ones((3, 1, 8), np.float32))
    refused("inspect", "base.onnx", "--inputs", "name.npz", match=r"base\.onnx has no input 'y': its inputs are 'x'")
    refused("inspect", "base.onnx", "--inputs", "rank.npz", match="'x' of base.onnx has shape .*same rank")


# --- hostile files ----------------------------------------------------------------------------------------------


def damaged(content, rng):
    """The bytes cut short, or with a few of them replaced."""
    if rng.random() < 0.4:
        return content[: rng.integers(1, len(content))]
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 4)):
        changed[place] = rng.integers(256)
    return bytes(changed)


@pytest.mark.slow
def test_damaged_files_never_give_a_traceback(run, folder):
    rng = np.random.default_rng(5)
    net = Net()
    x = net.op("Relu", net.norm(net.conv(net.input("x", ("N", 2, 4, 4)), 2, 3), 3))
    x = net.op("Reshape", net.op("GlobalAveragePool", x), net.constant([-1, 3]))
    save(net.proto(net.linear(x, 3, 2)), folder / "good.onnx")
    content = (folder / "good.onnx").read_bytes()
    codes = []
    for case in range(40):
        (folder / "bad.onnx").write_bytes(damaged(content, rng))
        for words in (
            ["inspect", "bad.onnx"],
            ["match", "good.onnx", "bad.onnx"],
            [
                "assemble",
                *(["good.onnx", "bad.onnx"] if case % 2 else ["bad.onnx", "good.onnx"]),
                "--force",
                "--method",
                "mal",
            ],
        ):
            ran = run(*words)
            codes.append(ran.code)
            assert ran.code in (0, 1, 2), (case, words, ran.err)
            assert "Traceback" not in ran.err, (case, words, ran.err)
            assert app.BUG not in ran.err, (case, words, ran.err)
            errors = [line for line in ran.err.splitlines() if not line.startswith("note: ")]
            assert (ran.code == 0) == (not errors), (case, words, ran.err)
    assert {0, 2} <= set(codes)


def test_an_empty_graph_has_no_layers_to_match(refused, run, folder):
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("N", 8)) for name in "xy")
    model = helper.make_model(helper.make_graph([node], "empty", [x], [y]), ir_version=10)
    model.opset_import[0].version = 20
    onnx.save(model, folder / "empty.onnx")
    ran = run("inspect", "empty.onnx")
    assert ran.code == 0
    assert "0 float parameters" in ran.out
    refused("match", "empty.onnx", "base.onnx", match="found no layers against 3 linear")
    refused("match", "empty.onnx", "base.onnx", "--explain", "a", match=r"empty\.onnx has no layer 'a'")
