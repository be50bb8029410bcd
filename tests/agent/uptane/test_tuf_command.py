"""``overair-device tuf`` against repositories that python-tuf has made: the calls, exit codes and files that TUF's conformance
suite looks at."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from overair.cli.device_main import main
from tests.support.uptane_server import Issuer, UptaneServer

TOP = ("root", "timestamp", "snapshot", "targets")


class PythonTuf:
    """A repository over plain HTTP, made and signed by python-tuf."""

    def __init__(self, *, consistent: bool, kind: str = "ed25519") -> None:
        makers = {
            "ed25519": CryptoSigner.generate_ed25519,
            "ecdsa": CryptoSigner.generate_ecdsa,
            "rsa": CryptoSigner.generate_rsa,
        }
        self.new_signer = makers[kind]
        self.signers = {role: [self.new_signer()] for role in TOP}
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.root = Root(expires=self.expires, consistent_snapshot=consistent)
        for role in TOP:
            self.root.add_key(self.signers[role][0].public_key, role)
        self.targets = Targets(expires=self.expires)
        self.snapshot = Snapshot(expires=self.expires)
        self.timestamp = Timestamp(expires=self.expires)
        self.delegated: dict[str, Targets] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.put_root()
        self.publish()
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.asked.append(self.path)
                kind, _, name = self.path.strip("/").partition("/")
                found = world.files.get(unquote(name)) if kind == "metadata" else world.artifacts.get(unquote(name))
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put_root(self, *, also_by: tuple[CryptoSigner, ...] = ()) -> bytes:
        document = Metadata(copy.deepcopy(self.root))
        for signer in (*also_by, *self.signers["root"]):
            document.sign(signer, append=True)
        self.files[f"{self.root.version}.root.json"] = document.to_bytes()
        return document.to_bytes()

    def publish(self) -> None:
        """Everything below the root in its next version."""
        self.snapshot.meta = {}
        for name, targets in (*self.delegated.items(), ("targets", self.targets)):
            data = self._signed(name, targets)
            self.snapshot.meta[f"{name}.json"] = MetaFile(targets.version, len(data), {"sha256": _sha256(data)})
        data = self._signed("snapshot", self.snapshot)
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version, len(data), {"sha256": _sha256(data)})
        self._signed("timestamp", self.timestamp)
        for body in (*self.delegated.values(), self.targets, self.snapshot, self.timestamp):
            body.version += 1

    def _signed(self, name: str, body: Any) -> bytes:
        document = Metadata(body)
        for signer in self.signers[name]:
            document.sign(signer, append=True)
        data = document.to_bytes()
        versioned = self.root.consistent_snapshot and name != "timestamp"
        self.files[f"{body.version}.{name}.json" if versioned else f"{name}.json"] = data
        return data

    def add(self, name: str, content: bytes, *, by: str = "targets", algorithms: list[str] | None = None) -> None:
        target = TargetFile.from_data(name, content, algorithms or ["sha256"])
        (self.targets if by == "targets" else self.delegated[by]).targets[name] = target
        folder, _, last = name.rpartition("/")
        for digest in target.hashes.values():
            served = f"{digest}.{last}" if self.root.consistent_snapshot else last
            self.artifacts[f"{folder}/{served}" if folder else served] = content

    def delegate(self, name: str, *, by: str = "targets", **members: Any) -> None:
        parent = self.targets if by == "targets" else self.delegated[by]
        signer = self.signers.setdefault(name, [self.new_signer()])[0]
        role = DelegatedRole(name, [], 1, members.pop("terminating", False), **members)
        if parent.delegations is None:
            parent.delegations = Delegations({}, roles={})
        assert parent.delegations.roles is not None
        parent.delegations.roles[name] = role
        parent.add_key(signer.public_key, name)
        self.delegated.setdefault(name, Targets(expires=self.expires))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Client:
    """The command, with its folders."""

    def __init__(self, root: Path, repository: PythonTuf) -> None:
        self.metadata, self.targets = root / "metadata", root / "targets"
        self.repository = repository
        root.mkdir(exist_ok=True)
        (root / "initial.json").write_bytes(repository.files["1.root.json"])
        assert self.init(root / "initial.json") == 0
        assert repository.asked == []

    def init(self, root: Path) -> int:
        return main(["tuf", "--metadata-dir", str(self.metadata), "init", str(root)])

    def refresh(self) -> int:
        url = f"{self.repository.url}/metadata"
        return main(["tuf", "--metadata-url", url, "--metadata-dir", str(self.metadata), "refresh"])

    def download(self, *names: str) -> int:
        flags = [flag for name in names for flag in ("--target-name", name)]
        return main(
            [
                "tuf",
                *("--metadata-url", f"{self.repository.url}/metadata/", "--metadata-dir", str(self.metadata)),
                *("--target-dir", str(self.targets), "--target-base-url", f"{self.repository.url}/targets"),
                *flags,
                "download",
            ]
        )

    @property
    def versions(self) -> dict[str, int]:
        return {path.stem: json.loads(path.read_bytes())["signed"]["version"] for path in self.metadata.glob("*.json")}

    def file(self, name: str) -> bytes | None:
        path = self.targets / quote(name, safe="")
        return path.read_bytes() if path.exists() else None


@pytest.fixture(params=[False, True], ids=["plain", "consistent"])
def repository(request: pytest.FixtureRequest) -> Iterator[PythonTuf]:
    repository = PythonTuf(consistent=request.param)
    yield repository
    repository.close()


@pytest.fixture
def client(tmp_path: Path, repository: PythonTuf) -> Client:
    return Client(tmp_path / "client", repository)


def test_a_refresh_asks_in_the_order_of_the_specification_and_keeps_the_bytes(client: Client, repository: PythonTuf) -> None:
    assert client.refresh() == 0
    versioned = "1." if repository.root.consistent_snapshot else ""
    names = ["2.root.json", "timestamp.json", f"{versioned}snapshot.json", f"{versioned}targets.json"]
    assert repository.asked == [f"/metadata/{name}" for name in names]
    assert client.versions == dict.fromkeys(TOP, 1)
    assert (client.metadata / "timestamp.json").read_bytes() == repository.files["timestamp.json"]
    repository.asked.clear()
    assert client.refresh() == 0
    assert repository.asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_that_python_tuf_signs_with_is_verified(tmp_path: Path, kind: str) -> None:
    repository = PythonTuf(consistent=True, kind=kind)
    assert Client(tmp_path / "client", repository).refresh() == 0
    repository.close()


def test_targets_are_fetched_once_and_verified(client: Client, repository: PythonTuf) -> None:
    repository.add("dir/fïle 1.txt", b"content", algorithms=["sha256", "sha512"])
    repository.add("empty", b"")
    repository.publish()
    assert client.download("dir/fïle 1.txt", "empty") == 0
    assert (client.file("dir/fïle 1.txt"), client.file("empty")) == (b"content", b"")
    asked = len([path for path in repository.asked if path.startswith("/targets")])
    assert client.download("dir/fïle 1.txt") == 0
    assert len([path for path in repository.asked if path.startswith("/targets")]) == asked
    assert client.download("nowhere") == 1
    repository.add("dir/fïle 1.txt", b"changed")
    repository.publish()
    assert client.download("dir/fïle 1.txt") == 0
    assert client.file("dir/fïle 1.txt") == b"changed"


@pytest.mark.parametrize("spoilt", [b"contenT", b"content!", b"conten", b"content" * 1000])
def test_other_bytes_than_were_signed_leave_nothing_behind(client: Client, repository: PythonTuf, spoilt: bytes) -> None:
    repository.add("file", b"content")
    repository.artifacts = dict.fromkeys(repository.artifacts, spoilt)
    repository.publish()
    assert client.download("file") == 1
    assert list(client.targets.rglob("*")) == []


def test_an_unknown_kind_of_hash_proves_nothing(client: Client, repository: PythonTuf) -> None:
    repository.add("file", b"content")
    repository.targets.targets["file"].hashes = {"sha999": "ab" * 32}
    repository.publish()
    assert client.download("file") == 1


def test_delegations_are_followed_in_their_order(client: Client, repository: PythonTuf) -> None:
    repository.delegate("first/role", paths=["a/*"], terminating=True)
    repository.delegate("second", paths=["*/*"])
    repository.delegate("inner", by="second", paths=["b/*"])
    repository.add("a/1", b"first", by="first/role")
    repository.add("a/1", b"never", by="second")
    repository.add("a/2", b"beyond", by="second")
    repository.add("b/1", b"inner", by="inner")
    repository.add("a/1", b"first", by="first/role")
    repository.publish()
    assert client.download("a/1", "b/1") == 0
    assert (client.file("a/1"), client.file("b/1")) == (b"first", b"inner")
    assert client.download("a/2") == 1, "the terminating role doesn't have it"
    assert {"first%2Frole", "second", "inner"} <= client.versions.keys()


def test_delegations_by_the_hash_of_the_name_are_followed(client: Client, repository: PythonTuf) -> None:
    prefix = _sha256(b"file")[:2]
    repository.delegate("bin", path_hash_prefixes=[prefix])
    repository.add("file", b"content", by="bin")
    repository.publish()
    assert client.download("file") == 0


def test_succinct_roles_are_not_known_and_nothing_of_theirs_is_believed(
    client: Client, repository: PythonTuf, capsys: pytest.CaptureFixture[str]
) -> None:
    signer = repository.new_signer()
    repository.targets.delegations = Delegations(
        {signer.public_key.keyid: signer.public_key}, succinct_roles=SuccinctRoles([signer.public_key.keyid], 1, 4, "bin")
    )
    repository.publish()
    assert client.download("file") == 1
    assert "TargetMismatch" in capsys.readouterr().err


def test_chains_of_roots_with_new_keys_are_followed(client: Client, repository: PythonTuf) -> None:
    assert client.refresh() == 0
    for role in TOP:
        old = list(repository.signers["root"])
        repository.root.revoke_key(repository.signers[role][0].public_key.keyid, role)
        repository.signers[role] = [repository.new_signer()]
        repository.root.add_key(repository.signers[role][0].public_key, role)
        repository.root.version += 1
        repository.put_root(also_by=tuple(signer for signer in old if signer not in repository.signers["root"]))
    repository.publish()
    assert client.refresh() == 0
    assert client.versions["root"] == 5
    assert client.versions["targets"] == 2


def test_a_root_that_the_old_keys_didnt_sign_is_refused(client: Client, repository: PythonTuf) -> None:
    repository.root.revoke_key(repository.signers["root"][0].public_key.keyid, "root")
    repository.signers["root"] = [repository.new_signer()]
    repository.root.add_key(repository.signers["root"][0].public_key, "root")
    repository.root.version += 1
    repository.put_root()
    assert client.refresh() == 1
    assert client.versions == {"root": 1}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_rollbacks_are_refused_and_what_was_trusted_stays(client: Client, repository: PythonTuf, role: str) -> None:
    before = {name: getattr(repository, name).version for name in ("timestamp", "snapshot", "targets")}
    repository.publish()
    assert client.refresh() == 0
    trusted = dict(client.versions)
    getattr(repository, role).version = before[role] - 1 or 1
    repository.publish()
    assert client.refresh() == 1
    assert client.versions[role] == trusted[role]


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_what_has_expired_is_refused(client: Client, repository: PythonTuf, role: str) -> None:
    getattr(repository, role).expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    if role == "root":
        repository.root.version += 1
        repository.put_root()
    repository.publish()
    assert client.refresh() == 1
    assert ("targets" in client.versions) is False


def test_a_root_that_vouches_for_nothing_is_no_beginning(client: Client, repository: PythonTuf, tmp_path: Path) -> None:
    members = json.loads(repository.files["1.root.json"])
    members["signatures"][0]["sig"] = "00" * 64
    (tmp_path / "bad.json").write_text(json.dumps(members))
    other = tmp_path / "other"
    assert main(["tuf", "--metadata-dir", str(other), "init", str(tmp_path / "bad.json")]) == 1
    assert main(["tuf", "--metadata-dir", str(other), "init", str(tmp_path / "nowhere.json")]) == 1
    assert main(["tuf", "--metadata-dir", str(other), "--metadata-url", repository.url, "refresh"]) == 1
    assert repository.asked == []


def test_json_tells_versions_and_files(client: Client, repository: PythonTuf, capsys: pytest.CaptureFixture[str]) -> None:
    repository.add("file", b"content")
    repository.publish()
    base = ["tuf", "--metadata-dir", str(client.metadata), "--metadata-url", f"{repository.url}/metadata", "--json"]
    targets = ["--target-dir", str(client.targets), "--target-base-url", f"{repository.url}/targets"]
    assert main([*base, *targets, "--target-name", "file", "download"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == {"file": str(client.targets / "file")}
    assert told["metadata"]["root"] == 1
    assert main([*base, *targets, "--target-name", "nowhere", "download"]) == 1
    assert "TargetMismatch" in json.loads(capsys.readouterr().out)["error"]
    assert main([*base, "download"]) == 1


def test_the_gateways_own_tuf_view_is_read_under_mutual_tls(tmp_path: Path) -> None:
    """Any https server, under the authority that is given and no other."""
    issuer = Issuer()
    server = UptaneServer(tmp_path / "server", issuer=issuer)
    repository = PythonTuf(consistent=False)
    for name, data in repository.files.items():
        server.instead[f"/tuf/{name}"] = lambda handler, call, data=data: handler.send(200, data)  # type: ignore[misc]
    client = Client(tmp_path / "client", repository)
    certificate, key = issuer.issue_pem("dev-1")
    for name, data in (("c.pem", certificate), ("k.pem", key), ("ca.pem", issuer.pem), ("other.pem", Issuer().pem)):
        (tmp_path / name).write_bytes(data)
    base = ["tuf", "--metadata-dir", str(client.metadata), "--metadata-url", f"{server.url}/tuf"]
    identity = ["--certificate", str(tmp_path / "c.pem"), "--private-key", str(tmp_path / "k.pem")]
    assert main([*base, "--ca", str(tmp_path / "ca.pem"), *identity, "refresh"]) == 0
    assert {call.peer for call in server.calls} == {"dev-1"}
    for ca in (["--ca", str(tmp_path / "other.pem")], []):
        assert main([*base, *ca, *identity, "refresh"]) == 1
    repository.close()
    server.close()
