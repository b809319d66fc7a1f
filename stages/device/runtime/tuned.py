"""What `bluelm bench tune` found to suit a model on a machine: read by chat and encode where nobody says otherwise.

A profile lies in the user's cache under the model's digest and the machine's key, so that it is found only where it was
made; given by name, it is taken from anywhere, with a warning where it was made elsewhere.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.atomic_file import write_atomically
from stages.artifacts.errors import ArtifactError
from stages.artifacts.typed_json import read_typed_json
from stages.device.runtime.session_cache import cache_folder, processor
from stages.device.runtime.sessions import available_threads

PROFILE_FILE = "profile.json"
_FOLDER = "profiles"


class TunedSettings(BaseModel):
    """What to run with; None leaves the runtime's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tiles_per_batch: int | None = Field(default=None, ge=1)
    chunk: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)


class TunedProfile(BaseModel):
    """The whole of `profile.json`.

    Attributes:
        model: name of the model it was made for.
        model_digest: of the exported artifact; None for random weights.
        machine: key of the machine, see `machine_key`.
        made_on: the machine in words.
        settings: what suits it.
        activations: which precision of activations is fastest of those that were tried; None where only one was.
        reasons: a sentence for each choice, with its ratio and interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    model: str
    model_digest: str | None
    machine: str
    made_on: dict[str, Any]
    settings: TunedSettings
    activations: str | None = None
    reasons: tuple[str, ...] = ()

    def write(self, file: Path) -> None:
        """Writes it in one step."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, self.model_dump_json(indent=2) + "\n")


def machine_key() -> str:
    """Names what decides which settings are fast: processor, usable cores, onnxruntime."""
    facts = f"{processor()}\n{available_threads()}\n{platform.system()}\n{ort.__version__}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def profile_place(model_digest: str) -> Path | None:
    """Where the profile of a model lies for this machine; None for a user without a cache folder."""
    folder = cache_folder()
    return None if folder is None else folder / _FOLDER / f"{model_digest[:32]}-{machine_key()[:16]}.json"


def find_profile(model_digest: str) -> TunedProfile | None:
    """The profile that was made for this model on this machine; None where there is none, or none that can be read."""
    place = profile_place(model_digest)
    if place is None or not place.is_file():
        return None
    try:
        found = read_profile(place)
    except ArtifactError:  # an older or a damaged one: as if nobody had tuned
        return None
    return found if (found.model_digest, found.machine) == (model_digest, machine_key()) else None


def read_profile(path: Path) -> TunedProfile:
    """Reads a profile: the file, or the folder that holds it.

    Raises:
        ArtifactError: it is missing or broken.
    """
    file = path / PROFILE_FILE if path.is_dir() else path
    why = "It says how to run a model on a machine."
    fix = "Make one: bluelm bench tune MODEL (--out FOLDER keeps it in a folder)"
    return read_typed_json(file, TunedProfile, ArtifactError, unreadable=why, broken=why, fix=fix)
