"""Reading what operators have changed: an operation of our own service model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from overair.basics.clock import Instant
from overair.basics.work import Tx, Work
from overair.server.audit.heads import AuditHeads
from overair.server.audit.model import AuditKind, AuditRecord
from overair.server.audit.service import AuditService
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token


class AuditOperations:
    """Lists, and the signed head. Nothing here changes or deletes a record, for anybody."""

    def __init__(self, *, work: Work, audit: AuditService, heads: AuditHeads) -> None:
        self._work = work
        self._audit = audit
        self._heads = heads

    @operation("overair", "ListAuditRecords")
    async def list_audit_records(self, caller: Caller, request: Request) -> Members:
        """The caller's account's records of one kind (changes, unless it is named), newest first; ``since`` leaves out what is
        older.

        Raises:
            InvalidRequest: ``nextToken`` isn't one of ours. Subject ``page-token``.
        """
        position = read_page_token(request.get("nextToken"), tuple[int, str])
        before = None if position is None else (Instant(position[0]), position[1])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)

        kinds = tuple(AuditKind) if request.get("kind") == "any" else (AuditKind(request.get("kind", AuditKind.CHANGE)),)

        def newest(tx: Tx) -> Sequence[AuditRecord]:
            return self._audit.newest(
                tx, caller.account, before=before, since=request.get("since"), limit=limit + 1, kinds=kinds
            )

        page, token = cut(await self._work.read(newest), limit, lambda record: (record.at, record.record_id))
        return {"records": [_members(record) for record in page], "nextToken": token}

    @operation("overair", "ListAuditChain")
    async def list_audit_chain(self, caller: Caller, request: Request) -> Members:
        """Every record of the caller's account with its place and hash, in the order of the chain.

        Raises:
            InvalidRequest: ``nextToken`` isn't one of ours. Subject ``page-token``.
        """
        position = read_page_token(request.get("nextToken"), tuple[int, int, str])
        after = None if position is None else (position[0], Instant(position[1]), position[2])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        rows = await self._work.read(lambda tx: self._audit.in_chain_order(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda record: (record.sequence, record.at, record.record_id))
        return {"records": [_members(record) for record in page], "nextToken": token}

    @operation("overair", "SignAuditHead")
    async def sign_audit_head(self, caller: Caller, request: Request) -> Members:
        """Where the account's chain has got to, signed. That it was signed is the chain's next record."""
        head = await self._work.run(lambda tx: self._heads.sign(tx, caller.account))
        return {"head": head.text()}


def _members(record: AuditRecord) -> dict[str, Any]:
    names = {"at": "time", "record_id": "recordId", "principal_arn": "principalArn", "access_key_id": "accessKeyId"}
    names |= {"request_id": "requestId", "source_ip": "sourceIp", "chain_hash": "chainHash"}
    return {names.get(name, name): value for name, value in asdict(record).items() if name != "account"}
