"""State before + events = state after: an event in the log names everything that a mutation changes for a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLUnionType, get_named_type, is_required_argument

from models import database
from models.ids import PREFIXES, public_id
from models.tables import Contact
from services.thread import contact_totals
from tests.contracts.stripe_contract import derived_contract
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.contracts.twilio_server import contracts as twilio_contracts
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import Product
from tests.flows.probes import World

# The ids of everything that an owner can reach.
IDS = """{ viewer { id } dashboard { id } account { id channels { id } paymentSettings { processors { id } } apiKeys { nodes { id } }
    users { nodes { id } } invitations { nodes { id } } }
  views { nodes { id } }
  notifications(first: 50) { nodes { id } }
  paymentRequests(first: 30) { nodes { id payments { id } refunds { id } disputes { id } } }
  conversations(first: 8) { nodes { id contact { id } channels { id }
    thread(first: 80) { nodes { id ... on Message { attachments { id } } } } } } }"""
BATCH = 4  # what the limit of an operation's cost allows
# Positions, signed addresses, and lists whose members are compared by themselves.
PASSED_OVER = {"sessions", "eventCursor", "lastUsedAt", "asOf", "url", "pageInfo", "cursor", "edges", "payments"}
SETTINGS = {"account.updated", "processor.updated", "channel.updated", "api_key.updated", "user.updated"}

UNSEEN = {
    *("revokeSession", "updateNotificationRules"),  # only the viewer sees it, and the answer names it
    *("changePassword", "requestPasswordReset", "resetPassword", "requestEmailChange"),
    *("signIn", "refreshSession", "signOut", "rotateIdentitySecret"),
    *("testProcessor", "testChannel"),  # here they find what was known
    "runSandboxScenario",  # its webhooks come later
}


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    probes.hash_quickly(monkeypatch)


@pytest.fixture
async def product(database: str, events_url: str) -> AsyncIterator[Product]:
    """The server without its job runner, so that nothing changes in the background."""
    async with (
        StripeServer(derived_contract()) as stripe,
        TwilioServer(twilio_contracts()[0]) as twilio,
        harness.in_process(
            database,
            events_url,
            RUN_JOBS="false",
            **harness.MAIL,
            STRIPE_API_BASE=stripe.url,
            TWILIO_API_BASE=twilio.url,
        ) as running,
    ):
        yield running


@pytest.fixture
async def world(bare: Team) -> World:
    return await probes.world(bare)


@cache
def document_of(prefix: str) -> str:
    """A query of nodes with this id prefix: every field that needs no argument, other nodes by their ids."""
    kind = next(name for name, known in PREFIXES.items() if known == prefix)
    return f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {kind} {{ {fields_of(kind)} }} }} }}"


def fields_of(kind: str) -> str:
    of = probes.schema().get_type(kind)
    assert isinstance(of, GraphQLObjectType | GraphQLInterfaceType)
    found = []
    for name, one in of.fields.items():
        child = get_named_type(one.type)
        if name in PASSED_OVER or any(is_required_argument(given) for given in one.args.values()):
            continue
        if isinstance(child, GraphQLUnionType):
            nodes = any("id" in member.fields for member in child.types)
            found.append(f"{name} {{ __typename {'... on Node { id }' if nodes else ''} }}")
        elif isinstance(child, GraphQLObjectType | GraphQLInterfaceType):
            if child.name.endswith("Connection"):
                continue
            found.append(f"{name} {{ {'id' if 'id' in child.fields else fields_of(child.name)} }}")
        elif isinstance(child, GraphQLUnionType):
            found.append(f"{name} {{ __typename ... on Node {{ id }} }}")
        else:
            found.append(name)
    return " ".join(found)


async def look(world: World) -> dict[str, dict[str, Any]]:
    """Every node that the owner sees, by id, with its fields; nested nodes are replaced by their ids."""
    by_prefix: dict[str, list[str]] = {}
    listed: dict[str, dict[str, Any]] = {}
    take(await world.product.gql(IDS, token=world.team.owner), listed)
    for id in listed:
        by_prefix.setdefault(id.partition("_")[0], []).append(id)
    found: dict[str, dict[str, Any]] = {}
    for prefix, ids in by_prefix.items():
        for batch in _batches(ids):
            take(await world.product.gql(document_of(prefix), {"ids": batch}, token=world.team.owner), found)
    return found


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for n in range(0, len(ids), BATCH):
        yield ids[n : n + BATCH]


def take(value: Any, into: dict[str, dict[str, Any]]) -> Any:
    """The value with each node in it replaced by its id; the nodes' fields go `into`."""
    if isinstance(value, list):
        return [take(one, into) for one in value]
    if not isinstance(value, dict):
        return value
    fields = {name: take(one, into) for name, one in value.items() if name not in PASSED_OVER}
    for listed in PASSED_OVER & value.keys():
        take(value[listed], into)
    if "id" not in value:
        return fields
    into.setdefault(value["id"], {}).update(fields)
    return value["id"]


