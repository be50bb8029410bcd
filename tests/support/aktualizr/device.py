"""aktualizr, whole: provisioning, the update cycle in the order that was observed, reports (Uptane reference §3, §5, §6).

A client for tests that sends byte for byte what aktualizr sends and verifies as aktualizr does. It imports nothing of the
server that it is pointed at. Facts that it rests on stand in ``docs/aktualizr-wire.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.curl import Call, Http, TlsCredentials
from tests.support.aktualizr.errors import (
    BadEcuId,
    BadHardwareId,
    MetadataFetchFailure,
    TargetContentMismatch,
    TargetMismatch,
    UptaneError,
)
from tests.support.aktualizr.events import ReportQueue
from tests.support.aktualizr.installer import Installer
from tests.support.aktualizr.manifests import REPORT_CONTENT_TYPE, report_of_target
from tests.support.aktualizr.metadata import Target
from tests.support.aktualizr.package_manager import PackageManagerNone
from tests.support.aktualizr.provisioner import Provisioner, Refusal
from tests.support.aktualizr.repositories import DirectorRepository, ImageRepository
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.aktualizr.storage import DeviceResult, InstallationResult, Storage
from tests.support.aktualizr.telemetry import Telemetry

DOWNLOAD_TRIES = 3
CAMPAIGNS_SIZE_BYTES_MAX = 1024 * 1024


def wall_clock_now() -> str:
    """As ``expires`` is written."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Outcome(StrEnum):
    """How one cycle ended."""

    NOT_PROVISIONED = "not provisioned"
    NO_UPDATES = "no updates"
    CHECK_FAILED = "check failed"
    DOWNLOAD_FAILED = "download failed"
    NOTHING_TO_DOWNLOAD = "nothing to download"
    INSTALLED = "installed"
    INSTALL_FAILED = "install failed"
    NEEDS_REBOOT = "needs reboot"


@dataclass(slots=True)
class Check:
    """What a check for updates came to."""

    updates: list[Target] = field(default_factory=list)
    error: Exception | None = None


class _ServerFetcher:
    """Documents of one repository from its server."""

    def __init__(self, curl: Http, base_url: str) -> None:
        self._curl, self._base_url = curl, base_url

    def fetch(self, file_name: str, *, size_bytes_max: int) -> bytes:
        response = self._curl.get(f"{self._base_url}/{file_name}", size_bytes_max=size_bytes_max)
        if not response.is_ok:
            raise MetadataFetchFailure(f"{file_name}: {response.error or response.status}")
        return response.body


