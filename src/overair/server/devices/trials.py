"""What a device would be allowed, asked without connecting (TestAuthorization)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import PolicyName
from overair.basics.work import Tx
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.x509 import certificate_from_pem
from overair.server.devices.admission import Admissions, AttachedPolicy
from overair.server.devices.model import principal_certificate
from overair.server.devices.policies import PoliciesService
from overair.server.policy_language.device_variables import Values, certificate_values, connection_values
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.iot import CONNECT, PUBLISH, RECEIVE, SUBSCRIBE, PolicySet

ACTIONS: Final[Mapping[str, str]] = {"CONNECT": CONNECT, "PUBLISH": PUBLISH, "RECEIVE": RECEIVE, "SUBSCRIBE": SUBSCRIBE}
"""The wire's word for an action → the action."""

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
        thing = admission.thing
        values: Values = {
            **certificate_values(certificate_from_pem(registered.pem.encode()), registered.id),
            **connection_values(
                client_id=client_id or "",
                source_ip="",
                thing_name=None if thing is None else thing.thing,
                thing_type_name=None if thing is None else thing.type_name,
                thing_attributes=None if thing is None else thing.attributes,
            ),
        }
        if client_id is None:
            del values["iot:ClientId"]
        now = self._clock.now
        whole = PolicySet.parse(policy.document for policy in documents.values()).bind(values, now=now)
        single = {name: PolicySet.parse([policy.document]).bind(values, now=now) for name, policy in documents.items()}
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
                )
            )
        return verdicts


def _worst(decisions: set[Decision]) -> Decision:
    """All resources must be allowed; an explicit deny of one outweighs an implicit one of another."""
    if Decision.EXPLICIT_DENY in decisions:
        return Decision.EXPLICIT_DENY
    return Decision.ALLOW if decisions == {Decision.ALLOW} else Decision.IMPLICIT_DENY
