"""Fleet authorities over plain REST: what tools that move a fleet read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from overair.basics.clock import SettableClock, WallClock
from tests.support.fleet_pki import FleetAuthority, new_key, pem_of
from tests.support.whole_server import WholeServer

PATH = "/api/v1/fleet_authorities"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    server = WholeServer(tmp_path_factory.mktemp("fleet") / "data", SettableClock(WallClock().now()))
    yield server
    server.close()


def listed(server: WholeServer) -> dict[str, Any]:
    return {each["authorityId"]: each for each in server.operator("GET", PATH).json["values"]}


def test_authorities_are_registered_with_their_rule_and_listed_as_they_are_sent(server: WholeServer) -> None:
    first, second = FleetAuthority("one"), FleetAuthority("two")
    rule = {"firstContact": "deny", "deviceIdPattern": "car-*", "renewal": "approve", "renewalOverlapDays": 7}
    body = {"certificatePem": (first.pem + second.pem).decode(), "name": "Works", "rule": rule}
    before = listed(server)
    rehearsed = server.operator("POST", PATH, json_body=body, query={"dryRun": "true"})
    assert rehearsed.status == 200
    assert listed(server) == before
    made = server.operator("POST", PATH, json_body=body).json["values"]
    assert [each["certificatePem"].encode() for each in made] == [first.pem, second.pem]
    assert {each["authorityId"] for each in made} == listed(server).keys() - before.keys()
    for each in made:
        assert listed(server)[each["authorityId"]] == each
        assert rule.items() <= each["rule"].items()
        # What is listed can be sent as it is, to another server or to this one.
        again = {"certificatePem": each["certificatePem"], "name": each["name"], "rule": each["rule"]}
        assert server.operator("POST", PATH, json_body=again).json["values"] == [each]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"certificatePem": 1},
        {"certificatePem": "no PEM"},
        {"certificatePem": FleetAuthority().pem.decode(), "rule": []},
        {"certificatePem": FleetAuthority().pem.decode(), "rule": {"firstContact": "perhaps"}},
        {"certificatePem": FleetAuthority().pem.decode(), "rule": {"renewalOverlapDays": True}},
        {"certificatePem": FleetAuthority().pem.decode(), "rule": {"thingGroupNames": [1]}},
        {"certificatePem": FleetAuthority().pem.decode(), "rule": {"thingTypeName": 1}},
        {"certificatePem": FleetAuthority().device("car-1").chain_pem.decode()},
        {"certificatePem": FleetAuthority().pem.decode() + pem_of(new_key()).decode()},
    ],
)
def test_what_is_no_authority_or_no_rule_is_refused_and_nothing_is_stored(server: WholeServer, body: object) -> None:
    before = listed(server)
    reply = server.operator("POST", PATH, json_body=body)
    assert reply.status == 400, reply.body
    assert listed(server) == before


def test_a_rule_that_names_a_group_which_is_not_there_is_refused(server: WholeServer) -> None:
    body = {"certificatePem": FleetAuthority().pem.decode(), "rule": {"thingGroupNames": ["nowhere"]}}
    assert server.operator("POST", PATH, json_body=body).status == 404
