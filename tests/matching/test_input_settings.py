"""Numbers that prepare the inputs of a layer are the base's; where the donor's differ it is said."""

import numpy as np
import pytest
from builders import Net, correspondence_of

ML = "ai.onnx.ml"


def scaled(offset=0.5, fill=1.0, seed=0, *, second=True):
    net = Net(seed)
    x = net.op("Scaler", net.input("x", ("N", 4)), offset=[offset], scale=[2.0], domain=ML)
    if second:
        x = net.op("Imputer", x, imputed_value_floats=[fill], replaced_value_float=float("nan"), domain=ML)
    h = net.op("Relu", net.linear(x, 4, 6))
    return net.graph(net.linear(h, 6, 3))


def said(base, donor):
    return {layer: list(lines) for layer, lines in correspondence_of(base, donor).unpaired.items()}


def test_nothing_is_said_of_equal_settings():
    assert said(scaled(seed=0), scaled(seed=1)) == {}


@pytest.mark.parametrize(
    ("donor", "line"),
    [
        (
            scaled(0.4, seed=1),
            "offset of the ai.onnx.ml.Scaler that prepares its inputs differ from the donor's: the base's are kept",
        ),
        (
            scaled(fill=2.0, seed=1),
            "imputed_value_floats of the ai.onnx.ml.Imputer that prepares its inputs differ from the donor's: "
            "the base's are kept",
        ),
        (
            scaled(seed=1, second=False),
            "its inputs are prepared by ai.onnx.ml.Scaler, ai.onnx.ml.Imputer, the donor's by ai.onnx.ml.Scaler: "
            "the base's are kept",
        ),
    ],
)
def test_other_settings_are_said_of_the_layer_that_reads_them_alone(donor, line):
    assert said(scaled(), donor) == {scaled().nodes[2].name: [line]}


def test_the_base_keeps_its_numbers():
    import mal_graph

    base, donor = scaled(0.5), scaled(0.1, seed=1)
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert result.graph.nodes[0].attribute("offset") == base.nodes[0].attribute("offset")
    assert not np.array_equal(result.graph.weights["w0"].read(), base.weights["w0"].read())
