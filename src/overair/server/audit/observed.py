"""What leaves no change behind: reads, denials, uses of keys. Noted in memory, written down within about a second, in batches.

The same thing done again within that second is one row with a count, so a client that asks in a loop costs a row a second. What
is more than fits is counted, and the count has a row: nothing is dropped unsaid. A process that is killed takes its last second
with it; one that stops writes it first.

Of devices and strangers there may be many, and each may be refused without end: they have a budget of rows a minute
(``floods``). What is beyond it is gathered until the minute ends: one row for each peer and operation, with its count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.clock import Clock
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Tx, Work
from overair.server.audit.floods import RowBudget
from overair.server.audit.model import AuditKind, AuditRecord
from overair.server.audit.service import RESOURCE_LENGTH_MAX, AuditStore
from overair.server.aws_protocol.authentication import CurrentOperation
from overair.server.aws_protocol.operations import Caller

KEPT_MAX: Final = 2000
"""Different things in memory that weren't written down yet."""
BATCH_MAX: Final = 500
STRANGER: Final = "stranger"
"""The principal of whoever couldn't prove who he is."""
LOST: Final = "AuditOverflow"
GATHERED_MAX: Final = 1000
"""Peers and operations beyond the budget that are told apart within a minute."""
SEVERAL: Final = "*"
"""The resource of a row that stands for several."""

_Same = tuple[AccountId, AuditKind, str, str, str, str, str, str]


@dataclass(slots=True)
class _Noted:
    record: AuditRecord
    times: int = 1

    def add(self, resource: str) -> None:
        """It happened again, perhaps with something else."""
        self.times += 1
        if resource != self.record.resource:
            self.record = replace(self.record, resource=SEVERAL)


