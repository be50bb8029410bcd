"""From facts about one thing to a chain of reasons. Pure: what is true comes in, sentences go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.basics.ids import CertificateId, GroupName, JobId, OtaUpdateId, StreamId, ThingName
from overair.server.broker.model import ClientPresence
from overair.server.certificates.model import CertificateStatus
from overair.server.devices.decryption import Declared
from overair.server.director.service import VehicleFacts
from overair.server.explain import signatures as signed
from overair.server.explain import vehicle as vehicles
from overair.server.explain.decryption import not_offered, standing
from overair.server.jobs.model import Execution
from overair.server.signing.model import Standing
from overair.server.streams.asked import REPEATS_TOLD, ROUNDS_MAX
from overair.server.updates.model import Update, UpdateStatus
from overair.wire.agent_reasons import blocks_received, is_signature_refusal, reason_in_words
from overair.wire.job_messages import ExecutionStatus

OTHERS_NAMED_MAX: Final = 5
SILENT_AFTER_MS: Final = 60_000
"""A connected agent asks for its job at once; one that hasn't after this long is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCertificate:
    """A certificate attached to the thing. ``status`` None: its registration is gone."""

    id: CertificateId
    status: CertificateStatus | None
    expired: bool = False
    pem: str | None = None

    @property
    def may_connect(self) -> bool:
        return self.status is CertificateStatus.ACTIVE and not self.expired


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """A job that is meant for the thing and hasn't reached it, and what it waits for."""

    job: JobId
    per_minute: int | None = None
    """At what rate it goes out; None: as fast as it can."""
    waiting: int = 0
    """Things that wait for their turn, this one among them."""
    opens_at: Instant | None = None
    """When its schedule or its next maintenance window lets it go on; None: it may now."""
    cancelled: str | None = None
    """Why it never will: it was cancelled."""
    again: bool = False
    """It has reached it before: the next attempt waits."""
    ruled_out_by: GroupName | None = None
    """The thing group that takes only images which were signed away from the server, and lets this job reach no member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """How the thing asks for the blocks of the job that it is at, as far as this process has seen or was told."""

    repeats: int
    """How often in a row it has asked the very same again."""
    first_block: int
    rounds: int
    """How often it has begun with the first block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the records say of one thing."""

    thing: ThingName
    certificates: Sequence[HeldCertificate]
    pending: Sequence[Execution]
    """What it is doing and what waits, in the order of ``$next``."""
    last: Execution | None
    """The one that changed last, where nothing is pending."""
    rolling_out: Sequence[HeldBack]
    """Jobs that are meant for it and haven't reached it."""
    updates: Sequence[Update]
    """Newest first, those meant for it that aren't whole: failed, or still being created."""
    unsigned_jobs: frozenset[JobId] = field(default_factory=frozenset)
    heard_at: Instant | None = None
    """When it last reported on a job; None: never, as far as its executions tell."""
    stream: StreamId | None = None
    """Of the first pending job, where it names one."""
    vehicle: VehicleFacts | None = None
    """None: it is no Uptane device."""
    blocked: bool = False
    """By an operator's word, at the device port."""
    cancelled: str | None = None
    """Why the last job was cancelled, where it was."""
    signatures: Sequence[Standing] = ()
    """Under which signatures of Signer the first pending job goes out, or the last one went out."""
    identity: Sequence[str] = ()
    """What is told of its certificates whatever it does (``certificates.standing``)."""
    decryption: Declared | None = None
    """What it has declared of its decryption keys; None: never anything."""


Obstacles = Mapping[CertificateId, Sequence[str]]
"""What stands in the way of each certificate that may connect at all; nothing where it is absent or empty."""


def explain(
    facts: Facts, presence: ClientPresence, obstacles: Obstacles, *, now: Instant, downloads: Sequence[Download] = ()
) -> tuple[str, ...]:
    """The chain, each link the reason for the one before it. Never empty."""
    if facts.vehicle is not None:
        return (*_of_vehicle(facts, facts.vehicle), *facts.identity)
    if facts.pending:
        chain = [*_pending(facts, presence, now=now), *_odd_downloads(downloads)]
        chain += signed.told(facts.signatures, now=now, goes_out=True)
    elif facts.last is not None:
        chain = _ended(facts, facts.last, unsigned=facts.last.job in facts.unsigned_jobs)
        chain += [*_of_signatures(facts, facts.last, now=now), *_not_yet(facts)]
    else:
        chain = [f"{facts.thing} has nothing to do: no job was ever given to it.", *_not_yet(facts)]
    if not_offered(facts.thing, None if facts.pending else facts.last, facts.decryption) is None:
        chain += standing(facts.decryption)
    if presence.connected:
        if not facts.pending:
            chain.append(f"{facts.thing} is connected and waits.")
    else:
        chain += _offline(facts, presence)
    usable = [certificate for certificate in facts.certificates if certificate.may_connect]
    # One certificate that nothing stands in the way of is enough.
    if usable and all(obstacles.get(certificate.id) for certificate in usable):
        for certificate in usable:
            chain += [f"Certificate {certificate.id[:16]}…: {obstacle}" for obstacle in obstacles[certificate.id]]
    return (*chain, *facts.identity)