async def named(world: World, since: int) -> Iterator[str]:
    """The ids, or prefixes of ids, that the events after `since` name as changed."""
    rows = await database.rows("SELECT * FROM event WHERE seq > ? ORDER BY seq", since)
    found: list[str] = []
    for row in rows:
        ids = {
            name: public_id(prefix, database.to_uuid(row[name])) if row[name] is not None else "-"
            for name, prefix in {
                "conversation_id": "cnv",
                "contact_id": "cnt",
                "payment_request_id": "pr",
                "message_id": "msg",
                "card_id": "card",
                "notification_id": "ntf",
            }.items()
        }
        channels = "cch_" + ids["conversation_id"].partition("_")[2]
        match row["kind"]:
            case kind if kind in SETTINGS:
                found += ["acc_", "chn_", "prc_", "key_", "cch_", "dash_", "usr_", "inv_", "vwr_"]
            case "contact.updated":
                found += [ids["contact_id"], channels]
            case "contact.merged":  # the merged ones go, the kept ones are read again with their lists
                found += [public_id("cnt", UUID(database.to_json(row["data"])["contact_id"])), ids["contact_id"]]
                found += [
                    public_id("cnv", UUID(database.to_json(row["data"])["conversation_id"])),
                    ids["conversation_id"],
                    "cch_",
                ]
            case "conversation.updated":
                found += [ids["conversation_id"], channels, "cvv_"]
            case "message.created" | "activity.created":  # the conversation's place and preview come with it
                found += [ids["message_id"], ids["card_id"], ids["conversation_id"]]
            case kind if kind.startswith("view."):
                view = UUID(database.to_json(row["data"])["view_id"])
                found += [public_id(prefix, view) for prefix in ("prv", "cvv")]
            case "note.created":
                found += [public_id("note", UUID(database.to_json(row["data"])["note_id"]))]
            case "message.updated":
                found += [ids["message_id"], "att_"]
            case "notification.created" | "notification.read":
                found += ["ntf_", "vwr_"]
            case kind if kind.startswith("payment_request."):
                found += [ids["payment_request_id"], "pay_", "rfd_", "dsp_", "dash_", "prv_"]  # live views follow it
    return iter(found)


async def head(world: World) -> int:
    (row,) = await database.rows("SELECT max(seq) AS seq FROM event")
    return int(row["seq"])


# On SQLite only: what is logged is decided by services, not by the engine.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_whatever_a_mutation_changes_for_a_client_is_named_by_an_event(world: World) -> None:
    wrong, changed_by = [], set()
    for contact in await Contact.all():  # some rows of this world were written directly
        await contact_totals.update(contact.account_id, contact.id)
    before, since = await look(world), await head(world)
    for mutation, arguments in probes.right(world).items():
        answer = await probes.ask(world.product, probes.mutation_document(mutation), arguments, world.team.owner)
        assert answer["data"][mutation]["userErrors"] == [], (mutation, answer)
        if mutation == "signOut":
            break
        after = await look(world)
        told = list(await named(world, since))
        for id in sorted(before.keys() | after.keys()):
            was, now = before.get(id, {}), after.get(id, {})
            if was == now:
                continue
            changed_by.add(mutation)
            fields = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
            follows = fields == ["resendOptions"] and any(name.startswith("cch_") for name in told)
            if not follows and not any(id.startswith(name) for name in told):
                wrong.append(f"{mutation} changes {id[:8]}… {fields} and tells {told}")
        before, since = after, await head(world)
    assert not wrong, "\n".join(wrong)
    # What the others change, no client can see.
    assert set(probes.right(world)) - changed_by == UNSEEN
