"""Tests of the merging factors of layers."""

import pytest
from builders import mlp

from mal_graph.errors import UsageError
from mal_graph.merging import LayerLambdas
from mal_graph.network import find_layers

FIVE = find_layers(mlp((6, 7, 8, 9, 7, 5), 0))  # at depths 0 to 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((0.3,), [0.3] * 5),
        (((0.0, 1.0),), [0, 0.25, 0.5, 0.75, 1]),
        (([0.2, 0.6, 0.2],), [0.2, 0.4, 0.6, 0.4, 0.2]),
        ((0.3, {"1:3": 0.9}), [0.3, 0.9, 0.9, 0.3, 0.3]),
        (((0.0, 1.0), {"*": 0.5, "4:5": 0.0}), [0.5, 0.5, 0.5, 0.5, 0]),
    ],
)
def test_every_layer_has_its_own(options, expected):
    lambdas = LayerLambdas.of(*options).of_layers(FIVE)
    assert list(lambdas) == [layer.name for layer in FIVE]
    assert list(lambdas.values()) == pytest.approx(expected)


def test_a_single_number_is_uniform_and_its_own_mean():
    assert (LayerLambdas().is_uniform, LayerLambdas().mean) == (True, 0.3)
    assert (LayerLambdas.of((0.1, 0.5)).is_uniform, LayerLambdas.of((0.1, 0.5)).mean) == (False, 0.3)
    assert not LayerLambdas.of(0.3, {"*": 0.3}).is_uniform


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (([],), "no lambda given: give a merging factor from 0"),
        ((float("nan"),), "lambda is nan: give a merging factor from 0"),
        (((0.1, 1.5),), "lambda is 1.5"),
        ((0.3, {"*": -1.0}), "lambda is -1.0"),
        (((0.1,) * 6,), "6 lambdas are given for 5 layers: give one, or a few that are spread over the depth"),
        ((0.3, {"conv*": 0.5}), "the selector 'conv\\*' selects none of 5 layers"),
    ],
)
def test_what_is_no_factor_or_fits_no_layer_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LayerLambdas.of(*options).of_layers(FIVE)
