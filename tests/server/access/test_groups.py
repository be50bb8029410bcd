"""Groups of users: what they grant, who is in them, what keeps them; on both databases."""

from __future__ import annotations

import json

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access import groups as groups_module
from overair.server.access import identities as identities_module
from overair.server.access import policies as policies_module
from overair.server.access.grants import PrincipalKey
from overair.server.access.model import Owner, OwnerKind
from overair.server.policy_language.evaluation import Decision, Question
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room

ACCOUNT = AccountId("123456789012")
OTHER = AccountId("210987654321")
ANN = Owner(kind=OwnerKind.USER, name="ann")
OPS = Owner(kind=OwnerKind.GROUP, name="ops")
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"


def document(effect: str, action: str) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": "*"}]})


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    room = build_access_room(work, place, clock)
    room.user("ann")
    room.work.run_blocking(lambda tx: room.groups.create(tx, ACCOUNT, "ops", path="/teams/"))
    return room


def decide(room: AccessRoom, action: str, user: str = "ann") -> Decision:
    key = PrincipalKey(ACCOUNT, Owner(kind=OwnerKind.USER, name=user))
    return room.work.read_blocking(lambda tx: room.grants.of(tx, key)).decide(Question(action=action, resource="*", context={}))


def test_a_group_has_an_arn_with_its_path_and_is_found_in_its_own_account_alone(room: AccessRoom) -> None:
    group = room.work.read_blocking(lambda tx: room.groups.find(tx, ACCOUNT, "ops"))
    assert group.arn == "arn:aws:iam::123456789012:group/teams/ops"
    assert group.group_id.startswith("AGPA")
    with pytest.raises(NotFound):
        room.work.read_blocking(lambda tx: room.groups.find(tx, OTHER, "ops"))
    with pytest.raises(AlreadyExists):
        room.work.run_blocking(lambda tx: room.groups.create(tx, ACCOUNT, "ops"))
    for name, path in (("a b", "/"), ("", "/"), ("a" * 65, "/"), ("g", "nowhere")):
        with pytest.raises(InvalidRequest):
            room.work.run_blocking(lambda tx, name=name, path=path: room.groups.create(tx, ACCOUNT, name, path=path))


def test_what_a_group_may_each_of_its_users_may_and_nobody_else(room: AccessRoom) -> None:
    def grant(tx: Tx) -> None:
        room.policies.put_inline(tx, ACCOUNT, OPS, "p", document("Allow", "iot:CreateJob"))
        room.policies.attach(tx, ACCOUNT, OPS, READ_ONLY)
        room.identities.create_user(tx, ACCOUNT, "ben")

    room.work.run_blocking(grant)
    assert decide(room, "iot:CreateJob") is Decision.IMPLICIT_DENY
    room.work.run_blocking(lambda tx: room.groups.add_user(tx, ACCOUNT, "ops", "ann"))
    assert decide(room, "iot:CreateJob") is decide(room, "iot:ListThings") is Decision.ALLOW
    assert decide(room, "iot:CreateJob", "ben") is Decision.IMPLICIT_DENY
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, OPS, "q", document("Deny", "iot:ListThings")))
    assert decide(room, "iot:ListThings") is Decision.EXPLICIT_DENY, "a group's deny wins over what anything else allows"
    room.work.run_blocking(lambda tx: room.groups.remove_user(tx, ACCOUNT, "ops", "ann"))
    assert decide(room, "iot:CreateJob") is decide(room, "iot:ListThings") is Decision.IMPLICIT_DENY


def test_a_repeat_changes_nothing_and_who_is_not_there_is_told(room: AccessRoom) -> None:
    for _ in range(2):
        room.work.run_blocking(lambda tx: room.groups.add_user(tx, ACCOUNT, "ops", "ann"))
    assert [group.name for group in room.work.read_blocking(lambda tx: room.groups.groups_of(tx, ACCOUNT, "ann"))] == ["ops"]
    for _ in range(2):
        room.work.run_blocking(lambda tx: room.groups.remove_user(tx, ACCOUNT, "ops", "ann"))
    for group, user in (("ops", "nobody"), ("nothing", "ann")):
        with pytest.raises(NotFound):
            room.work.run_blocking(lambda tx, group=group, user=user: room.groups.add_user(tx, ACCOUNT, group, user))


def test_groups_and_their_users_are_listed_by_name(room: AccessRoom) -> None:
    def fill(tx: Tx) -> None:
        room.groups.create(tx, ACCOUNT, "admins")
        for name in ("cat", "ben"):
            room.identities.create_user(tx, ACCOUNT, name)
        for name in ("cat", "ann", "ben"):
            room.groups.add_user(tx, ACCOUNT, "ops", name)
        room.groups.add_user(tx, ACCOUNT, "admins", "ann")

    room.work.run_blocking(fill)

    def users(after: str | None, limit: int) -> list[str]:
        found = room.work.read_blocking(lambda tx: room.groups.users_of(tx, ACCOUNT, "ops", after=after, limit=limit))
        return [user.name for user in found]

    def names(prefix: str, after: str | None) -> list[str]:
        found = room.work.read_blocking(lambda tx: room.groups.list(tx, ACCOUNT, path_prefix=prefix, after=after, limit=9))
        return [group.name for group in found]

    assert (users(None, 2), users("ben", 2)) == (["ann", "ben"], ["cat"])
    assert (names("/", None), names("/", "admins"), names("/teams/", None)) == (["admins", "ops"], ["ops"], ["ops"])
    of_ann = room.work.read_blocking(lambda tx: room.groups.groups_of(tx, ACCOUNT, "ann"))
    assert [group.name for group in of_ann] == ["admins", "ops"]


