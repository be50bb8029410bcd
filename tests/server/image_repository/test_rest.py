"""OTA Connect's REST of root chains and of the Image repository, on the whole server, as its tools call it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import select

from overair.basics.work import Tx
from overair.server.audit.store import SqlAuditStore
from overair.server.keyring.store import keys
from overair.server.storage.work import sql
from overair.wire.uptane.keys import Flavour, read_public_key
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_root, read_targets
from tests.support.image_documents import sign_described
from tests.support.image_room import OfflineKey
from tests.support.operator_rest import RestReply
from tests.support.whole_server import WholeServer, settable_clock

REPO = "/api/v1/user_repo"
DIRECTOR = "/api/v1/director/admin/repo"
WORDS = {"name": "gateway", "version": "1.0", "hardwareIds": "gw-imx8,gw-imx9", "targetFormat": "BINARY"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WholeServer]:
    server = WholeServer(tmp_path / "data", settable_clock())
    yield server
    server.close()


def ok(reply: RestReply, status: int = 200) -> RestReply:
    assert reply.status == status, (reply.status, reply.body[:1000])
    return reply


def upload(server: WholeServer, name: str, content: bytes, **words: str) -> RestReply:
    return server.operator("PUT", f"{REPO}/targets/{quote(name)}", body=content, query={**WORDS, **words})


def targets(server: WholeServer) -> dict[str, Any]:
    found: dict[str, Any] = ok(server.operator("GET", f"{REPO}/targets.json")).json["signed"]["targets"]
    return found


def checksum(server: WholeServer) -> str:
    return server.operator("GET", f"{REPO}/targets.json").headers["x-ats-role-checksum"]


class Tool:
    """A signing tool: it holds keys, and takes what is to be signed from the server."""

    def __init__(self, server: WholeServer) -> None:
        self.server = server
        self.root_key, self.targets_key = OfflineKey(), OfflineKey()

    def next_root(self) -> dict[Flavour, dict[str, Any]]:
        """The unsigned root that the server offers, with the tool's keys for root and targets."""
        described = {}
        for flavour in Flavour:
            signed = self.server.operator("GET", f"{REPO}/root", query={"flavour": flavour}).json
            for role, key in (("root", self.root_key), ("targets", self.targets_key)):
                for old in signed["roles"][role]["keyids"]:
                    signed["keys"].pop(old, None)
                signed["keys"][key.public_key.id] = key.public_key.to_json(flavour)
                signed["roles"][role] = {"keyids": [key.public_key.id], "threshold": 1}
            described[flavour] = signed
        return described

    def next_targets(self) -> dict[Flavour, dict[str, Any]]:
        return {
            flavour: self.server.operator("GET", f"{REPO}/unsigned/targets.json", query={"flavour": flavour}).json["signed"]
            for flavour in Flavour
        }

    def old_root_key(self) -> OfflineKey:
        """As move-offline takes it out."""
        root = self.server.operator("GET", f"{REPO}/root.json").json["signed"]
        (key_id,) = root["roles"]["root"]["keyids"]
        pair = ok(self.server.operator("GET", f"{REPO}/root/private_keys/{key_id}")).json
        private = bytes.fromhex(pair["keyval"]["private"])[:32]
        return OfflineKey(ed25519.Ed25519PrivateKey.from_private_bytes(private))

    def publication(self) -> dict[str, Any]:
        root = sign_described(self.next_root(), [self.root_key, self.old_root_key()])
        signed = sign_described(self.next_targets(), [self.targets_key])
        return {
            flavour.value: {"root": json.loads(root[flavour]), "targets": json.loads(signed[flavour])} for flavour in Flavour
        }

    def take_offline(self) -> RestReply:
        body = self.publication()
        headers = {"x-ats-role-checksum": checksum(self.server)}
        return ok(self.server.operator("PUT", f"{REPO}/publication", json_body=body, headers=headers))


# Documents -----------------------------------------------------------------------------------------------------------------


