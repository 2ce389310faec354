"""What every result of a workflow can do: say what was found, and give it as plain data."""

from os import PathLike
from typing import Any

from mal_graph import registry
from mal_graph.atomic_write import write_text
from mal_graph.brief import Brief
from mal_graph.workflows.models import free_path


class Result(Brief):
    """A result that can be reported."""

    def summary(self, *, verbose: bool = False) -> str:
        """The text that the command line prints, the verdict last."""
        return registry.reporter().summary(self, verbose=verbose)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report as plain data; its `schema` names its form and version."""
        return registry.reporter().to_dict(self)

    def save_report(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the report in the form that the name ends in: .json, .html or .md. Raises FileError or UsageError."""
        target = free_path(path, overwrite)
        write_text(target, registry.reporter().report(self, target.suffix.removeprefix(".")), overwrite=overwrite)

    def _repr_html_(self) -> str:
        """What a notebook shows: verdict, scores and the layers side by side."""
        return registry.reporter().html(self)
