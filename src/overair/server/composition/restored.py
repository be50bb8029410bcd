"""The first start after a restore takes note of it: in the records, in the audit chain, in the log."""

from __future__ import annotations

import json

import structlog

from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.audit.service import AuditTrail
from overair.server.state_directory import StateDirectory, StateDirectoryRefused
from overair.server.storage.restores import Restores, note_restore, restores_of
from overair.server.storage.work import SqlWork

logger = structlog.get_logger("overair.server")


def take_note(state: StateDirectory, work: SqlWork, trail: AuditTrail, *, account: AccountId, clock: Clock) -> Restores:
    """The restores that the records went through, the one included that this start is the first after.

    Raises:
        StateDirectoryRefused: the file that ``overair restore`` has left can't be read.
    """
    file = state.restored_file
    if not file.exists():
        return work.read_blocking(lambda tx: restores_of(tx, account))
    try:
        backed_up_at = Instant(int(json.loads(file.read_bytes())["backedUpAt"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateDirectoryRefused(
            f"{file}, which says of what time this server's backup is, can't be read: {error}. Restore the backup anew."
        ) from error
    moment = as_datetime(backed_up_at).isoformat(timespec="seconds")

    def note(tx: Tx) -> Restores:
        known = restores_of(tx, account)
        if known.backed_up_at == backed_up_at:
            return known  # noted by a start that was cut before the file was gone
        trail.restored(tx, account, backed_up_at=moment)
        return note_restore(tx, account, backed_up_at=backed_up_at, now=clock.now())

    noted = work.run_blocking(note)
    file.unlink(missing_ok=True)
    logger.warning("this server was restored; what was revoked, blocked or deleted since must be again", backed_up=moment)
    return noted
