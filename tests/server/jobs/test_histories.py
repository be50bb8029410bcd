"""Every history of up to six messages about one thing and two jobs, from the device, the operator and the clock.

The machine that is walked is the real one over real records: each message is one savepoint, taken back after what follows it
was tried. Two histories that led to the same records have the same future, so each such future is walked once. Beside it runs
the table of wire reference §2.8 and §2.9, written here once more and on purpose.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from overair.basics.errors import OverairError
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Notice
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion
from overair.server.storage.transaction import SqlTx
from tests.support.jobs_room import FakeConnection, JobsRoom, answer

T = TypeVar("T")

LENGTH_MAX = 6
THING = ThingName("dev-1")
JOBS = (JobId("A"), JobId("B"))
ENDED = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"}
ALLOWED = {
    # Wire reference §2.8, by who acts.
    ("device", "QUEUED"): {"IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"},
    ("device", "IN_PROGRESS"): {"IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"},
    ("operator", "QUEUED"): {"CANCELED"},
    ("operator", "IN_PROGRESS"): {"CANCELED"},
    ("clock", "IN_PROGRESS"): {"TIMED_OUT"},
}


_STATES = ("QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", "CANCELED")
_EXECUTIONS = (
    "SELECT job, number, status, version, status_details, latest, queued_at, job_sequence, in_progress_due_at, step_due_at "
    "FROM job_executions ORDER BY job, number"
)
_JOBS = f"SELECT id, status, phase, force_canceled, {', '.join(f'count_{state.lower()}' for state in _STATES)} FROM jobs"


@dataclass(frozen=True, slots=True)
class Row:
    """One execution, as it is kept."""

    job: str
    number: int
    status: str
    version: int
    status_details: dict[str, str]
    latest: int
    queued_at: int
    job_sequence: int
    in_progress_due_at: int | None
    step_due_at: int | None

    @property
    def is_pending(self) -> bool:
        return self.status not in ENDED


Records = dict[tuple[str, int], Row]


@dataclass(frozen=True)
class Message:
    """One thing that somebody says; ``say`` answers a device's reply, or None for the others."""

    who: str
    what: str
    say: Callable[[World], Any]

    def __str__(self) -> str:
        return f"{self.who}: {self.what}"


@dataclass
class World:
    """The room inside one unit of work, with what was announced."""

    room: JobsRoom
    tx: SqlTx
    notices: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topics = JobTopics(work=self, jobs=self.room.jobs.device, clock=self.room.clock)

    # ``basics.work.Work``, within the unit that is open already.

    async def run(self, unit: Callable[[Any], T]) -> T:
        return unit(self.tx)

    read = run

    def told(self, topic: str, **members: object) -> tuple[str, Any]:
        """(``accepted`` or ``rejected``, body) of a device's message."""
        full = f"$aws/things/{THING}/jobs/{topic}"
        payload = json.dumps(members).encode()
        (reply,) = _at_once(answer(self.topics, FakeConnection(place=self.room.place), full, payload))
        return reply.topic.rpartition("/")[2], json.loads(reply.payload)

    def executions(self) -> Records:
        """As they stand in the records, read past the store: it is under test too, and thousands of looks are taken."""
        rows = self.tx.driver.execute(_EXECUTIONS)
        return {(row[0], row[1]): Row(*row[:4], json.loads(row[4]), *row[5:]) for row in rows}

    def jobs(self) -> dict[str, Any]:
        """By job: (what decides over its future, its things counted by state)."""
        rows = self.tx.driver.execute(_JOBS)
        return {row[0]: (row[:4], dict(zip(_STATES, row[4:], strict=True))) for row in rows}


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("a door waited for something beside its unit of work")


def update(job: str, status: str, **more: object) -> Message:
    def say(world: World) -> Any:
        return world.told(f"{job}/update", status=status, includeJobExecutionState=True, **more)

    return Message("device", f"{job} {status} {json.dumps(more)}", say)


def operator(what: str, do: Callable[[World, Any], object]) -> Message:
    return Message("operator", what, lambda world: do(world, world.room.place.account) and None)


def _time_passes(world: World) -> None:
    world.room.clock.advance(milliseconds=61_000)
    world.room.jobs.executions.time_out_overdue(world.tx, now=world.room.clock.now())


MESSAGES = [
    Message("device", "start-next", lambda world: world.told("start-next", statusDetails={"by": "start-next"})),
    update("A", "IN_PROGRESS", statusDetails={"receive": "1/9"}),
    update("A", "IN_PROGRESS", expectedVersion="1"),
    update("A", "SUCCEEDED"),
    update("A", "FAILED", statusDetails={"reason": "x"}),
    update("B", "IN_PROGRESS", statusDetails={"self_test": "ready"}, stepTimeoutInMinutes=1),
    update("B", "REJECTED"),
    operator("cancel A's execution", lambda w, a: w.room.jobs.executions.cancel(w.tx, a, THING, JOBS[0], force=False)),
    operator("cancel A's execution by force", lambda w, a: w.room.jobs.executions.cancel(w.tx, a, THING, JOBS[0], force=True)),
    operator("delete A's execution", lambda w, a: w.room.jobs.executions.delete(w.tx, a, THING, JOBS[0], 1, force=True)),
    operator("cancel job B", lambda w, a: w.room.jobs.cancel(w.tx, a, JOBS[1], force=False)),
    Message("clock", "a minute passes", _time_passes),
]


