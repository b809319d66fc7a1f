"""What is asked of the model about one row, and the digest by which its answer is known again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pydantic import Field

from stages.artifacts.digest import digest_json
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.revision.prompt import Prompt
from stages.workshop.corpus.revision.sent_picture import SentPictures, data_uri, picture_tokens, scaled
from stages.workshop.corpus.row import IMAGE_MARK, Row

# For budgets only, where the endpoint has not counted yet.
_CHARACTERS_PER_TOKEN = 4
# What every message costs beside its text.
_MESSAGE_TOKENS = 4


class Sampling(RecipeModel):
    """How the model answers. What is not set is not sent."""

    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="randomness")
    top_p: float | None = Field(default=None, gt=0, le=1, description="nucleus sampling")
    max_tokens: int = Field(default=1024, ge=1, description="longest answer, in tokens")
    seed: int | None = Field(default=None, description="seed, for endpoints that know it")
    extra: dict[str, Any] = Field(default_factory=dict, description="any other parameter of the endpoint's request")

    def as_request(self) -> dict[str, Any]:
        """The parameters as a request has them."""
        named = self.model_dump(mode="json", exclude={"extra"}, exclude_none=True)
        return {**named, **self.extra}


@dataclass(frozen=True)
class Question:
    """One request: which model, what is said, the pictures with it.

    Attributes:
        model: the endpoint's name of the model.
        system, user: what is said.
        pictures: sent before the user's text.
        digests: sha256 of each picture's file.
        sent: how pictures are sent.
        sampling: how the model answers.
        again: answers that could not be used, each with what the model was told of it.
        tokens: about what the request costs, without its answer.
    """

    model: str
    system: str | None
    user: str
    pictures: tuple[Picture, ...]
    digests: tuple[str, ...]
    sent: SentPictures
    sampling: Sampling
    again: tuple[tuple[str, str], ...] = ()
    tokens: int = 0

    @property
    def key(self) -> str:
        """Digest of everything that decides the answer: model, prompt, pictures, parameters."""
        return digest_json(
            {
                "model": self.model,
                "said": [self.system, self.user, *self.again],
                "pictures": list(self.digests),
                "sent": self.sent.model_dump(mode="json") if self.digests else None,
                "parameters": self.sampling.as_request(),
            }
        )

    def asked_again(self, answer: str, problem: str) -> Question:
        """The question that follows an answer which could not be used."""
        tokens = self.tokens + _text_tokens(answer) + _text_tokens(problem)
        return replace(self, again=(*self.again, (answer, problem)), tokens=tokens)

    def request(self) -> dict[str, Any]:
        """The body of the request; pictures are read, scaled and encoded here.

        Raises:
            ImageError: a picture cannot be read.
        """
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        messages.append({"role": "user", "content": self._content()})
        for answer, problem in self.again:
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": problem}]
        return {"model": self.model, "messages": messages, **self.sampling.as_request()}

    def _content(self) -> str | list[dict[str, Any]]:
        if not self.pictures:
            return self.user
        detail = {} if self.sent.detail is None else {"detail": self.sent.detail}
        shown = [
            {"type": "image_url", "image_url": {"url": data_uri(picture, self.sent), **detail}}
            for picture in self.pictures
        ]
        return [*shown, {"type": "text", "text": self.user}]


def make_question(
    row: Row, prompt: Prompt, variables: Mapping[str, Any], model: str, sent: SentPictures, sampling: Sampling
) -> Question:
    """What is asked about a row.

    Raises:
        DataError: the prompt fails on this row.
        ImageError: a picture cannot be read.
    """
    spoken = prompt.render(prompt_values(row, variables))
    digests = tuple(picture.digest() for picture in row.pictures)
    shown = sum(picture_tokens(scaled(picture.size(), sent.side)) for picture in row.pictures)
    tokens = shown + sum(_text_tokens(text) for text in (spoken.system, spoken.user) if text is not None)
    return Question(model, spoken.system, spoken.user, row.pictures, digests, sent, sampling, tokens=tokens)


def prompt_values(row: Row, variables: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a template sees it (see `prompt`)."""
    turns = [{"role": turn.role, "text": _without_marks(turn.text)} for turn in row.turns]
    pairs = [
        {"question": asked["text"], "answer": said["text"]}
        for asked, said in pairwise(turns)
        if (asked["role"], said["role"]) == ("user", "assistant")
    ]
    return {
        "name": row.name,
        "pictures": len(row.pictures),
        "turns": turns,
        "pairs": pairs,
        "variables": dict(variables),
    }


def text_tokens(text: str) -> int:
    """About how many tokens a text is; exact only at the endpoint."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _text_tokens(text: str) -> int:
    return text_tokens(text) + _MESSAGE_TOKENS


def _without_marks(text: str) -> str:
    return text.replace(f"{IMAGE_MARK}\n", "").replace(f"\n{IMAGE_MARK}", "").replace(IMAGE_MARK, "").strip()
