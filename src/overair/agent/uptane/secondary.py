"""A Secondary: an ECU that believes nobody, its Primary included. It verifies metadata and bytes by itself before it installs.

The same object serves in the Primary's process (a virtual Secondary) and behind a socket (``secondary_socket.py``). It has::

    ecu.key, state.json           its key; what it runs
    director.trusted, image.trusted
    roots/director/root.json      the roots that it was made with; without them the first that its Primary brings are believed
    roots/repo/root.json
    images/                       the image that is coming
    files/                        where a ``file`` install goes
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from overair.agent.durable import Disk
from overair.agent.uptane.ecu_key import load_or_make
from overair.agent.uptane.image_files import ImageFiles, verify_file
from overair.agent.uptane.installers import EcuName, installer_for
from overair.agent.uptane.metadata_store import MetadataStore, StoredMetadataDamaged
from overair.agent.uptane.refresh import DocumentMissing, Fetch
from overair.agent.uptane.repository import TrustedRepository
from overair.agent.uptane.secondaries import Bundle, SecondaryIdentity, SecondaryRefuses
from overair.agent.uptane.settings import CommandInstall, FileInstall, KeyKind, Verification
from overair.agent.uptane.state import DamagedState, InstalledTarget
from overair.agent.uptane.time_floor import BUILT_AT, SecureTime
from overair.basics.clock import Clock, Instant
from overair.wire.uptane.manifest import UNKNOWN_IMAGE, VersionReport, sign_report
from overair.wire.uptane.matching import VerifiedTarget, match, match_partially
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.reports import InstallationResult, ResultCode, result_of
from overair.wire.uptane.trust import Chain
from overair.wire.uptane.verdicts import Refused

LOG = logging.getLogger("overair.uptane.secondary")

STATE_SIZE_BYTES_MAX: Final = 64 * 1024
ROOT_PATHS: Final = {Repository.DIRECTOR: "director/root.json", Repository.IMAGE: "repo/root.json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondarySettings:
    """What an integrator says of a Secondary."""

    hardware_id: str
    ecu_serial: str | None
    """None: the key's id."""
    verification: Verification
    install: FileInstall | CommandInstall
    key_type: KeyKind = KeyKind.ED25519


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondaryState:
    """What it remembers beside metadata."""

    installed: InstalledTarget | None = None
    attacks: str = ""
    floor: Instant = BUILT_AT