class Aktualizr:
    """One process of it; ``restart`` ends it and starts the next on the same storage."""

    def __init__(
        self,
        configuration: Configuration,
        secondaries: Sequence[VirtualSecondary] = (),
        *,
        storage: Storage | None = None,
        now: Callable[[], str] = wall_clock_now,
        connect: Callable[[TlsCredentials], Http] | None = None,
    ) -> None:
        """``connect`` makes something else than libcurl's HTTP, for tests in one process."""
        self.configuration = configuration
        self.server_url = configuration.server_url
        self.storage = storage or Storage()
        self.secondaries = {secondary.serial: secondary for secondary in sorted(secondaries, key=lambda each: each.serial)}
        self.calls: list[Call] = []
        """Every request of this process, in order."""
        self.last_error: Exception | None = None
        self._now, self._connect = now, connect
        self.provisioner = Provisioner(configuration, self.storage, self.secondaries, self.calls, connect)
        self.package_manager = PackageManagerNone(self.storage, f"{self.server_url}/repo")
        self.director = DirectorRepository(self.storage.director, now)
        self.image = ImageRepository(self.storage.image, now)
        self._queue = ReportQueue(self.storage, now)
        self._telemetry = Telemetry(configuration, self.storage)
        self._installer = Installer(self.storage, self.provisioner, self.secondaries, self.package_manager, self._queue)
        self._has_sent_device_data = False
        if self._installer.finish_after_reboot():
            self.director.drop_targets()

    @property
    def serial(self) -> str:
        return self.provisioner.serial

    @property
    def device_id(self) -> str:
        return self.provisioner.device_id

    @property
    def refusal(self) -> Refusal | None:
        """Why the last attempt to get provisioned failed, if the server said so."""
        return self.provisioner.refusal

    @property
    def curl(self) -> Http:
        assert self.provisioner.curl is not None
        return self.provisioner.curl

    def installed_image(self, serial: str | None = None) -> str | None:
        """The name of what an ECU runs; None before its first update."""
        installed = self.storage.installed.get(serial or self.serial)
        return None if installed is None else installed.name

    def restart(
        self, *, secondaries: Sequence[VirtualSecondary] | None = None, configuration: Configuration | None = None
    ) -> Aktualizr:
        """The next process of the same device; other Secondaries or another configuration if they are given."""
        return Aktualizr(
            configuration or self.configuration,
            tuple(self.secondaries.values()) if secondaries is None else secondaries,
            storage=self.storage,
            now=self._now,
            connect=self._connect,
        )

    def provision(self) -> bool:
        """One attempt."""
        return self.provisioner.attempt()

    # The cycle.

    def cycle(self) -> Outcome:
        """What happens once in ``polling_sec``."""
        if not self._has_sent_device_data:
            if not self.provision():
                return Outcome.NOT_PROVISIONED
            self._telemetry.send_all(self.curl)
            self._has_sent_device_data = True
        check = self.check_updates()
        self.last_error = check.error
        if not check.updates:
            if check.error is None:
                return Outcome.NO_UPDATES
            self.put_manifest()
            return Outcome.CHECK_FAILED
        downloaded = self.download(check.updates)
        if downloaded is not Outcome.INSTALLED:
            if downloaded is not Outcome.NOTHING_TO_DOWNLOAD:
                self.put_manifest()
            return downloaded
        result = self.install(check.updates)
        if self.storage.pending:
            return Outcome.NEEDS_REBOOT
        self.put_manifest()
        return Outcome.INSTALLED if result.success else Outcome.INSTALL_FAILED

    def check_updates(self) -> Check:
        """Network information, the manifest, the Director's metadata; the Image repository's if that says something new."""
        if not self.provision():
            return Check(error=MetadataFetchFailure("not provisioned"))
        self._telemetry.send_network(self.curl)
        if self.storage.pending:
            return Check(error=MetadataFetchFailure("There are pending updates, no new updates are checked"))
        self.put_manifest()
        try:
            updates = self._uptane_iteration()
        except UptaneError as error:
            return Check(error=error)
        if self.storage.director.roles.get("targets") is None:
            return Check(error=MetadataFetchFailure("Could not update metadata."))
        try:
            matched = [self._match_in_image_repository(target) for target in updates]
        except UptaneError as error:
            self._store_failure(InstallationResult.of("VERIFICATION_FAILED", "Metadata verification failed."))
            return Check(error=error)
        return Check(updates=matched)

    def _uptane_iteration(self) -> list[Target]:
        self.director.update(_ServerFetcher(self.curl, f"{self.server_url}/director"))
        updates = self._new_targets()
        if updates:
            self.image.update(_ServerFetcher(self.curl, f"{self.server_url}/repo"))
        return updates

    def _new_targets(self) -> list[Target]:
        assert self.director.targets is not None
        found = []
        for target in self.director.targets.targets:
            is_new = False
            for serial, hardware_id in target.ecus.items():
                known = self.provisioner.hardware_id_of(serial)
                if known is None:
                    raise BadEcuId(target.name)
                if known != hardware_id:
                    raise BadHardwareId(target.name)
                installed = self.storage.installed.get(serial)
                if installed is None:
                    is_new = True
                elif installed.matches(target):
                    continue
                elif installed.name == target.name:
                    raise TargetContentMismatch(target.name)
                else:
                    is_new = True
            if is_new:
                found.append(target)
        return found

    def _match_in_image_repository(self, target: Target) -> Target:
        found = self.image.find(target, _ServerFetcher(self.curl, f"{self.server_url}/repo"))
        if found is None:
            raise TargetMismatch(target.name)
        return target.with_uri(found.uri) if not target.uri and found.uri else target

    def _recheck_offline(self, updates: Sequence[Target]) -> bool:
        """Whether what is stored still names these; False when nothing in it is new.

        Raises:
            UptaneError: it isn't good any more, or doesn't name them.
        """
        self.director.check_offline()
        new = self._new_targets()
        if not new:
            return False
        try:
            self.image.check_offline()
        except UptaneError as error:
            self.last_error = error  # logged, and no more than that
        for target in updates:
            if not any(target.matches(each) for each in new) or self.image.find(target, None) is None:
                raise TargetMismatch(target.name)
        return True

    def download(self, updates: Sequence[Target]) -> Outcome:
        """Every image, three tries each; what was begun before is gone on with."""
        try:
            if not self._recheck_offline(updates):
                return Outcome.NOTHING_TO_DOWNLOAD
        except UptaneError as error:
            self.last_error = error
            self._store_failure(InstallationResult.of("INTERNAL_ERROR", "Error rechecking stored metadata."))
            return Outcome.DOWNLOAD_FAILED
        results = [self._download_one(target) for target in updates]
        self.flush_events()
        if all(results):
            return Outcome.INSTALLED
        self._store_failure(InstallationResult.of("DOWNLOAD_FAILED", "Target download failed."))
        return Outcome.DOWNLOAD_FAILED

    def _download_one(self, target: Target) -> bool:
        correlation_id = self.director.correlation_id
        for serial in sorted(target.ecus):
            self._queue.enqueue("EcuDownloadStarted", ecu=serial, correlation_id=correlation_id)
        is_done = False
        for attempt in range(DOWNLOAD_TRIES):
            if attempt:
                time.sleep(self.configuration.retry_pause_s)
            is_done = self.package_manager.fetch_target(target, self.curl)
            if is_done:
                break
        for serial in sorted(target.ecus):
            self._queue.enqueue("EcuDownloadCompleted", ecu=serial, correlation_id=correlation_id, success=is_done)
        return is_done

    def install(self, updates: Sequence[Target]) -> InstallationResult:
        """What is stored is checked once more; the result is kept for the next manifest."""
        correlation_id = self.director.correlation_id
        result, raw_report = InstallationResult("INTERNAL_ERROR", "", False), "Stored Uptane metadata is invalid"
        try:
            if not self._recheck_offline(updates):
                result = InstallationResult("ALREADY_PROCESSED", "", False)
            elif not all(self.package_manager.is_good(target) for target in updates):
                raw_report = "Downloaded target is invalid"
            else:
                result, raw_report = self._installer.install(updates, correlation_id)
        except UptaneError as error:
            self.last_error = error
        self.storage.device_result = DeviceResult(result, raw_report, correlation_id)
        self.flush_events()
        return result

    def _store_failure(self, result: InstallationResult) -> None:
        """A failure before anything was installed; without a correlation id it is never told."""
        correlation_id = self.director.correlation_id
        if not correlation_id:
            return
        self.storage.device_result = DeviceResult(result, "", correlation_id)
        self.director.drop_targets()

    # What is reported.

    def manifest(self) -> dict[str, object]:
        """The next manifest, signed. The counter rises with each that is made, sent or not."""
        self.storage.report_counter += 1
        key = self.provisioner.key
        own = report_of_target(self.serial, self.storage.installed.get(self.serial))
        own["report_counter"] = str(self.storage.report_counter)
        reports: dict[str, object] = {self.serial: key.signed(own)}
        for serial, secondary in self.secondaries.items():
            made = secondary.manifest()
            if made is not None:
                self.storage.manifests_of_secondaries[serial] = made
            kept = self.storage.manifests_of_secondaries.get(serial)
            if kept is not None:
                reports[serial] = kept
        signed: dict[str, object] = {"primary_ecu_serial": self.serial, "ecu_version_manifests": reports}
        told = self.storage.device_result
        if told is not None:
            if not (told.result.success or told.result.needs_completion):
                self.director.drop_targets()
            report = {
                "result": told.result.to_json(),
                "raw_report": told.raw_report,
                "correlation_id": told.correlation_id,
                "items": [{"ecu": serial, "result": result.to_json()} for serial, result in self._installer.results()],
            }
            signed["installation_report"] = {"content_type": REPORT_CONTENT_TYPE, "report": report}
        return key.signed(signed)

    def put_manifest(self) -> bool:
        """Not while an installation waits for a reboot."""
        if self.storage.pending:
            return False
        response = self.curl.put(f"{self.server_url}/director/manifest", jsoncpp.bytes_of(self.manifest()))
        if not response.is_ok:
            return False
        self.storage.device_result = None
        self.storage.ecu_results.clear()
        return True

    def flush_events(self) -> int | None:
        """One POST of what has queued up."""
        return self._queue.flush(self.curl, self.server_url)

    def campaigns(self) -> list[dict[str, object]]:
        """Campaigns that wait for somebody's approval."""
        response = self.curl.get(f"{self.server_url}/campaigner/campaigns", size_bytes_max=CAMPAIGNS_SIZE_BYTES_MAX)
        return list(jsoncpp.parse(response.body)["campaigns"]) if response.is_ok else []

    def decide_campaign(self, campaign_id: str, decision: str) -> int | None:
        """``accepted``, ``declined`` or ``postponed``: told as an event."""
        self._queue.enqueue(f"campaign_{decision}", campaignId=campaign_id)
        return self.flush_events()
