"""clients/generated follows from the schema's conventions. tests/flows/test_client_kit.py runs the kit with the libraries."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from commands import client_kit

ROOT = Path(__file__).resolve().parents[2]
SDL = '''
scalar Cursor
interface Node { id: ID! }
interface Event { cursor: Cursor! }
interface MutationPayload { errors: [Fault!]! }
type Fault { message: String! }
type PageInfo { hasNextPage: Boolean! }
type Money { amount: String!  currency: String!  formatted(locale: String): String! }
type Room implements Node { id: ID!  bookings(first: Int, after: Cursor, state: String): BookingConnection!  tags: [Tag!]! }
type Tag { name: String! }
type Booking implements Node { id: ID!  room: Room!  price: Money!  discardedAt: String }
"""Bookings, newest first."""
type BookingConnection { edges: [BookingEdge!]!  nodes: [Booking!]!  pageInfo: PageInfo! }
type BookingEdge { cursor: Cursor!  node: Booking! }
"""Rooms, newest activity first."""
type RoomConnection { edges: [RoomEdge!]!  pageInfo: PageInfo! }
type RoomEdge { cursor: Cursor!  node: Room! }
type BookingChanged implements Event { cursor: Cursor!  booking: Booking!  bookingEdge: BookingEdge }
type RoomsMerged implements Event { cursor: Cursor!  mergedRoomId: ID!  room: Room! }
union HotelEvent = BookingChanged | RoomsMerged
type BookPayload implements MutationPayload { errors: [Fault!]!  booking: Booking }
type Query { rooms(first: Int): RoomConnection!  bookings(first: Int): BookingConnection! }
type Mutation { book: BookPayload! }
type Subscription { hotelEvents(after: Cursor): HotelEvent! }
'''


def shape(sdl: str) -> Any:
    text = client_kit.files(sdl)[client_kit.FOLDER / "shape.js"]
    return json.loads(text.removeprefix("export const shape = ").rstrip().removesuffix(";"))


def test_values_are_the_objects_without_id_that_are_no_part_of_a_list_event_or_payload() -> None:
    found = shape(SDL)
    assert found["values"] == {"Fault": [], "Money": ["amount", "currency"], "Tag": []}
    assert set(found["keyless"]) - set(found["values"]) == {
        "PageInfo", "BookingConnection", "BookingEdge", "RoomConnection", "RoomEdge", "BookingChanged", "RoomsMerged", "BookPayload",
    }  # fmt: skip
    assert found["lists"] == {"Room": ["tags"]}


def test_a_connection_takes_its_order_from_its_description() -> None:
    found = shape(SDL)["connections"]
    assert found["Room.bookings"] == {
        "parent": "Room",
        "field": "bookings",
        "connection": "BookingConnection",
        "edge": "BookingEdge",
        "nodes": ["Booking"],
        "keyArgs": ["state"],
        "by": "createdAt",
        "descending": True,
    }
    assert (found["Query.rooms"]["by"], found["Query.rooms"]["keyArgs"]) == ("lastActivityAt", [])
    assert shape(SDL.replace("newest first", "in some order"))["connections"]["Room.bookings"]["by"] is None


def test_an_event_s_edge_and_objects_find_their_lists() -> None:
    found = shape(SDL)
    booked, merged = found["events"]["BookingChanged"], found["events"]["RoomsMerged"]
    assert booked["edges"] == [
        {"edge": "bookingEdge", "list": "Query.bookings", "parents": []},
        {"edge": "bookingEdge", "list": "Room.bookings", "parents": [["booking", "room"]]},
    ]
    # The edge places a new booking; the row itself can only leave.
    assert [(row["row"], row["list"], row["placed"]) for row in booked["rows"]] == [
        ("booking", "Query.bookings", False),
        ("booking", "Room.bookings", False),
    ]
    assert merged["rows"] == [{"row": "room", "list": "Query.rooms", "parents": [], "placed": True}]
    assert merged["drops"] == {"mergedRoomId": "Room"}
    assert found["gone"] == {"Booking": "discardedAt"}
    assert found["feeds"] == ["hotelEvents"]


def test_an_event_of_a_view_places_into_its_own_list_alone() -> None:
    found = shape((ROOT / "schema" / "schema.graphql").read_text())["events"]
    assert {
        name: [(one["list"], one["edge"]) for one in event["places"]]
        for name, event in found.items()
        if event["places"]
    } == {
        "ViewItemEntered": [("ConversationView.items", "conversationEdge"), ("PaymentRequestView.items", "edge")],
        "ViewItemMoved": [("ConversationView.items", "conversationEdge"), ("PaymentRequestView.items", "edge")],
        "ViewItemLeft": [("ConversationView.items", None), ("PaymentRequestView.items", None)],
    }


def test_only_events_of_the_account_add_by_their_edge() -> None:
    found = shape((ROOT / "schema" / "schema.graphql").read_text())["events"]
    assert {name for name, event in found.items() if event["edges"]} == {
        "ThreadItemAdded",
        "PaymentRequestUpdated",
        "NotificationAdded",
    }


def test_each_example_fits_on_a_page() -> None:
    examples = ROOT / "clients" / "examples"
    lengths = {
        path.name: len(path.read_text().splitlines()) for path in examples.glob("*.js") if "documents" not in path.name
    }
    assert {name for name, lines in lengths.items() if lines <= 40} == {"apollo.js", "urql.js", "relay.js", "plain.js"}


def test_every_list_that_an_event_feeds_has_an_order_and_a_way_to_its_owner() -> None:
    found = shape((ROOT / "schema" / "schema.graphql").read_text())
    fed = [target for event in found["events"].values() for target in (*event["edges"], *event["rows"])]
    assert fed
    for target in fed:
        connection = found["connections"][target["list"]]
        assert connection["by"] is not None, f"the description of {connection['connection']} does not name its order"
        assert connection["parent"] == "Query" or target["parents"], f"no event names the {connection['parent']}"


def test_the_relay_configuration_knows_every_scalar_and_the_introspection_every_type() -> None:
    sdl = (ROOT / "schema" / "schema.graphql").read_text()
    files = {path.name: text for path, text in client_kit.files(sdl).items()}
    assert set(json.loads(files["relay.config.json"])["customScalarTypes"]) == set(
        re.findall(r"^scalar (\w+)", sdl, re.M)
    )
    types = {one["name"] for one in json.loads(files["introspection.json"])["__schema"]["types"]}
    assert types == {"Any", *re.findall(r"^(?:type|interface|union) (\w+)", sdl, re.M)}


def test_the_package_has_paythread_s_version_and_licence() -> None:
    package = json.loads((ROOT / "clients" / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["version"] == project["version"]
    assert "dependencies" not in package
    assert {"preinstall", "install", "postinstall"} & package["scripts"].keys() == set()
    assert (ROOT / "clients" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
