"""The queue: bounded, by arrival within a client, clients in turns; pulled at from several threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.device.serve.fair_queue import FairQueue, QueueClosedError, QueueFullError


@dataclass(frozen=True)
class Item:
    client: str
    number: int


def taken(queue: FairQueue[Item]) -> list[Item]:
    queue.close()
    return list(iter(queue.take, None))


def test_clients_take_turns() -> None:
    queue: FairQueue[Item] = FairQueue(10)
    for client, count in (("a", 4), ("b", 2), ("c", 1)):
        for number in range(count):
            queue.put(Item(client, number))
    assert "".join(item.client for item in taken(queue)) == "abcabaa"


@given(st.lists(st.sampled_from("abcd"), max_size=20))
def test_nobody_is_passed_twice_by_another(clients: list[str]) -> None:
    queue: FairQueue[Item] = FairQueue(20)
    for number, client in enumerate(clients):
        queue.put(Item(client, number))
    order = taken(queue)
    assert sorted(order, key=lambda item: item.number) == [Item(c, n) for n, c in enumerate(clients)]
    for client in set(clients):
        mine = [item.number for item in order if item.client == client]
        assert mine == sorted(mine)
    turns: dict[str, int] = {}
    rounds = []
    for item in order:
        turns[item.client] = turns.get(item.client, 0) + 1
        rounds.append(turns[item.client])
    assert rounds == sorted(rounds)  # no second job of anyone before every first


def test_it_is_bounded_and_a_place_becomes_free() -> None:
    queue: FairQueue[Item] = FairQueue(2)
    first, second = Item("a", 0), Item("a", 1)
    queue.put(first)
    queue.put(second)
    with pytest.raises(QueueFullError):
        queue.put(Item("b", 0))
    assert queue.discard(first) and not queue.discard(first)
    queue.put(Item("b", 0))
    assert [item.client for item in queue.items()] == ["a", "b"]
    assert taken(queue) == [second, Item("b", 0)]


def test_a_closed_queue_takes_nothing_and_wakes_who_waits() -> None:
    queue: FairQueue[Item] = FairQueue(2)
    found: list[Item | None] = []
    waiting = threading.Thread(target=lambda: found.append(queue.take()))
    waiting.start()
    queue.close()
    waiting.join(5)
    assert found == [None]
    with pytest.raises(QueueClosedError):
        queue.put(Item("a", 0))


def test_many_threads_lose_nothing() -> None:
    queue: FairQueue[Item] = FairQueue(10_000)

    def fill(client: str) -> None:
        for number in range(500):
            queue.put(Item(client, number))

    found: list[Item] = []
    taker = threading.Thread(target=lambda: found.extend(iter(queue.take, None)))
    taker.start()
    threads = [threading.Thread(target=fill, args=(client,)) for client in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    taker.join(10)
    assert len(found) == len(set(found)) == 2000
