"""``overair credentials``, ``fleet-ca``, ``device block``: bundles as files that open what they say and nothing else."""

from __future__ import annotations

import base64
import json
import stat
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.sign.bundle import read_bundle
from tests.support import pki
from tests.support.aktualizr.credentials import SharedCredentials
from tests.support.command_line import invoke
from tests.support.operator_rest import OperatorRest
from tests.support.server_process import ServerProcess


@pytest.fixture(autouse=True)
def _own_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "OVERAIR_DATA"):
        monkeypatch.delenv(name, raising=False)


class Command:
    """``overair`` against one server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def done(self, *arguments: str | Path) -> Any:
        """The JSON document of a command that ends well."""
        ran = invoke(*arguments, "--data", self.server.data, "--json")
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return json.loads(ran.stdout)

    def ended(self, *arguments: str | Path) -> CommandEnded:
        """How a command ends that doesn't."""
        ran = invoke(*arguments, "--data", self.server.data)
        assert isinstance(ran.exception, CommandEnded), (ran.output, ran.exception)
        return ran.exception

    def says(self, *arguments: str | Path) -> str:
        """What it prints for people."""
        ran = invoke(*arguments, "--data", self.server.data)
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return ran.stdout


@pytest.fixture
def overair(server: ServerProcess) -> Command:
    return Command(server)


def entries(path: Path) -> dict[str, bytes]:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rest(bundle: dict[str, bytes], ca_file: Path) -> OperatorRest:
    """Whoever holds a bundle, by what is written in it."""
    access = json.loads(bundle["treehub.json"])["oauth2"]
    ca_file.write_bytes(bundle["server_ca.pem"])
    assert access["server"] == bundle["tufrepo.url"].decode().strip() + "/oauth2"
    return OperatorRest(
        bundle["tufrepo.url"].decode().strip(),
        str(ca_file),
        client_id=access["client_id"],
        client_secret=access["client_secret"],
    )


# Devices --------------------------------------------------------------------------------------------------------------------


