"""Pooling and sampling: positions are read through windows, channels pass."""

from collections.abc import Mapping

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import WINDOW, Call, pass_all_but, pin_axes
from mal_graph.operators.row import AtZero, Homogeneity, LayerRole, Row, X, setting


def pool(call: Call) -> list[Label]:
    """Batch and channels pass; positions are pinned."""
    if any(call.node.outputs[1:]):
        return call.freeze(f"{call.name} gives indices into the whole tensor")
    return pass_all_but(call, range(2, len(call.outputs[0])), WINDOW)


def roi_pool(call: Call) -> list[Label]:
    """Channels pass; which sample and which positions are read is said by values."""
    for label in call.inputs[1:]:
        if label is not None:
            call.wiring.pin_label(label, WINDOW)
    return pass_all_but(call, (0, 2, 3), WINDOW)


def grid_sample(call: Call) -> list[Label]:
    """Samples and channels pass; positions are pinned."""
    wiring, shape = call.wiring, call.outputs[0]
    batch, channels, *_ = pin_axes(call, call.label(0), range(2, len(shape)), WINDOW)
    grid = pin_axes(call, call.label(1), range(1, len(shape)), WINDOW)
    return [wiring.label_of(shape, [wiring.tie(batch, grid[0]), channels, *[WINDOW] * (len(shape) - 2)])]


def affine_grid(call: Call) -> list[Label]:
    """Samples pass; everything else is pinned."""
    batch = pin_axes(call, call.label(0), (1, 2), WINDOW)[0]
    return [call.wiring.label_of(shape, [batch, *[WINDOW] * (len(shape) - 1)]) for shape in call.outputs]


ROWS: Mapping[str, Row] = {
    **dict.fromkeys(
        ["AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"],
        Row(pool, pools=True, homogeneity=Homogeneity.ONE, stays_between=True),
    ),
    **dict.fromkeys(["LpPool", "GlobalLpPool"], Row(pool, pools=True, homogeneity=Homogeneity.ONE)),
    "RoiAlign": Row(roi_pool, slots=(X, X, setting("samples"))),
    "MaxRoiPool": Row(roi_pool, slots=(X, X)),
    "GridSample": Row(grid_sample, slots=(X, X)),
    "AffineGrid": Row(affine_grid, LayerRole.ALONE, slots=(X, setting("size")), at_zero=AtZero.FINITE),
}
