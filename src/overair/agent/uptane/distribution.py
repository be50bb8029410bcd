"""Images to the ECUs that they are for: everybody's consent first, then the bytes, then one installation after the other.

The Primary itself comes last, since it may restart. The first failure ends it: what wasn't begun is cancelled, so that the
vehicle stays as near as can be to what it was, and the report shows which ECU runs what.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.agent.uptane.image_files import ImageFiles
from overair.agent.uptane.own_install import Note, OwnInstall
from overair.agent.uptane.refresh import Fetch
from overair.agent.uptane.repository import TrustedRepository
from overair.agent.uptane.secondaries import Bundle, SecondaryAway, SecondaryRefuses
from overair.agent.uptane.settings import Verification
from overair.agent.uptane.vehicle import MetSecondary, Vehicle
from overair.basics.clock import Instant
from overair.wire.uptane.events import EventKind
from overair.wire.uptane.matching import VerifiedTarget
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository
from overair.wire.uptane.reports import InstallationResult, ResultCode, result_of
from overair.wire.uptane.trust import ROOT_FILE, SNAPSHOT_FILE, TARGETS_FILE, TIMESTAMP_FILE

LOG = logging.getLogger("overair.uptane")

PIECE_SIZE_BYTES: Final = 1 << 20
_TOP_FILES: Final = frozenset({TIMESTAMP_FILE, SNAPSHOT_FILE, TARGETS_FILE})

Told = Callable[[EventKind, str, bool | None], None]
"""An event of an ECU: its kind, the ECU's serial, whether it went well."""
Done = Callable[[str, VerifiedTarget, InstallationResult], None]
"""An ECU is done: keep its result."""


class EcusAway(Exception):
    """Some ECUs that have something to install can't be reached: try again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One round of handing out images. ``repositories`` and ``fetches`` say where metadata for Secondaries come from."""

    vehicle: Vehicle
    images: ImageFiles
    own_install: OwnInstall
    repositories: Mapping[Repository, TrustedRepository]
    fetches: Mapping[Repository, Fetch]
    now: Instant
    told: Told
    done: Done
    note: Note

    def run(self, targets: Sequence[VerifiedTarget]) -> None:
        """Bring these targets to their ECUs; results come by ``done``.

        Raises:
            EcusAway; TransportFailed: a root that a Secondary lacks can't be had; ResetRequested by the Primary's own image.
        """
        wanted = {serial: target for target in targets for serial in target.ecus}
        secondaries = {serial: target for serial, target in wanted.items() if serial != self.vehicle.serial}
        away = sorted(secondaries.keys() - self.vehicle.met.keys())
        if away:
            raise EcusAway(f"Waiting for {', '.join(away)}.")
        if self._consent(wanted) and self._bring(wanted, secondaries):
            self._install(wanted, secondaries)

    # --- consent ---

    def _consent(self, wanted: Mapping[str, VerifiedTarget]) -> bool:
        """Every Secondary gets the metadata and looks for itself; whether all that are to install agree."""
        for serial, met in self.vehicle.met.items():
            try:
                met.port.put_metadata(self._bundle(met), self.now)
            except SecondaryRefuses as error:
                LOG.warning("%s refuses the metadata: %s", serial, error.message)
                if serial in wanted:
                    self.done(serial, wanted[serial], result_of(ResultCode.VERIFICATION_FAILED, error.message))
                    return False
            except SecondaryAway as error:
                if serial in wanted:
                    raise EcusAway(str(error)) from None
        return True

    def _bundle(self, met: MetSecondary) -> Bundle:
        kinds = Repository if met.identity.verification is Verification.FULL else (Repository.DIRECTOR,)
        return {kind: self._documents(kind, met.identity.roots.get(kind, 0)) for kind in kinds}

    def _documents(self, kind: Repository, known_root: int) -> Mapping[str, bytes]:
        repository = self.repositories[kind]
        trusted = repository.trusted
        if trusted is None:
            return {}
        found: dict[str, bytes] = {}
        for version in range(known_root + 1, trusted.root.version + 1):
            root = repository.kept_root(version) or self.fetches[kind](f"{version}.root.json", ROOT_SIZE_BYTES_MAX)
            if root is not None:
                found[f"{version}.root.json"] = root
        for name, data in trusted.documents.items():
            if name != ROOT_FILE:
                found[name if name in _TOP_FILES else f"delegations/{name}"] = data
        return found

    # --- bytes ---

    def _bring(self, wanted: Mapping[str, VerifiedTarget], secondaries: Mapping[str, VerifiedTarget]) -> bool:
        """The images to the Secondaries' own storage; whether all took them."""
        for serial, target in secondaries.items():
            try:
                self._send(self.vehicle.met[serial], target)
            except SecondaryRefuses as error:
                self.done(serial, wanted[serial], result_of(ResultCode.DOWNLOAD_FAILED, error.message))
                return False
            except SecondaryAway as error:
                raise EcusAway(str(error)) from None
        return True

    def _send(self, met: MetSecondary, target: VerifiedTarget) -> None:
        path = self._image(target)
        offset = met.port.begin_image(target.name, target.length)
        with path.open("rb") as image:
            image.seek(offset)
            while offset < target.length:
                data = image.read(PIECE_SIZE_BYTES)
                met.port.write_image(offset, data)
                offset += len(data)

    # --- installing ---

    def _install(self, wanted: Mapping[str, VerifiedTarget], secondaries: Mapping[str, VerifiedTarget]) -> None:
        for serial, target in secondaries.items():
            self.told(EventKind.INSTALLATION_STARTED, serial, None)
            try:
                result = self.vehicle.met[serial].port.install()
            except SecondaryRefuses as error:
                result = result_of(ResultCode.INSTALL_FAILED, error.message)
            except SecondaryAway as error:
                raise EcusAway(str(error)) from None
            self.told(EventKind.INSTALLATION_COMPLETED, serial, result.success)
            if not result.success:
                self.done(serial, wanted[serial], result)
                return
            self.done(serial, target, result)
        own = wanted.get(self.vehicle.serial)
        if own is None:
            return
        self.told(EventKind.INSTALLATION_STARTED, self.vehicle.serial, None)
        result = self.own_install.install(own, self._image(own), self._noting)
        if result.code != ResultCode.NEED_COMPLETION:
            self.told(EventKind.INSTALLATION_COMPLETED, self.vehicle.serial, result.success)
            self.done(self.vehicle.serial, own, result)

    def _noting(self, activated_sha256: str | None, restart: str | None, reason: str) -> None:
        self.told(EventKind.INSTALLATION_APPLIED, self.vehicle.serial, None)
        self.note(activated_sha256, restart, reason)

    def _image(self, target: VerifiedTarget) -> Path:
        path = self.images.whole(target.target)
        assert path is not None, "images are fetched before they are handed out"
        return path
