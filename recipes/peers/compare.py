"""Runs our engine and the peers in turns and prints one table of paired ratios; `compare.sh` prepares what it needs.

Each contender lives in a worker process of its own environment that loads once and waits; see `worker.py`. In every
turn each of them runs once, one after the other (A-B-A-B), the others' processes stopped. Ratios are taken turn by turn
(`stages.measure.paired`). Of a peer's settings the one with the smallest median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError
from stages.measure.disturbance import watched
from stages.measure.machine import describe_machine, usable_cores
from stages.measure.paired import fastest, paired_ratio
from stages.measure.peer_process import PeerProcess

HERE = Path(__file__).resolve().parent
TESTS = ("prefill", "decode", "vit")
# Turns may be disturbed and done again until there are so many times as many as were asked for.
AGAIN = 3
VIT_FORMS = ("int8", "int16")
POLICIES = ("mix", "paper", "int8", "float")


@dataclass(frozen=True)
class Contender:
    """One thing that is timed: a case of a worker.

    `side` is "ours" or the peer's name; of a peer's contenders the fastest is compared.
    """

    name: str
    side: str
    worker: str
    case: str


@dataclass(frozen=True)
class Comparison:
    """What runs in turns, how much work one run is, and in which unit it is told."""

    test: str
    contenders: tuple[Contender, ...]
    work: int
    unit: str


def run_turns(
    comparison: Comparison, workers: Mapping[str, PeerProcess], warmup: int, pairs: int, calm: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Records of `pairs` turns, after `warmup` turns that don't count.

    A turn in which others had more than `calm` of the processor during any of its runs is done again, so often that
    there are `AGAIN` times as many turns at most; what is still disturbed then counts, and its records say so.
    """
    kept: list[list[dict[str, Any]]] = []
    disturbed: list[list[dict[str, Any]]] = []
    for turn in range(-warmup, AGAIN * pairs):
        records = [_one_run(comparison, one, workers, turn) for one in comparison.contenders]
        if turn < 0:
            continue
        worst = max(record["others"] for record in records)
        (kept if worst <= calm else disturbed).append(records)
        if worst > calm:
            sys.stderr.write(f"turn {turn} is done again: others had {100 * worst:.0f} % of the processor\n")
        if len(kept) == pairs:
            break
    disturbed.sort(key=lambda records: max(record["others"] for record in records))
    for records in [*kept, *disturbed][:pairs]:
        yield from records


def _one_run(comparison: Comparison, one: Contender, workers: Mapping[str, PeerProcess], turn: int) -> dict[str, Any]:
    worker = workers[one.worker]
    with watched(worker.process.pid) as seen:
        seconds = worker.ask(comparison.test, one.case)["seconds"]
    sys.stderr.write(f"{comparison.test} turn {turn}: {one.name} {seconds:.3f} s\n")
    return {
        "test": comparison.test,
        "turn": turn,
        "contender": one.name,
        "side": one.side,
        "seconds": seconds,
        "others": round(seen.share, 4),
        "work": comparison.work,
        "unit": comparison.unit,
    }


