"""``overair up``: the server, in the foreground, until it is told to stop."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overair.basics.errors import InvalidRequest, OverairError
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.output import Json, print_json

if TYPE_CHECKING:
    from overair.server.config import Settings
    from overair.server.nodes.model import Role

DRAIN_TIMEOUT_S = 8.0
"""How long requests in flight may take to finish after SIGTERM; the whole stop takes less than 10 s."""


def up(
    data: Annotated[Path | None, typer.Option(help="State directory; made on first start. [default: ./overair-data]")] = None,
    bind: Annotated[str | None, typer.Option(help="Address of every TLS port. [default: 127.0.0.1]")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Name or address in the server certificate; repeatable.")] = None,
    operator_port: Annotated[int | None, typer.Option(help="HTTPS for operators; 0: a free port. [default: 9443]")] = None,
    mqtt_port: Annotated[int | None, typer.Option(help="MQTT for devices; 0: a free port. [default: 8883]")] = None,
    device_port: Annotated[int | None, typer.Option(help="HTTPS for devices; 0: a free port. [default: 8443]")] = None,
    plain_http: Annotated[int | None, typer.Option(help="Operator port without TLS, loopback only; 0: a free port.")] = None,
    region: Annotated[str | None, typer.Option(help="Region in ARNs; fixed at first start. [default: us-east-1]")] = None,
    account: Annotated[str | None, typer.Option(help="Twelve digits; fixed at first start. [default: random]")] = None,
    log: Annotated[str | None, typer.Option(help="text or json. [default: text]")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql:// URL in place of SQLite.")] = None,
    key_passphrase_file: Annotated[Path | None, typer.Option(help="Wraps the private keys at rest.")] = None,
    presigned_v2: Annotated[
        bool | None, typer.Option("--presigned-v2/--no-presigned-v2", help="SigV2 in presigned S3 URLs. [default: accepted]")
    ] = None,
    limits: Annotated[str | None, typer.Option(help="generous or aws. [default: generous]")] = None,
    download_url: Annotated[str | None, typer.Option(help="The device port as devices see it, behind a balancer.")] = None,
    retention_days: Annotated[int | None, typer.Option(help="Days that ended jobs stay; 0: for ever. [default: 730]")] = None,
    config: Annotated[Path | None, typer.Option(envvar="OVERAIR_CONFIG", help="A TOML file with settings.")] = None,
    json: Json = False,
) -> None:
    """Start the server. The first start makes the state directory and prints what to do next."""
    settings = read_settings(locals())
    run(settings, role=None, as_json=json)


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Settings out of a command's options: those that are settings by their names, and ``config``."""
    from overair.server.config import Settings, load_settings

    flags = {name: given.get(name) for name in Settings.model_fields}
    flags["host"] = tuple(given["host"]) if given["host"] else None
    try:
        return load_settings(flags, file=given["config"])
    except InvalidRequest as error:
        raise CommandEnded(ExitCode.USAGE, error.message) from error


def run(settings: Settings, *, role: Role | None, as_json: bool) -> None:
    """Run a server, or one part of it, until SIGTERM or SIGINT."""
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
