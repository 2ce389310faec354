"""Models that draw at random: what a draw touches is refused with the operator that draws."""

import numpy as np
import pytest
from builders import Net

import mal_graph
from mal_graph.errors import MatchError


def noisy(seed, op):
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 6))
    if op == "Dropout":
        x = net.op("Dropout", x, net.constant(np.float32(0.5)), net.constant(np.array(True)))
    else:
        x = net.op("Add", x, net.op(op, x))
    return net.proto(net.linear(x, 6, 3))


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Dropout"])
def test_layers_beside_a_draw_are_not_merged(op):
    with pytest.raises(MatchError, match=f"{op} '{op}_.' draws at random"):
        mal_graph.assemble(noisy(0, op), noisy(1, op), method="mal")
