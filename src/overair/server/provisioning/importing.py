"""Devices of another server come over with their public certificates: each is registered as its thing's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.service import CertificatesService
from overair.server.provisioning.certificate_paths import refuse_private_keys
from overair.server.provisioning.enrolment import Belongings, Enrolment
from overair.server.provisioning.model import OPERATOR_ORIGIN, ProvisionedDevice, read_device_id
from overair.server.provisioning.ports import DeviceStore
from overair.server.provisioning.service import ProvisioningService

CERTIFICATES_MAX: Final = 10
"""Of one device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the records say of a device's certificates."""

    new: Sequence[pyca.Certificate] = ()
    """To be registered."""
    errors: Sequence[str] = ()
    warnings: Sequence[str] = ()


class CertificateImports:
    """Certificates of one device at a time."""

    def __init__(
        self,
        *,
        store: DeviceStore,
        enrolment: Enrolment,
        certificates: CertificatesService,
        provisioning: ProvisioningService,
        clock: Clock,
    ) -> None:
        self._store = store
        self._enrolment = enrolment
        self._certificates = certificates
        self._provisioning = provisioning
        self._clock = clock

    def name(self, device_id: str, certificates: Sequence[pyca.Certificate]) -> ThingName:
        """What a device is called here: by the one common name of its certificates; without any, by its id over there.

        Raises:
            InvalidRequest: that is no thing's name, or the certificates disagree. Subject ``device-id``.
        """
        names = {self._provisioning.name_in(certificate) for certificate in certificates}
        if len(names) > 1:
            raise InvalidRequest(
                f"The certificates name several devices: {', '.join(sorted(names))}.",
                subject="device-id",
                details={"field": "certificates"},
            )
        return names.pop() if names else read_device_id(device_id)

    def judge(self, tx: Tx, account: AccountId, thing: ThingName, certificates: Sequence[pyca.Certificate]) -> Judged:
        """Which certificates there are to register, and what stands in the way. Changes nothing."""
        new: list[pyca.Certificate] = []
        errors: list[str] = []
        warnings: list[str] = []
        if self._provisioning.is_blocked(tx, account, thing):
            errors.append(f"{thing} is blocked here: unblock it first (UnblockDevice).")
        attached = {each.id for each in self._enrolment.certificates_of(tx, account, thing)}
        for certificate in certificates:
            identity = x509.fingerprint(certificate)
            if identity in attached or certificate in new:
                continue
            if self._certificates.find_anywhere(tx, identity) is not None:
                errors.append(f"The certificate {identity} is registered here for another device or account.")
            elif self._clock.now() > x509.not_after(certificate):
                warnings.append(f"The certificate {identity} has expired and is left out.")
            else:
                try:
                    x509.accepted_public_key(certificate, field="certificate")
                    new.append(certificate)
                except InvalidRequest as weak:
                    errors.append(weak.message)
        if not new and not attached:
            warnings.append(
                "It comes without a certificate: whoever its authority's rule lets in under its name is the device."
            )
        return Judged(new=new, errors=errors, warnings=warnings)

    def keep_out(self, tx: Tx, account: AccountId, thing: ThingName, *, by: str) -> None:
        """The other server let it in no more, and so doesn't this one, whatever its authority's rule says."""
        if not self._provisioning.is_blocked(tx, account, thing):
            self._provisioning.block(tx, account, thing, reason="kept out by the server that it came from", by=by)

    def register(
        self, tx: Tx, place: Place, thing: ThingName, certificates: Sequence[pyca.Certificate], *, source_ip: str
    ) -> None:
        """Register what ``judge`` found new; the thing is made if it isn't there."""
        for certificate in certificates:
            identity = self._enrolment.enrol(
                tx, place, thing, certificate, origin=OPERATOR_ORIGIN, belongings=Belongings(), source_ip=source_ip
            )
            standing = self._store.find_device(tx, place.account, thing)
            self._store.put_device(
                tx,
                ProvisionedDevice(
                    account=place.account,
                    thing=thing,
                    origin=OPERATOR_ORIGIN,
                    certificate_id=identity,
                    created_at=self._clock.now(),
                    source_ip=source_ip,
                    registered_at=None if standing is None else standing.registered_at,
                ),
            )


def read_certificates(texts: Sequence[str]) -> list[pyca.Certificate]:
    """The public certificates of one device: of each text the first, whatever stands below it in a chain.

    Raises:
        InvalidRequest: subjects ``private-key-sent``, ``certificate``.
    """
    found = []
    for text in texts:
        data = text.encode("utf-8", "replace")
        refuse_private_keys(data, field="certificates")
        size_bytes_max = x509.CERTIFICATE_PEM_SIZE_BYTES_MAX
        found.append(x509.certificates_from_pem(data, size_bytes_max=size_bytes_max, count_max=CERTIFICATES_MAX)[0])
    return found
