"""Soundness on random graphs: whatever the operators are chained to, permuting every group keeps the outputs.

A seed draws a graph of tensors of up to five axes: contractions with plain, computed and shared weights, grouped
convolutions, reshapes, transposes, concatenations, gathers, slices, splits, statistics, products of activations. All
usable groups are permuted at once, and the copy must compute the same in float64.
"""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, permuted_copy, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mal_graph.symmetry import axis_groups

LARGEST = 4000  # elements of a tensor
EXACT = 1e-9
SIZES = (2, 3, 4, 6)


class Drawn:
    """A graph that grows by random operators; `pool` holds its tensors with their shapes."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.net = Net(seed, opset=20)
        self.pool = []
        self.shared = {}
        shape, units = [((3, 2, 4, 4), 8), ((3, 5), 12), ((3, 4, 3), 6)][self.below(3)]
        x = self.net.input("x", shape)
        if len(shape) == 4:
            self.add(self.net.op("Conv", x, self.net.weight(units, shape[1], 1, 1)), (3, units, 4, 4))
        else:
            self.add(self.net.op("MatMul", x, self.net.weight(shape[-1], units)), (*shape[:-1], units))

    def below(self, n):
        return int(self.rng.integers(0, n))

    def one_of(self, choices):
        return choices[self.below(len(choices))]

    def add(self, name, shape):
        if np.prod(shape) <= LARGEST and len(shape) <= 5:
            self.pool.append((name, tuple(int(size) for size in shape)))

    def weight(self, *shape):
        """A weight: stored, made of a stored one by an operator, or one that was used before."""
        if shape in self.shared and self.below(4) == 0:
            return self.shared[shape]
        how, net = self.below(6), self.net
        if how == 0 and len(shape) > 1:
            order = self.rng.permutation(len(shape))
            stored = net.weight(*[shape[axis] for axis in order], scale=0.6)
            name = net.op("Transpose", stored, perm=[int(axis) for axis in np.argsort(order)])
        elif how == 1:
            name = net.op("Reshape", net.weight(int(np.prod(shape)), scale=0.6), net.constant(list(shape)))
        elif how == 2 and shape[0] > 1:
            halves = [net.weight(size, *shape[1:], scale=0.6) for size in (1, shape[0] - 1)]
            name = net.op("Concat", *halves, axis=0)
        else:
            name = net.weight(*shape, scale=0.6)
        self.shared[shape] = name
        return name

    def step(self):
        """One more operator, on a tensor of late."""
        late = min(len(self.pool) - 1, int(self.rng.geometric(0.5)) - 1)
        x, shape = self.pool[-1 - late]
        self.one_of(STEPS)(self, x, list(shape), self.below(len(shape)))

    def finish(self):
        """The graph, with two dense outputs."""
        outputs = []
        for x, shape in self.pool[-2:]:
            size = int(np.prod(shape)) // shape[0]
            flat = self.net.op("Reshape", x, self.net.constant([shape[0], size]))
            dense = self.net.op("MatMul", flat, self.net.weight(size, 4, scale=1 / np.sqrt(size)))
            outputs.append(self.net.op("Tanh", dense))
        return self.net.graph(*outputs)


def replaced(shape, axis, *sizes):
    return [*shape[:axis], *sizes, *shape[axis + 1 :]]


def contract(d, x, shape, axis):
    units = d.one_of(SIZES)
    d.add(d.net.op("MatMul", x, d.weight(shape[-1], units)), (*shape[:-1], units))


def convolve(d, x, shape, axis):
    if len(shape) not in (3, 4):
        return
    group = d.one_of([n for n in range(1, shape[1] + 1) if shape[1] % n == 0])
    units, places = group * d.one_of((1, 2, 3)), len(shape) - 2
    w = d.weight(units, shape[1] // group, *[3] * places)
    y = d.net.op("Conv", x, w, group=group, pads=[1] * 2 * places, kernel_shape=[3] * places)
    d.add(y, replaced(shape, 1, units))


def split_or_merge(d, x, shape, axis):
    factors = [n for n in range(2, shape[axis]) if shape[axis] % n == 0]
    if factors and d.below(2):
        n = d.one_of(factors)
        target = replaced(shape, axis, n, shape[axis] // n)
    elif axis + 1 < len(shape):
        target = [*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]]
    else:
        target = [int(np.prod(shape[:axis])), shape[axis]]
    d.add(d.net.op("Reshape", x, d.net.constant(target)), target)


def transpose(d, x, shape, axis):
    order = [int(a) for a in d.rng.permutation(len(shape))]
    d.add(d.net.op("Transpose", x, perm=order), [shape[a] for a in order])


def join(d, x, shape, axis):
    y, other = d.one_of([t for t in d.pool if replaced(list(t[1]), axis, 0) == replaced(shape, axis, 0)])
    if list(other) == shape and d.below(2):
        d.add(d.net.op(d.one_of(("Add", "Mul", "Max", "Sub")), x, y), shape)
    else:
        d.add(d.net.op("Concat", x, y, axis=axis), replaced(shape, axis, shape[axis] + other[axis]))


def gather(d, x, shape, axis):
    chosen = [int(i) for i in d.rng.integers(0, shape[axis], 1 + d.below(shape[axis] + 2))]
    chosen = d.one_of((chosen, [int(i) for i in d.rng.permutation(shape[axis])]))
    d.add(d.net.op("Gather", x, d.net.constant(chosen), axis=axis), replaced(shape, axis, len(chosen)))


def cut(d, x, shape, axis):
    start, step = d.below(shape[axis]), d.one_of((1, 2, -1, -2))
    bounds = [d.net.constant([n]) for n in (start, 2**60 if step > 0 else -(2**60), axis, step)]
    d.add(d.net.op("Slice", x, *bounds), replaced(shape, axis, len(range(shape[axis])[start::step])))


def divide(d, x, shape, axis):
    if shape[axis] > 1:
        first = 1 + d.below(shape[axis] - 1)
        sizes = (first, shape[axis] - first)
        for y, size in zip(d.net.op("Split", x, d.net.constant(list(sizes)), outputs=2, axis=axis), sizes, strict=True):
            d.add(y, replaced(shape, axis, size))


def reduce(d, x, shape, axis):
    y = d.net.op(d.one_of(("ReduceMean", "ReduceMax", "ReduceSum")), x, d.net.constant([axis]), keepdims=1)
    d.add(y, replaced(shape, axis, 1))
    d.add(d.net.op("Sub", x, y), shape)


def normalise(d, x, shape, axis):
    if d.below(2):
        d.add(d.net.op("Softmax", x, axis=axis), shape)
    else:
        d.add(d.net.op("LayerNormalization", x, d.weight(*shape[axis:]), d.weight(*shape[axis:]), axis=axis), shape)


def scale(d, x, shape, axis):
    along = [size if d.below(2) else 1 for size in shape]
    d.add(d.net.op(d.one_of(("Add", "Mul")), x, d.weight(*along)), shape)


def activate(d, x, shape, axis):
    d.add(d.net.op(d.one_of(("Tanh", "Sigmoid", "Sin", "Abs")), x), shape)


def repeat(d, x, shape, axis):
    times = replaced([1] * len(shape), axis, 2)
    d.add(d.net.op("Tile", x, d.net.constant(times)), replaced(shape, axis, 2 * shape[axis]))


def multiply(d, x, shape, axis):
    if len(shape) > 1:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        d.add(d.net.op("MatMul", x, d.net.op("Transpose", x, perm=order)), [*shape[:-1], shape[-2]])


STEPS = (
    *[contract, convolve, split_or_merge, transpose] * 3,
    *[join, gather, cut, divide, reduce, normalise, scale, activate, repeat, multiply],
)


@pytest.mark.slow
@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_permuting_every_group_of_a_random_graph_keeps_its_outputs(seed):
    drawn = Drawn(seed)
    for _ in range(4 + drawn.below(12)):
        drawn.step()
    graph = drawn.finish()
    groups = axis_groups(graph)
    assume(groups.usable())
    inputs = inputs_of(graph)
    expected = run(graph, inputs)
    assume(all(np.isfinite(y).all() and np.abs(y).max() > 1e-5 for y in expected))
    for order in (0, 1):
        copy, _ = permuted_copy(graph, groups, order)
        assert deviation(run(copy, inputs), expected) < EXACT, [group.name for group in groups.groups]
