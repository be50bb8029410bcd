"""Beginning a tree, pinning a root, and what a lying server gets."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from overair.cli.sign.known import fingerprint
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_writing import payload, sign_payload
from tests.cli.sign.conftest import Signer
from tests.support.signing_server import Side, SigningServer
from tests.support.uptane_repository import KeyHolder, UptaneRepository

Person = Callable[[str], Signer]


def test_a_bundle_makes_a_tree_and_the_root_is_shown_and_pinned(person: Person, server: SigningServer, tmp_path: Path) -> None:
    alice = person("alice")
    told = alice("init", server.credentials(tmp_path / "c.zip"), alice.path).json
    root = server.image.files[Flavour.UPTANE]["1.root.json"]
    assert told["roots"]["image"] == {"version": 1, "fingerprint": fingerprint(root)}
    assert set(told["roots"]) == {"image", "director"}
    assert alice.path.stat().st_mode & 0o777 == 0o700
    assert (alice.path / "config.json").stat().st_mode & 0o777 == 0o600
    assert (
        "Compare over another channel" in person("bob")("init", tmp_path / "c.zip", tmp_path / "bob" / "tree", json=False).out
    )
    told = alice("status").json["repositories"]["image"]
    assert told["level"] == "online (default level)"
    assert told["root_fingerprint"] == fingerprint(root)


def test_another_fingerprint_than_was_told_makes_no_tree(person: Person, server: SigningServer, tmp_path: Path) -> None:
    alice = person("alice")
    bundle = server.credentials(tmp_path / "c.zip")
    alice("init", bundle, alice.path, "--fingerprint", "ab" * 32, code=4)
    assert not alice.path.exists()
    alice("init", bundle, alice.path, "--fingerprint", fingerprint(server.image.files[Flavour.UPTANE]["root.json"]))


def test_the_bundles_root_is_believed_not_the_servers(person: Person, server: SigningServer, tmp_path: Path) -> None:
    alice = person("alice")
    foreign = UptaneRepository().files["1.root.json"]
    bundle = server.credentials(tmp_path / "c.zip", root__json=foreign)
    outcome = alice("init", bundle, alice.path, code=4)
    assert "isn't one of this role's keys" in outcome.err or "BadKeyId" in outcome.err or "Unmet" in outcome.err


def test_a_server_under_another_authority_gets_nothing(person: Person, server: SigningServer, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = SigningServer(other_folder)
    try:
        alice = person("alice")
        bundle = server.credentials(tmp_path / "c.zip")
        with zipfile.ZipFile(bundle) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["server_ca.pem"] = (other_folder / "ca.pem").read_bytes()
        with zipfile.ZipFile(bundle, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        assert "isn't who it should be" in alice("init", bundle, alice.path, code=5).err
        assert server.requests == []
        assert not alice.path.exists()
    finally:
        other.close()


def test_without_a_server_it_says_so(person: Person, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    server, signer = SigningServer(folder), person("alice")
    signer("init", server.credentials(tmp_path / "c.zip"), signer.path)
    server.close()
    assert signer("pull", code=5).json["error"]["code"] == "unreachable"
    # What needs no network works on.
    signer("status")
    signer("verify")
    signer("keys", "new", "root-1", "--role", "root")
    signer("diff")


def test_a_revoked_bundle_is_told(person: Person, server: SigningServer, tmp_path: Path) -> None:
    alice = person("alice")
    bundle = server.credentials(tmp_path / "c.zip")
    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    hub = json.loads(entries["treehub.json"])
    hub["oauth2"]["client_secret"] = "another"
    entries["treehub.json"] = json.dumps(hub).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    outcome = alice("init", bundle, alice.path, code=4)
    assert "revoked or expired" in outcome.err
    assert "another" not in outcome.err


def _zip(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no zip",
        _zip(),
        _zip(autoprov__url=b"https://x"),
        _zip(tufrepo__url=b"http://plain.example", treehub__json=b'{"no_auth":true}'),
        _zip(tufrepo__url=b"https://x.example"),
        _zip(tufrepo__url=b"https://x.example", treehub__json=b"[]"),
        _zip(tufrepo__url=b"https://x.example", treehub__json=b'{"oauth2":{}}'),
        _zip(tufrepo__url=b"https://x.example", client_auth__p12=b"..."),
        _zip(tufrepo__url=b"https://x.example/" + b"a" * (1024 * 1024), treehub__json=b'{"no_auth":true}'),
    ],
)
def test_bundles_that_cannot_be_meant_are_refused(person: Person, tmp_path: Path, content: bytes) -> None:
    alice = person("alice")
    path = tmp_path / "c.zip"
    path.write_bytes(content)
    alice("init", path, alice.path, code=1)
    assert not alice.path.exists()


def test_one_beginning_is_named(person: Person, tmp_path: Path) -> None:
    alice = person("alice")
    alice("init", code=1)
    alice("init", alice.path, "--data", tmp_path, "--root", tmp_path, code=1)
    assert "No server runs" in alice("init", "--data", tmp_path, alice.path, code=5).err


def test_commands_without_a_tree_say_how_to_make_one(person: Person) -> None:
    assert "sign init" in person("alice")("status", code=1).err


def _serve(side: Side, **bodies: bytes) -> None:
    for name, data in bodies.items():
        side.files[Flavour.UPTANE][name.replace("__", ".")] = data


def test_what_a_stranger_signed_is_not_pulled(signer: Signer, server: SigningServer) -> None:
    image, stranger = server.image, KeyHolder()
    body = replace(image.targets, version=2)
    _serve(image, targets__json=sign_payload(payload(body), [stranger]))
    before = (signer.path / "image" / "served.json").read_bytes()
    signer("pull", code=4)
    assert (signer.path / "image" / "served.json").read_bytes() == before


def test_a_server_that_was_set_back_is_not_believed(signer: Signer, server: SigningServer) -> None:
    image = server.image
    old = dict(image.files[Flavour.UPTANE])
    image.publish_own(replace(image.targets, version=2))
    signer("pull")
    image.files[Flavour.UPTANE].update(old)
    assert "set back" in signer("pull", code=4).err


def test_a_root_chain_is_followed_and_a_broken_one_is_not(signer: Signer, server: SigningServer) -> None:
    image = server.image
    for version in (2, 3):
        keys = {role: image.make_key(role) for role in Role}
        from overair.wire.uptane.metadata import RoleKeys, Root

        root = Root(
            version=version,
            expires=image.in_days(365),
            keys={key.id: key for key in keys.values()},
            roles={role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in keys.items()},
        )
        signers = [*image.held(Role.ROOT), image.private[keys[Role.ROOT].id][1]]
        for flavour in Flavour:
            image.serve_root(sign_payload(payload(root, flavour), signers, flavour), flavour)
        image.root = root
        image.publish_own(replace(image.targets, version=image.targets.version + 1))
    assert signer("pull").json["image"]["root"] == {"before": 1, "now": 3}
    broken = replace(image.root, version=4)
    _serve(image, **{"4__root__json": sign_payload(payload(broken), [KeyHolder()])})
    signer("pull", code=4)
    assert signer("status").json["repositories"]["image"]["documents"]["root"]["version"] == 3


def test_what_was_changed_on_the_disk_is_noticed(signer: Signer) -> None:
    path = signer.path / "image" / "served.json"
    served = json.loads(path.read_bytes())
    foreign = UptaneRepository()
    for name in ("timestamp", "snapshot", "targets"):
        served[name] = foreign.files[f"{name}.json"].decode()
    path.write_text(json.dumps(served))
    signer("status", code=4)
    served["roots"] = [foreign.files["1.root.json"].decode()]
    path.write_text(json.dumps(served))
    assert "was pinned" in signer("status", code=4).err


def test_one_command_at_a_time(signer: Signer) -> None:
    from overair.cli.sign.tree import Tree

    with Tree(signer.path).held():
        assert "Another command" in signer("status", code=1).err
