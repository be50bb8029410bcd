"""Whatever operators and vehicles do: versions rise, every view is acceptable, nothing that was cancelled is installed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, JobId
from overair.server.director.model import View
from overair.server.jobs.model import JobStatus
from overair.server.storage.work import open_sqlite
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.metadata import Repository, Role
from tests.server.conftest import START
from tests.support.director_room import DirectorRoom, EcuKey

HOUR_MS: Final = 3_600_000
CARS: Final = 2

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ship"), st.integers(0, CARS), st.sampled_from(["gw", "dash", "both"])),
        st.tuples(st.just("poll"), st.integers(0, CARS - 1)),
        st.tuples(st.just("install"), st.integers(0, CARS - 1), st.sampled_from(["all", "gw", "dash"])),
        st.tuples(st.just("report"), st.integers(0, CARS - 1), st.sampled_from(["OK", "INSTALL_FAILED", "NEED_COMPLETION"])),
        st.tuples(st.just("cancel"), st.booleans()),
        st.tuples(st.just("time out")),
        st.tuples(st.just("swap"), st.integers(0, CARS - 1)),
        st.tuples(st.just("flash"), st.integers(0, CARS - 1)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 13, 30])),
        st.tuples(st.just("restart")),
        st.tuples(st.just("rotate")),
    ),
    max_size=24,
)


class World:
    """Vehicles that poll as aktualizr does: the manifest first, then the Director's documents."""

    def __init__(self, room: DirectorRoom) -> None:
        self.room = room
        self.cars = [room.vehicle(f"car-{number}", group="fleet", gw="imx8", dash="s32") for number in range(CARS)]
        self.count = 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count}"

    def do(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0].replace(" ", "_"))(*step[1:])
        for car in self.cars:
            assert car.versions == sorted(car.versions), "a version never goes back"

    # What may happen ------------------------------------------------------------------------------------------------------

    def ship(self, whom: int, what: str) -> None:
        room, kinds = self.room, {"gw": ("imx8",), "dash": ("s32",), "both": ("imx8", "s32")}[what]
        image = room.images.add(self.name("image"), *kinds)
        target = room.group_arn("fleet") if whom == CARS else room.thing_arn(self.cars[whom].thing)
        room.ship(self.name("job"), room.update(**dict.fromkeys(kinds, image)), target)

    def poll(self, whom: int) -> None:
        car = self.cars[whom]
        assert car.send() is None
        view = car.refresh()
        following = self.room.work.read_blocking(
            lambda tx: self.room.jobs.device.fulfilled_next(tx, self.room.account, car.thing)
        )
        if following is None:
            assert view.view is not View.ASSIGNMENT
            assert car.would_install() == {}, "nothing is assigned, and nothing is installed"
        else:
            assert following.status is ExecutionStatus.IN_PROGRESS
            [assignment, *_] = self.room.facts(car.thing).assignments
            assert set(car.would_install()) <= set(assignment.targets)
            assert car.correlation_id == assignment.correlation_id

    def install(self, whom: int, which: str) -> None:
        car = self.cars[whom]
        if car.would_install():
            car.install(*([] if which == "all" else [which]))

    def report(self, whom: int, code: str) -> None:
        car = self.cars[whom]
        if not car.kept or (code == "OK" and not any(target.ecus for target in car.kept.values())):
            return
        assert car.send(report=car.report(code)) is None
        if code == "INSTALL_FAILED":
            car.kept = {}

    def cancel(self, force: bool) -> None:
        room = self.room
        running = room.work.read_blocking(lambda tx: room.jobs.page(tx, room.account, status=JobStatus.IN_PROGRESS, limit=1))
        for job in running:
            room.cancel(job.id, force=force)

    def time_out(self) -> None:
        room = self.room
        for car in self.cars:
            following = room.work.read_blocking(
                lambda tx, car=car: room.jobs.device.fulfilled_next(tx, room.account, car.thing)
            )  # type: ignore[misc]
            if following is not None:
                room.work.run_blocking(
                    lambda tx, one=following: room.jobs.executions.delete(  # type: ignore[misc]
                        tx, room.account, one.thing, JobId(one.job), one.number, force=True
                    )
                )

    def swap(self, whom: int) -> None:
        car = self.cars[whom]
        old = next(serial for serial in car.ecus if serial != car.primary)
        new = self.name("dash")
        saved = dict(car.ecus), dict(car.installed)
        car.ecus[new], car.keys[new], car.installed[new] = car.ecus.pop(old), EcuKey(), car.installed.pop(old)
        if car.register().refusal is not None:
            car.ecus, car.installed = saved

    def flash(self, whom: int) -> None:
        """Somebody installs something by hand, while the vehicle holds nothing that it would install."""
        car = self.cars[whom]
        if not car.would_install():
            car.installed[car.primary] = self.room.images.add(self.name("by-hand"), "imx8").file

    def wait(self, hours: int) -> None:
        self.room.clock.advance(milliseconds=hours * HOUR_MS + 1)

    def restart(self) -> None:
        self.room.restart()

    def rotate(self) -> None:
        room = self.room
        room.work.run_blocking(
            lambda tx: room.roots.rotate(tx, room.place, Repository.DIRECTOR, roles=(Role.ROOT, Role.TARGETS))
        )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_any_sequence_leaves_every_vehicle_with_a_view_that_it_may_trust(
    taken: list[tuple[Any, ...]], sqlite_template: Callable[[], Path]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), SettableClock(START)
        shutil.copyfile(sqlite_template(), folder / "records.sqlite3")
        work = open_sqlite(folder / "records.sqlite3", clock=clock)
        try:
            world = World(DirectorRoom(work, Place("us-east-1", AccountId("123456789012")), clock, folder))
            for step in taken:
                world.do(step)
            for number in range(CARS):
                world.poll(number)
        finally:
            work.close()
