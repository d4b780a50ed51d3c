"""Texts of many callers in one thread: batches, the queue, and who gets what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from guardkit.errors import ClosedError, DeadlineError, NotJudgedError, QueueFullError
from guardkit.policy.micro_batching import Batcher, BatchFacts, Limits
from guardkit.types import Row


def rows(*texts: str) -> list[Row]:
    return [Row(i, i, (text,)) for i, text in enumerate(texts, 1)]


class Judge:
    """Says of each row what its text is, and remembers the batches. It waits where ``go`` is not
    set, and ``busy`` says that it does."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go, self.busy = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, batch: Sequence[Row]) -> list[str]:
        texts = [row.texts[0] for row in batch]
        self.batches.append(texts)
        self.busy.set()
        assert self.go.wait(60)
        if any("BROKEN" in text for text in texts):
            raise ValueError(f"cannot judge {texts}")
        if any("EXIT" in text for text in texts):
            raise SystemExit
        return texts

    async def held(self, batcher: Batcher[str]) -> asyncio.Task[list[str]]:
        """Make the thread busy with a request, so that others wait."""
        self.go.clear()
        self.busy.clear()
        task = asyncio.ensure_future(batcher.judge(rows("held"), timeout_s=60))
        await asyncio.to_thread(self.busy.wait, 60)
        return task


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def batcher(judge: Judge) -> Iterator[Batcher[str]]:
    batcher = Batcher(judge, limits=Limits(queue_requests=3, batch_characters=1000))
    yield batcher
    judge.go.set()
    batcher.close(60)
    assert not batcher.alive


def test_each_caller_gets_its_own_results_of_one_batch(judge: Judge, batcher: Batcher[str]) -> None:
    async def run() -> list[list[str]]:
        held = await judge.held(batcher)
        callers = [
            asyncio.ensure_future(batcher.judge(rows(f"{i}a", f"{i}b"), timeout_s=60))
            for i in range(3)
        ]
        while batcher.waiting < 3:
            await asyncio.sleep(0.001)
        judge.go.set()
        await held
        return await asyncio.gather(*callers)

    assert asyncio.run(run()) == [[f"{i}a", f"{i}b"] for i in range(3)]
    assert judge.batches == [["held"], ["0a", "0b", "1a", "1b", "2a", "2b"]]


def test_a_batch_holds_no_more_than_its_budget_and_a_large_request_comes_alone(
    judge: Judge, batcher: Batcher[str]
) -> None:
    large = "x" * 2000

    async def run() -> None:
        held = await judge.held(batcher)
        callers = [
            asyncio.ensure_future(batcher.judge(rows(text), timeout_s=60))
            for text in ("small", large, "y" * 800)
        ]
        while batcher.waiting < 3:
            await asyncio.sleep(0.001)
        judge.go.set()
        await asyncio.gather(held, *callers)

    asyncio.run(run())
    assert judge.batches[1:] == [["small"], [large], ["y" * 800]]


def test_who_comes_when_too_much_waits_is_told_when_to_come_again(
    judge: Judge, batcher: Batcher[str]
) -> None:
    async def run() -> int:
        held = await judge.held(batcher)
        waiting = [
            asyncio.ensure_future(batcher.judge(rows("waits"), timeout_s=60)) for _ in range(3)
        ]
        while batcher.waiting < 3:
            await asyncio.sleep(0.001)
        with pytest.raises(QueueFullError) as refused:
            await batcher.judge(rows("one too many"), timeout_s=60)
        judge.go.set()
        await asyncio.gather(held, *waiting)
        return refused.value.retry_after_s

    assert asyncio.run(run()) >= 1


def test_so_many_characters_may_wait(judge: Judge) -> None:
    batcher = Batcher(judge, limits=Limits(queue_characters=200))

    async def run() -> None:
        held = await judge.held(batcher)
        waits = asyncio.ensure_future(batcher.judge(rows("x" * 500), timeout_s=60))
        await asyncio.sleep(0)  # the first may be of any size: nothing else waits
        with pytest.raises(QueueFullError):
            await batcher.judge(rows("x"), timeout_s=60)
        judge.go.set()
        await asyncio.gather(held, waits)

    asyncio.run(run())
    batcher.close(60)


def test_what_is_late_is_not_judged(judge: Judge, batcher: Batcher[str]) -> None:
    async def run() -> None:
        held = await judge.held(batcher)
        with pytest.raises(DeadlineError):
            await batcher.judge(rows("late"), timeout_s=0.01)
        assert batcher.waiting == 0
        judge.go.set()
        await held

    asyncio.run(run())
    assert judge.batches == [["held"]]


def test_a_caller_who_leaves_takes_its_texts_along(judge: Judge, batcher: Batcher[str]) -> None:
    async def run() -> None:
        held = await judge.held(batcher)
        leaves = asyncio.ensure_future(batcher.judge(rows("leaves"), timeout_s=60))
        stays = asyncio.ensure_future(batcher.judge(rows("stays"), timeout_s=60))
        while batcher.waiting < 2:
            await asyncio.sleep(0.001)
        leaves.cancel()
        await asyncio.wait([leaves])
        assert batcher.waiting == 1
        judge.go.set()
        assert await asyncio.gather(held, stays) == [["held"], ["stays"]]

    asyncio.run(run())
    assert judge.batches == [["held"], ["stays"]]


