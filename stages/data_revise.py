"""data revise: captions and question-answer pairs written or revised by a model behind an endpoint.

bluelm data revise pictures/ --task create-caption --endpoint http://localhost:8000/v1 --model NAME --out build/captions
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.artifacts.errors import BluelmError, DataError, ImageError, UsageError
from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.artifacts.guarding import refuse_inputs
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.revision.answer_cache import AnswerCache
from stages.workshop.corpus.revision.answers import Task
from stages.workshop.corpus.revision.asking import Asker, ask_all
from stages.workshop.corpus.revision.budget import Budget, Cost, Ledger
from stages.workshop.corpus.revision.endpoint import Endpoint, Patience, key_from
from stages.workshop.corpus.revision.pace import Pace
from stages.workshop.corpus.revision.pictures_alone import open_input
from stages.workshop.corpus.revision.prompt import Prompt, load_prompt
from stages.workshop.corpus.revision.question import Question, Sampling, make_question
from stages.workshop.corpus.revision.revised_corpus import FAILED_FILE, RevisedCorpus
from stages.workshop.corpus.revision.revised_rows import CAPTION_QUESTIONS
from stages.workshop.corpus.revision.sent_picture import SentPictures
from stages.workshop.corpus.row import Row

REPORT_FILE = "report.json"
# Prompts that come with bluelm, for each task.
PROMPTS: dict[Task, str] = {"create-caption": "caption", "create-qa": "qa", "revise": "revise"}
# An estimate looks at so many rows.
_LOOKED_AT = 500
# Who is asked and how patiently changes nothing in what is made.
_NOT_MADE = {"endpoint", "key_variable", "concurrency", "patience"}


class ReviseConfig(RecipeModel):
    """What is asked, of whom, and where it ends."""

    task: Task = Field(default="revise", description="create-caption, create-qa or revise")
    prompt: str | None = Field(default=None, description="a template: a file, or one of bluelm's; else the task's")
    variables: dict[str, Any] = Field(default_factory=dict, description="what the template may use as variables.NAME")
    model: str = Field(description="the endpoint's name of the model", min_length=1)
    sampling: Sampling = Field(default_factory=Sampling, description="how the model answers")
    pictures: SentPictures = Field(default_factory=SentPictures, description="how pictures are sent")
    caption_questions: tuple[str, ...] = Field(
        default=CAPTION_QUESTIONS, min_length=1, description="what a caption answers, one chosen for each row"
    )
    tries: int = Field(default=3, ge=1, description="how often a row is asked whose answer cannot be used")
    rows: int | None = Field(default=None, ge=1, description="only the first so many rows")
    budget: Budget = Field(default_factory=Budget, description="where asking ends")
    endpoint: str | None = Field(default=None, description="base address of an OpenAI-compatible endpoint")
    key_variable: str = Field(default="OPENAI_API_KEY", description="environment variable with the API key")
    concurrency: int = Field(default=8, ge=1, le=1024, description="requests on their way at a time")
    patience: Patience = Field(default_factory=Patience, description="timeouts and retries")

    def load_prompt(self) -> Prompt:
        """The template.

        Raises:
            RecipeError: it is missing or broken.
        """
        return load_prompt(self.prompt or PROMPTS[self.task])


@dataclass(frozen=True)
class ReviseResult:
    """What was asked and made, or would be; `report` is what `report.json` holds."""

    report: dict[str, Any]
    out: Path | None
    config: ReviseConfig

    def as_dict(self) -> dict[str, Any]:
        """The report, with `out` and `config`."""
        config = self.config.model_dump(mode="json")
        return {**self.report, "out": str(self.out) if self.out is not None else None, "config": config}


def plan(
    config: ReviseConfig,
    source: Path,
    out: Path | None = None,
    *,
    format: str | None = None,
    images: Path | None = None,
    split: str = "train",
    cache: Path | None = None,
) -> ReviseResult:
    """What would be asked, from the first rows; sends nothing. Tokens are estimates, and so is money.

    Raises:
        BluelmError: the input or the prompt cannot be used.
    """
    rows = open_input(source, format, images, split)
    prompt = config.load_prompt()
    total = _count(rows, config.rows)
    known = cache if cache is not None else _cache_file(out) if out is not None else None
    keys: list[str] = []
    tokens = failed = 0
    looked_at = min(total, _LOOKED_AT)
    for row in itertools.islice(rows, looked_at):
        try:
            question = _question(config, prompt, row) if isinstance(row, Row) else None
        except (DataError, ImageError):
            question = None
        if question is None:
            failed += 1
            continue
        keys.append(question.key)
        tokens += question.tokens
    cached = 0
    if known is not None and known.is_file():
        with AnswerCache(known) as answers:
            cached = sum(key in answers for key in keys)
    scale = total / looked_at if looked_at else 0
    requests = round((len(keys) - cached) * scale)
    most = Cost(requests, round(tokens * requests / len(keys)) if keys else 0, requests * config.sampling.max_tokens)
    report = {
        "rows": total,
        "looked_at": looked_at,
        "unusable": round(failed * scale),
        "cached": round(cached * scale),
        "requests": requests,
        "prompt_tokens": most.prompt_tokens,
        "most_completion_tokens": most.completion_tokens,
        "most_money": most.money(config.budget.prices),
    }
    return ReviseResult(report, out, config)


def run(
    config: ReviseConfig,
    source: Path,
    out: Path,
    *,
    format: str | None = None,
    images: Path | None = None,
    split: str = "train",
    cache: Path | None = None,
    force: bool = False,
) -> Events[ReviseResult]:
    """Asks about every row and writes a corpus of the answers.

    Args:
        config: what is asked, of whom.
        source: a corpus, conversation data, a picture, or a folder of pictures.
        out: the artifact folder.
        format, images, split: as `open_rows` takes them.
        cache: the file that keeps answers; beside `out` when None.
        force: replace an artifact that differs.

    Raises:
        EndpointError: the endpoint is gone, or refuses everything. All answers so far are in the cache.
        BluelmError: anything else that the user can mend.
    """
    if config.endpoint is None:
        raise UsageError("--endpoint is missing.", "There is nobody to ask.", "Add --endpoint http://HOST:PORT/v1")
    rows = open_input(source, format, images, split)
    refuse_inputs(out, rows.places)
    prompt = config.load_prompt()
    spec = _spec(config, prompt, source, split)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(ReviseResult(_read_report(out), out, config))
        return
    cache_file = cache or _cache_file(out)
    key = key_from(config.key_variable)
    endpoint = Endpoint(config.endpoint, config.patience, key)
    if key is None:
        yield Notice(f"{config.key_variable} is not set: requests go to {config.endpoint} without an API key")
    with create(out, spec, force=force) as draft, AnswerCache(cache_file) as answers:
        if answers.damaged:
            yield Notice(f"{cache_file}: {answers.damaged} damaged lines are passed over", "warning")
        ledger = Ledger(config.budget)
        asker = Asker(config.task, partial(_question, config, prompt), endpoint, answers, ledger, config.tries)
        total = _count(rows, config.rows)
        pace = Pace(total, config.budget.prices)
        with RevisedCorpus(draft.path, config.task, config.caption_questions) as corpus:
            for outcome in ask_all(itertools.islice(rows, total), asker, endpoint, config.concurrency):
                if outcome is None:
                    yield pace.event(asker.tally, ledger.spent)
                else:
                    corpus.write(outcome)
        report = _report(corpus, total, ledger)
        if not corpus.good:
            raise _nothing(report, answers)
        index = corpus.write_index()
        (draft.path / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draft.metrics.update({**index.as_dict(), "report": report})
        draft.run.update(
            endpoint=config.endpoint,
            answers={"asked": asker.tally.fresh, "known": asker.tally.cached, "retries": endpoint.retried},
            cost=asker.tally.cost_of_fresh.as_dict(config.budget.prices),
        )
    yield from _told(report, out)
    yield Finished(ReviseResult(report, out, config))


def _question(config: ReviseConfig, prompt: Prompt, row: Row) -> Question:
    """What is asked about a row.

    Raises:
        DataError: the row lacks what the task is about, or the prompt fails on it.
        ImageError: a picture cannot be read.
    """
    why = "There is nothing to ask."
    if config.task == "create-caption" and not row.pictures:
        raise DataError("It has no picture to describe.", why, "Leave such rows out.")
    if config.task == "create-qa" and not row.pictures and not row.turns:
        raise DataError("It has neither a picture nor a text.", why, "Leave such rows out.")
    if config.task == "revise" and not any(turn.role == "assistant" for turn in row.turns):
        raise DataError("It has no answer to revise.", why, "Create pairs first, with --task create-qa.")
    return make_question(row, prompt, config.variables, config.model, config.pictures, config.sampling)


def _spec(config: ReviseConfig, prompt: Prompt, source: Path, split: str) -> ArtifactSpec:
    """What decides the corpus: the prompt's text rather than where it lies; no address and no key."""
    made = config.model_dump(mode="json", exclude=_NOT_MADE)
    made["prompt"] = {"name": prompt.name, "text": prompt.text}
    return ArtifactSpec("corpus", "data", {"verb": "revise", "split": split, **made}, parents=(parent_of(source),))


