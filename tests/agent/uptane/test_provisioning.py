"""How a device gets its identity, keeps it, and changes it for another; and to whom it never shows anything."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from overair.agent.device_directory import read_settings
from overair.agent.durable import Disk
from overair.agent.uptane.assembly import provision
from overair.agent.uptane.device import CantStart, UptaneDevice
from overair.agent.uptane.https import NotProved
from overair.agent.uptane.identity import BadIdentity, IdentityStore
from overair.agent.uptane.outcomes import Kind
from overair.agent.uptane.provisioning import ProvisioningFailed, read_credential
from overair.basics.clock import WallClock, as_datetime
from overair.wire.uptane.metadata import Repository
from tests.support.power_cut import FailingDisk, PowerCut
from tests.support.uptane_repository import UptaneRepository
from tests.support.uptane_server import Call, Handler, Issuer, UptaneServer, key_pem
from tests.support.uptane_vehicle import DEVICE, Vehicle, issuer

SHARED = "shared-1"


def archive(path: Path, server: UptaneServer, **entries: bytes | None) -> Path:
    """A ``credentials.zip``; an entry that is None is left out."""
    found: dict[str, bytes | None] = {
        "autoprov.url": server.url.encode() + b"\n",
        "autoprov_credentials.p12": server.issuer.container(SHARED),
        "server_ca.pem": server.issuer.pem,
        "treehub.json": b"{}",
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (found | entries).items():
            if data is not None:
                file.writestr(name, data)
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Vehicle]:
    """A device that has a shared credential and nothing else."""
    vehicle = Vehicle(tmp_path, provisioned=False, thing_name="", roots=False, server=None, credentials="credentials.zip")
    archive(vehicle.root / "credentials.zip", vehicle.server)
    yield vehicle
    vehicle.close()


def posted(vehicle: Vehicle) -> list[str]:
    return [body["deviceId"] for body in vehicle.server.bodies("POST /devices")]


def test_a_shared_credential_gives_an_identity_and_is_gone(fresh: Vehicle) -> None:
    assert fresh.round().kind is Kind.NOTHING_NEW
    (name,) = posted(fresh)
    assert name.startswith("device-")
    (call,) = (call for call in fresh.server.calls if call.path == "/devices")
    assert call.peer == SHARED
    assert json.loads(call.body) == {"deviceId": name, "ttl": "36000"}
    assert {call.peer for call in fresh.server.calls if call.path != "/devices"} == {name}
    assert zipfile.ZipFile(fresh.root / "credentials.zip").namelist() == ["autoprov.url", "server_ca.pem"]
    identities = IdentityStore(fresh.directory, Disk())
    assert identities.current().name == name  # type: ignore[union-attr]
    assert fresh.directory.private_key_file.stat().st_mode & 0o777 == 0o600
    fresh.restart().round()
    assert posted(fresh) == [name]


def test_the_gateways_address_comes_from_the_credential(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, provisioned=False, roots=False, credentials="credentials.zip", server_in_settings=False)
    archive(vehicle.root / "credentials.zip", vehicle.server)
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert posted(vehicle) == [DEVICE], "a configured id is the one that is asked for"
    vehicle.close()


def test_roots_that_come_with_the_credential_are_the_first_that_are_trusted(
    fresh: Vehicle, caplog: pytest.LogCaptureFixture
) -> None:
    honest = {"director": fresh.server.director.files["1.root.json"], "image": fresh.server.image.files["1.root.json"]}
    archive(
        fresh.root / "credentials.zip",
        fresh.server,
        **{"director_root.json": honest["director"], "root.json": honest["image"]},
    )
    fresh.want("a.bin", b"a")
    assert fresh.round().kind is Kind.INSTALLED
    assert "NO ROOT" not in caplog.text


@pytest.mark.parametrize("kind", ["director", "repo"])
def test_a_gateway_with_other_roots_than_the_credential_brought_is_not_believed(fresh: Vehicle, kind: str) -> None:
    other = UptaneRepository(Repository.DIRECTOR if kind == "director" else Repository.IMAGE)
    roots = {"director": fresh.server.director.files["1.root.json"], "repo": fresh.server.image.files["1.root.json"]}
    roots[kind] = other.files["1.root.json"]
    archive(fresh.root / "credentials.zip", fresh.server, **{f"{name}/root.json": data for name, data in roots.items()})
    fresh.want("a.bin", b"a")
    assert fresh.round().kind is (Kind.REFUSED if kind == "director" else Kind.FAILED)
    assert fresh.installed() is None


def test_an_id_that_is_taken_is_changed_for_another_one_at_random(fresh: Vehicle) -> None:
    refused: list[str] = []

    def taken(handler: Handler, call: Call) -> None:
        refused.append(json.loads(call.body)["deviceId"])
        if len(refused) == 3:
            del fresh.server.instead["/devices"]
        handler.say(409, {"code": "device_already_registered", "description": "taken"})

    fresh.server.instead["/devices"] = taken
    fresh.round()
    names = posted(fresh)
    assert len(set(names)) == 4
    assert names[:3] == refused


def test_a_configured_id_that_is_taken_stops_the_device_with_the_reason(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, provisioned=False, roots=False, credentials="credentials.zip")
    archive(vehicle.root / "credentials.zip", vehicle.server)
    vehicle.server.taken_ids.add(DEVICE)
    with pytest.raises(ProvisioningFailed, match="taken") as failed:
        provision(vehicle.directory, vehicle.settings, vehicle.around)
    assert failed.value.for_good
    device = UptaneDevice(
        vehicle.directory, vehicle.settings, platform=None, application=vehicle, version="1", around=vehicle.around
    )
    with pytest.raises(CantStart, match="Configure another"):
        device.run()
    asked = len(vehicle.server.calls)
    vehicle.pauses.seconds.clear()
    assert device.run_as_image() == 1
    assert vehicle.pauses.seconds == [600], "under the boot loader it isn't asked every other second"
    assert len(vehicle.server.calls) == asked + 1
    assert "autoprov_credentials.p12" in zipfile.ZipFile(vehicle.root / "credentials.zip").namelist()
    vehicle.close()


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"<html>"), (403, b'{"code":"credential_revoked","description":"revoked"}')]
)
def test_any_other_refusal_is_asked_again_later(fresh: Vehicle, status: int, body: bytes) -> None:
    fresh.server.instead["/devices"] = lambda handler, call: handler.send(status, body)
    with pytest.raises(ProvisioningFailed) as failed:
        provision(fresh.directory, fresh.settings, fresh.around)
    assert not failed.value.for_good
    assert ("credential_revoked" in str(failed.value)) is (status == 403)
    first = posted(fresh)
    fresh.server.instead.clear()
    fresh.restart().round()
    assert posted(fresh) == first * 2, "the same id again"


@pytest.mark.parametrize("answer", [b"", b"no container", Issuer().container("somebody-else"), Issuer().container("a/b")])
def test_an_answer_that_is_no_identity_of_ours_is_not_kept(fresh: Vehicle, answer: bytes) -> None:
    fresh.server.instead["/devices"] = lambda handler, call: handler.send(200, answer)
    with pytest.raises(ProvisioningFailed):
        provision(fresh.directory, fresh.settings, fresh.around)
    assert IdentityStore(fresh.directory, Disk()).current() is None


def test_whom_to_trust_may_come_from_the_container_alone(fresh: Vehicle) -> None:
    archive(fresh.root / "credentials.zip", fresh.server, **{"server_ca.pem": None})
    assert fresh.round().kind is Kind.NOTHING_NEW


@pytest.mark.parametrize(
    "spoilt",
    [
        {"autoprov_credentials.p12": None},
        {"autoprov_credentials.p12": b"no container"},
        {"autoprov_credentials.p12": b"\x00" * (300 * 1024)},
        {"server_ca.pem": b"no certificate"},
    ],
)
def test_a_credential_that_cant_be_used_says_why(fresh: Vehicle, spoilt: dict[str, Any]) -> None:
    archive(fresh.root / "credentials.zip", fresh.server, **spoilt)
    with pytest.raises(ProvisioningFailed) as failed:
        provision(fresh.directory, fresh.settings, fresh.around)
    assert failed.value.for_good
    assert fresh.server.calls == []


def test_what_is_no_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.zip").write_bytes(b"PK no zip")
    for path in (tmp_path / "c.zip", tmp_path / "nowhere.zip", tmp_path):
        with pytest.raises(ProvisioningFailed):
            read_credential(path)


def test_a_credential_never_prints(fresh: Vehicle) -> None:
    credential = read_credential(fresh.root / "credentials.zip")
    assert credential.pair_pem is not None
    assert b"PRIVATE KEY" in credential.pair_pem.reveal()
    assert "PRIVATE KEY" not in repr(credential)


def test_the_power_fails_at_every_step_of_provisioning(tmp_path: Path) -> None:
    """The gateway gives the same id again to whoever never registered; the device always ends with one whole identity."""
    server = UptaneServer(tmp_path / "server", issuer=issuer())
    server.taken_ids = _NeverTaken()  # type: ignore[assignment]
    step, outcomes = 0, set()
    while True:
        step += 1
        vehicle = Vehicle(
            tmp_path / str(step), server=server, provisioned=False, thing_name="", roots=False, credentials="credentials.zip"
        )
        archive(vehicle.root / "credentials.zip", server)
        before = len(posted(vehicle))
        vehicle.disk = FailingDisk(step, seed=step)
        try:
            provision(vehicle.directory, vehicle.settings, vehicle.around)
            cut = False
        except PowerCut:
            cut = True
        vehicle.disk = Disk()
        name = provision(vehicle.directory, vehicle.settings, vehicle.around)
        asked = posted(vehicle)[before:]
        assert name == asked[-1]
        if len(asked) > 1:
            outcomes.add("asked twice")
            assert step < 5 or asked[0] == asked[1], "once it is on the disk, the same id is asked for again"
        assert IdentityStore(vehicle.directory, Disk()).current().name == name  # type: ignore[union-attr]
        assert zipfile.ZipFile(vehicle.root / "credentials.zip").namelist() == ["autoprov.url", "server_ca.pem"]
        if not cut:
            break
    assert step > 20
    assert outcomes == {"asked twice"}
    server.close()


class _NeverTaken(set[str]):
    def __contains__(self, name: object) -> bool:
        return False


# --- impostors --------------------------------------------------------------------------------------------------------

IMPOSTORS = {
    "another CA": lambda: Issuer().issue_pem("server", hosts=("127.0.0.1",)),
    "another name": lambda: issuer().issue_pem("server", hosts=("other.example",)),
    "expired": lambda: issuer().issue_pem("server", hosts=("127.0.0.1",), until=datetime(2021, 1, 1, tzinfo=UTC)),
    "self-signed": lambda: Issuer("server").issue_pem("server", hosts=("127.0.0.1",)),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_an_impostor_gets_no_credential(tmp_path: Path, kind: str) -> None:
    impostor = UptaneServer(tmp_path / "server", issuer=issuer(), certificate=IMPOSTORS[kind](), asks_for_certificate=False)
    vehicle = Vehicle(tmp_path, server=impostor, provisioned=False, roots=False, credentials="credentials.zip")
    archive(vehicle.root / "credentials.zip", impostor)
    with pytest.raises(NotProved):
        provision(vehicle.directory, vehicle.settings, vehicle.around)
    assert impostor.calls == []
    assert "autoprov_credentials.p12" in zipfile.ZipFile(vehicle.root / "credentials.zip").namelist()
    impostor.close()


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_an_impostor_gets_no_manifest_no_event_and_no_certificate_request(tmp_path: Path, kind: str) -> None:
    """The gateway's address leads to somebody else, while the device owes a report, events and wants a new certificate."""
    vehicle = Vehicle(tmp_path, renewal=True)
    vehicle.round()
    vehicle.want("a.bin", b"a")
    vehicle.server.instead["/events"] = lambda handler, call: handler.say(503, {})
    vehicle.round()
    impostor = UptaneServer(tmp_path / "other", issuer=issuer(), certificate=IMPOSTORS[kind](), asks_for_certificate=False)
    members = json.loads(vehicle.directory.device_file.read_text())
    members["uptane"]["server"] = impostor.url
    vehicle.directory.device_file.write_text(json.dumps(members))
    vehicle.settings = read_settings(vehicle.directory)
    vehicle.clock.set(vehicle.clock.now() + 25 * 365 * 24 * 3600 * 1000)  # type: ignore[arg-type]
    assert vehicle.restart().round().kind is Kind.UNREACHABLE
    assert impostor.calls == []
    impostor.close()
    vehicle.close()


