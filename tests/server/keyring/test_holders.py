"""Keys that lie elsewhere: on a token (SoftHSM, through the real library), in a key service, with people."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from overair.basics.clock import SettableClock
from overair.basics.errors import Conflict, InvalidRequest, OverairError
from overair.basics.ids import AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.server.keyring import tokens
from overair.server.keyring.holders import HolderSettings, KeyHolders
from overair.server.keyring.keys import hash_of, verifies
from overair.server.keyring.model import MAY_SIGN, KeyKind, PreparedKey, SignatureAlgorithm
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import SecretBox
from overair.server.storage.work import SqlWork
from tests.support.soft_token import LIBRARY, PIN, needs_a_token, softhsm

ACCOUNT = AccountId("123456789012")
OTHER = AccountId("210987654321")
NAMES = itertools.count()
Make = Callable[..., Keyring]
on_sqlite = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""Where the records don't matter."""


@pytest.fixture
def make(clock: SettableClock) -> Iterator[Make]:
    opened: list[KeyHolders] = []

    def made(**settings: Any) -> Keyring:
        box = SecretBox(Redacted(bytes(32)), RandomIds())
        holders = KeyHolders(HolderSettings(home=ACCOUNT, **settings))
        opened.append(holders)
        return Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds(), holders=holders)

    yield made
    for holders in opened:
        holders.close()


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(PIN + "\n")
    return path


@pytest.fixture
def keyring(make: Make, pin_file: Path) -> Keyring:
    softhsm()
    return make(pkcs11_module=Path(str(LIBRARY)), pkcs11_pin_file=pin_file)


@pytest.fixture
def uri() -> str:
    """Of a key that nobody has made yet."""
    return f"pkcs11:token=overair;object=holders-{next(NAMES)}"


def public(key: PreparedKey) -> tuple[bytes, str]:
    return key.public_key_der, key.holder


# Tokens -------------------------------------------------------------------------------------------------------------------


@on_sqlite
@needs_a_token
@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.EC_P384, KeyKind.RSA_2048, KeyKind.ED25519])
def test_a_key_on_a_token_makes_every_signature_of_its_kind(work: SqlWork, keyring: Keyring, uri: str, kind: KeyKind) -> None:
    prepared = keyring.hold(ACCOUNT, uri, make=kind)
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, prepared, "test"))
    described = work.read_blocking(lambda tx: keyring.describe(tx, ACCOUNT, key_id))
    assert (described.kind, described.holder, described.sealed) == (kind, uri, b"")
    signer = work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    for algorithm in MAY_SIGN[kind]:
        signature = signer.sign(b"image", algorithm=algorithm)
        assert verifies(signer.public_key(), signature, b"image", algorithm=algorithm)
        if algorithm not in (SignatureAlgorithm.ED25519, SignatureAlgorithm.RSA_PSS_SHA256):
            digest = hashlib.new(hash_of(algorithm).name, b"image").digest()
            signature = signer.sign_digest(digest, algorithm=algorithm)
            assert verifies(signer.public_key(), signature, b"image", algorithm=algorithm)
    with pytest.raises(TypeError):
        pickle.dumps(signer)


@needs_a_token
def test_a_key_that_is_on_the_token_is_found_and_never_handed_out(work: SqlWork, keyring: Keyring, uri: str) -> None:
    with pytest.raises(Conflict, match="holds no key"):
        keyring.hold(ACCOUNT, uri)
    made = keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)
    assert public(keyring.hold(ACCOUNT, uri)) == public(made)
    assert public(keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)) == public(made)
    with pytest.raises(Conflict, match="ed25519 is needed"):
        keyring.hold(ACCOUNT, uri, make=KeyKind.ED25519)
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, made, "test"))
    with pytest.raises(Conflict, match="doesn't leave"):
        work.read_blocking(lambda tx: keyring.export_pem(tx, ACCOUNT, key_id))
    work.run_blocking(lambda tx: keyring.delete(tx, ACCOUNT, key_id))
    assert public(keyring.hold(ACCOUNT, uri)) == public(made)  # forgotten here, and still there


@needs_a_token
def test_a_wrong_pin_is_tried_once_until_its_file_says_another(make: Make, pin_file: Path, uri: str) -> None:
    """Each further try brings the token nearer to locking itself."""
    softhsm()
    keyring = make(pkcs11_module=Path(str(LIBRARY)), pkcs11_pin_file=pin_file)
    pin_file.write_text("0000")
    with pytest.raises(Conflict, match="PIN of the token 'overair' is another one") as refused:
        keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)
    assert "0000" not in refused.value.message
    with pytest.raises(Conflict, match="isn't tried again"):
        keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)
    pin_file.write_text(PIN)
    assert keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256).kind is KeyKind.EC_P256