@contextmanager
def taken_back(world: World) -> Iterator[None]:
    """Whatever happens inside is undone."""
    now = world.room.clock.now()
    world.tx.driver.execute("SAVEPOINT history")
    try:
        yield
    finally:
        world.tx.driver.execute("ROLLBACK TO SAVEPOINT history")
        world.tx.driver.execute("RELEASE SAVEPOINT history")
        world.room.clock.set(now)
        world.tx.notices.clear()
        world.tx.actions.clear()


def queue_of(executions: Records) -> list[tuple[str, int]]:
    """The pending ones in the order that the reference gives them."""
    pending = [row for row in executions.values() if row.is_pending]
    ordered = sorted(pending, key=lambda row: (row.status != "IN_PROGRESS", row.queued_at, row.job_sequence, row.job))
    return [(row.job, row.number) for row in ordered]


def situation(world: World) -> object:
    """What decides over the future: the records, with times as distances and versions as far as anybody asks for them."""
    now = world.room.clock.now()
    executions = world.executions()
    order = sorted({row.queued_at for row in executions.values()})

    def distance(moment: int | None) -> int | None:
        return None if moment is None else moment - now

    rows = tuple(
        (
            key,
            row.status,
            row.version == 1,
            tuple(sorted(row.status_details.items())),
            row.latest,
            order.index(row.queued_at),
            distance(row.in_progress_due_at) if row.is_pending else None,
            distance(row.step_due_at) if row.is_pending else None,
        )
        for key, row in sorted(executions.items())
    )
    return rows, tuple(decisive for decisive, _ in world.jobs().values())


def expected_code(before: Records, message: Message) -> str | None:
    """How the reference rejects an update of the latest attempt; None: it accepts it."""
    job, status, rest = message.what.split(" ", 2)
    latest = [row for row in before.values() if row.job == job and row.latest]
    if not latest:
        return "ResourceNotFound"
    (row,) = latest
    if "expectedVersion" in rest and row.version != 1:
        return "VersionMismatch"
    return None if status in ALLOWED.get(("device", row.status), ()) else "InvalidStateTransition"


def check(world: World, message: Message, before: Records, reply: Any) -> None:
    """Hold one message and what it led to against the reference."""
    after = world.executions()
    for key, row in before.items():
        if key not in after:
            assert message.what == "delete A's execution"
            continue
        new = after[key]
        if new.status != row.status or new.version != row.version:
            assert new.status in ALLOWED[message.who, row.status], (message, row.status, new.status)
            assert new.version == row.version + 1, "each change counts one"
        else:
            assert new.status_details == row.status_details
    for key, row in after.items():
        if key not in before:
            assert (row.status, row.version, row.status_details) == ("QUEUED", 1, {}), "a retry begins anew"
            assert key[1] == 1 + max((number for job, number in before if job == key[0]), default=0)
    for job in JOBS:
        assert sum(row.latest for row in after.values() if row.job == job) <= 1
        assert sum(row.is_pending for row in after.values() if row.job == job) <= 1, "no thing has two open ones of one job"
    for job, (_, counted) in world.jobs().items():
        latest = Counter(row.status for row in after.values() if row.latest and row.job == job)
        assert {status: count for status, count in counted.items() if count} == dict(latest)
    check_notices(world, before, after)
    if message.who == "device":
        check_reply(message, before, after, reply)


def check_notices(world: World, before: Records, after: Records) -> None:
    """``notify`` when the set changed, ``notify-next`` when its head did; each once, and true."""
    queue_before, queue_after = queue_of(before), queue_of(after)
    told: dict[str, list[Any]] = {"notify": [], "notify-next": []}
    for notice in world.tx.notices:
        if notice.topic.startswith("$aws/events/"):
            continue  # the operator's events have tests of their own
        told[notice.topic.rpartition("/")[2]].append(json.loads(notice.payload))
    ended = sum(key not in queue_after for key in queue_before)
    # Two timers may end in one turn of the clock: two changes, each announced.
    assert len(told["notify"]) == max(ended, set(queue_before) != set(queue_after))
    heads = [queue_before[:1], *[_head_of(body) for body in told["notify-next"]]]
    assert all(one != other for one, other in itertools.pairwise(heads)), "never without another head"
    assert heads[-1] == queue_after[:1], "and never left out"
    assert len(told["notify-next"]) <= max(ended, 1)
    for body in told["notify"][-1:]:
        listed = [*body["jobs"].get("IN_PROGRESS", []), *body["jobs"].get("QUEUED", [])]
        assert [(entry["jobId"], entry["executionNumber"]) for entry in listed] == queue_after
        assert [after[key].version for key in queue_after] == [entry["versionNumber"] for entry in listed]
        assert all(body["jobs"].values()), "a status is named only where there are some"
    for body in told["notify-next"][-1:]:
        if queue_after:
            shown = body["execution"]
            assert (shown["status"], shown["jobDocument"]) == (after[queue_after[0]].status, {"operation": "x"})


