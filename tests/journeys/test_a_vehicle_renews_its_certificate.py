"""A device that the server made asks for a new certificate when two thirds of the old one's life are over, and uses it."""

from __future__ import annotations

import time
from pathlib import Path

from overair.agent.device_directory import DeviceDirectory, read_settings
from overair.agent.durable import Disk
from overair.agent.server_trust import FILE_NAME
from overair.agent.uptane.assembly import Surroundings, assemble
from overair.agent.uptane.identity import IdentityStore
from overair.agent.uptane.outcomes import Kind, Outcome
from overair.agent.uptane.primary import TRUST_FIRST_AFTER_S
from overair.basics.clock import Instant, SettableClock, WallClock
from tests.support.device_process import command
from tests.support.server_process import ServerProcess

DAY_MS = 24 * 3600 * 1000


class Application:
    def self_test(self) -> bool:
        return True


def test_a_new_certificate_comes_is_tried_and_replaces_the_old_one(server: ServerProcess, tmp_path: Path) -> None:
    credentials, root = tmp_path / "credentials.zip", tmp_path / "device"
    days = ("--certificate-days", "1")
    command("overair.cli.main", "credentials", "device", "--out", credentials, "--data", server.data, *days)
    flags = ("--credentials", credentials, "--install-file", "app.bin")
    command("overair.cli.device_main", "uptane", "provision", root, *flags)
    directory = DeviceDirectory(root)
    identities = IdentityStore(directory, Disk())

    def round_at(ahead_ms: int) -> Outcome:
        clock = SettableClock(Instant(WallClock().now() + ahead_ms))
        around = Surroundings(monotonic=time.monotonic, pause=lambda seconds: False, clock=clock)
        return assemble(
            directory, read_settings(directory), around, platform=None, application=Application(), version="1"
        ).round()

    assert round_at(0).kind is Kind.NOTHING_NEW
    old = identities.current()
    assert old is not None
    assert identities.next() is None
    assert round_at(int(0.9 * DAY_MS)).kind is Kind.NOTHING_NEW
    assert identities.current() == old, "kept until the new one has worked"
    assert identities.next() is not None
    assert round_at(0).kind is Kind.NOTHING_NEW
    new = identities.current()
    assert new is not None
    assert (new.name, identities.next()) == (old.name, None)
    assert new.certificate.public_key() != old.certificate.public_key()
    assert new.expires_at > old.expires_at


def test_a_vehicle_stores_whom_the_server_names_and_tells_it(server: ServerProcess, tmp_path: Path) -> None:
    credentials, root = tmp_path / "credentials.zip", tmp_path / "device"
    command("overair.cli.main", "credentials", "device", "--out", credentials, "--data", server.data)
    flags = ("--credentials", credentials, "--install-file", "app.bin")
    command("overair.cli.device_main", "uptane", "provision", root, *flags)
    directory, passed_s = DeviceDirectory(root), [0.0]
    around = Surroundings(monotonic=lambda: time.monotonic() + passed_s[0], pause=lambda seconds: False, clock=WallClock())
    primary = assemble(directory, read_settings(directory), around, platform=None, application=Application(), version="1")
    stored = root / "identity" / FILE_NAME
    assert primary.round().kind is Kind.NOTHING_NEW
    assert not stored.exists()
    passed_s[0] = 2 * TRUST_FIRST_AFTER_S
    assert primary.round().kind is Kind.NOTHING_NEW
    assert stored.read_bytes() == Path(server.endpoints["ca_file"]).read_bytes()
    assert stored.read_bytes().strip() in (root / "identity" / "ca.pem").read_bytes()
