"""What the documents say: images, delegations, life times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_reading import read_document, read_targets
from tests.cli.sign.conftest import Signer
from tests.support.signing_server import SigningServer

ADD = ("--name", "gateway", "--version", "2.1", "--hardware-id", "gw-imx8")


def _image(offline: Signer, name: str = "gateway.bin", content: bytes = b"an image") -> Path:
    return offline.file(name, content)


def _pushes(server: SigningServer) -> int:
    return len([request for request in server.requests if request.startswith("PUT") and "publication" in request])


def test_an_image_is_uploaded_and_named_in_one_step(offline: Signer, server: SigningServer) -> None:
    told = offline("add", _image(offline), *ADD).json
    assert told["target"] == "gateway-2.1"
    assert told["uploaded"]
    assert server.image.uploads == {"gateway-2.1": b"an image"}
    assert offline("push").json["pushed"] == {"targets": 3}
    target = server.image.targets.targets["gateway-2.1"]
    assert target.length == 8
    assert target.hardware_ids == ("gw-imx8",)
    assert target.custom["name"] == "gateway"
    assert target.custom["cliUploaded"] is True
    assert {"createdAt", "updatedAt", "version", "targetFormat"} <= set(target.custom)
    offline("verify", "--as-client")


def test_doing_it_twice_does_it_once(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD)
    again = offline("add", _image(offline), *ADD).json
    assert not again["uploaded"]
    offline("push")
    assert offline("add", _image(offline), *ADD).json["changes"] == []
    assert "is there already" in offline("add", _image(offline), *ADD, json=False).out
    before = _pushes(server)
    assert offline("push").json["pushed"] == {}
    assert "Nothing to push" in offline("push", json=False).out
    assert (_pushes(server), server.image.targets.version) == (before, 3)


def test_a_name_never_stands_for_other_bytes(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD)
    offline("push")
    assert "other bytes" in offline("add", _image(offline, content=b"others"), *ADD, code=4).err
    assert server.image.uploads == {"gateway-2.1": b"an image"}


def test_an_upload_that_was_taken_by_other_bytes_is_refused(offline: Signer, server: SigningServer) -> None:
    server.image.uploads["gateway-2.1"] = b"AN IMAGE"
    offline("add", _image(offline), *ADD, code=4)


@pytest.mark.parametrize(
    "changed",
    [
        {"--name": "g\u00e4te"},
        {"--version": ""},
        {"--hardware-id": "a,b"},
        {"--hardware-id": "h\u00fc"},
        {"--target": "../x"},
        {"--target": "a//b"},
        {"--target": "/x"},
        {"--target": "x" * 254},
        {"--uri": "ftp://x"},
    ],
)
def test_what_clients_would_read_in_two_ways_is_refused(offline: Signer, changed: dict[str, str]) -> None:
    given = dict(zip(ADD[::2], ADD[1::2], strict=True)) | changed
    offline("add", _image(offline), *(word for pair in given.items() for word in pair), code=1)
    assert offline("diff").json["changes"] == {}


def test_an_empty_or_missing_file_is_refused(offline: Signer) -> None:
    offline("add", _image(offline, content=b""), *ADD, code=1)
    offline("add", offline.path / "nowhere", *ADD, code=1)


def test_an_image_that_lies_elsewhere_is_only_named(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD, "--uri", "https://cdn.example/gateway.bin")
    offline("push")
    assert server.image.uploads == {}
    assert server.image.targets.targets["gateway-2.1"].uri == "https://cdn.example/gateway.bin"


def test_members_of_ones_own_go_along(offline: Signer, server: SigningServer) -> None:
    custom = offline.file("custom.json", b'{"acme":{"buildId":"77"},"releaseCounter":7}')
    offline("add", _image(offline), *ADD, "--custom", custom)
    offline("push")
    assert server.image.targets.targets["gateway-2.1"].custom["acme"] == {"buildId": "77"}


def test_without_a_network_the_push_takes_the_file_along(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD, "--later")
    assert server.image.uploads == {}
    offline("push")
    assert server.image.uploads == {"gateway-2.1": b"an image"}


def test_a_file_that_changed_before_the_push_is_not_sent(offline: Signer, server: SigningServer) -> None:
    path = _image(offline)
    offline("add", path, *ADD, "--later")
    path.write_bytes(b"other bytes")
    assert "isn't the file any more" in offline("push", code=1).err
    assert server.image.targets.version == 2


def test_removing_asks_whether_a_device_has_it(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD)
    offline("push")
    server.image.in_use = {"gateway-2.1"}
    offline("remove", "gateway-2.1")
    refused = offline("push", code=4)
    assert "installed on a device" in refused.err
    assert "gateway-2.1" in server.image.targets.targets
    offline("discard")
    offline("remove", "gateway-2.1", "--force")
    offline("push")
    assert server.image.targets.targets == {}
    offline("remove", "gateway-2.1", code=1)


def test_what_is_taken_back_before_the_push_was_never_wanted(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD, "--later")
    offline("remove", "gateway-2.1")
    assert offline("diff").json["changes"] == {}
    assert offline("push").json["pushed"] == {}


def test_diff_tells_what_a_push_would_change(offline: Signer) -> None:
    assert "Nothing to push" in offline("diff", json=False).out
    offline("add", _image(offline), *ADD)
    (change,) = offline("diff").json["changes"]["targets"]
    assert change["text"].startswith("gateway-2.1: new, gateway 2.1 for gw-imx8")
    assert "gateway-2.1: new" in offline("diff", "--pull", json=False).out


def test_renewing_changes_nothing_but_the_end(offline: Signer, server: SigningServer) -> None:
    offline("add", _image(offline), *ADD)
    offline("push")
    before = server.image.targets
    offline("renew", "--days", "200")
    assert offline("push").json["pushed"] == {"targets": 4}
    after = server.image.targets
    assert after.targets == before.targets
    assert after.expires - before.expires > 100 * 24 * 3600 * 1000
    assert offline("push").json["pushed"] == {}
    offline("renew", "--days", "300", "--role", "root")
    assert offline("push").json["pushed"] == {"root": 3}
    for days in ("0", "731"):
        offline("renew", "--days", days, code=1)
    offline("renew", "--days", "10", "--role", "nobody", code=1)


def test_a_vendor_signs_its_own_images(offline: Signer, server: SigningServer) -> None:
    offline("keys", "new", "vendor", "--role", "delegation")
    offline("delegate", "vendor-b", "--paths", "vendor-b/*", "--key", "vendor")
    assert offline("push").json["pushed"] == {"targets": 3, "vendor-b": 1}
    (delegation,) = server.image.targets.delegations
    assert not delegation.terminating
    offline("add", _image(offline), *ADD, "--target", "vendor-b/g-2.1", "--role", "vendor-b")
    assert offline("push").json["pushed"] == {"vendor-b": 2}
    assert set(server.image.delegated["vendor-b"].targets) == {"vendor-b/g-2.1"}
    offline("verify", "--as-client")
    offline("renew", "--days", "100")
    assert offline("push").json["pushed"] == {"targets": 4, "vendor-b": 3}
    # Other keys for the role: its document is signed anew in the same push.
    offline("keys", "new", "vendor-2", "--role", "delegation")
    offline("delegate", "vendor-b", "--paths", "vendor-b/*", "--key", "vendor-2")
    assert offline("push").json["pushed"] == {"targets": 5, "vendor-b": 4}
    offline("verify", "--as-client")
    signs = {row["name"]: row["signs_for"] for row in offline("keys", "list").json["keys"]}
    assert (signs["vendor"], signs["vendor-2"]) == ([], ["image vendor-b"])
    offline("delegate", "vendor-b", "--withdraw")
    offline("push")
    assert server.image.targets.delegations == ()


def test_what_lies_outside_of_a_delegation_is_not_signed(offline: Signer) -> None:
    offline("keys", "new", "vendor", "--role", "delegation")
    offline("delegate", "vendor-b", "--paths", "vendor-b/*", "--key", "vendor")
    offline("push")
    offline("add", _image(offline), *ADD, "--role", "vendor-b", "--later")
    assert "lies outside" in offline("push", code=4).err
    offline("add", _image(offline), *ADD, "--role", "nobody", "--later", code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("root", "--paths", "*", "--key", "vendor"),
        (".hidden", "--paths", "*", "--key", "vendor"),
        ("v" * 51, "--paths", "*", "--key", "vendor"),
        ("v", "--key", "vendor"),
        ("v", "--paths", "*"),
        ("v", "--paths", "../*", "--key", "vendor"),
        ("v", "--paths", "*", "--key", "vendor", "--threshold", "2"),
        ("v", "--paths", "*", "--key", "nobody"),
        ("v", "--withdraw"),
    ],
)
def test_delegations_that_cannot_be_meant_are_refused(offline: Signer, arguments: tuple[str, ...]) -> None:
    offline("keys", "new", "vendor", "--role", "delegation")
    offline("delegate", *arguments, code=1)


def test_both_flavours_say_the_same_and_each_reader_believes_its_own(offline: Signer, server: SigningServer) -> None:
    from tuf.api.metadata import Metadata
    from tuf.api.metadata import Root as TufRoot
    from tuf.api.metadata import Targets as TufTargets

    offline("keys", "new", "targets-rsa", "--role", "targets", "--type", "rsa-3072")
    offline("keys", "add", "targets-rsa", "--role", "targets")
    offline("threshold", "targets", "2")
    offline("add", _image(offline), *ADD)
    offline("push")
    tuf = server.image.files[Flavour.TUF]
    first, second, third = (Metadata[TufRoot].from_bytes(tuf[f"{version}.root.json"]) for version in (1, 2, 3))
    first.signed.verify_delegate("root", second.signed_bytes, second.signatures)
    second.signed.verify_delegate("root", third.signed_bytes, third.signatures)
    third.signed.verify_delegate("root", third.signed_bytes, third.signatures)
    targets = Metadata[TufTargets].from_bytes(tuf["targets.json"])
    third.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    assert len(targets.signatures) == 2
    uptane = read_targets(read_document(server.image.files[Flavour.UPTANE]["targets.json"], Role.TARGETS))
    assert targets.signed.targets["gateway-2.1"].hashes == dict(uptane.targets["gateway-2.1"].hashes)
    assert targets.signed.version == uptane.version
    offline("verify", "--as-client")


def test_python_tufs_client_follows_what_was_pushed(offline: Signer, server: SigningServer, tmp_path: Path) -> None:
    from tuf.ngclient import Updater
    from tuf.ngclient.fetcher import FetcherInterface

    offline("add", _image(offline), *ADD)
    offline("push")
    files = server.image.files[Flavour.TUF]

    class FromMemory(FetcherInterface):
        def _fetch(self, url: str):  # type: ignore[no-untyped-def]
            from tuf.api.exceptions import DownloadHTTPError

            name = url.removeprefix("https://tuf.example/")
            data = server.image.uploads.get(name.removeprefix("targets/")) if name.startswith("targets/") else files.get(name)
            if data is None:
                raise DownloadHTTPError("absent", 404)
            return iter([data])

    (tmp_path / "metadata").mkdir()
    (tmp_path / "downloads").mkdir()
    updater = Updater(
        metadata_dir=str(tmp_path / "metadata"),
        metadata_base_url="https://tuf.example/",
        target_dir=str(tmp_path / "downloads"),
        target_base_url="https://tuf.example/targets/",
        fetcher=FromMemory(),
        bootstrap=files["1.root.json"],
    )
    updater.config.prefix_targets_with_hash = False
    updater.refresh()
    info = updater.get_targetinfo("gateway-2.1")
    assert info is not None
    assert Path(updater.download_target(info)).read_bytes() == b"an image"
    assert json.loads(files["root.json"])["signed"]["version"] == 2


def test_what_others_gave_to_the_server_is_looked_at_and_signed_for(offline: Signer, server: SigningServer) -> None:
    from tests.support.uptane_repository import target_file

    assert "Nothing waits" in offline("pending", json=False).out
    waiting = target_file("dash-3", b"a dash", hardware_ids=["cluster"], version="3")
    server.image.pending = {"dash-3": waiting}
    (row,) = offline("pending").json["pending"]
    assert (row["target"], row["sha256"], row["hardware_ids"]) == ("dash-3", waiting.sha256, ["cluster"])
    assert offline("diff").json["changes"] == {}
    assert "Look at each" in offline("pending", json=False).out
    offline("pending", "--take")
    offline("push")
    assert set(server.image.targets.targets) == {"dash-3"}
    assert offline("pending").json["pending"] == []


def test_what_a_server_says_steers_no_terminal(offline: Signer, server: SigningServer) -> None:
    from tests.support.uptane_repository import target_file

    server.image.pending = {"dash-3": target_file("dash-3", b"a dash", hardware_ids=["\x1b[2Jcluster"], version="3")}
    assert "\x1b" not in offline("pending", json=False).out
    offline("pending", "--take")
    assert "isn't printable ASCII" in offline("push", code=4).err


def test_one_removal_by_force_takes_no_other_along(offline: Signer, server: SigningServer) -> None:
    for name in ("one", "two"):
        offline("add", _image(offline, name), "--name", name, *ADD[2:])
    offline("push")
    offline("remove", "one-2.1", "--force")
    offline("remove", "two-2.1")
    assert "forced as a whole" in offline("push", code=4).err
    assert len(server.image.targets.targets) == 2
    offline("discard")
    offline("remove", "one-2.1", "--force")
    offline("push")
    assert set(server.image.targets.targets) == {"two-2.1"}
