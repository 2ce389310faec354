"""Weights shared out over data files of at most a size, in the order in which they are stored.

Chosen: a tensor lies in one file as a whole, as every reader of ONNX expects; a size that one alone exceeds is refused.
Refused: to let such a tensor make a larger file, as others do - the size is given where a file must not be larger.
"""

from collections.abc import Mapping, Sequence

from mal_graph.errors import UsageError


def shards_of(sizes: Sequence[int], most: int | None) -> list[slice]:
    """Which tensors lie in each file, of their bytes and what a file may have; one file where this is None."""
    firsts, held = [0], 0
    for place, size in enumerate(sizes):
        if most is not None and held and held + size > most:
            firsts.append(place)
            held = 0
        held += size
    return [slice(*ends) for ends in zip(firsts, [*firsts[1:], len(sizes)], strict=True)]


def refuse_small_shards(model: str, sizes: Mapping[str, int], most: int | None) -> None:
    """Raise UsageError where a tensor has more bytes than a file may have.

    Args:
        model: how messages call the model that they are of.
        sizes: bytes by name of the tensor.
    """
    name = max(sizes, key=lambda name: sizes[name], default="")
    if most is not None and name and sizes[name] > most:
        raise UsageError(
            f"`shard_size` is {most:,} bytes, and weight {name!r} of {model} alone takes {sizes[name]:,}: give at "
            "least as many"
        )
