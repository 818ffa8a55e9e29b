"""No response reveals anything of another account, over HTTP and WebSocket.

The cases come from the schema: a new argument that takes an id or a cursor, and a new field, fails until it is covered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from graphql import GraphQLObjectType, is_required_argument

from models.ids import PREFIXES
from tests.contracts.stripe_contract import derived_contract
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.contracts.twilio_server import contracts as twilio_contracts
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import GraphQLFailed, Product, key
from tests.flows.probes import OURS, ROLES, THEIRS, House, World

ANYTHING = "anything"

# Arguments of type ID outside of mutations -> the kind of object. Mutations: probes.ID_KINDS, by the field's name.
IDS = {
    "Query.node.id": ANYTHING,
    "Query.nodes.ids": ANYTHING,
    "Query.contact.id": "contact",
    "Query.conversation.id": "conversation",
    "Query.paymentRequest.id": "draft",
    "Query.messagePreview.input.conversationId": "conversation",
    "Query.messagePreview.input.channelId": "channel",
    "Query.messagePreview.input.paymentRequestId": "draft",
    "PaymentRequest.composerInsert.channelId": "channel",
    **{
        f"{owner}.paymentRequests.filter.{name}": kind
        for owner in ("Query", "Contact")
        for name, kind in (("contactIds", "contact"), ("assigneeIds", "user"), ("processorIds", "processor"))
    },
    "Query.conversations.filter.assigneeIds": "user",
    "Query.messages.conversationId": "conversation",
    "Subscription.conversationEvents.conversationId": "conversation",
    "Subscription.contactPaymentEvents.contactId": "contact",
    "Subscription.viewEvents.viewId": "view",
}
# Arguments of type Cursor -> which cursor fits; events are the account's own, the others are places in an order.
CURSORS = {
    **{
        f"Query.{name}.{end}": name
        for name in ("contacts", "conversations", "paymentRequests")
        for end in ("after", "before")
    },
    **{f"Query.{name}.{end}": name for name in ("notifications", "messages", "views") for end in ("after", "before")},
    **{f"Account.invitations.{end}": "invitations" for end in ("after", "before")},
    **{f"Conversation.thread.{end}": "thread" for end in ("after", "before")},
    **{f"Account.{name}.{end}": name for name in ("users", "apiKeys") for end in ("after", "before")},
    **{f"Contact.{name}.{end}": name for name in ("paymentRequests", "payments") for end in ("after", "before")},
    **{f"PaymentRequestView.items.{end}": "paymentRequests" for end in ("after", "before")},
    **{f"ConversationView.items.{end}": "conversations" for end in ("after", "before")},
    **{
        f"Subscription.{name}.after": "event"
        for name in ("inboxEvents", "conversationEvents", "contactPaymentEvents", "notificationEvents", "viewEvents")
    },
    "Mutation.markNotificationsRead.input.upTo": "event",
}
# Arguments of subscriptions that take an id.
OF_FEEDS = {"conversationId": "conversation", "contactId": "contact", "viewId": "view"}
# Fields that need an argument: tried by name in a test below.
WITH_ARGUMENTS = {
    "PaymentRequest.composerInsert",
    *(f"MessagePreview.{name}" for name in ("text", "length", "maxLength", "lengthUnit", "fits", "encoding")),
    *(f"MessagePreview.{name}" for name in ("segments", "remainingInSegment", "reasonsForUcs2", "userErrors")),
    *(f"ComposerInsert.{name}" for name in ("text", "checkoutUrl", "length", "maxLength", "smsSegments", "encoding")),
}
PREVIEW = """query($conversationId: ID!, $channelId: ID!, $paymentRequestId: ID) { messagePreview(input: {
  conversationId: $conversationId, channelId: $channelId, paymentRequestId: $paymentRequestId }) {
  text length maxLength lengthUnit fits encoding segments remainingInSegment reasonsForUcs2 userErrors { code } } }"""
# The kinds of House.ids by the type that node() answers.
NODES = {
    "account": "Account",
    "user": "User",
    "apiKey": "ApiKey",
    "contact": "Contact",
    "conversation": "Conversation",
    "conversationChannel": "ConversationChannel",
    "channel": "Channel",
    "processor": "Processor",
    "draft": "PaymentRequest",
    "payment": "Payment",
    "message": "Message",
    "lost": "Message",
    "card": "ActivityCard",
    "note": "Note",
    "notification": "Notification",
    "view": "PaymentRequestView",
    "conversationView": "ConversationView",
    "invitation": "Invitation",
    "session": "Session",
    "refund": "Refund",
    "dispute": "Dispute",
    "attachment": "Attachment",
    "viewer": "Viewer",
    "dashboard": "DashboardFigures",
}
DEEP = (
    "Contact",
    "Conversation",
    "ConversationChannel",
    "PaymentRequest",
    "PaymentRequestView",
    "ConversationView",
)  # read one level further down


# ------------------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    probes.hash_quickly(monkeypatch)


@pytest.fixture
async def product(database: str, events_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Product]:
    """The server with fake vendors; without its job runner unless a test needs it."""
    async with StripeServer(derived_contract()) as stripe, TwilioServer(twilio_contracts()[0]) as twilio:
        more = {"STRIPE_API_BASE": stripe.url, "TWILIO_API_BASE": twilio.url}
        jobs = str(getattr(request, "param", False)).lower()
        async with harness.in_process(database, events_url, RUN_JOBS=jobs, **harness.MAIL, **more) as running:
            yield running


@pytest.fixture
async def world(bare: Team) -> World:
    return await probes.world(bare)


# ----------------------------------------------------------------------------------------------------------- the schema
def arguments_of(kind: str) -> Iterator[str]:
    """Type.field.argument of every argument of this scalar; mutations' ids aside."""
    for name, found in probes.schema().type_map.items():
        if isinstance(found, GraphQLObjectType) and not name.startswith("__"):
            for field_name, one in found.fields.items():
                for leaf in probes.leaves(one.args):
                    if leaf.type == kind and not (kind == "ID" and name == "Mutation"):
                        yield f"{name}.{field_name}.{leaf.path}"


