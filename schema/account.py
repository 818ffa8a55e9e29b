"""The account with its users, API keys, channels and processors."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self, cast

import strawberry
from strawberry.types.base import StrawberryOptional
from strawberry.types.lazy_type import LazyType

from models import errors, tables
from models.ids import public_id
from schema.connections import API_KEYS, INVITATIONS, USERS, After, Before, First, Last, Slice
from schema.context import Info
from schema.describe import field
from schema.reasons import CapabilityReason
from schema.scalars import (
    ALL_CURRENCIES,
    URL,
    ChannelKind,
    CurrencyCode,
    Cursor,
    HelpKind,
    LengthUnit,
    Node,
    PageInfo,
    ProcessorKind,
    Role,
)
from services.connections import providers
from services.connections.availability import Capability, Help, Reach
from services.messaging import copies
from services.payments.payment_requests import Defaults
from services.team import tags


@strawberry.type(description="A person who signs in to the inbox.")
class User(Node):
    name: str = strawberry.field(description="The person's name, shown to the team.")
    email: str = strawberry.field(description="The address that the person signs in with.")
    role: Role = strawberry.field(description="The user's role.")
    disabled: bool = strawberry.field(description="Whether the person may no longer sign in.")
    locale: str | None = strawberry.field(
        description="The person's language and region, e.g. en-US; null: the account's."
    )
    time_zone: str | None = strawberry.field(description="The person's IANA time zone; null: the account's.")

    @classmethod
    def from_row(cls, row: tables.User) -> Self:
        return cls(
            id=strawberry.ID(public_id("usr", row.id)),
            name=row.name,
            email=row.email,
            role=Role[row.role],
            disabled=row.disabled_at is not None,
            locale=row.locale,
            time_zone=row.time_zone,
        )


_HIDDEN = "Null: this viewer may not manage API keys."


@strawberry.type(
    description=(
        "A credential for programs. Its secret is shown once, when it is made. Viewers who may not manage keys see its"
        " name only."
    )
)
class ApiKey(Node):
    row: strawberry.Private[tables.ApiKey]
    name: str = strawberry.field(description="What it is for.")

    @classmethod
    def from_row(cls, row: tables.ApiKey) -> Self:
        return cls(id=strawberry.ID(public_id("key", row.id)), row=row, name=row.name)

    def _shown_to(self, info: Info) -> tables.ApiKey | None:
        return self.row if info.context.actor.may("keys") else None

    @field(f"Its role. {_HIDDEN}")
    def role(self, info: Info) -> Role | None:
        row = self._shown_to(info)
        return Role[row.role] if row is not None else None

    @field(f"The last characters of the secret, to distinguish keys. {_HIDDEN}")
    def hint(self, info: Info) -> str | None:
        row = self._shown_to(info)
        return row.hint if row is not None else None

    @field(f"When it was made. {_HIDDEN}")
    def created_at(self, info: Info) -> datetime | None:
        row = self._shown_to(info)
        return row.created_at if row is not None else None

    @field("When it was last used; null: never, or this viewer may not manage API keys.")
    def last_used_at(self, info: Info) -> datetime | None:
        row = self._shown_to(info)
        return row.last_used_at if row is not None else None

    @field("When it was revoked; null: it was not, or this viewer may not manage API keys.")
    def revoked_at(self, info: Info) -> datetime | None:
        row = self._shown_to(info)
        return row.revoked_at if row is not None else None

    @field(
        "When it expires; null: never, for keys from before expiry was introduced, or this viewer may not manage API keys."
    )
    def expires_at(self, info: Info) -> datetime | None:
        row = self._shown_to(info)
        return row.expires_at if row is not None else None

    @field(f"Whether it may make and revoke keys. {_HIDDEN}")
    def manages_keys(self, info: Info) -> bool | None:
        row = self._shown_to(info)
        return row.manages_keys if row is not None else None


@strawberry.type(description="One connected way to send and receive messages.")
class Channel(Node):
    row: strawberry.Private[tables.ChannelConnection]
    kind: ChannelKind = strawberry.field(description="What kind of channel it is.")
    provider: str = strawberry.field(description="The adapter behind it, e.g. twilio_sms or simulated.")
    display_name: str = strawberry.field(description="Its name for the team.")
    sender: str = strawberry.field(description="Our own address on it: phone number, email address, page.")
    connected: bool = strawberry.field(description="Whether it can be used now.")
    last_webhook_at: datetime | None = strawberry.field(
        description="When its provider last called Paythread; null: never. Check a connected channel that stays silent."
    )
    last_error: str | None = strawberry.field(description="Its last error; null: none.")

    allowed_origins: list[str] = strawberry.field(
        description="Of a web chat: the sites that may show its widget; none: no site may."
    )

    @classmethod
    def from_row(cls, row: tables.ChannelConnection) -> Self:
        return cls(
            id=strawberry.ID(public_id("chn", row.id)),
            row=row,
            kind=ChannelKind[row.kind],
            provider=row.provider,
            display_name=row.display_name,
            sender=row.sender,
            connected=row.connected,
            last_webhook_at=row.last_webhook_at,
            last_error=row.last_error,
            allowed_origins=list(row.allowed_origins),
        )

    @field("Where its provider must deliver inbound messages and delivery reports.")
    def webhook_url(self) -> URL:
        return URL(providers.inbound_url(self.row))

    @field("For the web chat: the element to paste into the site's pages; null on every other channel.")
    def widget_snippet(self) -> str | None:
        return providers.widget_snippet(self.row)


@strawberry.type(description="A remedy when nothing can be sent now.")
class SendingHelp:
    kind: HelpKind = strawberry.field(description="What it is.")
    sentence: str = strawberry.field(description="A message for people, in English.")
    channel_id: strawberry.ID | None = strawberry.field(
        description="For OTHER_CHANNEL: the channelId for sendMessage; otherwise null."
    )

    @classmethod
    def from_help(cls, found: Help) -> Self:
        channel_id = strawberry.ID(public_id("chn", found.channel_id)) if found.channel_id is not None else None
        return cls(kind=HelpKind[found.kind], sentence=found.sentence, channel_id=channel_id)


@strawberry.interface(
    description="Whether something can be sent here now, and if not, why. Sending uses the same rule."
)
class ChannelCapability:
    supported: bool = strawberry.field(description="Whether the channel's provider can be used at all.")
    enabled: bool = strawberry.field(description="Whether sending free text now would be accepted.")
    reason: CapabilityReason | None = strawberry.field(
        description="The code with which sending would be refused; null when it is enabled."
    )
    sentence: str | None = strawberry.field(description="The reason for people, in English; null when it is enabled.")
    help: list[SendingHelp] = strawberry.field(description="Remedies, best first; empty when it is enabled.")
    templates: bool = strawberry.field(
        description="Whether an approved template would be accepted now: also while the window for free text is closed."
    )
    window_closes_at: datetime | None = strawberry.field(
        description="Until when free text may be sent; null: no window applies, or it is closed."
    )
    max_message_length: int | None = strawberry.field(description="Longest text; null: no practical limit.")
    length_unit: LengthUnit = strawberry.field(description="The unit of maxMessageLength.")
    link_preview: bool = strawberry.field(description="Whether the contact's app shows a preview of links.")
    needs_subject: bool = strawberry.field(description="Whether a message has a subject line.")

    @classmethod
    def from_capability(cls, able: Capability) -> Self:
        return cls(
            supported=able.supported,
            enabled=able.enabled,
            reason=CapabilityReason[able.reason] if able.reason is not None else None,
            sentence=able.sentence,
            help=[SendingHelp.from_help(found) for found in able.help],
            templates=able.templates,
            window_closes_at=able.window_closes_at,
            max_message_length=able.max_message_length,
            length_unit=LengthUnit[able.length_unit],
            link_preview=able.link_preview,
            needs_subject=able.needs_subject,
        )


@strawberry.type(description="Whether a message without a payment request can be sent here now, and if not, why.")
class ChannelMessageCapability(ChannelCapability):
    pass


@strawberry.type(description="Whether a payment request can be sent here now, and if not, why: the $ icon.")
class ChannelPaymentCapability(ChannelCapability):
    pass


@strawberry.type(
    description=(
        "How this contact can be reached on a channel now. Its id belongs to the conversation, so that a"
        " normalized cache never mixes contacts."
    )
)
class ConversationChannel(Node):
    channel: Channel = strawberry.field(description="The account's channel: its id is what sendMessage takes.")
    preferred: bool = strawberry.field(
        description=(
            "Whether the composer should start with it: the channel that the contact wrote to last, or else another one"
            " that is open to messages. At most one is."
        )
    )
    max_cc: int = strawberry.field(
        description="How many addresses `cc` of sendMessage may hold; 0: this channel sends no copies."
    )
    invite_url: URL | None = strawberry.field(
        description=(
            "A personal address for this contact, to send another way: whoever opens it on this channel within 30"
            " days is recorded as this contact. Null: the channel has no such addresses, or the contact can be"
            " reached on it already."
        )
    )
    messages: ChannelMessageCapability = strawberry.field(
        description="For the composer: whether text can be sent, and if not, why. sendMessage uses the same rule."
    )
    payment_requests: ChannelPaymentCapability = strawberry.field(
        description="For the composer: whether the $ icon is enabled, and if not, why. sendMessage uses the same rule."
    )

    @classmethod
    def from_reach(cls, conversation: tables.Conversation, reach: Reach) -> Self:
        conversation_part = public_id("cch", conversation.id)
        return cls(
            id=strawberry.ID(public_id(conversation_part, reach.connection.id)),
            channel=Channel.from_row(reach.connection),
            preferred=reach.preferred,
            max_cc=copies.allowed(reach.connection),
            invite_url=URL(reach.invite_url) if reach.invite_url is not None else None,
            messages=ChannelMessageCapability.from_capability(reach.messages),
            payment_requests=ChannelPaymentCapability.from_capability(reach.payment_requests),
        )


@strawberry.type(description="A connected payment processor. Secrets are write-only.")
class Processor(Node):
    row: strawberry.Private[tables.ProcessorConnection]
    kind: ProcessorKind = strawberry.field(description="Which processor.")
    provider: str = strawberry.field(
        description="The adapter behind it, e.g. stripe; of kind CUSTOM the plug-in's name."
    )
    display_name: str = strawberry.field(description="Its name for the team; contacts see it on the checkout page.")
    connected: bool = strawberry.field(
        description="Whether new payment requests can use it. Also false while the processor rejects its credentials."
    )
    is_default: bool = strawberry.field(description="Whether new payment requests use it unless they name another.")
    test_mode: bool = strawberry.field(description="Whether it is in test mode: no real money moves.")
    last_webhook_at: datetime | None = strawberry.field(description="When it last delivered a webhook; null: never.")
    last_error: str | None = strawberry.field(
        description="Its last error, and what to do; null: none. AccountUpdated reports changes."
    )
    key_hint: str | None = strawberry.field(description="The masked key, e.g. sk_…4242; null: it needs none.")

    @classmethod
    def from_row(cls, row: tables.ProcessorConnection) -> Self:
        return cls(
            id=strawberry.ID(public_id("prc", row.id)),
            row=row,
            kind=ProcessorKind[providers.processor_kind(row)],
            provider=row.processor,
            display_name=row.display_name,
            connected=row.connected,
            is_default=row.is_default,
            test_mode=row.test_mode,
            last_webhook_at=row.last_webhook_at,
            last_error=row.last_error,
            key_hint=row.key_hint,
        )

    @field("Where the processor must deliver its webhooks.")
    def webhook_url(self) -> URL:
        return URL(providers.webhook_url(self.row))

    @field("The currencies that it accepts; null while it is disconnected or its provider is not installed.")
    def currencies(self) -> list[CurrencyCode] | None:
        if not self.row.connected:
            return None
        try:
            processor = providers.processor(self.row)
        except errors.ProcessorUnavailable:
            return None
        return [code for code in ALL_CURRENCIES if processor.amount_limits(code) is not None]


@strawberry.type(description="Settings → Payments.")
class PaymentSettings:
    row: strawberry.Private[tables.Account]
    link_message_template: str = strawberry.field(
        description="The text that goes with a link; placeholders: {business} {amount} {product} {number} {link}."
    )

    @field("The kind of processor of new requests; null: none is connected and chosen, so each request must name one.")
    async def default_processor_kind(self, info: Info) -> ProcessorKind | None:
        row = await info.context.reads.default_processor()
        return ProcessorKind[providers.processor_kind(row)] if row is not None else None

    @field("All processors that are or were connected.")
    async def processors(self, info: Info) -> list[Processor]:
        return [Processor.from_row(row) for row in await info.context.reads.processors()]


@strawberry.type(description="A user in a list.")
class UserEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: User = strawberry.field(description="The user.")


@strawberry.type(description="The account's users, oldest first.")
class UserConnection:
    edges: list[UserEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[User] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field("How many there are. Counted up to 10,000; null: more.")
    async def total_count(self, info: Info) -> int | None:
        return await info.context.reads.users_count()

    @classmethod
    def from_slice(cls, page: Slice[tables.User]) -> Self:
        nodes = [User.from_row(row) for row in page.rows]
        cursors = [USERS.cursor(row.id) for row in page.rows]
        return cls(
            edges=[UserEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )


@strawberry.type(description="An API key in a list.")
class ApiKeyEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: ApiKey = strawberry.field(description="The API key.")


@strawberry.type(description="The account's API keys, oldest first, also revoked ones.")
class ApiKeyConnection:
    edges: list[ApiKeyEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[ApiKey] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field("How many there are. Counted up to 10,000; null: more.")
    async def total_count(self, info: Info) -> int | None:
        return await info.context.reads.api_keys_count()

    @classmethod
    def from_slice(cls, page: Slice[tables.ApiKey]) -> Self:
        nodes = [ApiKey.from_row(row) for row in page.rows]
        cursors = [API_KEYS.cursor(row.id) for row in page.rows]
        return cls(
            edges=[ApiKeyEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )


@strawberry.type(description="The tenant: it owns everything else. Nothing of one account is visible to another.")
class Account(Node):
    row: strawberry.Private[tables.Account]
    name: str = strawberry.field(description="The business's name, as contacts see it.")
    default_currency: CurrencyCode = strawberry.field(description="Currency of new payment requests.")
    locale: str = strawberry.field(
        description="Language and region, e.g. en-US: how messages, cards and pages write amounts and dates."
    )
    time_zone: str = strawberry.field(
        description="IANA time zone, e.g. Europe/Berlin: where days begin, for the dashboard and for due dates."
    )
    contact_email: str | None = strawberry.field(description="Shown on checkout pages; null: none.")
    contact_phone: str | None = strawberry.field(description="Shown on checkout pages, E.164; null: none.")
    number_prefix: str = strawberry.field(description="The prefix of payment requests' numbers.")

    @classmethod
    def from_row(cls, row: tables.Account) -> Self:
        return cls(
            id=strawberry.ID(public_id("acc", row.id)),
            row=row,
            name=row.name,
            default_currency=CurrencyCode(row.default_currency),
            locale=row.locale,
            time_zone=row.time_zone,
            contact_email=row.contact_email,
            contact_phone=row.contact_phone,
            number_prefix=row.number_prefix,
        )

    @field("Settings → Payments.")
    def payment_settings(self) -> PaymentSettings:
        return PaymentSettings(row=self.row, link_message_template=self.row.link_message_template)

    @field(f"The tags that contacts and conversations have or had, by name: the first {tags.MOST_SHOWN}.")
    async def tags(self, info: Info) -> list[str]:
        return list(await info.context.reads.tags())

    @field("Settings → Channels: all channels that are or were connected.")
    async def channels(self, info: Info) -> list[Channel]:
        return [Channel.from_row(row) for row in await info.context.reads.channels()]

    @field("The team: all users, oldest first, also disabled ones.")
    async def users(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> UserConnection:
        page = USERS.page(first=first, after=after, last=last, before=before)
        return UserConnection.from_slice(await info.context.reads.users(page))

    # Its module imports this one.
    async def _invitations(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Any:
        page = INVITATIONS.page(first=first, after=after, last=last, before=before)
        return await info.context.reads.invitation_connection(page)

    invitations: object = strawberry.field(
        resolver=_invitations,
        graphql_type=StrawberryOptional(cast("Any", LazyType("InvitationConnection", "schema.team"))),
        description="Invitations, newest first. For owners and admins, and keys that may manage keys: null with FORBIDDEN for others.",
    )

    @field("API keys, oldest first. For owners, and keys that may manage keys: null with FORBIDDEN for others.")
    async def api_keys(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> ApiKeyConnection | None:
        page = API_KEYS.page(first=first, after=after, last=last, before=before)
        return ApiKeyConnection.from_slice(await info.context.reads.api_keys(page))


@strawberry.type(description="What the payment request dialog shows before anything is typed.")
class PaymentRequestDefaults:
    currency: CurrencyCode = strawberry.field(description="The account's currency: preselected.")
    currencies: list[CurrencyCode] = strawberry.field(description="The currencies that can be chosen.")
    processor_kind: ProcessorKind | None = strawberry.field(
        description="The kind of processor of new requests; null: none is connected and chosen, so the $ icon is off with"
        " NO_PROCESSOR_CONFIGURED."
    )
    test_mode: bool = strawberry.field(description="Whether new requests are in test mode: no real money moves.")

    @classmethod
    def from_defaults(cls, defaults: Defaults) -> Self:
        row = defaults.processor
        return cls(
            currency=CurrencyCode(defaults.currency),
            currencies=[CurrencyCode(code) for code in defaults.currencies],
            processor_kind=ProcessorKind[providers.processor_kind(row)] if row is not None else None,
            test_mode=defaults.test_mode,
        )
