"""The readers of tests/hostile/targets.py under atheris, which follows the branches that bytes take.

    fuzz.py TARGET CORPUS_FOLDER [libFuzzer's flags: -max_total_time=600 …]

`recipes/fuzz.sh` makes the environment and runs all of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stages", "yaml", "json"]):
    from tests.hostile.targets import SEEDS, attempt

# What is read only once per file would else tell nothing new.
_FOLDER = Path(tempfile.mkdtemp(prefix="bluelm-fuzz-"))


def main() -> None:
    """Runs one target until libFuzzer stops."""
    target, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], lambda data: attempt(target, data, _FOLDER))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
