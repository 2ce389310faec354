"""The version of this package, as it is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


@cache
def version() -> str:
    """The version of this package."""
    try:
        return installed_version("mal-graph")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


__version__ = version()
