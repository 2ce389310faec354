"""The parameters of a merge method for one tensor, from what was given."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.methods.method import MergeMethod, Parameter
from mal_graph.methods.stack import Vector
from mal_graph.parameter_settings import Given, Setting


def resolve(
    method: MergeMethod, settings: Sequence[Setting], numbers: Sequence[int], names: Sequence[str], depth: float
) -> dict[str, Any]:
    """The parameters of a method for one tensor, by name.

    Args:
        settings: what was given (see `parameter_settings`).
        numbers: the models that have it.
        names: of the tensor and its layer.
        depth: of the layer, from 0 to 1.

    Raises:
        UsageError: a value is not one that the parameter may have, or no model has a weight in a mean.
    """
    own = [setting for setting in settings if not setting.where or any(setting.where in name for name in names)]
    values: dict[str, Any] = {}
    for name, parameter in method.parameters.items():
        mine = [setting for setting in own if setting.name == name]
        if parameter.is_each:
            each: Vector = np.array([value_at(parameter, mine, number, depth) for number in numbers], np.float64)
            values[name] = each
        else:
            values[name] = value_at(parameter, mine, None, depth)
    if "weight" in values and method.takes_a_mean and not values["weight"].any():
        where = f" of {names[0]}" if names else ""
        raise UsageError(f"`parameters` the weights{where} sum to zero, and {method.name} divides by them: change one")
    return values


def value_at(parameter: Parameter, settings: Sequence[Setting], number: int | None, depth: float) -> float | bool:
    """The value of a parameter for one model at some depth. Raises UsageError."""
    given: Given = parameter.default
    for model in (None, number):  # what is said of one model holds before what is said of all
        given = next((setting.value for setting in reversed(settings) if setting.model == model), given)
    if isinstance(given, tuple):
        given = float(np.interp(depth, np.linspace(0, 1, len(given)), given))
    return parameter.checked(given)


def check_settings(method: MergeMethod, settings: Sequence[Setting], numbers: Sequence[int]) -> None:
    """Raise UsageError where a setting is for no parameter of a method, or for no model; before anything is computed.

    Args:
        numbers: the models that are merged: 0 for the base, 1 for the first donor...
    """
    for setting in settings:
        parameter = method.parameter(setting.name)
        if setting.model is not None and not parameter.is_each:
            raise UsageError(
                f"`parameters` {setting.key}: {setting.name} is one value for all models; leave the number out"
            )
        if setting.model is not None and setting.model not in numbers:
            why = "the base is the ancestor" if setting.model == 0 else f"there are {max(numbers)} donors"
            raise UsageError(f"`parameters` {setting.key} is for a model that is not merged: {why}")
        for value in setting.value if isinstance(setting.value, tuple) else (setting.value,):
            parameter.checked(value)
    resolve(method, [setting for setting in settings if not setting.where], numbers, (), 0.0)
