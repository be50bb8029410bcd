"""The keeper of a device's identity: what it asks, stores and keeps, wherever it is cut."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.durable import Disk
from overair.agent.identity_keeper import SPREAD_MAX, IdentityKeeper
from overair.agent.uptane.https import Answer, Unreachable
from overair.agent.uptane.identity import Identity, IdentityStore
from overair.basics.clock import Instant, SettableClock, from_datetime
from tests.support import pki

SETTINGS = DeviceSettings(thing_name="dev-1", hardware_id="posix", mqtt_host="gateway.example", mqtt_port=8883)
LIFE_MS = from_datetime(pki.DIES) - from_datetime(pki.BORN)
DUE = Instant(from_datetime(pki.BORN) + int(LIFE_MS * (2 / 3 + SPREAD_MAX)) + 1)


class PowerCut(BaseException):
    """Nothing after this happens."""


class CutDisk(Disk):
    """Cuts before its nth durable step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerCut

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)


@dataclass
class Gateway:
    """Issues by its own authority, names whom it likes, and notes under which certificate it was asked."""

    root: pki.Held = field(default_factory=lambda: pki.authority("Devices"))
    named: list[pki.Held] = field(default_factory=lambda: [pki.authority("Server 1")])
    waits: int = 0
    refuses: set[str] = field(default_factory=set)
    is_away: bool = False
    requests: list[bytes] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    client: Any = None

    def request(self, method: str, url: str, *, body: bytes | None = None, headers: Any = None, **_: Any) -> Answer:
        if self.is_away:
            raise Unreachable("away")
        if self.client in self.refuses:
            return Answer(status=403, body=b"")
        if url.endswith("/simplereenroll"):
            assert body is not None
            self.requests.append(body)
            if self.waits:
                self.waits -= 1
                return Answer(status=202, body=b"", headers={"retry-after": "1"})
            request = x509.load_der_x509_csr(base64.b64decode(body))
            issued = pki.certificate(request.subject, self.root, _Public(request), [], born=pki.BORN, dies=pki.DIES)
            return Answer(status=200, body=_certs_only([issued.certificate]))
        self.told.append((headers or {}).get("If-None-Match", ""))
        body = _certs_only([each.certificate for each in self.named])
        return Answer(status=200, body=body)

    def close(self) -> None:
        pass


class _Public:
    """A key of which only the public half is here."""

    def __init__(self, request: x509.CertificateSigningRequest) -> None:
        self._request = request

    def public_key(self) -> Any:
        return self._request.public_key()


def _certs_only(found: list[x509.Certificate]) -> bytes:
    return base64.encodebytes(pkcs7.serialize_certificates(found, Encoding.DER))


@dataclass
class World:
    directory: DeviceDirectory
    gateway: Gateway
    changes: list[None] = field(default_factory=list)
    at_s: float = 0.0

    def keeper(self, disk: Disk | None = None, *, at: Instant = DUE, settings: DeviceSettings = SETTINGS) -> IdentityKeeper:
        def client(identity: Identity) -> Any:
            self.gateway.client = identity.certificate_file.stem
            return self.gateway

        return IdentityKeeper(
            self.directory,
            settings,
            clock=SettableClock(at),
            chance=Random(1),
            changed=lambda: self.changes.append(None),
            monotonic=lambda: self.at_s,
            disk=disk,
            make_client=client,
        )

    @property
    def store(self) -> IdentityStore:
        return IdentityStore(self.directory, Disk())

    @property
    def trusted(self) -> set[x509.Certificate]:
        return set(x509.load_pem_x509_certificates((self.directory.root / "identity" / "ca.pem").read_bytes()))


@pytest.fixture
def world(tmp_path: Path) -> World:
    gateway = Gateway()
    device = pki.device(gateway.root, "dev-1")
    directory = create_device_directory(
        tmp_path / "d",
        SETTINGS,
        certificate_pem=device.pem.encode(),
        private_key_pem=device.key_pem.encode(),
        ca_pem=gateway.named[0].pem.encode(),
        anchors={},
    )
    (tmp_path / "d" / "identity" / "gateway.url").write_text("https://gateway.example:8443\n")
    return World(directory, gateway)