class Observed:
    """Any thread may note. ``home`` is the account that strangers' attempts are written down for."""

    def __init__(
        self,
        *,
        home: AccountId,
        clock: Clock,
        ids: IdSource,
        kept_max: int = KEPT_MAX,
        budget: RowBudget | None = None,
        gathered_max: int = GATHERED_MAX,
    ) -> None:
        self._home = home
        self._clock = clock
        self._ids = ids
        self._kept_max = kept_max
        self._noted: dict[_Same, _Noted] = {}
        self._lost: dict[AccountId, int] = {}
        self._budget = budget or RowBudget()
        self._gathered_max = gathered_max
        self._gathered: dict[_Same, _Noted] = {}
        self._gathered_lost: dict[AccountId, int] = {}
        self._gate = threading.Lock()
        self._begun: Callable[[], None] = lambda: None

    def watched_by(self, begun: Callable[[], None]) -> None:
        """Register who hears, on whatever thread, that there is something to write where there was nothing."""
        self._begun = begun

    def read(self, operation: CurrentOperation) -> None:
        """See ``aws_protocol.authentication.Witness``."""
        if not operation.changes:
            caller = operation.caller
            self._note(
                AuditKind.READ,
                caller,
                service=operation.service,
                operation=operation.operation,
                resource=operation.resource,
                request_id=caller.request_id,
                source_ip=caller.source_ip,
            )

    def denied(
        self, caller: Caller | None, *, service: str, operation: str, path: bytes, request_id: str, source_ip: str
    ) -> None:
        """See ``aws_protocol.authentication.Witness``."""
        self._note(
            AuditKind.DENIAL,
            caller,
            service=service,
            operation=operation,
            # A stranger chooses his path: it would make a row of each attempt.
            resource=SEVERAL if caller is None else path.decode("latin-1"),
            request_id=request_id,
            source_ip=source_ip,
            peer=source_ip if caller is None else None,
        )

    def device_denied(
        self,
        account: AccountId | None,
        principal_arn: str | None,
        *,
        service: str,
        operation: str,
        resource: str,
        source_ip: str,
        request_id: str = "",
    ) -> None:
        """See ``gateway.denials.DenialWitness``."""
        self._note(
            AuditKind.DENIAL,
            None,
            account=account,
            principal=principal_arn or STRANGER,
            service=service,
            operation=operation,
            resource=resource if principal_arn else SEVERAL,
            request_id=request_id,
            source_ip=source_ip,
            peer=principal_arn or source_ip,
        )

    def downloaded(self, operation: CurrentOperation, *, denied: bool) -> None:
        """See ``aws_protocol.authentication.Witness``."""
        caller = operation.caller
        self._note(
            AuditKind.DENIAL if denied else AuditKind.READ,
            caller,
            service=operation.service,
            operation=operation.operation,
            resource=operation.resource,
            request_id=caller.request_id,
            source_ip=caller.source_ip,
            peer=f"{caller.source_ip} {caller.principal_arn}",
        )

    def key_used(self, account: AccountId, key_id: str, purpose: str) -> None:
        """A private key signs, or is about to."""
        self._note(
            AuditKind.KEY_USE,
            None,
            account=account,
            principal="overair",
            service="keyring",
            operation="UseKey",
            resource=f"{purpose}/{key_id}",
            request_id="",
            source_ip="",
        )

    def _note(
        self,
        kind: AuditKind,
        caller: Caller | None,
        *,
        service: str,
        operation: str,
        resource: str,
        request_id: str,
        source_ip: str,
        account: AccountId | None = None,
        principal: str = STRANGER,
        peer: str | None = None,
    ) -> None:
        """``peer``: whose budget the row is of, if it is of any."""
        if caller is not None:
            account, principal = caller.account, caller.principal_arn
        key_id = "" if caller is None else caller.access_key_id
        where = self._home if account is None else account
        resource = resource.replace("\0", "")[:RESOURCE_LENGTH_MAX]
        same = (where, kind, principal, key_id, service, operation, resource, source_ip)
        now = self._clock.now()
        with self._gate:
            noted = self._noted.get(same)
            if noted is not None:
                noted.times += 1
                return
            kept: dict[_Same, _Noted] = self._noted
            if peer is not None and not self._budget.take(peer, now):
                kept, same = self._gathered, (where, kind, principal, key_id, service, operation, "", peer)
                gathered = kept.get(same)
                if gathered is not None:
                    gathered.add(resource)
                    return
                if len(kept) >= self._gathered_max:
                    self._gathered_lost[where] = self._gathered_lost.get(where, 0) + 1
                    return
            elif len(kept) >= self._kept_max:
                self._lost[where] = self._lost.get(where, 0) + 1
                return
            is_first = not self._noted
            kept[same] = _Noted(
                AuditRecord(
                    account=where,
                    at=now,
                    record_id=self._ids.uuid(),
                    principal_arn=principal,
                    access_key_id=key_id,
                    service=service,
                    operation=operation,
                    resource=resource,
                    request_id=request_id,
                    source_ip=source_ip,
                    kind=kind,
                )
            )
        if is_first:
            self._begun()

    @contextmanager
    def batch(self) -> Iterator[list[AuditRecord]]:
        """What to write down now. It is forgotten, unless what is done with it fails."""
        with self._gate:
            if self._budget.is_over(self._clock.now()):
                self._release()
            taken = {same: self._noted.pop(same) for same in list(self._noted)[:BATCH_MAX]}
            lost, self._lost = self._lost, {}
        rows = [noted.record if noted.times == 1 else replace(noted.record, times=noted.times) for noted in taken.values()]
        rows += [self._lost_row(account, count) for account, count in lost.items()]
        try:
            yield rows
        except BaseException:
            with self._gate:
                for same, noted in taken.items():
                    newer = self._noted.pop(same, None)
                    self._noted[same] = _Noted(noted.record, noted.times + (0 if newer is None else newer.times))
                for account, count in lost.items():
                    self._lost[account] = self._lost.get(account, 0) + count
            raise

    @property
    def waiting(self) -> int:
        """How many rows there are to write now."""
        due = len(self._gathered) + len(self._gathered_lost) if self._budget.is_over(self._clock.now()) else 0
        return len(self._noted) + len(self._lost) + due

    def release(self) -> None:
        """What was gathered is to be written now, before its minute ends."""
        with self._gate:
            self._release()

    def _release(self) -> None:
        self._noted |= self._gathered
        for account, count in self._gathered_lost.items():
            self._lost[account] = self._lost.get(account, 0) + count
        self._gathered, self._gathered_lost = {}, {}
        self._budget.renew()

    def _lost_row(self, account: AccountId, count: int) -> AuditRecord:
        return AuditRecord(
            account=account,
            at=self._clock.now(),
            record_id=self._ids.uuid(),
            principal_arn="overair",
            access_key_id="",
            service="audit",
            operation=LOST,
            resource="*",
            request_id="",
            source_ip="",
            kind=AuditKind.LOST,
            times=count,
        )


class AuditWriter:
    """The worker that writes them down. Each process has its own."""

    name = "audit"

    def __init__(self, *, work: Work, observed: Observed, store: AuditStore) -> None:
        self._work = work
        self._observed = observed
        self._store = store

    async def run_once(self) -> bool:
        """Write one batch; True where more waits."""
        if not self._observed.waiting:
            return False
        with self._observed.batch() as rows:
            await self._work.run(lambda tx: self._write(tx, rows))
        return self._observed.waiting > 0

    async def finish(self) -> None:
        """Write all that waits: the process stops."""
        self._observed.release()
        while await self.run_once():
            pass

    def _write(self, tx: Tx, rows: list[AuditRecord]) -> None:
        by_account: dict[AccountId, list[AuditRecord]] = {}
        for row in rows:
            by_account.setdefault(row.account, []).append(row)
        for account, mine in by_account.items():
            self._store.add_many(tx, account, mine)
