"""Every pinned package is listed with its licence, and none under the GPL comes with a plain installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def licences(project_root: Path) -> Any:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("licences", project_root / "recipes" / "release_licences.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["licences"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def listed(licences: Any) -> dict[str, Any]:
    """The rows of the list."""
    rows = [line.split(" | ") for line in licences.TARGET.read_text(encoding="utf-8").splitlines() if "| " in line[:2]]
    cells = [[cell.strip("| ") for cell in row] for row in rows[1:]]
    return {row[0]: licences.Package(row[0], row[1], row[2], tuple(row[3].split(", "))) for row in cells}


def test_the_list_is_of_what_is_pinned(licences: Any, listed: dict[str, Any], project_root: Path) -> None:
    pins = licences.pins((project_root / "constraints.txt").read_text(encoding="utf-8"))
    assert {name: one.version for name, one in listed.items()} == pins, "python recipes/release_licences.py"


def test_every_licence_is_known_and_a_plain_installation_is_free_of_the_gpl(
    licences: Any, listed: dict[str, Any]
) -> None:
    found = list(listed.values())
    assert licences.problems(found) == []
    copyleft = {one.name: one.groups for one in found if licences.COPYLEFT.search(one.licence)}
    assert set(copyleft) == {"espeakng-loader", "piper-tts"}
    assert all("base" not in groups for groups in copyleft.values())


def test_the_list_says_what_the_packages_say(licences: Any, listed: dict[str, Any], project_root: Path) -> None:
    metadata = {}
    for one in importlib.metadata.distributions():
        name = licences.canonicalize_name(one.metadata["Name"])
        if name in listed and one.version.partition("+")[0] == listed[name].version:
            metadata[name] = one.metadata.json
            assert licences.licence(one.metadata.json, name) == listed[name].licence, name
    assert len(metadata) > 40
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {name for name, groups in licences.groups_of(project, metadata).items() if "base" in groups}
    assert base <= {name for name, one in listed.items() if one.groups == ("base",)}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"license_expression": "MIT OR Apache-2.0", "license": "GPL"}, "MIT OR Apache-2.0"),
        ({"license": "Apache 2.0 License"}, "Apache-2.0"),
        ({"license": "A" * 70, "classifier": ["License :: OSI Approved :: BSD License"]}, "BSD"),
        ({"classifier": ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"]}, "GPL-3.0"),
        ({"license": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
        ({"license": "ask me"}, ""),
        ({}, ""),
    ],
)
def test_what_packages_say_is_read(licences: Any, metadata: dict[str, Any], said: str) -> None:
    assert licences.licence(metadata, "any") == said


def test_what_may_not_be_is_told(licences: Any) -> None:
    bad = [
        licences.Package("a", "1", "GPL-3.0-or-later", ("base",)),
        licences.Package("b", "1", "", ("dev",)),
        licences.Package("c", "1", "LicenseRef-Secret", ("base",)),
        licences.Package("d", "1", "GPL-3.0", ("speech",)),
    ]
    assert [line.partition(":")[0] for line in licences.problems(bad)] == ["b", "a", "c"]
