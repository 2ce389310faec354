"""Modules of wider graphs: the code gets the new numbers, and what it does with them is traced again and compared."""

from importlib import import_module

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from torch import nn
from torch.nn import functional

import mal_graph
from mal_graph import registry
from mal_graph.errors import ShapeError

call_numbers = import_module("mal_graph_adapters.pytorch.call_numbers")
difference = import_module("mal_graph_adapters.pytorch.graph_difference").difference
pytestmark = pytest.mark.torch


class Net(nn.Module):
    """Two layers, and between them code that holds the width `units`."""

    def __init__(self, between, units, part=None, *, first=1, image=False):
        super().__init__()
        layer = (lambda a, b: nn.Conv2d(a, b, 1)) if image else nn.Linear
        self.first, self.last = layer(5, first * units), layer(units, 3)
        self.between, self.units, self.part = between, units, None if part is None else part(units)

    def forward(self, x):
        return self.last(self.between(torch.relu(self.first(x)), self.units, self.part))


class Exported(Net):
    """The same, with Python that leaves it to torch.export alone."""

    def forward(self, x):
        if x.shape[1] != 5:
            raise ValueError("five features")
        return super().forward(x)


class Vector(nn.Module):
    """A parameter of its own."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(*shape) + 0.5)


def gated(cut):
    """Half of what comes in, times a gate that is the other half."""

    def between(x, u, part):
        a, gate = cut(x, u)
        return a * gate.tanh()

    return between


def both(parts):
    return parts[0], parts[1]


def grouped(x, u, part):
    x = functional.group_norm(x, u // 2)
    return functional.conv2d(x, part.weight, None, 1, 1, 1, u // 2)


def rms(x, u, part):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * part.weight


def applied(x, u, part):
    return part(x)


ROWS = {
    "heads by view": (lambda x, u, _: x.view(x.shape[0], u // 2, 2).softmax(-1).reshape(-1, u),),
    "heads by a tuple": (
        lambda x, u, _: x.view((x.size(0), u // 2, 2)).softmax(-1).reshape(x.size()[:1] + torch.Size([u])),
    ),
    "computed sizes": (lambda x, u, _: x.view(x.shape[0], u // 2, -1).softmax(-1).reshape(x.shape[0], (u // 2) * 2),),
    "literal width": (lambda x, u, _: torch.reshape(x, (-1, u)).expand(-1, u)[:, :u],),
    "unflatten": (
        lambda x, u, part: part(x).softmax(2).unflatten(dim=1, sizes=(u // 2, 1)).flatten(1),
        lambda u: nn.Unflatten(1, (u // 2, 2)),
    ),
    "expand": (lambda x, u, part: x * part.weight.expand(x.shape[0], u), Vector),
    "repeat": (lambda x, u, _: x.repeat(1, 2).view(x.shape[0], 2, u).sum(1),),
    "picked": (lambda x, u, _: x[:, list(range(u))[::-1]],),
    "constant": (lambda x, u, _: x + torch.full((u,), 0.3, dtype=x.dtype) + x.new_ones(u),),
    "sum over a width": (lambda x, u, _: x / (1 + x.sum(1, keepdim=True) / u),),
    "rms by hand": (rms, Vector),
    "rms by function": (lambda x, u, part: functional.rms_norm(x, (u,), part.weight), Vector),
    "rms by module": (applied, nn.RMSNorm),
}
GATED = {
    "chunk": gated(lambda x, u: both(x.chunk(2, -1))),
    "split": gated(lambda x, u: both(torch.split(x, u, dim=1))),
    "split by lengths": gated(lambda x, u: both(x.split([u, u], 1))),
    "tensor_split": gated(lambda x, u: both(x.tensor_split([u], dim=1))),
    "slices": gated(lambda x, u: (x[:, :u], x[..., u:])),
    "narrow": gated(lambda x, u: (x.narrow(1, 0, length=u), torch.narrow(x, 1, u, u))),
}
IMAGES = {
    "grouped by function": (grouped, lambda u: Vector(u, 2, 3, 3)),
    "grouped convolution": (applied, lambda u: nn.Conv2d(u, u, 3, padding=1, groups=u // 2)),
    "transposed": (applied, lambda u: nn.ConvTranspose2d(u, u, 3, padding=1, groups=u // 2)),
    "group norm": (applied, lambda u: nn.GroupNorm(u // 2, u)),
    "channel shuffle": (applied, lambda u: nn.Sequential(nn.GroupNorm(u // 2, u), nn.ChannelShuffle(u // 2))),
    "circular padding": (applied, lambda u: nn.Conv2d(u, u, 3, padding=1, padding_mode="circular")),
    "instance norm": (applied, nn.InstanceNorm2d),
    "group norm without weights": (applied, lambda u: nn.GroupNorm(u // 2, u, affine=False)),
    "layer norm of maps": (lambda x, u, _: functional.layer_norm(x, (6, 6)).view(-1, u, 36).view(-1, u, 6, 6),),
    "broadcast": (
        lambda x, u, part: x + part.weight.expand(u, 6, 6).broadcast_to(2, u, 6, 6)[0],
        lambda u: Vector(u, 1, 1),
    ),
}
CASES = {
    **{name: (spec, {}) for name, spec in ROWS.items()},
    **{name: ((between,), {"first": 2}) for name, between in GATED.items()},
    **{name: (spec, {"image": True}) for name, spec in IMAGES.items()},
    "pixel shuffle": ((lambda x, u, part: part(x), lambda u: nn.PixelShuffle(2)), {"image": True, "first": 4}),
}


def seeded(make, seed):
    torch.manual_seed(seed)
    module = make().eval()
    for tensor in module.parameters():
        tensor.data.add_(0.1 * torch.rand_like(tensor))
    return module


def net(case, units, seed, form=Net):
    (between, *part), options = CASES[case]
    return seeded(lambda: form(between, units, *part, **options), seed)


def example(case="", samples=4):
    shape = (samples, 5, 6, 6) if CASES.get(case, ((), {}))[1].get("image") else (samples, 5)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def run(graph, *inputs):
    fed = {value.name: x.numpy() for value, x in zip(graph.inputs, inputs, strict=True)}
    return torch.tensor(next(iter(registry.runner("onnxruntime").open(graph).run(fed).values())))


def traced(base, donor, inputs):
    return [mal_graph.trace(module, inputs) for module in (base, donor)]


def grown(graphs, lam):
    """The merge of two graphs, the base grown."""
    result = mal_graph.assemble(*graphs, lam=lam, width="grow", verify=False, assume_ordered=True)
    assert result.merged[0].plan.growth.added, result.merged[0].plan.growth
    return result.graph


def merged(base, donor, lam, inputs):
    return grown(traced(base, donor, inputs), lam)


def far(found, expected):
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("form", [Net, Exported])
@pytest.mark.parametrize("case", CASES)
def test_the_code_of_a_widened_module_follows(case, form, tmp_path):
    base, donor, x = net(case, 6, 0, form), net(case, 10, 1, form), example(case)
    graphs = traced(base, donor, x)
    made = mal_graph.to_module(grown(graphs, 0.0))
    with torch.no_grad():
        assert far(made(x), base(x)) <= 1e-5
    graph = grown(graphs, 0.4)
    made = mal_graph.to_module(graph)
    mal_graph.save(graph, tmp_path / "grown.onnx")
    for samples in (example(case), example(case, 3)):
        assert far(made(samples), run(mal_graph.load(tmp_path / "grown.onnx"), samples)) <= 1e-5
    assert made.get_parameter("last.weight").shape == donor.last.weight.shape
    assert ("torch.ops.aten" in made.code) == (form is Exported)
    trained(made, x)


def trained(module, x):
    """One step against the module's own outputs halved, which must come closer."""
    goal = module(x).detach() / 2
    before = (module(x) - goal).pow(2).sum()
    before.backward()
    slopes = [p.grad.pow(2).sum() for p in module.parameters()]
    torch.optim.SGD(module.parameters(), lr=float(1e-2 * before.detach() / sum(slopes))).step()
    assert (module(x) - goal).pow(2).sum() < before


