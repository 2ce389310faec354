"""Merging two networks whose units are assigned: the plan, what is added for it, and the merge itself."""

from mal_graph.merging.accounts import Account, Accounts, Fate, account_for, combine_accounts
from mal_graph.merging.blending import in_base_order, merge
from mal_graph.merging.chains import Chain, find_chain
from mal_graph.merging.deepening import Deepened, deepen
from mal_graph.merging.folding import fold
from mal_graph.merging.input_moments import MeasuredStacking
from mal_graph.merging.lambdas import LayerLambdas
from mal_graph.merging.learned_weights import check_learning
from mal_graph.merging.learning import learn
from mal_graph.merging.outputs import LARGE, Running, Sessions, compare_outputs, run_outputs
from mal_graph.merging.planning import Plan, plan_merge
from mal_graph.merging.repairing import Repair, Repairs, measure_norms, repair
from mal_graph.merging.restacking import Piece, restack
from mal_graph.merging.routing import route
from mal_graph.merging.selectors import select_layers
from mal_graph.merging.slots import with_bias_slots, with_larger_windows, with_zero_bias
from mal_graph.merging.soft_frames import shares_of_plans
from mal_graph.merging.stacking import InFrame, LearnedWeights, Stacking, TensorRule, frame_of, in_float, stack_merge
from mal_graph.merging.unit_zips import zipped
from mal_graph.merging.unmatched import UnmatchedRule, all_rules, unmatched_rule
from mal_graph.merging.variances import ExpectedVariances, expect_variances
from mal_graph.merging.widening import widen

__all__ = [
    "Account",
    "account_for",
    "Accounts",
    "all_rules",
    "Chain",
    "check_learning",
    "combine_accounts",
    "compare_outputs",
    "deepen",
    "Deepened",
    "expect_variances",
    "ExpectedVariances",
    "Fate",
    "find_chain",
    "fold",
    "frame_of",
    "in_base_order",
    "in_float",
    "InFrame",
    "LARGE",
    "LayerLambdas",
    "learn",
    "LearnedWeights",
    "measure_norms",
    "MeasuredStacking",
    "merge",
    "Piece",
    "Plan",
    "plan_merge",
    "Repair",
    "repair",
    "Repairs",
    "restack",
    "route",
    "run_outputs",
    "Running",
    "select_layers",
    "Sessions",
    "shares_of_plans",
    "stack_merge",
    "Stacking",
    "TensorRule",
    "unmatched_rule",
    "UnmatchedRule",
    "widen",
    "with_bias_slots",
    "with_larger_windows",
    "with_zero_bias",
    "zipped",
]
