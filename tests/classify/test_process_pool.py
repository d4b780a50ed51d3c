"""How shards are shared out among workers, which stand here for processes and machines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from guardkit.classify import process_pool
from guardkit.classify.job import Job
from guardkit.classify.process_pool import AHEAD_S, DEPTH, Answer, Pool, Remote, WorkerGone
from guardkit.classify.shards import Shard
from guardkit.classify.worker import ATTEMPTS, Facts, Worker
from guardkit.errors import RunError

DEADLY = 3


class Fake(Remote):
    def __init__(self, log: list[tuple[int, int]], number: int) -> None:
        super().__init__()
        self.log, self.number = log, number

    def give(self, shard: Shard) -> None:
        self.log.append((self.number, shard.index))

    def answer(self) -> Answer:
        if not self.shards or self.shards[0].index == DEADLY:
            raise WorkerGone("SIGKILL")
        return "done", self.shards[0].index, {}


class FakePool(Pool[Fake]):
    def __init__(self, n: int, *, dead: bool = False) -> None:
        self.log: list[tuple[int, int]] = []
        self.started, self.dead = 0, dead
        super().__init__(Worker(Job(), Path()), n)

    def start(self) -> Fake:
        self.started += 1
        return Fake(self.log, self.started)

    def heard(self) -> Sequence[Fake]:
        if self.dead:
            for worker in self.workers:
                worker.shards.clear()
        return self.workers[:] if self.dead else [w for w in self.workers if w.shards]

    def stop(self) -> None:
        pass


def shards(n: int) -> list[Shard]:
    return [Shard(i, "in.jsonl", 1 + i, 1) for i in range(n)]


def test_nobody_gets_a_second_shard_before_all_have_a_first() -> None:
    pool = FakePool(2)
    pool.run(iter(shards(2)), lambda shard, facts: None)
    assert pool.log == [(1, 0), (2, 1)]
    pool = FakePool(2)
    pool.run(iter(shards(3)), lambda shard, facts: None)
    assert pool.log[:3] == [(1, 0), (2, 1), (1, 2)]


@pytest.mark.parametrize(("tick", "most"), [(AHEAD_S / 10, DEPTH), (AHEAD_S, 1)])
def test_only_workers_with_quick_shards_get_some_ahead_so_that_slow_ones_leave_none_idle(
    tick: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, tick)
    monkeypatch.setattr(process_pool.time, "monotonic", lambda: next(clock))
    held = []

    class Counting(FakePool):
        def heard(self) -> Sequence[Fake]:
            held.append(max(len(worker.shards) for worker in self.workers))
            return super().heard()

    Counting(2).run(iter(shards(40)[DEADLY + 1 :]), lambda shard, facts: None)
    assert held[0] == 1
    assert max(held) == most


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_deadly_shard_is_set_aside_and_every_other_is_done_once(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_aside(self: Worker, shard: Shard, reason: str) -> Facts:
        return {"set_aside": reason}

    monkeypatch.setattr(Worker, "set_aside", set_aside)
    ended: list[tuple[int, Any]] = []
    pool = FakePool(n)
    pool.run(iter(shards(9)), lambda shard, facts: ended.append((shard.index, facts)))
    assert sorted(index for index, _ in ended) == list(range(9))
    reasons = {index: facts["set_aside"] for index, facts in ended if facts}
    assert reasons == {DEADLY: "its worker ended with SIGKILL"}
    assert [index for _, index in pool.log].count(DEADLY) == ATTEMPTS


def test_workers_that_cannot_start_end_the_run() -> None:
    with pytest.raises(RunError, match="workers cannot start: the last ended with SIGKILL"):
        FakePool(2, dead=True).run(iter(shards(50)), lambda shard, facts: None)