class Normed(nn.Module):
    """A LayerNorm of what a layer gives, as a submodule or as a function."""

    def __init__(self, units, by_function):
        super().__init__()
        self.first, self.last = nn.Linear(5, units), nn.Linear(units, 3)
        self.norm, self.by_function = nn.LayerNorm(units, eps=1e-3), by_function

    def forward(self, x):
        x = self.first(x)
        if self.by_function:
            x = functional.layer_norm(x, (self.norm.weight.shape[0],), self.norm.weight, self.norm.bias, 1e-3)
        else:
            x = self.norm(x)
        return self.last(x)


@pytest.mark.parametrize("by_function", [False, True])
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_the_epsilon_of_a_norm_follows_the_width(by_function, lam, tmp_path):
    base, donor = (seeded(lambda u=u: Normed(u, by_function), seed) for seed, u in enumerate((6, 10)))
    graph = merged(base, donor, lam, example())
    made = mal_graph.to_module(graph)
    mal_graph.save(graph, tmp_path / "grown.onnx")
    assert far(made(example()), run(mal_graph.load(tmp_path / "grown.onnx"), example())) <= 1e-5
    if lam == 0.0:
        assert far(made(example()), base(example())) <= 1e-5
    assert f"{1e-3 * (0.6 + 0.4 * lam):.4g}" in (made.code if by_function else f"{made.norm.eps:.4g}")