def test_every_argument_that_takes_an_id_or_a_cursor_is_covered() -> None:
    assert sorted(IDS) == sorted(arguments_of("ID"))
    assert sorted(CURSORS) == sorted(arguments_of("Cursor"))
    given = {
        leaf.name for one in probes.root("Mutation").values() for leaf in probes.leaves(one.args) if leaf.type == "ID"
    }
    assert given == set(probes.ID_KINDS)
    assert set(NODES.values()) == set(PREFIXES)


def readable() -> set[str]:
    """Type.field of everything that a client can read; payloads only hand on objects."""
    roots = {"Query", "Mutation", "Subscription"}
    return {
        f"{name}.{field_name}"
        for name, found in probes.schema().type_map.items()
        if isinstance(found, GraphQLObjectType) and not name.startswith("__") and name not in roots
        for field_name in found.fields
        if not name.endswith("Payload") and not any(base.name == "UserError" for base in found.interfaces)
    }


def documents() -> tuple[dict[str, str], dict[str, str], dict[str, str], set[str]]:
    """Queries by root field, node queries by kind, subscriptions by field, and all fields that they select."""
    seen: set[str] = set()

    def note(kind: str, name: str) -> None:
        seen.add(f"{kind}.{name}")

    def whole(field_name: str, one: Any, depth: int) -> str:
        given = {n: a for n, a in one.args.items() if is_required_argument(a)}
        passed = "(first: 5)" if "first" in one.args else probes.passed(given)
        fragments: dict[str, str] = {}
        selected = probes.selection(one.type, depth, note, fragments=fragments)
        return f"{probes.declared(given)} {{ {field_name}{passed} {{ {selected} }} }} {' '.join(fragments.values())}"

    queries = {
        name: f"query{whole(name, one, 2)}"
        for name, one in probes.root("Query").items()
        if not any(is_required_argument(a) for a in one.args.values())
    }
    selected = probes.selection(probes.root("Query")["messages"].type, 2, note)
    queries["messages"] = f'query {{ messages(search: "a", first: 5) {{ {selected} }} }}'
    nodes = {
        kind: f"query($id: ID!) {{ node(id: $id) {{ ... on {name} {{ "
        f"{probes.selection(probes.schema().get_type(name), 2 if name in DEEP else 1, note)} }} }} }}"
        for kind, name in NODES.items()
    }
    feeds = {
        name: f"subscription{whole(name, one, 2 if name == 'dashboardEvents' else 1)}"
        for name, one in probes.root("Subscription").items()
    }
    return queries, nodes, feeds, seen


