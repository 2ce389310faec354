"""Recipes that were written for mergekit, with the names of its models, its defaults and its keys.

What means the same here is taken over, and what mergekit takes where nothing is said is written out. What has no
counterpart is refused, all of it at once, each with what to do instead; nothing is left out that would change a result.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mal_graph.errors import UsageError
from mal_graph.method_names import WAYS, known_methods
from mal_graph.plain_text import did_you_mean

# What is no key of a recipe here, with the reason.
NOT_HERE = {
    "tokenizer_source": "a graph has no tokenizer",
    "tokenizer": "a graph has no tokenizer",
    "chat_template": "a graph has no chat template",
    "out_dtype": "the result keeps the types of the base",
    "modules": "a recipe makes one graph",
}
# Methods that are not here, each with what comes nearest.
NEAREST = {
    "nuslerp": "slerp",
    "multislerp": "karcher",
    "nearswap": "linear",
    "arcee_fusion": "ties",
    "sce": "consensus",
    "ram": "consensus",
    "ramplus_tl": "consensus",
}
# What mergekit takes where nothing is said, and this package does not.
DEFAULTS = {
    "ties": {"density": 1.0},
    "dare_linear": {"density": 1.0},
    "dare_ties": {"density": 1.0},
    "breadcrumbs": {"density": 1.0},
    "breadcrumbs_ties": {"density": 1.0},
    "della": {"density": 1.0, "epsilon": 0.15},
    "della_linear": {"density": 1.0, "epsilon": 0.15},
}
RESCALING = ("dare_linear", "dare_ties", "della", "della_linear")
# Parameters that are not here: the value that changes nothing, by method, and what to do about another one.
FIXED: dict[str, tuple[Callable[[str], Any], str]] = {
    "rescale": (
        lambda method: method in RESCALING,
        "entries that stay are enlarged by dare and della, and by no other",
    ),
    "filter_wise": (lambda method: False, "the cosine is that of whole tensors"),
    "int8_mask": (lambda method: False, "a mask takes no memory to speak of"),
    "normalize": (lambda method: True, "weights of a mean are shares: take task_arithmetic for sums"),
}


def translated(content: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a recipe of this package that say what one of mergekit says.

    Args:
        files: the file of each model by the name that the recipe has for it.

    Raises:
        UsageError: something has no counterpart; all of it is named.
    """
    faults = list(faults_in(content))
    if faults:
        raise UsageError("; ".join(dict.fromkeys(faults)))
    method = str(content["merge_method"])
    keys = {key: value for key, value in content.items() if key not in ("slices", "parameters")}
    own = {**DEFAULTS.get(method, {}), **block_of(content, method)}
    slices = content.get("slices")
    if slices and method != "passthrough":
        sources = slices[0]["sources"]
        keys["models"] = [{key: one[key] for key in ("model", "parameters") if one.get(key)} for one in sources]
        keys["blocks"] = sources[0]["layer_range"][1]
        own |= block_of(slices[0], method)
    elif slices:
        sources = [{key: entry["sources"][0][key] for key in ("model", "layer_range")} for entry in slices]
        keys["slices"] = [{"sources": [{**one, "model": file_of(one["model"], files)}]} for one in sources]
    if is_list_of_models(keys.get("models")):  # else it is refused as any recipe is
        keys["models"] = [
            {"model": file_of(one["model"], files), "parameters": block_of(one, method)} for one in keys["models"]
        ]
    if keys.get("base_model"):
        keys["base_model"] = file_of(keys["base_model"], files)
    return {**keys, **({"parameters": own} if own else {})}


def faults_in(content: Mapping[str, Any]) -> Iterator[str]:
    """What has no counterpart, in sentences."""
    for key in content.keys() & NOT_HERE.keys():
        yield f"there is no key {key!r} here: {NOT_HERE[key]}; leave it out"
    method = str(content.get("merge_method"))
    if method in NEAREST:
        yield f"there is no method {method} here: what comes nearest is {NEAREST[method]}"
    elif method != "passthrough" and (method in WAYS or method not in known_methods()):
        yield f"there is no method {method!r} of mergekit here: {did_you_mean(method, known_methods())}see `methods`"
    for block in blocks_in(content):
        yield from parameter_faults(block, method)
    yield from slice_faults(content.get("slices") or (), method)


def blocks_in(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every block that may hold parameters."""
    yield content
    yield from entries(content.get("models"))
    for entry in entries(content.get("slices")):
        yield entry
        yield from entries(entry.get("sources"))


def is_list_of_models(given: Any) -> bool:
    """Whether something lists models."""
    return isinstance(given, list) and all(isinstance(one, Mapping) and "model" in one for one in given)


def is_range(given: Any) -> bool:
    """Whether something is two numbers of blocks."""
    return isinstance(given, list) and len(given) == 2 and all(isinstance(one, int) for one in given)


def entries(listed: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; what else stands there is refused by whoever reads the recipe."""
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def parameter_faults(block: Mapping[str, Any], method: str) -> Iterator[str]:
    """Parameters of a block that would change the result, and cannot here."""
    own = block.get("parameters")
    for name, value in own.items() if isinstance(own, Mapping) else ():
        if is_fixed(name, method) and value is not FIXED[name][0](method):
            yield f"there is no parameter {name} of {method} here: {FIXED[name][1]}; leave it out"
        elif name in ("max_iter", "tol"):
            yield f"there is no parameter {name} of {method} here: it goes on until nothing moves; leave it out"
        elif method == "passthrough":
            yield f"there is no parameter {name} here: slices are taken as they are; leave it out"


def is_fixed(name: str, method: str) -> bool:
    """Whether a parameter has one value here."""
    return name in FIXED and (name != "normalize" or method == "linear")


def slice_faults(slices: Any, method: str) -> Iterator[str]:
    """What slices say that cannot be done."""
    listed = entries(slices)
    sources = [entries(entry.get("sources")) for entry in listed]
    ranges: list[list[Any]] = [[one.get("layer_range") for one in several] for several in sources]
    are_told = all("model" in one for several in sources for one in several)
    if not listed:
        return
    if not all(sources) or not are_told or not all(is_range(one) for several in ranges for one in several):
        yield "slices are lists of sources, each with a model and layer_range: [FIRST, STOP]"
    elif method == "passthrough":
        if any(len(several) > 1 for several in ranges):
            yield "passthrough stacks slices of one source each: take one source in each slice"
    elif len(listed) > 1 or any(one != [0, ranges[0][0][1]] for several in ranges for one in several):
        yield (
            f"{method} merges whole models: stack the slices of each model by a recipe of its own, with merge_method "
            "passthrough, and merge what these give"
        )


def block_of(block: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The parameters of a block, without those that have one value here."""
    own = block.get("parameters")
    held = own.items() if isinstance(own, Mapping) else ()
    return {name: plain_filters(value) for name, value in held if not is_fixed(name, method)}


def plain_filters(value: Any) -> Any:
    """A value whose filters for everything are none."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return value
    return [
        {"value": one.get("value")} if isinstance(one, Mapping) and one.get("filter") in ("*", None) else one
        for one in value
    ]


def file_of(model: Any, files: Mapping[str, str]) -> Any:
    """The file of a model. Raises UsageError where its name is none of a file and none was given for it."""
    if isinstance(model, str) and (model in files or model.endswith(".onnx")):
        return files.get(model, model)
    raise UsageError(f"{model!r} is no ONNX file: export that model, and name its file with `models` {model}=FILE")
