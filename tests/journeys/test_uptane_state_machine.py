"""Whatever operators do, in whatever order: what is served verifies as a whole, versions rise, devices accept what they see.

The whole server in one process, with devices that verify as aktualizr does; time is the test's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.uptane_world import (
    DIRECTOR,
    HARDWARE_ID,
    SECOND_HARDWARE_ID,
    USER_REPO,
    UptaneWorld,
)
from tests.support.whole_server import Template

TARGETS_SIGNED_FOR_DAYS = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


class Operators(RuleBasedStateMachine):
    """Two devices, one with a Secondary; the operator's every whim."""

    template: Template

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="overair-operators-")
        folder = Path(self._folder.name)
        self.world = UptaneWorld(self.template.open(folder / "data"), folder)
        self.devices: dict[str, Aktualizr] = {}
        self.images: list[tuple[str, bytes]] = []
        self.unsigned: list[tuple[str, bytes]] = []
        self.seen: dict[tuple[str, str, str, int], bytes] = {}
        self.newest: dict[tuple[str, str, str], int] = {}
        self.installed_when_cancelled: dict[str, list[tuple[str, str | None]]] = {}

    def teardown(self) -> None:
        self.world.server.close()
        self._folder.cleanup()

    @initialize()
    def two_devices_come(self) -> None:
        self.devices = {"car-a": self.world.device("car-a"), "car-b": self.world.device("car-b", with_secondary=True)}
        for device in self.devices.values():
            assert device.cycle() is Outcome.NO_UPDATES, (device.refusal, device.last_error)

    names = st.sampled_from(["car-a", "car-b"])

    # What operators do ----------------------------------------------------------------------------------------------------

    @rule(both=st.booleans())
    def upload(self, both: bool) -> None:
        image = self.world.upload(HARDWARE_ID, *([SECOND_HARDWARE_ID] if both else []))
        (self.unsigned if self.world.is_offline else self.images).append(image)

    @precondition(lambda self: self.world.is_offline)
    @rule()
    def push_what_waits(self) -> None:
        reply = self.world.push(*self.unsigned, days=TARGETS_SIGNED_FOR_DAYS)
        assert reply.status == 200, reply.body
        self.images += self.unsigned
        self.unsigned.clear()

    @precondition(lambda self: self.world.is_offline and self.images)
    @rule(number=st.integers(0, 20))
    def push_without_an_image(self, number: int) -> None:
        """Refused where a device needs it, and then nothing has changed."""
        name, data = self.images[number % len(self.images)]
        before = self.world.targets()
        reply = self.world.push(without=[name], days=TARGETS_SIGNED_FOR_DAYS)
        if reply.status == 200:
            self.images.remove((name, data))
        else:
            assert reply.status == 400, reply.body
            assert reply.json["errors"]
            assert self.world.targets() == before

    @precondition(lambda self: self.world.is_offline)
    @rule()
    def push_from_an_old_copy(self) -> None:
        """The checksum of another document: refused, and nothing has changed."""
        before = self.world.targets()
        stale = self.world.ask(
            "PUT",
            f"{USER_REPO}/targets",
            body=b"{}",
            headers={"x-ats-role-checksum": "0" * 64},
        )
        assert stale.status in (400, 412), stale.body
        assert self.world.targets() == before

    @precondition(lambda self: not self.world.is_offline)
    @rule()
    def take_keys_offline(self) -> None:
        self.world.take_offline()

    @precondition(lambda self: self.world.is_offline)
    @rule()
    def rotate_offline_keys(self) -> None:
        self.world.rotate_offline_keys()

    @precondition(lambda self: not self.world.is_offline)
    @rule()
    def rotate_online_keys(self) -> None:
        self.world.expect((200, 204), "PUT", f"{USER_REPO}/root/rotate")

    @rule()
    def rotate_the_director(self) -> None:
        self.world.expect((200, 204), "PUT", f"{DIRECTOR}/admin/repo/root/rotate")

    @rule(days=st.sampled_from([0.01, 0.4, 0.9, 3, 20, 50]))
    def time_passes(self, days: float) -> None:
        if self.world.is_offline:
            # Whoever signs by hand must be there in time; what comes of it if not is told elsewhere.
            self.world.push(days=TARGETS_SIGNED_FOR_DAYS)
        self.world.pass_time(days=days)

    @precondition(lambda self: self.images)
    @rule(name=names, number=st.integers(0, 20), secondary=st.booleans())
    def assign(self, name: str, number: int, secondary: bool) -> None:
        image = self.images[number % len(self.images)]
        reply = self.world.assign({SECOND_HARDWARE_ID if secondary else HARDWARE_ID: image}, name)
        assert reply.status in (201, 400), reply.body
        if reply.status == 400:
            # Signed for other hardware, or nobody has anything to install.
            assert reply.json.get("field") or any(reply.json["notAffected"][name].values())

    @rule(name=names, force=st.booleans())
    def cancel(self, name: str, force: bool) -> None:
        device = self.devices[name]
        reply = self.world.cancel(device, force=force)
        assert reply.status in (204, 404, 409), reply.body

    # What devices do ------------------------------------------------------------------------------------------------------

    @rule(name=names)
    def a_device_polls(self, name: str) -> None:
        device = self.devices[name]
        outcome = device.cycle()
        assert outcome in (Outcome.NO_UPDATES, Outcome.INSTALLED), (outcome, device.last_error)

    @rule(name=names)
    def a_device_fetches_and_loses_power(self, name: str) -> None:
        """Its assignment is in flight then."""
        device = self.devices[name]
        check = device.check_updates()
        assert check.error is None, check.error
        self.devices[name] = device.restart()

    # What must always hold ------------------------------------------------------------------------------------------------

    @invariant()
    def everything_that_is_served_verifies_as_a_whole(self) -> None:
        for name, device in self.devices.items():
            for (prefix, role), (version, data) in self.world.check_what_is_served(device).items():
                whose = name if prefix == "director" and role != "root" else ""
                known = self.seen.setdefault((whose, prefix, role, version), data)
                assert known == data, f"{prefix}/{role} {version} is two documents"
                assert version >= self.newest.get((whose, prefix, role), 0), f"{prefix}/{role} fell to {version}"
                self.newest[whose, prefix, role] = version

    @invariant()
    def both_flavours_say_the_same(self) -> None:
        for device in list(self.devices.values())[:1]:
            served = self.world.check_what_is_served(device)
            for role in ("root", "targets", "snapshot", "timestamp"):
                assert served["repo", role][0] == served["tuf", role][0], role


def play(template: Template, *, examples: int, steps: int) -> None:
    Operators.template = template
    run_state_machine_as_test(
        Operators,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


@pytest.mark.timeout(300)
def test_whatever_operators_do_what_is_served_stands_as_a_whole(template: Template) -> None:
    play(template, examples=4, steps=25)


@pytest.mark.long
def test_whatever_operators_do_for_long(template: Template) -> None:
    play(template, examples=60, steps=60)
