"""``/oauth2/token`` and what comes of it: who gets a token, what ends it, and that a refusal tells nobody whom it concerns.

Reference: RFC 6749 §2.3.1, §4.4, §5.1, §5.2.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.server.access.bearer_tokens import LIFETIME_S, SealedTokens
from overair.server.access.model import KeyStatus, NewKeys, Owner, OwnerKind
from overair.server.keyring.wrapping import SecretBox
from tests.server.rest.test_door import document, user
from tests.support.listening import EventLoopThread
from tests.support.rest_door import FORM, Reply, RestWorld

ACCOUNT = AccountId("123456789012")
GRANT = {"grant_type": "client_credentials"}


def basic(client_id: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def ask(world: RestWorld, token: str) -> Reply:
    return world.bearing("GET", "/api/v1/requests/a.json", token=token)


def unknown(world: RestWorld) -> NewKeys:
    ids = RandomIds()
    secret: Any = world.root.secret
    return NewKeys(key_id=type(world.root.key_id)("AKIA" + ids.token(16, "ABCDEFG")), secret=secret, created=world.root.created)


@pytest.fixture
def moved(world: RestWorld) -> Iterator[RestWorld]:
    """The clock is put back afterwards."""
    at = world.clock.now()
    yield world
    world.clock.set(at)


@pytest.mark.parametrize("way", ["basic", "basic, percent-encoded", "form"])
def test_an_access_keys_id_and_secret_give_a_token_for_an_hour(world: RestWorld, way: str) -> None:
    keys = user(world, "overair:DescribeRequest")
    client_id, secret = str(keys.key_id), keys.secret.reveal()
    if way == "form":
        reply = world.ask_token({**GRANT, "client_id": client_id, "client_secret": secret})
    else:
        spelt = quote(secret, safe="") if "percent" in way else secret
        reply = world.ask_token(GRANT, authorization=basic(client_id, spelt))
    assert reply.status == 200
    assert set(reply.json) == {"access_token", "token_type", "expires_in"}
    assert (reply.json["token_type"], reply.json["expires_in"]) == ("Bearer", 3600)
    assert (reply.headers["cache-control"], reply.headers["pragma"]) == ("no-store", "no-cache")
    assert reply.headers["content-type"] == "application/json"
    assert world.room.credentials.uses.newest(keys.key_id, None) is None, "a token alone has asked for nothing"
    assert ask(world, reply.json["access_token"]).status == 200
    used = world.room.credentials.uses.newest(keys.key_id, None)
    assert used is not None
    assert used.service == "overair"


def test_a_scope_is_echoed_and_changes_nothing(world: RestWorld) -> None:
    keys = user(world, "overair:DescribeRequest")
    client = {"client_id": str(keys.key_id), "client_secret": keys.secret.reveal()}
    reply = world.ask_token({**GRANT, **client, "scope": "namespace.x read"})
    assert reply.json["scope"] == "namespace.x read"
    assert ask(world, reply.json["access_token"]).status == 200
    for wrong in ("", 'a"b', "a\\b", "x" * 2000, "ü"):
        refused = world.ask_token({**GRANT, **client, "scope": wrong})
        assert (refused.status, refused.json["error"]) == (400, "invalid_scope")


def test_every_client_that_is_not_believed_hears_the_same(world: RestWorld) -> None:
    """A wrong secret, an id that nobody has, an inactive key, a session's key, nonsense: byte for byte one answer."""
    ann, idle = user(world, "overair:*"), user(world)
    world.work.run_blocking(
        lambda tx: world.room.identities.set_key_status(tx, ACCOUNT, name_of(world, idle), idle.key_id, KeyStatus.INACTIVE)
    )
    session = session_of_a_role(world)
    clients = [
        (str(ann.key_id), "wrong"),
        (str(ann.key_id), ""),
        (str(unknown(world).key_id), ann.secret.reveal()),
        (str(idle.key_id), idle.secret.reveal()),
        (str(session.key_id), session.secret.reveal()),
        ("", ""),
        ("ü", "ü"),
        ("a\0b", "c"),
        ("x" * 300, "y"),
        (str(ann.key_id), ann.secret.reveal() + "x" * 300),
    ]
    said = set()
    for client_id, secret in clients:
        for reply in (
            world.ask_token({**GRANT, "client_id": client_id, "client_secret": secret}),
            world.ask_token(GRANT, authorization=basic(client_id, secret)),
        ):
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == 'Basic realm="overair"'
            said.add(reply.body)
    for reply in (
        world.ask_token(GRANT),
        world.ask_token({**GRANT, "client_id": str(ann.key_id)}),
        world.ask_token(GRANT, authorization="Basic ***"),
        world.ask_token(GRANT, authorization=basic("no colon", "")[:-4]),
        world.ask_token({**GRANT, "client_id": "another"}, authorization=basic(str(ann.key_id), ann.secret.reveal())),
    ):
        assert reply.status == 401
        said.add(reply.body)
    assert len(said) == 1
    assert said.pop().startswith(b'{"error":"invalid_client","error_description":')


