"""Merged weights on a grid of few bits, placed by what layers read; computed in float64.

The grid of each row has as many steps up as down, and its largest entry lies at the end of it: a tool that quantises
each row by its largest entry, as onnxruntime's does, finds this grid again, and loses nothing.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.means import Weight
from mal_graph.methods.method import Measured, Need, merge_method
from mal_graph.methods.regressions import PER_SAMPLE, Strength, drawn_to
from mal_graph.methods.stack import Stack

DAMPED = 0.01  # of the mean square of a column: GPTQ adds it to each, so that no error is passed on too far


@merge_method(
    "e_pmq",
    source="arXiv:2605.16882",
    needs=Need.ACTIVATIONS,
    measured=Measured.OWN,
    deviations=(
        PER_SAMPLE,
        "what is merged before is the weighted mean: the paper takes task arithmetic and TIES",
        "a row has one grid: what the paper has is not said where we know it from",
        "the largest entry of a row stays where it is, so that other tools find the grid again",
        "weights whose inputs no tensor shows, and what is no weight, are merged and not quantised",
    ),
)
def e_pmq(
    stack: Stack,
    *,
    weight: Weight,
    bits: Annotated[float, Field(8.0, ge=2, le=8, description="of each number")],
    strength: Strength,
) -> Array:
    """The mean on a grid of few bits whose outputs are nearest to those of each model on its own inputs."""
    mean = stack.mean(weight)
    if stack.moments is None:
        return mean
    wanted = drawn_to(stack, weight, strength, mean, stack.moments)
    shares = weight / weight.sum()
    products = np.einsum("i,ibcd->bcd", shares, stack.moments)
    rows = wanted.reshape(len(products), -1, products.shape[-1]).astype(np.float64)
    steps = 2 ** (int(bits) - 1) - 1
    placed = [on_grid(own, total, steps) for own, total in zip(rows, products, strict=True)]
    return np.asarray(np.stack(placed), mean.dtype).reshape(mean.shape)


def on_grid(rows: Array, products: Array, steps: int) -> Array:
    """Rows on the grid of each, column by column: what one column loses is made good in those that come after it.

    Args:
        rows: shape (rows, columns).
        products: of what the columns are multiplied with, shape (columns, columns).
        steps: up, and as many down.

    Source: Frantar et al. 2022 (arXiv:2210.17323), GPTQ; columns of large inputs first.
    """
    order = np.argsort(-np.diagonal(products), kind="stable")
    left, products = rows[:, order], products[np.ix_(order, order)]
    largest = np.abs(left).max(axis=1, keepdims=True)
    scale, is_end, ends = np.where(largest > 0, largest / steps, 1.0), np.abs(left) == largest, left.copy()
    damped = products + DAMPED * max(float(np.diagonal(products).mean()), np.finfo(float).tiny) * np.eye(len(products))
    passed_on = np.linalg.cholesky(np.linalg.inv(damped)).T  # row j: what column j passes to those behind it
    placed = np.zeros_like(left)
    for column in range(left.shape[1]):
        own = left[:, column]
        nearest = scale[:, 0] * np.clip(np.rint(own / scale[:, 0]), -steps, steps)
        placed[:, column] = np.where(is_end[:, column], ends[:, column], nearest)
        lost = (own - placed[:, column]) / passed_on[column, column]
        left[:, column:] -= lost[:, None] * passed_on[column, column:]
    back = np.argsort(order)
    return np.asarray(placed[:, back])
