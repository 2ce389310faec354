"""What a merge is compared with: base, donors, plain average, random permutation, random donor, ensemble."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError
from mal_graph.evaluation import Metric, Prediction, Scores, ensemble, predict, read_labels, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures, assign_at_random, assign_in_order, assign_units
from mal_graph.merging import merge
from mal_graph.protocols import Runner
from mal_graph.workflows.models import Progress
from mal_graph.workflows.steps import Merged, Strategy, replanned, shuffled, with_repair


class Rebuild(Protocol):
    """Makes a merge once more."""

    def __call__(
        self, strategy: Strategy | None, /, *, shuffle: bool = False, is_merged: bool = True
    ) -> LayerGraph: ...


def scored_arms(
    base: LayerGraph,
    steps: Sequence[Merged],
    result: LayerGraph,
    config: MergeConfig,
    data: Mapping[str, Array],
    runner: Runner,
    progress: Progress,
    metric: Metric = score,
    again: Rebuild | None = None,
) -> tuple[tuple[Scores, ...], dict[str, str]]:
    """Scores of the merged model beside every control that uses the same data: none, or the calibration inputs.

    Args:
        again: what makes the merge once more with other orders or donors; `rebuilt` if left out.

    Returns:
        the scores; and why a donor has none, by its arm. The ensemble is that of the models that have one.
    """
    labels = read_labels(data)
    again = again or partial(rebuilt, base, steps, config, runner=runner)
    models: dict[str, Callable[[], LayerGraph]] = {
        "merged": lambda: result,
        "plain average": lambda: again(assign_in_order),
        "random permutation": lambda: again(partial(assign_at_random, seed=config.seed)),
        "random donor": lambda: again(assign_units, shuffle=True),
    }
    if any(step.repair is not None and step.repair.is_measured for step in steps):
        models["base, repaired"] = lambda: again(None, is_merged=False)
    total = 2 + len(steps) + len(models)
    members = [predicted_like(None, base, data, config, runner)]
    scores = [metric(members[0], labels, "base")]
    unscored: dict[str, str] = {}
    for index, step in enumerate(steps):
        arm = "donor" if len(steps) == 1 else f"donor {index + 1}"
        try:
            prediction = predicted_like(members[0], step.donor, data, config, runner, step.signatures)
        except DataError as error:
            unscored[arm] = str(error)
            continue
        members.append(prediction)
        scores.append(metric(prediction, labels, arm))
        progress("scoring the arms", len(scores), total)
    for arm, build in models.items():
        scores.append(metric(predicted_like(None, build(), data, config, runner), labels, arm))
        progress("scoring the arms", len(scores), total)
    if len(members) > 1:
        scores.append(metric(ensemble(members), labels, "ensemble"))
    progress("scoring the arms", total, total)
    return tuple(scores), unscored


def predicted_like(
    beside: Prediction | None,
    graph: LayerGraph,
    data: Mapping[str, Array],
    config: MergeConfig,
    runner: Runner,
    paired: Signatures | None = None,
) -> Prediction:
    """What a model says of every sample; a donor in the terms of the base, whose prediction is `beside`.

    Args:
        data: arrays by the names of the base's inputs.
        paired: of a donor, which of its inputs and outputs is which of the base's.

    Raises:
        DataError: the data do not fit the model, or it tells other classes apart than the base.
    """
    paired = paired or Signatures()
    scored = config.score_output
    output = None if scored is None else paired.outputs.get(scored, scored)
    if beside is not None and output not in graph.output_names:
        output = None
    prediction = predict(
        graph, paired.for_donor(data), score_output=output, output_kind=config.output_kind, runner=runner
    )
    if beside is not None and prediction.values.shape != beside.values.shape:
        theirs, mine = prediction.values.shape[1], beside.values.shape[1]
        raise DataError(f"output {prediction.output!r} of {graph.name} tells {theirs} classes apart, the base's {mine}")
    return prediction


def rebuilt(
    base: LayerGraph,
    steps: Sequence[Merged],
    config: MergeConfig,
    strategy: Strategy | None,
    *,
    shuffle: bool = False,
    is_merged: bool = True,
    runner: Runner | None = None,
) -> LayerGraph:
    """The merge again, with the same pairs of layers and another alignment, or with shuffled donors; repaired like it.

    Without a strategy the units stay where the steps put them. Without `is_merged` the weights stay the base's and are
    repaired alone, towards the goals of the merge.
    """
    current, runner = base, runner or registry.runner()
    for step in steps:
        made = replanned(current, step, config, strategy, runner, shuffle=shuffle)
        donor = shuffled(step.donor, config.seed) if shuffle else step.donor
        current, _ = with_repair(merge(made) if is_merged else made.base, made, donor, config, runner)
    return current
