"""Ladders that are drawn at random, without a model behind them."""

import json

import numpy as np

from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role, RungEntry

HOSTILE = (
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "</script><script>window.hit=1</script>",
    "</title></svg><svg onload='window.hit=1'>",
    "a&amp;b ' \" ` %% |",
    "‮txt.exe⁦",
    "line\nbreak\x1b[31m\x00",
    "x" * 500,
    "",
    "javascript:window.hit=1",
)


def random_model(rng, layers, name="net", names=None):
    """A graph of so many layers with joins between some; its places are in topological order."""
    places = [PlaceEntry(name="x", role=Role.INPUT, kind="input")]
    while layers:
        if len(places) > 2 and rng.random() < 0.3:
            sources = sorted({int(i) for i in rng.integers(0, len(places), 2)})
            is_ordered = bool(rng.random() < 0.5)
            kind = "Concat" if is_ordered else "Add"
            join = PlaceEntry(name=f"join{len(places)}", role=Role.JOIN, kind=kind, reads=sources)
            places.append(join.model_copy(update={"is_ordered": is_ordered}))
            continue
        layers -= 1
        own = names[layers % len(names)] if names else f"layer{len(places)}"
        source = int(rng.integers(max(0, len(places) - 3), len(places)))
        units = (int(rng.integers(1, 4096)), int(rng.integers(1, 4096)))
        kind = ("conv", "linear", "table")[int(rng.integers(3))]
        places.append(PlaceEntry(name=own, role=Role.LAYER, kind=kind, units=units, reads=[source]))
    places.append(PlaceEntry(name="y", role=Role.OUTPUT, kind="output", reads=[len(places) - 1]))
    return ModelEntry(name=name, places=places)


def random_ladder(seed, names=None, most=14):
    """Two models and some pairs of their layers, which may cross."""
    rng = np.random.default_rng(seed)
    sides = [random_model(rng, int(rng.integers(1, most)), f"{side}.onnx", names) for side in ("base", "donor")]
    layers = [[i for i, place in enumerate(model.places) if place.role is Role.LAYER] for model in sides]
    count = int(rng.integers(0, min(map(len, layers)) + 1))
    chosen = [sorted(int(i) for i in rng.permutation(own)[:count]) for own in layers]
    if rng.random() < 0.5:
        chosen[1] = [int(i) for i in rng.permutation(chosen[1])]
    relations = ("equal", "size-compatible", "size-incompatible")
    rungs = [
        RungEntry(base=a, donor=b, score=float(rng.random()), relation=relations[int(rng.integers(3))], reason="alike")
        for a, b in zip(*chosen, strict=True)
    ]
    return LadderEntry(base=sides[0], donor=sides[1], rungs=rungs)


def twice(model):
    """A model beside itself."""
    layers = [i for i, place in enumerate(model.places) if place.role is Role.LAYER]
    rungs = [RungEntry(base=i, donor=i, score=1.0, relation="equal", reason="the same") for i in layers]
    return LadderEntry(base=model, donor=model, rungs=rungs)


def data_of(page):
    """The data that a page holds, as its script reads it."""
    start = page.index('id="data">') + len('id="data">')
    held, keys = json.loads(page[start : page.index("</script>", start)])

    def unpack(value):
        if not isinstance(value, list):
            return value
        first, *others = value
        inside = list(map(unpack, others))
        return inside if first < 0 else dict(zip(keys[first], inside, strict=True))

    return unpack(held)
