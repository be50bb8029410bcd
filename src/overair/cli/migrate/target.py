"""The server that a fleet moves to, as an import speaks to it: plain REST with the operator's key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from overair.basics.clock import Clock
from overair.cli.operator import Operator
from overair.cli.rest import RestAnswer, RestClient, RestRefused, SigV4Proof
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role
from overair.wire.uptane.metadata_reading import read_document, read_root
from overair.wire.uptane.refusals import MetadataRefused

BASES: Final[Mapping[Repository, str]] = {
    Repository.IMAGE: "/api/v1/user_repo",
    Repository.DIRECTOR: "/api/v1/director/admin/repo",
}
HELD_KEYS: Final[Mapping[Repository, str]] = {
    Repository.IMAGE: "/api/v1/user_repo/root/private_keys",
    Repository.DIRECTOR: "/api/v1/director/admin/repo/private_keys",
}


class Rest(Protocol):
    """How one server is asked (``RestClient``)."""

    def ask(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        payload: str | None = None,
    ) -> RestAnswer: ...


class TargetServer:
    """What an import asks of it. Raises RestRefused with all that it objects to, RestUnreachable."""

    def __init__(self, rest: Rest, url: str) -> None:
        self._rest, self._url = rest, url

    @classmethod
    def of(cls, operator: Operator, clock: Clock) -> TargetServer:
        endpoints, key = operator.endpoints, operator.key
        proof = SigV4Proof(key_id=key.access_key_id, secret=key.secret, region=endpoints.region)
        return cls(RestClient(proof, ca=Path(endpoints.ca_file), clock=clock), endpoints.operator_url)

    # Repositories ---------------------------------------------------------------------------------------------------------

    def take_over(self, body: Mapping[str, Any], *, dry_run: bool, may_lack_images: bool) -> dict[str, Any]:
        query = {"dryRun": "true"} if dry_run else {}
        query |= {"mayLackImages": "true"} if may_lack_images else {}
        answer = self._send("PUT", "/api/v1/user_repo/import", body, query)
        return answer.expect("The repositories can't be taken over").json()

    def own_keys(self, repository: Repository) -> dict[Role, PublicKey]:
        """The keys that this server signs each role with. Its first root names them."""
        answer = self._get(f"{BASES[repository]}/root.json").expect("This server's root can't be had")
        held = self._get(HELD_KEYS[repository]).expect("This server's keys can't be told").json().get("values", [])
        ids = {str(row["keyid"]) for row in held if isinstance(row, dict) and "keyid" in row}
        try:
            root = read_root(read_document(answer.body, Role.ROOT, size_bytes_max=ROOT_SIZE_BYTES_MAX))
        except MetadataRefused as refusal:
            raise RestRefused(f"This server's root can't be read: {refusal.message}") from None
        found = {role: [key_id for key_id in root.role_keys(role).key_ids if key_id in ids] for role in Role}
        without = [role.value for role, key_ids in found.items() if not key_ids]
        if without:
            raise RestRefused(
                f"This server doesn't hold its own {', '.join(without)} keys of the {repository} repository. Import into an "
                "account that nobody has taken offline."
            )
        return {role: root.keys[key_ids[0]] for role, key_ids in found.items()}

    def root(self, repository: Repository, version: int, flavour: Flavour = Flavour.UPTANE) -> bytes:
        query = {} if flavour is Flavour.UPTANE else {"flavour": flavour.value}
        answer = self._get(f"{BASES[repository]}/{version}.root.json", query)
        return answer.expect(f"Root version {version} can't be read back").body

    def role(self, name: str) -> bytes:
        """``targets``, ``snapshot`` or ``timestamp`` of the Image repository."""
        return self._get(f"{BASES[Repository.IMAGE]}/{name}.json").expect(f"{name}.json can't be read back").body

    # Images ---------------------------------------------------------------------------------------------------------------

    def has_image(self, name: str, sha256: str) -> bool:
        """Whether these bytes lie there under this name."""
        answer = self._get(f"/api/v1/user_repo/target_items/{_quoted(name)}")
        if answer.status == 404:
            return False
        item = answer.expect(f"{name} can't be asked for").json()
        hashes = item.get("hashes")
        if not isinstance(hashes, dict) or hashes.get("sha256") != sha256:
            return False
        # What is only uploaded has bytes; what targets list may lack them.
        return item.get("status") == "uploaded" or self._head(f"/api/v1/user_repo/targets/{_quoted(name)}").status == 200

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> None:
        with path.open("rb") as file:
            answer = self._rest.ask(
                "PUT",
                f"{self._url}/api/v1/user_repo/uploads/{_quoted(name)}",
                body=file,
                headers={"content-length": str(length), "content-type": "application/octet-stream"},
                payload=sha256,
            )
        answer.expect(f"{name} can't be uploaded")

    # Fleet ----------------------------------------------------------------------------------------------------------------

    def register_authority(self, body: Mapping[str, Any], *, dry_run: bool) -> list[dict[str, Any]]:
        answer = self._send("POST", "/api/v1/fleet_authorities", body, {"dryRun": "true"} if dry_run else {})
        values = answer.expect("The fleet authority can't be registered").json().get("values", [])
        return [each for each in values if isinstance(each, dict)]

    def import_devices(self, devices: Sequence[Mapping[str, Any]], *, dry_run: bool) -> list[dict[str, Any]]:
        query = {"dryRun": "true"} if dry_run else {}
        answer = self._send("POST", "/api/v1/director/import/devices", {"devices": list(devices)}, query)
        rows = answer.expect("The devices can't be imported").json().get("devices", [])
        return [each for each in rows if isinstance(each, dict)]

    # ----------------------------------------------------------------------------------------------------------------------

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> RestAnswer:
        return self._rest.ask("GET", f"{self._url}{path}", query=query)

    def _head(self, path: str) -> RestAnswer:
        return self._rest.ask("HEAD", f"{self._url}{path}")

    def _send(self, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, str]) -> RestAnswer:
        data = json.dumps(body, separators=(",", ":")).encode("ascii")
        return self._rest.ask(
            method, f"{self._url}{path}", query=query, body=data, headers={"content-type": "application/json"}
        )


def _quoted(name: str) -> str:
    return quote(name, safe="/-._~")