def test_a_bundle_for_devices_holds_what_a_device_reads_and_no_operators_right(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "credentials.zip"
    told = overair.done(
        "credentials",
        "device",
        "--out",
        out,
        "--name",
        "line 1",
        "--uses",
        "3",
        "--expires-days",
        "7",
        "--key-type",
        "RSA_2048",
    )
    held = entries(out)
    roots = {"root.json", "director_root.json"}
    assert set(held) == {"autoprov.url", "autoprov_credentials.p12", "server_ca.pem"} | roots == set(told["entries"])
    assert held["autoprov.url"].decode() == overair.server.endpoints["device_url"] + "\n"
    assert held["server_ca.pem"] == Path(overair.server.endpoints["ca_file"]).read_bytes()
    bundle = pkcs12.load_pkcs12(held["autoprov_credentials.p12"], b"")
    assert bundle.key is not None
    assert SharedCredentials(out).server_url == overair.server.endpoints["device_url"]
    (listed,) = [each for each in overair.done("credentials", "list")["credentials"] if each["name"] == "line 1"]
    assert (listed["credential_id"], listed["uses"], listed["uses_max"], listed["state"]) == (
        told["credential_id"],
        0,
        3,
        "usable",
    )


def test_a_file_that_is_there_is_never_written_over_and_no_credential_is_made_for_it(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "credentials.zip"
    out.write_text("mine")
    before = overair.done("credentials", "list")
    for command in ("device", "operator", "signing"):
        end = overair.ended("credentials", command, "--out", out)
        assert end.code is ExitCode.USAGE
        assert "is there already" in end.message
        missing = overair.ended("credentials", command, "--out", tmp_path / "no" / "such" / "folder.zip")
        assert missing.code is ExitCode.USAGE
    assert out.read_text() == "mine"
    assert overair.done("credentials", "list") == before


def test_a_refused_bundle_leaves_no_file(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "credentials.zip"
    end = overair.ended("credentials", "device", "--out", out, "--policy", "no-such-policy")
    assert end.code is ExitCode.REFUSED
    assert not out.exists()
    assert overair.ended("credentials", "device", "--out", out, "--key-type", "DSA").code is ExitCode.USAGE


def test_a_bundle_that_cant_be_written_whole_is_taken_back(
    overair: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("overair.cli.bundles.write_zip", full)
    before = overair.done("credentials", "list")
    for command in ("device", "operator", "signing"):
        ran = invoke("credentials", command, "--out", tmp_path / "x.zip", "--data", overair.server.data)
        assert isinstance(ran.exception, OSError)
        assert not (tmp_path / "x.zip").exists()
    after = overair.done("credentials", "list")
    assert after["bundles"] == before["bundles"]
    new = [each for each in after["credentials"] if each not in before["credentials"]]
    assert [each["state"] for each in new] == ["revoked"]


def test_secrets_are_in_the_file_and_not_on_the_screen(overair: Command, tmp_path: Path) -> None:
    for number, say in enumerate((overair.says, overair.done)):
        out = tmp_path / f"{number}.zip"
        shown = str(say("credentials", "device", "--combined", "--out", out))
        held = entries(out)
        assert json.loads(held["treehub.json"])["oauth2"]["client_secret"] not in shown
        assert base64.b64encode(held["autoprov_credentials.p12"]).decode()[:40] not in shown


def test_a_revoked_credential_and_the_devices_that_came_from_it(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "credentials.zip"
    identity = overair.done("credentials", "device", "--out", out)["credential_id"]
    shared = SharedCredentials(out)
    name = f"cli-{uuid.uuid4().hex[:8]}"
    from tests.support.aktualizr.curl import Curl

    body = json.dumps({"deviceId": name, "ttl": "1"}).encode()
    assert Curl(shared.tls()).post(f"{shared.server_url}/devices", body).status == 200
    (device,) = overair.done("credentials", "devices", identity)["devices"]
    assert (device["thing"], device["registered_at"], device["blocked"]) == (name, None, False)
    assert name in overair.says("credentials", "devices", identity)
    assert overair.done("credentials", "revoke", identity, "--block-devices") == {"revoked": identity, "devices_blocked": True}
    assert Curl(shared.tls()).post(f"{shared.server_url}/devices", body).status == 403
    assert identity in overair.says("credentials", "list")
    assert overair.ended("credentials", "revoke", str(uuid.uuid4())).code is ExitCode.REFUSED


# Operators and signers ------------------------------------------------------------------------------------------------------


def test_a_signing_bundle_opens_the_repositories_and_nothing_else(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "signing.zip"
    told = overair.done("credentials", "signing", "--out", out, "--name", "sam")
    held = entries(out)
    assert set(held) == {
        "tufrepo.url",
        "api_gateway.url",
        "treehub.json",
        "server_ca.pem",
        "root.json",
        "director_root.json",
    }
    assert json.loads(held["root.json"])["signed"]["_type"] == "Root"
    bundle = read_bundle(out)
    assert bundle.operator_url == overair.server.endpoints["operator_url"]
    client = rest(held, tmp_path / "ca.pem")
    assert client.ask("GET", "/api/v1/user_repo/root.json").body == held["root.json"]
    assert client.ask("GET", "/api/v1/user_repo/targets.json").status == 200
    assert client.ask("GET", "/api/v1/devices").status == 403
    key = json.loads(held["root.json"])["signed"]["roles"]["targets"]["keyids"][0]
    assert client.ask("GET", f"/api/v1/user_repo/root/private_keys/{key}").status == 403
    overair.done("credentials", "revoke", told["user"])
    assert told["user"] not in str(overair.done("credentials", "list"))
    assert client.ask("GET", "/api/v1/user_repo/targets.json").status in (401, 403)


def test_a_signing_bundle_that_may_take_keys_offline_may_fetch_them(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "signing.zip"
    overair.done("credentials", "signing", "--out", out, "--may-take-offline")
    held = entries(out)
    key = json.loads(held["root.json"])["signed"]["roles"]["targets"]["keyids"][0]
    client = rest(held, tmp_path / "ca.pem")
    assert client.ask("GET", f"/api/v1/user_repo/root/private_keys/{key}").status == 200


def test_an_operators_bundle_opens_devices_and_assignments_and_no_roots(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "operator.zip"
    overair.done("credentials", "operator", "--out", out)
    held = entries(out)
    assert set(held) == {"tufrepo.url", "api_gateway.url", "treehub.json", "server_ca.pem"}
    client = rest(held, tmp_path / "ca.pem")
    assert client.ask("GET", "/api/v1/devices").status == 200
    assert client.ask("GET", "/api/v1/director/admin/devices").status == 200
    assert client.ask("POST", "/api/v1/user_repo/root", json_body={}).status == 403
    assert client.ask("PUT", "/api/v1/user_repo/targets", json_body={}).status == 403


def test_a_bundle_for_people_ends_by_itself(overair: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from overair.basics.clock import Instant, WallClock

    monkeypatch.setattr(WallClock, "now", lambda self: Instant(1_600_000_000_000))  # made in 2020, as far as it knows
    out = tmp_path / "operator.zip"
    overair.done("credentials", "operator", "--out", out, "--expires-days", "30")
    monkeypatch.undo()
    assert rest(entries(out), tmp_path / "ca.pem").ask("GET", "/api/v1/devices").status == 403


def test_the_combined_zip_has_every_entry_that_old_tools_read(overair: Command, tmp_path: Path) -> None:
    out = tmp_path / "credentials.zip"
    told = overair.done("credentials", "device", "--out", out, "--combined")
    held = entries(out)
    assert {
        "autoprov.url",
        "autoprov_credentials.p12",
        "server_ca.pem",
        "tufrepo.url",
        "api_gateway.url",
        "treehub.json",
        "root.json",
    } <= set(held)
    client = rest(held, tmp_path / "ca.pem")
    assert client.ask("GET", "/api/v1/devices").status == 200
    assert client.ask("GET", "/api/v1/user_repo/targets.json").status == 200
    listed = overair.done("credentials", "list")
    assert told["user"] in {each["user"] for each in listed["bundles"]}
    end = overair.ended("credentials", "revoke", told["user"], "--block-devices")
    assert end.code is ExitCode.USAGE


# Own authorities and blocks -------------------------------------------------------------------------------------------------


def test_authorities_are_added_listed_changed_and_removed(overair: Command, tmp_path: Path) -> None:
    root, other = pki.authority(f"Root {uuid.uuid4()}"), pki.authority(f"Other {uuid.uuid4()}")
    for name, held in (("root.pem", root), ("other.pem", other)):
        (tmp_path / name).write_text(held.pem)
    made = overair.done(
        "fleet-ca", "add", tmp_path / "root.pem", tmp_path / "other.pem", "--device-ids", "car-*", "--first-contact", "deny"
    )["authorities"]
    assert [each["rule"]["device_ids"] for each in made] == ["car-*", "car-*"]
    identity = made[0]["authority_id"]
    assert identity in overair.says("fleet-ca", "list")
    changed = overair.done("fleet-ca", "change", identity, "--renewal", "approve", "--overlap-days", "5", "--name", "plant")
    assert (changed["rule"]["renewal"], changed["rule"]["overlap_days"], changed["rule"]["device_ids"]) == (
        "approve",
        5,
        "car-*",
    )
    assert changed["name"] == "plant"
    assert overair.done("fleet-ca", "remove", identity, "--keep-devices") == {"removed": identity, "devices_kept": True}
    assert identity not in {each["authority_id"] for each in overair.done("fleet-ca", "list")["authorities"]}
    assert overair.ended("fleet-ca", "remove", identity).code is ExitCode.REFUSED
    overair.done("fleet-ca", "remove", made[1]["authority_id"])


def test_a_revocation_list_is_handed_in_and_told(overair: Command, tmp_path: Path) -> None:
    root = pki.authority(f"Root {uuid.uuid4()}")
    (tmp_path / "root.pem").write_text(root.pem)
    (tmp_path / "list.pem").write_text(pki.revocation_list(root, pki.device(root), number=12))
    identity = overair.done("fleet-ca", "add", tmp_path / "root.pem")["authorities"][0]["authority_id"]
    assert overair.done("fleet-ca", "crl", identity) == {"revocation_lists": [], "revoked": []}
    told = overair.done("fleet-ca", "crl", identity, tmp_path / "list.pem", "--refuse-when-stale")
    assert told["revoked"] == []
    (kept,) = told["revocation_lists"]
    assert (kept["issuer_id"], kept["number"], kept["entries"]) == (identity, "c", 1)
    assert (kept["is_stale"], kept["refuse_when_stale"]) == (False, True)
    assert "list c names 1 certificates; the next one is due at 2045" in overair.says("fleet-ca", "crl", identity)
    assert overair.ended("fleet-ca", "crl", identity, tmp_path / "root.pem").code is ExitCode.REFUSED
    overair.done("fleet-ca", "remove", identity)


def test_a_file_with_a_private_key_is_not_even_sent(overair: Command, tmp_path: Path) -> None:
    root = pki.authority("Careless root")
    (tmp_path / "both.pem").write_text(root.pem + root.key_pem)
    end = overair.ended("fleet-ca", "add", tmp_path / "both.pem")
    assert end.code is ExitCode.USAGE
    assert "Nothing was sent" in end.message
    assert "Careless root" not in overair.says("fleet-ca", "list")
    assert overair.ended("fleet-ca", "add", tmp_path / "missing.pem").code is ExitCode.USAGE
    (tmp_path / "large.pem").write_bytes(b"x" * 200_000)
    assert overair.ended("fleet-ca", "add", tmp_path / "large.pem").code is ExitCode.USAGE


def test_an_unknown_device_is_approved(overair: Command, tmp_path: Path) -> None:
    root = pki.authority(f"Root {uuid.uuid4()}")
    (tmp_path / "root.pem").write_text(root.pem)
    overair.done("fleet-ca", "add", tmp_path / "root.pem", "--first-contact", "deny")
    name = f"cli-{uuid.uuid4().hex[:8]}"
    leaf = pki.device(root, name)
    assert device_status(overair.server, leaf, tmp_path) == (403, "device_not_registered")
    (noted,) = [each for each in overair.done("fleet-ca", "anomalies")["anomalies"] if each["thing"] == name]
    assert name in overair.says("fleet-ca", "anomalies")
    approved = overair.done("fleet-ca", "approve", noted["certificate_id"], "--deactivate-others")
    assert approved == {"thing": name, "certificate_id": noted["certificate_id"]}
    assert device_status(overair.server, leaf, tmp_path)[1] != "device_not_registered"
    assert overair.done("device", "block", name, "--reason", "stolen") == {"thing": name, "blocked": True}
    assert device_status(overair.server, leaf, tmp_path) == (403, "device_blocked")
    assert overair.done("device", "unblock", name) == {"thing": name, "blocked": False, "was_blocked": True}
    assert "was not blocked" in overair.says("device", "unblock", name)


def test_switching_off_asks_first(overair: Command) -> None:
    end = invoke("credentials", "shared-provisioning", "off", "--data", overair.server.data, answer="n\n")
    assert end.exit_code == 1
    assert overair.ended("credentials", "shared-provisioning", "perhaps").code is ExitCode.USAGE
    ran = invoke("credentials", "shared-provisioning", "off", "--json", "--data", overair.server.data)
    assert isinstance(ran.exception, CommandEnded)
    assert overair.done("credentials", "shared-provisioning", "on")["level"] == "default"


def device_status(server: ServerProcess, leaf: pki.Held, folder: Path) -> tuple[int, str]:
    """What the device door answers to whoever shows this certificate."""
    import ssl

    (folder / "leaf.pem").write_text(leaf.key_pem + leaf.chain_pem)
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.load_cert_chain(folder / "leaf.pem")
    url = f"{server.endpoints['device_url']}/director/9.root.json"
    try:
        with urllib.request.urlopen(url, context=context) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())["code"]
