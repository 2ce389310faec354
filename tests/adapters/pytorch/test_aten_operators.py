"""Every operator of the table computes in onnxruntime what it computes in torch."""

from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from torch import nn
from torch.nn import functional as f

import mal_graph
from mal_graph import registry
from mal_graph.errors import UnsupportedModel

lower = import_module("mal_graph_adapters.pytorch.lowering")
walk = import_module("mal_graph_adapters.pytorch.walk")
pytestmark = pytest.mark.torch

Cases = dict[str, Callable]
aten = torch.ops.aten


class Each(nn.Module):
    """All cases on one input, each an output under its own name."""

    def __init__(self, cases: Cases) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, *inputs):
        return {name: case(*inputs) for name, case in self.cases.items()}


def image(*shape):
    return torch.randn(*(shape or (2, 4, 6, 8)), generator=torch.Generator().manual_seed(7))


ONE = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs() + 0.1),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "neg": torch.neg,
    "abs": torch.abs,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: torch.tan(x / 3),
    "asin": lambda x: torch.asin(torch.tanh(x)),
    "acos": lambda x: torch.acos(torch.tanh(x)),
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "reciprocal": lambda x: (x.abs() + 0.5).reciprocal(),
    "sign": torch.sign,
    "mish": f.mish,
    "softsign": f.softsign,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "logical_not": lambda x: ~(x > 0) & torch.logical_not(x > 1),
    "bitwise_not": lambda x: ~(10 * x).to(torch.int32),
    "hardswish": f.hardswish,
    "hardsigmoid": f.hardsigmoid,
    "hardtanh": lambda x: f.hardtanh(x, -0.5, 0.7),
    "relu6": lambda x: f.relu6(5 * x),
    "aten_relu6": lambda x: aten.relu6(5 * x),
    "square": torch.square,
    "log1p": lambda x: torch.log1p(x.abs()),
    "expm1": torch.expm1,
    "silu": f.silu,
    "log_sigmoid": f.logsigmoid,
    "gelu": f.gelu,
    "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
    "leaky_relu": f.leaky_relu,
    "leaky_relu_slope": lambda x: f.leaky_relu(x, 0.3),
    "elu": f.elu,
    "elu_alpha": lambda x: f.elu(x, 0.4),
    "selu": f.selu,
    "aten_selu": aten.selu,
    "celu": lambda x: f.celu(x, 0.6),
    "softplus": f.softplus,
    "softplus_beta": lambda x: f.softplus(x, beta=2.0),
    "hardshrink": lambda x: f.hardshrink(x, 0.4),
    "softshrink": lambda x: f.softshrink(x, 0.4),
    "threshold": lambda x: f.threshold(x, 0.2, -3.0),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_low": lambda x: x.clamp(min=0.1),
    "clamp_tensor": lambda x: torch.clamp(x, x.mean(), None),
    "clamp_min": lambda x: torch.clamp_min(x, 0.2),
    "clamp_max": lambda x: torch.clamp_max(x, 0.2),
    "clip": lambda x: torch.clip(x, -0.1, 0.2),
    "det": lambda x: torch.linalg.det(x[..., :6]),
    # with numbers and itself
    "add": lambda x: x + 2,
    "add_alpha": lambda x: torch.add(x, x.exp(), alpha=3),
    "add_int": lambda x: (10 * x).to(torch.int64) + 0.5,
    "sub": lambda x: x - x.mean(),
    "rsub": lambda x: 1 - x,
    "rsub_alpha": lambda x: torch.rsub(x, 3, alpha=2),
    "mul": lambda x: x * 3,
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "minimum": lambda x: torch.minimum(x, x.flip(0)),
    "max_other": lambda x: torch.max(x, x.flip(0)),
    "min_other": lambda x: torch.min(x, x.flip(0)),
    "div": lambda x: x / 3,
    "divide": lambda x: aten.divide(x, 3),
    "true_divide": lambda x: aten.true_divide(x, 3),
    "div_floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div_trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "int_div_floor": lambda x: torch.div((10 * x).to(torch.int64), 3, rounding_mode="floor"),
    "int_div_trunc": lambda x: torch.div((10 * x).to(torch.int64), 3, rounding_mode="trunc"),
    "floor_divide": lambda x: torch.floor_divide(x, 0.3),
    "int_floor_divide": lambda x: (10 * x).to(torch.int64) // 4,
    "remainder": lambda x: x % 0.7,
    "int_remainder": lambda x: (10 * x).to(torch.int64) % 3,
    "fmod": lambda x: torch.fmod(x, 0.7),
    "pow": lambda x: x**2 + x.abs() ** 1.5,
    "pow_scalar": lambda x: 2**x,
    "pow_tensor": lambda x: x.abs() ** x,
    "addcmul": lambda x: torch.addcmul(x, x, x.exp(), value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.exp(), value=0.3),
    "lerp": lambda x: torch.lerp(x, x.exp(), 0.2),
    "compare": lambda x: torch.stack([x < 0.1, x <= 0.1, x > 0.1, x >= 0.1, x == x.mean(), x != 0]),
    "compare_int": lambda x: (10 * x).to(torch.int64) > 1.5,
    "compare_bool": lambda x: (x > 0) == 1,
    "logical_and": lambda x: torch.logical_and(x > 0, x < 1),
    "logical_or": lambda x: torch.logical_or(x > 0, x < -1),
    "logical_xor": lambda x: torch.logical_xor(x > 0, x > 1),
    "bits": lambda x: ((10 * x).to(torch.int32) & 6) | 1,
    "bit_xor": lambda x: (10 * x).to(torch.int32) ^ 5,
    "bools": lambda x: ((x > 0) & (x < 1)) | (x < -1) ^ (x < -2),
    "bitwise_and": lambda x: torch.bitwise_and(x > 0, x < 1),
    "bitwise_or": lambda x: torch.bitwise_or(x > 0, x < -1),
    "bitwise_xor": lambda x: torch.bitwise_xor(x > 0, x < 1),
    "where": lambda x: torch.where(x > 0, x, x.exp()),
    "where_scalar": lambda x: torch.where(x > 0, x, 0.5),
    "where_scalar_self": lambda x: torch.where(x > 0, 0.5, x),
    "where_scalars": lambda x: torch.where(x > 0, 1.0, 0.5),
    "masked_fill": lambda x: x.masked_fill(x > 0, -2.0),
    # what changes no value, and types
    "contiguous": lambda x: x.transpose(0, 1).contiguous(),
    "clone": lambda x: x.clone() + 0,
    "alias": lambda x: aten.alias(x) + 0,
    "detach": lambda x: x.detach() + 0,
    "dropout": lambda x: f.dropout(x, training=False) + 0,
    "dropouts": lambda x: (
        f.feature_alpha_dropout(f.alpha_dropout(f.dropout2d(x, training=False), training=False), training=False) + 0
    ),
    "positive": lambda x: torch.positive(x) + 0,
    "resolved": lambda x: x.resolve_conj().resolve_neg() + 0,
    "to": lambda x: x.to(torch.float64).to(torch.float32),
    "type_as": lambda x: (x > 0).type_as(x),
    "types": lambda x: x.long().float() + (3 * x).int().float() + x.bool().float() + x.half().float(),
    "double": lambda x: x.double().float(),
    # reductions
    "mean": lambda x: x.mean((2, 3)),
    "mean_all": torch.mean,
    "sum": lambda x: x.sum(1, keepdim=True),
    "sum_bool": lambda x: (x > 0).sum(-1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((1, 2)),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "prod": lambda x: x.prod(3),
    "prod_all": lambda x: (1 + 0.01 * x).prod(),
    "max": torch.max,
    "min": torch.min,
    "max_dim": lambda x: x.max(1).values,
    "max_place": lambda x: x.max(1).indices,
    "min_dim": lambda x: x.min(1, keepdim=True).values,
    "argmax": lambda x: x.argmax(1),
    "argmax_all": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(-1, keepdim=True),
    "any": lambda x: (x > 2).any(1),
    "all": lambda x: (x > -1).all(1),
    "any_all": lambda x: (x > 2).any(),
    "var": lambda x: x.var((2, 3)),
    "var_correction": lambda x: x.var(1, correction=2),
    "var_dim": lambda x: aten.var.dim(x, [1], False, True),
    "var_default": lambda x: aten.var.default(x[0], True),
    "std": lambda x: x.std(1, correction=0),
    "std_dim": lambda x: aten.std.dim(x, [1], True),
    "std_default": lambda x: aten.std.default(x[0]),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, 1)),
    "var_mean_correction": lambda x: torch.cat(torch.var_mean(x, 1, correction=0)),
    "var_mean_keep": lambda x: torch.cat(aten.var_mean.dim(x, [1], True, True)),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "norm_1": lambda x: torch.linalg.vector_norm(x, 1, dim=(1, 2), keepdim=True),
    "old_norm": lambda x: aten.norm.ScalarOpt_dim(x, 2, [1], True),
    "normalize": lambda x: f.normalize(x, dim=1),
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(dim=1),
    "diff_bool": lambda x: (x > 0).diff(dim=-1, prepend=x[..., :1] > 0),
    "topk": lambda x: x.topk(2, dim=1).values,
    "sort": lambda x: x.sort(dim=1).values,
    "sort_down": lambda x: x.sort(dim=-1, descending=True, stable=True).values,
    "softmax": lambda x: x.softmax(1),
    "softmax_half_to_float": lambda x: f.softmax(x.half(), dim=1, dtype=torch.float32),
    "log_softmax": lambda x: x.log_softmax(-1),
    "aten_softmax": lambda x: aten._softmax(x, 1, False) + aten._log_softmax(x, 1, False),
    # pooling
    "max_pool2d": lambda x: f.max_pool2d(x, 3, 2, 1),
    "max_pool2d_ceil": lambda x: f.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool2d_dilated": lambda x: f.max_pool2d(x, 2, 1, dilation=2),
    "max_pool_with_indices": lambda x: aten.max_pool2d_with_indices(x, [2, 2])[0],
    "max_pool1d": lambda x: f.max_pool1d(x[:, 0], 3, 2),
    "max_pool3d": lambda x: f.max_pool3d(x, 2),
    "max_pool3d_with_indices": lambda x: aten.max_pool3d_with_indices(x.unsqueeze(1), [2, 2, 2])[0],
    "avg_pool2d": lambda x: f.avg_pool2d(x, 3, 2, 1),
    "avg_pool2d_inside": lambda x: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool2d_ceil": lambda x: f.avg_pool2d(x, 3, 2, ceil_mode=True),
    "avg_pool2d_divisor": lambda x: f.avg_pool2d(x, 2, divisor_override=3),
    "avg_pool2d_alone": lambda x: f.avg_pool2d(x[0], 2),
    "avg_pool1d": lambda x: f.avg_pool1d(x[:, 0], 2),
    "avg_pool3d": lambda x: f.avg_pool3d(x, 2),
    "adaptive_avg_pool2d": lambda x: f.adaptive_avg_pool2d(x, 1),
    "adaptive_avg_pool2d_even": lambda x: f.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_avg_pool2d_odd": lambda x: f.adaptive_avg_pool2d(x, (4, 9)),
    "adaptive_avg_pool1d": lambda x: f.adaptive_avg_pool1d(x[:, 0], 5),
    "adaptive_avg_pool3d": lambda x: f.adaptive_avg_pool3d(x, (2, 4, 4)),
    "adaptive_max_pool2d": lambda x: f.adaptive_max_pool2d(x, (4, 4)),
    "adaptive_max_pool1d": lambda x: f.adaptive_max_pool1d(x[:, 0], 1),
    "adaptive_max_pool3d": lambda x: f.adaptive_max_pool3d(x, 2),
    # shape
    "view": lambda x: x.view(x.size(0), -1),
    "view_as": lambda x: x.view_as(x.exp()) + 0,
    "reshape": lambda x: x.reshape(-1, 2, 6, 8),
    "reshape_as": lambda x: x.transpose(1, 2).reshape_as(x),
    "flatten": lambda x: x.flatten(1, 2),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "squeeze": lambda x: x[:, :1].squeeze(),
    "squeeze_dim": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-2),
    "permute": lambda x: x.permute(0, 2, -1, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "swapdims": lambda x: x.swapdims(2, 1),
    "t": lambda x: x[0, 0].t(),
    "T": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "adjoint": lambda x: x.adjoint(),
    "movedim": lambda x: x.movedim(1, -1),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "expand_as": lambda x: x[:1].expand_as(x),
    "broadcast_to": lambda x: aten.broadcast_to(x[0, 0], [3, 6, 8]),
    "repeat": lambda x: x.repeat(2, 1, 1, 1, 3),
    "tile": lambda x: x.tile(2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(3, dim=1),
    "cat": lambda x: torch.cat([x, x.exp()], 1),
    "concat": lambda x: aten.concat([x, x], 0),
    "cat_types": lambda x: torch.cat([x.long(), x], -1),
    "stack": lambda x: torch.stack([x, x.exp()], -1),
    "split": lambda x: x.split(3, 1)[0],
    "split_sizes": lambda x: x.split([1, 3], 1)[1],
    "chunk": lambda x: x.chunk(2, -1)[1],
    "chunk_one": lambda x: x.chunk(1, 1)[0] + 0,
    "tensor_split": lambda x: x.tensor_split(3, 1)[2],
    "unsafe_split": lambda x: aten.unsafe_split(x, 2, 1)[1] + aten.unsafe_chunk(x, 2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "select": lambda x: x[:, 2],
    "select_last": lambda x: x[..., -1],
    "slice": lambda x: x[:, 1:3, ::2, -3:],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "index_select": lambda x: x.index_select(1, torch.tensor([3, 0])),
    "index": lambda x: x[:, torch.tensor([1, 3, 3])],
    "index_pairs_behind": lambda x: x[:, torch.tensor([[0], [1]]), torch.tensor([1, 0, 3])],
    "index_put": lambda x: torch.zeros_like(x).index_put((torch.tensor([1, 0]),), x[:2]),
    "index_put_behind": lambda x: aten.index_put(
        torch.ones_like(x), [None, torch.tensor([[0], [1]]), torch.tensor([1, 0, 3])], x[:, :2, :3]
    ),
    "index_put_added": lambda x: aten.index_put(x, [None, torch.tensor([2, 2])], x[:, :1], True),
    "unfold_and_fold": lambda x: f.fold(f.unfold(x, 3, padding=1), (x.shape[2], x.shape[3]), 3, padding=1),
    "index_pairs": lambda x: x[torch.tensor([[0], [1]]), torch.tensor([1, 3, 3])],
    "gather": lambda x: x.gather(1, x.argsort(1)[:, :2]),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, x.argsort(1)[:, :2], x[:, :2]),
    "scatter_value": lambda x: x.scatter(1, x.argsort(1)[:, :2], 3.0),
    "scatter_add": lambda x: x.scatter_add(1, x.argsort(1)[:, :2] * 0, x[:, :2]),
    "unsafe_index_put": lambda x: aten._unsafe_index_put(x, [None, torch.tensor([2, 0])], x[:, :2]),
    "weight_norm": lambda x: torch._weight_norm(x, x[:, :1, :1, :1].exp(), 0),
    "weight_norm_interface": lambda x: aten._weight_norm_interface(x, x[:, :1, :1, :1].exp(), 0)[0],
    "roll": lambda x: x.roll((1, -2), (1, 3)),
    "roll_none": lambda x: x.roll(4, 1) + 0,
    "flip": lambda x: x.flip((1, 3)),
    "pad": lambda x: f.pad(x, (1, 2, 0, 1)),
    "pad_value": lambda x: f.pad(x, (1, -2), value=3.0),
    "pad_aten": lambda x: aten.constant_pad_nd(x, [1, 1], 2.0),
    "pad_reflect": lambda x: f.pad(x, (1, 2, 2, 1), mode="reflect"),
    "pad_edge": lambda x: f.pad(x, (1, 2, 2, 1), mode="replicate"),
    "pad_circular": lambda x: f.pad(x, (1, 2, 2, 1), mode="circular"),
    "reflection_pads": lambda x: aten.reflection_pad1d(x[0], [1, 2])[:, :, :8] + aten.reflection_pad2d(x[0], [0] * 4),
    "reflection_pad3d": lambda x: aten.reflection_pad3d(x, [1, 0, 1, 0, 1, 0]),
    "replication_pads": lambda x: aten.replication_pad1d(x[0], [1, 0]),
    "replication_pads_more": lambda x: (
        aten.replication_pad2d(x, [1, 0, 0, 0])[..., 1:] + aten.replication_pad3d(x, [0] * 6)
    ),
    "pixel_shuffle": lambda x: f.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: f.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: f.channel_shuffle(x, 2),
    "native_channel_shuffle": lambda x: torch.native_channel_shuffle(x, 2),
    "tril": lambda x: x.tril(1),
    "triu": lambda x: x.triu(-1),
    "nearest": lambda x: f.interpolate(x, scale_factor=2),
    "nearest_size": lambda x: f.interpolate(x, size=(9, 5)),
    "nearest_1d": lambda x: f.interpolate(x[:, 0], scale_factor=2),
    "nearest_3d": lambda x: f.interpolate(x.unsqueeze(1), scale_factor=2),
    "linear_1d": lambda x: f.interpolate(x[:, 0], scale_factor=2, mode="linear"),
    "bilinear": lambda x: f.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear_corners": lambda x: f.interpolate(x, size=(9, 5), mode="bilinear", align_corners=True),
    "trilinear": lambda x: f.interpolate(x.unsqueeze(1), scale_factor=2, mode="trilinear"),
    "bicubic": lambda x: f.interpolate(x, scale_factor=2, mode="bicubic"),
    "select_scatter": lambda x: x.select_scatter(x[:, 0], 1, 2),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :2], 1, 1, 3),
    "grid_sample": lambda x: f.grid_sample(x, x[:, :, :, :2].tanh(), align_corners=False),
    "grid_sampler_2d": lambda x: aten.grid_sampler_2d(x, x[:, :, :, :2].tanh(), 0, 1, True),
    # made from sizes
    "zeros": lambda x: torch.zeros(x.shape[0], 3) + torch.zeros(2, 3).mean() + x.new_zeros(1),
    "zeros_like": lambda x: torch.zeros_like(x),
    "ones": lambda x: torch.ones(3, x.shape[0]) * x.new_ones(1) + torch.ones_like(x).mean(),
    "full": lambda x: torch.full((x.shape[0], 2), 2.5) + x.new_full((1,), 0.5) + torch.full_like(x, 3.0).mean(),
    "scalar_tensor": lambda x: x + torch.scalar_tensor(2.0),
    "arange": lambda x: torch.arange(5) + torch.arange(1, 6) + torch.arange(0, 10, 2),
    "arange_sized": lambda x: torch.arange(x.shape[0], dtype=torch.float32),
    "size_of_batch": lambda x: x / x.shape[0],
    "einsum": lambda x: torch.einsum("nchw,nkhw->nck", x, x),
    "matmul": lambda x: x @ x.mT,
    "bmm": lambda x: torch.bmm(x[0], x[1].mT),
    "mm": lambda x: torch.mm(x[0, 0], x[0, 1].t()),
    "mv": lambda x: torch.mv(x[0, 0], x[0, 1, 0]),
    "dot": lambda x: torch.dot(x[0, 0, 0], x[0, 1, 0]),
    "addmm": lambda x: torch.addmm(x[0, 0, :, :6], x[0, 0], x[0, 1].t(), beta=0.5, alpha=2.0),
    "baddbmm": lambda x: torch.baddbmm(x[0][:, :, :6], x[0], x[1].mT, beta=0.5, alpha=2.0),
    "attention": lambda x: f.scaled_dot_product_attention(x, x, x),
    "attention_causal": lambda x: f.scaled_dot_product_attention(x, x.exp(), x, is_causal=True, scale=0.3),
    "attention_mask": lambda x: f.scaled_dot_product_attention(x, x, x, attn_mask=x[0, 0, :, :6]),
    "attention_bool": lambda x: f.scaled_dot_product_attention(x, x, x, attn_mask=x[0, 0, :, :6] > -1),
    "attention_shared": lambda x: f.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True),
    # in place
    "in_place": lambda x: x.clone().add_(1).relu_().mul_(2),
    "in_place_read_before": lambda x: read_before(x.clone()),
    "in_place_through_a_view": lambda x: through_a_view(x.clone()),
    "in_place_element": lambda x: element_written(x.clone()),
    "in_place_slice": lambda x: slice_written(x.clone()),
    "fill": lambda x: x.clone().fill_(2.0),
    "copy": lambda x: x.clone().copy_(x[:, :1]),
}


