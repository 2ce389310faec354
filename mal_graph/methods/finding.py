"""The merge methods that are registered, loaded when they are asked for."""

from functools import cache

from mal_graph import registry
from mal_graph.methods.method import MergeMethod


@cache
def find_method(name: str) -> MergeMethod:
    """The merge method registered under `name`. Raises UsageError if there is none, or what is registered is none."""
    points = registry.merge_methods()
    made = registry.decorated("merge method", points, name, MergeMethod, "merge_method")
    with registry.blamed(f"the merge method {name!r}", points[name].module):
        _ = made.parameters  # what its keywords say of them
    return made


def all_methods() -> list[MergeMethod]:
    """Every merge method, by name."""
    return [find_method(name) for name in registry.merge_methods()]
