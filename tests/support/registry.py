"""The registry's rooms, composed as the server composes them, over a test's records."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from overair.basics.clock import Clock
from overair.basics.ids import AccountId, CertificateId, GroupName, IdSource, ThingName
from overair.basics.redacted import Redacted
from overair.basics.work import Tx, Work
from overair.server.certificates.acm import AcmService
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.certificates.transfer_store import SqlTransferStore
from overair.server.certificates.transfers import CertificateTransfers
from overair.server.devices.admission import Admissions
from overair.server.devices.authority import RegistryAuthority
from overair.server.devices.decryption import DecryptionService
from overair.server.devices.model import GENEROUS, RegistryLimits
from overair.server.devices.policies import CertificateLinks, PoliciesService
from overair.server.devices.service import DevicesService
from overair.server.devices.store import (
    SqlAdmissionStore,
    SqlGroupStore,
    SqlPolicyStore,
    SqlTagStore,
    SqlThingStore,
    SqlTypeStore,
)
from overair.server.devices.store.decryption import SqlDecryptionStore
from overair.server.devices.tags import TagsService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.devices.thing_types import ThingTypesService
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import SecretBox


@dataclass(slots=True)
class RecordingSessions:
    """A gateway that only notes what it was asked to judge again."""

    asked: list[frozenset[CertificateId] | None] = field(default_factory=list)

    def reconsider(self, account: AccountId, certificates: Collection[CertificateId] | None) -> None:
        self.asked.append(None if certificates is None else frozenset(certificates))

    def reconsider_everything(self) -> None:
        self.asked.append(None)


@dataclass(slots=True)
class RecordingMembership:
    """A watcher of groups that notes who came and went."""

    heard: list[tuple[str, ...]] = field(default_factory=list)

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        self.heard.append(("joined", thing, group))

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        self.heard.append(("left", thing, group))

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        self.heard.append(("deleted", thing))


class Registry:
    """Certificates and devices, ready to use."""

    def is_known(self, tx: Tx, account: AccountId) -> bool:
        """Which accounts there are (``transfers.KnownAccounts``)."""
        return account in self.known_accounts

    def __init__(self, work: Work, clock: Clock, ids: IdSource, *, limits: RegistryLimits = GENEROUS) -> None:
        self.work = work
        self.keyring = Keyring(SqlKeyStore(), SecretBox(Redacted(bytes(32)), ids), clock=clock, ids=ids)
        certificate_store = SqlCertificateStore()
        self.authorities = AuthoritiesService(store=certificate_store, keys=self.keyring, clock=clock, ids=ids)
        self.certificates = CertificatesService(store=certificate_store, clock=clock, ids=ids, authorities=self.authorities)
        self.known_accounts: set[AccountId] = set()
        self.transfers = CertificateTransfers(
            store=SqlTransferStore(), certificates=self.certificates, accounts=self, clock=clock
        )
        self.acm = AcmService(store=certificate_store, keys=self.keyring, clock=clock, ids=ids)
        things, groups, policies = SqlThingStore(), SqlGroupStore(), SqlPolicyStore()
        self.authority = RegistryAuthority(
            work=work,
            admissions=Admissions(store=SqlAdmissionStore(), certificates=self.certificates),
            clock=clock,
            region="us-east-1",
            domain_names=("Fleet.example.com", "127.0.0.1"),
        )
        self.sessions = RecordingSessions()
        self.authority.watched_by(self.sessions)
        self.certificates.used_by(CertificateLinks(policies=policies, things=things, access_changed=self.authority))
        self.tags = TagsService(store=SqlTagStore())
        self.types = ThingTypesService(store=SqlTypeStore(), tags=self.tags, clock=clock, ids=ids, limits=limits)
        self.groups = ThingGroupsService(
            store=groups,
            things=things,
            policies=policies,
            tags=self.tags,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
            limits=limits,
        )
        self.decryption = DecryptionService(store=SqlDecryptionStore(), things=things, clock=clock)
        self.groups.watched_by(self.decryption)
        self.membership = RecordingMembership()
        self.groups.watched_by(self.membership)
        self.policies = PoliciesService(
            store=policies,
            groups=groups,
            things=things,
            certificates=self.certificates,
            tags=self.tags,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
            limits=limits,
        )
        self.devices = DevicesService(
            store=things,
            types=self.types,
            groups=self.groups,
            certificates=self.certificates,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
            limits=limits,
        )
