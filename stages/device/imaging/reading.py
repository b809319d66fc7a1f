"""Many pictures at once: decoded on several threads, handed on in order, all broken ones reported together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stages.artifacts.errors import BluelmError, ImageError, raise_all
from stages.artifacts.events import Progress

# Each thread may hold a whole decoded picture: many cores are no reason to fill the memory.
MOST_THREADS = 8
# More broken pictures than this are counted, not listed.
LISTED_PROBLEMS = 50

Item = TypeVar("Item")
Made = TypeVar("Made")


def make_in_order(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int | None = None
) -> Iterator[Made | ImageError]:
    """What `make` makes of each item, or the ImageError it raised, in the items' order.

    Pillow lets other threads run while it decodes and scales. Only a few results per thread are made ahead of the
    reader, so memory does not grow with the number of items.

    Args:
        make: called on several threads.
        items: its inputs.
        threads: how many; one per core, at most `MOST_THREADS`, when None.
    """

    def attempt(item: Item) -> Made | ImageError:
        try:
            return make(item)
        except ImageError as error:
            return error

    workers = threads or min(os.cpu_count() or 1, MOST_THREADS)
    waiting: deque[Future[Made | ImageError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(attempt, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def make_all(
    label: str,
    make: Callable[[Item], Made],
    items: Sequence[Item],
    threads: int | None = None,
) -> Generator[Progress, None, list[Made]]:
    """What `make` makes of every item, as a step of a stage.

    Raises:
        BluelmError: the broken pictures, together, after all were tried.
    """
    made: list[Made] = []
    yield from use_all(label, make, items, made.append, threads)
    return made


def use_all(
    label: str,
    make: Callable[[Item], Made],
    items: Sequence[Item],
    use: Callable[[Made], object],
    threads: int | None = None,
) -> Generator[Progress, None, None]:
    """`make_all` for large things: each is handed to `use`, in order, and not kept.

    After the first broken picture the rest are still made, to find other broken ones, but no longer used.

    Raises:
        BluelmError: the broken pictures, together, after all were tried.
    """
    problems: list[BluelmError] = []
    for number, result in enumerate(make_in_order(make, items, threads), start=1):
        if isinstance(result, ImageError):
            problems.append(result)
        elif not problems:
            use(result)
        yield Progress(label, number, len(items), "pictures")
    if len(problems) > LISTED_PROBLEMS:
        more = f"{len(problems) - LISTED_PROBLEMS} more pictures cannot be read."
        problems[LISTED_PROBLEMS:] = [ImageError(more, "They are not listed here.", "Mend the listed ones first.")]
    raise_all(problems)


def completed(step: Generator[object, None, Made]) -> Made:
    """Runs a step to its end, dropping its progress."""
    while True:
        try:
            next(step)
        except StopIteration as stop:
            made: Made = stop.value
            return made
