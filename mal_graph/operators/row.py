"""What one row of the operator table says: the operator's inputs, and what it does to axes, sizes, zeros and scales."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from mal_graph.graph import Node
from mal_graph.operators.call import Rule
from mal_graph.operators.marks import SizeConstant
from mal_graph.operators.sizes import Axes, SizeRule, no_axes, reduced_axes

WeightAxes = Callable[[Node, int], tuple[int, int] | None]
UnitAxis = Callable[[Node, int], int]
Shape = tuple[int, ...]
Multiplications = Callable[[Node, Sequence[Shape], Shape], int]


class Spread(NamedTuple):
    """Where the units of a stored weight lie that holds a matrix for each of several blocks.

    Attributes:
        blocks: the axes of the weight that the other operand and the output may have as well.
        produced, consumed: those that hold the units it produces, and those it consumes.
        made: for each axis of the weight that the output has, where it is there, counted from the end.
    """

    blocks: list[int]
    produced: list[int]
    consumed: list[int]
    made: Mapping[int, int]


Spreading = Callable[[Node, int, int], Spread | None]


class LayerRole(StrEnum):
    """The part of an operator in a layer."""

    CONTRACTION = "contraction"  # starts a layer
    PASSES = "passes"  # stays inside one
    ALONE = "alone"  # does neither
    SHAPE = "shape"  # reads no values at all


class AtZero(StrEnum):
    """What an operator makes of a zero unit: f(0)."""

    ZERO = "zero"
    FINITE = "finite"  # another finite value
    UNSAFE = "unsafe"  # it may be infinite, or it changes other units


class Homogeneity(StrEnum):
    """Where an operator gives positive factors on units out as they came in."""

    NONE = ""  # it changes something else
    ONE = "one"  # one operand has them: the first, or any if the operator commutes
    ALL = "all"  # all operands have them
    ANY = "any"  # whichever operands have them


class ParameterKind(StrEnum):
    """What a stored tensor is to the operator that applies it; a random copy of a network draws each in its own way."""

    WEIGHT = "weight"
    SHIFT = "shift"
    SCALE = "scale"
    VARIANCE = "variance"


@dataclass(frozen=True)
class Slot:
    """One input of an operator.

    Attributes:
        name: how the field calls it.
        kind: what a stored tensor is there; None for activations.
        setting: it steers the operator and is never a parameter (target shapes, clip bounds).
        axes: of a weight, the axes of the units that it produces and consumes, from (node, rank); None where it has no
            such pair.
        factor: the attribute that multiplies it, if any.
        produces: of a weight, the axis of the output that holds the units it produces, from (node, rank of the weight);
            the operator's `channel` if None.
        counted_by: of a weight that has several rows for each unit, the attribute that tells how many units there are.
        reads_state: a weight is multiplied with a state that the operator itself made a step before, not with an input.
        rotates: it holds the cosines or the sines of the angles by which pairs of units are turned.
        adds_to_scores: it is added to the scores of an attention.
        reads_places: its values may be places of units, as TopK tells them: the operator follows these.
    """

    name: str
    kind: ParameterKind | None = None
    setting: bool = False
    axes: WeightAxes | None = None
    factor: str = ""
    produces: UnitAxis | None = None
    counted_by: str = ""
    reads_state: bool = False
    rotates: bool = False
    adds_to_scores: bool = False
    reads_places: bool = False

    def factor_of(self, node: Node) -> float:
        """What the operator multiplies this input by."""
        return float(node.attribute(self.factor, 1.0)) if self.factor else 1.0

    @property
    def absent_value(self) -> float:
        """The value of a unit that is not there: it contributes nothing and divides by one."""
        return 1.0 if self.kind is ParameterKind.VARIANCE else 0.0


@dataclass(frozen=True)
class Compensation:
    """What keeps the function of a statistic over C units when M - C zero units join them (measured to rounding).

    Attributes:
        text: how people are told.
        powers: by place - "output", an input or an attribute - the power of M/C that multiplies what is there; None
            where no such factor exists.
        over: the axes that the statistic is taken over.
        is_centred: it takes the mean over the units to be zero.
    """

    text: str
    powers: Mapping[str, float] | None = None
    over: Axes = reduced_axes
    is_centred: bool = False


@dataclass(frozen=True)
class Row:
    """What is known of an operator.

    Attributes:
        rule: maps the labels of its inputs to those of its outputs; on the way it ties axes and pins others.
        layer_role: its part in a layer.
        moves: the output holds the first input's values, only arranged or stored otherwise.
        keeps_axes: its output has the axes of its input, with the units where they were.
        puts_ones: it does nothing but put in or take out axes of length one.
        adds: what it makes of a unit is a sum of what is in that unit, or a part of it.
        joins: the output holds its inputs end to end.
        pools: the output holds positions of its input taken together, channel by channel.
        kind: the name for layers that it starts, the same for operators that mean the same.
        slots: its inputs; the last one repeats for variadic operators.
        at_zero: what it makes of a zero unit.
        compensation: what keeps the function when zero units join those it takes a statistic over; None where nothing
            does.
        epsilon: what it adds to a variance where no attribute says.
        size_constants: inputs and attributes that hold the size of an axis, and how they follow when it is resized.
        block_counts: those of them that hold a number of blocks, into which an axis is cut.
        channel: the axis of its output that holds the units.
        commutes: the order of its operands does not matter.
        stays_between: what it gives lies between the least and the largest value that it takes.
        squashes: it saturates, so that a verification must read the tensor before it where it ends the model.
        is_probability: its output is read as a probability where it ends the model.
        probable: the values of an attribute with which it is, by the attribute's name.
        shared: those of them with which its probabilities sum to one.
        is_idempotent: it does nothing the second time.
        pointwise: what a layer with one tap that moves by one is a kind of as well.
        has_window: the further axes of its weight are taps, placed by strides, pads and dilations.
        class_names: the attributes that give the entries of its input's last axis names.
        with_classes: makes of a node with such names one with others; None where it cannot have these.
        prepares: the attributes that hold numbers taken from training data, to prepare what comes in.
        homogeneity: where positive factors on units come out as they came in.
        by_element: every entry of its output is made of those of its inputs at the same place.
        divides: it divides by its last input.
        reads_angles: it takes its input as an angle.
        attends: it takes queries, keys and values.
        shares_out: it turns scores into shares that sum to one.
        compares: its output says how its operands compare, element by element.
        selects: it works on booleans, or chooses by them, element by element.
        chooses: the values of its input say which entries its output holds, or where they stand.
        reads_integers: it reads integers as the numbers of a weight.
        quantises: it makes integers of floats by a scale, or floats of such integers.
        table_axis: of an operator that looks up its first input by its second, the axis it looks along, from the node.
        block_axis: of an operator that may look up blocks of its first input by places, their axis, from the node.
        shaping: the settings that decide which function it is, with the values that they have where nothing says.
        apart: the attributes that make another operator of it, with what they are where nothing says: layers that
            differ in one never correspond.
        since: the first opset of the form (inputs, attributes, meaning) that it still has; None where this is unknown.
        repeats: it gives something else each time that it runs, whatever it reads.
        multiplications: of a contraction, how many it takes, from the node, the shapes of its inputs and its output's.
        spread: of a contraction that takes several matrices at once, where the units of a stored one lie, from the
            node, the slot, and its rank; None where that is unknown.
    """

    rule: Rule
    layer_role: LayerRole = LayerRole.PASSES
    moves: bool = False
    keeps_axes: bool = False
    puts_ones: bool = False
    adds: bool = False
    joins: bool = False
    pools: bool = False
    kind: str = ""
    slots: tuple[Slot, ...] = (Slot("x"),)
    at_zero: AtZero = AtZero.ZERO
    compensation: Compensation | None = None
    epsilon: float = 1e-5
    size_constants: Mapping[str, SizeRule] = field(default_factory=dict)
    block_counts: tuple[str, ...] = ()
    stays_between: bool = False
    squashes: bool = False
    is_probability: bool = False
    probable: Mapping[str, Collection[str]] = field(default_factory=dict)
    shared: Mapping[str, Collection[str]] = field(default_factory=dict)
    commutes: bool = False
    class_names: tuple[str, ...] = ()
    with_classes: Callable[[Node, Sequence[str]], Node | None] | None = None
    prepares: tuple[str, ...] = ()
    has_window: bool = False
    pointwise: str = ""
    is_idempotent: bool = False
    homogeneity: Homogeneity = Homogeneity.NONE
    channel: int = 1
    by_element: bool = False
    divides: bool = False
    reads_angles: bool = False
    attends: bool = False
    shares_out: bool = False
    compares: bool = False
    selects: bool = False
    chooses: bool = False
    reads_integers: bool = False
    quantises: bool = False
    table_axis: Callable[[Node], int] | None = None
    block_axis: Callable[[Node], int] | None = None
    shaping: Mapping[str, object] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    since: int | None = None
    repeats: bool = False
    multiplications: Multiplications | None = None
    spread: Spreading | None = None

    @property
    def is_contraction(self) -> bool:
        """Whether it starts a layer where it has a weight."""
        return self.layer_role is LayerRole.CONTRACTION

    @property
    def passes(self) -> bool:
        """Whether its output stays in the layer of its input."""
        return self.layer_role is LayerRole.PASSES

    @property
    def reads_shape_only(self) -> bool:
        """Whether it reads no values, so that it carries no signal."""
        return self.layer_role is LayerRole.SHAPE

    @property
    def is_linear(self) -> bool:
        """Whether its output is linear in its weight, with no activation built in."""
        return self.is_contraction and self.at_zero is AtZero.ZERO

    @property
    def has_state(self) -> bool:
        """Whether it carries a state from step to step, so that its output does not grow with its weights."""
        return any(slot.reads_state for slot in self.slots)

    @property
    def is_sum(self) -> bool:
        """Whether what it makes of a unit is a sum of what is in that unit."""
        return self.adds or self.moves

    @property
    def arranges(self) -> bool:
        """Whether it gives entries of its first input out as they are."""
        return self.moves or (self.adds and not self.by_element) or self.table_axis is not None

    @property
    def passes_places(self) -> bool:
        """Whether its outputs hold values of its first input and nothing else."""
        return self.arranges and not self.joins

    @property
    def is_batch_norm(self) -> bool:
        """Whether it normalises each channel by a mean and a variance of its own."""
        return {"scale", "shift", "mean", "variance"} <= {slot.name for slot in self.slots}

    def gives_probabilities(self, node: Node) -> bool:
        """Whether the output of a node is read as a probability where it ends the model."""
        return self.is_probability or any(node.attribute(name) in told for name, told in self.probable.items())

    def gives_shares(self, node: Node) -> bool:
        """Whether the probabilities that a node gives sum to one."""
        return self.shares_out or any(node.attribute(name) in told for name, told in self.shared.items())

    def has_stored_statistics(self, node: Node) -> bool:
        """Whether a node is a BatchNorm that reads its statistics from weights, not from the batch."""
        return self.is_batch_norm and not node.attribute("training_mode", 0)

    def size_constants_of(self, node: Node) -> list[SizeConstant]:
        """The inputs and attributes of a node that hold the size of an axis; a single group is none."""
        given = {self.slot(i).name for i, name in enumerate(node.inputs) if name and self.slot(i).setting}
        named = [name for name in self.size_constants if name in given or node.attribute(name, 1) != 1]
        return [SizeConstant(name, node.op, node.name, name in self.block_counts) for name in named]

    def is_alike(self, *opsets: int | None) -> bool:
        """Whether it is known to mean the same in some opsets."""
        return self.since is not None and all(opset is not None and opset >= self.since for opset in opsets)

    def slot(self, index: int) -> Slot:
        """What is known of an input."""
        return self.slots[min(index, len(self.slots) - 1)]

    def weight_axes(self, slot: int, node: Node, rank: int) -> tuple[int, int] | None:
        """(out axis, in axis) of a contraction's weight of the given rank; None for anything else."""
        axes = self.slot(slot).axes
        return None if axes is None or rank < 2 else axes(node, rank)


# --- what the families share -----------------------------------------------------------------------------------

X = Slot("x")
SHIFT = Slot("shift", ParameterKind.SHIFT)
SCALE = Slot("scale", ParameterKind.SCALE)
BIAS = Slot("bias", ParameterKind.SHIFT)

ADDS_NOTHING = Compensation("nothing to do, zeros add nothing", {})
SUMMED = replace(ADDS_NOTHING, over=no_axes)
NEVER_CHOSEN = Compensation("-1e30 instead of 0 in the new units")


def setting(name: str) -> Slot:
    """An input that steers the operator."""
    return Slot(name, setting=True)
