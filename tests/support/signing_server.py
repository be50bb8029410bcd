"""The server that signing tools speak to, small and in memory, over real HTTPS: what `overair sign` is tested against before
and beside the real one.

It keeps the contract's rules (versions rise by one, both flavours agree, thresholds, the checksum, all or nothing) with code
of its own, so that a mistake in the tool isn't repeated here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from overair.basics.clock import Instant, WallClock
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root, Snapshot, TargetFile, Targets, Timestamp
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_root, read_targets
from overair.wire.uptane.metadata_writing import (
    MetadataSigner,
    assemble,
    bytes_to_sign,
    meta_of,
    payload,
    sign_payload,
    signature_by,
)
from overair.wire.uptane.refusals import MetadataRefused
from tests.support.uptane_repository import DAY, KeyHolder

KEPT_UNTIL = "2100-01-01T00:00:00Z"
CLIENT_ID, CLIENT_SECRET, TOKEN = "AKIASIGNER", "a secret of the tool's", "a-token-for-tests"


class Refusal(Exception):
    def __init__(self, status: int, code: str, description: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.description = status, code, description


class Side:
    """One repository on the server."""

    def __init__(self, kind: Repository) -> None:
        self.kind = kind
        self.clock: Callable[[], Instant] = WallClock().now
        self.private: dict[str, tuple[Role, KeyHolder]] = {}
        self.kept: set[str] = set()
        """Of these, the ones that no root names any more and that wait to be deleted."""
        self.files: dict[Flavour, dict[str, bytes]] = {flavour: {} for flavour in Flavour}
        self.delegated: dict[str, Targets] = {}
        self.uploads: dict[str, bytes] = {}
        self.in_use: set[str] = set()
        self.pending: dict[str, TargetFile] = {}
        """Described to the server, and to be signed by people."""
        keys = {role: self.make_key(role) for role in Role}
        self.root = Root(
            version=1,
            expires=self.in_days(365),
            keys={key.id: key for key in keys.values()},
            roles={role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in keys.items()},
        )
        for flavour in Flavour:
            self.serve_root(sign_payload(payload(self.root, flavour), self.held(Role.ROOT), flavour), flavour)
        self.targets = Targets(version=0, expires=Instant(0), targets={})
        self.snapshot_version = self.timestamp_version = 0
        if kind is Repository.IMAGE:
            self.publish_own(Targets(version=1, expires=self.in_days(31), targets={}))

    def state(self) -> dict[str, Any]:
        """Everything that changes, to come back to (``back_to``)."""
        return {
            "private": dict(self.private),
            "kept": set(self.kept),
            "files": {flavour: dict(files) for flavour, files in self.files.items()},
            "delegated": dict(self.delegated),
            "uploads": dict(self.uploads),
            "in_use": set(self.in_use),
            "pending": dict(self.pending),
            "root": self.root,
            "targets": self.targets,
            "snapshot_version": self.snapshot_version,
            "timestamp_version": self.timestamp_version,
        }

    def back_to(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            fresh = {flavour: dict(files) for flavour, files in value.items()} if name == "files" else value
            setattr(self, name, fresh.copy() if isinstance(fresh, dict | set) else fresh)

    def in_days(self, days: float) -> Instant:
        return Instant((self.clock() + round(days * DAY)) // 1000 * 1000)

    def make_key(self, role: Role) -> PublicKey:
        holder = KeyHolder()
        self.private[holder.public_key.id] = (role, holder)
        return holder.public_key

    def held(self, role: Role) -> list[MetadataSigner]:
        return [self.private[key_id][1] for key_id in self.root.role_keys(role).key_ids if key_id in self.private]

    def serve_root(self, data: bytes, flavour: Flavour) -> None:
        version = read_document(data, Role.ROOT, flavour=flavour).version
        self.files[flavour][f"{version}.root.json"] = self.files[flavour]["root.json"] = data

    def publish_own(self, targets: Targets) -> None:
        """What the server itself does at the default level."""
        self.targets = targets
        for flavour in Flavour:
            self.files[flavour]["targets.json"] = sign_payload(payload(targets, flavour), self.held(Role.TARGETS), flavour)
        self.sign_above()

    def sign_above(self) -> None:
        self.snapshot_version += 1
        self.timestamp_version += 1
        for flavour in Flavour:
            files = self.files[flavour]
            meta = {"targets.json": meta_of(files["targets.json"], self.targets.version)}
            for name, body in self.delegated.items():
                meta[f"{name}.json"] = meta_of(files[f"delegations/{name}.json"], body.version)
            snapshot = Snapshot(version=self.snapshot_version, expires=self.in_days(31), meta=meta)
            files["snapshot.json"] = sign_payload(payload(snapshot, flavour), self.held(Role.SNAPSHOT), flavour)
            timestamp = Timestamp(
                version=self.timestamp_version,
                expires=self.in_days(1),
                snapshot=meta_of(files["snapshot.json"], self.snapshot_version),
            )
            files["timestamp.json"] = sign_payload(payload(timestamp, flavour), self.held(Role.TIMESTAMP), flavour)

    @property
    def checksum(self) -> str | None:
        found = self.files[Flavour.UPTANE].get("targets.json")
        return None if found is None else hashlib.sha256(found).hexdigest()

    def publish(
        self, body: dict[str, Any], *, checksum: str | None, dry_run: bool, force: bool, cosign: bool, keep_keys: bool
    ) -> dict[str, Any]:
        has_targets = any("targets" in part for part in body.values())
        if has_targets and checksum is None:
            raise Refusal(428, "role_checksum_not_provided")
        if has_targets and checksum != self.checksum:
            raise Refusal(412, "role_checksum_mismatch")
        if set(body) != {flavour.value for flavour in Flavour}:
            raise Refusal(400, "flavours_differ", "One flavour is missing.")
        raw = {flavour: _canonical(body[flavour.value]) for flavour in Flavour}
        try:
            root, roots = self._root(raw, cosign)
            targets = self._targets(raw, root, force)
            delegated = self._delegations(raw, targets or self.targets)
        except MetadataRefused as error:
            raise Refusal(400, "invalid_offline_targets", error.message) from None
        if dry_run:
            return {"versions": {}, "checksum": self.checksum, "warnings": ["a dry run"]}
        self.root = root
        for flavour, data in roots.items():
            self.serve_root(data, flavour)
        for flavour in Flavour:
            if "targets" in raw[flavour]:
                self.files[flavour]["targets.json"] = raw[flavour]["targets"]
            for name in delegated:
                self.files[flavour][f"delegations/{name}.json"] = raw[flavour]["delegations"][name]
        if roots:
            listed = {key_id for keys in root.roles.values() for key_id in keys.key_ids}
            self.kept = {key_id for key_id in self.private if key_id not in listed}
            if not keep_keys:
                self.private = {key_id: held for key_id, held in self.private.items() if key_id in listed}
                self.kept = set()
        self.targets = targets or self.targets
        self.delegated |= delegated
        if self.kind is Repository.IMAGE:
            if targets is None and roots and self.held(Role.TARGETS):
                self.publish_own(Targets(**{**_members(self.targets), "version": self.targets.version + 1}))
            else:
                self.sign_above()
        return {"versions": {}, "checksum": self.checksum, "warnings": []}

    def _root(self, raw: dict[Flavour, Any], cosign: bool) -> tuple[Root, dict[Flavour, bytes]]:
        roots: dict[Flavour, bytes] = {}
        found = self.root
        for flavour in Flavour:
            if "root" not in raw[flavour]:
                continue
            document = read_document(raw[flavour]["root"], Role.ROOT, flavour=flavour)
            new = read_root(document)
            if new.version != self.root.version + 1:
                raise Refusal(409, "invalid_version_bump")
            added = [
                signature_by(holder, bytes_to_sign(document.signed, flavour), flavour)
                for key_id in dict.fromkeys((*self.root.role_keys(Role.ROOT).key_ids, *new.role_keys(Role.ROOT).key_ids))
                if cosign and key_id in self.private and key_id not in {each.key_id for each in document.signatures}
                for holder in [self.private[key_id][1]]
            ]
            data = assemble(document.signed, [*document.signatures, *added], flavour)
            document = read_document(data, Role.ROOT, flavour=flavour)
            check_signatures(document, self.root.keys, self.root.role_keys(Role.ROOT))
            check_signatures(document, new.keys, new.role_keys(Role.ROOT))
            roots[flavour], found = data, new
        if len(roots) == 1:
            raise Refusal(400, "flavours_differ")
        return found, roots

    def _targets(self, raw: dict[Flavour, Any], root: Root, force: bool) -> Targets | None:
        found = None
        for flavour in Flavour:
            if "targets" not in raw[flavour]:
                continue
            document = read_document(raw[flavour]["targets"], Role.TARGETS, flavour=flavour)
            check_signatures(document, root.keys, root.role_keys(Role.TARGETS))
            body = read_targets(document)
            if body.version != self.targets.version + 1:
                raise Refusal(409, "invalid_version_bump")
            if found is not None and payload(found) != payload(body):
                raise Refusal(400, "flavours_differ")
            found = body
        gone = set(self.targets.targets) - set(found.targets) if found is not None else set()
        if gone & self.in_use and not force:
            raise Refusal(400, "target_in_use", f"{sorted(gone & self.in_use)} is installed on a device.")
        return found

    def _delegations(self, raw: dict[Flavour, Any], targets: Targets) -> dict[str, Targets]:
        found: dict[str, Targets] = {}
        for flavour in Flavour:
            for name, data in raw[flavour].get("delegations", {}).items():
                delegation = next((each for each in targets.delegations if each.name == name), None)
                if delegation is None:
                    raise Refusal(400, "delegations_not_defined")
                document = read_document(data, Role.TARGETS, flavour=flavour)
                check_signatures(document, targets.delegation_keys, delegation.keys)
                found[name] = read_targets(document)
        return found

    def rotated(self, roles: list[str]) -> dict[str, Any]:
        """New keys of the server's own, and the root that would name them."""
        made = {role: self.make_key(Role(role)) for role in roles}
        named = {**self.root.roles, **{role: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in made.items()}}
        known = {**self.root.keys, **{key.id: key for key in made.values()}}
        listed = {key_id for keys in named.values() for key_id in keys.key_ids}
        keys = {key_id: key for key_id, key in known.items() if key_id in listed}
        root = replace(self.root, version=self.root.version + 1, keys=keys, roles=named)
        text = base64.b64encode(bytes_to_sign(payload(root))).decode()
        return {"code": "role_keys_not_found", "unsigned_metadata_base64": text}

    def export(self, key_id: str) -> dict[str, Any]:
        if key_id not in self.private:
            raise Refusal(404, "role_key_not_found")
        key = self.private[key_id][1].key
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        public = key.public_key().public_bytes_raw().hex()
        return {"keytype": "ED25519", "keyval": {"public": public, "private": key.private_bytes_raw().hex() + public}}


