"""`overair sign` against the real server: to the production level, signing there, and back."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_private_key
from typer.main import get_command

from overair.basics.clock import WallClock
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded
from overair.cli.rest import RestClient, SigV4Proof
from overair.cli.sign import app, sealed_box
from overair.cli.sign.server import RestServer
from tests.support.command_line import invoke
from tests.support.power_cut import PowerCut
from tests.support.server_process import ServerProcess

COMMAND = get_command(app)
Sign = Callable[..., dict[str, Any]]


@pytest.fixture
def server(new_server: Callable[..., ServerProcess]) -> ServerProcess:
    """One of the test's own: an account's keys are one thing for everybody."""
    return new_server().start()


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sign:
    """Run a command on the tree of somebody; its document."""
    (tmp_path / "passphrase").write_text("four words in a row\n")
    monkeypatch.setattr(sealed_box, "SCRYPT_N", 2**4)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    def run(*arguments: str | Path, who: str = "alice", code: int = 0) -> dict[str, Any]:
        monkeypatch.setenv("OVERAIR_SIGN_DIR", str(tmp_path / who))
        monkeypatch.setenv("OVERAIR_SIGN_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
        capsys.readouterr()
        ended, message = 0, ""
        try:
            COMMAND.main([*map(str, arguments), "--json"], standalone_mode=False)
        except CommandEnded as end:
            ended, message = int(end.code), end.message
        out = capsys.readouterr().out
        assert ended == code, f"{arguments} ended with {ended}: {message}"
        document: dict[str, Any] = json.loads(out)
        return document

    return run


def _image(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def _bundle(server: ServerProcess, path: Path) -> Path:
    """What a signing tool is given: OAuth2 in place of a state directory."""
    key = json.loads((server.data / "root-key.json").read_bytes())
    url = server.endpoints["operator_url"]
    oauth2 = {"server": f"{url}/oauth2", "client_id": key["access_key_id"], "client_secret": key["secret_access_key"]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tufrepo.url", url)
        archive.writestr("treehub.json", json.dumps({"oauth2": oauth2}))
        archive.writestr("server_ca.pem", Path(server.endpoints["ca_file"]).read_bytes())
    return path


def _upload(server: ServerProcess, name: str, content: bytes) -> int:
    """As OTA Connect's operators do: bytes and description in one request."""
    key = json.loads((server.data / "root-key.json").read_bytes())
    proof = SigV4Proof(
        key_id=key["access_key_id"], secret=Redacted(key["secret_access_key"]), region=server.endpoints["region"]
    )
    client = RestClient(proof, ca=Path(server.endpoints["ca_file"]), clock=WallClock())
    url = f"{server.endpoints['operator_url']}/api/v1/user_repo/targets/{name}"
    described = {"name": name, "version": "9", "hardwareIds": "cluster", "targetFormat": "BINARY"}
    return client.ask("PUT", url, query=described, body=content).status


def _take_offline(sign: Sign, tree: Path, server: ServerProcess) -> None:
    sign("init", "--data", server.data, tree)
    sign("keys", "new", "root-1", "root-2", "--role", "root")
    sign("keys", "new", "targets-1", "--role", "targets")
    sign("take-offline", "--yes")


