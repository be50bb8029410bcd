"""From the default level to the production level and back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.agent.durable import Disk
from overair.basics.clock import WallClock
from overair.basics.ids import RandomIds
from overair.cli.sign import level
from overair.cli.sign.desk import Desk
from overair.cli.sign.level import NewKeys
from overair.cli.sign.options import connect
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.server import Server
from overair.cli.sign.tree import Tree
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_reading import read_document
from tests.cli.sign.conftest import Signer
from tests.support.power_cut import PowerCut
from tests.support.signing_server import Side, SigningServer


def _keys(signer: Signer) -> None:
    signer("keys", "new", "root-1", "root-2", "--role", "root")
    signer("keys", "new", "targets-1", "--role", "targets")


def _is_offline(side: Side) -> bool:
    roles = {role for role, _ in side.private.values()}
    return not roles & {Role.ROOT} and (side.kind is Repository.DIRECTOR or Role.TARGETS not in roles)


def test_without_yes_only_the_plan_is_shown(signer: Signer, server: SigningServer) -> None:
    signer("keys", "new", "root-1", "--role", "root")
    signer("keys", "new", "targets-1", "--role", "targets")
    plan = signer("take-offline").json["plan"]
    assert plan["root_version"] == 2
    assert any("Only one root key" in line for line in plan["warnings"])
    assert sorted(plan["keys_deleted_on_server"]) == sorted(
        key_id for role in (Role.ROOT, Role.TARGETS) for key_id in server.image.root.role_keys(role).key_ids
    )
    assert "--yes" in signer("take-offline", json=False).out
    assert server.image.root.version == 1
    assert not any(request.startswith(("PUT", "DELETE")) or "private_keys/" in request for request in server.requests)


def test_root_and_targets_leave_the_server_and_clients_believe_it(offline: Signer, server: SigningServer) -> None:
    assert server.image.root.version == 2
    assert server.image.targets.version == 2
    assert _is_offline(server.image)
    offline("verify", "--as-client")
    told = offline("status").json["repositories"]["image"]
    assert told["level"] == "offline (production level)"
    assert {key["where"] for key in told["roles"]["root"]["keys"]} == {"here"}
    assert {key["where"] for key in told["roles"]["snapshot"]["keys"]} == {"server"}
    assert "offline" in offline("status", json=False).out


def test_the_old_keys_are_deleted_only_after_the_new_root_was_read_back(signer: Signer, server: SigningServer) -> None:
    _keys(signer)
    signer("take-offline", "--yes")
    moments = server.requests
    pushed = moments.index("PUT /api/v1/user_repo/publication?coSign=true&keepKeys=true")
    read_back = moments.index("GET /api/v1/user_repo/targets.json?flavour=tuf", pushed)
    deleted = [number for number, request in enumerate(moments) if request.startswith("DELETE")]
    assert len(deleted) == 2
    assert pushed < read_back < min(deleted)
    # No private key was ever asked for: the server signs with its own.
    assert not any(request.startswith("GET") and "private_keys/" in request for request in moments)


def test_a_recovery_sheet_names_every_key_and_holds_no_secret(offline: Signer) -> None:
    (sheet,) = (offline.path / "image").glob("recovery-sheet-*.md")
    text = sheet.read_text()
    for row in offline("keys", "list").json["keys"]:
        assert row["key_id"] in text
        assert row["name"] in text
    assert "1 of 2" in text
    assert "PRIVATE" not in text


def test_no_private_key_lies_in_the_tree_or_was_printed(signer: Signer, server: SigningServer) -> None:
    old = [holder.key for _, holder in server.image.private.values()]
    _keys(signer)
    signer("take-offline", "--yes")
    signer("take-offline", json=False, code=4)
    secrets: list[bytes] = []
    ours = Desk(
        Tree(signer.path),
        clock=WallClock(),
        ids=RandomIds(),
        secrets=Secrets(passphrase_file=signer.passphrase_file),
        connect=connect,
        tell=print,
    )
    opened = [ours.open(ours.record(name)) for name in ("root-1", "root-2", "targets-1")]
    for key in [*old, *(each.inner._key for each in opened)]:  # type: ignore[attr-defined]
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        secrets.append(key.private_bytes_raw())
    forms = [form for secret in secrets for form in (secret, secret.hex().encode(), base64.b64encode(secret), *_pkcs8(secret))]
    said = "\n".join(signer.said).encode()
    files = [path for path in signer.path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for content in [said, *(path.read_bytes() for path in files)]:
        assert not any(form in content for form in forms)
    for path in [signer.path, *signer.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def _pkcs8(seed: bytes) -> list[bytes]:
    der = ed25519.Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return [der, base64.b64encode(der)]


def test_without_keys_for_a_role_it_says_how_to_make_them(signer: Signer) -> None:
    signer("keys", "new", "root-1", "--role", "root")
    assert "keys new NAME --role targets" in signer("take-offline", "--yes", code=1).err


def test_the_directors_root_goes_alone(signer: Signer, server: SigningServer) -> None:
    signer("keys", "new", "director-root", "--role", "root")
    assert any(
        "stay on the server" in line for line in signer("take-offline", "--repository", "director").json["plan"]["warnings"]
    )
    signer("take-offline", "--repository", "director", "--yes")
    assert server.director.root.version == 2
    assert {role for role, _ in server.director.private.values()} == {Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP}
    signer("verify", "--as-client")
    assert (
        "isn't signed by people"
        in signer("keys", "add", "director-root", "--role", "targets", "--repository", "director", code=1).err
    )


def test_each_repository_gets_keys_of_its_own(offline: Signer, server: SigningServer) -> None:
    assert "No key here is for root" in offline("take-offline", "--repository", "director", "--yes", code=1).err
    offline("keys", "new", "director-root", "--role", "root")
    offline("take-offline", "--repository", "director", "--yes")
    assert not set(server.director.root.keys) & set(server.image.root.keys)


def test_what_somebody_else_publishes_in_between_is_kept(signer: Signer, server: SigningServer) -> None:
    from tests.support.uptane_repository import target_file

    _keys(signer)
    image = server.image

    def other() -> None:
        from dataclasses import replace

        extra = target_file("other.bin", b"x", hardware_ids=["h"])
        image.publish_own(replace(image.targets, version=image.targets.version + 1, targets={"other.bin": extra}))

    server.before_publish = other
    outcome = signer("take-offline", "--yes")
    assert "Somebody else has published" in outcome.err
    assert set(image.targets.targets) == {"other.bin"}
    assert _is_offline(image)
    signer("verify", "--as-client")


def test_a_root_that_somebody_else_made_ends_the_plan(signer: Signer, server: SigningServer) -> None:
    from dataclasses import replace

    from overair.wire.uptane.metadata_writing import payload, sign_payload

    _keys(signer)
    image = server.image

    def other() -> None:
        root = replace(image.root, version=2)
        for flavour in Flavour:
            image.serve_root(sign_payload(payload(root, flavour), image.held(Role.ROOT), flavour), flavour)
        image.root = root

    server.before_publish = other
    assert "somebody else has changed the root" in signer("take-offline", "--yes", code=2).err
    assert not _is_offline(image)
    signer("take-offline", "--yes")
    assert image.root.version == 3
    assert _is_offline(image)


def test_and_the_way_back(offline: Signer, server: SigningServer) -> None:
    plan = offline("bring-online").json["plan"]
    assert any("default level" in line for line in plan["warnings"])
    assert server.image.root.version == 2
    offline("bring-online", "--yes")
    assert server.image.root.version == 3
    assert {role for role, _ in server.image.private.values()} == set(Role)
    offline("verify", "--as-client")
    assert offline("status").json["repositories"]["image"]["level"] == "online (default level)"
    assert "online already" in offline("bring-online", code=4).err
    # … and away again, with keys that have signed before.
    offline("take-offline", "--yes")
    assert server.image.root.version == 4
    offline("verify", "--as-client")


# Power cuts ---------------------------------------------------------------------------------------------------------------


class Cuts:
    """Counts what happens and cuts the power before one of them: after what came before it, whether here or at the server."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    def before(self, what: Callable[[], Any]) -> Any:
        self.count += 1
        if self.count == self.at:
            raise PowerCut
        return what()


