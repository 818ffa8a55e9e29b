"""The web chat: messages, payments, access, identities and limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect

from models.tables import AuditEntry, Contact, ContactAddress, Message, Visitor
from services.web_chat import identity as chat_identity
from services.web_chat import thread, visits
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team, opened
from tests.flows.harness import Feed, GraphQLFailed, Product, key

SITE = "https://shop.example"

CARD = "id number productName amount { amount currency formatted } amountDue { amount } status payUrl"
MESSAGE = f"id cursor writtenBy author body clientMessageId payments {{ {CARD} }}"
VISIT = f"identified business {{ name }} eventCursor messages {{ hasMore nodes {{ {MESSAGE} }} }}"
ERRORS = "userErrors { code message field }"
START = f"mutation($input: StartVisitInput!) {{ startVisit(input: $input) {{ token visit {{ {VISIT} }} {ERRORS} }} }}"
READ = f"{{ visit {{ {VISIT} }} }}"
WRITE = f"mutation($input: SendVisitorMessageInput!) {{ sendVisitorMessage(input: $input) {{ message {{ {MESSAGE} }} {ERRORS} }} }}"
SHOWN = f"mutation($input: MarkShownInput!) {{ markShown(input: $input) {{ {ERRORS} }} }}"
EVENTS = f"""subscription($after: Cursor) {{ visitorEvents(after: $after) {{ __typename ... on VisitorEventBase {{ cursor }}
  ... on VisitorResyncRequired {{ reason }}
  ... on VisitorMessageChanged {{ message {{ {MESSAGE} }} }}
  ... on PaymentCardChanged {{ card {{ {CARD} }} }} }} }}"""
CONNECT = f"""mutation($input: ConnectChannelInput!) {{ connectChannel(input: $input) {{
  channel {{ id kind provider connected allowedOrigins widgetSnippet }} {ERRORS} }} }}"""
ROTATE = f"mutation($input: RotateIdentitySecretInput!) {{ rotateIdentitySecret(input: $input) {{ secret channel {{ id }} {ERRORS} }} }}"


@dataclass
class Browser:
    """A visitor's browser, with the widget's state."""

    product: Product
    key: str
    token: str | None = None
    identity: str | None = None

    async def raw(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.identity is not None:
            headers["Paythread-Identity"] = self.identity
        body = {"query": query, "variables": variables or {}}
        found: dict[str, Any] = (await self.product.http.post("/widget/graphql", json=body, headers=headers)).json()
        return found

    async def one(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        body = await self.raw(query, variables)
        if body.get("errors"):
            raise GraphQLFailed(body["errors"])
        (value,) = body["data"].values()
        return value

    async def code(self, query: str, variables: Mapping[str, Any] | None = None) -> str | None:
        """The code of the top-level error, or of the only user error."""
        try:
            value = await self.one(query, variables)
        except GraphQLFailed as failed:
            return failed.code
        return value["userErrors"][0]["code"] if value.get("userErrors") else None

    async def start(self) -> dict[str, Any]:
        """Call startVisit with the browser's state; store the token."""
        given = {"widgetKey": self.key, "token": self.token, "identity": self.identity}
        payload: dict[str, Any] = await self.one(START, {"input": given})
        if payload["token"] is not None:
            self.token = payload["token"]
        return payload

    async def writes(self, body: str, client_id: str | None = None) -> dict[str, Any]:
        payload = await self.one(WRITE, {"input": {"clientMessageId": client_id or key(), "body": body}})
        assert payload["userErrors"] == [], payload
        message: dict[str, Any] = payload["message"]
        return message

    async def read(self) -> list[dict[str, Any]]:
        visit = await self.one(READ)
        messages: list[dict[str, Any]] = visit["messages"]["nodes"]
        return messages

    async def shown(self, message: Mapping[str, Any], *, read: bool = False) -> None:
        payload = await self.one(SHOWN, {"input": {"upTo": message["id"], "read": read}})
        assert payload["userErrors"] == []

    @asynccontextmanager
    async def listen(self, after: str | None = None) -> AsyncIterator[Feed]:
        """Subscribe to visitorEvents; the token is sent in connection_init."""
        url = self.product.base_url.replace("http", "ws", 1) + "/widget/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"], close_timeout=1) as ws:  # type: ignore[list-item]
            init = {"Authorization": f"Bearer {self.token}"}
            if self.identity is not None:
                init["Paythread-Identity"] = self.identity
            await ws.send(json.dumps({"type": "connection_init", "payload": init}))
            assert json.loads(await asyncio.wait_for(ws.recv(), 10))["type"] == "connection_ack"
            payload = {"query": EVENTS, "variables": {"after": after}}
            await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            yield Feed(ws)


