"""What a measurement was made on, without saying whose machine it is: no host name, no user, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
# What decides which kernels run: x86's dot products and matrix units, Arm's.
_TELLING = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_PACKAGES = ("bluelm", "onnxruntime", "numpy", "tokenizers", "pillow")
MEBIBYTE = 1 << 20


def describe_machine() -> dict[str, Any]:
    """CPU model and instruction sets, cores, memory in MiB, system and architecture."""
    import psutil

    cpu, features = _cpu()
    return {
        "cpu": cpu,
        "architecture": platform.machine(),
        "instruction_sets": features,
        "cores": usable_cores(),
        "cores_physical": psutil.cpu_count(logical=False),
        "memory_mb": psutil.virtual_memory().total // MEBIBYTE,
        "system": platform.system(),
    }


def usable_cores() -> int:
    """Cores this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_share() -> float | None:
    """Load of the last minute divided by the usable cores; None where the system keeps no load average."""
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] / usable_cores()


def describe_versions() -> dict[str, str]:
    """Python and the packages that a device would carry; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> tuple[str, list[str]]:
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    model, features = read_cpuinfo(text)
    return model or platform.processor() or platform.machine() or "unknown", features


def read_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Model name ("" where the kernel gives none, as on Arm) and telling features, from the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", ""), [feature for feature in _TELLING if feature in flags]
