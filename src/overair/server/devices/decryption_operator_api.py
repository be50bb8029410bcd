"""Whom images can be encrypted to: an operation of our own service model."""

from __future__ import annotations

import base64

from overair.basics.ids import ThingName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.devices.decryption import Declared, DecryptionService


class DecryptionOperatorApi:
    """ListDecryptionKeys."""

    def __init__(self, *, work: Work, decryption: DecryptionService) -> None:
        self._work = work
        self._decryption = decryption

    @operation("overair", "ListDecryptionKeys")
    async def list_decryption_keys(self, caller: Caller, request: Request) -> Members:
        """What devices have declared: of one thing, or of all."""
        if "thingName" in request:
            thing = ThingName(request["thingName"])
            declared = await self._work.read(lambda tx: self._decryption.find(tx, caller.account, thing))
            return {"things": [] if declared is None else [_members(declared)], "nextToken": None}
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]
        found = await self._work.read(lambda tx: self._decryption.page(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda each: (each.thing,))
        return {"things": [_members(each) for each in page], "nextToken": token}


def _members(declared: Declared) -> Members:
    return {
        "thingName": declared.thing,
        "formats": list(declared.formats),
        "keys": [{"keyId": key.id, "publicKey": base64.b64encode(key.der).decode("ascii")} for key in declared.keys],
        "declaredAt": declared.declared_at,
    }