def read_before(x):
    doubled = x * 2
    x.relu_()
    return x + doubled


def through_a_view(x):
    first = x[:, 0]
    x.add_(1)
    return first


def element_written(x):
    x[:, 1] = 0
    return x


def slice_written(x):
    x[:, 1:3] = 5.0
    return x


def with_modules() -> dict[str, tuple[nn.Module, tuple]]:
    torch.manual_seed(3)
    flat, line, map_, space = image(2, 6), image(2, 5, 6), image(2, 4, 7, 8), image(2, 4, 5, 6, 7)
    found = {
        "linear": (nn.Linear(6, 3), flat),
        "linear_3d": (nn.Linear(6, 3), line),
        "linear_no_bias": (nn.Linear(6, 3, bias=False), line),
        "prelu": (nn.PReLU(), map_),
        "prelu_channels": (nn.PReLU(4), map_),
        "embedding": (nn.Embedding(9, 5), torch.randint(0, 9, (2, 4))),
        "conv1d": (nn.Conv1d(5, 3, 3, padding=1), line),
        "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2), map_),
        "conv2d_same": (nn.Conv2d(4, 6, (3, 4), padding="same"), map_),
        "conv2d_valid": (nn.Conv2d(4, 6, 3, padding="valid"), map_),
        "conv2d_reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), map_),
        "conv2d_alone": (nn.Conv2d(4, 6, 3), map_[0]),
        "conv3d": (nn.Conv3d(4, 2, 3), space),
        "conv_transpose1d": (nn.ConvTranspose1d(5, 3, 3, 2), line),
        "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), map_),
        "conv_transpose3d": (nn.ConvTranspose3d(4, 2, 2), space),
        "batch_norm": (nn.BatchNorm2d(4), map_),
        "batch_norm_flat": (nn.BatchNorm1d(6), flat),
        "batch_norm_plain": (nn.BatchNorm2d(4, affine=False), map_),
        "batch_norm_of_the_batch": (nn.BatchNorm2d(4, track_running_stats=False), map_),
        "instance_norm": (nn.InstanceNorm2d(4, affine=True), map_),
        "instance_norm_kept": (nn.InstanceNorm2d(4, track_running_stats=True), map_),
        "group_norm": (nn.GroupNorm(2, 4), map_),
        "group_norm_plain": (nn.GroupNorm(2, 4, affine=False), map_),
        "layer_norm": (nn.LayerNorm((7, 8)), map_),
        "layer_norm_plain": (nn.LayerNorm(8, elementwise_affine=False), map_),
        "rms_norm": (nn.RMSNorm(8), map_),
        "rms_norm_plain": (nn.RMSNorm((7, 8), elementwise_affine=False), map_),
        "multihead": (Attended(), line.transpose(1, 2)),
        "encoder": (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), line),
    }
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        for name, options in {
            "": {},
            "_both_ways": {"num_layers": 2, "bidirectional": True, "batch_first": True},
            "_no_bias": {"bias": False},
        }.items():
            found[f"{kind.__name__.lower()}{name}"] = (kind(6, 3, **options), line)
    found["rnn_relu"] = (nn.RNN(6, 3, nonlinearity="relu"), line)
    for module, _ in found.values():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.data.add_(0.3 * torch.rand_like(tensor))
    return found


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(5, 1, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)


