"""Hashes of the places of a network with what is around them, names left aside (Weisfeiler and Leman 1968).

Two places have the same hash if they look alike as far as the hash reaches: some steps up or down the graph, or all of
it.
"""

import hashlib
from collections.abc import Iterable, Sequence

CONTEXT = 3  # how many layers up and down the graph a context looks

Links = Sequence[Sequence[tuple[object, int]]]  # of every place the others it is linked with, and by what


def hash_contexts(labels: Sequence[str], neighbours: Links, whole: Sequence[str]) -> list[Sequence[str]]:
    """Weisfeiler-Lehman hashes of every place at radius 0 to CONTEXT, and then `whole`, those without limit."""
    levels: list[Sequence[str]] = [[digest(label) for label in labels]]
    for _ in range(CONTEXT):
        levels.append(refine(levels[-1], neighbours))
    return [*levels, whole]


def refine(hashes: Sequence[str], neighbours: Links) -> list[str]:
    """Hashes of every place with those of what it is linked with."""
    return [combine(hashes[place], near, hashes) for place, near in enumerate(neighbours)]


def unfold(labels: Sequence[str], neighbours: Links, order: Iterable[int]) -> list[str]:
    """Hashes of every place with all that it leads to; in `order` each comes behind what it is linked with."""
    hashes = [""] * len(labels)
    for place in order:
        hashes[place] = combine(labels[place], neighbours[place], hashes)
    return hashes


def refine_fully(hashes: Sequence[str], neighbours: Links) -> Sequence[str]:
    """Hashes refined until no place is told apart any further."""
    classes, new = 0, hashes
    while len(set(new)) > classes:
        classes, hashes = len(set(new)), new
        new = refine(hashes, neighbours)
    return hashes


def combine(own: str, near: Sequence[tuple[object, int]], hashes: Sequence[str]) -> str:
    return digest(own + repr(sorted((repr(link), hashes[other]) for link, other in near)))


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
