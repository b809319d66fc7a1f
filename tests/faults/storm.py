"""Faults at random moments of every stage, through the command line: old or new, never half, then all ends well.

    python -m tests.faults.storm --faults 1000 --results storm.jsonl        goes on where it stopped
    python -m tests.faults.storm --results storm.jsonl --table              by stage and fault

Commands run in forked processes (one that loaded torch once), each in a session of its own. One line of the results a
fault; `problem` is null where everything held:
- the output is the old artifact, the new one, or (where there was no old one) absent; every file has its digest;
- what a user could have caused ended with code 0 or 2 and three beats, an interrupt with 130;
- no lock is held and no process is left;
- the same command then ends with code 0 and the very digest of an undisturbed run, with nothing left beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError
from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.guarding import lock_path
from stages.artifacts.lineage import read_any
from tests.faults import injuries
from tests.faults.injuries import KINDS, MOUNTED, Injury, Undisturbed
from tests.faults.pipeline import Stage, stages, write_sources

DEADLINE = 300.0  # seconds after which a command hangs
_GONE = 10.0  # seconds that a killed command's own processes have to end


def say(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def nothing() -> None:
    """Does nothing."""


def start(words: list[str], log: Path, first: Callable[[], Any] = nothing, last: Callable[[], Any] = nothing) -> int:
    """Runs a command in a forked process; its streams go to a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        from bluelm_cli.app import main

        first()
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130  # before or after the command's own boundary
    finally:
        last()
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(code)
    raise AssertionError("unreachable")


def ended(child: int, deadline: float = DEADLINE) -> int | None:
    """The exit code; None where the process had to be ended."""
    stop = time.monotonic() + deadline
    while time.monotonic() < stop:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def undisturbed(base: Path, chosen: list[str]) -> dict[str, Undisturbed]:
    """Runs all stages once, so that each finds its inputs, and measures them; what is known is read."""
    known_file = base / "undisturbed.json"
    if not known_file.exists():
        write_sources(base)
    known = json.loads(known_file.read_text()) if known_file.exists() else {}
    needed = set(chosen)
    for stage in reversed(stages(base)):
        needed |= set(stage.inputs) if stage.name in needed else set()
    for stage in stages(base):
        if stage.name not in needed or stage.name in known:
            continue
        out, log, count = base / stage.name, base / f"{stage.name}.log", base / f"{stage.name}.count"

        began, writes = time.monotonic(), [0]

        def tell(count: Path = count, writes: list[int] = writes) -> None:
            count.write_text(str(writes[0]))

        # The hook stays in the child, which is the only one to count.
        code = ended(start([*stage.words, "--out", str(out)], log, partial(injuries.count_writes, writes), tell), 900)
        if code != 0:
            raise SystemExit(f"{stage.name} fails without any fault: {code}\n{log.read_text()}")
        manifest = read_any(out)
        seconds = time.monotonic() - began
        known[stage.name] = [seconds, int(count.read_text()), manifest.size + 8192, manifest.digest]
        known_file.write_text(json.dumps(known, indent=1))
        say(f"{stage.name}: {seconds:.1f} s, {known[stage.name][1]} writes")
    return {name: Undisturbed(*values) for name, values in known.items()}


def state_of(out: Path, old: str | None, new: str) -> str:
    """ "absent", "old", "new", or what is wrong."""
    if not os.path.lexists(out):
        return "absent"
    try:
        manifest = read_any(out)
    except ArtifactError as error:
        return f"half: {error.what}"
    for name, entry in manifest.files.items():
        if not (out / name).is_file() or digest_file(out / name) != entry.sha256:
            return f"half: {name}"
    return {old: "old", new: "new"}.get(manifest.digest, "half: another digest")


def write_old(out: Path, kind: str) -> str:
    """An artifact of the stage's kind that something else made; its digest."""
    with create(out, ArtifactSpec(kind, "storm", {"old": True})) as draft:
        (draft.path / "old.txt").write_text("old")
    return read_any(out).digest


def inject(number: int, stage: Stage, injury: Injury, clean: Undisturbed, base: Path, place: Path) -> dict[str, Any]:
    """One fault, and all that is looked at afterwards."""
    out, log = place / "out", base / "command.log"
    row: dict[str, Any] = {
        "number": number,
        "stage": stage.name,
        "kind": injury.kind,
        "moment": round(injury.moment, 4),
    }
    problems: list[str] = []
    with injuries.output_folder(injury, clean, place):
        old = write_old(out, read_any(base / stage.name).kind) if injury.old else None
        words = [*stage.words, "--out", str(out), *(["--force"] if injury.old else [])]
        victim = base / random.Random(number).choice(stage.inputs) if stage.inputs else None
        child = start(words, log, lambda: injuries.before(injury, clean))
        second = start(words, base / "second.log") if injury.kind == "two at once" else None
        with injuries.during(injury, clean, child, place, victim):
            code = ended(child)
        codes = [code] if second is None else [code, ended(second)]
        row.update(old=injury.old, codes=codes, found=state_of(out, old, clean.digest))
        problems += _wrong(injury, row, log.read_text(errors="replace"))
        problems += _left(child, out)
        injuries.give_room(injury, clean, place)
        # Killed between the last write and its end, the new one is there: without --force it is up to date.
        again = ended(start(words if row["found"] != "new" else words[: len(stage.words) + 2], log))
        row.update(again=again, then=state_of(out, old, clean.digest))
        row["beside"] = sorted(path.name for path in place.iterdir() if path.name != "out")
        if (again, row["then"], row["beside"]) != (0, "new", []):
            problems.append(f"the next run: {again}, {row['then']}, beside it {row['beside']}: {_tail(log)}")
    row["problem"] = "; ".join(problems) or None
    return row


