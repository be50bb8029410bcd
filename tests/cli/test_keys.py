"""``overair keys``: what ends when, who holds which key, and new keys in the place of old ones; a server with a token."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from overair.basics.errors import OverairError
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded
from overair.cli.main import app
from overair.server.keyring import tokens
from tests.support.code_signing import credential
from tests.support.operator_rest import OperatorRest
from tests.support.server_process import ServerProcess
from tests.support.soft_token import LIBRARY, PIN, needs_a_token, put_on_token, softhsm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "pin").write_text(PIN)
    flags = ("--pkcs11-module", str(LIBRARY), "--pkcs11-pin-file", str(folder / "pin"))
    with ServerProcess(folder / "data", *flags, environment={"SOFTHSM2_CONF": str(softhsm())}) as process:
        yield process


@pytest.fixture(autouse=True)
def _own_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OVERAIR_DATA", "OVERAIR_ACCOUNT_DIR"):
        monkeypatch.delenv(name, raising=False)


def done(server: ServerProcess, *words: str) -> Any:
    ran = CliRunner().invoke(app, ["keys", *words, "--data", str(server.data), "--json"])
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return json.loads(ran.stdout)


def held(server: ServerProcess) -> dict[str, tuple[str, str]]:
    return {each["name"]: (each["holder"], each["key_id"]) for each in done(server, "list")["keys"]}


def on_token(what: str) -> str:
    return f"pkcs11:token=overair;object={what}-{uuid.uuid4().hex[:8]}"


def token_key(uri: str) -> bytes:
    """The public half, asked of the token past the server."""
    where = tokens.parse_token_uri(uri)
    where = tokens.TokenUri(token=where.token, object=where.object, module=str(LIBRARY))
    with tokens.open_session(where, Redacted(PIN), writes=False) as session:
        found = tokens.find_public(session, where)
    assert found is not None
    return found.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@needs_a_token
def test_everything_that_ends_is_listed_the_soonest_first(server: ServerProcess) -> None:
    expiries = done(server)["expiries"]
    names = {each["name"] for each in expiries}
    assert names >= {"server", "server-authority", "device-authority", "image-root", "image-timestamp", "director-root"}
    kinds = {each["kind"] for each in expiries}
    assert kinds >= {"authority", "server-certificate", "signer-certificate", "metadata"}
    assert [each["expires"] for each in expiries] == sorted(each["expires"] for each in expiries)
    (timestamp,) = [each for each in expiries if each["name"] == "image-timestamp"]
    assert (timestamp["days_left"], timestamp["alarm_days"], timestamp["renews_itself"]) == (0, None, True)
    assert all(each["holder"] == "file:" for each in expiries)
    assert all(each["do"] for each in expiries)
    pages: list[str] = []
    token: dict[str, str] = {}
    while token or not pages:
        page = server.client("overair").list_expiries(maxResults=3, **token)
        pages += [each["name"] for each in page["expiries"]]
        token = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
    assert pages == [each["name"] for each in expiries]
    ran = CliRunner().invoke(app, ["keys", "--data", str(server.data)])
    assert ran.exit_code == 0
    assert "image timestamp, version" in ran.stdout


@needs_a_token
def test_a_role_s_key_moves_to_a_token_and_the_repository_is_signed_with_it(server: ServerProcess) -> None:
    uri = on_token("timestamp")
    before = held(server)["image-timestamp"]
    told = done(server, "rotate", "image-timestamp", "--holder", uri, "--kind", "ed25519")
    assert (told["holder"], told["in_force"]) == (uri, True)
    holder, key_id = held(server)["image-timestamp"]
    assert (holder, key_id != before[1]) == (uri, True)
    key = json.loads((server.data / "root-key.json").read_bytes())
    operator = OperatorRest(
        server.endpoints["operator_url"],
        server.endpoints["ca_file"],
        client_id=key["access_key_id"],
        client_secret=key["secret_access_key"],
    )
    root = operator.ask("GET", "/api/v1/user_repo/root.json").json
    assert root["signed"]["roles"]["timestamp"]["keyids"] == [hashlib.sha256(token_key(uri)).hexdigest()]


@needs_a_token
def test_an_authority_on_a_token_issues_and_what_the_former_one_issued_goes_on(server: ServerProcess) -> None:
    iot = server.client("iot")
    former = iot.create_keys_and_certificate(setAsActive=True)
    uri = on_token("ca")
    assert done(server, "rotate", "device-authority", "--holder", uri)["kind"] == "ec-p256"
    fresh = iot.create_keys_and_certificate(setAsActive=True)
    certificate = x509.load_pem_x509_certificate(fresh["certificatePem"].encode())
    key = serialization.load_der_public_key(token_key(uri))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    old = x509.load_pem_x509_certificate(former["certificatePem"].encode())
    assert old.issuer != certificate.issuer
    described = iot.describe_certificate(certificateId=former["certificateId"])
    assert described["certificateDescription"]["status"] == "ACTIVE"


@needs_a_token
def test_a_signer_s_key_on_a_token_is_imported_with_an_unmodified_client(server: ServerProcess, tmp_path: Path) -> None:
    signer = credential()
    label = f"acm-{uuid.uuid4().hex[:8]}"
    put_on_token(signer.key_pem, label, tmp_path)
    uri = f"pkcs11:token=overair;object={label}"
    arn = server.client("acm").import_certificate(Certificate=signer.certificate_pem, PrivateKey=uri.encode())["CertificateArn"]
    (entry,) = [each for each in done(server)["expiries"] if each["name"] == arn]
    assert (entry["kind"], entry["holder"]) == ("signer-certificate", uri)


REFUSED = [
    ({"keyName": "device-authority", "holder": "pkcs11:token=gone;object=x"}, 409, "No token is called 'gone'"),
    ({"keyName": "image-timestamp", "holder": "pkcs11:token=gone;object=x"}, 409, "No token is called 'gone'"),
    ({"keyName": "image-timestamp", "holder": "pkcs11:token=a;object=b?module-path=/x.so"}, 400, "own settings"),
    ({"keyName": "image-timestamp", "holder": "awskms:alias/x"}, 400, "takes no key"),
    ({"keyName": "image-timestamp", "holder": "offline:alice"}, 400, "overair sign"),
    ({"keyName": "image-timestamp", "keyKind": "ec-p256"}, 400, "ed25519, rsa-3072, rsa-4096"),
    ({"keyName": "device-authority", "keyKind": "ed25519"}, 400, "ec-p256"),
    ({"keyName": "server-authority"}, 404, "is rotated by that name"),
    ({"keyName": "fleet-authority"}, 404, "shared provisioning"),
]


@needs_a_token
def test_what_cannot_be_rotated_is_refused_in_words_and_changes_nothing(server: ServerProcess) -> None:
    overair = server.client("overair")
    before = overair.list_keys()["keys"]
    for asked, status, said in REFUSED:
        with pytest.raises(overair.exceptions.ClientError) as refused:
            overair.rotate_key(**asked)
        answer = refused.value.response
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], said in answer["Error"]["Message"]) == (status, True), answer
    assert overair.list_keys()["keys"] == before
    ran = CliRunner().invoke(app, ["keys", "rotate", "server-authority", "--data", str(server.data)])
    assert isinstance(ran.exception, CommandEnded)
    assert "is rotated by that name" in ran.exception.message


def test_the_wrapping_key_of_a_stopped_server_is_changed_and_all_goes_on(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server().start()
    before = (server.data / "wrapping.key").read_bytes()
    ran = CliRunner().invoke(app, ["keys", "rewrap", "--data", str(server.data)])
    assert isinstance(ran.exception, OverairError)
    assert "Stop it first" in ran.exception.message
    server.stop()
    (tmp_path / "words").write_text("four words in a row")
    assert done(server, "rewrap", "--new-key-passphrase-file", str(tmp_path / "words"))["sealed_anew"] > 10
    assert (server.data / "wrapping.key").read_bytes() != before
    again = new_server("--key-passphrase-file", str(tmp_path / "words")).start()
    assert again.client("iot").create_keys_and_certificate()["certificateId"]
