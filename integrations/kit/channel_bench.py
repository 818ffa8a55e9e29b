"""What the suite for channels works with: the events that a vendor tells of, the author's harness, and a connected channel under guard."""

from __future__ import annotations

import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from unittest import mock

from integrations import registry
from integrations.base import (
    Blocking,
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    Feature,
    InboundMessage,
    MessageChange,
    OutboundMessage,
    StatusUpdate,
    WebhookRequest,
    WrittenElsewhere,
)
from integrations.kit.vendor import RETRY_AFTER_S, FailureMode

PUBLIC_URL = "https://pay.example.test"
TIMEOUT_S = 5.0
CLOSED = "http://127.0.0.1:9"  # where nothing answers
AT = datetime(2026, 7, 14, 21, 30, 5, tzinfo=UTC)  # in no zone but UTC is it this day and hour
PHONES = frozenset({ChannelKind.SMS, ChannelKind.WHATSAPP})
FILE_ID = "f1?v=2#top"
Callback = tuple[str, bytes, dict[str, str]]  # public URL, raw body, headers with lower-case names


class NotOffered(Exception):
    """A harness raises it for an event that its vendor never tells of. The channel must not declare it then."""


# -------------------------------------------------------------------------------------- what a vendor may tell of
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`at`: when it was, as the vendor tells it. `again`: it tells it once more, with the mark of a redelivery that it may have."""

    at: datetime = AT
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrote(Event):
    """A contact writes to us.

    `number` is the message's in its chat, from 1. Where the vendor counts in each chat, the messages 1 of two senders have the same id;
    where its ids are unique everywhere, make one of sender and number.
    """

    sender: str
    text: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Event):
    """A contact writes, and points at our message `external_id`. ANSWERS."""

    sender: str
    text: str
    external_id: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WroteInGroup(Event):
    """A contact writes in a group that we are in. It is no private message. GROUPS."""

    sender: str
    text: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WroteToAnother(Wrote):
    """The same, to another account of the vendor's. SHARED_CALLBACKS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLink(Wrote):
    """A contact comes by the link that `deep_link` gave for `token`; `text` is what the vendor says for it. DEEP_LINKS."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile(Wrote):
    """A contact sends a file. Your fake gives its `content` to whoever asks rightly. FILES; with a `text` CAPTIONS, too.

    `id`: what your fake calls the file, if the vendor's ids are texts: it has signs that an address must quote.
    """

    id: str = FILE_ID
    name: str = "receipt.png"
    content_type: str = "image/png"
    content: bytes = b"\x89PNG\r\n\x1a\n" + bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentOther(Wrote):
    """A contact sends what is neither text nor file; `text` is empty. `what`: "place" or "sticker". OTHER_CONTENT."""

    what: str = "place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited(Wrote):
    """A contact changes message `number` to this text. EDITS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TookBack(Event):
    """A contact takes message `number` back. REMOVALS."""

    sender: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked(Event):
    """A contact blocks us, or has taken it back. BLOCKS."""

    sender: str
    blocked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Became(Event):
    """What became of one of our messages, in the vendor's word. DELIVERED, READ, FAILED."""

    external_id: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo(Event):
    """The vendor tells of a message that we sent ourselves. ECHOES."""

    external_id: str
    recipient: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Event):
    """Something else that the vendor tells, for which the channel has no use; or a kind that does not exist yet. OTHER_EVENTS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Event):
    """A contact's message that lacks what it must have, such as its sender. BATCHES."""


