"""Writing each change down with the change itself, and reading it back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeVar

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Tx, Work
from overair.server.audit.model import RESTORED, AuditKind, AuditRecord, Reached
from overair.server.aws_protocol.authentication import current_operation

T = TypeVar("T")

PAGE_MAX: Final = 1000
RESOURCE_LENGTH_MAX: Final = 2048


class AuditStore(Protocol):
    """Where audit records rest. They are added to the end of their account's chain and read, never changed."""

    def add(self, tx: Tx, record: AuditRecord) -> None: ...
    def add_many(self, tx: Tx, account: AccountId, new: Sequence[AuditRecord]) -> None: ...
    def reached(self, tx: Tx, account: AccountId) -> Reached:
        """The end of the account's chain."""
        ...

    def newest(
        self,
        tx: Tx,
        account: AccountId,
        *,
        before: tuple[Instant, str] | None,
        since: Instant | None,
        limit: int,
        kinds: Collection[AuditKind],
    ) -> Sequence[AuditRecord]: ...
    def in_chain_order(
        self, tx: Tx, account: AccountId, *, after: tuple[int, Instant, str] | None, limit: int
    ) -> Sequence[AuditRecord]: ...


class AuditedWork:
    """The ``Work`` that operator doors are given: each unit that a request runs as a writer leaves one audit record in its own
    transaction, so there is never a change without its record, nor a record without its change. Outside a request (workers,
    start-up) it adds nothing."""

    def __init__(self, work: Work, store: AuditStore, *, clock: Clock, ids: IdSource) -> None:
        self._work = work
        self._store = store
        self._clock = clock
        self._ids = ids

    async def run(self, unit: Callable[[Tx], T]) -> T:
        """See ``basics.work.Work``."""
        operation = current_operation.get()
        if operation is None:
            return await self._work.run(unit)
        caller = operation.caller
        record = AuditRecord(
            account=caller.account,
            at=self._clock.now(),
            record_id=self._ids.uuid(),
            principal_arn=caller.principal_arn,
            access_key_id=caller.access_key_id,
            service=operation.service,
            operation=operation.operation,
            resource=operation.resource.replace("\0", "")[:RESOURCE_LENGTH_MAX],
            request_id=caller.request_id,
            source_ip=caller.source_ip,
        )

        def audited(tx: Tx) -> T:
            result = unit(tx)
            self._store.add(tx, record)
            return result

        done = await self._work.run(audited)
        operation.changes.append(record.record_id)
        return done

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Reading leaves no record here: what was only read is told by the dispatcher (``audit.observed``)."""
        return await self._work.read(query)


class AuditTrail:
    """Writes down, in the change's own transaction, what no operator does at that moment: devices let themselves in, images are
    signed after they were asked for."""

    def __init__(self, store: AuditStore, *, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    def enrolled(
        self, tx: Tx, account: AccountId, *, thing_arn: str, certificate_arn: str, origin: str, source_ip: str
    ) -> None:
        """A certificate has become a thing's own."""
        what = f"{thing_arn} from {origin}"
        self._add(tx, account, AuditKind.ENROLMENT, certificate_arn, "provisioning", "Enrol", what, source_ip=source_ip)

    def another_key(self, tx: Tx, account: AccountId, *, thing_arn: str, certificate_arn: str, source_ip: str) -> None:
        """A key that nobody has seen came under a known device's name, out of turn, and was refused."""
        self._add(tx, account, AuditKind.DENIAL, certificate_arn, "provisioning", "AnotherKey", thing_arn, source_ip=source_ip)

    def signed(self, tx: Tx, account: AccountId, *, job_arn: str, requested_by: str) -> None:
        """An image was signed, for whoever asked for it."""
        self._add(tx, account, AuditKind.SIGNATURE, requested_by, "signer", "Sign", job_arn)

    def restored(self, tx: Tx, account: AccountId, *, backed_up_at: str) -> None:
        """These records came out of a backup of that time: whatever was written since is lost, rows of the audit, too."""
        self._add(tx, account, AuditKind.CHANGE, "overair", *RESTORED, f"backup of {backed_up_at}")

    def expiring(self, tx: Tx, account: AccountId, *, kind: str, name: str, days: int) -> None:
        """Something has come to a step of its countdown; 0 days: it has ended."""
        self._add(tx, account, AuditKind.EXPIRY, "overair", "keyring", f"ExpiresIn{days}Days", f"{kind}/{name}")

    def _add(
        self,
        tx: Tx,
        account: AccountId,
        kind: AuditKind,
        principal: str,
        service: str,
        operation: str,
        resource: str,
        *,
        source_ip: str = "",
    ) -> None:
        self._store.add(
            tx,
            AuditRecord(
                account=account,
                at=self._clock.now(),
                record_id=self._ids.uuid(),
                principal_arn=principal,
                access_key_id="",
                service=service,
                operation=operation,
                resource=resource[:RESOURCE_LENGTH_MAX],
                request_id="",
                source_ip=source_ip,
                kind=kind,
            ),
        )


class AuditService:
    """Reading what was done."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    def newest(
        self,
        tx: Tx,
        account: AccountId,
        *,
        before: tuple[Instant, str] | None = None,
        since: Instant | None = None,
        limit: int = 100,
        kinds: Collection[AuditKind] = (AuditKind.CHANGE,),
    ) -> Sequence[AuditRecord]:
        """Newest first; ``before`` is (at, record id) of the last one already seen."""
        return self._store.newest(tx, account, before=before, since=since, limit=min(limit, PAGE_MAX), kinds=kinds)

    def in_chain_order(
        self, tx: Tx, account: AccountId, *, after: tuple[int, Instant, str] | None = None, limit: int = 100
    ) -> Sequence[AuditRecord]:
        """Every row of the account's chain, the first one first; ``after``: (sequence, at, record id) of the last one seen."""
        return self._store.in_chain_order(tx, account, after=after, limit=min(limit, PAGE_MAX))
