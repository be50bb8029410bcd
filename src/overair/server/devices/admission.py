"""Who a certificate is when it connects, as the records tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.ids import AccountId, CertificateId, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.certificates.model import DeviceCertificate
from overair.server.certificates.service import CertificatesService
from overair.server.devices.blocks import Block

CLIENT_ID_LENGTH_MAX = 128
"""A longer client id names no thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedPolicy:
    """A policy with its operative document."""

    name: PolicyName
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenFor:
    """The thing that a connection speaks for: the one named like its client id, if the certificate is attached to it; or the
    one that the certificate belongs to exclusively, whatever the client id (wire reference §8.5)."""

    thing: ThingName
    type_name: ThingTypeName | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the records say about (certificate, client id)."""

    certificate: DeviceCertificate
    thing: SpokenFor | None
    policies: tuple[AttachedPolicy, ...]
    """Of the certificate and of the thing's groups and all above them; by name, each once."""
    block: Block | None = None
    """What keeps it out whatever its status."""


class AdmissionStore(Protocol):
    """The reads behind an admission."""

    def policies_of_certificate(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Sequence[AttachedPolicy]: ...

    def policies_of_groups(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[AttachedPolicy]:
        """Of every group that the thing is in, directly or through a child group."""
        ...

    def spoken_for(self, tx: Tx, account: AccountId, certificate: CertificateId, client_id: str) -> SpokenFor | None: ...

    def block_of(self, tx: Tx, account: AccountId, certificate: CertificateId, origin: str) -> Block | None:
        """Of the certificate, of a thing that it is attached to, or of its origin."""
        ...


class Admissions:
    """Gathers an admission in one unit of reading."""

    def __init__(self, *, store: AdmissionStore, certificates: CertificatesService) -> None:
        self._store = store
        self._certificates = certificates

    def find(self, tx: Tx, certificate: CertificateId, client_id: str | None) -> Admission | None:
        """Everything about a connection; None where nobody registered the certificate."""
        registered = self._certificates.find_anywhere(tx, certificate)
        if registered is None:
            return None
        account = registered.account
        # A client id that can be no thing's name selects none, but an exclusive attachment holds for any.
        selecting = client_id or ""
        if len(selecting) > CLIENT_ID_LENGTH_MAX or "\0" in selecting:
            selecting = ""
        thing = self._store.spoken_for(tx, account, certificate, selecting)
        policies = {policy.name: policy for policy in self._store.policies_of_certificate(tx, account, certificate)}
        if thing is not None:
            policies |= {policy.name: policy for policy in self._store.policies_of_groups(tx, account, thing.thing)}
        return Admission(
            certificate=registered,
            thing=thing,
            policies=tuple(policies[name] for name in sorted(policies)),
            block=self._store.block_of(tx, account, certificate, registered.origin),
        )
