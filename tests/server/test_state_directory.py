"""The state directory: made once, held by one, refused when it isn't ours."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from overair.basics.ids import AccountId
from overair.server.state_directory import FORMAT, Marker, StateDirectory, StateDirectoryRefused, write_file

MARKER = Marker(format=FORMAT, account=AccountId("123456789012"), region="us-east-1")


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state")


def test_the_first_start_makes_the_folder_for_its_owner_alone(directory: StateDirectory) -> None:
    assert directory.open() is None
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_a_later_start_finds_the_marker(directory: StateDirectory) -> None:
    directory.open()
    directory.write_marker(MARKER)
    directory.close()
    assert StateDirectory(directory.path).open() == MARKER


def test_a_second_server_on_the_folder_is_refused(directory: StateDirectory) -> None:
    directory.open()
    directory.write_marker(MARKER)
    with pytest.raises(StateDirectoryRefused, match="Another server runs"):
        StateDirectory(directory.path).open()


def test_a_folder_with_files_of_others_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StateDirectoryRefused, match="isn't a state directory"):
        StateDirectory(tmp_path).open()
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("name", ["records.sqlite3", "wrapping.key"])
def test_a_servers_folder_that_lost_its_marker_is_refused_and_nothing_is_cleared(directory: StateDirectory, name: str) -> None:
    directory.open()
    directory.write_marker(MARKER)
    (directory.path / name).write_bytes(b"precious")
    directory.close()
    directory.marker_file.unlink()
    with pytest.raises(StateDirectoryRefused, match=r"overair\.json is gone. Nothing was touched"):
        StateDirectory(directory.path).open()
    assert (directory.path / name).read_bytes() == b"precious"


def test_a_first_start_that_was_cut_begins_again(directory: StateDirectory) -> None:
    directory.open()
    directory.records_file.write_bytes(b"half")
    directory.wrapping_key_file.write_bytes(b"half")
    directory.close()
    again = StateDirectory(directory.path)
    assert again.open() is None
    assert not again.records_file.exists()
    assert not again.wrapping_key_file.exists()
    again.write_marker(MARKER)
    again.close()
    assert StateDirectory(directory.path).open() == MARKER


def test_a_first_start_cut_right_after_its_marker_is_done(directory: StateDirectory) -> None:
    directory.open()
    mark = (directory.path / "first-start").read_bytes()
    directory.write_marker(MARKER)
    (directory.path / "first-start").write_bytes(mark)
    directory.records_file.write_bytes(b"whole")
    directory.close()
    assert StateDirectory(directory.path).open() == MARKER
    assert directory.records_file.read_bytes() == b"whole"
    assert not (directory.path / "first-start").exists()


def test_a_folder_that_was_open_to_others_is_closed_to_them(directory: StateDirectory) -> None:
    directory.path.mkdir(mode=0o755)
    directory.path.chmod(0o755)
    directory.open()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_a_folder_of_a_newer_version_is_refused(directory: StateDirectory) -> None:
    directory.open()
    directory.write_marker(Marker(format=FORMAT + 1, account=MARKER.account, region="us-east-1"))
    directory.close()
    with pytest.raises(StateDirectoryRefused, match="newer Overair"):
        StateDirectory(directory.path).open()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b'{"format": 1}'])
def test_a_marker_that_we_did_not_write_is_refused(directory: StateDirectory, content: bytes) -> None:
    directory.open()
    directory.close()
    directory.marker_file.write_bytes(content)
    with pytest.raises(StateDirectoryRefused, match="isn't one that Overair wrote"):
        directory.open()


def test_a_path_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateDirectoryRefused, match="can't be used"):
        StateDirectory(tmp_path / "file").open()


def test_opening_deletes_the_endpoints_that_a_killed_server_left(directory: StateDirectory) -> None:
    directory.open()
    directory.write_marker(MARKER)
    directory.show("", {"pid": 1})
    assert json.loads(directory.endpoints_file.read_bytes()) == {"pid": 1}
    assert directory._lock is not None
    import os

    os.close(directory._lock)  # as the kernel does when a process is killed
    StateDirectory(directory.path).open()
    assert not directory.endpoints_file.exists()


def test_a_written_file_has_its_mode_and_leaves_no_part_behind(tmp_path: Path) -> None:
    write_file(tmp_path / "secret", b"s", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_several_processes_share_a_directory_that_a_server_alone_refuses(tmp_path: Path) -> None:
    first, second = (StateDirectory(tmp_path / "data", is_shared=True) for _ in range(2))
    assert first.open() is None
    first.write_marker(MARKER)
    first.let_others_start()
    assert second.open() == MARKER
    second.let_others_start()
    with pytest.raises(StateDirectoryRefused, match="Another server runs"):
        StateDirectory(tmp_path / "data").open()
    first.close()
    second.close()
    alone = StateDirectory(tmp_path / "data")
    alone.open()
    with pytest.raises(StateDirectoryRefused, match="Another server runs"):
        StateDirectory(tmp_path / "data", is_shared=True).open()
    alone.close()


def test_what_several_processes_show_is_one_server_while_there_is_one_door_of_each_kind(tmp_path: Path) -> None:
    def process(name: str, **doors: object) -> StateDirectory:
        directory = StateDirectory(tmp_path / "data", is_shared=True)
        if directory.open() is None:
            directory.write_marker(MARKER)
        directory.let_others_start()
        nothing = {"operator_url": None, "mqtt_host": None, "mqtt_port": None, "device_url": None}
        directory.show(name, {**nothing, "ca_file": "ca.pem", **doors})
        return directory

    operator = process("a", operator_url="https://a")
    assert not operator.endpoints_file.exists()
    assert operator.device_url() is None
    gateway = process("b", mqtt_host="b", mqtt_port=1, device_url="https://b")
    other = process("c", mqtt_host="c", mqtt_port=2, device_url="https://c")

    def shown() -> tuple[object, ...]:
        told = json.loads(operator.endpoints_file.read_bytes())
        return tuple(told[name] for name in ("operator_url", "mqtt_port", "device_url", "ca_file"))

    assert shown() == ("https://a", 1, "https://b", "ca.pem")
    # Killed: the kernel lets its locks go, and whoever looks next sees it.
    assert gateway._shown is not None
    assert gateway._shown._held is not None
    import os

    os.close(gateway._shown._held)
    other.look_around()
    assert shown() == ("https://a", 2, "https://c", "ca.pem")
    assert operator.device_url() == "https://c"
    other.close()
    assert not operator.endpoints_file.exists()
    operator.close()
