"""The channel suite's events, author's harness and connected channel."""

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
CLOSED = "http://127.0.0.1:9"  # nothing listens here
AT = datetime(2026, 7, 14, 21, 30, 5, tzinfo=UTC)  # only in UTC this day and hour
PHONES = frozenset({ChannelKind.SMS, ChannelKind.WHATSAPP})
FILE_ID = "f1?v=2#top"
Callback = tuple[str, bytes, dict[str, str]]  # public URL, raw body, headers with lower-case names


class NotOffered(Exception):
    """The harness's vendor does not send this event, so the channel must not declare its feature."""


# ------------------------------------------------------------------------------------------------------------ events
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`at`: the vendor's time; `again`: marked as a redelivery."""

    at: datetime = AT
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrote(Event):
    """A contact writes. `number` counts in each chat, from 1.

    If the vendor's ids are globally unique, derive them from sender and number.
    """

    sender: str
    text: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Event):
    """A reply to our message `external_id`. ANSWERS."""

    sender: str
    text: str
    external_id: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WroteInGroup(Event):
    """A message in a group, not a private one. GROUPS."""

    sender: str
    text: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WroteToAnother(Wrote):
    """A message to another account. SHARED_CALLBACKS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLink(Wrote):
    """A contact opens `deep_link(token)`; `text` is the vendor's. DEEP_LINKS."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile(Wrote):
    """A file, whose `content` your fake serves to authorised requests. FILES; with `text`, CAPTIONS.

    `id`: the fake's file id, which needs quoting in URLs.
    """

    id: str = FILE_ID
    name: str = "receipt.png"
    content_type: str = "image/png"
    content: bytes = b"\x89PNG\r\n\x1a\n" + bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentOther(Wrote):
    """A "place" or "sticker" (`what`), without `text`. OTHER_CONTENT."""

    what: str = "place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited(Wrote):
    """A contact changes message `number`. EDITS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TookBack(Event):
    """A contact deletes message `number`. REMOVALS."""

    sender: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked(Event):
    """A contact blocks or unblocks us. BLOCKS."""

    sender: str
    blocked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Became(Event):
    """A message's status in the vendor's word. DELIVERED, READ, FAILED."""

    external_id: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo(Event):
    """The vendor reports a message that we sent. ECHOES."""

    external_id: str
    recipient: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Event):
    """An event of no use to the channel, or of an unknown kind. OTHER_EVENTS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Event):
    """A message without a required field, such as its sender. BATCHES."""


# --------------------------------------------------------------------------------------------------------- the harness
class ChannelHarness(ABC):
    """The vendor's side of a connection, written by the channel's author.

    Take values from the vendor's documentation, not from the channel.
    """

    channel: ClassVar[type[Channel]]  # the class under test
    public: ClassVar[frozenset[str]] = frozenset()  # credential fields that are not secret
    signing: ClassVar[tuple[str, ...]] = ("secret",)  # credential fields that verify callbacks
    signature_header: ClassVar[str]  # the header with the signature or secret, lower case
    words: ClassVar[Mapping[str, DeliveryStatus]] = {}  # the vendor's statuses and ours
    tells_time: ClassVar[bool] = True  # whether the vendor's events have times
    batch: ClassVar[int] = 50  # the vendor's maximum of events per callback. BATCHES
    rate_limit_s: ClassVar[float | None] = RETRY_AFTER_S  # the fake's Retry-After with a 429; None: absent
    # How the vendor's answers can fail.
    failures: ClassVar[frozenset[FailureMode]] = frozenset(
        {"accept_then_500", "before_500", "hang", "trickle", "drop", "rate_limit", "refuse", "nonsense", "empty"}
    )

    documented: ChannelLimits  # what the vendor documents
    credentials: Mapping[str, str]
    address = "1234567890"  # of a person who accepts messages
    another: str | None = None  # of another person; None: a default of the kind
    spellings: Sequence[str] = ()  # the vendor's other spellings of it
    refused: str  # an address that the vendor refuses
    refused_as: str = "opted_out"  # why
    account: str | None = None  # the vendor's account id
    answer_lost: str = ""  # an address whose answers are lost, if `fail_next` cannot simulate it

    def __init__(self, kind: ChannelKind = ChannelKind.CUSTOM) -> None:
        self.kind = kind

    @property
    def url(self) -> str:
        return f"{PUBLIC_URL}/inbound/{self.channel.name}/chn_1"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        """Start the fake; return base addresses."""
        return {}

    def fail_next(self, mode: FailureMode) -> None:  # noqa: B027 (optional to override)
        """Make the next answer fail, as `FakeVendor.fail_next` does."""

    def closed(self) -> Mapping[str, str]:
        """Credentials for an unreachable vendor, if they contain its address."""
        return self.credentials

    def word_of(self, message: OutboundMessage) -> Callback | None:
        """Without LOOK_UP: the callback about a message whose answer was lost."""
        return None

    def registered(self) -> str | None:
        """The registered callback address. REGISTRATION."""
        raise NotOffered

    def handshake(self, challenge: str, *, genuine: bool) -> Mapping[str, str]:
        """The query of the vendor's address check, with our secret if `genuine`. HANDSHAKE."""
        raise NotOffered

    @abstractmethod
    def texts(self) -> list[str] | None:
        """Accepted messages' texts; None if the vendor keeps none."""

    @abstractmethod
    def signed(self, body: bytes) -> Callback:
        """A callback with any body, signed by the vendor."""

    @abstractmethod
    def tell(self, *events: Event) -> Callback:
        """A callback with these events: exactly one unless BATCHES. Raises: NotOffered."""


