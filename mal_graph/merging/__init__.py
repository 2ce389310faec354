"""Merging two networks whose units are assigned: the plan, what is added for it, and the merge itself."""

from mal_graph.merging.accounts import Account, Accounts, Fate, account_for, combine_accounts
from mal_graph.merging.blending import in_base_order, merge
from mal_graph.merging.chains import Chain, find_chain
from mal_graph.merging.deepening import Deepened, deepen
from mal_graph.merging.folding import fold
from mal_graph.merging.input_moments import MeasuredStacking
from mal_graph.merging.lambdas import LayerLambdas
from mal_graph.merging.outputs import Runnable, Sessions, compare_outputs, run_outputs
from mal_graph.merging.planning import Plan, plan_merge
from mal_graph.merging.repairing import Repair, Repairs, measure_norms, repair
from mal_graph.merging.restacking import Piece, restack
from mal_graph.merging.selectors import select_layers
from mal_graph.merging.slots import with_bias_slots, with_larger_windows, with_zero_bias
from mal_graph.merging.stacking import InFrame, Stacking, TensorRule, frame_of, in_float, stack_merge
from mal_graph.merging.variances import ExpectedVariances, expect_variances
from mal_graph.merging.widening import widen

__all__ = [
    "Account",
    "account_for",
    "Accounts",
    "Chain",
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
    "LayerLambdas",
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
    "run_outputs",
    "Runnable",
    "select_layers",
    "Sessions",
    "stack_merge",
    "Stacking",
    "TensorRule",
    "widen",
    "with_bias_slots",
    "with_larger_windows",
    "with_zero_bias",
]
