"""``overair demo``: the whole road in front of your eyes. A server, three devices, three images."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from overair.agent.device_directory import DeviceDirectory
from overair.agent.image_builder import build_image
from overair.agent.progress import read_progress
from overair.basics.clock import WallClock, as_datetime
from overair.cli.demo_picture import Outcome, Round, bars, print_table
from overair.cli.device import HARDWARE_ID_DEFAULT, enroll_device
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import Operator, operator_of, told_plainly
from overair.cli.output import Json, print_json
from overair.cli.parcel import read_parcel
from overair.cli.ship import send, wait_until_created
from overair.cli.watch import TERMINAL, Follow, executions

DEVICES = ("kitchen", "attic", "garage")
GROUP = "demo"
IMAGE_NAME = "demo"
PAYLOAD_SIZE_BYTES = 4_000_000
START_TIMEOUT_S = 30.0
ROUND_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 10.0
REDRAW_INTERVAL_S = 0.1
OWN_SIGNER = "demo-signer.pem"
"""The demo's own trust anchor: it signs the image that is then tampered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is running."""

    operator: Operator
    folder: Path
    devices: dict[str, DeviceDirectory]
    console: Console

    @property
    def target(self) -> str:
        endpoints = self.operator.endpoints
        return f"arn:aws:iot:{endpoints.region}:{endpoints.account}:thinggroup/{GROUP}"


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the demo's directory when it ends.")] = False,
    json: Json = False,
) -> None:
    """Start a server and three devices; ship a good image, one tampered with, and one that crashes."""
    console = Console(stderr=json, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="overair-demo-"))
    try:
        with told_plainly(), ExitStack() as stack:
            stage = _set_up(stack, folder, console)
            rounds = [_good(stage), _tampered(stage), _crashing(stage)]
        for each in rounds:
            print_table(console, each)
    finally:
        if keep:
            console.print(f"The demo's directory is {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if json:
        print_json({"rounds": [{"name": each.name, "devices": [_members(one) for one in each.outcomes]} for each in rounds]})
    wrong = [each.name for each in rounds if not each.went_as_promised]
    if wrong:
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"The demo did not go as promised: {', '.join(wrong)}.")
    console.print("\nEvery device took the good image, refused the tampered one, and went back from the one that crashed.")


def _members(outcome: Outcome) -> dict[str, Any]:
    members = asdict(outcome)
    return {"from" if key == "from_version" else "to" if key == "to_version" else key: value for key, value in members.items()}


# Set-up ---------------------------------------------------------------------------------------------------------------


def _set_up(stack: ExitStack, folder: Path, console: Console) -> Stage:
    began = time.monotonic()
    operator = stack.enter_context(_server(folder))
    console.print(f"Server up at {operator.endpoints.operator_url} in {time.monotonic() - began:.1f} s.")
    first = folder / "demo-1.0.0.zip"
    first.write_bytes(build_image(IMAGE_NAME, "1.0.0", HARDWARE_ID_DEFAULT))
    devices = {}
    for name in DEVICES:
        enroll_device(operator, name, folder / name, group=GROUP)
        _run_to_end("flash", str(folder / name), str(first))
        stack.enter_context(_booted(folder / name))
        devices[name] = DeviceDirectory(folder / name)
    console.print(f"{len(DEVICES)} devices enrolled, flashed with 1.0.0 and booted, each its own process.")
    return Stage(operator=operator, folder=folder, devices=devices, console=console)


@contextmanager
def _server(folder: Path) -> Iterator[Operator]:
    data = folder / "server"
    ports = [flag for port in ("operator", "mqtt", "device") for flag in (f"--{port}-port", "0")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "overair.cli.main", "up", "--json", "--data", str(data), *ports],
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        )
    try:
        _await_endpoints(process, folder / "server.log")
        yield operator_of(data)
    finally:
        _stop(process)


def _await_endpoints(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    # The document ends with a closing brace at the start of a line; the server prints it once every port accepts.
    for line in process.stdout:
        if line.rstrip() == b"}":
            return
    raise CommandEnded(ExitCode.REFUSED, f"The server did not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def _booted(directory: Path) -> Iterator[None]:
    log: IO[bytes] = (directory / "boot.log").open("wb")
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "overair.cli.device_main", "boot", "--device", str(directory)],
            stdout=log,
            stderr=log,
            env=_environment(),
        )
    try:
        yield
    finally:
        _stop(process)


def _run_to_end(*arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "overair.cli.device_main", *arguments],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
        env=_environment(),
    )
    if ended.returncode:
        raise CommandEnded(ExitCode.REFUSED, ended.stderr.strip())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OVERAIR_"))}


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The three rounds -----------------------------------------------------------------------------------------------------


def _good(stage: Stage) -> Round:
    image = _image(stage, "2.0.0")
    update = send(
        stage.operator,
        read_parcel(image, version="2.0.0", stored_as=None),
        targets=[stage.target],
        profile=stage.operator.endpoints.signing_profile,
    )
    return _follow(stage, update, "2.0.0, signed", expected_status="SUCCEEDED", expected_version="2.0.0")


