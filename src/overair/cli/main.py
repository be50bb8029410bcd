"""``overair``: the operator's command line."""

from __future__ import annotations

import sys

import typer

from overair.basics.errors import OverairError
from overair.cli import (
    canary,
    cancel,
    credentials,
    demo,
    device,
    environment,
    executions,
    fleet_ca,
    jobs,
    migrate,
    resend,
    retry,
    serve,
    ship,
    sign,
    status,
    up,
    watch,
    why,
)
from overair.cli.ends import CommandEnded, ExitCode

app = typer.Typer(
    name="overair",
    help="Firmware updates for AWS IoT / FreeRTOS and Uptane devices, self-hosted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(up.up)
app.command()(serve.serve)
app.command()(environment.env)
app.command()(status.status)
app.command()(ship.ship)
app.command()(canary.resume)
app.command()(watch.watch)
app.command()(why.why)
app.command()(retry.retry)
app.command()(resend.resend)
app.command()(cancel.cancel)
app.command()(demo.demo)
app.add_typer(jobs.app, name="jobs")
app.add_typer(executions.app, name="executions")
app.add_typer(device.app, name="device")
app.add_typer(credentials.app, name="credentials")
app.add_typer(fleet_ca.app, name="fleet-ca")
app.add_typer(sign.app, name="sign")
app.add_typer(migrate.app, name="migrate")


def main() -> None:
    """Run one command and end with its code (``cli.ends.ExitCode``)."""
    try:
        app(standalone_mode=True)
    except CommandEnded as end:
        if end.message:
            print(f"overair: {end.message}", file=sys.stderr)
        sys.exit(end.code)
    except OverairError as error:
        print(f"overair: {error.message}", file=sys.stderr)
        sys.exit(ExitCode.REFUSED)
    except SystemExit as end:
        # The library ends a misused command with 2, which is our code for a refusal.
        sys.exit(ExitCode.USAGE if end.code == 2 else end.code)


if __name__ == "__main__":
    main()