def test_every_field_is_read_by_a_document_below() -> None:
    *_, seen = documents()
    assert sorted(readable() - seen - WITH_ARGUMENTS) == []


# ---------------------------------------------------------------------------------------------------------------- tests
def foreign_words(house: House) -> list[str]:
    """Words that would reveal the other account."""
    links = [request["checkoutUrl"].rpartition("/")[2] for request in house.requests.values()]
    rows = [row["id"] for row in (*house.requests.values(), *house.contacts.values())]
    return [THEIRS, house.team.account_id, *house.ids.values(), *house.team.channels.values(), *links, *rows]


def leaks(answer: object, words: list[str]) -> list[str]:
    text = json.dumps(answer)
    return [word for word in words if word in text]


def unexpected(answer: Mapping[str, Any], *, forbidden: bool) -> list[Any]:
    """Errors, but for FORBIDDEN of the lists that not every role may read; if `forbidden`, they are required."""
    refused = [("FORBIDDEN", "apiKeys"), ("FORBIDDEN", "invitations")]
    found = [(error["extensions"]["code"], error["path"][-1]) for error in answer.get("errors") or ()]
    if forbidden and not found:
        return ["not refused"]
    return [error for error in found if not forbidden or error not in refused]


async def test_no_read_tells_of_another_account(world: World) -> None:
    """One server for all that only reads."""
    wrong = [
        *await fields(world),
        *await ids_of_queries(world),
        *await halves_of_two_accounts(world),
        *await cursors_of_pages(world),
    ]
    assert not wrong, "\n".join(wrong)


async def fields(world: World) -> list[str]:
    """Every field of every type, for each role, shows nothing of the other account."""
    queries, nodes, _, _ = documents()
    words = foreign_words(world.other)
    wrong = []
    for role in ROLES:
        for name, document in queries.items():
            answer = await probes.ask(world.product, document, {}, world.tokens[role])
            forbidden = role != "OWNER" and ("apiKeys" in document or "invitations" in document)
            if unexpected(answer, forbidden=forbidden) or leaks(answer, words):
                wrong.append(f"{role} {name}: {leaks(answer, words)} {answer.get('errors')}")
        for kind, document in nodes.items():
            answer = await probes.ask(world.product, document, {"id": world.ids[kind]}, world.tokens[role])
            hidden = (kind in ("apiKey", "invitation", "session") and role != "OWNER") or (
                kind in ("notification", "viewer") and role != "OWNER"
            )
            hidden = hidden or (kind == "note" and role == "VIEWER")
            forbidden = role != "OWNER" and "apiKeys" in document and not hidden
            wrong_errors = unexpected(answer, forbidden=forbidden)
            if wrong_errors or (answer["data"]["node"] is None) is not hidden or leaks(answer, words):
                wrong.append(f"{role} {kind}: {leaks(answer, words)} {answer}")
    # The words would be found, were they there.
    theirs = await probes.ask(world.product, queries["conversations"], {}, world.other.tokens["VIEWER"])
    assert set(leaks(theirs, words)) >= {THEIRS, world.other.ids["contact"]}
    assert not leaks(theirs, [OURS])
    return wrong


