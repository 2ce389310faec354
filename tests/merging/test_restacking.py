"""Networks put together out of blocks of others."""

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, run, save, vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import MatchError, UsageError
from mal_graph.merging import Piece, find_chain, restack
from mal_graph.reporting import card_text

NETS = {
    "perceptron": (lambda seed, blocks: mlp((4, *[6] * (blocks + 1), 3), seed), 2),
    "transformer": (lambda seed, blocks: vit(seed, blocks=blocks), 21),
    "residual": (lambda seed, blocks: cnn((4,), blocks=blocks, seed=seed, size=4), 7),
    "masked": (lambda seed, blocks: masked(seed, blocks), 3),
}
few = settings(max_examples=2, deadline=None, phases=[Phase.reuse, Phase.generate])


def masked(seed, blocks):
    """Blocks that read a mask beside the stream, which another part of the network makes once."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    mask, x = net.op("Sigmoid", net.linear(x, 6, 6)), net.linear(x, 6, 6)
    for _ in range(blocks):
        x = net.op("Mul", net.op("Tanh", net.linear(x, 6, 6)), mask)
    return net.graph(net.linear(x, 6, 3))


def outputs(graph):
    return run(graph, inputs_of(graph))


@pytest.mark.parametrize("name", NETS)
def test_equal_blocks_are_found_and_all_of_them_in_order_are_the_network(name):
    make, operators = NETS[name]
    graph = make(0, 4)
    chain = find_chain(graph)
    assert len(chain) == 4
    assert {len(chain.block(number)) for number in range(4)} == {operators}
    again = restack([Piece(chain, 0, 3), Piece(chain, 3, 4)])
    assert deviation(outputs(again), outputs(graph)) == 0


@pytest.mark.parametrize(
    "name",
    ["perceptron", "masked", *(pytest.param(one, marks=pytest.mark.slow) for one in ("transformer", "residual"))],
)
@given(data=st.data())
@few
def test_slices_of_slices_are_the_slices_they_say(name, data):
    """A network that was stacked is cut as any other, and blocks lie where the slices say."""
    make, _ = NETS[name]
    chains = [find_chain(make(seed, blocks)) for seed, blocks in ((0, 4), (1, 3))]
    pieces = []
    for _ in range(data.draw(st.integers(2, 3))):
        chain = data.draw(st.sampled_from(chains))
        first = data.draw(st.integers(0, len(chain) - 1))
        pieces.append(Piece(chain, first, data.draw(st.integers(first + 1, len(chain)))))
    stacked = restack(pieces)
    blocks = sum(piece.stop - piece.first for piece in pieces)
    assert len(find_chain(stacked)) == blocks
    cut = data.draw(st.integers(1, blocks - 1))
    whole = find_chain(stacked)
    assert deviation(outputs(restack([Piece(whole, 0, cut), Piece(whole, cut, blocks)])), outputs(stacked)) == 0
    singles = [Piece(p.chain, number, number + 1) for p in pieces for number in range(p.first, p.stop)]
    assert deviation(outputs(restack(singles)), outputs(stacked)) == 0


def test_a_block_left_out_is_gone_and_one_repeated_is_there_twice():
    """Blocks that add a number: what is left of them is counted."""
    net = Net()
    x = net.input("x", ("N", 3))
    for number in (1, 10, 100, 1000):
        x = net.op("Add", x, net.constant(np.full(3, number, np.float32)))
    chain = find_chain(net.graph(net.op("Neg", x)))
    at_zero = {"x": np.zeros((1, 3), np.float32)}

    def total(*ranges):
        return -float(run(restack([Piece(chain, *one) for one in ranges]), at_zero)[0][0, 0])

    first = len(chain) - 4  # the first addition may be taken as what is before the blocks
    assert total((0, len(chain))) == 1111
    assert total((0, first + 2), (first + 3, first + 4)) == 1011
    assert total((0, first + 4), (first + 1, first + 2)) == 1121
    assert total((0, first + 1), (first + 3, first + 4), (first + 1, first + 2)) == 1011


def test_every_repetition_has_weights_of_its_own():
    chain = find_chain(mlp((4, 6, 6, 6, 3)))
    twice = restack([Piece(chain, 0, 2), Piece(chain, 0, 2)])
    shapes = [weight.shape for weight in twice.weights.values()]
    assert shapes.count((6, 6)) == 4


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(MatchError, match="net cannot be cut into slices: no part of it repeats"):
        mal_graph.stack([(mlp((4, 6, 3)).named("net"), 0, 1)])
    deep, wide = mlp((4, 6, 6, 6, 3)).named("deep"), mlp((4, 8, 8, 8, 3)).named("wide")
    with pytest.raises(
        UsageError, match="deep has 2 equal blocks, and the slice is from 1 to 3: give a range from 0 to 2"
    ):
        mal_graph.stack([(deep, 1, 3)])
    with pytest.raises(
        MatchError, match=r"blocks of wide do not fit those of deep: what they read has shape \[\d, 8\]"
    ):
        mal_graph.stack([(deep, 0, 2), (wide, 0, 1)])
    with pytest.raises(MatchError, match="blocks of beside read 1 tensors beside the stream, those of deep 0"):
        mal_graph.stack([(mlp((6, 6, 6, 6, 3)).named("deep"), 0, 2), (masked(0, 3).named("beside"), 0, 1)])
    with pytest.raises(UsageError, match="no slices given"):
        mal_graph.stack([])


def test_a_stack_is_scored_and_saved(tmp_path):
    a, b = (mlp((4, 6, 6, 6, 6, 3), seed).named(f"net{seed}") for seed in range(2))
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(20, 4)).astype(np.float32), "labels": rng.integers(0, 3, 20)}
    result = mal_graph.stack([(a, 0, 2), (b, 1, 3)], data=data)
    assert [score.arm for score in result.scores] == ["net0", "net1", "merged"]
    written = result.save(tmp_path / "m.onnx")
    assert [check.name for check in written.checks] == ["finite", "onnx_checker", "onnxruntime"]
    assert deviation(outputs(mal_graph.load(tmp_path / "m.onnx")), outputs(result.graph)) == 0


def test_a_stack_says_how_it_was_made_and_is_made_again(tmp_path):
    paths = [save(mlp((4, 6, 6, 6, 6, 3), seed), tmp_path / f"net{seed}.onnx") for seed in range(2)]
    mal_graph.stack([(paths[1], 0, 2), (paths[0], 1, 3), (paths[1], 2, 3)]).save(tmp_path / "m.onnx")
    audit = mal_graph.audit(tmp_path / "m.onnx", paths[::-1])
    assert audit.passed
    assert audit.provenance.slices == ((0, 0, 2), (1, 1, 3), (0, 2, 3))
    assert [check.passed for check in mal_graph.audit(tmp_path / "m.onnx", paths).checks] == [True, False]
    card = card_text(audit, mal_graph.load(tmp_path / "m.onnx"), {}, None)
    assert "Blocks 1 to 2 of donor 1." in card
