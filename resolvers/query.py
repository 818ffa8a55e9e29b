"""The root of queries. Nouns and their fields are in schema/."""

from __future__ import annotations

import asyncio
from typing import Annotated

import strawberry

from models.errors import NotFound
from models.ids import parse_public_id
from resolvers.access.reads import access, begin
from schema.account import Account, PaymentRequestDefaults
from schema.connections import (
    LARGEST_PAGE,
    MESSAGES,
    NOTIFICATIONS,
    VIEWS,
    After,
    Before,
    First,
    Last,
    keyset_of,
)
from schema.contact import Contact, ContactConnection
from schema.context import Info
from schema.conversation import Conversation, ConversationConnection
from schema.dashboard import DashboardFigures, dashboard_figures
from schema.describe import field
from schema.failures import bad_request, not_found
from schema.found_messages import MessageConnection
from schema.inputs.lists import (
    ContactsFilter,
    ContactsOrder,
    ConversationsFilter,
    ConversationsOrder,
    MessageText,
    OfConversation,
    OnChannels,
    RequestsFilter,
    RequestsOrder,
    SentAt,
    list_query,
    message_search,
)
from schema.inputs.messages import MessagePreviewInput
from schema.inputs.ranges import LAST_30_DAYS, GroupBy, PeriodArgument, board_of
from schema.notification import NotificationConnection, NotificationRules
from schema.payloads import MessagePreview
from schema.payment_request import PaymentRequest, PaymentRequestConnection
from schema.scalars import URL, Node
from schema.view import ViewConnection
from schema.viewer import Viewer
from services.payments import payment_requests, request_sending


