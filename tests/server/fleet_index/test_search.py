"""Searches and aggregates over both databases: the same answers as one document at a time, and only from what is indexed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import ThingName, ThingTypeName
from overair.server.devices.thing_types import TypeSettings
from overair.server.fleet_index.fields import Index, resolve
from overair.server.fleet_index.matching import matches
from overair.server.fleet_index.model import Configuration, document_of
from overair.server.fleet_index.query import parse
from overair.server.fleet_index.search import Question
from overair.server.fleet_index.settings_messages import read_configuration
from overair.server.fleet_index.store import SqlDocumentStore
from tests.support.fleet_room import FleetRoom

CUSTOM = [
    {"name": "attributes.size", "type": "Number"},
    {"name": "attributes.colour", "type": "String"},
    {"name": "attributes.ready", "type": "Boolean"},
    {"name": "jobs.*", "type": "String"},
]


def fleet(room: FleetRoom) -> None:
    room.run(lambda tx: room.registry.types.create(tx, room.place, ThingTypeName("pump"), TypeSettings()))
    room.thing("Pump-1", "pump", size="5", colour="Red", ready="true")
    room.thing("Pump-2", "pump", size="10", colour="red", ready="false")
    room.thing("valve_3", size="10.5", colour="blue%", ready="true")
    room.thing("valve-4", size="large")
    room.thing("tank5")
    room.group("plant")
    room.group("North", "Pump-1", "valve_3", parent="plant")
    room.statuses.by_thing = {ThingName("Pump-1"): {"j1": "FAILED"}, ThingName("tank5"): {"j1": "QUEUED", "j2": "REJECTED"}}
    room.configure(thingConnectivityIndexingMode="STATUS", customFields=CUSTOM)


FOUND = [
    ("*", ["Pump-1", "Pump-2", "tank5", "valve-4", "valve_3"]),
    ("thingName:pump*", ["Pump-1", "Pump-2"]),
    ("thingName:*5", ["tank5"]),
    ("thingName:valve_?", ["valve_3"]),
    ("thingName:valve?4", ["valve-4"]),
    (r"attributes.colour:blue\%", ["valve_3"]),
    (r"attributes.colour:b*\%", ["valve_3"]),
    ("attributes.colour:red", ["Pump-1", "Pump-2"]),
    ("red", ["Pump-1", "Pump-2"]),
    ("true", ["Pump-1", "valve_3"]),
    ("failed", []),
    ("attributes.size>=10", ["Pump-2", "valve_3"]),
    ("attributes.size:[5 TO 10}", ["Pump-1"]),
    ("attributes.size>5 AND attributes.size<10.5", ["Pump-2"]),
    ("attributes.size:10.0", ["Pump-2"]),
    ('attributes.size>"4"', ["Pump-1", "valve-4"]),
    ("NOT attributes.size:*", ["tank5"]),
    ("thingTypeName:pump AND NOT thingGroupNames:north", ["Pump-2"]),
    ("thingGroupNames:plant", ["Pump-1", "valve_3"]),
    ("jobs.j1:(FAILED OR QUEUED) AND NOT jobs.j2:*", ["Pump-1"]),
    ("connectivity.connected:false AND tank*", ["tank5"]),
    ("thingName:nobody", []),
]


def test_a_search_finds_what_the_query_says(room: FleetRoom) -> None:
    fleet(room)
    for query, found in FOUND:
        assert room.search(query) == found, query


FIELDS = st.sampled_from(["thingName", "thingTypeName", "thingGroupNames", "attributes.size", "attributes.colour", "jobs.j1"])
WORDS = st.sampled_from(
    ["pump*", "*", "10", "5", "10.5", "red", "blue?", "failed", "north", "p*", "?e?", "large", "Pump-1", "*_*"]
)
BOUNDS = st.sampled_from(["5", "10", "10.5", "a", "red", '"10"', "*"])
TERMS = st.one_of(
    WORDS,
    st.builds("{}:{}".format, FIELDS, WORDS),
    st.builds("{}:{}{} TO {}{}".format, FIELDS, st.sampled_from("[{"), BOUNDS, BOUNDS, st.sampled_from("]}")),
    st.builds("{}{}{}".format, FIELDS, st.sampled_from(["<", ">", "<=", ">="]), st.sampled_from(["5", "10", "b"])),
)
QUERIES = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
    ),
    max_leaves=5,
)


def test_sql_and_the_judgement_of_one_document_say_the_same(room: FleetRoom) -> None:
    fleet(room)
    store = SqlDocumentStore()
    names = room.search("*")
    documents = {
        name: document_of(room.work.read_blocking(lambda tx, name=name: store.entries(tx, room.account, Index.THINGS, name)))
        for name in names
    }

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(QUERIES)
    def agree(text: str) -> None:
        query = resolve(parse(text), Index.THINGS)
        judged = [name for name in names if matches(query, documents[name])]
        assert room.search(text) == judged
        met = room.work.read_blocking(lambda tx: store.those_that_meet(tx, room.account, Index.THINGS, query, names))
        assert met == set(judged)

    agree()


def test_a_long_answer_comes_in_pages_by_name(room: FleetRoom) -> None:
    for number in range(7):
        room.thing(f"t-{number}")
    room.configure()
    found: list[str] = []
    more, after = True, ""
    while more:
        page, more = room.work.read_blocking(
            lambda tx, after=after: room.fleet.searches.search(tx, room.question("t-*"), after=after, limit=3)
        )
        found += [each.name for each in page]
        after = found[-1]
    assert found == [f"t-{number}" for number in range(7)]


def test_an_index_answers_once_it_is_whole_and_not_when_it_is_off(room: FleetRoom) -> None:
    room.thing("one")
    with pytest.raises(NotFound):
        room.search("*")
    room.configure(settle=False)
    with pytest.raises(Conflict):
        room.search("*")
    room.settle()
    assert room.search("*") == ["one"]
    room.configure(settle=False, thingConnectivityIndexingMode="STATUS")
    assert room.search("*") == ["one"], "an index that is built anew goes on answering"
    room.settle()
    room.configure(thingIndexingMode="OFF")
    with pytest.raises(NotFound):
        room.search("*")
    room.attributes("one", colour="red")
    room.configure()
    assert room.search("colour") == []
    assert room.search("red") == ["one"]


def test_an_index_turned_off_and_on_again_at_once_holds_nothing_of_before(room: FleetRoom) -> None:
    room.thing("kept"), room.thing("gone")
    room.configure()
    room.configure(settle=False, thingIndexingMode="OFF")
    room.run(lambda tx: room.registry.devices.delete(tx, room.account, ThingName("gone")))
    room.configure()
    assert room.search("*") == ["kept"]


def test_one_account_finds_nothing_of_another(room: FleetRoom) -> None:
    room.thing("mine")
    room.configure()
    other = Question(account=type(room.account)("210987654321"), index=Index.THINGS, text="*")
    with pytest.raises(NotFound):
        room.work.read_blocking(lambda tx: room.fleet.searches.search(tx, other, after="", limit=10))


def test_groups_are_found_by_name_parent_attributes_and_words_of_their_description(room: FleetRoom) -> None:
    fleet(room)
    from overair.server.devices.thing_groups import GroupSettings

    settings_ = GroupSettings(description="Pumps near the River", attributes={"site": "A1"})
    east = room.group("east")
    room.run(lambda tx: room.registry.groups.update(tx, room.account, east, settings_, expected_version=None))
    for query, found in (
        ("*", ["North", "east", "plant"]),
        ("thingGroupName:north", ["North"]),
        ("parentGroupNames:plant", ["North"]),
        ("thingGroupDescription:river", ["east"]),
        ('thingGroupDescription:"pumps near"', ["east"]),
        ("attributes.site:a1", ["east"]),
        ("a1", ["east"]),
    ):
        assert room.search(query, Index.GROUPS) == found, query
    room.run(lambda tx: room.registry.groups.delete(tx, room.place, east))
    assert room.search("*", Index.GROUPS) == ["North", "plant"]


def test_aggregates_say_what_a_field_comes_to(room: FleetRoom) -> None:
    fleet(room)
    searches = room.fleet.searches
    ask = room.work.read_blocking
    everything = room.question("*")
    sizes = ask(lambda tx: searches.statistics(tx, everything, "attributes.size"))
    assert (sizes.count, sizes.total, sizes.minimum, sizes.maximum, sizes.average) == (3, 25.5, 5.0, 10.5, 8.5)
    assert sizes.sum_of_squares == 235.25
    assert sizes.variance == pytest.approx(235.25 / 3 - 8.5**2)
    ready = ask(lambda tx: searches.statistics(tx, everything, "attributes.ready"))
    assert (ready.count, ready.total, ready.minimum, ready.maximum) == (3, 2.0, 0.0, 1.0)
    colours = ask(lambda tx: searches.statistics(tx, everything, "attributes.colour"))
    assert (colours.count, colours.average) == (3, None)
    versions = ask(lambda tx: searches.statistics(tx, room.question("thingName:pump*"), None))
    assert (versions.count, versions.total) == (2, 2.0)
    nothing = ask(lambda tx: searches.statistics(tx, room.question("nobody"), "attributes.size"))
    assert (nothing.count, nothing.average) == (0, None)
    assert ask(lambda tx: searches.cardinality(tx, everything, "attributes.colour")) == 2
    assert ask(lambda tx: searches.cardinality(tx, everything, "registry.thingTypeName")) == 1
    assert ask(lambda tx: searches.percentiles(tx, everything, "attributes.size", [0, 50, 75, 100])) == [
        (0, 5.0),
        (50, 10.0),
        (75, 10.25),
        (100, 10.5),
    ]
    assert ask(lambda tx: searches.percentiles(tx, room.question("nobody"), "attributes.size", None)) == []
    total, buckets = ask(lambda tx: searches.buckets(tx, everything, "attributes.colour", limit=10))
    assert total == 5
    assert [(key.lower(), count) for key, count in buckets] == [("red", 2), ("blue%", 1)]
    assert ask(lambda tx: searches.buckets(tx, everything, "jobs.j1", limit=1)) == (5, [("FAILED", 1)])


def test_a_field_that_was_not_configured_is_not_aggregated(room: FleetRoom) -> None:
    fleet(room)
    for field in ("attributes.other", "shadow.x", "jobs.*", "connectivity.node", "nonsense"):
        with pytest.raises(InvalidRequest) as refused:
            room.work.read_blocking(
                lambda tx, field=field: room.fleet.searches.cardinality(tx, room.question("*"), field)  # type: ignore[misc]
            )
        assert refused.value.subject == "aggregation"


def test_percentiles_need_numbers(room: FleetRoom) -> None:
    fleet(room)
    with pytest.raises(InvalidRequest, match="type Number"):
        room.work.read_blocking(lambda tx: room.fleet.searches.percentiles(tx, room.question("*"), "attributes.ready", None))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("connectivity.connected:true", "thingConnectivityIndexingMode"),
        ("jobs.j1:FAILED", "custom field"),
        ("shadow.name.$package.reported.app.version:1", "packages aren't indexed"),
        ("shadow.name.mine.reported.x:1", "no device shadows here but"),
        ("shadow.name.$package.reported..version:1", "no device shadows here but"),
    ],
)
def test_what_is_not_indexed_is_not_searched(room: FleetRoom, query: str, reason: str) -> None:
    room.thing("one")
    room.configure()
    with pytest.raises(InvalidRequest, match=reason):
        room.search(query)


PACKAGES = {"namedShadowIndexingMode": "ON", "filter": {"namedShadowNames": ["$package"]}}
REFUSED: list[tuple[dict[str, object], str]] = [
    ({"thingIndexingMode": "REGISTRY_AND_SHADOW"}, "no device shadows"),
    ({"deviceDefenderIndexingMode": "VIOLATIONS"}, "no Device Defender"),
    ({"namedShadowIndexingMode": "ON"}, "no device shadows"),
    ({"filter": {"namedShadowNames": ["x"]}}, "no device shadows"),
    ({"namedShadowIndexingMode": "ON", "filter": {"namedShadowNames": ["$package", "x"]}}, "no device shadows"),
    ({"filter": {"namedShadowNames": ["$package"]}}, "no device shadows"),
    ({"thingIndexingMode": "OFF", **PACKAGES}, "need thingIndexingMode"),
    ({"customFields": [{"name": "shadow.name.$package.reported.app.version", "type": "String"}]}, "needs namedShadowIndexing"),
    ({"customFields": [{"name": "shadow.name.$package.reported.app.version", "type": "Number"}]}, "of type String"),
    ({"filter": {"geoLocations": [{"name": "x"}]}}, "places aren't indexed"),
    ({"thingIndexingMode": "OFF", "thingConnectivityIndexingMode": "STATUS"}, "need thingIndexingMode"),
    ({"customFields": [{"name": "shadow.x", "type": "String"}]}, "can't be a custom field"),
    ({"customFields": [{"name": "thingName", "type": "String"}]}, "can't be a custom field"),
    ({"customFields": [{"name": "attributes.a"}]}, "a name and a type"),
    ({"customFields": [{"name": "jobs.a", "type": "Number"}]}, "of type String"),
    ({"customFields": [{"name": "attributes.a", "type": "String"}] * 2}, "given twice"),
]


def test_a_configuration_of_what_is_not_here_is_refused_by_name() -> None:
    for members, reason in REFUSED:
        request = {"thingIndexingConfiguration": {"thingIndexingMode": "REGISTRY", **members}}
        with pytest.raises(InvalidRequest, match=reason):
            read_configuration(request, Configuration())
