"""`predictions.jsonl`: every reply with its score, written as it comes, so that a killed run goes on where it was.

One line a question: id, task, metric, question, answers, reply, score (null where nothing scores it), group (what is
drawn together when uncertainty is told), bundles, and the tokens of picture, prompt and reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.atomic_file import write_atomically
from stages.artifacts.errors import ArtifactError, UsageError
from stages.evaluate.answering import Reply
from stages.evaluate.suite_metrics import METRICS, UNSCORED
from stages.evaluate.suites import SuiteItem

PREDICTIONS_FILE = "predictions.jsonl"


class Prediction(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    task: str
    metric: str
    question: str
    answers: tuple[str, ...]
    reply: str
    score: float | None
    group: str
    bundles: dict[str, str]
    image_tokens: int
    prompt_tokens: int
    generated_tokens: int


def predicted(item: SuiteItem, reply: Reply) -> Prediction:
    """A reply, scored."""
    score = None if item.metric == UNSCORED else METRICS[item.metric].score(reply.text, item.key)
    return Prediction(
        id=item.question.name,
        task=item.question.task,
        metric=item.metric,
        question=item.question.text,
        answers=item.key.answers,
        reply=reply.text,
        score=score,
        group=item.group,
        bundles=dict(item.bundles),
        image_tokens=reply.image_tokens,
        prompt_tokens=reply.prompt_tokens,
        generated_tokens=reply.generated_tokens,
    )


def read_predictions(path: Path, *, torn: bool = False) -> list[Prediction]:
    """The lines of a file.

    Args:
        path: the file.
        torn: a last line that is cut short, as a kill leaves it, is passed over.

    Raises:
        ArtifactError: it cannot be read, or a line is broken.
    """
    fix = "Make it again: bluelm bench accuracy MODEL --data FILE --out FOLDER --force"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.", "It holds every reply.", fix) from error
    lines = content.split(b"\n")
    # What follows the last line end was not written whole.
    lines = lines[:-1] if torn else [line for line in lines if line.strip()]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Prediction.model_validate_json(line))
        except ValidationError as error:
            raise ArtifactError(f"{path}, line {number} is no prediction.", "Its score is not known.", fix) from error
    return found


class PredictionWriter:
    """Appends predictions to a file, each on disk before the next is asked for.

    Args:
        path: the file; whole lines that are there stay, a torn last one goes.
    """

    def __init__(self, path: Path) -> None:
        self.done = {one.id: one for one in read_predictions(path, torn=True)} if path.exists() else {}
        write_atomically(path, "".join(_line(one) for one in self.done.values()))
        self._file = path.open("a", encoding="utf-8")

    def add(self, prediction: Prediction) -> None:
        """Writes one."""
        self.done[prediction.id] = prediction
        self._file.write(_line(prediction))
        self._file.flush()

    def close(self, order: Sequence[str]) -> list[Prediction]:
        """Ends writing; the file then holds the predictions in this order, whatever order they came in."""
        self._file.close()
        ordered = [self.done[name] for name in order]
        write_atomically(Path(self._file.name), "".join(_line(one) for one in ordered))
        return ordered


def paired(first: Sequence[Prediction], second: Sequence[Prediction]) -> Iterator[tuple[Prediction, Prediction]]:
    """Two models' scored predictions of the same questions, by id.

    Raises:
        UsageError: they were not asked the same, or by other metrics.
    """
    others = {one.id: one for one in second}
    mine = {one.id for one in first}
    odd = sorted(mine ^ set(others))
    if odd:
        raise UsageError(
            f"{len(odd)} questions were asked of only one of the models ({odd[0]} is one).",
            "A paired comparison needs both replies to each question.",
            "Ask both with the same --data, --split, --task and --limit.",
        )
    for one in first:
        other = others[one.id]
        if (one.metric, one.answers, one.question) != (other.metric, other.answers, other.question):
            raise UsageError(
                f"The question {one.id} differs between the two, or its metric does.",
                "Their scores are of different things.",
                "Ask both with the same --suite, --metric and --data.",
            )
        if one.score is not None and other.score is not None:
            yield one, other


def _line(prediction: Prediction) -> str:
    content: Mapping[str, Any] = prediction.model_dump(mode="json")
    return json.dumps(content, ensure_ascii=False) + "\n"
