"""What ``overair ship`` and ``watch`` ask of the Image repository and of the Director (Uptane reference §9.3, §11)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from overair.basics.clock import WallClock
from overair.cli.ecu_bundle import Part
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import Operator
from overair.cli.rest import RestAnswer, RestClient, RestRefused, RestUnreachable, SigV4Proof

USER_REPO: Final = "/api/v1/user_repo"
DIRECTOR: Final = "/api/v1/director"
PAGE: Final = 1000
DEVICES_PER_DRY_RUN: Final = 500
RUNNING: Final = "not_affected_running_assignment"
"""A job waits behind what a device is at; only a single assignment is refused for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An image of the Image repository."""

    name: str
    length: int
    sha256: str
    hardware_ids: tuple[str, ...]
    is_signed: bool
    """Whether the signed targets list it; else it waits for a signature of offline keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSign:
    """What offline keys must sign before it can be shipped."""

    required_key_ids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A thing that gets nothing, and why."""

    thing: str
    code: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"thing": self.thing, "code": self.code, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Whom an update would reach now."""

    affected: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = field(default=())


class UptaneRest:
    """One server's Uptane side, with the operator's key."""

    def __init__(self, operator: Operator) -> None:
        endpoints, key = operator.endpoints, operator.key
        proof = SigV4Proof(key_id=key.access_key_id, secret=key.secret, region=endpoints.region)
        self._url = endpoints.operator_url
        self._client = RestClient(proof, ca=Path(endpoints.ca_file), clock=WallClock())

    def registered(self) -> frozenset[str]:
        """Things that have registered ECUs."""
        found: set[str] = set()
        offset = 0
        while True:
            query = {"offset": str(offset), "limit": str(PAGE)}
            page = self._ask("GET", f"{DIRECTOR}/admin/devices", "Uptane devices can't be listed", query=query).json()
            rows = page.get("values", [])
            found.update(str(row["id"]) for row in rows if row.get("primaryEcu"))
            offset += len(rows)
            if not rows or offset >= page.get("total", 0):
                return frozenset(found)

    def ecus(self, thing: str) -> dict[str, str]:
        """ECU serial → name of the image that its last manifest shows; empty where none is known."""
        path = f"{DIRECTOR}/admin/devices/{quote(thing, safe='')}"
        rows = self._ask("GET", path, f"{thing} can't be looked at").value() or []
        return {str(row["id"]): str((row.get("image") or {}).get("filepath", "")) for row in rows}

    def find(self, target: str) -> Listed | None:
        """An image by its name, signed or waiting."""
        answer = self._send("GET", f"{USER_REPO}/target_items/{_path(target)}")
        if answer.status == 404:
            return None
        item = _good(answer, f"{target} can't be looked for").json()
        if item.get("status") not in {"listed", "pending"}:
            return None
        custom = item.get("custom") or {}
        return Listed(
            name=target,
            length=int(item["length"]),
            sha256=str(item["hashes"]["sha256"]),
            hardware_ids=tuple(str(each) for each in custom.get("hardwareIds", ())),
            is_signed=item["status"] == "listed",
        )

    def put(self, part: Part, hardware_ids: Sequence[str]) -> ToSign | None:
        """An image with its bytes. None: it is signed and published."""
        parcel = part.parcel
        assert parcel is not None
        query = {
            "name": part.name,
            "version": part.version,
            "hardwareIds": ",".join(hardware_ids),
            "targetFormat": "BINARY",
        }
        headers = {"content-length": str(parcel.size_bytes), "content-type": "application/octet-stream"}
        with parcel.path.open("rb") as file:
            answer = self._send(
                "PUT",
                f"{USER_REPO}/targets/{_path(part.target)}",
                query=query,
                body=file,
                headers=headers,
                payload=parcel.sha256,
            )
        if answer.status == 412 and answer.code == "role_keys_not_found":
            told = answer.json()
            return ToSign(
                required_key_ids=tuple(str(each) for each in told.get("required_key_ids", ())),
                threshold=int(told.get("threshold", 1)),
            )
        _good(answer, f"{part.target} can't be put into the Image repository")
        return None

    def create_update(self, targets: Mapping[str, Any]) -> str:
        """A multi-target update; its id."""
        answer = self._ask(
            "POST",
            f"{DIRECTOR}/multi_target_updates",
            "The multi-target update can't be made",
            body=json.dumps({"targets": targets}).encode("ascii"),
            headers={"content-type": "application/json"},
        )
        return str(answer.value())

    def preview(self, update: str, things: Sequence[str]) -> Preview:
        """Whom an update would reach among these, and why not the others. Changes nothing."""
        affected: list[str] = []
        left_out: list[LeftOut] = []
        for first in range(0, len(things), DEVICES_PER_DRY_RUN):
            some = list(things[first : first + DEVICES_PER_DRY_RUN])
            answer = self._ask(
                "POST",
                f"{DIRECTOR}/assignments",
                "Whom the update would reach can't be told",
                body=json.dumps({"mtuId": update, "devices": some, "dryRun": True}).encode("ascii"),
                headers={"content-type": "application/json"},
            ).json()
            affected += answer["affected"]
            for thing, reasons in answer["notAffected"].items():
                if any(each["code"] == RUNNING for each in reasons.values()):
                    affected.append(thing)
                else:
                    left_out.append(_left_out(thing, reasons))
        return Preview(affected=tuple(affected), left_out=tuple(left_out))

    def left_out(self, job: str) -> tuple[LeftOut, ...]:
        """Whom a job left out when it reached them, by thing."""
        found: list[LeftOut] = []
        query = {"limit": str(PAGE)}
        while True:
            path = f"{DIRECTOR}/jobs/{quote(job, safe='')}/left_out"
            page = self._ask("GET", path, f"Whom {job} left out can't be told", query=query).json()
            found += [
                LeftOut(thing=row["thing"], code=row["code"], reason=row["description"]) for row in page.get("values", [])
            ]
            if page.get("next") is None:
                return tuple(found)
            query["after"] = page["next"]

    def _ask(self, method: str, path: str, what: str, **arguments: Any) -> RestAnswer:
        return _good(self._send(method, path, **arguments), what)

    def _send(self, method: str, path: str, **arguments: Any) -> RestAnswer:
        try:
            return self._client.ask(method, self._url + path, **arguments)
        except RestUnreachable as error:
            raise CommandEnded(ExitCode.UNREACHABLE, str(error)) from None
        except RestRefused as error:
            raise CommandEnded(ExitCode.REFUSED, str(error)) from None


def _good(answer: RestAnswer, what: str) -> RestAnswer:
    try:
        return answer.expect(what)
    except RestRefused as error:
        raise CommandEnded(ExitCode.REFUSED, str(error)) from None


def _left_out(thing: str, reasons: Mapping[str, Mapping[str, str]]) -> LeftOut:
    """The reasons of a thing's ECUs as one."""
    first = next(iter(reasons.values()), {"code": "not_affected", "description": "The update is not for it."})
    words = " ".join(dict.fromkeys(each["description"] for each in reasons.values())) or first["description"]
    return LeftOut(thing=thing, code=first["code"], reason=words)


def _path(target: str) -> str:
    return quote(target, safe="/-._~")
