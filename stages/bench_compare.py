"""bench compare: two benches, or the settings of one, with intervals and a verdict only where one is due.

bluelm bench compare build/before build/after
bluelm bench compare build/fig8
"""

from __future__ import annotations

from pathlib import Path

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.measure.comparing import Comparison, compare_benches, compare_settings
from stages.measure.record_files import read_records
from stages.measure.records import Record


def run(paths: list[Path]) -> Comparison:
    """Compares one bench's settings with each other, or two benches.

    Args:
        paths: bench folders, `results.jsonl`, or what llama-bench printed; one or two.

    Raises:
        UsageError: more than two, or nothing in common.
        ArtifactError: records that cannot be read, of both together.
    """
    if len(paths) not in (1, 2):
        raise UsageError(
            f"{len(paths)} benches were given.", "Two are compared, or the settings of one.", "Name one or two."
        )
    read: list[tuple[Record, ...]] = []
    problems: list[BluelmError] = []
    for path in paths:
        try:
            read.append(read_records(path))
        except BluelmError as problem:
            problems.append(problem)
    raise_all(problems)
    made = compare_settings(read[0]) if len(read) == 1 else compare_benches(*read)
    if not made.rows:
        raise UsageError(
            f"{' and '.join(str(path) for path in paths)}: nothing to compare.",
            "No test was run under two settings." if len(paths) == 1 else "They have no test and setting in common.",
            "Run the same bench on both sides (bluelm bench run --help), or a sweep: bluelm bench fig8.",
        )
    return made
