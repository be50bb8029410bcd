"""A Primary put together from a device directory: the one place of the client that names concrete classes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.platform import Platform
from overair.agent.progress import NoProgress, ProgressSink
from overair.agent.server_trust import ServerTrust
from overair.agent.settings import Application
from overair.agent.uptane.ecu_key import load_or_make
from overair.agent.uptane.gateway import Gateway
from overair.agent.uptane.https import HttpClient, Patience
from overair.agent.uptane.identity import IdentityStore
from overair.agent.uptane.image_files import ImageFiles
from overair.agent.uptane.installers import EcuName, installer_for
from overair.agent.uptane.ledger import Ledger
from overair.agent.uptane.metadata_store import MetadataStore
from overair.agent.uptane.own_install import OwnInstall, PlainOwnInstall, SlotOwnInstall, run_of_this_machine
from overair.agent.uptane.primary import Parts, Primary
from overair.agent.uptane.provisioning import ProvisioningFailed, SharedProvisioning, import_files, read_credential
from overair.agent.uptane.renewal import Renewal
from overair.agent.uptane.repository import TrustedRepository
from overair.agent.uptane.secondaries import SecondaryPort
from overair.agent.uptane.secondary import ROOT_PATHS, Secondary, SecondarySettings
from overair.agent.uptane.secondary_socket import SocketSecondaryPort
from overair.agent.uptane.settings import SlotInstall, SocketSecondary, UptaneSettings
from overair.agent.uptane.state import StateStore
from overair.agent.uptane.telemetry import Telemetry
from overair.agent.uptane.time_floor import SecureTime
from overair.agent.uptane.vehicle import Vehicle
from overair.basics.clock import Clock, Instant, WallClock
from overair.basics.ids import IdSource, RandomIds
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository
from overair.wire.uptane.trust import Chain

USER_AGENT: Final = "Overair-Uptane"
ROOTS_FOLDER: Final = "roots"
"""Below ``uptane/``: where roots go that came with a credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything ambient that a client needs, passed in."""

    monotonic: Callable[[], float]
    pause: Callable[[float], bool]
    """Wait some seconds; True when the client is asked to stop."""
    disk: Disk = field(default_factory=Disk)
    clock: Clock = field(default_factory=WallClock)
    ids: IdSource = field(default_factory=RandomIds)
    chance: Random = field(default_factory=Random)
    patience: Patience = field(default_factory=Patience)
    machine_run: Callable[[], str] = run_of_this_machine
    http: Callable[..., HttpClient] = HttpClient


def prepare(directory: DeviceDirectory) -> None:
    """The folders of a Uptane device."""
    for folder in (directory.uptane, directory.uptane / "images", directory.certificate_file.parent, directory.files):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def provision(directory: DeviceDirectory, settings: DeviceSettings, around: Surroundings) -> str:
    """Have an identity: take over what changed in the operator's files, or ask with the shared credential where there is none.
    The device's id.

    Raises:
        ProvisioningFailed, TransportFailed, BadIdentity
    """
    uptane = _uptane(settings)
    prepare(directory)
    identities = IdentityStore(directory, around.disk)
    if uptane.imported is not None:
        import_files(identities, uptane.imported, directory.root)
    shared = None
    if uptane.credentials is not None:
        shared = _shared_provisioning(directory, settings, identities, around, directory.root / uptane.credentials)
    identity = identities.current() or identities.next()
    if identity is None:
        if shared is None:
            raise ProvisioningFailed(
                "This device has no identity, and device.json names neither a shared credential nor files to import.",
                for_good=True,
            )
        _keep_roots(directory, around.disk, directory.root / str(uptane.credentials))
        identity = shared.run(gateway=uptane.server)
    if shared is not None:
        shared.finish()
    return identity.name


def assemble(
    directory: DeviceDirectory,
    settings: DeviceSettings,
    around: Surroundings,
    *,
    platform: Platform | None,
    application: Application,
    version: str,
    progress: ProgressSink | None = None,
) -> Primary:
    """The Primary of a device that has an identity. ``platform``: where its own image goes into slots.

    Raises:
        ProvisioningFailed, BadIdentity, BadEcuKey, DamagedState, StoredMetadataDamaged
    """
    uptane = _uptane(settings)
    prepare(directory)
    identities = IdentityStore(directory, around.disk)
    identity = identities.current() or identities.next()
    server = uptane.server or identities.gateway
    if identity is None or server is None:
        raise ProvisioningFailed("The device has no identity yet, or doesn't know its gateway's address.", for_good=True)
    ledger = Ledger(StateStore(directory.uptane / "state.json", around.disk), ids=around.ids)
    time = SecureTime(around.clock, floor=ledger.state.floor, monotonic=around.monotonic)
    time.learn(identity.issued_at)
    ledger.clock = time.now
    gateway = Gateway(
        server,
        identities=identities,
        make_client=_client_maker(around),
        director=uptane.director,
        repository=uptane.repository,
    )
    key = load_or_make(directory.uptane / "ecu.key", uptane.key_type, around.disk)
    name = EcuName(serial=uptane.ecu_serial or key.public_key.id, hardware_id=settings.hardware_id)
    own_install = _own_install(directory, uptane, around, name, platform, application)
    vehicle = Vehicle(
        key=key,
        serial=name.serial,
        hardware_id=name.hardware_id,
        own_install=own_install,
        secondaries=_secondaries(directory, uptane, around),
        ledger=ledger,
    )
    return Primary(
        Parts(
            vehicle=vehicle,
            own_install=own_install,
            gateway=gateway,
            repositories=trusted_repositories(directory, settings, around, now=time.now, vehicle=identity.name),
            images=ImageFiles(directory.uptane / "images", around.disk),
            time=time,
            ledger=ledger,
            telemetry=Telemetry(configuration=configuration_text(settings)),
            renewal=Renewal(identities, gateway, monotonic=around.monotonic) if uptane.renews else None,
            trust=ServerTrust(identities.ca_file, around.disk, gateway.authorities) if uptane.renews else None,
            version=version,
            chance=around.chance,
            monotonic=around.monotonic,
            pause=around.pause,
            polling_s=uptane.polling_s,
            progress=progress or NoProgress(),
        )
    )


def trusted_repositories(
    directory: DeviceDirectory,
    settings: DeviceSettings,
    around: Surroundings,
    *,
    now: Callable[[], Instant],
    vehicle: str,
) -> dict[Repository, TrustedRepository]:
    """What the Primary trusts of both repositories.

    Raises:
        StoredMetadataDamaged
    """
    uptane = _uptane(settings)

    def first_root(kind: Repository) -> bytes | None:
        folders = [directory.root / uptane.roots] if uptane.roots is not None else []
        for folder in (*folders, directory.uptane / ROOTS_FOLDER):
            root = _content(folder / ROOT_PATHS[kind])
            if root is not None:
                return root
        return None

    return {
        kind: TrustedRepository(
            kind,
            MetadataStore(directory.uptane / f"{kind}.trusted", around.disk),
            first_root=lambda kind=kind: first_root(kind),  # type: ignore[misc]
            now=now,
            vehicle=vehicle,
            chain=Chain.WHOLE if kind is Repository.IMAGE else None,
        )
        for kind in Repository
    }


def configuration_text(settings: DeviceSettings) -> str:
    """The effective settings as the server may know them: no path, no secret."""
    uptane = _uptane(settings)
    install = type(uptane.install).__name__.removesuffix("Install").lower()
    mode = "DeviceCred" if uptane.imported else "SharedCred"
    return (
        f'[uptane]\npolling_sec = {uptane.polling_s:g}\nkey_type = "{uptane.key_type}"\n\n'
        f'[provision]\nmode = "{mode}"\n\n[pacman]\ntype = "overair-{install}"\n'
    )


def _own_install(
    directory: DeviceDirectory,
    uptane: UptaneSettings,
    around: Surroundings,
    name: EcuName,
    platform: Platform | None,
    application: Application,
) -> OwnInstall:
    if not isinstance(uptane.install, SlotInstall):
        installer = installer_for(uptane.install, files=directory.files, disk=around.disk)
        return PlainOwnInstall(installer, name, machine_run=around.machine_run)
    if platform is None:
        raise ProvisioningFailed("This device's images go into slots: run it with overair-device boot.", for_good=True)
    return SlotOwnInstall(platform, application)


def _secondaries(directory: DeviceDirectory, uptane: UptaneSettings, around: Surroundings) -> dict[str, SecondaryPort]:
    found: dict[str, SecondaryPort] = {}
    for each in uptane.secondaries:
        if isinstance(each, SocketSecondary):
            found[each.path] = SocketSecondaryPort(directory.root / each.path)
            continue
        found[each.name] = Secondary(
            directory.uptane / "secondaries" / each.name,
            SecondarySettings(
                hardware_id=each.hardware_id,
                ecu_serial=each.ecu_serial,
                verification=each.verification,
                install=each.install,
            ),
            disk=around.disk,
            clock=around.clock,
            monotonic=around.monotonic,
        )
    return found


def _client_maker(around: Surroundings) -> Callable[[str, ssl.SSLContext, ssl.SSLContext], HttpClient]:
    def make(server: str, context: ssl.SSLContext, foreign: ssl.SSLContext) -> HttpClient:
        return around.http(
            gateway=server,
            context=context,
            foreign_context=foreign,
            pause=around.pause,
            chance=around.chance,
            monotonic=around.monotonic,
            patience=around.patience,
            user_agent=USER_AGENT,
        )

    return make


def _shared_provisioning(
    directory: DeviceDirectory,
    settings: DeviceSettings,
    identities: IdentityStore,
    around: Surroundings,
    credential_file: Path,
) -> SharedProvisioning:
    make = _client_maker(around)
    return SharedProvisioning(
        identities,
        credential_file=credential_file,
        id_file=directory.uptane / "device-id",
        configured_id=settings.thing_name or None,
        ids=around.ids,
        disk=around.disk,
        client=lambda url, context: make(url, context, context),
    )


def _keep_roots(directory: DeviceDirectory, disk: Disk, credential_file: Path) -> None:
    """Roots that came with the credential are the first that are trusted."""
    for kind, root in read_credential(credential_file).roots.items():
        path = directory.uptane / ROOTS_FOLDER / ROOT_PATHS[kind]
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk.write_whole(path, root, mode=0o644)


def _uptane(settings: DeviceSettings) -> UptaneSettings:
    if settings.uptane is None:
        raise ProvisioningFailed("device.json has no member uptane: this is no Uptane device.", for_good=True)
    return settings.uptane


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(ROOT_SIZE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
