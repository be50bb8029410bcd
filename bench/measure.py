"""How a number is taken: interleaved rounds, medians, CPU of the server's processes beside the rate."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5
SETTLE_TIMEOUT_S = 3.0
_SETTLE_STEP_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*pids: int) -> float:
    """User and system time so far of processes with all their threads and children."""
    return sum(_own_cpu_seconds(each) for pid in pids for each in _family(pid))


def _own_cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _family(pid: int) -> list[int]:
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except OSError:  # a thread that ended meanwhile, or a kernel that doesn't tell
            continue
        for child in children:
            found += _family(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One timed run of one subject."""

    rate: float
    """Operations a second."""
    cpu_us: float
    """Of the server's processes for each operation, work that it does after its answers included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a subject did over all rounds: medians."""

    subject: str
    rate: float
    cpu_us: float
    slowest: float
    fastest: float
    rounds: int


async def _nothing(_count: int) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that is measured.

    ``prepare`` is given the number of operations of the next run and is not timed; ``run`` does them and returns how many.
    """

    name: str
    pid: int
    beside: tuple[int, ...] = ()
    """More processes that do the work."""
    run: Callable[[], Awaitable[int]]
    prepare: Callable[[int], Awaitable[None]] = _nothing
    first_count: int = 32
    count_max: int = 3000


async def interleaved(subjects: Sequence[Subject], *, rounds: int, seconds: float) -> list[Measured]:
    """Run each subject once in every round, so that a drift of the machine meets all of them; one warm-up round first.

    Each run tells how many operations of the next fill about ``seconds``.
    """
    taken: dict[str, list[Round]] = {each.name: [] for each in subjects}
    counts = {each.name: each.first_count for each in subjects}
    for number in range(rounds + 1):
        for subject in subjects:
            await subject.prepare(counts[subject.name])
            done = await _timed(subject)
            if number > 0:
                taken[subject.name].append(done)
            # Anew each time: some servers get slower with what they hold.
            counts[subject.name] = max(subject.first_count // 2, min(subject.count_max, int(done.rate * seconds)))
    return [
        Measured(
            subject=name,
            rate=statistics.median(each.rate for each in done),
            cpu_us=statistics.median(each.cpu_us for each in done),
            slowest=min(each.rate for each in done),
            fastest=max(each.rate for each in done),
            rounds=len(done),
        )
        for name, done in taken.items()
    ]


async def _timed(subject: Subject) -> Round:
    pids = (subject.pid, *subject.beside)
    await settled(*pids)
    cpu_before, began = cpu_seconds(*pids), time.perf_counter()
    operations = await subject.run()
    took = time.perf_counter() - began
    # What an answer leaves to be done afterwards is part of its price.
    await settled(*pids)
    return Round(rate=operations / took, cpu_us=(cpu_seconds(*pids) - cpu_before) / operations * 1e6)


async def settled(*pids: int) -> None:
    """Wait until the processes do next to nothing; at most ``SETTLE_TIMEOUT_S``."""
    until = time.perf_counter() + SETTLE_TIMEOUT_S
    before = cpu_seconds(*pids)
    while time.perf_counter() < until:
        await asyncio.sleep(_SETTLE_STEP_S)
        now = cpu_seconds(*pids)
        if now - before <= 1 / _TICKS:
            return
        before = now