async def ids_of_queries(world: World) -> list[str]:
    """Every id in a query, for each role: another account's id gets the response of an unknown one."""
    _, nodes, _, _ = documents()
    tried = {f"node as {kind}": (document, kind, "id") for kind, document in nodes.items()}
    for kind in NODES:
        tried[f"nodes of {kind}"] = ("query($id: ID!) { nodes(ids: [$id]) { __typename id } }", kind, "id")
    for path, kind in IDS.items():
        owner, name, argument = path.split(".", 2)
        if owner == "Query" and kind != ANYTHING and "." not in argument and name != "messages":
            one = probes.root("Query")[name]
            selected = probes.selection(one.type, 1, lambda kind, name: None)
            tried[path] = (f"query($id: ID!) {{ {name}({argument}: $id) {{ {selected} }} }}", kind, "id")
        if ".filter." in path:
            listed = f"{name}({argument.replace('.', ': {')}: [$id]}}) {{ nodes {{ id }} totalCount }}"
            of = f"contact(id: $contact) {{ {listed} }}" if owner == "Contact" else listed
            head = "$contact: ID!, $id: ID!" if owner == "Contact" else "$id: ID!"
            tried[path] = (f"query({head}) {{ {of} }}", kind, "id")
    listed = 'messages(search: "a", conversationId: $id) { nodes { id } totalCount }'
    tried["Query.messages.conversationId"] = (f"query($id: ID!) {{ {listed} }}", "conversation", "id")
    insert = (
        "query($request: ID!, $id: ID!) { paymentRequest(id: $request) { composerInsert(channelId: $id) { text } } }"
    )
    tried["PaymentRequest.composerInsert.channelId"] = (insert, "channel", "id")
    own = {"conversationId": "conversation", "channelId": "channel", "paymentRequestId": "draft"}
    preview = {argument: world.ids[kind] for argument, kind in own.items()}
    for argument, kind in own.items():
        tried[f"Query.messagePreview.input.{argument}"] = (PREVIEW, kind, argument)
    assert (await world.product.one(PREVIEW, preview, token=world.team.agent))["userErrors"] == []
    wrong = []
    for role in ROLES:
        for name, (document, kind, argument) in tried.items():
            answers = []
            for id in (probes.foreign_to(world.ids[kind]), world.other.ids[kind]):
                own_ids = {"request": world.ids["draft"], "contact": world.ids["contact"]}
                variables = {**own_ids, **preview, argument: id}
                answers.append(await probes.ask(world.product, document, variables, world.tokens[role]))
            unknown, foreign = answers
            if unknown != foreign or _found(unknown):
                wrong.append(f"{role} {name}: {foreign}, unknown: {unknown}")
    return wrong


def _found(answer: Mapping[str, Any]) -> bool:
    """Whether anything but null was answered."""
    (value,) = (answer.get("data") or {"nothing": None}).values()
    nothing = {"nodes": [], "totalCount": 0}
    return value not in (None, [None], {"composerInsert": None}, nothing, {"paymentRequests": nothing})


async def halves_of_two_accounts(world: World) -> list[str]:
    """Ids composed of two accounts' rows are unknown."""
    ours, theirs = world.ids["conversationChannel"].split("_"), world.other.ids["conversationChannel"].split("_")
    document = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    mixed = [f"cch_{ours[1]}_{theirs[2]}", f"cch_{theirs[1]}_{ours[2]}"]
    assert await world.product.one(document, {"ids": mixed}, token=world.team.owner) == [None, None]
    own = await world.product.one(document, {"ids": ["_".join(ours)]}, token=world.team.owner)
    assert own == [{"id": world.ids["conversationChannel"]}]
    return []


async def test_no_write_reaches_another_account(world: World) -> None:
    wrong = [*await ids_of_mutations(world), *await foreign_links(world)]
    assert not wrong, "\n".join(wrong)


async def ids_of_mutations(world: World) -> list[str]:
    """Every id in an input, for each role: another account's id gets the response of an unknown one, and nothing changes."""
    wrong = []
    before = await probes.snapshot()
    for role in ROLES:
        for mutation, one in probes.root("Mutation").items():
            document = probes.mutation_document(mutation)
            for leaf in probes.leaves(one.args):
                if leaf.type != "ID":
                    continue
                good = probes.right(world)[mutation]
                kind = probes.ID_KINDS[leaf.name]
                answers = []
                for id in (probes.foreign_to(world.ids[kind]), world.other.ids[kind]):
                    arguments = probes.nested(leaf.path, id, good, one.args)
                    answers.append(await probes.ask(world.product, document, arguments, world.tokens[role]))
                unknown, foreign = answers
                codes = {e["code"] for e in foreign.get("data", {}).get(mutation, {}).get("userErrors", [])}
                if unknown != foreign or not codes or codes - {"NOT_FOUND", "FORBIDDEN"}:
                    wrong.append(f"{role} {mutation}.{leaf.path}: {foreign}, unknown: {unknown}")
    return wrong + probes.changed(before, await probes.snapshot())


