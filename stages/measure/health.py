"""What `bluelm doctor` looks at: instruction sets, threads, bandwidth, and versions that don't fit together."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "slow", "wrong"]

# What onnxruntime's kernels look for on x86 and ARM, best last.
_X86 = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_ARM = ("asimd", "asimddp", "i8mm", "sve")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its value, whether it is fine, and what to do where it isn't."""

    name: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""


def examine() -> Iterator[Finding]:
    """All findings, the cheap ones first."""
    yield Finding("python", platform.python_version())
    yield Finding("system", f"{platform.system()} {platform.machine()}")
    yield _instructions()
    yield from _threads()
    yield _memory()
    yield _cache()
    yield from _packages()
    yield _bandwidth()


def _instructions() -> Finding:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding("instruction sets", "unknown here (no /proc/cpuinfo)")
    flags = set(re.findall(r"[\w.]+", " ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE))))
    known = [name for name in (*_X86, *_ARM) if name in flags]
    fast = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & flags
    if fast:
        return Finding("instruction sets", " ".join(known))
    advice = "No 8-bit dot products (DOTPROD): INT8 and INT4 run at a fraction of their speed."
    if flags & set(_X86):
        # As far as we know: onnxruntime multiplies with VPMADDUBSW there, which adds pairs in 16 bits.
        advice = (
            "No VNNI or AMX: INT8 products (a8, a16, compact prefill) are slower here, and as far as we know sums may "
            "saturate; check accuracy with: bluelm bench eval"
        )
    return Finding("instruction sets", " ".join(known) or "none of those that matter", "slow", advice)


def _threads() -> Iterator[Finding]:
    usable = _usable()
    yield Finding("threads", f"{usable} usable of {os.cpu_count()}")
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) != usable:
        advice = "Training and quantization use that many threads; unset it to use all."
        yield Finding("OMP_NUM_THREADS", limit, "slow" if int(limit) < usable else "wrong", advice)


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding("memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free")


def _cache() -> Finding:
    """Prepared weights of large models on disk."""
    from stages.device.runtime.session_cache import user_cache

    cache = user_cache()
    if cache is None:
        return Finding("prepared weights", "none are kept: no home folder", advice="BLUELM_CACHE can name a folder.")
    advice = "Deleting it costs a slower load the next time; chat --no-cache keeps none." if cache.nbytes else ""
    return Finding("prepared weights", f"{cache.nbytes / 1e9:.1f} GB in {cache.folder}", advice=advice)


def _packages() -> Iterator[Finding]:
    """Every dependency of bluelm against the version it asks for, and the known misfits."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("bluelm") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            yield Finding(requirement.name, "missing", "wrong", f"Install it: pip install '{text}'")
        elif not requirement.specifier.contains(found, prereleases=True):
            advice = f"bluelm asks for {requirement.specifier}: pip install '{text}'"
            yield Finding(requirement.name, found, "wrong", advice)
        else:
            yield Finding(requirement.name, found)
    if (vision := _version("torchvision")) is not None and "+cpu" not in vision and "+cpu" in (_version("torch") or ""):
        advice = "It breaks against a CPU torch and with it transformers' image processors: pip uninstall torchvision"
        yield Finding("torchvision", vision, "wrong", advice)
    if _version("onnxruntime-gpu") is not None and _version("onnxruntime") is not None:
        advice = "Both install the same module; the later one wins. Uninstall one."
        yield Finding("onnxruntime-gpu", str(_version("onnxruntime-gpu")), "wrong", advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bandwidth() -> Finding:
    """What bounds decoding: the median of five readings by all threads, and by one."""
    from stages.measure.bandwidth import reader

    usable, rates = _usable(), []
    for threads in dict.fromkeys((usable, 1)):
        with reader(threads) as read:
            rates.append(f"{statistics.median(read() for _ in range(5)):.1f} GB/s by {threads} thread(s)")
    return Finding("memory read", ", ".join(rates))