@dataclass
class Widget:
    """A team whose site has the widget."""

    team: Team
    id: str
    secret: str = ""

    def browser(self, **more: Any) -> Browser:
        return Browser(self.team.product, self.id, **more)

    def identity(self, subject: str = "42", **changes: Any) -> str:
        """A signed identity, as the site's server makes it; `secret` and `algorithm` are not claims."""
        now = datetime.now(UTC)
        secret, algorithm = changes.pop("secret", self.secret), changes.pop("algorithm", "HS256")
        claims = {"aud": self.id, "sub": subject, "iat": now, "exp": now + timedelta(hours=1), **changes}
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret, algorithm=algorithm)


async def widget_of(team: Team, *origins: str) -> Widget:
    given = {"kind": "WEB_CHAT", "provider": "web_chat", "allowedOrigins": list(origins or (SITE,))}
    channel = (await team.product.ok(CONNECT, given, token=team.owner))["channel"]
    team.channels["WEB_CHAT"] = channel["id"]
    secret = (await team.product.ok(ROTATE, {"channelId": channel["id"]}, token=team.owner))["secret"]
    return Widget(team, channel["id"], secret)


@pytest.fixture
async def widget(bare: Team) -> Widget:
    await bare.connect_sandbox()
    return await widget_of(bare)


async def contact_of(team: Team) -> dict[str, Any]:
    """The newest conversation's contact, as Team's helpers take it."""
    found = await team.product.gql("{ conversations(first: 1) { nodes { id contact { id name } } } }", token=team.agent)
    (node,) = found["conversations"]["nodes"]
    return {**node["contact"], "conversation": {"id": node["id"]}}


async def says(team: Team, contact: Mapping[str, Any], body: str) -> dict[str, Any]:
    """The agent answers on the web chat."""
    given = {"conversationId": contact["conversation"]["id"], "channelId": team.channels["WEB_CHAT"], "body": body}
    message: dict[str, Any] = (
        await team.product.ok(d.SEND_MESSAGE, {"idempotencyKey": key(), **given}, token=team.agent)
    )["message"]
    return message


async def until_sent(team: Team, contact: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The thread's outgoing messages, once none of `count` is pending."""
    async with asyncio.timeout(10):
        while True:
            items = [i for i in await team.thread(dict(contact)) if i.get("direction") == "OUTBOUND"]
            if len(items) == count and all(i["deliveryStatus"] not in ("QUEUED", "SENDING") for i in items):
                return items
            await asyncio.sleep(0.05)


# -------------------------------------------------------------------------------------------------------------- story
async def test_a_visitor_is_asked_in_the_widget_and_its_card_turns_paid_live_on_both_sides(widget: Widget) -> None:
    team, visitor = widget.team, widget.browser()
    begun = await visitor.start()
    assert begun["visit"]["business"] == {"name": "Acme Cleaning"}
    assert begun["visit"]["messages"] == {"hasMore": False, "nodes": []}
    assert await Contact.all().count() == 0
    async with team.inbox() as inbox, visitor.listen(begun["visit"]["eventCursor"]) as feed:
        await opened(inbox)
        assert (await feed.next())["__typename"] == "VisitorSubscribed"

        # The visitor writes: the team's inbox has it live, and so has the widget, whose contact is new.
        written = await visitor.writes("Do you clean on Sundays?", "first-message")
        added = await inbox.until("ThreadItemAdded")
        assert (added["edge"]["node"]["direction"], added["edge"]["node"]["body"]) == (
            "INBOUND",
            "Do you clean on Sundays?",
        )
        heard = await feed.until("VisitorMessageChanged")
        assert {**heard["message"], "cursor": ""} == {**written, "cursor": ""}  # sealed anew each time
        assert (written["writtenBy"], written["author"], written["clientMessageId"]) == (
            "VISITOR",
            None,
            "first-message",
        )

        # The agent asks for money: the widget gets message and card.
        contact = await contact_of(team)
        request = await team.request(contact, amount={"amount": "25.00"})
        message = (await team.send(request, "WEB_CHAT"))["message"]
        asked = (await feed.until("VisitorMessageChanged", message__id=message["id"]))["message"]
        assert (asked["writtenBy"], asked["author"], asked["clientMessageId"]) == ("BUSINESS", "Ana Agent", None)
        (card,) = asked["payments"]
        assert (card["productName"], card["amount"]["formatted"], card["status"]) == ("Deep clean", "$25.00", "OPEN")
        assert card["payUrl"] == request["checkoutUrl"]

        # Shown, then seen: the delivery states of the message and of the request.
        await inbox.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="SENT")
        await visitor.shown(asked)
        await inbox.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="DELIVERED")
        await visitor.shown(asked, read=True)
        await inbox.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="READ")
        assert (await team.read(request))["deliveryState"] == "READ"
        await visitor.shown(asked)
        assert (await team.read(request))["deliveryState"] == "READ"

        # It is paid: the card turns Paid in the widget and in the inbox.
        await team.pay(request)
        paid = await feed.until("PaymentCardChanged", card__status="PAID")
        assert (paid["card"]["id"], paid["card"]["amountDue"]["amount"]) == (card["id"], "0.00")
        await team.until_paid(inbox, request)
    assert await team.cards(contact) == [("PAYMENT_REQUEST", "SENT"), ("PAYMENT_RECEIVED", "PAID")]
    assert [(m["writtenBy"], [c["status"] for c in m["payments"]]) for m in await visitor.read()] == [
        ("VISITOR", []),
        ("BUSINESS", ["PAID"]),
    ]


