"""A client's cache that only events feed shows what a fresh query shows, after every use case."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from integrations.base import MessageChange
from models import database as db
from models import tables
from models.ids import public_id
from services.connections import providers
from services.messaging import message_changes
from tests.configured import change
from tests.flows import harness
from tests.flows.client_cache import Cache
from tests.flows.conftest import Team, opened
from tests.flows.harness import Feed, Product
from tests.flows.probes import row_id, writes

pytestmark = pytest.mark.slow

MONEY = "{ minorUnits currency }"
FRAGMENTS = f"""
fragment Row on Conversation {{ id preview lastActivityAt unreadCount draft closedAt waitingSince tags
  assignee {{ id name }} contact {{ id name }} }}
fragment Person on Contact {{ id name email phone tags version updatedAt addresses {{ kind address optedOutAt lastInboundAt inUse }}
  paymentSummary {{ currency testMode requested {MONEY} outstanding {MONEY} paid {MONEY} refunded {MONEY} net {MONEY}
    openCount paidCount firstPaidAt lastPaidAt }} }}
fragment Asked on PaymentRequest {{ id number status version productName amountPaid {MONEY} amountDue {MONEY} waived {MONEY}
  excess {MONEY} late {MONEY} sentAt sentVia linkCopiedAt deliveryState firstViewedAt lastViewedAt humanViews dueAt isOverdue paidAt
  voidedAt voidReason voidPending linkReleasedAt discardedAt refundState disputeState lastAttempt {{ status message }}
  contact {{ id }} payments {{ id kind status amount {MONEY} counted fee {MONEY} net {MONEY} }} unresolved {MONEY}
  refunds {{ id status amount {MONEY} reason }} disputes {{ id state isInquiry closedAt }}
  availableActions {{ action resultingStatus }} }}
fragment Item on ThreadItem {{ __typename id occurredAt ... on Message {{ direction body deliveryStatus failureReason reaction editedAt
    removedAt attachments {{ id status }} paymentRequests {{ id }} replyTo {{ id }} retryOf {{ id }} }}
  ... on ActivityCard {{ kind status text paymentRequest {{ id }} payment {{ id }} message {{ id }} }}
  ... on Note {{ body mentions {{ id name }} }} }}
fragment Bell on Notification {{ id kind title body createdAt paymentRequest {{ id }} conversation {{ id }} }}
fragment Board on DashboardFigures {{ id byCurrency {{ currency testMode requestsSent requested {MONEY} paidCount paid {MONEY}
  outstanding {MONEY} conversionRate }} }}
