"""The Uptane road: manifests and targets of a fleet, idle polls, a push of many targets, an image by ranges."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from bench.measure import Measured, Subject, interleaved
from bench.processes import Overair
from bench.profiles import Profile
from bench.uptane_fleet import IMAGE_SIZE_BYTES, UptaneFleet
from bench.vehicles import Crowd, Image, Request, Session, Vehicle
from overair.basics.clock import Instant, from_datetime
from overair.wire.uptane.keys import Flavour, PublicKey, public_key_of
from overair.wire.uptane.metadata import Body, Role, RoleKeys, TargetFile, Targets
from overair.wire.uptane.metadata_reading import read_document, read_root
from overair.wire.uptane.metadata_writing import payload, sign_payload

RANGE_SIZE_BYTES = 1024 * 1024
_UPLOADS = "/api/v1/user_repo"


@dataclass(slots=True, kw_only=True)
class UptaneResults:
    """What was measured."""

    vehicles_count: int = 0
    ecus_count: int = 3
    polls: list[Measured] = field(default_factory=list)
    """Cycles of vehicles that have nothing to do."""
    cycles: list[Measured] = field(default_factory=list)
    """Cycles of an update: an assignment is fetched, or reported installed."""
    ranges: list[Measured] = field(default_factory=list)
    """Each of ``RANGE_SIZE_BYTES``."""
    pushes: list[Measured] = field(default_factory=list)
    """Targets a second, of pushes of ``push_targets_count`` each."""
    push_targets_count: int = 0


async def measure_uptane(profile: Profile, work: Path) -> UptaneResults:
    """Start the server and its fleet, measure, end them."""
    results = UptaneResults(vehicles_count=profile.vehicles_count, push_targets_count=profile.push_targets_count)
    with ExitStack() as stack:
        overair = Overair(work / "uptane")
        stack.callback(overair.stop)
        overair.start()
        fleet = UptaneFleet(overair, work)
        await fleet.enrol(profile.vehicles_count)
        results.polls = await _measure_polls(profile, fleet)
        results.cycles = await _measure_updates(profile, fleet)
        results.ranges = await _measure_ranges(profile, fleet)
        results.pushes = await _measure_pushes(profile, fleet)
    return results


# Cycles ---------------------------------------------------------------------------------------------------------------


async def _measure_polls(profile: Profile, fleet: UptaneFleet) -> list[Measured]:
    # The first poll of each makes the documents that it is served from then on.
    first = Crowd(fleet.port, fleet.vehicles, fleet.port.cycle, Session.CYCLE)
    await first.prepare(len(fleet.vehicles))
    await first.run()
    crowds = {session: Crowd(fleet.port, fleet.vehicles, fleet.port.cycle, session) for session in Session}
    measured = await interleaved(
        [
            Subject(
                name=f"idle poll: manifest, next root, targets; TLS session {session.value}",
                pid=fleet.overair.pid,
                prepare=crowd.prepare,
                run=crowd.run,
                count_max=2000,
            )
            for session, crowd in crowds.items()
        ],
        rounds=profile.rounds,
        seconds=profile.seconds,
    )
    for crowd in crowds.values():
        crowd.close()
    return measured


async def _measure_updates(profile: Profile, fleet: UptaneFleet) -> list[Measured]:
    """Each round is an update of as many vehicles as fill it: fetched, then reported installed."""
    updates = {session: _Updates(fleet, session) for session in (Session.CYCLE, Session.KEPT)}
    measured = await interleaved(
        [
            Subject(
                name=f"manifest to targets, assignment fetched or reported; TLS session {session.value}",
                pid=fleet.overair.pid,
                prepare=update.prepare,
                run=update.run,
                first_count=32,
                count_max=2 * len(fleet.vehicles),
            )
            for session, update in updates.items()
        ],
        rounds=profile.rounds,
        seconds=profile.seconds,
    )
    for update in updates.values():
        update.close()
    return measured


class _Updates:
    """Updates of vehicles in turn, each with an image that they haven't got."""

    def __init__(self, fleet: UptaneFleet, session: Session) -> None:
        self._fleet = fleet
        self._session = session
        self._count = 0
        self._next = 0
        self._crowd: Crowd | None = None

    async def prepare(self, count: int) -> None:
        """``count`` cycles: half as many vehicles."""
        all_vehicles = self._fleet.vehicles
        wanted = max(1, min(count // 2, len(all_vehicles)))
        vehicles = [all_vehicles[(self._next + number) % len(all_vehicles)] for number in range(wanted)]
        self._next += len(vehicles)
        self._count += 1
        name = f"bench-update-{self._session.name.lower()}-{self._count}"
        content, correlation_id = self._fleet.offer_update(name, [vehicle.name for vehicle in vehicles])
        image = Image(name, len(content), hashlib.sha256(content).hexdigest())

        def make(vehicle: Vehicle) -> tuple[Request, ...]:
            return self._fleet.port.update(vehicle, image, correlation_id)

        self._crowd = Crowd(self._fleet.port, vehicles, make, self._session)
        await self._crowd.prepare(len(vehicles))

    async def run(self) -> int:
        assert self._crowd is not None
        return 2 * await self._crowd.run()

    def close(self) -> None:
        for vehicle in self._fleet.vehicles:
            if vehicle.connection is not None:
                vehicle.connection.close()
                vehicle.connection = None


# Images ---------------------------------------------------------------------------------------------------------------


async def _measure_ranges(profile: Profile, fleet: UptaneFleet) -> list[Measured]:
    path = fleet.upload_image()
    parts = IMAGE_SIZE_BYTES // RANGE_SIZE_BYTES
    requests = [
        fleet.port.request(
            "GET",
            path,
            expect=(206,),
            extra=f"Range: bytes={part * RANGE_SIZE_BYTES}-{(part + 1) * RANGE_SIZE_BYTES - 1}",
        )
        for part in range(parts)
    ]

    def make(vehicle: Vehicle) -> tuple[Request, ...]:
        number = int(vehicle.name.rpartition("-")[2])
        return (requests[number % parts],)

    crowd = Crowd(fleet.port, fleet.vehicles, make, Session.KEPT)
    measured = await interleaved(
        [Subject(name="image by ranges of 1 MiB", pid=fleet.overair.pid, prepare=crowd.prepare, run=crowd.run, count_max=500)],
        rounds=profile.rounds,
        seconds=profile.seconds,
    )
    crowd.close()
    return measured


# Pushes ---------------------------------------------------------------------------------------------------------------


class _OwnKey:
    """The targets key, away from the server."""

    def __init__(self) -> None:
        self._private = ed25519.Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> PublicKey:
        return public_key_of(self._private.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


class _Pushes:
    """Targets documents of ``count`` images each, none of which the one before had, in both flavours."""

    def __init__(self, fleet: UptaneFleet, count: int) -> None:
        self._fleet, self._count = fleet, count
        self._key = _OwnKey()
        self._round = 0
        self._body = b""
        self._checksum = ""

    def take_targets_offline(self) -> None:
        """A new root that names our key for targets; the server adds the signature of the root key that it holds."""
        answer, _ = self._fleet.rest("GET", f"{_UPLOADS}/root.json")
        root = read_root(read_document(answer, Role.ROOT))
        keys = {**root.keys, self._key.public_key.id: self._key.public_key}
        roles = {**root.roles, "targets": RoleKeys(key_ids=(self._key.public_key.id,), threshold=1)}
        named = {key_id for each in roles.values() for key_id in each.key_ids}
        body = replace(
            root,
            version=root.version + 1,
            keys={key_id: key for key_id, key in keys.items() if key_id in named},
            roles=roles,
            expires=_in_days(300),
        )
        standing, headers = self._fleet.rest("GET", f"{_UPLOADS}/targets.json")
        version = int(json.loads(standing)["signed"]["version"])
        targets = Targets(version=version + 1, expires=_in_days(30), targets={})
        publication = {
            flavour.value: {
                "root": json.loads(sign_payload(payload(body, flavour), [], flavour)),
                "targets": json.loads(sign_payload(payload(targets, flavour), [self._key], flavour)),
            }
            for flavour in Flavour
        }
        self._push(publication, headers["x-ats-role-checksum"])

    async def prepare(self, _count: int) -> None:
        """The next document, signed."""
        self._round += 1
        standing, headers = self._fleet.rest("GET", f"{_UPLOADS}/targets.json")
        version = int(json.loads(standing)["signed"]["version"])
        files = {}
        for number in range(self._count):
            name = f"bench-push-{self._round}-{number}"
            files[name] = TargetFile(
                name=name,
                length=1000,
                hashes={"sha256": hashlib.sha256(name.encode()).hexdigest()},
                custom={
                    "name": name,
                    "version": "1",
                    "hardwareIds": ["bench-gateway"],
                    "targetFormat": "BINARY",
                    "uri": f"https://images.example/{name}",
                    "createdAt": "2026-01-01T00:00:00Z",
                    "updatedAt": "2026-01-01T00:00:00Z",
                },
            )
        targets = Targets(version=version + 1, expires=_in_days(30), targets=files)
        self._body = json.dumps(
            {flavour.value: {"targets": json.loads(_signed(targets, self._key, flavour))} for flavour in Flavour}
        ).encode()
        self._checksum = str(headers["x-ats-role-checksum"])

    async def run(self) -> int:
        self._fleet.rest("PUT", f"{_UPLOADS}/publication?force=true", self._body, self._headers(self._checksum))
        return self._count

    def _push(self, publication: object, checksum: str) -> None:
        body = json.dumps(publication).encode()
        self._fleet.rest("PUT", f"{_UPLOADS}/publication?coSign=true&force=true", body, self._headers(checksum))

    @staticmethod
    def _headers(checksum: str) -> dict[str, str]:
        return {"x-ats-role-checksum": checksum, "Content-Type": "application/json"}


async def _measure_pushes(profile: Profile, fleet: UptaneFleet) -> list[Measured]:
    pushes = _Pushes(fleet, profile.push_targets_count)
    pushes.take_targets_offline()
    subject = Subject(
        name=f"push of {profile.push_targets_count:,} targets, both flavours",
        pid=fleet.overair.pid,
        prepare=pushes.prepare,
        run=pushes.run,
    )
    return await interleaved([subject], rounds=profile.rounds, seconds=profile.seconds)


def _signed(body: Body, key: _OwnKey, flavour: Flavour) -> bytes:
    return sign_payload(payload(body, flavour), [key], flavour)


def _in_days(days: int) -> Instant:
    return Instant(from_datetime(datetime.now(UTC) + timedelta(days=days)) // 1000 * 1000)
