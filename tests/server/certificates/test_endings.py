"""When certificates end, and authorities that are followed by others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock, as_datetime
from overair.basics.errors import NotFound
from overair.server.certificates import x509
from overair.server.certificates.endings import CertificateEndings
from overair.server.certificates.model import AuthorityPurpose, CertificateStatus
from overair.server.certificates.rotation import AuthorityRotation
from overair.server.certificates.store import SqlCertificateStore
from overair.server.keyring.endings import DAY_MS, Ending
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

KEY = ec.generate_private_key(ec.SECP256R1())


def register(
    registry: Registry, place: Place, now: Instant, days: float, *, status: CertificateStatus = CertificateStatus.ACTIVE
) -> None:
    """A device certificate that ends in so many days."""
    leaf = (
        pyca.CertificateBuilder()
        .subject_name(x509.common_name("device"))
        .issuer_name(x509.common_name("somebody"))
        .public_key(KEY.public_key())
        .serial_number(pyca.random_serial_number())
        .not_valid_before(as_datetime(Instant(now - 100 * DAY_MS)))
        .not_valid_after(as_datetime(Instant(now + int(days * DAY_MS))))
        .sign(KEY, hashes.SHA256())
    )
    registry.work.run_blocking(  # type: ignore[attr-defined]
        lambda tx: registry.certificates.register(tx, place, leaf, origin="test", status=status)
    )


def test_devices_are_one_line_by_the_next_that_ends(
    registry: Registry, work: SqlWork, clock: SettableClock, place: Place
) -> None:
    endings = CertificateEndings(SqlCertificateStore(), clock=clock, home=place.account)

    def listed() -> dict[str, Ending]:
        return {ending.name: ending for ending in work.read_blocking(lambda tx: list(endings.endings(tx, place.account)))}

    assert listed() == {}
    now = clock.now()
    for days in (2, 10, 29, 40):
        register(registry, place, now, days)
    register(registry, place, now, 1, status=CertificateStatus.INACTIVE)
    found = listed()["device-certificates"]
    assert (found.expires, found.is_summary) == (now + 2 * DAY_MS, True)
    assert found.what == "device certificates: 3 end within 30 days"
    clock.advance(milliseconds=3 * DAY_MS)
    found = listed()["device-certificates"]
    assert found.expires == now + 10 * DAY_MS
    assert found.what == "device certificates: 2 end within 30 days; 1 active ones have ended"
    clock.advance(milliseconds=90 * DAY_MS)
    assert "device-certificates" not in listed()


def test_our_own_certificates_and_imported_ones_are_listed_and_the_users_files_in_place_of_ours(
    registry: Registry, work: SqlWork, clock: SettableClock, place: Place
) -> None:
    until: list[Instant | None] = [None]
    endings = CertificateEndings(SqlCertificateStore(), clock=clock, home=place.account, file_end=lambda: until[0])
    work.run_blocking(lambda tx: registry.authorities.server_identity(tx, place.account, ["localhost"]))
    work.run_blocking(lambda tx: registry.authorities.device_authority_pem(tx, place.account))
    signer = work.run_blocking(lambda tx: registry.acm.create_own_signer(tx, place, "signer"))

    def names() -> list[str]:
        return [ending.name for ending in work.read_blocking(lambda tx: list(endings.endings(tx, place.account)))]

    assert names() == ["device-authority", "server", "server-authority", signer.arn]
    until[0] = Instant(clock.now() + DAY_MS)
    assert names() == ["device-authority", "server-authority", "server-files", signer.arn]


def test_a_device_authority_that_is_rotated_issues_at_once_and_its_former_key_is_gone(
    registry: Registry, work: SqlWork, place: Place
) -> None:
    rotation = AuthorityRotation(registry.authorities)
    before = work.run_blocking(lambda tx: registry.authorities.device_issuer(tx, place.account))
    former = work.read_blocking(lambda tx: registry.keyring.list(tx, place.account))
    prepared = registry.keyring.prepare("ec-p256")
    assert work.run_blocking(lambda tx: rotation.rotate(tx, place, "device-authority", prepared)).in_force
    after = work.run_blocking(lambda tx: registry.authorities.device_issuer(tx, place.account))
    again = work.run_blocking(lambda tx: registry.authorities.device_issuer(tx, place.account))
    assert before.subject != after.subject
    assert again is after
    (key,) = work.read_blocking(lambda tx: registry.keyring.list(tx, place.account))
    assert key.public_key_der == prepared.public_key_der
    assert key.key_id != former[0].key_id


def test_a_fleet_authority_is_rotated_only_where_there_is_one(registry: Registry, work: SqlWork, place: Place) -> None:
    rotation = AuthorityRotation(registry.authorities)
    purpose = AuthorityPurpose.FLEET_AUTHORITY
    with pytest.raises(NotFound, match="shared provisioning"):
        work.run_blocking(lambda tx: rotation.rotate(tx, place, purpose.value, registry.keyring.prepare("ec-p256")))
    work.run_blocking(lambda tx: registry.authorities.provisioning_issuer(tx, place.account, purpose))
    prepared = replace(registry.keyring.prepare("ec-p256"))
    work.run_blocking(lambda tx: rotation.rotate(tx, place, purpose.value, prepared))
    found = work.read_blocking(lambda tx: registry.authorities.find_provisioning_authority(tx, place.account, purpose))
    assert found is not None
    authority = x509.certificate_from_pem(found.pem.encode())
    assert x509.public_key_der(authority) == prepared.public_key_der
    extended = authority.extensions.get_extension_for_class(pyca.ExtendedKeyUsage).value
    assert pyca.oid.ExtendedKeyUsageOID.CLIENT_AUTH in extended, "its leaves vouch for no server"
