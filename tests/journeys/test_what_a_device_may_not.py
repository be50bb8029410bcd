"""What a device that was broken into tries on others, over MQTT and HTTPS alike: every row is refused and changes nothing.

Its policy is the one that ``overair device enroll`` gives: its own topics and its own jobs.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3

from overair.cli.device import device_policy
from overair.wire.mqtt.packets import Connack, Publish
from tests.support.field_device import Identity, enroll
from tests.support.mqtt_over_tls import MqttOverTls, device_context
from tests.support.server_process import ServerProcess


@dataclass(frozen=True, slots=True)
class Scene:
    """An attacker with one connection's worth of rights, and a victim with a job that is queued for it."""

    server: ServerProcess
    attacker: Identity
    victim: Identity
    job: str

    def words(self, text: str) -> str:
        return text.format(me=self.attacker.thing, victim=self.victim.thing, job=self.job)

    def connect(self, client_id: str = "") -> MqttOverTls:
        endpoints, attacker = self.server.endpoints, self.attacker
        context = device_context(endpoints["ca_file"], attacker.certificate_file, attacker.key_file)
        return MqttOverTls(endpoints["mqtt_host"], endpoints["mqtt_port"], context, client_id or attacker.thing)

    def ask(self, method: str, path: str, body: bytes) -> urllib3.BaseHTTPResponse:
        endpoints, attacker = self.server.endpoints, self.attacker
        with urllib3.PoolManager(
            ca_certs=endpoints["ca_file"], cert_file=str(attacker.certificate_file), key_file=str(attacker.key_file)
        ) as pool:
            return pool.request(method, endpoints["device_url"] + path, body=body, retries=False, timeout=60)

    def execution(self) -> dict[str, Any]:
        found = self.server.client("iot").describe_job_execution(jobId=self.job, thingName=self.victim.thing)["execution"]
        return {name: found[name] for name in ("status", "versionNumber")}


@pytest.fixture(scope="module")
def scene(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    iot, people = server.client("iot"), []
    document = json.dumps(device_policy(server.endpoints["region"], server.endpoints["account"]))
    for word in ("attacker", "victim"):
        name = f"{word}-{uuid.uuid4().hex[:8]}"
        made = enroll(server, tmp_path_factory.mktemp(word) / "device", name, policy_document=document)
        # Exclusively: so its policy's variables have a value over HTTPS as well, as those of an enrolled device do.
        iot.detach_thing_principal(thingName=name, principal=made.certificate_arn)
        iot.attach_thing_principal(thingName=name, principal=made.certificate_arn, thingPrincipalType="EXCLUSIVE_THING")
        people.append(made)
    job = f"job-{uuid.uuid4().hex}"
    iot.create_job(jobId=job, targets=[people[1].thing_arn], document="{}")
    return Scene(server, people[0], people[1], job)


def after(scene: Scene) -> None:
    assert scene.execution() == {"status": "QUEUED", "versionNumber": 1}


def test_a_device_speaks_for_itself_over_both_wires(scene: Scene) -> None:
    # Else every refusal below would prove nothing.
    own = scene.words("$aws/things/{me}/jobs/$next/get")
    assert scene.connect().subscribe((own + "/accepted", 1)) == (1,)
    assert scene.ask("POST", f"/topics/{own}?qos=1", b"{}").status == 200
    assert scene.ask("GET", scene.words("/things/{me}/jobs"), b"").status == 200
    after(scene)


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/{victim}/jobs/{job}/update",
        "$aws/things/{victim}/jobs/{job}/get",
        "$aws/things/{victim}/jobs/$next/get",
        "$aws/things/{victim}/jobs/start-next",
        "$aws/things/{victim}/jobs/get",
        "$aws/things/{victim}/streams/s/get/cbor",
        "$aws/things/{victim}/streams/s/describe/json",
        "$aws/things/{victim}/jobs/notify-next",
        "$aws/things/{me}/../{victim}/jobs/{job}/update",
        "$aws/things/{me}//{victim}/jobs/{job}/update",
        "$aws/events/presence/connected/{victim}",
        "somebody/elses/topic",
    ],
)
@pytest.mark.parametrize("wire", ["mqtt", "https", "https, its slashes escaped"])
def test_a_device_publishes_nothing_for_another(scene: Scene, topic: str, wire: str) -> None:
    topic = scene.words(topic)
    body = json.dumps({"status": "SUCCEEDED"}).encode()
    if wire == "mqtt":
        client = scene.connect()
        client.publish(topic, body, qos=1)
        assert client.next() is None
    else:
        path = topic.replace("/", "%2F") if wire != "https" else topic.replace("..", "%2E%2E")
        assert scene.ask("POST", f"/topics/{path}?qos=1", body).status == 403
    after(scene)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$aws/things/{victim}/jobs/notify",
        "$aws/things/{victim}/jobs/#",
        "$aws/things/+/jobs/notify-next",
        "$aws/things/#",
        "$share/g/$aws/things/{victim}/jobs/notify-next",
        "$share/g/$aws/things/{me}/jobs/notify-next",
        "$aws/things/{victim}/streams/+/data/cbor",
        "$aws/events/#",
        "#",
        "+/+/{victim}/#",
    ],
)
def test_a_device_listens_to_nobody_else(scene: Scene, topic_filter: str) -> None:
    assert scene.connect().subscribe((scene.words(topic_filter), 1)) is None
    after(scene)


