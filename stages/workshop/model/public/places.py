"""Where a public model lies: a folder on this machine, or `org/name` on the Hugging Face hub.

Of a hub model only named files are fetched: JSON, tokenizer, chat template and safetensors. No code, no pickles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import ModelError
from stages.artifacts.manifest import Parent, parent_of
from stages.workshop.model.public.source import CONVERT

_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_LOCAL_FIX = "Give a plain transformers folder with config.json, safetensors and the tokenizer or preprocessor files."


class ModelPlace(Protocol):
    """A public model that can be read."""

    def settings(self) -> Path:
        """A folder with at least its configuration, tokenizer and picture settings."""

    def whole(self) -> Path:
        """A folder that also holds its weights."""

    def parent(self) -> Parent:
        """What an artifact made of it records."""


@dataclass(frozen=True)
class LocalModel:
    """A folder on this machine."""

    path: Path

    def settings(self) -> Path:
        """The folder. Raises ModelError where it holds no configuration."""
        if not (self.path / "config.json").is_file():
            raise ModelError(
                f"{self.path} holds no config.json.",
                "It is one of the model's parts, and no name on the hub (ORG/NAME) either.",
                _LOCAL_FIX,
            )
        return self.path

    def whole(self) -> Path:
        """The folder. Raises as `settings`."""
        return self.settings()

    def parent(self) -> Parent:
        """Name and digest of the folder. Raises as `settings`."""
        return parent_of(self.settings())


@dataclass(frozen=True)
class HubModel:
    """A model on the hub.

    Attributes:
        repo: `org/name`.
        revision: a branch, tag or commit; None is the main branch.
    """

    repo: str
    revision: str | None = None

    def settings(self) -> Path:
        """The hub's cache of the small files.

        Raises:
            ModelError: the hub cannot be reached, or does not have it.
        """
        return self._fetch(_SETTINGS)

    def whole(self) -> Path:
        """The hub's cache of all files that are used.

        Raises:
            ModelError: as `settings`, or the model has no safetensors.
        """
        folder = self._fetch((*_SETTINGS, *_WEIGHTS))
        if not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"{self.repo} has no model.safetensors on the hub.",
                "Pickles (pytorch_model.bin) can run any code when they are opened, so they never are, nor fetched.",
                f"Look for a safetensors version of it, or download it yourself and convert it: {CONVERT}",
            )
        return folder

    def parent(self) -> Parent:
        """The commit: it stands for every byte. Raises as `settings`."""
        commit = self.settings().name
        return Parent(path=f"{self.repo}@{commit}", digest=digest_json([self.repo, commit]))

    def _fetch(self, names: tuple[str, ...]) -> Path:
        from httpx2 import HTTPError
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            return Path(snapshot_download(self.repo, revision=self.revision, allow_patterns=list(names)))
        except GatedRepoError as error:
            raise self._error("may only be fetched by those whom its makers let in", _LOG_IN) from error
        except RepositoryNotFoundError as error:
            raise self._error("is no folder here, and the hub shows no such model", _LOG_IN) from error
        except RevisionNotFoundError as error:
            raise self._error(f"has no revision {self.revision!r}", "Name a branch, a tag or a commit.") from error
        except HFValidationError as error:
            raise self._error(f"is no name the hub can have: {_first_line(error)}", _LOCAL_FIX) from error
        except LocalEntryNotFoundError as error:
            raise self._error("is no folder here, and the hub cannot be reached", _NO_NETWORK) from error
        except (HTTPError, OSError, RuntimeError) as error:
            raise self._error(f"cannot be fetched from the hub: {_first_line(error)}", _NO_NETWORK) from error

    def _error(self, what: str, fix: str) -> ModelError:
        name = self.repo if self.revision is None else f"{self.repo}@{self.revision}"
        return ModelError(f"{name} {what}.", "It is one of the model's parts.", fix)


_LOG_IN = (
    "Check the spelling; for a model behind a licence accept it on its page, then log in once with: hf auth login. "
    "Or give a folder that you have downloaded."
)
_NO_NETWORK = (
    "Connect (and unset HF_HUB_OFFLINE), or download it elsewhere with: hf download ORG/NAME --local-dir FOLDER, "
    "and give that folder."
)


def place_of(name: str | Path) -> ModelPlace:
    """A folder if there is one of that name, else `org/name` or `org/name@revision` on the hub, else a folder that
    is not there."""
    path = Path(name)
    match = None if path.exists() or path.is_absolute() else _HUB_NAME.fullmatch(str(name))
    return HubModel(match["repo"], match["revision"]) if match else LocalModel(path)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
