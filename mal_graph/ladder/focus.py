"""The part of a picture around one layer."""

from difflib import get_close_matches

from mal_graph.errors import UsageError
from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role


def take_around(ladder: LadderEntry, name: str, radius: int) -> LadderEntry:
    """What lies at most `radius` steps from a place called `name`, along either graph and across pairs, with its
    partners.

    Raises:
        UsageError: neither model has such a place; the nearest names are told.
    """
    models = [model for _, model in ladder.sides()]
    near = {
        (side, i) for side, model in enumerate(models) for i, place in enumerate(model.places) if place.name == name
    }
    if not near:
        raise UsageError(missing(ladder, name))
    links = neighbours(ladder)
    reached = set(near)
    for _ in range(radius):
        near = {other for one in near for other in links[one]} - reached
        reached |= near
    ends = [((0, rung.base), (1, rung.donor)) for rung in ladder.rungs]
    reached |= {end for both in ends if not reached.isdisjoint(both) for end in both}
    kept = [[i for i in range(len(model.places)) if (side, i) in reached] for side, model in enumerate(models)]
    index = [{old: new for new, old in enumerate(own)} for own in kept]
    cut = [take_places(model, own, places) for model, own, places in zip(models, kept, index, strict=True)]
    rungs = [
        rung.model_copy(update={"base": index[0][rung.base], "donor": index[1][rung.donor]})
        for rung in ladder.rungs
        if (0, rung.base) in reached
    ]
    return LadderEntry(base=cut[0], donor=cut[1] if len(cut) > 1 else None, rungs=rungs)


def neighbours(ladder: LadderEntry) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """What is one step from every place: what it reads, what reads it, and its partner."""
    models = [model for _, model in ladder.sides()]
    links: dict[tuple[int, int], list[tuple[int, int]]] = {
        (side, i): [] for side, model in enumerate(models) for i in range(len(model.places))
    }
    pairs = [
        ((side, i), (side, source))
        for side, model in enumerate(models)
        for i, place in enumerate(model.places)
        for source in place.reads
    ]
    for one, other in (*pairs, *(((0, rung.base), (1, rung.donor)) for rung in ladder.rungs)):
        links[one].append(other)
        links[other].append(one)
    return links


def take_places(model: ModelEntry, kept: list[int], index: dict[int, int]) -> ModelEntry:
    places = [
        model.places[i].model_copy(
            update={"reads": [index[source] for source in model.places[i].reads if source in index]}
        )
        for i in kept
    ]
    return model.model_copy(update={"places": places})


def missing(ladder: LadderEntry, name: str) -> str:
    """That there is no such place, and which names are near."""
    places: list[PlaceEntry] = [place for _, model in ladder.sides() for place in model.places]
    layers = [place.name for place in places if place.role is Role.LAYER]
    near = get_close_matches(name, [place.name for place in places], n=3, cutoff=0.3) or layers[:3]
    return f"no layer is called {name!r}: did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?"
