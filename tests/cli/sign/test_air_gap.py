"""Signatures carried by file: two of three people, on machines without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role
from tests.cli.sign.conftest import Signer
from tests.support.signing_server import SigningServer

Person = Callable[[str], Signer]
ADD = ("--name", "one", "--version", "1", "--hardware-id", "h", "--later")


class Ceremony:
    """Alice pushes; Bob and Carol sign targets on machines of their own. Two of three must."""

    def __init__(self, alice: Signer, person: Person, server: SigningServer) -> None:
        self.alice = alice
        self.server = server
        root = alice.file("root.json", server.image.files[Flavour.UPTANE]["1.root.json"])
        self.others = {name: person(name) for name in ("bob", "carol")}
        for name, other in self.others.items():
            other("init", "--root", root, other.path)
            other("keys", "new", name, "--role", "targets")
            alice("keys", "import", name, other.path / "keys" / f"{name}.pub.json", "--role", "targets")
        alice("keys", "new", "root-1", "root-2", "--role", "root")
        alice("keys", "new", "alice", "--role", "targets")

    def request(self) -> Path:
        outcome = self.alice("push", code=3)
        return Path(outcome.json["error"]["request"])

    def approve(self, name: str, request: Path, **more: Any) -> Path:
        told = self.others[name]("approve", request, "--yes", "--out", request.with_name(f"{name}.sig"), **more).json
        assert told["signed_by"] == [name]
        return Path(told["signatures"])


@pytest.fixture
def ceremony(signer: Signer, person: Person, server: SigningServer) -> Ceremony:
    found = Ceremony(signer, person, server)
    request = Path(signer("take-offline", "--targets-threshold", "2", "--yes", code=3).json["error"]["request"])
    signer("collect", found.approve("bob", request))
    signer("take-offline", "--yes")
    return found


def test_two_of_three_take_the_keys_away_by_file(ceremony: Ceremony, server: SigningServer) -> None:
    assert server.image.root.role_keys(Role.TARGETS).threshold == 2
    assert {role for role, _ in server.image.private.values()} == {Role.SNAPSHOT, Role.TIMESTAMP}
    ceremony.alice("verify", "--as-client")


def test_two_of_three_sign_an_image_by_file(ceremony: Ceremony, server: SigningServer) -> None:
    alice = ceremony.alice
    alice("add", alice.file("a", b"a"), *ADD)
    request = ceremony.request()
    assert server.image.targets.version == 2
    missing = alice("status").json["repositories"]["image"]["missing"]
    assert len(missing) == 1
    assert "1 more of bob, carol" in missing[0]
    told = ceremony.others["carol"]("approve", request, "--yes", "--out", request.with_name("carol.sig")).json
    assert any("one-1: new, one 1 for h" in line for line in told["summary"])
    assert told["warnings"] == []
    assert alice("collect", told["signatures"]).json["missing"] == []
    assert alice("push").json["pushed"] == {"targets": 3}
    assert set(server.image.targets.targets) == {"one-1"}
    alice("verify", "--as-client")


def test_a_new_root_is_signed_over_the_gap_as_well(ceremony: Ceremony, server: SigningServer, person: Person) -> None:
    alice = ceremony.alice
    dave = person("dave")
    dave("init", "--root", alice.file("root.json", server.image.files[Flavour.UPTANE]["1.root.json"]), dave.path)
    dave("keys", "new", "dave", "--role", "root")
    alice("keys", "import", "dave", dave.path / "keys" / "dave.pub.json", "--role", "root")
    alice("keys", "add", "dave", "--role", "root")
    alice("threshold", "root", "3")
    request = ceremony.request()
    told = dave("approve", request, "--yes").json
    assert any("3 signatures needed, 1 before" in line for line in told["summary"])
    alice("collect", told["signatures"])
    alice("push")
    assert server.image.root.version == 3
    # Dave's tree has followed: the next request hangs on the root that it saw here.
    alice("renew", "--days", "100", "--role", "root")
    alice("collect", dave("approve", ceremony.request(), "--yes").json["signatures"])
    alice("push")
    assert server.image.root.version == 4


def test_a_request_that_was_changed_on_the_way_is_signed_by_nobody(ceremony: Ceremony) -> None:
    alice, bob = ceremony.alice, ceremony.others["bob"]
    alice("add", alice.file("a", b"a"), *ADD)
    request = ceremony.request()
    whole = json.loads(request.read_bytes())

    def spoil(change: Callable[[dict[str, Any]], object], code: int = 4) -> str:
        spoilt = json.loads(json.dumps(whole))
        change(spoilt)
        path = request.with_name("spoilt.json")
        path.write_text(json.dumps(spoilt))
        return bob("approve", path, "--yes", code=code).err

    document = whole["documents"][0]
    other = document["uptane"].replace('"h"', '"i"')
    assert other != document["uptane"]
    assert "two flavours differ" in spoil(lambda r: r["documents"][0].update(uptane=other))
    both = {"uptane": other, "tuf": document["tuf"].replace('"h"', '"i"')}
    assert "id isn't that" in spoil(lambda r: r["documents"][0].update(both))
    spaced = document["uptane"].replace(",", ", ", 1)
    assert "canonical" in spoil(lambda r: r["documents"][0].update(uptane=spaced))
    sneaked = document["uptane"].replace('"_type"', '"_a":1,"_type"')
    assert "wouldn't write" in spoil(lambda r: r["documents"][0].update(uptane=sneaked))
    spoil(lambda r: r["replaces"].update(targets=whole["replaces"]["targets"].replace('"version":2', '"version":1')))
    spoil(lambda r: r["replaces"].update(roots=[]))
    spoil(lambda r: r.update(format="another"), code=1)
    spoil(lambda r: r.update(documents=[]))


def test_words_in_the_file_deceive_nobody(ceremony: Ceremony) -> None:
    alice = ceremony.alice
    alice("add", alice.file("a", b"a"), *ADD)
    request = ceremony.request()
    whole = json.loads(request.read_bytes())
    whole["summary"] = ["nothing at all"]
    request.write_text(json.dumps(whole))
    told = ceremony.others["bob"]("approve", request, "--yes").json
    assert any("one-1: new" in line for line in told["summary"])


def test_a_signer_without_a_root_signs_nothing(ceremony: Ceremony, person: Person, server: SigningServer) -> None:
    from tests.support.uptane_repository import UptaneRepository

    alice, eve = ceremony.alice, person("eve")
    eve("init", "--root", alice.file("foreign.json", UptaneRepository().files["1.root.json"]), eve.path)
    eve("keys", "new", "eve", "--role", "targets")
    alice("add", alice.file("a", b"a"), *ADD)
    eve("approve", ceremony.request(), "--yes", code=4)
    assert "air-gapped" in eve("pull", code=5).err


def test_a_key_that_nobody_asked_signs_nothing(ceremony: Ceremony, person: Person, server: SigningServer) -> None:
    alice, eve = ceremony.alice, person("eve")
    eve("init", "--root", alice.file("root.json", server.image.files[Flavour.UPTANE]["1.root.json"]), eve.path)
    eve("keys", "new", "eve", "--role", "targets")
    alice("add", alice.file("a", b"a"), *ADD)
    assert "No key here is asked" in eve("approve", ceremony.request(), "--yes", code=3).err


def test_without_a_yes_nothing_is_signed(ceremony: Ceremony) -> None:
    alice = ceremony.alice
    alice("add", alice.file("a", b"a"), *ADD)
    assert "--yes" in ceremony.others["bob"]("approve", ceremony.request(), code=1).err


def test_signatures_are_looked_at_before_they_are_taken(ceremony: Ceremony, server: SigningServer) -> None:
    alice = ceremony.alice
    alice("add", alice.file("a", b"a"), *ADD)
    request = ceremony.request()
    good = ceremony.approve("bob", request)
    whole = json.loads(good.read_bytes())
    sealed = (alice.path / "image" / "sealed.json").read_bytes()

    def spoilt(change: Callable[[dict[str, Any]], object], code: int = 4) -> str:
        document = json.loads(json.dumps(whole))
        change(document)
        path = good.with_name("spoilt.sig")
        path.write_text(json.dumps(document))
        said = alice("collect", path, code=code).err
        assert (alice.path / "image" / "sealed.json").read_bytes() == sealed
        return said

    def swap(document: dict[str, Any]) -> None:
        one, two = document["signatures"]
        one["value"], two["value"] = two["value"], one["value"]

    assert "doesn't verify" in spoilt(swap)
    assert "one flavour" in spoilt(lambda d: d["signatures"].pop())
    assert "no signature" in spoilt(lambda d: d["signatures"].clear())
    assert "nobody asks" in spoilt(lambda d: d["signatures"][0].update(key_id="ab" * 32))
    assert "nobody asks" in spoilt(lambda d: d["signatures"][0].update(document="root"))
    assert "another method" in spoilt(lambda d: d["signatures"][0].update(method="rsassa-pss-sha256"))
    assert "answers the request" in spoilt(lambda d: d.update(request="ab" * 32))
    spoilt(lambda d: d.update(format="x"), code=1)
    spoilt(lambda d: d["signatures"][0].update(value="?"), code=1)
    assert server.image.targets.version == 2
    alice("collect", good)
    alice("push")


def test_after_an_edit_what_was_signed_is_void(ceremony: Ceremony, server: SigningServer) -> None:
    alice = ceremony.alice
    alice("add", alice.file("a", b"a"), *ADD)
    first = ceremony.approve("bob", ceremony.request())
    said = alice("add", alice.file("b", b"b"), "--name", "two", *ADD[2:]).err
    assert "void" in said
    alice("collect", first, code=4)
    request = ceremony.request()
    alice("collect", first, code=4)
    told = ceremony.others["bob"]("approve", request, "--yes").json
    assert "has signed another targets version 3 before" in told["warnings"][0]
    alice("collect", told["signatures"])
    alice("push")
    assert set(server.image.targets.targets) == {"one-1", "two-1"}


def test_when_somebody_else_was_quicker_a_new_request_is_made(ceremony: Ceremony, server: SigningServer) -> None:
    from dataclasses import replace

    alice, image = ceremony.alice, server.image
    alice("add", alice.file("a", b"a"), *ADD)
    first = ceremony.request()
    alice("collect", ceremony.approve("bob", first))
    from overair.wire.uptane.metadata_writing import payload, sign_payload
    from tests.cli.sign.test_pushing import offline_key

    keys = [offline_key(alice, "alice"), offline_key(ceremony.others["carol"], "carol")]
    image.targets = replace(image.targets, version=3)
    for flavour in Flavour:
        image.files[flavour]["targets.json"] = sign_payload(payload(image.targets, flavour), keys, flavour)
    image.sign_above()
    outcome = alice("push", code=3)
    assert "void" in outcome.err
    second = Path(outcome.json["error"]["request"])
    assert second != first
    # Bob's tree knows version 2 only; the new request shows it the chain to version 3.
    alice("collect", ceremony.approve("bob", second))
    alice("push")
    assert (image.targets.version, set(image.targets.targets)) == (4, {"one-1"})
    # … and from then on it signs nothing that replaces something older.
    assert "older than what is known here" in ceremony.others["bob"]("approve", first, "--yes", code=4).err
