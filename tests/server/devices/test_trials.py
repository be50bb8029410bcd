"""TestAuthorization says what the gateway would do."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import PolicyName, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import new_device_key
from overair.server.devices.admission import Admissions
from overair.server.devices.store import SqlAdmissionStore
from overair.server.devices.trials import Explanation, Trial, TrialsService
from overair.server.policy_language.evaluation import Decision
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

KEY = new_device_key().public_key()
STEM = "arn:aws:iot:us-east-1:123456789012:"
OWN = f"""{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": "iot:Publish",
    "Resource": "{STEM}topic/${{iot:Connection.Thing.ThingName}}/*"}}]}}"""
NEVER = OWN.replace("Allow", "Deny").replace("${iot:Connection.Thing.ThingName}/*", "dev-1/secret")


@pytest.fixture
def trials(registry: Registry, clock: SettableClock) -> TrialsService:
    return TrialsService(
        admissions=Admissions(store=SqlAdmissionStore(), certificates=registry.certificates),
        certificates=registry.certificates,
        policies=registry.policies,
        clock=clock,
    )


def test_a_verdict_names_the_policies_behind_it(registry: Registry, trials: TrialsService, work: SqlWork, place: Place) -> None:
    def prepare(tx: Tx) -> str:
        arn = registry.certificates.issue(tx, place, public_key=KEY, active=False).arn
        registry.devices.create(tx, place, ThingName("dev-1"))
        registry.devices.attach(tx, place, ThingName("dev-1"), arn)
        for name, document in (("own", OWN), ("never", NEVER)):
            registry.policies.create(tx, place, PolicyName(name), document)
        registry.policies.attach(tx, place, PolicyName("own"), arn)
        return arn

    arn = work.run_blocking(prepare)
    asked = [
        Trial(action="iot:Publish", resources=(f"{STEM}topic/dev-1/state",)),
        Trial(action="iot:Publish", resources=(f"{STEM}topic/dev-1/state", f"{STEM}topic/dev-1/secret")),
        Trial(action="iot:Subscribe", resources=(f"{STEM}topicfilter/dev-1/state",)),
    ]

    def judge(client_id: str | None, add: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
        verdicts = work.read_blocking(
            lambda tx: trials.judge(
                tx,
                place,
                arn,
                asked,
                client_id=client_id,
                add=[PolicyName(name) for name in add],
                skip=[PolicyName(name) for name in skip],
            )
        )
        return [(verdict.decision, verdict.allowing, verdict.denying) for verdict in verdicts]

    nothing = (Decision.IMPLICIT_DENY, (), ())
    allowed = (Decision.ALLOW, ("own",), ())
    assert judge("dev-1") == [allowed, allowed, nothing]
    assert judge("dev-1", add=("never",)) == [allowed, (Decision.EXPLICIT_DENY, ("own",), ("never",)), nothing]
    assert judge("dev-1", skip=("own",)) == [nothing] * 3
    assert judge(None) == [nothing] * 3
    with pytest.raises(NotFound):
        judge("dev-1", add=("absent",))
    with pytest.raises(InvalidRequest):
        judge("dev-1", add=tuple(f"p{n}" for n in range(21)))


def test_a_certificate_id_in_capitals_names_nothing(
    registry: Registry, trials: TrialsService, work: SqlWork, place: Place
) -> None:
    """Permissions are asked for the text as it came: another spelling must not reach the same certificate."""
    arn = work.run_blocking(lambda tx: registry.certificates.issue(tx, place, public_key=KEY, active=True)).arn
    spelt = arn[:-64] + arn[-64:].upper()
    work.run_blocking(lambda tx: registry.policies.create(tx, place, PolicyName("p"), OWN))
    for call in (
        lambda tx: trials.judge(tx, place, spelt, [], client_id=None),
        lambda tx: registry.policies.attach(tx, place, PolicyName("p"), spelt),
        lambda tx: registry.devices.things_of_principal(tx, place, spelt, limit=1),
    ):
        with pytest.raises(NotFound):
            work.run_blocking(call)


def test_an_explanation_names_the_statement_and_what_the_connection_lacks(
    registry: Registry, trials: TrialsService, work: SqlWork, place: Place
) -> None:
    def prepare(tx: Tx) -> str:
        arn = registry.certificates.issue(tx, place, public_key=KEY, active=False).arn
        registry.devices.create(tx, place, ThingName("dev-1"))
        registry.devices.attach(tx, place, ThingName("dev-1"), arn)
        registry.policies.create(tx, place, PolicyName("own"), OWN)
        registry.policies.attach(tx, place, PolicyName("own"), arn)
        return arn

    arn = work.run_blocking(prepare)

    def explain(resource: str, client_id: str | None) -> Explanation:
        return work.read_blocking(lambda tx: trials.explain(tx, place, arn, "iot:Publish", resource, client_id=client_id))

    allowed = explain("dev-1/state", "dev-1")
    assert (allowed.reasons.decision, allowed.resource) == (Decision.ALLOW, f"{STEM}topic/dev-1/state")
    assert (allowed.status, allowed.thing) == (CertificateStatus.INACTIVE, "dev-1")
    assert [(each.policy, each.number, each.applies) for each in allowed.reasons.statements] == [("own", 1, True)]
    without = explain(f"{STEM}topic/dev-1/state", None)
    assert without.reasons.decision is Decision.IMPLICIT_DENY
    assert without.reasons.missing == ("iot:Connection.Thing.ThingName",)
    verdicts = work.read_blocking(
        lambda tx: trials.judge(tx, place, arn, [Trial(action="iot:Publish", resources=("*",))], client_id=None)
    )
    assert verdicts[0].missing == ("iot:Connection.Thing.ThingName",)