def test_keys_go_away_sign_there_and_come_back(server: ServerProcess, sign: Sign, tmp_path: Path) -> None:
    _take_offline(sign, tmp_path / "alice", server)
    told = sign("status")["repositories"]["image"]
    assert told["level"] == "offline (production level)"
    assert [key["where"] for key in told["roles"]["timestamp"]["keys"]] == ["server"]
    add = ("--name", "gateway", "--version", "2.1", "--hardware-id", "gw-imx8")
    assert sign("add", _image(tmp_path, "gateway.bin", b"an image"), *add)["uploaded"]
    assert not sign("add", _image(tmp_path, "gateway.bin", b"an image"), *add)["uploaded"]
    sign("push")
    assert sign("push")["pushed"] == {}
    sign("verify", "--as-client")

    # What somebody uploads through the server waits for us, and is signed for.
    assert _upload(server, "fascia-9", b"a fascia") == 412
    (row,) = sign("pending")["pending"]
    assert (row["target"], row["hardware_ids"]) == ("fascia-9", ["cluster"])
    sign("pending", "--take")
    sign("push")
    assert sign("pending")["pending"] == []

    # Rotations, thresholds, life times, a vendor of its own: each one push in both flavours.
    sign("keys", "new", "targets-2", "--role", "targets", "--type", "rsa-3072")
    sign("keys", "add", "targets-2", "--role", "targets")
    sign("threshold", "targets", "2")
    sign("push")
    sign("keys", "new", "vendor", "--role", "delegation")
    sign("delegate", "vendor-b", "--paths", "vendor-b/*", "--key", "vendor")
    sign("push")
    vendor = (
        "--name",
        "dash",
        "--version",
        "1",
        "--hardware-id",
        "cluster",
        "--target",
        "vendor-b/dash-1",
        "--role",
        "vendor-b",
    )
    sign("add", _image(tmp_path, "dash.bin", b"a dash"), *vendor)
    assert sign("push")["pushed"] == {"vendor-b": 2}
    sign("renew", "--days", "200")
    assert set(sign("push")["pushed"]) == {"targets", "vendor-b"}
    sign("verify", "--as-client")

    sign("keys", "new", "director-root", "--role", "root")
    sign("take-offline", "--repository", "director", "--yes")
    sign("renew", "--days", "300", "--repository", "director")
    sign("push", "--repository", "director")
    assert sign("status")["repositories"]["director"]["level"] == "offline (production level)"
    sign("verify", "--as-client")

    sign("bring-online", "--yes")
    sign("bring-online", "--repository", "director", "--yes")
    for repository in ("image", "director"):
        assert sign("status")["repositories"][repository]["level"] == "online (default level)"
    sign("verify", "--as-client")


def test_two_people_push_at_once_over_oauth2(server: ServerProcess, sign: Sign, tmp_path: Path) -> None:
    sign("init", _bundle(server, tmp_path / "credentials.zip"), tmp_path / "alice")
    sign("keys", "new", "root-1", "root-2", "--role", "root")
    sign("keys", "new", "targets-1", "--role", "targets")
    sign("take-offline", "--yes")
    shutil.copytree(tmp_path / "alice", tmp_path / "bob")
    for who in ("alice", "bob"):
        image = _image(tmp_path, f"{who}.bin", who.encode())
        sign("add", image, "--name", who, "--version", "1", "--hardware-id", "h", who=who)
    first = sign("push", who="bob")["pushed"]["targets"]
    outcome = sign("push", who="alice")
    assert outcome["pushed"]["targets"] == first + 1
    assert outcome["rebased_over"]["targets"][0]["text"].startswith("bob-1: new")
    sign("add", _image(tmp_path, "x", b"other bytes"), "--name", "alice", "--version", "1", "--hardware-id", "h", code=4)
    sign("verify", "--as-client")


def test_what_the_server_objects_to_publishes_nothing(server: ServerProcess, sign: Sign, tmp_path: Path) -> None:
    _take_offline(sign, tmp_path / "alice", server)
    before = sign("status")["repositories"]["image"]["documents"]["targets"]["version"]
    # An entry of an image that was never uploaded and lies nowhere else.
    add = ("--name", "ghost", "--version", "1", "--hardware-id", "h", "--later")
    path = _image(tmp_path, "ghost.bin", b"never sent")
    sign("add", path, *add)
    draft = tmp_path / "alice" / "image" / "draft.json"
    whole = json.loads(draft.read_bytes())
    draft.write_text(json.dumps({**whole, "uploads": {}}))
    error = sign("push", code=4)["error"]
    assert error["errors"]
    sign("pull")
    assert sign("status")["repositories"]["image"]["documents"]["targets"]["version"] == before


def test_garbage_in_place_of_a_bundle_is_told(server: ServerProcess, sign: Sign, tmp_path: Path) -> None:
    bundle = _bundle(server, tmp_path / "credentials.zip")
    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    hub = json.loads(entries["treehub.json"])
    hub["oauth2"]["client_secret"] = "another"
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in {**entries, "treehub.json": json.dumps(hub).encode()}.items():
            archive.writestr(name, data)
    sign("init", bundle, tmp_path / "alice", code=4)


# The server's own keys ------------------------------------------------------------------------------------------------------