def test_neither_a_group_nor_its_user_goes_while_they_hold_each_other(room: AccessRoom) -> None:
    room.work.run_blocking(lambda tx: room.groups.add_user(tx, ACCOUNT, "ops", "ann"))
    with pytest.raises(Conflict, match="users from group"):
        room.work.run_blocking(lambda tx: room.groups.delete(tx, ACCOUNT, "ops"))
    with pytest.raises(Conflict, match="users from group"):
        room.work.run_blocking(lambda tx: room.identities.delete_user(tx, ACCOUNT, "ann"))
    room.work.run_blocking(lambda tx: room.groups.remove_user(tx, ACCOUNT, "ops", "ann"))
    room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, OPS, "p", document("Allow", "*")))
    with pytest.raises(Conflict, match="delete policies"):
        room.work.run_blocking(lambda tx: room.groups.delete(tx, ACCOUNT, "ops"))
    room.work.run_blocking(lambda tx: room.policies.delete_inline(tx, ACCOUNT, OPS, "p"))
    room.work.run_blocking(lambda tx: room.policies.attach(tx, ACCOUNT, OPS, READ_ONLY))
    with pytest.raises(Conflict, match="detach"):
        room.work.run_blocking(lambda tx: room.groups.delete(tx, ACCOUNT, "ops"))
    room.work.run_blocking(lambda tx: room.policies.detach(tx, ACCOUNT, OPS, READ_ONLY))
    room.work.run_blocking(lambda tx: room.groups.delete(tx, ACCOUNT, "ops"))
    with pytest.raises(NotFound):
        room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, OPS, "p", document("Allow", "*")))


def test_renamed_users_and_groups_keep_what_they_have(room: AccessRoom) -> None:
    def fill(tx: Tx) -> None:
        room.groups.add_user(tx, ACCOUNT, "ops", "ann")
        room.policies.put_inline(tx, ACCOUNT, OPS, "p", document("Allow", "iot:CreateJob"))
        room.policies.put_inline(tx, ACCOUNT, ANN, "p", document("Allow", "iot:CancelJob"))
        room.policies.attach(tx, ACCOUNT, ANN, READ_ONLY)

    room.work.run_blocking(fill)
    room.work.run_blocking(lambda tx: room.groups.change(tx, ACCOUNT, "ops", new_name="operators", new_path=None))
    room.work.run_blocking(lambda tx: room.identities.change_user(tx, ACCOUNT, "ann", new_name="anna", new_path="/eng/"))
    group = room.work.read_blocking(lambda tx: room.groups.find(tx, ACCOUNT, "operators"))
    assert group.path == "/teams/"
    for action in ("iot:CreateJob", "iot:CancelJob", "iot:ListThings"):
        assert decide(room, action, "anna") is Decision.ALLOW
    assert decide(room, "iot:CreateJob", "ann") is Decision.IMPLICIT_DENY
    assert len(room.work.read_blocking(lambda tx: room.identities.keys_of(tx, ACCOUNT, "anna"))) == 1
    room.user("ann")
    with pytest.raises(AlreadyExists):
        room.work.run_blocking(lambda tx: room.identities.change_user(tx, ACCOUNT, "anna", new_name="ann", new_path=None))
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.groups.change(tx, ACCOUNT, "operators", new_name="a b", new_path=None))


def test_quotas_are_those_of_iam(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "GROUPS_OF_USER_MAX", 1)
    monkeypatch.setattr(groups_module, "GROUPS_MAX", 2)
    monkeypatch.setattr(identities_module, "USERS_MAX", 1)
    monkeypatch.setattr(identities_module, "ROLES_MAX", 0)
    monkeypatch.setattr(policies_module, "POLICIES_MAX", 0)
    room.work.run_blocking(lambda tx: room.groups.create(tx, ACCOUNT, "second"))
    room.work.run_blocking(lambda tx: room.groups.add_user(tx, ACCOUNT, "ops", "ann"))
    trust = '{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}}'
    for attempt, quota in (
        (lambda tx: room.groups.create(tx, ACCOUNT, "third"), "GroupsPerAccount"),
        (lambda tx: room.groups.add_user(tx, ACCOUNT, "second", "ann"), "GroupsPerUser"),
        (lambda tx: room.identities.create_user(tx, ACCOUNT, "ben"), "UsersPerAccount"),
        (lambda tx: room.identities.create_role(tx, ACCOUNT, "r", trust), "RolesPerAccount"),
        (lambda tx: room.policies.create(tx, ACCOUNT, "p", document("Allow", "*")), "PoliciesPerAccount"),
    ):
        with pytest.raises(LimitExceeded, match=quota):
            room.work.run_blocking(attempt)


def test_inline_policies_share_one_size(room: AccessRoom) -> None:
    def long(length: int) -> str:
        return document("Allow", "iot:" + "a" * (length - len(document("Allow", "iot:").replace(" ", ""))))

    def put(owner: Owner, name: str, length: int) -> None:
        room.work.run_blocking(lambda tx: room.policies.put_inline(tx, ACCOUNT, owner, name, long(length)))

    for owner, quota in {ANN: 2048, OPS: 5120}.items():
        put(owner, "p", quota - 100)
        with pytest.raises(LimitExceeded, match=f"{quota} bytes"):
            put(owner, "q", 101)
        put(owner, "q", 100)
        # Its own former text doesn't count against the one that takes its place.
        put(owner, "p", quota - 100)
    with pytest.raises(LimitExceeded, match="PolicySize: 6144"):
        room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "m", long(6145)))
    room.work.run_blocking(lambda tx: room.policies.create(tx, ACCOUNT, "m", long(6144)))
