"""Errors that a user can act on.

Every one has three beats: what is wrong (with the file and the value), why it matters, what to do. The terminal
prints them and exits with code 2; anything else that escapes a stage is a bug and exits with code 1.
"""

from __future__ import annotations

from collections.abc import Sequence


class BluelmError(Exception):
    """A problem the user can fix.

    Args:
        what: what is wrong, naming the file and the value.
        why: why that matters here.
        fix: what to do about it.
    """

    def __init__(self, what: str, why: str, fix: str) -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(f"{what}\n{why}\n{fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes; Exception would hand on its one text."""
        return type(self), (self.what, self.why, self.fix)

    @property
    def problems(self) -> tuple[BluelmError, ...]:
        """The single problems this error is made of: itself, unless it collects several."""
        return (self,)


class ProblemsError(BluelmError):
    """Several problems found before work started, reported together."""

    def __init__(self, problems: Sequence[BluelmError]) -> None:
        self._problems = tuple(inner for problem in problems for inner in problem.problems)
        if not self._problems:
            raise ValueError("ProblemsError needs at least one problem")
        first = self._problems[0]
        super().__init__(f"{len(self._problems)} problems; the first: {first.what}", first.why, first.fix)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._problems,)

    @property
    def problems(self) -> tuple[BluelmError, ...]:
        return self._problems


class UsageError(BluelmError):
    """A flag, argument or combination of them that cannot work."""


class ImageError(BluelmError):
    """A picture that cannot be read, is broken, or is refused for safety."""


class AudioError(BluelmError):
    """A recording that cannot be read, or a microphone, loudspeaker or voice that cannot be used."""


class RecipeError(BluelmError):
    """A recipe file or a `--set` that does not fit its configuration."""


class ArtifactError(BluelmError):
    """An artifact folder that is missing, damaged, of the wrong kind, or in the way."""


class ModelError(BluelmError):
    """A model folder, checkpoint or graph that does not fit what it is used for."""


class DataError(BluelmError):
    """A data file or row that cannot be used."""


class MissingExtraError(BluelmError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed.",
            f"It is needed for {purpose}.",
            f"Install it with: pip install 'bluelm[{extra}]'",
        )


def raise_all(problems: Sequence[BluelmError]) -> None:
    """Raises the problems, together when there are several; does nothing when there are none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ProblemsError(problems)
