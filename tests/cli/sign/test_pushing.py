"""Pushing: what is published, what isn't, and two people at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from overair.cli.sign.server import RestServer
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_reading import read_document, read_targets
from tests.cli.sign.conftest import Signer
from tests.support.power_cut import PowerCut
from tests.support.signing_server import SigningServer

ADD = ("--version", "1", "--hardware-id", "h", "--later")
Person = Callable[[str], Signer]


@pytest.fixture
def bob(person: Person, offline: Signer) -> Signer:
    """Somebody else with a copy of the keys."""
    found = person("bob")
    shutil.copytree(offline.path, found.path)
    return found


def test_two_people_push_at_once_and_both_get_what_they_wanted(offline: Signer, bob: Signer, server: SigningServer) -> None:
    offline("add", offline.file("a", b"a"), "--name", "alices", *ADD)
    bob("add", bob.file("b", b"b"), "--name", "bobs", *ADD)
    server.before_publish = None
    assert bob("push").json["pushed"] == {"targets": 3}
    outcome = offline("push")
    assert outcome.json["pushed"] == {"targets": 4}
    (theirs,) = outcome.json["rebased_over"]["targets"]
    assert theirs["text"].startswith("bobs-1: new")
    assert set(server.image.targets.targets) == {"alices-1", "bobs-1"}
    offline("verify", "--as-client")


def test_a_push_that_comes_in_the_very_moment_is_rebased_over(
    offline: Signer, server: SigningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pull saw the old version, the push finds another: 412, and the tool begins again by itself."""
    offline("add", offline.file("a", b"a"), "--name", "alices", *ADD)
    image = server.image
    keys = [offline_key(offline)]

    def bobs_push() -> None:
        from tests.support.uptane_repository import target_file

        extra = target_file("bobs-1", b"b", hardware_ids=["h"])
        image.targets = replace(image.targets, version=3, targets={"bobs-1": extra})
        from overair.wire.uptane.metadata_writing import payload, sign_payload

        for flavour in Flavour:
            image.files[flavour]["targets.json"] = sign_payload(payload(image.targets, flavour), keys, flavour)
        image.sign_above()

    server.before_publish = bobs_push
    outcome = offline("push")
    assert "Somebody else has published in between" in outcome.err
    assert outcome.json["pushed"] == {"targets": 4}
    assert set(image.targets.targets) == {"alices-1", "bobs-1"}
    assert outcome.json["rebased_over"]["targets"][0]["text"].startswith("bobs-1: new")


def offline_key(signer: Signer, name: str = "targets-1"):  # type: ignore[no-untyped-def]
    from overair.cli.sign.holders import open_key
    from overair.cli.sign.passphrases import Secrets
    from overair.cli.sign.tree import Tree

    tree = Tree(signer.path)
    record = tree.records()[name]
    secrets = Secrets(passphrase_file=signer.passphrase_file)
    return open_key(tree.key_box(record), record, secrets.passphrase(name), path=name)


def test_when_both_changed_the_same_people_have_to_talk(offline: Signer, bob: Signer, server: SigningServer) -> None:
    image = ("add", offline.file("a", b"a"), "--name", "one", *ADD)
    offline(*image)
    offline("push")
    shutil.rmtree(bob.path)
    shutil.copytree(offline.path, bob.path)
    offline("add", offline.file("a", b"a"), "--name", "one", "--version", "1", "--hardware-id", "h1", "--later")
    bob("add", offline.file("a", b"a"), "--name", "one", "--version", "1", "--hardware-id", "h2", "--later")
    bob("push")
    outcome = offline("push", code=2)
    (conflict,) = outcome.json["error"]["conflicts"]
    assert conflict["item"] == ["target", "one-1"]
    assert "hardwareIds" in conflict["theirs"]
    assert server.image.targets.version == 4
    offline("push", "--take", "neither", code=1)
    assert offline("push", "--take", "theirs").json["pushed"] == {}
    assert server.image.targets.targets["one-1"].hardware_ids == ("h2",)
    offline("add", offline.file("a", b"a"), "--name", "one", "--version", "1", "--hardware-id", "h1", "--later")
    bob("add", offline.file("a", b"a"), "--name", "one", "--version", "1", "--hardware-id", "h3", "--later")
    bob("push")
    assert offline("push", "--take", "mine").json["pushed"] == {"targets": 6}
    assert server.image.targets.targets["one-1"].hardware_ids == ("h1",)


def test_two_root_edits_are_merged_too(offline: Signer, bob: Signer, server: SigningServer) -> None:
    offline("keys", "new", "root-3", "--role", "root")
    offline("keys", "add", "root-3", "--role", "root")
    bob("keys", "remove", "root-2", "--role", "root")
    bob("push")
    offline("push")
    names = {offline_key(offline, name).public_key.id for name in ("root-1", "root-3")}
    assert set(server.image.root.role_keys(Role.ROOT).key_ids) == names
    offline("verify", "--as-client")


def test_a_dry_run_publishes_nothing(offline: Signer, server: SigningServer) -> None:
    offline("add", offline.file("a", b"a"), "--name", "one", *ADD)
    told = offline("push", "--dry-run").json
    assert told["dry_run"]
    assert told["pushed"] == {"targets": 3}
    assert "would be published" in offline("push", "--dry-run", json=False).out
    assert server.image.targets.version == 2
    offline("push")


