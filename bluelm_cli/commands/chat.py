"""`bluelm chat`: one question with `--prompt`, a server with `--serve`, a conversation without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bare_flag import MICROPHONE, BareListenCommand
from bluelm_cli.options import Json, Recipe, Seed, Set, Threads
from bluelm_cli.tuned import Profile, measured, tell
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from bluelm_cli.speech import SpeechFlags
    from stages.artifacts.events import Finished, Notice
    from stages.chat import ChatResult, TalkConfig
    from stages.chat_serve import ServeResult
    from stages.device.runtime.generator import Token

_TUNED = ("batch", "chunk", "threads")


def chat(
    model: Annotated[Path | None, typer.Argument(help="An exported model (default: the demo's).")] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="A picture to ask about (repeatable, in order).")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this and end; - reads it from stdin.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of an answer (256).")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0, the default, always takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Draw among this many tokens only (0: all).")] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw among the likeliest that make up this mass (1: all).")
    ] = None,
    seed: Seed = None,
    chunk: Annotated[int | None, typer.Option("--chunk", help="Prompt tokens per prefill step (256).")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Tiles per batch (1).")] = None,
    profile: Profile = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="Features that bluelm encode wrote with this model.")
    ] = None,
    keep_vision: Annotated[
        bool, typer.Option("--keep-vision", help="Hold the vision graphs in memory between pictures.")
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Keep nothing on disk ($BLUELM_CACHE): weights, features of pictures, lines typed."
        ),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="[WAV]", help="Ask what is said in this wav file; alone: at the microphone, in turns."
        ),
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option("--grammar", metavar="JSGF", help="--listen: the questions that may be asked.")
    ] = None,
    dictation: Annotated[
        bool, typer.Option("--dictation", help="--listen: hear anything; most questions are misheard.")
    ] = False,
    asr: Annotated[
        Path | None, typer.Option("--asr", metavar="DIR", help="--listen: hear with this transformers model.")
    ] = None,
    speak: Annotated[bool, typer.Option("--speak", help="Say answers while they are made.")] = False,
    speak_to: Annotated[
        Path | None, typer.Option("--speak-to", metavar="WAV", help="Say answers into this file instead.")
    ] = None,
    voice: Annotated[
        str | None, typer.Option("--voice", help="espeak-ng's voice or language (en-us), or a piper voice's .onnx.")
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar="[HOST:]PORT", help="Answer programs: an OpenAI-compatible API at this port."),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="NAME", help="--serve: requests must carry the key in this variable."),
    ] = None,
    allow_files: Annotated[
        Path | None, typer.Option("--allow-files", metavar="DIR", help="--serve: requests may name pictures in here.")
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="--serve: fetch pictures that requests name, from public machines.")
    ] = False,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Ask an exported model about pictures; without --prompt, talk with it.

    Example: bluelm chat --image photo.png --prompt "What is this?"

    Example: bluelm chat build/onnx --image photo.png

    Example: bluelm chat --image photo.png --listen question.wav --speak

    Example: bluelm chat build/onnx --serve 8000
    """
    from bluelm_cli.speech import Ears, SpeechFlags
    from stages.artifacts.recipes import load_config
    from stages.chat import TalkConfig
    from stages.device.runtime.shipped import model_or_shipped

    flags = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "chunk": chunk,
        "batch": batch,
        "threads": threads,
        "keep_vision": keep_vision or None,
        "cache": False if no_cache else None,
    }
    spoken = {"grammar": grammar, "dictation": dictation or None, "asr": asr, "voice": voice}
    serving = {"api_key_env": api_key_env, "allow_files": allow_files, "allow_urls": allow_urls or None}
    if serve is not None:
        alone = (prompt, images or None, listen, speak or None, speak_to, *spoken.values())
        if any(value is not None for value in alone):
            raise UsageError(
                "--serve with --prompt, --image or speech.",
                "A server answers what it is sent.",
                "Leave one of them out.",
            )
        served = _serve(flags | serving, recipe, sets or [], model_or_shipped(model), serve, features, profile)
        if as_json:
            console.emit_json(served.as_dict())
        return
    if any(value is not None for value in serving.values()):
        raise UsageError(
            "--api-key-env, --allow-files and --allow-urls need --serve.", "They are a server's.", "Add --serve PORT."
        )
    if listen is not None and prompt is not None:
        raise UsageError("--listen with --prompt.", "There is one question at a time.", "Leave one of them out.")
    folder = model_or_shipped(model)
    suited = measured(folder, profile, _TUNED)
    config = load_config(TalkConfig, recipe=recipe, sets=sets or [], flags=flags | spoken, measured=suited)
    tell(suited, config, profile)
    speech = SpeechFlags(listen == MICROPHONE, speak, speak_to)
    heard = None
    # The microphone is for conversations; a script that wants JSON asks one question.
    if listen is not None and (listen != MICROPHONE or as_json):
        heard = Ears(config).question(None if listen == MICROPHONE else Path(listen))
    question = heard if heard is not None else _from_stdin() if prompt == "-" else prompt
    if question is not None:
        result = _ask(config, folder, question, images or [], features, as_json, speech)
        if as_json:
            console.emit_json(result.as_dict() | ({} if heard is None else {"heard": heard}))
    elif as_json:
        raise UsageError(
            "--json without --prompt.", "A conversation has no single answer to print.", "Add --prompt TEXT."
        )
    else:
        from bluelm_cli.conversation import talk

        talk(config, folder, images or [], features, speech)


