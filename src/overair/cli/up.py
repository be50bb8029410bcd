"""``overair up``: the server, in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overair.basics.errors import InvalidRequest, OverairError
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.output import Json, print_json
from overair.cli.server_flags import (
    AccountFlag,
    BindFlag,
    ConfigFlag,
    DatabaseFlag,
    DataFlag,
    DevicePortFlag,
    DownloadUrlFlag,
    HostFlag,
    KeyPassphraseFileFlag,
    KeyServiceFlag,
    LimitsFlag,
    LogFlag,
    MqttPortFlag,
    OperatorPortFlag,
    Pkcs11ModuleFlag,
    Pkcs11PinFileFlag,
    PlainHttpFlag,
    PresignedV2Flag,
    RegionFlag,
    RetentionDaysFlag,
    ServerCaFileFlag,
    ServerCertificateFileFlag,
    ServerKeyFileFlag,
)

if TYPE_CHECKING:
    from overair.server.config import Settings
    from overair.server.nodes.model import Role

DRAIN_TIMEOUT_S = 8.0
"""How long requests in flight may take to finish after SIGTERM; the whole stop takes less than 10 s."""


def up(
    data: DataFlag = None,
    bind: BindFlag = None,
    host: HostFlag = None,
    operator_port: OperatorPortFlag = None,
    mqtt_port: MqttPortFlag = None,
    device_port: DevicePortFlag = None,
    plain_http: PlainHttpFlag = None,
    region: RegionFlag = None,
    account: AccountFlag = None,
    log: LogFlag = None,
    database: DatabaseFlag = None,
    key_passphrase_file: KeyPassphraseFileFlag = None,
    pkcs11_module: Pkcs11ModuleFlag = None,
    pkcs11_pin_file: Pkcs11PinFileFlag = None,
    key_service: KeyServiceFlag = None,
    presigned_v2: PresignedV2Flag = None,
    limits: LimitsFlag = None,
    download_url: DownloadUrlFlag = None,
    retention_days: RetentionDaysFlag = None,
    server_certificate_file: ServerCertificateFileFlag = None,
    server_key_file: ServerKeyFileFlag = None,
    server_ca_file: ServerCaFileFlag = None,
    config: ConfigFlag = None,
    json: Json = False,
) -> None:
    """Start the server. The first start makes the state directory and prints what to do next."""
    settings = read_settings(locals())
    run(settings, role=None, as_json=json)


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Settings out of a command's options: those that are settings by their names, and ``config``."""
    with _to_stay():
        from overair.server.config import Settings, load_settings

    flags = {name: given.get(name) for name in Settings.model_fields}
    for repeatable in ("host", "key_service"):
        flags[repeatable] = tuple(given[repeatable]) if given[repeatable] else None
    try:
        return load_settings(flags, file=given["config"])
    except InvalidRequest as error:
        raise CommandEnded(ExitCode.USAGE, error.message) from error


def run(settings: Settings, *, role: Role | None, as_json: bool) -> None:
    """Run a server, or one part of it, until SIGTERM or SIGINT."""
    with _to_stay():
        import uvloop

        from overair.basics.clock import WallClock
        from overair.basics.ids import RandomIds
        from overair.server.app import build_server
        from overair.server.logs import configure_logs

    configure_logs(settings.log)
    # Each device is an open file: take as many as the system lets us have.
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    # A thread that holds the interpreter for the default 5 ms would stall the event loop for as long (ADR 0004).
    sys.setswitchinterval(0.0005)

    async def serve() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        server = build_server(settings, clock=WallClock(), ids=RandomIds(), role=role)
        try:
            endpoints = await server.start()
            loop.add_signal_handler(signal.SIGHUP, server.reload_server_certificate)
            gc.freeze()  # what has been composed stays as well
            if as_json:
                print_json(endpoints)
            elif role is None:
                _print_welcome(settings.data, endpoints, first=server.is_first_start)
            else:
                _print_part(role, settings.data, endpoints)
            sys.stdout.flush()
            await stopping.wait()
        finally:
            await server.stop(drain_timeout_s=DRAIN_TIMEOUT_S)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except OverairError as error:
        raise CommandEnded(ExitCode.REFUSED, error.message) from error


@contextmanager
def _to_stay() -> Iterator[None]:
    """What is imported meanwhile is never looked through for garbage: that would be a quarter of a start, and of each stop."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _print_welcome(data: Path, endpoints: dict[str, object], *, first: bool) -> None:
    flag = "" if data == Path("overair-data") else f" --data {data}"
    print(f"Overair is up{' for the first time' if first else ''} on {data} (account {endpoints['account']}).")
    print(f"  operators  {endpoints['operator_url']}")
    if endpoints["plain_http_url"]:
        print(f"             {endpoints['plain_http_url']} (no TLS, loopback only)")
    print(f"  devices    mqtts://{endpoints['mqtt_host']}:{endpoints['mqtt_port']}   {endpoints['device_url']}")
    print("Next, in another shell:")
    print(f'  eval "$(overair env{flag})"              # boto3 and aws now speak to this server')
    print(f"  overair device enroll dev-1 --out dev-1{flag}")
    print(f"  overair ship IMAGE --to dev-1 --watch{flag}")


def _print_part(role: Role, data: Path, endpoints: dict[str, object]) -> None:
    print(f"Overair's {role.value} is up on {data} (account {endpoints['account']}).")
    if endpoints["operator_url"]:
        print(f"  operators  {endpoints['operator_url']}")
    if endpoints["device_url"]:
        print(f"  devices    mqtts://{endpoints['mqtt_host']}:{endpoints['mqtt_port']}   {endpoints['device_url']}")
