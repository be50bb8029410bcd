"""What a Uptane device loads, and how much it holds while it waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.agent.test_lightness import BASE, THEIR_OWN
from tests.support.uptane_server import UptaneServer
from tests.support.uptane_vehicle import Vehicle, issuer

IDLE_MIB_MAX = 56
"""Of a Primary with two Secondaries inside that has been through a round; 44 were measured."""

LOADED = "import json, sys; before = set(sys.modules); import {}; print(json.dumps(sorted(set(sys.modules) - before)))"
EVERYTHING = (
    "overair.agent.uptane.device, overair.agent.uptane.status, overair.agent.uptane.tuf_client, "
    "overair.agent.uptane.secondary_directory, overair.cli.device_main, overair.cli.device_uptane, overair.cli.device_tuf"
)
IDLE = """
import sys
from pathlib import Path
from overair.agent.device_directory import DeviceDirectory, read_settings
from overair.agent.uptane.device import UptaneDevice

class Application:
    def self_test(self):
        return True

def heard(outcome):
    (resident,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")]
    print(outcome.kind.value, resident, flush=True)
    device.stop()

directory = DeviceDirectory(Path(sys.argv[1]))
device = UptaneDevice(
    directory, read_settings(directory), platform=None, application=Application(), version="1", heard=heard
)
device.run()
"""


def loaded_by(modules: str) -> list[str]:
    shown = subprocess.run([sys.executable, "-c", LOADED.format(modules)], capture_output=True, text=True, check=True)
    return list(json.loads(shown.stdout))


def test_the_uptane_client_loads_the_base_install_only() -> None:
    loaded = loaded_by(EVERYTHING)
    roots = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert roots - BASE - THEIR_OWN == {"overair"}
    assert not [name for name in loaded if name.startswith(("overair.server", "overair.simulation"))]
    assert "paho" not in roots, "a Uptane device has no broker"


def test_the_boot_loader_loads_neither_metadata_nor_http() -> None:
    loaded = loaded_by("overair.cli.device_main")
    assert not [name for name in loaded if name.startswith(("urllib3", "paho", "overair.wire.uptane"))]


def test_a_primary_at_rest_stays_small(tmp_path: Path) -> None:
    server = UptaneServer(tmp_path / "server", issuer=issuer())
    secondaries = [{"virtual": name, "hardware_id": "hw", "ecu_serial": name} for name in ("one", "two")]
    vehicle = Vehicle(tmp_path, server=server, secondaries=secondaries)
    shown = subprocess.run(
        [sys.executable, "-c", IDLE, str(vehicle.root)], capture_output=True, text=True, check=True, timeout=60
    )
    outcome, resident_kib = shown.stdout.split()
    assert outcome == "nothing-new"
    assert int(resident_kib) < IDLE_MIB_MAX * 1024
    server.close()
