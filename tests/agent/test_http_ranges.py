from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from overair.agent.http_ranges import HttpRanges
from overair.agent.sources import RangeUnavailable, UrlNoLongerGood
from tests.support.authority import Authority

CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        super().setup()
        Handler.connections += 1

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        if kind.isdigit():
            self._answer(int(kind), b"<Error/>")
        elif kind == "whole":
            self._answer(200, CONTENT)
        elif kind == "long":
            self._answer(206, CONTENT[first : last + 100], f"bytes {first}-{last}/10240")
        elif kind == "short":
            self._answer(206, CONTENT[first:last], f"bytes {first}-{last - 1}/10240")
        elif kind == "shifted":
            self._answer(206, CONTENT[first + 1 : last + 2], f"bytes {first + 1}-{last + 1}/10240")
        elif kind == "elsewhere":
            self._answer(302, b"")
        else:
            self._answer(206, CONTENT[first : last + 1], f"bytes {first}-{last}/10240")

    def _answer(self, status: int, body: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "/good")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder, authority = tmp_path_factory.mktemp("site"), Authority()
    certificate, key = authority.issue("server", host="127.0.0.1")
    (folder / "server.pem").write_bytes(certificate + key)
    (folder / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", folder / "ca.pem"
    server.shutdown()
    server.server_close()


def test_exactly_the_range_is_fetched_again_and_again_on_one_connection(site: tuple[str, Path]) -> None:
    url, ca = site
    ranges = HttpRanges(ca)
    before = Handler.connections
    for first in range(0, 5000, 1000):
        assert ranges.fetch(f"{url}/good", first, first + 999) == CONTENT[first : first + 1000]
    with pytest.raises(UrlNoLongerGood):
        ranges.fetch(f"{url}/403", 0, 99)
    assert ranges.fetch(f"{url}/good", 0, 99) == CONTENT[:100]
    assert Handler.connections == before + 1, "all on one connection, a refusal too"


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_means_that_a_new_url_is_needed(site: tuple[str, Path], status: int) -> None:
    url, ca = site
    with pytest.raises(UrlNoLongerGood):
        HttpRanges(ca).fetch(f"{url}/{status}", 0, 99)


@pytest.mark.parametrize("kind", ["500", "503", "whole", "long", "short", "shifted", "elsewhere"])
def test_whatever_is_not_exactly_the_range_is_no_block(site: tuple[str, Path], kind: str) -> None:
    url, ca = site
    ranges = HttpRanges(ca)
    with pytest.raises(RangeUnavailable):
        ranges.fetch(f"{url}/{kind}", 0, 99)
    assert ranges.fetch(f"{url}/good", 0, 99) == CONTENT[:100]


def test_a_server_that_cannot_prove_itself_and_plain_text_are_refused(site: tuple[str, Path], tmp_path: Path) -> None:
    url, ca = site
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    with pytest.raises(RangeUnavailable):
        HttpRanges(other).fetch(f"{url}/good", 0, 99)
    with pytest.raises(UrlNoLongerGood):
        HttpRanges(ca).fetch(url.replace("https", "http") + "/good", 0, 99)


def test_another_server_of_images_is_trusted_by_an_authority_of_its_own(
    site: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, ca = site
    own = tmp_path / "own.pem"
    own.write_bytes(Authority("another CA").pem)
    assert HttpRanges(own, images_ca_file=ca).fetch(f"{url}/good", 0, 99) == CONTENT[:100]
    assert HttpRanges(ca, images_ca_file=own).fetch(f"{url}/good", 0, 99) == CONTENT[:100]
    ranges = HttpRanges(ca, images_ca_file=tmp_path / "absent.pem")
    assert "images_ca_file can't be read" in caplog.text
    assert ranges.fetch(f"{url}/good", 0, 99) == CONTENT[:100], "updates from here don't depend on it"
