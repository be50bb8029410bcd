"""Users, roles, keys and policies: made, found, changed, ended; on both databases."""

from __future__ import annotations

import json

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.model import Owner, OwnerKind
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

ACCOUNT = AccountId("123456789012")
OTHER = AccountId("210987654321")
ANN = Owner(kind=OwnerKind.USER, name="ann")
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
ALLOW = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:ListThings", "Resource": "*"}]})


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


def test_a_user_is_found_by_name_in_its_own_account_alone(room: AccessRoom) -> None:
    made = room.work.run_blocking(
        lambda tx: room.identities.create_user(tx, ACCOUNT, "ann", path="/eng/", tags={"team": "ota", "empty": ""})
    )
    assert made.arn == "arn:aws:iam::123456789012:user/eng/ann"
    assert made.user_id.startswith("AIDA")
    assert len(made.user_id) == 21
    assert room.work.read_blocking(lambda tx: room.identities.user(tx, ACCOUNT, "ann")) == made
    with pytest.raises(NotFound, match="ann"):
        room.work.read_blocking(lambda tx: room.identities.user(tx, OTHER, "ann"))
    with pytest.raises(AlreadyExists):
        room.work.run_blocking(lambda tx: room.identities.create_user(tx, ACCOUNT, "ann"))
    room.work.run_blocking(lambda tx: room.identities.create_user(tx, OTHER, "ann"))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a*", "ä", "a" * 65, "a\0"])
def test_a_name_that_breaks_the_rule_is_refused(room: AccessRoom, name: str) -> None:
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.identities.create_user(tx, ACCOUNT, name))
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.identities.create_role(tx, ACCOUNT, name, TRUST))


@pytest.mark.parametrize("path", ["", "a", "/a", "a/", "/a b/", "/*/"])
def test_a_path_that_breaks_the_rule_is_refused(room: AccessRoom, path: str) -> None:
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.identities.create_user(tx, ACCOUNT, "ann", path=path))


def test_users_are_listed_by_name_after_a_name_and_below_a_path(room: AccessRoom) -> None:
    def make(tx: Tx) -> None:
        for name, path in (("c", "/"), ("a", "/x/"), ("b", "/x/y/"), ("d", "/x_y/")):
            room.identities.create_user(tx, ACCOUNT, name, path=path)

    room.work.run_blocking(make)

    def names(prefix: str, after: str | None, limit: int) -> list[str]:
        listed = room.work.read_blocking(
            lambda tx: room.identities.list_users(tx, ACCOUNT, path_prefix=prefix, after=after, limit=limit)
        )
        return [user.name for user in listed]

    assert names("/", None, 3) == ["a", "b", "c"]
    assert names("/", "b", 3) == ["c", "d"]
    assert names("/x/", None, 9) == ["a", "b"]
    assert names("/x_", None, 9) == ["d"], "the underscore is no wildcard"


def test_a_user_goes_only_without_keys_and_policies(room: AccessRoom) -> None:
    keys = room.user("ann", p=ALLOW)
    with pytest.raises(Conflict, match="access keys"):
        room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))
    room.work.run_blocking(lambda tx: room.identities.delete_key(tx, ACCOUNT, "ann", keys.key_id))
    with pytest.raises(Conflict, match="policies"):
        room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))
    room.work.run_blocking(lambda tx: room.policies.delete_inline(tx, ACCOUNT, ANN, "p"))
    room.work.run_blocking(lambda tx: room.policies.attach(tx, ACCOUNT, ANN, "arn:aws:iam::aws:policy/AdministratorAccess"))
    with pytest.raises(Conflict, match="detach"):
        room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))
    room.work.run_blocking(lambda tx: room.policies.detach(tx, ACCOUNT, ANN, "arn:aws:iam::aws:policy/AdministratorAccess"))
    room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))
    with pytest.raises(NotFound):
        room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))


def test_a_user_has_two_keys_at_most_and_another_users_key_is_not_his(room: AccessRoom) -> None:
    first = room.user("ann")
    second = room.work.run_blocking(lambda tx: room.identities.create_key(tx, ACCOUNT, "ann"))
    assert len(first.key_id) == 20
    assert len(first.secret.reveal()) == 40
    assert first.secret.reveal() != second.secret.reveal()
    with pytest.raises(LimitExceeded):
        room.work.run_blocking(lambda tx: room.identities.create_key(tx, ACCOUNT, "ann"))
    listed = room.work.read_blocking(lambda tx: room.identities.keys_of(tx, ACCOUNT, "ann"))
    assert {key.key_id for key in listed} == {first.key_id, second.key_id}
    room.user("ben")
    with pytest.raises(NotFound):
        room.work.run_blocking(lambda tx: room.identities.delete_key(tx, ACCOUNT, "ben", first.key_id))
    with pytest.raises(NotFound):
        room.work.read_blocking(lambda tx: room.identities.holder_of_key(tx, OTHER, first.key_id))


