"""Who devices are and what their certificates may do; and who we are to them."""

from __future__ import annotations

from overair.server.certificates.acm import AcmService
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.certificates.server_files import ServerFiles
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.certificates.transfer_store import SqlTransferStore
from overair.server.certificates.transfers import CertificateTransfers
from overair.server.composition.ground import Ground
from overair.server.composition.operators import OperatorRooms
from overair.server.devices.admission import Admissions
from overair.server.devices.authority import RegistryAuthority
from overair.server.devices.blocks import BlocksService
from overair.server.devices.decryption import DecryptionService
from overair.server.devices.policies import CertificateLinks, PoliciesService
from overair.server.devices.service import DevicesService
from overair.server.devices.store.admissions import SqlAdmissionStore
from overair.server.devices.store.blocks import SqlBlockStore
from overair.server.devices.store.decryption import SqlDecryptionStore
from overair.server.devices.store.groups import SqlGroupStore
from overair.server.devices.store.policies import SqlPolicyStore
from overair.server.devices.store.tags import SqlTagStore
from overair.server.devices.store.things import SqlThingStore
from overair.server.devices.store.types import SqlTypeStore
from overair.server.devices.tags import TagsService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.devices.thing_types import ThingTypesService


class RegistryRooms:
    """The rooms ``certificates`` and ``devices``."""

    def __init__(self, ground: Ground, operators: OperatorRooms) -> None:
        clock, ids = ground.clock, ground.ids
        certificate_store = SqlCertificateStore()
        self.authorities = AuthoritiesService(store=certificate_store, keys=ground.keyring, clock=clock, ids=ids)
        settings = ground.settings
        self.server_files: ServerFiles | None = None
        if settings.server_certificate_file and settings.server_key_file and settings.server_ca_file:
            self.server_files = ServerFiles(
                certificate_file=settings.server_certificate_file,
                key_file=settings.server_key_file,
                ca_file=settings.server_ca_file,
            )
            self.authorities.shown_instead(self.server_files)
        self.certificates = CertificatesService(store=certificate_store, clock=clock, ids=ids, authorities=self.authorities)
        self.transfers = CertificateTransfers(
            store=SqlTransferStore(), certificates=self.certificates, accounts=operators.accounts, clock=clock
        )
        self.acm = AcmService(store=certificate_store, keys=ground.keyring, clock=clock, ids=ids)

        things, groups, policies = SqlThingStore(), SqlGroupStore(), SqlPolicyStore()
        self.tags = TagsService(store=SqlTagStore())
        self.admissions = Admissions(store=SqlAdmissionStore(), certificates=self.certificates)
        self.authority = RegistryAuthority(
            work=ground.work,
            admissions=self.admissions,
            clock=clock,
            region=ground.place.region,
            domain_names=ground.settings.host,
        )
        self.authority.first_use_noted_by(self.certificates)
        self.types = ThingTypesService(store=SqlTypeStore(), tags=self.tags, clock=clock, ids=ids)
        self.groups = ThingGroupsService(
            store=groups,
            things=things,
            policies=policies,
            tags=self.tags,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
        )
        self.devices = DevicesService(
            store=things,
            types=self.types,
            groups=self.groups,
            certificates=self.certificates,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
        )
        self.policies = PoliciesService(
            store=policies,
            groups=groups,
            things=things,
            certificates=self.certificates,
            tags=self.tags,
            access_changed=self.authority,
            clock=clock,
            ids=ids,
        )
        self.certificates.used_by(CertificateLinks(policies=policies, things=things, access_changed=self.authority))
        self.decryption = DecryptionService(store=SqlDecryptionStore(), things=things, clock=clock)
        self.blocks = BlocksService(store=SqlBlockStore(), things=things, access_changed=self.authority, clock=clock)