@needs_a_token
def test_an_absent_token_a_missing_library_and_a_missing_pin_file_are_told(make: Make, pin_file: Path, uri: str) -> None:
    softhsm()
    module = Path(str(LIBRARY))
    keyring = make(pkcs11_module=module, pkcs11_pin_file=pin_file)
    with pytest.raises(Conflict, match="No token is called 'gone'"):
        keyring.hold(ACCOUNT, uri.replace("=overair", "=gone"))
    with pytest.raises(Conflict, match="can't be loaded"):
        make(pkcs11_module=Path("/nowhere.so"), pkcs11_pin_file=pin_file).hold(ACCOUNT, uri)
    with pytest.raises(Conflict, match="can't be read"):
        make(pkcs11_module=module, pkcs11_pin_file=pin_file.with_name("nowhere")).hold(ACCOUNT, uri)
    with pytest.raises(Conflict, match="--pkcs11-pin-file"):
        make(pkcs11_module=module).hold(ACCOUNT, uri)
    with pytest.raises(InvalidRequest, match="has no tokens"):
        make().hold(ACCOUNT, uri)


@needs_a_token
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a search of the library's own dies with it
def test_a_session_that_died_is_opened_anew(keyring: Keyring, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)
    (token,) = keyring._holders._tokens.values()
    token._session.close()
    assert public(keyring.hold(ACCOUNT, uri)) == public(prepared)

    def pulled(*_: object, **__: object) -> bytes:
        raise tokens.TokenRefused(tokens.Why.ABSENT, "No token is called 'overair'.")

    monkeypatch.setattr(tokens, "sign", pulled)
    with pytest.raises(Conflict, match="No token is called"):
        keyring.hold(ACCOUNT, uri)
    monkeypatch.undo()
    assert public(keyring.hold(ACCOUNT, uri)) == public(prepared)


@on_sqlite
@needs_a_token
def test_another_key_under_the_same_name_signs_nothing(work: SqlWork, keyring: Keyring, uri: str) -> None:
    mine = keyring.hold(ACCOUNT, uri, make=KeyKind.EC_P256)
    other = keyring.hold(ACCOUNT, uri + "-b", make=KeyKind.EC_P256)
    with pytest.raises(Conflict, match="another key than the certificate's"):
        keyring.hold(ACCOUNT, uri, public_key=serialization.load_der_public_key(other.public_key_der))  # type: ignore[arg-type]
    swapped = replace(mine, public_key_der=other.public_key_der)
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, swapped, "test"))
    with pytest.raises(Conflict, match="doesn't verify"):
        work.read_blocking(lambda tx: keyring.sign(tx, ACCOUNT, key_id, b"x", algorithm="ecdsa-sha256"))


@pytest.mark.parametrize(
    ("account", "uri", "said"),
    [
        (ACCOUNT, "pkcs11:token=overair", "missing: object"),
        (ACCOUNT, "pkcs11:object=x", "missing: token"),
        (ACCOUNT, "pkcs11:token=a;object=b?pin-value=1234", "PIN never stands"),
        (ACCOUNT, "pkcs11:token=a;object=b?module-path=/tmp/evil.so", "own settings"),
        (ACCOUNT, "pkcs11:token=a;object=b?pin-source=file:/etc/shadow", "own settings"),
        (OTHER, "pkcs11:token=a;object=root", "210987654321-"),
        (ACCOUNT, "awskms:alias/theirs", "takes no key"),
        (OTHER, "awskms:alias/overair-x", "takes no key"),
        (ACCOUNT, "http://169.254.169.254/", "takes no key"),
        (ACCOUNT, "pkcs11:" + "x" * 2000, "1024 characters"),
        (ACCOUNT, "file:", "names no key"),
        (ACCOUNT, "offline:", "who holds the key"),
        (ACCOUNT, "offline:a%0Ab", "who holds the key"),
        (ACCOUNT, "offline:somebody", "public half"),
    ],
)
def test_a_uri_never_says_more_than_which_key(make: Make, account: AccountId, uri: str, said: str) -> None:
    """Which library is loaded, where a PIN lies and which cloud keys are ours is the owner's to say, not a request's."""
    keyring = make(pkcs11_module=Path("/nowhere.so"), key_services=["awskms:alias/overair-"])
    with pytest.raises(OverairError, match=said) as refused:
        keyring.hold(account, uri)
    assert "1234" not in refused.value.message


