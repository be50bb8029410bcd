"""``overair``: the operator's command line."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

import typer

from overair.basics.errors import OverairError
from overair.cli.ends import CommandEnded, ExitCode

COMMANDS: Final = {
    "up": ("up", "up"),
    "serve": ("serve", "serve"),
    "env": ("environment", "env"),
    "status": ("status", "status"),
    "ship": ("ship", "ship"),
    "resume": ("canary", "resume"),
    "watch": ("watch", "watch"),
    "why": ("why", "why"),
    "devices": ("devices", "devices"),
    "retry": ("retry", "retry"),
    "resend": ("resend", "resend"),
    "cancel": ("cancel", "cancel"),
    "backup": ("backup", "backup"),
    "restore": ("backup", "restore"),
    "demo": ("demo", "demo"),
}
"""Where each command lies: its module in this room, and the function there."""

GROUPS: Final = {
    "jobs": "jobs",
    "executions": "executions",
    "account": "account",
    "audit": "audit",
    "device": "device",
    "credentials": "credentials",
    "fleet-ca": "fleet_ca",
    "renewal": "renewal",
    "server-ca": "server_ca",
    "keys": "keys",
    "sign": "sign",
    "encrypt": "encrypt",
    "migrate": "migrate",
}
"""Where each group of commands lies: a module with its ``app``."""


def application(alone: str | None = None) -> typer.Typer:
    """The command line, whole or with one command ``alone``: what all the others import takes longer than most of them run."""
    made = typer.Typer(
        name="overair",
        help="Firmware updates for AWS IoT / FreeRTOS and Uptane devices, self-hosted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    made.callback()(lambda: None)  # with one command alone the library would leave out its name
    for name, (module, function) in COMMANDS.items():
        if alone in (None, name):
            made.command(name)(getattr(import_module(f"overair.cli.{module}"), function))
    for name, module in GROUPS.items():
        if alone in (None, name):
            made.add_typer(import_module(f"overair.cli.{module}").app, name=name)
    return made


def __getattr__(name: str) -> typer.Typer:
    """``app``, the whole command line, made when somebody asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return application()


def main() -> None:
    """Run one command and end with its code (``cli.ends.ExitCode``)."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    app = application(first if first in COMMANDS or first in GROUPS else None)
    gc.freeze()  # what has been imported stays until the end
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
