"""Templates against a slow reading of the same rules, and the rules one by one."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.server.rest.templates import PATH_SIZE_BYTES_MAX, BadPath, PathTooLong, Templates

ROUTES = [
    "/",
    "/repo/root.json",
    "/repo/{version}.root.json",
    "/repo/targets.json",
    "/repo/targets/{name:path}",
    "/repo/targets/expire/not-before",
    "/repo/delegations/{role}.json",
    "/repo/v-{number}",
    "/repo/{anything}",
    "/devices/{device}/ecus/{ecu}",
    "/devices/{device}/{what}",
    "/devices/{device}/ecus/{ecu}/auto_update/{name:path}",
]
LABEL = re.compile(r"\{(\w+)(:path)?\}")


def templates(*routes: str, method: str = "GET") -> Templates[str]:
    made: Templates[str] = Templates()
    for route in routes:
        made.add(method, route, route)
    return made


ALL = templates(*ROUTES)


def readings(path: str) -> dict[str, dict[str, str]]:
    """Every template that a decoded path fits, with its labels: by one expression for each."""
    found = {}
    for route in ROUTES:
        expression = "".join(
            f"(?P<{LABEL.fullmatch(part)[1]}>{'.+' if ':path' in part else '[^/]+'})"  # type: ignore[index]
            if LABEL.fullmatch(part)
            else re.escape(part)
            for part in re.split(r"(\{\w+(?::path)?\})", route)
        )
        fits = re.fullmatch(expression, path, re.DOTALL)
        if fits is not None:
            found[route] = fits.groupdict()
    return found


WORDS = st.sampled_from(
    ["repo", "devices", "ecus", "auto_update", "targets", "expire", "not-before", "root.json", "targets.json", "delegations"]
)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), max_size=12)
SEGMENT = st.one_of(WORDS, TEXT, TEXT.map(lambda text: f"{text}.json"), TEXT.map(lambda text: f"v-{text}"))
SEGMENTS = st.lists(SEGMENT, min_size=1, max_size=7).filter(lambda segments: not {".", ".."} & set(segments))


@given(segments=SEGMENTS)
def test_a_path_means_one_of_the_templates_that_it_fits_with_that_ones_labels(segments: list[str]) -> None:
    raw = "/" + "/".join(quote(segment, safe="") for segment in segments)
    fitting = readings("/" + "/".join(segments))
    found = ALL.match("GET", raw.encode("ascii"))
    if found is None:
        assert fitting == {}
    else:
        assert fitting[found[0]] == found[1]
        # Literal text outweighs labels: a template without any wins.
        assert [route for route in fitting if "{" not in route] in ([], [found[0]])


@given(data=st.data(), route=st.sampled_from(ROUTES))
def test_what_is_put_into_a_template_is_what_comes_out_of_it(data: st.DataObject, route: str) -> None:
    value = TEXT.filter(lambda text: text not in ("", ".", ".."))
    labels = {
        name: "/".join(data.draw(st.lists(value, min_size=1, max_size=3))) if tail else data.draw(value)
        for name, tail in LABEL.findall(route)
    }
    alone = templates(route)
    raw = LABEL.sub(lambda found: quote(labels[found[1]], safe="/" if found[2] else ""), route)
    segments = raw.split("/")
    if len(raw) <= PATH_SIZE_BYTES_MAX and not {".", ".."} & set(segments):
        assert alone.match("GET", raw.encode("ascii")) == (route, labels)


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_path_or_mean_something_or_nothing(raw: bytes) -> None:
    for path in (raw, b"/" + raw):
        try:
            ALL.match("GET", path)
            ALL.methods(path)
        except BadPath:
            continue


@pytest.mark.parametrize(
    ("path", "route", "labels"),
    [
        ("/repo/root.json", "/repo/root.json", {}),
        ("/repo/3.root.json", "/repo/{version}.root.json", {"version": "3"}),
        ("/repo/.root.json", "/repo/{anything}", {"anything": ".root.json"}),
        ("/repo/v-7", "/repo/v-{number}", {"number": "7"}),
        ("/repo/targets/a/b%20c/%C3%A9", "/repo/targets/{name:path}", {"name": "a/b c/é"}),
        ("/repo/targets/expire/not-before", "/repo/targets/expire/not-before", {}),
        ("/repo/targets/expire/other", "/repo/targets/{name:path}", {"name": "expire/other"}),
        ("/devices/a%2Fb/ecus/c", "/devices/{device}/ecus/{ecu}", {"device": "a/b", "ecu": "c"}),
        ("/devices/a/ecus", "/devices/{device}/{what}", {"device": "a", "what": "ecus"}),
        (
            "/devices/a/ecus/b/auto_update/x/y",
            "/devices/{device}/ecus/{ecu}/auto_update/{name:path}",
            {"device": "a", "ecu": "b", "name": "x/y"},
        ),
    ],
)
def test_the_template_that_says_more_wins_and_labels_are_decoded(path: str, route: str, labels: dict[str, str]) -> None:
    assert ALL.match("GET", path.encode()) == (route, labels)


@pytest.mark.parametrize("path", ["/repo", "/repo/", "/repo/targets/", "/devices//x/y", "/devices/a/ecus/b/auto_update/"])
def test_an_empty_segment_is_no_label(path: str) -> None:
    assert ALL.match("GET", path.encode()) is None


def test_a_literal_of_one_method_leaves_the_path_to_the_label_of_another() -> None:
    both = templates("/targets/{name:path}")
    both.add("PUT", "/targets/expire/not-before", "expire")
    assert both.match("GET", b"/targets/expire/not-before") == ("/targets/{name:path}", {"name": "expire/not-before"})
    assert both.match("PUT", b"/targets/expire/not-before") == ("expire", {})
    assert both.match("PUT", b"/targets/other") is None
    assert both.methods(b"/targets/expire/not-before") == ["GET", "PUT"]
    assert both.methods(b"/targets/other") == ["GET"]
    assert sorted(both) == ["/targets/{name:path}", "expire"]


@pytest.mark.parametrize(
    "path", [b"/repo/../x", b"/repo/%2e%2E/x", b"/./x", b"/repo/a%00b", b"/repo/%ff", b"/repo/a%0Ab", b"repo", b""]
)
def test_a_path_that_two_readers_could_take_for_different_ones_is_none(path: bytes) -> None:
    with pytest.raises(BadPath):
        ALL.match("GET", path)


def test_a_path_beyond_the_bound_is_too_long() -> None:
    assert ALL.match("GET", b"/repo/" + b"x" * (PATH_SIZE_BYTES_MAX - 6)) is not None
    with pytest.raises(PathTooLong):
        ALL.match("GET", b"/repo/" + b"x" * (PATH_SIZE_BYTES_MAX - 5))


@pytest.mark.parametrize(
    "wrong",
    ["repo", "/x?y", "/{a}{b}", "/{a}-{b}", "/{a", "/a}", "/{name:path}/x", "/x{name:path}", "/{a}/{a}", "/{a:int}", "/{}"],
)
def test_what_is_no_template_is_refused_at_registration(wrong: str) -> None:
    with pytest.raises(RuntimeError):
        templates(wrong)


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a/b", "/a/b"), ("/a/{x}", "/a/{y}"), ("/a/{x}.json", "/a/{y}.json"), ("/a/{x:path}", "/a/{y:path}")],
)
def test_two_routes_for_the_same_requests_are_refused_at_registration(first: str, second: str) -> None:
    with pytest.raises(RuntimeError):
        templates(first, second)