def _count(rows: RowSource, most: int | None) -> int:
    """How many rows are asked about, broken ones included."""
    total = rows.count if rows.count is not None else sum(1 for _ in itertools.islice(rows, most))
    return total if most is None else min(total, most)


def _cache_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.answers.jsonl")


def _report(corpus: RevisedCorpus, total: int, ledger: Ledger) -> dict[str, Any]:
    return {
        "rows": corpus.good,
        "failed": corpus.failed,
        "unasked": total - corpus.good - corpus.failed,
        "reasons": corpus.reasons,
        "cost": ledger.spent.as_dict(ledger.budget.prices),
        "stopped_at": ledger.ended,
    }


def _nothing(report: dict[str, Any], answers: AnswerCache) -> BluelmError:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in report["reasons"].items())
    ended = [] if report["stopped_at"] is None else [f"the budget of {report['stopped_at']} was spent"]
    return DataError(
        f"Not one row came of it: {', '.join([reasons, *ended] if reasons else ended) or 'the input has no rows'}.",
        f"There is no corpus to write; {len(answers):,} answers are kept in {answers.path}.",
        "Check the input and the prompt, or raise the budget.",
    )


def _told(report: dict[str, Any], out: Path) -> Iterator[Notice]:
    if report["failed"]:
        text = (
            f"{report['failed']:,} rows failed, each with its reason in {out / FAILED_FILE}; "
            "the same command with --force asks again for those that got no answer"
        )
        yield Notice(text, "warning")
    if report["stopped_at"] is not None:
        text = (
            f"the budget of {report['stopped_at']} is spent: {report['unasked']:,} rows were not asked; "
            "with a larger one and --force the same command goes on, and pays for no answer twice"
        )
        yield Notice(text, "warning")


def _read_report(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
    return report
