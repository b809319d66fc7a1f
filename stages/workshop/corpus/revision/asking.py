"""Many rows asked about at once: answers from disk first, then from the endpoint, outcomes in the rows' order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from stages.artifacts.errors import DataError, ImageError
from stages.workshop.corpus.revision.answer_cache import AnswerCache
from stages.workshop.corpus.revision.answers import (
    Pair,
    RefusedAnswerError,
    Reply,
    Task,
    UnreadableAnswerError,
    correction,
    read_answer,
)
from stages.workshop.corpus.revision.budget import BudgetSpentError, Cost, Ledger, cost_of, most_of
from stages.workshop.corpus.revision.endpoint import Endpoint, EndpointError, ExhaustedError, RejectedError
from stages.workshop.corpus.revision.question import Question
from stages.workshop.corpus.row import BadRow, Row

# An endpoint that fails so many rows one after the other, all retries of each, is taken for gone.
_GONE_AFTER = 3
# One that answers none of the first rows as asked is given up before it costs more.
HOPELESS_AFTER = 20
# Outcomes that wait for an earlier row are kept; a row that is retried for minutes holds back at most so many.
_AHEAD = 4096
_TICK = 1.0

Made = TypeVar("Made")


@dataclass(frozen=True)
class Outcome:
    """What became of one row.

    Attributes:
        row: the row.
        pairs: what the model made of it; None where it failed.
        reason: why it failed.
        answers: what the model said instead.
        unasked: whether it was not asked at all, because the budget was spent.
    """

    row: Row | BadRow
    pairs: tuple[Pair, ...] | None = None
    reason: str | None = None
    answers: tuple[str, ...] = ()
    unasked: bool = False


@dataclass
class Tally:
    """How far asking has come."""

    rows: int = 0
    good: int = 0
    failed: int = 0
    cached: int = 0
    fresh: int = 0
    cost_of_fresh: Cost = field(default_factory=Cost)


class Asker:
    """Answers rows one by one; many may be on their way."""

    def __init__(
        self,
        task: Task,
        question_of: Callable[[Row], Question],
        endpoint: Endpoint,
        cache: AnswerCache,
        ledger: Ledger,
        tries: int,
    ) -> None:
        """Args:
        task: what is asked for.
        question_of: makes the question about a row.
        endpoint: who is asked.
        cache: answers of earlier runs, and of this one.
        ledger: the budget.
        tries: how often a row is asked whose answer cannot be used.
        """
        self.tally = Tally()
        self.ledger = ledger
        self._task, self._question_of, self._tries = task, question_of, tries
        self._endpoint, self._cache = endpoint, cache
        self._exhausted_in_a_row = 0
        self._unanswered_from_start = 0
        self._paid: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def outcome(self, row: Row | BadRow) -> Outcome:
        """What becomes of a row.

        Raises:
            EndpointError: the endpoint is gone or refuses everything.
        """
        if isinstance(row, BadRow):
            return Outcome(row, reason="; ".join(problem.text for problem in row.problems))
        try:
            question = await asyncio.to_thread(self._question_of, row)
        except (ImageError, DataError) as error:
            return Outcome(row, reason=error.what)
        answers: list[str] = []
        reason = ""
        for _ in range(self._tries):
            try:
                reply = await self._reply(question)
                return Outcome(row, read_answer(self._task, reply))
            except UnreadableAnswerError as error:
                answers.append(reply.text)
                reason = f"the answer cannot be used: {error}"
                question = question.asked_again(reply.text, correction(error))
            except RefusedAnswerError as error:
                return Outcome(row, reason=f"the model refuses: {error}", answers=(*answers, reply.text))
            except (RejectedError, ImageError) as error:
                return Outcome(row, reason=f"the endpoint refuses the request: {error}", answers=tuple(answers))
            except ExhaustedError as error:
                return Outcome(row, reason=f"the endpoint failed: {error.reason}", answers=tuple(answers))
            except BudgetSpentError:
                return Outcome(row, reason="the budget was spent", answers=tuple(answers), unasked=True)
        return Outcome(row, reason=reason, answers=tuple(answers))

    async def _reply(self, question: Question) -> Reply:
        """The answer to a question: the one on disk, or a new one, which is then there too."""
        # Rows that ask the same at once wait for one answer: it is paid for once.
        key = question.key
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._cache.get(key)
            reply = await self._new_reply(question) if known is None else known
        if known is not None:
            self.tally.cached += 1
            if key not in self._paid:
                self.ledger.count(cost_of(question, known))
        self._paid.add(key)
        return reply

    async def _new_reply(self, question: Question) -> Reply:
        most = most_of(question)
        await self.ledger.set_aside(most)
        cost = Cost()
        try:
            request = await asyncio.to_thread(question.request)
            reply = await self._endpoint.ask(request)
            cost = cost_of(question, reply)
            await self._cache.put(question.key, reply)
        except ExhaustedError as error:
            self._exhausted(error)
            raise
        finally:
            await self.ledger.settle(most, cost)
        self._exhausted_in_a_row = 0
        self.tally.fresh += 1
        self.tally.cost_of_fresh += cost
        return reply

    def _exhausted(self, error: ExhaustedError) -> None:
        """Ends everything where the endpoint is gone; a row that alone makes it fail is only that row's failure."""
        self._exhausted_in_a_row += 1
        if error.gone or self._exhausted_in_a_row >= _GONE_AFTER:
            raise EndpointError(
                f"{self._endpoint.url} does not answer: {error.reason}.",
                f"{self._endpoint.patience.retries} retries did not help. {len(self._cache):,} answers are kept in "
                f"{self._cache.path}.",
                "When the endpoint is back, run the same command again: it goes on where it ended.",
            ) from error

    def count(self, outcome: Outcome) -> None:
        """Enters an outcome.

        Raises:
            EndpointError: not one of the first rows was answered as asked.
        """
        self.tally.rows += 1
        self.tally.good += outcome.pairs is not None
        self.tally.failed += outcome.pairs is None and not outcome.unasked
        if outcome.pairs is None and isinstance(outcome.row, Row) and not outcome.unasked:
            self._unanswered_from_start += 1
        if self.tally.good == 0 and self._unanswered_from_start >= HOPELESS_AFTER:
            raise EndpointError(
                f"None of the first {HOPELESS_AFTER} rows got an answer that can be used; the last: {outcome.reason}.",
                "Asking on would cost and give nothing.",
                "Check the prompt, --task, the model, and max_tokens.",
            )


