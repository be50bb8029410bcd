"""What docs/device.md tells firmware people is true."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.server.streams.model import largest_files

PAGE = Path(__file__).parents[2] / "docs" / "device.md"


def python_examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_largest_file_of_each_block_size_is_stated() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    assert [tuple(map(int, row)) for row in rows] == [
        (size.block_size_bytes, size.with_offset_bytes, size.whole_bitmap_bytes) for size in largest_files()
    ]


def test_each_setting_and_place_of_a_device_is_told() -> None:
    text = PAGE.read_text()
    for field in fields(DeviceSettings):
        assert f"`{field.name}`" in text, field.name
    root = Path("/")
    directory = DeviceDirectory(root)
    for path in (directory.device_file, directory.certificate_file, directory.private_key_file, directory.slot_file("a")):
        assert f"`{path.relative_to(root)}`" in text, path
    for folder in (directory.trust, directory.files, directory.run):
        assert f"`{folder.relative_to(root)}/" in text, folder


def test_the_contracts_example_runs_as_it_stands(tmp_path: Path) -> None:
    example = python_examples()[-1]
    done = subprocess.run(
        [sys.executable, "-I", "-c", example], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16 cases hold\n"