def _wrong(injury: Injury, row: dict[str, Any], said: str) -> list[str]:
    """What a fault must not lead to."""
    wrong = []
    if row["found"] not in (("old", "new") if injury.old else ("absent", "new")):
        wrong.append(f"the output is {row['found']}")
    allowed: dict[str, set[int | None]] = {
        "kill": {0, -signal.SIGKILL},
        "kill at a write": {0, -signal.SIGKILL},
        "interrupt": {0, 130},
        "interrupt at a write": {0, 130},
        "terminate": {0, -signal.SIGTERM},
    }
    if not set(row["codes"]) <= allowed.get(injury.kind, {0, 2}):
        wrong.append(f"exit codes {row['codes']}: {said.strip()[-600:]}")
    if injury.kind == "two at once" and (0 not in row["codes"] or row["found"] != "new"):
        wrong.append("neither of two runs ended well")
    if "Traceback" in said or "bug in bluelm" in said:
        wrong.append(f"said: {said.strip()[-600:]}")
    return wrong


def _left(child: int, out: Path) -> list[str]:
    """Locks that are held and processes that stayed."""
    stop = time.monotonic() + _GONE
    while time.monotonic() < stop and (held := _held(child, out)):
        time.sleep(0.1)
    return held


def _held(child: int, out: Path) -> list[str]:
    found = []
    try:
        os.killpg(child, 0)
        found.append("processes are left")
    except ProcessLookupError:
        pass
    lock = lock_path(out)
    if lock.exists():
        with lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append("the lock is held")
    return found


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-600:]


def storm(faults: int, seed: int, results: Path, base: Path, chosen: list[str], kinds: list[Any]) -> int:
    """Injects what is still missing of so many faults; how many had a problem."""
    base.mkdir(parents=True, exist_ok=True)
    clean = undisturbed(base, chosen)
    by_name = {stage.name: stage for stage in stages(base)}
    if not injuries.can_mount(base):
        say("no right to mount: full disks and read-only folders are left out")
        kinds = [kind for kind in kinds if kind not in MOUNTED]
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    bad = sum(row["problem"] is not None for row in done)
    for number in range(len(done), faults):
        rng = random.Random(f"{seed}-{number}")
        stage = by_name[chosen[number % len(chosen)]]
        # Every stage meets every kind after stages × kinds faults, whatever the two numbers have in common.
        kind = kinds[(number + number // len(chosen)) % len(kinds)]
        injury = Injury(kind, rng.random(), rng.random() < 0.5)
        with tempfile.TemporaryDirectory(prefix="bluelm-storm-") as folder:
            row = inject(number, stage, injury, clean[stage.name], base, Path(folder) / "place")
        with results.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        bad += row["problem"] is not None
        say(f"{number}: {stage.name}, {kind}: {row['problem'] or row['found']}")
    return bad


def table(results: Path) -> str:
    """Faults by stage and kind, as Markdown: how many, and how many of them had a problem."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    counts = Counter((row["stage"], row["kind"]) for row in rows)
    bad = Counter((row["stage"], row["kind"]) for row in rows if row["problem"] is not None)
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    lines = ["| stage | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name in dict.fromkeys(row["stage"] for row in rows):
        cells = [
            f"{counts[name, kind] or '–'}" + (f" ({bad[name, kind]} failed)" if bad[name, kind] else "")
            for kind in kinds
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{len(rows)} faults, {sum(bad.values())} with a problem."])


def main() -> None:
    """The command line."""
    names = [stage.name for stage in stages(Path())]
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--faults", type=int, default=1000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--results", type=Path, required=True)
    asked.add_argument("--base", type=Path, default=Path(tempfile.gettempdir()) / "bluelm-storm-inputs")
    asked.add_argument("--stage", action="append", choices=names)
    asked.add_argument("--kind", action="append", choices=KINDS)
    asked.add_argument("--table", action="store_true")
    given = asked.parse_args()
    if given.table:
        say(table(given.results))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for heavy in ("torch", "transformers", "onnxruntime", "onnx", "bluelm_cli.app"):
        __import__(heavy)
    chosen, kinds = given.stage or names, given.kind or list(KINDS)
    bad = storm(given.faults, given.seed, given.results, given.base.resolve(), chosen, kinds)
    shutil.rmtree(given.base / "probe", ignore_errors=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
