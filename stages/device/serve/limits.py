"""What one request may take, and what all of them together may."""

from __future__ import annotations

from pydantic import Field

from stages.artifacts.recipes import RecipeModel

MB = 1_000_000


class ServeLimits(RecipeModel):
    """Bounds; what goes over one is refused with its name.

    Attributes:
        queue: requests that wait for the model, beside the one it answers.
        client_queue: of these, how many may be one client's, so that there is room for another.
        body_mb: size of one request.
        buffer_mb: size of all requests that are read, wait or are answered.
        body_s: seconds in which a request's body must have come.
        pictures: pictures of one request.
        picture_mb: size of one picture's file.
        megapixels: pixels of one picture.
        tokens: most tokens of an answer; who asks for more gets so many.
        cache_mb: features of pictures kept for later requests.
        cache_pictures: how many pictures' features at most.
        contexts_mb: KV caches in which conversations stay read while others are answered; there is one at least.
        contexts: how many such caches at most.
        grace_s: seconds that requests have to end when the server is stopped.
        connections: clients connected at a time; one more is told to come again.
        send_s: seconds in which a client must take some of its answer.
        url_s: seconds that fetching a picture may take.
    """

    queue: int = Field(default=32, ge=1)
    client_queue: int = Field(default=24, ge=1)
    body_mb: float = Field(default=32, gt=0)
    buffer_mb: float = Field(default=256, gt=0)
    body_s: float = Field(default=60, gt=0)
    pictures: int = Field(default=16, ge=0)
    picture_mb: float = Field(default=16, gt=0)
    megapixels: float = Field(default=40, gt=0)
    tokens: int = Field(default=4096, ge=1)
    cache_mb: float = Field(default=256, ge=0)
    cache_pictures: int = Field(default=32, ge=0)
    contexts_mb: float = Field(default=256, ge=0)
    contexts: int = Field(default=4, ge=1)
    grace_s: float = Field(default=10, ge=0)
    connections: int = Field(default=512, ge=1)
    send_s: float = Field(default=60, gt=0)
    url_s: float = Field(default=15, gt=0)