def _tampered(stage: Stage) -> Round:
    image = _image(stage, "2.1.0")
    signature = _sign_with_own_signer(stage, image.read_bytes())
    changed = bytearray(image.read_bytes())
    changed[len(changed) // 2] ^= 0x01
    uploaded = stage.operator.client("s3").put_object(
        Bucket=stage.operator.endpoints.bucket, Key="images/tampered.zip", Body=bytes(changed)
    )
    update = "demo-tampered"
    stage.operator.client("iot").create_ota_update(
        otaUpdateId=update,
        targets=[stage.target],
        roleArn=stage.operator.endpoints.ota_role_arn,
        files=[
            {
                "fileName": "demo.zip",
                "fileVersion": "2.1.0",
                "fileLocation": {
                    "s3Location": {
                        "bucket": stage.operator.endpoints.bucket,
                        "key": "images/tampered.zip",
                        "version": uploaded["VersionId"],
                    }
                },
                "codeSigning": {
                    "customCodeSigning": {
                        "signature": {"inlineDocument": signature},
                        # No certificate inline: the server would check it and refuse. The devices have it in their trust.
                        "certificateChain": {"certificateName": OWN_SIGNER},
                        "hashAlgorithm": "SHA256",
                        "signatureAlgorithm": "ECDSA",
                    }
                },
            }
        ],
    )
    return _follow(stage, update, "2.1.0, one bit flipped", expected_status="FAILED", expected_version="2.0.0")


def _crashing(stage: Stage) -> Round:
    image = _image(stage, "3.0.0", crashes=True)
    update = send(
        stage.operator,
        read_parcel(image, version="3.0.0", stored_as=None),
        targets=[stage.target],
        profile=stage.operator.endpoints.signing_profile,
    )
    return _follow(stage, update, "3.0.0, crashes in its self-test", expected_status="FAILED", expected_version="2.0.0")


def _image(stage: Stage, version: str, *, crashes: bool = False) -> Path:
    path = stage.folder / f"demo-{version}.zip"
    payload = os.urandom(PAYLOAD_SIZE_BYTES)
    path.write_bytes(
        build_image(IMAGE_NAME, version, HARDWARE_ID_DEFAULT, self_test="crash" if crashes else "pass", payload=payload)
    )
    return path


def _sign_with_own_signer(stage: Stage, image: bytes) -> bytes:
    """Sign as an operator with a key of their own would; each device gets the certificate as an anchor."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Demo signer")])
    now = as_datetime(WallClock().now())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(_digital_signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(key, hashes.SHA256())
    )
    for device in stage.devices.values():
        device.anchor_file(OWN_SIGNER).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key.sign(image, ec.ECDSA(hashes.SHA256()))


def _digital_signature_only() -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


# What is shown --------------------------------------------------------------------------------------------------------


def _follow(stage: Stage, update: str, name: str, *, expected_status: str, expected_version: str) -> Round:
    stage.console.print(f"\n[bold]{name}[/bold]")
    before = {device: _running_version(directory) for device, directory in stage.devices.items()}
    job = wait_until_created(stage.operator, update)
    began = time.monotonic()
    ended: dict[str, float] = {}
    blocks: dict[str, int] = {}
    followed: list[Follow] = []
    asked_at = 0.0
    with Live(console=stage.console, auto_refresh=False, transient=False) as live:
        while len(ended) < len(stage.devices):
            elapsed = time.monotonic() - began
            if elapsed > ROUND_TIMEOUT_S:
                raise CommandEnded(ExitCode.TIMED_OUT, f"{name}: not done after {ROUND_TIMEOUT_S:g} s.\n{_last_words(stage)}")
            if elapsed - asked_at >= 5 * REDRAW_INTERVAL_S:
                asked_at = elapsed
                followed = executions(stage.operator, job)
                for each in followed:
                    if each.status in TERMINAL:
                        ended.setdefault(each.thing, elapsed)
            progress = {device: read_progress(directory.run / "progress.json") for device, directory in stage.devices.items()}
            for device, moment in progress.items():
                if moment is not None and moment.last_job == job:
                    blocks[device] = moment.last_received_blocks
            live.update(bars(followed, progress, job, ended, elapsed), refresh=True)
            time.sleep(REDRAW_INTERVAL_S)  # the pace of the picture
    settled = {device: _settled_version(directory, expected_version) for device, directory in stage.devices.items()}
    outcomes = tuple(
        Outcome(
            device=each.thing,
            from_version=before[each.thing],
            to_version=settled[each.thing],
            blocks=blocks.get(each.thing, 0),
            seconds=round(ended[each.thing], 1),
            status=each.status,
            reason=each.what,
        )
        for each in followed
    )
    return Round(name=name, expected_status=expected_status, expected_version=expected_version, outcomes=outcomes)


def _running_version(directory: DeviceDirectory) -> str:
    progress = read_progress(directory.run / "progress.json")
    return progress.version if progress else "1.0.0"


def _settled_version(directory: DeviceDirectory, expected: str) -> str:
    """What the running image says it is; after a roll-back its process needs a moment to be back."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (version := _running_version(directory)) != expected and time.monotonic() < deadline:
        time.sleep(REDRAW_INTERVAL_S)
    return version


def _last_words(stage: Stage) -> str:
    logs = [stage.folder / "server.log", *(device.root / "boot.log" for device in stage.devices.values())]
    return "\n".join(f"--- {log.name} of {log.parent.name}\n{log.read_text(errors='replace')[-800:]}" for log in logs)