"""


def document(text: str) -> str:
    """The text with the fragments that it uses, also through others."""
    known = {part.split()[0]: "fragment " + part for part in FRAGMENTS.split("fragment ")[1:]}
    return text + "".join(part for name, part in known.items() if f"...{name}" in text)


LOAD = document("""query { viewer { id unreadNotificationCount } dashboard { ...Board eventCursor }
  notifications(first: 50) { edges { cursor node { ...Bell } } }
  conversations(first: 50) { eventCursor nodes { ...Row } } }""")
DETAIL = document("""query($id: ID!) { conversation(id: $id) { ...Row thread(last: 60) { edges { cursor node { ...Item } } }
  contact { ...Person paymentRequests(first: 20) { edges { cursor node { ...Asked } } } } } }""")
EVENT = "__typename ... on Event { cursor cause } ... on ResyncRequired { reason }"
INBOX = document(f"""subscription($after: Cursor) {{ inboxEvents(after: $after) {{ {EVENT}
  ... on ThreadItemAdded {{ edge {{ cursor node {{ ...Item }} }} conversation {{ ...Row }} contact {{ ...Person }} }}
  ... on MessageUpdated {{ message {{ ...Item }} }}
  ... on PaymentRequestUpdated {{ changed paymentRequestEdge {{ cursor node {{ ...Asked }} }} paymentRequest {{ ...Asked }} }}
  ... on ContactUpdated {{ contact {{ ...Person }} }}
  ... on ConversationUpdated {{ conversation {{ ...Row }} }}
  ... on ContactMerged {{ mergedContactId mergedConversationId
    contact {{ ...Person paymentRequests(first: 20) {{ edges {{ cursor node {{ ...Asked }} }} }} }}
    conversation {{ ...Row thread(last: 60) {{ edges {{ cursor node {{ ...Item }} }} }} }} }} }} }}""")
BELL = document(f"""subscription($after: Cursor) {{ notificationEvents(after: $after) {{ {EVENT}
  ... on NotificationAdded {{ edge {{ cursor node {{ ...Bell }} }} viewer {{ id unreadNotificationCount }} }}
  ... on NotificationsRead {{ viewer {{ id unreadNotificationCount }} }} }} }}""")
BOARD = document(
    f"subscription {{ dashboardEvents {{ {EVENT} ... on DashboardUpdated {{ figures {{ ...Board }} }} }} }}"
)

# Fields of a request -> the facets of which one says that they changed. The others follow from several.
FACETS = {
    "status": "STATUS",
    "paidAt": "STATUS",
    "voidedAt": "VOID",
    "voidPending": "VOID",
    "voidReason": "VOID",
    **dict.fromkeys(("amountPaid", "amountDue", "waived", "excess", "late", "payments"), "PAYMENTS REFUNDS"),
    "unresolved": "MISMATCH PAYMENTS REFUNDS",
    "refundState": "REFUNDS",
    "disputeState": "DISPUTES",
    "refunds": "REFUNDS",
    "disputes": "DISPUTES",
    "lastAttempt": "ATTEMPT",
    "linkReleasedAt": "LINK",
    **dict.fromkeys(("deliveryState", "sentAt", "sentVia", "linkCopiedAt"), "DELIVERY"),
    **dict.fromkeys(("firstViewedAt", "lastViewedAt", "humanViews"), "VIEWS"),
    "isOverdue": "OVERDUE",
    "discardedAt": "DISCARDED",
}
WITHOUT = {"availableActions", "version", "id", "number", "productName", "contact", "dueAt"}

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"}
UNREACHABLE = "+14155559901"  # simulated.py: accepted, then reported undelivered
Action = Callable[[], Awaitable[object]]


def mutation(name: str) -> str:
    kind = name[0].upper() + name[1:] + "Input!"
    return f"mutation($input: {kind}) {{ {name}(input: $input) {{ userErrors {{ code message }} }} }}"


@pytest.fixture
async def product(database: str, events_url: str) -> AsyncIterator[Product]:
    """The server; its sandbox reports fees and delayed payments soon."""
    async with harness.in_process(database, events_url) as running:
        change(sandbox_delay=timedelta(seconds=0.2))
        yield running


async def fetch(team: Team) -> tuple[Cache, str]:
    """A cache that was just loaded, and the cursor from before."""
    shown = await team.product.gql(LOAD)
    cursor: str = shown["conversations"].pop("eventCursor")
    del shown["dashboard"]["eventCursor"]
    cache = Cache()
    cache.load(shown)
    for id in cache.conversations:
        cache.write(await team.product.one(DETAIL, {"id": id}))
    return cache, cursor


class Watch:
    """A cache, and the feeds that keep it."""

    def __init__(self, team: Team, cache: Cache) -> None:
        self.team = team
        self.cache = cache
        self.heard: list[dict[str, Any]] = []

    async def read(self, feed: Feed) -> None:
        while True:
            event = await feed.next(within=600)
            assert event["__typename"] != "ResyncRequired", event
            if event["__typename"] != "Subscribed":
                self.cache.take(event["__typename"], event)
                self.heard.append(event)

    async def follows(self, name: str, act: Action, causes: set[str]) -> None:
        """Do it, and wait until events have these causes and the cache shows what a fresh query shows."""
        before, since = deepcopy(self.cache.objects), len(self.heard)
        await act()
        wrong: list[str] = []
        for wait_s in (0.05, 0.1, 0.2, 0.3, 0.5, 0.5, 1, 1, 2, 2, 2, 2):
            await asyncio.sleep(wait_s)
            fresh, _ = await fetch(self.team)
            wrong = self.cache.differences(fresh)
            seen = {event["cause"] for event in self.heard[since:] if event["__typename"] != "DashboardUpdated"}
            wrong += [f"no event of {cause}" for cause in causes - seen]  # a job may not have run yet
            wrong += self._unnamed(before, self.heard[since:])
            if not wrong:
                break
        assert not wrong, f"{name}:\n" + "\n".join(wrong)

    def _unnamed(self, before: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
        """Fields of requests that changed without an event that names their facet."""
        named: dict[str, set[str]] = {}
        for event in events:
            if event["__typename"] == "PaymentRequestUpdated":
                named.setdefault(event["paymentRequest"]["id"], set()).update(event["changed"])
        wrong = []
        for id, facets in named.items():
            was, now = before.get(id), self.cache.objects[id]
            changed = [field for field in now if was is not None and was.get(field) != now[field]]
            missing = [field for field in changed if field not in WITHOUT and facets.isdisjoint(FACETS[field].split())]
            if missing:
                wrong.append(f"{id}: {missing} changed, and the events name {facets}")
        return wrong


async def view(team: Team, request: dict[str, Any]) -> None:
    """What the page's script reports when a person looks."""
    async with httpx2.AsyncClient() as contact:
        headers = BROWSER | {"Origin": team.product.base_url}
        assert (await contact.post(request["checkoutUrl"] + "/view", headers=headers)).status_code == 204


