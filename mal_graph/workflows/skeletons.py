"""Whether two graphs are written alike: the same operators, with the same settings, wired in the same way."""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from mal_graph.graph import LayerGraph, Weight
from mal_graph.merging import Plan


def are_written_alike(plan: Plan) -> bool:
    """Whether base and donor of a merge differ in nothing but the values of what is merged."""
    signatures, donor = plan.alignment.correspondence.signatures, plan.donor.graph
    merged = {step.tensor for step in plan.steps}, {step.pair.donor.tensor for step in plan.steps}
    mine = output_hashes(plan.alignment.correspondence.base.graph, merged[0], {})
    theirs = output_hashes(donor, merged[1], signatures.called)
    return mine == theirs


def output_hashes(graph: LayerGraph, merged: Collection[str], called: Mapping[str, str]) -> dict[str, str]:
    """By name of an output a hash of all that computes it, the values of merged tensors left out.

    Args:
        called: other names for inputs and outputs.
    """
    hashes = {value.name: digest(f"input {called.get(value.name, value.name)}") for value in graph.inputs}
    hashes |= {name: weight_hash(weight, name in merged) for name, weight in graph.weights.items() if not weight.scope}
    for node in graph.nodes:
        read = [hashes.get(name, "") for name in (*node.inputs, *node.captures)]
        held = sorted((name, repr(value)) for name, value in node.attributes.items())
        whole = digest(repr((node.op, held, read)))
        hashes |= {name: digest(f"{whole} {place}") for place, name in enumerate(node.outputs) if name}
    return {called.get(value.name, value.name): hashes.get(value.name, "") for value in graph.outputs}


def weight_hash(weight: Weight, is_merged: bool) -> str:
    """A hash of a stored tensor: of its shape where it is merged, else of its values too."""
    told = f"{weight.dtype.kind} {weight.shape}"
    if is_merged:
        return digest(told)
    values = np.asarray(weight.read())
    return digest(f"{told} {values.tolist() if values.dtype == object else values.tobytes().hex()}")


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
