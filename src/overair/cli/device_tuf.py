"""``overair-device tuf``: a client of any TUF repository, with the commands that TUF's conformance suite calls."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overair.agent.uptane.https import HttpClient

DONE, FAILED = 0, 1
"""Of these commands alone: the suite knows no other codes."""


def add_to(commands: Any) -> None:
    """The parser of ``tuf``; whatever it needs is loaded when it runs."""
    tuf = commands.add_parser(
        "tuf",
        help="fetch from a TUF repository: init, refresh, download",
        description="A client of a TUF repository. Ends with 0 where everything was verified, and with 1 otherwise.",
    )
    tuf.add_argument("--metadata-dir", type=Path, required=True, metavar="DIR", help="where trusted metadata lie")
    tuf.add_argument("--metadata-url", metavar="URL", help="the repository's metadata")
    tuf.add_argument("--target-name", action="append", default=[], metavar="NAME", help="what to download; may be repeated")
    tuf.add_argument("--target-base-url", metavar="URL", help="the repository's targets")
    tuf.add_argument("--target-dir", type=Path, metavar="DIR", help="where downloaded files go")
    tuf.add_argument("--ca", type=Path, metavar="FILE", help="whom to trust for https [the system's authorities]")
    tuf.add_argument("--certificate", type=Path, metavar="FILE", help="a client certificate, for servers that want one")
    tuf.add_argument("--private-key", type=Path, metavar="FILE", help="its key")
    tuf.add_argument("--json", action="store_true", help="{metadata: {role: version}, files: {target: path}} or {error}")
    actions = tuf.add_subparsers(required=True, metavar="ACTION")
    init = actions.add_parser("init", help="trust a root that came some other way")
    init.add_argument("trusted_root", type=Path, metavar="TRUSTED_ROOT")
    init.set_defaults(action=_init)
    actions.add_parser("refresh", help="bring the metadata up to date").set_defaults(action=_refresh)
    actions.add_parser("download", help="bring the metadata up to date, then fetch targets").set_defaults(action=_download)
    tuf.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from overair.agent.uptane.https import TransportFailed
    from overair.agent.uptane.refresh import DocumentMissing
    from overair.agent.uptane.tuf_client import NotInitialised
    from overair.wire.uptane.refusals import MetadataRefused

    try:
        files: dict[str, str] = options.action(options)
    except (MetadataRefused, TransportFailed, DocumentMissing, NotInitialised, OSError) as error:
        return _failed(options, f"{error.reason}: {error.message}" if isinstance(error, MetadataRefused) else str(error))
    if options.json:
        print(json.dumps({"metadata": _versions(options.metadata_dir), "files": files}))
    else:
        for name, path in files.items():
            print(f"{name}: {path}")
    return DONE


def _failed(options: argparse.Namespace, message: str) -> int:
    if options.json:
        print(json.dumps({"error": message}))
    print(f"overair-device: {message}", file=sys.stderr)
    return FAILED


def _init(options: argparse.Namespace) -> dict[str, str]:
    from overair.agent.durable import Disk
    from overair.agent.uptane.tuf_client import begin
    from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX

    with options.trusted_root.open("rb") as file:
        begin(options.metadata_dir, file.read(ROOT_SIZE_BYTES_MAX + 1), Disk())
    return {}


def _refresh(options: argparse.Namespace) -> dict[str, str]:
    return _fetch(options, [])


def _download(options: argparse.Namespace) -> dict[str, str]:
    from overair.agent.uptane.tuf_client import NotInitialised

    if not options.target_name or options.target_dir is None or options.target_base_url is None:
        raise NotInitialised("download needs --target-name, --target-base-url and --target-dir.")
    return _fetch(options, options.target_name)


def _fetch(options: argparse.Namespace, names: list[str]) -> dict[str, str]:
    from overair.agent.durable import Disk
    from overair.agent.uptane.tuf_client import NotInitialised, TufClient
    from overair.basics.clock import WallClock

    if options.metadata_url is None:
        raise NotInitialised("refresh and download need --metadata-url.")
    client = TufClient(options.metadata_dir, _client(options), options.metadata_url, disk=Disk(), now=WallClock().now)
    client.refresh()
    return {
        name: str(client.download(client.find(name), base_url=options.target_base_url, folder=options.target_dir))
        for name in names
    }


def _client(options: argparse.Namespace) -> HttpClient:
    import time
    from random import SystemRandom

    from overair.agent.tls import tls_context
    from overair.agent.uptane.https import HttpClient

    context = tls_context(options.ca, certificate_file=options.certificate, private_key_file=options.private_key)

    def pause(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    return HttpClient(
        gateway=options.metadata_url,
        context=context,
        foreign_context=context,
        pause=pause,
        chance=SystemRandom(),
        monotonic=time.monotonic,
        plain_http=True,
    )


def _versions(folder: Path) -> dict[str, int]:
    from urllib.parse import unquote

    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        found[unquote(path.name).removesuffix(".json")] = json.loads(path.read_bytes())["signed"]["version"]
    return found
