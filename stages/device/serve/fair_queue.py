"""A bounded queue in which clients take turns: each one's jobs by arrival, and one of each before a second of any."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can wait here."""

    @property
    def client(self) -> str:
        """Whom it is from."""


class QueueFullError(Exception):
    """There is no place."""


class ClientFullError(QueueFullError):
    """There is no place for this client: others may still come."""


class QueueClosedError(Exception):
    """Nothing is taken any more."""


Item = TypeVar("Item", bound=Queued)


class FairQueue(Generic[Item]):
    """Places for `size` jobs.

    Args:
        size: how many may wait.
        each: how many of one client's; None for all places.
    """

    def __init__(self, size: int, each: int | None = None) -> None:
        self.size, self.each = size, size if each is None else each
        # Clients in the order of their turns, each with what waits; none is empty.
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def put(self, item: Item) -> None:
        """Adds a job.

        Raises:
            QueueFullError: there is no place, or (ClientFullError) none for this client.
            QueueClosedError: the queue was closed.
        """
        with self._changed:
            if self._closed:
                raise QueueClosedError
            if self._count() >= self.size:
                raise QueueFullError
            if len(self._waiting.get(item.client, ())) >= self.each:
                raise ClientFullError
            self._waiting.setdefault(item.client, deque()).append(item)
            self._changed.notify()

    def take(self) -> Item | None:
        """Waits for the next job; None once the queue is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            client, jobs = self._waiting.popitem(last=False)
            item = jobs.popleft()
            if jobs:  # its next turn comes after all others'
                self._waiting[client] = jobs
            return item

    def discard(self, item: Item) -> bool:
        """Takes a job out; whether it was still there."""
        with self._changed:
            jobs = self._waiting.get(item.client)
            if jobs is None or item not in jobs:
                return False
            jobs.remove(item)
            if not jobs:
                del self._waiting[item.client]
            return True

    def items(self) -> list[Item]:
        """What waits."""
        with self._changed:
            return [item for jobs in self._waiting.values() for item in jobs]

    def close(self) -> None:
        """Takes nothing any more; what waits can still be taken out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _count(self) -> int:
        return sum(len(jobs) for jobs in self._waiting.values())
