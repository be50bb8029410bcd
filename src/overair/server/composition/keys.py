"""What ends when, and which keys are rotated by their names: what each room says of its own."""

from __future__ import annotations

from collections.abc import Callable

from overair.basics.clock import Instant
from overair.server.certificates.endings import CertificateEndings
from overair.server.certificates.rotation import AuthorityRotation
from overair.server.certificates.store import SqlCertificateStore
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.image_repository.endings import MetadataEndings
from overair.server.keyring.calendar import Calendar
from overair.server.keyring.calendar_worker import ExpiryWarnings
from overair.server.keyring.operator_api import KeyOperations
from overair.server.keyring.rotation import Rotations
from overair.server.keyring.store import SqlNoticeStore
from overair.server.provisioning.endings import ProvisioningEndings
from overair.server.roots.rotation import RoleKeyRotation


class KeyRooms:
    """The rest of the room ``keyring``, which asks rooms above it."""

    def __init__(
        self,
        ground: Ground,
        *,
        operators: OperatorRooms,
        registry: RegistryRooms,
        entrance: EntranceRooms,
        repositories: RepositoryRooms,
    ) -> None:
        clock = ground.clock
        self.file_end: Callable[[], Instant | None] = lambda: None
        """When the server certificate out of the user's own files ends; named by who shows it (``standing_work.py``)."""
        self.calendar = Calendar(SqlNoticeStore(), ground.keyring, trail=ground.audit_trail, clock=clock)
        self.calendar.told_by(
            CertificateEndings(SqlCertificateStore(), clock=clock, home=ground.place.account, file_end=lambda: self.file_end()),
            ProvisioningEndings(entrance.store, clock=clock),
            MetadataEndings(roots=repositories.roots, images=repositories.images),
        )
        roles = RoleKeyRotation(repositories.roots)
        rotations = Rotations(ground.keyring)
        rotations.done_by(roles, AuthorityRotation(registry.authorities))
        erasure = repositories.erasure

        async def erase() -> None:
            erasure.note()
            await erasure.erase_now_or_soon()

        self.operations = KeyOperations(
            work=ground.audited,
            keyring=ground.keyring,
            calendar=self.calendar,
            rotations=rotations,
            offline=roles,
            erase=erase,
            clock=clock,
        )
        self.warnings = ExpiryWarnings(
            work=ground.work,
            calendar=self.calendar,
            accounts=lambda tx: [known.account for known in operators.accounts.all(tx)],
            clock=clock,
        )