def test_before_two_thirds_of_its_life_nothing_is_asked_and_after_them_and_the_spread_a_new_key_comes(world: World) -> None:
    old = world.store.current()
    assert old is not None
    early = Instant(from_datetime(pki.BORN) + LIFE_MS * 2 // 3 - 1)
    assert not world.keeper(at=early).round()
    assert world.gateway.requests == []
    assert world.keeper().round()
    new = world.store.current()
    assert new is not None
    assert new.certificate.public_key() != old.certificate.public_key()
    assert (world.store.next(), len(world.changes)) == (None, 1)


def test_devices_that_were_made_together_do_not_renew_together(world: World) -> None:
    spreads = {
        IdentityKeeper(
            world.directory, SETTINGS, clock=SettableClock(DUE), chance=Random(seed), changed=lambda: None
        )._renewal._spread
        for seed in range(20)
    }
    assert len(spreads) == 20
    assert all(0 <= spread <= SPREAD_MAX for spread in spreads)


def test_a_request_that_waits_is_made_again_as_it_was_after_its_time_and_after_a_restart(world: World) -> None:
    world.gateway.waits = 2
    keeper = world.keeper()
    assert not keeper.round()
    assert not keeper.round()  # not yet
    assert len(world.gateway.requests) == 1
    world.at_s = 2.0
    assert not keeper.round()
    assert world.keeper().round()  # another process, after a power cut
    assert len(set(world.gateway.requests)) == 1
    assert world.store.pending() is None


def test_a_new_certificate_that_is_not_taken_is_dropped_and_the_old_one_stays(world: World) -> None:
    old = world.store.current()
    world.gateway.refuses = {"next"}
    assert not world.keeper().round()
    assert len(world.gateway.requests) == 1
    assert (world.store.current(), world.store.next(), world.changes) == (old, None, [])


def test_a_new_certificate_is_kept_while_nobody_answers_under_either(world: World) -> None:
    world.gateway.refuses = {"next", "certificate"}
    world.store.propose(**_next(world))
    assert not world.keeper().round()
    assert world.store.next() is not None
    world.gateway.refuses = set()
    assert world.keeper(at=Instant(from_datetime(pki.BORN) + 1)).round()
    assert world.store.next() is None


def _next(world: World) -> dict[str, Any]:
    held = pki.device(world.gateway.root, "dev-1")
    return {"private_key_pem": held.key_pem.encode(), "chain_pem": held.pem.encode(), "name": "dev-1"}


def test_a_server_that_is_away_costs_nothing(world: World) -> None:
    world.gateway.is_away = True
    old = world.store.current()
    assert not world.keeper().round()
    assert (world.store.current(), world.store.next(), world.changes) == (old, None, [])


def test_whom_the_server_names_is_trusted_and_whom_it_names_no_longer_is_not_but_others_stay(world: World) -> None:
    early = Instant(from_datetime(pki.BORN) + 1)
    own = pki.authority("Somebody else's")
    ca_file = world.directory.root / "identity" / "ca.pem"
    first, second = world.gateway.named[0], pki.authority("Server 2")
    ca_file.write_bytes(ca_file.read_bytes() + own.pem.encode())
    assert not world.keeper(at=early).round()
    assert world.gateway.told[0] == ""
    assert world.gateway.told[1] != ""  # it says what it has stored
    world.gateway.named = [second, first]
    assert world.keeper(at=early).round()
    assert world.trusted == {first.certificate, second.certificate, own.certificate}
    world.gateway.named = [second]
    assert world.keeper(at=early).round()
    assert world.trusted == {second.certificate, own.certificate}
    assert len(world.changes) == 2


def test_a_ca_file_of_somebody_else_s_is_left_alone(world: World, tmp_path: Path) -> None:
    early = Instant(from_datetime(pki.BORN) + 1)
    other = tmp_path / "other.pem"
    other.write_text(pki.authority("Other").pem)
    settings = DeviceSettings(
        thing_name="dev-1", hardware_id="posix", mqtt_host="gateway.example", mqtt_port=1, ca_file=str(other)
    )
    assert not world.keeper(at=early, settings=settings).round()
    assert world.gateway.told == []


def _cut_renewal(world: World, steps: int) -> None:
    world.keeper(CutDisk(steps)).round()


def _cut_rotation(world: World, steps: int) -> None:
    world.gateway.named = [pki.authority("Server 2"), *world.gateway.named]
    world.keeper(CutDisk(steps), at=Instant(from_datetime(pki.BORN) + 1)).round()


@pytest.mark.parametrize("act", [_cut_renewal, _cut_rotation])
@pytest.mark.parametrize("steps", range(12))
def test_wherever_the_power_is_cut_the_device_has_a_pair_that_works_and_whom_to_trust(
    world: World, act: Callable[[World, int], None], steps: int
) -> None:
    first = world.gateway.named[0].certificate
    with suppress(PowerCut):
        act(world, steps)
    keeper = world.keeper()
    keeper.recover()
    identity = world.store.current()
    assert identity is not None
    assert identity.name == "dev-1"
    assert first in world.trusted
    keeper.round()
    assert (world.store.next(), world.store.pending()) == (None, None)
    assert {each.certificate for each in world.gateway.named} <= world.trusted
