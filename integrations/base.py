"""What a provider's author reads: the two interfaces, their dataclasses and their errors. No table, no vendor, no GraphQL."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal


# ------------------------------------------------------------------------------------------------------------ errors
class IntegrationError(Exception):
    """A provider failed. `reason` is a stable machine word, `message` is for operators, never for a contact.

    `retryable`: the same call may be repeated safely with the same key.
    `ambiguous`: the request left us and its outcome is unknown (time-out, dropped connection, 5xx): read, never repeat blindly.
    `retry_after_s`: how long to wait before the same call. Of a `rate_limited` connection: nothing goes out on it before.
    `field`: the field of the CheckoutOrder that the vendor refused. An optional one (OPTIONAL_FIELDS) is left out of the next try,
    so that the contact can pay although their e-mail address, say, is not one that this vendor takes.
    """

    def __init__(
        self,
        provider: str,
        reason: str,
        message: str = "",
        *,
        retryable: bool = False,
        ambiguous: bool = False,
        code: str | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(f"{provider}: {reason}" + (f": {message}" if message else ""))
        self.provider = provider
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.ambiguous = ambiguous
        self.code = code
        self.retry_after_s = retry_after_s
        self.field = field


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header; None: there is none, or it is a moment (a date, or seconds since 1970)."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class SignatureInvalid(IntegrationError):
    """A webhook's signature is missing, malformed, stale or wrong. The door answers 400 and stores nothing."""

    def __init__(self, provider: str, reason: str = "signature_invalid") -> None:
        super().__init__(provider, reason)


class PayloadInvalid(IntegrationError):
    """A correctly signed webhook whose body is not what the vendor's contract says."""


# -------------------------------------------------------------------------------------------------------- processors
class MoneyKind(StrEnum):
    """What moved. Same words as the ledger's."""

    CHARGE = "CHARGE"
    REFUND = "REFUND"
    DISPUTE = "DISPUTE"


class MoneyOutcome(StrEnum):
    """How it stands at the processor now."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class CheckoutStatus(StrEnum):
    """State of one checkout session at its processor."""

    OPEN = "OPEN"  # can still be paid
    PROCESSING = "PROCESSING"  # submitted, money under way (bank debit)
    COMPLETED = "COMPLETED"  # paid
    FAILED = "FAILED"  # submitted, the money did not arrive; cannot be paid any more
    EXPIRED = "EXPIRED"  # cannot be paid any more, nothing was submitted


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyStatement:
    """What a processor says about one movement of money: the recorder's only input.

    `external_id` is the money's own id (payment intent, capture, refund, dispute), never the event's.
    Amounts are positive integers in the currency's ISO 4217 minor unit.
    """

    kind: MoneyKind
    external_id: str
    outcome: MoneyOutcome
    amount_minor: int
    currency: str
    checkout_external_id: str | None = None
    request_reference: str | None = None  # the reference that we put on the vendor's object
    charge_external_id: str | None = None  # of a refund or dispute: the charge that it concerns
    fee_minor: int | None = None
    method_summary: str | None = None  # "Visa •••• 4242"; never more of the card
    failure_code: str | None = None
    # In plain words for the team, never for a contact: why it failed (integrations/declines.py has sentences), or what a pending
    # one waits for.
    failure_message: str | None = None
    response_due_at: datetime | None = None  # of a dispute that waits for the business's answer
    dispute_reason: str | None = None  # of a dispute: the vendor's word
    inquiry: bool = False  # of a dispute: so far a question, which takes no money; a refund can settle it
    reversal: bool = False  # of a refund: the vendor took the money back by itself; a dispute that is won ends it
    # Of a dispute: when the vendor came to this word, not when the dispute began. The latest word stands, also after a decision.
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """A payment was begun whose money takes days: a voucher to be paid, a bank debit, a transfer. Never a card's own seconds."""

    method: str | None = None  # as its payers call it: "OXXO", "SEPA Direct Debit"; None: not known
    until: datetime | None = None  # when it ends unpaid; None: the vendor does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOrder:
    """Everything a processor needs to open one checkout session."""

    idempotency_key: str
    request_reference: str  # put on the vendor's object (and on its payment), comes back in statements
    number: str
    product_name: str
    description: str | None
    amount_minor: int
    currency: str
    success_url: str
    cancel_url: str
    customer_email: str | None = None
    locale: str | None = None