@pytest.mark.parametrize("word", ["BROKEN", "EXIT"])
def test_a_request_that_cannot_be_judged_fails_alone(
    judge: Judge, batcher: Batcher[str], word: str
) -> None:
    async def run() -> list[Any]:
        held = await judge.held(batcher)
        callers = [
            asyncio.ensure_future(batcher.judge(rows(text), timeout_s=60))
            for text in ("before", f"{word} secret", "after")
        ]
        while batcher.waiting < 3:
            await asyncio.sleep(0.001)
        judge.go.set()
        await held
        return await asyncio.gather(*callers, return_exceptions=True)

    before, failed, after = asyncio.run(run())
    assert (before, after) == (["before"], ["after"])
    assert isinstance(failed, NotJudgedError)
    assert "secret" not in str(failed)


def test_too_few_results_are_nobodys_results() -> None:
    batcher: Batcher[str] = Batcher(lambda batch: ["one"])
    with pytest.raises(NotJudgedError):
        asyncio.run(batcher.judge(rows("a", "b"), timeout_s=60))
    batcher.close(60)


def test_a_call_is_done_by_itself_in_its_turn(judge: Judge, batcher: Batcher[str]) -> None:
    async def run() -> list[Any]:
        held = await judge.held(batcher)
        names = [
            asyncio.ensure_future(batcher.judge(rows("first"), timeout_s=60)),
            asyncio.ensure_future(
                batcher.run(lambda: [*judge.batches], characters=1, timeout_s=60)
            ),
            asyncio.ensure_future(batcher.judge(rows("last"), timeout_s=60)),
        ]
        while batcher.waiting < 3:
            await asyncio.sleep(0.001)
        judge.go.set()
        await held
        return await asyncio.gather(*names)

    assert asyncio.run(run())[1] == [["held"], ["first"]]


def test_what_waits_is_judged_before_the_end_and_nothing_after_it(judge: Judge) -> None:
    batcher = Batcher(judge)

    async def run() -> None:
        held = await judge.held(batcher)
        waits = asyncio.ensure_future(batcher.judge(rows("waits"), timeout_s=60))
        while batcher.waiting < 1:
            await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close, 60))
        await asyncio.sleep(0.01)
        judge.go.set()
        await closing
        assert await asyncio.gather(held, waits) == [["held"], ["waits"]]
        with pytest.raises(ClosedError):
            await batcher.judge(rows("late"), timeout_s=60)

    asyncio.run(run())
    assert not batcher.alive


def test_another_judge_takes_over_between_two_batches(judge: Judge, batcher: Batcher[str]) -> None:
    async def run() -> list[list[str]]:
        held = await judge.held(batcher)
        batcher.replace(lambda batch: ["new" for _ in batch])
        after = asyncio.ensure_future(batcher.judge(rows("a", "b"), timeout_s=60))
        judge.go.set()
        return await asyncio.gather(held, after)

    assert asyncio.run(run()) == [["held"], ["new", "new"]]


def test_callers_on_several_loops_at_once_never_get_each_others_results() -> None:
    seen: list[BatchFacts] = []
    batcher = Batcher(lambda batch: [row.texts[0] for row in batch], seen=seen.append)
    wrong: list[Any] = []

    async def ask(thread: int, caller: int) -> None:
        for i in range(20):
            own = [f"{thread}-{caller}-{i}-{j}" for j in range(1 + (caller + i) % 4)]
            got = await batcher.judge(rows(*own), timeout_s=60)
            if got != own:
                wrong.append((own, got))

    async def many(thread: int) -> None:
        await asyncio.gather(*(ask(thread, caller) for caller in range(10)))

    threads = [threading.Thread(target=asyncio.run, args=(many(t),)) for t in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close(60)
    assert wrong == []
    assert sum(facts.requests for facts in seen) == 600
    assert max(facts.requests for facts in seen) > 1, "some were judged together"


def test_a_large_request_is_judged_in_pieces_by_one_judge(
    judge: Judge, batcher: Batcher[str]
) -> None:
    texts = ["x" * 300, "y" * 300, "z" * 600, "w" * 5000, "v"]

    async def run() -> list[str]:
        task = asyncio.ensure_future(batcher.judge(rows(*texts), timeout_s=60))
        judge.go.clear()
        await asyncio.to_thread(judge.busy.wait, 60)
        batcher.replace(lambda batch: ["another" for _ in batch])
        judge.go.set()
        return await task

    assert asyncio.run(run()) == texts
    assert judge.batches == [texts[:2], texts[2:3], texts[3:4], texts[4:]]


def test_a_large_request_is_judged_no_further_than_its_caller_waits(
    judge: Judge, batcher: Batcher[str]
) -> None:
    async def run() -> None:
        judge.go.clear()
        task = asyncio.ensure_future(batcher.judge(rows(*["x" * 900] * 50), timeout_s=60))
        await asyncio.to_thread(judge.busy.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        judge.go.set()
        await batcher.judge(rows("next"), timeout_s=60)

    asyncio.run(run())
    assert judge.batches == [["x" * 900], ["next"]]
