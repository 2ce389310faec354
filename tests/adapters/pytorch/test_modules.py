"""Modules as layer graphs and back: nothing is copied, nothing is lost, and what cannot be traced is said."""

import copy
import subprocess
import sys
import warnings
from importlib import import_module

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from torch import nn

import mal_graph
from mal_graph import registry
from mal_graph.errors import DataError, FileError, ShapeError, UnsupportedModel

tracing = import_module("mal_graph_adapters.pytorch.tracing")
giving_back = import_module("mal_graph_adapters.pytorch.giving_back")
pytestmark = pytest.mark.torch


class Small(nn.Module):
    """A convolution with BatchNorm, a head behind dropout."""

    def __init__(self, units=6, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, units, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(units)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(units, 4)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


class Asking(Small):
    """The same, with Python that torch.fx cannot follow."""

    def forward(self, x):
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return super().forward(x)


class Tied(nn.Module):
    """An embedding whose table is the output layer's weight, and keyword arguments."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 5)
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids, *, scale=None):
        found = self.out(torch.tanh(self.inner(self.table(ids))))
        return {"logits": found if scale is None else found * scale}


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.inner = kind(6, 3, **options)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.inner(x)[0])


def seeded(make, *args, seed=0, **options):
    torch.manual_seed(seed)
    module = make(*args, **options).eval()
    for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        tensor.data.add_(0.1 * torch.rand_like(tensor))
    return module


def image(samples=2):
    return torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def run(graph, *inputs):
    fed = {value.name: x.numpy() for value, x in zip(graph.inputs, inputs, strict=True)}
    return list(registry.runner().open(graph).run(fed).values())


def changed(graph, factor=2.0):
    """The graph with every float weight of more than one element multiplied."""
    return graph.with_weights(
        {name: w.read() * np.float32(factor) for name, w in graph.weights.items() if w.is_float and w.size > 1}
    )


# --- tracing ---


def test_the_weights_are_the_modules_own():
    module = seeded(Small)
    graph = mal_graph.trace(module, image())
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert set(graph.weights) >= {"conv.weight", "norm.running_var", "head.bias"}
    for name in own.keys() & graph.weights.keys():
        values = graph.weights[name].read()
        assert values.__array_interface__["data"][0] == own[name].data_ptr(), name
        assert not values.flags.writeable


@pytest.mark.parametrize("make", [Small, Asking])
def test_any_number_of_samples_runs_as_in_torch(make):
    module = seeded(make)
    graph = mal_graph.trace(module, image(1))
    assert graph.inputs[0].shape == ("batch", 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, image(5))[0], module(image(5)), rtol=1e-5, atol=1e-6)


def test_nodes_are_called_after_their_modules():
    graph = mal_graph.trace(seeded(Small), image())
    assert [node.name for node in graph.nodes if node.op == "Conv"] == ["conv/Conv"]
    assert [value.name for value in graph.outputs] == ["output"]


def test_a_tied_tensor_is_one_weight_and_outputs_have_their_keys():
    graph = mal_graph.trace(seeded(Tied), torch.tensor([[1, 2, 3]]))
    assert [name for name, w in graph.weights.items() if w.shape == (11, 5)] == ["table.weight"]
    assert [value.name for value in graph.outputs] == ["logits"]


class Viewed(nn.Module):
    """A parameter, and its bits on the same memory as another type."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.register_buffer("bits", self.weight.detach().view(torch.int32))

    def forward(self, x):
        return x * self.weight + (x.int() + self.bits).to(x.dtype)


def test_tensors_of_two_types_on_one_memory_are_two_weights():
    graph = mal_graph.trace(Viewed().eval(), torch.zeros(2, 3))
    assert {name: weight.dtype.name for name, weight in graph.weights.items()} == {"weight": "float32", "bits": "int32"}


def test_keyword_arguments_are_given_by_name():
    module = seeded(Tied)
    inputs = {"ids": torch.tensor([[1, 2, 3]]), "scale": torch.tensor([2.0])}
    graph = mal_graph.trace(module, inputs)
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, *inputs.values())[0], module(**inputs)["logits"], rtol=1e-5, atol=1e-6)


def test_symbolic_tracing_is_used_where_it_gives_the_same_function():
    assert giving_back.source_of(mal_graph.trace(seeded(Small), image())).module.get_submodule("norm")
    source = giving_back.source_of(mal_graph.trace(seeded(Asking), image())).module
    assert any(node.target is torch.ops.aten.conv2d.default for node in source.graph.nodes)


