"""What a worked-out template does: thing, certificate and policies, in one unit of work, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.audit.service import AuditTrail
from overair.server.certificates import x509
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.devices.blocks import BlockKind, BlocksService
from overair.server.devices.model import ThingPrincipalType
from overair.server.devices.service import DevicesService, PoliciesService, ThingGroupsService, ThingUpdate
from overair.server.provisioning.enrolment import ensure_policy
from overair.server.provisioning.model import ProvisionedDevice
from overair.server.provisioning.ports import DeviceStore
from overair.server.provisioning.template_plans import CertificatePlan, Override, Plan, PolicyPlan, ThingPlan

GROUPS_LOOKED_AT_MAX: Final = 1_000
TAKEN: Final = "device-id-taken"
"""Subject of the Conflict over a name that another device has; its detail ``resourceId`` is the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What a template has brought about."""

    thing: ThingName | None
    certificate_id: CertificateId | None
    certificate_pem: str | None
    resource_arns: Mapping[str, str]
    """By the template's own names."""
    device_configuration: Mapping[str, str]


class Registrations:
    """Carries plans out. The thing's rows of origin are its caller's affair."""

    def __init__(
        self,
        *,
        certificates: CertificatesService,
        devices: DevicesService,
        groups: ThingGroupsService,
        policies: PoliciesService,
        blocks: BlocksService,
        provisioned: DeviceStore,
        clock: Clock,
    ) -> None:
        self._certificates = certificates
        self._devices = devices
        self._groups = groups
        self._policies = policies
        self._blocks = blocks
        self._provisioned = provisioned
        self._clock = clock
        self._trail: AuditTrail | None = None

    def watched_by(self, trail: AuditTrail) -> None:
        """Register, before the start, who writes down which certificates come in."""
        self._trail = trail

    def apply(self, tx: Tx, place: Place, plan: Plan, *, takes_over: bool) -> Registered:
        """Make what the plan says.

        Args:
            takes_over: The plan is an operator's own word: a thing that has a certificate already gets this one beside it.
                A device's word is enough for that only where the template says, in OverrideSettings, what happens then.

        Raises:
            AccessDenied: the name is blocked. Subject ``device-blocked``.
            Conflict: something is there that the template mustn't change. Subjects ``registration``, ``device-id-taken``.
            InvalidRequest, NotFound: the plan names what isn't there or can't be.
        """
        arns: dict[str, str] = {}
        pem: str | None = None
        certificate: str | None = None
        if plan.certificate is not None:
            certificate, pem = self._certificate(tx, place, plan.certificate)
            arns[plan.certificate.logical_name] = certificate
        if plan.thing is not None:
            self._thing(tx, place, plan.thing, takes_over=takes_over or certificate is None, certificate=certificate)
            arns[plan.thing.logical_name] = place.iot("thing", plan.thing.name)
        for wanted in plan.policies:
            policy = self._policy(tx, place, wanted)
            arns[wanted.logical_name] = place.iot("policy", policy)
            if certificate is not None:
                self._policies.attach(tx, place, policy, certificate)
        thing = None if plan.thing is None else ThingName(plan.thing.name)
        if thing is not None and certificate is not None:
            self._attach(tx, place, thing, certificate, plan)
        if certificate is not None and plan.certificate is not None:
            self._activate(tx, place, plan.certificate, certificate)
        return Registered(
            thing=thing,
            certificate_id=None if certificate is None else CertificateId(certificate.rpartition("/")[2]),
            certificate_pem=pem,
            resource_arns=arns,
            device_configuration=plan.device_configuration,
        )

    def register(self, tx: Tx, place: Place, plan: Plan, *, origin: str, source_ip: str) -> Registered:
        """Make what the plan says on an operator's own word, and write down how the thing came in. Raises as ``apply``."""
        registered = self.apply(tx, place, plan, takes_over=True)
        if registered.thing is not None and registered.certificate_id is not None:
            self.note_origin(
                tx,
                place,
                ProvisionedDevice(
                    account=place.account,
                    thing=registered.thing,
                    origin=origin,
                    certificate_id=registered.certificate_id,
                    created_at=self._clock.now(),
                    source_ip=source_ip,
                ),
            )
        return registered

    def note_origin(self, tx: Tx, place: Place, device: ProvisionedDevice) -> None:
        """Write down how a thing came in, in the audit too; when its ECUs were registered stays."""
        standing = self._provisioned.find_device(tx, device.account, device.thing)
        if standing is None or standing.registered_at is None:
            self._provisioned.put_device(tx, device)
        if self._trail is not None:
            self._trail.enrolled(
                tx,
                place.account,
                thing_arn=place.iot("thing", device.thing),
                certificate_arn=place.iot("cert", device.certificate_id),
                origin=device.origin,
                source_ip=device.source_ip,
            )

    # The certificate --------------------------------------------------------------------------------------------------------

    def _certificate(self, tx: Tx, place: Place, plan: CertificatePlan) -> tuple[str, str]:
        """(ARN, PEM); one that is made here is INACTIVE until everything else stands."""
        if plan.certificate_id is not None:
            found = self._certificates.find(tx, place, CertificateId(plan.certificate_id))
            return place.iot("cert", found.id), found.pem
        if plan.signing_request is not None:
            request = x509.signing_request_from_pem(plan.signing_request)
            issued = self._certificates.issue_for_request(tx, place, request, active=False)
            return issued.arn, issued.pem
        assert plan.pem is not None  # one of the three is there: the language says so
        leaf = x509.certificate_from_pem(plan.pem.encode("utf-8", "replace"))
        identity = x509.fingerprint(leaf)
        standing = self._certificates.find_anywhere(tx, identity)
        if standing is not None and standing.account == place.account:
            return place.iot("cert", identity), standing.pem
        if plan.authority_pem is not None:
            authority = x509.certificate_from_pem(plan.authority_pem.encode("utf-8", "replace"))
            if not x509.directly_issued(leaf, authority):
                raise InvalidRequest("The certificate isn't issued by the CACertificatePem beside it.", subject="parameters")
        issued = self._certificates.register_without_authority(tx, place, leaf, status=CertificateStatus.INACTIVE)
        return issued.arn, issued.pem

    def _activate(self, tx: Tx, place: Place, plan: CertificatePlan, arn: str) -> None:
        found = self._certificates.find(tx, place, CertificateId(arn.rpartition("/")[2]))
        wanted = CertificateStatus(plan.status)
        is_new = found.version == 1 and found.status in (CertificateStatus.INACTIVE, CertificateStatus.PENDING_ACTIVATION)
        if found.status is wanted:
            return
        if not is_new and plan.status_override is not Override.REPLACE:
            if plan.status_override is Override.FAIL:
                raise _conflict(f"The certificate {found.id} is {found.status.value}, and the template wants {wanted.value}.")
            return
        self._certificates.set_status(tx, place, found.id, wanted)

    def _attach(self, tx: Tx, place: Place, thing: ThingName, certificate: str, plan: Plan) -> None:
        wanted = ThingPrincipalType.NON_EXCLUSIVE_THING if plan.thing is None else ThingPrincipalType(plan.thing.principal_type)
        self._devices.attach(tx, place, thing, certificate, wanted)

    # The thing --------------------------------------------------------------------------------------------------------------

    def _thing(self, tx: Tx, place: Place, plan: ThingPlan, *, takes_over: bool, certificate: str | None) -> None:
        name = ThingName(plan.name)
        if self._blocks.find(tx, place.account, BlockKind.THING, name) is not None:
            raise AccessDenied(f"{name} is blocked: no device is provisioned under this name.", subject="device-blocked")
        type_name = None if plan.type_name is None else ThingTypeName(plan.type_name)
        if not self._devices.has_thing(tx, place.account, name):
            self._devices.create(tx, place, name, type_name=type_name, attributes=plan.attributes)
            for group in plan.groups or ():
                self._groups.add(tx, place.account, GroupName(group), name)
            return
        holders = self._devices.principals(tx, place.account, name, limit=2)
        is_taken = any(place.iot("cert", each.certificate) != certificate for each in holders)
        if is_taken and not takes_over and not plan.overrides:
            raise Conflict(
                f"There is a thing {name} with a certificate already. A device takes a name over only where the template's "
                "OverrideSettings of the thing say what happens then, or where an operator approves it (ListDeviceAnomalies).",
                subject=TAKEN,
                details={"resourceId": name},
            )
        self._override(tx, place.account, name, plan, type_name)

    def _override(self, tx: Tx, account: AccountId, name: ThingName, plan: ThingPlan, type_name: ThingTypeName | None) -> None:
        """Bring a thing that is there to what the template wants, as far as it says that it may."""
        standing = self._devices.find(tx, account, name)
        change = ThingUpdate()
        override = plan.overrides.get("ThingTypeName", Override.DO_NOTHING)
        if plan.type_name is not None and standing.type_name != plan.type_name:
            if override is Override.FAIL:
                raise _conflict(f"The thing {name} has another type than the template wants.")
            if override is Override.REPLACE:
                change = ThingUpdate(type_name=type_name)
        override = plan.overrides.get("AttributePayload", Override.DO_NOTHING)
        if plan.attributes is not None and dict(standing.attributes) != dict(plan.attributes):
            if override is Override.FAIL:
                raise _conflict(f"The thing {name} has other attributes than the template wants.")
            if override in (Override.REPLACE, Override.MERGE):
                merge = override is Override.MERGE
                change = ThingUpdate(type_name=change.type_name, attributes=plan.attributes, merge=merge)
        if change != ThingUpdate():
            self._devices.update(tx, account, name, change)
        if plan.groups is not None:
            self._override_groups(tx, account, name, plan)

    def _override_groups(self, tx: Tx, account: AccountId, name: ThingName, plan: ThingPlan) -> None:
        override = plan.overrides.get("ThingGroups", Override.DO_NOTHING)
        wanted = {GroupName(group) for group in plan.groups or ()}
        standing = set(self._groups.groups_of(tx, account, name, limit=GROUPS_LOOKED_AT_MAX))
        if override is Override.FAIL and wanted != standing:
            raise _conflict(f"The thing {name} is in other groups than the template wants.")
        if override is Override.REPLACE:
            for group in sorted(standing - wanted):
                self._groups.remove(tx, account, group, name)
        if override in (Override.REPLACE, Override.MERGE):
            for group in sorted(wanted - standing):
                self._groups.add(tx, account, group, name)

    # Policies ---------------------------------------------------------------------------------------------------------------

    def _policy(self, tx: Tx, place: Place, plan: PolicyPlan) -> PolicyName:
        if plan.document is None:
            assert plan.name is not None  # one of the two is there: the language says so
            ensure_policy(tx, place, self._policies, PolicyName(plan.name))
            return PolicyName(plan.name)
        name = PolicyName(plan.name or hashlib.sha256(plan.document.encode()).hexdigest())
        try:
            standing = self._policies.find(tx, place.account, name)
        except NotFound:
            return self._policies.create(tx, place, name, plan.document).name
        if standing.document != plan.document:
            raise _conflict(f"There is a policy {name} with another document than the template's.")
        return name


def _conflict(message: str) -> Conflict:
    return Conflict(message, subject="registration")