@pytest.mark.parametrize(
    ("form", "headers", "error"),
    [
        ({"grant_type": "password", "username": "a", "password": "b"}, {}, "unsupported_grant_type"),
        ({"grant_type": ""}, {}, "unsupported_grant_type"),
        ({}, {}, "invalid_request"),
        ("grant_type=client_credentials&grant_type=client_credentials", {}, "invalid_request"),
        ({**GRANT, "client_secret": "x"}, {}, "invalid_request"),
        (GRANT, {"content_type": "application/json"}, "invalid_request"),
        ("grant_type=%ff", {}, "invalid_request"),
        ("grant_type=client_credentials&x=" + "y" * 5000, {}, "invalid_request"),
        (GRANT, {"authorization": "Bearer x"}, "invalid_request"),
    ],
)
def test_a_request_that_breaks_the_grants_rules_is_told_which(
    world: RestWorld, form: Any, headers: dict[str, str], error: str
) -> None:
    told = {"authorization": basic(str(world.root.key_id), world.root.secret.reveal()), **headers}
    reply = world.ask_token(form, **told)
    assert (reply.status, reply.json["error"]) == (400, error)
    assert reply.json["error_description"]


def test_tokens_are_asked_for_with_post_alone_and_nothing_lies_below(world: RestWorld) -> None:
    for method in ("GET", "PUT", "HEAD", "DELETE"):
        reply = world.ask(method, "/oauth2/token", headers={"content-type": FORM})
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert b"<Error>" in world.ask("POST", "/oauth2/tokens").body


def test_a_token_ends_after_its_hour(moved: RestWorld) -> None:
    token = moved.token()
    moved.clock.advance(milliseconds=LIFETIME_S * 1000 - 1)
    assert ask(moved, token).status == 200
    moved.clock.advance(milliseconds=1)
    refused = ask(moved, token)
    assert (refused.status, refused.code) == (401, "invalid_token")
    assert refused.headers["www-authenticate"] == 'Bearer realm="overair", error="invalid_token"'


def name_of(world: RestWorld, keys: NewKeys) -> str:
    credential = world.work.read_blocking(lambda tx: world.room.credentials.load(tx, keys.key_id))
    assert credential is not None
    return credential.user_name


def session_of_a_role(world: RestWorld) -> NewKeys:
    """A session's keys, taken on by a user."""
    ann = user(world)
    name = name_of(world, ann)
    caller = world.room.caller(name)
    role = "r" + RandomIds().token(12)
    trust = document("sts:AssumeRole").replace('"Resource": "*"', f'"Principal": {{"AWS": "{caller.principal_arn}"}}')

    def assume(tx: Any) -> NewKeys:
        made = world.room.identities.create_role(tx, ACCOUNT, role, trust)
        return world.room.sessions.assume(tx, caller, made.arn, "session").keys

    return world.work.run_blocking(assume)


