"""Exchanges of partners between parallel branches, while they gain.

Layers that follow each other in both models count too: of branches alike the layers of one correspond to the layers of
one. A base layer takes a donor layer, and whoever had that takes its old partner. What cannot gain is passed over by a
bound, a row of donor layers at a time: as many layers can follow each other as both models have on either side.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.bits import as_mask, members
from mal_graph.matching.following import Following
from mal_graph.matching.layer_profile import Profile
from mal_graph.matching.pairing import MIN_SCORE, Scored
from mal_graph.matching.reversals import Reversals

FOLLOWS = 0.05  # what two layers add that follow each other in both models
LEAST_GAIN = 1e-9  # less is rounding

Moves = Mapping[int, int]  # new partners of some base layers, -1 for none


def exchange_partners(a: Profile, b: Profile, scores: Scored, chosen: Mapping[int, int]) -> dict[int, int]:
    """The pairing after every exchange of partners and every addition that gains and reverses nothing."""
    pairing = Pairing(a, b, scores, chosen)
    improved = True
    while improved:
        improved = False
        for i in a.order:
            place = pairing.exchange(i, 0)
            while place is not None:
                place, improved = pairing.exchange(i, place), True
    return {i: int(j) for i, j in enumerate(pairing.partners) if j >= 0}


class Pairing:
    """A pairing that is being improved.

    Attributes:
        partners: the donor layer of each base layer, -1 for none.
        holders: the base layer of each donor layer, -1 for none.
        own: the score of each base layer with its partner, 0.0 without one.
        following: how many of the layers before and after each base layer have partners before and after its own.
        ahead, back: what follows whom, seen from the base and from the donor.
        moves: how many exchanges were made.
        settled: after how many of them no donor layer gained, for each base layer; -1 where that is not known.
        barred: the donor layers that were not tried then, as bits.
        rows, columns: which exchange was the last that changed what a base layer, or a donor layer, may gain.
    """

    def __init__(self, a: Profile, b: Profile, scores: Scored, chosen: Mapping[int, int]) -> None:
        self.a, self.b, self.scores = a, b, scores
        self.order = np.array(b.order, int)
        self.place = np.argsort(self.order)
        self.partners, self.holders = np.full(len(a.layers), -1), np.full(len(b.layers), -1)
        self.own = np.zeros(len(a.layers))
        rows, columns = np.array(list(chosen), int), np.array(list(chosen.values()), int)
        self.partners[rows], self.holders[columns] = columns, rows
        self.own[rows] = scores.at(rows, columns)
        self.ahead, self.back = Following(a, b, self.partners), Following(b, a, self.holders)
        self.following = np.zeros(len(a.layers), int)
        for i, j in chosen.items():
            self.following[i] = self.ahead.by_count(i, np.array([j]))[0]
        self.reversals = Reversals(a, b, self.partners)
        self.moves, self.settled, self.barred = 0, [-1] * len(a.layers), [0] * len(a.layers)
        self.rows, self.columns = np.zeros(len(a.layers), int), np.zeros(len(b.layers), int)

    def exchange(self, i: int, place: int) -> int | None:
        """Give base layer i the first donor layer that gains, from a place in the donor's order on.

        Returns: the place behind that donor layer; None if none gains.
        """
        if self.settled[i] == self.moves:
            return None
        barred, is_settled = self.reversals.barred(i), place == 0
        ahead = self.order[place:]
        for j, won in self.may_gain(i, ahead[self.untried(i, barred)[ahead]]):
            moves = {i: j}
            if self.holders[j] >= 0:
                moves[int(self.holders[j])] = int(self.partners[i])
            more = self.count_following(moves, self.after(moves)) - self.count_following(moves, self.partners)
            if won + FOLLOWS * more <= LEAST_GAIN:
                continue
            if self.is_monotone(moves):
                self.move(moves)
                return int(self.place[j]) + 1
            is_settled = False  # any exchange may make room for this one
        if is_settled:
            self.settled[i], self.barred[i] = self.moves, barred
        return None

    def untried(self, i: int, barred: int) -> NDArray[np.bool_]:
        """The donor layers that base layer i may take without reversing an order, `barred` left aside; but those that
        gained nothing before, where nothing has changed since."""
        count = len(self.holders)
        free = ~as_mask(barred, count)
        if self.partners[i] >= 0:
            free[self.partners[i]] = False
        if self.rows[i] <= self.settled[i]:
            free &= (self.columns > self.settled[i]) | as_mask(self.barred[i], count)
        return free

    def may_gain(self, i: int, j: NDArray[np.int64]) -> Iterator[tuple[int, float]]:
        """Those of some donor layers that may gain if base layer i takes them, each with what the scores win. What
        cannot gain is sifted out, in ways that are slower the fewer are left."""
        own = self.partners[i]
        j, won = self.what_scores_win(i, j)
        # What the two that move have between them is no matter: where it is lost or made, an order is reversed.
        for way in (Following.by_degrees, Following.by_neighbours, Following.by_count):
            if not j.size:
                break
            more = way(self.ahead, i, j) - self.following[i]
            held = (self.holders[j] >= 0).nonzero()[0]
            holder = self.holders[j[held]]
            more[held] -= self.following[holder]
            if own >= 0:
                more[held] += way(self.back, int(own), holder)
            may = won + FOLLOWS * more > LEAST_GAIN
            j, won = j[may], won[may]
        return zip(j.tolist(), won.tolist(), strict=True)

    def what_scores_win(self, i: int, j: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What the scores win where base layer i takes one of some donor layers; those alike enough."""
        new = self.scores.at(i, j)
        j, new = j[new >= MIN_SCORE], new[new >= MIN_SCORE]
        old = np.full(len(j), self.own[i])
        held = (self.holders[j] >= 0).nonzero()[0]
        holder = self.holders[j[held]]
        if self.partners[i] >= 0:
            swapped = self.scores.at(holder, self.partners[i])
            new[held] += np.where(swapped >= MIN_SCORE, swapped, -np.inf)
        old[held] += self.own[holder]
        return j, new - old

    def after(self, moves: Moves) -> NDArray[np.int64]:
        """The partners after some moves."""
        partners = self.partners.copy()
        partners[list(moves)] = list(moves.values())
        return partners

    def count_following(self, layers: Iterable[int], partners: NDArray[np.int64]) -> int:
        """How many steps from or to some base layers their partners make too."""
        return sum(int(np.count_nonzero(follows)) for _, _, follows in self.steps(layers, partners))

    def steps(
        self, layers: Iterable[int], partners: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.bool_]]]:
        """Base layers, each with the layers before it and with those after it, and whether their partners stand so too;
        what two of the layers have between them is told once."""
        rest = -1  # all bits
        for i in layers:
            rest &= ~(1 << i)
            for mine, theirs in zip(self.ahead.mine, self.ahead.theirs, strict=True):
                near = members(mine[i] & rest, len(partners))
                follows = np.zeros(len(near), bool)
                if partners[i] >= 0:
                    paired = partners[near] >= 0
                    follows[paired] = as_mask(theirs[partners[i]], len(self.holders))[partners[near[paired]]]
                yield i, near, follows

    def is_monotone(self, moves: Moves) -> bool:
        """Whether none of the pairs that some moves make reverses the order of another."""
        partners = self.after(moves)
        for i, j in moves.items():
            if j < 0:
                continue
            for mine, theirs in (
                (self.a.network.descendants, self.b.network.ancestors),
                (self.a.network.ancestors, self.b.network.descendants),
            ):
                others = partners[as_mask(mine[i], len(partners))]
                if as_mask(theirs[j], len(self.holders))[others[others >= 0]].any():
                    return False
        return True

    def move(self, moves: Moves) -> None:
        """Give some base layers other partners."""
        after = self.after(moves)
        for sign, partners in ((-1, self.partners), (1, after)):
            for i, near, follows in self.steps(moves, partners):
                self.following[near] += sign * follows
                self.following[i] += sign * np.count_nonzero(follows)
        left = [self.partners[i] for i in moves if self.partners[i] >= 0]
        self.holders[left] = -1
        for i, j in moves.items():
            self.partners[i] = j
            self.own[i] = float(self.scores.at(i, j)) if j >= 0 else 0.0
            if j >= 0:
                self.holders[j] = i
        self.moves += 1
        for i in moves:
            self.reversals.changed(i)
            around = members(self.a.network.before[i] | self.a.network.after[i] | 1 << i, len(self.partners))
            self.rows[around] = self.moves
            partners = self.partners[around]
            self.columns[partners[partners >= 0]] = self.moves
        self.columns[left] = self.moves