def ask_all(
    rows: Iterator[Row | BadRow], asker: Asker, endpoint: Endpoint, concurrency: int
) -> Iterator[Outcome | None]:
    """Outcomes in the rows' order, and None now and then while none is ready. No row is taken before it is its turn.

    Rows are asked in order; once the budget is spent, no further row is taken from `rows`.

    Raises:
        EndpointError: the endpoint is gone, or refuses everything.
    """
    with asyncio.Runner() as runner:
        walk = _Walk(rows, asker, concurrency)
        try:
            while walk.going:
                runner.run(walk.step())
                yield None
                yield from walk.ready()
        finally:
            runner.run(walk.stop(endpoint))


class _Walk:
    """Rows on their way, and outcomes that wait for an earlier one."""

    def __init__(self, rows: Iterator[Row | BadRow], asker: Asker, concurrency: int) -> None:
        self._rows, self._asker, self._concurrency = rows, asker, concurrency
        self._tasks: dict[asyncio.Task[Outcome], int] = {}
        self._waiting: dict[int, Outcome] = {}
        self._taken = self._given = 0
        self._ended = False

    @property
    def going(self) -> bool:
        return not self._ended or bool(self._tasks)

    def ready(self) -> Iterator[Outcome]:
        """Outcomes whose turn it is."""
        while self._given in self._waiting:
            outcome = self._waiting.pop(self._given)
            self._given += 1
            yield outcome

    async def step(self) -> None:
        """Takes rows, and waits until some are done, or for a moment."""
        self._take()
        if not self._tasks:
            return
        done, _ = await asyncio.wait(self._tasks, timeout=_TICK, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            self._waiting[self._tasks.pop(task)] = task.result()
        for task in done:
            self._asker.count(task.result())

    def _take(self) -> None:
        while not self._ended and len(self._tasks) < self._concurrency and self._taken - self._given < _AHEAD:
            row = None if self._asker.ledger.ended is not None else next(self._rows, None)
            if row is None:
                self._ended = True
                return
            self._tasks[asyncio.create_task(self._asker.outcome(row))] = self._taken
            self._taken += 1

    async def stop(self, endpoint: Endpoint) -> None:
        """Drops what is still on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await endpoint.close()