def _of_vehicle(facts: Facts, vehicle: VehicleFacts) -> list[str]:
    since = None
    if facts.pending:
        chain = vehicles.under_way(vehicle, facts.pending[0])
        if len(facts.pending) > 1:
            chain.insert(1, _queued_behind(facts.pending))
    elif facts.last is not None:
        since = facts.last.queued_at
        chain = [*_ended(facts, facts.last, unsigned=False), *_not_yet(facts)]
    else:
        chain = [f"{facts.thing} has nothing to do: no job was ever given to it.", *_not_yet(facts)]
    chain += vehicles.standing(vehicle, since=since, blocked=facts.blocked)
    if not facts.certificates:
        chain.append("No certificate is attached to it, so that no device can come as it. Provision it anew.")
    elif not any(certificate.may_connect for certificate in facts.certificates):
        chain += [_why_not(certificate) for certificate in facts.certificates]
    return chain


def _queued_behind(pending: Sequence[Execution]) -> str:
    first, others = pending[0], pending[1:]
    named = ", ".join(execution.job for execution in others[:OTHERS_NAMED_MAX])
    more = f" and {len(others) - OTHERS_NAMED_MAX} more" if len(others) > OTHERS_NAMED_MAX else ""
    return f"Queued behind {first.job}, one at a time: {named}{more}."


def _pending(facts: Facts, presence: ClientPresence, *, now: Instant) -> list[str]:
    first, others = facts.pending[0], facts.pending[1:]
    if first.status is ExecutionStatus.IN_PROGRESS:
        chain = [f"{facts.thing} is at job {first.job} since {_moment(first.started_at or first.queued_at)}: {_doing(first)}."]
        if presence.connected:
            chain.append(f"It is connected and said so last at {_moment(first.last_updated_at)}.")
    else:
        chain = [f"{facts.thing} has not started job {first.job}, which is queued for it since {_moment(first.queued_at)}."]
        if presence.connected and now - first.queued_at > SILENT_AFTER_MS:
            chain.append(
                "It is connected but has never started it. Agents drop a job without a word when its file is empty or has more "
                "blocks than their bitmap, when the document is too long for their buffer, or while their policy doesn't let "
                "them receive the answer."
            )
        elif presence.connected:
            chain.append("It is connected and was told a moment ago.")
    if others:
        chain.insert(1, _queued_behind(facts.pending))
    if first.job in facts.unsigned_jobs:
        chain.append(f"{first.job} is UNSIGNED: a device that checks signatures will refuse it.")
    return chain


def _doing(execution: Execution) -> str:
    details = execution.status_details
    self_test = details.get("self_test")
    if self_test == "ready":
        return "the image is there and verified, and it restarts into it"
    if self_test == "active":
        return "it runs the new image, which tests itself"
    if self_test is not None:
        return f"self-test {self_test}"
    blocks = blocks_received(details)
    return f"{blocks[0]} of {blocks[1]} blocks received" if blocks is not None else "no block reported yet"


_ENDS: Final[Mapping[ExecutionStatus, str]] = {
    ExecutionStatus.SUCCEEDED: "has done job {job}",
    ExecutionStatus.FAILED: "has refused or failed job {job}",
    ExecutionStatus.REJECTED: "has rejected job {job}",
    ExecutionStatus.TIMED_OUT: "ran out of time on job {job}",
    ExecutionStatus.CANCELED: "was told to drop job {job}, which an operator or an abort rule cancelled",
    ExecutionStatus.REMOVED: "left the group that job {job} is for",
}


def _ended(facts: Facts, execution: Execution, *, unsigned: bool) -> list[str]:
    kept_back = not_offered(facts.thing, execution, facts.decryption)
    if kept_back is not None:
        return kept_back
    what = _ENDS[execution.status].format(job=execution.job)
    chain = [f"{facts.thing} {what} at {_moment(execution.last_updated_at)}, and has nothing else to do."]
    reason = execution.status_details.get("reason")
    if reason:
        words = reason_in_words(reason, updated_by=execution.status_details.get("updatedBy", ""))
        chain.append(f"Its own words: {words.rstrip('.')}.")
    elif execution.status is ExecutionStatus.TIMED_OUT:
        chain.append(f"The last that it said: {_doing(execution)}.")
    if execution.status is ExecutionStatus.CANCELED and facts.cancelled:
        chain.append(f"The job was cancelled: {facts.cancelled}")
    if unsigned:
        chain.append(f"{execution.job} was UNSIGNED.")
    return chain


