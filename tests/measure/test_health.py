"""What doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.measure.health import examine


def test_the_cache_of_prepared_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLUELM_CACHE", str(tmp_path / "cache"))
    entry = tmp_path / "cache" / ("0" * 32)
    entry.mkdir(parents=True)
    found = {item.name: item for item in examine()}["prepared weights"]
    assert (found.value, found.advice) == (f"0.0 GB in {tmp_path / 'cache'}", "")
    with (entry / "graph.data").open("wb") as stream:
        stream.truncate(2_000_000_000)
    found = {item.name: item for item in examine()}["prepared weights"]
    assert found.value.startswith("2.0 GB in ")
    assert "--no-cache" in found.advice and found.verdict == "ok"


@pytest.mark.parametrize(
    ("cpu", "verdict", "told"),
    [
        ("flags\t\t: sse2 avx2 avx512f", "slow", ("VNNI", "saturate", "bluelm bench eval")),
        ("flags\t\t: avx2 avx512_vnni", "ok", ()),
        ("Features\t: asimd", "slow", ("DOTPROD",)),
    ],
)
def test_slow_and_perhaps_saturating_products_are_told(
    cpu: str, verdict: str, told: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda p, *a, **k: cpu if p == Path("/proc/cpuinfo") else read(p, *a, **k))
    found = next(item for item in examine() if item.name == "instruction sets")
    assert found.verdict == verdict and "\n" not in found.advice
    assert all(word in found.advice for word in told) and bool(found.advice) == bool(told)
