"""Merge methods: one function each, from the tensors of several models to one tensor, with what is said of it.

    @merge_method("ties", source="arXiv:2306.01708", needs=Need.ANCESTOR)
    def ties(stack: Stack, *, density: Annotated[Vector, Field(0.2, ge=0, le=1, description="...")]) -> Array:
        \"\"\"One line that says what it does.\"\"\"

The keywords of the function are the parameters: name, type, range, default and description are said there and nowhere
else. `float` and `bool` are one value for all models, `Vector` has one number for each. A trailing underscore is no
part of the name. Methods are found by entry points of the group `mal_graph.merge_methods`, this package's too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from inspect import getdoc
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mal_graph.boxes import Array
from mal_graph.errors import UsageError
from mal_graph.methods.sieves import Sieve
from mal_graph.methods.stack import Stack, Vector
from mal_graph.plain_text import did_you_mean
from mal_graph.registry import blamed

Slope = Callable[[Array, int], Array]  # how what is lowered rises with each weight, at some weights, in a step
Walk = Callable[[Array, Slope, Mapping[str, Any]], Array]  # from the first weights to the last, by the parameters
Shares = Callable[[Mapping[str, Any], int], Vector]

RUNS = "runs on inputs"
GRADIENTS = "gradients"
ITS_INPUTS = "inputs of each model"


class Need(StrEnum):
    """What a method cannot do without."""

    NOTHING = "nothing"
    ANCESTOR = "ancestor"
    ACTIVATIONS = "activations"


class Aligned(StrEnum):
    """How the units of all models are put into the base's frame."""

    TO_BASE = "each donor to the base"
    IN_UNIVERSE = "all models to each other at once"
    IN_ROUNDS = "each model in turn to the sum of the others"
    IN_SHARES = "each donor to the base, by shares of units"
    ZIPPED = "all models at once, units of one model with each other too, by what they give"


class Measured(StrEnum):
    """Where it is measured what weights are multiplied with."""

    OWN = "in each model, on its own inputs"
    TOGETHER = "in all models, on the inputs of all"
    OUTPUTS = "in each model, on its own inputs, with what it gives"
    MERGED = "in the result, layer by layer, on the inputs of each model"


class Learned(StrEnum):
    """What a method learns."""

    WEIGHTS = "how much each model counts"
    MASKS = "which entries of the task vectors count"


class Aim(StrEnum):
    """What is lowered by what is learned."""

    ENTROPY = "the entropy of what the result gives"
    DISTANCE = "the distance of the result from each model"


@dataclass(frozen=True)
class Lesson:
    """What is learned, and how, on unlabelled inputs of each model.

    Attributes:
        aim: what is lowered.
        walk: takes the steps, from weights of shape (models, columns), where a column is for all layers or for one; or
            from what the masks of all entries are made of, shape (entries,).
        learned: what is learned: weights by running the result alone, masks by the gradients of the network.
    """

    aim: Aim
    walk: Walk = field(repr=False)
    learned: Learned = Learned.WEIGHTS


class Gate(StrEnum):
    """By what a router tells which models a sample is for."""

    LINEAR = "a linear map that tells the inputs of the models apart"
    NEIGHBOURS = "the inputs of the models that lie nearest"
    DIRECTIONS = "what of it lies along the directions that each model has learned"