def _ask(
    config: TalkConfig,
    model: Path,
    prompt: str,
    images: list[Path],
    features: Path | None,
    quiet: bool,
    speech: SpeechFlags,
) -> ChatResult:
    """One question; unless quiet, its answer streams to stdout; it is said where that is asked for."""
    from bluelm_cli.speech import mouth
    from stages import chat as stage

    with mouth(config, speech) as speaker:
        events = stage.run(config, model, prompt, images, features)
        return _show(events if speaker is None else speaker.follow(events), quiet)


def _show(events: Iterator[Token | Notice | Finished[ChatResult]], quiet: bool) -> ChatResult:
    from bluelm_cli.chat_text import printable
    from stages.artifacts.events import Finished, Notice

    notices: list[Notice] = []
    result: ChatResult | None = None
    for event in events:  # to their end: a speaker says the last sentence there
        if isinstance(event, Finished):
            result = event.result
        elif isinstance(event, Notice):
            notices.append(event)
        elif not quiet:
            console.emit_text(printable(event.text), end="")
    if result is None:
        raise RuntimeError("the stage ended without a Finished event")
    if not quiet:
        console.emit_text("")
    for notice in notices:
        console.note(notice.text, notice.level == "warning")
    return result


def _serve(
    flags: dict[str, Any],
    recipe: str | None,
    sets: list[str],
    model: Path,
    address: str,
    features: Path | None,
    profile: Path | None,
) -> ServeResult:
    """Serves until it is stopped, and says what was done."""
    from stages import chat_serve as stage
    from stages.artifacts.events import Finished
    from stages.artifacts.recipes import load_config

    suited = measured(model, profile, _TUNED)
    config = load_config(stage.ServeConfig, recipe=recipe, sets=sets, flags=flags, measured=suited)
    tell(suited, config, profile)
    for event in stage.run(config, model, address, features):
        if isinstance(event, Finished):
            return event.result
        console.note(event.text, event.level == "warning")
    raise RuntimeError("the stage ended without a Finished event")


def _from_stdin() -> str:
    text = sys.stdin.read().strip()
    if not text:
        raise UsageError("--prompt - found nothing on stdin.", "There is no question.", "Pipe a text into the command.")
    return text


chat.command_class = BareListenCommand  # type: ignore[attr-defined]
