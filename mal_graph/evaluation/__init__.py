"""What a model is worth: data, scores, the statistics of its units, and the split that decides what is kept."""

from mal_graph.evaluation.activation_statistics import (
    Comoments,
    Moments,
    Place,
    Stream,
    calibration_inputs,
    find_batches,
    measure,
    stream_together,
)
from mal_graph.evaluation.data import (
    LABELS,
    Arrays,
    PreparedData,
    as_arrays,
    match_inputs,
    prepare_data,
    read_labels,
    read_npz,
)
from mal_graph.evaluation.holdout import AcceptanceRule, HeldOut, split_holdout
from mal_graph.evaluation.reading import OutputKind, read_output_kind
from mal_graph.evaluation.scores import (
    Metric,
    Prediction,
    Predictor,
    Scores,
    agreement,
    ensemble,
    evaluate,
    predict,
    score,
)

__all__ = [
    "AcceptanceRule",
    "agreement",
    "Arrays",
    "as_arrays",
    "calibration_inputs",
    "Comoments",
    "ensemble",
    "evaluate",
    "find_batches",
    "HeldOut",
    "LABELS",
    "match_inputs",
    "measure",
    "Metric",
    "Moments",
    "OutputKind",
    "Place",
    "predict",
    "Prediction",
    "Predictor",
    "prepare_data",
    "PreparedData",
    "read_labels",
    "read_npz",
    "read_output_kind",
    "score",
    "Scores",
    "split_holdout",
    "Stream",
    "stream_together",
]
