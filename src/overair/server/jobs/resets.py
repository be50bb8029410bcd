"""How a device that was reset is found out: it reports an older version than the one that it accepted last."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import Execution
from overair.server.jobs.ports import ExecutionStore
from overair.wire.job_messages import ExecutionStatus

UPDATED_BY: Final = "updatedBy"
_REASON: Final = "reason"
_SELF_TEST: Final = "self_test"
LOOKED_AT_MAX: Final = 50
Version = tuple[int, int, int]
_WORD: Final = re.compile(r"0x([0-9a-fA-F]{8})")
_DOTTED: Final = re.compile(r"\s*v(\d{1,5})\.(\d{1,5})\.(\d{1,5})")
_ACCEPTED: Final = re.compile(r"accepted\s+v(\d{1,5})\.(\d{1,5})\.(\d{1,5})")


def running_version(details: Mapping[str, str]) -> Version | None:
    """The version that ran when an update began, as the agent tells it (wire reference §7.3). None where it tells none, as for
    a file that is no firmware (``v0.0.…``)."""
    told = details.get(UPDATED_BY, "")
    if details.get(_SELF_TEST) == "active":
        # Here it names the new image, which is on trial.
        return None
    word = _WORD.fullmatch(told)
    if word is not None:
        value = int(word[1], 16)
        return _version(value >> 24, (value >> 16) & 0xFF, value & 0xFFFF)
    return _dotted(_DOTTED.fullmatch(told))


def accepted_version(details: Mapping[str, str]) -> Version | None:
    """The version that an execution has brought, if it brought firmware."""
    return _dotted(_ACCEPTED.fullmatch(details.get(_REASON, "")))


class ResetWatch:
    """Compares what devices report with what they accepted."""

    def __init__(self, *, executions: ExecutionStore, give_again: Callable[[Tx, AccountId, ThingName], object]) -> None:
        self._executions = executions
        self._give_again = give_again

    def reported(self, tx: Tx, account: AccountId, thing: ThingName, details: Mapping[str, str]) -> None:
        """A report was taken whose details may name the version that runs."""
        running = running_version(details)
        if running is None:
            return
        last = self._last_accepted(tx, account, thing, but=details)
        if last is not None and running < last:
            self._give_again(tx, account, thing)

    def _last_accepted(self, tx: Tx, account: AccountId, thing: ThingName, *, but: Mapping[str, str]) -> Version | None:
        succeeded = self._executions.of_thing(
            tx, account, thing, status=ExecutionStatus.SUCCEEDED, job=None, before=None, limit=LOOKED_AT_MAX
        )
        # The report itself may be the one that has just succeeded: what it updated is what ran before it.
        known: list[Execution] = [
            execution
            for execution in succeeded
            if not execution.outlived and execution.status_details != but and accepted_version(execution.status_details)
        ]
        if not known:
            return None
        return accepted_version(max(known, key=lambda execution: execution.last_updated_at).status_details)


def _dotted(found: re.Match[str] | None) -> Version | None:
    return None if found is None else _version(int(found[1]), int(found[2]), int(found[3]))


def _version(major: int, minor: int, build: int) -> Version | None:
    return (major, minor, build) if major or minor else None
