"""Runs workers: woken by an event or by a tick, patient after an error, stopped between steps."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import structlog

logger = structlog.get_logger("overair.workers")

TICK_S_DEFAULT: Final = 1.0
BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0
STOP_TIMEOUT_S_DEFAULT: Final = 8.0
"""Leaves the rest of the ten seconds that SIGTERM has to end the process."""


class Worker(Protocol):
    """A durable step that is repeated until done.

    What a worker has to do stands in the store, never in its memory: it may be cut at any point and started again.
    """

    @property
    def name(self) -> str:
        """Unique within one loop; shown in logs and status."""
        ...

    async def run_once(self) -> bool:
        """Do one bounded piece of work. True when something was done, so that there may be more at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A worker that didn't get through its last attempt."""

    attempts: int
    """In a row."""
    error: str


def backoff_s(attempts: int, random: Random) -> float:
    """How long to wait after ``attempts`` failures in a row: doubled each time, capped, and spread over its upper half
    so that several nodes don't come back in step."""
    ceiling: float = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(attempts - 1, 16))
    return ceiling * (0.5 + random.random() / 2)


class WorkerLoop:
    """One task for each worker. ``start`` and ``stop`` are called once, on the event loop."""

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        random: Random,
        tick_s: float = TICK_S_DEFAULT,
        elsewhere: Collection[str] = (),
    ) -> None:
        """``elsewhere``: names of workers that other processes may run in our place; waking them here does nothing."""
        names = [worker.name for worker in workers]
        if len(set(names)) != len(names):
            raise RuntimeError(f"Two workers share a name: {sorted(names)}.")
        self._workers = tuple(workers)
        self._random = random
        self._tick_s = tick_s
        self._awake = {name: asyncio.Event() for name in (*names, *elsewhere)}
        self._failing: dict[str, Failing] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def failing(self) -> Mapping[str, Failing]:
        """The workers whose last attempt failed, for status and metrics."""
        return self._failing

    def wake(self, name: str | None = None) -> None:
        """There may be work now: for one worker, or for all. Called on the event loop; cheap, never fails.

        A name that isn't ours is a bug of the caller.
        """
        if name is not None:
            self._awake[name].set()
            return
        for event in self._awake.values():
            event.set()

    def start(self) -> None:
        if self._tasks:
            raise RuntimeError("The loop was already started.")
        self._tasks = [asyncio.create_task(self._repeat(worker), name=f"worker {worker.name}") for worker in self._workers]

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S_DEFAULT) -> None:
        """Let each worker end the piece it is at; whoever isn't done in time is cut, which is safe, since steps are durable."""
        self._stopping.set()
        self.wake()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            logger.warning("worker cut at shutdown", worker=task.get_name())
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _repeat(self, worker: Worker) -> None:
        awake = self._awake[worker.name]
        while not self._stopping.is_set():
            awake.clear()
            try:
                did_something = await worker.run_once()
            except Exception as error:
                attempts = self._failing[worker.name].attempts + 1 if worker.name in self._failing else 1
                self._failing[worker.name] = Failing(attempts=attempts, error=f"{type(error).__name__}: {error}")
                pause_s = backoff_s(attempts, self._random)
                logger.exception("worker failed", worker=worker.name, attempts=attempts, retry_in_s=round(pause_s, 1))
                await self._pause(self._stopping, pause_s)
                continue
            self._failing.pop(worker.name, None)
            if did_something:
                # A worker with endless work must still let the others and the stop have their turn.
                await asyncio.sleep(0)
            else:
                await self._pause(awake, self._tick_s)

    @staticmethod
    async def _pause(event: asyncio.Event, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