# --------------------------------------------------------------------------------------------------------- the harness
class ChannelHarness(ABC):
    """The other side of one connection: what a channel's author supplies to be tested.

    Write its values out from the vendor's documentation: what is imported from the channel tests nothing. What the vendor offers is
    declared by the channel (`features`).
    """

    channel: ClassVar[type[Channel]]  # the class under test
    public: ClassVar[frozenset[str]] = frozenset()  # fields of its credentials that are no secret
    signing: ClassVar[tuple[str, ...]] = ("secret",)  # fields of its credentials that verify callbacks
    signature_header: ClassVar[str]  # the header with the signature or the secret, lower case
    words: ClassVar[Mapping[str, DeliveryStatus]] = {}  # the vendor's words for what became of a message, and ours
    tells_time: ClassVar[bool] = True  # whether the vendor says when something was
    batch: ClassVar[int] = 50  # as many events as the vendor puts into one callback. BATCHES
    rate_limit_s: ClassVar[float | None] = (
        RETRY_AFTER_S  # the wait that your fake's 429 names; None: the vendor names none
    )
    # What can go wrong with the vendor's answers.
    failures: ClassVar[frozenset[FailureMode]] = frozenset(
        {"accept_then_500", "before_500", "hang", "trickle", "drop", "rate_limit", "refuse", "nonsense", "empty"}
    )

    documented: ChannelLimits  # what the vendor documents
    credentials: Mapping[str, str]
    address = "1234567890"  # a person who can be written to
    another: str | None = None  # another person who writes; None: one that fits the kind, or digits
    spellings: Sequence[str] = ()  # other ways in which the vendor writes this address
    refused: str  # an address that the vendor refuses
    refused_as: str = "opted_out"  # why
    account: str | None = None  # what the vendor calls the account
    answer_lost: str = ""  # an address whose answers are lost, where `fail_next` can't arrange it

    def __init__(self, kind: ChannelKind = ChannelKind.CUSTOM) -> None:
        self.kind = kind

    @property
    def url(self) -> str:
        """Where the vendor calls back."""
        return f"{PUBLIC_URL}/inbound/{self.channel.name}/chn_1"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        """Start what is needed; return base addresses."""
        return {}

    def fail_next(self, mode: FailureMode) -> None:  # noqa: B027 (optional to override)
        """Let the vendor's next answer fail: see `integrations.kit.vendor.FakeVendor.fail_next`."""

    def closed(self) -> Mapping[str, str]:
        """The credentials to reach no vendor by, where they say where it is."""
        return self.credentials

    def word_of(self, message: OutboundMessage) -> Callback | None:
        """Where nothing can be looked up: the callback that still tells what became of a message whose answer was lost."""
        return None

    def registered(self) -> str | None:
        """The address that the vendor was told to call. REGISTRATION."""
        raise NotOffered

    def handshake(self, challenge: str, *, genuine: bool) -> Mapping[str, str]:
        """The query of the vendor's GET that checks the address; `genuine`: with our secret in it. HANDSHAKE."""
        raise NotOffered

    @abstractmethod
    def texts(self) -> list[str] | None:
        """Texts of the messages that the vendor took from us; None: it keeps none."""

    @abstractmethod
    def signed(self, body: bytes) -> Callback:
        """A callback with this body, whatever it is, as the vendor signs it."""

    @abstractmethod
    def tell(self, *events: Event) -> Callback:
        """A callback that tells of these events, in their order; of one, unless BATCHES, then also of none. Raises: NotOffered."""


