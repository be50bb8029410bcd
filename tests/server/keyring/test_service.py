"""Keys sign by name and never leave but by the explicit door."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from sqlalchemy import select, update

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.server.keyring.keys import hash_of
from overair.server.keyring.model import MAY_SIGN, KeyKind, SignatureAlgorithm
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore, keys
from overair.server.keyring.wrapping import KeyringRefused, open_secret_box
from overair.server.storage.work import SqlWork, sql

ACCOUNT = AccountId("123456789012")
OTHER = AccountId("210987654321")


@pytest.fixture
def keyring(clock: SettableClock, tmp_path: Path) -> Keyring:
    box = open_secret_box(tmp_path / "wrapping.key", passphrase=None, ids=RandomIds())
    return Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())


def verify(public_key: object, signature: bytes, data: bytes, algorithm: SignatureAlgorithm) -> None:
    digest = hashes.SHA1() if algorithm.endswith("sha1") else hashes.SHA256()
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, data, ec.ECDSA(digest))
    elif isinstance(public_key, rsa.RSAPublicKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        scheme = pss if algorithm is SignatureAlgorithm.RSA_PSS_SHA256 else padding.PKCS1v15()
        public_key.verify(signature, data, scheme, digest)
    else:
        assert isinstance(public_key, ed25519.Ed25519PublicKey)
        public_key.verify(signature, data)


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.RSA_2048, KeyKind.ED25519])
def test_a_key_makes_every_signature_of_its_kind_and_no_other(work: SqlWork, keyring: Keyring, kind: KeyKind) -> None:
    key_id = work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, kind, "test"))
    public_key = work.read_blocking(lambda tx: keyring.public_key(tx, ACCOUNT, key_id))
    for algorithm in SignatureAlgorithm:
        if algorithm in MAY_SIGN[kind]:
            signature = work.read_blocking(lambda tx: keyring.sign(tx, ACCOUNT, key_id, b"image", algorithm=algorithm))  # noqa: B023
            verify(public_key, signature, b"image", algorithm)
        else:
            with pytest.raises(InvalidRequest) as refused:
                work.read_blocking(lambda tx: keyring.sign(tx, ACCOUNT, key_id, b"image", algorithm=algorithm))  # noqa: B023
            assert refused.value.subject == "signature-algorithm"


def test_an_imported_key_is_the_same_key(work: SqlWork, keyring: Keyring) -> None:
    original = ec.generate_private_key(ec.SECP256R1())
    pem = original.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    key_id = work.run_blocking(lambda tx: keyring.import_pem(tx, ACCOUNT, Redacted(pem), "acm"))
    assert work.read_blocking(lambda tx: keyring.public_key(tx, ACCOUNT, key_id)) == original.public_key()
    exported = work.read_blocking(lambda tx: keyring.export_pem(tx, ACCOUNT, key_id))
    again = serialization.load_pem_private_key(exported.reveal(), None)
    assert isinstance(again, ec.EllipticCurvePrivateKey)
    assert again.private_numbers() == original.private_numbers()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"x" * 20_000,
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw")
        ),
        ec.generate_private_key(ec.SECP256K1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    ],
    ids=["empty", "garbage", "too-long", "encrypted", "unknown-curve"],
)
def test_what_is_no_plain_known_key_is_refused(work: SqlWork, keyring: Keyring, pem: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(lambda tx: keyring.import_pem(tx, ACCOUNT, Redacted(pem), "acm"))
    assert refused.value.subject == "private-key"


def test_a_deleted_key_signs_nothing_and_another_account_sees_nothing(work: SqlWork, keyring: Keyring) -> None:
    key_id = work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, "ec-p256", "test"))
    work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: keyring.signer(tx, OTHER, key_id))
    work.run_blocking(lambda tx: keyring.delete(tx, OTHER, key_id))
    assert [key.key_id for key in work.read_blocking(lambda tx: keyring.list(tx, ACCOUNT))] == [key_id]
    work.run_blocking(lambda tx: keyring.delete(tx, ACCOUNT, key_id))
    with pytest.raises(NotFound):
        work.read_blocking(lambda tx: keyring.sign(tx, ACCOUNT, key_id, b"", algorithm="ecdsa-sha256"))


def test_a_key_at_rest_is_sealed_and_bound_to_its_row(
    work: SqlWork, keyring: Keyring, clock: SettableClock, tmp_path: Path
) -> None:
    first = work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, "ec-p256", "test"))
    second = work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, "ec-p256", "test"))
    private = work.read_blocking(lambda tx: keyring.export_pem(tx, ACCOUNT, first)).reveal()
    key = serialization.load_pem_private_key(private, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    sealed = work.read_blocking(lambda tx: sql(tx).execute(select(keys.c.sealed).where(keys.c.key_id == first)).scalar_one())
    assert secret not in sealed

    # A row's sealed part copied into another row doesn't open there.
    work.run_blocking(lambda tx: sql(tx).execute(update(keys).where(keys.c.key_id == second).values(sealed=sealed)) and None)
    reopened = Keyring(
        SqlKeyStore(),
        open_secret_box(tmp_path / "wrapping.key", passphrase=None, ids=RandomIds()),
        clock=clock,
        ids=RandomIds(),
    )
    work.read_blocking(lambda tx: reopened.signer(tx, ACCOUNT, first))
    with pytest.raises(KeyringRefused):
        work.read_blocking(lambda tx: reopened.signer(tx, ACCOUNT, second))


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.RSA_2048])
def test_what_has_a_digest_is_signed_without_being_read(work: SqlWork, keyring: Keyring, kind: KeyKind) -> None:
    key_id = work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, kind, "test"))
    signer = work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    for algorithm in MAY_SIGN[kind]:
        digest = hashlib.new(hash_of(algorithm).name, b"image").digest()
        verify(signer.public_key(), signer.sign_digest(digest, algorithm=algorithm), b"image", algorithm)
    with pytest.raises(InvalidRequest):
        signer.sign_digest(bytes(32), algorithm=SignatureAlgorithm.ED25519)
    with pytest.raises(TypeError):
        pickle.dumps(signer)
