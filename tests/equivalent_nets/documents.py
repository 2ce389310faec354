"""Donors of given models: the units of every verified group permuted, the document written otherwise."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from builders import permuted_copy
from onnx import numpy_helper

from equivalent_nets.pairs import AGREE, GeneratorError, Pair, in_order_of, largest_gap, run
from equivalent_nets.writer import Writer
from mal_graph import registry
from mal_graph.graph import LayerGraph
from mal_graph.network import probe
from mal_graph.symmetry import AxisGroups, axis_groups, verify
from mal_graph.symmetry.random_copy import calibrate
from mal_graph_adapters.onnx_format.edit import edited_model

DOCUMENT = ("equal_vectors_shared", "nodes_reordered", "constant_nodes", "weights_among_inputs", "names_changed")
FEW = 10 * AGREE  # deep networks gather more rounding than drawn ones


def pair_of_model(path: Path, seed: int) -> tuple[Pair, dict[str, np.ndarray]]:
    """A model beside a permuted and rewritten copy, and fresh inputs for both.

    The orders are those of verified groups; whether the copy computes the same is seen by running both. Where its
    weights make a model so sensitive that rounding alone tells the two apart, it is given the calibrated random weights
    that groups are verified on. Anything may be kept: there is no table for networks that were not drawn.

    Raises:
        GeneratorError: the two are further apart than rounding would have them.
        MalGraphError: the model cannot be loaded or run.
    """
    graph = registry.as_graph(str(path))
    groups, inputs = verify(graph, axis_groups(graph)), dict(probe(graph, seed=seed + 1).inputs)
    pair = pair_of_graph(onnx.load(path), graph, groups, inputs, seed)
    if not pair.apart <= FEW:
        graph = with_calibrated_weights(graph, groups, inputs, seed)
        pair = pair_of_graph(as_document(graph), graph, groups, inputs, seed)
    if not pair.apart <= FEW:
        raise GeneratorError(f"{path.name}: the copy with {pair.rewrites} is {pair.apart:.1e} from the model")
    return replace(pair, family=path.stem), inputs


def pair_of_graph(
    base: onnx.ModelProto, graph: LayerGraph, groups: AxisGroups, inputs: Mapping[str, np.ndarray], seed: int
) -> Pair:
    """A model beside a copy, and how far their outputs are apart."""
    rng = np.random.default_rng([seed, 5])
    copy, orders = permuted_copy(graph, groups, seed)
    chosen = [str(name) for name in rng.permutation(DOCUMENT)[: int(rng.integers(1, 4))]]
    donor, applied = rewritten_document(as_document(copy), chosen, seed)
    rewrites = {**dict.fromkeys(applied, "donor"), **({"units_permuted": "donor"} if orders else {})}
    apart = largest_gap(in_order_of(base, donor, run(donor, inputs)), run(base, inputs))
    return Pair(seed, "", "", rewrites, base, donor, may_keep=("*",), may_refuse=True, apart=apart)


def with_calibrated_weights(
    graph: LayerGraph, groups: AxisGroups, inputs: Mapping[str, np.ndarray], seed: int
) -> LayerGraph:
    """The graph with weights that keep its activations near 1, so that errors do not grow."""
    _, drawn = calibrate(graph, groups, registry.runner(), inputs, seed, centred=0.0)
    own = {name: values for name, values in drawn.items() if name in graph.weights}
    return graph.with_weights({name: values.astype(graph.weights[name].dtype) for name, values in own.items()})


def as_document(graph: LayerGraph) -> onnx.ModelProto:
    """A loaded graph with edited weights as it is written."""
    return ir.to_proto(edited_model(graph))


def rewritten_document(
    model: onnx.ModelProto, rewrites: Collection[str], seed: int
) -> tuple[onnx.ModelProto, list[str]]:
    """A model with its document written otherwise, and the rewrites that were applied; the model itself where some of
    its operators have bodies of their own."""
    graph = model.graph
    if any(attribute.g.node or attribute.graphs for node in graph.node for attribute in node.attribute):
        return model, []
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    writer = Writer(
        seed,
        rewrites,
        side=1,
        opsets={opset.domain: opset.version for opset in model.opset_import},
        nodes=list(graph.node),
        functions=list(model.functions),
        stored=stored,
        inputs=[value for value in graph.input if value.name not in stored],
        outputs=list(graph.output),
    )
    made = writer.proto()
    return made, list(writer.applied)
