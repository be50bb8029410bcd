"""Whatever bytes come from outside or off the disk, each reader raises its own error or none."""

from __future__ import annotations

import base64
import io
import socket
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from overair.agent.durable import Disk
from overair.agent.uptane.ecu_key import BadEcuKey, load_or_make
from overair.agent.uptane.identity import BadIdentity, check_pair, private_key_in
from overair.agent.uptane.metadata_store import MetadataStore, StoredMetadataDamaged
from overair.agent.uptane.provisioning import ProvisioningFailed, read_credential, strip_credential
from overair.agent.uptane.renewal import chain_in
from overair.agent.uptane.secondary_socket import receive
from overair.agent.uptane.settings import KeyKind
from overair.agent.uptane.state import DamagedState, StateStore
from overair.wire.strict_cbor import MalformedCbor
from tests.support.uptane_vehicle import device_pair, issuer

CERTIFICATE, KEY = device_pair()
EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
CONTAINER = pkcs7.serialize_certificates([issuer().certificate], serialization.Encoding.DER)
per_example = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, or these with some changed or missing."""
    changed = st.tuples(st.integers(0, len(data) - 1), st.binary(max_size=4)).map(
        lambda change: data[: change[0]] + change[1] + data[change[0] + len(change[1]) :]
    )
    return st.binary(max_size=200) | changed | st.integers(0, len(data)).map(lambda end: data[:end])


@per_example
@given(mutated(CONTAINER))
@example(base64.encodebytes(CONTAINER))
@example(CERTIFICATE)
@example(b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n")
def test_renewed_certificates(data: bytes) -> None:
    with pytest.raises(BadIdentity):  # none of them is for this key
        chain_in(data, EC_KEY)


@per_example
@given(mutated(CERTIFICATE), mutated(KEY))
def test_pairs_of_certificate_and_key(certificate: bytes, key: bytes) -> None:
    try:
        check_pair(certificate, key)
    except BadIdentity:
        return
    assert private_key_in(key)


@per_example
@given(data=mutated(issuer().container("shared")))
def test_containers(tmp_path: Path, data: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("autoprov_credentials.p12", data)
    try:
        credential = read_credential(tmp_path / "c.zip")
    except ProvisioningFailed:
        return
    assert credential.pair_pem is not None


def archive_of(container: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("autoprov.url", "https://gateway.example")
        archive.writestr("autoprov_credentials.p12", container)
    return stream.getvalue()


@per_example
@given(data=mutated(archive_of(issuer().container("shared"))))
def test_archives(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.zip").write_bytes(data)
    try:
        read_credential(tmp_path / "c.zip")
    except ProvisioningFailed:
        return
    finally:
        strip_credential(tmp_path / "c.zip", Disk())


@per_example
@given(data=mutated(b'{"format":1,"ecus":{},"registered":{},"counter":5,"update":null,"failed":"","report":null}'))
def test_the_state(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.json").write_bytes(data)
    try:
        StateStore(tmp_path / "state.json", Disk()).read()
    except DamagedState:
        return


@per_example
@given(data=mutated(b"\xa5fformat\x01echaineewholeforiginhimportediddocuments\xa0eroots\xa0"))
def test_trusted_metadata(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.trusted").write_bytes(data)
    try:
        MetadataStore(tmp_path / "image.trusted", Disk()).load()
    except StoredMetadataDamaged:
        return


@per_example
@given(data=mutated(KEY))
def test_ecu_keys(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ecu.key").write_bytes(data)
    with pytest.raises(BadEcuKey):  # P-256 isn't one either
        load_or_make(tmp_path / "ecu.key", KeyKind.ED25519, Disk())


@per_example
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: len(data).to_bytes(4, "big") + data))
def test_frames(data: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        try:
            message = receive(other)
        except (EOFError, MalformedCbor):
            return
        assert isinstance(message, dict)
