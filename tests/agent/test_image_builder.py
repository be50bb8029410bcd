from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from overair.agent.image_builder import build_image
from overair.wire.image import ImageVersion, read_manifest


def test_equal_arguments_give_equal_bytes_and_other_versions_other_bytes() -> None:
    assert build_image("demo", "1.0.0", "hw") == build_image("demo", "1.0.0", "hw")
    assert build_image("demo", "1.0.0", "hw") != build_image("demo", "1.0.1", "hw")


def test_an_image_says_what_it_is() -> None:
    manifest = read_manifest(io.BytesIO(build_image("demo", "1.2.3", "hw", allow_downgrade=True)))
    assert (manifest.version, manifest.allow_downgrade, manifest.name) == (ImageVersion.parse("1.2.3"), True, "demo")


def test_an_image_brings_its_own_agent_library_and_nothing_of_the_server(tmp_path: Path) -> None:
    data = build_image("demo", "1.0.0", "hw")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    assert "overair/agent/agent.py" in names
    assert not [name for name in names if name.startswith(("overair/server/", "overair/cli/"))]
    image = tmp_path / "image.zip"
    image.write_bytes(data)
    probe = "import sys; sys.path.insert(0, sys.argv[1]); import overair.agent.image_main as m; print(m.__file__)"
    shown = subprocess.run([sys.executable, "-I", "-c", probe, str(image)], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"{image}/overair/agent/image_main.py"
