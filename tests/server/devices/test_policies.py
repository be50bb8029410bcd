"""Device policies, their versions and attachments, and tags."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import CertificateId, GroupName, PolicyName, SeededIds, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import new_device_key
from overair.server.devices.model import AWS
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

P, Q = PolicyName("p"), PolicyName("q")
KEY = new_device_key().public_key()


def document(action: str = "iot:Connect") -> str:
    return f'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"*"}}]}}'


@pytest.fixture
def certificate(registry: Registry, work: SqlWork, place: Place) -> str:
    """The ARN of an active certificate; policies p and q stand beside it."""

    def prepare(tx: Tx) -> str:
        registry.policies.create(tx, place, P, document())
        registry.policies.create(tx, place, Q, document())
        return registry.certificates.issue(tx, place, public_key=KEY, active=True).arn

    return work.run_blocking(prepare)


def test_a_name_is_taken_even_for_the_same_document(registry: Registry, work: SqlWork, place: Place) -> None:
    work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document()))
    with pytest.raises(AlreadyExists):
        work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document()))


@pytest.mark.parametrize("broken", ["", "{}", "not json", '{"Version":"2012-10-17","Statement":[{"Effect":"Maybe"}]}'])
def test_a_malformed_document_is_refused_as_policy(registry: Registry, work: SqlWork, place: Place, broken: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(lambda tx: registry.policies.create(tx, place, P, broken))
    assert refused.value.subject == "policy"
    work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document()))
    with pytest.raises(InvalidRequest) as refused:
        work.run_blocking(lambda tx: registry.policies.create_version(tx, place.account, P, broken, as_default=True))
    assert refused.value.subject == "policy"


def test_a_policy_has_five_versions_and_numbers_are_never_given_twice(registry: Registry, work: SqlWork, place: Place) -> None:
    account = place.account
    work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document()))

    def add(as_default: bool = False) -> int:
        return work.run_blocking(
            lambda tx: registry.policies.create_version(tx, account, P, document("iot:Publish"), as_default=as_default)
        ).version

    assert [add(), add(), add(), add(as_default=True)] == [2, 3, 4, 5]
    with pytest.raises(LimitExceeded) as refused:
        add()
    assert refused.value.subject == "policy-versions"
    with pytest.raises(Conflict) as conflict:
        work.run_blocking(lambda tx: registry.policies.delete_version(tx, account, P, 5))
    assert conflict.value.subject == "delete"
    work.run_blocking(lambda tx: registry.policies.delete_version(tx, account, P, 4))
    assert add() == 6
    listed = work.read_blocking(lambda tx: registry.policies.versions(tx, account, P))
    assert [(version.version, version.is_default) for version in listed] == [
        (6, False),
        (5, True),
        (3, False),
        (2, False),
        (1, False),
    ]
    work.run_blocking(lambda tx: registry.policies.set_default(tx, account, P, 1))
    assert work.read_blocking(lambda tx: registry.policies.find(tx, account, P)).document == document()
    for missing in (4, 7, -1):
        with pytest.raises(NotFound):
            work.run_blocking(lambda tx, missing=missing: registry.policies.set_default(tx, account, P, missing))


def test_a_policy_in_use_or_with_more_versions_is_not_deleted(
    registry: Registry, work: SqlWork, place: Place, certificate: str
) -> None:
    def prepare(tx: Tx) -> None:
        registry.policies.attach(tx, place, P, certificate)
        registry.policies.create_version(tx, place.account, P, document(), as_default=False)

    work.run_blocking(prepare)
    for step in (
        lambda tx: registry.policies.detach(tx, place, P, certificate),
        lambda tx: registry.policies.delete_version(tx, place.account, P, 2),
    ):
        with pytest.raises(Conflict) as refused:
            work.run_blocking(lambda tx: registry.policies.delete(tx, place, P))
        assert refused.value.subject == "delete"
        work.run_blocking(step)
    work.run_blocking(lambda tx: registry.policies.delete(tx, place, P))
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.policies.delete(tx, place, P))


def test_attaching_and_detaching_again_is_fine(registry: Registry, work: SqlWork, place: Place, certificate: str) -> None:
    for _ in range(2):
        work.run_blocking(lambda tx: registry.policies.attach(tx, place, P, certificate))
    assert work.read_blocking(lambda tx: registry.policies.attached(tx, place, certificate, recursive=False, limit=9)) == [P]
    for _ in range(2):
        work.run_blocking(lambda tx: registry.policies.detach(tx, place, P, certificate))
    assert work.read_blocking(lambda tx: registry.policies.targets(tx, place.account, P, limit=9)) == []
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.policies.attach(tx, place, PolicyName("absent"), certificate))
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.policies.attach(tx, place, P, place.iot("cert", "0" * 64)))
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.policies.attach(tx, place, P, place.iot("thinggroup", "absent")))
    with pytest.raises(InvalidRequest):
        work.run_blocking(lambda tx: registry.policies.attach(tx, place, P, place.iot("thing", "dev-1")))


def test_a_recursive_list_adds_the_policies_of_the_groups_above(
    registry: Registry, work: SqlWork, place: Place, certificate: str
) -> None:
    account = place.account

    def prepare(tx: Tx) -> None:
        registry.groups.create(tx, place, GroupName("root"))
        registry.groups.create(tx, place, GroupName("leaf"), parent=GroupName("root"))
        registry.devices.create(tx, place, ThingName("dev-1"))
        registry.devices.attach(tx, place, ThingName("dev-1"), certificate)
        registry.groups.add(tx, account, GroupName("leaf"), ThingName("dev-1"))
        registry.policies.attach(tx, place, P, place.iot("thinggroup", "root"))
        registry.policies.attach(tx, place, Q, certificate)
        registry.policies.attach(tx, place, Q, place.iot("thinggroup", "leaf"))

    work.run_blocking(prepare)

    def attached(arn: str, recursive: bool) -> list[str]:
        return list(work.read_blocking(lambda tx: registry.policies.attached(tx, place, arn, recursive=recursive, limit=9)))

    leaf = place.iot("thinggroup", "leaf")
    assert (attached(leaf, False), attached(leaf, True)) == (["q"], ["p", "q"])
    assert (attached(certificate, False), attached(certificate, True)) == (["q"], ["p", "q"])
    targets = work.read_blocking(lambda tx: registry.policies.targets(tx, account, Q, limit=9))
    assert [target.arn(place) for target in targets] == [certificate, leaf]
    rest = work.read_blocking(lambda tx: registry.policies.targets(tx, account, Q, after=("cert", targets[0].name), limit=9))
    assert [target.arn(place) for target in rest] == [leaf]
    effective = work.read_blocking(lambda tx: registry.policies.effective(tx, place, certificate, ThingName("dev-1")))
    assert [policy.name for policy in effective] == ["p", "q"]


def test_a_forced_deletion_of_a_certificate_takes_its_policies_away(
    registry: Registry, work: SqlWork, place: Place, certificate: str
) -> None:
    identity = CertificateId(certificate.rpartition("/")[2])

    def prepare(tx: Tx) -> None:
        registry.policies.attach(tx, place, P, certificate)
        registry.certificates.set_status(tx, place, identity, CertificateStatus.INACTIVE)

    work.run_blocking(prepare)
    with pytest.raises(Conflict, match="policies must be detached"):
        work.run_blocking(lambda tx: registry.certificates.delete(tx, place, identity, force=False))
    work.run_blocking(lambda tx: registry.certificates.delete(tx, place, identity, force=True))
    work.run_blocking(lambda tx: registry.policies.delete(tx, place, P))


def test_the_aws_profile_lets_ten_policies_hang_on_a_target(
    work: SqlWork, place: Place, clock: SettableClock, ids: SeededIds
) -> None:
    registry = Registry(work, clock, ids, limits=AWS)

    def attach(tx: Tx) -> None:
        arn = registry.certificates.issue(tx, place, public_key=KEY, active=True).arn
        for number in range(11):
            registry.policies.create(tx, place, PolicyName(f"p{number}"), document())
            registry.policies.attach(tx, place, PolicyName(f"p{number}"), arn)

    with pytest.raises(LimitExceeded, match="At most 10"):
        work.run_blocking(attach)


def test_tags_hang_on_what_is_there_and_go_with_it(registry: Registry, work: SqlWork, place: Place) -> None:
    arn = place.iot("policy", "p")
    work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document(), {"team": "a"}))
    work.run_blocking(lambda tx: registry.tags.add(tx, place, arn, {"team": "b", "site": "north"}))
    assert work.read_blocking(lambda tx: registry.tags.list(tx, place, arn)) == {"site": "north", "team": "b"}
    work.run_blocking(lambda tx: registry.tags.remove(tx, place, arn, ["site", "absent"]))
    assert work.read_blocking(lambda tx: registry.tags.list(tx, place, arn)) == {"team": "b"}
    with pytest.raises(NotFound):
        work.run_blocking(lambda tx: registry.tags.add(tx, place, place.iot("policy", "absent"), {"k": "v"}))
    with pytest.raises(InvalidRequest):
        work.run_blocking(lambda tx: registry.tags.add(tx, place, place.iot("cert", "0" * 64), {"k": "v"}))
    with pytest.raises(LimitExceeded):
        work.run_blocking(lambda tx: registry.tags.add(tx, place, arn, {f"k{n}": "v" for n in range(50)}))
    for bad in ({"aws:x": "v"}, {"k": "a\0b"}, {"k": "v" * 257}):
        with pytest.raises(InvalidRequest):
            work.run_blocking(lambda tx, bad=bad: registry.tags.add(tx, place, arn, bad))
    work.run_blocking(lambda tx: registry.policies.delete(tx, place, P))
    work.run_blocking(lambda tx: registry.policies.create(tx, place, P, document()))
    assert work.read_blocking(lambda tx: registry.tags.list(tx, place, arn)) == {}
