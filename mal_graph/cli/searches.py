"""The command `search`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mal_graph.cli.factories import told_warnings
from mal_graph.cli.options import (
    INTERRUPTED,
    Base,
    FailIfWorse,
    Force,
    LabelledData,
    MergedFile,
    PlotFile,
    ReportFile,
    Shown,
)
from mal_graph.cli.output import log, progress_bars
from mal_graph.cli.results import GATE_FAILED, emit_report, fail_if_refused, fail_where_worse
from mal_graph.cli.targets import digests_of, digests_of_written, given, input_files, merged_target, report_targets
from mal_graph.errors import UsageError
from mal_graph.source_files import all_opened


def search(
    base: Base,
    donors: Annotated[
        list[str], typer.Argument(metavar="DONORS", help="A folder of .onnx files, taken by name; or files.")
    ],
    data: LabelledData,
    output: MergedFile = None,
    fail_if_worse: FailIfWorse = False,
    report: ReportFile = None,
    plot: PlotFile = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Search for what to merge of many DONORS into BASE, and how much of each, by what it does on held-out data.

    Half of --data is searched by, a quarter decides about the best, and a quarter is reported. What is found is kept in
    the folder of --study: with --resume the same command goes on from there, to the same model.
    """
    from mal_graph.atomic_write import write_bytes
    from mal_graph.config import configured
    from mal_graph.reporting import draw_search, result_document
    from mal_graph.searching import search as search_donors
    from mal_graph.workflows import write_result

    paths = donor_paths(donors)
    files = given(base, *paths, data, *input_files("search", options))
    read = all_opened(files)
    target = merged_target(output, base, files, force)
    report_to, plot_to = report_targets(report, plot, target, files, force)
    study = options.get("study", f"{target}.search")
    config = configured("search", None, {**options, "study": study})
    try:
        with progress_bars(shown.quiet) as progress, told_warnings():
            found = search_donors(base, paths, data, config=config, progress=progress)
    except KeyboardInterrupt:
        log(f"interrupted: what was found is in {study}; the same command with --resume goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    result = found.assembly
    used = [base, data, *(step.donor.name for step in result.merged)]
    hashes = digests_of({path: file for path, file in read.items() if path in used or path not in paths}, [result.base])
    if result.merged:
        result = write_result(result, target, overwrite=force)
    is_written = bool(result.merged) and result.passed
    written: dict[str, Any] = {
        "output": str(target) if is_written else None,
        "written": digests_of_written(target) if is_written else {},
        "study": str(study),
    }
    if plot_to is not None:
        write_bytes(plot_to, draw_search(found, plot_to.suffix[1:]), overwrite=force)
    document = result_document(replace(found, assembly=result), command=shown.command, hashes=hashes, **written)
    emit_report(document, report_to, shown, force)
    fail_if_refused(result)
    if not is_written:
        log(f"error: no merged model was written: no candidate passed the gate, and {base} stays as it is")
        raise typer.Exit(GATE_FAILED)
    fail_where_worse(result, fail_if_worse)


def donor_paths(donors: list[str]) -> list[str]:
    """The files that are named, or those of the folder that is. Raises FileError or UsageError."""
    from mal_graph.workflows import files_in

    folders = [one for one in donors if Path(one).is_dir() or one.endswith("/")]
    if not folders:
        return donors
    if len(donors) > 1:
        raise UsageError(f"{folders[0]} is a folder, and more is named: name one folder, or files")
    return files_in(folders[0])
