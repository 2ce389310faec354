"""Several modules as one whose outputs are averaged."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mal_graph.compression import Branches
from mal_graph.errors import UnsupportedModel
from mal_graph.graph import LayerGraph


class Mean(nn.Module):
    """The weighted mean of what several modules give for the same arguments."""

    def __init__(self, branches: Sequence[nn.Module], shares: Sequence[float]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.shares = tuple(shares)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever the modules give, tensor by tensor."""
        given = [branch(*args, **kwargs) for branch in self.branches]
        return pytree.tree_map(self.mean, *given)

    def mean(self, *values: Tensor) -> Tensor:
        """One tensor of all modules."""
        first, *others = (share * value for share, value in zip(self.shares, values, strict=True))
        for other in others:
            first = first + other
        return first


def mean_module(graph: LayerGraph, to_module: Callable[[LayerGraph], nn.Module]) -> Mean:
    """A united graph as a module, whose branches were traced. Raises UnsupportedModel or ShapeError."""
    made: Branches = graph.source
    if not made.is_plain:
        raise UnsupportedModel(
            f"{graph.name} does not simply average the outputs of its models, so that it cannot be given back as a "
            "module: save it as an ONNX file"
        )
    return Mean([to_module(part) for part in made.parts], made.shares)
