"""What notebooks show of models and matches."""

import xml.etree.ElementTree as ET

import pytest
from builders import cnn, mlp
from report_results import result

import mal_graph
from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.network import find_layers


def texts(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text}


def test_a_model_shows_its_layers():
    graph = cnn((4, 6))
    assert {layer.name for layer in find_layers(graph)} <= texts(graph._repr_svg_())


def test_a_match_shows_both_models():
    base, donor = mlp((8, 7, 5), seed=0), mlp((8, 6, 5), seed=1)
    match = mal_graph.match_layers(base, donor)
    assert {layer.name for layer in match.base} <= texts(match._repr_svg_())
    assert f"{match.pairs[0].score:.2f}" in texts(match._repr_svg_())


def test_a_curve_shows_its_arm_and_lambda_star():
    curve = result("sweep").curves[0]
    shown = texts(curve._repr_svg_())
    assert {curve.arm, f"λ* {curve.lam_star:g}"} <= shown


def test_a_match_of_a_base_that_was_rewritten_shows_no_picture():
    match = mal_graph.match_layers(mlp(), mlp(seed=1))
    rewritten = match.with_base(match.base)
    assert rewritten._repr_svg_() is None
    with pytest.raises(UsageError, match="match the layers of the two models again"):
        registry.reporter().svg(rewritten)
