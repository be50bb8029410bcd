"""What attackers try on a vehicle, each as a story, and what it does about it (Uptane Standard 4.3; Uptane reference §8.7)."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from overair.agent.uptane.https import Patience
from overair.agent.uptane.outcomes import Kind
from overair.basics.clock import Instant, SettableClock, WallClock
from overair.wire.uptane.metadata import Repository, Role, TargetFile
from tests.support.uptane_repository import DAY, KeyHolder, UptaneRepository, assigned, target_file
from tests.support.uptane_server import Call, DirectClient, Handler, UptaneServer
from tests.support.uptane_vehicle import PRIMARY, PRIMARY_HARDWARE, Vehicle, issuer

GOOD, EVIL = b"good image " * 1000, b"evil image " * 1000


@pytest.fixture
def updated(vehicle: Vehicle) -> Vehicle:
    """Runs ``good-1``; another good image is in the repository."""
    vehicle.want("good-1", GOOD)
    assert vehicle.round().kind is Kind.INSTALLED
    vehicle.round()
    return vehicle


def test_drop_a_vehicle_that_hears_nothing_changes_nothing_and_goes_on_asking(updated: Vehicle) -> None:
    updated.want("good-2", GOOD + b"2")
    before = updated.state
    for path in ("/director/manifest", "/director/2.root.json"):
        updated.server.instead[path] = lambda handler, call: handler.hang_up()
    for _ in range(3):
        assert updated.round().kind is Kind.UNREACHABLE
    assert replace(updated.state, counter=before.counter) == before
    updated.server.instead.clear()
    assert updated.round().kind is Kind.INSTALLED


def test_slow_retrieval_is_given_up_and_told(updated: Vehicle) -> None:
    def drip(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(GOOD) + 1))
        handler.end_headers()
        handler.close_connection = True
        for byte in GOOD:
            handler.wfile.write(bytes((byte,)))
            time.sleep(0.01)

    updated.patience = Patience(answer_timeout_s=1, window_s=0.1)
    updated.want("good-2", GOOD + b"2")
    updated.server.instead["/repo/targets/good-2"] = drip
    assert updated.restart().round().kind is Kind.UNREACHABLE
    assert updated.installed() == GOOD
    del updated.server.instead["/repo/targets/good-2"]
    assert updated.round().kind is Kind.INSTALLED
    (attack,) = updated.attacks
    assert attack.startswith("SlowRetrieval: ")


@pytest.mark.parametrize("repository", Repository)
def test_freeze_old_metadata_are_good_only_as_long_as_they_say(updated: Vehicle, repository: Repository) -> None:
    updated.want("good-2", GOOD + b"2")
    updated.clock.advance(milliseconds=29 * DAY)
    if repository is Repository.IMAGE:
        updated.server.director.publish()
    updated.clock.advance(milliseconds=2 * DAY)
    assert updated.round().kind in (Kind.REFUSED, Kind.FAILED)
    assert updated.installed() == GOOD
    updated.round()
    assert updated.attacks[0].startswith("ExpiredMetadata: ")


@pytest.mark.parametrize("clock_is_set_back", [False, True])
def test_freeze_a_clock_that_was_set_back_makes_nothing_good_again(tmp_path: Path, clock_is_set_back: bool) -> None:
    """The attacker holds the gateway and the vehicle's clock, and freezes the Image repository. The vehicle had heard the time
    since its metadata ended."""
    servers_clock = SettableClock(WallClock().now())
    server = UptaneServer(tmp_path / "server", issuer=issuer(), clock=servers_clock)
    vehicle = Vehicle(tmp_path, server=server)
    vehicle.want("good-1", GOOD)
    assert vehicle.round().kind is Kind.INSTALLED
    target = vehicle.offer("good-2", GOOD + b"2")  # good for 30 days
    if clock_is_set_back:
        for clock in (servers_clock, vehicle.clock):
            clock.advance(milliseconds=32 * DAY)
        server.director.publish()
        assert vehicle.round().kind is Kind.NOTHING_NEW
    vehicle.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:2")
    for clock in (servers_clock, vehicle.clock):
        clock.set(Instant(clock.now() - 31 * DAY * clock_is_set_back))
    outcome = vehicle.restart().round()
    assert outcome.kind is (Kind.FAILED if clock_is_set_back else Kind.INSTALLED)
    assert ("ExpiredMetadata" in outcome.message) is clock_is_set_back
    vehicle.close()


ROLES = [(repository, role) for repository in Repository for role in Role]


@pytest.mark.parametrize(("repository", "role"), ROLES, ids=lambda value: str(value))
def test_rollback_of_each_role_is_refused(updated: Vehicle, repository: Repository, role: Role) -> None:
    """The documents of yesterday, all of them or this one alone, signed as they were."""
    updated.server.director.rotate(Role.SNAPSHOT)
    updated.server.image.rotate(Role.SNAPSHOT)
    target = updated.want("good-2", GOOD + b"2")
    yesterday = {kind: dict(_of(updated, kind).files) for kind in Repository}
    updated.server.director.publish()
    updated.server.image.publish()
    assert updated.round().kind is Kind.INSTALLED
    other = updated.offer("good-3", GOOD + b"3")
    updated.assign(assigned(other, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:3")
    place = _of(updated, repository)
    if role is Role.ROOT:
        place.files["3.root.json"] = yesterday[repository]["1.root.json"]
    else:
        place.files[f"{role}.json"] = yesterday[repository][f"{role}.json"]
    outcome = updated.round()
    assert outcome.kind in (Kind.REFUSED, Kind.FAILED)
    assert updated.installed() == GOOD + b"2"
    assert updated.image_of(PRIMARY) == target.name


def _of(vehicle: Vehicle, repository: Repository) -> UptaneRepository:
    return vehicle.server.director if repository is Repository.DIRECTOR else vehicle.server.image


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"])
@pytest.mark.parametrize("repository", ["director", "repo"])
def test_endless_data_of_any_document_is_cut_off(updated: Vehicle, repository: str, name: str) -> None:
    sent: list[int] = []

    def endless(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b" " * 100_000)
            sent.append(100_000)

    updated.want("good-2", GOOD + b"2")
    updated.server.instead[f"/{repository}/{name}"] = endless
    assert updated.round().kind is Kind.UNREACHABLE
    assert updated.installed() == GOOD
    updated.server.instead.clear()
    assert updated.round().kind is Kind.INSTALLED
    assert updated.attacks[0].startswith("Oversized: ")
    bound = 8 << 20 if (repository, name) == ("repo", "targets.json") else 64 << 10
    assert sum(sent) < bound + (8 << 20), "what lies in the sockets' buffers"


def test_endless_data_instead_of_an_image_is_cut_off_at_what_was_signed(updated: Vehicle) -> None:
    def endless(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(EVIL)

    updated.want("good-2", GOOD + b"2")
    updated.server.instead["/repo/targets/good-2"] = endless
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD
    assert updated.report is not None
    assert updated.report["result"]["code"] == "VERIFICATION_FAILED"
    assert "OversizedTarget" in updated.report["result"]["description"]


def test_arbitrary_software_other_bytes_than_were_signed_are_never_installed(updated: Vehicle) -> None:
    updated.want("good-2", GOOD)
    updated.server.images["good-2"] = EVIL[: len(GOOD)].ljust(len(GOOD), b"!")
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD
    updated.round()
    assert any("TargetHashMismatch" in attack for attack in updated.attacks)


def test_every_hash_that_either_repository_gives_is_checked(updated: Vehicle) -> None:
    """SHA-256 agrees, and the Image repository gives a SHA-512 too: of other bytes."""
    target = target_file("good-2", GOOD + b"2", hardware_ids=[PRIMARY_HARDWARE])
    image = replace(target, hashes={**target.hashes, "sha512": "ab" * 64})
    updated.server.images["good-2"] = GOOD + b"2"
    updated.server.image.add_target(image)
    updated.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:2")
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD


@pytest.mark.parametrize("old", ["targets.json", "snapshot.json"])
def test_mix_and_match_documents_of_two_days_dont_go_together(updated: Vehicle, old: str) -> None:
    image = updated.server.image
    yesterday = dict(image.files)
    updated.want("good-2", GOOD + b"2")
    image.files[old] = yesterday[old]
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD


def test_a_snapshot_that_loses_a_delegation_is_refused(updated: Vehicle) -> None:
    image = updated.server.image
    target = target_file("vendor/a", GOOD + b"v", hardware_ids=[PRIMARY_HARDWARE])
    updated.server.images["vendor/a"] = GOOD + b"v"
    image.delegate("vendor", ["vendor/*"], target)
    updated.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:v")
    assert updated.round().kind is Kind.INSTALLED
    updated.want("good-2", GOOD + b"2")
    only_targets = {"targets.json": image.snapshot.meta["targets.json"]}
    image.publish_snapshot(meta=only_targets)
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD + b"v"


Change = Callable[[TargetFile], TargetFile]


@pytest.mark.parametrize(
    ("ecus", "reason"),
    [
        ({PRIMARY: "other-hw"}, "BadHardwareId"),
        ({"stranger": "gateway-hw"}, "BadEcuId"),
        ({PRIMARY: PRIMARY_HARDWARE, "stranger": "gateway-hw"}, "BadEcuId"),
    ],
)
def test_wrong_hardware_and_unknown_ecus_refuse_the_whole_update(updated: Vehicle, ecus: dict[str, str], reason: str) -> None:
    updated.want("good-2", GOOD + b"2", ecus)
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD
    assert updated.report is not None
    assert updated.report["result"]["code"] == "VERIFICATION_FAILED"
    assert reason in updated.report["result"]["description"]
    assert not updated.server.asked("GET /repo/targets/good-2")


def test_an_image_for_other_hardware_is_refused_by_the_word_of_the_image_repository(updated: Vehicle) -> None:
    target = updated.offer("good-2", GOOD + b"2", hardware_ids=("other-hw",))
    updated.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:2")
    assert updated.round().kind is Kind.FAILED
    assert updated.report is not None
    assert "TargetMismatch" in updated.report["result"]["description"]
    assert updated.installed() == GOOD


def test_the_same_ecu_twice_is_refused(updated: Vehicle) -> None:
    targets = [updated.offer(name, GOOD + name.encode()) for name in ("good-2", "good-3")]
    updated.assign(*(assigned(target, {PRIMARY: PRIMARY_HARDWARE}) for target in targets), correlation_id="urn:2")
    assert updated.round().kind is Kind.REFUSED
    assert updated.installed() == GOOD


def test_a_name_that_is_used_again_for_other_bytes_is_refused(updated: Vehicle) -> None:
    target = target_file("good-1", EVIL, hardware_ids=[PRIMARY_HARDWARE])
    updated.server.images["good-1"] = EVIL
    updated.server.image.add_target(target)
    updated.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:2")
    assert updated.round().kind is Kind.FAILED
    assert updated.report is not None
    assert "TargetContentMismatch" in updated.report["result"]["description"]
    assert updated.installed() == GOOD


@pytest.mark.parametrize("difference", ["length", "hash", "absent"])
def test_what_the_repositories_dont_say_alike_is_not_installed(updated: Vehicle, difference: str) -> None:
    target = target_file("good-2", EVIL, hardware_ids=[PRIMARY_HARDWARE])
    updated.server.images["good-2"] = EVIL
    if difference != "absent":
        changed = {"length": replace(target, length=1), "hash": replace(target, hashes={"sha256": "ab" * 32})}
        updated.server.image.add_target(changed[difference])
    updated.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:2")
    assert updated.round().kind is Kind.FAILED
    assert updated.installed() == GOOD


def test_targets_of_another_vehicle_are_refused(updated: Vehicle) -> None:
    target = updated.offer("good-2", GOOD + b"2")
    updated.server.director.put_targets(
        assigned(target, {PRIMARY: PRIMARY_HARDWARE}), custom={"correlationId": "urn:2", "deviceId": "vehicle-2"}
    )
    assert updated.round().kind is Kind.REFUSED
    assert updated.installed() == GOOD


def test_director_targets_with_delegations_are_refused(updated: Vehicle) -> None:
    updated.server.director.targets = replace(updated.server.director.targets, has_delegations=True)
    updated.server.director.publish()
    assert updated.round().kind is Kind.REFUSED


@pytest.mark.parametrize("spoil", ["no signature", "broken", "twice", "unknown method", "not JSON", "duplicate key", "float"])
def test_documents_that_play_with_their_form_are_refused(updated: Vehicle, spoil: str) -> None:
    updated.want("good-2", GOOD + b"2")
    data = updated.server.director.files["targets.json"]
    envelope: dict[str, Any] = json.loads(data)
    signature = envelope["signatures"][0]
    changed = {
        "no signature": {**envelope, "signatures": []},
        "broken": {**envelope, "signatures": [{**signature, "sig": signature["sig"][:-4] + "AAA="}]},
        "twice": {**envelope, "signatures": [signature, signature]},
        "unknown method": {**envelope, "signatures": [signature, {**signature, "keyid": "0" * 64, "method": "rot13"}]},
        "float": {**envelope, "signed": {**envelope["signed"], "version": 9.0}},
    }
    text = json.dumps(changed.get(spoil, envelope)).encode()
    if spoil == "not JSON":
        text = b"{" + data
    if spoil == "duplicate key":
        text = data.replace(b'"signed":', b'"signed":{},"signed":')
    updated.server.director.files["targets.json"] = text
    assert updated.round().kind is Kind.REFUSED
    assert updated.installed() == GOOD


# --- stolen keys ----------------------------------------------------------------------------------------------------------


class Thief:
    """Holds the gateway, and the keys of some roles. Signs whatever else he needs with keys of his own."""

    def __init__(self, vehicle: Vehicle, stolen: set[tuple[Repository, Role]]) -> None:
        self.vehicle = vehicle
        self.stolen = stolen
        self.director = self._taken_over(vehicle.server.director)
        self.image = self._taken_over(vehicle.server.image)
        vehicle.server.director, vehicle.server.image = self.director, self.image

    def _taken_over(self, honest: UptaneRepository) -> UptaneRepository:
        keys = {role: list(honest.keys[role]) if (honest.kind, role) in self.stolen else [KeyHolder()] for role in Role}
        taken = UptaneRepository(honest.kind, now=honest.now, keys=keys)
        taken.files = dict(honest.files)
        for name in ("root", "targets", "snapshot", "timestamp"):
            setattr(taken, name, copy.copy(getattr(honest, name)))
        if (honest.kind, Role.ROOT) in self.stolen:
            taken.publish_root()
        return taken

    def push(self, content: bytes) -> None:
        """An image of his, wanted and known as far as his signatures go."""
        target = target_file("evil", content, hardware_ids=[PRIMARY_HARDWARE])
        self.vehicle.server.images["evil"] = content
        if (Repository.IMAGE, Role.TARGETS) in self.stolen or (Repository.IMAGE, Role.ROOT) in self.stolen:
            self.image.put_targets(*self.image.targets.targets.values(), target)
        self.want(target)

    def want(self, target: TargetFile) -> None:
        self.director.put_targets(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), custom={"correlationId": "urn:evil"})


@pytest.mark.parametrize("stolen", ROLES, ids=lambda value: "-".join(value))
def test_each_single_key_that_is_stolen_installs_nothing(updated: Vehicle, stolen: tuple[Repository, Role]) -> None:
    """A root makes the thief the whole repository, and the other one still says no."""
    Thief(updated, {stolen}).push(EVIL)
    for _ in range(2):
        assert updated.round().kind in (Kind.REFUSED, Kind.FAILED, Kind.NOTHING_NEW)
    assert updated.installed() == GOOD


ONLINE = {(repository, role) for repository in Repository for role in Role} - {
    (Repository.IMAGE, Role.ROOT),
    (Repository.IMAGE, Role.TARGETS),
}


def _subsets() -> Iterator[set[tuple[Repository, Role]]]:
    """Any two; all of the Director's online ones; all."""
    yield from (set(each) for each in combinations(sorted(ONLINE), 2))
    yield {(Repository.DIRECTOR, role) for role in (Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP)}
    yield ONLINE


