"""What this server is and what a thief of it could do: ``overair status``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.devices.service import DevicesService
from overair.server.image_repository.status import RepositoryStatuses
from overair.server.jobs.model import JobStatus
from overair.server.jobs.service import JobsService
from overair.server.provisioning.service import ProvisioningService
from overair.server.signing.model import ProfileStatus
from overair.server.signing.service import SigningService
from overair.server.updates.service import UpdatesService
from overair.wire.uptane.metadata_writing import expires_text

PROFILES_MAX: Final = 100
UNSIGNED_NAMED_MAX: Final = 10

RESTORE_TOLD_MS: Final = 30 * 24 * 3600 * 1000
"""How long a restore is a warning."""

SERVER_HELD_KEYS: Final = (
    "Who takes this server's disk with its wrapping key, or controls its process, can sign images with the server-held "
    "profiles. Sign with a key of your own (customCodeSigning) to keep that from them."
)
BARE_WRAPPING_KEY: Final = (
    "Private keys at rest are wrapped by a key file beside them: file permissions alone protect them. "
    "Start with --key-passphrase-file to change that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What only the running process knows; asked on the event loop."""

    version: str
    started_at: Instant
    has_passphrase: bool
    connected: Callable[[], int]
    failing_workers: Callable[[], Collection[str]]
    backed_up_at: Instant | None = None
    """Of a server that was restored: when the backup was made."""
    restored_at: Instant | None = None


class ServerStatusOperations:
    """One operation of our own service model."""

    def __init__(
        self,
        *,
        work: Work,
        devices: DevicesService,
        jobs: JobsService,
        signing: SigningService,
        updates: UpdatesService,
        provisioning: ProvisioningService,
        repositories: RepositoryStatuses,
        running: Running,
        clock: Clock,
    ) -> None:
        self._work = work
        self._devices = devices
        self._jobs = jobs
        self._signing = signing
        self._updates = updates
        self._provisioning = provisioning
        self._repositories = repositories
        self._running = running
        self._clock = clock

    def _restored(self) -> list[str]:
        """For as long as what a restore brings back may be news to somebody."""
        backed_up_at, restored_at = self._running.backed_up_at, self._running.restored_at
        if backed_up_at is None or restored_at is None or self._clock.now() - restored_at > RESTORE_TOLD_MS:
            return []
        moment = as_datetime(backed_up_at).isoformat(timespec="seconds")
        return [
            f"Restored from a backup of {moment}: what was revoked, blocked or deleted since is good again until that is done "
            "once more (docs/security.md)."
        ]

    @operation("overair", "DescribeServer")
    async def describe_server(self, caller: Caller, request: Request) -> Members:
        """Facts, levels, and warnings in words."""
        running = self._running
        recorded, unsigned = await self._work.read(
            lambda tx: (self._recorded(tx, caller.place), self._unsigned(tx, caller.place))
        )
        provisioning = await self._work.read(lambda tx: self._provisioning.status(tx, caller.account))
        repositories = await self._work.read(lambda tx: self._repositories.status(tx, caller.account))
        failing = sorted(running.failing_workers())
        profiles = recorded["imageSigning"]["profiles"]
        warnings = [SERVER_HELD_KEYS] if profiles else []
        if not running.has_passphrase:
            warnings.append(BARE_WRAPPING_KEY)
        testing_only = [profile["name"] for profile in profiles if profile["testingOnly"]]
        if testing_only:
            warnings.append(f"Testing only, since their certificates are self-signed: profiles {', '.join(testing_only)}.")
        if unsigned:
            warnings.append(f"Updates with files that nobody signed: {', '.join(unsigned)}.")
        warnings += self._restored()
        warnings += provisioning.warnings
        warnings += repositories.warnings
        if failing:
            warnings.append(f"Workers that don't get through: {', '.join(failing)}. The log has the reason.")
        return {
            "version": running.version,
            "account": caller.account,
            "region": caller.place.region,
            "startedAt": as_datetime(running.started_at).isoformat(timespec="seconds"),
            "connected": running.connected(),
            "keysAtRest": "passphrase" if running.has_passphrase else "file",
            "failingWorkers": failing,
            "warnings": warnings,
            "provisioning": {
                "level": provisioning.level.value,
                "sharedProvisioning": provisioning.shared.is_on,
                "credentialsUsable": provisioning.credentials_usable,
                "fleetAuthorities": provisioning.fleet_authorities,
            },
            "metadataSigning": {
                "level": repositories.level.value,
                "rootVersion": repositories.versions["root"],
                "targetsVersion": repositories.versions["targets"],
                "directorRootVersion": repositories.director_root,
                "pendingImages": len(repositories.pending),
                "devicesBehindRoot": repositories.devices_behind_root,
                "expiries": [
                    {
                        "repository": expiry.repository.value,
                        "role": expiry.role,
                        "version": expiry.version,
                        "expires": expires_text(expiry.expires),
                        "online": expiry.is_online,
                        **({} if expiry.alarm_days is None else {"alarmDays": expiry.alarm_days}),
                    }
                    for expiry in repositories.expiries
                ],
            },
            **recorded,
        }

    def _unsigned(self, tx: Tx, place: Place) -> list[str]:
        """The newest updates that send something unsigned, by id."""
        return [update.id for update in self._updates.unsigned(tx, place.account, limit=UNSIGNED_NAMED_MAX)]

    def _recorded(self, tx: Tx, place: Place) -> dict[str, Any]:
        profiles = self._signing.profiles(tx, place.account, statuses=(ProfileStatus.ACTIVE,), limit=PROFILES_MAX)
        return {
            "things": self._devices.count(tx, place.account),
            "openJobs": self._jobs.count_with_status(tx, place.account, JobStatus.IN_PROGRESS),
            "imageSigning": {
                "level": "server-held keys" if profiles else "own keys",
                "profiles": [
                    {"name": profile.name, "status": profile.status.value, "testingOnly": profile.testing_only}
                    for profile in profiles
                ],
            },
        }
