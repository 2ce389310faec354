"""How an output of a traced module moves with its weights: gradients by autograd, by the graph's names of the weights.

A weight of the graph stands in the module's state by way of views and parts (see `giving_back`), which arrange numbers
and change none. So it is told once where each number of the state comes from, by numbers that count the places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.utils import _pytree as pytree

from mal_graph.errors import UnsupportedModel
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import as_stored

from .giving_back import as_tensor, changed_state, merged_module, source_of

Places = NDArray[np.int64]
DIGITS = 20  # bits of a place that are told at once: float32 holds 24
NOWHERE = -1


@dataclass(frozen=True, repr=False)
class Gradients:
    """One output of a traced graph as a function of its weights.

    Attributes:
        graph: the graph; its own weights hold where no others are given.
        output: the output's name.
        names: the weights whose gradients are told.
    """

    graph: LayerGraph
    output: str
    names: Sequence[str]

    def __call__(
        self, inputs: Mapping[str, Array], weights: Mapping[str, Array], slope_by: Callable[[Array], Array]
    ) -> dict[str, Array]:
        """How a number rises with each weight, in float64; 0 for what is no parameter of the module, as the statistics
        of a norm.

        Args:
            inputs: by the graph's names.
            weights: other values of some of `names`.
            slope_by: how the number rises with the output, of the output's values and of their shape.
        """
        state = {key: tensor.clone() for key, tensor in self.state.items()}
        if weights:
            changed = changed_state(as_stored(self.graph.with_weights(weights)), source_of(self.graph))
            state |= {key: as_tensor(values, state[key]) for key, values in changed.items() if key in state}
        learned = {key: state[key].requires_grad_() for key in state if key in self.parameters}
        made = self.run(inputs, state)
        slope = slope_by(made.detach().cpu().numpy())
        slopes = torch.autograd.grad(made, list(learned.values()), as_tensor(slope, made), allow_unused=True)
        told = {key: own for key, own in zip(learned, slopes, strict=True) if own is not None}
        places = [self.places[key] for key in told]
        return self.by_name(
            np.concatenate([np.zeros(0, np.int64), *places]),
            np.concatenate([np.zeros(0), *(own.cpu().numpy().ravel() for own in told.values())]),
        )

    def by_name(self, places: Places, values: Array) -> dict[str, Array]:
        """The sums of what is at each place, by weight."""
        here, ends = places != NOWHERE, np.cumsum([self.graph.weights[name].size for name in self.names])
        sums = np.bincount(places[here], values[here], minlength=ends[-1])
        parts = zip(self.names, np.split(sums, ends[:-1]), strict=True)
        return {name: part.reshape(self.graph.weights[name].shape) for name, part in parts}

    def run(self, inputs: Mapping[str, Array], state: Mapping[str, Tensor]) -> Tensor:
        """The output. Raises UnsupportedModel."""
        source = source_of(self.graph)
        leaves, spec = pytree.tree_flatten(source.program.example_inputs)
        given = iter(self.graph.inputs)
        leaves = [
            as_tensor(np.asarray(inputs[next(given).name]), leaf) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        with torch.enable_grad():
            outputs = functional_call(self.module, dict(state), args, kwargs, tie_weights=False)
        place = [value.name for value in self.graph.outputs].index(self.output)
        made: Tensor = pytree.tree_leaves(outputs)[place]
        return made

    @cached_property
    def module(self) -> torch.fx.GraphModule:
        """What is run, as it computes when it is used."""
        return merged_module(self.graph).eval()

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """What the module has learned, by name."""
        return dict(self.module.named_parameters(remove_duplicate=False))

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the module that hold weights."""
        own = {**dict(self.module.named_buffers()), **self.parameters}
        held = {key: own[key].detach() for key in self.places if key in own}
        if not held and self.names:
            raise UnsupportedModel(
                f"{self.graph.name} keeps none of its weights under the names of its state, so that there are no "
                "gradients: trace the module instead of its program"
            )
        return held

    @cached_property
    def starts(self) -> dict[str, int]:
        """By weight the first of its places, counted through all."""
        sizes = [self.graph.weights[name].size for name in self.names]
        return dict(zip(self.names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))

    @cached_property
    def places(self) -> dict[str, Places]:
        """By tensor of the state the places that its numbers come from, NOWHERE for what is of no weight."""
        digits = [self.told(shift) for shift in (0, DIGITS)]
        return {
            key: np.where(low > 0, (low - 1) + (high - 1) * 2**DIGITS, NOWHERE).astype(np.int64)
            for (key, low), high in zip(digits[0].items(), digits[1].values(), strict=True)
        }

    def told(self, shift: int) -> dict[str, Array]:
        """By tensor of the state what it holds where each weight holds the digits of its places from a bit on, and 1
        more; every other number is 0."""
        source, weights = source_of(self.graph), dict[str, Array]()
        for name, start in self.starts.items():
            weight = self.graph.weights[name]
            numbers = (np.arange(start, start + weight.size) >> shift) % 2**DIGITS + 1
            weights[name] = numbers.reshape(weight.shape).astype(np.float32)
        others = {
            name: np.zeros(weight.shape, np.float32)
            for name, weight in self.graph.weights.items()
            if weight.is_float and name not in weights
        }
        state = changed_state(as_stored(self.graph.with_weights({**others, **weights})), source)
        return {key: np.asarray(values, np.float64).ravel() for key, values in state.items()}
