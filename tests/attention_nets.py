"""Small networks around one attention, with the operator that holds it whole or written out."""

from dataclasses import dataclass

import numpy as np
import onnx
from builders import Net
from onnx import numpy_helper

from mal_graph.symmetry.moves import derangement

MICROSOFT = "com.microsoft"
BATCH, STEPS, FEATURES = 2, 5, 8
LOW = np.float32(-1e30)


@dataclass(frozen=True)
class Kind:
    """What attention it is.

    Attributes:
        op: the operator that holds it whole.
        heads, shared: of queries, and of keys and values.
        size, width: units in each head of queries and keys, and of values.
        is_split: heads have an axis of their own.
        is_packed: queries, keys and values lie in one tensor.
        normed: queries and keys are under a norm of head size; heads have an axis of their own then.
        mask: "stored" for all heads, "learned" by head, "boolean", or "" for none.
        turned: how many units of each head are turned by tables, 0 for none.
        rotary: the operator that turns them: "" for ai.onnx, the domain of onnxruntime, or "inside".
        lengths: whether samples differ in how many keys count.
        settings: attributes of the operator.
    """

    op: str = "Attention"
    heads: int = 3
    shared: int = 3
    size: int = 4
    width: int = 4
    is_split: bool = False
    is_packed: bool = False
    normed: bool = False
    bias: bool = False
    mask: str = ""
    past: bool = False
    told: bool = False
    turned: int = 0
    interleaved: bool = False
    rotary: str = ""
    sinks: bool = False
    scale: float | None = None
    is_causal: bool = False
    softcap: float = 0.0
    lengths: bool = False
    opset: int = 23

    @property
    def batch(self) -> int:
        """How many samples; onnxruntime lets several new places follow a past for one only."""
        return 1 if self.past and self.op == "GroupQueryAttention" else BATCH

    @property
    def name(self) -> str:
        usual = Kind(self.op, self.heads, self.shared)
        told = [
            f"{key}={value}"
            for key, value in vars(self).items()
            if key not in ("op", "heads", "shared") and value != getattr(usual, key)
        ]
        return " ".join([self.op, f"{self.heads}/{self.shared}", *told])


def attention_net(kind: Kind, form: str = "whole", seed: int = 0):
    """The network, as a message.

    `form`: "whole", "written out" with keys repeated for all heads that share them, or "in groups", where heads that
    share one lie on an axis of their own.
    """
    net = Net(seed, opset=kind.opset)
    x = net.input("x", (kind.batch, STEPS, FEATURES))
    widths = [kind.heads * kind.size, kind.shared * kind.size, kind.shared * kind.width]
    ins = [net.weight(FEATURES, width, name=name, scale=0.6) for name, width in zip("qkv", widths, strict=True)]
    inputs = [net.op("MatMul", x, weight) for weight in ins]
    bias = net.weight(sum(widths), name="b", scale=0.5) if kind.bias else ""
    extra = extras(net, kind)
    build = whole if form == "whole" else written_out
    y, *told = build(net, kind, inputs, bias, extra, *([] if form == "whole" else [form]))
    out = net.op("MatMul", y, net.weight(kind.heads * kind.width, 3, name="o"))
    return net.proto(out, *told)


