"""What a Uptane device says of itself, without asking anybody: ``overair-device uptane status``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.progress import read_progress
from overair.agent.uptane.identity import IdentityStore
from overair.agent.uptane.metadata_store import MetadataStore, restored
from overair.agent.uptane.state import ClientState, StateStore
from overair.basics.clock import Instant
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.metadata_writing import expires_text


@dataclass(frozen=True, slots=True, kw_only=True)
class UptaneStatus:
    """One device."""

    device: str | None
    """None: no identity yet."""
    gateway: str | None
    certificate_expires: str | None
    next_certificate: bool
    """A new certificate waits to be used."""
    registered: bool
    ecus: dict[str, dict[str, Any]]
    """By serial: ``hardware_id``, ``image`` (None: unknown), ``sha256``."""
    repositories: dict[str, dict[str, Any] | None]
    """``director`` and ``image``: versions ``root`` and ``targets``, ``root_expires``, ``origin``; None before any root."""
    update: str | None
    """Correlation id of the update under way."""
    unreported: bool
    """The Director hasn't heard yet how the last update ended."""
    attacks: str
    outcome: str | None
    """Of the last round."""
    reason: str | None


def read_status(directory: DeviceDirectory, settings: DeviceSettings, *, now: Instant) -> UptaneStatus:
    """Look at what lies on the disk.

    Raises:
        BadIdentity, DamagedState, StoredMetadataDamaged
    """
    disk = Disk()
    identities = IdentityStore(directory, disk)
    identity = identities.current() or identities.next()
    state = StateStore(directory.uptane / "state.json", disk).read()
    progress = read_progress(directory.run / "progress.json")
    server = None if settings.uptane is None else settings.uptane.server
    return UptaneStatus(
        device=None if identity is None else identity.name,
        gateway=server or identities.gateway,
        certificate_expires=None if identity is None else expires_text(identity.expires_at),
        next_certificate=identities.next() is not None,
        registered=bool(state.registered),
        ecus=_ecus(state),
        repositories={kind.value: _repository(directory, disk, kind, now) for kind in Repository},
        update=None if state.update is None else state.update.correlation_id,
        unreported=state.report is not None,
        attacks=state.attacks,
        outcome=None if progress is None else progress.status,
        reason=None if progress is None else progress.reason,
    )


def _ecus(state: ClientState) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for serial, ecu in state.ecus.items():
        image = ecu.installed
        found[serial] = {
            "hardware_id": ecu.hardware_id,
            "image": None if image is None else image.name,
            "sha256": None if image is None else image.hashes.get("sha256"),
        }
    return found


def _repository(directory: DeviceDirectory, disk: Disk, kind: Repository, now: Instant) -> dict[str, Any] | None:
    stored = MetadataStore(directory.uptane / f"{kind}.trusted", disk).load()
    if stored is None:
        return None
    trusted = restored(stored, repository=kind, vehicle=None, now=now)
    return {
        "root": trusted.root.version,
        "root_expires": expires_text(trusted.root.expires),
        "targets": None if trusted.targets is None else trusted.targets.version,
        "origin": stored.origin.value,
    }
