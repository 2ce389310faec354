"""What axis rules note beside the labels: why axes stay, which nodes take statistics, which constants hold sizes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class GroupState(StrEnum):
    """What is known of the units of an axis, and so of a group of axes."""

    CANDIDATE = "candidate"  # found, not yet verified
    VERIFIED = "verified"
    UNVERIFIED = "unverified"  # no verdict
    PINNED = "pinned"  # their order is part of the contract
    FROZEN = "frozen"  # nothing can be said
    RIGID = "rigid"  # no two of them are interchangeable


class Pin(NamedTuple):
    """Why an axis cannot be permuted.

    Attributes:
        state: PINNED or FROZEN, or UNVERIFIED where no run shows what the operator does.
        unknown_op: the operator without a row that freezes it, if one does.
        is_contract: the order is that of the model's own inputs or outputs, so that each place is known whatever reads
            the axis.
        is_data: integers or booleans that are part of a weight lie along the axis, and would be left behind by what
            moves or merges the floats beside them.
    """

    state: GroupState
    reason: str
    unknown_op: str = ""
    is_contract: bool = False
    is_data: bool = False

    @property
    def strength(self) -> int:
        """Which of several pins counts: data before contract before frozen before pinned."""
        return 4 if self.is_data else 3 if self.is_contract else 1 if self.state is GroupState.PINNED else 2


@dataclass(frozen=True)
class Statistic:
    """A node that takes a sum, norm, mean or maximum over units, by its operator and name."""

    op: str
    node: str

    def __str__(self) -> str:
        return f"{self.op} {self.node!r}"


@dataclass(frozen=True)
class SizeConstant:
    """An input or attribute of a node that holds the size of an axis.

    Attributes:
        name: what the operator calls it.
        op, node: the operator, and the name of its node.
        is_block_count: it is the number of blocks that the axis is cut into.
    """

    name: str
    op: str
    node: str
    is_block_count: bool = False

    def __str__(self) -> str:
        return f"{self.name} of {self.op} {self.node!r}"
