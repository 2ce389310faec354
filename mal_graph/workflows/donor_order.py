"""Donors as a set: the same ones give the same bytes, in whatever order they are given.

Chosen: their content says in which order they are merged, before anything else is done, so that it holds for every
method, for its random numbers and for what is noted of how a file was made. Refused: methods that are the same for any
order - sums of floating-point numbers are not, and merging donor after donor is not meant to be.

Such results agree wherever the same set of models has arrived, as those of a replicated data type do (Shapiro et al.
2011, doi:10.1007/978-3-642-24550-3_29).
"""

from collections.abc import Sequence
from typing import Any

from mal_graph.config import MergeConfig
from mal_graph.graph import LayerGraph
from mal_graph.workflows.checkpoint import fingerprint
from mal_graph.workflows.models import arrays_by_model


def in_order_of_content(graphs: Sequence[LayerGraph], config: MergeConfig) -> tuple[Sequence[LayerGraph], MergeConfig]:
    """The base, and donors in an order that does not hang on how they were given; and the options, of which those that
    are for single models go with them."""
    given = range(1, len(graphs))
    order = [0, *sorted(given, key=lambda number: (fingerprint(graphs[number]), graphs[number].name))]
    place_of = {number: place for place, number in enumerate(order)}
    moved: dict[str, Any] = {}
    if config.parameters:
        own = [
            one if one.model is None else one._replace(model=place_of.get(one.model, one.model))
            for one in config.parameters
        ]
        # Of those for one parameter of one model the last holds; which stand before is of no account else.
        moved["parameters"] = tuple(sorted(own, key=lambda one: (-1 if one.model is None else one.model, one.name)))
    if config.labels_of:
        moved["labels_of"] = tuple(config.labels_of[number] for number in order)
    each = arrays_by_model(config.calibrate_of or {})
    if len(each) == len(order):  # else it is refused by whoever takes it
        moved["calibrate_of"] = {
            f"{place}:{name}": each[number][name] for place, number in enumerate(order) for name in sorted(each[number])
        }
    return [graphs[number] for number in order], config.replaced(**moved) if moved else config
