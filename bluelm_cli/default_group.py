"""A group of commands one of which is meant when no name is given: `bluelm bench MODEL` is `bluelm bench run MODEL`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from stages.artifacts.errors import UsageError


class DefaultGroup(TyperGroup):
    """A typer group whose `default_command` is run when the first word names no command.

    The first word is then the default command's own first argument or option; nothing at all runs it too. `--help`
    before any other word stays the group's.
    """

    default_command: str = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command's name in front where no command is named."""
        return super().parse_args(ctx, self.with_default(args, ctx))

    def with_default(self, args: list[str], ctx: Any) -> list[str]:
        """The words with a command's name in front.

        Raises:
            UsageError: the first word looks like a misspelt command and is not there as a file.
        """
        if not args:
            # While a shell completes, an empty line must still offer the commands.
            return args if ctx.resilient_parsing else [self.default_command]
        first = args[0]
        if first in self.commands or first in ctx.help_option_names:
            return args
        if not ctx.resilient_parsing:
            self._refuse_typo(first)
        return [self.default_command, *args]

    def _refuse_typo(self, word: str) -> None:
        near = difflib.get_close_matches(word, list(self.commands), n=1, cutoff=0.6)
        if near and word.isalpha() and not Path(word).exists():
            raise UsageError(
                f"{word!r} is neither a command of {self.name!r} nor a folder here.",
                f"A first word that names no command is taken as the argument of {self.default_command!r}.",
                f"Did you mean {near[0]!r}?",
            )
