"""Units of blocks that are chosen: an expert that a router picks has units in an order of its own.

What is looked up of a stack is the block that a sample chooses, and the atoms of its units stand for those of whichever
block it is. Where such atoms only meet atoms that stand for units of the same choice, the units of each block meet
those of the same block and of no other; where they meet anything else, the units of all blocks have one order.
"""

import numpy as np

from mal_graph.operators import Wiring
from mal_graph.symmetry.interchangeable import components


def settle_choices(wiring: Wiring) -> None:
    """Tie the units of blocks that are chosen together, block by block, or make them belong to what all blocks meet."""
    if not wiring.chosen:
        return
    component = components(wiring.count, wiring.ties)
    atoms = np.concatenate([chosen.units for chosen in wiring.chosen])
    number = np.repeat(np.arange(len(wiring.chosen)), [len(chosen.units) for chosen in wiring.chosen])
    place = np.concatenate([np.arange(len(chosen.units)) for chosen in wiring.chosen])
    stands = np.zeros(wiring.count, bool)
    stands[atoms] = True
    met = np.zeros(int(component.max()) + 1, bool)  # which components hold anything but choices
    met[component[~stands]] = True
    met[component[held_atoms(wiring)]] = True
    for chosen in wiring.chosen:
        wiring.statistics += [
            taken._replace(atoms=chosen.each.ravel())
            for taken in wiring.statistics
            if np.isin(chosen.units, taken.atoms).any()
        ]
    order = np.argsort(component[atoms], kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(component[atoms][order])) + 1):
        rows = [wiring.chosen[number[i]].each[:, place[i]] for i in run.tolist()]
        choices = {(wiring.chosen[number[i]].by, len(row)) for i, row in zip(run.tolist(), rows, strict=True)}
        if met[component[atoms[run[0]]]] or len(choices) > 1:
            for i, row in zip(run.tolist(), rows, strict=True):
                wiring.belong(row, np.broadcast_to(atoms[i], row.shape))
        else:
            for row in rows[1:]:
                wiring.tie(rows[0], row)


def held_atoms(wiring: Wiring) -> np.ndarray:
    """The atoms that are pinned, lie in blocks or are blocks."""
    held = [
        *(pinned.atoms for pinned in wiring.pins),
        *(side for belonging in wiring.blocks for side in belonging[:2]),
    ]
    return np.concatenate([np.zeros(0, np.int64), *map(np.ravel, held)])
