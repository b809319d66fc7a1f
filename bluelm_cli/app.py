"""The command table, the error boundary and the exit codes.

Exit codes: 0 done; 1 our fault (`--debug` shows the traceback); 2 the user can fix it; 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bluelm_cli import console
from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.silence import send_no_statistics

# In the order of the pipeline. A command's module and function have its name, with _ for -.
COMMANDS = (
    "data",
    "tile",
    "adopt",
    "pretrain-tower",
    "pretrain",
    "finetune",
    "split",
    "quantize",
    "export",
    "encode",
    "chat",
    "bench",
    "info",
    "doctor",
)

EXIT_BUG = 1
EXIT_USER = 2

# What the system says of a path that the user can change; other errors of the system are ours.
PATH_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOSPC,
    errno.EDQUOT,
}

# What libraries say of memory that they do not get.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "annot allocate memory", "bad_alloc", "bad allocation")


def _load(name: str) -> Any:
    """Builds one command from its module: a plain function, or a typer app for a group."""
    word = name.replace("-", "_")
    target = getattr(importlib.import_module(f"bluelm_cli.commands.{word}"), word)
    if isinstance(target, typer.Typer):
        group = typer.main.get_command(target)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=getattr(target, "command_class", None))(target)
    return typer.main.get_command(single)


class _LazyCommands(MutableMapping[str, Any]):
    """Commands by name, each module imported when it is first asked for, so that one command never pays for others."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = _load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Pipeline(TyperGroup):
    """The root group: its commands come from the table."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = _LazyCommands()


app = typer.Typer(
    cls=_Pipeline,
    name="bluelm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.emit_text(f"bluelm {version('bluelm')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a multimodal language model fit for a phone (BlueLM-V-3B, arXiv 2411.10640).

    Each step is a command that reads and writes folders: data -> tile -> pretrain -> finetune -> quantize -> export ->
    encode, chat, bench.
    """


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    send_no_statistics()
    words = list(sys.argv[1:] if argv is None else argv)
    # --debug is taken anywhere, since it is usually added to a line that just failed.
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    try:
        app(args=words, prog_name="bluelm")
    except BluelmError as error:
        if debug:
            raise
        console.show_error(error)
        sys.exit(EXIT_USER)
    except Exception as error:
        if debug:
            raise
        if (problem := _path_problem(error) or _name_problem(error, words) or _memory_problem(error)) is not None:
            console.show_error(problem)
            sys.exit(EXIT_USER)
        console.show_bug(error)
        sys.exit(EXIT_BUG)


def _path_problem(error: Exception) -> UsageError | None:
    """The three beats of a path that the system refuses; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in PATH_ERRORS:
        return None
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    return UsageError(
        f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}.",
        "The command needs this path.",
        "Check the path and its rights.",
    )


def _name_problem(error: Exception, words: list[str]) -> UsageError | None:
    """The three beats of a file name in another encoding, which no JSON file can hold; None for any other error."""
    if "surrogates not allowed" not in str(error):
        return None
    named = [os.fsencode(word).decode("utf-8", "backslashreplace") for word in words if not _is_utf8(word)]
    return UsageError(
        f"A file name is not UTF-8: {', '.join(named) or error}.",
        "What bluelm writes is UTF-8 and cannot name that file.",
        "Rename the file.",
    )


def _memory_problem(error: Exception) -> UsageError | None:
    """The three beats of a machine without memory left, in the words of Python, torch or onnxruntime; else None."""
    lacks = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (lacks or isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)):
        return None
    return UsageError(
        "The memory is used up.",
        "The command needs more than this process may have; nothing was replaced.",
        "Close other programs, raise the limit (ulimit -v), or work on less at a time: smaller batches, fewer tiles.",
    )


def _is_utf8(word: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in word)
