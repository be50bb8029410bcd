"""Keys on a token: SoftHSM, through the real library."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.cli.sign import pkcs11_holder
from overair.cli.sign.ends import SignEnded
from overair.wire.uptane.metadata import Role
from tests.cli.sign.conftest import Signer
from tests.support.signing_server import SigningServer
from tests.support.soft_token import LIBRARY, PIN, needs_a_token


@needs_a_token
@pytest.mark.parametrize("kind", ["ed25519", "rsa-3072"])
def test_keys_that_never_leave_the_token_sign_root_and_targets(
    signer: Signer, server: SigningServer, token: str, pin: Path, kind: str
) -> None:
    for role in ("root", "targets"):
        uri = "pkcs11:" + token.format(f"{role}-{kind}")
        (row,) = signer("keys", "new", role, "--role", role, "--type", kind, "--pkcs11", uri).json["keys"]
        assert (row["kind"], row["holder"]) == (kind, uri)
    assert not list((signer.path / "keys").glob("*.key"))
    signer("take-offline", "--yes")
    assert {role for role, _ in server.image.private.values()} == {Role.SNAPSHOT, Role.TIMESTAMP}
    signer("renew", "--days", "20")
    signer("push")
    signer("verify", "--as-client")


@needs_a_token
def test_a_key_that_is_there_is_found_and_not_made_again(signer: Signer, token: str, pin: Path) -> None:
    uri = "pkcs11:" + token.format("found")
    (first,) = signer("keys", "new", "one", "--role", "root", "--pkcs11", uri).json["keys"]
    (second,) = signer("keys", "new", "two", "--role", "root", "--pkcs11", uri).json["keys"]
    assert first["key_id"] == second["key_id"]


@needs_a_token
def test_a_wrong_pin_a_strange_token_and_a_missing_key_are_told(
    signer: Signer, server: SigningServer, token: str, pin: Path
) -> None:
    uri = "pkcs11:" + token.format("root-x")
    pin.write_text("0000")
    assert "PIN" in signer("keys", "new", "k", "--role", "root", "--pkcs11", uri, code=1).err
    pin.write_text(PIN)
    assert "No token" in signer("keys", "new", "k", "--role", "root", "--pkcs11", uri.replace("=overair", "=gone"), code=1).err
    missing = uri.replace(str(LIBRARY), "/nowhere.so")
    assert "can't be loaded" in signer("keys", "new", "k", "--role", "root", "--pkcs11", missing, code=1).err
    signer("keys", "new", "k", "--role", "root", "--pkcs11", uri)
    signer("keys", "new", "t", "--role", "targets")
    record = signer.path / "keys" / "k.pub.json"
    record.write_text(record.read_text().replace("object=root-x", "object=root-y"))
    assert "holds no private key" in signer("take-offline", "--yes", code=3).err
    assert server.image.root.version == 1


@needs_a_token
def test_the_pin_may_lie_where_the_uri_says(signer: Signer, token: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(PIN)
    uri = "pkcs11:" + token.format("sourced") + f"&pin-source=file:{tmp_path / 'elsewhere'}"
    signer("keys", "new", "k", "--role", "root", "--pkcs11", uri)


@needs_a_token
def test_too_short_keys_are_made_on_no_token(signer: Signer, token: str, pin: Path) -> None:
    uri = "pkcs11:" + token.format("short")
    signer("keys", "new", "k", "--role", "root", "--type", "rsa-2048", "--pkcs11", uri, code=4)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=a;object=b",
        "pkcs11:object=b?module-path=/x",
        "pkcs11:token=a?module-path=/x",
        "pkcs11:",
        "pkcs11:token=a;object=b?module-path=/x&pin-value=1234",
        "pkcs11:token=a;object=b;pin-value=1234?module-path=/x",
    ],
)
def test_uris_that_name_no_key_or_show_a_pin_are_refused(uri: str) -> None:
    with pytest.raises(SignEnded) as caught:
        pkcs11_holder.parse(uri)
    assert "1234" not in caught.value.message


def test_a_uri_may_be_percent_encoded() -> None:
    where = pkcs11_holder.parse("pkcs11:token=Acme%20HSM;object=r%2F1?module-path=/x.so&pin-source=file:/p")
    assert (where.token, where.object, where.module, where.pin_source) == ("Acme HSM", "r/1", "/x.so", "/p")
