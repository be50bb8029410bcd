"""Images that come encrypted: decrypted as they come, verified like all others, and refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.decryption_keys import BadDecryptionKeys, DecryptionKeys, read_private_key
from overair.agent.device_directory import DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.platforms import unsealing
from overair.wire.agent_reasons import reason_in_words
from overair.wire.decryption_messages import KEYS_MAX
from overair.wire.job_document import FileEncryption, TransferProtocol
from overair.wire.job_messages import ExecutionStatus
from tests.agent.test_crash_states import SIGNER as RECORDED_SIGNER
from tests.agent.test_crash_states import QuickDisk, World, recorded
from tests.support.crash_states import Cut, cuts
from tests.support.device import Signer, cached_image, image_of_size
from tests.support.encrypted import encrypted_file
from tests.support.fake_cloud import Execution, FakeCloud
from tests.support.gateway_machine import GatewayMachine
from tests.support.gateway_machine import image as gateway_image
from tests.support.machine import Machine
from tests.support.power_cut import FailingDisk, PowerCut

SIGNER = Signer()
OWN, GROUP, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
NEW = image_of_size("2.0.0", 250_000)


def machine_at(root: Path, *keys: ec.EllipticCurvePrivateKey, **changes: Any) -> Machine:
    machine = Machine(root, SIGNER, **({"block_size_bytes": 4096} | changes))
    for number, key in enumerate(keys):
        DecryptionKeys(machine.directory).add(f"key-{number}", key)
    machine.disk = QuickDisk()
    return machine


def ship(machine: Machine, image: bytes, *readers: ec.EllipticCurvePrivateKey, **changes: Any) -> Execution:
    return machine.cloud.ship("job", encrypted_file(SIGNER, image, [reader.public_key() for reader in readers], **changes))


def words(execution: Execution) -> str:
    assert execution.status is ExecutionStatus.FAILED
    return reason_in_words(execution.details["reason"])


@pytest.mark.parametrize("key", [OWN, GROUP])
@pytest.mark.parametrize("segment", [4096, 5000, 256 * 1024])
def test_an_image_for_a_key_of_the_device_runs(tmp_path: Path, key: ec.EllipticCurvePrivateKey, segment: int) -> None:
    machine = machine_at(tmp_path / "d", OWN, GROUP)
    execution = ship(machine, NEW, STRANGER, key, segment_size_bytes=segment)
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert machine.version == "2.0.0"
    assert machine.directory.slot_file("b").read_bytes() == NEW
    assert not list(machine.directory.slots.glob("receiving.*"))


def test_an_image_longer_than_the_gap_is_decrypted_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = cached_image("2.0.0", size_bytes=3_000_000)
    written: list[int] = []

    class Watching(QuickDisk):
        def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
            written.append(len(data))
            super().write_at(descriptor, data, offset_bytes)

        def allocate(self, descriptor: int, size_bytes: int) -> None:
            assert size_bytes < len(image) + unsealing.GAP_SIZE_BYTES + 16 * 1024
            super().allocate(descriptor, size_bytes)

    machine = machine_at(tmp_path / "d", OWN, block_size_bytes=32 * 1024)
    machine.disk = Watching()
    execution = ship(machine, image, OWN, segment_size_bytes=64 * 1024)
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert machine.directory.slot_file("b").read_bytes() == image
    assert max(written) <= 64 * 1024  # never more at once than a segment


def test_the_same_over_https_and_with_lost_and_repeated_blocks(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "a", OWN)
    machine.cloud.chance = Random(7)
    execution = ship(machine, NEW, OWN)
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    machine = machine_at(tmp_path / "b", OWN)
    file, whole = encrypted_file(SIGNER, NEW, [OWN.public_key()], url="https://images/x", auth_scheme="aws.s3.presigned")

    class Ranges:
        def fetch(self, url: str, first_byte: int, last_byte: int) -> bytes:
            return whole[first_byte : last_byte + 1]

    machine.ranges = Ranges()
    execution = machine.cloud.ship("job", (file, whole), protocols=(TransferProtocol.HTTP,))
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert machine.cloud.blocks_sent == 0


def test_a_file_that_is_no_firmware_is_decrypted_too(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "d", OWN)
    execution = ship(machine, b"secret = 1\n" * 1000, OWN, file_type=1, path="etc/app.toml")
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert (machine.directory.files / "etc/app.toml").read_bytes() == b"secret = 1\n" * 1000


def test_a_gateways_hooks_are_given_the_image_and_never_the_envelope(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    DecryptionKeys(machine.directory).add("fleet", OWN)
    data = gateway_image("2.0.0", size_bytes=30_000)
    file, whole = encrypted_file(SIGNER, data, [OWN.public_key()])
    execution = machine.cloud.ship("job", (file, whole))
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert (machine.world / "installed").read_bytes() == data
    assert any(line.startswith(f"install {hashlib.sha256(data).hexdigest()} {len(data)} ") for line in machine.log)


@pytest.mark.parametrize("keys", [[], [OWN, GROUP]])
def test_an_image_for_others_is_refused_with_that_reason(tmp_path: Path, keys: list[ec.EllipticCurvePrivateKey]) -> None:
    machine = machine_at(tmp_path / "d", *keys)
    execution = ship(machine, NEW, STRANGER)
    machine.run()
    assert "none of its recipients' keys is on the device" in words(execution)
    assert machine.version == "1.0.0"
    # As soon as the head is there: nobody waits for a download in vain.
    assert machine.cloud.blocks_sent <= 33


def test_a_format_that_nobody_here_reads_is_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "d", OWN)
    execution = ship(machine, NEW, OWN, encryption=FileEncryption(format=2, key_ids=("0" * 16,)))
    machine.run()
    assert "its format is unknown" in words(execution)
    assert machine.cloud.blocks_sent == 0


def test_whoever_encrypts_can_not_make_a_device_run_what_its_signer_did_not_sign(tmp_path: Path) -> None:
    """Anybody may know a public key: that an image could be decrypted says nothing of who sent it."""
    machine = machine_at(tmp_path / "d", OWN)
    file, whole = encrypted_file(Signer(), NEW, [OWN.public_key()])
    execution = machine.cloud.ship("job", (file, whole))
    machine.run()
    assert "signature does not verify" in words(execution)
    assert machine.version == "1.0.0"


def test_a_plain_image_in_place_of_an_encrypted_one_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "a", OWN)
    file, _ = encrypted_file(SIGNER, NEW, [OWN.public_key()], size_bytes=len(NEW))
    execution = machine.cloud.ship("job", (file, NEW))
    machine.run()
    assert "the head of the encrypted image can't be read" in words(execution)
    machine = machine_at(tmp_path / "b", OWN)
    file, whole = encrypted_file(SIGNER, NEW, [OWN.public_key()], encryption=None)
    execution = machine.cloud.ship("job", (file, whole))
    machine.run()
    assert "signature does not verify" in words(execution)


def test_a_bit_that_changed_anywhere_ends_the_job_and_never_runs(tmp_path: Path) -> None:
    file, whole = encrypted_file(SIGNER, NEW, [OWN.public_key()])
    chance = Random(3)
    # The head's fields one by one, then anywhere, and the last tag.
    places = [*range(0, 270, 9), *(chance.randrange(len(whole)) for _ in range(12)), len(whole) - 1]
    machine = machine_at(tmp_path / "d", OWN)
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        machine.cloud = FakeCloud()
        execution = machine.cloud.ship("job", (file, bytes(changed)))
        machine.run()
        assert "decrypted" in words(execution), place
        assert machine.version == "1.0.0"
        assert not list(machine.directory.slots.glob("receiving.*"))


@pytest.mark.parametrize("change", ["swapped", "repeated", "cut", "foreign"])
def test_segments_that_are_not_in_their_place_end_the_job(tmp_path: Path, change: str) -> None:
    file, whole = encrypted_file(SIGNER, NEW, [OWN.public_key()])
    _, foreign = encrypted_file(SIGNER, NEW[:-1] + b"\0", [OWN.public_key()])
    head, size = 12 + int.from_bytes(whole[8:12]), 4096 + 16
    first, second = slice(head, head + size), slice(head + size, head + 2 * size)
    changed = bytearray(whole)
    if change == "swapped":
        changed[first], changed[second] = whole[second], whole[first]
    elif change == "repeated":
        changed[second] = whole[first]
    elif change == "foreign":
        changed[second] = encrypted_file(SIGNER, NEW, [OWN.public_key()], segment_size_bytes=5000)[1][second]
    else:
        changed = changed[: head + 3 * size]
        file, _ = encrypted_file(SIGNER, NEW, [OWN.public_key()], size_bytes=len(changed))
    machine = machine_at(tmp_path / "d", OWN)
    execution = machine.cloud.ship("job", (file, bytes(changed)))
    machine.run()
    assert "decrypted" in words(execution)
    assert machine.version == "1.0.0"
    assert len(foreign) == len(whole)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An update of four runs with a small gap, recorded step by step."""
    root = tmp_path_factory.mktemp("crash") / "d"
    root.mkdir(mode=0o700)
    DecryptionKeys(DeviceDirectory(root)).add("group", OWN)
    file = encrypted_file(RECORDED_SIGNER, NEW, [OWN.public_key()], segment_size_bytes=32 * 1024)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unsealing, "GAP_SIZE_BYTES", 64 * 1024)
        yield recorded(root, file)


