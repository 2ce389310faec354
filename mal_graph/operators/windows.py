"""Windows of convolutions: where the taps of one lie among those of another.

A tap reads `stride * place - before + dilation * tap`. Two windows of one stride and one dilation correspond to
each other if the taps of both lie on a common grid and both give maps of the same size; then the smaller one, with
zeros around it, is the same convolution in a larger window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mal_graph.graph import Node
from mal_graph.operators.table import row_of

PADDED_ALIKE = ("", "NOTSET", "VALID")


class Misfit(Exception):
    """Two windows that do not correspond to each other, with the reason; caught where the layer is listed."""


@dataclass(frozen=True)
class Span:
    """The taps of a window along one axis, and the padding in front of and behind the map."""

    taps: int
    before: int
    after: int
    stride: int
    dilation: int


@dataclass(frozen=True)
class Enlarged:
    """A convolution with more taps: the node with its attributes, and how many taps come in on each side of an axis."""

    node: Node
    more: Sequence[tuple[int, int]]


def groups_of(node: Node) -> int:
    """How many groups a convolution has; 1 for any other operator."""
    return int(node.attribute("group", 1))


def strides_of(node: Node, rank: int) -> tuple[int, ...]:
    """By how many positions a window moves along each of `rank` axes."""
    return tuple(node.attribute("strides") or [1] * rank)


def dilations_of(node: Node, rank: int) -> tuple[int, ...]:
    """How many positions lie from tap to tap along each of `rank` axes."""
    return tuple(node.attribute("dilations") or [1] * rank)


def pads_of(node: Node, rank: int) -> tuple[int, ...]:
    """The positions added in front of each of `rank` axes, then those behind."""
    return tuple(node.attribute("pads") or [0] * 2 * rank)


def is_pointwise(node: Node, taps: Sequence[int]) -> bool:
    """Whether a window has a single tap and reads every position once."""
    rank = len(taps)
    return {*taps, *strides_of(node, rank)} == {1} and not any(pads_of(node, rank))


def spans_of(node: Node, taps: Sequence[int]) -> list[Span]:
    """The window of a convolution, axis by axis. Raises Misfit where it is not told by its attributes."""
    row, rank = row_of(node), len(taps)
    is_placed = row is not None and row.has_window and not node.attribute("output_shape")
    if not is_placed or any(node.attribute("output_padding") or ()):
        raise Misfit("its taps are not placed by padding, stride and dilation alone")
    strides, dilations, pads = strides_of(node, rank), dilations_of(node, rank), padding_of(node, taps)
    return [Span(taps[i], pads[i], pads[i + rank], strides[i], dilations[i] if taps[i] > 1 else 0) for i in range(rank)]


def padding_of(node: Node, taps: Sequence[int]) -> tuple[int, ...]:
    """The pads of a window, those that the operator chooses for itself too. Raises Misfit where the map decides."""
    rank, padding = len(taps), node.attribute("auto_pad", "")
    if padding in PADDED_ALIKE:
        return pads_of(node, rank)
    if any(stride != 1 for stride in strides_of(node, rank)):
        raise Misfit(f"its padding {padding} depends on the size of the map")
    total = [dilation * (count - 1) for count, dilation in zip(taps, dilations_of(node, rank), strict=True)]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return (*less, *more) if padding == "SAME_UPPER" else (*more, *less)


def offset(base: Span, donor: Span) -> tuple[int, int]:
    """How many taps of `base` lie before the donor's first and behind its last one; negative where the donor's window
    reaches further. Raises Misfit."""
    step = base.dilation or donor.dilation or 1
    if base.stride != donor.stride:
        raise Misfit(f"its stride is {base.stride}, the donor's {donor.stride}")
    if base.dilation and donor.dilation and base.dilation != donor.dilation:
        raise Misfit(f"its dilation is {base.dilation}, the donor's {donor.dilation}")
    lead, tail = base.before - donor.before, base.after - donor.after
    if lead % step or tail % step or base.taps != donor.taps + (lead + tail) // step:
        raise Misfit(
            f"{base.taps} taps padded by {base.before} and {base.after} do not lie on the donor's {donor.taps} "
            f"padded by {donor.before} and {donor.after}"
        )
    return lead // step, tail // step


def offsets(base: Node, base_taps: Sequence[int], donor: Node, donor_taps: Sequence[int]) -> list[tuple[int, int]]:
    """`offset` along every axis. Raises Misfit."""
    return [offset(a, b) for a, b in zip(spans_of(base, base_taps), spans_of(donor, donor_taps), strict=True)]


def enlarged(base: Node, base_taps: Sequence[int], donor: Node, donor_taps: Sequence[int]) -> Enlarged:
    """The smallest window that holds those of both. Raises Misfit."""
    spans, others = spans_of(base, base_taps), spans_of(donor, donor_taps)
    more = [(max(0, -lead), max(0, -tail)) for lead, tail in map(offset, spans, others)]
    steps = [span.dilation or other.dilation or 1 for span, other in zip(spans, others, strict=True)]
    before = [span.before + step * front for span, step, (front, _) in zip(spans, steps, more, strict=True)]
    after = [span.after + step * behind for span, step, (_, behind) in zip(spans, steps, more, strict=True)]
    taps = [span.taps + front + behind for span, (front, behind) in zip(spans, more, strict=True)]
    changed = {"kernel_shape": tuple(taps), "pads": (*before, *after), "dilations": tuple(steps)}
    left = {key: value for key, value in base.attributes.items() if key != "auto_pad"}
    return Enlarged(replace(base, attributes={**left, **changed}), more)