def test_every_answer_names_the_repository_and_each_document_its_checksum(server: WholeServer) -> None:
    ids = set()
    for role in ("root", "targets", "snapshot", "timestamp"):
        reply = ok(server.operator("GET", f"{REPO}/{role}.json"))
        ids.add(reply.headers["x-ats-tuf-repo-id"])
        if role != "root":
            assert reply.headers["x-ats-role-checksum"] == hashlib.sha256(reply.body).hexdigest()
    assert len(ids) == 1
    reply = server.operator("GET", f"{REPO}/snapshots.json")
    assert (reply.status, reply.code) == (404, "role_not_found")


def test_a_root_version_that_isnt_there_is_404_whatever_its_number(server: WholeServer) -> None:
    assert ok(server.operator("GET", f"{REPO}/1.root.json")).json["signed"]["version"] == 1
    for version in ("2", "0", "99999999999", "x"):
        reply = server.operator("GET", f"{REPO}/{version}.root.json")
        assert (reply.status, reply.code) == (404, "root_role_not_found")


def test_an_account_has_its_repositories_from_the_start(server: WholeServer) -> None:
    for path in (REPO, DIRECTOR):
        reply = server.operator("POST", path, json_body={"keyType": "ED25519"})
        assert (reply.status, reply.code) == (409, "conflicting_entity")


def test_keys_are_rotated_by_the_server(server: WholeServer) -> None:
    for path in (REPO, DIRECTOR):
        before = server.operator("GET", f"{path}/root.json").json["signed"]
        reply = ok(server.operator("PUT", f"{path}/root/rotate"))
        assert reply.json["versions"] == {"root": 2}
        after = server.operator("GET", f"{path}/root.json").json["signed"]
        for role in ("root", "targets"):
            assert before["roles"][role] != after["roles"][role]
    ok(server.operator("PUT", f"{REPO}/root/rotate", query={"roles": "root"}, json_body={"keyType": "RSA"}))
    root = read_root(read_document(server.operator("GET", f"{REPO}/root.json").body, Role.ROOT))
    (key_id,) = root.role_keys(Role.ROOT).key_ids
    assert root.keys[key_id].size_bits == 3072
    for query in ({"roles": "admin"}, {"roles": ""}):
        assert server.operator("PUT", f"{REPO}/root/rotate", query=query).status == 400
    reply = server.operator("PUT", f"{REPO}/root/rotate", json_body={"keyType": "ECDSA"})
    assert (reply.status, reply.code) == (400, "invalid_key_type")


def test_minimum_expiry_is_kept_by_everything_that_the_server_signs(server: WholeServer) -> None:
    ok(server.operator("PUT", f"{REPO}/targets/expire/not-before", json_body={"expireAt": "2027-09-01T12:00:00.123Z"}), 204)
    for role in ("root", "targets", "snapshot", "timestamp"):
        assert server.operator("GET", f"{REPO}/{role}.json").json["signed"]["expires"] >= "2027-09-01T12:00:00Z"
    for body in ({"expireAt": "2090-01-01T00:00:00Z"}, {"expireAt": "soon"}, {}):
        assert server.operator("PUT", f"{REPO}/targets/expire/not-before", json_body=body).status == 400


# Images ----------------------------------------------------------------------------------------------------------------------