@strawberry.type(description="Reads. Everything belongs to the viewer's account; other accounts are never visible.")
class Query:
    @field("The object behind an id; null for an unknown id, another account's id and malformed text.")
    async def node(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Any object's id.")]
    ) -> Node | None:
        return await (await begin(info)).node(id)

    @field("Like node, for several ids: answers in the same order, with null for unknown ids.")
    async def nodes(
        self, info: Info, ids: Annotated[list[strawberry.ID], strawberry.argument(description="At most 100 ids.")]
    ) -> list[Node | None]:
        if len(ids) > LARGEST_PAGE:
            raise bad_request(f"Give at most {LARGEST_PAGE} ids.")
        reads = await begin(info)
        return list(await asyncio.gather(*(reads.node(id) for id in ids)))

    @field("The viewer.")
    async def viewer(self, info: Info) -> Viewer:
        return Viewer.from_actor((await begin(info)).viewer)

    @field("The viewer's account.")
    async def account(self, info: Info) -> Account:
        return Account.from_row(await (await begin(info)).account())

    @field("One contact; null when there is none with this id.")
    async def contact(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The contact's id.")]
    ) -> Contact | None:
        reads = await begin(info)
        found = parse_public_id(id, "cnt")
        row = await reads.contact(found) if found is not None else None
        return Contact.from_row(row) if row is not None else None

    @field("Contacts.")
    async def contacts(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: ContactsFilter = None,
        order_by: ContactsOrder = None,
    ) -> ContactConnection:
        reads = await begin(info)
        query = list_query("contacts", filter, order_by)
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        return ContactConnection.from_slice(await reads.contacts(query, page), lambda: reads.total(query))

    @field("One conversation; null when there is none with this id.")
    async def conversation(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The conversation's id.")]
    ) -> Conversation | None:
        reads = await begin(info)
        found = parse_public_id(id, "cnv")
        row = await reads.conversation(found) if found is not None else None
        return Conversation.from_row(row) if row is not None else None

    @field("The inbox: conversations.")
    async def conversations(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: ConversationsFilter = None,
        order_by: ConversationsOrder = None,
    ) -> ConversationConnection:
        reads = await begin(info)
        query = list_query("conversations", filter, order_by)
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        return ConversationConnection.from_slice(await reads.conversations(query, page), lambda: reads.total(query))

    @field(
        "A message as it would go out now: text, length, SMS segments, and the errors that sending would"
        " give. Sends and stores nothing. Null with NOT_FOUND for an unknown id."
    )
    async def message_preview(
        self, info: Info, input: Annotated[MessagePreviewInput, strawberry.argument(description="The message.")]
    ) -> MessagePreview | None:
        conversation, channel = parse_public_id(input.conversation_id, "cnv"), parse_public_id(input.channel_id, "chn")
        request = parse_public_id(input.payment_request_id, "pr") if input.payment_request_id is not None else None
        viewer = access(info).viewer
        if conversation is None or channel is None or (request is None and input.payment_request_id is not None):
            raise not_found()
        try:
            made = await request_sending.preview(
                viewer,
                conversation_id=conversation,
                channel_id=channel,
                body=input.body,
                payment_request_id=request,
                template=input.template.to_template() if input.template is not None else None,
            )
        except NotFound:
            raise not_found() from None
        return await MessagePreview.from_preview(info, made)

    @field("One payment request; null when there is none with this id, or it was discarded.")
    async def payment_request(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The payment request's id.")]
    ) -> PaymentRequest | None:
        reads = await begin(info)
        found = parse_public_id(id, "pr")
        row = await reads.visible_request(found) if found is not None else None
        return PaymentRequest.from_row(row) if row is not None else None

    @field("The payment request with this number, e.g. PR-0042; null when there is none, or it was discarded.")
    async def payment_request_by_number(
        self, info: Info, number: Annotated[str, strawberry.argument(description="Its number.")]
    ) -> PaymentRequest | None:
        row = await (await begin(info)).request_by_number(number)
        return PaymentRequest.from_row(row) if row is not None else None

    @field(
        "The payment request behind a checkout link; null when there is none in this account, or it was discarded."
        " The page may have been opened under an earlier address of the server."
    )
    async def payment_request_by_link(
        self, info: Info, url: Annotated[URL, strawberry.argument(description="Its checkoutUrl, or the token alone.")]
    ) -> PaymentRequest | None:
        row = await (await begin(info)).request_by_link(url)
        return PaymentRequest.from_row(row) if row is not None else None

    @field("Payment requests of the whole account.")
    async def payment_requests(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: RequestsFilter = None,
        order_by: RequestsOrder = None,
    ) -> PaymentRequestConnection:
        reads = await begin(info)
        query = list_query("payment_requests", filter, order_by)
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        return PaymentRequestConnection.from_slice(
            await reads.payment_requests(query, page), lambda: reads.total(query)
        )

    @field("What the payment request dialog shows before anything is typed.")
    async def payment_request_defaults(self, info: Info) -> PaymentRequestDefaults:
        return PaymentRequestDefaults.from_defaults(await payment_requests.defaults(access(info).viewer))

    @field(
        "Messages in both directions whose subject or text contains `search`, newest first; only the first 2,000 characters of a"
        " text are searched. Messages that were removed are not found."
    )
    async def messages(
        self,
        info: Info,
        search: MessageText,
        conversation_id: OfConversation = None,
        channel_kinds: OnChannels = None,
        sent_at: SentAt = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> MessageConnection:
        reads = await begin(info)
        wanted = message_search(search, conversation_id, channel_kinds, sent_at)
        page = MESSAGES.page(first=first, after=after, last=last, before=before)
        return MessageConnection.from_slice(await reads.messages(wanted, page), lambda: reads.messages_count(wanted))

    @field("The viewer's notifications, newest first.")
    async def notifications(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> NotificationConnection:
        reads = await begin(info)
        page = NOTIFICATIONS.page(first=first, after=after, last=last, before=before)
        return NotificationConnection.from_slice(await reads.notifications(page), reads.notifications_count)

    @field("Of what the viewer is notified; null for an API key.")
    async def notification_rules(self, info: Info) -> NotificationRules | None:
        found = await (await begin(info)).notification_rules()
        return NotificationRules.from_rules(found) if found is not None else None

    @field("The dashboard's current figures.")
    async def dashboard(
        self, info: Info, period: PeriodArgument = LAST_30_DAYS, group_by: GroupBy = None
    ) -> DashboardFigures:
        return await dashboard_figures((await begin(info)).viewer.account_id, board_of(period, group_by))

    @field("The saved views that the viewer may use: the account's shared ones, and a user's own. Oldest first.")
    async def views(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> ViewConnection:
        reads = await begin(info)
        page = VIEWS.page(first=first, after=after, last=last, before=before)
        return ViewConnection.from_slice(await reads.views(page), reads.views_count)
