"""What the extra `speech` brings, imported when needed: a missing package gives one line saying what to install."""

from __future__ import annotations

import importlib
from typing import Any

from stages.artifacts.errors import AudioError, MissingExtraError


def need_package(module: str, package: str, purpose: str, extra: str = "speech") -> Any:
    """Imports a module of an extra.

    Args:
        module: its name in Python.
        package: its name for pip.
        purpose: what it is needed for.
        extra: the extra of bluelm that brings it.

    Raises:
        MissingExtraError: it is not installed.
        AudioError: it is installed and its library cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(package, extra, purpose) from None
    except OSError as error:
        raise AudioError(
            f"The package {package!r} cannot be used: {error}.",
            f"It is needed for {purpose}.",
            "Install the system's library (PortAudio: apt install libportaudio2), or work with files: "
            "--listen FILE.wav, --speak-to FILE.wav",
        ) from None