# --- own PKI ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Vehicle]:
    """A device whose identity comes from files."""
    files = {"certificate": "pki/client.pem", "private_key": "pki/pkey.pem", "ca": "pki/root.crt"}
    vehicle = Vehicle(tmp_path, provisioned=False, thing_name="", **{"import": files})
    (vehicle.root / "pki").mkdir()
    put_files(vehicle)
    yield vehicle
    vehicle.close()


def put_files(vehicle: Vehicle, name: str = DEVICE, *, by: Issuer | None = None, **changes: Any) -> bytes:
    certificate, key = (by or vehicle.server.issuer).issue_pem(name, **changes)
    (vehicle.root / "pki" / "client.pem").write_bytes(certificate)
    (vehicle.root / "pki" / "pkey.pem").write_bytes(key)
    (vehicle.root / "pki" / "root.crt").write_bytes(vehicle.server.issuer.pem)
    return certificate


def test_files_of_the_own_pki_are_the_identity_and_the_first_call_is_the_registration(own: Vehicle) -> None:
    assert own.round().kind is Kind.NOTHING_NEW
    assert str(own.server.calls[0]) == "POST /director/ecus"
    assert {call.peer for call in own.server.calls} == {DEVICE}


def test_changed_files_become_the_identity_once_a_call_under_them_has_succeeded(own: Vehicle) -> None:
    own.round()
    old = own.directory.certificate_file.read_bytes()
    new = put_files(own)
    own.start()
    assert own.directory.certificate_file.read_bytes() == old, "not before it has worked"
    assert own.restart().round().kind is Kind.NOTHING_NEW
    assert own.directory.certificate_file.read_bytes() == new
    assert not own.directory.certificate_file.with_name("next.pem").exists()


