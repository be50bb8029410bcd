"""``overair up`` as a process: how it starts, how it refuses, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.mqtt_over_tls import device_context
from tests.support.server_process import ServerProcess, clean_environment, overair

NewServer = Callable[..., ServerProcess]


def refused(*arguments: str, code: int, **environment: str) -> str:
    """The one line that a refused command ends with."""
    return line_of(overair(*arguments, **environment), code)


def line_of(ended: subprocess.CompletedProcess[str], code: int) -> str:
    assert ended.returncode == code, ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("overair: ")
    return lines[0]


def test_the_first_start_leaves_everything_that_a_newcomer_needs(new_server: NewServer) -> None:
    server = new_server(cold=True).start()
    written = json.loads((server.data / "run" / "endpoints.json").read_bytes())
    assert written == server.endpoints
    assert set(written) == {
        "pid",
        "operator_url",
        "plain_http_url",
        "mqtt_host",
        "mqtt_port",
        "device_url",
        "ca_file",
        "region",
        "account",
        "bucket",
        "ota_role_arn",
        "signing_profile",
        "signer_certificate_file",
    }
    assert written["pid"] == server.process.pid
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.data / "root-key.json").stat().st_mode) == 0o600
    assert Path(written["signer_certificate_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert server.client("s3").get_bucket_versioning(Bucket=written["bucket"])["Status"] == "Enabled"
    assert server.client("iam").get_role(RoleName=written["ota_role_arn"].rsplit("/", 1)[1])
    profile = server.client("signer").get_signing_profile(profileName=written["signing_profile"])
    assert server.client("acm").describe_certificate(CertificateArn=profile["signingMaterial"]["certificateArn"])


def test_sigterm_ends_it_with_0_and_takes_the_endpoints_away(new_server: NewServer) -> None:
    server = new_server().start()
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    assert not (server.data / "run" / "endpoints.json").exists()


def test_sigterm_ends_it_in_time_while_a_client_holds_a_connection_open(new_server: NewServer) -> None:
    server = new_server().start()
    host, port = server.endpoints["mqtt_host"], server.endpoints["mqtt_port"]
    with socket.create_connection((host, port), timeout=30):
        began = time.monotonic()
        assert server.stop() == 0
    assert time.monotonic() - began < 10


def test_a_restart_keeps_account_keys_and_certificates(new_server: NewServer) -> None:
    server = new_server().start()
    before = (server.endpoints["account"], server.root_key(), (server.data / "ca.pem").read_bytes())
    server.client("iot").create_thing(thingName="kept")
    server.stop()
    server.start()
    assert (server.endpoints["account"], server.root_key(), (server.data / "ca.pem").read_bytes()) == before
    assert server.client("iot").describe_thing(thingName="kept")["thingName"] == "kept"


def test_a_kill_loses_nothing_that_was_acknowledged(new_server: NewServer) -> None:
    server = new_server().start()
    server.client("iot").create_thing(thingName="kept")
    server.kill()
    server.start()
    assert server.client("iot").describe_thing(thingName="kept")["thingName"] == "kept"


def test_the_server_certificate_is_issued_again_when_the_hosts_change(new_server: NewServer) -> None:
    server = new_server().start()
    authority = (server.data / "ca.pem").read_bytes()
    server.stop()
    server.flags = ("--host", "127.0.0.1", "--host", "gateway.example")
    server.start()
    assert (server.data / "ca.pem").read_bytes() == authority
    assert server.endpoints["mqtt_host"] == "127.0.0.1"
    assert server.client("sts").get_caller_identity()["Account"] == server.endpoints["account"]


def test_region_and_account_are_those_of_the_flags(new_server: NewServer) -> None:
    server = new_server("--region", "us-west-2", "--account", "123456789012").start()
    arn = server.client("iot").create_thing(thingName="a")["thingArn"]
    assert arn == "arn:aws:iot:us-west-2:123456789012:thing/a"
    server.stop()
    line = refused("up", "--data", str(server.data), "--region", "eu-west-1", "--operator-port", "0", code=2)
    assert "us-west-2" in line


def test_a_second_server_on_the_same_directory_is_refused_in_one_line(new_server: NewServer) -> None:
    server = new_server().start()
    assert "Another server runs" in refused("up", "--data", str(server.data), "--operator-port", "0", code=2)
    assert server.client("sts").get_caller_identity()


def test_a_taken_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(
            "up", "--data", str(tmp_path / "d"), "--operator-port", port, "--mqtt-port", "0", "--device-port", "0", code=2
        )
    assert port in line


def test_a_foreign_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    command = [sys.executable, "-m", "overair.cli.main", "up", "--data", str(tmp_path)]  # from nothing, as in a shell
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    assert "isn't a state directory" in line_of(ended, code=2)


def test_a_newer_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "overair.json").write_text('{"format": 999, "account": "123456789012", "region": "us-east-1"}')
    assert "newer" in refused("up", "--data", str(tmp_path), code=2)


def test_a_path_that_is_no_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "can't be used" in refused("up", "--data", str(tmp_path / "file"), code=2)


def test_a_path_where_nothing_can_be_made_is_refused_in_one_line() -> None:
    assert "can't be used" in refused("up", "--data", "/proc/overair", code=2)


@pytest.mark.parametrize("flag", ["--mqtt-port", "--device-port", "--plain-http"])
def test_any_taken_port_is_refused_before_anybody_is_served(tmp_path: Path, flag: str) -> None:
    data = tmp_path / "d"
    free = {"--operator-port": "0", "--mqtt-port": "0", "--device-port": "0", "--plain-http": "0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free[flag] = str(taken.getsockname()[1])
        assert free[flag] in refused("up", "--data", str(data), *(part for pair in free.items() for part in pair), code=2)
    assert not (data / "run" / "endpoints.json").exists()


def test_the_endpoints_are_taken_away_by_a_start_and_are_there_only_once_every_port_accepts(new_server: NewServer) -> None:
    server = new_server("--plain-http", "0").start()
    file = server.data / "run" / "endpoints.json"
    server.kill()
    stale = file.read_bytes()
    server.start()
    assert file.read_bytes() != stale
    for url in (server.endpoints["operator_url"], server.endpoints["plain_http_url"], server.endpoints["device_url"]):
        port = int(url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    socket.create_connection(("127.0.0.1", server.endpoints["mqtt_port"]), timeout=30).close()


def test_an_unknown_flag_and_a_misspelt_variable_are_usage_errors(tmp_path: Path) -> None:
    assert overair("up", "--operater-port", "1").returncode == 1
    assert "Did you mean" in refused("up", "--data", str(tmp_path / "d"), code=1, OVERAIR_REGOIN="eu-west-1")
    assert "bind" in refused("up", "--data", str(tmp_path / "d"), "--bind", "everywhere", code=1)


def test_a_server_on_ipv6_alone_is_reached_by_what_it_says_of_itself(new_server: NewServer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("not run: this machine has no IPv6 loopback")
    server = new_server("--bind", "::1", "--host", "::1").start()
    assert server.endpoints["mqtt_host"] == "::1"
    assert server.endpoints["operator_url"].startswith("https://[::1]:")
    assert server.endpoints["device_url"].startswith("https://[::1]:")
    bucket = server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key="k", Body=b"over six")
    assert server.client("s3").get_object(Bucket=bucket, Key="k")["Body"].read() == b"over six"
    assert overair("status", "--data", str(server.data)).returncode == 0
    socket.create_connection(("::1", server.endpoints["mqtt_port"]), timeout=30).close()


def test_log_lines_are_json_when_asked(new_server: NewServer) -> None:
    server = new_server("--log", "json").start()
    server.stop()
    lines = server.log().splitlines()
    assert lines
    assert all("event" in json.loads(line) for line in lines)


def test_commands_without_a_server_end_with_unreachable(tmp_path: Path) -> None:
    for command in (["env"], ["status"], ["why", "a"], ["watch", "a"], ["device", "enroll", "a", "--out", str(tmp_path / "a")]):
        assert "No server runs" in refused(*command, "--data", str(tmp_path), code=5)


def test_env_exports_what_boto3_and_the_shell_need(new_server: NewServer) -> None:
    server = new_server().start()
    printed = overair("env", "--data", str(server.data))
    assert printed.returncode == 0
    document = json.loads(overair("env", "--data", str(server.data), "--json").stdout)
    for name, value in document.items():
        assert f"export {name}=" in printed.stdout
        assert value
    shell = f"""eval "$({sys.executable} -m overair.cli.main env --data {server.data})"
    {sys.executable} -c 'import boto3; print(boto3.client("overair").describe_server()["account"])'"""
    asked = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=True, env=clean_environment())
    assert asked.stdout.strip() == server.endpoints["account"]


def test_health_and_metrics_answer_on_the_operator_port(server: ServerProcess) -> None:
    import urllib.request

    plain = server.endpoints["plain_http_url"]
    with urllib.request.urlopen(f"{plain}/healthz", timeout=30) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{plain}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    for name in ("overair_operator_requests_total", "overair_device_connections ", "overair_stream_blocks_total "):
        assert name in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_either_signal_is_a_clean_end(new_server: NewServer, number: signal.Signals) -> None:
    server = new_server().start()
    server.process.send_signal(number)
    assert server.process.wait(15) == 0


@pytest.mark.long
def test_clients_that_hold_their_requests_open_at_every_door_delay_no_end(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server("--plain-http", "0").start()
    at = server.endpoints
    identity = server.client("iot").create_keys_and_certificate(setAsActive=True)
    (tmp_path / "c.pem").write_text(identity["certificatePem"])
    (tmp_path / "k.pem").write_text(identity["keyPair"]["PrivateKey"])
    operator, device = (urlsplit(at[name]) for name in ("plain_http_url", "device_url"))
    head = (
        b"POST /topics/a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nauthorization: AWS4-HMAC-SHA256 "
        b"Credential=AKIA/20260101/us-east-1/iot/aws4_request, SignedHeaders=host, Signature=a\r\n\r\nabc"
    )
    context = device_context(at["ca_file"], tmp_path / "c.pem", tmp_path / "k.pem")
    with (
        socket.create_connection((operator.hostname, operator.port)) as one,
        socket.create_connection((device.hostname, device.port)) as raw,
        context.wrap_socket(raw, server_hostname=device.hostname) as two,
        socket.create_connection((at["mqtt_host"], at["mqtt_port"])),
    ):
        one.sendall(head)
        two.sendall(head)
        with urllib.request.urlopen(f"{at['plain_http_url']}/healthz", timeout=30) as answer:
            assert answer.status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    assert "Traceback" not in server.log()