@pytest.mark.parametrize("taken", ["key inactive", "key deleted", "user deleted"])
def test_a_key_that_is_taken_away_ends_its_tokens_at_once(world: RestWorld, taken: str) -> None:
    keys = user(world, "overair:DescribeRequest")
    name, token, identities = name_of(world, keys), world.token(keys), world.room.identities
    other = world.token(user(world, "overair:DescribeRequest"))
    assert ask(world, token).status == 200

    def take(tx: Any) -> None:
        if taken == "key inactive":
            identities.set_key_status(tx, ACCOUNT, name, keys.key_id, KeyStatus.INACTIVE)
            return
        identities.delete_key(tx, ACCOUNT, name, keys.key_id)
        if taken == "user deleted":
            world.room.policies.delete_inline(tx, ACCOUNT, Owner(kind=OwnerKind.USER, name=name), "p")
            identities.delete_user(tx, ACCOUNT, name)

    world.work.run_blocking(take)
    assert (ask(world, token).status, ask(world, token).code) == (401, "invalid_token")
    assert ask(world, other).status == 200
    if taken == "key inactive":
        world.work.run_blocking(lambda tx: identities.set_key_status(tx, ACCOUNT, name, keys.key_id, KeyStatus.ACTIVE))
        assert ask(world, token).status == 200


def test_a_policy_that_is_changed_counts_for_tokens_that_are_out(world: RestWorld) -> None:
    keys = user(world)
    name, token = name_of(world, keys), world.token(keys)
    owner = Owner(kind=OwnerKind.USER, name=name)
    assert ask(world, token).status == 403
    world.work.run_blocking(
        lambda tx: world.room.policies.put_inline(tx, ACCOUNT, owner, "p", document("overair:DescribeRequest"))
    )
    assert ask(world, token).status == 200
    world.work.run_blocking(lambda tx: world.room.policies.delete_inline(tx, ACCOUNT, owner, "p"))
    assert ask(world, token).status == 403


def test_a_token_says_nothing_that_could_be_read_and_no_two_are_alike(world: RestWorld) -> None:
    first, second = world.token(), world.token()
    assert first != second
    opened = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
    assert str(world.root.key_id).encode() not in opened
    assert world.root.secret.reveal().encode() not in opened


@settings(max_examples=40)
@given(data=st.data())
def test_a_token_with_a_byte_changed_is_none(world: RestWorld, data: st.DataObject) -> None:
    token = world.token()
    at = data.draw(st.integers(0, len(token) - 2))  # the last character holds bits that no byte needs
    other = data.draw(st.sampled_from("ABCXYZabcxyz019-_").filter(lambda character: character != token[at]))
    assert ask(world, token[:at] + other + token[at + 1 :]).status == 401


@settings(max_examples=40)
@given(body=st.binary(max_size=200))
def test_no_body_makes_the_token_path_fail(world: RestWorld, body: bytes) -> None:
    reply = world.ask("POST", "/oauth2/token", body=body, headers={"content-type": FORM})
    assert reply.status in (400, 401)


class CountingWork:
    """Records that count how often they are read."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.reads = 0

    async def read(self, query: Any) -> Any:
        self.reads += 1
        return await self._work.read(query)


def test_an_id_that_nobody_has_costs_what_a_wrong_secret_does(world: RestWorld, thread: EventLoopThread) -> None:
    """Of ids in use too, whether or not they are remembered: the time tells nothing either."""
    counting: Any = CountingWork(world.work)
    box = SecretBox(Redacted(b"k" * 32), RandomIds())
    tokens = SealedTokens(counting, world.room.credentials, box, clock=world.clock, region="us-east-1")
    ann = user(world, "overair:DescribeRequest")
    wrong = Redacted("wrong")
    assert thread.run(tokens.issue(str(unknown(world).key_id), wrong)) is None
    assert thread.run(tokens.issue(str(ann.key_id), wrong)) is None
    assert ask(world, world.token(ann)).status == 200
    assert thread.run(tokens.issue(str(ann.key_id), wrong)) is None
    assert counting.reads == 3


def test_a_link_to_an_object_is_no_client(world: RestWorld) -> None:
    """Keys that travel in presigned links stand in no table."""
    form = urlencode({**GRANT, "client_id": "ASIALINK" + "A" * 12, "client_secret": "x"})
    assert world.ask_token(form).json["error"] == "invalid_client"


def test_what_is_issued_ends_at_the_latest_after_an_hour_of_the_clock_that_signs(moved: RestWorld) -> None:
    """A clock that was wrong when the token was issued doesn't make it live for ever."""
    at = moved.clock.now()
    moved.clock.set(Instant(at + 10 * LIFETIME_S * 1000))
    early = moved.token()
    moved.clock.set(at)
    assert ask(moved, early).status == 401
