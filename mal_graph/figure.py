"""A number of a report that may be no number: JSON has no nan, and null stands for it."""

from math import nan
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema


def nan_of_null(value: Any) -> Any:
    """What a report says of a figure, read back."""
    return nan if value is None else value


Figure = Annotated[
    float, BeforeValidator(nan_of_null), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]})
]