@pytest.mark.parametrize("stolen", list(_subsets()), ids=lambda value: "+".join(sorted("-".join(each) for each in value)))
def test_the_whole_server_that_is_stolen_installs_nothing_that_the_image_targets_role_did_not_sign(
    tmp_path: Path, stolen: set[tuple[Repository, Role]]
) -> None:
    vehicle = Vehicle(tmp_path)
    vehicle.http = partial(DirectClient, vehicle.server)
    vehicle.want("good-1", GOOD)
    vehicle.round()
    thief = Thief(vehicle, stolen)
    thief.push(EVIL)
    for _ in range(2):
        vehicle.round()
    assert vehicle.installed() == GOOD
    vehicle.close()


def test_the_whole_server_that_is_stolen_brings_nothing_older_than_what_runs(tmp_path: Path) -> None:
    """Old images are signed for ever; their release counter says that they are old."""
    vehicle = Vehicle(tmp_path)
    old = vehicle.want("app-1", b"vulnerable", releaseCounter=1)
    vehicle.round()
    vehicle.want("app-2", GOOD, releaseCounter=2)
    assert vehicle.round().kind is Kind.INSTALLED
    Thief(vehicle, ONLINE).want(old)
    assert vehicle.round().kind is Kind.FAILED
    assert vehicle.installed() == GOOD
    assert vehicle.report is not None
    assert "Rollback" in vehicle.report["result"]["description"]
    vehicle.close()