class CutDisk(Disk):
    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts

    def write_whole(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._cuts.before(lambda: Disk.write_whole(self, path, data, mode=mode))

    def remove(self, path: Path) -> None:
        self._cuts.before(lambda: Disk.remove(self, path))


class CutServer:
    """Every call that changes something may be cut before it arrives; before its answer is noted, at the next write."""

    def __init__(self, server: Server, cuts: Cuts) -> None:
        self._server = server
        self._cuts = cuts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._server, name)
        if name not in {"publish", "delete_private_key", "make_online_keys"}:
            return found
        return lambda *arguments, **named: self._cuts.before(lambda: found(*arguments, **named))


def _desk(signer: Signer, cuts: Cuts) -> Desk:
    return Desk(
        Tree(signer.path, CutDisk(cuts)),
        clock=WallClock(),
        ids=RandomIds(),
        secrets=Secrets(passphrase_file=signer.passphrase_file),
        connect=lambda tree: CutServer(connect(tree), cuts),  # type: ignore[return-value]
        tell=lambda line: None,
    )


def _take(signer: Signer, cuts: Cuts) -> None:
    """What the command does, at a desk of ours."""
    desk = _desk(signer, cuts)
    if desk.folder(Repository.IMAGE).level() is None:
        known = desk.pull(Repository.IMAGE)
        if known.root.version == 2:
            return  # everything was done, but for the answer
        records = desk.tree.records()
        wanted = {
            Role.ROOT: NewKeys(keys=(records["root-1"].key, records["root-2"].key)),
            Role.TARGETS: NewKeys(keys=(records["targets-1"].key,)),
        }
        desk.folder(Repository.IMAGE).save_draft(type(desk.folder(Repository.IMAGE).draft())())
        level.begin(desk, level.plan_offline(desk, known, wanted))
    level.go_on(desk, Repository.IMAGE)


