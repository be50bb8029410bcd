"""What every room stands on: the records, the keys wrapped in them, the account of what was done, and the clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import IdSource
from overair.server.audit.heads import AuditHeads
from overair.server.audit.observed import AuditWriter, Observed
from overair.server.audit.service import AuditedWork, AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.cluster import Cluster
from overair.server.composition.audit_key import AuditKey
from overair.server.composition.restored import take_note
from overair.server.config import Settings
from overair.server.joined import open_records
from overair.server.keyring.holders import HolderSettings, KeyHolders
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.store import keys as keyring_table
from overair.server.keyring.wrapping import open_secret_box, read_passphrase
from overair.server.nodes.model import Role
from overair.server.state_directory import StateDirectory
from overair.server.storage.migrations import upgrade
from overair.server.workers.loop import WorkerLoop

logger = structlog.get_logger("overair")

AUDIT_BATCH_S: Final = 0.5
"""How long reads and denials are gathered before they are written down."""


class Ground:
    """Opens the records and brings them to their newest shape; ``closing`` closes them."""

    def __init__(
        self,
        settings: Settings,
        place: Place,
        state: StateDirectory,
        closing: AsyncExitStack,
        *,
        clock: Clock,
        ids: IdSource,
        schedule_clock: Clock,
        after_step: Callable[[str], None],
        role: Role | None,
        download_url: Callable[[], str],
        operator_address: Callable[[], str],
    ) -> None:
        self.settings = settings
        self.place = place
        self.state = state
        self.closing = closing
        self.clock = clock
        self.ids = ids
        self.schedule_clock = schedule_clock
        self.after_step = after_step
        self.role = role
        self.download_url = download_url
        self.operator_address = operator_address
        self.work = open_records(settings, state, clock)
        closing.callback(self.work.close)
        upgrade(self.work.engine)
        self.cluster = Cluster(settings, place.account, self.work, closing, role=role, clock=clock, ids=ids)
        passphrase = read_passphrase(settings.key_passphrase_file) if settings.key_passphrase_file else None
        self.secret_box = open_secret_box(state.wrapping_key_file, passphrase=passphrase, ids=ids)
        if self.secret_box.is_changing:
            logger.warning("a change of the wrapping key was cut short: stop the server and run overair keys rewrap again")
        holders = KeyHolders(
            HolderSettings(
                pkcs11_module=settings.pkcs11_module,
                pkcs11_pin_file=settings.pkcs11_pin_file,
                key_services=settings.key_service,
                home=place.account,
            )
        )
        closing.callback(holders.close)
        self.keyring = Keyring(SqlKeyStore(), self.secret_box, clock=clock, ids=ids, holders=holders)
        self.audit_store = SqlAuditStore()
        self.audited = AuditedWork(self.work, self.audit_store, clock=clock, ids=ids)
        self.audit_trail = AuditTrail(self.audit_store, clock=clock, ids=ids)
        self.restores = take_note(state, self.work, self.audit_trail, account=place.account, clock=clock)
        self.audit_heads = AuditHeads(self.audit_store, AuditKey(self.keyring), clock=clock)
        self.observed = Observed(home=place.account, clock=clock, ids=ids)
        self.keyring.watched_by(self.observed)
        self.audit_writer = AuditWriter(work=self.work, observed=self.observed, store=self.audit_store)
        closing.push_async_callback(self.audit_writer.finish)
        self.server_certificate: ServerCertificateRenewal
        """Made with the workers too: it is the one of them that operators speak to."""
        self.workers: WorkerLoop
        """Engaged last of all (``standing_work.py``), since they work for every room."""

    def wake(self, name: str | None = None) -> None:
        """There may be work for one worker, or for all, in this process. On the event loop, once the server has started."""
        self.workers.wake(name)

    def look_at_server_certificate(self) -> None:
        """What is shown may be another one now. On the event loop."""
        self.server_certificate.ask()
        self.wake(self.server_certificate.name)

    def write_audit_soon(self) -> None:
        """There is something to write down. From a thread without an event loop it waits for the workers' next tick, which is
        as soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(AUDIT_BATCH_S, self.workers.wake, AuditWriter.name)

    async def scrub_keys(self) -> None:
        """Leave nothing in the records' files of the keys that are gone."""
        await self.work.scrub(keyring_table)