def check_answers(world: World) -> None:
    """Asking changes nothing, and shows the head and the queue that the records have."""
    queue = queue_of(world.executions())
    world.tx.notices.clear()
    _, described = world.told("$next/get")
    assert _head_of(described) == queue[:1]
    _, pending = world.told("get")
    listed = [*pending["inProgressJobs"], *pending["queuedJobs"]]
    assert [(entry["jobId"], entry["executionNumber"]) for entry in listed] == queue
    assert world.tx.notices == []


def _head_of(body: Any) -> list[tuple[str, int]]:
    return [(body["execution"]["jobId"], body["execution"]["executionNumber"])] if "execution" in body else []


def check_reply(message: Message, before: Records, after: Records, reply: Any) -> None:
    verdict, body = reply
    if message.what == "start-next":
        assert verdict == "accepted"
        head = queue_of(before)[:1]
        assert _head_of(body) == head
        if head:
            assert body["execution"]["status"] == after[head[0]].status == "IN_PROGRESS"
            assert after[head[0]].version == before[head[0]].version + (before[head[0]].status == "QUEUED")
        return
    code = expected_code(before, message)
    assert (verdict, body.get("code")) == (("accepted", None) if code is None else ("rejected", code)), (message, body)
    if code == "ResourceNotFound":
        assert "executionState" not in body
        return
    job = message.what.split(" ", 1)[0]
    key = next(key for key, row in before.items() if row.job == job and row.latest)
    state = body["executionState"]
    shown = (state["status"], state["versionNumber"], state.get("statusDetails", {}))
    assert shown == (after[key].status, after[key].version, after[key].status_details), "of this very attempt"
    assert (after == before) is (code is not None), "what was refused changed nothing"


class Walk:
    """Every message in every situation, and from there on, until the history is as long as it may become."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._leads: dict[tuple[object, Message], object] = {}
        self._walked: dict[object, int] = {}
        self._asked: set[object] = set()
        self.longest = 0

    @property
    def situations(self) -> int:
        return len(self._walked)

    def begin(self) -> None:
        self._go_on(situation(self._world), LENGTH_MAX, ())

    def _go_on(self, here: object, length: int, path: tuple[Message, ...]) -> None:
        self._walked[here] = length
        self.longest = max(self.longest, len(path) + 1)
        for message in MESSAGES:
            known = self._leads.get((here, message))
            if known is not None and self._walked.get(known, 0) >= length - 1:
                continue  # tried here before, and so was everything that can follow
            with taken_back(self._world):
                there = self._tried(here, message, path)
                if self._walked.get(there, 0) < length - 1:
                    self._go_on(there, length - 1, (*path, message))

    def _tried(self, here: object, message: Message, path: tuple[Message, ...]) -> object:
        """Say it, hold what comes of it against the reference the first time, and tell where it led."""
        world = self._world
        first = (here, message) not in self._leads
        before = world.executions() if first else {}
        try:
            reply = message.say(world)
        except OverairError:
            assert message.who == "operator"
            reply = None
            if first:
                assert world.executions() == before
                assert world.tx.notices == []
        if first:
            there = self._leads[here, message] = situation(world)
            try:
                check(world, message, before, reply)
                if there not in self._asked:
                    self._asked.add(there)
                    check_answers(world)
            except AssertionError as wrong:
                raise AssertionError(f"after {' | '.join(map(str, (*path, message)))}: {wrong}") from wrong
        world.tx.notices.clear()
        return self._leads[here, message]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
def test_every_history_of_six_messages_keeps_to_the_tables(room: JobsRoom) -> None:
    room.add_things(THING)
    retry = (RetryCriterion(failure_type=FailureType.ALL, retries=1),)
    room.create("A", room.thing_arn(THING), settings=JobSettings(retry=retry, in_progress_timeout_minutes=1))
    room.create("B", room.thing_arn(THING))

    def explore(tx: Any) -> Walk:
        walk = Walk(World(room, SqlTx(tx.connection, tx.driver, writable=True)))
        walk.begin()
        return walk

    walk = room.work.run_blocking(explore)
    assert walk.longest == LENGTH_MAX
    assert walk.situations > 100, "the messages lead somewhere"