async def test_a_feed_resumes_without_a_gap_or_a_double_and_says_when_it_can_not(widget: Widget) -> None:
    team, visitor = widget.team, widget.browser()
    await visitor.start()
    await visitor.writes("Hello")
    contact = await contact_of(team)
    async with visitor.listen() as feed:
        cursor = (await feed.next())["cursor"]
    sent = [(await says(team, contact, f"Answer {n}"))["id"] for n in range(3)]
    await until_sent(team, contact, 3)
    async with visitor.listen(cursor) as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        seen: dict[str, str] = {}
        while len(seen) < 3:
            event = await feed.until("VisitorMessageChanged")
            seen[event["message"]["id"]] = event["message"]["body"]
        assert list(seen) == sent
    last = (await visitor.one(READ))["eventCursor"]
    async with visitor.listen(last) as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        await feed.nothing()
    account = await team.product.one("{ conversations(first: 1) { eventCursor } }", token=team.agent)
    neighbour = (await widget_of(await probes.newcomer(team.product, "Neighbour"))).browser()
    theirs = (await neighbour.start())["visit"]["eventCursor"]
    for wrong in ("rubbish", last[:-4] + "AAAA", account["eventCursor"], theirs):
        async with visitor.listen(wrong) as feed:
            event = await feed.next()
            assert (event["__typename"], event["reason"]) == ("VisitorResyncRequired", "OTHER_EPOCH")