def test_power_may_fail_at_every_step_of_taking_offline(signer: Signer, server: SigningServer) -> None:
    import shutil

    _keys(signer)
    fresh_tree = signer.path.with_name("fresh")
    shutil.copytree(signer.path, fresh_tree)
    fresh = server.state()
    counted = Cuts(None)

    def begin_anew() -> None:
        shutil.rmtree(signer.path)
        shutil.copytree(fresh_tree, signer.path)
        server.back_to(fresh)

    _take(signer, counted)
    assert counted.count > 15
    for at in range(1, counted.count + 1):
        begin_anew()
        with pytest.raises(PowerCut):
            _take(signer, Cuts(at))
        # Wherever it was cut: as long as the server has keys, it could still sign; devices have a root that they believe.
        published = read_document(server.image.files[Flavour.UPTANE]["root.json"], Role.ROOT).version
        assert published == 2 or {role for role, _ in server.image.private.values()} == set(Role)
        _take(signer, Cuts(None))
        assert server.image.root.version == 2, at
        assert _is_offline(server.image), at
        assert (signer.path / "image" / "recovery-sheet-root-2.md").exists(), at
        assert not (signer.path / "image" / "level.json").exists(), at


def test_a_cut_change_of_level_is_told_and_nothing_else_is_done_meanwhile(signer: Signer, server: SigningServer) -> None:
    _keys(signer)
    with pytest.raises(PowerCut):
        _take(signer, Cuts(6))
    assert any("was cut after" in line for line in signer("status").json["repositories"]["image"]["warnings"])
    assert "is on its way" in signer("push", code=1).err
    assert "is on its way" in signer("threshold", "root", "1", code=1).err
    signer("discard")
    signer("take-offline", "--yes")
    assert _is_offline(server.image)
