"""The server's REST as signing tools speak it (Uptane reference §9.3): over TLS under the pinned CA, proved by SigV4 or
OAuth2."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from overair.basics.clock import Clock
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded
from overair.cli.operator import read_endpoints, read_key
from overair.cli.rest import (
    Proof,
    RestAnswer,
    RestClient,
    RestRefused,
    RestUnreachable,
    SigV4Proof,
    TokenProof,
    finding_in_words,
)
from overair.cli.sign import items
from overair.cli.sign.ends import SignEnded, SignExit, refused
from overair.cli.sign.tree import Access, Config
from overair.wire.strict_json import decode_object
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role, Root
from overair.wire.uptane.refusals import MetadataRefused

CHECKSUM_HEADER: Final = "x-ats-role-checksum"
BASES: Final[Mapping[Repository, str]] = {
    Repository.IMAGE: "/api/v1/user_repo",
    Repository.DIRECTOR: "/api/v1/director/admin/repo",
}


class Stale(Exception):
    """Somebody else has published since the last pull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKeys:
    """Keys whose private halves the server holds, by id."""

    in_use: frozenset[str] = frozenset()
    kept: Mapping[str, str] = field(default_factory=dict)
    """Those that sign nothing any more and wait to be deleted: until when the server waits."""

    @property
    def all(self) -> frozenset[str]:
        return self.in_use | self.kept.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the server says of an accepted publication."""

    versions: Mapping[str, int]
    warnings: tuple[str, ...]


class Server(Protocol):
    """What a signing tool asks of a server."""

    def document(self, repository: Repository, path: str, flavour: Flavour = Flavour.UPTANE) -> tuple[bytes, str | None] | None:
        """A document by its path below the repository (``3.root.json``, ``delegations/vendor-b.json``, ``targets.json``)
        with its role checksum; None where there is none."""
        ...

    def held_keys(self, repository: Repository) -> HeldKeys: ...
    def publish(
        self,
        repository: Repository,
        publication: Mapping[str, Any],
        *,
        checksum: str | None,
        dry_run: bool,
        force: bool,
        cosign: bool,
        keep_keys: bool = False,
    ) -> Published: ...
    def delete_private_key(self, repository: Repository, key_id: str) -> bool: ...
    def make_online_keys(self, repository: Repository, roles: Sequence[Role], *, besides: Root) -> Mapping[Role, PublicKey]:
        """New keys that the server keeps, for the root after ``besides`` to name."""
        ...

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> bool: ...


class RestServer:
    """``Server`` over HTTPS."""

    def __init__(self, config: Config, ca_file: Path | None, *, clock: Clock) -> None:
        self._config, access, ca = _resolved(config, ca_file)
        self._client = RestClient(_proof(access, self._config.region), ca=ca, clock=clock)

    # What is asked ------------------------------------------------------------------------------------------------------

    def document(self, repository: Repository, path: str, flavour: Flavour = Flavour.UPTANE) -> tuple[bytes, str | None] | None:
        query = {} if flavour is Flavour.UPTANE else {"flavour": flavour.value}
        answer = self._ask("GET", repository, path, query=query)
        if answer.status == 404:
            return None
        self._expect(answer, f"{path} can't be had")
        return answer.body, answer.headers.get(CHECKSUM_HEADER)

    def held_keys(self, repository: Repository) -> HeldKeys:
        answer = self._ask("GET", repository, _private_keys(repository))
        if answer.status in {404, 405}:
            return HeldKeys()  # a server that tells nothing about its keys
        self._expect(answer, "The server's keys can't be told")
        rows = [row for row in answer.json().get("values", []) if isinstance(row, dict) and "keyid" in row]
        return HeldKeys(
            in_use=frozenset(str(row["keyid"]) for row in rows if "keptUntil" not in row),
            kept={str(row["keyid"]): str(row["keptUntil"]) for row in rows if "keptUntil" in row},
        )

    def publish(
        self,
        repository: Repository,
        publication: Mapping[str, Any],
        *,
        checksum: str | None,
        dry_run: bool,
        force: bool,
        cosign: bool,
        keep_keys: bool = False,
    ) -> Published:
        """Raises:
        Stale: somebody was quicker.
        SignEnded: REFUSED with everything that the server objects to; UNREACHABLE.
        """
        headers = {"content-type": "application/json"}
        if checksum is not None:
            headers[CHECKSUM_HEADER] = checksum
        flags = {"dryRun": dry_run, "force": force, "coSign": cosign, "keepKeys": keep_keys}
        query = {name: "true" for name, wanted in flags.items() if wanted}
        body = json.dumps(publication, separators=(",", ":")).encode("ascii")
        answer = self._ask("PUT", repository, "publication", query=query, body=body, headers=headers)
        if answer.status == 412 or "invalid_version_bump" in _codes(answer):
            raise Stale
        self._expect(answer, "The publication was refused")
        told = answer.json()
        return Published(
            versions={str(name): int(version) for name, version in told.get("versions", {}).items()},
            warnings=tuple(finding_in_words(each) for each in told.get("warnings", [])),
        )

    def delete_private_key(self, repository: Repository, key_id: str) -> bool:
        """Whether there was one."""
        answer = self._ask("DELETE", repository, _private_key(repository, key_id))
        if answer.status == 404:
            return False
        self._expect(answer, "The server doesn't delete its key")
        return True

    def make_online_keys(self, repository: Repository, roles: Sequence[Role], *, besides: Root) -> Mapping[Role, PublicKey]:
        # 412 is the answer that is hoped for: the keys are made, and the root that names them is to be signed elsewhere.
        query = {"online": "true", "roles": ",".join(role.value for role in roles)}
        answer = self._ask("PUT", repository, "root/rotate", query=query)
        if answer.status != 412:
            self._expect(answer, "The server makes no keys")
            raise refused("The server has signed a new root by itself: its root keys aren't offline. Pull, and look again.")
        try:
            signed = decode_object(
                base64.b64decode(answer.json()["unsigned_metadata_base64"], validate=True), size_bytes_max=ROOT_SIZE_BYTES_MAX
            )
            root = items.as_root(items.body_of(signed, items.ROOT))
            made = {
                role: [root.keys[each] for each in root.role_keys(role).key_ids if each not in besides.keys] for role in roles
            }
        except (KeyError, TypeError, ValueError, MetadataRefused) as error:
            raise refused(f"The server's new keys can't be read: {error}") from None
        if not all(len(keys) == 1 for keys in made.values()):
            raise refused("The server didn't make one new key for each role.")
        return {role: keys[0] for role, keys in made.items()}

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> bool:
        """Send a file; whether it was sent: one that is there with these bytes needn't be.

        Raises:
            SignEnded: REFUSED: the name stands for other bytes.
        """
        there = self._ask("GET", Repository.IMAGE, f"target_items/{quote(name, safe='/-._~')}")
        if there.status == 200 and _sha256_of(there.json()) == sha256 and there.json().get("status") != "deleted":
            return False
        with path.open("rb") as file:
            answer = self._ask(
                "PUT",
                Repository.IMAGE,
                f"uploads/{quote(name, safe='/-._~')}",
                body=file,
                headers={"content-length": str(length), "content-type": "application/octet-stream"},
                payload=sha256,
            )
        self._expect(answer, f"{name} can't be uploaded")
        return True

    # How it is asked ----------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        repository: Repository,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        payload: str | None = None,
        tries: int = 0,
    ) -> RestAnswer:
        base = self._config.operator_url if repository is Repository.IMAGE else self._config.director_url
        url = f"{base}{BASES[repository]}/{path}"
        try:
            return self._client.ask(method, url, query=query, body=body, headers=headers, payload=payload, tries=tries)
        except RestUnreachable as error:
            raise SignEnded(SignExit.UNREACHABLE, str(error)) from None
        except RestRefused as error:
            raise refused(str(error)) from None

    @staticmethod
    def _expect(answer: RestAnswer, what: str) -> None:
        try:
            answer.expect(what)
        except RestRefused as error:
            raise refused(str(error), details={"code": error.code, "status": error.status, "errors": error.errors}) from None


def _private_keys(repository: Repository) -> str:
    return "root/private_keys" if repository is Repository.IMAGE else "private_keys"


def _private_key(repository: Repository, key_id: str) -> str:
    return f"{_private_keys(repository)}/{key_id}"


def _codes(answer: RestAnswer) -> frozenset[str]:
    """Every code that the answer names: its own, and those of ``errors``."""
    errors = answer.json().get("errors") or []
    return frozenset({answer.code, *(str(each.get("code", "")) for each in errors if isinstance(each, dict))})


def _sha256_of(item: Mapping[str, Any]) -> str:
    hashes = item.get("hashes")
    return str(hashes.get("sha256", "")) if isinstance(hashes, dict) else ""


def _proof(access: Access, region: str) -> Proof:
    secret = Redacted(access.secret)
    if access.kind == "oauth2":
        return TokenProof(token_url=access.token_url, client_id=access.key_id, secret=secret)
    return SigV4Proof(key_id=access.key_id, secret=secret, region=region) if access.kind in {"key", "data"} else None


def _resolved(config: Config, ca_file: Path | None) -> tuple[Config, Access, Path | None]:
    """A state directory says anew each time where its server listens, and with which key."""
    from dataclasses import replace

    if config.access.kind == "none":
        raise SignEnded(
            SignExit.UNREACHABLE, "This tree is air-gapped: it knows no server. Approve requests here, push elsewhere."
        )
    if config.access.kind != "data":
        return config, config.access, ca_file
    data = Path(config.access.data)
    try:
        endpoints, key = read_endpoints(data), read_key(data)
    except CommandEnded as end:
        raise SignEnded(SignExit.UNREACHABLE, end.message) from None
    config = replace(config, operator_url=endpoints.operator_url, director_url=endpoints.operator_url, region=endpoints.region)
    access = Access(kind="key", key_id=key.access_key_id, secret=key.secret.reveal())
    return config, access, Path(endpoints.ca_file)
