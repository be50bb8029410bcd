"""The device gateway: makes a connection of each transport, keeps time for all of them, and lets verdicts reach them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine

import structlog

from overair.basics.clock import Clock
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, CertificateId, ClientId, IdSource
from overair.server.gateway.authority import DeviceAuthority, DeviceIdentity, Refusal, RefusalCode
from overair.server.gateway.connection import DeviceConnection
from overair.server.gateway.denials import DenialWitness, Unwitnessed
from overair.server.gateway.limits import GatewayLimits
from overair.server.gateway.model import DisconnectReason, SessionKeeper
from overair.server.gateway.reserved_topics import ReservedTopics

RECONSIDERED_AT_ONCE_MAX = 32
CHANGES_REMEMBERED_MAX = 1000
CONNECTS_REMEMBERED_MAX = 10_000

logger = structlog.get_logger("overair.gateway")


class Gateway:
    """Every MQTT connection of this process. Implements ``authority.LiveSessions``.

    ``protocol`` is what a listener calls for each accepted transport. Doors are registered with ``topics`` before the start.
    """

    def __init__(
        self,
        *,
        authority: DeviceAuthority,
        broker: SessionKeeper,
        topics: ReservedTopics,
        limits_for: Callable[[AccountId], GatewayLimits],
        clock: Clock,
        ids: IdSource,
        denials: DenialWitness | None = None,
    ) -> None:
        self.authority = authority
        self.broker = broker
        self.topics = topics
        self.limits_for = limits_for
        self.clock = clock
        self.ids = ids
        self.denials = denials or Unwitnessed()
        self.verdicts_changed = 0
        """Counts ``reconsider`` calls, so that an admission under way notices that its verdict may be old."""
        self._operators_changed = 0
        self._connected_s: dict[tuple[AccountId, ClientId], float] = {}
        self.ended: Counter[DisconnectReason] = Counter()
        """How connections ended, by reason, since the start."""
        self._changes: deque[tuple[AccountId, frozenset[CertificateId] | None]] = deque(maxlen=CHANGES_REMEMBERED_MAX)
        self._connections: set[DeviceConnection] = set()
        self._operators: set[DeviceConnection] = set()
        self._by_certificate: dict[tuple[AccountId, CertificateId], set[DeviceConnection]] = {}
        self._wheel: dict[int, set[DeviceConnection]] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._last_tick = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def protocol(self) -> DeviceConnection:
        """A protocol for one transport, whose ``get_extra_info("peer_der")`` is the client certificate's DER."""
        return DeviceConnection(self, asyncio.get_running_loop())

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Begin to keep time. On the event loop."""
        self.begin_at(asyncio.get_running_loop())

    def begin_at(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep time by this loop's clock from now on."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._last_tick = int(loop.time())
        self._ticker = loop.call_later(1, self.tick, loop)

    async def stop(self) -> None:
        """Close every connection and let what was begun end."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for connection in list(self._connections):
            connection.close(DisconnectReason.SERVER_INITIATED_DISCONNECT)
        await self.idle()

    async def idle(self) -> None:
        """Every admission, verdict and answer under way has ended."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Since Python 3.12 waiting for what has ended is no turn of the loop; a task leaves the set in one of its own.
            await asyncio.sleep(0)

    def connections(self) -> list[DeviceConnection]:
        """Those that are open now."""
        return list(self._connections)

    # -- verdicts -----------------------------------------------------------------------------------------------------

    def reconsider(self, account: AccountId, certificates: Collection[CertificateId] | None) -> None:
        """See ``authority.LiveSessions``."""
        self.verdicts_changed += 1
        self._changes.append((account, None if certificates is None else frozenset(certificates)))
        if certificates is None:
            affected = [each for (owner, _), held in self._by_certificate.items() if owner == account for each in held]
        else:
            affected = [each for name in certificates for each in self._by_certificate.get((account, name), ())]
        if affected:
            self.spawn(self._judge_again(affected))

    def reconsider_operators(self) -> None:
        """Judge every connection of an operator again: some key, identity or policy has changed. On the event loop."""
        self._operators_changed += 1
        if self._operators:
            self.spawn(self._judge_again(list(self._operators)))

    def reconsider_everything(self) -> None:
        """See ``authority.LiveSessions``."""
        for account in {connection.account for held in self._by_certificate.values() for connection in held}:
            self.reconsider(account, None)
        # Whoever is being admitted has no account yet.
        self.verdicts_changed += CHANGES_REMEMBERED_MAX + 1

    async def _judge_again(self, connections: list[DeviceConnection]) -> None:
        waiting = iter(connections)

        async def worker() -> None:
            for connection in waiting:
                verdict = await self.verdict(connection)
                if verdict is not None:
                    connection.judged(verdict)

        await asyncio.gather(*(worker() for _ in range(min(RECONSIDERED_AT_ONCE_MAX, len(connections)))))

    async def verdict(self, connection: DeviceConnection) -> DeviceIdentity | Refusal | None:
        """What the authority says about a connection now; None once it has ended. An authority that can't answer refuses."""
        while True:
            before = self.moment(connection)
            try:
                verdict = await self._judge(connection)
            except OverairError as error:
                return Refusal(reason=f"no verdict could be reached: {error}", code=RefusalCode.UNAVAILABLE)
            if connection.is_closed:
                return None
            if isinstance(verdict, Refusal):
                return verdict
            if not self.is_stale(connection, before, verdict.place.account, verdict.certificate_id):
                return verdict

    def moment(self, connection: DeviceConnection) -> int:
        """Before the authority is asked about a connection: what ``is_stale`` compares with."""
        return self.verdicts_changed if connection.proof is None else self._operators_changed

    def is_stale(self, connection: DeviceConnection, moment: int, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a verdict on this connection may be older than a change."""
        if connection.proof is not None:
            return moment != self._operators_changed
        return self.changed_since(moment, account, certificate)

    async def _judge(self, connection: DeviceConnection) -> DeviceIdentity | Refusal:
        if connection.proof is not None:
            return await connection.proof.admit(connection.client_id)
        return await self.authority.admit(
            connection.peer_der,
            connection.client_id,
            connection.username,
            connection.source_ip,
            connection.chain_der(),
            connection.domain_name,
        )

    def changed_since(self, moment: int, account: AccountId, certificate: CertificateId) -> bool:
        """Whether a verdict on this certificate may be older than a change; ``moment`` is ``verdicts_changed`` as it was.

        Changes of others don't count: a fleet being enrolled mustn't keep those who connect waiting.
        """
        count = self.verdicts_changed - moment
        if count > len(self._changes):
            return True
        recent = list(self._changes)[len(self._changes) - count :]
        return any(owner == account and (names is None or certificate in names) for owner, names in recent)

    def connects_too_soon(self, connection: DeviceConnection, connects_per_s_max: int) -> bool:
        """Whether a client id has connected too often; who was refused has not connected."""
        key, now_s = (connection.account, connection.client_id), asyncio.get_running_loop().time()
        if now_s - self._connected_s.get(key, float("-inf")) < 1 / connects_per_s_max:
            return True
        if len(self._connected_s) >= CONNECTS_REMEMBERED_MAX:
            self._connected_s = {each: at_s for each, at_s in self._connected_s.items() if now_s - at_s < 1}
        self._connected_s[key] = now_s
        return False

    # -- what connections tell ------------------------------------------------------------------------------------------

    def opened(self, connection: DeviceConnection) -> None:
        self._connections.add(connection)

    def admitted(self, connection: DeviceConnection) -> None:
        key = (connection.account, connection.certificate_id)
        self._by_certificate.setdefault(key, set()).add(connection)
        if connection.proof is not None:
            self._operators.add(connection)

    def closed(self, connection: DeviceConnection, reason: DisconnectReason) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._operators.discard(connection)
        self.ended[reason] += 1
        bucket = self._wheel.get(connection.bucket)
        if bucket is not None:
            bucket.discard(connection)
        if connection.certificate_id:
            key = (connection.account, connection.certificate_id)
            held = self._by_certificate.get(key)
            if held is not None:
                held.discard(connection)
                if not held:
                    del self._by_certificate[key]

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a task that the stop waits for; what it lets out is our mistake and is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the gateway failed", exc_info=task.exception())

    # -- time -----------------------------------------------------------------------------------------------------------

    def watch(self, connection: DeviceConnection, deadline_s: float) -> None:
        """Ask the connection whether it is overdue once its deadline (of the loop's clock) has passed, within a second.

        One wheel for all: an idle connection costs one look each keep-alive, and no timer of its own.
        """
        old = self._wheel.get(connection.bucket)
        if old is not None:
            old.discard(connection)
        connection.bucket = max(int(deadline_s), self._last_tick) + 1
        self._wheel.setdefault(connection.bucket, set()).add(connection)

    def tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Turn the wheel to the present second: once a second, by the gateway itself."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = loop.call_later(1, self.tick, loop)
        now_s = loop.time()
        for second in range(self._last_tick + 1, int(now_s) + 1):
            for connection in self._wheel.pop(second, ()):
                deadline_s = connection.deadline_s()
                if deadline_s <= now_s:
                    connection.overdue()
                elif deadline_s != float("inf"):
                    self._last_tick = second
                    self.watch(connection, deadline_s)
        self._last_tick = int(now_s)
