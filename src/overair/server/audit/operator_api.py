"""Reading what operators have changed: an operation of our own service model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from overair.basics.clock import Instant
from overair.basics.work import Tx, Work
from overair.server.audit.model import AuditRecord
from overair.server.audit.service import AuditService
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token


class AuditOperations:
    """One list. Nothing here changes or deletes a record, for anybody."""

    def __init__(self, *, work: Work, audit: AuditService) -> None:
        self._work = work
        self._audit = audit

    @operation("overair", "ListAuditRecords")
    async def list_audit_records(self, caller: Caller, request: Request) -> Members:
        """The caller's account's records, newest first; ``since`` leaves out what is older.

        Raises:
            InvalidRequest: ``nextToken`` isn't one of ours. Subject ``page-token``.
        """
        position = read_page_token(request.get("nextToken"), tuple[int, str])
        before = None if position is None else (Instant(position[0]), position[1])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)

        def newest(tx: Tx) -> Sequence[AuditRecord]:
            return self._audit.newest(tx, caller.account, before=before, since=request.get("since"), limit=limit + 1)

        page, token = cut(await self._work.read(newest), limit, lambda record: (record.at, record.record_id))
        return {"records": [_members(record) for record in page], "nextToken": token}


def _members(record: AuditRecord) -> dict[str, Any]:
    names = {"at": "time", "record_id": "recordId", "principal_arn": "principalArn", "access_key_id": "accessKeyId"}
    names |= {"request_id": "requestId", "source_ip": "sourceIp"}
    return {names.get(name, name): value for name, value in asdict(record).items() if name != "account"}
