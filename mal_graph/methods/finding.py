"""The merge methods that are registered, loaded when they are asked for."""

from functools import cache

from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.methods.method import MergeMethod


@cache
def find_method(name: str) -> MergeMethod:
    """The merge method registered under `name`. Raises UsageError if there is none, or what is registered is none."""
    points = registry.merge_methods()
    if name not in points:
        raise UsageError(f"no merge method is called {name!r}: choose one of {', '.join(points)}")
    try:
        made = points[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the merge method {name!r} cannot be loaded: {error}; reinstall the package of it") from None
    if not isinstance(made, MergeMethod) or made.name != name:
        raise UsageError(f"{points[name].value} is no merge method called {name!r}: register what @merge_method makes")
    return made


def all_methods() -> list[MergeMethod]:
    """Every merge method, by name."""
    return [find_method(name) for name in registry.merge_methods()]