def test_a_push_that_was_cut_after_the_server_took_it_is_not_done_twice(
    offline: Signer, server: SigningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline("renew", "--days", "50")
    publish = RestServer.publish

    def cut(self: RestServer, *arguments: object, **named: object) -> None:
        publish(self, *arguments, **named)  # type: ignore[arg-type]
        raise PowerCut

    monkeypatch.setattr(RestServer, "publish", cut)
    with pytest.raises(PowerCut):
        offline("push")
    monkeypatch.undo()
    monkeypatch.setenv("OVERAIR_SIGN_PASSPHRASE_FILE", str(offline.passphrase_file))
    assert server.image.targets.version == 3
    assert offline("push").json["pushed"] == {"targets": 3}
    assert offline("push").json["pushed"] == {}
    assert server.image.targets.version == 3


def test_all_that_the_server_objects_to_is_told(offline: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(side: object, *arguments: object, **named: object) -> None:
        from tests.support.signing_server import Refusal

        raise Refusal(400, "invalid_offline_targets", "Two rules are broken.")

    from tests.support.signing_server import Side

    monkeypatch.setattr(Side, "publish", refuse)
    offline("renew", "--days", "50")
    told = offline("push", code=4).json["error"]
    assert (told["code"], told["status"]) == ("invalid_offline_targets", 400)
    assert "Two rules are broken" in told["message"]


def test_at_the_default_level_the_server_signs_targets_itself(signer: Signer, server: SigningServer) -> None:
    signer("add", signer.file("a", b"a"), "--name", "one", *ADD)
    assert "take-offline" in signer("push", code=3).err
    assert server.image.targets.version == 1


def test_only_keys_that_are_asked_for_may_be_named(offline: Signer) -> None:
    offline("renew", "--days", "50")
    assert "Nothing here asks" in offline("push", "--key", "root-1", code=1).err
    offline("push", "--key", "targets-1")


def test_versions_and_ends_are_the_same_in_both_flavours(offline: Signer, server: SigningServer) -> None:
    offline("add", offline.file("a", b"a"), "--name", "one", *ADD)
    offline("push", "--days", "33")
    bodies = [
        read_targets(read_document(server.image.files[flavour]["targets.json"], Role.TARGETS, flavour=flavour))
        for flavour in Flavour
    ]
    assert bodies[0] == bodies[1]


def test_what_a_client_would_refuse_is_signed_by_nobody(offline: Signer, server: SigningServer) -> None:
    """A draft that somebody made by hand."""
    import json

    offline("add", offline.file("a", b"a"), "--name", "one", *ADD)
    path = offline.path / "image" / "draft.json"
    whole = json.loads(path.read_bytes())
    changes: list[Callable[[dict], object]] = [  # type: ignore[type-arg]
        lambda targets: targets["one-1"]["hashes"].update(sha256="zz"),
        lambda targets: targets["one-1"]["custom"].update(hardwareIds=[]),
        lambda targets: targets["one-1"]["custom"].update(name="g\u00e4te"),
        lambda targets: targets["one-1"].update(hashes={"md5": "ab" * 16}),
    ]
    for change in changes:
        spoilt = json.loads(json.dumps(whole))
        change(spoilt["wanted"]["targets"]["targets"])
        path.write_text(json.dumps(spoilt))
        outcome = offline("push", code=4 if "zz" not in json.dumps(spoilt) else 1)
        assert "signed it" in outcome.err or "signs it" in outcome.err or "can't be understood" in outcome.err
        (offline.path / "image" / "sealed.json").unlink(missing_ok=True)
    assert server.image.targets.version == 2


def test_the_servers_own_roles_are_left_alone(offline: Signer) -> None:
    import json

    offline("keys", "new", "root-3", "--role", "root")
    offline("keys", "add", "root-3", "--role", "root")
    path = offline.path / "image" / "draft.json"
    whole = json.loads(path.read_bytes())
    whole["wanted"]["root"]["roles"]["snapshot"] = whole["wanted"]["root"]["roles"]["root"]
    path.write_text(json.dumps(whole))
    refused = offline("push", code=4).err
    assert "snapshot belongs to the server" in refused
    assert "signs for root and snapshot" in refused


def test_an_unreadable_answer_is_no_success(offline: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SigningServer, "answer", lambda *arguments: (500, {}, b"<html>"))
    offline("pull", code=4)


def test_a_publication_between_two_documents_of_a_pull_is_seen_through(
    offline: Signer, server: SigningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, image = SigningServer.answer, server.image
    waiting = ["snapshot.json"]

    def published_meanwhile(self: SigningServer, method: str, target: str, headers: object, body: bytes):  # type: ignore[no-untyped-def]
        if waiting and target.endswith(waiting[0]):
            waiting.clear()
            image.sign_above()
        return answer(self, method, target, headers, body)

    monkeypatch.setattr(SigningServer, "answer", published_meanwhile)
    offline("pull")
    assert waiting == []
    offline("verify", "--as-client")