def test_whatever_survives_a_power_cut_the_image_is_decrypted_whole_or_not_at_all(world: World) -> None:
    chance = Random(21)
    ended = set()
    for number, cut in enumerate(cuts(world.disk)):
        # Every third step, and all at which something of the image or of what is written of it may be lost.
        if number % 3 and not cut.data:
            continue
        some = frozenset(number for number in cut.data if chance.random() < 0.5)
        torn = frozenset(number for number in cut.data if chance.random() < 0.5)
        ended.add(check(world, cut, some | frozenset(cut.names[: chance.randint(0, len(cut.names))]), torn))
    assert ended == {"1.0.0", "2.0.0"}


@pytest.mark.long
def test_whatever_of_each_unsynced_write_survives_a_power_cut(world: World) -> None:
    for cut in cuts(world.disk):
        for survived in cut.fates():
            check(world, cut, survived)
            for torn in survived & frozenset(cut.data):
                check(world, cut, survived, frozenset((torn,)))


def check(world: World, cut: Cut, survived: frozenset[int], torn: frozenset[int] = frozenset()) -> str:
    machine, execution, _ = world.after(cut, survived, torn)
    machine.run()  # each boot verifies its slot; without a verified image it fails
    active = machine.slots.read().active
    assert active is not None
    images = {"1.0.0": cached_image("1.0.0"), "2.0.0": NEW}
    assert machine.directory.slot_file(active).read_bytes() == images[machine.version or ""]
    if execution.status is ExecutionStatus.SUCCEEDED:
        assert machine.version == "2.0.0"
    else:  # cut during its trial: one boot is all that an image gets
        assert execution.details == {"reason": "rejected: 0x00000011"}
    return machine.version or ""


