from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from overair.server.workers.loop import BACKOFF_S_MAX, BACKOFF_S_MIN, WorkerLoop, backoff_s

A_DAY_S = 24 * 3600.0


class Counter:
    """A worker that runs through a script of answers, then has nothing to do."""

    def __init__(self, name: str, *script: bool | Exception) -> None:
        self._name = name
        self.script = list(script)
        self.calls = 0
        self.changed = asyncio.Condition()

    @property
    def name(self) -> str:
        return self._name

    async def run_once(self) -> bool:
        async with self.changed:
            self.calls += 1
            self.changed.notify_all()
        answer = self.script.pop(0) if self.script else False
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reaches(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)


async def test_a_worker_that_did_something_is_run_again_at_once() -> None:
    worker = Counter("a", True, True, True, False)
    loop = WorkerLoop([worker], random=Random(1), tick_s=A_DAY_S)
    loop.start()
    await worker.reaches(lambda: worker.calls == 4)
    await loop.stop()
    assert worker.calls == 4


async def test_a_wake_runs_an_idle_worker_before_its_tick() -> None:
    worker, other = Counter("a"), Counter("b")
    loop = WorkerLoop([worker, other], random=Random(1), tick_s=A_DAY_S)
    loop.start()
    await worker.reaches(lambda: worker.calls == 1)
    await other.reaches(lambda: other.calls == 1)
    loop.wake("a")
    await worker.reaches(lambda: worker.calls == 2)
    assert other.calls == 1
    await loop.stop()


async def test_a_tick_runs_an_idle_worker_without_a_wake() -> None:
    worker = Counter("a")
    loop = WorkerLoop([worker], random=Random(1), tick_s=0.001)
    loop.start()
    await worker.reaches(lambda: worker.calls >= 3)
    await loop.stop()


async def test_an_error_is_shown_and_retried_and_forgotten_after_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overair.server.workers.loop.BACKOFF_S_MIN", 0.001)
    worker = Counter("a", RuntimeError("disk on fire"), RuntimeError("disk on fire"), True)
    loop = WorkerLoop([worker], random=Random(1), tick_s=A_DAY_S)
    seen: list[int] = []
    run_once = worker.run_once

    async def watched() -> bool:
        seen.append(loop.failing["a"].attempts if "a" in loop.failing else 0)
        return await run_once()

    monkeypatch.setattr(worker, "run_once", watched)
    loop.start()
    await worker.reaches(lambda: worker.calls == 4)
    await loop.stop()
    assert seen == [0, 1, 2, 0]
    assert loop.failing == {}


async def test_one_failing_worker_does_not_hold_up_another() -> None:
    broken, sound = Counter("broken", *[ValueError("no")] * 100), Counter("sound", True, True)
    loop = WorkerLoop([broken, sound], random=Random(1), tick_s=A_DAY_S)
    loop.start()
    await sound.reaches(lambda: sound.calls == 3)
    await broken.reaches(lambda: broken.calls >= 1)
    await loop.stop()
    assert loop.failing["broken"].error == "ValueError: no"


async def test_a_stop_lets_the_running_step_end_and_cuts_one_that_hangs() -> None:
    begun, ended, cut = asyncio.Event(), asyncio.Event(), asyncio.Event()
    go_on = asyncio.Event()

    class Slow:
        name = "slow"

        async def run_once(self) -> bool:
            begun.set()
            await go_on.wait()
            ended.set()
            return True

    class Hung:
        name = "hung"

        async def run_once(self) -> bool:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cut.set()
                raise
            return True

    loop = WorkerLoop([Slow(), Hung()], random=Random(1))
    loop.start()
    await begun.wait()
    stopping = asyncio.create_task(loop.stop(timeout_s=0.05))
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert ended.is_set()
    assert cut.is_set()


async def test_two_workers_of_one_name_are_a_bug() -> None:
    with pytest.raises(RuntimeError, match="share a name"):
        WorkerLoop([Counter("a"), Counter("a")], random=Random(1))


@pytest.mark.parametrize("attempts", [1, 2, 5, 9, 1000])
def test_the_back_off_doubles_and_stays_within_its_bounds(attempts: int) -> None:
    ceiling = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(attempts - 1, 20))
    for seed in range(20):
        assert ceiling / 2 <= backoff_s(attempts, Random(seed)) <= ceiling
