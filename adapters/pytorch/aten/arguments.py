"""What lowerings of several families need: arguments in torch's many forms, and shapes with symbols in them."""

from collections.abc import Callable, Sequence
from typing import Any

from mal_graph.errors import UnsupportedModel

from ..lowering import Site, Size, Wire

Several = tuple[str, ...]
Ints = Sequence[int]
LARGEST = 2**62  # stands for "to the end" in a slice


def check_dropout(share: float) -> None:
    """Refuse what is dropped at random even in evaluation: a merge could not be compared with anything."""
    if share > 0:
        raise UnsupportedModel(f"it drops {share:.0%} at random in evaluation mode too: pass training=self.training")


def run_batched(at: Site, x: Wire, spatial: int, run: Callable[[Wire | str], Any]) -> Any:
    """Run an operator that needs an axis of samples on a tensor that may lack it."""
    if x.rank == spatial + 2:
        return run(x)
    made = run(at.unsqueeze(x, [0]))
    return tuple(at.squeeze(name, [0]) for name in made) if isinstance(made, tuple) else at.squeeze(made, [0])


def per_axis(values: Any, count: int) -> list[int]:
    """A setting given once for all axes, or for each."""
    given = [values] if isinstance(values, int) else list(values)
    return [int(value) for value in (given * count if len(given) == 1 else given)]


def same_shape(a: Sequence[Size], b: Sequence[Size]) -> bool:
    """Whether two shapes are known to be equal."""
    return len(a) == len(b) and all(str(x) == str(y) for x, y in zip(a, b, strict=True))


def repeat_each(at: Site, x: str, shape: Sequence[Size], axis: int, times: int) -> str:
    """Each index of an axis several times in a row."""
    wide = [*shape[: axis + 1], times, *shape[axis + 1 :]]
    more = at.op("Expand", at.unsqueeze(x, [axis + 1]), at.sizes(wide))
    size = shape[axis]
    return at.reshape(more, [*shape[:axis], size * times, *shape[axis + 1 :]])


def is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1
