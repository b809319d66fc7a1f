"""The licences of everything that is pinned: who brings it, under which terms. Writes recipes/THIRD_PARTY.md.

    python recipes/release_licences.py [--check]

Reads constraints.txt and pyproject.toml of the checkout, and each package's own metadata: that of the installed one
where its version is the pinned one, else what the package index has (nothing is installed). `--check` writes
nothing and exits with 1 where the file is not what would be written, where a licence is not known, or where terms that
ask for more than attribution reach a plain installation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "recipes" / "THIRD_PARTY.md"
# What packages say in words of their own, as SPDX has it. The longest match wins.
SPDX = {
    "apache": "Apache-2.0",
    "mit license": "MIT",
    "mit": "MIT",
    "bsd": "BSD",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "isc": "ISC",
    "mozilla public license 2.0": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "python software foundation": "PSF-2.0",
    "gnu general public license v3": "GPL-3.0",
    "gplv3": "GPL-3.0",
    "gpl": "GPL",
}
# Packages whose metadata says nothing, or not enough, and where their own files say it.
SAID_ELSEWHERE = {
    "espeakng-loader": ("GPL-3.0-or-later", "it carries espeak-ng's library, which is under it"),
    "onnxruntime-qnn": ("MIT AND closed parts", "Qualcomm's compiler and simulator are inside"),
}
EXPRESSION = re.compile(r"[A-Za-z.]+-[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*")
COPYLEFT = re.compile(r"\bA?GPL", re.I)
FREE = re.compile(r"Apache|MIT|BSD|ISC|PSF|MPL|HPND|Zlib|CNRI", re.I)


@dataclass(frozen=True)
class Package:
    """A pinned package; `groups`: the extras that bring it, `base` for a plain installation."""

    name: str
    version: str
    licence: str
    groups: tuple[str, ...]


def pins(text: str) -> dict[str, str]:
    """Versions by canonical name."""
    lines = (line.partition("==") for line in text.splitlines() if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in lines}


def licence(metadata: Mapping[str, object], name: str) -> str:
    """What a package is licensed under, in SPDX's words where it says so; empty where it says nothing.

    Args:
        metadata: as pip's report has it: `license_expression`, `license`, `classifier`.
        name: canonical.
    """
    if name in SAID_ELSEWHERE:
        return SAID_ELSEWHERE[name][0]
    if expression := str(metadata.get("license_expression") or ""):
        return expression
    classifiers = metadata.get("classifier")
    named = [str(one).rpartition("::")[2] for one in classifiers or () if str(one).startswith("License ::")]  # type: ignore[attr-defined]
    first = (str(metadata.get("license") or "").strip().splitlines() or [""])[0]
    found = [_spdx(text) for text in ([first] if len(first) < 60 else []) + named]
    different = [one for one in found if one and not any(other != one and other.startswith(one) for other in found)]
    return " OR ".join(dict.fromkeys(different))


def _spdx(text: str) -> str:
    """One text in SPDX's words: itself where it is that or names several, empty where it names none."""
    known = [words for words in SPDX if words in text.lower()]
    longest = max(known, key=len, default="")
    if EXPRESSION.fullmatch(text) or any(not SPDX[longest].startswith(SPDX[one]) for one in known):
        return text.strip()
    return SPDX[longest] if known else ""


def all_metadata(versions: Mapping[str, str]) -> dict[str, Mapping[str, object]]:
    """Metadata by canonical name: of what is installed in the pinned version, of the rest from the index."""
    found: dict[str, Mapping[str, object]] = {}
    for one in importlib.metadata.distributions():
        name = canonicalize_name(one.metadata["Name"])
        if one.version.partition("+")[0] == versions.get(name):
            found[name] = one.metadata.json
    wanted = [f"{name}=={version}" for name, version in versions.items() if name not in found]
    if wanted:
        words = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-", *wanted]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=True)
        for entry in json.loads(done.stdout)["install"]:
            found[canonicalize_name(entry["metadata"]["name"])] = entry["metadata"]
    # Older pips leave out what newer metadata says of licences.
    silent = [f"{name}=={versions[name]}" for name in versions if name in found and not licence(found[name], name)]
    return found | _from_wheels(silent)


def _from_wheels(wanted: list[str]) -> dict[str, Mapping[str, object]]:
    """Metadata of packages by their wheels, fetched for that."""
    if not wanted:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        words = ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", folder, *wanted]
        subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, check=True)
        found = {}
        for wheel in Path(folder).glob("*.whl"):
            (inside,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
            metadata = importlib.metadata.PathDistribution(inside).metadata
            found[canonicalize_name(metadata["Name"])] = metadata.json
        return found


def groups_of(project: Mapping[str, object], metadata: Mapping[str, Mapping[str, object]]) -> dict[str, set[str]]:
    """The extras that bring each package, itself or through others; markers are those of this machine."""
    extras: Mapping[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    base: list[str] = project["dependencies"]  # type: ignore[assignment]
    groups: dict[str, set[str]] = {}
    for group, texts in {"base": base, **extras}.items():
        waiting = [Requirement(text) for text in texts]
        while waiting:
            one = waiting.pop()
            name = canonicalize_name(one.name)
            if group in groups.setdefault(name, set()) or name not in metadata:
                continue
            groups[name].add(group)
            waiting += _required(metadata[name], one.extras)
    return groups


def _required(metadata: Mapping[str, object], extras: set[str]) -> Iterator[Requirement]:
    for text in metadata.get("requires_dist") or ():  # type: ignore[attr-defined]
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def packages() -> list[Package]:
    """All that is pinned, by name."""
    versions = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    metadata = all_metadata(versions)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = groups_of(project, metadata)
    return [
        Package(name, versions[name], licence(metadata.get(name, {}), name), _brought_by(groups.get(name, set())))
        for name in sorted(versions)
    ]


def _brought_by(groups: set[str]) -> tuple[str, ...]:
    return ("base",) if "base" in groups else tuple(sorted(groups)) or ("build",)


def problems(found: list[Package]) -> list[str]:
    """What may not be: unknown terms, copyleft in a plain installation."""
    unknown = [f"{one.name}: its licence is not known" for one in found if not one.licence]
    strange = [
        f"{one.name}: {one.licence} is no licence that a plain installation may bring"
        for one in found
        if one.licence and "base" in one.groups and (COPYLEFT.search(one.licence) or not FREE.search(one.licence))
    ]
    return unknown + strange


def page(found: list[Package]) -> str:
    """The file."""
    rows = [f"| {one.name} | {one.version} | {one.licence} | {', '.join(one.groups)} |" for one in found]
    copyleft = [one for one in found if COPYLEFT.search(one.licence)]
    named = ", ".join(f"{one.name} ({', '.join(one.groups)})" for one in copyleft)
    notes = [f"{name}: {said} ({where})." for name, (said, where) in SAID_ELSEWHERE.items()]
    return "\n".join(
        [
            "# Third parties",
            "",
            "What `pip install bluelm` and its extras bring on Linux, in the versions of `constraints.txt`, and under",
            "which terms, by each package's own metadata. None of it is copied into this project. Written by",
            "`python recipes/release_licences.py`: nothing under the GPL comes with a plain installation.",
            "",
            f"Under the GPL, and only with an extra: {named or 'nothing'}.",
            "",
            *notes,
            "",
            "| package | version | licence | brought by |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something is wrong")
    arguments = parser.parse_args()
    found = packages()
    wrong = problems(found)
    if arguments.check:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != page(found):
            wrong.append(f"{TARGET.name} is out of date: python recipes/release_licences.py")
    else:
        TARGET.write_text(page(found), encoding="utf-8")
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