# ----------------------------------------------------------------------------------------------------------- the bench
@dataclass
class Bench:
    """A running vendor and a channel connected to it."""

    vendor: ChannelHarness
    channel: Channel
    addresses: Mapping[str, str] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def another(
        self,
        credentials: Mapping[str, str] | None = None,
        addresses: Mapping[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Channel:
        """Another connection of the channel, closed with the bench. Raises: IntegrationError (incomplete)."""
        values = self.vendor.credentials if credentials is None else credentials
        where = self.addresses if addresses is None else addresses
        channel = connected(self.vendor.channel, self.kind, values, where, timeout_s=timeout_s)
        self.stack.push_async_callback(channel.aclose)
        return channel

    @property
    def name(self) -> str:
        """The channel's."""
        return self.channel.name

    @property
    def kind(self) -> ChannelKind:
        """Which of the channel's kinds is tried."""
        return self.vendor.kind

    @property
    def secrets(self) -> list[str]:
        """The credentials that must be seen nowhere."""
        return [value for name, value in self.vendor.credentials.items() if name not in self.vendor.public and value]

    def has(self, feature: Feature) -> bool:
        """Whether the channel declares it."""
        return feature in self.channel.features

    def word(self, status: DeliveryStatus) -> str:
        """The vendor's first word for a state."""
        return next(word for word, ours in self.vendor.words.items() if ours is status)

    def message(self, body: str = "Pay here: https://pay.example.test/p/abc", **changes: Any) -> OutboundMessage:
        """What the suite sends, with changes."""
        values = {
            "message_id": "msg_1",
            "attempt_id": "att_1",
            "to": self.vendor.address,
            "body": body,
            "subject": "Your payment" if self.channel.limits(self.kind).needs_subject else None,
            "status_url": self.vendor.url,
        }
        return OutboundMessage(**{**values, **changes})

    def request(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        query: Mapping[str, str] | None = None,
    ) -> WebhookRequest:
        """A callback as the door hands it over."""
        return WebhookRequest(
            method=method, public_url=url, headers=headers, body=body, now=datetime.now(UTC), query=query or {}
        )

    def receive(self, callback: Callback, channel: Channel | None = None) -> ChannelWebhook:
        """What the channel makes of a callback: without a call, and nothing in it that the product can't store."""
        return self.take(self.request(*callback), channel)

    def take(self, request: WebhookRequest, channel: Channel | None = None) -> ChannelWebhook:
        """The same of a whole request."""
        with stopped_calls() as stopped:
            received = (channel or self.channel).receive(request)
        assert stopped == [], f"receive must only read the callback, and it calls {', '.join(stopped)}"
        assert faults_of(received) == []
        return received

    def told(self, feature: Feature, event: Event) -> ChannelWebhook | None:
        """What the channel makes of an event that not every vendor tells of; None: it is not declared, and the vendor has none."""
        if self.has(feature):
            return self.receive(self.vendor.tell(event))
        try:
            self.vendor.tell(event)
        except NotOffered:
            return None
        raise AssertionError(f"the vendor tells of {type(event).__name__}: read it, and declare Feature.{feature.name}")


def connected(
    provider: type[Channel],
    kind: ChannelKind,
    values: Mapping[str, str],
    addresses: Mapping[str, str],
    *,
    timeout_s: float = TIMEOUT_S,
) -> Channel:
    """A channel made as the product makes it."""
    environment = Environment(
        public_url=PUBLIC_URL,
        sandbox_url="http://127.0.0.1:1",
        base_addresses=addresses,
        private_hosts=frozenset({"127.0.0.1:*"}),  # where the vendor of the test listens
        timeout_s=timeout_s,
    )
    made: Any = provider
    channel: Channel = made(registry.read_credentials(provider, values), kind=kind, environment=environment)
    return channel


# ---------------------------------------------------------------------------------------------------------- the guards
@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """The machine's own time zone is another."""
    try:
        with mock.patch.dict(os.environ, TZ=zone):
            time.tzset()
            yield
    finally:
        time.tzset()


@contextmanager
def stopped_calls() -> Iterator[list[str]]:
    """The calls of this thread that would hold its event loop up. They fail, so that no test waits for them."""
    found: list[str] = []
    here = threading.get_ident()

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            waits = name != "socket.connect" or args[0].gettimeout() != 0
            if threading.get_ident() == here and waits:
                found.append(name)
                raise OSError(f"{name} holds the event loop up")
            return real(*args, **more)

        return call

    with (
        mock.patch.object(time, "sleep", guarded("time.sleep", time.sleep)),
        mock.patch.object(socket, "getaddrinfo", guarded("socket.getaddrinfo", socket.getaddrinfo)),
        mock.patch.object(socket.socket, "connect", guarded("socket.connect", socket.socket.connect)),
    ):
        yield found


def another_sender(bench: Bench) -> str:
    """Another person who writes."""
    if bench.vendor.another is not None:
        return bench.vendor.another
    if bench.kind in PHONES:
        return "+14155550102"
    return "maya@x.test" if bench.kind is ChannelKind.EMAIL else "9876543210"


def faults_of(received: ChannelWebhook) -> list[str]:
    """What the product could not store of a webhook, a sentence each."""
    found = []
    parts: list[StatusUpdate | InboundMessage | WrittenElsewhere | MessageChange | Blocking] = [
        *received.statuses,
        *received.messages,
        *received.elsewhere,
        *received.changes,
        *received.blockings,
    ]
    for part in parts:
        name = type(part).__name__
        moment = part.occurred_at
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            found.append(f"{name}.occurred_at has no time zone: {moment!r}")
        for key in ("external_id", "sender", "recipient", "address", "body", "author", "link_token"):
            value = getattr(part, key, None)
            if value is not None and not isinstance(value, str):
                found.append(f"{name}.{key} is not a text: {value!r}")
        needed = {"InboundMessage": ("sender", "external_id"), "Blocking": ("address",)}.get(name, ())
        found += [f"{name}.{key} is empty" for key in needed if not getattr(part, key)]
    for message in received.messages:
        if not isinstance(message.body, str):
            found.append(f"InboundMessage.body is not a text: {message.body!r}")
        if message.opt_out not in (True, False, None):
            found.append(f"InboundMessage.opt_out is none of True, False, None: {message.opt_out!r}")
        for one in message.attachments:
            if not all(isinstance(value, str) for value in one.values()):
                found.append(f"an attachment's values are not all texts: {one!r}")
    return found