async def feeds_from_foreign_places(world: World) -> list[str]:
    """A subscription to another account's id or cursor fails like an unknown one, for each role."""
    *_, feeds, _ = documents()
    wrong = []

    async def first(document: str, variables: Mapping[str, Any], token: str) -> Any:
        async with world.product.subscribe(document, variables, token=token) as feed:
            try:
                return await feed.next()
            except GraphQLFailed as failed:
                return failed.errors

    for role in ROLES:
        token = world.tokens[role]
        for path, kind in IDS.items():
            owner, name, argument = path.split(".", 2)
            if owner != "Subscription":
                continue
            unknown = await first(feeds[name], {argument: probes.foreign_to(world.ids[kind])}, token)
            foreign = await first(feeds[name], {argument: world.other.ids[kind]}, token)
            if unknown != foreign or [e["extensions"]["code"] for e in foreign] != ["NOT_FOUND"]:
                wrong.append(f"{role} {path}: {foreign}, unknown: {unknown}")
        for path in CURSORS:
            owner, name, argument = path.split(".", 2)
            if owner != "Subscription":
                continue
            one = probes.root("Subscription")[name]
            document = f"subscription{probes.declared(one.args)} {{ {name}{probes.passed(one.args)} {{ __typename }} }}"
            own = {n: world.ids[kind] for n, kind in OF_FEEDS.items() if n in one.args}
            rubbish = await first(document, {**own, argument: "rubbish"}, token)
            foreign = await first(document, {**own, argument: world.other.cursors["event"]}, token)
            if rubbish != foreign or [e["extensions"]["code"] for e in foreign] != ["BAD_REQUEST"]:
                wrong.append(f"{role} {path}: {foreign}, rubbish: {rubbish}")
    return wrong


async def cursors_of_pages(world: World) -> list[str]:
    """Another account's cursor is a position or refused; it never returns that account's rows."""
    words = foreign_words(world.other)
    rows = "edges { node { __typename id } }"
    tried = {
        "Account.users": ("users", f"account {{ users(%s) {{ {rows} }} }}"),
        "Account.apiKeys": ("apiKeys", f"account {{ apiKeys(%s) {{ {rows} }} }}"),
        "Account.invitations": ("invitations", f"account {{ invitations(%s) {{ {rows} }} }}"),
        "Conversation.thread": ("thread", f"conversation(id: $conversation) {{ thread(%s) {{ {rows} }} }}"),
        "Contact.paymentRequests": ("paymentRequests", f"contact(id: $contact) {{ paymentRequests(%s) {{ {rows} }} }}"),
        "Contact.payments": ("payments", f"contact(id: $contact) {{ payments(%s) {{ {rows} }} }}"),
        "PaymentRequestView.items": (
            "paymentRequests",
            f"node(id: $view) {{ ... on PaymentRequestView {{ items(%s) {{ {rows} }} }} }}",
        ),
        "ConversationView.items": (
            "conversations",
            f"node(id: $conversationView) {{ ... on ConversationView {{ items(%s) {{ {rows} }} }} }}",
        ),
    }
    for path, cursor in CURSORS.items():
        owner, name, _ = path.split(".", 2)
        if owner == "Query":
            search = 'search: "a", ' if name == "messages" else ""
            tried[f"{owner}.{name}"] = (cursor, f"{name}({search}%s) {{ {rows} }}")
    assert {path.rpartition(".")[0] for path in CURSORS if not path.startswith(("Sub", "Mut"))} == set(tried)
    ids = {kind: world.ids[kind] for kind in ("conversation", "contact", "view", "conversationView")}
    wrong = []
    for name, (cursor, body) in tried.items():
        for argument in ("first: 100, after: $cursor", "last: 100, before: $cursor"):
            head = ", ".join(f"${n}: ID!" for n in ids if f"${n})" in body)
            document = f"query($cursor: Cursor!{', ' + head if head else ''}) {{ {body % argument} }}"
            variables = {**ids, "cursor": world.other.cursors[cursor]}
            answer = await probes.ask(world.product, document, variables, world.team.owner)
            codes = {e["extensions"]["code"] for e in answer.get("errors", [])}
            if leaks(answer, words) or codes - {"BAD_REQUEST"}:
                wrong.append(f"{name}({argument}): {answer}")
    return wrong