# ----------------------------------------------------------------------------------------------------------- the bench
@dataclass
class Bench:
    """A channel connected to a running fake vendor."""

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
        """Raises: IntegrationError (incomplete)."""
        values = self.vendor.credentials if credentials is None else credentials
        where = self.addresses if addresses is None else addresses
        channel = connected(self.vendor.channel, self.kind, values, where, timeout_s=timeout_s)
        self.stack.push_async_callback(channel.aclose)
        return channel

    @property
    def name(self) -> str:
        return self.channel.name

    @property
    def kind(self) -> ChannelKind:
        return self.vendor.kind

    @property
    def secrets(self) -> list[str]:
        return [value for name, value in self.vendor.credentials.items() if name not in self.vendor.public and value]

    def has(self, feature: Feature) -> bool:
        return feature in self.channel.features

    def word(self, status: DeliveryStatus) -> str:
        return next(word for word, ours in self.vendor.words.items() if ours is status)

    def message(self, body: str = "Pay here: https://pay.example.test/p/abc", **changes: Any) -> OutboundMessage:
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
        return WebhookRequest(
            method=method, public_url=url, headers=headers, body=body, now=datetime.now(UTC), query=query or {}
        )

    def receive(self, callback: Callback, channel: Channel | None = None) -> ChannelWebhook:
        """Read a callback: no calls, and only storable values."""
        return self.take(self.request(*callback), channel)

    def take(self, request: WebhookRequest, channel: Channel | None = None) -> ChannelWebhook:
        with stopped_calls() as stopped:
            received = (channel or self.channel).receive(request)
        assert stopped == [], f"receive must only read the callback, and it calls {', '.join(stopped)}"
        assert faults_of(received) == []
        return received

    def told(self, feature: Feature, event: Event) -> ChannelWebhook | None:
        """Read an optional event; None if neither vendor nor channel offers it."""
        if self.has(feature):
            return self.receive(self.vendor.tell(event))
        try:
            self.vendor.tell(event)
        except NotOffered:
            return None
        raise AssertionError(f"the vendor sends {type(event).__name__}: read it, and declare Feature.{feature.name}")


def connected(
    provider: type[Channel],
    kind: ChannelKind,
    values: Mapping[str, str],
    addresses: Mapping[str, str],
    *,
    timeout_s: float = TIMEOUT_S,
) -> Channel:
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
    try:
        with mock.patch.dict(os.environ, TZ=zone):
            time.tzset()
            yield
    finally:
        time.tzset()


@contextmanager
def stopped_calls() -> Iterator[list[str]]:
    """List and fail this thread's blocking calls."""
    found: list[str] = []
    here = threading.get_ident()

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            waits = name != "socket.connect" or args[0].gettimeout() != 0
            if threading.get_ident() == here and waits:
                found.append(name)
                raise OSError(f"{name} blocks the event loop")
            return real(*args, **more)

        return call

    with (
        mock.patch.object(time, "sleep", guarded("time.sleep", time.sleep)),
        mock.patch.object(socket, "getaddrinfo", guarded("socket.getaddrinfo", socket.getaddrinfo)),
        mock.patch.object(socket.socket, "connect", guarded("socket.connect", socket.socket.connect)),
    ):
        yield found


def another_sender(bench: Bench) -> str:
    if bench.vendor.another is not None:
        return bench.vendor.another
    if bench.kind in PHONES:
        return "+14155550102"
    return "maya@x.test" if bench.kind is ChannelKind.EMAIL else "9876543210"


def faults_of(received: ChannelWebhook) -> list[str]:
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
                found.append(f"{name}.{key} is not a str: {value!r}")
        needed = {"InboundMessage": ("sender", "external_id"), "Blocking": ("address",)}.get(name, ())
        found += [f"{name}.{key} is empty" for key in needed if not getattr(part, key)]
    for message in received.messages:
        if not isinstance(message.body, str):
            found.append(f"InboundMessage.body is not a str: {message.body!r}")
        if message.opt_out not in (True, False, None):
            found.append(f"InboundMessage.opt_out must be True, False or None: {message.opt_out!r}")
        for one in message.attachments:
            if not all(isinstance(value, str) for value in one.values()):
                found.append(f"an attachment's values must all be str: {one!r}")
    return found