@pytest.mark.parametrize("client_id", ["{victim}", "{me}x", "+", "#", "*", "?", "$aws", "a{victim}"])
def test_a_device_connects_as_nobody_else(scene: Scene, client_id: str) -> None:
    assert scene.connect(scene.words(client_id)).connack in (Connack(return_code=2), Connack(return_code=5))
    after(scene)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/things/{victim}/jobs", 403),
        ("PUT", "/things/{victim}/jobs/$next", 403),
        ("GET", "/things/{victim}/jobs/{job}", 403),
        ("GET", "/things/{victim}/jobs/$next", 403),
        ("POST", "/things/{victim}/jobs/{job}", 403),
        ("POST", "/things/{me}/jobs/{job}", 404),
        ("GET", "/things/{me}/jobs/{job}", 404),
        ("GET", "/director/root.json", 403),
        ("GET", "/director/targets.json", 403),
        ("PUT", "/director/manifest", 403),
        ("POST", "/director/ecus", 403),
        ("GET", "/repo/targets.json", 403),
    ],
)
def test_a_device_asks_over_https_for_nothing_that_is_anothers(scene: Scene, method: str, path: str, status: int) -> None:
    body = json.dumps({"status": "SUCCEEDED"}).encode() if method != "GET" else b""
    assert scene.ask(method, scene.words(path), body).status == status
    after(scene)


@pytest.mark.parametrize("wire", ["mqtt", "https"])
def test_a_device_retains_nothing_that_its_policy_does_not_let_it(scene: Scene, wire: str) -> None:
    topic = scene.words("$aws/things/{me}/jobs/kept")
    if wire == "mqtt":
        client = scene.connect()
        client.publish(topic, b"x", qos=1, retain=True)
        assert client.next() is None
    else:
        assert scene.ask("POST", f"/topics/{topic}?qos=1&retain=true", b"x").status == 403
    kept = scene.server.client("iot-data").list_retained_messages()["retainedTopics"]
    assert topic not in [each["topic"] for each in kept]


def test_boto3_is_told_which_statement_would_have_had_to_allow_it(scene: Scene) -> None:
    topic = scene.words("$aws/things/{victim}/jobs/{job}/update")
    found = scene.server.client("overair").explain_device_rights(
        principal=scene.attacker.certificate_arn, action="iot:Publish", resource=topic, clientId=scene.attacker.thing
    )
    assert (found["decision"], found["thingName"]) == ("IMPLICIT_DENY", scene.attacker.thing)
    assert {each["why"] for each in found["statements"]} == {"it is about other resources"}
    assert not any(each["applies"] for each in found["statements"])


def test_a_foreign_stream_answers_in_ones_own_name_unless_the_policy_names_streams(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As AWS has it: what guards a stream is the policy that names it; images are no secrets by themselves."""
    server, at = scene.server, scene.server.endpoints
    stream, key = f"victims-{uuid.uuid4().hex[:8]}", f"{uuid.uuid4().hex}.bin"
    server.client("s3").put_object(Bucket=at["bucket"], Key=key, Body=b"firmware")
    location = {"bucket": at["bucket"], "key": key}
    files = [{"fileId": 0, "s3Location": location}]
    server.client("iot").create_stream(streamId=stream, files=files, roleArn=at["ota_role_arn"])

    def asked_by(who: Identity) -> Any:
        client = Scene(server, who, scene.victim, scene.job).connect()
        base = f"$aws/things/{who.thing}/streams/{stream}"
        assert client.subscribe((f"{base}/data/json", 0), (f"{base}/rejected/json", 0)) == (0, 0)
        client.publish(f"{base}/get/json", b'{"f":0,"l":256,"o":0,"n":1}', qos=0)
        return client.next()

    answer = asked_by(scene.attacker)
    assert isinstance(answer, Publish)
    assert answer.topic.endswith("/data/json")
    document = device_policy(at["region"], at["account"])
    topics = next(each for each in document["Statement"] if "iot:Publish" in each["Action"])
    topics["Resource"] = [name.replace("/streams/*", "/streams/mine-*") for name in topics["Resource"]]
    narrowed = json.dumps(document)
    name = f"narrow-{uuid.uuid4().hex[:8]}"
    narrow = enroll(server, tmp_path_factory.mktemp("narrow"), name, policy_document=narrowed)
    assert asked_by(narrow) is None
