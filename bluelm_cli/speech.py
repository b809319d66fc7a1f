"""Speech at the terminal: what was heard is shown before it is asked, and can be corrected or declined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bluelm_cli import console

if TYPE_CHECKING:
    from stages.chat import TalkConfig
    from stages.device.speech.listener import Listener
    from stages.device.speech.speaker import Speaker


@dataclass(frozen=True)
class SpeechFlags:
    """What the flags ask for: to begin by listening, to say answers, and the wav file they go to."""

    listen: bool = False
    speak: bool = False
    speak_to: Path | None = None


class Ears:
    """Hears questions; the recogniser loads when it is first needed, and stays."""

    def __init__(self, config: TalkConfig) -> None:
        self._config = config

    @cached_property
    def listener(self) -> Listener:
        """Who hears."""
        from stages.chat import listener

        return listener(self._config)

    def question(self, path: Path | None) -> str:
        """Hears a question in a wav file, or at the microphone where none is named, and shows it.

        Raises:
            BluelmError: nothing can be heard or understood.
        """
        ready = self.listener
        if path is None:
            console.note("Listening …")
        text = ready.question(path)
        console.note(f"Heard: {text}")
        return text


@contextmanager
def mouth(config: TalkConfig, flags: SpeechFlags) -> Iterator[Speaker | None]:
    """Who says answers; None where they are only shown.

    Raises:
        BluelmError: the voice, the loudspeaker or the file cannot be used.
    """
    if not flags.speak and flags.speak_to is None:
        yield None
        return
    from stages.chat import speaker

    with speaker(config, flags.speak_to) as saying:
        yield saying


def corrected(text: str) -> str:
    """Offers a text for correction on a terminal's line; empty where it was declined."""
    import readline

    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        return input("ask> ").strip()
    except EOFError:
        console.note("")
        return ""
    finally:
        readline.set_startup_hook()
