"""What asking costs, and where it must end.

Before a request is sent, the most that it may cost is set aside; it goes out only where that still fits. So a budget
holds as long as the estimate of a request's own tokens does (its answer is bounded by max_tokens).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from stages.artifacts.errors import RecipeError
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.revision.answers import Reply
from stages.workshop.corpus.revision.question import Question, text_tokens

_MILLION = 1_000_000


class Prices(RecipeModel):
    """Money for a million tokens, in whatever currency the endpoint bills."""

    input: float = Field(ge=0, allow_inf_nan=False, description="for a million tokens of questions")
    output: float = Field(ge=0, allow_inf_nan=False, description="for a million tokens of answers")


class Budget(RecipeModel):
    """Where asking ends, for all answers that a corpus is made of, those of earlier runs counted in."""

    answers: int | None = Field(default=None, ge=1, description="most answers (a retried request is billed once)")
    tokens: int | None = Field(default=None, ge=1, description="most tokens, of questions and answers together")
    money: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="most money; needs prices")
    prices: Prices | None = Field(default=None, description="what a million tokens cost")

    @model_validator(mode="after")
    def _priced(self) -> Budget:
        if self.money is not None and self.prices is None:
            what = f"The budget is {self.money:g} in money, but no prices are given."
            fix = "Set budget.prices.input and budget.prices.output, for a million tokens each."
            raise RecipeError(what, "What an answer costs is not known.", fix)
        return self


@dataclass(frozen=True)
class Cost:
    """Answers and their tokens. `guessed` answers came without a count, which was then estimated from their length."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    guessed: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.answers + other.answers,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.guessed + other.guessed,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + Cost(-other.answers, -other.prompt_tokens, -other.completion_tokens, -other.guessed)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def money(self, prices: Prices | None) -> float | None:
        """What the tokens cost; None without prices."""
        if prices is None:
            return None
        return (self.prompt_tokens * prices.input + self.completion_tokens * prices.output) / _MILLION

    def as_dict(self, prices: Prices | None) -> dict[str, Any]:
        """`{"answers", "prompt_tokens", "completion_tokens", "guessed", "money"}`."""
        return {
            "answers": self.answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "guessed": self.guessed,
            "money": self.money(prices),
        }


def most_of(question: Question) -> Cost:
    """The most that a request costs, as far as it can be told before it is sent."""
    return Cost(1, question.tokens, question.sampling.max_tokens)


def cost_of(question: Question, reply: Reply) -> Cost:
    """What an answer did cost."""
    counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
    asked = question.tokens if reply.prompt_tokens is None else reply.prompt_tokens
    said = text_tokens(reply.text) if reply.completion_tokens is None else reply.completion_tokens
    return Cost(1, asked, said, 0 if counted else 1)


class BudgetSpentError(Exception):
    """The next request does not fit into the budget."""


class Ledger:
    """What was spent and what is set aside for requests on their way.

    A request that does not fit waits for those on their way, since they may cost less than was set aside; where none is
    left and it still does not fit, asking ends for all.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent = Cost()
        self.ended: str | None = None
        self._aside = Cost()
        self._changed = asyncio.Condition()

    async def set_aside(self, most: Cost) -> None:
        """Waits until the request may go out.

        Raises:
            BudgetSpentError: it may not.
        """
        async with self._changed:
            while self.ended is None:
                over = self._over(self.spent + self._aside + most)
                if over is None:
                    self._aside += most
                    return
                if not self._aside.answers:
                    self.ended = over
                    self._changed.notify_all()
                    break
                await self._changed.wait()
        raise BudgetSpentError

    async def settle(self, most: Cost, cost: Cost) -> None:
        """A request that was set aside came back, or failed at no cost."""
        async with self._changed:
            self._aside -= most
            self.spent += cost
            self._changed.notify_all()

    def count(self, cost: Cost) -> None:
        """An answer of an earlier run."""
        self.spent += cost

    def _over(self, cost: Cost) -> str | None:
        """Which limit a cost is beyond, in words; None where it is within all."""
        budget = self.budget
        money = cost.money(budget.prices)
        if budget.answers is not None and cost.answers > budget.answers:
            return f"{budget.answers:,} answers"
        if budget.tokens is not None and cost.tokens > budget.tokens:
            return f"{budget.tokens:,} tokens"
        if budget.money is not None and money is not None and money > budget.money:
            return f"{budget.money:g} in money"
        return None
