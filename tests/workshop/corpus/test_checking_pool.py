"""Rows checked in processes that a picture can bring down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.workshop.corpus import checking_pool
from stages.workshop.corpus.checking import Finding, Length
from stages.workshop.corpus.row import BadRow, Place, Problem, Row, Turn


def end_on_crash(rows: Sequence[Row | BadRow], length: Length | None) -> list[Finding]:
    """Stands for a decoder that crashes at one row; the processes find it by its name."""
    if any(row.name == "crash" for row in rows):
        os._exit(3)
    return [Finding((Problem("form", str(row.name)),)) for row in rows]


def test_a_picture_that_ends_its_process_costs_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"r{number}" for number in range(100)]
    names[40] = "crash"
    rows = [Row(name, (Turn("user", "?"), Turn("assistant", "!"))) for name in names]
    monkeypatch.setattr(checking_pool, "_check", end_on_crash)
    found = list(checking_pool.check_rows(rows, None, 2))
    assert [row.name for row, _ in found] == names
    texts = [finding.problems[0].text for _, finding in found]
    assert texts[40] == "decoding its pictures ends the process that does it"
    assert texts[:40] + texts[41:] == names[:40] + names[41:]


def test_findings_survive_their_file(tmp_path: Path) -> None:
    wrong = Finding((Problem("marks", "ü\u2028\udcff"), Problem("form", "b")), ("ab" * 32,), 7)
    assert Finding.of_line(wrong.as_line()) == wrong
    assert wrong.as_line().isascii() and wrong.as_line().count("\n") == 1
    rows = [BadRow(Place(tmp_path, number), wrong.problems) for number in range(5)]
    log = tmp_path / "findings"
    found = list(checking_pool.replayed(log, rows, None, 1))
    whole = log.read_bytes()
    for kept in (len(whole), len(whole) - 5, 3, 0):
        log.write_bytes(whole[:kept])
        assert list(checking_pool.replayed(log, rows, None, 1)) == found
        assert log.read_bytes() == whole
