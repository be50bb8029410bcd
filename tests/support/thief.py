"""Somebody who has a copy of a server's state directory: its online keys, the key of its TLS certificate, all that it served.

He can stand where the server stood. What he can't do is what the attack stories are about.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.basics.clock import Instant, WallClock, from_datetime
from overair.basics.ids import AccountId, RandomIds
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore
from overair.server.storage.work import open_sqlite
from overair.wire.uptane.keys import PublicKey, public_key_of
from overair.wire.uptane.metadata import Body, Repository, Role, RoleKeys, Root, Snapshot, TargetFile, Timestamp
from overair.wire.uptane.metadata_reading import read_document, read_root, read_snapshot, read_targets, read_timestamp
from overair.wire.uptane.metadata_writing import MetadataSigner, meta_of, payload, sign_payload
from tests.support.aktualizr.curl import Curl, TlsCredentials
from tests.support.scripted_https import Answer, Received, ScriptedHttps
from tests.support.server_process import ServerProcess

EVIL = b"what the thief would have installed " * 64
EVIL_NAME = "evil-1.0"


class OwnKey:
    """A key that the thief made himself."""

    def __init__(self) -> None:
        self._private = ed25519.Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> PublicKey:
        return public_key_of(self._private.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)


class Loot:
    """What a copy of the state directory yields."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        folder.mkdir(parents=True)
        records = next(path for path in server.data.iterdir() if path.suffix == ".sqlite3")
        with sqlite3.connect(records) as standing, sqlite3.connect(folder / records.name) as copy:
            standing.backup(copy)
        wrapping_key = next(server.data.rglob("wrapping*"))
        shutil.copyfile(wrapping_key, folder / wrapping_key.name)
        clock, ids, account = WallClock(), RandomIds(), AccountId(server.endpoints["account"])
        work = open_sqlite(folder / records.name, clock=clock)
        try:
            keyring = Keyring(
                SqlKeyStore(), open_secret_box(folder / wrapping_key.name, passphrase=None, ids=ids), clock=clock, ids=ids
            )
            roots = RootsService(store=SqlRootStore(), keys=keyring, clock=clock, ids=ids)
            authorities = AuthoritiesService(store=SqlCertificateStore(), keys=keyring, clock=clock, ids=ids)
            self.keys: dict[tuple[Repository, Role], MetadataSigner] = {}
            for repository in Repository:
                for role in Role:
                    if work.read_blocking(lambda tx, at=repository, of=role: roots.is_online(tx, account, at, of)):
                        (self.keys[repository, role],) = work.read_blocking(
                            lambda tx, at=repository, of=role: roots.signers(tx, account, at, of)
                        )
            identity = work.run_blocking(lambda tx: authorities.server_identity(tx, account, ["localhost", "127.0.0.1"]))
            self.tls = (identity.certificate_pem.encode(), identity.key_pem.reveal())
        finally:
            work.close()