def _of_signatures(facts: Facts, last: Execution, *, now: Instant) -> list[str]:
    chain = signed.told(facts.signatures, now=now, goes_out=False)
    if is_signature_refusal(last.status_details.get("reason", "")):
        chain = [*signed.named(facts.signatures), *chain]
    return chain


def _not_yet(facts: Facts) -> list[str]:
    chain = [_held_back(held) for held in facts.rolling_out[:OTHERS_NAMED_MAX]]
    if len(facts.rolling_out) > OTHERS_NAMED_MAX:
        chain.append(f"So are {len(facts.rolling_out) - OTHERS_NAMED_MAX} more jobs.")
    for update in facts.updates[:OTHERS_NAMED_MAX]:
        # An update that failed before the thing's last work is no reason for anything now.
        if facts.last is not None and update.created_at <= facts.last.queued_at:
            continue
        chain.append(_update(update.id, update))
    return chain


def _held_back(held: HeldBack) -> str:
    if held.cancelled is not None:
        return f"Job {held.job} was meant for it and was cancelled before its turn came: {held.cancelled}"
    if held.ruled_out_by is not None:
        return (
            f"Job {held.job} is meant for it and leaves it out: thing group {held.ruled_out_by} takes only images that were "
            "signed away from this server, and the images of this job weren't. Sign them with `overair sign image` and ship "
            "them anew with `overair ship --signature`."
        )
    if held.again:
        when = "when its turn comes"
        if held.opens_at is not None:
            when = f"not before {_moment(held.opens_at)}"
        elif held.per_minute is not None:
            when = f"in its turn, at a rate of {held.per_minute:,} a minute"
        return f"Job {held.job} comes to it once more: {when}."
    if held.opens_at is not None:
        return (
            f"Job {held.job} is meant for it and may not go out before {_moment(held.opens_at)}: that is when its window opens."
        )
    if held.per_minute is not None:
        turn = f"{held.waiting:,} things wait for their turn" if held.waiting > 1 else "it is the next"
        return f"Job {held.job} is meant for it and goes out at a rate of {held.per_minute:,} a minute: {turn}."
    return f"Being rolled out and not at it yet: {held.job}."


def _odd_downloads(downloads: Sequence[Download]) -> list[str]:
    chain = []
    for download in downloads:
        if download.rounds > ROUNDS_MAX:
            chain.append(
                f"It downloads the same file in a LOOP: it has begun {download.rounds} times with its first block. A device "
                "does that when it can't keep what it received, or restarts before it has reported: look at its storage and at "
                "its log."
            )
        if download.repeats >= REPEATS_TOLD:
            chain.append(
                f"It has asked for the same blocks, from {download.first_block} on, {download.repeats + 1} times in a row, and "
                "was answered each time: the answers don't reach it, or are larger than its buffer."
            )
    return chain


def _update(update_id: OtaUpdateId, update: Update) -> str:
    if update.status is UpdateStatus.CREATE_FAILED and update.failure is not None:
        return f"OTA update {update_id} was meant for it but is CREATE_FAILED: {update.failure.code}: {update.failure.message}"
    return f"OTA update {update_id} is meant for it and still being created ({update.status}): next is {update.step}."


def _offline(facts: Facts, presence: ClientPresence) -> list[str]:
    if presence.gone_since is not None:
        chain = [f"It is offline since {_moment(presence.gone_since)}."]
    else:
        heard = f"its last report came at {_moment(facts.heard_at)}" if facts.heard_at else "it has never reported on a job"
        chain = [f"It is not connected, and has not been since this server last started; {heard}."]
    if not facts.certificates:
        chain.append("No certificate is attached to it, so that no device can connect as it. Enroll it, or attach one.")
    elif not any(certificate.may_connect for certificate in facts.certificates):
        chain += [_why_not(certificate) for certificate in facts.certificates]
    return chain


def _why_not(certificate: HeldCertificate) -> str:
    name = f"Its certificate {certificate.id[:16]}…"
    if certificate.status is None:
        return f"{name} is registered no more."
    if certificate.status is not CertificateStatus.ACTIVE:
        return f"{name} is {certificate.status.value}: only an ACTIVE one may connect."
    return f"{name} has expired. Give the device a new one."


def _moment(instant: Instant) -> str:
    return as_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")
