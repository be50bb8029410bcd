"""Builds images for the posix platform: deterministic zips with the agent library inside. For demos, tests and examples."""

from __future__ import annotations

import io
import json
import zipfile
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, Literal

SelfTest = Literal["pass", "fail", "crash", "hang"]

_LIBRARY: Final = ("basics", "wire", "agent")
_SELF_TESTS: Final[dict[str, str]] = {
    "pass": "    return True\n",
    "fail": "    return False\n",
    "crash": "    import os\n    os.abort()\n",
    "hang": "    import threading\n    threading.Event().wait()\n    return True\n",
}
_MAIN: Final = '''"""{name} {version}"""

import sys

from overair.agent.image_main import main


def self_test() -> bool:
{self_test}

if __name__ == "__main__":
    sys.exit(main(self_test))
'''
_TIME: Final = (1980, 1, 1, 0, 0, 0)


def build_image(
    name: str,
    version: str,
    hardware_id: str,
    *,
    self_test: SelfTest = "pass",
    allow_downgrade: bool = False,
    payload: bytes = b"",
) -> bytes:
    """An image whose application is the agent alone. Equal arguments and an equal library give equal bytes.

    ``self_test`` chooses what its self-test does; ``payload`` is stored uncompressed, to give an image weight.
    """
    manifest = {"name": name, "version": version, "hardware_id": hardware_id, "allow_downgrade": allow_downgrade}
    files = {
        "image.json": json.dumps(manifest | {"entry": "__main__.py"}, indent=1).encode() + b"\n",
        "__main__.py": _MAIN.format(name=name, version=version, self_test=_SELF_TESTS[self_test]).encode(),
        **library_files(),
    }
    if payload:
        files["payload.bin"] = payload
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, date_time=_TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if path == "payload.bin" else zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path])
    return stream.getvalue()


def library_files() -> dict[str, bytes]:
    """The sources of the device side, by their path inside an image: what ``import overair.agent`` needs there."""
    package = resources.files("overair")
    found = {"overair/__init__.py": (package / "__init__.py").read_bytes()}
    for folder in _LIBRARY:
        _collect(package / folder, f"overair/{folder}", found)
    return found


def _collect(folder: Traversable, path: str, found: dict[str, bytes]) -> None:
    for item in folder.iterdir():
        if item.is_dir() and item.name != "__pycache__":
            _collect(item, f"{path}/{item.name}", found)
        elif item.name.endswith(".py"):
            found[f"{path}/{item.name}"] = item.read_bytes()