# --- what the code looks like ---


def code(between, units=6, to=10, x=None, form=Net, **options):
    """The code of a module that was widened from one number of units to another."""
    x = example() if x is None else x
    base, donor = (seeded(lambda u=u: form(between, u, **options), seed) for seed, u in enumerate((units, to)))
    return mal_graph.to_module(merged(base, donor, 0.4, x)).code


def test_numbers_stand_where_they_stood():
    found = code(lambda x, u, _: x.view(x.shape[0], u // 2, 2).softmax(-1).reshape(-1, u))
    assert ".view(getitem, 5, 2)" in found
    assert ".reshape(-1, 10)" in found


def test_a_number_that_is_no_width_stays_though_it_is_equal():
    """The width is 6 at first, as is the second axis of the view."""
    found = code(lambda x, u, _: x.repeat_interleave(6, 1).view(x.shape[0], u, 6).mean(2))
    assert ".repeat_interleave(6, 1)" in found
    assert ".view(getitem, 10, 6)" in found


def test_sizes_that_follow_by_themselves_stay():
    found = code(lambda x, u, _: x.view(x.shape[0], -1, 2).softmax(-1).reshape(x.shape[0], x.size(1)))
    assert ".view(getitem, -1, 2)" in found
    assert "size = relu.size(1)" in found


def test_a_computed_size_that_does_not_follow_becomes_a_number():
    def between(x, u, part):
        heads = x.view(x.shape[0], u // 2, 2).softmax(-1)
        return heads.reshape(x.shape[0], heads.size(2) * (u // 2))

    found = code(between)
    assert ".reshape(getitem_1, 10)" in found
    assert "*" not in found


class Two(nn.Module):
    """Two parts of a layer's units, each with a reader of its own."""

    def __init__(self, cut, a, b):
        super().__init__()
        self.first, self.a, self.b = nn.Linear(5, a + b), nn.Linear(a, 3), nn.Linear(b, 3)
        self.cut, self.sizes = cut, (a, b)

    def forward(self, x):
        a, b = self.cut(torch.relu(self.first(x)), *self.sizes)
        return self.a(a) + self.b(b.tanh())


class ExportedTwo(Two):
    def forward(self, x):
        if x.shape[1] != 5:
            raise ValueError("five features")
        return super().forward(x)


class Indexed(Two):
    """The parts by stored indices."""

    def __init__(self, cut, a, b):
        super().__init__(cut, a, b)
        self.register_buffer("low", torch.arange(a))
        self.register_buffer("high", torch.arange(b) + a)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.a(x.index_select(1, self.low)) + self.b(x[:, self.high].tanh())


CUTS = {
    "lengths": (lambda x, a, b: both(x.split([a, b], dim=1)), "split([10, 6], 1)"),
    "function": (lambda x, a, b: both(torch.split(x, [a, b], 1)), "split(relu, [10, 6], 1)"),
    "length": (lambda x, a, b: both(torch.split(x, 6 if a == b else [a, b], 1)), "split(relu, 10, 1)"),
    "chunk": (lambda x, a, b: both(x.chunk(2, 1) if a == b else x.split([a, b], 1)), "split([10, 6], 1)"),
    "torch.chunk": (lambda x, a, b: both(torch.chunk(x, 2, 1) if a == b else x.split([a, b], 1)), "[10, 6], 1)"),
    "cuts": (lambda x, a, b: both(x.tensor_split([a], dim=1)), "tensor_split((10,), dim = 1)"),
    "slices": (lambda x, a, b: (x[:, :a], x[..., a:]), "slice(10, 16, None)"),
    "from the end": (lambda x, a, b: (x[:, :-b], x[:, -b:]), "slice(10, 16, None)"),
    "one of an axis": (lambda x, a, b: (x[:, None][:, 0, :a], x[:, None][:, -1, a : a + b]), "slice(10, 16, None)"),
    "narrow": (lambda x, a, b: (x.narrow(1, 0, a), x.narrow(1, a, b)), "narrow(1, 10, 6)"),
}


@pytest.mark.parametrize("form", [Two, ExportedTwo])
@pytest.mark.parametrize("name", CUTS)
def test_parts_of_other_lengths_are_cut_anew(name, form):
    cut, expected = CUTS[name]
    base, donor = seeded(lambda: form(cut, 6, 6), 0), seeded(lambda: form(cut, 10, 6), 1)
    graph = merged(base, donor, 0.4, example())
    made = mal_graph.to_module(graph)
    assert far(made(example()), run(graph, example())) <= 1e-5
    assert form is ExportedTwo or expected in made.code


def test_indices_in_a_buffer_follow():
    base, donor = seeded(lambda: Indexed(None, 6, 4), 0), seeded(lambda: Indexed(None, 10, 4), 1)
    graph = merged(base, donor, 0.4, example())
    made = mal_graph.to_module(graph)
    assert far(made(example()), run(graph, example())) <= 1e-5
    assert made.get_buffer("low").tolist() == list(range(10))
    assert made.get_buffer("high").tolist() == [10, 11, 12, 13]


def test_submodules_say_their_widths():
    def parts(units):
        return nn.Sequential(nn.Conv2d(units, units, 3, padding=1, groups=units // 2), nn.GroupNorm(units // 2, units))

    base, donor = (seeded(lambda u=u: Net(applied, u, parts, image=True), seed) for seed, u in enumerate((6, 10)))
    made = mal_graph.to_module(merged(base, donor, 0.4, example("group norm")))
    conv, norm = made.get_submodule("part.0"), made.get_submodule("part.1")
    assert (conv.in_channels, conv.out_channels, conv.groups) == (10, 10, 5)
    assert (norm.num_channels, norm.num_groups) == (10, 5)
    assert made.get_submodule("last").in_channels == 10
    base, donor = (net("group norm without weights", units, seed) for seed, units in enumerate((6, 10)))
    norm = mal_graph.to_module(merged(base, donor, 0.4, example("group norm"))).get_submodule("part")
    assert (norm.num_channels, norm.num_groups) == (10, 5)


def test_a_larger_window_is_given_to_the_submodule():
    class Windowed(nn.Module):
        def __init__(self, units, kernel):
            super().__init__()
            self.first, self.last = nn.Conv2d(5, units, kernel, padding=kernel // 2), nn.Conv2d(units, 3, 1)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    base, donor = seeded(lambda: Windowed(6, 3), 0), seeded(lambda: Windowed(10, 5), 1)
    x = example("group norm")
    graph = merged(base, donor, 0.4, x)
    made = mal_graph.to_module(graph)
    assert made.get_submodule("first").kernel_size == (5, 5)
    assert made.get_submodule("first").padding == (2, 2)
    assert far(made(x), run(graph, x)) <= 1e-5


def test_every_donor_may_widen_the_base_and_its_averages():
    graphs = [mal_graph.trace(net("rms by module", u, u), example()) for u in (6, 8, 11)]
    result = mal_graph.assemble(graphs[0], graphs[1:], lam=0.4, width="grow", verify=False, assume_ordered=True)
    made = mal_graph.to_module(result.graph)
    assert made.get_parameter("last.weight").shape == (3, 11)
    assert far(made(example()), run(result.graph, example())) <= 1e-5


# --- attention, keyword inputs, modes ---


class Attention(nn.Module):
    """Heads as they are written in most libraries: sizes unpacked, which torch.fx cannot follow."""

    def __init__(self, heads, width=4):
        super().__init__()
        self.heads, self.width = heads, width
        self.query, self.key, self.value = (nn.Linear(5, heads * width) for _ in range(3))
        self.out = nn.Linear(heads * width, 5)

    def forward(self, hidden, mask=None):
        batch, length, _ = hidden.shape
        query, key, value = (
            part(hidden).view(batch, length, self.heads, self.width).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).contiguous().view(batch, length, -1))


class Encoder(nn.Module):
    """An embedding, a block and a head, called by keyword."""

    def __init__(self, heads, inner):
        super().__init__()
        self.table, self.attention = nn.Embedding(11, 5), Attention(heads)
        self.up, self.down, self.head = nn.Linear(5, inner), nn.Linear(inner, 5), nn.Linear(5, 3)

    def forward(self, *, ids, mask=None, labels=None):
        hidden = self.table(ids)
        if mask is not None:
            mask = mask[:, None, None, :].bool()
        hidden = hidden + self.attention(hidden, mask)
        return {"logits": self.head(hidden + self.down(functional.silu(self.up(hidden))))[:, 0]}


@pytest.mark.slow
@pytest.mark.parametrize("with_mask", [True, False])
def test_a_module_that_torch_export_alone_traces_is_called_by_keyword_still(with_mask):
    ids = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(1))
    inputs = {"ids": ids, **({"mask": torch.ones(2, 7, dtype=torch.int64)} if with_mask else {})}
    base, donor = seeded(lambda: Encoder(2, 6), 0), seeded(lambda: Encoder(3, 9), 1)
    graphs = traced(base, donor, inputs)
    with torch.no_grad():
        made = mal_graph.to_module(grown(graphs, 0.0))
        assert far(made(**inputs)["logits"], base(**inputs)["logits"]) <= 1e-5
    graph = grown(graphs, 0.4)
    made = mal_graph.to_module(graph)
    assert made.get_parameter("attention.query.weight").shape == (12, 5)
    assert far(made(**inputs)["logits"], run(graph, *inputs.values())) <= 1e-5


def test_attention_to_a_donor_of_wider_heads_says_what_it_multiplies_by():
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
    graphs = [mal_graph.trace(seeded(lambda w=width: Attention(2, w), width), x) for width in (4, 6)]
    graph = mal_graph.assemble(*graphs, lam=0.5, verify=False, assume_ordered=True).graph
    made = mal_graph.to_module(graph)
    assert f"scale = {(4**-0.5 + 6**-0.5) / 2:.6f}" in made.code
    assert far(made(x), run(graph, x)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["module", "exported"])
def test_heads_of_torchs_own_attention_follow(form):
    class Attending(nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.first, self.last = nn.Linear(5, 4 * heads), nn.Linear(4 * heads, 3)
            self.attention = nn.MultiheadAttention(4 * heads, heads, batch_first=True)

        def forward(self, x):
            if form == "exported" and x.shape[1] != 7:
                raise ValueError("seven places")
            x = self.first(x)
            return self.last(self.attention(x, x, x, need_weights=False)[0])

    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
    graph = merged(seeded(lambda: Attending(2), 0), seeded(lambda: Attending(3), 1), 0.4, x)
    made = mal_graph.to_module(graph)
    assert far(made(x), run(graph, x)) <= 1e-5
    part = made.get_submodule("attention")
    assert form == "exported" or (part.num_heads, part.embed_dim, part.head_dim) == (3, 12, 4)
    trained(made, x)


@pytest.mark.parametrize("form", [lambda m: torch.fx.symbolic_trace(m), lambda m: torch.export.export(m, (example(),))])
def test_graph_modules_and_programs_of_fixed_shapes_grow_too(form):
    graph = merged(*(form(net("heads by view", units, units)) for units in (6, 10)), 0.4, example())
    assert far(mal_graph.to_module(graph)(example()), run(graph, example())) <= 1e-5


class Kept(nn.Module):
    """A tied layer, dropout, BatchNorm and a view."""

    def __init__(self, units):
        super().__init__()
        self.first, self.last = nn.Linear(5, units), nn.Linear(units, 5)
        self.again, self.norm, self.drop = nn.Linear(5, units), nn.BatchNorm1d(units), nn.Dropout(0.5)
        self.again.weight, self.units = self.first.weight, units

    def forward(self, x):
        x = self.last(self.drop(self.norm(torch.relu(self.first(x)).view(-1, self.units))))
        return self.last(torch.relu(self.again(x)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_modes_types_ties_and_what_is_frozen_are_kept(dtype):
    base, donor = seeded(lambda: Kept(6).to(dtype), 0), seeded(lambda: Kept(10).to(dtype), 1)
    base.first.weight.requires_grad_(False)
    base.train()
    base.norm.eval()
    means = base.norm.running_mean.clone()
    made = mal_graph.to_module(merged(base, donor, 0.4, example().to(dtype)))
    assert {p.dtype for p in made.parameters()} == {dtype}
    assert made.drop.training
    assert not made.norm.training
    assert made.first.weight is made.again.weight
    assert not made.first.weight.requires_grad
    assert made.first.bias.requires_grad
    assert made.norm.running_mean.shape == (10,)
    assert torch.equal(base.norm.running_mean, means)
    assert base.drop.training


def test_what_was_traced_is_not_touched():
    base, donor = torch.fx.symbolic_trace(net("heads by view", 6, 0)), net("heads by view", 10, 1)
    before, noted = base.code, [dict(node.meta) for node in base.graph.nodes]
    mal_graph.to_module(merged(base, donor, 0.4, example()))
    assert base.code == before
    assert [dict(node.meta) for node in base.graph.nodes] == noted
    assert base.first.weight.shape == (6, 5)


# --- the verification ---


@pytest.mark.parametrize(
    ("case", "call", "wrong"),
    [
        ("heads by view", "view", lambda call: [None, 2, 5]),
        ("narrow", "narrow", lambda call: 5),
        ("grouped by function", "group_norm", lambda call: 2),
    ],
)
def test_a_wrong_number_is_found_out(case, call, wrong, monkeypatch):
    """The mutation: code that runs and computes something else."""
    graph = merged(net(case, 6, 0), net(case, 10, 1), 0.4, example(case))
    right = call_numbers.CALLS[call][0]
    mutant = call_numbers.Argument(right.place, right.names, wrong, right.default, right.spread)
    monkeypatch.setitem(call_numbers.CALLS, call, (mutant, *call_numbers.CALLS[call][1:]))
    with pytest.raises(ShapeError, match=r"with new numbers in its code, \S+ reads|with new numbers .* num_groups of"):
        mal_graph.to_module(graph)
    monkeypatch.setattr("mal_graph_adapters.pytorch.giving_back.difference", lambda *graphs: "")
    assert far(mal_graph.to_module(graph)(example(case)), run(graph, example(case))) > 1e-3


def test_a_call_that_the_table_forgets_is_refused(monkeypatch):
    graph = merged(net("heads by view", 6, 0), net("heads by view", 10, 1), 0.4, example())
    monkeypatch.delitem(call_numbers.CALLS, "view")
    with pytest.raises(ShapeError, match="view in its code does not follow a width: RuntimeError: shape"):
        mal_graph.to_module(graph)


def test_graphs_are_equal_up_to_names_and_nothing_else():
    x = example("grouped by function")
    graph, twin = (mal_graph.trace(net("grouped by function", 6, 0), x) for _ in range(2))
    assert difference(graph, twin) == ""
    other = twin.with_weights({"last.bias": twin.weights["last.bias"].read() + 1})
    assert difference(graph, other).startswith("last/Conv reads last.bias [")
    index = next(i for i, node in enumerate(twin.nodes) if node.op == "GroupNormalization")
    assert difference(graph, twin.with_node(index, twin.nodes[index + 1])) == "/GroupNormalization is Conv"
    other = mal_graph.trace(net("grouped by function", 4, 0), x)
    assert "of shape [4, 5, 1, 1] instead of first.weight of shape [6, 5, 1, 1]" in difference(graph, other)


# --- what is refused ---


@torch.fx.wrap
def opaque(x, heads):
    """A function that torch.fx does not look into."""
    return (
        x.view(x.shape[0], 3, 2).softmax(-1).flatten(1)
        if heads == 3
        else x.view(x.shape[0], 5, 2).softmax(-1).flatten(1)
    )


def test_a_width_in_a_function_that_is_not_traced_is_refused():
    with pytest.raises(
        ShapeError, match=r"back as a module: opaque in its code does not follow .*; save it as an ONNX"
    ):
        code(lambda x, u, _: opaque(x, u // 2))


def without_bias(form):
    base = net("heads by view", 6, 0, form)
    base.first.bias = None
    return merged(base, net("heads by view", 10, 1, form), 0.4, example())


def test_a_bias_that_the_donor_brings_is_as_wide_and_code_of_torch_export_has_no_place_for_it():
    graph = without_bias(Net)
    made = mal_graph.to_module(graph)
    assert made.first.bias.shape == (10,)
    assert far(made(example()), run(graph, example())) <= 1e-5
    with pytest.raises(ShapeError, match=r"was given the bias 'linear\.bias', for which first has no parameter: save"):
        mal_graph.to_module(without_bias(Exported))


def test_the_class_is_not_given_other_widths():
    graph = merged(net("heads by view", 6, 0), net("heads by view", 10, 1), 0.4, example())
    with pytest.raises(ShapeError, match=r"first\.\w+ has shape .* take the result of to_module"):
        mal_graph.state_dict(graph)