def test_without_the_extras_the_refusal_names_them(make: Make, monkeypatch: pytest.MonkeyPatch, pin_file: Path) -> None:
    keyring = make(pkcs11_module=Path("/x"), pkcs11_pin_file=pin_file, key_services=["awskms:"])
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    with pytest.raises(Conflict, match=r"overair\[pkcs11\]"):
        keyring.hold(ACCOUNT, "pkcs11:token=a;object=b")
    with pytest.raises(Conflict, match=r"overair\[kms\]"):
        keyring.hold(ACCOUNT, "awskms:x")


# People -------------------------------------------------------------------------------------------------------------------


def test_a_key_that_is_held_offline_says_who_must_sign_and_how(work: SqlWork, make: Make) -> None:
    keyring = make()
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    prepared = keyring.hold(ACCOUNT, "offline:release%20team", public_key=public)
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, prepared, "acm"))
    assert work.read_blocking(lambda tx: keyring.public_key(tx, ACCOUNT, key_id)) == public
    with pytest.raises(Conflict, match=r"offline by release team.*overair sign image") as refused:
        work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    assert refused.value.subject == "key-offline"


# Key services -------------------------------------------------------------------------------------------------------------


class Kms:
    """What stands in for the network, under securesystemslib's own signer for AWS."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithms: list[str]) -> None:
        self.key = key
        self.algorithms = algorithms
        self.is_down = False

    def get_public_key(self, KeyId: str) -> dict[str, Any]:
        der = self.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return {"KeyId": KeyId, "PublicKey": der, "SigningAlgorithms": self.algorithms, "KeyUsage": "SIGN_VERIFY"}

    def sign(self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> dict[str, Any]:
        if self.is_down:
            raise ConnectionError("no route")
        assert (KeyId, MessageType, len(Message)) == ("alias/overair-x", "DIGEST", 32)
        assert SigningAlgorithm in self.algorithms
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return {"Signature": self.key.sign(Message, ec.ECDSA(Prehashed(hashes.SHA256())))}
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        scheme = pss if "PSS" in SigningAlgorithm else padding.PKCS1v15()
        return {"Signature": self.key.sign(Message, scheme, Prehashed(hashes.SHA256()))}


@on_sqlite
def test_a_cloud_s_key_signs_documents_and_digests(work: SqlWork, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    kms = Kms(ec.generate_private_key(ec.SECP256R1()), ["ECDSA_SHA_256"])
    monkeypatch.setattr(boto3, "client", lambda name: kms)
    keyring = make(key_services=["awskms:alias/overair-"])
    prepared = keyring.hold(ACCOUNT, "awskms:alias/overair-x")
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, prepared, "acm"))
    signer = work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    wanted = SignatureAlgorithm.ECDSA_SHA256
    assert verifies(kms.key.public_key(), signer.sign(b"image", algorithm=wanted), b"image", algorithm=wanted)
    signature = signer.sign_digest(hashlib.sha256(b"image").digest(), algorithm=wanted)
    assert verifies(kms.key.public_key(), signature, b"image", algorithm=wanted)
    kms.is_down = True
    with pytest.raises(Conflict, match="doesn't answer as it should"):
        signer.sign(b"image", algorithm=wanted)
    with pytest.raises(Conflict, match="doesn't answer as it should"):
        signer.sign_digest(bytes(32), algorithm=wanted)


@on_sqlite
def test_one_cloud_key_signs_metadata_and_images_each_in_its_own_way(
    work: SqlWork, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    kms = Kms(rsa.generate_private_key(65537, 2048), ["RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_256"])
    monkeypatch.setattr(boto3, "client", lambda name: kms)
    keyring = make(key_services=["awskms:alias/overair-"])
    prepared = keyring.hold(ACCOUNT, "awskms:alias/overair-x", make=KeyKind.RSA_2048)
    key_id = work.run_blocking(lambda tx: keyring.keep(tx, ACCOUNT, prepared, "acm"))
    signer = work.read_blocking(lambda tx: keyring.signer(tx, ACCOUNT, key_id))
    for wanted in (SignatureAlgorithm.RSA_PSS_SHA256, SignatureAlgorithm.RSA_PKCS1_SHA256):
        assert verifies(kms.key.public_key(), signer.sign(b"document", algorithm=wanted), b"document", algorithm=wanted)
    wanted = SignatureAlgorithm.RSA_PKCS1_SHA256
    signature = signer.sign_digest(hashlib.sha256(b"image").digest(), algorithm=wanted)
    assert verifies(kms.key.public_key(), signature, b"image", algorithm=wanted)
    with pytest.raises(Conflict, match="No key service makes"):
        signer.sign(b"image", algorithm=SignatureAlgorithm.RSA_PKCS1_SHA1)