async def changes(team: Team, kind: str, text: str, **what: Any) -> None:
    """The contact edits, removes or reacts to the message with this text."""
    connection = await providers.channel_connection(row_id(team.channels[kind]), UUID(team.account_id))
    message = await tables.Message.filter(body=text, direction="INBOUND").order_by("-seq").first()
    assert message is not None
    assert message.external_id is not None
    given = MessageChange(external_id=message.external_id, occurred_at=datetime.now(UTC), **what)
    await message_changes.record(connection, given)


class Story:
    """The use cases of the product, in an order in which all of them can run."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.maria: dict[str, Any] = {}
        self.ben: dict[str, Any] = {}
        self.requests: dict[str, dict[str, Any]] = {}

    async def begin(self) -> None:
        self.maria = await self.team.contact()
        for name in ("paid", "outside", "void", "declined", "copied", "mismatch"):
            self.requests[name] = await self.team.request(self.maria)

    async def ask(self, name: str, contact: dict[str, Any], **more: Any) -> None:
        self.requests[name] = await self.team.request(contact, **more)

    async def ok(self, mutation_name: str, /, *, by: str | None = None, **given: Any) -> Any:
        return await self.team.product.ok(mutation(mutation_name), given, token=by)

    def play(self, request: str, scenario: str) -> Action:
        return lambda: self.ok(
            "runSandboxScenario", paymentRequestId=self.requests[request]["id"], scenario=scenario, seed=1
        )

    async def refund(self) -> None:
        read = await self.team.read(self.requests["paid"])
        payment = read["payments"][0]["id"]
        given = {"idempotencyKey": harness.key(), "paymentId": payment, "reason": "REQUESTED_BY_CONTACT"}
        await self.ok("refundPayment", by=self.team.owner, amount="20.00", **given)

    async def undo(self) -> None:
        read = await self.team.read(self.requests["outside"])
        await self.ok("undoOutsidePayment", by=self.team.owner, paymentId=read["payments"][0]["id"])

    async def decline(self) -> None:
        async with self.team.product.browser() as browser:
            await browser.open(self.requests["declined"]["checkoutUrl"])
            await browser.press("Pay")
            await browser.press("decline")

    async def add_ben(self) -> None:
        self.ben = await self.team.contact("Ben Okafor", 2, phone=UNREACHABLE)

    async def ask_ben(self) -> None:
        await self.ask("ben", self.ben, amount={"amount": "5.00", "currency": "EUR"})

    async def read_bell(self) -> None:
        listed = await self.team.product.one("{ notifications { eventCursor } }")
        await self.ok("markNotificationsRead", upTo=listed["eventCursor"])

    def steps(self) -> dict[str, tuple[Action, set[str]]]:
        """Name -> what is done, and the causes that its events have."""
        team, requests, ok = self.team, self.requests, self.ok
        talk = {"conversationId": self.maria["conversation"]["id"]}
        text = {"idempotencyKey": harness.key(), "channelId": team.channels["SMS"], "body": "Hello"} | talk
        agent = public_id("usr", UUID(team.agent_id))
        key = harness.key
        return {
            "send a message": (lambda: ok("sendMessage", **text), {"USER"}),
            "create a request": (lambda: self.ask("more", self.maria, amount={"amount": "3.50"}), {"USER"}),
            "a currency for the first time": (
                lambda: self.ask("yen", self.maria, amount={"amount": "500", "currency": "JPY"}),
                {"USER"},
            ),
            "send a request": (lambda: team.send(requests["paid"]), {"USER"}),
            "send it again by email": (lambda: team.send(requests["paid"], "EMAIL"), {"USER"}),
            "an inbound message": (lambda: writes(team, "SMS", "+14155552601", "Thank you!"), {"CONTACT"}),
            "a reaction": (lambda: changes(team, "SMS", "Thank you!", reaction="❤"), {"CONTACT"}),
            "an edit": (lambda: changes(team, "SMS", "Thank you!", body="Thanks!"), {"CONTACT"}),
            "a removal": (lambda: changes(team, "SMS", "Thanks!", removed=True), {"CONTACT"}),
            "mark the conversation read": (lambda: ok("markConversationRead", **talk), {"USER"}),
            "assign": (lambda: ok("assignConversation", userId=agent, **talk), {"USER"}),
            "save a draft": (lambda: ok("saveDraft", text="Dear Maria", **talk), {"USER"}),
            "add a note": (
                lambda: ok("addNote", idempotencyKey=key(), body="Call her", mentions=[agent], **talk),
                {"USER"},
            ),
            "tag the conversation": (lambda: ok("updateConversationTags", add=["urgent"], **talk), {"USER"}),
            "tag the contact": (lambda: ok("updateContactTags", contactId=self.maria["id"], add=["vip"]), {"USER"}),
            "copy a link": (
                lambda: ok("recordLinkCopied", paymentRequestId=requests["copied"]["id"]),
                {"USER"},
            ),
            "a view of a copied link": (lambda: view(team, requests["copied"]), {"CONTACT"}),
            "close": (lambda: ok("closeConversation", **talk), {"USER"}),
            "a payment, which reopens": (lambda: team.pay(requests["paid"]), {"PROCESSOR"}),
            "read the bell": (self.read_bell, {"USER"}),
            "a refund": (self.refund, {"USER"}),
            "a decline": (self.decline, {"PROCESSOR"}),
            "close again": (lambda: ok("closeConversation", **talk), {"USER"}),
            "reopen": (lambda: ok("reopenConversation", **talk), {"USER"}),
            "record a payment outside": (
                lambda: ok(
                    "recordOutsidePayment",
                    idempotencyKey=key(),
                    paymentRequestId=requests["outside"]["id"],
                    method="CASH",
                ),
                {"USER"},
            ),
            "undo the record": (self.undo, {"USER"}),
            "void": (lambda: ok("voidPaymentRequest", paymentRequestId=requests["void"]["id"]), {"USER"}),
            "pay after the void": (self.play("copied", "PAID_AFTER_VOID"), {"PROCESSOR"}),
            "a lost dispute": (self.play("declined", "DISPUTE_LOST"), {"PROCESSOR"}),
            "a wrong amount": (self.play("mismatch", "WRONG_AMOUNT"), {"PROCESSOR"}),
            "resolve the mismatch": (
                lambda: ok(
                    "resolveMismatch",
                    by=team.owner,
                    idempotencyKey=key(),
                    paymentRequestId=requests["mismatch"]["id"],
                    resolution="ACCEPT_AS_PAID",
                ),
                {"USER"},
            ),
            "discard": (lambda: ok("discardPaymentRequest", paymentRequestId=requests["more"]["id"]), {"USER"}),
            "a delayed payment": (self.play("outside", "ASYNC_SUCCEEDS"), {"PROCESSOR"}),
            "update the contact": (lambda: ok("updateContact", contactId=self.maria["id"], name="Maria L."), {"USER"}),
            "a stranger's message": (lambda: writes(team, "WEB_CHAT", "visitor-77", "Hello?"), {"CONTACT"}),
            "an opt-out": (lambda: writes(team, "SMS", "+14155552601", "STOP"), {"CONTACT"}),
            "a new contact": (self.add_ben, {"USER"}),
            "a request in euros": (self.ask_ben, {"USER"}),
            "a message that is not delivered": (lambda: team.send(requests["ben"]), {"USER", "CHANNEL"}),
            "a payment of it": (lambda: team.pay(requests["ben"]), {"PROCESSOR"}),
            "a merge": (
                lambda: ok(
                    "mergeContacts",
                    idempotencyKey=key(),
                    contactId=self.maria["id"],
                    mergedContactId=self.ben["id"],
                ),
                {"USER"},
            ),
            "a message of the merged contact": (lambda: writes(team, "SMS", UNREACHABLE, "It is me"), {"CONTACT"}),
            "a request after the merge": (lambda: self.ask("last", self.maria), {"USER"}),
            "sent after the merge": (lambda: team.send(requests["last"], "EMAIL"), {"USER"}),
            "a voucher": (self.play("last", "VOUCHER"), {"PROCESSOR"}),
            "release its link": (
                lambda: ok("releasePaymentLink", idempotencyKey=key(), paymentRequestId=requests["last"]["id"]),
                {"PROCESSOR"},  # the sandbox cancels the payment
            ),
        }


async def test_a_cache_that_only_events_feed_shows_what_a_fresh_query_shows(team: Team) -> None:
    story = Story(team)
    await story.begin()
    cache, cursor = await fetch(team)
    watch = Watch(team, cache)
    async with contextlib.AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(team.product.subscribe(INBOX, {"after": cursor})),
            await stack.enter_async_context(team.product.subscribe(BELL, {"after": cursor})),
            await stack.enter_async_context(team.product.subscribe(BOARD)),
        ]
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(watch.read(await opened(feed))) for feed in feeds]
            for name, (act, causes) in story.steps().items():
                await watch.follows(name, act, causes)
            for reader in readers:
                reader.cancel()
    # conversationEvents filters by the conversation, contactPaymentEvents by the contact.
    ids = "SELECT DISTINCT kind FROM event WHERE (contact_id IS NULL) <> (conversation_id IS NULL)"
    assert {row["kind"] for row in await db.rows(ids)} <= {"notification.created"}
    kinds = {event["__typename"] for event in watch.heard}
    assert {"NotificationAdded", "NotificationsRead", "DashboardUpdated", "ContactMerged", "MessageUpdated"} <= kinds