class Primitive(nn.Module):
    """Operators as a decomposed program has them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(image(6, 4, 3, 3))
        self.turned = nn.Parameter(image(4, 6, 3, 3))
        self.scale = nn.Parameter(image(4))
        self.register_buffer("mean", image(4))
        self.register_buffer("variance", 1 + image(4) ** 2)

    def forward(self, x):
        return (
            aten.convolution(x, self.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
            aten.convolution(x, self.turned, None, [2, 2], [1, 1], [1, 1], True, [0, 0], 1),
            aten._native_batch_norm_legit_no_training(x, self.scale, None, self.mean, self.variance, 0.1, 1e-5)[0],
            aten._unsafe_view(x, [-1, 8]),
            aten._to_copy(x, dtype=torch.float64),
        )


class States(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(6, 3, 2)

    def forward(self, x, h, c):
        return self.inner(x, (h, c))


def agree(module: nn.Module, inputs: tuple, *, fixed: bool = False) -> None:
    """Check all outputs in onnxruntime, on the example and, unless torch fixes it, on another number of samples."""
    graph = mal_graph.trace(module.eval(), inputs)
    session = registry.runner().open(graph)
    assert isinstance(graph.inputs[0].shape[0], str) is not fixed
    for given in (inputs, *([] if fixed else [tuple(torch.cat([x, x[:1]]) for x in inputs)])):
        with torch.no_grad():
            found = torch.utils._pytree.tree_leaves(module(*given))
        made = session.run({v.name: x.numpy() for v, x in zip(graph.inputs, given, strict=True)})
        assert len(found) == len(graph.outputs)
        for value, wanted in zip(graph.outputs, found, strict=True):
            have, want = made[value.name], wanted.numpy()
            assert have.shape == want.shape, value.name
            assert have.dtype == want.dtype, value.name
            scale = np.abs(np.where(np.isfinite(want), want, 0)).max(initial=0) if want.dtype.kind == "f" else 0
            # Both compute in float32, in other orders: 1e-5 of the largest value, as the law has it. Not of each value:
            # one that is what is left of larger ones is off by as much as they are.
            assert scale < 100, f"{value.name}: beside so large a value the others are not checked"
            np.testing.assert_allclose(have, want, rtol=0, atol=1e-5 * scale, err_msg=value.name)


# Where torch.export fixes the first axis: one function, the image without samples, and the steps of recurrent layers.
FIXED = {
    *("native_channel_shuffle", "conv2d_alone"),
    *("lstm", "lstm_no_bias", "gru", "gru_no_bias", "rnn", "rnn_no_bias", "rnn_relu"),
}
VARYING = [name for name in ONE if name not in FIXED]


@pytest.mark.parametrize("start", range(0, len(VARYING), 30))
def test_functions_compute_what_torch_computes(start):
    agree(Each({name: ONE[name] for name in VARYING[start : start + 30]}), (image(),))


@pytest.mark.parametrize("name", [name for name in ONE if name in FIXED])
def test_functions_of_a_fixed_number_of_samples_compute_what_torch_computes(name):
    agree(Each({name: ONE[name]}), (image(),), fixed=True)


@pytest.mark.parametrize("name", with_modules())
def test_modules_compute_what_torch_computes(name):
    module, given = with_modules()[name]
    agree(module, (given,), fixed=name in FIXED)


def test_primitive_operators_compute_what_torch_computes():
    agree(Primitive(), (image(),))


def test_initial_states_are_read():
    agree(States(), (image(5, 2, 6), image(2, 2, 3), image(2, 2, 3)), fixed=True)


def used(module: nn.Module, inputs: tuple) -> set[str]:
    """The entries of the table that a module asks for."""
    program = torch.export.export(module.eval(), inputs, strict=False)
    found = set()
    for node in program.graph.nodes:
        lowering = lower.lowering_of(node.target) if node.op == "call_function" else None
        found |= {name for name, entry in lower.TABLE.items() if entry is lowering and is_name_of(name, node.target)}
    return found


def is_name_of(name: str, target) -> bool:
    packet, _, overload = str(target).removeprefix("aten.").partition(".")
    return name in (packet, packet.removesuffix("_"), f"{packet}.{overload}", f"{packet.removesuffix('_')}.{overload}")


@pytest.mark.slow
def test_every_operator_of_the_table_is_tried():
    found = used(Each(ONE), (image(),)) | used(Primitive(), (image(),))
    for module, given in with_modules().values():
        found |= used(module, (given,))
    in_place = Each({name: case for name, case in ONE.items() if name.startswith(("in_place", "fill", "copy"))})
    functional = torch.export.export(in_place, (image(),), strict=False).run_decompositions({})
    for node in functional.graph.nodes:
        found |= {name for name in lower.TABLE if node.op == "call_function" and is_name_of(name, node.target)}
    assert sorted(lower.TABLE.keys() - found) == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lambda x: torch.fft.fft(x).real, "no counterpart here"),
        (lambda x: x[x > 0], "mask"),
        (lambda x: x.repeat_interleave(2), "without an axis"),
        (lambda x: torch.linalg.vector_norm(x, 3), "norm of order 3"),
        (lambda x: x.roll(1), "roll over all axes"),
        (lambda x: x.diff(n=2), "order 2"),
        (lambda x: f.dropout(x, 0.2, training=True), "drops 20% at random in evaluation mode too"),
        (lambda x: f.scaled_dot_product_attention(x, x, x, dropout_p=0.1), "drops 10% at random"),
        (lambda x: f.adaptive_max_pool2d(x, 2, return_indices=True)[1], "use the first only"),
    ],
)
def test_what_has_no_counterpart_is_named_with_its_line(case, message):
    with pytest.raises(UnsupportedModel, match=message) as found:
        mal_graph.trace(Each({"case": case}).eval(), image())
    assert "test_aten_operators.py:" in str(found.value)