def test_with_both_targets_keys_and_all_online_keys_a_thief_installs(tmp_path: Path) -> None:
    """What the tests above would show if they couldn't fail: the thief's documents are well made."""
    vehicle = Vehicle(tmp_path)
    vehicle.want("good-1", GOOD)
    vehicle.round()
    Thief(vehicle, ONLINE | {(Repository.IMAGE, Role.TARGETS)}).push(EVIL)
    assert vehicle.round().kind is Kind.INSTALLED
    assert vehicle.installed() == EVIL
    vehicle.close()


def test_versions_beyond_what_is_signed_are_outrun_by_a_new_root(updated: Vehicle) -> None:
    """A thief of the timestamp key counts to the largest version there is; a new root with a new key ends it."""
    image = updated.server.image
    honest_files, honest_timestamp = dict(image.files), image.timestamp
    image.timestamp = replace(image.timestamp, version=2**31 - 2)
    image.publish_timestamp()
    updated.want("good-2", GOOD + b"2")
    updated.round()
    image.files, image.timestamp = {**image.files, **honest_files}, honest_timestamp
    image.rotate(Role.TIMESTAMP, Role.SNAPSHOT)
    image.add_target(target_file("good-3", GOOD + b"3", hardware_ids=[PRIMARY_HARDWARE]))
    updated.server.images["good-3"] = GOOD + b"3"
    updated.assign(assigned(image.targets.targets["good-3"], {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:3")
    assert updated.round().kind is Kind.INSTALLED
