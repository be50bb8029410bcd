"""What a device loads: the base install and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

BASE = {"cbor2", "cryptography", "msgspec", "paho", "urllib3"}
THEIR_OWN = {
    "_cbor2",
    "_cffi_backend",
    "_openssl",
    "brotli",
    "brotlicffi",
    "cffi",
    "dns",
    "socks",
    "typing_extensions",
    "zstandard",
}
"""What those bring along, or use where it happens to be installed."""


def test_the_device_side_loads_the_base_install_only() -> None:
    program = (
        "import json, sys; before = set(sys.modules); import overair.cli.device_main, overair.agent.image_main; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(shown.stdout)
    roots = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert roots - BASE - THEIR_OWN == {"overair"}
    assert not [name for name in loaded if name.startswith(("overair.server", "overair.simulation"))]
