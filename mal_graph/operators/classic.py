"""Classic machine learning: the operators of the domain ai.onnx.ml, as exporters of scikit-learn write them.

What an adapter cannot write out as ordinary operators (a linear model whose weights stand in attributes) freezes what
it touches. A linear model with the identity for weights only says what becomes of the scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, mark_statistic, pin_axes, pin_each
from mal_graph.operators.elementwise import unary
from mal_graph.operators.indexing import gathered_along
from mal_graph.operators.layout import concat
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import AtZero, LayerRole, ParameterKind, Row, Slot, setting
from mal_graph.operators.sizes import Resized

ML = "ai.onnx.ml"
LABELS = ("classlabels_strings", "classlabels_ints", "classlabels_int64s")

IMPUTED = ("imputed_value_floats", "imputed_value_int64s", "replaced_value_float", "replaced_value_int64")


def per_feature(call: Call) -> list[Label]:
    """Every element by itself, with numbers of its own for every feature unless one stands for all."""
    if any(isinstance(held, list | tuple) and len(held) > 1 for held in call.node.attributes.values()):
        pin_each(call, call.axis_labels(0)[-1:], Pin(GroupState.FROZEN, f"{call.name} holds numbers for every feature"))
    return unary(call)


def mapped(call: Call) -> list[Label]:
    """Every element by itself, and all alike."""
    return unary(call)


def normalizer(call: Call) -> list[Label]:
    """Symmetric in the last axis, which it divides by its largest entry or its length."""
    mark_statistic(call, call.label(0), [len(call.label(0).shape) - 1])
    return unary(call)


def picked_features(call: Call) -> list[Label]:
    """Entries of the last axis, for a vector of a single row: those that constant indices select, or those that
    computed ones look up."""
    wiring, data, out = call.wiring, call.label(0), call.outputs[0]
    rows = data if len(data.shape) > 1 else wiring.reshape(data, (1, *data.shape), call.name)
    last = len(rows.shape) - 1
    chosen = call.values[1]
    if chosen is not None:
        return [wiring.take(rows, last, chosen.ravel().astype(np.int64), call.name)]
    pin = Pin(GroupState.PINNED, f"entries that {call.name} looks up by index")
    axis_labels = pin_axes(call, rows, [last], pin)
    indices = wiring.reshape(call.label(1), (out[-1],), call.name)
    return [wiring.label_of(out, [*axis_labels[:-1], wiring.axis_label(indices, 0)])]


def picked(call: Resized, held: list[int]) -> list[int]:
    """The new places of the features that constant indices select."""
    return gathered_along(call, held, len(call.inputs[0]) - 1)


def linear_model(call: Call) -> list[Label]:
    """Scores by class or target, and labels read off them: classes and targets are pinned, samples pass."""
    if not is_plain(call.node):
        return call.freeze(f"{call.name} holds its weights in attributes")
    pin = Pin(GroupState.PINNED, f"classes or targets of {call.name}")
    axis_labels = pin_axes(call, call.label(0), [-1], pin)
    return [call.wiring.label_of(shape, [axis_labels[0], pin][: len(shape)]) for shape in call.outputs]


def is_plain(node: Node) -> bool:
    """Whether the weights of a linear model are the identity, and its bias zero."""
    held = np.asarray(node.attribute("coefficients", ()))
    units = round(len(held) ** 0.5)
    return np.array_equal(held, np.eye(units).ravel()) and not np.any(node.attribute("intercepts", ()))


def named_scores(call: Call) -> list[Label]:
    """A dictionary of scores for every sample: what they are the scores of is pinned."""
    pin_axes(call, call.label(0), [-1], Pin(GroupState.PINNED, f"classes that {call.name} names"))
    return [Label(()) for _ in call.outputs]


def with_classes(node: Node, names: Sequence[str]) -> Node | None:
    """The same node for other classes; None where its classes are whole numbers and these are none, or where it holds
    weights for each."""
    key = next(key for key in LABELS if node.attribute(key))
    if key != LABELS[0] and not all(name.removeprefix("-").isdecimal() for name in names):
        return None
    attributes = {**node.attributes, key: list(names) if key == LABELS[0] else [int(name) for name in names]}
    if "coefficients" in attributes:
        if not is_plain(node):
            return None
        attributes["coefficients"] = np.eye(len(names)).ravel().tolist()
        attributes["intercepts"] = [0.0] * len(names)
    return replace(node, attributes=attributes)


def one_hot_categories(call: Call) -> list[Label]:
    """The axes of the values pass; the new one, of categories, is pinned."""
    pin = Pin(GroupState.PINNED, f"categories that {call.name} counts off")
    return [call.wiring.label_of(call.outputs[0], [*call.axis_labels(0), pin])]


def last_axis(node: Node) -> int:
    """The axis along which features lie."""
    return -1


ROWS: Mapping[str, Row] = {
    f"{ML}.Scaler": Row(per_feature, keeps_axes=True, at_zero=AtZero.FINITE, prepares=("offset", "scale")),
    f"{ML}.Imputer": Row(per_feature, keeps_axes=True, at_zero=AtZero.FINITE, prepares=IMPUTED),
    f"{ML}.Binarizer": Row(mapped, keeps_axes=True, at_zero=AtZero.FINITE, prepares=("threshold",)),
    **dict.fromkeys(
        [f"{ML}.LabelEncoder", f"{ML}.CategoryMapper"], Row(mapped, keeps_axes=True, at_zero=AtZero.FINITE)
    ),
    f"{ML}.Normalizer": Row(
        normalizer,
        at_zero=AtZero.UNSAFE,
        probable={"norm": frozenset({"L1"})},
        shared={"norm": frozenset({"L1"})},
        prepares=("norm",),
    ),
    f"{ML}.FeatureVectorizer": Row(concat, adds=True, joins=True),
    f"{ML}.ArrayFeatureExtractor": Row(
        picked_features,
        LayerRole.ALONE,
        kind="table",
        slots=(Slot("table", ParameterKind.WEIGHT), setting("indices")),
        table_axis=last_axis,
        size_constants={"indices": picked},
    ),
    f"{ML}.OneHotEncoder": Row(one_hot_categories, LayerRole.ALONE, at_zero=AtZero.FINITE),
    f"{ML}.LinearClassifier": Row(
        linear_model,
        at_zero=AtZero.UNSAFE,
        squashes=True,
        class_names=LABELS,
        with_classes=with_classes,
        probable={"post_transform": frozenset({"SOFTMAX", "LOGISTIC"})},
        shared={"post_transform": frozenset({"SOFTMAX"})},
    ),
    f"{ML}.LinearRegressor": Row(linear_model, at_zero=AtZero.UNSAFE),
    f"{ML}.ZipMap": Row(
        named_scores,
        LayerRole.PASSES,
        at_zero=AtZero.UNSAFE,
        class_names=LABELS,
        with_classes=with_classes,
    ),
}

WITHOUT_ROW: Mapping[str, tuple[str, ...]] = {
    "it works on dictionaries, which are no tensors of units": (f"{ML}.CastMap", f"{ML}.DictVectorizer"),
    "it asks one feature after the other, which cannot be averaged": (
        f"{ML}.TreeEnsemble",
        f"{ML}.TreeEnsembleClassifier",
        f"{ML}.TreeEnsembleRegressor",
    ),
    "it compares samples with stored ones: not followed yet": (f"{ML}.SVMClassifier", f"{ML}.SVMRegressor"),
}
