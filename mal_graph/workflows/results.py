"""What every result of a workflow can do: say what was found, and give it as plain data."""

from typing import Any

from mal_graph import registry
from mal_graph.brief import Brief


class Result(Brief):
    """A result that can be reported."""

    def summary(self, *, verbose: bool = False) -> str:
        """The text that the command line prints, the verdict last."""
        return registry.reporter().summary(self, verbose=verbose)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report as plain data; its `schema` names its form and version."""
        return registry.reporter().to_dict(self)
