"""The lines of a scripted conversation."""

from __future__ import annotations

import sys


class PipeLines:
    """Lines of a script."""

    def read(self) -> str | None:
        """The next line, None at the end of input."""
        line = sys.stdin.readline()
        return line.strip() if line else None

    def refresh(self) -> None:
        """Nothing is drawn."""
