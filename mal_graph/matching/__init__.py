"""Which layers, axes and units of two networks correspond to each other."""

from mal_graph.matching.activation_similarity import SHARES, check_match_by, compare_activations, find_activation
from mal_graph.matching.alignment_memory import ROWS, TABLES, kept_bytes
from mal_graph.matching.assignment import (
    IN_ORDER,
    Alignment,
    assign_as_given,
    assign_at_random,
    assign_in_order,
    assign_units,
)
from mal_graph.matching.axis_pairs import AxisPair, Block, Index
from mal_graph.matching.batchnorm_folding import BatchNorm, by_row, count_dead_channels, find_foldable_norm
from mal_graph.matching.chance import Chance, compare_with_chance
from mal_graph.matching.class_names import listed as listed_names
from mal_graph.matching.class_names import names_in, noted_names
from mal_graph.matching.correspondence import Correspondence, correspond, tie_conflict
from mal_graph.matching.differences import Difference
from mal_graph.matching.layer_links import find_layer_edges, link_layers
from mal_graph.matching.layer_matching import LayerPair, Match, Relation, explain_layer, match_itself, match_layers
from mal_graph.matching.layer_profile import describe_window
from mal_graph.matching.layer_scores import SAME_PLACE
from mal_graph.matching.nested_orders import extend_orders
from mal_graph.matching.number_sums import same_numbers, sums_of
from mal_graph.matching.objective import MOST_HELD, Evidence
from mal_graph.matching.orders import Order, Orders, find_partners, inside_lone_units, match_positions
from mal_graph.matching.relatives import RELATED, assign_relatives, cosine_of
from mal_graph.matching.rescaling import rescale
from mal_graph.matching.signatures import Signatures, listed_alike, pair_signatures, tell_pairs
from mal_graph.matching.tensor_pairs import Read, TensorPair, by_role, row_vector
from mal_graph.matching.transport import Shares, along, axis_map, shares_of
from mal_graph.matching.universe import align_in_rounds, align_in_universe
from mal_graph.matching.zipping import zip_units

__all__ = [
    "align_in_rounds",
    "align_in_universe",
    "Alignment",
    "along",
    "assign_as_given",
    "assign_at_random",
    "assign_in_order",
    "assign_relatives",
    "assign_units",
    "axis_map",
    "AxisPair",
    "BatchNorm",
    "Block",
    "by_role",
    "by_row",
    "Chance",
    "check_match_by",
    "compare_activations",
    "compare_with_chance",
    "correspond",
    "Correspondence",
    "cosine_of",
    "count_dead_channels",
    "describe_window",
    "Difference",
    "Evidence",
    "explain_layer",
    "extend_orders",
    "find_activation",
    "find_foldable_norm",
    "find_layer_edges",
    "find_partners",
    "IN_ORDER",
    "Index",
    "inside_lone_units",
    "kept_bytes",
    "LayerPair",
    "link_layers",
    "listed_alike",
    "listed_names",
    "Match",
    "match_itself",
    "match_layers",
    "match_positions",
    "MOST_HELD",
    "names_in",
    "noted_names",
    "Order",
    "Orders",
    "pair_signatures",
    "Read",
    "RELATED",
    "Relation",
    "rescale",
    "row_vector",
    "ROWS",
    "same_numbers",
    "SAME_PLACE",
    "SHARES",
    "Shares",
    "shares_of",
    "Signatures",
    "sums_of",
    "TABLES",
    "tell_pairs",
    "TensorPair",
    "tie_conflict",
    "zip_units",
]
