"""The demo's second act: a Uptane Primary with a Secondary beside the three devices, and keys that leave the server."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from overair.agent.image_builder import build_image
from overair.cli.demo_picture import Round
from overair.cli.demo_stage import (
    DEVICE_COMMAND,
    GROUP,
    IMAGE_NAME,
    OPERATOR_COMMAND,
    Stage,
    Vehicle,
    follow_job,
    run_to_end,
    running,
    wait_for,
)
from overair.cli.device import HARDWARE_ID_DEFAULT
from overair.cli.dispatch import dispatch
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_side import NeedsSignature
from overair.cli.pace import Pace
from overair.cli.shipment import audience_of, shipment_of
from overair.cli.uptane_rest import UptaneRest

CAR = "car"
GATEWAY, DOOR = "gateway", "door"
"""Serials of the Primary and of the Secondary."""
HARDWARE = {GATEWAY: "demo-gateway", DOOR: "demo-door"}
POLLING_S = "1"


def second_act(stack: ExitStack, stage: Stage) -> list[Round]:
    """Two rollouts over both kinds of device: signed by the server, then signed away from it."""
    rest = UptaneRest(stage.operator)
    vehicle = _vehicle(stack, stage, rest)
    with_server_keys = _ship(stage, rest, vehicle, "4.0.0", name="4.0.0, one rollout over devices and a vehicle")
    sign = _take_keys_offline(stage)
    image = _image(stage, "5.0.0")
    try:
        _dispatch(stage, rest, image)
    except NeedsSignature:
        stage.console.print("The server can't sign 5.0.0 any more, so that nothing was shipped. It is signed here:")
    else:
        raise CommandEnded(ExitCode.REFUSED, "The server shipped an image that it can't have signed.")
    hardware = [word for hardware_id in HARDWARE.values() for word in ("--hardware-id", hardware_id)]
    sign("add", str(image), "--name", IMAGE_NAME, "--version", "5.0.0", *hardware)
    sign("push")
    with_own_keys = _ship(stage, rest, vehicle, "5.0.0", name="5.0.0, signed away from the server")
    return [with_server_keys, with_own_keys]


def _vehicle(stack: ExitStack, stage: Stage, rest: UptaneRest) -> Vehicle:
    """Two processes that come in with a shared credential, as a factory would let them."""
    began = time.monotonic()
    folder, data = stage.folder, str(stage.operator.data)
    credentials, secondary, primary = folder / "credentials.zip", folder / DOOR, folder / CAR
    run_to_end(OPERATOR_COMMAND, "credentials", "device", "--out", str(credentials), "--uses", "1", "--data", data)
    arguments = ("uptane", "secondary", "run", str(secondary), "--hardware-id", HARDWARE[DOOR], "--ecu-serial", DOOR)
    stack.enter_context(running(folder / f"uptane-{DOOR}.log", *arguments))
    wait_for(stage, lambda: (secondary / "secondary.sock").exists(), "The Secondary doesn't listen")
    run_to_end(
        DEVICE_COMMAND,
        *("uptane", "provision", str(primary), "--credentials", str(credentials), "--device-id", CAR),
        *("--hardware-id", HARDWARE[GATEWAY], "--ecu-serial", GATEWAY, "--install-file", "firmware.bin"),
        *("--secondary", str(secondary / "secondary.sock"), "--polling-s", POLLING_S),
    )
    stack.enter_context(running(folder / f"uptane-{CAR}.log", "uptane", "run", str(primary)))
    wait_for(stage, lambda: CAR in rest.registered(), "The vehicle doesn't register its ECUs")
    stage.operator.client("iot").add_thing_to_thing_group(thingGroupName=GROUP, thingName=CAR)
    stage.console.print(
        f"\nA vehicle has joined them in {time.monotonic() - began:.1f} s: a Uptane Primary and a Secondary, two processes."
    )
    return Vehicle(thing=CAR, running=lambda: rest.ecus(CAR))


def _take_keys_offline(stage: Stage) -> _Sign:
    """Root and targets get keys of our own; the server's are deleted."""
    began = time.monotonic()
    passphrase = stage.folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("words that lie beside what they seal: for a demo alone\n")
    sign = _Sign(stage, stage.folder / "signing-tree", passphrase)
    stage.console.print("\n[bold]The keys go offline[/bold]")
    run_to_end(OPERATOR_COMMAND, "sign", "init", str(sign.tree), "--data", str(stage.operator.data))
    sign("keys", "new", "our-root", "--role", "root")
    sign("keys", "new", "our-targets", "--role", "targets")
    sign("take-offline", "--yes")
    stage.console.print(f"In {time.monotonic() - began:.1f} s the keys of root and targets have left the server.")
    return sign


class _Sign:
    """``overair sign`` in the demo's tree."""

    def __init__(self, stage: Stage, tree: Path, passphrase: Path) -> None:
        self.tree = tree
        self._stage = stage
        self._passphrase = passphrase

    def __call__(self, *arguments: str) -> None:
        secret = ["--passphrase-file", str(self._passphrase)] if arguments[0] in {"keys", "take-offline", "push"} else []
        run_to_end(OPERATOR_COMMAND, "sign", *arguments, "--dir", str(self.tree), *secret)
        self._stage.console.print(f"  overair sign {' '.join(Path(word).name for word in arguments)}", highlight=False)


def _ship(stage: Stage, rest: UptaneRest, vehicle: Vehicle, version: str, *, name: str) -> Round:
    job = _dispatch(stage, rest, _image(stage, version))
    return follow_job(stage, job, name, expected_status="SUCCEEDED", expected_version=version, vehicles=[vehicle])


def _dispatch(stage: Stage, rest: UptaneRest, image: Path) -> str:
    """What ``overair ship IMAGE --to group:demo --hardware-id …`` does; the job."""
    shipment = shipment_of(image, None, list(HARDWARE.values()))
    audience = audience_of(stage.operator, rest, f"group:{GROUP}", shipment)
    profile = stage.operator.endpoints.signing_profile
    return dispatch(stage.operator, rest, shipment, audience, profile=profile, pace=Pace()).job


def _image(stage: Stage, version: str) -> Path:
    path = stage.folder / f"{IMAGE_NAME}-{version}.zip"
    if not path.exists():
        path.write_bytes(build_image(IMAGE_NAME, version, HARDWARE_ID_DEFAULT))
    return path
