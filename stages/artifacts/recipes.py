"""Recipes: YAML files that become typed configurations.

Precedence: default < recipe < `--set` < flag. A recipe may say `extends: other.yaml` (relative to itself). Numbers are
YAML 1.2's: `1e-3` is a number, where PyYAML's own loader (YAML 1.1) reads a string. Unknown keys are errors that name
the nearest known one.
"""

from __future__ import annotations

import difflib
import itertools
import re
import reprlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.errors import BluelmError, RecipeError, raise_all

_YAML_FLOAT = re.compile(
    r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
# A recipe is written by hand.
_LARGEST_BYTES, _MOST_NODES, _DEEPEST = 4 * 2**20, 100_000, 60
_LONGEST_VALUE = 200
_YAML_BOOL = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")


class RecipeModel(BaseModel):
    """Base of every configuration that a recipe can hold: no unknown keys, nothing changed after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Config = TypeVar("Config", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core schema for floats and booleans, refusing repeated keys."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_nodes(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a list or mapping as a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _count_nodes(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Nodes of a document, each use of an alias counted with all that it stands for: no small file is a large value.

    Raises:
        yaml.YAMLError: too many, too deep, or without end.
    """
    where = node.start_mark
    if known.get(id(node)) == 0:
        raise yaml.composer.ComposerError(None, None, "an alias within what it stands for", where)
    if depth > _DEEPEST:
        raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} levels", where)
    if id(node) not in known:
        known[id(node)] = 0
        inner = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
        flat = itertools.chain.from_iterable(inner) if isinstance(node, yaml.MappingNode) else inner
        known[id(node)] = 1 + sum(_count_nodes(one, known, depth + 1) for one in flat)
    if known[id(node)] > _MOST_NODES:
        raise yaml.composer.ComposerError(None, None, f"more than {_MOST_NODES} values", where)
    return known[id(node)]


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Floats go last: an integer also matches their pattern, and the first match wins.
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _YAML_BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _YAML_FLOAT, list("-+0123456789."))


def recipes_folder() -> Path:
    """The recipes that come with bluelm: beside the packages in a checkout, inside `bluelm_cli` when installed."""
    root = Path(__file__).resolve().parents[2]
    installed = root / "bluelm_cli" / "recipes"
    return installed if installed.is_dir() else root / "recipes"


def recipe_path(name: str | Path) -> Path:
    """Finds a recipe: a path as given, or the name of one that comes with bluelm.

    Raises:
        RecipeError: there is neither; the message lists what comes with bluelm.
    """
    given = Path(name)
    if given.exists():
        return given
    shipped = recipes_folder() / given
    if not given.is_absolute() and ".." not in given.parts and shipped.exists():
        return shipped
    known = sorted(path.relative_to(recipes_folder()).as_posix() for path in recipes_folder().rglob("*.yaml"))
    raise RecipeError(
        f"There is no recipe {name}.",
        "It is neither a file here nor one that comes with bluelm.",
        "Recipes that come with bluelm: " + (", ".join(known) or "none"),
    )


def shipped_recipe(name: str) -> Path:
    """A recipe that comes with bluelm, whatever the current folder holds: what a command runs without --recipe.

    Raises:
        RecipeError: this installation lacks it.
    """
    path = recipes_folder() / name
    if not path.is_file():
        raise RecipeError(
            f"The recipe {name} is missing from {recipes_folder()}.", "It comes with bluelm.", "Install bluelm again."
        )
    return path


def read_yaml(path: Path) -> Any:
    """Reads one YAML document.

    Raises:
        RecipeError: unreadable or not YAML; the message has the line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise RecipeError(
                f"{path} is longer than {_LARGEST_BYTES >> 20} MiB.", "No recipe is.", "Check the path: is it a recipe?"
            )
        return _load(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path} cannot be read: {error}.", "It holds the configuration.", "Check the path."
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}.",
            "The configuration cannot be read.",
            "Mend the line it names.",
        ) from error


def _load(text: str) -> Any:
    """Raises: yaml.YAMLError: whatever is wrong with it, also a value that YAML's types do not hold."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # PyYAML's constructors of numbers, dates and binary values, on what only looks like one.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def read_recipe(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a recipe with all it extends, the nearer winning.

    Raises:
        RecipeError: unreadable, not a mapping, or extending itself.
    """
    path = path.resolve()
    if path in _seen:
        chain = " -> ".join(str(seen) for seen in (*_seen, path))
        raise RecipeError(f"{path} extends itself: {chain}.", "It has no end.", "Remove one `extends`.")
    values = read_yaml(path)
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(
            f"{path} is not a mapping of names to values.", "A recipe is one.", "Write `name: value` lines."
        )
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends is {base!r}.", "It names another recipe file.", "Write extends: other.yaml")
    below = path.parent / base
    if "\0" in base or not below.is_file():
        raise RecipeError(f"{path} extends {base}, which does not exist.", "Its values are missing.", "Check the name.")
    return merge(read_recipe(below, (*_seen, path)), values)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one configuration over another: mappings are merged key by key, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def parse_set(text: str) -> dict[str, Any]:
    """`a.b=1e-3` as a nested mapping, its value read as YAML.

    Raises:
        RecipeError: no `=`, an empty name, or a value that is not YAML.
    """
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text!r} has no name and value.", "It overrides one key.", "Write --set name=value")
    try:
        parsed: Any = _load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text!r}: the value is not YAML.", "It cannot be read.", "Quote it.") from error
    for part in reversed(parts):
        parsed = {part: parsed}
    return dict(parsed)


def load_config(
    model: type[Config],
    recipe: str | Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Config:
    """Resolves a configuration: default < measured < recipe < `--set` < flag (a flag of None was not given).

    `measured` is what was found to suit this machine (`bluelm bench tune`).

    Raises:
        RecipeError: a bad recipe, or values that do not fit; all of them together, unknown keys with the nearest name.
    """
    values = dict(measured or {})
    if recipe is not None:
        values = merge(values, read_recipe(recipe_path(recipe)))
    for text in sets:
        values = merge(values, parse_set(text))
    values = merge(values, {key: value for key, value in (flags or {}).items() if value is not None})
    return validate(model, values, str(recipe) if recipe is not None else "the configuration")


def validate(model: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Makes a typed configuration of plain values.

    Raises:
        RecipeError: values that do not fit, all of them together.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise_all([_problem(model, dict(item), source) for item in error.errors()])
        raise


def _problem(model: type[BaseModel], item: Mapping[str, Any], source: str) -> BluelmError:
    where = ".".join(str(part) for part in item["loc"]) or "the whole"
    if item["type"] == "extra_forbidden":
        names = _field_names(model, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]!r}?" if near else "Known names: " + ", ".join(sorted(names))
        return RecipeError(f"{source}: unknown key {where!r}.", "It would be ignored silently.", fix)
    message = str(item["msg"]).removeprefix("Value error, ")
    given = "" if item["type"] == "missing" else f" (given: {_shortened(item['input'])})"
    return RecipeError(f"{source}: {where}: {message}{given}.", "The stage cannot run with it.", f"Mend {where}.")


def _shortened(value: Any) -> str:
    """A value as Python writes it, its beginning where it is long."""
    text = reprlib.repr(value) if isinstance(value, list | dict | int) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _field_names(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that a path leads to; those of the outermost where it leads to none."""
    current: Any = model
    for part in path:
        info = getattr(current, "model_fields", {}).get(part)
        if info is None:
            continue
        candidates = [info.annotation, *getattr(info.annotation, "__args__", ())]
        current = next((item for item in candidates if hasattr(item, "model_fields")), current)
    return list(current.model_fields)
