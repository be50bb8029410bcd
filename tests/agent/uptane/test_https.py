"""Answers bounded in size and time, resumed downloads, and servers that aren't ours: over real TLS."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from overair.agent.tls import tls_context
from overair.agent.uptane.https import (
    BadStatus,
    HttpClient,
    NotProved,
    Oversized,
    Patience,
    SlowRetrieval,
    Stopped,
    TransportFailed,
    Unreachable,
)
from tests.support.uptane_server import Call, Handler, Issuer, UptaneServer

CONTENT = bytes(range(256)) * 400
ISSUER = Issuer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("https")
    certificate, key = ISSUER.issue_pem("dev-1")
    (folder / "device.pem").write_bytes(certificate + key)
    (folder / "ca.pem").write_bytes(ISSUER.pem)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[UptaneServer]:
    server = UptaneServer(folder, issuer=ISSUER)
    yield server
    server.close()


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.stop = False

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return self.stop


def client_of(server: UptaneServer, folder: Path, **changes: Any) -> HttpClient:
    members: dict[str, Any] = {
        "gateway": server.url,
        "context": tls_context(folder / "ca.pem", certificate_file=folder / "device.pem"),
        "foreign_context": tls_context(folder / "ca.pem"),
        "pause": Pauses(),
        "chance": Random(1),
        "monotonic": time.monotonic,
        "patience": Patience(answer_timeout_s=0.5, window_s=0.3),
    }
    return HttpClient(**(members | changes))


def fetched(client: HttpClient, url: str, size_bytes: int = len(CONTENT), first_byte: int = 0) -> bytes:
    got = bytearray(CONTENT[:first_byte])

    def take(offset: int, piece: bytes) -> None:
        got[offset:] = piece

    client.download(url, first_byte=first_byte, size_bytes=size_bytes, take=take)
    return bytes(got)


def test_a_whole_answer_comes_with_its_status_its_headers_and_the_servers_clock(server: UptaneServer, folder: Path) -> None:
    answer = client_of(server, folder).request("PUT", f"{server.url}/system_info", body=b"{}")
    assert (answer.status, answer.body, answer.ok) == (200, b"{}", True)
    assert answer.date is not None
    (call,) = server.calls
    assert (call.peer, call.headers["content-type"], call.headers["accept-encoding"]) == (
        "dev-1",
        "application/json",
        "identity",
    )


def test_only_the_given_authority_is_trusted(folder: Path) -> None:
    context = tls_context(folder / "ca.pem")
    assert [each["serialNumber"] for each in context.get_ca_certs()] == [
        f"{ISSUER.certificate.serial_number:X}".zfill(2)
    ] or len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


IMPOSTORS = {
    "another CA": lambda: Issuer().issue_pem("server", hosts=("127.0.0.1",)),
    "another name": lambda: ISSUER.issue_pem("server", hosts=("other.example",)),
    "no name": lambda: ISSUER.issue_pem("127.0.0.1"),
    "expired": lambda: ISSUER.issue_pem("server", hosts=("127.0.0.1",), until=datetime(2021, 1, 1, tzinfo=UTC)),
    "not yet": lambda: ISSUER.issue_pem("server", hosts=("127.0.0.1",), born=datetime(2049, 1, 1, tzinfo=UTC)),
    "self-signed": lambda: Issuer("server").issue_pem("server", hosts=("127.0.0.1",)),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_an_impostor_is_told_nothing(folder: Path, tmp_path: Path, kind: str) -> None:
    impostor = UptaneServer(tmp_path, certificate=IMPOSTORS[kind]())
    client = client_of(impostor, folder)
    with pytest.raises(NotProved):
        client.request("PUT", f"{impostor.url}/director/manifest", body=b'{"secret": 1}')
    with pytest.raises(NotProved):
        client.download(f"{impostor.url}/repo/targets/a", first_byte=0, size_bytes=1, take=lambda *_: None)
    assert impostor.calls == []
    impostor.close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again_with_pauses_that_grow(server: UptaneServer, folder: Path, status: int) -> None:
    server.instead["/core/installed"] = lambda handler, call: handler.say(status, {})
    pauses = Pauses()
    answer = client_of(server, folder, pause=pauses).request("PUT", f"{server.url}/core/installed", body=b"[]")
    assert answer.status == status
    assert len(server.calls) == 3
    assert [0 <= pause <= limit for pause, limit in zip(pauses.seconds, (0.5, 1.0), strict=True)] == [True, True]


def test_a_refusal_is_not_asked_again(server: UptaneServer, folder: Path) -> None:
    client = client_of(server, folder)
    assert client.request("GET", f"{server.url}/director/9.root.json").status == 404
    assert len(server.calls) == 1


def test_a_stop_ends_the_pauses(server: UptaneServer, folder: Path) -> None:
    server.instead["/x"] = lambda handler, call: handler.say(500, {})
    pauses = Pauses()
    pauses.stop = True
    with pytest.raises(Stopped):
        client_of(server, folder, pause=pauses).request("GET", f"{server.url}/x")
    assert len(server.calls) == 1


def test_no_more_is_read_than_may_come(server: UptaneServer, folder: Path) -> None:
    sent = threading.Event()

    def endless(handler: Handler, call: Call) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(b"x" * 10_000)
        finally:
            sent.set()

    server.instead["/director/targets.json"] = endless
    server.instead["/repo/targets/a"] = endless
    client = client_of(server, folder)
    with pytest.raises(Oversized):
        client.request("GET", f"{server.url}/director/targets.json", size_bytes_max=1000)
    assert sent.wait(10)
    with pytest.raises(Oversized):
        fetched(client, f"{server.url}/repo/targets/a")


def test_an_image_that_is_announced_too_large_is_not_begun(server: UptaneServer, folder: Path) -> None:
    server.images["a"] = CONTENT + b"!"
    taken: list[int] = []
    with pytest.raises(Oversized):
        client_of(server, folder).download(
            f"{server.url}/repo/targets/a", first_byte=0, size_bytes=len(CONTENT), take=lambda offset, _: taken.append(offset)
        )
    assert taken == []


def drip(handler: Handler, call: Call) -> None:
    """A byte now and then: each comes in time, and the whole would take hours."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.close_connection = True
    for byte in CONTENT:
        handler.wfile.write(bytes((byte,)))
        time.sleep(0.02)