def test_a_role_keeps_its_trust_and_is_changed_by_it_alone(room: AccessRoom) -> None:
    role = room.work.run_blocking(
        lambda tx: room.identities.create_role(
            tx, ACCOUNT, "r", TRUST, path="/service-role/", description="d", session_s_max=7200
        )
    )
    assert role.arn == "arn:aws:iam::123456789012:role/service-role/r"
    assert room.work.read_blocking(lambda tx: room.identities.role(tx, ACCOUNT, "r")) == role
    narrower = TRUST.replace("iot.amazonaws.com", "credentials.iot.amazonaws.com")
    room.work.run_blocking(lambda tx: room.identities.set_trust(tx, ACCOUNT, "r", narrower))
    assert room.work.read_blocking(lambda tx: room.identities.role(tx, ACCOUNT, "r")).trust_document == narrower
    for malformed in ("", "{}", ALLOW, TRUST.replace("Principal", "NotThis")):
        with pytest.raises(InvalidRequest) as caught:
            room.work.run_blocking(lambda tx, text=malformed: room.identities.set_trust(tx, ACCOUNT, "r", text))
        assert caught.value.subject == "policy"


def test_a_managed_policy_has_up_to_five_versions_and_numbers_never_return(room: AccessRoom) -> None:
    policy = room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "p", ALLOW, path="/team/"))
    arn = policy.arn
    assert arn == "arn:aws:iam::123456789012:policy/team/p"

    def add(as_default: bool) -> int:
        return room.work.run_blocking(
            lambda tx: room.policies.add_version(tx, ACCOUNT, arn, ALLOW, as_default=as_default)
        ).number

    assert [add(False), add(True), add(False), add(False)] == [2, 3, 4, 5]
    with pytest.raises(LimitExceeded):
        add(True)
    assert room.work.read_blocking(lambda tx: room.policies.find(tx, ACCOUNT, arn)).default_version == 3
    with pytest.raises(Conflict):
        room.work.run_blocking(lambda tx: room.policies.delete_version(tx, ACCOUNT, arn, "v3"))
    room.work.run_blocking(lambda tx: room.policies.delete_version(tx, ACCOUNT, arn, "v5"))
    assert add(False) == 6
    with pytest.raises(Conflict, match="versions"):
        room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, arn))
    for number in (1, 2, 4, 6):
        room.work.run_blocking(lambda tx, number=number: room.policies.delete_version(tx, ACCOUNT, arn, f"v{number}"))
    room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, arn))
    with pytest.raises(NotFound):
        room.work.read_blocking(lambda tx: room.policies.find(tx, ACCOUNT, arn))


def test_a_policy_in_use_stays_and_one_of_another_path_is_another(room: AccessRoom) -> None:
    room.user("ann")
    policy = room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "p", ALLOW))
    room.work.run_blocking(lambda tx: room.policies.attach(tx, ACCOUNT, ANN, policy.arn))
    room.work.run_blocking(lambda tx: room.policies.attach(tx, ACCOUNT, ANN, policy.arn))
    assert room.work.read_blocking(lambda tx: room.policies.attached_to(tx, ACCOUNT, ANN)) == [policy.arn]
    assert room.work.read_blocking(lambda tx: room.policies.attachment_counts(tx, ACCOUNT, [policy.arn])) == {policy.arn: 1}
    with pytest.raises(Conflict):
        room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, policy.arn))
    for arn in (
        "arn:aws:iam::123456789012:policy/x/p",
        "arn:aws:iam::210987654321:policy/p",
        "arn:aws:iam::aws:policy/Nothing",
    ):
        with pytest.raises(NotFound):
            room.work.run_blocking(lambda tx, arn=arn: room.policies.attach(tx, ACCOUNT, ANN, arn))
    with pytest.raises(AccessDenied):
        room.work.run_blocking(lambda tx: room.policies.delete(tx, ACCOUNT, "arn:aws:iam::aws:policy/AdministratorAccess"))


def test_an_inline_policy_is_put_in_place_of_its_namesake(room: AccessRoom) -> None:
    room.user("ann", p=ALLOW)
    other = ALLOW.replace("ListThings", "ListJobs")
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", other))
    assert dict(room.work.read_blocking(lambda tx: room.policies.list_inline(tx, ACCOUNT, ANN))) == {"p": other}
    with pytest.raises(InvalidRequest) as caught:
        room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, ANN, "p", '{"Statement":1}'))
    assert caught.value.subject == "policy"
    assert room.work.read_blocking(lambda tx: room.policies.inline(tx, ACCOUNT, ANN, "p")) == other