class Branching(nn.Module):
    """Symbolic tracing follows the wrong branch and does not fail."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x, mask=None):
        found = self.inner(x)
        return found if isinstance(mask, torch.fx.Proxy) else found + 1


def test_a_symbolic_trace_that_computes_something_else_is_not_used():
    module = seeded(Branching)
    inputs = (torch.randn(2, 4), torch.randn(2, 4))
    made = mal_graph.to_module(mal_graph.trace(module, inputs))
    with torch.no_grad():
        torch.testing.assert_close(made(*inputs), module(*inputs))


@pytest.mark.parametrize("form", [torch.fx.symbolic_trace, lambda m: torch.export.export(m, (image(),))])
def test_graph_modules_and_exported_programs_are_taken(form):
    module = seeded(Small)
    graph = mal_graph.trace(form(module), image())
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, image())[0], module(image()), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mal_graph.to_module(graph)(image()), module(image()))
    assert mal_graph.state_dict(graph).keys() == module.state_dict().keys()


def test_training_mode_is_said_and_kept():
    module = seeded(Small).train()
    module.norm.eval()
    with pytest.warns(UserWarning, match=r"Small is in training mode: .* after \.eval\(\)"):
        graph = mal_graph.trace(module, image())
    assert module.training
    assert module.drop.training
    assert not module.norm.training
    before = module.norm.running_mean.clone()
    made = mal_graph.to_module(graph)
    assert made.training
    assert made.drop.training
    assert not made.norm.training
    assert torch.equal(module.norm.running_mean, before)


def test_evaluation_mode_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mal_graph.trace(seeded(Small), image())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_survive(dtype):
    module = seeded(Small).to(dtype)
    graph = mal_graph.trace(module, image().to(dtype))
    assert graph.weights["head.weight"].dtype.name == str(dtype).removeprefix("torch.")
    back = mal_graph.state_dict(graph.with_weights([graph.weights["head.weight"]]))
    assert back["head.weight"].dtype == dtype
    assert torch.equal(back["head.weight"], module.head.weight)


# --- and back ---


@pytest.mark.parametrize("make", [Small, Asking, Recurrent, Tied])
def test_new_weights_reach_the_module_and_its_class(make):
    inputs = {Recurrent: torch.randn(5, 2, 6), Tied: torch.tensor([[1, 2, 3]])}.get(make, image())
    module = seeded(make)
    graph = changed(mal_graph.trace(module, inputs))
    made = mal_graph.to_module(graph).eval()
    again = seeded(make, seed=9)
    again.load_state_dict(mal_graph.state_dict(graph))
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(made(inputs))[0]
        torch.testing.assert_close(torch.utils._pytree.tree_leaves(again(inputs))[0], wanted)
        np.testing.assert_allclose(run(graph, inputs)[0], wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(torch.utils._pytree.tree_leaves(module(inputs))[0], wanted)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bias": False}, {"bidirectional": True}])
def test_packed_gates_are_made_when_read_and_come_apart_again(kind, options):
    module = seeded(Recurrent, kind, **options)
    if options.get("bidirectional"):
        module.head = nn.Linear(6, 2)
    graph = mal_graph.trace(module, torch.randn(5, 2, 6))
    packed = [name for name in graph.weights if name.startswith("inner.W") or name.startswith("inner.R")]
    assert len(packed) == 2 * options.get("num_layers", 1) * (1 + options.get("bidirectional", 0))
    back = mal_graph.state_dict(graph.with_weights([graph.weights[name] for name in packed]))
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())
    shared = [n for n, w in graph.weights.items() if n not in packed and w.is_float and not n.startswith("inner.B")]
    assert {"head.weight", "head.bias"} <= set(shared)


def test_a_module_that_comes_back_can_be_trained():
    module = seeded(Small)
    module.conv.weight.requires_grad_(False)
    graph = changed(mal_graph.trace(module, image()), 1.5)
    made = mal_graph.to_module(graph)
    assert not made.get_parameter("conv.weight").requires_grad
    before = module.head.weight.clone()
    made.train()
    optimiser = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(5):
        torch.manual_seed(0)
        loss = nn.functional.cross_entropy(made(image(4)), torch.tensor([0, 1, 2, 3]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(module.head.weight, before)  # the module that was traced is not touched


def test_the_traced_module_is_not_the_one_that_comes_back():
    module = seeded(Small)
    made = mal_graph.to_module(mal_graph.trace(module, image()))
    made.get_parameter("head.weight").data.zero_()
    assert module.head.weight.abs().sum() > 0


def test_the_file_is_the_module(tmp_path):
    module = seeded(Small)
    mal_graph.save(mal_graph.trace(module, image()), tmp_path / "m.onnx")
    graph = mal_graph.load(tmp_path / "m.onnx")
    assert {"conv.weight", "norm.running_mean", "head.bias"} <= set(graph.weights)
    with torch.no_grad():
        np.testing.assert_allclose(run(graph, image(3))[0], module(image(3)), rtol=1e-5, atol=1e-6)


# --- merging ---


@pytest.mark.parametrize("base_is_file", [True, False])
@pytest.mark.parametrize("donor_is_file", [True, False])
def test_files_and_modules_merge_into_each_other_alike(tmp_path, base_is_file, donor_is_file):
    graphs = []
    for seed, is_file in enumerate((base_is_file, donor_is_file)):
        graph = mal_graph.trace(seeded(Small, seed=seed), image())
        if is_file:
            mal_graph.save(graph, tmp_path / f"{seed}.onnx")
            graph = mal_graph.load(tmp_path / f"{seed}.onnx")
        graphs.append(graph)
    result = mal_graph.assemble(*graphs, lam=0.4)
    assert result.passed
    expected = mal_graph.assemble(*(mal_graph.trace(seeded(Small, seed=s), image()) for s in (0, 1)), lam=0.4)
    assert np.allclose(run(result.graph, image())[0], run(expected.graph, image())[0], rtol=1e-5, atol=1e-6)
    assert isinstance(result.graph.source, tracing.Traced) != base_is_file


def test_a_shuffled_module_comes_back_exactly():
    module = seeded(Small)
    other = copy.deepcopy(module)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        tensor = other.state_dict()[name]
        tensor.copy_(tensor[order].clone())
    other.head.weight.data = other.head.weight.data[:, order].clone()
    graph = mal_graph.trace(module, image())
    result = mal_graph.assemble(graph, mal_graph.trace(other, image()), lam=1.0)
    back = mal_graph.state_dict(result.graph)
    assert all(torch.allclose(back[key], value, atol=1e-6) for key, value in module.state_dict().items())


def test_lambda_zero_is_the_base_bit_for_bit():
    module = seeded(Small)
    result = mal_graph.assemble(*(mal_graph.trace(m, image()) for m in (module, seeded(Small, seed=1))), lam=0.0)
    back = mal_graph.state_dict(result.graph)
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())


def test_a_bias_that_the_class_lacks_is_given_to_the_module_and_refused_to_the_class():
    base, donor = seeded(Small, bias=False), seeded(Small, seed=1)
    graph = base_without_norm(base), base_without_norm(donor)
    result = mal_graph.assemble(*graph, lam=0.5)
    made = mal_graph.to_module(result.graph).eval()
    with torch.no_grad():
        np.testing.assert_allclose(run(result.graph, image())[0], made(image()), rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="its class has no parameter: take the result of to_module"):
        mal_graph.state_dict(result.graph)


def base_without_norm(module):
    module.norm = nn.Identity()
    return mal_graph.trace(module, image())


class Wide(nn.Module):
    """Everything whose width a submodule holds."""

    def __init__(self, units=4, depthwise=False):
        super().__init__()
        self.first = nn.Conv2d(3, units, 3, padding=1)
        self.norm, self.slope = nn.BatchNorm2d(units), nn.PReLU(units)
        self.middle = nn.Conv2d(units, units, 3, padding=1, groups=units) if depthwise else nn.Identity()
        self.last = nn.Conv2d(units, 5, 1)

    def forward(self, x):
        return self.last(self.middle(self.slope(self.norm(self.first(x))))).mean((2, 3))


@pytest.mark.parametrize("options", [{}, {"depthwise": True}])
def test_a_widened_module_is_given_back_with_its_widths(options):
    base, donor = seeded(Wide, **options), seeded(Wide, 7, seed=1, **options)
    result = mal_graph.assemble(*(mal_graph.trace(m, image()) for m in (base, donor)), width="grow", lam=0.4)
    made = mal_graph.to_module(result.graph).eval()
    assert made.get_parameter("first.weight").shape[0] == 7
    assert made.get_submodule("norm").num_features == made.get_submodule("slope").num_parameters == 7
    with torch.no_grad():
        np.testing.assert_allclose(run(result.graph, image())[0], made(image()), rtol=1e-4, atol=1e-5)
        again = mal_graph.trace(made, image())
        np.testing.assert_allclose(run(again, image())[0], made(image()), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"first\.\w+ has shape .* take the result of to_module"):
        mal_graph.state_dict(result.graph)


def test_a_deepened_module_is_not_given_back():
    base, donor = (nn.Sequential(*layers).eval() for layers in (stack(5), stack(5, 5)))
    graphs = [mal_graph.trace(module, torch.randn(2, 4)) for module in (base, donor)]
    result = mal_graph.assemble(*graphs, depth="expand")
    with pytest.raises(ShapeError, match=r"its code has no place for relu.identity.*, which the merge put in; save"):
        mal_graph.to_module(result.graph)


def stack(*widths):
    sizes = (4, *widths)
    hidden = [part for a, b in zip(sizes, widths, strict=False) for part in (nn.Linear(a, b), nn.ReLU())]
    return [*hidden, nn.Linear(widths[-1], 3)]


# --- what is refused ---


class ByValue(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class OnMeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3, device="meta")

    def forward(self, x):
        return self.inner(x)


class Quantised(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.quantize_per_tensor(torch.randn(3, 3), 0.1, 0, torch.qint8))

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "inputs", "kind", "message"),
    [
        (ByValue, torch.randn(3), UnsupportedModel, r"both fail, with .*test_modules\.py:\d+; write that part"),
        (OnMeta, torch.randn(3, 3), UnsupportedModel, r"inner\.weight is on the meta device .* load the weights first"),
        (Quantised, torch.randn(3, 3), UnsupportedModel, "weight is quantised; merge the float module"),
        (lambda: nn.DataParallel(Small()), image(), UnsupportedModel, "DataParallel, .* trace model.module"),
        (lambda: 3, image(), UnsupportedModel, "cannot trace a int: give a torch.nn.Module"),
        (Small, torch.randn(2, 5, 8, 8), DataError, r"does not run on the example inputs \(\(2, 5, 8, 8\)\): .* give"),
        (Small, (), DataError, r"on the example inputs \(none\): TypeError"),
        (Small, {"y": image()}, DataError, "unexpected keyword"),
        (lambda: torch.jit.script(nn.Linear(3, 3)), torch.randn(2, 3), UnsupportedModel, "compiled to TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_cannot_be_traced_is_said(make, inputs, kind, message):
    made = make()
    with pytest.raises(kind, match=message):
        mal_graph.trace(made.eval() if isinstance(made, nn.Module) else made, inputs)


def test_a_module_is_not_a_file():
    with pytest.raises(FileError, match=r"cannot load a Small: .* or a torch module \(mal_graph\.trace\)"):
        mal_graph.load(Small())


def test_a_file_does_not_become_a_module(tmp_path):
    mal_graph.save(mal_graph.trace(seeded(Small), image()), tmp_path / "m.onnx")
    graph = mal_graph.load(tmp_path / "m.onnx")
    for back in (mal_graph.to_module, mal_graph.state_dict):
        with pytest.raises(UnsupportedModel, match="was not traced from a torch module: save it as an ONNX file"):
            back(graph)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.inner, self.factor = nn.Linear(4, 4), factor

    def forward(self, x):
        return self.inner(torch.relu(self.inner(x))) * self.factor


def test_a_number_in_the_code_that_a_merge_changed_goes_into_the_code_and_not_into_the_class():
    x = torch.randn(2, 4)
    graph = mal_graph.trace(seeded(Scaled, 0.5), x)
    name = next(name for name, w in graph.weights.items() if w.size == 1 and w.is_float)
    same = graph.with_weights({name: np.float32(0.5)})
    assert mal_graph.state_dict(same).keys() == {"inner.weight", "inner.bias"}
    other = graph.with_weights({name: np.float32(0.7)})
    with torch.no_grad():
        np.testing.assert_allclose(run(other, x)[0], mal_graph.to_module(other)(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedModel, match="a constant in the code of Scaled, which its state does not hold: take"):
        mal_graph.state_dict(other)


WITHOUT_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import mal_graph
try:
    mal_graph.trace(object(), None)
except mal_graph.MalGraphError as error:
    print(error)
"""


def test_without_torch_trace_says_how_to_get_it():
    found = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert "pip install 'mal-graph[torch]'" in found.stdout