class Secondary:
    """Implements ``SecondaryPort``."""

    def __init__(
        self, folder: Path, settings: SecondarySettings, *, disk: Disk, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        for place in (folder, folder / "images", folder / "files"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._settings = settings
        self._disk = disk
        self._key = load_or_make(folder / "ecu.key", settings.key_type, disk)
        self.serial = settings.ecu_serial or self._key.public_key.id
        self._state = self._read_state()
        self._time = SecureTime(clock, floor=self._state.floor, monotonic=monotonic)
        self._told = Instant(0)
        """The Primary's time, while this process lives. It can make metadata expire, never make it good again."""
        self._images = ImageFiles(folder / "images", disk)
        self._installer = installer_for(settings.install, files=folder / "files", disk=disk)
        self._director = self._repository(Repository.DIRECTOR)
        self._image = self._repository(Repository.IMAGE) if settings.verification is Verification.FULL else None
        self._wanted: VerifiedTarget | None = None

    def _repository(self, kind: Repository) -> TrustedRepository:
        partial = self._settings.verification is Verification.PARTIAL
        chain = Chain.WHOLE if kind is Repository.IMAGE else Chain.ROOT_AND_TARGETS if partial else None
        return TrustedRepository(
            kind,
            MetadataStore(self._folder / f"{kind}.trusted", self._disk),
            first_root=lambda: _content(self._folder / "roots" / ROOT_PATHS[kind]),
            now=self._now,
            vehicle=None,
            chain=chain,
        )

    @property
    def installed(self) -> InstalledTarget | None:
        """What it runs, where it was ever updated."""
        return self._state.installed

    # --- the port ---

    def describe(self) -> SecondaryIdentity:
        roots = {Repository.DIRECTOR: self._director.root_version}
        if self._image is not None:
            roots[Repository.IMAGE] = self._image.root_version
        return SecondaryIdentity(
            serial=self.serial,
            hardware_id=self._settings.hardware_id,
            key=self._key.public_key,
            verification=self._settings.verification,
            roots=roots,
        )

    def report(self) -> bytes:
        installed = self._state.installed
        report = VersionReport(
            ecu=self.serial,
            installed=UNKNOWN_IMAGE if installed is None else replace(installed.file, custom={}),
            attacks_detected=self._state.attacks,
        )
        return json.dumps(sign_report(report, self._key)).encode("ascii")

    def put_metadata(self, bundle: Bundle, now: Instant) -> None:
        self._told = max(self._told, now)
        self._wanted = None
        try:
            director = self._director.refresh(_from(bundle, Repository.DIRECTOR))
            self._check_self_consistent(bundle)
            wanted = self._verified(bundle)
        except MetadataRefused as error:
            raise self._refusal(error.reason, error.message) from None
        except (DocumentMissing, StoredMetadataDamaged) as error:
            raise SecondaryRefuses(None, str(error)) from None
        targets = director.targets
        if targets is not None and self._time.confirm(until=targets.expires):
            self._write(floor=self._time.floor)
        self._wanted = wanted

    def begin_image(self, name: str, length: int) -> int:
        target = self._wanted
        if target is None or target.name != name or target.length != length:
            raise SecondaryRefuses(Reason.TARGET_MISMATCH, f"The metadata don't speak of {name[:64]!r} for {self.serial}.")
        if self._images.whole(target.target) is not None:
            return target.length
        self._images.keep_only([target.target])
        with self._images.part(target.target).opened() as part:
            offset = part.length
        if offset == target.length:  # the power failed just before it got its name; or it is empty
            self._images.finish(target.target)
        return offset

    def write_image(self, offset: int, data: bytes) -> None:
        target = self._wanted
        if target is None or offset + len(data) > target.length:
            raise self._refusal(Reason.OVERSIZED_TARGET, "More comes than was signed.")
        try:
            with self._images.part(target.target).opened() as part:
                part.write(offset, data)
                part.sync()
                if part.length < target.length:
                    return
        except ValueError as error:
            raise SecondaryRefuses(None, str(error)) from None
        self._images.finish(target.target)

    def install(self) -> InstallationResult:
        target = self._wanted
        path = None if target is None else self._images.whole(target.target)
        if target is None or path is None:
            return result_of(ResultCode.INTERNAL_ERROR, "There is no image here that was verified.")
        try:
            image = verify_file(path, target)
        except MetadataRefused as error:
            self._images.forget(target.target)
            self._note(error.reason, error.message)
            return result_of(ResultCode.VERIFICATION_FAILED, error.message)
        name = EcuName(serial=self.serial, hardware_id=self._settings.hardware_id)
        result = self._installer.install(name, target, image, path)
        if result.code == ResultCode.NEED_COMPLETION:
            result = result_of(ResultCode.INSTALL_FAILED, "A Secondary's program can't ask for a restart.")
        if result.success:
            self._write(installed=InstalledTarget.of(target.target), attacks="")
            self._images.keep_only([])
            self._wanted = None
        return result

    # --- what is behind it ---

    def _verified(self, bundle: Bundle) -> VerifiedTarget | None:
        """What the metadata want here; None: nothing new."""
        installed = None if self._state.installed is None else self._state.installed.file
        director = self._director.trusted
        assert director is not None
        if self._image is None:
            result = match_partially(
                director, ecu=self.serial, hardware_id=self._settings.hardware_id, installed=installed, now=self._now()
            )
            return _accepted(result)
        fetch = _from(bundle, Repository.IMAGE)
        image = self._image.refresh(fetch)
        search = match(
            director,
            image,
            ecus={self.serial: self._settings.hardware_id},
            installed={self.serial: installed},
            now=self._now(),
            is_primary=False,
        )
        found = self._image.search(search, fetch)
        if isinstance(found, Refused):
            raise MetadataRefused(found.reason, found.message, field=found.field)
        return found[0] if found else None

    def _check_self_consistent(self, bundle: Bundle) -> None:
        if self._image is not None and Repository.IMAGE not in bundle:
            raise DocumentMissing("A Secondary that verifies in full needs the Image repository's metadata.")

    def _refusal(self, reason: Reason, message: str) -> SecondaryRefuses:
        self._note(reason, message)
        return SecondaryRefuses(reason, message)

    def _note(self, reason: Reason, message: str) -> None:
        LOG.warning("%s refuses: %s: %s", self.serial, reason, message)
        self._write(attacks=f"{reason}: {message}"[:1024])

    def _now(self) -> Instant:
        return max(self._time.now(), self._told)

    def _read_state(self) -> SecondaryState:
        path = self._folder / "state.json"
        data = _content(path, STATE_SIZE_BYTES_MAX)
        if data is None:
            return SecondaryState()
        try:
            return msgspec.json.decode(data, type=SecondaryState)
        except (ValueError, msgspec.MsgspecError) as error:
            raise DamagedState(f"{path} can't be read ({error}). Remove it: what runs here is then unknown.") from None

    def _write(self, **changes: object) -> None:
        state = replace(self._state, **changes)  # type: ignore[arg-type]
        if state != self._state:
            self._disk.write_whole(self._folder / "state.json", msgspec.json.encode(state))
            self._state = state


def _from(bundle: Bundle, repository: Repository) -> Fetch:
    documents = bundle.get(repository, {})

    def fetch(name: str, size_bytes_max: int) -> bytes | None:
        data = documents.get(name)
        if data is not None and len(data) > size_bytes_max:
            raise MetadataRefused(Reason.OVERSIZED, f"{name} has {len(data)} bytes; at most {size_bytes_max} are read.")
        return data

    return fetch


def _accepted(result: VerifiedTarget | Refused | None) -> VerifiedTarget | None:
    if isinstance(result, Refused):
        raise MetadataRefused(result.reason, result.message, field=result.field)
    return result


def _content(path: Path, size_bytes_max: int = 1 << 20) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(size_bytes_max)
    except FileNotFoundError:
        return None