async def test_the_same_message_sent_again_or_concurrently_is_stored_once(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    first = await asyncio.gather(*(visitor.writes("Hello", "the-same-id") for _ in range(5)))
    again = await visitor.writes("Something else", "the-same-id")
    assert {m["id"] for m in (*first, again)} == {first[0]["id"]}
    assert again["body"] == "Hello"
    assert [m["body"] for m in await visitor.read()] == ["Hello"]
    assert await Contact.all().count() == await Message.all().count() == 1


async def test_a_long_conversation_is_read_page_by_page(widget: Widget) -> None:
    devices = [widget.browser(identity=widget.identity("42")) for _ in range(2)]
    for device in devices:
        await device.start()
    for n in range(53):
        await devices[n % 2].writes(f"Message {n}")
    visitor = devices[0]
    page = (
        "query($before: Cursor, $after: Cursor) { visit { messages(before: $before, after: $after) "
        f"{{ hasMore nodes {{ {MESSAGE} }} }} }} }}"
    )
    newest = (await visitor.one(page))["messages"]
    assert [m["body"] for m in newest["nodes"]] == [f"Message {n}" for n in range(3, 53)]
    assert newest["hasMore"] is True
    older = (await visitor.one(page, {"before": newest["nodes"][0]["cursor"]}))["messages"]
    assert ([m["body"] for m in older["nodes"]], older["hasMore"]) == (["Message 0", "Message 1", "Message 2"], False)
    newer = (await visitor.one(page, {"after": newest["nodes"][-3]["cursor"]}))["messages"]
    assert ([m["body"] for m in newer["nodes"]], newer["hasMore"]) == (["Message 51", "Message 52"], False)
    neighbour = (await widget_of(await probes.newcomer(widget.team.product, "Neighbour"))).browser()
    theirs = (await neighbour.start())["visit"]["eventCursor"]
    assert await visitor.code(page, {"before": theirs}) == "BAD_REQUEST"
    both = {"before": newest["nodes"][0]["cursor"], "after": newest["nodes"][0]["cursor"]}
    assert await visitor.code(page, both) == await visitor.code(page, {"before": "rubbish"}) == "BAD_REQUEST"


# ---------------------------------------------------------------------------------------------------------- isolation
async def test_a_visitor_sees_nothing_of_the_team_of_other_visitors_or_of_other_channels(widget: Widget) -> None:
    team = widget.team
    await team.connect_channels()
    team.channels["WEB_CHAT"] = widget.id
    mine, other = widget.browser(), widget.browser()
    begun = await mine.start()
    await other.start()
    await mine.writes("Hello from me")
    contact = await contact_of(team)
    async with mine.listen(begun["visit"]["eventCursor"]) as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        assert (await feed.next())["message"]["body"] == "Hello from me"
        # Another visitor, the team's own work, drafts, and what goes to the same person on another channel.
        theirs = await other.writes("Xylofoon")
        maria = await team.contact("Maria Xylofoon")
        await team.send(await team.request(maria, productName="Xylofoon"))
        draft = await team.request(contact, productName="Xylofoon draft")
        await team.product.ok(
            "mutation($input: UpdateContactInput!) { updateContact(input: $input) { userErrors { code message field } } }",
            {"contactId": contact["id"], "name": "Xylofoon", "phone": "+14155552699"},
            token=team.agent,
        )
        await team.send(await team.request(contact, productName="Xylofoon by SMS"), "SMS")
        await team.product.ok(
            f"mutation($input: SaveDraftInput!) {{ saveDraft(input: $input) {{ {ERRORS} }} }}",
            {"conversationId": contact["conversation"]["id"], "text": "Xylofoon"},
            token=team.agent,
        )
        await team.product.ok(d.VOID, {"paymentRequestId": draft["id"], "reason": "Xylofoon"}, token=team.agent)
        answer = await says(team, contact, "The end")
        seen = await feed.until("VisitorMessageChanged", message__id=answer["id"])
        assert [e["__typename"] for e in feed.seen] == [
            "VisitorSubscribed",
            "VisitorMessageChanged",
            "VisitorMessageChanged",
        ]
    assert "Xylofoon" not in json.dumps([*feed.seen, await mine.raw(READ)])
    assert [m["body"] for m in await mine.read()] == ["Hello from me", "The end"]
    assert [m["body"] for m in await other.read()] == ["Xylofoon"]
    # Another's message is no message, and its state does not move.
    unknown = {"upTo": probes.foreign_to(theirs["id"]), "read": True}
    for wrong in ({"upTo": theirs["id"], "read": True}, unknown, {"upTo": "msg_1"}):
        assert await mine.code(SHOWN, {"input": wrong}) == "INVALID"
    assert await other.code(SHOWN, {"input": {"upTo": seen["message"]["id"], "read": True}}) == "INVALID"
    assert (await Message.get(id=probes.row_id(answer["id"]))).delivery_status == "SENT"


async def test_what_a_key_of_the_team_sends_comes_from_the_business(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    await visitor.writes("Hello")
    contact = await contact_of(widget.team)
    widget.team.agent = await probes.api_key(widget.team, "AGENT")
    await says(widget.team, contact, "From a program")
    await until_sent(widget.team, contact, 1)
    assert [m["author"] for m in await visitor.read()] == [None, "Acme Cleaning"]


async def test_an_unknown_token_or_one_of_another_widget_begins_a_new_visit(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    await visitor.writes("Hello")
    kept = visitor.token
    assert (await visitor.start())["token"] == kept
    neighbour = await widget_of(await probes.newcomer(widget.team.product, "Neighbour"))
    there = neighbour.browser(token=kept)
    assert (await there.start())["visit"]["messages"]["nodes"] == []
    assert there.token != kept
    for wrong in ("", "ptv_unknown", "x" * 5000, widget.team.agent):
        answer = await widget.browser().one(START, {"input": {"widgetKey": widget.id, "token": wrong}})
        assert answer["token"] not in (None, kept, wrong)
        assert answer["visit"]["messages"]["nodes"] == []
    rows = [(row.token_hash, str(row.id)) for row in await Visitor.all()]
    assert kept is not None
    assert kept not in json.dumps(rows)
    assert len(kept) >= 40


async def test_no_credential_of_one_side_opens_the_other(widget: Widget) -> None:
    product, visitor = widget.team.product, widget.browser()
    assert await visitor.code(READ) == "UNAUTHENTICATED"
    await visitor.start()
    for query in ("{ viewer { name } }", d.CONVERSATIONS):
        with pytest.raises(GraphQLFailed) as refused:
            await product.gql(query, token=visitor.token)
        assert refused.value.code == "UNAUTHENTICATED"
    assert await widget.browser(token=widget.team.owner).code(READ) == "UNAUTHENTICATED"
    # The visitor's schema has no way to the team's objects.
    assert await visitor.code("{ conversations(first: 1) { nodes { id } } }") == "BAD_REQUEST"


async def test_an_unknown_a_disconnected_and_an_empty_widget_answer_alike(widget: Widget) -> None:
    team, visitor = widget.team, widget.browser()
    await visitor.start()
    closed = {"channelId": widget.id, "kind": "WEB_CHAT", "provider": "web_chat", "allowedOrigins": []}
    await team.product.ok(CONNECT, closed, token=team.owner)
    assert await visitor.code(READ) == "UNAUTHENTICATED"
    simulated = await team.product.ok(
        d.CONNECT_CHANNEL, {"kind": "WEB_CHAT", "provider": "simulated"}, token=team.owner
    )
    answers = []
    for name in (widget.id, probes.foreign_to(widget.id), "rubbish", simulated["channel"]["id"]):
        answers.append(await Browser(team.product, name).raw(START, {"input": {"widgetKey": name}}))
    await team.product.ok(CONNECT, {**closed, "allowedOrigins": [SITE]}, token=team.owner)
    assert len(await visitor.read()) == 0
    await team.product.ok(d.DISCONNECT_CHANNEL, {"channelId": widget.id}, token=team.owner)
    answers.append(await Browser(team.product, widget.id).raw(START, {"input": {"widgetKey": widget.id}}))
    assert len({json.dumps(answer) for answer in answers}) == 1
    assert answers[0]["data"]["startVisit"]["userErrors"][0]["code"] == "WIDGET_CLOSED"
    assert await visitor.code(READ) == "UNAUTHENTICATED"


# ----------------------------------------------------------------------------------------------------------- identity
async def test_a_verified_person_has_one_conversation_on_every_device(widget: Widget) -> None:
    team = widget.team
    laptop = widget.browser(identity=widget.identity("42", name="Maria Lopez", email="Maria@Example.com"))
    phone = widget.browser(identity=widget.identity("42"))
    begun = await phone.start()
    async with phone.listen(begun["visit"]["eventCursor"]) as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        assert (await laptop.start())["visit"]["identified"] is True
        await laptop.writes("Hello from the laptop")
        heard = (await feed.until("VisitorMessageChanged"))["message"]
        assert (heard["body"], heard["clientMessageId"]) == ("Hello from the laptop", None)
    await phone.writes("And from the phone")
    assert [m["body"] for m in await laptop.read()] == ["Hello from the laptop", "And from the phone"]
    (contact,) = await Contact.all()
    assert (contact.name, contact.email) == ("Maria Lopez", "maria@example.com")
    assert {(a.kind, a.address) for a in await ContactAddress.all()} == {
        ("WEB_CHAT", f"42@{widget.id}"),
        ("EMAIL", "maria@example.com"),
    }
    assert (await contact_of(team))["name"] == "Maria Lopez"


async def test_who_signs_in_keeps_the_conversation_that_began_without(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    await visitor.writes("Before signing in")
    token = visitor.token
    visitor.identity = widget.identity("42", name="Maria Lopez")
    again = await visitor.start()
    assert (again["token"], again["visit"]["identified"]) == (token, True)
    assert [m["body"] for m in again["visit"]["messages"]["nodes"]] == ["Before signing in"]
    (contact,) = await Contact.all()
    assert contact.name == "Maria Lopez"
    # On a second device the same person has it, too; what that device said before belongs to nobody else.
    second = widget.browser()
    await second.start()
    await second.writes("A stranger's words")
    second.identity = widget.identity("42")
    assert [m["body"] for m in (await second.start())["visit"]["messages"]["nodes"]] == ["Before signing in"]
    assert await Contact.all().count() == 2


async def test_devices_that_identify_concurrently_end_in_one_conversation(widget: Widget) -> None:
    devices = [widget.browser() for _ in range(5)]
    for device in devices:
        await device.start()
    for n, device in enumerate(devices):
        await device.writes(f"From device {n}")
    for device in devices:
        device.identity = widget.identity("42")
    begun = await asyncio.gather(*(device.start() for device in devices))
    assert [answer["userErrors"] for answer in begun] == [[]] * 5
    await asyncio.gather(*(device.writes(f"Signed in on {n}") for n, device in enumerate(devices)))
    read = [[m["body"] for m in await device.read()] for device in devices]
    assert read == [read[0]] * 5
    assert sorted(body for body in read[0] if body.startswith("Signed in")) == [f"Signed in on {n}" for n in range(5)]
    assert sum(body.startswith("From device") for body in read[0]) == 1
    assert await ContactAddress.filter(address=f"42@{widget.id}").count() == 1
    assert {row.external_id for row in await Visitor.all()} == {"42"}
    assert len({row.contact_id for row in await Visitor.all()}) == 1


async def test_who_signs_in_while_a_message_is_on_its_way_loses_nothing(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    await visitor.writes("Before")
    before = await visits.authenticate(visitor.token or "")
    assert before is not None
    visitor.identity = widget.identity("42")
    await visitor.start()
    with pytest.raises(chat_identity.IdentityRequired):  # it was authenticated before that, and is stored only now
        await thread.write(before, client_message_id="on-its-way", body="Meanwhile", client_address="")
    assert await Contact.all().count() == 1
    await visitor.writes("Meanwhile", "on-its-way")
    assert [message["body"] for message in await visitor.read()] == ["Before", "Meanwhile"]


async def test_who_never_wrote_is_forgotten_after_a_month(widget: Widget) -> None:
    silent, recent, writer, named = (widget.browser() for _ in range(4))
    named.identity = widget.identity("42")
    for visitor in (silent, recent, writer, named):
        await visitor.start()
    await writer.writes("Hello")
    ids = [row.id for row in await Visitor.all().order_by("id")]
    long_ago = datetime.now(UTC) - timedelta(days=31)
    await Visitor.exclude(id=ids[1]).update(last_seen_at=long_ago)
    await visits.forget_silent(datetime.now(UTC))
    assert [row.id for row in await Visitor.all().order_by("id")] == ids[1:]
    assert await silent.code(READ) == "UNAUTHENTICATED"
    assert [m["body"] for m in await writer.read()] == ["Hello"]


async def test_history_under_an_identity_needs_it_again(widget: Widget) -> None:
    visitor = widget.browser(identity=widget.identity("42"))
    await visitor.start()
    written = await visitor.writes("Secret")
    good, visitor.identity = visitor.identity, None
    shown = {"input": {"upTo": written["id"]}}
    for identity in (None, widget.identity("43"), "rubbish", widget.identity("42", secret="x" * 40)):
        visitor.identity = identity
        body = {"input": {"clientMessageId": key(), "body": "More"}}
        codes = [await visitor.code(READ), await visitor.code(WRITE, body), await visitor.code(SHOWN, shown)]
        assert codes == ["IDENTITY_REQUIRED"] * 3
        with pytest.raises(GraphQLFailed) as refused:
            async with visitor.listen() as feed:
                await feed.next()
        assert refused.value.code == "IDENTITY_REQUIRED"
    visitor.identity = None
    payload = await visitor.start()
    assert (payload["token"], payload["visit"]) == (None, None)
    assert [e["code"] for e in payload["userErrors"]] == ["IDENTITY_REQUIRED"]
    # Another person with this token is a new visitor.
    other = widget.browser(token=visitor.token, identity=widget.identity("43"))
    assert (await other.start())["visit"]["messages"]["nodes"] == []
    assert other.token != visitor.token
    visitor.identity = good
    assert [m["body"] for m in await visitor.read()] == ["Secret"]


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_forged_expired_and_unmatched_identities_are_refused(widget: Widget) -> None:
    now = datetime.now(UTC)
    neighbour = await widget_of(await probes.newcomer(widget.team.product, "Neighbour"))
    honest = widget.identity("42")
    head, claims, signature = honest.split(".")
    wrong = {
        "another secret": widget.identity("42", secret="y" * 64),
        "the neighbour's": neighbour.identity("42"),
        "the neighbour's secret for us": neighbour.identity("42", aud=widget.id),
        "none": jwt.encode({"aud": widget.id, "sub": "42", "iat": now, "exp": now + timedelta(hours=1)}, "", "none"),
        "other algorithm": widget.identity("42", algorithm="HS512"),
        "no signature": f"{head}.{claims}.",
        "other claims": f"{head}.{widget.identity('43').split('.')[1]}.{signature}",
        "wrong aud": widget.identity("42", aud="chn_00000000000000000000000000"),
        "no aud": widget.identity("42", aud=None),
        "no sub": widget.identity("42", sub=None),
        "empty sub": widget.identity(""),
        "long sub": widget.identity("4" * 121),
        "a sub with spaces around it": widget.identity(" 42"),
        "a sub like a browser's address": widget.identity("vis_01m83n9trye0vsa4w0xzcqwmg7"),
        "a sub that no database takes": widget.identity("4\x00"),
        "no exp": widget.identity("42", exp=None),
        "no iat": widget.identity("42", iat=None),
        "expired": widget.identity("42", iat=now - timedelta(hours=2), exp=now - timedelta(minutes=2)),
        "from the future": widget.identity("42", iat=now + timedelta(minutes=5)),
        "over 24 hours": widget.identity("42", exp=now + timedelta(hours=24, minutes=1)),
        "name no text": widget.identity("42", name=["x"]),
        "email none": widget.identity("42", email="no mail"),
        "too long": widget.identity("42", more="x" * 5000),
        "no token": "rubbish",
    }
    accepted = {}
    for why, identity in wrong.items():
        visitor = widget.browser(identity=identity)
        if (
            code := await visitor.code(START, {"input": {"widgetKey": widget.id, "identity": identity}})
        ) != "IDENTITY_INVALID":
            accepted[why] = code
    assert accepted == {}
    assert await Visitor.all().count() == 0
    assert (
        await widget.browser(identity=honest).code(START, {"input": {"widgetKey": widget.id, "identity": honest}})
        is None
    )


async def test_a_new_secret_ends_the_old_one(widget: Widget) -> None:
    visitor = widget.browser(identity=widget.identity("42"))
    await visitor.start()
    payload = await widget.team.product.ok(ROTATE, {"channelId": widget.id}, token=widget.team.owner)
    assert payload["secret"] != widget.secret
    assert await visitor.code(READ) == "IDENTITY_REQUIRED"
    widget.secret = payload["secret"]
    visitor.identity = widget.identity("42")
    assert await visitor.code(READ) is None
    entries = await AuditEntry.filter(action="channel.identity_secret_rotated")
    assert [e.subject for e in entries] == [widget.id] * 2
    assert payload["secret"] not in json.dumps([e.detail for e in await AuditEntry.all()])


async def test_a_socket_ends_with_the_identity(widget: Widget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.web_chat.identity.LEEWAY", timedelta(0))
    now = datetime.now(UTC)
    visitor = widget.browser(identity=widget.identity("42", exp=now + timedelta(seconds=3)))
    await visitor.start()
    async with visitor.listen() as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        with pytest.raises(Exception, match="4403"):
            await feed.next()
    assert await visitor.code(READ) == "IDENTITY_REQUIRED"


# ----------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*",
        "https://*.com",
        "https://shop.example/path",
        "https://shop.example; script-src *",
        "https://shop.example https://evil.example",
        "https://user@shop.example",
        "https://shop.example:0",
        "https://shop.example:123456",
        "https://a.*.example.com",
        "ftp://shop.example",
        "shop.example",
        "'self'",
        "https://",
        "https://bücher.example",
        "https://shop.example\nhttps://evil.example",
        "",
        "https://" + "a" * 300,
    ],
)
async def test_what_is_no_origin_is_refused(widget: Widget, origin: str) -> None:
    given = {"kind": "WEB_CHAT", "provider": "web_chat", "allowedOrigins": [SITE, origin]}
    payload = await widget.team.product.one(CONNECT, {"input": given}, token=widget.team.owner)
    assert payload["channel"] is None
    assert [(e["code"] in ("INVALID", "TOO_LONG"), e["field"]) for e in payload["userErrors"]] == [
        (True, ["input", "allowedOrigins", "1"])
    ]


async def test_the_settings_tell_the_sites_and_the_snippet_and_never_the_secret(widget: Widget) -> None:
    team = widget.team
    given = {"channelId": widget.id, "kind": "WEB_CHAT", "provider": "web_chat"}
    sites = ["HTTPS://Shop.Example/", "https://shop.example", "https://*.example.com:8443", "http://localhost:3000"]
    changed = await team.product.ok(CONNECT, {**given, "allowedOrigins": sites}, token=team.owner)
    stored = ["https://shop.example", "https://*.example.com:8443", "http://localhost:3000"]
    assert changed["channel"]["allowedOrigins"] == stored
    kept = await team.product.ok(CONNECT, {**given, "displayName": "Chat"}, token=team.owner)
    assert kept["channel"]["allowedOrigins"] == stored
    assert kept["channel"]["widgetSnippet"] == (
        f'<script async src="{team.product.base_url}/widget.js" data-key="{widget.id}"></script>'
    )
    assert widget.browser().identity is None
    visitor = widget.browser(identity=widget.identity("42"))
    assert (await visitor.start())["token"] is not None  # the secret is still the same
    sms = {"kind": "SMS", "provider": "simulated", "allowedOrigins": [SITE]}
    payload = await team.product.one(CONNECT, {"input": sms}, token=team.owner)
    assert [(e["code"], e["field"]) for e in payload["userErrors"]] == [("INVALID", ["input", "allowedOrigins"])]
    weak = {**given, "credentials": [{"name": "identity_secret", "value": "short"}]}
    payload = await team.product.one(CONNECT, {"input": weak}, token=team.owner)
    assert [e["code"] for e in payload["userErrors"]] == ["INVALID"]


async def test_a_visitor_is_reached_through_its_widget_alone(widget: Widget) -> None:
    team = widget.team
    await team.connect_channels()
    visitor = widget.browser()
    await visitor.start()
    await visitor.writes("Hello")
    contact, maria = await contact_of(team), await team.contact()

    async def reachable(who: Mapping[str, Any]) -> set[str]:
        conversation = await team.product.one(d.CHANNELS, {"id": who["conversation"]["id"]}, token=team.agent)
        return {
            row["channel"]["id"]
            for row in conversation["channels"]
            if row["channel"]["kind"] == "WEB_CHAT" and row["paymentRequests"]["enabled"]
        }

    assert await reachable(contact) == {widget.id}
    assert await reachable(maria) == {team.channels["WEB_CHAT"]}


# ------------------------------------------------------------------------------------------------------------- limits
TYPED = """mutation($input: SendVisitorMessageInput!) { sendVisitorMessage(input: $input) { userErrors {
  __typename code field ... on VisitorRateLimitError { retryAfterSeconds } } } }"""


async def test_every_wrong_field_of_a_visitors_message_is_named(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    refused = await visitor.one(TYPED, {"input": {"clientMessageId": "short", "body": " "}})
    assert refused["userErrors"] == [
        {"__typename": "VisitorFieldError", "code": "INVALID", "field": ["input", "clientMessageId"]},
        {"__typename": "VisitorFieldError", "code": "BLANK", "field": ["input", "body"]},
    ]


async def test_a_text_that_is_too_long_empty_or_unstorable_is_refused(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    for body, code in (("x" * 4001, "TOO_LONG"), ("  \n ", "BLANK"), ("a\x00b", "INVALID")):
        assert await visitor.code(WRITE, {"input": {"clientMessageId": key(), "body": body}}) == code
    for client_id in ("", "short", "x" * 65, "with space", "ünïcödé-id", "a\nbcdefgh"):
        assert await visitor.code(WRITE, {"input": {"clientMessageId": client_id, "body": "Hello"}}) == "INVALID"
    assert await Message.all().count() == await Contact.all().count() == 0
    assert len((await visitor.writes("x" * 4000))["body"]) == 4000


@pytest.mark.slow
async def test_a_visitor_and_an_address_can_only_do_so_much(database: str, events_url: str, bare: Team) -> None:
    # A server of its own on the same data, with small limits.
    widget = await widget_of(bare)
    more = {"WIDGET_VISITOR_LIMIT": "3/minute", "WIDGET_ADDRESS_LIMIT": "9/minute"}
    port = harness.free_port()
    server = harness.Process(port, harness.environment(port, database, events_url, **more))
    await server.start()
    product = Product(f"http://127.0.0.1:{port}")
    try:
        one = Browser(product, widget.id)
        await one.start()
        for n in range(3):
            await one.writes("Hello", f"message-{n}")
        (error,) = (await one.one(TYPED, {"input": {"clientMessageId": key(), "body": "More"}}))["userErrors"]
        assert (error["__typename"], error["code"]) == ("VisitorRateLimitError", "RATE_LIMITED")
        assert 0 < error["retryAfterSeconds"] <= 60
        assert (await one.writes("Hello", "message-0"))["body"] == "Hello"  # a repeat costs nothing
        codes = [await Browser(product, widget.id).code(START, {"input": {"widgetKey": widget.id}}) for _ in range(5)]
        assert codes == [None] * 4 + ["RATE_LIMITED"]
        assert await Message.all().count() == 3
    finally:
        await product.aclose()
        await server.kill()


async def test_hostile_documents_bodies_and_methods_are_refused(widget: Widget) -> None:
    visitor = widget.browser()
    await visitor.start()
    http = widget.team.product.http
    wide = "{ " + " ".join(f"a{n}: visit {{ identified }}" for n in range(6)) + " }"
    assert await visitor.code(wide) == "QUERY_TOO_COMPLEX"
    assert await visitor.code("{ visit { " + "identified " * 600 + "} }") == "QUERY_TOO_COMPLEX"
    large = await http.post("/widget/graphql", json={"query": READ, "variables": {"x": "y" * 40_000}})
    assert (large.status_code, large.json()["errors"][0]["extensions"]["code"]) == (413, "BAD_REQUEST")
    assert (await http.get("/widget/graphql", params={"query": READ})).status_code == 405
    form = await http.post("/widget/graphql", data={"query": READ})
    assert form.status_code == 415
    foreign = {"Origin": "https://evil.example"}
    url = widget.team.product.base_url.replace("http", "ws", 1) + "/widget/graphql"
    with pytest.raises(Exception, match="403"):
        async with connect(url, subprotocols=["graphql-transport-ws"], additional_headers=foreign):  # type: ignore[list-item]
            pass
    for stranger in (foreign["Origin"], "null", SITE):
        refused = await http.post(
            "/widget/graphql", json={"query": "{ visit { identified } }"}, headers={"Origin": stranger}
        )
        assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")
        assert "data" not in refused.json()
    own = {"Origin": widget.team.product.base_url}
    assert (await http.post("/widget/graphql", json={"query": "{ __typename }"}, headers=own)).status_code == 200
    preflight = await http.options("/widget/graphql", headers={**foreign, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in preflight.headers