def _secrets(server: ServerProcess, *purposes: str) -> list[bytes]:
    """Private keys as the server's disk holds them: sealed, and what they are once opened with the wrapping key."""
    wrapping = base64.b64decode(json.loads((server.data / "wrapping.key").read_bytes())["key"])
    records = sqlite3.connect(f"file:{server.data / 'records.sqlite3'}?mode=ro", uri=True)
    rows = records.execute("SELECT account, key_id, purpose, sealed FROM keyring_keys").fetchall()
    records.close()
    found = []
    for account, key_id, purpose, sealed in rows:
        if purpose not in purposes:
            continue
        opened = AESGCM(wrapping).decrypt(sealed[1:13], sealed[13:], f"private-key/{account}/{key_id}".encode())
        key: Any = load_der_private_key(opened, None)
        raw = key.private_bytes_raw()
        found += [sealed, sealed[1:13], sealed[-16:], opened, raw, raw.hex().encode(), base64.b64encode(raw)]
    assert len(found) == 7 * len(purposes)
    return found


def _found_in(directory: Path, secrets: list[bytes]) -> set[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return {path.name for path in files if any(secret in path.read_bytes() for secret in secrets)}


def test_a_tool_that_is_cut_before_it_has_read_back_leaves_the_old_keys_and_ends_them_when_it_goes_on(
    server: ServerProcess, sign: Sign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = _secrets(server, "image-root", "image-targets")
    others = _secrets(server, "image-snapshot", "director-root")
    sign("init", "--data", server.data, tmp_path / "alice")
    sign("keys", "new", "root-1", "root-2", "--role", "root")
    sign("keys", "new", "targets-1", "--role", "targets")
    publish = RestServer.publish

    def cut(self: RestServer, *arguments: Any, **named: Any) -> Any:
        publish(self, *arguments, **named)
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(RestServer, "publish", cut)
        with pytest.raises(PowerCut):
            sign("take-offline", "--yes")

    # The server has published root 2 and still has its old keys, which sign nothing any more, and says so.
    assert _found_in(server.data, secrets)
    assert _upload(server, "fascia-9", b"a fascia") == 412
    told = server.client("overair").describe_server()
    assert told["metadataSigning"]["level"] == "production"
    assert sum("kept until deleted" in warning for warning in told["warnings"]) == 2
    sign("pull")
    warnings = sign("status")["repositories"]["image"]["warnings"]
    assert sum("is kept until deleted" in warning for warning in warnings) == 2
    assert any("was cut after" in warning for warning in warnings)

    # It goes on where it was cut, and they are in no page and no log of the database.
    done = sign("take-offline", "--yes")
    assert len(done["deleted_on_server"]) == 2
    assert _found_in(server.data, secrets) == set()
    assert _found_in(server.data, others)
    assert not any("kept until" in warning for warning in server.client("overair").describe_server()["warnings"])
    assert not any("kept until" in warning for warning in sign("status")["repositories"]["image"]["warnings"])
    sign("verify", "--as-client")
    secrets += _secrets(server, "director-root")
    sign("keys", "new", "director-root", "--role", "root")
    sign("take-offline", "--repository", "director", "--yes")
    assert _found_in(server.data, secrets) == set()
    # Nor did any of them ever come to whoever signs.
    assert _found_in(tmp_path / "alice", secrets) == set()
    operations = [each["operation"] for each in _audit(server)]
    assert {"PushImageMetadata", "PushDirectorRoot", "DeleteImageRoleKey", "DeleteDirectorRoleKey"} <= set(operations)
    assert not any(each.startswith("Export") for each in operations)


def _audit(server: ServerProcess) -> list[dict[str, Any]]:
    return list(server.client("overair").list_audit_records(maxResults=100)["records"])


def test_only_a_bundle_that_may_take_keys_offline_has_the_servers_keys_sign(
    server: ServerProcess, sign: Sign, tmp_path: Path
) -> None:
    """Whoever may push roots at the default level isn't master of them: the server's own signature is a right of its own."""
    for name, options, code in (("plain", (), 4), ("offline", ("--may-take-offline",), 0)):
        bundle = tmp_path / f"{name}.zip"
        words = ["credentials", "signing", "--out", str(bundle), "--data", str(server.data), *options]
        assert invoke(*words).exit_code == 0
        sign("init", bundle, tmp_path / name, who=name)
        sign("keys", "new", "root-1", "root-2", "--role", "root", who=name)
        sign("keys", "new", "targets-1", "--role", "targets", who=name)
        ended = sign("take-offline", "--yes", who=name, code=code)
        if code:
            assert "SignWithImageRoleKey" in ended["error"]["message"]
    sign("verify", "--as-client", who="offline")