class Thief:
    """Listens with the stolen TLS key and answers what the server last said, but for what he has forged."""

    def __init__(self, server: ServerProcess, loot: Loot, victim: TlsCredentials) -> None:
        self.loot = loot
        self._curl, self._genuine = Curl(victim), str(server.endpoints["device_url"])
        self.forged: dict[str, bytes] = {}
        self.own = OwnKey()
        self._forgeries = 0
        self.https = ScriptedHttps(None, self._answer, identity=loot.tls, asks_certificate=False)

    @property
    def url(self) -> str:
        return self.https.url.replace("127.0.0.1", "localhost")

    def genuine(self, path: str) -> bytes:
        """What the server says to the victim."""
        response = self._curl.get(f"{self._genuine}{path}", size_bytes_max=8 * 1024 * 1024)
        assert response.status == 200, (path, response.status)
        return response.body

    def _answer(self, received: Received) -> Answer:
        if received.method != "GET":
            return Answer(200, b"{}")
        if received.path in self.forged:
            return Answer(200, self.forged[received.path])
        response = self._curl.get(f"{self._genuine}{received.path}", size_bytes_max=64 * 1024 * 1024)
        return Answer(response.status, response.body)

    # What he forges -------------------------------------------------------------------------------------------------------

    def key(self, repository: Repository, role: Role, *stolen: tuple[Repository, Role]) -> MetadataSigner:
        """The stolen key if it is among the loot of this story, else one of his own."""
        return self.loot.keys[repository, role] if (repository, role) in stolen else self.own

    def direct(self, serial: str, hardware_id: str, *stolen: tuple[Repository, Role], image: TargetFile | None = None) -> None:
        """The Director's documents, with an image for the victim: his own, unless another is given."""
        said = read_targets(read_document(self.genuine("/director/targets.json"), Role.TARGETS))
        wanted = image or self.evil()
        named = replace(wanted, custom={"ecuIdentifiers": {serial: {"hardwareId": hardware_id}}, "uri": None})
        body = replace(
            said,
            version=self._above(said.version),
            expires=_in_days(1),
            targets={named.name: named},
            custom={**said.custom, "correlationId": f"urn:here-ota:mtu:stolen-{self._forgeries}"},
        )
        targets = self._forge("/director/targets.json", body, self.key(Repository.DIRECTOR, Role.TARGETS, *stolen))
        snapshot = Snapshot(version=body.version, expires=body.expires, meta={"targets.json": meta_of(targets, body.version)})
        above = self._forge("/director/snapshot.json", snapshot, self.key(Repository.DIRECTOR, Role.SNAPSHOT, *stolen))
        timestamp = Timestamp(version=body.version, expires=body.expires, snapshot=meta_of(above, body.version))
        self._forge("/director/timestamp.json", timestamp, self.key(Repository.DIRECTOR, Role.TIMESTAMP, *stolen))
        self.forged[f"/repo/targets/{EVIL_NAME}"] = EVIL

    def republish(self, *stolen: tuple[Repository, Role], targets: bytes | None = None) -> None:
        """Image targets, snapshot and timestamp in which his image stands, each signed as well as he can; or, with
        ``targets``, older ones that were signed once."""
        if targets is None:
            said = read_targets(read_document(self.genuine("/repo/targets.json"), Role.TARGETS))
            evil = replace(self.evil(), custom={"hardwareIds": ["gw-imx8"], "targetFormat": "BINARY"})
            body = replace(
                said, version=self._above(said.version), expires=_in_days(30), targets={**said.targets, evil.name: evil}
            )
            targets = sign_payload(payload(body), [self.key(Repository.IMAGE, Role.TARGETS, *stolen)])
        version = int(json.loads(targets)["signed"]["version"])
        self.forged["/repo/targets.json"] = targets
        known = read_snapshot(read_document(self.genuine("/repo/snapshot.json"), Role.SNAPSHOT))
        snapshot = Snapshot(
            version=self._above(known.version),
            expires=_in_days(30),
            meta={**known.meta, "targets.json": meta_of(targets, version)},
        )
        signed = self._forge("/repo/snapshot.json", snapshot, self.key(Repository.IMAGE, Role.SNAPSHOT, *stolen))
        latest = read_timestamp(read_document(self.genuine("/repo/timestamp.json"), Role.TIMESTAMP))
        timestamp = Timestamp(
            version=self._above(latest.version), expires=_in_days(1), snapshot=meta_of(signed, snapshot.version)
        )
        self._forge("/repo/timestamp.json", timestamp, self.key(Repository.IMAGE, Role.TIMESTAMP, *stolen))

    def take_over_root(self, repository: Repository) -> None:
        """With the root key: a next root that names his own key for every role, and everything below it."""
        prefix = "/repo" if repository is Repository.IMAGE else "/director"
        standing = read_root(read_document(self.genuine(f"{prefix}/root.json"), Role.ROOT))
        own = self.own.public_key
        root = Root(
            version=standing.version + 1,
            expires=_in_days(365),
            keys={own.id: own},
            roles={role.value: RoleKeys(key_ids=(own.id,), threshold=1) for role in Role},
        )
        path = f"{prefix}/{root.version}.root.json"
        self.forged[path] = sign_payload(payload(root), [self.loot.keys[repository, Role.ROOT], self.own])

    @staticmethod
    def evil() -> TargetFile:
        return TargetFile(name=EVIL_NAME, length=len(EVIL), hashes={"sha256": hashlib.sha256(EVIL).hexdigest()}, custom={})

    def _above(self, version: int) -> int:
        """A version that nobody has seen yet."""
        self._forgeries += 1
        return version + 1000 * self._forgeries

    def _forge(self, path: str, body: Body, key: MetadataSigner) -> bytes:
        document = sign_payload(payload(body), [key])
        self.forged[path] = document
        return document


def _in_days(days: int) -> Instant:
    return Instant(from_datetime(datetime.now(UTC) + timedelta(days=days)) // 1000 * 1000)