def ratios(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each of our contenders and each peer's fastest, test by test, in the order of the records."""
    rows = []
    for test in dict.fromkeys(record["test"] for record in records):
        times: dict[str, dict[str, list[float]]] = {}
        for record in records:
            if record["test"] == test:
                times.setdefault(record["side"], {}).setdefault(record["contender"], []).append(record["seconds"])
        ours = times.pop("ours")
        for name, seconds in ours.items():
            for others in times.values():
                best = fastest(others)
                rows.append({"test": test, "ours": name, "peer": best, **paired_ratio(seconds, others[best]).as_dict()})
    return rows


def speeds(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Median seconds and speed of every contender."""
    rows = []
    for test, name in dict.fromkeys((record["test"], record["contender"]) for record in records):
        mine = [record for record in records if (record["test"], record["contender"]) == (test, name)]
        seconds = statistics.median(record["seconds"] for record in mine)
        work, unit = mine[0]["work"], mine[0]["unit"]
        speed = f"{1000 * seconds / work:.1f} ms/tile" if unit == "tile" else f"{work / seconds:.1f} tok/s"
        others = max(record["others"] for record in mine)
        rows.append({"test": test, "contender": name, "seconds": seconds, "speed": speed, "others": others})
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The result as it goes into a report: ratios, speeds, errors, versions."""
    machine = result["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['instruction_sets'])}; {result['settings']}",
        "",
        "| test | ours | peer | times as fast (median) | 95 % interval | time ratio | pairs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["ratios"]:
        sure = "" if row["coverage"] >= 0.95 else f" ({100 * row['coverage']:.0f} % only)"
        interval = f"{row['low']:.2f} – {row['high']:.2f}{sure}"
        cells = [
            row["test"],
            row["ours"],
            row["peer"],
            f"**{row['median']:.2f}**",
            interval,
            f"{1 / row['median']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} | {row['pairs']} |")
    lines += ["", "| test | contender | median seconds | speed | others had at most |", "|---|---|---|---|---|"]
    for row in result["speeds"]:
        cells = [row["test"], row["contender"], f"{row['seconds']:.3f}", row["speed"], f"{100 * row['others']:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    if result["errors"]:
        lines += ["", "| relative error | tower features | image tokens |", "|---|---|---|"]
        lines += [f"| {e['what']} | {e['vit_features']:.5f} | {e['image_features']:.5f} |" for e in result["errors"]]
    lines += [""] + [f"- {name}: {versions}" for name, versions in result["versions"].items()]
    return "\n".join(lines) + "\n"


def vit_errors(workers: Mapping[str, PeerProcess], contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """Relative errors against torch in float32; ours also against torch with the weights already rounded."""
    import numpy as np

    def features(worker: str, case: str) -> Any:
        return dict(np.load(workers[worker].ask("features", case)["file"]))

    references = {"": features("torch", "float32"), ", beyond rounded weights": features("torch", "rounded")}
    rows = []
    for one in contenders:
        found = features(one.worker, one.case)
        for suffix, true in references.items() if one.side == "ours" else [("", references[""])]:
            errors = {
                name: float(np.linalg.norm(found[name] - true[name]) / np.linalg.norm(true[name])) for name in true
            }
            rows.append({"what": one.name + suffix, **errors})
    return rows


def decoder_side(options: argparse.Namespace, work: Path) -> tuple[dict[str, list[str]], list[Comparison]]:
    """Workers and comparisons of the language model."""
    sizes = [str(size) for size in (options.prompt, options.generate, options.threads)]
    models, chunk = work / "models", str(options.chunk)
    cache = "" if options.no_cache else str(work / "prepacked")
    commands = {
        "llama": [options.llama_python, "llama_decoder.py", str(models / f"llama-{options.layers}.gguf"), *sizes]
    }
    ours = []
    for policy in options.policies:
        folder = models / f"{policy}-{options.layers}"
        commands[policy] = [sys.executable, "ours_decoder.py", str(folder), *sizes, chunk, cache]
        ours.append(Contender(f"ours {policy}", "ours", policy, policy))
    made = {
        "prefill": ("llama.cpp, f16 KV, ", "llama.cpp", ("ubatch 128", "ubatch 512"), options.prompt),
        "decode": ("llama.cpp, KV ", "llama.cpp", ("f16", "q8_0"), options.generate),
    }
    comparisons = []
    for test, (label, side, cases, amount) in made.items():
        if options.only in (None, test):
            peers = [Contender(label + case, side, "llama", case) for case in cases]
            comparisons.append(Comparison(test, _alternating(ours, peers), amount, "token"))
    return commands, comparisons


def vision_side(options: argparse.Namespace, work: Path) -> tuple[dict[str, list[str]], list[Comparison]]:
    """Workers and comparisons of the image encoder."""
    folder = str(work / "models" / f"vit-{options.vit_layers}")
    tiles, threads = str(options.tiles), str(options.threads)
    # A process for each of ours: the threads of one model would spin on, stopped and woken, beside the other.
    commands = {form: [sys.executable, "ours_vit.py", folder, tiles, threads] for form in VIT_FORMS} | {
        "openvino": [options.openvino_python, "openvino_vit.py", folder, tiles, threads],
        "torch": [options.torch_python, "torch_vit.py", folder, str(options.vit_layers), tiles, threads],
    }
    ours = [Contender(f"ours, {form} activations", "ours", form, form) for form in VIT_FORMS]
    peers = [
        Contender("OpenVINO, NNCF INT8 PTQ", "OpenVINO", "openvino", "int8 ptq"),
        Contender("transformers, float32", "transformers float32", "torch", "float32"),
        Contender("transformers, bfloat16", "transformers bfloat16", "torch", "bfloat16"),
    ]
    return commands, [Comparison("vit", _alternating(ours, peers), options.tiles, "tile")]


def _alternating(ours: Sequence[Contender], peers: Sequence[Contender]) -> tuple[Contender, ...]:
    """A peer, one of ours, a peer, one of ours …: the two of a pair lie as near to each other as they can."""
    longest = max(len(ours), len(peers))
    return tuple(side[index] for index in range(longest) for side in (peers, ours) if index < len(side))


def compare(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs everything that was asked for; records go to `records.jsonl` as they come."""
    groups = []
    if options.only in (None, "prefill", "decode"):
        groups.append(decoder_side(options, work))
    if options.only in (None, "vit"):
        groups.append(vision_side(options, work))
    records: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "records.jsonl").open("w", encoding="utf-8") as stream:
        for commands, comparisons in groups:
            with contextlib.ExitStack() as stack:
                workers = {}
                for name, (python, script, *rest) in commands.items():
                    worker = PeerProcess([python, str(HERE / script), *rest], options.out / f"{name}.log")
                    workers[name] = stack.enter_context(worker)
                    versions[Path(script).stem] = " ".join(f"{key} {value}" for key, value in worker.versions.items())
                for comparison in comparisons:
                    if comparison.test == "vit":
                        errors += vit_errors(workers, comparison.contenders)
                    for record in run_turns(comparison, workers, options.warmup, options.pairs, options.calm):
                        stream.write(json.dumps(record) + "\n")
                        stream.flush()
                        records.append(record)
    return {
        "ratios": ratios(records),
        "speeds": speeds(records),
        "errors": errors,
        "versions": versions,
        "machine": describe_machine(),
        "settings": settings_of(options),
    }


def settings_of(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    parts = [f"{options.threads} threads", f"{options.pairs} pairs after {options.warmup} warm-up"]
    if options.only != "vit":
        chunk = f"chunk {options.chunk}" if options.chunk else "our default chunk"
        parts.append(
            f"{options.layers} of 40 decoder layers, prompt {options.prompt}, {options.generate} tokens, {chunk}"
        )
    if options.only in (None, "vit"):
        parts.append(f"{options.vit_layers} of 27 tower layers, {options.tiles} tiles")
    return "; ".join(parts)


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line; argparse ends with 2 where it cannot."""

    def count(text: str) -> int:
        value = int(text)
        if value < 1:
            raise argparse.ArgumentTypeError(f"{text} is not at least 1")
        return value

    parser = argparse.ArgumentParser(prog="compare.sh WORK", description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of environments, models and results")
    parser.add_argument("--only", choices=TESTS, help="one comparison instead of all")
    parser.add_argument("--pairs", type=count, default=7, help="turns that count (7 bound the median at 95 %%)")
    parser.add_argument("--warmup", type=int, default=1, help="turns before them")
    parser.add_argument(
        "--calm", type=float, default=0.05, help="a turn is done again where others had more of the processor (0…1)"
    )
    parser.add_argument("--layers", type=count, default=8, help="decoder layers, of 40")
    parser.add_argument("--vit-layers", type=count, default=6, help="tower layers, of 27")
    parser.add_argument("--tiles", type=count, default=4, help="tiles of a picture, one batch")
    parser.add_argument("--prompt", type=count, default=2048, help="tokens of the prompt")
    parser.add_argument("--generate", type=count, default=32, help="tokens decoded after it")
    parser.add_argument("--chunk", type=int, default=0, help="tokens per prefill call of ours (0: the runtime's own)")
    parser.add_argument("--policies", default="mix,paper", help="ours: mix, paper, int8, float; with commas")
    parser.add_argument("--threads", type=count, default=usable_cores(), help="threads of everyone")
    parser.add_argument("--no-cache", action="store_true", help="ours: load without prepacked weights on disk")
    parser.add_argument("--out", type=Path, help="where results go (WORK/results)")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--llama-python", default="python3", help=argparse.SUPPRESS)
    parser.add_argument("--openvino-python", default="python3", help=argparse.SUPPRESS)
    parser.add_argument("--torch-python", default=sys.executable, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.policies = tuple(filter(None, options.policies.split(",")))
    if not options.policies:
        parser.error("--policies names none")
    if unknown := sorted(set(options.policies) - set(POLICIES)):
        parser.error(f"--policies names {', '.join(unknown)}; there are {', '.join(POLICIES)}")
    if options.tiles > 12:
        parser.error(f"--tiles is {options.tiles}; at most 12 (the last 4 of 16 calibrate OpenVINO)")
    options.out = options.out or options.work / "results"
    return options


def main() -> None:
    options = options_of(sys.argv[1:])
    if options.check:
        return
    try:
        result = compare(options, options.work)
    except BluelmError as error:
        raise SystemExit(str(error)) from error
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = markdown(result)
    (options.out / "result.md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
