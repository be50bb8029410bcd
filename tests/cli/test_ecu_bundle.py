"""Bundles by file, rates and shares of failures: what can't be understood ends with 1 and the member that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.agent.image_builder import build_image
from overair.cli.ecu_bundle import parts_of, read_bundle
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.pace import read_pace
from overair.cli.parcel import read_parcel


def bundle(folder: Path, text: str, name: str = "bundle.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_parts_say_what_the_image_says_unless_the_bundle_does(tmp_path: Path) -> None:
    (tmp_path / "app.zip").write_bytes(build_image("app", "2.1.0", "posix"))
    (tmp_path / "door.bin").write_bytes(b"door")
    read = read_bundle(
        bundle(
            tmp_path,
            '[hardware.gw]\nimage = "app.zip"\n'
            '[hardware.door]\nimage = "door.bin"\nversion = "3"\nfrom = "door-2"\n'
            '[hardware."rear door"]\ntarget = "door-3"\n',
        )
    )
    assert [(part.hardware_id, part.target, part.version, part.only_from) for part in read] == [
        ("gw", "app-2.1.0", "2.1.0", None),
        ("door", "door-3", "3", "door-2"),
        ("rear door", "door-3", "", None),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[hardware]\n", "names no hardware id"),
        ("hardware = 3\n", "names no hardware id"),
        ("[ecus.gw]\ntarget = 'a'\n", "ecus is not known"),
        ("[hardware]\ngw = 'a'\n", "hardware.gw is no table"),
        ("[hardware.gw]\ntarget = 'a'\nsize = 'b'\n", "hardware.gw.size is not known"),
        ("[hardware.gw]\ntarget = 3\n", "hardware.gw.target is a string"),
        ("[hardware.gw]\nname = 'a'\n", "either image"),
        ("[hardware.gw]\ntarget = 'a'\nimage = 'b'\n", "either image"),
        ("[hardware.gw]\nimage = 'nowhere.bin'\n", "can't be read"),
        ("[hardware.gw]\nimage = 'some.bin'\n", "doesn't say its version: name it with hardware.gw.version"),
        ("[hardware.gw]\nimage = 'some.bin'\nversion = '1/2'\n", "can be no part of a target's name"),
        ("[hardware.gw\n", "is not TOML"),
        (
            "[hardware.gw]\nimage = 'some.bin'\nname='x'\nversion = '1'\n"
            "[hardware.door]\nimage = 'other.bin'\nname='x'\nversion = '1'\n",
            "x-1 stands twice with different files",
        ),
    ],
)
def test_a_bundle_that_is_wrong_is_a_usage_error_with_its_member(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "some.bin").write_bytes(b"some")
    (tmp_path / "other.bin").write_bytes(b"other")
    with pytest.raises(CommandEnded, match=expected.replace(".", r"\.")) as ended:
        read_bundle(bundle(tmp_path, text))
    assert ended.value.code == ExitCode.USAGE


def test_a_bundle_may_be_json_and_no_end_of_depth_or_size_breaks_it(tmp_path: Path) -> None:
    (part,) = read_bundle(bundle(tmp_path, '{"hardware": {"gw": {"target": "a"}}}', "bundle.json"))
    assert part.target == "a"
    for text in ("[" * 100_000, '"' + "a" * (1024 * 1024) + '"', "[1]", "{"):
        with pytest.raises(CommandEnded) as ended:
            read_bundle(bundle(tmp_path, text, "bundle.json"))
        assert ended.value.code == ExitCode.USAGE


def test_a_file_that_says_no_version_is_named_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "door.bin").write_bytes(b"door")
    parcel = read_parcel(tmp_path / "door.bin", version="3", stored_as=None)
    (part,) = parts_of(parcel, ["door", "door"], name=None, version="3")
    assert (part.target, part.name, part.version) == ("door-3", "door", "3")


def test_rates_and_shares_are_read_and_anything_else_is_refused() -> None:
    pace = read_pace("50/min", "20%/10")
    assert pace.rollout == {"maximumPerMinute": 50}
    (criterion,) = pace.abort or ()
    assert (criterion["thresholdPercentage"], criterion["minNumberOfExecutedThings"]) == (20, 10)
    assert read_pace(None, None).rollout is None
    assert read_pace(None, None).abort is None
    for rate, share in (
        ("0/min", None),
        ("1001/min", None),
        ("5/s", None),
        ("5", None),
        (None, "0%"),
        (None, "101%"),
        (None, "5"),
        (None, "5%/0"),
    ):
        with pytest.raises(CommandEnded) as ended:
            read_pace(rate, share)
        assert ended.value.code == ExitCode.USAGE
