"""Types of the visitor API. services/web_chat/ decides what visitors see."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Self, TypeAlias

import strawberry

from models import vault
from models.errors import RateLimited, Refusal
from models.event_log import Cursor as LogCursor
from models.ids import public_id
from schema.describe import field, limited
from schema.failures import bad_request
from schema.scalars import URL, Cursor, Money, money, value
from services.web_chat import identity, thread, visits


def seal(position: LogCursor) -> Cursor:
    return Cursor(vault.seal(position.account_id, position.encode()))


def unseal(visit: identity.Visit, cursor: str) -> LogCursor | None:
    """None for other cursors."""
    try:
        return LogCursor.decode(vault.unseal(visit.account_id, cursor), visit.account_id)
    except (vault.VaultError, ValueError):
        return None


@strawberry.enum(description="Who wrote a message.")
class WrittenBy(Enum):
    VISITOR = value("VISITOR", description="The visitor, on this or another device.")
    BUSINESS = value("BUSINESS", description="The business.")


@strawberry.enum(description="The status of a payment.")
class PaymentCardStatus(Enum):
    OPEN = value("OPEN", description="It can be paid.")
    PROCESSING = value("PROCESSING", description="A payment is under way, or the request is being cancelled.")
    REVIEW = value(
        "REVIEW",
        description="A different amount arrived than was requested: the business checks it, and nothing can be paid now.",
    )
    PAID = value("PAID", description="It is paid; payUrl shows the receipt.")
    CANCELLED = value("CANCELLED", description="It can't be paid any more.")


_STATUS = {
    "open": PaymentCardStatus.OPEN,
    "processing": PaymentCardStatus.PROCESSING,
    "review": PaymentCardStatus.REVIEW,
    "paid": PaymentCardStatus.PAID,
    "void": PaymentCardStatus.CANCELLED,
}


@strawberry.enum(description="Why nothing was done.")
class VisitorErrorCode(Enum):
    BLANK = value("BLANK", description="A text is missing.")
    TOO_LONG = value("TOO_LONG", description="A text is too long.")
    INVALID = value("INVALID", description="A value is not valid.")
    RATE_LIMITED = value("RATE_LIMITED", description="Too many requests; try again in a minute.")
    WIDGET_CLOSED = value("WIDGET_CLOSED", description="There is no chat with this key, or not any more.")
    IDENTITY_REQUIRED = value(
        "IDENTITY_REQUIRED",
        description="The conversation belongs to a visitor who is signed in on the site: send the identity.",
    )
    IDENTITY_INVALID = value("IDENTITY_INVALID", description="The identity is forged, expired or for another visitor.")


@strawberry.type(description="A payment request, as its payer sees it.")
class PaymentCard:
    id: strawberry.ID = strawberry.field(description="The same in every answer about this request.")
    number: str = strawberry.field(description="What it is called on receipts, e.g. PR-0042.")
    product_name: str = strawberry.field(description="What it is for.")
    description: str | None = strawberry.field(description="More about it; null: nothing.")
    amount: Money = strawberry.field(description="What is asked for.")
    amount_due: Money = strawberry.field(description="The amount that is still due.")
    status: PaymentCardStatus = strawberry.field(description="Its status.")
    pay_url: URL = strawberry.field(description="Where it is paid, and later the receipt: open it in a tab of its own.")

    @classmethod
    def from_card(cls, card: thread.Card) -> Self:
        row = card.request
        return cls(
            id=strawberry.ID(public_id("pr", row.id)),
            number=row.number,
            product_name=row.product_name,
            description=row.description,
            amount=money(card.amount.amount_minor, row.currency),
            amount_due=money(card.due.amount_minor, row.currency),
            status=_STATUS[card.state],
            pay_url=URL(card.pay_url),
        )


@strawberry.type(description="A message between the visitor and the business.")
class VisitorMessage:
    id: strawberry.ID = strawberry.field(description="The same in every answer about this message.")
    cursor: Cursor = strawberry.field(description="Its place in the conversation, for `messages`.")
    written_by: WrittenBy = strawberry.field(description="Who wrote it.")
    author: str | None = strawberry.field(description="Its author at the business; null: the visitor.")
    body: str = strawberry.field(description="Its text, including the payment's address, if any.")
    sent_at: datetime = strawberry.field(description="When it was written.")
    client_message_id: str | None = strawberry.field(
        description="The id that this visitor's sendVisitorMessage gave; null on all other messages."
    )
    payments: list[PaymentCard] = strawberry.field(description="The payment requests in it.")

    @classmethod
    def from_shown(cls, shown: thread.Shown, at: LogCursor) -> Self:
        row = shown.row
        return cls(
            id=strawberry.ID(public_id("msg", row.id)),
            cursor=seal(LogCursor(at.epoch, at.account_id, row.seq)),
            written_by=WrittenBy.VISITOR if row.direction == "INBOUND" else WrittenBy.BUSINESS,
            author=shown.author,
            body=row.body,
            sent_at=row.occurred_at,
            client_message_id=shown.client_message_id,
            payments=[PaymentCard.from_card(card) for card in shown.cards],
        )


@strawberry.type(description="A page of the conversation, oldest first.")
class VisitorMessages:
    nodes: list[VisitorMessage] = strawberry.field(description="At most 50.")
    has_more: bool = strawberry.field(description="Whether there are more in the direction that was asked for.")


@strawberry.type(description="The business that the visitor chats with.")
class Business:
    name: str = strawberry.field(description="The business's name, as customers see it.")


Place: TypeAlias = Annotated[
    Cursor | None, strawberry.argument(description="The cursor of a message. With neither: the newest messages.")
]


@strawberry.type(description="The visitor's side of the conversation.")
class Visit:
    visit: strawberry.Private[identity.Visit]
    position: strawberry.Private[LogCursor]
    identified: bool = strawberry.field(description="Whether the site has identified the visitor.")

    @classmethod
    async def of(cls, visit: identity.Visit) -> Self:
        return cls(visit=visit, position=await thread.position(visit), identified=visit.external_id is not None)

    @field("The business that the visitor chats with.")
    async def business(self) -> Business:
        return Business(name=(await thread.business(self.visit)).name)

    @field("The conversation: the newest page, the one before a message, or the one after it.")
    async def messages(self, before: Place = None, after: Place = None) -> VisitorMessages:
        if before is not None and after is not None:
            raise bad_request("Give `before` or `after`, not both.")
        places = {
            name: self._seq(cursor) for name, cursor in (("before", before), ("after", after)) if cursor is not None
        }
        shown, more = await thread.page(self.visit, **places)
        return VisitorMessages(nodes=[VisitorMessage.from_shown(each, self.position) for each in shown], has_more=more)

    @field("Where to subscribe from: read before the data of this answer.")
    def event_cursor(self) -> Cursor:
        return seal(self.position)

    def _seq(self, cursor: str) -> int:
        found = unseal(self.visit, cursor)
        if found is None:
            raise bad_request("This is not a cursor of a message.")
        return found.seq


# ------------------------------------------------------------------------------------------------------------- inputs
@strawberry.input(description="The widget and its visitor.")
class StartVisitInput:
    widget_key: str = strawberry.field(description="The key in the widget's address.")
    token: str | None = strawberry.field(
        default=None,
        description=limited(
            "The token of an earlier visit. An unknown or expired token is replaced.", visits.TOKEN_LIMIT
        ),
    )
    identity: str | None = strawberry.field(
        default=None,
        description=limited(
            "A JWT of the site's server: HS256 with the identity secret; aud (the key), sub, iat, exp (24 h at most).",
            identity.IDENTITY_LIMIT,
        ),
    )


@strawberry.input(description="What the visitor writes.")
class SendVisitorMessageInput:
    client_message_id: str = strawberry.field(
        description="Made by the client, 8 to 64 letters, digits, - and _: a repeat with the same id is the same message."
    )
    body: str = strawberry.field(description=limited("The text.", thread.BODY_LIMIT))


@strawberry.input(description="What the widget has shown.")
class MarkShownInput:
    up_to: strawberry.ID = strawberry.field(description="The newest message that is shown, and all before it.")
    read: bool = strawberry.field(default=False, description="Whether a person can see it now.")


# ----------------------------------------------------------------------------------------------------------- payloads
@strawberry.interface(description="An expected failure. Its type names the facts that come with it.")
class VisitorError:
    code: VisitorErrorCode = strawberry.field(description="The stable code for programs.")
    message: str = strawberry.field(description="A message for people, in English.")
    field: list[str] | None = strawberry.field(description="Path in the input; null: no single field.")


@strawberry.type(description="An error without further facts.")
class VisitorFieldError(VisitorError):
    pass


@strawberry.type(description="RATE_LIMITED.")
class VisitorRateLimitError(VisitorError):
    retry_after_seconds: int = strawberry.field(description="When the next attempt can succeed.")


def visitor_errors(refusal: Refusal | identity.VisitRefused) -> list[VisitorError]:
    if isinstance(refusal, identity.VisitRefused):
        return [VisitorFieldError(code=VisitorErrorCode[refusal.code], message=refusal.message, field=None)]
    return [_visitor_error(each) for each in refusal.all]


def _visitor_error(refusal: Refusal) -> VisitorError:
    code = VisitorErrorCode[refusal.code]
    path = ["input", *refusal.field] if refusal.field else None
    if isinstance(refusal, RateLimited):
        after = refusal.retry_after_s
        return VisitorRateLimitError(code=code, message=refusal.message, field=path, retry_after_seconds=after)
    return VisitorFieldError(code=code, message=refusal.message, field=path)


@strawberry.interface(description="The base of every mutation's answer.")
class VisitorPayload:
    user_errors: list[VisitorError] = strawberry.field(
        default_factory=list,
        description=("Why nothing was done: one error for each wrong field, in the input's order. Empty: it was done."),
    )


@strawberry.type(description="Answer of startVisit.")
class StartVisitPayload(VisitorPayload):
    token: str | None = strawberry.field(
        default=None,
        description="Send it as Authorization: Bearer …, with the identity (if any) as Paythread-Identity. Null: refused.",
    )
    visit: Visit | None = strawberry.field(default=None, description="The conversation so far. Null: refused.")


@strawberry.type(description="Answer of sendVisitorMessage.")
class SendVisitorMessagePayload(VisitorPayload):
    message: VisitorMessage | None = strawberry.field(default=None, description="The message. Null: refused.")


@strawberry.type(description="Answer of markShown.")
class MarkShownPayload(VisitorPayload):
    pass


# ------------------------------------------------------------------------------------------------------------- events
@strawberry.interface(description="Something that happened.")
class VisitorEventBase:
    cursor: Cursor = strawberry.field(description="Pass it as `after` to go on behind this event.")


@strawberry.type(description="The feed is attached: everything after its cursor follows.")
class VisitorSubscribed(VisitorEventBase):
    pass


@strawberry.type(
    description=(
        "Not all missed events can be delivered: read the visit again, then subscribe from its eventCursor. Nothing follows."
    )
)
class VisitorResyncRequired(VisitorEventBase):
    reason: str = strawberry.field(description="The reason, as a code.")


@strawberry.type(description="A message is new or has changed: put it in its place by its id.")
class VisitorMessageChanged(VisitorEventBase):
    message: VisitorMessage = strawberry.field(description="The message as it is now.")


@strawberry.type(description="A payment has changed.")
class PaymentCardChanged(VisitorEventBase):
    card: PaymentCard = strawberry.field(description="The payment as it is now.")


VisitorEvent: TypeAlias = Annotated[
    VisitorSubscribed | VisitorResyncRequired | VisitorMessageChanged | PaymentCardChanged,
    strawberry.union("VisitorEvent", description="The events that a visitor receives."),
]
