"""One job over a large fleet: how soon it answers, is heard and is queued, and what looking at it costs meanwhile and after.

The fleet is written into the server's records while it is stopped: what is measured is the job, not
a hundred thousand CreateThing.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from bench.fleet import Fleet
from bench.measure import resident_bytes
from bench.mqtt_load import Device, Endpoint, Identity, open_many, report_statuses
from bench.processes import Overair
from bench.profiles import Profile
from overair.basics.clock import WallClock
from overair.basics.work import Tx
from overair.server import tables
from overair.server.storage.work import open_sqlite, sql
from overair.wire.mqtt.packets import PINGREQ_BYTES, Publish

GROUP: Final = "bench-large"
OLD_JOB: Final = "bench-old"
NEW_JOB: Final = "bench-large"
ROWS_AT_ONCE: Final = 5_000
CALLS_COUNT: Final = 200
PING_INTERVAL_S: Final = 0.01
REPORTS_AT_ONCE: Final = 25
"""Of each device, between two looks at whether the job is planned."""
TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, and the most or the least that it may be; None where nothing was promised."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within what was promised."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


@dataclass(slots=True, kw_only=True)
class LargeJobResults:
    """What was measured."""

    things_count: int = 0
    executions_count: int = 0
    """Of earlier jobs, in the records from the start."""
    figures: list[Figure] = field(default_factory=list)


async def measure_large_jobs(profile: Profile, work: Path) -> LargeJobResults:
    """Start the server, write the fleet, measure, end it."""
    results = LargeJobResults(things_count=profile.large_fleet_count, executions_count=profile.old_executions_count)
    with ExitStack() as stack:
        overair = Overair(work / "large-jobs")
        stack.callback(overair.stop)
        overair.start()
        fleet = Fleet(overair, work)
        identity, *reporters = fleet.enroll(1 + profile.reporting_devices_count)
        iot = overair.target(tls=True).client("iot")
        iot.create_thing_group(thingGroupName=GROUP)
        iot.add_thing_to_thing_group(thingGroupName=GROUP, thingName=identity.thing)
        arn = iot.describe_thing(thingName=identity.thing)["thingArn"]
        iot.create_job(jobId=OLD_JOB, targets=[arn], document='{"do":"it"}')
        reports = fleet.offer_jobs(reporters)
        overair.stop()
        names = [f"large-{number:07}" for number in range(profile.large_fleet_count - 1)]
        _write_fleet(overair.data / "records.sqlite3", identity.thing, names, executions_count=profile.old_executions_count)
        overair.start()
        results.figures = await _measure(overair, identity, arn, names, profile)
        results.figures += await _measure_meanwhile(overair, reporters, reports, arn, len(names) + 1)
    return results


async def _measure(overair: Overair, identity: Identity, arn: str, names: Sequence[str], profile: Profile) -> list[Figure]:
    at = overair.endpoints
    endpoint = Endpoint(host=at["mqtt_host"], port=at["mqtt_port"], ca=Path(at["ca_file"]))
    iot: Any = overair.target(tls=True).client("iot")
    group_arn = arn.rpartition(":")[0] + f":thinggroup/{GROUP}"
    device = await Device.open(endpoint, identity.thing, identity.context(endpoint.ca), client_id=identity.thing)
    await device.ask(device.wire.subscribe((f"$aws/things/{identity.thing}/jobs/notify", 0)))
    heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def notified(packet: Publish) -> None:
        if NEW_JOB.encode() in packet.payload and not heard.done():
            heard.set_result(time.perf_counter())

    device.on_publish = notified
    memory_before = resident_bytes(overair.pid)
    began = time.perf_counter()
    await asyncio.to_thread(iot.create_job, jobId=NEW_JOB, targets=[group_arn], document='{"do":"it"}')
    answered = time.perf_counter()
    meanwhile, queued, most_memory = await asyncio.to_thread(_until_queued, iot, overair.pid, len(names) + 1)
    first = await asyncio.wait_for(heard, TIMEOUT_S)
    drained = await asyncio.to_thread(_until_heard, overair.data / "records.sqlite3")
    device.close()
    figures = [
        Figure(name="CreateJob over all of them answers", value=answered - began, unit="s", most=1.0),
        Figure(name="the first device hears of it", value=first - began, unit="s", most=2.0),
        Figure(name="every execution is queued", value=queued - began, unit="s", most=10.0),
        Figure(name="every notice is handed on", value=drained - began, unit="s"),
        Figure(name="DescribeJob meanwhile, p99", value=_p99(meanwhile) * 1000, unit="ms", most=100.0),
        Figure(name="most memory while it is planned", value=most_memory / 2**20, unit="MiB", most=500.0),
        Figure(name="memory before", value=memory_before / 2**20, unit="MiB"),
    ]
    count = profile.explicit_targets_count
    arns = [arn.rpartition("/")[0] + f"/{name}" for name in names[:count]]
    began = time.perf_counter()
    await asyncio.to_thread(iot.create_job, jobId="bench-explicit", targets=arns, document='{"do":"it"}')
    figures.append(
        Figure(name=f"CreateJob with {len(arns):,} things by name", value=time.perf_counter() - began, unit="s", most=1.0)
    )
    middle = names[len(names) // 2]
    questions: dict[str, Callable[[], Any]] = {
        "DescribeJob": lambda: iot.describe_job(jobId=NEW_JOB),
        "ListJobs": lambda: iot.list_jobs(maxResults=250),
        "ListJobs by status": lambda: iot.list_jobs(status="IN_PROGRESS", maxResults=250),
        "DescribeJobExecution": lambda: iot.describe_job_execution(jobId=NEW_JOB, thingName=middle),
        "ListJobExecutionsForJob, first page": lambda: iot.list_job_executions_for_job(jobId=NEW_JOB, maxResults=250),
        "ListJobExecutionsForJob, the failed": lambda: iot.list_job_executions_for_job(
            jobId=OLD_JOB, status="FAILED", maxResults=250
        ),
        "ListJobExecutionsForThing": lambda: iot.list_job_executions_for_thing(thingName=middle, maxResults=250),
    }
    for name, ask in questions.items():
        times = await asyncio.to_thread(_timed, ask, profile.large_calls_count)
        figures.append(Figure(name=f"{name}, p99 through boto3", value=_p99(times) * 1000, unit="ms", most=100.0))
    times = await asyncio.to_thread(_pages, iot, profile.large_calls_count)
    figures.append(Figure(name="ListJobExecutionsForJob, pages in a row, p99", value=_p99(times) * 1000, unit="ms", most=100.0))
    return figures


async def _measure_meanwhile(
    overair: Overair, reporters: Sequence[Identity], reports: Sequence[str], arn: str, count: int
) -> list[Figure]:
    """What devices feel while two more such jobs are planned: how late the gateway's loop answers, and how many reports of
    theirs it takes."""
    at = overair.endpoints
    endpoint = Endpoint(host=at["mqtt_host"], port=at["mqtt_port"], ca=Path(at["ca_file"]))
    iot: Any = overair.target(tls=True).client("iot")
    group_arn = arn.rpartition(":")[0] + f":thinggroup/{GROUP}"

    async def planned(job: str) -> None:
        await asyncio.to_thread(iot.create_job, jobId=job, targets=[group_arn], document='{"do":"it"}')
        until = time.perf_counter() + TIMEOUT_S
        while (await asyncio.to_thread(_queued, iot, job)) < count:
            if time.perf_counter() > until:
                raise TimeoutError(f"{job} isn't queued whole in {TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.5)

    devices = await open_many(endpoint, reporters, count=len(reporters), prefix="meanwhile-")
    for device, job in zip(devices, reports, strict=True):
        topic = f"$aws/things/{device.thing}/jobs/{job}/update"
        await device.ask(device.wire.subscribe((f"{topic}/accepted", 0), (f"{topic}/rejected", 0)))
    late: list[float] = []
    planning = asyncio.ensure_future(planned(f"{NEW_JOB}-pinged"))
    while not planning.done():
        began = time.perf_counter()
        await devices[0].ask(PINGREQ_BYTES)
        late.append(time.perf_counter() - began)
        await asyncio.sleep(PING_INTERVAL_S)
    planning.result()
    accepted = 0
    began = time.perf_counter()
    planning = asyncio.ensure_future(planned(f"{NEW_JOB}-reported"))
    while not planning.done():
        accepted += await report_statuses(devices, jobs=reports, each=REPORTS_AT_ONCE, in_flight=4)
    rate = accepted / (time.perf_counter() - began)
    planning.result()
    for device in devices:
        device.close()
    return [
        Figure(name="PINGREQ to PINGRESP while one is planned, p99", value=_p99(late) * 1000, unit="ms", most=20.0),
        Figure(name="status updates while one is planned", value=rate, unit="per s", least=3000.0),
    ]


def _queued(iot: Any, job: str) -> int:
    return int(iot.describe_job(jobId=job)["job"]["jobProcessDetails"]["numberOfQueuedThings"])


def _until_queued(iot: Any, pid: int, count: int) -> tuple[list[float], float, int]:
    """How long each question took meanwhile, when all were queued, and the most memory that was seen."""
    times: list[float] = []
    memory = 0
    until = time.perf_counter() + TIMEOUT_S
    while True:
        began = time.perf_counter()
        details = iot.describe_job(jobId=NEW_JOB)["job"]["jobProcessDetails"]
        ended = time.perf_counter()
        times.append(ended - began)
        memory = max(memory, resident_bytes(pid))
        if details["numberOfQueuedThings"] >= count:
            return times, ended, memory
        if ended > until:
            raise TimeoutError(f"{details['numberOfQueuedThings']} of {count} things were queued in {TIMEOUT_S:.0f} s")


def _until_heard(records: Path) -> float:
    until = time.perf_counter() + TIMEOUT_S
    with closing(sqlite3.connect(f"file:{records}?mode=ro", uri=True)) as reader:
        while reader.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is not None:
            if time.perf_counter() > until:
                raise TimeoutError("The outbox isn't empty.")
            time.sleep(0.05)
    return time.perf_counter()


@contextmanager
def _without_the_clients_garbage() -> Iterator[None]:
    """What this process holds already isn't looked through meanwhile: boto3's models and a hundred thousand names take its
    collector 80 ms, once in some 150 answers, which no server can do anything about."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _timed(ask: Callable[[], Any], count: int) -> list[float]:
    times = []
    with _without_the_clients_garbage():
        for _ in range(count):
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
    return times