def test_a_power_cut_during_the_download_does_not_bring_back_what_is_on_the_disk(tmp_path: Path) -> None:
    step, resumed = 20, 0
    while True:
        machine = machine_at(tmp_path / str(step), OWN)
        execution = ship(machine, NEW, OWN)
        machine.disk = FailingDisk(step, seed=step)
        try:
            machine.run()
            break
        except PowerCut:
            before = machine.cloud.blocks_sent
            bitmap = machine.directory.slots / "receiving.bitmap"
            there = sum(byte.bit_count() for byte in bitmap.read_bytes()) if bitmap.exists() else 0
            machine.disk = Disk()
            machine.run()
            resumed += machine.cloud.blocks_sent - before < 62 and 0 < there < 62
        assert execution.status is ExecutionStatus.SUCCEEDED or machine.version == "1.0.0"
        step += 29
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert resumed >= 2


def test_an_image_that_was_verified_but_not_activated_is_not_fetched_again(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "d", OWN)
    execution = ship(machine, NEW, OWN)
    machine.cloud.acknowledging = False  # the word that the image is ready isn't acknowledged: no restart
    machine.run()
    sent = machine.cloud.blocks_sent
    assert machine.slots.read().b is not None
    machine.cloud.acknowledging = True
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert machine.cloud.blocks_sent == sent
    assert machine.directory.slot_file("b").read_bytes() == NEW


def test_a_device_with_keys_says_so_before_it_asks_for_a_job_and_one_that_never_had_any_says_nothing(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "a", OWN, GROUP)
    machine.run()
    assert machine.cloud.declared is not None
    assert [key.public_numbers() for key in machine.cloud.declared.keys] == [
        key.public_key().public_numbers() for key in (OWN, GROUP)
    ]
    topics = [topic.rsplit("/", 2)[1] for topic, _ in machine.cloud.published]
    assert topics[:2] == ["$decryption", "$next"]
    assert topics.count("$decryption") == 1
    for name in ("key-0", "key-1"):
        DecryptionKeys(machine.directory).remove(name)
    machine.cloud = FakeCloud()
    machine.run()
    assert machine.cloud.declared is not None
    assert machine.cloud.declared.keys == ()
    machine = machine_at(tmp_path / "b")
    machine.run()
    assert machine.cloud.declared is None


def test_keys_are_kept_by_name_readable_by_their_owner_alone(tmp_path: Path) -> None:
    keys = DecryptionKeys(machine_at(tmp_path / "d").directory)
    own = keys.make()
    assert keys.all() == (own,) or keys.all()[0].key_id == own.key_id
    path = tmp_path / "d/decryption/device.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private_key(path).private_numbers() == own.private.private_numbers()
    for name, key in (("device", GROUP), ("other", own.private), ("../x", GROUP), ("", GROUP), ("a.b", GROUP)):
        with pytest.raises(BadDecryptionKeys):
            keys.add(name, key)
    for number in range(KEYS_MAX - 1):
        keys.make(f"k{number}")
    with pytest.raises(BadDecryptionKeys, match="at most"):
        keys.make("one-more")
    keys.remove("k0")
    with pytest.raises(BadDecryptionKeys):
        keys.remove("k0")
    assert len(keys.all()) == KEYS_MAX - 1


def test_a_key_file_that_can_not_be_used_tells_nothing_of_itself_and_keeps_nobody_from_running(tmp_path: Path) -> None:
    machine = machine_at(tmp_path / "d", OWN)
    path = machine.directory.decryption / "bad.key"
    wrong = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data in (wrong, b"SECRET", b"x" * 5000, b""):
        path.write_bytes(data)
        with pytest.raises(BadDecryptionKeys, match="holds no private key") as caught:
            read_private_key(path)
        assert "SECRET" not in str(caught.value)
    execution = ship(machine, NEW, OWN)
    machine.run()
    assert machine.cloud.declared is not None
    assert machine.cloud.declared.keys == ()
    assert "none of its recipients' keys" in words(execution)
    assert json.loads(execution.document)["afr_ota"]["files"][0]["encrypted"]["format"] == 1
    assert path.exists()
