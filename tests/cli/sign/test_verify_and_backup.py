"""The client's own verification over what is served; and the whole tree in one sealed file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role, Snapshot, Timestamp
from overair.wire.uptane.metadata_writing import meta_of, payload, sign_payload
from tests.cli.sign.conftest import PASSPHRASE, Signer
from tests.support.signing_server import SigningServer

Person = Callable[[str], Signer]


def test_a_client_believes_what_is_served_in_both_flavours(offline: Signer) -> None:
    told = offline("verify", "--as-client").json
    assert [(seen["flavour"], seen["versions"]["targets"]) for seen in told["image"]] == [("uptane", 2), ("tuf", 2)]
    assert "a client believes root 2" in offline("verify", "--as-client", json=False).out
    assert "a client believes" in offline("verify", json=False).out


def test_what_has_expired_is_refused_as_a_client_does(offline: Signer, server: SigningServer) -> None:
    image = server.image
    timestamp = Timestamp(
        version=99,
        expires=image.in_days(-1),
        snapshot=meta_of(image.files[Flavour.UPTANE]["snapshot.json"], image.snapshot_version),
    )
    image.files[Flavour.UPTANE]["timestamp.json"] = sign_payload(payload(timestamp), image.held(Role.TIMESTAMP))
    told = offline("verify", "--as-client", code=4).json["error"]
    assert "ExpiredMetadata" in told["problems"][0]
    offline("pull")  # still a base to work from
    assert "expired" in offline("verify", code=4).err
    assert offline("status").json["repositories"]["image"]["warnings"] == ["timestamp has expired"]


def test_a_flavour_that_says_something_else_is_found(offline: Signer, server: SigningServer) -> None:
    from tests.cli.sign.test_pushing import offline_key
    from tests.support.uptane_repository import target_file

    image = server.image
    other = replace(image.targets, targets={"x": target_file("x", b"x", hardware_ids=["h"])})
    files = image.files[Flavour.TUF]
    files["targets.json"] = sign_payload(payload(other, Flavour.TUF), [offline_key(offline)], Flavour.TUF)
    image.sign_above()
    assert "different things" in offline("verify", "--as-client", code=4).err


def test_a_flavour_that_is_not_served_is_found(offline: Signer, server: SigningServer) -> None:
    del server.image.files[Flavour.TUF]["2.root.json"]
    assert "tuf:" in offline("verify", "--as-client", code=4).json["error"]["problems"][0]


def test_a_mixed_set_is_found(offline: Signer, server: SigningServer) -> None:
    image = server.image
    snapshot = Snapshot(
        version=99, expires=image.in_days(1), meta={"targets.json": meta_of(b"other bytes", image.targets.version)}
    )
    image.files[Flavour.UPTANE]["snapshot.json"] = sign_payload(payload(snapshot), image.held(Role.SNAPSHOT))
    offline("verify", "--as-client", code=4)


def test_what_ends_soon_is_told_with_the_way_out(offline: Signer) -> None:
    offline("renew", "--days", "5")
    offline("push")
    (warning,) = offline("status").json["repositories"]["image"]["warnings"]
    assert warning.startswith("targets ends in 4 days: sign renew") or warning.startswith("targets ends in 5 days")


def test_a_backup_brings_the_whole_tree_back(offline: Signer, person: Person, tmp_path: Path, server: SigningServer) -> None:
    told = offline("backup", tmp_path / "tree.backup").json
    assert told["keys"] == ["root-1", "root-2", "targets-1"]
    shutil.rmtree(offline.path)
    restored = person("restored")
    restored("restore", tmp_path / "tree.backup", restored.path)
    assert restored.path.stat().st_mode & 0o777 == 0o700
    restored("renew", "--days", "40")
    restored("push")
    assert server.image.targets.version == 3
    for path in restored.path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_backup_shows_nothing(offline: Signer, tmp_path: Path) -> None:
    offline("backup", tmp_path / "tree.backup")
    content = (tmp_path / "tree.backup").read_bytes()
    assert b"client_secret" not in content
    assert json.loads(content)["about"] == {"keys": ["root-1", "root-2", "targets-1"]}
    assert PASSPHRASE.encode() not in content
    offline("backup", tmp_path / "tree.backup", code=1)


def test_a_backup_that_was_changed_or_another_passphrase_restores_nothing(offline: Signer, tmp_path: Path) -> None:
    backup = tmp_path / "tree.backup"
    offline("backup", backup)
    whole = json.loads(backup.read_bytes())
    backup.write_text(json.dumps({**whole, "about": {"keys": []}}))
    offline("restore", backup, tmp_path / "new", code=1)
    backup.write_text(json.dumps(whole))
    offline.passphrase_file.write_text("another row of words")
    offline("restore", backup, tmp_path / "new", code=1)
    assert not (tmp_path / "new").exists()
    offline.passphrase_file.write_text(PASSPHRASE)
    offline("restore", backup, offline.path, code=1)
    offline("restore", offline.path / "keys" / "root-1.key", tmp_path / "new", code=1)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b/c", "keys/../../evil"])
def test_a_backup_lays_nothing_outside_of_the_tree(tmp_path: Path, name: str) -> None:
    import io
    import zipfile

    from overair.basics.ids import RandomIds
    from overair.basics.redacted import Redacted
    from overair.cli.sign import backup, sealed_box
    from overair.cli.sign.ends import SignEnded

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    words = Redacted(PASSPHRASE)
    box = sealed_box.seal(Redacted(buffer.getvalue()), words, purpose=backup.PURPOSE, about={}, ids=RandomIds())
    with pytest.raises(SignEnded, match="outside"):
        backup.restore(box, words, tmp_path / "tree", name="backup")
    assert not (tmp_path / "evil").exists()
