"""Methods of other packages, found by entry points, and what a method says of its parameters."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated

import numpy as np
import pytest
from builders import mlp
from pydantic import Field

import mal_graph
from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.methods import Need, Stack, Vector, all_methods, find_method, merge_method

Strength = Annotated[float, Field(0.5, gt=0, le=2, description="how far it goes")]


@merge_method("halfway", by_entry=True, deviations=("published nowhere",))
def halfway(stack: Stack, *, strength: Strength, weight: Annotated[Vector, Field(1.0, ge=0)]) -> np.ndarray:
    """From the base towards the mean."""
    return stack.models[0] + stack.models.dtype.type(strength) * (stack.mean(weight) - stack.models[0])


@pytest.fixture
def others(monkeypatch):
    """A package that offers a method, one that is none, and one under a wrong name."""
    module = ModuleType("others")
    module.halfway, module.number = halfway, 3
    monkeypatch.setitem(sys.modules, "others", module)
    offered = {"halfway": "halfway", "number": "number", "third": "halfway"}
    points = {name: EntryPoint(name, f"others:{value}", "mal_graph.merge_methods") for name, value in offered.items()}
    points["lost"] = EntryPoint("lost", "package_that_is_not_there:lost", "mal_graph.merge_methods")
    known = {**registry.merge_methods(), **points}
    monkeypatch.setattr(registry, "merge_methods", lambda: known)
    find_method.cache_clear()
    yield
    find_method.cache_clear()


def test_a_method_of_another_package_is_one_like_the_others(others):
    assert find_method("halfway") is halfway
    base, donor = mlp((4, 6, 3), 0), mlp((4, 6, 3), 1)
    options = {"method": "halfway", "verify": False, "compare": False}
    merged, mean = (
        mal_graph.assemble(base, donor, **{**options, **changes})
        for changes in ({"parameters": {"strength": 1}}, {"method": "linear"})
    )
    for name, weight in mean.graph.weights.items():
        np.testing.assert_allclose(merged.graph.weights[name].read(), weight.read(), atol=1e-6)  # float32
    with pytest.raises(UsageError, match=r"`parameters` strength is 0.0: give a number above 0 up to 2"):
        mal_graph.assemble(base, donor, parameters={"strength": 0}, **options)


@pytest.mark.parametrize("name", ["number", "third"])
def test_what_is_no_method_of_that_name_is_refused(others, name):
    with pytest.raises(
        UsageError, match=rf"others:\w+ is no merge method called '{name}': register what @merge_method"
    ):
        find_method(name)


def test_a_method_that_cannot_be_loaded_is_told(others):
    with pytest.raises(
        UsageError, match="the merge method 'lost' cannot be loaded from package_that_is_not_there:lost: No module"
    ):
        find_method("lost")


def test_what_a_keyword_says_of_no_parameter_is_found():
    @merge_method("odd")
    def odd(stack: Stack, *, weight: Annotated[str, Field("x")]) -> np.ndarray:
        """Odd."""
        return stack.models[0]

    with pytest.raises(TypeError, match="weight must be Annotated"):
        _ = odd.parameters


def test_every_method_says_what_it_does_and_of_every_parameter_what_it_is():
    for method in all_methods():
        assert method.summary.endswith("."), method.name
        assert method.needs in Need
        for parameter in method.parameters.values():
            assert parameter.description, (method.name, parameter.name)
            assert parameter.checked(parameter.default) == parameter.default