def test_an_image_is_sent_listed_fetched_changed_and_taken_away(server: WholeServer) -> None:
    content = bytes(range(256)) * 5000
    reply = ok(upload(server, "gateway/app 1+2.bin", content), 204)
    assert reply.headers["x-ats-role-checksum"] == checksum(server)
    entry = targets(server)["gateway/app 1+2.bin"]
    assert entry["length"] == len(content)
    assert entry["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert entry["custom"]["hardwareIds"] == ["gw-imx8", "gw-imx9"]
    path = f"{REPO}/targets/gateway/app%201%2B2.bin"
    assert ok(server.operator("GET", path)).body == content
    assert ok(server.operator("GET", path, headers={"range": "bytes=10-19"}), 206).body == content[10:20]
    assert ok(server.operator("HEAD", path)).body == b""
    edited = ok(server.operator("PATCH", path, json_body={"hardwareIds": ["gw-imx9"], "proprietaryCustom": {"acme": {"a": 1}}}))
    assert edited.json["custom"]["acme"] == {"a": 1}
    ok(server.operator("PATCH", f"{REPO}/proprietary-custom/gateway/app%201%2B2.bin", json_body={"acme": {"b": 2}}), 204)
    assert targets(server)["gateway/app 1+2.bin"]["custom"]["acme"] == {"a": 1, "b": 2}
    ok(server.operator("DELETE", path), 204)
    assert targets(server) == {}
    assert server.operator("GET", path).code == "target_not_found"
    assert server.operator("HEAD", path).status == 404


def test_an_image_comes_as_the_file_of_a_form_too(server: WholeServer) -> None:
    content = b"\r\n--x\r\nnot a boundary\r\n--boundaries" + bytes(70_000)
    form = (
        b'--boundary\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--boundary--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=boundary"}
    reply = ok(server.operator("PUT", f"{REPO}/targets/a.bin", body=form, query=WORDS, headers=headers))
    assert reply.json["signed"]["targets"]["a.bin"]["hashes"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert server.operator("GET", f"{REPO}/targets/a.bin").body == content
    reply = server.operator("PUT", f"{REPO}/targets/b.bin", body=form[:200], query=WORDS, headers=headers)
    assert (reply.status, reply.code) == (400, "invalid_form")


def test_an_image_that_lies_elsewhere_is_described_and_found_there(server: WholeServer) -> None:
    digest = hashlib.sha256(b"elsewhere").hexdigest()
    body = {
        "uri": "https://images.example/a.bin",
        "checksum": {"method": "sha256", "hash": digest},
        "length": 9,
        "name": "gateway",
        "version": "2",
        "hardwareIds": ["gw-imx8"],
        "targetFormat": "BINARY",
    }
    reply = ok(server.operator("POST", f"{REPO}/targets/a.bin", json_body=body))
    assert reply.json["signed"]["targets"]["a.bin"]["custom"]["uri"] == "https://images.example/a.bin"
    reply = ok(server.operator("GET", f"{REPO}/targets/a.bin"), 302)
    assert reply.headers["location"] == "https://images.example/a.bin"
    for change in (
        {"uri": "ftp://x"},
        {"uri": "https://with space"},
        {"length": -1},
        {"length": True},
        {"checksum": {"method": "md5", "hash": digest}},
        {"checksum": {"method": "sha256", "hash": "no"}},
        {"hardwareIds": []},
        {"version": ""},
        {"targetFormat": "ZIP"},
    ):
        reply = server.operator("POST", f"{REPO}/targets/b.bin", json_body={**body, **change})
        assert reply.status == 400, change
        assert reply.json["description"]


def test_a_bad_upload_says_which_member_is_wrong_and_leaves_nothing(server: WholeServer) -> None:
    before = checksum(server)
    reply = upload(server, "a.bin", b"x", hardwareIds="", version="")
    assert (reply.status, reply.code) == (400, "invalid_target")
    assert {error["field"] for error in reply.json["errors"]} == {"hardwareIds", "version"}
    for name in ("a/../b", "/a", "a..b"):
        assert upload(server, name, b"x").code in ("invalid_path", "invalid_target_name")
    reply = upload(server, "a.bin", b"")
    assert (reply.status, reply.code) == (400, "empty_body")
    reply = server.operator("PUT", f"{REPO}/targets/a.bin", query={**WORDS, "fileUri": "http://10.0.0.1/"})
    assert (reply.status, reply.code) == (400, "file_uri_not_supported")
    ok(upload(server, "b.bin", b"one"), 204)
    reply = upload(server, "b.bin", b"two")
    assert (reply.status, reply.code) == (409, "conflicting_entity")
    ok(server.operator("DELETE", f"{REPO}/targets/b.bin"), 204)
    assert before != checksum(server)
    assert targets(server) == {}


def test_the_catalogue_comments_and_pages(server: WholeServer) -> None:
    for number in range(3):
        ok(upload(server, f"app-{number}.bin", b"%d" % number), 204)
    page = ok(server.operator("GET", f"{REPO}/target_items", query={"offset": "1", "limit": "1"})).json
    assert (page["total"], page["offset"], page["limit"]) == (3, 1, 1)
    assert [item["filename"] for item in page["values"]] == ["app-1.bin"]
    page = ok(server.operator("GET", f"{REPO}/target_items", query={"nameContains": "-2"})).json
    assert [item["filename"] for item in page["values"]] == ["app-2.bin"]
    assert ok(server.operator("GET", f"{REPO}/target_items/app-1.bin")).json["length"] == 1
    assert server.operator("GET", f"{REPO}/target_items", query={"status": "lost"}).status == 400
    assert server.operator("GET", f"{REPO}/target_items", query={"limit": "-1"}).status == 400
    for number in (0, 2):
        ok(server.operator("PUT", f"{REPO}/comments/app-{number}.bin", json_body={"comment": f"note {number}"}))
    assert ok(server.operator("GET", f"{REPO}/comments/app-2.bin")).json == {"comment": "note 2"}
    assert server.operator("GET", f"{REPO}/comments/app-1.bin").status == 404
    assert server.operator("PUT", f"{REPO}/comments/none.bin", json_body={"comment": "x"}).status == 404
    found = ok(server.operator("GET", f"{REPO}/comments", query={"nameContains": "-0"})).json["values"]
    assert found == [{"filename": "app-0.bin", "comment": "note 0"}]
    listed = ok(server.operator("POST", f"{REPO}/list-target-comments", json_body=["app-2.bin", "app-1.bin"])).json
    assert listed == [{"filename": "app-2.bin", "comment": "note 2"}]
    assert server.operator("POST", f"{REPO}/list-target-comments", json_body={"no": "list"}).status == 400


# Uploads ----------------------------------------------------------------------------------------------------------------------


def by_link(server: WholeServer, method: str, url: str, body: bytes = b"", **headers: str) -> RestReply:
    """One request to an address that the server gave, with no other proof."""
    parts = urlsplit(url)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.wait(server._ask(server.joined.rest_door, method, f"{parts.path}?{parts.query}", body, named, {}))


def send_in_parts(server: WholeServer, name: str, content: bytes, part_size: int) -> RestReply:
    """As OTA Connect's tool does, its part list the wrong way round included."""
    begun = ok(server.operator("POST", f"{REPO}/multipart/initiate/{name}", query={"fileSize": str(len(content))})).json
    etags = []
    for number, first in enumerate(range(0, len(content), part_size), start=1):
        piece = content[first : first + part_size]
        md5 = base64.b64encode(hashlib.md5(piece, usedforsecurity=False).digest()).decode()
        query = {"part": str(number), "uploadId": begun["uploadId"], "md5": md5, "contentLength": str(len(piece))}
        uri = ok(server.operator("GET", f"{REPO}/multipart/url/{name}", query=query)).json["uri"]
        put = ok(by_link(server, "PUT", uri, piece, content_md5=md5))
        etags.insert(0, {"part": number, "eTag": put.headers["etag"]})
    return server.operator(
        "PUT", f"{REPO}/multipart/complete/{name}", json_body={"uploadId": begun["uploadId"], "partETags": etags}
    )


def test_a_large_image_comes_in_parts_and_is_fetched_back_to_be_compared(server: WholeServer) -> None:
    content = bytes(range(251)) * 1000
    ok(send_in_parts(server, "big.bin", content, 100_000), 204)
    reply = ok(server.operator("GET", f"{REPO}/uploads/big.bin"), 302)
    assert by_link(server, "GET", reply.headers["location"]).body == content
    found = ok(server.operator("GET", f"{REPO}/target_items", query={"status": "uploaded"})).json["values"]
    assert found[0]["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    reply = server.operator("POST", f"{REPO}/multipart/initiate/big.bin", query={"fileSize": "5"})
    assert (reply.status, reply.code) == (409, "conflicting_entity")
    reply = send_in_parts(server, "small.bin", b"one part", 100)
    ok(reply, 204)


def test_a_link_is_good_for_one_method_at_one_path_for_an_hour(server: WholeServer) -> None:
    begun = ok(server.operator("POST", f"{REPO}/multipart/initiate/a.bin", query={"fileSize": "4"})).json
    query = {"part": "1", "uploadId": begun["uploadId"], "md5": "", "contentLength": "4"}
    uri = ok(server.operator("GET", f"{REPO}/multipart/url/a.bin", query=query)).json["uri"]
    for other in (uri.replace("/1/a.bin", "/2/a.bin"), uri.replace("ticket=", "ticket=A"), uri.partition("?")[0]):
        assert by_link(server, "PUT", other, b"data").status == 401
    assert by_link(server, "GET", uri).status in (401, 405)
    ok(by_link(server, "PUT", uri, b"data"))
    server.clock.advance(milliseconds=3600 * 1000)
    reply = by_link(server, "PUT", uri, b"data")
    assert (reply.status, reply.code) == (401, "invalid_ticket")


def test_parts_that_arent_the_whole_file_make_no_image(server: WholeServer) -> None:
    begun = ok(server.operator("POST", f"{REPO}/multipart/initiate/a.bin", query={"fileSize": "8"})).json
    upload_id = begun["uploadId"]
    part = f"{REPO}/multipart/parts/{upload_id}/1/a.bin"
    etag = ok(server.operator("PUT", part, body=b"1234")).headers["etag"]
    complete = f"{REPO}/multipart/complete/a.bin"
    for tags in ([{"part": 1, "eTag": etag}], [{"part": 1, "eTag": "0" * 32}], [{"part": 2, "eTag": etag}]):
        reply = server.operator("PUT", complete, json_body={"uploadId": upload_id, "partETags": tags})
        assert (reply.status, reply.code) == (400, "invalid_parts")
    for body in ({"uploadId": upload_id}, {"uploadId": upload_id, "partETags": [1]}, {"partETags": []}):
        assert server.operator("PUT", complete, json_body=body).status == 400
    reply = server.operator("PUT", part, body=b"1234", headers={"content-md5": base64.b64encode(bytes(16)).decode()})
    assert (reply.status, reply.code) == (400, "digest_mismatch")
    for path in (f"{REPO}/multipart/parts/{upload_id}/0/a.bin", f"{REPO}/multipart/parts/{upload_id}/x/a.bin"):
        assert server.operator("PUT", path, body=b"1").status == 400
    for path in (f"{REPO}/multipart/parts/nothing/1/a.bin", f"{REPO}/multipart/parts/{upload_id}/1/b.bin"):
        assert server.operator("PUT", path, body=b"1").code == "upload_not_found"
    assert server.operator("POST", f"{REPO}/multipart/initiate/b.bin", query={"fileSize": "0"}).status == 400
    assert server.operator("POST", f"{REPO}/multipart/initiate/b.bin").status == 400


def test_an_upload_that_is_sent_again_is_welcome_and_another_isnt(server: WholeServer) -> None:
    for _ in range(2):
        ok(server.operator("PUT", f"{REPO}/uploads/a.bin", body=b"content"), 204)
    reply = server.operator("PUT", f"{REPO}/uploads/a.bin", body=b"other")
    assert (reply.status, reply.code) == (409, "conflicting_entity")
    assert server.operator("PUT", f"{REPO}/uploads/b.bin", body=b"").status == 400
    ok(server.operator("DELETE", f"{REPO}/targets/a.bin"), 204)


# Offline ---------------------------------------------------------------------------------------------------------------------


def test_keys_go_offline_in_one_publication_and_the_next_image_waits_for_them(server: WholeServer) -> None:
    ok(upload(server, "gateway-1.bin", b"one"), 204)
    tool = Tool(server)
    dry = server.operator(
        "PUT",
        f"{REPO}/publication",
        json_body=tool.publication(),
        query={"dryRun": "true"},
        headers={"x-ats-role-checksum": checksum(server)},
    )
    assert ok(dry).json["versions"]["root"] == 2
    assert ok(server.operator("GET", f"{REPO}/root.json")).json["signed"]["version"] == 1
    told = tool.take_offline().json
    assert told["versions"]["root"] == 2
    assert told["checksum"] == checksum(server)
    assert [warning["code"] for warning in told["warnings"]] == ["single_root_key"]
    status = ok(server.operator("GET", f"{REPO}/status")).json
    assert (status["level"], status["waitingRoot"], status["pending"]) == ("production", None, [])

    reply = upload(server, "gateway-2.bin", b"two")
    assert (reply.status, reply.code) == (412, "role_keys_not_found")
    assert reply.json["required_key_ids"] == [tool.targets_key.public_key.id]
    assert reply.json["threshold"] == 1
    to_sign = base64.b64decode(reply.json["unsigned_metadata_base64"])
    assert set(json.loads(to_sign)["targets"]) == {"gateway-1.bin", "gateway-2.bin"}
    assert ok(server.operator("GET", f"{REPO}/status")).json["pending"] == ["gateway-2.bin"]

    signed = sign_described(tool.next_targets(), [tool.targets_key])
    body = {flavour.value: {"targets": json.loads(signed[flavour])} for flavour in Flavour}
    reply = server.operator("PUT", f"{REPO}/publication", json_body=body)
    assert (reply.status, reply.code) == (428, "role_checksum_not_provided")
    reply = server.operator("PUT", f"{REPO}/publication", json_body=body, headers={"x-ats-role-checksum": "00" * 32})
    assert (reply.status, reply.code) == (412, "role_checksum_mismatch")
    ok(server.operator("PUT", f"{REPO}/publication", json_body=body, headers={"x-ats-role-checksum": checksum(server)}))
    assert set(targets(server)) == {"gateway-1.bin", "gateway-2.bin"}
    for path in ("gateway-1.bin", "gateway-2.bin"):
        reply = server.operator("DELETE", f"{REPO}/targets/{path}")
        assert (reply.status, reply.code) == (412, "role_keys_not_found")
    reply = server.operator("PUT", f"{REPO}/root/rotate", query={"roles": "timestamp"})
    assert (reply.status, reply.code) == (412, "role_keys_not_found")
    assert reply.json["required_key_ids"] == [tool.root_key.public_key.id]


def test_keys_that_went_offline_are_in_no_file_of_the_server(server: WholeServer, tmp_path: Path) -> None:
    def secrets(purposes: set[str]) -> list[bytes]:
        def query(tx: Tx) -> list[bytes]:
            return [bytes(row.sealed) for row in sql(tx).execute(select(keys)) if row.purpose in purposes]

        return server.joined.work.read_blocking(query)

    def found(secret: bytes) -> bool:
        return any(secret in path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())

    going, staying = secrets({"image-root", "image-targets"}), secrets({"image-snapshot", "director-root"})
    assert [found(secret) for secret in going] == [True, True]
    Tool(server).take_offline()
    assert [found(secret) for secret in going] == [False, False]
    assert [found(secret) for secret in staying] == [True, True]


def test_a_key_that_is_handed_out_leaves_a_record_of_who_took_it(server: WholeServer) -> None:
    key = Tool(server).old_root_key()
    records = server.joined.work.read_blocking(
        lambda tx: SqlAuditStore().newest(tx, server.place.account, before=None, since=None, limit=10)
    )
    taken = [record for record in records if record.operation == "ExportImageRoleKey"]
    assert len(taken) == 1
    assert taken[0].resource.endswith("uptanerepository/image")
    text = ok(server.operator("GET", f"{REPO}/status")).body + server.operator("GET", f"{REPO}/root").body
    assert key.private.private_bytes_raw().hex().encode() not in text


def test_the_order_of_ota_connects_tools_works_too(server: WholeServer) -> None:
    """move-offline: the key is taken out and deleted, the root pushed, then targets pulled, signed and pushed."""
    ok(upload(server, "gateway-1.bin", b"one"), 204)
    tool = Tool(server)
    old = tool.old_root_key()
    ok(server.operator("DELETE", f"{REPO}/root/private_keys/{old.public_key.id}"), 204)
    reply = server.operator("GET", f"{REPO}/root/private_keys/{old.public_key.id}")
    assert (reply.status, reply.code) == (404, "key_not_found")
    root = sign_described(tool.next_root(), [tool.root_key, old])
    reply = ok(server.operator("POST", f"{REPO}/root", body=root[Flavour.UPTANE]))
    assert reply.json["waitingRoot"] == 2
    assert ok(server.operator("GET", f"{REPO}/root.json")).json["signed"]["version"] == 2  # operators see it at once
    pulled = ok(server.operator("GET", f"{REPO}/targets.json"))
    described = pulled.json["signed"]
    described["version"] += 1
    signed = sign_described({Flavour.UPTANE: described}, [tool.targets_key])
    headers = {"x-ats-role-checksum": pulled.headers["x-ats-role-checksum"]}
    reply = ok(server.operator("PUT", f"{REPO}/targets", body=signed[Flavour.UPTANE], headers=headers), 204)
    assert reply.headers["x-overair-warnings"] == "tuf_flavour_missing"
    assert reply.headers["x-ats-role-checksum"] == checksum(server)
    document = read_document(server.operator("GET", f"{REPO}/targets.json").body, Role.TARGETS)
    published = read_root(read_document(server.operator("GET", f"{REPO}/root.json").body, Role.ROOT))
    check_signatures(document, published.keys, published.role_keys(Role.TARGETS))
    assert set(read_targets(document).targets) == {"gateway-1.bin"}
    reply = server.operator("PUT", f"{REPO}/targets", body=signed[Flavour.UPTANE], headers=headers)
    assert (reply.status, reply.code) == (412, "role_checksum_mismatch")
    headers = {"x-ats-role-checksum": checksum(server)}
    reply = server.operator("PUT", f"{REPO}/targets", body=signed[Flavour.UPTANE], headers=headers)
    assert (reply.status, reply.code) == (409, "invalid_version_bump")
    reply = server.operator("PUT", f"{REPO}/targets", body=b"{}", headers=headers)
    assert (reply.status, reply.code) == (400, "invalid_offline_targets")
    assert reply.json["errors"]


def test_the_directors_root_goes_offline_alone(server: WholeServer) -> None:
    root = ok(server.operator("GET", f"{DIRECTOR}/root.json")).json["signed"]
    key = OfflineKey()
    described = {}
    for flavour in Flavour:
        signed = server.operator("GET", f"{DIRECTOR}/root", query={"flavour": flavour}).json
        signed["keys"].pop(root["roles"]["root"]["keyids"][0])
        signed["keys"][key.public_key.id] = key.public_key.to_json(flavour)
        signed["roles"]["root"] = {"keyids": [key.public_key.id], "threshold": 1}
        described[flavour] = signed
    documents = sign_described(described, [key])
    body = {flavour.value: {"root": json.loads(documents[flavour])} for flavour in Flavour}
    reply = server.operator("PUT", f"{DIRECTOR}/publication", json_body=body)
    assert (reply.status, reply.code) == (400, "invalid_root")
    assert [error["code"] for error in reply.json["errors"]] == ["current_root_threshold_unmet"]
    ok(server.operator("PUT", f"{DIRECTOR}/publication", json_body=body, query={"coSign": "true"}))
    assert ok(server.operator("GET", f"{DIRECTOR}/2.root.json")).json["signed"]["roles"]["root"]["keyids"] == [
        key.public_key.id
    ]
    targets_key = root["roles"]["targets"]["keyids"][0]
    reply = server.operator("GET", f"{DIRECTOR}/private_keys/{targets_key}")
    assert (reply.status, reply.code) == (409, "key_must_stay")
    for bad in ({}, {"uptane": 1}, {"uptane": {"root": 1}}, {"uptane": {"targets": {}}}, {"other": {}}):
        assert server.operator("PUT", f"{DIRECTOR}/publication", json_body=bad).status == 400


UNREADABLE: list[object] = [
    {},
    {"other": {}},
    {"uptane": 1},
    {"uptane": {"snapshot": {}}},
    {"uptane": {"root": 1}},
    {"uptane": {"root": {"signed": {"n": 1.5}}}},
    {"uptane": {"delegations": {"..": {}}}},
    {"uptane": {"delegations": 5}},
    {"uptane": {"targets": {}}, "tuf": {"targets": {}}},
]


def test_a_publication_that_cant_be_read_is_refused_with_the_member(server: WholeServer) -> None:
    headers = {"x-ats-role-checksum": checksum(server)}
    for body in UNREADABLE:
        reply = server.operator("PUT", f"{REPO}/publication", json_body=body, headers=headers)
        assert reply.status == 400, (body, reply.body)
        assert reply.json["description"]


# Delegations ------------------------------------------------------------------------------------------------------------------


def test_delegations_are_made_filled_named_and_taken_away(server: WholeServer) -> None:
    key = OfflineKey()
    public = key.public_key.to_json()
    ok(server.operator("PUT", f"{REPO}/trusted-delegations/keys", json_body=[public]), 204)
    assert read_public_key(ok(server.operator("GET", f"{REPO}/trusted-delegations/keys")).json[0]) == key.public_key
    made = [{"name": "vendor-b", "keyids": [key.public_key.id], "paths": ["vendor-b/*"], "threshold": 1}]
    ok(server.operator("PUT", f"{REPO}/trusted-delegations", json_body=made), 204)
    assert ok(server.operator("GET", f"{REPO}/trusted-delegations")).json == [{**made[0], "terminating": False}]
    info = f"{REPO}/trusted-delegations/vendor-b/info"
    ok(server.operator("PATCH", info, json_body={"friendlyName": "Vendor B"}))
    assert ok(server.operator("GET", info)).json["friendlyName"] == "Vendor B"
    assert set(ok(server.operator("GET", f"{REPO}/trusted-delegations/info")).json) == {"vendor-b"}
    reply = server.operator("PUT", f"{REPO}/trusted-delegations/vendor-b/remote", json_body={"uri": "http://10.0.0.1/"})
    assert (reply.status, reply.code) == (400, "not_supported")

    signed = {
        "_type": "Targets",
        "version": 1,
        "expires": "2026-12-01T00:00:00Z",
        "targets": {
            "vendor-b/dash.bin": {
                "length": 4,
                "hashes": {"sha256": hashlib.sha256(b"dash").hexdigest()},
                "custom": {
                    "name": "dash",
                    "version": "1",
                    "hardwareIds": ["dash"],
                    "createdAt": "2026-01-01T00:00:00Z",
                    "updatedAt": "2026-01-01T00:00:00Z",
                    "uri": "https://vendor.example/dash.bin",
                },
            }
        },
    }
    document = sign_described({Flavour.UPTANE: signed}, [key])[Flavour.UPTANE]
    path = f"{REPO}/delegations/vendor-b.json"
    assert ok(server.operator("PUT", path, body=document, query={"dryRun": "true"})).json["versions"]["vendor-b"] == 1
    assert server.operator("GET", path).status == 404
    ok(server.operator("PUT", path, body=document), 204)
    assert ok(server.operator("GET", path)).body == document
    items = ok(server.operator("GET", f"{REPO}/delegations_items")).json["values"]
    assert [(item["filename"], item["delegatedRoleName"]) for item in items] == [("vendor-b/dash.bin", "vendor-b")]
    assert len(ok(server.operator("GET", f"{REPO}/delegations_items/vendor-b/dash.bin")).json) == 1

    forged = sign_described({Flavour.UPTANE: {**signed, "version": 2}}, [OfflineKey()])[Flavour.UPTANE]
    reply = server.operator("PUT", path, body=forged)
    assert (reply.status, reply.code) == (400, "payload_signature_invalid")
    strayed = sign_described(
        {Flavour.UPTANE: {**signed, "version": 2, "targets": {"x": signed["targets"]["vendor-b/dash.bin"]}}}, [key]
    )  # type: ignore[index]
    reply = server.operator("PUT", path, body=strayed[Flavour.UPTANE])
    assert (reply.status, reply.code) == (400, "invalid_delegated_target")
    reply = server.operator("PUT", f"{REPO}/delegations/vendor-x.json", body=document)
    assert (reply.status, reply.code) == (400, "delegations_not_defined")
    assert server.operator("PUT", f"{REPO}/delegations/targets.json", body=document).status == 400
    ok(server.operator("DELETE", f"{REPO}/trusted-delegations/vendor-b"), 204)
    assert server.operator("DELETE", f"{REPO}/trusted-delegations/vendor-b").code == "delegation_not_found"
    assert server.operator("GET", info).code == "delegation_not_found"
    for bad in ({}, [1], [{"name": "root", "keyids": [], "threshold": 1, "paths": ["*"]}], [{**made[0], "threshold": 9}]):
        assert server.operator("PUT", f"{REPO}/trusted-delegations", json_body=bad).status == 400
    for bad in ({}, [1], [{"keytype": "ECDSA", "keyval": {"public": "x"}}]):
        assert server.operator("PUT", f"{REPO}/trusted-delegations/keys", json_body=bad).status == 400


def test_devices_that_havent_seen_the_newest_root_are_named(server: WholeServer) -> None:
    assert ok(server.operator("GET", f"{REPO}/root/devices")).json == {"devices": []}
    assert server.operator("GET", f"{REPO}/root/devices", query={"behind": "maybe"}).status == 400
