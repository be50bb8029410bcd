"""A Linux gateway without a machine: its hooks are small shell scripts over files, ``restart`` does what a reboot would."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from overair.agent.agent import Agent
from overair.agent.device_directory import DeviceSettings
from overair.agent.durable import Disk
from overair.agent.gateway_main import HookApplication
from overair.agent.hooks import Hooks, HookSettings
from overair.agent.platform import ResetRequested
from overair.agent.platforms.gateway import GatewayPlatform
from overair.agent.settings import AgentSettings
from overair.agent.states import Event, State
from tests.support.device import Signer, make_device
from tests.support.fake_cloud import THING, FakeCloud
from tests.support.machine import Clock

SCRIPTS = {
    "version": "cat $W/version",
    "install": 'echo "install $OVERAIR_SHA256 $OVERAIR_SIZE_BYTES $OVERAIR_RUNNING_VERSION" >> $W/log; cp "$1" $W/installed',
    "activate": "echo activate >> $W/log; touch $W/boot-next",
    "self_test": "echo self_test >> $W/log; exit $(cat $W/verdict)",
    "commit": "echo commit >> $W/log",
    "roll_back": "echo roll_back >> $W/log; touch $W/boot-old",
    "reboot": "echo reboot >> $W/log; touch $W/rebooting",
    "permit": "echo permit $1 >> $W/log; cat $W/not-now 2>/dev/null && exit 75; exit 0",
    "job": "echo job >> $W/log; cat; exit $(cat $W/verdict)",
}


def image(version: str, size_bytes: int = 9000) -> bytes:
    """What this gateway installs: its version in the first line, and some weight."""
    return f"{version}\n".encode().ljust(size_bytes, b"x")


class GatewayMachine:
    """One gateway at the fake cloud."""

    def __init__(self, root: Path, signer: Signer, *, without: tuple[str, ...] = (), **scripts: str) -> None:
        self.world = root / "world"
        self.world.mkdir(parents=True)
        (self.world / "version").write_text("1.0.0\n")
        (self.world / "verdict").write_text("0")
        (self.world / "boot-id").write_text("boot 1")
        self.signer = signer
        self.hooks = Hooks(hook_settings(self.world, without=without, **scripts))
        self.directory, self.settings = make_device(root / "device", signer, hooks=self.hooks.settings)
        assert isinstance(self.settings, DeviceSettings)
        self.cloud = FakeCloud()
        self.clock = Clock()
        self.starts: list[str] = []
        self.disk = Disk()

    @property
    def log(self) -> list[str]:
        path = self.world / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def version(self) -> str:
        return (self.world / "version").read_text().strip()

    def platform(self) -> GatewayPlatform:
        return GatewayPlatform(
            self.directory, self.settings, hooks=self.hooks, disk=self.disk, boot_id_file=self.world / "boot-id"
        )

    def start(self) -> Agent:
        """What ``run_gateway`` does, up to its agent's first step."""
        platform = self.platform()
        self.starts.append(str(platform.running_image.version))
        platform.begin()
        application = HookApplication(self.hooks)
        agent = Agent(
            platform=platform,
            transport=self.cloud,
            application=application,
            settings=AgentSettings(thing_name=THING, block_size_bytes=1024),
            monotonic=self.clock,
            chance=Random(1),
            permission=application.permit if self.hooks.settings.permit else None,
        )
        if self.hooks.settings.job:
            agent.on_job(application.do_job)
        agent.signal(Event.START)
        return agent

    def restart(self) -> None:
        """The service is started again, after the machine if a reboot was asked for."""
        reboots = not self.hooks.settings.reboot or (self.world / "rebooting").exists()
        if not reboots:
            return
        (self.world / "rebooting").unlink(missing_ok=True)
        number = int((self.world / "boot-id").read_text().split()[1])
        (self.world / "boot-id").write_text(f"boot {number + 1}")
        if (self.world / "boot-next").exists():
            (self.world / "old-version").write_text((self.world / "version").read_text())
            (self.world / "version").write_text((self.world / "installed").read_text().splitlines()[0] + "\n")
            (self.world / "boot-next").unlink()
        elif (self.world / "boot-old").exists():
            (self.world / "version").write_text((self.world / "old-version").read_text())
            (self.world / "boot-old").unlink()

    def run(self) -> Agent:
        """Start, and start again, until an agent has nothing more to do."""
        for _ in range(12):
            try:
                agent = self.start()
                self.settle(agent)
            except ResetRequested:
                self.restart()
                continue
            return agent
        raise AssertionError("the gateway restarts for ever")

    def settle(self, agent: Agent) -> None:
        for _ in range(100_000):
            if agent.step():
                continue
            if agent.state is not State.WAITING_FOR_FILE_BLOCK:
                return
            self.clock.now_s += 10
        raise AssertionError("the agent doesn't come to rest")


def hook_settings(world: Path, *, without: tuple[str, ...] = (), **scripts: str) -> HookSettings:
    chosen: dict[str, Any] = {
        name: ("sh", "-c", f"W={world}; {script}", name) for name, script in (SCRIPTS | scripts).items() if name not in without
    }
    return HookSettings(**chosen, timeout_s=20)
