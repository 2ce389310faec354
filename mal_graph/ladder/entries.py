"""What a picture of one or two models shows, as plain data: the places of each model, what they read, and the pairs.

A place is what signals come from: an input, a layer, a join of several signals, or an output. The picture has one row
for it; where two layers correspond to each other they share one.
"""

from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel

from mal_graph.operators import GroupState


class Role(StrEnum):
    """What a place is."""

    INPUT = "input"
    LAYER = "layer"
    JOIN = "join"
    OUTPUT = "output"


class GroupMark(BaseModel):
    """A group of axes that move together; `reason` says why its units may not be permuted, `partners` which groups of
    the other model belong to it. `deviation` is how much the outputs moved with all its units permuted, `control` with
    one member left out."""

    name: str
    units: int
    state: str
    reason: str = ""
    partners: list[int] = []
    deviation: float | None = None
    control: float | None = None


class AxisMark(BaseModel):
    """An axis of a tensor of a layer, and the groups on it, as indices into those of the model; `units` says whether it
    runs over the units that go "in" or "out" of the layer, "" for neither."""

    tensor: str
    axis: int
    groups: list[int]
    units: str = ""


class PlaceEntry(BaseModel):
    """One place of a model.

    `kind` is a layer's kind or a join's operator, `path` the modules around it, `units` a layer's in and out, `reads`
    the places it reads, in the order of its operands where `is_ordered`; `note` says why it has no partner, or why it
    keeps its weights.
    """

    name: str
    role: Role
    kind: str
    path: list[str] = []
    units: tuple[int, int] | None = None
    window: str = ""
    shape: list[int] = []
    parameters: int = 0
    reads: list[int] = []
    is_ordered: bool = False
    axes: list[AxisMark] = []
    note: str = ""


class ModelEntry(BaseModel):
    """One model of a picture; `groups` is empty where they were not looked for."""

    name: str
    places: list[PlaceEntry]
    groups: list[GroupMark] = []

    @cached_property
    def is_verified(self) -> bool:
        """Whether any group is: only then it tells something of another that it is not."""
        return any(group.state == GroupState.VERIFIED for group in self.groups)


class RunnerUpEntry(BaseModel):
    """The donor layer that would be next, and why it is not the partner."""

    donor: str
    score: float
    reason: str


class HeatMap(BaseModel):
    """Cosines of some units of a base layer with donor units, before and after these were assigned.

    Row i and column i belong together; a column without a partner is empty. Values run from -1 to 1, in steps of 1/127
    as signed bytes in base64, row by row.
    """

    size: int
    before: str
    after: str


class UnitsEntry(BaseModel):
    """What an assignment found for one pair of layers, and what the merge makes of it.

    `assigned` base units have a donor unit; `cosine` and `norm_ratio` (donor's over base's) are medians over these,
    `random` is the median cosine of pairs drawn at random.
    """

    units: tuple[int, int]
    assigned: int
    cosine: float
    random: float
    norm_ratio: float
    lam: float | None = None
    matched: float | None = None
    heat: HeatMap | None = None


class RungEntry(BaseModel):
    """Two layers that correspond to each other, as indices of their places."""

    base: int
    donor: int
    score: float
    relation: str
    reason: str
    parts: dict[str, float] = {}
    runner_up: RunnerUpEntry | None = None
    differences: list[str] = []
    units: UnitsEntry | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """Its places in the base and in the donor."""
        return self.base, self.donor


class LadderEntry(BaseModel):
    """One model, or two with the pairs of their layers."""

    base: ModelEntry
    donor: ModelEntry | None = None
    rungs: list[RungEntry] = []

    def sides(self) -> list[tuple[str, ModelEntry]]:
        """The models with what each is called."""
        return [("base", self.base), *([("donor", self.donor)] if self.donor else [])]
