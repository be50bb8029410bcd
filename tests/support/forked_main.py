"""A process that has imported the server and forks one whenever it is told to, one at a time: ``forked_main.py DATA LOG``.

For each line on standard input there is a new ``overair up`` on free ports. On standard output: ``pid PID``, what
``overair up --json`` prints, and ``ended STATUS`` once the child has ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvloop

from overair.cli import up
from overair.server import app, config, logs

IMPORTED = (app, config, logs, uvloop)
"""What a server would import by itself as it starts."""


def serve(data: Path, log: Path) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    ports = {f"{door}_port": 0 for door in ("operator", "mqtt", "device")}
    settings = up.read_settings({"data": data, "host": None, "config": None, **ports})
    print(f"pid {os.getpid()}", flush=True)
    up.run(settings, role=None, as_json=True)


def main() -> None:
    data, log = (Path(argument) for argument in sys.argv[1:])
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            serve(data, log)
            return
        _, status = os.waitpid(child, 0)
        # Behind whatever the child was saying when it ended.
        print(f"\nended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
