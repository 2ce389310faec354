"""Recipes: a merge written down in YAML, with the keys that users of mergekit know.

    merge_method: ties
    base_model: ancestor.onnx          # gives the graph; the ancestor, where the method needs one
    models:
      - model: one.onnx
        parameters: {weight: 0.5}      # of this model alone
      - model: two.onnx
        parameters: {weight: [0.2, 0.8]}   # from the first layer to the last
    parameters:
      density: [{filter: conv, value: 0.5}, {value: 0.2}]   # the first that fits holds
    options: {seed: 3, calibrate: inputs.npz}   # every option of `assemble`, by its name in Python

A recipe with `slices` says what is stacked, with merge_method passthrough:

    slices:
      - sources: [{model: one.onnx, layer_range: [0, 4]}]   # the first four of the equal blocks of a model
      - sources: [{model: two.onnx, layer_range: [2, 6]}]

Paths are seen from the folder of the recipe. `ancestor` names an ancestor that is not the base. Flags, keywords of
Python and recipes are one configuration: what is given for a parameter becomes a `Setting`, wherever it stood.

A recipe is the text of a stranger: it has a largest size, no anchors, and no key twice, what is unknown is refused, and
it names files alone: a module that a function makes is named on a command line, for its code is run.
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mal_graph.config import MergeConfig, configured, options_of
from mal_graph.errors import FileError, UsageError
from mal_graph.graph import LayerGraph
from mal_graph.merging import find_chain
from mal_graph.method_names import WAYS
from mal_graph.methods import Need, find_method
from mal_graph.option import option_of
from mal_graph.parameter_settings import Setting, setting_of
from mal_graph.plain_text import did_you_mean
from mal_graph.remote_files import is_remote
from mal_graph.text_files import read_text
from mal_graph.workflows.mergekit import NOT_HERE, translated
from mal_graph.workflows.restacking import MOST_SLICES, Slice

MOST, DEEPEST = 2**18, 20  # letters of a recipe, and lists in lists
MOST_DIGITS = 40  # letters of a number
MOST_MODELS = 256
PASSTHROUGH = "passthrough"


@dataclass(frozen=True)
class Recipe:
    """A merge that is written down.

    Attributes:
        base, donors, ancestor: paths of models; no ancestor is None.
        data: path of the labelled data; None without any.
        config: every option.
        dtype: what it says the numbers of the result are; None where it does not.
        slices: blocks of models that are stacked, instead of all that is merged; () where models are merged.
        blocks: how many equal blocks each model has to have; None where that was not said.
    """

    base: str
    donors: tuple[str, ...]
    ancestor: str | None = None
    data: str | None = None
    config: MergeConfig = field(default_factory=MergeConfig)
    dtype: str | None = None
    slices: tuple[Slice, ...] = ()
    blocks: int | None = None

    def text(self, folder: str | PathLike[str] = ".") -> str:
        """It in YAML, with paths as they are seen from a folder."""
        return yaml.safe_dump(written(self, Path(folder)), sort_keys=False, allow_unicode=True)

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not as by default, by name."""
        return {name: getattr(self.config, name) for name in self.config.changed()}


class Model(BaseModel):
    """One of the models of a recipe."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    parameters: dict[str, Any] = {}


class Source(BaseModel):
    """A model of which blocks are taken: from the first number on, up to and without the second."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    layer_range: tuple[int, int]


