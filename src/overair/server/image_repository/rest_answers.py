"""What answers of the Image repository's REST have in common (Uptane reference §1.3, §9.3), and how its requests are read."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.model import Changed, Published, TargetFormat
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body
from overair.server.roots.model import Unsigned
from overair.server.roots.service import Rehearsed, RootsService
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.fields import read_expires
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.metadata_writing import bytes_to_sign
from overair.wire.uptane.refusals import MetadataRefused

T = TypeVar("T")

PREFIX: Final = "/api/v1/user_repo"
CHECKSUM: Final = "x-ats-role-checksum"
REPOSITORY_ID: Final = "x-ats-tuf-repo-id"
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1000
_MOMENT: Final = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?Z", re.ASCII)


class ImageRest:
    """The rooms behind a door, and the headers of every answer."""

    def __init__(self, *, work: Work, roots: RootsService, images: ImageRepositoryService) -> None:
        self._work = work
        self._roots = roots
        self._images = images

    async def _read(self, caller: Caller, query: Callable[[Tx], T]) -> tuple[T, dict[str, str]]:
        """What ``query`` gives, and the headers that go with it."""
        return await self._work.read(lambda tx: (query(tx), self._headers(tx, caller.account)))

    async def _run(self, caller: Caller, unit: Callable[[Tx], T]) -> tuple[T, dict[str, str]]:
        """The same for a change; a dry run's outcome too."""
        try:
            return await self._work.run(lambda tx: (unit(tx), self._headers(tx, caller.account)))
        except Rehearsed as rehearsed:
            outcome: T = rehearsed.outcome  # type: ignore[assignment]  # what the unit would have given
            _, headers = await self._read(caller, lambda tx: None)
            return outcome, headers

    def _headers(self, tx: Tx, account: AccountId) -> dict[str, str]:
        return {
            REPOSITORY_ID: self._roots.repository_id(tx, account, Repository.IMAGE),
            CHECKSUM: self._images.checksum(tx, account),
        }

    def _changed(self, caller: Caller, changed: Changed, headers: Mapping[str, str], *, status: int = 204) -> RestAnswer:
        """204 once it is published; 412 with what to sign where the targets keys are offline."""
        if changed.unsigned is None:
            return RestAnswer(status=status, headers=headers)
        return offline_answer(caller, changed.unsigned, headers)


def offline_answer(caller: Caller, unsigned: Unsigned, headers: Mapping[str, str]) -> RestAnswer:
    """What was asked is remembered where that can be, and waits for signatures of keys that aren't here."""
    body: dict[str, Any] = {
        "code": "role_keys_not_found",
        "description": f"The keys of {unsigned.role} are offline. Sign version {unsigned.version} with {unsigned.threshold} of "
        "the required keys and push it; images that were uploaded wait for that.",
        "cause": None,
        "errorId": caller.request_id,
        "unsigned_metadata_base64": _base64(unsigned, Flavour.UPTANE),
        "unsigned_tuf_metadata_base64": _base64(unsigned, Flavour.TUF),
        "required_key_ids": list(unsigned.required_key_ids),
        "threshold": unsigned.threshold,
    }
    return RestAnswer(status=412, json=body, headers=headers)


def unsigned_document(unsigned: Unsigned, request: RestRequest) -> bytes:
    """``{"signatures":[],"signed":…}`` in canonical form, in the flavour that the query names."""
    return canonical({"signatures": [], "signed": unsigned.signed[flavour_of(request)]})


def _base64(unsigned: Unsigned, flavour: Flavour) -> str:
    return base64.b64encode(bytes_to_sign(unsigned.signed[flavour], flavour)).decode("ascii")


def published_json(published: Published) -> dict[str, Any]:
    """What a publication came to."""
    return {
        "versions": dict(published.versions),
        "checksum": published.checksum,
        "warnings": [warning.to_json() for warning in published.warnings],
        "waitingRoot": published.waiting_root,
    }


def page_json(values: list[Any], total: int, offset: int, limit: int) -> dict[str, Any]:
    """A page as OTA Connect's services answer it."""
    return {"total": total, "offset": offset, "limit": limit, "values": values}


# Reading ----------------------------------------------------------------------------------------------------------------


def flavour_of(request: RestRequest) -> Flavour:
    """``flavour=tuf``; Uptane's unless said otherwise.

    Raises:
        InvalidRequest.
    """
    text = request.query.get("flavour", Flavour.UPTANE.value)
    if text not in set(Flavour):
        raise InvalidRequest("The flavour is uptane or tuf.", details={"field": "flavour"})
    return Flavour(text)


def flag(request: RestRequest, name: str) -> bool:
    """``true`` or ``false`` in the query; false where it is absent.

    Raises:
        InvalidRequest.
    """
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name} is true or false.", details={"field": name})
    return text == "true"


def number(request: RestRequest, name: str, default: int | None = None, *, maximum: int = 2**53 - 1) -> int:
    """A whole number in the query.

    Raises:
        InvalidRequest.
    """
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > maximum:
        raise InvalidRequest(f"{name} is a whole number, at most {maximum}.", details={"field": name})
    return int(text)


def page_of(request: RestRequest) -> tuple[int, int]:
    """(offset, limit).

    Raises:
        InvalidRequest.
    """
    return number(request, "offset", 0), max(1, min(number(request, "limit", PAGE_DEFAULT), PAGE_MAX))


def text_member(body: Mapping[str, object], name: str, default: str | None = None) -> str:
    """A string of a JSON body.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    value = body.get(name, default)
    if not isinstance(value, str):
        raise malformed_body(f"{name} is a string.")
    return value


def texts_member(body: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Strings of a JSON body.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise malformed_body(f"{name} is a list of strings.")
    return tuple(value)


def format_of(text: str) -> TargetFormat:
    """Raises:
    InvalidRequest.
    """
    if text.upper() not in set(TargetFormat):
        raise InvalidRequest("The format is BINARY or OSTREE.", details={"field": "targetFormat"})
    return TargetFormat(text.upper())


def moment_member(body: Mapping[str, object], name: str) -> Instant:
    """A moment of a JSON body, to the second; a fraction is left aside.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    found = _MOMENT.fullmatch(text_member(body, name))
    try:
        return read_expires(f"{found[1]}Z" if found is not None else None, field=name)
    except MetadataRefused:
        raise malformed_body(f"{name} is a moment, as in 2027-01-01T00:00:00Z.") from None
