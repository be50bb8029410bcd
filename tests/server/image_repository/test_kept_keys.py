"""Private keys that wait for their end: kept by a publication that asks for it, told, deleted, gone from the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.ids import SeededIds
from overair.basics.work import Tx
from overair.server.image_repository.pushing import Push
from overair.server.image_repository.store import SqlImageUploadStore, SqlTargetStore
from overair.server.image_repository.uploads import ImageUploads
from overair.server.image_repository.worker import MetadataRenewal
from overair.server.keyring.store import SqlKeyStore, keys
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.model import KEPT_KEY_MS
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role
from tests.server.image_repository.test_rest import DIRECTOR, REPO, Tool, checksum, ok, upload
from tests.support.image_documents import sign_described
from tests.support.image_room import ImageRoom, OfflineKey, signed
from tests.support.whole_server import WholeServer, settable_clock


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WholeServer]:
    server = WholeServer(tmp_path / "data", settable_clock())
    yield server
    server.close()


def held(server: WholeServer, path: str) -> dict[str, dict[str, Any]]:
    rows = ok(server.operator("GET", path)).json["values"]
    return {row["keyid"]: row for row in rows}


def sealed(server: WholeServer, *purposes: str) -> list[bytes]:
    def query(tx: Tx) -> list[bytes]:
        return [key.sealed for key in SqlKeyStore().all(tx, server.place.account) if key.purpose in purposes]

    return server.joined.work.read_blocking(query)


def found(folder: Path, secrets: list[bytes]) -> list[bool]:
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return [any(secret in data for data in files) for secret in secrets]


def test_a_publication_keeps_old_keys_on_demand_until_they_are_deleted(server: WholeServer, tmp_path: Path) -> None:
    tool = Tool(server)
    secrets = sealed(server, "image-root", "image-targets")
    old = held(server, f"{REPO}/root/private_keys")
    body = tool.publication()
    query, headers = {"keepKeys": "true"}, {"x-ats-role-checksum": checksum(server)}
    ok(server.operator("PUT", f"{REPO}/publication", json_body=body, query=query, headers=headers))

    now = held(server, f"{REPO}/root/private_keys")
    assert now.keys() == old.keys()
    kept = {key_id for key_id, row in now.items() if "keptUntil" in row}
    assert {now[key_id]["role"] for key_id in kept} == {"root", "targets"}
    status = ok(server.operator("GET", f"{REPO}/status")).json
    assert status["level"] == "production"
    assert {row["keyid"] for row in status["keptKeys"]} == kept
    assert sum("kept until deleted" in warning for warning in status["warnings"]) == 2
    # They sign nothing: images wait for the keys that are elsewhere.
    assert upload(server, "gateway-1.bin", b"one").status == 412
    assert found(tmp_path / "data", secrets) == [True, True]

    for key_id in kept:
        ok(server.operator("DELETE", f"{REPO}/root/private_keys/{key_id}"), 204)
    assert found(tmp_path / "data", secrets) == [False, False]
    assert ok(server.operator("GET", f"{REPO}/status")).json["keptKeys"] == []
    assert not kept & held(server, f"{REPO}/root/private_keys").keys()


def test_the_directors_root_key_too(server: WholeServer, tmp_path: Path) -> None:
    secrets = sealed(server, "director-root")
    root = ok(server.operator("GET", f"{DIRECTOR}/root.json")).json["signed"]
    (old,) = root["roles"]["root"]["keyids"]
    key, described = OfflineKey(), {}
    for flavour in Flavour:
        unsigned = server.operator("GET", f"{DIRECTOR}/root", query={"flavour": flavour}).json
        unsigned["keys"].pop(old)
        unsigned["keys"][key.public_key.id] = key.public_key.to_json(flavour)
        unsigned["roles"]["root"] = {"keyids": [key.public_key.id], "threshold": 1}
        described[flavour] = unsigned
    documents = sign_described(described, [key])
    body = {flavour.value: {"root": json.loads(documents[flavour])} for flavour in Flavour}
    ok(server.operator("PUT", f"{DIRECTOR}/publication", json_body=body, query={"coSign": "true", "keepKeys": "true"}))
    assert "keptUntil" in held(server, f"{DIRECTOR}/private_keys")[old]
    assert found(tmp_path / "data", secrets) == [True]
    ok(server.operator("DELETE", f"{DIRECTOR}/private_keys/{old}"), 204)
    assert found(tmp_path / "data", secrets) == [False]


@pytest.mark.parametrize(("path", "purposes"), [(REPO, ("image-root", "image-targets")), (DIRECTOR, ("director-root",))])
def test_keys_that_were_rotated_away_are_in_no_file(
    server: WholeServer, tmp_path: Path, path: str, purposes: tuple[str, ...]
) -> None:
    secrets = sealed(server, *purposes)
    assert all(found(tmp_path / "data", secrets))
    ok(server.operator("PUT", f"{path}/root/rotate", query={"roles": "root,targets"}))
    assert not any(found(tmp_path / "data", secrets))
    assert all(found(tmp_path / "data", sealed(server, *purposes)))


async def test_the_worker_ends_what_nobody_came_to_delete(room: ImageRoom, tmp_path: Path) -> None:
    room.run(lambda tx: room.roots.create(tx, room.place, Repository.DIRECTOR))
    erasure = KeyErasure(lambda: room.work.scrub(keys))
    room.roots.keys.when_forgotten = erasure.note
    uploads = ImageUploads(store=SqlImageUploadStore(), targets=SqlTargetStore(), clock=room.clock, ids=SeededIds(5))
    worker = MetadataRenewal(
        work=room.work,
        roots=room.roots,
        images=room.images,
        uploads=uploads,
        erasure=erasure,
        region=room.place.region,
        clock=room.clock,
    )
    on_disk = room.work.engine.dialect.name == "sqlite"
    secrets = [
        key.sealed
        for key in room.read(lambda tx: SqlKeyStore().all(tx, room.account))
        if key.purpose in {"image-root", "image-targets"}
    ]
    root_key, targets_key = OfflineKey(), OfflineKey()
    root = room.next_root(root=([root_key], 1), targets=([targets_key], 1))
    room.push(
        Push(
            root=signed(root, [root_key]),
            targets=signed(room.next_targets(), [targets_key]),
            checksum=room.checksum(),
            cosign=True,
            keep_keys=True,
        )
    )
    assert [role for role in Role if not room.read(lambda tx, role=role: _online(room, tx, role))] == [Role.ROOT, Role.TARGETS]
    await worker.run_once()
    kept = room.read(lambda tx: room.roots.keys.kept(tx, room.account, Repository.IMAGE))
    assert {key.role for key in kept} == {Role.ROOT, Role.TARGETS}
    assert not on_disk or found(tmp_path, secrets) == [True, True]
    room.clock.advance(milliseconds=KEPT_KEY_MS)
    await worker.run_once()
    assert room.read(lambda tx: room.roots.keys.kept(tx, room.account, Repository.IMAGE)) == []
    assert len(room.read(lambda tx: SqlKeyStore().all(tx, room.account))) == 6
    assert not on_disk or found(tmp_path, secrets) == [False, False]


def _online(room: ImageRoom, tx: Tx, role: Role) -> bool:
    return room.roots.is_online(tx, room.account, Repository.IMAGE, role)