def drip_headers(handler: Handler, call: Call) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.close_connection = True
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.02)


def test_a_slow_answer_is_given_up(server: UptaneServer, folder: Path) -> None:
    server.instead["/director/targets.json"] = drip
    server.instead["/repo/targets/a"] = drip
    server.instead["/repo/targets/b"] = drip_headers
    client = client_of(server, folder)
    with pytest.raises(SlowRetrieval):
        client.request("GET", f"{server.url}/director/targets.json", size_bytes_max=1 << 20)
    with pytest.raises(SlowRetrieval, match="bytes a second"):
        fetched(client, f"{server.url}/repo/targets/a")
    with pytest.raises(TransportFailed):
        fetched(client, f"{server.url}/repo/targets/b")


def test_a_download_goes_on_where_it_stood(server: UptaneServer, folder: Path) -> None:
    server.images["a b"] = CONTENT
    client = client_of(server, folder)
    assert fetched(client, f"{server.url}/repo/targets/a%20b") == CONTENT
    assert fetched(client, f"{server.url}/repo/targets/a%20b", first_byte=70_000) == CONTENT
    assert server.calls[-1].headers["range"] == "bytes=70000-"


def test_a_server_without_ranges_begins_again(server: UptaneServer, folder: Path) -> None:
    server.instead["/repo/targets/a"] = lambda handler, call: handler.send(200, CONTENT)
    assert fetched(client_of(server, folder), f"{server.url}/repo/targets/a", first_byte=70_000) == CONTENT


def test_another_range_than_asked_for_is_no_answer(server: UptaneServer, folder: Path) -> None:
    server.instead["/repo/targets/a"] = lambda handler, call: handler.send(
        206, CONTENT[10:], {"Content-Range": f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"}
    )
    with pytest.raises(BadStatus):
        fetched(client_of(server, folder), f"{server.url}/repo/targets/a", first_byte=70_000)


def test_a_download_that_breaks_off_says_so(server: UptaneServer, folder: Path) -> None:
    def broken(handler: Handler, call: Call) -> None:
        handler.send(200, CONTENT[:1000], length=len(CONTENT))
        handler.close_connection = True

    server.instead["/repo/targets/a"] = broken
    with pytest.raises(Unreachable):
        fetched(client_of(server, folder), f"{server.url}/repo/targets/a")


def test_only_images_follow_redirects_and_only_to_https(server: UptaneServer, folder: Path, tmp_path: Path) -> None:
    elsewhere = UptaneServer(tmp_path, issuer=ISSUER)
    elsewhere.instead["/store"] = lambda handler, call: handler.send(200, CONTENT)
    leads = {"Location": f"{elsewhere.url}/store"}
    server.instead["/repo/targets/a"] = lambda handler, call: handler.send(302, b"", leads)
    server.instead["/director/targets.json"] = server.instead["/repo/targets/a"]
    server.instead["/repo/targets/b"] = lambda handler, call: handler.send(302, b"", {"Location": "http://127.0.0.1/"})
    server.instead["/repo/targets/c"] = lambda handler, call: handler.send(302, b"", {"Location": "/repo/targets/c"})
    client = client_of(server, folder)
    assert fetched(client, f"{server.url}/repo/targets/a") == CONTENT
    assert [call.peer for call in elsewhere.calls] == [None], "the device's certificate goes to its gateway alone"
    with pytest.raises(BadStatus):
        client.request("GET", f"{server.url}/director/targets.json")
    with pytest.raises(BadStatus, match="not an https"):
        fetched(client, f"{server.url}/repo/targets/b")
    with pytest.raises(BadStatus, match="redirects"):
        fetched(client, f"{server.url}/repo/targets/c")
    elsewhere.close()


def test_a_compressed_answer_is_refused(server: UptaneServer, folder: Path) -> None:
    server.instead["/x"] = lambda handler, call: handler.send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
    with pytest.raises(BadStatus):
        client_of(server, folder).request("GET", f"{server.url}/x")


@pytest.mark.parametrize("url", ["http://127.0.0.1/a", "ftp://127.0.0.1/a", "//nowhere", "https://[::1/a", ""])
def test_what_is_no_https_address_is_not_asked(server: UptaneServer, folder: Path, url: str) -> None:
    with pytest.raises(BadStatus):
        client_of(server, folder).request("GET", url)


def test_a_full_disk_is_no_failure_of_the_network(server: UptaneServer, folder: Path) -> None:
    server.images["a"] = CONTENT

    def take(offset: int, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        client_of(server, folder).download(f"{server.url}/repo/targets/a", first_byte=0, size_bytes=len(CONTENT), take=take)


def test_nobody_there(server: UptaneServer, folder: Path) -> None:
    client = client_of(server, folder)
    url = server.url
    server.close()
    with pytest.raises(Unreachable):
        client.request("GET", f"{url}/x")