@pytest.mark.parametrize("spoil", ["no pair", "another name", "no certificate", "no key", "gone"])
def test_files_that_cant_be_used_leave_the_identity_as_it_is(
    own: Vehicle, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    own.round()
    old = own.directory.certificate_file.read_bytes()
    put_files(own, "vehicle-2" if spoil == "another name" else DEVICE)
    folder = own.root / "pki"
    if spoil == "no pair":
        (folder / "pkey.pem").write_bytes(issuer().issue_pem(DEVICE)[1])
    elif spoil == "gone":
        (folder / "client.pem").unlink()
    elif spoil != "another name":
        (folder / {"no certificate": "client.pem", "no key": "pkey.pem"}[spoil]).write_bytes(b"nonsense")
    assert own.restart().round().kind is Kind.NOTHING_NEW
    assert own.directory.certificate_file.read_bytes() == old
    assert "are left aside" in caplog.text


def test_a_new_certificate_that_the_gateway_doesnt_take_is_dropped(own: Vehicle) -> None:
    own.round()
    old = own.directory.certificate_file.read_bytes()
    put_files(own, by=Issuer("unknown CA"))
    assert own.restart().round().kind is Kind.NOTHING_NEW
    assert own.directory.certificate_file.read_bytes() == old
    assert not own.directory.certificate_file.with_name("next.pem").exists()


def test_a_new_certificate_is_kept_while_nobody_answers(own: Vehicle) -> None:
    own.round()
    new = put_files(own)
    own.server.instead["/director/manifest"] = lambda handler, call: handler.hang_up()
    assert own.restart().round().kind is Kind.UNREACHABLE
    assert own.directory.certificate_file.with_name("next.pem").exists()
    own.server.instead.clear()
    own.restart().round()
    assert own.directory.certificate_file.read_bytes() == new


def test_a_new_authority_in_the_files_is_trusted_from_the_next_start(own: Vehicle) -> None:
    own.round()
    put_files(own)
    both = own.server.issuer.pem + Issuer("next CA").pem
    (own.root / "pki" / "root.crt").write_bytes(both)
    assert own.restart().round().kind is Kind.NOTHING_NEW
    assert own.directory.ca_file(own.settings).read_bytes() == both


def test_no_files_and_no_credential_say_what_is_missing(own: Vehicle, tmp_path: Path) -> None:
    (own.root / "pki" / "client.pem").unlink()
    with pytest.raises(ProvisioningFailed, match="own PKI"):
        provision(own.directory, own.settings, own.around)
    vehicle = Vehicle(tmp_path / "another", server=own.server, provisioned=False)
    with pytest.raises(ProvisioningFailed, match="neither a shared credential nor files"):
        provision(vehicle.directory, vehicle.settings, vehicle.around)


def test_the_power_fails_at_every_step_of_a_change_of_identity(vehicle: Vehicle) -> None:
    identities = IdentityStore(vehicle.directory, Disk())
    step = 0
    while True:
        step += 1
        before = identities.current().certificate  # type: ignore[union-attr]
        certificate, key = vehicle.server.issuer.issue(DEVICE)
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        failing = IdentityStore(vehicle.directory, FailingDisk(step, seed=step))
        try:
            failing.propose(private_key_pem=key_pem(key), chain_pem=chain, name=DEVICE)
            failing.confirm_next()
            cut = False
        except PowerCut:
            cut = True
        present, offered = identities.current(), identities.next()
        assert present is not None or offered is not None
        assert {each.certificate for each in (present, offered) if each is not None} <= {before, certificate}
        assert vehicle.restart().round().kind is Kind.NOTHING_NEW
        assert identities.next() is None
        assert identities.current().certificate in (before, certificate)  # type: ignore[union-attr]
        if not cut:
            break
    assert step > 12


# --- renewal --------------------------------------------------------------------------------------------------------------


class RenewingServer:
    """Answers ``simplereenroll`` as RFC 7030 has it."""

    def __init__(self, server: UptaneServer, *, form: str = "base64") -> None:
        self.server = server
        self.form = form
        self.requests: list[x509.CertificateSigningRequest] = []
        server.instead["/.well-known/est/simplereenroll"] = self

    def __call__(self, handler: Handler, call: Call) -> None:
        assert call.headers["content-type"] == "application/pkcs10"
        request = x509.load_der_x509_csr(base64.b64decode(call.body))
        self.requests.append(request)
        assert request.is_signature_valid
        born = as_datetime(WallClock().now())  # what TLS itself looks at
        until = as_datetime(self.server.clock.now()) + timedelta(days=900)
        (name,) = request.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        certificate, _ = self.server.issuer.issue(
            str(name.value), public_key=request.public_key(), born=born - timedelta(minutes=5), until=until
        )
        der = pkcs7.serialize_certificates([certificate, self.server.issuer.certificate], serialization.Encoding.DER)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        handler.send(200, {"base64": base64.encodebytes(der), "der": der, "pem": pem}[self.form])


@pytest.mark.parametrize("form", ["base64", "der", "pem"])
def test_at_two_thirds_of_its_life_a_certificate_is_renewed_under_a_new_key(fresh: Vehicle, form: str) -> None:
    renewing = RenewingServer(fresh.server, form=form)
    fresh.round()
    old, old_key = fresh.directory.certificate_file.read_bytes(), fresh.directory.private_key_file.read_bytes()
    fresh.clock.advance(milliseconds=200 * 24 * 3600 * 1000)
    fresh.server.director.publish()
    fresh.round()
    assert renewing.requests == []
    fresh.clock.advance(milliseconds=50 * 24 * 3600 * 1000)
    fresh.server.director.publish()
    fresh.round()
    assert len(renewing.requests) == 1
    assert fresh.directory.certificate_file.read_bytes() == old, "kept until the new one has worked"
    fresh.round()
    assert fresh.directory.certificate_file.read_bytes() != old
    assert fresh.directory.private_key_file.read_bytes() != old_key
    fresh.restart().round()
    assert len(renewing.requests) == 1
    assert len({call.peer for call in fresh.server.calls} - {SHARED}) == 1


@pytest.mark.parametrize("answer", [(404, b'{"code":"not_found"}'), (200, b"nonsense"), (200, issuer().pem)])
def test_a_renewal_that_is_refused_is_left_alone_for_a_day(fresh: Vehicle, answer: tuple[int, bytes]) -> None:
    seconds = [0.0]
    fresh.monotonic = lambda: seconds[0]
    path = "/.well-known/est/simplereenroll"
    fresh.server.instead[path] = lambda handler, call: handler.send(*answer)
    fresh.round()
    fresh.clock.advance(milliseconds=250 * 24 * 3600 * 1000)
    fresh.server.director.publish()
    for _ in range(3):
        assert fresh.round().kind is Kind.NOTHING_NEW
    assert len(fresh.server.asked(f"POST {path}")) == 1
    seconds[0] += 25 * 3600
    fresh.round()
    assert len(fresh.server.asked(f"POST {path}")) == 2


def test_own_pki_renews_by_files_alone_unless_told_otherwise(own: Vehicle) -> None:
    own.round()
    own.clock.set(own.clock.now() + 25 * 365 * 24 * 3600 * 1000)  # type: ignore[arg-type]
    own.round()
    assert own.server.asked("POST /.well-known") == []


def test_a_gateway_that_is_away_is_asked_for_an_identity_until_it_is_there(fresh: Vehicle) -> None:
    fresh.server.instead["/devices"] = lambda handler, call: handler.hang_up()
    heard: list[Kind] = []

    def pause(seconds: float) -> bool:
        fresh.server.instead.clear()
        return len(heard) > 1

    device = UptaneDevice(
        fresh.directory,
        fresh.settings,
        platform=None,
        application=fresh,
        version="1",
        around=replace(fresh.around, pause=pause),
        heard=lambda outcome: heard.append(outcome.kind),
    )
    assert device.run() == 0
    assert heard == [Kind.UNREACHABLE, Kind.NOTHING_NEW]


def test_an_identity_that_is_damaged_says_so(own: Vehicle) -> None:
    own.round()
    own.directory.private_key_file.write_bytes(b"nonsense")
    with pytest.raises(BadIdentity):
        IdentityStore(own.directory, Disk()).current()
