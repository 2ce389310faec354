"""What a method learns on inputs: how much each model counts, or which entries of the task vectors do."""

from collections.abc import Mapping
from dataclasses import replace

from mal_graph.evaluation import OutputKind, read_output_kind
from mal_graph.merging.input_moments import Inputs
from mal_graph.merging.learned_masks import MaskLearning
from mal_graph.merging.learned_weights import Learning, check_learning, output_learned_on
from mal_graph.merging.stacking import Stacking, refuse_settings_of_nothing
from mal_graph.methods import Learned
from mal_graph.protocols import Runner


def learn(
    stacking: Stacking,
    inputs: Mapping[int, Inputs],
    runner: Runner,
    score_output: str | None = None,
    output_kind: OutputKind | None = None,
) -> Stacking:
    """The stacking with what its method learns.

    Args:
        inputs: of each model that is merged, by its number, arrays by the base's names.
        score_output, output_kind: see `MergeConfig`.

    Raises:
        UsageError: as `stack_merge` and `check_learning`.
        DataError, RunError: a model does not run on its inputs, or gives numbers without end.
    """
    refuse_settings_of_nothing(stacking)
    check_learning(stacking.method, stacking.base, score_output, output_kind)
    output = output_learned_on(stacking.base, score_output)
    kind = output_kind or read_output_kind(stacking.base, output)
    learning = Learning(stacking, inputs, runner, output, kind)
    is_mask = learning.lesson.learned is Learned.MASKS
    return replace(stacking, learned=MaskLearning(learning).learned() if is_mask else learning.learned())
