"""`bluelm chat`: ask an exported model about pictures, once or in a conversation.

Vision and language load side by side; pictures are encoded from the moment they are named, the prompt is prefilled in
chunks, the answer streams (Sec. 3.4). No torch, transformers or onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.events import Finished, Notice
from stages.artifacts.folder import open_artifact
from stages.device.imaging.loading import check_image, read_size
from stages.device.imaging.reading import completed, make_all
from stages.device.runtime.chat_config import ChatConfig, chat_options
from stages.device.runtime.conversation import Conversation, Turn
from stages.device.runtime.engine import Answer, Engine
from stages.device.runtime.feature_disk import user_features
from stages.device.runtime.generator import Token
from stages.device.runtime.pictures import StoredFeatures
from stages.device.speech.espeak import DEFAULT_VOICE

if TYPE_CHECKING:  # a chat without speech starts without it
    from stages.device.speech.listener import Listener
    from stages.device.speech.speaker import Speaker


class TalkConfig(ChatConfig):
    """How to chat with speech.

    Attributes:
        grammar: what may be said to --listen, as JSGF; None for the question forms that are shipped.
        dictation: hear anything rather than a grammar; far less accurate.
        asr: a transformers folder of a speech recognition model, in place of the built-in recogniser.
        voice: who says answers: a voice of espeak-ng or the path of a piper voice (.onnx).
        speech_rate: how fast; 1 is usual.
    """

    grammar: Path | None = None
    dictation: bool = False
    asr: Path | None = None
    voice: str = DEFAULT_VOICE
    speech_rate: float = 1.0


@dataclass(frozen=True)
class ChatResult:
    """One answered question."""

    turn: Turn
    load_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the answer, its tokens and times, and the pictures."""
        answer, pictures = asdict(self.turn.answer), self.turn.pictures
        return {
            "answer": answer.pop("text"),
            **answer,
            "load_s": self.load_s,
            "encode_s": self.turn.encoded_s,
            "images": [
                {
                    "path": str(picture.path),
                    "sha256": picture.digest,
                    "grid": list(picture.grid),
                    "tiles": picture.tiles,
                    "tokens": picture.tokens,
                    "encode_s": picture.encode_s,
                    "reused": picture.reused,
                }
                for picture in pictures
            ],
        }


@contextmanager
def conversation(
    config: ChatConfig, model: Path, features: Path | None = None, load_vision: bool = True
) -> Iterator[Conversation]:
    """A conversation with a model that begins to load at once.

    Args:
        config: how.
        model: an exported model.
        features: a `features` artifact whose pictures need not be encoded again.
        load_vision: load the vision graphs at the start rather than when the first picture comes.

    Raises:
        BluelmError: a model, artifact or value that cannot be used; all bad values together.
    """
    answering, running = chat_options(config, load_vision)
    artifact = open_artifact(model, "onnx")
    stored = None
    if features is not None:
        stored = StoredFeatures(open_artifact(features, "features").path, artifact.digest)
    disk = user_features(artifact.digest) if config.cache else None
    engine = Engine(artifact.path, running, stored, disk)
    try:
        yield Conversation(engine, answering, artifact.digest)
    finally:
        engine.close()


def run(
    config: ChatConfig, model: Path, prompt: str, images: Sequence[Path] = (), features: Path | None = None
) -> Iterator[Token | Notice | Finished[ChatResult]]:
    """Asks one question.

    Args:
        config: how.
        model: an exported model.
        prompt: the question.
        images: the pictures it is about, in order.
        features: a `features` artifact whose pictures need not be encoded again.

    Yields:
        Every token, then the result.

    Raises:
        BluelmError: anything that cannot be used; all bad pictures together.
    """
    _check(images)
    # With no picture, or with features at hand, the vision graphs may never be needed.
    with conversation(config, model, features, load_vision=bool(images) and features is None) as talk:
        for path in images:
            talk.name(path, check=False)
        talk.engine.wait()
        for notice in talk.engine.notices:
            yield Notice(notice)
        for event in talk.ask(prompt):
            if isinstance(event, Answer):
                if event.reason not in ("stop", None):
                    yield Notice(_cut_short(event, config), "warning")
            else:
                yield event
        yield Finished(ChatResult(talk.turns[-1], talk.engine.load_s))


def listener(config: TalkConfig) -> Listener:
    """Who hears questions: a grammar, free dictation, or a transformers model.

    Raises:
        BluelmError: two of them are named, or one cannot be used.
    """
    from stages.device.speech.grammar import read_grammar, shipped_grammar
    from stages.device.speech.listener import Listener
    from stages.device.speech.sphinx import Sphinx

    named = [name for name in ("grammar", "dictation", "asr") if getattr(config, name)]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in named)} are given together.",
            "A question is heard in one way.",
            "Keep one of them.",
        )
    if config.asr is not None:
        from stages.workshop.speech.recogniser import Recogniser  # the one place where chat needs torch

        return Listener(Recogniser(config.asr))
    if config.dictation:
        return Listener(Sphinx(None))
    return Listener(Sphinx(shipped_grammar() if config.grammar is None else read_grammar(config.grammar)))


@contextmanager
def speaker(config: TalkConfig, file: Path | None = None) -> Iterator[Speaker]:
    """Who says answers, into a wav file or to the loudspeaker where none is named.

    Raises:
        BluelmError: the voice, the loudspeaker or the file cannot be used.
    """
    from stages.device.speech.speaking import open_voice, speaking

    with speaking(open_voice(config.voice, config.speech_rate), file) as voice:
        yield voice


def _check(images: Sequence[Path]) -> None:
    """Looks at the pictures' headers before a model is loaded; where one is bad, at all pixels, to tell all at once.

    Raises:
        BluelmError: the bad pictures, together.
    """
    try:
        completed(make_all("reading", read_size, images))
    except BluelmError:
        completed(make_all("checking", check_image, images))
        raise


def _cut_short(answer: Answer, config: ChatConfig) -> str:
    if answer.reason == "max_tokens":
        return f"The answer was cut after {config.max_tokens} tokens (--max-tokens)."
    return "The answer was cut: the model's context is full."
