"""What the broker holds in memory for one client id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from overair.basics.clock import Instant
from overair.basics.errors import LimitExceeded
from overair.basics.ids import AccountId, CertificateId, ClientId
from overair.server.gateway.model import BrokerLimits, Link
from overair.wire.mqtt.session import Mode, ServerSession, SessionLimits

LimitsFor = Callable[[AccountId], BrokerLimits]


class SessionRecord:
    """One client id's session: live, or persistent and waiting for its client.

    Durable messages of a persistent session are in the store; ``loaded_to`` is the highest position handed to the session
    object. ``behind`` says that the store may hold more than that, so that live delivery must not overtake it.
    """

    __slots__ = (
        "account",
        "behind",
        "client_id",
        "dropped",
        "expires",
        "expiry_ms",
        "heard_to",
        "identifier",
        "last_position",
        "link",
        "loaded_to",
        "loading",
        "owner",
        "persistent",
        "queued_count",
        "queued_size_bytes",
        "ready",
        "session",
        "sizes",
        "version",
    )

    def __init__(self, *, account: AccountId, client_id: ClientId, persistent: bool, limits: BrokerLimits) -> None:
        self.account = account
        self.client_id = client_id
        self.persistent = persistent
        self.session: ServerSession[int | None] = ServerSession(
            mode=Mode.AWS,
            limits=SessionLimits(
                in_flight_count_max=limits.in_flight_count_max,
                pending_count_max=limits.pending_count_max,
                pending_size_bytes_max=limits.pending_size_bytes_max,
            ),
        )
        self.link: Link | None = None
        self.owner: CertificateId | None = None
        """The certificate that began it; None for one from before a restart."""
        self.dropped = False
        """Forgotten: a clean session began, or its time was over."""
        self.ready = False
        """CONNACK is written: messages may follow."""
        self.expires: Instant | None = None
        self.expiry_ms = limits.session_expiry_ms if persistent else 0
        """How long it outlives its connection; 0: it ends with it, although a stored one is stored until then."""
        self.identifier = ""
        self.version = 0
        self.last_position = 0
        self.loaded_to = 0
        self.behind = False
        self.loading = False
        self.queued_count = 0
        self.queued_size_bytes = 0
        self.sizes: dict[int, int] | None = None
        self.heard_to = 0
        """The last notice of the outbox that its former holder has handed to it; 0 where it always was here."""

    def has_room(self, size_bytes: int, limits: BrokerLimits) -> bool:
        """Whether the store may keep one more message for this session."""
        return (
            self.queued_count < limits.queued_count_max and self.queued_size_bytes + size_bytes <= limits.queued_size_bytes_max
        )

    def queue(self, size_bytes: int) -> int:
        """Count one more stored message; its position."""
        self.last_position += 1
        self.queued_count += 1
        self.queued_size_bytes += size_bytes
        if self.sizes is None:
            self.sizes = {}
        self.sizes[self.last_position] = size_bytes
        return self.last_position

    def unqueue(self, position: int) -> None:
        """Count one stored message less. Sizes from before a restart are known only in sum: the mean stands for each."""
        known = self.sizes.pop(position, None) if self.sizes else None
        size = known if known is not None else self.queued_size_bytes // max(1, self.queued_count)
        self.queued_count = max(0, self.queued_count - 1)
        self.queued_size_bytes = max(0, self.queued_size_bytes - size) if self.queued_count else 0


class SessionCounts:
    """How many sessions each certificate has begun: one that may call itself anything must not fill the memory of all."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[AccountId, CertificateId]] = Counter()

    def new(self, link: Link, limits: BrokerLimits, *, persistent: bool) -> SessionRecord:
        """A session that counts until it has ``ended``.

        Raises:
            LimitExceeded: the certificate has as many as it may.
        """
        owner = (link.account, link.certificate_id)
        if self._counts[owner] >= limits.sessions_of_certificate_count_max:
            raise LimitExceeded(
                f"A certificate has at most {limits.sessions_of_certificate_count_max} sessions, live and waiting. Connect "
                "with a client id that has one, or with a clean session.",
                subject="sessions",
            )
        self._counts[owner] += 1
        record = SessionRecord(account=link.account, client_id=link.client_id, persistent=persistent, limits=limits)
        record.owner = link.certificate_id
        return record

    def ended(self, record: SessionRecord) -> None:
        """Mark a session as forgotten; the second time has no effect."""
        if not record.dropped and record.owner is not None:
            owner = (record.account, record.owner)
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]
        record.dropped = True