class SigningServer:
    """Both repositories behind HTTPS on a port of its own; ``credentials`` writes a bundle for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sides = {repository: Side(repository) for repository in Repository}
        self.requests: list[str] = []
        self.before_publish: Callable[[], None] | None = None
        """Called once, just before the next publication is looked at: somebody else's push."""
        self.gate = threading.Lock()
        self._certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def image(self) -> Side:
        return self.sides[Repository.IMAGE]

    @property
    def director(self) -> Side:
        return self.sides[Repository.DIRECTOR]

    def state(self) -> dict[Repository, dict[str, Any]]:
        return {repository: side.state() for repository, side in self.sides.items()}

    def back_to(self, state: dict[Repository, dict[str, Any]]) -> None:
        """As it was then, with nothing asked of it yet."""
        for repository, side in self.sides.items():
            side.back_to(state[repository])
        self.requests.clear()
        self.before_publish = None

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def credentials(self, path: Path, **more: bytes) -> Path:
        import zipfile

        treehub = {"oauth2": {"server": f"{self.url}/oauth2", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tufrepo.url", self.url + "\n")
            archive.writestr("treehub.json", json.dumps(treehub))
            archive.writestr("server_ca.pem", (self.folder / "ca.pem").read_bytes())
            for name, data in more.items():
                archive.writestr(name.replace("__", "."), data)
        return path

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(target)
        if parts.path == "/oauth2/token":
            expected = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            if headers.get("authorization") != expected:
                return 401, {}, b'{"code":"invalid_credentials"}'
            return 200, {}, json.dumps({"access_token": TOKEN, "token_type": "bearer", "expires_in": 600}).encode()
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {}, b'{"code":"invalid_token","description":"No such token."}'
        self.requests.append(f"{method} {parts.path}" + (f"?{parts.query}" if parts.query else ""))
        for repository, base in (
            (Repository.IMAGE, "/api/v1/user_repo/"),
            (Repository.DIRECTOR, "/api/v1/director/admin/repo/"),
        ):
            if parts.path.startswith(base):
                path = unquote(parts.path.removeprefix(base))
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                try:
                    with self.gate:
                        return self._repository(self.sides[repository], method, path, query, headers, body)
                except Refusal as refusal:
                    told = {"code": refusal.code, "description": refusal.description}
                    return refusal.status, {}, json.dumps(told).encode()
        return 404, {}, b'{"code":"unknown_path"}'

    def _repository(
        self, side: Side, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        keys = "root/private_keys" if side.kind is Repository.IMAGE else "private_keys"
        if path == "publication" and method == "PUT":
            if query.get("dryRun") != "true" and self.before_publish is not None:
                other, self.before_publish = self.before_publish, None
                other()
            told = side.publish(
                json.loads(body),
                checksum=headers.get("x-ats-role-checksum"),
                dry_run=query.get("dryRun") == "true",
                force=query.get("force") == "true",
                cosign=query.get("coSign") == "true",
                keep_keys=query.get("keepKeys") == "true",
            )
            return 200, {}, json.dumps(told).encode()
        if path == keys and method == "GET":
            rows = [
                {"keyid": key_id, "role": role.value} | ({"keptUntil": KEPT_UNTIL} if key_id in side.kept else {})
                for key_id, (role, _) in side.private.items()
            ]
            return 200, {}, json.dumps({"values": rows}).encode()
        if path == "root/rotate" and method == "PUT":
            return 412, {}, json.dumps(side.rotated(query["roles"].split(","))).encode()
        if path.startswith(f"{keys}/"):
            key_id = path.rpartition("/")[2]
            exported = side.export(key_id)
            if method == "DELETE":
                del side.private[key_id]
                side.kept.discard(key_id)
                return 204, {}, b""
            return 200, {}, json.dumps(exported).encode()
        if path == "unsigned/targets.json" and method == "GET":
            following = replace(
                side.targets, version=side.targets.version + 1, targets={**side.targets.targets, **side.pending}
            )
            return 200, {}, assemble(payload(following), [])
        if path.startswith("target_items/") and method == "GET":
            found = side.uploads.get(path.removeprefix("target_items/"))
            if found is None:
                raise Refusal(404, "missing_entity")
            return 200, {}, json.dumps({"hashes": {"sha256": hashlib.sha256(found).hexdigest()}, "status": "uploaded"}).encode()
        if path.startswith("uploads/"):
            return self._upload(side, method, path.removeprefix("uploads/"), body)
        document = side.files[Flavour(query.get("flavour", Flavour.UPTANE))].get(path)
        if method != "GET" or document is None:
            raise Refusal(404, "missing_entity")
        extra = {"x-ats-role-checksum": hashlib.sha256(document).hexdigest()} if path == "targets.json" else {}
        return 200, extra, document

    @staticmethod
    def _upload(side: Side, method: str, name: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method != "PUT":
            raise Refusal(404, "missing_entity")
        if side.uploads.get(name, body) != body:
            raise Refusal(409, "conflicting_entity", f"{name} is there already.")
        side.uploads[name] = body
        return 204, {}, b""

    def _certificate(self) -> None:
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)

        def builder(subject: str, issuer: str, public: Any) -> x509.CertificateBuilder:
            name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])  # noqa: E731
            return (
                x509.CertificateBuilder()
                .subject_name(name(subject))
                .issuer_name(name(issuer))
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=2))
            )

        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        authority = (
            builder("A CA for tests", "A CA for tests", ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        import ipaddress

        server = (
            builder("127.0.0.1", "A CA for tests", key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        (self.folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        (self.folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
        (self.folder / "server.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


def _handler(server: SigningServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one piece

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, data = server.answer(self.command, self.path, headers, body)
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    return Handler


def _canonical(part: dict[str, Any]) -> dict[str, Any]:
    spelt = {name: _spelt(document) for name, document in part.items() if name != "delegations"}
    if "delegations" in part:
        spelt["delegations"] = {name: _spelt(document) for name, document in part["delegations"].items()}
    return spelt


def _spelt(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _members(targets: Targets) -> dict[str, Any]:
    return {name: getattr(targets, name) for name in targets.__dataclass_fields__}