class SliceEntry(BaseModel):
    """Blocks that are stacked."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Source] = Field(min_length=1)


class Document(BaseModel):
    """The keys of a recipe."""

    model_config = ConfigDict(extra="forbid")

    merge_method: str
    base_model: str | None = None
    ancestor: str | None = None
    models: list[Model] = Field([], max_length=MOST_MODELS)
    slices: list[SliceEntry] = Field([], max_length=MOST_SLICES)
    parameters: dict[str, Any] = {}
    dtype: str | None = None
    data: str | None = None
    options: dict[str, Any] = {}
    blocks: int | None = None


INSIDE: dict[str, type[BaseModel]] = {"sources": Source, "slices": SliceEntry, "models": Model}  # the innermost first


# --- reading ------------------------------------------------------------------------------------------------------


def read_recipe(
    path: str | PathLike[str], *, from_mergekit: bool = False, models: Mapping[str, str] | None = None
) -> Recipe:
    """The merge that a file in YAML says.

    Args:
        from_mergekit: whether it was written for mergekit: its defaults hold, and what has no counterpart is refused.
        models: the file of each model by the name that the recipe has for it, as seen from the folder of the recipe.

    Raises:
        FileError: it cannot be read, is no YAML, or files that it names are missing: all of them are named.
        UsageError: a key, an option or a parameter is unknown or refused.
    """
    content, folder = content_of(path), Path(path).parent
    document = document_of(translated(content, models or {}) if from_mergekit else content, str(path))
    if document.slices or document.merge_method == PASSTHROUGH:
        return recipe_of_slices(document, folder, str(path))
    if not document.models:
        raise UsageError(f"{path}: the key 'models' is missing")
    paths = [model.model for model in document.models]
    base = document.base_model or paths[0]
    is_listed = base in paths
    donors = [one for place, one in enumerate(paths) if one != base or place != paths.index(base)]
    ancestor = ancestor_of(document, base, is_listed=is_listed)
    settings = (*settings_in(document.parameters, None), *settings_of_models(document, base))
    options = {**document.options, "method": document.merge_method}
    if settings:
        options["parameters"] = settings
    refuse_doubled(document.options)
    options = {name: seen_from(folder, value) if reads_file(name) else value for name, value in options.items()}
    named = [base, *donors, *filter(None, [ancestor, document.data])]
    refuse_code(named)
    base, *rest = (seen_from(folder, one) for one in named)
    refuse_missing([base, *rest, *files_in_options(options)], str(path))
    config = configured("assemble", None, options)
    data = rest.pop() if document.data is not None else None
    own = rest.pop() if ancestor is not None else None
    return Recipe(base, tuple(rest), own, data, config, document.dtype, blocks=document.blocks)


def recipe_of_slices(document: Document, folder: Path, path: str) -> Recipe:
    """The recipe of a network that is stacked. Raises FileError or UsageError."""
    if document.merge_method != PASSTHROUGH or any(len(one.sources) > 1 for one in document.slices):
        raise UsageError(
            f"{path}: slices are stacked as they are, by merge_method {PASSTHROUGH}, each of one source: stack each "
            "model by a recipe of its own, and merge what these give"
        )
    if not document.slices:
        raise UsageError(f"{path}: merge_method {PASSTHROUGH} stacks slices: write the key slices, or another method")
    for name in ("base_model", "models", "parameters", "options", "ancestor"):
        if getattr(document, name):
            raise UsageError(f"{path}: {name} has no meaning beside slices, which are taken as they are: leave it out")
    sources = [entry.sources[0] for entry in document.slices]
    named = [*(one.model for one in sources), *filter(None, [document.data])]
    refuse_code(named)
    refuse_missing([seen_from(folder, one) for one in named], path)
    slices = tuple(Slice(seen_from(folder, one.model), *one.layer_range) for one in sources)
    data = None if document.data is None else seen_from(folder, document.data)
    return Recipe(slices[0].model, (), data=data, dtype=document.dtype, slices=slices)


def content_of(path: str | PathLike[str]) -> Mapping[str, Any]:
    """What a file says. Raises FileError."""
    try:
        text = read_text(Path(path))
        if len(text) > MOST:
            raise FileError(f"cannot read {path}: it has {len(text):,} letters, and a recipe ends at {MOST:,}")
        content = yaml.load(text, PlainLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" in line {where.line + 1}"
        why = getattr(error, "problem", None) or "it is no YAML"
        raise FileError(f"cannot read {path}: {why}{line}; write a recipe in plain YAML") from None
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check the path") from None
    if not isinstance(content, Mapping):
        raise FileError(f"{path} is no recipe: it has no keys; write merge_method, models and base_model")
    return content


def document_of(content: Mapping[str, Any], path: str) -> Document:
    """It in its keys. Raises UsageError."""
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {'; '.join(dict.fromkeys(refusals(error)))}") from None


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class PlainLoader(yaml.SafeLoader):
    """Plain YAML: what stands in it is all there is, and stands there once."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        own: Any = self
        event = own.peek_event()
        if getattr(event, "anchor", None) is not None:  # of what is marked, and of what refers to it
            raise yaml.MarkedYAMLError(problem="it has anchors, which are not read", problem_mark=event.start_mark)
        if self.depth >= DEEPEST:
            raise yaml.MarkedYAMLError(problem="it has lists in lists without end", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in NUMBERS and len(node.value) > MOST_DIGITS:
            fault = f"a number has {len(node.value):,} letters, and may have {MOST_DIGITS}"
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        counts = Counter(key for key in keys if isinstance(key, Hashable))  # of others it is said that they are no keys
        twice = next((key for key, count in counts.items() if count > 1), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"the key {twice!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def refusals(error: ValidationError) -> Iterator[str]:
    """One sentence for each key that is refused."""
    for fault in error.errors(include_url=False):
        *outer, name = map(str, fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = next((kind for key, kind in INSIDE.items() if key in outer), Document).model_fields
            reason = NOT_HERE.get(name, "")
            near = f"{reason}; leave it out" if reason else f"{did_you_mean(name, known)}choose from {', '.join(known)}"
            yield f"there is no key {name!r} here: {near}"
        elif fault["type"] == "missing":
            yield f"the key {name!r} is missing"
        else:
            yield f"{'.'.join([*outer, name])} is {str(fault['input'])[:40]!r}: {fault['msg'].lower()}"


def ancestor_of(document: Document, base: str, *, is_listed: bool) -> str | None:
    """The ancestor that a recipe names. Raises UsageError where its base would be merged though it is not listed."""
    if document.merge_method in WAYS:
        return document.ancestor
    needs = find_method_of(document).needs
    if document.ancestor is None and needs is Need.ANCESTOR:
        return document.base_model
    if document.base_model is not None and not is_listed:
        raise UsageError(
            f"base_model {base} is not among the models, and {document.merge_method} merges it too: list it there, "
            "or leave base_model out"
        )
    return document.ancestor


def find_method_of(document: Document) -> Any:
    """The merge method of a recipe. Raises UsageError."""
    MergeConfig(method=document.merge_method)  # which says what there is instead
    return find_method(document.merge_method)


# --- parameters ---------------------------------------------------------------------------------------------------


def settings_of_models(document: Document, base: str) -> Iterator[Setting]:
    """What is said of single models, by their numbers: 0 for the base, then the donors in order."""
    number, has_base = 0, False
    for model in document.models:
        is_base = model.model == base and not has_base
        has_base = has_base or is_base
        number += not is_base
        yield from settings_in(model.parameters, 0 if is_base else number)


def settings_in(parameters: Mapping[str, Any], model: int | None) -> Iterator[Setting]:
    """What is said in a block of parameters: a value, several over the depth, or one for each filter, of which the
    first that fits holds. Raises UsageError."""
    before = "" if model is None else f"{model}:"
    for name, value in parameters.items():
        filtered = isinstance(value, list) and any(isinstance(one, Mapping) for one in value)
        for one in reversed(value) if filtered else [{"value": value}]:  # of settings the last that fits holds
            if not isinstance(one, Mapping) or not {"value"} <= set(one) <= {"filter", "value"}:
                raise UsageError(
                    f"parameters {name}: {str(one)[:40]!r} is no filter: write {{filter: TEXT, value: NUMBER}}"
                )
            where = one.get("filter") or ""
            yield setting_of(f"{before}{name}{f'@{where}' if where else ''}", number_of(one["value"]))


def number_of(value: Any) -> Any:
    """A value; numbers such as 1e-3, which YAML takes for a text, are numbers."""
    if isinstance(value, list):
        return tuple(map(number_of, value))
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# --- files --------------------------------------------------------------------------------------------------------


def reads_file(name: str) -> bool:
    """Whether an option names a file that is read."""
    fields = options_of("assemble")
    return name in fields and option_of(fields[name]).reads_file


def refuse_doubled(options: Mapping[str, Any]) -> None:
    """Raise UsageError where an option is said by a key of its own too."""
    for name, key in (("method", "merge_method"), ("parameters", "parameters")):
        if name in options:
            raise UsageError(f"options {name} has a key of its own: write {key} beside options")


def refuse_code(paths: Iterable[str]) -> None:
    """Raise UsageError for a model that is named as a function that makes it: `package.module:factory`."""
    for path in paths:
        module, colon, name = path.partition(":")
        if colon and name.isidentifier() and all(part.isidentifier() for part in module.split(".")):
            raise UsageError(f"{path} is a function, and a recipe names files alone: name it on the command line")


def seen_from(folder: Path, value: Any) -> Any:
    """A path, or several, of a recipe in this folder as they are seen from here."""
    if isinstance(value, list | tuple):
        return [seen_from(folder, one) for one in value]
    if not isinstance(value, str) or value == "-" or is_remote(value):
        return value
    return os.path.normpath(folder / value)


def files_in_options(options: Mapping[str, Any]) -> Iterator[str]:
    """The files that options name."""
    for value in (value for name, value in options.items() if reads_file(name)):
        several = value if isinstance(value, list | tuple) else [value]
        yield from (one for one in several if isinstance(one, str) and one != "-")


def refuse_missing(paths: Iterable[str], recipe: str) -> None:
    """Raise FileError where files are missing; all of them are named."""
    missing = [path for path in dict.fromkeys(paths) if not is_remote(path) and not Path(path).is_file()]
    if missing:
        raise FileError(
            f"{recipe} names {'files that are' if len(missing) > 1 else 'a file that is'} not there: "
            f"{', '.join(missing)}; paths are seen from the folder of the recipe"
        )


def check_dtype(base: LayerGraph, dtype: str | None) -> None:
    """Raise UsageError where a recipe asks for another type of numbers than the base has."""
    if dtype is None:
        return
    held = sorted({weight.dtype.name for weight in base.weights.values() if weight.is_float})
    if held != [dtype]:
        raise UsageError(
            f"dtype is {dtype[:40]!r}, and {base.name} holds {' and '.join(held)}, as the result does: leave it out"
        )


def check_blocks(graphs: Iterable[LayerGraph], blocks: int | None) -> None:
    """Raise UsageError where a recipe names another number of blocks than a model has. Raises MatchError where it has
    none."""
    for graph in graphs if blocks is not None else ():
        if (count := len(find_chain(graph))) != blocks:
            raise UsageError(
                f"the recipe is for {blocks} blocks, and {graph.name} has {count}: stack those that are meant by a "
                "recipe of their own, and merge what that gives"
            )


# --- writing ------------------------------------------------------------------------------------------------------


def written(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The keys of a recipe with their values, without those that say nothing."""
    if recipe.slices:
        return written_slices(recipe, folder)
    settings = recipe.config.parameters
    is_from_base = recipe.ancestor == recipe.base
    models = [(number, path) for number, path in enumerate((recipe.base, *recipe.donors)) if number or not is_from_base]
    listed = [
        {"model": path_from(folder, path), "parameters": parameters_of(settings, number)} for number, path in models
    ]
    dumped, arrays = recipe.config.to_dict(), recipe.config.data_options()
    options = {name: dumped[name] for name in recipe.options if name not in ("method", "parameters")}
    keys = {
        "merge_method": recipe.config.method,
        "base_model": path_from(folder, recipe.base),
        "ancestor": None if recipe.ancestor is None or is_from_base else path_from(folder, recipe.ancestor),
        "models": [{key: value for key, value in model.items() if value} for model in listed],
        "parameters": parameters_of(settings, None),
        "dtype": recipe.dtype,
        "data": None if recipe.data is None else path_from(folder, recipe.data),
        "blocks": recipe.blocks,
        "options": {name: path_from(folder, value) if name in arrays else value for name, value in options.items()},
    }
    return {key: value for key, value in keys.items() if value}


def written_slices(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The same of a network that is stacked."""
    sources = [{"model": path_from(folder, one.model), "layer_range": [one.first, one.stop]} for one in recipe.slices]
    data = None if recipe.data is None else path_from(folder, recipe.data)
    keys = {
        "merge_method": PASSTHROUGH,
        "slices": [{"sources": [one]} for one in sources],
        "dtype": recipe.dtype,
        "data": data,
    }
    return {key: value for key, value in keys.items() if value}


def parameters_of(settings: Sequence[Setting], model: int | None) -> dict[str, Any]:
    """What settings say of one model, or of all, as a block of parameters."""
    own = [setting for setting in settings if setting.model == model]
    block: dict[str, Any] = {}
    for name in dict.fromkeys(setting.name for setting in own):
        mine = [setting for setting in own if setting.name == name]
        values = [list(one.value) if isinstance(one.value, tuple) else one.value for one in mine]
        filtered = [
            {"filter": one.where, "value": value} if one.where else {"value": value}
            for one, value in zip(mine, values, strict=True)
        ]
        block[name] = filtered[::-1] if any(one.where for one in mine) else values[-1]
    return block


def path_from(folder: Path, value: Any) -> Any:
    """A path, or several, as they are seen from a folder."""
    if isinstance(value, list | tuple):
        return [path_from(folder, one) for one in value]
    if not isinstance(value, str) or value == "-" or is_remote(value):
        return value
    return os.path.relpath(value, folder)
