"""The profile of `bluelm bench tune` for chat and encode: found or named, and said on stderr; flags win over it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console

if TYPE_CHECKING:
    from stages.device.runtime.tuned import TunedProfile

Profile = Annotated[
    Path | None,
    typer.Option("--profile", help="What bluelm bench tune --out wrote; by default what it found for this machine."),
]


def measured(model: Path, given: Path | None, names: tuple[str, ...]) -> dict[str, Any]:
    """What a profile says of the settings that a command has.

    Args:
        model: the exported model.
        given: the profile that was named; else the one that was made for this model on this machine, if any.
        names: settings that the command has, of "batch", "chunk" and "threads".

    Raises:
        BluelmError: the named profile, or the model, cannot be read.
    """
    profile = _profile(model, given)
    if profile is None:
        return {}
    settings = profile.settings
    values = {"batch": settings.tiles_per_batch, "chunk": settings.chunk, "threads": settings.threads}
    return {name: values[name] for name in names if values[name] is not None}


def tell(suited: dict[str, Any], config: Any, given: Path | None) -> None:
    """Says which settings came from the profile: those that neither recipe nor flag changed."""
    used = [f"--{name} {value}" for name, value in suited.items() if getattr(config, name) == value]
    if used:
        console.note(f"Tuned for this machine: {', '.join(used)} ({given or 'by bluelm bench tune'}).")


def _profile(model: Path, given: Path | None) -> TunedProfile | None:
    from stages.artifacts.folder import open_artifact
    from stages.device.runtime.tuned import find_profile, machine_key, read_profile

    digest = open_artifact(model, "onnx").digest
    if given is None:
        return find_profile(digest)
    profile = read_profile(given)
    if profile.machine != machine_key():
        console.note(f"{given} was made on another machine: {profile.made_on.get('cpu')}.", warning=True)
    elif profile.model_digest not in (None, digest):
        console.note(f"{given} was made for another model: {profile.model}.", warning=True)
    return profile
