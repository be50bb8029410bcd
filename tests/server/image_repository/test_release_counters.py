"""Release counters: what keeps an ECU from being led back to an image that was signed once (Standard 5.4.3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.whole_server import Template, WholeServer

REPO = "/api/v1/user_repo"
WORDS = {"name": "app", "version": "1", "hardwareIds": "gw", "targetFormat": "BINARY"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    folder: Path = tmp_path_factory.mktemp("counters")
    server = Template(folder).open(folder / "data")
    yield server
    server.close()


def custom_of(server: WholeServer, name: str) -> dict[str, object]:
    return dict(server.operator("GET", f"{REPO}/targets.json").json["signed"]["targets"][name]["custom"])


def test_an_upload_may_bring_one_and_it_is_signed_and_outlives_edits(server: WholeServer) -> None:
    query = {**WORDS, "releaseCounter": "7"}
    assert server.operator("PUT", f"{REPO}/targets/app-1", body=b"app", query=query).status == 204
    assert custom_of(server, "app-1")["releaseCounter"] == 7
    edit = {"proprietaryCustom": {"acme": {"build": "77"}}}
    assert server.operator("PATCH", f"{REPO}/targets/app-1", json_body=edit).status == 200
    assert custom_of(server, "app-1")["releaseCounter"] == 7


def test_an_image_that_lies_elsewhere_may_bring_one_and_one_without_has_none(server: WholeServer) -> None:
    body = {**WORDS, "hardwareIds": ["gw"], "uri": "https://images.example/x", "length": 3, "releaseCounter": 8}
    body["checksum"] = {"method": "sha256", "hash": "ab" * 32}
    assert server.operator("POST", f"{REPO}/targets/app-2", json_body=body).status == 200
    assert custom_of(server, "app-2")["releaseCounter"] == 8
    assert server.operator("PUT", f"{REPO}/targets/app-3", body=b"app", query=WORDS).status == 204
    assert "releaseCounter" not in custom_of(server, "app-3")


@pytest.mark.parametrize("counter", ["-1", "x", "1.5", "4294967296", ""])
def test_what_is_no_counter_is_refused_by_its_name(server: WholeServer, counter: str) -> None:
    reply = server.operator("PUT", f"{REPO}/targets/bad", body=b"app", query={**WORDS, "releaseCounter": counter})
    assert reply.status == 400
    assert reply.json["field"] == "releaseCounter"