async def foreign_links(world: World) -> list[str]:
    """Another account's payment link in a message is plain text, like an unknown link."""
    before = [await world.other.team.read(request) for request in world.other.requests.values()]
    link = world.other.requests["draft"]["checkoutUrl"]
    unknown = link[:-22] + "A" * 22
    for text in (unknown, link):
        payload = await world.product.ok(
            d.SEND_MESSAGE,
            {
                "idempotencyKey": key(),
                "conversationId": world.ids["conversation"],
                "channelId": world.ids["channel"],
                "body": text,
            },
            token=world.team.owner,
        )
        assert (payload["message"]["paymentRequests"], payload["activityCards"]) == ([], [])
    assert [await world.other.team.read(request) for request in world.other.requests.values()] == before
    return []


@pytest.mark.parametrize("product", [True], indirect=True, ids=["with jobs"])
async def test_no_feed_tells_of_another_account(world: World) -> None:
    await nothing_foreign_is_pushed(world)
    wrong = await feeds_from_foreign_places(world)
    assert not wrong, "\n".join(wrong)


async def nothing_foreign_is_pushed(world: World) -> None:
    """All feeds of two roles, while the other account is active, get only their own account's events."""
    *_, feeds, _ = documents()
    ids = {argument: world.ids[kind] for argument, kind in OF_FEEDS.items()}
    words = foreign_words(world.other)
    ours, theirs = world.team, world.other.team
    async with AsyncExitStack() as stack:
        opened = {}
        for role in ("OWNER", "VIEWER"):
            for name, document in feeds.items():
                own = {n: ids[n] for n in probes.root("Subscription")[name].args if n in ids}
                feed = await stack.enter_async_context(world.product.subscribe(document, own, token=world.tokens[role]))
                assert (await feed.next())["__typename"] == "Subscribed"
                opened[role, name] = feed
        other = await theirs.contact(f"Zoe {THEIRS}", 7)
        request = await theirs.request(other, amount={"amount": "77.77", "currency": "EUR"})
        sent = await theirs.send(request)
        await theirs.pay(request)
        await probes.writes(theirs, "SMS", "+14155552607", f"Thanks {THEIRS}")
        voided = await theirs.request(other)
        await theirs.product.ok(d.VOID, {"paymentRequestId": voided["id"]}, token=theirs.agent)
        draft = {"conversationId": other["conversation"]["id"], "text": THEIRS}
        await theirs.product.ok(d.SAVE_DRAFT, draft, token=theirs.agent)
        async with asyncio.timeout(10):
            while not any(
                i["id"] == sent["message"]["id"] and i["deliveryStatus"] == "DELIVERED"
                for i in await theirs.thread(other)
                if i["__typename"] == "Message"
            ):
                await asyncio.sleep(0.05)
        words += ['"EUR"', other["id"], other["conversation"]["id"], request["id"], voided["id"], sent["message"]["id"]]

        # Ours comes after all of theirs, in every feed.
        mine = world.requests["sent"]
        await ours.pay(mine)
        paid = {"paymentRequest__id": mine["id"], "paymentRequest__status": "PAID"}
        last: dict[str, tuple[str, dict[str, Any]]] = {
            "inboxEvents": ("PaymentRequestUpdated", paid),
            "conversationEvents": ("PaymentRequestUpdated", paid),
            "contactPaymentEvents": ("PaymentRequestUpdated", paid),
            "notificationEvents": ("NotificationAdded", {"edge__node__paymentRequest__id": mine["id"]}),
            "dashboardEvents": ("DashboardUpdated", {}),
            "viewEvents": ("ViewItemMoved", {"edge__node__id": mine["id"], "edge__node__status": "PAID"}),
        }
        for (role, name), feed in opened.items():
            if name == "notificationEvents" and role == "VIEWER":
                await feed.nothing()  # an API key is nobody's
                continue
            typename, fields = last[name]
            await feed.until(typename, **fields)
            assert leaks(feed.seen, words) == [], (role, name)
