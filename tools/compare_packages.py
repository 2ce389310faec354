"""Merge methods of other packages, called on one tensor of several models: what `compare_methods.py` compares with.

    pip install --no-deps mergekit fusion-bench sd-mecha

and what they import (fusion-bench needs transformers before 5.1). None of them is a dependency, and none of their code
is used here. Where a package means something else by a method, its row says what; there the difference is real.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import nn

from mal_graph.methods import Stack, find_method

There = Callable[[Stack], torch.Tensor]
Tensors = list[torch.Tensor]

WEIGHTS = (0.7, 1.0, 0.4)
PAIR = (0.7, 0.3)
DENSITY = 0.4


@dataclass(frozen=True)
class Row:
    """A method of a package beside one of ours.

    Attributes:
        method: ours.
        there: what the package makes of a stack.
        given: parameters of ours, or how they follow from a stack.
        models: how many models the stacks have.
        ranks: of the tensors: 1 for vectors, 2 for matrices, 4 for convolutions.
        prepared: makes of a stack one that is compared.
        note: which variant that is, or why both differ.
    """

    method: str
    there: There
    given: Mapping[str, Any] | Callable[[Stack], Mapping[str, Any]]
    models: int = 3
    ranks: tuple[int, ...] = (1, 2, 4)
    prepared: Callable[[Stack], Stack] = lambda stack: stack
    note: str = ""

    def given_for(self, stack: Stack) -> Mapping[str, Any]:
        return self.given(stack) if callable(self.given) else self.given


def tensors(stack: Stack) -> Tensors:
    """The models, in float64; those of a convolution as matrices, whose columns are the taps."""
    return [flat(one) for one in stack.models]


def deltas(stack: Stack) -> Tensors:
    """The task vectors, likewise."""
    return [one - flat(stack.origin) for one in tensors(stack)]


def flat(values: Any) -> torch.Tensor:
    tensor = torch.from_numpy(values.astype(np.float64))
    return tensor if tensor.ndim == 1 else tensor.reshape(len(tensor), -1)


def moved(stack: Stack, delta: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return flat(stack.origin) + scale * delta


def keeping(count: Callable[[int], int]) -> Callable[[Stack], dict[str, Any]]:
    """The density with which ours keeps as many of some entries as another package does."""
    return lambda stack: {"density": (count(stack.models[0].size) + 0.5) / stack.models[0].size}


def of_one_length(stack: Stack) -> Stack:
    lengths = np.sqrt((stack.models.reshape(stack.count, -1) ** 2).sum(axis=1))
    return replace(stack, models=stack.models / lengths.reshape(-1, *[1] * (stack.models.ndim - 1)))


# --- mergekit -----------------------------------------------------------------------------------------------------

IN_MERGEKIT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is given here, and there for each model
    "linear": ({"weight": WEIGHTS}, {"weight": WEIGHTS}),
    "slerp": ({"t": 0.3}, {"t": 0.3}),
    "karcher": ({}, {"max_iter": 100, "tol": 1e-9}),
    "model_stock": ({}, {}),
    "task_arithmetic": ({"weight": WEIGHTS, "lambda": 0.8}, {"weight": WEIGHTS, "lambda": 0.8}),
    "ties": ({"weight": WEIGHTS, "density": DENSITY}, {"weight": WEIGHTS, "density": DENSITY}),
    "breadcrumbs": (
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
    ),
    "breadcrumbs_ties": (
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
        {"weight": WEIGHTS, "gamma": 0.1, "density": 0.6},
    ),
}


def by_mergekit(name: str, given: dict[str, Any], stack: Stack) -> torch.Tensor:
    """What mergekit makes of the same tensors; its base is the ancestor, or the first model of a pair."""
    from mergekit.merge_methods.base import ParameterScope, PerInputValues, TensorGroup
    from mergekit.merge_methods.registry import get

    method, ancestor = get(name), stack.ancestor
    inputs = [*([] if ancestor is None else [torch.from_numpy(ancestor)]), *torch.from_numpy(stack.models)]
    takes_base = ancestor is not None or name == "slerp"
    group = TensorGroup.from_tensors(inputs, base_index=0 if takes_base else None)
    ids = [entry.id for entry in (group.non_base if ancestor is not None else group.entries)]
    scopes = {one.name: one.scope for one in method.spec.parameters}
    values = {}
    for key, value in given.items():
        each = value if isinstance(value, tuple) else (value,) * len(ids)
        values[key] = (
            value if scopes[key] is ParameterScope.SHARED else PerInputValues(list(zip(ids, each, strict=False)))
        )
    return method([group], parameters=values)[0]


def rows_of_mergekit() -> Iterator[Row]:
    for name, (mine, theirs) in IN_MERGEKIT.items():

        def there(stack: Stack, name: str = name, given: dict[str, Any] = theirs) -> torch.Tensor:
            return by_mergekit(name, given, stack)

        yield Row(name, there, mine, models=find_method(name).models or len(WEIGHTS))


# --- sd-mecha -----------------------------------------------------------------------------------------------------


def rows_of_sd_mecha() -> Iterator[Row]:
    from sd_mecha.extensions.builtin.merge_methods import linear, svd, ties

    def called(method: Any, *models: Any, **given: Any) -> torch.Tensor:
        return method.__wrapped__(*models, **given)

    def arc(stack: Stack) -> torch.Tensor:
        return called(linear.slerp, *tensors(stack), alpha=torch.tensor(PAIR[1], dtype=torch.float64))

    def added(stack: Stack) -> torch.Tensor:
        result = flat(stack.origin)
        for delta, weight in zip(deltas(stack), WEIGHTS, strict=True):
            result = called(
                linear.add_difference,
                {"x": result},
                {"x": delta},
                alpha=torch.tensor(0.8 * weight, dtype=torch.float64),
                key="x",
            )
        return result

    def elected(stack: Stack, by_size: bool = True) -> torch.Tensor:
        own = [delta.float() for delta in deltas(stack)]  # it compares sizes in float32
        return moved(stack, called(ties.ties_sum, *own, k=DENSITY, vote_sgn=by_size))

    def stock(stack: Stack) -> torch.Tensor:
        vectors = [delta.ravel() for delta in deltas(stack)]  # it takes a cosine of the last axis alone
        return moved(stack, called(ties.model_stock, *vectors).reshape(deltas(stack)[0].shape))

    def truncated(stack: Stack) -> torch.Tensor:
        rank = min(deltas(stack)[0].shape) // stack.count
        cut = [called(svd.truncate_rank, one, rank=rank, use_approximate_basis=False) for one in deltas(stack)]
        return moved(stack, torch.stack(cut).sum(0))

    yield Row("linear", lambda s: called(linear.n_average, *[{"x": one} for one in tensors(s)], key="x"), {})
    yield Row(
        "linear",
        lambda s: called(
            linear.weighted_sum,
            *[{"x": one} for one in tensors(s)],
            alpha=torch.tensor(PAIR[1], dtype=torch.float64),
            key="x",
        ),
        {"weight": PAIR},
        models=2,
        note="weighted_sum",
    )
    yield Row("slerp", arc, {"t": PAIR[1]}, models=2, prepared=of_one_length, note="models of one length")
    apart = "differs: lengths are averaged on a line, as karcher does it"
    yield Row("slerp", arc, {"t": PAIR[1]}, models=2, note=apart)
    yield Row("karcher", arc, {"weight": PAIR}, models=2, note="its slerp")
    yield Row("task_arithmetic", added, {"weight": WEIGHTS, "lambda": 0.8}, note="add_difference")
    as_many = keeping(lambda size: size - int((1 - DENSITY) * size) + 1)
    yield Row("ties", elected, as_many, note="sizes vote; for as many entries kept: there it is one or two more")
    by_count = "differs, as by default: each model has one vote for a sign; in the paper sizes vote"
    yield Row("ties", lambda s: elected(s, by_size=False), as_many, note=by_count)
    yield Row("model_stock", stock, {}, models=2)
    yield Row("model_stock", stock, {}, note="differs: cosines of neighbours in the list alone, not of all pairs")
    yield Row("tsv_c", truncated, {}, ranks=(2, 4), note="truncate_rank, added up")


# --- fusion_bench -------------------------------------------------------------------------------------------------

NAME = "encoder.weight"
MORE = "for as many entries kept: there it is one more"


def module_of(tensor: torch.Tensor) -> nn.Module:
    """A module whose one parameter is `NAME`."""
    held: nn.Module
    if tensor.ndim == 2:
        held = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        held.weight = nn.Parameter(tensor.clone())
    else:
        held = nn.ParameterDict({"weight": nn.Parameter(tensor.clone())})
    return nn.ModuleDict({"encoder": held})


def pooled(stack: Stack) -> Any:
    """The models, and the ancestor, as a pool."""
    from fusion_bench.modelpool import BaseModelPool

    named = {f"model_{place}": module_of(one) for place, one in enumerate(tensors(stack))}
    return BaseModelPool({"_pretrained_": module_of(flat(stack.origin)), **named})


def parameter(module: nn.Module) -> torch.Tensor:
    return module.state_dict()[NAME].detach()


def running(algorithm: Any, seen: Callable[[Stack], Any] = pooled) -> There:
    """What an algorithm makes of the pool; each time a copy of it, since some count."""
    return lambda stack: parameter(copy.deepcopy(algorithm).run(seen(stack)))


def as_dicts(stack: Stack) -> list[dict[str, torch.Tensor]]:
    return [{NAME: delta} for delta in deltas(stack)]


def by_dicts(function: Callable[..., Any], **given: Any) -> There:
    """What a function makes of the task vectors as state dicts."""
    return lambda stack: moved(stack, function(as_dicts(stack), **given)[NAME].detach())


def rows_of_fusion_bench() -> Iterator[Row]:
    yield from plain_rows()
    yield from spectral_rows()
    yield from measured_rows()
    yield from learned_rows()


def plain_rows() -> Iterator[Row]:
    """Methods entry by entry, and those that turn a tensor as a whole."""
    from fusion_bench.method.model_stock.model_stock import ModelStock
    from fusion_bench.method.simple_average import simple_average
    from fusion_bench.method.slerp.slerp import slerp_on_state_dicts
    from fusion_bench.method.tall_mask.utils import generate_task_masks
    from fusion_bench.method.task_arithmetic import TaskArithmeticAlgorithm
    from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging
    from fusion_bench.method.weighted_average import WeightedAverageAlgorithm

    def elected(stack: Stack, by: str) -> torch.Tensor:
        rows = torch.stack([delta.ravel() for delta in deltas(stack)])
        return moved(stack, ties_merging(rows, reset_thresh=DENSITY, merge_func=by).reshape(deltas(stack)[0].shape))

    def agreed(stack: Stack) -> torch.Tensor:
        moves = torch.stack([delta.ravel() for delta in deltas(stack)])
        own = torch.stack([one.ravel() for one in tensors(stack)])
        masks = generate_task_masks(moves, own, flat(stack.origin).ravel(), tall_mask_lambda=0.4)
        kept = torch.where(masks.sum(0) >= 2, moves.sum(0), 0.0)
        return moved(stack, kept.reshape(deltas(stack)[0].shape), 0.3)

    def turned(stack: Stack) -> torch.Tensor:
        return slerp_on_state_dicts(0.3, *[{NAME: one} for one in tensors(stack)])[NAME]

    average = WeightedAverageAlgorithm(normalize=True, weights=list(WEIGHTS), verbose=False)
    yield Row("linear", lambda s: simple_average(tensors(s)), {}, note="simple_average")
    yield Row(
        "linear",
        running(average, lambda s: {f"m{i}": module_of(t) for i, t in enumerate(tensors(s))}),
        {"weight": WEIGHTS},
    )
    yield Row("slerp", turned, {"t": 0.3}, models=2)
    yield Row("task_arithmetic", running(TaskArithmeticAlgorithm(scaling_factor=0.8)), {"weight": 1.0, "lambda": 0.8})
    as_many = keeping(lambda size: int(DENSITY * size) + 1)
    yield Row("ties", lambda s: elected(s, "mean"), as_many, note=MORE)
    yield Row("ties", lambda s: elected(s, "sum"), lambda s: {**as_many(s), "normalize": False}, note=f"sum; {MORE}")
    yield Row("consensus", agreed, {}, note="its TALL masks, of which two agree")
    yield Row("model_stock", running(ModelStock()), {}, models=2)
    yield Row("model_stock", running(ModelStock()), {}, note="differs: the mean of angles, not of cosines")


def spectral_rows() -> Iterator[Row]:
    """Methods on singular values, and on products of task vectors."""
    from fusion_bench.method.doge_ta.doge_ta import DOGE_TA_Algorithm
    from fusion_bench.method.isotropic_merging.iso_utils import iso_c
    from fusion_bench.method.opcm.opcm_general import OPCM
    from fusion_bench.method.task_singular_vector.utils.TSVC_utils import compress_tv
    from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
    from fusion_bench.method.wudi.wudi import wudi_merging

    class Held:
        def __init__(self, vector: dict[str, torch.Tensor]) -> None:
            self.vector = vector

    def compressed(stack: Stack) -> torch.Tensor:
        held = {str(place): Held(one) for place, one in enumerate(as_dicts(stack))}
        parts = [one[NAME] for one in compress_tv(held, 1 / stack.count).values()]
        return moved(stack, torch.stack([(part["u"] * part["s"]) @ part["v"] for part in parts]).sum(0))

    def continued(alpha: Callable[[Stack], float]) -> There:
        def there(stack: Stack) -> torch.Tensor:
            return running(OPCM(alpha=alpha(stack), shuffle_order=False, save_on_every_step=False))(stack)

        return there

    def as_many(stack: Stack) -> float:
        """The alpha with which it protects as many directions of the first task vector as ours does at a half."""
        strengths = torch.linalg.svdvals(deltas(stack)[0])
        shares = strengths.cumsum(0) / strengths.sum()
        protected = int((shares < 0.5).sum()) + 1
        return float(shares[protected - 1 : protected + 1].mean())

    matrices = (2, 4)
    yield Row("tsv_m", by_dicts(compute_and_sum_svd_mem_reduction, accelerator="cpu"), {})
    yield Row("tsv_c", compressed, {}, ranks=matrices, note="compress_tv, added up")
    yield Row("iso_c", by_dicts(iso_c, accelerator="cpu"), {})
    yield Row("wudi", by_dicts(wudi_merging, accelerator="cpu"), {})
    doge = running(DOGE_TA_Algorithm(subspace=6, K=0.3, lamda=0.07))
    yield Row("doge", doge, keeping(lambda size: int(0.3 * size) + 1), ranks=matrices, note=MORE)
    yield Row(
        "opcm",
        continued(as_many),
        {},
        models=2,
        ranks=matrices,
        note="for as many directions protected: there it is one less",
    )
    fewer = "differs: its code protects one direction less than its description, and ours"
    yield Row("opcm", continued(lambda _: 0.5), {}, ranks=matrices, note=fewer)


def measured_rows() -> Iterator[Row]:
    """Methods on what was measured: here drawn, and given to both."""
    from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights
    from fusion_bench.method.regmean import regmean
    from fusion_bench.method.regmean_plusplus import regmean_plusplus

    def nearest(function: Callable[..., Any]) -> There:
        def there(stack: Stack) -> torch.Tensor:
            assert stack.moments is not None
            products = [{"encoder": torch.from_numpy(one[0])} for one in stack.moments]
            named = {NAME: tensors(stack)}
            return function(named, products, reduce_non_diagonal_ratio=0.95)[NAME]

        return there

    def informed(stack: Stack) -> torch.Tensor:
        assert stack.fisher is not None
        fisher = [{NAME: flat(one)} for one in stack.fisher]
        shares = torch.ones(stack.count) / stack.count
        return merging_with_fisher_weights({NAME: tensors(stack)}, fisher, shares)[NAME]

    matrices = (2, 4)
    yield Row("regmean", nearest(regmean.merging_with_regmean_weights), {}, ranks=matrices)
    same = "one layer, whose inputs are given"
    yield Row(
        "regmean_plus_plus", nearest(regmean_plusplus.merging_with_regmean_weights), {}, ranks=matrices, note=same
    )
    yield Row("fisher", informed, {}, note="it adds the least that an entry counts, which is a floor here")


def learned_rows() -> Iterator[Row]:
    """Methods that learn, for what is learned: here given to both."""
    from fusion_bench.models.wrappers.task_wise_fusion import TaskWiseMergedModel

    def weighed(stack: Stack, mask: torch.Tensor | None = None) -> torch.Tensor:
        models = [module_of(one) for one in tensors(stack)]
        merged = TaskWiseMergedModel(torch.tensor(WEIGHTS, dtype=torch.float64), module_of(flat(stack.origin)), models)
        masks = None if mask is None else {NAME: mask / mask.mean()}
        return merged.merge_weights(task_vector_mask=masks)[NAME].detach()

    yield Row("adamerging", weighed, {"weight": WEIGHTS}, note="with weights that are given")
    masked = "with a mask and weights that are given"
    yield Row("concrete", lambda s: weighed(s, flat(s.mask)), {"weight": WEIGHTS}, note=masked)


PACKAGES: Mapping[str, Callable[[], Iterator[Row]]] = {
    "mergekit": rows_of_mergekit,
    "sd-mecha": rows_of_sd_mecha,
    "fusion-bench": rows_of_fusion_bench,
}


def installed(package: str) -> str:
    """The version that is installed, "" where none is."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
