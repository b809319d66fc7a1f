"""The machine's description says what matters and nothing that names it."""

from __future__ import annotations

import getpass
import json
import platform
import socket

from stages.measure.machine import describe_machine, describe_versions, read_cpuinfo, usable_cores

X86 = """processor\t: 0
model name\t: AMD EPYC 9R14
flags\t\t: fpu sse avx2 avx512f avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu amx_int8
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"


def test_cpuinfo_of_x86_and_arm() -> None:
    assert read_cpuinfo(X86) == ("AMD EPYC 9R14", ["avx2", "avx512f", "avx512_vnni"])
    assert read_cpuinfo(ARM) == ("", ["asimd", "asimddp", "i8mm"])
    assert read_cpuinfo("") == ("", [])


def test_the_description_is_complete_and_anonymous() -> None:
    machine = describe_machine()
    assert machine["cpu"] and machine["architecture"] == platform.machine()
    assert machine["cores"] == usable_cores() >= 1
    assert machine["memory_mb"] > 0
    text = json.dumps(machine)
    assert socket.gethostname() not in text
    # A user called like a word of the description (such as "arm") would say nothing.
    assert len(getpass.getuser()) < 4 or getpass.getuser() not in text


def test_versions_name_what_runs_the_model() -> None:
    import numpy
    import onnxruntime

    versions = describe_versions()
    assert versions["python"] == platform.python_version()
    assert (versions["numpy"], versions["onnxruntime"]) == (numpy.__version__, onnxruntime.__version__)
