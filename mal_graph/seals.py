"""What a written model says of itself: how it was made, and digests of all that it holds.

A seal shows that a file is as it was written. It does not show who wrote it: whoever can write a file can seal it.
"""

from dataclasses import dataclass

OWN = "mal_graph."  # how the notes on a model begin that this package writes; they are no part of a loaded graph
PROVENANCE = OWN + "provenance"  # the note that says how a model was made; a graph that has it is sealed when written


@dataclass(frozen=True)
class Sealed:
    """A sealed file as it is now.

    Attributes:
        provenance: the note that says how it was made.
        graph: SHA-256 of all but the tensors and the notes of this package.
        tensors: SHA-256 of every stored tensor with its type and shape, each with where it is stored, in their order.
        changed: what is not as it was written, a sentence each; () where all is.
    """

    provenance: str
    graph: str
    tensors: tuple[tuple[str, str], ...]
    changed: tuple[str, ...] = ()
