"""What every JSON document has: a `schema` that names its form and version, and one way to be written."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mal_graph.plain_text import cell


class Document(BaseModel):
    """A JSON document; its first key names its form and version."""

    model_config = ConfigDict(populate_by_name=True, ser_json_inf_nan="null")

    schema_: str = Field("", alias="schema")

    def json_text(self) -> str:
        return self.model_dump_json(indent=2, by_alias=True)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


class ReportDocument(Document):
    """The report of a result, of which pages are made; `command` are the words that were given on a command line."""

    command: list[str] = []
    versions: dict[str, str] = {}
    sha256: dict[str, str] = {}


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV, in which no text is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return text.getvalue()
