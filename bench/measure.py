"""How a number is taken: interleaved rounds, medians, CPU of the server's process beside the rate."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One timed run of one subject."""

    rate: float
    """Operations a second."""
    cpu_us: float
    """Of the server's process for each operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a subject did over all rounds: medians."""

    subject: str
    rate: float
    cpu_us: float
    slowest: float
    fastest: float


Subject = tuple[str, int, Callable[[], Awaitable[int]]]
"""(name, the server's pid, a coroutine function that does its work and returns the number of operations)."""


async def timed(pid: int, work: Callable[[], Awaitable[int]]) -> Round:
    """Run once."""
    cpu_before, began = cpu_seconds(pid), time.perf_counter()
    operations = await work()
    took, cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu_before
    return Round(rate=operations / took, cpu_us=cpu / operations * 1e6)


async def interleaved(subjects: Sequence[Subject], *, rounds: int = ROUNDS) -> list[Measured]:
    """Run each subject once in every round, so that a drift of the machine meets all of them; one warm-up round first."""
    taken: dict[str, list[Round]] = {name: [] for name, _, _ in subjects}
    for number in range(rounds + 1):
        for name, pid, work in subjects:
            done = await timed(pid, work)
            if number > 0:
                taken[name].append(done)
    return [
        Measured(
            subject=name,
            rate=statistics.median(each.rate for each in done),
            cpu_us=statistics.median(each.cpu_us for each in done),
            slowest=min(each.rate for each in done),
            fastest=max(each.rate for each in done),
        )
        for name, done in taken.items()
    ]
