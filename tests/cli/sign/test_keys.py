"""Keys: made, taken in, listed, tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.cli.sign.conftest import Signer
from tests.support.signing_server import SigningServer


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _public(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_keys_are_made_sealed_and_listed(signer: Signer) -> None:
    made = signer("keys", "new", "root-1", "root-2", "--role", "root").json["keys"]
    assert [row["kind"] for row in made] == ["ed25519", "ed25519"]
    assert made[0]["key_id"] != made[1]["key_id"]
    listed = signer("keys", "list").json["keys"]
    assert [(row["name"], row["holder"], row["signs_for"]) for row in listed] == [
        ("root-1", "file:root-1.key", []),
        ("root-2", "file:root-2.key", []),
    ]
    assert (signer.path / "keys" / "root-1.key").stat().st_mode & 0o777 == 0o600


def test_a_name_is_given_once(signer: Signer) -> None:
    signer("keys", "new", "root-1", "--role", "root")
    assert "root-1 already" in signer("keys", "new", "root-1", "--role", "root", code=1).err


def test_an_rsa_key_has_its_size(signer: Signer) -> None:
    made = signer("keys", "new", "targets-1", "--role", "targets", "--type", "rsa-3072").json["keys"]
    assert made[0]["kind"] == "rsa-3072"


@pytest.mark.parametrize(("kind", "code"), [("rsa-2048", 4), ("rsa-1024", 4), ("ecdsa", 1), ("ed448", 1)])
def test_keys_that_are_too_short_or_of_another_kind_are_not_made(signer: Signer, kind: str, code: int) -> None:
    signer("keys", "new", "k", "--role", "root", "--type", kind, code=code)
    assert signer("keys", "list").json["keys"] == []


@pytest.mark.parametrize("name", ["../k", ".k", "a b", "", "k" * 65])
def test_names_that_would_lead_elsewhere_are_refused(signer: Signer, name: str) -> None:
    signer("keys", "new", name, "--role", "root", code=1)


def test_a_role_that_nobody_signs_for_is_refused(signer: Signer) -> None:
    signer("keys", "new", "k", "--role", "snapshot", code=1)


def test_a_short_passphrase_is_refused(signer: Signer) -> None:
    signer.passphrase_file.write_text("short\n")
    assert "at least 12" in signer("keys", "new", "k", "--role", "root", code=1).err


def test_without_a_terminal_or_a_file_nobody_is_asked(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERAIR_SIGN_PASSPHRASE_FILE")
    assert "--passphrase-file" in signer("keys", "new", "k", "--role", "root", code=1).err


def test_no_command_takes_a_passphrase_or_pin_as_an_argument() -> None:
    import typer.main

    from overair.cli.sign import app

    def options(command: object) -> list[str]:
        found = [option for parameter in getattr(command, "params", []) for option in parameter.opts]
        return found + [option for child in getattr(command, "commands", {}).values() for option in options(child)]

    named = set(options(typer.main.get_command(app)))
    assert "--passphrase-file" in named
    assert not {option for option in named if "passphrase" in option or "pin" in option} - {
        "--passphrase-file",
        "--pin-file",
        "--fingerprint",
    }


def test_a_key_made_elsewhere_is_taken_in(signer: Signer) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    document = {"keytype": "ED25519", "keyval": {"public": public, "private": key.private_bytes_raw().hex() + public}}
    outcome = signer("keys", "import", "old", signer.file("old.sec", json.dumps(document).encode()), "--role", "targets")
    assert outcome.json["keys"][0]["holder"] == "file:old.key"
    assert "destroy it" in outcome.err
    legacy = rsa.generate_private_key(65537, 2048)
    (row,) = signer("keys", "import", "rsa", signer.file("rsa.pem", _pem(legacy)), "--role", "targets").json["keys"]
    assert row["kind"] == "rsa-2048"


def test_halves_that_do_not_belong_together_are_refused(signer: Signer) -> None:
    seed = ed25519.Ed25519PrivateKey.generate().private_bytes_raw().hex()
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    document = {"keytype": "ED25519", "keyval": {"public": other, "private": seed + other}}
    outcome = signer("keys", "import", "k", signer.file("k", json.dumps(document).encode()), "--role", "root", code=1)
    assert seed not in outcome.err


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())], ids=["rsa-1024", "ecdsa"]
)
def test_no_key_is_too_old_to_be_refused(signer: Signer, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    signer("keys", "import", "k", signer.file("k.pem", _pem(key)), "--role", "root", code=4)
    signer("keys", "import", "k", signer.file("k.pub", _public(key)), "--role", "root", code=4)


def test_somebody_elses_public_key_is_remembered_and_cannot_sign(signer: Signer, server: SigningServer) -> None:
    bob = ed25519.Ed25519PrivateKey.generate()
    (row,) = signer("keys", "import", "bob", signer.file("bob.pem", _public(bob)), "--role", "root").json["keys"]
    assert row["holder"] == ""
    signer("keys", "new", "targets-1", "--role", "targets")
    outcome = signer("take-offline", "--yes", code=3)
    assert "bob" in outcome.err
    assert server.image.root.version == 1


def test_a_key_file_that_was_changed_signs_nothing(offline: Signer, server: SigningServer) -> None:
    path = offline.path / "keys" / "targets-1.key"
    whole = json.loads(path.read_bytes())
    offline("renew", "--days", "10")
    for member, value in (("about", {**whole["about"], "name": "root-1"}), ("sealed", whole["sealed"][:-8] + "AAAAAAA=")):
        path.write_text(json.dumps({**whole, member: value}))
        assert "changed" in offline("push", code=1).err
    path.write_bytes((offline.path / "keys" / "root-1.key").read_bytes())
    assert "another key" in offline("push", code=1).err
    assert server.image.targets.version == 2


def test_a_wrong_passphrase_signs_nothing(offline: Signer, server: SigningServer) -> None:
    offline("renew", "--days", "10")
    offline.passphrase_file.write_text("four words in a column\n")
    assert "doesn't open" in offline("push", code=1).err
    assert server.image.targets.version == 2


def test_a_record_that_was_changed_is_refused(offline: Signer) -> None:
    path = offline.path / "keys" / "root-1.pub.json"
    other = json.loads((offline.path / "keys" / "root-2.pub.json").read_bytes())
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "key": other["key"]}))
    assert "changed" in offline("keys", "list", code=1).err


def test_root_edits_are_drafts_until_they_are_pushed(offline: Signer, server: SigningServer) -> None:
    offline("keys", "new", "root-3", "--role", "root")
    assert "may sign" in offline("keys", "add", "root-3", "--role", "root", json=False).out
    offline("threshold", "root", "2")
    assert server.image.root.version == 2
    offline("push")
    assert server.image.root.version == 3
    assert server.image.root.roles["root"].threshold == 2
    offline("keys", "remove", "root-1", "--role", "root")
    offline("push")
    assert len(server.image.root.roles["root"].key_ids) == 2
    offline("verify", "--as-client")


def test_a_threshold_that_nobody_can_meet_is_refused(offline: Signer) -> None:
    for count in ("0", "3", "1001"):
        offline("threshold", "root", count, code=1)
    offline("threshold", "snapshot", "1", code=1)
    offline("threshold", "root", "2")
    assert "would be left" in offline("keys", "remove", "root-1", "--role", "root", code=4).err


def test_one_key_has_one_role(offline: Signer) -> None:
    assert "keys of its own" in offline("keys", "add", "targets-1", "--role", "root", code=4).err


def test_rotating_targets_explains_itself_and_signs_anew(offline: Signer, server: SigningServer) -> None:
    offline("keys", "new", "targets-2", "--role", "targets")
    told = offline("rotate", "targets", "--new", "targets-2").json
    assert told["kept"] == []
    assert any("idle devices" in line for line in told["effect"])
    offline("push")
    assert server.image.targets.version == 3
    offline("verify", "--as-client")


def test_rotating_keeps_old_keys_as_long_as_the_threshold_needs_them(offline: Signer, server: SigningServer) -> None:
    offline("threshold", "root", "2")
    offline("push")
    offline("keys", "new", "root-3", "root-4", "--role", "root")
    assert len(offline("rotate", "root", "--new", "root-3").json["kept"]) == 1
    offline("push")
    assert len(server.image.root.roles["root"].key_ids) == 2
    assert offline("rotate", "root", "--new", "root-4").json["kept"] != []
    offline("push")
    offline("verify", "--as-client")


def test_a_tree_is_made_once(signer: Signer, server: SigningServer, tmp_path: Path) -> None:
    signer("init", server.credentials(tmp_path / "again.zip"), signer.path, code=1)
