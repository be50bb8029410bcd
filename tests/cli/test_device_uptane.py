"""``overair-device uptane …`` as an integrator types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.cli.device_main import main
from tests.support.uptane_repository import assigned, target_file
from tests.support.uptane_server import UptaneServer

IMAGE = b"image " * 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UptaneServer]:
    server = UptaneServer(tmp_path / "server")
    with zipfile.ZipFile(tmp_path / "credentials.zip", "w") as archive:
        archive.writestr("autoprov.url", server.url)
        archive.writestr("autoprov_credentials.p12", server.issuer.container("shared"))
    for name, repository in (("director", server.director), ("repo", server.image)):
        (tmp_path / "roots" / name).mkdir(parents=True)
        (tmp_path / "roots" / name / "root.json").write_bytes(repository.files["1.root.json"])
    yield server
    server.close()


def want(server: UptaneServer, ecus: dict[str, str]) -> None:
    target = target_file("app.bin", IMAGE, hardware_ids=sorted(set(ecus.values())))
    server.images["app.bin"] = IMAGE
    server.image.add_target(target)
    server.director.put_targets(assigned(target, ecus), custom={"correlationId": "urn:1"})


def run(*arguments: str | Path) -> int:
    return main(["uptane", *map(str, arguments)])


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_a_shared_credential_to_an_update(
    server: UptaneServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = tmp_path / "device"
    flags = ("--hardware-id", "gw", "--ecu-serial", "gw-1", "--install-file", "app.bin", "--virtual", "dash:dash-hw")
    credentials = ("--credentials", tmp_path / "credentials.zip", "--roots", tmp_path / "roots")
    assert run("provision", device, *credentials, *flags, "--json") == 0
    made = told(capsys)
    assert made["gateway"] == server.url
    assert zipfile.ZipFile(device / "credentials.zip").namelist() == ["autoprov.url"]
    assert "autoprov_credentials.p12" in zipfile.ZipFile(tmp_path / "credentials.zip").namelist(), "the operator's own file"
    want(server, {"gw-1": "gw", "dash": "dash-hw"})
    assert run("once", device, "--json") == 0
    assert told(capsys)["outcome"] == "installed"
    assert (device / "files" / "app.bin").read_bytes() == IMAGE
    assert run("status", device, "--json") == 0
    status = told(capsys)
    assert status["device"] == made["device"]
    assert {serial: ecu["image"] for serial, ecu in status["ecus"].items()} == {"gw-1": "app.bin", "dash": "app.bin"}
    assert status["repositories"]["director"]["origin"] == "imported"
    assert status["outcome"] == "installed"
    assert run("status", device) == 0
    assert "app.bin" in capsys.readouterr().out
    assert run("provision", device, "--json") == 0, "what is there is left as it is"
    assert told(capsys) == made


def test_from_files_of_the_own_pki(server: UptaneServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = server.issuer.issue_pem("vehicle-9")
    for name, data in (("c.pem", certificate), ("k.pem", key), ("ca.pem", server.issuer.pem)):
        (tmp_path / name).write_bytes(data)
    files = ("--certificate", tmp_path / "c.pem", "--private-key", tmp_path / "k.pem", "--ca", tmp_path / "ca.pem")
    assert run("provision", tmp_path / "d", *files, "--server", server.url, "--install-command", "/bin/true") == 0
    assert "vehicle-9" in capsys.readouterr().out
    assert run("once", tmp_path / "d") == 0
    assert capsys.readouterr().out == "nothing-new\n"
    assert {call.peer for call in server.calls} == {"vehicle-9"}


@pytest.mark.parametrize(
    "flags", [[], ["--certificate", "c"], ["--credentials", "c", "--certificate", "c", "--private-key", "k", "--ca", "a"]]
)
def test_half_an_identity_is_refused_before_anything_is_made(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("provision", tmp_path / "d", *flags) == 2
    assert "either --credentials, or --certificate" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--install-command", "'"],
        ["--install-file", "/etc/passwd"],
        ["--virtual", "dash"],
        ["--polling-s", "0"],
        ["--server", "http://gateway"],
        ["--device-id", "a b"],
    ],
)
def test_flags_that_break_a_rule_are_refused(server: UptaneServer, tmp_path: Path, flags: list[str]) -> None:
    assert run("provision", tmp_path / "d", "--credentials", tmp_path / "credentials.zip", *flags) == 2
    assert server.calls == []


def test_exit_codes_tell_what_happened(server: UptaneServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = tmp_path / "d"
    base = ("--credentials", tmp_path / "credentials.zip", "--install-file", "app.bin", "--ecu-serial", "gw-1")
    assert run("provision", device, *base) == 0
    want(server, {"gw-1": "posix"})
    server.images["app.bin"] = b"x" * len(IMAGE)
    assert run("once", device) == 3
    server.instead["/director/manifest"] = lambda handler, call: handler.say(403, {"code": "device_blocked"})
    assert run("once", device) == 2
    server.close()
    assert run("once", device) == 5
    assert run("once", tmp_path / "nowhere") == 2
    assert run("status", tmp_path / "nowhere") == 2
    assert "overair device enroll" in capsys.readouterr().err
    assert main(["uptane", "once", str(device), "--json"]) == 5
    assert told(capsys)["outcome"] == "unreachable"


def test_a_device_with_slots_runs_under_the_boot_loader_alone(
    server: UptaneServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("provision", tmp_path / "d", "--credentials", tmp_path / "credentials.zip") == 0
    for command in ("run", "once"):
        assert run(command, tmp_path / "d") == 2
        assert "overair-device boot" in capsys.readouterr().err


def test_a_primary_and_a_secondary_as_processes(server: UptaneServer, tmp_path: Path) -> None:
    device, socket = tmp_path / "d", tmp_path / "dash.sock"
    flags = ("--ecu-serial", "gw-1", "--install-file", "app.bin", "--secondary", socket, "--polling-s", "1")
    assert run("provision", device, "--credentials", tmp_path / "credentials.zip", *flags) == 0
    command = [sys.executable, "-m", "overair.cli.device_main", "uptane"]
    log = (tmp_path / "log").open("wb")
    secondary_flags = ["--hardware-id", "dash-hw", "--ecu-serial", "dash", "--socket", str(socket), "--json"]
    secondary = subprocess.Popen(
        [*command, "secondary", "run", str(tmp_path / "dash"), *secondary_flags, "--roots", str(tmp_path / "roots")],
        stdout=subprocess.PIPE,
        stderr=log,
    )
    primary = None
    try:
        assert secondary.stdout is not None
        assert json.loads(secondary.stdout.readline()) == {"serial": "dash", "socket": str(socket)}
        primary = subprocess.Popen([*command, "run", str(device), "--json"], stdout=subprocess.PIPE, stderr=log)
        assert primary.stdout is not None
        assert json.loads(primary.stdout.readline())["outcome"] == "nothing-new"
        want(server, {"gw-1": "posix", "dash": "dash-hw"})
        outcomes = iter(lambda: json.loads(primary.stdout.readline())["outcome"], "installed")  # type: ignore[union-attr]
        assert set(outcomes) <= {"nothing-new"}
        assert (tmp_path / "dash" / "files" / "firmware.bin").read_bytes() == IMAGE
        second = subprocess.run([*command, "once", str(device)], capture_output=True, text=True, check=False)
        assert (second.returncode, "another Uptane client" in second.stderr) == (2, True)
        for process in (primary, secondary):
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert not socket.exists()
    finally:
        for process in (primary, secondary):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        log.close()
    again = subprocess.run(
        [*command, "secondary", "run", str(tmp_path / "nobody")], capture_output=True, text=True, check=False
    )
    assert (again.returncode, "--hardware-id" in again.stderr) == (2, True)
