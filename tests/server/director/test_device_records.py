"""What vehicles tell of themselves, within bounds and without secrets."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, OverairError
from overair.basics.ids import ThingName
from overair.server.director.device_records import REDACTED, DataKind, without_secrets
from overair.server.director.model import EVENTS_KEPT_MAX, DeviceEvent, DeviceStatus
from overair.server.director.store import SqlRecordStore
from overair.wire.uptane.events import Event, EventKind
from tests.support.director_room import DirectorRoom, Vehicle

CAR = ThingName("car-1")


def put(room: DirectorRoom, kind: str, value: Any) -> None:
    method = getattr(room.director.records, f"put_{kind}")
    room.work.run_blocking(lambda tx: method(tx, room.account, CAR, value))


def shown(room: DirectorRoom, kind: DataKind) -> Any:
    found = room.work.read_blocking(lambda tx: room.director.records.data(tx, room.account, CAR, kind))
    return None if found is None else found[0]


def events(room: DirectorRoom, correlation_id: str | None = None) -> list[DeviceEvent]:
    return list(
        room.work.read_blocking(lambda tx: room.director.views.events(tx, room.account, CAR, correlation_id=correlation_id))
    )


def tell(room: DirectorRoom, *batch: Event) -> int:
    return room.work.run_blocking(lambda tx: room.director.records.take_events(tx, room.place, CAR, batch))


def event(identity: str, kind: str = EventKind.DOWNLOAD_STARTED, **members: Any) -> Event:
    return Event(id=identity, kind=kind, device_time=Instant(1_000), members=members)


def test_the_last_word_of_each_kind_is_kept(room: DirectorRoom) -> None:
    put(room, "packages", [{"name": "bash", "version": "5.1"}])
    put(room, "packages", [{"name": "bash", "version": "5.2"}])
    put(room, "system", {"id": "board", "children": []})
    put(room, "network", {"hostname": "car", "local_ipv4": "10.0.0.2", "mac": "00:11"})
    assert shown(room, DataKind.PACKAGES) == [{"name": "bash", "version": "5.2"}]
    assert shown(room, DataKind.SYSTEM) == {"id": "board", "children": []}
    assert shown(room, DataKind.NETWORK) == {"hostname": "car", "local_ipv4": "10.0.0.2", "mac": "00:11"}
    assert shown(room, DataKind.CONFIG) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("packages", {}),
        ("packages", [{"name": "bash"}]),
        ("packages", [{"name": "x" * 257, "version": "1"}]),
        ("system", "text"),
        ("network", []),
        ("network", {"hostname": 7}),
        ("config", b"no = [toml"),
        ("config", b"\xff"),
    ],
)
def test_what_is_none_of_it_is_refused(room: DirectorRoom, kind: str, value: Any) -> None:
    with pytest.raises(InvalidRequest):
        put(room, kind, value)


def test_secrets_of_the_configuration_are_never_kept(room: DirectorRoom) -> None:
    toml = b"""
[tls]
server = "https://ota.example"
pkey_source = "file"
[provision]
p12_password = "hunter2"
expiry_days = "36000"
[p11]
module = "/usr/lib/p11.so"
pass = "1234"
[import]
tls_pkey_path = "pkey.pem"
[acme]
api_token = "abc"
pin = 7
shopping = ["pins"]
"""
    put(room, "config", toml)
    assert shown(room, DataKind.CONFIG) == {
        "tls": {"server": "https://ota.example", "pkey_source": "file"},
        "provision": {"p12_password": REDACTED, "expiry_days": "36000"},
        "p11": {"module": "/usr/lib/p11.so", "pass": REDACTED},
        "import": {"tls_pkey_path": "pkey.pem"},
        "acme": {"api_token": REDACTED, "pin": REDACTED, "shopping": ["pins"]},
    }


@given(
    value=st.recursive(
        st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "password", "secret_key", "PIN", "token"]), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_no_value_below_a_secret_name_survives(value: Any) -> None:
    with suppress(OverairError):
        kept = json.dumps(without_secrets({"password": "hunter2", "rest": value, "deep": {"secret": ["hunter2"]}}, depth=0))
        assert "hunter2" not in kept


# Events -------------------------------------------------------------------------------------------------------------------


def test_an_event_counts_once_however_often_it_comes(room: DirectorRoom) -> None:
    assert tell(room, event("1"), event("2"), event("1")) == 2
    assert tell(room, event("2"), event("3")) == 1
    assert sorted(each.id for each in events(room)) == ["1", "2", "3"]


def test_events_are_found_by_what_they_are_about(room: DirectorRoom) -> None:
    tell(room, event("1", correlationId="urn:a", ecu="gw"), event("2", correlationId="urn:b"))
    [found] = events(room, "urn:a")
    assert (found.id, found.ecu, found.device_time) == ("1", "gw", 1_000)
    assert found.payload == {"correlationId": "urn:a", "ecu": "gw"}


def test_the_journal_is_bounded(room: DirectorRoom) -> None:
    for batch in range(12):
        room.clock.advance(milliseconds=1)
        tell(room, *(event(f"{batch:02}-{number:03}") for number in range(100)))
    count = len(events(room))
    assert count == 200, "as many as are shown"
    known = room.work.read_blocking(
        lambda tx: SqlRecordStore().known_events(
            tx, room.account, CAR, [f"{batch:02}-{number:03}" for batch in range(12) for number in range(100)]
        )
    )
    assert EVENTS_KEPT_MAX <= len(known) <= EVENTS_KEPT_MAX + 100
    assert "11-099" in known


def test_who_follows_the_job_sees_how_far_the_vehicle_is(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    tell(room, event("1", EventKind.DOWNLOAD_STARTED, correlationId=car.correlation_id, ecu="gw"))
    assert car.execution("A").status_details["reason"] == "downloading (gw)"
    tell(room, event("2", EventKind.INSTALLATION_STARTED, correlationId="urn:another", ecu="gw"))
    assert car.execution("A").status_details["reason"] == "downloading (gw)"
    tell(room, event("3", EventKind.INSTALLATION_APPLIED, correlationId=car.correlation_id, ecu="gw"))
    assert car.execution("A").status_details["reason"] == "installed, waits for a reboot (gw)"


def test_events_of_a_thing_that_is_no_vehicle_are_kept_all_the_same(room: DirectorRoom) -> None:
    assert tell(room, event("1", EventKind.CAMPAIGN_DECLINED, campaignId="nowhere"), event("2", "acme", text="\0")) == 2


# Operators' words ---------------------------------------------------------------------------------------------------------


def test_an_operator_names_and_notes_a_vehicle(room: DirectorRoom) -> None:
    records = room.director.records
    Vehicle(room, "car-1", {"gw": "imx8"})
    expected = room.work.run_blocking(lambda tx: records.expect(tx, room.account, CAR, name="blue", device_type="Vehicle"))
    assert (expected.status, expected.name) == (DeviceStatus.NOT_SEEN, "blue")
    room.work.run_blocking(lambda tx: records.describe(tx, room.account, CAR, notes="line 1\nline 2"))
    described = room.device("car-1")
    assert (described.name, described.notes) == ("blue", "line 1\nline 2")
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: records.describe(tx, room.account, CAR, name="x" * 201))
    car = room.vehicle("car-1", gw="imx8")
    assert room.device("car-1").name == "blue", "what was said stays when it comes"
    assert car.known.device.status is DeviceStatus.UP_TO_DATE
