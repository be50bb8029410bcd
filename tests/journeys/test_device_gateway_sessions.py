"""What a connection leaves behind and finds again, over real ports: wills, retained messages, sessions, takeovers, silence."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.field_device import Device, Identity, enroll
from tests.support.server_process import ServerProcess


def whole_room(server: ServerProcess) -> str:
    stem = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}"
    resources = [f"{stem}:client/*", f"{stem}:topic/room/*", f"{stem}:topicfilter/room/*"]
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": resources}]})


@pytest.fixture
def make(server: ServerProcess, tmp_path: Path) -> Callable[..., Device]:
    def new(identity: Identity | None = None, **options: Any) -> Device:
        name = f"dev-{uuid.uuid4().hex[:8]}"
        who = identity or enroll(server, tmp_path / name, name, policy_document=whole_room(server))
        return Device(server, who, **options)

    return new


def test_a_will_is_published_when_its_owner_is_lost_and_not_when_it_says_goodbye(make: Callable[..., Device]) -> None:
    topic = f"room/{uuid.uuid4().hex}"
    with make() as listener:
        listener.subscribe(f"{topic}/#")
        polite, lost = make(), make()
        polite.client.will_set(f"{topic}/polite", b"never heard", qos=1)
        lost.client.will_set(f"{topic}/lost", b"gone", qos=1)
        polite.connect().close()
        lost.connect()
        lost.client.socket().shutdown(2)
        assert listener.next_message() == (f"{topic}/lost", b"gone")
        lost.client.loop_stop()
        assert listener.received.empty()


def test_a_retained_message_greets_who_subscribes_later_until_it_is_cleared(make: Callable[..., Device]) -> None:
    topic = f"room/{uuid.uuid4().hex}"
    with make() as speaker, make() as early, make() as late:
        speaker.client.publish(topic, b"kept", qos=1, retain=True).wait_for_publish(20)
        early.subscribe(topic)
        assert early.next_message() == (topic, b"kept")
        speaker.client.publish(topic, b"", qos=1, retain=True).wait_for_publish(20)
        late.subscribe(topic)
        speaker.publish(topic, b"live", qos=1)
        assert late.next_message() == (topic, b"live")


def test_a_persistent_session_keeps_what_was_published_meanwhile_in_order_and_a_clean_one_nothing(
    make: Callable[..., Device],
) -> None:
    topic = f"room/{uuid.uuid4().hex}"
    with make() as speaker:
        away = make(clean=False).connect()
        away.subscribe(topic)
        away.close()
        for number in range(20):
            speaker.publish(topic, b"%d" % number, qos=1)
        back = make(away.identity, clean=False).connect()
        assert [back.next_message()[1] for _ in range(20)] == [b"%d" % number for number in range(20)]
        back.close()
        make(away.identity, clean=True).connect().close()
        speaker.publish(topic, b"lost", qos=1)
        again = make(away.identity, clean=False).connect()
        again.subscribe(topic)
        speaker.publish(topic, b"live", qos=1)
        assert again.next_message() == (topic, b"live")
        again.close()


def test_a_second_connection_takes_the_client_id_over_with_its_session(make: Callable[..., Device]) -> None:
    first = make(clean=False)
    # It must not come back by itself and take the id over in its turn.
    first.client.reconnect_delay_set(60, 60)
    first.connect()
    first.subscribe("room/taken")
    second = make(first.identity, clean=False).connect()
    assert first.disconnected.get(timeout=60) is not None
    first.client.loop_stop()
    second.publish("room/taken", b"to myself", qos=1)
    assert second.next_message() == ("room/taken", b"to myself")
    second.close()


def test_qos_2_is_granted_as_1(make: Callable[..., Device]) -> None:
    with make() as device:
        assert [code.value for code in device.subscribe("room/a", "room/b", qos=2)] == [1, 1]