def _pages(iot: Any, count: int) -> list[float]:
    times: list[float] = []
    token: dict[str, str] = {}
    with _without_the_clients_garbage():
        while len(times) < count:
            began = time.perf_counter()
            page = iot.list_job_executions_for_job(jobId=NEW_JOB, maxResults=250, **token)
            times.append(time.perf_counter() - began)
            token = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
    return times


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * 99 // 100)]


def _write_fleet(records: Path, sample: str, names: Sequence[str], *, executions_count: int) -> None:
    """Things like the sample, in its group, and executions of ``OLD_JOB`` and jobs like it, which have ended."""
    work = open_sqlite(records, clock=WallClock(), readers=1)
    known = tables.metadata.tables

    def write(table: str, rows: Callable[[dict[str, Any]], Iterator[dict[str, Any]]], name: str = "thing") -> None:
        columns = known[table].c

        def first(tx: Tx) -> dict[str, Any]:
            return dict(sql(tx).execute(select(*columns).where(columns[name] == sample)).mappings().one())

        like = work.read_blocking(first)
        chunk: list[dict[str, Any]] = []
        for row in rows(like):
            chunk.append(row)
            if len(chunk) == ROWS_AT_ONCE:
                work.run_blocking(lambda tx, chunk=chunk: sql(tx).execute(insert(known[table]), chunk))
                chunk = []
        if chunk:
            work.run_blocking(lambda tx: sql(tx).execute(insert(known[table]), chunk))

    def executions(like: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in range(executions_count):
            status = "FAILED" if number % 100 == 0 else "SUCCEEDED"
            attempt, thing = divmod(number, len(names))
            yield {**like, "thing": names[thing], "number": attempt + 1, "latest": False, "status": status, "due_at": None}

    try:
        write("things", lambda like: ({**like, "name": name, "id": str(uuid.uuid4())} for name in names), "name")
        write("thing_group_members", lambda like: ({**like, "thing": name} for name in names))
        write("job_executions", executions)
    finally:
        work.close()
