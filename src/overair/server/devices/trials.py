"""What a device would be allowed, and by which statement, asked without connecting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import PolicyName, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.x509 import certificate_from_pem
from overair.server.devices.admission import Admission, Admissions, AttachedPolicy
from overair.server.devices.blocks import Block
from overair.server.devices.model import principal_certificate
from overair.server.devices.policies import PoliciesService
from overair.server.policy_language.device_variables import Values, certificate_values, connection_values
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.iot import CONNECT, PUBLISH, RECEIVE, RETAIN_PUBLISH, SUBSCRIBE, PolicySet
from overair.server.policy_language.reasons import Reasons, reasons

ACTIONS: Final[Mapping[str, str]] = {"CONNECT": CONNECT, "PUBLISH": PUBLISH, "RECEIVE": RECEIVE, "SUBSCRIBE": SUBSCRIBE}
"""The wire's word for an action → the action."""

KIND_OF_RESOURCE: Final[Mapping[str, str]] = {
    CONNECT: "client",
    PUBLISH: "topic",
    RETAIN_PUBLISH: "topic",
    RECEIVE: "topic",
    SUBSCRIBE: "topicfilter",
}
"""What the resource of an action is called in its ARN; those of jobs over HTTPS are about a thing."""

RESOURCES_MAX: Final = 100
POLICIES_ADDED_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One question: may it do this to all of these? ``resources`` are full ARNs."""

    action: str
    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer, with the policies that decided it."""

    decision: Decision
    allowing: tuple[PolicyName, ...]
    denying: tuple[PolicyName, ...]
    missing: tuple[str, ...] = ()
    """Variables and condition keys that had no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a certificate's policies say to one question, and what else would keep it out."""

    resource: str
    """The whole ARN that was judged."""
    reasons: Reasons
    status: CertificateStatus
    block: Block | None
    thing: ThingName | None
    """The thing that such a connection speaks for, if any."""


class TrialsService:
    """Evaluates a certificate's policies, with some added or left out, as the gateway would."""

    def __init__(
        self, *, admissions: Admissions, certificates: CertificatesService, policies: PoliciesService, clock: Clock
    ) -> None:
        self._admissions = admissions
        self._certificates = certificates
        self._policies = policies
        self._clock = clock

    def judge(
        self,
        tx: Tx,
        place: Place,
        principal_arn: str,
        trials: Sequence[Trial],
        *,
        client_id: str | None,
        add: Sequence[PolicyName] = (),
        skip: Sequence[PolicyName] = (),
    ) -> Sequence[Verdict]:
        """A verdict for each trial. The certificate's status and dates play no part: it is about policies.

        Raises:
            NotFound: the certificate, or a policy to add, isn't there.
            InvalidRequest: the principal is no certificate of ours, or too many resources. Subjects ``principal``, ``trial``.
        """
        if sum(len(trial.resources) for trial in trials) > RESOURCES_MAX:
            raise InvalidRequest(f"At most {RESOURCES_MAX} resources are tested in one request.", subject="trial")
        if len(add) > POLICIES_ADDED_MAX:
            raise InvalidRequest(f"At most {POLICIES_ADDED_MAX} policies are added in one request.", subject="trial")
        registered = self._certificates.find(tx, place, principal_certificate(place, principal_arn))
        admission = self._admissions.find(tx, registered.id, client_id)
        assert admission is not None
        documents = {policy.name: policy for policy in admission.policies if policy.name not in set(skip)}
        for name in add:
            documents[name] = AttachedPolicy(name=name, document=self._policies.find(tx, place.account, name).document)
        values = _values(admission, client_id, source_ip="")
        now = self._clock.now
        whole = PolicySet.parse(policy.document for policy in documents.values()).bind(values, now=now)
        single = {name: PolicySet.parse([policy.document]).bind(values, now=now) for name, policy in documents.items()}
        named = [(name, policy.document) for name, policy in documents.items()]
        verdicts = []
        for trial in trials:
            decisions = {whole.decide(trial.action, resource) for resource in trial.resources}
            by_policy = {
                name: {bound.decide(trial.action, resource) for resource in trial.resources} for name, bound in single.items()
            }
            verdicts.append(
                Verdict(
                    decision=_worst(decisions),
                    allowing=tuple(sorted(name for name, said in by_policy.items() if Decision.ALLOW in said)),
                    denying=tuple(sorted(name for name, said in by_policy.items() if Decision.EXPLICIT_DENY in said)),
                    missing=reasons(named, values, trial.action, "", now=now).missing,
                )
            )
        return verdicts

    def explain(
        self,
        tx: Tx,
        place: Place,
        principal_arn: str,
        action: str,
        resource: str,
        *,
        client_id: str | None,
        source_ip: str = "",
    ) -> Explanation:
        """Which statements decide whether the certificate may, and what is in the way of the others.

        ``resource``: an ARN, or the bare name that it ends with. ``client_id``: None for HTTPS, which has none.

        Raises:
            NotFound: the certificate isn't there.
            InvalidRequest: the principal is no certificate of ours. Subject ``principal``.
        """
        registered = self._certificates.find(tx, place, principal_certificate(place, principal_arn))
        admission = self._admissions.find(tx, registered.id, client_id)
        assert admission is not None
        if not resource.startswith("arn:"):
            resource = place.iot(KIND_OF_RESOURCE.get(action, "thing"), resource)
        named = [(policy.name, policy.document) for policy in admission.policies]
        values = _values(admission, client_id, source_ip=source_ip)
        return Explanation(
            resource=resource,
            reasons=reasons(named, values, action, resource, now=self._clock.now),
            status=admission.certificate.status,
            block=admission.block,
            thing=None if admission.thing is None else admission.thing.thing,
        )


def _values(admission: Admission, client_id: str | None, *, source_ip: str) -> Values:
    """What the gateway would bind a connection's policies with."""
    registered, thing = admission.certificate, admission.thing
    values: Values = {
        **certificate_values(certificate_from_pem(registered.pem.encode()), registered.id),
        **connection_values(
            client_id=client_id or "",
            source_ip=source_ip,
            thing_name=None if thing is None else thing.thing,
            thing_type_name=None if thing is None else thing.type_name,
            thing_attributes=None if thing is None else thing.attributes,
        ),
    }
    if client_id is None:
        del values["iot:ClientId"]
    return values


def _worst(decisions: set[Decision]) -> Decision:
    """All resources must be allowed; an explicit deny of one outweighs an implicit one of another."""
    if Decision.EXPLICIT_DENY in decisions:
        return Decision.EXPLICIT_DENY
    return Decision.ALLOW if decisions == {Decision.ALLOW} else Decision.IMPLICIT_DENY