def extras(net: Net, kind: Kind) -> dict[str, str]:
    """What the attention reads beside queries, keys and values, by what it is."""
    made: dict[str, str] = {}
    length = STEPS + (3 if kind.past else 0)
    if kind.mask == "stored":
        values = np.where(np.tri(STEPS, length, 2) > 0, np.float32(0), LOW)
        made["mask"] = net.constant(values.reshape(1, 1, STEPS, length), "mask")
    elif kind.mask == "boolean":
        made["mask"] = net.constant(np.tri(STEPS, length, 2) > 0, "mask")
    elif kind.mask == "learned":
        made["mask"] = net.weight(1, kind.heads, STEPS, length, name="mask", scale=0.5)
    if kind.past:
        for name, units in (("past_key", kind.size), ("past_value", kind.width)):
            made[name] = net.input(name, (kind.batch, kind.shared, 3, units))
    if kind.turned:
        angles = np.outer(np.arange(STEPS), 0.7 ** np.arange(kind.turned // 2)).astype(np.float32)
        made["cos"], made["sin"] = net.constant(np.cos(angles), "cos"), net.constant(np.sin(angles), "sin")
        made["places"] = net.constant(np.tile(np.arange(STEPS), (BATCH, 1)), "places")
    if kind.lengths:
        made["lengths"] = net.constant(np.array([3, 5]))
    if kind.sinks:
        made["sink"] = net.weight(kind.heads, name="sink", scale=1.0)
    if kind.normed:
        made |= {name: net.weight(kind.size, name=name, scale=1.0) for name in ("qn", "kn")}
    return made


# --- the operator ---------------------------------------------------------------------------------------------------


def whole(net, kind, inputs, bias, extra):
    counts = (kind.heads, kind.shared, kind.shared)
    if kind.normed:
        inputs = [split_heads(net, x, n) for x, n in zip(inputs, counts, strict=True)]
        inputs = [*normed_heads(net, inputs[:2], extra), inputs[2]]
    if kind.turned and kind.rotary != "inside":
        inputs = [*[turned_by(net, kind, x, n, extra) for x, n in zip(inputs[:2], counts, strict=False)], inputs[2]]
    if kind.is_split and not kind.normed:
        first = 1 if kind.op == "MultiHeadAttention" else 0  # its queries come flat, and so does what it gives
        apart = [split_heads(net, x, n) for x, n in zip(inputs[first:], counts[first:], strict=True)]
        inputs = [*inputs[:first], *apart]
    outputs = 3 if kind.told else 1
    y = ATTEND[kind.op](net, kind, inputs, bias, extra, outputs)
    y, *told = [y] if outputs == 1 else y
    is_flat = not kind.is_split or kind.op == "MultiHeadAttention"
    return (y if is_flat else merged_heads(net, y, kind.heads * kind.width)), *told


def normed_heads(net, queries_and_keys, extra):
    """Both over the root of their mean square in each head, times what is learned for all heads."""
    return [
        net.op("RMSNormalization", x, extra[name], axis=-1)
        for x, name in zip(queries_and_keys, ("qn", "kn"), strict=True)
    ]


def turned_by(net, kind, x, heads, extra):
    attributes = {"num_heads": heads, "interleaved": int(kind.interleaved)}
    if kind.turned < kind.size:
        attributes["rotary_embedding_dim"] = kind.turned
    tables = [extra["cos"], extra["sin"]]
    order = [extra["places"], *tables] if kind.rotary == MICROSOFT else [*tables, extra["places"]]
    return net.op("RotaryEmbedding", x, *order, domain=kind.rotary, **attributes)


def standard(net, kind, inputs, bias, extra, outputs):
    counts = {} if kind.is_split else {"q_num_heads": kind.heads, "kv_num_heads": kind.shared}
    beside = [extra.get(name, "") for name in ("mask", "past_key", "past_value", "lengths")]
    while beside and not beside[-1]:
        beside.pop()
    attributes = {"scale": kind.scale, "is_causal": int(kind.is_causal), "softcap": kind.softcap, **counts}
    return net.op("Attention", *inputs, *beside, outputs=outputs, **attributes)


def multi_head(net, kind, inputs, bias, extra, outputs):
    beside = [bias, "", extra.get("mask", ""), extra.get("past_key", ""), extra.get("past_value", "")]
    attributes = {"num_heads": kind.heads, "scale": kind.scale, "unidirectional": int(kind.is_causal)}
    return net.op("MultiHeadAttention", *inputs, *beside, outputs=outputs, domain=MICROSOFT, **attributes)


def group_query(net, kind, inputs, bias, extra, outputs):
    if kind.is_packed:
        inputs = [net.op("Concat", *inputs, axis=2), "", ""]
    past = [extra.get(name, "") for name in ("past_key", "past_value")]
    length = STEPS + (3 if kind.past else 0)
    seqlens = net.constant(np.full(kind.batch, length - 1, np.int32))
    total = net.constant(np.array(length, np.int32))
    tables = [extra[name] for name in ("cos", "sin")] if kind.rotary == "inside" else ["", ""]
    beside = [extra.get("mask", ""), extra.get("sink", "")]
    attributes = {"num_heads": kind.heads, "kv_num_heads": kind.shared, "scale": kind.scale, "softcap": kind.softcap}
    if kind.rotary == "inside":
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(kind.interleaved)}
    given = [*inputs, *past, seqlens, total, *tables, "", *beside]
    while not given[-1]:
        given.pop()
    made = net.op("GroupQueryAttention", *given, outputs=3, domain=MICROSOFT, **attributes)
    return made if outputs == 3 else made[0]


ATTEND = {"Attention": standard, "MultiHeadAttention": multi_head, "GroupQueryAttention": group_query}


# --- written out ----------------------------------------------------------------------------------------------------


def split_heads(net, x, heads):
    return net.op("Transpose", net.op("Reshape", x, net.constant([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def merged_heads(net, x, width):
    return net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1, 3]), net.constant([0, 0, width]))


def written_out(net, kind, inputs, bias, extra, form):
    counts = (kind.heads, kind.shared, kind.shared)
    if kind.bias:
        sizes = [kind.heads * kind.size, kind.shared * kind.size, kind.shared * kind.width]
        biases = net.op("Split", bias, net.constant(sizes), outputs=3, axis=0)
        inputs = [net.op("Add", x, b) for x, b in zip(inputs, biases, strict=True)]
    q, k, v = (split_heads(net, x, n) for x, n in zip(inputs, counts, strict=True))
    if kind.normed:
        q, k = normed_heads(net, (q, k), extra)
    if kind.turned:
        q, k = (turned_out(net, kind, x, extra) for x in (q, k))
    if kind.past:
        k, v = (net.op("Concat", extra[name], x, axis=2) for name, x in (("past_key", k), ("past_value", v)))
    told = [k, v] if kind.told else []
    together = in_groups if form == "in groups" else repeated
    y = together(net, kind, q, k, v, extra)
    return merged_heads(net, y, kind.heads * kind.width), *told


def turned_out(net, kind, x, extra):
    parts = [kind.turned, kind.size - kind.turned]
    rest = ""
    if parts[1]:
        x, rest = net.op("Split", x, net.constant(parts), outputs=2, axis=3)
    if kind.interleaved:
        pairs = net.op("Reshape", x, net.constant([0, 0, 0, kind.turned // 2, 2]))
        one, two = (net.op("Gather", pairs, net.constant(place), axis=4) for place in (0, 1))
    else:
        one, two = net.op("Split", x, outputs=2, axis=3, num_outputs=2)
    cos, sin = extra["cos"], extra["sin"]
    real = net.op("Sub", net.op("Mul", one, cos), net.op("Mul", two, sin))
    imaginary = net.op("Add", net.op("Mul", one, sin), net.op("Mul", two, cos))
    if kind.interleaved:
        real, imaginary = (net.op("Unsqueeze", part, net.constant([4])) for part in (real, imaginary))
        y = net.op("Concat", real, imaginary, axis=4)
        y = net.op("Reshape", y, net.constant([0, 0, 0, kind.turned]))
    else:
        y = net.op("Concat", real, imaginary, axis=3)
    return net.op("Concat", y, rest, axis=3) if rest else y


def repeated(net, kind, q, k, v, extra):
    times = kind.heads // kind.shared
    if times > 1:
        k, v = (repeat(net, x, kind, times, units) for x, units in ((k, kind.size), (v, kind.width)))
    shares = shares_of(net, kind, net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), extra)
    return net.op("MatMul", shares, v)


def repeat(net, x, kind, times, units):
    x = net.op("Unsqueeze", x, net.constant([2]))
    x = net.op("Expand", x, net.constant([1, 1, times, 1, 1]))
    return net.op("Reshape", x, net.constant([0, kind.heads, -1, units]))


def in_groups(net, kind, q, k, v, extra):
    times = kind.heads // kind.shared
    q = net.op("Reshape", q, net.constant([0, kind.shared, times, STEPS, kind.size]))
    k, v = (net.op("Unsqueeze", x, net.constant([2])) for x in (k, v))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
    length = STEPS + (3 if kind.past else 0)
    shares = shares_of(net, kind, net.op("Reshape", scores, net.constant([0, kind.heads, STEPS, length])), extra)
    shares = net.op("Reshape", shares, net.constant([0, kind.shared, times, STEPS, length]))
    return net.op("Reshape", net.op("MatMul", shares, v), net.constant([0, kind.heads, STEPS, kind.width]))


def shares_of(net, kind, scores, extra):
    scale = kind.size**-0.5 if kind.scale is None else kind.scale
    scores = net.op("Mul", scores, net.constant(np.float32(scale)))
    if kind.softcap:
        capped = net.op("Tanh", net.op("Div", scores, net.constant(np.float32(kind.softcap))))
        scores = net.op("Mul", capped, net.constant(np.float32(kind.softcap)))
    length = STEPS + (3 if kind.past else 0)
    if kind.is_causal or kind.op == "GroupQueryAttention":
        ahead = np.where(np.tri(STEPS, length, length - STEPS) > 0, np.float32(0), LOW)
        scores = net.op("Add", scores, net.constant(ahead))
    if kind.lengths:
        counted = np.arange(STEPS)[None, :] < np.array([[3], [5]])
        scores = net.op("Where", net.constant(counted.reshape(2, 1, 1, STEPS)), scores, net.constant(LOW))
    if kind.mask == "boolean":
        scores = net.op("Where", extra["mask"], scores, net.constant(LOW))
    elif kind.mask:
        scores = net.op("Add", scores, extra["mask"])
    if not kind.sinks:
        return net.op("Softmax", scores, axis=-1)
    sink = net.op("Reshape", extra["sink"], net.constant([1, kind.heads, 1, 1]))
    sink = net.op("Expand", sink, net.constant([kind.batch, 1, STEPS, 1]))
    shares = net.op("Softmax", net.op("Concat", scores, sink, axis=3), axis=-1)
    return net.op("Slice", shares, net.constant([0]), net.constant([length]), net.constant([3]))


# --- by hand --------------------------------------------------------------------------------------------------------

Places = dict[tuple[str, int], np.ndarray]  # by tensor and axis, (shared heads, heads that share one, units)


def places_of(kind: Kind) -> tuple[Places, Places, Places]:
    """Where the units of queries and keys, those of values, and the heads themselves lie; keys and values are there
    once for all heads that share them, and tensors that hold one number for each head have one unit in each."""
    times = kind.heads // kind.shared
    q = np.arange(kind.heads * kind.size).reshape(kind.shared, times, kind.size)
    k = np.arange(kind.shared * kind.size).reshape(kind.shared, 1, kind.size)
    v = np.arange(kind.shared * kind.width).reshape(kind.shared, 1, kind.width)
    o = np.arange(kind.heads * kind.width).reshape(kind.shared, times, kind.width)
    heads = np.arange(kind.heads).reshape(kind.shared, times, 1)
    met: Places = {("q", 1): q, ("k", 1): k}
    weighted: Places = {("v", 1): v, ("o", 0): o}
    if kind.bias:
        met |= {("b", 0): np.concatenate([q, k + q.size], axis=1)}
        weighted |= {("b", 0): v + q.size + k.size}
    beside: Places = {("mask", 1): heads} if kind.mask == "learned" else {}
    return met, weighted, beside | ({("sink", 0): heads} if kind.sinks else {})


def permuted_by_hand(kind: Kind, proto, seed: int, *, inside: bool = True):
    """A copy of a network with its heads in another order; those that share one, and the units in each, too, if
    `inside`."""
    rng = np.random.default_rng(seed)
    times = kind.heads // kind.shared
    outer = derangement(rng.permutation(kind.shared))
    order = rng.permutation if inside else np.arange
    inner = [order(times) for _ in outer]
    kept = np.arange(kind.turned)
    orders = [
        [np.concatenate([kept, kind.turned + order(kind.size - kind.turned)]) for _ in outer],
        [order(kind.width) for _ in outer],
        [np.zeros(1, int) for _ in outer],
    ]
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    for units, held in zip(orders, places_of(kind), strict=True):
        for (name, axis), places in held.items():
            values = numpy_helper.to_array(stored[name])
            index = np.arange(values.shape[axis])
            for new, old in enumerate(outer):
                rows = places[old] if places.shape[1] != times else places[old][inner[new]]
                index[places[new]] = rows[:, units[new]]
            stored[name].CopyFrom(numpy_helper.from_array(values.take(index, axis), name))
    return made