OPTIONAL_FIELDS = frozenset(
    {"customer_email", "description", "locale"}
)  # of a CheckoutOrder: it can be paid without them


class RefundReason(StrEnum):
    """Why money is given back. Same words as the API's; what a vendor has no word for is not told to it."""

    DUPLICATE = "DUPLICATE"
    FRAUDULENT = "FRAUDULENT"
    REQUESTED_BY_CONTACT = "REQUESTED_BY_CONTACT"
    SERVICE_PROBLEM = "SERVICE_PROBLEM"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """Everything a processor needs to give back one charge, whole or in part. Its key is stored before the call."""

    idempotency_key: str
    request_reference: str
    charge_external_id: str  # the money's id, as its statement gave it
    checkout_external_id: str | None = None  # of the charge, where it is known: some vendors find the money by it
    amount_minor: int
    currency: str
    reason: RefundReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """One checkout session as its processor reports it, with the money seen on it.

    `awaits_completion`: the payer has agreed, but no money moves until we call `complete_checkout`; only while OPEN.
    """

    external_id: str
    status: CheckoutStatus
    url: str | None = None  # where the contact pays; only while OPEN
    expires_at: datetime | None = None
    request_reference: str | None = None
    money: Sequence[MoneyStatement] = ()
    awaits_completion: bool = False
    delay: Delay | None = (
        None  # of a PROCESSING one whose money takes days; None: it does not, or the vendor does not say
    )
    test_mode: bool | None = (
        None  # what the vendor says; None: it does not say. The other mode than the connection's is foreign
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorWebhook:
    """A verified webhook. `decides` says that `money` may be recorded as it stands; otherwise read the checkout first.

    What does not decide is a hint: it names what to read, a checkout or (`charge_external_id`) a charge.
    """

    # The event's own id, unique per connection: a repeat of it changes nothing. None: the vendor gives events no id, so that
    # each webhook is a hint to read again. Never the id of the payment, which all its events share.
    external_id: str | None
    type: str
    created_at: datetime | None = None  # when the vendor made the event; None: it does not say
    decides: bool = False
    money: Sequence[MoneyStatement] = ()
    checkout_external_id: str | None = None
    checkout_status: CheckoutStatus | None = None
    delay: Delay | None = None  # as Checkout has it
    charge_external_id: str | None = None  # of a hint without a checkout: what `read_charge` shall read
    request_reference: str | None = None
    vendor_account: str | None = None  # Stripe Connect: must equal the connection's
    # The business took these credentials' rights back at the vendor. Unless it `decides`, `check` is asked first.
    disconnected: bool = False
    # The event as JSON to be stored, where it is not the body that came in (list_events; a body that only points; one of a batch).
    raw: bytes = b""
    test_mode: bool | None = (
        None  # what the vendor says; None: it does not say. The other mode than the connection's is foreign
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountLimits:
    """Inclusive bounds in minor units; None = none known. `step` 10 for Stripe's three-decimal currencies."""

    minimum_minor: int = 1
    maximum_minor: int | None = None
    step_minor: int = 1


class WebhookProof(StrEnum):
    """What proves that a webhook comes from the vendor. Only a signature over the body lets it decide."""

    BODY = "BODY"  # a signature over the raw body
    PARTS = "PARTS"  # a signature over an id and a time, say: whatever else the body tells is not believed
    NONE = "NONE"  # nothing: only the id of a known checkout or charge causes a read


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a vendor offers. Paythread relies on it; the kit tests what is declared, and reports what is not.

    Which currencies a processor takes, `amount_limits` says.
    """

    webhook_proof: WebhookProof = WebhookProof.BODY
    webhooks_decide: bool = True  # a payment's webhook tells its checkout and money; False: it is a hint to read
    webhooks_expire: bool = (
        True  # what was signed over 300 s ago is refused; False: sent again under the old time, a hint
    )
    webhooks_signed_at: bool = True  # the signature covers a time
    webhook_batches: bool = False  # one webhook may tell several events, also of several checkouts
    cancels_checkouts: bool = True  # False: an open checkout only ends by itself, `expire_checkout` only reads it
    checkouts_end: bool = True  # by themselves, at `expires_at`
    declines_end_checkouts: bool = False  # the payer of a declined payment needs a new checkout
    reads_declines: bool = True  # `read_checkout` tells declined charges
    delayed_payments: bool = True  # a payment may be PENDING for days
    partial_captures: bool = False  # one checkout may be paid by several charges, which add up
    method_summaries: bool = True  # a charge tells how it was paid
    # How long the vendor remembers an idempotency key, seconds: later the same call would make a second object, so it is never
    # repeated, only looked for. 0: it knows no keys. None: for six hours or more, or the provider finds what a key has made.
    key_life_s: int | None = None
    refunds: bool = True  # `refund` and `read_refund`
    partial_refunds: bool = True
    pending_refunds: bool = False  # a refund may be PENDING first, and fail
    disputes: bool = True
    retry_after: bool = True  # a 429 says how long to wait

    @property
    def knows_keys(self) -> bool:
        """Whether the same idempotency key gives the same object, for a while at least."""
        return self.key_life_s != 0


Mode = Literal["test", "live"]
_MODES: Mapping[str, Mode] = {
    "test": "test",
    "sandbox": "test",
    "live": "live",
    "prod": "live",
    "production": "live",
}


def mode_of_keys(credentials: Mapping[str, str]) -> Mode | None:
    """The mode that keys tell by their text (`sk_test_…`, `live_…`); None: they tell none.

    Raises IntegrationError (`modes_differ`) for keys of both modes.
    """
    words = {
        word
        for key in credentials.values()
        for word in re.findall(rf"(?:^|(?<=[_.:-]))({'|'.join(_MODES)})(?=[_.:-])", key.lower())
    }
    modes = {_MODES[word] for word in words}
    if len(modes) > 1:
        raise IntegrationError("keys", "modes_differ", "some of these keys are of test mode, others of live mode")
    return modes.pop() if modes else None


class Processor(ABC):
    """One connected payment processor. One instance per connection; safe to share between tasks.

    Every vendor exception is wrapped into IntegrationError at the edge. No method touches the database.
    """

    name: ClassVar[str]  # file name and URL part
    display_name: ClassVar[str]
    credentials: ClassVar[type[Any]]  # a frozen dataclass of strings
    checkout_origins: ClassVar[tuple[str, ...]] = ()  # for the pay page's CSP form-action
    session_life_s: ClassVar[int] = 23 * 3600
    capabilities: ClassVar[Capabilities] = Capabilities()
    # A reason of `check` to refuse -> the credential that it is about, and a sentence on what to do, with {name}, {mode} and {url}.
    advice: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @classmethod
    def mode_of(cls, credentials: Mapping[str, str]) -> Mode | None:
        """The mode that these credentials, by name, are of; None: they do not tell, so that the owner has to say it.

        Some may be missing. By default the secrets' text decides, but for those of webhooks.
        Raises IntegrationError (`modes_differ`).
        """
        fields = dataclasses.fields(cls.credentials)
        secrets = [f.name for f in fields if not f.repr and not f.name.startswith("webhook")]
        return mode_of_keys({name: credentials[name] for name in secrets if credentials.get(name)})

    @abstractmethod
    def amount_limits(self, currency: str) -> AmountLimits | None:
        """Bounds for a charge in this currency, or None: the processor does not take it."""

    @abstractmethod
    async def check(self) -> str | None:
        """Call the vendor with the credentials; return the vendor's account id. Raises IntegrationError."""

    @abstractmethod
    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Open a session. The same key gives the same session, within `key_life_s`. Raises IntegrationError."""

    @abstractmethod
    async def read_checkout(self, external_id: str) -> Checkout:
        """The session as it stands, with its money. Raises IntegrationError."""

    @abstractmethod
    async def expire_checkout(self, external_id: str) -> Checkout:
        """Close an open session and return what it is afterwards: EXPIRED, or what won the race (COMPLETED, PROCESSING).

        Without `cancels_checkouts`: return it as it stands, OPEN until it ends by itself. Raises IntegrationError.
        """

    async def cancel_delayed(self, external_id: str) -> Checkout:
        """Make a delayed payment that was begun on a PROCESSING checkout impossible, where the vendor can; what it is afterwards.

        Still PROCESSING: it can't be canceled, and may yet be paid. Others are only read. Raises IntegrationError.
        """
        return await self.read_checkout(external_id)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Take the money of a checkout that `awaits_completion`; return what it is afterwards. Others are only read.

        The only call that moves a payer's money, so its caller commits a mark on the checkout first, under the request's
        lock and never while a void is pending. An ambiguous answer is repeated with the same key. Raises IntegrationError.
        """
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Give back a charge or a part of it. The same key gives the same refund, within `key_life_s`. Raises IntegrationError.

        Ambiguous: repeat with the same key within its life, later only read the checkout, whose money has its refunds.
        """
        raise IntegrationError(self.name, "unsupported", "this processor makes no refunds from here")

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """The refund as it stands. Some vendors find it by its charge, which is given where it is known. Raises IntegrationError."""
        raise IntegrationError(self.name, "unsupported", "this processor makes no refunds from here")

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook | Sequence[ProcessorWebhook]:
        """What a door calls: as `receive`. Override it to ask the vendor about the signature, or where `query` matters.

        With `webhook_batches` a body may tell several events: return each with its own `raw`. An event of a batch that can't be
        read is left out, or given by its type alone: it must not refuse the others.
        `query` has the parameters of the address that was called. `parse` sees none of them: what it needs goes into `raw`.
        Without a `webhook_proof` nothing may be fetched here, since anybody can call.
        Raises SignatureInvalid (`no_webhook_secret`, whatever came: this connection takes none), PayloadInvalid;
        IntegrationError if the vendor can't be asked now: nothing is known of the body, so answer 503 and the vendor sends it again.
        """
        return self.receive(body, headers, now=now)

    @abstractmethod
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Verify the signature over the raw body, then parse. `headers` has lower-case names.

        Refuses what is over 300 s old or ahead. Where the vendor signs no time, or resends under the old one, what is
        older than that only never `decides`. Raises SignatureInvalid, PayloadInvalid.
        """

    @abstractmethod
    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse a stored body whose signature was verified when it came in. Raises PayloadInvalid."""

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Checkouts made since then under these credentials, oldest first: some of them we may not know. Raises IntegrationError.

        Only what carries a `request_reference`; empty where the vendor keeps no list.
        """
        return ()

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """A charge as it stands, with its checkout where the vendor knows it; None: these credentials see no such charge.

        Confirms money that names our request and none of its known checkouts. Raises IntegrationError (`unsupported`: can't be read).
        """
        raise IntegrationError(self.name, "unsupported", "this processor reads no single charge")

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Have the vendor deliver its webhooks to this connection's address; the credentials that come of it, to be stored.

        None: this vendor or this key does not allow it, so that a person pastes the address. Raises IntegrationError.
        """
        return None

    async def unregister_webhook(self) -> None:  # noqa: B027 (optional to override)
        """Delete the webhook that these credentials name, if `register_webhook` made it, and no newer one. Raises IntegrationError."""

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        """Events that the vendor could not deliver since then, oldest first; empty where the vendor keeps no list."""
        return ()

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Release HTTP clients."""


# ---------------------------------------------------------------------------------------------------------- channels
class ChannelKind(StrEnum):
    """The six kinds of channel (CUSTOM: a plug-in with declared limits)."""

    SMS = "SMS"
    EMAIL = "EMAIL"
    WHATSAPP = "WHATSAPP"
    INSTAGRAM_DM = "INSTAGRAM_DM"
    MESSENGER = "MESSENGER"
    WEB_CHAT = "WEB_CHAT"
    CUSTOM = "CUSTOM"


class DeliveryStatus(StrEnum):
    """QUEUED < SENDING < SENT < DELIVERED < READ; FAILED final; UNKNOWN yields to any."""

    QUEUED = "QUEUED"
    SENDING = "SENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class LengthUnit(StrEnum):
    """What a vendor counts a text in."""

    CHARACTERS = "CHARACTERS"  # Unicode code points
    UTF16_UNITS = "UTF16_UNITS"  # what is beyond U+FFFF, as most emoji, counts twice
    BYTES = "BYTES"  # of UTF-8


class Feature(StrEnum):
    """What a channel's vendor offers beside taking texts and telling of them. The kit tests what is declared, and that no more is done."""

    SIGNED_BODY = "SIGNED_BODY"  # callbacks are signed over their raw body; without it they carry a secret
    DELIVERED = "DELIVERED"  # callbacks tell that a message was delivered
    READ = "READ"  # … read
    FAILED = "FAILED"  # … not delivered
    LOOK_UP = "LOOK_UP"  # a message whose answer was lost can be found again: `look_up`
    BATCHES = "BATCHES"  # one callback may tell of several events
    OTHER_EVENTS = "OTHER_EVENTS"  # callbacks may tell of what the channel has no use for
    SHARED_CALLBACKS = "SHARED_CALLBACKS"  # a callback names the vendor's account; it may be another than ours
    HANDSHAKE = "HANDSHAKE"  # the vendor checks the address with a GET that wants its challenge back
    REGISTRATION = "REGISTRATION"  # `register_webhook` tells the vendor our address
    FILES = "FILES"  # contacts send files
    CAPTIONS = "CAPTIONS"  # a file may have words beside it, in the same message
    GROUPS = "GROUPS"  # callbacks may tell of what is written in groups: no private messages, left out
    OTHER_CONTENT = (
        "OTHER_CONTENT"  # contacts send what is neither text nor file (a place, a sticker): a message all the same
    )
    ANSWERS = "ANSWERS"  # a message can point at an earlier one: `in_reply_to`
    EDITS = "EDITS"  # contacts change what they wrote
    REMOVALS = "REMOVALS"  # contacts take back what they wrote
    ECHOES = "ECHOES"  # callbacks tell of our own messages, too
    BLOCKS = "BLOCKS"  # callbacks tell that a contact has blocked us, and that this is over
    DEEP_LINKS = "DEEP_LINKS"  # a link opens the chat and brings our token back: `deep_link`


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """What a provider can carry, as data."""

    max_length: int | None = None  # of one message's text, in `length_unit`
    length_unit: LengthUnit = LengthUnit.CHARACTERS
    window_hours: int | None = None  # free text only within so many hours of the contact's last inbound message
    needs_subject: bool = False
    link_preview: bool = False
    link_button: bool = False  # the payment link becomes a button; it stays in the text all the same
    templates: bool = False  # outside the window an approved template (`template_id`) may be sent
    person_window_hours: int | None = None  # the window for what a person writes, where it is longer
    messages_per_s: float | None = None  # what the vendor takes on one connection; more wait their turn
    max_cc: int = 0  # e-mail: how many addresses may get a copy (OutboundMessage.cc); 0: `cc` is not sent
    recipient_messages_per_s: float | None = None  # … for one recipient; the others need not wait

    def length_of(self, text: str) -> int:
        """How long a text is, in `length_unit`."""
        match self.length_unit:
            case LengthUnit.CHARACTERS:
                return len(text)
            case LengthUnit.UTF16_UNITS:
                return len(text.encode("utf-16-le", "surrogatepass")) // 2
            case LengthUnit.BYTES:
                return len(text.encode("utf-8", "surrogatepass"))


class Author(StrEnum):
    """Who wrote an outgoing message: vendors allow a person more than a program."""

    PERSON = "PERSON"
    AUTOMATION = "AUTOMATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """One message to hand to a provider. A provider that has no use for an optional field ignores it."""

    message_id: str  # our public id
    attempt_id: str  # unique per call
    to: str  # E.164, e-mail address, page-scoped id, visitor id
    body: str
    subject: str | None = None
    status_url: str | None = None  # absolute public URL for delivery callbacks
    sender_name: str | None = None
    author: Author | None = None  # None: not known, which counts as neither
    last_inbound_at: datetime | None = None  # when this contact last wrote on this channel; None: not known
    template_id: str | None = None  # the vendor's id of an approved template, sent instead of `body`
    template_variables: Mapping[str, str] = field(default_factory=dict)  # placeholder -> text
    link_url: str | None = None  # what the button opens; None: the first payment link in `body`
    link_label: str | None = None  # the button's words; None: "Pay now"
    reply_to: str | None = None  # where answers go, if not to the sender
    in_reply_to: str | None = None  # external_id of the message that this one answers
    references: Sequence[str] = ()  # external_ids of the thread so far, oldest first
    unsubscribe_url: str | None = None  # https address that takes a one-click POST (RFC 8058)
    cc: Sequence[str] = ()  # e-mail: who gets a copy; never more than ChannelLimits.max_cc


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The provider accepted the message."""

    external_id: str
    status: DeliveryStatus = DeliveryStatus.SENT
    relay_id: str | None = None  # what the vendor calls the message where it may replace our id
    refused_cc: Sequence[str] = ()  # of OutboundMessage.cc: the vendor sends them no copy


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusUpdate:
    """A delivery callback.

    `message_id` (our public id) is known where the vendor hands back what we gave it: it names the message although its
    external id was lost. With `up_to` there is no external id: the status holds for every message to `address` sent until then.
    Without it `address` is the recipient that the status is about, where an e-mail had several.
    """

    external_id: str
    status: DeliveryStatus
    error_code: str | None = None
    error_message: str | None = None
    occurred_at: datetime | None = None
    reason: str | None = None  # of a failure: our word where it has consequences ("opted_out", "window_closed")
    message_id: str | None = None
    address: str | None = None
    up_to: datetime | None = None
    answered: bool = False  # the contact answered this very message: it arrived, whatever a report said before
    opted_out: bool = False  # not delivered because the recipient has withdrawn the consent


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """What a contact wrote.

    `external_id` is unique on this connection: of a vendor that counts in each chat, it is made of chat and number. Times have a zone.
    """

    external_id: str
    sender: str  # the address that `send` takes, in one spelling
    body: str
    recipient: str | None = None
    sender_name: str | None = None
    opt_out: bool | None = None  # True: STOP, False: START, None: neither
    occurred_at: datetime | None = None
    # Of url, content_type, name, size (bytes): what the vendor tells. In place of url: `id`, for `media_url` to find the address
    # later; or `content` (base64), which came along.
    attachments: Sequence[Mapping[str, str]] = ()
    subject: str | None = None
    in_reply_to: str | None = (
        None  # external_id of the message, of either side, that it points at; a letter: proved to be ours
    )
    references: Sequence[str] = ()  # ids that it names, of which one may be a relay's
    quoted: str | None = None  # what the message quotes of earlier ones: kept, and shown apart from `body`
    cc: Sequence[str] = ()  # addresses of the other recipients of a letter
    help_answered: bool = False  # a HELP that the vendor has answered itself
    stop_unanswered: bool = False  # a STOP that the vendor leaves to us to confirm
    link_token: str | None = None  # what `deep_link` was given, where the contact came by such a link


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageChange:
    """What is told later of a message of either side: its writer changed or removed it, or the contact reacted to it."""

    external_id: str  # of the message
    body: str | None = None  # the new text; None: it stays
    removed: bool = False
    reaction: str | None = None  # the contact's emoji; "": taken back; None: it stays
    opt_out: bool | None = None  # of the new text, as in InboundMessage
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """A contact has blocked us at the vendor, or has taken that back. A STOP that they wrote stays whatever this says."""

    address: str
    blocked: bool
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenElsewhere:
    """A message to a contact that was not sent through us: a colleague wrote it in the vendor's own inbox or app."""

    external_id: str
    recipient: str  # the contact's address
    body: str
    author: str  # what the thread shows as its author
    occurred_at: datetime | None = None
    attachments: Sequence[Mapping[str, str]] = ()  # as in InboundMessage
    in_reply_to: str | None = None
    template: bool = False  # a button or a card, which colleagues rarely write: without words of its own it may be ours


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWebhook:
    """A verified callback: any mix of statuses, messages and changes of messages, and what to answer.

    `others`: vendor accounts that the callback speaks of besides this connection's; hand it to their connections, too.
    """

    statuses: Sequence[StatusUpdate] = ()
    messages: Sequence[InboundMessage] = ()
    elsewhere: Sequence[WrittenElsewhere] = ()
    changes: Sequence[MessageChange] = ()
    blockings: Sequence[Blocking] = ()
    others: Sequence[str] = ()
    answer_body: str = ""
    answer_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """An inbound HTTP request as a provider needs it for verification."""

    method: str
    public_url: str  # scheme and host from PUBLIC_URL, path and query as received
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    now: datetime
    query: Mapping[str, str] = field(default_factory=dict)


EXTERNAL_ID_LIMIT = 120


def external_id(text: str) -> str:
    """A vendor's message id as it is stored: itself up to EXTERNAL_ID_LIMIT characters, else its SHA-256.

    Instagram's ids and some mail programs' Message-IDs are longer; the same id gives the same text wherever it comes up.
    """
    if len(text) <= EXTERNAL_ID_LIMIT:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Channel(ABC):
    """One connected way to send. One instance per connection; safe to share between tasks."""

    name: ClassVar[str]  # file name
    display_name: ClassVar[str]
    kinds: ClassVar[tuple[ChannelKind, ...]]
    credentials: ClassVar[type[Any]]
    features: ClassVar[frozenset[Feature]] = frozenset()

    @abstractmethod
    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """What this provider can carry on this kind of channel."""

    @abstractmethod
    async def send(self, message: OutboundMessage) -> SendResult:
        """One call to the vendor, at most once. Raises IntegrationError (`ambiguous` when the outcome is unknown)."""

    @abstractmethod
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify, then parse, without a call; the caller reads large bodies on another thread. Raises SignatureInvalid, PayloadInvalid.

        What the channel has no use for is left out, and never keeps the rest of the callback from being taken.
        """

    def media_headers(self, url: str) -> Mapping[str, str]:
        """What a GET of one of its attachments needs (authorization); empty for any address that is not the vendor's own."""
        return {}

    async def media_url(self, media_id: str) -> str:
        """The address of an attachment that its callback named by `id` only. Raises IntegrationError.

        Asked by the job that fetches the file. It may carry a secret: it is neither stored nor logged.
        """
        raise IntegrationError(self.name, "unsupported", "this channel names no files by id")

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """Have the vendor call `url` for this connection; the credentials that come of it, to be stored. Raises IntegrationError.

        None: a person pastes the address. It may be asked again: a secret that these credentials have already stays.
        """
        return None

    def deep_link(self, token: str) -> str | None:
        """An address that opens this channel and brings `token` (48 of A-Z a-z 0-9 _ -) back as `link_token`; None: there is none."""
        return None

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Resolve an ambiguous send by asking the vendor; None when it has no answer (exactly one match counts)."""
        return None

    async def name_of(self, address: str) -> str | None:
        """The name of the person with this address, where messages do not bring it; None: the vendor tells none.

        Raises IntegrationError.
        """
        return None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Credentials in place of those that end soon, to be stored; None: none end soon. Raises IntegrationError."""
        return None

    async def check(self) -> str | None:
        """Call the vendor with the credentials; return its account id. Raises IntegrationError."""
        return None

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Release HTTP clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a provider may know of where it runs."""

    public_url: str  # absolute, no trailing slash
    sandbox_url: str  # where the sandbox processor's own server answers (this process, by default)
    base_addresses: Mapping[str, str] = field(
        default_factory=dict
    )  # vendor name -> address instead of the real one (tests)
    private_hosts: frozenset[str] = frozenset()  # "host", "host:port" or "host:*": see addresses.connect
    timeout_s: float = 15.0
