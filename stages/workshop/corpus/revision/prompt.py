"""A prompt as a file: a jinja2 template, rendered for each row in a sandbox.

A template is the user's text, or two blocks, `{% block system %}` and `{% block user %}`. It may name

    name       the row's name
    pictures   how many pictures go with it
    turns      what the row says: a list of {"role": "system" | "user" | "assistant", "text"}, picture marks removed
    pairs      the same as a list of {"question", "answer"}
    variables  what the recipe gives under `variables`
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import DataError, RecipeError, raise_all
from stages.artifacts.recipes import recipes_folder

if TYPE_CHECKING:
    from jinja2 import Template

VARIABLES = ("name", "pictures", "turns", "pairs", "variables")
_BLOCKS = ("system", "user")
_SUFFIX = ".jinja"


@dataclass(frozen=True)
class Spoken:
    """A prompt as one row's: what is said to the model."""

    system: str | None
    user: str


@dataclass(frozen=True)
class Prompt:
    """A template and its text, which is what an artifact keeps of it."""

    name: str
    text: str

    def render(self, values: Mapping[str, Any]) -> Spoken:
        """The prompt for one row.

        Raises:
            DataError: the template fails on this row, or says nothing.
        """
        from jinja2 import TemplateError

        template = _template(self)
        try:
            blocks = template.blocks
            if not blocks:
                spoken = Spoken(None, template.render(values).strip())
            else:
                said = {name: "".join(block(template.new_context(dict(values)))) for name, block in blocks.items()}
                spoken = Spoken(said.get("system", "").strip() or None, said["user"].strip())
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            what = f"The prompt {self.name} fails on row {values.get('name')}: {error}."
            raise DataError(what, "There is nothing to ask the model.", "Mend the template, or the row.") from error
        if not spoken.user:
            what = f"The prompt {self.name} is empty for row {values.get('name')}."
            raise DataError(what, "There is nothing to ask the model.", "Mend the template.")
        return spoken


def prompts_folder() -> Path:
    """The prompts that come with bluelm."""
    return recipes_folder() / "prompts"


def load_prompt(name: str | Path) -> Prompt:
    """Reads and checks a template: a path, or the name of one that comes with bluelm.

    Raises:
        RecipeError: it is not there, is not a template, or names what no row has.
    """
    path = _find(Path(name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.", "It is what the model is asked.", "Check it.") from error
    prompt = Prompt(path.name, text)
    _check(prompt, path)
    return prompt


def _find(name: Path) -> Path:
    for path in (name, prompts_folder() / name, prompts_folder() / f"{name}{_SUFFIX}"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in prompts_folder().glob(f"*{_SUFFIX}"))
    raise RecipeError(
        f"There is no prompt {name}.", "It is what the model is asked.", "Prompts of bluelm: " + ", ".join(known)
    )


def _check(prompt: Prompt, path: Path) -> None:
    from jinja2 import TemplateSyntaxError
    from jinja2.meta import find_undeclared_variables

    why = "The model cannot be asked with it."
    environment = _environment()
    try:
        named = find_undeclared_variables(environment.parse(prompt.text))
        blocks = set(environment.from_string(prompt.text).blocks)
    except TemplateSyntaxError as error:
        raise RecipeError(f"{path}, line {error.lineno}: {error.message}.", why, "Mend that line.") from error
    problems = []
    for unknown in sorted(named - set(VARIABLES)):
        near = difflib.get_close_matches(unknown, VARIABLES, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]!r}?" if near else "A prompt may name " + ", ".join(VARIABLES) + "."
        problems.append(RecipeError(f"{path} names {unknown!r}, which no row has.", why, fix))
    for unknown in sorted(blocks - set(_BLOCKS)):
        problems.append(RecipeError(f"{path} has a block {unknown!r}.", why, "Blocks are system and user."))
    if blocks and "user" not in blocks:
        problems.append(RecipeError(f"{path} has blocks, but none for the user.", why, "Add {% block user %}."))
    if not prompt.text.strip():
        problems.append(RecipeError(f"{path} is empty.", why, "Write what to ask."))
    raise_all(problems)


def _environment() -> Any:
    """A sandbox: a template reads the row and nothing else of this machine, and writes nothing."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(value: Any, indent: int | None = None) -> str:
    """jinja2's own is for HTML: it writes é as an escape, and so would the model."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


@functools.lru_cache(8)
def _template(prompt: Prompt) -> Template:
    made: Template = _environment().from_string(prompt.text)
    return made