@dataclass(frozen=True)
class Routing:
    """How the weights of models are given, sample by sample, by a router that is a part of the result.

    A sample runs twice: the first time for what the router looks at, the second time with the weights it gives.

    Attributes:
        gate: what the router goes by.
        first: the merge method that makes the weights of the first run; "" for this one with weights of 0.
    """

    gate: Gate
    first: str = ""

    @property
    def takes_inputs(self) -> bool:
        """Whether the router is made of inputs of each model."""
        return self.gate is not Gate.DIRECTIONS


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        name: as it is given.
        keyword: of the function.
        kind: `float` or `bool`.
        is_each: whether each model has its own.
        field: default, range and description.
    """

    name: str
    keyword: str
    kind: type
    is_each: bool
    field: FieldInfo

    @property
    def default(self) -> float | bool:
        value: float | bool = self.field.default
        return value

    @property
    def description(self) -> str:
        return self.field.description or ""

    @property
    def range(self) -> str:
        """What values it may have, in words."""
        if self.kind is bool:
            return "true or false"
        least, above, most = (bound_of(self.field, name) for name in ("ge", "gt", "le"))
        ends = ["" if least is None else f"from {least:g}", "" if above is None else f"above {above:g}"]
        ends += ["" if most is None else f"up to {most:g}"]
        return " ".join(filter(None, ["a number", *ends]))

    def checked(self, value: Any) -> float | bool:
        """A value that it may have. Raises UsageError."""
        try:
            result: float | bool = self.adapter.validate_python(value)
        except ValidationError:
            raise UsageError(f"`parameters` {self.name} is {value!r}: give {self.range}") from None
        return result

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        annotated: Any = Annotated[(self.kind, *self.field.metadata)] if self.field.metadata else self.kind
        return TypeAdapter(annotated)


def bound_of(own: FieldInfo, name: str) -> float | None:
    """One end of the range of a field; None where it has none."""
    return next((getattr(fact, name) for fact in own.metadata if hasattr(fact, name)), None)


@dataclass(frozen=True, eq=False)
class MergeMethod:
    """A merge method, and what is said of it.

    Attributes:
        name: what `method` calls it.
        source: where it is published; "" where nowhere.
        needs: what it cannot do without.
        function: makes one tensor of a stack.
        deviations: what is not as published, each with the reason.
        models: how many models it takes, where not any number.
        by_entry: whether an entry of the result depends on that entry of the models alone.
        shares_of: how much each model counts, from the parameters and the number of models: what is said of the result,
            and how statistics are averaged.
        aligned: how its models are brought into one frame.
        measured: where the inputs of layers are measured, of a method that needs these activations.
        lesson: how its weights are learned; None where they are given.
        routing: how its weights are given for each sample; None where they are the same for all. What it makes rises
            evenly with each weight.
        sieve: tells which entries of task vectors stay, of a method of which an entry depends on that alone beside that
            entry of the models; so that it can be computed box by box.
    """

    name: str
    source: str
    needs: Need
    function: Callable[..., Array] = field(repr=False)
    deviations: tuple[str, ...] = ()
    models: int | None = None
    by_entry: bool = False
    shares_of: Shares | None = field(default=None, repr=False)
    measured: Measured | None = None
    aligned: Aligned = Aligned.TO_BASE
    lesson: Lesson | None = None
    routing: Routing | None = None
    sieve: Sieve | None = field(default=None, repr=False)

    def __call__(self, stack: Stack, **given: Any) -> Array:
        """One tensor of a stack, shape (*tensor,); what is not given is as by default.

        Args:
            stack: see `Stack`.
            given: parameters by name, of each model's own a number for all or one for each.

        Raises:
            UsageError: the function of another package fails, or gives what is no such tensor.
        """
        values = {parameter.keyword: self.value_for(parameter, stack, given) for parameter in self.parameters.values()}
        with blamed(f"the merge method {self.name!r}", self.function.__module__):
            made = self.function(stack, **values)
            if not isinstance(made, np.ndarray) or made.shape != stack.models.shape[1:] or made.dtype.kind != "f":
                raise TypeError(f"it gave {described(made)} for a tensor of shape {stack.models.shape[1:]}")
        return made

    @staticmethod
    def value_for(parameter: Parameter, stack: Stack, given: Mapping[str, Any]) -> Any:
        value = given.get(parameter.name, parameter.default)
        return np.broadcast_to(np.asarray(value, np.float64), (stack.count,)) if parameter.is_each else value

    @property
    def is_whole(self) -> bool:
        """Whether it needs a tensor of all models as a whole, and not one box after the other."""
        return not self.by_entry and self.sieve is None

    @property
    def takes_inputs(self) -> bool:
        """Whether it runs models on inputs."""
        return self.measures or self.lesson is not None or self.takes_inputs_of_each

    @property
    def measures(self) -> bool:
        """Whether it measures activations."""
        return self.measured is not None or self.aligned is Aligned.ZIPPED

    @property
    def takes_inputs_of_each(self) -> bool:
        """Whether it takes inputs that differ from model to model."""
        return self.measured is Measured.MERGED or (self.routing is not None and self.routing.takes_inputs)

    @property
    def takes_all_at_once(self) -> str:
        """Why it has no result that is made donor by donor; "" where it has."""
        if self.takes_inputs:
            return "runs models on inputs"
        if self.routing is not None:
            return "puts in a router"
        if self.aligned is Aligned.IN_SHARES:
            return "shares out units"
        return "aligns all models at once" if self.aligns_together else ""

    @property
    def takes_gradients(self) -> bool:
        """Whether it cannot do without the gradients of the base."""
        return self.lesson is not None and self.lesson.learned is Learned.MASKS

    @property
    def needed(self) -> str:
        """What it cannot do without, in words."""
        needs = [str(self.needs), *([str(Need.ACTIVATIONS)] if self.measures else [])]
        needs += [RUNS] if self.lesson is not None else [ITS_INPUTS] if self.takes_inputs_of_each else []
        needs += [GRADIENTS] if self.takes_gradients else []
        return " and ".join(dict.fromkeys(needs))

    @property
    def aligns_together(self) -> bool:
        """Whether it aligns all models at once."""
        return self.aligned in (Aligned.IN_UNIVERSE, Aligned.IN_ROUNDS)

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (getdoc(self.function) or "").split("\n", 1)[0]

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Its parameters by name."""
        hints = get_type_hints(self.function, include_extras=True)
        own = [parameter_of(keyword, hint) for keyword, hint in hints.items() if keyword not in ("stack", "return")]
        return {parameter.name: parameter for parameter in own}

    @property
    def takes_a_mean(self) -> bool:
        """Whether its weights are those of a mean, so that one at least is more than 0."""
        return "weight" in self.parameters and bound_of(self.parameters["weight"].field, "ge") == 0

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name. Raises UsageError."""
        if name not in self.parameters:
            near = did_you_mean(name, self.parameters)
            raise UsageError(f"{self.name} has no parameter {name!r}: {near}it has {', '.join(self.parameters)}")
        return self.parameters[name]

    def shares(self, values: Mapping[str, Any], count: int) -> Vector:
        """How much each of some models counts: their weights, or all alike where these are none that a mean takes."""
        if self.shares_of is not None:
            return self.shares_of(values, count)
        weight = np.broadcast_to(np.asarray(values.get("weight", 1.0), np.float64), (count,))
        return weight / weight.sum() if (weight >= 0).all() and weight.any() else np.full(count, 1 / count)


def described(made: object) -> str:
    """What a method gave, in words."""
    return f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else f"a {type(made).__name__}"


def parameter_of(keyword: str, hint: Any) -> Parameter:
    """What a keyword of a method says. Raises TypeError where it is no parameter."""
    kind, *facts = get_args(hint) or (hint,)
    fields = [fact for fact in facts if isinstance(fact, FieldInfo)]
    is_each = kind not in (float, bool)
    if len(fields) != 1 or (is_each and kind != Vector):
        raise TypeError(f"{keyword} must be Annotated[float, bool or Vector, Field(...)], not {hint!r}")
    return Parameter(keyword.rstrip("_"), keyword, float if is_each else kind, is_each, fields[0])


def merge_method(
    name: str,
    *,
    source: str = "",
    needs: Need = Need.NOTHING,
    deviations: tuple[str, ...] = (),
    models: int | None = None,
    by_entry: bool = False,
    shares_of: Shares | None = None,
    measured: Measured | None = None,
    aligned: Aligned = Aligned.TO_BASE,
    lesson: Lesson | None = None,
    routing: Routing | None = None,
    sieve: Sieve | None = None,
) -> Callable[[Callable[..., Array]], MergeMethod]:
    """Make a merge method of a function from a stack to a tensor; arguments as for `MergeMethod`."""

    def decorate(function: Callable[..., Array]) -> MergeMethod:
        own = (deviations, models, by_entry, shares_of, measured, aligned, lesson, routing, sieve)
        return MergeMethod(name, source, needs, function, *own)

    return decorate
