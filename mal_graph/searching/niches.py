"""Natural niches: an archive of merges that compete for samples, and pairs that complement each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.method import Proposals, Space, in_batches, search_method

Vector = NDArray[np.float64]

ARCHIVE = 20  # merges that are kept
CROWDING = 1.0  # how much is left of a sample that many do well on: a in the paper


@dataclass(frozen=True)
class Member:
    """One merge of the archive, with how well it does on every sample: the probability of the right answer."""

    candidate: Candidate
    scores: Vector


@search_method(
    "m2n2",
    source="arXiv:2508.16204",
    needs_samples=True,
    deviations=(
        "two merges are mixed in a straight line, by their weights: the paper mixes tensors on the sphere, which would "
        "have to be kept for every member of the archive",
        "the archive begins with the base, each donor beside it, and all together",
        "a split point is one of the stages: the paper splits between any two weights",
        "how well a merge does on a sample is its probability of the right answer, the exponential of minus its loss: "
        "so regression has one too",
        "there is no mutation: the paper has none either where models are trained ones",
    ),
)
def m2n2(space: Space) -> Proposals:
    """An archive in which merges that do well on the same samples share what these count; those mate that complement
    each other, split at a random stage; the one that counts least goes."""
    rng = np.random.default_rng(space.seed)
    alone = [Candidate.of({donor: space.even(space.most)}) for donor in space.donors]
    together = Candidate.of({donor: space.even(space.most) for donor in space.donors})
    first = yield from in_batches(space, [together, *alone[: max(1, space.trials // 2)]])
    archive = kept([member_of(space.base), *map(member_of, first)])
    while True:
        pairs = [mates(archive, rng) for _ in range(space.batch)]
        children = [mixed(space, archive[one].candidate, archive[other].candidate, rng) for one, other in pairs]
        archive = kept([*archive, *map(member_of, (yield children))])


def member_of(trial: Trial) -> Member | None:
    """A merge that can be a member; None where it could not be scored."""
    if not np.isfinite(trial.loss):
        return None
    return Member(trial.candidate, np.exp(-np.concatenate([one.each for one in trial.figures])))


def kept(members: Sequence[Member | None]) -> list[Member]:
    """The archive: of equal merges one, and of all those that count most, in the order in which they came."""
    named = {member.candidate: member for member in members if member is not None}
    archive = list(named.values())
    while len(archive) > ARCHIVE:
        counts = fitness(archive)
        archive.pop(int(np.argmin(counts)))
    return archive


def shares(archive: Sequence[Member]) -> Vector:
    """What each member has of every sample, shape (members, samples): its score by those of all."""
    scores = np.stack([member.scores for member in archive])
    together = scores.sum(axis=0) ** CROWDING
    return np.asarray(np.divide(scores, together, out=np.zeros_like(scores), where=together > 0))


def fitness(archive: Sequence[Member]) -> Vector:
    """How much each member counts."""
    return np.asarray(shares(archive).sum(axis=1))


def mates(archive: Sequence[Member], rng: np.random.Generator) -> tuple[int, int]:
    """Two members: one by how much it counts, and one that does well where the first does not; where none does, the
    first with itself."""
    held = shares(archive)
    counts = held.sum(axis=1)
    one = int(rng.choice(len(archive), p=counts / counts.sum())) if counts.sum() > 0 else 0
    attraction = np.maximum(held - held[one], 0).sum(axis=1)
    total = attraction.sum()
    return one, int(rng.choice(len(archive), p=attraction / total)) if total > 0 else one


def mixed(space: Space, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate:
    """Two merges mixed: in shares w and 1 - w before a random stage, and 1 - w and w from there on.

    Of means it is the mean of the two merged models in these shares: what a merge counts is divided by what its base
    does, which is one part of all that it is made of.
    """
    share, split = rng.random(), int(rng.integers(0, space.stages + 1))
    parts = np.where(np.arange(space.stages) < split, share, 1 - share)
    mine, theirs = (rows_of(space, candidate) for candidate in (one, other))
    ours = parts / (1 + mine.sum(axis=0))
    rest = (1 - parts) / (1 + theirs.sum(axis=0))
    rows = (ours * mine + rest * theirs) / (ours + rest)
    return Candidate.of(dict(zip(space.donors, rows.tolist(), strict=True)))


def rows_of(space: Space, candidate: Candidate) -> Vector:
    """The weights of all donors, shape (donors, stages)."""
    nothing = space.even(0.0)
    return np.array([candidate.by_donor.get(donor, nothing) for donor in space.donors])
